"""What TensorBoard shows of a run as SCALARS, HISTOGRAMS and DISTRIBUTIONS.

Training and validation use the same tags, in `model_dir` and in its `eval_validation`, so that
TensorBoard draws both into one chart. An evaluation's metrics have their tags as keys;
`without_groups` gives the names that everything else uses.
"""

from typing import Any, Dict, Sequence, Tuple

import tensorflow as tf

from trainer.model.bounds import ACTIVE_VARIANCE, importance_weighted_bound
from trainer.model.objectives import Terms
from trainer.settings.table import HParams

# More charts than this of single dimensions are no help; the histogram holds them all.
_DIMENSIONS_CHARTED = 64


def training(
    batch: Terms,
    learning_rate: tf.Tensor,
    gradients: Sequence[tf.Tensor],
    gradient_norm: tf.Tensor,
    beta: tf.Tensor,
    params: HParams,
) -> None:
    """Adds what `model_fn` does not: scalars and histograms of a training step.

    Args:
      gradients: before clipping, one for each of `tf.trainable_variables()`.
    """
    # An op of this name keeps Estimator from writing the same numbers again, under the tag `loss`.
    with tf.name_scope('elbo/'):
        negative_elbo = tf.reduce_mean(batch.negative_elbo)
    negative_elbo = tf.raw_ops.ScalarSummary(
        tags='elbo/negative_elbo', values=negative_elbo, name='loss'
    )
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, negative_elbo)
    with tf.name_scope('elbo/'):
        if params.training_samples > 1:
            bound = tf.reduce_mean(importance_weighted_bound(batch.log_weights))
            tf.summary.scalar('negative_importance_weighted_bound', -bound)
        tf.summary.scalar('beta', beta)
    with tf.name_scope('latents/'):
        if 'scale' in batch.by_dimension:
            tf.summary.scalar('posterior_scale', tf.reduce_mean(batch.by_dimension['scale']))
    with tf.name_scope('optimizer/'):
        tf.summary.scalar('learning_rate', learning_rate)
        tf.summary.scalar('gradient_norm', gradient_norm)
    # A histogram of NaN is an error, which would hide what finite.checked_norm has to say.
    with tf.control_dependencies([gradient_norm]):
        _latents(batch)
        for variable, gradient in zip(tf.trainable_variables(), gradients):
            tf.summary.histogram('weights/' + variable.op.name, variable)
            tf.summary.histogram('gradients/' + variable.op.name, gradient)


def evaluation(batch: Terms, params: HParams) -> Dict[str, Tuple[tf.Tensor, tf.Operation]]:
    """Returns the metrics of an evaluation by tag; adds the histograms of its first batch.

    Metrics are means over all examples, whatever the sizes of their batches.
    """
    if params.save_summary_steps:
        _latents(batch)
    with tf.name_scope('metrics'):
        means = {
            'negative_elbo': batch.negative_elbo,
            'reconstruction_loss': batch.reconstruction_loss,
            'kl_divergence': batch.kl_divergence,
            'negative_importance_weighted_bound': -importance_weighted_bound(batch.log_weights),
        }
        metrics = {'elbo/' + name: tf.metrics.mean(values) for name, values in means.items()}
        if 'scale' in batch.by_dimension:
            metrics['latents/posterior_scale'] = tf.metrics.mean(batch.by_dimension['scale'])
        metrics['latents/active_units'] = active_units(batch.by_dimension['mean'])
        if 'kl_by_dimension' in batch.by_dimension:
            kl, update = _mean_over_examples(batch.by_dimension['kl_by_dimension'])
            for number in range(min(kl.shape.as_list()[0], _DIMENSIONS_CHARTED)):
                metrics['kl_by_dimension/{:02d}'.format(number)] = (kl[number], update)
        return metrics


def active_units(mean: tf.Tensor) -> Tuple[tf.Tensor, tf.Operation]:
    """Returns the metric of active units: the dimensions with Var_x(E_q[z]) > 0.01.

    Burda et al. 2016 (arXiv:1509.00519), section 5.2; the variance is over all examples.

    Args:
      mean: the posteriors' means, float32 `[batch, latent_size]`.
    """
    first, update_first = _mean_over_examples(mean)
    second, update_second = _mean_over_examples(tf.square(mean))
    active = second - tf.square(first) > ACTIVE_VARIANCE
    count = tf.reduce_sum(tf.cast(active, tf.float32))
    return count, tf.group(update_first, update_second)


def _mean_over_examples(values: tf.Tensor) -> Tuple[tf.Tensor, tf.Operation]:
    """The metric of the mean over a split of `[batch, n]`: a value `[n]` and its update.

    tf.metrics.mean_tensor would take the mean over batches, whatever their sizes.
    """
    size = values.shape.as_list()[1]
    with tf.variable_scope(None, 'mean_over_examples'):
        total, count = [
            tf.get_variable(
                name,
                shape,
                tf.float64,
                tf.zeros_initializer(),
                trainable=False,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
                use_resource=True,
            )
            for name, shape in (('total', [size]), ('count', []))
        ]
        values = tf.cast(values, tf.float64)
        update = tf.group(
            total.assign_add(tf.reduce_sum(values, axis=0)),
            count.assign_add(tf.cast(tf.shape(values)[0], tf.float64)),
        )
        return tf.cast(total / tf.maximum(count, 1), tf.float32), update


def _latents(batch: Terms) -> None:
    with tf.name_scope('posterior/'):
        for name, values in batch.by_dimension.items():
            if name == 'kl_by_dimension':
                values = tf.reduce_mean(values, axis=0)
            tf.summary.histogram(name, values)


def without_groups(metrics: Dict[str, Any]) -> Dict[str, Any]:
    """Returns an evaluation's metrics by name, `negative_elbo` for `elbo/negative_elbo`.

    Those of single dimensions are left out.
    """
    tags = [tag for tag in metrics if tag.rpartition('/')[0] != 'kl_by_dimension']
    by_name = {tag.rpartition('/')[2]: metrics[tag] for tag in tags}
    assert len(by_name) == len(tags), 'two metrics have one name: {}'.format(sorted(tags))
    return by_name
