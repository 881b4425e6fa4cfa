"""scripts/load: its arithmetic, its requests, and its client before servers that do wrong."""

import asyncio
import collections
import contextlib
import json
import struct
from unittest import mock

import numpy as np
import pytest

from scripts.load import __main__ as program
from scripts.load import bad_clients, client, measuring, protocols
from scripts.load.wrk import Wrk, write_requests
from trainer.base.errors import UserError

IMAGE = np.array([[[0.0, 1.0], [51 / 255, 0.2]]], np.float32)
TEXT_PROTOCOLS = ['rest', 'v2', 'binary']


def head_and_body(request):
    head, _, body = request.partition(b'\r\n\r\n')
    lines = head.decode('ascii').split('\r\n')
    return lines[0], dict(line.split(': ', 1) for line in lines[1:]), body


@pytest.mark.parametrize(
    'protocol, path, expected',
    [
        (
            'rest',
            '/v1/models/vae:predict',
            {'signature_name': 'encode', 'instances': [[[0.0, 1.0], [0.2, 0.2]]]},
        ),
        (
            'v2',
            '/v2/models/encode/infer',
            {
                'inputs': [
                    {
                        'name': 'images',
                        'shape': [1, 2, 2],
                        'datatype': 'FP32',
                        'data': [0.0, 1.0, 0.2, 0.2],
                    }
                ]
            },
        ),
    ],
)
def test_json_has_the_shortest_decimals_of_grey_levels(protocol, path, expected):
    line, headers, body = head_and_body(protocols.PROTOCOLS[protocol].request_of({'images': IMAGE}))
    assert line == 'POST {} HTTP/1.1'.format(path) and json.loads(body) == expected
    assert int(headers['Content-Length']) == len(body)


def test_other_values_than_grey_levels_are_sent_as_they_are():
    row = np.array([[[0.1234567, -3.5]]], np.float32)
    request = protocols.PROTOCOLS['rest'].request_of({'windows': row})
    assert json.loads(head_and_body(request)[2])['instances'] == row.tolist()


def test_binary_tensors_are_little_endian_after_their_header():
    line, headers, body = head_and_body(protocols.PROTOCOLS['binary'].request_of({'images': IMAGE}))
    length = int(headers['Inference-Header-Content-Length'])
    (described,) = json.loads(body[:length])['inputs']
    assert described['parameters'] == {'binary_data_size': 16}
    assert struct.unpack('<4f', body[length:]) == tuple(map(np.float32, (0.0, 1.0, 0.2, 0.2)))
    assert int(headers['Content-Length']) == len(body)


def test_answers_are_read_as_each_protocol_writes_them():
    read = {name: protocols.PROTOCOLS[name].arrays_of for name in TEXT_PROTOCOLS}
    body = b'{"predictions": [{"mean": [1.0], "scale": [2.0, 3.0]}]}'
    assert read['rest'](body, None) == {'mean': [1.0], 'scale': [2.0, 3.0]}
    body = b'{"outputs": [{"name": "mean", "shape": [1, 1], "datatype": "FP32", "data": [1.5]}]}'
    assert read['v2'](body, None) == {'mean': [1.5]}
    outputs = [{'name': 'mean', 'parameters': {'binary_data_size': 4}}]
    outputs.append({'name': 'scale', 'parameters': {'binary_data_size': 8}})
    head = json.dumps({'outputs': outputs}).encode()
    arrays = read['binary'](head + struct.pack('<3f', 1.0, 2.0, 3.0), len(head))
    assert {name: value.tolist() for name, value in arrays.items()} == {
        'mean': [1.0],
        'scale': [2.0, 3.0],
    }


@pytest.mark.parametrize('protocol', TEXT_PROTOCOLS)
@pytest.mark.parametrize('image', [IMAGE, 0.25 + 0.5 * IMAGE], ids=['black', 'without zeros'])
def test_malformed_requests_are_whole_but_for_what_is_wrong_with_them(protocol, image):
    inputs = {'images': image}
    good = protocols.PROTOCOLS[protocol].request_of(inputs)
    requests = bad_clients.malformed(protocol, inputs)
    if 'text' in requests:
        assert b'"a"' in requests['text'] and b'"a"' not in good
    assert good not in requests.values() and len(set(requests.values())) == len(requests) >= 11
    for name, request in requests.items():
        if name not in ('no HTTP', 'no length'):
            line, headers, body = head_and_body(request)
            assert line.endswith(' HTTP/1.1') and int(headers['Content-Length']) == len(body), name
    assert 49000 < len(bad_clients.huge(protocol, inputs, 50000)) < 51000


