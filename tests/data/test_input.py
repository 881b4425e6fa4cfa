"""Tests of the input pipelines."""

import dataclasses
import hashlib
import itertools
import os
import time
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.support import datasets
from trainer.data import inputs
from trainer.data.dataset import DTYPES, SPLITS, PreparedDataset
from trainer.data.stored_images import ImageFile


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
            lambda: inputs.train_input_fn(prepared, batch_size, seed, start_step, 'none'),
            count,
            graph_seed,
        )
    )


def test_pixels_become_rows_of_features_between_0_and_1(tmp_path):
    prepared = datasets.write_prepared(tmp_path, shape=(4, 8, 3))
    (batch,) = _batches(lambda: inputs.eval_input_fn(prepared, 'train', 110, 'none'))
    pixels = np.fromfile(prepared.files['train'], np.uint8).reshape(110, 4, 8 * 3)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, pixels / 255, rtol=1e-6)
    # TF multiplies by 1/255 instead of dividing; white must still not exceed 1.
    assert batch.max() == 1.0 and batch.min() == 0.0


def _as_floats(prepared, folder):
    """The same images, stored as numbers in [0, 1]."""
    paths = {split: str(folder / (split + '.float32')) for split in SPLITS}
    for split, path in paths.items():
        levels = np.fromfile(prepared.files[split], np.uint8) / 255
        levels.astype(np.float32).tofile(path)
    return dataclasses.replace(prepared, files=paths, dtype='float32')


def test_float_pixels_are_seen_as_they_are_stored(numbered, tmp_path):
    floats = _as_floats(numbered, tmp_path)
    assert floats.image_bytes == 4 * numbered.image_bytes == 4 * 64
    (batch,) = _batches(lambda: inputs.eval_input_fn(floats, 'train', 110, 'none'))
    stored = np.fromfile(floats.files['train'], np.float32).reshape(110, 8, 8)
    np.testing.assert_array_equal(batch, stored)
    grey = _trained_on(numbered, 8, 'none')
    np.testing.assert_allclose(_trained_on(floats, 8, 'none'), grey, rtol=1e-6)


@pytest.fixture(name='from_disk')
def _from_disk(monkeypatch):
    """Has every split count as one that memory does not hold."""

    def from_disk():
        monkeypatch.setattr(inputs, '_MOST_BYTES_IN_MEMORY', 0)

    return from_disk


@pytest.mark.parametrize('binarization', ['none', 'static', 'dynamic'])
@pytest.mark.parametrize('dtype', DTYPES)
def test_a_large_split_gives_the_batches_of_one_in_memory(tmp_path, dtype, binarization, from_disk):
    prepared = datasets.write_prepared(tmp_path, num_train=1010, shape=(3, 7, 1))
    if dtype == 'float32':
        prepared = _as_floats(prepared, tmp_path)
    in_memory = _trained_on(prepared, 70, binarization, seed=3, start_step=5)
    from_disk()
    with mock.patch.object(np, 'frombuffer', wraps=np.frombuffer) as read:
        found = _trained_on(prepared, 70, binarization, seed=3, start_step=5)
    np.testing.assert_array_equal(found, in_memory)
    assert bool(read.call_count) == (binarization != 'static')


def test_a_large_split_changes_no_initial_weight(numbered, from_disk):
    def ops():
        with tf.Graph().as_default() as graph:
            batches = inputs.train_input_fn(numbered, 20, 1, 0, 'none')
            assert batches.output_shapes['images'].as_list() == [20, 8, 8]
            return len(graph.get_operations())

    in_memory = ops()
    from_disk()
    assert ops() == in_memory


def test_a_large_file_that_is_replaced_or_removed_is_read_on_and_one_cut_off_is_named(
    numbered,
):
    path = numbered.files['train']
    whole = ImageFile(path, 64, 'uint8', np.arange(110) * 64)
    before = whole(np.array([109, 3, 109]))
    assert datasets.numbers_of(before) == [109, 3, 109]
    os.rename(path, path + '.old')
    np.testing.assert_array_equal(whole(np.array([109, 3, 109])), before)
    with open(path + '.old', 'r+b') as f:
        f.truncate(109 * 64)
    with pytest.raises(OSError, match='Input/output error') as error:
        whole(np.array([0, 109]))
    assert error.value.filename == path


def test_static_shapes(numbered):
    with tf.Graph().as_default():
        train = inputs.train_input_fn(numbered, 20, 1, 0, 'none')
        assert train.output_shapes['images'].as_list() == [20, 8, 8]
        evaluation = inputs.eval_input_fn(numbered, 'validation', 4, 'none')
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
    batches = _numbers(_batches(lambda: inputs.eval_input_fn(numbered, 'test', 8, 'none')))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert list(itertools.chain(*batches)) == list(range(120, 140))


