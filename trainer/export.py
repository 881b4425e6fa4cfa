"""What a run leaves behind for others to load: SavedModels and plain weights."""

import os
from typing import Any, Callable, Dict, Optional

import tensorflow as tf

from trainer import files
from trainer.hparams import HParams

SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
_STATE_FILE = 'best.json'
WEIGHTS_NAME = 'new_model.ckpt'


def signatures(predictions: Dict[str, tf.Tensor]) -> Dict[str, tf.estimator.export.PredictOutput]:
    """Returns the served signatures: everything by default, or the posterior alone."""
    posterior = {name: predictions[name] for name in ('mean', 'scale')}
    return {
        SIGNATURE: tf.estimator.export.PredictOutput(predictions),
        'encode': tf.estimator.export.PredictOutput(posterior),
    }


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
    """Exports the model of the lowest validation negative ELBO so far, and keeps its checkpoint.

    The best value lives in `best.json` beside the exports, written as the last step of an export.
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
        del is_the_final_export
        state = read_best(self._params.model_dir)
        value = float(eval_result['negative_elbo'])
        is_best = state is None or value < state['negative_elbo']
        exported = None
        if is_best:
            exported = export_saved_model(estimator, self.name, checkpoint_path, self._params)
            files.write_json(
                os.path.join(export_path, _STATE_FILE),
                {
                    'negative_elbo': value,
                    'global_step': int(eval_result['global_step']),
                    'checkpoint': keep_checkpoint(checkpoint_path, export_path),
                    'export': os.path.basename(exported),
                },
            )
            if state is not None and state['global_step'] != eval_result['global_step']:
                tf.train.remove_checkpoint(os.path.join(export_path, state['checkpoint']))
        self._report(eval_result, is_best)
        return exported


def read_best(model_dir: str) -> Optional[Dict[str, Any]]:
    """Returns what is known of the best model, or None: its validation `negative_elbo` in nats,
    `global_step`, and the names of its `checkpoint` and `export` within `export/best`."""
    folder = os.path.join(model_dir, 'export', BestExporter.name)
    state = files.read_json(os.path.join(folder, _STATE_FILE))
    if state is None or not tf.train.checkpoint_exists(os.path.join(folder, state['checkpoint'])):
        return None
    return dict(state, folder=folder)


def forget_best(model_dir: str) -> None:
    """Removes what an earlier run in `model_dir` left: it is not this one's best."""
    path = os.path.join(model_dir, 'export', BestExporter.name, _STATE_FILE)
    if tf.gfile.Exists(path):
        tf.gfile.Remove(path)


def keep_checkpoint(checkpoint_path: str, folder: str) -> str:
    """Copies a checkpoint to where no later one replaces it; returns its name in `folder`.

    The index file, by which a checkpoint counts as there, is renamed into place last.
    """
    name = os.path.basename(checkpoint_path)
    parts = sorted(tf.gfile.Glob(checkpoint_path + '.data-*')) + [checkpoint_path + '.index']
    for part in parts:
        target = os.path.join(folder, os.path.basename(part))
        tf.gfile.Copy(part, target + '.tmp', overwrite=True)
        tf.gfile.Rename(target + '.tmp', target, overwrite=True)
    return name


def export_saved_model(
    estimator: tf.estimator.Estimator, kind: str, checkpoint_path: str, params: HParams
) -> str:
    """Writes a SavedModel to `export/<kind>/<timestamp>`; returns that folder.

    Estimator writes under a temporary name and renames: a reader never sees half of it.
    """
    exported = estimator.export_saved_model(
        os.path.join(params.model_dir, 'export', kind),
        serving_input_receiver_fn(params),
        checkpoint_path=checkpoint_path,
    )
    return exported.decode('utf-8')


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
            saver.restore(session, checkpoint_path)
            temporary = saver.save(
                session, os.path.join(params.model_dir, '.new', WEIGHTS_NAME), write_state=False
            )
    for part in sorted(tf.gfile.Glob(temporary + '.*'), key=lambda name: name.endswith('.index')):
        target = prefix + part[len(temporary) :]
        tf.gfile.Rename(part, target, overwrite=True)
    tf.gfile.DeleteRecursively(os.path.dirname(temporary))
    return prefix
