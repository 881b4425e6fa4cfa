"""The importance-weighted estimate of log p(x), image by image, in bounded memory.

The estimate is log 1/K sum_k p(x, z_k) / q(z_k | x) with K samples z_k of the posterior: Burda et
al. 2016 (arXiv:1509.00519), equation 8. Samples are decoded a chunk at a time, and of their weights
only the maximum, two scaled sums and two means are kept: memory limits neither K nor the images.

The noise of a sample is a function of (seed, number of the image, number of the sample) alone.
Results therefore do not depend on threads, on the chunks but for rounding, or on where an
evaluation was interrupted; and the first samples of a larger K are those of a smaller one.
"""

import collections
import concurrent.futures
import math
import threading
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, NamedTuple, Tuple

import numpy as np
import tensorflow as tf

from trainer.model.likelihoods import Likelihood
from trainer.model.posteriors import Posterior
from trainer.model.priors import Prior

# Of an evaluation's samples, where no other is given.
SEED = 1
# Samples whose noise is one draw. Another number would make other noise.
_NOISE_BLOCK = 100
# Samples decoded at once. Fewer leave the matrix products too small, and Python too much to do.
CHUNK = 500
# Samples from which the KL divergence of each dimension is estimated where it has no closed form:
# a learned prior's marginals cost more than decoding, and the mean over all images needs no more.
MARGINAL_SAMPLES = _NOISE_BLOCK


class Model(NamedTuple):
    """What is evaluated, as functions that add to a graph."""

    encode: Callable[[tf.Tensor], Posterior]  # Of images [batch, rows, features].
    decode: Callable[[tf.Tensor], Likelihood]  # p(x | z) of latents [count, latent_size].
    prior: Callable[[], Prior]
    restore: Callable[[tf.Session], None]  # Gives the variables of the graph their values.


