"""What TensorBoard shows of a run."""

from typing import Any, Callable

import tensorflow as tf

from trainer.elbo import ElboTerms
from trainer.hparams import HParams
from trainer.optimizer import TrainingStep

_RECONSTRUCTIONS = 10
_GRID_SIDE = 8


def training(terms: ElboTerms, step: TrainingStep) -> None:
    """Adds the scalars of a training step; the loss terms are batch means in nats per example."""
    for name, term in terms._asdict().items():
        tf.summary.scalar(name, tf.reduce_mean(term))
    tf.summary.scalar('learning_rate', step.learning_rate)
    tf.summary.scalar('gradient_norm', step.gradient_norm)


def evaluation(
    images: tf.Tensor,
    reconstruction: Any,
    sample_prior: Callable[[tf.Tensor, tf.Tensor, HParams], Any],
    params: HParams,
) -> None:
    """Adds pictures: images beside their reconstructions, and draws from the prior in one grid.

    The noise behind the draws is the same at every evaluation, so one can watch the same pictures
    take shape.

    Args:
      images: float32 `[batch, rows, features]` in [0, 1].
      reconstruction: the likelihood of each image at its latents.
      sample_prior: decodes draws of the prior, made of noise `[count, latent_size]`.
    """
    rows, columns, channels = params.image_shape
    pairs = tf.concat(
        [tf.reshape(x, [-1, rows, columns, channels]) for x in (images, reconstruction.mean())],
        axis=2,
    )
    tf.summary.image('reconstructions', pairs, max_outputs=_RECONSTRUCTIONS)
    noise = tf.random.stateless_normal([_GRID_SIDE**2, params.latent_size], seed=[params.seed, 0])
    choice = tf.random.stateless_uniform([_GRID_SIDE**2], seed=[params.seed, 1])
    samples = sample_prior(noise, choice, params).mean()
    tiles = tf.reshape(samples, [_GRID_SIDE, _GRID_SIDE, rows, columns, channels])
    grid = tf.reshape(
        tf.transpose(tiles, [0, 2, 1, 3, 4]),
        [1, _GRID_SIDE * rows, _GRID_SIDE * columns, channels],
    )
    tf.summary.image('prior_samples', grid)


class FirstBatchSummaryHook(tf.train.SummarySaverHook):
    """Writes the summaries of an evaluation's first batch; EVAL writes none by itself (1.14)."""

    def __init__(self, output_dir: str):
        # An evaluation does not advance the global step, so this never triggers a second time.
        super().__init__(save_steps=10**9, output_dir=output_dir, summary_op=tf.no_op)

    def begin(self) -> None:
        self._summary_op = tf.summary.merge_all()
        super().begin()
