"""Folders of image files as a source of images."""

import os
import struct
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.support import own
from trainer.base.errors import UserError
from trainer.data.dataset import SPLITS


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'pictures'


def found_in(data):
    """The split of each image, by its bytes."""
    return {image.tobytes(): split for split in SPLITS for image in own.pixels(data, split)}


def test_images_in_any_depth_are_split_by_their_paths(folder, tmp_path, capsys):
    images = own.pictures(360)
    own.write_folder(folder, images[:120])
    own.write_folder(folder, images[120:240], 'below/{}.BMP')
    own.write_folder(folder, images[240:], 'be/low/{}.gif')
    for name in ('.hidden.png', 'notes.txt', 'below/Thumbs.db'):
        (folder / name).write_bytes(b'x')
    data = own.prepared(folder, tmp_path / 'data')
    assert data.image_shape == (6, 5, 1)
    assert data.num_examples == {split: len(own.pixels(data, split)) for split in SPLITS}
    assert sum(data.num_examples.values()) == 360
    assert 280 < data.num_examples['train'] < 320 and 18 < data.num_examples['test'] < 42
    assert set(found_in(data)) == {image.tobytes() for image in images}
    said = capsys.readouterr().err
    assert 'left out what is no image: .hidden.png, below/Thumbs.db, notes.txt.' in said


def test_adding_files_moves_none(folder, tmp_path):
    images = own.pictures(300)
    before = found_in(own.prepared(own.write_folder(folder, images[:200]), tmp_path / 'data'))
    own.write_folder(folder, images[200:], 'a/{}.png')
    after = found_in(own.prepared(folder, tmp_path / 'data'))
    assert len(after) == 300 and before == {image: after[image] for image in before}


def test_images_of_classes_are_mixed(folder, tmp_path):
    """Else all pictures of the first validation images would be of one class."""
    dark, light = np.full([200, 6, 5], 10, np.uint8), np.full([200, 6, 5], 240, np.uint8)
    own.write_folder(folder, dark, 'a/{}.png')
    own.write_folder(folder, light, 'b/{}.png')
    data = own.prepared(folder, tmp_path / 'data')
    for split in SPLITS:
        first = own.pixels(data, split)[:12].mean((1, 2, 3))
        assert set(first) == {10, 240}


@pytest.mark.parametrize('names', [('train', 'test'), SPLITS, ('train',)])
def test_folders_of_splits(names, folder, tmp_path, capsys):
    images = own.pictures(480)
    for number, split in enumerate(names):
        own.write_folder(folder, images[160 * number :][:160], split + '/{}.png')
    own.write_folder(folder, own.pictures(1, seed=4), 'other/{}.png')
    data = own.prepared(folder, tmp_path / 'data')
    found = found_in(data)
    for number, split in enumerate(names):
        splits = {found[image.tobytes()] for image in images[160 * number :][:160]}
        missing = set(SPLITS) - set(names) if split == 'train' else set()
        assert splits == {split, *missing}
    assert sum(data.num_examples.values()) == 160 * len(names)
    assert 'left out what is no image: other/0.png.' in capsys.readouterr().err


def test_colour_is_kept_where_there_is_some(folder, tmp_path):
    grey = own.pictures(120)
    own.write_folder(folder, grey)
    coloured = own.pictures(1, (6, 5, 3))
    own.write_folder(folder, coloured, 'z{}.png')
    data = own.prepared(folder, tmp_path / 'data')
    assert data.image_shape == (6, 5, 3)
    assert set(found_in(data)) == {
        image.tobytes() for image in [*np.stack([grey] * 3, -1), *coloured]
    }
    assert own.prepared(folder, tmp_path / 'data', channels='1').image_shape == (6, 5, 1)
    os.remove(str(folder / 'z0.png'))
    assert own.prepared(folder, tmp_path / 'data', channels='3').image_shape == (6, 5, 3)


def test_all_sizes_become_one(folder, tmp_path):
    for number in range(120):
        shape = (6 + 2 * (number % 3), 4 + 2 * (number % 2))
        own.write_folder(folder, own.pictures(1, shape, number), f'{number}_{{}}.png')
    for fit in ('stretch', 'pad'):
        data = own.prepared(folder, tmp_path / 'data', image_size='3x2', fit=fit)
        assert data.image_shape == (3, 2, 1)
    whole = own.pictures(1, (6, 4), 0)[0].astype(float)
    expected = np.round(whole.reshape(3, 2, 2, 2).mean((1, 3)))
    assert expected.astype(np.uint8).tobytes() in found_in(
        own.prepared(folder, tmp_path / 'data', image_size='3x2')
    )


def of_many(folder, count=120):
    return own.write_folder(folder, own.pictures(count))


def broken(folder):
    of_many(folder)
    for number in range(0, 120, 10):
        path = folder / f'{number}.png'
        path.write_bytes(path.read_bytes()[:40])


def of_two_sizes(folder):
    of_many(folder)
    own.write_folder(folder, own.pictures(1, (7, 5)), 'z{}.png')


def of_a_billion_pixels(folder):
    of_many(folder)
    content = (folder / '0.png').read_bytes()
    (folder / '0.png').write_bytes(content[:16] + b'\0\1\0\0\0\1\0\0' + content[24:])


