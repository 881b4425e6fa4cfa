"""SHA-256 of large files, computed once: then size and times tell whether the bytes are the same.

What was found is kept in `<file>.sha256` or, where that cannot be written, in the user's cache. A
write changes the time of the inode's last change (ctime), which no program can set back.
"""

import hashlib
import os
import time
from typing import Any, Dict, List

import tensorflow as tf

from trainer.base import files, path_flags
from trainer.base.errors import UserError

# Smaller files are read whole at each start anyway: 0.6 s at most.
_LARGE_BYTES = 256 << 20
# Two writes within one tick of a file system's clock leave the same time; FAT's tick is 2 s.
_TICK_SECONDS = 2.0


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
