"""Image files in the served graph, and models of binary images: right answers, and refusals."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from scripts.clients import in_tensorflow_1
from tests.serving.test_serving import without_asserts
from tests.support import serving_models
from trainer.serving import verify_export

ROWS, COLUMNS = serving_models.GREY[:2]
LEVEL = 200  # A 1 for the model, which is of binary images.


@pytest.fixture(scope='module')
def binary_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('binary')
    return serving_models.write_export(folder, binarization='dynamic')[0]


@pytest.fixture(scope='module')
def binary(binary_dir):
    return in_tensorflow_1.raw_session(binary_dir)


def encoded(image, kind='PNG', **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def picture(mode, alpha):
    """An image of one grey level, of which a single pixel has that alpha."""
    image = Image.new('RGBA', (COLUMNS, ROWS), (LEVEL, LEVEL, LEVEL, 255))
    image.putpixel((3, 2), (LEVEL, LEVEL, LEVEL, alpha))
    return image.convert(mode)


def with_palette(number=1):
    """Palette colours, as programs write them that make files small; all pixels have one."""
    image = Image.new('P', (COLUMNS, ROWS), number)
    image.putpalette([0, 0, 0] * number + [LEVEL] * 3)
    return image


TRANSPARENT = {
    'RGBA': lambda: encoded(picture('RGBA', 0)),
    'RGBA, nearly opaque': lambda: encoded(picture('RGBA', 254)),
    'grey with alpha': lambda: encoded(picture('LA', 128)),
    'palette': lambda: encoded(with_palette(), transparency=1),
    'palette of 8 bits': lambda: encoded(with_palette(255), transparency=bytes([200] * 256)),
    'one grey level': lambda: encoded(picture('L', 255), transparency=LEVEL),
    'one colour': lambda: encoded(picture('RGB', 255), transparency=(LEVEL,) * 3),
}
OPAQUE = {
    'RGBA': lambda: encoded(picture('RGBA', 255)),
    'grey with alpha': lambda: encoded(picture('LA', 255)),
    'palette of 1 bit': lambda: encoded(with_palette()),
    'palette of 2 bits': lambda: encoded(with_palette(3)),
    'palette of 4 bits': lambda: encoded(with_palette(9)),
    'palette of 8 bits': lambda: encoded(with_palette(255)),
    'unused transparent colour of the palette': lambda: encoded(with_palette(), transparency=0),
    'grey': lambda: encoded(picture('L', 255)),
    'JPEG': lambda: encoded(picture('RGB', 255), 'JPEG', quality=100),
}


@pytest.mark.parametrize('kind', sorted(TRANSPARENT))
def test_transparent_pixels_are_refused(binary, kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match='without transparent pixels: put'):
        binary['reconstruct_png']({'image_bytes': [TRANSPARENT[kind]()]})


def test_opaque_files_of_every_kind_are_the_same_image(binary):
    contents = [OPAQUE[kind]() for kind in sorted(OPAQUE)]
    answer = binary['reconstruct_png']({'image_bytes': contents})
    image = np.ones([1, ROWS, COLUMNS], np.float32)
    expected = binary['reconstruct']({'images': image})
    for name, value in expected.items():
        for number, kind in enumerate(sorted(OPAQUE)):
            np.testing.assert_allclose(
                answer[name][number], value[0], rtol=1e-4, atol=1e-5, err_msg=kind
            )


def test_files_of_one_bit_are_read(binary):
    image = Image.new('1', (COLUMNS, ROWS), 1)
    mean = binary['reconstruct_png']({'image_bytes': [encoded(image)]})['mean']
    expected = binary['encode']({'images': np.ones([1, ROWS, COLUMNS])})['mean']
    np.testing.assert_allclose(mean, expected, rtol=1e-4)


@pytest.mark.parametrize('kind', ['GIF', 'BMP', 'WEBP', 'nothing'])
def test_other_files_are_refused_by_what_is_wanted(binary, kind):
    content = b'' if kind == 'nothing' else encoded(picture('RGB', 255), kind)
    with pytest.raises(tf.errors.InvalidArgumentError, match='must hold PNG or JPEG files'):
        binary['reconstruct_png']({'image_bytes': [content]})


def test_one_file_without_a_list_is_refused_in_the_graph(binary_dir):
    """As in TF Serving: Python's own check of what it feeds is left out, by another placeholder."""
    with tf.Graph().as_default(), tf.Session() as session:
        anything = tf.placeholder(tf.string, None)
        typed = tf.placeholder_with_default(anything, None)
        typed.set_shape([None])  # What the static shape says, and what the optimiser sees.
        model = tf.saved_model.load(
            session, [tf.saved_model.SERVING], binary_dir, input_map={'image_bytes:0': typed}
        )
        mean = model.signature_def['reconstruct_png'].outputs['mean'].name
        content = OPAQUE['grey']()
        assert session.run(mean, {anything: [content]}).shape == (1, 3)
        for wrong in (content, [[content]]):
            with pytest.raises(tf.errors.InvalidArgumentError) as error:
                session.run(mean, {anything: wrong})
            assert 'image_bytes must have the shape [n]' in error.value.message


