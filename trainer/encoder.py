"""The encoder: from images to the posterior over their latents."""

import tensorflow as tf

from trainer.distributions import DiagonalGaussian, softplus_inverse
from trainer.hparams import HParams
from trainer.lstm import lstm

# Smallest posterior scale: keeps log(scale) finite whatever the weights are.
_SCALE_FLOOR = 1e-4


def encoder(images: tf.Tensor, params: HParams) -> DiagonalGaussian:
    """Reads each image row by row with a single-layer LSTM; returns its posterior q(z | x).

    Two Dense layers, for mean and scale, read the LSTM's hidden states after each quarter of the
    rows: the last state alone keeps less of the upper ones.

    Args:
      images: float32 `[batch, rows, features]` in [0, 1]; a row is a time step.
      params: `lstm_units` and `latent_size` are used.

    Returns:
      The posterior, with mean and scale `[batch, latent_size]`.
    """
    with tf.variable_scope('encoder'):
        quarters = [params.rows * quarter // 4 for quarter in (1, 2, 3, 4)]
        summary = tf.concat(lstm(images, params.lstm_units, at=quarters), axis=1)
        with tf.variable_scope('posterior'):
            mean = tf.layers.dense(summary, params.latent_size, name='mean')
            raw_scale = tf.layers.dense(summary, params.latent_size, name='raw_scale')
            # Scales start near 1, the prior's, where the KL divergence is 0.
            scale = tf.nn.softplus(raw_scale + softplus_inverse(1.0)) + _SCALE_FLOOR
            return DiagonalGaussian(mean, scale)
