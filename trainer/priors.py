"""Priors over the latents: what the posterior is compared with, and what new images come from.

A learned prior closes the gap between N(0, I) and the latents of the training images taken
together, which costs likelihood and makes draws that look like no image (Tomczak & Welling 2018,
arXiv:1705.07120).
"""

from typing import Any, List

import numpy as np
import tensorflow as tf

from trainer.distributions import DiagonalGaussian, softplus_inverse
from trainer.encoder import encoder
from trainer.hparams import HParams

# Name of the variable, and what stands in it: log-odds of the pixels.
PSEUDO_INPUTS = 'prior/pseudo_inputs'
_LOG_2_PI = float(np.log(2.0 * np.pi))
# Smallest scale of a learned mixture's component: narrower ones would be spikes at single images.
_SCALE_FLOOR = 0.02
# The mean over many images of the KL divergence then errs by less than 0.1 nats.
_FEWEST_REPRESENTATIVES = 128


class StandardNormal:
    """N(0, I)."""

    # What training takes gradients of once for all its towers.
    parameters: List[tf.Tensor] = []

    def with_parameters(self, parameters: List[tf.Tensor]) -> 'StandardNormal':
        """Returns itself: it has none."""
        del parameters
        return self

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns the log-density in nats; `[..., latent_size]` gives `[...]`."""
        return tf.reduce_sum(self.log_prob_by_dimension(latents), axis=-1)

    def log_prob_by_dimension(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns each dimension's log-density in nats, of the shape of `latents`."""
        return -0.5 * (tf.square(latents) + _LOG_2_PI)

    def sample(self, noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        """Returns `noise`.

        Args:
          noise: draws of N(0, I), float32 `[count, latent_size]`.
          choice: draws of U[0, 1), float32 `[count]`; not used.
        """
        del choice
        return noise


class Mixture:
    """A mixture of Gaussians with independent dimensions.

    Attributes:
      mean, scale: float32 `[components, latent_size]`.
      log_weights: float32 `[components]`; their exponentials add up to 1.
    """

    def __init__(self, mean: tf.Tensor, scale: tf.Tensor, log_weights: tf.Tensor):
        self.mean, self.scale, self.log_weights = mean, scale, log_weights

    @property
    def parameters(self) -> List[tf.Tensor]:
        """What training takes gradients of once for all its towers."""
        return [self.mean, self.scale, self.log_weights]

    def with_parameters(self, parameters: List[tf.Tensor]) -> 'Mixture':
        """Returns a mixture of other `parameters`, given in the order of the attribute."""
        return Mixture(*parameters)

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns log sum_k w_k N(z; mean_k, scale_k) in nats.

        The squares are multiplied out, so that two matrix products do the work of all components:
        in float64, as their parts, up to 10^9 times the sum, cancel.

        Args:
          latents: z, float32 `[..., latent_size]`.

        Returns:
          float32 `[...]`.
        """
        with tf.name_scope('prior_log_prob'):
            size = latents.shape.as_list()[-1]
            flat = tf.cast(tf.reshape(latents, [-1, size]), tf.float64)
            precision = 1.0 / tf.square(tf.cast(tf.transpose(self.scale), tf.float64))
            mean = tf.cast(tf.transpose(self.mean), tf.float64)
            squares = (
                tf.matmul(tf.square(flat), precision)
                - 2.0 * tf.matmul(flat, mean * precision)
                + tf.reduce_sum(tf.square(mean) * precision, axis=0)
            )
            squares = tf.cast(squares, tf.float32)
            log_scale = tf.reduce_sum(tf.math.log(self.scale), axis=1)
            by_component = self.log_weights - log_scale - 0.5 * (squares + size * _LOG_2_PI)
            return tf.reshape(tf.reduce_logsumexp(by_component, axis=1), tf.shape(latents)[:-1])

    def log_prob_by_dimension(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns the log-density of each dimension's marginal, itself a mixture, in nats.

        Args:
          latents: float32 `[..., latent_size]`.

        Returns:
          float32 of the same shape; its sum is not `log_prob`, for the dimensions depend.
        """
        deviation = (latents[..., tf.newaxis, :] - self.mean) / self.scale
        by_component = -0.5 * (tf.square(deviation) + _LOG_2_PI) - tf.math.log(self.scale)
        return tf.reduce_logsumexp(by_component + self.log_weights[:, tf.newaxis], axis=-2)

    def sample(self, noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        """Returns draws of the mixture.

        Args:
          noise: draws of N(0, I), float32 `[count, latent_size]`.
          choice: draws of U[0, 1), float32 `[count]`, which choose the components.

        Returns:
          float32 `[count, latent_size]`.
        """
        until = tf.cumsum(tf.exp(self.log_weights))
        # The last of the sums may round to less than 1.
        passed = tf.cast(choice[:, tf.newaxis] >= until[tf.newaxis, :-1], tf.int32)
        component = tf.reduce_sum(passed, axis=1)
        return tf.gather(self.mean, component) + tf.gather(self.scale, component) * noise


def prior(params: HParams) -> Any:
    """Makes the prior of a model, or shares the weights of the one already in the graph.

    * standard_normal: N(0, I).
    * mixture: a mixture of Gaussians whose means, scales and weights are learned.
    * vamp: the mixture, in equal parts, of the posteriors of learned pseudo-inputs: VampPrior,
      Tomczak & Welling 2018 (arXiv:1705.07120), equation 9.
    """
    if params.prior == 'standard_normal':
        return StandardNormal()
    count = params.prior_components
    if params.prior == 'vamp':
        posterior = encoder(pseudo_inputs(params), params)
        equal = tf.constant(-np.log(count), tf.float32, [count])
        return Mixture(posterior.mean, posterior.scale, equal)
    with tf.variable_scope('prior'):
        shape = [count, params.latent_size]
        mean = tf.get_variable('mean', shape, initializer=tf.random_normal_initializer())
        near_one = tf.constant_initializer(softplus_inverse(1.0))
        raw_scale = tf.get_variable('raw_scale', shape, initializer=near_one)
        weights = tf.get_variable('raw_log_weights', [count], initializer=tf.zeros_initializer())
        return Mixture(mean, tf.nn.softplus(raw_scale) + _SCALE_FLOOR, tf.nn.log_softmax(weights))


def pseudo_inputs(params: HParams) -> tf.Tensor:
    """Returns the learned pseudo-inputs of a VampPrior, `[components, rows, features]` in (0, 1).

    A training starts them from training images (`PseudoInputsHook` in `train.py`).
    """
    with tf.variable_scope('prior'):
        shape = [params.prior_components, params.rows, params.row_features]
        return tf.sigmoid(tf.get_variable('pseudo_inputs', shape))


def has_closed_kl_divergence(prior: Any) -> bool:
    """Whether `kl_divergence` needs no samples."""
    return isinstance(prior, StandardNormal)


def kl_divergence(posterior: DiagonalGaussian, prior: Any, latents: tf.Tensor) -> tf.Tensor:
    """Returns KL(q(z | x) || p(z)) in nats: in closed form for N(0, I), else its estimate.

    The estimate is the mean over samples z of log q(z | x) - log p(z): Kingma & Welling 2014
    (arXiv:1312.6114), the last two terms of equation 6.

    Args:
      posterior: q(z | x).
      prior: p(z).
      latents: samples of the posterior, float32 `[batch, samples, latent_size]`.

    Returns:
      float32 `[batch]`.
    """
    if has_closed_kl_divergence(prior):
        return tf.reduce_sum(posterior.kl_divergence(), axis=1)
    with tf.name_scope('kl_divergence'):
        log_posterior = tf.reduce_sum(posterior.log_prob(latents), axis=2)
        return tf.reduce_mean(log_posterior - prior.log_prob(latents), axis=1)


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


def kl_divergence_by_dimension(
    posterior: DiagonalGaussian, prior: Any, latents: tf.Tensor
) -> tf.Tensor:
    """Returns KL(q(z_j | x) || p(z_j)) of each dimension j's marginals, as `kl_divergence` does.

    For N(0, I) they add up to `kl_divergence`; the dimensions of a learned prior depend on each
    other, which the marginals leave out.

    Returns:
      float32 `[batch, latent_size]`, in nats.
    """
    if has_closed_kl_divergence(prior):
        return posterior.kl_divergence()
    log_ratio = posterior.log_prob(latents) - prior.log_prob_by_dimension(latents)
    return tf.reduce_mean(log_ratio, axis=1)
