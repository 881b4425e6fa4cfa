"""Where the files of a dataset come from, a folder of the user's, TFDS's download or a package, and
TFDS's records of them."""

import dataclasses
import os
import sys
import tempfile
import urllib.parse
from typing import Any, Dict, List, Mapping, Sequence, Union

import tensorflow as tf

from trainer.base import path_flags
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import file_search, tfds, tfds_downloads, workplace
from trainer.data.catalog import FILE_DATASETS
from trainer.data.dataset_folder import DatasetFolder
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
        return f'--idx_dir={self.folder}'

    def fetch(
        self, names: Sequence[str], folder: str = '', stall_seconds: float = 0.0
    ) -> Dict[str, str]:
        """Returns paths for `names`; raises UserError that says what was seen in their place."""
        del folder, stall_seconds
        try:
            search = file_search.search(path_flags.of_flag('idx_dir', self.folder), self.dataset)
        except OSError as error:
            raise UserError(
                f'{self.name}: {error.strerror}: name the folder that holds {", ".join(names)}.'
            ) from error
        if len(search.found) < len(names):
            raise UserError(f'{self.name}: {self._missing(search, names)}')
        return search.found

    def _missing(self, search: Search, names: Sequence[str]) -> str:
        for other, found in search.others.items():
            if set(found) == set(FILE_DATASETS[other].sha256):
                return f"these are {other}'s files: give --dataset={other}."
        missing = [name for name in names if name not in search.found]
        parts = [_seen(search.named[name], self.dataset, name) for name in missing]
        absent = [name for name in missing if not search.named[name]]
        if absent:
            parts.append(f'no {" and no ".join(absent)} there (raw or .gz)')
        if not search.is_complete:
            parts.append('not all was looked at, as there is too much')
        todo = f'Nothing was prepared: {self.remedy}, then start again'
        if absent:
            todo = f'Name the folder that holds all of {", ".join(names)}'
        return f'{"; ".join(filter(None, parts))}. {todo}.'


def _seen(paths: Sequence[str], dataset: str, name: str) -> str:
    """What is seen in the largest of the files that are named like `name`; '' without any."""
    if not paths:
        return ''
    path = max(paths, key=os.path.getsize)
    try:
        return f'{path} {file_search.read(path, dataset, name)[1]}'
    except tf.errors.OpError as error:
        return f'{path} cannot be read ({first_line(error)})'


