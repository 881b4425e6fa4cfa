"""The parts of the benchmark that measure whole runs of `python -m trainer.task`."""

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

import psutil

from scripts import ROOT
from scripts.benchmark import comparison as contest
from scripts.benchmark.timed_steps import peak_megabytes
from trainer.base import cores
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data.dataset import PreparedDataset
from trainer.settings.table import HParams
from trainer.training import results

SECONDS = ('training_seconds', 'wall_seconds', 'cpu_seconds')


def machine() -> Dict[str, Any]:
    """Returns the date and what the benchmark runs on."""
    with open('/proc/cpuinfo') as f:
        names = [line.split(':', 1)[1].strip() for line in f if line.startswith('model name')]
    return {
        'date': datetime.date.today().isoformat(),
        'cores': cores.available(),
        'cpu': names[0] if names else 'an unknown CPU',
    }


def _command(model_dir: str, data_dir: str, max_steps: int, summary_steps: int) -> List[str]:
    return [
        sys.executable, '-m', 'trainer.task', '--model_dir=' + model_dir, '--data_dir=' + data_dir,
        '--max_steps={}'.format(max_steps), '--save_summary_steps={}'.format(summary_steps),
    ]  # fmt: skip


def _popen(command: List[str], **streams: Any) -> subprocess.Popen:
    environment = dict(os.environ, PYTHONPATH=ROOT)
    return subprocess.Popen(command, env=environment, universal_newlines=True, **streams)


def _wait_for_peak(process: subprocess.Popen) -> float:
    """Waits for a process; returns the peak megabytes of it or of one of its children.

    Linux counts the process that started it in: this one, which is smaller.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return usage.ru_maxrss / 1024


def run_task(
    model_dir: str,
    data_dir: str,
    max_steps: int,
    summary_steps: int = HParams.save_summary_steps,
) -> float:
    """Runs `trainer.task` to its end; returns its peak memory in megabytes.

    Raises:
      UserError: it failed.
    """
    process = _popen(
        _command(model_dir, data_dir, max_steps, summary_steps), stdout=subprocess.DEVNULL
    )
    peak = _wait_for_peak(process)
    if process.returncode:
        raise UserError('trainer.task ended with code {}, see above.'.format(process.returncode))
    return peak


def memory(
    model_dir: str,
    data_dir: str,
    max_steps: int,
    summary_steps: int = HParams.save_summary_steps,
) -> Dict[str, Any]:
    """Returns the peak memory of a run and the share of its time spent in training steps."""
    peak = run_task(model_dir, data_dir, max_steps, summary_steps)
    with open(os.path.join(model_dir, results.FILE_NAME)) as f:
        record = json.load(f)
    values = {name: record[name] for name in ('training_time_share', *SECONDS)}
    return dict(values, max_steps=max_steps, peak_megabytes=peak)


def startup(
    params: HParams, data: PreparedDataset, torch_python: str, rounds: int
) -> Dict[str, Any]:
    """Returns the row of what it takes from a new process to the end of its first step."""
    ours, torch = contest.Answers('trainer.task'), contest.Answers('torch_eager:training')
    for number in range(rounds + 1):
        say('  round {} of {}'.format(number, rounds))
        turns = [_start_task(params.data_dir), _start_torch(torch.name, params, data, torch_python)]
        if number:  # the first one brought the files into memory
            ours.turns.append(turns[0])
            torch.turns.append(turns[1])
    return contest.row_of({'ours': [ours], 'torch': [torch]}, statistics.median)


def _start_task(data_dir: str) -> Dict[str, Any]:
    """Starts a training, and ends it as soon as its progress line tells of the first step."""
    with tempfile.TemporaryDirectory() as folder:
        command = _command(os.path.join(folder, 'model'), data_dir, 1, HParams.save_summary_steps)
        start = time.perf_counter()
        process = _popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            for line in process.stderr:
                if line.startswith('step 1/1'):
                    return _answer(start, process.pid)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
    raise UserError('trainer.task ended with code {}.'.format(process.returncode))


def _start_torch(
    name: str, params: HParams, data: PreparedDataset, torch_python: str
) -> Dict[str, Any]:
    start = time.perf_counter()
    contestant = contest.start(name, params, data, torch_python)
    try:
        contestant.take_turn(1)
        return _answer(start, contestant.pid)
    finally:
        contestant.close()


def _answer(start: float, pid: int) -> Dict[str, Any]:
    """What `turns.turns` would answer of a process that began at `start`."""
    milliseconds = 1e3 * (time.perf_counter() - start)
    cpu = psutil.Process(pid).cpu_times()
    return {
        'milliseconds': [milliseconds],
        'cpu_seconds': cpu.user + cpu.system,
        'peak_megabytes': peak_megabytes(pid),
    }
