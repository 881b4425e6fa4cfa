"""TensorFlow Serving's REST predict API: a JSON request as arrays, and arrays as its answer.

https://www.tensorflow.org/tfx/serving/api_rest: `instances`, one a row, are stacked along a new
first axis; `inputs` hold whole tensors.
"""

import base64
import binascii
import json

import numpy as np


class BadRequest(ValueError):
    """The message is the answer to the client."""


def request_of(payload, loads=json.loads):
    """Returns the request that a body holds, bytes or read already.

    Args:
      loads: a faster reader of JSON; what it does not take is read by Python's own, which knows
        infinite numbers and says what is wrong.

    Raises:
      BadRequest: it is no JSON object.
    """
    request = payload
    if isinstance(payload, bytes):
        try:
            request = _read(payload, loads)
        except ValueError as error:
            raise BadRequest('the request is no JSON ({})'.format(error)) from error
        except RecursionError as error:
            raise BadRequest('the request is nested too deeply') from error
    if not isinstance(request, dict):
        raise BadRequest('the request must be a JSON object, as {"inputs": {"count": 2}}')
    return request


def _read(payload, loads):
    try:
        return loads(payload)
    except ValueError:
        return json.loads(payload)


def signature_of(request, known):
    """Returns the name of the signature that is asked for.

    Raises:
      BadRequest: it is none of the `known`.
    """
    name = request.get('signature_name', 'serving_default')
    if not isinstance(name, str) or name not in known:
        raise BadRequest('there is no signature {!r}'.format(name))
    return name


def arrays_of(request, types):
    """Returns what a predict request feeds, as arrays by input name, and whether it is by row.

    Args:
      types: NumPy types by input name.

    Raises:
      BadRequest: the request is of neither form, or its values are not of these types.
    """
    try:
        inputs, by_row = inputs_of(request, types)
    except RecursionError as error:
        raise BadRequest('the request is nested too deeply') from error
    if set(inputs) != set(types):
        raise BadRequest('the inputs are {}'.format(', '.join(sorted(types))))
    return {name: array_of(name, inputs[name], types[name]) for name in types}, by_row


def inputs_of(request, names):
    """Returns what a predict request feeds, as lists by input name, and whether it is by row.

    Where there is one input its name may be left out.

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


def response_of(outputs, by_row, written=np.ndarray.tolist):
    """Returns the answer for arrays by output name; the name is left out where there is one.

    Args:
      written: makes of an array what the writer of JSON takes.
    """
    values = {name: written(value) for name, value in outputs.items()}
    if not by_row:
        return {'outputs': values if len(values) > 1 else next(iter(values.values()))}
    rows = [dict(zip(values, row)) for row in zip(*values.values())]
    return {'predictions': rows if len(values) > 1 else [next(iter(row.values())) for row in rows]}


def _is_by_name(value):
    return isinstance(value, dict) and set(value) != {'b64'}


def _only(names):
    if len(names) != 1:
        raise BadRequest('the inputs must be given by name: {}'.format(', '.join(sorted(names))))
    return next(iter(names))


def _without_base64(value):
    if isinstance(value, list):
        # Most lists are of numbers: to look at each would take longer than all else here.
        if value and isinstance(value[0], (float, int)):
            return value
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
