"""Draws pictures of what a trained model has learned: `python -m trainer.generate`."""

import dataclasses
import functools
import io
import os
from typing import Any, Callable, Dict, List

import numpy as np
import tensorflow as tf
from absl import flags

from trainer import (
    checkpoints,
    drawing,
    export,
    files,
    hparams,
    input,
    logs,
    network,
    path_flags,
    pictures,
    prepare_data,
)
from trainer.decoded_copy import PreparedDataset
from trainer.errors import UserError
from trainer.hparams import HParams
from trainer.pictures import Picture
from trainer.progress import say

# `files.write_bytes`, or `files.write_output` for a path that a user names.
Write = Callable[[str, bytes], str]

# Each mode's picture: its name in TensorBoard, and its file.
_NAMES = {
    'prior': 'prior_samples',
    'reconstruct': 'reconstructions',
    'interpolate': 'interpolations',
    'traverse': 'traversals',
    'manifold': 'latent_manifold',
}
NEW_IMAGES = 'new_images.png'
_BATCH = 1000
_MILLISECONDS_A_FRAME = 300
_MILLISECONDS_AT_THE_END = 2000


def decode(latents: np.ndarray, checkpoint_path: str, params: HParams) -> np.ndarray:
    """Decodes latents with the weights of a checkpoint.

    Args:
      latents: float32 `[n, latent_size]`.

    Returns:
      The pixels' means, float32 `[n, rows, columns, channels]` in [0, 1].
    """
    build = functools.partial(network.decode, params=params)
    return _in_batches(build, [latents], checkpoint_path, params)


def draw_from_prior(count: int, seed: int, checkpoint_path: str, params: HParams) -> np.ndarray:
    """Decodes `count` draws from the prior; returns as `decode` does."""
    build = functools.partial(network.sample_prior, params=params)
    noise = pictures.prior_noise(count, seed, params)
    return _in_batches(build, list(noise), checkpoint_path, params)


def _in_batches(
    build: Callable[..., Any], arrays: List[np.ndarray], checkpoint_path: str, params: HParams
) -> np.ndarray:
    """Returns the mean of the likelihood that `build` makes of float32 `arrays`, all `[n, ...]`."""
    with tf.Graph().as_default():
        inputs = [tf.placeholder(tf.float32, [None, *array.shape[1:]]) for array in arrays]
        images = build(*inputs).mean()
        with tf.Session() as session:
            checkpoints.restore(session, checkpoint_path)
            decoded = [
                session.run(
                    images, {x: array[start : start + _BATCH] for x, array in zip(inputs, arrays)}
                )
                for start in range(0, len(arrays[0]), _BATCH)
            ]
    return np.concatenate(decoded).reshape((-1,) + params.image_shape)


def write_new_images(
    path: str,
    count: int,
    seed: int,
    checkpoint_path: str,
    params: HParams,
    write: Write = files.write_bytes,
) -> str:
    """Draws `count` images from the prior into one PNG grid; returns its path."""
    images = draw_from_prior(count, seed, checkpoint_path, params)
    with tf.Graph().as_default(), tf.Session() as session:
        placeholder = tf.placeholder(tf.float32, (None,) + params.image_shape)
        png = pictures.png(Picture(placeholder, pictures.square_columns(count)))
        return write(path, session.run(png, {placeholder: images}))


def write_pictures(
    paths: Dict[str, str],
    images: np.ndarray,
    checkpoint_path: str,
    params: HParams,
    write: Write = files.write_bytes,
) -> None:
    """Writes pictures made of the posteriors of images as PNG.

    Args:
      paths: the file of each picture, by its name in `pictures.of_validation`.
      images: float32 `[n, rows, features]` in [0, 1].
    """
    with tf.Graph().as_default():
        placeholder = tf.placeholder(tf.float32, [None, params.rows, params.row_features])
        mean = network.encode(placeholder, params).mean
        of_name = pictures.of_validation(placeholder, mean, params)
        pngs = {name: pictures.png(of_name[name]) for name in paths}
        with tf.Session() as session:
            checkpoints.restore(session, checkpoint_path)
            contents = session.run(pngs, {placeholder: images})
    for name, path in paths.items():
        write(path, contents[name])


