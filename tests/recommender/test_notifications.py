"""Requirement 9.3.c: caps on streak pressure and on messages, quiet hours on the person's clock, a healthy pause."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.recommender import notifications as notes
from habitlab.recommender.notifications import Objective, healthy_pauses, is_quiet, plan, quiet_until
from habitlab.simulation import simulate

ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]
PEOPLE = pd.DataFrame({"user_id": ["ann", "kid"], "age": [40, 15], "zone": "Europe/Berlin"})


def messages(*rows) -> pd.DataFrame:
    """Messages at times on the clock of Berlin: user, time, kind."""
    frame = pd.DataFrame(rows, columns=["user_id", "at", "kind"])
    at = pd.to_datetime(frame["at"]).dt.tz_localize("Europe/Berlin").dt.tz_convert("UTC")
    return frame.assign(at=at)


def reasons(*rows, users=PEOPLE, **more) -> list[str]:
    return plan(messages(*rows), users, **more)["reason"].tolist()


@pytest.mark.parametrize(
    ("clock", "quiet"),
    [("21:59:59", False), ("22:00", True), ("23:59", True), ("00:00", True), ("07:59:59", True), ("08:00", False)],
)
def test_9_3_c_the_night_wraps_around_midnight(clock, quiet):
    assert (reasons(("ann", f"2026-01-05 {clock}", "reminder")) == ["quiet hours"]) == quiet


def test_9_3_c_minors_have_a_longer_night():
    assert reasons(("kid", "2026-01-05 20:45", "reminder"), ("ann", "2026-01-05 20:45", "reminder")) == [
        "quiet hours",
        "",
    ]


def test_9_3_c_quiet_hours_are_those_of_the_persons_zone():
    at = pd.Timestamp("2026-07-01T20:30Z")  # half past four in New York, half past ten in Berlin
    people = pd.DataFrame({"user_id": ["b", "n"], "age": 30, "zone": ["Europe/Berlin", "America/New_York"]})
    proposed = pd.DataFrame({"user_id": ["b", "n"], "at": at, "kind": "reminder"})
    assert plan(proposed, people)["reason"].tolist() == ["quiet hours", ""]


@pytest.mark.parametrize(
    ("utc", "quiet"),
    [
        ("2026-03-28T06:30Z", True),  # 7:30 in winter
        ("2026-03-29T06:30Z", False),  # 8:30 in summer, a day later
        ("2026-10-24T20:30Z", True),  # 22:30 in summer
        ("2026-10-25T20:30Z", False),  # 21:30 in winter
    ],
)
def test_9_3_c_quiet_hours_follow_the_clock_when_it_is_put_forward_or_back(utc, quiet):
    proposed = pd.DataFrame({"user_id": ["ann"], "at": [pd.Timestamp(utc)], "kind": "reminder"})
    assert (plan(proposed, PEOPLE)["reason"][0] == "quiet hours") == quiet


@settings(max_examples=80, deadline=None)
@given(
    st.datetimes(datetime(2023, 1, 1), datetime(2026, 12, 31)), st.sampled_from(ZONES),
    st.integers(0, 47), st.integers(0, 47),
)  # fmt: skip
def test_9_3_c_against_an_oracle_with_python_clocks(moment, zone, start, end):
    at = moment.replace(tzinfo=UTC, microsecond=0)
    frame = pd.Series([pd.Timestamp(at)])
    local = notes.local_clock(frame, pd.Series([zone]))
    clock = at.astimezone(ZoneInfo(zone))
    assert local[0].to_pydatetime() == clock.replace(tzinfo=None)
    hour, minutes = clock.hour + clock.minute / 60 + clock.second / 3600, []
    step = start / 2
    while step != end / 2:  # walk the night in half hours
        minutes.append(step)
        step = (step + 0.5) % 24
    assert is_quiet(local, start / 2, end / 2)[0] == any(begin <= hour < begin + 0.5 for begin in minutes)
    wait = quiet_until(frame, pd.Series([zone]), end / 2)[0]
    assert pd.Timestamp(at) <= wait <= pd.Timestamp(at) + timedelta(hours=25)
    then = wait.to_pydatetime().astimezone(ZoneInfo(zone))
    shown = then.hour + then.minute / 60
    assert 0 <= shown - end / 2 <= 1  # later only where the hour is left out that day
    assert shown == end / 2 or then.utcoffset() != (then - timedelta(hours=2)).utcoffset()


def test_9_3_c_a_held_message_says_when_the_night_ends():
    held = plan(messages(("ann", "2026-03-28 23:00", "reminder")), PEOPLE)  # the clocks go forward that night
    assert held["wait_until"][0] == pd.Timestamp("2026-03-29T06:00Z")
    assert plan(messages(("ann", "2026-03-28 12:00", "reminder")), PEOPLE)["wait_until"].isna().all()


def test_9_3_c_where_the_zone_is_unknown_nobody_is_woken():
    people = pd.DataFrame({"user_id": ["ann", "bob"], "age": 40, "zone": [None, "Mars/Olympus"]})
    assert (
        reasons(("ann", "2026-01-05 12:00", "reminder"), ("bob", "2026-01-05 12:00", "reminder"), users=people)
        == ["time zone unknown"] * 2
    )
    assert reasons(("nobody known", "2026-01-05 12:00", "reminder")) == ["time zone unknown"]


def test_9_3_c_a_day_has_three_messages_and_two_for_minors():
    day = [("ann", f"2026-01-05 {hour}:00", "reminder") for hour in range(9, 14)]
    assert reasons(*day) == [""] * 3 + ["daily cap"] * 2
    assert reasons(*[("kid", *rest) for _, *rest in day]) == [""] * 2 + ["daily cap"] * 3


def test_9_3_c_what_was_sent_before_counts():
    before = messages(("ann", "2026-01-05 09:00", "reminder"), ("ann", "2026-01-05 10:00", "news"))
    assert reasons(("ann", "2026-01-05 11:00", "reminder"), ("ann", "2026-01-05 12:00", "reminder"), sent=before) == [
        "",
        "daily cap",
    ]


def test_9_3_c_seven_days_hold_twelve_messages_whenever_they_begin():
    days = pd.date_range("2026-01-05", periods=14)
    rows = [("ann", f"{day:%Y-%m-%d} {hour}:00", "reminder") for day in days for hour in (9, 12, 15, 18)]
    planned = plan(messages(*rows), PEOPLE)
    assert set(planned["reason"]) == {"", "daily cap", "weekly cap"}
    sent = planned["at"][planned["allowed"]].dt.tz_convert("Europe/Berlin").dt.date
    counts = sent.value_counts().reindex([day.date() for day in days], fill_value=0)
    assert counts.max() == notes.DAILY
    assert counts.rolling(7).sum().max() == notes.WEEKLY


def test_9_3_c_streaks_press_once_a_week_and_never_when_lost_or_long():
    assert reasons(
        *[("ann", f"2026-01-{day:02} 09:00", "streak") for day in (5, 6, 11, 12)],
        ("ann", "2026-01-13 09:00", "streak lost"),
    ) == ["", "streak pressure", "streak pressure", "", "streak pressure"]
    assert reasons(("kid", "2026-01-05 12:00", "streak")) == ["streak pressure"]
    long_run = messages(("ann", "2026-01-05 09:00", "streak")).assign(streak=31)
    assert plan(long_run, PEOPLE)["reason"].tolist() == ["streak pressure"]


def test_9_3_c_the_places_go_to_what_does_good_and_not_to_what_is_opened_most():
    rows = messages(*[("ann", f"2026-01-05 {hour}:00", "reminder") for hour in range(9, 14)])
    rows = rows.assign(success=[0.0, 0.0, 0.9, 0.8, 0.7], engagement=[1.0, 1.0, 0.0, 0.0, 0.1])
    assert plan(rows, PEOPLE)["allowed"].tolist() == [False, False, True, True, True]


def test_9_3_c_engagement_is_never_the_sole_objective():
    with pytest.raises(ValueError, match="never the sole objective"):
        Objective(success=0.0, wellbeing=0.0, variety=0.0, engagement=1.0)
    with pytest.raises(ValueError, match="add up to 1"):
        Objective(engagement=0.4)
    only_engaging = pd.DataFrame({"success": [0.0, 0.1], "engagement": [1.0, 0.0]})
    assert Objective().worth(only_engaging).tolist() == [0.0, 0.05]


def test_9_3_c_opting_out_and_pausing_silence_everything():
    out = PEOPLE.assign(opted_out=[True, False])
    assert reasons(("ann", "2026-01-05 12:00", "reminder"), users=out) == ["opted out"]
    pause = pd.DataFrame({"user_id": ["ann"], "from_day": ["2026-01-05"], "until_day": ["2026-01-07"]})
    days = [("ann", f"2026-01-{day:02}  12:00", "reminder") for day in (4, 5, 6, 7)]
    assert reasons(*days, pauses=pause) == ["", "paused", "paused", ""]


def visits(user, days, hour="12:00", seconds=60) -> pd.DataFrame:
    at = [pd.Timestamp(f"{day} {hour}", tz="Europe/Berlin").tz_convert("UTC") for day in days]
    frame = pd.DataFrame({"user_id": user, "started_at": at, "seconds": float(seconds)})
    return frame.assign(started_at=frame["started_at"].dt.as_unit("us"))


def test_9_3_c_a_pause_is_offered_after_three_weeks_on_end_long_days_or_nights():
    days = [date(2026, 3, 1) + timedelta(days=n) for n in range(21)]
    today = date(2026, 3, 22)
    people = pd.DataFrame({"user_id": ["always", "rests", "long", "owl", "past"], "zone": "Europe/Berlin"})
    sessions = pd.concat(
        [
            visits("always", days),
            visits("rests", [day for day in days if day.weekday() != 6]),
            visits("long", days[-4:], seconds=4 * 3600),
            visits("owl", days[-3:], hour="23:30"),
            visits("past", days[:3], hour="23:30", seconds=9 * 3600),
        ],
        ignore_index=True,
    )
    found = healthy_pauses(sessions, people, today)
    assert dict(zip(found["user_id"], found["reason"], strict=True)) == {
        "always": "no day off",
        "long": "long days",
        "owl": "at night",
    }
    assert (found["until_day"] - found["from_day"]).dt.days.tolist() == [2, 2, 2]
    noon = messages(("always", "2026-03-22 12:00", "reminder"), ("rests", "2026-03-22 12:00", "reminder"))
    assert plan(noon, people, pauses=found)["reason"].tolist() == ["paused", ""]


def test_9_3_c_the_caps_hold_for_a_whole_population_whatever_is_proposed():
    people = simulate(users=100, days=30, seed=5).users
    generator = np.random.default_rng(0)
    count = 20_000
    proposed = pd.DataFrame(
        {
            "user_id": generator.choice(people["user_id"].to_numpy(), count),
            "at": pd.Timestamp("2026-03-20", tz="UTC") + pd.to_timedelta(generator.integers(0, 21 * 86400, count), "s"),
            "kind": generator.choice(["reminder", "streak", "streak lost", "recommendation"], count),
            "engagement": generator.random(count),
            "success": generator.random(count),
        }
    )
    planned = plan(proposed, people)
    sent = planned[planned["allowed"]].merge(people[["user_id", "zone", "age"]], on="user_id")
    local = notes.local_clock(sent["at"], sent["zone"])
    minor = ~(sent["age"] >= 18)
    assert not is_quiet(local, *notes.QUIET).any()
    assert not is_quiet(local[minor], *notes.QUIET_OF_MINORS).any()
    assert not (sent["kind"] == "streak lost").any()
    a_day = sent.groupby(["user_id", local.dt.date]).size()
    assert a_day.max() == notes.DAILY
    for kind, most in (("streak", notes.STREAKS_A_WEEK), (None, notes.WEEKLY)):
        some = sent[sent["kind"] == kind] if kind else sent
        table = pd.crosstab(some["user_id"], local[some.index].dt.date)
        table = table.reindex(columns=[day.date() for day in pd.date_range("2026-03-19", "2026-04-12")], fill_value=0)
        assert table.T.rolling(7).sum().max().max() == most
