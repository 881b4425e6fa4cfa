"""The decoder: from latents to a distribution over images."""

import numpy as np
import tensorflow as tf

from trainer.distributions import Bernoulli
from trainer.hparams import HParams


def decoder(latents: tf.Tensor, params: HParams) -> Bernoulli:
    """Maps latents to p(x | z) through Dense layers, then two transpose convolutions.

    Each transpose convolution doubles the sides. The last one goes straight to the image's
    channels: a further layer at full size costs more time than it gains in likelihood.
    Activations are exponential linear units (Clevert et al. 2016), which train faster here than
    rectified ones.

    Args:
      latents: float32 `[batch, latent_size]`.
      params: `decoder_units`, `decoder_channels` and `image_shape` are used.

    Returns:
      The likelihood, with logits `[batch, rows, columns * channels]`.
    """
    rows, columns, channels = params.image_shape
    quarter = [rows // 4, columns // 4, params.decoder_channels]
    with tf.variable_scope('decoder'):
        hidden = latents
        for number, units in enumerate([params.decoder_units] * 2 + [int(np.prod(quarter))]):
            name = f'dense_{number + 1}'
            hidden = tf.layers.dense(hidden, units, activation=tf.nn.elu, name=name)
        hidden = tf.reshape(hidden, [-1] + quarter)
        hidden = tf.layers.conv2d_transpose(
            hidden,
            filters=params.decoder_channels,
            kernel_size=3,
            strides=2,
            padding='same',
            activation=tf.nn.elu,
            name='transpose_convolution_1',
        )
        logits = tf.layers.conv2d_transpose(
            hidden,
            filters=channels,
            kernel_size=4,
            strides=2,
            padding='same',
            name='transpose_convolution_2',
        )
        return Bernoulli(tf.reshape(logits, [-1, rows, columns * channels]))
