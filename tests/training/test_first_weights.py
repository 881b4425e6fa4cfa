"""First weights that depend on the training data."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.tiny import params_in, trained
from trainer.base.errors import UserError
from trainer.data import inputs
from trainer.model import priors, vae
from trainer.settings import rules
from trainer.settings.table import HParams
from trainer.training.first_weights import PrincipalMeansHook, PseudoInputsHook, principal_means


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp('data'))


def seen_first(data, params, count):
    with tf.Graph().as_default(), tf.Session() as session:
        batches = inputs.train_input_fn(data, count, params.seed, 0, params.sampling)
        return session.run(batches.make_one_shot_iterator().get_next()['images'])


@pytest.mark.slow
def test_pseudo_inputs_start_from_the_images_that_the_model_sees(data, tmp_path):
    params = params_in(
        tmp_path, prior='vamp', prior_components=3, binarization='static', max_steps=1,
        save_checkpoints_steps=1, learning_rate=1e-30,
    )  # fmt: skip
    variables, _ = trained(data, params)
    seen = inputs.first_images(data, 'train', 3, 'static')
    assert set(np.unique(seen)) == {0, 1}
    pseudo_inputs = 1 / (1 + np.exp(-variables[priors.PSEUDO_INPUTS]))
    np.testing.assert_allclose(
        pseudo_inputs.reshape(seen.shape), np.where(seen == 1, 0.98, 0.02), rtol=1e-5
    )


def test_pseudo_inputs_start_from_images_though_a_worker_has_made_a_step(data, tmp_path):
    params = params_in(tmp_path, prior='vamp', prior_components=3)
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.create_global_step()
        vae.prior(params)
        hook = PseudoInputsHook(data, params)
        hook.begin()
        session.run([tf.global_variables_initializer(), step.initializer])
        session.run(step.assign_add(1))
        hook.after_create_session(session, None)
        (pseudo_inputs,) = [
            v for v in tf.trainable_variables() if v.op.name == priors.PSEUDO_INPUTS
        ]
        logits = session.run(pseudo_inputs)
    images = inputs.first_images(data, 'train', 3, 'none').reshape(logits.shape)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 0.02 + 0.96 * images, rtol=1e-4)


def test_principal_means_are_whitened_and_along_the_axes_of_largest_variance():
    random = np.random.RandomState(0)
    # Deviations of 5, 2 and 0.1 along the axes of a rotation, around another point than 0.
    rotation, _ = np.linalg.qr(random.standard_normal([3, 3]))
    states = (random.standard_normal([4000, 3]) * [5, 2, 0.1]) @ rotation.T + [1, -2, 3]
    kernel, bias = principal_means(states.astype(np.float32), np.zeros([3, 2]), np.zeros(2))
    means = states @ kernel + bias
    np.testing.assert_allclose(means.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(means.T), np.eye(2), atol=2e-3)
    for number, deviation in enumerate((5, 2)):
        expected = rotation[:, number] / deviation
        expected *= np.sign(expected[np.abs(expected).argmax()])
        np.testing.assert_allclose(kernel[:, number], expected, rtol=0.1, atol=0.01)


@pytest.mark.parametrize('deviations, replaced', [([1, 0, 0], 1), ([0, 0, 0], 0), ([3, 2, 1], 3)])
def test_latents_without_a_principal_component_keep_their_weights(deviations, replaced):
    random = np.random.RandomState(1)
    states = (random.standard_normal([50, 3]) * deviations + 4).astype(np.float32)
    before = random.standard_normal([3, 5]).astype(np.float32), random.standard_normal(5)
    kernel, bias = principal_means(states, *before)
    means = states @ kernel + bias
    np.testing.assert_allclose(means[:, :replaced].std(axis=0), np.ones(replaced), rtol=1e-4)
    np.testing.assert_array_equal(kernel[:, replaced:], before[0][:, replaced:])
    np.testing.assert_array_equal(bias[replaced:], before[1][replaced:])


@pytest.mark.slow
@pytest.mark.parametrize('settings', [{}, {'binarization': 'dynamic'}, {'image_shape': (1, 8, 3)}])
def test_training_begins_with_means_that_are_principal_components(tmp_path, settings):
    shape = settings.get('image_shape', tiny.FACTS.image_shape)
    data = tiny.write_data(tmp_path, shape)
    params = params_in(
        tmp_path / 'run', initial_means='pca', max_steps=1, save_checkpoints_steps=1,
        learning_rate=1e-30, **settings,
    )  # fmt: skip
    variables, _ = trained(data, params)
    with tf.Graph().as_default(), tf.Session() as session:
        mean = vae.encode(tf.constant(seen_first(data, params, 50)), params).point()
        session.run(tf.global_variables_initializer())
        for variable in tf.trainable_variables():
            variable.load(variables[variable.op.name], session)
        means = session.run(mean)
    np.testing.assert_allclose(np.cov(means.T, bias=True), np.eye(2), atol=1e-3)
    np.testing.assert_allclose(means.mean(axis=0), 0, atol=1e-3)


@pytest.mark.slow
def test_a_resumed_run_does_not_start_its_means_again(data, tmp_path):
    params = params_in(tmp_path, initial_means='pca', max_steps=3)
    trained(data, params)
    with tf.Graph().as_default(), tf.Session() as session:
        vae.encode(tf.placeholder(tf.float32, [None, 4, 24]), params)
        hook = PrincipalMeansHook(data, params)
        hook.begin()
        session.run(tf.global_variables_initializer())
        before = session.run(tf.trainable_variables())
        hook.after_create_session(session, None)
        for one, other in zip(before, session.run(tf.trainable_variables())):
            np.testing.assert_array_equal(one, other)


def test_means_from_the_data_and_weights_of_another_run_exclude_each_other():
    params = HParams(initial_means='pca', init_from='runs/other')
    with pytest.raises(UserError, match='--initial_means=pca: --init_from=runs/other'):
        rules.check_consistent(params)
