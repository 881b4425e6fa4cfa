"""Large files whose SHA-256 is known: computed once, and those on gs:// fetched once.

What was computed is kept in `<file>.sha256` or, where that cannot be written, in the user's cache.
From then on size and times tell whether the bytes are the same: a write changes the time of the
inode's last change (ctime), which no program can set back. Remote files are kept in the user's
cache too, by their SHA-256.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
from typing import Any, Dict, Iterator, List

import tensorflow as tf

from trainer.base import errors, files, path_flags
from trainer.base.console import say
from trainer.base.errors import UserError

# Smaller files are read whole at each start anyway: 0.6 s at most.
_LARGE_BYTES = 256 << 20
# Two writes within one tick of a file system's clock leave the same time; FAT's tick is 2 s.
_TICK_SECONDS = 2.0
_REMOTE = ('gs://', 's3://', 'hdfs://', 'viewfs://')
_SHA256 = re.compile('[0-9a-f]{64}')


def sha256(path: str) -> str:
    """Returns the hexadecimal SHA-256 of a file, of a large local one as found before if it is
    unchanged since."""
    if '://' in path or os.path.getsize(path) < _LARGE_BYTES:
        return files.sha256(path)
    stamp, places = _stamp(path), _places(path)
    for place in places:
        known = _read(place)
        if known.items() >= stamp.items() and isinstance(known.get('sha256'), str):
            return known['sha256']
    age_seconds = time.time() - stamp['changed_ns'] / 1e9
    time.sleep(min(max(_TICK_SECONDS - age_seconds, 0.0), _TICK_SECONDS))
    digest = files.sha256(path)
    if _stamp(path) == stamp:
        _write(places, dict(stamp, sha256=digest))
    return digest


def local_copy(path: str, size: int, digest: str) -> str:
    """Returns the verified local copy of a remote file, which is fetched now if need be.

    It lies in the user's cache, by its SHA-256. Without a cache that can be written, says so and
    returns '', as for what is local already.

    Args:
      size: of the file, in bytes.
      digest: its SHA-256.
    """
    folder = cache_folder('images')
    if not path.startswith(_REMOTE) or not folder or not _SHA256.fullmatch(digest):
        return ''
    copy = os.path.join(folder, digest)
    try:
        os.makedirs(folder, exist_ok=True)
        with _locked(folder):
            if not os.path.exists(copy) or sha256(copy) != digest:
                _fetch(path, copy, size, digest)
        return copy
    except (OSError, tf.errors.OpError) as error:
        say(f'{path}: read from there: no copy in {folder} ({errors.reason(error)}).')
        return ''


def cache_folder(*names: str) -> str:
    """Returns a folder in the user's cache (XDG Base Directory Specification); '' without a home.

    It may have to be made.
    """
    parent = os.environ.get('XDG_CACHE_HOME', '')
    if not os.path.isabs(parent):
        try:
            parent = path_flags.expanded('~/.cache')
        except ValueError:
            return ''
    return os.path.join(parent, 'vae-trainer', *names)


def _stamp(path: str) -> Dict[str, int]:
    """What a write or a replacement of a file changes."""
    facts = os.stat(path)
    return {
        'bytes': facts.st_size,
        'inode': facts.st_ino,
        'written_ns': facts.st_mtime_ns,
        'changed_ns': facts.st_ctime_ns,
    }


def _places(path: str) -> List[str]:
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    cache = cache_folder('sha256')
    return [path + '.sha256', *([os.path.join(cache, name)] if cache else [])]


def _read(place: str) -> Dict[str, Any]:
    try:
        known = files.read_json(place)
    except (UserError, tf.errors.OpError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(places: List[str], known: Dict[str, Any]) -> None:
    """Writes to the first place that can be written, if any can."""
    for place in places:
        try:
            files.write_json(place, known)
            return
        except (OSError, tf.errors.OpError):
            continue


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One process fetches, and others wait for its copy."""
    lock = os.open(os.path.join(folder, '.lock'), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _fetch(path: str, copy: str, size: int, digest: str) -> None:
    folder = os.path.dirname(copy)
    for other in [os.path.join(folder, name) for name in os.listdir(folder)]:
        if files.is_abandoned(other):
            os.remove(other)
    say(f'{path}: fetching its {size / 1e6:,.1f} MB to {folder}, once.')
    unfinished = f'{copy}.{files.temporary_name()}.tmp'
    try:
        with tf.gfile.GFile(path, 'rb') as source, open(unfinished, 'wb') as target:
            os.posix_fallocate(target.fileno(), 0, max(size, 1))  # A full disk is known at once.
            for block in iter(lambda: source.read(1 << 22), b''):
                target.write(block)
        if files.sha256(unfinished) != digest:
            raise OSError(errno.EIO, 'other bytes than were written')
        os.rename(unfinished, copy)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)
