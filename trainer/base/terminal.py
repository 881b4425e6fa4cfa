"""What a program prints: the one writer to stdout and stderr, which outlives both.

A terminal that is closed under `nohup` or `disown`, or the end of the `head` that was reading, must
not end a training at its next line of progress. All messages go through `sys.stderr` and
`sys.stdout`, so those are replaced: those of `print`, tqdm, warnings, absl and TensorFlow alike.
"""

import contextlib
import errno
import os
import signal
import sys
import unicodedata
from typing import Any, Iterator, TextIO, cast

# The other end is not there any more, and will not be again.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)
_CODE_OF_A_CLOSED_PIPE = 128 + signal.SIGPIPE  # As of a program that the signal has ended.


class _Stream:
    """A text stream that drops what cannot be written, or ends the program where it may not."""

    def __init__(self, stream: TextIO, must_print: bool):
        self._stream, self._must_print = stream, must_print

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._losses():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._losses():
            self._stream.flush()

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError):  # It is closed; or a signal came amid a line.
            pass
        except OSError as error:
            if error.errno in _GONE or self._must_print:
                self._discard()
            if self._must_print:
                self._end(error)

    def _discard(self) -> None:
        """Has all that is still to be written go nowhere, also by C++ and at Python's end."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def _end(self, error: OSError) -> None:
        if error.errno == errno.EPIPE:
            sys.exit(_CODE_OF_A_CLOSED_PIPE)
        print(f'error: the output cannot be written ({error.strerror}).', file=sys.stderr)
        sys.exit(1)

    def finish(self) -> None:
        """Writes what waits; Python would print a traceback, at its end, for what it cannot."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._discard()
            if self._must_print and isinstance(error, OSError):
                self._end(error)


@contextlib.contextmanager
def guarded(must_print: bool) -> Iterator[None]:
    """Lets nothing that cannot be printed end what is done meanwhile.

    With `must_print`, stdout is the result: where it cannot be written, the program ends, quietly
    with code 141 if its reader has gone (`| head -1`), else with a sentence and 1.
    """
    before = sys.stdout, sys.stderr
    with open(os.devnull, 'w') as nowhere:
        # None where the process was started with that one closed.
        stdout = _Stream(_of_all_letters(before[0] or nowhere), must_print)
        stderr = _Stream(_of_all_letters(before[1] or nowhere), must_print=False)
        sys.stdout, sys.stderr = cast(TextIO, stdout), cast(TextIO, stderr)
        with contextlib.ExitStack() as at_the_end:
            at_the_end.callback(setattr, sys, 'stdout', before[0])
            at_the_end.callback(setattr, sys, 'stderr', before[1])
            at_the_end.callback(stderr.finish)
            at_the_end.callback(stdout.finish)
            yield


def _of_all_letters(stream: TextIO) -> TextIO:
    """Has the stream write those that its encoding lacks as `\\xfc`, where it would raise."""
    if getattr(stream, 'errors', None) == 'strict':
        with contextlib.suppress(AttributeError):  # Of a stream of someone else's.
            cast(Any, stream).reconfigure(errors='backslashreplace')
    return stream


def is_text(value: str) -> bool:
    """Whether it is one line that can be printed and be the name of a file.

    Nothing in it is a control character, or a surrogate for a byte that is not UTF-8.
    """
    return not any(unicodedata.category(character) in ('Cc', 'Cs') for character in value)
