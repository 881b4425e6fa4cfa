"""Files that are written whole or not at all, on local disks and on gs:// alike."""

import contextlib
import hashlib
import json
import math
import os
import re
import socket
import stat
import tempfile
import time
import uuid
from typing import Any, Callable, Iterator, List, Optional

import psutil
import tensorflow as tf

from trainer.base import errors
from trainer.base.errors import UserError

_TEMPORARY = re.compile(r'(?:.*\.|temp-)([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(?:\.tmp)?')
_SECONDS_TO_ABANDONED = 3600.0


def write_bytes(path: str, content: bytes) -> str:
    """Writes `content` under a temporary name beside `path`, then renames; returns `path`.

    A reader sees the old file or the new one, never a part: renames on a local disk are atomic, and
    an object on gs:// appears whole.
    """
    temporary = f'{path}.{temporary_name()}.tmp'
    tf.gfile.MakeDirs(os.path.dirname(path) or '.')
    try:
        with tf.gfile.GFile(temporary, 'wb') as f:
            f.write(content)
        tf.gfile.Rename(temporary, path, overwrite=True)
    finally:
        if tf.gfile.Exists(temporary):
            tf.gfile.Remove(temporary)
    return path


def write_output(path: str, content: bytes) -> str:
    """As `write_bytes`, for a file that a user or a service has named, in a folder not ours.

    It goes to what a link leads to. What cannot be replaced is written in place: a file in a folder
    of another owner or with the sticky bit, one that is mounted alone, a pipe, a device. Raises
    UserError that says why it cannot be written.
    """
    try:
        if is_stream(path):
            _overwrite(path, content)
            return path
        target = path if '://' in path else os.path.realpath(path)
        try:
            write_bytes(target, content)
        except (tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError):
            if not os.path.isfile(target):
                raise
            _overwrite(target, content)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f'{path} cannot be written ({errors.reason(error)}): {errors.remedy(error)}.'
        ) from error
    return path


@contextlib.contextmanager
def replacing(path: str) -> Iterator[Callable[[bytes], Any]]:
    """Yields what writes a file piece by piece, which is at `path` once all went well.

    Until then it has a temporary name beside it; after an exception it is gone. A stream, and what
    lies in a folder that cannot be written, is written in place. Raises UserError that says why
    there can be no such file.
    """
    try:
        if is_alone(path):
            with open(os.open(path, os.O_WRONLY | os.O_TRUNC), 'wb') as f:
                yield f.write
            return
        target = path if '://' in path else os.path.realpath(path)
        temporary = f'{target}.{temporary_name()}.tmp'
        tf.gfile.MakeDirs(os.path.dirname(target) or '.')
        try:
            with tf.gfile.GFile(temporary, 'wb') as f:
                yield f.write
            tf.gfile.Rename(temporary, target, overwrite=True)
        finally:
            if tf.gfile.Exists(temporary):
                tf.gfile.Remove(temporary)
    except (OSError, tf.errors.OpError) as error:
        if errors.of_files(error) is None:
            raise
        raise UserError(
            f'{path} cannot be written ({errors.reason(error)}): {errors.remedy(error)}.'
        ) from error


def check_output(flag: str, path: str) -> None:
    """Refuses, before the work, a file in which its results could not be put by `write_output`.

    It leaves nothing there, and does not look at what is remote. Raises UserError that names the
    flag, such as '--output', its value and why.
    """
    if is_stream(path):
        return
    if tf.gfile.IsDirectory(path):
        raise UserError(f'{flag}={path} is a folder: give a file.')
    _check(flag, path, _try_file)


def check_folder(flag: str, path: str) -> None:
    """As `check_output`, for a folder in which results are put, which may have to be made."""
    _check(flag, path, _try_folder)


def _check(flag: str, path: str, attempt: Callable[[str], None]) -> None:
    if '://' in path:
        return
    target = os.path.realpath(path)
    try:
        attempt(target)
    except OSError as error:
        where = '' if error.filename in (None, target) else f'{error.filename}: '
        raise UserError(
            f'{flag}={path} cannot be written ({where}{errors.reason(error)}): '
            f'{errors.remedy(error)}.'
        ) from error


def _try_file(path: str) -> None:
    try:
        _try_folder(os.path.dirname(path))
    except OSError:
        if not os.path.isfile(path):
            raise
        os.close(os.open(path, os.O_WRONLY))
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)  # Its name may be too long.


