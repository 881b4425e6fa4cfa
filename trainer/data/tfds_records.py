"""TFDS's records as a source of images: TFRecords of encoded images, whose pixels are written."""

import os
import shutil
from typing import Any, List, Tuple

import tensorflow as tf

from trainer.base.errors import UserError, first_line
from trainer.data import tfds
from trainer.data.dataset import SPLITS, DatasetFacts, ImageSource, Written
from trainer.data.dataset_folder import DatasetFolder, three_splits


class TfdsRecords(ImageSource):
    """The records that TFDS has written, of whatever it was made."""

    def __init__(self, folder: DatasetFolder):
        self._folder = folder

    @property
    def name(self) -> str:
        return self._folder.name

    def facts(self) -> DatasetFacts:
        found = self._folder
        is_known = found.counts.get('train') and found.counts.get('test')
        counts = three_splits(found.counts) if is_known else None
        return DatasetFacts(found.name, found.version, found.image_shape, counts)

    def write_splits(self, folder: str) -> Written:
        """Decodes the records; raises UserError where they are broken or a split is empty."""
        source = self._folder
        builder = tfds.builder(source.request, source.data_dir)
        known = tfds.split_counts(builder, source.dataset)
        known.update({split: count for split, count in source.counts.items() if count})
        paths = {split: os.path.join(folder, split + '.uint8') for split in SPLITS}
        counts = {
            split: _write_split(builder, source, split, paths[split], known[split])
            for split in SPLITS
            if split in builder.info.splits
        }
        num_examples = three_splits(counts)
        if not all(num_examples.values()):
            raise UserError(
                f'--dataset={source.dataset}: its {counts["train"]} train and {counts["test"]} '
                'test images are too few; name a larger one.'
            )
        if 'validation' not in counts:
            rows, columns, channels = source.image_shape
            start = num_examples['train'] * rows * columns * channels
            _move_tail(paths['train'], paths['validation'], start)
        return Written(source.image_shape, num_examples)


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
