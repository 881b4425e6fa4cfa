"""Fixtures shared by all tests."""

import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# `pytest` alone, unlike `python -m pytest`, does not put the project's folder on the path.
sys.path.insert(0, ROOT)

# What a developer's shell, or a job of a cloud or cluster, sets for programs like ours does not
# reach those that the tests start. PYTHONPATH is of scripts/run.
_STEERING = ('AIP_', 'CLOUD_ML_', 'CLUSTER_SPEC', 'MATPLOTLIBRC', 'MPL', 'PYTHON', 'TF_', 'VAE_')
_KEPT = ('PYTHONPATH', 'VAE_PYTHON', 'VAE_TEST_DATA', 'VAE_VENV')
for _name in [name for name in os.environ if name.startswith(_STEERING) and name not in _KEPT]:
    del os.environ[_name]
# To compile all modules of an environment takes longer than a test that makes one uses it.
os.environ['PIP_COMPILE'] = '0'

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from trainer.data import prepare  # noqa: E402

_START = time.monotonic()
_SLOW_MINUTES = float(os.environ.get('SLOW_MINUTES', 'inf'))


def pytest_addoption(parser):
    text = 'of tests/faults: all rows of the table, as often as each says, in place of a sample'
    parser.addoption('--all_attempts', action='store_true', help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    is_over = time.monotonic() - _START > 60 * _SLOW_MINUTES
    if is_over and item.get_closest_marker('slow'):
        pytest.skip(f'the {_SLOW_MINUTES:g} minutes of SLOW_MINUTES are over')


@pytest.fixture(scope='session')
def mnist_data_dir(request, tmp_path_factory):
    """A data folder that holds the real MNIST, prepared the usual way; for `--data_dir`.

    Kept between runs: in the folder named by VAE_TEST_DATA, else in pytest's cache. Skips where
    the data is neither there nor to be had.
    """
    folder = os.environ.get('VAE_TEST_DATA')
    if not folder:
        cache = getattr(request.config, 'cache', None)
        folder = str(cache.mkdir('vae-data') if cache else tmp_path_factory.mktemp('vae-data'))
    # A process of its own, because tests put other data in place of MNIST's in this one.
    done = subprocess.run(
        [sys.executable, '-m', 'trainer.prepare_data', '--data_dir=' + folder],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    if 'no source has it' in done.stderr:
        pytest.skip('no real MNIST: {}'.format(done.stderr.splitlines()[-1]))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='session')
def prepared_mnist(mnist_data_dir):
    """The real MNIST as a PreparedDataset: 55,000 train, 5,000 validation, 10,000 test images."""
    return prepare.prepare('mnist', mnist_data_dir)


@pytest.fixture(scope='session')
def small_mnist_data_dir(tmp_path_factory):
    """A data folder in which mnist is 264 images, which a run evaluates in no time."""
    from tests.support import datasets  # Registers datasets, for those that ask for them alone.

    folder = tmp_path_factory.mktemp('small-mnist')
    idx_dir, data_dir = datasets.write_idx(folder / 'idx'), str(folder / 'data')
    # A process of its own, for the thread pools of this one.
    subprocess.run(
        [sys.executable, '-m', 'tests.support.datasets', idx_dir, data_dir],
        check=True,
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    return data_dir


@pytest.fixture
def own_graph():
    """A default graph of the test's own, with a seed and a global step."""
    with tf.Graph().as_default():
        tf.set_random_seed(1)
        tf.train.create_global_step()
        yield
