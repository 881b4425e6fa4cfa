"""The weights with the graph that uses them, as a checkpoint for TF 1 programs."""

import os

import tensorflow as tf

from trainer.checkpoints import weights
from trainer.settings.table import HParams

WEIGHTS_NAME = 'new_model.ckpt'


def save_weights(estimator: tf.estimator.Estimator, checkpoint_path: str, params: HParams) -> str:
    """Writes the weights with the graph that uses them as `new_model.ckpt.*`; returns the prefix.

    The graph maps `images`, float32 `[n, rows, columns]` in [0, 1] (those of several channels have
    them as a fourth axis), to predictions; `tf.train.import_meta_graph` and `Saver.restore` load
    both. Estimator's own `checkpoint` file goes on naming the training checkpoints
    (`write_state=False`), else a resumed run would start from this one.
    """
    prefix = os.path.join(params.model_dir, WEIGHTS_NAME)
    with tf.Graph().as_default():
        tf.train.create_global_step()
        images = tf.placeholder(tf.float32, [None] + params.served_shape, name='images')
        by_row = tf.reshape(images, [-1, params.rows, params.row_features])
        predict = tf.estimator.ModeKeys.PREDICT
        estimator.model_fn({'images': by_row}, None, predict, estimator.config)
        saver = tf.train.Saver(save_relative_paths=True)
        with tf.Session(config=estimator.config.session_config) as session:
            weights.restore(session, checkpoint_path, saver)
            prefix_of_new = os.path.join(params.model_dir, '.new', WEIGHTS_NAME)
            temporary = saver.save(session, prefix_of_new, write_state=False)
    for part in sorted(tf.gfile.Glob(temporary + '.*'), key=lambda name: name.endswith('.index')):
        tf.gfile.Rename(part, prefix + part[len(temporary) :], overwrite=True)
    tf.gfile.DeleteRecursively(os.path.dirname(temporary))
    return prefix
