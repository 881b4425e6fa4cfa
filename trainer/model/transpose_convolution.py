"""Transpose convolutions that double an image's sides, with gradients that are fast on CPUs.

The forward op is TF's own `conv2d_transpose`. What differs is how its gradients are computed: TF
1.14 convolves over the outputs, which at the decoder's sizes runs at a tenth to a third of the rate
of a matrix product (its filter gradient also makes towers wait for each other). Here both are
products, of the inputs with the outputs' gradient cut into cells of 2x2 pixels. An input (i, j)
reaches the 3x3 or 4x4 pixels that start at its own cell, and these lie in the 2x2 cells from its
own one on; one of the two sides is shifted by a cell to match, the one with fewer numbers.

Images of a single row or column have kernels of that side too, which leave it as it is. They are
small, and TF's own gradients serve.
"""

from typing import Tuple

import tensorflow as tf

from trainer.model.custom_gradient import custom_gradient


def transpose_convolution(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns `tf.nn.conv2d_transpose` with SAME padding and stride 2, 1 along a side of 1.

    Args:
      inputs: float32 `[batch, rows, columns, in_channels]`; all but the batch static.
      kernel: float32 `[size, size, out_channels, in_channels]`; size 3 or 4. One of its sides,
        or both, may be 1.

    Returns:
      float32 `[batch, 2 * rows, 2 * columns, out_channels]`, not doubled where the kernel's side is
      1.

    Raises:
      ValueError: the kernel has another size.
    """
    size = kernel.shape.as_list()[:2]
    if min(size) == 1 and max(size) in (1, 3, 4):
        return _convolved(inputs, kernel)
    if size not in ([3, 3], [4, 4]):
        raise ValueError(
            'the kernel has {} x {} pixels: only 3 x 3 and 4 x 4 will do'.format(*size)
        )
    gradients = _gradients_of_3x3 if size == [3, 3] else _gradients_of_4x4

    @custom_gradient
    def run(inputs, kernel):
        outputs = _convolved(inputs, kernel)
        return outputs, lambda d_outputs: gradients(inputs, kernel, d_outputs)

    return run(inputs, kernel)


def _convolved(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The forward op."""
    _, rows, columns, _ = inputs.shape.as_list()
    kernel_rows, kernel_columns, channels, _ = kernel.shape.as_list()
    down, right = [1 if side == 1 else 2 for side in (kernel_rows, kernel_columns)]
    shape = [tf.shape(inputs)[0], down * rows, right * columns, channels]
    return tf.nn.conv2d_transpose(inputs, kernel, shape, strides=[1, down, right, 1])


def _gradients_of_3x3(
    inputs: tf.Tensor, kernel: tf.Tensor, d_outputs: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
    """The gradients of `inputs` and `kernel`; the inputs are shifted.

    SAME padding puts the 3x3 pixels of input (i, j) at rows 2i to 2i+2, columns 2j to 2j+2. TF's
    own gradient of the inputs is fast enough.
    """
    _, rows, columns, in_channels = inputs.shape.as_list()
    out_channels = kernel.shape.as_list()[2]
    cells = tf.reshape(tf.space_to_depth(d_outputs, 2), [-1, 4 * out_channels])
    # Channels first: each shift then copies long runs, and the product needs no transposing.
    own = tf.transpose(tf.reshape(inputs, [-1, in_channels]))
    own = tf.reshape(own, [in_channels, -1, rows, columns])
    right = tf.concat([tf.zeros_like(own[:, :, :, :1]), own[:, :, :, :-1]], axis=3)
    empty_row = tf.zeros_like(own[:, :, :1])
    below = [tf.concat([empty_row, shifted[:, :, :-1]], axis=2) for shifted in (own, right)]
    shifted = tf.reshape(tf.concat([own, right] + below, axis=0), [4 * in_channels, -1])
    # A pixel 2c + p of a kernel's row or column is place p of the c-th cell; the fourth place is
    # padding.
    by_cell = tf.reshape(tf.matmul(shifted, cells), [2, 2, in_channels, 2, 2, out_channels])
    d_kernel = tf.reshape(
        tf.transpose(by_cell, [0, 3, 1, 4, 5, 2]), [4, 4, out_channels, in_channels]
    )
    return tf.nn.conv2d(d_outputs, kernel, strides=2, padding='SAME'), d_kernel[:3, :3]


def _gradients_of_4x4(
    inputs: tf.Tensor, kernel: tf.Tensor, d_outputs: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
    """The gradients of `inputs` and `kernel`; the outputs, of few channels, are shifted.

    SAME padding puts the 4x4 pixels of input (i, j) at rows 2i-1 to 2i+2, columns 2j-1 to 2j+2:
    cells are cut after one pixel of padding.
    """
    _, rows, columns, in_channels = inputs.shape.as_list()
    out_channels = kernel.shape.as_list()[2]
    padded = tf.pad(
        tf.reshape(d_outputs, [-1, 2 * rows, 2 * columns * out_channels]),
        [[0, 0], [1, 1], [out_channels, out_channels]],
    )
    cells = tf.reshape(padded, [-1, rows + 1, 2, columns + 1, 2 * out_channels])
    cells = tf.transpose(cells, [0, 1, 3, 2, 4])
    cells = tf.reshape(cells, [-1, rows + 1, columns + 1, 4 * out_channels])
    shifted = [cells[:, a : a + rows, b : b + columns] for a in (0, 1) for b in (0, 1)]
    patches = tf.reshape(tf.concat(shifted, axis=3), [-1, 16 * out_channels])
    by_cell = tf.reshape(kernel, [2, 2, 2, 2, out_channels, in_channels])
    by_cell = tf.reshape(tf.transpose(by_cell, [0, 2, 1, 3, 4, 5]), [-1, in_channels])
    d_by_cell = tf.matmul(patches, tf.reshape(inputs, [-1, in_channels]), transpose_a=True)
    d_by_cell = tf.reshape(d_by_cell, [2, 2, 2, 2, out_channels, in_channels])
    return (
        tf.reshape(tf.matmul(patches, by_cell), tf.shape(inputs)),
        tf.reshape(tf.transpose(d_by_cell, [0, 2, 1, 3, 4, 5]), kernel.shape),
    )