class StreamingLogMeanExp:
    """log 1/K sum_k exp(v_k) of the logarithms of weights, which come in parts, in float64.

    Attributes:
      count: K, the number of values so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._maximum = -np.inf
        self._sum = 0.0  # Of exp(v_k - maximum).
        self._squares = 0.0  # Of their squares.

    def add(self, values: np.ndarray) -> None:
        """Takes in finite values, `[n]`."""
        values = values.astype(np.float64)
        maximum = np.maximum(self._maximum, values.max())  # Unlike max, it passes NaN on.
        scale, weights = np.exp(self._maximum - maximum), np.exp(values - maximum)
        self._sum = self._sum * scale + weights.sum()
        self._squares = self._squares * scale**2 + np.square(weights).sum()
        self._maximum = maximum
        self.count += len(values)

    def result(self) -> float:
        """Returns the logarithm of the mean so far."""
        return float(self._maximum + np.log(self._sum / self.count))

    def effective_count(self) -> float:
        """Returns how many equal weights are worth as much as those so far, from 1 to `count`.

        The squared sum of the weights over the sum of their squares: Kong 1992 ("A note on
        importance sampling using standardized weights", technical report 348, University of
        Chicago).
        """
        return float(self._sum**2 / self._squares)


def row_type(latent_size: int, has_marginals: bool = True) -> np.dtype:
    """The type of what is known of an image, in nats but for the last two.

    `has_marginals` tells whether the KL divergence of each dimension is known.
    """
    losses = ('importance_weighted_bound', 'reconstruction_loss', 'kl_divergence')
    vectors = ['kl_by_dimension'] * has_marginals + ['posterior_mean']
    scalars = [(name, np.float64) for name in losses]
    in_vectors = [(name, np.float32, (latent_size,)) for name in vectors]
    return np.dtype([*scalars, *in_vectors, ('effective_samples', np.float64)])


class ImportanceSampler:
    """Estimates the log-likelihood of each image of a dataset, once.

    Several Python threads share one session of one graph, each with an image of its own: none
    waits for another, as towers within a step would.

    Args:
      input_fn: returns a dataset of {'images': float32 `[batch, rows, features]`}; it is called
        within the graph.
      samples: K.
      seed: of the noise, 0 or more.
      threads: images estimated at a time.
      chunk: samples decoded at once, at most; they are a multiple or a divisor of 100.
    """

    def __init__(
        self,
        model: Model,
        input_fn: Callable[[], tf.data.Dataset],
        samples: int,
        seed: int,
        threads: int,
        chunk: int = CHUNK,
    ):
        most = math.ceil(samples / _NOISE_BLOCK) * _NOISE_BLOCK
        self._samples, self._threads = samples, threads
        self._chunk = _rounded_down(min(chunk, most))
        blocks = math.ceil(self._chunk / _NOISE_BLOCK)
        self._stop = threading.Event()
        with tf.Graph().as_default():
            iterator = input_fn().make_initializable_iterator()
            images = iterator.get_next()['images']
            encoded = model.encode(images)
            latent_size = encoded.point().shape.as_list()[1]

            image = tf.placeholder(images.dtype, images.shape[1:])
            of_posterior = [tf.placeholder(tf.float32, t.shape[1:]) for t in encoded.parameters]
            place = [tf.placeholder(tf.int64, []) for _ in range(3)]
            start = tf.placeholder(tf.int64, [])  # Within the first block.
            posterior = encoded.with_parameters([tensor[tf.newaxis] for tensor in of_posterior])
            noise = _noise(seed, place, latent_size, blocks)
            in_blocks = posterior.sample(noise[tf.newaxis])
            latents = in_blocks[:, start : start + self._chunk]
            # The image is broadcast: a copy for each sample would be one more pass over memory.
            log_likelihood = model.decode(latents[0]).log_prob(image[tf.newaxis])

            prior = model.prior()
            config = tf.ConfigProto(
                intra_op_parallelism_threads=1, inter_op_parallelism_threads=threads
            )
            self._session = tf.Session(config=config)
            model.restore(self._session)
            # Constants from here on: those of a VampPrior are encodings of all its pseudo-inputs.
            parameters = self._session.run(list(prior.parameters))
            prior = prior.with_parameters([tf.constant(value) for value in parameters])
            self._has_closed_kl = posterior.closed_kl_by_dimension(prior) is not None
            log_joint = log_likelihood[tf.newaxis] + prior.log_prob(latents)
            log_weights = log_joint - posterior.log_prob(latents)
            kl_by_dimension = posterior.kl_by_dimension(prior, in_blocks[:, :MARGINAL_SAMPLES])
            marginals = [] if kl_by_dimension is None else [kl_by_dimension[0]]
            self.row_type = row_type(latent_size, bool(marginals))
            outputs = [log_likelihood, log_weights[0]]
            feeds = [image] + of_posterior + place + [start]
            batch = [images, encoded.point(), *encoded.parameters]
            self._begin = self._session.make_callable(iterator.initializer)
            self._next_batch = self._session.make_callable(batch)
            self._first_chunk = self._session.make_callable(outputs + marginals, feeds)
            self._later_chunk = self._session.make_callable(outputs, feeds)

    def rows(self, start: int = 0) -> Generator[Tuple, None, None]:
        """Yields a row of `row_type` for each image in order, from number `start` on."""
        pending: Deque[concurrent.futures.Future] = collections.deque()
        self._stop.clear()
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            try:
                for number, encoded in enumerate(self._encoded()):
                    if number < start:
                        continue
                    pending.append(pool.submit(self._estimate, number, *encoded))
                    if len(pending) > 2 * self._threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                self._stop.set()

    def _encoded(self) -> Iterator[Tuple[np.ndarray, ...]]:
        """Yields each image with its posterior's point and parameters.

        Encoded in the same batches in each evaluation: in others they would round differently.
        """
        self._begin()
        while True:
            try:
                batch = self._next_batch()
            except tf.errors.OutOfRangeError:
                return
            yield from zip(*batch)

    def _estimate(
        self, number: int, image: np.ndarray, point: np.ndarray, *of_posterior: np.ndarray
    ) -> Any:
        """Returns the row of an image; None if the evaluation has ended meanwhile."""
        estimate = StreamingLogMeanExp()
        sums: Dict[str, float] = collections.defaultdict(float)
        kl_by_dimension: List[np.ndarray] = []
        for first in range(0, self._samples, self._chunk):
            if self._stop.is_set():
                return None
            block, start = divmod(first, _NOISE_BLOCK)
            count = min(max(self._chunk, _NOISE_BLOCK), self._samples - block * _NOISE_BLOCK)
            feeds = (image, *of_posterior, number, block, count, start)
            chunk = self._later_chunk if first else self._first_chunk
            log_likelihood, log_weights, *marginals = chunk(*feeds)
            kl_by_dimension += marginals
            estimate.add(log_weights)
            log_ratio = log_likelihood.astype(np.float64) - log_weights
            sums['log_likelihood'] += log_likelihood.sum(dtype=np.float64)
            sums['log_ratio'] += log_ratio.sum()
        if self._has_closed_kl:
            kl_divergence = kl_by_dimension[0].sum(dtype=np.float64)
        else:
            kl_divergence = sums['log_ratio'] / self._samples
        reconstruction_loss = -sums['log_likelihood'] / self._samples
        losses = (estimate.result(), reconstruction_loss, kl_divergence)
        return (*losses, *kl_by_dimension, point, estimate.effective_count())


def _rounded_down(chunk: int) -> int:
    """The largest multiple of a block, or else the largest divisor, of at most `chunk`."""
    if chunk >= _NOISE_BLOCK:
        return chunk // _NOISE_BLOCK * _NOISE_BLOCK
    return max(size for size in range(1, chunk + 1) if _NOISE_BLOCK % size == 0)


def _noise(seed: int, place: List[tf.Tensor], latent_size: int, blocks: int) -> tf.Tensor:
    """Returns N(0, I) noise of the samples of an image, float32 `[count, latent_size]`.

    Args:
      seed: of the evaluation.
      place: int64 scalars: the number of the image, that of the first block of samples, and
        `count`, which is at most what `blocks` blocks hold.
    """
    image, first_block, count = place
    draws = [
        tf.random.stateless_normal(
            [_NOISE_BLOCK, latent_size],
            # Image and block in 32 bits each: no two blocks of an evaluation share a seed.
            tf.stack([tf.constant(seed, tf.int64), image * 2**32 + first_block + number]),
        )
        for number in range(blocks)
    ]
    return tf.concat(draws, axis=0)[:count]
