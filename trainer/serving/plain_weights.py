"""The weights with the graph that uses them, as a checkpoint for TF 1 programs."""

import os
from typing import Callable

import tensorflow as tf

from trainer.checkpoints import weights
from trainer.settings.table import HParams

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
            weights.restore(session, checkpoint_path, saver)
            temporary = saver.save(
                session, os.path.join(params.model_dir, '.new', WEIGHTS_NAME), write_state=False
            )
    for part in sorted(tf.gfile.Glob(temporary + '.*'), key=lambda name: name.endswith('.index')):
        target = prefix + part[len(temporary) :]
        tf.gfile.Rename(part, target, overwrite=True)
    tf.gfile.DeleteRecursively(os.path.dirname(temporary))
    return prefix
