"""Prepares images once: `python -m trainer.prepare_data --dataset=mnist`, or `--source=FOLDER`."""

from typing import List

from absl import flags

from trainer.base import program
from trainer.data import prepare
from trainer.data.dataset import SPLITS
from trainer.settings import command_line


def main(argv: List[str]) -> None:
    """Prepares the images that the flags name, says what they are and where."""
    del argv
    values = flags.FLAGS
    params = command_line.of_images(values)
    if params.source:
        prepared = prepare.own(params)
    else:
        prepared = prepare.prepare(params.dataset, params.data_dir, params.idx_dir)
    print(
        '{} {}: {} train, {} validation and {} test {} of {} in {}'.format(
            prepared.name,
            prepared.version or prepared.digest,
            *('{:,}'.format(prepared.num_examples[split]) for split in SPLITS),
            prepared.noun,
            ' x '.join(map(str, prepared.image_shape)),
            prepared.folder,
        )
    )


if __name__ == '__main__':
    command_line.define_flags(command_line.OF_IMAGES)
    flags.adopt_module_key_flags(command_line)
    program.run(main)
