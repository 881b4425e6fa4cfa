"""What is written of series: `windows.csv` and `rows.csv`."""

import contextlib
import csv
import functools
import os
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from trainer.base import files
from trainer.scoring import csv_output
from trainer.scoring.csv_output import shortest
from trainer.scoring.series_rows import Judge, Model, OfRows, OfWindows, Part
from trainer.settings.wording import LOSSES

WINDOWS, ROWS = 'windows.csv', 'rows.csv'
_BYTES_AT_ONCE = 1 << 22
_OF_WINDOW = ('first_row', 'last_row', *LOSSES, 'quantile', 'is_unusual')
_OF_ROW = ('file', 'row', 'time', 'score', 'quantile', 'is_unusual')


class Tables:
    """The tables that are written, line by line."""

    def __init__(self, model: Model, has_times: bool):
        self._model, self._has_times = model, has_times
        # By the file's name; of one of several files at first a file of its own.
        self._outputs: Dict[str, Callable[[bytes], Any]] = {}
        self._writers: Dict[str, Any] = {}
        self._of_file: List[str] = []

    def add(self, part: Part) -> None:
        """Writes lines of what the model says."""
        if isinstance(part, OfWindows) and WINDOWS in self._writers:
            self._writers[WINDOWS].writerows(self._of_windows(part))
        if isinstance(part, OfRows) and ROWS in self._writers:
            self._writers[ROWS].writerows(self._of_rows(part))

    def _of_windows(self, part: OfWindows) -> Iterator[List[str]]:
        losses = [part.outputs[name] for name in LOSSES]
        for at, start in enumerate(part.starts.tolist()):
            numbers = [shortest(loss[at]) for loss in losses]
            judged = _judged(part.quantiles, part.unusual, at)
            end = start + self._model.window - 1
            yield [*self._of_file, str(start), str(end), *numbers, *judged]

    def _of_rows(self, part: OfRows) -> Iterator[List[str]]:
        nothing = [''] * (3 + part.nats.shape[1])
        is_known = ~np.isnan(part.scores)
        for at in range(len(part.scores)):
            line = [*self._of_file, str(part.first + at)]
            if self._has_times:
                line.append(part.times[at] if part.times else '')
            if is_known[at]:
                line.append(shortest(part.scores[at]))
                line += _judged(part.quantiles, part.unusual, at)
                line += map(str, part.nats[at])
            else:
                line += nothing
            yield line

    @contextlib.contextmanager
    def file(self, name: Optional[str]) -> Iterator[None]:
        """Within it, lines are of a file; those of one among several are kept if it ends well.

        Args:
          name: None of a single file, whose tables are whole or none.
        """
        if name is None or not self._writers:
            yield
            return
        writers, self._of_file = self._writers, [name]
        with contextlib.ExitStack() as stack:
            aside = {table: stack.enter_context(tempfile.TemporaryFile()) for table in writers}
            try:
                self._writers = {
                    table: csv.writer(csv_output.Utf8(f.write)) for table, f in aside.items()
                }
                yield
            finally:
                self._writers, self._of_file = writers, []
            for table, f in aside.items():
                f.seek(0)
                for content in iter(functools.partial(f.read, _BYTES_AT_ONCE), b''):
                    self._outputs[table](content)

    @contextlib.contextmanager
    def opened(self, folder: str, is_of_several: bool) -> Iterator[List[str]]:
        """Opens the tables in a folder, which appear whole at the end; yields their paths."""
        with contextlib.ExitStack() as stack:
            for table, comment, heads in self._layout(is_of_several):
                path = os.path.join(folder, table)
                write = stack.enter_context(files.replacing(path))
                self._writers[table] = csv_output.writer(write, comment, heads)
                self._outputs[table] = write
            yield [os.path.join(folder, table) for table in self._writers]

    def _layout(self, is_of_several: bool) -> Iterator[Tuple[str, str, List[str]]]:
        model, of_file = self._model, ['file'] if is_of_several else []
        nats = 'nats of standardised readings, higher is stranger'
        yield WINDOWS, f'{nats}; {_said(model.windows)}', [*of_file, *_OF_WINDOW]
        if model.scores_rows:
            heads = [*of_file, 'row', *(['time'] if self._has_times else []), *_OF_ROW[3:]]
            comment = f'{nats}, mean over the windows that cover a row; {_said(model.rows)}'
            yield ROWS, comment, [*heads, *names_beside(model.columns)]


def _said(judge: Judge) -> str:
    among = f'quantile among {judge.among}; ' if judge.among else ''
    return f'{among}is_unusual: {judge.threshold or "not known"}'


def _judged(quantiles: Optional[np.ndarray], unusual: Optional[np.ndarray], at: int) -> List[str]:
    return [
        '' if quantiles is None else shortest(quantiles[at]),
        '' if unusual is None else str(bool(unusual[at])),
    ]


def names_beside(columns: Sequence[str]) -> List[str]:
    """Returns a name for each column of readings that is none of the table's other columns."""
    taken, names = {*_OF_ROW, *columns}, []
    for column in columns:
        name = column
        if column in _OF_ROW:
            while name in taken:
                name += ' (nats)'
            taken.add(name)
        names.append(name)
    return names
