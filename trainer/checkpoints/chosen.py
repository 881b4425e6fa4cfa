"""The checkpoint, and the settings, that a program after the training was asked for."""

import dataclasses
import os
from typing import Optional

import tensorflow as tf

from trainer.base import errors
from trainer.base.errors import UserError
from trainer.checkpoints import best_model, listing
from trainer.settings import storage
from trainer.settings.table import HParams


def trained_checkpoint(model_dir: str, checkpoint: Optional[str] = None) -> str:
    """Returns the prefix of the checkpoint that was asked for, else of the last in `model_dir`.

    Raises:
      UserError: there is none.
    """
    path = checkpoint or listing.latest(model_dir)
    if path is None:
        raise storage.nothing_trained(model_dir)
    try:
        is_there = tf.train.checkpoint_exists(path)
    except tf.errors.OpError as error:
        raise UserError(
            f'--checkpoint={path} cannot be read ({errors.reason(error)}): {errors.remedy(error)}.'
        ) from error
    if not is_there:
        prefix = os.path.join(model_dir, 'model.ckpt-5500')
        raise UserError(
            f'--checkpoint={path}: there is no such checkpoint. Give its prefix, as {prefix}.'
        )
    return path


def find_checkpoint(model_dir: str, checkpoint: str) -> str:
    """Returns the prefix of the checkpoint that `--checkpoint` means.

    Args:
      checkpoint: 'last', 'best' or a prefix.

    Raises:
      UserError: there is none.
    """
    if checkpoint != 'best':
        return trained_checkpoint(model_dir, None if checkpoint == 'last' else checkpoint)
    best = best_model.read_best(model_dir)
    if best is None:
        raise UserError(
            f'--checkpoint=best: --model_dir={model_dir} holds no model that an evaluation on the '
            'validation images chose: give --checkpoint=last.'
        )
    return os.path.join(best['folder'], best['checkpoint'])


def trained_model(model_dir: str, data_dir: str) -> HParams:
    """Returns the settings of the model in `model_dir`, and where its data is now.

    Args:
      data_dir: '' for where the run had it.

    Raises:
      UserError: there is no trained model of this trainer.
    """
    params = storage.trained(model_dir)
    if listing.latest(model_dir) is None:
        raise storage.nothing_trained(model_dir, 'checkpoint yet')
    return dataclasses.replace(params, data_dir=data_dir or params.data_dir)
