"""The decoder: from latents to a distribution over images."""

from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from trainer.hparams import HParams
from trainer.likelihoods import likelihood
from trainer.transpose_convolution import transpose_convolution


def decoder(latents: tf.Tensor, params: HParams) -> Any:
    """Maps latents to p(x | z) through Dense layers, then two transpose convolutions.

    Each transpose convolution doubles the sides. The last one goes straight to the image's
    channels: a further layer at full size costs more time than it gains in likelihood.
    Activations are exponential linear units (Clevert et al. 2016), which train faster here than
    rectified ones.

    Args:
      latents: float32 `[batch, latent_size]`.
      params: `decoder_units`, `decoder_channels`, `image_shape`, `likelihood` and
        `normal_scale` are used.

    Returns:
      The likelihood, a distribution of `likelihoods.py` with logits
      `[batch, rows, columns * channels]`.
    """
    rows, columns, channels = params.image_shape
    quarter = [rows // 4, columns // 4, params.decoder_channels]
    with tf.variable_scope('decoder'):
        hidden = latents
        for number, units in enumerate([params.decoder_units] * 2 + [int(np.prod(quarter))]):
            name = f'dense_{number + 1}'
            hidden = tf.layers.dense(hidden, units, activation=tf.nn.elu, name=name)
        hidden = tf.reshape(hidden, [-1] + quarter)
        name = 'transpose_convolution_1'
        hidden = _doubled(hidden, 3, params.decoder_channels, name, activation=tf.nn.elu)
        logits = _doubled(hidden, 4, channels, 'transpose_convolution_2')
        logits = tf.reshape(logits, [-1, rows, columns * channels])
        return likelihood(logits, params.likelihood, params.normal_scale)


def _doubled(
    inputs: tf.Tensor,
    size: int,
    channels: int,
    name: str,
    activation: Optional[Callable[[tf.Tensor], tf.Tensor]] = None,
) -> tf.Tensor:
    """A transpose convolution layer of stride 2 with `size` x `size` kernels and a bias."""
    with tf.variable_scope(name):
        kernel = tf.get_variable('kernel', [size, size, channels, inputs.shape.as_list()[3]])
        bias = tf.get_variable('bias', [channels], initializer=tf.zeros_initializer())
        outputs = tf.nn.bias_add(transpose_convolution(inputs, kernel), bias)
        return activation(outputs) if activation else outputs
