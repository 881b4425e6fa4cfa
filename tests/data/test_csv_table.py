"""CSV files of sensor readings: separators, headers, columns, and files that are none."""

import os

import numpy as np
import pytest

from tests.support import users
from tests.support.tables import readings
from trainer.base.errors import UserError
from trainer.data import csv_table
from trainer.data.csv_table import CsvTable, Options

NAN = float('nan')


def times(table):
    return [time for block in table.blocks() for time in block.times]


def labels(table):
    return [label for block in table.blocks() for label in block.labels.tolist()]


# Separators, encodings, line ends.


@pytest.mark.parametrize(
    'content',
    [
        'a,b\n1.5,2\n-3,4e1\n',
        'a,b\r\n1.5,2\r\n-3,4e1',
        'a,b\r1.5,2\r-3,4e1\r',
        'a;b\n1.5;2\n-3;4e1\n',
        'a\tb\n1.5\t2\n-3\t4e1\n',
        'a;b\n1,5;2\n-3;4,0e1\n',
        'a\tb\n1,5\t2\n-3\t4e1\n',
        '\ufeffa,b\n1.5,2\n-3,4e1\n',
        'a,b\n1.5,2\n-3,4e1\n'.encode('utf-16'),
        b'\xfe\xff' + 'a\tb\r\n1,5\t2\r\n-3\t40\r\n'.encode('utf-16-be'),
        '"a","b"\n"1.5","2"\n"-3","40"\n',
        'a, b\n 1.5 , 2\n-3,\t40\n',
        'a, "b"\n1.5, "2"\n-3, "40"\n',
        '\n\na,b\n1.5,2\n\n   \n-3,40\n\n\n',
        'a,b,\n1.5,2,\n-3,40,\n',
        'a,b\n1.5,2,\n-3,40,\n',
        'a,b,\n1.5,2\n-3,40\n',
    ],
)
def test_two_columns(table, content):
    found = table(content)
    assert found.column_names == ('a', 'b') and found.left_out == ()
    assert found.time_name == found.label_name == ''
    assert readings(found) == [[1.5, 2], [-3, 40]]
    (block,) = found.blocks()
    assert block.readings.dtype == np.float32 and block.times is None and block.labels is None


def test_semicolons_without_a_header_beat_the_commas_of_their_numbers(table):
    found = table('1,5;2,5\n3,5;4,5\n')
    assert found.column_names == ('column_1', 'column_2')
    assert readings(found) == [[1.5, 2.5], [3.5, 4.5]]


def test_a_single_column_with_decimal_commas(table):
    assert readings(table('celsius\n20,5\n-1\n')) == [[20.5], [-1]]


def test_rows_come_in_blocks_and_as_often_as_wanted(table):
    found = table('a\n' + '\n'.join(map(str, range(25))))
    for _ in range(2):
        sizes = [len(block.readings) for block in found.blocks(rows_at_once=10)]
        assert sizes == [10, 10, 5]
    assert readings(found, rows_at_once=1) == [[i] for i in range(25)]


def test_ten_thousand_columns(table):
    row = ','.join(map(str, range(10_000)))
    found = table('\n'.join([','.join(f's{i}' for i in range(10_000)), row, row, row]))
    assert len(found.column_names) == 10_000 and found.column_names[-1] == 's9999'
    assert readings(found) == [list(range(10_000))] * 3


def test_few_cells_are_held_at_once(table, monkeypatch):
    monkeypatch.setattr(csv_table, '_CELLS_AT_ONCE', 6)
    found = table('a,b\n' + '1,2\n' * 7)
    assert [len(block.readings) for block in found.blocks()] == [3, 3, 1]


# Headers.


