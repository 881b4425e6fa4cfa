"""Tests of the lock that keeps a second training out of a folder."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from trainer.base.errors import UserError
from trainer.checkpoints import run_lock

HOLD = """
import sys, time
from trainer.checkpoints import run_lock
with run_lock.held(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


def test_a_second_one_is_told_who_has_it(tmp_path):
    folder = str(tmp_path / 'run')
    with run_lock.held(folder):
        owner = r'--model_dir={} is in use by process {} on '.format(folder, os.getpid())
        with pytest.raises(UserError, match=owner), run_lock.held(folder):
            pass
    with run_lock.held(folder):
        pass


def test_a_dead_process_does_not_keep_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    try:
        assert holder.stdout.readline() == b'held\n'
        owner = 'process {} '.format(holder.pid)
        with pytest.raises(UserError, match=owner), run_lock.held(str(tmp_path)):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with run_lock.held(str(tmp_path)):
        pass


def test_a_bucket_has_none():
    with run_lock.held('gs://bucket/run'), run_lock.held('gs://bucket/run'):
        pass


def test_a_file_system_without_locks_is_said_to_be_so(tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(run_lock.fcntl, 'flock', flock)
    with run_lock.held(str(tmp_path)):
        pass
    assert 'cannot be locked' in capsys.readouterr().err
