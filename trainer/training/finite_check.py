"""Keeps NaN and infinity out of the weights and the checkpoints.

A step is looked at in the graph, by its loss and the norm of its gradients, before its update; the
weights, before each checkpoint (`hooks.FiniteWeightsListener`). Estimator's NanTensorHook sees a
NaN of the loss alone, after the update. Finite weights and gradients of a finite norm leave finite
weights, within the ranges of `learning_rate` and `max_gradient_norm`; so what the parameter servers
of a cluster hold is finite too, whoever updates it while it is saved.
"""

import re
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import tensorflow as tf

from trainer.base.errors import UserError
from trainer.model.objectives import Terms
from trainer.settings.wording import LOSSES

_MARK = 'not_finite'


def checked_norm(
    gradients: Sequence[Optional[tf.Tensor]], images: tf.Tensor, terms: Terms
) -> tf.Tensor:
    """Returns the global norm of the gradients; computing it fails where it or the loss is not
    finite, so that no update is made of them.

    What was wrong is only looked for then: a step that is right computes two scalars more.

    Args:
      gradients: one for each of `tf.trainable_variables()`.
      terms: each `[batch]`.

    Raises (when run):
      tf.errors.InvalidArgumentError: `explain` turns it into a sentence.
    """
    with tf.name_scope('optimizer/finite/'):
        norm = tf.global_norm(gradients)
        finite = tf.is_finite(norm) & tf.is_finite(tf.reduce_mean(terms.negative_elbo))
        check = tf.cond(finite, tf.no_op, lambda: _fail(norm, images, terms))
        with tf.control_dependencies([check]):
            return tf.identity(norm)


def _fail(norm: tf.Tensor, images: tf.Tensor, terms: Terms) -> tf.Operation:
    """An assertion that fails with a list of names and numbers, which `explain` reads."""
    variables = tf.trainable_variables()
    with tf.device(variables[0].device):
        bad_weights = tf.add_n(count_not_finite(variables))
    is_finite = tf.is_finite(images)
    pixels = tf.boolean_mask(images, is_finite)
    found = {name: tf.reduce_mean(getattr(terms, name)) for name in LOSSES}
    found.update(
        step=tf.train.get_or_create_global_step() + 1,
        gradient_norm=norm,
        minimum=tf.reduce_min(pixels),
        maximum=tf.reduce_max(pixels),
        mean=tf.reduce_mean(pixels),
        pixels=tf.size(images),
        bad_pixels=tf.size(images) - tf.size(pixels),
        bad_weights=bad_weights,
    )
    data = [_MARK] + [part for pair in found.items() for part in pair]
    return tf.raw_ops.Assert(condition=False, data=data)


def count_not_finite(variables: Sequence[tf.Variable]) -> List[tf.Tensor]:
    """The number of values that are not finite in each variable, int32 scalars."""
    counts = []
    for variable in variables:
        with tf.device(variable.device):  # A parameter server then sends a number, not the weights.
            bad = tf.logical_not(tf.is_finite(variable))
            counts.append(tf.reduce_sum(tf.cast(bad, tf.int32)))
    return counts


def explain(
    error: tf.errors.OpError, way_on: Callable[[bool], str], values: str = 'pixels'
) -> None:
    """Raises the failure of `checked_norm` as a UserError; does nothing with other errors.

    Args:
      way_on: says how to go on, told whether the images are bad.
      values: what these consist of.
    """
    _, mark, rest = error.message.partition('[{}]'.format(_MARK))
    if not mark:
        return
    pairs = re.findall(r'\[(\w+)\] \[([^\]]+)\]', rest)
    found = {name: float(number) for name, number in pairs}
    raise UserError(
        'step {step:,.0f} was stopped before it changed the weights: {cause} (negative ELBO '
        '{negative_elbo:.6g} = reconstruction loss {reconstruction_loss:.6g} + KL divergence '
        '{kl_divergence:.6g} nats; norm of the gradients {gradient_norm:.3g}; finite {values} from '
        '{minimum:.3g} to {maximum:.3g}, mean {mean:.3g}); {way_on}.'.format(
            cause=_cause(found, values),
            way_on=way_on(found['bad_pixels'] > 0),
            values=values,
            **found,
        )
    ) from error


def _cause(found: Dict[str, float], values: str) -> str:
    """The first thing that went wrong; all that is computed from it is not finite either."""
    if found['bad_pixels']:
        text = '{bad_pixels:,.0f} of the {pixels:,.0f} {values} of its batch are not finite'
        return text.format(values=values, **found)
    if found['bad_weights']:
        return '{bad_weights:,.0f} of the weights are not finite any more'.format(**found)
    if not np.isfinite(found['negative_elbo']):
        return 'the loss is not finite'
    return 'the gradients are not finite'
