"""Which settings make no sense together, or with the data, and what those left open become."""

import dataclasses
import re
from typing import Any, Dict, Optional, Tuple

from trainer.base.errors import UserError
from trainer.settings import table
from trainer.settings.table import HParams, Scaling

# A likelihood that the data decides.
UNDECIDED = ''
# What is said of image files, and of CSV files, with what says nothing.
OF_IMAGE_FILES: Dict[str, Any] = {'image_size': '', 'fit': 'stretch', 'channels': 'auto'}
OF_SERIES: Dict[str, Any] = {
    'window': 0, 'stride': 1, 'columns': '', 'label_column': '', 'time_column': '',
    'missing': 'refuse',
}  # fmt: skip


def with_data(
    params: HParams,
    image_shape: Optional[Tuple[int, int, int]],
    scaling: Scaling,
    digest: str,
    dtype: str = 'uint8',
) -> HParams:
    """Returns the settings with what the data tells; nothing changes them after it is prepared.

    Args:
      image_shape: None where only the preparation will tell.
      scaling: of a series; where only its preparation will tell means and deviations, any.
      digest: of own data; '' where it is not known.
      dtype: as which the data are stored; where only the preparation will tell, any.
    """
    likelihood = params.likelihood
    if likelihood == UNDECIDED:
        likelihood = 'normal_by_column' if scaling else 'bernoulli'
    return dataclasses.replace(
        params,
        image_shape=image_shape or params.image_shape,
        scaling=scaling,
        source_digest=digest,
        dtype=dtype,
        likelihood=likelihood,
    )


def check_consistent(params: HParams) -> None:
    """Refuses settings that make no sense together.

    Raises:
      UserError: names the two settings, and why.
    """
    check_images(params)
    # What the data decides is no contradiction.
    known = params.image_shape, params.scaling, params.source_digest, params.dtype
    decided = with_data(params, *known)
    _refuse(_contradictions(decided))


def parsed_size(text: str) -> Optional[Tuple[int, int]]:
    """Reads `--image_size`, (rows, columns); None of ''. Raises UserError for what is no size."""
    if not text:
        return None
    match = re.fullmatch(r'(\d{1,4})x(\d{1,4})', text)
    rows, columns = map(int, match.groups()) if match else (0, 0)
    if rows not in table.SIZE or columns not in table.SIZE:
        raise UserError(
            f'--image_size={text}: give ROWSxCOLUMNS, as 28x28, each a whole number {table.SIZE}.'
        )
    return rows, columns


def check_images(params: HParams) -> None:
    """Refuses flags of images that make no sense together; raises UserError."""
    parsed_size(params.image_size)
    given = [name for name in (*OF_IMAGE_FILES, *OF_SERIES) if _is_given(params, name)]
    _refuse(
        {
            f'--{" and --".join(given)} need --source: the images of {params.data_flag} are taken '
            'as they are.': bool(given) and not params.source,
            f'--fit={params.fit} needs --image_size.': params.fit == 'pad'
            and not params.image_size,
            f'--idx_dir={params.idx_dir} is of --dataset: leave it away with --source.': (
                bool(params.source and params.idx_dir)
            ),
        }
    )


def check_kind(params: HParams, is_series: bool) -> None:
    """Refuses flags of image files where --source holds CSV files, and the other way round."""
    others = OF_IMAGE_FILES if is_series else OF_SERIES
    given = [name for name in others if _is_given(params, name)]
    kinds = ('image files and arrays', 'CSV files')
    _refuse(
        {
            f'--{" and --".join(given)}: of {kinds[not is_series]}, and {params.data_flag} holds '
            f'{kinds[is_series]}: leave that away.': bool(given)
        }
    )


def _is_given(params: HParams, name: str) -> bool:
    return getattr(params, name) != {**OF_IMAGE_FILES, **OF_SERIES}[name]


def _refuse(contradictions: Dict[str, bool]) -> None:
    for text, is_wrong in contradictions.items():
        if is_wrong:
            raise UserError(text)


