"""How each protocol asks a server for `encode`, and what it answers: bytes of HTTP/1.1.

Python 3.7 and later, and NumPy: the client also runs where the server's packages are.
"""

import json
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional

import numpy as np

SIGNATURE = 'encode'
_HEADER_LENGTH = 'Inference-Header-Content-Length'


class Protocol(NamedTuple):
    """One way to ask.

    Attributes:
      path: where requests are posted.
      health: where a server that is ready answers 200.
      request_of: makes the bytes of a request of arrays, of one row each, by input name.
      arrays_of: reads a body, given `_HEADER_LENGTH` of its headers, into rows by output name.
    """

    title: str
    path: str
    health: str
    request_of: Optional[Callable[[Mapping[str, np.ndarray]], bytes]]
    arrays_of: Optional[Callable[[bytes, Optional[int]], Dict[str, Any]]]


def posted(path: str, body: bytes, **headers: Any) -> bytes:
    """Returns the bytes of a request; `_` in the names of headers stands for `-`."""
    lines = ['POST {} HTTP/1.1'.format(path), 'Host: localhost']
    headers = {'Content_Type': 'application/json', 'Content_Length': len(body), **headers}
    lines += ['{}: {}'.format(name.replace('_', '-'), value) for name, value in headers.items()]
    return '\r\n'.join([*lines, '', '']).encode('ascii') + body


def grey_levels(array: np.ndarray) -> Any:
    """Returns lists of the numbers that a client has who divides bytes by 255 in Python."""
    return (np.rint(255 * array.astype(float)) / 255).tolist()


def numbers(array: np.ndarray) -> Any:
    """Returns nested lists: of multiples of 1/255 the shortest decimals, as those are."""
    levels = 255 * array
    is_grey = np.abs(levels - np.rint(levels)).max() < 1e-3
    return grey_levels(array) if is_grey else array.tolist()


_REST_PATH = '/v1/models/vae:predict'


def _rest_request(inputs: Mapping[str, np.ndarray]) -> bytes:
    # The name of the only input is left out, as most do.
    rows = numbers(next(iter(inputs.values())))
    body = {'signature_name': SIGNATURE, 'instances': rows}
    return posted(_REST_PATH, json.dumps(body).encode('ascii'))


def _rest_arrays(body: bytes, header_length: Optional[int]) -> Dict[str, Any]:
    (row,) = json.loads(body)['predictions']
    return row


_V2_PATH = '/v2/models/{}/infer'.format(SIGNATURE)


def _v2_request(inputs: Mapping[str, np.ndarray]) -> bytes:
    tensors = [
        {
            'name': name,
            'shape': array.shape,
            'datatype': 'FP32',
            'data': np.ravel(numbers(array)).tolist(),
        }
        for name, array in inputs.items()
    ]
    return posted(_V2_PATH, json.dumps({'inputs': tensors}).encode('ascii'))


def _v2_arrays(body: bytes, header_length: Optional[int]) -> Dict[str, Any]:
    return {output['name']: output['data'] for output in json.loads(body)['outputs']}


def _binary_request(inputs: Mapping[str, np.ndarray]) -> bytes:
    tensors = [
        {
            'name': name,
            'shape': array.shape,
            'datatype': 'FP32',
            'parameters': {'binary_data_size': array.nbytes},
        }
        for name, array in inputs.items()
    ]
    header = {'inputs': tensors, 'parameters': {'binary_data_output': True}}
    head = json.dumps(header).encode('ascii')
    body = head + b''.join(array.tobytes() for array in inputs.values())
    return posted_binary(body, len(head))


def posted_binary(body: bytes, header_length: int) -> bytes:
    """Returns the bytes of a request whose body begins with a header of JSON of that length."""
    more = {_HEADER_LENGTH.replace('-', '_'): header_length}
    return posted(_V2_PATH, body, Content_Type='application/octet-stream', **more)


def _binary_arrays(body: bytes, header_length: Optional[int]) -> Dict[str, Any]:
    arrays, start = {}, header_length
    for output in json.loads(body[:header_length])['outputs']:
        end = start + output['parameters']['binary_data_size']
        arrays[output['name']] = np.frombuffer(body[start:end], '<f4')
        start = end
    return arrays


PROTOCOLS = {
    'rest': Protocol(
        'TF Serving REST, JSON', _REST_PATH, '/v1/models/vae', _rest_request, _rest_arrays
    ),
    'v2': Protocol('KServe v2, JSON', _V2_PATH, '/v2/health/ready', _v2_request, _v2_arrays),
    'binary': Protocol(
        'KServe v2, binary tensors', _V2_PATH, '/v2/health/ready', _binary_request, _binary_arrays
    ),
    'grpc': Protocol('KServe v2, gRPC', '', '/v2/health/ready', None, None),
}
