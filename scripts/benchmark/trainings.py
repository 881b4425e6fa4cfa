"""Whole runs of `python -m trainer.task`, and what they take."""

import datetime
import os
import re
import statistics
import subprocess
import sys

from trainer.base import cores, files
from trainer.base.errors import UserError
from trainer.settings.table import HParams
from trainer.training import results

_SECONDS = ('training_seconds', 'wall_seconds', 'cpu_seconds')


def machine():
    """Returns the date and what the benchmark runs on."""
    with open('/proc/cpuinfo') as f:
        cpu, *_ = re.findall(r'model name\s*: (.*)', f.read()) + ['an unknown CPU']
    return {'date': datetime.date.today().isoformat(), 'cores': cores.available(), 'cpu': cpu}


def train(model_dir, **settings):
    """Trains; returns its times, and the peak memory of it or a child; UserError if it fails."""
    command = [sys.executable, '-m', 'trainer.task', '--model_dir=' + model_dir]
    command += ['--{}={}'.format(*setting) for setting in settings.items()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # Linux counts the process that started it in: this one, which is smaller.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = -os.WTERMSIG(status) or os.WEXITSTATUS(status)
    if process.returncode:
        raise UserError('trainer.task ended with code {}, see above.'.format(process.returncode))
    record = files.read_json(os.path.join(model_dir, results.FILE_NAME))
    row = {name: record[name] for name in ('training_time_share', *_SECONDS)}
    return dict(row, max_steps=settings['max_steps'], peak_megabytes=usage.ru_maxrss / 1024)


def export_again(model_dir, flag):
    """Exports the last checkpoint with a flag of `trainer.export`; UserError if it fails."""
    command = [sys.executable, '-m', 'trainer.export', '--model_dir=' + model_dir, flag]
    code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if code:
        raise UserError('trainer.export ended with code {}, see above.'.format(code))


def memory(bench):
    """What the default run and one of a tenth of its steps take."""
    rows = [bench.train(str(n), max_steps=n) for n in (HParams.max_steps // 10, HParams.max_steps)]
    print('python -m trainer.task: peak memory, children included; share of time in steps')
    line = '  {max_steps:>6,} steps {peak_megabytes:>8.0f} MB  {training_time_share:>4.0%} of the '
    for row in rows:
        print(line.format(**row) + 'time between first and last step')
    return rows


def summaries(bench):
    """What a run takes with and without all that it writes for TensorBoard, in turns."""
    intervals, ratios = (HParams.save_summary_steps, 0), {name: [] for name in _SECONDS}
    for number in range(1 if bench.flags.quick else 3):
        written, left_out = [
            bench.train(f'{number}-{some}', max_steps=HParams.max_steps, save_summary_steps=some)
            for some in intervals
        ]
        for name in _SECONDS:
            ratios[name].append(written[name] / left_out[name])
    row = {name: statistics.median(values) for name, values in ratios.items()}
    print('python -m trainer.task with --save_summary_steps={} and {}'.format(*intervals))
    for name, ratio in row.items():
        print('  {:<18} / without: {:.3f}'.format(name.replace('_', ' '), ratio))
    return [dict(row, turns=ratios)]
