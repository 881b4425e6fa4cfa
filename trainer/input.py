"""`input_fn`s: images of a prepared dataset as features. Labels are not among them.

Training order is a function of (seed, global step) alone: epoch e is a permutation of the whole
train split drawn from (seed, e), and step s takes images s x batch_size and following of that
endless sequence. A run resumed at step s therefore continues exactly where an unbroken one would
be, although Estimator builds and seeds its graph anew at every start.

`Dataset.shuffle` would not do: TF 1.14 combines its seed with the graph's, so the order would
change with `RunConfig.tf_random_seed`, and at every epoch it fills its buffer record by record
before the first image comes out. Here the split lies in memory once, as bytes, and a permutation
costs some 10 ms an epoch.
"""

from typing import Dict, Optional

import tensorflow as tf

from trainer.decoded_copy import PreparedDataset

# Batches ready in advance. The longest gap is the new permutation at an epoch's end, shorter than
# one training step; four also cover a reader that is not scheduled on busy cores.
_PREFETCH = 4


def train_input_fn(
    prepared: PreparedDataset, batch_size: int, seed: int, start_step: int
) -> tf.data.Dataset:
    """Endless shuffled batches of the train split, from the batch of step `start_step` on.

    The split is held in memory as uint8 (43 MB for MNIST).

    Args:
      prepared: what `prepare_data.prepare` returned.
      batch_size: images a batch.
      seed: any 64-bit integer; another seed gives another order.
      start_step: global step of the first batch. It counts in batches of `batch_size`: a run
        resumed with another batch size starts elsewhere in the sequence.

    Returns:
      A dataset of {'images': float32 [batch_size, rows, columns * channels] in [0, 1]}, every
      dimension static.
    """
    num_examples = prepared.num_examples['train']
    first_epoch, offset = divmod(start_step * batch_size, num_examples)

    def batches(images: tf.Tensor) -> tf.data.Dataset:
        epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
        order = epochs.flat_map(
            lambda epoch: tf.data.Dataset.from_tensor_slices(
                _permutation(seed, epoch, num_examples)
            )
        )
        batched = order.skip(offset).batch(batch_size, drop_remainder=True)
        return batched.map(lambda indices: _features(tf.gather(images, indices), prepared))

    # One element, the whole split, read when the first batch is wanted. It stays inside the
    # dataset's functions and so never becomes a constant of the graph.
    with tf.name_scope('input'):
        split = tf.data.Dataset.from_tensors(prepared.files['train'])
        split = split.map(lambda path: _all_images(path, prepared))
        return _plain(split.flat_map(batches).prefetch(_PREFETCH))


def eval_input_fn(
    prepared: PreparedDataset, split: str, batch_size: int, num_examples: Optional[int] = None
) -> tf.data.Dataset:
    """One pass over a split in its stored order; the last batch may be smaller.

    Args:
      prepared: what `prepare_data.prepare` returned.
      split: 'train', 'validation' or 'test'. 'test' is for the final evaluation only.
      batch_size: images a batch.
      num_examples: only so many images, the first ones; None for all.

    Returns:
      A dataset of {'images': float32 [<= batch_size, rows, columns * channels] in [0, 1]}; all
      dimensions but the first are static.
    """
    with tf.name_scope('input'):
        records = tf.data.FixedLengthRecordDataset(
            prepared.files[split], prepared.image_bytes, buffer_size=1 << 20
        )
        if num_examples is not None:
            records = records.take(num_examples)
        batched = records.batch(batch_size)
        batched = batched.map(lambda batch: _features(tf.decode_raw(batch, tf.uint8), prepared))
        return _plain(batched.prefetch(_PREFETCH))


def _permutation(seed: int, epoch: tf.Tensor, size: int) -> tf.Tensor:
    """int32 [size]: a permutation of 0 .. size - 1 that depends on (seed, epoch) only.

    Made by sorting random keys with a stateless op, whose result no graph-level seed changes.
    Two of 55,000 63-bit keys are equal once in some 6 x 10^9 epochs; top_k then takes the lower
    index first, so it is a permutation still.
    """
    keys = tf.random.stateless_uniform(
        [size],
        seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
        maxval=tf.int64.max,
        dtype=tf.int64,
    )
    return tf.nn.top_k(keys, k=size).indices


def _all_images(path: tf.Tensor, prepared: PreparedDataset) -> tf.Tensor:
    """uint8 [num_train, rows * columns * channels]: the whole train split."""
    pixels = tf.decode_raw(tf.read_file(path), tf.uint8)
    return tf.reshape(pixels, [prepared.num_examples['train'], prepared.image_bytes])


def _features(pixels: tf.Tensor, prepared: PreparedDataset) -> Dict[str, tf.Tensor]:
    """The features of uint8 `pixels` [batch, rows * columns * channels].

    Rows become the time steps; a row's pixels, channels innermost, become a step's features.
    """
    rows, columns, channels = prepared.image_shape
    # The batch dimension is static in training: an unknown one would reach every layer's shape.
    batch_size = pixels.shape[0].value
    images = tf.cast(pixels, tf.float32) / 255.0
    return {
        'images': tf.reshape(
            images, [-1 if batch_size is None else batch_size, rows, columns * channels]
        )
    }


def _plain(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's graph rewriting and tuning thread: nothing here is worth either's time."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.autotune = False
    return dataset.with_options(options)
