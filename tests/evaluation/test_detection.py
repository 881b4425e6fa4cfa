"""The areas under the curves: against counted pairs, definitions, and errors in closed form."""

import numpy as np
import pytest

from trainer.evaluation import detection


def pairs(usual, unusual):
    """AUROC, pair by pair."""
    won = [float(high > low) + 0.5 * (high == low) for high in unusual for low in usual]
    return sum(won) / len(won)


def stepwise(usual, unusual):
    """Average precision: each distinct score as a threshold, from the highest down."""
    total, recall = 0.0, 0.0
    for threshold in sorted({*usual, *unusual}, reverse=True):
        true = sum(score >= threshold for score in unusual)
        false = sum(score >= threshold for score in usual)
        total += (true / len(unusual) - recall) * true / (true + false)
        recall = true / len(unusual)
    return total


def delong_error(usual, unusual):
    """The standard error of AUROC without resampling: DeLong et al. 1988, section 3."""
    won = (unusual[:, None] > usual) + 0.5 * (unusual[:, None] == usual)
    parts = [np.var(won.mean(axis=axis), ddof=1) / won.shape[1 - axis] for axis in (0, 1)]
    return np.sqrt(sum(parts))


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('levels', [3, 1000])
def test_the_areas_are_those_of_counted_pairs_and_thresholds(seed, levels):
    random = np.random.RandomState(seed)
    usual = random.randint(0, levels, random.randint(1, 30)).astype(float)
    unusual = random.randint(0, levels, random.randint(1, 30)) + 0.3 * levels * random.randint(2)
    found = detection.detection(usual, unusual, resamples=2)
    assert found.auroc == pytest.approx(pairs(usual, unusual), abs=1e-12)
    assert found.average_precision == pytest.approx(stepwise(usual, unusual), abs=1e-12)


def test_known_examples():
    # The example of scikit-learn's pages of roc_auc_score and average_precision_score.
    found = detection.detection(np.array([0.1, 0.4]), np.array([0.35, 0.8]))
    assert found.auroc == 0.75
    assert found.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)
    # By hand: of the pairs one is won, one lost, and two are ties.
    found = detection.detection(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert (found.auroc, found.average_precision) == (0.5, 0.5)
    found = detection.detection(np.array([5.0, 5.0, 5.0]), np.array([5.0]))
    assert (found.auroc, found.average_precision) == (0.5, 0.25)
    assert detection.detection(np.arange(4.0), np.arange(4.0, 9.0)) == (1, 0, 1, 0)
    assert detection.detection(np.arange(4.0, 9.0), np.arange(4.0)).auroc == 0


@pytest.mark.parametrize('decimals', [0, 9])
def test_the_bootstrap_s_error_is_that_of_the_closed_form(decimals):
    random = np.random.RandomState(3)
    usual = random.normal(0, 1, 400).round(decimals)
    unusual = random.normal(1, 1.5, 150).round(decimals)
    found = detection.detection(usual, unusual)
    expected = delong_error(usual, unusual)
    assert found.auroc_standard_error == pytest.approx(expected, rel=0.1)
    assert 0.3 * expected < found.average_precision_standard_error < 3 * expected


def test_the_same_seed_draws_the_same_images_whatever_their_scores(monkeypatch):
    random = np.random.RandomState(3)
    usual, unusual = random.normal(0, 1, 90), random.normal(1, 1, 40)
    found = detection.detection(usual, unusual, seed=5)
    assert detection.detection(usual, unusual, seed=5) == found
    assert detection.detection(usual, unusual, seed=6) != found
    # Another score in the same order, with as many resamples at once as memory allows, or fewer.
    monkeypatch.setattr(detection, '_COUNTS_AT_ONCE', 1000)
    np.testing.assert_allclose(detection.detection(usual**3, unusual**3, seed=5), found, rtol=1e-12)
