"""Fixtures shared by the tests of scripts/run."""

import os
import sys

import pytest

from tests.support.environments import SYSTEM_PATH, write_wheel


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """The environment variables of a start that installs next to nothing, from no network."""
    folder = tmp_path_factory.mktemp('tiny')
    build, rest = write_wheel(folder, 'tinybuild'), write_wheel(folder, 'tinyrest')
    lock = folder / 'tiny.lock'
    lock.write_text(
        f'# --- fetch\nuv==0.5.0 --hash=sha256:{"0" * 64}\n# --- build\n{build}# --- rest\n{rest}'
    )
    home = folder / 'home'
    home.mkdir()
    return {
        'HOME': str(home),
        'PATH': SYSTEM_PATH,
        'PIP_CONFIG_FILE': os.devnull,
        'PIP_FIND_LINKS': str(folder),
        'PIP_NO_INDEX': '1',
        'VAE_LOCK': str(lock),
        'VAE_PYTHON': sys.executable,
    }
