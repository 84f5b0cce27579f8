"""Each mistake of the overview's section 1.3 (D22 to D35 in the list of pitfalls), and what is right."""

import numpy as np
import pandas as pd
import pytest

from habitlab.features.temporal import history, local_date, streaks, summary, weekday_profile
from tests.features.tracking import habits, table, track


def test_d22_the_streak_after_a_missed_day_starts_at_one():
    assert streaks(track("11011")).tolist() == [1, 2, 0, 1, 2]


def test_d23_a_missed_first_row_does_not_count():
    assert streaks(track("011")).tolist() == [0, 1, 2]


def test_d24_a_weekly_habit_done_each_week_has_a_growing_streak():
    weekly = track("1      " * 4)
    assert streaks(weekly, habits("1/7")).tolist() == [1, 2, 3, 4]
    assert history(weekly, habits("1/7"))["periods_since_done"].tolist()[1:] == [1, 1, 1]


def test_d25_three_logs_of_a_day_are_one_day():
    once = table([("u", "h", "2024-01-01", "done")] * 3)
    assert streaks(once).tolist() == [1, 1, 1]
    assert summary(once)[["scheduled", "done"]].to_numpy().tolist() == [[1, 1]]


def test_d26_conflicting_logs_of_a_day_are_done_in_any_order():
    rows = [("u", "h", f"2024-01-0{day}", status) for day in (1, 2) for status in ("done", "missed")]
    assert streaks(table(rows)).tolist() == [1, 1, 2, 2]
    assert streaks(table(rows[::-1])).tolist() == [2, 2, 1, 1]


@pytest.mark.parametrize(("statuses", "wins"), [("?0", "missed"), ("0s", "skipped"), ("s1", "done"), ("?0s1", "done")])
def test_d26_done_goes_before_skipped_before_missed_before_unknown(statuses, wins):
    day = pd.concat([track(letter) for letter in statuses])
    assert summary(day)[wins].item() == 1


def test_d27_a_missing_status_is_unknown_and_not_done():
    row = summary(table([("u", "h", "2024-01-01", None)]))
    assert row[["done", "unknown", "streak"]].to_numpy().tolist() == [[0, 1, 0]]


def test_d28_ten_to_midnight_and_ten_past_the_next_midnight_are_two_days_apart():
    at = pd.Series(["2024-01-01T23:50:00+01:00", "2024-01-03T00:10:00+01:00"])
    first, last = local_date(at, "Europe/Berlin")
    assert (last - first).days == 2
    with_the_missed_day = [("u", "h", first, "done"), ("u", "h", "2024-01-02", "missed"), ("u", "h", last, "done")]
    assert streaks(table(with_the_missed_day)).tolist() == [1, 0, 1]


def test_d28_the_night_clocks_change_is_one_day_like_any_other():
    """Noon to 11:30 of the next day is 22.5 hours when clocks go forward, which `.days` makes 0."""
    at = pd.Series(["2024-03-30T12:00:00+01:00", "2024-03-31T11:30:00+02:00"])
    instants = pd.to_datetime(at, utc=True)
    assert (instants[1] - instants[0]).days == 0
    dates = local_date(at, "Europe/Berlin")
    assert (dates[1] - dates[0]).days == 1
    assert streaks(table([("u", "h", day, "done") for day in dates])).tolist() == [1, 2]


def test_d29_instants_of_mixed_offsets_are_read():
    at = pd.Series(["2024-07-01T23:30:00-04:00", "2024-07-02T05:30:00+02:00", "2024-07-02T03:30:00Z"])
    assert local_date(at, "America/New_York").dt.strftime("%F").tolist() == ["2024-07-01"] * 3
    assert local_date(at, pd.Series(["UTC", "Europe/Paris", "Asia/Tokyo"])).dt.day.tolist() == [2, 2, 2]


def test_d30_a_day_without_a_row_was_not_scheduled_a_missed_row_was():
    assert streaks(track("11 11")).tolist() == [1, 2, 3, 4]
    assert streaks(track("11011")).tolist() == [1, 2, 0, 1, 2]


def test_d30_skipped_and_unknown_days_neither_extend_nor_break():
    assert streaks(track("11s1?1")).tolist() == [1, 2, 2, 3, 3, 4]
    assert streaks(track("11s1?1"), unknown="break").tolist() == [1, 2, 2, 3, 0, 1]


