"""The weights of another run that `--init_from` lets a training start from."""

import dataclasses
import os
from typing import Any, Callable, List, Optional

import tensorflow as tf

from trainer.base import errors, files
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import listing, weights
from trainer.settings import storage, wording
from trainer.settings.table import PRIORS, HParams

# The settings that decide which weights there are, and their shapes; beside them the images' shape,
# a mixture's components and whether a scale of the pixels is learned.
_OF_SHAPES = (
    'latent_size',
    'lstm_units',
    'decoder_units',
    'decoder_channels',
    'decoder_activation',
    'prior',
)


def check(params: HParams) -> None:
    """Refuses an `init_from` whose weights are none for a model of `params`.

    Raises:
      UserError: it holds no checkpoint of a run, or one of other shapes; both values are named.
    """
    folder = params.init_from
    try:
        other = storage.load(folder, 'init_from')
        if other is None or listing.latest(folder) is None:
            missing = 'run' if other is None else 'checkpoint yet'
            raise storage.nothing_trained(folder, missing, 'init_from')
    except tf.errors.OpError as error:
        raise UserError(
            f'--init_from={folder} cannot be read ({errors.reason(error)}): {errors.remedy(error)}.'
        ) from error
    differences = _differences(params, other)
    if differences:
        raise UserError(
            f'--init_from={folder} holds a model of other shapes: {", ".join(differences)}; give '
            'the values of that run, or another --init_from.'
        )


def _differences(params: HParams, other: HParams) -> List[str]:
    names = list(_OF_SHAPES)
    if params.prior == other.prior and PRIORS[params.prior].has_components:
        names.append('prior_components')
    learned = [each.likelihood == 'normal' and not each.normal_scale for each in (params, other)]
    if learned[0] != learned[1]:
        is_normal = params.likelihood == other.likelihood
        names.append('normal_scale' if is_normal else 'likelihood')
    values = [(name, getattr(params, name), getattr(other, name)) for name in names]
    differences = [f'--{name}={new} (there {old})' for name, new, old in values if new != old]
    # Of a source only the preparation tells.
    is_known = params.source_digest or not params.source
    if is_known and params.image_shape != other.image_shape:
        new, old = (' x '.join(map(str, each.image_shape)) for each in (params, other))
        noun = wording.examples(params)
        differences.append(f'{noun} of {params.data_flag} are {new} (there {old})')
    return differences


def settle(params: HParams, recorded: Optional[HParams]) -> HParams:
    """Returns the settings with the checkpoint that training starts from, or has started from.

    Args:
      recorded: the settings of the run that goes on; None where training begins.

    Raises:
      UserError: `init_from` has no whole checkpoint of finite weights.
    """
    if recorded is not None:
        if params.init_from not in ('', recorded.init_from):
            say(
                f'--init_from={params.init_from} is ignored: {params.model_dir} goes on from its '
                'own checkpoint.'
            )
        names = ('init_from', 'init_checkpoint', 'init_digest')
        return dataclasses.replace(params, **{name: getattr(recorded, name) for name in names})
    if not params.init_from:
        return params
    for path in listing.newest_first(params.init_from):
        if not weights.damage(path) and not weights.not_finite_in(path):
            name, digest = os.path.basename(path), files.sha256(path + '.index')
            return dataclasses.replace(params, init_checkpoint=name, init_digest=digest)
    raise UserError(
        f'--init_from={params.init_from}: each of its checkpoints is damaged, or has weights that '
        'are not finite: give another run.'
    )


def warm_start(params: HParams) -> Optional[tf.estimator.WarmStartSettings]:
    """Returns what an Estimator starts from; None for a run with a checkpoint of its own.

    It is of the trained weights alone: the global step and the moments of Adam begin at 0.
    """
    if not params.init_checkpoint or listing.latest(params.model_dir) is not None:
        return None
    path = os.path.join(params.init_from, params.init_checkpoint)
    # As one text, a pattern for the names of trainable variables; a list would be of all.
    return tf.estimator.WarmStartSettings(path, vars_to_warm_start='.*')


def checked(
    model_fn: Callable[..., tf.estimator.EstimatorSpec], start: tf.estimator.WarmStartSettings
) -> Callable[..., tf.estimator.EstimatorSpec]:
    """Returns `model_fn`, refusing weights other than the settings beside them promise.

    TF 1.14 would end with a traceback. The returned function raises UserError.
    """

    def checked_model_fn(features: Any, labels: Any, mode: str, params: Any, config: Any) -> Any:
        spec = model_fn(features, labels, mode, params, config)
        weights.check_fits(start.ckpt_to_initialize_from, tf.trainable_variables())
        return spec

    return checked_model_fn
