"""Scores of models of other kinds: binary images, own images that are resized, sampled bounds."""

import numpy as np
import pytest
from PIL import Image

from tests.scoring.test_predict_source import column, read
from tests.support import own, serving_models
from trainer.data import inputs
from trainer.evaluation import importance_sampling
from trainer.evaluation.importance_sampling import ImportanceSampler
from trainer.evaluation.scores import model_of

pytestmark = pytest.mark.slow
ROWS, COLUMNS = serving_models.GREY[:2]


@pytest.fixture
def scores(tmp_path, ask):
    """The scores of a source by an export."""

    def scored(source, export_dir):
        ask(source=source, export_dir=export_dir, output=tmp_path / 'out', threshold='0.9')
        rows = read(tmp_path / 'out')[1]
        return dict(zip([row['id'] for row in rows], column(rows, 'negative_elbo')))

    return scored


def test_a_binary_model_cuts_grey_levels_of_arrays_as_of_files(tmp_path, scores):
    export = serving_models.write_export(tmp_path / 'run', binarization='dynamic')[0]
    pixels = own.pictures(6, (ROWS, COLUMNS))
    pixels[0, 0, :3] = [127, 128, 129]
    files = scores(own.write_folder(tmp_path / 'pictures', pixels), export)
    wanted = [files[f'{number}.png'] for number in range(6)]
    cut = (pixels >= 128).astype(np.uint8)
    for images in (pixels, pixels / 255.0, cut, 255 * cut, cut.astype(np.float32)):
        found = scores(own.write_array(tmp_path / 'x.npy', images), export)
        np.testing.assert_allclose(list(found.values()), wanted, rtol=1e-6)


@pytest.mark.parametrize('channels', [1, 3])
def test_arrays_are_resized_where_the_training_images_were(channels, tmp_path, scores):
    shape = (ROWS, COLUMNS, channels)
    export = serving_models.write_export(
        tmp_path / 'run', shape, dataset='', source='pictures', source_digest='0' * 16,
        image_size=f'{ROWS}x{COLUMNS}', fit='pad', channels=str(channels),
    )[0]  # fmt: skip
    pixels = own.pictures(3, (15, 9, 3))
    files = scores(own.write_folder(tmp_path / 'pictures', pixels), export)
    found = scores(own.write_array(tmp_path / 'x.npy', pixels), export)
    np.testing.assert_allclose(list(found.values()), list(files.values()), rtol=1e-6)
    floats = scores(own.write_array(tmp_path / 'x.npy', pixels / 255.0), export)
    np.testing.assert_allclose(list(floats.values()), list(files.values()), rtol=1e-2)


def test_bounds_are_those_of_an_evaluation_and_quantiles_of_the_validation_images(
    tmp_path,
    ask,
    capsys,
):
    pictures = own.write_folder(tmp_path / 'pictures', own.pictures(150, (ROWS, COLUMNS)))
    data = own.prepared(pictures, tmp_path / 'data', channels='1')
    checkpoint, params = serving_models.write_model(
        tmp_path / 'run', data.image_shape, dataset='', source=pictures, channels='1',
        source_digest=data.digest, data_dir=str(tmp_path / 'data'),
    )  # fmt: skip
    of_validation = own.pixels(data, 'validation')
    count = len(of_validation)
    sampler = ImportanceSampler(
        model_of(checkpoint, params),
        lambda: inputs.eval_input_fn(data, 'validation', 100, 'none'),
        samples=3,
        seed=importance_sampling.SEED,
        threads=1,
    )
    wanted = -np.array([row[0] for row in sampler.rows()])

    folder = own.write_folder(tmp_path / 'new', of_validation[..., 0], '{:03}.png')
    Image.new('L', (COLUMNS, ROWS + 1)).save(folder + '/bad.png')
    array = own.write_array(tmp_path / 'x.npy', of_validation)
    for source in (array, folder):
        values = {'samples': 3, 'model_dir': tmp_path / 'run', 'output': tmp_path / 'out'}
        if source == folder:
            with pytest.raises(Exception, match=r'bad\.png: .*images of 8 x 12 pixels'):
                ask(source=source, threshold='0.5', **values)
        else:
            ask(source=source, threshold='0.5', **values)
        comment, rows = read(tmp_path / 'out')
        assert f'{count} validation images of pictures, with 3 samples' in comment
        assert list(rows[0])[:2] == ['id', 'negative_importance_weighted_bound']
        bounds = column(rows, 'negative_importance_weighted_bound')
        np.testing.assert_allclose(bounds, wanted, rtol=1e-5)
        ranks = np.argsort(np.argsort(wanted))
        # An image and itself may differ in the last bit.
        quantiles = column(rows, 'quantile')
        np.testing.assert_allclose(quantiles, ranks / (count + 1), atol=1.01 / (count + 1))
        assert [row['is_unusual'] for row in rows] == [str(one) for one in quantiles >= 0.5]