def of_billions_in_bmp_and_gif(folder):
    own.write_folder(of_many(folder), own.pictures(1), 'z{}.bmp')
    own.write_folder(folder, own.pictures(1), 'z{}.gif')
    for name, at, packed in (('z0.bmp', 18, '<ii'), ('z0.gif', 6, '<HH')):
        content = (folder / name).read_bytes()
        size = struct.pack(packed, 60000, 60000)
        (folder / name).write_bytes(content[:at] + size + content[at + len(size) :])


def with_a_strange_name(folder):
    own.write_folder(of_many(folder), own.pictures(1), 'a\nb\x1b[31m{}.png')
    (folder / 'a\nb\x1b[31m0.png').write_bytes(b'')


def of_many_bytes(folder):
    of_many(folder)
    os.truncate(str(folder / '0.png'), 1 << 30)


BAD = {
    'empty': (lambda folder: folder.mkdir(), 'holds 0 images .*too few'),
    'one': (lambda folder: of_many(folder, 1), 'holds 1 images .*too few: give 100 or more'),
    'thirty': (lambda folder: of_many(folder, 30), 'holds 30 images .*too few'),
    'broken': (
        broken,
        r'12 of 120 files cannot be read as images: .*png \(.*\), .* and 7 more. Mend them or '
        'take them away',
    ),
    'two sizes': (
        of_two_sizes,
        r'several sizes \(.*6x5.*7x5.*\)|several sizes \(.*7x5.*6x5.*\): give .*--image_size',
    ),
    'bombs': (of_billions_in_bmp_and_gif, r'2 of 122 .*longer .*longer than 8,192'),
    'a strange name': (with_a_strange_name, r"'a\\nb\\x1b\[31m0.png' \(it is empty\)"),
    'many bytes': (of_many_bytes, r'0.png \(it has more than 536,870,912 bytes\)'),
    'a bomb': (of_a_billion_pixels, r'0.png \(a side is longer than 8,192 pixels\)'),
}


@pytest.mark.parametrize('case', BAD)
def test_what_is_of_no_use_is_refused_in_a_sentence(case, folder, tmp_path):
    make, words = BAD[case]
    make(folder)
    with pytest.raises(UserError, match=words) as error:
        own.prepared(folder, tmp_path / 'data')
    assert str(error.value).startswith(f'--source={folder}') and '\n' not in str(error.value)
    sources = tmp_path / 'data' / 'sources'
    assert not sources.exists() or os.listdir(str(sources)) == ['.prepare.lock']


def test_links(folder, tmp_path):
    """A circle is entered once, as is a folder with two names; a link to nowhere is named."""
    of_many(tmp_path / 'elsewhere')
    (folder / 'below').mkdir(parents=True)
    (folder / 'below' / 'up').symlink_to(folder)
    (folder / 'first').symlink_to(tmp_path / 'elsewhere')
    (folder / 'second').symlink_to(tmp_path / 'elsewhere')
    data = own.prepared(folder, tmp_path / 'data')
    assert sum(data.num_examples.values()) == 120
    (folder / 'nowhere.png').symlink_to(tmp_path / 'missing')
    with pytest.raises(UserError, match='nowhere.png cannot be read .No such file'):
        own.prepared(folder, tmp_path / 'data')


def test_what_is_no_regular_file_is_never_opened(folder, tmp_path, capsys):
    of_many(folder)
    os.mkfifo(str(folder / 'pipe.png'))
    (folder / 'device.png').symlink_to('/dev/zero')
    assert sum(own.prepared(folder, tmp_path / 'data').num_examples.values()) == 120
    assert 'left out what is no image: device.png, pipe.png.' in capsys.readouterr().err
    os.mkfifo(str(tmp_path / 'a.npy'))
    with pytest.raises(UserError, match='neither a folder nor a file that ends in .npy'):
        own.prepared(tmp_path / 'a.npy', tmp_path / 'data')


def test_folders_may_lie_deep(folder, tmp_path, monkeypatch):
    of_many(folder)
    monkeypatch.chdir(folder)
    try:
        for _ in range(1100):
            os.mkdir('d')
            os.chdir('d')
        os.rename(str(folder / '0.png'), '0.png')
        assert sum(own.prepared(folder, tmp_path / 'data').num_examples.values()) == 120
    finally:  # Python's own removal of trees, by which pytest goes, is recursive.
        subprocess.run(['rm', '-rf', str(folder)], check=True)


def test_an_image_may_have_any_name(folder, tmp_path):
    images = own.pictures(120)
    for number, image in enumerate(images):
        own.write_folder(folder, image[None], f'[{number}] * ä \udc80{{}}.png')
    data = own.prepared(folder, tmp_path / 'data')
    assert set(found_in(data)) == {image.tobytes() for image in images}


def test_a_source_that_is_none(tmp_path):
    (tmp_path / 'notes.txt').write_text('x')
    Image.fromarray(own.pictures(1)[0]).save(str(tmp_path / 'a.png'))
    cases = {
        'missing': 'there is no such file or folder',
        'notes.txt': 'neither a folder nor a file that ends in .npy or .npz',
        'a.png': 'neither a folder nor a file that ends in .npy or .npz',
        'gs://bucket/pictures': 'local disks alone',
    }
    for name, words in cases.items():
        path = name if '://' in name else str(tmp_path / name)
        with pytest.raises(UserError, match=f'--source={path}.*{words}'):
            own.prepared(path, tmp_path / 'data')
