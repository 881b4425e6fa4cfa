"""Triton's public client, asking a server that `scripts/serve --triton` starts."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from typing import Dict, Iterator, List, NamedTuple

import requests

from scripts import ROOT
from scripts.clients import environment
from scripts.clients.in_other_runtimes import Results
from trainer.base.errors import UserError
from trainer.serving.golden import Golden, npz

PACKAGES = ['nvidia-pytriton', 'tritonclient']


class Served(NamedTuple):
    process: subprocess.Popen
    python: str  # Of the server's environment.
    http: str  # HOST:PORT
    grpc: str
    metrics: str


@contextlib.contextmanager
def served(venv: str, folder: str) -> Iterator[Served]:
    """Starts the server with the exports in `folder`, in the environment `venv`, made if missing.

    Raises:
      UserError: it does not start; with the last line that it says.
    """
    http, grpc, metrics = ports = _free_ports(3)
    names = ('VAE_REST_PORT', 'VAE_GRPC_PORT', 'VAE_METRICS_PORT')
    variables = dict(environment.variables(), VAE_TRITON_VENV=venv)
    variables.update(zip(names, map(str, ports)))
    with tempfile.TemporaryFile('w+') as log:
        server = subprocess.Popen(
            [os.path.join(ROOT, 'scripts', 'serve'), '--triton', folder],
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 1200  # Making the environment takes minutes.
            while not _is_ready(f'http://127.0.0.1:{http}/v2/health/ready'):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise UserError('Triton did not start: ' + log.read().strip().split('\n')[-1])
                time.sleep(0.2)
            python = os.path.join(venv, 'bin', 'python')
            addresses = [f'127.0.0.1:{port}' for port in (http, grpc, metrics)]
            yield Served(server, python, *addresses)
        finally:
            server.terminate()
            server.wait()


def _free_ports(number: int) -> List[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for free in sockets:
            free.bind(('127.0.0.1', 0))
        return [free.getsockname()[1] for free in sockets]


def _is_ready(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def results(server: Served, protocol: str, golden: Dict[str, Golden]) -> Results:
    """Each signature by one protocol, 'http' or 'grpc'."""
    program = os.path.join(ROOT, 'scripts', 'clients', 'ask_triton.py')
    with tempfile.TemporaryDirectory() as folder:
        found, expected = os.path.join(folder, 'results.json'), os.path.join(folder, 'golden.npz')
        with open(expected, 'wb') as f:
            f.write(npz(golden))
        address = server.http if protocol == 'http' else server.grpc
        command = [server.python, program, protocol, address, expected, found]
        environment.run(command, f'tritonclient.{protocol}')
        with open(found) as f:
            return json.load(f)
