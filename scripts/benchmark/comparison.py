"""Starts the contestants of the benchmark, lets them take turns, and compares their answers."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from scripts import ROOT
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data.dataset import PreparedDataset
from trainer.settings.table import HParams
from trainer.training import towers

TORCH = 'torch==2.13.0'
PEAK = 'gemm'  # The column that is no peer, but the machine's own rate.
_PEAK_STEPS = 3
# A percentile that so few values would decide is left out.
_FEWEST_FOR_P99 = 100


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A table of the benchmark: who takes turns, and how often.

    Attributes:
      unit: what a step does, for the table's heading; `{}` stands for the batch size.
      columns: contestants by column; of several the fastest counts. The first column is what all
        others are divided by.
      steps: steps of a turn.
      rounds: turns of each contestant.
      quick_rounds: the same for --quick.
      warm_up: steps before the first turn.
      batch_sizes: a row of the table each.
      statistic: what stands for a turn when turns are compared pair by pair.
    """

    unit: str
    columns: Dict[str, List[str]]
    steps: int
    rounds: int
    quick_rounds: int = 3
    warm_up: int = 30
    batch_sizes: List[int] = dataclasses.field(default_factory=lambda: [128])
    statistic: Callable[[List[float]], float] = statistics.median


class Answers:
    """What a contestant answered so far, turn by turn, as `turns.turns` describes it."""

    def __init__(self, name: str):
        self.name = name
        self.turns: List[Dict[str, Any]] = []

    def all_milliseconds(self) -> List[float]:
        return [value for turn in self.turns for value in turn['milliseconds']]


