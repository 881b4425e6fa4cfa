"""The way of a predict request through KServe's server: read, answered, written, or refused.

KServe's own way decodes events of clouds and two protocols, and takes longer than the answer.
"""

import time

import orjson
from kserve.metrics import PREDICT_HIST_TIME, get_labels
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scripts.servers.batching import Full

MOST_BYTES = 2**28  # of the requests that are being read and answered


def route(model, batcher):
    """Returns the route of `model`'s predict requests."""
    label = PREDICT_HIST_TIME.labels(**get_labels(model.name))
    bodies = _Bodies()

    async def predict(request):
        held = _Held(bodies)
        try:
            batcher.check_room()
            body = await held.body_of(request)
            begun = time.perf_counter()
            answer = await model.predict(body)
            label.observe(time.perf_counter() - begun)
            return Response(_written(answer), media_type='application/json')
        except ClientDisconnect:
            return Response(status_code=400)  # Nobody reads it.
        except Full as error:
            return _refusal(503, error, {'retry-after': '1'})
        except _TooLarge as error:
            # What is left of the body is not worth reading.
            return _refusal(413, error, {'connection': 'close'})
        finally:
            held.release()

    return Route('/v1/models/{}:predict'.format(model.name), predict, methods=['POST'])


def _written(answer):
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _refusal(status, error, headers):
    return JSONResponse({'error': str(error)}, status, headers)


class _TooLarge(Exception):
    pass


class _Bodies:
    def __init__(self):
        self.bytes = 0


class _Held:
    """What one request holds of the bytes that all may hold."""

    def __init__(self, bodies):
        self._bodies, self._bytes = bodies, 0

    async def body_of(self, request):
        """Returns the body; raises Full or _TooLarge where there is no room for it."""
        stated = request.headers.get('content-length', '')
        if stated.isdecimal():
            self._hold(int(stated))
        parts, length = [], 0
        async for part in request.stream():
            parts.append(part)
            length += len(part)
            self._hold(length)
        return b''.join(parts)

    def _hold(self, length):
        if length > MOST_BYTES:
            raise _TooLarge('a request may have {:,} bytes'.format(MOST_BYTES))
        more = max(length - self._bytes, 0)
        if self._bodies.bytes + more > MOST_BYTES:
            raise Full('other requests have {:,} bytes: ask later'.format(self._bodies.bytes))
        self._bodies.bytes += more
        self._bytes += more

    def release(self):
        self._bodies.bytes -= self._bytes
        self._bytes = 0
