"""What a training says before its first step and at each evaluation."""

from typing import Any, Dict

from trainer.base.console import say
from trainer.checkpoints import best_model, listing
from trainer.settings import wording
from trainer.settings.table import HParams
from trainer.training import early_stopping, optimizer, towers


def start(params: HParams) -> None:
    """Says what is about to happen: from which step to which, and where."""
    step = listing.start_step(params.model_dir)
    if step >= params.max_steps:
        say(
            f'{params.model_dir} has already reached step {step:,} of {params.max_steps:,}: '
            'nothing left to train.'
        )
    elif early_stopping.patience_ran_out(params):
        reason, count = early_stopping.why(params)
        say(
            f'{params.model_dir} has stopped early at step {step:,} of {params.max_steps:,}, '
            f'because {reason}: nothing left to train. To go on, give --early_stopping_patience=0 '
            f'or more than {count}.'
        )
    else:
        verb = f'Resuming {params.model_dir} at step {step:,}, going'
        start = f'Training {params.model_dir}'
        if params.init_checkpoint:
            start += f' from the weights of {params.init_from} ({params.init_checkpoint})'
        say(
            f'{verb if step else start} to step {params.max_steps:,} on '
            f'{params.data_name} ({wording.data_convention(params)}): batches of '
            f'{params.batch_size} on {towers.count(params)} thread(s), '
            f'{optimizer.schedule_text(params)}.'
        )


def evaluation(metrics: Dict[str, Any], is_best: bool, params: HParams) -> None:
    """Says how a checkpoint did on the validation images."""
    reported = {name: metrics[name] for name in best_model.reported_metrics(params)}
    terms, what = wording.terms_text(reported), wording.terms_meaning(reported, params)
    say(
        f'step {int(metrics["global_step"]):,}: validation negative ELBO {terms} ({what}) nats, '
        f'{wording.data_convention(params)}{"; best so far" if is_best else ""}'
    )
