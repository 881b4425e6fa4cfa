"""Measures how well each score tells unusual images from usual ones; prints the tables.

    ./scripts/run python scripts/benchmark/unusual.py --results_dir=FOLDER [--only=ROW,...]

Trains on MNIST, on Fashion-MNIST, on each digit alone, and a background model, whose MNIST images
have pixels replaced at random; evaluates each run against other images. Each command is printed as
it starts. An interrupted row goes on when the same command is given again, and what is there is
only read. Rehearse with --max_steps=20 --importance_samples=2, in a folder of its own.
"""

import os
import shlex
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl import flags

from scripts.benchmark import trainings
from trainer.base import cores, files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import listing
from trainer.data import dataset_folder, image_sets, prepare
from trainer.evaluation import against
from trainer.evaluation.scores import Checkpoint
from trainer.settings import command_line, storage
from trainer.training import results

DIGITS = range(10)
# Steps of a run on one digit, some 5,500 images; it is evaluated at their end alone.
DIGIT_STEPS = 500
# Of a background model's pixels, those that are replaced by a level from 0 to 255.
MUTATION_RATE = 0.1
SHIFT = 4
MADE = ('noise', 'inverted', 'rotated', 'shifted', 'black', 'binarised')
SCORES = {
    'negative_elbo': 'negative ELBO',
    'reconstruction_loss': 'reconstruction',
    'kl_divergence': 'KL',
    'negative_importance_weighted_bound': 'bound, {} samples',
    'complexity_corrected': 'complexity-corrected',
    'likelihood_ratio': 'likelihood ratio',
}
LABELS = {
    'noise': 'noise, levels drawn evenly', 'inverted': 'its test images inverted',
    'rotated': 'rotated by 90°', 'shifted': f'shifted right by {SHIFT} pixels',
    'black': 'black images', 'binarised': 'cut at level 128 to 0 and 255',
    'digit-1': 'digit 1, against the other digits', 'fashion_mnist': 'Fashion-MNIST',
    'mnist': 'MNIST',
}  # fmt: skip
# AUROC of each digit as the usual class: Ruff et al. 2018, Deep One-Class Classification, table 1.
PUBLISHED = {
    'OC-SVM': (98.6, 99.5, 82.5, 88.1, 94.9, 77.1, 96.5, 93.7, 88.9, 93.1),
    'Deep SVDD': (98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5),
}


class Bench:
    """The folders of the work, and what is done in them."""

    def __init__(self, values):
        self._values = values
        self._folder = values.results_dir
        self._given = {'mnist': values.mnist_model_dir, 'fashion': values.fashion_model_dir}

    def array(self, name):
        """The path of an array file."""
        return os.path.join(self._folder, 'arrays', name)

    def trained(self, name, *settings):
        """Returns the folder of a run, trained first where it is not finished."""
        if self._given.get(name):
            return self._given[name]
        model_dir = os.path.join(self._folder, 'runs', name)
        if not os.path.exists(os.path.join(model_dir, results.FILE_NAME)):
            steps = [f'--max_steps={self._values.max_steps}'] if self._values.max_steps else []
            self._call('trainer.task', f'--model_dir={model_dir}', *settings, *steps)
        return model_dir

    def evaluated(self, name, model_dir, others, *options):
        """Returns what `trainer.evaluate --against` leaves."""
        path = self.row(name)
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            which = [f'--model_dir={model_dir}', '--against=' + ','.join(others)]
            self._call('trainer.evaluate', *which, *options, f'--output={path}')
        return files.read_json(path)

    def row(self, name):
        """The path of the figures of a row."""
        return os.path.join(self._folder, 'rows', name + '.json')

    def _call(self, module, *arguments):
        values = self._values
        where = [f'--data_dir={values.data_dir}'] if values.data_dir else []
        words = ['-m', module, *arguments, *where]
        say('python {}'.format(' '.join(map(shlex.quote, words))))
        code = subprocess.call([sys.executable, *words], stdout=sys.stderr)  # Tables come alone.
        if code:
            raise UserError(f'{module} ended with code {code}, see above.')


def labels(data_dir, split):
    """Returns the labels of a split of TFDS's MNIST, int `[n]`, in the order of its records."""
    paths = dataset_folder.find('mnist', data_dir or None).record_files(split)
    records = (record for path in paths for record in tf.python_io.tf_record_iterator(path))
    parsed = (tf.train.Example.FromString(record).features for record in records)
    return np.array([features.feature['label'].int64_list.value[0] for features in parsed])


