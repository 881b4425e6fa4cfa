"""Trains on a whole cluster of processes of this machine.

    ./scripts/run python scripts/train_cluster.py --workers=2 --ps=1 [--evaluator] -- TRAINER FLAGS

Starts a chief, workers, parameter servers and an evaluator, each a `python -m trainer.task` with
its own `TF_CONFIG` on free loopback ports, and shows their lines with the name of the process in
front. A process that a signal kills is started anew, as a cloud does, `--restarts` times; one that
refuses to run (code 1) ends the cluster. Ends with 0 when all have ended with 0.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Dict, List, NoReturn, Optional

from absl import app, flags

from trainer.base import terminal

_SECONDS_TO_FOLLOW_THE_CHIEF = 120.0
# More than a parameter server goes on for.
_SECONDS_TO_TERMINATE = 20.0


def addresses(counts: Dict[str, int]) -> Dict[str, List[str]]:
    """Returns loopback addresses whose ports were free a moment ago, by type of task."""
    cluster: Dict[str, List[str]] = {}
    with contextlib.ExitStack() as held:
        for kind in [kind for kind, count in counts.items() for _ in range(count)]:
            one = held.enter_context(socket.socket())
            one.bind(('127.0.0.1', 0))
            cluster.setdefault(kind, []).append('127.0.0.1:{}'.format(one.getsockname()[1]))
    return cluster


class Member:
    """One process of the cluster, started anew when a signal ends it."""

    def __init__(self, kind: str, index: int, cluster: Dict[str, List[str]], arguments: List[str]):
        self.name = '{} {}'.format(kind, index)
        self.kind = kind
        config = {'cluster': cluster, 'task': {'type': kind, 'index': index}}
        self._environment = dict(os.environ, TF_CONFIG=json.dumps(config), PYTHONUNBUFFERED='1')
        self._command = [sys.executable, '-m', 'trainer.task'] + arguments
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.process = subprocess.Popen(
            self._command, env=self._environment, errors='replace',
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._show, args=[self.process], daemon=True)
        self._reader.start()

    def _show(self, process: subprocess.Popen) -> None:
        for line in process.stdout or ():
            print('[{}] {}'.format(self.name, line.rstrip()), flush=True)

    def end(self) -> None:
        """Waits for the end of a process that was told to, kills it if it does not."""
        try:
            self.process.wait(_SECONDS_TO_TERMINATE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(_SECONDS_TO_TERMINATE)


def run(members: List[Member], restarts: int) -> int:
    """Waits until all members have ended; returns the exit code of the whole."""
    chief_ended: Optional[float] = None
    while True:
        running = [member for member in members if member.process.poll() is None]
        for member in members:
            code = member.process.poll()
            if code is None or code == 0:
                continue
            # Killed, or ended by a handler of a signal: for Kubernetes that is worth another start.
            if 0 < code < 128 or member.starts > restarts:
                print('[cluster] {} ended with code {}.'.format(member.name, code), flush=True)
                return code if 0 < code < 256 else 1
            print('[cluster] {} was killed: starting it anew.'.format(member.name), flush=True)
            member.start()
            running.append(member)
        if not running:
            return 0
        chief = next(member for member in members if member.kind == 'chief')
        if chief in running:
            chief_ended = None
        elif chief_ended is None:
            chief_ended = time.monotonic()
        elif time.monotonic() - chief_ended > _SECONDS_TO_FOLLOW_THE_CHIEF:
            names = ', '.join(member.name for member in running)
            print('[cluster] the chief has ended, these go on: {}.'.format(names), flush=True)
            return 1
        time.sleep(0.2)


def main(argv: List[str]) -> NoReturn:
    values = flags.FLAGS
    counts = {'chief': 1, 'worker': values.workers, 'ps': values.ps}
    counts.update(evaluator=int(values.evaluator))
    cluster = addresses(counts)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    members: List[Member] = []
    try:
        for kind, count in counts.items():
            for index in range(count):
                if '{}:{}'.format(kind, index) not in values.absent:
                    members.append(Member(kind, index, cluster, argv[1:]))
        sys.exit(run(members, values.restarts))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # All at once: parameter servers go on for a while, for the chief to save the weights.
        for member in members:
            member.process.terminate()
        for member in members:
            member.end()


def define_flags() -> None:
    flags.DEFINE_integer('workers', 1, 'Workers beside the chief.', lower_bound=0)
    flags.DEFINE_integer('ps', 1, 'Parameter servers.', lower_bound=1)
    flags.DEFINE_bool('evaluator', False, 'An evaluator; without one the chief evaluates.')
    flags.DEFINE_integer('restarts', 5, 'Times a killed process is started anew.', lower_bound=0)
    text = 'Processes that the others are told of but that never come, as worker:1.'
    flags.DEFINE_list('absent', [], text)


if __name__ == '__main__':
    define_flags()
    with terminal.guarded(must_print=False):
        app.run(main)
