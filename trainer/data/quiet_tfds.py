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

# Suggested where a name is unknown: all are of one fixed size with sides divisible by 4.
_KNOWN_NAMES = ('mnist', 'fashion_mnist', 'kmnist', 'cifar10', 'svhn_cropped')


def builder(dataset: str, data_dir: str) -> Any:
    """TFDS's builder for `dataset`, made without network and without creating folders.

    Raises:
      UserError: TFDS has no such dataset, configuration or version, or its folder is broken.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    try:
        with quiet():
            return tfds.builder(dataset, data_dir=data_dir)
    except registered.DatasetNotFoundError as error:
        raise UserError(
            '--dataset={}: TFDS 1.2.0 has no such dataset{}; some that work are {}.'.format(
                dataset, did_you_mean(dataset), ', '.join(_KNOWN_NAMES)
            )
        ) from error
    except (
        tf.errors.OpError,
        OSError,
        RecursionError,
        UnicodeError,
        tfds.core.proto.json_format.ParseError,
    ) as error:
        raise UserError(
            f'--data_dir={data_dir}: TFDS cannot read the folder of {dataset} there '
            f'({first_line(error)}): move that folder away and start again.'
        ) from error
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError('--dataset={}: {}'.format(dataset, first_line(error))) from error


def did_you_mean(dataset: str) -> str:
    """A question that goes on after a sentence on a wrong name; '' where no name is near."""
    import tensorflow_datasets as tfds

    name = dataset.split(':')[0].split('/')[0].strip().lower().replace('-', '_')
    near = difflib.get_close_matches(name, tfds.list_builders(), n=1)
    return '; did you mean {}?'.format(near[0]) if near else ''


def image_shape(builder: Any, dataset: str) -> Tuple[int, int, int]:
    """(rows, columns, channels) of the dataset's images.

    Raises:
      UserError: they have no fixed size, sides not divisible by 4, or are not uint8 images.
    """
    import tensorflow_datasets as tfds

    feature: Any = dict(builder.info.features.items()).get('image')
    reason = ''
    if not isinstance(feature, tfds.features.Image):
        reason = 'it has no feature called image'
    elif tf.as_dtype(feature.dtype) != tf.uint8:
        reason = 'its images are {}, not uint8'.format(tf.as_dtype(feature.dtype).name)
    elif len(feature.shape) != 3 or not all(feature.shape):
        reason = 'its images have no one fixed size (shape {})'.format(feature.shape)
    elif feature.shape[0] % 4 or feature.shape[1] % 4:
        reason = 'its images are {} x {}, and both sides must be divisible by 4'.format(
            *feature.shape[:2]
        )
    if reason:
        raise UserError(
            '--dataset={}: {}; name a dataset of one fixed image size, such as {}.'.format(
                dataset, reason, ' or '.join(_KNOWN_NAMES[:2])
            )
        )
    rows, columns, channels = feature.shape
    return rows, columns, channels


def split_counts(builder: Any, dataset: str) -> Dict[str, int]:
    """Images in TFDS's train, validation and test splits by its own books.

    0 where they do not say, and where there is no validation split. Only versions with one known
    length a shard (3.*.*) say: we skip the statistics, where TFDS 1.2.0 keeps the count otherwise.

    Raises:
      UserError: there is no train or no test split.
    """
    splits = builder.info.splits
    missing = [name for name in ('train', 'test') if name not in splits]
    if missing:
        raise UserError(
            '--dataset={}: it has no {} split, only {}; name a dataset with train and test '
            'splits.'.format(dataset, missing[0], ', '.join(sorted(splits)))
        )
    counts = {'train': 0, 'validation': 0, 'test': 0}
    for name in set(counts) & set(splits):
        counts[name] = sum(splits[name].shard_lengths) or splits[name].num_examples
    return counts


@contextlib.contextmanager
def quiet(bars: bool = False, download_bars: bool = False) -> Iterator[None]:
    """Keeps TFDS from the terminal, but for the progress bars asked for, and from the network.

    Constructing a builder whose data is not there yet lists a public bucket, and raises
    ConnectionError offline; so does `download_and_prepare`, to print a hint. TFDS prints to stdout,
    logs errors that it raises as well, and does not check certificates (requests warns of that;
    the sha256 of what arrives is checked).
    """
    from tensorflow_datasets.core import dataset_info, utils
    from tensorflow_datasets.core.utils import gcs_utils, tqdm_utils

    absl_level, tf_level = logging.get_verbosity(), tf.compat.v1.logging.get_verbosity()
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
        stack.callback(logging.set_verbosity, absl_level)
        stack.callback(tf.compat.v1.logging.set_verbosity, tf_level)
        logging.set_verbosity(logging.FATAL)
        tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.FATAL)
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
