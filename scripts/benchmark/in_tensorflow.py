"""The contestants of the benchmark that run on TensorFlow.

    python -m scripts.benchmark.in_tensorflow NAME SETTINGS_AS_JSON

The first session of a process fixes TF 1.14's thread pools, whatever the later ones ask for, so a
contestant's first session is the one that its user would have: the Estimator's in training and
evaluation, a default one in `trainer.generate` and where a SavedModel is served.
"""

import dataclasses
import functools
import itertools
import json
import os
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator

import numpy as np
import tensorflow as tf

from scripts.benchmark.timed_steps import serve_steps, turns
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.monitoring import drawing
from trainer.serving import saved_model
from trainer.serving.saved_model import Options
from trainer.serving.signatures import DEFAULT
from trainer.settings.table import HParams
from trainer.training import model_fn, optimizer, run, towers
from trainer.training.hooks import CheckpointSaverHook
from trainer.training.progress import TrainingProgress

GEMM_SIZE = 2048
_EVALUATION_BATCH = 1000
Data = PreparedDataset


def run_training(params: HParams, data: Data) -> None:
    """Trains with this trainer's graph and input in a bare session."""
    dataset = _training_input(params, data)
    _train(dataset.make_one_shot_iterator().get_next(), params)


def _training_input(params: HParams, data: Data) -> tf.data.Dataset:
    return inputs.train_input_fn(data, params.batch_size, params.seed, 0, params.binarization)


def run_constant(params: HParams, data: Data) -> None:
    """The same with one batch that is always there; a variable, which no optimiser folds."""
    images = _first_images(data, 'train', params)
    _train({'images': tf.Variable(images, trainable=False)}, params)


def _first_images(data: Data, split: str, params: HParams) -> np.ndarray:
    """float32 [batch, rows, features]: the first batch of a split."""
    pixels = np.fromfile(data.files[split], np.uint8, params.batch_size * data.image_bytes)
    return (pixels / 255.0).astype(np.float32).reshape([-1, params.rows, params.row_features])


def _train(features: Dict[str, tf.Tensor], params: HParams) -> None:
    tf.set_random_seed(params.seed)
    tf.train.create_global_step()
    spec = model_fn.model_fn(features, None, tf.estimator.ModeKeys.TRAIN, params)
    with _training_session(params) as session:
        session.run(tf.global_variables_initializer())
        serve_steps(lambda: session.run([spec.train_op, spec.loss]))


def _training_session(params: HParams) -> tf.Session:
    return tf.Session(config=run.make_estimator(params).config.session_config)


def run_plain(params: HParams, data: Data) -> None:
    """Trains the same network as a first TensorFlow program would."""
    tf.train.create_global_step()
    images = tf.placeholder(tf.float32, [None, params.rows, params.row_features])
    loss = tf.reduce_mean(_plain_negative_elbo(images, params))
    gradients = tf.gradients(loss, tf.trainable_variables())
    train_op = optimizer.training_step(gradients, params).train_op
    pixels = np.fromfile(data.files['train'], np.uint8)
    pixels = pixels.reshape([-1, params.rows, params.row_features])
    random = np.random.RandomState(params.seed)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())

        def step() -> None:
            batch = pixels[random.randint(len(pixels), size=params.batch_size)]
            session.run([train_op, loss], {images: batch / 255.0})

        serve_steps(step)


