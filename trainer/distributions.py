"""The two distributions of the model, as objects that `encoder` and `decoder` return.

Both factorise over their last axes, and every value is summed over them: one number, in nats, for
each example of the batch.
"""

import numpy as np
import tensorflow as tf


class DiagonalGaussian:
    """A normal distribution with independent dimensions; its prior is N(0, I).

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
          noise: float32 `[batch, latent_size]`.

        Returns:
          float32 `[batch, latent_size]`.
        """
        return self.mean + self.scale * noise

    def kl_divergence(self) -> tf.Tensor:
        """Returns KL(self || N(0, I)) in nats, summed over the latent dimensions.

        Kingma & Welling 2014, appendix B: -1/2 sum(1 + log(scale^2) - mean^2 - scale^2).

        Returns:
          float32 `[batch]`, never negative but for rounding.
        """
        with tf.name_scope('kl_divergence'):
            per_dimension = 0.5 * (
                tf.square(self.mean) + tf.square(self.scale) - 1.0
            ) - tf.math.log(self.scale)
            return tf.reduce_sum(per_dimension, axis=-1)


class Bernoulli:
    """Independent Bernoulli distributions, one a pixel, given by their log-odds.

    Attributes:
      logits: float32 `[batch, rows, features]`.
    """

    def __init__(self, logits: tf.Tensor):
        self.logits = logits

    def mean(self) -> tf.Tensor:
        """Returns each pixel's probability of being 1, float32 `[batch, rows, features]`."""
        return tf.sigmoid(self.logits)

    def log_prob(self, images: tf.Tensor) -> tf.Tensor:
        """Returns log p(images) in nats, summed over pixels; minus the binary cross-entropy.

        Kingma & Welling 2014, appendix C.1, equation 11. It is computed from the logits, so it is
        finite where a probability rounds to 0 or 1. For grey levels x in [0, 1] it is the expected
        log-probability of an image whose pixels are drawn as 1 with probability x.

        Args:
          images: float32 `[batch, rows, features]` in [0, 1].

        Returns:
          float32 `[batch]`.
        """
        # sigmoid_cross_entropy_with_logits is the same in ten ops, which take three times as long;
        # one of them, Log1p, tf2onnx 1.17 cannot convert.
        log_prob = images * self.logits - tf.nn.softplus(self.logits)
        return tf.reduce_sum(log_prob, axis=[1, 2])


def softplus_inverse(value: float) -> float:
    """Returns the x with log(1 + exp(x)) = value."""
    return float(np.log(np.expm1(value)))
