"""Pictures for the eye: grids of images as PNG, and the curves of training."""

import io
import logging
import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from trainer import files

_CURVES = {'negative_elbo': 'Negative ELBO', 'kl_divergence': 'KL divergence'}


class Curve(NamedTuple):
    """One quantity over training: its value, in nats per example, at each global step."""

    steps: List[int]
    values: List[float]


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lays images out row by row.

    Args:
      images: float `[n, rows, columns, channels]` in [0, 1].
      columns: images in a row of the grid; an incomplete last row is filled up with black.

    Returns:
      uint8 `[grid_rows * rows, columns * columns_of_an_image, channels]`.
    """
    count, height, width, channels = images.shape
    grid_rows = -(-count // columns)
    tiles = np.zeros([grid_rows * columns, height, width, channels])
    tiles[:count] = images
    tiles = tiles.reshape([grid_rows, columns, height, width, channels]).transpose([0, 2, 1, 3, 4])
    grid = tiles.reshape([grid_rows * height, columns * width, channels])
    return np.rint(np.clip(grid, 0.0, 1.0) * 255.0).astype(np.uint8)


def write_grid(path: str, images: np.ndarray, columns: int) -> str:
    """Writes `image_grid(images, columns)` as PNG with TF's own encoder; returns `path`."""
    return files.write_bytes(path, encode_png(image_grid(images, columns)[np.newaxis])[0])


def encode_png(images: np.ndarray) -> List[bytes]:
    """Encodes uint8 `[n, rows, columns, channels]`, each as a PNG file, with TF's own encoder."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run([tf.image.encode_png(tf.constant(image)) for image in images])


def beside_each_other(images: np.ndarray, reconstructions: np.ndarray, columns: int) -> np.ndarray:
    """Orders pairs for a grid: a row of images, below it the row of their reconstructions.

    Args:
      images: `[n, rows, columns, channels]`, n a multiple of `columns`.
      reconstructions: of the same shape.

    Returns:
      `[2 * n, rows, columns, channels]`.
    """
    shape = images.shape[1:]
    pairs = np.stack([x.reshape((-1, columns) + shape) for x in (images, reconstructions)], axis=1)
    return pairs.reshape((-1,) + shape)


def manifold_latents(side: int) -> np.ndarray:
    """Returns `[side * side, 2]` latents on a grid of equal probability under the prior.

    The centres of `side` equal shares of N(0, 1) along each axis, as in figure 4 of Kingma &
    Welling 2014; the first latent grows to the right, the second upwards.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        shares = (np.arange(side, dtype=np.float32) + 0.5) / side
        quantiles = session.run(tf.distributions.Normal(0.0, 1.0).quantile(shares))
    right, up = np.meshgrid(quantiles, quantiles[::-1])
    return np.stack([right.ravel(), up.ravel()], axis=1)


def read_curves(folder: str, tags: Sequence[str]) -> Dict[str, Curve]:
    """Reads scalars from the event files in `folder`; what cannot be read is left out.

    A step seen twice, because a run was resumed from before it, has its later value.
    """
    points: Dict[str, Dict[int, Tuple[float, float]]] = {tag: {} for tag in tags}
    names = tf.gfile.ListDirectory(folder) if tf.gfile.IsDirectory(folder) else []
    for name in sorted(name for name in names if name.startswith('events.out.tfevents.')):
        path = os.path.join(folder, name)
        try:
            for event in tf.train.summary_iterator(path):
                for value in event.summary.value:
                    if value.tag in points:
                        _keep_later(points[value.tag], event, value.simple_value)
        except tf.errors.DataLossError:
            continue  # The half-written end of a killed run's file.
    return {
        tag: Curve(sorted(by_step), [by_step[step][1] for step in sorted(by_step)])
        for tag, by_step in points.items()
    }


def _keep_later(by_step: Dict[int, Tuple[float, float]], event: tf.Event, value: float) -> None:
    if event.wall_time >= by_step.get(event.step, (0.0, 0.0))[0]:
        by_step[event.step] = (event.wall_time, value)


def write_training_curves(path: str, model_dir: str) -> Optional[str]:
    """Draws the negative ELBO and the KL divergence over steps, for train and validation.

    Returns:
      `path`, or None where matplotlib is not installed.
    """
    try:
        # Its first start in a home folder tells of the font list that it makes.
        logging.getLogger('matplotlib').setLevel(logging.WARNING)
        import matplotlib

        matplotlib.use('Agg')
        import matplotlib.pyplot as plt
    except ImportError:
        return None

    train = read_curves(model_dir, list(_CURVES))
    validation = read_curves(os.path.join(model_dir, 'eval_validation'), list(_CURVES))
    figure, axes = plt.subplots(1, len(_CURVES), figsize=(10, 4))
    for axis, (tag, title) in zip(axes, _CURVES.items()):
        axis.plot(*train[tag], alpha=0.7, label='train (a batch)')
        axis.plot(*validation[tag], marker='o', linewidth=2, label='validation')
        axis.set(title=title, xlabel='global step', ylabel='nats per example')
        axis.grid(alpha=0.3)
        axis.legend()
    losses = train['negative_elbo'].values + validation['negative_elbo'].values
    if losses:
        # The first losses, of hundreds of nats, would squeeze all the rest into one line.
        low, high = np.percentile(losses, [0, 90])
        axes[0].set_ylim(low - 3.0, max(1.5 * high - 0.5 * low, low + 10.0))
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format='png')
    plt.close(figure)
    return files.write_bytes(path, content.getvalue())