@dataclasses.dataclass(frozen=True)
class _TfdsDownload:
    """TFDS's own download, or the archives that lie in its download folder."""

    dataset: str
    urls: Mapping[str, str]  # For each file the address of its archive.
    downloads: str  # TFDS's download folder in the data folder; only read.

    name = "TFDS's download"
    remedy = 'move that file away'

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder` what is not there yet; returns paths, or raises SourceFailed.

        Nothing is written to TFDS's download folder: TFDS trusts what lies there ever after, and
        the records make the archives unnecessary.
        """
        import requests
        from tensorflow_datasets.core.download import download_manager, downloader

        paths = {}
        try:  # Files that were put there by hand have any name.
            by_hand = file_search.search(self.downloads, self.dataset).found
        except OSError:  # The folder is not there, or not local.
            by_hand = {}
        try:
            with tfds.quiet(), tfds_downloads.timeout(stall_seconds):
                manager = download_manager.DownloadManager(
                    download_dir=os.path.join(folder, 'tfds')
                )
                # One by one: TFDS would go on with the other files after the first one failed.
                for name in names:
                    archive = os.path.join(
                        self.downloads, tfds_downloads.archive_name(self.urls[name])
                    )
                    paths[name] = by_hand.get(name, archive)
                    if not tf.gfile.Exists(paths[name]):
                        paths[name] = manager.download(self.urls[name])
        except download_manager.NonMatchingChecksumError as error:
            raise SourceFailed('the archive has a wrong sha256') from error
        except (requests.exceptions.RequestException, downloader.DownloadError) as error:
            raise SourceFailed(tfds_downloads.reason(error, stall_seconds)) from error
        return paths


_Source = Union[_UserFolder, _TfdsDownload, NpmPackage, DebianPackage]


def check_folder(dataset: str, idx_dir: str) -> None:
    """Raises UserError where `dataset` cannot be made of the files in `idx_dir`."""
    row = FILE_DATASETS.get(dataset)
    if row is None:
        raise UserError(
            f'--idx_dir={idx_dir}: only {", ".join(FILE_DATASETS)} can be made of such files, not '
            f'{dataset}; leave the flag away.'
        )
    _UserFolder(idx_dir, dataset).fetch(list(row.sha256))


def place_downloads(
    dataset: str, url: str, idx_dir: str, data_dir: str, folder: str, stall_seconds: float
) -> None:
    """Fills the new `folder` with verified files, as if TFDS had downloaded them from `url`.

    They come from `idx_dir` if given; else from TFDS's download, also below `data_dir`, or the
    dataset's second source; each is given up after `stall_seconds` without a byte. What else is
    downloaded lands beside `folder`.

    Raises NoSource where no source works; or UserError where a file has other bytes.
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
        say(f'{dataset}: getting its files: {source.name}.')
        try:
            fetched = tempfile.mkdtemp(dir=os.path.dirname(folder))
            paths = source.fetch(list(urls), fetched, stall_seconds)
        except SourceFailed as error:
            reasons.append(f'{source.name}: {error}')
            say(f'{dataset}: {reasons[-1]}.')
            continue
        os.mkdir(folder)
        for name, path in paths.items():
            copy = os.path.join(folder, tfds_downloads.archive_name(urls[name]))
            _copy_verified(path, copy, dataset, name, source)
            tfds_downloads.write_info(
                copy, urls[name], name
            )  # Raw bytes, though its own name is of a .gz.
        return
    tried = '; '.join(reasons)
    raise NoSource(
        f'{dataset} is not prepared in --data_dir={data_dir} and no source has it ({tried}). Name '
        f'a folder that holds {", ".join(urls)} (raw or .gz) by --idx_dir.',
        tried,
    )


def _copy_verified(path: str, copy: str, dataset: str, name: str, source: _Source) -> None:
    """Copies the file `name`, unpacked where it is gzipped; raises UserError for other bytes."""
    content, wrong = file_search.read(path, dataset, name)
    if wrong:
        raise UserError(
            f'{source.name}: {path} is not the known {name}: it {wrong}. Nothing was prepared: '
            f'{source.remedy}, then start again.'
        )
    with open(copy, 'wb') as f:
        f.write(content)


def make_records(target: DatasetFolder, idx_dir: str, work: str, stall_seconds: float) -> None:
    """Prepares the dataset with TFDS in the `work` folder and publishes its records.

    Raises UserError for whatever goes wrong, in TFDS and in the dataset's own code too.
    """
    import requests
    from tensorflow_datasets.core import download

    builder = tfds.builder(target.request, work)
    is_known = target.name in FILE_DATASETS
    in_work = is_known or target.is_remote
    downloads = os.path.join(work if in_work else target.data_dir, 'downloads')
    if is_known:
        place_downloads(
            target.name, builder.URL, idx_dir, target.data_dir, downloads, stall_seconds
        )
    else:
        say(f"{target.name}: getting its files: TFDS's download.")
    config = download.DownloadConfig(
        extract_dir=os.path.join(work, 'extracted'), compute_stats=download.ComputeStatsMode.SKIP
    )
    _say_when_downloaded(builder, target.name)
    bars = sys.stderr.isatty()
    try:
        with tfds.quiet(bars, bars and not is_known), tfds_downloads.downloading(
            downloads, stall_seconds
        ):
            builder.download_and_prepare(download_dir=downloads, download_config=config)
    except Exception as error:  # Any of 100 datasets' own code runs here: no narrower class.
        reason = f'{type(error).__name__}: {first_line(error)}'
        if isinstance(error, requests.exceptions.RequestException):
            reason = tfds_downloads.reason(error, stall_seconds)
        raise UserError(
            f'--dataset={target.dataset}: TFDS could not prepare it in '
            f'--data_dir={target.data_dir} ({reason}).'
        ) from error
    workplace.publish(builder.data_dir, target.records, 'dataset_info.json')


def _say_when_downloaded(builder: Any, name: str) -> None:
    """Lets TFDS's builder say that it writes records, once it has their files."""
    usual = builder._split_generators

    def split_generators(manager: Any) -> Any:
        generators = usual(manager)
        say(f'{name}: writing its TFDS records, which takes a minute or so.')
        return generators

    builder._split_generators = split_generators
