"""What becomes of a program whose terminal or reader goes away: none of its work is lost."""

import contextlib
import io
import logging
import os
import pty
import signal
import subprocess
import sys
import time
import warnings

import pytest
import tensorflow as tf
import tqdm

from tests.support.paths import ROOT
from trainer.base import program as programs
from trainer.base import terminal
from trainer.base.console import say


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, 'w', 1)


def lost_terminal():
    master, slave = pty.openpty()
    os.close(master)
    return os.fdopen(slave, 'w', 1)


def full_disk():
    return open('/dev/full', 'w', 1)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def missing():
    """As in a process that was started without."""


LOST = [broken_pipe, lost_terminal, full_disk, closed, missing]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('lost', LOST)
def test_messages_that_cannot_be_written_are_dropped(monkeypatch, lost):
    monkeypatch.setattr(sys, 'stdout', lost())
    monkeypatch.setattr(sys, 'stderr', lost())
    done = []
    with terminal.guarded(must_print=False):
        for _ in range(3):
            say('a line')
            print('a table' * 10000, flush=True)
            warnings.warn('a warning', stacklevel=2)
            logging.getLogger('tensorflow').error('an error of TensorFlow')
            with tqdm.tqdm(total=3, file=sys.stderr) as bar:
                bar.update()
                say('above the bar')
            done.append(1)
    assert len(done) == 3
    if sys.stdout is not None and not sys.stdout.closed:
        with contextlib.suppress(OSError):  # Of the full disk, which may have room again.
            sys.stdout.close()


def test_a_table_for_no_reader_ends_its_program_quietly(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdout', broken_pipe())
    with pytest.raises(SystemExit) as ended:
        programs.run(lambda argv: print('a table'), ['program'])
    assert ended.value.code == 141
    assert capsys.readouterr().err == ''


def test_a_table_on_a_full_disk_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdout', full_disk())
    with pytest.raises(SystemExit) as ended:
        programs.run(lambda argv: print('a table'), ['program'])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        'error: the output cannot be written (No space left on device).\n'
    )


@pytest.mark.parametrize('lost', LOST)
def test_a_training_s_code_does_not_tell_of_its_table(monkeypatch, lost):
    monkeypatch.setattr(sys, 'stdout', lost())
    with pytest.raises(SystemExit) as ended:
        programs.run(lambda argv: print('a table'), ['program'], must_print=False)
    assert not ended.value.code


def test_what_can_be_written_is(capsys):
    with terminal.guarded(must_print=True):
        print('a table', end='')
        say('a line')
    assert capsys.readouterr() == ('a table', 'a line\n')


def test_a_path_that_the_terminal_has_no_letters_for_is_printed(monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(content, encoding='ascii'))
    with terminal.guarded(must_print=True):
        print('r\xfcn')
    assert content.getvalue() == b'r\\xfcn\n'


# Real processes.


def shell(command):
    """The result of bash, whose code is that of the program in front of the pipe, if not 0."""
    return subprocess.run(
        ['bash', '-c', 'set -o pipefail; ' + command],
        cwd=ROOT,
        env=dict(os.environ, PYTHON=sys.executable),
        capture_output=True,
        text=True,
    )


def test_a_program_without_tensorflow_ends_quietly_too():
    done = shell('"$PYTHON" scripts/maintain/audit.py --all | head -n 1')
    assert (done.returncode, done.stderr) == (141, '')
    assert done.stdout.count('\n') == 1


@pytest.mark.slow
@pytest.mark.parametrize('program', ['generate', 'task', 'predict'])
def test_help_for_head(program):
    done = shell('"$PYTHON" -m trainer.{} --help | head -n 1'.format(program))
    assert done.stderr == ''


@pytest.mark.slow
def test_a_training_whose_reader_has_had_enough_goes_on(tmp_path):
    done = shell(
        '"$PYTHON" -m tests.support.tiny_program "{}" 120 40 2>&1 | head -n 2'.format(tmp_path)
    )
    assert done.returncode == 0
    assert done.stdout.count('\n') == 2
    assert step_in(tmp_path) == 120


def step_in(folder):
    path = tf.train.latest_checkpoint(str(folder / 'run'))
    return int(path.rpartition('-')[2]) if path else -1


class OnTerminal:
    """A training with a terminal of its own, that is its controlling one."""

    def __init__(self, folder, *before, interval=40):
        self.folder = folder
        pid, self._master = pty.fork()
        if pid == 0:
            os.chdir(str(folder))  # nohup writes a file there.
            os.environ['PYTHONPATH'] = ROOT
            command = [*before, sys.executable, '-m', 'tests.support.tiny_program', str(folder)]
            command += ['1000000', str(interval)]
            os.execvp(command[0], command)
        self._pid = pid

    def wait_for_step(self, step):
        deadline = time.time() + 900
        while step_in(self.folder) < step:
            assert time.time() < deadline
            self._read()

    def wait_for_text(self, text):
        seen = b''
        while text not in seen:
            seen += os.read(self._master, 10000)

    def _read(self):
        if self._master is None:
            time.sleep(0.1)
            return
        with contextlib.suppress(OSError):
            os.read(self._master, 10000)

    def hang_up(self):
        os.close(self._master)
        self._master = None

    def tell(self, number):
        os.kill(self._pid, number)

    def code(self):
        return os.WEXITSTATUS(os.waitpid(self._pid, 0)[1])


@pytest.mark.slow
def test_a_training_whose_terminal_is_closed_saves_its_step(tmp_path):
    training = OnTerminal(tmp_path, interval=1000000)
    training.wait_for_text(b'nats')
    training.hang_up()
    assert training.code() == 128 + signal.SIGHUP
    assert step_in(tmp_path) > 0


@pytest.mark.slow
def test_a_training_under_nohup_outlives_its_terminal(tmp_path):
    # nohup writes into a file where the terminal was; this one keeps it.
    ignoring = ['bash', '-c', 'trap "" HUP; exec "$@"', 'bash']
    training = OnTerminal(tmp_path, *ignoring)
    training.wait_for_step(40)
    training.hang_up()
    training.wait_for_step(step_in(tmp_path) + 80)
    training.tell(signal.SIGHUP)
    training.wait_for_step(step_in(tmp_path) + 40)
    training.tell(signal.SIGTERM)
    assert training.code() == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_training_under_nohup_itself(tmp_path):
    training = OnTerminal(tmp_path, 'nohup')
    training.wait_for_step(40)
    training.hang_up()
    training.wait_for_step(step_in(tmp_path) + 80)
    training.tell(signal.SIGTERM)
    assert training.code() == 128 + signal.SIGTERM
