"""Draws images from a trained model: `python -m trainer.generate --model_dir=...`."""

import os
from typing import Any, Callable, List, Optional

import numpy as np
import tensorflow as tf
from absl import flags

from trainer import drawing, hparams, logs, model
from trainer.errors import UserError
from trainer.hparams import HParams

_BATCH = 1000


def decode(latents: np.ndarray, checkpoint_path: str, params: HParams) -> np.ndarray:
    """Decodes latents with the weights of a checkpoint.

    Args:
      latents: float32 `[n, latent_size]`.

    Returns:
      The pixels' means, float32 `[n, rows, columns, channels]` in [0, 1].
    """
    return _in_batches(
        lambda latents: model.decode(latents, params), [latents], checkpoint_path, params
    )


def draw_from_prior(count: int, seed: int, checkpoint_path: str, params: HParams) -> np.ndarray:
    """Decodes `count` draws from the prior; returns as `decode` does."""
    random = np.random.RandomState(seed)
    noise = random.standard_normal([count, params.latent_size])
    choice = random.uniform(size=count)
    return _in_batches(
        lambda noise, choice: model.sample_prior(noise, choice, params),
        [noise, choice],
        checkpoint_path,
        params,
    )


def _in_batches(
    build: Callable[..., Any], arrays: List[np.ndarray], checkpoint_path: str, params: HParams
) -> np.ndarray:
    """Returns the mean of the likelihood that `build` makes of float32 `arrays`, all `[n, ...]`."""
    with tf.Graph().as_default():
        inputs = [tf.placeholder(tf.float32, [None, *array.shape[1:]]) for array in arrays]
        images = build(*inputs).mean()
        with tf.Session() as session:
            tf.train.Saver().restore(session, checkpoint_path)
            decoded = [
                session.run(
                    images, {x: array[start : start + _BATCH] for x, array in zip(inputs, arrays)}
                )
                for start in range(0, len(arrays[0]), _BATCH)
            ]
    return np.concatenate(decoded).reshape((-1,) + params.image_shape)


def grid_columns(count: int) -> int:
    """Images in a row of a grid that is as square as can be: 10 for 100."""
    return int(np.ceil(np.sqrt(count)))


def write_new_images(
    path: str, count: int, seed: int, checkpoint_path: str, params: HParams
) -> str:
    """Draws `count` images from the prior into one PNG grid; returns its path."""
    images = draw_from_prior(count, seed, checkpoint_path, params)
    return drawing.write_grid(path, images, grid_columns(count))


def trained_model(model_dir: str) -> HParams:
    """Returns the settings of the model in `model_dir`.

    Raises:
      UserError: there is no trained model of this trainer.
    """
    params: Optional[HParams] = hparams.load(model_dir)
    if params is None or tf.train.latest_checkpoint(model_dir) is None:
        raise UserError(
            '--model_dir={} holds no trained model: give the folder of a run of '
            'trainer.task.'.format(model_dir)
        )
    return params


def _define_flags() -> None:
    flags.DEFINE_string('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    hparams.define_flags(['num_images'])
    flags.adopt_module_key_flags(hparams)
    flags.DEFINE_integer('seed', 1, 'Seed of the noise.', lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_string('output', None, 'PNG file. Default: new_images.png in model_dir.')


def main(argv: list) -> None:
    """Reads the flags, draws, says where to."""
    del argv
    values = flags.FLAGS
    params = trained_model(values.model_dir)
    path = values.output or os.path.join(values.model_dir, 'new_images.png')
    checkpoint_path = tf.train.latest_checkpoint(values.model_dir)
    print(write_new_images(path, values.num_images, values.seed, checkpoint_path, params))


if __name__ == '__main__':
    _define_flags()
    logs.run(main)
