"""A distribution over latents: what posteriors and priors have in common.

`log_prob` always sums over the latent dimensions; `log_prob_by_dimension` does not. What is called
optional returns None where a distribution lacks it, and everyone who asks does without it then.
"""

import abc
from typing import List, Optional, Sequence, TypeVar

import numpy as np
import tensorflow as tf

Kind = TypeVar('Kind', bound='Distribution')
LOG_2_PI = float(np.log(2.0 * np.pi))


class Distribution(abc.ABC):
    """A density over latents z, a function of tensors."""

    @property
    def parameters(self) -> List[tf.Tensor]:
        """Tensors that it is made of: gradients through them are computed once for all towers."""
        return []

    def with_parameters(self: Kind, parameters: Sequence[tf.Tensor]) -> Kind:
        """Returns a distribution of the same kind with other `parameters`, in the same order."""
        del parameters
        return self

    @abc.abstractmethod
    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns the log-density in nats; float32 `[..., latent_size]` gives `[...]`."""

    def log_prob_by_dimension(self, latents: tf.Tensor) -> Optional[tf.Tensor]:
        """Returns the log-density of each dimension's marginal, of the shape of `latents`.

        Optional. For independent dimensions the sum is `log_prob`.
        """
        del latents
        return None

    def kl_from_gaussian(self, mean: tf.Tensor, scale: tf.Tensor) -> Optional[tf.Tensor]:
        """Returns KL(N(mean, scale) || self) of each dimension in closed form, in nats.

        Optional; for independent dimensions alone.

        Args:
          mean, scale: float32 `[batch, latent_size]`.

        Returns:
          float32 `[batch, latent_size]`.
        """
        del mean, scale
        return None


def gaussian_log_prob(values: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns log N(values; mean, scale) of each element in nats; all are broadcast."""
    return -0.5 * (tf.square((values - mean) / scale) + LOG_2_PI) - tf.math.log(scale)


def softplus_inverse(value: float) -> float:
    """Returns the x with log(1 + exp(x)) = value."""
    return float(np.log(np.expm1(value)))
