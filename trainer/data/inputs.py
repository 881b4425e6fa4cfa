"""`input_fn`s: images of a prepared dataset as features. Labels are not among them.

Training order is a function of (seed, global step) alone: epoch e is a permutation of the whole
train split drawn from (seed, e), and step s takes images s x batch_size and following of that
endless sequence. A resumed run therefore continues exactly where an unbroken one would be, although
Estimator builds and seeds its graph anew at every start. `Dataset.shuffle` would not do: TF 1.14
combines its seed with the graph's, so the order would change with `RunConfig.tf_random_seed`.

Binary images, where they are not stored as such, are drawn from grey ones: a pixel is 1 with
probability grey / 255 or, of grey levels that are stored as numbers in [0, 1], grey. In the fixed
sampling the draw is a function of (split, number of the image) alone, so all runs, whatever their
seed, are evaluated on the same binary images; training is on the same ones each time (static), or
on new ones, a function of (seed, global step), each time an image is seen (dynamic). The noise of
dequantised grey levels (uniform) is drawn as that of dynamic ones.
"""

from typing import Callable, Dict, Iterator, Optional, Union

import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops import dataset_ops

from trainer.base.console import say
from trainer.base.scaling import standardised
from trainer.data.dataset import SPLITS, PreparedDataset
from trainer.data.stored_images import BinaryImages, ImageFile

# Batches ready in advance. The longest gap is the new permutation at an epoch's end, shorter than
# one training step; four also cover a reader that is not scheduled on busy cores.
_PREFETCH = 4
# Images whose fixed sampling is one draw. Another number would make other images.
_BLOCK = 1000
# Larger train splits are read from their file, an image when it is wanted.
_MOST_BYTES_IN_MEMORY = 1 << 30


