"""Missing values of sensor readings, interpolated."""

import numpy as np

from trainer.data import csv_table
from trainer.data.csv_table import Block

NAN = float('nan')


def test_interpolation_by_hand(table):
    content = 'time,a,b,c\n1,,5,1\n2,2,,1\n3,,,\n9,,2,4\n10,6,,\n11,NA,,\n'
    found = table(content, missing='interpolate')
    by_hand = [[2, 5, 1], [2, 4, 1], [10 / 3, 3, 2.5], [14 / 3, 2, 4], [6, 2, 4], [6, 2, 4]]
    for rows_at_once in (1, 2, 3, 100):
        blocks = list(found.blocks(rows_at_once))
        result = np.concatenate([block.readings for block in blocks])
        np.testing.assert_array_equal(result, np.float32(by_hand))
        assert result.dtype == np.float32
        assert [time for block in blocks for time in block.times] == [
            '1',
            '2',
            '3',
            '9',
            '10',
            '11',
        ]


def test_interpolation_of_many_rows_does_not_depend_on_blocks():
    random = np.random.RandomState(3)
    values = random.randn(200, 3).astype(np.float32)
    values[random.rand(200, 3) < 0.7] = NAN
    values[40:90, 1] = NAN
    expected = values.copy()
    for column in range(3):
        known = [row for row in range(200) if values[row, column] == values[row, column]]
        for row in range(200):
            left = max((i for i in known if i <= row), default=known[0])
            right = min((i for i in known if i >= row), default=known[-1])
            share = (row - left) / (right - left) if right != left else 0.0
            low, high = float(values[left, column]), float(values[right, column])
            expected[row, column] = low + share * (high - low)
    parts = []
    for at_once in (1, 7, 64, 200):
        blocks = [
            Block(values[i : i + at_once], None, np.arange(i, min(i + at_once, 200)) % 2 == 0)
            for i in range(0, 200, at_once)
        ]
        found = list(csv_table.interpolated(iter(blocks)))
        assert np.concatenate([block.labels for block in found]).tolist() == [True, False] * 100
        assert all(len(block.labels) == len(block.readings) for block in found)
        parts.append(np.concatenate([block.readings for block in found]))
        np.testing.assert_allclose(parts[-1], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(parts[-1], parts[0])


def test_interpolation_holds_no_more_than_the_longest_gap():
    read = []

    def blocks():
        for number in range(100):
            read.append(number)
            value = NAN if 50 <= number < 60 else number
            yield Block(np.float32([[value, 1]] * 5), None, None)

    behind = [read[-1] - int(block.readings[0, 0]) for block in csv_table.interpolated(blocks())]
    assert max(behind) <= 11 and behind.count(0) >= 85


def test_a_column_without_a_value_cannot_be_interpolated(refusal):
    message = refusal('a,b\n1,\n2,NA\n', missing='interpolate')
    assert '--source=readings.csv has no value in the column b' in message
