"""New images as a model takes them: the rows of an array, or files without an export."""

from typing import Any, Callable, Dict, Sequence

import numpy as np
import tensorflow as tf

from trainer.base import image_pixels
from trainer.base.errors import UserError, first_line
from trainer.base.image_files import FIRST_LEVEL_OF_ONE
from trainer.serving import signatures
from trainer.serving.client import Contents, Outputs, Refused
from trainer.settings.table import HParams

# Makes of pixels, uint8 or float32 `[n, rows, columns, channels]`, what a signature takes.
Prepare = Callable[[np.ndarray], Contents]
_KINDS = {1: 'grey', 3: 'colour'}


def of_array(
    flag: str, shape: Sequence[int], dtype: str, is_binary: bool, settings: Dict[str, Any]
) -> Prepare:
    """Returns what makes float32 `[n, *served shape]` of pixels, as the training images were made.

    Args:
      flag: the one that names the array, as '--source=x.npy'.
      shape: (rows, columns, channels) of the images in it.
      dtype: 'uint8', or 'float32' of numbers in [0, 1].
      is_binary: whether they are bytes of 0 and 1.
      settings: of the model, as `settings.json` of an export holds them.

    Raises:
      UserError: images of such a size or kind are none of the model's.
    """
    image_shape, is_binarised = settings['image_shape'], settings['is_binarised']
    is_resized = bool(settings['own'] and settings['image_size'])
    if not is_resized and list(shape[:2]) != list(image_shape[:2]):
        raise UserError(
            f'{flag} holds images of {shape[0]} x {shape[1]} pixels, and the model takes '
            f"{image_shape[0]} x {image_shape[1]}: give images of the model's size."
        )
    if not settings['own'] and shape[2] != image_shape[2]:
        raise UserError(
            f'{flag} holds {_KINDS[shape[2]]} images, and the model takes '
            f'{_KINDS[image_shape[2]]} ones: give such.'
        )
    if is_binary and not is_binarised:
        raise _all_black(flag)
    size = image_shape[:2] if is_resized else None
    prepared = image_pixels.preparer(dtype, shape, image_shape, size, settings['fit'])
    served_shape = image_shape if image_shape[2] > 1 else image_shape[:2]

    def prepare(pixels: np.ndarray) -> np.ndarray:
        values = prepared(255 * pixels if is_binary else pixels)
        if is_binarised:
            values = values >= (FIRST_LEVEL_OF_ONE if dtype == 'uint8' else 0.5)
        elif dtype == 'uint8':
            values = values / np.float32(255)
        return values.astype(np.float32).reshape(-1, *served_shape)

    return prepare


def of_array_for_server(flag: str, shape: Sequence[int], dtype: str, is_binary: bool) -> Prepare:
    """Returns what makes of pixels what a server takes whose model nothing is known of.

    Of bytes PNG files, which it prepares itself. Of floats arrays of the served shape, which are
    right for models of such images alone.

    Args and Raises: as `of_array`.
    """
    if dtype != 'uint8':
        return lambda pixels: pixels.reshape(-1, *(shape if shape[2] > 1 else shape[:2]))
    if is_binary:
        raise _all_black(flag)
    with tf.Graph().as_default():  # One for all: `image_files.encode_png` makes one a call.
        image = tf.placeholder(tf.uint8, list(shape))
        png, session = tf.image.encode_png(image, compression=1), tf.Session()
    return lambda pixels: [session.run(png, {image: one}) for one in pixels]


def _all_black(flag: str) -> UserError:
    return UserError(
        f'{flag} holds no number above 1: are these black and white? Then save 255 times the '
        'array. Or grey levels in [0, 1]? Then save floats.'
    )


def of_files(params: HParams) -> Callable[[Contents], Outputs]:
    """Returns what decodes files as an export does, to `images` float32 `[n, *served shape]`.

    It raises Refused where that refuses some.
    """
    with tf.Graph().as_default():
        image_bytes = tf.placeholder(tf.string, [None], name='image_bytes')
        images, session = signatures.decoded_files(image_bytes, params).values, tf.Session()

    def decode(contents: Contents) -> Outputs:
        try:
            return {'images': session.run(images, {image_bytes: list(contents)})}
        except tf.errors.InvalidArgumentError as error:
            raise Refused(first_line(error.message)) from error

    return decode
