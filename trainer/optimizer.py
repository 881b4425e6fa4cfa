"""Gradients over several threads, and the training step they feed."""

from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from trainer.hparams import HParams

# Share of max_steps over which the learning rate falls.
_COOLDOWN = 0.3


class TrainingStep(NamedTuple):
    """The op that trains, and the two scalars that tell how."""

    train_op: tf.Operation
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor


def in_towers(
    forward: Callable[..., Any],
    loss: Callable[[Any, Any], tf.Tensor],
    tensors: Sequence[tf.Tensor],
    shared: Sequence[tf.Tensor],
    towers: int,
) -> Tuple[Any, List[tf.Tensor]]:
    """Computes a loss and its gradients, the batch cut into parts of their own.

    The parts share their weights and next to nothing else, so that each keeps a core busy: TF 1.14
    gains little from several threads within the small products of an LSTM.

    Args:
      forward: builds, of its part of every tensor and of `shared`, a structure of tensors
        `[part, ...]`.
      loss: builds the loss of each example, `[part]`, from such a structure of a part and the one
        of the whole batch.
      tensors: all `[batch, ...]`, with one static batch size.
      shared: tensors that `forward` gets whole. They are made, and differentiated, once.
      towers: number of parts, at most the batch size.

    Returns:
      The structure of the whole batch, in its order, and the gradients of the batch mean of the
      loss for `tf.trainable_variables()`: the same as in one piece, but for rounding.
    """
    batch_size = tensors[0].shape.as_list()[0]
    with tf.name_scope('towers/'):
        # Copies, so that a shared variable is reached by way of `shared` alone.
        shared = [tf.identity(tensor) for tensor in shared]
    scopes, parts, whole = _forward(lambda *part: forward(*part, shared), tensors, towers)
    variables, gradients = tf.trainable_variables(), []
    for scope, part in zip(scopes, parts):
        with tf.name_scope(scope):
            share_of_mean = tf.reduce_sum(loss(part, whole)) / batch_size
            targets = variables + list(shared)
            gradients.append(tf.gradients(share_of_mean, targets, stop_gradients=shared))
    with tf.name_scope('towers/'):
        sums = [_sum(same_target) for same_target in zip(*gradients)]
        of_variables, of_shared = sums[: len(variables)], sums[len(variables) :]
        if shared:
            through_shared = tf.gradients(shared, variables, grad_ys=of_shared)
            of_variables = [_sum(both) for both in zip(of_variables, through_shared)]
    return whole, of_variables


def forward_in_towers(
    forward: Callable[..., Any], tensors: Sequence[tf.Tensor], towers: int
) -> Any:
    """Computes the structure of the whole batch alone, with arguments as of `in_towers`.

    Here the batch size may be unknown.
    """
    return _forward(forward, tensors, towers)[2]


def _forward(
    forward: Callable[..., Any], tensors: Sequence[tf.Tensor], towers: int
) -> Tuple[List[str], List[Any], Any]:
    """The scope and the structure of each tower, and the structure of the whole batch."""
    batch_size = tensors[0].shape.as_list()[0]
    if batch_size is None:
        batch_size = tf.shape(tensors[0])[0]
    with tf.name_scope('towers/'):
        # So that they differ by one at most.
        ends = [batch_size * number // towers for number in range(towers + 1)]
        split = [[tensor[start:end] for tensor in tensors] for start, end in zip(ends, ends[1:])]
    scopes, parts = [], []
    for number, part in enumerate(split):
        with tf.name_scope('tower_{}'.format(number)) as scope:
            scopes.append(scope)
            parts.append(forward(*part))
    with tf.name_scope('towers/'):
        whole = tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *parts)
    return scopes, parts, whole


def _sum(gradients: Iterable[Optional[tf.Tensor]]) -> Optional[tf.Tensor]:
    """Adds those that exist; None where there are none."""
    existing = [gradient for gradient in gradients if gradient is not None]
    return tf.add_n(existing) if existing else None


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
        return 'learning rate {:g} after {:,} steps, constant to step {:,}, {}'.format(
            params.learning_rate, params.warmup_steps, falls_at, fall
        )
    peak = params.learning_rate * min((falls_at + 1) / params.warmup_steps, 1.0)
    return 'learning rate rising to {:g} at step {:,} (to {:g} it takes {:,} steps), {}'.format(
        peak, falls_at, params.learning_rate, params.warmup_steps, fall
    )


def training_step(
    gradients: Sequence[tf.Tensor], params: HParams, norm: Optional[tf.Tensor] = None
) -> TrainingStep:
    """Clips `gradients` by their global norm (Pascanu et al. 2013, algorithm 1), applies Adam.

    Args:
      gradients: one for each of `tf.trainable_variables()`.
      norm: their global norm where it is known already. No update is made where computing it fails.
    """
    with tf.variable_scope('optimizer'):
        global_step = tf.train.get_or_create_global_step()
        rate = learning_rate(global_step, params)
        clipped, norm = tf.clip_by_global_norm(gradients, params.max_gradient_norm, norm)
        train_op = tf.train.AdamOptimizer(rate).apply_gradients(
            zip(clipped, tf.trainable_variables()), global_step=global_step
        )
        return TrainingStep(train_op, rate, norm)
