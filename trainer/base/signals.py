"""How a process ends when it is told to: SIGTERM (a preemption), SIGINT (Ctrl-C), SIGHUP.

A training finishes its step, saves it, and ends; everything else ends at once, since every file is
written whole or not at all. The exit code is the shell's for the signal: 143, 130 or 129.

Python runs signal handlers in the main thread, when that comes back from C++. Where it does not, as
while a session waits for a parameter server, another thread ends the process.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional

_WORDS: Dict[int, str] = {
    signal.SIGTERM: 'terminated',
    signal.SIGINT: 'interrupted',
    signal.SIGHUP: 'hung up',
}
# Of the 10 in which every process has ended that has nothing to finish.
_SECONDS_TO_END = 8.0
_SECONDS_BETWEEN_LOOKS = 1.0


class Interrupted(KeyboardInterrupt):
    """Ends the process on behalf of a signal; libraries know it as Ctrl-C, and do not catch it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _State:
    """What the handler has to know. A process has one set of handlers, so one of these."""

    def __init__(self) -> None:
        self.received: Optional[int] = None  # The first signal.
        self.deferred = False  # A training step or its saving is under way, and has to be finished.
        self.saved_step: Optional[int] = None  # Of the last checkpoint that this process saved.
        # What it is deferred for waits for another process, and that is gone.
        self.is_hopeless: Callable[[], bool] = lambda: False


state = _State()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Turns the first signal into `Interrupted`; a Ctrl-C after it ends the process at once.

    A signal that is ignored, as SIGINT is in the background of a shell script and SIGHUP under
    `nohup`, stays so.
    """
    global state
    state = _State()
    before = {number: signal.getsignal(number) for number in _WORDS}
    handle_with(_handle)
    try:
        with _watched():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        state.received, state.deferred = None, False


def handle_with(handler: Callable[[int, Any], None]) -> None:
    """Has `handler` handle each of the signals that is not ignored."""
    for number in _WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _handle(number: int, frame: Any) -> None:
    del frame
    if state.received is not None:
        if number == signal.SIGINT:
            os._exit(exit_code(number))
        return
    state.received = number
    if not state.deferred:
        raise Interrupted(number)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Lets a thread see to it that a signal ends the process."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[reading, state], daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)  # This ends the thread.


def _watch(pipe: int, state: _State) -> None:
    """Ends the process on behalf of the first signal, where the main thread does not in time.

    The numbers of the signals come from `pipe`, a byte each. `state.deferred` gives the main thread
    all the time that it needs, unless `is_hopeless`.
    """
    told, deadline = None, 0.0
    while True:
        timeout = None if told is None else _SECONDS_BETWEEN_LOOKS
        if select.select([pipe], [], [], timeout)[0]:
            number = ord(os.read(pipe, 1) or b'\0')
            if not number:
                os.close(pipe)
                return
            if number == signal.SIGINT and told is not None:
                os._exit(exit_code(number))
            if number in _WORDS and told is None:
                told, deadline = number, time.monotonic() + _SECONDS_TO_END
        if told is not None and state.deferred and not state.is_hopeless():
            deadline = time.monotonic() + _SECONDS_TO_END
        elif told is not None and (state.deferred or time.monotonic() > deadline):
            _leave(told)


def _leave(number: int) -> None:
    """Ends the process without a cleanup."""
    try:
        print(sentence(number), file=sys.stderr, flush=True)
    finally:
        os._exit(exit_code(number))


def finish_unless(is_hopeless: Callable[[], bool]) -> None:
    """Ends the process amid a step, once told to, if `is_hopeless`, which a thread calls."""
    state.is_hopeless = is_hopeless


def exit_code(number: int) -> int:
    """The exit code of a process that a signal has ended, as shells have it."""
    return 128 + number


def sentence(number: int) -> str:
    """Says that the process was told to end, and how to go on."""
    words, step = _WORDS[number], state.saved_step
    if step is None:
        return f'{words}: the same command goes on from what was last saved.'
    return f'{words}: step {step:,} is saved, and the same command goes on from it.'


def leave_at_once() -> None:
    """From now on a signal ends a worker without a cleanup: it saves nothing, and its session would
    wait for parameter servers."""
    for number in _WORDS:
        if signal.getsignal(number) == _handle:
            signal.signal(number, lambda number, frame: _leave(number))
