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
from trainer.settings import memory
from trainer.settings.table import HParams

# Of larger train splits as many are evaluated. Whole blocks of `inputs`: a multiple of 1,000.
_MOST_TRAIN_IMAGES = 60_000


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
      final ones where no earlier checkpoint was better; under `images_evaluated` and
      `images_in_split`, their numbers by split.
    """
    counts = dict(data.num_examples)
    counts['train'] = min(counts['train'], _MOST_TRAIN_IMAGES)

    def evaluate(split: str, path: str, name: str) -> Dict[str, float]:
        count, in_split = counts[split], data.num_examples[split]
        is_part = count < in_split
        which = f'{count:,} of the {in_split:,}' if is_part else 'the'
        say(f'Evaluating the {name} model on {which} {split} {data.noun}.')
        estimator, name = by_split[split], '{}_{}'.format(name, split)
        # Before TF makes one, and puts the graph into it.
        event_files.open_event_file(estimator.eval_dir(name))
        some = (count, True) if is_part else ()
        of_images = split, memory.evaluation_batch(params), params.sampling
        input_fn = functools.partial(inputs.eval_input_fn, data, *of_images, *some)
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
    return dict(measured, images_evaluated=counts, images_in_split=dict(data.num_examples))
