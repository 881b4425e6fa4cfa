"""Small data sets that only the tests use.

Run as a program it prepares a small MNIST in a process of its own, see `main`.
"""

import argparse
import contextlib
import dataclasses
import gzip
import hashlib
import os
import struct
import time
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image import binarized_mnist as tfds_binarized_mnist
from tensorflow_datasets.image import mnist as tfds_mnist

from trainer.data import catalog, prepare, tfds_records
from trainer.data.dataset import PreparedDataset

NUM_TRAIN, NUM_TEST = 240, 24
# Nothing listens on port 1: TFDS's own download fails at once.
NOWHERE = 'http://127.0.0.1:1/'


def numbered_images(count, shape, first=0):
    """uint8 [count, *shape]: noise, with the image's number in its first two bytes."""
    images = np.random.RandomState(first).randint(0, 256, (count,) + tuple(shape)).astype(np.uint8)
    flat = images.reshape(count, -1)
    numbers = np.arange(first, first + count)
    flat[:, 0], flat[:, 1] = numbers // 256, numbers % 256
    return images


def numbers_of(images):
    """The numbers of images that `numbered_images` made; any shape, uint8 or [0, 1]."""
    flat = np.asarray(images).reshape(len(images), -1)
    if flat.dtype != np.uint8:
        flat = np.rint(flat * 255)
    return (flat[:, 0].astype(int) * 256 + flat[:, 1].astype(int)).tolist()


def write_prepared(folder, num_train=110, shape=(8, 8, 1)):
    """A PreparedDataset of numbered images, written without TFDS."""
    counts = {'train': num_train, 'validation': 10, 'test': 20}
    paths, first = {}, 0
    for split, count in counts.items():
        paths[split] = os.path.join(str(folder), split + '.uint8')
        numbered_images(count, shape, first).tofile(paths[split])
        first += count
    return PreparedDataset('numbered', '1.0.0', tuple(shape), paths, counts)


def write_idx(folder, label=0, gzipped=False):
    """Writes the four IDX files of a small MNIST whose labels are all `label`.

    None: each label is the last digit of its image's number.
    """
    os.makedirs(str(folder), exist_ok=True)
    for prefix, count, first in (('train', NUM_TRAIN, 0), ('t10k', NUM_TEST, NUM_TRAIN)):
        images = numbered_images(count, (28, 28), first).tobytes()
        numbers = range(first, first + count)
        labels = bytes(number % 10 if label is None else label for number in numbers)
        contents = {
            '{}-images-idx3-ubyte': struct.pack('>IIII', 2051, count, 28, 28) + images,
            '{}-labels-idx1-ubyte': struct.pack('>II', 2049, count) + labels,
        }
        for name, content in contents.items():
            path = os.path.join(str(folder), name.format(prefix))
            with open(path + '.gz' * gzipped, 'wb') as f:
                f.write(gzip.compress(content) if gzipped else content)
    return str(folder)


@contextlib.contextmanager
def small_mnist(folder, url=NOWHERE, archives=None, dataset='mnist'):
    """Makes `dataset` mean the raw IDX files in `folder`, which TFDS would download from `url`.

    `archives` is the folder of the .gz files that `url` serves, for TFDS's list of checksums.
    """
    real = catalog.FILE_DATASETS[dataset]
    builder = {'mnist': tfds_mnist.MNIST, 'fashion_mnist': tfds_mnist.FashionMNIST}[dataset]
    contents = {name: _read(folder, name) for name in real.sha256}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    counts = {'train': NUM_TRAIN, 'test': NUM_TEST}
    row = dataclasses.replace(real, sizes=_sizes(contents), sha256=digests, counts=counts)
    registered = {}
    for name, content in contents.items():
        archive = _read(archives, name + '.gz') if archives else content
        registered[url + name + '.gz'] = (len(archive), hashlib.sha256(archive).hexdigest())
    with mock.patch.dict(catalog.FILE_DATASETS, {dataset: row}), mock.patch.multiple(
        tfds_mnist, _TRAIN_EXAMPLES=NUM_TRAIN, _TEST_EXAMPLES=NUM_TEST
    ), mock.patch.object(builder, 'URL', url), mock.patch.dict(
        checksums.get_all_sizes_checksums(), registered
    ):
        yield


BINARY_COUNTS = {'train': 60, 'validation': 12, 'test': 24}
_AMAT = {'train': 'train', 'validation': 'valid', 'test': 'test'}


def binary_images(split):
    """uint8 [n, 28, 28, 1] of 0 and 1, no two alike, for a small binarized MNIST."""
    random = np.random.RandomState(list(_AMAT).index(split))
    return random.randint(0, 2, (BINARY_COUNTS[split], 28, 28, 1)).astype(np.uint8)


def write_amat(folder):
    """Writes the three .amat files of a small binarized MNIST; returns their folder."""
    os.makedirs(str(folder), exist_ok=True)
    for split, part in _AMAT.items():
        path = os.path.join(str(folder), 'binarized_mnist_{}.amat'.format(part))
        np.savetxt(path, binary_images(split).reshape(-1, 784), fmt='%d')
    return str(folder)


