"""Requirement 9.2.d: who refused that research looks at their data is in no analysis, and told as little of."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import habitlab
from habitlab import cli
from habitlab.dataset import Dataset
from habitlab.dataset.schema import TABLES
from habitlab.report.cache import Hashes
from habitlab.serving import base, events, state
from habitlab.simulation import simulate
from tests.dataset.tracker_files import write_loop

REFUSED, ALLOWED_AGAIN, TOLD = "u0000003", "u0000007", "u0000009"


def with_words(data: Dataset, told: list[tuple[str, bool, str]]) -> Dataset:
    said = pd.DataFrame(told, columns=["user_id", "granted", "at"]).assign(purpose="research")
    said["at"] = pd.to_datetime(said["at"])
    return data.replace(consents=pd.concat([data.consents, said[data.consents.columns.intersection(said.columns)]]))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    told = [
        (REFUSED, False, "2024-03-01T00:00:00Z"),
        (ALLOWED_AGAIN, False, "2024-03-01T00:00:00Z"),
        (ALLOWED_AGAIN, True, "2024-03-02T00:00:00Z"),
    ]
    place = tmp_path_factory.mktemp("research") / "study.db"
    with_words(simulate(users=12, days=40, seed=6), told).save(place)
    return place


def tell(data: Path, user: str, *, granted: bool, at: str = "2024-05-06T07:00:00Z") -> None:
    """Tell the service beside the data, as a consent event does."""
    event = {"event_id": f"{user[-3:]}-{granted}", "user_id": user, "kind": "consent", "happened_at": at}
    event |= {"purpose": "research", "granted": granted}
    with closing(state.connect(state.folder(data))) as connection, state.transaction(connection):
        events.append(connection, events.parse(json.dumps(event).encode()), pd.Timestamp("2024-06-01", tz="UTC"))


def test_9_2_d_no_row_of_theirs_is_in_an_analysis(path):
    found, whole = habitlab.open_dataset(path), Dataset.load(path)
    assert found.metadata["refused_research"] == "fewer than 10"
    for name in TABLES:
        frame, all_rows = found.table(name), whole.table(name)
        if "user_id" not in TABLES[name].columns:
            pd.testing.assert_frame_equal(frame, all_rows)
            continue
        assert not (frame["user_id"] == REFUSED).any()
        rest = all_rows[~all_rows["user_id"].isin([REFUSED])]
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), rest.reset_index(drop=True))
    assert ALLOWED_AGAIN in set(found.users["user_id"])


def test_9_2_d_what_they_told_the_service_counts_and_the_last_word_does(path, tmp_path):
    data = tmp_path / "study.db"
    Dataset.load(path).save(data)
    before = Hashes({}).of_data(data)
    tell(data, TOLD, granted=False)
    tell(data, REFUSED, granted=True)
    tell(data, "r0000000000000001", granted=False)
    people = set(habitlab.open_dataset(data).users["user_id"])
    assert TOLD not in people
    assert REFUSED in people
    assert Hashes({}).of_data(data) != before  # a report is made anew
    (state.folder(data) / state.DATABASE).write_bytes(b"no database" * 500)
    for suffix in ("-wal", "-shm"):
        (state.folder(data) / f"{state.DATABASE}{suffix}").unlink(missing_ok=True)
    with pytest.raises(sqlite3.DatabaseError, match="nobody knows who refused research"):
        habitlab.open_dataset(data)
    assert Hashes({}).of_data(data) != before
    habitlab.open_dataset(data, everybody=True)


def test_9_2_d_nor_is_anything_that_is_called_after_them(tmp_path):
    data, run = tmp_path / "study.db", CliRunner()
    for user, name in (("ann", "Therapy with Dr X"), ("ben", "Run")):
        backup = write_loop(tmp_path / f"{user}.backup", [(1, name, 1, 1, 0, 0, 0.0, "")], [(1, "2024-01-01", 2, "")])
        told = run.invoke(cli.app, ["import", str(backup), "--out", str(data), "--user", user])
        assert told.exit_code == 0, told.output
    assert "ann" in repr(habitlab.open_dataset(data))
    tell(data, "ann", granted=False)
    found = habitlab.open_dataset(data)
    said = found.habits.to_json() + json.dumps(found.metadata)
    assert "ben" in said
    assert "Run" in said
    assert "ann" not in said
    assert "Therapy" not in said


def test_9_2_d_ten_and_more_are_told_by_number(path, tmp_path):
    whole = Dataset.load(path)
    users = whole.users["user_id"].tolist()[:11]
    with_words(whole, [(user, False, "2024-04-01T00:00:00Z") for user in users]).save(tmp_path / "study.db")
    found = habitlab.open_dataset(tmp_path / "study.db")
    assert (len(found.users), found.metadata["refused_research"]) == (1, "11")


def test_9_2_d_what_they_use_serves_them_as_anybody(path, monkeypatch):
    everybody = habitlab.open_dataset(path, everybody=True)
    assert "refused_research" not in everybody.metadata
    assert REFUSED in set(everybody.users["user_id"])
    assert REFUSED in set(base.load(path).users["user_id"])
    assert habitlab.recommend(path, REFUSED, 2).user_id == REFUSED
    asked = []

    def note(source, **settings):
        asked.append(settings)
        raise InterruptedError

    monkeypatch.setattr(habitlab, "open_dataset", note)
    for command in (cli.retrain, cli.monitor):
        with pytest.raises(InterruptedError):
            command(path)
    assert asked == [{"everybody": True}] * 2


def test_9_2_d_where_nobody_refused_nothing_changes():
    data = habitlab.open_dataset()
    assert "refused_research" not in data.metadata
    assert len(data.users) == 200
