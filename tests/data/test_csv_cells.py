"""The cells of CSV files: numbers, missing values, times, and the line of what is wrong."""

import numpy as np
import pytest

from tests.support.tables import readings
from trainer.base import console
from trainer.base.errors import UserError
from trainer.data import csv_format

NAN = float('nan')


@pytest.fixture
def said(monkeypatch):
    sentences = []
    monkeypatch.setattr(console, 'say', sentences.append)
    return sentences


@pytest.mark.parametrize(
    'content, line, column, parts',
    [
        ('a,b\n1,2\n3,x\n5,6', 3, 'b', ["'x' is no number", '--columns']),
        ('a,b\r1,2\r3,x\r5,6', 3, 'b', ["'x'"]),
        ('a,b\r\n1,2\r\n\r\n3,x\r\n5,6', 4, 'b', ["'x'"]),
        ('\n1,2\n3,4x\n5,6', 3, 'column_2', ["'4x'"]),
        ('"a\nb",c\n1,2\n1,x\n1,2\n', 4, 'c', ["'x'"]),
        ('n,a\n"x\r\ny\nz",1\n"x\ny",q\nz,1\nz,2', 6, 'a', ["'q'"]),
        ('a,b\n1,' + 'x' * 999 + '\n1,2\n1,2', 2, 'b', ["xxx...'"]),
        (b'a,b\n1,\xff\n1,2\n1,2', 2, 'b', [r'\\xff']),
        ('a,b\n1,\u0661\n1,2\n1,2', 2, 'b', ['is no number']),  # An Arabic 1.
        ('a,b\n1,0x1F\n1,2\n1,2', 2, 'b', ['is no number']),
        ('a,b\n1,1_000\n1,2\n', 2, 'b', ["'1_000'", 'separators']),
        ('a,b\n1,"1,5"\n1,"2,5"\n', 2, 'b', ["'1,5'", 'decimal comma', 'semicolons']),
        ('a,b\n1,"1,234.5"\n1,2\n', 2, 'b', ['thousands']),
        ('a;b\n1;1.234,5\n1;2\n', 2, 'b', ['thousands']),
        ('a;b\n1;1 234\n1;2\n', 2, 'b', ['thousands']),
        ('a;b\n1;1.5\n1;1,234\n', 3, 'b', ["has ','", 'decimal mark']),
        ('a;b\n1,5;2\n1;1.234\n', 3, 'b', ["has '.'", 'decimal mark']),
        ('a,b\n1,inf\n1,2', 2, 'b', ["'inf' is infinite"]),
        ('a,b\n1,-Infinity\n1,2', 2, 'b', ['is infinite']),
        ('a,b\n1,1e39\n1,2', 2, 'b', ["'1e39' is larger than float32"]),
        ('a,b\n1,-1e999\n1,2', 2, 'b', ['is larger than float32']),
        ('a,b\n1,2\n,4\n', 3, 'a', ["'' is a missing value", '--missing=interpolate']),
        ('a,b\n1,2\n-nan,4\n', 3, 'a', ['is a missing value']),
        ('a,b\n1,True\n', 2, 'b', ["'True' is no number"]),
    ],
)
def test_cells_that_are_refused(refusal, content, line, column, parts):
    columns = ('a', 'b') if 'True' in str(content) else ()
    message = refusal(content, columns=columns)
    assert f'--source=readings.csv, line {line}, column {column}: ' in message, message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    'content, line, parts',
    [
        ('a,b\n1,2\n3\n', 3, ['1 cell,', 'the header 2']),
        ('a,b\n1,2\n\n3,4,5\n', 4, ['3 cells', 'quote a cell']),
        ('1,2\n3,4\n5,6,\n', 3, ['3 cells', 'the first row 2']),
        ('a,b\n1,2,3\n', 2, ['3 cells']),
        ('a,b\n1,2,\n' + '1,2,\n' * 150 + '1,2,3\n', 153, ["'3' behind the last separator"]),
        ('a,b\n1,\x002\n', 2, ['NUL']),
        ('a,b\n1,2\n1,2\n1,\x002\n', 4, ['NUL']),
        ('a,b\n1,2\n1,2\n3,"4\n5,6\n', 4, ['close its quotes']),
        ('a,b\n1,2\n1,2\n3,"4"5\n', 4, ['a quoted cell is wrong']),
        ('a,b\n1,2\n1,2\n3,"' + 'x' * 140_000, 4, ['131,072 characters']),
        ('a,b\n1,2\n'.encode('utf-16-le'), 1, ['NUL', 'UTF-8']),
        (b'\x1f\x8b\x08\x00\x00', 1, ['NUL']),
    ],
)
def test_rows_that_are_refused(refusal, content, line, parts):
    message = refusal(content)
    assert f'--source=readings.csv, line {line}: ' in message, message
    assert all(part in message for part in parts), message


