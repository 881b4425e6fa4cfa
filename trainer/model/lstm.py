"""A long short-term memory layer over a fixed number of time steps, and its gradient.

It has two forms, of the same steps. Up to `LONGEST_UNROLLED` time steps each has ops of its own: at
28 rows a training step then takes an eighth less time. At 64 rows neither is faster, and the time
to make and rewrite a graph grows with its ops: longer sequences have loops, with each op once.

The layer is written out, rather than taken from `tf.nn.rnn_cell`, for its speed on CPUs: each time
step is one matrix product, and the batch is the last axis, so that the gates are views of that
product, where `tf.split` would have to copy them. Only standard ops are used, so an exported graph
loads in other runtimes.

A third form, `fused`, is TensorFlow's `BlockLSTM`: one op for all steps. It is the fastest for one
example, slower for many, has no gradient here, and not every runtime has it.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf
from tensorflow.python.ops import gen_math_ops

from trainer.model.custom_gradient import custom_gradient

LONGEST_UNROLLED = 64


class _Step(NamedTuple):
    """What the backward pass needs of one time step; each float32 `[units or wider, batch]`."""

    column: tf.Tensor  # [features + units + 1, batch]: x_t, h_{t-1} and 1.
    gates: Tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # Input, forget and output gate.
    candidate: tf.Tensor
    previous_cell: tf.Tensor
    squashed_cell: tf.Tensor
    hidden: tf.Tensor


def lstm(inputs: tf.Tensor, units: int, at: Sequence[int], fused: bool = False) -> List[tf.Tensor]:
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
      at: the time steps whose hidden state is wanted, counted from 1, in order, each once, and
        ending with the last.
      fused: whether all steps are one op, which has no gradient.

    Returns:
      h_t for each t of `at`, float32 `[batch, units]`.

    Raises:
      ValueError: `at` is not of that kind.
    """
    _, time, features = inputs.shape.as_list()
    if list(at) != sorted(set(at)) or at[0] < 1 or at[-1] != time:
        raise ValueError('at={} must rise from at least 1 to {}'.format(list(at), time))
    with tf.variable_scope('lstm'):
        kernel = tf.get_variable(
            'kernel', [features + units, 4 * units], initializer=tf.glorot_uniform_initializer()
        )
        bias = tf.get_variable('bias', [4 * units], initializer=_forget_bias_initializer)
        if fused:
            return _fused(inputs, kernel, bias, at)
        # In this order: Grappler of 1.14 folds a transpose right before a product into each of the
        # products, which then run at two thirds of their speed.
        weights = tf.concat([tf.transpose(kernel), bias[:, tf.newaxis]], axis=1)
        form = _unrolled if time <= LONGEST_UNROLLED else _looped
        hidden = form(tf.transpose(inputs, [1, 2, 0]), weights, at)
        return [tf.transpose(h) for h in hidden]


def _fused(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, at: Sequence[int]
) -> List[tf.Tensor]:
    """As `lstm`, by an op of `tf.contrib` in TensorFlow 1, and of the core in TensorFlow 2."""
    # Only here: importing `tf.contrib` takes as long as half of TensorFlow.
    from tensorflow.contrib.rnn.ops import gen_lstm_ops

    # Its blocks of columns are those of i, j, f and o.
    input_gate, forget_gate, output_gate, candidate = tf.split(
        tf.concat([kernel, bias[tf.newaxis]], axis=0), 4, axis=1
    )
    weights = tf.concat([input_gate, candidate, forget_gate, output_gate], axis=1)
    units, time = kernel.shape.as_list()[1] // 4, inputs.shape.as_list()[1]
    state, no_peephole = tf.zeros([tf.shape(inputs)[0], units]), tf.zeros([units])
    hidden = gen_lstm_ops.block_lstm(
        seq_len_max=tf.constant(time, tf.int64),
        x=tf.transpose(inputs, [1, 0, 2]),
        cs_prev=state,
        h_prev=state,
        w=weights[:-1],
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=weights[-1],
        forget_bias=0.0,  # The bias has it.
        cell_clip=-1.0,  # None.
    ).h
    return [hidden[t - 1] for t in at]


