"""Scores that are to tell other images from a model's own: the scores, the sets, the program."""

import dataclasses
import json
import math
import os
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from tests.fuzz.test_fuzz_flags import defined_by
from tests.support import own
from trainer import evaluate
from trainer.base import files
from trainer.base.errors import UserError
from trainer.data.dataset import ImageSet
from trainer.evaluation import against
from trainer.evaluation.importance_sampling import ImportanceSampler
from trainer.evaluation.scores import Checkpoint, Scorer, model_of
from trainer.model import vae
from trainer.settings import storage

SMALL = {
    'latent_size': 2, 'lstm_units': 4, 'decoder_units': 8, 'decoder_channels': 2,
    'save_summary_steps': 0,
}  # fmt: skip
FLAGS = defined_by(evaluate.define_flags)


def write_run(folder, params, seed=1):
    """Leaves what a run of one step might have left; returns its settings."""
    params = dataclasses.replace(params, model_dir=str(folder))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        tf.train.create_global_step()
        vae.predictions(tf.zeros([1, params.rows, params.row_features]), vae.prior(params), params)
        session.run(tf.global_variables_initializer())
        os.makedirs(str(folder), exist_ok=True)
        tf.train.Saver().save(session, os.path.join(str(folder), 'model.ckpt'), 1)
    storage.save(params)
    return params


class Run:
    """A run on an array of small images, and the folder around it."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.images = own.pictures(130, (4, 6))
        source = own.write_array(folder / 'usual.npy', self.images)
        params = own.params_of(source, folder / 'data', **SMALL, **settings)
        self.data = own.prepared(source, folder / 'data')
        self.params = write_run(folder / 'run', own.settled(params, self.data))
        self.background = write_run(folder / 'background', self.params, seed=7)
        self.model = Checkpoint(os.path.join(self.params.model_dir, 'model.ckpt-1'), self.params)

    def evaluated(self, *arguments):
        """Runs the program on it."""
        for flag in FLAGS._flags().values():
            flag.unparse()
        FLAGS(['evaluate', '--model_dir=' + self.params.model_dir, *arguments])
        with mock.patch.object(flags, 'FLAGS', FLAGS):
            evaluate.main([])


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp('against'))


def image_set(pixels):
    """A set of grey levels `[n, rows, columns]` from 0 to 255, in blocks of five."""
    images = pixels.astype(np.float32) / 255

    def blocks(most):
        assert most >= 5
        return (images[start : start + 5] for start in range(0, len(images), 5))

    return ImageSet('made', 'made images', len(images), len(images), blocks)


def negative_elbo_in_numpy(images, params):
    """Binary cross-entropy and KL divergence at the posterior's mean, from what the layers give."""
    with tf.Graph().as_default(), tf.Session() as session:
        posterior = vae.encode(tf.constant(images), params)
        logits = vae.decode(posterior.point(), params).logits
        tf.train.Saver().restore(session, os.path.join(params.model_dir, 'model.ckpt-1'))
        mean, scale, logits = session.run([posterior.point(), posterior.parameters[1], logits])
    images, mean, scale, logits = (x.astype(np.float64) for x in (images, mean, scale, logits))
    loss = (np.logaddexp(0, logits) - images * logits).sum(axis=(1, 2))
    kl = (0.5 * (mean**2 + scale**2 - 1) - np.log(scale)).sum(axis=1)
    return loss + kl, loss, kl


def png_bytes(image, tmp_path):
    """The length of an image's PNG file, as TensorFlow writes it and Pillow reads it."""
    path = str(tmp_path / 'image.png')
    with tf.Graph().as_default(), tf.Session() as session:
        content = session.run(tf.image.encode_png(tf.constant(image[..., np.newaxis])))
    with open(path, 'wb') as f:
        f.write(content)
    np.testing.assert_array_equal(np.array(Image.open(path)), image)
    return os.path.getsize(path)


