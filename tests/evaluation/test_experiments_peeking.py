"""Always valid intervals: the formula, and what `peek` says of each day."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from habitlab.evaluation.experiments import compare_arms
from habitlab.evaluation.experiments.sequential import always_valid, peek


def looks_at(effect=0.0, days=20, users=400, seed=0, planned_effect=0.3):
    draw = np.random.default_rng(seed)
    user, day = (axis.ravel() for axis in np.meshgrid(np.arange(users), np.arange(days), indexing="ij"))
    y = draw.normal(size=users)[user] + draw.normal(size=user.size) + effect * (user % 2)
    data = pd.DataFrame({"user": user, "arm": user % 2, "day": day, "y": y})
    return data, peek(data, unit="user", arm="arm", outcome="y", day="day", planned_effect=planned_effect)


def test_the_formula_is_that_of_the_paper():
    """Theorem 2.2 of Waudby-Smith et al. (2024): s sqrt(2 (t rho^2 + 1) / (t^2 rho^2) log(sqrt(t rho^2 + 1) / a))."""
    alpha, t, sd, planned = 0.05, 250, 2.0, 0.5
    tuned = (sd / (planned / (1.959964 + 0.841621))) ** 2  # t at which the fixed test finds the planned effect
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha)) + 1) / tuned  # their approximation of the best rho
    paper = sd * np.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / alpha))
    found = always_valid(0.0, sd / np.sqrt(t), planned_effect=planned)
    assert found.ci_high == pytest.approx(paper, rel=0.01)


def test_it_is_tightest_against_the_fixed_interval_where_it_was_planned():
    errors = np.geomspace(0.02, 0.5, 400)
    planned = 0.1 * (stats.norm.isf(0.025) + stats.norm.ppf(0.8))
    ratio = [always_valid(0, error, planned_effect=planned).ci_high / error for error in errors]
    assert errors[int(np.argmin(ratio))] == pytest.approx(0.1, rel=0.02)
    assert min(ratio) == pytest.approx(3.0, abs=0.2)


@given(st.floats(-3, 3), st.floats(0.05, 1), st.floats(0.1, 3), st.sampled_from([np.inf, 40.0]))
def test_the_p_value_is_below_5_percent_just_where_the_interval_leaves_0_out(difference, error, planned, degrees):
    found = always_valid(difference, error, planned_effect=planned, degrees=degrees)
    outside = found.ci_low > 0 or found.ci_high < 0
    if abs(found.p_value - 0.05) > 1e-9:
        assert outside == (found.p_value < 0.05)
    assert found.ci_high - found.ci_low > 2 * 1.96 * error


def test_an_effect_is_found_before_the_end_and_stays_found():
    _, looks = looks_at(effect=0.8)
    first = looks.loc[looks["stop"], "day"].iloc[0]
    assert first < 19
    assert looks.loc[looks["day"] >= first, "stop"].all()
    assert looks["p_value"].is_monotonic_decreasing


def test_the_fixed_interval_beside_is_that_of_compare_arms_on_the_rows_so_far():
    data, looks = looks_at()
    so_far = compare_arms(data.query("day <= 7"), unit="user", arm="arm", outcome="y")
    row = looks.query("day == 7").iloc[0]
    assert (row["fixed_low"], row["fixed_high"]) == pytest.approx((so_far.ci_low, so_far.ci_high))
    assert row["ci_low"] < row["fixed_low"] < row["fixed_high"] < row["ci_high"]


def test_too_few_units_and_a_missing_arm_are_not_looked_at():
    data, _ = looks_at(days=6, users=100)
    late = data[(data["arm"] == 0) | (data["day"] >= 2)]
    late = late[(late["user"] < 40) | (late["day"] >= 4)]
    looks = peek(late, unit="user", arm="arm", outcome="y", day="day", planned_effect=0.3)
    assert looks["ci_low"].isna().tolist() == [True, True, True, True, False, False]
    assert looks["warnings"].iloc[0] == ("an arm has no unit yet",)
    assert any("too early" in warning for warning in looks["warnings"].iloc[3])


def test_bad_input():
    data, _ = looks_at(days=2)
    with pytest.raises(ValueError, match="planned_effect must be above 0"):
        peek(data, unit="user", arm="arm", outcome="y", day="day", planned_effect=0)
    with pytest.raises(ValueError, match="no column 'when'"):
        peek(data, unit="user", arm="arm", outcome="y", day="when", planned_effect=1)
    undated = data.assign(day=data["day"].astype(float).where(data.index > 2))
    looks = peek(undated, unit="user", arm="arm", outcome="y", day="day", planned_effect=1)
    assert all(f"3 of {len(data)} rows have no day" in " ".join(notes) for notes in looks["warnings"])
    assert np.isnan(always_valid(np.nan, 1.0, planned_effect=1).ci_low)
    assert np.isnan(always_valid(1.0, 0.0, planned_effect=1).p_value)
