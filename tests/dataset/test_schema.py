"""The contract names table, column, rule, count and the first bad rows (1.1.a to 1.1.v)."""

import pandas as pd
import pytest

from habitlab.dataset import Dataset, DatasetError, MissingColumn, check, violations
from habitlab.dataset.schema import TABLES


def broken(dataset: Dataset, table: str, **columns: list) -> list[tuple[str, str, int]]:
    changed = dataset.replace(**{table: dataset.table(table).assign(**columns)})
    return [(v.column, v.rule, v.count) for v in violations(changed)]


def test_a_sound_dataset_passes(tiny: Dataset) -> None:
    assert violations(tiny) == []
    check(tiny)


def test_a_table_that_is_not_given_is_empty_with_the_right_columns(tiny: Dataset) -> None:
    assert tiny.sessions.empty
    assert list(tiny.sessions.columns) == list(TABLES["sessions"].columns)
    assert violations(Dataset()) == []


def test_missing_stays_missing(tiny: Dataset) -> None:
    assert pd.isna(tiny.users["age"][1])
    assert tiny.users["improvement_areas"][1] is None


def test_the_callers_frames_stay_as_they_were() -> None:
    users = pd.DataFrame({"user_id": [1, 2], "age": ["20", "30"]})
    before = users.copy(deep=True)
    assert Dataset(users=users).users["age"].tolist() == [20.0, 30.0]
    pd.testing.assert_frame_equal(users, before)


@pytest.mark.parametrize("age", [7, 12, 121, 200])
def test_ages_outside_13_to_120_are_refused(tiny: Dataset, age: int) -> None:
    assert broken(tiny, "users", age=[age, 20]) == [("age", "not between 13 and 120", 1)]


@pytest.mark.parametrize("age", [13, 120])
def test_the_ends_of_the_age_range_are_allowed(tiny: Dataset, age: int) -> None:
    assert broken(tiny, "users", age=[age, 20]) == []


@pytest.mark.parametrize(
    ("table", "columns", "expected"),
    [
        ("users", {"age": [20.5, 30]}, ("age", "not a whole number", 1)),
        ("users", {"age": ["young", "20"]}, ("age", "not a whole number", 1)),
        ("users", {"goal_set": ["yes", "no"]}, ("goal_set", "not true or false", 2)),
        ("users", {"registered_at": ["soon", "later"]}, ("registered_at", "not an instant like 2026-01-31T07:30Z", 2)),
        ("users", {"improvement_areas": [["Health"], []]}, ("improvement_areas", "not a list of career, diet", 1)),
        ("users", {"improvement_areas": ["health", []]}, ("improvement_areas", "not a list of career, diet", 1)),
        ("users", {"barriers": ["x" * 2001, "short"]}, ("barriers", "longer than 2000 characters", 1)),
        ("habits", {"category": ["Health", "diet"]}, ("category", "not one of health, diet", 1)),
        ("habits", {"difficulty": [0, 6]}, ("difficulty", "not between 1 and 5", 2)),
        ("habits", {"minutes": [0, 5]}, ("minutes", "not between 0.1 and 1440", 1)),
        ("habits", {"minutes": [float("inf"), 5]}, ("minutes", "not a number", 1)),
        ("habits", {"target": ["daily", "0/7"]}, ("target", "not times per days, like 1/1 or 3/7", 2)),
        ("habits", {"prerequisites": [[], ["h999"]]}, ("prerequisites", "not in table `habits`", 1)),
        ("habits", {"prerequisites": [["h002"], ["h001"]]}, ("prerequisites", "they form a circle", 2)),
        ("habits", {"min_age": [50, 13], "max_age": [20, 90]}, ("min_age", "above max_age", 1)),
        ("habit_tracking", {"status": ["done", "meh", None, "done", "done"]}, ("status", "not one of done, missed", 1)),
        ("habit_tracking", {"user_id": ["ann", "ann", "ann", "bob", "eve"]}, ("user_id", "not in table `users`", 1)),
        (
            "habit_tracking",
            {"date": ["2026-01-01"] * 5},
            ("user_id, habit_id, date", "the key stands more than once", 4),
        ),
        ("habit_tracking", {"date": ["x"] * 5}, ("date", "not a day like 2026-01-31", 5)),
    ],
)
def test_each_rule_is_named_with_its_count(tiny: Dataset, table: str, columns: dict, expected: tuple) -> None:
    column, rule, count = expected
    assert any(
        found == column and said.startswith(rule) and number == count
        for found, said, number in broken(tiny, table, **columns)
    ), broken(tiny, table, **columns)


def test_the_error_shows_where_to_look(tiny: Dataset) -> None:
    changed = tiny.replace(users=tiny.users.assign(age=[7, 8]))
    with pytest.raises(DatasetError, match=r"users\.age: not between 13 and 120: 2 bad rows.*user_id=ann, age=7"):
        check(changed)


def test_a_required_column_cannot_be_absent(tiny: Dataset) -> None:
    changed = tiny.replace(habit_tracking=tiny.habit_tracking.drop(columns="status"))
    assert str(*violations(changed)).startswith("habit_tracking.status: a required column is absent")


def test_an_analysis_can_ask_for_what_it_needs(tiny: Dataset) -> None:
    tiny.require("users.gender", "habit_tracking")
    with pytest.raises(MissingColumn, match=r"needs `zone` in `users`; this dataset has none"):
        tiny.require("users.zone")
    with pytest.raises(MissingColumn, match=r"needs table `sessions`; this dataset has none"):
        tiny.require("sessions.seconds")
    with pytest.raises(MissingColumn, match="gender"):
        tiny.replace(users=tiny.users.assign(gender=None)).require("users.gender")


def test_choices_are_text_for_those_who_compare_them(tiny: Dataset) -> None:
    assert (tiny.habit_tracking["status"] == "done").sum() == 2
    assert list(tiny.habit_tracking["status"].cat.categories) == ["done", "missed", "skipped", "unknown"]
