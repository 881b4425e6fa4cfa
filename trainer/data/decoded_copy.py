"""The copy of a dataset that training reads: plain files of pixels, verified at each start."""

import os
import shutil
from typing import Any, Dict, List, Optional, Tuple

import tensorflow as tf

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import tfds, verified
from trainer.data.dataset import DTYPES, SPLITS, PreparedDataset
from trainer.data.dataset_folder import DatasetFolder, three_splits

SIDECAR = 'decoded.json'
# Raised whenever the files' meaning changes; copies of another format are decoded anew.
_FORMAT = 1


def write(source: DatasetFolder, folder: str) -> None:
    """Decodes TFDS's records to the new local `folder`, its sidecar last.

    Raises UserError where the records are broken, or a split is missing or empty.
    """
    builder = tfds.builder(source.request, source.data_dir)
    known = tfds.split_counts(builder, source.dataset)
    known.update({split: count for split, count in source.counts.items() if count})
    say(f'{source.name}: decoding its images once.')
    os.mkdir(folder)
    paths = _paths(folder)
    counts = {
        split: _write_split(builder, source, split, paths[split], known[split])
        for split in SPLITS
        if split in builder.info.splits
    }
    num_examples = three_splits(counts)
    if not all(num_examples.values()):
        raise UserError(
            f'--dataset={source.dataset}: its {counts["train"]} train and {counts["test"]} test '
            'images are too few; name a larger one.'
        )
    if 'validation' not in counts:
        rows, columns, channels = source.image_shape
        start = num_examples['train'] * rows * columns * channels
        _move_tail(paths['train'], paths['validation'], start)
    facts = {
        'format': _FORMAT,
        'name': source.name,
        'version': source.version,
        'tfds_version': '1.2.0',
        'image_shape': source.image_shape,
        'dtype': 'uint8',
        'num_examples': num_examples,
        'sha256': {split: files.sha256(path) for split, path in paths.items()},
    }
    files.write_json(os.path.join(folder, SIDECAR), facts)


def load(
    folder: str, source: Optional[DatasetFolder] = None
) -> Tuple[Optional[PreparedDataset], str]:
    """Reads and verifies a decoded copy, of `source` if given; of one on gs://, its local copy.

    Returns it, or None and why ('' where there is none).
    """
    try:
        facts = files.read_json(os.path.join(folder, SIDECAR))
        if facts is None:
            return None, 'no ' + SIDECAR if tf.gfile.Exists(folder) else ''
        if facts['format'] != _FORMAT:
            return None, 'of another format'
        rows, columns, channels = shape = tuple(facts['image_shape'])
        counts = {split: facts['num_examples'][split] for split in SPLITS}
        if not all(type(number) is int for number in [*shape, *counts.values()]):
            return None, f'{SIDECAR} has a count that is no whole number'
        dtype = facts.get('dtype', 'uint8')  # Older copies, all of bytes, do not name it.
        if dtype not in DTYPES:
            return None, f'{SIDECAR} has pixels of no known type'
        paths = _paths(folder, dtype)
        prepared = PreparedDataset(
            facts['name'], facts['version'], (rows, columns, channels), dict(paths), counts, dtype
        )
        found = (prepared.name, prepared.version, prepared.image_shape)
        if source is not None and found != (source.name, source.version, source.image_shape):
            return None, f'{SIDECAR} is of another dataset'
        for split, path in paths.items():
            size, digest = counts[split] * prepared.image_bytes, facts['sha256'][split]
            is_whole = tf.gfile.Stat(path).length == size
            copy = verified.local_copy(path, size, digest) if is_whole else ''
            if not copy and (not is_whole or verified.sha256(path) != digest):
                return None, f'{path} does not have the bytes that were written'
            prepared.files[split] = copy or path
    except (UserError, KeyError, TypeError, ValueError, tf.errors.NotFoundError) as error:
        return None, f'{SIDECAR} or a file it names is broken ({first_line(error)})'
    return prepared, ''


def load_written(folder: str, source: DatasetFolder) -> PreparedDataset:
    """Reads a decoded copy that has just been written; raises UserError if it is not `source`."""
    prepared, reason = load(folder, source)
    if prepared is None:
        reason = reason or 'missing'
        raise UserError(f'{folder}: {reason}, though it was written just now: check the disk.')
    return prepared


def _paths(folder: str, dtype: str = 'uint8') -> Dict[str, str]:
    return {split: os.path.join(folder, f'{split}.{dtype}') for split in SPLITS}


def _write_split(builder: Any, source: DatasetFolder, split: str, path: str, expected: int) -> int:
    """Writes the pixels of a TFDS split to `path` in the order of the records; returns the count.

    TFDS's own reader interleaves files and parses the labels too.

    Raises UserError where a record is damaged, or there are not `expected` of them (0: not known).
    """
    records = source.record_files(split)
    count, damage = _write_pixels(records, builder.info.features['image'], path)
    # TFDS names its files name-split.tfrecord-00000-of-00003.
    if len(records) != (int(records[0][-5:]) if records else 1):
        damage = 'a file is missing'
    if not damage and count != (expected or count):
        damage = f'{count} images, not {expected}'
    if damage:
        raise UserError(
            f"{source.records}: TFDS's records of the {split} split are broken ({damage}): move "
            'this folder away and start again.'
        )
    return count


def _write_pixels(records: List[str], feature: Any, path: str) -> Tuple[int, str]:
    """Writes the images of the files `records` to `path`; returns their count and what is wrong."""

    def image(record: tf.Tensor) -> tf.Tensor:
        encoded = tf.parse_single_example(record, {'image': tf.FixedLenFeature([], tf.string)})
        return tf.ensure_shape(feature.decode_example(encoded['image']), feature.shape)

    # GPUs are left alone: a session that saw one would take all of its memory.
    config = tf.ConfigProto(device_count={'GPU': 0})
    count = 0
    with open(path, 'wb') as f, tf.Graph().as_default(), tf.Session(config=config) as session:
        dataset = tf.data.TFRecordDataset(records, buffer_size=8 << 20)
        dataset = dataset.map(image, num_parallel_calls=2).batch(256).prefetch(4)
        batch = dataset.make_one_shot_iterator().get_next()
        try:
            while True:
                pixels = session.run(batch)
                f.write(pixels.tobytes())
                count += len(pixels)
        except tf.errors.OutOfRangeError:
            return count, ''
        except tf.errors.OpError as error:
            return count, first_line(error)


def _move_tail(source: str, target: str, start: int) -> None:
    """Moves the bytes from `start` on out of the file `source` into the new file `target`."""
    with open(source, 'r+b') as f, open(target, 'wb') as tail:
        f.seek(start)
        shutil.copyfileobj(f, tail)
        f.truncate(start)
