"""The loss terms against closed forms, hand-worked values and SciPy."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from trainer.distributions import Bernoulli, DiagonalGaussian, softplus_inverse
from trainer.elbo import elbo_terms


def evaluate(tensor):
    with tf.Session() as session:
        return session.run(tensor)


@pytest.fixture(autouse=True)
def own_graph():
    with tf.Graph().as_default():
        yield


def gaussian(mean, scale):
    return DiagonalGaussian(tf.constant(mean, tf.float32), tf.constant(scale, tf.float32))


def test_kl_of_hand_worked_posteriors():
    # 1/2 (mean^2 + scale^2 - 1) - ln scale: 0 for the prior itself; 1/2 for a mean of 1;
    # 1.5 - ln 2 for a scale of 2; two dimensions add up.
    posterior = gaussian([[0, 0], [1, 0], [0, 2], [3, 0]], [[1, 1], [1, 1], [2, 1], [1, 0.5]])
    expected = [0, 0.5, 1.5 - np.log(2) + 2, 4.5 + 0.5 * (0.25 - 1) + np.log(2)]
    np.testing.assert_allclose(evaluate(posterior.kl_divergence()), expected, atol=1e-6)


def test_kl_is_the_integral_of_its_definition():
    q, p = scipy.stats.norm(0.7, 0.3), scipy.stats.norm(0, 1)
    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -3, 5, epsabs=1e-10
    )
    actual = evaluate(gaussian([[0.7]], [[0.3]]).kl_divergence())
    np.testing.assert_allclose(actual, [expected], rtol=1e-5)


def test_sample_is_the_mean_plus_scaled_noise_and_differentiable():
    posterior = gaussian([[1, 2]], [[0.5, 3]])
    noise = tf.constant([[-1.0, 2.0]])
    sample = posterior.sample(noise)
    gradients = tf.gradients(tf.reduce_sum(sample), [posterior.mean, posterior.scale])
    np.testing.assert_allclose(evaluate(sample), [[0.5, 8]])
    np.testing.assert_allclose(evaluate(gradients[0]), [[1, 1]])
    np.testing.assert_allclose(evaluate(gradients[1]), [[-1, 2]])


def test_log_prob_of_binary_pixels_is_scipys():
    random = np.random.RandomState(1)
    logits = random.randn(2, 3, 4)
    images = random.randint(0, 2, [2, 3, 4])
    probability = 1 / (1 + np.exp(-logits))
    expected = scipy.stats.bernoulli(probability).logpmf(images).sum(axis=(1, 2))
    likelihood = Bernoulli(tf.constant(logits, tf.float32))
    actual = evaluate(likelihood.log_prob(tf.constant(images, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(evaluate(likelihood.mean()), probability, rtol=1e-5)


def test_log_prob_of_grey_pixels_is_the_mean_over_both_outcomes():
    grey, logit = 0.25, 0.4
    p = 1 / (1 + np.exp(-logit))
    expected = grey * np.log(p) + (1 - grey) * np.log(1 - p)
    actual = evaluate(Bernoulli(tf.constant([[[logit]]])).log_prob(tf.constant([[[grey]]])))
    np.testing.assert_allclose(actual, [expected], rtol=1e-6)


def test_log_prob_of_certain_pixels_is_finite():
    likelihood = Bernoulli(tf.constant([[[200.0, -200.0, 200.0]]]))
    actual = evaluate(likelihood.log_prob(tf.constant([[[1.0, 0.0, 0.0]]])))
    np.testing.assert_allclose(actual, [-200.0])


def test_negative_elbo_of_a_two_pixel_model():
    # Logits of 0 give ln 2 a pixel; a mean of 2 gives a KL of 2.
    terms = elbo_terms(
        tf.constant([[[0.0, 1.0]]]), gaussian([[2.0]], [[1.0]]), Bernoulli(tf.zeros([1, 1, 2]))
    )
    actual = evaluate(terms)
    np.testing.assert_allclose(actual.reconstruction_loss, [2 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(actual.kl_divergence, [2.0], rtol=1e-6)
    np.testing.assert_allclose(actual.negative_elbo, [2 * np.log(2) + 2], rtol=1e-6)


def test_softplus_inverse():
    for value in (0.1, 1.0, 3.0):
        assert np.log1p(np.exp(softplus_inverse(value))) == pytest.approx(value)
