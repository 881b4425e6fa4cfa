"""Environments of a Python 3.11 or later, for what does not run on ours."""

import os
import subprocess
from typing import Dict, List

from scripts import ROOT
from trainer.base.errors import UserError

RUNTIMES = ['tensorflow-cpu', 'tf2onnx', 'onnxruntime', 'openvino', 'kserve']


def make(flag: str, folder: str, packages: List[str]) -> str:
    """Returns the Python of the environment in `folder`, which is made if it is not there.

    Raises:
      UserError: there is no Python for it, or the registry does not answer.
    """
    run([os.path.join(ROOT, 'scripts', 'clients', 'make_environment'), folder, *packages], flag)
    return os.path.join(folder, 'bin', 'python')


def run(command: List[str], what: str) -> str:
    """Runs a command of another Python; returns what it prints; UserError where it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=variables(), errors='replace'
    )
    output = done.stdout.strip()
    if done.returncode != 0:
        raise UserError('{} failed: {}'.format(what, output.split('\n')[-1]))
    return output


def variables() -> Dict[str, str]:
    """Returns the environment variables of another Python."""
    # PYTHONPATH would mix the modules of this Python into the other.
    kept = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    return dict(kept, TF_CPP_MIN_LOG_LEVEL='2')