class Contestant(Answers):
    """A process that runs steps on demand."""

    def __init__(self, name: str, command: List[str], cores: Optional[int] = None):
        super().__init__(name)
        # Shown only if it fails: several of them would talk at once.
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115  (close() closes it)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            universal_newlines=True,
            env=dict(os.environ, PYTHONPATH=ROOT),
            preexec_fn=None if cores is None else lambda: _use_cores(cores),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def take_turn(self, steps: int) -> Dict[str, Any]:
        """Runs `steps` steps; returns the answer.

        Raises:
          UserError: the process has ended.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write('{}\n'.format(steps))
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            sys.stderr.write(self._errors.read())
            raise UserError('{} ended with code {}, see above.'.format(self.name, code))
        return json.loads(line)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def _use_cores(count: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def start(
    name: str,
    params: HParams,
    data: PreparedDataset,
    peer_python: str = '',
    cores: Optional[int] = None,
) -> Contestant:
    """Starts `what`, on the first `cores`.

    Args:
      name: `what` is run by this Python, and by `peer_python` it is `torch_eager:what`,
        `torch_compiled:what` and `client:what`.
    """
    settings = {
        'params': dataclasses.asdict(params),
        'threads': towers.count(params),
        'data': dataclasses.asdict(data),
    }
    kind, _, what = name.rpartition(':')
    command = [sys.executable, '-m', 'scripts.benchmark.in_tensorflow', what]
    if kind == 'client':
        command = [peer_python, '-m', 'scripts.benchmark.in_other_runtimes', what]
    elif kind:
        command = [peer_python, '-m', 'scripts.benchmark.in_pytorch', kind, what]
    return Contestant(name, command + [json.dumps(settings)], cores)


def compare(
    comparison: Comparison, params: HParams, data: PreparedDataset, peer_python: str
) -> Dict[str, Any]:
    """Lets all contestants take turns at one batch size; returns the row of the table."""
    with contextlib.ExitStack() as stack:
        columns: Dict[str, List[Answers]] = {}
        for column, names in comparison.columns.items():
            for name in names:
                say('  starting {}'.format(name))
                contestant = start(name, params, data, peer_python)
                stack.callback(contestant.close)
                contestant.take_turn(_PEAK_STEPS if column == PEAK else comparison.warm_up)
                columns.setdefault(column, []).append(contestant)
        for number in range(comparison.rounds):
            if number % 4 == 0:
                say('  round {} of {}'.format(number + 1, comparison.rounds))
            for column, contestants in columns.items():
                for contestant in contestants:
                    steps = _PEAK_STEPS if column == PEAK else comparison.steps
                    contestant.turns.append(contestant.take_turn(steps))
    return row_of(columns, comparison.statistic)


def row_of(
    columns: Dict[str, List[Answers]], statistic: Callable[[List[float]], float]
) -> Dict[str, Any]:
    """Turns the answers into times of a step, and ratios pair by pair against the first column."""
    row: Dict[str, Any] = {}
    of_turns: Dict[str, List[float]] = {}
    for column, contestants in columns.items():
        best = min(contestants, key=lambda peer: statistics.median(peer.all_milliseconds()))
        milliseconds = best.all_milliseconds()
        cpu = sum(turn['cpu_seconds'] for turn in best.turns)
        values = {
            'contestant': best.name,
            'median_ms': statistics.median(milliseconds),
            'mean_ms': statistics.mean(milliseconds),
            'p10_ms': float(np.percentile(milliseconds, 10)),
            'p99_ms': _p99(milliseconds),
            'cpu_ms': 1e3 * cpu / len(milliseconds),
            'peak_megabytes': best.turns[-1]['peak_megabytes'],
            'turns_ms': [statistic(turn['milliseconds']) for turn in best.turns],
            'turns_p99_ms': [_p99(turn['milliseconds']) for turn in best.turns],
        }
        row.update({'{}_{}'.format(column, key): value for key, value in values.items()})
        of_turns[column] = values['turns_ms']
    ours, *peers = [column for column in of_turns if column != PEAK]
    for peer in peers:
        row['ratio_vs_' + peer] = pairwise_ratio(of_turns[peer], of_turns[ours])
        if row[ours + '_turns_p99_ms'][0] is not None:
            row['p99_ratio_vs_' + peer] = pairwise_ratio(
                row[peer + '_turns_p99_ms'], row[ours + '_turns_p99_ms']
            )
    return row


def pairwise_ratio(ones: List[float], others: List[float]) -> float:
    """Returns the median of the quotients of what was measured side by side."""
    return statistics.median([one / other for one, other in zip(ones, others)])


def _p99(values: List[float]) -> Optional[float]:
    return float(np.percentile(values, 99)) if len(values) >= _FEWEST_FOR_P99 else None


def show(row: Dict[str, Any], columns: List[str]) -> None:
    """Prints a line for each column: milliseconds of a step, CPU, memory, ratio to the first."""
    line = '  {:<34} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>10} {:>8}'
    heading = ['median ms', 'mean', '10th %', '99th %', 'CPU ms', 'peak MB']
    heading += ['/ ' + columns[0], '99th %']
    print(line.format('', *heading))
    for column in columns:
        numbers = ('median_ms', 'mean_ms', 'p10_ms', 'p99_ms', 'cpu_ms')
        cells = [_number(row['{}_{}'.format(column, name)]) for name in numbers]
        cells.append('{:.0f}'.format(row[column + '_peak_megabytes']))
        for ratio in ('ratio_vs_', 'p99_ratio_vs_'):
            cells.append('{:.2f}'.format(row[ratio + column]) if ratio + column in row else '')
        contestant = row[column + '_contestant']
        named = contestant if contestant == column else '{} ({})'.format(column, contestant)
        print(line.format(named, *cells))


def _number(value: Optional[float]) -> str:
    return '-' if value is None else '{:.3g}'.format(value) if value < 100 else f'{value:.0f}'


def make_torch_environment(folder: str) -> str:
    """Returns the Python of an environment in `folder` that has PyTorch, made if need be.

    Raises:
      UserError: there is no Python for it, or the folder holds another PyTorch.
    """
    python = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(python):
        base = _find_new_python()
        say('making an environment for {} in {}'.format(TORCH, folder))
        subprocess.check_call([base, '-Im', 'venv', folder])
        install = [python, '-Im', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        if subprocess.call(install + [TORCH, 'numpy'], stderr=subprocess.DEVNULL):
            raise UserError(
                '{} cannot be installed in {}: is there a network? Measure without it with '
                '--only=estimator,export,scale,memory.'.format(TORCH, folder)
            )
    probe = 'import sys, numpy, torch; sys.exit(torch.__version__.split("+")[0] != "{}")'
    if subprocess.call([python, '-Ic', probe.format(TORCH.split('==')[1])]):
        raise UserError(
            '--torch_env={} does not hold {}: name another folder.'.format(folder, TORCH)
        )
    return python


def _find_new_python() -> str:
    for name in ('python3.13', 'python3.12', 'python3.11', 'python3', '/usr/bin/python3'):
        probe = [name, '-Ic', 'import sys, venv; assert sys.version_info >= (3, 11)']
        try:
            if subprocess.call(probe, stderr=subprocess.DEVNULL) == 0:
                return name
        except OSError:
            continue
    raise UserError('PyTorch needs a Python 3.11 or later on PATH, and there is none.')
