"""The posterior means of images for TensorBoard's PROJECTOR.

They lie in `projector` in `model_dir`, with a checkpoint of their own: Estimator's `checkpoint` is
never touched. All names in it are relative, so `model_dir` can move.
"""

import io
import os
from typing import Callable, List, Optional, Tuple

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.text import summary as text_summary

from trainer.base import files
from trainer.checkpoints import weights
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.model import vae
from trainer.monitoring import lines, pictures
from trainer.monitoring.pictures import Picture
from trainer.settings import memory, wording
from trainer.settings.table import HParams

FOLDER = 'projector'
_NAME = 'posterior_mean'
_TABLE = 'posterior_mean.tsv'
_MOST_POINTS = 5000
_SPRITE_SIDE = 8192  # Pixels; TensorBoard 1.14 shows no larger sprite.
_BATCH = 500

ReadLabels = Callable[[int], Optional[List[int]]]


def write(
    checkpoint_path: str, data: PreparedDataset, read_labels: ReadLabels, params: HParams
) -> str:
    """Writes embedding, sprite, metadata and configuration; returns their folder.

    Of the first 5,000 validation images or windows, or as many as fit into the sprite.

    Args:
      read_labels: returns the labels of so many of the first validation images, None where there
        are none; only the metadata has them.
    """
    folder = os.path.join(params.model_dir, FOLDER)
    per_side = max(1, _SPRITE_SIDE // max(_tile_shape(params)[:2]))
    count = min(_MOST_POINTS, data.num_examples['validation'], per_side**2)
    means, sprite = _embed(checkpoint_path, data, count, params)
    files.write_bytes(os.path.join(folder, 'sprite.png'), sprite)
    lines = _metadata(read_labels(count), count)
    files.write_bytes(os.path.join(folder, 'metadata.tsv'), lines.encode())
    _save(means, folder)
    _configure(folder, '', params)
    if not tf.gfile.Glob(os.path.join(folder, 'events.out.tfevents.*')):
        # TensorBoard looks for configurations where there are event files.
        with tf.summary.FileWriter(folder) as events:
            noun = wording.examples(params)
            text = 'Posterior means of the first {:,} validation {}.'.format(count, noun)
            events.add_summary(text_summary.pb('projector', text))
    # For the run itself TensorBoard offers the weights of Estimator's checkpoint; this comes first.
    # It is read from a table, because a configuration names checkpoints by absolute paths only.
    table = io.BytesIO()
    np.savetxt(table, means, fmt='%.6g', delimiter='\t')
    files.write_bytes(os.path.join(folder, _TABLE), table.getvalue())
    _configure(params.model_dir, FOLDER, params, tensor_path=os.path.join(FOLDER, _TABLE))
    return folder


def _configure(folder: str, path: str, params: HParams, **embedding: str) -> None:
    """Writes the configuration of a run in `folder`, of files that lie in its subfolder `path`."""
    config = ProjectorConfig()
    metadata_path = os.path.join(path, 'metadata.tsv')
    entry = config.embeddings.add(tensor_name=_NAME, metadata_path=metadata_path, **embedding)
    entry.sprite.image_path = os.path.join(path, 'sprite.png')
    height, width, _ = _tile_shape(params)
    entry.sprite.single_image_dim.extend([width, height])
    content = text_format.MessageToString(config).encode()
    files.write_bytes(os.path.join(folder, 'projector_config.pbtxt'), content)


def _tile_shape(params: HParams) -> Tuple[int, int, int]:
    """Rows, columns and channels of an image in the sprite; windows are drawn small."""
    return lines.THUMBNAIL.shape if params.is_series else params.image_shape


def _embed(
    checkpoint_path: str, data: PreparedDataset, count: int, params: HParams
) -> Tuple[np.ndarray, bytes]:
    """The posterior means of the images, and a sprite of them."""
    batch = memory.images_at_once(params, _BATCH)
    with tf.Graph().as_default():
        dataset = inputs.eval_input_fn(data, 'validation', batch, params.binarization, count)
        images = dataset.make_one_shot_iterator().get_next()['images']
        mean = vae.encode(images, params).point()
        if params.is_series:
            levels = lines.drawn(images, lines.THUMBNAIL)
        else:
            levels = pictures.levels(images, params)
        all_images = tf.placeholder(tf.uint8, (None,) + _tile_shape(params))
        sprite = pictures.png(Picture(all_images, pictures.square_columns(count)), params)
        parts = []
        with tf.Session() as session:
            weights.restore(session, checkpoint_path)
            for _ in range(-(-count // batch)):
                parts.append(session.run([levels, mean]))
            pixels, means = [np.concatenate(part) for part in zip(*parts)]
            shape = (count,) + _tile_shape(params)
            return means, session.run(sprite, {all_images: pixels.reshape(shape)})


def _save(means: np.ndarray, folder: str) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable(_NAME, initializer=tf.zeros(means.shape))
        value = tf.placeholder(tf.float32, means.shape)
        session.run(variable.assign(value), {value: means})
        saver = tf.train.Saver(max_to_keep=1, save_relative_paths=True)
        saver.save(session, os.path.join(folder, 'embedding.ckpt'), write_meta_graph=False)


def _metadata(labels: Optional[List[int]], count: int) -> str:
    """One line an image; TensorBoard wants a header where there are several columns."""
    if labels is None:
        lines = [str(index) for index in range(count)]
    else:
        lines = ['label\tindex'] + [f'{label}\t{index}' for index, label in enumerate(labels)]
    return '\n'.join(lines) + '\n'
