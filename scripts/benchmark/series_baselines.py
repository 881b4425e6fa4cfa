"""Scores the rows of series by other methods, on the windows that the VAE sees.

Of scikit-learn, in an environment of its own, so that this file needs NumPy and that alone:

    python series_baselines.py --data=FOLDER --window=28 --seeds=1,2,3 --output=FOLDER

writes `validation.csv` and `test.csv`, with a score of each method for each row of each file.
"""

import argparse
import csv
import os

import numpy as np

VARIANCE = 0.95
TREES = 200


def read(path):
    """Returns the readings `[n, columns]` and the labels `[n]` of a file of `series_data`."""
    values = np.loadtxt(path, delimiter=',', skiprows=1, ndmin=2)
    return values[:, :-1], values[:, -1].astype(int)


def names_in(folder):
    """The files of a split in the order in which they are scored."""
    return sorted(name for name in os.listdir(folder) if name.endswith('.csv'))


def windows(rows, window):
    """Returns every window of consecutive rows, `[n - window + 1, window, columns]`."""
    starts = np.arange(len(rows) - window + 1)
    return rows[starts[:, np.newaxis] + np.arange(window)]


def over_rows(of_windows):
    """Returns the mean for each row, `[n]`, over the windows that cover it.

    Args:
      of_windows: `[n - window + 1, window]`, what each window says of each of its rows.
    """
    count, window = of_windows.shape
    total, covering = np.zeros(count + window - 1), np.zeros(count + window - 1)
    for place in range(window):
        total[place : place + count] += of_windows[:, place]
        covering[place : place + count] += 1
    return total / covering


def spread(of_windows, window):
    """Returns the mean for each row over the windows that cover it of a score `[k]` of each."""
    return over_rows(np.repeat(of_windows[:, np.newaxis], window, axis=1))


class Scaling:
    """Standardises columns by their mean and deviation over rows to train on."""

    def __init__(self, rows):
        self._mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        self._deviation = np.where(deviation > 0, deviation, 1.0)

    def __call__(self, rows):
        return (rows - self._mean) / self._deviation


def by_reading(rows, window):
    """No model at all: how far a row is from the mean of training, squared, over its columns."""
    del window
    return np.sum(rows**2, axis=1)


def by_reconstruction(model):
    """Returns what scores rows by the squared error of a fitted PCA of flattened windows."""

    def score(rows, window):
        seen = windows(rows, window)
        flat = seen.reshape(len(seen), -1)
        errors = flat - model.inverse_transform(model.transform(flat))
        return over_rows(np.sum(errors.reshape(seen.shape) ** 2, axis=2))

    return score


def by_whole_windows(of_windows):
    """Returns what scores rows by the windows that cover them.

    Args:
      of_windows: returns a score `[k]` for flattened windows `[k, window * columns]`.
    """

    def score(rows, window):
        seen = windows(rows, window)
        return spread(of_windows(seen.reshape(len(seen), -1)), window)

    return score


def fitted(train, window, seeds):
    """Returns the methods by their names; `train` is a list of standardised rows, one a file."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest

    seen = np.concatenate([windows(rows, window) for rows in train])
    flat = seen.reshape(len(seen), -1)
    pca = PCA(n_components=VARIANCE, svd_solver='full').fit(flat)

    def error(flat):
        return np.sum((flat - pca.inverse_transform(pca.transform(flat))) ** 2, axis=1)

    methods = {'reading': by_reading, 'pca': by_reconstruction(pca)}
    methods['pca_windows'] = by_whole_windows(error)
    for seed in seeds:
        forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(flat)
        methods[f'forest-{seed}'] = by_whole_windows(
            lambda flat, forest=forest: -forest.score_samples(flat)
        )
    return methods


def score(folder, methods, scaling, window, path):
    """Writes the scores of the rows of a folder's files, whole or not at all."""
    unfinished = path + '.unfinished'
    with open(unfinished, 'w', newline='') as f:
        writer = csv.writer(f)
        writer.writerow(['file', 'row', *methods])
        for name in names_in(folder):
            rows = scaling(read(os.path.join(folder, name))[0])
            scores = np.stack([method(rows, window) for method in methods.values()], axis=1)
            for number, row in enumerate(scores.tolist()):
                writer.writerow([name, number, *row])
    os.rename(unfinished, path)


def main():
    parser = argparse.ArgumentParser()
    for name, kind in (('data', str), ('window', int), ('seeds', str), ('output', str)):
        parser.add_argument('--' + name, type=kind, required=True)
    given = parser.parse_args()
    split = {name: os.path.join(given.data, name) for name in ('train', 'validation', 'test')}
    train = [read(os.path.join(split['train'], name))[0] for name in names_in(split['train'])]
    scaling = Scaling(np.concatenate(train))
    seeds = [int(seed) for seed in given.seeds.split(',')]
    methods = fitted([scaling(rows) for rows in train], given.window, seeds)
    os.makedirs(given.output, exist_ok=True)
    for name in ('validation', 'test'):
        path = os.path.join(given.output, name + '.csv')
        score(split[name], methods, scaling, given.window, path)


if __name__ == '__main__':
    main()
