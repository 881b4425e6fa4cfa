"""Likelihoods p(x | z): distributions of an image given its latents, as `vae.decode` returns them.

All factorise over pixels. `log_prob` takes images in [0, 1], or windows of standardised readings;
what it is the log-density of differs:

* Bernoulli: of images whose pixels are 0 or 1. For grey levels it is no density (it does not
  integrate to 1 over them), only minus the binary cross-entropy.
* ContinuousBernoulli: of grey levels, a density on [0, 1].
* Normal: of grey levels, a density on the whole line.
* NormalByColumn: of the standardised readings of a series, a density on the whole line.
"""

import abc
import functools
from typing import Dict, Tuple, Type

import numpy as np
import tensorflow as tf

from trainer.model.distributions import gaussian_log_prob, softplus_inverse
from trainer.settings.table import LIKELIHOODS, HParams, LikelihoodFacts

# Smallest scale of a Normal pixel: a tenth of the distance of two grey levels.
_SCALE_FLOOR = 0.1 / 255.0
_INITIAL_SCALE = 0.3
# Of a column of readings, in its deviations.
_READING_SCALE_FLOOR = 0.02
# Below this distance of a logit from 0 series replace the closed forms, which are 0 / 0 there;
# their error is below 3e-7, and just above it the closed forms' is below 5e-7.
_SERIES_RADIUS = 0.3
_TINY = np.finfo(np.float32).tiny
# Of grey levels, between which the least nats of a continuous Bernoulli are interpolated.
_HIGHEST_LEVEL = 255


class Likelihood(abc.ABC):
    """p(x | z) of each of a batch of latents, made of what the decoder puts out.

    A subclass names the value of `--likelihood`, a row of `table.LIKELIHOODS`, as its `kind`.

    Attributes:
      logits: float32 `[..., rows, features]`.
    """

    kinds: Dict[str, Type['Likelihood']] = {}
    kind = ''

    def __init_subclass__(cls, kind: str):
        Likelihood.kinds[kind], cls.kind = cls, kind

    def __init__(self, logits: tf.Tensor):
        self.logits = logits

    @classmethod
    def create(cls, logits: tf.Tensor, params: HParams) -> 'Likelihood':
        """Makes the distribution; weights of its own are shared within a graph."""
        del params
        return cls(logits)

    @property
    def facts(self) -> LikelihoodFacts:
        """Which images it takes, whether its mean is bounded, and what its values are called."""
        return LIKELIHOODS[self.kind]

    def mean(self) -> tf.Tensor:
        """Returns the pixels' expected values, float32 `[..., rows, features]`."""
        return tf.sigmoid(self.logits)

    @abc.abstractmethod
    def log_prob_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the log-probability, or log-density, of each pixel in nats.

        Args:
          images: float32 `[..., rows, features]` in [0, 1], broadcast against the logits.
        """

    def least_nats_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the least of -log_prob_by_dimension that any latents could give each pixel.

        What a pixel costs beyond it is the model's surprise. Optional: it is 0 where not said.

        Args:
          images: float32 `[..., rows, features]` in [0, 1].

        Returns:
          float32 of the shape of `images`, in nats.
        """
        return tf.zeros_like(images)

    def log_prob(self, images: tf.Tensor) -> tf.Tensor:
        """Returns log p(images) in nats, summed over pixels, float32 `[...]`."""
        return tf.reduce_sum(self.log_prob_by_dimension(images), axis=[-2, -1])


class Bernoulli(Likelihood, kind='bernoulli'):
    """Independent Bernoulli distributions, one a pixel, given by their log-odds."""

    def log_prob_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Minus the binary cross-entropy.

        Kingma & Welling 2014 (arXiv:1312.6114), appendix C.1, equation 11. It is computed from the
        logits, so it is finite where a probability rounds to 0 or 1. For grey levels x in [0, 1] it
        is the expected log-probability of an image whose pixels are drawn as 1 with probability x.
        """
        # sigmoid_cross_entropy_with_logits is the same in ten ops, which take three times as long;
        # one of them, Log1p, tf2onnx 1.17 cannot convert.
        return images * self.logits - tf.nn.softplus(self.logits)

    def least_nats_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """The entropy of a pixel that is 1 with probability x: where the probability is x itself.

        It is 0 for 0 and 1, and log 2 for a middle grey.
        """
        both = tf.stack([images, 1.0 - images])
        # The smallest float32 of full precision: 0 log 0 is 0.
        return -tf.reduce_sum(both * tf.math.log(tf.maximum(both, _TINY)), axis=0)


class ContinuousBernoulli(Likelihood, kind='continuous_bernoulli'):
    """Independent continuous Bernoulli distributions on [0, 1], one a pixel.

    Loaiza-Ganem & Cunningham 2019 (arXiv:1907.06845), equations 6 to 8, written with the logit
    l = log(lambda / (1 - lambda)) of their parameter, in which the density is
    C(l) lambda^x (1 - lambda)^(1 - x) with C(l) = l / tanh(l / 2), and C(0) = 2.
    """

    def mean(self) -> tf.Tensor:
        """1/2 + 1 / (2 tanh(l / 2)) - 1 / l, near l = 0 its series 1/2 + l / 12 - l^3 / 720."""
        near, far = self._cases()
        series = 0.5 + near / 12.0 - near * tf.square(near) / 720.0
        return tf.where(self._is_near(), series, 0.5 + 0.5 / tf.tanh(0.5 * far) - 1.0 / far)

    def log_normalizer(self) -> tf.Tensor:
        """Returns log C of each pixel, at least log 2.

        Near l = 0 it is the series log 2 + l^2 / 12 - 7 l^4 / 1440.
        """
        near, far = self._cases()
        square = tf.square(near)
        series = np.log(2.0) + square / 12.0 - 7.0 * tf.square(square) / 1440.0
        return tf.where(self._is_near(), series, tf.math.log(far / tf.tanh(0.5 * far)))

    def log_prob_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        return images * self.logits - tf.nn.softplus(self.logits) + self.log_normalizer()

    def least_nats_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Where the mean is x. The densities of 0 and 1 have no bound: half a grey level from them.

        Between grey levels it is interpolated.
        """
        of_level = tf.constant(least_continuous_bernoulli_nats())
        place = tf.clip_by_value(images, 0.0, 1.0) * _HIGHEST_LEVEL
        below = tf.minimum(tf.floor(place), _HIGHEST_LEVEL - 1.0)
        share, number = place - below, tf.cast(below, tf.int32)
        low, high = tf.gather(of_level, number), tf.gather(of_level, number + 1)
        return low + share * (high - low)

    def _is_near(self) -> tf.Tensor:
        return tf.abs(self.logits) < _SERIES_RADIUS

    def _cases(self) -> Tuple[tf.Tensor, tf.Tensor]:
        """The logits near 0 and those far from it, elsewhere replaced by values safe to use.

        `tf.where` passes gradients to both of its branches: a NaN in the unused one would spread.
        """
        is_near, logits = self._is_near(), self.logits
        return (
            tf.where(is_near, logits, tf.zeros_like(logits)),
            tf.where(is_near, tf.ones_like(logits), logits),
        )