def _try_folder(path: str) -> None:
    while True:
        try:
            os.stat(path)
            break
        except FileNotFoundError:
            path = os.path.dirname(path)
    try:
        # os.access knows neither all file systems nor, mostly, the effective user. Linux makes
        # this file without a name.
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _overwrite(path: str, content: bytes) -> None:
    # Without O_CREAT, which Linux refuses for files of others in folders with the sticky bit.
    with open(os.open(path, os.O_WRONLY | os.O_TRUNC), 'wb') as f:
        f.write(content)


def is_stream(path: str) -> bool:
    """Whether `path` is a pipe, a device or a file that is already open, as /dev/stdout is."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    is_open = path.startswith(('/dev/std', '/dev/fd/', '/proc/'))
    return is_open or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_alone(path: str) -> bool:
    """Whether nothing can be written beside what is at `path`."""
    if is_stream(path):
        return True
    target = os.path.realpath(path)
    return os.path.isfile(target) and not os.access(
        os.path.dirname(target), os.W_OK, effective_ids=os.access in os.supports_effective_ids
    )


def temporary_name() -> str:
    """Returns a new name for something unfinished, from which `is_abandoned` knows whose it is."""
    return f'{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}'


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode('utf-8')).hexdigest()[:8]


def unfinished(path: str) -> List[str]:
    """Returns what `write_bytes` has left, or writes, beside `path`."""
    folder, name = os.path.split(path)
    others = [other for other in names_in(folder or '.') if other.startswith(name + '.')]
    return [os.path.join(folder, other) for other in others if other.endswith('.tmp')]


def names_in(folder: str) -> List[str]:
    """Returns the names of what lies in a folder, local or gs://; none where there is no folder."""
    names = tf.gfile.ListDirectory(folder) if tf.gfile.IsDirectory(folder) else []
    return [name.rstrip('/') for name in names]  # On gs:// folders have a slash there (1.14).


def is_abandoned(path: str) -> bool:
    """Whether what has a `temporary_name` was left by a process that has ended.

    To be asked before anything is written: a process with the number of this one has
    ended, as in containers. Those of other hosts count as ended after an hour without a write.
    """
    match = _TEMPORARY.fullmatch(os.path.basename(path.rstrip('/')))
    if match is None:
        return False
    host, process = match.group(1), int(match.group(2))
    if host != _host():
        with contextlib.suppress(tf.errors.NotFoundError):  # Renamed by its writer meanwhile.
            return time.time() - _last_write(path) > _SECONDS_TO_ABANDONED
        return False
    return process == os.getpid() or not psutil.pid_exists(process)


def _last_write(path: str) -> float:
    """Seconds since the epoch, of a file, or of a folder and what is in it."""
    paths = [path, *(os.path.join(path, name) for name in names_in(path))]
    return max(tf.gfile.Stat(each).mtime_nsec for each in paths) / 1e9


def copy_tree(source: str, target: str, last: str) -> None:
    """Copies a folder, each file whole at once; `last` is removed first: with it, all are there."""
    if tf.gfile.Exists(os.path.join(target, last)):
        tf.gfile.Remove(os.path.join(target, last))
    tree = tf.gfile.Walk(source)
    paths = [os.path.join(folder, name) for folder, _, names in tree for name in names if name]
    for path in sorted(paths, key=lambda path: path.endswith(last)):
        copy = os.path.join(target, os.path.relpath(path, source))
        tf.gfile.MakeDirs(os.path.dirname(copy))
        unfinished = copy if '://' in copy else copy + '.tmp'  # An object on gs:// appears whole.
        tf.gfile.Copy(path, unfinished, overwrite=True)
        if unfinished != copy:
            tf.gfile.Rename(unfinished, copy, overwrite=True)


def sha256(path: str) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with tf.gfile.GFile(path, 'rb') as f:
        for block in iter(lambda: f.read(1 << 22), b''):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: str, value: Any) -> str:
    """Writes `value` as indented JSON with sorted keys, whole or not at all; returns `path`."""
    return write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns `value` as indented JSON with sorted keys.

    JSON has no NaN and no infinity (RFC 8259, section 6): such a number is null.
    """
    text = json.dumps(_without_nan(value), indent=2, sort_keys=True, allow_nan=False)
    return (text + '\n').encode('utf-8')


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str) -> Optional[Any]:
    """Returns the JSON in `path`, or None without the file; raises UserError for other content."""
    if not tf.gfile.Exists(path):
        return None
    with tf.gfile.GFile(path, 'rb') as f:
        content = f.read()
    try:
        value = json.loads(content.decode('utf-8'))
        if value is None:
            raise ValueError('it is null')
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{path} is not valid JSON ({error}): restore it or move it away.'
        ) from error
