"""The steps that run on TensorFlow.

The first session of a process fixes TF 1.14's thread pools, whatever the later ones ask for, so the
first session here is the one that a user would have: the Estimator's in training and evaluation, a
default one in `trainer.generate` and where a SavedModel is served.
"""

import dataclasses
import glob
import itertools

import numpy as np
import tensorflow as tf

from scripts.benchmark import timed_steps
from scripts.benchmark.architecture import (
    LOG_LIKELIHOOD_IMAGES,
    LOG_LIKELIHOOD_SAMPLES,
    Architecture,
)
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.evaluation import importance_sampling, scores
from trainer.monitoring import picture_files
from trainer.serving import saved_model, verify_export
from trainer.serving.signatures import DEFAULT
from trainer.settings.table import HParams
from trainer.training import model_fn, optimizer, run, towers
from trainer.training.hooks import CheckpointSaverHook, ProgressHook
from trainer.training.progress import TrainingProgress

GEMM_SIZE = 2048
FOREVER = itertools.repeat(None)


class Runs:
    """What a process may be started for, by name; iterators over steps."""

    def __init__(self, _, settings):
        self.params = HParams(**settings['params'])
        self.data = PreparedDataset(**settings['data'])
        self.checkpoint = tf.train.latest_checkpoint(self.params.model_dir)
        self.of_trainer = run.make_estimator(self.params)

    def training(self):
        return self._train(self._batches().make_one_shot_iterator().get_next())

    def constant(self):
        # A variable, which no optimiser folds.
        return self._train({'images': tf.Variable(self._first_batch('train'), trainable=False)})

    def input(self):
        # Left where a training step would take them.
        batch = self._batches().make_one_shot_iterator().get_next()['images'].op
        return self.in_session(batch, self.of_trainer.config.session_config)

    def gemm(self):
        square = tf.Variable(tf.random.normal([GEMM_SIZE, GEMM_SIZE]))
        config = tf.ConfigProto(intra_op_parallelism_threads=towers.count(self.params))
        return self.in_session(tf.matmul(square, square).op, config)

    def plain(self):
        return self._plain(static_lstm)

    def plain_fused(self):
        return self._plain(fused_lstm)

    def _plain(self, lstm):
        """The same network as a first TensorFlow program would train it."""
        sizes = Architecture(dataclasses.asdict(self.params))
        tf.train.create_global_step()
        images = tf.placeholder(tf.float32, [None, *sizes.row])
        loss = tf.reduce_mean(plain_negative_elbo(images, sizes, lstm))
        gradients = tf.gradients(loss, tf.trainable_variables())
        train_op = optimizer.training_step(gradients, self.params).train_op
        pixels = np.fromfile(self.data.files['train'], np.uint8).reshape([-1, *sizes.row])
        draw = np.random.RandomState(self.params.seed).randint
        chosen = (draw(len(pixels), size=self.params.batch_size) for _ in FOREVER)
        feeds = ({images: pixels[some] / 255.0} for some in chosen)
        return self.in_session([train_op, loss], feeds=feeds)

    def estimator(self):
        """As `train_and_evaluate` does: progress, checkpoints and summaries included."""
        params = self.params
        saver = CheckpointSaverHook(params.model_dir, save_steps=params.checkpoint_steps)
        hooks = [ProgressHook(TrainingProgress(params), params), saver, _WantedSteps()]
        self.of_trainer.train(self._batches, hooks=hooks)

    def evaluation(self):
        more = ('test', 1000, self.params.binarization)
        images = lambda: inputs.eval_input_fn(self.data, *more)  # noqa: E731
        settings = {'checkpoint_path': self.checkpoint, 'name': 'timed'}
        return (self.of_trainer.evaluate(images, **settings) for _ in FOREVER)

    def log_likelihood(self):
        """As `trainer.evaluate` does."""
        more = ('test', 1000, 'none', LOG_LIKELIHOOD_IMAGES)
        images = lambda: inputs.eval_input_fn(self.data, *more)  # noqa: E731
        settings = (LOG_LIKELIHOOD_SAMPLES, importance_sampling.SEED, towers.count(self.params))
        model = scores.model_of(self.checkpoint, self.params)
        sampler = importance_sampling.ImportanceSampler(model, images, *settings)
        return (list(sampler.rows()) for _ in FOREVER)

    def export(self):
        # Each into a folder of its own: their names have whole seconds.
        names, more = map('timed-{}'.format, itertools.count()), (self.checkpoint, self.params)
        scored = run.validation_images(self.data, self.params)
        return (saved_model.export_saved_model(name, *more, validation=scored) for name in names)

    def generate(self):
        settings = (10000, self.params.seed, self.checkpoint, self.params)
        return (picture_files.draw_from_prior(*settings) for _ in FOREVER)

    def inference(self):
        return self._answers(*glob.glob(self.params.model_dir + '/export/final/*'))

    def low_latency_inference(self):
        config = tf.ConfigProto()
        # Threads that pass ops on to each other cost more than they gain on one example.
        config.experimental.executor_type = 'SINGLE_THREADED_EXECUTOR'
        return self._answers(*glob.glob(self.params.model_dir + '/export/low_latency/*'), config)

    def _batches(self):
        params = self.params
        more = (params.batch_size, params.seed, 0, params.binarization)
        return inputs.train_input_fn(self.data, *more)

    def _first_batch(self, split):
        """float32 [batch, rows, features]."""
        count = self.params.batch_size * self.data.image_bytes
        pixels = (np.fromfile(self.data.files[split], np.uint8, count) / 255.0).astype(np.float32)
        return pixels.reshape([-1, self.params.rows, self.params.row_features])

    def _train(self, features):
        """Trains with this trainer's graph in a bare session."""
        tf.set_random_seed(self.params.seed)
        tf.train.create_global_step()
        spec = model_fn.model_fn(features, None, tf.estimator.ModeKeys.TRAIN, self.params)
        return self.in_session([spec.train_op, spec.loss], self.of_trainer.config.session_config)

    def in_session(self, fetches, config=None, feeds=FOREVER):
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            for feed in feeds:
                yield session.run(fetches, feed)

    def _answers(self, export_dir, config=None):
        """Asks for all outputs of `serving_default`."""
        images = self._first_batch('test').reshape([-1] + self.params.served_shape)
        verify_export.import_ops(export_dir)
        with tf.Session(graph=tf.Graph(), config=config) as session:
            loaded = tf.saved_model.load(session, [tf.saved_model.SERVING], export_dir)
            signature = loaded.signature_def[DEFAULT]
            outputs = {name: info.name for name, info in signature.outputs.items()}
            answer = session.make_callable(outputs, [signature.inputs['images'].name])
            while True:
                yield answer(images)


