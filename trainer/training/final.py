"""The measurement of a trained model on every split."""

import functools
import os
from typing import Any, Dict

import tensorflow as tf

from trainer.base.console import say
from trainer.checkpoints import best_model
from trainer.data import inputs
from trainer.data.dataset import SPLITS, PreparedDataset
from trainer.monitoring import event_files, summaries
from trainer.settings.table import HParams


def evaluation(
    by_split: Dict[str, tf.estimator.Estimator],
    data: PreparedDataset,
    checkpoint_path: str,
    params: HParams,
) -> Dict[str, Any]:
    """Evaluates the final weights on every split, the best ones on validation and test.

    Args:
      by_split: the Estimator for each split.

    Returns:
      The metrics by split and, under `best`, those of the best model on validation, which are the
      final ones where no earlier checkpoint was better.
    """

    def evaluate(split: str, path: str, name: str) -> Dict[str, float]:
        say('Evaluating the {} model on the {} images.'.format(name, split))
        estimator, name = by_split[split], '{}_{}'.format(name, split)
        # Before TF makes one, and puts the graph into it.
        event_files.open_event_file(estimator.eval_dir(name))
        batch, binarization = params.evaluation_batch, params.binarization
        input_fn = functools.partial(inputs.eval_input_fn, data, split, batch, binarization)
        metrics = estimator.evaluate(input_fn, checkpoint_path=path, name=name)
        by_name = summaries.without_groups(metrics)
        return {metric: float(by_name[metric]) for metric in best_model.reported_metrics(params)}

    measured: Dict[str, Any] = {
        split: evaluate(split, checkpoint_path, 'final') for split in SPLITS
    }
    best = best_model.read_best(params.model_dir)
    while best is not None:
        path = os.path.join(best['folder'], best['checkpoint'])
        is_final = os.path.basename(path) == os.path.basename(checkpoint_path)
        try:
            measured['best'] = {
                split: measured[split] if is_final else evaluate(split, path, 'best')
                for split in ('validation', 'test')
            }
            measured['best']['global_step'] = best['global_step']
            break
        except (tf.errors.OpError, ValueError):
            # An evaluator in a cluster may have found a better one, and removed this.
            before, best = best, best_model.read_best(params.model_dir)
            if best == before:
                raise
    return measured
