"""A folder in which several processes prepare images: its lock, and how results get there."""

import contextlib
import dataclasses
import fcntl
import glob
import os
import shutil
import tempfile
from typing import Iterator

from trainer.base import files
from trainer.base.console import say


@dataclasses.dataclass(frozen=True)
class Workplace:
    """A folder, local or gs://, that need not be there yet; `what` is prepared there."""

    path: str
    what: str

    @property
    def is_remote(self) -> bool:
        return '://' in self.path

    def is_writable(self) -> bool:
        """Whether this process may write below the folder, or create it."""
        if self.is_remote:
            return True
        folder = os.path.abspath(self.path)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder's lock, which the kernel releases when the process dies."""
        if self.is_remote:
            yield
            return
        os.makedirs(self.path, exist_ok=True)
        # Opened for reading only: the lock file may belong to another user of the same folder.
        lock = os.open(os.path.join(self.path, '.prepare.lock'), os.O_RDONLY | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f'{self.what}: another process is preparing it; waiting for that.')
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[str]:
        """A folder on the file system of the results, gone at the end; call under the lock.

        What a killed preparation left is removed: under the lock no one else can be using it.
        """
        parent = None if self.is_remote else self.path
        if parent:
            for old in glob.glob(os.path.join(glob.escape(parent), '.preparing-*')):
                shutil.rmtree(old, ignore_errors=True)
        work = tempfile.mkdtemp(prefix='.preparing-', dir=parent)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def publish(folder: str, target: str, last: str) -> None:
    """Moves the finished `folder` to `target`, in one step on a local disk.

    On gs:// the files are copied one by one, `last` at the end: its presence means all are there.
    """
    if '://' in target:
        files.copy_tree(folder, target, last)
        return
    if os.path.exists(target):
        # Readers of the old files keep them open; the work folder takes them away.
        os.rename(target, os.path.join(os.path.dirname(folder), 'replaced'))
    os.rename(folder, target)
