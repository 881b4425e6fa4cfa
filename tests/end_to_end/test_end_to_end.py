"""A run of trainer.task that is killed and goes on, on the real MNIST, and what it leaves."""

import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.support.paths import ROOT
from trainer.checkpoints import listing
from trainer.data.inputs import eval_input_fn
from trainer.settings import storage
from trainer.training import run as training_run

pytestmark = pytest.mark.slow

STEPS = 300
SETTINGS = [
    '--max_steps={}'.format(STEPS), '--save_checkpoints_steps=100', '--lstm_units=32',
    '--latent_size=2', '--decoder_units=64', '--decoder_channels=8', '--learning_rate=0.01',
    '--warmup_steps=20', '--evaluation_samples=1',
]  # fmt: skip


def start(module, *arguments):
    return subprocess.Popen(
        [sys.executable, '-m', module] + list(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
        cwd=ROOT,
    )


def finish(process, code=0):
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == code, errors
    assert 'Traceback' not in errors
    assert 'WARNING' not in errors, errors
    return output, errors


class Run:
    """A run that was killed once and then went on to its end."""

    def __init__(self, model_dir, data_dir):
        self.model_dir = model_dir
        self.settings = SETTINGS + ['--model_dir=' + model_dir, '--data_dir=' + data_dir]
        killed = start('trainer.task', *self.settings)
        self.wait_for(killed, 'model.ckpt-100.index')
        time.sleep(0.5)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        self.step_when_killed = listing.start_step(model_dir)
        self.output, self.errors = finish(start('trainer.task', *self.settings))

    def wait_for(self, process, name):
        deadline = time.monotonic() + 900
        while not os.path.exists(self.path(name)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def path(self, *names):
        return os.path.join(self.model_dir, *names)

    @property
    def results(self):
        with open(self.path('results.json')) as f:
            return json.load(f)


@pytest.fixture(scope='module')
def run(tmp_path_factory, mnist_data_dir):
    return Run(str(tmp_path_factory.mktemp('run') / 'model'), mnist_data_dir)


def png(path):
    with tf.Graph().as_default(), tf.Session() as session, open(path, 'rb') as f:
        return session.run(tf.image.decode_png(f.read()))


def test_killed_run_resumes_and_ends_at_max_steps(run):
    assert 100 <= run.step_when_killed < STEPS
    assert 'Resuming {} at step {}'.format(run.model_dir, run.step_when_killed) in run.errors
    assert run.results['global_step'] == STEPS
    assert run.results['first_step'] == run.step_when_killed


def test_it_has_learned(run):
    # A decoder that knows nothing but each pixel's mean over MNIST has 206 nats.
    for split in ('train', 'validation', 'test'):
        metrics = run.results[split]
        assert 100 < metrics['negative_elbo'] < 190
        assert metrics['negative_elbo'] == pytest.approx(
            metrics['reconstruction_loss'] + metrics['kl_divergence'], rel=1e-5
        )
    assert run.results['best']['test']['negative_elbo'] < 190


def test_results_and_table_agree(run):
    table = re.search(r'^test +([\d.]+) = ([\d.]+) \+ ([\d.]+)$', run.output, re.MULTILINE)
    names = ['negative_elbo', 'reconstruction_loss', 'kl_divergence']
    expected = [run.results['test'][name] for name in names]
    np.testing.assert_allclose([float(value) for value in table.groups()], expected, atol=0.006)
    for name in ('training_seconds', 'wall_seconds', 'cpu_seconds', 'parameters', 'versions'):
        assert run.results[name]
    assert 0 < run.results['training_time_share'] <= 1


def test_thresholds_are_those_of_the_final_export(run, prepared_mnist):
    found = run.results['thresholds']
    assert found['images'] == found['images_in_split'] == prepared_mnist.num_examples['validation']
    (extra,) = glob.glob(run.path('export', 'final', '[0-9]*', 'assets.extra'))
    with open(os.path.join(extra, 'thresholds.json')) as f:
        assert json.load(f) == found
    ordered = np.load(os.path.join(extra, 'validation_scores.npy'))
    (of_99,) = [row for row in found['quantiles'] if row['quantile'] == 0.99]
    assert of_99['nats'] == ordered[int(np.ceil(0.99 * (len(ordered) + 1))) - 1]
    assert f'above {of_99["nats"]:.2f} nats' in run.output


def test_every_artifact_is_there_and_named_in_the_table(run):
    sizes = {'new_images': 280, 'reconstructions': 280, 'latent_manifold': 560}
    for name, side in sizes.items():
        picture = png(run.path(name + '.png'))
        assert picture.shape == (side, side, 1)
        assert picture.max() > 128
    assert png(run.path('training_curves.png')).shape[0] == 400
    for name in ('results.json', 'hyper_parameters.json', 'latent_manifold.png'):
        assert run.path(name) in run.output
    assert sorted(os.path.basename(path) for path in glob.glob(run.path('new_model.ckpt*'))) == [
        'new_model.ckpt.data-00000-of-00001', 'new_model.ckpt.index', 'new_model.ckpt.meta'
    ]  # fmt: skip
    assert glob.glob(run.path('**', '*.tmp'), recursive=True) == []
    with open(run.path('checkpoint')) as f:
        assert 'new_model' not in f.read()


@pytest.mark.parametrize('kind', ['final', 'best'])
def test_exports_reload_and_reproduce_predict(run, kind, prepared_mnist):
    params = storage.load(run.model_dir)
    estimator = training_run.make_estimator(params)
    folder = sorted(glob.glob(run.path('export', kind, '[0-9]*')))[-1]
    with tf.Graph().as_default(), tf.Session() as session:
        batch = eval_input_fn(prepared_mnist, 'test', 20, 'none', num_examples=20)
        images = session.run(batch.make_one_shot_iterator().get_next()['images'])
        meta_graph = tf.saved_model.load(session, ['serve'], folder)
        signature = meta_graph.signature_def['serving_default']
        served = session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {signature.inputs['images'].name: images},
        )
    # The run improves all the way, so its best model is its final one.
    assert run.results['best']['global_step'] == STEPS
    predicted = list(
        estimator.predict(
            lambda: eval_input_fn(prepared_mnist, 'test', 20, 'none', num_examples=20)
        )
    )
    assert served['reconstruction'].shape == (20, 28, 28)
    for name, values in served.items():
        expected = np.stack([row[name] for row in predicted])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_generate_draws_again_without_training(run, tmp_path):
    before = sorted(os.listdir(run.model_dir))
    pictures = []
    for name, seed in [('a', 5), ('b', 5), ('c', 6)]:
        path = str(tmp_path / (name + '.png'))
        output, _ = finish(
            start(
                'trainer.generate', '--model_dir=' + run.model_dir, '--num_images=9',
                '--seed={}'.format(seed), '--output=' + path,
            )
        )  # fmt: skip
        assert path in output
        pictures.append(png(path))
    assert pictures[0].shape == (84, 84, 1)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.any(pictures[0] != pictures[2])
    assert sorted(os.listdir(run.model_dir)) == before


def test_generate_refuses_a_folder_without_a_model(tmp_path):
    _, errors = finish(start('trainer.generate', '--model_dir={}'.format(tmp_path)), code=1)
    assert 'error: ' in errors and str(tmp_path) in errors


def test_a_finished_run_says_so_and_draws_again(run):
    # Last of the file: it replaces results.json, keeping the times of training.
    before = run.results
    os.remove(run.path('new_images.png'))
    _, errors = finish(start('trainer.task', *run.settings))
    assert 'already reached step {}'.format(STEPS) in errors
    assert os.path.exists(run.path('new_images.png'))
    assert run.results == before


def test_another_latent_size_is_refused(run):
    _, errors = finish(start('trainer.task', *(run.settings + ['--latent_size=3'])), code=1)
    assert '--latent_size=3 (was 2)' in errors
