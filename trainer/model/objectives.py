"""What a training step minimises: the negative ELBO, or one of its relatives.

A step computes its batch in towers. Each tower's loss is a function of its own part of the batch
and, for free bits, of the KL divergences of the whole batch, so that the gradients are the same in
any number of towers.
"""

import math
from typing import Callable, Dict, List, NamedTuple, Tuple

import tensorflow as tf

from trainer.model.bounds import importance_weighted_bound
from trainer.model.custom_gradient import custom_gradient
from trainer.settings.table import HParams


class Terms(NamedTuple):
    """What the model says of a batch, in nats; K are the samples of each posterior.

    `by_dimension` has the posteriors' moments and, where posterior and prior have marginals,
    `kl_by_dimension`.
    """

    negative_elbo: tf.Tensor  # float32 [batch], as the next two.
    reconstruction_loss: tf.Tensor
    kl_divergence: tf.Tensor
    log_weights: tf.Tensor  # log p(x, z) - log q(z | x), float32 [batch, K].
    by_dimension: Dict[str, tf.Tensor]  # Each float32 [batch, latent_size].


def loss(part: Terms, batch: Terms, beta_now: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the loss of each example in a `part` of the `batch`, float32 `[part]`, in nats.

    * elbo: -log p(x | z) + beta KL, of which beta = 1 is the negative ELBO: the beta-VAE, Higgins
      et al. 2017 (ICLR), equation 4; the KL with free bits, if asked for.
    * iwae: minus the importance-weighted bound, Burda et al. 2016 (arXiv:1509.00519), equation 8.
    * dreg: a loss with the gradients of the same bound in their doubly reparameterised form. Of one
      sample it is the ELBO, whose gradient reaches the posterior through the sample alone: Roeder
      et al. 2017 (arXiv:1703.09194), equation 8.
    """
    if params.objective == 'elbo':
        if params.free_bits:
            kl_divergence = kl_with_free_bits(
                part.by_dimension['kl_by_dimension'], batch.by_dimension['kl_by_dimension'], params
            )
        else:
            kl_divergence = part.kl_divergence
        return part.reconstruction_loss + beta_now * kl_divergence
    if params.objective == 'iwae':
        return -importance_weighted_bound(part.log_weights)
    return doubly_reparameterized_loss(part.log_weights)


def beta(global_step: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the weight of the KL at a step: constant, rising once, or rising in cycles.

    Rising once: linearly from 0 over `beta_warmup_steps`, Bowman et al. 2016 (arXiv:1511.06349),
    section 3.1. In cycles: over the first half of each of `beta_cycles` equal parts of training,
    Fu et al. 2019 (arXiv:1903.10145), equations 6 and 7 with R = 1/2; a part has a whole number of
    steps, rounded up.

    Args:
      global_step: int64 scalar, 0 at the first step.
    """
    step = tf.cast(global_step, tf.float32)
    if params.beta_cycles:
        cycle = math.ceil(params.max_steps / params.beta_cycles)
        return params.beta * tf.minimum(2.0 * tf.floormod(step, cycle) / cycle, 1.0)
    if params.beta_warmup_steps:
        return params.beta * tf.minimum(step / params.beta_warmup_steps, 1.0)
    return tf.constant(params.beta)


def beta_was_rising(global_step: int, params: HParams) -> bool:
    """Whether the step that led to `global_step` had less than the whole `beta`.

    Evaluations then are of a model that a schedule has set back, and not to be compared.
    """
    step = global_step - 1
    if params.beta_cycles:
        cycle = math.ceil(params.max_steps / params.beta_cycles)
        return 2 * (step % cycle) < cycle
    return step < params.beta_warmup_steps


def kl_with_free_bits(kl_of_part: tf.Tensor, kl_of_batch: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns each example's KL, in which no group of dimensions counts below `free_bits` nats.

    Kingma et al. 2016 (arXiv:1606.04934), appendix C.8: sum_j max(lambda, KL_j), where KL_j is the
    mean over the batch of group j's KL. A group below lambda costs lambda, and has no gradient.

    Args:
      kl_of_part: KL of each dimension, float32 `[part, latent_size]`.
      kl_of_batch: the same of the whole batch, float32 `[batch, latent_size]`.

    Returns:
      float32 `[part]`, in nats, whose mean over the parts of the batch is that sum.
    """
    groups = params.free_bits_groups or params.latent_size
    by_group = [
        tf.reduce_sum(tf.reshape(kl, [-1, groups, params.latent_size // groups]), axis=2)
        for kl in (kl_of_part, kl_of_batch)
    ]
    counts = tf.reduce_mean(by_group[1], axis=0) > params.free_bits
    counts = tf.cast(counts, tf.float32)  # The gradient of the comparison is none.
    return tf.reduce_sum(counts * by_group[0] + (1.0 - counts) * params.free_bits, axis=1)


def doubly_reparameterized_loss(log_weights: tf.Tensor) -> tf.Tensor:
    """Returns minus sum_k v_k log w_k, with v_k = w_k / sum_j w_j taken as constants.

    Its gradient is that of minus the importance-weighted bound (Burda et al. 2016, equation 13)
    for the weights of decoder and prior. With latents of `doubly_reparameterized` it is, for those
    of the encoder, Tucker et al. 2018 (arXiv:1810.04152), equation 8: of the same expectation, and
    of a variance that does not grow with the number of samples.

    Args:
      log_weights: float32 `[batch, K]`, where log q(z | x) passes gradients through z alone.

    Returns:
      float32 `[batch]`.
    """
    normalized = tf.stop_gradient(tf.nn.softmax(log_weights, axis=1))
    return -tf.reduce_sum(normalized * log_weights, axis=1)


def doubly_reparameterized(
    latents: tf.Tensor,
) -> Tuple[tf.Tensor, Callable[[tf.Tensor], None]]:
    """Returns the latents, and a function that takes the log-weights computed from them.

    On their way back through the latents, gradients are multiplied by the normalised weights.

    Args:
      latents: float32 `[batch, K, latent_size]`.
    """
    # The weights exist only after the latents; the gradient is built after both.
    log_weights: List[tf.Tensor] = []

    @custom_gradient
    def same(latents):
        def gradient(d_latents):
            normalized = tf.stop_gradient(tf.nn.softmax(log_weights[0], axis=1))
            return d_latents * normalized[..., tf.newaxis]

        return tf.identity(latents), gradient

    return same(latents), log_weights.append
