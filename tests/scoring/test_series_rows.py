"""Rows and windows of series, against loops over all windows; stretches and lines by hand."""

import itertools

import numpy as np
import pytest

from trainer.data.csv_table import Block
from trainer.scoring import series_files, series_plot, series_rows
from trainer.scoring.series_report import Stretches
from trainer.scoring.series_rows import Judge, Model, OfRows, OfWindows, Readings
from trainer.serving.thresholds import Threshold

NONE = Judge(None, '')


def model_of(window, stride=1, rows=NONE, windows=NONE, at_once=3):
    """A model to which a reading costs its square, of which all but 1 is too much."""

    def ask(windows):
        assert np.isfinite(windows).all() and len(windows) <= at_once
        nats = windows**2
        return {
            'nats_by_reading': nats,
            'excess_by_reading': nats - 1,
            'negative_elbo': nats.sum(axis=(1, 2)),
        }

    return Model(ask, window, stride, ('a', 'b'), at_once, windows, rows)


def blocks_of(readings, lengths):
    """Blocks of these lengths over and over, with the number of each row as its time."""
    at, lengths = 0, itertools.cycle(lengths)
    while at < len(readings):
        rows = readings[at : at + next(lengths)]
        yield Block(rows, [f't{at + n}' for n in range(len(rows))], None)
        at += len(rows)


@pytest.mark.parametrize('seed', range(12))
def test_windows_and_rows_are_those_of_a_loop_however_rows_come(seed):
    random = np.random.RandomState(seed)
    count, window, stride = random.randint(1, 60), random.randint(1, 9), random.choice([1, 1, 3])
    readings = random.standard_normal([count, 2]).astype(np.float32)
    readings[random.uniform(size=readings.shape) < random.choice([0, 0.03, 0.9])] = np.nan
    blocks = blocks_of(readings, random.randint(1, 20, size=3))
    parts = list(series_rows.scored(blocks, model_of(window, stride)))

    whole = [start for start in range(0, count - window + 1, stride)
             if np.isfinite(readings[start : start + window]).all()]  # fmt: skip
    windows = [part for part in parts if isinstance(part, OfWindows)]
    assert [start for part in windows for start in part.starts] == whole
    assert [time for part in windows for time in part.times] == [
        (f't{start}', f't{start + window - 1}') for start in whole
    ]
    read = np.concatenate([part.readings for part in parts if isinstance(part, Readings)])
    np.testing.assert_array_equal(read, readings)
    rows = [part for part in parts if isinstance(part, OfRows)]
    if stride > 1:
        assert not rows
        return
    assert [part.first + n for part in rows for n in range(len(part.scores))] == list(range(count))
    assert [time for part in rows for time in part.times] == [f't{row}' for row in range(count)]
    found = np.concatenate([part.nats for part in rows])
    scores = np.concatenate([part.scores for part in rows])
    for row in range(count):
        covering = [start for start in whole if start <= row < start + window]
        if covering:
            np.testing.assert_allclose(found[row], readings[row] ** 2, rtol=1e-6)
            np.testing.assert_allclose(scores[row], np.sum(readings[row] ** 2), rtol=1e-6)
        else:
            assert np.isnan(found[row]).all() and np.isnan(scores[row])


def test_a_gap_of_any_length_is_told_as_it_comes():
    """Else a file without any value would be held in memory."""
    readings = np.full([50, 2], np.nan, np.float32)
    longest = 0
    for part in series_rows.scored(blocks_of(readings, [5]), model_of(4)):
        longest = max(longest, len(part.scores) if isinstance(part, OfRows) else 0)
    assert 0 < longest <= 8


def stretches_of(model, readings, block):
    stretches, found = Stretches(model, 'f'), []
    for part in series_rows.scored(blocks_of(readings, [block]), model):
        if not isinstance(part, Readings):
            found += stretches.add(part)
    return [*found, *stretches.rest()], stretches.highest


@pytest.mark.parametrize('block', [2, 100])
def test_unusual_rows_at_most_a_window_apart_are_one_stretch(block):
    readings = np.zeros([40, 2], np.float32)
    readings[[5, 6, 10], 0], readings[[15, 39], 1] = 3, [4, 5]
    judge = Judge(Threshold(8.0, False), '')
    found, highest = stretches_of(model_of(4, rows=judge), readings, block)
    assert [(one.first, one.last, one.score, one.times) for one in found] == [
        (5, 10, 9.0, ('t5', 't10')), (15, 15, 16.0, ('t15', 't15')),
        (39, 39, 25.0, ('t39', 't39')),
    ]  # fmt: skip
    np.testing.assert_allclose([one.excess for one in found], [[24, -3], [-1, 15], [-1, 24]])
    assert (highest.first, highest.score) == (39, 25.0)


@pytest.mark.parametrize('block', [2, 100])
def test_where_no_row_is_judged_stretches_are_of_windows(block):
    readings = np.zeros([40, 2], np.float32)
    readings[[10, 20], 0] = 3
    judge = Judge(Threshold(8.0, False), '')
    found, _ = stretches_of(model_of(4, windows=judge), readings, block)
    assert [(one.first, one.last, one.score) for one in found] == [(7, 23, 9.0)]
    assert found[0].times == ('t7', 't23')


def test_no_name_of_a_reading_is_that_of_another_column():
    columns = ('row', 'score', 'score (nats)', 'file', 'Time', 'a')
    names = series_files.names_beside(columns)
    assert names[2] == 'score (nats)' and names[4:] == ['Time', 'a']
    heads = ['file', 'row', 'time', 'score', 'quantile', 'is_unusual', *names]
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize('count', [1, 7, 16, 17, 100, 1000])
def test_a_line_runs_through_least_and_highest_of_each_bin(count):
    values = np.random.RandomState(count).standard_normal([count, 2]).astype(np.float32)
    values[count // 2 : count // 2 + 40, 1] = np.nan
    envelope = series_plot.Envelope(2, 16)
    for at in range(0, count, 7):
        envelope.add(at, values[at : at + 7])
    assert count / 16 <= envelope.size < max(2, count / 8 + 1)
    for column in range(2):
        rows, line = envelope.line(column)
        bins = [values[at : at + envelope.size, column] for at in range(0, count, envelope.size)]
        with np.errstate(all='ignore'):
            expected = [[np.fmin.reduce(part), np.fmax.reduce(part)] for part in bins]
        np.testing.assert_array_equal(line, np.ravel(expected))
        assert len(rows) == len(line) and np.all(np.diff(rows) >= 0)
