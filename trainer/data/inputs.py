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
on new ones, a function of (seed, global step), each time an image is seen (dynamic).
"""

from typing import Dict, Optional

import numpy as np
import tensorflow as tf

from trainer.data.dataset import SPLITS, PreparedDataset

# Batches ready in advance. The longest gap is the new permutation at an epoch's end, shorter than
# one training step; four also cover a reader that is not scheduled on busy cores.
_PREFETCH = 4
# Images whose fixed sampling is one draw. Another number would make other images.
_BLOCK = 1000


def train_input_fn(
    prepared: PreparedDataset, batch_size: int, seed: int, start_step: int, binarization: str
) -> tf.data.Dataset:
    """Endless shuffled batches of the train split, from the batch of step `start_step` on.

    They are {'images': float32 [batch_size, rows, columns * channels]}, every dimension static;
    grey levels in [0, 1], or 0 and 1. The split is held in memory as stored (43 MB for MNIST).

    Args:
      seed: any 64-bit integer.
      start_step: a run resumed with another batch size starts elsewhere in the sequence.
      binarization: 'none', 'static' or 'dynamic'.
    """
    num_examples = prepared.num_examples['train']
    first_epoch, offset = divmod(start_step * batch_size, num_examples)

    def permuted(epoch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(_permutation(seed, epoch, num_examples))

    def batches(images: tf.Tensor) -> tf.data.Dataset:
        def features(indices: tf.Tensor, step: tf.Tensor) -> Dict[str, tf.Tensor]:
            pixels = tf.gather(images, indices)
            if binarization == 'dynamic':
                # Neither a permutation nor the latents' noise has a negative number in its seed.
                pixels = _sampled(pixels, tf.stack([tf.constant(seed, tf.int64), -1 - step]))
            return _features(pixels, prepared, binarization)

        order = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(permuted)
        batched = order.skip(offset).batch(batch_size, drop_remainder=True)
        steps = tf.data.Dataset.range(start_step, tf.int64.max)
        return tf.data.Dataset.zip((batched, steps)).map(features)

    # One element, the whole split, read when the first batch is wanted. It stays inside the
    # dataset's functions and so never becomes a constant of the graph.
    with tf.name_scope('input'):
        if binarization == 'static' and not prepared.is_binary:
            split = _fixed_sampling(prepared, 'train')
            split = split.batch(num_examples, drop_remainder=True)
        else:
            split = tf.data.Dataset.from_tensors(prepared.files['train'])
            shape = [num_examples, prepared.image_pixels]
            split = split.map(
                lambda path: tf.reshape(tf.decode_raw(tf.read_file(path), prepared.dtype), shape)
            )
        return _plain(split.flat_map(batches).prefetch(_PREFETCH))


def eval_input_fn(
    prepared: PreparedDataset,
    split: str,
    batch_size: int,
    binarization: str,
    num_examples: Optional[int] = None,
) -> tf.data.Dataset:
    """One pass over a split, or its first `num_examples` images, in its stored order.

    Batches are as `train_input_fn`'s, but their size is not static: the last may be smaller. The
    split 'test' is for the final evaluation only. The binarizations 'static' and 'dynamic' are one
    and the same fixed sampling.
    """
    with tf.name_scope('input'):
        if binarization == 'none' or prepared.is_binary:
            images = _records(prepared, split)
        else:
            images = _fixed_sampling(prepared, split)
        if num_examples is not None:
            images = images.take(num_examples)
        batches = images.batch(batch_size)
        features = batches.map(lambda batch: _features(batch, prepared, binarization))
        return _plain(features.prefetch(_PREFETCH))


def first_images(
    prepared: PreparedDataset, split: str, count: int, binarization: str
) -> np.ndarray:
    """Returns the first images of a split as the model sees them, float32 `[n, rows, features]`.

    Arguments as of `eval_input_fn`; `n` is `count`, or all of the split where it has fewer.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = eval_input_fn(prepared, split, count, binarization, num_examples=count)
        return session.run(dataset.make_one_shot_iterator().get_next()['images'])


def _permutation(seed: int, epoch: tf.Tensor, size: int) -> tf.Tensor:
    """int32 [size]: a permutation of 0 .. size - 1 that depends on (seed, epoch) only.

    Random keys are sorted. They are stateless: no graph-level seed changes them.
    """
    both = tf.stack([tf.constant(seed, tf.int64), epoch])
    keys = tf.random.stateless_uniform([size], both, maxval=tf.int64.max, dtype=tf.int64)
    return tf.nn.top_k(keys, k=size).indices


def _records(prepared: PreparedDataset, split: str) -> tf.data.Dataset:
    """The images of a split in their stored order, each a string of its bytes."""
    return tf.data.FixedLengthRecordDataset(
        prepared.files[split], prepared.image_bytes, buffer_size=1 << 20
    )


def _fixed_sampling(prepared: PreparedDataset, split: str) -> tf.data.Dataset:
    """The images of a split in their stored order, uint8 [rows * columns * channels] of 0 and 1.

    Drawn block by block, for a tenth of the time, with a negative seed: no run has one.
    """
    stream = tf.constant(-1 - SPLITS.index(split), tf.int64)

    def sampled(records: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return _sampled(tf.decode_raw(records, prepared.dtype), tf.stack([stream, number]))

    blocks = _records(prepared, split).batch(_BLOCK)
    numbered = tf.data.Dataset.zip((blocks, tf.data.Dataset.range(tf.int64.max)))
    return numbered.map(sampled).flat_map(tf.data.Dataset.from_tensor_slices)


def _sampled(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """uint8 of the shape of `pixels`: 1 with probability pixel / 255, of floats pixel, else 0."""
    white = 255.0 if pixels.dtype == tf.uint8 else 1.0
    thresholds = tf.random.stateless_uniform(tf.shape(pixels), seed, maxval=white)
    return tf.cast(thresholds < tf.cast(pixels, tf.float32), tf.uint8)


def _features(
    pixels: tf.Tensor, prepared: PreparedDataset, binarization: str
) -> Dict[str, tf.Tensor]:
    """The features of `pixels`, numbers [batch, rows * columns * channels] or strings [batch].

    Rows become the time steps; a row's pixels, channels innermost, become a step's features.
    """
    rows, columns, channels = prepared.image_shape
    # The batch dimension is static in training: an unknown one would reach every layer's shape.
    batch_size = pixels.shape[0].value
    if pixels.dtype == tf.string:
        pixels = tf.decode_raw(pixels, prepared.dtype)
    images = tf.cast(pixels, tf.float32)
    if pixels.dtype == tf.uint8 and binarization == 'none' and not prepared.is_binary:
        images /= 255.0
    shape = [-1 if batch_size is None else batch_size, rows, columns * channels]
    return {'images': tf.reshape(images, shape)}


def _plain(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's graph rewriting and tuning thread: nothing here is worth either's time."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.autotune = False
    return dataset.with_options(options)
