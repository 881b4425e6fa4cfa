"""What a training step, and the start of a training, consist of."""

import dataclasses
import json
import statistics
import subprocess
import sys
import time

from scripts import ROOT
from scripts.benchmark.architecture import Architecture
from trainer.base.errors import UserError

BATCH_SIZES = (128, 512)
# What start_marks.py starts, by its argument.
_STARTED = {'vae': 'trainer.task', 'one_weight': 'the same, of one weight'}


def step(bench):
    """What the threads of a training step do."""
    rows = []
    for batch_size in BATCH_SIZES:
        params = dataclasses.replace(bench.params, batch_size=batch_size)
        settings = {'params': dataclasses.asdict(params), 'data': dataclasses.asdict(bench.data)}
        spent = _answer('op_times', repr(settings))
        of_all = Architecture(dataclasses.asdict(params)).training_flops_by_part()
        print(f'a training step, batch {batch_size}: what its threads do')
        print('  {:<34} {:>8} {:>7} {:>18}'.format('', 'ms', 'share', 'GFLOP/s a thread'))
        for part in sorted(spent, key=spent.get, reverse=True):
            row = {'batch_size': batch_size, 'part': part, 'milliseconds': spent[part]}
            row['gflops'] = batch_size * of_all.get(part, 0) / (1e6 * spent[part])
            rate = '{:.1f}'.format(row['gflops']) if part in of_all else ''
            share = spent[part] / sum(spent.values())
            print(f'  {part:<34} {spent[part]:>8.1f} {share:>7.0%} {rate:>18}')
            rows.append(row)
    return rows


def start(bench):
    """What the start of trainer.task takes, beside one of a model of one weight, in turns."""
    turns = {model: [] for model in _STARTED}
    for number in range(3 if bench.flags.quick else 9):
        for model in _STARTED:
            where = f'--model_dir={bench.folder}/start-{model}-{number}'
            data_dir = '--data_dir=' + bench.params.data_dir
            more = [model, '--max_steps=1', where, data_dir]
            turns[model].append(_answer('start_marks', repr(time.time()), *more))
    print('from the start of a process to the end of its first step, seconds by parts')
    print('  {:<34} {:>12} {:>24}'.format('', *_STARTED.values()))
    rows = []
    for part in turns['vae'][0]:
        row = {model: statistics.median(turn[part] for turn in turns[model]) for model in turns}
        print('  {:<34} {:>12.2f} {:>24.2f}'.format(part, *row.values()))
        rows.append(dict(row, part=part))
    return rows


def _answer(module, *arguments):
    """Returns what a program of this folder prints, as JSON."""
    command = [sys.executable, '-m', 'scripts.benchmark.' + module, *arguments]
    process = subprocess.run(command, capture_output=True, cwd=ROOT)
    if process.returncode:
        sys.stderr.write(process.stderr.decode(errors='replace'))
        raise UserError('{}.py ended with code {}, see above.'.format(module, process.returncode))
    return json.loads(process.stdout)
