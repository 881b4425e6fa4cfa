"""What a training says before its first step and at each evaluation."""

from typing import Any, Dict

from trainer.base.console import say
from trainer.checkpoints import listing
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
        say(
            '{} has stopped early at step {:,} of {:,}, because {}: nothing left to train. To go '
            'on, give --early_stopping_patience=0 or more than {}.'.format(
                params.model_dir, step, params.max_steps, *early_stopping.why(params)
            )
        )
    else:
        verb = 'Training {}'
        if step:
            verb = 'Resuming {} at step {:,}, going'
        say(
            f'{verb.format(params.model_dir, step)} to step {params.max_steps:,} on '
            f'{params.dataset} ({wording.data_convention(params)}): batches of '
            f'{params.batch_size} on {towers.count(params)} thread(s), '
            f'{optimizer.schedule_text(params)}.'
        )


def evaluation(metrics: Dict[str, Any], is_best: bool, params: HParams) -> None:
    """Says how a checkpoint did on the validation images."""
    what = 'reconstruction + KL'
    if wording.selection_metric(params) != 'negative_elbo':
        what += '; negative bound of {} samples'.format(params.samples_evaluated)
    reported = {name: metrics[name] for name in wording.reported_metrics(params)}
    say(
        'step {:,}: validation negative ELBO {} ({}) nats, {}{}'.format(
            int(metrics['global_step']),
            wording.terms_text(reported),
            what,
            wording.data_convention(params),
            '; best so far' if is_best else '',
        )
    )
