"""Keeps NaN and infinity out of the weights and the checkpoints, and says where they came from.

A step is looked at in the graph, by its loss and the norm of its gradients, before its update; the
weights are before each checkpoint. (Estimator's NanTensorHook sees a NaN of the loss alone, and
only after the update.) Finite weights and gradients of a finite norm leave finite weights, within
the ranges of `learning_rate` and `max_gradient_norm`; so what the parameter servers of a cluster
hold is finite too, whoever updates it while it is saved.
"""

import re
from typing import Dict, List, Optional, Sequence

import numpy as np
import tensorflow as tf

from trainer import checkpoints
from trainer.elbo import ElboTerms
from trainer.errors import UserError
from trainer.hparams import HParams

_MARK = 'not_finite'
_NAMES_SHOWN = 3


def checked_norm(
    gradients: Sequence[Optional[tf.Tensor]], images: tf.Tensor, terms: ElboTerms
) -> tf.Tensor:
    """Returns the global norm of the gradients; computing it fails where it or the loss is not
    finite, so that no update is made of them.

    What was wrong is only looked for then: a step that is right computes two scalars more.

    Args:
      gradients: one for each of `tf.trainable_variables()`.
      images: of the batch.
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


def _fail(norm: tf.Tensor, images: tf.Tensor, terms: ElboTerms) -> tf.Operation:
    """An assertion that fails with a list of names and numbers, which `explain` reads."""
    variables = tf.trainable_variables()
    with tf.device(variables[0].device):
        bad_weights = tf.add_n(_count_not_finite(variables))
    is_finite = tf.is_finite(images)
    pixels = tf.boolean_mask(images, is_finite)
    found = {name: tf.reduce_mean(values) for name, values in terms._asdict().items()}
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
    return tf.raw_ops.Assert(
        condition=False, data=[_MARK] + [part for pair in found.items() for part in pair]
    )


def _count_not_finite(variables: Sequence[tf.Variable]) -> List[tf.Tensor]:
    """The number of values that are not finite in each variable, int32 scalars."""
    counts = []
    for variable in variables:
        with tf.device(variable.device):  # A parameter server then sends a number, not the weights.
            bad = tf.logical_not(tf.is_finite(variable))
            counts.append(tf.reduce_sum(tf.cast(bad, tf.int32)))
    return counts


def explain(error: tf.errors.OpError, params: HParams) -> None:
    """Raises the failure of `checked_norm` as a UserError; does nothing with other errors."""
    _, mark, rest = error.message.partition('[{}]'.format(_MARK))
    if not mark:
        return
    pairs = re.findall(r'\[(\w+)\] \[([^\]]+)\]', rest)
    found = {name: float(number) for name, number in pairs}
    raise UserError(
        'step {step:,.0f} was stopped before it changed the weights: {cause} (negative ELBO '
        '{negative_elbo:.6g} = reconstruction loss {reconstruction_loss:.6g} + KL divergence '
        '{kl_divergence:.6g} nats; norm of the gradients {gradient_norm:.3g}; finite pixels from '
        '{minimum:.3g} to {maximum:.3g}, mean {mean:.3g}); {way_on}.'.format(
            cause=_cause(found), way_on=_way_on(params, found['bad_pixels'] > 0), **found
        )
    ) from error


def _cause(found: Dict[str, float]) -> str:
    """The first thing that went wrong; all that is computed from it is not finite either."""
    if found['bad_pixels']:
        return '{bad_pixels:,.0f} of the {pixels:,.0f} pixels of its batch are not finite'.format(
            **found
        )
    if found['bad_weights']:
        return '{bad_weights:,.0f} of the weights are not finite any more'.format(**found)
    if not np.isfinite(found['negative_elbo']):
        return 'the loss is not finite'
    return 'the gradients are not finite'


def _way_on(params: HParams, images_are_bad: bool = False) -> str:
    path = last_good_checkpoint(params.model_dir)
    if images_are_bad:
        remedy = 'once the images of --dataset={} are mended'.format(params.dataset)
    else:
        remedy = 'with a lower --learning_rate (now {:g}) or --max_gradient_norm (now {:g})'.format(
            params.learning_rate, params.max_gradient_norm
        )
    if path is None:
        return 'there is no checkpoint to go on from: start again, {}'.format(remedy)
    return 'the last good checkpoint is {}: the same command goes on from it, best {}'.format(
        path, remedy
    )


class FiniteWeightsListener(tf.train.CheckpointSaverListener):
    """Lets no checkpoint be written of weights, or optimizer's moments, that are not finite."""

    def __init__(self, params: HParams):
        self._params = params

    def begin(self) -> None:
        variables = [v for v in tf.global_variables() if v.dtype.base_dtype.is_floating]
        self._names = [variable.op.name for variable in variables]
        with tf.name_scope('optimizer/finite/'):
            self._counts = _count_not_finite(variables)

    def before_save(self, session: tf.Session, global_step_value: int) -> None:
        counts = session.run(self._counts)
        names = [name for name, count in zip(self._names, counts) if count]
        if names:
            raise UserError(
                'after step {:,} the weights are not finite any more ({}), so no checkpoint of '
                'them was written; {}.'.format(
                    global_step_value, _some(names), _way_on(self._params)
                )
            )


def _some(names: List[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ', '.join(names[:_NAMES_SHOWN]) + (' and {} more'.format(more) if more > 0 else '')


def check_last_checkpoint(model_dir: str) -> None:
    """Refuses to go on from weights that are not finite, from whatever they became so.

    The next start then takes the checkpoint before them; no file is removed.

    Raises:
      UserError: names the checkpoint, and the one that the next start takes.
    """
    path = checkpoints.latest(model_dir)
    names = _not_finite_in(path) if path else []
    if not names:
        return
    good = last_good_checkpoint(model_dir)
    if good is None:
        way_on = 'no good checkpoint is left in --model_dir={}: start again in another'.format(
            model_dir
        )
    else:
        checkpoints.make_latest(good, model_dir)
        way_on = 'the last good checkpoint is {}: the same command goes on from it'.format(good)
    raise UserError(
        '{} holds weights that are not finite ({}); {}.'.format(path, _some(names), way_on)
    )


def last_good_checkpoint(model_dir: str) -> Optional[str]:
    """Returns the prefix of the newest checkpoint whose weights are finite; None without one."""
    for path in reversed(checkpoints.listed(model_dir)):
        try:
            if not _not_finite_in(path):
                return path
        except (tf.errors.OpError, ValueError):
            continue  # Gone, or unreadable.
    return None


def _not_finite_in(checkpoint_path: str) -> List[str]:
    """Names of the variables in a checkpoint that hold a value which is not finite."""
    reader = tf.train.load_checkpoint(checkpoint_path)
    types = reader.get_variable_to_dtype_map()
    floats = sorted(name for name, dtype in types.items() if dtype.is_floating)
    return [name for name in floats if not np.isfinite(reader.get_tensor(name)).all()]
