"""Images of a user's own: folders and array files of small pictures."""

import dataclasses
import os

import numpy as np
from PIL import Image

from trainer.data import prepare
from trainer.settings import rules
from trainer.settings.table import HParams


def pictures(count, shape=(6, 5), seed=0):
    """Random pictures, uint8 `[count, *shape]`."""
    return np.random.RandomState(seed).randint(0, 256, [count, *shape]).astype(np.uint8)


def write_folder(folder, images, name='{}.png'):
    """Writes pictures to files `0.png` and so on; returns the folder's path."""
    for number, image in enumerate(images):
        path = os.path.join(str(folder), name.format(number))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.fromarray(image).save(path)
    return str(folder)


def write_array(path, images):
    np.save(str(path), images)
    return str(path)


def params_of(source, data_dir, **settings):
    params = HParams(dataset='', source=str(source), data_dir=str(data_dir), **settings)
    rules.check_images(params)
    return params


def prepared(source, data_dir, **settings):
    """Prepares a source as a training on this machine alone does."""
    return prepare.of_run(params_of(source, data_dir, **settings))


def pixels(data, split):
    """What a prepared dataset holds, `[n, rows, columns, channels]`."""
    path = data.files[split].replace('file://', '')
    return np.fromfile(path, data.dtype).reshape(-1, *data.image_shape)


def settled(params, data):
    """The settings once the data are known."""
    return dataclasses.replace(params, image_shape=data.image_shape, source_digest=data.digest)
