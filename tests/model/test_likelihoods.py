"""Log densities of images against SciPy and numerical integration."""

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import tensorflow as tf

from tests.support import graphs
from tests.support.graphs import run
from trainer.model import vae
from trainer.model.likelihoods import Bernoulli, ContinuousBernoulli, Normal
from trainer.settings.table import HParams

pytestmark = pytest.mark.usefixtures('own_graph')


def test_log_prob_of_binary_pixels_is_scipys():
    random = np.random.RandomState(1)
    logits = random.randn(2, 3, 4)
    images = random.randint(0, 2, [2, 3, 4])
    probability = 1 / (1 + np.exp(-logits))
    expected = scipy.stats.bernoulli(probability).logpmf(images).sum(axis=(1, 2))
    likelihood = Bernoulli(tf.constant(logits, tf.float32))
    actual = run(likelihood.log_prob(tf.constant(images, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(run(likelihood.mean()), probability, rtol=1e-5)


def test_log_prob_of_grey_pixels_is_the_mean_over_both_outcomes():
    grey, logit = 0.25, 0.4
    p = 1 / (1 + np.exp(-logit))
    expected = grey * np.log(p) + (1 - grey) * np.log(1 - p)
    actual = run(Bernoulli(tf.constant([[[logit]]])).log_prob(tf.constant([[[grey]]])))
    np.testing.assert_allclose(actual, [expected], rtol=1e-6)


def test_where_no_noise_is_drawn_a_level_stands_in_the_middle_of_its_noise():
    params = HParams(likelihood='normal')
    levels = np.arange(256) / 255.0
    middle = run(vae.without_noise(tf.constant(levels, tf.float32), params))
    of_noise = [[(level + noise) / 256 for noise in (0.25, 0.75)] for level in range(256)]
    np.testing.assert_allclose(middle, np.mean(of_noise, axis=1), rtol=1e-6)
    back = run(vae.as_levels(tf.constant(middle), params))
    np.testing.assert_allclose(back, levels, atol=1e-6)
    ends = run(vae.as_levels(tf.constant([0.0, 1.0]), params))
    np.testing.assert_array_equal(ends, [0, 1])
    for settings in ({}, {'likelihood': 'normal', 'dequantization': 'none'}):
        other = HParams(**settings)
        assert vae.without_noise(middle, other) is vae.as_levels(middle, other) is middle


def test_log_prob_of_certain_pixels_is_finite():
    likelihood = Bernoulli(tf.constant([[[200.0, -200.0, 200.0]]]))
    actual = run(likelihood.log_prob(tf.constant([[[1.0, 0.0, 0.0]]])))
    np.testing.assert_allclose(actual, [-200.0])


# Both sides of where the series of the normaliser begins, and logits far out.
LOGITS = [-60.0, -5.0, -0.31, -0.29, -0.05, -1e-4, 0.0, 1e-6, 0.1, 0.29, 0.31, 2.0, 12.0, 90.0]


def unnormalised(x, logit):
    """lambda^x (1 - lambda)^(1 - x), times exp(max(logit, 0)) so that it does not underflow."""
    return np.exp(x * logit - max(logit, 0.0))


@pytest.mark.parametrize('logit', LOGITS)
def test_continuous_bernoulli_is_the_normalised_density(logit):
    area, _ = scipy.integrate.quad(unnormalised, 0, 1, args=(logit,), epsabs=1e-13)
    first_moment, _ = scipy.integrate.quad(lambda x: x * unnormalised(x, logit), 0, 1, epsabs=1e-13)
    distribution = ContinuousBernoulli(tf.constant([[[logit]]]))
    assert run(distribution.mean()) == pytest.approx(first_moment / area, abs=2e-6)
    for x in (0.0, 0.3, 1.0):
        expected = x * logit - max(logit, 0.0) - np.log(area)
        actual = run(distribution.log_prob(tf.constant([[[x]]])))
        assert actual == pytest.approx(expected, rel=1e-5, abs=2e-6)


def test_continuous_bernoulli_has_finite_gradients_everywhere():
    logits = tf.constant([[LOGITS]])
    distribution = ContinuousBernoulli(logits)
    for value in (distribution.log_normalizer(), distribution.mean()):
        gradient = run(tf.gradients(value, logits)[0])
        assert np.all(np.isfinite(gradient))
    # The normaliser's derivative at small logits: l / 6 - 7 l^3 / 360.
    slope = run(tf.gradients(ContinuousBernoulli(logits).log_normalizer(), logits)[0])[0, 0]
    np.testing.assert_allclose(slope[8], 0.1 / 6 - 7e-3 / 360, rtol=1e-4)


def test_normal_log_prob_is_scipys():
    random = np.random.RandomState(2)
    logits, images = random.randn(2, 3, 4), random.rand(2, 3, 4)
    mean = 1 / (1 + np.exp(-logits))
    expected = scipy.stats.norm(mean, 0.2).logpdf(images).sum(axis=(1, 2))
    distribution = Normal(tf.constant(logits, tf.float32), tf.constant(0.2))
    actual = run(distribution.log_prob(tf.constant(images, tf.float32)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(run(distribution.mean()), mean, rtol=1e-5)


def test_the_scale_of_a_normal_is_fixed_or_learned():
    logits = tf.zeros([1, 2, 2])
    fixed = Normal.create(logits, HParams(normal_scale=0.25))
    assert run(fixed.scale) == pytest.approx(0.25)
    assert tf.trainable_variables() == []
    learned = Normal.create(logits, HParams(normal_scale=0.0))
    assert len(tf.trainable_variables()) == 1
    # The best scale is the root mean square deviation, 0.5 from a mean of 0.5 for white images.
    loss = -learned.log_prob(tf.ones([1, 2, 2]))
    train = tf.train.AdamOptimizer(0.05).minimize(loss)
    with graphs.session() as session:
        for _ in range(300):
            session.run(train)
        assert session.run(learned.scale) == pytest.approx(0.5, abs=0.01)


GREY_LEVELS = np.array([0, 1, 2, 30, 127, 128, 200, 254, 255]) / 255


def least(negative_log_prob, x):
    """The least of a function of the logit, found by search."""
    found = scipy.optimize.minimize_scalar(
        lambda logit: negative_log_prob(logit, x), bounds=(-600, 600), method='bounded',
        options={'xatol': 1e-7},
    )  # fmt: skip
    return found.fun


def test_the_least_nats_of_a_bernoulli_are_found_by_no_other_logit():
    images = GREY_LEVELS.reshape([1, 1, 9]).astype(np.float32)
    actual = run(Bernoulli(tf.zeros([1, 1, 9])).least_nats_by_dimension(tf.constant(images)))

    def negative_log_prob(logit, x):
        return np.logaddexp(0, logit) - x * logit

    expected = [least(negative_log_prob, x) for x in GREY_LEVELS]
    np.testing.assert_allclose(actual[0, 0], expected, atol=2e-6)
    assert actual[0, 0, 0] == actual[0, 0, 8] == 0


def test_the_least_nats_of_a_continuous_bernoulli_are_found_by_no_other_logit():
    images = GREY_LEVELS.reshape([1, 1, 9]).astype(np.float32)
    likelihood = ContinuousBernoulli(tf.zeros([1, 1, 9]))
    actual = run(likelihood.least_nats_by_dimension(tf.constant(images)))[0, 0]

    def negative_log_prob(logit, x):
        size = max(abs(logit), 1e-9)
        log_area = max(logit, 0) + np.log(-np.expm1(-size) / size)
        return log_area - x * logit

    inside = np.clip(GREY_LEVELS, 0.5 / 255, 1 - 0.5 / 255)
    expected = [least(negative_log_prob, x) for x in inside]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    # Between two levels, as of images that are stored as numbers.
    between = run(likelihood.least_nats_by_dimension(tf.constant([[[100.5 / 255]]])))
    np.testing.assert_allclose(between, [[[least(negative_log_prob, 100.5 / 255)]]], atol=1e-4)


def test_the_least_nats_of_a_normal_are_those_of_its_mean():
    scale = 0.25
    likelihood = Normal(tf.zeros([1, 2, 2]), tf.constant(scale))
    actual = run(likelihood.least_nats_by_dimension(tf.constant([[[0.0, 0.3], [0.9, 1.0]]])))
    np.testing.assert_allclose(actual, -scipy.stats.norm(0.4, scale).logpdf(0.4), rtol=1e-6)
