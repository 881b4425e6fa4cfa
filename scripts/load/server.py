"""A server that `scripts/serve` starts: its addresses, its memory, its end."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Iterator, List, NamedTuple, Optional, Set, Tuple

import psutil

from scripts import ROOT
from scripts.load.protocols import PROTOCOLS
from trainer.base.errors import UserError

_SECONDS_TO_START = 300.0
_SECONDS_TO_INSTALL = 1800.0


class Kind(NamedTuple):
    """What can be served with.

    Attributes:
      words: those of `scripts/serve` before the folder.
      protocols: names in PROTOCOLS; the first is the one that a soak asks by.
      reloads: whether a newer export is served without a new start.
      venv: the folder of its environment, and the variable that may name another.
      most_under_way: requests that it is asked at the same time at most, above its capacity.
      refusal: what it may answer to malformed requests, a pattern.
    """

    words: List[str]
    protocols: List[str]
    reloads: bool
    venv: Tuple[str, str]
    most_under_way: int = 900  # Fewer than the 1,024 files that a process may have open.
    refusal: str = '4..|503|closed'


KINDS = {
    'kserve': Kind(['--kserve'], ['rest'], True, ('.venv-kserve', 'VAE_SERVING_VENV')),
    'triton': Kind(
        ['--triton'],
        ['binary', 'v2', 'grpc'],
        True,
        ('.venv-triton', 'VAE_TRITON_VENV'),
        # Its threads of HTTP forget answers where one has some 280 to send at once (seen in 2.51).
        most_under_way=256,
        refusal='4..|500|503|closed',  # 500 is its own word for what is no JSON.
    ),  # fmt: skip
}


def free_ports(count: int) -> List[int]:
    """Returns ports of the loopback address that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]


class Remote:
    """A server that somebody else has started."""

    def __init__(self, host: str, port: int):
        self.name, self.host, self._port, self.python = host, host, port, sys.executable

    def port(self, protocol: str) -> int:
        """Returns where all protocols are spoken."""
        return self._port

    def megabytes(self) -> None:
        """Returns None: its processes may be anywhere."""


class Server:
    """A running `scripts/serve`.

    Attributes:
      name: of its kind.
      python: an environment's Python, in which the packages of the server's clients are.
    """

    def __init__(self, name: str, folder: str, log: str):
        self.name, self.kind, self.host = name, KINDS[name], '127.0.0.1'
        rest, grpc, metrics = free_ports(3)
        self._ports = {**dict.fromkeys(PROTOCOLS, rest), 'grpc': grpc}
        folder_of_venv, variable = self.kind.venv
        venv = os.environ.get(variable) or os.path.join(ROOT, folder_of_venv)
        self.python, self._log = os.path.join(venv, 'bin', 'python'), log
        variables = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        variables.update(VAE_REST_PORT=str(rest), VAE_GRPC_PORT=str(grpc))
        variables.update(VAE_METRICS_PORT=str(metrics), VAE_HOST=self.host)
        self._known: Set[psutil.Process] = set()
        with open(log, 'wb') as output:
            self.process = subprocess.Popen(
                [os.path.join(ROOT, 'scripts', 'serve'), *self.kind.words, folder],
                env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def port(self, protocol: str) -> int:
        """Returns where the protocol is spoken."""
        return self._ports[protocol]

    def is_healthy(self, timeout: float = 5.0) -> bool:
        """Whether it says that it is ready, within so many seconds."""
        first = self.kind.protocols[0]
        url = 'http://127.0.0.1:{}{}'.format(self.port(first), PROTOCOLS[first].health)
        # A proxy of the environment is not for loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=timeout) as answer:
                return answer.status == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait_until_ready(self) -> None:
        """Raises UserError, with the last line that it printed, where it does not start."""
        limit = _SECONDS_TO_START if os.path.exists(self.python) else _SECONDS_TO_INSTALL
        deadline = time.monotonic() + limit
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = self.printed().strip().splitlines() or ['it printed nothing']
                raise UserError(
                    'scripts/serve {} did not start: {}'.format(
                        ' '.join(self.kind.words), lines[-1]
                    )
                )
            time.sleep(0.2)

    def printed(self) -> str:
        """Returns all that it has printed."""
        with open(self._log, errors='replace') as f:
            return f.read()

    def _members(self) -> List[psutil.Process]:
        """Returns its running processes, those too whose parent has ended since the last call."""
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self.process.pid)
            self._known.update([own, *own.children(recursive=True)])
        found = []
        for process in self._known:
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def megabytes(self) -> float:
        """Returns the memory of its processes (PSS): what several share counts once."""
        return sum(_pss(process.pid) for process in self._members()) / 1e6

    def open_files(self) -> int:
        """Returns how many files and connections its processes have open."""
        count = 0
        for process in self._members():
            with contextlib.suppress(psutil.Error):
                count += process.num_fds()
        return count

    def end(self, seconds: float) -> Optional[int]:
        """Tells it to end; returns its code, None where it still runs after so many seconds."""
        self._members()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def outlived(self) -> List[str]:
        """Returns the names of its processes that still run."""
        names = []
        for process in self._members():
            with contextlib.suppress(psutil.Error):
                names.append(process.name())
        return names

    def kill(self) -> None:
        """Ends what still runs of it, by force."""
        for process in self._members():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()


def _pss(pid: int) -> int:
    """Returns bytes; of a kernel that does not tell, or of a process that has ended, fewer."""
    with contextlib.suppress(OSError), open('/proc/{}/smaps_rollup'.format(pid)) as f:
        return sum(1024 * int(line.split()[1]) for line in f if line.startswith('Pss:'))
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss
    return 0


@contextlib.contextmanager
def started(name: str, folder: str) -> Iterator[Server]:
    """Serves a folder of exports until the end of the block; UserError where it cannot."""
    with tempfile.TemporaryDirectory() as logs:
        server = Server(name, folder, os.path.join(logs, 'log'))
        try:
            server.wait_until_ready()
            yield server
        finally:
            if server.process.poll() is None:
                server.end(20.0)
            server.kill()
