"""Streaks, recency, rates and strength equal the slow oracle on any rows, and never look ahead."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from habitlab.features.temporal import (
    completion_hours,
    history,
    streaks,
    summary,
    time_of_day,
    weekday_effects,
    weekday_profile,
)
from tests.features.oracle import Pair, as_date, local_days
from tests.features.tracking import STATUSES, table

MONDAY = date(2024, 1, 1)
TARGETS = ["1/1", "3/1", "7/7", "1/7", "3/7", "6/7", "2/5", "1/14", "1/30", "4/31", None]

day_offset = st.one_of(st.integers(0, 21), st.integers(0, 80))
rows = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["run", "read"]),
        day_offset.map(lambda offset: MONDAY + timedelta(days=offset)),
        st.sampled_from([*STATUSES, "done", "missed", None]),
    ),
    max_size=60,
)
targets = st.fixed_dictionaries({"run": st.sampled_from(TARGETS), "read": st.sampled_from(TARGETS)})
week_starts = st.integers(0, 6)
unknowns = st.sampled_from(["keep", "break"])
few = settings(max_examples=25, deadline=None)  # the large random table below covers more; these shrink


def habits_of(target):
    return pd.DataFrame({"habit_id": list(target), "target": list(target.values())}, dtype="str")


def assert_equal(measured, expected):
    """One row against the oracle's dictionary; None is NaN."""
    for name, value in expected.items():
        got = measured[name]
        if isinstance(value, date):
            assert as_date(got) == value, name
        else:
            assert got == pytest.approx(np.nan if value is None else value, nan_ok=True), name


@given(rows, targets, week_starts, unknowns)
@few
def test_history_equals_the_oracle_on_each_morning(rows, target, week_start, unknown):
    before = history(table(rows), habits_of(target), week_start=week_start, unknown=unknown)
    assert len(before) == len(rows)
    days = local_days(rows)
    for (user, habit, day, _), (_, got) in zip(rows, before.iterrows(), strict=True):
        pair = Pair(days[user, habit], target[habit], day, week_start, unknown)
        assert_equal(got, {f"{k}_before" if "since" not in k else k: v for k, v in pair.features().items()})


@given(rows, targets, week_starts, unknowns)
@few
def test_streaks_are_those_of_the_next_morning(rows, target, week_start, unknown):
    got = streaks(table(rows), habits_of(target), week_start=week_start, unknown=unknown)
    days = local_days(rows)
    for (user, habit, day, _), streak in zip(rows, got, strict=True):
        pair = Pair(days[user, habit], target[habit], day + timedelta(days=1), week_start, unknown)
        assert streak == pair.runs()[-1]


@given(rows, targets, week_starts, unknowns, st.integers(-1, 90))
@few
def test_summary_equals_the_oracle_on_any_day(rows, target, week_start, unknown, offset):
    until = MONDAY + timedelta(days=offset)
    got = summary(table(rows), habits_of(target), until, week_start=week_start, unknown=unknown)
    pairs = local_days([row for row in rows if row[2] < until])
    assert list(zip(got["user_id"], got["habit_id"], strict=True)) == sorted(pairs)
    for _, row in got.iterrows():
        habit = row["habit_id"]
        pair = Pair(pairs[row["user_id"], habit], target[habit], until, week_start, unknown)
        expected = pair.summary()
        expected.pop("counted")
        assert_equal(row, expected)


@given(rows, targets)
@settings(max_examples=10, deadline=None)
@example([("ann", "run", MONDAY, "done")] * 2, {"run": "1/1", "read": "1/1"})
def test_dtypes_order_and_index_do_not_matter(rows, target):
    frame, habits = table(rows), habits_of(target)
    expected = history(frame, habits)
    plain = frame.astype({"user_id": object, "habit_id": "category", "status": object}).iloc[::-1]
    plain.index = plain.index + 100
    got = history(plain, habits.astype(object))
    pd.testing.assert_frame_equal(got.iloc[::-1].reset_index(drop=True), expected)
    pd.testing.assert_frame_equal(
        summary(plain.astype({"user_id": "str", "habit_id": "str"}), habits), summary(frame, habits)
    )