class _WantedSteps(tf.train.SessionRunHook):
    """Lets an Estimator train in turns; a step lasts from the end of the one before it."""

    def after_create_session(self, session, coord):
        self._steps = timed_steps.wanted_steps()
        next(self._steps)

    def after_run(self, run_context, run_values):
        if next(self._steps, self) is self:
            run_context.request_stop()


def static_lstm(images, units):
    """Returns the hidden states, a list of `[batch, units]`."""
    cell = tf.nn.rnn_cell.BasicLSTMCell(units)
    return tf.nn.static_rnn(cell, tf.unstack(images, axis=1), dtype=tf.float32)[0]


def fused_lstm(images, units):
    """As `static_lstm`, by one op for all steps and one for their gradients."""
    cell = tf.contrib.rnn.LSTMBlockFusedCell(units)
    return tf.unstack(cell(tf.transpose(images, [1, 0, 2]), dtype=tf.float32)[0])


def plain_negative_elbo(images, sizes, lstm=static_lstm):
    """Returns the loss [batch] by the layers of TensorFlow alone."""
    hidden = lstm(images, sizes.units)
    summary = tf.concat([hidden[step] for step in sizes.read_after], axis=1)
    mean = tf.layers.dense(summary, sizes.latents)
    scale = tf.layers.dense(summary, sizes.latents, tf.nn.softplus) + 1e-4
    layer = mean + scale * tf.random.normal(tf.shape(mean))
    for _, units in sizes.dense:
        layer = tf.layers.dense(layer, units, tf.nn.elu)
    layer = tf.reshape(layer, [-1, *sizes.quarter])
    for activation, (_, channels, size) in zip((tf.nn.elu, None), sizes.convolutions):
        layer = tf.layers.conv2d_transpose(
            layer, channels, sizes.kernel(size), sizes.strides, 'same', activation=activation
        )
    rows, features = sizes.row
    logits = tf.reshape(layer[:, :rows, : features // channels], tf.shape(images))
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
    divergence = 0.5 * (tf.square(mean) + tf.square(scale) - 1.0) - tf.math.log(scale)
    return tf.reduce_sum(cross_entropy, [1, 2]) + tf.reduce_sum(divergence, 1)


if __name__ == '__main__':
    timed_steps.serve(lambda kind, what, settings: getattr(Runs(kind, settings), what)())