def test_evaluation_of_the_first_images_only(numbered):
    batches = _numbers(_batches(lambda: inputs.eval_input_fn(numbered, 'validation', 4, 'none', 6)))
    assert batches == [[110, 111, 112, 113], [114, 115]]


@pytest.mark.parametrize('binarization', ['none', 'dynamic'])
def test_evaluation_of_blocks_from_all_over_the_split(tmp_path, binarization):
    prepared = datasets.write_prepared(tmp_path, num_train=4400, shape=(4, 4, 1))
    some = _evaluated(prepared, 'train', 300, binarization, 2000, spread=True)
    every = _evaluated(prepared, 'train', 300, binarization)
    np.testing.assert_array_equal(some, np.concatenate([every[:1000], every[2000:3000]]))


# Binarisation.


def _write_copies(folder, levels, copies, num_train=20):
    """A PreparedDataset whose every image is `levels` (bytes), `copies` times over."""
    shape = (8, 8, 1)
    pixels = np.resize(np.repeat(np.asarray(levels, np.uint8), copies), shape)
    counts = {'train': num_train, 'validation': 10, 'test': 2500}
    paths = {split: str(folder / split) for split in counts}
    for split, count in counts.items():
        np.tile(pixels, (count, 1, 1, 1)).tofile(paths[split])
    return PreparedDataset('copies', '1.0.0', shape, paths, counts)


def _trained_on(prepared, count, binarization, seed=1, start_step=0, **graph):
    return np.stack(
        _batches(
            lambda: inputs.train_input_fn(prepared, 20, seed, start_step, binarization),
            count,
            **graph,
        )
    )


def _evaluated(
    prepared, split, batch_size=100, binarization='dynamic', number=None, spread=False, **graph
):
    return np.concatenate(
        _batches(
            lambda: inputs.eval_input_fn(prepared, split, batch_size, binarization, number, spread),
            **graph,
        )
    )


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_pixel_is_1_as_often_as_its_grey_level_says(dtype, tmp_path):
    levels = [0, 1, 64, 128, 191, 254, 255, 20]
    prepared = _write_copies(tmp_path, levels, copies=8)
    if dtype == 'float32':
        prepared = _as_floats(prepared, tmp_path)
    fixed = _evaluated(prepared, 'test')
    dynamic = _trained_on(prepared, 125, 'dynamic').reshape(2500, 8, 8)
    for images in (fixed, dynamic):
        assert images.dtype == np.float32
        assert set(np.unique(images)) == {0.0, 1.0}
        means = images.mean(axis=(0, 2), dtype=np.float64)
        probability = np.array(levels) / 255
        error = np.sqrt(probability * (1 - probability) / (2500 * 8))
        assert (abs(means - probability) <= 4 * error).all()
        assert means[0] == 0 and means[6] == 1
    # Pixels of one level differ from each other and from image to image.
    assert 0 < fixed[0, 3].mean() < 1 and (fixed[:1200, 3] != fixed[1200:2400, 3]).any(axis=1).all


def test_pixels_and_images_are_drawn_independently(tmp_path):
    prepared = _write_copies(tmp_path, [128], copies=64)
    for images in (_evaluated(prepared, 'test'), _trained_on(prepared, 125, 'dynamic')):
        images = images.reshape(2500, 64) - 128 / 255
        for shifted in (np.roll(images, 1, 0), np.roll(images, 1000, 0), np.roll(images, 1, 1)):
            # Of 160,000 products of variance 1/16 each.
            assert abs((images * shifted).mean()) < 4 * 0.25 / 400


@pytest.mark.parametrize('binarization', ['static', 'dynamic'])
def test_evaluation_is_on_the_same_binary_images_whatever_the_batch_and_the_seed(
    tmp_path, binarization
):
    prepared = _write_copies(tmp_path, [128], copies=64)
    all_at_once = _evaluated(prepared, 'test', 2500, binarization, graph_seed=1)
    np.testing.assert_array_equal(
        _evaluated(prepared, 'test', 7, binarization, graph_seed=2), all_at_once
    )
    np.testing.assert_array_equal(
        _evaluated(prepared, 'test', 64, binarization, 1100), all_at_once[:1100]
    )
    np.testing.assert_array_equal(
        inputs.first_images(prepared, 'test', 3, binarization), all_at_once[:3]
    )
    splits = [_evaluated(prepared, split)[:10] for split in SPLITS]
    for i in range(3):
        assert 0.4 < (splits[i] != splits[i - 1]).mean() < 0.6


def test_the_fixed_sampling_never_changes(tmp_path):
    """Published numbers are of these images: a change of the sampling is a new convention."""
    prepared = _write_copies(tmp_path, [128], copies=64)
    digests = {
        split: hashlib.sha256(np.packbits(_evaluated(prepared, split) > 0)).hexdigest()[:16]
        for split in SPLITS
    }
    assert digests == {
        'train': 'efeb1d3de42a1d75',
        'validation': 'f082e8600d3606c1',
        'test': 'd34df70984334a74',
    }


