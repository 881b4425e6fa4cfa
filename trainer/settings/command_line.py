"""The settings as absl flags."""

import dataclasses
import math
import os
from typing import Any, Iterable, List, Optional

from absl import flags

from trainer.base import path_flags
from trainer.base.errors import UserError
from trainer.settings import rules, table
from trainer.settings.ranges import Range
from trainer.settings.table import HParams

# The flags that say which images, and where they are prepared.
OF_IMAGES = (
    'dataset', 'source', 'data_dir', 'idx_dir', *rules.OF_IMAGE_FILES, *rules.OF_SERIES,
)  # fmt: skip


class _NumberParser(flags.ArgumentParser):
    """Refuses a number outside of its setting's range, in a sentence that states the range."""

    def __init__(self, kind: type, allowed: Range):
        self._kind, self._allowed = kind, allowed
        self.syntactic_help = 'a number {}'.format(allowed)

    def parse(self, argument: Any) -> Any:
        try:
            value = self._kind(argument)
        except (ValueError, OverflowError):
            value = math.nan
        if value not in self._allowed:
            kind = 'a whole number' if self._kind is int else 'a finite number'
            raise ValueError('it must be {} {}'.format(kind, self._allowed))
        return value

    def flag_type(self) -> str:
        return self._kind.__name__


def define_flags(
    names: Optional[Iterable[str]] = None, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines an absl flag in `flag_values` for each setting, or for those of `names`."""
    for row in table.settings():
        if names is not None and row.name not in names:
            continue
        name, default, text = row.name, row.default, row.metadata['help']
        choices, allowed = row.metadata['choices'], row.metadata['range']
        if choices:
            flags.DEFINE_enum(name, default, choices, text, flag_values=flag_values)
        elif allowed is None:
            define = path_flags.define if name in table.paths() else flags.DEFINE_string
            define(name, default, text, flag_values=flag_values)
        else:
            parser, serializer = _NumberParser(type(default), allowed), flags.ArgumentSerializer()
            flags.DEFINE(parser, name, default, text, flag_values, serializer)


def define_flags_of_run(names: Iterable[str] = ()) -> None:
    """Defines the flags of a program that works on a finished run: `model_dir`, and `names`."""
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    define_flags(names, flags.FLAGS)


def of_images(flag_values: flags.FlagValues) -> HParams:
    """Makes a table of the flags that name images, or of all that are defined, and checks it.

    Raises UserError where both `--dataset` and `--source` name images, or others do not fit.
    """
    names = [row.name for row in table.settings() if row.name in flag_values]
    values = {name: getattr(flag_values, name) for name in names}
    if values['source']:
        if flag_values['dataset'].present:
            raise UserError(
                '--dataset={dataset} and --source={source} both name images: give one.'.format(
                    **values
                )
            )
        values['dataset'] = ''
        if 'likelihood' in values and not flag_values['likelihood'].present:
            values['likelihood'] = rules.UNDECIDED  # Only the kind of the data tells.
    params = HParams(**values)
    rules.check_images(params)
    return params


def given(flag_values: flags.FlagValues) -> List[str]:
    """Returns the names of the settings that the command line has."""
    return [row.name for row in table.settings() if flag_values[row.name].present]


def from_flags(flag_values: flags.FlagValues) -> HParams:
    """Makes the table from parsed flags; `image_shape` is MNIST's until the data is known.

    Raises UserError as `of_images` does.
    """
    params = of_images(flag_values)
    name = params.data_name.replace('*', 'x')  # TensorFlow would take it for a pattern.
    default = os.path.join('runs', '{}-z{}'.format(name, params.latent_size))
    return dataclasses.replace(params, model_dir=params.model_dir or default)
