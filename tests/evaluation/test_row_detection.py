"""What is measured of unusual rows: F1 by hand, what is resampled as a whole, errors by a loop."""

import numpy as np
import pytest

from trainer.evaluation import detection, row_detection
from trainer.evaluation.row_detection import Labelled

LABELS = np.array([0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0], bool)


def labelled(scores, labels=LABELS):
    stretches = row_detection.stretches_of(labels)
    by_name = {name: np.array(scores, float) for name in row_detection.NAMES}
    return Labelled(by_name, labels, stretches, row_detection.units_of(labels, 3), 0)


def test_f1_and_point_adjusted_f1_by_hand():
    """Of three stretches, of 3, 1 and 1 rows, the first is hit once; two usual rows are flagged."""
    scores = np.zeros(len(LABELS))
    scores[[2, 5, 6]] = 9
    found = row_detection.at_threshold(scores, labelled(scores), 1.0)
    assert found == {
        'precision': pytest.approx(1 / 3), 'recall': pytest.approx(1 / 5),
        'f1': pytest.approx(2 / (3 + 5)), 'point_adjusted_f1': pytest.approx(2 * 3 / (5 + 5)),
    }  # fmt: skip
    nothing = row_detection.at_threshold(scores, labelled(scores), 10.0)
    assert nothing == {'precision': None, 'recall': 0, 'f1': 0, 'point_adjusted_f1': 0}


def test_a_threshold_is_that_of_the_conformal_quantile_and_none_of_few_rows():
    assert row_detection.threshold(np.arange(999)[::-1]) == 989  # The 990th of 999.
    assert row_detection.threshold(np.arange(499)) is None


def test_stretches_and_what_stays_together():
    assert row_detection.stretches_of(LABELS).tolist() == [
        -1, 0, 0, 0, -1, -1, -1, -1, 1, -1, 2, -1, -1, -1, -1, -1, -1,
    ]  # fmt: skip
    # The last two are less than a window of 3 apart; 12 usual rows are 4 pieces.
    assert row_detection.units_of(LABELS, 3).tolist() == [
        2, 0, 0, 0, 2, 2, 3, 3, 1, 3, 1, 4, 4, 4, 5, 5, 5,
    ]  # fmt: skip
    assert row_detection.units_of(np.zeros(8, bool), 3).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert row_detection.units_of(np.ones(2, bool), 3).tolist() == [0, 0]


def test_areas_are_those_of_images_and_errors_those_of_a_loop_over_resamples():
    random = np.random.RandomState(1)
    usual, unusual = random.randint(0, 9, 40), random.randint(3, 12, 10)
    units = np.arange(40) // 7, np.array([5] * 4 + [9] * 6)
    found = detection.detection_of_units(usual, unusual, *units, resamples=60, seed=4)
    alone = detection.detection(usual, unusual)
    assert (found.auroc, found.average_precision) == (alone.auroc, alone.average_precision)
    randoms = [np.random.RandomState([4, number]) for number in range(2)]
    areas = []
    for _ in range(60):
        drawn = []
        for scores, unit, random in zip((usual, unusual), units, randoms):
            numbers = np.unique(unit)
            some = numbers[random.randint(len(numbers), size=len(numbers))]
            drawn.append(np.concatenate([scores[unit == number] for number in some]))
        areas.append(detection.detection(*drawn, resamples=2)[::2])
    errors = np.std(areas, axis=0, ddof=1)
    np.testing.assert_allclose(found[1::2], errors, rtol=1e-9)