def train_input_fn(
    prepared: PreparedDataset, batch_size: int, seed: int, start_step: int, sampling: str
) -> tf.data.Dataset:
    """Endless shuffled batches of the train split, from the batch of step `start_step` on.

    They are {'images': float32 [batch_size, rows, columns * channels]}, every dimension static;
    grey levels in [0, 1], or 0 and 1. A split of up to 1 GiB is held in memory as stored (43 MB for
    MNIST). Of a larger local one, and of a series, the images of each batch are read from the file,
    in the same order; their fixed sampling is held in memory, as a bit a pixel. Readings are
    standardised: less the mean of their column, over its deviation.

    Args:
      seed: any 64-bit integer.
      start_step: a run resumed with another batch size starts elsewhere in the sequence.
      sampling: 'none', 'static', 'dynamic' or 'uniform'.
    """
    num_examples = prepared.num_examples['train']
    is_sampled = sampling == 'static' and not prepared.is_binary
    gather = _gather_from_disk(prepared, is_sampled) if _is_large(prepared) else tf.gather
    first_epoch, offset = divmod(start_step * batch_size, num_examples)

    def permuted(epoch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(_permutation(seed, epoch, num_examples))

    def batches(split: tf.Tensor) -> tf.data.Dataset:
        def features(indices: tf.Tensor, step: tf.Tensor) -> Dict[str, tf.Tensor]:
            pixels = gather(split, indices)
            if sampling in ('dynamic', 'uniform'):
                # Neither a permutation nor the latents' noise has a negative number in its seed.
                of_step = tf.stack([tf.constant(seed, tf.int64), -1 - step])
                pixels = _sampled(pixels, of_step, sampling)
            return _features(pixels, prepared, sampling)

        order = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(permuted)
        batched = order.skip(offset).batch(batch_size, drop_remainder=True)
        steps = tf.data.Dataset.range(start_step, tf.int64.max)
        found = tf.data.Dataset.zip((batched, steps)).map(features)
        if gather is tf.gather:
            return found
        # What waits for a disk does so in a thread of its own, not in one of those that compute. By
        # tf.data.Options the main graph would have more ops, and so other initial weights.
        return dataset_ops._PrivateThreadPoolDataset(found, 1)

    def whole(path: tf.Tensor) -> tf.Tensor:
        pixels = tf.decode_raw(tf.read_file(path), prepared.dtype)
        return tf.reshape(pixels, [num_examples, prepared.image_pixels])

    # One element, the whole split or, of a large one, its path, read when the first batch is
    # wanted. It stays inside the dataset's functions and so never becomes a constant of the graph.
    with tf.name_scope('input'):
        if is_sampled and gather is tf.gather:
            split = _fixed_sampling(prepared, 'train', sampling)
            split = split.batch(num_examples, drop_remainder=True)
        else:
            split = tf.data.Dataset.from_tensors(prepared.files['train'])
            # As many ops for all splits: the initial weights depend on their number.
            split = split.map(whole if gather is tf.gather else tf.identity)
        return _plain(split.flat_map(batches).prefetch(_PREFETCH))


def eval_input_fn(
    prepared: PreparedDataset,
    split: str,
    batch_size: int,
    sampling: str,
    num_examples: Optional[int] = None,
    spread: bool = False,
) -> tf.data.Dataset:
    """One pass over a split, or its first `num_examples` images, in its stored order.

    With `spread` they are not the first, but whole blocks of 1,000 that lie evenly over the split,
    which may be sorted; `num_examples` is a number of such blocks, and no other is read.

    Batches are as `train_input_fn`'s, but their size is not static: the last may be smaller. The
    split 'test' is for the final evaluation only. The samplings 'static' and 'dynamic' are one and
    the same.
    """
    with tf.name_scope('input'):
        blocks = None if num_examples is None or not spread else num_examples // _BLOCK
        if sampling != 'none' and not prepared.is_binary:
            images = _fixed_sampling(prepared, split, sampling, blocks)
        elif blocks is not None:
            found = _spread_blocks(prepared, split, blocks).map(lambda records, _: records)
            images = found.flat_map(tf.data.Dataset.from_tensor_slices)
        else:
            images = _records(prepared, split)
        if num_examples is not None:
            images = images.take(num_examples)
        batches = images.batch(batch_size)
        features = batches.map(lambda batch: _features(batch, prepared, sampling))
        return _plain(features.prefetch(_PREFETCH))


def batches_of(
    prepared: PreparedDataset, split: str, count: int, batch_size: int, sampling: str
) -> Iterator[np.ndarray]:
    """Yields `count` images of a split as the model sees them, float32 `[n, rows, features]`.

    Where the split has more, they lie evenly over it: `count` is then a multiple of 1,000.
    """
    spread = count < prepared.num_examples[split]
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = eval_input_fn(prepared, split, batch_size, sampling, count, spread)
        batch = dataset.make_one_shot_iterator().get_next()['images']
        while True:
            try:
                yield session.run(batch)
            except tf.errors.OutOfRangeError:
                return


def numbers_read(in_split: int, count: int) -> np.ndarray:
    """Returns the numbers of the images that `batches_of` yields, int64 `[count]`."""
    if count == in_split:
        return np.arange(in_split)
    blocks = count // _BLOCK
    firsts = np.arange(blocks) * -(-in_split // _BLOCK) // blocks * _BLOCK
    return (firsts[:, np.newaxis] + np.arange(_BLOCK)).ravel()


def first_images(prepared: PreparedDataset, split: str, count: int, sampling: str) -> np.ndarray:
    """Returns the first images of a split as the model sees them, float32 `[n, rows, features]`.

    Arguments as of `eval_input_fn`; `n` is `count`, or all of the split where it has fewer.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = eval_input_fn(prepared, split, count, sampling, num_examples=count)
        return session.run(dataset.make_one_shot_iterator().get_next()['images'])


def _is_large(prepared: PreparedDataset) -> bool:
    """Whether the train split is not to be held in memory; what is remote cannot but be."""
    if prepared.windows:  # What overlaps is read from the file's pages, and held once.
        return True
    return (
        prepared.file_bytes('train') > _MOST_BYTES_IN_MEMORY
        and '://' not in prepared.files['train']
    )


def _gather_from_disk(
    prepared: PreparedDataset, is_sampled: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns what stands for `tf.gather`, of the path of the train split and of indices [n].

    It gives [n, rows * columns * channels] pixels as stored or, if `is_sampled`, as the fixed
    sampling drew them.
    """
    pixels, dtype = prepared.image_pixels, 'uint8' if is_sampled else prepared.dtype
    images = _sampled_bits(prepared) if is_sampled else _file(prepared, 'train')

    def gather(path: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        del path  # The file is open.
        found = tf.py_func(images, [indices], dtype)
        return tf.ensure_shape(found, [indices.shape[0].value, pixels])

    return gather


def _file(prepared: PreparedDataset, split: str) -> ImageFile:
    offsets = prepared.offsets(split)
    return ImageFile(prepared.files[split], prepared.image_pixels, prepared.dtype, offsets)


def _sampled_bits(prepared: PreparedDataset) -> BinaryImages:
    """Draws the fixed sampling of the train split, in a graph of its own."""
    count = prepared.num_examples['train']
    say(f'{prepared.name}: drawing the pixels of its {count:,} training images once.')
    images = BinaryImages(count, prepared.image_pixels)
    with tf.Graph().as_default(), tf.Session() as session:
        blocks = _fixed_sampling(prepared, 'train', 'static').batch(_BLOCK)
        block = blocks.make_one_shot_iterator().get_next()
        for first in range(0, count, _BLOCK):
            images.put(first, session.run(block))
    return images


def _permutation(seed: int, epoch: tf.Tensor, size: int) -> tf.Tensor:
    """int32 [size]: a permutation of 0 .. size - 1 that depends on (seed, epoch) only.

    Random keys are sorted. They are stateless: no graph-level seed changes them.
    """
    both = tf.stack([tf.constant(seed, tf.int64), epoch])
    keys = tf.random.stateless_uniform([size], both, maxval=tf.int64.max, dtype=tf.int64)
    return tf.nn.top_k(keys, k=size).indices


def _records(
    prepared: PreparedDataset, split: str, first: Optional[tf.Tensor] = None
) -> tf.data.Dataset:
    """The images of a split in their stored order, from the number `first` on.

    Each is a string of its bytes; of a series, float32 `[rows * columns]`.
    """
    if prepared.windows:
        return _windows(prepared, split, 0 if first is None else first)
    header_bytes = None if first is None else first * prepared.image_bytes
    return tf.data.FixedLengthRecordDataset(
        prepared.files[split], prepared.image_bytes, header_bytes, buffer_size=1 << 20
    )


def _windows(
    prepared: PreparedDataset, split: str, first: Union[int, tf.Tensor]
) -> tf.data.Dataset:
    """As `_records`, of a series, whose windows overlap in the file."""
    read = _file(prepared, split)

    def images(numbers: tf.Tensor) -> tf.data.Dataset:
        found = tf.py_func(read, [numbers], prepared.dtype)
        found.set_shape([None, prepared.image_pixels])
        return tf.data.Dataset.from_tensor_slices(found)

    numbers = tf.data.Dataset.range(first, prepared.num_examples[split])
    return numbers.batch(_BLOCK).flat_map(images)


def _spread_blocks(prepared: PreparedDataset, split: str, count: int) -> tf.data.Dataset:
    """Of all blocks of a split, `count` that lie evenly over it: records [_BLOCK], and a number."""
    in_split = -(-prepared.num_examples[split] // _BLOCK)

    def block(turn: tf.Tensor) -> tf.data.Dataset:
        number = turn * in_split // count
        records = _records(prepared, split, number * _BLOCK)
        return records.batch(_BLOCK).take(1).map(lambda some: (some, number))

    return tf.data.Dataset.range(count).flat_map(block)


def _fixed_sampling(
    prepared: PreparedDataset, split: str, sampling: str, num_blocks: Optional[int] = None
) -> tf.data.Dataset:
    """The images of a split in their stored order, [rows * columns * channels], as `_sampled`; all,
    or those of some blocks.

    Drawn block by block, for a tenth of the time, with a negative seed: no run has one.
    """
    stream = tf.constant(-1 - SPLITS.index(split), tf.int64)

    def sampled(records: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        pixels = tf.decode_raw(records, prepared.dtype)
        return _sampled(pixels, tf.stack([stream, number]), sampling)

    if num_blocks is None:
        blocks = _records(prepared, split).batch(_BLOCK)
        numbered = tf.data.Dataset.zip((blocks, tf.data.Dataset.range(tf.int64.max)))
    else:
        numbered = _spread_blocks(prepared, split, num_blocks)
    return numbered.map(sampled).flat_map(tf.data.Dataset.from_tensor_slices)


def _sampled(pixels: tf.Tensor, seed: tf.Tensor, sampling: str) -> tf.Tensor:
    """What is drawn of pixels, uint8 levels or floats in [0, 1].

    Binarised: uint8 of their shape, 1 with probability pixel / 255, of floats pixel, else 0.
    Uniform: float32, a level and noise of its width, over 256 (Theis et al. 2016, arXiv:1511.01844,
    section 3.1), which lies in [0, 1); no floats are drawn of.
    """
    white = 255.0 if pixels.dtype == tf.uint8 else 1.0
    levels = tf.cast(pixels, tf.float32)
    if sampling == 'uniform':
        noise = tf.random.stateless_uniform(tf.shape(pixels), seed)
        # Of the highest levels the sum may round to the next one.
        return tf.minimum((levels + noise) / 256.0, 1.0 - 2.0**-24)
    thresholds = tf.random.stateless_uniform(tf.shape(pixels), seed, maxval=white)
    return tf.cast(thresholds < levels, tf.uint8)


def _features(pixels: tf.Tensor, prepared: PreparedDataset, sampling: str) -> Dict[str, tf.Tensor]:
    """The features of `pixels`, numbers [batch, rows * columns * channels] or strings [batch].

    Rows become the time steps; a row's pixels, channels innermost, become a step's features.
    """
    rows, columns, channels = prepared.image_shape
    # The batch dimension is static in training: an unknown one would reach every layer's shape.
    batch_size = pixels.shape[0].value
    if pixels.dtype == tf.string:
        pixels = tf.decode_raw(pixels, prepared.dtype)
    images = tf.cast(pixels, tf.float32)
    if pixels.dtype == tf.uint8 and sampling == 'none' and not prepared.is_binary:
        images /= 255.0
    shape = [-1 if batch_size is None else batch_size, rows, columns * channels]
    return {'images': standardised(tf.reshape(images, shape), prepared.scaling)}


def _plain(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's graph rewriting and tuning thread: nothing here is worth either's time."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.autotune = False
    return dataset.with_options(options)
