"""Known files below a folder: found by their bytes, whatever their names; or what lies there."""

import dataclasses
import gzip
import hashlib
import io
import itertools
import os
import re
import zlib
from typing import Dict, Iterator, List, Optional, Tuple

import tensorflow as tf

from trainer.data.catalog import FILE_DATASETS

# More than any of the known files has, unpacked.
_MOST_BYTES = 1 << 27
_MOST_ZIPPED = 100 * 1000 * 1000
_MOST_ENTRIES = 10000
_DEEPEST = 3  # Folders below the one that is named.
# What other things begin with, in lower case.
_OTHER_KINDS: Dict[bytes, str] = {
    b'<!doctype html': 'is an HTML page',
    b'<html': 'is an HTML page',
    b'<?xml': 'is an XML page',
    b'version https://git-lfs': 'is only a pointer of Git LFS',
    b'pk\x03\x04': 'is a zip archive: unpack it',
}
_BROKEN = (EOFError, OSError, zlib.error)


@dataclasses.dataclass
class Search:
    """What a search for the files of a dataset has found.

    Attributes:
      found: paths by name of those files of the dataset that are there.
      others: for other datasets the names of those of their files that are there.
      named: for each name the paths of the files that are named like it.
      is_complete: whether all was found, or all was looked at.
    """

    found: Dict[str, str]
    others: Dict[str, List[str]]
    named: Dict[str, List[str]]
    is_complete: bool

    def other_dataset(self) -> str:
        """The name of another dataset all of whose files are there, or ''."""
        return next((d for d in self.others if set(self.others[d]) == _names(d)), '')


def read(path: str, dataset: str, name: str) -> Tuple[bytes, str]:
    """The bytes of the file at `path`, unpacked, and what they are in place of the file `name`'s.

    The words go on after the name of a file, as 'is empty'; '' where it is that file.
    """
    try:
        content = _unpacked(path)
    except _BROKEN as error:
        return b'', 'is a broken gzip file ({})'.format(error)
    row = FILE_DATASETS[dataset]
    digest = hashlib.sha256(content).hexdigest()
    if digest == row.sha256[name]:
        return content, ''
    owner = _owner(digest, dataset)
    if owner is not None and owner[0] == dataset:
        return content, 'is {} by its bytes'.format(owner[1])
    if owner is not None:
        return content, "is {0}'s {1} (give --dataset={0})".format(*owner)
    start = content[:100].lstrip().lower()
    other_kind = next((words for kind, words in _OTHER_KINDS.items() if start.startswith(kind)), '')
    return content, other_kind or _wrong_size(content, row.sizes[name], row.sha256[name])


def _unpacked(path: str) -> bytes:
    """The bytes of a file, unpacked where it is gzipped; no more than any known file has.

    Raises:
      one of _BROKEN: it is gzipped, but not to its end.
    """
    with tf.gfile.GFile(path, 'rb') as f:
        content = f.read(_MOST_BYTES)
    if not content.startswith(b'\x1f\x8b'):
        return content
    return gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES)


def _wrong_size(content: bytes, size: int, sha256: str) -> str:
    if not content:
        return 'is empty'
    if len(content) >= _MOST_BYTES:
        return 'has more than {:,} bytes, not {:,}'.format(_MOST_BYTES - 1, size)
    if len(content) > size:
        extra = len(content) - size
        if hashlib.sha256(content[:size]).hexdigest() == sha256:
            return 'has {:,} extra byte{} at its end'.format(extra, 's' * (extra > 1))
    if len(content) != size:
        return 'has {:,} bytes, not {:,}'.format(len(content), size)
    return 'has the right size and other bytes (by sha256)'


def search(folder: str, dataset: str) -> Search:
    """Looks for the files of `dataset` in a local folder and at most three folders below.

    Their names do not matter: what has the size of a known file, raw or inside of a gzip file under
    100 MB, is hashed. At most 10,000 entries are looked at, those near `folder` first.

    Raises:
      OSError: `folder` itself is no folder, or may not be read.
    """
    names = list(FILE_DATASETS[dataset].sha256)
    result = Search({}, {}, {name: [] for name in names}, is_complete=False)
    for path in _files(folder):
        if path is None:
            return result
        like = next((name for name in names if _key(path).startswith(_key(name))), '')
        if like:
            result.named[like].append(path)
        if like in result.found or not (like or _has_known_size(path)):
            continue
        owner = _owner_of_file(path, dataset)
        if owner is not None and owner[0] != dataset:
            result.others.setdefault(owner[0], []).append(owner[1])
        elif owner is not None:
            result.found.setdefault(owner[1], path)
            if len(result.found) == len(names):
                break
    return dataclasses.replace(result, is_complete=True)


def _files(folder: str) -> Iterator[Optional[str]]:
    """Paths of the files, level by level; None at the end where there are too many entries."""
    level, left = [folder], _MOST_ENTRIES
    for depth in range(_DEEPEST + 1):
        below: List[str] = []
        for parent in level:
            try:
                entries = list(itertools.islice(os.scandir(parent), left + 1))
            except OSError:
                if not depth:
                    raise
                continue
            for entry in sorted(entries[:left], key=lambda entry: entry.name):
                if os.path.isfile(entry.path):
                    yield entry.path
                elif os.path.isdir(entry.path):
                    below.append(entry.path)
            left -= len(entries)
            if left < 0:
                yield None
                return
        level = below


def _key(path: str) -> str:
    """A file's name without what tools change in it: train-images.idx3-ubyte.GZ."""
    return re.sub(r'[^a-z0-9]', '', os.path.basename(path).lower())


def _has_known_size(path: str) -> bool:
    """Whether a file, unpacked, may have the size of a known one; by its last bytes if gzipped."""
    sizes = {size for row in FILE_DATASETS.values() for size in row.sizes.values()}
    try:
        size = os.path.getsize(path)
        if size in sizes:
            return True
        if not 18 <= size < _MOST_ZIPPED:
            return False
        with open(path, 'rb') as f:
            if f.read(2) != b'\x1f\x8b':
                return False
            f.seek(-4, os.SEEK_END)
            return int.from_bytes(f.read(), 'little') in sizes
    except OSError:
        return False


def _owner_of_file(path: str, dataset: str) -> Optional[Tuple[str, str]]:
    try:
        return _owner(hashlib.sha256(_unpacked(path)).hexdigest(), dataset)
    except _BROKEN + (tf.errors.OpError,):
        return None


def _owner(digest: str, dataset: str) -> Optional[Tuple[str, str]]:
    """The dataset and the name of the known file with this sha256; those of `dataset` first."""
    for owner in [dataset] + list(FILE_DATASETS):
        for name, sha256 in FILE_DATASETS[owner].sha256.items():
            if sha256 == digest:
                return owner, name
    return None


def _names(dataset: str) -> set:
    return set(FILE_DATASETS[dataset].sha256)
