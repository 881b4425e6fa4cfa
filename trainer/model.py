"""The variational autoencoder as an Estimator `model_fn`."""

from typing import Any, Dict, NamedTuple, Tuple

import numpy as np
import tensorflow as tf

from trainer import checkpoints, finite, network, objective, optimizer, pictures, priors, summaries
from trainer.distributions import DiagonalGaussian
from trainer.elbo import (
    ElboTerms,
    elbo_terms,
    importance_weighted_bound,
    log_importance_weights,
)
from trainer.hparams import HParams
from trainer.objective import EvaluationTerms, TrainingTerms


def model_fn(
    features: Dict[str, tf.Tensor], labels: Any, mode: str, params: HParams
) -> tf.estimator.EstimatorSpec:
    """Encodes, samples, decodes; trains on, evaluates or predicts the negative ELBO.

    Args:
      features: `images`, float32 `[batch, rows, features]` in [0, 1].
      labels: none are used.
      mode: a `tf.estimator.ModeKeys`.
      params: the settings of the run.

    Returns:
      The spec of the mode. Its loss is the mean over the batch of the negative ELBO in nats; its
      metrics are means over all examples; its predictions, one row an example, use the posterior's
      mean in place of a sample, so that they are the same each time.
    """
    del labels
    images = features['images']

    if mode == tf.estimator.ModeKeys.TRAIN:
        beta = objective.beta(tf.train.get_or_create_global_step(), params)
        prior = network.prior(params)
        batch, gradients = optimizer.in_towers(
            lambda images, noise, parameters: training_terms(
                images, noise, prior.with_parameters(parameters), params
            ),
            lambda part, batch: objective.training_loss(part, batch, beta, params),
            [images, training_noise(images, params)],
            prior.parameters,
            params.threads,
        )
        norm = finite.checked_norm(gradients, images, batch.elbo)
        step = optimizer.training_step(gradients, params, norm)
        summaries.training(batch, step, gradients, beta, params)
        with tf.name_scope('elbo/'):
            loss = tf.reduce_mean(batch.elbo.negative_elbo)
        # Of the chief alone: it restores, and the others wait for it.
        hooks = [checkpoints.FitsHook(params.model_dir)]
        return tf.estimator.EstimatorSpec(
            mode, loss=loss, train_op=step.train_op, training_chief_hooks=hooks
        )

    if mode == tf.estimator.ModeKeys.EVAL:
        posterior, prior = network.encode(images, params), network.prior(params)
        # Encoded once: building the LSTM's graph for each tower takes longer than towers gain.
        result = optimizer.forward_in_towers(
            lambda images, mean, scale, noise: evaluated(
                decoded(images, DiagonalGaussian(mean, scale), noise, prior, params)
            ),
            [images, posterior.mean, posterior.scale, evaluation_noise(images, params)],
            params.threads,
        )
        metrics = summaries.evaluation(result, params)
        if params.save_summary_steps:
            pictures.summaries(images, posterior.mean, params)
        with tf.name_scope('elbo/'):
            loss = tf.reduce_mean(result.means['negative_elbo'])
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)

    prior = network.prior(params)
    predictions = predictions_of(
        autoencode(images, no_noise(images, params), prior, params), params
    )
    return tf.estimator.EstimatorSpec(mode, predictions=predictions)


class Autoencoded(NamedTuple):
    """The network's outputs for a batch of images, with K samples of each posterior."""

    posterior: DiagonalGaussian
    prior: Any
    latents: tf.Tensor  # float32 [batch, K, latent_size].
    likelihood: Any  # Of [batch * K] images, the samples of one image next to each other.
    log_likelihood: tf.Tensor  # log p(x | z) in nats, float32 [batch, K].

    def terms(self) -> ElboTerms:
        """The ELBO and its parts, each `[batch]`, as means over the samples."""
        return elbo_terms(self.log_likelihood, self.posterior, self.prior, self.latents)

    def terms_without_noise(self) -> ElboTerms:
        """The same, but for a KL divergence without closed form: over a constant set of samples."""
        latents = self.latents
        if not priors.has_closed_kl_divergence(self.prior):
            noise = priors.representative_noise(latents.shape.as_list()[-1])
            latents = self.posterior.sample(tf.constant(noise[np.newaxis]))
        return elbo_terms(self.log_likelihood, self.posterior, self.prior, latents)

    def kl_by_dimension(self) -> tf.Tensor:
        """The KL divergence of each dimension's marginals, `[batch, latent_size]`."""
        return priors.kl_divergence_by_dimension(self.posterior, self.prior, self.latents)

    def log_weights(self) -> tf.Tensor:
        """The importance weights' logarithms, `[batch, K]`."""
        return log_importance_weights(self.log_likelihood, self.posterior, self.prior, self.latents)


