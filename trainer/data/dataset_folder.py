"""The folder of a dataset: which dataset it is, what lies there, and how results get there."""

import contextlib
import dataclasses
import fcntl
import fnmatch
import glob
import os
import re
import shutil
import tempfile
from typing import Dict, Iterator, List, Optional, Tuple

import tensorflow as tf

from trainer.base import path_flags
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data import quiet_tfds
from trainer.data.catalog import FILE_DATASETS

_DEFAULT_DATA_DIR = os.path.join('~', 'tensorflow_datasets')
_VALIDATION_DIVISOR = 12
_DATASET_NAME = re.compile(
    r'(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>(\d+|\*)(\.(\d+|\*)){2}))?'
)


@dataclasses.dataclass(frozen=True)
class DatasetFolder:
    """One version of one dataset, and its folders.

    Attributes:
      dataset: the name as the user gave it.
      name: TFDS name, with `/config` where the dataset has configurations.
      version: the version that TFDS will use.
      data_dir: TFDS's data folder, `~` expanded.
      image_shape: (rows, columns, channels) of every image.
      num_train, num_test: images in TFDS's splits; 0 where only the preparation will tell.
      num_validation: images in TFDS's validation split; 0 also where it has none.
    """

    dataset: str
    name: str
    version: str
    data_dir: str
    image_shape: Tuple[int, int, int]
    num_train: int
    num_test: int
    num_validation: int = 0

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
        return '{}:{}'.format(self.name, self.version)

    @property
    def is_remote(self) -> bool:
        return '://' in self.data_dir

    def has_records(self) -> bool:
        """Whether TFDS's records are there.

        Raises:
          UserError: their folder is there, but is not whole, and is not ours to mend.
        """
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

        Raises:
          tf.errors.OpError: the folder of the records cannot be read.
        """
        name = self.name.split('/')[0]
        pattern = re.compile(r'{}-{}\.tfrecord-\d{{5}}-of-\d{{5}}'.format(name, split))
        names = filter(pattern.fullmatch, tf.gfile.ListDirectory(self.records))
        return [os.path.join(self.records, name) for name in sorted(names)]

    def is_writable(self) -> bool:
        """Whether this process may write below the folder, or create it."""
        if self.is_remote:
            return True
        folder = os.path.abspath(self.path)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder's lock, which the kernel releases when the process dies."""
        if self.is_remote:
            yield
            return
        os.makedirs(self.path, exist_ok=True)
        # Opened for reading only: the lock file may belong to another user of the same folder.
        lock = os.open(os.path.join(self.path, '.prepare.lock'), os.O_RDONLY | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say('{}: another process is preparing it; waiting for that.'.format(self.name))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[str]:
        """A folder on the file system of the results, gone at the end; call under the lock.

        What a killed preparation left is removed: under the lock no one else can be using it.
        """
        parent = None if self.is_remote else self.path
        if parent:
            for old in glob.glob(os.path.join(glob.escape(parent), '.preparing-*')):
                shutil.rmtree(old, ignore_errors=True)
        work = tempfile.mkdtemp(prefix='.preparing-', dir=parent)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def find(dataset: str, data_dir: Optional[str]) -> DatasetFolder:
    """The folder for `dataset`, found without network and without creating any.

    Raises:
      UserError: there is no such dataset, its images are of no use to the model, or there is no
        home folder for `~`, of which the default is made.
    """
    data_dir = path_flags.of_flag('data_dir', data_dir or _DEFAULT_DATA_DIR)
    match = _DATASET_NAME.fullmatch(dataset)
    if not match:
        raise UserError(
            f'--dataset={dataset}: not a TFDS name{quiet_tfds.did_you_mean(dataset)}; write it '
            'like mnist, or name/config:1.2.3 in full.'
        )
    name = match.group('name')
    row = FILE_DATASETS.get(name)
    if row is None:
        return _find_by_tfds(dataset, data_dir)
    if match.group('config') or not fnmatch.fnmatch(row.version, match.group('version') or '*'):
        raise UserError(
            f'--dataset={dataset}: only {name}:{row.version} is supported; leave the rest away.'
        )
    return DatasetFolder(
        dataset,
        name,
        row.version,
        data_dir,
        row.image_shape,
        row.num_train,
        row.num_test,
        row.num_validation,
    )


def _find_by_tfds(dataset: str, data_dir: str) -> DatasetFolder:
    builder = quiet_tfds.builder(dataset, data_dir)
    shape = quiet_tfds.image_shape(builder, dataset)
    config = builder.builder_config
    name = '{}/{}'.format(builder.name, config.name) if config else builder.name
    found = DatasetFolder(dataset, name, str(builder.version), data_dir, shape, 0, 0)
    if not tf.gfile.Exists(found.records):
        return found
    counts = quiet_tfds.split_counts(builder, dataset)
    return dataclasses.replace(
        found,
        num_train=counts['train'],
        num_test=counts['test'],
        num_validation=counts['validation'],
    )


def three_splits(num_train: int, num_test: int, num_validation: int = 0) -> Dict[str, int]:
    """Images in 'train', 'validation' and 'test', given those in TFDS's two or three splits."""
    taken = 0 if num_validation else num_train // _VALIDATION_DIVISOR
    return {'train': num_train - taken, 'validation': num_validation or taken, 'test': num_test}


def publish(folder: str, target: str, last: str) -> None:
    """Moves the finished `folder` to `target`, in one step on a local disk.

    On gs:// the files are copied one by one, `last` at the end: its presence means all are there.
    """
    if '://' not in target:
        if os.path.exists(target):
            # Readers of the old files keep them open; the work folder takes them away.
            os.rename(target, os.path.join(os.path.dirname(folder), 'replaced'))
        os.rename(folder, target)
        return
    tf.gfile.MakeDirs(target)
    if tf.gfile.Exists(os.path.join(target, last)):
        tf.gfile.Remove(os.path.join(target, last))
    for name in sorted(os.listdir(folder), key=lambda name: name == last):
        tf.gfile.Copy(os.path.join(folder, name), os.path.join(target, name), overwrite=True)
