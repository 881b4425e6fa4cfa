"""The settings that a run leaves in its folder, and what a later start may change of them."""

import dataclasses
import os
import sys
from typing import Any, Dict, Optional, Tuple

import numpy as np
import tensorflow as tf

from trainer.base import files, terminal
from trainer.base.errors import UserError
from trainer.settings import rules, table
from trainer.settings.table import HParams

FILE_NAME = 'hyper_parameters.json'


def save(hparams: HParams) -> str:
    """Writes the table to its `model_dir`; returns the file's path."""
    path = os.path.join(hparams.model_dir, FILE_NAME)
    return files.write_json(path, dataclasses.asdict(hparams))


def load(model_dir: str, flag: str = 'model_dir') -> Optional[HParams]:
    """Reads the table that a run left in `model_dir`, the value of `flag`; None where none is.

    Raises:
      UserError: the file is there, but is not such a table.
    """
    path = os.path.join(model_dir, FILE_NAME)
    try:
        values = files.read_json(path)
    except tf.errors.OpError as error:
        raise UserError(
            f'--{flag}={model_dir}: its {FILE_NAME} cannot be read ({error.message}).'
        ) from error
    except UserError as error:
        raise UserError(
            f'{error} The model card of each export, export/*/*/assets.extra/README.md in the '
            'folder, ends with what belongs there.'
        ) from error
    return None if values is None else _from_json(values, path, flag)


def _from_json(values: Any, path: str, flag: str) -> HParams:
    try:
        values['image_shape'] = tuple(values['image_shape'])
        # Runs of before there was that setting had no noise.
        values.setdefault('dequantization', 'none')
        values['scaling'] = tuple(map(tuple, values.get('scaling', ())))
        hparams = HParams(**values)
        _check_values(hparams)
        rules.check_consistent(hparams)
    except (TypeError, KeyError, AttributeError, UserError) as error:
        raise UserError(
            f'{path} does not hold the settings of this trainer ({error}): choose another --{flag}.'
        ) from error
    return hparams


def _check_values(hparams: HParams) -> None:
    """Refuses what no flag could have set; of a file anything can be expected.

    Raises:
      UserError: names the setting.
    """
    for row in table.settings():
        value, allowed = getattr(hparams, row.name), row.metadata['range']
        choices = row.metadata['choices']
        if allowed is not None:
            kinds: Tuple[type, ...] = (int,) if type(row.default) is int else (int, float)
            good = type(value) in kinds and value in allowed
        else:
            good = type(value) is str and terminal.is_text(value) and value in (choices or [value])
        if not good:
            raise UserError(f'{row.name} cannot be {value!r:.100}')
    for name in ('source_digest', 'dtype', 'init_checkpoint', 'init_digest'):
        value = getattr(hparams, name)
        if type(value) is not str or not terminal.is_text(value):
            raise UserError(f'{name} cannot be {value!r:.100}')
    shape = hparams.image_shape
    if len(shape) != 3 or not all(type(side) is int and side in table.SIZE for side in shape):
        raise UserError(f'image_shape cannot be {shape!r:.100}')
    if hparams.scaling and (len(hparams.scaling) != shape[2] or shape[1] != 1):
        raise UserError(f'scaling cannot be of {len(hparams.scaling):,} columns')
    for column in hparams.scaling:
        if not _is_column(column):
            raise UserError(f'scaling cannot hold {column!r:.100}')


def _is_column(value: Tuple[Any, ...]) -> bool:
    kinds = [type(part) for part in value]
    return (
        len(kinds) == 3
        and kinds[0] is str
        and set(kinds[1:]) <= {int, float}
        and bool(np.all(np.isfinite(value[1:])))
        and value[2] > 0
        and terminal.is_text(value[0])
    )


def versions() -> Dict[str, str]:
    """Returns those of the software that a record's numbers come from."""
    return {'python': sys.version.split()[0], 'tensorflow': tf.__version__, 'numpy': np.__version__}


def nothing_trained(
    model_dir: str, missing: str = 'trained model', flag: str = 'model_dir'
) -> UserError:
    """Returns the error that `model_dir`, the value of `flag`, lacks what is needed of a run."""
    return UserError(
        f'--{flag}={model_dir} holds no {missing}: give the folder of a run of trainer.task.'
    )


def trained(model_dir: str) -> HParams:
    """Returns the settings of the model in `model_dir`, wherever the folder was since moved to.

    Raises:
      UserError: no run has left its settings there.
    """
    params = load(model_dir)
    if params is None:
        raise nothing_trained(model_dir)
    return dataclasses.replace(params, model_dir=model_dir)


def dataset_is_undecided(params: HParams) -> bool:
    """Whether `static` may mean either MNIST sampled here or Larochelle's images."""
    return params.dataset == 'mnist' and params.binarization == 'static'


def with_recorded_dataset(params: HParams, recorded: HParams) -> HParams:
    """Returns `params` with the dataset that the recorded run took where theirs is open."""
    is_static = dataset_is_undecided(params) and recorded.binarization == 'static'
    if is_static and table.is_binary(recorded.dataset):
        return dataclasses.replace(params, dataset=recorded.dataset)
    return params


# What the end and the work after it go by, and no step.
_FINAL_WORK = (
    'early_stopping_patience',
    'evaluation_samples',
    'exports_to_keep',
    'num_images',
    'num_threads',
)


def of_finished(params: HParams, recorded: HParams) -> HParams:
    """Returns the settings that a run was trained with, for a start that trains it no further.

    Folders, and what only the final work goes by, are those of `params`.
    """
    values = {name: getattr(params, name) for name in (*table.paths(), *_FINAL_WORK)}
    return dataclasses.replace(recorded, **values)


def check_resumable(hparams: HParams, recorded: HParams) -> None:
    """Refuses to go on with a run under settings other than its own.

    Raises:
      UserError: a fixed setting differs; the message holds each with both values.
    """
    new, old = map(dataclasses.asdict, (with_recorded_dataset(hparams, recorded), recorded))
    fixed = [row.name for row in dataclasses.fields(HParams) if row.metadata['fixed']]
    if new['source'] and not new['source_digest']:  # Only the preparation tells which images.
        known = ('image_shape', 'scaling', 'source_digest')
        fixed = [name for name in fixed if name not in known]
    words = {'source_digest': '--source of other images: '}
    differences = [
        f'{words.get(x, f"--{x}=")}{new[x]} (was {old[x]})' for x in fixed if new[x] != old[x]
    ]
    if differences:
        raise UserError(
            f'--model_dir={hparams.model_dir} holds a run with other settings: '
            f'{", ".join(differences)}; give the old values to go on with it, or another '
            '--model_dir.'
        )
