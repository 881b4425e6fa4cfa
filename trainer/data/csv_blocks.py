"""The blocks of a CSV file's readings: made of records, checked, with the line of what is wrong."""

import itertools
import operator
from typing import Any, Callable, List, NamedTuple, Optional, Sequence

import numpy as np

from trainer.base import errors
from trainer.base.errors import UserError
from trainer.data import csv_cells
from trainer.data.csv_cells import Block, Head, Record, as_text, shown

_STEPS = 16  # A column of fewer numbers of float32 between its least and largest is too coarse.


class Layout(NamedTuple):
    """Which columns of a file are what, by their numbers from 0; `flag` as '--source=a.csv'."""

    flag: str
    head: Head
    columns: List[int]
    time: Optional[int]
    label: Optional[int]


class Converter:
    """Makes blocks of the records of one file, in their order.

    Args:
      layout: what the columns are.
      may_miss: whether values may be missing: then they are NaN.
      tell: is called with sentences that are no errors.
    """

    def __init__(self, layout: Layout, may_miss: bool, tell: Callable[[str], None]):
        self._layout, self._may_miss, self._tell = layout, may_miss, tell
        self._numbers = csv_cells.Numbers(layout.head.takes_comma)
        self._order = csv_cells.Order()
        self._told_order = False
        count = len(layout.columns)
        self._lowest, self._highest = np.full(count, np.inf), np.full(count, -np.inf)
        self._error = np.zeros(count)
        self._chosen = _chooser(layout.columns, len(layout.head.names))

    def block(self, records: List[Record]) -> Block:
        """Returns the readings, times and labels of some rows; raises UserError for a bad one."""
        layout = self._layout
        rows = [record.cells for record in records]
        self._check_lengths(records)
        cells = list(itertools.chain.from_iterable(map(self._chosen, rows)))
        try:
            numbers = self._numbers.converted(cells)
        except csv_cells.BadCell as error:
            raise self._wrong(records, error.index, str(error)) from error
        readings = self._as_float32(records, numbers)
        times = None if layout.time is None else [as_text(row[layout.time]) for row in rows]
        labels = None
        if layout.label is not None:
            labels = np.array([csv_cells.is_unusual(row[layout.label]) for row in rows], np.bool_)
        self._check_order(records, times)
        return Block(readings, times, labels)

    def end(self) -> None:
        """Tells of columns whose numbers differ by less than float32 can tell."""
        spread = np.where(self._highest > self._lowest, self._highest - self._lowest, 0.0)
        largest = np.maximum(-self._lowest, self._highest)
        # What rounding to float64 leaves of a constant is no reading.
        fine = np.flatnonzero((spread > 1e-14 * largest) & (_STEPS * 2 * self._error > spread))
        if not len(fine):
            return
        layout, low, high = self._layout, self._lowest[fine[0]], self._highest[fine[0]]
        names = [layout.head.names[layout.columns[i]] for i in fine]
        self._tell(
            f'{layout.flag}: float32 hardly tells the values of '
            f'{errors.some([errors.printable(name) for name in names])} apart (from {low!r} to '
            f'{high!r}): subtract a constant from them, or leave them out (--columns).'
        )

    def _as_float32(self, records: List[Record], numbers: np.ndarray) -> np.ndarray:
        """Returns the readings [n, columns]; raises UserError for a missing one."""
        numbers = numbers.reshape(len(records), -1)
        readings = numbers.astype(np.float32)
        is_missing = np.isnan(numbers)
        if is_missing.any() and not self._may_miss:
            raise self._wrong(
                records,
                int(np.argmax(is_missing)),
                'is a missing value: fill it in, or let missing values be interpolated '
                '(--missing=interpolate)',
            )
        # fmin and fmax pass over NaN.
        self._lowest = np.fmin(self._lowest, np.fmin.reduce(numbers))
        self._highest = np.fmax(self._highest, np.fmax.reduce(numbers))
        self._error = np.fmax(self._error, np.fmax.reduce(np.abs(numbers - readings)))
        return readings

    def _check_lengths(self, records: List[Record]) -> None:
        """Refuses rows of more or fewer cells than there are columns."""
        head = self._layout.head
        width = len(head.names)
        bad = next((record for record in records if len(record.cells) != width), None)
        if bad is not None:
            first = 'the header' if head.has_header else 'the first row'
            cells = '1 cell' if len(bad.cells) == 1 else f'{len(bad.cells):,} cells'
            raise UserError(
                f'{self._layout.flag}, line {bad.line:,}: has {cells}, and {first} '
                f'{width:,} (separated by {head.separator!r}): give each row one cell a '
                'column, and quote a cell that holds a separator.'
            )
        if head.ends_empty:
            bad = next((record for record in records if record.cells[-1].strip()), None)
            if bad is not None:
                raise UserError(
                    f'{self._layout.flag}, line {bad.line:,}: has {shown(bad.cells[-1])} behind '
                    'the last separator, where the first rows have nothing: name that column in a '
                    'header, or remove the value.'
                )

    def _check_order(self, records: List[Record], times: Optional[List[str]]) -> None:
        """Tells where moments decrease, once."""
        if times is None or self._told_order:
            return
        decrease = self._order.decrease(times)
        if decrease is not None:
            self._told_order = True
            index, before, after = decrease
            self._tell(
                f'{self._layout.flag}, line {records[index].line:,}: time decreases, from '
                f'{shown(before)} to {shown(after)}: rows are taken in the order of the lines.'
            )

    def _wrong(self, records: List[Record], index: int, reason: str) -> UserError:
        """Returns what to raise for one of the cells of the readings."""
        layout = self._layout
        row, number = divmod(index, len(layout.columns))
        column, record = layout.columns[number], records[row]
        return UserError(
            f'{layout.flag}, line {record.line_of(column):,}, column '
            f'{errors.printable(layout.head.names[column])}: {shown(record.cells[column])} '
            f'{reason}.'
        )


def _chooser(columns: Sequence[int], width: int) -> Callable[[List[str]], Any]:
    """Returns what takes the cells of some columns out of a row."""
    if list(columns) == list(range(width)):
        return lambda row: row
    if len(columns) == 1:
        return lambda row: (row[columns[0]],)
    return operator.itemgetter(*columns)
