"""Tests that remote images are fetched once; file:// stands for gs://."""

import os

import numpy as np
import pytest

from tests.support import datasets
from trainer.base import files
from trainer.data import decoded_copy, inputs, verified
from trainer.data.dataset import SPLITS


@pytest.fixture(name='remote')
def _remote(tmp_path, monkeypatch):
    """The local path and the URL of a decoded copy that is remote, whose cache is empty."""
    folder = tmp_path / 'bucket'
    folder.mkdir()
    data = datasets.write_prepared(folder)
    facts = {
        'format': 1,
        'name': data.name,
        'version': data.version,
        'image_shape': data.image_shape,
        'num_examples': data.num_examples,
        'sha256': {split: files.sha256(path) for split, path in data.files.items()},
    }
    files.write_json(str(folder / decoded_copy.SIDECAR), facts)
    monkeypatch.setattr(verified, '_REMOTE', ('file://',))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return folder, 'file://{}'.format(folder)


def _numbers(prepared):
    return datasets.numbers_of(inputs.first_images(prepared, 'train', 110, 'none'))


def test_images_are_fetched_once_and_read_from_the_cache(remote, tmp_path, capfd):
    _, url = remote
    for _ in range(2):
        prepared, reason = decoded_copy.load(url)
        assert (reason, _numbers(prepared)) == ('', list(range(110)))
        assert all(path.startswith(str(tmp_path / 'cache')) for path in prepared.files.values())
    assert capfd.readouterr().err.count('fetching') == 3
    names = os.listdir(str(tmp_path / 'cache' / 'vae-trainer' / 'images'))
    assert len(names) == 4 and '.lock' in names


def test_a_damaged_copy_and_what_a_killed_process_left_are_made_good(remote):
    _, url = remote
    copy = decoded_copy.load(url)[0].files['train']
    with open(copy, 'r+b') as f:
        f.write(b'damage')
    os.remove(decoded_copy.load(url)[0].files['test'])
    abandoned = '{}.{}.tmp'.format(copy, files.temporary_name())
    with open(abandoned, 'wb'):
        pass
    assert _numbers(decoded_copy.load(url)[0]) == list(range(110))
    assert not os.path.exists(abandoned)


@pytest.mark.parametrize('how', ['changed', 'cut off'])
def test_damaged_images_are_neither_kept_nor_taken(remote, tmp_path, how):
    folder, url = remote
    content = (folder / 'train.uint8').read_bytes()
    changed = content[:-1] if how == 'cut off' else content[:-1] + b'?' * (content[-1:] != b'?')
    (folder / 'train.uint8').write_bytes(changed)
    prepared, reason = decoded_copy.load(url)
    assert prepared is None and 'train.uint8 does not have the bytes' in reason
    assert not list(tmp_path.glob('cache/*/images/[0-9a-f]*'))


@pytest.mark.parametrize('cache', ['/proc/version', ''])
def test_without_a_cache_that_can_be_written_images_are_read_where_they_are(
    remote, monkeypatch, cache
):
    _, url = remote
    monkeypatch.setenv('XDG_CACHE_HOME', cache)
    monkeypatch.setenv('HOME', '')
    prepared, _ = decoded_copy.load(url)
    assert prepared.files == {split: '{}/{}.uint8'.format(url, split) for split in SPLITS}
    np.testing.assert_array_equal(_numbers(prepared), np.arange(110))


def test_the_cache_is_where_the_user_has_it(monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    for value in ('', 'relative'):
        monkeypatch.setenv('XDG_CACHE_HOME', value)
        assert verified.cache_folder('images') == '/home/me/.cache/vae-trainer/images'
    monkeypatch.setenv('XDG_CACHE_HOME', '/caches')
    assert verified.cache_folder() == '/caches/vae-trainer'
