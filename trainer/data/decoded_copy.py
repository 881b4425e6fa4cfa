"""The copy of a dataset that training reads: plain files of bytes, verified at each start."""

import os
import shutil
from typing import Any, Dict, List, Optional, Tuple

import tensorflow as tf

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import quiet_tfds
from trainer.data.dataset import SPLITS, PreparedDataset
from trainer.data.dataset_folder import DatasetFolder, three_splits

SIDECAR = 'decoded.json'
# Raised whenever the files' meaning changes; copies of another format are decoded anew.
_FORMAT = 1


def write(source: DatasetFolder, folder: str) -> None:
    """Decodes TFDS's records to the new local `folder`, its sidecar last.

    Raises:
      UserError: the records are broken, or a split is missing or empty.
    """
    builder = quiet_tfds.builder(source.request, source.data_dir)
    known = quiet_tfds.split_counts(builder, source.dataset)
    say('{}: decoding its images once.'.format(source.name))
    os.mkdir(folder)
    paths = _paths(folder)
    expected = {
        'train': source.num_train,
        'validation': source.num_validation,
        'test': source.num_test,
    }
    counts = {
        split: _write_split(builder, source, split, paths[split], expected[split] or known[split])
        for split in SPLITS
        if split in builder.info.splits
    }
    has_validation = 'validation' in counts
    num_examples = three_splits(counts['train'], counts['test'], counts.get('validation', 0))
    if not all(num_examples.values()):
        raise UserError(
            '--dataset={}: its {} train and {} test images are too few; name a larger one.'.format(
                source.dataset, counts['train'], counts['test']
            )
        )
    if not has_validation:
        rows, columns, channels = source.image_shape
        start = num_examples['train'] * rows * columns * channels
        _move_tail(paths['train'], paths['validation'], start)
    facts = {
        'format': _FORMAT,
        'name': source.name,
        'version': source.version,
        'tfds_version': '1.2.0',
        'image_shape': source.image_shape,
        'num_examples': num_examples,
        'sha256': {split: files.sha256(path) for split, path in paths.items()},
    }
    files.write_json(os.path.join(folder, SIDECAR), facts)


def load(
    folder: str, source: Optional[DatasetFolder] = None
) -> Tuple[Optional[PreparedDataset], str]:
    """Reads and verifies a decoded copy; returns it, or None and why ('' where there is none).

    Args:
      source: what it has to be a copy of; None: anything.
    """
    try:
        facts = files.read_json(os.path.join(folder, SIDECAR))
        if facts is None:
            return None, 'no ' + SIDECAR if tf.gfile.Exists(folder) else ''
        if facts['format'] != _FORMAT:
            return None, 'of another format'
        rows, columns, channels = facts['image_shape']
        prepared = PreparedDataset(
            name=facts['name'],
            version=facts['version'],
            image_shape=(rows, columns, channels),
            files=_paths(folder),
            num_examples={split: facts['num_examples'][split] for split in SPLITS},
        )
        numbers = [*prepared.image_shape, *prepared.num_examples.values()]
        if not all(type(count) is int for count in numbers):
            return None, '{} has a count that is no whole number'.format(SIDECAR)
        if source is not None and not _is_of(prepared, source):
            return None, '{} is of another dataset'.format(SIDECAR)
        for split, path in prepared.files.items():
            size = prepared.num_examples[split] * prepared.image_bytes
            if tf.gfile.Stat(path).length != size or files.sha256(path) != facts['sha256'][split]:
                return None, '{} does not have the bytes that were written'.format(path)
    except (UserError, KeyError, TypeError, ValueError, tf.errors.NotFoundError) as error:
        reason = first_line(error)
        return None, '{} or a file it names is broken ({})'.format(SIDECAR, reason)
    return prepared, ''


def _is_of(prepared: PreparedDataset, source: DatasetFolder) -> bool:
    return (prepared.name, prepared.version, prepared.image_shape) == (
        source.name,
        source.version,
        source.image_shape,
    )


def load_written(folder: str, source: DatasetFolder) -> PreparedDataset:
    """Reads and verifies a decoded copy that has just been written from `source`.

    Raises:
      UserError: it is not what was written.
    """
    prepared, reason = load(folder, source)
    if prepared is None:
        raise UserError(
            '{}: {}, though it was written just now: check the disk.'.format(
                folder, reason or 'missing'
            )
        )
    return prepared


def _paths(folder: str) -> Dict[str, str]:
    return {split: os.path.join(folder, split + '.uint8') for split in SPLITS}


def _write_split(builder: Any, source: DatasetFolder, split: str, path: str, expected: int) -> int:
    """Writes the pixels of a TFDS split to `path` in the order of the records; returns the count.

    The record files are read one after the other, and only the image of each record: TFDS's own
    reader interleaves files and parses the labels too.

    Raises:
      UserError: a record is damaged, or there are not `expected` of them (0: not known).
    """
    records = source.record_files(split)
    count, damage = _write_pixels(records, builder.info.features['image'], path)
    # TFDS names its files name-split.tfrecord-00000-of-00003.
    if len(records) != (int(records[0][-5:]) if records else 1):
        damage = 'a file is missing'
    if not damage and count != (expected or count):
        damage = '{} images, not {}'.format(count, expected)
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
