"""Times this trainer against its peers, in turn in one run, and shows how it scales.

    ./scripts/run python scripts/benchmark [--quick] [--only=SECTION,...] [--json=FILE]

The peers do the same work on the same real MNIST:

    torch       PyTorch with fused Adam, eager and compiled: the better of the two
    plain       the network as a first TensorFlow program has it: feed_dict, static_rnn, one tower
    session     this trainer's graph and input in a bare session, for Estimator to be measured by

Each contestant is a process of its own that waits while the others run; they take turns, some
steps each, so that a ratio compares the same seconds of a machine whose speed drifts. The peak of
the machine is the rate of a 2048 x 2048 x 2048 single-precision product, measured in the same
turns.

PyTorch needs a Python 3.11 or later; its environment is made in a temporary folder, or kept in the
one that --torch_env names; so do the runtimes that load an export, and --clients_env.
"""

import dataclasses
import datetime
import functools
import os
import statistics
import sys
import tempfile
from typing import Any, Callable, Dict, List

from absl import flags

from scripts.benchmark import comparison as contest
from scripts.benchmark import scaling as scale
from scripts.benchmark import whole_runs as runs
from scripts.benchmark.comparison import PEAK, Comparison
from scripts.benchmark.in_tensorflow import GEMM_SIZE
from scripts.clients import __main__ as client_table
from trainer.base import files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data import prepare
from trainer.data.dataset import PreparedDataset
from trainer.settings import command_line
from trainer.settings.table import HParams

_QUICK_SECTIONS = ['training', 'constant', 'estimator']
Rows = List[Dict[str, Any]]


def _torch(what: str) -> List[str]:
    return ['torch_eager:' + what, 'torch_compiled:' + what]


COMPARISONS = {
    'training': Comparison(
        'a training step, batch {}',
        {'ours': ['training'], 'torch': _torch('training'), 'plain': ['plain'], PEAK: ['gemm']},
        steps=20,
        rounds=12,
        quick_rounds=8,
        batch_sizes=[64, 128, 256, 512],
    ),
    'input': Comparison(
        'the next training batch, batch {}',
        {'ours': ['input'], 'torch': ['torch_eager:input'], 'loader': ['torch_eager:loader']},
        steps=100,
        rounds=12,
    ),
    # Short turns and many: what they compare differs by less than the machine's drift.
    'constant': Comparison(
        'a training step, batch {}: on real input, on one batch that is always there',
        {'real': ['training'], 'constant': ['constant']},
        steps=20,
        rounds=40,
        quick_rounds=20,
    ),
    # Turns as long as the time between summaries, and compared by their means, so that each
    # holds what Estimator does only now and then.
    'estimator': Comparison(
        'a training step, batch {}: in a bare session, in Estimator',
        {'session': ['training'], 'estimator': ['estimator']},
        steps=HParams.save_summary_steps,
        rounds=12,
        quick_rounds=6,
        statistic=statistics.mean,
    ),
    'evaluation': Comparison(
        'an evaluation of the 10,000 test images',
        {'ours': ['evaluation'], 'torch': _torch('evaluation')},
        steps=1,
        rounds=8,
        warm_up=1,
    ),
    'export': Comparison('a SavedModel', {'ours': ['export']}, steps=1, rounds=5, warm_up=1),
    'generate': Comparison(
        '10,000 images from the prior',
        {'ours': ['generate'], 'torch': _torch('generate')},
        steps=1,
        rounds=8,
        warm_up=1,
    ),
    'inference': Comparison(
        'a request to the SavedModel, batch {}',
        {'ours': ['inference'], 'torch': _torch('inference')},
        steps=100,
        rounds=12,
        batch_sizes=[1, 256],
    ),
    'clients': Comparison(
        'a request to the SavedModel, batch {}, in other runtimes',
        {
            'ours': ['inference'],
            'frozen': ['frozen_inference'],
            'tensorflow 2': ['client:tensorflow2'],
            'onnx runtime': ['client:onnx'],
            'openvino': ['client:openvino'],
        },
        steps=100,
        rounds=8,
        batch_sizes=[1, 256],
    ),
}
_NEEDING_A_MODEL = ('evaluation', 'export', 'generate', 'inference', 'clients')


