"""The curves of training, read from event files, and single images as PNG."""

import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import message

from trainer.base import figures, files
from trainer.base.console import say
from trainer.monitoring import event_files

_CURVES = {'elbo/negative_elbo': 'Negative ELBO', 'elbo/kl_divergence': 'KL divergence'}


class Curve(NamedTuple):
    """One quantity over training: its value, in nats per example, at each global step."""

    steps: List[int]
    values: List[float]


def read_curves(folder: str, tags: Sequence[str]) -> Dict[str, Curve]:
    """Reads scalars from the event files in `folder`; what cannot be read is left out.

    A step seen twice, because a run was resumed from before it, has its later value.
    """
    by_tag = _latest(folder, tags, lambda value: value.simple_value)
    return {
        tag: Curve(sorted(by_step), [by_step[step] for step in sorted(by_step)])
        for tag, by_step in by_tag.items()
    }


def read_images(folder: str, tag: str) -> Dict[int, bytes]:
    """Reads the PNG files of an image summary from event files, by step, as `read_curves` does."""
    return _latest(folder, [tag], lambda value: value.image.encoded_image_string)[tag]


def _latest(
    folder: str, tags: Sequence[str], content: Callable[[tf.Summary.Value], Any]
) -> Dict[str, Dict[int, Any]]:
    """What `content` gives of the last value of each tag at each step."""
    by_tag: Dict[str, Dict[int, Any]] = {tag: {} for tag in tags}
    for event in _events(folder):
        for value in event.summary.value:
            if value.tag in by_tag and value.WhichOneof('value') is not None:
                by_tag[value.tag][event.step] = content(value)
    return by_tag


def _events(folder: str) -> Iterator[tf.Event]:
    """All events in a folder in the order of writing; names the files that are damaged.

    One whose process was killed while it wrote is: at its end. It is read as far as it can be.
    """
    names = tf.gfile.ListDirectory(folder) if tf.gfile.IsDirectory(folder) else []
    names = [name for name in names if name.startswith('events.out.tfevents.')]
    for name in sorted(names, key=event_files.event_file_order):
        path, count = os.path.join(folder, name), 0
        try:
            for event in tf.train.summary_iterator(path):
                yield event
                count += 1
        except (tf.errors.OpError, message.DecodeError):
            say('{} is damaged after {:,} events: the rest is left out.'.format(path, count))
        else:
            if not count:
                say('{} is empty.'.format(path))


def write_training_curves(path: str, model_dir: str, convention: str) -> str:
    """Draws the negative ELBO and the KL divergence over steps; returns `path`.

    Args:
      convention: the data that the numbers are of, for the axes.

    Raises:
      UserError: matplotlib is not installed.
    """
    train = read_curves(model_dir, list(_CURVES))
    validation = read_curves(os.path.join(model_dir, 'eval_validation'), list(_CURVES))

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(_CURVES))
        for axis, (tag, title) in zip(axes, _CURVES.items()):
            marker = 'o' if len(train[tag].steps) == 1 else None  # One point makes no line.
            axis.plot(*train[tag], alpha=0.7, marker=marker, label='train (a batch)')
            axis.plot(*validation[tag], marker='o', linewidth=2, label='validation')
            label = 'nats per example, {}'.format(convention)
            axis.set(title=title, xlabel='global step', ylabel=label)
            axis.grid(alpha=0.3)
            axis.legend()
        losses = train['elbo/negative_elbo'].values + validation['elbo/negative_elbo'].values
        losses = [loss for loss in losses if np.isfinite(loss)]  # A run may have diverged.
        if losses:
            # The first losses, of hundreds of nats, would squeeze all the rest into one line.
            low, high = np.percentile(losses, [0, 90])
            axes[0].set_ylim(low - 3.0, max(1.5 * high - 0.5 * low, low + 10.0))

    return files.write_bytes(path, figures.png((10, 4), draw))
