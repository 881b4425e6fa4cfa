"""`score` and `explain` against NumPy and PREDICT, and what stands beside them in an export."""

import json
import os

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from scripts.clients import in_tensorflow_1, reference
from tests.support import serving_models
from trainer.base import image_files
from trainer.model.likelihoods import Bernoulli
from trainer.serving import saved_model, thresholds
from trainer.serving.saved_model import Options
from trainer.serving.thresholds import ValidationImages

_LOSSES = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
MODELS = {
    'grey': {},
    'colour': {'image_shape': serving_models.COLOUR},
    'binary': {'binarization': 'dynamic'},
    'density': {'likelihood': 'continuous_bernoulli'},
    'normal': {'likelihood': 'normal', 'normal_scale': 0.2},
    'flow': {'prior': 'flow'},
    'vamp': {'prior': 'vamp', 'prior_components': 4},
}


@pytest.fixture(
    name='model',
    scope='module',
    params=[name if name == 'grey' else pytest.param(name, marks=pytest.mark.slow)
            for name in MODELS],
)  # fmt: skip
def _model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    export_dir, checkpoint_path, params = serving_models.write_export(
        folder, **MODELS[request.param]
    )
    return in_tensorflow_1.raw_session(export_dir), export_dir, checkpoint_path, params


def test_scores_and_quantiles_are_those_of_predict_and_of_counting(model):
    calls, export_dir, checkpoint_path, params = model
    images = serving_models.images_of(params, 7)
    scored = calls['score']({'images': images})
    assert set(scored) == {*_LOSSES, 'quantile'}

    by_row = [params.rows, params.row_features]
    of_new = reference.predicted([images.reshape([7, *by_row])], checkpoint_path, params)
    validation = serving_models.validation_of(params).batches()
    of_validation = reference.predicted(validation, checkpoint_path, params)['negative_elbo']
    for name in _LOSSES:
        np.testing.assert_allclose(scored[name], of_new[name], rtol=1e-5, err_msg=name)
    below = [np.sum(of_validation < score) for score in of_new['negative_elbo']]
    assert len(set(below)) > 1
    count = serving_models.NUM_VALIDATION
    np.testing.assert_allclose(scored['quantile'], np.array(below) / (count + 1), atol=1e-6)

    stored = np.load(os.path.join(export_dir, 'assets.extra', 'validation_scores.npy'))
    np.testing.assert_allclose(stored, np.sort(of_validation), rtol=1e-5)
    record = thresholds.of_export(export_dir)
    assert (record['images'], record['images_in_split']) == (count, 2 * count)
    assert record['quantiles'][1]['nats'] == stored[-(-9 * (count + 1) // 10) - 1]


def test_the_nats_of_all_pixels_are_the_reconstruction_loss(model):
    calls, _, checkpoint_path, params = model
    images = serving_models.images_of(params, 7)
    explained, loss = calls['explain']({'images': images}), calls['score']({'images': images})
    nats, excess = explained['nats_by_pixel'], explained['excess_by_pixel']
    assert nats.shape == excess.shape == explained['reconstruction'].shape == images.shape
    axes = tuple(range(1, images.ndim))
    np.testing.assert_allclose(nats.sum(axis=axes), loss['reconstruction_loss'], rtol=1e-4)
    np.testing.assert_allclose(explained['reconstruction_loss'], loss['reconstruction_loss'])
    assert excess.min() >= 0
    by_row = images.reshape([7, params.rows, params.row_features])
    predicted = reference.predicted([by_row], checkpoint_path, params)
    np.testing.assert_allclose(nats, predicted['nats_by_pixel'], rtol=1e-4, atol=1e-5)
    if params.likelihood == 'bernoulli':
        means = np.clip(explained['reconstruction'].astype(np.float64), 1e-7, 1 - 1e-7)
        expected = -scipy.special.xlogy(images, means) - scipy.special.xlogy(1 - images, 1 - means)
        least = scipy.special.entr(images) + scipy.special.entr(1 - images)
        np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(excess, expected - least, rtol=1e-3, atol=1e-5)
    if params.likelihood == 'normal':
        # Of 256 levels that the noise makes a continuum, in [0, 1], as the scale 0.2.
        error = 255 / 256 * (images - explained['reconstruction'])
        np.testing.assert_allclose(excess, 0.5 * (error / 0.2) ** 2, rtol=1e-3, atol=1e-5)


def test_files_are_scored_and_explained_as_their_pixels(model):
    calls, _, _, params = model
    images = serving_models.images_of(params, 3)
    files = np.array(image_files.encode_png(serving_models.pixels_of(params, 3)), object)
    for name in ('score', 'explain'):
        of_files = calls[name + '_png']({'image_bytes': files})
        if name == 'explain':
            np.testing.assert_allclose(of_files.pop('images'), images, rtol=2e-7)
        of_pixels = calls[name]({'images': images})
        assert set(of_files) == set(of_pixels)
        for output, value in of_files.items():
            np.testing.assert_allclose(value, of_pixels[output], rtol=1e-5, atol=1e-5)


def test_an_edge_of_middle_grey_that_is_right_does_not_light_up():
    """Its nats are log 2 at least, whatever the model: the excess tells it from a surprise."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.fill([1, 8, 12], 0.5)
        likelihood = Bernoulli(tf.zeros([1, 8, 12]))
        nats, least = session.run(
            [-likelihood.log_prob_by_dimension(images), likelihood.least_nats_by_dimension(images)]
        )
    np.testing.assert_allclose(nats, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(nats - least, 0, atol=1e-6)


def test_the_model_card_shows_the_thresholds(model):
    _, export_dir, _, params = model
    with open(os.path.join(export_dir, 'assets.extra', 'README.md')) as f:
        card = f.read()
    row = thresholds.of_export(export_dir)['quantiles'][0]
    assert '| 0.5 | {:.2f} | {:.2f} to {:.2f} |'.format(row['nats'], *row['interval_95']) in card
    assert 'nats per image, higher is stranger' in card
    assert '| 0.999 |  | fewer than 5 of 120' in card
    with open(os.path.join(export_dir, 'assets.extra', 'settings.json')) as f:
        assert json.load(f)['image_shape'] == list(params.image_shape)


def test_without_validation_images_there_are_no_scores(tmp_path):
    path, params = serving_models.write_model(tmp_path)
    folder = saved_model.export_saved_model('final', path, params)
    calls = in_tensorflow_1.raw_session(folder)
    assert 'explain' in calls and 'score' not in calls
    assert thresholds.of_export(folder) is None


@pytest.mark.slow
def test_scores_are_constants_of_a_low_latency_export(tmp_path):
    path, params = serving_models.write_model(tmp_path)
    images = serving_models.images_of(params, 4)

    def scored(**options):
        validation = serving_models.validation_of(params)
        folder = saved_model.export_saved_model(
            'final', path, params, Options(**options), validation=validation
        )
        return in_tensorflow_1.raw_session(folder)['serving_default']({'images': images})

    alone, fast = scored(signature='score'), scored(signature='score', low_latency=True)
    assert alone['quantile'].max() > 0
    np.testing.assert_allclose(alone['quantile'], fast['quantile'], atol=1e-6)


def test_each_export_has_the_scores_of_its_own_weights(tmp_path):
    """The graph is built once for all exports of a run."""
    path, params = serving_models.write_model(tmp_path)
    images = serving_models.images_of(params, 5)

    def scored(count, of_images):
        def batches():
            return iter([of_images.reshape([count, params.rows, params.row_features])])

        folder = saved_model.export_saved_model(
            'final', path, params, validation=ValidationImages(count, count, batches)
        )
        return in_tensorflow_1.raw_session(folder)['score']({'images': images})['quantile']

    many = serving_models.images_of(params, 30)
    first, second = scored(5, images), scored(5, many[:5])
    np.testing.assert_allclose(np.sort(first), np.arange(5) / 6, atol=1e-6)
    assert not np.array_equal(first, second)


def test_tensorflow_2_finds_no_local_variables_to_make_anew(model):
    """It would initialise them once more after it has restored all."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.load(session, [tf.saved_model.SERVING], model[1])
        assert not tf.local_variables()
