"""Batches of requests that wait together: who is joined, what each is answered, who is refused."""

import asyncio
import threading
from unittest import mock

import numpy as np
import pytest

from scripts.servers.batching import Batcher, Full


class Signature:
    is_of_rows = True

    def __init__(self, model, name):
        self.model, self.name = model, name

    def __call__(self, inputs):
        return self.model.answer(self.name, inputs)


class Model:
    """Answers twice each row; the first run waits until it is let go, so that others gather."""

    def __init__(self):
        self.runs = []
        self.go = threading.Event()
        self.signatures = {name: Signature(self, name) for name in ('a', 'b', 'alone')}
        self.signatures['alone'].is_of_rows = False

    def answer(self, name, inputs):
        self.runs.append((name, inputs['x'].shape))
        assert self.go.wait(20)
        values = inputs['x']
        if not np.all(np.isfinite(values)):
            raise ValueError('x must be finite, not {}'.format(values[~np.isfinite(values)][0]))
        return {'twice': 2 * values, 'sum': values.reshape([len(values), -1]).sum(1)}

    def rows_of_runs(self):
        return [shape[0] for _, shape in self.runs]


@pytest.fixture
def model():
    return Model()


def x(*rows):
    return {'x': np.array(rows, np.float32)}


async def gathered(model, batcher, requests):
    """Starts one request, which is being answered while the others come; returns their outcomes."""
    first = asyncio.ensure_future(batcher.answer(model.signatures['a'], x([0, 0])))
    while not model.runs:
        await asyncio.sleep(0)
    others = [
        asyncio.ensure_future(batcher.answer(model.signatures[name], inputs))
        for name, inputs in requests
    ]
    await asyncio.sleep(0)
    model.go.set()
    return (await asyncio.gather(first, *others, return_exceptions=True))[1:]


def outcomes(model, requests, **settings):
    async def run():
        return await gathered(model, Batcher(**settings), requests)

    return asyncio.run(run())


def test_requests_that_wait_together_are_one_batch_and_each_gets_its_own_answer(model):
    requests = [('a', x(*[[n, 0.5]] * (1 + n % 3))) for n in range(12)]
    found = outcomes(model, requests)
    assert model.rows_of_runs() == [1, 24]
    for (_, inputs), answer in zip(requests, found):
        np.testing.assert_array_equal(answer['twice'], 2 * inputs['x'])
        np.testing.assert_array_equal(answer['sum'], inputs['x'].sum(1))


def test_only_like_requests_are_joined_and_the_one_that_waits_longest_is_next(model):
    requests = [
        ('a', x([1, 1])),
        ('b', x([2, 2])),
        ('a', x([3])),  # Of another shape.
        ('a', x([4, 4])),
        ('b', x([5, 5])),
        ('alone', x([6, 6])),
        ('alone', x([7, 7])),
    ]
    found = outcomes(model, requests)
    assert model.runs[1:] == [
        ('a', (2, 2)), ('b', (2, 2)), ('a', (1, 1)), ('alone', (1, 2)), ('alone', (1, 2))
    ]  # fmt: skip
    for (_, inputs), answer in zip(requests, found):
        np.testing.assert_array_equal(answer['twice'], 2 * inputs['x'])


def test_a_batch_has_as_many_rows_as_allowed_or_is_one_request(model):
    sizes = [2, 1, 2, 9, 3, 1]
    requests = [('a', x(*[[n, n]] * size)) for n, size in enumerate(sizes)]
    found = outcomes(model, requests, most_rows=4)
    assert model.rows_of_runs() == [1, 4, 2, 9, 3]
    assert [len(answer['twice']) for answer in found] == sizes


def test_bad_requests_are_refused_alone_and_by_their_own_fault(model):
    bad = {3: np.nan, 7: np.inf, 8: -np.inf}
    requests = [('a', x([n, bad.get(n, 0)])) for n in range(16)]
    found = outcomes(model, requests)
    for n, (answer, (_, inputs)) in enumerate(zip(found, requests)):
        if n in bad:
            assert str(answer) == 'x must be finite, not {}'.format(bad[n])
        else:
            np.testing.assert_array_equal(answer['twice'], 2 * inputs['x'])


def test_one_bad_request_among_many_takes_few_more_runs(model):
    found = outcomes(model, [('a', x([n, np.nan if n == 20 else 0])) for n in range(32)])
    assert [n for n, answer in enumerate(found) if isinstance(answer, ValueError)] == [20]
    # The first; all; then two halves at each of five levels.
    assert len(model.runs) == 12


