"""Files that are written whole or not at all, on local disks and on gs:// alike."""

import hashlib
import json
import os
import uuid
from typing import Any, Optional

import tensorflow as tf

from trainer.errors import UserError


def write_bytes(path: str, content: bytes) -> str:
    """Writes `content` under a temporary name beside `path`, then renames; returns `path`.

    A reader sees the old file or the new one, never a part: POSIX renames within a folder are
    atomic, and an object on gs:// appears only when its upload is complete.
    """
    temporary = '{}.{}.tmp'.format(path, uuid.uuid4().hex[:8])
    tf.gfile.MakeDirs(os.path.dirname(path) or '.')
    try:
        with tf.gfile.GFile(temporary, 'wb') as f:
            f.write(content)
        tf.gfile.Rename(temporary, path, overwrite=True)
    finally:
        if tf.gfile.Exists(temporary):
            tf.gfile.Remove(temporary)
    return path


def sha256(path: str) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with tf.gfile.GFile(path, 'rb') as f:
        for block in iter(lambda: f.read(1 << 22), b''):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: str, value: Any) -> str:
    """Writes `value` as indented JSON with sorted keys, whole or not at all; returns `path`."""
    return write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + '\n').encode('utf-8'))


def read_json(path: str) -> Optional[Any]:
    """Returns the JSON value in `path`, or None where there is no such file.

    Raises:
      UserError: the file is there, but is not JSON.
    """
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
            '{} is not valid JSON ({}): restore it or move it away.'.format(path, error)
        ) from error