def expected_of(**kinds):
    pool = {
        f'{kind}/{name}': np.array(rows, np.float32)
        for kind, named in kinds.items()
        for name, rows in named.items()
    }
    return client.Expected(pool)


@pytest.mark.parametrize(
    'outputs, kind',
    [
        ({'mean': [1.0, 2.0], 'scale': [5.0]}, 'right'),
        ({'mean': [[1.00009, 2.0]], 'scale': np.array([5.0])}, 'right'),
        ({'mean': [1.0002, 2.0], 'scale': [5.0]}, 'wrong: of no image'),
        ({'mean': [3.0, 4.0], 'scale': [6.0]}, 'wrong: of another image'),
        ({'mean': [-1.0, -2.0], 'scale': [-5.0]}, 'after'),
        # Half an answer of each model.
        ({'mean': [1.0, 2.0], 'scale': [-5.0]}, 'wrong: of no image'),
        ({'mean': [1.0, float('nan')], 'scale': [5.0]}, 'wrong: of no image'),
        ({'mean': [1.0, 2.0]}, 'wrong: no such outputs'),
        ({'mean': [1.0], 'scale': [5.0]}, 'wrong: no such outputs'),
        ({'mean': [1.0, 'a'], 'scale': [5.0]}, 'wrong: no such outputs'),
    ],
)
def test_an_answer_is_compared_with_the_one_right_one(outputs, kind):
    right = {'mean': [[1.0, 2.0], [3.0, 4.0]], 'scale': [[5.0], [6.0]]}
    after = {'mean': [[-1.0, -2.0], [-3.0, -4.0]], 'scale': [[-5.0], [-6.0]]}
    assert expected_of(right=right, after=after).kind_of(0, outputs) == kind


def test_figures_are_of_the_right_answers_alone():
    # Requests began at 0 and ended after 0.01, 0.02, ... 1.01 s; a lost one last.
    times = [0.01 * (n + 1) for n in range(101)] + [9.0, 9.5, 9.6]
    tally = client.Tally(mock.Mock(side_effect=times))
    for _ in range(101):
        tally.add(0.0, 'right')
    tally.add(8.0, 'lost: x')
    tally.add(8.1, 'status 503')
    tally.add(8.2, 'wrong: of no image')
    results = tally.results(0.0, 0.5)
    assert results['p50_ms'] == pytest.approx(510.0) and results['p99_ms'] == pytest.approx(1000.0)
    assert results['requests_per_second'] == pytest.approx(100.0)  # 50 ended in half a second.
    counts = {name: results[name] for name in ('right', 'after', 'wrong', 'refused', 'failed')}
    assert counts == {'right': 101, 'after': 0, 'wrong': 1, 'refused': 1, 'failed': 1}
    assert results['noted'] == [
        [8.0, 'lost: x'],
        [8.1, 'status 503'],
        [8.2, 'wrong: of no image'],
    ]


class Scripted:
    """A server that answers each request as the next of some functions of a writer says."""

    def __init__(self, *answers):
        self._answers, self.seen = collections.deque(answers), []

    async def __call__(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b'\r\n\r\n')
                length = int(head.lower().split(b'content-length: ')[1].split(b'\r\n')[0])
                self.seen.append(await reader.readexactly(length))
                answer = self._answers.popleft()
                if answer is None:
                    break
                for part in answer:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.close()


def answered(status, body):
    body = json.dumps(body).encode()
    head = 'HTTP/1.1 {} x\r\ncontent-length: {}\r\n\r\n'.format(status, len(body))
    return [head.encode() + body]


def in_parts(parts):
    (whole,) = parts
    return [whole[:20], whole[20:50], whole[50:]]


async def all_of(plan):
    return await client.results_of(plan)


def results_of(tmp_path, scripted, ask=all_of, **settings):
    pool = {'input/images': np.array([[[0.0]], [[1.0]], [[0.2]]], np.float32)}
    pool['right/mean'] = np.array([[1.0], [2.0], [3.0]], np.float32)
    np.savez(str(tmp_path / 'pool.npz'), **pool)

    async def asked():
        server = await asyncio.start_server(scripted, '127.0.0.1', 0)
        port = server.sockets[0].getsockname()[1]
        plan = client.Plan(str(tmp_path / 'pool.npz'), port, 'rest', **settings)
        results = await ask(plan)
        server.close()
        return results

    return asyncio.run(asked())