def autoencode(images: tf.Tensor, noise: tf.Tensor, prior: Any, params: HParams) -> Autoencoded:
    """Encodes, samples, decodes; a second call in a graph shares the first one's weights.

    Args:
      images: x, float32 `[batch, rows, features]` in [0, 1].
      noise: float32 `[batch, K, latent_size]`; N(0, I) gives K samples of each posterior, 0 its
        mean.
      prior: what the posterior is compared with, a distribution of `priors.py`.
    """
    return decoded(images, network.encode(images, params), noise, prior, params)


def decoded(
    images: tf.Tensor, posterior: DiagonalGaussian, noise: tf.Tensor, prior: Any, params: HParams
) -> Autoencoded:
    """Samples and decodes, given the posterior of `images`; arguments as of `autoencode`."""
    latents = posterior.sample(noise)
    likelihood, log_likelihood = decode_samples(images, latents, params)
    return Autoencoded(posterior, prior, latents, likelihood, log_likelihood)


def decode_samples(images: tf.Tensor, latents: tf.Tensor, params: HParams) -> Tuple[Any, tf.Tensor]:
    """Returns p(x | z) of all `latents`, `[batch, K, latent_size]`, and its log at `images`."""
    with tf.name_scope('posterior/'):
        flat = tf.reshape(latents, [-1, params.latent_size])
    likelihood = network.decode(flat, params)
    with tf.name_scope('elbo/'):
        if latents.shape.as_list()[1] != 1:
            repeated = tf.tile(images[:, tf.newaxis], [1, tf.shape(latents)[1], 1, 1])
            images = tf.reshape(repeated, [-1, params.rows, params.row_features])
        return likelihood, tf.reshape(likelihood.log_prob(images), tf.shape(latents)[:2])


def training_terms(
    images: tf.Tensor, noise: tf.Tensor, prior: Any, params: HParams
) -> TrainingTerms:
    """Encodes, samples, decodes a part of a training batch; arguments as of `autoencode`."""
    posterior = network.encode(images, params)
    latents = posterior.sample(noise)
    if params.objective == 'dreg':
        latents, multiply_gradients_by = objective.doubly_reparameterized(latents)
    likelihood, log_likelihood = decode_samples(images, latents, params)
    result = Autoencoded(posterior, prior, latents, likelihood, log_likelihood)
    if params.objective == 'dreg':
        log_weights = result._replace(posterior=posterior.without_gradient()).log_weights()
        multiply_gradients_by(log_weights)
    else:
        log_weights = result.log_weights()
    by_dimension = result.kl_by_dimension()
    return TrainingTerms(result.terms(), by_dimension, posterior.mean, posterior.scale, log_weights)


def evaluated(result: Autoencoded) -> EvaluationTerms:
    """Returns what an evaluation takes of a batch."""
    with tf.name_scope('elbo'):
        bound = importance_weighted_bound(result.log_weights())
        means = dict(result.terms()._asdict(), negative_importance_weighted_bound=-bound)
    posterior = result.posterior
    return EvaluationTerms(means, result.kl_by_dimension(), posterior.mean, posterior.scale)


def training_noise(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns N(0, I) noise `[batch, K, latent_size]` that depends on the seed and the step alone.

    A seeded `tf.random.normal` would start over whenever Estimator makes a session anew: a resumed
    run would see the noise of its first steps again.

    The order of the images uses the seeds (seed, epoch), and importance sampling (seed, image and
    block) in the same way, so that equal pairs are equal bits: of whole numbers that sort images
    there, of noise here. No sample is used for both.
    """
    step = tf.train.get_or_create_global_step()
    with tf.name_scope('posterior'):
        seed = tf.stack([tf.constant(params.seed, tf.int64), step])
        shape = [images.shape.as_list()[0], params.training_samples, params.latent_size]
        return tf.random.stateless_normal(shape, seed)


def evaluation_noise(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns N(0, I) noise `[batch, K, latent_size]`, the same in each evaluation."""
    with tf.name_scope('posterior'):
        shape = [tf.shape(images)[0], params.samples_evaluated, params.latent_size]
        return tf.random.normal(shape, seed=params.seed)


def no_noise(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the noise, `[batch, 1, latent_size]`, that makes each sample the posterior's mean."""
    return tf.zeros([tf.shape(images)[0], 1, params.latent_size])


def predictions_of(result: Autoencoded, params: HParams) -> Dict[str, tf.Tensor]:
    """Returns what PREDICT yields and the exports serve, one row an example, without noise.

    Args:
      result: of `no_noise`.

    Returns:
      `negative_elbo`, the sum of `reconstruction_loss`, which is the value at the posterior's mean,
      and `kl_divergence`, in closed form or as the mean over `priors.representative_noise`; in
      nats. `mean` and `scale` of the posterior. `reconstruction`, probabilities in the shape of the
      served images.
    """
    with tf.name_scope('predictions'):
        shape = [-1] + params.served_shape
        return dict(
            result.terms_without_noise()._asdict(),
            mean=result.posterior.mean,
            scale=result.posterior.scale,
            reconstruction=tf.reshape(result.likelihood.mean(), shape),
        )
