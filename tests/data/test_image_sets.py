"""Whole sets of images: of splits, of paths, of other sizes, as a model sees them."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from tests.support import own
from trainer.base.errors import UserError
from trainer.data import image_sets


class Usual:
    """A model's own images."""

    def __init__(self, folder):
        self.images = own.pictures(130, (4, 6))
        source = own.write_array(folder / 'usual.npy', self.images)
        self.data = own.prepared(source, folder / 'data')
        self.params = own.settled(own.params_of(source, folder / 'data'), self.data)


@pytest.fixture(scope='module')
def usual(tmp_path_factory):
    return Usual(tmp_path_factory.mktemp('usual'))


def in_threads(blocks):
    """Takes each block in a thread of its own, as tf.data may."""
    while True:
        found = []
        thread = threading.Thread(
            target=lambda found=found: found.extend(itertools.islice(blocks, 1))
        )
        thread.start()
        thread.join()
        if not found:
            return
        yield found[0]


def read(images, at_once=7):
    blocks = list(in_threads(images.blocks(at_once)))
    assert {len(block) for block in blocks[:-1]} <= {at_once} and len(blocks[-1]) <= at_once
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    found = np.concatenate(blocks)
    assert len(found) == images.num_images
    return found


def test_a_split_is_what_the_model_is_evaluated_on(usual):
    pixels = own.pixels(usual.data, 'test')[..., 0] / 255
    whole = image_sets.of_split(usual.data, 'test', usual.params, 10_000)
    np.testing.assert_allclose(read(whole), pixels, atol=1e-7)
    assert whole.num_in_source == whole.num_images == len(pixels)
    some = image_sets.of_split(usual.data, 'train', usual.params, 10)
    count = usual.data.num_examples['train']
    numbers = [number * count // 10 for number in range(10)]
    expected = own.pixels(usual.data, 'train')[numbers, ..., 0] / 255
    np.testing.assert_allclose(read(some), expected, atol=1e-7)
    assert (some.num_images, some.num_in_source) == (10, count)


def test_arrays_and_folders_are_taken_whole(usual, tmp_path):
    pixels = own.pictures(23, (4, 6), seed=2)
    folder = own.write_folder(tmp_path / 'odd', pixels, 'some/{:02}.png')
    np.savez(str(tmp_path / 'both.npz'), x_train=usual.images, x_test=pixels)
    paths = {
        folder: pixels,
        own.write_array(tmp_path / 'bytes.npy', pixels): pixels,
        own.write_array(tmp_path / 'floats.npy', pixels / 255): pixels,
        own.write_array(tmp_path / 'black.npy', 0 * pixels): 0 * pixels,
        str(tmp_path / 'both.npz'): pixels,
    }
    for path, expected in paths.items():
        images = image_sets.of_path(path, usual.params, 10_000)
        np.testing.assert_allclose(read(images), expected / 255, atol=1e-7, err_msg=path)
        assert path in images.source
        spread = read(image_sets.of_path(path, usual.params, 5))
        np.testing.assert_allclose(spread, expected[[0, 4, 9, 13, 18]] / 255, atol=1e-7)


def test_a_binarised_model_sees_zeros_and_ones_drawn_by_the_number_of_the_image(usual, tmp_path):
    params = dataclasses.replace(usual.params, binarization='dynamic')
    grey = np.full([400, 4, 6], 51, np.uint8)
    drawn = read(image_sets.of_path(own.write_array(tmp_path / 'grey.npy', grey), params, 400))
    assert set(np.unique(drawn)) == {0, 1}
    assert drawn.mean() == pytest.approx(0.2, abs=0.02)
    assert len(np.unique(drawn.reshape(400, -1), axis=0)) > 390
    some = read(image_sets.of_path(str(tmp_path / 'grey.npy'), params, 40))
    np.testing.assert_array_equal(some, drawn[::10])
    cut = 255 * (own.pictures(10, (4, 6)) >= 128).astype(np.uint8)
    found = read(image_sets.of_path(own.write_array(tmp_path / 'cut.npy', cut), params, 10))
    np.testing.assert_array_equal(found, cut / 255)


@pytest.mark.parametrize('fit', ['stretch', 'pad'])
def test_a_model_that_resized_its_images_gets_others_resized_alike(tmp_path, fit):
    pixels = own.pictures(130, (6, 9, 3))
    for source in (
        own.write_array(tmp_path / 'large.npy', pixels),
        own.write_folder(tmp_path / 'large', pixels),
    ):
        params = own.params_of(source, tmp_path / 'data', image_size='4x6', fit=fit, channels='1')
        data = own.prepared(source, tmp_path / 'data', image_size='4x6', fit=fit, channels='1')
        params = own.settled(params, data)
        expected = np.concatenate([own.pixels(data, split) for split in data.files])[..., 0]
        found = read(image_sets.of_path(source, params, 10_000))
        found = np.rint(255 * found).astype(int).reshape(len(found), -1)
        assert sorted(found.tolist()) == sorted(expected.reshape(len(found), -1).tolist())
    # So is another dataset.
    raw = own.prepared(str(tmp_path / 'large'), tmp_path / 'data')
    of_split = read(image_sets.of_split(raw, 'test', params, 10_000))
    np.testing.assert_allclose(of_split, own.pixels(data, 'test')[..., 0] / 255, atol=1e-7)


def test_colours_become_grey_for_a_model_of_own_images_and_are_refused_by_others(usual, tmp_path):
    colour = own.pictures(5, (4, 6, 3))
    path = own.write_array(tmp_path / 'colour.npy', colour)
    found = read(image_sets.of_path(path, usual.params, 9))
    luma = np.floor(colour @ np.array([299, 587, 114]) / 1000 + 0.5)
    np.testing.assert_allclose(found, luma / 255, atol=1e-7)
    others = dataclasses.replace(usual.params, source_digest='')
    with pytest.raises(UserError, match='colour.npy holds images of 4 x 6 x 3, and the model in'):
        image_sets.of_path(path, others, 9)
    ones = own.write_array(tmp_path / 'ones.npy', colour[..., 0] % 2)
    drawn = dataclasses.replace(usual.params, binarization='static')
    np.testing.assert_array_equal(read(image_sets.of_path(ones, drawn, 9)), colour[..., 0] % 2)