def test_d30_three_times_a_week_is_judged_by_the_week():
    two_good_weeks_and_a_bad_one = track("1010100" + "0011100" + "1100000" + "1")
    streak = streaks(two_good_weeks_and_a_bad_one, habits("3/7")).tolist()
    assert streak[6::7] == [1, 2, 0]
    assert streak[9:13] == [1, 1, 2, 2], "it grows with the third time, not before"
    assert streak[18] == 2, "a week that cannot be met any more ends the streak only when it is over"


def test_d31_no_feature_of_a_row_holds_its_outcome():
    """The streak with the day itself is above 0 exactly when the day was done; the one before knows nothing of it."""
    generator = np.random.default_rng(0)
    rows = track("".join(generator.choice(list("01"), 5000)), start="2000-01-01")
    done = rows["status"] == "done"
    assert ((streaks(rows) > 0) == done).all()
    before = history(rows).iloc[100:]
    correlations = before.corrwith(done.iloc[100:].astype(float))
    assert correlations.abs().max() < 4 / np.sqrt(len(before))


def test_d33_recency_of_a_habit_never_done_is_missing():
    before = history(track("0010"))
    assert before["days_since_done"].isna().tolist() == [True, True, True, False]
    assert summary(track("000"))["days_since_done"].isna().all()
    assert history(track("1  00"))[["days_since_done", "periods_since_done"]].to_numpy().tolist()[1:] == [
        [3, 1],
        [4, 2],
    ]


def test_d34_rates_are_of_days_that_counted_and_shrunk():
    row = summary(track("1s?0"))
    assert row["completion_rate"].item() == 0.5
    assert 0 < summary(track("1"))["completion_rate_shrunk"].item() < 1


def test_d32_weekdays_are_counted_from_monday():
    profile = weekday_profile(track("1000000", start="2024-01-01"))
    assert profile.loc[profile["done"] > 0, "weekday"].tolist() == [0]


@pytest.mark.parametrize(
    ("target", "start", "letters", "streak"),
    [
        (
            "1/30",
            "2024-01-01",
            "1" + "0" * 30 + "1" + "0" * 28 + "1",
            3,
        ),  # the first of each month, 31 and 29 days long
        ("2/5", "2024-01-03", "11000" + "01010" + "00011", 3),  # blocks of 5 days from the first row
        ("3/7", "2024-01-06", "11" + "1110000", 1),  # a first week of two days, both done, says nothing
        ("3/7", "2024-01-01", "1110000" + "sssssss" + "1110000", 2),  # a week of holidays
        ("3/7", "2024-01-01", "1110000" + "       " + "1110000", 2),  # a week without schedule
        ("3/7", "2024-01-01", "1110000" + "11?0000" + "1110000", 2),  # it may have been three
        ("3/7", "2024-01-01", "1110000" + "11s0000" + "1110000", 1),  # skipped, but there were days enough
        ("3/1", "2024-01-01", "111", 3),  # several times a day: the day's row says whether
    ],
)
def test_streaks_of_other_schedules(target, start, letters, streak):
    assert streaks(track(letters, start), habits(target)).tolist()[-1] == streak


def test_weeks_can_start_on_sunday():
    sunday_and_monday = track("11", start="2024-01-07")
    assert streaks(sunday_and_monday, habits("1/7"), week_start=0).tolist() == [1, 2]
    assert streaks(sunday_and_monday, habits("1/7"), week_start=6).tolist() == [1, 1]


def test_strength_hardly_feels_a_single_lapse():
    broken = history(track("1" * 60 + "0" + "1")).iloc[-1]
    assert broken["streak_before"] == 0
    assert broken["strength_before"] > 0.9
    assert history(track("1" * 13 + "0" * 13 + "0"), include=["strength"])["strength_before"].iloc[
        [13, 26]
    ].tolist() == (pytest.approx([0.5, 0.25])), "13 days are the half-life"
    assert history(track("1      " * 30 + "1"), habits("1/7"))["strength_before"].iloc[-1] == pytest.approx(
        1 - 0.5 ** (30 * 7 / (13 * np.sqrt(7)))
    )
