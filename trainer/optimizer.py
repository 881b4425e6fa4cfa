"""Gradients over several threads, and the training step they feed."""

import math
from typing import Callable, List, NamedTuple, Sequence, Tuple

import tensorflow as tf

from trainer.elbo import ElboTerms
from trainer.hparams import HParams


class TrainingStep(NamedTuple):
    """The op that trains, and the two scalars that tell how."""

    train_op: tf.Operation
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor


def in_towers(
    terms_fn: Callable[..., ElboTerms], tensors: Sequence[tf.Tensor], towers: int
) -> Tuple[ElboTerms, List[tf.Tensor]]:
    """Computes `terms_fn(*tensors)` and its gradients, the batch cut into parts of their own.

    The parts share their weights and depend on nothing else of each other, so that each keeps a
    core busy: TF 1.14 gains little from several threads within the small products of an LSTM.

    Args:
      terms_fn: builds the loss terms, each `[batch]`, of its part of every tensor.
      tensors: all `[batch, ...]`, with one static batch size.
      towers: number of parts, at most the batch size.

    Returns:
      The terms of the whole batch, in its order, and the gradients of the batch mean of
      `negative_elbo` for `tf.trainable_variables()`: the same as in one piece, but for rounding.
    """
    batch_size = tensors[0].shape.as_list()[0]
    sizes = [batch_size // towers + (part < batch_size % towers) for part in range(towers)]
    parts, gradients = [], []
    for number, part in enumerate(zip(*[tf.split(tensor, sizes) for tensor in tensors])):
        with tf.name_scope('tower_{}'.format(number)):
            terms = terms_fn(*part)
            share_of_mean = tf.reduce_sum(terms.negative_elbo) / batch_size
            gradients.append(tf.gradients(share_of_mean, tf.trainable_variables()))
            parts.append(terms)
    whole = ElboTerms(*[tf.concat(term, axis=0) for term in zip(*parts)])
    return whole, [tf.add_n(same_variable) for same_variable in zip(*gradients)]


def learning_rate(global_step: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns the rate of a step: a linear warm-up, then half a cosine to 0 at `max_steps`.

    Loshchilov & Hutter 2017 (arXiv:1608.03983), equation 5 with one period and a minimum of 0,
    times (step + 1) / warmup_steps while that is below 1.

    Args:
      global_step: int64 scalar, 0 at the first step.
    """
    step = tf.cast(global_step, tf.float32)
    cosine = 0.5 * (1.0 + tf.cos(math.pi * tf.minimum(step / params.max_steps, 1.0)))
    warmup = tf.minimum((step + 1.0) / max(params.warmup_steps, 1), 1.0)
    return params.learning_rate * warmup * cosine


def training_step(gradients: Sequence[tf.Tensor], params: HParams) -> TrainingStep:
    """Clips `gradients` by their global norm (Pascanu et al. 2013, algorithm 1), applies Adam.

    Args:
      gradients: one for each of `tf.trainable_variables()`.
    """
    with tf.variable_scope('optimizer'):
        global_step = tf.train.get_or_create_global_step()
        rate = learning_rate(global_step, params)
        clipped, norm = tf.clip_by_global_norm(gradients, params.max_gradient_norm)
        train_op = tf.train.AdamOptimizer(rate).apply_gradients(
            zip(clipped, tf.trainable_variables()), global_step=global_step
        )
        return TrainingStep(train_op, rate, norm)
