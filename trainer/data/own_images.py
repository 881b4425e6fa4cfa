"""The prepared copies of a user's own images, below the data folder.

    <data_dir>/sources/<digest>/      train, validation and test, each .uint8 or .float32, rows x
                                      columns x channels pixels an image; decoded.json with their
                                      shape, counts and sha256; source.json: what they were made
                                      of; labels.json where there are labels

The digest is of the pixels and of how they were prepared: the same images in another place lead to
the same copy. A start that finds the names, sizes and times of the files as they were reads none of
them.
"""

import os
import re
from typing import Any, Callable, Dict, List, Optional

import tensorflow as tf

from trainer.base import child_process, files, path_flags
from trainer.base.child_process import Died
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import decoded_copy, own_source, workplace
from trainer.data.dataset import LABELS, DatasetFacts, PreparedDataset
from trainer.data.own_source import OwnSource
from trainer.data.workplace import Workplace

_MADE_OF = 'source.json'
_REMOTE_COPY = re.compile(r'/sources/[0-9a-f]{16}/*$')


def facts(path: str, open_source: Callable[[], OwnSource], data_dir: str) -> DatasetFacts:
    """Checks a source without reading its images; raises UserError where it is of no use."""
    copy = _named_copy(path)
    if copy is None:
        source = open_source()
        copy = _copy_of(source, _place(data_dir))
        if copy is None:
            return source.facts()
    return DatasetFacts(copy.name, copy.version, copy.image_shape, copy.num_examples)


def prepare(
    path: str,
    open_source: Callable[[], OwnSource],
    data_dir: str,
    *,
    digest: str = '',
    may_prepare: bool = True,
    separate_process: bool = False,
) -> PreparedDataset:
    """Returns the images at `path`, preparing them first where that has not been done.

    Args:
      path: a prepared copy, or what `open_source` opens.
      data_dir: '' for TFDS's own.
      digest: of the copy that is wanted, wherever the source is now; '' for that of the source.
      may_prepare: else a missing copy is refused.
      separate_process: prepare in a spawned process, so that this one opens no session.

    Raises UserError where there is no such source, its images are of no use, or they are not those
    of `digest`.
    """
    place = _place(data_dir)
    if digest:
        copy, reason = decoded_copy.load(os.path.join(place.path, digest))
        if copy is not None:
            return copy
        if not os.path.exists(path):
            raise UserError(
                f'--source={path} is gone, and what was prepared of it, {digest}, is '
                f'{reason or "not there"} in {place.path}: give the folder that holds it by '
                '--data_dir.'
            )
    copy = _named_copy(path)
    if copy is None:
        source = open_source()
        copy = _copy_of(source, place, say)
        copy = copy or _prepared(source, place, may_prepare, separate_process)
    if digest and copy.digest != digest:
        raise UserError(
            f'--source={path} holds other images ({copy.digest}) than the run was trained on '
            f'({digest}), and these are not in {place.path}: give the folder of them by --data_dir.'
        )
    return copy


def _place(data_dir: str) -> Workplace:
    folder = path_flags.of_flag('data_dir', data_dir or '~/tensorflow_datasets')
    return Workplace(os.path.join(folder, 'sources'), 'own images')


def _named_copy(path: str) -> Optional[PreparedDataset]:
    """The copy that a path leads to; None where it is something else."""
    may_be = '://' not in path or _REMOTE_COPY.search(path)  # No bucket is asked in vain.
    if not may_be or not tf.gfile.Exists(os.path.join(path, decoded_copy.SIDECAR)):
        return None
    copy, reason = decoded_copy.load(path)
    if copy is None:
        raise UserError(f'--source={path}: {reason}: prepare the images anew.')
    return copy


def _copy_of(
    source: OwnSource, place: Workplace, tell: Callable[[str], None] = lambda text: None
) -> Optional[PreparedDataset]:
    """The copy that was made of this state of the source; tells of one that is broken."""
    wanted = source.fingerprint()
    for name in files.names_in(place.path):
        folder = os.path.join(place.path, name)
        if not name.startswith('.') and wanted in _fingerprints(folder):
            copy, reason = decoded_copy.load(folder)
            if copy is not None:
                return copy
            tell(f'{source.name}: preparing {folder} anew: {reason}.')
    return None


def _fingerprints(folder: str) -> List[str]:
    try:
        made_of = files.read_json(os.path.join(folder, _MADE_OF))
        return list(made_of['fingerprints']) if made_of else []
    except (UserError, KeyError, TypeError):
        return []


def _prepared(
    source: OwnSource, place: Workplace, may_prepare: bool, separate_process: bool
) -> PreparedDataset:
    source.facts()
    options = ' '.join(source.preparation.flags())
    if not may_prepare:
        raise UserError(
            f'{source.flag} is not prepared in {place.path}: first, on one machine, run python -m '
            f'trainer.prepare_data {source.flag} {options} --data_dir={os.path.dirname(place.path)}'
        )
    if not place.is_writable():
        raise UserError(
            f'--data_dir={os.path.dirname(place.path)} cannot be written and does not hold the '
            f'prepared images of {source.flag}: name a folder that can be written.'
        )
    try:
        if separate_process:
            child_process.call(_fill, source, place)
        else:
            _fill(source, place)
    except Died as error:
        raise UserError(
            f'{source.name}: the process that prepared it was killed (too little memory?): start '
            'again.'
        ) from error
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f'--data_dir={os.path.dirname(place.path)}: cannot prepare {source.flag} there '
            f'({first_line(error)}).'
        ) from error
    copy = _copy_of(source, place)
    if copy is None:
        raise source.changed()
    return copy


def _fill(source: OwnSource, place: Workplace) -> None:
    """Prepares a source, unless another process did while we waited for the lock."""
    with place.locked(), place.work_folder() as work:
        if _copy_of(source, place) is not None:
            return
        folder = os.path.join(work, 'decoded')
        record = decoded_copy.write(source, folder)
        labels = source.labels()
        if labels is not None:
            files.write_json(os.path.join(folder, LABELS), labels)
        digest = own_source.digest(
            {'record': dict(record, name=''), 'labels': labels, 'by': source.preparation.flags()}
        )
        target = os.path.join(place.path, digest)
        made_of: Dict[str, Any] = {'source': os.path.abspath(source.path)}
        made_of['fingerprints'] = [*_fingerprints(target), source.fingerprint()]
        if decoded_copy.load(target)[0] is not None:  # The same images, at another place or time.
            files.write_json(os.path.join(target, _MADE_OF), made_of)
            return
        files.write_json(os.path.join(folder, _MADE_OF), made_of)
        decoded_copy.seal(folder, dict(record, digest=digest))
        workplace.publish(folder, target, decoded_copy.SIDECAR)
