"""Many minutes of load, of every kind, on one server; what it promises is checked, yes or no."""

import contextlib
import os
import statistics
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np

from scripts.load import asking, bad_clients, measuring
from scripts.load.client import REFUSALS, Plan
from scripts.load.server import Server
from trainer.base.console import say

# At the end so many that each waits for longer than `_SECONDS_TO_ARRIVE`.
_CLIENTS, _CLIENTS_AT_THE_END = 32, 256
_SECONDS_OF_HEALTH, _SECONDS_TO_END = 0.1, 10.0
_SECONDS_OF_TWO_MODELS, _SECONDS_TO_RELOAD = 10.0, 60.0
# What has been sent has reached the server after so many seconds; answers take 50 ms and more.
_SECONDS_TO_ARRIVE = 0.02
# What memory and files may grow by.
_MEGABYTES, _SHARE, _FILES = 20.0, 0.05, 16
# Of good requests, while a huge one is answered.
_ANSWERED_AMONG_BAD = 0.75
_DOUBLINGS = 3
# Of the capacity. To load a newer export takes a processor and more.
_BELOW, _WHILE_IT_LOADS, _AMONG_BAD = 0.5, 0.25, 0.25
_CODES = (0, 143, -15)  # Of a program that SIGTERM has ended.


class Check(NamedTuple):
    """One promise: whether it was kept, None where it could not be asked for; and what was seen."""

    name: str
    is_kept: Optional[bool]
    seen: str


class Parts(NamedTuple):
    """Seconds of the parts of a soak."""

    capacity: float
    below: float
    among_bad: float
    above: float


def parts_of(seconds: float) -> Parts:
    """Returns how so many seconds are spent: half of them at twice the capacity."""
    return Parts(*[share * seconds for share in (0.1, 0.2, 0.2, 0.5)])


def growth(values: List[float]) -> float:
    """Returns by how much the median of the last quarter is above that of the second.

    The first quarter may still fill caches and pools.
    """
    quarter = len(values) // 4
    if not quarter:
        return 0.0
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


class Watch(threading.Thread):
    """Calls a function until the end of the block; `values` are what it returned."""

    def __init__(self, function, pause: float):
        super().__init__(daemon=True)
        self._function, self._pause, self._is_over = function, pause, threading.Event()
        self.values: List[Any] = []

    def run(self):
        while not self._is_over.wait(self._pause):
            self.values.append(self._function())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._is_over.set()
        self.join()


_COUNTS = ('right', 'after', 'wrong', 'refused', 'failed', 'not sent')


def counted(results: Dict[str, Any]) -> str:
    """Returns what became of the requests, in words."""
    words = ['{:,} {}'.format(results[name], name) for name in _COUNTS if results[name]]
    kinds = ['{} ({:,} times)'.format(*pair) for pair in sorted(results['kinds'].items())]
    return ', '.join(words + kinds[:5]).replace('after', 'of the newer export') or 'no request'


def bad_ones(results: Dict[str, Any]) -> int:
    """Returns how many requests were not answered rightly."""
    return sum(results[name] for name in _COUNTS[2:])


