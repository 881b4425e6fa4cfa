"""What a run can do without: pictures, reports, profiles. None of it ends a training."""

import contextlib
from typing import Iterator

from trainer.base.console import say
from trainer.base.errors import UserError, first_line


@contextlib.contextmanager
def part(*files: str) -> Iterator[None]:
    """Says, whatever goes wrong, that `files` could not be made and why, and goes on.

    What ends the process still does: signals are no `Exception`.
    """
    try:
        yield
    except Exception as error:  # Of any library, and of any defect of ours.
        reason = first_line(error)
        if not isinstance(error, UserError):
            reason = '{}: {}'.format(type(error).__name__, reason)
        say('{} could not be made ({}): going on without.'.format(', '.join(files), reason))
