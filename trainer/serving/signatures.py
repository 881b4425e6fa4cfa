"""The served graph: all signatures of the exported SavedModel."""

import functools
from typing import Dict, Optional

import tensorflow as tf

from trainer.base import image_pixels, scaling
from trainer.base.image_files import FIRST_LEVEL_OF_ONE
from trainer.model import vae
from trainer.model.priors import Prior
from trainer.serving.checked_inputs import (
    Checked,
    Signature,
    Tensors,
    asserted,
    checked,
    checked_scalar,
    marked,
    of_shape,
)
from trainer.settings import wording
from trainer.settings.table import HParams
from trainer.settings.wording import LOSSES

DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
NAMES = (
    'reconstruct',
    'encode',
    'decode',
    'generate',
    'generate_at_temperature',
    'reconstruct_png',
    'interpolate',
    'score',
    'score_png',
    'explain',
    'explain_png',
)
WITH_SCORES = ('score', 'score_png')  # There only where validation scores are known.
OF_FILES = ('reconstruct_png', 'score_png', 'explain_png')  # Not there for series.
_EXPLAINED = (
    'reconstruction', 'reconstruction_loss', 'nats_by_pixel', 'excess_by_pixel', 'nats_by_reading',
    'excess_by_reading',
)  # fmt: skip
MAX_COUNT = 10000
MAX_STEPS = 1000
# The decoder's layers make inf - inf of latents that are much larger.
MAX_LATENT = 10**6
# The squares of readings that are farther from the mean, in deviations, may be no float32.
MAX_DEVIATIONS = 10**12


def build_signatures(
    params: HParams,
    prior: Prior,
    validation_scores: Optional[tf.Tensor] = None,
    fused_lstm: bool = False,
) -> Dict[str, Signature]:
    """Builds the graph that is served; returns its signatures by name.

    `prior` is one of constants: no request waits for a VampPrior to encode its pseudo-inputs.
    `validation_scores`, float32 `[m]`, are what scores are quantiles among, where they are known.
    With `fused_lstm` all steps of the encoder's LSTM are one op.

    Shapes, with `images` float32 `[n, rows, columns]` in [0, 1], of binarised models 0 or 1 (a
    fourth axis holds the channels of colour images), `z` the latent size, and every n free, 0
    included:

    * `serving_default`, also called `reconstruct`: `images` -> `reconstruction` of their shape;
      `negative_elbo`, `reconstruction_loss`, `kl_divergence`, `[n]`, in nats; `mean` and `scale` of
      the posterior, `[n, z]`. No noise, not even to dequantise: `reconstruction_loss` is the value
      at the posterior's mean, and a KL divergence without closed form is the mean over a constant
      set of samples.
    * `encode`: `images` -> `mean`, `scale`.
    * `decode`: `latents` float32 `[n, z]` from -10^6 to 10^6 -> `images`, the probabilities of the
      pixels.
    * `generate`: `count`, `seed`, int32 scalars -> `images` `[count, ...]`, decoded from draws of
      the prior that depend on the seed alone. `generate_at_temperature`: the same with
      `temperature`, a float32 scalar, that the noise of the draws is multiplied by: with N(0, I)
      the draws, else what they are away from a component's mean. It is a signature of its
      own because TF Serving and TF 2 have no optional inputs.
    * `reconstruct_png`: `image_bytes`, strings `[n]`, each an encoded PNG or JPEG image of the
      model's size without transparent pixels -> as `serving_default`. A model of a user's own
      images puts those on white, and takes any size where it resized its training images. Of
      binarised models a level of 128 or more is a 1. EXIF orientation is not read.
    * `interpolate`: `images`, `steps` an int32 scalar -> `interpolations` `[n - 1, steps, ...]`:
      from each image to the next, decoded from equidistant points on the line between their means.
      (tf2onnx 1.17 fails where an output has an input's name.)
    * `score`: `images` -> `negative_elbo`, `reconstruction_loss`, `kl_divergence`, and the
      `quantile` of the first: the number of validation scores below it over m + 1, `[n]` each.
    * `explain`: `images` -> in their shape `nats_by_pixel`, of each channel, whose sum is
      `reconstruction_loss`, an output too; `excess_by_pixel`, how much of these is more than the
      least possible for such a pixel; `reconstruction`.
    * `score_png`, `explain_png`: the same of `image_bytes`; the latter with `images`, as the model
      saw them.

    Of a series there are `windows` in place of `images`, float32 `[n, window, columns]`, finite, in
    the units of the readings, as are all that come out; nats are of standardised readings, and by
    reading. There are no signatures of files.
    """
    examples = wording.examples(params)
    images = tf.placeholder(tf.float32, [None] + params.served_shape, name=examples)
    model = functools.partial(
        _predicted,
        prior=prior,
        params=params,
        validation_scores=validation_scores,
        fused_lstm=fused_lstm,
    )
    of_images = model(_checked_images(images, params))
    signatures = {
        **_of_predicted({examples: images}, of_images),
        'decode': _decode(params),
        'interpolate': _interpolate(images, of_images['mean'], params),
        **_generate(prior, params),
    }
    signatures[DEFAULT] = signatures['reconstruct']
    if not params.is_series:
        image_bytes = tf.placeholder(tf.string, [None], name='image_bytes')
        decoded = decoded_files(image_bytes, params)
        of_files = _of_predicted({'image_bytes': image_bytes}, model(decoded))
        for name, signature in of_files.items():
            signatures[name + '_png'] = signature
        del signatures['encode_png']
        signatures['explain_png'].outputs['images'] = decoded.values
    if validation_scores is None:
        signatures = {name: one for name, one in signatures.items() if name not in WITH_SCORES}
    return {name: _named(name, signature) for name, signature in signatures.items()}


