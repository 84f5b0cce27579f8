"""Profiles of the day and the week find what was planted, and nothing where nothing was."""

import cmath
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from habitlab.features.temporal import completion_hours, time_of_day, weekday_effects, weekday_profile
from tests.features.tracking import grid, table, track

WEEK = np.array([0.5, 0.2, 0.0, 0.0, -0.1, -0.4, -0.2])


def apart(one, other):
    """Distance of two clock hours, at most 12."""
    return np.abs((np.asarray(one) - np.asarray(other) + 12) % 24 - 12)


def hours_of(hours):
    """Table of hours from {user: [hour, ...]}."""
    rows = [(user, "h", hour) for user, values in hours.items() for hour in values]
    return pd.DataFrame(rows, columns=["user_id", "habit_id", "hour"]).astype({"user_id": "str", "hour": float})


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(0, 23.99), min_size=1, max_size=8), max_size=3))
@settings(max_examples=50, deadline=None)
def test_circular_mean_and_length_equal_complex_numbers(hours):
    got = time_of_day(hours_of(hours)).set_index("user_id")
    assert list(got.index) == sorted(hours)
    for user, values in hours.items():
        mean = sum(cmath.exp(2j * math.pi * hour / 24) for hour in values) / len(values)
        assert got.loc[user, "events"] == len(values)
        assert got.loc[user, "resultant_length"] == pytest.approx(abs(mean), abs=1e-9)
        if abs(mean) > 1e-6:
            assert apart(got.loc[user, "mean_hour"], cmath.phase(mean) * 24 / (2 * math.pi)) < 1e-6


def test_midnight_lies_between_half_past_eleven_and_half_past_twelve():
    got = time_of_day(hours_of({"u": [23.5, 0.5]})).iloc[0]
    assert apart(got["mean_hour"], 0) < 1e-9
    assert apart(got["preferred_hour"], 0) < 1e-9
    assert got["resultant_length"] == pytest.approx(math.cos(math.pi / 24))


def test_hours_that_cancel_have_no_mean():
    got = time_of_day(hours_of({"u": [6, 18]})).iloc[0]
    assert np.isnan(got["mean_hour"])
    assert got["resultant_length"] == pytest.approx(0)


def test_twenty_events_tell_the_preferred_hour_within_one_hour():
    generator = np.random.default_rng(0)
    truth = generator.uniform(0, 24, 5000)
    hours = pd.DataFrame({"user_id": np.repeat([f"u{i:04d}" for i in range(5000)], 20)})
    hours["hour"] = (np.repeat(truth, 20) + generator.normal(0, 1.5, len(hours))) % 24
    got = time_of_day(hours)
    error = apart(got["preferred_hour"], truth)
    assert np.mean(error < 1) > 0.98
    assert np.mean(apart(got["mean_hour"], truth) < 1) > 0.98


def test_with_two_peaks_the_preferred_hour_is_at_one_of_them():
    generator = np.random.default_rng(1)
    hours = np.r_[generator.normal(7, 0.7, 30), generator.normal(20, 0.7, 20)]
    got = time_of_day(hours_of({"u": hours})).iloc[0]
    assert apart(got["preferred_hour"], 7) < 0.5
    assert apart(got["mean_hour"], 7) > 1.5


def test_weights_count_like_repeats():
    weighted = hours_of({"u": [6, 9]}).assign(weight=[3.0, 1.0])
    repeated = hours_of({"u": [6, 6, 6, 9]})
    columns = ["mean_hour", "resultant_length", "preferred_hour"]
    pd.testing.assert_frame_equal(time_of_day(weighted, weight="weight")[columns], time_of_day(repeated)[columns])


def test_many_people_are_smoothed_in_blocks_without_a_seam():
    generator = np.random.default_rng(2)
    hours = pd.DataFrame({"user_id": [f"u{i:05d}" for i in range(9000)] * 2, "hour": generator.uniform(0, 24, 18000)})
    got = time_of_day(hours)
    last = time_of_day(hours[hours["user_id"] >= "u08990"])
    pd.testing.assert_frame_equal(got.tail(10).reset_index(drop=True), last)


