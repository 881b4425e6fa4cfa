"""setup.py: the installed package runs from any folder, without the checkout."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_installed_package_runs_from_another_folder(tmp_path):
    source, installed = tmp_path / 'source', tmp_path / 'installed'
    source.mkdir()
    shutil.copytree(os.path.join(ROOT, 'trainer'), str(source / 'trainer'))
    shutil.copy(os.path.join(ROOT, 'setup.py'), str(source))
    # What it needs is here already, and so is what builds it.
    pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.check_call([sys.executable, *pip, '--target', str(installed), str(source)])
    shutil.rmtree(str(source))
    env = dict(os.environ, PYTHONPATH=str(installed))
    command = [sys.executable, '-m', 'trainer.task', '--help']
    done = subprocess.run(
        command,
        cwd=str(tmp_path),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert '--latent_size' in done.stdout
    where = [sys.executable, '-c', 'import trainer.training.run as run; print(run.__file__)']
    path = subprocess.check_output(where, cwd=str(tmp_path), env=env, text=True).strip()
    assert path.startswith(str(installed))
