"""CSV files of readings as a source: windows of their rows."""

import dataclasses
import os
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from trainer.base import errors, image_files
from trainer.base.console import ImageProgress, say
from trainer.base.errors import UserError
from trainer.data import csv_table, files_below, own_source
from trainer.data.csv_table import CsvTable
from trainer.data.dataset import SPLITS, PreparedDataset, Windows, Written
from trainer.data.files_below import File
from trainer.data.own_source import OwnSource, Preparation
from trainer.settings import table
from trainer.settings.rules import OF_SERIES
from trainer.settings.table import HParams, Scaling

ENDING = '.csv'
_DEFAULT_WINDOW = 28
_PARTS = 12
_SHOWN = 5
_NUMBERS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class SeriesPreparation(Preparation):
    """How CSV files are prepared: what the flags of `rules.OF_SERIES` say."""

    window: int
    stride: int
    columns: str
    label_column: str
    time_column: str
    missing: str

    @classmethod
    def of(cls, params: HParams) -> 'SeriesPreparation':
        values = {name: getattr(params, name) for name in OF_SERIES}
        return cls(**dict(values, window=params.window or _DEFAULT_WINDOW))

    def flags(self) -> List[str]:
        values = dataclasses.asdict(self)
        usual = dict(OF_SERIES, window=_DEFAULT_WINDOW)
        return [f'--{name}={values[name]}' for name in values if values[name] != usual[name]]

    def fits(self, copy: PreparedDataset) -> bool:
        if not self.flags():
            return True
        assert copy.windows is not None
        made = (copy.image_shape[0], copy.windows.stride)
        return (self.window, self.stride) == made and not self.columns

    @property
    def options(self) -> csv_table.Options:
        """What is asked of each file."""
        columns = tuple(self.columns.split(',')) if self.columns else ()
        return csv_table.Options(columns, self.label_column, self.time_column, self.missing)


class Series(OwnSource):
    """CSV files, one a machine, all with the same columns.

    The rows of a file are split in time: the first 10/12 are for training, then come validation and
    test. Where a twelfth is shorter than two windows, the whole file goes to one split, by hash of
    its name. In a folder, `train`, `validation` and `test` are splits, where there is the first of
    them; a missing one is taken from the files of `train`. No window crosses a border.
    """

    preparation: SeriesPreparation

    def __init__(self, path: str, preparation: SeriesPreparation):
        super().__init__(path, preparation)
        self._files, self._left_out = csv_files(path)
        if not self._files:
            raise UserError(f'{self.flag} holds no file that ends in {ENDING}.')
        self._names = self._checked_names()

    def seen(self) -> Any:
        return self._files

    def counts(self) -> Optional[Dict[str, int]]:
        return None

    def image_shape(self) -> Tuple[int, int, int]:
        return self.preparation.window, 1, len(self._names)

    def labels(self) -> Optional[List[Any]]:
        return None

    def scaling(self) -> Scaling:
        return tuple((name, 0.0, 1.0) for name in self._names)

    @property
    def preparing(self) -> str:
        return 'reading its rows'

    def write_splits(self, folder: str) -> Written:
        """Writes the rows of each split, in the units of the readings."""
        files_below.tell_left_out(self.path, self._left_out, 'CSV file')
        stretches: Dict[str, List[int]] = {split: [] for split in SPLITS}
        paths = {split: os.path.join(folder, f'{split}.float32') for split in SPLITS}
        rows = os.path.join(folder, 'rows')
        tables = [(file, self._table(file)) for file in self._files]
        left_out = [*map(errors.printable, tables[0][1].left_out)]
        if left_out:
            say(f'{self.flag}: left out the columns {errors.some(left_out, _SHOWN)}.')
        progress = _Progress(self.name, sum(opened.estimated_rows for _, opened in tables))
        for file, opened in tables:
            count = _write_rows(opened, rows, progress)
            for split, first, after in self._parts(file.path, count):
                if after - first >= self.preparation.window:
                    _append(rows, paths[split], first, after, len(self._names))
                    stretches[split].append(after - first)
        progress.close()
        os.unlink(rows)
        if csv_files(self.path)[0] != self._files:
            raise self.changed()
        windows = Windows(self.preparation.stride, stretches)
        counts = {split: len(windows.starts(split, self.preparation.window)) for split in SPLITS}
        self.check_counts(counts, f'windows of {self.preparation.window} rows')
        scaling = _scaling(paths['train'], self._names, self.flag)
        return Written(self.image_shape(), counts, 'float32', scaling, windows)

    def _table(self, file: File) -> CsvTable:
        path = os.path.join(self.path, file.path) if file.path else self.path
        below = f'/{errors.printable(file.path)}' if file.path else ''
        return CsvTable(path, self.flag.rstrip('/') + below, self.preparation.options)

    def _checked_names(self) -> Tuple[str, ...]:
        """The columns of the first file; refuses another file with others."""
        names = self._table(self._files[0]).column_names
        for file in self._files[1:]:
            others = self._table(file).column_names
            if others != names:
                differing = errors.some(sorted(set(others) ^ set(names) or set(names)), _SHOWN)
                raise UserError(
                    f'{self.flag}: {errors.printable(file.path)} has other columns than '
                    f'{errors.printable(self._files[0].path)}, or in another order ({differing}): '
                    'give --columns that all of them have.'
                )
        longest = table.SIZE.high
        if len(names) not in table.SIZE:
            raise UserError(
                f'{self.flag} has {len(names):,} columns, and a model takes at most {longest:,}: '
                'name some by --columns.'
            )
        return tuple(map(errors.printable, names))

    def _parts(self, path: str, count: int) -> Iterator[Tuple[str, int, int]]:
        """Yields (split, first row, row after the last) of the parts of a file of so many rows."""
        tops = {file.path.split('/')[0] for file in self._files if '/' in file.path}
        top = path.split('/')[0]
        wanted = [split for split in SPLITS[1:] if 'train' not in tops or split not in tops]
        if 'train' in tops and top != 'train':
            yield top, 0, count
            return
        if count // _PARTS < 2 * self.preparation.window:
            name = path or os.path.basename(self.path)
            part = int(own_source.hashes_of_paths([name])[0] % np.uint64(_PARTS))
            by_part = dict(zip((_PARTS - 2, _PARTS - 1), SPLITS[1:]))
            split = by_part.get(part, 'train')
            yield (split if split in wanted else 'train'), 0, count
            return
        after = count * (_PARTS - len(wanted)) // _PARTS
        yield 'train', 0, after
        for number, split in enumerate(wanted, _PARTS - len(wanted) + 1):
            first, after = after, count * number // _PARTS
            yield split, first, after


