"""Array files of NumPy as a source of images."""

import os
import struct
import zipfile

import numpy as np
import pytest

from tests.support import own
from trainer.base.errors import UserError
from trainer.data import array_format, labels
from trainer.data.array_file import ArrayFile
from trainer.data.dataset import SPLITS

IMAGES = own.pictures(240)
FLOATS = np.random.RandomState(1).rand(240, 6, 5)


def all_pixels(data):
    return np.concatenate([own.pixels(data, split)[..., 0] for split in SPLITS])


def as_set(images):
    return {image.tobytes() for image in images}


@pytest.mark.parametrize('shape', [(240, 6, 5), (240, 6, 5, 1)])
def test_one_array_is_split_by_number(shape, tmp_path):
    path = own.write_array(tmp_path / 'a.npy', IMAGES.reshape(shape))
    data = own.prepared(path, tmp_path / 'data')
    assert data.image_shape == (6, 5, 1) and data.dtype == 'uint8'
    assert as_set(all_pixels(data)) == as_set(IMAGES)
    assert 180 < data.num_examples['train'] < 220 and 8 < data.num_examples['test'] < 35
    more = own.write_array(tmp_path / 'b.npy', np.concatenate([IMAGES, own.pictures(60, seed=2)]))
    larger = own.prepared(more, tmp_path / 'data')
    for split in SPLITS:  # Adding images moves none.
        assert as_set(own.pixels(data, split)) <= as_set(own.pixels(larger, split))


def test_an_array_sorted_by_class_is_mixed(tmp_path):
    sorted_images = np.repeat(np.arange(10, dtype=np.uint8), 60)[:, None, None] + np.zeros(
        [1, 6, 5], np.uint8
    )
    data = own.prepared(own.write_array(tmp_path / 'a.npy', sorted_images), tmp_path / 'data')
    for split in SPLITS:
        assert len(set(own.pixels(data, split)[:20, 0, 0, 0])) >= 5


@pytest.mark.parametrize('dtype', ['<f4', '<f8', '>f4', '>f8', '<f2'])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_floats_keep_their_precision(dtype, order, tmp_path):
    images = np.array(FLOATS, dtype=dtype, order=order)
    data = own.prepared(own.write_array(tmp_path / 'a.npy', images), tmp_path / 'data')
    assert data.dtype == 'float32'
    assert as_set(all_pixels(data)) == as_set(FLOATS.astype(dtype).astype(np.float32))


def test_bytes_in_fortran_order(tmp_path):
    path = own.write_array(tmp_path / 'a.npy', np.asfortranarray(IMAGES))
    assert as_set(all_pixels(own.prepared(path, tmp_path / 'data'))) == as_set(IMAGES)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_as_keras_has_them(save, tmp_path):
    y = np.arange(240)
    save(
        str(tmp_path / 'a.npz'), x_train=IMAGES[:200], y_train=y[:200], x_test=IMAGES[200:],
        y_test=y[200:],
    )  # fmt: skip
    data = own.prepared(tmp_path / 'a.npz', tmp_path / 'data')
    np.testing.assert_array_equal(own.pixels(data, 'test')[..., 0], IMAGES[200:])
    rest = [own.pixels(data, split)[..., 0] for split in ('train', 'validation')]
    assert as_set(np.concatenate(rest)) == as_set(IMAGES[:200]) and 5 < len(rest[1]) < 40
    found = labels.labels(data, own.params_of('a', tmp_path / 'data'), 5)
    np.testing.assert_array_equal(IMAGES[[int(label) for label in found]], rest[1][:5])
    save(
        str(tmp_path / 'b.npz'), x_train=IMAGES[:100], x_val=IMAGES[100:150], x_test=IMAGES[200:]
    )  # fmt: skip
    data = own.prepared(tmp_path / 'b.npz', tmp_path / 'data')
    assert data.num_examples == {'train': 100, 'validation': 50, 'test': 40}
    np.testing.assert_array_equal(own.pixels(data, 'validation')[..., 0], IMAGES[100:150])


def test_one_array_of_a_npz(tmp_path):
    np.savez(str(tmp_path / 'a.npz'), digits=IMAGES)
    data = own.prepared(tmp_path / 'a.npz', tmp_path / 'data')
    assert as_set(all_pixels(data)) == as_set(IMAGES)


