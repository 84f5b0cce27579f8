"""Importing into a dataset: the same source twice changes no byte, a newer backup extends the same person."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from habitlab.cli import import_
from habitlab.dataset import Dataset, DatasetError
from habitlab.dataset.importers import import_source
from habitlab.dataset.importers.entries import Tracker, assemble
from habitlab.dataset.merge import merge
from tests.dataset import tracker_files as files

HABIT = [(1, "Run", 1, 1)]
TABLES = ("users", "habits", "habit_tracking", "adoptions")


def same(one: Dataset, other: Dataset) -> None:
    for table in TABLES:
        pd.testing.assert_frame_equal(one.table(table), other.table(table))


def from_entries(histories: list[dict[int, str]], times: int = 1, per: int = 1) -> Dataset:
    """A dataset of a habit each history, which gives statuses by day of January 2024."""
    names = [f"Habit {number}" for number in range(len(histories))]
    habits = pd.DataFrame({"name": names, "description": "", "times": float(times), "days": float(per)}, index=names)
    rows = [
        (name, pd.Timestamp(2024, 1, day), status)
        for name, days in zip(names, histories, strict=True)
        for day, status in days.items()
    ]
    entries = pd.DataFrame(rows, columns=["habit", "day", "status"])
    entries = entries.astype({"day": "datetime64[s]", "status": object}).assign(
        where="", shown="", value=np.nan, reason=None
    )
    return assemble(Tracker("an entry", habits, entries), "me", None).dataset


# Several habits an example, as to make a dataset costs more than to fill it.
history = st.dictionaries(st.integers(1, 31), st.sampled_from(["done", "missed", "skipped", "unknown"]), min_size=1)
histories = st.lists(history, min_size=8, max_size=8)
# Not shrunk: that takes minutes, and the habit that fails is told by its number.
quick = settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("loop-uhabits/loop.db", "out.db"),
        ("loop-uhabits/loop.db", "parquet"),
        ("loop-uhabits/csv_export", "out.db"),
        ("loop-uhabits/tickmate.db", "out.db"),
        ("loop-uhabits/rewire.db", "out.db"),
        ("loop-uhabits/habitbull3.csv", "out.db"),
        ("lifesnaps", "out.db"),
    ],
)
def test_the_same_source_twice_gives_the_same_bytes(shared_data: Path, source: str, name: str, tmp_path: Path):
    place = tmp_path / name

    def contents() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in ([place] if place.is_file() else sorted(place.iterdir()))}

    import_source(shared_data / source).dataset.save(place)
    once = contents()
    import_source(shared_data / source, into=Dataset.load(place)).dataset.save(place)
    assert contents() == once


def test_several_sources_merge_into_one_dataset_in_any_order(shared_data: Path):
    paths = [shared_data / "loop-uhabits" / name for name in ("loop.db", "habitbull2.csv", "rewire.db")]
    forth = back = None
    for path in paths:
        forth = import_source(path, into=forth).dataset
    for path in reversed(paths):
        back = import_source(path, into=back).dataset
    assert forth is not None
    assert back is not None
    pd.testing.assert_frame_equal(forth.habit_tracking, back.habit_tracking)
    assert forth.metadata["imports"] == back.metadata["imports"]
    assert len(forth.metadata["imports"]) == 3


def test_a_newer_backup_of_the_same_person_extends_them(tmp_path: Path):
    old = files.write_old_loop(tmp_path / "old", HABIT, [(1, "2024-01-01"), (1, "2024-01-03")])
    new = files.write_loop(
        tmp_path / "new",
        [(*HABIT[0], 0, 0, 0.0, ""), (2, "Read", 1, 1, 0, 0, 0.0, "")],
        [(1, "2024-01-01", 2), (1, "2024-01-03", 2), (1, "2024-01-05", 2), (2, "2024-01-05", 2)],
    )
    merged = import_source(new, into=import_source(old).dataset)
    same(merged.dataset, import_source(new).dataset)
    assert merged.dataset.users["user_id"].tolist() == ["me"]
    assert "3 rows of habit_tracking are new to the dataset, which had 3" in merged.report.notes
    same(import_source(old, into=merged.dataset).dataset, merged.dataset)


def test_two_people_stay_two(tmp_path: Path):
    ann = import_source(files.write_old_loop(tmp_path / "a", HABIT, [(1, "2024-01-01")]), user="ann").dataset
    both = import_source(
        files.write_old_loop(tmp_path / "b", [(1, "Run", 3, 7)], [(1, "2024-01-01")]), user="bo", into=ann
    ).dataset
    assert both.users["user_id"].tolist() == ["ann", "bo"]
    assert both.habits.set_index("habit_id")["target"].to_dict() == {"ann:run": "1/1", "bo:run": "3/7"}
    assert len(both.habit_tracking) == 2


def test_a_changed_target_stays_as_it_was_and_is_said(tmp_path: Path):
    first = import_source(files.write_old_loop(tmp_path / "a", HABIT, [(1, "2024-01-01")])).dataset
    second = import_source(files.write_old_loop(tmp_path / "b", [(1, "Run", 3, 7)], [(1, "2024-01-02")]), into=first)
    assert second.dataset.habits["target"].tolist() == ["1/1"]
    assert any("1 habits had another target before, which stays: me:run" in note for note in second.report.notes)


def test_real_people_are_not_mixed_with_simulated_ones(tmp_path: Path):
    path = files.write_old_loop(tmp_path / "a", HABIT, [(1, "2024-01-01")])
    with pytest.raises(DatasetError, match="holds simulated people"):
        import_source(path, into=Dataset(metadata={"simulated": True}))


class TestMerge:
    @quick
    @given(histories, histories)
    def test_tracking_does_not_depend_on_order_or_repetition(
        self, one: list[dict[int, str]], other: list[dict[int, str]]
    ):
        a, b = from_entries(one), from_entries(other)
        both = merge(a, b)
        pd.testing.assert_frame_equal(both.habit_tracking, merge(b, a).habit_tracking)
        same(merge(both, b), both)
        same(merge(both, both), both)

    @quick
    @given(histories, histories, st.integers(1, 4), st.integers(1, 9))
    def test_a_source_that_holds_an_older_one_gives_what_it_gives_alone(
        self, old: list[dict[int, str]], added: list[dict[int, str]], times: int, per: int
    ):
        newer = from_entries([more | days for days, more in zip(old, added, strict=True)], times, per)
        same(merge(from_entries(old, times, per), newer), newer)

    @quick
    @given(histories, histories)
    def test_of_two_stated_days_the_stronger_counts(self, one: list[dict[int, str]], other: list[dict[int, str]]):
        order = ["unknown", "missed", "skipped", "done"]
        rows = merge(from_entries(one), from_entries(other)).habit_tracking
        for number, both in enumerate(zip(one, other, strict=True)):
            stated = rows[~rows["derived"] & (rows["habit_id"] == f"me:habit-{number}")]
            assert dict(zip(stated["date"].dt.day, stated["status"].astype(str), strict=True)) == {
                day: max((days[day] for days in both if day in days), key=order.index) for day in {*both[0], *both[1]}
            }

    def test_events_are_never_overwritten_and_what_is_missing_is_filled_in(self):
        users, habits = pd.DataFrame({"user_id": ["u"]}), pd.DataFrame({"habit_id": ["h"]})
        shown = {"event_id": ["e1"], "user_id": ["u"], "habit_id": ["h"], "policy": ["first"], "response": [None]}
        later = shown | {"policy": ["second"], "response": ["accepted"]}
        old = Dataset(users=users, habits=habits, recommendations=pd.DataFrame(shown))
        new = Dataset(users=users.assign(age=30), habits=habits, recommendations=pd.DataFrame(later))
        merged = merge(old, new)
        assert merged.recommendations.loc[0, ["policy", "response"]].tolist() == ["first", "accepted"]
        assert merged.users["age"].tolist() == [30]
        same(merge(merged, new), merged)

    def test_lists_and_truths_survive(self):
        habits = pd.DataFrame({"habit_id": ["a", "b"], "activity_type": [["physical"], ["mental", "social"]]})
        users = pd.DataFrame({"user_id": ["u"], "goal_set": [True], "existing_habits": [["a"]]})
        merged = merge(Dataset(users=users, habits=habits), Dataset(users=users, habits=habits[:1]))
        assert merged.habits["activity_type"].tolist() == [["physical"], ["mental", "social"]]
        assert merged.users["goal_set"].tolist() == [True]


def test_two_imports_at_once_both_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Dataset.load

    def slow(path: Path) -> Dataset:
        dataset = load(path)
        time.sleep(0.3)
        return dataset

    def call(person: str) -> None:
        path = files.write_old_loop(tmp_path / person, HABIT, [(1, "2024-03-01")])
        import_(path, tmp_path / "out" / "all.db", user=person)

    call("first")
    monkeypatch.setattr(Dataset, "load", slow)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(call, ["ann", "ben", "cy"]))
    assert load(tmp_path / "out" / "all.db").users["user_id"].tolist() == ["ann", "ben", "cy", "first"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all.db"]
