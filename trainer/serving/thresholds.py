"""From which score on an image is unusual: quantiles among the scores of the validation images.

The score is the served `negative_elbo`: nats, higher is stranger. Nothing here looks at a test
image or at an unusual one. With n validation scores, the `quantile` of a score x is the share

    #{validation scores < x} / (n + 1),

so that 1 minus it is the conformal p-value (1 + #{validation scores >= x}) / (n + 1): of images
like the validation images, whatever the model, a share of at most 1 - q has a quantile of q or
more (Vovk et al. 2005; Bates et al. 2023, arXiv:2104.08279, section 1). The threshold of q in nats
is therefore the validation score of rank ceil(q (n + 1)): a score above it is one whose quantile is
q or more.

Of a series the rows have scores and quantiles of their own: the mean, over the windows that cover a
row, of the nats of its readings, among those of the validation rows. Windows overlap, and rows are
alike to their neighbours: as uncertain as n of either are thresholds of n / window images.
"""

import io
import math
import os
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError

FILE_NAME = 'thresholds.json'
_SCORES_NAME = 'validation_scores.npy'
ROW_SCORES_NAME = 'validation_row_scores.npy'
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.995, 0.999)
DEFAULT = 0.99
SCORE = 'negative_elbo'
# Of larger validation splits as many are scored: a multiple of the blocks of `data.inputs`.
MOST_IMAGES = 10_000
# Fewer images above a threshold say next to nothing of where it is.
_FEWEST_ABOVE = 5
# A quantile is a multiple of 1 / (n + 1) in float32.
_ROUNDING = 1e-6


# Of a signature, by name.
Outputs = Dict[str, np.ndarray]


class ValidationImages(NamedTuple):
    """What the scores are quantiles among."""

    num_images: int
    in_split: int  # Images in the validation split, of which so many are taken.
    # Returns them as the model sees them, in batches float32 `[n, rows, features]`.
    batches: Callable[[], Iterator[np.ndarray]]
    # Of a series whose windows start one row apart: the row at which each starts, int64 `[n]`.
    starts: Optional[np.ndarray] = None


class Scored(NamedTuple):
    """Validation images' scores, in nats."""

    scores: np.ndarray  # float32 [n], in their order.
    in_split: int
    window: int = 0  # Rows of a window of a series.
    rows: Optional[np.ndarray] = None  # Scores of rows, float32 [rows], in their order.

    @property
    def thresholds(self) -> Dict[str, Any]:
        """What `table` returns; of a series `rows` holds another, of their scores."""
        if not self.window:
            return table(self.scores, self.in_split)
        of_windows = table(self.scores, self.in_split, 'window', self.window)
        if self.rows is None:
            return of_windows
        return dict(of_windows, rows=table(self.rows, len(self.rows), 'row', self.window))


class Threshold(NamedTuple):
    """From where on an image is unusual: a quantile, or a score in nats."""

    value: float
    is_quantile: bool

    def is_exceeded(self, score: np.ndarray, quantile: np.ndarray) -> np.ndarray:
        """Says of each image, by its score and its quantile, whether it is unusual."""
        if self.is_quantile:
            return np.asarray(quantile) >= self.value - _ROUNDING
        return np.asarray(score) > self.value

    def __str__(self) -> str:
        return f'quantile >= {self.value:g}' if self.is_quantile else f'score > {self.value:g} nats'


class Judge:
    """Says of what a model told of an image whether that is unusual.

    Args:
      score: the name of the output that is the score, in nats.
      threshold: None where there are too few validation images for one.
    """

    def __init__(self, score: str, threshold: Optional[Threshold]):
        self.score, self.threshold = score, threshold

    def quantile(self, outputs: Optional[Outputs]) -> Optional[float]:
        """Returns its quantile among the validation images, None of a model without."""
        return None if outputs is None else outputs.get('quantile')

    def is_unusual(self, outputs: Optional[Outputs]) -> Optional[bool]:
        """Returns whether it reaches the threshold; None where nothing tells."""
        if outputs is None or self.threshold is None:
            return None
        quantile = self.quantile(outputs)
        if quantile is None and self.threshold.is_quantile:
            return None
        return bool(self.threshold.is_exceeded(outputs[self.score], quantile))


def write(folder: str, scored: Scored) -> None:
    """Writes the thresholds, and the scores that they are of, to `assets.extra` of an export."""
    for name, scores in ((_SCORES_NAME, scored.scores), (ROW_SCORES_NAME, scored.rows)):
        if scores is not None:
            content = io.BytesIO()
            np.save(content, scores)
            files.write_bytes(os.path.join(folder, name), content.getvalue())
    files.write_json(os.path.join(folder, FILE_NAME), scored.thresholds)


def of_export(export_dir: str) -> Optional[Dict[str, Any]]:
    """Returns the thresholds of an export; None where it was made without."""
    return files.read_json(os.path.join(export_dir, 'assets.extra', FILE_NAME))


def sentence(of_run: Optional[Dict[str, Any]]) -> str:
    """Says from which score on an image is unusual; '' where too few scores tell."""
    rows = of_run['quantiles'] if of_run else []
    known = [row for row in rows if row['nats'] is not None and row['quantile'] <= DEFAULT]
    if not known:
        return ''
    return (
        'unusual is a negative ELBO above {nats:.2f} nats as served: of {images:,} validation '
        '{example}s {quantile:.0%} have less'
    ).format(**dict({'example': 'image'}, **(of_run or {}), **known[-1]))


