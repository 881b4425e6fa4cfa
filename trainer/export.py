"""What a run leaves behind for others to load: SavedModels and plain weights.

`python -m trainer.export --model_dir=...` exports a trained model again, or otherwise.
"""

import math
import os
import time
from typing import Any, Callable, Dict, List, Optional

import tensorflow as tf
from absl import flags

from trainer import (
    checkpoints,
    errors,
    files,
    hparams,
    logs,
    objective,
    path_flags,
    saved_model,
    serving,
)
from trainer.errors import UserError
from trainer.hparams import HParams
from trainer.progress import say
from trainer.summaries import without_groups

_STATE_FILE = 'best.json'
# What the state holds once there is a best model, and before.
_BEST: Dict[str, Any] = {
    'global_step': int,
    'checkpoint': str,
    'export': str,
}
# Its value, by the name of the metric that it goes by.
_VALUES = ('negative_elbo', 'negative_importance_weighted_bound')
# The best of those that early stopping counts, where a schedule of beta leaves some out.
_COUNTED_BEST = 'best_with_whole_beta'
_EVALUATIONS: Dict[str, Any] = {'evaluated_step': int, 'evaluations_since_best': int}
WEIGHTS_NAME = 'new_model.ckpt'


def serving_input_receiver_fn(
    params: HParams,
) -> Callable[[], tf.estimator.export.ServingInputReceiver]:
    """Returns the receiver of served images: float32 `[n, rows, columns]` in [0, 1].

    Images of several channels have them as a fourth axis.
    """

    def receiver() -> tf.estimator.export.ServingInputReceiver:
        images = tf.placeholder(tf.float32, [None] + params.served_shape, name='images')
        by_row = tf.reshape(images, [-1, params.rows, params.row_features])
        return tf.estimator.export.ServingInputReceiver({'images': by_row}, {'images': images})

    return receiver


class BestExporter(tf.estimator.Exporter):
    """Exports the best model on validation so far, and keeps its checkpoint.

    The best is that of the lowest `hparams.selection_metric`.

    The best value lives in `best.json` beside the exports, written as the last step of an export,
    with the number of evaluations since that were no better: `early_stopping_patience` counts them.
    (tf.estimator.BestExporter of 1.14 reads it back from event files: it never exports the first
    model, forgets the best at a restart, and fails on a truncated file.)

    Args:
      params: the settings of the run.
      report: called with each evaluation's metrics and whether it is the best so far.
    """

    name = 'best'

    def __init__(self, params: HParams, report: Callable[[Dict[str, Any], bool], None]):
        self._params = params
        self._report = report

    def export(
        self,
        estimator: tf.estimator.Estimator,
        export_path: str,
        checkpoint_path: str,
        eval_result: Dict[str, Any],
        is_the_final_export: bool,
    ) -> Optional[str]:
        del estimator, is_the_final_export
        metrics, name = without_groups(eval_result), hparams.selection_metric(self._params)
        state, best = read_state(self._params.model_dir), read_best(self._params.model_dir)
        value, step = float(metrics[name]), int(metrics['global_step'])
        is_best = math.isfinite(value) and (best is None or value < best[name])
        kept = _keep_if_there(checkpoint_path, export_path) if is_best else None
        counted = self._counted(state, best, value, step)
        exported = None
        if kept is not None:
            exported = export_saved_model(
                self.name, os.path.join(export_path, kept), self._params, evaluation=metrics
            )
            write_state(
                self._params.model_dir,
                dict(
                    counted,
                    convention=hparams.convention(self._params),
                    global_step=step,
                    checkpoint=kept,
                    export=os.path.basename(exported),
                    **{name: value},
                ),
            )
            if best is not None and best['global_step'] != step:
                tf.train.remove_checkpoint(os.path.join(export_path, best['checkpoint']))
            remove_old(export_path, self._params.exports_to_keep)
        elif not is_best and counted != state:
            write_state(self._params.model_dir, counted)
        self._report(metrics, is_best)
        return exported

    def _counted(
        self, state: Dict[str, Any], best: Optional[Dict[str, Any]], value: float, step: int
    ) -> Dict[str, Any]:
        """The state with an evaluation counted for early stopping."""
        name = hparams.selection_metric(self._params)
        least = state.get(_COUNTED_BEST, best or {}).get(name, math.inf)
        counted = dict(state, evaluated_step=step)
        counted.setdefault('evaluations_since_best', 0)
        counted.pop('stopped_step', None)
        has_schedule = self._params.beta_cycles + self._params.beta_warmup_steps > 0
        if has_schedule:
            counted.setdefault(_COUNTED_BEST, {})
        is_new = step > evaluated_step(state)
        if objective.beta_was_rising(step, self._params):
            return counted if is_new else state
        if value < least:
            counted['evaluations_since_best'] = 0
            if has_schedule:
                counted[_COUNTED_BEST] = {name: value, 'global_step': step}
        elif is_new:
            # Once for each checkpoint: an evaluator that was started anew comes to its last again.
            counted['evaluations_since_best'] += 1
        else:
            return state
        return counted


