"""Hosts an export in KServe, which speaks TensorFlow Serving's REST predict API without Docker.

    PYTHONPATH=. python -m scripts.servers.kserve_model EXPORT --model_name=vae --http_port=8501

`scripts/serve --kserve` makes the environment. HTTP, health and metrics are KServe's; here is only
what it leaves to a model.
"""

import gc
import logging
import os

import numpy as np

from scripts.servers import predict_protocol
from scripts.servers.batching import Batcher


def is_of_rows(inputs, outputs):
    """Whether a signature is of rows, `[n, ...]`, so that requests can be answered together.

    Args:
      inputs: shapes by name, of lists with None for a free length; None where even the rank is.
      outputs: the same.
    """
    # Of interpolate, the steps have no known rank, and the outputs are of pairs of images.
    shapes = [*inputs.values(), *outputs.values()]
    return all(bool(shape) and shape[0] is None for shape in shapes)


class Export:
    """A SavedModel in TensorFlow 2."""

    def __init__(self, folder):
        import tensorflow as tf

        self._tf, self._folder = tf, folder
        self._model = tf.saved_model.load(folder)
        specs = {
            name: signature.structured_input_signature[1]
            for name, signature in self._model.signatures.items()
        }
        self.types = {
            name: {key: spec.dtype.as_numpy_dtype for key, spec in inputs.items()}
            for name, inputs in specs.items()
        }
        self.joined = [
            name
            for name, signature in self._model.signatures.items()
            if is_of_rows(_shapes(specs[name]), _shapes(signature.structured_outputs))
        ]

    def warm_up(self):
        """Asks each signature once, as the first answer takes a third of a second more."""
        path = os.path.join(self._folder, 'assets.extra', 'golden.npz')
        if not os.path.exists(path):
            return  # Written by an older trainer.
        with np.load(path) as golden:
            for name, types in self.types.items():
                keys = {key: '{}/inputs/{}'.format(name, key) for key in types}
                if set(keys.values()) <= set(golden.files):
                    inputs = {key: golden[kept] for key, kept in keys.items()}
                    self.run(name, {key: inputs[key].astype(types[key]) for key in types})

    def run(self, name, inputs):
        """Returns arrays by output name for arrays by input name."""
        tensors = {key: self._tf.constant(array) for key, array in inputs.items()}
        outputs = self._model.signatures[name](**tensors)
        return {key: value.numpy() for key, value in outputs.items()}


def _shapes(specs):
    return {
        key: None if spec.shape.rank is None else spec.shape.as_list()
        for key, spec in specs.items()
    }


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


def newest(folder):
    """Returns the export itself, or the newest of the numbered ones in `folder`."""
    if os.path.exists(os.path.join(folder, 'saved_model.pb')):
        return folder
    numbers = [int(name) for name in os.listdir(folder) if name.isdigit()]
    if not numbers:
        raise SystemExit('{} holds no export: name a folder as export/final.'.format(folder))
    return os.path.join(folder, str(max(numbers)))


def listen_on(host):
    """Has all of KServe's servers listen on `host`: 0.0.0.0 is written into it."""
    import uvicorn

    initialize = uvicorn.Config.__init__

    def initialize_with_host(self, *args, **settings):
        initialize(self, *args, **dict(settings, host=host))

    uvicorn.Config.__init__ = initialize_with_host


def use_one_thread_a_batch():
    """Has TensorFlow compute in the thread that asks.

    Its own threads double the processor's time of a batch, and hardly shorten it: an LSTM is many
    small products, one after another.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


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
                name = predict_protocol.signature_of(request, self.export.types)
                inputs, by_row = predict_protocol.arrays_of(request, self.export.types[name])
                outputs = await self.batcher.answer(name, inputs)
            except (predict_protocol.BadRequest, tf.errors.OpError) as error:
                raise InvalidInput(predict_protocol.reason_of(error)) from error
            return predict_protocol.response_of(outputs, by_row, written=lambda array: array)

    log_refusals_in_a_line((InvalidInput, ModelNotFound))
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument('export')
    parser.add_argument('--host', default='127.0.0.1', help='Address to listen on; 0.0.0.0: all.')
    args = parser.parse_args()
    listen_on(args.host)
    use_one_thread_a_batch()
    export = Export(newest(args.export))
    export.warm_up()
    # What is there by now stays: to look through all of it for garbage takes a third of a second.
    gc.collect()
    gc.freeze()
    # One processor reads and writes the requests.
    batcher = Batcher(export.run, export.joined, threads=max(1, (os.cpu_count() or 1) - 1))
    model = SavedModel(args.model_name, export, batcher)
    server = kserve.ModelServer(http_port=args.http_port, enable_grpc=False)
    log_no_answers()
    kserve.model_server.app.router.routes.insert(0, predict_route.route(model, batcher))
    server.start([model])


if __name__ == '__main__':
    main()
