"""A long short-term memory layer, unrolled over a fixed number of time steps, and its gradient.

The layer is written out, rather than taken from `tf.nn.rnn_cell`, for its speed on CPUs: each time
step is one matrix product, and the batch is the last axis, so that the gates are views of that
product, where `tf.split` would have to copy them. Only standard ops are used, so an exported graph
loads in other runtimes.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf
from tensorflow.python.ops import gen_math_ops

from trainer.model.custom_gradient import custom_gradient


class _Step(NamedTuple):
    """What the backward pass needs of one time step; each float32 `[units or wider, batch]`."""

    column: tf.Tensor  # [features + units + 1, batch]: x_t, h_{t-1} and 1.
    gates: Tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # Input, forget and output gate.
    candidate: tf.Tensor
    previous_cell: tf.Tensor
    squashed_cell: tf.Tensor
    hidden: tf.Tensor


def lstm(inputs: tf.Tensor, units: int, at: Sequence[int]) -> List[tf.Tensor]:
    """Runs a single-layer LSTM over `inputs`, starting from zero states.

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000 and no peepholes:

        i, f, o = sigmoid of the first three quarters of  x_t W_x + h_{t-1} W_h + b
        j       = tanh of the last quarter
        c_t     = f * c_{t-1} + i * j
        h_t     = o * tanh(c_t)

    The forget gate's bias starts at 1 (Jozefowicz et al. 2015, section 3.4), so that the cell
    remembers from the first step of training on.

    Args:
      inputs: float32 `[batch, time, features]`; time and features static.
      units: size of the hidden and of the cell state.
      at: the time steps, counted from 1 and ending with the last, whose hidden state is wanted.

    Returns:
      h_t for each t of `at`, float32 `[batch, units]`.
    """
    _, time, features = inputs.shape.as_list()
    with tf.variable_scope('lstm'):
        kernel = tf.get_variable(
            'kernel', [features + units, 4 * units], initializer=tf.glorot_uniform_initializer()
        )
        bias = tf.get_variable('bias', [4 * units], initializer=_forget_bias_initializer)
        # In this order: Grappler of 1.14 folds a transpose right before a product into each of the
        # products, which then run at two thirds of their speed.
        weights = tf.concat([tf.transpose(kernel), bias[:, tf.newaxis]], axis=1)
        hidden = _unrolled(tf.transpose(inputs, [1, 2, 0]), weights, at)
        return [tf.transpose(h) for h in hidden]


def _forget_bias_initializer(shape, dtype=None, partition_info=None) -> tf.Tensor:
    """1 for the second quarter, the forget gate's, 0 elsewhere."""
    del partition_info
    zeros = tf.zeros([shape[0] // 4], dtype)
    return tf.concat([zeros, zeros + 1, zeros, zeros], axis=0)


def _unrolled(inputs: tf.Tensor, weights: tf.Tensor, at: Sequence[int]) -> List[tf.Tensor]:
    """Joins the forward and the backward pass.

    Args:
      inputs: `[time, features, batch]`.
      weights: W_x, W_h and b side by side and transposed, `[4 * units, features + units + 1]`.

    Returns:
      h_t for each t of `at`, `[units, batch]`.
    """

    @custom_gradient
    def run(inputs, weights):
        steps = _forward(inputs, weights)

        def gradient(*output_gradients):
            by_step = {t - 1: gradient for t, gradient in zip(at, output_gradients)}
            return _backward(weights, steps, by_step)

        return [steps[t - 1].hidden for t in at], gradient

    return run(inputs, weights)


def _forward(inputs: tf.Tensor, weights: tf.Tensor) -> List[_Step]:
    units = weights.shape.as_list()[0] // 4
    batch_size = tf.shape(inputs)[2]
    hidden = cell = tf.zeros([units, batch_size])
    one = tf.ones([1, batch_size])
    steps: List[_Step] = []
    for t, columns in enumerate(tf.unstack(inputs)):
        with tf.name_scope('step_{}'.format(t)):
            column = tf.concat([columns, hidden, one], axis=0)
            gates, candidate = tf.split(tf.matmul(weights, column), [3 * units, units])
            gates, candidate = tf.split(tf.sigmoid(gates), 3), tf.tanh(candidate)
            input_gate, forget_gate, output_gate = gates
            previous_cell = cell
            cell = forget_gate * cell + input_gate * candidate
            squashed_cell = tf.tanh(cell)
            hidden = output_gate * squashed_cell
            steps.append(_Step(column, gates, candidate, previous_cell, squashed_cell, hidden))
    return steps


def _backward(
    weights: tf.Tensor, steps: List[_Step], output_gradients: Dict[int, tf.Tensor]
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Back-propagation through time.

    TF's own SigmoidGrad and TanhGrad kernels each fuse what would be three element-wise ops.

    Args:
      output_gradients: d loss / d h_t from outside the layer, by index into `steps`; the last
        step has one.

    Returns:
      The gradients of inputs and weights.
    """
    units = weights.shape.as_list()[0] // 4
    features = weights.shape.as_list()[1] - units - 1
    # Transposed once: a product with `transpose_a` would do it again at every step.
    input_kernel, hidden_kernel, _ = tf.split(tf.transpose(weights), [features, units, 1])
    input_gradients, weight_gradients = [], []
    hidden_carry = cell_carry = None
    for t in reversed(range(len(steps))):
        column, gates, candidate, previous_cell, squashed_cell, _ = steps[t]
        input_gate, forget_gate, output_gate = gates
        d_hidden = _sum(hidden_carry, output_gradients.get(t))
        d_cell = _sum(cell_carry, gen_math_ops.tanh_grad(squashed_cell, d_hidden * output_gate))
        d_pre_activation = tf.concat(
            [
                gen_math_ops.sigmoid_grad(input_gate, d_cell * candidate),
                gen_math_ops.sigmoid_grad(forget_gate, d_cell * previous_cell),
                gen_math_ops.sigmoid_grad(output_gate, d_hidden * squashed_cell),
                gen_math_ops.tanh_grad(candidate, d_cell * input_gate),
            ],
            axis=0,
        )
        input_gradients.append(tf.matmul(input_kernel, d_pre_activation))
        weight_gradients.append(tf.matmul(d_pre_activation, column, transpose_b=True))
        hidden_carry = tf.matmul(hidden_kernel, d_pre_activation)
        cell_carry = d_cell * forget_gate
    return tf.stack(input_gradients[::-1]), tf.add_n(weight_gradients)


def _sum(a: Optional[tf.Tensor], b: Optional[tf.Tensor]) -> tf.Tensor:
    """Returns a + b, where None stands for 0."""
    return b if a is None else a if b is None else a + b
