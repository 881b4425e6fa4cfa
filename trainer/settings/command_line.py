"""The settings as absl flags."""

import dataclasses
import math
import os
from typing import Any, Iterable, Optional, Tuple

from absl import flags

from trainer.base import path_flags
from trainer.settings import table
from trainer.settings.table import HParams, Range


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
            define = path_flags.define if name.endswith('_dir') else flags.DEFINE_string
            define(name, default, text, flag_values=flag_values)
        else:
            parser, serializer = _NumberParser(type(default), allowed), flags.ArgumentSerializer()
            flags.DEFINE(parser, name, default, text, flag_values, serializer)


def define_flags_of_run(names: Iterable[str] = ()) -> None:
    """Defines the flags of a program that works on a finished run: `model_dir`, and `names`."""
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    define_flags(names)


def from_flags(flag_values: flags.FlagValues, image_shape: Tuple[int, int, int]) -> HParams:
    """Makes the table from parsed flags and the dataset's `image_shape`."""
    values = {row.name: getattr(flag_values, row.name) for row in table.settings()}
    hparams = HParams(image_shape=image_shape, **values)
    dataset = hparams.dataset.replace('*', 'x')  # TensorFlow would take it for a pattern.
    default = os.path.join('runs', '{}-z{}'.format(dataset, hparams.latent_size))
    return dataclasses.replace(hparams, model_dir=hparams.model_dir or default)