def test_arrays_are_resized_and_change_channels(tmp_path):
    colour = own.pictures(120, (6, 4, 3))
    path = own.write_array(tmp_path / 'a.npy', colour)
    data = own.prepared(path, tmp_path / 'data', image_size='3x2')
    means = np.round(colour.reshape(120, 3, 2, 2, 2, 3).mean((2, 4)))
    assert as_set(np.concatenate([own.pixels(data, split) for split in SPLITS])) == as_set(
        means.astype(np.uint8)
    )
    assert own.prepared(path, tmp_path / 'data', channels='1').image_shape == (6, 4, 1)
    path = own.write_array(tmp_path / 'b.npy', FLOATS)
    data = own.prepared(path, tmp_path / 'data', image_size='3x5', channels='3')
    assert data.image_shape == (3, 5, 3) and data.dtype == 'float32'
    means = FLOATS.astype(np.float32).reshape(240, 3, 2, 5).mean(2)
    found = np.concatenate([own.pixels(data, split)[..., 2] for split in SPLITS])
    np.testing.assert_allclose(np.sort(found.ravel()), np.sort(means.ravel()), atol=1e-6)


def with_value(value):
    images = FLOATS.copy()
    images[17, 2, 3] = value
    return images


def of_objects():
    images = np.empty([120, 6, 5], object)
    images[:] = 3
    return images


