"""A run that an older version of the project left goes on, or is refused in a sentence.

`old_run` is what commit aeb0e9c, before there were likelihoods, priors and objectives to choose,
left of four steps on MNIST. The numbers below are what that version's own code made of it.
"""

import argparse
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.paths import OLD_EXPORT, OLD_RUN, OLD_VAMP_RUN
from trainer.base.errors import UserError
from trainer.data.dataset import PreparedDataset
from trainer.evaluation.scores import model_of
from trainer.monitoring import picture_files
from trainer.serving import saved_model, verify_export
from trainer.serving.client import Export
from trainer.serving.saved_model import Options
from trainer.settings import storage
from trainer.settings.table import HParams
from trainer.training import checks

_LATENTS = np.array([[0, 0], [1.5, -2]], np.float32)
# What the old `generate.decode` returned for them: sums over all pixels, and four pixels of each.
_SUMS = [390.0677183, 390.11782992]
_AT = [0, 300, 406, 783]
_PIXELS = [
    [0.4977564513683319, 0.4969426691532135, 0.4969487488269806, 0.49873125553131104],
    [0.49795642495155334, 0.5084136128425598, 0.4795532822608948, 0.4905873239040375],
]
_VAMP_DECODED = [47.81789416, 47.79582018]
_VAMP_DRAWN = [47.74051711, 47.78738099, 47.81945682, 47.88345993]


@pytest.fixture
def old_run(tmp_path):
    return shutil.copytree(OLD_RUN, str(tmp_path / 'run'))


@pytest.fixture
def mnist_like(tmp_path):
    random = np.random.RandomState(0)
    counts = {'train': 40, 'validation': 10, 'test': 10}
    paths = {split: str(tmp_path / split) for split in counts}
    for split, path in paths.items():
        random.randint(0, 256, [counts[split], 28, 28, 1]).astype(np.uint8).tofile(path)
    return PreparedDataset('mnist', '3.0.0', (28, 28, 1), paths, counts)


def _checkpoint(folder, step):
    return os.path.join(folder, 'model.ckpt-{}'.format(step))


def _change_settings(folder, **changes):
    path = os.path.join(folder, 'hyper_parameters.json')
    with open(path) as f:
        values = dict(json.load(f), **changes)
    with open(path, 'w') as f:
        json.dump(values, f)


def _assert_as_the_old_code(images):
    images = np.asarray(images, np.float64).reshape(2, -1)
    np.testing.assert_allclose(images.sum(axis=1), _SUMS, rtol=0, atol=1e-4)
    np.testing.assert_allclose(images[:, _AT], _PIXELS, rtol=0, atol=1e-6)


def test_an_old_model_draws_what_it_drew(old_run):
    params = storage.trained(old_run)
    _assert_as_the_old_code(picture_files.decode(_LATENTS, _checkpoint(old_run, 4), params))


def test_an_old_model_is_exported_as_it_was(old_run):
    params = storage.trained(old_run)
    options = Options('decode')
    folder = saved_model.export_saved_model('decode', _checkpoint(old_run, 4), params, options)
    with tf.Session(graph=tf.Graph()) as session:
        model = tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        signature = model.signature_def['decode']
        (fed,), (fetched,) = signature.inputs.values(), signature.outputs.values()
        _assert_as_the_old_code(session.run(fetched.name, {fed.name: _LATENTS}))


@pytest.mark.slow
def test_an_old_run_goes_on_with_its_weights_and_moments(old_run, mnist_like):
    params = dataclasses.replace(
        storage.trained(old_run), max_steps=7, save_checkpoints_steps=3, save_summary_steps=0
    )
    checks.check(params, mnist_like.num_examples)
    before = tiny.variables(_checkpoint(old_run, 4))
    after, _ = tiny.trained(mnist_like, params)
    assert after['global_step'] == 7
    # Adam's, as TensorFlow keeps it: 0.9 to the number of all steps, the old ones too, and 1 more.
    np.testing.assert_allclose(after['optimizer/beta1_power'], 0.9**8, rtol=1e-5)
    assert set(before) == set(after)
    # Three steps at a rate of 0.004 go nowhere near as far as new weights would be.
    moved = np.abs(after['decoder/dense_2/kernel'] - before['decoder/dense_2/kernel']).max()
    assert 0 < moved < 0.02


def test_an_old_run_is_gone_on_with_only_under_its_settings(old_run, mnist_like):
    for changes, sentence in [
        ({'latent_size': 3}, r'--latent_size=3 \(was 2\)'),
        ({'prior': 'mixture'}, r'--prior=mixture \(was standard_normal\)'),
    ]:
        params = dataclasses.replace(storage.trained(old_run), **changes)
        with pytest.raises(UserError, match=sentence):
            checks.check(params, mnist_like.num_examples)


