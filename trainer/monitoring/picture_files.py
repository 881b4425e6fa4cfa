"""Pictures of what a trained model has learned, drawn into files."""

import functools
from typing import Callable, Dict, List

import numpy as np
import tensorflow as tf

from trainer.base import files
from trainer.checkpoints import weights
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.model import vae
from trainer.monitoring import pictures
from trainer.monitoring.pictures import Picture
from trainer.settings import memory
from trainer.settings.table import HParams

# `files.write_bytes`, or `files.write_output` for a path that a user names.
Write = Callable[[str, bytes], str]
# Each mode's picture: its name in TensorBoard, and its file.
NAMES = {
    'prior': 'prior_samples',
    'reconstruct': 'reconstructions',
    'interpolate': 'interpolations',
    'traverse': 'traversals',
    'manifold': 'latent_manifold',
}
NEW_IMAGES = 'new_images.png'
_BATCH = 1000


def decode(latents: np.ndarray, checkpoint_path: str, params: HParams) -> np.ndarray:
    """Decodes latents with the weights of a checkpoint.

    Args:
      latents: float32 `[n, latent_size]`.

    Returns:
      The pixels' means, float32 `[n, rows, columns, channels]` in [0, 1]; of a series standardised
      readings' means.
    """
    build = functools.partial(vae.expected_images, params=params)
    return _in_batches(build, [latents], checkpoint_path, params)


def draw_from_prior(
    count: int, seed: int, checkpoint_path: str, params: HParams, as_levels: bool = False
) -> np.ndarray:
    """Decodes `count` draws from the prior; returns as `decode` does, or `pictures.levels`."""

    def build(noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        images = vae.expected_images(vae.prior(params).sample(noise, choice), params)
        return pictures.levels(images, params) if as_levels else images

    noise = pictures.prior_noise(count, seed, params)
    return _in_batches(build, list(noise), checkpoint_path, params)


def _in_batches(
    build: Callable[..., tf.Tensor],
    arrays: List[np.ndarray],
    checkpoint_path: str,
    params: HParams,
) -> np.ndarray:
    """Returns the images that `build` makes of float32 `arrays`, all `[n, ...]`."""
    with tf.Graph().as_default():
        fed = [tf.placeholder(tf.float32, [None, *array.shape[1:]]) for array in arrays]
        images = build(*fed)
        with tf.Session() as session:
            weights.restore(session, checkpoint_path)
            batch = memory.images_at_once(params, _BATCH)
            starts = range(0, len(arrays[0]), batch)
            feeds = [{x: a[i : i + batch] for x, a in zip(fed, arrays)} for i in starts]
            decoded = [session.run(images, feed) for feed in feeds]
    return np.concatenate(decoded)


def write_new_images(
    path: str,
    count: int,
    seed: int,
    checkpoint_path: str,
    params: HParams,
    write: Write = files.write_bytes,
) -> str:
    """Draws `count` images from the prior into one PNG grid; returns its path."""
    images = draw_from_prior(count, seed, checkpoint_path, params, as_levels=True)
    with tf.Graph().as_default(), tf.Session() as session:
        placeholder = tf.placeholder(tf.uint8, (None,) + pictures.tile_shape(params))
        png = pictures.png(Picture(placeholder, pictures.square_columns(count)), params)
        return write(path, session.run(png, {placeholder: images}))


def write_pictures(
    paths: Dict[str, str],
    images: np.ndarray,
    checkpoint_path: str,
    params: HParams,
    write: Write = files.write_bytes,
) -> None:
    """Writes pictures made of the posteriors of images as PNG.

    Args:
      paths: the file of each picture, by its name in `pictures.of_validation`.
      images: float32 `[n, rows, features]`, as the model sees them.
    """
    with tf.Graph().as_default():
        placeholder = tf.placeholder(tf.float32, [None, params.rows, params.row_features])
        mean = vae.encode(placeholder, params).point()
        decode_tensor = functools.partial(vae.images_of_pictures, params=params)
        of_name = pictures.of_validation(placeholder, mean, decode_tensor, params)
        pngs = {name: pictures.png(of_name[name], params) for name in paths}
        with tf.Session() as session:
            weights.restore(session, checkpoint_path)
            contents = session.run(pngs, {placeholder: images})
    for name, path in paths.items():
        write(path, contents[name])


def validation_images(data: PreparedDataset, params: HParams) -> np.ndarray:
    """Returns the first validation images, a thousand or less, as the model sees them."""
    count = memory.images_at_once(params, _BATCH)
    return inputs.first_images(data, 'validation', count, params.binarization)