def pixels(data, *splits):
    """Returns the images of splits, uint8 `[n, rows, columns]`."""
    parts = [np.fromfile(data.files[split], np.uint8) for split in splits]
    return np.concatenate(parts).reshape(-1, *data.image_shape[:2])


def save(path, **arrays):
    """Writes one array as .npy, or several as .npz, unless the file is there."""
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = os.path.join(os.path.dirname(path), 'unfinished-' + os.path.basename(path))
        if path.endswith('.npz'):
            np.savez(unfinished, **arrays)
        else:
            np.save(unfinished, *arrays.values())
        os.rename(unfinished, path)


def make_arrays(bench, data_dir):
    """Writes the images that others are made of, those of each digit, and the others'."""
    data = prepare.prepare('mnist', data_dir, separate_process=True)
    train, test = pixels(data, 'train', 'validation'), pixels(data, 'test')
    made = {
        'noise': np.random.RandomState(1).randint(0, 256, test.shape).astype(np.uint8),
        'inverted': 255 - test,
        'rotated': np.rot90(test, axes=(1, 2)),
        'shifted': np.pad(test, [(0, 0), (0, 0), (SHIFT, 0)], 'constant')[:, :, :-SHIFT],
        'black': np.zeros_like(test),
        'binarised': 255 * (test >= 128).astype(np.uint8),
    }
    for name, images in made.items():
        save(bench.array(name + '.npy'), images=images)
    of_train, of_test = labels(data_dir, 'train'), labels(data_dir, 'test')
    for digit in DIGITS:
        own = {'x_train': train[of_train == digit], 'x_test': test[of_test == digit]}
        save(bench.array(f'digit-{digit}.npz'), **own)
        save(bench.array(f'digit-{digit}.npy'), images=own['x_test'])
        save(bench.array(f'not-{digit}.npy'), images=test[of_test != digit])


def make_background(bench, data_dir):
    """Writes the images of a background model: Ren et al. 2019 (arXiv:1906.02845), section 4."""
    data = prepare.prepare('mnist', data_dir, separate_process=True)
    arrays = {}
    for number, split in enumerate(('train', 'validation', 'test')):
        images, random = pixels(data, split), np.random.RandomState(number)
        drawn = random.randint(0, 256, images.shape).astype(np.uint8)
        arrays['x_' + split] = np.where(random.rand(*images.shape) < MUTATION_RATE, drawn, images)
    save(bench.array('mnist-background.npz'), **arrays)


def of_one_against_others(bench, model_dir, background_dir, values):
    """What an evaluation would say of the digit 1 against the other digits of the test images."""
    path = bench.row('digit-1-of-mnist')
    if not os.path.exists(path):
        params = storage.trained(model_dir)
        usual, ones = [
            image_sets.of_path(bench.array(name), params, against.MOST_IMAGES)
            for name in ('not-1.npy', 'digit-1.npy')
        ]
        model = Checkpoint(listing.latest(model_dir), params)
        background = against.background_of(background_dir, params)
        scores_of = against.Scores(
            model, background, values.importance_samples, threads=cores.available()
        )
        files.write_json(path, against.compare(usual, [ones], scores_of))
    return files.read_json(path)


def mnist(bench, values):
    """Yields the rows of the MNIST run: what they are against, and the scores' figures."""
    make_arrays(bench, values.data_dir)
    make_background(bench, values.data_dir)
    model_dir = bench.trained('mnist')
    source = '--source=' + bench.array('mnist-background.npz')
    background_dir = bench.trained('mnist-background', source)
    others = ['fashion_mnist', *(bench.array(name + '.npy') for name in MADE)]
    options = [f'--background_model_dir={background_dir}', samples_of(values)]
    record = bench.evaluated('mnist', model_dir, others, *options)
    record_of_one = of_one_against_others(bench, model_dir, background_dir, values)
    return [*record['against'], *record_of_one['against']]


def fashion(bench, values):
    """As `mnist`, of the run on Fashion-MNIST, without a background model."""
    model_dir = bench.trained('fashion', '--dataset=fashion_mnist')
    return bench.evaluated('fashion', model_dir, ['mnist'], samples_of(values))['against']


def samples_of(values):
    return f'--importance_samples={values.importance_samples}'


def digits(bench, values):
    """Returns the figures of the scores of each digit's run, against all other digits."""
    make_arrays(bench, values.data_dir)
    rows = []
    for digit in chosen_digits(values):
        name = f'digit-{digit}'
        steps = [
            f'--{setting}={DIGIT_STEPS}' for setting in ('max_steps', 'save_checkpoints_steps')
        ]
        model_dir = bench.trained(name, '--source=' + bench.array(name + '.npz'), *steps)
        others = [bench.array(f'not-{digit}.npy')]
        rows += bench.evaluated(name, model_dir, others)['against']
    return rows