def validation_images(data: PreparedDataset, params: HParams) -> np.ndarray:
    """Returns the first validation images, at most a thousand, as the model sees them."""
    return input.first_images(data, 'validation', _BATCH, params.binarization)


def animate(path: str, model_dir: str, mode: str, write: Write = files.write_bytes) -> str:
    """Writes a GIF of a picture over training, from the event files; returns its path.

    Raises:
      UserError: no evaluation has left such a picture, or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("--animate needs Pillow: pip install 'pillow<9.6'.") from error
    folder = os.path.join(model_dir, 'eval_validation')
    frames = drawing.read_images(folder, 'pictures/{}/image'.format(_NAMES[mode]))
    if not frames:
        raise UserError(
            '--model_dir={} holds no {} in the event files of {}: train with '
            '--save_summary_steps above 0.'.format(model_dir, _NAMES[mode], folder)
        )
    try:
        # Pillow 9.5 has known flaws in its readers of other formats.
        pngs = [Image.open(io.BytesIO(frames[step]), formats=['PNG']) for step in sorted(frames)]
        decoded = [png.convert('P') for png in pngs]
    except Exception as error:  # Pillow has no one class for all that may be wrong with a file.
        raise UserError(
            '--model_dir={}: a picture in the event files of {} is broken ({}).'.format(
                model_dir, folder, error
            )
        ) from error
    content = io.BytesIO()
    decoded[0].save(
        content,
        format='GIF',
        save_all=True,
        append_images=decoded[1:],
        duration=[_MILLISECONDS_A_FRAME] * (len(decoded) - 1) + [_MILLISECONDS_AT_THE_END],
        loop=0,
    )
    return write(path, content.getvalue())


def trained_model(model_dir: str, data_dir: str) -> HParams:
    """Returns the settings of the model in `model_dir`, and where its data is now.

    Args:
      data_dir: '' for where the run had it.

    Raises:
      UserError: there is no trained model of this trainer.
    """
    params = hparams.trained(model_dir)
    if checkpoints.latest(model_dir) is None:
        raise UserError(
            '--model_dir={} holds no checkpoint yet: give the folder of a run of '
            'trainer.task.'.format(model_dir)
        )
    return dataclasses.replace(params, data_dir=data_dir or params.data_dir)


def _define_flags() -> None:
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    flags.DEFINE_enum(
        'mode',
        'prior',
        list(_NAMES),
        'prior: new images. reconstruct: validation images above their reconstructions. '
        'interpolate: from one validation image to another. traverse: the most active latent '
        'dimensions, one a row, from -3 to 3. manifold: the plane of a model with 2 latents.',
    )
    flags.DEFINE_bool(
        'animate',
        False,
        'Writes a GIF of the picture over training, one frame an evaluation, from the event files.',
    )
    hparams.define_flags(['num_images', 'data_dir', 'idx_dir'])
    flags.adopt_module_key_flags(hparams)
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
    params = trained_model(values.model_dir, values.data_dir)
    if mode == 'manifold' and params.latent_size != 2:
        raise UserError(
            '--mode=manifold needs a model with 2 latents, --model_dir={} has {}: choose '
            '--mode=traverse.'.format(values.model_dir, params.latent_size)
        )
    default = NEW_IMAGES if mode == 'prior' else _NAMES[mode] + '.png'
    if values.animate:
        default = _NAMES[mode] + '.gif'
    path = values.output or os.path.join(values.model_dir, default)
    write = files.write_output if values.output else files.write_bytes
    checkpoint_path = export.trained_checkpoint(values.model_dir)
    if values.animate:
        animate(path, values.model_dir, mode, write)
    elif mode == 'prior':
        write_new_images(path, values.num_images, values.seed, checkpoint_path, params, write)
    else:
        data = prepare_data.prepare(params.dataset, params.data_dir or None, values.idx_dir or None)
        images = validation_images(data, params)
        write_pictures({_NAMES[mode]: path}, images, checkpoint_path, params, write)
    if files.is_stream(path):  # Nothing else goes where the picture went.
        say(path)
    else:
        print(path)


if __name__ == '__main__':
    _define_flags()
    logs.run(main)
