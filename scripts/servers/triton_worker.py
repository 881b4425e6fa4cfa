"""Answers from a loaded export inside Triton, whose Python backend imports `TritonPythonModel`.

`triton_repository.py` writes the model that does so: its inputs and outputs are those of all
signatures, each called `signature/name`, so a process with one loaded export answers for all.
"""

import functools
import json
import os
import threading
import time
from concurrent import futures

import numpy as np

from scripts.servers import saved_model
from scripts.servers.joining import outcomes
from scripts.servers.predict_protocol import reason_of


def number_to_answer(sizes, limit):
    """Returns how many requests of a batch are answered, the others being too many.

    Triton hands over whatever waits. Its own limit of a queue (`max_queue_size`) makes requests
    wait half a second where a model has one instance (seen in 2.51), so the limit is here.

    Args:
      sizes: the number of examples in each request.
      limit: how many examples to answer; a single request may have more.
    """
    return max(1, int(np.searchsorted(np.cumsum(sizes), limit, side='right')))


def _end_with(server):
    """Ends this process where the server is gone, as one that was killed cannot tell it to end."""
    while os.getppid() == server:
        time.sleep(1)
    os._exit(1)


def _signatures_of(export_dir, threads):
    return saved_model.Export(export_dir, threads).signatures


def _run(name, signature, inputs):
    tensors = {}
    for key, tensor in signature.inputs.items():
        value = inputs[f'{name}/{key}']
        # Triton has no scalars and no vectors of examples: their last axis, of one, goes.
        tensors[key] = value.reshape(value.shape[: tensor.shape.rank or 0])
    return {f'{name}/{key}': value for key, value in signature(tensors).items()}


# Whoever has few connections, as the front end needs it, is refused too before all of them wait.
_MOST_REQUESTS = 192


class TritonPythonModel:
    """What Triton's Python backend calls: https://github.com/triton-inference-server/python_backend."""

    export = None  # The folder; set in the model that is written.

    def initialize(self, args):
        import triton_python_backend_utils as backend

        self.backend = backend
        threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
        config = json.loads(args['model_config'])
        self.limit = max(1, config['max_batch_size'] // 4)
        self.unbatched = json.loads(config['parameters']['unbatched']['string_value'])
        # Triton's own threads need the other processors.
        threads = max(1, len(os.sched_getaffinity(0)) // 2)
        # An older export answers meanwhile: on Linux a thread has a niceness of its own.
        with futures.ThreadPoolExecutor(1, initializer=os.nice, initargs=(10,)) as loader:
            self.signatures = loader.submit(_signatures_of, self.export, threads).result()

    def execute(self, requests):
        """Returns a response for each request, in their order."""
        inputs = [
            {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            for request in requests
        ]
        sizes = [len(next(iter(by_name.values()), ())) for by_name in inputs]
        number = min(number_to_answer(sizes, self.limit), _MOST_REQUESTS)
        results = [None] * number
        kinds = [tuple(by_name) for by_name in inputs[:number]]
        for kind in dict.fromkeys(kinds):
            chosen = [i for i in range(number) if kinds[i] == kind]
            for i, result in zip(chosen, self._answers(kind, [inputs[i] for i in chosen])):
                results[i] = result
        return [self._response(result) for result in results] + [
            self._error('the server is busy: ask again later', 'UNAVAILABLE')
            for _ in requests[number:]
        ]

    def _answers(self, names, requests):
        """Returns the outputs of each request, or an exception; all have inputs of these names."""
        name = names[0].split('/')[0] if names else ''
        signature = self.signatures.get(name)
        if not signature or set(names) != {f'{name}/{key}' for key in signature.inputs}:
            return [ValueError('ask for a signature by its own name, as encode')] * len(requests)
        # TensorFlow is not here before it is loaded.
        import tensorflow as tf

        refusals = (tf.errors.OpError, ValueError, TypeError)
        run = functools.partial(_run, name, signature)
        if name not in self.unbatched:
            return outcomes(run, requests, refusals)
        results = []
        for request in requests:
            try:
                # Triton sees each of these requests as one example.
                outputs = run({key: value[0] for key, value in request.items()})
                results.append({key: value[np.newaxis] for key, value in outputs.items()})
            except refusals as error:
                results.append(error)
        return results

    def _response(self, result):
        backend = self.backend
        if isinstance(result, Exception):
            return self._error(reason_of(result), 'INVALID_ARG')
        # A vector of examples has an axis of one in Triton.
        return backend.InferenceResponse(
            [
                backend.Tensor(name, value if value.ndim > 1 else value.reshape(-1, 1))
                for name, value in result.items()
            ]
        )

    def _error(self, message, code):
        # Each response has its own: Triton crashes where two have the same error object.
        error = self.backend.TritonError
        return self.backend.InferenceResponse(error=error(message, getattr(error, code)))
