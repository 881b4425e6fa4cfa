"""An evaluation: every image estimated once, in pieces that an interrupted one goes on from."""

import contextlib
import os
import time
from typing import Any, Dict, Tuple

import numpy as np
import tensorflow as tf

from trainer.base import files
from trainer.base.console import ImageProgress, say
from trainer.base.errors import UserError
from trainer.checkpoints import weights
from trainer.data import inputs, verified
from trainer.data.dataset import PreparedDataset
from trainer.evaluation import importance_sampling, report, scores
from trainer.evaluation.importance_sampling import ImportanceSampler
from trainer.evaluation.partial_results import PartialResults
from trainer.settings import memory, storage, wording
from trainer.settings.table import HParams

# Raised whenever the same facts would lead to other numbers, or to more of them.
_FORMAT = 2
_SECONDS_BETWEEN_SAVES = 10.0
_BATCH = 1000


def describe(
    data: PreparedDataset,
    split: str,
    num_images: int,
    samples: int,
    seed: int,
    checkpoint_path: str,
    params: HParams,
) -> Dict[str, Any]:
    """Returns all that the numbers of an evaluation depend on.

    Raises:
      UserError: the checkpoint is broken.
    """
    relative = os.path.relpath(checkpoint_path, params.model_dir)
    try:
        step = int(tf.train.load_variable(checkpoint_path, tf.GraphKeys.GLOBAL_STEP))
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            f'--checkpoint={checkpoint_path} is broken, or not of the model in '
            f'--model_dir={params.model_dir} ({weights.reason(error)}): give another.'
        ) from error
    return {
        'format': _FORMAT,
        'checkpoint': checkpoint_path if relative.startswith('..') else relative,
        # The index holds a checksum of each weight.
        'checkpoint_index_sha256': files.sha256(checkpoint_path + '.index'),
        'global_step': step,
        'dataset': data.name,
        'dataset_version': data.version,
        'dataset_sha256': verified.sha256(data.files[split]),
        'split': split,
        'examples': data.noun,
        'convention': wording.data_convention(params),
        'log_likelihood': wording.log_likelihood(params),
        'num_images': num_images,
        'images_in_split': data.num_examples[split],
        'importance_samples': samples,
        'seed': seed,
        'latent_size': params.latent_size,
        'likelihood': params.likelihood,
        'prior': params.prior,
    }


def default_name(facts: Dict[str, Any], checkpoint: str) -> str:
    """Returns the name of the results' file, such as `evaluation_test_5000.json`."""
    name = 'evaluation_{split}_{importance_samples}'.format(**facts)
    if facts['seed'] != importance_sampling.SEED:
        name += '_seed_{seed}'.format(**facts)
    if checkpoint != 'last':
        name += '_' + os.path.basename(checkpoint)
    if facts['num_images'] < facts['images_in_split']:
        name += '_first_{num_images}'.format(**facts)
    return name + '.json'


def evaluate(
    checkpoint_path: str,
    data: PreparedDataset,
    facts: Dict[str, Any],
    output: str,
    threads: int,
    params: HParams,
    is_named: bool = False,
) -> Dict[str, Any]:
    """Makes, or goes on with, the evaluation that `facts` describe; writes the results.

    Args:
      is_named: whether `output` is a user's: perhaps a pipe, beside which no partial results lie.

    Returns:
      What the JSON file `output` holds: the facts, what `summarize` returns, `wall_seconds` of all
      the processes that took part, and versions.

    Raises:
      UserError: the checkpoint does not fit, a named output cannot be written, or there are NaNs.
      tf.errors.OpError: model_dir cannot be written.
    """

    def input_fn() -> tf.data.Dataset:
        split, count = facts['split'], facts['num_images']
        batch = memory.images_at_once(params, _BATCH)
        return inputs.eval_input_fn(data, split, batch, params.sampling, count)

    model, samples = scores.model_of(checkpoint_path, params), facts['importance_samples']
    # Each thread decodes a chunk of its own.
    chunk = memory.images_at_once(params, importance_sampling.CHUNK, share=5)
    sampler = ImportanceSampler(model, input_fn, samples, facts['seed'], threads, chunk)
    kept = None if files.is_alone(output) else output + '.partial'
    partial = PartialResults(kept, facts, sampler.row_type)
    rows, seconds = estimate_all(sampler, partial, facts)
    record = dict(
        facts, **report.summarize(rows, params), wall_seconds=seconds, versions=storage.versions()
    )
    write = files.write_output if is_named else files.write_bytes
    write(output, files.json_bytes(record))
    partial.remove()
    return record


def estimate_all(
    sampler: ImportanceSampler, partial: PartialResults, facts: Dict[str, Any]
) -> Tuple[np.ndarray, float]:
    """Estimates all images, going on from what is known; returns their rows and the seconds.

    Raises:
      UserError: an image has no finite likelihood.
      tf.errors.OpError: the results cannot be written.
    """
    known, seconds_before = partial.load()
    rows = np.zeros(facts['num_images'], sampler.row_type)
    done = len(known)
    rows[:done] = known
    if done:
        say('Going on after {:,} images.'.format(done))
    start = saved_at = time.perf_counter()
    partial.save(known, seconds_before)
    progress = ImageProgress(len(rows), done)
    try:
        # Closed at once when interrupted: its threads would go on with images that nobody wants.
        with contextlib.closing(sampler.rows(done)) as found:
            for row in found:
                if not np.isfinite(row[0]):
                    raise UserError(
                        '--checkpoint={checkpoint}: image {} of the {split} split has no finite '
                        'likelihood ({}): give another.'.format(done, row[0], **facts)
                    )
                rows[done] = row
                done += 1
                now = time.perf_counter()
                bound = rows['importance_weighted_bound'][:done].mean()
                text = f'negative importance-weighted bound {-bound:.2f} nats'
                progress.show(done, text, facts['importance_samples'], 'decoder passes')
                if now - saved_at >= _SECONDS_BETWEEN_SAVES:
                    partial.save(rows[:done], seconds_before + now - start)
                    saved_at = now
    finally:
        progress.close()
        seconds = seconds_before + time.perf_counter() - start
        partial.save(rows[:done], seconds)
    return rows, seconds
