"""Hosts an export in KServe, which speaks TensorFlow Serving's REST predict API without Docker.

    python scripts/kserve_model.py EXPORT --model_name=vae --http_port=8501

`scripts/serve --kserve` makes the environment. HTTP, health, metrics and workers are KServe's; here
is only what it leaves to a model: from a JSON request to the tensors of a signature, and back.
"""

import base64
import json
import os


def inputs_of(request, names):
    """Returns what a predict request feeds, as lists by input name, and whether it is by row.

    https://www.tensorflow.org/tfx/serving/api_rest: `instances`, one a row, are stacked along a new
    first axis; `inputs` hold whole tensors. Where there is one input its name may be left out.

    Raises:
      ValueError: the request is of neither form.
    """
    if ('instances' in request) == ('inputs' in request):
        raise ValueError('the request needs either "instances" or "inputs"')
    if 'inputs' in request:
        columns = request['inputs']
        if not _is_by_name(columns):
            columns = {_only(names): columns}
        return {name: _without_base64(value) for name, value in columns.items()}, False
    rows = request['instances']
    if not isinstance(rows, list) or not rows:
        raise ValueError('"instances" must be a list that is not empty')
    rows = [row if _is_by_name(row) else {_only(names): row} for row in rows]
    if any(set(row) != set(rows[0]) for row in rows):
        raise ValueError('all "instances" must have the same inputs')
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
        raise ValueError('the inputs must be given by name: {}'.format(', '.join(sorted(names))))
    return next(iter(names))


def _without_base64(value):
    if isinstance(value, list):
        return [_without_base64(part) for part in value]
    if isinstance(value, dict):
        if set(value) != {'b64'}:
            raise ValueError('bytes are written as {"b64": "..."}')
        return base64.b64decode(value['b64'])
    return value


def reason_of(error):
    """Returns the line that says what is wrong: TensorFlow has lines of the code above it."""
    before_node = str(error).split('[[')[0].strip()
    return before_node.split('\n')[-1]


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
    from kserve.errors import InvalidInput

    class SavedModel(kserve.Model):
        def __init__(self, name, folder):
            super().__init__(name)
            self.model = tf.saved_model.load(folder)
            self.ready = True

        def predict(self, payload, headers=None, response_headers=None):
            try:
                if isinstance(payload, bytes):  # As curl sends it, without a content type of JSON.
                    payload = json.loads(payload)
                name = payload.get('signature_name', 'serving_default')
                if name not in self.model.signatures:
                    raise ValueError('there is no signature {!r}'.format(name))
                signature = self.model.signatures[name]
                specs = signature.structured_input_signature[1]
                inputs, by_row = inputs_of(payload, specs)
                if set(inputs) != set(specs):
                    raise ValueError('the inputs are {}'.format(', '.join(sorted(specs))))
                tensors = {key: tf.constant(inputs[key], specs[key].dtype) for key in specs}
                outputs = signature(**tensors)
            except (
                ValueError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
                tf.errors.OpError,
            ) as error:
                raise InvalidInput(reason_of(error)) from error
            return response_of({key: value.numpy() for key, value in outputs.items()}, by_row)

    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument('export')
    parser.add_argument('--host', default='127.0.0.1', help='Address to listen on; 0.0.0.0: all.')
    args = parser.parse_args()
    listen_on(args.host)
    model = SavedModel(args.model_name, newest(args.export))
    kserve.ModelServer(http_port=args.http_port, enable_grpc=False).start([model])


if __name__ == '__main__':
    main()
