"""The settings: flags and their ranges, the copy in model_dir, what may differ on resume."""

import dataclasses
import os
import subprocess
import sys

import pytest
from absl import flags

from tests.support.paths import ROOT
from trainer.base import cores
from trainer.base.errors import UserError
from trainer.settings import command_line, rules, storage, table, wording
from trainer.settings.table import HParams
from trainer.training import towers

BAD_VALUES = [
    ('max_steps', '0', 'from 1 to'),
    ('max_steps', '-5', 'from 1 to'),
    ('max_steps', 'many', 'a whole number'),
    ('max_steps', '1.5', 'a whole number'),
    ('batch_size', '0', 'from 1 to'),
    ('batch_size', '-128', 'from 1 to'),
    ('latent_size', '0', 'from 1 to'),
    ('latent_size', '100000', 'from 1 to'),
    ('lstm_units', '-1', 'from 1 to'),
    ('decoder_units', '0', 'from 1 to'),
    ('decoder_channels', '0', 'from 1 to'),
    ('learning_rate', '0', 'above 0'),
    ('learning_rate', '-0.1', 'above 0'),
    ('learning_rate', 'nan', 'a finite number'),
    ('learning_rate', 'inf', 'a finite number'),
    ('learning_rate', '1e10', 'at most 1,000,000,000'),
    ('max_gradient_norm', 'nan', 'a finite number'),
    ('warmup_steps', '-1', 'from 0 to'),
    ('seed', '-1', 'from 0 to'),
    ('seed', str(2**31), 'from 0 to'),
    ('save_checkpoints_steps', '-1', 'from 0 to'),
    ('save_summary_steps', '-1', 'from 0 to'),
    ('num_images', '0', 'from 1 to'),
    ('num_images', '10001', 'from 1 to'),
    ('num_threads', '-2', 'from 0 to'),
]


def parse(*arguments):
    values = flags.FlagValues()
    command_line.define_flags(flag_values=values)
    values(['program'] + list(arguments))
    return values


@pytest.mark.parametrize('name, value, allowed', BAD_VALUES)
def test_bad_value_is_refused_with_name_value_and_range(name, value, allowed):
    with pytest.raises(flags.Error) as error:
        parse('--{}={}'.format(name, value))
    assert '--{}={}'.format(name, value) in str(error.value)
    assert allowed in str(error.value)


def test_defaults_are_those_of_the_table():
    params = command_line.from_flags(parse())
    assert dataclasses.replace(params, model_dir='') == HParams()
    assert params.model_dir == os.path.join('runs', 'mnist-z{}'.format(params.latent_size))


def test_every_setting_becomes_a_flag_with_help():
    values = parse('--latent_size=2', '--learning_rate=1e-3', '--model_dir=here')
    params = command_line.from_flags(values)
    assert (params.latent_size, params.learning_rate, params.model_dir) == (2, 0.001, 'here')
    for row in table.settings():
        assert values[row.name].help


def test_checkpoint_steps_default_to_a_fifth_rounded_up():
    assert HParams(max_steps=5000).checkpoint_steps == 1000
    assert HParams(max_steps=11).checkpoint_steps == 3
    assert HParams(max_steps=11, save_checkpoints_steps=7).checkpoint_steps == 7


def test_threads_are_the_cores_allowed_while_each_has_images_enough(monkeypatch):
    for count, batch_size, expected in [(1, 128, 1), (2, 128, 2), (64, 128, 4), (64, 16, 1)]:
        monkeypatch.setattr(cores, 'available', lambda count=count: count)
        assert towers.count(HParams(batch_size=batch_size)) == expected
    assert towers.count(HParams(num_threads=3, batch_size=16)) == 3
    assert towers.count(HParams(num_threads=8, batch_size=2)) == 2


def test_available_cores_are_those_of_the_affinity():
    script = (
        'import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); '
        'from trainer.base import cores; print(cores.available())'
    )
    environment = dict(os.environ, PYTHONPATH=ROOT)
    assert subprocess.check_output([sys.executable, '-c', script], env=environment) == b'1\n'


def test_table_comes_back_as_it_was_saved(tmp_path):
    params = HParams(model_dir=str(tmp_path / 'run'), learning_rate=1e-3, image_shape=(32, 32, 3))
    storage.save(params)
    assert storage.load(params.model_dir) == params
    assert storage.load(str(tmp_path)) is None


@pytest.mark.parametrize('content', ['{"dataset": ', '{"dataset": "mnist"}', '[]', '{"a": 1}'])
def test_a_file_that_is_no_such_table_is_named(tmp_path, content):
    (tmp_path / storage.FILE_NAME).write_text(content)
    with pytest.raises(UserError, match=storage.FILE_NAME):
        storage.load(str(tmp_path))


