"""The event files of a run: one writer a folder, and what TensorBoard says of each scalar."""

import re
import uuid
from typing import Collection, Dict, Tuple

import tensorflow as tf
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

from trainer.model import bounds
from trainer.settings import wording
from trainer.settings.table import HParams

EXAMPLES_PER_SECOND = 'speed/examples_per_second'
_IN_TRAINING_ONLY = {
    'elbo/beta': 'Weight of the KL divergence in the objective.',
    'optimizer/learning_rate': 'Learning rate of Adam.',
    'optimizer/gradient_norm': 'Global norm of the gradients before clipping, in nats per unit.',
    EXAMPLES_PER_SECOND: 'Training examples per second spent in steps.',
}
_BOUND = {
    'elbo/negative_elbo': 'reconstruction loss plus KL divergence',
    'elbo/reconstruction_loss': 'minus log p(x | z)',
    'elbo/kl_divergence': 'KL(q(z | x) || p(z))',
    'elbo/negative_importance_weighted_bound': 'minus log of the mean importance weight over the '
    'samples of each posterior (Burda et al. 2016)',
}


def descriptions(params: HParams) -> Dict[str, str]:
    """Returns what the scalars are, by tag."""
    losses = {
        tag: (
            f'Nats per example, {wording.data_convention(params)}, summed over '
            f'{wording.values(params)} and latent dimensions; {text}. '
            f'log p(x) is {wording.log_likelihood(params)}. '
            'Training: mean over a batch; validation: over the split.'
        )
        for tag, text in _BOUND.items()
    }
    latents = {
        'latents/active_units': (
            'Latent dimensions whose posterior mean varies over the validation '
            f'{wording.examples(params)} by more than {bounds.ACTIVE_VARIANCE} (Burda et al. 2016).'
        ),
        'latents/posterior_scale': (
            'Mean standard deviation of q(z | x) over dimensions and examples.'
        ),
    }
    return {**losses, **latents, **_IN_TRAINING_ONLY}


def describe(writer: tf.summary.FileWriter, by_tag: Dict[str, str]) -> None:
    """Gives scalars their descriptions, which tf.summary.scalar of 1.14 cannot.

    TensorBoard takes them from a tag's first event that has metadata. These events have no value,
    and add no point to a chart. TensorBoard shows an empty chart for a tag that is never written.
    """
    values = []
    for tag, text in by_tag.items():
        metadata = scalar_metadata.create_summary_metadata(tag, text).SerializeToString()
        values.append(tf.Summary.Value(tag=tag, metadata=SummaryMetadata.FromString(metadata)))
    writer.add_summary(tf.Summary(value=values))


def open_event_file(folder: str) -> tf.summary.FileWriter:
    """Returns the writer of events that everything in this process shares for `folder`.

    TF makes one when it is first asked for, and then writes the default graph to it twice: at each
    start of a run, with a warning of TensorBoard's for each. Its files are named by second and
    host, and it empties the one that a clock set back, or a second start within the second, leads
    it to. Ours are numbered in the order in which they were begun, whatever the clock says.
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


def describe_evaluation(writer: tf.summary.FileWriter, params: HParams) -> None:
    """Describes the scalars that evaluations write."""
    describe(writer, _without(_IN_TRAINING_ONLY, descriptions(params)))


def _without(tags: Collection[str], by_tag: Dict[str, str]) -> Dict[str, str]:
    return {tag: text for tag, text in by_tag.items() if tag not in tags}
