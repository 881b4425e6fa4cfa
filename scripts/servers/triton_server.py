"""Serves the newest export of a folder in Triton, and takes up newer ones until it is told to end.

    python scripts/servers/triton_server.py FOLDER [--http_port=8501 ...]

`scripts/serve --triton` makes the environment, whose `nvidia-pytriton` brings Triton's binary.
"""

import argparse
import contextlib
import ctypes
import glob
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(_HERE)))

from scripts.servers import triton_checks, triton_repository  # noqa: E402
from scripts.servers.exports import newest, state_of  # noqa: E402

_number = triton_repository.version_of
_SECONDS_BETWEEN_LOOKS = 1
_SECONDS_TO_START = 300
# Triton without a GPU says at each start that it found none.
_NOISE = ('CUDA', 'Cuda', 'pinned', 'NVML', 'DCGM', 'absl::InitializeLog', 'cpu_feature_guard',
          'To enable the following instructions')  # fmt: skip


def write_repository(export_dir, repository):
    """Writes Triton's models of an export; returns the last line of an error, or None."""
    # In a process of its own, as TensorFlow would stay in memory; with what CPU others leave.
    program = os.path.join(_HERE, 'triton_repository.py')
    done = subprocess.run(
        [sys.executable, program, export_dir, repository],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='3'),
        errors='replace',
        start_new_session=True,  # Ctrl-C is for this program alone, which ends the others.
        preexec_fn=lambda: os.nice(10),
    )
    return done.stdout.strip().split('\n')[-1] if done.returncode else None


def link_backend(folder):
    """Makes the folder of backends, for this version of Python; returns the server's binary."""
    package = os.path.dirname(importlib.util.find_spec('pytriton').origin)
    parts = os.path.join(package, 'tritonserver')
    version = '{}.{}'.format(*sys.version_info)
    backend = os.path.join(folder, 'python')
    shutil.copytree(os.path.join(parts, 'backends', 'python'), backend, copy_function=os.symlink)
    stub = os.path.join('python_backend_stubs', version, 'triton_python_backend_stub')
    os.symlink(os.path.join(parts, stub), os.path.join(backend, os.path.basename(stub)))
    return os.path.join(parts, 'bin', 'tritonserver')


def command(binary, work, args, address):
    """Returns Triton's command line."""
    # Whoever can ask for predictions could else register and read any shared memory, Triton's own
    # too, and choose a file for its log.
    key = f':triton-key={secrets.token_hex(16)}'
    apis = 'shared-memory,logging,trace'
    return [
        binary,
        f'--model-repository={os.path.join(work, "models")}',
        f'--backend-directory={os.path.join(work, "backends")}',
        # "explicit" would let clients upload models, which are programs.
        '--model-control-mode=poll',
        f'--repository-poll-secs={_SECONDS_BETWEEN_LOOKS}',
        # Else 30 seconds, in which a busy machine may not load TensorFlow.
        f'--backend-config=python,stub-timeout-seconds={_SECONDS_TO_START}',
        f'--backend-config=python,shm-region-prefix-name={os.path.basename(work)}',
        '--disable-auto-complete-config',
        f'--http-address={address}',
        f'--http-port={args.http_port}',
        f'--http-restricted-api={apis}{key}',
        f'--grpc-address={address}',
        f'--grpc-port={args.grpc_port}',
        f'--grpc-restricted-protocol={apis}{key}',
        f'--metrics-port={args.metrics_port}',
        '--allow-gpu-metrics=false',
        '--pinned-memory-pool-byte-size=0',
        '--log-info=false',
        # After requests above its capacity it waits for as long, answers or none (seen in 2.51).
        '--exit-timeout-secs=8',
    ]


def start(command_line, libraries):
    """Starts Triton, whose log goes to standard error without what it says of GPUs."""
    paths = [libraries, os.environ.get('LD_LIBRARY_PATH', '')]
    environment = dict(
        os.environ,
        # The Python that Triton embeds finds the packages of the first Python of the path.
        PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ.get('PATH', ''),
        LD_LIBRARY_PATH=os.pathsep.join(path for path in paths if path),
        TF_CPP_MIN_LOG_LEVEL='2',
        # Else memory goes back to the kernel after a batch, and comes anew for the next.
        MALLOC_TRIM_THRESHOLD_='536870912',
        MALLOC_MMAP_THRESHOLD_='33554432',
        # One worker of a newer export after the other, as they begin before they can give way.
        TRITON_PARALLEL_INSTANCE_LOADING='0',
        OPENBLAS_NUM_THREADS='1',
    )
    libc = ctypes.CDLL(None)
    server = subprocess.Popen(
        command_line,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors='replace',
        start_new_session=True,  # Ctrl-C would reach it twice, and the second ends it at once.
        preexec_fn=lambda: libc.prctl(1, signal.SIGTERM),  # It ends with this program.
    )
    threading.Thread(target=copy_log, args=[server.stdout, sys.stderr], daemon=True).start()
    return server


