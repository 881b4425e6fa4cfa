"""Which checkpoints of a `model_dir` are there, which are whole, and which are of this model.

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
# What a training that was killed while it wrote leaves behind, and what any program may have.
_OF_TRAINING = ('checkpoint.tmp*', 'model.ckpt-*tempstate*', 'model.ckpt-*_temp_*', '.new')
_OF_ANY = ('*.tmp', 'export/*/temp-*', 'export/*/*.tmp', 'projector/*.tmp')
_SHOWN = 3


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
    last = state.model_checkpoint_path
    names = [name for name in state.all_model_checkpoint_paths if name != last] + [last]
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
        return reason(error)
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
        found_wrong = damage(path)
        if not found_wrong:
            break
        reasons.append('{} is damaged ({})'.format(path, found_wrong))
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


def wait_until_mended(model_dir: str, seconds: float = 60.0) -> None:
    """Gives the chief of a cluster time to `mend`, where the last checkpoint is damaged."""
    end = time.monotonic() + seconds
    path = latest(model_dir)
    if path is not None and damage(path):
        say('{} is damaged: waiting for the chief to mend that.'.format(path))
    while path is not None and damage(path) and time.monotonic() < end:
        time.sleep(1.0)
        path = latest(model_dir)


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


def check_fits(checkpoint_path: str) -> None:
    """Refuses a checkpoint that has not all variables of the default graph, in their shapes.

    TF 1.14 restores resource variables without a look at the shape, and says of a name that is
    missing nothing but that, in a traceback.

    Raises:
      UserError: names the variables that differ, with both shapes.
    """
    shapes = tf.train.load_checkpoint(checkpoint_path).get_variable_to_shape_map()
    differences = []
    for variable in tf.global_variables():
        name, shape = variable.op.name, variable.shape.as_list()
        if shapes.get(name) != shape:
            found = '{} in it'.format(shapes[name]) if name in shapes else 'missing in it'
            differences.append('{} is {}, not {}'.format(name, found, shape))
    if differences:
        raise UserError(
            '{} does not fit the model of the settings beside it ({}): give a checkpoint of this '
            'model, restore its own hyper_parameters.json, or use the version that trained '
            'it.'.format(checkpoint_path, _some(differences))
        )


def _some(differences: List[str]) -> str:
    more = len(differences) - _SHOWN
    return '; '.join(differences[:_SHOWN]) + ('; {} more'.format(more) if more > 0 else '')


class FitsHook(tf.train.SessionRunHook):
    """Refuses to go on from a checkpoint of another model, before the session restores it."""

    def __init__(self, model_dir: str):
        self._model_dir = model_dir

    def begin(self) -> None:
        path = latest(self._model_dir)
        if path is not None:
            check_fits(path)


def restore(
    session: tf.Session, checkpoint_path: str, saver: Optional[tf.train.Saver] = None
) -> None:
    """Restores all variables of the default graph.

    Args:
      saver: of those variables, where there is one already.

    Raises:
      UserError: the checkpoint is damaged, or of another model.
    """
    try:
        check_fits(checkpoint_path)
        (saver or tf.train.Saver()).restore(session, checkpoint_path)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            'the weights of {} cannot be used ({}): give a whole checkpoint of this model.'.format(
                checkpoint_path, reason(error)
            )
        ) from error


def reason(error: Exception) -> str:
    """Returns the one line of an exception of TF's that says what is wrong with a checkpoint."""
    # The Saver of 1.14 puts a guess of its own before it.
    text = str(error).rpartition('Original error:')[2]
    return text.strip().split('\n')[0] or type(error).__name__


def _remove_leftovers(model_dir: str) -> None:
    left = [path for pattern in _OF_TRAINING for path in _glob(model_dir, pattern)]
    left += [p for pattern in _OF_ANY for p in _glob(model_dir, pattern) if files.is_abandoned(p)]
    for path in left:
        if tf.gfile.IsDirectory(path):
            tf.gfile.DeleteRecursively(path)
        else:
            tf.gfile.Remove(path)


def _glob(folder: str, pattern: str) -> List[str]:
    try:
        return tf.gfile.Glob(os.path.join(folder, pattern))
    except tf.errors.NotFoundError:
        return []  # 1.14 says so of a folder that is missing, though not of a file.
