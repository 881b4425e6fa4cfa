"""The encoder: from images to the posterior over their latents."""

import tensorflow as tf

from trainer.distributions import DiagonalGaussian, softplus_inverse
from trainer.hparams import HParams
from trainer.lstm import lstm

# Smallest posterior scale: keeps log(scale) finite whatever the weights are.
_SCALE_FLOOR = 1e-4


def encoder(images: tf.Tensor, params: HParams) -> DiagonalGaussian:
    """Reads each image row by row with a single-layer LSTM; returns its posterior q(z | x).

    Two Dense layers, for mean and scale, read the LSTM's last hidden state and the mean of its
    hidden states over the rows: the last one alone keeps less of the upper rows, which cost about
    one nat.

    Args:
      images: float32 `[batch, rows, features]` in [0, 1]; a row is a time step.
      params: `lstm_units` and `latent_size` are used.

    Returns:
      The posterior, with mean and scale `[batch, latent_size]`.
    """
    with tf.variable_scope('encoder'):
        hidden = lstm(images, params.lstm_units)
        summary = tf.concat([hidden[-1], tf.add_n(hidden) / len(hidden)], axis=1)
        with tf.variable_scope('posterior'):
            mean = tf.layers.dense(summary, params.latent_size, name='mean')
            raw_scale = tf.layers.dense(summary, params.latent_size, name='raw_scale')
            # Scales start near 1, the prior's, where the KL divergence is 0.
            scale = tf.nn.softplus(raw_scale + softplus_inverse(1.0)) + _SCALE_FLOOR
            return DiagonalGaussian(mean, scale)