BAD = {
    'one': (IMAGES[:1], 'holds 1 images .*too few'),
    'thirty': (IMAGES[:30], 'holds 30 images .*too few'),
    'none': (IMAGES[:0], r'has the shape \(0, 6, 5\)'),
    'flat': (IMAGES.reshape(240, 30), r'has the shape \(240, 30\): give \[n, rows, columns\]'),
    'four channels': (np.zeros([120, 6, 5, 4], np.uint8), r'shape \(120, 6, 5, 4\)'),
    'one number': (np.array(3.0), r'has the shape \(\)'),
    'integers': (IMAGES.astype(int), 'is of int64: give uint8'),
    'truths': (IMAGES > 100, 'true and false: are these black and white.*255 . array.astype'),
    'zeros and ones': (IMAGES // 128, 'no number above 1: are these black and white'),
    'NaN': (with_value(np.nan), 'has nan in image 17, which is no grey level'),
    'above 1': (with_value(1.5), 'has 1.5 in image 17, which is no grey level'),
    'below 0': (with_value(-1), 'has -1 in image 17'),
    'objects': (of_objects(), 'is of object: give uint8'),
    'a long side': (np.zeros([100, 1, 8193], np.uint8), 'a side is longer than 8,192 pixels'),
}


@pytest.mark.parametrize('case', BAD)
def test_what_is_of_no_use_is_refused_in_a_sentence(case, tmp_path):
    images, words = BAD[case]
    path = own.write_array(tmp_path / 'a.npy', images)
    with pytest.raises(UserError, match=words) as error:
        own.prepared(path, tmp_path / 'data')
    assert str(error.value).startswith(f'--source={path}') and '\n' not in str(error.value)
    sources = tmp_path / 'data' / 'sources'
    assert not sources.exists() or os.listdir(str(sources)) == ['.prepare.lock']


@pytest.mark.parametrize('kept', [0, 50, 1000])
def test_a_truncated_file_is_refused(kept, tmp_path):
    np.savez(str(tmp_path / 'a.npz'), x=IMAGES)
    for path in (own.write_array(tmp_path / 'a.npy', IMAGES), str(tmp_path / 'a.npz')):
        os.truncate(path, kept)
        with pytest.raises(UserError, match='cannot be read as arrays'):
            own.prepared(path, tmp_path / 'data')


@pytest.mark.parametrize('order', ['C', 'F'])
def test_a_file_that_is_cut_off_while_it_is_read_is_refused(order, tmp_path, monkeypatch):
    path, blocks = own.write_array(tmp_path / 'a.npy', np.array(IMAGES, order=order)), []

    def cutting(self, name, numbers, block):
        os.truncate(path, 3000)
        blocks.append(block)

    monkeypatch.setattr(array_format, '_BYTES_AT_ONCE', 1000)
    monkeypatch.setattr(ArrayFile, '_check_values', cutting)
    with pytest.raises(UserError, match='^--source=.*/a.npy changed while it was read: start'):
        own.prepared(path, tmp_path / 'data')
    assert len(blocks) == 1
    assert os.listdir(str(tmp_path / 'data' / 'sources')) == ['.prepare.lock']


def test_a_large_member_shows_how_far_it_is_unpacked(tmp_path, monkeypatch, capsys):
    np.savez_compressed(str(tmp_path / 'a.npz'), x=IMAGES)
    own.prepared(tmp_path / 'a.npz', tmp_path / 'small')
    assert 'unpacking' not in capsys.readouterr().err
    monkeypatch.setattr(array_format, '_BYTES_AT_ONCE', 1000)
    own.prepared(tmp_path / 'a.npz', tmp_path / 'large')
    assert 'image 240/240: unpacking x of a.npz, ' in capsys.readouterr().err


def test_a_damaged_member_is_refused(tmp_path):
    path = str(tmp_path / 'a.npz')
    np.savez_compressed(path, x=IMAGES)
    with open(path, 'r+b') as f:
        f.seek(3000)
        f.write(b'x' * 50)
    with pytest.raises(UserError, match='cannot be read as arrays'):
        own.prepared(path, tmp_path / 'data')


@pytest.mark.parametrize(
    'header',
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (240, 6, 5",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-240, 6, 5)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 6, 5)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 6, 5)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 6, 5)}",
        '{[]: 3}',
        '-' * 3000 + '1',
    ],
)
def test_a_header_that_says_something_else_is_refused(header, tmp_path):
    text = header.encode() + b'\n'
    content = b'\x93NUMPY\1\0' + struct.pack('<H', len(text)) + text + IMAGES.tobytes()
    (tmp_path / 'a.npy').write_bytes(content)
    with zipfile.ZipFile(str(tmp_path / 'a.npz'), 'w') as archive:
        archive.writestr('x.npy', content)
    for name in ('a.npy', 'a.npz'):
        with pytest.raises(UserError, match='cannot be read as arrays'):
            own.prepared(tmp_path / name, tmp_path / 'data')


def test_an_encrypted_or_broken_member_is_refused(tmp_path):
    path = tmp_path / 'a.npz'
    array = own.write_array(tmp_path / 'x.npy', IMAGES)
    with zipfile.ZipFile(str(path), 'w', zipfile.ZIP_LZMA) as archive:
        archive.write(array, 'x.npy')
    whole = path.read_bytes()
    broken = whole[:400] + bytes(1000) + whole[1400:]
    listing = whole.rindex(b'PK\1\2') + 8
    encrypted = whole[:6] + b'\1' + whole[7:listing] + b'\1' + whole[listing + 1 :]
    for content in (broken, encrypted):
        path.write_bytes(content)
        with pytest.raises(UserError, match='cannot be read as arrays'):
            own.prepared(path, tmp_path / 'data')


@pytest.mark.parametrize(
    'y, expected',
    [
        ([np.nan] * 40, 'nan'),
        ([b'caf\xe9'] * 40, 'caf\\xe9'),
        ([[7]] * 40, '7'),
        ([1j] * 40, None),
        ([np.datetime64(0, 's')] * 40, None),
        (np.eye(40), None),
    ],
)
def test_labels_of_any_type(y, expected, tmp_path):
    np.savez(
        str(tmp_path / 'a.npz'), x_train=IMAGES[:160], x_validation=IMAGES[160:200],
        x_test=IMAGES[200:], y_validation=np.array(y),
    )  # fmt: skip
    data = own.prepared(tmp_path / 'a.npz', tmp_path / 'data')
    found = labels.labels(data, own.params_of('a', tmp_path / 'data'), 5)
    assert found == (expected and [expected] * 5)


def test_too_few_labels_are_refused(tmp_path):
    np.savez(str(tmp_path / 'a.npz'), x_train=IMAGES, x_test=IMAGES, y_train=np.arange(7))
    with pytest.raises(UserError, match='array y_train. holds 7 labels, and x_train 240 images'):
        own.prepared(tmp_path / 'a.npz', tmp_path / 'data')


def test_arrays_of_other_names_are_listed(tmp_path):
    np.savez(str(tmp_path / 'a.npz'), first=IMAGES, second=IMAGES)
    with pytest.raises(UserError, match='holds the arrays first, second: give x_train and x_test'):
        own.prepared(tmp_path / 'a.npz', tmp_path / 'data')
    np.savez(str(tmp_path / 'b.npz'), x_train=IMAGES, x_test=FLOATS)
    with pytest.raises(UserError, match='several sizes or types in x_'):
        own.prepared(tmp_path / 'b.npz', tmp_path / 'data')


def test_nothing_is_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'made'),)

    for name, save in (('a.npy', np.save), ('a.npz', np.savez)):
        save(str(tmp_path / name), np.array([Harmful()] * 120, object))
        with pytest.raises(UserError):
            own.prepared(tmp_path / name, tmp_path / 'data')
    assert not (tmp_path / 'made').exists()


def anonymous_bytes():
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith('RssAnon'))


def test_a_large_array_is_not_held_in_memory(tmp_path, monkeypatch):
    """20,000 images of 16 MB."""
    path, peak, usual = str(tmp_path / 'a.npy'), [], ArrayFile._check_values
    array = np.lib.format.open_memmap(path, 'w+', dtype=np.uint8, shape=(20000, 28, 28))
    array[:] = np.arange(20000)[:, None, None] % 251
    del array
    monkeypatch.setattr(array_format, '_BYTES_AT_ONCE', 1 << 20)

    def measuring(self, *args):
        peak.append(anonymous_bytes())
        usual(self, *args)

    monkeypatch.setattr(ArrayFile, '_check_values', measuring)
    before = anonymous_bytes()
    data = own.prepared(path, tmp_path / 'data')
    assert sum(data.num_examples.values()) == 20000
    assert len(peak) > 10 and max(peak) - before < 8 << 20