class Bench:
    """What the sections share.

    Attributes:
      params: the default settings, with a `model_dir` of the benchmark's own.
      data: the prepared MNIST.
      folder: where anything may be left; it does not outlive the benchmark.
      quick: whether to take fewer turns.
    """

    def __init__(self, data: PreparedDataset, folder: str):
        values = flags.FLAGS
        self.data, self.folder, self.quick = data, folder, values.quick
        self.params = HParams(data_dir=values.data_dir, model_dir=os.path.join(folder, 'model'))

    def torch_python(self) -> str:
        """Returns the Python that has PyTorch; its environment is made at the first call."""
        folder = flags.FLAGS.torch_env or os.path.join(self.folder, 'torch')
        return contest.make_torch_environment(folder)

    def clients_python(self) -> str:
        """Returns the Python that has the other runtimes, in the same way."""
        folder = flags.FLAGS.clients_env or os.path.join(self.folder, 'clients')
        return client_table.Clients(folder).python

    def make_model(self) -> None:
        """Leaves a checkpoint and an export in `params.model_dir`, for those who start from one."""
        if not os.path.exists(self.params.model_dir):
            say('  making a model')
            runs.run_task(self.params.model_dir, self.params.data_dir, max_steps=1)


def run_comparison(name: str, bench: Bench) -> Rows:
    """Fills and prints the table `name` of COMPARISONS."""
    comparison = COMPARISONS[name]
    if bench.quick:
        comparison = quicker(comparison)
    names = [contestant for column in comparison.columns.values() for contestant in column]
    python = ''
    if name == 'clients':
        python = bench.clients_python()
    elif any(':' in contestant for contestant in names):
        python = bench.torch_python()
    if name in _NEEDING_A_MODEL:
        bench.make_model()
    rows = []
    for batch_size in comparison.batch_sizes:
        params = dataclasses.replace(bench.params, batch_size=batch_size)
        if name == 'estimator':
            params = dataclasses.replace(params, model_dir=os.path.join(bench.folder, 'turns'))
        row = contest.compare(comparison, params, bench.data, python)
        row = dict(row, batch_size=batch_size)
        print(comparison.unit.format(batch_size))
        contest.show(row, [column for column in comparison.columns if column != PEAK])
        if PEAK in comparison.columns:
            row.update(share_of_peak(row, params))
            print(
                '  {gemm_share:.0%} of the {gemm_gflops:.0f} GFLOP/s of a matrix product'.format(
                    **row
                )
            )
        rows.append(row)
    return rows


def quicker(comparison: Comparison) -> Comparison:
    """The comparison of --quick: middle batch sizes only, fewer turns."""
    some = [size for size in comparison.batch_sizes if size not in (64, 512)]
    return dataclasses.replace(comparison, batch_sizes=some, rounds=comparison.quick_rounds)


def share_of_peak(row: Dict[str, Any], params: HParams) -> Dict[str, float]:
    """Returns the rate of the matrix product, and the share of it that training reaches."""
    peak = 2 * GEMM_SIZE**3 / (1e-3 * row['gemm_median_ms'])
    rate = training_flops(params) / (1e-3 * row['ours_median_ms'])
    return {'gemm_gflops': peak / 1e9, 'gemm_share': rate / peak}


