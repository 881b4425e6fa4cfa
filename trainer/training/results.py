"""The numbers of a run: in `results.json`, and as a table at its end."""

import math
import os
import time
from typing import Any, Dict, List

import psutil
import tensorflow as tf

from trainer.base import files
from trainer.base.console import duration, say
from trainer.base.errors import UserError
from trainer.checkpoints import weights
from trainer.data.dataset import SPLITS
from trainer.serving import thresholds
from trainer.settings import storage, wording
from trainer.settings.table import LIKELIHOODS, HParams
from trainer.training import early_stopping
from trainer.training.progress import TrainingProgress

FILE_NAME = 'results.json'


def units(params: HParams) -> str:
    """Says what the losses of a run are."""
    noun = wording.examples(params)
    samples = f'{params.samples_evaluated} posterior sample(s) per {noun[:-1]}'
    if params.objective == 'elbo':
        samples += ', 1 in the train split'
    return (
        f'nats per example, summed over {wording.values(params)} and latents, mean over the '
        f'{noun} of a split; '
        f'{wording.data_convention(params)}; log p(x) is {wording.log_likelihood(params)}; '
        f'{samples}'
    )


def collect(
    measured: Dict[str, Any], progress: TrainingProgress, checkpoint_path: str, params: HParams
) -> Dict[str, Any]:
    """Joins the metrics with what the run took.

    Times are of this process, until now. One that had nothing left to train keeps the times of the
    one before it.
    """
    import tensorflow_datasets as tfds  # A second to import, which trainer.generate can do without.

    process = psutil.Process()
    cpu, elapsed = process.cpu_times(), progress.elapsed_seconds
    times = {
        'first_step': progress.first_step,
        'training_seconds': elapsed,
        'training_time_share': progress.step_seconds / elapsed if elapsed else None,
        'wall_seconds': time.time() - process.create_time(),
        'cpu_seconds': cpu.user + cpu.system + cpu.children_user + cpu.children_system,
    }
    if progress.first_step is None:
        before = _times_before(os.path.join(params.model_dir, FILE_NAME), list(times))
        times = {name: before.get(name) for name in times}
    return dict(
        measured,
        global_step=int(tf.train.load_variable(checkpoint_path, tf.GraphKeys.GLOBAL_STEP)),
        stopped_early_at_step=early_stopping.stopped_step(params),
        parameters=weights.count_parameters(checkpoint_path),
        convention=wording.data_convention(params),
        log_likelihood=wording.log_likelihood(params),
        units=units(params),
        versions=dict(storage.versions(), tensorflow_datasets=tfds.__version__),
        **times,
    )


def _times_before(path: str, names: List[str]) -> Dict[str, Any]:
    """The times in an earlier `results.json`; none where one of them is no number."""
    try:
        before = files.read_json(path)
    except UserError:
        say('{} is damaged: it is written anew, without the times of training.'.format(path))
        return {}
    before = before if isinstance(before, dict) else {}
    times: Dict[str, Any] = {name: before.get(name) for name in names}
    good = all(type(t) in (int, float) and 0 <= t < 1e9 for t in times.values())
    return times if good else {}


def save(record: Dict[str, Any], params: HParams) -> str:
    """Writes `results.json`; returns its path."""
    return files.write_json(os.path.join(params.model_dir, FILE_NAME), record)


def warning(record: Dict[str, Any], params: HParams) -> str:
    """Says that the final model is far worse than one that has learned nothing, if so; else ''.

    For a Bernoulli that is a coin flip for each pixel: ln 2 nats, whatever the pixel is. Of images
    that are all middle grey the best model is not much better than that.
    """
    coin_flips = params.rows * params.row_features * math.log(2.0)
    loss = record['test']['negative_elbo']
    if not LIKELIHOODS[params.likelihood].of_binary_images or loss <= 1.1 * coin_flips:
        return ''
    return (
        f'The model is far worse than a coin flip for each pixel, {coin_flips:,.0f} nats: training '
        'has diverged. Give a lower --learning_rate or --max_gradient_norm.'
    )


def show(record: Dict[str, Any], artifacts: Dict[str, str], noun: str = 'images') -> None:
    """Prints the closing table to stdout."""
    print('\n{}; log p(x) is {}'.format(record['convention'], record['log_likelihood']))
    header = 'nats per example   negative ELBO = reconstruction + KL'
    if 'negative_importance_weighted_bound' in record['test']:
        header += '; negative importance-weighted bound'
    print(header)
    rows = {split: wording.terms_text(record[split]) for split in SPLITS}
    evaluated, in_split = record['images_evaluated']['train'], record['images_in_split']['train']
    if evaluated < in_split:
        rows['train'] += f'  ({evaluated:,} of {in_split:,} {noun})'
    best = record.get('best')
    if best and best['global_step'] != record['global_step']:
        rows['test, best model'] = (
            f'{wording.terms_text(best["test"])}  (best on validation, step '
            f'{best["global_step"]:,})'
        )
    for name, text in rows.items():
        print(f'{name:<18} {text}')
    threshold = thresholds.sentence(record.get('thresholds'))
    if threshold:
        print('\n' + threshold)
    if record['training_seconds']:
        names = ('training_seconds', 'wall_seconds', 'cpu_seconds')
        training, wall, cpu = (duration(record[name]) for name in names)
        share = record['training_time_share']
        print(f'\ntraining {training}, of which {share:.0%} in steps; wall {wall}, CPU {cpu}')
    print()
    for name, path in sorted(artifacts.items()):
        print('{:<18} {}'.format(name, path))
