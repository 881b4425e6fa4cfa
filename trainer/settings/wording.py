"""What the numbers of a run are called, and what they are of."""

from typing import Dict

from trainer.settings import table
from trainer.settings.table import LIKELIHOODS, HParams

# The first is the sum of the others.
LOSSES = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')

DEQUANTISED = 'dequantised grey levels'


def examples(params: HParams) -> str:
    """What signatures call the data that they take and give."""
    return 'windows' if params.is_series else 'images'


def values(params: HParams) -> str:
    """What one of these consists of."""
    return 'readings' if params.is_series else 'pixels'


def data_convention(params: HParams) -> str:
    """Names the data that every number of the run is of: those of others cannot be compared."""
    if params.is_series:
        return 'standardised readings'
    if params.sampling == 'uniform':
        return DEQUANTISED
    if params.binarization == 'none':
        is_density = LIKELIHOODS[params.likelihood].of_grey_levels
        return 'grey levels, not dequantised' if is_density else 'grey levels'
    if params.binarization == 'dynamic':
        return 'dynamic binarisation'
    if table.is_binary(params.dataset):
        return 'static binarisation by Larochelle'
    return 'static binarisation by fixed-seed sampling'


def log_likelihood(params: HParams) -> str:
    """Says what log p(x), of which ELBO and importance-weighted bound are bounds, is.

    Log-probabilities of binary images are minus infinity as log-densities of grey levels, and no
    two of the three kinds can be compared (Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845,
    section 3, on the first of them).
    """
    if params.is_series:
        return 'a log-density of standardised readings'
    if params.is_binarised:
        return 'a log-probability of binary images'
    if not has_log_likelihood(params):
        return 'no log-likelihood, as a Bernoulli is no density of grey levels'
    if params.sampling == 'uniform':
        return (
            'a log-density of grey levels with uniform noise, whose mean bounds the '
            'log-probability of 8-bit images from below'
        )
    return 'a log-density of grey levels'


def has_log_likelihood(params: HParams) -> bool:
    """Whether the model gives images a likelihood: a Bernoulli gives grey levels none."""
    likelihood = LIKELIHOODS[params.likelihood]
    return params.is_binarised or likelihood.of_grey_levels or likelihood.of_readings


def terms_text(metrics: Dict[str, float]) -> str:
    """Writes the negative ELBO and its parts, and the negative bound if given, in one line."""
    text = '{negative_elbo:.2f} = {reconstruction_loss:.2f} + {kl_divergence:.2f}'
    if 'negative_importance_weighted_bound' in metrics:
        text += '; {negative_importance_weighted_bound:.2f}'
    return text.format(**metrics)


def terms_meaning(metrics: Dict[str, float], params: HParams) -> str:
    """Says what the numbers of `terms_text` are, in their order."""
    text = 'reconstruction + KL'
    if 'negative_importance_weighted_bound' in metrics:
        text += f'; negative bound of {params.samples_evaluated} samples'
    return text
