"""Shrunk completion rates recover what was planted, with intervals that hold it as often as they say."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from habitlab.features.temporal import RatePrior, summary
from tests.features.tracking import grid


def pairs(seed, size=2000):
    """Pairs with 0 to 60 counted days and a rate from Beta(3, 2)."""
    generator = np.random.default_rng(seed)
    truth = generator.beta(3, 2, size)
    counted = generator.integers(0, 60, size)
    return truth, generator.binomial(counted, truth), counted


def limits(share, n):
    """99.9 % binomial limits of an observed share."""
    return stats.binom.ppf([0.0005, 0.9995], n, share) / n


def coverage(seed):
    truth, done, counted = pairs(seed)
    low, high = RatePrior.fit(done, counted).interval(done, counted)
    return np.mean((low <= truth) & (truth <= high))


def test_the_prior_is_found():
    _, done, counted = pairs(1, size=20_000)
    prior = RatePrior.fit(done, counted)
    assert prior.alpha == pytest.approx(3, rel=0.1)
    assert prior.beta == pytest.approx(2, rel=0.1)


def test_shrunk_rates_are_nearer_the_truth_than_raw_ones():
    truth, done, counted = pairs(2)
    some = (counted > 0) & (counted < 10)
    shrunk = RatePrior.fit(done, counted).shrink(done, counted)
    assert np.mean((shrunk - truth)[some] ** 2) < 0.6 * np.mean((done[some] / counted[some] - truth[some]) ** 2)


def test_intervals_hold_the_truth_as_often_as_they_say():
    low, high = limits(0.95, 2000)
    assert low <= coverage(3) <= high


@pytest.mark.long
def test_intervals_hold_the_truth_over_many_seeds():
    assert 0.93 <= np.mean([coverage(seed) for seed in range(100, 140)]) <= 0.97


def test_a_summary_has_these_intervals():
    generator = np.random.default_rng(4)
    truth = generator.beta(3, 2, 1500)
    got = summary(grid(np.repeat(truth[:, None], 30, axis=1), generator=generator))
    low, high = limits(0.95, len(truth))
    assert low <= np.mean((got["rate_low"] <= truth) & (truth <= got["rate_high"])) <= high


def test_a_summary_shrinks_by_the_prior_of_its_own_pairs_unless_one_is_given():
    generator = np.random.default_rng(6)
    tracking = grid(np.repeat(generator.beta(8, 4, (300, 1)), 10, axis=1), generator=generator)
    own, given = summary(tracking), summary(tracking, prior=RatePrior(2, 5))
    counted = own["done"] + own["missed"]
    fitted = RatePrior.fit(own["done"].to_numpy(), counted.to_numpy())
    np.testing.assert_allclose(own["completion_rate_shrunk"], fitted.shrink(own["done"], counted))
    np.testing.assert_allclose(given["completion_rate_shrunk"], (2 + own["done"]) / (7 + counted))


def test_the_prior_knows_only_days_before():
    generator = np.random.default_rng(5)
    tracking = grid(np.repeat([[0.2] * 20 + [0.9] * 20], 50, axis=0), generator=generator)
    early = summary(tracking, until="2024-01-21")["completion_rate_shrunk"]
    assert early.mean() == pytest.approx(0.2, abs=0.05)
    pd.testing.assert_series_equal(early, summary(tracking[tracking["date"] < "2024-01-21"])["completion_rate_shrunk"])


def test_pairs_that_are_alike_and_pairs_without_days():
    alike = RatePrior.fit(np.full(50, 5), np.full(50, 10))
    assert alike.alpha + alike.beta > 1000
    assert RatePrior.fit(np.array([]), np.array([])) == RatePrior()
    assert RatePrior.fit(np.array([0, 3]), np.array([0, 3])) == RatePrior()
    for done in (0, 10):
        prior = RatePrior.fit(np.full(50, done), np.full(50, 10))
        assert np.isfinite([prior.alpha, prior.beta]).all()
        assert prior.shrink(np.array([5]), np.array([10])).item() == pytest.approx(0.5, abs=0.51)