@pytest.mark.parametrize(
    'content, names, left_out, rows',
    [
        ('1,2\n3,4', ['column_1', 'column_2'], [], [[1, 2], [3, 4]]),
        ('NaN,2\n3,4', ['column_1', 'column_2'], [], [[NAN, 2], [3, 4]]),
        ('pump,1,2\npump,3,4', ['column_2', 'column_3'], ['column_1'], [[1, 2], [3, 4]]),
        ('a,b\n1,x\n2,y', ['a'], ['b'], [[1], [2]]),
        ('a,b\n1,True\n2,False', ['a'], ['b'], [[1], [2]]),
        ('a,\n1,2\n3,4', ['a', 'column_2'], [], [[1, 2], [3, 4]]),
        ('"a, in ""C""","b\nc"\n1,2', ['a, in "C"', 'b c'], [], [[1, 2]]),
        ('t \u00b0C,b\n1,2', ['t \u00b0C', 'b'], [], [[1, 2]]),
        ('a,1,2\n5,6,7', ['a', '1', '2'], [], [[5, 6, 7]]),
        ('2020-01-01,a\n1,2', ['2020-01-01', 'a'], [], [[1, 2]]),
        ('a,a,b\nx,y,1', ['b'], ['a', 'a'], [[1]]),  # Two that nobody needs.
    ],
)
def test_header(table, content, names, left_out, rows):
    found = table(content)
    assert list(found.column_names) == names and list(found.left_out) == left_out
    np.testing.assert_array_equal(readings(found, allow_missing=True), rows)


@pytest.mark.parametrize(
    'content, name, names, texts',
    [
        ('a,Time\n1,5\n2,6', 'Time', ['a'], ['5', '6']),
        ('a,ts\n1,5\n2,6', 'ts', ['a'], ['5', '6']),
        (',a\n0,5\n1,6', '', ['a'], ['0', '1']),
        (',0,1\n0,5,7\n1,6,8', '', ['0', '1'], ['0', '1']),
        ('Unnamed: 0,a\n0,5\n1,6', 'Unnamed: 0', ['a'], ['0', '1']),
        ('when,a\n2020-01-01,5\n2020-01-02,6', 'when', ['a'], ['2020-01-01', '2020-01-02']),
        ('date,101\n2020-01-01,5\n2020-01-02,6', 'date', ['101'], ['2020-01-01', '2020-01-02']),
        ('1.2.2020;5\n2.2.2020;6', 'column_1', ['column_2'], ['1.2.2020', '2.2.2020']),
        ('12:30,5\n12:31,6', 'column_1', ['column_2'], ['12:30', '12:31']),
        ('01-Jan-2020 1:05:00 PM,5', 'column_1', ['column_2'], ['01-Jan-2020 1:05:00 PM']),
        ('2020-01-01T10:00:00.5Z,5', 'column_1', ['column_2'], ['2020-01-01T10:00:00.5Z']),
        (
            'time,date,a\n23,2020-01-01,5\n0,2020-01-02,6',
            'date',
            ['a'],
            ['2020-01-01', '2020-01-02'],
        ),
        ('index,datetime,a\n0,x,5\n1,y,6', 'datetime', ['a'], ['x', 'y']),  # 0, 1: no reading.
    ],
)
def test_time_column(table, content, name, names, texts):
    found = table(content)
    assert found.time_name == name and list(found.column_names) == names
    assert times(found) == texts


def test_named_columns(table):
    content = 'time,a,b,c,label\n1,2,3,4,0\n2,5,6,7,1\n'
    found = table(content, columns=('c', 'a'), time_column='b', label_column='label')
    assert found.column_names == ('c', 'a') and found.left_out == ('time',)
    assert (found.time_name, found.label_name) == ('b', 'label')
    assert readings(found) == [[4, 2], [7, 5]] and times(found) == ['3', '6']
    as_reading = table(content, columns=('time', 'a'))
    assert as_reading.time_name == '' and readings(as_reading) == [[1, 2], [2, 5]]


