"""What TensorBoard shows of a run as SCALARS, HISTOGRAMS and DISTRIBUTIONS.

Training and validation use the same tags, in `model_dir` and in its `eval_validation`, so that
TensorBoard draws both into one chart. Metrics of an evaluation carry their tags as keys;
`without_groups` gives the names that everything else uses.
"""

import re
import uuid
from typing import Any, Dict, Sequence, Tuple

import tensorflow as tf
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

from trainer import hparams
from trainer.elbo import importance_weighted_bound
from trainer.hparams import HParams
from trainer.objective import EvaluationTerms, TrainingTerms
from trainer.optimizer import TrainingStep

# Burda et al. 2016 (arXiv:1509.00519), section 5.2: variance of a dimension's posterior mean over
# the data above which the dimension is active.
ACTIVE_VARIANCE = 0.01
# More charts than this of single dimensions are no help; the histogram holds them all.
_DIMENSIONS_CHARTED = 64

EXAMPLES_PER_SECOND = 'speed/examples_per_second'
_IN_TRAINING_ONLY = (
    'elbo/beta',
    'optimizer/learning_rate',
    'optimizer/gradient_norm',
    EXAMPLES_PER_SECOND,
)
_BOUND = {
    'elbo/negative_elbo': 'reconstruction loss plus KL divergence',
    'elbo/reconstruction_loss': 'minus log p(x | z)',
    'elbo/kl_divergence': 'KL(q(z | x) || p(z))',
    'elbo/negative_importance_weighted_bound': 'minus log of the mean importance weight over the '
    'samples of each posterior (Burda et al. 2016)',
}
_OTHERS = {
    'elbo/beta': 'Weight of the KL divergence in the objective.',
    'latents/active_units': 'Latent dimensions whose posterior mean varies over the validation '
    'images by more than {} (Burda et al. 2016).'.format(ACTIVE_VARIANCE),
    'latents/posterior_scale': 'Mean standard deviation of q(z | x) over dimensions and examples.',
    'optimizer/learning_rate': 'Learning rate of Adam.',
    'optimizer/gradient_norm': 'Global norm of the gradients before clipping, in nats per unit.',
    EXAMPLES_PER_SECOND: 'Training examples per second spent in steps.',
}


def descriptions(params: HParams) -> Dict[str, str]:
    """Returns what the scalars are, by tag."""
    losses = {
        tag: 'Nats per example, {}, summed over pixels and latent dimensions; {}. log p(x) is {}. '
        'Training: mean over a batch; validation: over the split.'.format(
            hparams.convention(params), text, hparams.log_likelihood(params)
        )
        for tag, text in _BOUND.items()
    }
    return {**losses, **_OTHERS}


def training(
    batch: TrainingTerms,
    step: TrainingStep,
    gradients: Sequence[tf.Tensor],
    beta: tf.Tensor,
    params: HParams,
) -> None:
    """Adds the scalars and histograms of a training step.

    Args:
      batch: of the whole batch.
      step: of the optimizer.
      gradients: before clipping, one for each of `tf.trainable_variables()`.
      beta: the weight of the KL divergence.
    """
    # An op of this name keeps Estimator from writing the same numbers again, under the tag `loss`.
    with tf.name_scope('elbo/'):
        negative_elbo = tf.reduce_mean(batch.elbo.negative_elbo)
    negative_elbo = tf.raw_ops.ScalarSummary(
        tags='elbo/negative_elbo', values=negative_elbo, name='loss'
    )
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, negative_elbo)
    with tf.name_scope('elbo/'):
        for name in ('reconstruction_loss', 'kl_divergence'):
            tf.summary.scalar(name, tf.reduce_mean(getattr(batch.elbo, name)))
        if params.training_samples > 1:
            bound = tf.reduce_mean(importance_weighted_bound(batch.log_weights))
            tf.summary.scalar('negative_importance_weighted_bound', -bound)
        tf.summary.scalar('beta', beta)
    with tf.name_scope('latents/'):
        tf.summary.scalar('posterior_scale', tf.reduce_mean(batch.posterior_scale))
    with tf.name_scope('optimizer/'):
        tf.summary.scalar('learning_rate', step.learning_rate)
        tf.summary.scalar('gradient_norm', step.gradient_norm)
    # A histogram of NaN is an error, which would hide what finite.checked_norm has to say.
    with tf.control_dependencies([step.gradient_norm]):
        _latents(batch.posterior_mean, batch.posterior_scale, batch.kl_by_dimension)
        for variable, gradient in zip(tf.trainable_variables(), gradients):
            tf.summary.histogram('weights/' + variable.op.name, variable)
            tf.summary.histogram('gradients/' + variable.op.name, gradient)


def evaluation(
    batch: EvaluationTerms, params: HParams
) -> Dict[str, Tuple[tf.Tensor, tf.Operation]]:
    """Returns the metrics of an evaluation by tag; adds the histograms of its first batch.

    Metrics are means over all examples, whatever the sizes of their batches.
    """
    if params.save_summary_steps:
        _latents(batch.posterior_mean, batch.posterior_scale, batch.kl_by_dimension)
    with tf.name_scope('metrics'):
        metrics = {'elbo/' + name: tf.metrics.mean(value) for name, value in batch.means.items()}
        metrics['latents/posterior_scale'] = tf.metrics.mean(batch.posterior_scale)
        metrics['latents/active_units'] = active_units(batch.posterior_mean)
        kl, update = _mean_over_examples(batch.kl_by_dimension)
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


