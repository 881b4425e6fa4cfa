"""Exports of series: units, nats, thresholds of windows and of rows, and what is refused."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from scripts.clients import in_tensorflow_1, reference
from tests.support import serving_models, tiny
from trainer.serving import thresholds, verify_export
from trainer.serving.signatures import DEFAULT, NAMES, OF_FILES

MEAN, DEVIATION = np.array([20.0, -5.0]), np.array([3.0, 0.25])


@pytest.fixture(
    name='model',
    scope='module',
    params=['standard_normal', pytest.param('vamp', marks=pytest.mark.slow)],
)
def _model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    settings = {**serving_models.SERIES, 'prior': request.param, 'prior_components': 4}
    settings['time_column'] = 'when'
    export_dir, checkpoint_path, params = serving_models.write_export(folder, **settings)
    return in_tensorflow_1.raw_session(export_dir), export_dir, checkpoint_path, params


def test_all_signatures_but_those_of_files_answer_as_predict_does(model):
    calls, _, checkpoint_path, params = model
    assert set(calls) == {DEFAULT, *NAMES} - set(OF_FILES)
    windows = serving_models.images_of(params, 7)
    validation = serving_models.validation_of(params)
    golden = reference.answers(windows, validation, checkpoint_path, params)
    for name, example in golden.items():
        if params.prior == 'vamp' and 'generate' in name:
            continue  # The reference draws from N(0, I).
        difference = verify_export.largest_difference(calls[name], example._asdict())
        assert difference < 1e-4, name
    assert 'windows' in golden['decode'].outputs and 'windows' in golden['encode'].inputs


def test_nats_are_those_of_a_normal_distribution_of_standardised_readings(model):
    """By the reconstruction and the scales of the checkpoint: log(1 + e^raw) + 0.02."""
    calls, _, checkpoint_path, params = model
    windows = serving_models.images_of(params, 7)
    explained = calls['explain']({'windows': windows})
    raw = tiny.variables(checkpoint_path)['decoder/raw_scale'].astype(np.float64)
    scale = np.log1p(np.exp(raw)) + 0.02
    error = (windows - explained['reconstruction']) / DEVIATION / scale
    nats = 0.5 * error**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(explained['nats_by_reading'], nats, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(explained['excess_by_reading'], 0.5 * error**2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(explained['reconstruction_loss'], nats.sum(axis=(1, 2)), rtol=1e-4)


def test_draws_are_in_the_units_of_the_readings(model):
    calls, _, _, _ = model
    drawn = calls['generate']({'count': np.int32(500), 'seed': np.int32(1)})['windows']
    assert drawn.shape == (500, 9, 2)
    assert np.all(np.abs(drawn.mean(axis=(0, 1)) - MEAN) < 3 * DEVIATION)


def test_rows_have_thresholds_of_their_own(model):
    """Against a loop over the windows that cover a row, in each of the stretches."""
    calls, export_dir, _, params = model
    windows = serving_models.images_of(params, serving_models.NUM_VALIDATION)
    nats = calls['explain']({'windows': windows})['nats_by_reading'].sum(axis=-1)
    starts = serving_models.validation_of(params).starts
    rows = sorted({start + offset for start in starts for offset in range(9)})
    expected = [
        np.mean([nats[n, row - start] for n, start in enumerate(starts) if 0 <= row - start < 9])
        for row in rows
    ]
    extra = os.path.join(export_dir, 'assets.extra')
    stored = np.load(os.path.join(extra, 'validation_row_scores.npy'))
    np.testing.assert_allclose(stored, expected, rtol=1e-4)
    record = thresholds.of_export(export_dir)
    assert record['units'] == 'nats per window, higher is stranger'
    assert record['independent'] == 120 // 9
    of_rows = record['rows']
    assert (of_rows['images'], of_rows['independent']) == (len(rows), len(rows) // 9)
    median = of_rows['quantiles'][0]
    assert median['nats'] == pytest.approx(
        np.sort(expected)[-(-(len(rows) + 1) // 2) - 1], rel=1e-4
    )
    with open(os.path.join(extra, 'settings.json')) as f:
        settings = json.load(f)
    assert settings['columns'] == ['heat', 'load'] and settings['image_shape'] == [9, 1, 2]
    assert settings['time_column'] == 'when'
    with open(os.path.join(extra, 'README.md')) as f:
        card = f.read()
    assert 'nats per row, higher is stranger' in card and 'PNG' not in card and 'pixel' not in card


def test_an_interval_of_overlapping_windows_is_that_of_fewer_scores():
    """Of 1,000 scores of windows of 10 rows: as wide as of 100 scores."""
    scores = np.arange(1.0, 1001.0)
    row = thresholds.table(scores, 1000, 'window', 10)['quantiles'][1]
    low, high = thresholds.interval_ranks(0.9, 100)
    assert row['nats'] == 901.0
    assert row['interval_95'] == [float(low * 1001 // 101), float(-(-high * 1001 // 101))]
    assert thresholds.table(scores, 1000)['quantiles'][1]['interval_95'][0] > row['interval_95'][0]


@pytest.mark.parametrize('bad', [np.nan, np.inf, -1e38])
def test_readings_that_are_not_finite_or_too_far_are_refused(model, bad):
    calls, _, _, params = model
    windows = serving_models.images_of(params, 3)
    windows[1, 4, 1] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match='windows must hold finite numbers'):
        calls['score']({'windows': windows})
    windows[1, 4, 1] = 1e9  # Strange, but a number: so is its score.
    assert np.isfinite(calls['score']({'windows': windows})['negative_elbo']).all()
