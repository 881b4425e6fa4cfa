"""The format of a CSV file: its records, and what its head says of separator, names and kinds."""

import collections
import contextlib
import csv
import itertools
import os
import stat
from typing import IO, Iterator, List, Tuple

from trainer.base import errors
from trainer.base.errors import UserError
from trainer.data import csv_cells
from trainer.data.csv_cells import Head, Record

_SEPARATORS = (',', ';', '\t')
_LONGEST_LINE = 1 << 24
_ROWS_OF_HEAD = 100
_CELLS_OF_HEAD = 200_000


def status(path: str, flag: str) -> Tuple[int, int]:
    """Returns what any write changes; raises UserError for what is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise _unreadable(flag, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f'{flag} is a folder: give a .csv file.')
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f'{flag} is no regular file: save the readings to a .csv file.')
    return found.st_size, found.st_mtime_ns


def estimated_rows(path: str) -> int:
    """Returns about how many rows a file has, by its size and its first lines."""
    with open(path, 'rb') as f:
        start, size = f.read(1 << 16), os.fstat(f.fileno()).st_size
    lines = max(start.count(b'\n'), start.count(b'\r'), 1)
    return max(1, size * lines // max(1, len(start)))


def records(path: str, flag: str, separator: str) -> Iterator[Record]:
    """Yields the records but for blank lines; raises UserError where the file is none of text."""
    line = 1
    try:
        with contextlib.closing(_opened(path)) as f:
            reader = csv.reader(
                _lines(f, flag), delimiter=separator, skipinitialspace=True, strict=True
            )
            for cells in reader:
                if cells:
                    yield Record(line, cells)
                line = reader.line_num + 1
    except (OSError, UnicodeError) as error:  # UTF-16 of which another file was made meanwhile.
        raise _unreadable(flag, error) from error
    except csv.Error as error:
        raise UserError(f'{flag}, line {line:,}: {_csv_problem(str(error))}.') from error


def _csv_problem(said: str) -> str:
    """What Python's words for a damaged file mean, and what to do."""
    if 'NULL' in said or 'NUL' in said:
        return 'this or the next lines hold a NUL byte: save the file as text in UTF-8'
    if 'field limit' in said:
        return f'a cell is longer than {csv.field_size_limit():,} characters: close its quotes'
    if 'unexpected end' in said:
        return 'a quoted cell begins here and does not end: close its quotes'
    return f'a quoted cell is wrong ({said}): write a quote inside of quotes twice'


def _opened(path: str) -> IO[str]:
    """Opens a text of UTF-8, or UTF-16 where it begins so. What is neither stays, as escapes."""
    with open(path, 'rb') as f:
        is_utf_16 = f.read(2) in (b'\xff\xfe', b'\xfe\xff')
    if is_utf_16:
        return open(path, encoding='utf-16', errors='replace', newline='')
    return open(path, encoding='utf-8-sig', errors='surrogateescape', newline='')


def _lines(f: IO[str], flag: str) -> Iterator[str]:
    """Yields lines; a file without line ends would be a single one of any length."""
    for line in iter(lambda: f.readline(_LONGEST_LINE), ''):
        if len(line) == _LONGEST_LINE:
            raise UserError(
                f'{flag} has a line of more than {_LONGEST_LINE:,} characters: give a .csv file of '
                'a row a line.'
            )
        yield line


def _unreadable(flag: str, error: BaseException) -> UserError:
    return UserError(f'{flag} cannot be read ({errors.reason(error)}): {errors.remedy(error)}.')


def head(path: str, flag: str) -> Head:
    """Reads the first rows; raises UserError where they are no table."""
    separator = max(_SEPARATORS, key=_Fit(path, flag).of)
    rows = _first(records(path, flag, separator), at_least=2)
    if not rows:
        raise UserError(f'{flag} is empty: give a file with a row a line.')
    takes_comma = separator != ','
    first, below = rows[0].cells, [row.cells for row in rows[1:]]
    width = len(below[0]) if below else len(first)
    kinds = _kinds(below, width, takes_comma)
    has_header = _is_header([csv_cells.kind(cell, takes_comma) for cell in first], kinds) or (
        below != [] and first == ['', *map(str, range(len(first) - 1))]  # As pandas counts.
    )
    if has_header and not below:
        raise UserError(f'{flag} has a header in line {rows[0].line} and no rows: add rows.')
    names = _names(rows[0], flag, below) if has_header else [''] * len(first)
    if not has_header:
        below.insert(0, first)
        kinds = _kinds(below, len(first), takes_comma)
    ends_empty = len(names) > 1 and not names[-1] and all(row[-1:] == [''] for row in below)
    unnamed = {0} if has_header else set()
    unnamed |= {len(names) - 1} if ends_empty else set()
    filled = [
        name if name or number in unnamed else f'column_{number + 1}'
        for number, name in enumerate(names)
    ]
    return Head(separator, has_header, tuple(filled), tuple(kinds[: len(names)]), ends_empty)