def _latents(mean: tf.Tensor, scale: tf.Tensor, kl_by_dimension: tf.Tensor) -> None:
    with tf.name_scope('posterior/'):
        tf.summary.histogram('mean', mean)
        tf.summary.histogram('scale', scale)
        tf.summary.histogram('kl_by_dimension', tf.reduce_mean(kl_by_dimension, axis=0))


def without_groups(metrics: Dict[str, Any]) -> Dict[str, Any]:
    """Returns an evaluation's metrics by name, `negative_elbo` for `elbo/negative_elbo`.

    Those of single dimensions are left out.
    """
    tags = [tag for tag in metrics if tag.rpartition('/')[0] != 'kl_by_dimension']
    by_name = {tag.rpartition('/')[2]: metrics[tag] for tag in tags}
    assert len(by_name) == len(tags), 'two metrics have one name: {}'.format(sorted(tags))
    return by_name


def describe(writer: tf.summary.FileWriter, by_tag: Dict[str, str]) -> None:
    """Gives scalars their descriptions, which tf.summary.scalar of 1.14 cannot.

    A description of a tag that is never written would be a chart without a line.

    TensorBoard takes a tag's description from the first event that has metadata for it; these
    events have no value, and add no point to a chart.
    """
    values = []
    for tag, text in by_tag.items():
        metadata = scalar_metadata.create_summary_metadata(tag, text).SerializeToString()
        values.append(tf.Summary.Value(tag=tag, metadata=SummaryMetadata.FromString(metadata)))
    writer.add_summary(tf.Summary(value=values))


def open_event_file(folder: str) -> tf.summary.FileWriter:
    """Returns the writer of events that everything in this process shares for `folder`.

    TF makes it when one is first asked for, and then writes the default graph to it, as a graph
    and as a meta-graph: at each start of a run, with a warning of TensorBoard's for each. Its files
    are named by second and host, and it empties the one that a clock set back, or a second start
    within the second, leads it to. Ours have a name of their own, with a number that tells in which
    order they were begun, whatever the clock says.
    """
    cache = tf.summary.FileWriterCache
    with cache._lock:
        if folder not in cache._cache:
            names = tf.gfile.ListDirectory(folder) if tf.gfile.IsDirectory(folder) else []
            number = 1 + max([event_file_order(name)[0] for name in names], default=0)
            suffix = '.{:06d}.{}'.format(number, uuid.uuid4().hex[:8])
            cache._cache[folder] = tf.summary.FileWriter(folder, filename_suffix=suffix)
        return cache.get(folder)


def event_file_order(name: str) -> Tuple[int, str]:
    """Returns what event files of a folder are sorted by: their number, 0 for others, and name."""
    numbered = re.search(r'\.(\d{6})\.[0-9a-f]{8}$', name)
    return int(numbered.group(1)) if numbered else 0, name


def describe_training(writer: tf.summary.FileWriter, params: HParams) -> None:
    """Describes the scalars that a training writes."""
    unwritten = ['latents/active_units']
    if params.training_samples == 1:
        unwritten.append('elbo/negative_importance_weighted_bound')
    if params.save_summary_steps:
        describe(writer, _without(unwritten, descriptions(params)))


def _without(tags: Sequence[str], by_tag: Dict[str, str]) -> Dict[str, str]:
    return {tag: text for tag, text in by_tag.items() if tag not in tags}


class FirstBatchSummaryHook(tf.train.SummarySaverHook):
    """Writes the summaries of an evaluation's first batch; EVAL writes none by itself (1.14)."""

    def __init__(self, output_dir: str, params: HParams):
        self._params = params
        # An evaluation does not advance the global step, so this never triggers a second time.
        super().__init__(save_steps=10**9, output_dir=output_dir, summary_op=tf.no_op)

    def begin(self) -> None:
        merged = tf.summary.merge_all()
        # An event without values where there are no summaries: the hook takes no None.
        self._summary_op = tf.constant('') if merged is None else merged
        open_event_file(self._output_dir)
        super().begin()
        describe(self._summary_writer, _without(_IN_TRAINING_ONLY, descriptions(self._params)))


class CheckpointSaverHook(tf.train.CheckpointSaverHook):
    """TF's own, but for the graph in the event files: once in a run.

    That of 1.14 writes it twice at each start, as a graph and within a meta-graph, and TensorBoard
    warns of each repetition.
    """

    _has_graph = False

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        writer: tf.summary.FileWriter = self._summary_writer  # type: ignore[has-type]
        self._summary_writer = _WithoutGraphs(writer)
        try:
            super().after_create_session(session, coord)
        finally:
            self._summary_writer = writer
        # Not again for a session that is made anew before the first step was saved.
        if not self._has_graph and session.run(tf.train.get_global_step()) == 0:
            writer.add_graph(tf.get_default_graph())
            self._has_graph = True


class _WithoutGraphs:
    """A FileWriter that leaves graphs out."""

    def __init__(self, writer: tf.summary.FileWriter):
        self._writer = writer

    def add_graph(self, graph: tf.Graph) -> None:
        pass

    def add_meta_graph(self, meta_graph: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)
