"""Tables for which processes take turns, and what is made of their answers."""

import dataclasses
import functools
import json
import os
import statistics

import numpy as np

from scripts.benchmark.architecture import Architecture
from scripts.benchmark.in_tensorflow import GEMM_SIZE
from scripts.benchmark.timed_process import FirstStep, in_turns, start

_PEAK = 'gemm'  # the column that is no peer, but the machine's own rate
_FEWEST_FOR_P99 = 100  # of fewer values, one or two would decide it
_LINE = '  {:<34} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>10} {:>8}'
with open(os.path.join(os.path.dirname(__file__), 'comparisons.json')) as _file:
    COMPARISONS = json.load(_file)


def run(name, bench):
    """Fills and prints a table of comparisons.json, which README.md explains; returns its rows."""
    table = dict({'warm_up': 30, 'quick_rounds': 3, 'batch_sizes': [128]}, **COMPARISONS[name])
    rounds, batch_sizes, rows = table['rounds'], table['batch_sizes'], []
    if bench.flags.quick:
        rounds = table['quick_rounds']
        batch_sizes = [size for size in batch_sizes if size not in (64, 512)]
    columns, statistic = table['columns'], getattr(statistics, table.get('statistic', 'median'))
    names = sum(columns.values(), [])
    if table.get('needs_model'):
        bench.make_model()
    pythons = {one: bench.python_of(one) for one in names}
    for batch_size in batch_sizes:
        params = dataclasses.replace(bench.params, batch_size=batch_size)
        if name == 'estimator':
            params = dataclasses.replace(params, model_dir=os.path.join(bench.folder, 'turns'))
        starts = {
            one: functools.partial(start, one, params, bench.data, pythons[one]) for one in names
        }
        if name == 'startup':
            starts = {one: functools.partial(FirstStep, starts[one]) for one in names}
        turns = in_turns(starts, table['steps'], rounds, table['warm_up'])
        by_column = {column: {one: turns[one] for one in columns[column]} for column in columns}
        row = dict(row_of(by_column, statistic), batch_size=batch_size)
        show(table['unit'].format(batch_size), row)
        if _PEAK in columns:
            row.update(share_of_peak(row, params))
            text = '  {gemm_share:.0%} of the {gemm_gflops:.0f} GFLOP/s of a matrix product'
            print(text.format(**row))
        rows.append(row)
    return rows


def row_of(columns, statistic=statistics.median):
    """Returns times of a column's step, and ratios pair by pair against the first column.

    A column holds the answers of processes by their names, of which the fastest counts. The
    statistic stands for a turn in ratios.
    """
    row = {}
    for column, processes in columns.items():
        steps = {
            name: sum([turn['milliseconds'] for turn in processes[name]], []) for name in processes
        }
        best = min(steps, key=lambda name: statistics.median(steps[name]))
        turns, values = processes[best], steps[best]
        figures = {
            'contestant': best,
            'median_ms': statistics.median(values),
            'mean_ms': statistics.mean(values),
            'p10_ms': float(np.percentile(values, 10)),
            'p99_ms': _p99(values),
            'cpu_ms': 1e3 * sum(turn['cpu_seconds'] for turn in turns) / len(values),
            'peak_megabytes': turns[-1]['peak_megabytes'],
            'turns_ms': [statistic(turn['milliseconds']) for turn in turns],
            'turns_p99_ms': [_p99(turn['milliseconds']) for turn in turns],
        }
        row.update({'{}_{}'.format(column, key): value for key, value in figures.items()})
    ours, *peers = [column for column in columns if column != _PEAK]
    for peer in peers:
        for ratio, key in (('ratio_vs_', '_turns_ms'), ('p99_ratio_vs_', '_turns_p99_ms')):
            if row[ours + key][0] is not None:
                quotients = [one / other for one, other in zip(row[peer + key], row[ours + key])]
                row[ratio + peer] = statistics.median(quotients)
    return row


def _p99(values):
    return float(np.percentile(values, 99)) if len(values) >= _FEWEST_FOR_P99 else None


def show(heading, row):
    """Prints a line for each column: milliseconds of a step, CPU, memory, ratio to the first."""
    columns = [key[: -len('_contestant')] for key in row if key.endswith('_contestant')]
    titles = ['median ms', 'mean', '10th %', '99th %', 'CPU ms', 'peak MB', '/ ' + columns[0]]
    print(heading, _LINE.format('', *titles, '99th %'), sep='\n')
    for column in columns:
        if column == _PEAK:
            continue
        name = row[column + '_contestant']
        cells = [name if name == column else '{} ({})'.format(column, name)]
        for key in ('median', 'mean', 'p10', 'p99', 'cpu'):
            value = row['{}_{}_ms'.format(column, key)]
            form = '-' if value is None else '{:.3g}' if value < 100 else '{:.0f}'
            cells.append(form.format(value))
        cells.append('{:.0f}'.format(row[column + '_peak_megabytes']))
        for key in ('ratio_vs_' + column, 'p99_ratio_vs_' + column):
            cells.append('{:.2f}'.format(row[key]) if key in row else '')
        print(_LINE.format(*cells))


def share_of_peak(row, params):
    """Returns the rate of the matrix product, and the share of it that training reaches."""
    flops = params.batch_size * Architecture(dataclasses.asdict(params)).training_flops()
    peak = 2 * GEMM_SIZE**3 / (1e-3 * row['gemm_median_ms'])
    return {'gemm_gflops': peak / 1e9, 'gemm_share': flops / (1e-3 * row['ours_median_ms']) / peak}
