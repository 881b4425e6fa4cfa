"""Tests that large files are hashed once, and again after whatever may have changed them."""

import hashlib
import os
import shutil

import pytest

from tests.support import users
from trainer.base import files
from trainer.data import verified

CONTENT = b'pixels' * 100


@pytest.fixture(name='large')
def _large(tmp_path, monkeypatch):
    """The path of a file that counts as large, and the paths that were hashed."""
    hashed, usual = [], files.sha256
    monkeypatch.setattr(files, 'sha256', lambda path: hashed.append(path) or usual(path))
    monkeypatch.setattr(verified, '_LARGE_BYTES', 100)
    monkeypatch.setattr(verified, '_TICK_SECONDS', 0.05)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'data').mkdir()
    path = tmp_path / 'data' / 'train.uint8'
    path.write_bytes(CONTENT)
    return path, hashed


def _is_right(path):
    return verified.sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_is_hashed_once(large):
    path, hashed = large
    assert all(_is_right(path) for _ in range(3))
    assert hashed == [str(path)]
    assert sorted(os.listdir(str(path.parent))) == ['train.uint8', 'train.uint8.sha256']


def _flip(path):
    with open(str(path), 'r+b') as f:
        f.seek(7)
        f.write(b'!')


def _flip_and_set_the_time_back(path):
    before = os.stat(str(path))
    _flip(path)
    os.utime(str(path), ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path):
    before = os.stat(str(path))
    path.with_suffix('.new').write_bytes(CONTENT[::-1])
    os.utime(str(path.with_suffix('.new')), ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(str(path.with_suffix('.new')), str(path))


@pytest.mark.parametrize('change', [_flip, _flip_and_set_the_time_back, _replace])
def test_whatever_changes_the_bytes_is_noticed(large, change):
    path, hashed = large
    assert _is_right(path)
    change(path)
    assert _is_right(path) and _is_right(path)
    assert len(hashed) == 2


def test_a_copied_folder_is_hashed_anew(large, tmp_path):
    path, hashed = large
    assert _is_right(path)
    copy = tmp_path / 'copy'
    shutil.copytree(str(path.parent), str(copy), copy_function=shutil.copy2)
    _flip(copy / 'train.uint8')
    assert _is_right(copy / 'train.uint8')
    assert len(hashed) == 2


@pytest.mark.parametrize('content', ['', '[]', '{}', 'null', '{"sha256": 7}'])
def test_a_damaged_record_is_made_anew(large, content):
    path, hashed = large
    assert _is_right(path)
    path.with_suffix('.uint8.sha256').write_text(content)
    assert _is_right(path) and _is_right(path)
    assert len(hashed) == 2


@pytest.mark.parametrize('may_cache', [True, False])
def test_of_a_folder_that_cannot_be_written_the_cache_remembers(large, monkeypatch, may_cache):
    _, hashed = large
    monkeypatch.setattr(verified, '_LARGE_BYTES', 10)
    with users.folder_of_another(0o555) as folder, users.folder_of_another(0o555) as other:
        os.chmod(other, 0o777 if may_cache else 0o555)
        monkeypatch.setenv('XDG_CACHE_HOME', other)
        path = os.path.join(folder, 'file')
        with users.another_user():
            assert len({verified.sha256(path) for _ in range(2)}) == 1
        assert hashed == [path] * (1 if may_cache else 2)
        assert os.listdir(folder) == ['file']
