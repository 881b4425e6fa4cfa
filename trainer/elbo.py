"""The evidence lower bound (ELBO), and its importance-weighted relative.

All values are in nats per example, summed over pixels and latent dimensions; a mean over the batch
is the caller's last step.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from trainer import priors
from trainer.distributions import DiagonalGaussian


class ElboTerms(NamedTuple):
    """The bound and its two parts, each float32 `[batch]`, in nats per example."""

    negative_elbo: tf.Tensor
    reconstruction_loss: tf.Tensor
    kl_divergence: tf.Tensor


def elbo_terms(
    log_likelihood: tf.Tensor, posterior: DiagonalGaussian, prior: Any, latents: tf.Tensor
) -> ElboTerms:
    """Returns -ELBO = -log p(x | z) + KL(q(z | x) || p(z)), the mean over posterior samples z.

    Kingma & Welling 2014 (arXiv:1312.6114), equation 7 with L samples, and the KL in closed form
    where there is one, else by equation 6. The expectation of `negative_elbo` over z is an upper
    bound on -log p(x).

    Args:
      log_likelihood: log p(x | z), float32 `[batch, samples]`.
      posterior: q(z | x).
      prior: p(z).
      latents: z, samples of the posterior, float32 `[batch, samples, latent_size]`.
    """
    with tf.name_scope('elbo'):
        reconstruction_loss = -tf.reduce_mean(log_likelihood, axis=1)
        kl_divergence = priors.kl_divergence(posterior, prior, latents)
        return ElboTerms(reconstruction_loss + kl_divergence, reconstruction_loss, kl_divergence)


def log_importance_weights(
    log_likelihood: tf.Tensor, posterior: DiagonalGaussian, prior: Any, latents: tf.Tensor
) -> tf.Tensor:
    """Returns log w = log p(x | z) + log p(z) - log q(z | x) of each posterior sample z.

    Burda et al. 2016 (arXiv:1509.00519), equation 8. Arguments as of `elbo_terms`.

    Returns:
      float32 `[batch, samples]`.
    """
    with tf.name_scope('log_importance_weights'):
        log_posterior = tf.reduce_sum(posterior.log_prob(latents), axis=2)
        return log_likelihood + prior.log_prob(latents) - log_posterior


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """Returns log 1/K sum_k w_k, whose expectation is a lower bound on log p(x).

    Burda et al. 2016 (arXiv:1509.00519), equation 8: the ELBO for K = 1, tighter with each sample.

    Args:
      log_weights: float32 `[batch, K]`.

    Returns:
      float32 `[batch]`.
    """
    samples = tf.cast(tf.shape(log_weights)[1], tf.float32)
    return tf.reduce_logsumexp(log_weights, axis=1) - tf.math.log(samples)
