"""Which checkpoints of a `model_dir` are there, and which of them are whole.

TF 1.14 trusts the file `checkpoint`, which names them: where that is damaged it starts again from
step 0, and where the last checkpoint is, it fails. Here the newest one that can be read counts.
"""

import os
import re
import time
from typing import Any, Iterator, List, Optional

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from trainer import files
from trainer.errors import UserError
from trainer.progress import say

STATE_FILE = 'checkpoint'
_INDEX = re.compile(r'(model\.ckpt-(\d+))\.index')
# What processes that were killed while they wrote leave behind: ours, and TF's Saver.
_LEFTOVERS = (
    '*.????????.tmp', 'checkpoint.tmp*', 'model.ckpt-*tempstate*', 'model.ckpt-*_temp_*', '.new',
    'export/*/temp-*', 'export/*/*.tmp', 'projector/*.tmp',
)  # fmt: skip
# A program beside the training may be writing a picture right now.
_SECONDS_TO_LEFTOVER = 3.0


def latest(model_dir: str) -> Optional[str]:
    """Returns the prefix of the last checkpoint, None where there is none.

    Unlike `tf.train.latest_checkpoint` it finds one where the file `checkpoint` is damaged, or
    names one that is gone.
    """
    return next(_newest_first(model_dir), None)


def listed(model_dir: str) -> List[str]:
    """Returns the prefixes that the file `checkpoint` names and that are there, oldest first."""
    state = _read_state(model_dir)
    if state is None:
        return []
    names = list(state.all_model_checkpoint_paths)
    if state.model_checkpoint_path:
        names = [name for name in names if name != state.model_checkpoint_path]
        names.append(state.model_checkpoint_path)
    paths = [os.path.join(model_dir, name) for name in names]
    return [path for path in paths if tf.gfile.Exists(path + '.index')]


def _newest_first(model_dir: str) -> Iterator[str]:
    """Those that are listed, and after them any others in the folder.

    One that is there but not listed was set aside, or its saving was cut short.
    """
    named = listed(model_dir)
    yield from reversed(named)
    names = tf.gfile.ListDirectory(model_dir) if tf.gfile.IsDirectory(model_dir) else []
    matches = [match for match in map(_INDEX.fullmatch, names) if match]
    for match in sorted(matches, key=lambda match: int(match.group(2)), reverse=True):
        path = os.path.join(model_dir, match.group(1))
        if path not in named:
            yield path


def _read_state(model_dir: str) -> Optional[Any]:
    """The content of the file `checkpoint`; None where it is missing or damaged."""
    path = os.path.join(model_dir, STATE_FILE)
    if not tf.gfile.Exists(path) or tf.gfile.IsDirectory(path):
        return None
    with tf.gfile.GFile(path, 'rb') as f:
        content = f.read()
    try:
        state = text_format.Parse(content.decode('utf-8'), CheckpointState())
    except (UnicodeDecodeError, text_format.ParseError):
        return None
    return state if state.model_checkpoint_path else None


def damage(checkpoint_path: str) -> str:
    """Says what is wrong with a checkpoint, '' for nothing: every byte of it is read.

    TF keeps a checksum of each tensor, and of each block of the index.
    """
    try:
        reader = tf.train.load_checkpoint(checkpoint_path)
        names = sorted(reader.get_variable_to_shape_map())
        for name in names:
            reader.get_tensor(name)
    except Exception as error:  # OpError, ValueError, RuntimeError: as SWIG translates the status.
        return str(error).strip().split('\n')[0] or type(error).__name__
    return '' if tf.GraphKeys.GLOBAL_STEP in names else 'it has no global_step'


def mend(model_dir: str) -> None:
    """Lets the file `checkpoint` name the newest checkpoint that can be read, and says so.

    Also removes what killed processes have left half-written. To be called by the one process that
    writes checkpoints.

    Raises:
      UserError: there are checkpoints, but none can be read.
    """
    _remove_leftovers(model_dir)
    found = list(_newest_first(model_dir))
    if not found:
        return
    reasons = []
    for path in found:
        reason = damage(path)
        if not reason:
            break
        reasons.append('{} is damaged ({})'.format(path, reason))
    else:
        raise UserError(
            '--model_dir={}: {}, and no other checkpoint is there to go on from: restore one, or '
            'start again in another folder.'.format(model_dir, '; '.join(reasons))
        )
    named = listed(model_dir)
    if not named:
        state = os.path.join(model_dir, STATE_FILE)
        is_there = tf.gfile.Exists(state)
        reasons.append('{} is {}'.format(state, 'damaged' if is_there else 'missing'))
    if reasons:
        say('{}: going on from {}.'.format('; '.join(reasons), path))
        make_latest(path, model_dir)


def make_latest(checkpoint_path: str, model_dir: str) -> None:
    """Lets the file `checkpoint` name this one as the last, and none of those after it.

    Names within the folder, as Estimator's Saver writes them, so that the folder can be moved.
    """
    paths = listed(model_dir)
    if checkpoint_path not in paths:
        paths = [checkpoint_path]
    kept = [os.path.basename(path) for path in paths[: paths.index(checkpoint_path) + 1]]
    state = CheckpointState(model_checkpoint_path=kept[-1], all_model_checkpoint_paths=kept)
    content = text_format.MessageToString(state)
    files.write_bytes(os.path.join(model_dir, STATE_FILE), content.encode('utf-8'))


def restore(saver: tf.train.Saver, session: tf.Session, checkpoint_path: str) -> None:
    """Restores a checkpoint.

    Raises:
      UserError: it is damaged, or of another network.
    """
    try:
        saver.restore(session, checkpoint_path)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            'the weights of {} cannot be used ({}): give a whole checkpoint of this model.'.format(
                checkpoint_path, str(error).strip().split('\n')[0]
            )
        ) from error


def _remove_leftovers(model_dir: str) -> None:
    for pattern in _LEFTOVERS:
        for path in _glob(os.path.join(_escaped(model_dir), pattern)):
            if time.time() - tf.gfile.Stat(path).mtime_nsec / 1e9 < _SECONDS_TO_LEFTOVER:
                continue
            if tf.gfile.IsDirectory(path):
                tf.gfile.DeleteRecursively(path)
            else:
                tf.gfile.Remove(path)


def _glob(pattern: str) -> List[str]:
    try:
        return tf.gfile.Glob(pattern)
    except tf.errors.NotFoundError:
        return []  # 1.14 says so of a folder that is missing, though not of a file.


def _escaped(folder: str) -> str:
    return re.sub(r'([\\*?\[])', r'\\\1', folder)