def test_resume_refuses_another_model_with_names_and_values():
    recorded = HParams(model_dir='x')
    other = dataclasses.replace(recorded, latent_size=2, seed=9, binarization='dynamic')
    with pytest.raises(UserError) as error:
        storage.check_resumable(other, recorded)
    assert '--latent_size=2 (was {})'.format(recorded.latent_size) in str(error.value)
    assert '--seed=9 (was 1)' in str(error.value)
    assert '--binarization=dynamic (was none)' in str(error.value)


def test_resume_allows_cadence_paths_threads_length_and_remedies_to_differ():
    recorded = HParams(model_dir='x')
    storage.check_resumable(
        dataclasses.replace(
            recorded,
            max_steps=9,
            learning_rate=1e-5,
            max_gradient_norm=1.0,
            early_stopping_patience=2,
            save_checkpoints_steps=3,
            save_summary_steps=2,
            model_dir='y',
            data_dir='d',
            idx_dir='i',
            num_images=4,
            num_threads=1,
        ),
        recorded,
    )


@pytest.mark.parametrize(
    'settings, convention, log_likelihood',
    [
        ({}, 'grey levels', 'no log-likelihood'),
        (
            {'likelihood': 'continuous_bernoulli'},
            'dequantised grey levels',
            'a log-density of grey levels with uniform noise, whose mean bounds',
        ),
        (
            {'likelihood': 'normal', 'dequantization': 'none'},
            'grey levels, not dequantised',
            'a log-density of grey levels',
        ),
        (
            {'likelihood': 'normal', 'dtype': 'float32'},
            'grey levels, not dequantised',
            'a log-density of grey levels',
        ),
        ({'binarization': 'dynamic'}, 'dynamic binarisation', 'a log-probability'),
        (
            {'binarization': 'static'},
            'static binarisation by fixed-seed sampling',
            'a log-probability',
        ),
        (
            {'binarization': 'static', 'dataset': 'binarized_mnist'},
            'static binarisation by Larochelle',
            'a log-probability',
        ),
    ],
)
def test_conventions_are_named_apart(settings, convention, log_likelihood):
    params = HParams(**settings)
    rules.check_consistent(params)
    assert wording.data_convention(params) == convention
    assert wording.log_likelihood(params).startswith(log_likelihood)


@pytest.mark.parametrize(
    'settings, parts',
    [
        ({'likelihood': 'normal', 'binarization': 'static'}, ['--likelihood=normal', 'static']),
        (
            {'likelihood': 'continuous_bernoulli', 'binarization': 'dynamic'},
            ['--likelihood=continuous_bernoulli', 'dynamic'],
        ),
        ({'dataset': 'binarized_mnist'}, ['--dataset=binarized_mnist', '--binarization=static']),
        (
            {'dataset': 'binarized_mnist:1.0.0', 'binarization': 'dynamic'},
            ['--dataset=binarized_mnist:1.0.0', 'now dynamic'],
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_with_a_reason(settings, parts):
    with pytest.raises(UserError) as error:
        rules.check_consistent(HParams(**settings))
    for part in parts:
        assert part in str(error.value)


def run_task(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'trainer.task'] + list(arguments),
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
        timeout=1800,
    )


def refused(arguments, *parts):
    done = run_task(*arguments)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert 'Traceback' not in output
    assert 'WARNING' not in output
    for part in parts:
        assert part in output
    return output


def test_task_refuses_a_bad_value_and_makes_nothing(tmp_path):
    target = tmp_path / 'run'
    refused(
        ['--model_dir={}'.format(target), '--learning_rate=nan', '--data_dir={}'.format(target)],
        '--learning_rate=nan',
        'a finite number above 0',
    )
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.slow
def test_task_refuses_what_does_not_fit_and_makes_nothing(tmp_path):
    a_file = tmp_path / 'file'
    a_file.write_text('mine')
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-7"\n')
    (other / 'model.ckpt-7.index').write_text('')
    before = sorted(os.listdir(str(tmp_path)))
    data = '--data_dir={}'.format(tmp_path / 'data')
    fresh = '--model_dir={}'.format(tmp_path / 'run')
    cases = [
        ([fresh, '--batch_size=55001'], ['--batch_size=55001', '55,000']),
        (['--job-dir={}'.format(a_file)], ['--model_dir={}'.format(a_file), 'Not a directory']),
        ([fresh, '--dataset=no_such_dataset'], ['--dataset=no_such_dataset']),
        (['--model_dir={}'.format(other)], [str(other), 'another model']),
        ([fresh, '--likelihood=normal', '--binarization=dynamic'], ['--likelihood=normal']),
        ([fresh, 'stray'], ['stray']),
    ]
    for arguments, parts in cases:
        refused(arguments + [data], *parts)
    assert sorted(os.listdir(str(tmp_path))) == before
    assert a_file.read_text() == 'mine'
