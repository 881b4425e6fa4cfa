"""What reaches the terminal: real warnings and one-sentence errors, no chatter, no traceback."""

import contextlib
import functools
import gc
import io
import signal
import sys
from typing import Any, Callable, List, Optional

from absl import app, flags

from trainer.base import errors, path_flags, signals, terminal
from trainer.base.errors import UserError

# Programs import this before all else. What they import stays: it is not worth looking for garbage
# among it again and again.
gc.set_threshold(100_000, 10, 10)


def expanded(argv: List[str], flag_values: flags.FlagValues = flags.FLAGS) -> List[str]:
    """Returns `argv` with the lines of its flag files in their place.

    Raises UserError where a flag file cannot be read, or includes itself, which absl passes over,
    or where an argument is not one line of text.
    """
    for number, argument in enumerate(argv[1:], 1):
        name, _, value = argument.partition('=')
        file = value or ''.join(argv[number + 1 : number + 2])
        if name in ('--flagfile', '-flagfile') and not file.strip():
            raise UserError('--flagfile needs the name of a file.')
    warnings = io.StringIO()
    try:
        with contextlib.redirect_stderr(warnings):
            arguments = flag_values.read_flags_from_files(argv[1:], force_gnu=False)
    except (flags.Error, OSError, ValueError) as error:
        raise UserError(f'--flagfile: a flag file cannot be read ({str(error)!r}).') from error
    if warnings.getvalue():
        raise UserError('--flagfile: a flag file includes itself.')
    for argument in arguments:
        if not terminal.is_text(argument):
            shown = repr(argument[:200])
            raise UserError(f'{shown} is not one line of UTF-8 text without control characters.')
    return argv[:1] + arguments


def _parse(argv: List[str]) -> List[str]:
    given = [argument for argument in argv[1:] if '-flagfile' in argument.partition('=')[0]]
    try:
        argv = expanded(argv)
        return flags.FLAGS(argv) if given else app.parse_flags_with_usage(argv)
    except (UserError, flags.Error) as error:
        # absl would not say that it read a file.
        where = f' (with {", ".join(given)})' if isinstance(error, flags.Error) else ''
        print(f'error: {error}{where}', file=sys.stderr)
        sys.exit(1)


def run(
    main: Callable[[List[str]], Any], argv: Optional[List[str]] = None, must_print: bool = True
) -> None:
    """Parses the flags, calls `main` with what is no flag, and exits with the `exit_code`.

    With 141 where nobody reads the output; `must_print` is that of `terminal.guarded`.
    """
    # What is imported stays, and so do graphs: to look for garbage among them again and again
    # delays each start.
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    with terminal.guarded(must_print):
        app.run(functools.partial(exit_code, main), argv, flags_parser=_parse)


def exit_code(main: Callable[[List[str]], Any], argv: List[str]) -> Any:
    """Calls `main`; what went wrong is printed as one sentence.

    Returns 1 after a UserError or a failure of the file system; 143, 130 or 129 after SIGTERM,
    SIGINT or SIGHUP; else what `main` returns. Other exceptions are defects, and keep their
    traceback.
    """
    try:
        if len(argv) > 1:
            raise UserError(f'unexpected argument {argv[1]!r}: settings are given as --name=value.')
        with signals.handled():
            return main(argv)
    except KeyboardInterrupt as error:
        number = getattr(error, 'number', signal.SIGINT)
        print(signals.sentence(number), file=sys.stderr)
        return signals.exit_code(number)
    except Exception as error:
        is_told = isinstance(error, UserError)
        sentence = str(error) if is_told else errors.of_files(error, path_flags.naming)
        if sentence is None:
            raise
        print('error: ' + sentence, file=sys.stderr)
        return 1
