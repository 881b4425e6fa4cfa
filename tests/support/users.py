"""What a user may who is not root and owns nothing here."""

import contextlib
import os
import shutil
import tempfile

import pytest

_NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can become another user')


@contextlib.contextmanager
def another_user():
    """Root becomes nobody for a while; whoever is not root stays who they are."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
            os.setegid(0)


@contextlib.contextmanager
def folder_of_another(mode):
    """Yields a folder with that mode, which holds `file`, that all may write.

    Not in pytest's own folders, which no other user may enter.
    """
    parent = tempfile.mkdtemp()
    os.chmod(parent, 0o755)
    folder = os.path.join(parent, 'folder')
    os.mkdir(folder)
    path = os.path.join(folder, 'file')
    with open(path, 'wb') as f:
        f.write(b'a longer text that was there before')
    os.chmod(path, 0o666)
    os.chmod(folder, mode)
    try:
        yield folder
    finally:
        os.chmod(folder, 0o700)
        shutil.rmtree(parent)
