"""What reaches the terminal: real warnings and one-sentence errors, no chatter, no traceback."""

import contextlib
import functools
import io
import logging
import os
import signal
import sys
import unicodedata
from typing import Any, Callable, List, Optional

from absl import app, flags

from trainer import errors, path_flags, terminal
from trainer.errors import UserError

# TF 1.14 warns of its own deprecated calls, hundreds of lines that nobody here can act on.
_CHATTER = (
    'is deprecated',
    'are deprecated',
    'was deprecated',
    'Instructions for updating',
    'contrib module will not be included in TensorFlow 2.0',
    # An evaluator of a cluster, while it waits.
    'Estimator is not trained yet',
    'No new checkpoint ready for evaluation',
)


def _is_worth_reading(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return record.levelno >= logging.WARNING and not any(part in message for part in _CHATTER)


def silence_chatter() -> None:
    """Hides TF's deprecation notices and INFO lines; warnings and errors still show.

    It has to be called before TensorFlow is imported: some notices come during the import, and the
    runtime reads its log level then (0: INFO and above, 1: warnings and above).
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1')
    # Without it, 1.14 warns in every process that it will not compile for the CPU. The flag only
    # permits what no session here asks for.
    os.environ.setdefault('TF_XLA_FLAGS', '--tf_xla_cpu_global_jit')
    tensorflow_logger = logging.getLogger('tensorflow')
    if _is_worth_reading not in tensorflow_logger.filters:
        tensorflow_logger.addFilter(_is_worth_reading)
    # 1.14 writes each line itself; absl's handler, on the root logger, would write it again.
    tensorflow_logger.propagate = False


def is_text(value: str) -> bool:
    """Whether it is one line that can be printed and be the name of a file.

    Without control characters, NUL and newline among them, and without the surrogates that stand
    for bytes of a command line that are not UTF-8.
    """
    return not any(unicodedata.category(character) in ('Cc', 'Cs') for character in value)


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
        if not is_text(argument):
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
    from trainer import signals  # It imports TensorFlow, which silence_chatter comes before.

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
