"""Prepares a TFDS image dataset once: `python -m trainer.prepare_data --dataset=mnist`."""

import os
from typing import List

from absl import flags

from trainer.base import program
from trainer.data import prepare
from trainer.data.dataset import SPLITS
from trainer.settings import command_line


def main(argv: List[str]) -> None:
    """Prepares the dataset that the flags name, says what it is and where."""
    del argv
    values = flags.FLAGS
    prepared = prepare.prepare(values.dataset, values.data_dir, values.idx_dir)
    print(
        '{} {}: {} train, {} validation and {} test images of {} in {}'.format(
            prepared.name,
            prepared.version,
            *('{:,}'.format(prepared.num_examples[split]) for split in SPLITS),
            ' x '.join(map(str, prepared.image_shape)),
            os.path.dirname(prepared.files['train']),
        )
    )


if __name__ == '__main__':
    command_line.define_flags(['dataset', 'data_dir', 'idx_dir'])
    flags.adopt_module_key_flags(command_line)
    program.run(main)
