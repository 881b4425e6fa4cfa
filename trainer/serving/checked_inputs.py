"""The ends of the served graph: what is fed, validated, and what is fetched.

A TensorFlow runtime refuses bad input with a sentence (`tf.Assert`, its text constant, so that no
`cond` is needed around it). Runtimes that drop Assert, as ONNX Runtime and OpenVINO do, answer NaN
for each bad example: the outputs are marked, not the inputs, because other runtimes' activations
clamp, and a NaN may leave them as a plausible number.
"""

from typing import Callable, Dict, List, NamedTuple

import tensorflow as tf

Tensors = Dict[str, tf.Tensor]


class Signature(NamedTuple):
    """The tensors that a client feeds and fetches, by the names that it uses.

    Inputs of unknown static shape are scalars: TF 2's optimiser would take the assertion of a
    static one for true.
    """

    inputs: Tensors
    outputs: Tensors


class Checked(NamedTuple):
    """An input after its Asserts, and float32 `[n]` that is NaN for each bad example, else 0."""

    values: tf.Tensor
    nan_if_bad: tf.Tensor


def checked(
    values: tf.Tensor,
    example_shape: List[int],
    is_valid: Callable[[tf.Tensor], tf.Tensor],
    message: str,
) -> Checked:
    """Asserts the shape of `values` `[n] + example_shape`, and that each of them `is_valid`."""
    with tf.name_scope('checked_' + values.op.name):
        axes = list(range(1, 1 + len(example_shape)))
        valid = tf.reduce_all(is_valid(of_shape(values, example_shape)), axis=axes)
        values = asserted(values, tf.reduce_all(valid), message)
        # The square root of 0 or -1. tf2onnx 1.17 makes multiplications of a tf.where, after which
        # everything would be NaN.
        return Checked(values, tf.sqrt(tf.cast(valid, tf.float32) - 1.0))


def marked(output: tf.Tensor, nan_if_bad: tf.Tensor) -> tf.Tensor:
    """Returns an output, `[n, ...]`, with NaN in each example that is bad."""
    return output + tf.reshape(nan_if_bad, [-1] + [1] * (output.shape.ndims - 1))


def asserted(value: tf.Tensor, condition: tf.Tensor, message: str) -> tf.Tensor:
    """Returns `value`; computing it fails, with the message, where the condition is false."""
    with tf.control_dependencies([tf.Assert(condition, [message])]):
        return tf.identity(value)


def of_shape(values: tf.Tensor, example_shape: List[int]) -> tf.Tensor:
    """Asserts the shape `[n] + example_shape`, whatever the rank of what is fed."""
    # Only Python's Session compares what is fed with the placeholder's shape. TF Serving and TF 2
    # do not, and the optimiser would take the assertion for true by that very shape, which a
    # placeholder_with_default hides from it.
    fed_shape = tf.shape(tf.placeholder_with_default(values, None))
    wanted = example_shape + [-1]
    padded = tf.concat([fed_shape, [-1] * (1 + len(wanted))], axis=0)
    right = tf.equal(padded[1 : 1 + len(wanted)], wanted)
    has_first_axis = padded[0] >= 0  # Where each example is a scalar nothing else tells.
    shape = ', '.join(['n'] + [str(size) for size in example_shape])
    return asserted(
        values,
        tf.logical_and(has_first_axis, tf.reduce_all(right)),
        f'{values.op.name} must have the shape [{shape}]',
    )


def checked_scalar(fed: tf.Tensor, low: int, high: int) -> tf.Tensor:
    """Asserts that `fed`, of unknown static shape, is a scalar, and its range."""
    name = fed.op.name
    scalar = asserted(fed, tf.equal(tf.rank(fed), 0), f'{name} must be a scalar')
    value = tf.reshape(scalar, [])
    in_range = tf.logical_and(value >= low, value <= high)
    return asserted(value, in_range, f'{name} must be from {low:,} to {high:,}')
