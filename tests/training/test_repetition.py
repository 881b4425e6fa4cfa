"""What makes the same command give the same numbers, and the numbers of the default settings."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.support.paths import OLD_RUN
from trainer.data import inputs, prepare
from trainer.data.dataset import PreparedDataset
from trainer.settings import storage
from trainer.settings.table import HParams
from trainer.training import run
from trainer.training.model_fn import model_fn


def bars(count, seed):
    """Images of three white bars each, uint8 `[count, 28, 28, 1]`."""
    random = np.random.RandomState(seed)
    rows, columns = np.mgrid[:28, :28]
    images = np.zeros([count, 28, 28], np.uint8)
    for _ in range(3):
        row, column = random.randint(6, 22, [2, count, 1, 1])
        half_height = random.randint(2, 5, [count, 1, 1])
        images[(abs(rows - row) <= half_height) & (abs(columns - column) <= 2)] = 255
    return images[..., np.newaxis]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    counts = {'train': 2000, 'validation': 100, 'test': 100}
    paths = {split: str(folder / split) for split in counts}
    for seed, (split, path) in enumerate(paths.items()):
        bars(counts[split], seed).tofile(path)
    return PreparedDataset('mnist', '3.0.0', (28, 28, 1), paths, counts)


# What the first 20 steps of the default settings on two threads lose, and an evaluation after them:
# the mean negative ELBO of a batch, and the two parts of the test images', in nats an example. They
# were recorded when the defaults gave 94.91 nats on MNIST's test images.
_LOSSES = [
    544.30212, 544.19501, 544.04095, 544.11517, 543.84064, 543.63428, 543.23181, 543.02490,
    542.38904, 542.18927, 541.69684, 540.80823, 540.55444, 539.78247, 539.06140, 537.67871,
    536.45386, 534.37494, 532.08405, 530.25464,
]  # fmt: skip
_RECONSTRUCTION_LOSS, _KL_DIVERGENCE = 526.18372, 0.46167159


class LossesHook(tf.train.SessionRunHook):
    def __init__(self):
        self.losses = []

    def before_run(self, run_context):
        return tf.train.SessionRunArgs(tf.get_collection(tf.GraphKeys.LOSSES))

    def after_run(self, run_context, run_values):
        self.losses += run_values.results


# TF 1.14 seeds an initializer by the number of ops before it, those of the input pipeline too.
_SEEDS = [42, 555, 575, 612, 633, 654, 679, 710]


def test_the_default_settings_start_from_the_weights_that_they_did(data, own_graph):
    params = HParams(num_threads=2)
    batches = inputs.train_input_fn(data, params.batch_size, params.seed, 0, params.binarization)
    features = batches.make_one_shot_iterator().get_next()
    model_fn(features, None, tf.estimator.ModeKeys.TRAIN, params)
    drawn = [op for op in tf.get_default_graph().get_operations() if op.type == 'RandomUniform']
    assert [op.get_attr('seed2') for op in drawn] == _SEEDS


@pytest.mark.slow
def test_the_default_settings_train_as_they_did(data, tmp_path):
    params = HParams(model_dir=str(tmp_path), num_threads=2)
    estimator, hook = run.make_estimator(params), LossesHook()
    estimator.train(
        lambda: inputs.train_input_fn(data, params.batch_size, params.seed, 0, params.binarization),
        steps=20,
        hooks=[hook],
    )
    metrics = estimator.evaluate(lambda: inputs.eval_input_fn(data, 'test', 100, 'none'))
    # Other vector instructions round differently: weights moved by a last digit each change these
    # losses by 1e-7, a learning rate of 1% more by 1e-4.
    np.testing.assert_allclose(hook.losses, _LOSSES, rtol=1e-5)
    np.testing.assert_allclose(metrics['elbo/reconstruction_loss'], _RECONSTRUCTION_LOSS, rtol=1e-5)
    np.testing.assert_allclose(metrics['elbo/kl_divergence'], _KL_DIVERGENCE, rtol=1e-4)


class FirstSession(Exception):
    """Ends a run at the first session that it makes."""


@pytest.mark.parametrize('max_steps', [4, 5])
def test_the_first_session_of_a_finished_and_of_a_new_run_asks_for_one_thread_an_op(
    max_steps, data, tmp_path, monkeypatch
):
    # TensorFlow makes the threads of a process as its first session asks for.
    make = tf.Session.__init__

    def recorded(self, target='', graph=None, config=None):
        make(self, target, graph, config)
        raise FirstSession(config.intra_op_parallelism_threads, config.inter_op_parallelism_threads)

    old_run = OLD_RUN
    folder = shutil.copytree(old_run, str(tmp_path / 'run'))
    params = dataclasses.replace(storage.trained(folder), max_steps=max_steps, num_threads=3)
    monkeypatch.setattr(prepare, 'prepare', lambda *args, **kwargs: data)
    monkeypatch.setattr(tf.Session, '__init__', recorded)
    with pytest.raises(FirstSession) as first:
        run.run(params)
    assert first.value.args == (1, 3)
