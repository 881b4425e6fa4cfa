"""Annealed importance sampling of a linear model, whose log p(x) SciPy knows; the program."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.support import serving_models
from tests.support.graphs import run
from tests.support.paths import ROOT
from trainer.evaluation import annealing
from trainer.evaluation.annealing import AnnealedSampler
from trainer.evaluation.importance_sampling import Model
from trainer.model.priors import StandardNormal

WEIGHTS = np.random.RandomState(1).standard_normal([2, 6])
SCALE = 0.3


def linear_model():
    """x = z W + noise, of images of 2 x 3."""

    def decode(latents):
        mean = tf.reshape(tf.matmul(latents, tf.constant(WEIGHTS, tf.float32)), [-1, 2, 3])

        def log_prob(images):
            squares = tf.reduce_sum(tf.square((images - mean) / SCALE), axis=[1, 2])
            return -0.5 * squares - 6 * np.float32(np.log(SCALE) + 0.5 * np.log(2 * np.pi))

        return types.SimpleNamespace(log_prob=log_prob)

    return Model(lambda images: None, decode, StandardNormal, lambda session: None)


def test_bounds_of_a_linear_model_enclose_its_likelihood():
    random = np.random.RandomState(2)
    latents = random.standard_normal([40, 2])
    images = latents @ WEIGHTS + SCALE * random.standard_normal([40, 6])
    covariance = WEIGHTS.T @ WEIGHTS + SCALE**2 * np.eye(6)
    expected = scipy.stats.multivariate_normal(np.zeros(6), covariance).logpdf(images)
    by_row = images.reshape(-1, 2, 3).astype(np.float32)

    gaps = []
    for temperatures in (10, 400):
        sampler = AnnealedSampler(linear_model(), (2, 3), 2, chains=16, temperatures=temperatures)
        sizes = sampler.step_sizes(by_row, 0)
        assert sizes.shape == (temperatures - 1, 40)
        lower = sampler.bound(by_row, sizes, 1)
        upper = sampler.bound(by_row, sizes, 2, latents.astype(np.float32))
        np.testing.assert_array_equal(sampler.bound(by_row, sizes, 1), lower)
        assert not np.array_equal(sampler.bound(by_row, sizes, 3), lower)
        gaps.append(upper.mean() - lower.mean())
        error = 5 * max((lower - expected).std(), (upper - expected).std()) / np.sqrt(40)
        assert lower.mean() < expected.mean() + error
        assert upper.mean() > expected.mean() - error
    np.testing.assert_allclose(lower, expected, atol=1.0)
    np.testing.assert_allclose(upper, expected, atol=1.0)
    assert lower.mean() == pytest.approx(expected.mean(), abs=0.15)
    assert upper.mean() == pytest.approx(expected.mean(), abs=0.15)
    assert gaps[0] > 5 * abs(gaps[1])


@pytest.mark.usefixtures('own_graph')
def test_a_transition_leaves_a_density_as_it_is_and_moves_what_is_not_of_it():
    count, mean, scale = 20000, np.array([1.0, -2.0]), np.array([0.5, 2.0])
    random = np.random.RandomState(3)

    def log_density(values):
        scaled = (values - tf.constant(mean, tf.float32)) / tf.constant(scale, tf.float32)
        return -0.5 * tf.reduce_sum(tf.square(scaled), axis=1)

    def moved(start):
        draws = random.standard_normal([count, 2]), random.random_sample(count)
        noise = [tf.constant(draw, tf.float32) for draw in draws]
        latents, size = tf.constant(start, tf.float32), tf.fill([count], np.float32(0.35))
        return run(annealing.transition(latents, log_density, size, *noise))

    start = mean + scale * random.standard_normal([count, 2])
    latents, accepted = moved(start)
    assert 0.5 < accepted.mean() < 0.999
    assert np.abs(latents - start).mean() > 0.5
    error = 5 * scale / np.sqrt(count)
    np.testing.assert_array_less(np.abs(latents.mean(axis=0) - mean), error)
    np.testing.assert_array_less(np.abs(latents.std(axis=0) - scale), error)
    elsewhere, _ = moved(np.zeros([count, 2]))
    assert np.abs(elsewhere.mean(axis=0)).max() > 0.2


def test_temperatures_rise_from_prior_to_posterior_slowly_at_both_ends():
    betas = annealing.schedule(100)
    assert len(betas) == 101
    assert (betas[0], betas[-1]) == (0, 1)
    steps = np.diff(betas)
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, steps[::-1])
    assert steps[50] > 10 * steps[0]


def checked(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, 'scripts/check_likelihood.py', *arguments],
        capture_output=True, text=True, timeout=600, cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    return done


@pytest.mark.slow
def test_the_program_encloses_images_of_a_model_and_goes_on(small_mnist_data_dir, tmp_path):
    # Random weights, of which the posterior is not the encoder's.
    shape = {'image_shape': (28, 28, 1), 'prior': 'flow'}
    serving_models.write_model(tmp_path, binarization='dynamic', **shape)
    few = ['--num_images=12', '--num_test_images=2', '--chains=4', '--temperatures=100']
    where = [f'--model_dir={tmp_path}', '--data_dir=' + small_mnist_data_dir]
    arguments = [*where, *few, '--importance_samples=2000']
    printed = checked(*arguments).stdout
    with open(str(tmp_path / 'likelihood_check.json')) as f:
        record = json.load(f)
    lower, upper, estimate = [
        np.array(record[name], float) for name in ('lower', 'upper', 'estimate')
    ]
    assert lower.shape == upper.shape == estimate.shape == (14,)
    assert np.isnan(upper[12:]).all()
    gaps = upper[:12] - lower[:12]
    assert 0 < gaps.mean() < np.inf
    np.testing.assert_array_less(estimate[:12], upper[:12] + 3)
    line = next(line for line in printed.splitlines() if 'between the two' in line)
    assert line.split()[-2] == f'{gaps.mean():.3f}'
    assert 'test: at least' not in printed
    assert not [name for name in os.listdir(str(tmp_path)) if name.endswith('.partial')]
    assert checked(*arguments).stdout == printed


def test_images_of_grey_levels_cannot_be_drawn(tmp_path):
    serving_models.write_model(tmp_path)
    error = checked(f'--model_dir={tmp_path}', code=1).stderr
    assert f'--model_dir={tmp_path} is a run with --binarization=none' in error
