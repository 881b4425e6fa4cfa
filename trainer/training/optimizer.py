"""The learning rate over a run, and the training step."""

from typing import NamedTuple, Optional, Sequence

import tensorflow as tf

from trainer.settings.table import HParams

# Share of max_steps over which the learning rate falls.
_COOLDOWN = 0.3


class TrainingStep(NamedTuple):
    """The op that trains, and the two scalars that tell how."""

    train_op: tf.Operation
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor


def learning_rate(global_step: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the rate of a step: a linear warm-up, a plateau, then a line down to 0.

    The constant rate with cooldown of Haegele et al. 2024 (arXiv:2405.18392), section 3.

    Args:
      global_step: int64 scalar, 0 at the first step.
    """
    step = tf.cast(global_step, tf.float32)
    left = tf.maximum(1.0 - step / params.max_steps, 0.0)
    warmup = tf.minimum((step + 1.0) / max(params.warmup_steps, 1), 1.0)
    return params.learning_rate * warmup * tf.minimum(left / _COOLDOWN, 1.0)


def schedule_text(params: HParams) -> str:
    """Says what `learning_rate` does over a run."""
    falls_at = round((1.0 - _COOLDOWN) * params.max_steps)
    fall = 'then falling to 0 at step {:,}'.format(params.max_steps)
    if params.warmup_steps <= falls_at:
        return (
            f'learning rate {params.learning_rate:g} after {params.warmup_steps:,} steps, '
            f'constant to step {falls_at:,}, {fall}'
        )
    peak = params.learning_rate * min((falls_at + 1) / params.warmup_steps, 1.0)
    return (
        f'learning rate rising to {peak:g} at step {falls_at:,} (to {params.learning_rate:g} it '
        f'takes {params.warmup_steps:,} steps), {fall}'
    )


def training_step(
    gradients: Sequence[tf.Tensor], params: HParams, norm: Optional[tf.Tensor] = None
) -> TrainingStep:
    """Clips `gradients` by their global norm (Pascanu et al. 2013, algorithm 1), applies Adam.

    Args:
      gradients: one for each of `tf.trainable_variables()`.
      norm: their global norm where it is known; no update is made where computing it fails.
    """
    with tf.variable_scope('optimizer'):
        global_step = tf.train.get_or_create_global_step()
        rate = learning_rate(global_step, params)
        clipped, norm = tf.clip_by_global_norm(gradients, params.max_gradient_norm, norm)
        adam = tf.train.AdamOptimizer(rate)
        train_op = adam.apply_gradients(zip(clipped, tf.trainable_variables()), global_step)
        return TrainingStep(train_op, rate, norm)
