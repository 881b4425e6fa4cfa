"""trainer/cloud.py: a cloud job's environment variables."""

import json
import os

import hypertune
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from tests.support import datasets, users
from trainer import task
from trainer.base import files
from trainer.base.errors import UserError
from trainer.cluster import vertex
from trainer.data import prepare
from trainer.data.dataset import DatasetFacts
from trainer.settings import command_line
from trainer.settings.table import HParams

DEFAULT = HParams(model_dir='runs/mnist-z32')
GIVEN = HParams(model_dir='gs://b/mine')
AIP = {
    'AIP_TENSORBOARD_LOG_DIR': 'gs://b/run/logs/',
    'AIP_CHECKPOINT_DIR': 'gs://b/run/checkpoints/',
    'AIP_MODEL_DIR': 'gs://b/run/model/',
}


@pytest.mark.parametrize(
    'params, environ, expected',
    [
        (DEFAULT, {}, 'runs/mnist-z32'),
        (DEFAULT, AIP, 'gs://b/run/logs'),
        (DEFAULT, {'AIP_CHECKPOINT_DIR': 'gs://b/run/checkpoints/'}, 'gs://b/run/checkpoints'),
        (GIVEN, AIP, 'gs://b/mine'),
        # The service's folders are a trial's own; any other is the same for all trials.
        (DEFAULT, dict(AIP, CLOUD_ML_TRIAL_ID='3'), 'gs://b/run/logs'),
        (GIVEN, dict(AIP, CLOUD_ML_TRIAL_ID='3'), 'gs://b/mine/3'),
        (DEFAULT, {'CLOUD_ML_TRIAL_ID': '3'}, 'runs/mnist-z32/3'),
    ],
)
def test_a_run_is_placed_where_the_service_wants_it(params, environ, expected):
    placed = vertex.placed(params, params is GIVEN, environ)
    assert placed == HParams(model_dir=expected)


def evaluation(step):
    return {'negative_elbo': np.float32(100.5 - step), 'global_step': np.int64(step), 'loss': 1.0}


@pytest.mark.parametrize('count', [1, 3, 103])
def test_the_metric_file_is_what_googles_own_client_writes(count, tmp_path, monkeypatch):
    ours, theirs = str(tmp_path / 'a' / 'metrics'), str(tmp_path / 'b' / 'metrics')
    environ = {'CLOUD_ML_TRIAL_ID': '7', 'CLOUD_ML_HP_METRIC_FILE': ours}
    report = vertex.metric_reporter(HParams(), environ)
    monkeypatch.setenv('CLOUD_ML_TRIAL_ID', '7')
    monkeypatch.setenv('CLOUD_ML_HP_METRIC_FILE', theirs)
    client = hypertune.HyperTune()
    for step in range(count):
        report(evaluation(step))
        client.report_hyperparameter_tuning_metric('validation_negative_elbo', 100.5 - step, step)
    contents = []
    for path in (ours, theirs):
        with open(path) as f:
            contents.append([json.loads(line) for line in f])
        assert all(isinstance(line.pop('timestamp'), float) for line in contents[-1])
    assert contents[0] == contents[1]
    assert len(contents[0]) == min(count, 100)


def test_an_importance_weighted_objective_reports_its_bound(tmp_path):
    path = tmp_path / 'metrics'
    params = HParams(objective='iwae', training_samples=5)
    report = vertex.metric_reporter(params, {'CLOUD_ML_HP_METRIC_FILE': str(path)})
    report(dict(evaluation(1), negative_importance_weighted_bound=np.float32(88.5)))
    line = json.loads(path.read_text())
    assert line['validation_negative_importance_weighted_bound'] == '88.5'
    assert 'validation_negative_elbo' not in line


def test_without_a_tuning_nothing_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(vertex, '_METRIC_FILE', str(tmp_path / 'metrics'))
    vertex.metric_reporter(HParams(), {})(evaluation(1))
    assert os.listdir(str(tmp_path)) == []
    vertex.metric_reporter(HParams(), {'CLOUD_ML_TRIAL_ID': '1'})(evaluation(1))
    assert os.listdir(str(tmp_path)) == ['metrics']


def reporter_to(path):
    return vertex.metric_reporter(
        HParams(), {'CLOUD_ML_TRIAL_ID': '7', 'CLOUD_ML_HP_METRIC_FILE': str(path)}
    )


def test_metrics_are_reported_in_a_folder_of_the_services(capsys):
    with users.folder_of_another(0o555) as folder:
        path = os.path.join(folder, 'file')
        report = reporter_to(path)
        with users.another_user():
            for step in range(2):
                report(evaluation(step))
        with open(path) as f:
            assert [json.loads(line)['global_step'] for line in f] == ['0', '1']
        assert os.listdir(folder) == ['file']
    assert capsys.readouterr().err == ''


def test_a_metric_that_cannot_be_reported_is_one_warning(capsys):
    with users.folder_of_another(0o555) as folder, users.another_user():
        report = reporter_to(folder + '/missing')
        for step in range(2):
            report(evaluation(step))
    [line] = capsys.readouterr().err.splitlines()
    start = 'CLOUD_ML_HP_METRIC_FILE: {}/missing cannot be written (Permission denied)'
    assert line.startswith(start.format(folder))


