"""Estimates the log-likelihood of a trained model: `python -m trainer.evaluate`.

    python -m trainer.evaluate --model_dir=runs/mnist-z32 --split=test --importance_samples=5000

An interrupted evaluation goes on where it stopped when the same command is given again: what is
known of the images so far lies in `<output>.partial`.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import tensorflow as tf
from absl import flags

from trainer import (
    checkpoints,
    cores,
    export,
    files,
    hparams,
    importance_sampling,
    input,
    logs,
    network,
    path_flags,
    prepare_data,
)
from trainer.decoded_copy import SPLITS, PreparedDataset
from trainer.errors import UserError
from trainer.hparams import HParams
from trainer.importance_sampling import ImportanceSampler, Model
from trainer.progress import ImageProgress, say
from trainer.summaries import ACTIVE_VARIANCE

# Raised whenever the same facts would lead to other numbers.
_FORMAT = 1
SEED = 1
_SECONDS_BETWEEN_SAVES = 10.0
_BATCH = 1000


def find_checkpoint(model_dir: str, checkpoint: str) -> str:
    """Returns the prefix of the checkpoint that `--checkpoint` means.

    Args:
      checkpoint: 'last', 'best' or a prefix.

    Raises:
      UserError: there is none.
    """
    if checkpoint != 'best':
        return export.trained_checkpoint(model_dir, None if checkpoint == 'last' else checkpoint)
    best = export.read_best(model_dir)
    if best is None:
        raise UserError(
            '--checkpoint=best: --model_dir={} holds no model that an evaluation on the validation '
            'images chose: give --checkpoint=last.'.format(model_dir)
        )
    return os.path.join(best['folder'], best['checkpoint'])


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
        raise _not_restored(checkpoint_path, params, error) from error
    return {
        'format': _FORMAT,
        'checkpoint': checkpoint_path if relative.startswith('..') else relative,
        # The index holds a checksum of each weight.
        'checkpoint_index_sha256': files.sha256(checkpoint_path + '.index'),
        'global_step': step,
        'dataset': data.name,
        'dataset_version': data.version,
        'dataset_sha256': files.sha256(data.files[split]),
        'split': split,
        'convention': hparams.convention(params),
        'log_likelihood': hparams.log_likelihood(params),
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
    if facts['seed'] != SEED:
        name += '_seed_{seed}'.format(**facts)
    if checkpoint != 'last':
        name += '_' + os.path.basename(checkpoint)
    if facts['num_images'] < facts['images_in_split']:
        name += '_first_{num_images}'.format(**facts)
    return name + '.json'


class PartialResults:
    """The file of what is known so far, if any; it belongs to exactly one evaluation.

    Its content is a SHA-256 and a NumPy archive of the facts, of a row for each of the first images
    and of the seconds that they took.
    """

    def __init__(self, path: Optional[str], facts: Dict[str, Any], row_type: np.dtype):
        self._path, self._facts, self._row_type = path, facts, row_type

    def load(self) -> Tuple[np.ndarray, float]:
        """Returns rows and seconds, none of both where there is nothing that fits; says why."""
        nothing = np.zeros(0, self._row_type), 0.0
        if self._path is None or not tf.gfile.Exists(self._path):
            return nothing
        with tf.gfile.GFile(self._path, 'rb') as f:
            digest, content = f.read(32), f.read()
        if hashlib.sha256(content).digest() != digest:
            say('{} is damaged: beginning anew.'.format(self._path))
            return nothing
        try:
            # A pickle is a program.
            archive = np.load(io.BytesIO(content), allow_pickle=False)
            facts = json.loads(str(archive['facts']))
            rows, seconds = archive['rows'], float(archive['seconds'])
        except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile):
            say('{} is not of this program: beginning anew.'.format(self._path))
            return nothing
        for name in sorted(set(facts) | set(self._facts)):
            ours, theirs = self._facts.get(name), facts.get(name)
            if ours != theirs:
                say(
                    '{} is of another evaluation ({} was {}, is {}): beginning anew.'.format(
                        self._path, name, theirs, ours
                    )
                )
                return nothing
        return rows, seconds

    def save(self, rows: np.ndarray, seconds: float) -> None:
        """Writes the rows of the first images, and the seconds they took, whole or not at all."""
        if self._path is None:
            return
        archive = io.BytesIO()
        np.savez(archive, facts=np.array(json.dumps(self._facts)), rows=rows, seconds=seconds)
        content = archive.getvalue()
        files.write_bytes(self._path, hashlib.sha256(content).digest() + content)

    def remove(self) -> None:
        """Removes the file, and those that a process killed while it wrote has left."""
        if self._path is None:
            return
        for path in [self._path] + files.unfinished(self._path):
            tf.gfile.Remove(path)


def model_of(checkpoint_path: str, params: HParams) -> Model:
    """Returns the model of a run with the weights of a checkpoint."""

    def restore(session: tf.Session) -> None:
        checkpoints.restore(session, checkpoint_path)

    return Model(
        functools.partial(network.encode, params=params),
        functools.partial(network.decode, params=params),
        functools.partial(network.prior, params),
        restore,
    )


def _not_restored(checkpoint_path: str, params: HParams, error: Exception) -> UserError:
    return UserError(
        '--checkpoint={} is broken, or not of the model in --model_dir={} ({}): give '
        'another.'.format(checkpoint_path, params.model_dir, checkpoints.reason(error))
    )


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
      is_named: whether `output` is a user's, and need not be a file in a folder of ours. Beside a
        pipe, say, nothing is kept to go on from.

    Returns:
      What the JSON file `output` holds: the facts, what `summarize` returns, `wall_seconds` of all
      the processes that took part, and versions.

    Raises:
      UserError: the checkpoint does not fit, a named output cannot be written, or there are NaNs.
      tf.errors.OpError: model_dir cannot be written.
    """

    def input_fn() -> tf.data.Dataset:
        split, count = facts['split'], facts['num_images']
        return input.eval_input_fn(data, split, _BATCH, params.binarization, count)

    sampler = ImportanceSampler(
        model_of(checkpoint_path, params),
        input_fn,
        facts['importance_samples'],
        facts['seed'],
        threads,
    )
    kept = None if files.is_alone(output) else output + '.partial'
    partial = PartialResults(kept, facts, sampler.row_type)
    rows, seconds = estimate_all(sampler, partial, facts)
    record = dict(
        facts,
        **summarize(rows, params),
        wall_seconds=seconds,
        versions={
            'python': sys.version.split()[0],
            'tensorflow': tf.__version__,
            'numpy': np.__version__,
        },
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
                _check_finite(row[0], done, facts)
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


def _check_finite(bound: float, number: int, facts: Dict[str, Any]) -> None:
    if not np.isfinite(bound):
        raise UserError(
            '--checkpoint={}: image {} of the {} split has no finite likelihood ({}): give '
            'another.'.format(facts['checkpoint'], number, facts['split'], bound)
        )


def summarize(rows: np.ndarray, params: HParams) -> Dict[str, Any]:
    """Turns what is known of each image into the numbers of an evaluation.

    Args:
      rows: of `importance_sampling.row_type`, one an image.

    Returns:
      Means over the images, in nats, with their standard errors (None for a single image):
      `negative_log_likelihood` with `bits_per_dimension`, that is the same in bits over pixels and
      channels, and, of densities, `bits_per_dimension_8_bit`: they are of levels in [0, 1], and of
      255 x those the density is 1 / 255 a dimension, so log2 255 = 7.99 bits more. No noise has
      been added to the levels, so that neither bounds the code length of 8-bit images (Theis et
      al. 2016, arXiv:1511.01844, section 3.1).
      Or `negative_importance_weighted_bound` where it bounds no likelihood;
      `negative_elbo` and its parts `reconstruction_loss` (distortion) and `kl_divergence` (rate).
      `kl_by_dimension`, means. `active_units`, the dimensions whose posterior's mean varies over
      the images by more than 0.01: Burda et al. 2016 (arXiv:1509.00519), section 5.2.
    """
    negative_bound = -rows['importance_weighted_bound']
    values = {
        'negative_elbo': rows['reconstruction_loss'] + rows['kl_divergence'],
        'reconstruction_loss': rows['reconstruction_loss'],
        'kl_divergence': rows['kl_divergence'],
    }
    if hparams.has_log_likelihood(params):
        values['negative_log_likelihood'] = negative_bound
        bits_per_nat = 1.0 / np.log(2.0)
        pixels = params.rows * params.row_features
        values['bits_per_dimension'] = negative_bound * bits_per_nat / pixels
        if params.likelihood != 'bernoulli':
            values['bits_per_dimension_8_bit'] = values['bits_per_dimension'] + np.log2(255.0)
    else:
        values['negative_importance_weighted_bound'] = negative_bound
    variance = np.var(rows['posterior_mean'].astype(np.float64), axis=0)
    closed = params.prior == 'standard_normal'
    return dict(
        {name: _mean_and_error(value) for name, value in values.items()},
        kl_by_dimension=rows['kl_by_dimension'].mean(axis=0, dtype=np.float64).tolist(),
        kl_is='in closed form'
        if closed
        else 'estimated from the samples; by_dimension, of the marginals, from the first {} of an '
        'image'.format(importance_sampling.MARGINAL_SAMPLES),
        active_units=int(np.sum(variance > ACTIVE_VARIANCE)),
    )


def _mean_and_error(values: np.ndarray) -> Dict[str, Any]:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return {
        'mean': float(values.mean()),
        'standard_error': error if error is None else float(error),
    }


_LABELS = {
    'negative_log_likelihood': 'negative log-likelihood',
    'negative_importance_weighted_bound': (
        'negative importance-weighted bound (no likelihood: grey levels with a Bernoulli)'
    ),
    'negative_elbo': 'negative ELBO',
    'reconstruction_loss': 'distortion (reconstruction loss)',
    'kl_divergence': 'rate (KL divergence)',
    'bits_per_dimension': 'bits per dimension',
    'bits_per_dimension_8_bit': 'bits per dimension, of levels from 0 to 255',
}


def title(facts: Dict[str, Any]) -> str:
    """Says what is evaluated, on what and how."""
    if facts['num_images'] < facts['images_in_split']:
        images = 'a SUBSET, the first {num_images:,} of {images_in_split:,} {split} images'
    else:
        images = 'the {num_images:,} {split} images'
    return (
        '{checkpoint} (step {global_step:,}) on '
        + images
        + ' of {dataset}, {convention}; {importance_samples:,} posterior samples each, seed {seed}'
    ).format(**facts)


def table(record: Dict[str, Any]) -> str:
    """Writes the results of an evaluation."""
    names = [name for name in _LABELS if name in record]
    labels = dict(_LABELS)
    if 'bits_per_dimension_8_bit' in record:
        labels['bits_per_dimension'] += ', of levels in [0, 1]'
    width = max(len(labels[name]) for name in names)
    lines = [
        title(record),
        'log p(x) is {}'.format(record['log_likelihood']),
        '',
        '{:<{}} {:>12} {:>15}'.format('nats per image', width, 'mean', 'standard error'),
    ]
    for name in names:
        digits = 4 if name.startswith('bits_per_dimension') else 2
        mean, error = record[name]['mean'], record[name]['standard_error']
        text = '' if error is None else '{:.{}f}'.format(error, digits + 1)
        lines.append('{:<{}} {:>12.{}f} {:>15}'.format(labels[name], width, mean, digits, text))
    kl = sorted(record['kl_by_dimension'], reverse=True)
    lines += [
        '',
        '{} of {} units are active'.format(record['active_units'], record['latent_size']),
        'KL by dimension: {}{}'.format(
            ' '.join('{:.2f}'.format(value) for value in kl[:10]), ' ...' if len(kl) > 10 else ''
        ),
    ]
    return '\n'.join(lines)


def _define_flags() -> None:
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    flags.DEFINE_enum('split', 'test', list(SPLITS), 'Images to evaluate on.')
    flags.DEFINE_integer(
        'importance_samples',
        5000,
        'Samples of the posterior of each image, of which the estimate of log p(x) is made.',
        lower_bound=1,
        upper_bound=10**9,
    )
    path_flags.define(
        'checkpoint',
        'last',
        'last, best (on the validation images), or a prefix as MODEL_DIR/model.ckpt-5500.',
    )
    flags.DEFINE_integer(
        'num_images', 0, 'Evaluate only so many images, the first ones. 0: all.', lower_bound=0
    )
    hparams.define_flags(['data_dir', 'idx_dir'])
    flags.adopt_module_key_flags(hparams)
    flags.DEFINE_integer(
        'seed', SEED, 'Seed of the posterior samples.', lower_bound=0, upper_bound=2**31 - 1
    )
    path_flags.define(
        'output',
        '',
        'JSON file of the results. Default: evaluation_SPLIT_SAMPLES.json in model_dir, with the '
        'seed, the checkpoint and the number of images in its name where they are not the default.',
    )
    flags.DEFINE_integer(
        'num_threads',
        0,
        'Images computed at a time, a core for each. 0: one for each core that this process may '
        'use.',
        lower_bound=0,
        upper_bound=1024,
    )


def main(argv: List[str]) -> None:
    """Reads the flags, evaluates, prints a table, says where the results are."""
    del argv
    values = flags.FLAGS
    if values.output:
        files.check_output('--output', values.output)
    params = hparams.trained(values.model_dir)
    checkpoint_path = find_checkpoint(values.model_dir, values.checkpoint)
    # In a process of its own: the first session of a process fixes the size of its thread pools.
    data = prepare_data.prepare(
        params.dataset,
        values.data_dir or params.data_dir or None,
        values.idx_dir or None,
        separate_process=True,
    )
    in_split = data.num_examples[values.split]
    num_images = values.num_images or in_split
    if num_images > in_split:
        raise UserError(
            '--num_images={} must be at most {:,}, the {} images of {}; 0 means all.'.format(
                num_images, in_split, values.split, params.dataset
            )
        )
    facts = describe(
        data,
        values.split,
        num_images,
        values.importance_samples,
        values.seed,
        checkpoint_path,
        params,
    )
    default = os.path.join(values.model_dir, default_name(facts, values.checkpoint))
    output = values.output or default
    say('Evaluating {}.'.format(title(facts)))
    threads = values.num_threads or cores.available()
    record = evaluate(checkpoint_path, data, facts, output, threads, params, bool(values.output))
    shown = '{}\n\n{}'.format(table(record), output)
    if files.is_stream(output):  # Nothing else goes where the results went.
        say(shown)
    else:
        print(shown)


if __name__ == '__main__':
    _define_flags()
    logs.run(main)