class Normal(Likelihood, kind='normal'):
    """Independent normal distributions of one common scale, one a pixel.

    Attributes:
      logits: float32 `[..., rows, features]`; their sigmoid is the mean.
      scale: float32 scalar, the standard deviation of every pixel in units of the grey range.
    """

    def __init__(self, logits: tf.Tensor, scale: tf.Tensor):
        super().__init__(logits)
        self.scale = scale

    @classmethod
    def create(cls, logits: tf.Tensor, params: HParams) -> 'Normal':
        """With the scale `params.normal_scale`, or a learned one where that is 0."""
        if params.normal_scale:
            return cls(logits, tf.constant(params.normal_scale))
        initial = tf.constant_initializer(softplus_inverse(_INITIAL_SCALE))
        raw_scale = tf.get_variable('raw_scale', [], initializer=initial)
        return cls(logits, tf.nn.softplus(raw_scale) + _SCALE_FLOOR)

    def log_prob_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Kingma & Welling 2014 (arXiv:1312.6114), appendix C.2, equation 12, with one scale."""
        return gaussian_log_prob(images, self.mean(), self.scale)

    def least_nats_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Where the mean is x."""
        return -gaussian_log_prob(images, images, self.scale)


class NormalByColumn(Likelihood, kind='normal_by_column'):
    """Independent normal distributions, with a scale for each column of a series.

    Attributes:
      logits: float32 `[..., window, columns]`, the means themselves.
      scale: float32 `[columns]`, in deviations of the column over the training rows. It is at least
        0.02: a column that hardly moves would otherwise be worth any number of nats.
    """

    def __init__(self, logits: tf.Tensor, scale: tf.Tensor):
        super().__init__(logits)
        self.scale = scale

    @classmethod
    def create(cls, logits: tf.Tensor, params: HParams) -> 'NormalByColumn':
        near_one = tf.constant_initializer(softplus_inverse(1.0))
        raw_scale = tf.get_variable('raw_scale', [params.row_features], initializer=near_one)
        return cls(logits, tf.nn.softplus(raw_scale) + _READING_SCALE_FLOOR)

    def mean(self) -> tf.Tensor:
        return self.logits

    def log_prob_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Kingma & Welling 2014 (arXiv:1312.6114), appendix C.2, equation 12, the scale no output.

        It is of standardised readings: a density of readings in their own units is this less the
        logarithms of the columns' deviations.
        """
        return gaussian_log_prob(images, self.mean(), self.scale)

    def least_nats_by_dimension(self, images: tf.Tensor) -> tf.Tensor:
        """Where the mean is x."""
        return -gaussian_log_prob(images, images, self.scale)


@functools.lru_cache(maxsize=None)
def least_continuous_bernoulli_nats() -> np.ndarray:
    """The least -log p(x) of a continuous Bernoulli at each grey level, float32 `[256]`, in nats.

    The log-density x l - log(int exp(l t) dt over [0, 1]) is concave in the logit l, and greatest
    where the mean is x, which bisection finds.
    """
    levels = np.arange(_HIGHEST_LEVEL + 1) / _HIGHEST_LEVEL
    levels = np.clip(levels, 0.5 / _HIGHEST_LEVEL, 1.0 - 0.5 / _HIGHEST_LEVEL)
    # A mean of a half a level, the farthest, is that of a logit of about -2 x 255.
    low, high = np.full(levels.shape, -1000.0), np.full(levels.shape, 1000.0)
    for _ in range(60):
        logits = 0.5 * (low + high)
        with np.errstate(divide='ignore', invalid='ignore'):
            mean = np.where(logits == 0, 0.5, 0.5 + 0.5 / np.tanh(0.5 * logits) - 1.0 / logits)
        low, high = np.where(mean < levels, logits, low), np.where(mean < levels, high, logits)
    # log((exp(l) - 1) / l), without overflow; 0 at 0.
    size = np.maximum(np.abs(logits), 1e-12)
    log_area = np.maximum(logits, 0.0) + np.log(-np.expm1(-size) / size)
    return (log_area - levels * logits).astype(np.float32)
