"""Models of a user's own images: the served graph decodes a file as the preparation did."""

import os

import numpy as np
import pytest
import tensorflow as tf

from scripts.clients import in_tensorflow_1
from tests.support import own, serving_models
from trainer.data.dataset import SPLITS

ROWS, COLUMNS = serving_models.GREY[:2]
FIT = {'stretch': (14, 9), 'pad': (5, 30)}


def write_pictures(folder, fit):
    """Transparent pictures of two sizes; or of the model's size, where nothing is resized."""
    shapes = [FIT[fit], (ROWS, COLUMNS)] if fit else [(ROWS, COLUMNS)]
    for number in range(120):
        shape = (*shapes[number % len(shapes)], 4)
        own.write_folder(folder, own.pictures(1, shape, number), f'{number}_{{}}.png')
    return folder


@pytest.mark.parametrize(
    'fit, channels',
    [('stretch', 3)]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in [('', 1), ('pad', 1)]],
)
def test_a_file_gives_the_pixels_that_were_prepared_of_it(fit, channels, tmp_path):
    pictures = write_pictures(tmp_path / 'pictures', fit)
    settings = {'channels': str(channels)}
    if fit:
        settings.update(image_size=f'{ROWS}x{COLUMNS}', fit=fit)
    data = own.prepared(pictures, tmp_path / 'data', **settings)
    pixels = np.concatenate([own.pixels(data, split) for split in SPLITS])
    export, _, params = serving_models.write_export(
        tmp_path, data.image_shape, dataset='', source=str(pictures), source_digest=data.digest,
        **settings,
    )  # fmt: skip
    with open(os.path.join(export, 'assets.extra', 'README.md')) as f:
        card = ' '.join(f.read().split())
    assert 'Transparent pixels are put on white.' in card
    assert ('stretched to the size' in card, 'padded with white' in card) == (
        fit == 'stretch', fit == 'pad',
    )  # fmt: skip
    ask = in_tensorflow_1.raw_session(export)
    images = (pixels / np.float32(255)).reshape([len(pixels), *params.served_shape])
    expected = ask['serving_default']({'images': images})
    files = [(pictures / name).read_bytes() for name in sorted(os.listdir(str(pictures)))]
    found = ask['reconstruct_png']({'image_bytes': np.array(files, object)})
    for name in ('reconstruction_loss', 'kl_divergence'):
        # Nearer than one grey level of one pixel, which is 3e-5 of the loss.
        np.testing.assert_allclose(np.sort(found[name]), np.sort(expected[name]), rtol=1e-6)


@pytest.mark.slow
def test_another_size_is_refused_where_nothing_is_resized(tmp_path):
    export = serving_models.write_export(
        tmp_path, dataset='', source='pictures', source_digest='0' * 16
    )[0]
    other = own.write_folder(tmp_path / 'pictures', own.pictures(1, (ROWS, COLUMNS + 1)))
    with open(other + '/0.png', 'rb') as f:
        content = f.read()
    ask = in_tensorflow_1.raw_session(export)['reconstruct_png']
    with pytest.raises(tf.errors.InvalidArgumentError, match='images of 8 x 12 pixels'):
        ask({'image_bytes': np.array([content], object)})