def test_static_training_images_are_those_of_the_evaluation_of_the_split(tmp_path):
    prepared = datasets.write_prepared(tmp_path)
    stored = _evaluated(prepared, 'train', 50, 'static')
    for seed in (1, 2):
        order = itertools.chain(*_train_numbers(prepared, 11, seed))
        seen = _trained_on(prepared, 11, 'static', seed).reshape(220, 8, 8)
        np.testing.assert_array_equal(seen, stored[list(order)])


def test_dynamic_training_images_are_new_each_time_and_a_function_of_seed_and_step(tmp_path):
    prepared = _write_copies(tmp_path, [128], copies=64)
    first = _trained_on(prepared, 8, 'dynamic', graph_seed=1)
    # Each image is in each batch of 20: eight epochs, and not one image like another.
    assert len(np.unique(first.reshape(160, 64), axis=0)) == 160
    np.testing.assert_array_equal(_trained_on(prepared, 8, 'dynamic', graph_seed=2), first)
    np.testing.assert_array_equal(_trained_on(prepared, 3, 'dynamic', start_step=5), first[5:])
    assert (_trained_on(prepared, 8, 'dynamic', seed=2) != first).mean() > 0.4


def test_dequantised_levels_have_noise_of_their_width_new_each_time(tmp_path):
    prepared = datasets.write_prepared(tmp_path, num_train=100, shape=(8, 8, 1))
    first = _trained_on(prepared, 8, 'uniform', graph_seed=1)
    levels = np.rint(255 * _trained_on(prepared, 8, 'none'))
    noise = 256 * first.astype(np.float64) - levels
    assert first.min() >= 0 and first.max() < 1
    # Single precision rounds the noise on the highest levels.
    assert noise.min() > -1e-4 and noise.max() < 1 + 1e-4
    error = 1 / np.sqrt(12 * noise.size)
    assert noise.mean() == pytest.approx(0.5, abs=5 * error)
    assert noise.std() == pytest.approx(1 / np.sqrt(12), abs=5 * error)
    np.testing.assert_array_equal(_trained_on(prepared, 8, 'uniform', graph_seed=2), first)
    np.testing.assert_array_equal(_trained_on(prepared, 3, 'uniform', start_step=5), first[5:])
    other = 256 * _trained_on(prepared, 8, 'uniform', seed=2) % 1
    assert abs(np.corrcoef(other.ravel(), (256 * first % 1).ravel())[0, 1]) < 0.1


def test_dequantised_levels_are_evaluated_with_one_noise(tmp_path):
    prepared = datasets.write_prepared(tmp_path, num_train=1010, shape=(3, 7, 1))
    once, again = [
        np.concatenate(
            _batches(lambda size=size: inputs.eval_input_fn(prepared, 'train', size, 'uniform'))
        )
        for size in (100, 7)
    ]
    np.testing.assert_array_equal(once, again)
    levels = np.fromfile(prepared.files['train'], np.uint8).reshape(once.shape)
    np.testing.assert_array_equal(np.floor(256 * once), levels)


def test_dynamic_training_sees_the_images_in_the_order_of_grey_training(numbered):
    grey, dynamic = [_trained_on(numbered, 12, name) for name in ('none', 'dynamic')]
    # Only a black pixel never, and only a white one always becomes 1.
    assert (dynamic[grey == 0] == 0).all() and (dynamic[grey == 1] == 1).all()
    assert (grey == 0).any() and (grey == 1).any()


def test_estimator_takes_the_input_fns(numbered, tmp_path):
    seen = []

    def model_fn(features, labels, mode):
        assert labels is None and list(features) == ['images']
        seen.append(features['images'].shape.as_list())
        step = tf.train.get_or_create_global_step()
        loss = tf.reduce_mean(features['images'])
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=tf.assign_add(step, 1))

    estimator = tf.estimator.Estimator(model_fn, str(tmp_path / 'model'))
    estimator.train(lambda: inputs.train_input_fn(numbered, 16, 1, 0, 'none'), steps=3)
    estimator.evaluate(lambda: inputs.eval_input_fn(numbered, 'validation', 4, 'none'))
    assert seen == [[16, 8, 8], [None, 8, 8]]


def test_the_split_does_not_become_part_of_the_graph(tmp_path):
    prepared = datasets.write_prepared(tmp_path, num_train=5000)
    with tf.Graph().as_default() as graph:
        inputs.train_input_fn(prepared, 16, 1, 0, 'none')
        assert graph.as_graph_def().ByteSize() < 20000


@pytest.mark.slow
def test_rate_and_longest_wait_are_far_from_what_training_needs(prepared_mnist):
    with tf.Graph().as_default(), tf.Session() as session:
        batch = (
            inputs.train_input_fn(prepared_mnist, 128, 1, 0, 'none')
            .make_one_shot_iterator()
            .get_next()
        )
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
