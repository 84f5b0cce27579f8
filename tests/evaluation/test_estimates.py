"""Estimates with intervals by user, against slow recomputation, scipy and known laws."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import FEWEST, Resampled


def clustered(users=40, rows=6, seed=0, slope=0.8):
    """Two correlated columns; rows of a user share a part of both."""
    draw = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), draw.integers(1, rows + 1, users))
    x = draw.normal(size=users)[user] + draw.normal(size=user.size)
    y = slope * x + draw.normal(size=users)[user] + draw.normal(size=user.size)
    return x, y, user


def bounds(resampled, level=0.95):
    (low,), (high,) = resampled.interval(level)
    return low, high


class TestPointEstimates:
    def test_pearson_is_that_of_scipy(self):
        x, y, user = clustered()
        assert estimates.pearson(x, y, user).estimate[0] == pytest.approx(stats.pearsonr(x, y).statistic)

    def test_pearson_leaves_out_rows_with_a_gap(self):
        x, y, user = clustered()
        x[3], y[5] = np.nan, np.nan
        known = np.isfinite(x) & np.isfinite(y)
        assert estimates.pearson(x, y, user).estimate[0] == pytest.approx(np.corrcoef(x[known], y[known])[0, 1])

    def test_pearson_keeps_its_digits_far_from_zero(self):
        x, y, user = clustered()
        near, far = estimates.pearson(x, y, user), estimates.pearson(x + 1e7, y - 1e7, user)
        assert far.estimate[0] == pytest.approx(near.estimate[0], abs=1e-6)

    def test_slope_is_that_of_scipy(self):
        x, y, user = clustered()
        assert estimates.slope(x, y, user).estimate[0] == pytest.approx(stats.linregress(x, y).slope)

    def test_ratio_by_group(self):
        draw = np.random.default_rng(1)
        frame = pd.DataFrame({"user": draw.integers(0, 30, 300), "group": draw.integers(0, 3, 300)})
        frame["whole"] = draw.integers(1, 9, 300)
        frame["part"] = draw.binomial(frame["whole"], 0.4)
        sums = frame.groupby("group")[["part", "whole"]].sum()
        found = estimates.ratio(frame["part"], frame["whole"], frame["user"], group=frame["group"], groups=3)
        assert found.estimate == pytest.approx((sums["part"] / sums["whole"]).to_numpy())
        less = estimates.ratio(
            frame["part"], frame["whole"], frame["user"], group=frame["group"], groups=3, contrasts=[(2, 0)]
        )
        assert less.estimate[0] == pytest.approx(found.estimate[2] - found.estimate[0])

    def test_groups_outside_the_range_are_left_out(self):
        found = estimates.ratio([1.0, 0.0, 5.0], 1.0, [1, 2, 3], group=[0, 0, -1], groups=1)
        assert found.estimate[0] == 0.5
        assert found.n == 2

    def test_relative_change(self):
        accepted, clear = np.array([1, 1, 0, 1, 0, 0]), np.array([1, 1, 1, 0, 0, 0])
        found = estimates.relative_change(accepted, clear, np.arange(6))
        assert found.estimate[0] == pytest.approx((2 / 3) / (1 / 3) - 1)

    def test_adjusted_means_are_those_of_least_squares(self):
        draw = np.random.default_rng(2)
        group, other = draw.integers(0, 3, 400), draw.integers(0, 4, 400)
        outcome = 0.3 * group + 0.5 * other + draw.normal(size=400)
        design = np.column_stack([np.eye(3)[group], np.eye(4)[other][:, 1:]])
        effects = np.linalg.lstsq(design, outcome)[0]
        expected = effects[:3] + effects[3:] @ np.eye(4)[other][:, 1:].mean(axis=0)
        nuisance = pd.DataFrame({"other": other})
        found = estimates.adjusted_means(outcome, group, nuisance, draw.integers(0, 50, 400), groups=3)
        assert found.estimate == pytest.approx(expected)

    def test_adjusted_means_undo_a_lopsided_mix(self):
        """Group 1 has mostly the good category: raw it looks better, standardised it is the same."""
        draw = np.random.default_rng(3)
        group = draw.integers(0, 2, 4000)
        good = draw.random(4000) < np.where(group == 1, 0.8, 0.2)
        outcome = 0.4 * good + 0.1 * draw.normal(size=4000)
        user = np.arange(4000) // 4
        raw = estimates.ratio(outcome, 1.0, user, group=group, groups=2, contrasts=[(1, 0)])
        adjusted = estimates.adjusted_means(
            outcome, group, pd.DataFrame({"good": good}), user, groups=2, contrasts=[(1, 0)]
        )
        assert bounds(raw)[0] > 0.2
        assert abs(adjusted.estimate[0]) < 0.02

    def test_a_group_without_rows_is_undefined(self):
        nuisance = pd.DataFrame({"other": [0, 1] * 10})
        found = estimates.adjusted_means(np.arange(20.0), [0] * 20, nuisance, np.arange(20), groups=2)
        assert np.isfinite(found.estimate[0])
        assert np.isnan(found.estimate[1])


class TestSurvival:
    def test_is_the_kaplan_meier_curve_of_scipy(self):
        draw = np.random.default_rng(4)
        day, ended = draw.integers(0, 40, 200), draw.random(200) < 0.6
        found = estimates.kaplan_meier(day, ended, np.zeros(200), np.arange(200), groups=1, days=30)
        oracle = stats.ecdf(stats.CensoredData(uncensored=day[ended], right=day[~ended])).sf
        assert found.estimate == pytest.approx(oracle.evaluate(np.arange(30)))

    def test_without_censoring_it_is_the_share_left(self):
        day = np.array([1, 2, 2, 5])
        found = estimates.kaplan_meier(day, [True] * 4, [0] * 4, np.arange(4), groups=1, days=7)
        assert found.estimate == pytest.approx([1, 0.75, 0.25, 0.25, 0.25, 0, 0])

    def test_what_comes_after_the_last_censored_row_is_not_known(self):
        found = estimates.kaplan_meier([2, 3], [True, False], [0, 0], [1, 2], groups=1, days=6)
        assert found.estimate[:4] == pytest.approx([1, 1, 0.5, 0.5])
        assert np.isnan(found.estimate[4:]).all()

    def test_groups_stand_one_after_the_other(self):
        day, group = np.array([1, 3, 2, 2]), np.array([0, 0, 1, 1])
        found = estimates.kaplan_meier(day, [True] * 4, group, np.arange(4), groups=2, days=3)
        assert found.estimate == pytest.approx([1, 0.5, 0.5, 1, 1, 0])


class TestAssociation:
    def test_bias_is_that_of_bergsma_with_one_row_a_user(self):
        draw = np.random.default_rng(5)
        n, shape = 200, (3, 5)
        attribute, category = draw.integers(0, shape[0], n), draw.integers(0, shape[1], n)
        found = estimates.association(attribute, category, np.arange(n), permutations=4000, resamples=10)
        phi2 = stats.chi2_contingency(pd.crosstab(attribute, category)).statistic / n
        bias = (shape[0] - 1) * (shape[1] - 1) / (n - 1)
        assert phi2 - found.phi2.estimate[0] == pytest.approx(bias, rel=0.05)
        assert found.largest == pytest.approx(shape[0] - 1 - (shape[0] - 1) ** 2 / (n - 1))

    def test_independent_columns_give_nothing_and_equal_ones_one(self):
        draw = np.random.default_rng(6)
        user = np.repeat(np.arange(500), 3)
        attribute = draw.integers(0, 2, 500)[user]
        nothing = estimates.association(attribute, draw.integers(0, 4, user.size), user)
        all_of_it = estimates.association(attribute, attribute, user)
        assert nothing.cramers_v()[1] == 0
        assert nothing.p_value > 0.01
        assert all_of_it.cramers_v()[0] == pytest.approx(1, abs=0.02)
        assert all_of_it.p_value < 0.01

    def test_likes_of_a_user_are_not_taken_for_an_association(self):
        """All five habits of a user have one category: by rows the table looks far from chance, by users it is not."""
        draw = np.random.default_rng(7)
        user = np.repeat(np.arange(120), 5)
        attribute, category = draw.integers(0, 2, 120)[user], draw.integers(0, 4, 120)[user]
        found = estimates.association(attribute, category, user)
        assert found.cramers_v()[1] == 0
        assert found.p_value > 0.05


class TestResampling:
    def test_a_resample_is_what_rows_drawn_again_by_user_give(self):
        x, y, user = clustered(users=25)
        found = estimates.pearson(x, y, user, resamples=20, seed=3)
        counts = estimates._draw(np.random.default_rng(3), 20, 25).astype(int)
        for replicate, count in zip(found.replicates[:, 0], counts, strict=True):
            again = np.repeat(np.arange(user.size), count[user])
            assert replicate == pytest.approx(np.corrcoef(x[again], y[again])[0, 1])

    def test_standard_error_is_the_jackknife_by_user(self):
        x, y, user = clustered(users=25)
        without = [np.corrcoef(x[user != one], y[user != one])[0, 1] for one in range(25)]
        expected = np.sqrt(24 / 25 * np.sum((np.array(without) - np.mean(without)) ** 2))
        assert estimates.pearson(x, y, user).standard_error[0] == pytest.approx(expected)

    def test_acceleration_of_a_mean_is_a_sixth_of_its_skewness(self):
        values = np.random.default_rng(8).exponential(size=300)
        found = estimates.ratio(values, 1.0, np.arange(300))
        assert found.acceleration[0] == pytest.approx(stats.skew(values) / (6 * np.sqrt(300)), rel=1e-6)

    def test_same_seed_same_interval(self):
        x, y, user = clustered()
        assert bounds(estimates.pearson(x, y, user, seed=1)) == bounds(estimates.pearson(x, y, user, seed=1))
        assert bounds(estimates.pearson(x, y, user, seed=1)) != bounds(estimates.pearson(x, y, user, seed=2))

    def test_blocks_change_nothing(self, monkeypatch):
        x, y, user = clustered()
        whole = bounds(estimates.pearson(x, y, user))
        monkeypatch.setattr(estimates, "_BLOCK", 150)
        assert bounds(estimates.pearson(x, y, user)) == pytest.approx(whole)

    def test_users_without_data_do_not_count(self):
        sums = np.zeros((30, 2))
        sums[:12] = [[i % 3, 4] for i in range(12)]
        assert estimates.resample(sums, estimates.ratios).n == 12


class TestUndefined:
    """What has no answer is NaN and says why."""

    @pytest.mark.parametrize(
        ("x", "users", "reason"),
        [
            (np.ones(30), np.arange(30), "constant"),
            (np.arange(30.0), np.arange(30) % (FEWEST - 1), "too few users"),
            (np.arange(30.0), np.zeros(30), "too few users"),
            (np.full(30, np.nan), np.arange(30), "too few users"),
        ],
    )
    def test_correlation(self, x, users, reason):
        y = np.random.default_rng(9).normal(size=30)
        found = estimates.pearson(x, y, users)
        assert np.isnan(bounds(found)).all()
        assert reason in found.reason()
        assert np.isnan(found.p_value())

    def test_one_group_only(self):
        found = estimates.ratio(np.arange(20.0), 1.0, np.arange(20), group=0, groups=2, contrasts=[(1, 0)])
        assert np.isnan(found.estimate[0])
        assert "group is empty" in found.reason()

    def test_a_group_that_most_resamples_lack(self):
        group = np.zeros(40)
        group[0] = 1
        found = estimates.ratio(np.arange(40.0), 1.0, np.arange(40), group=group, groups=2, contrasts=[(1, 0)])
        assert np.isfinite(found.estimate[0])
        assert np.isnan(bounds(found)).all()
        assert "too few users hold this group" in found.reason()

    def test_no_certainty_from_all_being_alike(self):
        found = estimates.ratio(np.ones(50), 1.0, np.arange(50))
        assert found.estimate[0] == 1
        assert np.isnan(bounds(found)).all()
        assert "does not vary" in found.reason()

    def test_nobody_accepts_the_vague_words(self):
        found = estimates.relative_change([1] * 20 + [0] * 20, [1] * 20 + [0] * 20, np.arange(40))
        assert np.isnan(found.estimate[0])
        assert "undefined on these data" in found.reason()

    def test_the_estimate_carries_the_reason(self):
        found = estimates.pearson(np.ones(30), np.arange(30.0), np.arange(30))
        finding = estimates.estimate_of(found, key="r", label="nothing", level=0.95, unit="r", method="Pearson")
        assert np.isnan(finding.ci_low)
        assert finding.reason == found.reason()


class TestLaws:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-50, 50), st.booleans())
    def test_correlation_does_not_feel_units_and_turns_with_the_sign(self, seed, scale, shift, turned):
        x, y, user = clustered(seed=seed)
        sign = -1 if turned else 1
        plain = estimates.pearson(x, y, user, resamples=200)
        moved = estimates.pearson(x, sign * scale * y + shift, user, resamples=200)
        assert moved.estimate[0] == pytest.approx(sign * plain.estimate[0], abs=1e-9)
        assert moved.replicates[:, 0] == pytest.approx(sign * plain.replicates[:, 0], abs=1e-7)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6))
    def test_a_higher_level_is_wider_and_holds_the_lower_one(self, seed):
        found = estimates.pearson(*clustered(seed=seed), resamples=300)
        (low80, high80), (low99, high99) = bounds(found, 0.8), bounds(found, 0.99)
        assert low99 <= low80 <= found.estimate[0] <= high80 <= high99

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.floats(-0.3, 0.3))
    def test_the_p_value_agrees_with_the_interval(self, seed, slope):
        found = estimates.pearson(*clustered(seed=seed, slope=slope), resamples=2000)
        low, high = bounds(found)
        p_value = found.p_value()
        if abs(p_value - 0.05) > 0.01:  # quantiles of 2000 resamples are read off in steps
            assert (p_value < 0.05) == (low > 0 or high < 0)

    def test_a_value_with_nan_replicates_keeps_the_rest(self):
        replicates = np.append(np.random.default_rng(0).normal(size=990), [np.nan] * 10)[:, None]
        one = np.ones(1)
        assert np.isfinite(bounds(Resampled(0 * one, replicates, one, 0 * one, 50))).all()


# Coverage: how often a 95 % interval holds the truth, on cases like those of the reports.


def _correlation(draw, users):
    user = np.repeat(np.arange(users), 3)
    x = 0.8 * draw.normal(size=users)[user] + 0.6 * draw.normal(size=user.size)
    noise = 0.8 * draw.normal(size=users)[user] + 0.6 * draw.normal(size=user.size)
    return (0.7 * x + np.sqrt(0.51) * noise, x, user), 0.7


def _completion(draw, users):
    counted = 5 + draw.poisson(30, users)
    return (draw.binomial(counted, draw.beta(2, 3, users)), counted, np.arange(users)), 0.4


def _acceptance(draw, users):
    user, clear = np.repeat(np.arange(users), 8), draw.integers(0, 2, 8 * users)
    chance = 0.7 * draw.beta(3, 4, users)[user] * np.where(clear, 1.27, 1)
    return (draw.random(user.size) < chance, clear, user), 0.27


CASES = {
    "correlation": (estimates.pearson, _correlation),
    "completion": (estimates.ratio, _completion),
    "relative risk": (estimates.relative_change, _acceptance),
}


def covered(name, users, trials, first=0):
    statistic, make = CASES[name]
    hits = 0
    for trial in range(first, first + trials):
        columns, truth = make(np.random.default_rng([trial, 11]), users)
        low, high = bounds(statistic(*columns, resamples=800, seed=trial))
        hits += low <= truth <= high
    return hits


@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth(name):
    """A rough look at 120 trials: within the 99.9 % binomial limits of 93 to 97 %."""
    low, high = stats.binom.ppf(0.0005, 120, 0.93), stats.binom.ppf(0.9995, 120, 0.97)
    assert low <= covered(name, 60, 120) <= high


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("users", [20, 60, 400])
@pytest.mark.parametrize("name", CASES)
def test_coverage_is_93_to_97_per_cent(name, users):
    trials = 800
    low, high = stats.binom.ppf(0.0005, trials, 0.93), stats.binom.ppf(0.9995, trials, 0.97)
    assert low <= covered(name, users, trials) <= high


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("users", [100, 600])
def test_coverage_of_retention(users):
    """Three pairs a user that share a frailty, censored by staggered starts; truth from the mixture."""
    trials, rates = 400, np.array([0.004, 0.012])
    truth = np.exp(-rates * 60).mean()
    hits = 0
    for trial in range(trials):
        draw = np.random.default_rng([trial, 12])
        user = np.repeat(np.arange(users), 3)
        life = np.floor(draw.exponential(1 / draw.choice(rates, users)[user]))
        follow = draw.integers(40, 120, user.size)
        found = estimates.kaplan_meier(
            np.minimum(life, follow), life <= follow, 0 * user, user, groups=1, days=60, resamples=800, seed=trial
        )
        low, high = (ends[-1] for ends in found.interval())
        hits += low <= truth <= high
    assert stats.binom.ppf(0.0005, trials, 0.93) <= hits <= stats.binom.ppf(0.9995, trials, 0.97)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_association_finds_nothing_where_there_is_nothing():
    """P-values are level and the interval's lower end is 0, though what a user likes clings together."""
    trials, low, small = 400, 0, 0
    for trial in range(trials):
        draw = np.random.default_rng([trial, 13])
        user = np.repeat(np.arange(150), 4)
        likes = draw.integers(0, 6, 150)[user]
        category = np.where(draw.random(user.size) < 0.5, likes, draw.integers(0, 6, user.size))
        found = estimates.association(
            draw.integers(0, 2, 150)[user], category, user, resamples=400, permutations=199, seed=trial
        )
        low += found.cramers_v()[1] > 0
        small += found.p_value <= 0.05
    assert low <= stats.binom.ppf(0.9995, trials, 0.05)
    assert stats.binom.ppf(0.0005, trials, 0.05) <= small <= stats.binom.ppf(0.9995, trials, 0.05)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_the_interval_of_a_share_is_that_of_statsmodels(cases, level):
    low, high = estimates.share_interval(*cases, level)
    theirs = proportion_confint(*cases, alpha=1 - level, method="wilson")
    assert (low, high) == pytest.approx(np.clip(theirs, 0, 1), abs=1e-12)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), max_size=20))
def test_what_was_not_tested_does_not_count_among_the_p_values(p_values):
    adjusted = estimates.false_discovery_adjusted(p_values)
    tested = np.isfinite(np.array(p_values, dtype=float))
    assert np.isnan(adjusted[~tested]).all()
    if tested.any():
        assert adjusted[tested] == pytest.approx(multipletests(np.array(p_values)[tested], method="fdr_bh")[1])
