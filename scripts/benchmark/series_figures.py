"""How well the scores of rows tell the unusual rows of series; NumPy alone.

Scores `[n]` are higher where a row is stranger, labels `[n]` are 1 where it is unusual, else 0.
"""

import numpy as np

QUANTILE = 0.99


def auroc(scores, labels):
    """The probability that an unusual row has the higher score than a usual one; ties count half.

    There must be rows of both kinds.
    """
    usual, unusual = np.sort(scores[labels == 0]), scores[labels == 1]
    below, not_above = (np.searchsorted(usual, unusual, side) for side in ('left', 'right'))
    return float((below + not_above).mean() / 2 / len(usual))


def threshold(validation_scores):
    """The score above which a row is flagged, as few of the usual ones of validation are."""
    return float(np.quantile(validation_scores, QUANTILE))


def f1(flagged, labels):
    """The harmonic mean of precision and recall of rows; 0 without a right flag.

    Args:
      flagged: bool `[n]`.
      labels: `[n]`, at least one is 1.
    """
    right = np.sum(flagged & (labels == 1))
    return float(2 * right / (np.sum(flagged) + np.sum(labels == 1)))


def adjusted(flagged, labels):
    """Returns flags that hold for a whole unusual stretch where they hold for a row of it.

    Xu et al. 2018, arXiv:1802.03903, section 4.2. One lucky flag finds a stretch of any length, so
    that random flags get a high F1 where stretches are long: no figure to stand alone.

    Args:
      flagged, labels: of the rows of one file.
    """
    flagged = flagged.copy()
    borders = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
    for first, end in borders.reshape(-1, 2):
        flagged[first:end] |= flagged[first:end].any()
    return flagged


def figures(validation, test, labels):
    """Returns all figures of a method on a set, by their names.

    Args:
      validation: scores of usual rows, `[n]`.
      test, labels: lists with the scores and the labels of the rows of each file.
    """
    limit = threshold(validation)
    flags = [scores > limit for scores in test]
    adjusted_flags = np.concatenate([adjusted(*pair) for pair in zip(flags, labels)])
    scores, all_labels, flagged = map(np.concatenate, (test, labels, flags))
    return {
        'auroc': auroc(scores, all_labels),
        'f1': f1(flagged, all_labels),
        'point_adjusted_f1': f1(adjusted_flags, all_labels),
        'flagged_usual': float(flagged[all_labels == 0].mean()),
        'flagged_unusual': float(flagged[all_labels == 1].mean()),
    }


def by_kind(test, labels, kinds):
    """Returns the AUROC of the unusual rows of each kind alone, against all usual rows.

    Args:
      test, labels: as above.
      kinds: what each file is a recording of, '' where it is of nothing that has a name.
    """
    usual = np.concatenate([scores[found == 0] for scores, found in zip(test, labels)])
    unusual = {}
    for scores, found, kind in zip(test, labels, kinds):
        if kind and found.any():
            unusual.setdefault(kind, []).append(scores[found == 1])
    areas = {}
    for kind in sorted(unusual):
        both = np.concatenate([usual, *unusual[kind]])
        areas[kind] = auroc(both, np.arange(len(both)) >= len(usual))
    return areas