def _of_predicted(fed: Tensors, predicted: Tensors) -> Dict[str, Signature]:
    """The signatures whose outputs `_predicted` has."""
    reconstructed = ('reconstruction', *LOSSES, 'mean', 'scale')
    names = {
        'reconstruct': reconstructed,
        'encode': ('mean', 'scale'),
        'explain': _EXPLAINED,
        'score': (*LOSSES, 'quantile'),
    }
    return {
        signature: Signature(fed, {name: predicted[name] for name in outputs if name in predicted})
        for signature, outputs in names.items()
    }


def _predicted(
    images: Checked,
    prior: Prior,
    params: HParams,
    validation_scores: Optional[tf.Tensor],
    fused_lstm: bool,
) -> Tensors:
    by_row = tf.reshape(images.values, [-1, params.rows, params.row_features])
    standardised = scaling.standardised(by_row, params.scaling)
    predictions = vae.predictions(standardised, prior, params, fused_lstm)
    reconstruction = scaling.in_units(predictions['reconstruction'], params.scaling)
    predictions['reconstruction'] = reconstruction
    if params.is_series:
        for name in ('nats', 'excess'):
            predictions[name + '_by_reading'] = predictions.pop(name + '_by_pixel')
    if validation_scores is not None:
        score = predictions['negative_elbo']
        predictions['quantile'] = _quantile(score, validation_scores)
    return {name: marked(value, images.nan_if_bad) for name, value in predictions.items()}


def _quantile(score: tf.Tensor, validation_scores: tf.Tensor) -> tf.Tensor:
    """`thresholds.quantiles` in ops that every runtime has, float32 `[n]`."""
    is_below = validation_scores[tf.newaxis] < score[:, tf.newaxis]
    count = validation_scores.shape.as_list()[0]
    return tf.reduce_sum(tf.cast(is_below, tf.float32), axis=1) / (count + 1.0)


def _decode(params: HParams) -> Signature:
    latents = tf.placeholder(tf.float32, [None, params.latent_size], name='latents')
    valid = checked(
        latents,
        [params.latent_size],
        lambda values: tf.abs(values) <= MAX_LATENT,  # False for NaN too.
        'latents must be finite numbers of at most {:,} in size'.format(MAX_LATENT),
    )
    images = _decoded(valid.values, [-1] + params.served_shape, params)
    outputs = {wording.examples(params): marked(images, valid.nan_if_bad)}
    return Signature({'latents': latents}, outputs)


def _generate(prior: Prior, params: HParams) -> Dict[str, Signature]:
    count = tf.placeholder(tf.int32, name='count')
    seed = tf.placeholder(tf.int32, name='seed')
    temperature = tf.placeholder_with_default(1.0, None, name='temperature')
    seeds = tf.stack([checked_scalar(seed, tf.int32.min, tf.int32.max), 0])
    size = [checked_scalar(count, 0, MAX_COUNT), params.latent_size]
    noise = checked_scalar(temperature, 0, 10**6) * tf.random.stateless_normal(size, seeds)
    choice = tf.random.stateless_uniform(size[:1], seeds + [0, 1])
    latents = prior.sample(noise, choice)
    images = _decoded(latents, [-1] + params.served_shape, params)
    inputs, outputs = {'count': count, 'seed': seed}, {wording.examples(params): images}
    return {
        'generate': Signature(inputs, outputs),
        'generate_at_temperature': Signature(dict(inputs, temperature=temperature), outputs),
    }


def decoded_files(image_bytes: tf.Tensor, params: HParams) -> Checked:
    """Strings `[n]`, each a PNG or JPEG file, as images of the served shape; all are valid."""

    def decode_one(content: tf.Tensor) -> tf.Tensor:
        pixels = _decoded_file(content, params)
        if params.is_binarised:
            values = tf.cast(pixels >= FIRST_LEVEL_OF_ONE, tf.float32)
        else:
            values = tf.cast(pixels, tf.float32) / 255.0
        return tf.reshape(values, params.served_shape)

    images = tf.map_fn(decode_one, of_shape(image_bytes, []), dtype=tf.float32)
    return Checked(images, tf.zeros([tf.shape(images)[0]]))


