"""The posterior of the latents, as an object that `encoder` returns."""

import numpy as np
import tensorflow as tf

_LOG_2_PI = float(np.log(2.0 * np.pi))


class DiagonalGaussian:
    """A normal distribution with independent dimensions.

    Attributes:
      mean: float32 `[batch, latent_size]`.
      scale: float32 `[batch, latent_size]`, the standard deviations, all above 0.
    """

    def __init__(self, mean: tf.Tensor, scale: tf.Tensor):
        self.mean = mean
        self.scale = scale

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns `mean + scale * noise` for `noise` drawn from N(0, I).

        The reparameterisation trick, Kingma & Welling 2014 (arXiv:1312.6114), section 2.4: the
        sample is a differentiable function of `mean` and `scale`.

        Args:
          noise: float32 `[batch, samples, latent_size]`.

        Returns:
          float32 `[batch, samples, latent_size]`.
        """
        with tf.name_scope('posterior'):
            return self.mean[:, tf.newaxis] + self.scale[:, tf.newaxis] * noise

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns the log-density of each latent dimension in nats, not summed.

        Args:
          latents: float32 `[batch, samples, latent_size]`.

        Returns:
          float32 `[batch, samples, latent_size]`.
        """
        with tf.name_scope('posterior_log_prob'):
            mean, scale = self.mean[:, tf.newaxis], self.scale[:, tf.newaxis]
            return -0.5 * (tf.square((latents - mean) / scale) + _LOG_2_PI) - tf.math.log(scale)

    def kl_divergence(self) -> tf.Tensor:
        """Returns KL(self || N(0, I)) of each latent dimension in nats, not summed.

        Kingma & Welling 2014, appendix B: -1/2 (1 + log(scale^2) - mean^2 - scale^2).

        Returns:
          float32 `[batch, latent_size]`, never negative but for rounding.
        """
        with tf.name_scope('kl_divergence'):
            squares = tf.square(self.mean) + tf.square(self.scale)
            return 0.5 * (squares - 1.0) - tf.math.log(self.scale)

    def without_gradient(self) -> 'DiagonalGaussian':
        """Returns the same distribution, through whose parameters no gradient flows."""
        return DiagonalGaussian(tf.stop_gradient(self.mean), tf.stop_gradient(self.scale))


def softplus_inverse(value: float) -> float:
    """Returns the x with log(1 + exp(x)) = value."""
    return float(np.log(np.expm1(value)))