def test_usual_labels(table):
    usual = ['0', '0.0', '-0', '', 'false', 'False', 'normal', 'NORMAL ', 'NaN']
    unusual = ['1', '0.5', '-1', 'true', 'attack', '"0,5"', 'anomaly']
    rows = ''.join(f'1,{label}\n' for label in usual + unusual)
    assert labels(table('a,y\n' + rows, label_column='y')) == [False] * 9 + [True] * 7


@pytest.mark.parametrize(
    'content, options, parts',
    [
        ('', {}, ['is empty']),
        ('\n\n', {}, ['is empty']),
        ('a,b\n', {}, ['a header in line 1 and no rows']),
        ('x,y\nfoo,bar\n', {}, ['no column of numbers']),
        ('a b\n1 2\n', {}, ['no column of numbers', 'separated by']),
        ('a,b,a\n1,2,3\n', {}, ["2 columns 'a' (columns 1, 3)"]),
        ('column_2,\n1,2\n', {}, ["2 columns 'column_2'"]),
        (b't\xb0,b\n1,2\n', {}, ['line 1', r't\\xb0', 'UTF-8']),
        ('a,b\n1,2\n', {'columns': ('a', 'x')}, ["no column 'x' (--columns)", 'are a, b.']),
        ('1,2\n', {'columns': ('a',)}, ['are column_1, column_2.']),
        ('a,b\n1,2\n', {'label_column': 'x'}, ["no column 'x' (--label_column)", 'are a, b.']),
        ('a,b\n1,2\n', {'time_column': 'x'}, ["no column 'x' (--time_column)", 'are a, b.']),
        ('a,b\n1,2\n', {'columns': ('a', 'b', 'a')}, ["--columns names 'a' twice"]),
        ('a,b\n1,2\n', {'columns': ('a',), 'label_column': 'a'}, ['--columns', '--label_column']),
        ('a,b\n1,2\n', {'columns': ('a',), 'time_column': 'a'}, ['--columns', '--time_column']),
        ('a,b\n1,2\n', {'label_column': 'a', 'time_column': 'a'}, ['--label_column', '--time_col']),
        ('a,b\n1,2\n', {'columns': ('',)}, ["no column ''"]),
    ],
)
def test_heads_that_are_refused(refusal, content, options, parts):
    message = refusal(content, **options)
    assert all(part in message for part in parts), message


# Files.


def test_places_without_a_file(tmp_path):
    for path, reason in [
        (str(tmp_path), 'is a folder'),
        (str(tmp_path / 'none.csv'), 'No such file'),
        (os.devnull, 'no regular file'),
        (str(tmp_path / 'a\0b.csv'), 'null byte'),
    ]:
        with pytest.raises(UserError, match=reason):
            CsvTable(path, '--source=' + path, Options())


def test_a_file_that_may_not_be_read():
    with users.folder_of_another(0o755) as folder:
        path = os.path.join(folder, 'file')
        os.chmod(path, 0o000)
        with users.another_user(), pytest.raises(UserError, match='cannot be read .Permission'):
            CsvTable(path, '--source=' + path, Options())


@pytest.mark.parametrize('change', ['appended', 'cut off', 'removed', 'replaced'])
def test_a_file_that_changes_while_it_is_read(table, tmp_path, change):
    found = table('a,b\n' + '1,2\n' * 20_000)
    path = tmp_path / 'readings.csv'
    blocks = found.blocks(rows_at_once=100)
    next(blocks)
    if change == 'appended':
        with open(str(path), 'ab') as f:
            f.write(b'3,4\n')
    elif change == 'cut off':
        os.truncate(str(path), 40_001)
    elif change == 'removed':
        path.unlink()
    else:
        path.write_bytes(b'x' * 500)
    with pytest.raises(UserError, match='cannot be read' if change == 'removed' else 'changed'):
        list(blocks)


def test_a_file_that_changed_since_its_head_was_read(table, tmp_path):
    found = table('a,b\n1,2\n')
    (tmp_path / 'readings.csv').write_bytes(b'a,b\n1,2,3\n')
    with pytest.raises(UserError, match='changed while it was read'):
        list(found.blocks())
