"""The local day and hour of an instant equal the standard library's, one instant at a time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from habitlab.features.temporal import local_date, local_hour

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", None]
instants = st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))


def clock(instant, zone):
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@given(st.lists(st.tuples(instants, st.sampled_from(ZONES), st.sampled_from([0, 4, 3.5, None])), max_size=20))
@settings(max_examples=60, deadline=None)
@example([(datetime(2024, 3, 31, 1, tzinfo=UTC), "Europe/Berlin", 4)])  # clocks go from 02:00 to 03:00 now
@example([(datetime(2024, 10, 27, 0, 30, tzinfo=UTC), "Europe/Berlin", 4)])  # the hour that comes twice
@example([(datetime(2011, 12, 30, 10, tzinfo=UTC), "Pacific/Apia", 0)])  # 30 December 2011 did not take place
def test_equals_the_standard_library(cases):
    at = pd.Series([case[0] for case in cases], dtype="datetime64[us, UTC]", index=range(5, 5 + len(cases)))
    zone = pd.Series([case[1] for case in cases], dtype="str")
    day_start = pd.Series([case[2] for case in cases], dtype=float)
    dates, hours = local_date(at, zone, day_start), local_hour(at, zone)
    assert dates.index.equals(at.index)
    for (instant, name, start), day, hour in zip(cases, dates, hours, strict=True):
        if name is None:
            assert pd.isna(day)
            assert pd.isna(hour)
            continue
        wall = clock(instant, name)
        assert day.date() == (wall - timedelta(hours=start or 0)).date()
        assert hour == pytest.approx(
            (wall - wall.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(hours=1)
        )


def test_half_past_one_belongs_to_yesterday_when_the_day_starts_at_four():
    at = pd.Series(pd.to_datetime(["2024-05-02T01:30:00+02:00", "2024-05-02T04:00:00+02:00"], utc=True))
    assert local_date(at, "Europe/Berlin", 4).dt.day.tolist() == [1, 2]
    assert local_date(at, "Europe/Berlin").dt.day.tolist() == [2, 2]
    assert local_hour(at, "Europe/Berlin").tolist() == [1.5, 4.0]


def test_a_day_starts_at_four_on_the_wall_clock_in_the_nights_clocks_change():
    at = pd.Series(pd.to_datetime(["2024-03-31T01:59Z", "2024-03-31T02:00Z", "2024-10-27T02:59Z", "2024-10-27T03:00Z"]))
    assert local_date(at, "Europe/Berlin", 4).dt.day.tolist() == [30, 31, 26, 27]


def test_a_move_is_a_zone_for_each_row():
    at = pd.Series(["2024-01-01T23:30:00Z", "2024-01-01T23:30:00Z"])
    assert local_date(at, pd.Series(["Europe/London", "Europe/Moscow"])).dt.day.tolist() == [1, 2]


def test_missing_instants_stay_missing_and_nothing_is_fine():
    assert local_date(pd.Series([pd.NaT], dtype="datetime64[us, UTC]"), "UTC").isna().all()
    assert local_date(pd.Series([], dtype="datetime64[us, UTC]"), "UTC").dtype == "datetime64[s]"


def test_what_cannot_be_right_is_said():
    at = pd.Series(pd.to_datetime(["2024-01-01T12:00Z"]))
    for zone in ("Mars/Olympus", "Europe", "../etc/passwd"):
        with pytest.raises(ValueError, match="unknown time zone"):
            local_date(at, zone)
    with pytest.raises(ValueError, match="without a zone"):
        local_date(at.dt.tz_localize(None), "UTC")
    with pytest.raises(ValueError, match="2 zones or day starts for 1 instants"):
        local_date(at, pd.Series(["UTC", "UTC"]))
