"""What is printed of series: how much is unusual, and the strangest stretches."""

import heapq
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from trainer.base import console, errors
from trainer.scoring.series_rows import Judge, Model, OfRows, OfWindows, Part, Stretch
from trainer.serving import thresholds

_SHOWN = 10


class Stretches:
    """The unusual stretches of one file: of rows, but of windows where these alone are judged.

    Attributes:
      highest: what is strangest, unusual or not.
    """

    def __init__(self, model: Model, file: str):
        self._model, self._file = model, file
        self.highest: Optional[Stretch] = None
        self._open: Optional[Stretch] = None

    def add(self, part: Part) -> Iterator[Stretch]:
        """Takes in what the model says; yields stretches that have ended."""
        facts = self._facts(part)
        if facts is None:
            return
        self._find_highest(facts)
        for run in self._runs(facts):
            found = facts.stretch(run, self._file)
            if self._open and found.first - self._open.last <= self._model.window:
                self._open = self._open.with_next(found)
            else:
                yield from self.rest()
                self._open = found

    def rest(self) -> Iterator[Stretch]:
        """Yields the stretch that has not ended yet."""
        if self._open:
            yield self._open
        self._open = None

    @property
    def _by_windows(self) -> bool:
        judge = self._model.rows
        told = judge.threshold is not None and not (
            judge.of_validation is None and judge.threshold.is_quantile
        )
        return not self._model.scores_rows or (
            not told and self._model.windows.threshold is not None
        )

    def _facts(self, part: Part) -> Optional['_Facts']:
        if isinstance(part, OfRows) and not self._by_windows:
            firsts = part.first + np.arange(len(part.scores))
            times = None if part.times is None else [(time, time) for time in part.times]
            return _Facts(part, firsts, 1, part.scores, times)
        if isinstance(part, OfWindows) and self._by_windows:
            scores = part.outputs[thresholds.SCORE]
            return _Facts(part, part.starts, self._model.window, scores, part.times)
        return None

    def _find_highest(self, facts: '_Facts') -> None:
        if np.isnan(facts.scores).all():
            return
        found = facts.stretch(np.array([np.nanargmax(facts.scores)]), self._file)
        if self.highest is None or found.score > self.highest.score:
            self.highest = found

    def _runs(self, facts: '_Facts') -> List[np.ndarray]:
        """The numbers of what is unusual, in runs that are at most a window apart."""
        unusual = facts.part.unusual
        found = np.flatnonzero(unusual) if unusual is not None else []
        if not len(found):
            return []
        apart = np.diff(facts.firsts[found]) - (facts.length - 1) > self._model.window
        return np.split(found, np.flatnonzero(apart) + 1)


class _Facts(NamedTuple):
    """What the model says of rows or of windows, whichever stretches are of."""

    part: Any  # OfRows or OfWindows.
    firsts: np.ndarray  # The first row of each, and how many it has.
    length: int
    scores: np.ndarray
    times: Optional[List[Tuple[str, str]]]

    def stretch(self, run: np.ndarray, file: str) -> Stretch:
        """Returns the stretch of those with some numbers, which follow each other."""
        highest, times = run[np.argmax(self.scores[run])], self.times
        quantiles = self.part.quantiles
        return Stretch(
            float(self.scores[highest]),
            None if quantiles is None else float(quantiles[highest]),
            file,
            int(self.firsts[run[0]]),
            int(self.firsts[run[-1]]) + self.length - 1,
            None if times is None else (times[run[0]][0], times[run[-1]][1]),
            self.part.excess[run].sum(axis=0, dtype=np.float64),
        )


class Counts:
    """How many of the rows, or the windows, have scores and are unusual."""

    def __init__(self) -> None:
        self.count = self.scored = self.unusual = 0

    def add(self, scores: np.ndarray, unusual: Optional[np.ndarray]) -> None:
        self.count += len(scores)
        self.scored += int(np.sum(~np.isnan(scores)))
        self.unusual += 0 if unusual is None else int(unusual.sum())

    def add_all(self, other: 'Counts') -> None:
        self.count += other.count
        self.scored += other.scored
        self.unusual += other.unusual

    def text(self, what: str, judge: Judge, is_judged: bool) -> str:
        without = self.count - self.scored
        text = f'{self.count:,} {what if self.count != 1 else what[:-1]}' + (
            f', {without:,} without a score' if without else ''
        )
        if judge.threshold is None or not is_judged:
            return text
        share, expected = f'{self.unusual / max(self.scored, 1):.2%}', ''
        if judge.threshold.is_quantile:
            rate = f'{1 - judge.threshold.value:.3g}'
            expected = f'; of {what} like the validation {what} {float(rate):.2%} would be'
        return f'{text}, {self.unusual:,} unusual ({share}{expected}): {judge.threshold}'


