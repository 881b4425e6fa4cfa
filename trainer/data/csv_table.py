"""A CSV file of sensor readings: a row a time step, a column a sensor."""

import collections
import itertools
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from trainer.base import console, errors
from trainer.base.errors import UserError
from trainer.data import csv_cells, csv_format
from trainer.data.csv_blocks import Converter, Layout
from trainer.data.csv_cells import Block, Record
from trainer.data.csv_gaps import interpolated

__all__ = ['Block', 'CsvTable', 'Options', 'interpolated']

# Names of what says when a row was read; the first of them that a file has is its time column. A
# time beside a date is one of day.
_TIME_NAMES = ('timestamp', 'datetime', 'date', 'time', 'ts', 'index', 'unnamed: 0', '')
# More are no faster, and take more memory.
_CELLS_AT_ONCE = 50_000


class Options(NamedTuple):
    """What the flags say.

    Attributes:
      columns: the names of those that are readings, in the order wanted; () for all of numbers.
      label_column: '' for none.
      time_column: '' where it is to be found, if there is one.
      missing: 'refuse' or 'interpolate'.
    """

    columns: Tuple[str, ...] = ()
    label_column: str = ''
    time_column: str = ''
    missing: str = 'refuse'


class CsvTable:
    """One CSV file, whose head has been read.

    Cells are separated by commas, semicolons or tabs; in the last two a decimal comma is read too.
    The text is UTF-8, or UTF-16 with its mark. The first line is a header where a cell of it is a
    text, but for texts beside numbers with texts below them, and dates with dates below; without
    one, columns are `column_1` and so on, as are those without a name. Line ends and several blanks
    in a name are one blank. Blank lines are passed over.

    Args:
      path: where it is.
      flag: what led to it, as '--source=readings.csv'.
      options: what the flags say.

    Attributes:
      column_names: of the readings.
      time_name, label_name: of those columns, '' for none (and for an index without a name).
      estimated_rows: about how many rows there are, by the size of the file.
      has_times: whether there is a time column.
      left_out: the names of all other columns: of texts, or of more than one time.

    Raises:
      UserError: the file cannot be read, or has not the columns that are wanted.
    """

    def __init__(self, path: str, flag: str, options: Options):
        self._path, self._flag, self._options = path, flag, options
        self._status = csv_format.status(path, flag)
        self._head = csv_format.head(path, flag)
        self._names = self._head.names[:-1] if self._head.ends_empty else self._head.names
        self._told: List[str] = []
        self._label: Optional[int] = None
        if options.label_column:
            self._label = self._number_of('--label_column', options.label_column)
        self._time = self._time_column()
        self._columns = self._reading_columns()
        used = {*self._columns, self._label, self._time}
        self._check_unique([self._names[number] for number in used if number is not None])
        self.column_names = tuple(self._names[number] for number in self._columns)
        self.has_times = self._time is not None
        self.time_name = '' if self._time is None else self._names[self._time]
        self.label_name = options.label_column
        self.estimated_rows = csv_format.estimated_rows(path)
        self.left_out = tuple(name for i, name in enumerate(self._names) if i not in used)

    def blocks(self, rows_at_once: int = 10_000, allow_missing: bool = False) -> Iterator[Block]:
        """Yields all rows in the order of the file, at most so many at once.

        Where missing values are interpolated, blocks may be longer, as long as a gap is.

        Args:
          allow_missing: whether they may stay NaN where they are not interpolated.

        Raises:
          UserError: a row is no row of the table, or the file changed meanwhile.
        """
        interpolates = self._options.missing == 'interpolate'
        found = self._read(rows_at_once, interpolates or allow_missing)
        return interpolated(found, self._flag, self.column_names) if interpolates else found

    def _number_of(self, flag: str, name: str) -> int:
        """The number of a named column; raises UserError where there is none."""
        if name not in self._names:
            names = [errors.printable(known) for known in self._names if known]
            raise UserError(
                f'{self._flag} has no column {name!r} ({flag}): its columns are '
                f'{errors.some(names, 20)}.'
            )
        return self._names.index(name)

    def _time_column(self) -> Optional[int]:
        options = self._options
        if options.time_column:
            return self._number_of('--time_column', options.time_column)
        free = {
            name.lower(): number
            for number, name in reversed(list(enumerate(self._names)))
            if number != self._label and name not in options.columns
        }
        known = [free[name] for name in _TIME_NAMES if name in free]
        if not known and 0 in free.values() and self._head.kinds[0] == csv_cells.MOMENT:
            return 0
        return known[0] if known else None

    def _reading_columns(self) -> List[int]:
        """The numbers of the columns of readings; raises UserError where there is none."""
        options = self._options
        if options.label_column and options.label_column == options.time_column:
            raise UserError(
                f'--label_column and --time_column both are {options.label_column!r}: name two '
                'columns, or leave one flag out.'
            )
        for name in options.columns:
            if options.columns.count(name) > 1:
                raise UserError(f'--columns names {name!r} twice: name each column once.')
            if name and name in (options.label_column, options.time_column):
                flag = 'label' if name == options.label_column else 'time'
                raise UserError(
                    f'--columns names {name!r}, which --{flag}_column names too: take it out of '
                    'one of them.'
                )
        if options.columns:
            return [self._number_of('--columns', name) for name in options.columns]
        found = [
            number
            for number, kind in enumerate(self._head.kinds[: len(self._names)])
            if kind in (csv_cells.NUMBER, csv_cells.MISSING)
            and number not in (self._label, self._time)
            and self._names[number].lower() not in _TIME_NAMES
        ]
        if not found:
            raise UserError(
                f'{self._flag} has no column of numbers (cells are separated by commas, semicolons '
                'or tabs): give a file of readings, or name columns (--columns).'
            )
        return found

    def _check_unique(self, names: Sequence[str]) -> None:
        counts = collections.Counter(self._names)
        twice = next((name for name in names if counts[name] > 1), None)
        if twice is not None:
            numbers = [str(i) for i, name in enumerate(self._names, 1) if name == twice]
            raise UserError(
                f'{self._flag} names {counts[twice]} columns {twice!r} (columns '
                f'{errors.some(numbers)}): give each its own name.'
            )

    def _read(self, rows_at_once: int, may_miss: bool) -> Iterator[Block]:
        """Yields the rows as they are, NaN where a value is missing."""
        self._check_unchanged()
        layout = Layout(self._flag, self._head, self._columns, self._time, self._label)
        converter = Converter(layout, may_miss, self._say_once)
        records = self._records()
        at_once = max(1, min(rows_at_once, _CELLS_AT_ONCE // len(self._head.names)))
        while True:
            try:
                some = list(itertools.islice(records, at_once))
                block = converter.block(some) if some else None
            except UserError:
                self._check_unchanged()  # A file that is being written is damaged in any way.
                raise
            if block is None:
                break
            yield block
        self._check_unchanged()
        converter.end()

    def _records(self) -> Iterator[Record]:
        """Yields the rows behind the header."""
        found = csv_format.records(self._path, self._flag, self._head.separator)
        if len(self._head.names) > 1:
            found = (record for record in found if record.cells != [''])  # A line of blanks.
        return itertools.islice(found, 1 if self._head.has_header else 0, None)

    def _check_unchanged(self) -> None:
        if csv_format.status(self._path, self._flag) != self._status:
            raise UserError(
                f'{self._flag} changed while it was read: start again when nothing is written '
                'there.'
            )

    def _say_once(self, sentence: str) -> None:
        """Says what a second reading of the file would say again."""
        if sentence not in self._told:
            self._told.append(sentence)
            console.say(sentence)