def _contradictions(params: HParams) -> Dict[str, bool]:
    weighted, groups = params.objective != 'elbo', params.free_bits_groups
    warmup, cycles = params.beta_warmup_steps, params.beta_cycles
    likelihood = table.LIKELIHOODS[params.likelihood]
    series = f'{params.data_flag} holds readings, which have no bounds'
    return {
        f'--binarization={params.binarization}: {series}, so that none can be 0 or 1 with a '
        'probability: leave it away.': params.is_series and params.is_binarised,
        f'--likelihood={params.likelihood}: {series}: give normal_by_column, their default.': (
            params.is_series and not likelihood.of_readings
        ),
        f'--likelihood={params.likelihood} is of readings in CSV files, and {params.data_flag} '
        'holds images: give another.': likelihood.of_readings and not params.is_series,
        f'--likelihood={params.likelihood} needs --binarization=none (now {params.binarization}): '
        'it is a density of grey levels, and images of 0 and 1 have probabilities.': (
            params.is_binarised and not likelihood.of_binary_images
        ),
        f'--dataset={params.dataset} needs --binarization=static (now {params.binarization}): '
        'its pixels are 0 and 1 already.': (
            table.is_binary(params.dataset) and params.binarization != 'static'
        ),
        f'--objective=iwae needs --training_samples of at least 2 (now {params.training_samples}): '
        'with one it is the ELBO.': params.objective == 'iwae' and params.training_samples < 2,
        f'--free_bits={params.free_bits:g} needs --objective=elbo (now {params.objective}): the '
        'importance-weighted bound has no KL divergence to leave free.': (
            weighted and params.free_bits > 0
        ),
        '--beta, --beta_warmup_steps and --beta_cycles need --objective=elbo (now '
        f'{params.objective}): the importance-weighted bound has no KL divergence to weigh.': (
            weighted and (params.beta != 1.0 or warmup + cycles > 0)
        ),
        f'--beta_warmup_steps={warmup} and --beta_cycles={cycles} exclude each other: give one.': (
            warmup > 0 and cycles > 0
        ),
        f'--beta_cycles={cycles} must be at most --max_steps={params.max_steps}.': (
            cycles > params.max_steps
        ),
        f'--free_bits={params.free_bits:g} needs --prior=standard_normal (now {params.prior}): the '
        'KL divergence from a learned prior is not a sum over dimensions.': (
            params.free_bits > 0 and not table.PRIORS[params.prior].has_closed_kl
        ),
        f'--free_bits_groups={groups} needs --free_bits above 0.': (
            groups > 0 and not params.free_bits
        ),
        f'--free_bits_groups={groups} must divide --latent_size={params.latent_size}.': (
            groups > 0 and params.latent_size % groups > 0
        ),
        f'--normal_scale={params.normal_scale:g} needs --likelihood=normal (now '
        f'{params.likelihood}).': params.normal_scale > 0 and params.likelihood != 'normal',
    }


def check_settings(params: HParams, num_examples: Optional[Dict[str, int]]) -> None:
    """Refuses settings that do not fit each other, or the dataset.

    Args:
      num_examples: images in each split; None where only the preparation will tell.

    Raises:
      UserError: names the settings, and why.
    """
    train = num_examples['train'] if num_examples else params.batch_size
    noun = 'windows' if params.is_series else 'images'
    if params.batch_size > train:
        raise UserError(
            f'--batch_size={params.batch_size} must be at most {train:,}, the training {noun} of '
            f'{params.data_name}.'
        )
    check_consistent(params)
    # No contradiction in a file: a run may be begun with few steps, to go on later.
    if params.beta_warmup_steps > params.max_steps:
        raise UserError(
            f'--beta_warmup_steps={params.beta_warmup_steps} must be at most '
            f'--max_steps={params.max_steps}.'
        )
    starts_from_images = table.PRIORS[params.prior].starts_from_images
    if num_examples and starts_from_images and params.prior_components > train:
        raise UserError(
            f'--prior_components={params.prior_components} must be at most {train:,}, the '
            f'training {noun} of {params.data_name}: pseudo-inputs start from them.'
        )
