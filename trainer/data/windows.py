"""Windows of rows that come in any number at a time, and back from these to rows."""

from typing import Any, Iterator, Tuple

import numpy as np

from trainer.base import row_means
from trainer.base.row_means import RowMeans


class Cutter:
    """Cuts windows out of the rows of a file, as these come.

    They start at the rows 0, stride, 2 strides and so on; one that holds a missing value is none.

    Attributes:
      end: how many rows there have been.
    """

    def __init__(self, window: int, stride: int = 1):
        self._window, self._stride = window, stride
        self._rows: Any = None  # From the first one on that windows to come may cover.
        self._first = self._next = self.end = 0

    def add(self, readings: np.ndarray) -> np.ndarray:
        """Takes in the next rows; returns where the windows start that end in them."""
        self._rows = readings if self._rows is None else np.concatenate([self._rows, readings])
        self.end += len(readings)
        missing = np.cumsum(np.append(0, np.isnan(self._rows).any(axis=1)))
        first, after = -(-self._next // self._stride) * self._stride, self.end - self._window + 1
        starts = np.arange(first, after, self._stride)
        self._next = max(self._next, after)
        at = starts - self._first
        return starts[missing[at + self._window] == missing[at]]

    def windows(self, starts: np.ndarray) -> np.ndarray:
        """Returns the windows that start there, float32 `[n, window, columns]`."""
        return self._rows[(starts - self._first)[:, np.newaxis] + np.arange(self._window)]

    def forget(self) -> int:
        """Lets go of rows at which no later window starts; returns the first of the others."""
        self._rows = self._rows[self._next - self._first :]
        self._first = self._next
        return self._next


class Means:
    """Means for each row over the windows that cover it, which go on where one starts a row later.

    Attributes:
      goes_on: whether rows are held that the next window may cover.
    """

    def __init__(self) -> None:
        self._means, self._next = RowMeans(), 0
        self.goes_on = False

    def add(self, starts: np.ndarray, values: np.ndarray) -> Iterator[Tuple[int, np.ndarray]]:
        """Takes in windows, `[n, window, ...]`, that start at some rows, in their order.

        Yields first row and values of rows that no later window covers.
        """
        for run in row_means.runs(starts):
            first, last = int(starts[run][0]), int(starts[run][-1])
            yield from self.ended(first)
            yield first, self._means.add(values[run])
            self._next, self.goes_on = last + 1, True

    def ended(self, first: int) -> Iterator[Tuple[int, np.ndarray]]:
        """Yields the rows that are held, where no later window starts before the row `first`."""
        if self.goes_on and self._next < first:
            self.goes_on = False
            yield self._next, self._means.rest()