def _decoded_file(content: tf.Tensor, params: HParams) -> tf.Tensor:
    """Decodes a scalar string, a PNG or JPEG file, as the training images were decoded.

    TFDS's images are as they are: other sizes are refused, and transparent pixels too, as no
    background is right for all: black ink would be gone on MNIST's black one, and what colour lies
    below them is the drawing program's choice. A user's own have been put on white, and resized
    where the run was told to.
    """
    # Runtimes differ in what else they decode, such as GIF and BMP.
    starts = [image_pixels.starts_with(content, start) for start in (b'\x89PNG', b'\xff\xd8\xff')]
    is_known = tf.logical_or(*starts)
    content = asserted(content, is_known, 'image_bytes must hold PNG or JPEG files')
    if params.source_digest:
        return _of_own_kind(content, params)
    # It reads JPEG too, and turns colours into grey levels where one channel is wanted.
    pixels = tf.image.decode_png(content, channels=params.image_shape[2])
    pixels = _of_size(pixels, params)
    # Decoded again only after that went well: on broken files TF 1.14 crashes in two at once.
    with tf.control_dependencies([pixels]):
        content = tf.identity(content)
    # Only with four channels is a colour that stands for transparency one.
    is_opaque = tf.cond(
        starts[0],
        lambda: image_pixels.is_opaque_png(tf.image.decode_png(content, channels=4), content),
        lambda: tf.constant(True),
    )
    return asserted(
        pixels,
        is_opaque,
        'image_bytes must hold images without transparent pixels: put them on the background that '
        'the training images have',
    )


def _of_own_kind(content: tf.Tensor, params: HParams) -> tf.Tensor:
    rows, columns, channels = params.image_shape
    pixels = image_pixels.of_file(content, channels)
    if params.image_size:
        return image_pixels.fitted(pixels[tf.newaxis], [rows, columns], params.fit)[0]
    return _of_size(pixels, params)


def _of_size(pixels: tf.Tensor, params: HParams) -> tf.Tensor:
    return asserted(
        pixels,
        tf.reduce_all(tf.equal(tf.shape(pixels), params.image_shape)),
        'image_bytes must hold images of {} x {} pixels'.format(*params.image_shape),
    )


def _interpolate(images: tf.Tensor, mean: tf.Tensor, params: HParams) -> Signature:
    steps = tf.placeholder(tf.int32, name='steps')
    number = checked_scalar(steps, 2, MAX_STEPS)
    share = tf.cast(tf.range(number), tf.float32) / tf.cast(number - 1, tf.float32)
    start, end = mean[:-1, tf.newaxis], mean[1:, tf.newaxis]
    latents = start + share[:, tf.newaxis] * (end - start)
    shape = tf.concat([tf.shape(latents)[:2], params.served_shape], axis=0)
    images_between = _decoded(tf.reshape(latents, [-1, params.latent_size]), shape, params)
    fed = {wording.examples(params): images, 'steps': steps}
    return Signature(fed, {'interpolations': images_between})


def _decoded(latents: tf.Tensor, shape, params: HParams) -> tf.Tensor:
    images = tf.reshape(vae.expected_images(latents, params), shape)
    return scaling.in_units(images, params.scaling)


def _checked_images(images: tf.Tensor, params: HParams) -> Checked:
    if params.is_series:

        def is_near(readings: tf.Tensor) -> tf.Tensor:  # False for NaN too.
            return tf.abs(scaling.standardised(readings, params.scaling)) <= MAX_DEVIATIONS

        return checked(
            images, params.served_shape, is_near,
            'windows must hold finite numbers, at most 10^12 deviations from the mean of a column',
        )  # fmt: skip
    if params.is_binarised:
        return checked(
            images,
            params.served_shape,
            lambda values: tf.logical_or(tf.equal(values, 0.0), tf.equal(values, 1.0)),
            'images must hold 0 and 1 alone, as the images that the model was trained on',
        )
    return checked(
        images,
        params.served_shape,
        lambda values: tf.logical_and(values >= 0.0, values <= 1.0),  # False for NaN too.
        'images must hold numbers in [0, 1]: divide bytes by 255',
    )


def _named(name: str, signature: Signature) -> Signature:
    """Gives the outputs tensors of their own: OpenVINO names its outputs after them."""
    with tf.name_scope(name + '/'):
        outputs = {key: tf.identity(value, key) for key, value in signature.outputs.items()}
    return Signature(signature.inputs, outputs)
