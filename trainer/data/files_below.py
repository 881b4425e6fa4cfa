"""The files in a folder of the user's, in any depth."""

import os
import stat
from typing import Iterator, List, NamedTuple, Tuple

from trainer.base import errors
from trainer.base.console import say
from trainer.base.errors import UserError

_SHOWN = 5


class File(NamedTuple):
    path: str  # Below the folder, with / between its parts.
    size: int  # Bytes.
    changed: int  # When, in nanoseconds.


def tell_left_out(folder: str, paths: List[str], what: str = 'image') -> None:
    """Says which files below a folder are none of what is wanted, if some are."""
    if paths:
        names = errors.some(list(map(errors.printable, paths)), _SHOWN)
        say(f'{folder}: left out what is no {what}: {names}.')


def listing(
    folder: str, endings: Tuple[str, ...], flag: str = '--source'
) -> Tuple[List[File], List[str]]:
    """Returns the files below a folder that end so, sorted, and the paths of the others.

    Links are followed, each folder is entered once. Raises UserError where it cannot be read.
    """
    found: List[File] = []
    others: List[str] = []
    try:
        for path, entry in _below(folder):
            status = entry.stat() if _is_named_so(entry.name, endings) else None
            # Nothing else may be read: a pipe would wait, a device may never end.
            if status and stat.S_ISREG(status.st_mode):
                found.append(File(path, status.st_size, status.st_mtime_ns))
            else:
                others.append(path)
    except OSError as error:
        raise UserError(
            f'{flag}={folder}: {error.filename or folder} cannot be read '
            f'({errors.reason(error)}): {errors.remedy(error)}.'
        ) from error
    return sorted(found), sorted(others)


def holds(folder: str, endings: Tuple[str, ...]) -> bool:
    """Whether a file that ends so lies below a folder; False where it cannot be read."""
    try:
        return any(_is_named_so(entry.name, endings) for _, entry in _below(folder))
    except OSError:
        return False


def _is_named_so(name: str, endings: Tuple[str, ...]) -> bool:
    return name.lower().endswith(endings) and not name.startswith('.')


def _below(folder: str) -> Iterator[Tuple[str, 'os.DirEntry[str]']]:
    """Yields what lies below a folder, but no folders except hidden ones, which are not entered."""
    entered, to_enter = set(), ['']
    while to_enter:
        below = to_enter.pop()
        status = os.stat(os.path.join(folder, below))
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(os.path.join(folder, below)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                path = f'{below}/{entry.name}' if below else entry.name
                if entry.is_dir() and not entry.name.startswith('.'):
                    to_enter.append(path)  # The first name comes last, and is entered first.
                else:
                    yield path, entry
