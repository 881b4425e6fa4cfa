"""What reaches the terminal: real warnings and one-sentence errors, no chatter, no traceback."""

import contextlib
import functools
import io
import signal
import sys
from typing import Any, Callable, List, Optional

from absl import app, flags

from trainer.base import errors, path_flags, signals, terminal
from trainer.base.errors import UserError


def expanded(argv: List[str], flag_values: flags.FlagValues = flags.FLAGS) -> List[str]:
    """Returns `argv` with the lines of its flag files in their place.

    absl passes over a file that includes itself and over an empty name, and fails in a file that
    is not text.

    Raises:
      UserError: a flag file cannot be read, or an argument is not one line of text.
    """
    for number, argument in enumerate(argv[1:], 1):
        name, _, value = argument.partition('=')
        if (
            name in ('--flagfile', '-flagfile')
            and not (value or ''.join(argv[number + 1 : number + 2])).strip()
        ):
            raise UserError('--flagfile needs the name of a file.')
    warnings = io.StringIO()
    try:
        with contextlib.redirect_stderr(warnings):
            arguments = flag_values.read_flags_from_files(argv[1:], force_gnu=False)
    except (flags.Error, OSError, ValueError) as error:
        raise UserError(
            '--flagfile: a flag file cannot be read ({!r}).'.format(str(error))
        ) from error
    if warnings.getvalue():
        raise UserError('--flagfile: a flag file includes itself.')
    for argument in arguments:
        if not terminal.is_text(argument):
            raise UserError(
                '{!r} is not one line of UTF-8 text without control characters.'.format(
                    argument[:200]
                )
            )
    return argv[:1] + arguments


def _parse(argv: List[str]) -> List[str]:
    given = [argument for argument in argv[1:] if '-flagfile' in argument.partition('=')[0]]
    try:
        argv = expanded(argv)
        return flags.FLAGS(argv) if given else app.parse_flags_with_usage(argv)
    except (UserError, flags.Error) as error:
        # absl would not say that it read a file.
        where = ' (with {})'.format(', '.join(given)) if isinstance(error, flags.Error) else ''
        print('error: {}{}'.format(error, where), file=sys.stderr)
        sys.exit(1)


def run(
    main: Callable[[List[str]], Any], argv: Optional[List[str]] = None, must_print: bool = True
) -> None:
    """Parses the flags, calls `main`, exits; 141 where nobody reads the output, else `exit_code`'s.

    Args:
      main: called with what is no flag.
      argv: the command line, if not `sys.argv`.
      must_print: see `terminal.guarded`.
    """
    with terminal.guarded(must_print):
        app.run(functools.partial(exit_code, main), argv, flags_parser=_parse)


def exit_code(main: Callable[[List[str]], Any], argv: List[str]) -> Any:
    """Calls `main`; what went wrong is printed as one sentence.

    Returns:
      1 after a UserError or a failure of the file system; 143 after SIGTERM, 130 after SIGINT, 129
      after SIGHUP; else what `main` returns. Other exceptions are defects, and keep their
      traceback.
    """
    try:
        if len(argv) > 1:
            raise UserError(
                'unexpected argument {!r}: settings are given as --name=value.'.format(argv[1])
            )
        with signals.handled():
            return main(argv)
    except UserError as error:
        print('error: {}'.format(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        number = getattr(error, 'number', signal.SIGINT)
        print(signals.sentence(number), file=sys.stderr)
        return signals.exit_code(number)
    except Exception as error:
        sentence = errors.of_files(error, path_flags.naming)
        if sentence is None:
            raise
        print('error: {}'.format(sentence), file=sys.stderr)
        return 1
