"""Image files: which ones `--images` names, and what is in them, not decoded."""

import contextlib
import os
import re
import struct
from typing import Any, Callable, Iterator, List, NamedTuple, Tuple

import numpy as np
import tensorflow as tf

from trainer.base.console import say
from trainer.base.errors import UserError

# Of images of 0 and 1: the grey level from which on a pixel is 1.
FIRST_LEVEL_OF_ONE = 128
ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.gif')
ENDINGS_TEXT = f'{", ".join(ENDINGS[:-1])} or {ENDINGS[-1]}'
# Of what is decoded: a small file may claim to hold a billion pixels.
LONGEST_SIDE = 8192
# Where files keep columns and rows: how they start, how these are packed, and from which byte.
_SIZES = (
    (rb'\x89PNG', '>II', 16),
    (rb'GIF8', '<HH', 6),
    (rb'(?s)BM.{12}\x0c\0\0\0', '<HH', 18),  # OS/2's
    (rb'BM', '<ii', 18),
)


class NewImage(NamedTuple):
    """An image that a model has to score."""

    id: str  # Text that tells it from the others of its source.
    named: str  # What an error calls it, such as '--images=0.png'.
    # Returns an encoded file, or pixels `[rows, columns, channels]`; raises UserError, OSError or
    # ValueError.
    read: Callable[[], Any]


def paths(text: str) -> List[str]:
    """Returns the files that `--images` means: those it lists, or the images of a folder.

    Says which files of a folder are none by their names. Raises UserError where there are none.
    """
    found: List[str] = []
    for path in text.split(','):
        with _refusing(f'--images={path}'):
            exists = tf.gfile.Exists(path)
        if tf.gfile.IsDirectory(path):
            names = sorted(tf.gfile.ListDirectory(path))
            images = [name for name in names if name.lower().endswith(ENDINGS)]
            if not images:
                raise UserError(f'--images={path} holds no file that ends in {ENDINGS_TEXT}.')
            found += [os.path.join(path, name) for name in images]
            others = [name for name in names if name not in images and not name.startswith('.')]
            if others:
                listed = ', '.join(others[:5]) + (' and more' if len(others) > 5 else '')
                say(f'{path}: left out what does not end in {ENDINGS_TEXT}: {listed}')
        elif exists:
            found.append(path)
        else:
            raise UserError(f'--images={path}: there is no such file or folder.')
    return found


@contextlib.contextmanager
def _refusing(named: str) -> Iterator[None]:
    """Turns TensorFlow's words, that a path cannot be read, into a UserError."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f'{named} cannot be read ({error.message}).') from error


def read(path: str, named: str) -> bytes:
    """Returns the content of an image file; raises UserError for what is far too large, too.

    Args:
      named: what the error calls it, such as '--images=0.png'.
    """
    # As bytes: its name need not be UTF-8.
    with _refusing(named), tf.gfile.GFile(os.fsencode(path), 'rb') as f:
        content = f.read()
    rows, columns = claimed_size(content)
    if max(rows, columns) > LONGEST_SIDE:
        raise UserError(
            f'{named} holds {columns:,} x {rows:,} pixels by its header: give images of '
            "the model's size."
        )
    return content


def claimed_size(content: bytes) -> Tuple[int, int]:
    """Returns rows and columns of an image file by its header; zeros of what is none."""
    for start, order, at in _SIZES:
        end = at + struct.calcsize(order)
        if re.match(start, content) and len(content) >= end:
            columns, rows = struct.unpack(order, content[at:end])
            return abs(rows), abs(columns)  # A BMP file from top to bottom has a negative one.
    at = 2
    while content.startswith(b'\xff\xd8') and at + 9 <= len(content):
        marker, length = struct.unpack('>xBH', content[at : at + 4])
        if marker == 0xFF or content[at] != 0xFF:  # What fills the gap before a marker.
            at = content.find(b'\xff', at + 1)
            if at < 0:
                break
            continue
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
