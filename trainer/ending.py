"""When a training ends: at `max_steps`, or early, once evaluations bring no better model.

TF's own early stopping sends the stop through a variable of the graph, which is saved with the
weights, so that a run that has stopped could not go on; and it leaves an evaluator waiting. Here
every process of a cluster reads two facts from `model_dir`: how many evaluations in a row were no
better, from the state of the best export; and whether the leader has saved its last checkpoint
since, which parameter servers have to wait for.
"""

import threading
from typing import Optional, Tuple

import tensorflow as tf

from trainer import checkpoints, export, hparams
from trainer.hparams import HParams
from trainer.progress import say


class StoppedEarly(Exception):
    """Leaves the loop of TF's evaluator, which ends at `max_steps` alone."""


def start_step(model_dir: str) -> int:
    """Returns the global step of the last checkpoint, 0 where there is none."""
    checkpoint_path = checkpoints.latest(model_dir)
    if checkpoint_path is None:
        return 0
    return int(tf.train.load_variable(checkpoint_path, tf.GraphKeys.GLOBAL_STEP))


def patience_ran_out(params: HParams) -> bool:
    """Whether the last `early_stopping_patience` evaluations were no better than one before them.

    Not where they are those of an earlier run in the folder, of checkpoints that are gone.
    """
    if not params.early_stopping_patience:
        return False
    state = export.read_state(params.model_dir)
    if state.get('evaluations_since_best', 0) < params.early_stopping_patience:
        return False
    return export.evaluated_step(state) <= start_step(params.model_dir)


def should_end(params: HParams) -> bool:
    """Whether no further step should be made."""
    return start_step(params.model_dir) >= params.max_steps or patience_ran_out(params)


def has_ended(params: HParams) -> bool:
    """Whether the last checkpoint is there."""
    return start_step(params.model_dir) >= params.max_steps or stopped_step(params) is not None


def stopped_step(params: HParams) -> Optional[int]:
    """Global step at which training stopped early; None where it did not, or goes on."""
    if not patience_ran_out(params):
        return None
    return export.read_state(params.model_dir).get('stopped_step')


def note_early_stop(params: HParams) -> None:
    """Says, and writes for others to see, that a training which has just ended stopped early."""
    step = start_step(params.model_dir)
    if step >= params.max_steps or not patience_ran_out(params) or stopped_step(params) == step:
        return
    state = export.read_state(params.model_dir)
    export.write_state(params.model_dir, dict(state, stopped_step=step))
    say('Stopped early at step {:,}: {}.'.format(step, why(params)[0]))


def why(params: HParams) -> Tuple[str, int]:
    """Returns why training should end early, in words, and the number of evaluations in vain."""
    count = export.read_state(params.model_dir)['evaluations_since_best']
    best = export.counted_best(params.model_dir)
    results = 'finite'
    if best is not None:
        results = 'better than the {:.2f} nats of step {:,}'.format(
            best[hparams.selection_metric(params)], best['global_step']
        )
    return 'none of the last {} evaluation(s) was {}'.format(count, results), count


class StopEarlyHook(tf.train.SessionRunHook):
    """Starts no step once `stop` is set.

    It has to stand behind the CheckpointSaverHook, whose listeners evaluate, and so may set it.
    """

    def __init__(self, stop: threading.Event):
        self._stop = stop

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        del run_values
        if self._stop.is_set():
            run_context.request_stop()


class StopInTimeHook(tf.train.SessionRunHook):
    """Starts no step once a cluster has made enough of them.

    TF's StopAtStepHook looks at the global step that was read during a step, when those of the
    others may not have counted yet. Read after each step, `max_steps` is exceeded by at most one
    step of each other process: the one that it was in.
    """

    def __init__(self, max_steps: int):
        self._max_steps = max_steps

    def begin(self) -> None:
        self._global_step = tf.train.get_global_step()

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        del run_values
        if run_context.session.run(self._global_step) >= self._max_steps:
            run_context.request_stop()
