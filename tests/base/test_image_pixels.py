"""What an image file becomes, compared with Pillow and NumPy."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.base import image_files, image_pixels

RANDOM = np.random.RandomState(3)
RGB = RANDOM.randint(0, 256, [6, 8, 3]).astype(np.uint8)
RGBA = RANDOM.randint(0, 256, [6, 8, 4]).astype(np.uint8)
GREY = RANDOM.randint(0, 256, [6, 8]).astype(np.uint8)


def encoded(image, kind, **options):
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        content, kind, **options
    )
    return content.getvalue()


@pytest.fixture(scope='module')
def decode():
    """Decodes a file to 1 or 3 channels."""
    with tf.Graph().as_default(), tf.Session() as session:
        content = tf.placeholder(tf.string, [])
        pixels = {channels: image_pixels.of_file(content, channels) for channels in (1, 3)}
        yield lambda data, channels=3: session.run(
            pixels[channels], {content: image_pixels.as_png(data)}
        )


def luma(rgb):
    return np.floor(rgb.astype(np.int64) @ [299, 587, 114] / 1000 + 0.5)


def on_white(rgba):
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    return np.round(colour * alpha + 255 * (1 - alpha))


def test_colours_are_kept_or_become_grey_levels(decode):
    for kind in ('PNG', 'BMP'):
        content = encoded(RGB, kind)
        np.testing.assert_array_equal(decode(content), RGB)
        np.testing.assert_array_equal(decode(content, 1)[..., 0], luma(RGB))


def test_grey_levels_stay_as_they_are_in_every_format(decode):
    for kind in ('PNG', 'BMP', 'GIF'):
        np.testing.assert_array_equal(decode(encoded(GREY, kind), 1)[..., 0], GREY)
        np.testing.assert_array_equal(decode(encoded(GREY, kind)), np.stack([GREY] * 3, -1))


@pytest.mark.parametrize('mode', ['1', 'P', 'LA', 'RGBA', 'I;16'])
def test_kinds_of_png(decode, mode):
    if mode == 'I;16':
        image, expected = Image.fromarray(GREY.astype(np.uint16) * 256 + 77), GREY[..., None]
    else:
        image = Image.fromarray(RGBA).convert(mode)
        expected = on_white(np.asarray(image.convert('RGBA')))
    np.testing.assert_array_equal(decode(encoded(image, 'PNG')), expected + np.zeros([1, 1, 3]))


@pytest.mark.parametrize('colours, bits', [(2, 1), (4, 2), (16, 4), (200, 8)])
def test_a_palette_with_a_transparent_colour(decode, colours, bits):
    image = Image.fromarray(RGB).quantize(colours)
    opaque = np.asarray(image.convert('RGB'))
    np.testing.assert_array_equal(decode(encoded(image, 'PNG', bits=bits)), opaque)
    expected = np.where(np.asarray(image)[..., None] == 1, 255, opaque)
    for kind, options in (('PNG', {'bits': bits}), ('GIF', {})):
        content = encoded(image, kind, transparency=1, **options)
        np.testing.assert_array_equal(decode(content), expected)


def test_jpeg_is_decoded_as_by_pillow(decode):
    for image in (GREY, RGB, Image.fromarray(RGB).convert('CMYK')):
        content = encoded(image, 'JPEG', quality=95, subsampling=0)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGB')).astype(float)
        assert np.abs(decode(content) - expected).max() <= 10  # Of two inverse cosine transforms.


def test_of_moving_pictures_the_first_counts(decode):
    pictures = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    content = encoded(pictures[0], 'GIF', save_all=True, append_images=pictures[1:])
    np.testing.assert_array_equal(decode(content, 1)[..., 0], GREY)


def test_broken_files_are_refused(decode):
    for kind in ('BMP', 'GIF'):
        content = encoded(GREY, kind)
        for broken in (content[: len(content) // 2], content[:6]):
            with pytest.raises((OSError, ValueError)):
                image_pixels.as_png(broken)
    for kind in ('PNG', 'JPEG'):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(encoded(RGB, kind)[:-30])


def test_sizes_are_known_from_headers():
    size = GREY.shape
    for kind in ('PNG', 'JPEG', 'GIF', 'BMP'):
        assert image_files.claimed_size(encoded(GREY, kind)) == size
    bmp, jpeg = encoded(GREY, 'BMP'), encoded(GREY, 'JPEG')
    assert image_files.claimed_size(bmp[:22] + struct.pack('<i', -60000) + bmp[26:])[0] == 60000
    of_os2 = bmp[:14] + struct.pack('<IHHHH', 12, size[1], size[0], 1, 8)
    assert image_files.claimed_size(of_os2) == size
    gap = jpeg.index(b'\xff\xc0')
    assert image_files.claimed_size(jpeg[:gap] + b'\xff\xff' + jpeg[gap:]) == size
    assert image_files.claimed_size(b'\xff\xd8' + bytes(1 << 20)) == (0, 0)


def test_a_bomb_is_refused():
    for kind, at, order in (('BMP', 18, '<ii'), ('GIF', 6, '<HH')):
        content, size = encoded(GREY, kind), struct.pack(order, 60000, 60000)
        with pytest.raises(ValueError, match='decompression bomb'):
            image_pixels.as_png(content[:at] + size + content[at + len(size) :])


def fitted(images, size, fit='stretch'):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(image_pixels.fitted(tf.constant(images), size, fit))


def areas(image, rows, columns):
    """The mean of the area that each new pixel covers, by every pixel 60 x 60 times."""
    fine = np.repeat(np.repeat(image.astype(float), 60, 0), 60, 1)
    blocks = fine.reshape(rows, fine.shape[0] // rows, columns, fine.shape[1] // columns, -1)
    return blocks.mean((1, 3))


@pytest.mark.parametrize('size', [(6, 8), (3, 4), (4, 5), (12, 20), (1, 1)])
def test_resizing_takes_the_mean_of_areas(size):
    expected = areas(RGB, *size)
    assert np.abs(fitted(RGB[None], size)[0] - expected).max() <= 0.5 + 1e-3
    floats = fitted(RGB[None] / np.float32(255), size)[0]
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, expected / 255, atol=2e-6)


@pytest.mark.parametrize(
    'size, inner', [((8, 8), (6, 8)), ((3, 9), (3, 4)), ((12, 12), (9, 12)), ((6, 2), (2, 2))]
)
def test_padding_keeps_the_ratio_and_adds_white(size, inner):
    for images in (RGB[None], RGB[None] / np.float32(255)):
        white = 255 if images.dtype == np.uint8 else 1
        result = fitted(images, size, 'pad')[0]
        assert result.shape == (*size, 3)
        top, left = [(whole - part) // 2 for whole, part in zip(size, inner)]
        bottom, right = top + inner[0], left + inner[1]
        np.testing.assert_array_equal(result[top:bottom, left:right], fitted(images, inner)[0])
        around = np.ones(size, bool)
        around[top:bottom, left:right] = False
        assert (result[around] == white).all() and around.any()


def test_arrays_change_their_channels():
    with tf.Graph().as_default(), tf.Session() as session:

        def changed(pixels, channels):
            return session.run(image_pixels.with_channels(tf.constant(pixels), channels))

        np.testing.assert_array_equal(changed(RGB, 1)[..., 0], luma(RGB))
        floats = changed(RGB / np.float32(255), 1)[..., 0]
        np.testing.assert_allclose(floats, RGB @ [0.299, 0.587, 0.114] / 255, atol=1e-6)
        np.testing.assert_array_equal(changed(GREY[..., None], 3), np.stack([GREY] * 3, -1))
