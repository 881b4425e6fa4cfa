"""What reaches the terminal: real warnings and one-sentence errors, no chatter, no traceback."""

import logging
import os
import signal
import sys
from typing import Any, Callable, List, Optional

from absl import app

from trainer import errors
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


def run(main: Callable[[List[str]], Any], argv: Optional[List[str]] = None) -> None:
    """Parses the flags, runs `main`, exits; what went wrong is printed as one sentence.

    Exit codes: 1 after a UserError or a failure of the file system, 143 after SIGTERM, 130 after
    SIGINT. Other exceptions are defects, and keep their traceback.

    Args:
      main: called with what is no flag.
      argv: the command line, if not `sys.argv`.
    """

    from trainer import signals  # It imports TensorFlow, which silence_chatter comes before.

    def guarded(argv: List[str]) -> Any:
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
            sentence = errors.of_files(error)
            if sentence is None:
                raise
            print('error: {}'.format(sentence), file=sys.stderr)
            return 1

    app.run(guarded, argv)
