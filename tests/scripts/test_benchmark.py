"""The benchmark's arithmetic and choices, and its contestants taking turns."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from scripts import ROOT
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import comparison as contest
from scripts.benchmark import scaling as scale
from scripts.benchmark import whole_runs as runs
from tests.support import datasets
from trainer.base.errors import UserError
from trainer.settings.table import HParams
from trainer.training import towers


def answers(name, *turns):
    """A contestant that has answered with these milliseconds, turn by turn."""
    contestant = contest.Answers(name)
    contestant.turns = [
        {'milliseconds': turn, 'cpu_seconds': 0.03, 'peak_megabytes': 7.0} for turn in turns
    ]
    return contestant


def test_flops_are_those_counted_by_hand():
    params = HParams(
        image_shape=(4, 8, 1), lstm_units=3, latent_size=2, decoder_units=5, decoder_channels=6,
        batch_size=10,
    )  # fmt: skip
    # Multiplications of an example: LSTM input 4 x 8 x 12 forward and for the weights, state
    # 3 x 3 x 12; posterior 2 x 12 x 2; Dense 2 x 5, 5 x 5, 5 x 12; transpose convolutions
    # 2 pixels x 9 x 6 x 6 and 8 pixels x 16 x 6 x 1; all but the first three times.
    expected = 2 * (4 * 8 * 12) + 3 * (3 * 3 * 12 + 2 * 12 * 2 + 10 + 25 + 60)
    expected += 3 * (2 * 9 * 36 + 8 * 16 * 6)
    assert benchmark.training_flops(params) == 10 * 2 * expected


def test_ratios_are_medians_of_pairs_and_the_better_torch_counts():
    row = contest.row_of(
        {
            'ours': [answers('training', [10.0], [20.0], [40.0])],
            'torch': [
                answers('torch_eager:training', [90.0], [90.0], [90.0]),
                answers('torch_compiled:training', [15.0], [24.0], [80.0]),
            ],
            'plain': [answers('plain', [20.0], [20.0], [20.0])],
            'gemm': [answers('gemm', [100.0], [100.0], [100.0])],
        },
        statistics.median,
    )
    assert row['torch_contestant'] == 'torch_compiled:training'
    assert row['ratio_vs_torch'] == pytest.approx(1.5)  # of 1.5, 1.2 and 2
    assert row['ratio_vs_plain'] == pytest.approx(1.0)  # of 2, 1 and 0.5
    assert 'ratio_vs_gemm' not in row
    assert row['ours_median_ms'] == 20.0
    assert row['ours_cpu_ms'] == pytest.approx(30.0)
    assert row['ours_p10_ms'] == pytest.approx(12.0)
    assert row['ours_p99_ms'] is None  # of three values it would be the largest

    params = HParams(batch_size=128)
    share = benchmark.share_of_peak(row, params)
    peak = 2 * 2048**3 / 0.1
    assert share['gemm_gflops'] == pytest.approx(peak / 1e9)
    assert share['gemm_share'] == pytest.approx(benchmark.training_flops(params) / 0.02 / peak)


def test_a_turn_stands_for_its_mean_where_rare_costs_count():
    bare, estimator = [1.0] * 100, [1.0] * 99 + [101.0]
    columns = {'session': [answers('training', bare)], 'estimator': [answers('e', estimator)]}
    by_median = contest.row_of(columns, statistics.median)
    by_mean = contest.row_of(columns, benchmark.COMPARISONS['estimator'].statistic)
    assert by_median['ratio_vs_estimator'] == 1.0
    assert by_mean['ratio_vs_estimator'] == pytest.approx(2.0)
    # Between the 99th and the 100th of 100 values, 1 % of the way.
    assert by_mean['estimator_p99_ms'] == pytest.approx(2.0)
    assert by_mean['p99_ratio_vs_estimator'] == pytest.approx(2.0)


def test_a_turn_of_the_estimator_holds_the_summaries_of_the_default_cadence():
    assert benchmark.COMPARISONS['estimator'].steps % HParams.save_summary_steps == 0


def test_the_table_shows_every_column(capsys):
    columns = {'ours': [answers('training', [10.0])], 'torch': [answers('torch_eager:x', [15.0])]}
    contest.show(contest.row_of(columns, statistics.median), list(columns))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ['ours', '(training)', '10', '10', '10', '-', '30', '7']
    assert lines[2].split() == [
        'torch',
        '(torch_eager:x)',
        '15',
        '15',
        '15',
        '-',
        '30',
        '7',
        '1.50',
    ]


def test_scale_is_relative_to_the_default():
    contestants = {64: answers('training', [4.0], [6.0]), 128: answers('training', [8.0], [8.0])}
    rows = scale.rows_of('batch_size', contestants, default=128)
    assert [(row['value'], row['median_ms']) for row in rows] == [(64, 5.0), (128, 8.0)]
    assert [row['ratio_to_default'] for row in rows] == [pytest.approx(0.625), 1.0]


def test_scale_changes_one_setting_at_a_time(tmp_path):
    params = HParams(model_dir=str(tmp_path))
    data = datasets.write_prepared(tmp_path)
    cases = scale.cases(params, data, str(tmp_path))
    for name, by_value in cases.items():
        default, images, _ = by_value[scale.reference(name, params)]
        assert dataclasses.replace(default, num_threads=0) == params
        for side, (settings, images, _) in by_value.items():
            size = os.path.getsize(images.files['train'])
            assert size == images.num_examples['train'] * images.image_bytes
            if name == 'image_side':
                assert settings.image_shape == images.image_shape == (side, side, 1)
    assert cases['batch_size'][512][0] == dataclasses.replace(params, batch_size=512)
    assert cases['cores'][1][2] == towers.count(cases['cores'][1][0]) == 1


def test_the_plot_has_a_panel_for_each_setting(tmp_path):
    rows = [
        {'setting': name, 'value': value, 'ratio_to_default': value / 2}
        for name in ('batch_size', 'cores')
        for value in (1, 2, 4)
    ]
    scale.plot(rows, str(tmp_path / 'scale.png'))
    content = (tmp_path / 'scale.png').read_bytes()
    assert content.startswith(b'\x89PNG')
    # Width and height stand after the signature and the header's length and name.
    assert np.frombuffer(content[16:24], '>u4').tolist() == [1200, 300]


def chosen(*arguments):
    values = flags.FlagValues()
    benchmark.define_flags(values)
    values(('benchmark',) + arguments)
    return benchmark.chosen_sections(values)


def test_sections_are_all_or_the_quick_or_the_named_ones():
    assert chosen() == list(benchmark.SECTIONS)
    assert chosen('--quick') == ['training', 'constant', 'estimator']
    assert chosen('--only=scale,input') == ['input', 'scale']
    assert chosen('--quick', '--only=export') == ['export']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--only=input,speed'], r"--only=input,speed: there is no section 'speed'; choose among"),
        (
            ['--json=/dev/null/a.json'],
            r'--json=/dev/null/a.json cannot be written .*Not a directory',
        ),
        (['--plot=/dev/null/a.png'], r'--plot=/dev/null/a.png cannot be written .*Not a directory'),
        (['--quick', '--plot=a.png'], r'--plot=a.png: it shows the section scale'),
    ],
)
def test_what_cannot_be_run_or_written_is_refused_at_once(arguments, message):
    with pytest.raises(UserError, match=message):
        chosen(*arguments)


def test_a_wrong_section_ends_the_command_with_one_sentence():
    done = subprocess.run(
        [sys.executable, os.path.join('scripts', 'benchmark'), '--only=speed'],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --only=speed: there is no section 'speed'")
    assert len(done.stderr.splitlines()) == 1


def test_quick_keeps_two_batch_sizes_of_training():
    quick = benchmark.quicker(benchmark.COMPARISONS['training'])
    assert quick.batch_sizes == [128, 256]
    for name, comparison in benchmark.COMPARISONS.items():
        assert 0 < benchmark.quicker(comparison).rounds < comparison.rounds, name
        assert benchmark.quicker(comparison).batch_sizes, name


def test_a_contestant_that_fails_is_named_and_its_words_are_shown(capsys):
    contestant = contest.Contestant('clumsy', [sys.executable, '-c', 'raise ValueError("oh")'])
    with pytest.raises(UserError, match='clumsy ended with code 1'):
        contestant.take_turn(1)
    contestant.close()
    assert 'ValueError: oh' in capsys.readouterr().err


def test_turns_time_the_steps_between_yields():
    program = """