def test_the_command_of_an_old_run_goes_on_with_what_was_its_default(old_run, capsys):
    # As if it had the default of its days, which is not today's.
    command = HParams(model_dir=old_run, latent_size=2, learning_rate=1e-3)
    params = checks.with_recorded(command, ['model_dir', 'latent_size', 'learning_rate'])
    recorded = storage.trained(old_run)
    assert recorded.dequantization == 'none'
    assert params == dataclasses.replace(recorded, learning_rate=1e-3)
    said = capsys.readouterr().err
    assert f'as {old_run} began' in said
    for flag in ('--lstm_units=4', '--batch_size=20', '--dequantization=none'):
        assert flag in said
    assert '--latent_size' not in said and '--learning_rate' not in said

    # What the command gives is refused where it cannot be.
    other = checks.with_recorded(dataclasses.replace(command, latent_size=3), ['latent_size'])
    with pytest.raises(UserError, match=r'--latent_size=3 \(was 2\)'):
        storage.check_resumable(other, recorded)
    new = dataclasses.replace(command, model_dir=old_run + '/new')
    assert checks.with_recorded(new, []) == new


def test_a_setting_that_this_version_does_not_know_is_named(old_run):
    _change_settings(old_run, encoder_layers=2)
    with pytest.raises(UserError, match="'encoder_layers'.*choose another --model_dir"):
        storage.trained(old_run)


def _go_on(data, params):
    tiny.trained(data, dataclasses.replace(params, max_steps=7))


def _draw(data, params):
    picture_files.decode(
        np.zeros([1, params.latent_size]), _checkpoint(params.model_dir, 4), params
    )


def _evaluate(data, params):
    model = model_of(_checkpoint(params.model_dir, 4), params)
    with tf.Graph().as_default(), tf.Session() as session:
        model.encode(tf.zeros([1, 28, 28]))
        model.decode(tf.zeros([1, params.latent_size]))
        model.restore(session)


@pytest.mark.parametrize('use', [_go_on, _draw, _evaluate])
def test_weights_of_another_architecture_are_named(old_run, mnist_like, use):
    # What a later version with another architecture, and so other shapes, would find.
    _change_settings(old_run, decoder_units=9)
    params = storage.trained(old_run)
    shapes = r'model\.ckpt-4 does not fit .*decoder/dense_1/kernel is \[2, 8\] in it, not \[2, 9\]'
    with pytest.raises(UserError, match=shapes):
        use(mnist_like, params)


def test_weights_that_an_old_run_does_not_have_are_named(old_run, mnist_like):
    _change_settings(old_run, prior='mixture', prior_components=3)
    missing = r'prior/\w+ is missing in it, not \[3'
    with pytest.raises(UserError, match=missing):
        _go_on(mnist_like, storage.trained(old_run))


@pytest.mark.slow
def test_an_old_vamp_prior_gives_the_numbers_that_it_gave(tmp_path):
    """`old_vamp_run` is what commit 031c0d2 left of four steps; the sums are its own code's."""
    folder = shutil.copytree(OLD_VAMP_RUN, str(tmp_path / 'run'))
    params, path = storage.trained(folder), _checkpoint(folder, 4)
    decoded = picture_files.decode(_LATENTS, path, params)
    drawn = picture_files.draw_from_prior(4, 7, path, params)
    for images, sums in ((decoded, _VAMP_DECODED), (drawn, _VAMP_DRAWN)):
        actual = images.reshape(len(sums), -1).astype(np.float64).sum(axis=1)
        np.testing.assert_allclose(actual, sums, rtol=0, atol=1e-4)
    exported = saved_model.export_saved_model('final', path, params)
    assert _answers_differ(exported) == {}


def test_an_old_export_is_served_and_verified(tmp_path):
    """`old_export` is an export of commit 031c0d2."""
    folder = shutil.copytree(OLD_EXPORT, str(tmp_path / 'export'))
    assert _answers_differ(folder) == {}
    contents = list(_golden(folder)['reconstruct_png']['inputs']['image_bytes'])
    outputs = Export(folder).predict(contents, 'reconstruct_png')
    assert np.isfinite(outputs['negative_elbo']).all()


def _golden(folder):
    return verify_export.read_golden(os.path.join(folder, 'assets.extra', 'golden.npz'))


def _answers_differ(folder):
    """What `verify_export` finds wrong with an export, by signature."""
    calls = verify_export.load_tensorflow_1(argparse.Namespace(export_dir=folder))
    golden = _golden(folder)
    assert set(golden) == set(calls)
    results = {name: verify_export.check(calls[name], golden[name], 1e-4) for name in golden}
    return {name: result['error'] for name, result in results.items() if 'error' in result}
