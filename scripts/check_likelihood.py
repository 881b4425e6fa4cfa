"""Checks the estimate of log p(x) by annealed importance sampling, which knows no encoder.

    ./scripts/run python scripts/check_likelihood.py --model_dir=runs/mnist-z50

Draws images from a model of pixels of 0 and 1, and encloses their log p(x) between the two bounds
of bidirectional Monte Carlo (trainer/evaluation/annealing.py). Beside them stands what
`trainer.evaluate` estimates; of test images there is the lower bound alone. An interrupted check
goes on with the same command.
"""

import concurrent.futures
import os
import time
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import tensorflow as tf
from absl import flags

from trainer.base import cores, files, path_flags, program
from trainer.base.console import ImageProgress, say
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import inputs, prepare
from trainer.evaluation import importance_sampling, scores
from trainer.evaluation.annealing import AnnealedSampler
from trainer.evaluation.importance_sampling import ImportanceSampler, Model
from trainer.evaluation.partial_results import PartialResults
from trainer.settings import command_line, storage
from trainer.settings.table import HParams

# Images whose chains run at once: with 16 chains each, products that keep a core busy.
_GROUP = 10
_ROWS = np.dtype([('lower', np.float64), ('upper', np.float64), ('estimate', np.float64)])


def simulated(model: Model, params: HParams, count: int, seed: int) -> Tuple[np.ndarray, ...]:
    """Draws latents from the prior, and images of them.

    Returns:
      Latents, float32 `[count, latent_size]`; images of 0 and 1, float32 `[count, rows, features]`.
    """
    random = np.random.RandomState(seed)
    noise = random.standard_normal([count, params.latent_size]).astype(np.float32)
    choice = random.random_sample(count).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        latents = model.prior().sample(tf.constant(noise), tf.constant(choice))
        mean = model.decode(latents).mean()
        model.restore(session)
        drawn, probabilities = session.run([latents, mean])
    return drawn, (random.random_sample(probabilities.shape) < probabilities).astype(np.float32)


def enclosed(
    model: Model, params: HParams, images: np.ndarray, latents: np.ndarray, first: int
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Yields the lower and the upper bound of each group of images, from number `first` on.

    Args:
      latents: that the images were drawn of; of no images but the first so many there are any.
    """
    values, shape = flags.FLAGS, (params.rows, params.row_features)
    sampler = AnnealedSampler(
        model, shape, params.latent_size, values.chains, values.temperatures, values.seed
    )

    def bounds(start: int) -> Tuple[np.ndarray, np.ndarray]:
        some, of_some = images[start : start + _GROUP], latents[start : start + _GROUP]
        sizes = sampler.step_sizes(some, 3 * start)
        upper = np.full(len(some), np.nan)
        if len(of_some):
            upper[: len(of_some)] = sampler.bound(
                some[: len(of_some)], sizes[:, : len(of_some)], 3 * start + 2, of_some
            )
        return sampler.bound(some, sizes, 3 * start + 1), upper

    with concurrent.futures.ThreadPoolExecutor(cores.available()) as pool:
        yield from pool.map(bounds, range(first, len(images), _GROUP))


def estimated(model: Model, images: np.ndarray, samples: int) -> np.ndarray:
    """Returns the importance-weighted estimates of `trainer.evaluate`, float64 `[n]`."""

    def input_fn() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices({'images': images}).batch(len(images))

    sampler = ImportanceSampler(
        model, input_fn, samples, importance_sampling.SEED, cores.available()
    )
    return np.array([row[0] for row in sampler.rows()])


def table(rows: np.ndarray, count: int) -> str:
    """Writes means in nats with standard errors, of `count` simulated images and of the others."""
    lines = ['{:<46}{:>14}{:>14}'.format('-log p(x), nats per image', 'mean', 'error')]
    for name, some in (('simulated', rows[:count]), ('test', rows[count:])):
        columns = {
            'importance-weighted estimate': -some['estimate'],
            'at most, by annealing': -some['lower'],
            'at least, by annealing back': -some['upper'],
            'between the two': some['upper'] - some['lower'],
            'the estimate above the first of them': some['lower'] - some['estimate'],
        }
        for text, values in columns.items():
            if len(values) > 1 and np.all(np.isfinite(values)):
                error = values.std(ddof=1) / np.sqrt(len(values))
                label = '{:,} {}: {}'.format(len(values), name, text)
                lines.append('{:<46}{:>14.3f}{:>14.3f}'.format(label, values.mean(), error))
    return '\n'.join(lines)


def main(argv: List[str]) -> None:
    del argv
    values, began = flags.FLAGS, time.perf_counter()
    if values.output:
        files.check_output('--output', values.output)
    params = storage.trained(values.model_dir)
    if not params.is_binarised:
        raise UserError(
            f'--model_dir={values.model_dir} is a run with --binarization=none, of which no images '
            'of the right kind can be drawn: give one of pixels of 0 and 1.'
        )
    path = chosen.find_checkpoint(values.model_dir, 'last')
    data = prepare.of_run(params, values.data_dir, separate_process=True)
    model = scores.model_of(path, params)
    latents, images = simulated(model, params, values.num_images, values.seed)
    if values.num_test_images:
        of_test = inputs.first_images(data, 'test', values.num_test_images, params.binarization)
        images = np.concatenate([images, of_test])
    names = (
        'num_images',
        'num_test_images',
        'chains',
        'temperatures',
        'importance_samples',
        'seed',
    )
    facts: Dict[str, Any] = {name: getattr(values, name) for name in names}
    facts['checkpoint'] = os.path.basename(path)
    output = values.output or os.path.join(values.model_dir, 'likelihood_check.json')
    partial = PartialResults(output + '.partial', facts, _ROWS)
    rows, seconds = partial.load()
    say(
        f'Annealing {len(images):,} images, {values.chains} chains each, over '
        f'{values.temperatures:,} temperatures: a line after each {_GROUP}, which take minutes.'
    )
    progress = ImageProgress(len(images), len(rows))
    for lower, upper in enclosed(model, params, images, latents, len(rows)):
        some = np.zeros(len(lower), _ROWS)
        some['lower'], some['upper'] = lower, upper
        rows = np.concatenate([rows, some])
        partial.save(rows, seconds + time.perf_counter() - began)
        text = 'negative lower bound {:.2f} nats'.format(-rows['lower'].mean())
        progress.show(len(rows), text, values.chains * values.temperatures, 'transitions')
    progress.close()
    rows['estimate'] = estimated(model, images, values.importance_samples)
    seconds += time.perf_counter() - began
    columns = {name: rows[name].tolist() for name in _ROWS.names or ()}
    files.write_output(output, files.json_bytes(dict(facts, wall_seconds=seconds, **columns)))
    partial.remove()
    print(table(rows, values.num_images))


def define_flags() -> None:
    command_line.define_flags_of_run(['data_dir'])
    for name, default, least, text in (
        ('num_images', 100, 2, 'Images drawn from the model.'),
        ('num_test_images', 20, 0, 'Test images.'),
        ('chains', 16, 1, 'Chains of each image.'),
        ('temperatures', 1000, 2, 'Steps between prior and posterior.'),
        ('importance_samples', 5000, 2, 'Samples of the importance-weighted estimate.'),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=least)
    flags.DEFINE_integer('seed', 1, 'Of all draws.', lower_bound=0, upper_bound=2**31 - 1)
    path_flags.define('output', '', 'JSON file. Default: likelihood_check.json in model_dir.')


if __name__ == '__main__':
    define_flags()
    program.run(main)
