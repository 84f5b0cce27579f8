"""Power, sample size and minimum detectable effect, against statsmodels, published numbers and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import TTestIndPower

from habitlab.evaluation.experiments import compare_arms
from habitlab.evaluation.experiments.planning import Outcome, minimum_detectable_effect, power, sample_size


@pytest.mark.parametrize(("effect", "units", "control"), [(0.5, 64, 64), (0.2, 100, 300), (0.01, 50, 50), (2, 8, 5)])
def test_power_of_means_is_that_of_statsmodels(effect, units, control):
    oracle = TTestIndPower().power(effect, units, 0.05, ratio=control / units)
    assert power(2 * effect, units, Outcome(sd=2), units_control=control) == pytest.approx(oracle, abs=1e-6)


def test_published_sample_sizes():
    """Cohen 1988: d 0.5 takes 64 an arm, 0.2 takes 393 or 394, 0.8 takes 26."""
    assert sample_size(0.5, Outcome(sd=1)) == 64
    assert sample_size(0.2, Outcome(sd=1)) in (393, 394)
    assert sample_size(0.8, Outcome(sd=1)) == 26
    # Fleiss, Levin & Paik 2003: 0.25 against 0.40 at 80 % takes 152 without the correction for continuity.
    assert sample_size(0.15, Outcome(rate=0.25)) in (152, 153)


@given(st.floats(0.05, 1.5), st.floats(0.55, 0.95))
@settings(max_examples=25, deadline=None)
def test_size_effect_and_power_are_one_relation(effect, wanted):
    outcome = Outcome(sd=1.3)
    units = sample_size(effect, outcome, power_wanted=wanted)
    assert power(effect, units, outcome) >= wanted
    assert units == 2 or power(effect, units - 1, outcome) < wanted
    found = minimum_detectable_effect(units, outcome, power_wanted=wanted)
    assert power(found, units, outcome) == pytest.approx(wanted, abs=1e-6)
    assert found <= effect + 1e-9


def test_a_covariate_and_repeated_rows_change_the_units_needed_as_the_formulas_say():
    plain = sample_size(0.1, Outcome(sd=1))
    assert sample_size(0.1, Outcome(sd=1, correlation=0.6)) == pytest.approx(plain * 0.64, rel=0.01)
    assert Outcome(sd=1, rows_per_unit=20, icc=0.3).design_effect == pytest.approx(6.7)
    assert sample_size(0.1, Outcome(sd=1, rows_per_unit=20, icc=0.3)) == pytest.approx(plain * 6.7 / 20, rel=0.02)
    assert sample_size(0.1, Outcome(sd=1, rows_per_unit=20, icc=1)) == plain
    assert sample_size(0.05, Outcome(rate=0.3, correlation=0.6)) == pytest.approx(
        sample_size(0.05, Outcome(rate=0.3)) * 0.64, rel=0.01
    )


@pytest.mark.parametrize("kind", ["mean", "rate"])
def test_as_many_trials_as_promised_find_the_effect(kind):
    draw = np.random.default_rng(3)
    users, rows, icc, repeats = 60, 5, 0.4, 300
    outcome = Outcome(sd=1, rows_per_unit=rows, icc=icc) if kind == "mean" else Outcome(rate=0.3)
    effect = minimum_detectable_effect(users, outcome)
    found = 0
    user = np.repeat(np.arange(2 * users), rows if kind == "mean" else 1)
    arm = user % 2
    for _ in range(repeats):
        if kind == "mean":
            own = draw.normal(size=2 * users)[user] * np.sqrt(icc)
            y = own + np.sqrt(1 - icc) * draw.normal(size=user.size) + effect * arm
        else:
            y = draw.random(user.size) < 0.3 + effect * arm
        result = compare_arms(pd.DataFrame({"user": user, "arm": arm, "y": y}), unit="user", arm="arm", outcome="y")
        found += result.p_value < 0.05
    assert abs(found / repeats - 0.8) < 3.3 * np.sqrt(0.16 / repeats)  # 99.9 % limits


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"sd": 1, "rate": 0.5},
        {"sd": 0},
        {"rate": 1},
        {"sd": 1, "correlation": 1},
        {"sd": 1, "icc": 2},
        {"sd": 1, "rows_per_unit": 0},
    ],
)
def test_impossible_outcomes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"give either|must"):
        Outcome(**wrong)


def test_impossible_plans_are_refused():
    with pytest.raises(ValueError, match="effect of 0"):
        sample_size(0, Outcome(sd=1))
    with pytest.raises(ValueError, match="effect must be a number"):
        sample_size(np.nan, Outcome(sd=1))
    with pytest.raises(ValueError, match="outside 0 to 1"):
        power(0.5, 10, Outcome(rate=0.6))
    with pytest.raises(ValueError, match="power must lie"):
        sample_size(1, Outcome(sd=1), power_wanted=1)
    with pytest.raises(ValueError, match="two units"):
        power(1, 1, Outcome(sd=1))
    assert np.isnan(minimum_detectable_effect(3, Outcome(rate=0.9)))
