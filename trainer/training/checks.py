"""What is refused before any byte is fetched, folder made or graph built."""

import dataclasses
import os
from typing import Collection, Dict, Optional

import tensorflow as tf

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import initial, listing
from trainer.settings import rules, storage, table
from trainer.settings.table import HParams


def check(params: HParams, num_examples: Optional[Dict[str, int]]) -> None:
    """Refuses what cannot run.

    Args:
      num_examples: images in each split; None where only the preparation will tell.

    Raises:
      UserError: a setting does not fit the dataset, model_dir cannot hold this run, or init_from
        has no weights for its start.
    """
    rules.check_settings(params, num_examples)
    _check_folder(params.model_dir)
    recorded = recorded_settings(params.model_dir)
    if recorded is not None:
        storage.check_resumable(params, recorded)
    elif params.init_from:
        initial.check(params)


def recorded_settings(model_dir: str) -> Optional[HParams]:
    """Returns the settings of the run that has begun to train in `model_dir`, if one has.

    Raises:
      UserError: the folder holds checkpoints of another model.
    """
    recorded = storage.load(model_dir)
    if listing.latest(model_dir) is None:
        return None  # Nothing was trained yet that other settings could spoil.
    if recorded is None:
        raise UserError(
            f'--model_dir={model_dir} holds checkpoints of another model: choose another folder.'
        )
    return recorded


def with_recorded(params: HParams, given: Collection[str]) -> HParams:
    """Returns the settings of the run in `model_dir`, where the command names no other; says so.

    Args:
      given: the names of the settings that the command has.

    Raises UserError as `recorded_settings` does.
    """
    recorded = recorded_settings(params.model_dir)
    if recorded is None:
        return params
    open_names = {row.name for row in table.settings()} - set(given) - set(table.paths())
    if params.source or recorded.source:  # It is known by its images, not by a name.
        open_names.discard('dataset')
    taken = {name: getattr(recorded, name) for name in sorted(open_names)}
    taken = {name: value for name, value in taken.items() if value != getattr(params, name)}
    said = [f'--{name}={value}' for name, value in taken.items()]
    if params.likelihood == rules.UNDECIDED:  # Only the data would tell: the run has no other.
        said = [flag for flag in said if not flag.startswith('--likelihood=')]
    if said:
        named = ' '.join(said)
        say(f'Going on with {named}, as {params.model_dir} began: this command gives no other.')
    return dataclasses.replace(params, **taken)


def with_recorded_source(params: HParams) -> HParams:
    """Returns the settings with the recorded images in place of a source that is gone.

    Raises UserError as `recorded_settings` does.
    """
    if not params.source or '://' in params.source or os.path.exists(params.source):
        return params
    recorded = recorded_settings(params.model_dir)
    return dataclasses.replace(params, source_digest=recorded.source_digest if recorded else '')


def _check_folder(model_dir: str) -> None:
    wild = ' and '.join(sorted(set('*?[]\\') & set(model_dir)))
    if wild:
        raise UserError(
            f'--model_dir={model_dir} has {wild} in it, which TensorFlow takes for a pattern: '
            'choose another name.'
        )
    files.check_folder('--model_dir', model_dir)


def record(params: HParams) -> None:
    """Writes the settings of the run to its folder.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        storage.save(params)
    except tf.errors.OpError as error:
        text = f'--model_dir={params.model_dir} cannot be written ({error.message}).'
        raise UserError(text) from error
