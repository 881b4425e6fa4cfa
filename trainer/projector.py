"""Writes what TensorBoard's PROJECTOR shows of a run: `python -m trainer.projector`."""

import functools
from typing import List

from absl import flags

from trainer.base import program
from trainer.checkpoints import chosen
from trainer.data import labels, prepare
from trainer.monitoring import projector_files
from trainer.settings import command_line


def define_flags() -> None:
    """Defines the flags."""
    command_line.define_flags_of_run(['data_dir', 'idx_dir'])
    flags.adopt_module_key_flags(command_line)


def main(argv: List[str]) -> None:
    """Reads the flags, writes, says where to."""
    del argv
    values = flags.FLAGS
    params = chosen.trained_model(values.model_dir, values.data_dir)
    data = prepare.of_run(params, idx_dir=values.idx_dir)
    read_labels = functools.partial(labels.labels, data, params)
    path = chosen.trained_checkpoint(values.model_dir)
    print(projector_files.write(path, data, read_labels, params))


if __name__ == '__main__':
    define_flags()
    program.run(main)
