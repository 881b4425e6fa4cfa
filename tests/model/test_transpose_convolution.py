"""The transpose convolution and its gradients against their definition, written in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import graphs
from trainer.model.transpose_convolution import transpose_convolution


def reach(size, i, limit):
    """The (pixel, kernel place) pairs along one axis that input i touches: SAME, stride 2."""
    first = 2 * i - (size - 2) // 2
    return [(first + k, k) for k in range(size) if 0 <= first + k < limit]


def numpy_forward_and_gradients(inputs, kernel, d_outputs):
    """One product of an input, a weight and an output at a time."""
    batch, rows, columns, _ = inputs.shape
    size, _, out_channels, _ = kernel.shape
    outputs = np.zeros([batch, 2 * rows, 2 * columns, out_channels])
    d_inputs, d_kernel = np.zeros(inputs.shape), np.zeros(kernel.shape)
    for i in range(rows):
        for j in range(columns):
            for r, k in reach(size, i, 2 * rows):
                for c, m in reach(size, j, 2 * columns):
                    outputs[:, r, c] += inputs[:, i, j] @ kernel[k, m].T
                    d_inputs[:, i, j] += d_outputs[:, r, c] @ kernel[k, m]
                    d_kernel[k, m] += d_outputs[:, r, c].T @ inputs[:, i, j]
    return outputs, d_inputs, d_kernel


@pytest.mark.parametrize('size', [3, 4])
@pytest.mark.parametrize('batch, rows, columns', [(3, 5, 7), (1, 2, 1), (4, 7, 7)])
@pytest.mark.parametrize('in_channels, out_channels', [(6, 1), (5, 3), (8, 8)])
def test_outputs_and_gradients_are_those_of_the_definition(
    size, batch, rows, columns, in_channels, out_channels
):
    random = np.random.RandomState(0)
    inputs = random.randn(batch, rows, columns, in_channels).astype(np.float32)
    kernel = random.randn(size, size, out_channels, in_channels).astype(np.float32)
    d_outputs = random.randn(batch, 2 * rows, 2 * columns, out_channels).astype(np.float32)
    with tf.Graph().as_default(), graphs.session() as session:
        fed = tf.placeholder(tf.float32, [None, rows, columns, in_channels])
        weights = tf.constant(kernel)
        outputs = transpose_convolution(fed, weights)
        gradients = tf.gradients(outputs, [fed, weights], tf.constant(d_outputs))
        assert outputs.shape.as_list() == [None, 2 * rows, 2 * columns, out_channels]
        actual = session.run([outputs] + gradients, {fed: inputs})
    for mine, expected in zip(actual, numpy_forward_and_gradients(inputs, kernel, d_outputs)):
        np.testing.assert_allclose(mine, expected, atol=1e-4)


@pytest.mark.parametrize('size', [(2, 2), (3, 4), (5, 5)])
def test_other_kernels_are_refused(size):
    with pytest.raises(ValueError, match='only 3 x 3 and 4 x 4'):
        transpose_convolution(tf.zeros([1, 2, 2, 3]), tf.zeros(size + (1, 3)))
