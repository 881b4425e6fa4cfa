"""The clients of other runtimes, in an environment of a newer Python."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import tempfile
import time
from typing import Any, Dict, Iterator

import numpy as np
import requests

from scripts import ROOT
from scripts.clients import environment, in_tensorflow_1
from scripts.clients.in_tensorflow_1 import Call
from trainer.base.errors import UserError
from trainer.serving.golden import Golden, npz
from trainer.serving.signatures import DEFAULT

Results = Dict[str, Dict[str, Any]]  # by signature: `difference`, and `error` where there is one


def verify(python: str, export_dir: str, golden: Dict[str, Golden], *arguments: str) -> Results:
    """Runs the `verify_export.py` of an export in another Python; UserError if it cannot begin."""
    program = os.path.join(export_dir, 'assets.extra', 'verify_export.py')
    with tempfile.TemporaryDirectory() as folder:
        results, expected = os.path.join(folder, 'results.json'), os.path.join(folder, 'golden.npz')
        with open(expected, 'wb') as f:
            f.write(npz(golden))
        command = [python, program, '--json=' + results, '--golden=' + expected, *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment.variables(), errors='replace',
        )  # fmt: skip
        if not os.path.exists(results):
            raise UserError(done.stdout.strip())
        with open(results) as f:
            return json.load(f)


def onnx(python: str, export_dir: str, golden: Dict[str, Golden]) -> Results:
    """Each signature through `python -m tf2onnx.convert`."""
    # In one process, because importing TensorFlow takes longer than a conversion.
    program = 'import sys; from tf2onnx import convert\n'
    program += 'for sys.argv in {}: convert.main()\n'
    with tempfile.TemporaryDirectory() as folder:
        convert = ['convert', '--saved-model', export_dir, '--tag', 'serve', '--opset', '18']
        commands = [
            convert + ['--signature_def', name, '--output', f'{folder}/{name}.onnx']
            for name in golden
        ]
        environment.run([python, '-c', program.format(commands)], 'tf2onnx')
        return verify(python, export_dir, golden, '--runtime=onnx', '--onnx=' + folder)


def openvino(python: str, exports: Dict[str, str], golden: Dict[str, Golden]) -> Results:
    """Each signature from the export where it is the `serving_default`."""
    return {
        name: verify(python, export_dir, {DEFAULT: golden[name]}, '--runtime=openvino')[DEFAULT]
        for name, export_dir in exports.items()
    }


@contextlib.contextmanager
def kserve(python: str, export_dir: str) -> Iterator[str]:
    """Starts KServe with the export; yields the URL of the model, or raises UserError."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    url = 'http://127.0.0.1:{}/v1/models/vae'.format(port)
    command = [python, '-m', 'scripts.servers.kserve_model', '--model_name=vae']
    command += [f'--http_port={port}', os.path.abspath(export_dir)]
    streams = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    variables = dict(environment.variables(), PYTHONPATH=ROOT)
    server = subprocess.Popen(command, env=variables, **streams)
    try:
        deadline = time.monotonic() + 180
        while not _is_ready(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise UserError(
                    'KServe did not start: try ./scripts/serve --kserve with the export.'
                )
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def _is_ready(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def served(url: str, outputs: Dict[str, Any]) -> Dict[str, Call]:
    """A server of TensorFlow Serving's REST API, asked for columns.

    Args:
      outputs: names of the outputs of each signature.
    """

    def call(name: str, inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
        request = in_tensorflow_1.request_of(name, inputs, by_row=False)
        try:
            answer = requests.post(url + ':predict', json=request, timeout=60).json()
        except requests.exceptions.InvalidJSONError as error:
            raise ValueError('JSON has only finite numbers') from error
        if 'outputs' not in answer:
            raise ValueError(answer)
        return in_tensorflow_1.arrays_of(answer, list(outputs[name]))

    return {name: functools.partial(call, name) for name in outputs}
