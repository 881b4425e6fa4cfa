"""The folder of a dataset: which dataset it is, what lies there, and how results get there."""

import dataclasses
import fnmatch
import os
import re
from typing import Dict, List, Mapping, Optional, Tuple

import tensorflow as tf

from trainer.base import path_flags
from trainer.base.errors import UserError
from trainer.data import tfds
from trainer.data.catalog import FILE_DATASETS

_VALIDATION_DIVISOR = 12
_DATASET_NAME = re.compile(
    r'(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>(\d+|\*)(\.(\d+|\*)){2}))?'
)


@dataclasses.dataclass(frozen=True)
class DatasetFolder:
    """One version of one dataset, and its folders."""

    dataset: str  # The name as the user gave it.
    name: str  # TFDS name, with `/config` where the dataset has configurations.
    version: str  # The one that TFDS will use.
    data_dir: str  # TFDS's data folder, `~` expanded.
    image_shape: Tuple[int, int, int]  # (rows, columns, channels) of every image.
    counts: Mapping[str, int]  # Images in TFDS's splits; {} or 0 where only the preparation tells.

    @property
    def path(self) -> str:
        return os.path.join(self.data_dir, self.name)

    @property
    def records(self) -> str:
        """The folder TFDS writes."""
        return os.path.join(self.path, self.version)

    @property
    def decoded(self) -> str:
        """The folder of the decoded copy."""
        return self.records + '-decoded'

    @property
    def request(self) -> str:
        """The dataset as TFDS is asked for it."""
        return f'{self.name}:{self.version}'

    def has_records(self) -> bool:
        """Whether TFDS's records are there; raises UserError where its folder is not whole."""
        if tf.gfile.Exists(os.path.join(self.records, 'dataset_info.json')):
            return True
        # On gs:// this is an interrupted upload of ours, which dataset_info.json ends.
        if self.is_remote or not tf.gfile.Exists(self.records):
            return False
        raise UserError(
            f'{self.records} holds no dataset_info.json, so it is not a dataset that TFDS '
            'finished: move the folder away and start again.'
        )

    def record_files(self, split: str) -> List[str]:
        """Paths of TFDS's record files of a split, in their order.

        Not by tf.gfile.Glob, to which [ and * in the name of the folder would be patterns too.
        """
        name = self.name.split('/')[0]
        pattern = re.compile(rf'{name}-{split}\.tfrecord-\d{{5}}-of-\d{{5}}')
        names = filter(pattern.fullmatch, tf.gfile.ListDirectory(self.records))
        return [os.path.join(self.records, name) for name in sorted(names)]

    @property
    def is_remote(self) -> bool:
        return '://' in self.data_dir


def find(dataset: str, data_dir: Optional[str]) -> DatasetFolder:
    """The folder for `dataset`, found without network and without creating any.

    Raises UserError where there is no such dataset, its images are of no use to the model, or `~`,
    of which the default is made, is not known.
    """
    data_dir = path_flags.of_flag('data_dir', data_dir or '~/tensorflow_datasets')
    match = _DATASET_NAME.fullmatch(dataset)
    if not match:
        raise UserError(
            f'--dataset={dataset}: not a TFDS name{tfds.did_you_mean(dataset)}; write it like '
            'mnist, or name/config:1.2.3 in full.'
        )
    name = match.group('name')
    row = FILE_DATASETS.get(name)
    if row is None:
        return _find_by_tfds(dataset, data_dir)
    if match.group('config') or not fnmatch.fnmatch(row.version, match.group('version') or '*'):
        raise UserError(
            f'--dataset={dataset}: only {name}:{row.version} is supported; leave the rest away.'
        )
    return DatasetFolder(dataset, name, row.version, data_dir, row.image_shape, row.counts)


def _find_by_tfds(dataset: str, data_dir: str) -> DatasetFolder:
    builder = tfds.builder(dataset, data_dir)
    shape = tfds.image_shape(builder, dataset)
    config = builder.builder_config
    name = f'{builder.name}/{config.name}' if config else builder.name
    found = DatasetFolder(dataset, name, str(builder.version), data_dir, shape, {})
    if not tf.gfile.Exists(found.records):
        return found
    return dataclasses.replace(found, counts=tfds.split_counts(builder, dataset))


def three_splits(counts: Mapping[str, int]) -> Dict[str, int]:
    """Images in 'train', 'validation' and 'test', given those in TFDS's two or three splits."""
    train, validation = counts['train'], counts.get('validation', 0)
    taken = 0 if validation else train // _VALIDATION_DIVISOR
    return {'train': train - taken, 'validation': validation or taken, 'test': counts['test']}
