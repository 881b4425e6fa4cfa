"""JSON of requests into tensors, and what is answered of bad ones."""

import base64
import json

import numpy as np
import pytest

from scripts.servers import predict_protocol

BYTES = {'b64': base64.b64encode(b'\x89PNG').decode('ascii')}


@pytest.mark.parametrize(
    'number',
    [4294967299, 2**31, -(2**31) - 1, 2**63, 2**64, 10**400, -(10**400), 3.0, 2.5]
    + [True, None, '3', float('nan'), [1, 2**32], [[1], [2, 3]], [2**63, -1], {'a': 1}],
)
def test_whole_numbers_are_never_wrapped_into_their_range(number):
    with pytest.raises(predict_protocol.BadRequest) as error:
        predict_protocol.array_of('count', number, np.int32)
    assert str(error.value) == (
        'count must hold whole numbers from -2,147,483,648 to 2,147,483,647'
    )


@pytest.mark.parametrize('value', ['a', [['a']], None, [None], True, [[1.0], [1.0, 2.0]], 10**400])
def test_other_things_than_numbers_are_refused(value):
    with pytest.raises(predict_protocol.BadRequest) as error:
        predict_protocol.array_of('images', value, np.float32)
    assert str(error.value) == 'images must hold numbers, in lists of equal lengths'


@pytest.mark.parametrize('value', [3, [3.5], [None], [['a'], ['a', 'b']], True])
def test_other_things_than_strings_are_refused(value):
    with pytest.raises(
        predict_protocol.BadRequest, match='image_bytes must hold strings, or bytes'
    ):
        predict_protocol.array_of('image_bytes', value, object)


@pytest.mark.parametrize(
    ('value', 'dtype', 'expected'),
    [
        (2**31 - 1, np.int32, np.int32(2**31 - 1)),
        (-(2**31), np.int32, np.int32(-(2**31))),
        ([3], np.int32, np.array([3], np.int32)),
        ([], np.int32, np.zeros([0], np.int32)),
        ([[0, 1], [0.5, 0.1]], np.float32, np.array([[0, 1], [0.5, 0.1]], np.float32)),
        (1e39, np.float32, np.float32(np.inf)),  # For the graph to refuse.
        ([b'a\0', 'b'], object, np.array([b'a\0', 'b'], object)),
        ([], object, np.zeros([0], object)),
    ],
)
def test_right_values_are_arrays_of_the_input_s_type(value, dtype, expected):
    array = predict_protocol.array_of('x', value, dtype)
    assert array.dtype == np.dtype(dtype) and array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ('payload', 'message'),
    [
        ([1, 2], 'the request must be a JSON object'),
        ('text', 'the request must be a JSON object'),
        (7, 'the request must be a JSON object'),
        (None, 'the request must be a JSON object'),
        (b'[1, 2]', 'the request must be a JSON object'),
        (b'{"inputs": ', 'the request is no JSON'),
        (b'\xff', 'the request is no JSON'),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(payload, message):
    with pytest.raises(predict_protocol.BadRequest, match=message):
        predict_protocol.request_of(payload)


@pytest.mark.parametrize('as_bytes', [True, False])
def test_a_body_may_come_as_bytes_or_read(as_bytes):
    request = {'inputs': {'count': 2, 'seed': 1}}
    payload = json.dumps(request).encode() if as_bytes else request
    assert predict_protocol.request_of(payload) == request


@pytest.mark.parametrize('value', [{'b64': 5}, {'b64': None}, {'b64': 'eA'}, {'b64': '!'}])
def test_bytes_that_are_no_base64_are_refused(value):
    with pytest.raises(predict_protocol.BadRequest, match='b64'):
        predict_protocol.inputs_of({'instances': [value]}, ['image_bytes'])
    assert predict_protocol.inputs_of({'inputs': [BYTES]}, ['x'])[0] == {'x': [b'\x89PNG']}


def test_what_a_faster_reader_does_not_take_is_read_by_python_s():
    def refuses(payload):
        raise ValueError('not here')

    request = predict_protocol.request_of(b'{"inputs": [NaN]}', refuses)
    assert np.isnan(request['inputs'][0])
    with pytest.raises(predict_protocol.BadRequest, match='the request is no JSON'):
        predict_protocol.request_of(b'{"inputs": ', refuses)


def test_a_body_that_is_nested_deeply_is_refused():
    with pytest.raises(predict_protocol.BadRequest, match='nested too deeply'):
        predict_protocol.request_of(b'{"inputs": ' + b'[' * 100000)
    value = 0.5
    for _ in range(5000):
        value = [value]
    with pytest.raises(predict_protocol.BadRequest, match='nested too deeply'):
        predict_protocol.arrays_of({'inputs': value}, {'images': np.float32})


@pytest.mark.parametrize('name', ['other', 3, None, ['encode']])
def test_a_signature_that_is_not_there_is_named(name):
    known = {'serving_default': {}, 'encode': {}}
    with pytest.raises(predict_protocol.BadRequest, match='there is no signature'):
        predict_protocol.signature_of({'signature_name': name}, known)
    assert predict_protocol.signature_of({}, known) == 'serving_default'


def test_all_inputs_of_a_signature_are_needed_and_no_others():
    types = {'count': np.int32, 'seed': np.int32}
    for inputs in ({'count': 3}, {'count': 3, 'seed': 1, 'more': 2}):
        with pytest.raises(predict_protocol.BadRequest, match='the inputs are count, seed'):
            predict_protocol.arrays_of({'inputs': inputs}, types)
    arrays, by_row = predict_protocol.arrays_of({'inputs': {'count': 3, 'seed': 1}}, types)
    assert not by_row and arrays == {'count': 3, 'seed': 1}


def test_base64_among_numbers_is_refused_wherever_it_stands():
    for value in ([BYTES, 0.5], [0.5, BYTES], [[0.5], [BYTES]]):
        with pytest.raises(predict_protocol.BadRequest, match='x must hold numbers'):
            predict_protocol.arrays_of({'inputs': value}, {'x': np.float32})
