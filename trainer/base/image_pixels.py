"""The pixels that an image file or an array becomes, for a model of a user's own images.

These ops prepare the images and are part of the served graph: the same file gives the same pixels
here and there. TensorFlow's decoder reads PNG and JPEG; Pillow makes PNG of BMP and GIF files.
"""

import io
from typing import Callable, Optional, Sequence

import numpy as np
import tensorflow as tf

# White lies under transparent pixels, and beside images that --fit=pad makes whole.
_BACKGROUND = 255
# Luma of ITU-R BT.601, as JPEG and Pillow take it, in thousandths: grey pixels stay as they are.
_LUMA = (299, 587, 114)


def as_png(content: bytes) -> bytes:
    """Returns the image of a BMP file, or the first one of a GIF file, as a PNG file.

    Other content is returned as it is. Raises OSError or ValueError for a broken file.
    """
    if not content.startswith((b'BM', b'GIF8')):
        return content
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image, io.BytesIO() as png:
            image.convert('RGBA').save(png, 'PNG')
            return png.getvalue()
    except (SyntaxError, IndexError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def of_file(content: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a PNG or JPEG file, a scalar string, to uint8 `[rows, columns, channels]`.

    Of 16 bits the upper 8 count. Transparent pixels are put on white. EXIF orientation is not read.
    """
    decoded = tf.cond(
        starts_with(content, b'\x89PNG'),
        lambda: _on_background(tf.image.decode_png(content, channels=4), content),
        # It reads JPEG too, but with no alpha; an unknown format fails in it.
        lambda: tf.image.decode_png(content, channels=3),
    )
    decoded.set_shape([None, None, 3])
    return with_channels(decoded, channels)


def starts_with(content: tf.Tensor, start: bytes) -> tf.Tensor:
    """Returns whether a scalar string begins with some bytes, at most four.

    Compared as numbers, because tf2onnx 1.17 ends at strings that are not UTF-8.
    """
    padded = tf.strings.substr(tf.strings.join([content, '    ']), 0, len(start))
    return tf.reduce_all(tf.equal(tf.decode_raw(padded, tf.uint8), list(start)))


def is_opaque_png(rgba: tf.Tensor, png: tf.Tensor) -> tf.Tensor:
    """Returns whether all pixels of a PNG file are opaque, given how it is decoded, with alpha."""
    return tf.reduce_all(tf.equal(_alpha(rgba, png), 255))


def _alpha(rgba: tf.Tensor, png: tf.Tensor) -> tf.Tensor:
    """The alpha of a decoded PNG file, int32 `[rows, columns, 1]`.

    TensorFlow's decoder fills the alpha of a file of 1, 2 or 4 bits that has none with 1, 3 or 15.
    """
    alpha = tf.cast(rgba[:, :, 3:], tf.int32)
    bits = tf.cast(tf.decode_raw(tf.strings.substr(png, 24, 1), tf.uint8), tf.int32)
    filler = tf.minimum(tf.bitwise.left_shift(1, bits) - 1, 255)
    has_none = tf.reduce_all(tf.equal(alpha, filler))
    return tf.maximum(alpha, 255 * tf.cast(has_none, tf.int32))


def _on_background(rgba: tf.Tensor, png: tf.Tensor) -> tf.Tensor:
    alpha = _alpha(rgba, png)
    over = tf.cast(rgba[:, :, :3], tf.int32) * alpha + _BACKGROUND * (255 - alpha)
    return tf.cast((over + 127) // 255, tf.uint8)


def with_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns uint8 or float pixels `[..., 1 or 3]` with `channels` of them, 1 or 3."""
    if pixels.shape.as_list()[-1] == channels:
        return pixels
    if channels == 3:
        return tf.concat([pixels] * 3, axis=-1)
    if pixels.dtype != tf.uint8:
        return tf.reduce_sum(pixels * (np.array(_LUMA) / 1000.0), axis=-1, keepdims=True)
    luma = tf.reduce_sum(tf.cast(pixels, tf.int32) * _LUMA, axis=-1, keepdims=True)
    return tf.cast((luma + 500) // 1000, tf.uint8)


def is_grey(pixels: tf.Tensor) -> tf.Tensor:
    """Returns whether all channels of pixels `[..., channels]` are the same."""
    return tf.reduce_all(tf.equal(pixels, pixels[..., :1]))


def fitted(pixels: tf.Tensor, size: Sequence[int], fit: str) -> tf.Tensor:
    """Resizes images `[n, rows, columns, channels]`, uint8 or float in [0, 1], to (rows, columns).

    Each new pixel is the mean of the area that it covers. `fit`: 'stretch' stretches the sides;
    'pad' keeps their ratio, with white at both ends of the shorter one.
    """
    rows, columns = size
    shape = tf.shape(pixels)
    inner = tf.constant([rows, columns])
    if fit == 'pad':  # In whole numbers, which all runtimes round alike.
        scaled_columns = (2 * shape[2] * rows + shape[1]) // (2 * shape[1])
        scaled_rows = (2 * shape[1] * columns + shape[2]) // (2 * shape[2])
        inner = tf.minimum(inner, tf.maximum(1, tf.stack([scaled_rows, scaled_columns])))
    resized = tf.image.resize_area(pixels, inner)
    if pixels.dtype == tf.uint8:
        resized = tf.cast(tf.round(resized), tf.uint8)
    else:
        resized = tf.clip_by_value(tf.cast(resized, pixels.dtype), 0, 1)
    if fit == 'pad':
        white = _BACKGROUND if pixels.dtype == tf.uint8 else 1
        gaps = tf.stack([rows, columns]) - inner
        around = tf.stack([[0, 0], *tf.unstack(tf.stack([gaps // 2, gaps - gaps // 2], 1)), [0, 0]])
        resized = tf.pad(resized, around, constant_values=tf.cast(white, pixels.dtype))
    resized.set_shape([None, rows, columns, pixels.shape.as_list()[3]])
    return resized


def preparer(
    dtype: str,
    shape: Sequence[int],
    image_shape: Sequence[int],
    size: Optional[Sequence[int]],
    fit: str,
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what makes images of `image_shape` of blocks of `shape`, (rows, columns, channels).

    Args:
      dtype: of the blocks, 'uint8' or 'float32'.
      size: (rows, columns) that all are resized to, as `fit` says; None: as they are.
    """
    if tuple(shape) == tuple(image_shape):
        return lambda block: block
    with tf.Graph().as_default():
        block = tf.placeholder(dtype, [None, *shape])
        pixels = with_channels(block, image_shape[2])
        if size is not None:
            pixels = fitted(pixels, size, fit)
        session = tf.Session(config=tf.ConfigProto(device_count={'GPU': 0}))
    return lambda images: session.run(pixels, {block: images.reshape(-1, *shape)})
