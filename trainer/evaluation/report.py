"""The numbers of an evaluation, and the table of them."""

from typing import Any, Dict

import numpy as np

from trainer.evaluation import importance_sampling
from trainer.model.bounds import ACTIVE_VARIANCE
from trainer.settings import wording
from trainer.settings.table import LIKELIHOODS, PRIORS, HParams


def summarize(rows: np.ndarray, params: HParams) -> Dict[str, Any]:
    """Turns what is known of each image into the numbers of an evaluation.

    Args:
      rows: of `importance_sampling.row_type`, one an image.

    Returns:
      Means over the images, in nats, with their standard errors (None for a single image):
      `negative_log_likelihood` with `bits_per_dimension`, that is the same in bits over pixels and
      channels, and, of densities, `bits_per_dimension_8_bit`. Of dequantised images that is of
      levels from 0 to 256, 8 bits more, and an upper bound on the mean code length of the 8-bit
      images, which compares with published ones (Theis et al. 2016, arXiv:1511.01844, section
      3.1). Without noise it is of levels from 0 to 255, log2 255 = 7.99 bits more, and bounds
      nothing.
      Or `negative_importance_weighted_bound` where it bounds no likelihood;
      `negative_elbo` and its parts `reconstruction_loss` (distortion) and `kl_divergence` (rate).
      `kl_by_dimension`, means. `active_units`, the dimensions whose posterior's mean varies over
      the images by more than 0.01: Burda et al. 2016 (arXiv:1509.00519), section 5.2.
      `effective_samples`, of an image, by `StreamingLogMeanExp.effective_count`: the median over
      the images, the number that 5% of them do not reach, and the fewest.
    """
    negative_bound = -rows['importance_weighted_bound']
    values = {
        'negative_elbo': rows['reconstruction_loss'] + rows['kl_divergence'],
        'reconstruction_loss': rows['reconstruction_loss'],
        'kl_divergence': rows['kl_divergence'],
    }
    if wording.has_log_likelihood(params):
        values['negative_log_likelihood'] = negative_bound
        values['bits_per_dimension'] = bits_per_dimension(negative_bound, params)
        if LIKELIHOODS[params.likelihood].of_grey_levels:
            more = bits_of_levels(params)
            values['bits_per_dimension_8_bit'] = values['bits_per_dimension'] + more
    else:
        values['negative_importance_weighted_bound'] = negative_bound
    variance = np.var(rows['posterior_mean'].astype(np.float64), axis=0)
    record: Dict[str, Any] = {name: _mean_and_error(value) for name, value in values.items()}
    record['active_units'] = int(np.sum(variance > ACTIVE_VARIANCE))
    levels = np.percentile(rows['effective_samples'], [50, 5, 0])
    record['effective_samples'] = dict(zip(('median', 'percentile_5', 'fewest'), levels.tolist()))
    record['kl_is'] = 'in closed form'
    if not PRIORS[params.prior].has_closed_kl:
        record['kl_is'] = (
            'estimated from the samples; by_dimension, of the marginals, from the first '
            f'{importance_sampling.MARGINAL_SAMPLES} of an image'
        )
    if 'kl_by_dimension' in rows.dtype.names:
        by_dimension = rows['kl_by_dimension'].mean(axis=0, dtype=np.float64)
        record['kl_by_dimension'] = by_dimension.tolist()
    return record


def bits_per_dimension(nats: Any, params: HParams) -> Any:
    """Turns nats an image into bits a pixel and channel."""
    return nats / (np.log(2.0) * params.rows * params.row_features)


def bits_of_levels(params: HParams) -> float:
    """Bits a pixel by which -log p(x) grows from grey levels in [0, 1] to those of 8 bits."""
    return float(np.log2(256.0 if params.sampling == 'uniform' else 255.0))


def _mean_and_error(values: np.ndarray) -> Dict[str, Any]:
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {'mean': float(values.mean()), 'standard_error': error}


_LABELS = {
    'negative_log_likelihood': 'negative log-likelihood',
    'negative_importance_weighted_bound': (
        'negative importance-weighted bound (no likelihood: grey levels with a Bernoulli)'
    ),
    'negative_elbo': 'negative ELBO',
    'reconstruction_loss': 'distortion (reconstruction loss)',
    'kl_divergence': 'rate (KL divergence)',
    'bits_per_dimension': 'bits per dimension',
    'bits_per_dimension_8_bit': 'bits per dimension, of levels from 0 to 255',
}


def title(facts: Dict[str, Any]) -> str:
    """Says what is evaluated, on what and how."""
    if facts['num_images'] < facts['images_in_split']:
        images = 'a SUBSET, the first {num_images:,} of {images_in_split:,} {split} {examples}'
    else:
        images = 'the {num_images:,} {split} {examples}'
    return (
        '{checkpoint} (step {global_step:,}) on '
        + images
        + ' of {dataset}, {convention}; {importance_samples:,} posterior samples each, seed {seed}'
    ).format(**facts)


def table(record: Dict[str, Any]) -> str:
    """Writes the results of an evaluation."""
    names = [name for name in _LABELS if name in record]
    labels = dict(_LABELS)
    if 'bits_per_dimension_8_bit' in record:
        labels['bits_per_dimension'] += ', of levels in [0, 1]'
        if record['convention'] == wording.DEQUANTISED:
            labels['bits_per_dimension_8_bit'] = 'bits per dimension, of 8-bit images'
    width = max(len(labels[name]) for name in names)
    lines = [
        title(record),
        'log p(x) is {}'.format(record['log_likelihood']),
        '',
        '{:<{}} {:>12} {:>15}'.format(
            'nats per ' + record['examples'][:-1], width, 'mean', 'standard error'
        ),
    ]
    for name in names:
        digits = 4 if name.startswith('bits_per_dimension') else 2
        mean, error = record[name]['mean'], record[name]['standard_error']
        text = '' if error is None else '{:.{}f}'.format(error, digits + 1)
        lines.append('{:<{}} {:>12.{}f} {:>15}'.format(labels[name], width, mean, digits, text))
    lines += ['', '{} of {} units are active'.format(record['active_units'], record['latent_size'])]
    text = 'effective samples: median {median:.0f}, 5% have fewer than {percentile_5:.0f}'
    lines.append((text + ', fewest {fewest:.1f}').format(**record['effective_samples']))
    if 'kl_by_dimension' in record:
        kl = sorted(record['kl_by_dimension'], reverse=True)
        largest = ' '.join('{:.2f}'.format(value) for value in kl[:10])
        lines.append('KL by dimension: {}{}'.format(largest, ' ...' if len(kl) > 10 else ''))
    return '\n'.join(lines)
