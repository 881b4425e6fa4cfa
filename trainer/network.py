"""Encoder, decoder and prior of one model; calls in a graph share the weights of the first."""

from typing import Any

import tensorflow as tf

from trainer import priors
from trainer.decoder import decoder
from trainer.distributions import DiagonalGaussian
from trainer.encoder import encoder
from trainer.hparams import HParams


def encode(images: tf.Tensor, params: HParams) -> DiagonalGaussian:
    """Returns the posterior q(z | x) of `images`, float32 `[batch, rows, features]` in [0, 1]."""
    with _shared_weights():
        return encoder(images, params)


def decode(latents: tf.Tensor, params: HParams) -> Any:
    """Returns the likelihood p(x | z) of each of `latents`, float32 `[count, latent_size]`."""
    with _shared_weights():
        return decoder(latents, params)


def prior(params: HParams) -> Any:
    """Returns the prior p(z), a distribution of `priors.py`."""
    with _shared_weights():
        return priors.prior(params)


def sample_prior(noise: tf.Tensor, choice: tf.Tensor, params: HParams) -> Any:
    """Decodes draws of the prior, made of `noise` and `choice` as its `sample` says."""
    return decode(prior(params).sample(noise, choice), params)


def _shared_weights() -> Any:
    """The scope of all weights: made once, as resource variables, which TF 2 loads cleanly."""
    return tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE, use_resource=True)