@pytest.mark.parametrize('path', ['/dev/full', '/proc/version/metrics', '/', 'a\0b', '\udc80'])
def test_reporting_raises_nothing(path, capsys):
    reporter_to(path)(evaluation(1))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_whatever_the_exception_reporting_raises_nothing(monkeypatch, tmp_path, capsys):
    def fail(*arguments):
        raise RuntimeError('anything')

    monkeypatch.setattr(files, 'write_output', fail)
    reporter_to(tmp_path / 'metrics')(evaluation(1))
    assert 'CLOUD_ML_HP_METRIC_FILE: anything' in capsys.readouterr().err


def write_export(folder, text):
    for name in ('saved_model.pb', 'variables/variables.index', 'assets/labels'):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + name)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_the_newest_export_is_published_flat(tmp_path):
    exports = tmp_path / 'run' / 'export' / 'final'
    write_export(exports / '999', 'older')
    write_export(exports / '1000', 'newer')
    (exports / 'temp-1001').mkdir()  # Estimator's name for an unfinished one
    params, target = HParams(model_dir=str(tmp_path / 'run')), tmp_path / 'model'
    vertex.publish_model(params, {})
    assert not target.exists()
    for _ in range(2):  # the second time over what is there
        vertex.publish_model(params, {'AIP_MODEL_DIR': str(target) + '/'})
        assert contents(target) == contents(exports / '1000')


def test_a_model_that_cannot_be_published_is_one_sentence(tmp_path):
    write_export(tmp_path / 'run' / 'export' / 'final' / '1000', 'new')
    (tmp_path / 'model').write_text('a file')
    environ = {'AIP_MODEL_DIR': str(tmp_path / 'model')}
    with pytest.raises(UserError) as refused:
        vertex.publish_model(HParams(model_dir=str(tmp_path / 'run')), environ)
    message = str(refused.value)
    assert message.startswith('AIP_MODEL_DIR={}/model cannot be written ('.format(tmp_path))
    assert str(tmp_path / 'run' / 'export' / 'final' / '1000') in message


def test_saved_model_pb_comes_last(tmp_path, monkeypatch):
    exports = tmp_path / 'run' / 'export' / 'final'
    write_export(exports / '1', 'new')
    write_export(tmp_path / 'model', 'old')
    renamed = []
    rename = tf.gfile.Rename

    def watching(source, target, overwrite):
        assert not (tmp_path / 'model' / 'saved_model.pb').exists()
        renamed.append(os.path.basename(target))
        rename(source, target, overwrite=overwrite)

    monkeypatch.setattr(tf.gfile, 'Rename', watching)
    environ = {'AIP_MODEL_DIR': str(tmp_path / 'model')}
    vertex.publish_model(HParams(model_dir=str(tmp_path / 'run')), environ)
    assert renamed[-1] == 'saved_model.pb'
    assert sorted(renamed) == ['labels', 'saved_model.pb', 'variables.index']


@pytest.mark.slow
def test_a_job_runs_where_its_variables_say(tmp_path, monkeypatch, capsys):
    """task.main as in a trial: run, metrics and model are where the service looks for them."""
    data = datasets.write_prepared(tmp_path)
    facts = DatasetFacts(data.name, data.version, data.image_shape, data.num_examples)
    monkeypatch.setattr(prepare, 'dataset_facts', lambda *_: facts)
    monkeypatch.setattr(prepare, 'prepare', lambda *_, **__: data)
    metric_file = tmp_path / 'metrics'
    for name, value in (
        ('AIP_TENSORBOARD_LOG_DIR', '{}/2/logs/'.format(tmp_path)),
        ('AIP_MODEL_DIR', '{}/2/model/'.format(tmp_path)),
        ('CLOUD_ML_TRIAL_ID', '2'),
        ('CLOUD_ML_HP_METRIC_FILE', str(metric_file)),
    ):
        monkeypatch.setenv(name, value)
    values = flags.FlagValues()
    command_line.define_flags(flag_values=values)
    values(
        ['', '--latent_size=3', '--lstm_units=4', '--decoder_units=8', '--decoder_channels=2',
         '--batch_size=20', '--max_steps=2', '--save_checkpoints_steps=2', '--warmup_steps=1']
    )  # fmt: skip
    monkeypatch.setattr(flags, 'FLAGS', values)
    task.main([])
    with open(str(tmp_path / '2' / 'logs' / 'results.json')) as f:
        results = json.load(f)
    lines = [json.loads(line) for line in metric_file.read_text().splitlines()]
    # The checkpoint's evaluation, then the final one.
    assert [(line['trial'], line['global_step']) for line in lines] == [('2', '2')] * 2
    for line in lines:
        value = float(line['validation_negative_elbo'])
        assert value == pytest.approx(results['validation']['negative_elbo'], rel=1e-6)
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, ['serve'], str(tmp_path / '2' / 'model'))
    assert 'serving_default' in loaded.signature_def
