"""What training minimises: values by hand, gradients against other estimators of the same."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.support import graphs
from tests.support.graphs import run
from trainer.model import objectives, vae
from trainer.model.objectives import Terms
from trainer.model.posteriors import DiagonalGaussian
from trainer.model.priors import StandardNormal
from trainer.settings.table import HParams
from trainer.training import model_fn, towers

pytestmark = pytest.mark.usefixtures('own_graph')

TINY = HParams(
    image_shape=(4, 4, 1), latent_size=4, lstm_units=8, decoder_units=16, decoder_channels=4,
    batch_size=6,
)  # fmt: skip
IMAGES = np.random.RandomState(4).rand(6, 4, 4).astype(np.float32)


def terms(kl_by_dimension, log_weights=((0.0,),)):
    kl = tf.constant(kl_by_dimension, tf.float32)
    loss = tf.zeros([kl.shape[0]])
    total, weights = tf.reduce_sum(kl, axis=1), tf.constant(log_weights, tf.float32)
    return Terms(loss, loss + 10.0, total, weights, {'kl_by_dimension': kl})


def test_beta_weighs_the_kl():
    batch = terms([[1.0, 2.0], [0.0, 4.0]])
    loss = objectives.loss(batch, batch, tf.constant(0.5), TINY)
    np.testing.assert_allclose(run(loss), [11.5, 12.0])


def test_beta_is_constant_or_rises_once_or_in_cycles():
    def at(steps, **settings):
        params = dataclasses.replace(TINY, beta=2.0, max_steps=100, **settings)
        return run([objectives.beta(tf.constant(step, tf.int64), params) for step in steps])

    np.testing.assert_allclose(at([0, 50]), [2, 2])
    np.testing.assert_allclose(at([0, 5, 10, 99], beta_warmup_steps=10), [0, 1, 2, 2])
    # Four cycles of 25 steps, each rising over 12.5.
    actual = at([0, 5, 12, 13, 24, 25, 30, 75], beta_cycles=4)
    np.testing.assert_allclose(actual, [0, 0.8, 1.92, 2, 2, 0, 0.8, 0], rtol=1e-6)


def test_free_bits_count_groups_by_the_mean_of_the_batch():
    # Means over the batch: 1, 3, 0.1, 0.2. With 0.5 free, the last two cost 0.5 each.
    params = dataclasses.replace(TINY, free_bits=0.5)
    kl = tf.constant([[0.0, 2.0, 0.2, 0.1], [2.0, 4.0, 0.0, 0.3]])
    each = objectives.kl_with_free_bits(kl, kl, params)
    by_dimension = run([each, tf.gradients(each, kl)[0]])
    np.testing.assert_allclose(by_dimension[0], [3.0, 7.0])
    np.testing.assert_allclose(by_dimension[1], [[1, 1, 0, 0]] * 2)
    # In two groups their means are 4 and 0.3.
    two = dataclasses.replace(params, free_bits_groups=2)
    np.testing.assert_allclose(run(objectives.kl_with_free_bits(kl, kl, two)), [2.5, 6.5])


def slow(settings):
    return pytest.param(settings, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    'settings',
    [
        {'free_bits': 0.05},
        {'objective': 'dreg', 'training_samples': 3, 'prior': 'mixture', 'prior_components': 3},
        slow({'prior': 'mixture', 'prior_components': 3}),
        slow({'prior': 'vamp', 'prior_components': 3}),
        slow({'prior': 'flow'}),
        slow({'objective': 'dreg', 'training_samples': 1, 'prior': 'flow'}),
        slow({'objective': 'iwae', 'training_samples': 3}),
        slow({'objective': 'dreg', 'training_samples': 3, 'prior': 'vamp', 'prior_components': 3}),
        slow({'likelihood': 'continuous_bernoulli', 'beta': 0.5}),
        slow({'likelihood': 'normal', 'training_samples': 2}),
    ],
    ids=str,
)
def test_towers_give_the_gradients_of_one(settings):
    params = dataclasses.replace(TINY, **settings)
    images = tf.constant(IMAGES)
    shape = [6, params.training_samples, 4]
    noise = tf.random.stateless_normal(shape, seed=[1, 2])
    prior = vae.prior(params)

    def forward(images, noise, parameters):
        posterior = vae.encode(images, params)
        given = prior.with_parameters(parameters)
        return model_fn.elbo_terms(images, posterior, noise, given, params)

    def loss(part, batch):
        return objectives.loss(part, batch, tf.constant(params.beta), params)

    def in_towers(count):
        return towers.in_towers(forward, loss, [images, noise], prior.parameters, count)

    one, in_one = in_towers(1)
    several, in_several = in_towers(2)
    # Without sharing: the prior's weights are reached through each example's own loss.
    whole = model_fn.elbo_terms(images, vae.encode(images, params), noise, prior, params)
    mean_loss = tf.reduce_mean(loss(whole, whole))
    plain = tf.gradients(mean_loss, tf.trainable_variables())
    one, several, in_one, in_several, plain = run([one, several, in_one, in_several, plain])
    np.testing.assert_allclose(several.negative_elbo, one.negative_elbo, rtol=1e-5)
    for a, b, c in zip(in_one, in_several, plain):
        np.testing.assert_allclose(a, c, rtol=1e-3, atol=2e-4)
        np.testing.assert_allclose(b, c, rtol=1e-3, atol=2e-4)


def test_iwae_is_the_bound_of_burda():
    batch = terms([[0.0]], np.log([[1.0, 3.0]]))
    params = dataclasses.replace(TINY, objective='iwae', training_samples=2)
    loss = objectives.loss(batch, batch, tf.constant(1.0), params)
    np.testing.assert_allclose(run(loss), [-np.log(2.0)], rtol=1e-6)


def test_dreg_weighs_decoder_gradients_by_v_and_encoder_gradients_by_v_squared():
    # log w_k = a z_k for decoder weight a and z_k = m + noise_k for encoder weight m, without
    # density terms: the decoder's gradient is sum v_k z_k, the encoder's sum v_k^2 a.
    a, m = tf.constant(2.0), tf.constant(0.1)
    latents, multiply_by = objectives.doubly_reparameterized(
        tf.reshape(m + tf.constant([0.0, 0.5, -0.3]), [1, 3, 1])
    )
    log_weights = a * latents[:, :, 0]
    multiply_by(log_weights)
    loss = objectives.doubly_reparameterized_loss(log_weights)
    actual = run(tf.gradients(loss, [a, m]))
    z = np.array([0.1, 0.6, -0.2])
    v = np.exp(2 * z) / np.exp(2 * z).sum()
    np.testing.assert_allclose(actual, [-np.sum(v * z), -np.sum(v**2 * 2)], rtol=1e-5)


def test_dreg_has_the_mean_of_the_plain_gradient():
    """The encoder's gradients of many draws of noise, at weights that are not yet trained."""
    draws, samples = 4000, 8

    def gradients(name):
        params = dataclasses.replace(TINY, objective=name, training_samples=samples)
        image = tf.tile(tf.constant(IMAGES[:1] * 0.2), [50, 1, 1])
        noise = tf.random.normal([50, samples, 4], seed=3)
        prior = vae.prior(params)
        result = model_fn.elbo_terms(image, vae.encode(image, params), noise, prior, params)
        loss = objectives.loss(result, result, tf.constant(1.0), params)
        bias = [v for v in tf.trainable_variables() if v.op.name.endswith('mean/bias')][0]
        return tf.gradients(tf.reduce_mean(loss), bias)[0]

    both = [gradients('iwae'), gradients('dreg')]
    with graphs.session() as session:
        # A wider decoder output makes the weights of the samples differ.
        for variable in tf.trainable_variables():
            if 'decoder' in variable.op.name and 'kernel' in variable.op.name:
                variable.load(2 * session.run(variable), session)
        drawn = np.array([session.run(both) for _ in range(draws // 50)])
    mean = drawn.mean(axis=0)
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    # Means of 4 dimensions agree within 4.5 standard errors, and are no zeros.
    difference = np.abs(mean[0] - mean[1])
    assert np.all(difference < 4.5 * np.sqrt((error**2).sum(axis=0)))
    assert np.abs(mean).max() > 5 * error.max()


def test_dreg_has_no_noise_where_the_posterior_is_exact():
    # p(z) = N(0, 1), p(x | z) = N(z, 1) and x = 1: the posterior is N(1/2, 1/sqrt 2), for which
    # all weights are p(x): Tucker et al. 2018, section 4.
    mean, scale = tf.constant([[0.5]]), tf.constant([[2**-0.5]])
    noise = tf.constant(np.random.RandomState(1).randn(1, 5, 1), tf.float32)

    def gradients(name):
        posterior = DiagonalGaussian(mean, scale)
        latents, multiply_by = posterior.sample(noise), lambda log_weights: None
        if name == 'dreg':
            latents, multiply_by = objectives.doubly_reparameterized(latents)
            posterior = posterior.without_gradient()
        log_likelihood = -0.5 * tf.square(1.0 - latents[..., 0])
        log_prior = StandardNormal().log_prob(latents)
        log_weights = log_likelihood + log_prior - posterior.log_prob(latents)
        multiply_by(log_weights)
        part = Terms(None, None, None, log_weights, {})
        params = dataclasses.replace(TINY, objective=name, training_samples=5)
        loss = objectives.loss(part, part, tf.constant(1.0), params)
        return tf.gradients(loss, [mean, scale])

    plain, dreg = run([gradients('iwae'), gradients('dreg')])
    np.testing.assert_allclose(dreg, np.zeros([2, 1, 1]), atol=1e-6)
    assert np.abs(plain).min() > 0.01
