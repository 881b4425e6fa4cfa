"""Priors over the latents: what the posterior is compared with, and what new images come from.

A learned prior closes the gap between N(0, I) and the latents of the training images taken
together, which costs likelihood and makes draws that look like no image (Tomczak & Welling 2018,
arXiv:1705.07120).
"""

import abc
from typing import Callable, Dict, List, Sequence, Type

import numpy as np
import tensorflow as tf

from trainer.model.couplings import Coupling
from trainer.model.distributions import (
    LOG_2_PI,
    Distribution,
    gaussian_log_prob,
    softplus_inverse,
)
from trainer.settings.table import HParams

# Name of the variable, and what stands in it: log-odds of the pixels, or readings.
PSEUDO_INPUTS = 'prior/pseudo_inputs'
# Smallest scale of a learned mixture's component: narrower ones would be spikes at single images.
_SCALE_FLOOR = 0.02

Encode = Callable[[tf.Tensor], Distribution]


class Prior(Distribution):
    """p(z). A subclass names the value of `--prior`, a row of `table.PRIORS`, as its `kind`."""

    kinds: Dict[str, Type['Prior']] = {}

    def __init_subclass__(cls, kind: str):
        Prior.kinds[kind] = cls

    @classmethod
    @abc.abstractmethod
    def create(cls, params: HParams, encode: Encode) -> 'Prior':
        """Makes the prior of a model, or shares the weights of the one already in the graph.

        Args:
          encode: maps images `[n, rows, features]` to their posteriors.
        """

    @abc.abstractmethod
    def sample(self, noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        """Returns draws, float32 `[count, latent_size]`.

        Args:
          noise: draws of N(0, I), float32 `[count, latent_size]`.
          choice: draws of U[0, 1), float32 `[count]`, for what is chosen among several.
        """


class StandardNormal(Prior, kind='standard_normal'):
    """N(0, I)."""

    @classmethod
    def create(cls, params: HParams, encode: Encode) -> 'StandardNormal':
        del params, encode
        return cls()

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.log_prob_by_dimension(latents), axis=-1)

    def log_prob_by_dimension(self, latents: tf.Tensor) -> tf.Tensor:
        return -0.5 * (tf.square(latents) + LOG_2_PI)

    def kl_from_gaussian(self, mean: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Kingma & Welling 2014, appendix B: -1/2 (1 + log(scale^2) - mean^2 - scale^2)."""
        with tf.name_scope('kl_divergence'):
            squares = tf.square(mean) + tf.square(scale)
            return 0.5 * (squares - 1.0) - tf.math.log(scale)

    def sample(self, noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        del choice
        return noise


class Mixture(Prior, kind='mixture'):
    """A mixture of Gaussians with independent dimensions, whose parameters are learned.

    Attributes:
      mean, scale: float32 `[components, latent_size]`.
      log_weights: float32 `[components]`; their exponentials add up to 1.
    """

    def __init__(self, mean: tf.Tensor, scale: tf.Tensor, log_weights: tf.Tensor):
        self.mean, self.scale, self.log_weights = mean, scale, log_weights

    @classmethod
    def create(cls, params: HParams, encode: Encode) -> 'Mixture':
        del encode
        count = params.prior_components
        shape = [count, params.latent_size]
        with tf.variable_scope('prior'):
            mean = tf.get_variable('mean', shape, initializer=tf.random_normal_initializer())
            near_one = tf.constant_initializer(softplus_inverse(1.0))
            raw_scale = tf.get_variable('raw_scale', shape, initializer=near_one)
            zeros = tf.zeros_initializer()
            weights = tf.get_variable('raw_log_weights', [count], initializer=zeros)
            scale = tf.nn.softplus(raw_scale) + _SCALE_FLOOR
            return cls(mean, scale, tf.nn.log_softmax(weights))

    @property
    def parameters(self) -> List[tf.Tensor]:
        return [self.mean, self.scale, self.log_weights]

    def with_parameters(self, parameters: Sequence[tf.Tensor]) -> 'Mixture':
        return type(self)(*parameters)

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns log sum_k w_k N(z; mean_k, scale_k) in nats.

        The squares are multiplied out, so that two matrix products do the work of all components:
        in float64, as their parts, up to 10^9 times the sum, cancel.
        """
        with tf.name_scope('prior_log_prob'):
            size = latents.shape.as_list()[-1]
            flat = tf.cast(tf.reshape(latents, [-1, size]), tf.float64)
            precision = 1.0 / tf.square(tf.cast(tf.transpose(self.scale), tf.float64))
            mean = tf.cast(tf.transpose(self.mean), tf.float64)
            squares = (
                tf.matmul(tf.square(flat), precision)
                - 2.0 * tf.matmul(flat, mean * precision)
                + tf.reduce_sum(tf.square(mean) * precision, axis=0)
            )
            squares = tf.cast(squares, tf.float32)
            log_scale = tf.reduce_sum(tf.math.log(self.scale), axis=1)
            by_component = self.log_weights - log_scale - 0.5 * (squares + size * LOG_2_PI)
            return tf.reshape(tf.reduce_logsumexp(by_component, axis=1), tf.shape(latents)[:-1])

    def log_prob_by_dimension(self, latents: tf.Tensor) -> tf.Tensor:
        """The marginals are mixtures too; their sum is not `log_prob`, as the dimensions depend."""
        by_component = gaussian_log_prob(latents[..., tf.newaxis, :], self.mean, self.scale)
        return tf.reduce_logsumexp(by_component + self.log_weights[:, tf.newaxis], axis=-2)

    def sample(self, noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        until = tf.cumsum(tf.exp(self.log_weights))
        # The last of the sums may round to less than 1.
        passed = tf.cast(choice[:, tf.newaxis] >= until[tf.newaxis, :-1], tf.int32)
        component = tf.reduce_sum(passed, axis=1)
        return tf.gather(self.mean, component) + tf.gather(self.scale, component) * noise


class VampPrior(Mixture, kind='vamp'):
    """The mixture, in equal parts, of the posteriors of learned pseudo-inputs.

    Tomczak & Welling 2018 (arXiv:1705.07120), equation 9. A training starts the pseudo-inputs from
    training images (`hooks.PseudoInputsHook`).
    """

    @classmethod
    def create(cls, params: HParams, encode: Encode) -> 'VampPrior':
        count = params.prior_components
        mean, scale = encode(pseudo_inputs(params)).parameters
        return cls(mean, scale, tf.constant(-np.log(count), tf.float32, [count]))


class Flow(Prior, kind='flow'):
    """Draws of N(0, I), moved by affine couplings: Dinh et al. 2017 (arXiv:1605.08803).

    The couplings map latents z to noise y, of which a draw takes the inverse, and

        log p(z) = log N(y; 0, I) + log |det dy/dz|      (there equation 2)

    The dimensions depend on each other, and the marginals have no closed form.
    """

    def __init__(self, couplings: Sequence[Coupling]):
        self.couplings = list(couplings)

    @classmethod
    def create(cls, params: HParams, encode: Encode) -> 'Flow':
        del encode
        with tf.variable_scope('prior'):
            numbers = range(params.prior_couplings)
            return cls([Coupling.create(number, params.latent_size) for number in numbers])

    @property
    def parameters(self) -> List[tf.Tensor]:
        return [tensor for coupling in self.couplings for tensor in coupling.weights]

    def with_parameters(self, parameters: Sequence[tf.Tensor]) -> 'Flow':
        left = iter(parameters)
        return Flow([one.with_weights([next(left) for _ in one.weights]) for one in self.couplings])

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        with tf.name_scope('prior_log_prob'):
            values = tf.reshape(latents, [-1, latents.shape.as_list()[-1]])
            log_prob = 0.0
            for coupling in self.couplings:
                values, log_det = coupling.forward(values)
                log_prob += log_det
            log_prob += tf.reduce_sum(gaussian_log_prob(values, 0.0, 1.0), axis=1)
            return tf.reshape(log_prob, tf.shape(latents)[:-1])

    def sample(self, noise: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        del choice
        for coupling in reversed(self.couplings):
            noise = coupling.inverse(noise)
        return noise


def pseudo_inputs(params: HParams) -> tf.Tensor:
    """Returns the learned pseudo-inputs, float32 `[components, rows, features]`.

    Of images they are in (0, 1), of series standardised readings, without bounds.
    """
    with tf.variable_scope('prior'):
        shape = [params.prior_components, params.rows, params.row_features]
        variable = tf.get_variable('pseudo_inputs', shape)
        return variable if params.is_series else tf.sigmoid(variable)
