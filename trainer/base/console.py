"""What the user sees while a work goes on: lines, progress bars, the time left."""

import collections
import os
import sys
import threading
import time
from typing import Deque, Optional, Sequence, Tuple

import tqdm

from trainer.base.errors import UserError, without_secrets

# tqdm's own lock is for several processes: a semaphore, which some have no /dev/shm for, and of
# which Python warns where a process ends without taking it away.
tqdm.tqdm.set_lock(threading.RLock())
SECONDS_BETWEEN_LINES = 10.0
_RECENT_SECONDS = 30.0
_NAMED = 100  # Of what has no scores.


def say(text: str) -> None:
    """Prints one line to stderr, above a progress bar if there is one; no secrets of URLs."""
    tqdm.tqdm.write(without_secrets(text), file=sys.stderr)
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Writes seconds as `1:02:03` or `2:03`."""
    return tqdm.tqdm.format_interval(max(seconds, 0.0))


def _has_terminal() -> bool:
    """Whether stderr is a terminal that tells its width; a bar of no width shows nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def progress_bar(what: str, total: int, done: int) -> Optional[tqdm.tqdm]:
    """Returns a bar of `total` pieces of work, where stderr is a terminal; else None."""
    if not _has_terminal():
        return None
    return tqdm.tqdm(
        total=total,
        initial=done,
        bar_format=what + ' {n_fmt}/{total_fmt} {percentage:3.0f}% |{bar}| {desc}',
        desc='starting',
        dynamic_ncols=True,
        mininterval=0.0,
        miniters=0,
        file=sys.stderr,
    )


def tell_all(flag: str, sentences: Sequence[str], counted: str) -> None:
    """Says why each of some files or images has no scores; raises UserError where there are any.

    Args:
      flag: the one that led to them.
      counted: how many of how many they are, as '2 of 3 files'.
    """
    if len(sentences) == 1:
        raise UserError(sentences[0])
    for sentence in sentences[:_NAMED]:
        say(sentence)
    if sentences:
        rest = len(sentences) - _NAMED
        more = f' ({rest:,} more are not named)' if rest > 0 else ''
        raise UserError(f'{flag}: {counted} have no scores, for the reasons above{more}.')


class Pace:
    """How long a piece of work took of late: a mean since the start forgets no slow minute."""

    def __init__(self, done: int, seconds: float):
        self._marks: Deque[Tuple[int, float]] = collections.deque([(done, seconds)])

    def seconds_each(self, done: int, seconds: float) -> float:
        """Returns the mean over the last half minute or more, given both totals so far."""
        self._marks.append((done, seconds))
        while seconds - self._marks[1][1] >= _RECENT_SECONDS:
            self._marks.popleft()
        first_done, first_seconds = self._marks[0]
        return (seconds - first_seconds) / (done - first_done)


class ImageProgress:
    """Shows how many images of an evaluation are done, what came out so far, and the time left.

    Attributes:
      total: how many there are, which may change where it is an estimate.
    """

    def __init__(self, total: int, done: int, noun: str = 'image'):
        self.total, self._noun = total, noun
        self._shown_at = time.perf_counter()
        self._pace = Pace(done, self._shown_at)
        self._bar = progress_bar(noun, total, done)

    def show(self, done: int, text: str, each: int, unit: str) -> None:
        """Shows, if it is time to, `text` and the rate of a `unit` of which an image is `each`."""
        now = time.perf_counter()
        interval = 0.5 if self._bar is not None else SECONDS_BETWEEN_LINES
        if now - self._shown_at < interval and done < self.total:
            return
        self._shown_at = now
        seconds = self._pace.seconds_each(done, now)
        rate, left = each / max(seconds, 1e-9), duration((self.total - done) * seconds)
        text = f'{text}, {rate:,.0f} {unit}/s, {left} left'
        if self._bar is not None:
            self._bar.n, self._bar.total = done, self.total
            self._bar.set_description_str(text)
            return
        say(f'{self._noun} {done:,}/{self.total:,}: {text}')

    def close(self) -> None:
        """Leaves the bar as it is and goes on below it."""
        if self._bar is not None:
            self._bar.close()
