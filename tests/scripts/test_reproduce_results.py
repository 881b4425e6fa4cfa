"""A rehearsal of scripts/reproduce_results."""

import json
import math
import os
import subprocess
import sys

import pytest

from scripts import ROOT


def reproduce(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'scripts', 'reproduce_results'), *arguments],
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    return done


def test_an_unknown_row_is_refused(tmp_path):
    error = reproduce('--results_dir={}'.format(tmp_path), '--only=grey-3', code=1).stderr
    assert "--only=grey-3: there is no row 'grey-3'; choose among grey-2, " in error
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.slow
def test_a_row_is_what_its_commands_left_and_is_not_made_twice(small_mnist_data_dir, tmp_path):
    arguments = [
        '--results_dir={}'.format(tmp_path), '--only=dynamic-50-flow-hour', '--max_steps=3',
        '--importance_samples=2', '--data_dir=' + small_mnist_data_dir,
    ]  # fmt: skip
    first, second = [reproduce(*arguments) for _ in range(2)]
    assert first.stderr.count('dynamic-50-flow-hour: python -m trainer.') == 2
    assert not second.stderr
    row = second.stdout.splitlines()[-1]
    assert first.stdout.splitlines()[-1] == row
    with open(str(tmp_path / 'dynamic-50-flow-hour' / 'results.json')) as f:
        record = json.load(f)
    with open(str(tmp_path / 'dynamic-50-flow-hour' / 'evaluation_test_2.json')) as f:
        estimate = json.load(f)['negative_log_likelihood']
    cells = [cell.strip() for cell in row.split('|')]
    assert cells[1].startswith('`--binarization=dynamic --latent_size=50 --max_steps=120000 ')
    assert cells[2] == record['convention'] == 'dynamic binarisation'
    assert cells[3].startswith('{:.2f} = '.format(record['test']['negative_elbo']))
    assert cells[4] == '{mean:.2f} ± {standard_error:.2f}'.format(**estimate)


@pytest.mark.slow
def test_a_row_of_what_was_tried_is_of_validation_images(small_mnist_data_dir, tmp_path):
    done = reproduce(
        '--results_dir={}'.format(tmp_path), '--only=tried-path', '--max_steps=3',
        '--importance_samples=2', '--num_images=10', '--data_dir=' + small_mnist_data_dir,
    )  # fmt: skip
    losses, estimates = [], []
    for seed in (1, 2, 3):
        folder = tmp_path / 'tried-path-seed{}'.format(seed)
        with open(str(folder / 'results.json')) as f:
            losses.append(json.load(f)['validation']['negative_elbo'])
        with open(str(folder / 'evaluation_validation_2.json')) as f:
            estimates.append(json.load(f)['negative_log_likelihood']['mean'])
    head, _, row = done.stdout.splitlines()[-3:]
    assert '| validation negative ELBO = reconstruction + KL | -log p(x), 2 samples |' in head
    cells = [cell.strip() for cell in row.split('|')]
    assert cells[3].startswith('{:.2f} = '.format(sum(losses) / 3))
    assert cells[4].startswith('{:.2f} ± '.format(sum(estimates) / 3))
    assert cells[4].endswith('({:.2f} to {:.2f})'.format(min(estimates), max(estimates)))


@pytest.mark.slow
def test_of_several_seeds_there_are_means_and_of_dequantised_levels_bits(
    small_mnist_data_dir, tmp_path
):
    done = reproduce(
        '--results_dir={}'.format(tmp_path), '--only=grey-32-normal', '--max_steps=3',
        '--data_dir=' + small_mnist_data_dir,
    )  # fmt: skip
    losses = []
    for seed in (1, 2, 3):
        with open(str(tmp_path / 'grey-32-normal-seed{}'.format(seed) / 'results.json')) as f:
            losses.append(json.load(f)['test']['negative_elbo'])
    cell = done.stdout.splitlines()[-1].split('|')[3].strip()
    mean = sum(losses) / 3
    assert cell.startswith('{:.2f} = '.format(mean))
    text = '({:.2f} to {:.2f}); {:.3f} bits per dimension'
    assert cell.endswith(text.format(min(losses), max(losses), mean / 784 / math.log(2) + 8))