class Soak:
    """What is done to a server that has just started; each part adds to `checks`.

    Args:
      pool: the file of `client.Plan.pool`, with the answers of a newer export where there is one.
    """

    def __init__(self, server: Server, pool: str, inputs: bad_clients.Inputs):
        self._server, self._pool, self._inputs = server, pool, inputs
        self._protocol = server.kind.protocols[0]
        self.checks: List[Check] = []
        self.capacity = 0.0

    def _add(self, name, is_kept, seen):
        self.checks.append(Check(name, is_kept, seen))
        say('  {}: {} ({})'.format(name, {None: '-', True: 'yes', False: 'NO'}[is_kept], seen))

    @contextlib.contextmanager
    def _asking(self, seconds: float, **settings: Any) -> Iterator[asking.Asking]:
        port = self._server.port(self._protocol)
        plan = Plan(
            self._pool, port, self._protocol, seconds=seconds,
            most_under_way=self._server.kind.most_under_way, **settings,
        )  # fmt: skip
        client = asking.Asking(plan, self._server.python)
        try:
            yield client
        finally:
            client.stop()

    def _timed_health(self) -> float:
        begin = time.monotonic()
        is_healthy = self._server.is_healthy()
        return time.monotonic() - begin if is_healthy else float('inf')

    def measure_capacity(self, seconds: float) -> None:
        """Has clients ask as fast as they get answers, while others ask for the server's health."""
        with Watch(self._timed_health, _SECONDS_OF_HEALTH) as health, self._asking(
            seconds, clients=_CLIENTS, warm_up=min(2.0, seconds)
        ) as client:
            results = client.results()
        self.capacity = results['requests_per_second']
        seen = '{:.0f}/s, p50 {:.0f} ms, p99 {:.0f} ms; {}'
        figures = self.capacity, results['p50_ms'] or 0.0, results['p99_ms'] or 0.0
        is_kept = bool(self.capacity) and not results['wrong'] + results['failed']
        self._add(
            '32 clients, every answer right', is_kept, seen.format(*figures, counted(results))
        )
        worst = 1e3 * float(np.percentile(health.values or [np.inf], 99))
        self._add(
            'health answered within 100 ms, at 32 clients', worst <= 100.0,
            'p99 {:.0f} ms of {}'.format(worst, len(health.values)),
        )  # fmt: skip

    def stay_below(self, seconds: float, newer: Optional[str], target: str) -> None:
        """Asks for half of the capacity; then for a quarter, while a newer export takes its place.

        Args:
          newer: its folder, beside the served one; None where there is none.
          target: what it becomes.
        """
        with self._asking(seconds / 2, rate=max(1.0, _BELOW * self.capacity)) as client:
            results = client.results()
        self._add('no request lost below capacity', not bad_ones(results), counted(results))
        must_reload = newer and self._server.kind.reloads
        whole = seconds / 2 + (_SECONDS_TO_RELOAD if must_reload else 0.0)
        with self._asking(whole, rate=max(1.0, _WHILE_IT_LOADS * self.capacity)) as client:
            time.sleep(seconds / 6)
            renamed = time.monotonic()
            if newer:
                os.rename(newer, target)
            results = client.results()
        is_kept = not bad_ones(results) if newer else None
        self._add('none lost while a newer export is loaded', is_kept, counted(results))
        self._add('a newer export takes over', *self._taken_over(newer, renamed, results))

    def _taken_over(self, newer, renamed, results):
        if not newer:
            return None, 'this export has its weights in its graph: there is no newer one to make'
        if not self._server.kind.reloads:
            text = 'it serves the export that it started with, and {}'
            return None if results['wrong'] + results['after'] == 0 else False, text.format(
                'the newer one changed nothing'
            )
        first, last = results['first_after'], results['last_right']
        if first is None:
            return False, 'no answer of the newer export came'
        both = max(0.0, last - first)
        text = 'first answer of the newer export after {:.1f} s, both for {:.1f} s; {}'
        is_kept = both < _SECONDS_OF_TWO_MODELS and not results['wrong'] + results['failed']
        return is_kept, text.format(first - renamed, both, counted(results))

    def mix_with_bad(self, seconds: float, names: Optional[List[str]] = None) -> None:
        """Asks for a quarter of the capacity, with bad clients among the good."""
        habits = self._habits(names)
        with self._bad_clients(habits) as bad, self._asking(
            seconds, rate=max(1.0, _AMONG_BAD * self.capacity)
        ) as client:
            results = client.results()
        answered = results['right'] + results['after']
        is_good = not results['wrong'] + results['failed']
        is_good = is_good and answered >= _ANSWERED_AMONG_BAD * (answered + bad_ones(results))
        self._add('good requests answered among bad ones', is_good, counted(results))
        for name, one in bad.items():
            self._add_answers(name, habits[name], one.counts)

    def _habits(self, names):
        port = self._server.port(self._protocol)
        refusal = self._server.kind.refusal
        found = bad_clients.habits(port, self._protocol, self._inputs, refusal)
        return {name: habit for name, habit in found.items() if not names or name in names}

    def _add_answers(self, name, habit, counts):
        wrong = bad_clients.not_allowed(habit, counts)
        answers = sorted({answer for _, answer in counts})
        seen = '{:,} times; answers: {}'.format(sum(counts.values()), ', '.join(answers))
        title = '{} requests refused, or answered'.format(name)
        self._add(title, bool(counts) and not wrong, wrong or seen)

    @contextlib.contextmanager
    def _bad_clients(self, habits) -> Iterator[Dict[str, bad_clients.BadClient]]:
        clients = {name: bad_clients.BadClient(habit) for name, habit in habits.items()}
        for client in clients.values():
            client.start()
        try:
            yield clients
        finally:
            for client in clients.values():
                client.stop()

    def overload(self, seconds: float) -> None:
        """Asks for twice the capacity, and looks at the memory meanwhile."""
        files = self._server.open_files()
        rate = self._too_high_rate(seconds / 10)
        with Watch(self._server.megabytes, 1.0) as memory, self._asking(
            seconds, rate=rate
        ) as client:
            results = client.results()
        seen = '{:.0f}/s asked, {:.0f}/s answered, p50 {:.0f} ms, p99 {:.0f} ms; {}'.format(
            rate, results['requests_per_second'], results['p50_ms'] or 0.0,
            results['p99_ms'] or 0.0, counted(results),
        )  # fmt: skip
        self._add('no wrong answer at twice the capacity', not results['wrong'], seen)
        words = ' '.join(results['refused_with'].split())[:100]
        self._add(
            'what is too much is refused with 429 or 503, and no request lost',
            bool(results['refused']) and not results['failed'] and bool(words),
            '{:,} refused, in the words {!r}; {:,} failed'.format(
                results['refused'], words, results['failed']
            ),
        )
        more = growth(memory.values)
        first = memory.values[0] if memory.values else 0.0
        self._add(
            'memory is flat', more <= max(_MEGABYTES, _SHARE * first),
            '{:.0f} MB, {:+.1f} MB from the second to the last quarter'.format(
                max(memory.values or [0.0]), more
            ),
        )  # fmt: skip
        left = self._left_open(files)
        self._add('no connection stays open', left <= _FILES, '{:+d} open files'.format(left))

    def _too_high_rate(self, seconds: float) -> float:
        """Returns twice the capacity, doubled where that is answered: other work came before."""
        rate = max(1.0, 2 * self.capacity)
        for _ in range(_DOUBLINGS):
            with self._asking(seconds, rate=rate) as client:
                results = client.results()
            if bad_ones(results):
                break
            rate *= 2
        return rate

    def _left_open(self, before: int) -> int:
        """Returns how many more files are open than before, when closed connections have gone."""
        deadline = time.monotonic() + 10.0
        left = self._server.open_files() - before
        while left > _FILES and time.monotonic() < deadline:
            time.sleep(0.5)
            left = self._server.open_files() - before
        return left

    def tell_to_end(self) -> None:
        """Sends SIGTERM while clients ask: what was under way has to be answered."""
        with self._asking(8.0, clients=_CLIENTS_AT_THE_END, must_tell_times=True) as client:
            time.sleep(5.0)  # Its start takes a second or two.
            told = time.monotonic()
            code = self._server.end(_SECONDS_TO_END)
            took = time.monotonic() - told
            results = client.results()
        before = told - _SECONDS_TO_ARRIVE
        began, ended = np.array(results['times'])
        answered = int(((began < before) & (ended > told)).sum())
        lost = sum(start < before and kind not in REFUSALS for start, kind in results['noted'])
        seen = '{} requests under way, {} of them lost'.format(answered + lost, lost)
        self._add('SIGTERM: what is under way is answered', bool(answered) and not lost, seen)
        outlived = self._server.outlived()
        seen = 'code {} after {:.1f} s'.format(code, took) if code is not None else 'it did not end'
        seen += '; {} outlived it'.format(', '.join(outlived)) if outlived else ''
        self._add('SIGTERM: it ends', code in _CODES and not outlived, seen)
        count = self._server.printed().count('Traceback')
        self._add('no traceback in its log', not count, '{} tracebacks'.format(count))


def table(checks: List[Check]) -> str:
    """Returns the checks as a table in Markdown."""
    words = {None: '-', True: 'yes', False: 'NO'}
    lines = [[one.name, words[one.is_kept], one.seen.replace('|', '\\|')] for one in checks]
    return measuring.markdown(['promise', 'kept', 'seen'], lines)
