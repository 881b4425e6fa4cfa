"""KServe's adapter: JSON of requests into tensors, and what is answered and logged of bad ones."""

import base64
import json
import logging

import numpy as np
import pytest

from scripts.servers import kserve_model

BYTES = {'b64': base64.b64encode(b'\x89PNG').decode('ascii')}


@pytest.mark.parametrize(
    'number',
    [4294967299, 2**31, -(2**31) - 1, 2**63, 2**64, 10**400, -(10**400), 3.0, 2.5]
    + [True, None, '3', float('nan'), [1, 2**32], [[1], [2, 3]], [2**63, -1], {'a': 1}],
)
def test_whole_numbers_are_never_wrapped_into_their_range(number):
    with pytest.raises(kserve_model.BadRequest) as error:
        kserve_model.array_of('count', number, np.int32)
    assert str(error.value) == (
        'count must hold whole numbers from -2,147,483,648 to 2,147,483,647'
    )


@pytest.mark.parametrize('value', ['a', [['a']], None, [None], True, [[1.0], [1.0, 2.0]], 10**400])
def test_other_things_than_numbers_are_refused(value):
    with pytest.raises(kserve_model.BadRequest) as error:
        kserve_model.array_of('images', value, np.float32)
    assert str(error.value) == 'images must hold numbers, in lists of equal lengths'


@pytest.mark.parametrize('value', [3, [3.5], [None], [['a'], ['a', 'b']], True])
def test_other_things_than_strings_are_refused(value):
    with pytest.raises(kserve_model.BadRequest, match='image_bytes must hold strings, or bytes'):
        kserve_model.array_of('image_bytes', value, object)


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
    array = kserve_model.array_of('x', value, dtype)
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
    with pytest.raises(kserve_model.BadRequest, match=message):
        kserve_model.request_of(payload)


@pytest.mark.parametrize('as_bytes', [True, False])
def test_a_body_may_come_as_bytes_or_read(as_bytes):
    request = {'inputs': {'count': 2, 'seed': 1}}
    payload = json.dumps(request).encode() if as_bytes else request
    assert kserve_model.request_of(payload) == request


@pytest.mark.parametrize('value', [{'b64': 5}, {'b64': None}, {'b64': 'eA'}, {'b64': '!'}])
def test_bytes_that_are_no_base64_are_refused(value):
    with pytest.raises(kserve_model.BadRequest, match='b64'):
        kserve_model.inputs_of({'instances': [value]}, ['image_bytes'])
    assert kserve_model.inputs_of({'inputs': [BYTES]}, ['x'])[0] == {'x': [b'\x89PNG']}


@pytest.fixture
def logger():
    logger = logging.getLogger('kserve')
    yield logger
    logger.filters.clear()


def test_a_refusal_is_logged_in_one_line_and_a_defect_with_its_traceback(logger, caplog):
    class Refused(Exception):
        pass

    kserve_model.log_refusals_in_a_line((Refused,))
    for error in (Refused('count must be a scalar'), KeyError('defect')):
        try:
            raise error
        except Exception as caught:
            logger.error('Exception:', exc_info=caught)
    logger.error('Other')
    refused, defect, other = [caplog.handler.format(record) for record in caplog.records]
    assert 'Refused: count must be a scalar' in refused and '\n' not in refused
    assert 'Traceback' in defect and "KeyError: 'defect'" in defect
    assert 'Other' in other
