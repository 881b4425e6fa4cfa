"""What the processes of a cluster do beside training: serve weights, watch for its end."""

import os
import threading
import time
from typing import Any, Callable, List

import tensorflow as tf

from trainer.base import signals
from trainer.base.console import say

_SECONDS_BETWEEN_LOOKS = 2.0
# Others may be in their last step when the final checkpoint appears.
_SECONDS_OF_GRACE = 15.0
# Of the 30 that clouds and Kubernetes give from SIGTERM to SIGKILL.
_SECONDS_FOR_THE_LAST_SAVE = 10.0


def serve_weights(config: tf.estimator.RunConfig, are_free: Callable[[], bool]) -> None:
    """Runs a parameter server until its weights `are_free`, and exits with 0; or until told to end.

    Then it serves a while longer, as the chief, mostly told so too, has to save the weights. TF's
    own never ends: its `Server.join` waits in C++, where no Python signal handler runs.
    """
    stop = threading.Event()
    received: List[int] = []

    def note(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        stop.set()

    signals.state.deferred = True  # What ends this process is the handler below.
    signals.handle_with(note)
    # Kept: a server that is garbage-collected ends.
    server = tf.train.Server(
        config.cluster_spec, 'ps', config.task_id, config.protocol, config.session_config
    )
    say(f'Serving weights at {server.target}.')
    while not stop.wait(_SECONDS_BETWEEN_LOOKS):
        # A chief may save and evaluate what workers have done meanwhile.
        if _ended(are_free) and (stop.wait(_SECONDS_OF_GRACE) or _ended(are_free)):
            break
    if received and not _ended(are_free):
        say(f'Told to end: serving for {_SECONDS_FOR_THE_LAST_SAVE:.0f} s more.')
        time.sleep(_SECONDS_FOR_THE_LAST_SAVE)
        _exit_now(signals.exit_code(received[0]))
    say('Training has ended: leaving.')
    _exit_now()


def watch(should_end: Callable[[], bool], stop: threading.Event, leave: bool) -> None:
    """Sets `stop`, from a thread and soon, once others have brought training to its end.

    With `leave` it also ends the process then, in good time: a worker that lost its parameter
    servers in the last step would wait two hours for new ones.
    """

    def look() -> None:
        while not stop.wait(_SECONDS_BETWEEN_LOOKS):
            if _ended(should_end):
                stop.set()
        if leave:
            time.sleep(2 * _SECONDS_OF_GRACE)
            say('Training has ended: leaving.')
            _exit_now()

    threading.Thread(target=look, daemon=True).start()


def _ended(has_ended: Callable[[], bool]) -> bool:
    try:
        return has_ended()
    except tf.errors.OpError:
        return False  # The checkpoint it looked at was just replaced.


def _exit_now(code: int = 0) -> None:
    # A regular exit runs Server.__del__, which in 1.14 waits or prints a traceback.
    os._exit(code)
