"""Who is waited for in a cluster, how such a process ends, and whose port is taken."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.servers import silent
from tests.training.test_ending import Run
from trainer.base.errors import UserError
from trainer.cluster import lookout, tf_config
from trainer.cluster.lookout import Lookout
from trainer.training import early_stopping, run


def nobody():
    """An address where nobody is."""
    with silent() as address:
        return address


@pytest.fixture(scope='module')
def server():
    return tf.train.Server.create_local_server().target.rpartition('/')[2]


def task(kind, index=0, **hosts):
    config = {'cluster': hosts, 'task': {'type': kind, 'index': index}}
    return tf_config.join({'TF_CONFIG': json.dumps(config)})


def test_only_a_server_of_tensorflow_answers(server, monkeypatch):
    assert lookout.answers(server)
    monkeypatch.setattr(lookout, '_SECONDS_TO_ANSWER', 0.2)
    with silent() as address:
        assert not lookout.answers(address)
    for address in (nobody(), 'no-such-host.invalid:1', 'a..b:1', '[::1]:1'):
        assert not lookout.answers(address)


def said_while_waiting(of, folder, capsys, has_ended=lambda: False, seconds=20):
    """The first line that is said within `seconds`, '' for none."""
    said = ''
    end = time.monotonic() + seconds
    with Lookout(of, str(folder), has_ended, seconds=0.05):
        while '\n' not in said and time.monotonic() < end:
            time.sleep(0.01)
            said += capsys.readouterr().err
    return said.partition('\n')[0]


def test_every_type_of_process_says_whom_it_waits_for(server, tmp_path, capsys):
    a, b, c = nobody(), nobody(), nobody()
    spec = {'chief': [a], 'worker': [b], 'ps': [server, c]}
    for kind in ('chief', 'worker'):
        said = said_while_waiting(task(kind, **spec), tmp_path, capsys)
        assert said.startswith('waiting for ps 1 at {} ('.format(c))
    # The chief makes the weights, without which a worker's session is not ready.
    spec = {'chief': [a], 'worker': [b], 'ps': [server]}
    assert said_while_waiting(task('worker', **spec), tmp_path, capsys).startswith(
        'waiting for chief 0 at {} ('.format(a)
    )
    assert said_while_waiting(task('ps', **spec), tmp_path, capsys).startswith(
        'waiting for chief 0 at {} ('.format(a)
    )
    assert said_while_waiting(task('evaluator', **spec), tmp_path, capsys).startswith(
        'waiting for chief 0 at {} to save a checkpoint in {} ('.format(a, tmp_path)
    )
    assert said_while_waiting(task('ps', **spec), tmp_path, capsys, lambda: True, 0.3) == ''


def test_nobody_is_waited_for_where_all_answer_and_steps_are_made(server, tmp_path, capsys):
    spec = {
        'chief': [server],
        'worker': [nobody()],
        'ps': [server.replace('localhost', '127.0.0.1')],
    }
    ps = task('ps', **spec)
    assert said_while_waiting(ps, tmp_path, capsys, seconds=0.3) == ''
    chief = Lookout(task('chief', **spec), str(tmp_path), lambda: False, seconds=0.05)
    with chief:
        chief.session_began()
        time.sleep(0.3)
    assert capsys.readouterr().err == ''


def test_a_worker_that_tensorflow_lets_give_up_says_who_did_not_come(tmp_path):
    worker = task('worker', chief=['a:1'], worker=['b:1'], ps=[nobody()])
    given_up = pytest.raises(UserError, match='gave up waiting for ps 0 at 127')
    with given_up, Lookout(worker, str(tmp_path), lambda: False):
        raise tf.errors.DeadlineExceededError(None, None, 'not ready after 7200 secs')


@pytest.mark.parametrize('kind', ['chief', 'worker', 'ps'])
def test_a_port_that_is_taken_is_named_before_anything_is_done(kind, tmp_path):
    folder = tmp_path / 'run'
    with silent() as address:
        spec = dict({'chief': ['a:1'], 'worker': ['b:1'], 'ps': ['c:1']}, **{kind: [address]})
        with pytest.raises(UserError) as refused:
            run.run(tiny.params_in(folder), task(kind, **spec))
    message = str(refused.value)
    assert '{} 0 the address {}, but port {} '.format(kind, address, address[10:]) in message
    assert '\n' not in message
    assert not folder.exists()


def test_a_port_that_is_taken_at_the_last_moment_is_named_too(tmp_path):
    with silent() as address:
        chief = task('chief', chief=[address], ps=['c:1'])
        config = run.make_estimator(tiny.params_in(tmp_path), chief).config
        refused = pytest.raises(UserError, match='port {} of this machine'.format(address[10:]))
        with refused, Lookout(chief, str(tmp_path), lambda: False):
            tf.train.Server(config.cluster_spec, job_name='chief', task_index=0)


def test_parameter_servers_stay_while_the_chief_evaluates_its_last_checkpoint(server, tmp_path):
    alone = task('ps', chief=[server], ps=['b:1'])
    with_evaluator = task('ps', chief=[server], ps=['b:1'], evaluator=['c:1'])
    deserted = task('ps', chief=[nobody()], ps=['b:1'])

    def leaving(params):
        return [run.weights_are_free(params, one) for one in (alone, with_evaluator, deserted)]

    with tiny.no_saved_models():
        training = Run(tmp_path)
        training.evaluate(50, 5.0)
        assert leaving(training.params) == [False, False, False]
        training.save(100)
        assert leaving(training.params) == [False, True, True]
        training.evaluate(100, 6.0)
        assert leaving(training.params) == [True, True, True]
        training.save(103)  # What a worker did meanwhile is evaluated too.
        assert leaving(training.params) == [False, True, True]

        stopping = Run(tmp_path / 'other', early_stopping_patience=1)
        stopping.evaluate(10, 5.0)
        stopping.evaluate(20, 6.0)
        stopping.save(23)
        assert leaving(stopping.params) == [False, False, False]
        early_stopping.note_early_stop(stopping.params)
        assert leaving(stopping.params) == [True, True, True]


# A training that says sooner than after half a minute whom it waits for.
IMPATIENT = """
import runpy
from trainer.cluster.lookout import Lookout
Lookout.__init__.__defaults__ = (3.0,)
runpy.run_module('trainer.task', None, '__main__', True)
"""


class Process:
    """One task of a cluster on this machine, with a small model."""

    def __init__(self, kind, hosts, data_dir, folder, *arguments):
        config = {'cluster': hosts, 'task': {'type': kind, 'index': 0}}
        self.log = str(folder / (kind + '.log'))
        command = [sys.executable, '-c', IMPATIENT, '--data_dir=' + data_dir] + [
            '--model_dir={}'.format(folder / 'run'), '--num_threads=1', '--latent_size=2',
            '--lstm_units=4', '--decoder_units=4', '--decoder_channels=2', *arguments,
        ]  # fmt: skip
        with open(self.log, 'w') as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=dict(os.environ, TF_CONFIG=json.dumps(config)),
                # A shell in the background has SIGINT ignored, and would hand that on.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def said(self):
        with open(self.log) as f:
            return f.read()

    def wait_for(self, text):
        end = time.monotonic() + 300
        while text not in self.said() and time.monotonic() < end and self._process.poll() is None:
            time.sleep(0.5)
        assert text in self.said(), self.said()

    def send(self, number):
        self._process.send_signal(number)

    def code(self):
        return self._process.wait(60)

    def kill(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start(small_mnist_data_dir, tmp_path):
    started = []

    def one(kind, hosts, *arguments):
        started.append(Process(kind, hosts, small_mnist_data_dir, tmp_path, *arguments))
        return started[-1]

    yield one
    for process in started:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_processes_that_wait_say_for_whom_and_end_when_told(number, code, start):
    hosts = {'chief': [nobody()], 'worker': [nobody()], 'ps': [nobody()], 'evaluator': [nobody()]}
    lines = {
        'chief': 'waiting for ps 0 at {} ('.format(hosts['ps'][0]),
        'worker': 'waiting for ps 0 at {} ('.format(hosts['ps'][0]),
        'evaluator': 'waiting for chief 0 at {} to save'.format(hosts['chief'][0]),
    }
    processes = {kind: start(kind, hosts) for kind in lines}
    for kind, line in lines.items():
        processes[kind].wait_for(line)
    for process in processes.values():
        process.send(number)
    assert {process.code() for process in processes.values()} == {code}
    for process in processes.values():
        assert 'Traceback' not in process.said()
        assert 'the same command goes on from what was last saved' in process.said()


@pytest.mark.slow
@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_chief_that_has_lost_its_ps_says_so_and_ends_when_told(number, code, start):
    hosts = {'chief': [nobody()], 'ps': [nobody()]}
    ps = start('ps', hosts)
    chief = start('chief', hosts, '--max_steps=1000000', '--save_checkpoints_steps=1000000')
    chief.wait_for('examples/s')
    ps.kill()
    chief.wait_for('waiting for ps 0 at {} ('.format(hosts['ps'][0]))
    chief.send(number)
    assert chief.code() == code
    assert 'Traceback' not in chief.said()


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['chief', 'ps'])
def test_a_process_whose_port_is_taken_ends_with_a_sentence(kind, start):
    with silent() as address:
        process = start(kind, dict({'chief': [nobody()], 'ps': [nobody()]}, **{kind: [address]}))
        assert process.code() == 1
    assert process.said().startswith('error: TF_CONFIG gives {} 0 the address'.format(kind))
    assert process.said().count('\n') == 1
