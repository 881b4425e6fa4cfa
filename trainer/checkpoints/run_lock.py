"""Keeps a second training out of a `model_dir`: both would write its checkpoints."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from typing import Iterator

from trainer.base.console import say
from trainer.base.errors import UserError

FILE_NAME = '.lock'
# A file system that knows no locks, as some of networks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(model_dir: str) -> Iterator[None]:
    """Holds the lock of `model_dir`, which is made where it is missing.

    The kernel holds it, not the file: it goes with the process, however that ends. gs:// has no
    locks.

    Raises:
      UserError: another process has it; the message says which.
    """
    if '://' in model_dir:
        yield
        return
    os.makedirs(model_dir, exist_ok=True)
    path = os.path.join(model_dir, FILE_NAME)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(lock, model_dir)
        yield
    finally:
        os.close(lock)


def _take(lock: int, model_dir: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(lock, 1000, 0).decode('utf-8', 'replace').strip()
        raise UserError(
            f'--model_dir={model_dir} is in use by {owner}: wait for its end, or choose another '
            'folder.'
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say('--model_dir={} cannot be locked: start no second training there.'.format(model_dir))
        return
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    content = f'process {os.getpid()} on {socket.gethostname()} since {now}\n'.encode()
    with contextlib.suppress(OSError):  # A full disk; the lock holds without the words.
        os.pwrite(lock, content, 0)
        os.ftruncate(lock, len(content))
