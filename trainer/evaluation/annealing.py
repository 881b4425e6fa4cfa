"""Annealed importance sampling, from prior to posterior and back: two bounds on log p(x).

Neal 2001 (arXiv:physics/9803008) and, for decoders, Wu et al. 2017 (arXiv:1611.04273), section 3.
Between the prior and the posterior lie T distributions f_t(z) = p(z) p(x | z)^beta_t, unnormalised,
with beta rising from 0 to 1. A chain of z_0 ~ p(z) and transitions, of which the t-th leaves f_t as
it is, has the weight

    log w = sum over t = 1 .. T of (beta_t - beta_{t-1}) log p(x | z_{t-1}),       E[w] = p(x),

so that log w bounds log p(x) from below in the mean. For an x drawn from the model, with the z that
it was drawn of, the same chain can be run back from z: E[1 / w] is 1 / p(x) then, and log w bounds
log p(x) from above (there section 3.2, bidirectional Monte Carlo).

The transitions are Hamiltonian Monte Carlo (Neal 2011, arXiv:1206.1901, section 3), whose step
sizes a run of its own finds beforehand: adapted during a run that counts, they would make it
inexact. None of it knows the encoder.
"""

from typing import Callable, List, Optional, Tuple

import numpy as np
import tensorflow as tf

from trainer.evaluation.importance_sampling import Model

_LEAPFROG_STEPS = 10
# Of the sigmoid of which beta is a part: Wu et al. 2017, section 5.1.
_SIGMOID_WIDTH = 4.0
# Acceptance that the step sizes are made for (there too), and how fast.
_ACCEPTANCE, _ADAPTATION = 0.65, 1.02
_FIRST_STEP_SIZE, _LEAST_STEP_SIZE, _MOST_STEP_SIZE = 0.1, 1e-4, 1.0


