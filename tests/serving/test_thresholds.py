"""Quantiles and thresholds against counting, sorting and SciPy's binomial distribution."""

import math

import numpy as np
import pytest
import scipy.stats

from trainer.base.errors import UserError
from trainer.serving import thresholds

SCORES = np.random.RandomState(3).gamma(9.0, 10.0, 10000)


def test_a_quantile_counts_the_validation_scores_below():
    of_validation = np.array([3.0, 1.0, 2.0, 2.0])
    scores = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0, np.inf])
    expected = [0, 0, 1 / 5, 1 / 5, 3 / 5, 3 / 5, 4 / 5, 4 / 5]
    np.testing.assert_allclose(thresholds.quantiles(scores, of_validation), expected)


@pytest.mark.parametrize('count', [19, 100, 999, 1000, 5000])
@pytest.mark.parametrize('quantile', thresholds.QUANTILES)
def test_a_score_above_a_threshold_has_its_quantile(quantile, count):
    of_validation = SCORES[:count]
    table = thresholds.table(of_validation, count)
    (row,) = [row for row in table['quantiles'] if row['quantile'] == quantile]
    if quantile > 1 - 5 / count:
        assert row['nats'] is None and row['interval_95'] is None
        assert f'{count:,} validation images' in row['reason']
        return
    nats = row['nats']
    assert nats in of_validation
    around = np.array([nats - 1e-9, nats, nats + 1e-9])
    unusual = thresholds.quantiles(around, of_validation) >= quantile - 1e-12
    assert unusual.tolist() == [False, False, True]
    assert np.mean(of_validation <= nats) >= quantile
    assert np.mean(of_validation < nats) < quantile + 1 / count


def test_of_images_like_the_validation_images_few_are_unusual():
    """Over many draws of 199 validation images and a new one: 1 in 20 at most, and hardly less."""
    random = np.random.RandomState(5)
    drawn = random.standard_normal([20000, 200])
    found = [thresholds.quantiles(row[:1], row[1:])[0] >= 0.95 - 1e-9 for row in drawn[:, :200]]
    assert np.mean(found) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 20000))


@pytest.mark.parametrize('count', [10, 120, 5000, 10000])
@pytest.mark.parametrize('quantile', [0.5, 0.9, 0.99, 0.999])
def test_the_interval_is_scipys_binomial(quantile, count):
    low, high = thresholds.interval_ranks(quantile, count)
    below = scipy.stats.binom(count, quantile)
    # The true quantile lies between the two if low <= B < high.
    assert below.cdf(high - 1) - below.cdf(low - 1) >= 0.95 - 1e-9
    assert below.cdf(low - 1) <= 0.025 + 1e-9 and below.cdf(low) > 0.025 - 1e-9
    assert below.cdf(high - 1) >= 0.975 - 1e-9 and below.cdf(high - 2) < 0.975 + 1e-9
    row = thresholds.table(SCORES[:count], count)['quantiles'][0]
    low, high = thresholds.interval_ranks(0.5, count)
    ordered = np.sort(SCORES[:count])
    assert row['interval_95'] == [ordered[low - 1], ordered[high - 1]]


def test_an_interval_may_be_open():
    row = thresholds.table(SCORES[:100], 100)['quantiles'][2]
    assert row['quantile'] == 0.95 and row['interval_95'][1] is not None
    highest = thresholds.table(np.arange(1.0, 11.0), 10)['quantiles'][0]
    assert highest['interval_95'] == [2.0, 9.0]
    assert thresholds.interval_ranks(0.99, 100)[1] == 101  # Beyond the highest of them.


def test_thresholds_of_a_diverged_model_are_none():
    table = thresholds.table(np.full([1000], np.nan), 1000)
    assert {row['nats'] for row in table['quantiles']} == {None}
    assert 'not finite' in table['quantiles'][0]['reason']
    assert thresholds.sentence(table) == ''
    assert thresholds.sentence(None) == ''


def test_the_sentence_has_the_highest_known_quantile_up_to_99_in_100():
    text = thresholds.sentence(thresholds.table(SCORES[:5000], 5000))
    nats = np.sort(SCORES[:5000])[math.ceil(0.99 * 5001) - 1]
    assert f'{nats:.2f} nats' in text and '99%' in text and '5,000' in text
    assert '95%' in thresholds.sentence(thresholds.table(SCORES[:120], 120))


@pytest.mark.parametrize(
    'text, value, is_quantile',
    [
        ('0.99', 0.99, True), ('0.5', 0.5, True), ('.999', 0.999, True), ('120', 120.0, False),
        ('-300.5', -300.5, False), ('1', 1.0, False), ('0', 0.0, False), ('0.7nats', 0.7, False),
        (' 0.7 nats ', 0.7, False), ('1e2', 100.0, False),
    ],
)  # fmt: skip
def test_a_threshold_is_a_quantile_or_nats(text, value, is_quantile):
    assert thresholds.parsed(text, 5000) == (value, is_quantile)


@pytest.mark.parametrize('text', ['', 'nats', 'high', 'nan', 'inf', '0.9999', '0.4', '1e-3'])
def test_other_thresholds_are_refused(text):
    with pytest.raises(UserError, match=f'^--threshold={text}'):
        thresholds.parsed(text)


def test_a_quantile_that_the_validation_images_do_not_tell_is_refused():
    with pytest.raises(UserError, match='--threshold=0.99 is more than 400 validation scores tell'):
        thresholds.parsed('0.99', 400)
    assert thresholds.parsed('0.99', 500).is_quantile
    assert not thresholds.parsed('99', 400).is_quantile


def test_a_threshold_says_who_is_unusual():
    score, quantile = np.array([10.0, 20.0, 30.0]), np.float32([0.1, 0.95, 0.96])
    by_quantile, by_nats = thresholds.parsed('0.95'), thresholds.parsed('20')
    assert by_quantile.is_exceeded(score, quantile).tolist() == [False, True, True]
    assert by_nats.is_exceeded(score, quantile).tolist() == [False, False, True]