def copy_log(lines, to):
    """Copies lines that are worth reading."""
    for line in lines:
        if line.strip() and not any(word in line for word in _NOISE):
            to.write(line)
            to.flush()


def is_ready(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


class Follower:
    """Hands newer exports of a folder to Triton, once they are whole."""

    def __init__(self, folder, served, work, url):
        self.folder, self.served, self.work, self.url = folder, served, work, url
        self.seen = self.loading = None
        self.refused = set()

    def look(self):
        """To be called now and then."""
        if self.loading and is_ready(f'{self.url}/versions/{self.loading}/ready'):
            print(f'serving {self.served}', flush=True)
            self.loading = None
        export_dir = newest(self.folder, self.refused)
        if not export_dir or _number(export_dir) <= _number(self.served):
            return
        seen, self.seen = self.seen, (export_dir, state_of(export_dir))
        if self.seen == seen:
            self._add(export_dir)

    def _add(self, export_dir):
        models = os.path.join(self.work, 'next')
        shutil.rmtree(models, ignore_errors=True)
        error = write_repository(export_dir, models)
        worker = triton_repository.WORKER
        if not error and _config_in(models) != _config_in(os.path.join(self.work, 'models')):
            error = 'its signatures are of other shapes: end this server and start it again'
        if error:
            print(f'{export_dir} is not served, {self.served} still is: {error}', flush=True)
            self.refused.add(export_dir)
            return
        version = str(_number(export_dir))
        target = os.path.join(self.work, 'models', worker, version)
        os.rename(os.path.join(models, worker, version), target)  # At once, for Triton that looks.
        self.served, self.loading = export_dir, version


def _config_in(models):
    path = os.path.join(models, triton_repository.WORKER, 'config.pbtxt')
    with open(path, encoding='utf-8') as f:
        return f.read()


def serve(args, work):
    """Starts Triton and waits for its end.

    Raises:
      SystemExit: it cannot start, or ends without being told to.
    """
    address = triton_checks.free_address(args.host, args.http_port, 'VAE_REST_PORT')
    triton_checks.free_address(args.host, args.grpc_port, 'VAE_GRPC_PORT')
    triton_checks.free_address(args.host, args.metrics_port, 'VAE_METRICS_PORT')
    libraries = triton_checks.python_libraries()
    export_dir = newest(args.folder)
    if not export_dir:
        raise SystemExit(f'{args.folder} holds no export: name a folder as export/final.')
    error = write_repository(export_dir, os.path.join(work, 'models'))
    if error:
        raise SystemExit(f'{export_dir} cannot be read: {error}')
    binary = link_backend(os.path.join(work, 'backends'))
    server = start(command(binary, work, args, address), libraries)
    ended = []

    def end(number, frame):
        ended.append(number)
        server.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    url = 'http://{}:{}/v2'.format(f'[{address}]' if ':' in address else address, args.http_port)
    follower = Follower(args.folder, export_dir, work, f'{url}/models/{triton_repository.WORKER}')
    if becomes_ready(server, url, work):
        names = sorted(set(os.listdir(os.path.join(work, 'models'))) - {triton_repository.WORKER})
        print(
            f'serving {export_dir}: {url}/models/NAME/infer with NAME one of {", ".join(names)}; '
            f'gRPC on port {args.grpc_port}, metrics on port {args.metrics_port}',
            flush=True,
        )
    while not ends_soon(server):
        if not ended:
            follower.look()
    end_workers(server, work)
    if not ended:
        raise SystemExit('Triton ended by itself: its lines above say why.')


def ends_soon(server):
    """Returns whether the server has ended, after waiting for it a moment."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_SECONDS_BETWEEN_LOOKS)
    return server.returncode is not None


def end_workers(server, work):
    """Removes what a server leaves that had to end at once: its worker, and shared memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    for path in glob.glob(os.path.join('/dev/shm', os.path.basename(work) + '*')):
        os.remove(path)


def becomes_ready(server, url, work):
    """Returns whether the server answers; if not, it has ended."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while not ends_soon(server):
        if is_ready(f'{url}/health/ready'):
            return True
        if time.monotonic() > deadline:
            end_workers(server, work)
            raise SystemExit(f'Triton was not ready after {_SECONDS_TO_START} seconds.')
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('folder')
    parser.add_argument('--host', default='127.0.0.1', help='Address to listen on; 0.0.0.0: all.')
    parser.add_argument('--http_port', type=int, default=8501)
    parser.add_argument('--grpc_port', type=int, default=8500)
    parser.add_argument('--metrics_port', type=int, default=8502)
    args = parser.parse_args()
    triton_checks.check_machine()
    with tempfile.TemporaryDirectory(prefix='vae-triton-') as work:
        serve(args, work)


if __name__ == '__main__':
    main()