@given(rows, targets, st.integers(0, 60), st.integers(0, 30), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_nothing_looks_ahead(rows, target, offset, shift, random):
    """Events on and after a day are changed, moved later or lost: no feature of that day or an earlier one changes."""
    cut = MONDAY + timedelta(days=offset)
    future = [row for row in rows if row[2] >= cut]
    changed = [
        (user, habit, day + timedelta(days=shift), random.choice(STATUSES))
        for user, habit, day, _ in future
        if random.random() < 0.8
    ]
    # Someone opens each habit on the day itself: their features, too, must not know what happens next.
    opened = [(user, habit, cut, "unknown") for user in ("ann", "bob") for habit in ("run", "read")]
    past = [row for row in rows if row[2] < cut] + opened
    one, other = table(past + future), table(past + changed)
    habits, users = habits_of(target), pd.DataFrame({"user_id": ["ann", "bob"], "zone": "Asia/Tokyo"}, dtype="str")
    one["at"], other["at"] = (frame["date"].dt.tz_localize("UTC") for frame in (one, other))
    pd.testing.assert_frame_equal(history(one, habits).head(len(past)), history(other, habits).head(len(past)))
    for features in (
        lambda frame: summary(frame, habits, cut),
        lambda frame: weekday_profile(frame, cut),
        lambda frame: weekday_effects(frame, cut),
        lambda frame: time_of_day(completion_hours(frame, users, cut)),
    ):
        pd.testing.assert_frame_equal(features(one), features(other))


@given(rows, targets, week_starts)
@few
def test_summary_is_what_history_would_give_a_row_of_that_day(rows, target, week_start):
    """A service that asks "now" and a model trained on past mornings see the same numbers."""
    until = MONDAY + timedelta(days=40)
    past = [row for row in rows if row[2] < until]
    snapshot = summary(table(past), habits_of(target), until, week_start=week_start)
    asked = table(
        past
        + [
            (user, habit, until, "unknown")
            for user, habit in zip(snapshot["user_id"], snapshot["habit_id"], strict=True)
        ]
    )
    row = history(asked, habits_of(target), week_start=week_start).tail(len(snapshot)).reset_index(drop=True)
    for name in ("streak", "strength", "completion_rate"):
        np.testing.assert_allclose(row[f"{name}_before"], snapshot[name], err_msg=name)
    for name in ("days_since_done", "periods_since_done"):
        np.testing.assert_array_equal(row[name], snapshot[name], err_msg=name)


@pytest.mark.parametrize("unknown", ["keep", "break"])
def test_a_large_random_table_equals_the_oracle(unknown):
    """77 pairs of every kind of schedule, with gaps, duplicates and conflicts, in no order."""
    generator = np.random.default_rng(7)
    rows = []
    for user in range(7):
        share = generator.dirichlet([4, 2, 1, 1])
        for habit, length in enumerate(generator.integers(1, 90, len(TARGETS))):
            offsets = generator.integers(0, 120, length)
            statuses = generator.choice(STATUSES, length, p=share)
            day = [MONDAY + timedelta(days=int(offset)) for offset in offsets]
            rows += [(f"u{user}", f"h{habit}", d, s) for d, s in zip(day, statuses, strict=True)]
    rows = [rows[i] for i in generator.permutation(len(rows))]
    target = {f"h{i}": value for i, value in enumerate(TARGETS)}
    frame, habits, until = table(rows), habits_of(target), MONDAY + timedelta(days=100)
    options = {"week_start": 6, "unknown": unknown}
    days = local_days(rows)
    before = history(frame, habits, **options).assign(streak=streaks(frame, habits, **options)).to_dict("records")
    for (user, habit, day, _), got in zip(rows, before, strict=True):
        pair = Pair(days[user, habit], target[habit], day, **options)
        assert_equal(got, {f"{k}_before" if "since" not in k else k: v for k, v in pair.features().items()})
        assert got["streak"] == Pair(days[user, habit], target[habit], day + timedelta(days=1), **options).runs()[-1]
    for got in summary(frame, habits, until, **options).to_dict("records"):
        user, habit = got["user_id"], got["habit_id"]
        expected = Pair(days[user, habit], target[habit], until, **options).summary()
        expected.pop("counted")
        assert_equal(got, expected)


def test_rows_in_the_order_of_their_dates():
    """As a log is written: dates rise, but the rows of a pair do not stand together."""
    rows = [(user, "run", MONDAY + timedelta(days=day), "done") for day in range(3) for user in ("ann", "bob")]
    assert history(table(rows))["streak_before"].tolist() == [0, 0, 1, 1, 2, 2]


def test_many_pairs_are_cut_into_blocks_without_a_seam():
    """More days than one block holds, with a pair longer than a block."""
    generator = np.random.default_rng(3)
    long, short = 300_000, 40_000
    frame = pd.DataFrame(
        {
            "user_id": ["a"] * long + [f"b{i // 8}" for i in range(short)],
            "habit_id": "h",
            "date": np.concatenate([np.arange(long), np.arange(short) % 8]).astype("datetime64[D]"),
            "status": generator.choice(STATUSES, long + short),
        }
    ).astype({"date": "datetime64[s]"})
    for target in ("1/1", "3/7"):
        habits = pd.DataFrame({"habit_id": ["h"], "target": [target]})
        whole = history(frame, habits)
        pd.testing.assert_frame_equal(history(frame[:long], habits), whole[:long])
        pd.testing.assert_frame_equal(history(frame[long:], habits), whole[long:])
