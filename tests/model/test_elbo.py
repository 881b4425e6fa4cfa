"""Posterior, bound and importance weights against closed forms, hand-worked values and SciPy."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from tests.support.graphs import run
from trainer.model import vae
from trainer.model.bounds import importance_weighted_bound
from trainer.model.distributions import softplus_inverse
from trainer.model.posteriors import DiagonalGaussian
from trainer.model.priors import StandardNormal
from trainer.settings.table import HParams
from trainer.training.model_fn import elbo_terms

pytestmark = pytest.mark.usefixtures('own_graph')


def gaussian(mean, scale):
    return DiagonalGaussian(tf.constant(mean, tf.float32), tf.constant(scale, tf.float32))


def test_kl_of_hand_worked_posteriors():
    # 1/2 (mean^2 + scale^2 - 1) - ln scale: 0 for the prior itself; 1/2 for a mean of 1;
    # 1.5 - ln 2 for a scale of 2; two dimensions add up.
    posterior = gaussian([[0, 0], [1, 0], [0, 2], [3, 0]], [[1, 1], [1, 1], [2, 1], [1, 0.5]])
    expected = [[0, 0], [0.5, 0], [1.5 - np.log(2), 2], [4.5, 0.5 * (0.25 - 1) + np.log(2)]]
    np.testing.assert_allclose(
        run(posterior.closed_kl_by_dimension(StandardNormal())), expected, atol=1e-6
    )
    total = posterior.kl_divergence(StandardNormal())
    np.testing.assert_allclose(run(total), np.sum(expected, axis=1), atol=1e-6)


def test_kl_is_the_integral_of_its_definition():
    q, p = scipy.stats.norm(0.7, 0.3), scipy.stats.norm(0, 1)
    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -3, 5, epsabs=1e-10
    )
    actual = run(gaussian([[0.7]], [[0.3]]).kl_divergence(StandardNormal()))
    np.testing.assert_allclose(actual, [expected], rtol=1e-5)


def test_sample_is_the_mean_plus_scaled_noise_and_differentiable():
    posterior = gaussian([[1, 2]], [[0.5, 3]])
    noise = tf.constant([[[-1.0, 2.0]]])
    sample = posterior.sample(noise)
    gradients = tf.gradients(tf.reduce_sum(sample), [posterior.mean, posterior.scale])
    np.testing.assert_allclose(run(sample), [[[0.5, 8]]])
    np.testing.assert_allclose(run(gradients[0]), [[1, 1]])
    np.testing.assert_allclose(run(gradients[1]), [[-1, 2]])


def test_posterior_log_prob_is_scipys():
    posterior = gaussian([[1, -2]], [[0.5, 3]])
    latents = np.array([[[0.3, 1.0], [2.0, -7.0]]])
    expected = scipy.stats.norm([1, -2], [0.5, 3]).logpdf(latents)
    latents = tf.constant(latents, tf.float32)
    by_dimension = run(posterior.log_prob_by_dimension(latents))
    np.testing.assert_allclose(by_dimension, expected, rtol=1e-5)
    total = run(posterior.log_prob(latents))
    np.testing.assert_allclose(total, expected.sum(axis=-1), rtol=1e-5)


@pytest.fixture
def terms_of(monkeypatch):
    """Computes the terms of an image with a log-likelihood for each of its latents."""

    class Decoded:
        def __init__(self, log_likelihood):
            self.log_likelihood = tf.constant(log_likelihood, tf.float32)

        def log_prob(self, images):
            assert images.shape.as_list() == [1, 1, 8, 8]
            return self.log_likelihood

    def terms(log_likelihood, mean, scale, noise):
        monkeypatch.setattr(vae, 'decode', lambda latents, params: Decoded(log_likelihood))
        noise = tf.constant(noise, tf.float32)[tf.newaxis, :, tf.newaxis]
        posterior = gaussian([[mean]], [[scale]])
        return elbo_terms(
            tf.zeros([1, 8, 8]), posterior, noise, StandardNormal(), HParams(image_shape=(8, 8, 1))
        )

    return terms


def test_negative_elbo_is_the_mean_over_samples_plus_kl(terms_of):
    # Two samples with losses of 1 and 4; a mean of 2 gives a KL of 2.
    actual = run(terms_of([[-1.0, -4.0]], mean=2.0, scale=1.0, noise=[0.0, 0.0]))
    np.testing.assert_allclose(actual.reconstruction_loss, [2.5])
    np.testing.assert_allclose(actual.kl_divergence, [2.0], rtol=1e-6)
    np.testing.assert_allclose(actual.negative_elbo, [4.5], rtol=1e-6)


def test_importance_weights_and_bound_of_hand_worked_samples(terms_of):
    # q = N(1, 2): log w = log p(x | z) + log N(z; 0, 1) - log N(z; 1, 2).
    latents, norm = np.array([[0.0, 1.0, 3.0]]), scipy.stats.norm
    log_likelihood = np.array([[-5.0, -4.0, -6.0]])
    expected = log_likelihood + norm(0, 1).logpdf(latents) - norm(1, 2).logpdf(latents)
    log_weights = terms_of(log_likelihood, 1.0, 2.0, noise=(latents[0] - 1) / 2).log_weights
    np.testing.assert_allclose(run(log_weights), expected, rtol=1e-5)
    bound = run(importance_weighted_bound(log_weights))
    np.testing.assert_allclose(bound, np.log(np.exp(expected).mean(axis=1)), rtol=1e-5)


def test_softplus_inverse():
    for value in (0.1, 1.0, 3.0):
        assert np.log1p(np.exp(softplus_inverse(value))) == pytest.approx(value)