def csv_files(path: str, flag: str = '--source') -> Tuple[List[File], List[str]]:
    """Returns a CSV file, or those below a folder, sorted, and the paths of what is none there."""
    if os.path.isdir(path):
        found, others = files_below.listing(path, (ENDING,), flag)
        tops = [file.path.split('/')[0] for file in found if '/' in file.path]
        if 'train' in tops:
            others += [file.path for file in found if file.path.split('/')[0] not in SPLITS]
            found = [file for file in found if file.path.split('/')[0] in SPLITS]
        return found, others
    status = os.stat(path)
    return [File('', status.st_size, status.st_mtime_ns)], []


def is_series(path: str) -> bool:
    """Whether a path is a CSV file, or a folder that holds such and no images."""
    if not os.path.isdir(path):
        return path.lower().endswith(ENDING)
    return not files_below.holds(path, image_files.ENDINGS) and files_below.holds(path, (ENDING,))


class _Progress:
    """Shows how many rows have been read, of about how many."""

    def __init__(self, name: str, total: int):
        self._text, self._done = 'reading ' + name, 0
        self._shown = ImageProgress(total, 0, 'row')

    def add(self, count: int) -> None:
        self._done += count
        self._shown.total = max(self._shown.total, self._done + 1)
        self._shown.show(self._done, self._text, 1, 'rows')

    def close(self) -> None:
        self._shown.close()


def _write_rows(table: CsvTable, path: str, progress: _Progress) -> int:
    """Writes the readings of a file as float32; returns the number of its rows."""
    count = 0
    with open(path, 'wb') as f:
        for block in table.blocks():
            f.write(block.readings.astype('<f4').tobytes())
            count += len(block.readings)
            progress.add(len(block.readings))
    return count


def _append(source: str, target: str, first: int, after: int, columns: int) -> None:
    """Appends rows of one file of float32 rows to another."""
    width = 4 * columns
    with open(source, 'rb') as read, open(target, 'ab') as write:
        read.seek(first * width)
        left = (after - first) * width
        while left:
            content = read.read(min(left, 1 << 24))
            write.write(content)
            left -= len(content)


def _scaling(path: str, names: Sequence[str], flag: str) -> Scaling:
    """Name, mean and deviation of each column over the training rows; 1 for one that is constant.

    In two passes in float64, so that large means cost no digits.
    """
    with open(path, 'rb') as f:
        count, total = 0, np.zeros(len(names))
        low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        for rows in _blocks(f, len(names)):
            count, total = count + len(rows), total + rows.sum(axis=0)
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        mean, squares = total / count, np.zeros(len(names))
        for rows in _blocks(f, len(names)):
            squares += np.square(rows - mean).sum(axis=0)
    deviation, constant = np.sqrt(squares / count), low == high
    mean[constant], deviation[constant] = low[constant], 1.0
    if constant.any():
        still = errors.some([name for name, is_still in zip(names, constant) if is_still], _SHOWN)
        say(f'{flag}: the same in all training rows: {still}.')
    return tuple((name, float(m), float(d)) for name, m, d in zip(names, mean, deviation))


def _blocks(f: BinaryIO, columns: int) -> Iterator[np.ndarray]:
    """Yields the rows of a file, float64 `[n, columns]`."""
    f.seek(0)
    at_once = max(1, _NUMBERS_AT_ONCE // columns) * columns
    while True:
        rows = np.fromfile(f, '<f4', at_once)
        if not len(rows):
            return
        yield rows.reshape(-1, columns).astype(np.float64)
