"""The steps that run on TensorFlow 2: the default architecture by Keras layers, the same images.

Their sides are divisible by 4, as MNIST's are: nothing is cut off. The LSTM is
unrolled, as ours is.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf

from scripts.benchmark import timed_steps
from scripts.benchmark.architecture import Architecture

_FOREVER = itertools.repeat(None)


class Autoencoder(keras.Model):
    """Images `[batch, rows, features]` to their negative ELBO in nats, `[batch]`."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        layers = keras.layers
        self.lstm = layers.LSTM(sizes.units, return_sequences=True, unroll=True)
        self.mean, self.raw_scale = [layers.Dense(sizes.latents) for _ in range(2)]
        decoder = [layers.Dense(units, 'elu') for _, units in sizes.dense]
        decoder.append(layers.Reshape(sizes.quarter))
        for activation, (_, channels, size) in zip(('elu', None), sizes.convolutions):
            more = {'strides': sizes.strides, 'padding': 'same', 'activation': activation}
            decoder.append(layers.Conv2DTranspose(channels, sizes.kernel(size), **more))
        self.decode = keras.Sequential([*decoder, layers.Reshape(sizes.row)])

    def call(self, images):
        hidden = self.lstm(images)
        summary = tf.concat([hidden[:, step] for step in self.sizes.read_after], axis=1)
        mean, scale = self.mean(summary), tf.nn.softplus(self.raw_scale(summary)) + 1e-4
        logits = self.decode(mean + scale * tf.random.normal(tf.shape(mean)))
        nats = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
        divergence = 0.5 * (mean**2 + scale**2 - 1.0) - tf.math.log(scale)
        return tf.reduce_sum(nats, [1, 2]) + tf.reduce_sum(divergence, 1)


class Runs:
    """What a process may be started for, by name; iterators over steps."""

    def __init__(self, kind, settings):
        self.params, self.files = settings['params'], settings['data']['files']
        tf.config.threading.set_intra_op_parallelism_threads(settings['threads'])
        keras.utils.set_random_seed(self.params['seed'])
        self.network = Autoencoder(Architecture(self.params))
        self.xla = kind == 'keras_xla'

    def training(self):
        pixels = tf.constant(np.fromfile(self.files['train'], np.uint8))
        pixels = tf.reshape(pixels, [-1, *self.network.sizes.row])
        optimizer = keras.optimizers.Adam(
            self.params['learning_rate'], global_clipnorm=self.params['max_gradient_norm']
        )
        self.network(tf.zeros([1, *self.network.sizes.row]))
        optimizer.build(self.network.trainable_variables)

        @tf.function(jit_compile=self.xla)
        def step(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.network(tf.cast(images, tf.float32) / 255.0))
            variables = self.network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return loss

        for _ in _FOREVER:
            chosen = tf.random.uniform([self.params['batch_size']], 0, len(pixels), tf.int32)
            yield step(tf.gather(pixels, chosen)).numpy()


if __name__ == '__main__':
    timed_steps.serve(lambda kind, what, settings: getattr(Runs(kind, settings), what)())
