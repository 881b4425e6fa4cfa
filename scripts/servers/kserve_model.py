"""Hosts an export in KServe, which speaks TensorFlow Serving's REST predict API without Docker.

    python scripts/servers/kserve_model.py EXPORT --model_name=vae --http_port=8501

`scripts/serve --kserve` makes the environment. HTTP, health, metrics and workers are KServe's; here
is only what it leaves to a model: from a JSON request to the tensors of a signature, and back.
"""

import base64
import binascii
import json
import logging
import os

import numpy as np


class BadRequest(ValueError):
    """The message is the answer to the client."""


def request_of(payload):
    """Returns the request that a body holds: curl sends it without a content type of JSON.

    Raises:
      BadRequest: it is no JSON object.
    """
    try:
        request = json.loads(payload) if isinstance(payload, bytes) else payload
    except ValueError as error:
        raise BadRequest('the request is no JSON ({})'.format(error)) from error
    if not isinstance(request, dict):
        raise BadRequest('the request must be a JSON object, as {"inputs": {"count": 2}}')
    return request


def inputs_of(request, names):
    """Returns what a predict request feeds, as lists by input name, and whether it is by row.

    https://www.tensorflow.org/tfx/serving/api_rest: `instances`, one a row, are stacked along a new
    first axis; `inputs` hold whole tensors. Where there is one input its name may be left out.

    Raises:
      BadRequest: the request is of neither form.
    """
    if ('instances' in request) == ('inputs' in request):
        raise BadRequest('the request needs either "instances" or "inputs"')
    if 'inputs' in request:
        columns = request['inputs']
        if not _is_by_name(columns):
            columns = {_only(names): columns}
        return {name: _without_base64(value) for name, value in columns.items()}, False
    rows = request['instances']
    if not isinstance(rows, list) or not rows:
        raise BadRequest('"instances" must be a list that is not empty')
    rows = [row if _is_by_name(row) else {_only(names): row} for row in rows]
    if any(set(row) != set(rows[0]) for row in rows):
        raise BadRequest('all "instances" must have the same inputs')
    return {name: [_without_base64(row[name]) for row in rows] for name in rows[0]}, True


def response_of(outputs, by_row):
    """Returns the answer for arrays by output name; the name is left out where there is one."""
    if not by_row:
        columns = {name: value.tolist() for name, value in outputs.items()}
        return {'outputs': columns if len(columns) > 1 else next(iter(columns.values()))}
    rows = [dict(zip(outputs, row)) for row in zip(*[value.tolist() for value in outputs.values()])]
    return {'predictions': rows if len(outputs) > 1 else [next(iter(row.values())) for row in rows]}


def _is_by_name(value):
    return isinstance(value, dict) and set(value) != {'b64'}


def _only(names):
    if len(names) != 1:
        raise BadRequest('the inputs must be given by name: {}'.format(', '.join(sorted(names))))
    return next(iter(names))


def _without_base64(value):
    if isinstance(value, list):
        return [_without_base64(part) for part in value]
    if isinstance(value, dict):
        if set(value) != {'b64'} or not isinstance(value['b64'], str):
            raise BadRequest('bytes are written as {"b64": "..."}')
        try:
            return base64.b64decode(value['b64'], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest('the value of "b64" is no base64 ({})'.format(error)) from error
    return value


def array_of(name, value, dtype):
    """Returns nested lists as an array of `dtype`: int32, float32 or object, which is of strings.

    Raises:
      BadRequest: there are other values, too large ones, or lists of different lengths.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == 'O':
        array = np.array(value, object)
        if not all(isinstance(item, (bytes, str)) for item in array.ravel()):
            raise BadRequest('{} must hold strings, or bytes as {{"b64": "..."}}'.format(name))
        return array
    wanted = 'numbers, in lists of equal lengths'
    if dtype.kind == 'i':
        limits = np.iinfo(dtype)
        wanted = 'whole numbers from {:,} to {:,}'.format(limits.min, limits.max)
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.array(None)
    right = array.size == 0 or array.dtype.kind in ('iu' if dtype.kind == 'i' else 'iuf')
    # Checked before it is made narrower: 2^32 + 3 would be 3.
    if right and array.size and dtype.kind == 'i':
        right = limits.min <= array.min() and array.max() <= limits.max
    if not right:
        raise BadRequest('{} must hold {}'.format(name, wanted))
    with np.errstate(over='ignore'):  # An infinite number is refused by the graph.
        return array.astype(dtype)


def reason_of(error):
    """Returns the line that says what is wrong: TensorFlow has lines of the code above it."""
    before_node = str(error).split('[[')[0].strip()
    return before_node.split('\n')[-1]


def log_refusals_in_a_line(classes):
    """Has KServe log a request that fails with one of these exceptions without a traceback."""

    def shortened(record):
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, classes):
            record.msg, record.args, record.exc_info = 'Refused: %s', (error,), None
        return True

    logging.getLogger('kserve').addFilter(shortened)


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


def main():
    """Loads the export and serves it until it is told to stop."""
    import argparse

    import kserve
    import tensorflow as tf
    from kserve.errors import InvalidInput, ModelNotFound

    class SavedModel(kserve.Model):
        def __init__(self, name, folder):
            super().__init__(name)
            self.model = tf.saved_model.load(folder)
            self.ready = True

        def predict(self, payload, headers=None, response_headers=None):
            try:
                outputs, by_row = self._answered(request_of(payload))
            except RecursionError as error:
                raise InvalidInput('the request is nested too deeply') from error
            except (BadRequest, tf.errors.OpError) as error:
                raise InvalidInput(reason_of(error)) from error
            return response_of({key: value.numpy() for key, value in outputs.items()}, by_row)

        def _answered(self, request):
            name = request.get('signature_name', 'serving_default')
            if not isinstance(name, str) or name not in self.model.signatures:
                raise BadRequest('there is no signature {!r}'.format(name))
            signature = self.model.signatures[name]
            specs = signature.structured_input_signature[1]
            inputs, by_row = inputs_of(request, specs)
            if set(inputs) != set(specs):
                raise BadRequest('the inputs are {}'.format(', '.join(sorted(specs))))
            arrays = {
                key: array_of(key, inputs[key], spec.dtype.as_numpy_dtype)
                for key, spec in specs.items()
            }
            tensors = {key: tf.constant(array) for key, array in arrays.items()}
            return signature(**tensors), by_row

    log_refusals_in_a_line((InvalidInput, ModelNotFound))
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument('export')
    parser.add_argument('--host', default='127.0.0.1', help='Address to listen on; 0.0.0.0: all.')
    args = parser.parse_args()
    listen_on(args.host)
    model = SavedModel(args.model_name, newest(args.export))
    kserve.ModelServer(http_port=args.http_port, enable_grpc=False).start([model])


if __name__ == '__main__':
    main()
