"""The network: encoder, decoder and prior of one model.

Calls in one graph share the weights of the first.
"""

from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import tensorflow as tf

from trainer.model.distributions import softplus_inverse
from trainer.model.likelihoods import Likelihood
from trainer.model.lstm import lstm
from trainer.model.posteriors import DiagonalGaussian, Posterior
from trainer.model.priors import Prior
from trainer.model.transpose_convolution import transpose_convolution
from trainer.settings import memory
from trainer.settings.table import HParams

# Smallest posterior scale: keeps log(scale) finite whatever the weights are.
_SCALE_FLOOR = 1e-4
# More than all the pictures of an evaluation show.
_MOST_IN_PICTURES = 1000


def encode(images: tf.Tensor, params: HParams, fused_lstm: bool = False) -> Posterior:
    """Reads each image row by row with a single-layer LSTM; returns its posterior q(z | x).

    Two Dense layers, for mean and scale, read the LSTM's hidden states after each quarter of the
    rows, of fewer than four after each row: the last state alone keeps less of the upper ones.

    Args:
      images: float32 `[batch, rows, features]` in [0, 1]; a row is a time step.
      params: `lstm_units` and `latent_size` are used.
      fused_lstm: whether the LSTM is one op, without a gradient.
    """
    with _shared_weights(), tf.variable_scope('encoder'):
        # Of fewer than four rows some quarters end at the same row, or before the first.
        ends = sorted({params.rows * quarter // 4 for quarter in (1, 2, 3, 4)} - {0})
        summary = tf.concat(lstm(images, params.lstm_units, ends, fused_lstm), axis=1)
        with tf.variable_scope('posterior'):
            mean = _dense(summary, params.latent_size, 'mean')
            raw_scale = _dense(summary, params.latent_size, 'raw_scale')
            # Scales start near 1, the prior's, where the KL divergence is 0.
            scale = tf.nn.softplus(raw_scale + softplus_inverse(1.0)) + _SCALE_FLOOR
            return DiagonalGaussian(mean, scale)


def decode(latents: tf.Tensor, params: HParams) -> Likelihood:
    """Maps latents to the likelihood p(x | z): Dense layers, then two transpose convolutions.

    Each transpose convolution doubles the sides, but for a side of 1 pixel. Of a side that is not
    divisible by 4 they make the next multiple, and what is too much is cut off at the bottom and at
    the right. The last one goes straight to the image's channels: a further layer at full size
    costs more time than it gains in likelihood.
    Activations are exponential linear units (Clevert et al. 2016), which train faster here than
    rectified ones; `decoder_activation` can give the first two Dense layers gates instead.

    Args:
      latents: float32 `[batch, latent_size]` or `[batch, samples, latent_size]`.
      params: `decoder_units`, `decoder_channels`, `decoder_activation`, `image_shape`,
        `likelihood` and what that takes are used.

    Returns:
      The likelihood, with logits `[batch, rows, features]` or `[batch, samples, rows, features]`.
    """
    rows, columns, channels = params.image_shape
    quarter = [*_quarter(params), params.decoder_channels]
    strides = [2 if side > 1 else 1 for side in (rows, columns)]
    samples = latents.shape.as_list()[1:-1]
    if samples:
        latents = tf.reshape(latents, [-1, params.latent_size])
    with _shared_weights(), tf.variable_scope('decoder'):
        hidden = _decoder_dense(latents, 1, params)
        hidden = _decoder_dense(hidden, 2, params)
        hidden = _dense(hidden, int(np.prod(quarter)), 'dense_3', tf.nn.elu)
        hidden = tf.reshape(hidden, [-1] + quarter)
        name = 'transpose_convolution_1'
        hidden = _enlarged(hidden, 3, strides, params.decoder_channels, name, tf.nn.elu)
        logits = _enlarged(hidden, 4, strides, channels, 'transpose_convolution_2')
        if logits.shape.as_list()[1:3] != [rows, columns]:
            logits = logits[:, :rows, :columns]
        logits = tf.reshape(logits, [-1] + samples + [rows, columns * channels])
        return Likelihood.kinds[params.likelihood].create(logits, params)


def _decoder_dense(inputs: tf.Tensor, number: int, params: HParams) -> tf.Tensor:
    """One of the decoder's first two Dense layers, by its number.

    A gated one is (W x + b) * sigmoid(V x + c): Dauphin et al. 2017 (arXiv:1612.08083), equation 1.
    """
    units, name = params.decoder_units, f'dense_{number}'
    if params.decoder_activation == 'gated':
        return _dense(inputs, units, name) * _dense(inputs, units, f'gate_{number}', tf.sigmoid)
    return _dense(inputs, units, name, tf.nn.elu)


def _quarter(params: HParams) -> List[int]:
    """The sides of the decoder's first feature map, in pixels: a quarter of each, rounded up."""
    return [(side + 3) // 4 for side in params.image_shape[:2]]


def _dense(
    inputs: tf.Tensor,
    units: int,
    name: str,
    activation: Optional[Callable[[tf.Tensor], tf.Tensor]] = None,
) -> tf.Tensor:
    """As `tf.layers.dense`, in which 1.14 first translates the layer's Python by AutoGraph."""
    with tf.variable_scope(name):
        kernel = tf.get_variable('kernel', [inputs.shape.as_list()[1], units])
        bias = tf.get_variable('bias', [units], initializer=tf.zeros_initializer())
        outputs = tf.nn.bias_add(tf.matmul(inputs, kernel), bias)
        return activation(outputs) if activation else outputs


def _enlarged(
    inputs: tf.Tensor,
    size: int,
    strides: Sequence[int],
    channels: int,
    name: str,
    activation: Optional[Callable[[tf.Tensor], tf.Tensor]] = None,
) -> tf.Tensor:
    """A transpose convolution layer with a bias; `size` is the kernel's along a stride of 2."""
    sizes = [size if stride == 2 else 1 for stride in strides]
    with tf.variable_scope(name):
        kernel = tf.get_variable('kernel', [*sizes, channels, inputs.shape.as_list()[3]])
        bias = tf.get_variable('bias', [channels], initializer=tf.zeros_initializer())
        outputs = tf.nn.bias_add(transpose_convolution(inputs, kernel), bias)
        return activation(outputs) if activation else outputs


def prior(params: HParams) -> Prior:
    """Returns the prior p(z) that `params.prior` names."""
    with _shared_weights():
        return Prior.kinds[params.prior].create(params, lambda images: encode(images, params))


def expected_images(latents: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the means of p(x | z), as grey levels, float32 `[n, rows, columns, channels]`.

    Args:
      latents: z, float32 `[n, latent_size]`.
    """
    mean = as_levels(decode(latents, params).mean(), params)
    return tf.reshape(mean, [-1, *params.image_shape])


def without_noise(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns what stands for grey levels in [0, 1] where no noise may be drawn to dequantise them.

    A level of 0 to 255 becomes the middle of its 256th of [0, 1], the mean of what is drawn of it.
    """
    return (255.0 * images + 0.5) / 256.0 if params.sampling == 'uniform' else images


def as_levels(means: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the grey levels of which `without_noise` makes `means`, at least 0 and at most 1."""
    if params.sampling != 'uniform':
        return means
    return tf.clip_by_value((256.0 * means - 0.5) / 255.0, 0.0, 1.0)


def images_of_pictures(latents: tf.Tensor, params: HParams) -> tf.Tensor:
    """As `expected_images`; large images one after the other, as many would need much memory."""
    if memory.images_at_once(params, _MOST_IN_PICTURES) == _MOST_IN_PICTURES:
        return expected_images(latents, params)
    return tf.map_fn(
        lambda one: expected_images(one[tf.newaxis], params)[0], latents, parallel_iterations=1
    )


def predictions(
    images: tf.Tensor, prior: Prior, params: HParams, fused_lstm: bool = False
) -> Dict[str, tf.Tensor]:
    """Returns what PREDICT yields and the exports serve, one row an example, without noise.

    Args:
      images: float32 `[batch, rows, features]` in [0, 1]; x is what `without_noise` makes of them.
      fused_lstm: see `encode`.

    Returns:
      `negative_elbo`, the sum of `reconstruction_loss`, which is the value at the posterior's
      point, and `kl_divergence`, in closed form or as the mean over a constant set of samples; in
      nats. The posterior's `moments`. In the shape of the served images: `reconstruction`, expected
      values; `nats_by_pixel`, whose sum is `reconstruction_loss`; and `excess_by_pixel`, how much
      of these is more than the least possible for such a pixel, or 0.
    """
    images = without_noise(images, params)
    posterior = encode(images, params, fused_lstm)
    likelihood = decode(posterior.point(), params)
    with tf.name_scope('predictions'):
        nats_by_pixel = -likelihood.log_prob_by_dimension(images)
        excess_by_pixel = tf.nn.relu(nats_by_pixel - likelihood.least_nats_by_dimension(images))
        reconstruction_loss = tf.reduce_sum(nats_by_pixel, axis=[-2, -1])
        kl_divergence = posterior.kl_divergence(prior)
        by_pixel = {
            'reconstruction': as_levels(likelihood.mean(), params),
            'nats_by_pixel': nats_by_pixel,
            'excess_by_pixel': excess_by_pixel,
        }
        served_shape = [-1] + params.served_shape
        return dict(
            posterior.moments(),
            negative_elbo=reconstruction_loss + kl_divergence,
            reconstruction_loss=reconstruction_loss,
            kl_divergence=kl_divergence,
            **{name: tf.reshape(values, served_shape) for name, values in by_pixel.items()},
        )


def description(params: HParams) -> Dict[str, str]:
    """Says what the network is, for people."""
    rows, columns = _quarter(params)
    return {
        'encoder': (
            f'LSTM of {params.lstm_units} units over {params.rows} rows of {params.row_features} '
            'features; Dense layers for mean and scale read its states after each quarter of them'
        ),
        'latents': '{} dimensions, prior {}'.format(params.latent_size, params.prior),
        'decoder': (
            f'Dense {params.decoder_units}, {params.decoder_units} (both '
            f'{params.decoder_activation}) and {rows}x{columns}x{params.decoder_channels}; two '
            'transpose convolutions'
        ),
        'likelihood': params.likelihood,
        'objective': params.objective,
    }


def _shared_weights() -> Any:
    """The scope of all weights: made once, as resource variables, which TF 2 loads cleanly."""
    return tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE, use_resource=True)
