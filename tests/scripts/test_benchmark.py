"""The benchmark's arithmetic and choices, and its processes taking turns."""

import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from scripts import ROOT
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import comparisons, in_tensorflow, scaling, timed_process, trainings
from scripts.benchmark.architecture import Architecture
from scripts.clients import environment
from tests.support import datasets
from trainer.base import cores, figures
from trainer.base.errors import UserError
from trainer.data import prepare
from trainer.settings.table import HParams
from trainer.training import model_fn, towers


def turns(*turns):
    """What a process has answered with these milliseconds, turn by turn."""
    return [{'milliseconds': turn, 'cpu_seconds': 0.03, 'peak_megabytes': 7.0} for turn in turns]


def training_flops(params):
    return params.batch_size * Architecture(dataclasses.asdict(params)).training_flops()


@pytest.mark.parametrize(
    'shape, lstm_input, others',
    [
        # Multiplications of an example: LSTM input 4 x 8 x 12 forward and for the weights, state
        # 3 x 3 x 12; posterior 2 x 12 x 2; Dense 2 x 5, 5 x 5, 5 x 12; transpose convolutions
        # 2 pixels x 9 x 6 x 6 and 8 pixels x 16 x 6 x 1; all but the first three times.
        ((4, 8, 1), 4 * 8 * 12, 108 + 48 + 10 + 25 + 60 + 2 * 9 * 36 + 8 * 16 * 6),
        # Of 5 x 9 pixels the decoder makes 8 x 12, from 2 x 3.
        ((5, 9, 1), 5 * 9 * 12, 144 + 48 + 10 + 25 + 180 + 6 * 9 * 36 + 24 * 16 * 6),
        # Of 3 rows each is the end of a quarter; one column stays one.
        ((3, 1, 2), 3 * 2 * 12, 72 + 36 + 10 + 25 + 30 + 1 * 3 * 36 + 2 * 4 * 12),
    ],
)
def test_flops_are_those_counted_by_hand(shape, lstm_input, others):
    params = HParams(
        image_shape=shape, lstm_units=3, latent_size=2, decoder_units=5, decoder_channels=6,
        batch_size=10,
    )  # fmt: skip
    assert training_flops(params) == 10 * 2 * (2 * lstm_input + 3 * others)


