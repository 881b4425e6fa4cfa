"""What a model says of the rows of a series: of windows that are cut as rows come, in any number.

Windows start at the rows 0, stride, 2 strides and so on of a file; one that holds a missing value
is left out. Of windows that start one row apart, rows get the mean over those that cover them.
"""

from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from trainer.data.csv_table import Block
from trainer.data.windows import Cutter, Means
from trainer.serving import thresholds
from trainer.serving.thresholds import Outputs, Threshold

# Of a window's rows with their columns, or what the network makes of each.
_NUMBERS_AT_ONCE, _OF_NETWORK = 1 << 22, 64


class Judge(NamedTuple):
    """What says of scores which quantiles they are, and which are unusual.

    Attributes:
      threshold: None where too few validation scores tell.
      among: what scores are quantiles among, in words.
      of_validation: sorted scores; None where quantiles come with the scores, or from nowhere.
    """

    threshold: Optional[Threshold]
    among: str
    of_validation: Optional[np.ndarray] = None

    def quantiles(self, scores: np.ndarray) -> Optional[np.ndarray]:
        """Returns the quantile of each score; None where no validation scores are known."""
        if self.of_validation is None:
            return None
        found = thresholds.quantiles(scores, self.of_validation)
        return np.where(np.isnan(scores), np.nan, found)

    def are_unusual(
        self, scores: np.ndarray, quantiles: Optional[np.ndarray]
    ) -> Optional[np.ndarray]:
        """Returns bool `[n]`, False of scores that are NaN; None where nothing tells."""
        if self.threshold is None or (quantiles is None and self.threshold.is_quantile):
            return None
        with np.errstate(invalid='ignore'):  # NaN exceeds nothing.
            return self.threshold.is_exceeded(scores, quantiles)


class Model(NamedTuple):
    """What answers of windows.

    Attributes:
      ask: returns of float32 `[n, window, columns]` the outputs of score and explain.
      at_once: windows that are asked about at most.
    """

    ask: Callable[[np.ndarray], Outputs]
    window: int
    stride: int
    columns: Tuple[str, ...]
    at_once: int
    windows: Judge
    rows: Judge

    @property
    def scores_rows(self) -> bool:
        """Whether rows have scores."""
        return self.stride == 1


class Readings(NamedTuple):
    """Rows as the file has them, NaN where a value is missing: float32 `[n, columns]`."""

    first: int
    readings: np.ndarray


class OfWindows(NamedTuple):
    """What the model says of some windows."""

    starts: np.ndarray  # The rows at which they start, int64 [n].
    outputs: Outputs  # negative_elbo and the other losses, [n] each.
    quantiles: Optional[np.ndarray]
    unusual: Optional[np.ndarray]
    excess: np.ndarray  # Of each column, float64 [n, columns].
    times: Optional[List[Tuple[str, str]]]  # Of the first and the last row of each.


class OfRows(NamedTuple):
    """What the model says of rows that follow each other; NaN of those that no window covers."""

    first: int
    scores: np.ndarray  # float32 [n].
    nats: np.ndarray  # Of each column, float32 [n, columns].
    excess: np.ndarray  # The same.
    quantiles: Optional[np.ndarray]
    unusual: Optional[np.ndarray]
    times: Optional[List[str]]


class Stretch(NamedTuple):
    """Rows of a file that are unusual, with usual ones between that are fewer than a window."""

    score: float  # The highest, of a row or a window.
    quantile: Optional[float]
    file: str
    first: int
    last: int
    times: Optional[Tuple[str, str]]  # Of the two.
    excess: np.ndarray  # Nats of each column, of what is unusual there, [columns].

    def with_next(self, other: 'Stretch') -> 'Stretch':
        """Returns the stretch that ends with another one."""
        highest = self if self.score >= other.score else other
        times = self.times and other.times and (self.times[0], other.times[1])
        last, excess = max(self.last, other.last), self.excess + other.excess
        return highest._replace(first=self.first, last=last, times=times, excess=excess)


Part = Union[Readings, OfWindows, OfRows]


def at_once(window: int, columns: int, most: int) -> int:
    """Returns how many windows are asked about at once, so that memory is bounded."""
    return max(1, min(most, _NUMBERS_AT_ONCE // (window * max(columns, _OF_NETWORK))))


def scored(blocks: Iterable[Block], model: Model) -> Iterator[Part]:
    """Yields what a model says of a file, parts of each kind in the order of its rows."""
    cutter, means, done = Cutter(model.window, model.stride), Means(), 0
    times: Optional[_Times] = None

    def judged(rows: Iterable[Tuple[int, np.ndarray]]) -> Iterator[OfRows]:
        nonlocal done
        for first, values in rows:
            if first > done:
                yield _of_rows(done, np.full([first - done, values.shape[1]], np.nan), times, model)
            if len(values):
                yield _of_rows(first, values, times, model)
            done = first + len(values)

    for block in blocks:
        yield Readings(cutter.end, block.readings)
        if block.times is not None:
            times = times or _Times()
            times.add(block.times)
        starts = cutter.add(block.readings)
        for at in range(0, len(starts), model.at_once):
            some = starts[at : at + model.at_once]
            outputs = model.ask(cutter.windows(some))
            yield _of_windows(some, outputs, times, model)
            if model.scores_rows:
                yield from judged(means.add(some, _of_readings(outputs)))
        settled = cutter.forget()
        if model.scores_rows:
            yield from judged(means.ended(settled))
            if not means.goes_on:
                yield from judged([(max(done, settled), np.zeros([0, 1 + 2 * len(model.columns)]))])
        if times:
            times.forget(min(done, settled) if model.scores_rows else settled)
    if model.scores_rows:
        yield from judged(means.ended(cutter.end + 1))
        yield from judged([(cutter.end, np.zeros([0, 1 + 2 * len(model.columns)]))])


def _of_readings(outputs: Outputs) -> np.ndarray:
    """What is said of each reading, with their sum first, float32 `[n, window, 1 + 2 columns]`."""
    nats = outputs['nats_by_reading']
    return np.concatenate(
        [nats.sum(axis=-1, keepdims=True), nats, outputs['excess_by_reading']], axis=-1
    )


def _of_windows(
    starts: np.ndarray, outputs: Outputs, times: Optional['_Times'], model: Model
) -> OfWindows:
    scores, quantiles = outputs[thresholds.SCORE], outputs.get('quantile')
    return OfWindows(
        starts,
        outputs,
        quantiles,
        model.windows.are_unusual(scores, quantiles),
        outputs['excess_by_reading'].sum(axis=1, dtype=np.float64),
        None
        if times is None
        else [(times.of(start), times.of(start + model.window - 1)) for start in starts],
    )


def _of_rows(first: int, values: np.ndarray, times: Optional['_Times'], model: Model) -> OfRows:
    values = values.astype(np.float32)
    scores, nats, excess = np.split(values, [1, 1 + len(model.columns)], axis=1)
    scores = scores[:, 0]
    quantiles = model.rows.quantiles(scores)
    return OfRows(
        first,
        scores,
        nats,
        excess,
        quantiles,
        model.rows.are_unusual(scores, quantiles),
        None if times is None else [times.of(row) for row in range(first, first + len(values))],
    )


class _Times:
    """The times of the rows that are still spoken of."""

    def __init__(self) -> None:
        self._first, self._times = 0, []  # type: int, List[str]

    def add(self, times: List[str]) -> None:
        self._times += times

    def of(self, row: int) -> str:
        return self._times[row - self._first]

    def forget(self, before: int) -> None:
        del self._times[: before - self._first]
        self._first = before
