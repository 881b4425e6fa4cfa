"""The variational autoencoder as an Estimator `model_fn`."""

from typing import Any, Dict, NamedTuple

import tensorflow as tf

from trainer import optimizer, summaries
from trainer.decoder import decoder
from trainer.distributions import Bernoulli, DiagonalGaussian
from trainer.elbo import ElboTerms, elbo_terms
from trainer.encoder import encoder
from trainer.hparams import HParams


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
        terms, gradients = optimizer.in_towers(
            lambda images, noise: autoencode(images, noise, params).terms,
            [images, training_noise(images, params)],
            params.threads,
        )
        step = optimizer.training_step(gradients, params)
        summaries.training(terms, step)
        loss = tf.reduce_mean(terms.negative_elbo)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=step.train_op)

    if mode == tf.estimator.ModeKeys.EVAL:
        noise = tf.random.normal([tf.shape(images)[0], params.latent_size], seed=params.seed)
        result = autoencode(images, noise, params)
        summaries.evaluation(images, result.likelihood, sample_prior, params)
        metrics = {name: tf.metrics.mean(term) for name, term in result.terms._asdict().items()}
        loss = tf.reduce_mean(result.terms.negative_elbo)
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)

    no_noise = tf.zeros([tf.shape(images)[0], params.latent_size])
    predictions = predictions_of(autoencode(images, no_noise, params), params)
    return tf.estimator.EstimatorSpec(mode, predictions=predictions)


class Autoencoded(NamedTuple):
    """The network's outputs for a batch of images."""

    terms: ElboTerms
    posterior: DiagonalGaussian
    likelihood: Bernoulli


def autoencode(images: tf.Tensor, noise: tf.Tensor, params: HParams) -> Autoencoded:
    """Encodes, samples, decodes; a second call in a graph shares the first one's weights.

    Args:
      images: x, float32 `[batch, rows, features]` in [0, 1].
      noise: float32 `[batch, latent_size]`; N(0, I) gives a sample of the posterior, 0 its mean.

    Returns:
      The loss terms, the posterior q(z | x), and the likelihood p(x | z) at the sample z.
    """
    with shared_weights():
        posterior = encoder(images, params)
        latents = posterior.sample(noise)
        likelihood = decoder(latents, params)
    return Autoencoded(elbo_terms(images, posterior, likelihood), posterior, likelihood)


def sample_prior(noise: tf.Tensor, params: HParams) -> Bernoulli:
    """Decodes `noise`, float32 `[count, latent_size]` drawn from the prior N(0, I)."""
    with shared_weights():
        return decoder(noise, params)


def shared_weights() -> Any:
    """The scope of all weights: made once, as resource variables, which TF 2 loads cleanly."""
    return tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE, use_resource=True)


def training_noise(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns N(0, I) noise `[batch, latent_size]` that depends on the seed and the step alone.

    A seeded `tf.random.normal` would start over whenever Estimator makes a session anew: a resumed
    run would see the noise of its first steps again.
    """
    seed = tf.stack([tf.constant(params.seed, tf.int64), tf.train.get_or_create_global_step()])
    return tf.random.stateless_normal([images.shape.as_list()[0], params.latent_size], seed)


def predictions_of(result: Autoencoded, params: HParams) -> Dict[str, tf.Tensor]:
    """Returns what PREDICT yields and the exports serve, one row an example.

    `reconstruction` holds probabilities in the shape of the served images; `negative_elbo` is the
    value at the posterior's mean, in nats.
    """
    with tf.name_scope('predictions'):
        shape = [-1] + params.served_shape
        return dict(
            result.terms._asdict(),
            mean=result.posterior.mean,
            scale=result.posterior.scale,
            reconstruction=tf.reshape(result.likelihood.mean(), shape),
        )
