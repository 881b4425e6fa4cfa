"""NaN and infinity stop a training before they reach the weights or a checkpoint."""

import functools
import math
import os

import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.tiny import params_in, trained
from trainer.base.errors import UserError
from trainer.checkpoints import listing
from trainer.data import inputs, prepare
from trainer.model.objectives import Terms
from trainer.training import finite_check, optimizer, run


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture
def prepared(data, monkeypatch):
    """Lets train.run have this data, and no time be spent on SavedModels."""
    monkeypatch.setattr(prepare, 'prepare', lambda *args, **kwargs: data)
    with tiny.no_saved_models():
        yield data


def refusal(call, *args):
    with pytest.raises(UserError) as refused:
        call(*args)
    sentence = str(refused.value)
    assert '\n' not in sentence
    return sentence


@pytest.mark.parametrize(
    'image, loss, gradient, cause',
    [
        ([0.0, 0.5, 1.0], 7.0, 4.0, None),
        ([0.0, 0.5, 1.0], 7.0, math.inf, 'the gradients are not finite'),
        ([0.0, 0.5, 1.0], 7.0, 1e30, 'the gradients are not finite'),  # Its square is infinite.
        ([0.0, 0.5, 1.0], math.inf, 4.0, 'the loss is not finite'),
        ([0.0, 0.5, 1.0], math.nan, math.nan, 'the loss is not finite'),
        ([0.0, math.nan, math.inf], math.nan, 4.0, '2 of the 3 pixels'),
    ],
)
def test_a_step_is_made_only_of_finite_numbers(tmp_path, image, loss, gradient, cause):
    params = params_in(tmp_path, max_gradient_norm=1.0)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('w', initializer=[1.0, 2.0])
        gradients = [tf.constant([3.0, gradient])]
        terms = Terms(tf.constant([loss]), tf.constant([5.0]), tf.constant([2.0]), None, {})
        norm = finite_check.checked_norm(gradients, tf.constant([[image]]), terms)
        step = optimizer.training_step(gradients, params, norm)
        session.run(tf.global_variables_initializer())
        before = session.run(tf.global_variables())
        if cause is None:
            assert session.run([norm, step.train_op])[0] == pytest.approx(5.0)
            assert session.run(tf.train.get_global_step()) == 1
            return
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            session.run(step.train_op)
        for one, other in zip(before, session.run(tf.global_variables())):
            np.testing.assert_array_equal(one, other)
    sentence = refusal(
        finite_check.explain, error.value, functools.partial(listing.how_to_go_on, params)
    )
    assert 'step 1 was stopped before it changed the weights: ' + cause in sentence
    assert 'reconstruction loss 5 + KL divergence 2 nats' in sentence
    expected = 'to 1, mean 0.5)' if cause.startswith('the') else 'from 0 to 0, mean 0)'
    assert expected in sentence
    assert 'there is no checkpoint to go on from' in sentence


def test_other_errors_are_left_alone(tmp_path):
    error = tf.errors.InvalidArgumentError(None, None, 'assertion failed: [x]')
    finite_check.explain(error, lambda images_are_bad: '')


@pytest.mark.parametrize(
    'save_steps, words',
    [
        (1, 'after step 1 the weights are not finite any more ('),
        (3, 'step 2 was stopped before it changed the weights: 801 of the weights are not finite'),
    ],
)
@pytest.mark.slow
def test_weights_that_overflow_reach_no_checkpoint(prepared, tmp_path, save_steps, words):
    params = params_in(
        tmp_path,
        learning_rate=math.inf,
        save_checkpoints_steps=save_steps,
        save_summary_steps=0,  # The first step's would be of weights from before or after it.
    )
    sentence = refusal(run.run, params)
    assert words in sentence
    assert 'the last good checkpoint is {}/model.ckpt-0'.format(tmp_path) in sentence
    assert 'lower --learning_rate (now inf)' in sentence
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith('model.ckpt-0')
    assert not tf.gfile.Glob(str(tmp_path / 'model.ckpt-[1-9]*'))


@pytest.mark.slow
def test_a_stopped_training_goes_on_from_its_last_good_checkpoint(prepared, tmp_path, monkeypatch):
    params = params_in(tmp_path, save_summary_steps=2)  # Steps 1, 3 and 5.
    with monkeypatch.context() as patched:
        patched.setattr(inputs, 'train_input_fn', inputs.train_input_fn)  # Puts it back.
        tiny.spoil_input(5)
        sentence = refusal(run.run, params)
    assert 'step 5 was stopped' in sentence
    assert '1 of the 1,920 pixels of its batch are not finite' in sentence
    assert 'negative ELBO nan' in sentence
    assert 'finite pixels from 0 to 1, mean 0.' in sentence
    third = str(tmp_path / 'model.ckpt-3')
    assert 'the last good checkpoint is {}: the same command goes on from it'.format(third) in (
        sentence
    )
    assert tf.train.latest_checkpoint(str(tmp_path)) == third
    # Nor is what TensorBoard is to show lost.
    events = tf.gfile.Glob(str(tmp_path / 'events*'))
    steps = {event.step for name in events for event in tf.train.summary_iterator(name)}
    assert 3 in steps

    unbroken, progress = trained(prepared, params)
    assert progress.first_step == 3
    assert unbroken['global_step'] == 6
    assert all(np.isfinite(value).all() for value in unbroken.values())

    name = tiny.poison(str(tmp_path / 'model.ckpt-6'))
    sentence = refusal(run.run, params)
    assert 'model.ckpt-6 holds weights that are not finite ({})'.format(name) in sentence
    assert 'the last good checkpoint is {}: '.format(third) in sentence
    again, progress = trained(prepared, params)
    assert progress.first_step == 3
    for name, value in unbroken.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_the_last_good_checkpoint_is_named_within_its_folder_and_no_file_is_removed(tmp_path):
    folder = tmp_path / 'run'
    with tf.Graph().as_default(), tf.Session() as session:
        weight = tf.get_variable('kernel', initializer=[1.0, 2.0])
        session.run(weight.initializer)
        saver = tf.train.Saver()
        for step in (1, 2, 3):
            saver.save(session, str(folder / 'model.ckpt'), step)
    listing.check_last_checkpoint(str(folder))
    for step in (3, 2):
        tiny.poison(str(folder / 'model.ckpt-{}'.format(step)))
    before = sorted(os.listdir(str(folder)))
    assert 'model.ckpt-3 holds' in refusal(listing.check_last_checkpoint, str(folder))
    assert sorted(os.listdir(str(folder))) == before
    folder.rename(tmp_path / 'moved')
    moved = str(tmp_path / 'moved')
    assert tf.train.latest_checkpoint(moved) == os.path.join(moved, 'model.ckpt-1')
    listing.check_last_checkpoint(moved)
    tiny.poison(os.path.join(moved, 'model.ckpt-1'))
    assert 'no good checkpoint is left' in refusal(listing.check_last_checkpoint, moved)
    listing.check_last_checkpoint(str(tmp_path))
