"""Where the prepared copies of a user's own images lie, and what is known of them.

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
import shlex
from typing import Any, Dict, Iterator, List, Tuple

from trainer.base import files, path_flags
from trainer.base.errors import UserError
from trainer.data import own_source
from trainer.data.dataset import LABELS
from trainer.data.own_source import OwnSource
from trainer.data.workplace import Workplace

_MADE_OF = 'source.json'
_REMOTE_COPY = re.compile(r'/sources/[0-9a-f]{16}/*$')


def place(data_dir: str) -> Workplace:
    """The folder of all copies in a data folder; '' is TFDS's own."""
    folder = path_flags.of_flag('data_dir', data_dir or '~/tensorflow_datasets')
    return Workplace(os.path.join(folder, 'sources'), 'own images')


def may_be_copy(path: str) -> bool:
    """Whether a path may lead to a copy: no bucket is asked in vain."""
    return '://' not in path or bool(_REMOTE_COPY.search(path))


def check_path(path: str, endings: Tuple[str, ...], flag: str = '--source') -> None:
    """Refuses a source that is neither a folder nor a file with one of the endings."""
    if '://' in path:
        raise UserError(
            f'{flag}={path}: data is read from local disks alone: give a local folder or '
            'file, or what `python -m trainer.prepare_data --source=... --data_dir=...` printed '
            'when it prepared them there.'
        )
    if not os.path.exists(path):
        raise UserError(
            f'{flag}={path}: there is no such file or folder: give a folder of images or CSV '
            'files, or a .npy, .npz or .csv file.'
        )
    if not os.path.isdir(path) and not (os.path.isfile(path) and path.endswith(endings)):
        raise UserError(
            f'{flag}={path} is neither a folder nor a file that ends in {" or ".join(endings)}: '
            'give one of these.'
        )


def check_may_prepare(source: OwnSource, where: Workplace, may_prepare: bool) -> None:
    """Refuses to prepare a source where that must not be done, or cannot."""
    data_dir = os.path.dirname(where.path)
    if not may_prepare:
        words = [source.flag, *source.preparation.flags(), f'--data_dir={data_dir}']
        raise UserError(
            f'{source.flag} is not prepared in {where.path}: first, on one machine, run '
            f'python -m trainer.prepare_data {" ".join(map(shlex.quote, words))}'
        )
    if not where.is_writable():
        raise UserError(
            f'--data_dir={data_dir} cannot be written and does not hold the prepared images of '
            f'{source.flag}: name a folder that can be written.'
        )


def copies_of(source: OwnSource, where: Workplace) -> Iterator[str]:
    """Yields the folders of copies that were made of this state of the source."""
    wanted = source.fingerprint()
    for name in files.names_in(where.path):
        folder = os.path.join(where.path, name)
        if not name.startswith('.') and wanted in _fingerprints(folder):
            yield folder


def _fingerprints(folder: str) -> List[str]:
    try:
        made_of = files.read_json(os.path.join(folder, _MADE_OF))
        return list(made_of['fingerprints']) if made_of else []
    except (UserError, KeyError, TypeError):
        return []


def write_facts(folder: str, record: Dict[str, Any], source: OwnSource) -> str:
    """Writes to the folder of a new copy what is known of its source; returns its digest.

    Args:
      record: of its images, as `decoded_copy.write` returns it.
    """
    labels = source.labels()
    if labels is not None:
        files.write_json(os.path.join(folder, LABELS), labels)
    note_source(folder, source)
    of_images = {name: value for name, value in record.items() if name != 'name'}
    return own_source.digest([of_images, labels, source.preparation.flags()])


def note_source(folder: str, source: OwnSource) -> None:
    """Notes at a copy that this state of a source leads to it."""
    made_of = {
        'source': os.path.abspath(source.path),
        'fingerprints': [*_fingerprints(folder), source.fingerprint()],
    }
    files.write_json(os.path.join(folder, _MADE_OF), made_of)