def evaluated_step(state: Dict[str, Any]) -> int:
    """Step of the last checkpoint that was evaluated; -1 for none."""
    # Without the first where an older version of this trainer wrote it.
    return state.get('evaluated_step', state.get('global_step', -1))


def _state_path(model_dir: str) -> str:
    return os.path.join(model_dir, 'export', BestExporter.name, _STATE_FILE)


def read_state(model_dir: str) -> Dict[str, Any]:
    """Returns what is known of the evaluations of a run, empty before the first.

    `evaluated_step` is the global step of the last, and `evaluations_since_best` counts those no
    better than the best before them; `stopped_step` is of a run that ended for that. The best model
    is what `read_best` returns.

    Raises:
      UserError: the file is damaged.
    """
    path = _state_path(model_dir)
    state = files.read_json(path)
    if state is None:
        return {}
    if not isinstance(state, dict) or not _is_state(state):
        raise UserError('{} does not hold the state of the best export: move it away.'.format(path))
    return state


def _is_state(state: Dict[str, Any]) -> bool:
    required = _BEST if 'checkpoint' in state else _EVALUATIONS
    # An older version of this trainer wrote a best model without the evaluations since.
    known = {**_EVALUATIONS, 'stopped_step': int, _COUNTED_BEST: dict, **_BEST}
    values = [state[name] for name in _VALUES if name in state]
    if 'checkpoint' in state and not any(isinstance(value, (int, float)) for value in values):
        return False
    if not all(
        isinstance(state.get(name), kind)
        for name, kind in known.items()
        if name in required or name in state
    ):
        return False
    counted = state.get(_COUNTED_BEST, {}).values()
    return all(isinstance(number, (int, float)) for number in counted)


def write_state(model_dir: str, state: Dict[str, Any]) -> None:
    """Replaces what `read_state` returns."""
    files.write_json(_state_path(model_dir), state)


def mend_state(params: HParams) -> None:
    """Sets a state aside that cannot be used, and says so: the next evaluation is the best then.

    The exports and the checkpoint that it named stay.
    """
    path, suffix = _state_path(params.model_dir), 'damaged'
    try:
        wrong = _damaged_best(params.model_dir)
        if not wrong:
            wrong, suffix = _best_by_another_metric(params), 'old'
        if not wrong:
            return
    except UserError:
        wrong = '{} is damaged'.format(path)
    tf.gfile.Rename(path, '{}.{}'.format(path, suffix), overwrite=True)
    say(
        '{}: {name} is set aside as {name}.{}, and the next evaluation counts as the best.'.format(
            wrong, suffix, name=os.path.basename(path)
        )
    )


def _best_by_another_metric(params: HParams) -> str:
    """What is wrong with a best model chosen by an older version of this trainer, else ''."""
    best, name = read_best(params.model_dir), hparams.selection_metric(params)
    if best is None or name in best:
        return ''
    return '{} goes by another metric than {}, which --objective={} minimises'.format(
        _state_path(params.model_dir), name, params.objective
    )


def _damaged_best(model_dir: str) -> str:
    """What is wrong with the checkpoint of the best model, if there is one; '' for nothing."""
    best = read_best(model_dir)
    if best is None:
        return ''
    path = os.path.join(best['folder'], best['checkpoint'])
    reason = checkpoints.damage(path)
    return '{} is damaged ({})'.format(path, reason) if reason else ''


