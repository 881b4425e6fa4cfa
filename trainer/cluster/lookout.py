"""The servers of a cluster: the port of this process, and waiting for those of others.

TF 1.14 waits for them without end and without a word, in C++.
"""

import errno
import os
import socket
import threading
import time
from math import inf
from typing import Any, Callable, List, Optional, Tuple

import tensorflow as tf

from trainer.base import errors, signals
from trainer.base.console import duration, say
from trainer.base.errors import UserError
from trainer.checkpoints import listing
from trainer.cluster.tf_config import Task

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_ANSWER = 2.0
# Steps that take less are not worth a look.
_SECONDS_OF_SILENCE = 2.0
_SECONDS_OF_HOPE = 5.0


def check_port(task: Task) -> None:
    """Raises UserError where the port that `TF_CONFIG` gives this process cannot be had."""
    if task.type == 'evaluator' or not task.hosts(task.type):
        return  # It has no server.
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As gRPC has it.
        try:
            trial.bind(('', _address(task)[1]))  # TF's server takes all of the machine's addresses.
        except OSError as error:
            raise _no_port(task, os.strerror(error.errno or 0)) from error


def _address(task: Task) -> Tuple[str, int]:
    """`host:port` of this process, and the port."""
    address = task.hosts(task.type)[task.index]
    return address, int(address.rpartition(':')[2])


def _no_port(task: Task, reason: str) -> UserError:
    address, port = _address(task)
    return UserError(
        f'TF_CONFIG gives {task} the address {address}, but port {port} of this machine cannot be '
        f"had ({reason}): end the program that has it (ss -ltnp 'sport = :{port}' shows it), or "
        'give another port in the TF_CONFIG of all processes.'
    )


def answers(address: str) -> bool:
    """Whether a server of TensorFlow answers at `host:port`."""
    host, _, port = address.rpartition(':')
    try:
        with socket.create_connection((host.strip('[]'), int(port)), _SECONDS_TO_ANSWER) as found:
            # A free port of this machine may be given to the connection itself.
            if found.getsockname() == found.getpeername():
                return False
            found.settimeout(_SECONDS_TO_ANSWER)
            # The type of HTTP/2's SETTINGS, in the fourth byte of the first frame that gRPC sends.
            return found.recv(9)[3:4] == b'\x04'
    except (OSError, UnicodeError):
        return False


class Lookout:
    """Says, every 30 `seconds`, whom this process of a cluster waits for; a context.

    In it a thread looks and speaks, as the main one may sit in C++. A hook (`hooks.LookoutHook`)
    tells it that steps are made. Where a parameter server is gone, a signal does not wait for the
    end of a step. A local training waits for nobody; where one `has_ended`, others may be gone.
    """

    def __init__(
        self, task: Task, model_dir: str, has_ended: Callable[[], bool], seconds: float = 30.0
    ):
        self._task, self._model_dir, self._has_ended = task, model_dir, has_ended
        self._seconds = seconds
        self._left = threading.Event()
        self._has_session = False
        self._seen_at = 0.0
        self._look_began_at: Optional[float] = None
        self._missing_since: Optional[float] = None

    def __enter__(self) -> 'Lookout':
        self._seen_at = time.monotonic()
        if self._task.type in ('chief', 'worker'):
            signals.finish_unless(self._is_hopeless)
        if self._task.type != 'local':
            threading.Thread(target=self._look_out, daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Raises what TF raises of servers as sentences.

        UserError: the port was taken after all, or a worker has waited for two hours. Interrupted:
        a parameter server, told to end too, did so before the last save.
        """
        self._left.set()
        lost = (tf.errors.AbortedError, tf.errors.UnavailableError)
        if isinstance(error, lost) and signals.state.received is not None:
            raise signals.Interrupted(signals.state.received) from error
        if isinstance(error, tf.errors.UnknownError) and 'start gRPC server' in error.message:
            raise _no_port(self._task, os.strerror(errno.EADDRINUSE)) from error
        if isinstance(error, tf.errors.DeadlineExceededError) and self._task.type == 'worker':
            raise UserError(
                f'gave up waiting for {errors.some(self._waited_for(), shown=5)}: start what is '
                'missing, or correct TF_CONFIG.'
            ) from error

    def session_began(self) -> None:
        """Notes that there is a session, so that all it needs was there."""
        self._has_session = True
        self.saw_a_step()

    def saw_a_step(self) -> None:
        """Notes that the main thread is at work."""
        self._seen_at = time.monotonic()

    def _look_out(self) -> None:
        makes_steps = self._task.type in ('chief', 'worker')
        interval = min(self._seconds, _SECONDS_BETWEEN_LOOKS) if makes_steps else self._seconds
        since = said_at = time.monotonic()
        while not self._left.wait(interval):
            waited_for = self._look() if self._is_silent() else []
            now = time.monotonic()
            if not waited_for:
                since = said_at = now
            elif now - said_at >= self._seconds and not self._left.is_set():
                said_at = now
                some = errors.some(waited_for, shown=5)
                say(f'waiting for {some} ({duration(now - since)} so far)')

    def _is_silent(self) -> bool:
        return time.monotonic() - self._seen_at >= min(self._seconds, _SECONDS_OF_SILENCE)

    def _look(self) -> List[str]:
        self._look_began_at = time.monotonic()
        try:
            return self._waited_for()
        except tf.errors.OpError:
            return []  # The checkpoint it looked at was just replaced.
        finally:
            self._look_began_at = None

    def _waited_for(self) -> List[str]:
        """Names and addresses of those without whom nothing goes on; none if it may go on."""
        if self._task.type in ('ps', 'evaluator'):
            if self._has_ended():
                return []
            if self._task.type == 'evaluator' and listing.latest(self._model_dir) is None:
                chiefs = self._named('chief')
                return [f'{name} to save a checkpoint in {self._model_dir}' for name in chiefs]
            return self._missing('chief')
        missing = self._missing('ps')
        self._missing_since = (self._missing_since or time.monotonic()) if missing else None
        if missing or self._has_session:
            return missing
        # All answer, but there is no session: the chief has to make the weights.
        return self._named('ps' if self._task.is_leader else 'chief')

    def _missing(self, kind: str) -> List[str]:
        hosts = self._task.hosts(kind)
        return [name for name, host in zip(self._named(kind), hosts) if not answers(host)]

    def _named(self, kind: str) -> List[str]:
        hosts = enumerate(self._task.hosts(kind))
        return [f'{kind} {index} at {host}' for index, host in hosts]

    def _is_hopeless(self) -> bool:
        times = filter(None, (self._missing_since, self._look_began_at))
        return self._is_silent() and time.monotonic() - min(times, default=inf) > _SECONDS_OF_HOPE
