"""The parts of a CSV file, and what its cells say: numbers, missing values, moments and labels."""

import datetime
import functools
import operator
import re
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

_MISSING = frozenset(['', 'na', 'n/a', '#n/a', 'nan', '-nan', 'null', 'none', '-', '?'])
_OFTEN_MISSING = _MISSING | {'NA', 'N/A', '#N/A', 'NaN', 'NULL', 'None'}
_USUAL = _MISSING | {'false', 'normal'}
_TIME = r'\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?(?: ?[ap]m)?(?:z| ?[+-]\d{2}:?\d{2})?'
_DATE = r'\d{1,4}([-/.])(?:\d{1,2}|[a-z]{3,9})\1\d{1,4}'
_MOMENT = re.compile(f'(?:{_DATE}(?:[t ]{_TIME})?|{_TIME})', re.IGNORECASE | re.ASCII)
# What is meant as a number: of thousands separators, or with a comma for the point.
_MEANT = re.compile(r"[+-]?(?:\d{1,3}(?:[,.\s'\u2019_]\d{3})+(?:[.,]\d+)?|\d*,\d+)")
_LONGEST_SHOWN = 60
_LINE_END = re.compile(r'\r\n|\r|\n')
NUMBER, MISSING, MOMENT, TEXT = 'number', 'missing', 'moment', 'text'


class Record(NamedTuple):
    """The cells of a row, and the line of the file, from 1, in which it begins."""

    line: int
    cells: List[str]

    def line_of(self, column: int) -> int:
        """Returns the line of a cell: quoted cells before it may hold line ends."""
        return self.line + len(_LINE_END.findall(''.join(self.cells[:column])))


class Head(NamedTuple):
    """What the first lines say.

    Attributes:
      separator: ',', ';' or a tab.
      has_header: whether the first record is the names.
      names: of each column; '' may be that of the first, the index of a data frame, and of the last
        where `ends_empty`.
      kinds: of each column: NUMBER, MOMENT or TEXT of `csv_cells`; MISSING where no value is.
      ends_empty: whether each line ends in a separator, behind which a column of nothing is.
    """

    separator: str
    has_header: bool
    names: Tuple[str, ...]
    kinds: Tuple[str, ...]
    ends_empty: bool

    @property
    def takes_comma(self) -> bool:
        return self.separator != ','


class Block(NamedTuple):
    """Some rows that follow each other.

    Attributes:
      readings: float32 [n, columns]; NaN where a value is missing, if those are allowed.
      times: the texts of the time column; None without one.
      labels: bool [n], whether the label is not a usual one: a number that is 0, false, normal, or
        a missing value; None without a label column.
    """

    readings: np.ndarray
    times: Optional[List[str]]
    labels: Optional[np.ndarray]


class BadCell(ValueError):
    """A cell that is no number which float32 holds; `index` of it among those converted."""

    def __init__(self, index: int, reason: str):
        super().__init__(reason)
        self.index = index


def kind(cell: str, takes_comma: bool) -> str:
    """Returns NUMBER, MISSING, MOMENT (a date or a time of day) or TEXT.

    NUMBER includes what is meant as one, as 1,234 is: when it is read it will be refused.
    """
    plain = _plain(cell, takes_comma)
    if plain == 'nan':
        return MISSING
    if _floats([plain]) is not None or _MEANT.fullmatch(cell.strip()):
        return NUMBER
    return MOMENT if _MOMENT.fullmatch(plain) else TEXT


@functools.lru_cache(maxsize=1024)
def is_unusual(label: str) -> bool:
    """Returns whether a label differs from 0: usual are 0, what is missing, false and normal."""
    label = label.strip().lower()
    number = None if label in _USUAL else _floats([_plain(label, takes_comma=True)])
    return label not in _USUAL and (number is None or number[0] != 0)


def as_text(cell: str) -> str:
    """Returns a cell as text that UTF-8 can write: of other bytes, their escapes."""
    if cell.isascii():
        return cell
    return cell.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def shown(cell: str) -> str:
    """Returns a cell in quotes, or the start of a long one."""
    text = as_text(cell)
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + '...')


