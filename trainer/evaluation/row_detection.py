"""How well scores tell unusual rows of series from usual ones, row by row and at a threshold."""

import math
from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from trainer.evaluation import detection

# Nats of the readings of a row, and of what windows cost; each the mean over windows that cover it.
NAMES = ('row', 'negative_elbo', 'kl_divergence')
QUANTILE = 0.99
# Fewer say next to nothing of where that is.
FEWEST_VALIDATION_ROWS = 500


class Labelled(NamedTuple):
    """Rows of one or several files.

    Attributes:
      scores: by NAMES, float64 `[n]`.
      is_unusual: bool `[n]`.
      stretch: of each unusual row the number of the unusual stretch that it lies in; -1 of others.
      unit: of each row the number of what is resampled as a whole, see `units_of`.
      without: rows that no window covers, which are none of these.
    """

    scores: Dict[str, np.ndarray]
    is_unusual: np.ndarray
    stretch: np.ndarray
    unit: np.ndarray
    without: int


def stretches_of(labels: np.ndarray) -> np.ndarray:
    """Returns the number of the unusual stretch of each row, from 0; -1 where it is in none."""
    starts = labels & ~np.append(False, labels[:-1])
    return np.where(labels, np.cumsum(starts) - 1, -1)


def units_of(labels: np.ndarray, window: int) -> np.ndarray:
    """Returns the number of what each row is resampled with, from 0.

    Neighbours depend on each other: unusual stretches that are less than a window apart stay
    together, and the usual rows are cut, in their order, into pieces of a window or more.
    """
    units = np.zeros(len(labels), np.int64)
    rows = np.flatnonzero(labels)
    units[rows] = np.cumsum(np.append(0, np.diff(rows) > window)[: len(rows)])
    usual = np.flatnonzero(~labels)
    pieces = max(1, len(usual) // window)
    first = units[rows[-1]] + 1 if len(rows) else 0
    units[usual] = first + np.minimum(np.arange(len(usual)) // window, pieces - 1)
    return units


def measured(rows: Labelled, of_validation: np.ndarray, seed: int) -> Dict[str, Any]:
    """Returns how well each score tells the unusual rows, by NAMES.

    Args:
      of_validation: scores of the validation rows, `[n, NAMES]`.
      seed: of the bootstrap.
    """
    found = {}
    usual, unusual = ~rows.is_unusual, rows.is_unusual
    for number, name in enumerate(NAMES):
        scores = rows.scores[name]
        limit = threshold(of_validation[:, number])
        areas = detection.detection_of_units(
            scores[usual], scores[unusual], rows.unit[usual], rows.unit[unusual], seed=seed
        )
        found[name] = dict(
            areas._asdict(),
            mean_usual=float(scores[usual].mean()),
            mean_unusual=float(scores[unusual].mean()),
            threshold=limit,
            **at_threshold(scores, rows, limit),
        )
    return found


def threshold(of_validation: np.ndarray) -> Optional[float]:
    """Returns the score of rank ceil(q (n + 1)) of n; None where too few tell."""
    count = len(of_validation)
    if count < FEWEST_VALIDATION_ROWS:
        return None
    return float(np.sort(of_validation)[math.ceil(QUANTILE * (count + 1) - 1e-6) - 1])


def at_threshold(
    scores: np.ndarray, rows: Labelled, limit: Optional[float]
) -> Dict[str, Optional[float]]:
    """Returns `precision`, `recall`, `f1` and `point_adjusted_f1` of scores above a threshold.

    With the point adjustment a stretch of which any row is found counts as found whole.
    """
    if limit is None:
        return dict.fromkeys(('precision', 'recall', 'f1', 'point_adjusted_f1'))
    flagged, unusual = scores > limit, rows.is_unusual
    hit = np.unique(rows.stretch[flagged & unusual])
    adjusted = flagged | (unusual & np.isin(rows.stretch, hit))
    true = int(np.sum(flagged & unusual))
    return {
        'precision': true / int(flagged.sum()) if flagged.any() else None,
        'recall': true / int(unusual.sum()),
        'f1': _f1(flagged, unusual),
        'point_adjusted_f1': _f1(adjusted, unusual),
    }


def _f1(flagged: np.ndarray, unusual: np.ndarray) -> float:
    return float(2 * np.sum(flagged & unusual) / (np.sum(flagged) + np.sum(unusual)))
