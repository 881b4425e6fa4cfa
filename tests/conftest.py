"""Fixtures shared by all tests."""

import os
import sys

# `pytest` alone, unlike `python -m pytest`, does not put the project's folder on the path.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest  # noqa: E402

from trainer import prepare_data  # noqa: E402
from trainer.errors import UserError  # noqa: E402


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
    try:
        prepare_data.prepare('mnist', folder)
    except UserError as error:
        pytest.skip('no real MNIST: {}'.format(error))
    return folder


@pytest.fixture(scope='session')
def prepared_mnist(mnist_data_dir):
    """The real MNIST as a PreparedDataset: 55,000 train, 5,000 validation, 10,000 test images."""
    return prepare_data.prepare('mnist', mnist_data_dir)
