"""Paths as users write them: the one place where those of flags are read.

A shell does not expand the `~` in `--model_dir=~/runs/x`. It would be a folder named `~`, and who
removes that by its name removes the home folder.
"""

import os
import re
from typing import Any, List, Optional

from absl import flags

from trainer.base.errors import UserError

# Where TensorFlow 1.14 asks whether a checkpoint is there, it takes the path for a pattern: * and ?
# in it stand for others too, [ and \ never for themselves.
_SPECIAL = re.compile(r'[*?[\\]')
# The paths below which checkpoints lie.
_OF_CHECKPOINTS = {
    'model_dir', 'background_model_dir', 'init_from', 'checkpoint', 'export_dir', 'flat_dir',
    'results_dir', 'work_dir',
}  # fmt: skip
flags.disclaim_key_flags()  # They are those of the module that calls `define`.


def expanded(path: str) -> str:
    """Returns `path` with a home folder for its `~` or `~user`; raises ValueError without one."""
    if not path.startswith('~'):
        return path
    user = path.split('/')[0][1:]
    whole = os.path.expanduser(path)
    if os.path.isabs(whole) and (user or os.environ.get('HOME') != ''):
        return whole
    if user:
        raise ValueError(
            f'there is no user {user}: give the whole path, or ./{path} for what has that name here'
        )
    raise ValueError(
        'the home folder is not known: set HOME to its absolute path, or give a path without ~'
    )


def of_flag(name: str, path: str) -> str:
    """Returns `expanded(path)` for a path that need not come from its flag; raises UserError."""
    try:
        return expanded(path)
    except ValueError as error:
        raise UserError(f'--{name}={path}: {error}.') from error


class _PathParser(flags.ArgumentParser):
    """Takes one path, or several with commas between them; of checkpoints, no pattern."""

    def __init__(self, several: bool, of_checkpoints: bool):
        self._several, self._of_checkpoints = several, of_checkpoints

    def parse(self, argument: Any) -> str:
        paths = [expanded(part) for part in (argument.split(',') if self._several else [argument])]
        special = _SPECIAL.search(''.join(paths))
        if special and self._of_checkpoints:
            raise ValueError(
                f'TensorFlow takes the {special.group()} in it for a part of a pattern: give a '
                'path without'
            )
        return ','.join(paths)

    def flag_type(self) -> str:
        return 'string'


def define(
    name: str,
    default: Optional[str],
    text: str,
    flag_values: Optional[flags.FlagValues] = None,
    several: bool = False,
    **more: Any,
) -> None:
    """Defines a flag that is a path, local or gs://, or several with commas between them."""
    parser = _PathParser(several, name in _OF_CHECKPOINTS)
    values = flags.FLAGS if flag_values is None else flag_values
    flags.DEFINE(parser, name, default, text, values, flags.ArgumentSerializer(), **more)


def names(flag_values: flags.FlagValues) -> List[str]:
    """Returns the names of the flags that are paths."""
    return [name for name in flag_values if isinstance(flag_values[name].parser, _PathParser)]


def naming(path: str, flag_values: Optional[flags.FlagValues] = None) -> str:
    """Returns `--flag=value` of the flag whose value leads to `path`, '' where none does.

    The path is at or below the value or, as a temporary file, beside it, perhaps after words of
    TF's and a colon.
    """
    values = flags.FLAGS if flag_values is None else flag_values
    parts = path.split(': ')
    places = [_absolute(': '.join(parts[start:])) for start in range(len(parts))]
    found = flag = ''
    for name in names(values):
        value = values[name].value
        for given in (value or '').split(','):
            below = re.compile(re.escape(_absolute(given)) + r'([/.].*)?')
            if len(given) > len(found) and any(map(below.fullmatch, places)):
                found, flag = given, f'--{name}={value}'
    return flag


def _absolute(path: str) -> str:
    return path if '://' in path else os.path.abspath(path)
