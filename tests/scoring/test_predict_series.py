"""Scores of series: what predict writes, against a loop over the windows that an export answers."""

import csv
import functools
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from scripts.clients import in_tensorflow_1
from tests.support import own, serving_models
from tests.support.paths import OLD_EXPORT
from trainer.base import figures, files
from trainer.base.errors import UserError
from trainer.serving import client
from trainer.serving.thresholds import SCORE

WINDOW, COUNT, MISSING = serving_models.WINDOW[0], 60, 20


@pytest.fixture(scope='module')
def series(tmp_path_factory):
    """An export of a model of series."""
    return serving_models.write_export(tmp_path_factory.mktemp('series'), **serving_models.SERIES)


@pytest.fixture(scope='module')
def readings():
    """Heat and load of COUNT rows, of which one is unusual."""
    random = np.random.RandomState(3)
    heat, load = 20 + 3 * random.standard_normal(COUNT), -5 + random.standard_normal(COUNT) / 4
    heat[45] += 60
    return np.round(np.stack([heat, load], axis=1), 4).astype(np.float32)


def write(path, readings, missing=None):
    """A file as others write it: other order and columns, and line ends of Windows."""
    lines = ['note,load,heat,label,timestamp']
    for row, (heat, load) in enumerate(readings.tolist()):
        heat = '' if row == missing else repr(heat)
        lines.append(f'"a, b",{load!r},{heat},{row % 2},2026-01-01 00:{row:02}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(('\r\n'.join(lines) + '\r\n').encode('utf-8'))
    return path


def read(path):
    """The comment of a table, its names, and its lines by these."""
    with open(str(path), encoding='utf-8', newline='') as f:
        comment = f.readline()
        table = list(csv.DictReader(f))
    return comment, table


def column(lines, name):
    return np.array([float(line[name] or 'nan') for line in lines])


@functools.lru_cache(maxsize=None)
def calls_of(export_dir):
    return in_tensorflow_1.raw_session(export_dir)


def expected_of(export_dir, readings, missing=None):
    """By loops: starts of windows, answers to these, and of each row score and nats."""
    whole = [start for start in range(len(readings) - WINDOW + 1)
             if missing is None or not start <= missing < start + WINDOW]  # fmt: skip
    calls = calls_of(export_dir)
    windows = np.stack([readings[start : start + WINDOW] for start in whole])
    answers = {**calls['score']({'windows': windows}), **calls['explain']({'windows': windows})}
    nats = np.full([len(readings), 2], np.nan)
    for row in range(len(readings)):
        found = [answers['nats_by_reading'][n, row - start]
                 for n, start in enumerate(whole) if 0 <= row - start < WINDOW]  # fmt: skip
        if found:
            nats[row] = np.mean(found, axis=0)
    return whole, answers, nats


def check_rows(lines, nats, export_dir=None):
    assert [line['row'] for line in lines] == [str(row) for row in range(len(nats))]
    np.testing.assert_allclose(column(lines, 'heat'), nats[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(column(lines, 'load'), nats[:, 1], rtol=1e-4, atol=1e-5)
    scores = column(lines, 'score')
    np.testing.assert_allclose(scores, nats.sum(axis=1), rtol=1e-4, atol=1e-5)
    if export_dir:
        path = os.path.join(export_dir, 'assets.extra', 'validation_row_scores.npy')
        of_validation = np.load(path)
        is_known = ~np.isnan(scores)
        scores = np.nan_to_num(scores)
        quantiles = [np.sum(of_validation < score) / (len(of_validation) + 1) for score in scores]
        np.testing.assert_allclose(
            column(lines, 'quantile')[is_known], np.array(quantiles)[is_known], atol=1e-6
        )
        assert [line['is_unusual'] for line, known in zip(lines, is_known) if known] == [
            str(quantile >= 0.9) for quantile in np.array(quantiles)[is_known]
        ]


def test_windows_and_rows_are_those_of_a_loop_over_the_windows(
    series, readings, tmp_path, ask, capsys
):
    source = write(tmp_path / 'a [b] \u00e9.csv', readings, MISSING)
    ask(source=source, export_dir=series[0], output=tmp_path / 'out', threshold='0.9')
    whole, answers, nats = expected_of(series[0], readings, MISSING)
    comment, windows = read(tmp_path / 'out' / 'windows.csv')
    assert 'nats of standardised readings' in comment and 'among 120 validation windows' in comment
    assert list(windows[0]) == [
        'first_row', 'last_row', 'negative_elbo', 'reconstruction_loss', 'kl_divergence',
        'quantile', 'is_unusual',
    ]  # fmt: skip
    assert [int(line['first_row']) for line in windows] == whole
    assert [int(line['last_row']) for line in windows] == [start + WINDOW - 1 for start in whole]
    for name in (SCORE, 'reconstruction_loss', 'kl_divergence', 'quantile'):
        np.testing.assert_allclose(column(windows, name), answers[name], rtol=1e-4, atol=1e-5)
    unusual = answers['quantile'] >= 0.9
    assert [line['is_unusual'] for line in windows] == [str(one) for one in unusual]

    comment, rows = read(tmp_path / 'out' / 'rows.csv')
    assert '144 validation rows of r;' in comment and comment.endswith('quantile >= 0.9\r\n')
    assert list(rows[0]) == ['row', 'time', 'score', 'quantile', 'is_unusual', 'heat', 'load']
    assert rows[59]['time'] == '2026-01-01 00:59'
    assert list(rows[MISSING].values()) == [str(MISSING), '2026-01-01 00:20', '', '', '', '', '']
    check_rows(rows, nats, series[0])
    out, err = capsys.readouterr()
    count = sum(line['is_unusual'] == 'True' for line in rows)
    assert f'60 rows, 1 without a score, {count} unusual' in out and '10.00% would be' in out
    assert f'{len(whole)} windows, {unusual.sum()} unusual' in out
    assert ': heat' in out.split('beyond its least\n')[1].split('\n')[0]
    assert '1 of 60 rows lack a value' in err
    assert sorted(os.listdir(str(tmp_path / 'out'))) == ['rows.csv', 'series.png', 'windows.csv']
    assert Image.open(str(tmp_path / 'out' / 'series.png')).size[0] == 1100


def test_a_server_answers_the_same(series, readings, tmp_path, ask, server_of):
    path = tmp_path / 'r.csv'
    np.savetxt(str(path), readings, '%r', ',')  # Of as many columns as the model takes.
    url = server_of(series[0])
    ask(source=path, url=url, output=tmp_path, threshold='0.9')
    _, answers, nats = expected_of(series[0], readings)
    _, windows = read(tmp_path / 'windows.csv')
    np.testing.assert_allclose(column(windows, 'quantile'), answers['quantile'], atol=1e-5)
    assert {line['is_unusual'] for line in windows} == {'True', 'False'}
    comment, rows = read(tmp_path / 'rows.csv')
    rows = [dict(row, heat=row['column_1'], load=row['column_2']) for row in rows]
    check_rows(rows, nats)
    assert {(row['quantile'], row['is_unusual']) for row in rows} == {('', '')}
    wide = tmp_path / 'wide.csv'
    wide.write_text('a,b,label\n' + '1,2,0\n' * 20)
    with pytest.raises(UserError, match='a, b, label, and .* takes windows of 2 columns'):
        ask(source=wide, url=url)


def test_one_bad_file_does_not_keep_the_others_back(series, readings, tmp_path, ask, capsys):
    folder, out = tmp_path / 'machines', tmp_path / 'out'
    write(folder / 'a.csv', readings[:30])
    write(folder / 'b' / 'text.csv', readings[30:]).write_text('heat,load\n' + '1,2\n' * 9 + 'x,2')
    write(folder / 'b' / 'z.csv', readings[30:])
    (folder / 'b' / 'short.csv').write_text('heat,load\n1,2\n')
    (folder / 'c.csv').write_text('heat\n1\n')
    (folder / 'notes.txt').write_text('none')
    with pytest.raises(UserError, match='2 of 5 files have no scores'):
        ask(source=folder, export_dir=series[0], output=out, threshold='0.9')
    err = capsys.readouterr().err
    assert f"{folder}/b/text.csv, line 11, column heat: 'x'" in err
    assert f'{folder}/c.csv has no column load' in err and 'notes.txt' in err
    assert 'b/short.csv has fewer rows (1) than a window (9)' in err
    _, rows = read(out / 'rows.csv')
    of_file = {file: [row for row in rows if row['file'] == file] for file in
               [row['file'] for row in rows]}  # fmt: skip
    assert list(of_file) == ['a.csv', 'b/short.csv', 'b/z.csv']
    assert list(of_file['b/short.csv'][0].values())[1:] == ['0', '', '', '', '', '', '']
    check_rows(of_file['a.csv'], expected_of(series[0], readings[:30])[2], series[0])
    check_rows(of_file['b/z.csv'], expected_of(series[0], readings[30:])[2], series[0])
    _, windows = read(out / 'windows.csv')
    assert [row['file'] for row in windows] == ['a.csv'] * 22 + ['b/z.csv'] * 22
    assert sorted(os.listdir(str(out))) == [
        'a-series.png', 'b_z-series.png', 'rows.csv', 'windows.csv',
    ]  # fmt: skip


def test_a_stride_leaves_out_rows_and_interpolation_fills_gaps(
    series, readings, tmp_path, ask, capsys
):
    export_dir = shutil.copytree(series[0], str(tmp_path / 'export'))
    settings_path = os.path.join(export_dir, 'assets.extra', 'settings.json')
    settings = dict(files.read_json(settings_path), stride=4, missing='interpolate')
    files.write_json(settings_path, settings)
    source = write(tmp_path / 'r.csv', readings, MISSING)
    ask(source=source, export_dir=export_dir, output=tmp_path / 'out', threshold='0.9')
    filled = readings.copy()
    filled[MISSING, 0] = (filled[MISSING - 1, 0] + filled[MISSING + 1, 0]) / 2
    whole, answers, _ = expected_of(series[0], filled)
    _, windows = read(tmp_path / 'out' / 'windows.csv')
    assert [int(line['first_row']) for line in windows] == whole[::4]
    np.testing.assert_allclose(column(windows, SCORE), answers[SCORE][::4], rtol=1e-4)
    assert sorted(os.listdir(str(tmp_path / 'out'))) == ['series.png', 'windows.csv']
    assert ' .. 2026-01-01 00:' in capsys.readouterr().out


def test_a_threshold_in_nats_is_of_rows(series, readings, tmp_path, ask):
    source = write(tmp_path / 'r.csv', readings)
    ask(source=source, export_dir=series[0], output=tmp_path / 'out', threshold='20nats')
    _, rows = read(tmp_path / 'out' / 'rows.csv')
    assert [row['is_unusual'] for row in rows] == [
        str(score > 20) for score in column(rows, 'score')
    ]
    assert {row['is_unusual'] for row in read(tmp_path / 'out' / 'windows.csv')[1]} == {''}


def test_a_picture_that_cannot_be_made_keeps_no_table_back(
    series, readings, tmp_path, ask, monkeypatch, capsys
):
    def broken(size, draw):
        raise RuntimeError('no fonts')

    monkeypatch.setattr(figures, 'png', broken)
    source = write(tmp_path / 'r.csv', readings)
    ask(source=source, export_dir=series[0], output=tmp_path / 'out', threshold='0.9')
    assert sorted(os.listdir(str(tmp_path / 'out'))) == ['rows.csv', 'windows.csv']
    assert 'series.png could not be made (RuntimeError: no fonts)' in capsys.readouterr().err


def test_files_that_were_scored_before_the_model_was_gone_are_kept(
    series, readings, tmp_path, ask, monkeypatch
):
    folder, out, predict = tmp_path / 'machines', tmp_path / 'out', client.Export.predict
    for name in ('a.csv', 'b.csv', 'c.csv'):
        write(folder / name, readings)
    asked = []

    def predict_twice(*arguments):
        asked.append(arguments)
        if len(asked) > 2:
            raise UserError('gone')
        return predict(*arguments)

    monkeypatch.setattr(client.Export, 'predict', predict_twice)
    with pytest.raises(UserError, match='gone'):
        ask(source=folder, export_dir=series[0], output=out, threshold='0.9')
    _, rows = read(out / 'rows.csv')
    assert [row['file'] for row in rows] == ['a.csv'] * COUNT + ['b.csv'] * COUNT
    with pytest.raises(UserError, match='gone'):
        ask(source=folder / 'c.csv', export_dir=series[0], output=tmp_path / 'one', threshold='0.9')
    assert not os.listdir(str(tmp_path / 'one'))


@pytest.mark.parametrize('count', [1, WINDOW])
def test_a_file_of_one_row_and_one_of_one_window(series, readings, tmp_path, ask, count):
    source = write(tmp_path / 'r.csv', readings[:count])
    ask(source=source, export_dir=series[0], output=tmp_path / 'out', threshold='0.9')
    _, rows = read(tmp_path / 'out' / 'rows.csv')
    assert [bool(row['score']) for row in rows] == [count == WINDOW] * count
    assert len(read(tmp_path / 'out' / 'windows.csv')[1]) == (count == WINDOW)


def given(**values):
    return values


def test_bad_input_is_one_sentence_and_leaves_nothing(series, readings, tmp_path, ask):
    source = write(tmp_path / 'r.csv', readings)
    array = own.write_array(tmp_path / 'x.npy', own.pictures(3, (8, 12)))
    pictures = own.write_folder(tmp_path / 'pictures', own.pictures(1, (8, 12)))
    far = tmp_path / 'far.csv'
    far.write_text('heat,load\n' + '20,-5\n' * 20 + '1e30,-5\n')
    old = shutil.copytree(OLD_EXPORT, str(tmp_path / 'old'))
    out = tmp_path / 'out'
    cases = [
        (given(source=source, export_dir=old), 'the model in .* takes images'),
        (given(images=pictures, export_dir=series[0]), 'the model takes readings'),
        (given(source=array, export_dir=series[0]), r'ends in \.csv'),
        (given(source=pictures, export_dir=series[0]), r'no file that ends in \.csv'),
        (given(source=source, export_dir=series[0], explain=True), '--explain is of images'),
        (given(source=source, export_dir=series[0], latents='z.csv'), '--latents is of images'),
        (given(source=source, model_dir=series[2].model_dir, samples=2), '--samples are of images'),
        (given(source=pictures, model_dir=series[2].model_dir, samples=2), '--samples are of'),
        (given(source=source, export_dir=series[0], threshold='0.999'), '120 validation scores'),
        (given(source=far, export_dir=series[0], threshold='0.9'), r'far\.csv: .*10\^12 dev'),
    ]  # fmt: skip
    for values, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            ask(output=out, **values)
        assert not out.exists() or not os.listdir(str(out))