# Models of binary images.


@pytest.mark.parametrize('signature', ['encode', 'reconstruct', 'interpolate'])
@pytest.mark.parametrize('value', [0.5, 1e-30, 0.9999999, np.nan])
def test_models_of_binary_images_refuse_levels_between(binary, signature, value):
    images = np.zeros([2, ROWS, COLUMNS], np.float32)
    images[0, 0, 0] = 1.0
    inputs = {'images': images}
    if signature == 'interpolate':
        inputs['steps'] = 3
    assert all(np.all(np.isfinite(output)) for output in binary[signature](inputs).values())
    images[1, 2, 3] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match='images must hold 0 and 1 alone'):
        binary[signature](inputs)


def test_without_asserts_a_level_between_is_nan_in_every_output(binary_dir, binary):
    images = np.zeros([6, ROWS, COLUMNS], np.float32)
    images[:, 1, 1] = 1.0
    good = binary['encode']({'images': images})
    images[1:5, 2, 3] = [0.5, 2.0, np.nan, -np.inf]
    for name, answer in without_asserts(binary_dir, 'encode')(images).items():
        assert np.all(np.isnan(answer[1:5])), name
        np.testing.assert_allclose(answer[[0, 5]], good[name][[0, 5]], rtol=1e-6)


def test_models_of_binary_images_cut_image_files_at_level_128(binary):
    levels = np.full([ROWS, COLUMNS], 127, np.uint8)
    levels[:4] = 128
    levels[4:6] = [[1], [255]]
    files = [encoded(Image.fromarray(levels)), encoded(Image.fromarray(255 * (levels // 128)))]
    answer = binary['reconstruct_png']({'image_bytes': files})
    images = np.zeros([1, ROWS, COLUMNS], np.float32)
    images[:, :4] = 1.0
    images[:, 5] = 1.0
    for name, expected in binary['reconstruct']({'images': images}).items():
        np.testing.assert_allclose(answer[name], np.repeat(expected, 2, axis=0), rtol=1e-4)


def test_golden_inputs_and_card_of_a_model_of_binary_images(binary_dir, binary):
    extra = os.path.join(binary_dir, 'assets.extra')
    golden = verify_export.read_golden(os.path.join(extra, 'golden.npz'))
    images = golden['encode']['inputs']['images']
    assert set(images.ravel()) == {0.0, 1.0}
    for name, example in golden.items():
        assert 'error' not in verify_export.check(binary[name], example, 1e-4), name
    with open(os.path.join(extra, 'README.md')) as f:
        card = f.read()
    assert 'pixels are 0 or 1, other values are refused' in card
    assert 'levels of 128 and more are 1' in card
