"""The noise that samples of the posteriors are made of."""

import tensorflow as tf

from trainer.settings.table import HParams

# Distance of the seeds of two training processes: a prime larger than seeds people choose.
_SEED_STRIDE = 15485863


def seed_of(params: HParams, replica: int) -> int:
    """Returns the seed of one training process, which gives it images and noise of its own."""
    return params.seed + _SEED_STRIDE * replica


def of_step(images: tf.Tensor, params: HParams, replica: int) -> tf.Tensor:
    """Returns N(0, I) noise `[batch, K, latent_size]` that depends on seed and step alone.

    A seeded `tf.random.normal` would start over whenever Estimator makes a session anew: a resumed
    run would see the noise of its first steps again.

    The order of the images uses the seeds (seed, epoch), and importance sampling (seed, image and
    block) in the same way, so that equal pairs are equal bits: of whole numbers that sort images
    there, of noise here. No sample is used for both.
    """
    step = tf.train.get_or_create_global_step()
    with tf.name_scope('posterior'):
        seed = tf.stack([tf.constant(seed_of(params, replica), tf.int64), step])
        shape = [images.shape.as_list()[0], params.training_samples, params.latent_size]
        return tf.random.stateless_normal(shape, seed)


def of_evaluation(images: tf.Tensor, params: HParams) -> tf.Tensor:
    """Returns N(0, I) noise `[batch, K, latent_size]`, the same in each evaluation."""
    with tf.name_scope('posterior'):
        shape = [tf.shape(images)[0], params.samples_evaluated, params.latent_size]
        return tf.random.normal(shape, seed=params.seed)
