"""The dataset that the world logs: it keeps the contract, tells one story, and is always the same."""

import filecmp
import re

import numpy as np
import pandas as pd
import pytest

from habitlab import open_dataset, open_truth
from habitlab.cli import main
from habitlab.dataset import Dataset, DatasetError, violations
from habitlab.dataset.quality import overlapping_sessions
from habitlab.simulation import make_world, save, simulate, world_of

KEY = ["user_id", "habit_id"]


@pytest.fixture(scope="module")
def data():
    return simulate(users=400, days=120, seed=4)


def test_the_default_is_about_a_million_rows():
    assert 800_000 < len(simulate().habit_tracking) < 1_200_000


def test_it_keeps_the_contract(data):
    assert violations(data) == []
    assert data.simulated


@pytest.mark.parametrize("retention", ["trial", "wild"])
@pytest.mark.parametrize(("users", "days"), [(1, 1), (1, 120), (5, 1), (3, 2)])
def test_the_smallest_worlds_work(users, days, retention):
    data = simulate(users, days, seed=1, retention=retention)
    assert violations(data) == []
    assert len(data.users) == users
    assert len(data.habit_tracking) >= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": 0}, "users must be a whole number, 1 or more; it is 0"),
        ({"days": 0}, "days must be a whole number, 1 or more; it is 0"),
        ({"days": 1.5}, "days must be"),
        ({"users": "many"}, "users must be"),
        ({"seed": -1}, "seed must be a whole number, 0 or more; it is -1"),
        ({"retention": "lab"}, "retention must be 'trial' or 'wild'; it is 'lab'"),
        ({"effects": {"midway": 1}}, "did you mean 'midway_dip'"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_be_right(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        simulate(**wrong)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in "ab":
        save(simulate(30, 40, seed=2), tmp_path / f"{name}.db")
    assert filecmp.cmp(tmp_path / "a.db", tmp_path / "b.db", shallow=False)
    assert filecmp.cmp(tmp_path / "a.truth.parquet", tmp_path / "b.truth.parquet", shallow=False)
    save(simulate(30, 40, seed=3), tmp_path / "c.db")
    assert not filecmp.cmp(tmp_path / "a.db", tmp_path / "c.db", shallow=False)


def test_a_dataset_knows_the_world_it_comes_from(tmp_path, tiny):
    data = simulate(20, 30, seed=6, effects={"midway_dip": 0.5}, retention="wild")
    data.save(tmp_path / "x.db")
    world = world_of(Dataset.load(tmp_path / "x.db"))
    assert (world.users, world.days, world.seed, world.retention) == (20, 30, 6, "wild")
    assert world.effects["midway_dip"] == 0.5
    with pytest.raises(DatasetError, match="only simulated data"):
        world_of(tiny)


@pytest.mark.parametrize("name", ["x.db", "x"])
def test_only_a_simulated_dataset_is_replaced(tmp_path, tiny, name):
    path = tmp_path / name
    save(simulate(5, 5, seed=1), path)
    save(simulate(6, 5, seed=1), path)
    assert len(Dataset.load(path).users) == 6
    tiny.save(path)
    with pytest.raises(DatasetError, match=r"x.* not a simulated HabitLab dataset.*another"):
        save(simulate(5, 5, seed=1), path)
    assert Dataset.load(path).users.equals(tiny.users)


@pytest.mark.parametrize("content", [b"", b"my thesis", b"SQLite format 3\0" + bytes(200)])
def test_a_file_of_something_else_is_not_replaced(tmp_path, content):
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.db .*not a simulated HabitLab dataset"):
        save(simulate(5, 5, seed=1), tmp_path / "x.db")
    assert (tmp_path / "x.db").read_bytes() == content
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.docx").write_bytes(content)
    with pytest.raises(DatasetError, match="folder"):
        save(simulate(5, 5, seed=1), tmp_path / "folder")
    assert not (tmp_path / "folder.truth.parquet").exists()


def test_the_command_refuses_before_it_simulates(tmp_path, tiny, monkeypatch, capsys):
    tiny.save(tmp_path / "x.db")
    monkeypatch.setattr("habitlab.simulation.simulate", lambda **_: pytest.fail("simulated for nothing"))
    monkeypatch.setattr("sys.argv", ["habitlab", "simulate", "--out", str(tmp_path / "x.db")])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "not a simulated HabitLab dataset" in capsys.readouterr().err


def test_the_truth_of_other_data_is_not_told(tmp_path, tiny):
    save(simulate(20, 30, seed=6), tmp_path / "x.db")
    told = open_truth(tmp_path / "x.db")
    assert set(told) == {"goal_setting_completion", "concurrent_habits_completion", "clear_description_adoption"}
    simulate(20, 30, seed=7).save(tmp_path / "x.db")
    assert open_truth(tmp_path / "x.db") == {}
    tiny.save(tmp_path / "x.db")
    assert open_truth(tmp_path / "x.db") == {}


def test_the_truth_of_the_sample_is_told(tmp_path):
    save(open_dataset("sample"), tmp_path / "x.db")
    assert open_truth("sample") == open_truth(tmp_path / "x.db") != {}


def test_a_habit_is_adopted_before_it_is_done_and_not_logged_after_it_is_given_up(data):
    rows = data.habit_tracking.merge(data.adoptions, on=KEY, validate="many_to_one")
    assert len(rows) == len(data.habit_tracking)
    assert (rows["at"].isna() | (rows["at"] > rows["adopted_at"])).all()
    held = rows["abandoned_at"].isna() | (rows["date"].dt.tz_localize("UTC") < rows["abandoned_at"])
    assert held.all()
    assert data.adoptions["abandoned_at"].notna().mean() > 0.2


def test_a_day_done_at_an_instant_is_that_local_day(data):
    rows = data.habit_tracking.dropna(subset=["at"]).merge(data.users[["user_id", "zone", "day_start"]], on="user_id")
    for zone, part in rows.groupby("zone"):
        local = part["at"].dt.tz_convert(zone).dt.tz_localize(None) - pd.to_timedelta(part["day_start"], unit="h")
        assert (local.dt.normalize() == part["date"]).mean() > 0.9999
    assert (rows["status"] == "done").all()


def test_most_is_done_in_the_early_morning_and_in_the_evening(data):
    rows = data.habit_tracking.dropna(subset=["at"]).merge(data.users[["user_id", "zone"]], on="user_id")
    hours = pd.concat([part["at"].dt.tz_convert(zone).dt.hour for zone, part in rows.groupby("zone")])
    assert hours.isin([6, 7]).mean() == pytest.approx(0.28, abs=0.04)
    assert hours.isin([19, 20]).mean() == pytest.approx(0.29, abs=0.04)


def test_only_scheduled_days_have_a_row(data):
    weekly = data.habits.loc[data.habits["target"] == "1/7", "habit_id"]
    rows = data.habit_tracking[data.habit_tracking["habit_id"].isin(weekly)]
    gaps = rows.groupby(KEY)["date"].diff().dropna()
    assert (gaps == pd.Timedelta(days=7)).all()


def test_the_table_is_in_key_order_and_statuses_are_rarely_gaps(data):
    rows = data.habit_tracking
    assert rows[[*KEY, "date"]].equals(rows[[*KEY, "date"]].sort_values([*KEY, "date"], ignore_index=True))
    shares = rows["status"].value_counts(normalize=True)
    assert shares["skipped"] == pytest.approx(0.02, abs=0.004)
    assert shares["unknown"] == pytest.approx(0.015, abs=0.004)


def test_measured_values_agree_with_the_status(data):
    rows = data.habit_tracking.merge(data.habits[["habit_id", "target_value", "target_direction"]], on="habit_id")
    rows = rows[rows["value"].notna()]
    reached = np.where(
        rows["target_direction"] == "at least",
        rows["value"] >= rows["target_value"],
        rows["value"] <= rows["target_value"],
    )
    assert len(rows) > 50
    assert (reached == (rows["status"] == "done")).all()


def test_recommendations_tell_the_story_of_the_adoptions(data):
    accepted = data.recommendations[data.recommendations["response"] == "accepted"]
    both = data.adoptions.merge(accepted, on=KEY, how="outer", indicator=True)
    assert set(both.loc[both["source"] == "recommended", "_merge"]) == {"both"}
    assert set(both.loc[both["source"] == "chosen", "_merge"]) == {"left_only"}
    taken = both[both["_merge"] == "both"]
    assert (taken["responded_at"] == taken["adopted_at"]).all()
    assert (taken["shown_at"] < taken["adopted_at"]).all()


def test_propensities_are_probabilities_that_the_policy_had(data):
    shown = data.recommendations
    assert shown["propensity"].between(0, 1, inclusive="right").all()
    random = shown[shown["policy"] == "random"]
    # At the first place every habit that may be offered is as likely as any other.
    first = random[random["position"] == 1].groupby("user_id").head(1)
    assert first["propensity"].between(1 / len(data.habits), 1 / 100).all()
    assert set(shown["policy"]) == {"random", "popular"}


def test_nothing_unsuitable_is_recommended(data):
    shown = data.recommendations.merge(data.users[["user_id", "existing_habits"]], on="user_id")
    shown = shown.merge(data.habits[["habit_id", "prerequisites"]], on="habit_id")
    assert not any(habit in held for habit, held in zip(shown["habit_id"], shown["existing_habits"], strict=True))
    needed = zip(shown["prerequisites"], shown["existing_habits"], strict=True)
    assert all(set(before) <= set(held) for before, held in needed)


def test_sessions_do_not_overlap_and_begin_with_the_registration(data):
    assert overlapping_sessions(data).empty
    first = data.sessions.groupby("user_id")["started_at"].min()
    registered = data.users.set_index("user_id")["registered_at"]
    assert (first == registered[first.index]).all()


def test_minors_are_not_profiled(data):
    ids = data.users["user_id"][simulated_minors()]
    consents = data.consents[data.consents["user_id"].isin(ids)]
    assert len(ids) > 5
    assert not consents.loc[consents["purpose"].isin(["profiling", "similar users"]), "granted"].any()
    assert (data.consents.groupby("user_id").size() == 4).all()


def simulated_minors():
    return make_world(users=400, days=120, seed=4).people.age < 18


def test_nobody_can_be_written_to(data):
    for name in ("users", "feedback"):
        for column in data.table(name).select_dtypes(include=["str", "object"]):
            assert not data.table(name)[column].astype(str).str.contains("@").any()


def test_missing_answers_are_informative(data):
    """Those who leave barriers out are those who struggle: the gap says something."""
    large = simulate(users=3000, days=2, seed=8)
    ability = make_world(users=3000, days=2, seed=8).people.ability
    gap = large.users["barriers"].isna().to_numpy()
    assert ability[gap].mean() < ability[~gap].mean() - 0.05