def _forget_bias_initializer(shape, dtype=None, partition_info=None) -> tf.Tensor:
    """1 for the second quarter, the forget gate's, 0 elsewhere."""
    del partition_info
    zeros = tf.zeros([shape[0] // 4], dtype)
    return tf.concat([zeros, zeros + 1, zeros, zeros], axis=0)


def _forward_step(
    weights: tf.Tensor, features: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, one: tf.Tensor
) -> Tuple[_Step, tf.Tensor]:
    """Returns the step that follows the states `hidden` and `cell`, and its own cell state.

    Args:
      features: x_t, `[features, batch]`.
      one: 1, `[1, batch]`.
    """
    units = weights.shape.as_list()[0] // 4
    column = tf.concat([features, hidden, one], axis=0)
    gates, candidate = tf.split(tf.matmul(weights, column), [3 * units, units])
    gates, candidate = tf.split(tf.sigmoid(gates), 3), tf.tanh(candidate)
    input_gate, forget_gate, output_gate = gates
    previous_cell = cell
    cell = forget_gate * cell + input_gate * candidate
    squashed_cell = tf.tanh(cell)
    hidden = output_gate * squashed_cell
    return _Step(column, gates, candidate, previous_cell, squashed_cell, hidden), cell


def _backward_step(
    step: _Step, d_hidden: tf.Tensor, cell_carry: Optional[tf.Tensor]
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradient of the product of weights and column, and that of the previous cell.

    TF's own SigmoidGrad and TanhGrad kernels each fuse what would be three element-wise ops.

    Args:
      d_hidden: the gradient of the step's hidden state, `[units, batch]`.
      cell_carry: that of its cell state by way of the next step; None stands for 0.
    """
    input_gate, forget_gate, output_gate = step.gates
    d_squashed_cell = gen_math_ops.tanh_grad(step.squashed_cell, d_hidden * output_gate)
    d_cell = _sum(cell_carry, d_squashed_cell)
    d_product = tf.concat(
        [
            gen_math_ops.sigmoid_grad(input_gate, d_cell * step.candidate),
            gen_math_ops.sigmoid_grad(forget_gate, d_cell * step.previous_cell),
            gen_math_ops.sigmoid_grad(output_gate, d_hidden * step.squashed_cell),
            gen_math_ops.tanh_grad(step.candidate, d_cell * input_gate),
        ],
        axis=0,
    )
    return d_product, d_cell * forget_gate


def _kernels(weights: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """W_x `[features, 4 * units]` and W_h `[units, 4 * units]`.

    Transposed once: a product with `transpose_a` would do it again at every step.
    """
    units = weights.shape.as_list()[0] // 4
    features = weights.shape.as_list()[1] - units - 1
    input_kernel, hidden_kernel, _ = tf.split(tf.transpose(weights), [features, units, 1])
    return input_kernel, hidden_kernel


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
    hidden, cell, one = _start(inputs, weights)
    steps: List[_Step] = []
    for t, features in enumerate(tf.unstack(inputs)):
        with tf.name_scope('step_{}'.format(t)):
            step, cell = _forward_step(weights, features, hidden, cell, one)
            hidden = step.hidden
            steps.append(step)
    return steps


def _start(inputs: tf.Tensor, weights: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Hidden and cell state before the first step, 0, `[units, batch]`; and 1, `[1, batch]`."""
    batch_size = tf.shape(inputs)[2]
    state = tf.zeros([weights.shape.as_list()[0] // 4, batch_size])
    return state, state, tf.ones([1, batch_size])


def _backward(
    weights: tf.Tensor, steps: List[_Step], output_gradients: Dict[int, tf.Tensor]
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Back-propagation through time.

    Args:
      output_gradients: d loss / d h_t from outside the layer, by index into `steps`; the last
        step has one.

    Returns:
      The gradients of inputs and weights.
    """
    input_kernel, hidden_kernel = _kernels(weights)
    input_gradients, weight_gradients = [], []
    hidden_carry = cell_carry = None
    for t in reversed(range(len(steps))):
        d_hidden = _sum(hidden_carry, output_gradients.get(t))
        d_product, cell_carry = _backward_step(steps[t], d_hidden, cell_carry)
        input_gradients.append(tf.matmul(input_kernel, d_product))
        weight_gradients.append(tf.matmul(d_product, steps[t].column, transpose_b=True))
        hidden_carry = tf.matmul(hidden_kernel, d_product)
    return tf.stack(input_gradients[::-1]), tf.add_n(weight_gradients)


def _sum(a: Optional[tf.Tensor], b: Optional[tf.Tensor]) -> tf.Tensor:
    """Returns a + b, where None stands for 0."""
    return b if a is None else a if b is None else a + b


def _looped(inputs: tf.Tensor, weights: tf.Tensor, at: Sequence[int]) -> List[tf.Tensor]:
    """As `_unrolled`, with one loop forward and one back."""
    indices = [t - 1 for t in at]

    @custom_gradient
    def run(inputs, weights):
        steps = _forward_loop(inputs, weights)
        outputs = tf.gather(steps[-1].stack(), indices)

        def gradient(d_outputs):
            return _backward_loop(weights, steps, indices, d_outputs)

        return outputs, gradient

    return tf.unstack(run(inputs, weights))


def _forward_loop(inputs: tf.Tensor, weights: tf.Tensor) -> List[tf.TensorArray]:
    """Returns arrays over time, one for each tensor of a `_Step`, in their order.

    Without a backward pass, in evaluations and exports, no op reads any but the last, that of the
    hidden states: TensorFlow then leaves the others out.
    """
    time = inputs.shape.as_list()[0]
    hidden, cell, one = _start(inputs, weights)

    def body(t, hidden, cell, *arrays):
        step, cell = _forward_step(weights, tf.gather(inputs, t), hidden, cell, one)
        arrays = [array.write(t, x) for array, x in zip(arrays, tf.nest.flatten(step))]
        return (t + 1, step.hidden, cell, *arrays)

    count = len(_Step._fields) + 2  # The gates are three.
    arrays = [tf.TensorArray(tf.float32, time) for _ in range(count)]
    _, _, _, *arrays = tf.while_loop(lambda t, *_: t < time, body, (0, hidden, cell, *arrays))
    return arrays


def _backward_loop(
    weights: tf.Tensor, steps: List[tf.TensorArray], indices: List[int], d_outputs: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
    """As `_backward`; `d_outputs` `[len(indices), units, batch]` is of those of the steps."""
    time = indices[-1] + 1
    input_kernel, hidden_kernel = _kernels(weights)
    shape = tf.concat([[time], tf.shape(d_outputs)[1:]], axis=0)
    from_outside = tf.scatter_nd([[index] for index in indices], d_outputs, shape)

    def body(t, hidden_carry, cell_carry, d_weights, d_products):
        column, *others = [array.read(t) for array in steps[:-1]]
        step = _Step(column, tuple(others[:3]), *others[3:], hidden=None)
        d_hidden = hidden_carry + tf.gather(from_outside, t)
        d_product, cell_carry = _backward_step(step, d_hidden, cell_carry)
        d_weights += tf.matmul(d_product, column, transpose_b=True)
        d_products = d_products.write(t, d_product)
        return t - 1, tf.matmul(hidden_kernel, d_product), cell_carry, d_weights, d_products

    carry = tf.zeros_like(d_outputs[0])
    start = time - 1, carry, carry, tf.zeros_like(weights), tf.TensorArray(tf.float32, time)
    _, _, _, d_weights, d_products = tf.while_loop(lambda t, *_: t >= 0, body, start)
    # Where no gradient of the inputs is wanted, no op reads the products'.
    d_inputs = tf.tensordot(d_products.stack(), input_kernel, [[1], [1]])
    return tf.transpose(d_inputs, [0, 2, 1]), d_weights
