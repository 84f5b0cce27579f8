"""Data quality on datasets so small that the answers can be read off them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from habitlab.dataset import Dataset, quality
from habitlab.dataset.analyses import analyses
from habitlab.dataset.schema import TABLES

FUNCTIONS = [getattr(quality, name) for name in quality.__all__]


def tracking(rows: list[tuple], columns: str = "user_id habit_id date status") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def month(user: str, done: int, *, status: str = "missed", habit: str = "walk", days: int = 28) -> list[tuple]:
    """Days of one user from Monday 6 January 2025 on: the first `done` are done, the others `status`."""
    dates = pd.date_range("2025-01-06", periods=days).strftime("%Y-%m-%d")
    return [(user, habit, date, "done" if i < done else status) for i, date in enumerate(dates)]


def dataset(rows: list[tuple], **tables: pd.DataFrame) -> Dataset:
    frame = tracking(rows)
    users = tables.pop("users", pd.DataFrame({"user_id": frame["user_id"].unique()}))
    habits = tables.pop("habits", pd.DataFrame({"habit_id": frame["habit_id"].unique()}))
    frame = tables.pop("habit_tracking", frame)
    return Dataset(users=users, habits=habits, habit_tracking=frame, **tables)


def line(found: pd.DataFrame, **where: str) -> pd.Series:
    """The one row in which the columns have these values."""
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, found
    return found.iloc[0]


# It goes on whatever the data lack


def no_rows_at_all() -> Dataset:
    return Dataset()


def no_columns_at_all() -> Dataset:
    return Dataset(**{name: pd.DataFrame() for name in TABLES})


def keys_alone() -> Dataset:
    return dataset([("ann", "walk", "2025-01-06", "done")])


def one_column_of_each_table() -> Dataset:
    return Dataset(**{name: pd.DataFrame({table.key[0]: ["a", "b"]}) for name, table in TABLES.items()})


def every_cell_missing() -> Dataset:
    return Dataset(**{name: pd.DataFrame({c: [None] * 12 for c in table.columns}) for name, table in TABLES.items()})


def nonsense_in_every_cell() -> Dataset:
    return Dataset(**{name: pd.DataFrame({c: ["?"] * 12 for c in table.columns}) for name, table in TABLES.items()})


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "make",
    [
        no_rows_at_all,
        no_columns_at_all,
        keys_alone,
        one_column_of_each_table,
        every_cell_missing,
        nonsense_in_every_cell,
    ],
)
def test_every_function_goes_on(function, make):
    assert isinstance(function(make()), pd.DataFrame)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_columns_do_not_depend_on_the_data(function):
    full = dataset(month("ann", 20) + month("ben", 5, status="unknown"))
    assert list(function(full).columns) == list(function(Dataset()).columns)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_dataset_stays_as_it_was(function):
    data = dataset(month("ann", 20) + month("ben", 5, status="unknown"))
    before = data.habit_tracking.copy()
    function(data)
    pd.testing.assert_frame_equal(data.habit_tracking, before)


# What is in the data


def test_the_inventory_counts_rows_users_habits_and_days():
    data = dataset(month("ann", 3, days=7) + month("ben", 3, habit="read", days=5))
    found = line(quality.inventory(data), table="habit_tracking")
    assert (found["rows"], found["users"], found["habits"]) == (12, 2, 2)
    assert (found["first"], found["last"]) == (pd.Timestamp("2025-01-06"), pd.Timestamp("2025-01-12"))


def test_the_inventory_tells_filled_from_empty_from_absent_columns():
    users = pd.DataFrame({"user_id": ["ann", "ben"], "age": [30, None], "zone": [None, None]})
    found = line(quality.inventory(dataset(month("ann", 3), users=users)), table="users")
    assert found["filled"] == ["user_id", "age"]
    assert found["empty"] == ["zone"]
    assert "gender" in found["absent"]


def test_a_broken_contract_is_a_row_and_not_an_error():
    users = pd.DataFrame({"user_id": ["ann", "ben"], "age": [7, 200]})
    found = line(quality.contract(dataset(month("ann", 3), users=users)), table="users", column="age")
    assert found["rows"] == 2
    assert "ann" in found["first"]


def test_coverage_has_a_row_for_every_day_also_for_empty_ones():
    rows = [
        ("ann", "walk", "2025-01-06", "done"),
        ("ann", "read", "2025-01-06", "missed"),
        ("ben", "walk", "2025-01-06", "skipped"),
        ("ben", "walk", "2025-01-08", "unknown"),
    ]
    found = quality.coverage(dataset(rows))
    assert list(found.index) == list(pd.date_range("2025-01-06", "2025-01-08"))
    assert found.to_dict("list") == {
        "scheduled": [3, 0, 1],
        "done": [1, 0, 0],
        "missed": [1, 0, 0],
        "skipped": [1, 0, 0],
        "unknown": [0, 0, 1],
        "users": [2, 0, 1],
        "users_done": [1, 0, 0],
    }


def test_coverage_equals_a_plain_groupby():
    generator = np.random.default_rng(5)
    rows = tracking(
        [
            (f"u{generator.integers(9)}", f"h{generator.integers(3)}", day, status)
            for day, status in zip(
                pd.Timestamp("2025-01-01") + pd.to_timedelta(generator.integers(0, 40, 500), unit="D"),
                generator.choice(["done", "missed", "skipped", "unknown"], 500),
                strict=True,
            )
        ]
    )
    found = quality.coverage(Dataset(habit_tracking=rows))
    days = found[found["scheduled"] > 0]
    by_day = rows.groupby("date")
    assert days["scheduled"].tolist() == by_day.size().tolist()
    assert days["users"].tolist() == by_day["user_id"].nunique().tolist()
    for status in ("done", "missed", "skipped", "unknown"):
        assert days[status].tolist() == by_day["status"].agg(lambda s, status=status: (s == status).sum()).tolist()


# What is missing


def many(ages: list[float | None], done: list[int]) -> Dataset:
    """A user for each age, who does the habit on so many of 28 days."""
    names = [f"u{i:02d}" for i in range(len(ages))]
    rows = [row for name, days in zip(names, done, strict=True) for row in month(name, days)]
    return dataset(rows, users=pd.DataFrame({"user_id": names, "age": ages}))


def test_missing_ages_are_informative_when_those_who_hide_them_complete_less():
    data = many([None] * 12 + [30] * 12, [6, 7, 8] * 4 + [20, 21, 22] * 4)
    found = line(quality.missingness(data), table="users", column="age")
    assert (found["missing"], found["expected"], found["share"]) == (12, 24, 0.5)
    assert (found["rate_missing"], found["rate_filled"]) == (pytest.approx(7 / 28), pytest.approx(21 / 28))
    assert found["difference"] == pytest.approx(-0.5)
    assert found["ci_high"] < 0
    assert found["verdict"] == "informative"


def test_the_interval_over_users_is_welchs():
    hidden, told = [3, 9, 14, 22, 25, 8, 11, 20, 2, 27], [15, 16, 20, 14, 18, 19, 12, 11, 23, 17, 16, 15]
    found = line(
        quality.missingness(many([None] * len(hidden) + [30] * len(told), hidden + told), level=0.9),
        table="users",
        column="age",
    )
    welch = stats.ttest_ind(np.array(hidden) / 28, np.array(told) / 28, equal_var=False)
    interval = welch.confidence_interval(0.9)
    assert [found["ci_low"], found["ci_high"]] == pytest.approx([interval.low, interval.high])
    assert found["p_value"] == pytest.approx(welch.pvalue)
    assert found["verdict"] == "no difference seen"


def test_few_users_on_one_side_cannot_be_judged():
    found = line(quality.missingness(many([None] * 3 + [30] * 20, [2] * 3 + [25] * 20)), table="users", column="age")
    assert found["verdict"] == "cannot tell: users on the two sides: 3 and 20, 10 needed on each"
    withheld = ["ci_low", "difference", "rate_missing", "rate_filled"]
    assert found[withheld].isna().all(), "what three people did who told no age is theirs"


def test_users_who_all_do_the_same_cannot_be_judged():
    found = line(quality.missingness(many([None] * 12 + [30] * 12, [14] * 24)), table="users", column="age")
    assert found["verdict"] == "cannot tell: nothing varies between users"


def test_columns_are_complete_empty_or_absent():
    users = pd.DataFrame({"user_id": ["ann", "ben"], "age": [30, 40], "zone": [None, None]})
    found = quality.missingness(dataset(month("ann", 3) + month("ben", 4), users=users))
    verdicts = found[found["table"] == "users"].set_index("column")["verdict"]
    assert (verdicts["age"], verdicts["zone"], verdicts["gender"]) == ("complete", "empty", "absent")


def test_the_time_of_a_habit_is_expected_only_where_it_was_done():
    rows = tracking(month("ann", 10)).assign(at=lambda r: pd.to_datetime(r["date"] + "T07:00Z").where(r.index < 8))
    found = line(
        quality.missingness(dataset(month("ann", 10), habit_tracking=rows)), table="habit_tracking", column="at"
    )
    assert (found["rows"], found["expected"], found["missing"]) == (28, 10, 2)


def test_a_value_is_expected_only_of_measured_habits():
    rows = month("ann", 28, habit="steps", days=10) + month("ann", 28, habit="walk", days=10)
    frame = tracking(rows).assign(value=[8000.0] * 7 + [None] * 13)
    found = line(quality.missingness(dataset(rows, habit_tracking=frame)), table="habit_tracking", column="value")
    assert (found["expected"], found["missing"]) == (10, 3)


def test_an_empty_end_of_an_adoption_is_an_answer():
    adoptions = pd.DataFrame({"user_id": ["ann"], "habit_id": ["walk"], "adopted_at": ["2025-01-06T00:00Z"]})
    adoptions["abandoned_at"] = pd.NaT
    found = quality.missingness(dataset(month("ann", 3), adoptions=adoptions))
    assert line(found, table="adoptions", column="abandoned_at")["verdict"] == "empty means: still held"


def test_many_rows_of_few_people_do_not_make_missing_times_informative():
    """Two users who never record a time give hundreds of rows without one, and still are two users."""
    rows = [row for i in range(20) for row in month(f"u{i:02d}", 4 if i < 2 else 20 + i % 5)]
    frame = tracking(rows).assign(
        at=lambda r: pd.to_datetime(r["date"] + "T07:00Z").where(~r["user_id"].isin(["u00", "u01"]))
    )
    found = line(quality.missingness(dataset(rows, habit_tracking=frame)), table="habit_tracking", column="at")
    assert found["n_missing"] == 2
    assert found["verdict"].startswith("cannot tell")


def test_false_discoveries_are_held_over_all_columns():
    """Columns emptied at random: their q-values are those of Benjamini and Hochberg, and none is informative."""
    generator = np.random.default_rng(2)
    names = [f"u{i:03d}" for i in range(120)]
    optional = [name for name, column in TABLES["users"].columns.items() if column.kind in ("text", "number", "whole")]
    users = pd.DataFrame({"user_id": names})
    for column in optional[1:]:
        users[column] = pd.Series([20] * 120, dtype=object).where(generator.random(120) < 0.5, None)
    rows = [row for name in names for row in month(name, int(generator.integers(0, 29)))]
    found = quality.missingness(dataset(rows, users=users))
    tested = found.dropna(subset=["p_value"])
    assert len(tested) >= 4
    assert tested["q_value"].tolist() == pytest.approx(stats.false_discovery_control(tested["p_value"]).tolist())
    assert set(tested["verdict"]) == {"no difference seen"}


# Unknown days


def test_without_unknown_days_there_is_nothing_to_say():
    assert quality.unknown_days(dataset(month("ann", 20))).empty


def test_unknown_sundays_are_seen():
    rows = []
    for i in range(30):
        for user, habit, date, status in month(f"u{i:02d}", 14 + i % 7):
            sunday = pd.Timestamp(date).day_of_week == 6
            rows.append((user, habit, date, "unknown" if sunday and (i + len(rows)) % 3 else status))
    found = quality.unknown_days(dataset(rows))
    sunday = line(found, about="Sunday")
    assert sunday["verdict"] == "associated"
    assert sunday["rate_1"] > 0.5
    assert sunday["rate_0"] == 0
    assert not (found.loc[found["about"] == "Monday", "difference"] > 0).any()


def test_days_unknown_towards_the_end_are_seen():
    rows = [row for i in range(15) for row in month(f"u{i:02d}", 20 + i % 4, status="unknown")]
    late = line(quality.unknown_days(dataset(rows)), about="second half of a user's days")
    assert late["rate_0"] == 0
    assert late["difference"] == pytest.approx(np.mean([8 - i % 4 for i in range(15)]) / 14)
    assert late["verdict"] == "associated"


def test_unknown_days_of_people_who_complete_less_are_seen():
    """Half complete 1 day in 4 and leave a week unknown, half complete 3 in 4 and leave nothing unknown."""
    rows = []
    for i in range(24):
        days = month(f"u{i:02d}", (4 if i < 12 else 20) + i % 3)
        rows += [(*day[:3], "unknown") if i < 12 and 10 <= k < 17 else day for k, day in enumerate(days)]
    completion = line(quality.unknown_days(dataset(rows)), about="completion")
    assert (completion["n_1"], completion["n_0"]) == (12, 24)
    assert completion["rate_1"] < 0.3
    assert completion["verdict"] == "associated"


def test_the_errors_are_those_of_leaving_out_one_user_after_the_other():
    generator = np.random.default_rng(3)
    data = dataset([row for i in range(14) for row in month(f"u{i:02d}", 0)])
    lost = generator.random((14, 28)) < generator.beta(2, 4, 14)[:, None]
    status = np.where(lost, "unknown", "done").ravel()
    found = quality.unknown_days(data.replace(habit_tracking=data.habit_tracking.assign(status=status)))
    late = line(found, about="second half of a user's days")

    def difference(lost: np.ndarray) -> float:
        return lost[:, 14:].mean() - lost[:, :14].mean()

    without = np.array([difference(np.delete(lost, i, axis=0)) for i in range(14)])
    error = np.sqrt(13 / 14 * ((without - difference(lost)) ** 2).sum())
    reach = stats.t.ppf(0.975, 13) * error
    assert late["difference"] == pytest.approx(difference(lost))
    assert [late["ci_low"], late["ci_high"]] == pytest.approx([difference(lost) - reach, difference(lost) + reach])


def test_few_unknown_days_cannot_be_judged_by_weekday():
    """Twenty users with one unknown day each: some three of them are expected on a Sunday."""
    rows = [
        (*day[:3], "unknown") if k == i % 28 else day
        for i in range(20)
        for k, day in enumerate(month(f"u{i:02d}", 5 + i))
    ]
    sunday = line(quality.unknown_days(dataset(rows)), about="Sunday")
    assert sunday["verdict"] == "cannot tell: 2.9 unknown days expected on a side, 10 needed"


def test_one_user_cannot_be_judged():
    found = quality.unknown_days(dataset(month("ann", 20, status="unknown")))
    assert found["verdict"].str.startswith("cannot tell").all()


def test_days_unknown_at_random_are_rarely_called_associated():
    alarms = 0
    # People track for 7 to 84 days: those with many rows must not pass for many people.
    data = dataset([row for i in range(30) for row in month(f"u{i:02d}", 0, days=(7, 14, 84)[i % 3])])
    rows = len(data.habit_tracking)
    for seed in range(30):
        generator = np.random.default_rng(seed)
        status = generator.choice(["unknown", "done", "missed"], rows, p=[0.1, 0.5, 0.4])
        found = quality.unknown_days(data.replace(habit_tracking=data.habit_tracking.assign(status=status)))
        alarms += (found["verdict"] == "associated").any()
    assert alarms <= stats.binom.ppf(0.999, 30, 0.05)


# What is odd


def test_repeated_and_conflicting_days_are_told_apart():
    rows = [
        ("ann", "walk", "2025-01-06", "done"),
        ("ann", "walk", "2025-01-06", "done"),
        ("ann", "walk", "2025-01-07", "done"),
        ("ann", "walk", "2025-01-07", "missed"),
        ("ann", "walk", "2025-01-08", "done"),
    ]
    found = quality.duplicates(dataset(rows))
    assert dict(zip(found["kind"], found["rows"], strict=True)) == {"conflicting": 2, "repeated": 1}
    assert "2025-01-07" in line(found, kind="conflicting")["first"]


def test_habits_of_one_name_are_told():
    habits = pd.DataFrame({"habit_id": ["a", "b", "c"], "name_en": ["Drink water", "drink  WATER!", "Read"]})
    found = line(quality.duplicates(Dataset(habits=habits)), kind="same name")
    assert found["rows"] == 2


def test_what_can_hardly_be_true_is_told():
    users = pd.DataFrame(
        {
            "user_id": ["ann", "ben", "cid"],
            "age": [7, 30, 200],
            "registered_at": ["2025-01-20T00:00Z", None, "1969-12-31"],
        }
    )
    habits = pd.DataFrame({"habit_id": ["walk"], "minutes": [0]})
    rows = [
        ("ann", "walk", "2025-01-18", "done", "2025-01-18T07:00Z", 10),
        ("ann", "walk", "2025-01-21", "done", "2025-02-21T07:00Z", 2000),
        ("ben", "walk", "1969-12-31", "missed", None, None),
        ("ben", "walk", "2025-03-01", "done", "2025-03-01T07:00Z", -5),
    ]
    frame = tracking(rows, "user_id habit_id date status at minutes")
    found = quality.suspicious(
        Dataset(users=users, habits=habits, habit_tracking=frame), today=pd.Timestamp("2025-02-28")
    )
    told = {(r.table, r.column, r.what): r.rows for r in found.itertuples()}
    assert told == {
        ("users", "age", "outside 13-120"): 2,
        ("users", "registered_at", "before 1970"): 1,
        ("habits", "minutes", "0 or less"): 1,
        ("habit_tracking", "date", "before 1970"): 1,
        ("habit_tracking", "date", "in the future"): 1,
        ("habit_tracking", "at", "in the future"): 1,
        ("habit_tracking", "at", "more than two days from its date"): 1,
        ("habit_tracking", "date", "before registration"): 1,
        ("habit_tracking", "minutes", "more than a day"): 1,
        ("habit_tracking", "minutes", "below 0"): 1,
    }


def test_today_may_have_a_time_zone_and_includes_itself():
    data = dataset([("ann", "walk", "2025-01-06", "done")])
    assert quality.suspicious(data, today=pd.Timestamp("2025-01-06T23:00", tz="Asia/Tokyo")).empty
    assert len(quality.suspicious(data, today=pd.Timestamp("2025-01-05"))) == 1


def test_a_day_years_apart_is_told_and_is_not_taken_for_today():
    rows = [row for i in range(10) for row in month(f"u{i}", 20)] + [("u0", "walk", "2052-01-06", "done")]
    sessions = pd.DataFrame(
        {"session_id": ["s"], "user_id": ["u0"], "started_at": ["2030-01-01T00:00Z"], "seconds": [60.0]}
    )
    found = quality.suspicious(dataset(rows, sessions=sessions))
    assert line(found, table="habit_tracking", what="years apart from the other days")["rows"] == 1
    assert line(found, table="sessions", what="in the future")["rows"] == 1


def test_clean_days_are_not_suspicious():
    assert quality.suspicious(dataset(month("ann", 20))).empty


def test_sessions_overlap_also_when_a_longer_one_began_before():
    sessions = pd.DataFrame(
        [
            ("long", "ann", "2025-01-06T10:00Z", 3600.0),
            ("inside", "ann", "2025-01-06T10:10Z", 60.0),
            ("still inside", "ann", "2025-01-06T10:50Z", 1200.0),
            ("after", "ann", "2025-01-06T11:10Z", 60.0),
            ("of another", "ben", "2025-01-06T10:10Z", 60.0),
        ],
        columns=["session_id", "user_id", "started_at", "seconds"],
    )
    found = quality.overlapping_sessions(Dataset(sessions=sessions))
    assert found[["session_id", "overlap"]].to_numpy().tolist() == [["inside", 60.0], ["still inside", 600.0]]


# What can be analysed


def test_a_dataset_with_everything_can_be_analysed_in_full():
    names = [f"u{i:02d}" for i in range(12)]
    rows = [row for name in names for habit in ("walk", "read") for row in month(name, 35, habit=habit, days=40)]
    users = pd.DataFrame(
        {
            "user_id": names,
            "age": range(20, 32),
            "gender": ["female", "male"] * 6,
            "zone": "Europe/Riga",
            "time_commitment": [5, 30] * 6,
            "goal_set": [True, False] * 6,
        }
    )
    habits = pd.DataFrame(
        {
            "habit_id": ["walk", "read"],
            "category": ["physical", "learning"],
            "minutes": [10, 40],
            "difficulty": [1, 4],
            "target": ["1/1", "1/7"],
        }
    )
    adoptions = pd.DataFrame(
        [(name, habit) for name in names for habit in ("walk", "read")][:-1], columns=["user_id", "habit_id"]
    ).assign(adopted_at="2025-01-06T00:00Z", abandoned_at=[None, "2025-02-20T00:00Z"] * 11 + [None])
    recommendations = pd.DataFrame(
        {
            "event_id": ["a", "b"],
            "user_id": "u00",
            "habit_id": "walk",
            "description_variant": ["clear", "vague"],
            "response": ["accepted", "viewed"],
        }
    )
    frame = tracking(rows).assign(at=lambda r: r["date"] + "T07:00Z")
    data = Dataset(
        users=users, habits=habits, habit_tracking=frame, adoptions=adoptions, recommendations=recommendations
    )
    found = analyses(data)
    assert found.loc[~found["can_run"], ["analysis", "why_not"]].to_numpy().tolist() == []
    assert set(found["caveat"]) == {""}

    no_gender = analyses(data.replace(users=users.drop(columns="gender")))
    refused = no_gender[~no_gender["can_run"]]
    assert refused["analysis"].tolist() == ["gender and category"]
    assert "needs `gender`" in refused["why_not"].iloc[0]


def test_an_analysis_says_everything_that_it_lacks():
    why = line(analyses(Dataset()), analysis="adoption cycle")["why_not"]
    assert "habit_tracking" in why
    assert "adoptions" in why


def test_a_short_study_has_no_adoption_cycle_but_a_weekday():
    adoptions = pd.DataFrame({"user_id": ["ann"], "habit_id": ["walk"], "adopted_at": ["2025-01-06T00:00Z"]})
    found = analyses(dataset(month("ann", 20), adoptions=adoptions))
    assert line(found, analysis="adoption cycle")["why_not"] == "needs 36 days of tracking; this dataset has 28"
    weekday = line(found, analysis="weekday")
    assert weekday["can_run"]
    assert weekday["caveat"] == "no intervals: 1 user, at least 10 are needed"


def test_one_kind_of_habit_cannot_be_compared():
    habits = pd.DataFrame({"habit_id": ["walk"], "category": ["physical"], "minutes": [20], "target": ["1/1"]})
    found = analyses(dataset(month("ann", 20), habits=habits)).set_index("analysis")["why_not"]
    assert found["category"] == "needs habits of two categories; this dataset has 1"
    assert found["duration"] == "needs habits in two bands of minutes; this dataset has 1"
    assert found["frequency"] == "needs table `adoptions`; this dataset has none"
