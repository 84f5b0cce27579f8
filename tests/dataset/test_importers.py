"""The importers on the real files: what is in each, and where every row of it went."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset, check
from habitlab.dataset.importers import ImportResult, detect, import_source
from habitlab.dataset.importers.entries import CONFLICTING, IMPLIED, REPEATED
from habitlab.dataset.importers.lifesnaps import NO_HABIT

SOURCES = {
    "loop-uhabits/loop.db": ("loop", 164, 124),
    "loop-uhabits/databases/021.db": ("loop", 3, 3),
    "loop-uhabits/databases/022.db": ("loop", 1, 1),
    "loop-uhabits/csv_export": ("loop-csv", 30, 17),
    "loop-uhabits/tickmate.db": ("tickmate", 82, 68),
    "loop-uhabits/rewire.db": ("rewire", 61, 61),
    "loop-uhabits/habitbull.csv": ("habitbull", 18, 14),
    "loop-uhabits/habitbull2.csv": ("habitbull", 81, 81),
    "loop-uhabits/habitbull3.csv": ("habitbull", 10, 10),
    "loop-uhabits/habitbull4.csv": ("habitbull", 2, 2),
    "lifesnaps": ("lifesnaps", 7410, 7033),
}


@pytest.fixture(scope="module")
def imported(shared_data: Path) -> Callable[[str], ImportResult]:
    """Import a source once for all tests of this file."""
    return cache(lambda source: import_source(shared_data / source))


def statuses(dataset: Dataset, habit: str, user: str = "me") -> dict[str, int]:
    """Days of one habit by status."""
    rows = dataset.habit_tracking
    counts = rows[rows["habit_id"] == f"{user}:{habit}"]["status"].astype(str).value_counts()
    return {str(status): int(count) for status, count in counts.items()}


def on_day(dataset: Dataset, habit: str, day: str) -> str:
    rows = dataset.habit_tracking
    found = rows[(rows["habit_id"] == f"me:{habit}") & (rows["date"] == day)]["status"].astype(str).tolist()
    return found[0] if found else "no row"


@pytest.mark.parametrize("source", SOURCES)
def test_every_row_of_a_real_source_is_imported_or_counted_as_skipped(shared_data: Path, imported, source: str):
    kind, rows, kept = SOURCES[source]
    result = imported(source)
    report = result.report
    assert detect(shared_data / source) == kind == report.format
    assert (report.rows, report.imported) == (rows, kept)
    assert report.imported + sum(report.skipped.values()) == report.rows
    assert all(len(report.examples[reason]) == min(5, n) for reason, n in report.skipped.items())
    assert result.dataset.metadata["imports"] == [report.as_dict()]
    check(result.dataset)


@pytest.mark.parametrize("source", SOURCES)
def test_tracking_rows_are_the_imported_and_the_derived_ones(imported, source: str):
    result = imported(source)
    tracking = result.dataset.habit_tracking
    derived = tracking[tracking["derived"]]["status"].astype(str).value_counts().to_dict()
    assert derived == result.report.derived
    assert not (tracking["derived"] & (tracking["status"] == "done")).any()
    if result.report.format != "lifesnaps":  # there, a person-day gives several rows
        assert len(tracking) == result.report.imported + sum(result.report.derived.values())


def test_reading_leaves_no_file_beside_the_source_and_does_not_change_it(shared_data: Path, tmp_path: Path):
    copy = tmp_path / "loop.db"
    copy.write_bytes((shared_data / "loop-uhabits" / "loop.db").read_bytes())
    before = copy.stat().st_mtime_ns
    import_source(copy)
    assert [file.name for file in tmp_path.iterdir()] == ["loop.db"]
    assert copy.stat().st_mtime_ns == before


class TestLoopBackup:
    def test_habits_listed_twice_are_one_habit_and_say_so(self, shared_data: Path):
        result = import_source(shared_data / "loop-uhabits" / "loop.db")
        names = result.dataset.habits["name_en"].tolist()
        assert sorted(names) == ["I love you", "Sleep early", "Sport", "Vegan", "Wake up early", "brush teeth"]
        assert result.report.skipped == {REPEATED: 40}
        assert any("Vegan, Sport, I love you" in note for note in result.report.notes)
        # Ids 21 and 24 are both Vegan; the days of the former are among the 43 of the latter.
        assert statuses(result.dataset, "vegan") == {"done": 43, "missed": 15}

    def test_days_the_app_calls_implied_are_never_called_missed(self, shared_data: Path):
        path = shared_data / "loop-uhabits" / "loop.db"
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            marks = pd.read_sql_query(
                "SELECT lower(replace(name, ' ', '-')) habit, date(timestamp / 1000, 'unixepoch') day, value "
                "FROM Checkmarks JOIN Habits ON Habits.Id = Checkmarks.habit",
                connection,
            )
        dataset = import_source(path).dataset
        rows = dataset.habit_tracking
        missed = rows[rows["status"] == "missed"]
        missed = set(
            zip(missed["habit_id"].str.removeprefix("me:"), missed["date"].dt.strftime("%Y-%m-%d"), strict=True)
        )
        implied = set(marks[marks["value"] == 1][["habit", "day"]].itertuples(index=False, name=None))
        done = set(marks[marks["value"] == 2][["habit", "day"]].itertuples(index=False, name=None))
        assert len(implied) == 40
        assert missed
        assert not missed & implied
        assert not missed & done

    def test_targets(self, shared_data: Path):
        habits = import_source(shared_data / "loop-uhabits" / "loop.db").dataset.habits.set_index("habit_id")
        assert habits["target"].to_dict() == {
            "me:brush-teeth": "3/7",
            "me:i-love-you": "1/1",
            "me:sleep-early": "1/5",
            "me:sport": "1/1",
            "me:vegan": "1/1",
            "me:wake-up-early": "3/7",
        }

    def test_an_adoption_begins_with_the_first_known_day(self, shared_data: Path):
        adoptions = import_source(shared_data / "loop-uhabits" / "loop.db").dataset.adoptions.set_index("habit_id")
        assert adoptions.loc["me:vegan", "adopted_at"] == pd.Timestamp("2016-01-24", tz="UTC")
        assert (adoptions["source"] == "imported").all()


def test_tickmate_and_loop_tell_the_same_of_the_same_person(shared_data: Path):
    """The person behind these two files moved from the one to the other."""
    loop = import_source(shared_data / "loop-uhabits" / "loop.db").dataset
    tickmate = import_source(shared_data / "loop-uhabits" / "tickmate.db").dataset
    for habit in ("vegan", "sport", "i-love-you"):
        assert statuses(loop, habit) == statuses(tickmate, habit)
    assert on_day(tickmate, "sport", "2016-03-20") == "done"  # months count from 0


def test_ticks_of_one_day_are_its_value(shared_data: Path):
    rows = import_source(shared_data / "loop-uhabits" / "tickmate.db").dataset.habit_tracking
    vegan = rows[(rows["habit_id"] == "me:vegan") & (rows["status"] == "done")].set_index("date")["value"]
    assert vegan["2016-03-13"] == 5
    assert vegan.sum() == 57
    assert rows[rows["habit_id"] == "me:sport"]["value"].isna().all()


def test_loop_csv_export(shared_data: Path):
    result = import_source(shared_data / "loop-uhabits" / "csv_export")
    # YES_AUTO days were not scheduled and have no row; UNKNOWN is not NO.
    assert statuses(result.dataset, "wake-up-early") == {"done": 6, "missed": 1}
    assert statuses(result.dataset, "meditate") == {"unknown": 10}
    assert on_day(result.dataset, "wake-up-early", "2015-01-24") == "missed"
    assert on_day(result.dataset, "wake-up-early", "2015-01-23") == "no row"
    assert result.report.skipped == {REPEATED: 7, IMPLIED: 6}
    assert result.report.derived == {}
    assert result.dataset.adoptions["habit_id"].tolist() == ["me:wake-up-early"]


def test_rewire(shared_data: Path):
    result = import_source(shared_data / "loop-uhabits" / "rewire.db")
    assert result.dataset.habits.set_index("habit_id")["target"].to_dict() == {
        "me:brush-teeth": "3/7",
        "me:sleep-early": "1/5",
        "me:wake-up-early": "3/7",
    }
    # Three missed are stated; its 15 others are the Mondays, Wednesdays and Fridays of February 2016 and 2, 4 March.
    assert statuses(result.dataset, "wake-up-early") == {"done": 33, "missed": 18, "skipped": 2}
    rows = result.dataset.habit_tracking
    derived = rows[rows["derived"] & (rows["habit_id"] == "me:wake-up-early")]["date"]
    assert set(derived.dt.day_of_week) == {0, 2, 4}
    assert (derived.min(), derived.max()) == (pd.Timestamp("2016-02-01"), pd.Timestamp("2016-03-04"))


class TestHabitBull:
    def test_a_habit_listed_twice(self, shared_data: Path):
        result = import_source(shared_data / "loop-uhabits" / "habitbull.csv")
        assert result.report.skipped == {REPEATED: 4}
        assert statuses(result.dataset, "no-arms-pushup") == {"done": 4, "missed": 3}
        assert result.dataset.habits["category"].tolist() == ["diet", "mindfulness", "physical", "productivity"]

    def test_months_first_and_skipped_days(self, shared_data: Path):
        result = import_source(shared_data / "loop-uhabits" / "habitbull2.csv")
        assert statuses(result.dataset, "h2") == {"skipped": 1}
        assert statuses(result.dataset, "h3") == {"done": 57, "missed": 9}
        assert on_day(result.dataset, "h3", "2019-04-13") == "missed"
        assert on_day(result.dataset, "h1", "2020-11-05") == "done"
        assert any("month/day/year" in note for note in result.report.notes)

    def test_measured_habits(self, shared_data: Path):
        result = import_source(shared_data / "loop-uhabits" / "habitbull3.csv")
        rows = result.dataset.habit_tracking
        pushups = rows[(rows["habit_id"] == "me:pushups") & ~rows["derived"]]
        assert pushups["value"].tolist() == [30.0] + [100.0] * 6
        assert (pushups["status"] == "done").all()
        assert rows[rows["habit_id"] == "me:run"]["value"].isna().all()


@pytest.fixture(scope="module")
def result(imported):
    return imported("lifesnaps")


@pytest.fixture(scope="module")
def source(shared_data: Path) -> pd.DataFrame:
    frame = pd.read_csv(shared_data / "lifesnaps" / "daily_fitbit_sema_df_unprocessed.csv", low_memory=False)
    return frame.assign(user_id="u" + frame["id"].astype(str), date=pd.to_datetime(frame["date"]))


class TestLifeSnaps:
    def test_people(self, result, source: pd.DataFrame):
        users = result.dataset.users.set_index("user_id")
        assert len(users) == 71
        people = source.groupby("user_id")[["age", "gender"]].first()
        assert users["age_band"].fillna("").to_dict() == people["age"].fillna("").to_dict()
        assert users["gender"].astype(str).str.upper().fillna("").to_dict() == people["gender"].fillna("").to_dict()
        assert "age" not in users or users["age"].isna().all()

    def test_a_day_the_band_was_not_worn_is_unknown_unless_something_was_done(self, result, source: pd.DataFrame):
        unworn = source[source["bpm"].isna() & ~(source["steps"] > 0)][["user_id", "date"]]
        rows = result.dataset.habit_tracking.merge(unworn, on=["user_id", "date"])
        assert len(unworn) == 2565
        assert set(rows["status"].astype(str)) == {"unknown", "done"}
        assert not (rows[rows["habit_id"] == "lifesnaps:step-goal"]["status"] == "done").any()

    def test_the_step_goal_is_reached_or_missed_where_goal_and_steps_are_known(self, result, source: pd.DataFrame):
        goal = pd.to_numeric(source["step_goal"], errors="coerce")
        known = source[goal.notna() & source["steps"].notna() & (source["bpm"].notna() | (source["steps"] > 0))]
        expected = np.where(known["steps"] >= goal[known.index], "done", "missed")
        rows = result.dataset.habit_tracking
        rows = rows[rows["habit_id"] == "lifesnaps:step-goal"]
        found = known[["user_id", "date"]].merge(rows, on=["user_id", "date"], how="left")
        assert found["status"].astype(str).tolist() == expected.tolist()
        assert len(rows[rows["status"].isin(["done", "missed"])]) == len(known)

    def test_every_activity_and_session_is_done_once(self, result, source: pd.DataFrame):
        done = result.dataset.habit_tracking.query("status == 'done'")["habit_id"].value_counts()
        assert done["lifesnaps:mindfulness-session"] == (source["mindfulness_session"] == True).sum() == 115  # noqa: E712
        assert done["lifesnaps:walk"] == source["activityType"].str.contains("'Walk'").sum() == 1696
        assert len(result.dataset.habits) == 18 + 2

    def test_nothing_counts_before_a_person_first_did_it(self, result):
        rows = result.dataset.habit_tracking
        rows = rows[rows["habit_id"] != "lifesnaps:step-goal"].sort_values("date")
        assert (rows.groupby(["user_id", "habit_id"])["status"].first() == "done").all()

    def test_what_is_skipped(self, result):
        assert result.report.skipped == {NO_HABIT: 377}
        assert CONFLICTING not in result.report.skipped


def test_importing_a_folder_of_many_sources_asks_for_one(shared_data: Path):
    with pytest.raises(ValueError, match=r"holds several sources, name one of them: .*021\.db \(loop\)"):
        detect(shared_data / "loop-uhabits")


@pytest.mark.parametrize("folder", ["movielens-latest-small", "habitlab-browser", "open-bandit-men"])
def test_other_data_are_of_no_known_format(shared_data: Path, folder: str):
    with pytest.raises(ValueError, match=r"of no known format\. Looked for: .*HabitName.* Found: "):
        detect(shared_data / folder)
