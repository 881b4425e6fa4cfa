"""The network and its `model_fn`: shapes, modes, towers and schedule."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.support import graphs
from tests.support.graphs import run
from trainer.model import lstm
from trainer.model.priors import StandardNormal
from trainer.model.vae import decode, encode
from trainer.settings.table import HParams
from trainer.training import noise as noises
from trainer.training import optimizer
from trainer.training import towers as towers_module
from trainer.training.model_fn import elbo_terms, model_fn

pytestmark = pytest.mark.usefixtures('own_graph')

ModeKeys = tf.estimator.ModeKeys
SMALL = HParams(
    image_shape=(8, 8, 1),
    latent_size=3,
    lstm_units=8,
    decoder_units=16,
    decoder_channels=4,
    batch_size=6,
    max_steps=100,
)
COLOUR = dataclasses.replace(SMALL, image_shape=(12, 8, 3))
# For the graphs that have the model several times.
SMALLEST = dataclasses.replace(SMALL, image_shape=(4, 4, 1))


def images_of(params, batch=6):
    pixels = np.random.RandomState(0).rand(batch, params.rows, params.row_features)
    return tf.constant(pixels, tf.float32)


@pytest.mark.parametrize('params', [SMALL, COLOUR], ids=['grey', 'colour'])
def test_shapes_follow_the_image_shape(params):
    with tf.variable_scope('x', use_resource=True):
        posterior = encode(images_of(params), params)
        likelihood = decode(posterior.mean, params)
    mean, scale, logits = run([posterior.mean, posterior.scale, likelihood.logits])
    assert mean.shape == scale.shape == (6, 3)
    assert np.all(scale > 0)
    assert logits.shape == (6, params.rows, params.row_features)


def test_scale_stays_positive_and_the_loss_finite_for_any_weights():
    images = images_of(SMALL)
    posterior = encode(images, SMALL)
    terms = elbo_terms(images, posterior, tf.ones([6, 1, 3]), StandardNormal(), SMALL)
    with graphs.session() as session:
        for variable in tf.trainable_variables():
            if 'raw_scale/bias' in variable.name:
                variable.load(np.full([3], -1e4, np.float32), session)
        scale, loss = session.run([posterior.scale, terms.negative_elbo])
    assert np.all(scale > 0)
    assert np.all(np.isfinite(loss))


@pytest.mark.parametrize('activation', ['elu', 'gated'])
def test_the_decoder_is_its_layers_written_out(activation):
    """Dense layers, then out[2 i + k - pad] += in[i] w[k] for each of the kernels, in NumPy."""
    latents = np.random.RandomState(1).randn(2, 3)
    params = dataclasses.replace(SMALL, decoder_activation=activation)
    logits = decode(tf.constant(latents, tf.float32), params).logits
    weights = {v.op.name.partition('/')[2]: v for v in tf.trainable_variables()}
    random = np.random.RandomState(2)
    with graphs.session() as session:  # Biases that are not 0.
        for variable in weights.values():
            variable.load(random.normal(0, 0.5, variable.shape.as_list()), session)
        actual, of = session.run([logits, weights])
    assert ('gate_2/kernel' in of) == (activation == 'gated')

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    def doubled(x, name, size, before):
        kernel, rows = of[name + '/kernel'], x.shape[1]
        out = np.zeros([2, 2 * rows + size, 2 * rows + size, kernel.shape[2]])
        for i in range(rows):
            for j in range(rows):
                pixels = np.einsum('klof,nf->nklo', kernel, x[:, i, j])
                out[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += pixels
        return out[:, before:, before:][:, : 2 * rows, : 2 * rows] + of[name + '/bias']

    def dense(x, name):
        return x @ of[name + '/kernel'] + of[name + '/bias']

    hidden = latents
    for number in '12':
        value = dense(hidden, 'dense_' + number)
        if activation == 'gated':
            hidden = value / (1 + np.exp(-dense(hidden, 'gate_' + number)))
        else:
            hidden = elu(value)
    hidden = elu(dense(hidden, 'dense_3'))
    # 'same' padding cuts one pixel before a kernel of 4, and none before one of 3.
    hidden = elu(doubled(hidden.reshape(2, 2, 2, 4), 'transpose_convolution_1', 3, 0))
    expected = doubled(hidden, 'transpose_convolution_2', 4, 1)
    np.testing.assert_allclose(actual, expected[..., 0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # tests/model/test_objective.py has a quick one.
@pytest.mark.parametrize(
    'batch_size, threads, parts',
    [(8, 8, 8), (64, 2, 2), (256, 2, 2), (257, 2, 4), (512, 2, 4), (512, 1, 2), (60000, 3, 6)],
)
def test_parts_are_one_a_thread_and_two_of_more_than_128_images(batch_size, threads, parts):
    params = HParams(batch_size=batch_size, num_threads=threads)
    assert towers_module.parts(params) == parts


@pytest.mark.parametrize(
    'towers, longest_unrolled', [(2, 64), (3, 64), (4, 64), pytest.param(3, 1, id='looped')]
)
def test_towers_give_the_gradients_of_the_whole_batch(towers, longest_unrolled, monkeypatch):
    monkeypatch.setattr(lstm, 'LONGEST_UNROLLED', longest_unrolled)
    noise = tf.random.stateless_normal([6, 1, 3], seed=[1, 2])
    tensors = [images_of(SMALLEST), noise]

    def forward(images, noise, shared):
        assert not shared
        return elbo_terms(images, encode(images, SMALLEST), noise, StandardNormal(), SMALLEST)

    def loss(part, batch):
        return part.negative_elbo

    one, in_one = towers_module.in_towers(forward, loss, tensors, [], 1)
    several, in_several = towers_module.in_towers(forward, loss, tensors, [], towers)
    whole = forward(*tensors, []).negative_elbo
    plain = tf.gradients(tf.reduce_mean(whole), tf.trainable_variables())
    one, several, in_one, in_several, plain = run([one, several, in_one, in_several, plain])
    np.testing.assert_allclose(several.negative_elbo, one.negative_elbo, rtol=1e-5)
    for a, b, c in zip(in_one, in_several, plain):
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5)


def test_learning_rate_warms_up_stays_then_falls_along_a_line():
    params = dataclasses.replace(SMALL, learning_rate=0.1, warmup_steps=10, max_steps=100)
    steps = [0, 4, 9, 50, 70, 85, 100, 150]
    actual = run([optimizer.learning_rate(tf.constant(step, tf.int64), params) for step in steps])
    np.testing.assert_allclose(actual, [0.01, 0.05, 0.1, 0.1, 0.1, 0.05, 0, 0], atol=1e-8)


@pytest.mark.parametrize(
    'warmup, steps, text',
    [
        (200, 5500, 'learning rate 0.004 after 200 steps, constant to step 3,850, then falling'),
        (0, 10, 'learning rate 0.004 after 0 steps, constant to step 7, then falling to 0 at '),
        # Never more than 0.004 * 71 / 200.
        (200, 100, 'learning rate rising to 0.00142 at step 70 (to 0.004 it takes 200 steps), th'),
    ],
)
def test_the_schedule_in_words_is_that_of_the_learning_rate(warmup, steps, text):
    params = dataclasses.replace(SMALL, learning_rate=4e-3, warmup_steps=warmup, max_steps=steps)
    said = optimizer.schedule_text(params)
    assert said.startswith(text)
    assert said.endswith('then falling to 0 at step {:,}'.format(steps))
    rates = run(optimizer.learning_rate(tf.range(steps, dtype=tf.int64), params))
    assert '{:.3g}'.format(rates.max()) in said


def test_gradients_are_clipped_by_their_global_norm_and_adam_steps_by_the_rate():
    variable = tf.get_variable('w', initializer=[1.0, 1.0], use_resource=True)
    params = dataclasses.replace(SMALL, learning_rate=0.5, warmup_steps=0, max_gradient_norm=1.0)
    step = optimizer.training_step([tf.constant([3.0, -4.0])], params)
    with graphs.session() as session:
        norm, _ = session.run([step.gradient_norm, step.train_op])
        after, moments = session.run(
            [variable, [v for v in tf.global_variables() if v.name.endswith('Adam:0')]]
        )
        assert session.run(tf.train.get_global_step()) == 1
    assert norm == pytest.approx(5.0)
    # Adam's first step has the size of the rate; its first moment is (1 - 0.9) times the
    # clipped gradient (0.6, -0.8).
    np.testing.assert_allclose(after, [0.5, 1.5], rtol=1e-5)
    np.testing.assert_allclose(moments[0], [0.06, -0.08], rtol=1e-5)


def test_noise_is_a_function_of_seed_and_step():
    noise = noises.of_step(images_of(SMALL), SMALL, replica=0)
    others = noises.of_step(images_of(SMALL), SMALL, replica=1)
    advance = tf.train.get_global_step().assign_add(1)
    with graphs.session() as session:
        first, again, other = session.run(noise), session.run(noise), session.run(others)
        session.run(advance)
        next_step = session.run(noise)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - next_step).max() > 0.1
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize('mode', [ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT])
def test_each_mode_builds_what_it_needs(mode):
    spec = model_fn({'images': images_of(SMALLEST)}, None, mode, SMALLEST)
    variables = tf.global_variables()
    has_optimizer = any(v.name.startswith('optimizer/') for v in variables)
    assert has_optimizer == (mode == ModeKeys.TRAIN)
    assert all('Resource' in type(v).__name__ for v in tf.trainable_variables())
    if mode == ModeKeys.PREDICT:
        assert spec.loss is None
        assert spec.predictions['reconstruction'].shape.as_list()[1:] == [4, 4]
    else:
        assert spec.loss.shape.as_list() == []
    if mode == ModeKeys.EVAL:
        assert set(spec.eval_metric_ops) == {
            'elbo/negative_elbo',
            'elbo/reconstruction_loss',
            'elbo/kl_divergence',
            'elbo/negative_importance_weighted_bound',
            'latents/active_units',
            'latents/posterior_scale',
            *['kl_by_dimension/{:02d}'.format(i) for i in range(SMALLEST.latent_size)],
        }


def test_predictions_are_per_example_and_without_noise():
    spec = model_fn({'images': images_of(SMALLEST)}, None, ModeKeys.PREDICT, SMALLEST)
    with graphs.session() as session:
        first, second = session.run(spec.predictions), session.run(spec.predictions)
    for name, value in first.items():
        assert len(value) == 6
        np.testing.assert_array_equal(value, second[name])
    np.testing.assert_allclose(
        first['negative_elbo'], first['reconstruction_loss'] + first['kl_divergence'], rtol=1e-6
    )


def test_metrics_are_means_over_examples_not_over_batches():
    placeholder = tf.placeholder(tf.float32, [None, 4, 4])
    # Of the batch with one image, a thread gets none.
    params = dataclasses.replace(SMALLEST, num_threads=2)
    spec = model_fn({'images': placeholder}, None, ModeKeys.EVAL, params)
    value, update = spec.eval_metric_ops['elbo/kl_divergence']
    noise = tf.zeros([tf.shape(placeholder)[0], 1, 3])
    terms = elbo_terms(placeholder, encode(placeholder, params), noise, StandardNormal(), params)
    pixels = np.random.RandomState(3).rand(7, 4, 4)
    with graphs.session() as session:
        for part in (pixels[:6], pixels[6:]):
            session.run(update, {placeholder: part})
        mean = session.run(value)
        each = session.run(terms.kl_divergence, {placeholder: pixels})
    assert mean == pytest.approx(each.mean(), rel=1e-5)
    assert abs(mean - (each[:6].mean() + each[6:].mean()) / 2) > 1e-5


def test_training_processes_see_noise_of_their_own(monkeypatch):
    class Asked(Exception):
        """For the noise of a replica, which ends the test's work."""

    def of_step(images, params, replica):
        raise Asked(replica)

    monkeypatch.setattr(noises, 'of_step', of_step)

    def replica(**tf_config):
        monkeypatch.setenv('TF_CONFIG', json.dumps(tf_config))
        config = tf.estimator.RunConfig()
        with pytest.raises(Asked) as asked:
            model_fn({'images': images_of(SMALL)}, None, ModeKeys.TRAIN, SMALL, config)
        return asked.value.args[0]

    cluster = {kind: [kind + ':1'] for kind in ('chief', 'worker', 'ps')}
    assert replica() == replica(cluster=cluster, task={'type': 'chief', 'index': 0}) == 0
    assert replica(cluster=cluster, task={'type': 'worker', 'index': 0}) == 1
