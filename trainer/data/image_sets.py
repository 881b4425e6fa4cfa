"""Whole sets of images as a model of a run sees them: of a split, of another dataset, of a path.

They get the shape that the model takes where its run resized its images, by the same operations;
else another shape is refused. What a binarised model sees of a grey level x is a pixel that is 1
with probability x, drawn as a function of the image's number alone.
"""

import contextlib
import os
from typing import Callable, Iterable, Iterator, List, Optional, Sequence

import numpy as np
import tensorflow as tf

from trainer.base import errors, image_pixels
from trainer.base.errors import UserError, first_line
from trainer.data import array_file, inputs, new_images
from trainer.data.dataset import ImageSet, PreparedDataset
from trainer.data.new_images import Array, NewImages
from trainer.settings import table
from trainer.settings.table import HParams

FLAG = '--against'
Pixels = Callable[[np.ndarray], np.ndarray]


def is_path(text: str) -> bool:
    """Whether a value of `--against` is a folder or file; else it is a dataset's name."""
    looks_so = text.startswith(('/', './', '../')) or text.endswith(array_file.ENDINGS)
    return looks_so or os.path.exists(text)


def check_shape(shape: Sequence[int], params: HParams, flag: str) -> None:
    """Refuses images of (rows, columns, channels) that the model cannot take; raises UserError.

    Args:
      flag: that names them, with its value.
    """
    wanted = params.image_shape
    is_right = params.image_size or tuple(shape[:2]) == wanted[:2]
    if not is_right or not params.source_digest and shape[2] != wanted[2]:
        theirs, ours = (' x '.join(map(str, each)) for each in (shape, wanted))
        raise UserError(
            f'{flag} holds images of {theirs}, and the model in --model_dir={params.model_dir} '
            f'takes {ours}: give images of that size and number of channels.'
        )


def of_split(data: PreparedDataset, split: str, params: HParams, most: int) -> ImageSet:
    """The images of a split of a prepared dataset, at most `most` of them, spread over it."""
    in_split = data.num_examples[split]
    numbers = _spread(min(most, in_split), in_split)

    def blocks(at_once: int) -> Iterator[np.ndarray]:
        return _batched(_chosen(_read(data, split, params, at_once), numbers), at_once)

    return ImageSet(data.name, f'{split} images of {data.name}', len(numbers), in_split, blocks)


def of_path(path: str, params: HParams, most: int) -> ImageSet:
    """The images of a folder, of a .npy file, or of a .npz file's `x_test` or one array.

    Raises UserError where there are none, or of another shape.
    """
    source = new_images.of_source(path, FLAG)
    pixels_of = (
        _of_array(source, params) if isinstance(source, Array) else _of_files(source, params)
    )
    numbers = _spread(min(most, len(source)), len(source))

    def blocks(at_once: int) -> Iterator[np.ndarray]:
        for start in range(0, len(numbers), at_once):
            some = numbers[start : start + at_once]
            yield _as_seen(pixels_of(some), some, params)

    kind = 'file' if isinstance(source, Array) else 'folder'
    name, told = table.name_of_source(path), f'images of the {kind} {path}'
    return ImageSet(name, told, len(numbers), len(source), blocks)


def _of_array(source: Array, params: HParams) -> Pixels:
    """Returns what gives the images of an array by their numbers, in the model's shape."""
    check_shape(source.shape, params, source.flag)
    if source.is_binary and not params.is_binarised:
        raise UserError(
            f'{source.flag} holds no number above 1: are these black and white? Then save 255 '
            'times the array. Or grey levels in [0, 1]? Then save floats.'
        )
    shaped = _preparer(source.dtype, source.shape, params)
    white = 255 if source.is_binary else 1
    return lambda numbers: shaped(white * source.rows(numbers))


def _of_files(source: NewImages, params: HParams) -> Pixels:
    """Returns what gives the images of files by their numbers, in the model's shape."""
    rows, columns, channels = params.image_shape
    with tf.Graph().as_default():
        content = tf.placeholder(tf.string, [])
        pixels = image_pixels.of_file(content, channels)
        if params.image_size:
            pixels = image_pixels.fitted(pixels[tf.newaxis], [rows, columns], params.fit)[0]
        session = tf.Session(config=tf.ConfigProto(device_count={'GPU': 0}))

    def one(number: int) -> np.ndarray:
        image = source[number]
        try:
            found = session.run(pixels, {content: image.read()})
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = first_line(getattr(error, 'message', '')) or errors.reason(error)
            raise UserError(
                f'{image.named} cannot be read ({reason}): mend it or take it away.'
            ) from error
        check_shape(found.shape, params, image.named)
        return found

    return lambda numbers: np.stack([one(number) for number in numbers])


def _preparer(dtype: str, shape: Sequence[int], params: HParams) -> Pixels:
    size: Optional[Sequence[int]] = params.image_shape[:2] if params.image_size else None
    return image_pixels.preparer(dtype, shape, params.image_shape, size, params.fit)


def _read(data: PreparedDataset, split: str, params: HParams, at_once: int) -> Iterator[np.ndarray]:
    """Yields the images of a split, in their order, as the model sees them."""
    is_other = tuple(data.image_shape) != tuple(params.image_shape)
    binarization = 'none' if is_other else params.binarization
    # No default graph or session while another has the images: it may go on in another thread.
    with tf.Graph().as_default():
        dataset = inputs.eval_input_fn(data, split, at_once, binarization)
        batch = dataset.make_one_shot_iterator().get_next()['images']
        session = tf.Session()
    shaped = _preparer(data.dtype, data.image_shape, params)
    done = 0
    with contextlib.closing(session):
        while True:
            try:
                images = session.run(batch)
            except tf.errors.OutOfRangeError:
                return
            if is_other:
                is_bytes = data.dtype == 'uint8'
                levels = np.rint(255 * images).astype(np.uint8) if is_bytes else images
                numbers = np.arange(done, done + len(images))
                images = _as_seen(shaped(levels), numbers, params)
            yield images
            done += len(images)


def _as_seen(pixels: np.ndarray, numbers: np.ndarray, params: HParams) -> np.ndarray:
    """What the model sees of pixels `[n, rows, columns, channels]`, uint8 or floats in [0, 1]."""
    images = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        images /= np.float32(255)
    if params.is_binarised:
        shape = images.shape[1:]
        drawn = [np.random.RandomState(number).random_sample(shape) for number in numbers]
        images = (np.stack(drawn) < images).astype(np.float32)
    return images.reshape(-1, params.rows, params.row_features)


def _spread(count: int, in_all: int) -> np.ndarray:
    """`count` of the numbers 0 .. in_all - 1 that lie evenly over them."""
    return np.arange(count) * in_all // count


def _chosen(blocks: Iterable[np.ndarray], numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yields those images of blocks that have these ascending numbers, counted over all blocks."""
    first = 0
    for block in blocks:
        start, end = np.searchsorted(numbers, [first, first + len(block)])
        yield block[numbers[start:end] - first]
        first += len(block)


def _batched(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yields the images of blocks in batches of one size; the last may be smaller."""
    held: List[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        while count >= size:
            images = np.concatenate(held)
            yield images[:size]
            held, count = [images[size:]], count - size
    if count:
        yield np.concatenate(held)
