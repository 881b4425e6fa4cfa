"""What reaches the terminal: real warnings and one-sentence errors, no chatter, no traceback."""

import logging
import sys
from typing import Any, Callable, List

import tensorflow as tf
from absl import app

from trainer.errors import UserError

# TF 1.14 warns of its own deprecated calls, hundreds of lines that nobody here can act on.
_CHATTER = ('is deprecated', 'are deprecated', 'was deprecated', 'Instructions for updating')


def _is_worth_reading(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(part in message for part in _CHATTER)


def silence_chatter() -> None:
    """Hides TF's deprecation notices and its INFO lines; warnings and errors still show."""
    tf.logging.set_verbosity(tf.logging.WARN)
    tensorflow_logger = logging.getLogger('tensorflow')
    if _is_worth_reading not in tensorflow_logger.filters:
        tensorflow_logger.addFilter(_is_worth_reading)


def run(main: Callable[[List[str]], Any]) -> None:
    """Parses the flags, runs `main`, exits: 1 after a UserError, whose sentence is printed."""

    def guarded(argv: List[str]) -> Any:
        silence_chatter()
        try:
            if len(argv) > 1:
                raise UserError(
                    'unexpected argument {!r}: settings are given as --name=value.'.format(argv[1])
                )
            return main(argv)
        except UserError as error:
            print('error: {}'.format(error), file=sys.stderr)
            return 1

    app.run(guarded)
