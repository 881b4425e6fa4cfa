"""Processes that run steps on demand and take turns; timed_steps.py is their side of it."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time

import psutil

from scripts import ROOT
from scripts.benchmark.timed_steps import peak_megabytes
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.training import towers

# By how the kinds of processes begin.
_MODULES = {
    '': 'in_tensorflow',
    'torch': 'in_pytorch',
    'jax': 'in_jax',
    'keras': 'in_tensorflow_2',
    'client': 'in_other_runtimes',
}
_STEPS = {'gemm': 3}  # each takes as long as many of the others


class TimedProcess:
    """A process that waits until steps are wanted of it, on the first `cores`, or on all."""

    def __init__(self, name, command, cores=None):
        # Shown only if it fails: several of them would talk at once.
        self.name, self._errors = name, tempfile.TemporaryFile('w+')  # noqa: SIM115
        chosen = sorted(os.sched_getaffinity(0))[:cores]
        self._process = subprocess.Popen(
            command, text=True, env=dict(os.environ, PYTHONPATH=ROOT), stderr=self._errors,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, chosen),
        )  # fmt: skip
        self.pid = self._process.pid

    def take_turn(self, steps):
        """Returns the answer to a turn of `steps`; raises UserError where the process has ended."""
        with contextlib.suppress(BrokenPipeError):
            print(steps, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            sys.stderr.write(self._errors.read())
            raise UserError('{} ended with code {}, see above.'.format(self.name, code))
        return json.loads(line)

    def close(self):
        self._process.communicate()
        self._errors.close()


class _Task(TimedProcess):
    """A `trainer.task`, whose turn ends when its progress line tells of the first step."""

    def take_turn(self, _):
        if not any(line.startswith('step 1/1') for line in self._process.stdout):
            raise UserError('trainer.task ended with code {}.'.format(self._process.wait()))

    def close(self):
        self._process.kill()
        super().close()


class FirstStep:
    """Starts a process in each turn, which lasts until the end of its first step."""

    def __init__(self, starter):
        self._starter = starter

    def take_turn(self, _):
        began = time.perf_counter()
        with contextlib.closing(self._starter()) as process:
            process.take_turn(1)
            seconds, cpu = time.perf_counter() - began, psutil.Process(process.pid).cpu_times()
            turn = {'milliseconds': [1e3 * seconds], 'cpu_seconds': cpu.user + cpu.system}
            return dict(turn, peak_megabytes=peak_megabytes(process.pid))

    def close(self):
        pass


def start(name, params, data, python='', cores=None):
    """Starts `what`; by another `python` it is `torch_eager:what`, `jax_unrolled:`, `client:`..."""
    if name == 'trainer.task':
        command = [sys.executable, '-m', name, '--max_steps=1', '--data_dir=' + params.data_dir]
        command.append('--model_dir={}-{}'.format(params.model_dir, time.time_ns()))
        return _Task(name, ['bash', '-c', 'exec "$@" 2>&1 >/dev/null', '-', *command])
    kind, _, what = name.rpartition(':')
    module = _MODULES[kind.split('_')[0]]
    settings = {'params': dataclasses.asdict(params), 'data': dataclasses.asdict(data)}
    settings = repr(dict(settings, threads=towers.count(params)))
    command = [python if kind else sys.executable, '-m', 'scripts.benchmark.' + module, kind, what]
    return TimedProcess(name, command + [settings], cores)


def in_turns(starts, steps, rounds, warm_up):
    """Starts and warms processes, lets them take turns; returns the answers by the starts' keys."""
    turns = {key: [] for key in starts}
    with contextlib.ExitStack() as stack:
        processes = {}
        for key, starter in starts.items():
            say('  starting {}'.format(key))
            processes[key] = stack.enter_context(contextlib.closing(starter()))
            processes[key].take_turn(_STEPS.get(key, warm_up))
        for number in range(rounds):
            if number % 4 == 0:
                say('  round {} of {}'.format(number + 1, rounds))
            for key, process in processes.items():
                turns[key].append(process.take_turn(_STEPS.get(key, steps)))
    return turns
