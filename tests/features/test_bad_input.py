"""Empty, small and broken tables of habit time."""

import pandas as pd
import pytest

from habitlab.dataset import Dataset, DatasetError, MissingColumn
from habitlab.features.temporal import (
    completion_hours,
    history,
    streaks,
    summary,
    time_of_day,
    weekday_effects,
    weekday_profile,
)
from tests.features.tracking import habits, track


def test_empty_tables_give_empty_features():
    empty = Dataset()
    assert len(history(empty.habit_tracking, empty.habits)) == 0
    assert len(streaks(empty.habit_tracking, empty.habits)) == 0
    assert len(summary(empty.habit_tracking, empty.habits)) == 0
    assert len(time_of_day(completion_hours(empty.habit_tracking, empty.users))) == 0
    assert len(weekday_profile(empty.habit_tracking)) == 0
    assert weekday_effects(empty.habit_tracking)["effect"].isna().all()


def test_the_columns_are_the_same_with_and_without_rows():
    for features in (history, summary, weekday_profile, weekday_effects):
        some, none = features(track("1011")), features(track("1011").iloc[:0])
        assert some.dtypes.to_dict() == none.dtypes.to_dict()


def test_one_row_and_nothing_known():
    assert streaks(track("1")).tolist() == [1]
    row = summary(track("????")).iloc[0]
    assert row["streak"] == 0
    assert pd.isna(row["completion_rate"])
    assert pd.isna(row["mean_run"])
    assert row["completion_rate_shrunk"] == 0.5
    assert weekday_profile(track("????"))["rate"].isna().all()


def test_a_habit_without_a_target_is_daily():
    assert streaks(track("11"), pd.DataFrame({"habit_id": ["h"]})).tolist() == [1, 2]
    assert streaks(track("11"), habits("1/7", habit="another")).tolist() == [1, 2]


def test_the_callers_frame_stays_as_it_was():
    rows = track("1101")[::-1]
    copy = rows.copy(deep=True)
    history(rows, habits("3/7"))
    summary(rows)
    pd.testing.assert_frame_equal(rows, copy)


@pytest.mark.parametrize("features", [history, streaks, summary, weekday_profile])
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.drop(columns="status"), MissingColumn, "needs `status` in `habit_tracking`"),
        (lambda t: t.drop(columns="date"), MissingColumn, "needs `date`"),
        (lambda t: t.assign(date=pd.NaT), DatasetError, "date: missing in 2 rows"),
        (lambda t: t.assign(date="soon"), DatasetError, "not a date"),
        (lambda t: t.assign(date=t["date"].dt.tz_localize("UTC")), DatasetError, "local days"),
        (lambda t: t.assign(status="finished"), DatasetError, "'finished' is not one of"),
        (lambda t: t.assign(status=1), DatasetError, "1 is not one of"),
        (lambda t: t.assign(user_id=pd.Series([None, "u"], dtype="str")), DatasetError, "user_id: missing in 1 rows"),
    ],
)
def test_broken_rows_are_named(features, change, error, words):
    with pytest.raises(error, match=words):
        features(change(track("11")))


def test_broken_arguments_are_named():
    with pytest.raises(DatasetError, match="'often' is no target"):
        history(track("1"), habits("often"))
    with pytest.raises(DatasetError, match="more than once"):
        history(track("1"), pd.concat([habits("1/1"), habits("1/7")]))
    with pytest.raises(ValueError, match="week_start"):
        history(track("1"), week_start=7)
    with pytest.raises(ValueError, match="unknown is"):
        history(track("1"), unknown="drop")
    with pytest.raises(ValueError, match="half_life"):
        history(track("1"), half_life=0)
    with pytest.raises(ValueError, match="local day without a zone"):
        summary(track("1"), until=pd.Timestamp("2024-01-01", tz="UTC"))
    with pytest.raises(ValueError, match="level"):
        summary(track("1"), level=95)
    with pytest.raises(MissingColumn, match="needs `at`"):
        completion_hours(track("1"), pd.DataFrame({"user_id": ["u"], "zone": ["UTC"]}))
    with pytest.raises(MissingColumn, match="needs `zone`"):
        completion_hours(track("1").assign(at=pd.NaT), pd.DataFrame({"user_id": ["u"]}))