def training_flops(params: HParams) -> int:
    """Returns the floating-point operations of a training step's products, forward and backward.

    A multiplication and an addition count as two. A layer's backward pass is two products of the
    size of its forward one, for its weights and for its input; images need no gradient.
    Element-wise operations are left out.
    """
    rows, columns, channels = params.image_shape
    units, latents = params.lstm_units, params.latent_size
    macs = 2 * rows * params.row_features * 4 * units  # no gradient of the images
    macs += 3 * (rows - 1) * units * 4 * units  # the first step has no state before it
    macs += 3 * 2 * 4 * units * latents
    quarter = (rows // 4) * (columns // 4)
    widths = [latents, params.decoder_units, params.decoder_units]
    widths.append(quarter * params.decoder_channels)
    macs += 3 * sum(a * b for a, b in zip(widths, widths[1:]))
    macs += 3 * quarter * 9 * params.decoder_channels**2
    macs += 3 * 4 * quarter * 16 * params.decoder_channels * channels
    return 2 * macs * params.batch_size


def run_startup(bench: Bench) -> Rows:
    """From the start of the process to the end of its first training step."""
    rounds = 2 if bench.quick else 5
    row = runs.startup(bench.params, bench.data, bench.torch_python(), rounds)
    print('from the start of a process to the end of its first training step, imports included')
    contest.show(row, ['ours', 'torch'])
    return [row]


def run_scale(bench: Bench) -> Rows:
    """How the time of a step grows."""
    rows = scale.measure(bench.params, bench.data, bench.folder, rounds=3 if bench.quick else 8)
    scale.show(rows)
    if flags.FLAGS.plot:
        scale.plot(rows, flags.FLAGS.plot)
    return rows


def run_memory(bench: Bench) -> Rows:
    """What the default run and one of a tenth of its steps take."""
    steps = [HParams.max_steps // 10, HParams.max_steps]
    rows = [
        runs.memory(os.path.join(bench.folder, str(count)), bench.params.data_dir, count)
        for count in steps
    ]
    print('python -m trainer.task: peak memory, children included; share of time in steps')
    for row in rows:
        print(
            '  {max_steps:>6,} steps {peak_megabytes:>8.0f} MB  {training_time_share:>4.0%} of the '
            'time between first and last step'.format(**row)
        )
    return rows


def run_summaries(bench: Bench) -> Rows:
    """What a run takes with and without all that it writes for TensorBoard, in turns."""
    ratios: Dict[str, List[float]] = {name: [] for name in runs.SECONDS}
    for number in range(1 if bench.quick else 3):
        pair = [
            runs.memory(
                os.path.join(bench.folder, 'summaries_{}_{}'.format(number, interval)),
                bench.params.data_dir,
                HParams.max_steps,
                interval,
            )
            for interval in (HParams.save_summary_steps, 0)
        ]
        for name, values in ratios.items():
            values.append(pair[0][name] / pair[1][name])
    row = {name: statistics.median(values) for name, values in ratios.items()}
    print(
        'python -m trainer.task with --save_summary_steps={} and 0'.format(
            HParams.save_summary_steps
        )
    )
    for name, ratio in row.items():
        print('  {:<18} / without: {:.3f}'.format(name.replace('_', ' '), ratio))
    return [dict(row, turns=ratios)]


SECTIONS: Dict[str, Callable[[Bench], Rows]] = {
    **{name: functools.partial(run_comparison, name) for name in COMPARISONS},
    'startup': run_startup,
    'scale': run_scale,
    'memory': run_memory,
    'summaries': run_summaries,
}


def chosen_sections(values: flags.FlagValues) -> List[str]:
    """Returns the sections to run, in the order of SECTIONS.

    Raises:
      UserError: a section is unknown, or a file cannot be written.
    """
    unknown = [name for name in values.only if name not in SECTIONS]
    if unknown:
        raise UserError(
            '--only={}: there is no section {!r}; choose among {}.'.format(
                ','.join(values.only), unknown[0], ', '.join(SECTIONS)
            )
        )
    chosen = values.only or (_QUICK_SECTIONS if values.quick else SECTIONS)
    for name in ('json', 'plot'):
        path = values[name].value
        if path:
            files.check_output('--' + name, path)
    for name in ('torch_env', 'clients_env'):
        if values[name].value:
            files.check_folder('--' + name, values[name].value)
    if values.plot and 'scale' not in chosen:
        raise UserError(
            '--plot={}: it shows the section scale, which is not among those to run.'.format(
                values.plot
            )
        )
    return [name for name in SECTIONS if name in chosen]


def main(argv: List[str]) -> None:
    del argv
    values = flags.FLAGS
    names = chosen_sections(values)
    data = prepare.prepare('mnist', values.data_dir, separate_process=True)
    sys.stdout.reconfigure(line_buffering=True)  # in a file too, tables come as they are ready
    record: Dict[str, Any] = runs.machine()
    print(
        '{date}, {cores} cores of {cpu}; "/ x": how many times the time of x it takes'.format(
            **record
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(data, folder)
        for number, name in enumerate(names):
            say(
                '{} ({} of {}, {})'.format(
                    name, number + 1, len(names), datetime.datetime.now().strftime('%H:%M:%S')
                )
            )
            record[name] = SECTIONS[name](bench)
            if values.json:  # after each section, so that an interruption loses none before
                files.write_output(values.json, files.json_bytes(record))


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    command_line.define_flags(['data_dir'], flag_values)
    names = ', '.join(SECTIONS)
    for define, name, default, text in (
        (flags.DEFINE_bool, 'quick', False, 'Only the main sections and batch sizes, fewer turns.'),
        (flags.DEFINE_list, 'only', [], 'Sections to run: {}. Default: all.'.format(names)),
        (path_flags.define, 'json', None, 'File for the raw figures.'),
        (path_flags.define, 'plot', None, 'PNG file for the plot of the section scale.'),
        (path_flags.define, 'torch_env', None, 'Folder where the PyTorch environment is kept.'),
        (path_flags.define, 'clients_env', None, 'The same for the runtimes of `clients`.'),
    ):
        define(name, default, text, flag_values=flag_values)


if __name__ == '__main__':
    define_flags()
    program.run(main)
