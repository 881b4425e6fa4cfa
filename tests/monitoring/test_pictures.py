"""Pictures: how images are laid out, and from which latents they are decoded."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from trainer.model import vae
from trainer.model.priors import StandardNormal
from trainer.monitoring import pictures
from trainer.monitoring.pictures import Picture
from trainer.settings import memory
from trainer.settings.table import HParams

pytestmark = pytest.mark.usefixtures('own_graph')

TINY = HParams(
    latent_size=4, lstm_units=5, decoder_units=8, decoder_channels=2, image_shape=(8, 12, 1)
)
IMAGES = np.random.RandomState(2).rand(23, 8, 12).astype(np.float32)


def evaluate(fetches):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run(fetches)


def test_grid_lays_images_out_row_by_row_and_fills_up_with_black():
    images = tf.constant(np.stack([np.full([2, 3, 1], level) for level in (0.0, 0.5, 1.0)]))
    picture = Picture(images, 2)
    expected = np.zeros([4, 6])
    expected[:2, 3:] = 0.5
    expected[2:, :3] = 1
    grid, png = evaluate([pictures.grid(picture), tf.image.decode_png(pictures.png(picture, TINY))])
    np.testing.assert_array_equal(grid[:, :, 0], expected)
    np.testing.assert_array_equal(png[:, :, 0], np.rint(255 * expected).astype(np.uint8))


def test_colour_grid_keeps_its_channels():
    images = np.random.RandomState(0).rand(4, 8, 8, 3)
    grid = evaluate(pictures.grid(Picture(tf.constant(images), 2)))
    np.testing.assert_array_equal(grid[8:, :8], images[2])


def test_manifold_latents_are_scipys_quantiles():
    latents = evaluate(pictures.manifold_latents(5))
    quantiles = scipy.stats.norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9])
    assert latents.shape == (25, 2)
    np.testing.assert_allclose(latents[:5, 0], quantiles, atol=1e-5)
    np.testing.assert_allclose(latents[::5, 1], quantiles[::-1], atol=1e-5)


def decode(latents):
    return vae.expected_images(latents, TINY)


def decoded(latents):
    """What the decoder gives of known latents, in the graph of the pictures."""
    return decode(tf.constant(np.array(latents), tf.float32))


def test_reconstructions_stand_below_their_images():
    mean = np.random.RandomState(3).randn(23, 4).astype(np.float32)
    picture = pictures.reconstructions(tf.constant(IMAGES), tf.constant(mean), decode, TINY)
    actual, expected = evaluate([picture.images, decoded(mean)])
    # 23 images give two rows of ten.
    assert actual.shape == (40, 8, 12, 1)
    np.testing.assert_array_equal(actual[20:30, :, :, 0], IMAGES[10:20])
    np.testing.assert_allclose(actual[30:], expected[10:20], rtol=1e-5)


def test_interpolations_go_from_one_mean_to_the_next():
    mean = np.random.RandomState(3).randn(5, 4).astype(np.float32)
    picture = pictures.interpolations(tf.constant(mean), decode, TINY)
    middle = 0.3 * mean[3] + 0.7 * mean[2]
    actual, expected = evaluate([picture.images, decoded([mean[2], middle, mean[3]])])
    assert actual.shape[0] == 2 * picture.columns == 22
    np.testing.assert_allclose(actual[[11, 14, 21]], expected, rtol=1e-4)


def test_traversals_move_the_dimensions_whose_means_vary_most():
    mean = np.random.RandomState(3).randn(9, 4).astype(np.float32) * [1.0, 5.0, 0.1, 2.0]
    picture = pictures.traversals(tf.constant(mean, tf.float32), decode, TINY)
    moved = []
    for dimension, value in [(1, -3.0), (3, 3.0), (2, 0.0)]:
        latents = mean[0].copy()
        latents[dimension] = value
        moved.append(latents)
    actual, expected = evaluate([picture.images, decoded(moved)])
    assert actual.shape[0] == 4 * 11
    np.testing.assert_allclose(actual[[0, 21, 38]], expected, rtol=1e-4)


def test_prior_samples_are_fixed_by_the_seed():
    one, same, other = [
        pictures.prior_samples(9, seed, StandardNormal(), decode, TINY).images for seed in (1, 1, 2)
    ]
    noise = np.random.RandomState(1).standard_normal([9, 4])
    one, same, other, expected = evaluate([one, same, other, decoded(noise)])
    np.testing.assert_array_equal(one, same)
    np.testing.assert_allclose(one, expected, rtol=1e-5)
    assert np.abs(one - other).max() > 1e-3


def test_large_images_are_decoded_one_after_the_other_and_the_same(monkeypatch):
    latents = tf.constant(np.random.RandomState(0).randn(5, 4).astype(np.float32))
    at_once = vae.images_of_pictures(latents, TINY)
    monkeypatch.setattr(memory, '_NUMBERS_AT_ONCE', 10**5)
    in_turn = vae.images_of_pictures(latents, TINY)
    at_once, in_turn = evaluate([at_once, in_turn])
    assert in_turn.shape == (5, 8, 12, 1)
    np.testing.assert_allclose(in_turn, at_once, atol=1e-6)


def test_a_model_of_two_latents_has_its_manifold():
    two = dataclasses.replace(TINY, latent_size=2)
    images, mean = tf.constant(IMAGES), tf.zeros([23, 2])

    def decode_two(latents):
        return vae.expected_images(latents, two)

    assert 'latent_manifold' in pictures.of_validation(images, mean, decode_two, two)
    with tf.Graph().as_default():
        four = pictures.of_validation(tf.constant(IMAGES), tf.zeros([23, 4]), decode, TINY)
    assert set(four) == {'reconstructions', 'interpolations', 'traversals'}
