"""How the time of a training step grows with its settings."""

import dataclasses
import functools
import os

import numpy as np

from scripts.benchmark.comparisons import row_of
from scripts.benchmark.timed_process import in_turns, start
from trainer.base import cores, figures, files, optional
from trainer.base.console import say
from trainer.data.dataset import SPLITS

_STEPS = 10
_HEADING = """\
a training step as one setting grows; ratio to the default
  setting       value  median ms    ratio  peak MB"""
_LINE = (
    '  {setting:<12} {value:>6} {median_ms:>10.1f} {ratio_to_default:>8.2f} {peak_megabytes:>8.0f}'
)


def cases(params, data, folder):
    """Returns settings, images and cores by the setting that is changed, and its value."""
    change, available = functools.partial(dataclasses.replace, params), cores.available()
    found = {'batch_size': [64, 128, 256, 512], 'latent_size': [2, 8, 32, 128]}
    found['lstm_units'] = [48, 96, 192, 384]
    for name, values in found.items():
        found[name] = {value: (change(**{name: value}), data, None) for value in values}
    noise = {side: _noise(data, folder, side) for side in (28, 32, 64)}
    found['image_side'] = {
        side: (change(image_shape=some.image_shape), some, None) for side, some in noise.items()
    }
    counts = sorted({2**power for power in range(available.bit_length())} | {available})
    found['cores'] = {count: (change(num_threads=min(count, 4)), data, count) for count in counts}
    return found


def _noise(data, folder, side, count=4096):
    """Writes square images of noise, whose size is all that their time depends on."""
    path = os.path.join(folder, 'noise-{}.uint8'.format(side))
    np.random.RandomState(side).randint(0, 256, [count, side, side]).astype(np.uint8).tofile(path)
    splits = {'files': dict.fromkeys(SPLITS, path), 'num_examples': dict.fromkeys(SPLITS, count)}
    return dataclasses.replace(data, name='noise', image_shape=(side, side, 1), **splits)


def run(bench):
    """Lets the values of each setting take turns; prints a row for each, and draws them."""
    rows, defaults = [], dataclasses.asdict(bench.params)
    defaults.update(image_side=bench.params.rows, cores=cores.available())
    for name, by_value in cases(bench.params, bench.data, bench.folder).items():
        say('  ' + name)
        starts = {
            value: functools.partial(start, 'training', params, data, cores=count)
            for value, (params, data, count) in by_value.items()
        }
        turns = in_turns(starts, _STEPS, rounds=3 if bench.flags.quick else 8, warm_up=_STEPS)
        rows += rows_of(name, turns, defaults[name])
    print(_HEADING, *[_LINE.format(**row) for row in rows], sep='\n')
    if bench.flags.plot:
        with optional.part(bench.flags.plot):  # The figures took an hour.
            content = figures.png((12, 3), functools.partial(plot, rows))
            files.write_output(bench.flags.plot, content)
    return rows


def rows_of(name, turns, reference):
    """Turns answers by value into times of a step, and ratios pair by pair to the reference's."""
    values = sorted(turns, key=lambda value: value != reference)  # it comes first
    row = row_of({str(value): {'training': turns[value]} for value in values})
    return [
        {'setting': name, 'value': value, 'median_ms': row['{}_median_ms'.format(value)],
         'ratio_to_default': row.get('ratio_vs_{}'.format(value), 1.0),
         'peak_megabytes': row['{}_peak_megabytes'.format(value)]}
        for value in turns
    ]  # fmt: skip


def plot(rows, figure):
    """Draws a small plot a setting, of one height."""
    names = list(dict.fromkeys(row['setting'] for row in rows))
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names):
        of_name = [row for row in rows if row['setting'] == name]
        values = [row['value'] for row in of_name]
        axis.plot(values, [row['ratio_to_default'] for row in of_name], marker='o')
        axis.axhline(1.0, color='grey', linewidth=0.8)
        axis.set_xscale('log', base=2)
        axis.set_yscale('log', base=2)
        axis.set(xticks=values, xticklabels=values, title=name.replace('_', ' '))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].yaxis.set_major_formatter('{x:g}')
    axes[0].set_ylabel("time of a step / default's")
