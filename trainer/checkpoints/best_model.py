"""The best model on the validation images so far: `export/best/best.json`, read and written."""

import os
from typing import Any, Dict, List, Optional

import tensorflow as tf

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import weights
from trainer.settings.table import HParams

EXPORT_NAME = 'best'  # Of its folder below `export`.
_STATE_FILE = 'best.json'
# What the state holds once there is a best model, and before.
_BEST: Dict[str, Any] = {'global_step': int, 'checkpoint': str, 'export': str}
# Its value, by the name of the metric that it goes by.
_VALUES = ('negative_elbo', 'negative_importance_weighted_bound')
# The best of those that early stopping counts, where a schedule of beta leaves some out.
COUNTED_BEST = 'best_with_whole_beta'
_EVALUATIONS: Dict[str, Any] = {'evaluated_step': int, 'evaluations_since_best': int}


def selection_metric(params: HParams) -> str:
    """Names the metric whose least validation value makes the best model: what training minimises.

    `negative_elbo`, or `negative_importance_weighted_bound` of `training_samples` samples.
    """
    if params.objective == 'elbo':
        return 'negative_elbo'
    return 'negative_importance_weighted_bound'


def reported_metrics(params: HParams) -> List[str]:
    """Names the metrics that results and tables show, in order."""
    names = ['negative_elbo', 'reconstruction_loss', 'kl_divergence']
    return names if selection_metric(params) in names else names + [selection_metric(params)]


def evaluated_step(state: Dict[str, Any]) -> int:
    """Step of the last checkpoint that was evaluated; -1 for none."""
    # Without the first where an older version of this trainer wrote it.
    return state.get('evaluated_step', state.get('global_step', -1))


def state_path(model_dir: str) -> str:
    return os.path.join(model_dir, 'export', EXPORT_NAME, _STATE_FILE)


def read_state(model_dir: str) -> Dict[str, Any]:
    """Returns what is known of the evaluations of a run, empty before the first.

    `evaluated_step` is the global step of the last, and `evaluations_since_best` counts those no
    better than the best before them; `stopped_step` is of a run that ended for that. The best model
    is what `read_best` returns.

    Raises:
      UserError: the file is damaged.
    """
    path = state_path(model_dir)
    state = files.read_json(path)
    if state is None:
        return {}
    if not isinstance(state, dict) or not _is_state(state):
        raise UserError('{} does not hold the state of the best export: move it away.'.format(path))
    return state


def _is_state(state: Dict[str, Any]) -> bool:
    required = _BEST if 'checkpoint' in state else _EVALUATIONS
    # An older version of this trainer wrote a best model without the evaluations since.
    known = {**_EVALUATIONS, 'stopped_step': int, COUNTED_BEST: dict, **_BEST}
    values = [state[name] for name in _VALUES if name in state]
    if 'checkpoint' in state and not any(isinstance(value, (int, float)) for value in values):
        return False
    held = [name for name in known if name in required or name in state]
    if not all(isinstance(state.get(name), known[name]) for name in held):
        return False
    counted = state.get(COUNTED_BEST, {}).values()
    return all(isinstance(number, (int, float)) for number in counted)


def write_state(model_dir: str, state: Dict[str, Any]) -> None:
    """Replaces what `read_state` returns."""
    files.write_json(state_path(model_dir), state)


def repair_state(params: HParams) -> None:
    """Sets a state aside that cannot be used, and says so: the next evaluation is the best then.

    The exports and the checkpoint that it named stay.
    """
    path, suffix = state_path(params.model_dir), 'damaged'
    try:
        best, metric = read_best(params.model_dir), selection_metric(params)
        if best is None:
            return
        checkpoint = os.path.join(best['folder'], best['checkpoint'])
        reason = weights.damage(checkpoint)
        if reason:
            wrong = f'{checkpoint} is damaged ({reason})'
        elif metric not in best:  # An older version of this trainer chose it.
            wrong, suffix = f'{path} goes by another metric than {metric}, which ', 'old'
            wrong += f'--objective={params.objective} minimises'
        else:
            return
    except UserError:
        wrong = f'{path} is damaged'
    tf.gfile.Rename(path, f'{path}.{suffix}', overwrite=True)
    say(
        f'{wrong}: {_STATE_FILE} is set aside as {_STATE_FILE}.{suffix}, and the next evaluation '
        'counts as the best.'
    )


def read_best(model_dir: str) -> Optional[Dict[str, Any]]:
    """Returns what is known of the best model, or None.

    Its value on validation, in nats, is under the name of `selection_metric`; beside it
    stand `global_step`, and the names of its `checkpoint` and `export` within `folder`.
    """
    folder, state = os.path.dirname(state_path(model_dir)), read_state(model_dir)
    if 'checkpoint' not in state:
        return None
    if not tf.train.checkpoint_exists(os.path.join(folder, state['checkpoint'])):
        return None
    return dict(state, folder=folder)


def counted_best(model_dir: str) -> Optional[Dict[str, Any]]:
    """Returns value and `global_step` of the evaluation that early stopping counts from, or None.

    It is the best model's, but for those during which a schedule held beta back.
    """
    state = read_state(model_dir)
    if COUNTED_BEST in state:
        return state[COUNTED_BEST] or None
    return read_best(model_dir)


def forget_best(model_dir: str) -> None:
    """Removes what an earlier run in `model_dir` left: it is not this one's best."""
    if tf.gfile.Exists(state_path(model_dir)):
        tf.gfile.Remove(state_path(model_dir))