import time
from scripts.benchmark.timed_steps import turns
for step, _ in enumerate(turns()):
    time.sleep(0.05 if step == 1 else 0)
"""
    contestant = contest.Contestant('sleeper', [sys.executable, '-c', program], cores=1)
    first, second = contestant.take_turn(2), contestant.take_turn(3)
    contestant.close()
    assert (len(first['milliseconds']), len(second['milliseconds'])) == (2, 3)
    assert first['milliseconds'][1] >= 50  # slept; how much longer is the machine's affair
    assert 1 < second['peak_megabytes'] < 100


def test_a_folder_with_another_torch_is_refused(tmp_path):
    python = tmp_path / 'bin' / 'python'
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(UserError, match='--torch_env={} does not hold torch=='.format(tmp_path)):
        contest.make_torch_environment(str(tmp_path))


def test_results_are_json(tmp_path):
    record = runs.machine()
    record['training'] = [contest.row_of({'ours': [answers('training', [1.0])]}, statistics.mean)]
    assert json.loads(json.dumps(record))['cores'] >= 1


@pytest.mark.slow
def test_contestants_of_tensorflow_run_the_steps_they_are_told(prepared_mnist, tmp_path):
    params = HParams(model_dir=str(tmp_path / 'model'))
    runs.run_task(params.model_dir, data_dir_of(prepared_mnist), max_steps=1)
    small = HParams(batch_size=8, lstm_units=4, model_dir=str(tmp_path / 'estimator'))
    columns = [column for row in benchmark.COMPARISONS.values() for column in row.columns.values()]
    names = [name for column in columns for name in column if ':' not in name]
    for name in dict.fromkeys(names):
        has_model = name in ('evaluation', 'export', 'generate', 'inference')
        contestant = contest.start(name, params if has_model else small, prepared_mnist)
        answer = contestant.take_turn(3)
        contestant.close()
        assert len(answer['milliseconds']) == 3, name
        assert min(answer['milliseconds']) > 0, name
        assert answer['peak_megabytes'] > 50, name


@pytest.mark.slow
def test_startup_ends_with_the_first_step(prepared_mnist):
    answer = runs._start_task(data_dir_of(prepared_mnist))
    assert answer['milliseconds'][0] > 1e3 * 0.1
    assert answer['cpu_seconds'] > 0.1
    assert answer['peak_megabytes'] > 50


def data_dir_of(prepared):
    """The folder to which the decoded files of `<data_dir>/mnist/3.0.0-decoded` belong."""
    return os.path.abspath(os.path.join(os.path.dirname(prepared.files['train']), '..', '..'))
