"""Times this trainer against its peers, in turn in one run, and shows how it scales.

    ./scripts/run python scripts/benchmark [--quick] [--only=SECTION,...] [--json=FILE]

README.md says what is compared, and how. The environments of PyTorch and JAX, and of the runtimes
that load an export, are made in a temporary folder, or kept in --peers_env and --clients_env.
"""

import datetime
import functools
import os
import sys
import tempfile

from absl import flags

from scripts.benchmark import comparisons, parts, scaling, trainings
from scripts.clients import environment
from trainer.base import files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data import prepare
from trainer.settings import command_line
from trainer.settings.table import HParams

_OF_PEERS = ('peers_env', ['torch==2.13.0', 'jax==0.10.2', 'optax==0.2.8', 'numpy'])
_OF_CLIENTS = ('clients_env', environment.RUNTIMES)
# By how the names of processes begin.
_ENVIRONMENTS = {
    'torch_': _OF_PEERS,
    'jax_': _OF_PEERS,
    'keras': _OF_CLIENTS,
    'client': _OF_CLIENTS,
}
_QUICK_SECTIONS = ['training', 'constant', 'estimator']
# Each prints its table and returns its rows.
SECTIONS = {
    **{name: functools.partial(comparisons.run, name) for name in comparisons.COMPARISONS},
    'scale': scaling.run,
    'step_parts': parts.step,
    'start_parts': parts.start,
    'memory': trainings.memory,
    'summaries': trainings.summaries,
}


class Bench:
    """What sections share: flags, MNIST, a folder, and default settings for a model in it."""

    def __init__(self, values, data, folder):
        self.flags, self.data, self.folder = values, data, folder
        self.params = HParams(data_dir=values.data_dir, model_dir=folder + '/model')

    def python_of(self, name):
        """Returns the Python of a process, '' for ours; its environment is made once."""
        for prefix, (flag, packages) in _ENVIRONMENTS.items():
            if name.startswith(prefix):
                folder = self.flags[flag].value or os.path.join(self.folder, flag)
                return environment.make('--' + flag, folder, packages)
        return ''

    def train(self, name, **settings):
        """Trains in a new folder of that name, see `trainings.train`."""
        return trainings.train(f'{self.folder}/{name}', data_dir=self.params.data_dir, **settings)

    def make_model(self):
        """Leaves a checkpoint in `params.model_dir`, an export, and one of low latency."""
        if not os.path.exists(self.params.model_dir):
            say('  making a model')
            self.train('model', max_steps=1)
            trainings.export_again(self.params.model_dir, '--low_latency')


def chosen_sections(values):
    """Returns the sections to run; UserError if one is unknown, or a file cannot be written."""
    unknown = [name for name in values.only if name not in SECTIONS]
    if unknown:
        text = '--only={}: there is no section {!r}; choose among {}.'
        raise UserError(text.format(','.join(values.only), unknown[0], ', '.join(SECTIONS)))
    chosen = values.only or (_QUICK_SECTIONS if values.quick else SECTIONS)
    for name in ('json', 'plot', 'peers_env', 'clients_env'):
        check = files.check_folder if name.endswith('env') else files.check_output
        if values[name].value:
            check('--' + name, values[name].value)
    if values.plot and 'scale' not in chosen:
        text = '--plot={}: it shows the section scale, which is not among those to run.'
        raise UserError(text.format(values.plot))
    return [name for name in SECTIONS if name in chosen]


def main(argv):
    del argv
    values = flags.FLAGS
    names = chosen_sections(values)
    data = prepare.prepare('mnist', values.data_dir, separate_process=True)
    sys.stdout.reconfigure(line_buffering=True)  # in a file too, tables come as they are ready
    record = trainings.machine()
    text = '{date}, {cores} cores of {cpu}; "/ x": how many times the time of x it takes'
    print(text.format(**record))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(values, data, folder)
        for number, name in enumerate(names, 1):
            now = datetime.datetime.now().strftime('%H:%M:%S')
            say('{} ({} of {}, {})'.format(name, number, len(names), now))
            record[name] = SECTIONS[name](bench)
            if values.json:  # after each section, so that an interruption loses none before
                files.write_output(values.json, files.json_bytes(record))


def define_flags(flag_values=flags.FLAGS):
    command_line.define_flags(['data_dir'], flag_values)
    names = ', '.join(SECTIONS)
    for define, name, default, text in (
        (flags.DEFINE_bool, 'quick', False, 'Only the main sections and batch sizes, fewer turns.'),
        (flags.DEFINE_list, 'only', [], 'Sections to run: {}. Default: all.'.format(names)),
        (path_flags.define, 'json', None, 'File for the raw figures.'),
        (path_flags.define, 'plot', None, 'PNG file for the plot of the section scale.'),
        (
            path_flags.define,
            'peers_env',
            None,
            'Folder where the environment of PyTorch and JAX is kept.',
        ),
        (path_flags.define, 'clients_env', None, 'The same for the runtimes of `clients`.'),
    ):
        define(name, default, text, flag_values=flag_values)


if __name__ == '__main__':
    define_flags()
    program.run(main)
