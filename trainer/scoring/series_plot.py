"""A picture of a series: its readings, their scores below, and the unusual stretches shaded."""

import heapq
import os
from typing import Any, List, Optional, Tuple

import numpy as np

from trainer.base import errors, figures, files, optional
from trainer.scoring import file_names
from trainer.scoring.series_rows import Model, OfRows, Part, Readings, Stretch
from trainer.serving import thresholds

NAME = 'series.png'
_MOST_FILES, _MOST_COLUMNS = 20, 8
# About two a pixel, and fewer of very many columns.
_FEWEST_BINS, _MOST_BINS, _NUMBERS = 64, 2048, 1 << 20
_INCHES_WIDE, _INCHES_OF_COLUMN, _INCHES_OF_SCORE, _INCHES_ELSE = 11.0, 0.8, 1.2, 0.7
_SCALED_BY_LOGARITHM = 20  # Scores so many times the threshold would hide all others.


class Envelope:
    """The least and the highest of numbers in bins of rows, which grow with their number.

    Attributes:
      size: rows of a bin.
    """

    def __init__(self, columns: int, bins: int):
        self._low = np.full([bins, columns], np.nan, np.float32)
        self._high = self._low.copy()
        self._bins, self.size, self.end = bins, 1, 0

    def add(self, first: int, values: np.ndarray) -> None:
        """Takes in the rows from `first` on, `[n, columns]`; NaN counts for nothing."""
        if not len(values):
            return
        self._grow(first + len(values) - 1)
        bins = (first + np.arange(len(values))) // self.size
        starts = np.append(0, np.flatnonzero(np.diff(bins)) + 1)
        for kept, least in ((self._low, np.fmin), (self._high, np.fmax)):
            kept[bins[starts]] = least(kept[bins[starts]], least.reduceat(values, starts, axis=0))
        self.end = max(self.end, first + len(values))

    def _grow(self, row: int) -> None:
        while row // self.size >= self._bins:
            for kept, least in ((self._low, np.fmin), (self._high, np.fmax)):
                half = least(kept[::2], kept[1::2])
                kept[:] = np.nan
                kept[: len(half)] = half
            self.size *= 2

    def line(self, column: int) -> Tuple[np.ndarray, np.ndarray]:
        """Returns rows and values of a line through least and highest of each bin."""
        count = -(-self.end // self.size)
        rows = np.repeat(np.arange(count) * self.size + (self.size - 1) / 2, 2)
        both = np.stack([self._low[:count, column], self._high[:count, column]], axis=1)
        return rows, both.ravel()


class FilePlot:
    """What the picture of one file needs, while its rows come."""

    def __init__(self, model: Model, file: str):
        columns = len(model.columns)
        bins = max(_FEWEST_BINS, min(_MOST_BINS, _NUMBERS // columns) // 2 * 2)
        self._model, self.file = model, file
        self._readings, self._scores = Envelope(columns, bins), Envelope(1, _MOST_BINS)
        self._unusual = Envelope(1, _MOST_BINS)
        self._excess, self._excess_of_unusual = np.zeros([2, columns])
        self._times: List[str] = []  # Of the first and the last row.

    def add(self, part: Part) -> None:
        """Takes in what the file holds, and what the model says."""
        if isinstance(part, Readings):
            self._readings.add(part.first, part.readings)
        elif isinstance(part, OfRows):
            self._scores.add(part.first, part.scores[:, np.newaxis])
            self._excess += np.nansum(part.excess, axis=0)
            if part.times:
                self._times = [(self._times or part.times)[0], part.times[-1]]
        elif not self._model.scores_rows:
            self._excess += part.excess.sum(axis=0)
            for start, score in zip(part.starts.tolist(), part.outputs[thresholds.SCORE]):
                self._scores.add(start, np.full([self._model.window, 1], score))

    def mark(self, stretch: Stretch) -> None:
        """Takes in an unusual stretch."""
        self._excess_of_unusual += stretch.excess
        for first in range(stretch.first, stretch.last + 1, 1 << 16):
            count = min(stretch.last + 1 - first, 1 << 16)
            self._unusual.add(first, np.ones([count, 1], np.float32))

    def png(self) -> bytes:
        """Draws; raises UserError where matplotlib is not installed."""
        excess = self._excess_of_unusual if self._excess_of_unusual.any() else self._excess
        columns = np.argsort(-excess, kind='stable')[:_MOST_COLUMNS]
        heights = [_INCHES_OF_COLUMN] * len(columns) + [_INCHES_OF_SCORE]

        def draw(figure: Any) -> None:
            panels = figure.subplots(
                len(heights), 1, sharex=True, squeeze=False, gridspec_kw={'height_ratios': heights}
            )[:, 0]
            for axes, column in zip(panels, columns):
                axes.plot(*self._readings.line(column), color='tab:blue', linewidth=0.7)
                axes.set_ylabel(_short(self._model.columns[column]), fontsize=8)
            self._draw_scores(panels[-1])
            for axes in panels:
                self._shade(axes)
                axes.tick_params(labelsize=7)
                axes.margins(x=0)
            figure.align_ylabels(panels)

        return figures.png((_INCHES_WIDE, sum(heights) + _INCHES_ELSE), draw)

    def _draw_scores(self, axes: Any) -> None:
        rows, scores = self._scores.line(0)
        axes.plot(rows, scores, color='black', linewidth=0.7)
        limit = self._limit()
        if limit is not None:
            axes.axhline(limit, color='tab:red', linewidth=0.7, linestyle='--')
            scale = max(abs(limit), 1.0)
            if len(scores) and np.nanmax(np.append(scores, 0.0)) > _SCALED_BY_LOGARITHM * scale:
                axes.set_yscale('symlog', linthresh=2 * scale)
                highest = np.floor(np.log10(np.nanmax(scores)))
                axes.set_yticks(
                    [0.0, *10.0 ** np.arange(np.ceil(np.log10(3 * scale)), highest + 1)]
                )
        axes.set_ylabel('nats', fontsize=8)
        times = ' .. '.join(map(_short, self._times))
        axes.set_xlabel('row' + (f' ({times})' if times else ''), fontsize=8)

    def _shade(self, axes: Any) -> None:
        rows, found = self._unusual.line(0)
        is_unusual = np.append(np.append(False, found[::2] == 1), False)
        edges = np.flatnonzero(np.diff(is_unusual.astype(int))) * self._unusual.size - 0.5
        for first, last in edges.reshape(-1, 2):
            axes.axvspan(first, last, color='tab:red', alpha=0.2, linewidth=0.7)

    def _limit(self) -> Optional[float]:
        """The score from which on rows are unusual, where it is known."""
        judge = self._model.rows if self._model.scores_rows else self._model.windows
        if judge.threshold is None:
            return None
        if not judge.threshold.is_quantile:
            return judge.threshold.value
        if judge.of_validation is None:
            return None
        rank = thresholds.rank(judge.threshold.value, len(judge.of_validation))
        return float(judge.of_validation[rank - 1])


class Plots:
    """The pictures of the strangest files; '' for a folder where none are wanted."""

    def __init__(self, model: Model, folder: str):
        self._model, self._folder = model, folder
        self._kept: List[Tuple[float, int, FilePlot]] = []
        self._count = 0

    def of_file(self, file: str) -> FilePlot:
        return FilePlot(self._model, file)

    def keep(self, plot: FilePlot, strangest: Optional[Stretch]) -> None:
        """Keeps the picture of a file that is among the strangest, by what is strangest in it."""
        if self._folder and strangest:
            entry = (strangest.score, -self._count, plot)
            full = len(self._kept) >= _MOST_FILES
            (heapq.heappushpop if full else heapq.heappush)(self._kept, entry)
        self._count += 1

    def write(self) -> List[str]:
        """Writes the pictures that can be made; returns their paths."""
        plots = [plot for _, _, plot in sorted(self._kept, reverse=True)]
        stems = file_names.told_apart(file_names.stem_of_id(plot.file) for plot in plots)
        names = [f'{stem}-{NAME}' if plot.file else NAME for stem, plot in zip(stems, plots)]
        written: List[str] = []
        for name, plot in zip(names, plots):
            path = os.path.join(self._folder, name)
            with optional.part(path):
                written.append(files.write_output(path, plot.png()))
        if len(written) > 1:
            return [os.path.join(self._folder, f'*-{NAME} of {len(written):,} files')]
        return written


def _short(name: str) -> str:
    """A name as a label, whose $ matplotlib would take for formulas."""
    text = errors.printable(name)
    return (text if len(text) <= 24 else text[:23] + '\u2026').replace('$', r'\$')
