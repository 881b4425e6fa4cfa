"""How well a score tells unusual images from usual ones: the areas under two curves, with errors.

Higher scores are stranger, and the unusual images are the positive class.
"""

from typing import NamedTuple, Tuple

import numpy as np

RESAMPLES = 1000
# Counts held at once, 16 MB: resamples times distinct scores.
_COUNTS_AT_ONCE = 2 * 10**6


class Detection(NamedTuple):
    """The areas, both from 0 to 1, and their standard errors over bootstrap resamples.

    Attributes:
      auroc: area under the receiver operating characteristic: the probability that an unusual
        image's score is higher than a usual one's, where a tie counts one half (Hanley & McNeil
        1982). 0.5 is chance; below it the score takes the unusual images for the more usual ones.
      average_precision: sum over the distinct scores, from the highest down, of precision times
        the recall that is gained there; scikit-learn's definition, without interpolation. Chance is
        the share of unusual images among all.
    """

    auroc: float
    auroc_standard_error: float
    average_precision: float
    average_precision_standard_error: float


def detection(
    usual: np.ndarray, unusual: np.ndarray, resamples: int = RESAMPLES, seed: int = 1
) -> Detection:
    """Measures how well scores tell two sets of images apart.

    Resamples are stratified: each draws as many usual and unusual images as there are, with
    replacement. The same seed draws the same images, whatever their scores: errors of several
    scores of the same images are of the same resamples.

    Args:
      usual: finite scores `[n]`, n at least 1.
      unusual: finite scores `[m]`, m at least 1.
      resamples: at least 2.
    """
    distinct, places = np.unique(np.concatenate([usual, unusual]), return_inverse=True)
    both = np.split(places, [len(usual)])
    auroc, average_precision = _areas(*(_counted(part[np.newaxis], len(distinct)) for part in both))
    randoms = [np.random.RandomState([seed, number]) for number in range(2)]
    at_once, found = max(1, _COUNTS_AT_ONCE // len(distinct)), []
    for first in range(0, resamples, at_once):
        some = min(at_once, resamples - first)
        drawn = [
            part[random.randint(len(part), size=[some, len(part)])]
            for part, random in zip(both, randoms)
        ]
        found.append(np.stack(_areas(*(_counted(part, len(distinct)) for part in drawn))))
    errors = np.concatenate(found, axis=1).std(axis=1, ddof=1)
    return Detection(
        float(auroc[0]), float(errors[0]), float(average_precision[0]), float(errors[1])
    )


def detection_of_units(
    usual: np.ndarray,
    unusual: np.ndarray,
    usual_units: np.ndarray,
    unusual_units: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 1,
) -> Detection:
    """As `detection`, where what is of one unit is drawn together, as neighbours depend.

    Args:
      usual_units, unusual_units: the number of the unit of each score.
    """
    distinct, places = np.unique(np.concatenate([usual, unusual]), return_inverse=True)
    both = np.split(places, [len(usual)])
    areas = np.stack(_areas(*(_counted(part[np.newaxis], len(distinct)) for part in both)))[:, 0]
    units = [np.unique(part, return_inverse=True)[1] for part in (usual_units, unusual_units)]
    randoms = [np.random.RandomState([seed, number]) for number in range(2)]
    found = np.zeros([resamples, 2])
    for resample in range(resamples):
        counts = []
        for part, unit, random in zip(both, units, randoms):
            number = unit.max() + 1
            times = np.bincount(random.randint(number, size=number), minlength=number)
            counts.append(np.bincount(part, times[unit], len(distinct))[np.newaxis])
        found[resample] = np.stack(_areas(*counts))[:, 0]
    errors = found.std(axis=0, ddof=1)
    return Detection(*map(float, (areas[0], errors[0], areas[1], errors[1])))


def _counted(places: np.ndarray, distinct: int) -> np.ndarray:
    """float64 `[k, distinct]`: how often each of 0 .. distinct - 1 is in a row of `[k, n]`."""
    rows = len(places)
    offsets = distinct * np.arange(rows)[:, np.newaxis]
    counts = np.bincount((places + offsets).ravel(), minlength=rows * distinct)
    return counts.reshape(rows, distinct).astype(np.float64)


def _areas(usual: np.ndarray, unusual: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision, each `[k]`, of counts at ascending scores, `[k, distinct]`."""
    num_usual, num_unusual = usual.sum(axis=1), unusual.sum(axis=1)
    usual_up_to, unusual_up_to = np.cumsum(usual, axis=1), np.cumsum(unusual, axis=1)
    below = usual_up_to - 0.5 * usual
    auroc = np.sum(unusual * below, axis=1) / (num_usual * num_unusual)
    # At each score as the threshold: images from it on are taken for unusual.
    true = num_unusual[:, np.newaxis] - unusual_up_to + unusual
    false = num_usual[:, np.newaxis] - usual_up_to + usual
    precision = true / np.maximum(true + false, 1.0)
    return auroc, np.sum(unusual * precision, axis=1) / num_unusual
