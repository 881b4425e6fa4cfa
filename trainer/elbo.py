"""The evidence lower bound (ELBO): what training maximises."""

from typing import NamedTuple

import tensorflow as tf

from trainer.distributions import Bernoulli, DiagonalGaussian


class ElboTerms(NamedTuple):
    """The bound and its two parts, each float32 `[batch]`, in nats per example.

    Summed over pixels and latent dimensions; a mean over the batch is the caller's last step.
    """

    negative_elbo: tf.Tensor
    reconstruction_loss: tf.Tensor
    kl_divergence: tf.Tensor


def elbo_terms(images: tf.Tensor, posterior: DiagonalGaussian, likelihood: Bernoulli) -> ElboTerms:
    """Returns -ELBO = -log p(x | z) + KL(q(z | x) || p(z)) for one posterior sample z.

    Kingma & Welling 2014 (arXiv:1312.6114), equation 7 with L = 1 and the KL in closed form. The
    expectation of `negative_elbo` over z is an upper bound on -log p(x).

    Args:
      images: x, float32 `[batch, rows, features]` in [0, 1].
      posterior: q(z | x).
      likelihood: p(x | z) at a sample z of the posterior.
    """
    with tf.name_scope('elbo'):
        reconstruction_loss = -likelihood.log_prob(images)
        kl_divergence = posterior.kl_divergence()
        return ElboTerms(reconstruction_loss + kl_divergence, reconstruction_loss, kl_divergence)