@contextlib.contextmanager
def small_binarized_mnist(folder, url=NOWHERE):
    """Makes 'binarized_mnist' mean the .amat files in `folder`, which `url` serves."""
    real = catalog.FILE_DATASETS['binarized_mnist']
    contents = {name: _read(folder, name) for name in real.sha256}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    row = dataclasses.replace(real, sizes=_sizes(contents), sha256=digests, counts=BINARY_COUNTS)
    registered = {url + name: (len(contents[name]), digests[name]) for name in contents}
    with mock.patch.dict(catalog.FILE_DATASETS, binarized_mnist=row), mock.patch.object(
        tfds_binarized_mnist.BinarizedMNIST, 'URL', url
    ), mock.patch.dict(checksums.get_all_sizes_checksums(), registered):
        yield


def _sizes(contents):
    return {name: len(content) for name, content in contents.items()}


def _read(folder, name):
    with open(os.path.join(str(folder), name), 'rb') as f:
        return f.read()


class _Numbered(tfds.core.GeneratorBasedBuilder):
    """Numbered images; the subclasses say of which shape."""

    VERSION = tfds.core.Version('1.0.0')
    FEATURE = tfds.features.Image(shape=(32, 32, 3))
    NAME = 'image'
    SPLITS = ('train', 'test')
    NUM_SHARDS = 1
    IN_DEVELOPMENT = True  # Keeps this base class itself out of TFDS's registry.

    def _info(self):
        features = tfds.features.FeaturesDict(
            {self.NAME: self.FEATURE, 'label': tfds.features.ClassLabel(num_classes=10)}
        )
        return tfds.core.DatasetInfo(builder=self, description='Test images.', features=features)

    def _split_generators(self, dl_manager):
        return [
            tfds.core.SplitGenerator(
                name=split, num_shards=self.NUM_SHARDS, gen_kwargs={'first': 100 * i}
            )
            for i, split in enumerate(self.SPLITS)
        ]

    def _generate_examples(self, first):
        shape = [side or 4 for side in self.FEATURE.shape]
        images = numbered_images(48, shape, first).astype(self.FEATURE.dtype.as_numpy_dtype)
        for i, image in enumerate(images):
            yield i, {self.NAME: image, 'label': i % 10}


class ColourSquares(_Numbered):
    IN_DEVELOPMENT = False


class OldShards(_Numbered):
    """Of TFDS's old format, as cifar10's default: several files, and no counts in the books."""

    IN_DEVELOPMENT = False
    VERSION = tfds.core.Version('1.0.0', experiments={tfds.core.Experiment.S3: False})
    NUM_SHARDS = 3


class Downloaded(_Numbered):
    """Downloads the archives that `downloaded` says, and makes nothing of them."""

    IN_DEVELOPMENT = False
    urls = ()

    def _split_generators(self, dl_manager):
        for path in dl_manager.download(list(self.urls)):
            assert tf.io.gfile.exists(path)
        return super()._split_generators(dl_manager)


@contextlib.contextmanager
def downloaded(url, archives):
    """Makes 'downloaded' need archives from the folder `url`: their bytes by name."""
    registered = {
        url + name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in archives.items()
    }
    with mock.patch.object(Downloaded, 'urls', list(registered)), mock.patch.dict(
        checksums.get_all_sizes_checksums(), registered
    ):
        yield


class OddSides(_Numbered):
    IN_DEVELOPMENT = False
    FEATURE = tfds.features.Image(shape=(30, 32, 1))


class AnySize(_Numbered):
    IN_DEVELOPMENT = False
    FEATURE = tfds.features.Image(shape=(None, None, 3))


class DeepPixels(_Numbered):
    IN_DEVELOPMENT = False
    FEATURE = tfds.features.Image(shape=(8, 8, 1), dtype=tf.uint16)


class NoImages(_Numbered):
    IN_DEVELOPMENT = False
    NAME = 'picture'


class TrainOnly(_Numbered):
    IN_DEVELOPMENT = False
    SPLITS = ('train',)


def main():
    """Prepares the small MNIST of an IDX folder, slowly where `--slow_at` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument('idx_dir')
    parser.add_argument('data_dir')
    parser.add_argument('--slow_at', choices=['records', 'decoded'])
    parser.add_argument('--seconds', type=float, default=0)
    args = parser.parse_args()

    def slowly(function):
        def wrapped(*positional, **named):
            time.sleep(args.seconds)
            return function(*positional, **named)

        return wrapped

    if args.slow_at == 'records':
        tfds_mnist._extract_mnist_labels = slowly(tfds_mnist._extract_mnist_labels)
    elif args.slow_at == 'decoded':
        tfds_records._move_tail = slowly(tfds_records._move_tail)
    with small_mnist(args.idx_dir):
        print(prepare.prepare('mnist', args.data_dir, args.idx_dir).num_examples['train'])


if __name__ == '__main__':
    main()