def test_ratios_are_medians_of_pairs_and_the_better_torch_counts():
    row = comparisons.row_of(
        {
            'ours': {'training': turns([10.0], [20.0], [40.0])},
            'torch': {
                'torch_eager:training': turns([90.0], [90.0], [90.0]),
                'torch_compiled:training': turns([15.0], [24.0], [80.0]),
            },
            'plain': {'plain': turns([20.0], [20.0], [20.0])},
            'gemm': {'gemm': turns([100.0], [100.0], [100.0])},
        }
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
    share = comparisons.share_of_peak(row, params)
    peak = 2 * 2048**3 / 0.1
    assert share['gemm_gflops'] == pytest.approx(peak / 1e9)
    assert share['gemm_share'] == pytest.approx(training_flops(params) / 0.02 / peak)


def test_a_turn_stands_for_its_mean_where_rare_costs_count():
    bare, estimator = [1.0] * 100, [1.0] * 99 + [101.0]
    columns = {'session': {'training': turns(bare)}, 'estimator': {'e': turns(estimator)}}
    by_median = comparisons.row_of(columns)
    by_mean = comparisons.row_of(columns, statistics.mean)
    assert by_median['ratio_vs_estimator'] == 1.0
    assert by_mean['ratio_vs_estimator'] == pytest.approx(2.0)
    # Between the 99th and the 100th of 100 values, 1 % of the way.
    assert by_mean['estimator_p99_ms'] == pytest.approx(2.0)
    assert by_mean['p99_ratio_vs_estimator'] == pytest.approx(2.0)


def test_a_turn_of_the_estimator_holds_the_summaries_of_the_default_cadence():
    estimator = comparisons.COMPARISONS['estimator']
    assert estimator['steps'] % HParams.save_summary_steps == 0
    assert estimator['statistic'] == 'mean'


def test_the_table_shows_every_column(capsys):
    columns = {'ours': {'training': turns([10.0])}, 'torch': {'torch_eager:x': turns([15.0])}}
    comparisons.show('a step', comparisons.row_of(columns))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == 'a step'
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
    answers = {64: turns([4.0], [6.0]), 128: turns([8.0], [8.0])}
    rows = scaling.rows_of('batch_size', answers, 128)
    assert [(row['value'], row['median_ms']) for row in rows] == [(64, 5.0), (128, 8.0)]
    assert [row['ratio_to_default'] for row in rows] == [pytest.approx(0.625), 1.0]


def test_scale_changes_one_setting_at_a_time(tmp_path):
    params = HParams(model_dir=str(tmp_path))
    data = datasets.write_prepared(tmp_path)
    cases = scaling.cases(params, data, str(tmp_path))
    defaults = dataclasses.asdict(params)
    defaults.update(image_side=28, cores=cores.available())
    for name, by_value in cases.items():
        default, images, _ = by_value[defaults[name]]
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
    content = figures.png((12, 3), functools.partial(scaling.plot, rows))
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


@pytest.mark.parametrize('name', comparisons.COMPARISONS)
def test_quick_drops_the_smallest_and_largest_batches_and_takes_fewer_turns(name, monkeypatch):
    taken = []

    def in_turns(starts, steps, rounds, warm_up):
        taken.append(rounds)
        return {one: turns([1.0] * steps) for one in starts}

    monkeypatch.setattr(comparisons, 'in_turns', in_turns)
    bench = types.SimpleNamespace(
        params=HParams(), data=None, folder='', flags=types.SimpleNamespace()
    )
    bench.python_of, bench.make_model = (lambda name: 'python'), (lambda: None)
    sizes = {}
    for bench.flags.quick in (False, True):
        sizes[bench.flags.quick] = [row['batch_size'] for row in comparisons.run(name, bench)]
    assert sizes[True] == [size for size in sizes[False] if size not in (64, 512)] != []
    assert 0 < taken[-1] < taken[0]


_SHAPES = [(28, 28, 1), (3, 1, 1)]


@pytest.mark.parametrize(
    'shape', [(5, 9, 3), *(pytest.param(shape, marks=pytest.mark.slow) for shape in _SHAPES)]
)
@pytest.mark.parametrize('lstm', [in_tensorflow.static_lstm, in_tensorflow.fused_lstm])
def test_the_plain_network_has_the_weights_of_the_trainer_s(shape, lstm):
    params = HParams(batch_size=2, image_shape=shape)
    batch = [2, params.rows, params.row_features]
    with tf.Graph().as_default():
        images = tf.zeros(batch)
        sizes = Architecture(dataclasses.asdict(params))
        loss = in_tensorflow.plain_negative_elbo(images, sizes, lstm)
        plain = sum(variable.shape.num_elements() for variable in tf.trainable_variables())
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            assert session.run(loss).shape == (2,)
    with tf.Graph().as_default():
        tf.train.create_global_step()
        features, mode = {'images': tf.zeros(batch)}, tf.estimator.ModeKeys.TRAIN
        model_fn.model_fn(features, None, mode, params)
        ours = sum(variable.shape.num_elements() for variable in tf.trainable_variables())
    assert plain == ours


def test_a_process_that_fails_is_named_and_its_words_are_shown(capsys):
    process = timed_process.TimedProcess('clumsy', [sys.executable, '-c', 'raise ValueError("oh")'])
    with pytest.raises(UserError, match='clumsy ended with code 1'):
        process.take_turn(1)
    process.close()
    assert 'ValueError: oh' in capsys.readouterr().err


def test_turns_time_the_steps_between_yields():
    program = """
import time
from scripts.benchmark.timed_steps import wanted_steps
for step, _ in enumerate(wanted_steps()):
    time.sleep(0.05 if step == 1 else 0)
"""
    process = timed_process.TimedProcess('sleeper', [sys.executable, '-c', program], cores=1)
    first, second = process.take_turn(2), process.take_turn(3)
    process.close()
    assert (len(first['milliseconds']), len(second['milliseconds'])) == (2, 3)
    assert first['milliseconds'][1] >= 50  # slept; how much longer is the machine's affair
    assert 1 < second['peak_megabytes'] < 100


def test_a_folder_with_another_torch_is_refused(tmp_path):
    python = tmp_path / 'bin' / 'python'
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(UserError, match='--peers_env failed: {} holds other'.format(tmp_path)):
        environment.make('--peers_env', str(tmp_path), ['torch==2.13.0'])
    assert python.read_text() == '#!/bin/sh\nexit 1\n'


def test_results_are_json(tmp_path):
    record = trainings.machine()
    record['training'] = [comparisons.row_of({'ours': {'training': turns([1.0])}})]
    assert json.loads(json.dumps(record))['cores'] >= 1


@pytest.fixture(scope='module')
def small_mnist(small_mnist_data_dir):
    return prepare.prepare('mnist', small_mnist_data_dir)


@pytest.mark.slow
def test_processes_of_tensorflow_run_the_steps_they_are_told(small_mnist, tmp_path):
    params = HParams(model_dir=str(tmp_path / 'model'))
    trainings.train(params.model_dir, data_dir=data_dir_of(small_mnist), max_steps=1)
    small = HParams(batch_size=8, lstm_units=4, model_dir=str(tmp_path / 'estimator'))
    tables = comparisons.COMPARISONS.values()
    started = {
        name: params if table.get('needs_model') else small
        for table in tables
        for names in table['columns'].values()
        for name in names
        if ':' not in name and name != 'trainer.task'
    }
    for name, settings in started.items():
        process = timed_process.start(name, settings, small_mnist)
        answer = process.take_turn(3)
        process.close()
        assert len(answer['milliseconds']) == 3, name
        assert min(answer['milliseconds']) > 0, name
        assert answer['peak_megabytes'] > 50, name


@pytest.mark.slow
def test_startup_ends_with_the_first_step(small_mnist, tmp_path):
    params = HParams(model_dir=str(tmp_path / 'run'), data_dir=data_dir_of(small_mnist))
    starter = functools.partial(timed_process.start, 'trainer.task', params, small_mnist)
    answer = timed_process.FirstStep(starter).take_turn(1)
    assert answer['milliseconds'][0] > 1e3 * 0.1
    assert answer['cpu_seconds'] > 0.1
    assert answer['peak_megabytes'] > 50


def test_a_process_is_started_anew_for_each_turn_and_measured_from_its_start():
    program = """
import time
from scripts.benchmark.timed_steps import wanted_steps
time.sleep(0.1)
for _ in wanted_steps():
    pass
"""
    command = [sys.executable, '-c', program]
    first_step = timed_process.FirstStep(lambda: timed_process.TimedProcess('slow', command))
    for answer in (first_step.take_turn(1), first_step.take_turn(1)):
        assert answer['milliseconds'][0] >= 100
        assert 1 < answer['peak_megabytes'] < 100


def data_dir_of(prepared):
    """The folder to which the decoded files of `<data_dir>/mnist/3.0.0-decoded` belong."""
    return os.path.abspath(os.path.join(os.path.dirname(prepared.files['train']), '..', '..'))
