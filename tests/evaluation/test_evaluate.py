"""The importance-weighted evaluation: models of known likelihood, real ones, and interruptions."""

import collections
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.support.paths import ROOT
from trainer.base import console, files
from trainer.base.console import ImageProgress
from trainer.base.errors import UserError
from trainer.checkpoints import chosen, listing
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.evaluation import estimate, importance_sampling, report
from trainer.evaluation.importance_sampling import ImportanceSampler, Model, StreamingLogMeanExp
from trainer.evaluation.partial_results import PartialResults
from trainer.evaluation.scores import model_of
from trainer.model import vae
from trainer.model.bounds import importance_weighted_bound
from trainer.model.posteriors import DiagonalGaussian
from trainer.model.priors import Mixture, StandardNormal
from trainer.settings import storage, wording
from trainer.settings.table import HParams
from trainer.training import run as training_run
from trainer.training.model_fn import elbo_terms

# A linear-Gaussian VAE: x = W z + B + noise of scale S, with z of 2 and x of 2 x 3 numbers.
RANDOM = np.random.RandomState(5)
W, B, S = RANDOM.randn(6, 2), RANDOM.randn(6), 0.7
X = RANDOM.randn(12, 6) * 1.5
COVARIANCE = np.linalg.inv(np.eye(2) + W.T @ W / S**2)  # Of the exact posterior.
# A posterior that is none: shifted, wider, and without the correlation.
SHIFT, SCALE = 0.1, 1.3 * np.sqrt(np.diag(COVARIANCE))
MIXTURE = (np.array([[0.0, 1.0], [1.5, -1.0]]), np.array([[1.0, 0.5], [0.4, 1.2]]), [0.7, 0.3])


class LinearGaussian:
    """p(x | z) of each of the latents."""

    def __init__(self, latents):
        self.mean = tf.matmul(latents, tf.constant(W.T, tf.float32)) + tf.constant(B, tf.float32)

    def log_prob(self, images):
        deviation = (tf.reshape(images, [-1, 6]) - self.mean) / S
        by_pixel = -0.5 * (tf.square(deviation) + math.log(2 * math.pi)) - math.log(S)
        return tf.reduce_sum(by_pixel, axis=1)


def encode(images):
    flat = tf.reshape(images, [-1, 6])
    to_mean = tf.constant((COVARIANCE @ W.T / S**2).T, tf.float32)
    mean = tf.matmul(flat - tf.constant(B, tf.float32), to_mean) + SHIFT
    return DiagonalGaussian(mean, tf.ones_like(mean) * tf.constant(SCALE, tf.float32))


def mixture():
    mean, scale, weights = MIXTURE
    return Mixture(*[tf.constant(x, tf.float32) for x in (mean, scale, np.log(weights))])


def linear(samples, prior=StandardNormal, images=X, start=0, threads=2, **settings):
    """The rows of the linear model."""

    def input_fn():
        pixels = images.reshape(-1, 2, 3).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices({'images': pixels}).batch(5)

    parts = Model(encode, LinearGaussian, prior, lambda session: None)
    sampler = ImportanceSampler(parts, input_fn, samples, threads=threads, seed=3, **settings)
    return np.array(list(sampler.rows(start)), sampler.row_type)


def samples_of(number, samples):
    """The latents of an image as the posterior draws them, in NumPy."""
    with tf.Graph().as_default(), tf.Session() as session:
        blocks = math.ceil(samples / 100)
        place = [tf.constant(value, tf.int64) for value in (number, 0, samples)]
        noise = session.run(importance_sampling._noise(3, place, 2, blocks))
    mean = COVARIANCE @ W.T @ (X[number] - B) / S**2 + SHIFT
    return mean, mean + SCALE * noise


def true_log_likelihood(prior):
    """log p(x) of the images: a Gaussian, or a mixture of Gaussians."""
    mean, scale, weights = MIXTURE if prior is mixture else (np.zeros([1, 2]), np.ones([1, 2]), [1])
    by_component = [
        scipy.stats.multivariate_normal(
            W @ m + B, W @ np.diag(s**2) @ W.T + S**2 * np.eye(6)
        ).logpdf(X)
        for m, s in zip(mean, scale)
    ]
    return scipy.special.logsumexp(by_component, axis=0, b=np.reshape(weights, [-1, 1]))


