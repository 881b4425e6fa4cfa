"""What a training shows and measures, also where its session is lost and made anew."""

import fcntl
import os
import re
import select
import struct
import sys
import termios
import types

import pytest
import tensorflow as tf

from trainer.monitoring import event_files
from trainer.settings.table import HParams
from trainer.training import progress as progress_module
from trainer.training.hooks import CheckpointSaverHook, ProgressHook
from trainer.training.progress import TrainingProgress

BATCH = 20


class Steps(tf.train.SessionRunHook):
    """Steps of 2 s and 3 s between them, on a clock of its own; one finds its session lost."""

    def __init__(self, lost_at):
        self.now = 0.0
        self._runs, self._lost_at = 0, lost_at

    def before_run(self, run_context):
        self._runs += 1
        if self._runs == self._lost_at:
            self.now += 10.0
            raise tf.errors.UnavailableError(None, None, 'the parameter server is gone')
        self.now += 2.0

    def after_run(self, run_context, run_values):
        self.now += 3.0


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Makes 3 steps, loses the session and with it all steps, and makes 6 more."""

    def train():
        steps = Steps(lost_at=4)
        monkeypatch.setattr(
            progress_module, 'time', types.SimpleNamespace(perf_counter=lambda: steps.now)
        )
        params = HParams(
            model_dir=str(tmp_path), batch_size=BATCH, max_steps=8, save_summary_steps=2
        )
        progress = TrainingProgress(params)
        with tf.Graph().as_default():
            step = tf.train.create_global_step()
            tf.add_to_collection(tf.GraphKeys.LOSSES, tf.constant(100.0))
            train_op = step.assign_add(1)
            with tf.train.MonitoredSession(
                hooks=[ProgressHook(progress, params), steps]
            ) as session:
                for _ in range(9):
                    session.run(train_op)
        return progress

    return train


def test_times_go_on_where_a_session_is_made_anew(trained, tmp_path, capsys):
    hook = trained()
    assert hook.first_step == 0
    # Nine steps, the eight times between them, and the step that was lost.
    assert hook.step_seconds == 9 * 2
    assert hook.elapsed_seconds == 9 * 2 + 8 * 3 + 10
    rates = [
        value.simple_value
        for name in os.listdir(str(tmp_path))
        for event in tf.train.summary_iterator(str(tmp_path / name))
        for value in event.summary.value
        if value.tag == event_files.EXAMPLES_PER_SECOND and value.HasField('simple_value')
    ]
    assert rates == [BATCH / 2] * 4
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('step')]
    # Of the last session: three steps took 12 s and five are left, or 22 s and three.
    assert [line.rpartition(', ')[2] for line in lines[-2:]] == ['00:20 left', '00:13 left']
    assert all(' {} examples/s'.format(BATCH // 2) in line for line in lines)


def test_rate_and_time_left_are_those_of_late(tmp_path, monkeypatch, capsys):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        progress_module, 'time', types.SimpleNamespace(perf_counter=lambda: clock.now)
    )
    params = HParams(model_dir=str(tmp_path), batch_size=BATCH, max_steps=100, save_summary_steps=0)

    class Slow(tf.train.SessionRunHook):
        """A step of five minutes, then steps of a second."""

        def before_run(self, run_context):
            clock.now += 1.0 if clock.now else 300.0

    with tf.Graph().as_default():
        step = tf.train.create_global_step()
        tf.add_to_collection(tf.GraphKeys.LOSSES, tf.constant(100.0))
        train_op = step.assign_add(1)
        hooks = [ProgressHook(TrainingProgress(params), params), Slow()]
        with tf.train.MonitoredSession(hooks=hooks) as session:
            for _ in range(51):
                session.run(train_op)
    last = capsys.readouterr().err.splitlines()[-1]
    # 50 steps are left, or 49; by the mean of all it would be five minutes.
    assert re.search('negative ELBO 100.00 nats, 20 examples/s, 00:(49|5.) left$', last)


def test_a_bar_goes_on_where_a_session_is_made_anew(trained, monkeypatch):
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    with open(writing, 'w') as terminal:
        monkeypatch.setattr(sys, 'stderr', terminal)
        trained()
        monkeypatch.undo()
        shown = ''
        while select.select([reading], [], [], 0.2)[0]:  # A read gives a part of it.
            shown += os.read(reading, 100000).decode()
    os.close(reading)
    assert 'step 6/8  75%' in shown
    assert shown.count('starting') == 1
    assert '\x1b[A' not in shown  # The way to a bar above.


def test_the_graph_is_written_once_where_a_session_is_lost_before_its_first_checkpoint(tmp_path):
    folder = str(tmp_path)
    events = event_files.open_event_file(folder)
    with tf.Graph().as_default():
        train_op = tf.train.create_global_step().assign_add(1)
        saver = CheckpointSaverHook(folder, save_steps=100)
        creator = tf.train.ChiefSessionCreator(checkpoint_dir=folder)
        with tf.train.MonitoredSession(creator, [saver, Steps(lost_at=2)]) as session:
            for _ in range(2):
                session.run(train_op)
        events.flush()
    graphs = [
        event
        for name in os.listdir(folder)
        if name.startswith('events')
        for event in tf.train.summary_iterator(os.path.join(folder, name))
        if event.HasField('graph_def')
    ]
    assert len(graphs) == 1
