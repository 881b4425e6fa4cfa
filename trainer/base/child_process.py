"""A function called in a process of its own, which needs no semaphores: some have no /dev/shm."""

import multiprocessing
import os
import threading
import time
import traceback
from multiprocessing import connection
from typing import Any, Callable, Optional, Tuple

from trainer.base import signals, terminal
from trainer.base.signals import Interrupted

_SECONDS_TO_END = 5.0


class Died(Exception):
    """The process ended without a word."""


class _Traceback(Exception):
    """The cause of an exception that comes out of a child: its traceback there."""

    def __str__(self) -> str:
        return '\n' + self.args[0]


def call(function: Callable[..., None], *args: Any) -> None:
    """Calls `function(*args)` in a spawned process; both have to be picklable.

    It has no thread or session of this one, and imports its main module. Raises what `function`
    raised, or Died.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, args), daemon=True)
    child.start()
    sender.close()
    raised: Optional[Tuple[Exception, str]] = None
    try:
        raised = receiver.recv()
        child.join()
    except EOFError as error:
        raise Died() from error
    except KeyboardInterrupt:
        child.terminate()
        child.join(_SECONDS_TO_END)
        child.kill()
        raise
    finally:
        receiver.close()
    if raised is not None:
        raise raised[0] from _Traceback(raised[1])


def _answer(sender: connection.Connection, function: Callable[..., None], args: Any) -> None:
    """Sends what `function` raises, or None; ends with its parent, or by a signal, cleaned up."""
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    try:
        with terminal.guarded(must_print=False), signals.handled():
            try:
                function(*args)
                sender.send(None)
            except Exception as error:
                sender.send((error, traceback.format_exc()))
    except Interrupted as interrupted:
        os._exit(signals.exit_code(interrupted.number))
    os._exit(0)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
