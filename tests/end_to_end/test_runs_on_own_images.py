"""Training on images of one's own, as processes: killed, moved, and without its source."""

import glob
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.end_to_end.test_end_to_end import finish, start
from tests.support import own
from trainer.checkpoints import listing
from trainer.settings import storage

pytestmark = pytest.mark.slow

TINY = [
    '--max_steps=40', '--save_checkpoints_steps=10', '--lstm_units=8', '--latent_size=2',
    '--decoder_units=16', '--decoder_channels=4', '--batch_size=32', '--warmup_steps=1',
    '--evaluation_samples=1',
]  # fmt: skip


def kill_after_a_checkpoint(process, model_dir):
    while listing.start_step(model_dir) < 10:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()


def recorded(model_dir):
    with open(os.path.join(model_dir, 'results.json')) as f:
        return json.load(f)


def test_a_folder_of_pictures(tmp_path):
    """Of two sizes; its run is killed, its source moved and then removed."""
    source, model_dir = str(tmp_path / 'my pictures'), str(tmp_path / 'run')
    for kind, shape in (('cats', (9, 7, 3)), ('dogs', (12, 10, 3))):
        own.write_folder(source, own.pictures(150, shape), kind + '/{}.png')
    flags = [*TINY, f'--model_dir={model_dir}', f'--data_dir={tmp_path}/data', '--image_size=9x7']
    kill_after_a_checkpoint(start('trainer.task', f'--source={source}', *flags), model_dir)
    os.rename(source, source + ' moved')
    output, errors = finish(start('trainer.task', f'--source={source} moved', *flags))
    assert 'going to step 40 on my-pictures-moved' in errors and 'decoding' not in errors
    results = recorded(model_dir)
    assert results['global_step'] == 40
    params = storage.load(model_dir)
    assert params.image_shape == (9, 7, 3) and params.dataset == ''
    with open(os.path.join(model_dir, 'projector', 'metadata.tsv')) as f:
        assert {line.split('\t')[0] for line in f} == {'label', 'cats', 'dogs'}

    other = own.write_folder(tmp_path / 'other', own.pictures(130, (9, 7, 3), seed=3))
    refused = start('trainer.task', f'--source={other}', *flags)
    _, errors = finish(refused, 1)
    assert '--source of other images' in errors.split('\n')[-2]

    export = glob.glob(os.path.join(model_dir, 'export', 'final', '*'))[0]
    output, _ = finish(
        start('trainer.predict', f'--images={source} moved/dogs', f'--export_dir={export}')
    )
    assert len(output.split('\n')) == 152
    shutil.rmtree(source + ' moved')
    output, _ = finish(
        start('trainer.evaluate', f'--model_dir={model_dir}', '--importance_samples=2')
    )
    assert 'my-pictures' in output
    finish(start('trainer.generate', f'--model_dir={model_dir}', '--mode=reconstruct'))
    flags[0] = '--max_steps=45'
    finish(start('trainer.task', f'--source={source} moved', *flags))
    assert recorded(model_dir)['global_step'] == 45


def test_an_array_of_floats(tmp_path):
    source = own.write_array(
        tmp_path / 'readings.npy', np.random.RandomState(0).rand(300, 10, 6).astype('>f8')
    )
    model_dir = str(tmp_path / 'run')
    flags = [*TINY, f'--data_dir={tmp_path}/data', '--likelihood=normal']
    finish(start('trainer.task', f'--source={source}', f'--model_dir={model_dir}', *flags))
    assert recorded(model_dir)['global_step'] == 40
    assert glob.glob(os.path.join(str(tmp_path), 'data', 'sources', '*', 'train.float32'))
    export = glob.glob(os.path.join(model_dir, 'export', 'final', '*'))[0]
    verify = os.path.join(export, 'assets.extra', 'verify_export.py')
    subprocess.run([sys.executable, verify], check=True, cwd=str(tmp_path))


def test_a_series(tmp_path):
    """Its run is killed, its file moved and then removed; of other rows nothing is trained."""
    source, model_dir = str(tmp_path / 'pump 1.csv'), str(tmp_path / 'run')
    time = np.arange(1500)
    readings = np.stack([20 + 3 * np.sin(time / 4), 1e3 + np.cos(time / 9)], axis=1)
    np.savetxt(source, readings, '%.4f', ',', header='heat,pressure', comments='')
    flags = [*TINY, f'--model_dir={model_dir}', f'--data_dir={tmp_path}/data', '--window=9']
    kill_after_a_checkpoint(start('trainer.task', f'--source={source}', *flags), model_dir)
    os.rename(source, source[:-4] + ' moved.csv')
    source = source[:-4] + ' moved.csv'
    _, errors = finish(start('trainer.task', f'--source={source}', *flags))
    assert 'going to step 40 on pump-1-moved (standardised readings)' in errors
    assert 'reading' not in errors.replace('standardised readings', '')
    results, params = recorded(model_dir), storage.load(model_dir)
    assert results['global_step'] == 40 and results['thresholds']['rows']['images'] == 125
    assert params.image_shape == (9, 1, 2) and params.likelihood == 'normal_by_column'
    assert [name for name, _, _ in params.scaling] == ['heat', 'pressure']

    other = str(tmp_path / 'other.csv')
    np.savetxt(other, readings + 1, '%.4f', ',', header='heat,pressure', comments='')
    for given in ([f'--source={other}', *flags], [f'--source={source}', *flags, '--stride=2']):
        _, errors = finish(start('trainer.task', *given), 1)
        assert 'holds a run with other settings' in errors.split('\n')[-2]

    os.unlink(source)
    for program in ('evaluate', 'generate', 'export'):
        more = {'evaluate': ['--importance_samples=2'], 'generate': ['--mode=reconstruct']}
        finish(start(f'trainer.{program}', f'--model_dir={model_dir}', *more.get(program, [])))
    for export in glob.glob(os.path.join(model_dir, 'export', 'final', '*')):
        verify = os.path.join(export, 'assets.extra', 'verify_export.py')
        assert subprocess.run([sys.executable, verify]).returncode == 0
