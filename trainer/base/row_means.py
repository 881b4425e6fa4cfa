"""From what overlapping windows say of their rows to what is said of each row."""

from typing import Iterator, Optional

import numpy as np


class RowMeans:
    """The mean, for each row, over the windows that cover it, which start one row apart."""

    def __init__(self) -> None:
        self._sums: Optional[np.ndarray] = None  # Of rows that the next windows cover too.
        self._counts = np.zeros(0)

    def add(self, values: np.ndarray) -> np.ndarray:
        """Takes in windows, `[n, window, ...]`; returns the first n rows, `[n, ...]`, float64.

        No later window covers these.
        """
        count, window = values.shape[:2]
        sums = np.zeros([count + window - 1, *values.shape[2:]])
        counts = np.zeros(count + window - 1)
        if self._sums is not None:
            sums[: window - 1] += self._sums
            counts[: window - 1] += self._counts
        for offset in range(window):
            sums[offset : offset + count] += values[:, offset]
            counts[offset : offset + count] += 1
        self._sums, self._counts = sums[count:], counts[count:]
        return sums[:count] / _beside(counts[:count], sums)

    def rest(self) -> np.ndarray:
        """Returns the rows of the last window that are not returned yet, and begins anew."""
        assert self._sums is not None, 'no window was added'
        rows = self._sums / _beside(self._counts, self._sums)
        self._sums = None
        return rows


def _beside(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    return counts.reshape([-1] + [1] * (sums.ndim - 1))


def runs(starts: np.ndarray) -> Iterator[slice]:
    """Yields the slices of windows that each start one row after the one before.

    Args:
      starts: the rows at which windows start, int64 `[n]`.
    """
    breaks = np.flatnonzero(np.diff(starts) != 1) + 1
    for first, after in zip([0, *breaks], [*breaks, len(starts)]):
        if after > first:
            yield slice(int(first), int(after))


def of_windows(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns the rows of windows, `[n, window, ...]`, that start at `starts`; see `RowMeans`.

    Where the next window starts elsewhere than one row later, rows begin anew.
    """
    found = []
    for run in runs(starts):
        means = RowMeans()
        found += [means.add(values[run]), means.rest()]
    return np.concatenate(found)
