"""Pictures that show what a model has learned, as ops: in TensorBoard and in PNG files alike.

Each is a `Picture`: images to be laid out row by row. All decode the means of posteriors or fixed
draws, never fresh noise, so that two pictures of a run differ by its weights alone. `images` are
float32 `[n, rows, features]` in [0, 1], or windows of standardised readings, which are shown as
`lines`; `mean`, of their posteriors, is float32 `[n, latent_size]`.
"""

from typing import Callable, Dict, NamedTuple, Tuple

import numpy as np
import tensorflow as tf

from trainer.model.priors import Prior
from trainer.monitoring import lines
from trainer.settings.table import HParams

PRIOR_SAMPLES = 100
RECONSTRUCTIONS = 50
MANIFOLD_SIDE = 20
ROWS = 10  # Of traversals and of interpolations.
STEPS = 11  # In a row of those.
# Latents between -3 and 3 hold all but 0.3% of N(0, 1).
_TRAVERSED = np.linspace(-3.0, 3.0, STEPS, dtype=np.float32)

_GOLDEN_RATIO = (np.sqrt(5.0) - 1.0) / 2.0  # Its multiples, modulo 1, lie evenly and far apart.

# Maps latents, float32 `[n, latent_size]`, to expected images `[n, rows, columns, channels]`.
Decode = Callable[[tf.Tensor], tf.Tensor]


class Picture(NamedTuple):
    """`[n, rows, columns, channels]`, float32 as of a decoder or uint8; how many stand in a row."""

    images: tf.Tensor
    columns: int


def prior_samples(count: int, seed: int, prior: Prior, decode: Decode, params: HParams) -> Picture:
    """Draws from the prior, as many in a row as make the picture square: the same for a seed."""
    noise, choice = prior_noise(count, seed, params)
    latents = prior.sample(tf.constant(noise), tf.constant(choice))
    return Picture(decode(latents), square_columns(count))


def prior_noise(count: int, seed: int, params: HParams) -> Tuple[np.ndarray, np.ndarray]:
    """Returns what draws from the prior are made of: float32 `[count, latent_size]`, `[count]`."""
    random = np.random.RandomState(seed)
    noise = random.standard_normal([count, params.latent_size])
    return noise.astype(np.float32), random.uniform(size=count).astype(np.float32)


def square_columns(count: int) -> int:
    """Images in a row of a grid that is as square as can be: 10 for 100."""
    return int(np.ceil(np.sqrt(count)))


def reconstructions(images: tf.Tensor, mean: tf.Tensor, decode: Decode, params: HParams) -> Picture:
    """Rows of ten images, each above that of their reconstructions; no incomplete last row.

    Windows, which are taken evenly from those given, lie behind their reconstructions on one tile.
    """
    columns = tf.minimum(10, tf.shape(images)[0])
    count = tf.minimum(RECONSTRUCTIONS, tf.shape(images)[0])
    count -= tf.floormod(count, columns)
    if params.is_series:
        chosen = tf.range(count) * tf.shape(images)[0] // count
        images, mean = tf.gather(images, chosen), tf.gather(mean, chosen)
        return Picture(lines.drawn_over(images, decode(mean)), columns)
    shape = [-1, columns] + list(params.image_shape)
    originals = tf.reshape(images[:count], shape)
    decoded = tf.reshape(decode(mean[:count]), shape)
    pairs = tf.stack([originals, decoded], axis=1)
    return Picture(tf.reshape(pairs, [-1] + list(params.image_shape)), columns)


