"""The importance-weighted bound, and how many latents a model uses.

The evidence lower bound itself stands where it is trained and evaluated, in `training/model_fn.py`.
"""

import tensorflow as tf

# Burda et al. 2016 (arXiv:1509.00519), section 5.2: variance of a dimension's posterior mean over
# the data above which the dimension is active.
ACTIVE_VARIANCE = 0.01


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """Returns log 1/K sum_k w_k, whose expectation is a lower bound on log p(x).

    Burda et al. 2016 (arXiv:1509.00519), equation 8: the ELBO for K = 1, tighter with each sample.

    Args:
      log_weights: log w = log p(x | z) + log p(z) - log q(z | x), float32 `[batch, K]`.

    Returns:
      float32 `[batch]`, in nats.
    """
    samples = tf.cast(tf.shape(log_weights)[1], tf.float32)
    return tf.reduce_logsumexp(log_weights, axis=1) - tf.math.log(samples)