def read_best(model_dir: str) -> Optional[Dict[str, Any]]:
    """Returns what is known of the best model, or None.

    Its value on validation, in nats, is under the name of `hparams.selection_metric`; beside it
    stand `global_step`, and the names of its `checkpoint` and `export` within `folder`.
    """
    folder, state = os.path.dirname(_state_path(model_dir)), read_state(model_dir)
    if 'checkpoint' not in state:
        return None
    if not tf.train.checkpoint_exists(os.path.join(folder, state['checkpoint'])):
        return None
    return dict(state, folder=folder)


def counted_best(model_dir: str) -> Optional[Dict[str, Any]]:
    """Returns value and `global_step` of the evaluation that early stopping counts from, or None.

    It is the best model's, but for those during which a schedule held beta back.
    """
    state = read_state(model_dir)
    if _COUNTED_BEST in state:
        return state[_COUNTED_BEST] or None
    return read_best(model_dir)


def forget_best(model_dir: str) -> None:
    """Removes what an earlier run in `model_dir` left: it is not this one's best."""
    if tf.gfile.Exists(_state_path(model_dir)):
        tf.gfile.Remove(_state_path(model_dir))


def _keep_if_there(checkpoint_path: str, folder: str) -> Optional[str]:
    """`keep_checkpoint`; None, and a word, where a cluster has removed the checkpoint meanwhile."""
    try:
        return keep_checkpoint(checkpoint_path, folder)
    except tf.errors.NotFoundError:
        say(
            '{} is the best so far, but was removed while it was evaluated, so it is not exported: '
            'give a larger --save_checkpoints_steps.'.format(checkpoint_path)
        )
        return None


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


def export_saved_model(
    kind: str,
    checkpoint_path: str,
    params: HParams,
    options: saved_model.Options = saved_model.ALL_SIGNATURES,
    evaluation: Optional[Dict[str, Any]] = None,
) -> str:
    """Writes a SavedModel to `export/<kind>/<timestamp>`; returns that folder.

    It is written under a name that TensorFlow Serving ignores, as no number, and then renamed: on
    local disks a reader never sees half of it. (gs:// has no folders to rename: there, as with
    Estimator's own exports, the files appear one by one.)

    Args:
      evaluation: validation metrics for the model card, where they are known.

    Raises:
      UserError: see `saved_model.write`.
    """
    parent = os.path.join(params.model_dir, 'export', kind)
    temporary = os.path.join(parent, 'temp-' + files.temporary_name())
    try:
        saved_model.write(temporary, checkpoint_path, params, options, evaluation)
        # Seconds, as Estimator's exporters have it, but of two exports in a second one counts on.
        timestamp = max([int(time.time())] + [number + 1 for number in _timestamps(parent)])
        target = os.path.join(parent, str(timestamp))
        tf.gfile.Rename(temporary, target)
    finally:
        if tf.gfile.Exists(temporary):
            tf.gfile.DeleteRecursively(temporary)
    return target


def _timestamps(parent: str) -> List[int]:
    names = tf.gfile.ListDirectory(parent) if tf.gfile.IsDirectory(parent) else []
    return sorted(int(name.rstrip('/')) for name in names if name.rstrip('/').isdigit())


def remove_old(parent: str, to_keep: int) -> None:
    """Removes all but the newest `to_keep` exports of a folder, each whole at once for readers."""
    for timestamp in _timestamps(parent)[:-to_keep]:
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
    paths = [
        os.path.join(folder, name)
        for folder, _, names in tf.gfile.Walk(export_dir)
        for name in names
    ]
    for path in sorted(paths, key=lambda path: path.endswith('saved_model.pb')):
        target = os.path.join(flat_dir, os.path.relpath(path, export_dir))
        tf.gfile.MakeDirs(os.path.dirname(target))
        tf.gfile.Copy(path, target + '.tmp')
        tf.gfile.Rename(target + '.tmp', target)
    return flat_dir


