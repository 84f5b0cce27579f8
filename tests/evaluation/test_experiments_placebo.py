"""Trials in which nothing happens: which way to read them finds something all the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from habitlab.evaluation.experiments import assign, compare_arms
from habitlab.evaluation.experiments.placebo import _ratios, _row_p_value, false_alarms
from habitlab.evaluation.experiments.sequential import peek

COLUMNS = {"unit": "user", "outcome": "done", "denominator": "of", "day": "day"}


def rows(users=120, days=14, seed=0):
    """Days of people who differ much: some join late, some do nearly all, some nearly nothing."""
    draw = np.random.default_rng(seed)
    user, day = (axis.ravel() for axis in np.meshgrid(np.arange(users), np.arange(days), indexing="ij"))
    here = day >= draw.integers(0, 5, users)[user]
    of = 1 + draw.poisson(3, user.size)
    done = draw.binomial(of, draw.beta(1, 1, users)[user])
    return pd.DataFrame({"user": user, "day": day, "done": done, "of": of})[here]


def test_each_reading_is_that_of_the_slow_way():
    """The same dealing, read by `peek`, `compare_arms` and a test of rows written out one by one."""
    data = rows()
    for trial in range(4):
        found = false_alarms(data, **COLUMNS, planned_effect=0.1, trials=trial + 1, seed=5).set_index("reading")
        before = (
            false_alarms(data, **COLUMNS, planned_effect=0.1, trials=trial, seed=5).set_index("reading")["alarms"]
            if trial
            else pd.Series(0, index=found.index)
        )
        arm = pd.Series(assign(range(120), ("a", "b"), f"placebo 5 {trial}"))
        dealt = data.assign(arm=data["user"].map(arm))
        looks = peek(dealt, unit="user", arm="arm", outcome="done", denominator="of", day="day", planned_effect=0.1)
        enough = looks[["n_control", "n_arm"]].min(axis=1) >= 30
        last = compare_arms(dealt, unit="user", arm="arm", outcome="done", denominator="of")
        single = dealt.loc[dealt.index.repeat(dealt["of"])]
        single = single.assign(y=single.groupby(level=0).cumcount() < single["done"])
        sides = [single.loc[single["arm"] == name, "y"].astype(float) for name in ("a", "b")]
        new = (found["alarms"] - before).to_dict()
        assert new["row"] == (stats.ttest_ind(*sides).pvalue < 0.05)
        assert new["user"] == (last.p_value < 0.05)
        assert new["naive"] == (looks.loc[enough, "fixed_p_value"] < 0.05).any()
        assert new["always"] == looks["stop"].iloc[-1]


def test_differences_and_errors_are_those_of_compare_arms():
    data = rows()
    arm = assign(range(120), ("a", "b"), "x") == "b"
    sums = data.groupby("user")[["done", "of"]].sum()
    top, bottom = (sums[[name]].to_numpy(dtype=float) for name in ("done", "of"))
    difference, error, degrees, known = (float(part[0]) for part in _ratios(top, bottom, arm))
    oracle = compare_arms(sums.reset_index().assign(arm=arm), unit="user", arm="arm", outcome="done", denominator="of")
    assert known
    assert (difference, error, degrees) == pytest.approx((oracle.difference, oracle.standard_error, oracle.degrees))
    assert _row_p_value(top[:, 0], bottom[:, 0], arm) < oracle.p_value


def test_rows_and_naive_looks_raise_too_many_alarms_and_people_and_always_valid_ones_do_not():
    found = false_alarms(rows(users=200), **COLUMNS, planned_effect=0.1, trials=300).set_index("reading")
    low, high = stats.binom.interval(0.999, 300, 0.05)
    assert found.loc["row", "alarms"] > 3 * high
    assert found.loc["naive", "alarms"] > high
    assert low <= found.loc["user", "alarms"] <= high
    assert found.loc["always", "alarms"] <= high
    assert ((found["ci_low"] <= found["share"]) & (found["share"] <= found["ci_high"])).all()


def test_bad_input():
    data = rows()
    with pytest.raises(ValueError, match="known and 0 or more"):
        false_alarms(data.assign(done=np.nan), **COLUMNS, planned_effect=0.1)
    with pytest.raises(ValueError, match="needs 60 units; there are 10"):
        false_alarms(data[data["user"] < 10], **COLUMNS, planned_effect=0.1)
    with pytest.raises(ValueError, match="needs 60 units; there are 0"):
        false_alarms(data[:0], **COLUMNS, planned_effect=0.1)
    constant = false_alarms(data.assign(done=data["of"]), **COLUMNS, planned_effect=0.1, trials=10)
    assert constant.loc[constant["reading"] != "row", "alarms"].sum() == 0
