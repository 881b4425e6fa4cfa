"""Data and model on gs://, through TensorFlow 1.14's own client, over a slow and failing bucket."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from tests.support import datasets, fake_gcs
from tests.support.paths import ROOT
from trainer.monitoring import curves

pytestmark = pytest.mark.slow

SETTINGS = [
    '--latent_size=2', '--lstm_units=4', '--decoder_units=8', '--decoder_channels=2',
    '--batch_size=20', '--max_steps=10', '--save_checkpoints_steps=5', '--warmup_steps=1',
    '--save_summary_steps=5',
]  # fmt: skip
# As scripts/submit has the service set them for --output=gs://my-bucket/run.
JOB = {
    'AIP_TENSORBOARD_LOG_DIR': 'gs://my-bucket/run/logs/',
    'AIP_MODEL_DIR': 'gs://my-bucket/run/model/',
}

TAG = 'elbo/negative_elbo'


@pytest.fixture(scope='module')
def bucket(tmp_path_factory):
    fake_gcs.skip_unless_possible()
    with fake_gcs.running(tmp_path_factory.mktemp('bucket')) as running:
        yield running


def start(bucket, *arguments, **environ):
    return bucket.start(sys.executable, *arguments, PYTHONPATH=ROOT, **environ)


def finish(process):
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    return output, errors


@pytest.fixture(scope='module')
def data(bucket, tmp_path_factory):
    """A small MNIST, prepared on gs:// from IDX files."""
    idx_dir = datasets.write_idx(tmp_path_factory.mktemp('idx'))
    output, _ = finish(
        start(bucket, '-m', 'tests.support.datasets', idx_dir, 'gs://my-bucket/tfds')
    )
    assert output == '220\n'
    return idx_dir


@pytest.fixture(scope='module')
def run(bucket, data):
    """A run that is killed after its first checkpoint, then resumed while the bucket misbehaves."""
    command = ['-m', 'trainer.task', '--data_dir=gs://my-bucket/tfds', *SETTINGS]
    killed = start(bucket, *command, **JOB)
    deadline = time.monotonic() + 900
    while b'model.ckpt-5' not in bucket.objects.get('run/logs/checkpoint', b''):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    before = len(bucket.statuses)
    bucket.fail_every, bucket.delay_seconds = 40, 0.02
    _, errors = finish(start(bucket, *command, **JOB))
    bucket.fail_every, bucket.delay_seconds = 0, 0.0
    assert 'Resuming gs://my-bucket/run/logs at step 5' in errors
    assert bucket.statuses[before:].count(503) >= 5
    return errors


def test_data_prepared_on_gs_are_the_images(bucket, data):
    images = datasets.numbered_images(240, (28, 28))
    stored = [bucket.objects['tfds/mnist/3.0.0-decoded/{}.uint8'.format(s)] for s in
              ('train', 'validation')]  # fmt: skip
    assert sorted(datasets.numbers_of(
        np.frombuffer(b''.join(stored), np.uint8).reshape(240, 28, 28)
    )) == sorted(datasets.numbers_of(images))  # fmt: skip


def test_a_killed_run_ends_as_an_unbroken_one_on_a_local_disk(bucket, run, tmp_path):
    copy(bucket, 'tfds', tmp_path / 'tfds')
    command = ['-m', 'trainer.task', '--data_dir={}/tfds'.format(tmp_path), *SETTINGS]
    subprocess.run(
        [sys.executable, *command, '--model_dir={}/run'.format(tmp_path)],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    local = json.loads((tmp_path / 'run' / 'results.json').read_text())
    remote = json.loads(bucket.objects['run/logs/results.json'].decode())
    for split in ('train', 'validation', 'test', 'best'):
        assert remote[split] == local[split]
    assert (remote['global_step'], remote['first_step']) == (10, 5)
    # The same artifacts, by the same names but for the times in them.
    names = {name for name in os.listdir(str(tmp_path / 'run')) if not name.startswith('events')}
    names.remove('.lock')  # gs:// has none.
    assert names <= {name.split('/')[0] for name in bucket.below('run/logs')}
    # Also not what was being written when it was killed.
    assert not [name for name in bucket.below('run') if 'tmp' in name or 'temp' in name]
    for name in names:
        if name.endswith('.png') and name != 'training_curves.png':
            assert bucket.objects['run/logs/' + name] == (tmp_path / 'run' / name).read_bytes()


def copy(bucket, prefix, folder):
    """Copies what is below `prefix` in the bucket to a local folder."""
    for name in bucket.below(prefix):
        if name and not name.endswith('/'):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bucket.objects['{}/{}'.format(prefix, name)])


def test_the_published_model_loads_and_serves(bucket, run, tmp_path):
    copy(bucket, 'run/model', tmp_path)
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, ['serve'], str(tmp_path))
        signature = loaded.signature_def['serving_default']
        images = np.zeros([3, 28, 28], np.float32)
        feed = {signature.inputs['images'].name: images}
        loss = session.run(signature.outputs['negative_elbo'].name, feed)
    assert loss.shape == (3,)
    assert np.isfinite(loss).all()


def test_event_files_on_gs_hold_the_curves(bucket, run, tmp_path):
    # Of the resumed part: what a killed process had not flushed, every two minutes, is lost.
    copy(bucket, 'run/logs', tmp_path)
    train = curves.read_curves(str(tmp_path), [TAG])[TAG]
    assert train.steps[-1] > 5
    validation = curves.read_curves(str(tmp_path / 'eval_validation'), [TAG])
    assert validation[TAG].steps[-1] == 10


def test_tensorboard_reads_gs(bucket, run):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    def ask(path):
        address = 'http://127.0.0.1:{}/data/plugin/{}'.format(port, path)
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.read()

    board = bucket.start(
        os.path.join(os.path.dirname(sys.executable), 'tensorboard'),
        '--logdir=gs://my-bucket/run/logs', '--host=127.0.0.1', '--port={}'.format(port),
    )  # fmt: skip
    try:
        tags, deadline = {}, time.monotonic() + 300
        while TAG not in tags.get('eval_validation', {}):
            assert time.monotonic() < deadline, tags
            assert board.poll() is None, board.communicate()
            time.sleep(0.5)
            try:
                tags = json.loads(ask('scalars/tags').decode())
            except (urllib.error.URLError, socket.timeout):
                continue
        assert {TAG, 'elbo/kl_divergence', 'optimizer/learning_rate'} <= set(tags['.'])
        query = '?run=.&name=posterior_mean&num_rows=20'
        shape = json.loads(ask('projector/info?run=.').decode())['embeddings'][0]['tensorShape']
        assert len(ask('projector/tensor' + query)) == 4 * shape[0] * shape[1] > 0
        assert ask('projector/metadata' + query).startswith(b'label\tindex\n')
        assert ask('projector/sprite_image' + query).startswith(b'\x89PNG')
    finally:
        board.kill()
        board.communicate()
