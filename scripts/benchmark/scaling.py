"""The part of the benchmark that shows how the time of a training step grows with its settings."""

import contextlib
import dataclasses
import math
import os
import statistics
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from scripts.benchmark import comparison as contest
from trainer.base import cores as cores_module
from trainer.base import figures, files, optional
from trainer.base.console import say
from trainer.data.dataset import SPLITS, PreparedDataset
from trainer.settings.table import HParams

Case = Tuple[HParams, PreparedDataset, Optional[int]]  # settings, images, cores
_GROWING = {
    'batch_size': [64, 128, 256, 512],
    'latent_size': [2, 8, 32, 128],
    'lstm_units': [48, 96, 192, 384],
}
_SIDES = [28, 32, 64]
_STEPS = 10
_WARM_UP = 10


def cases(params: HParams, data: PreparedDataset, folder: str) -> Dict[str, Dict[int, Case]]:
    """Returns what is measured, by setting and value; all else has its default."""
    found: Dict[str, Dict[int, Case]] = {
        name: {
            value: (dataclasses.replace(params, **{name: value}), data, None) for value in values
        }
        for name, values in _GROWING.items()
    }
    found['image_side'] = {
        side: (dataclasses.replace(params, image_shape=(side, side, 1)), noise, None)
        for side, noise in ((side, noise_images(folder, side)) for side in _SIDES)
    }
    available = cores_module.available()
    powers = {2**power for power in range(int(math.log2(available)) + 1)}
    found['cores'] = {
        count: (dataclasses.replace(params, num_threads=min(count, 4)), data, count)
        for count in sorted(powers | {available})
    }
    return found


def noise_images(folder: str, side: int, count: int = 4096) -> PreparedDataset:
    """Writes square images of noise, whose size is all that their time depends on."""
    path = os.path.join(folder, 'noise-{}.uint8'.format(side))
    np.random.RandomState(side).randint(0, 256, [count, side, side]).astype(np.uint8).tofile(path)
    return PreparedDataset(
        'noise', '1.0.0', (side, side, 1), dict.fromkeys(SPLITS, path), dict.fromkeys(SPLITS, count)
    )


def reference(name: str, params: HParams) -> int:
    """Returns the value of a setting that the others are divided by: the default."""
    special = {'image_side': params.rows, 'cores': cores_module.available()}
    return special[name] if name in special else getattr(params, name)


def measure(
    params: HParams, data: PreparedDataset, folder: str, rounds: int
) -> List[Dict[str, Any]]:
    """Returns a row for each value of each setting; the values of one take turns."""
    rows = []
    for name, by_value in cases(params, data, folder).items():
        say('  {}: {}'.format(name, ', '.join(map(str, by_value))))
        with contextlib.ExitStack() as stack:
            contestants = {}
            for value, (settings, images, cores) in by_value.items():
                contestant = contest.start('training', settings, images, cores=cores)
                stack.callback(contestant.close)
                contestant.take_turn(_WARM_UP)
                contestants[value] = contestant
            for _ in range(rounds):
                for contestant in contestants.values():
                    contestant.turns.append(contestant.take_turn(_STEPS))
        rows += rows_of(name, contestants, reference(name, params))
    return rows


def rows_of(
    name: str, contestants: Dict[int, contest.Answers], default: int
) -> List[Dict[str, Any]]:
    """Turns the answers into times of a step, and ratios pair by pair to the default's."""
    turns = {
        value: [statistics.median(turn['milliseconds']) for turn in contestant.turns]
        for value, contestant in contestants.items()
    }
    return [
        {
            'setting': name,
            'value': value,
            'median_ms': statistics.median(contestant.all_milliseconds()),
            'ratio_to_default': contest.pairwise_ratio(turns[value], turns[default]),
            'peak_megabytes': contestant.turns[-1]['peak_megabytes'],
        }
        for value, contestant in contestants.items()
    ]


def show(rows: List[Dict[str, Any]]) -> None:
    """Prints the table."""
    print('a training step as one setting grows; ratio to the default')
    print('  setting       value  median ms    ratio  peak MB')
    for row in rows:
        print(
            '  {setting:<12} {value:>6} {median_ms:>10.1f} {ratio_to_default:>8.2f} '
            '{peak_megabytes:>8.0f}'.format(**row)
        )


def plot(rows: List[Dict[str, Any]], path: str) -> None:
    """Draws a small plot a setting, of one height, into the PNG file `path`."""
    names = list(dict.fromkeys(row['setting'] for row in rows))

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(names), sharey=True)
        for axis, name in zip(axes, names):
            of_name = [row for row in rows if row['setting'] == name]
            values = [row['value'] for row in of_name]
            ratios = [row['ratio_to_default'] for row in of_name]
            axis.plot(values, ratios, marker='o')
            axis.axhline(1.0, color='grey', linewidth=0.8)
            axis.set_xscale('log', base=2)
            axis.set_yscale('log', base=2)
            axis.set_xticks(values)
            axis.set_xticklabels(values)
            axis.minorticks_off()
            axis.set_title(name.replace('_', ' '))
            axis.grid(alpha=0.3)
        axes[0].yaxis.set_major_formatter('{x:g}')
        axes[0].set_ylabel("time of a step / default's")

    with optional.part(path):  # The figures took an hour.
        files.write_output(path, figures.png((12, 3), draw))
