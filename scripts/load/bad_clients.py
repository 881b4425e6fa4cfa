"""Clients that do wrong among those that do right, and what a server may answer them."""

import collections
import itertools
import json
import re
import socket
import threading
import time
from typing import Callable, Counter, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from scripts.load.protocols import PROTOCOLS, posted, posted_binary

_SECONDS_TO_ANSWER = 30.0
_HUGE_BYTES = 32 << 20
_SLOW_PARTS, _SLOW_SECONDS = 20, 3.0
Inputs = Dict[str, np.ndarray]  # of one row, by input name


def _sent(port: int, parts: List[bytes], pause: float, must_half_close: bool = False) -> str:
    """Sends the parts of a request; returns the status, 'closed', or 'silent'."""
    with socket.create_connection(('127.0.0.1', port), _SECONDS_TO_ANSWER) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if must_half_close:
                connection.shutdown(socket.SHUT_WR)
        except socket.timeout:
            return 'silent'
        except OSError:
            pass  # It may have answered before it had all.
        try:
            head = connection.recv(1 << 12)
        except socket.timeout:
            return 'silent'
        except OSError:
            return 'closed'
    found = re.match(rb'HTTP/1\.\d (\d{3})', head)
    return found.group(1).decode('ascii') if found else 'closed'


def malformed(protocol: str, inputs: Inputs) -> Dict[str, bytes]:
    """Returns requests that have to be refused, by what is wrong with them."""
    ask, path = PROTOCOLS[protocol].request_of, PROTOCOLS[protocol].path
    (name,), (row,) = inputs, inputs.values()
    good = ask(inputs)
    _, _, body = good.partition(b'\r\n\r\n')
    spoiled = row.copy()
    spoiled.flat[row.size // 2] = np.nan
    requests = {
        'no HTTP': b'\x16\x03\x01\x02\x00\x01\x00\r\n\r\n',
        'no length': re.sub(rb'Content-Length: \d+', b'Content-Length: many', good),
        'no JSON': good[:-1] + b'!',
        'nested': posted(path, b'[' * 100000),
        'no object': posted(path, b'[1, 2]'),
        'not a number': ask({name: spoiled}),
        'another shape': ask({name: row[:, :-1]}),
        'another name': ask({name: row}).replace(name.encode(), name[::-1].encode()),
        'text': posted(path, re.sub(rb'\d\.\d+', b'"a"', body, count=1)),
        'nothing': posted(path, b''),
    }
    if protocol == 'rest':
        requests['no such signature'] = good.replace(b'"encode"', b'"edocne"')
        requests['another name'] = posted(
            path, json.dumps({'signature_name': 'encode', 'instances': [{'x': [1.0]}]}).encode()
        )
    else:
        requests['no such signature'] = good.replace(b'/encode/', b'/edocne/', 1)
        requests['another type'] = good.replace(b'"FP32"', b'"INT8"')
    if name == 'images':
        requests['levels to 255'] = ask({name: 255 * np.ones_like(row)})
    if protocol == 'binary':
        length = len(body) - row.nbytes
        requests['no JSON'] = posted_binary(b'!' + body[1:], length)
        requests['too few bytes'] = posted_binary(body[:-4], length)
        requests['a header beyond the end'] = posted_binary(body, 10 * len(body))
        del requests['text']
    return requests


def huge(protocol: str, inputs: Inputs, size: int = _HUGE_BYTES) -> bytes:
    """Returns a request of many rows, of about so many bytes."""
    ask = PROTOCOLS[protocol].request_of

    def of_rows(count):
        return ask({name: np.repeat(row, count, axis=0) for name, row in inputs.items()})

    each = (len(of_rows(11)) - len(of_rows(1))) / 10
    return of_rows(int(size / each) + 1)


class Habit(NamedTuple):
    """What a kind of bad client does, again and again.

    Attributes:
      turns: one attempt after the other: what it is called, and what does it and returns the
        status or 'closed' or 'silent'.
      allowed: what a server may answer, a pattern.
      pause: seconds between two attempts.
    """

    turns: Iterator[Tuple[str, Callable[[], str]]]
    allowed: str
    pause: float


def habits(port: int, protocol: str, inputs: Inputs, refusal: str) -> Dict[str, Habit]:
    """Returns the kinds of bad clients by name; `refusal` is what malformed requests may hear."""
    good = PROTOCOLS[protocol].request_of(inputs)
    half, size = good[: len(good) // 2], len(good) // _SLOW_PARTS + 1
    slowly = [good[start : start + size] for start in range(0, len(good), size)]
    large = huge(protocol, inputs)
    pause = _SLOW_SECONDS / _SLOW_PARTS
    bad = [
        (name, lambda request=request: _sent(port, [request], 0.0))
        for name, request in malformed(protocol, inputs).items()
    ]
    ends = [
        ('half a request', lambda: _sent(port, [half], 0.0, True)),
        ('a whole request', lambda: _sent(port, [good], 0.0, True)),
        ('nothing', lambda: _sent(port, [], 0.0, True)),
        ('nobody waits for the answer', lambda: _abandoned(port, good)),
    ]
    return {
        'malformed': Habit(itertools.cycle(bad), refusal, 0.02),
        'huge': Habit(
            itertools.repeat(('32 MB', lambda: _sent(port, [large], 0.0))),
            '2..|4..|503|closed',
            5.0,
        ),
        'slow': Habit(
            itertools.repeat(('in 3 s', lambda: _sent(port, slowly, pause))), '200|408|429|503', 0.0
        ),
        'half-closed': Habit(itertools.cycle(ends), '200|4..|503|closed', 0.05),
    }


def _abandoned(port: int, request: bytes) -> str:
    with socket.create_connection(('127.0.0.1', port), _SECONDS_TO_ANSWER) as connection:
        connection.sendall(request)
    return 'closed'


class BadClient(threading.Thread):
    """Follows a habit until it is told to stop.

    Attributes:
      counts: how often what was answered, by (what was done, answer).
    """

    def __init__(self, habit: Habit):
        super().__init__(daemon=True)
        self._habit, self._stop_event = habit, threading.Event()
        self.counts: Counter[Tuple[str, str]] = collections.Counter()

    def run(self):
        for name, attempt in self._habit.turns:
            try:
                answer = attempt()
            except OSError as error:
                answer = 'no connection: {}'.format(error.strerror or error)
            self.counts[name, answer] += 1
            if self._stop_event.wait(self._habit.pause):
                return

    def stop(self) -> None:
        """Returns when the attempt under way has ended."""
        self._stop_event.set()
        self.join(2 * _SECONDS_TO_ANSWER)


def not_allowed(habit: Habit, counts: Counter) -> Optional[str]:
    """Returns what a server answered but may not, or None."""
    wrong = [
        '{}: {} ({} times)'.format(name, answer, count)
        for (name, answer), count in sorted(counts.items())
        if not re.fullmatch(habit.allowed, answer)
    ]
    return '; '.join(wrong) or None