@pytest.mark.parametrize('prior', [StandardNormal, mixture])
def test_the_estimate_is_the_known_likelihood_of_a_linear_gaussian_model(prior):
    rows = linear(60000, prior)
    expected = true_log_likelihood(prior)
    np.testing.assert_allclose(rows['importance_weighted_bound'], expected, rtol=0, atol=0.01)
    # The posterior is a bad one: its ELBO is far from it.
    assert np.all(rows['reconstruction_loss'] + rows['kl_divergence'] + expected > 0.1)


@pytest.mark.parametrize('prior', [StandardNormal, mixture])
def test_every_number_is_that_of_a_computation_in_numpy(prior):
    samples, number = 730, 7
    row = linear(samples, prior)[number]
    mean, z = samples_of(number, samples)
    posterior, normal = scipy.stats.norm(mean, SCALE), scipy.stats.norm
    log_likelihood = normal(z @ W.T + B, S).logpdf(X[number]).sum(axis=1)
    log_posterior = posterior.logpdf(z)
    if prior is mixture:
        means, scales, weights = MIXTURE
        by_component = normal(means, scales).logpdf(z[:, np.newaxis])
        log_prior = scipy.special.logsumexp(by_component.sum(axis=2), axis=1, b=weights)
        kl = np.mean(log_posterior.sum(axis=1) - log_prior)
        marginals = scipy.special.logsumexp(by_component, axis=1, b=np.reshape(weights, [2, 1]))
        kl_by_dimension = np.mean((log_posterior - marginals)[:100], axis=0)
    else:
        log_prior = normal.logpdf(z).sum(axis=1)
        kl_by_dimension = 0.5 * (mean**2 + SCALE**2 - 1) - np.log(SCALE)
        kl = kl_by_dimension.sum()
    log_weights = log_likelihood + log_prior - log_posterior.sum(axis=1)
    bound = scipy.special.logsumexp(log_weights) - np.log(samples)
    actual = [row[name] for name in row.dtype.names[:3]]
    np.testing.assert_allclose(actual, [bound, -log_likelihood.mean(), kl], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(row['kl_by_dimension'], kl_by_dimension, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(row['posterior_mean'], mean, rtol=1e-5, atol=1e-6)
    shares = scipy.special.softmax(log_weights)
    np.testing.assert_allclose(row['effective_samples'], 1 / np.sum(shares**2), rtol=1e-4)


@pytest.mark.slow
def test_chunks_and_threads_change_nothing_but_the_last_digits():
    rows = linear(1230)
    np.testing.assert_array_equal(linear(1230, threads=1), rows)
    for chunk in (60, 100, 300, 1300):
        other = linear(1230, chunk=chunk)
        for name in rows.dtype.names:
            np.testing.assert_allclose(other[name], rows[name], rtol=1e-5, err_msg=name)


def test_an_image_has_the_same_row_wherever_an_evaluation_begins_or_ends():
    rows = linear(150)
    np.testing.assert_array_equal(linear(150, start=7), rows[7:])
    np.testing.assert_array_equal(linear(150, images=X[:10]), rows[:10])
    # And noise of its own: the same image twice gets two estimates.
    twice = linear(150, images=X[[0, 0]])['importance_weighted_bound']
    assert 0 < abs(twice[0] - twice[1]) < 1


def test_one_sample_is_the_elbo_and_more_tighten_the_bound():
    one = linear(1, mixture)
    elbo = -(one['reconstruction_loss'] + one['kl_divergence'])
    np.testing.assert_allclose(one['importance_weighted_bound'], elbo, rtol=1e-12)
    images = np.tile(X, [20, 1])
    bounds = [
        linear(samples, images=images)['importance_weighted_bound'].mean()
        for samples in (1, 3, 10, 100, 1000)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1] - 0.1
    assert bounds[-1] == pytest.approx(true_log_likelihood(StandardNormal).mean(), abs=0.01)


def test_a_stream_of_far_apart_values_is_added_up_exactly():
    values = np.random.RandomState(1).randn(1000) * 300 - 20000
    stream = StreamingLogMeanExp()
    for part in np.split(values, [1, 3, 400, 999]):
        stream.add(part)
    assert stream.count == 1000
    assert stream.result() == pytest.approx(
        scipy.special.logsumexp(values) - math.log(1000), rel=1e-13
    )
    shares = scipy.special.softmax(values)
    assert stream.effective_count() == pytest.approx(1 / np.sum(shares**2), rel=1e-9)
    stream.add(np.array([math.nan]))
    assert math.isnan(stream.result())


TINY = HParams(
    latent_size=3, lstm_units=4, decoder_units=8, decoder_channels=2, prior_components=5,
    image_shape=(4, 8, 1), seed=2,
)  # fmt: skip


@pytest.mark.parametrize(
    'likelihood, prior',
    [
        ('bernoulli', 'standard_normal'),
        ('bernoulli', 'flow'),
        ('continuous_bernoulli', 'mixture'),
        ('normal', 'vamp'),
    ],
)
def test_real_models_agree_with_what_training_evaluates(tmp_path, likelihood, prior):
    params = dataclasses.replace(TINY, likelihood=likelihood, prior=prior)
    images = np.random.RandomState(0).rand(6, 4, 8).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        draws = []
        for number in range(6):
            place = [tf.constant(value, tf.int64) for value in (number, 0, 120)]
            draws.append(importance_sampling._noise(3, place, 3, 2))
        noise = tf.reshape(tf.stack(draws), [6, 120, 3])
        posterior = vae.encode(tf.constant(images), params)
        terms = elbo_terms(tf.constant(images), posterior, noise, vae.prior(params), params)
        session.run(tf.global_variables_initializer())
        path = tf.train.Saver().save(session, str(tmp_path / 'model'))
        expected = session.run(
            [
                importance_weighted_bound(terms.log_weights),
                terms.reconstruction_loss,
                terms.kl_divergence,
                posterior.mean,
            ]
        )
    sampler = ImportanceSampler(
        model_of(path, params),
        lambda: tf.data.Dataset.from_tensor_slices({'images': images}).batch(4),
        samples=120,
        seed=3,
        threads=2,
    )
    rows = np.array(list(sampler.rows()), sampler.row_type)
    assert np.array(list(sampler.rows(2)), sampler.row_type).tobytes() == rows[2:].tobytes()
    names = [name for name in rows.dtype.names if name != 'kl_by_dimension']
    for name, values in zip(names, expected):
        np.testing.assert_allclose(rows[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    'settings, second_line',
    [
        ({'likelihood': 'normal'}, 'bits per dimension, of 8-bit images 7.9549'),
        (
            {'likelihood': 'normal', 'dequantization': 'none'},
            'bits per dimension, of levels from 0 to 255 7.9493',
        ),
        ({'binarization': 'dynamic'}, ''),
    ],
)
def test_the_table_names_the_scale_of_the_bits_of_densities(settings, second_line):
    rows = np.ones(4, importance_sampling.row_type(TINY.latent_size))
    params = dataclasses.replace(TINY, **settings)
    names = ('checkpoint', 'split', 'examples', 'dataset', 'log_likelihood')
    facts = dict(dict.fromkeys(names, 'x'), global_step=1, seed=1, importance_samples=2)
    facts.update(
        convention=wording.data_convention(params),
        num_images=4,
        images_in_split=4,
        latent_size=TINY.latent_size,
    )
    table = report.table(dict(facts, **report.summarize(rows, params)))
    # 1 nat less than 0, over 32 pixels and ln 2, is -0.04508; log2 255 is 7.99435, log2 256 is 8.
    lines = [line.split() for line in table.split('\n') if line.startswith('bits per dimension')]
    if not second_line:
        assert [line[:-1] for line in lines] == [['bits', 'per', 'dimension', '-0.0451']]
        return
    assert ' '.join(lines[0][:-1]) == 'bits per dimension, of levels in [0, 1] -0.0451'
    assert ' '.join(lines[1][:-1]) == second_line


def test_the_summary_is_made_as_by_hand():
    rows = np.zeros(4, importance_sampling.row_type(2))
    rows['importance_weighted_bound'] = [-1, -2, -3, -6]
    rows['reconstruction_loss'] = [1, 2, 3, 4]
    rows['kl_divergence'] = [2, 2, 2, 6]
    rows['kl_by_dimension'] = [[1, 1], [2, 0], [0, 2], [5, 1]]
    rows['effective_samples'] = [40, 10, 20, 100]
    # Variances 0.0101 and 0.0099, around means that single precision must not swallow.
    signs = np.array([1, -1, 1, -1])
    rows['posterior_mean'] = np.stack(
        [30 + math.sqrt(0.0101) * signs, 30 + math.sqrt(0.0099) * signs], axis=1
    )
    binary = dataclasses.replace(TINY, binarization='dynamic')
    summary = report.summarize(rows, binary)
    # Deviations -2, -1, 0, 3: a variance of 14 / 3, over the root of 4 images.
    error = math.sqrt(14 / 3) / 2
    assert summary['negative_log_likelihood'] == pytest.approx(
        {'mean': 3.0, 'standard_error': error}
    )
    assert summary['bits_per_dimension'] == pytest.approx(
        {'mean': 3 / 32 / math.log(2), 'standard_error': error / 32 / math.log(2)}
    )
    means = {name: summary[name]['mean'] for name in summary if name.startswith(('neg', 'rec'))}
    assert means == {
        'negative_log_likelihood': 3.0, 'negative_elbo': 5.5, 'reconstruction_loss': 2.5
    }  # fmt: skip
    assert summary['kl_divergence']['mean'] == 3.0
    assert summary['kl_by_dimension'] == [2.0, 1.0]
    assert summary['active_units'] == 1
    # The 5th percentile lies 0.15 of the way from the fewest to the next.
    expected = {'median': 30, 'percentile_5': 11.5, 'fewest': 10}
    assert summary['effective_samples'] == pytest.approx(expected)

    # Grey levels of which a Bernoulli is no density have neither likelihood nor bits.
    grey = report.summarize(rows, TINY)
    assert grey['negative_importance_weighted_bound'] == summary['negative_log_likelihood']
    assert not {'negative_log_likelihood', 'bits_per_dimension'} & set(grey)
    without = dataclasses.replace(TINY, likelihood='normal', dequantization='none')
    density = report.summarize(rows, without)
    assert density['negative_log_likelihood'] == summary['negative_log_likelihood']
    # A density of levels in [0, 1], and one of levels from 0 to 255.
    assert density['bits_per_dimension'] == summary['bits_per_dimension']
    assert density['bits_per_dimension_8_bit'] == pytest.approx(
        {
            'mean': (3 + 32 * math.log(255)) / 32 / math.log(2),
            'standard_error': error / 32 / math.log(2),
        }
    )
    assert 'bits_per_dimension_8_bit' not in summary
    # Noise of a 256th of [0, 1] is 8 bits wide.
    with_noise = report.summarize(rows, dataclasses.replace(TINY, likelihood='normal'))
    assert with_noise['bits_per_dimension'] == summary['bits_per_dimension']
    assert with_noise['bits_per_dimension_8_bit']['mean'] == pytest.approx(3 / 32 / math.log(2) + 8)
    assert report.summarize(rows[:1], TINY)['negative_elbo'] == {
        'mean': 3.0, 'standard_error': None
    }  # fmt: skip


COUNTS = {'train': 60, 'validation': 12, 'test': 30}
Run = collections.namedtuple('Run', 'params data checkpoint')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A tiny model trained for 4 steps on a small MNIST that any process finds prepared."""
    data_dir = str(tmp_path_factory.mktemp('data'))
    decoded = os.path.join(data_dir, 'mnist', '3.0.0-decoded')
    os.makedirs(decoded)
    paths = {split: os.path.join(decoded, split + '.uint8') for split in COUNTS}
    random = np.random.RandomState(0)
    for split, count in COUNTS.items():
        random.randint(0, 256, [count, 28, 28]).astype(np.uint8).tofile(paths[split])
    files.write_json(
        os.path.join(decoded, 'decoded.json'),
        {
            'format': 1,
            'name': 'mnist',
            'version': '3.0.0',
            'image_shape': [28, 28, 1],
            'num_examples': COUNTS,
            'sha256': {split: files.sha256(path) for split, path in paths.items()},
        },
    )
    params = HParams(
        binarization='dynamic', latent_size=3, lstm_units=4, decoder_units=8, decoder_channels=2,
        batch_size=20, max_steps=4, save_checkpoints_steps=4, warmup_steps=2, num_threads=1,
        save_summary_steps=0, data_dir=data_dir, model_dir=str(tmp_path_factory.mktemp('model')),
    )  # fmt: skip
    data = PreparedDataset('mnist', '3.0.0', (28, 28, 1), paths, COUNTS)
    storage.save(params)
    training_run.make_estimator(params).train(
        lambda: inputs.train_input_fn(data, 20, 1, 0, params.binarization), max_steps=4
    )
    # As an evaluation during training would have left it.
    best = os.path.join(params.model_dir, 'export', 'best')
    os.makedirs(best)
    name = listing.keep_checkpoint(os.path.join(params.model_dir, 'model.ckpt-0'), best)
    state = {'negative_elbo': 9.5, 'global_step': 3, 'checkpoint': name, 'export': '1'}
    files.write_json(os.path.join(best, 'best.json'), state)
    return Run(params, data, tf.train.latest_checkpoint(params.model_dir))


# As `python -m trainer.evaluate`, but it saves after each image.
SAVES_OFTEN = """
import sys
from trainer import evaluate
from trainer.base import program
from trainer.evaluation import estimate
estimate._SECONDS_BETWEEN_SAVES = 0
evaluate.define_flags()
program.run(evaluate.main, sys.argv)
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable] + list(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )


def finish(process, code=0):
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return output, errors


def rows_in(path):
    """How many images a file of partial results knows."""
    if not os.path.exists(path):
        return 0
    with open(path, 'rb') as f:
        f.seek(32)
        return len(np.load(f)['rows'])


def without_times(path):
    record = files.read_json(path)
    assert record.pop('wall_seconds') > 0
    return record


@pytest.mark.slow
def test_a_killed_process_is_gone_on_with_to_the_same_result(run, tmp_path):
    output, unbroken = str(tmp_path / 'killed.json'), str(tmp_path / 'unbroken.json')
    settings = ['--model_dir=' + run.params.model_dir, '--importance_samples=1050', '--seed=4']
    killed = start('-c', SAVES_OFTEN, *settings, '--output=' + output)
    whole = start('-m', 'trainer.evaluate', *settings, '--output=' + unbroken)
    while rows_in(output + '.partial') < 3:
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not os.path.exists(output)
    assert 3 <= rows_in(output + '.partial') < COUNTS['test']
    printed, errors = finish(whole)
    assert 'image 30/30: negative importance-weighted bound ' in errors
    assert re.search(r'decoder passes/s, 00:00 left', errors)

    _, errors = finish(start('-m', 'trainer.evaluate', *settings, '--output=' + output))
    assert re.search(r'Going on after \d+ images', errors)
    assert without_times(output) == without_times(unbroken)
    assert sorted(os.listdir(str(tmp_path))) == ['killed.json', 'unbroken.json']

    assert report.table(files.read_json(unbroken)) in printed
    assert printed.endswith('\n' + unbroken + '\n')


def evaluated(run, output, samples=7, num_images=30, **facts):
    described = estimate.describe(
        run.data, 'test', num_images, samples, 1, run.checkpoint, run.params
    )
    return estimate.evaluate(
        run.checkpoint, run.data, dict(described, **facts), output, 2, run.params
    )


@pytest.fixture(scope='module')
def results(run, tmp_path_factory):
    """The file of an unbroken evaluation."""
    path = str(tmp_path_factory.mktemp('results') / 'results.json')
    evaluated(run, path)
    return path


def test_the_results_say_what_they_are_of(results):
    record = files.read_json(results)
    expected = {
        'checkpoint': 'model.ckpt-4', 'global_step': 4, 'dataset': 'mnist', 'split': 'test',
        'examples': 'images',
        'convention': 'dynamic binarisation', 'num_images': 30, 'images_in_split': 30,
        'log_likelihood': 'a log-probability of binary images', 'importance_samples': 7,
        'seed': 1, 'latent_size': 3, 'likelihood': 'bernoulli', 'prior': 'standard_normal',
        'kl_is': 'in closed form',
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected
    assert record['versions']['tensorflow'] == '1.14.0'
    assert record['wall_seconds'] > 0
    nll, elbo = record['negative_log_likelihood'], record['negative_elbo']
    assert 0 < nll['mean'] < elbo['mean']
    parts = record['reconstruction_loss']['mean'] + record['kl_divergence']['mean']
    assert elbo['mean'] == pytest.approx(parts)
    assert sum(record['kl_by_dimension']) == pytest.approx(record['kl_divergence']['mean'])
    assert 0 <= record['active_units'] <= 3
    assert os.listdir(os.path.dirname(results)) == ['results.json']

    table = report.table(record)
    assert table.startswith(
        'model.ckpt-4 (step 4) on the 30 test images of mnist, dynamic binarisation; 7 posterior '
        'samples each, seed 1\nlog p(x) is a log-probability of binary images\n'
    )
    line = 'negative log-likelihood +{:.2f} +{:.3f}\n'.format(nll['mean'], nll['standard_error'])
    assert re.search(line, table)


@pytest.mark.slow
def test_an_interrupted_evaluation_keeps_what_it_knows(run, results, tmp_path, monkeypatch, capsys):
    output = str(tmp_path / 'results.json')
    (tmp_path / 'results.json.partial').write_bytes(b'no partial results')

    class Interrupting(ImageProgress):
        def show(self, done, text, each, unit):
            if done == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(estimate, 'ImageProgress', Interrupting)
        with pytest.raises(KeyboardInterrupt):
            evaluated(run, output)
    assert 'is damaged' in capsys.readouterr().err
    assert rows_in(output + '.partial') == 5
    evaluated(run, output)
    assert 'Going on after 5 images' in capsys.readouterr().err
    assert without_times(output) == without_times(results)
    assert os.listdir(str(tmp_path)) == ['results.json']


def test_partial_results_belong_to_one_evaluation_and_are_checked(tmp_path, capsys):
    path = str(tmp_path / 'results.json.partial')
    rows = np.ones(20, importance_sampling.row_type(3))

    def kept(**facts):
        partial = PartialResults(path, dict({'seed': 1, 'split': 'test'}, **facts), rows.dtype)
        partial.save(rows, 5.5)
        return partial

    loaded, seconds = kept().load()
    np.testing.assert_array_equal(loaded, rows)
    assert (seconds, capsys.readouterr().err) == (5.5, '')

    partial = kept()
    kept(seed=2)
    assert [len(partial.load()[0]), partial.load()[1]] == [0, 0.0]
    assert 'is of another evaluation (seed was 2, is 1): beginning anew' in capsys.readouterr().err

    for damage in (lambda content: content[:-1], lambda content: b'', flip_a_bit):
        kept()
        with open(path, 'rb') as f:
            content = damage(f.read())
        with open(path, 'wb') as f:
            f.write(content)
        assert len(partial.load()[0]) == 0
        assert '{} is damaged: beginning anew'.format(path) in capsys.readouterr().err

    (tmp_path / 'results.json.partial.0123abcd.tmp').write_text('of a killed process')
    partial.remove()
    assert os.listdir(str(tmp_path)) == []


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_the_facts_tell_checkpoints_and_images_apart(run, tmp_path):
    facts = estimate.describe(run.data, 'test', 30, 7, 1, run.checkpoint, run.params)
    assert facts['checkpoint'] == 'model.ckpt-4'
    best = chosen.find_checkpoint(run.params.model_dir, 'best')
    of_best = estimate.describe(run.data, 'validation', 12, 7, 1, best, run.params)
    assert of_best['checkpoint'] == 'export/best/model.ckpt-0'
    assert of_best['dataset_sha256'] != facts['dataset_sha256']
    earlier = os.path.join(run.params.model_dir, 'model.ckpt-0')
    of_earlier = estimate.describe(run.data, 'test', 30, 7, 1, earlier, run.params)
    assert of_earlier['checkpoint_index_sha256'] != facts['checkpoint_index_sha256']
    json.dumps(of_earlier)

    assert estimate.default_name(facts, 'last') == 'evaluation_test_7.json'
    assert estimate.default_name(of_best, 'best') == 'evaluation_validation_7_best.json'
    subset = estimate.describe(run.data, 'test', 9, 7, 1, earlier, run.params)
    name = 'evaluation_test_7_model.ckpt-0_first_9.json'
    assert estimate.default_name(subset, earlier) == name
    assert 'a SUBSET, the first 9 of 30 test images' in report.title(subset)
    other = estimate.describe(run.data, 'test', 30, 7, 2, earlier, run.params)
    assert estimate.default_name(other, 'last') == 'evaluation_test_7_seed_2.json'


def test_a_subset_is_the_first_images_and_its_table_says_so(run, tmp_path):
    record = evaluated(run, str(tmp_path / 'subset.json'), num_images=9)
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = inputs.eval_input_fn(run.data, 'test', 9, 'dynamic', 9)
        posterior = vae.encode(dataset.make_one_shot_iterator().get_next()['images'], run.params)
        kl = posterior.kl_divergence(StandardNormal())
        tf.train.Saver().restore(session, run.checkpoint)
        expected = session.run(kl)
    assert record['kl_divergence']['mean'] == pytest.approx(expected.mean(), rel=1e-4)
    assert 'SUBSET' in report.table(record)


def test_a_model_of_nan_is_refused_in_one_sentence(run, tmp_path, monkeypatch):
    decode = vae.decode

    def broken(latents, params):
        return decode(latents * float('nan'), params)

    monkeypatch.setattr(vae, 'decode', broken)
    with pytest.raises(UserError, match='image 0 of the test split has no finite likelihood'):
        evaluated(run, str(tmp_path / 'results.json'))


def test_progress_is_a_bar_on_a_terminal_and_a_line_elsewhere(monkeypatch, capsys):
    progress = ImageProgress(40, 10)
    progress.show(20, 'fine', 5, 'passes')  # Too early for a line.
    progress.show(40, 'fine', 5, 'passes')
    progress.close()
    err = capsys.readouterr().err
    assert re.fullmatch(r'image 40/40: fine, [\d,]+ passes/s, 00:00 left\n', err)
    monkeypatch.setattr(console, '_has_terminal', lambda: True)
    progress = ImageProgress(40, 10)
    progress.show(40, 'fine', 5, 'passes')
    progress.close()
    last = capsys.readouterr().err.split('\r')[-1]
    assert re.search(r'image 40/40 100% \|.*\| fine, [\d,]+ passes/s, 00:00 left', last)


# Parses and runs many command lines in one process; prints a sentence for each.
MANY = """
import json, sys
from absl import flags
from trainer import evaluate
from trainer.base.errors import UserError
evaluate.define_flags()
for arguments in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        flags.FLAGS(['evaluate'] + arguments)
        evaluate.main([])
        print('nothing wrong')
    except (flags.Error, UserError) as error:
        print(str(error).replace('\\n', ' '))
"""


def test_bad_input_gets_one_sentence_each(run, tmp_path):
    folder = run.params.model_dir
    here = '--model_dir=' + folder
    broken = str(tmp_path / 'broken.ckpt-4')
    for part in tf.gfile.Glob(run.checkpoint + '.*'):
        tf.gfile.Copy(part, broken + part[len(run.checkpoint) :])
    with open(broken + '.data-00000-of-00001', 'r+b') as f:
        f.truncate(10)
    (tmp_path / 'file').write_text('')
    untrained = tmp_path / 'untrained'
    storage.save(dataclasses.replace(run.params, model_dir=str(untrained)))
    cases = [
        ([], 'model_dir'),
        (['--model_dir={}'.format(tmp_path)], 'holds no trained model'),
        (['--model_dir={}'.format(untrained)], 'holds no trained model'),
        (['--model_dir={}'.format(untrained), '--checkpoint=best'], '--checkpoint=best: '),
        ([here, '--split=all'], "'all'.*train, ?validation, ?test|train\\|validation\\|test"),
        ([here, '--importance_samples=0'], 'importance_samples.*0'),
        ([here, '--importance_samples=many'], 'importance_samples.*many'),
        ([here, '--num_images=-1'], 'num_images.*-1'),
        ([here, '--num_images=31'], '--num_images=31 must be at most 30, the test images of mnist'),
        ([here, '--seed=-1'], 'seed.*-1'),
        ([here, '--num_threads=-1'], 'num_threads.*-1'),
        ([here, '--checkpoint=' + folder + '/model.ckpt-3'], 'model.ckpt-3: there is no such'),
        ([here, '--checkpoint=' + broken], 'broken.ckpt-4 is broken, or not of the model'),
        ([here, '--output={}'.format(tmp_path)], '--output={} is a folder'.format(tmp_path)),
        (
            [here, '--output={}/file/x'.format(tmp_path)],
            '--output={}/file/x cannot be written .*Not a directory'.format(tmp_path),
        ),
    ]
    done = subprocess.run(
        [sys.executable, '-c', MANY],
        input=json.dumps([arguments for arguments, _ in cases]),
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    sentences = done.stdout.splitlines()
    assert len(sentences) == len(cases)
    for sentence, (arguments, expected) in zip(sentences, cases):
        assert re.search(expected, sentence), (arguments, sentence)
