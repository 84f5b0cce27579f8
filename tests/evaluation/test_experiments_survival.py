"""Retention of two arms: survival and restricted mean, against statsmodels, Greenwood, plain means and a planted truth.

6.3.d Long-term 30-90 days: survival comparison with censoring.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight

from habitlab.evaluation.experiments.survival import compare_retention


def kept(users=200, seed=0, hazard=(0.02, 0.02), watched=(30, 120), things=1):
    draw = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), things)
    arm = user % 2
    frailty = draw.gamma(4, 0.25, users)[user] if things > 1 else 1.0
    true = draw.geometric(np.clip(np.array(hazard)[arm] * frailty, 1e-6, 1)) - 1
    seen = draw.integers(watched[0], watched[1] + 1, user.size)
    return pd.DataFrame(
        {
            "user": user,
            "arm": np.array(["control", "streaks"])[arm],
            "days": np.minimum(true, seen),
            "ended": true <= seen,
            "true": true,
        }
    )


def compare(data, **options):
    return compare_retention(
        data, **{"unit": "user", "arm": "arm", "days": "days", "ended": "ended", "horizon": 60} | options
    )


@given(st.integers(0, 10_000), st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_survival_and_its_error_are_those_of_statsmodels_with_greenwoods_formula(seed, horizon):
    data = kept(users=80, seed=seed)
    found = compare(data, horizon=horizon)
    for name, group in data.groupby("arm"):
        # Statsmodels takes an end after 0 days as none at risk yet: all times one later.
        oracle = SurvfuncRight(group["days"] + 1, group["ended"])
        times, steps = oracle.surv_times - 1, oracle.surv_prob
        day = np.arange(horizon)
        place = np.searchsorted(times, day, side="right") - 1
        survival = np.where(place >= 0, steps[np.maximum(place, 0)], 1.0)
        curve = found.curves.query("arm == @name")
        known = np.isfinite(curve["survival"])
        assert curve["survival"][known].to_numpy() == pytest.approx(survival[known])
        if known.all():
            assert found.days_kept[name] == pytest.approx(survival.sum())


def test_the_error_of_the_mean_is_greenwoods():
    data = kept(users=400)
    found = compare(data)
    variance = 0.0
    for _, group in data.groupby("arm"):
        days, ended = group["days"].to_numpy(), group["ended"].to_numpy()
        survival, at_risk, ends = [], [], []
        alive = 1.0
        for day in range(60):
            at_risk.append(int((days >= day).sum()))
            ends.append(int(((days == day) & ended).sum()))
            alive *= 1 - ends[-1] / at_risk[-1]
            survival.append(alive)
        for day in range(60):
            area = sum(survival[day:])
            variance += area**2 * ends[day] / (at_risk[day] * (at_risk[day] - ends[day]))
    half = (found.ci_high - found.ci_low) / 2 / 1.959964
    assert half == pytest.approx(np.sqrt(variance), rel=0.01)


@pytest.mark.parametrize("users", [24, 200])
def test_without_censoring_it_is_welchs_test_of_plain_means(users):
    data = kept(users=users, watched=(500, 500))
    found = compare(data)
    days = data["true"].clip(upper=60)
    means = days.groupby(data["arm"]).mean()
    oracle = stats.ttest_ind(*(days[data["arm"] == name] for name in ("streaks", "control")), equal_var=False)
    assert found.days_kept == pytest.approx(means.to_dict())
    assert found.difference == pytest.approx(means["streaks"] - means["control"])
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert found.p_value == pytest.approx(oracle.pvalue)
    share = (data["true"] >= 60).groupby(data["arm"]).mean()
    assert found.retained[0] == pytest.approx(share["streaks"] - share["control"])


def test_a_planted_difference_is_found_through_the_censoring():
    data = kept(users=2000, hazard=(0.03, 0.015), watched=(20, 100))
    control, treated = (np.power(1 - hazard, np.arange(1, 61)).sum() for hazard in (0.03, 0.015))
    truth = treated - control
    found = compare(data)
    assert found.ci_low < truth < found.ci_high
    assert found.p_value < 0.001
    # Taking the days seen as the days kept hides part of it.
    naive = data["days"].clip(upper=60).groupby(data["arm"]).mean()
    assert naive["streaks"] - naive["control"] < found.ci_low


@pytest.mark.parametrize("things", [1, 6])
def test_intervals_hold_the_truth_also_when_a_user_has_many_habits(things):
    repeats, held = 250, 0
    for seed in range(repeats):
        found = compare(kept(users=120, seed=seed, things=things))
        held += found.ci_low < 0 < found.ci_high
    assert abs(held / repeats - 0.95) < 3.3 * np.sqrt(0.95 * 0.05 / repeats) + 0.005


def test_rows_of_a_user_taken_for_users_are_too_sure():
    data = kept(users=120, things=6)
    by_user, by_row = compare(data), compare(data.assign(user=range(len(data))))
    assert by_row.difference == pytest.approx(by_user.difference)
    assert by_row.ci_high - by_row.ci_low < 0.9 * (by_user.ci_high - by_user.ci_low)


def test_nobody_watched_to_the_horizon_has_no_mean_within_it():
    found = compare(kept(watched=(30, 40)), horizon=90)
    assert np.isnan([found.difference, found.ci_low, found.p_value]).all()
    assert any("nobody is watched to day 90" in warning for warning in found.warnings)
    assert np.isfinite(compare(kept(watched=(30, 40)), horizon=30).difference)


def test_curves_stay_between_0_and_1_and_fall():
    curves = compare(kept(users=40), horizon=90).curves
    for _, curve in curves.groupby("arm"):
        assert (curve["survival"].diff().dropna() <= 1e-12).all()
        known = curve.dropna()
        assert ((known["ci_low"] >= 0) & (known["ci_low"] <= known["survival"]) & (known["ci_high"] <= 1)).all()


def test_bad_input():
    data = kept(users=40)
    with pytest.raises(ValueError, match="no column 'gone'"):
        compare(data, ended="gone")
    with pytest.raises(ValueError, match="whole numbers"):
        compare(data.assign(days=-1))
    with pytest.raises(ValueError, match="both arms"):
        compare(pd.concat([data, data.assign(arm=data["arm"].iloc[::-1].to_numpy())]))
    with pytest.raises(ValueError, match="two arms"):
        compare(data.query("arm == 'control'"))
    with pytest.raises(ValueError, match="horizon"):
        compare(data, horizon=0)
    nobody = compare(data.assign(ended=False, days=100))
    assert nobody.difference == 0
    assert np.isnan(nobody.p_value)
    assert nobody.retained[0] == 0
    assert np.isnan(nobody.retained[1:]).all()
    with pytest.raises(ValueError, match="no row has a unit, an arm, days and their end: 40 lack one"):
        compare(data.assign(days=np.nan))
    broken = compare(kept(users=400).query("arm == 'control' or user % 4 == 1"))
    assert np.isnan(broken.difference)
    assert np.isnan(list(broken.days_kept.values())).all()
    assert broken.curves[["survival", "ci_low", "ci_high"]].isna().all(axis=None)
    assert "sample ratio" in broken.warnings[0]
    with pytest.raises(ValueError, match="ended must be truths"):
        compare(data.assign(ended=data["ended"] + 1))
    with pytest.raises(ValueError, match="ended holds"):
        compare(data.assign(ended=data["ended"].map({True: "yes", False: "no"})))
    with pytest.raises(ValueError, match="2 columns are called 'days'"):
        compare(pd.concat([data, data[["days"]]], axis=1))
    gaps = data.astype({"days": float})
    gaps.loc[:2, "days"] = np.nan
    assert "3 of 40 rows" in compare(gaps).warnings[0]
