"""Gradients of one's own, and the graphs that have them."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from trainer.model.custom_gradient import custom_gradient
from trainer.settings.table import HParams
from trainer.training.model_fn import model_fn


def test_the_gradient_is_the_functions_own_for_several_inputs_and_outputs():
    @custom_gradient
    def both(a, b):
        # Not the true gradients, which these would be without the factors.
        return [a * b, a + b], lambda d_product, d_sum: [
            5.0 * (d_product * b + d_sum), 7.0 * (d_product * a + d_sum)
        ]  # fmt: skip

    with tf.Graph().as_default(), tf.Session() as session:
        a, b = tf.constant([2.0, 3.0]), tf.get_variable('b', initializer=[4.0, -1.0])
        product, total = both(a, b)
        gradients = tf.gradients(10.0 * product + total, [a, b])
        of_product = tf.gradients(product, [a, b])
        session.run(tf.global_variables_initializer())
        np.testing.assert_allclose(session.run([product, total]), [[8.0, -3.0], [6.0, 2.0]])
        np.testing.assert_allclose(session.run(gradients), [[205.0, -45.0], [147.0, 217.0]])
        np.testing.assert_allclose(session.run(of_product), [[20.0, -5.0], [14.0, 21.0]])


def test_one_output_and_one_input_need_no_list():
    @custom_gradient
    def same(x):
        return tf.identity(x), lambda d: 3.0 * d

    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(1.0)
        assert session.run(tf.gradients(2.0 * same(x), x)) == [6.0]


@pytest.mark.slow
def test_the_graph_of_a_model_is_freed_when_nobody_needs_it():
    def build():
        with tf.Graph().as_default() as graph:
            params = HParams(latent_size=2, lstm_units=4, decoder_units=4, decoder_channels=2)
            model_fn({'images': tf.zeros([4, 28, 28])}, None, 'train', params)
            return weakref.ref(graph)

    reference = build()
    gc.collect()
    assert reference() is None
