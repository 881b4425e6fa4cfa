"""How a process ends when it is told to: SIGTERM (a preemption), SIGINT (Ctrl-C), SIGHUP.

The last comes when the terminal is closed; under `nohup` it is ignored, and stays so. A training
finishes its step, saves it, and ends; everything else ends at once, since every file is written
whole or not at all. The exit code is the shell's for the signal: 143, 130 or 129.
"""

import contextlib
import os
import signal
import sys
from typing import Any, Callable, Dict, Iterator, Optional

import tensorflow as tf

_WORDS: Dict[int, str] = {
    signal.SIGTERM: 'terminated',
    signal.SIGINT: 'interrupted',
    signal.SIGHUP: 'hung up',
}


class Interrupted(KeyboardInterrupt):
    """Ends the process on behalf of a signal; libraries know it as Ctrl-C, and do not catch it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _State:
    """What the handler has to know. A process has one set of handlers, so one of these.

    Attributes:
      received: the first signal; None before it.
      deferred: whether a training step or its saving is under way, which has to be finished.
      saved_step: global step of the last checkpoint that this process saved.
    """

    received: Optional[int] = None
    deferred = False
    saved_step: Optional[int] = None


_state = _State()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Turns the first signal into `Interrupted`; a Ctrl-C after it ends the process at once.

    A signal that is ignored, as SIGINT is in the background of a shell script and SIGHUP under
    `nohup`, stays so.
    """
    global _state
    _state = _State()
    before = {number: signal.getsignal(number) for number in _WORDS}
    handle_with(_handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.received, _state.deferred = None, False


def handle_with(handler: Callable[[int, Any], None]) -> None:
    """Has `handler` handle each of the signals that is not ignored."""
    for number in _WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _handle(number: int, frame: Any) -> None:
    del frame
    if _state.received is not None:
        if number == signal.SIGINT:
            os._exit(exit_code(number))
        return
    _state.received = number
    if not _state.deferred:
        raise Interrupted(number)


def exit_code(number: int) -> int:
    """The exit code of a process that a signal has ended, as shells have it."""
    return 128 + number


def sentence(number: int) -> str:
    """Says that the process was told to end, and how to go on."""
    if _state.saved_step is None:
        return '{}: the same command goes on from what was last saved.'.format(_WORDS[number])
    return '{}: step {:,} is saved, and the same command goes on from it.'.format(
        _WORDS[number], _state.saved_step
    )


def leave_at_once() -> None:
    """From now on a signal ends the process without a cleanup: there is nothing to save.

    For a worker of a cluster, whose session would wait for its parameter servers.
    """

    def leave(number: int, frame: Any) -> None:
        del frame
        print(sentence(number), file=sys.stderr, flush=True)
        os._exit(exit_code(number))

    for number in _WORDS:
        if signal.getsignal(number) == _handle:
            signal.signal(number, leave)


class FinishStepHook(tf.train.SessionRunHook):
    """Lets a signal wait for the end of the step, and then asks for no other.

    Estimator's loop then ends as after the last step, and the CheckpointSaverHook saves.
    """

    def before_run(self, run_context: tf.train.SessionRunContext) -> None:
        del run_context
        _state.deferred = True

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        del run_values
        if _state.received is not None:
            run_context.request_stop()


class LeaveWhenSavedListener(tf.train.CheckpointSaverListener):
    """Ends the process, if it was told to, as soon as a checkpoint is there.

    It has to be the first of its CheckpointSaverHook's listeners: others evaluate and export.
    """

    def after_save(self, session: tf.Session, global_step_value: int) -> None:
        del session
        self._leave(global_step_value)

    def end(self, session: tf.Session, global_step_value: int) -> None:
        del session
        self._leave(global_step_value)

    def _leave(self, step: int) -> None:
        _state.saved_step, _state.deferred = int(step), False
        if _state.received is not None:
            raise Interrupted(_state.received)
