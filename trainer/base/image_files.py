"""The image files that `--images` names: which they are, and what is in them, not decoded."""

import os
import struct
from typing import List, Tuple

import numpy as np
import tensorflow as tf

from trainer.base.console import say
from trainer.base.errors import UserError

# Of images of 0 and 1: the grey level from which on a pixel is 1.
FIRST_LEVEL_OF_ONE = 128
_ENDINGS = ('.png', '.jpg', '.jpeg')
# Sides of images that are sent to be decoded. A small file may claim to hold a billion pixels.
_MOST_ROWS = _MOST_COLUMNS = 8192


def paths(text: str) -> List[str]:
    """Returns the files that `--images` means: those it lists, or the images of a folder.

    Says which files of a folder are none by their names.

    Raises:
      UserError: there are none.
    """
    found: List[str] = []
    for path in text.split(','):
        try:
            exists = tf.gfile.Exists(path)
        except tf.errors.OpError as error:
            raise UserError(f'--images={path} cannot be read ({error.message}).') from error
        if tf.gfile.IsDirectory(path):
            names = sorted(tf.gfile.ListDirectory(path))
            images = [name for name in names if name.lower().endswith(_ENDINGS)]
            if not images:
                raise UserError(f'--images={path} holds no file that ends in .png, .jpg or .jpeg.')
            found += [os.path.join(path, name) for name in images]
            _say_what_is_left_out(path, sorted(set(names) - set(images)))
        elif exists:
            found.append(path)
        else:
            raise UserError(f'--images={path}: there is no such file or folder.')
    return found


def _say_what_is_left_out(folder: str, names: List[str]) -> None:
    names = [name for name in names if not name.startswith('.')]
    if names:
        listed = ', '.join(names[:5]) + (' and more' if len(names) > 5 else '')
        say(f'{folder}: left out what does not end in .png, .jpg or .jpeg: {listed}')


def read(path: str) -> bytes:
    """Returns the content of an image file.

    Raises:
      UserError: it cannot be read, or is far too large by its header.
    """
    try:
        with tf.gfile.GFile(path, 'rb') as f:
            content = f.read()
    except tf.errors.OpError as error:
        raise UserError(f'--images={path} cannot be read ({error.message}).') from error
    rows, columns = claimed_size(content)
    if rows > _MOST_ROWS or columns > _MOST_COLUMNS:
        raise UserError(
            f'--images={path} holds {columns:,} x {rows:,} pixels by its header: give images of '
            "the model's size."
        )
    return content


def claimed_size(content: bytes) -> Tuple[int, int]:
    """Returns rows and columns of a PNG, JPEG or GIF file by its header; zeros of what is none."""
    if content.startswith(b'\x89PNG') and len(content) >= 24:
        columns, rows = struct.unpack('>II', content[16:24])
        return rows, columns
    if content.startswith(b'GIF8') and len(content) >= 10:
        columns, rows = struct.unpack('<HH', content[6:10])
        return rows, columns
    at = 2
    while content.startswith(b'\xff\xd8') and at + 9 <= len(content):
        marker, length = struct.unpack('>xBH', content[at : at + 4])
        # A start of frame; among them are three that are none.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack('>HH', content[at + 5 : at + 9])
            return rows, columns
        at += 2 + length
    return 0, 0


def encode_png(images: np.ndarray) -> List[bytes]:
    """Encodes uint8 `[n, rows, columns, channels]`, each as a PNG file, with TF's own encoder."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run([tf.image.encode_png(tf.constant(image)) for image in images])
