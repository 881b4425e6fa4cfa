"""The variational autoencoder as an Estimator `model_fn`: the mathematics of TRAIN and EVAL."""

import functools
from typing import Any, Dict, List, Optional

import tensorflow as tf

from trainer.model import objectives, vae
from trainer.model.objectives import Terms
from trainer.model.posteriors import Posterior
from trainer.model.priors import Prior
from trainer.monitoring import pictures, summaries
from trainer.settings.table import HParams
from trainer.training import finite_check, noise, optimizer, towers


def model_fn(
    features: Dict[str, tf.Tensor],
    labels: Any,
    mode: str,
    params: HParams,
    config: Optional[tf.estimator.RunConfig] = None,
) -> tf.estimator.EstimatorSpec:
    """Encodes, samples, decodes; trains on, evaluates or predicts the negative ELBO.

    A batch is cut into parts, one a thread or two (`towers`). Calls of `vae` share its weights.

    Args:
      features: `images`, float32 `[batch, rows, features]` in [0, 1].
      labels: none are used.
      config: tells which of several training processes this is.

    Returns:
      The spec of the mode. Its loss is the mean over the batch of the negative ELBO in nats; its
      metrics are means over all examples; its predictions, one row an example, use the posterior's
      point in place of a sample, so that they are the same each time.
    """
    images = features['images']

    if mode == tf.estimator.ModeKeys.TRAIN:
        beta = objectives.beta(tf.train.get_or_create_global_step(), params)
        prior = vae.prior(params)

        def forward(images: tf.Tensor, epsilon: tf.Tensor, of_prior: List[tf.Tensor]) -> Terms:
            posterior = vae.encode(images, params)
            return elbo_terms(images, posterior, epsilon, prior.with_parameters(of_prior), params)

        def loss_of(part: Terms, batch: Terms) -> tf.Tensor:
            return objectives.loss(part, batch, beta, params)

        tensors = [images, noise.of_step(images, params, _replica(config))]
        batch, gradients = towers.in_towers(
            forward, loss_of, tensors, prior.parameters, towers.parts(params)
        )
        norm = finite_check.checked_norm(gradients, images, batch)
        step = optimizer.training_step(gradients, params, norm)
        summaries.training(batch, step.learning_rate, gradients, norm, beta, params)
        with tf.name_scope('elbo/'):
            loss = tf.reduce_mean(batch.negative_elbo)
            tf.summary.scalar('reconstruction_loss', tf.reduce_mean(batch.reconstruction_loss))
            tf.summary.scalar('kl_divergence', tf.reduce_mean(batch.kl_divergence))
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=step.train_op)

    prior = vae.prior(params)
    if mode == tf.estimator.ModeKeys.EVAL:
        # Encoded once: building the LSTM's graph for each tower takes longer than towers gain.
        posterior = vae.encode(images, params)

        def evaluated(images: tf.Tensor, epsilon: tf.Tensor, *of_posterior: tf.Tensor) -> Terms:
            given = posterior.with_parameters(of_posterior)
            return elbo_terms(images, given, epsilon, prior, params)

        tensors = [images, noise.of_evaluation(images, params), *posterior.parameters]
        batch = towers.forward_in_towers(evaluated, tensors, towers.count(params))
        metrics = summaries.evaluation(batch, params)
        if params.save_summary_steps:
            decode = functools.partial(vae.images_of_pictures, params=params)
            pictures.summaries(images, posterior.point(), prior, decode, params)
        loss = tf.reduce_mean(batch.negative_elbo)
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)

    return tf.estimator.EstimatorSpec(mode, predictions=vae.predictions(images, prior, params))


def elbo_terms(
    images: tf.Tensor, posterior: Posterior, epsilon: tf.Tensor, prior: Prior, params: HParams
) -> Terms:
    """Returns -ELBO = -log p(x | z) + KL(q(z | x) || p(z)), the mean over samples z of q(z | x).

    Kingma & Welling 2014 (arXiv:1312.6114), equation 7 with K samples, and the KL in closed form
    where there is one, else by equation 6. The expectation of `negative_elbo` over z is an upper
    bound on -log p(x). The importance weights are those of Burda et al. 2016 (arXiv:1509.00519),
    equation 8.

    Args:
      images: x, float32 `[batch, rows, features]` in [0, 1].
      posterior: q(z | x), of `vae.encode`.
      epsilon: draws of N(0, I), float32 `[batch, K, latent_size]`.
      prior: p(z).
    """
    latents = posterior.sample(epsilon)  # z
    if params.objective == 'dreg':
        latents, weigh_gradients = objectives.doubly_reparameterized(latents)
    likelihood = vae.decode(latents, params)  # p(x | z)
    with tf.name_scope('elbo'):
        log_likelihood = likelihood.log_prob(images[:, tf.newaxis])  # [batch, K]
        reconstruction_loss = -tf.reduce_mean(log_likelihood, axis=1)
        kl_divergence = posterior.kl_divergence(prior, latents)
        negative_elbo = reconstruction_loss + kl_divergence
        weighed = posterior.without_gradient() if params.objective == 'dreg' else posterior
        log_weights = log_likelihood + prior.log_prob(latents) - weighed.log_prob(latents)
        if params.objective == 'dreg':
            weigh_gradients(log_weights)
        by_dimension = posterior.moments()
        kl_by_dimension = posterior.kl_by_dimension(prior, latents)
        if kl_by_dimension is not None:
            by_dimension['kl_by_dimension'] = kl_by_dimension
    return Terms(negative_elbo, reconstruction_loss, kl_divergence, log_weights, by_dimension)


def _replica(config: Optional[tf.estimator.RunConfig]) -> int:
    """The number of this process among those that train; the chief, or a local one, is 0."""
    return 0 if config is None or config.is_chief else config.task_id + 1