def check_flat_dir(flat_dir: str) -> None:
    """Raises UserError where `flat_dir` is no empty folder and cannot be made one."""
    if tf.gfile.Exists(flat_dir) and (
        not tf.gfile.IsDirectory(flat_dir) or tf.gfile.ListDirectory(flat_dir)
    ):
        raise UserError(
            '--flat_dir={} is there already and not an empty folder: choose another.'.format(
                flat_dir
            )
        )
    files.check_folder('--flat_dir', flat_dir)


def save_weights(estimator: tf.estimator.Estimator, checkpoint_path: str, params: HParams) -> str:
    """Writes the weights with the graph that uses them as `new_model.ckpt.*`; returns the prefix.

    The graph maps images to predictions; `tf.train.import_meta_graph` and `Saver.restore` load
    both. Estimator's own `checkpoint` file goes on naming the training checkpoints
    (`write_state=False`), else a resumed run would start from this one.
    """
    prefix = os.path.join(params.model_dir, WEIGHTS_NAME)
    with tf.Graph().as_default():
        tf.train.create_global_step()
        receiver = serving_input_receiver_fn(params)()
        estimator.model_fn(receiver.features, None, tf.estimator.ModeKeys.PREDICT, estimator.config)
        saver = tf.train.Saver(save_relative_paths=True)
        with tf.Session(config=estimator.config.session_config) as session:
            checkpoints.restore(session, checkpoint_path, saver)
            temporary = saver.save(
                session, os.path.join(params.model_dir, '.new', WEIGHTS_NAME), write_state=False
            )
    for part in sorted(tf.gfile.Glob(temporary + '.*'), key=lambda name: name.endswith('.index')):
        target = prefix + part[len(temporary) :]
        tf.gfile.Rename(part, target, overwrite=True)
    tf.gfile.DeleteRecursively(os.path.dirname(temporary))
    return prefix


def _define_flags() -> None:
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    path_flags.define(
        'checkpoint', None, 'Checkpoint to export, as MODEL_DIR/model.ckpt-5500. Default: the last.'
    )
    flags.DEFINE_enum(
        'signature',
        None,
        list(serving.NAMES),
        'Export this signature alone, as serving_default too, to export/<signature>/<timestamp>: '
        'for clients that know one signature.',
    )
    flags.DEFINE_boolean(
        'optimize_export', False, 'Make constants of the weights and fold what follows from them.'
    )
    flags.DEFINE_boolean(
        'warmup',
        False,
        'Add the requests that TensorFlow Serving warms up with (tensorflow-serving-api).',
    )
    path_flags.define('flat_dir', None, 'Also copy the export to this new folder, for uploads.')


def trained_checkpoint(model_dir: str, checkpoint: Optional[str] = None) -> str:
    """Returns the prefix of the checkpoint that was asked for, else of the last in `model_dir`.

    Raises:
      UserError: there is none.
    """
    path = checkpoint or checkpoints.latest(model_dir)
    if path is None:
        raise UserError(
            '--model_dir={} holds no trained model: give the folder of a run of '
            'trainer.task.'.format(model_dir)
        )
    try:
        is_there = tf.train.checkpoint_exists(path)
    except tf.errors.OpError as error:
        raise UserError(
            '--checkpoint={} cannot be read ({}): {}.'.format(
                path, errors.reason(error), errors.remedy(error)
            )
        ) from error
    if not is_there:
        raise UserError(
            '--checkpoint={}: there is no such checkpoint. Give its prefix, as {}.'.format(
                path, os.path.join(model_dir, 'model.ckpt-5500')
            )
        )
    return path


def main(argv: List[str]) -> None:
    """Reads the flags, exports, says where to."""
    del argv
    values = flags.FLAGS
    params = hparams.trained(values.model_dir)
    checkpoint_path = trained_checkpoint(values.model_dir, values.checkpoint)
    if values.flat_dir:
        check_flat_dir(values.flat_dir)
    options = saved_model.Options(values.signature, values.optimize_export, values.warmup)
    exported = export_saved_model(values.signature or 'final', checkpoint_path, params, options)
    flat = copy_flat(exported, values.flat_dir) if values.flat_dir else ''
    print('\n'.join(filter(None, [exported, flat])))


if __name__ == '__main__':
    _define_flags()
    logs.run(main)