def answered_together(answer, inputs):
    signature = Signature(None, 'a')
    signature.model = mock.Mock(answer=lambda name, inputs: answer(inputs))

    async def ask():
        batcher = Batcher()
        return await asyncio.gather(*[batcher.answer(signature, each) for each in inputs])

    return asyncio.run(ask())


def test_scalars_empty_inputs_and_unequal_lengths_are_asked_alone():
    asked = []

    def answer(inputs):
        asked.append(inputs)
        return {'y': np.zeros([5])}

    requests = [
        {'x': np.array(3)},
        {'x': np.zeros([0, 2])},
        {'x': np.zeros([2]), 'y': np.zeros([3])},
        {'x': np.zeros([2]), 'y': np.zeros([])},
    ]
    found = answered_together(answer, requests * 2)
    assert [id(inputs) for inputs in asked] == [id(inputs) for inputs in requests * 2]
    assert [len(answer['y']) for answer in found] == [5] * 8


def test_outputs_that_are_no_rows_are_never_cut_into_answers():
    found = answered_together(lambda inputs: {'pairs': inputs['x'][1:]}, [x([1], [2])] * 3)
    np.testing.assert_array_equal([answer['pairs'] for answer in found], [[[2]]] * 3)


def test_requests_of_an_older_and_of_a_newer_model_are_not_joined(model):
    newer = Signature(model, 'a')
    model.signatures['newer'] = newer
    outcomes(model, [('a', x([1, 1])), ('newer', x([2, 2])), ('a', x([3, 3]))])
    assert model.rows_of_runs() == [1, 2, 1]


def test_requests_beyond_the_room_are_refused_at_once_and_the_others_answered(model):
    requests = [('a', x([n, n], [n, n])) for n in range(6)]
    found = outcomes(model, requests, most_waiting=3)
    assert [isinstance(answer, Full) for answer in found] == [False] * 3 + [True] * 3
    assert str(found[3]) == '3 requests wait already: ask again later'
    assert model.rows_of_runs() == [1, 6]


def test_there_is_room_again_when_those_that_waited_are_answered(model):
    async def run():
        batcher = Batcher(most_waiting=2)
        for _ in range(3):
            answers = await gathered(model, batcher, [('a', x([1, n])) for n in range(4)])
            assert [isinstance(answer, Full) for answer in answers] == [False] * 2 + [True] * 2
            model.go.clear()
            model.runs.clear()
        batcher.check_room()

    asyncio.run(run())


def test_a_request_that_is_given_up_leaves_the_others_and_its_room(model):
    async def run():
        batcher = Batcher(most_waiting=3)
        first = asyncio.ensure_future(batcher.answer(model.signatures['a'], x([0, 0])))
        while not model.runs:
            await asyncio.sleep(0)
        waiting = [
            asyncio.ensure_future(batcher.answer(model.signatures['a'], x([n, n])))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        waiting[1].cancel()
        first.cancel()  # It is being answered.
        await asyncio.sleep(0)
        model.go.set()
        found = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in found] == [
            True, False, True, False
        ]  # fmt: skip
        np.testing.assert_array_equal([found[1]['sum'], found[3]['sum']], [[0], [4]])
        assert model.rows_of_runs() == [1, 2]
        await asyncio.gather(*[batcher.answer(model.signatures['a'], x([n, n])) for n in range(3)])

    asyncio.run(run())


def test_the_event_loop_is_free_while_a_batch_runs(model):
    async def run():
        batcher = Batcher()
        request = asyncio.ensure_future(batcher.answer(model.signatures['a'], x([1, 1])))
        for _ in range(100):  # Would not return if the model, which waits, ran here.
            await asyncio.sleep(0)
        assert not request.done()
        model.go.set()
        return await request

    answer = asyncio.run(run())
    np.testing.assert_array_equal(answer['twice'], [[2, 2]])


def test_batches_run_in_as_many_threads_as_there_are():
    together = threading.Barrier(2, timeout=20)

    def answer(name, inputs):
        together.wait()  # Ends only when two are in it.
        return inputs

    signature = Signature(mock.Mock(answer=answer), 'alone')
    signature.is_of_rows = False

    async def ask():
        batcher = Batcher(threads=2)
        return await asyncio.gather(*[batcher.answer(signature, x([n])) for n in range(4)])

    found = asyncio.run(ask())
    assert [answer['x'][0, 0] for answer in found] == [0, 1, 2, 3]
