"""Where the files of a dataset come from: a folder of the user's, TFDS's download, a package."""

import dataclasses
import os
import tempfile
import urllib.parse
from typing import Dict, List, Mapping, Sequence, Union

import tensorflow as tf

from trainer.base import path_flags
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import file_search, quiet_tfds, tfds_downloads
from trainer.data.catalog import FILE_DATASETS
from trainer.data.file_search import Search
from trainer.data.packages import DebianPackage, NpmPackage, SourceFailed


class NoSource(UserError):
    """No source has the files of a dataset; `reasons` has each with its reason."""

    def __init__(self, message: str, reasons: str = ''):
        super().__init__(message)
        self.reasons = reasons


@dataclasses.dataclass(frozen=True)
class _UserFolder:
    """The user's folder of the files, each raw or gzipped, under any name."""

    folder: str
    dataset: str

    remedy = 'get the original file and put it there'

    @property
    def name(self) -> str:
        return '--idx_dir={}'.format(self.folder)

    def fetch(
        self, names: Sequence[str], folder: str = '', stall_seconds: float = 0.0
    ) -> Dict[str, str]:
        """Returns a path for each of `names`; `folder` and `stall_seconds` are not needed.

        Raises:
          UserError: a file is missing, and the message says what was seen in its place; or there is
            no home folder for `~`.
        """
        del stall_seconds
        folder = path_flags.of_flag('idx_dir', self.folder)
        try:
            search = file_search.search(folder, self.dataset)
        except OSError as error:
            raise UserError(
                '{}: {}: name the folder that holds {}.'.format(
                    self.name, error.strerror, ', '.join(names)
                )
            ) from error
        if len(search.found) < len(names):
            raise UserError('{}: {}'.format(self.name, self._missing(search, names)))
        return search.found

    def _missing(self, search: Search, names: Sequence[str]) -> str:
        other = search.other_dataset()
        if other:
            return "these are {0}'s files: give --dataset={0}.".format(other)
        missing = [name for name in names if name not in search.found]
        parts = [_seen(search.named[name], self.dataset, name) for name in missing]
        absent = [name for name in missing if not search.named[name]]
        if absent:
            parts.append('no {} there (raw or .gz)'.format(' and no '.join(absent)))
        if not search.is_complete:
            parts.append('not all was looked at, as there is too much')
        todo = 'Nothing was prepared: {}, then start again'.format(self.remedy)
        if absent:
            todo = 'Name the folder that holds all of {}'.format(', '.join(names))
        return '{}. {}.'.format('; '.join(filter(None, parts)), todo)


def _seen(paths: Sequence[str], dataset: str, name: str) -> str:
    """What is seen in the largest of the files that are named like `name`; '' without any."""
    if not paths:
        return ''
    path = max(paths, key=os.path.getsize)
    try:
        return '{} {}'.format(path, file_search.read(path, dataset, name)[1])
    except tf.errors.OpError as error:
        return '{} cannot be read ({})'.format(path, first_line(error))


@dataclasses.dataclass(frozen=True)
class _TfdsDownload:
    """TFDS's own download, or the archives it left in its download folder.

    Attributes:
      dataset: one of FILE_DATASETS.
      urls: for each file the address of its archive.
      downloads: TFDS's download folder in the data folder; only read.
    """

    dataset: str
    urls: Mapping[str, str]
    downloads: str

    name = "TFDS's download"
    remedy = 'move that file away'

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder` what is not there yet; returns a path for each of `names`.

        Nothing is written to TFDS's download folder: what lies there is trusted by TFDS ever
        after, and the records make the archives unnecessary.

        Raises:
          SourceFailed: a download failed, or brought no byte for `stall_seconds`.
        """
        import requests
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import download_manager, downloader

        paths = {}
        by_hand = self._put_by_hand()
        try:
            with quiet_tfds.quiet(), tfds_downloads.timeout(stall_seconds):
                manager = tfds.download.DownloadManager(download_dir=os.path.join(folder, 'tfds'))
                # One by one: TFDS would go on with the other files after the first one failed.
                for name in names:
                    url = self.urls[name]
                    archive = os.path.join(self.downloads, _archive_name(url))
                    paths[name] = by_hand.get(name, archive)
                    if not tf.gfile.Exists(paths[name]):
                        paths[name] = manager.download(url)
        except download_manager.NonMatchingChecksumError as error:
            raise SourceFailed('the archive has a wrong sha256') from error
        except (requests.exceptions.RequestException, downloader.DownloadError) as error:
            raise SourceFailed(tfds_downloads.reason(error, stall_seconds)) from error
        return paths

    def _put_by_hand(self) -> Dict[str, str]:
        """Paths of the files, under whatever name, that lie in a local download folder."""
        try:
            return file_search.search(self.downloads, self.dataset).found
        except OSError:  # It is not there, or not local.
            return {}


_Source = Union[_UserFolder, _TfdsDownload, NpmPackage, DebianPackage]


def check_folder(dataset: str, idx_dir: str) -> None:
    """Refuses an `--idx_dir` that cannot serve.

    Raises:
      UserError: a file is missing or has other bytes, or `dataset` is not made of such files.
    """
    row = FILE_DATASETS.get(dataset)
    if row is None:
        raise UserError(
            '--idx_dir={}: only {} can be made of such files, not {}; leave the flag away.'.format(
                idx_dir, ', '.join(FILE_DATASETS), dataset
            )
        )
    _UserFolder(idx_dir, dataset).fetch(list(row.sha256))


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
    sources: List[_Source] = [_TfdsDownload(dataset, urls, os.path.join(data_dir, 'downloads'))]
    if row.second_source is not None:
        sources.append(row.second_source)
    if idx_dir:
        sources = [_UserFolder(idx_dir, dataset)]
    reasons = []
    for source in sources:
        say('{}: getting its files: {}.'.format(dataset, source.name))
        try:
            fetched = tempfile.mkdtemp(dir=os.path.dirname(folder))
            paths = source.fetch(list(row.sha256), fetched, stall_seconds)
        except SourceFailed as error:
            reasons.append('{}: {}'.format(source.name, error))
            say('{}: {}.'.format(dataset, reasons[-1]))
            continue
        os.mkdir(folder)
        for name, path in paths.items():
            content = _verified(path, dataset, name, source)
            _write_download(content, name, urls[name], folder)
        return
    raise NoSource(
        '{} is not prepared in --data_dir={} and no source has it ({}). Name a folder that holds '
        '{} (raw or .gz) by --idx_dir.'.format(
            dataset, data_dir, '; '.join(reasons), ', '.join(row.sha256)
        ),
        '; '.join(reasons),
    )


def _verified(path: str, dataset: str, name: str, source: _Source) -> bytes:
    """The bytes of the file `name`, unpacked where the file at `path` is gzipped.

    Raises:
      UserError: it has other bytes.
    """
    content, wrong = file_search.read(path, dataset, name)
    if wrong:
        raise UserError(
            f'{source.name}: {path} is not the known {name}: it {wrong}. Nothing was prepared: '
            f'{source.remedy}, then start again.'
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
