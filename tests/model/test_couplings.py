"""Affine couplings against differences, and the density that they make against integrals."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.support.graphs import run
from trainer.model import vae
from trainer.model.couplings import Coupling
from trainer.model.priors import Flow
from trainer.settings.table import HParams

pytestmark = pytest.mark.usefixtures('own_graph')


def couplings(size, count=3):
    """Couplings of weights that move every dimension."""
    made = []
    for number in range(count):
        random = np.random.RandomState(number)
        shapes = [weight.shape.as_list() for weight in Coupling.create(number, size).weights]
        weights = [0.5 * random.standard_normal(shape) for shape in shapes]
        weights[2] /= 8  # Of the many hidden units.
        made.append(Coupling(number, [tf.constant(weight, tf.float32) for weight in weights]))
    return made


@pytest.mark.parametrize('size', [1, 2, 5])
def test_the_log_determinant_is_that_of_differences(size):
    latents = np.random.RandomState(7).standard_normal([4, size]).astype(np.float32)
    for coupling in couplings(size):
        step = 0.01
        ahead, behind = [
            [latents + sign * step * np.eye(size, dtype=np.float32)[j] for j in range(size)]
            for sign in (1, -1)
        ]
        outputs = run([coupling.forward(tf.constant(one))[0] for one in ahead + behind])
        columns = [(outputs[j] - outputs[size + j]) / (2 * step) for j in range(size)]
        jacobian = np.stack(columns, axis=-1)
        sign, expected = np.linalg.slogdet(jacobian)
        np.testing.assert_array_equal(sign, 1)
        actual = run(coupling.forward(tf.constant(latents))[1])
        np.testing.assert_allclose(actual, expected, atol=3e-3)


@pytest.mark.parametrize('size', [1, 2, 5])
def test_the_inverse_of_the_outputs_are_the_latents(size):
    latents = np.random.RandomState(7).standard_normal([30, size]).astype(np.float32)
    for coupling in couplings(size):
        outputs, _ = coupling.forward(tf.constant(latents))
        inverse = coupling.inverse(outputs)
        again, _ = coupling.forward(inverse)
        values, back, twice = run([outputs, inverse, again])
        # Of one dimension the second coupling moves none.
        assert size == 1 or np.abs(values - latents).max() > 0.1
        np.testing.assert_allclose(back, latents, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(twice, values, rtol=1e-4, atol=1e-4)


def test_two_couplings_move_every_dimension_once_and_four_by_other_halves():
    latents = np.random.RandomState(7).standard_normal([1, 12]).astype(np.float32)
    outputs = run([one.forward(tf.constant(latents))[0] for one in couplings(12, 4)])
    moved = [set(np.flatnonzero(output[0] != latents[0])) for output in outputs]
    assert [len(some) for some in moved] == [6, 6, 6, 6]
    assert moved[0] | moved[1] == moved[2] | moved[3] == set(range(12))
    assert moved[0] not in (moved[2], moved[3])


def test_the_density_of_a_flow_integrates_to_one_and_is_that_of_its_draws():
    flow = Flow(couplings(2, 4))
    side = np.linspace(-30, 30, 1201)
    grid = np.stack(np.meshgrid(side, side, indexing='ij'), axis=-1)
    density = np.exp(run(flow.log_prob(tf.constant(grid, tf.float32))).astype(np.float64))
    weights = density * (side[1] - side[0]) ** 2
    assert weights.sum() == pytest.approx(1.0, abs=5e-3)

    noise = np.random.RandomState(3).standard_normal([200000, 2])
    draws = run(flow.sample(tf.constant(noise, tf.float32), tf.zeros([200000])))
    # Far from N(0, I), and where the grid has it.
    assert np.abs(draws.mean(axis=0)).max() > 0.1
    for function in (lambda z: z[..., 0], lambda z: z[..., 1], lambda z: np.tanh(z).prod(axis=-1)):
        expected = (weights * function(grid)).sum()
        error = function(draws).std() / np.sqrt(len(draws))
        assert function(draws).mean() == pytest.approx(expected, abs=5 * error + 5e-3)


def test_a_flow_starts_as_a_standard_normal_and_has_no_marginals():
    params = HParams(latent_size=3, prior='flow', prior_couplings=2)
    prior = vae.prior(params)
    latents = np.random.RandomState(1).randn(4, 5, 3)
    expected = scipy.stats.norm().logpdf(latents).sum(axis=-1)
    actual = run(prior.log_prob(tf.constant(latents, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert prior.log_prob_by_dimension(tf.zeros([1, 1, 3])) is None
    assert prior.kl_from_gaussian(tf.zeros([1, 3]), tf.ones([1, 3])) is None
    one = vae.prior(dataclasses.replace(params, prior_couplings=2))
    assert len(tf.trainable_variables()) == len(one.parameters) == 8
