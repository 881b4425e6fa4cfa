"""The exporter of the best model on the validation images."""

import math
import os
from typing import Any, Callable, Dict, Optional

import tensorflow as tf

from trainer.base.console import say
from trainer.checkpoints import best_model, listing
from trainer.model import objectives
from trainer.monitoring.summaries import without_groups
from trainer.serving import exports
from trainer.settings import wording
from trainer.settings.table import HParams


class BestExporter(tf.estimator.Exporter):
    """Exports the best model on validation so far, by `best_model.selection_metric`.

    The best value lives in `best.json` beside the exports, written as the last step of an export,
    with the number of evaluations since that were no better: `early_stopping_patience` counts them.
    (tf.estimator.BestExporter of 1.14 reads it back from event files: it never exports the first
    model, forgets the best at a restart, and fails on a truncated file.)

    Args:
      export: exports the weights of a checkpoint, with the metrics of its evaluation; returns the
        folder.
      report: called with each evaluation's metrics and whether it is the best so far.
    """

    name = best_model.EXPORT_NAME

    def __init__(
        self,
        params: HParams,
        export: Callable[[str, Dict[str, Any]], str],
        report: Callable[[Dict[str, Any], bool], None],
    ):
        self._params, self._export, self._report = params, export, report

    def export(
        self, estimator, export_path, checkpoint_path, eval_result, is_the_final_export
    ) -> Optional[str]:
        """Exports the checkpoint where `eval_result` is the best so far; returns the folder."""
        del estimator, is_the_final_export
        folder = self._params.model_dir
        metrics, name = without_groups(eval_result), best_model.selection_metric(self._params)
        state, best = best_model.read_state(folder), best_model.read_best(folder)
        value, step = float(metrics[name]), int(metrics['global_step'])
        is_best = math.isfinite(value) and (best is None or value < best[name])
        kept = _keep_if_there(checkpoint_path, export_path) if is_best else None
        counted = self._counted(state, best, value, step)
        exported = None
        if kept is not None:
            exported = self._export(os.path.join(export_path, kept), metrics)
            chosen: Dict[str, Any] = {
                'convention': wording.data_convention(self._params),
                'global_step': step,
                'checkpoint': kept,
                'export': os.path.basename(exported),
                name: value,
            }
            best_model.write_state(folder, {**counted, **chosen})
            if best is not None and best['global_step'] != step:
                tf.train.remove_checkpoint(os.path.join(export_path, best['checkpoint']))
            exports.remove_old(export_path, self._params.exports_to_keep)
        elif not is_best and counted != state:
            best_model.write_state(folder, counted)
        self._report(metrics, is_best)
        return exported

    def _counted(
        self, state: Dict[str, Any], best: Optional[Dict[str, Any]], value: float, step: int
    ) -> Dict[str, Any]:
        """The state with an evaluation counted for early stopping."""
        name = best_model.selection_metric(self._params)
        least = state.get(best_model.COUNTED_BEST, best or {}).get(name, math.inf)
        counted = dict(state, evaluated_step=step)
        counted.setdefault('evaluations_since_best', 0)
        counted.pop('stopped_step', None)
        has_schedule = self._params.beta_cycles + self._params.beta_warmup_steps > 0
        if has_schedule:
            counted.setdefault(best_model.COUNTED_BEST, {})
        is_new = step > best_model.evaluated_step(state)
        if objectives.beta_was_rising(step, self._params):
            return counted if is_new else state
        if value < least:
            counted['evaluations_since_best'] = 0
            if has_schedule:
                counted[best_model.COUNTED_BEST] = {name: value, 'global_step': step}
        elif is_new:
            # Once for each checkpoint: an evaluator that was started anew comes to its last again.
            counted['evaluations_since_best'] += 1
        else:
            return state
        return counted


def _keep_if_there(checkpoint_path: str, folder: str) -> Optional[str]:
    """`keep_checkpoint`; None, and a word, where a cluster has removed the checkpoint meanwhile."""
    try:
        return listing.keep_checkpoint(checkpoint_path, folder)
    except tf.errors.NotFoundError:
        say(
            f'{checkpoint_path} is the best so far, but was removed while it was evaluated, so it '
            'is not exported: give a larger --save_checkpoints_steps.'
        )
        return None
