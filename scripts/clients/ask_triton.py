"""Asks a Triton server for every signature of golden inputs, through its public client.

    python scripts/clients/ask_triton.py grpc localhost:8500 golden.npz results.json

For the environment of `scripts/serve --triton`, where `tritonclient` is.
"""

import json
import os
import sys

import numpy as np

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(_ROOT, 'trainer', 'serving'))

import verify_export  # noqa: E402


def caller(client, protocol, name, ranks):
    """Returns the call of a signature, from arrays to arrays by name.

    Args:
      protocol: the module of the client.
      ranks: the number of axes that each output should have.
    """
    types = {'float32': 'FP32', 'int32': 'INT32', 'object': 'BYTES'}
    metadata = client.get_model_metadata(name)
    metadata = metadata if isinstance(metadata, dict) else json.loads(_json_of(metadata))
    axes = {tensor['name']: len(tensor['shape']) for tensor in metadata['inputs']}

    def tensor_of(key, value):
        array = np.asarray(value)
        # Triton's scalars, and its files of a number of examples, have one more axis, of one.
        array = array[..., np.newaxis] if array.ndim == axes[key] - 1 else array
        tensor = protocol.InferInput(key, list(array.shape), types[array.dtype.name])
        tensor.set_data_from_numpy(array)
        return tensor

    def call(inputs):
        result = client.infer(name, [tensor_of(key, value) for key, value in inputs.items()])
        arrays = {key: result.as_numpy(key) for key in ranks}
        return {
            key: array[..., 0] if array.ndim == ranks[key] + 1 else array
            for key, array in arrays.items()
        }

    return call


def _json_of(message):
    from google.protobuf import json_format

    return json_format.MessageToJson(message)


def main(protocol, address, golden, results):
    if protocol == 'grpc':
        from tritonclient import grpc as module
    else:
        from tritonclient import http as module
    found = {}
    with module.InferenceServerClient(address) as client:
        for name, example in verify_export.read_golden(golden).items():
            ranks = {key: np.ndim(value) for key, value in example['outputs'].items()}
            call = caller(client, module, name, ranks) if client.is_model_ready(name) else None
            found[name] = verify_export.check(call, example, verify_export.TOLERANCE)
    with open(results, 'w') as f:
        json.dump(found, f, allow_nan=False)


if __name__ == '__main__':
    main(*sys.argv[1:])
