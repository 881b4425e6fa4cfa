"""Requests that wait together become one batch. Knows neither HTTP nor TensorFlow.

There is no delay to fill a batch: the first request begins at once, and those that come while it
is being answered are the next batch.
"""

import asyncio
import collections
import concurrent.futures
import functools

from scripts.servers import joining


class Full(Exception):
    """So many requests wait that another one would wait too long."""


class _Request:
    """Attributes:
    likeness: what it has in common with those that it may be joined with; None: with none.
    """

    def __init__(self, signature, inputs, future):
        self.signature, self.inputs, self.future = signature, inputs, future
        shapes = {name: array.shape for name, array in inputs.items()}
        lengths = {shape[:1] for shape in shapes.values()}
        self.rows = max((length for (length,) in lengths - {()}), default=1)
        self.likeness = None
        if signature.is_of_rows and self.rows and lengths == {(self.rows,)}:
            self.likeness = signature, {name: shape[1:] for name, shape in shapes.items()}

    @property
    def is_given_up(self):
        return self.future.done()


class Batcher:
    """Answers requests in threads, so that the event loop is free for others.

    Args:
      most_rows: of a batch of several requests. A larger request is a batch of its own.
      most_waiting: requests that wait, from which on no other is taken.
      threads: batches that run at the same time.
    """

    def __init__(self, most_rows=256, most_waiting=256, threads=1):
        self._most_rows, self._most_waiting, self._threads = most_rows, most_waiting, threads
        self._executor = concurrent.futures.ThreadPoolExecutor(threads)
        self._waiting, self._running = collections.deque(), 0

    def check_room(self):
        """Raises Full where no request would be taken now."""
        if len(self._waiting) >= self._most_waiting:
            raise Full('{} requests wait already: ask again later'.format(len(self._waiting)))

    async def answer(self, signature, inputs):
        """Returns arrays by output name for arrays by input name.

        Args:
          signature: called with the inputs, of one request or joined ones, in a thread;
            `is_of_rows` says whether those of several may be joined: each row's outputs have to be
            its own.

        Raises:
          Full: too many wait.
          Whatever `signature` raises of this request alone.
        """
        self.check_room()
        loop = asyncio.get_event_loop()
        request = _Request(signature, inputs, loop.create_future())
        self._waiting.append(request)
        # Not now: requests that came in the same moment are taken first.
        loop.call_soon(self._begin, loop)
        return await request.future

    def _begin(self, loop):
        while self._waiting and self._running < self._threads:
            group = self._next_group()
            if group:
                self._running += 1
                outcomes = loop.run_in_executor(
                    self._executor,
                    joining.outcomes,
                    group[0].signature,
                    [request.inputs for request in group],
                )
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
