"""What a run can do without: pictures, reports, profiles. None of it ends a training."""

import contextlib
from typing import Any, Iterator

import tensorflow as tf

from trainer.errors import UserError
from trainer.progress import say


@contextlib.contextmanager
def part(*files: str) -> Iterator[None]:
    """Says, whatever goes wrong, that `files` could not be made and why, and goes on.

    What ends the process still does: signals are no `Exception`.
    """
    try:
        yield
    except Exception as error:  # Of any library, and of any defect of ours.
        reason = (str(error).strip().splitlines() or [''])[0][:300]
        if not isinstance(error, UserError):
            reason = '{}: {}'.format(type(error).__name__, reason)
        say('{} could not be made ({}): going on without.'.format(', '.join(files), reason))


class ProfilerHook(tf.train.ProfilerHook):
    """TF's own, but that a profile which cannot be written is only left out."""

    def _save(self, step: int, save_path: str, step_stats: Any) -> None:
        with part(save_path):
            super()._save(step, save_path, step_stats)
