"""7.3.b Anomalies: a robust seasonal detector with a rate of false alarms that is asked for, beside three sigma."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from habitlab.serving.monitoring.anomalies import (
    compare_detectors,
    cusum_limit,
    seasonal,
    simulated_series,
    three_sigma,
)


def daily(values: np.ndarray) -> pd.Series:
    return pd.Series(values, pd.date_range("2026-01-05", periods=len(values), freq="D", tz="UTC"))


def test_expected_is_the_median_of_the_same_season_before() -> None:
    """A slow oracle: for each value the last eight weeks, its own hour of the week only."""
    series = simulated_series(35, seed=3)
    found = seasonal(series, scale="log")
    slot = np.arange(len(series)) % 168
    y = np.log(series.to_numpy())
    off = np.full(len(y), np.nan)
    for i in range(len(y)):
        same = [y[j] for j in range(max(0, i - 56 * 24), i) if slot[j] == slot[i]]
        if len(same) >= 3:
            off[i] = y[i] - np.median(same)
            assert found["expected"].iloc[i] == pytest.approx(np.exp(np.median(same)))
            before = np.abs(off[max(0, i - 56 * 24) : i])
            before = before[np.isfinite(before)]
            if len(before) >= 6:
                assert found["score"].iloc[i] == pytest.approx(off[i] / (1.482602218505602 * np.median(before)))
        else:
            assert np.isnan(found["expected"].iloc[i])


@given(st.floats(-1e6, 1e6), st.integers(1, 120))
@settings(max_examples=30, deadline=None)
def test_7_3_b_a_constant_series_never_alerts(level: float, length: int) -> None:
    series = daily(np.full(length, level))
    assert not seasonal(series, season="day of week")["alarm"].any()
    assert not three_sigma(series)["alarm"].any()


def test_d105_a_change_of_a_ten_thousandth_of_a_constant_is_no_alarm() -> None:
    series = daily(np.append(np.full(80, 0.5), 0.50005))
    assert not seasonal(series, season="day of week")["alarm"].any()


def test_a_count_that_was_always_zero_and_is_not_alarms() -> None:
    found = seasonal(daily(np.append(np.zeros(80), 5.0)), season="day of week")
    assert found["alarm"].tolist() == [False] * 80 + [True]
    assert not seasonal(daily(np.append(np.zeros(80), 5.0)), season="day of week", floor=3.0)["outlier"].any()


def test_7_3_b_a_step_is_caught_within_hours() -> None:
    for seed in range(5):
        series = simulated_series(60, step=4.0, at=50, seed=seed)
        alarm = seasonal(series, scale="log")["alarm"].to_numpy()
        assert alarm[24 * 50 + 1 : 24 * 50 + 13].any()


def test_7_3_b_a_slow_shift_is_caught_by_the_sum_before_any_hour_stands_out() -> None:
    sums, outliers = [], []
    for seed in range(8):
        found = seasonal(simulated_series(66, slope=0.15, at=50, seed=seed), scale="log").iloc[24 * 50 :]
        assert found["shift"].any()
        sums.append(int(np.argmax(found["shift"].to_numpy())))
        outliers.append(int(np.argmax(found["outlier"].to_numpy())) if found["outlier"].any() else len(found))
    assert np.median(sums) < np.median(outliers)


def test_one_bad_day_does_not_hide_the_next() -> None:
    values = np.random.default_rng(0).normal(100, 1, 90)
    values[[70, 84]] = 120.0
    assert seasonal(daily(values), season="day of week").iloc[[70, 84]]["outlier"].all()


def test_a_season_is_no_anomaly() -> None:
    weekly = np.tile([10.0, 10, 10, 10, 10, 50, 50], 20) + np.random.default_rng(0).normal(0, 0.5, 140)
    assert seasonal(daily(weekly), season="day of week", false_alarms=0.001)["alarm"].sum() <= 1
    assert seasonal(daily(weekly), season="none", false_alarms=0.001)["alarm"].sum() > 10  # without one it would be


def test_history_is_needed_and_gaps_are_not_looked_at() -> None:
    series = daily(np.random.default_rng(0).normal(size=60))
    series.iloc[[30, 31, 32]] = np.nan
    found = seasonal(series, season="day of week")
    assert found["score"].iloc[:26].isna().all()
    assert found["score"].iloc[30:33].isna().all()
    assert not found["alarm"].iloc[30:33].any()
    assert found["score"].iloc[33:].notna().all()


def test_out_of_order_and_repeated_instants_change_nothing() -> None:
    series = simulated_series(40, seed=1)
    mixed = series.sample(frac=1, random_state=0)
    twice = pd.concat([mixed, series.head(100)])
    expected = seasonal(series, scale="log")
    pd.testing.assert_frame_equal(seasonal(mixed, scale="log"), expected, check_freq=False)
    pd.testing.assert_frame_equal(seasonal(twice, scale="log"), expected, check_freq=False)


def test_what_comes_later_changes_nothing_before() -> None:
    series = simulated_series(50, seed=2)
    whole, part = seasonal(series, scale="log"), seasonal(series.iloc[:1000], scale="log")
    pd.testing.assert_frame_equal(whole.iloc[:1000], part, check_freq=False)


def test_noise_of_few_is_a_floor() -> None:
    """A share of 10 jumps about more than one of 1,000."""
    share = daily(np.append(np.tile([0.5, 0.51, 0.49, 0.5, 0.5, 0.52, 0.5], 10), 0.8))
    few = np.append(np.full(70, 0.01), np.sqrt(0.25 / 10))
    assert seasonal(share, season="day of week")["outlier"].iloc[-1]
    assert not seasonal(share, season="day of week", noise=few)["outlier"].iloc[-1]


def test_cusum_limit_keeps_the_mean_run_it_promises() -> None:
    limit = cusum_limit(300)
    generator, runs = np.random.default_rng(0), []
    for _ in range(300):
        up = down = 0.0
        length = 0
        while max(up, down) <= limit:
            length += 1
            x = generator.standard_normal()
            up, down = max(0, up + x - 0.5), max(0, down - x - 0.5)
        runs.append(length)
    assert np.mean(runs) == pytest.approx(300, rel=0.2)


@pytest.mark.parametrize("level", [0.0, 1e7])
def test_three_sigma_is_the_overviews_rule(level: float) -> None:
    values = np.random.default_rng(0).normal(size=50) + level
    found = three_sigma(daily(values))
    for i in range(2, 50):
        assert found["score"].iloc[i] == pytest.approx((values[i] - values[:i].mean()) / values[:i].std(), rel=1e-5)
    assert found["alarm"].tolist() == [False, False, *(found["score"].iloc[2:].abs() > 3)]


def test_wrong_calls_are_refused() -> None:
    series = simulated_series(10)
    with pytest.raises(ValueError, match="positive"):
        seasonal(series - 1, scale="log")
    with pytest.raises(ValueError, match="instants"):
        seasonal(series.reset_index(drop=True))
    with pytest.raises(ValueError, match="season is one of"):
        seasonal(series, season="moon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="false_alarms"):
        seasonal(series, false_alarms=0.0)


@pytest.mark.long
def test_7_3_b_false_alarms_come_at_the_rate_asked_for() -> None:
    """60 series of ten weeks by hour; the interval is by series. Three sigma has no such rate."""
    for rate in (0.001, 0.01):
        found = compare_detectors((0.0,), trials=60, false_alarms=rate).set_index("detector")
        assert found.loc["seasonal", "ci_low"] <= 1000 * rate * 1.5
        assert found.loc["seasonal", "ci_high"] >= 1000 * rate / 2
        assert found.loc["seasonal", "false_per_1000"] <= 1000 * rate * 1.5
    assert found.loc["three sigma", "false_per_1000"] > 2.7


@pytest.mark.long
def test_7_3_b_steps_are_caught_sooner_than_by_three_sigma() -> None:
    found = compare_detectors((2.0, 4.0), trials=30).set_index(["detector", "step"])
    for step in (2.0, 4.0):
        assert found.loc[("seasonal", step), "caught"] == 1.0
        assert found.loc[("seasonal", step), "median_hours"] <= found.loc[("three sigma", step), "median_hours"]


def test_daily_false_alarms_stay_near_the_rate() -> None:
    alarms = looked = 0
    for seed in range(20):
        found = seasonal(daily(np.random.default_rng(seed).normal(10, 1, 200)), season="day of week", false_alarms=0.01)
        alarms, looked = alarms + int(found["alarm"].sum()), looked + int(found["score"].notna().sum())
    assert alarms <= stats.poisson.ppf(0.999, 1.5 * 0.01 * looked)
