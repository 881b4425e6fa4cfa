"""Posteriors q(z | x) of the latents, as objects that `vae.encode` returns."""

import abc
from typing import Dict, List, Optional, Sequence, TypeVar

import numpy as np
import tensorflow as tf

from trainer.model.distributions import Distribution, gaussian_log_prob

Kind = TypeVar('Kind', bound='Posterior')
# The mean over many images of the KL divergence then errs by less than 0.1 nats.
_FEWEST_REPRESENTATIVES = 128


class Posterior(Distribution):
    """q(z | x) of a batch of images. Each of its `parameters` is `[batch, ...]`."""

    @abc.abstractmethod
    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns samples, differentiable functions of the parameters.

        Args:
          noise: draws of N(0, I), float32 `[batch or 1, samples, latent_size]`.

        Returns:
          float32 `[batch, samples, latent_size]`.
        """

    @abc.abstractmethod
    def point(self) -> tf.Tensor:
        """Returns the one value that stands for the distribution where nothing may be drawn.

        Returns:
          float32 `[batch, latent_size]`.
        """

    def moments(self) -> Dict[str, tf.Tensor]:
        """Returns what is served and charted, float32 `[batch, latent_size]` each.

        `mean`, which is `point`; optional: `scale`, the standard deviations.
        """
        return {'mean': self.point()}

    def closed_kl_by_dimension(self, prior: Distribution) -> Optional[tf.Tensor]:
        """Returns KL(self || prior) of each dimension, `[batch, latent_size]`. Optional."""
        del prior
        return None

    def kl_divergence(self, prior: Distribution, latents: Optional[tf.Tensor] = None) -> tf.Tensor:
        """Returns KL(q(z | x) || p(z)) in nats: in closed form where there is one, else estimated.

        The estimate is the mean over samples z of log q(z | x) - log p(z): Kingma & Welling 2014
        (arXiv:1312.6114), the last two terms of equation 6.

        Args:
          latents: z, samples of this posterior, float32 `[batch, samples, latent_size]`; None for
            those of a constant noise, for where nothing may be drawn.

        Returns:
          float32 `[batch]`.
        """
        by_dimension = self.closed_kl_by_dimension(prior)
        if by_dimension is not None:
            return tf.reduce_sum(by_dimension, axis=1)
        with tf.name_scope('kl_divergence'):
            if latents is None:
                latent_size = self.point().shape.as_list()[-1]
                latents = self.sample(tf.constant(representative_noise(latent_size)[np.newaxis]))
            return tf.reduce_mean(self.log_prob(latents) - prior.log_prob(latents), axis=1)

    def kl_by_dimension(self, prior: Distribution, latents: tf.Tensor) -> Optional[tf.Tensor]:
        """Returns KL(q(z_j | x) || p(z_j)) of each dimension j's marginals, as `kl_divergence`.

        In closed form they add up to `kl_divergence`; the dimensions of a learned prior depend on
        each other, which the marginals leave out.

        Returns:
          float32 `[batch, latent_size]`, in nats; None where posterior or prior has no marginals.
        """
        closed = self.closed_kl_by_dimension(prior)
        if closed is not None:
            return closed
        terms = [each.log_prob_by_dimension(latents) for each in (self, prior)]
        if terms[0] is None or terms[1] is None:
            return None
        return tf.reduce_mean(terms[0] - terms[1], axis=1)

    def without_gradient(self: Kind) -> Kind:
        """Returns the same distribution, through whose parameters no gradient flows."""
        return self.with_parameters([tf.stop_gradient(tensor) for tensor in self.parameters])


class DiagonalGaussian(Posterior):
    """A normal distribution with independent dimensions.

    Attributes:
      mean: float32 `[batch, latent_size]`.
      scale: float32 `[batch, latent_size]`, the standard deviations, all above 0.
    """

    def __init__(self, mean: tf.Tensor, scale: tf.Tensor):
        self.mean = mean
        self.scale = scale

    @property
    def parameters(self) -> List[tf.Tensor]:
        return [self.mean, self.scale]

    def with_parameters(self, parameters: Sequence[tf.Tensor]) -> 'DiagonalGaussian':
        return DiagonalGaussian(*parameters)

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns `mean + scale * noise`.

        The reparameterisation trick, Kingma & Welling 2014 (arXiv:1312.6114), section 2.4.
        """
        with tf.name_scope('posterior'):
            return self.mean[:, tf.newaxis] + self.scale[:, tf.newaxis] * noise

    def point(self) -> tf.Tensor:
        return self.mean

    def moments(self) -> Dict[str, tf.Tensor]:
        return {'mean': self.mean, 'scale': self.scale}

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.log_prob_by_dimension(latents), axis=-1)

    def log_prob_by_dimension(self, latents: tf.Tensor) -> tf.Tensor:
        with tf.name_scope('posterior_log_prob'):
            mean, scale = self.mean[:, tf.newaxis], self.scale[:, tf.newaxis]
            return gaussian_log_prob(latents, mean, scale)

    def closed_kl_by_dimension(self, prior: Distribution) -> Optional[tf.Tensor]:
        return prior.kl_from_gaussian(self.mean, self.scale)


def representative_noise(latent_size: int) -> np.ndarray:
    """Returns a constant set of noise that stands for N(0, I) where nothing may be drawn.

    Half of it are draws, the rest their negatives, made to have the covariance I. The mean over it
    of a function that is odd or a square is the expectation: a posterior's entropy is exact, and so
    is its KL divergence where one component of the prior explains it.

    Returns:
      float32 `[count, latent_size]`, of a count of 128 or more.
    """
    count = max(_FEWEST_REPRESENTATIVES // 2, latent_size)
    draws = np.random.RandomState(0).standard_normal([count, latent_size])
    variances, axes = np.linalg.eigh(draws.T @ draws / count)
    draws = draws @ (axes / np.sqrt(variances)) @ axes.T
    return np.concatenate([draws, -draws]).astype(np.float32)
