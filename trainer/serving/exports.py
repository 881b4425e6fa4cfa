"""The folders of exports: numbered by time, of which the oldest go, and copied flat."""

import os
from typing import List

import tensorflow as tf

from trainer.base import files
from trainer.base.errors import UserError


def timestamps(parent: str) -> List[int]:
    names = tf.gfile.ListDirectory(parent) if tf.gfile.IsDirectory(parent) else []
    return sorted(int(name.rstrip('/')) for name in names if name.rstrip('/').isdigit())


def remove_old(parent: str, to_keep: int) -> None:
    """Removes all but the newest `to_keep` exports of a folder, each whole at once for readers."""
    for timestamp in timestamps(parent)[:-to_keep]:
        temporary = os.path.join(parent, 'temp-' + files.temporary_name())
        tf.gfile.Rename(os.path.join(parent, str(timestamp)), temporary)
        tf.gfile.DeleteRecursively(temporary)


def copy_flat(export_dir: str, flat_dir: str) -> str:
    """Copies an export so that `saved_model.pb` lies in `flat_dir` itself, for model uploads.

    `saved_model.pb`, by which a folder counts as a SavedModel, appears last.

    Raises:
      UserError: `flat_dir` holds something.
    """
    check_flat_dir(flat_dir)
    files.copy_tree(export_dir, flat_dir, last='saved_model.pb')
    return flat_dir


def check_flat_dir(flat_dir: str) -> None:
    """Raises UserError where `flat_dir` is no empty folder and cannot be made one."""
    if tf.gfile.Exists(flat_dir) and (
        not tf.gfile.IsDirectory(flat_dir) or tf.gfile.ListDirectory(flat_dir)
    ):
        raise UserError(
            f'--flat_dir={flat_dir} is there already and not an empty folder: choose another.'
        )
    files.check_folder('--flat_dir', flat_dir)
