"""A long short-term memory layer, unrolled over a fixed number of time steps, and its gradient.

The layer is written out, rather than taken from `tf.nn.rnn_cell`, for its speed on CPUs: the input
projections of all time steps are one matrix product, and so is each weight gradient over all of
them. Only standard ops are used, so an exported graph loads in other runtimes.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf
from tensorflow.python.ops import gen_math_ops


class _Step(NamedTuple):
    """What the backward pass needs of one time step; each float32 `[batch, units]` or wider."""

    gates: tf.Tensor  # [batch, 3 * units]: input, forget and output gate.
    candidate: tf.Tensor
    previous_cell: Optional[tf.Tensor]
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
        # The tensors, not the variables, are the arguments: tf.custom_gradient of 1.14 refuses
        # functions that read variables of their own.
        input_kernel, hidden_kernel = tf.split(tf.convert_to_tensor(kernel), [features, units])
        time_major = tf.transpose(inputs, [1, 0, 2])
        flat_inputs = tf.reshape(time_major, [-1, features])
        return _unrolled(
            flat_inputs, input_kernel, hidden_kernel, tf.convert_to_tensor(bias), time, at
        )


def _forget_bias_initializer(shape, dtype=None, partition_info=None) -> tf.Tensor:
    """1 for the second quarter, the forget gate's, 0 elsewhere."""
    del partition_info
    zeros = tf.zeros([shape[0] // 4], dtype)
    return tf.concat([zeros, zeros + 1, zeros, zeros], axis=0)


def _unrolled(
    inputs: tf.Tensor,
    input_kernel: tf.Tensor,
    hidden_kernel: tf.Tensor,
    bias: tf.Tensor,
    time: int,
    at: Sequence[int],
) -> List[tf.Tensor]:
    """Joins the forward and the backward pass; `inputs` is `[time * batch, features]`."""

    @tf.custom_gradient
    def run(inputs, input_kernel, hidden_kernel, bias):
        steps = _forward(inputs, input_kernel, hidden_kernel, bias, time)

        def gradient(*output_gradients):
            by_step = {t - 1: gradient for t, gradient in zip(at, output_gradients)}
            return _backward(inputs, input_kernel, hidden_kernel, steps, by_step)

        return [steps[t - 1].hidden for t in at], gradient

    return run(inputs, input_kernel, hidden_kernel, bias)


def _forward(
    inputs: tf.Tensor, input_kernel: tf.Tensor, hidden_kernel: tf.Tensor, bias: tf.Tensor, time: int
) -> List[_Step]:
    units = hidden_kernel.shape.as_list()[0]
    projections = tf.split(tf.nn.bias_add(tf.matmul(inputs, input_kernel), bias), time)
    steps: List[_Step] = []
    hidden = cell = None
    for t in range(time):
        with tf.name_scope('step_{}'.format(t)):
            pre_activation = projections[t]
            if hidden is not None:
                pre_activation += tf.matmul(hidden, hidden_kernel)
            gates = tf.sigmoid(pre_activation[:, : 3 * units])
            candidate = tf.tanh(pre_activation[:, 3 * units :])
            input_gate, forget_gate, output_gate = tf.split(gates, 3, axis=1)
            previous_cell = cell
            cell = input_gate * candidate
            if previous_cell is not None:
                cell += forget_gate * previous_cell
            squashed_cell = tf.tanh(cell)
            hidden = output_gate * squashed_cell
            steps.append(_Step(gates, candidate, previous_cell, squashed_cell, hidden))
    return steps


def _backward(
    inputs: tf.Tensor,
    input_kernel: tf.Tensor,
    hidden_kernel: tf.Tensor,
    steps: List[_Step],
    output_gradients: Dict[int, tf.Tensor],
) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Back-propagation through time, with one product for each weight gradient.

    Autodiff would make one small product a time step and add them up; TF's own SigmoidGrad and
    TanhGrad kernels each fuse what would be three element-wise ops.

    Args:
      output_gradients: d loss / d h_t from outside the layer, by index into `steps`; the last
        step has one.

    Returns:
      The gradients of inputs, input_kernel, hidden_kernel and bias.
    """
    pre_activation_gradients: List[tf.Tensor] = []
    hidden_carry = cell_carry = None
    for t in reversed(range(len(steps))):
        gates, candidate, previous_cell, squashed_cell, _ = steps[t]
        input_gate, forget_gate, output_gate = tf.split(gates, 3, axis=1)
        d_hidden = hidden_carry
        if t in output_gradients:
            d_hidden = output_gradients[t] if d_hidden is None else d_hidden + output_gradients[t]
        d_cell = gen_math_ops.tanh_grad(squashed_cell, d_hidden * output_gate)
        if cell_carry is not None:
            d_cell += cell_carry
        d_forget = tf.zeros_like(d_cell) if previous_cell is None else d_cell * previous_cell
        d_gates = tf.concat([d_cell * candidate, d_forget, d_hidden * squashed_cell], axis=1)
        d_pre_activation = tf.concat(
            [
                gen_math_ops.sigmoid_grad(gates, d_gates),
                gen_math_ops.tanh_grad(candidate, d_cell * input_gate),
            ],
            axis=1,
        )
        pre_activation_gradients.insert(0, d_pre_activation)
        if t > 0:
            hidden_carry = tf.matmul(d_pre_activation, hidden_kernel, transpose_b=True)
            cell_carry = d_cell * forget_gate

    stacked = tf.concat(pre_activation_gradients, axis=0)
    previous_hidden = tf.concat([step.hidden for step in steps[:-1]], axis=0)
    after_first = tf.concat(pre_activation_gradients[1:], axis=0)
    return (
        tf.matmul(stacked, input_kernel, transpose_b=True),
        tf.matmul(inputs, stacked, transpose_a=True),
        tf.matmul(previous_hidden, after_first, transpose_a=True),
        tf.reduce_sum(stacked, axis=0),
    )
