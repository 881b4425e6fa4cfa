"""Blocks of readings, and missing values of them: interpolated in bounded memory."""

from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np

from trainer.base import errors
from trainer.base.errors import UserError
from trainer.data.csv_cells import Block


def interpolated(
    blocks: Iterator[Block], flag: str = 'a file', names: Sequence[str] = ()
) -> Iterator[Block]:
    """Yields blocks in which no value is missing.

    A missing value lies on the line between its column's neighbours, by the number of the row; at
    the start and at the end it is the nearest value. A block is held until each column has a value
    at or behind its end: what is in memory is as long as the longest gap.

    Args:
      blocks: those of one file, in order.
      flag, names: what the file and its columns are called, where a column has no value.

    Raises:
      UserError: a column has no value at all.
    """
    gaps: Optional[_Gaps] = None
    for block in blocks:
        gaps = gaps or _Gaps(block.readings.shape[1])
        gaps.add(block)
        if gaps.ready():
            yield gaps.taken(gaps.ready())
    if gaps is not None and gaps.held():
        empty = gaps.empty_columns()
        if empty:
            called = [errors.printable(names[i]) if names else str(i + 1) for i in empty]
            raise UserError(
                f'{flag} has no value in the column {errors.some(called)}: leave it out '
                '(--columns).'
            )
        yield gaps.taken(gaps.held())


class _Gaps:
    """The rows that are held, from the number `_start` of the file on."""

    def __init__(self, columns: int) -> None:
        self._blocks: List[Block] = []
        self._start = self._end = 0
        self._last = np.full(columns, -1)  # The row of each column's last value, -1 for none.
        # The last value of each column before the rows that are held, and its row, -1 for none.
        self._before, self._before_at = np.zeros(columns), np.full(columns, -1)

    def add(self, block: Block) -> None:
        """Takes the next rows."""
        count = len(block.readings)
        has_value, last, _ = _last_values(block.readings)
        self._last = np.where(has_value, self._end + last, self._last)
        self._blocks.append(block)
        self._end += count

    def held(self) -> int:
        """Returns how many rows are held."""
        return self._end - self._start

    def ready(self) -> int:
        """Returns how many of them lie in no gap whose end is not known yet."""
        return max(0, int(self._last.min()) + 1 - self._start)

    def empty_columns(self) -> List[int]:
        """Returns the numbers of the columns without any value so far."""
        return np.flatnonzero(self._last < 0).tolist()

    def taken(self, count: int) -> Block:
        """Takes the first rows out, filled."""
        whole = _joined(self._blocks)
        rows = whole.readings[:count].copy()
        for column in np.flatnonzero(np.isnan(rows).any(axis=0)).tolist():
            rows[:, column] = self._filled(whole.readings[:, column], count, column)
        self._remember(whole.readings[:count])
        self._start += count
        rest = _slice(whole, slice(count, None))
        self._blocks = [rest] if len(rest.readings) else []
        return _slice(whole, slice(0, count))._replace(readings=rows)

    def _filled(self, values: np.ndarray, count: int, column: int) -> np.ndarray:
        """The first values of those of a column that are held, with those between."""
        numbers = self._start + np.arange(len(values))
        there = ~np.isnan(values)
        known, at = values[there].astype(np.float64), numbers[there]
        if self._before_at[column] >= 0:
            known = np.append(self._before[column], known)
            at = np.append(self._before_at[column], at)
        between = np.interp(numbers[:count], at, known)
        return np.where(there[:count], values[:count], between)

    def _remember(self, readings: np.ndarray) -> None:
        """Keeps the last value of each column, from which the next gap's line begins."""
        has_value, last, values = _last_values(readings)
        self._before = np.where(has_value, values, self._before)
        self._before_at = np.where(has_value, self._start + last, self._before_at)


def _last_values(readings: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns whether columns have a value, the row of the last, and that, where they have."""
    there = ~np.isnan(readings)
    last = len(readings) - 1 - np.argmax(there[::-1], axis=0)
    return there.any(axis=0), last, readings[last, np.arange(readings.shape[1])]


def _joined(blocks: List[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    first = blocks[0]
    return Block(
        np.concatenate([block.readings for block in blocks]),
        None if first.times is None else [time for block in blocks for time in block.times or []],
        None if first.labels is None else np.concatenate([block.labels for block in blocks]),
    )


def _slice(block: Block, rows: slice) -> Block:
    return Block(*(None if part is None else part[rows] for part in block))
