"""TF_CONFIG as clouds write it, and real clusters of processes."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from scripts import train_cluster
from tests.faults import run_folder
from tests.support import own, tiny
from tests.support.fuzzing import examples
from tests.support.paths import OLD_RUN, ROOT
from trainer.base.errors import UserError
from trainer.checkpoints import best_model, listing
from trainer.cluster import tf_config
from trainer.cluster.tf_config import LOCAL
from trainer.settings.table import HParams
from trainer.training import noise
from trainer.training import run as training_run

FULL = {'chief': ['a:1'], 'worker': ['b:1', 'c:1'], 'ps': ['d:1'], 'evaluator': ['e:1']}


def environ(cluster_spec, kind, index=0, **others):
    config = dict({'cluster': cluster_spec, 'task': {'type': kind, 'index': index}}, **others)
    return {'TF_CONFIG': json.dumps(config)}


def without(*kinds, **changed):
    return {k: v for k, v in dict(FULL, **changed).items() if k not in kinds}


@pytest.mark.parametrize(
    'kind, index, replica', [('chief', 0, 0), ('worker', 0, 1), ('worker', 1, 2), ('ps', 0, 0)]
)
def test_each_task_is_what_tf_config_says(kind, index, replica):
    task = tf_config.join(environ(FULL, kind, index))
    assert (task.type, task.index, task.replica, task.replicas) == (kind, index, replica, 3)
    assert task.has_evaluator
    assert task.is_leader == (kind == 'chief')


@pytest.mark.parametrize(
    'variables',
    [
        {},
        {'TF_CONFIG': ''},
        {'TF_CONFIG': '{}'},
        environ({'chief': ['a:1']}, 'chief'),
        environ({'master': ['a:1']}, 'master', environment='cloud', job={'trial': '1'}),
        environ({'worker': ['a:1'], 'ps': []}, 'worker'),
    ],
)
def test_a_single_training_process_trains_locally(variables):
    assert tf_config.join(variables) == LOCAL


def test_worker_0_leads_where_there_is_no_chief():
    spec = without('chief', 'evaluator')
    first, second = [tf_config.join(environ(spec, 'worker', index)) for index in (0, 1)]
    assert (first.type, first.index, first.replica) == ('chief', 0, 0)
    assert (second.type, second.index, second.replica) == ('worker', 0, 1)
    expected = {'chief': ['b:1'], 'worker': ['c:1'], 'ps': ['d:1']}
    assert json.loads(first.tf_config)['cluster'] == expected
    assert json.loads(second.tf_config)['cluster'] == expected
    assert not first.has_evaluator


def test_a_master_is_a_chief_for_all():
    spec = without('chief', 'evaluator', master=['a:1'])
    assert tf_config.join(environ(spec, 'master')).type == 'chief'
    assert 'chief' in json.loads(tf_config.join(environ(spec, 'worker')).tf_config)['cluster']


def test_vertex_names_the_evaluator_in_cluster_spec_alone():
    spec = without('evaluator')
    variables = environ(spec, 'chief', environment='cloud', job='{}')
    assert not tf_config.join(variables).has_evaluator
    pools = {'workerpool{}'.format(pool): ['x:1'] for pool in range(4)}
    variables['CLUSTER_SPEC'] = json.dumps({'cluster': pools, 'task': {'type': 'workerpool0'}})
    assert tf_config.join(variables).has_evaluator
    variables.update(environ(spec, 'evaluator'))
    assert tf_config.join(variables).type == 'evaluator'


@pytest.mark.parametrize(
    'variables, word',
    [
        ({'TF_CONFIG': '{'}, 'not valid JSON'),
        ({'TF_CONFIG': '[]'}, 'lists of hosts'),
        ({'TF_CONFIG': '{"cluster": {"ps": "a:1"}}'}, 'lists of hosts'),
        ({'TF_CONFIG': json.dumps({'cluster': FULL, 'task': {'index': 'x'}})}, 'number as index'),
        ({'TF_CONFIG': json.dumps({'cluster': FULL, 'task': 7})}, 'number as index'),
        (environ(FULL, 'boss'), "'boss'"),
        (environ(FULL, 'worker', 2), 'has 2 of that type'),
        (environ(FULL, 'worker', -1), 'has 2 of that type'),
        (environ(without('ps'), 'worker'), 'no parameter server'),
        (environ({'ps': ['d:1']}, 'ps'), 'nobody would train'),
        (environ(dict(FULL, chief=['a:1', 'f:1']), 'chief', 1), '2 chiefs'),
        (environ(without('chief', master=['a:1', 'f:1']), 'worker'), '2 masters'),
        (environ(dict(FULL, master=['f:1']), 'worker'), 'a chief and a master'),
        (environ(dict(FULL, evaluator=['e:1', 'f:1']), 'chief'), '2 evaluators'),
        (environ(FULL, 'evaluator', 1), 'has 1 of that type'),
        (environ(without('evaluator'), 'evaluator', -1), 'has 1 of that type'),
        (environ({'chief': ['a:1']}, 'chief', 1), 'has 1 of that type'),
        (environ(without('chief'), 'chief'), 'has 0 of that type'),
        (environ(dict(FULL, ps=['a:1']), 'chief'), 'a:1 twice'),
        (environ(FULL, 'worker', 0.5), 'number as index'),
        (environ(FULL, 'worker', True), 'number as index'),
        (
            {'TF_CONFIG': json.dumps({'cluster': FULL, 'task': {'type': 'worker'}})},
            'number as index',
        ),
    ],
)
def test_clusters_that_cannot_train_are_refused_in_one_sentence(variables, word):
    with pytest.raises(UserError) as refused:
        tf_config.join(variables)
    assert word in str(refused.value)
    assert '\n' not in str(refused.value)


KINDS = ['chief', 'master', 'worker', 'ps', 'evaluator', 'boss']
ADDRESSES = [letter + ':1' for letter in 'abcdefghi']
INDICES = strategies.sampled_from([-1, 0, 1, 2, '0', '1', 0.5, None, True])


@strategies.composite
def clusters(draw):
    """Any number of hosts of each type, mostly of one address each."""
    numbers = {'ps': [0, 1, 1, 2], 'worker': [0, 1, 2], 'boss': [0, 0, 0, 1]}
    left, hosts = list(ADDRESSES), {}
    for kind in KINDS:
        count = draw(strategies.sampled_from(numbers.get(kind, [0, 0, 1, 1, 1, 2])))
        hosts[kind], left = left[:count], left[count:]
    if draw(strategies.integers(0, 9)) == 0:
        hosts['ps'].append('a:1')
    return hosts


@strategies.composite
def configs(draw):
    """A cluster and mostly one of its tasks."""
    hosts = draw(clusters())
    own = [(kind, index) for kind in hosts for index in range(len(hosts[kind]))]
    others = draw(strategies.tuples(strategies.sampled_from(KINDS + ['', 7]), INDICES))
    kind, index = draw(strategies.sampled_from(own * 3 + [others]))
    task = {'type': kind, 'index': index}
    return {
        'cluster': hosts,
        'task': draw(strategies.sampled_from([task] * 8 + [{'type': kind}, {}])),
    }


@examples(200)
@hypothesis.given(configs())
def test_run_config_takes_every_task_that_is_not_refused(config):
    variables = {'TF_CONFIG': json.dumps(config)}
    try:
        task = tf_config.join(variables)
    except UserError as error:
        assert 'TF_CONFIG' in str(error) and '\n' not in str(error)
        return
    hypothesis.event(task.type)
    with tf_config.environment(task):
        config = tf.estimator.RunConfig(model_dir='x')
    assert config.is_chief == task.is_leader
    if task != LOCAL:
        assert (config.task_type, config.task_id) == (task.type, task.index)


@examples(100)
@hypothesis.given(clusters())
def test_one_process_of_each_cluster_leads(hosts):
    tasks, refused = [], []
    for kind, names in hosts.items():
        for index in range(len(names)):
            try:
                tasks.append(tf_config.join(environ(hosts, kind, index)))
            except UserError as error:
                refused.append((kind, str(error)))
    # All or none, but for those of a type that nobody knows.
    assert not tasks or {kind for kind, _ in refused} <= {'boss'}
    assert sum(task.is_leader for task in tasks) == (1 if tasks else 0)
    assert len({str(task) for task in tasks}) == len(tasks)


@pytest.mark.parametrize('kind, index', [('chief', 0), ('worker', 1), ('ps', 0), ('evaluator', 0)])
def test_estimator_takes_the_task_and_leaves_the_environment_alone(
    kind, index, tmp_path, monkeypatch
):
    monkeypatch.setenv('TF_CONFIG', 'untouched')
    task = tf_config.join(environ(FULL, kind, index))
    config = training_run.make_estimator(HParams(model_dir=str(tmp_path)), task).config
    assert (config.task_type, config.task_id) == (kind, index)
    assert config.is_chief == (kind == 'chief')
    assert os.environ['TF_CONFIG'] == 'untouched'
    if kind != 'evaluator':
        # What RunConfig itself sets where it is given no session_config.
        with tf_config.environment(task):
            own = tf.estimator.RunConfig(model_dir=str(tmp_path)).session_config.device_filters
        assert sorted(config.session_config.device_filters) == sorted(own)


def test_each_training_process_has_a_seed_of_its_own(tmp_path):
    params = HParams(model_dir=str(tmp_path), seed=7)
    tasks = [LOCAL] + [tf_config.join(environ(FULL, 'worker', index)) for index in (0, 1)]
    seeds = [noise.seed_of(params, task.replica) for task in tasks]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3


def test_addresses_are_free_and_distinct():
    spec = train_cluster.addresses({'chief': 1, 'worker': 3, 'ps': 0})
    ports = [host.split(':')[1] for hosts in spec.values() for host in hosts]
    assert len(set(ports)) == 4
    assert 'ps' not in spec


@pytest.mark.slow
def test_a_cluster_that_refuses_to_run_ends_with_its_code():
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'scripts', 'train_cluster.py')]
        + ['--workers=0', '--', '--latent_size=0'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 1
    assert '--latent_size' in done.stdout
    assert 'Traceback' not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('workers, evaluator', [(2, '--evaluator'), (1, '--noevaluator')])
def test_a_real_cluster_stops_early_and_leaves_everything(
    workers, evaluator, small_mnist_data_dir, tmp_path
):
    """A learning rate that changes no weight: the first evaluation stays the best."""
    command = [sys.executable, os.path.join(ROOT, 'scripts', 'train_cluster.py')]
    command += ['--workers={}'.format(workers), '--ps=1', evaluator, '--'] + [
        '--model_dir={}'.format(tmp_path), '--data_dir=' + small_mnist_data_dir, '--num_threads=1',
        '--max_steps=1000000', '--save_checkpoints_steps=300', '--early_stopping_patience=1',
        '--learning_rate=1e-30', '--latent_size=2', '--lstm_units=8', '--decoder_units=8',
        '--decoder_channels=2', '--evaluation_samples=1',
    ]  # fmt: skip

    def run():
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500
        )
        assert done.returncode == 0, done.stdout
        assert 'Traceback' not in done.stdout
        assert 'ended with code' not in done.stdout
        return done.stdout

    assert run().count('Stopped early at step') == 1
    results = json.loads((tmp_path / 'results.json').read_text())
    step = listing.start_step(str(tmp_path))
    assert 300 < step < 1000000
    assert (results['global_step'], results['stopped_early_at_step']) == (step, step)
    best = best_model.read_best(str(tmp_path))
    assert best['evaluations_since_best'] == 1
    assert results['best']['global_step'] == best['global_step'] < step
    assert tf.train.checkpoint_exists(os.path.join(best['folder'], best['checkpoint']))
    for path in (
        os.path.join(best['folder'], best['export'], 'saved_model.pb'), 'new_model.ckpt.index',
        'new_images.png', 'reconstructions.png', 'latent_manifold.png', 'training_curves.png',
    ):  # fmt: skip
        assert os.path.getsize(os.path.join(str(tmp_path), path)) > 0
    assert run_folder.export_answers(run_folder.final_export(str(tmp_path)))

    if evaluator == '--noevaluator':
        return
    log = run()
    assert 'has stopped early at step {:,}'.format(step) in log
    assert listing.start_step(str(tmp_path)) == step


@pytest.mark.slow
def test_a_cluster_on_own_images_starts_from_another_run_s_weights(tmp_path):
    """A learning rate that changes no weight: at the end they are still the other run's."""
    old = shutil.copytree(OLD_RUN, str(tmp_path / 'old'))
    source = own.write_array(tmp_path / 'my digits.npy', own.pictures(120, (28, 28)))
    command = [sys.executable, os.path.join(ROOT, 'scripts', 'train_cluster.py')]
    command += ['--workers=1', '--ps=1', '--'] + [
        f'--source={source}', f'--data_dir={tmp_path}/data', f'--model_dir={tmp_path}/run',
        f'--init_from={old}', '--learning_rate=1e-30', '--max_steps=300',
        '--save_checkpoints_steps=300', '--num_threads=1', '--latent_size=2', '--lstm_units=4',
        '--decoder_units=8', '--decoder_channels=2', '--evaluation_samples=1', '--batch_size=20',
    ]  # fmt: skip

    def run(words, code):
        done = subprocess.run(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=600,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        assert 'Traceback' not in done.stdout
        return done.stdout

    lines = [line for line in run(command, 1).splitlines() if 'error: ' in line]
    said = {line.partition('error: ')[2] for line in lines}
    assert len(said) == 1, said
    prepare = shlex.split(said.pop().partition('first, on one machine, run ')[2])
    run([sys.executable, *prepare[1:]], 0)
    log = run(command, 0)
    assert log.count(f'from the weights of {old} (model.ckpt-4)') == 1
    given = tiny.variables(os.path.join(old, 'model.ckpt-4'))
    end = tiny.variables(listing.latest(str(tmp_path / 'run')))
    assert end['global_step'] >= 300
    for name in given:
        if name[:9] not in ('global_st', 'optimizer'):
            np.testing.assert_allclose(end[name], given[name], atol=1e-20, err_msg=name)
