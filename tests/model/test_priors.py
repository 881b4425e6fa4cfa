"""Priors against SciPy, and their estimates of the KL against numerical integration."""

import dataclasses

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.support.graphs import run
from trainer.model import posteriors, priors, vae
from trainer.model.posteriors import DiagonalGaussian
from trainer.model.priors import Mixture, StandardNormal
from trainer.settings.table import HParams

pytestmark = pytest.mark.usefixtures('own_graph')

MEAN = np.array([[0.0, 1.0], [2.0, -1.0], [-3.0, 0.5]])
SCALE = np.array([[1.0, 0.5], [0.3, 2.0], [0.1, 1.0]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
TINY = HParams(
    image_shape=(8, 8, 1),
    latent_size=3,
    lstm_units=8,
    decoder_units=16,
    decoder_channels=4,
    batch_size=6,
)


def mixture():
    return Mixture(*[tf.constant(x, tf.float32) for x in (MEAN, SCALE, np.log(WEIGHTS))])


def by_component(latents):
    return scipy.stats.norm(MEAN, SCALE).logpdf(latents[..., np.newaxis, :])


def test_log_prob_of_a_mixture_is_scipys():
    latents = np.random.RandomState(1).randn(4, 5, 2) * 2
    expected = scipy.special.logsumexp(by_component(latents).sum(axis=-1), b=WEIGHTS, axis=-1)
    actual = run(mixture().log_prob(tf.constant(latents, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-4)


def test_log_prob_by_dimension_is_that_of_the_marginals():
    latents = np.random.RandomState(1).randn(4, 5, 2) * 2
    expected = scipy.special.logsumexp(by_component(latents), b=WEIGHTS[:, np.newaxis], axis=-2)
    actual = run(mixture().log_prob_by_dimension(tf.constant(latents, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize('smallest', [0.02, 1e-3, 1e-4])
def test_log_prob_of_narrow_components_is_scipys(smallest):
    random = np.random.RandomState(2)
    mean = random.randn(20, 50).astype(np.float32)
    scale = (smallest * np.exp(random.rand(20, 50))).astype(np.float32)
    # As posteriors' samples, some scales from one of the components.
    near = mean[random.randint(20, size=30)] + smallest * random.randn(30, 50)
    latents = near.astype(np.float32)
    each = scipy.stats.norm(mean.astype(np.float64), scale.astype(np.float64))
    each = each.logpdf(latents[:, np.newaxis].astype(np.float64)).sum(axis=-1)
    expected = scipy.special.logsumexp(each, axis=1) - np.log(20)
    weights = np.full([20], -np.log(20), np.float32)
    prior = Mixture(tf.constant(mean), tf.constant(scale), tf.constant(weights))
    actual = run(prior.log_prob(tf.constant(latents)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-3)


def test_standard_normal_is_scipys():
    latents = np.random.RandomState(1).randn(4, 5, 2)
    expected = scipy.stats.norm().logpdf(latents).sum(axis=-1)
    actual = run(StandardNormal().log_prob(tf.constant(latents, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_samples_of_a_mixture_have_its_weights_means_and_scales():
    random = np.random.RandomState(1)
    count = 40000
    noise, choice = random.randn(count, 2), random.rand(count)
    samples = run(mixture().sample(tf.constant(noise, tf.float32), tf.constant(choice, tf.float32)))
    component = np.digitize(choice, np.cumsum(WEIGHTS)[:-1])
    np.testing.assert_allclose(
        samples, MEAN[component] + SCALE[component] * noise, rtol=1e-4, atol=1e-5
    )
    # The largest float32 below 1 still chooses a component.
    last = run(mixture().sample(tf.zeros([1, 2]), tf.constant([1.0 - 2.0**-24])))
    np.testing.assert_allclose(last, MEAN[2:])


def test_kl_from_a_mixture_is_the_integral_of_its_definition():
    q = scipy.stats.norm(0.4, 0.6)
    mean, scale, weights = np.array([-1.0, 1.5]), np.array([0.5, 0.8]), np.array([0.3, 0.7])

    def log_prior(z):
        return scipy.special.logsumexp(scipy.stats.norm(mean, scale).logpdf(z), b=weights)

    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - log_prior(z)), -5, 6, epsabs=1e-9
    )
    noise = np.random.RandomState(1).randn(1, 200000, 1)
    posterior = DiagonalGaussian(tf.constant([[0.4]]), tf.constant([[0.6]]))
    latents = posterior.sample(tf.constant(noise, tf.float32))
    prior = Mixture(
        tf.constant(mean[:, np.newaxis], tf.float32),
        tf.constant(scale[:, np.newaxis], tf.float32),
        tf.constant(np.log(weights), tf.float32),
    )
    total, by_dimension = run(
        [
            posterior.kl_divergence(prior, latents),
            posterior.kl_by_dimension(prior, latents),
        ]
    )
    assert total == pytest.approx(expected, abs=0.01)
    assert by_dimension == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize('latent_size', [1, 2, 50, 200])
def test_representative_noise_has_the_moments_of_a_standard_normal(latent_size):
    noise = posteriors.representative_noise(latent_size)
    assert noise.shape[1] == latent_size
    assert len(noise) >= 128
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=1e-6)
    covariance = noise.T.astype(np.float64) @ noise / len(noise)
    np.testing.assert_allclose(covariance, np.eye(latent_size), atol=1e-5)
    np.testing.assert_array_equal(noise, posteriors.representative_noise(latent_size))


def test_a_learned_mixture_starts_as_one_and_its_weights_are_trained():
    params = dataclasses.replace(TINY, prior='mixture', prior_components=5)
    prior = vae.prior(params)
    log_weights, scale = run([prior.log_weights, prior.scale])
    assert np.exp(log_weights).sum() == pytest.approx(1.0)
    assert np.all(scale > 0)
    names = {variable.op.name for variable in tf.trainable_variables()}
    assert names == {'prior/mean', 'prior/raw_scale', 'prior/raw_log_weights'}


def test_a_vamp_prior_is_the_mixture_of_its_pseudo_inputs_posteriors():
    params = dataclasses.replace(TINY, prior='vamp', prior_components=4)
    prior = vae.prior(params)
    with tf.variable_scope('', reuse=True, use_resource=True):
        posterior = vae.encode(priors.pseudo_inputs(params), params)
    latents = np.random.RandomState(1).randn(7, 3)
    actual, mean, scale = run(
        [prior.log_prob(tf.constant(latents, tf.float32)), posterior.mean, posterior.scale]
    )
    each = scipy.stats.norm(mean, scale).logpdf(latents[:, np.newaxis]).sum(axis=-1)
    expected = scipy.special.logsumexp(each, axis=1) - np.log(4)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
