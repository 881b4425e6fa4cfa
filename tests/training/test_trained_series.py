"""Training on a series: no order of its columns is better than another."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.support import own, tiny
from trainer.data import inputs
from trainer.settings import rules
from trainer.training import run

pytestmark = pytest.mark.slow
SEEDS = (1, 2, 3, 4)


def write(path, order):
    """Four columns, two of which follow the others."""
    random, time = np.random.RandomState(0), np.arange(3000)
    first, second = np.sin(time / 5), np.sign(np.sin(time / 17))
    columns = [first, second, first * second + 0.1 * random.randn(3000), 5 - first]
    table = np.stack([columns[number] for number in order], axis=1)
    np.savetxt(
        str(path), table, '%.5f', ',', header=','.join('abcd'[n] for n in order), comments=''
    )
    return str(path)


def losses(folder, order):
    """The negative ELBO of the validation windows after a short training, by seed."""
    data = own.prepared(write(folder / 'r.csv', order), folder / 'data', window=12)
    found = []
    for seed in SEEDS:
        small = tiny.params_in(
            folder / f'run{seed}', seed=seed, max_steps=250, save_checkpoints_steps=250,
            batch_size=64, latent_size=4, lstm_units=24, decoder_units=32, decoder_channels=8,
            likelihood=rules.UNDECIDED, source=str(folder / 'r.csv'), dataset='',
        )  # fmt: skip
        params = rules.with_data(small, data.image_shape, data.scaling, data.digest)
        tiny.trained(data, dataclasses.replace(params, evaluation_samples=1))
        metrics = run.make_estimator(params).evaluate(
            lambda: inputs.eval_input_fn(data, 'validation', 500, 'none'),
            checkpoint_path=tf.train.latest_checkpoint(params.model_dir),
        )
        found.append(metrics['elbo/negative_elbo'])
    return np.array(found)


def test_the_order_of_columns_changes_results_within_the_range_of_seeds(tmp_path):
    folders = [tmp_path / 'usual', tmp_path / 'permuted']
    for folder in folders:
        folder.mkdir()
    usual, permuted = losses(folders[0], (0, 1, 2, 3)), losses(folders[1], (2, 0, 3, 1))
    assert usual.max() < 0.8 * 12 * 4 * 1.42  # Below the entropy of N(0, 1): something was learned.
    spread = max(np.ptp(usual), np.ptp(permuted))
    assert abs(np.mean(usual) - np.mean(permuted)) < spread, (usual, permuted)