def interpolations(mean: tf.Tensor, decode: Decode, params: HParams) -> Picture:
    """From one image to another in a row, along the line between the means of their posteriors.

    The first and the second image make the first row, and so on. Windows that follow one another
    are nearly the same: the ends of a row are windows far apart, by no multiple of any period.
    """
    pairs = tf.minimum(ROWS, tf.shape(mean)[0] // 2)
    if params.is_series:
        places = (np.arange(2 * ROWS) * _GOLDEN_RATIO % 1.0).astype(np.float32)
        places *= tf.cast(tf.shape(mean)[0], tf.float32)
        mean = tf.gather(mean, tf.cast(places, tf.int32))
    ends = tf.reshape(mean[: 2 * pairs], [-1, 2, 1, params.latent_size])
    share = tf.constant(np.linspace(0.0, 1.0, STEPS, dtype=np.float32)[:, np.newaxis])
    line = ends[:, 0] * (1.0 - share) + ends[:, 1] * share
    return Picture(decode(tf.reshape(line, [-1, params.latent_size])), STEPS)


def traversals(mean: tf.Tensor, decode: Decode, params: HParams) -> Picture:
    """The most active dimensions, one a row, each moved from -3 to 3.

    Their posterior means vary most over the images. The other dimensions stay at the posterior mean
    of the first image.
    """
    _, variance = tf.nn.moments(mean, axes=[0])
    rows = min(ROWS, params.latent_size)
    dimensions = tf.nn.top_k(variance, rows).indices
    moved = tf.one_hot(dimensions, params.latent_size)[:, tf.newaxis]
    latents = mean[0] * (1.0 - moved) + moved * _TRAVERSED[:, np.newaxis]
    return Picture(decode(tf.reshape(latents, [-1, params.latent_size])), STEPS)


def manifold(decode: Decode) -> Picture:
    """Two latents over a grid of equal probability under N(0, I)."""
    return Picture(decode(manifold_latents(MANIFOLD_SIDE)), MANIFOLD_SIDE)


def manifold_latents(side: int) -> tf.Tensor:
    """Returns float32 `[side * side, 2]` latents of equal probability under N(0, I).

    The centres of `side` equal shares of N(0, 1) along each axis, as in figure 4 of Kingma &
    Welling 2014 (arXiv:1312.6114); the first latent grows to the right, the second upwards.
    """
    shares = (np.arange(side, dtype=np.float32) + 0.5) / side
    quantiles = tf.distributions.Normal(0.0, 1.0).quantile(shares)
    right, up = tf.meshgrid(quantiles, quantiles[::-1])
    return tf.stack([tf.reshape(right, [-1]), tf.reshape(up, [-1])], axis=1)


def of_validation(
    images: tf.Tensor, mean: tf.Tensor, decode: Decode, params: HParams
) -> Dict[str, Picture]:
    """Returns the pictures that fit the model, by name."""
    pictures = {'reconstructions': reconstructions(images, mean, decode, params)}
    if params.latent_size == 2:
        pictures['latent_manifold'] = manifold(decode)
    pictures['interpolations'] = interpolations(mean, decode, params)
    pictures['traversals'] = traversals(mean, decode, params)
    return pictures


def summaries(
    images: tf.Tensor, mean: tf.Tensor, prior: Prior, decode: Decode, params: HParams
) -> None:
    """Adds all pictures to the summaries of an evaluation."""
    with tf.name_scope('pictures'):
        pictures = dict(
            of_validation(images, mean, decode, params),
            prior_samples=prior_samples(PRIOR_SAMPLES, params.seed, prior, decode, params),
        )
        for name, picture in pictures.items():
            # As bytes: TF would stretch the contrast of floats, by the brightest pixel of each.
            tf.summary.image(name, _levels(picture, params)[tf.newaxis], max_outputs=1)


def grid(picture: Picture, filling: int = 0) -> tf.Tensor:
    """Lays the images out row by row; an incomplete last row is filled up, with black if not said.

    Returns `[grid_rows * rows, grid_columns * columns, channels]` of the type of the images.
    """
    count = tf.shape(picture.images)[0]
    height, width, channels = picture.images.shape.as_list()[1:]
    missing = tf.floormod(-count, picture.columns)
    paddings = [[0, missing], [0, 0], [0, 0], [0, 0]]
    tiles = tf.pad(picture.images, paddings, constant_values=filling)
    rows = (count + missing) // picture.columns
    tiles = tf.reshape(tiles, [rows, picture.columns, height, width, channels])
    tiles = tf.transpose(tiles, [0, 2, 1, 3, 4])
    return tf.reshape(tiles, [rows * height, picture.columns * width, channels])


def png(picture: Picture, params: HParams) -> tf.Tensor:
    """Returns a picture as the content of a PNG file, a string scalar."""
    return tf.image.encode_png(_levels(picture, params))


def _levels(picture: Picture, params: HParams) -> tf.Tensor:
    """The grid as uint8."""
    images = picture.images
    if images.dtype != tf.uint8:
        images = levels(images, params)
    filling = lines.BETWEEN if params.is_series else 0
    return grid(Picture(images, picture.columns), filling)


def tile_shape(params: HParams) -> Tuple[int, int, int]:
    """Returns rows, columns and channels of what `levels` makes of an image."""
    if params.is_series:
        return lines.tile(params.rows, params.row_features).shape
    return params.image_shape


def levels(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns images in [0, 1] as uint8, a quarter of their memory; windows as tiles of lines."""
    if params.is_series:
        return lines.drawn(images)
    return tf.cast(tf.round(tf.clip_by_value(images, 0.0, 1.0) * 255.0), tf.uint8)
