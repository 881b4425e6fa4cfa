"""Tests of what becomes of a process that is told to end."""

import contextlib
import ctypes
import os
import signal
import threading
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from trainer.base import program, signals
from trainer.base.signals import Interrupted
from trainer.checkpoints import run_lock
from trainer.cluster.lookout import Lookout
from trainer.cluster.tf_config import LOCAL, Task
from trainer.training import hooks, run
from trainer.training.hooks import CheckpointSaverHook, FinishStepHook


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    'number, code, word',
    [
        (signal.SIGTERM, 143, 'terminated'),
        (signal.SIGINT, 130, 'interrupted'),
        (signal.SIGHUP, 129, 'hung up'),
    ],
)
def test_a_program_ends_at_once_with_a_sentence_and_the_code_of_the_signal(
    capsys, number, code, word
):
    def main(argv):
        send(number)
        raise AssertionError('it went on')

    # Not ignored, as pytest may have it from the shell that started it.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            program.run(main, ['program'])
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert ended.value.code == code
    assert capsys.readouterr().err == (
        word + ': the same command goes on from what was last saved.\n'
    )


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_so(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals.handled():
            send(number)
            signals.leave_at_once()
            send(number)
    finally:
        signal.signal(number, before)


class SendAt(tf.train.SessionRunHook):
    """Sends a signal within a step."""

    def __init__(self, step, number):
        self._step, self._number = step, number

    def before_run(self, run_context):
        if run_context.session.run(tf.train.get_global_step()) == self._step - 1:
            send(self._number)


@pytest.mark.slow
def test_a_training_finishes_its_step_saves_it_and_goes_on_as_if_unbroken(
    tmp_path, monkeypatch, capsys
):
    data = tiny.write_data(tmp_path)
    unbroken, _ = tiny.trained(data, tiny.params_in(tmp_path / 'unbroken'))
    evaluated = []

    def saver(*args, **options):
        # A hook of the same session, without another way into it.
        options['listeners'].append(Listening())
        return original(*args, **options)

    class Listening(tf.train.CheckpointSaverListener):
        def after_save(self, session, global_step_value):
            evaluated.append(int(global_step_value))

    original = CheckpointSaverHook
    monkeypatch.setattr(hooks, 'CheckpointSaverHook', saver)
    finish = hooks.FinishStepHook

    class FinishStepHook(finish):
        sender = SendAt(5, signal.SIGTERM)

        def before_run(self, run_context):
            super().before_run(run_context)
            self.sender.before_run(run_context)

    monkeypatch.setattr(hooks, 'FinishStepHook', FinishStepHook)
    params = tiny.params_in(tmp_path / 'broken')

    def main(argv):
        tiny.trained(data, params)

    with pytest.raises(SystemExit) as ended:
        program.run(main, ['program'])
    assert ended.value.code == 143
    assert 'terminated: step 5 is saved, and the same command goes on from it.' in (
        capsys.readouterr().err
    )
    assert evaluated == [0, 3]  # Not that of step 5: evaluations follow the saving.

    monkeypatch.undo()
    assert int(tf.train.load_variable(params.model_dir, 'global_step')) == 5
    resumed, _ = tiny.trained(data, params)
    assert sorted(resumed) == sorted(unbroken)
    for name, value in unbroken.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_a_worker_leaves_at_once(monkeypatch, capsys):
    left = []
    monkeypatch.setattr(signals.os, '_exit', left.append)
    with signals.handled():
        signals.leave_at_once()
        send(signal.SIGTERM)
    assert left == [143]
    assert 'terminated' in capsys.readouterr().err


def test_only_the_leader_locks_the_folder(tmp_path, monkeypatch):
    """A worker or an evaluator beside the chief must not be refused."""
    locked = []
    monkeypatch.setattr(run_lock, 'held', lambda folder: locked.append(folder))
    monkeypatch.setattr(run, '_run_locked', lambda params, task, report: {})
    for kind in ('evaluator', 'worker'):
        run.run(tiny.params_in(tmp_path), Task(kind))
    assert locked == []


@pytest.fixture
def stuck():
    """Keeps the main thread in C until the process would end; returns its code."""
    library = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)  # Larger than any pthread_mutex_t.
    left = []

    def wait():
        with mock.patch.object(os, '_exit', leave):
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_unlock(mutex)

    def leave(code):
        if not left:
            left.append(code)
            library.pthread_mutex_unlock(mutex)

    return wait, left


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize('deferred', [False, True])
def test_a_process_ends_whose_main_thread_does_not_come_back(
    stuck, monkeypatch, capsys, number, code, deferred
):
    """As in a session that waits for its parameter servers, before the first step or in a later."""
    monkeypatch.setattr(signals, '_SECONDS_TO_END', 0.1)
    monkeypatch.setattr(signals, '_SECONDS_BETWEEN_LOOKS', 0.05)
    wait, left = stuck
    looks = []

    def is_hopeless():
        looks.append(1)
        return len(looks) > 5

    before = signal.signal(number, signal.SIG_DFL)
    try:
        with contextlib.suppress(Interrupted), signals.handled():
            if deferred:
                signals.finish_unless(is_hopeless)
                FinishStepHook().before_run(None)
            threading.Timer(0.1, send, [number]).start()
            wait()
    finally:
        signal.signal(number, before)
    assert left == [code]
    assert 'the same command goes on from what was last saved' in capsys.readouterr().err
    assert len(looks) == (6 if deferred else 0)


def test_a_session_that_is_lost_after_the_signal_is_no_failure():
    """Parameter servers are told to end too, and may be gone before the last step is saved."""
    lookout = Lookout(LOCAL, '', lambda: False)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Interrupted) as ended, signals.handled(), lookout:
            FinishStepHook().before_run(None)
            send(signal.SIGTERM)
            raise tf.errors.UnavailableError(None, None, 'Socket closed')
        assert ended.value.number == signal.SIGTERM
        with pytest.raises(tf.errors.UnavailableError), signals.handled(), lookout:
            raise tf.errors.UnavailableError(None, None, 'Socket closed')
    finally:
        signal.signal(signal.SIGTERM, before)
