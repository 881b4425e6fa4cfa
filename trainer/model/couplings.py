"""Affine couplings: invertible maps between latents and noise, one after the other.

Dinh et al. 2017 (arXiv:1605.08803), section 3. Both directions take one pass of dense products.
"""

from typing import List, Sequence, Tuple

import numpy as np
import tensorflow as tf

# Units of the layer from which a coupling's scales and shifts are computed.
_WIDTH = 128
# Most by which one coupling widens or narrows a dimension: exp(2).
_MOST_LOG_SCALE = 2.0


class Coupling:
    """One map, by equation 9 of that paper:

        y = m z + (1 - m) (z exp(s(m z)) + t(m z)),      log |det dy/dz| = sum of (1 - m) s(m z)

    m is 1 for half of the dimensions, which stay as they are, and 0 for those that are moved. s and
    t are a network of one hidden layer, and 0 before training: the map is the identity then.

    Args:
      number: its place among the couplings. Each pair of an even and the next odd one moves every
        dimension once; which half goes first is drawn anew for each pair, the same in every run.
      weights: of `create`, or others of the same shapes.
    """

    def __init__(self, number: int, weights: Sequence[tf.Tensor]):
        self.number, self.weights = number, list(weights)
        size = self.weights[0].shape.as_list()[0]
        kept = np.random.RandomState(number // 2).permutation(size)[: size // 2]
        mask = np.isin(np.arange(size), kept).astype(np.float32)
        self._kept = mask if number % 2 == 0 else 1.0 - mask

    @classmethod
    def create(cls, number: int, size: int) -> 'Coupling':
        """Makes the weights for `size` dimensions, or shares those that are in the graph."""
        zeros = tf.zeros_initializer()
        with tf.variable_scope('coupling_{}'.format(number)):
            hidden_kernel = tf.get_variable('hidden_kernel', [size, _WIDTH])
            hidden_bias = tf.get_variable('hidden_bias', [_WIDTH], initializer=zeros)
            kernel = tf.get_variable('kernel', [_WIDTH, 2 * size], initializer=zeros)
            bias = tf.get_variable('bias', [2 * size], initializer=zeros)
            return cls(number, [hidden_kernel, hidden_bias, kernel, bias])

    def with_weights(self, weights: Sequence[tf.Tensor]) -> 'Coupling':
        return Coupling(self.number, weights)

    def forward(self, latents: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        """Returns y and log |det dy/dz| of z, float32 `[n, size]` and `[n]`."""
        log_scale, shift = self._log_scale_and_shift(latents)
        return latents * tf.exp(log_scale) + shift, tf.reduce_sum(log_scale, axis=1)

    def inverse(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the z of which `forward` makes y, float32 `[n, size]`."""
        # The dimensions that s and t are computed from are the same in z and in y.
        log_scale, shift = self._log_scale_and_shift(outputs)
        return (outputs - shift) * tf.exp(-log_scale)

    def _log_scale_and_shift(self, values: tf.Tensor) -> List[tf.Tensor]:
        """s and t, float32 `[n, size]` each; 0 for the dimensions that stay as they are."""
        hidden_kernel, hidden_bias, kernel, bias = self.weights
        hidden = tf.nn.elu(tf.matmul(values * self._kept, hidden_kernel) + hidden_bias)
        raw, shift = tf.split(tf.matmul(hidden, kernel) + bias, 2, axis=1)
        log_scale = _MOST_LOG_SCALE * tf.tanh(raw / _MOST_LOG_SCALE)
        moved = 1.0 - self._kept
        return [log_scale * moved, shift * moved]
