"""Which checkpoints of a `model_dir` are there, which are whole, and which one counts.

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

from trainer.base import errors, files
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import weights
from trainer.settings import wording
from trainer.settings.table import HParams

STATE_FILE = 'checkpoint'
_INDEX = re.compile(r'(model\.ckpt-(\d+))\.index')
# Leftovers of a training, and of any program, that was killed while it wrote. The first pattern is
# that of TensorFlow's file_io.atomic_write_string_to_file: checkpoint, graph.pbtxt, *.meta.
_OF_TRAINING = ('*.tmp' + 32 * '[0-9a-f]', 'model.ckpt-*tempstate*', 'model.ckpt-*_temp_*', '.new')
_OF_ANY = ('*.tmp', 'export/*/temp-*', 'export/*/*.tmp', 'projector/*.tmp')


def latest(model_dir: str) -> Optional[str]:
    """Returns the prefix of the last checkpoint, None where there is none.

    Unlike `tf.train.latest_checkpoint` it finds one where the file `checkpoint` is damaged, or
    names one that is gone.
    """
    return next(newest_first(model_dir), None)


def listed(model_dir: str) -> List[str]:
    """Returns the prefixes that the file `checkpoint` names and that are there, oldest first."""
    state = _read_state(model_dir)
    if state is None:
        return []
    last = state.model_checkpoint_path
    names = [name for name in state.all_model_checkpoint_paths if name != last] + [last]
    paths = [os.path.join(model_dir, name) for name in names]
    return [path for path in paths if tf.gfile.Exists(path + '.index')]


def newest_first(model_dir: str) -> Iterator[str]:
    """Yields the prefixes of those that are listed, and after them any others in the folder.

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


def repair(model_dir: str) -> None:
    """Lets the file `checkpoint` name the newest checkpoint that can be read, and says so.

    Also removes what killed processes left half-written: only what writes checkpoints may call it.

    Raises:
      UserError: there are checkpoints, but none can be read.
    """
    _remove_leftovers(model_dir)
    found = list(newest_first(model_dir))
    if not found:
        return
    reasons = []
    for path in found:
        found_wrong = weights.damage(path)
        if not found_wrong:
            break
        reasons.append('{} is damaged ({})'.format(path, found_wrong))
    else:
        raise UserError(
            f'--model_dir={model_dir}: {"; ".join(reasons)}, and no other checkpoint is there to '
            'go on from: restore one, or start again in another folder.'
        )
    if not listed(model_dir):
        state = os.path.join(model_dir, STATE_FILE)
        reasons.append(f'{state} is {"damaged" if tf.gfile.Exists(state) else "missing"}')
    if reasons:
        say('{}: going on from {}.'.format('; '.join(reasons), path))
        make_latest(path, model_dir)


def wait_until_repaired(model_dir: str, seconds: float = 60.0) -> None:
    """Gives the chief of a cluster time to `repair`, where the last checkpoint is damaged."""
    end = time.monotonic() + seconds
    path = latest(model_dir)
    if path is not None and weights.damage(path):
        say('{} is damaged: waiting for the chief to mend that.'.format(path))
    while path is not None and weights.damage(path) and time.monotonic() < end:
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


def start_step(model_dir: str) -> int:
    """Returns the global step of the last checkpoint, 0 where there is none."""
    checkpoint_path = latest(model_dir)
    if checkpoint_path is None:
        return 0
    return int(tf.train.load_variable(checkpoint_path, tf.GraphKeys.GLOBAL_STEP))


def keep_checkpoint(checkpoint_path: str, folder: str) -> str:
    """Copies a checkpoint to where no later one replaces it; returns its name in `folder`.

    The index file, by which a checkpoint counts as there, is renamed into place last.
    """
    name = os.path.basename(checkpoint_path)
    tf.gfile.MakeDirs(folder)
    parts = sorted(tf.gfile.Glob(checkpoint_path + '.data-*')) + [checkpoint_path + '.index']
    for part in parts:
        target = os.path.join(folder, os.path.basename(part))
        temporary = '{}.{}.tmp'.format(target, files.temporary_name())
        tf.gfile.Copy(part, temporary)
        tf.gfile.Rename(temporary, target, overwrite=True)
    return name


def check_last_checkpoint(model_dir: str) -> None:
    """Refuses to go on from weights that are not finite, from whatever they became so.

    The next start then takes the checkpoint before them; no file is removed.

    Raises:
      UserError: names the checkpoint, and the one that the next start takes.
    """
    path = latest(model_dir)
    names = weights.not_finite_in(path) if path else []
    if not names:
        return
    good = last_good_checkpoint(model_dir)
    if good is None:
        way_on = f'no good checkpoint is left in --model_dir={model_dir}: start again in another'
    else:
        make_latest(good, model_dir)
        way_on = 'the last good checkpoint is {}: the same command goes on from it'.format(good)
    raise UserError(f'{path} holds weights that are not finite ({errors.some(names)}); {way_on}.')


def last_good_checkpoint(model_dir: str) -> Optional[str]:
    """Returns the prefix of the newest checkpoint whose weights are finite; None without one."""
    for path in reversed(listed(model_dir)):
        try:
            if not weights.not_finite_in(path):
                return path
        except (tf.errors.OpError, ValueError):
            continue  # Gone, or unreadable.
    return None


def how_to_go_on(params: HParams, images_are_bad: bool = False) -> str:
    """Says from which checkpoint a run whose numbers were not finite goes on, and how."""
    path = last_good_checkpoint(params.model_dir)
    remedy = (
        f'with a lower --learning_rate (now {params.learning_rate:g}) or --max_gradient_norm '
        f'(now {params.max_gradient_norm:g})'
    )
    if images_are_bad:
        remedy = f'once the {wording.examples(params)} of {params.data_flag} are mended'
    if path is None:
        return 'there is no checkpoint to go on from: start again, {}'.format(remedy)
    return f'the last good checkpoint is {path}: the same command goes on from it, best {remedy}'
