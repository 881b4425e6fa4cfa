"""Evaluations that share a graph, against TensorFlow's own Estimator, which builds one for each."""

import functools
import glob
import os

import numpy as np
import pytest
import tensorflow as tf

from trainer.training.estimator import Estimator

MEANS = {1: 0.5, 2: 3.0}  # Of the weight, in a checkpoint by its step.
VALUES = np.arange(12, dtype=np.float32)


def input_fn(first=0):
    return tf.data.Dataset.from_tensor_slices({'x': VALUES[first:]}).batch(5)


def model_fn(features, labels, mode, calls):
    del labels
    calls.append(mode)
    weight = tf.get_variable('weight', [])
    # Stateful: another in each batch.
    noise = tf.reduce_mean(tf.random.normal(tf.shape(features['x']), seed=1))
    value = weight * tf.reduce_sum(features['x']) + noise
    metrics = {'noisy': tf.metrics.mean(value), 'noise': tf.metrics.mean(noise)}
    return tf.estimator.EstimatorSpec(mode, loss=weight, eval_metric_ops=metrics)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Paths by step."""
    folder = str(tmp_path_factory.mktemp('checkpoints'))
    with tf.Graph().as_default(), tf.Session() as session:
        weight, step = tf.get_variable('weight', []), tf.train.create_global_step()
        saver = tf.train.Saver()
        session.run(tf.global_variables_initializer())
        paths = {}
        for number, mean in MEANS.items():
            session.run([weight.assign(mean), step.assign(number)])
            paths[number] = saver.save(session, folder + '/model.ckpt', step)
    return paths


def made(kind, folder, calls=None):
    config = tf.estimator.RunConfig(str(folder), tf_random_seed=3)
    calls = [] if calls is None else calls
    return kind(
        lambda features, labels, mode: model_fn(features, labels, mode, calls), config=config
    )


def events(folder):
    """Steps, tags and values of the event files of an evaluation."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, 'events.*'))):
        for event in tf.train.summary_iterator(path):
            for value in event.summary.value:
                content = value.simple_value or value.tensor.string_val
                found.append((event.step, value.tag, str(content)))
    return sorted(found)


def test_metrics_and_events_are_tensorflow_s_own_in_one_graph(checkpoints, tmp_path):
    calls, more = [], []
    ours = made(Estimator, tmp_path / 'ours', calls)
    theirs = made(tf.estimator.Estimator, tmp_path / 'theirs', more)
    for step in (1, 2, 1, 2):
        found, expected = [
            one.evaluate(input_fn, checkpoint_path=checkpoints[step], name='validation')
            for one in (ours, theirs)
        ]
        assert found == expected
        np.testing.assert_allclose(
            found['noisy'] - found['noise'], MEANS[step] * VALUES.sum() / 3, rtol=1e-6
        )
    assert len(calls) == 1 and len(more) == 4
    shown = events(ours.eval_dir('validation'))
    assert shown == events(theirs.eval_dir('validation'))
    assert {tag for _, tag, _ in shown} == {'noisy', 'noise', 'loss', 'checkpoint_path'}


def test_other_images_have_a_graph_of_their_own(checkpoints, tmp_path):
    estimator = made(Estimator, tmp_path)
    rest = functools.partial(input_fn, 5)
    whole, part, again = [
        estimator.evaluate(images, checkpoint_path=checkpoints[1])
        for images in (input_fn, rest, input_fn)
    ]
    assert whole == again
    np.testing.assert_allclose(part['noisy'] - part['noise'], 0.5 * VALUES[5:].sum() / 2, rtol=1e-6)


class Began(tf.train.SessionRunHook):
    """Counts the ops of the graph, as each session begins."""

    def __init__(self):
        self.sizes, self.batches = [], 0

    def after_create_session(self, session, coord):
        self.sizes.append(len(session.graph.get_operations()))

    def after_run(self, run_context, run_values):
        self.batches += 1


def test_the_graph_does_not_grow_and_hooks_see_each_evaluation(checkpoints, tmp_path):
    estimator, hook = made(Estimator, tmp_path), Began()
    for _ in range(4):
        estimator.evaluate(input_fn, hooks=[hook], checkpoint_path=checkpoints[1])
    assert hook.batches == 4 * 3 and len(hook.sizes) == 4 and len(set(hook.sizes)) == 1


def test_steps_and_the_newest_checkpoint_are_as_tensorflow_has_them(checkpoints):
    estimator = made(Estimator, os.path.dirname(checkpoints[1]))
    assert estimator.evaluate(input_fn)['global_step'] == 2
    first = estimator.evaluate(input_fn, steps=1, checkpoint_path=checkpoints[1])
    np.testing.assert_allclose(first['noisy'] - first['noise'], 0.5 * VALUES[:5].sum(), rtol=1e-6)
