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
_GZIP = b'\x1f\x8b'
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
    """What a search for the files of a dataset has found, in paths by the names of the files."""

    found: Dict[str, str]
    others: Dict[str, List[str]]  # Names of files by the other dataset that they are of.
    named: Dict[str, List[str]]  # What is named like a file, whatever is in it.
    is_complete: bool = False  # All was found, or all was looked at.


def read(path: str, dataset: str, name: str) -> Tuple[bytes, str]:
    """The bytes of the file at `path`, unpacked, and what they are in place of the file `name`'s.

    The words go on after the name of a file, as 'is empty'; '' where it is that file.
    """
    try:
        content = _unpacked(path)
    except _BROKEN as error:
        return b'', f'is a broken gzip file ({error})'
    row = FILE_DATASETS[dataset]
    digest = hashlib.sha256(content).hexdigest()
    if digest == row.sha256[name]:
        return content, ''
    owner, known = _owner(digest, dataset)
    if owner == dataset:
        return content, f'is {known} by its bytes'
    if owner:
        return content, f"is {owner}'s {known} (give --dataset={owner})"
    start = content[:100].lstrip().lower()
    other_kind = next((words for kind, words in _OTHER_KINDS.items() if start.startswith(kind)), '')
    return content, other_kind or _wrong_size(content, row.sizes[name], row.sha256[name])


def _unpacked(path: str) -> bytes:
    """The bytes of a file, unpacked (to _MOST_BYTES); raises one of _BROKEN."""
    with tf.gfile.GFile(path, 'rb') as f:
        content = f.read(_MOST_BYTES)
    if not content.startswith(_GZIP):
        return content
    return gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES)


def _wrong_size(content: bytes, size: int, sha256: str) -> str:
    if not content:
        return 'is empty'
    extra = len(content) - size
    if len(content) >= _MOST_BYTES:
        return f'has more than {_MOST_BYTES - 1:,} bytes, not {size:,}'
    if extra > 0 and hashlib.sha256(content[:size]).hexdigest() == sha256:
        return f'has {extra:,} extra byte{"s" * (extra > 1)} at its end'
    if extra:
        return f'has {len(content):,} bytes, not {size:,}'
    return 'has the right size and other bytes (by sha256)'


def search(folder: str, dataset: str) -> Search:
    """Looks for the files of `dataset` in a local folder and at most three folders below.

    Their names do not matter: what has the size of a known file, raw or inside of a gzip file under
    100 MB, is hashed. At most 10,000 entries are looked at, those near `folder` first.

    Raises OSError where `folder` itself is no folder, or may not be read.
    """
    names = list(FILE_DATASETS[dataset].sha256)
    result = Search({}, {}, {name: [] for name in names})
    for path in _files(folder):
        if path is None:
            return result
        like = next((name for name in names if _key(path).startswith(_key(name))), '')
        if like:
            result.named[like].append(path)
        if like in result.found or not (like or _has_known_size(path)):
            continue
        try:
            owner, known = _owner(hashlib.sha256(_unpacked(path)).hexdigest(), dataset)
        except (*_BROKEN, tf.errors.OpError):
            continue
        if owner == dataset:
            result.found.setdefault(known, path)
            if len(result.found) == len(names):
                break
        elif owner:
            result.others.setdefault(owner, []).append(known)
    result.is_complete = True
    return result


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
        if size in sizes or not 18 <= size < _MOST_ZIPPED:
            return size in sizes
        with open(path, 'rb') as f:
            is_gzipped = f.read(2) == _GZIP
            f.seek(-4, os.SEEK_END)
            return is_gzipped and int.from_bytes(f.read(), 'little') in sizes
    except OSError:
        return False


def _owner(digest: str, dataset: str) -> Tuple[str, str]:
    """The dataset and the name of the known file with this sha256, or ''; `dataset`'s first."""
    for owner in [dataset, *FILE_DATASETS]:
        for name, sha256 in FILE_DATASETS[owner].sha256.items():
            if sha256 == digest:
                return owner, name
    return '', ''