def test_scores_are_those_of_a_computation_in_numpy(run, tmp_path):
    pixels = np.concatenate([run.images[:9], np.zeros_like(run.images[:2])])
    background = Checkpoint(os.path.join(run.background.model_dir, 'model.ckpt-1'), run.background)
    parts = list(Scorer(run.model, background).scored(image_set(pixels)))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    images = (pixels / 255.0).astype(np.float32)
    negative_elbo, loss, kl = negative_elbo_in_numpy(images, run.params)
    nats = np.array([png_bytes(image, tmp_path) for image in pixels]) * 8 * math.log(2)
    expected = {
        'negative_elbo': negative_elbo, 'reconstruction_loss': loss, 'kl_divergence': kl,
        'complexity_corrected': negative_elbo - nats,
        'likelihood_ratio': negative_elbo - negative_elbo_in_numpy(images, run.background)[0],
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_the_bound_is_that_of_each_image_in_its_order(run):
    pixels = own.pictures(12, (4, 6), seed=4)
    scores = against.Scores(run.model, samples=30, seed=3, threads=2)(image_set(pixels))

    def input_fn():
        images = (pixels / 255.0).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices({'images': images}).batch(12)

    sampler = ImportanceSampler(
        model_of(run.model.path, run.params), input_fn, 30, seed=3, threads=1
    )
    expected = [-row[0] for row in sampler.rows()]
    np.testing.assert_allclose(scores['negative_importance_weighted_bound'], expected, rtol=1e-5)
    assert scores['negative_elbo'].shape == (12,)


@pytest.mark.slow
def test_the_program_s_areas_are_those_of_the_scores(run, capsys):
    noise = own.write_array(run.folder / 'noise.npy', own.pictures(25, (4, 6), seed=8))
    black = own.write_array(run.folder / 'black.npy', np.zeros([4, 4, 6], np.uint8))
    run.evaluated(f'--against={noise},{black}', '--importance_samples=5', '--num_threads=1')
    printed = capsys.readouterr().out
    path = os.path.join(run.params.model_dir, 'detection_test_5.json')
    record = files.read_json(path)
    assert printed == '{}\n\n{}\n'.format(against.table(record), path)
    assert printed.count('nats per image, higher is stranger') == 2
    assert record['units'] == 'nats per image, higher is stranger'
    count = run.data.num_examples['test']
    facts = {
        'split': 'test', 'num_images': count, 'importance_samples': 5, 'seed': 1,
        'checkpoint': 'model.ckpt-1', 'global_step': 0, 'background': None,
    }  # fmt: skip
    assert {name: record[name] for name in facts} == facts
    assert [row['name'] for row in record['against']] == ['noise', 'black']

    of_usual = scores_of(run, own.pixels(run.data, 'test')[..., 0])
    for row, pixels in zip(record['against'], (np.load(noise), np.load(black))):
        assert row['num_images'] == row['num_in_source'] == len(pixels)
        assert row['share_of_unusual'] == pytest.approx(len(pixels) / (len(pixels) + count))
        assert 'negative_importance_weighted_bound' in row['scores']
        for name, values in scores_of(run, pixels).items():
            usual = of_usual[name]
            higher = (values[:, None] > usual) + 0.5 * (values[:, None] == usual)
            assert row['scores'][name]['auroc'] == pytest.approx(higher.mean(), abs=1e-6), name
            assert row['scores'][name]['mean'] == pytest.approx(values.mean(), rel=1e-5)
            assert record['usual'][name]['mean'] == pytest.approx(usual.mean(), rel=1e-5)


def scores_of(run, pixels):
    """The scores of the model alone, in one batch."""
    (found,) = Scorer(run.model).scored(
        image_set(pixels)._replace(blocks=lambda most: [(pixels / 255.0).astype(np.float32)])
    )
    return found


@pytest.mark.slow
def test_options_are_told_in_the_record_and_in_its_name(run, tmp_path, capsys):
    noise = own.write_array(tmp_path / 'noise.npy', own.pictures(25, (4, 6), seed=8))
    options = [
        f'--against={noise}', '--num_images=6', '--seed=3', '--split=validation',
        f'--background_model_dir={run.background.model_dir}',
    ]  # fmt: skip
    run.evaluated(*options)
    name = 'detection_validation_seed_3_6_images.json'
    record = files.read_json(os.path.join(run.params.model_dir, name))
    (row,) = record['against']
    assert (row['num_images'], row['num_in_source'], record['num_images']) == (6, 25, 6)
    assert 'likelihood_ratio' in row['scores']
    assert record['background']['checkpoint'].endswith('background/model.ckpt-1')
    assert record['importance_samples'] is None
    assert f'against 6 of 25 images of the file {noise}' in capsys.readouterr().out
    run.evaluated(*options, f'--output={tmp_path}/named.json')
    again = json.loads((tmp_path / 'named.json').read_text())
    assert again['against'] == record['against']


def test_bad_input_gets_one_sentence_each(run, tmp_path):
    pixels = own.pictures(3, (4, 6))
    array = own.write_array(tmp_path / 'good.npy', pixels)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.npy').write_text('no array')
    broken = own.write_folder(tmp_path / 'broken', pixels)
    (tmp_path / 'broken' / '1.png').write_bytes(b'')
    mixed = own.write_folder(tmp_path / 'mixed', pixels)
    own.write_folder(tmp_path / 'mixed', own.pictures(1, (9, 6)), 'other{}.png')
    other = write_run(
        tmp_path / 'other', dataclasses.replace(run.params, likelihood='continuous_bernoulli')
    )
    cases = {
        '--against=no_such_set': 'neither a file or folder here nor a dataset that can be used',
        '--against=nowhere.npy': 'nowhere.npy: there is no such file or folder',
        '--against=./nowhere': './nowhere: there is no such file or folder',
        '--against=mnist': '--against=mnist holds images of 28 x 28 x 1, and the model in .* 4 x',
        f'--against={tmp_path}/empty': r'empty holds no file that ends in .png',
        f'--against={tmp_path}/text.npy': 'text.npy cannot be read as arrays',
        f'--against={broken}': r'broken/1.png cannot be read \(.*: mend it or take it away',
        f'--against={mixed}': 'mixed/other0.png holds images of 9 x 6 x 1, and the model in',
        '--against=' + own.write_array(tmp_path / 'large.npy', own.pictures(3, (9, 6))): (
            'large.npy holds images of 9 x 6 x 1, and the model in'
        ),
        '--against=' + own.write_array(tmp_path / 'high.npy', 2.0 * pixels): (
            'high.npy has .* in image 0, which is no grey level'
        ),
        '--against=' + own.write_array(tmp_path / 'ones.npy', pixels % 2): (
            'ones.npy holds no number above 1: are these black and white'
        ),
        f'--background_model_dir={run.background.model_dir}': 'needs --against: name the images',
        f'--against={array} --background_model_dir={tmp_path}': (
            f'--background_model_dir={tmp_path} holds no trained model'
        ),
        f'--against={array} --background_model_dir={other.model_dir}': (
            'has likelihood continuous_bernoulli, and the model in .* bernoulli: give a run'
        ),
        f'--against={array} --output={tmp_path}/empty': 'empty is a folder: give a file',
    }  # fmt: skip
    for arguments, expected in cases.items():
        with pytest.raises(UserError, match=expected) as error:
            run.evaluated(*arguments.split())
        assert len(str(error.value).splitlines()) == 1
        assert arguments.split()[-1] in str(error.value)
    assert not [name for name in os.listdir(run.params.model_dir) if name.endswith('.tmp')]


def test_weights_that_are_not_finite_are_refused(run, tmp_path, monkeypatch):
    decode = vae.decode
    monkeypatch.setattr(
        vae, 'decode', lambda latents, params: decode(latents * float('nan'), params)
    )
    noise = own.write_array(tmp_path / 'noise.npy', own.pictures(25, (4, 6), seed=8))
    with pytest.raises(UserError, match='model.ckpt-1: negative_elbo of image 0 of the images of'):
        run.evaluated(f'--against={noise}')
