"""A small model as a run leaves it, for the tests of what is served; nothing is trained."""

import os

import numpy as np
import tensorflow as tf

from trainer.base import scaling
from trainer.model import vae
from trainer.serving import saved_model
from trainer.serving.thresholds import ValidationImages
from trainer.settings import storage
from trainer.settings.table import HParams

GREY, COLOUR, WINDOW = (8, 12, 1), (8, 4, 3), (9, 1, 2)
# Settings of a model of a series.
SERIES = {
    'image_shape': WINDOW, 'likelihood': 'normal_by_column', 'dataset': '', 'source': 'r.csv',
    'source_digest': 'x', 'scaling': (('heat', 20.0, 3.0), ('load', -5.0, 0.25)),
}  # fmt: skip
NUM_VALIDATION = 120


def write_model(folder, image_shape=GREY, inactive=0, **settings):
    """Writes settings and a checkpoint with random weights; returns (checkpoint, settings).

    The posteriors' last `inactive` dimensions do not depend on the image.
    """
    params = HParams(
        model_dir=str(folder), image_shape=image_shape, latent_size=3, lstm_units=5,
        decoder_units=8, decoder_channels=2, batch_size=5, **settings,
    )  # fmt: skip
    storage.save(params)
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        # For their weights.
        vae.prior(params)
        posterior = vae.encode(tf.zeros([1, params.rows, params.row_features]), params)
        vae.decode(posterior.mean, params)
        random = np.random.RandomState(1)
        with tf.Session() as session:
            session.run(step.assign(4))
            for variable in tf.trainable_variables():
                value = random.normal(scale=0.5, size=variable.shape.as_list())
                if inactive and '/posterior/' in variable.name:
                    value[..., -inactive:] = 0
                variable.load(value, session)
            path = tf.train.Saver().save(session, os.path.join(params.model_dir, 'model.ckpt-4'))
    return path, params


def write_export(folder, image_shape=GREY, **settings):
    """As `write_model`, with an export; returns (export, checkpoint, settings)."""
    checkpoint_path, params = write_model(folder, image_shape, **settings)
    validation = validation_of(params)
    exported = saved_model.export_saved_model(
        'final', checkpoint_path, params, validation=validation
    )
    return exported, checkpoint_path, params


def validation_of(params, count=NUM_VALIDATION):
    """Random images that stand for the validation split; windows of a series lie in stretches."""

    def batches():
        images = images_of(params, count).reshape([count, params.rows, params.row_features])
        return iter(np.array_split(scaling.standardised(images, params.scaling), 3))

    starts = None
    if params.is_series:
        starts = np.arange(count) + 100 * (np.arange(count) // 50)
    return ValidationImages(count, 2 * count, batches, starts)


def pixels_of(params, count):
    """Random images, uint8 `[count, rows, columns, channels]`; of binarised models 0 and 255."""
    shape = (count,) + params.image_shape
    pixels = np.random.RandomState(count).randint(0, 256, shape)
    pixels = pixels if params.binarization == 'none' else 255 * (pixels >= 128)
    return pixels.astype(np.uint8)


def images_of(params, count):
    """The same as clients send them, float32; of a series, windows in their units."""
    if params.is_series:
        windows = np.random.RandomState(count).standard_normal([count, *params.served_shape])
        return scaling.in_units(windows.astype(np.float32), params.scaling)
    images = (pixels_of(params, count) / 255).astype(np.float32)
    return images.reshape([count] + params.served_shape)
