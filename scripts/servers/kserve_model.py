"""Hosts an export in KServe, which speaks TensorFlow Serving's REST predict API without Docker.

    PYTHONPATH=. python -m scripts.servers.kserve_model EXPORT --model_name=vae --http_port=8501

`scripts/serve --kserve` makes the environment. HTTP, health and metrics are KServe's; here is only
what it leaves to a model.
"""

import gc
import logging
import os
import sys
import threading
import time

from scripts.servers import exports, predict_protocol, saved_model
from scripts.servers.batching import Batcher


def log_refusals_in_a_line(classes):
    """Has KServe log a request that fails with one of these exceptions without a traceback."""

    def shortened(record):
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, classes):
            record.msg, record.args, record.exc_info = 'Refused: %s', (error,), None
        return True

    logging.getLogger('kserve').addFilter(shortened)


def log_no_answers():
    """Has KServe and uvicorn write no lines of requests that are answered: /metrics counts them.

    A third of a request's time went into them.
    """
    from kserve.protocol.rest import server

    server.TimingMiddleware = lambda app, **settings: app
    logging.getLogger('kserve.trace').setLevel(logging.WARNING)
    access = logging.getLogger('uvicorn.access')
    access.handlers, access.propagate = [], False


def listen_on(host):
    """Has all of KServe's servers listen on `host`: 0.0.0.0 is written into it."""
    import uvicorn

    initialize = uvicorn.Config.__init__

    def initialize_with_host(self, *args, **settings):
        initialize(self, *args, **dict(settings, host=host))

    uvicorn.Config.__init__ = initialize_with_host


def look_for_garbage_rarely():
    """Has Python look through what it holds for garbage at a newer export, and otherwise hardly.

    A look at all holds up all requests for a third of a second. What is there by now is left out
    of it for ever; what belongs to a request goes without one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50000, 20, 100)


def follow(model, folder, seconds=1.0):
    """Has `model` serve the newest export of a folder, for ever; the older answers until then."""
    newer = exports.Newer(folder, model.export.folder)
    while True:
        time.sleep(seconds)
        export_dir = newer.look()
        if export_dir:
            _take(model, export_dir)


def _take(model, export_dir):
    gc.disable()  # Each look for garbage while there is more and more holds up all requests.
    try:
        model.export = saved_model.Export(export_dir)
        say('serving {}', export_dir)
    except Exception as error:
        reason = predict_protocol.reason_of(error)
        say('{} is not served, {} still is: {}', export_dir, model.export.folder, reason)
    finally:
        gc.enable()
    gc.collect()  # The older export.


def say(text, *values):
    """Prints a line at once."""
    print(text.format(*values), flush=True)


def main():
    """Loads the export and serves it until it is told to stop."""
    import argparse

    import kserve
    import orjson
    import tensorflow as tf
    from kserve.errors import InvalidInput, ModelNotFound

    from scripts.servers import predict_route

    class SavedModel(kserve.Model):
        def __init__(self, name, export, batcher):
            super().__init__(name)
            self.export, self.batcher = export, batcher
            self.ready = True

        async def predict(self, payload, headers=None, response_headers=None):
            try:
                request = predict_protocol.request_of(payload, orjson.loads)
                signatures = self.export.signatures  # A newer export may come meanwhile.
                signature = signatures[predict_protocol.signature_of(request, signatures)]
                inputs, by_row = predict_protocol.arrays_of(request, signature.types)
                outputs = await self.batcher.answer(signature, inputs)
            except (predict_protocol.BadRequest, tf.errors.OpError) as error:
                raise InvalidInput(predict_protocol.reason_of(error)) from error
            return predict_protocol.response_of(outputs, by_row, written=lambda array: array)

    log_refusals_in_a_line((InvalidInput, ModelNotFound))
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument('export')
    parser.add_argument('--host', default='127.0.0.1', help='Address to listen on; 0.0.0.0: all.')
    args = parser.parse_args()
    export_dir = exports.newest(args.export)
    if not export_dir:
        raise SystemExit('{} holds no export: name a folder as export/final.'.format(args.export))
    listen_on(args.host)
    # One processor reads and writes the requests.
    batcher = Batcher(threads=max(1, (os.cpu_count() or 1) - 1))
    look_for_garbage_rarely()
    # The thread of a batch, or of a newer export, and that of the requests wait for each other for
    # so long, where Python's own 5 ms would be a fourth of what clients wait.
    sys.setswitchinterval(1e-4)
    model = SavedModel(args.model_name, saved_model.Export(export_dir), batcher)
    server = kserve.ModelServer(http_port=args.http_port, enable_grpc=False)
    log_no_answers()
    kserve.model_server.app.router.routes.insert(0, predict_route.route(model, batcher))
    threading.Thread(target=follow, args=(model, args.export), daemon=True).start()
    server.start([model])
    # All are answered. A thread that still loads an export would end the process with an error.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
