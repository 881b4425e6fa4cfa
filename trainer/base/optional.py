"""What a run can do without: pictures, reports, profiles. None of it ends a training."""

import contextlib
from typing import Iterator

from trainer.base.console import say
from trainer.base.errors import UserError, first_line


@contextlib.contextmanager
def part(*files: str) -> Iterator[None]:
    """Says, whatever goes wrong, that `files` could not be made and why; signals pass."""
    try:
        yield
    except Exception as error:  # Of any library, and of any defect of ours.
        kind = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
        reason = kind + first_line(error)
        say(f'{", ".join(files)} could not be made ({reason}): going on without.')
