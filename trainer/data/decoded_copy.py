"""The copy of a dataset that training reads: plain files of pixels, verified at each start."""

import os
from typing import Any, Dict, Optional, Tuple

import numpy as np
import tensorflow as tf

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import verified
from trainer.data.dataset import (
    DTYPES,
    SPLITS,
    DatasetFacts,
    ImageSource,
    PreparedDataset,
    Windows,
    Written,
)
from trainer.settings.table import Scaling

SIDECAR = 'decoded.json'
# Raised whenever the files' meaning changes; copies of another format are decoded anew.
_FORMAT = 1


def write(source: ImageSource, folder: str) -> Dict[str, Any]:
    """Writes the images of a source to the new local `folder`; returns the record to `seal` it by.

    Raises UserError where they are broken, or a split is missing or empty.
    """
    say(f'{source.name}: {source.preparing} once.')
    os.mkdir(folder)
    written = source.write_splits(folder)
    facts = source.facts()
    paths = _paths(folder, written.dtype)
    return {
        'format': _FORMAT,
        'name': facts.name,
        'version': facts.version,
        'image_shape': written.image_shape,
        'dtype': written.dtype,
        'num_examples': written.num_examples,
        **_of_series(written),
        'sha256': {split: files.sha256(path) for split, path in paths.items()},
    }


def _of_series(written: Written) -> Dict[str, Any]:
    if written.windows is None:
        return {}
    return {'scaling': written.scaling, 'windows': dict(written.windows._asdict())}


def seal(folder: str, record: Dict[str, Any]) -> None:
    """Writes the sidecar, without which the files of the copy do not count."""
    files.write_json(os.path.join(folder, SIDECAR), record)


def load(
    folder: str, expected: Optional[DatasetFacts] = None
) -> Tuple[Optional[PreparedDataset], str]:
    """Reads and verifies a decoded copy, of what is `expected` if given; one on gs:// is fetched.

    Returns it, or None and why ('' where there is none).
    """
    try:
        facts = files.read_json(os.path.join(folder, SIDECAR))
        if facts is None:
            return None, 'no ' + SIDECAR if tf.gfile.Exists(folder) else ''
        if facts['format'] != _FORMAT:
            return None, 'of another format'
        rows, columns, channels = shape = tuple(facts['image_shape'])
        counts = {split: facts['num_examples'][split] for split in SPLITS}
        if not all(type(number) is int for number in [*shape, *counts.values()]):
            return None, f'{SIDECAR} has a count that is no whole number'
        dtype = facts.get('dtype', 'uint8')  # Older copies, all of bytes, do not name it.
        if dtype not in DTYPES:
            return None, f'{SIDECAR} has pixels of no known type'
        paths = _paths(folder, dtype)
        prepared = PreparedDataset(
            facts['name'], facts['version'], (rows, columns, channels), dict(paths), counts, dtype,
            facts.get('digest', ''), folder, *_series(facts, shape),
        )  # fmt: skip
        found = (prepared.name, prepared.version, prepared.image_shape)
        wanted = expected and (expected.name, expected.version, expected.image_shape)
        if wanted and found != wanted:
            return None, f'{SIDECAR} is of another dataset'
        for split, path in paths.items():
            size, digest = prepared.file_bytes(split), facts['sha256'][split]
            is_whole = tf.gfile.Stat(path).length == size
            copy = verified.local_copy(path, size, digest) if is_whole else ''
            if not copy and (not is_whole or verified.sha256(path) != digest):
                return None, f'{path} does not have the bytes that were written'
            prepared.files[split] = copy or path
    except (UserError, KeyError, TypeError, ValueError, tf.errors.NotFoundError) as error:
        return None, f'{SIDECAR} or a file it names is broken ({first_line(error)})'
    return prepared, ''


def _series(facts: Dict[str, Any], shape: Tuple[int, ...]) -> Tuple[Scaling, Optional[Windows]]:
    """What a sidecar says of a series; raises ValueError, TypeError or KeyError for nonsense."""
    if 'windows' not in facts:
        return (), None
    scaling = tuple((name, float(mean), float(by)) for name, mean, by in facts['scaling'])
    windows = Windows(**facts['windows'])
    lengths = [length for split in SPLITS for length in windows.stretches[split]]
    if not all(type(number) is int and number > 0 for number in [windows.stride, *lengths]):
        raise ValueError('a length is no whole number above 0')
    counts = {split: len(windows.starts(split, shape[0])) for split in SPLITS}
    is_whole = all(np.isfinite(mean) and 0 < by < np.inf for _, mean, by in scaling)
    if counts != facts['num_examples'] or len(scaling) != shape[2] or not is_whole:
        raise ValueError('its windows are not those of its files')
    return scaling, windows


def load_written(folder: str, expected: Optional[DatasetFacts] = None) -> PreparedDataset:
    """Reads a decoded copy that has just been written; raises UserError if it is not `expected`."""
    prepared, reason = load(folder, expected)
    if prepared is None:
        reason = reason or 'missing'
        raise UserError(f'{folder}: {reason}, though it was written just now: check the disk.')
    return prepared


def _paths(folder: str, dtype: str = 'uint8') -> Dict[str, str]:
    return {split: os.path.join(folder, f'{split}.{dtype}') for split in SPLITS}
