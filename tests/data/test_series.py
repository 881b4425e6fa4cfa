"""CSV files as a source: which rows become windows of which split, and how they are scaled."""

import functools
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from tests.support import own, tables
from trainer.base import row_means, scaling
from trainer.base.errors import UserError
from trainer.data import inputs, new_series
from trainer.data.dataset import SPLITS, Windows
from trainer.settings import rules
from trainer.settings.table import HParams


def readings_of(count, columns=2, first=0):
    """float32 `[count, columns]`: a row tells its number; the second column goes down."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.stack([numbers if c % 2 == 0 else 1000 - 2 * numbers for c in range(columns)], axis=1)


def write_csv(path, readings, names=('up', 'down')):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    np.savetxt(str(path), readings, '%g', ',', header=','.join(names), comments='')
    return str(path)


def rows_in(prepared, split):
    """The first readings of the windows of a split, in their units, `[windows, window]`."""
    count = prepared.num_examples[split]
    images = inputs.first_images(prepared, split, count, 'none')
    return np.rint(scaling.in_units(images, prepared.scaling)[:, :, 0]).astype(int)


def test_a_file_is_split_in_time_and_no_window_crosses_a_border(tmp_path):
    path = write_csv(tmp_path / 'r.csv', readings_of(240))
    prepared = own.prepared(path, tmp_path / 'data', window=5)
    assert prepared.image_shape == (5, 1, 2) and prepared.dtype == 'float32'
    assert prepared.num_examples == {'train': 196, 'validation': 16, 'test': 16}
    for split, first, after in (('train', 0, 200), ('validation', 200, 220), ('test', 220, 240)):
        expected = [list(range(at, at + 5)) for at in range(first, after - 4)]
        assert rows_in(prepared, split).tolist() == expected


def test_a_stride_leaves_windows_out(tmp_path):
    path = write_csv(tmp_path / 'r.csv', readings_of(1200))
    prepared = own.prepared(path, tmp_path / 'data', window=5, stride=7)
    assert rows_in(prepared, 'validation')[:, 0].tolist() == list(range(1000, 1096, 7))


def test_files_too_short_to_be_cut_go_whole_to_a_split(tmp_path):
    """By hash of the name: adding files moves none."""
    folder = tmp_path / 'machines'
    for number in range(40):
        write_csv(folder / f'{number}.csv', readings_of(60, first=100 * number))
    prepared = own.prepared(str(folder), tmp_path / 'data', window=4)
    windows = {split: rows_in(prepared, split) for split in SPLITS}
    files = {split: set((rows[:, 0] // 100).tolist()) for split, rows in windows.items()}
    assert set.union(*files.values()) == set(range(40))
    assert sum(map(len, files.values())) == 40
    assert all((rows[:, 0] // 100 == rows[:, -1] // 100).all() for rows in windows.values())
    for number in range(40, 60):
        write_csv(folder / f'{number}.csv', readings_of(60, first=100 * number))
    more = own.prepared(str(folder), tmp_path / 'data', window=4)
    for split in SPLITS:
        assert files[split] <= set((rows_in(more, split)[:, 0] // 100).tolist())


def test_folders_are_splits_and_a_missing_one_is_the_end_of_each_file(tmp_path):
    folder = tmp_path / 'series'
    write_csv(folder / 'train' / 'a.csv', readings_of(240))
    write_csv(folder / 'test' / 'b.csv', readings_of(60, first=300))
    (folder / 'notes.txt').write_text('x')
    prepared = own.prepared(str(folder), tmp_path / 'data', window=5)
    assert rows_in(prepared, 'train')[-1, -1] == 219
    assert rows_in(prepared, 'validation')[[0, -1], [0, -1]].tolist() == [220, 239]
    assert rows_in(prepared, 'test')[[0, -1], [0, -1]].tolist() == [300, 359]


def test_the_scaling_is_that_of_the_training_rows(tmp_path, capsys):
    readings = np.random.RandomState(0).randn(600, 3) * [2, 5, 0] + [10, -3, 7]
    path = write_csv(tmp_path / 'r.csv', readings, ('a', 'b', 'still'))
    prepared = own.prepared(path, tmp_path / 'data', window=6)
    names, mean, deviation = zip(*prepared.scaling)
    assert names == ('a', 'b', 'still')
    np.testing.assert_allclose(mean, readings[:500].mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(deviation, [*readings[:500].std(axis=0)[:2], 1.0], rtol=1e-4)
    assert 'the same in all training rows: still' in capsys.readouterr().err
    seen = inputs.first_images(prepared, 'test', 5, 'none')
    expected = (readings[550:560] - mean) / deviation
    np.testing.assert_allclose(seen[2], expected[2:8], atol=1e-4)


def test_large_values_lose_no_digits_that_float32_has(tmp_path):
    readings = np.random.RandomState(0).randn(600, 1) + 1e5
    path = write_csv(tmp_path / 'r.csv', np.round(readings, 2), ('pressure',))
    ((_, mean, deviation),) = own.prepared(path, tmp_path / 'data', window=6).scaling
    stored = np.float32([f'{value:g}' for value in np.round(readings[:500, 0], 2)]).astype(float)
    assert mean == pytest.approx(stored.mean(), abs=1e-6)
    assert deviation == pytest.approx(stored.std(), abs=1e-6)


def test_training_sees_every_window_once_an_epoch_in_an_order_of_the_seed(tmp_path):
    path = write_csv(tmp_path / 'r.csv', readings_of(240))
    prepared = own.prepared(path, tmp_path / 'data', window=5)

    def first_rows(start_step, count):
        with tf.Graph().as_default(), tf.Session() as session:
            batches = inputs.train_input_fn(prepared, 14, 3, start_step, 'none')
            images = batches.make_one_shot_iterator().get_next()['images']
            assert images.shape.as_list() == [14, 5, 2]
            found = [session.run(images) for _ in range(count)]
        rows = scaling.in_units(np.concatenate(found), prepared.scaling)[:, :, 0]
        assert (np.diff(np.rint(rows), axis=1) == 1).all()
        return np.rint(rows[:, 0]).astype(int).tolist()

    epoch = first_rows(0, 14)
    assert sorted(epoch) == list(range(196)) and epoch != sorted(epoch)
    assert first_rows(9, 5) == epoch[9 * 14 :]


def test_blocks_that_lie_evenly_are_the_windows_of_those_numbers(tmp_path):
    path = write_csv(tmp_path / 'r.csv', readings_of(12 * 5003, 1), ('up',))
    prepared = own.prepared(path, tmp_path / 'data', window=4)
    assert prepared.num_examples['validation'] == 5000
    found = np.concatenate(list(inputs.batches_of(prepared, 'validation', 2000, 700, 'none')))
    firsts = np.rint(scaling.in_units(found, prepared.scaling)[:, 0, 0]).astype(int) - 10 * 5003
    assert firsts.tolist() == inputs.numbers_read(5000, 2000).tolist()
    assert firsts.tolist() == [*range(1000), *range(2000, 3000)]


def test_a_copy_is_found_again_and_told_from_that_of_another_window(tmp_path):
    path = write_csv(tmp_path / 'r.csv', readings_of(240))
    prepared = own.prepared(path, tmp_path / 'data', window=5)
    assert own.prepared(path, tmp_path / 'data', window=5).digest == prepared.digest
    assert own.prepared(path, tmp_path / 'data', window=6).digest != prepared.digest
    assert own.prepared(prepared.folder, tmp_path / 'data').num_examples == prepared.num_examples
    with pytest.raises(UserError, match='stay as they are: leave --window=6 away'):
        own.prepared(prepared.folder, tmp_path / 'data', window=6)


@pytest.mark.parametrize(
    'content, flags, sentence',
    [
        ('a,b\n' + '1,2\n' * 60, {}, 'holds 0 windows of 28 rows|which are too few'),
        ('a,b\n' + '1,2\n' * 300, {'image_size': '3x3'}, 'image_size: of image files and arrays'),
        ('a,b\n' + '1,2\n' * 300, {'columns': 'c'}, 'no column'),
        ('a,b\n' + '1,2\n' * 300 + '1,x\n', {'window': 5}, 'line 302, column b'),
        ('a,b\n' + '1,2\n' * 300 + '1,\n', {'window': 5}, 'missing'),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(content, flags, sentence, tmp_path):
    (tmp_path / 'r.csv').write_text(content)
    with pytest.raises(UserError, match=sentence) as error:
        own.prepared(str(tmp_path / 'r.csv'), tmp_path / 'data', **flags)
    assert '\n' not in str(error.value)
    left = os.listdir(str(tmp_path / 'data' / 'sources')) if (tmp_path / 'data').exists() else []
    assert set(left) <= {'.prepare.lock'}


def test_files_of_other_columns_and_too_many_columns_are_refused(tmp_path):
    write_csv(tmp_path / 'm' / 'a.csv', readings_of(50), ('x', 'y'))
    write_csv(tmp_path / 'm' / 'b.csv', readings_of(50), ('x', 'z'))
    with pytest.raises(UserError, match=r'b.csv has other columns than a.csv.*\(y and z|y, z'):
        own.prepared(str(tmp_path / 'm'), tmp_path / 'data', window=5)
    wide = tables.opened(tmp_path, ','.join(['1'] * 10000) + '\n').column_names
    assert len(wide) == 10000
    with pytest.raises(UserError, match='has 10,000 columns, and a model takes at most 8,192'):
        own.prepared(str(tmp_path / 'readings.csv'), tmp_path / 'data', window=5)


def test_images_beside_a_table_stay_images(tmp_path):
    folder = own.write_folder(tmp_path / 'p', own.pictures(120), '{}.png')
    (tmp_path / 'p' / 'labels.csv').write_text('a\n1\n')
    assert own.prepared(folder, tmp_path / 'data').windows is None
    with pytest.raises(UserError, match='--window: of CSV files, and .* holds image files'):
        own.prepared(folder, tmp_path / 'data', window=5)


@pytest.mark.parametrize(
    'changes',
    [
        {'windows': {'stride': 0, 'stretches': {'train': [200], 'validation': [20], 'test': [20]}}},
        {'windows': {'stride': 1, 'stretches': {'train': [199], 'validation': [20], 'test': [20]}}},
        {'windows': {'stride': 1, 'stretches': {'train': [200]}}},
        {'windows': 3},
        {'scaling': [['up', 1.0, 2.0]]},
        {'scaling': [['up', 1.0, 2.0], ['down', None, 1.0]]},
    ],
)
def test_a_copy_whose_record_is_damaged_is_made_anew(changes, tmp_path, capsys):
    path = write_csv(tmp_path / 'r.csv', readings_of(240))
    prepared = own.prepared(path, tmp_path / 'data', window=5)
    sidecar = os.path.join(prepared.folder, 'decoded.json')
    with open(sidecar) as f:
        record = json.load(f)
    with open(sidecar, 'w') as f:
        json.dump({**record, **changes}, f)
    again = own.prepared(path, tmp_path / 'data', window=5)
    assert again == prepared and 'anew' in capsys.readouterr().err


SERIES = {'dataset': '', 'source': 'r.csv', 'scaling': (('a', 0.0, 1.0),), 'image_shape': (5, 1, 1)}


@pytest.mark.parametrize(
    'changes, sentence',
    [
        ({'binarization': 'static'}, '--binarization=static: --source=r.csv holds readings'),
        ({'likelihood': 'bernoulli'}, '--likelihood=bernoulli: .* give normal_by_column'),
        ({'likelihood': 'continuous_bernoulli'}, '--likelihood=continuous_bernoulli: '),
        ({'likelihood': 'normal'}, '--likelihood=normal: '),
    ],
)
def test_what_is_of_images_is_refused_by_name(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        rules.check_consistent(HParams(**{'likelihood': 'normal_by_column', **SERIES, **changes}))
    rules.check_consistent(HParams(likelihood='normal_by_column', **SERIES))
    with pytest.raises(UserError, match='is of readings in CSV files'):
        rules.check_consistent(HParams(likelihood='normal_by_column'))


def test_the_data_decides_a_likelihood_that_was_left_open():
    scaled = (('a', 1.0, 2.0),)
    series = rules.with_data(HParams(likelihood=rules.UNDECIDED), (5, 1, 1), scaled, 'x')
    assert series.likelihood == 'normal_by_column' and series.is_series
    images = rules.with_data(HParams(likelihood=rules.UNDECIDED), None, (), '')
    assert images.likelihood == 'bernoulli' and not images.is_series
    given = rules.with_data(HParams(likelihood='normal'), (5, 1, 1), scaled, 'x')
    assert given.likelihood == 'normal'


def test_rows_are_means_over_the_windows_that_cover_them():
    values = np.random.RandomState(0).rand(7, 3, 2)
    starts = np.array([0, 1, 2, 3, 10, 11, 20])
    expected = []
    for first, after in ((0, 6), (10, 14), (20, 23)):
        for row in range(first, after):
            covering = [values[n, row - s] for n, s in enumerate(starts) if 0 <= row - s < 3]
            expected.append(np.mean(covering, axis=0))
    np.testing.assert_allclose(row_means.of_windows(values, starts), expected)
    means = row_means.RowMeans()
    parts = [means.add(values[:1]), means.add(values[1:4]), means.rest()]
    np.testing.assert_allclose(np.concatenate(parts), expected[:6])


def test_the_time_that_a_run_names_is_that_of_new_files_where_they_have_it(tmp_path):
    path = tmp_path / 'new.csv'
    path.write_text('time,when,a\n5,noon,1\n6,late,2\n')
    opened = functools.partial(new_series.table_of, str(path), '--source=new.csv', ['a'], 'refuse')
    assert opened(time_column='when').time_name == 'when'
    assert opened(time_column='elsewhere').time_name == opened().time_name == 'time'


def test_stretches_shorter_than_a_window_have_none():
    windows = Windows(1, {'train': [2, 5, 3], 'validation': [], 'test': [3]})
    assert windows.starts('train', 3).tolist() == [2, 3, 4, 7]
    assert windows.starts('validation', 3).tolist() == []
