"""Draws pictures of what a trained model has learned: `python -m trainer.generate`."""

import os

from absl import flags

from trainer.base import files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import prepare
from trainer.monitoring import animation, picture_files
from trainer.settings import command_line


def define_flags() -> None:
    """Defines the flags."""
    command_line.define_flags_of_run(['num_images', 'data_dir', 'idx_dir'])
    flags.adopt_module_key_flags(command_line)
    flags.DEFINE_enum(
        'mode',
        'prior',
        list(picture_files.NAMES),
        'prior: new images. reconstruct: validation images above their reconstructions, windows '
        'behind them. interpolate: from one validation image to another. traverse: the most active '
        'latent dimensions, one a row, from -3 to 3. manifold: the plane of two latents.',
    )
    flags.DEFINE_bool(
        'animate',
        False,
        'Writes a GIF of the picture over training, one frame an evaluation, from the event files.',
    )
    flags.DEFINE_integer('seed', 1, 'Seed of the noise.', lower_bound=0, upper_bound=2**32 - 1)
    path_flags.define(
        'output', None, 'PNG or GIF file. Default: in model_dir, named after what it shows.'
    )


def _check_ending(output: str, wanted: str) -> None:
    ending = os.path.splitext(output)[1]
    if ending.lower() not in ('', wanted) and not files.is_stream(output):
        raise UserError(
            '--output={}: the picture is a {} file: give a name that ends in {}.'.format(
                output, wanted[1:].upper(), wanted
            )
        )


def main(argv: list) -> None:
    """Reads the flags, draws, says where to."""
    del argv
    values = flags.FLAGS
    mode = values.mode
    if values.output:
        files.check_output('--output', values.output)
    _check_ending(values.output or '', '.gif' if values.animate else '.png')
    params = chosen.trained_model(values.model_dir, values.data_dir)
    if mode == 'manifold' and params.latent_size != 2:
        raise UserError(
            f'--mode=manifold needs a model with 2 latents, --model_dir={values.model_dir} has '
            f'{params.latent_size}: choose --mode=traverse.'
        )
    default = picture_files.NEW_IMAGES if mode == 'prior' else picture_files.NAMES[mode] + '.png'
    if values.animate:
        default = picture_files.NAMES[mode] + '.gif'
    path = values.output or os.path.join(values.model_dir, default)
    write = files.write_output if values.output else files.write_bytes
    checkpoint_path = chosen.trained_checkpoint(values.model_dir)
    if values.animate:
        animation.animate(path, values.model_dir, mode, write)
    elif mode == 'prior':
        picture_files.write_new_images(
            path, values.num_images, values.seed, checkpoint_path, params, write
        )
    else:
        data = prepare.of_run(params, idx_dir=values.idx_dir)
        images = picture_files.validation_images(data, params)
        picture_files.write_pictures(
            {picture_files.NAMES[mode]: path}, images, checkpoint_path, params, write
        )
    if files.is_stream(path):  # Nothing else goes where the picture went.
        say(path)
    else:
        print(path)


if __name__ == '__main__':
    define_flags()
    program.run(main)
