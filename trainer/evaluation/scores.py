"""Scores of images, all in nats an image, higher is stranger."""

import functools
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf

from trainer.checkpoints import weights
from trainer.data.dataset import ImageSet
from trainer.evaluation.importance_sampling import Model
from trainer.model import vae
from trainer.settings import memory
from trainer.settings.table import HParams
from trainer.settings.wording import LOSSES

BOUND = 'negative_importance_weighted_bound'
# All scores, in the order of tables.
NAMES = (*LOSSES, BOUND, 'complexity_corrected', 'likelihood_ratio')


class Checkpoint(NamedTuple):
    """The weights of a model, and its settings."""

    path: str
    params: HParams


def model_of(checkpoint_path: str, params: HParams) -> Model:
    """Returns the model of a run with the weights of a checkpoint."""

    return Model(
        functools.partial(vae.encode, params=params),
        functools.partial(vae.decode, params=params),
        functools.partial(vae.prior, params),
        functools.partial(weights.restore, checkpoint_path=checkpoint_path),
    )


class Scorer:
    """The scores of images by one model, and by a background model where there is one.

    * `negative_elbo`, `reconstruction_loss`, `kl_divergence`: `vae.predictions`.
    * `complexity_corrected`: the negative ELBO minus L(x), the length of the image as a PNG file, 8
      bits a pixel, in nats (bits times ln 2). Simple images have a high likelihood whatever they
      show: Serra et al. 2020 (arXiv:1909.11480), section 3, where L is the best of several coders.
    * `likelihood_ratio`: the negative ELBO minus that of the background model, which was trained on
      images whose pixels are replaced at random, so that what both models know, such as how much of
      an image is black, cancels out: Ren et al. 2019 (arXiv:1906.02845), section 3.

    Args:
      background: of the same shape of images, binarised or not, and the same likelihood.
    """

    def __init__(self, model: Checkpoint, background: Optional[Checkpoint] = None):
        self._batch, self._main = memory.evaluation_batch(model.params), _Graph(model)
        self._background = None if background is None else _Graph(background)

    def scored(self, images: ImageSet) -> Iterator[Dict[str, np.ndarray]]:
        """Yields the scores by name, float64 `[k]`, of some images at a time, in their order."""
        for block in images.blocks(self._batch):
            scores = self._main.scores(block)
            scores['complexity_corrected'] = scores['negative_elbo'] - scores.pop('png_nats')
            if self._background is not None:
                background = self._background.scores(block)
                ratio = scores['negative_elbo'] - background['negative_elbo']
                scores['likelihood_ratio'] = ratio
            yield scores


class _Graph:
    """One model in a graph and a session of its own."""

    def __init__(self, checkpoint: Checkpoint):
        params = checkpoint.params
        with tf.Graph().as_default():
            self._images = tf.placeholder(tf.float32, [None, params.rows, params.row_features])
            values = vae.predictions(self._images, vae.prior(params), params)
            self._values = {name: values[name] for name in LOSSES}
            self._values['png_nats'] = _png_nats(self._images, params.image_shape)
            self._session = tf.Session()
            weights.restore(self._session, checkpoint.path)

    def scores(self, images: np.ndarray) -> Dict[str, np.ndarray]:
        found = self._session.run(self._values, {self._images: images})
        return {name: values.astype(np.float64) for name, values in found.items()}


def _png_nats(images: tf.Tensor, image_shape: Tuple[int, int, int]) -> tf.Tensor:
    """The lengths of images as PNG files in nats, float32 `[n]`, of floats in [0, 1]."""
    levels = tf.cast(tf.round(255.0 * images), tf.uint8)

    def num_bytes(image: tf.Tensor) -> tf.Tensor:
        return tf.strings.length(tf.image.encode_png(image))

    found = tf.map_fn(num_bytes, tf.reshape(levels, [-1, *image_shape]), tf.int32)
    return tf.cast(found, tf.float32) * (8.0 * np.log(2.0))
