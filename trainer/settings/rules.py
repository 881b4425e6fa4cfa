"""Which settings make no sense together, or with a dataset."""

from typing import Dict, List, Optional, Tuple

from trainer.base.errors import UserError
from trainer.settings import table
from trainer.settings.table import HParams


def check_consistent(hparams: HParams) -> None:
    """Refuses settings that make no sense together.

    Raises:
      UserError: names the two settings, and why.
    """
    for wrong, text in _contradictions(hparams):
        if wrong:
            raise UserError(text)


def _contradictions(hparams: HParams) -> List[Tuple[bool, str]]:
    weighted = hparams.objective != 'elbo'
    objective = '--objective={}'.format(hparams.objective)
    groups = hparams.free_bits_groups
    return [
        (
            hparams.is_binarised and not table.LIKELIHOODS[hparams.likelihood].of_binary_images,
            f'--likelihood={hparams.likelihood} needs --binarization=none (now '
            f'{hparams.binarization}): it is a density of grey levels, and images of 0 and 1 have '
            'probabilities.',
        ),
        (
            table.is_binary(hparams.dataset) and hparams.binarization != 'static',
            f'--dataset={hparams.dataset} needs --binarization=static (now '
            f'{hparams.binarization}): its pixels are 0 and 1 already.',
        ),
        (
            weighted and hparams.training_samples < 2,
            f'{objective} needs --training_samples of at least 2 (now '
            f'{hparams.training_samples}): with one it is the ELBO.',
        ),
        (
            weighted and bool(hparams.free_bits),
            f'--free_bits={hparams.free_bits:g} needs --objective=elbo (now {hparams.objective}): '
            'the importance-weighted bound has no KL divergence to leave free.',
        ),
        (
            weighted
            and (hparams.beta != 1.0 or hparams.beta_warmup_steps + hparams.beta_cycles > 0),
            '--beta, --beta_warmup_steps and --beta_cycles need --objective=elbo (now '
            f'{hparams.objective}): the importance-weighted bound has no KL divergence to weigh.',
        ),
        (
            hparams.beta_warmup_steps > 0 and hparams.beta_cycles > 0,
            f'--beta_warmup_steps={hparams.beta_warmup_steps} and '
            f'--beta_cycles={hparams.beta_cycles} exclude each other: give one.',
        ),
        (
            hparams.beta_cycles > hparams.max_steps,
            f'--beta_cycles={hparams.beta_cycles} must be at most --max_steps={hparams.max_steps}.',
        ),
        (
            bool(hparams.free_bits) and not table.PRIORS[hparams.prior].has_closed_kl,
            f'--free_bits={hparams.free_bits:g} needs --prior=standard_normal (now '
            f'{hparams.prior}): the KL divergence from a mixture is not a sum over dimensions.',
        ),
        (
            groups > 0 and not hparams.free_bits,
            '--free_bits_groups={} needs --free_bits above 0.'.format(groups),
        ),
        (
            groups > 0 and hparams.latent_size % groups > 0,
            f'--free_bits_groups={groups} must divide --latent_size={hparams.latent_size}.',
        ),
        (
            bool(hparams.normal_scale) and hparams.likelihood != 'normal',
            f'--normal_scale={hparams.normal_scale:g} needs --likelihood=normal (now '
            f'{hparams.likelihood}).',
        ),
    ]


def check_settings(params: HParams, num_examples: Optional[Dict[str, int]]) -> None:
    """Refuses settings that do not fit each other, or the dataset.

    Args:
      num_examples: images in each split; None where only the preparation will tell.

    Raises:
      UserError: names the settings, and why.
    """
    train = num_examples['train'] if num_examples else params.batch_size
    if params.batch_size > train:
        raise UserError(
            f'--batch_size={params.batch_size} must be at most {train:,}, the training images of '
            f'{params.dataset}.'
        )
    check_consistent(params)
    # No contradiction in a file: a run may be begun with few steps, to go on later.
    if params.beta_warmup_steps > params.max_steps:
        raise UserError(
            f'--beta_warmup_steps={params.beta_warmup_steps} must be at most '
            f'--max_steps={params.max_steps}.'
        )
    if num_examples and params.prior == 'vamp' and params.prior_components > train:
        raise UserError(
            f'--prior_components={params.prior_components} must be at most {train:,}, the '
            f'training images of {params.dataset}: pseudo-inputs start from them.'
        )