class Numbers:
    """Converts the cells of one file, whose numbers have all the same decimal mark.

    Args:
      takes_comma: whether a comma may be that mark, as it separates no cells.
    """

    def __init__(self, takes_comma: bool):
        self._takes_comma, self._marks = takes_comma, ''

    def converted(self, cells: List[str]) -> np.ndarray:
        """Returns the numbers, float64, NaN where a value is missing; raises BadCell."""
        numbers = _floats(cells)
        if numbers is None:  # Each step is worth its time only where the one before it failed.
            simple = ['nan' if cell in _OFTEN_MISSING else cell for cell in cells]
            if self._takes_comma:  # No cell holds a NUL: such a file is refused.
                simple = '\0'.join(simple).replace(',', '.').split('\0')
            numbers = _floats(simple)
        if numbers is None:
            plain = [_plain(cell, self._takes_comma) for cell in cells]
            numbers = _floats(plain)
            if numbers is None:
                bad = next(i for i, cell in enumerate(plain) if _floats([cell]) is None)
                raise BadCell(bad, _why_not(cells[bad]))
        if self._takes_comma:
            self._check_marks(cells)
        with np.errstate(over='ignore', invalid='ignore'):
            infinite = np.isinf(numbers.astype(np.float32))
        if infinite.any():
            bad = int(np.argmax(infinite))
            is_infinite = 'inf' in cells[bad].lower()
            raise BadCell(
                bad,
                'is infinite: leave the cell empty where there is no value'
                if is_infinite
                else 'is larger than float32 holds (3.4e38): scale the column',
            )
        return numbers

    def _check_marks(self, cells: List[str]) -> None:
        """Refuses 1,234 beside 0.5: nobody knows whether that is 1.234 or 1234."""
        content = ''.join(cells)
        found = [mark for mark in '.,' if mark in content]
        if len(set(self._marks).union(found)) < 2:
            self._marks = self._marks or ''.join(found)
            return
        for index, cell in enumerate(cells):
            other = [mark for mark in '.,' if mark in cell]
            if set(self._marks).union(other) == {'.', ','}:
                raise BadCell(
                    index,
                    f'has {other[0]!r}, and other numbers have {self._marks!r}: write all with '
                    'the same decimal mark and without thousands separators',
                )
            self._marks = self._marks or ''.join(other)


def _plain(cell: str, takes_comma: bool) -> str:
    """Returns a number as Python writes it, 'nan' for what is missing, and any other text."""
    cell = cell.strip()
    if cell.lower() in _MISSING:
        return 'nan'
    return cell.replace(',', '.') if takes_comma else cell


def _floats(cells: List[str]) -> Optional[np.ndarray]:
    """Returns numbers, None where a cell is none."""
    content = ''.join(cells)
    if '_' in content or not content.isascii():  # Python takes 1_000, and the digits of all.
        return None
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None


def _why_not(cell: str) -> str:
    """Says why a text is no number, and what to do."""
    if _MEANT.fullmatch(cell.strip()):
        return (
            'has a decimal comma or thousands separators: write 1234.5, or 1234,5 in a file whose '
            'columns are separated by semicolons or tabs'
        )
    return 'is no number: name the columns of numbers (--columns), or mend the value'


class Order:
    """Notices where moments in time decrease, be they numbers or ISO dates."""

    def __init__(self) -> None:
        self._last: List[str] = []

    def decrease(self, times: List[str]) -> Optional[Tuple[int, str, str]]:
        """Returns the first of the next moments below the one before it.

        Returns: its index among `times`, the one before and itself; None where there is none.
        """
        start, times = -len(self._last), self._last + times
        self._last = times[-1:]
        numbers = _floats(times)
        if numbers is not None:
            falls = numbers[1:] < numbers[:-1]
        else:  # ISO dates stand in the order of their texts, but for zones and fractions.
            falls = np.fromiter(map(operator.lt, times[1:], times), np.bool_, len(times) - 1)
        for index in np.flatnonzero(falls).tolist():
            before, after = _moment(times[index]), _moment(times[index + 1])
            if before is not None and after is not None and after < before:
                return start + index + 1, times[index], times[index + 1]
        return None


def _moment(text: str) -> Optional[float]:
    """Returns a number or an ISO date as a number, None for all else."""
    numbers = _floats([text])
    if numbers is not None:
        return numbers[0]
    text = re.sub('[zZ]$', '+00:00', text.strip())
    text = re.sub(r'[.,](\d{1,6})\d*', lambda found: '.' + found.group(1).ljust(6, '0'), text)
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or datetime.timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None
