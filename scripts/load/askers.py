"""Connections that ask a server about images, one row at a time, in the event loop of a client."""

import asyncio
import re
import time
from typing import Any, Dict, List, NamedTuple

import numpy as np

from scripts.load.protocols import PROTOCOLS, SIGNATURE

# Servers close connections that they have not heard of for some seconds.
_IDLE_SECONDS = 1.0
_MOST_CHANNELS = 32


class Answer(NamedTuple):
    """A status of HTTP; the outputs by name, or where there are none the server's words."""

    status: int
    outputs: Dict[str, Any]
    text: str = ''


def rows_of(inputs: Dict[str, np.ndarray]) -> List[Dict[str, np.ndarray]]:
    """Returns arrays of one row each by input name, for each row of all."""
    count = len(next(iter(inputs.values())))
    return [{name: rows[i : i + 1] for name, rows in inputs.items()} for i in range(count)]


class _Connection(asyncio.Protocol):
    """One connection of HTTP/1.1, which is asked one request at a time."""

    def __init__(self):
        self._received, self._waiting = bytearray(), None
        self.is_open, self.used = True, time.monotonic()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.is_open = False
        self._fail('closed without an answer')

    def _fail(self, text):
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(text))

    def data_received(self, data):
        self._received += data
        end = self._received.find(b'\r\n\r\n')
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = re.search(rb'\r\ncontent-length: *(\d+)', head)
        if not length:
            self._fail('answered without a length')
            self.transport.abort()
        elif len(self._received) >= end + 4 + int(length.group(1)):
            body, self._received = bytes(self._received[end + 4 :]), bytearray()
            self.is_open = self.is_open and b'\r\nconnection: close' not in head
            if self._waiting and not self._waiting.done():
                self._waiting.set_result((head, body))

    async def ask(self, request, timeout):
        loop = asyncio.get_event_loop()
        self._waiting = loop.create_future()
        self.transport.write(request)
        timer = loop.call_later(timeout, self._give_up, timeout)
        try:
            return await self._waiting
        finally:
            timer.cancel()
            self.used = time.monotonic()

    def _give_up(self, timeout):
        self._fail('not answered in {:g} s'.format(timeout))
        self.transport.abort()


class Http:
    """Asks over connections that are kept and used again."""

    def __init__(self, host: str, port: int, protocol: str, inputs: Dict[str, np.ndarray]):
        self._where, self._arrays_of = (host, port), PROTOCOLS[protocol].arrays_of
        self._requests = [PROTOCOLS[protocol].request_of(row) for row in rows_of(inputs)]
        self._idle: List[_Connection] = []

    async def ask(self, number: int, timeout: float) -> Answer:
        """Asks about the row of that number.

        Raises:
          OSError: there was no answer, or none in time.
        """
        connection = await self._connection()
        head, body = await connection.ask(self._requests[number], timeout)
        if connection.is_open:
            self._idle.append(connection)
        status = int(head[9:12])
        if not 200 <= status < 300:
            return Answer(status, {}, body[:300].decode('utf-8', 'replace'))
        length = re.search(rb'\r\ninference-header-content-length: *(\d+)', head)
        try:
            return Answer(status, self._arrays_of(body, int(length.group(1)) if length else None))
        except (KeyError, TypeError, ValueError, AttributeError):
            return Answer(status, {'unreadable': body})

    async def _connection(self):
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() < connection.used + _IDLE_SECONDS:
                return connection
            connection.transport.close()
        loop = asyncio.get_event_loop()
        return (await loop.create_connection(_Connection, *self._where))[1]


# What gRPC's codes are in HTTP; with any other one a request is lost.
_STATUSES = {
    'StatusCode.UNAVAILABLE': 503,
    'StatusCode.RESOURCE_EXHAUSTED': 429,
    'StatusCode.INVALID_ARGUMENT': 400,
    'StatusCode.NOT_FOUND': 404,
    'StatusCode.INTERNAL': 500,
}
# gRPC itself says UNAVAILABLE too.
_OF_A_CONNECTION = re.compile('connect|socket|recvmsg|goaway|transport|endpoint', re.I)


class Grpc:
    """Asks through `tritonclient`, over a connection for each of the clients."""

    def __init__(self, host: str, port: int, clients: int, inputs: Dict[str, np.ndarray]):
        from tritonclient.grpc import InferInput, aio

        self._turn, count = 0, min(clients, _MOST_CHANNELS)
        # Else all share one connection.
        options = [('grpc.use_local_subchannel_pool', 1)]
        self._clients = [
            aio.InferenceServerClient('{}:{}'.format(host, port), channel_args=options)
            for _ in range(count)
        ]
        self._requests = []
        for named in rows_of(inputs):
            tensors = [InferInput(name, row.shape, 'FP32') for name, row in named.items()]
            for tensor, row in zip(tensors, named.values()):
                tensor.set_data_from_numpy(row)
            self._requests.append(tensors)

    async def ask(self, number: int, timeout: float) -> Answer:
        """As of `Http`."""
        from tritonclient.utils import InferenceServerException

        self._turn += 1
        client = self._clients[self._turn % len(self._clients)]
        try:
            answer = await client.infer(SIGNATURE, self._requests[number], client_timeout=timeout)
        except InferenceServerException as error:
            status, text = _STATUSES.get(error.status()), error.message()
            if status is None or (status == 503 and _OF_A_CONNECTION.search(text)):
                raise ConnectionError('{} {}'.format(error.status(), text)) from error
            return Answer(status, {}, text)
        names = [output.name for output in answer.get_response().outputs]
        return Answer(200, {name: answer.as_numpy(name) for name in names})