def test_hours_are_local_and_of_done_days_once():
    rows = [("a", "h", "2024-07-01", status) for status in ("done", "done", "missed")] + [
        ("b", "h", "2024-07-01", "done"),
        ("b", "h", "2024-07-02", "missed"),
        ("c", "h", "2024-07-01", "done"),
    ]
    at = ["2024-07-01T09:00Z", "2024-07-01T06:00Z", "2024-07-01T05:00Z"] + ["2024-07-01T06:00Z"] * 3
    tracking = table(rows).assign(at=pd.to_datetime(pd.Series(at)))
    users = pd.DataFrame({"user_id": ["a", "b", "c"], "zone": ["Europe/Berlin", "Asia/Tokyo", None]})
    got = completion_hours(tracking, users)
    assert got[["user_id", "hour"]].to_numpy().tolist() == [["a", 8.0], ["b", 15.0]]


def planted(seed, users=400, days=84, own=0.0, week=WEEK):
    """Users with an overall level, the planted week and, with `own`, a week of their own; their true effects."""
    generator = np.random.default_rng(seed)
    effects = week + generator.normal(0, own, (users, 7))
    effects -= effects.mean(axis=1, keepdims=True)
    level = generator.normal(0.3, 0.8, (users, 1))
    return grid(special.expit(level + effects[:, np.arange(days) % 7]), generator=generator), effects


def test_the_planted_week_is_found():
    tracking, effects = planted(0, own=0.3)
    got = weekday_effects(tracking, level=0.999)
    assert ((got["ci_low"] <= effects[0].mean() + WEEK) & (got["ci_high"] >= WEEK)).all()
    assert got["effect"].to_numpy() == pytest.approx(WEEK, abs=0.1)


def test_nothing_planted_nothing_found():
    tracking, _ = planted(1, week=np.zeros(7))
    got = weekday_effects(tracking, level=0.999)
    assert ((got["ci_low"] < 0) & (got["ci_high"] > 0)).all()
    assert weekday_profile(tracking)["effect"].abs().max() < 0.2


@pytest.mark.long
def test_intervals_of_the_week_hold_the_truth():
    held = []
    for seed in range(100, 140):
        got = weekday_effects(planted(seed, users=200, days=42, own=0.3)[0])
        held.append((got["ci_low"] <= WEEK) & (got["ci_high"] >= WEEK))
    assert 0.92 <= np.mean(held) <= 0.98


def test_shrunk_weeks_are_nearer_the_truth_than_everyones_and_than_raw_ones():
    tracking, effects = planted(2, own=0.4)
    got = weekday_profile(tracking)
    error = got["effect"].to_numpy().reshape(-1, 7) - effects
    raw = special.logit(((got["done"] + 0.5) / (got["counted"] + 1)).to_numpy().reshape(-1, 7))
    raw -= raw.mean(axis=1, keepdims=True)
    assert np.mean(error**2) < 0.8 * np.mean((WEEK - WEEK.mean() - effects) ** 2)
    assert np.mean(error**2) < 0.5 * np.mean((raw - effects) ** 2)


def test_deviations_of_shrunk_weeks_are_honest():
    held = []
    for seed in (5, 6, 7):
        tracking, effects = planted(seed, own=0.3)
        got = weekday_profile(tracking)
        error = np.abs(got["effect"].to_numpy().reshape(-1, 7) - effects)
        held.append(error < 1.96 * got["effect_sd"].to_numpy().reshape(-1, 7))
    assert 0.92 <= np.mean(held) <= 0.98


def test_a_user_with_three_days_has_nearly_everyones_week():
    tracking, _ = planted(3, own=0.3)
    newcomer = track("010", user="zoe")
    got = weekday_profile(pd.concat([tracking, newcomer]))
    assert got.loc[got["user_id"] == "zoe", "effect"].to_numpy() == pytest.approx(WEEK, abs=0.2)
    assert got.groupby("user_id")["effect"].sum().abs().max() < 1e-9


def test_a_hard_habit_on_mondays_only_does_not_make_mondays_hard():
    """Days are compared within a habit: a naive rate by weekday would call Monday the worst day by far."""
    generator = np.random.default_rng(4)
    easy = grid(np.full((200, 56), 0.8), generator=generator)
    hard = grid(np.full((200, 56), 0.2), generator=generator).assign(habit_id="hard")
    hard = hard[hard["date"].dt.day_of_week == 0]
    got = weekday_effects(pd.concat([easy, hard]), level=0.999).iloc[0]
    assert got["rate"] < 0.6
    assert got["ci_low"] < 0 < got["ci_high"]
