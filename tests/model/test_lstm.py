"""The LSTM layer and its gradient, in all forms, against an LSTM written in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import graphs
from trainer.model import lstm as module
from trainer.model.lstm import lstm

BATCH, TIME, FEATURES, UNITS = 3, 5, 4, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(inputs, kernel, bias):
    """One gate at a time: the textbook form."""
    outputs = np.zeros([BATCH, TIME, UNITS])
    h, c = np.zeros([BATCH, UNITS]), np.zeros([BATCH, UNITS])
    for t in range(TIME):
        both = np.concatenate([inputs[:, t], h], axis=1)
        i, f, o, j = [
            both @ kernel[:, q * UNITS : (q + 1) * UNITS] + bias[q * UNITS : (q + 1) * UNITS]
            for q in range(4)
        ]
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        outputs[:, t] = h
    return outputs


@pytest.fixture(params=[TIME, 0], ids=['unrolled', 'looped'])
def form(request, monkeypatch):
    monkeypatch.setattr(module, 'LONGEST_UNROLLED', request.param)


@pytest.fixture
def values(form):
    random = np.random.RandomState(0)
    return {
        'inputs': random.randn(BATCH, TIME, FEATURES).astype(np.float32),
        'kernel': random.randn(FEATURES + UNITS, 4 * UNITS).astype(np.float32) * 0.5,
        'bias': random.randn(4 * UNITS).astype(np.float32),
        'weights': random.randn(BATCH, TIME, UNITS).astype(np.float32),
    }


def build(values, at=range(1, TIME + 1), fused=False):
    inputs = tf.placeholder(tf.float32, [None, TIME, FEATURES])
    with tf.variable_scope('x', use_resource=True):
        hidden = tf.stack(lstm(inputs, UNITS, at, fused), axis=1)
    kernel, bias = tf.trainable_variables()
    session = graphs.session()
    started_with = session.run(bias)
    kernel.load(values['kernel'], session)
    bias.load(values['bias'], session)
    return inputs, hidden, kernel, bias, session, started_with


def test_hidden_states_are_those_of_a_textbook_lstm(values):
    with tf.Graph().as_default():
        inputs, hidden, _, _, session, _ = build(values)
        with session:
            actual = session.run(hidden, {inputs: values['inputs']})
    expected = numpy_lstm(values['inputs'], values['kernel'], values['bias'])
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize('at', [[1, 2, 3, 4, 5], [2, 5]])
def test_the_one_op_too_gives_states_of_a_textbook_lstm(values, at):
    # Cells far from 0: they would be cut at 3, which is the op's default.
    values['bias'][2 * UNITS :] = 8
    with tf.Graph().as_default():
        inputs, hidden, _, _, session, _ = build(values, at, fused=True)
        with session:
            actual = session.run(hidden, {inputs: values['inputs']})
    expected = numpy_lstm(values['inputs'], values['kernel'], values['bias'])
    np.testing.assert_allclose(actual, expected[:, np.array(at) - 1], atol=1e-5)


def test_forget_gate_alone_starts_with_a_bias_of_one(values):
    with tf.Graph().as_default():
        _, _, _, _, session, started_with = build(values)
        session.close()
    expected = np.zeros(4 * UNITS)
    expected[UNITS : 2 * UNITS] = 1
    np.testing.assert_array_equal(started_with, expected)


@pytest.mark.parametrize('at', [[1, 2, 3, 4, 5], [2, 5], [5]])
def test_gradients_are_finite_differences_of_the_numpy_lstm(values, at):
    """Central differences of the double-precision NumPy layer, one weight at a time."""
    indices = np.array(at) - 1
    weights = values['weights'][:, indices].astype(np.float64)

    def loss(inputs, kernel, bias):
        return np.sum(numpy_lstm(inputs, kernel, bias)[:, indices] * weights)

    def differences(name):
        point = {k: values[k].astype(np.float64) for k in ('inputs', 'kernel', 'bias')}
        result = np.zeros(point[name].shape)
        for index in np.ndindex(*result.shape):
            at = point[name][index]
            point[name][index] = at + 1e-5
            above = loss(**point)
            point[name][index] = at - 1e-5
            result[index] = (above - loss(**point)) / 2e-5
            point[name][index] = at
        return result

    with tf.Graph().as_default():
        inputs, hidden, kernel, bias, session, _ = build(values, at)
        gradients = tf.gradients(tf.reduce_sum(hidden * weights), [inputs, kernel, bias])
        with session:
            actual = session.run(gradients, {inputs: values['inputs']})
    for name, gradient in zip(['inputs', 'kernel', 'bias'], actual):
        np.testing.assert_allclose(gradient, differences(name), atol=1e-4, err_msg=name)


@pytest.mark.parametrize('at', [[0, 2, 5], [2, 2, 5], [4, 3, 5], [2, 4], [6]])
def test_states_that_are_not_there_or_wanted_twice_are_refused(values, at):
    with tf.Graph().as_default(), pytest.raises(ValueError, match='must rise from at least 1 to 5'):
        build(values, at)


def test_both_forms_agree_on_a_longer_sequence(monkeypatch):
    random = np.random.RandomState(0)
    pixels = random.rand(BATCH, 16, FEATURES).astype(np.float32)
    kernel = 0.5 * random.randn(FEATURES + UNITS, 4 * UNITS)
    found = []
    for longest in (16, 0):
        monkeypatch.setattr(module, 'LONGEST_UNROLLED', longest)
        with tf.Graph().as_default():
            inputs = tf.constant(pixels)
            hidden = tf.stack(lstm(inputs, UNITS, [4, 8, 12, 16]))
            variables = tf.trainable_variables()
            gradients = tf.gradients(tf.reduce_sum(tf.square(hidden)), [inputs, *variables])
            with graphs.session() as session:
                variables[0].load(kernel, session)
                found.append(session.run([hidden, *gradients]))
    for looped, unrolled in zip(*found):
        np.testing.assert_allclose(looped, unrolled, rtol=1e-5, atol=1e-5)
        assert np.abs(unrolled).max() > 0.01
