"""Tests of where the files of a dataset come from: folders as other tools leave them, downloads."""

import gzip
import os
import re
import shutil

import pytest

from tests.support import datasets
from tests.support.servers import serving
from trainer.base import files
from trainer.base.errors import UserError
from trainer.data import catalog, file_search, labels, prepare, sources
from trainer.settings.table import HParams

_NAMES = list(catalog.FILE_DATASETS['mnist'].sha256)
_IMAGES, _LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'
_TEST_IMAGES = 't10k-images-idx3-ubyte'


@pytest.fixture(name='contents', scope='module')
def _contents(tmp_path_factory):
    """The bytes of a small MNIST's files by name."""
    folder = datasets.write_idx(tmp_path_factory.mktemp('idx'))
    return {name: _read(os.path.join(folder, name)) for name in _NAMES}


@pytest.fixture(name='mnist', autouse=True)
def _mnist(contents, tmp_path):
    """'mnist' means these files; the test's folder is empty."""
    folder = tmp_path / 'known'
    _write(folder, contents)
    with datasets.small_mnist(str(folder)):
        shutil.rmtree(str(folder))
        yield


def _read(path):
    with open(str(path), 'rb') as f:
        return f.read()


def _write(folder, contents):
    for name, content in contents.items():
        path = os.path.join(str(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as f:
            f.write(content)


# What other tools leave.

_LAYOUTS = {
    'raw': '{name}',
    'dotted': '{dotted}',
    'below': 'raw/{name}',
    'torchvision': 'MNIST/raw/{name}',
    'kaggle': '{name}/{name}',
    'kaggle, dotted': '{dotted}/{dotted}',
    'three folders below': 'a/b/c/{name}',
    'another name': 'file {number}',
}
_ZIPPED_LAYOUTS = {
    'zipped': '{name}.gz',
    'upper case': '{name}.GZ',
    'zipped, dotted': '{dotted}.gz',
    'zipped by TFDS': 'downloads/x_{name}AbC.gz',
    'unpacked in name only': '{name}',
    'saved a second time': '{name} (1).gz',
}


def _laid_out(layout, contents):
    return {
        layout.format(name=name, dotted=name.replace('-idx', '.idx'), number=number): content
        for number, (name, content) in enumerate(contents.items())
    }


@pytest.mark.parametrize('layout', sorted(_LAYOUTS) + sorted(_ZIPPED_LAYOUTS))
def test_files_are_found_as_other_tools_leave_them(contents, tmp_path, layout):
    folder = tmp_path / 'of [a] {user} *?'
    if layout in _LAYOUTS:
        _write(folder, _laid_out(_LAYOUTS[layout], contents))
    else:
        zipped = {name: gzip.compress(content) for name, content in contents.items()}
        _write(folder, _laid_out(_ZIPPED_LAYOUTS[layout], zipped))
    sources.check_folder('mnist', str(folder))
    found = file_search.search(str(folder), 'mnist').found
    assert {name: file_search.read(path, 'mnist', name) for name, path in found.items()} == {
        name: (content, '') for name, content in contents.items()
    }


def test_of_two_datasets_in_one_folder_the_right_one_is_found(contents, tmp_path):
    others = {name: b'\0' * len(content) for name, content in contents.items()}
    _write(tmp_path / 'FashionMNIST' / 'raw', others)
    _write(tmp_path / 'MNIST' / 'raw', contents)
    found = file_search.search(str(tmp_path), 'mnist').found
    assert found == {name: str(tmp_path / 'MNIST' / 'raw' / name) for name in _NAMES}


def test_an_empty_file_does_not_hide_the_zipped_one_beside_it(contents, tmp_path):
    for name, content in contents.items():
        _write(tmp_path, {name: b'', name + '.gz': gzip.compress(content)})
    found = file_search.search(str(tmp_path), 'mnist').found
    assert found == {name: str(tmp_path / (name + '.gz')) for name in _NAMES}


def test_what_is_found_is_prepared(contents, tmp_path):
    _write(tmp_path / 'data', _laid_out(_LAYOUTS['torchvision'], contents))
    prepared = prepare.prepare('mnist', str(tmp_path / 'prepared'), str(tmp_path / 'data'))
    assert prepared.num_examples['test'] == datasets.NUM_TEST


def test_a_search_ends(contents, tmp_path, monkeypatch):
    _write(tmp_path / 'a/b/c/d', contents)
    (tmp_path / 'loop').symlink_to(tmp_path)
    with pytest.raises(UserError, match='no train-images-idx3-ubyte and no'):
        sources.check_folder('mnist', str(tmp_path))
    _write(tmp_path, contents)
    sources.check_folder('mnist', str(tmp_path))
    monkeypatch.setattr(file_search, '_MOST_ENTRIES', 3)
    with pytest.raises(UserError, match='not all was looked at'):
        sources.check_folder('mnist', str(tmp_path))


def test_large_zipped_files_and_what_is_no_file_are_passed_over(contents, tmp_path, monkeypatch):
    zipped = gzip.compress(contents[_IMAGES])
    _write(tmp_path, dict(contents, something=zipped))
    os.remove(str(tmp_path / _IMAGES))
    os.mkfifo(str(tmp_path / _IMAGES))
    assert file_search.search(str(tmp_path), 'mnist').found[_IMAGES].endswith('something')
    monkeypatch.setattr(file_search, '_MOST_ZIPPED', len(zipped))
    assert _IMAGES not in file_search.search(str(tmp_path), 'mnist').found


def test_a_data_folder_may_have_any_name(contents, tmp_path):
    """Up to the labels, which a run reads at its very end."""
    data_dir = str(tmp_path / 'd [x] {user} {0} *? \\ é')
    _write(tmp_path / 'idx [1] {0}', contents)
    prepared = prepare.prepare('mnist', data_dir, str(tmp_path / 'idx [1] {0}'))
    assert prepare.prepare('mnist', data_dir) == prepared
    params = HParams(image_shape=(28, 28, 1), dataset='mnist', data_dir=data_dir)
    assert labels.labels(prepared, params, 20) == [0] * 20


def test_labels_that_cannot_be_read_are_said(contents, tmp_path, capfd):
    _write(tmp_path / 'idx', contents)
    prepared = prepare.prepare('mnist', str(tmp_path / 'data'), str(tmp_path / 'idx'))
    params = HParams(image_shape=(28, 28, 1), dataset='mnist', data_dir=str(tmp_path / 'data'))
    records = tmp_path / 'data' / 'mnist' / '3.0.0'
    for name in os.listdir(str(records)):
        if 'train' in name:
            os.remove(str(records / name))
    assert labels.labels(prepared, params, 20) is None
    assert '{} does not hold all of them'.format(records) in capfd.readouterr().err
    shutil.rmtree(str(records))
    assert labels.labels(prepared, params, 20) is None
    assert 'PROJECTOR: no labels' in capfd.readouterr().err


# What is seen in place of a file.


@pytest.mark.parametrize(
    'content, seen',
    [
        (lambda good: b'', 'is empty'),
        (lambda good: gzip.compress(b''), 'is empty'),
        (lambda good: b'\n<!DOCTYPE html><html>404</html>', 'is an HTML page'),
        (lambda good: gzip.compress(b'<html>404</html>'), 'is an HTML page'),
        (lambda good: good + b'\n', 'has 1 extra byte at its end'),
        (lambda good: gzip.compress(good + b'abc'), 'has 3 extra bytes at its end'),
        (lambda good: b'x' + good, 'bytes, not 18,832'),
        (lambda good: good[:1000], 'has 1,000 bytes, not 18,832'),
        (lambda good: good[:-1] + b'\xff', 'has the right size and other bytes'),
        (lambda good: gzip.compress(good)[:-9], 'is a broken gzip file'),
        (lambda good: b'version https://git-lfs.github.com/spec/v1\n', 'pointer of Git LFS'),
        (lambda good: b'PK\x03\x04\0\0', 'is a zip archive: unpack it'),
    ],
)
def test_what_is_seen_is_said(contents, tmp_path, content, seen):
    _write(tmp_path, dict(contents, **{_TEST_IMAGES: content(contents[_TEST_IMAGES])}))
    with pytest.raises(UserError) as error:
        sources.check_folder('mnist', str(tmp_path))
    message = str(error.value)
    assert message.startswith('--idx_dir={0}: {0}/{1} '.format(tmp_path, _TEST_IMAGES))
    assert seen in message and 'then start again' in message
    assert not re.search('[0-9a-f]{64}', message)


def test_the_train_file_under_the_name_of_the_test_file(contents, tmp_path):
    _write(tmp_path, dict(contents, **{_TEST_IMAGES: contents[_IMAGES]}))
    with pytest.raises(UserError, match=_TEST_IMAGES + ' is ' + _IMAGES + ' by its bytes'):
        sources.check_folder('mnist', str(tmp_path))


def test_files_under_each_others_names_are_found(contents, tmp_path):
    swapped = {_IMAGES: contents[_TEST_IMAGES], _TEST_IMAGES: contents[_IMAGES]}
    _write(tmp_path, dict(contents, **swapped))
    found = file_search.search(str(tmp_path), 'mnist').found
    assert found[_IMAGES] == str(tmp_path / _TEST_IMAGES)


def test_files_of_another_dataset(contents, tmp_path):
    _write(tmp_path, contents)
    with pytest.raises(UserError, match="these are mnist's files: give --dataset=mnist"):
        sources.check_folder('fashion_mnist', str(tmp_path))
    os.remove(str(tmp_path / _LABELS))
    seen = r"{0} is mnist's {0} \(give --dataset=mnist\)".format(_IMAGES)
    with pytest.raises(UserError, match=seen):
        sources.check_folder('fashion_mnist', str(tmp_path))


def test_what_is_no_folder(tmp_path):
    for name, reason in (('missing', 'No such file'), ('file', 'Not a directory')):
        (tmp_path / 'file').write_text('')
        with pytest.raises(UserError, match='--idx_dir=.*{}: {}'.format(name, reason)):
            sources.check_folder('mnist', str(tmp_path / name))


def test_sizes_are_those_of_images_and_labels():
    row = catalog.FILE_DATASETS['fashion_mnist']
    assert row.sizes == {
        'train-images-idx3-ubyte': 16 + 60000 * 28 * 28,
        'train-labels-idx1-ubyte': 8 + 60000,
        't10k-images-idx3-ubyte': 16 + 10000 * 28 * 28,
        't10k-labels-idx1-ubyte': 8 + 10000,
    }


# Downloads.


@pytest.fixture(name='served')
def _served(tmp_path, monkeypatch):
    """A folder on the network, and its address."""
    monkeypatch.setenv('NO_PROXY', '*')
    folder = tmp_path / 'served'
    folder.mkdir()
    with serving(folder) as url:
        yield folder, url


_ARCHIVES = {'a.gz': b'first', 'b.gz': b'second'}


def test_a_failed_download_leaves_no_rests(served, tmp_path, capfd):
    folder, url = served
    downloads = tmp_path / 'data' / 'downloads'
    _write(folder, {'a.gz': b'first'})
    foreign = 'of_tfds.tmp.' + '0' * 32
    at_work = 'other.tmp.' + files.temporary_name().replace(str(os.getpid()), '1')
    killed = 'killed.tmp.' + files.temporary_name().replace(str(os.getpid()), '4194305')
    for name in (foreign, at_work, killed):
        (downloads / name).mkdir(parents=True)
    with datasets.downloaded(url, _ARCHIVES), pytest.raises(UserError, match='404'):
        prepare.prepare('downloaded', str(tmp_path / 'data'))
    temporary = {name for name in os.listdir(str(downloads)) if '.tmp.' in name}
    assert temporary == {foreign, at_work}
    said = capfd.readouterr().err
    assert "downloaded: getting its files: TFDS's download." in said
    assert 'writing' not in said


def test_it_is_said_when_the_download_is_done(served, tmp_path, capfd):
    folder, url = served
    _write(folder, _ARCHIVES)
    with datasets.downloaded(url, _ARCHIVES):
        prepare.prepare('downloaded', str(tmp_path / 'data'))
    said = capfd.readouterr().err
    assert said.index('getting its files') < said.index('writing its TFDS records')
    names = os.listdir(str(tmp_path / 'data' / 'downloads'))
    assert len(names) == 4 and not any('.tmp' in name for name in names)


def test_archives_put_by_hand_into_the_download_folder_are_found(contents, tmp_path):
    """Without TFDS's names and its `.INFO`; the network has nothing."""
    downloads = tmp_path / 'data' / 'downloads'
    zipped = {name + '.gz': gzip.compress(content) for name, content in contents.items()}
    _write(downloads, zipped)
    prepared = prepare.prepare('mnist', str(tmp_path / 'data'))
    assert prepared.num_examples['test'] == datasets.NUM_TEST
    assert set(os.listdir(str(downloads))) == set(zipped)


def test_so_are_archives_of_other_datasets(tmp_path):
    downloads = tmp_path / 'data' / 'downloads'
    wrong = {'c.gz': b'Second'}
    _write(downloads, dict(wrong, **{'my a.gz': b'first', 'b.gz': b'second'}))
    with datasets.downloaded(datasets.NOWHERE, _ARCHIVES):
        prepare.prepare('downloaded', str(tmp_path / 'data'))
    assert (downloads / 'my a.gz').read_bytes() == b'first'
    assert (downloads / 'c.gz').read_bytes() == b'Second'


def test_a_file_that_another_download_removes_meanwhile_stops_no_search(tmp_path, monkeypatch):
    """TFDS gets several archives at once, and renames each `.INFO` from a name of its own."""
    downloads = tmp_path / 'data' / 'downloads'
    passing = downloads / 'a.gz.INFO.incomplete_0'
    _write(downloads, {'b.gz': b'second', 'my a.gz': b'first'})
    usual, removed = os.scandir, []

    def scandir(path):
        if str(path) != str(downloads):
            return usual(path)
        passing.write_bytes(b'')
        entries = list(usual(path))
        passing.unlink()
        removed.append(passing)
        return iter(entries)

    monkeypatch.setattr(os, 'scandir', scandir)
    with datasets.downloaded(datasets.NOWHERE, _ARCHIVES):
        prepare.prepare('downloaded', str(tmp_path / 'data'))
    assert removed
    assert (downloads / 'my a.gz').read_bytes() == b'first'
