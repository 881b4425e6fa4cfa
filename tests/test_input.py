"""Tests of the input pipelines."""

import itertools
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import datasets
from trainer import input


def _batches(make_dataset, count=None, graph_seed=None):
    """The first `count` batches of images, in a graph of their own as Estimator would build it."""
    with tf.Graph().as_default():
        tf.set_random_seed(graph_seed)
        images = make_dataset().make_initializable_iterator()
        batch = images.get_next()
        assert list(batch) == ['images']
        batches = []
        with tf.Session() as session:
            session.run(images.initializer)
            try:
                for _ in range(count) if count is not None else itertools.count():
                    batches.append(session.run(batch)['images'])
            except tf.errors.OutOfRangeError:
                assert count is None
        return batches


def _numbers(batches):
    return [datasets.numbers_of(batch) for batch in batches]


@pytest.fixture(name='numbered')
def _numbered(tmp_path):
    return datasets.write_prepared(tmp_path)


def _train_numbers(prepared, count, seed=1, start_step=0, batch_size=20, graph_seed=None):
    return _numbers(
        _batches(
            lambda: input.train_input_fn(prepared, batch_size, seed, start_step), count, graph_seed
        )
    )


def test_pixels_become_rows_of_features_between_0_and_1(tmp_path):
    prepared = datasets.write_prepared(tmp_path, shape=(4, 8, 3))
    (batch,) = _batches(lambda: input.eval_input_fn(prepared, 'train', 110))
    pixels = np.fromfile(prepared.files['train'], np.uint8).reshape(110, 4, 8 * 3)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, pixels / 255, rtol=1e-6)
    # TF multiplies by 1/255 instead of dividing; white must still not exceed 1.
    assert batch.max() == 1.0 and batch.min() == 0.0


def test_static_shapes(numbered):
    with tf.Graph().as_default():
        train = input.train_input_fn(numbered, 20, 1, 0)
        assert train.output_shapes['images'].as_list() == [20, 8, 8]
        evaluation = input.eval_input_fn(numbered, 'validation', 4)
        assert evaluation.output_shapes['images'].as_list() == [None, 8, 8]


def test_every_epoch_shows_every_image_once_in_a_new_order(numbered):
    stream = list(itertools.chain(*_train_numbers(numbered, 22)))
    epochs = [stream[start : start + 110] for start in range(0, 440, 110)]
    assert all(sorted(epoch) == list(range(110)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # The shuffle covers the split: the first images come from all over it.
    assert max(epochs[0][:20]) > 80 and min(epochs[0][:20]) < 30


def test_batch_larger_than_the_split(numbered):
    (batch,) = _train_numbers(numbered, 1, batch_size=250)
    assert sorted(batch[:110]) == sorted(batch[110:220]) == list(range(110))


def test_same_seed_same_order_whatever_the_graph_seed(numbered):
    first = _train_numbers(numbered, 12, graph_seed=1)
    assert _train_numbers(numbered, 12, graph_seed=2) == first
    assert _train_numbers(numbered, 12, seed=2) != first


@pytest.mark.parametrize('start_step', [1, 5, 6, 14, 1000])
def test_resumed_run_goes_on_where_an_unbroken_one_would_be(numbered, start_step):
    unbroken = _train_numbers(numbered, 20, start_step=max(0, start_step - 10))
    resumed = _train_numbers(numbered, 10, start_step=start_step)
    assert resumed == unbroken[min(10, start_step) :][:10]
    assert resumed != _train_numbers(numbered, 10)


def test_any_64_bit_seed_serves(numbered):
    assert _train_numbers(numbered, 2, seed=-(2**63)) != _train_numbers(numbered, 2, seed=2**63 - 1)


def test_evaluation_sees_every_image_once_in_stored_order(numbered):
    batches = _numbers(_batches(lambda: input.eval_input_fn(numbered, 'test', 8)))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert list(itertools.chain(*batches)) == list(range(120, 140))


def test_evaluation_of_the_first_images_only(numbered):
    batches = _numbers(_batches(lambda: input.eval_input_fn(numbered, 'validation', 4, 6)))
    assert batches == [[110, 111, 112, 113], [114, 115]]


def test_estimator_takes_the_input_fns(numbered, tmp_path):
    seen = []

    def model_fn(features, labels, mode):
        assert labels is None and list(features) == ['images']
        seen.append(features['images'].shape.as_list())
        step = tf.train.get_or_create_global_step()
        loss = tf.reduce_mean(features['images'])
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=tf.assign_add(step, 1))

    estimator = tf.estimator.Estimator(model_fn, str(tmp_path / 'model'))
    estimator.train(lambda: input.train_input_fn(numbered, 16, 1, 0), steps=3)
    estimator.evaluate(lambda: input.eval_input_fn(numbered, 'validation', 4))
    assert seen == [[16, 8, 8], [None, 8, 8]]


def test_the_split_does_not_become_part_of_the_graph(tmp_path):
    prepared = datasets.write_prepared(tmp_path, num_train=5000)
    with tf.Graph().as_default() as graph:
        input.train_input_fn(prepared, 16, 1, 0)
        assert graph.as_graph_def().ByteSize() < 20000


def test_rate_and_longest_wait_are_far_from_what_training_needs(prepared_mnist):
    with tf.Graph().as_default(), tf.Session() as session:
        batch = input.train_input_fn(prepared_mnist, 128, 1, 0).make_one_shot_iterator().get_next()
        session.run(batch['images'].op)
        waits = []
        for _ in range(1000):
            start = time.perf_counter()
            session.run(batch['images'].op)
            waits.append(time.perf_counter() - start)
    # 190,000 images/s on two idle cores; training takes 4,500. The bound leaves room for a busy
    # machine. Two epochs end within the 1,000 batches.
    assert 128 / np.mean(waits) > 20 * 4500 / 3
    assert np.percentile(waits, 99) < 0.03
