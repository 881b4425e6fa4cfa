"""When a training ends: at `max_steps`, or early, once evaluations bring no better model.

TF's own early stopping sends the stop through a variable of the graph, which is saved with the
weights, so that a run that has stopped could not go on; and it leaves an evaluator waiting. Here
every process reads two facts from `model_dir`: how many evaluations in a row were no better, from
the state of the best export; and whether the leader has saved its last checkpoint since, which
parameter servers have to wait for.
"""

from typing import Optional, Tuple

from trainer.base.console import say
from trainer.checkpoints import best_model, listing
from trainer.settings.table import HParams


class StoppedEarly(Exception):
    """Leaves the loop of TF's evaluator, which ends at `max_steps` alone."""


def patience_ran_out(params: HParams) -> bool:
    """Whether the last `early_stopping_patience` evaluations were no better than one before them.

    Not where they are those of an earlier run in the folder, of checkpoints that are gone.
    """
    if not params.early_stopping_patience:
        return False
    state = best_model.read_state(params.model_dir)
    if state.get('evaluations_since_best', 0) < params.early_stopping_patience:
        return False
    return best_model.evaluated_step(state) <= listing.start_step(params.model_dir)


def should_end(params: HParams) -> bool:
    """Whether no further step should be made."""
    return listing.start_step(params.model_dir) >= params.max_steps or patience_ran_out(params)


def has_ended(params: HParams) -> bool:
    """Whether the last checkpoint is there."""
    is_done = listing.start_step(params.model_dir) >= params.max_steps
    return is_done or stopped_step(params) is not None


def stopped_step(params: HParams) -> Optional[int]:
    """Global step at which training stopped early; None where it did not, or goes on."""
    if not patience_ran_out(params):
        return None
    return best_model.read_state(params.model_dir).get('stopped_step')


def note_early_stop(params: HParams) -> None:
    """Says that the training has just stopped early, and notes it for other processes."""
    step = listing.start_step(params.model_dir)
    if step >= params.max_steps or not patience_ran_out(params) or stopped_step(params) == step:
        return
    state = best_model.read_state(params.model_dir)
    best_model.write_state(params.model_dir, dict(state, stopped_step=step))
    say('Stopped early at step {:,}: {}.'.format(step, why(params)[0]))


def why(params: HParams) -> Tuple[str, int]:
    """Returns why training should end early, in words, and the number of evaluations in vain."""
    count = best_model.read_state(params.model_dir)['evaluations_since_best']
    best, results = best_model.counted_best(params.model_dir), 'finite'
    if best is not None:
        value = best[best_model.selection_metric(params)]
        results = f'better than the {value:.2f} nats of step {best["global_step"]:,}'
    return f'none of the last {count} evaluation(s) was {results}', count
