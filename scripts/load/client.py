"""A client that compares each answer with the right one; Python 3.7 and later, and NumPy.

    python -m scripts.load.client '{"pool": "pool.npz", "port": 8501, "protocol": "rest"}'

Prints what became of the requests as JSON. They ask about the rows of a pool in turn, so that no
two under way ask about the same. With a `rate` they begin at random moments, so many a second,
whether or not earlier ones have been answered, but where `most_under_way` are; without, each client
asks again once it has its answer. Times are those of `time.monotonic()`, which all processes share.
"""

import array
import asyncio
import collections
import json
import random
import sys
import time
from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from scripts.load import askers

TOLERANCE = 1e-4
REFUSALS = ('status 429', 'status 503')
_MOST_NOTED = 10000
_SECONDS_BEFORE_NEXT_TRY = 0.05


class Plan(NamedTuple):
    """What the client does.

    Attributes:
      pool: a file of inputs `input/NAME`, right answers `right/NAME`, float32 `[n, ...]`, and
        perhaps the answers `after/NAME` of a newer model.
      seconds: how long requests begin, after those of `warm_up` seconds, which do not count.
      rate: requests a second, or None.
      most_under_way: of those of a rate, how many at the same time.
      timeout: seconds after which a request is lost.
      must_tell_times: whether `times` tells when each request that was answered began and ended.
    """

    pool: str
    port: int
    protocol: str
    clients: int = 32
    seconds: float = 10.0
    warm_up: float = 0.0
    rate: Optional[float] = None
    most_under_way: int = 900
    timeout: float = 30.0
    must_tell_times: bool = False
    host: str = '127.0.0.1'


class Expected:
    """The right answers, each a vector of all outputs in the order of their names."""

    def __init__(self, pool: Dict[str, np.ndarray]):
        self.names = sorted(name[6:] for name in pool if name.startswith('right/'))
        self.right, self.after = self._vectors(pool, 'right/'), None
        if 'after/' + self.names[0] in pool:
            self.after = self._vectors(pool, 'after/')

    def _vectors(self, pool, kind):
        rows = [pool[kind + name] for name in self.names]
        return np.concatenate([row.reshape([len(row), -1]) for row in rows], axis=1)

    def kind_of(self, number: int, outputs: Dict[str, Any]) -> str:
        """Returns 'right', 'after' (as of the newer model), or how the outputs are wrong."""
        try:
            vector = np.concatenate([np.ravel(outputs[name]) for name in self.names])
            for kind in ('right', 'after'):
                expected = getattr(self, kind)
                # Not so of NaN.
                if expected is not None and np.abs(vector - expected[number]).max() <= TOLERANCE:
                    return kind
            is_of_another = np.abs(self.right - vector).max(axis=1).min() <= TOLERANCE
        except (KeyError, TypeError, ValueError):
            return 'wrong: no such outputs'
        return 'wrong: of another image' if is_of_another else 'wrong: of no image'


class Tally:
    """What became of the requests."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._counts = clock, collections.Counter()
        self._began, self._ended = array.array('d'), array.array('d')
        self._noted, self._first_after, self._last_right, self.refused_with = [], None, None, ''

    def add(self, began: float, kind: str) -> None:
        """Counts a request that began at that time and ends now."""
        now = self._clock()
        self._counts[kind] += 1
        if kind in ('right', 'after'):
            self._began.append(began)
            self._ended.append(now)
            if kind == 'right':
                self._last_right = now
            elif self._first_after is None:
                self._first_after = now
        elif len(self._noted) < _MOST_NOTED:
            self._noted.append([began, kind])

    def results(self, start: float, seconds: float) -> Dict[str, Any]:
        """Returns the counts, and the figures of the right answers that came in those seconds."""
        began, ended = np.array(self._began), np.array(self._ended)
        counts = self._counts
        milliseconds = 1e3 * (ended - began)
        p50, p99 = np.percentile(milliseconds, [50, 99]) if len(ended) else (None, None)
        counted = {name: counts.pop(name, 0) for name in ('right', 'after', 'not sent')}
        refused = sum(counts.pop(name, 0) for name in REFUSALS)
        wrong = sum(count for name, count in counts.items() if name.startswith('wrong'))
        return {
            'requests_per_second': float((ended <= start + seconds).sum() / seconds),
            'p50_ms': p50,
            'p99_ms': p99,
            **counted,
            'wrong': wrong,
            'refused': refused,
            'failed': sum(counts.values()) - wrong,
            'kinds': dict(counts),
            'noted': self._noted,
            'first_after': self._first_after,
            'last_right': self._last_right,
            'refused_with': self.refused_with,
        }

    def times(self):
        return [list(self._began), list(self._ended)]


class Client:
    """Asks as a plan says."""

    def __init__(self, plan: Plan):
        self._plan, self._tally, self._turn = plan, Tally(), -1
        with np.load(plan.pool, allow_pickle=False) as file:
            pool = dict(file)
        self._expected, self._count = Expected(pool), len(pool['right/' + _any_name(pool)])
        inputs = {name[6:]: value for name, value in pool.items() if name.startswith('input/')}
        if plan.protocol == 'grpc':
            self._asker = askers.Grpc(plan.host, plan.port, plan.clients, inputs)
        else:
            self._asker = askers.Http(plan.host, plan.port, plan.protocol, inputs)

    async def _ask(self, began):
        self._turn = (self._turn + 1) % self._count
        number, tally = self._turn, self._tally
        try:
            answer = await self._asker.ask(number, self._plan.timeout)
        except OSError as error:
            tally.add(began, 'lost: {}'.format(error))
            await asyncio.sleep(_SECONDS_BEFORE_NEXT_TRY)
            return
        if answer.outputs:
            tally.add(began, self._expected.kind_of(number, answer.outputs))
            return
        kind = 'status {}'.format(answer.status)
        tally.add(began, kind)
        if kind in REFUSALS:
            tally.refused_with = answer.text

    async def _ask_again_and_again(self, end):
        while time.monotonic() < end:
            await self._ask(time.monotonic())

    async def _ask_at_random(self, end):
        draws, under_way, due = random.Random(1), set(), time.monotonic()
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(under_way) < self._plan.most_under_way:
                task = asyncio.ensure_future(self._ask(due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            else:
                self._tally.add(due, 'not sent')
            due += draws.expovariate(self._plan.rate)
        await asyncio.gather(*under_way)

    async def _go_on_until(self, end):
        if self._plan.rate:
            await self._ask_at_random(end)
            return
        await asyncio.gather(*[self._ask_again_and_again(end) for _ in range(self._plan.clients)])

    async def results(self) -> Dict[str, Any]:
        """Returns what `Tally.results` does, when all is done."""
        await self._go_on_until(time.monotonic() + self._plan.warm_up)
        self._tally, start = Tally(), time.monotonic()
        await self._go_on_until(start + self._plan.seconds)
        results = self._tally.results(start, self._plan.seconds)
        if self._plan.must_tell_times:
            results['times'] = self._tally.times()
        return results


def _any_name(pool):
    return next(name[6:] for name in pool if name.startswith('right/'))


async def results_of(plan: Plan) -> Dict[str, Any]:
    """Returns what became of a plan."""
    # Made in the event loop, as connections of gRPC have to be.
    return await Client(plan).results()


def main(arguments):
    print(json.dumps(asyncio.run(results_of(Plan(**json.loads(arguments[0]))))))


if __name__ == '__main__':
    main(sys.argv[1:])