def schedule(count: int) -> np.ndarray:
    """Returns beta_0 = 0 .. beta_T = 1 of T = `count`, float64 `[count + 1]`; slow at the ends."""
    sigmoid = 1.0 / (1.0 + np.exp(-_SIGMOID_WIDTH * np.linspace(-1.0, 1.0, count + 1)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def transition(
    latents: tf.Tensor,
    log_density: Callable[[tf.Tensor], tf.Tensor],
    step_size: tf.Tensor,
    momentum: tf.Tensor,
    uniform: tf.Tensor,
) -> Tuple[tf.Tensor, tf.Tensor]:
    """One step of Hamiltonian Monte Carlo, which leaves the density as it is.

    Leapfrog steps by Neal 2011, equations 18 to 20, the acceptance by equation 21 with a mass of 1.

    Args:
      latents: z, float32 `[n, latent_size]`.
      log_density: unnormalised, of `[n, latent_size]`, float32 `[n]`.
      step_size: float32 `[n]`.
      momentum: draws of N(0, I), as `latents`.
      uniform: draws of U[0, 1), float32 `[n]`.

    Returns:
      The next latents, and whether each moved, bool `[n]`.
    """
    epsilon = step_size[:, tf.newaxis]

    def slope(values: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        density = log_density(values)
        return density, tf.gradients(density, values)[0]

    start, gradient = slope(latents)
    moved, pushed = latents, momentum + 0.5 * epsilon * gradient
    for number in range(_LEAPFROG_STEPS):
        moved += epsilon * pushed
        end, gradient = slope(moved)
        share = 0.5 if number == _LEAPFROG_STEPS - 1 else 1.0
        pushed += share * epsilon * gradient
    kinetic = 0.5 * tf.reduce_sum(tf.square(momentum) - tf.square(pushed), axis=1)
    # False where a density is not finite.
    accepted = tf.math.log(uniform) < end - start + kinetic
    return tf.where(accepted, moved, latents), accepted


class AnnealedSampler:
    """Runs chains of images between the prior and their posteriors.

    Args:
      chains: of each image; the more, the tighter both bounds.
      temperatures: T; the more, the tighter both bounds.
      seed: of all draws, with the number that each call is given.
    """

    def __init__(
        self,
        model: Model,
        image_shape: Tuple[int, int],
        latent_size: int,
        chains: int,
        temperatures: int,
        seed: int = 1,
    ):
        self._chains, self._latent_size, self._seed = chains, latent_size, seed
        self._betas = schedule(temperatures)
        with tf.Graph().as_default():
            images = tf.placeholder(tf.float32, [None, *image_shape])
            latents = tf.placeholder(tf.float32, [None, latent_size])
            step_size = tf.placeholder(tf.float32, [None])
            beta = tf.placeholder(tf.float32, [])
            place = tf.placeholder(tf.int64, [2])
            prior = model.prior()
            repeated = tf.reshape(
                tf.tile(images[:, tf.newaxis], [1, chains, 1, 1]), [-1, *image_shape]
            )

            def log_likelihood(values: tf.Tensor) -> tf.Tensor:
                return model.decode(values).log_prob(repeated)

            shape = tf.shape(latents)
            momentum = tf.random.stateless_normal(shape, place)
            uniform = tf.random.stateless_uniform(shape[:1], place + [0, 1])
            moved, accepted = transition(
                latents,
                lambda values: prior.log_prob(values) + beta * log_likelihood(values),
                step_size,
                momentum,
                uniform,
            )
            count = tf.placeholder(tf.int32, [])
            noise = tf.random.stateless_normal([count, latent_size], place)
            drawn = prior.sample(noise, tf.random.stateless_uniform([count], place + [0, 1]))
            config = tf.ConfigProto(intra_op_parallelism_threads=1)
            self._session = tf.Session(config=config)
            model.restore(self._session)
            make = self._session.make_callable
            self._move = make([moved, accepted], [images, latents, step_size, beta, place])
            self._log_likelihood = make(log_likelihood(latents), [images, latents])
            self._draw = make(drawn, [count, place])

    def step_sizes(self, images: np.ndarray, number: int) -> np.ndarray:
        """Finds step sizes by a run upwards, float32 `[T - 1, n]`; `number` is as of `bound`."""
        size = np.full(len(images), _FIRST_STEP_SIZE)
        found: List[np.ndarray] = []

        def adapt(accepted: np.ndarray) -> None:
            found.append(size.copy())
            size[:] *= np.where(accepted.mean(axis=1) > _ACCEPTANCE, _ADAPTATION, 1 / _ADAPTATION)
            np.clip(size, _LEAST_STEP_SIZE, _MOST_STEP_SIZE, out=size)

        self._run(images, number, lambda _: size, adapt)
        return np.asarray(found, np.float32)

    def bound(
        self,
        images: np.ndarray,
        step_sizes: np.ndarray,
        number: int,
        latents: Optional[np.ndarray] = None,
    ) -> np.ndarray:
        """Returns a bound on log p(x) of each image, float64 `[n]`, in nats.

        A lower one in the mean; with `latents` an upper one.

        Args:
          images: float32 `[n, rows, features]`.
          step_sizes: of the images, of `step_sizes`.
          number: no two calls that are to be independent have the same; at least 0.
          latents: of which the images were drawn, float32 `[n, latent_size]`.
        """
        log_weights = self._run(images, number, lambda t: step_sizes[t - 1], start=latents)
        sign = 1.0 if latents is None else -1.0
        highest = (sign * log_weights).max(axis=1, keepdims=True)
        means = np.exp(sign * log_weights - highest).mean(axis=1)
        return sign * (highest[:, 0] + np.log(means))

    def _run(
        self,
        images: np.ndarray,
        number: int,
        step_size: Callable[[int], np.ndarray],
        watch: Callable[[np.ndarray], None] = lambda accepted: None,
        start: Optional[np.ndarray] = None,
    ) -> np.ndarray:
        """Returns the log-weights, float64 `[n, chains]`, of chains up, or down from a `start`."""
        count, last = len(images), len(self._betas) - 1
        betas = self._betas

        def place(t: int) -> List[int]:
            return [self._seed, (number * (last + 1) + t) * 2]

        if start is None:
            latents, order = self._draw(count * self._chains, place(0)), range(1, last + 1)
        else:
            latents, order = np.repeat(start, self._chains, axis=0), range(last, 0, -1)
        log_weights = np.zeros(count * self._chains)
        for t in order:
            # Upwards z_{t-1} is weighed, then moved by the transition t; downwards z_{t-1} was made
            # by the transition t, but for the start, which stands for z_{T-1}.
            if start is not None and t < last:
                latents, _ = self._moved(images, latents, step_size(t), t, place(t))
            weights = self._log_likelihood(images, latents).astype(np.float64)
            log_weights += (betas[t] - betas[t - 1]) * weights
            if start is None and t < last:
                latents, accepted = self._moved(images, latents, step_size(t), t, place(t))
                watch(accepted.reshape(count, self._chains))
        return log_weights.reshape(count, self._chains)

    def _moved(
        self, images: np.ndarray, latents: np.ndarray, sizes: np.ndarray, t: int, place: List[int]
    ) -> Tuple[np.ndarray, np.ndarray]:
        repeated = np.repeat(sizes, self._chains).astype(np.float32)
        return self._move(images, latents, repeated, self._betas[t], place)
