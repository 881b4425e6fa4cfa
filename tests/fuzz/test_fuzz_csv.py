"""CSV files of any content: readings or a sentence; and what is written is read back."""

import csv
from unittest import mock

import hypothesis
import numpy as np
from hypothesis import strategies

from tests.support.fuzzing import examples
from trainer.base import console
from trainer.base.errors import UserError
from trainer.data.csv_table import CsvTable, Options

LARGEST = float(np.finfo(np.float32).max)

CELLS = strategies.one_of(
    strategies.sampled_from(
        ['', 'a', '1', '1.5', '1,5', '"1,5"', '1_0', 'NA', 'inf', '1e39', '2020-01-01', '"', '\0'],
    ),
    strategies.text(max_size=4),
    strategies.floats().map(str),
)
TABLES = strategies.tuples(
    strategies.lists(strategies.lists(CELLS, max_size=4), max_size=6),
    strategies.sampled_from([',', ';', '\t']),
    strategies.sampled_from(['\n', '\r\n', '\r']),
    strategies.sampled_from(['utf-8', 'utf-16', 'utf-8-sig', 'latin-1']),
).map(
    lambda t: t[2].join(t[1].join(row) for row in t[0]).encode(t[3], 'replace')
)  # fmt: skip


@examples(240)
@hypothesis.given(
    strategies.one_of(strategies.binary(max_size=60), TABLES),
    strategies.sampled_from(['refuse', 'interpolate']),
    strategies.sampled_from(['', 'a', 'column_1']),
    strategies.integers(1, 4),
)
def test_any_content_is_read_or_refused(tmp_path_factory, content, missing, label, rows_at_once):
    path = str(tmp_path_factory.getbasetemp() / 'any.csv')
    with open(path, 'wb') as f:
        f.write(content)
    with mock.patch.object(console, 'say', str):
        try:
            table = CsvTable(path, '--source=any.csv', Options((), label, '', missing))
            blocks = list(table.blocks(rows_at_once))
        except UserError as error:
            assert '\n' not in str(error) and str(error).endswith('.')
            return
    assert blocks and table.column_names
    for block in blocks:
        assert block.readings.shape[1:] == (len(table.column_names),)
        assert block.readings.dtype == np.float32 and np.isfinite(block.readings).all()
        assert (block.labels is not None) == bool(label)
        for rows in (block.times, block.labels):
            assert rows is None or len(rows) == len(block.readings)
        ''.join(block.times or []).encode('utf-8')


@examples(60)
@hypothesis.given(
    strategies.lists(
        strategies.lists(strategies.floats(-LARGEST, LARGEST, width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    ),
    strategies.sampled_from([',', ';', '\t']),
    strategies.sampled_from(['.', ',']),
    strategies.booleans(),
)
def test_a_written_table_is_read_back(tmp_path_factory, rows, separator, mark, quoted):
    hypothesis.assume(separator != mark)
    path = str(tmp_path_factory.getbasetemp() / 'written.csv')
    with open(path, 'w', newline='') as f:
        quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
        writer = csv.writer(f, delimiter=separator, quoting=quoting)
        writer.writerow(['time', 'a; b', 'c, "d"', 'e\tf'])
        for number, row in enumerate(rows):
            texts = [str(np.float32(value)).replace('.', mark) for value in row]
            writer.writerow([f'row {number}', *texts])
    with mock.patch.object(console, 'say', str):
        table = CsvTable(path, '--source=written.csv', Options())
        blocks = list(table.blocks(rows_at_once=2))
    assert table.column_names == ('a; b', 'c, "d"', 'e f')
    result = np.concatenate([block.readings for block in blocks])
    assert result.tobytes() == np.array(rows, np.float32).tobytes()
    assert [time for b in blocks for time in b.times] == [f'row {i}' for i in range(len(rows))]