def _plain_negative_elbo(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the loss [batch] by the layers of `tf.nn` and `tf.layers` alone."""
    rows, columns, channels = params.image_shape
    maps = params.decoder_channels
    cell = tf.nn.rnn_cell.BasicLSTMCell(params.lstm_units)
    hidden, _ = tf.nn.static_rnn(cell, tf.unstack(images, axis=1), dtype=tf.float32)
    quarters = [params.rows * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    summary = tf.concat([hidden[row] for row in quarters], axis=1)
    mean = tf.layers.dense(summary, params.latent_size)
    scale = tf.layers.dense(summary, params.latent_size, tf.nn.softplus) + 1e-4
    layer = mean + scale * tf.random.normal(tf.shape(mean))
    for units in [params.decoder_units] * 2 + [rows // 4 * (columns // 4) * maps]:
        layer = tf.layers.dense(layer, units, tf.nn.elu)
    layer = tf.reshape(layer, [-1, rows // 4, columns // 4, maps])
    layer = tf.layers.conv2d_transpose(layer, maps, 3, 2, 'same', activation=tf.nn.elu)
    logits = tf.layers.conv2d_transpose(layer, channels, 4, 2, 'same')
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=images, logits=tf.reshape(logits, tf.shape(images))
    )
    divergence = 0.5 * (tf.square(mean) + tf.square(scale) - 1.0) - tf.math.log(scale)
    return tf.reduce_sum(cross_entropy, [1, 2]) + tf.reduce_sum(divergence, 1)


def run_gemm(params: HParams, data: Data) -> None:
    """Multiplies two large matrices on as many threads as the trainer uses."""
    del data
    square = tf.Variable(tf.random.normal([GEMM_SIZE, GEMM_SIZE]))
    product = tf.matmul(square, square).op
    config = tf.ConfigProto(intra_op_parallelism_threads=towers.count(params))
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        serve_steps(lambda: session.run(product))


def run_input(params: HParams, data: Data) -> None:
    """Makes training batches, and leaves them where a training step would take them."""
    dataset = _training_input(params, data)
    batch = dataset.make_one_shot_iterator().get_next()['images'].op
    with _training_session(params) as session:
        serve_steps(lambda: session.run(batch))


class _TurnsHook(tf.train.SessionRunHook):
    """Lets an Estimator train in turns; a step lasts from the end of the one before it."""

    def __init__(self) -> None:
        self._turns: Iterator = turns()

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        del session, coord
        next(self._turns)

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        del run_values
        if next(self._turns, self) is self:
            run_context.request_stop()


def run_estimator(params: HParams, data: Data) -> None:
    """Trains as `train_and_evaluate` does: progress, checkpoints and summaries included."""
    saver = CheckpointSaverHook(params.model_dir, save_steps=params.checkpoint_steps)
    run.make_estimator(params).train(
        lambda: _training_input(params, data),
        hooks=[TrainingProgress(params), saver, _TurnsHook()],
    )


def run_evaluation(params: HParams, data: Data) -> None:
    """Evaluates a checkpoint on the test images."""
    estimator = run.make_estimator(params)
    checkpoint_path = tf.train.latest_checkpoint(params.model_dir)
    input_fn = functools.partial(
        inputs.eval_input_fn, data, 'test', _EVALUATION_BATCH, params.binarization
    )
    serve_steps(lambda: estimator.evaluate(input_fn, checkpoint_path=checkpoint_path, name='timed'))


def run_export(params: HParams, data: Data) -> None:
    """Writes a SavedModel, each into a folder of its own: their names have whole seconds."""
    del data
    checkpoint_path = tf.train.latest_checkpoint(params.model_dir)
    numbers = itertools.count()
    serve_steps(
        lambda: saved_model.export_saved_model(
            'timed-{}'.format(next(numbers)), checkpoint_path, params
        )
    )


def run_generate(params: HParams, data: Data) -> None:
    """Draws 10,000 images from the prior."""
    del data
    checkpoint_path = tf.train.latest_checkpoint(params.model_dir)
    serve_steps(lambda: drawing.draw_from_prior(10000, params.seed, checkpoint_path, params))


def run_inference(params: HParams, data: Data) -> None:
    """Asks the loaded SavedModel for all outputs of `serving_default`."""
    (folder,) = tf.gfile.Glob(os.path.join(params.model_dir, 'export', 'final', '*'))
    _answer(folder, params, data)


def run_frozen_inference(params: HParams, data: Data) -> None:
    """The same of an export with constants for weights, as --optimize_export makes it."""
    checkpoint_path = tf.train.latest_checkpoint(params.model_dir)
    options = Options(optimize=True)
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = dataclasses.replace(params, model_dir=folder)
        exported = saved_model.export_saved_model('frozen', checkpoint_path, elsewhere, options)
        _answer(exported, params, data)


def _answer(folder: str, params: HParams, data: Data) -> None:
    images = _first_images(data, 'test', params).reshape([-1] + params.served_shape)
    with tf.Session(graph=tf.Graph()) as session:
        loaded = tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        signature = loaded.signature_def[DEFAULT]
        answer = session.make_callable(
            {name: info.name for name, info in signature.outputs.items()},
            [signature.inputs['images'].name],
        )
        serve_steps(lambda: answer(images))


RUN: Dict[str, Callable[[HParams, Data], None]] = {
    'training': run_training,
    'constant': run_constant,
    'plain': run_plain,
    'gemm': run_gemm,
    'input': run_input,
    'estimator': run_estimator,
    'evaluation': run_evaluation,
    'export': run_export,
    'generate': run_generate,
    'inference': run_inference,
    'frozen_inference': run_frozen_inference,
}


def main() -> None:
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    data: Dict[str, Any] = settings['data']
    for table in (settings['params'], data):
        table['image_shape'] = tuple(table['image_shape'])
    RUN[name](HParams(**settings['params']), Data(**data))


if __name__ == '__main__':
    main()
