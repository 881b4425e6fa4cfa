"""What TensorFlow 1.14 says at its import and after, of which nobody here can act on most."""

import logging
import os

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
    """Hides TF's deprecation notices and INFO lines; call it before TensorFlow is imported."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1')  # Warnings and above.
    # Only permits what no session here asks for. Without it, 1.14 warns in every process that it
    # will not compile for the CPU.
    os.environ.setdefault('TF_XLA_FLAGS', '--tf_xla_cpu_global_jit')
    tensorflow_logger = logging.getLogger('tensorflow')
    if _is_worth_reading not in tensorflow_logger.filters:
        tensorflow_logger.addFilter(_is_worth_reading)
    # 1.14 writes each line itself; absl's handler, on the root logger, would write it again.
    tensorflow_logger.propagate = False