def areas(row, name, field='auroc'):
    """One area with its standard error, as a cell of a table; '' for a score that is not there."""
    found = row['scores'].get(name)
    return '{:.3f} ± {:.3f}'.format(found[field], found[field + '_standard_error']) if found else ''


def line(*cells):
    return '| {} |'.format(' | '.join(cells))


def show_runs(rows, samples):
    """Prints a table of AUROC and one of average precision: rows by what the run was trained on."""
    titles = [title.format(samples) for title in SCORES.values()]
    for field, text in (('auroc', 'AUROC'), ('average_precision', 'average precision')):
        print('\n' + line(f'{text}: trained on', 'against', *titles))
        print('|---' * (2 + len(titles)) + '|')
        for trained_on, row in rows:
            cells = [areas(row, name, field) for name in SCORES]
            print(line(trained_on, LABELS.get(row['name'], row['name']), *cells))


def show_digits(rows, digits):
    """Prints AUROC of each digit's run, and the means, beside published figures."""
    names = [name for name in SCORES if name in rows[0]['scores']]
    titles = [*(SCORES[name] for name in names), *PUBLISHED]
    print('\n' + line('AUROC: usual digit', *titles))
    print('|---' * (1 + len(titles)) + '|')
    for digit, row in zip(digits, rows):
        published = ['{:.3f}'.format(values[digit] / 100) for values in PUBLISHED.values()]
        print(line(str(digit), *(areas(row, name) for name in names), *published))
    means = [
        '{:.3f} ± {:.3f}'.format(
            np.mean([row['scores'][name]['auroc'] for row in rows]),
            np.linalg.norm([row['scores'][name]['auroc_standard_error'] for row in rows])
            / len(rows),
        )
        for name in names
    ]
    published = [
        '{:.3f}'.format(np.mean([values[digit] for digit in digits]) / 100)
        for values in PUBLISHED.values()
    ]
    print(line('mean', *means, *published))


ROWS = ('mnist', 'fashion', 'digits')


def chosen_digits(values):
    """Returns the digits to train on; raises UserError for what is none."""
    wrong = [text for text in values.digits if text not in map(str, DIGITS)]
    if wrong:
        raise UserError(f'--digits={",".join(values.digits)}: {wrong[0]!r} is none of 0 to 9.')
    return [int(text) for text in values.digits]


def main(argv):
    del argv
    values = flags.FLAGS
    unknown = [name for name in values.only if name not in ROWS]
    if unknown:
        raise UserError(
            f'--only={",".join(values.only)}: there is no row {unknown[0]!r}; choose among '
            f'{", ".join(ROWS)}.'
        )
    chosen = chosen_digits(values)
    only, bench = values.only or ROWS, Bench(values)
    rows = []
    for name, measure, trained_on in (
        ('mnist', mnist, 'MNIST'), ('fashion', fashion, 'Fashion-MNIST')
    ):  # fmt: skip
        if name in only:
            rows += [(trained_on, row) for row in measure(bench, values)]
    of_digits = digits(bench, values) if 'digits' in only else []
    print('{date}, {cores} cores of {cpu}'.format(**trainings.machine()))
    if rows:
        show_runs(rows, values.importance_samples)
    if of_digits:
        show_digits(of_digits, chosen)


def define_flags(flag_values=flags.FLAGS):
    command_line.define_flags(['data_dir'], flag_values)
    text = 'Folder of arrays, runs and figures.'
    path_flags.define('results_dir', None, text, flag_values, required=True)
    for name in ('mnist', 'fashion'):
        text = f'Folder of a finished run of {name}. Default: it is trained.'
        path_flags.define(f'{name}_model_dir', '', text, flag_values)
    for define, name, default, text in (
        (flags.DEFINE_list, 'only', [], 'Rows: {}. Default: all.'.format(', '.join(ROWS))),
        (flags.DEFINE_list, 'digits', list(map(str, DIGITS)), 'Digits that are trained on.'),
        (flags.DEFINE_integer, 'max_steps', 0, "Steps of each run. 0: the run's own."),
        (flags.DEFINE_integer, 'importance_samples', 100, 'Samples of the bound of each image.'),
    ):
        define(name, default, text, flag_values=flag_values)


if __name__ == '__main__':
    define_flags()
    program.run(main)