def test_a_line_without_an_end(refusal, monkeypatch):
    monkeypatch.setattr(csv_format, '_LONGEST_LINE', 1000)
    assert 'a line of more than 1,000 characters' in refusal('1,' * 600)


@pytest.mark.parametrize('text', ['', ' ', 'NA', 'NaN', 'nan', 'null', 'None', '-', '?', ' n/a '])
def test_missing_values(table, text):
    found = table(f'a,b\n1,2\n3,{text}\n', columns=('a', 'b'))
    np.testing.assert_array_equal(readings(found, allow_missing=True), [[1, 2], [3, NAN]])
    with pytest.raises(UserError, match='line 3, column b: .*missing value'):
        list(found.blocks())


# Times, precision.


@pytest.mark.parametrize(
    'moments, line',
    [
        (['1', '2', '2', '10'], None),
        (['1', '10', '9', '3'], 4),
        (['2020-01-01', '2020-01-03', '2020-01-02', '2020-01-01'], 4),
        (['2020-01-01 10:00:00', '2020-01-01 09:59:59.5'], 3),
        (['2020-01-01T10:00:00Z', '2020-01-01T10:00:00.500Z'], None),  # Z stands behind the point.
        (['2020-01-01 10:00+02:00', '2020-01-01 09:00+00:00'], None),  # That is 8 and 9 o'clock.
        (['31.01.2020', '01.02.2020'], None),
        (['b', 'a'], None),
        (['1', '', '0'], None),
    ],
)
@pytest.mark.parametrize('rows_at_once', [1, 10])
def test_time_that_decreases_is_told_once(table, said, moments, line, rows_at_once):
    found = table('time,a\n' + ''.join(f'{moment},1\n' for moment in moments))
    for _ in range(2):
        assert len(list(found.blocks(rows_at_once))) == -(-len(moments) // rows_at_once)
    assert len(said) == (line is not None)
    if line:
        assert f'--source=readings.csv, line {line}: time decreases, from ' in said[0]
        assert repr(moments[line - 2]) in said[0] and repr(moments[line - 3]) in said[0]


@pytest.mark.parametrize(
    'values, tells',
    [
        ([1700000000.001, 1700000000.002, 1700000000.009], True),
        ([16777216, 16777217, 16777218], True),
        ([1000.0, 1000.0001, 1000.0002], True),
        ([1700000000, 1700003600, 1700007200], False),
        ([1000.0, 1000.1, 1000.2], False),
        ([5.1, 5.1, 5.1], False),
        ([0.3, 0.30000000000000004], False),  # A constant, but for rounding.
        ([0, 1e-40], False),
    ],
)
def test_values_that_float32_cannot_tell_apart_are_told(table, said, values, tells):
    found = table('a,b\n' + ''.join(f'{value!r},{i}\n' for i, value in enumerate(values)))
    list(found.blocks(rows_at_once=2))
    assert len(said) == tells
    assert all('float32 hardly tells the values of a apart' in sentence for sentence in said)