class _Both:
    """Counts of the rows and of the windows of one file or of all."""

    def __init__(self, model: Model):
        self._model = model
        self.rows, self.windows = Counts(), Counts()
        self.judges = [False, False]  # Whether some windows, some rows, are judged.

    @property
    def unusual(self) -> int:
        """How many rows are unusual, or windows where rows have no scores."""
        return (self.rows if self._model.scores_rows else self.windows).unusual


class Seen(_Both):
    """What is told at the end of all files.

    Attributes:
      errors: why files have no scores, a sentence each.
    """

    def __init__(self, model: Model):
        super().__init__(model)
        self.errors: List[str] = []
        # The strangest, with the least strange of them first; of equal ones the last.
        self._strangest: List[Tuple[float, int, Stretch]] = []
        self._stretches = 0
        self._highest: Optional[Stretch] = None

    def add_file(self, found: 'OfFile') -> None:
        """Takes in what is known of one file."""
        self.rows.add_all(found.rows)
        self.windows.add_all(found.windows)
        self.judges = [a or b for a, b in zip(self.judges, found.judges)]
        if found.highest and (not self._highest or found.highest.score > self._highest.score):
            self._highest = found.highest
        for _, _, stretch in found.strangest:
            _keep(self._strangest, stretch, self._stretches, _SHOWN)
            self._stretches += 1

    def show(self) -> None:
        """Prints how many rows and windows are unusual, and the strangest stretches."""
        if self._model.scores_rows:
            print(self.rows.text('rows', self._model.rows, self.judges[1]))
        else:
            print(f'{self.rows.count:,} rows')
        print(self.windows.text('windows', self._model.windows, self.judges[0]))
        strangest = [stretch for _, _, stretch in sorted(self._strangest, reverse=True)]
        if strangest:
            print('The strangest stretches, where unusual rows at most a window apart are one:')
        elif self._highest:
            strangest = [self._highest]
            print('The strangest:')
        if strangest:
            print(f'{"highest nats":>12}  quantile  rows: column of most nats beyond its least')
        for stretch in strangest:
            print(self._line(stretch))

    def _line(self, stretch: Stretch) -> str:
        quantile = '' if stretch.quantile is None else f'{stretch.quantile:.4f}'
        file = f'{errors.printable(stretch.file)} ' if stretch.file else ''
        times = ''
        if stretch.times:
            times = ' ({} .. {})'.format(*map(errors.printable, stretch.times))
        column = errors.printable(self._model.columns[int(np.argmax(stretch.excess))])
        rows = f'{stretch.first}..{stretch.last}'
        return f'{stretch.score:12.2f}  {quantile:>8}  {file}{rows}{times}: {column}'

    def name_the_bad(self, flag: str, files: int) -> None:
        """Raises UserError where files have no scores, and says why each has none."""
        console.tell_all(flag, self.errors, f'{len(self.errors):,} of {files:,} files')


class OfFile(_Both):
    """What is known of a file while its rows come."""

    def __init__(self, model: Model, file: str):
        super().__init__(model)
        self._stretches = Stretches(model, file)
        self.strangest: List[Tuple[float, int, Stretch]] = []
        self._count = 0

    def add(self, part: Part) -> List[Stretch]:
        """Takes in what the model says; returns the stretches that have ended."""
        if isinstance(part, OfWindows):
            self.windows.add(part.outputs[thresholds.SCORE], part.unusual)
            self.judges[0] |= part.unusual is not None
        elif isinstance(part, OfRows):
            self.rows.add(part.scores, part.unusual)
            self.judges[1] |= part.unusual is not None
        else:
            return []
        return self._kept(self._stretches.add(part))

    def end(self, rows: int) -> List[Stretch]:
        """Ends with the file; returns the last stretch, if there is one."""
        self.rows.count = rows
        return self._kept(self._stretches.rest())

    @property
    def highest(self) -> Optional[Stretch]:
        """What is strangest, unusual or not."""
        return self._stretches.highest

    def _kept(self, stretches: Iterator[Stretch]) -> List[Stretch]:
        found = list(stretches)
        for stretch in found:
            _keep(self.strangest, stretch, self._count, _SHOWN)
            self._count += 1
        return found


def _keep(kept: List[Any], stretch: Stretch, number: int, most: int) -> None:
    entry = (stretch.score, -number, stretch)
    (heapq.heappush if len(kept) < most else heapq.heappushpop)(kept, entry)