class _Fit:
    """How well separators fit the first rows of a file."""

    def __init__(self, path: str, flag: str):
        self._rows = {mark: self._read(path, flag, mark) for mark in _SEPARATORS}
        self._separate = {mark for mark, rows in self._rows.items() if rows and len(rows[0]) > 1}

    def _read(self, path: str, flag: str, separator: str) -> List[List[str]]:
        try:
            return [row.cells for row in _first(records(path, flag, separator), at_least=1)[:20]]
        except UserError:  # Told where the file is read with the separator that is chosen.
            return []

    def of(self, separator: str) -> Tuple[bool, int, float, int]:
        """Returns a key that is highest for the separator of the file.

        It separates cells of the first row, gives rows the same number of cells, and those are
        numbers: 1,5;2,5 is two numbers for `;`, and one number less for a comma.
        """
        rows = self._rows[separator]
        if not rows:
            return False, 0, 0.0, 0
        width = len(rows[0])
        kinds = [csv_cells.kind(cell, separator != ',') for row in rows for cell in row[:1000]]
        numbers = sum(kind in (csv_cells.NUMBER, csv_cells.MISSING) for kind in kinds)
        alike = sum(len(row) == width for row in rows)
        return separator in self._separate, alike, numbers / len(kinds), width


def _first(found: Iterator[Record], at_least: int) -> List[Record]:
    """Returns some first records, fewer of long ones; lines of blanks are none in a table.

    Raises UserError where one of those is damaged that there have to be at least.
    """
    rows: List[Record] = []
    try:
        for row in itertools.islice(found, _ROWS_OF_HEAD):
            rows.append(row)
            if len(rows) > 2 and len(rows) * len(row.cells) > _CELLS_OF_HEAD:
                break
    except UserError:
        if len(rows) < at_least:
            raise
    is_table = any(len(row.cells) > 1 for row in rows)
    return [row for row in rows if not (is_table and row.cells == [''])]


def _kinds(rows: List[List[str]], width: int, takes_comma: bool) -> List[str]:
    """The kind that most cells of each column are of, of those that have a value."""
    kinds = []
    for column in range(width):
        cells = [row[column] for row in rows if column < len(row)]
        counts = collections.Counter(csv_cells.kind(cell, takes_comma) for cell in cells)
        del counts[csv_cells.MISSING]
        kinds.append(counts.most_common(1)[0][0] if counts else csv_cells.MISSING)
    return kinds


def _is_header(first: List[str], below: List[str]) -> bool:
    """Whether a first row of these kinds are names of columns of those.

    A text is a name; but beside numbers, where the column has texts below too, it is a value. A
    date is a name only where numbers are below.
    """
    has_number = csv_cells.NUMBER in first
    pairs = itertools.zip_longest(first, below[: len(first)])
    return any(
        (own == csv_cells.TEXT and not (has_number and column == csv_cells.TEXT))
        or (own == csv_cells.MOMENT and column == csv_cells.NUMBER)
        for own, column in pairs
    )


def _names(row: Record, flag: str, below: List[List[str]]) -> List[str]:
    """The names in a header, of as many columns as rows have, '' for an empty one."""
    names = [' '.join(cell.split()) for cell in row.cells]
    bad = next((name for name in names if not _is_text(name)), None)
    if bad is not None:
        raise UserError(
            f'{flag}, line {row.line:,}: the name {csv_cells.shown(bad)} is not in UTF-8: save the '
            'file in UTF-8.'
        )
    width = len(below[0])
    if len(names) == width - 1 and all(cells[-1:] == [''] for cells in below):
        names.append('')
    if len(names) == width + 1 and not names[-1]:
        names.pop()
    return names


def _is_text(name: str) -> bool:
    return not any('\ud800' <= letter <= '\udfff' or letter == '\ufffd' for letter in name)
