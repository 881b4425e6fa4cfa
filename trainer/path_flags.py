"""Paths as users write them: the one place where those of flags are read.

A shell expands `~` at the start of a word, but not in `--model_dir=~/runs/x`. Taken as it stands it
would be a folder named `~`, and who removes that by its name removes the home folder.
"""

import os
from typing import Any, Optional

from absl import flags

from trainer.errors import UserError

flags.disclaim_key_flags()  # They are those of the module that calls `define`.


def expanded(path: str) -> str:
    """Returns `path` with `~` or `~user` at its start as the home folder; others as they are.

    Raises:
      ValueError: there is no such home folder; the message is the reason, and what to do.
    """
    if not path.startswith('~'):
        return path
    user = path.split('/')[0][1:]
    whole = os.path.expanduser(path)
    if os.path.isabs(whole) and (user or os.environ.get('HOME') != ''):
        return whole
    if user:
        raise ValueError(
            'there is no user {}: give the whole path, or ./{} for what has that name here'.format(
                user, path
            )
        )
    raise ValueError(
        'the home folder is not known: set HOME to its absolute path, or give a path without ~'
    )


def of_flag(name: str, path: str) -> str:
    """Returns `expanded(path)`, for a path that may have come another way than by its flag.

    Raises:
      UserError: names the flag.
    """
    try:
        return expanded(path)
    except ValueError as error:
        raise UserError('--{}={}: {}.'.format(name, path, error)) from error


class _PathParser(flags.ArgumentParser):
    """Takes one path, or several with commas between them."""

    def __init__(self, several: bool):
        self._separator = ',' if several else None

    def parse(self, argument: Any) -> str:
        parts = argument.split(self._separator) if self._separator else [argument]
        return ','.join(expanded(part) for part in parts)

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
    """Defines a flag that is a path, or several with commas between them; local or gs://.

    Args:
      flag_values: where it is defined; None for absl's own.
      more: what `flags.DEFINE` takes, such as `required`.
    """
    flags.DEFINE(
        _PathParser(several),
        name,
        default,
        text,
        flag_values=flags.FLAGS if flag_values is None else flag_values,
        serializer=flags.ArgumentSerializer(),
        **more,
    )
