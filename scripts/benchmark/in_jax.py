"""The steps that run on JAX: the default architecture, the same images.

Their sides are divisible by 4, as MNIST's are: nothing is cut off.
"""

import functools
import itertools

import jax
import numpy as np
import optax
from jax import lax, nn
from jax import numpy as jnp

from scripts.benchmark import timed_steps
from scripts.benchmark.architecture import Architecture

_FOREVER = itertools.repeat(None)
# Numbers `[batch, rows, columns, channels]`, kernels `[rows, columns, in, out]`.
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


class Autoencoder:
    """Random weights, and the functions of them."""

    def __init__(self, sizes, unrolled, seed):
        self.sizes, self.unrolled = sizes, unrolled
        self._random = np.random.default_rng(seed)
        units, features = sizes.units, sizes.row[1]
        summary = len(sizes.read_after) * units
        self.weights = {
            'lstm': self._layer([features + units, 4 * units]),
            'mean': self._layer([summary, sizes.latents]),
            'raw_scale': self._layer([summary, sizes.latents]),
            'dense': [self._layer(pair) for pair in sizes.dense],
            'convolutions': [
                self._layer([*sizes.kernel(side), inputs, outputs])
                for inputs, outputs, side in sizes.convolutions
            ],
        }

    def _layer(self, shape):
        """Kernel and bias, float32."""
        kernel = self._random.normal(0.0, np.prod(shape[:-1]) ** -0.5, shape)
        return jnp.float32(kernel), jnp.zeros(shape[-1], jnp.float32)

    def encode(self, weights, images):
        kernel, bias = weights['lstm']
        features, units = self.sizes.row[1], self.sizes.units
        # The rows' part of the products does not wait for the state: one product for all.
        by_row = images @ kernel[:features] + bias

        def step(state, projected):
            hidden, cell = state
            i, f, o, j = jnp.split(projected + hidden @ kernel[features:], 4, axis=1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(j)
            hidden = nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        start = jnp.zeros([len(images), units])
        unroll = self.sizes.row[0] if self.unrolled else 1
        _, hidden = lax.scan(step, (start, start), by_row.swapaxes(0, 1), unroll=unroll)
        summary = jnp.concatenate([hidden[t] for t in self.sizes.read_after], axis=1)
        mean, raw_scale = [
            summary @ kernel + bias for kernel, bias in (weights['mean'], weights['raw_scale'])
        ]
        return mean, nn.softplus(raw_scale) + 1e-4

    def decode(self, weights, latents):
        """Returns logits, `[batch, rows, features]`."""
        layer = latents
        for kernel, bias in weights['dense']:
            layer = nn.elu(layer @ kernel + bias)
        layer = layer.reshape(-1, *self.sizes.quarter)
        for number, (kernel, bias) in enumerate(weights['convolutions']):
            strides = self.sizes.strides
            layer = lax.conv_transpose(layer, kernel, strides, 'SAME', dimension_numbers=_LAYOUT)
            layer = nn.elu(layer + bias) if number == 0 else layer + bias
        return layer.reshape(-1, *self.sizes.row)

    def negative_elbo(self, weights, images, key):
        """The mean over the batch."""
        mean, scale = self.encode(weights, images)
        latents = mean + scale * jax.random.normal(key, mean.shape)
        return terms(images, mean, scale, self.decode(weights, latents))[0].mean()

    def serve(self, weights, images):
        """All that the SavedModel's `serving_default` returns."""
        mean, scale = self.encode(weights, images)
        logits = self.decode(weights, mean)
        return (nn.sigmoid(logits), mean, scale, *terms(images, mean, scale, logits))


def terms(images, mean, scale, logits):
    """Returns negative ELBO, reconstruction loss and KL divergence, `[batch]` each."""
    loss = (nn.softplus(logits) - images * logits).sum((1, 2))
    divergence = (0.5 * (mean**2 + scale**2 - 1) - jnp.log(scale)).sum(1)
    return loss + divergence, loss, divergence


class Runs:
    """What a process may be started for, by name; iterators over steps."""

    def __init__(self, kind, settings):
        self.params, self.files = settings['params'], settings['data']['files']
        self.size, seed = self.params['batch_size'], self.params['seed']
        self.network = Autoencoder(Architecture(self.params), kind == 'jax_unrolled', seed)

    def training(self):
        clip = optax.clip_by_global_norm(self.params['max_gradient_norm'])
        optimizer = optax.chain(clip, optax.adam(self.params['learning_rate']))

        @functools.partial(jax.jit, donate_argnums=[0, 1])
        def step(weights, state, pixels, key):
            key, noise = jax.random.split(key)
            gradients = jax.grad(self.network.negative_elbo)(weights, pixels / 255.0, noise)
            updates, state = optimizer.update(gradients, state)
            return optax.apply_updates(weights, updates), state, key

        pixels, draw = self._pixels('train'), np.random.default_rng(self.params['seed'])
        weights, key = self.network.weights, jax.random.key(self.params['seed'])
        state = optimizer.init(weights)
        for _ in _FOREVER:
            some = pixels[draw.integers(len(pixels), size=self.size)]
            weights, state, key = jax.block_until_ready(step(weights, state, some, key))
            yield

    def inference(self):
        serve = jax.jit(self.network.serve)
        images = (self._pixels('test')[: self.size] / 255.0).astype(np.float32)
        for _ in _FOREVER:
            yield [np.asarray(output) for output in serve(self.network.weights, images)]

    def _pixels(self, split):
        """uint8 [images, rows, features]."""
        return np.fromfile(self.files[split], np.uint8).reshape(-1, *self.network.sizes.row)


if __name__ == '__main__':
    timed_steps.serve(lambda kind, what, settings: getattr(Runs(kind, settings), what)())