def test_a_client_counts_what_a_server_does_to_it(tmp_path, monkeypatch):
    async def nine_times(plan):
        one = client.Client(plan)
        for _ in range(9):
            await one._ask(0.0)
        return one._tally.results(0.0, 1.0)

    monkeypatch.setattr(client, '_SECONDS_BEFORE_NEXT_TRY', 0.0)

    def right(number):
        return answered(200, {'predictions': [{'mean': [number]}]})

    scripted = Scripted(
        right(1.0), in_parts(right(2.0)), right(1.0), answered(503, 'full'), right(7.0), None,
        answered(200, {}), answered(500, 'x'), right(3.0),
    )  # fmt: skip
    results = results_of(tmp_path, scripted, nine_times)
    # Images 0, 1; 2 with the answer of 0; 0 refused; 1; 2 closed; 0; 1; 2.
    assert results['right'] == 3 and results['refused'] == 1 and results['wrong'] == 3
    names = ['another image', 'no image']
    assert results['kinds'] == {
        **{'wrong: of ' + name: 1 for name in names}, 'wrong: no such outputs': 1,
        'status 500': 1, 'lost: closed without an answer': 1,
    }  # fmt: skip
    assert results['refused_with'] == '"full"' and results['failed'] == 2
    sent = [json.loads(body)['instances'][0][0][0] for body in scripted.seen]
    assert sent == [0.0, 1.0, 0.2] * 3


def test_requests_at_a_rate_do_not_wait_for_answers(tmp_path):
    slow = [b'HTTP/1.1 200 x\r\n'] * 20 + [b'\r\n']  # Never whole.
    results = results_of(tmp_path, Scripted(*[slow] * 500), rate=200.0, seconds=0.3, timeout=0.1)
    lost = results['kinds'].pop('lost: not answered in 0.1 s')
    # 60 are expected; 4 standard deviations are 31.
    assert 29 <= lost <= 91 and results['kinds'] == {} and results['right'] == 0


def test_a_table_leaves_out_what_is_not_known():
    row = {
        'server': 'a', 'protocol': 'b', 'clients': 8, 'generator': 'wrk', 'p50_ms': 1.26,
        'requests_per_second': 1234.4, 'p99_ms': None, 'wrong': None, 'failed': 0, 'memory_mb': 7.6,
    }  # fmt: skip
    assert measuring.table([row]).splitlines()[2] == (
        '| a | b | 8 | wrk | 1,234 | 1.3 | - | - | 0 | 8 |'
    )


@pytest.mark.parametrize(
    'flag, sentence',
    [
        ({'servers': ['no']}, '--servers=no: it is none of kserve'),
        ({'protocols': ['x']}, '--protocols=x: it is none of rest, v2, binary, grpc.'),
        ({'clients': ['0']}, '--clients=0: give whole numbers from 1 to 512.'),
        ({'clients': ['8', 'a']}, '--clients=a: give whole numbers'),
        ({'export_dir': None}, '--export_dir must be given'),
    ],
)
def test_flags_are_refused_in_a_sentence(flag, sentence):
    good = {'servers': ['kserve'], 'protocols': ['rest'], 'clients': ['1'], 'json': None}
    values = mock.Mock(**{**good, 'export_dir': 'x', **flag})
    with pytest.raises(UserError, match=sentence):
        program._checked(values)


@pytest.mark.parametrize('url', ['', 'localhost:8501', 'https://a:1', 'http://a', 'http://a:b'])
def test_a_url_needs_a_host_and_a_port(url):
    with pytest.raises(UserError, match='give it as http://localhost:8501'):
        program._remote(url)
    assert program._remote('http://a:1/').port('rest') == 1


def test_requests_of_wrk_are_each_their_length_and_their_bytes(tmp_path):
    write_requests(str(tmp_path / 'requests'), [b'ab\n', b'', b'3\nc'])
    assert (tmp_path / 'requests').read_bytes() == b'3\nab\n0\n3\n3\nc'


def test_without_wrk_there_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert Wrk(str(tmp_path / 'wrk')).missing == 'there is no apt-get here'
