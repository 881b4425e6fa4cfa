"""Requests that wait together become one batch. Knows neither HTTP nor TensorFlow.

There is no delay to fill a batch: the first request begins at once, and those that come while it
is being answered are the next batch.
"""

import asyncio
import collections
import concurrent.futures
import functools

import numpy as np


class Full(Exception):
    """So many requests wait that another one would wait too long."""


class _Request:
    def __init__(self, signature, inputs, rows, future):
        self.signature, self.inputs, self.rows, self.future = signature, inputs, rows, future
        # What two requests have in common where they may be one batch; None where none may.
        self.likeness = None

    @property
    def is_given_up(self):
        return self.future.done()


class Batcher:
    """Answers requests in threads, so that the event loop is free for others.

    Args:
      run: takes the name of a signature and arrays by input name, and returns arrays by output
        name; called in threads.
      joined: names of the signatures all of whose inputs and outputs are rows, `[n, ...]`, each
        independent of the others.
      most_rows: of a batch of several requests. A larger request is a batch of its own.
      most_waiting: requests that wait, from which on no other is taken.
      threads: batches that run at the same time.
    """

    def __init__(self, run, joined, most_rows=64, most_waiting=256, threads=1):
        self._run, self._joined = run, frozenset(joined)
        self._most_rows, self._most_waiting, self._threads = most_rows, most_waiting, threads
        self._executor = concurrent.futures.ThreadPoolExecutor(threads)
        self._waiting, self._running = collections.deque(), 0

    def check_room(self):
        """Raises Full where no request would be taken now."""
        if len(self._waiting) >= self._most_waiting:
            raise Full('{} requests wait already: ask again later'.format(len(self._waiting)))

    async def answer(self, signature, inputs):
        """Returns arrays by output name for arrays by input name.

        Raises:
          Full: too many wait.
          Whatever `run` raises of this request alone.
        """
        self.check_room()
        loop = asyncio.get_event_loop()
        shapes = {name: array.shape for name, array in inputs.items()}
        lengths = {shape[:1] for shape in shapes.values()}
        rows = max((length for (length,) in lengths - {()}), default=1)
        request = _Request(signature, inputs, max(rows, 1), loop.create_future())
        if signature in self._joined and lengths == {(request.rows,)}:
            request.likeness = signature, {name: shape[1:] for name, shape in shapes.items()}
        self._waiting.append(request)
        # Not now: requests that came in the same moment are taken first.
        loop.call_soon(self._begin, loop)
        return await request.future

    def _begin(self, loop):
        while self._waiting and self._running < self._threads:
            group = self._next_group()
            if group:
                self._running += 1
                outcomes = loop.run_in_executor(self._executor, self._outcomes, group)
                outcomes.add_done_callback(functools.partial(self._tell, loop, group))

    def _next_group(self):
        """Takes the request that waits longest, and those that may be answered with it."""
        group, rest, rows = [], collections.deque(), 0
        for request in self._waiting:
            if request.is_given_up:
                continue
            if not group or (
                request.likeness is not None
                and request.likeness == group[0].likeness
                and rows + request.rows <= self._most_rows
            ):
                group.append(request)
                rows += request.rows
            else:
                rest.append(request)
        self._waiting = rest
        return group

    def _outcomes(self, group):
        """Returns of each request its outputs, or the exception that it alone is to blame for."""
        try:
            if len(group) == 1:
                return [self._run(group[0].signature, group[0].inputs)]
            return self._parts(group)
        except Exception as error:
            if len(group) == 1:
                return [error]
            # Halves find a bad one among many good ones in fewer runs than one by one.
            middle = len(group) // 2
            return self._outcomes(group[:middle]) + self._outcomes(group[middle:])

    def _parts(self, group):
        inputs = {
            name: np.concatenate([request.inputs[name] for request in group])
            for name in group[0].inputs
        }
        outputs = self._run(group[0].signature, inputs)
        ends = np.cumsum([request.rows for request in group])
        if any(value.shape[:1] != (ends[-1],) for value in outputs.values()):
            raise ValueError('the outputs of {} are no rows'.format(group[0].signature))
        return [
            {name: value[end - request.rows : end] for name, value in outputs.items()}
            for request, end in zip(group, ends)
        ]

    def _tell(self, loop, group, done):
        self._running -= 1
        self._begin(loop)
        error = done.exception()
        outcomes = done.result() if error is None else [error] * len(group)
        for request, outcome in zip(group, outcomes):
            if request.is_given_up:
                continue
            if isinstance(outcome, Exception):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(outcome)