def parsed(text: str, num_validation: Optional[int] = None, example: str = 'image') -> Threshold:
    """Reads `--threshold`: between 0 and 1 a quantile, else nats, as any number with `nats` is.

    Args:
      num_validation: the number of validation scores, where it is known.
      example: what has a score: 'image', 'window' or 'row'.

    Raises:
      UserError: it is no number, or a quantile that so many scores do not tell.
    """
    number = text.strip()
    says_nats = number.endswith('nats')
    try:
        value = float(number[: -len('nats')] if says_nats else number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f'--threshold={text} is no number: give a quantile of the validation scores, as 0.99, '
            'or a score in nats, as 120.'
        )
    if says_nats or not 0.0 < value < 1.0:
        return Threshold(value, False)
    lowest, highest = QUANTILES[0], QUANTILES[-1]
    if not lowest <= value <= highest:
        raise UserError(
            f'--threshold={text} must be a quantile from {lowest} to {highest}, or a score in '
            f'nats: 120, or {value:g}nats.'
        )
    if num_validation is not None and value > _highest(num_validation):
        raise UserError(
            f'--threshold={text} is more than {num_validation:,} validation scores tell: '
            f'{_reason(num_validation, example)}. Give a lower one, or a score in nats.'
        )
    return Threshold(value, True)


def of_flag(
    text: str, num_validation: Optional[int], example: str = 'image'
) -> Optional[Threshold]:
    """What `--threshold` says; by default None, and a word, where too few scores tell."""
    if text:
        return parsed(text, num_validation, example)
    try:
        return parsed(str(DEFAULT), num_validation, example)
    except UserError as error:
        nothing = 'nothing' if example == 'image' else f'no {example}'
        say(f'{error} Until then {nothing} is said to be unusual.')
        return None


def quantiles(scores: np.ndarray, of_validation: np.ndarray) -> np.ndarray:
    """Returns the quantile of each score among those of the validation images, float64 `[n]`."""
    below = np.searchsorted(np.sort(of_validation), scores, side='left')
    return below / (len(of_validation) + 1.0)


def table(
    of_validation: np.ndarray, in_split: int, example: str = 'image', window: int = 1
) -> Dict[str, Any]:
    """Returns the thresholds as `thresholds.json` and `results.json` hold them.

    Args:
      of_validation: the scores, `[n]`; NaN counts as infinity.
      in_split: images in the validation split.
      example: what has a score: 'image', 'window' or 'row'.
      window: how many scores that follow each other are as uncertain as one.

    Returns:
      `quantiles`, a list: of each of QUANTILES its threshold in `nats`, with `interval_95`, in
      which the threshold of endless validation images lies with a probability of 95% at least
      (None: it is open); or None and the `reason`.
    """
    scores = np.asarray(of_validation, np.float64)
    ordered = np.sort(np.where(np.isnan(scores), np.inf, scores))
    independent = independent_scores(len(ordered), window)
    return {
        'score': SCORE if example != 'row' else 'nats of its readings, the mean over windows',
        'units': f'nats per {example}, higher is stranger',
        'split': 'validation',
        'example': example,
        'images': len(ordered),
        'images_in_split': in_split,
        'independent': independent,
        'quantiles': [_row(ordered, quantile, independent, example) for quantile in QUANTILES],
    }


def independent_scores(count: int, window: int) -> int:
    """Returns the number of independent scores that are as uncertain as so many of a series."""
    return max(1, count // max(1, window))


def _row(ordered: np.ndarray, quantile: float, independent: int, example: str) -> Dict[str, Any]:
    count = len(ordered)
    row: Dict[str, Any] = {'quantile': quantile, 'nats': None, 'interval_95': None}
    if quantile > _highest(count):
        return dict(row, reason=_reason(count, example))
    nats = ordered[rank(quantile, count) - 1]
    if not np.isfinite(nats):
        return dict(row, reason=f'scores of the validation {example}s are not finite')
    each = (count + 1) / (independent + 1)
    low, high = interval_ranks(quantile, independent)
    ranks = (math.floor(low * each + _ROUNDING), math.ceil(high * each - _ROUNDING))
    interval = [float(ordered[at - 1]) if 1 <= at <= count else None for at in ranks]
    interval = [end if end is not None and math.isfinite(end) else None for end in interval]
    return dict(row, nats=float(nats), interval_95=interval)


def rank(quantile: float, count: int) -> int:
    """The rank, 1 the lowest, of the score that is the threshold of a quantile."""
    return math.ceil(quantile * (count + 1) - _ROUNDING)


def interval_ranks(quantile: float, count: int) -> Tuple[int, int]:
    """The ranks of the scores between which the true quantile lies, with 95% at least.

    Of n scores a binomial number B(n, q) lies below the true quantile, whatever their distribution:
    David & Nagaraja 2003, Order Statistics, section 7.1. 0 and n + 1 stand for an open end.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    below = np.arange(count + 1)
    log_probability = (
        log_factorial[count] - log_factorial - log_factorial[::-1]
        + below * math.log(quantile) + (count - below) * math.log1p(-quantile)
    )  # fmt: skip
    cumulative = np.cumsum(np.exp(log_probability))  # P(B <= 0), P(B <= 1), ...
    low = int(np.searchsorted(cumulative, 0.025, side='right'))  # P(B < low) <= 0.025.
    high = int(np.searchsorted(cumulative, 0.975, side='left')) + 1  # P(B < high) >= 0.975.
    return low, high


def _highest(count: int) -> float:
    return 1.0 - _FEWEST_ABOVE / count + 1e-12


def _reason(count: int, example: str = 'image') -> str:
    return (
        f'fewer than {_FEWEST_ABOVE} of {count:,} validation {example}s lie above a '
        f'quantile of more than {max(0.0, 1.0 - _FEWEST_ABOVE / count):.4g}'
    )
