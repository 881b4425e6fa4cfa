"""TFDS 1.2.0 without its chatter and without network calls that nobody asked for.

TFDS is imported inside functions: a start that finds everything prepared does without it, which
saves about a second.
"""

import contextlib
import difflib
import io
import warnings
from typing import Any, Dict, Iterator, Tuple

import tensorflow as tf
from absl import logging

from trainer.base.errors import UserError, first_line

# Suggested where a name is unknown: all are of one fixed size.
_KNOWN_NAMES = ('mnist', 'fashion_mnist', 'kmnist', 'cifar10', 'svhn_cropped')


def builder(dataset: str, data_dir: str) -> Any:
    """TFDS's builder for `dataset`, made without network and without creating folders.

    Raises UserError where TFDS has no such dataset or version, or its folder is broken.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    parse_error = tfds.core.proto.json_format.ParseError
    try:
        with quiet():
            return tfds.builder(dataset, data_dir=data_dir)
    except registered.DatasetNotFoundError as error:
        raise UserError(
            f'--dataset={dataset}: TFDS 1.2.0 has no such dataset{did_you_mean(dataset)}; some '
            f'that work are {", ".join(_KNOWN_NAMES)}.'
        ) from error
    except (tf.errors.OpError, OSError, RecursionError, UnicodeError, parse_error) as error:
        raise UserError(
            f'--data_dir={data_dir}: TFDS cannot read the folder of {dataset} there '
            f'({first_line(error)}): move that folder away and start again.'
        ) from error
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError(f'--dataset={dataset}: {first_line(error)}') from error


def did_you_mean(dataset: str) -> str:
    """A question that goes on after a sentence on a wrong name; '' where no name is near."""
    import tensorflow_datasets as tfds

    name = dataset.split(':')[0].split('/')[0].strip().lower().replace('-', '_')
    near = difflib.get_close_matches(name, tfds.list_builders(), n=1)
    return f'; did you mean {near[0]}?' if near else ''


def image_shape(builder: Any, dataset: str) -> Tuple[int, int, int]:
    """(rows, columns, channels) of images; raises UserError where the model cannot take them."""
    import tensorflow_datasets as tfds

    feature: Any = dict(builder.info.features.items()).get('image')
    if not isinstance(feature, tfds.features.Image):
        reason = 'it has no feature called image'
    elif tf.as_dtype(feature.dtype) != tf.uint8:
        reason = f'its images are {tf.as_dtype(feature.dtype).name}, not uint8'
    elif len(feature.shape) != 3 or not all(feature.shape):
        reason = f'its images have no one fixed size (shape {feature.shape})'
    else:
        return feature.shape
    raise UserError(
        f'--dataset={dataset}: {reason}; name a dataset of one fixed image size, such as '
        f'{" or ".join(_KNOWN_NAMES[:2])}.'
    )


def split_counts(builder: Any, dataset: str) -> Dict[str, int]:
    """Images in TFDS's train, validation and test splits by its own books.

    0 where they do not say (versions without a length a shard, as we skip the statistics), and
    where there is no validation split. Raises UserError where there is no train or no test split.
    """
    splits = builder.info.splits
    missing = [name for name in ('train', 'test') if name not in splits]
    if missing:
        raise UserError(
            f'--dataset={dataset}: it has no {missing[0]} split, only '
            f'{", ".join(sorted(splits))}; name a dataset with train and test splits.'
        )
    counts = {'train': 0, 'validation': 0, 'test': 0}
    for name in set(counts) & set(splits):
        counts[name] = sum(splits[name].shard_lengths) or splits[name].num_examples
    return counts


@contextlib.contextmanager
def quiet(bars: bool = False, download_bars: bool = False) -> Iterator[None]:
    """Keeps TFDS from the terminal, but for the progress bars asked for, and from the network.

    TFDS lists a public bucket, and raises ConnectionError offline, when a builder whose data is not
    there yet is made. It prints to stdout, logs errors that it raises as well, and does not check
    certificates (requests warns of that; the sha256 of what arrives is checked).
    """
    from tensorflow_datasets.core import dataset_info, utils
    from tensorflow_datasets.core.utils import gcs_utils, tqdm_utils

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(replaced(dataset_info.DatasetInfo, 'initialize_from_bucket', lambda self: None))
        enter(replaced(gcs_utils, 'gcs_files', lambda prefix_filter=None: []))
        enter(replaced(tqdm_utils, '_active', bars))
        if not download_bars:  # They stay on the screen, empty where nothing is downloaded.
            enter(replaced(utils, 'async_tqdm', tqdm_utils.EmptyTqdm))
        enter(contextlib.redirect_stdout(io.StringIO()))
        enter(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        for log in (logging, tf.compat.v1.logging):
            stack.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity(log.FATAL)
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Gives an attribute of TFDS another value meanwhile."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
