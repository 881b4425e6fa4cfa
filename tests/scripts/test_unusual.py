"""A rehearsal of scripts/benchmark/unusual.py."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT


def rehearsed(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, 'scripts/benchmark/unusual.py', *arguments],
        capture_output=True, text=True, timeout=1800, cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    return done


def test_what_is_no_row_is_refused(tmp_path):
    where = f'--results_dir={tmp_path}'
    error = rehearsed(where, '--only=mnist,cifar', code=1).stderr
    assert "--only=mnist,cifar: there is no row 'cifar'; choose among mnist, " in error
    assert os.listdir(str(tmp_path)) == []


def detected(*names):
    """A row as `trainer.evaluate --against` leaves it, of the sets of these names."""
    areas = {'auroc': 0.25, 'auroc_standard_error': 0.01, 'mean': 9.0}
    areas.update(average_precision=0.5, average_precision_standard_error=0.02)
    scores = {'negative_elbo': areas, 'kl_divergence': dict(areas, auroc=0.75)}
    return {'against': [{'name': name, 'scores': scores} for name in names]}


@pytest.mark.slow
def test_what_is_there_is_only_read(small_mnist_data_dir, tmp_path):
    for name in ('digit-1.npz', 'digit-1.npy', 'not-1.npy', 'mnist-background.npz'):
        (tmp_path / 'arrays').mkdir(exist_ok=True)
        (tmp_path / 'arrays' / name).write_bytes(b'')
    for name in ('mnist', 'mnist-background', 'digit-1', 'digit-6'):
        (tmp_path / 'runs' / name).mkdir(parents=True)
        (tmp_path / 'runs' / name / 'results.json').write_text('{}')
    (tmp_path / 'rows').mkdir()
    rows = {
        'mnist': detected('fashion_mnist', 'black'), 'digit-1-of-mnist': detected('digit-1'),
        'digit-1': detected('not-1'), 'digit-6': detected('not-6'),
    }  # fmt: skip
    for name, row in rows.items():
        (tmp_path / 'rows' / (name + '.json')).write_text(json.dumps(row))
    done = rehearsed(
        f'--results_dir={tmp_path}', f'--data_dir={small_mnist_data_dir}', '--only=mnist,digits',
        '--digits=1,6', '--importance_samples=7',
    )  # fmt: skip
    assert 'python -m' not in done.stderr
    tables = done.stdout.split('\n\n')[1:]
    assert [len(table.splitlines()) for table in tables] == [5, 5, 5]
    auroc, precision, of_digits = [table.splitlines() for table in tables]
    assert auroc[0].startswith('| AUROC: trained on | against | negative ELBO | reconstruction |')
    assert '| bound, 7 samples |' in auroc[0]
    assert auroc[3] == '| MNIST | black images | 0.250 ± 0.010 |  | 0.750 ± 0.010 |  |  |  |'
    assert auroc[4].startswith('| MNIST | digit 1, against the other digits | ')
    assert precision[2].startswith('| MNIST | Fashion-MNIST | 0.500 ± 0.020 | ')
    assert of_digits[0] == '| AUROC: usual digit | negative ELBO | KL | OC-SVM | Deep SVDD |'
    assert of_digits[2] == '| 1 | 0.250 ± 0.010 | 0.750 ± 0.010 | 0.995 | 0.997 |'
    assert of_digits[4] == '| mean | 0.250 ± 0.007 | 0.750 ± 0.007 | 0.980 | 0.990 |'


@pytest.mark.slow
def test_a_row_is_what_its_commands_left(small_mnist_data_dir, tmp_path):
    # All labels of the small MNIST are 0.
    (tmp_path / 'arrays').mkdir()
    images = np.random.RandomState(1).randint(0, 256, [20, 28, 28]).astype(np.uint8)
    np.save(str(tmp_path / 'arrays' / 'not-0'), images)
    arguments = [
        f'--results_dir={tmp_path}', f'--data_dir={small_mnist_data_dir}', '--only=digits',
        '--digits=0', '--max_steps=1',
    ]  # fmt: skip
    done = rehearsed(*arguments)
    assert done.stderr.count('-m trainer.') == 2
    with open(str(tmp_path / 'rows' / 'digit-0.json')) as f:
        (row,) = json.load(f)['against']
    assert (row['name'], row['num_images']) == ('not-0', 20)
    text = '| 0 | {auroc:.3f} ± {auroc_standard_error:.3f} | '
    assert done.stdout.splitlines()[-2].startswith(text.format(**row['scores']['negative_elbo']))
    assert 'x_train' in np.load(str(tmp_path / 'arrays' / 'digit-0.npz'))
    assert not np.load(str(tmp_path / 'arrays' / 'black.npy')).any()
