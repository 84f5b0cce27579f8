"""Requirement 9.2.d: export, delete (from caches, features, models and training sets too), opt-out."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from habitlab.cli import app
from habitlab.dataset import Dataset
from habitlab.places import cache_folder
from habitlab.privacy import traces, user_control
from habitlab.privacy.user_control import export, forget
from habitlab.recommender.fitted import fitted
from habitlab.recommender.recommend import Recommender
from habitlab.serving import batch, forgotten, state
from habitlab.serving.learning import registry, retrain
from habitlab.serving.learning.extract import extract
from habitlab.simulation import load_truth, save, simulate
from tests.dataset.tracker_files import write_loop

NOW = datetime(2026, 3, 1, tzinfo=UTC)
USER, OTHER = "u0000003", "u0000004"


@pytest.fixture(scope="module")
def world() -> Dataset:
    return simulate(users=40, days=40, seed=6)


@pytest.fixture(scope="module")
def template(tmp_path_factory, world) -> Path:
    """A dataset with truth, a service that knows both people, a registered model, a kept recommender, a log."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HABITLAB_CACHE", str(root / "cache"))
        path = root / "data" / "study.db"
        path.parent.mkdir()
        save(world, path)
        folder = state.folder(path)
        habit = world.habits["habit_id"].iloc[0]
        with closing(state.connect(folder)) as connection, state.transaction(connection):
            for number, user in enumerate((USER, OTHER, USER)):
                rating = json.dumps({"habit_id": habit, "rating": 2, "comment": "dull"})
                connection.execute(
                    "INSERT INTO events (event_id, user_id, kind, happened_at, received_at, payload)"
                    " VALUES (?, ?, 'rating', ?, ?, ?)",
                    (f"e{number}", user, state.stamp(NOW), state.stamp(NOW), rating),
                )
            for number, user in enumerate((USER, OTHER), 1):
                connection.execute(
                    "INSERT INTO profiles (user_id, version, changed, opted_out, updated_at) VALUES (?, 1, ?, 0, ?)",
                    (user, number, state.stamp(NOW)),
                )
                connection.execute("INSERT INTO features VALUES (?, 1, NULL, '{}')", (user,))
                connection.execute(
                    "INSERT INTO lists (user_id, key, model_version, profile_version, body, made_at)"
                    " VALUES (?, 'k', 'm', 1, ?, ?)",
                    (user, json.dumps({"user_id": user}).encode(), state.stamp(NOW)),
                )
            state.set_meta(connection, "opted_out", json.dumps([OTHER, USER]))
        kept = fitted(path)
        live = registry.register(folder, kept, registry.lineage_of(world, kept, fitted_at=NOW))
        registry.promote(folder, live)
        (folder / "logs").mkdir()
        (folder / "logs" / "server.log").write_text(f"GET /v1/recommend?user_id={USER} 200\nGET /healthz 200\n")
    return root


def copy_of(template: Path, root: Path, patch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, root, dirs_exist_ok=True)
    patch.setenv("HABITLAB_CACHE", str(root / "cache"))
    return root / "data" / "study.db"


@pytest.fixture
def data(template, tmp_path, monkeypatch) -> Path:
    return copy_of(template, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def after(template, tmp_path_factory):
    """The same when one person was forgotten: where it is, what was told of it, and what stood there before."""
    with pytest.MonkeyPatch.context() as patch:
        path = copy_of(template, tmp_path_factory.mktemp("after"), patch)
        before = traces.find(places(path), USER)
        yield path, forget(USER, path, now=NOW), before


def places(data: Path) -> list[Path]:
    return [data.parent, cache_folder()]


def test_9_2_d_export_holds_every_row_of_a_person_and_nobody_else(data, world):
    told = export(USER, data)
    for name, rows in told["dataset"].items():
        assert len(rows) == (world.table(name)["user_id"] == USER).sum(), name
    assert len(told["truth"]) == len(world.habits)
    assert {table: len(rows) for table, rows in told["service"].items() if rows} == {
        "events": 2,
        "profiles": 1,
        "features": 1,
        "lists": 1,
    }
    assert len(told["models"]) == 1
    text = json.dumps(told, ensure_ascii=False)
    assert OTHER not in text
    row = world.users.set_index("user_id").loc[USER]
    assert told["dataset"]["users"][0]["age"] == row["age"]
    assert told["dataset"]["users"][0]["improvement_areas"] == row["improvement_areas"]


def test_9_2_d_export_tells_finished_lists_in_words_as_long_as_their_model_is_there(data):
    batch.run(data, day=NOW.date(), k=2, clock=lambda: NOW)
    with closing(state.connect(state.folder(data))) as connection, state.transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO lists SELECT user_id, 'x', model_version, 0, body, '', NULL, 0 FROM lists"
        )
        connection.execute(
            "INSERT OR REPLACE INTO lists SELECT user_id, '2 2026-03-02T00:00:00', 'm', 0, body, '', NULL, 0 FROM lists"
        )
        connection.execute("UPDATE lists SET body = x'00' WHERE key LIKE '%T18%'")
    told = {row["key"]: row["body"] for row in export(USER, data)["service"]["lists"]}
    assert [len(told[name]["items"]) for name in (f"2 {NOW.date()}T00:00:00", f"2 {NOW.date()}T12:00:00")] == [2, 2]
    assert told[f"2 {NOW.date()}T00:00:00"]["user_id"] == USER
    assert all(item["reasons"] for item in told[f"2 {NOW.date()}T00:00:00"]["items"])
    assert told[f"2 {NOW.date()}T18:00:00"] is None  # damaged
    assert told["x"] is None  # no key that this version writes
    assert told["2 2026-03-02T00:00:00"] is None  # another model's


def test_9_2_d_forget_removes_a_person_from_everything_and_proves_it(after):
    path, found, before = after
    stood = " ".join(file.name for file in before)
    for part in ("study.db", "study.truth.parquet", "service.db", "recommender.model", "server.log"):
        assert part in stood
    assert found.left == {}
    root = path.parents[1]
    assert traces.find([root], USER) == {}
    # The oracle: raw bytes, in every encoding, of everything that is not packed.
    for file in traces.files_below([root]):
        content = file.read_bytes()
        assert USER.encode() not in content, file
        assert USER.encode("utf-32-le") not in content, file
    where = " ".join(place for place, _ in found.removed)
    for part in ("service, events", "dataset, users", "dataset, habit_tracking", "truth", "model ", "logs/", "cache"):
        assert part in where


def test_9_2_d_everybody_else_stays(after, world):
    path, _, _ = after
    left = Dataset.load(path)
    for name in user_control.TABLES:
        frame = world.table(name)
        expected = (frame["user_id"] != USER).sum() if "user_id" in frame else len(frame)
        assert len(left.table(name)) == expected, name
    truth = load_truth(path)
    assert truth["user_id"].nunique() == len(world.users) - 1
    assert truth.attrs["simulation"] == world.metadata["simulation"]
    with closing(state.connect(state.folder(path))) as connection:
        assert connection.execute("SELECT user_id FROM events").fetchall() == [(OTHER,)]
        assert json.loads(state.meta(connection, "opted_out")) == [OTHER]
    assert "healthz" in (state.folder(path) / "logs" / "server.log").read_text()


def test_9_2_d_the_live_model_never_saw_the_person_and_no_other_can_be_had_back(after, template):
    folder = state.folder(after[0])
    version, model = registry.load(folder)
    assert version.name != registry.current(state.folder(template / "data" / "study.db"))
    assert version.lineage["why"] == "somebody asked to be forgotten"
    assert USER not in model.user_ids_
    fresh = Recommender().fit(extract(folder, Dataset.load(after[0])).dataset)
    np.testing.assert_array_equal(model.score(), fresh.score())  # as if they had never been there
    assert [each.name for each in registry.versions(folder)] == [version.name]
    with pytest.raises(registry.RegistryError):
        registry.rollback(folder)
    assert "## Sign-off" in (version.path / "card.md").read_text()


def test_9_2_d_a_service_started_again_knows_nobody_of_that_id(after):
    from habitlab.serving.events import parse
    from habitlab.serving.service import Refusal, Service

    folder = state.folder(after[0])
    service = Service(after[0], folder, registry.load(folder)[1], lambda: NOW)
    event = {"event_id": "e0", "user_id": USER, "kind": "rating", "habit_id": "x", "rating": 5}
    replayed = parse(json.dumps(event | {"happened_at": "2026-02-01T10:00:00Z"}).encode())
    with pytest.raises(Refusal):
        service.take(replayed)
    service.stop()


def test_9_2_d_a_running_service_knows_them_no_longer_as_soon_as_they_are_deleted(data):
    from habitlab.serving.events import parse
    from habitlab.serving.service import Refusal, Service

    folder = state.folder(data)
    service = Service(data, folder, registry.load(folder)[1], lambda: NOW)
    assert service.profile(USER) is not None
    user_control._from_service(folder, USER, None, lambda *told: None)
    rating = {"event_id": "new", "user_id": USER, "kind": "rating", "habit_id": "x", "rating": 5}
    late = parse(json.dumps(rating | {"happened_at": "2026-02-01T10:00:00Z"}).encode())
    with pytest.raises(Refusal):
        service.take(late)
    service.directory.follow()  # as it does by itself, four times a second
    with pytest.raises(Refusal):
        service.profile(USER)
    assert service.profile(OTHER) is not None
    service.stop()


def test_9_2_d_the_mark_that_is_left_tells_a_replay_without_telling_who(after):
    folder = state.folder(after[0])
    assert forgotten.status(folder, USER) == forgotten.DONE
    assert forgotten.status(folder, OTHER) is None
    assert USER not in (folder / forgotten.FILE).read_text()
    with pytest.raises(ValueError, match="was forgotten"):
        export(USER, after[0])


def test_9_2_d_calling_it_again_finds_nothing_to_do(after, monkeypatch):
    monkeypatch.setenv("HABITLAB_CACHE", str(after[0].parents[1] / "cache"))  # not the one that all tests share
    again = forget(USER, after[0], now=NOW)
    assert again.removed == ()
    assert again.left == {}


def test_9_2_d_a_retraining_under_way_brings_nobody_back(data, monkeypatch):
    """Somebody is forgotten after the models have learnt, and before they are registered."""
    monkeypatch.setattr(retrain, "_against", lambda *_, **__: forget(USER, data, now=NOW) and ValueError("too short"))
    place = state.folder(data)
    with pytest.raises(registry.RegistryError, match="somebody was forgotten while this ran"):
        retrain.retrain(Dataset.load(data), place, now=NOW, force=True)
    for version in registry.versions(place):
        assert traces.find([version.path], USER) == {}
    monkeypatch.undo()
    monkeypatch.setenv("HABITLAB_CACHE", str(data.parents[1] / "cache"))
    again = retrain.retrain(Dataset.load(data), place, now=NOW, force=True, origins=1, resamples=100)
    assert again.version is not None
    assert traces.find([place], USER) == {}


def test_9_2_d_the_only_person_there_is_is_forgotten_as_well(tmp_path, monkeypatch, world):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    path, one = tmp_path / "data" / "me.db", world.without(set(world.users["user_id"]) - {USER})
    path.parent.mkdir()
    one.save(path)
    retrain.retrain(one, state.folder(path), now=NOW)
    assert forget(USER, path, now=NOW).left == {}
    assert registry.load(state.folder(path))[1].user_ids_.tolist() == []


def test_9_2_d_the_sample_has_people_of_like_ids_and_a_service_of_its_own(data):
    place = state.folder("sample")
    with closing(state.connect(place)) as connection:
        state.set_meta(connection, "somebody", USER)
    assert forget(USER, data, now=NOW).left == {}
    with closing(state.connect(place)) as connection:
        assert state.meta(connection, "somebody") == USER


def test_9_2_d_an_unknown_person_is_told_with_the_nearest(data):
    for call in (export, forget):
        with pytest.raises(ValueError, match=r"nobody has the id 'u000003' here; nearest: u00000"):
            call("u000003", data)
    with pytest.raises(FileNotFoundError):
        forget(USER, data.with_name("none.db"))
    assert not (state.folder(data) / forgotten.FILE).exists()


def test_9_2_d_a_backup_imported_again_does_not_bring_them_back(tmp_path, monkeypatch):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    habit = [(1, "Run", 1, 1, 0, 0, 0.0, "")]
    days = {"ann": ["2024-01-01", "2024-01-02"], "ben": ["2024-01-03"]}
    path, run = tmp_path / "study.db", CliRunner()

    def bring(user: str) -> str:
        (tmp_path / f"{user}.backup").unlink(missing_ok=True)
        backup = write_loop(tmp_path / f"{user}.backup", habit, [(1, day, 2, "") for day in days[user]])
        told = run.invoke(app, ["import", str(backup), "--out", str(path), "--user", user])
        assert told.exit_code == 0, told.output
        return told.output

    for user in days:
        assert "left out;" not in bring(user)
    assert forget("ann", path, now=NOW).left == {}
    before = path.read_bytes()
    assert "1 person who asked to be forgotten was left out" in bring("ann")
    assert path.read_bytes() == before
    assert traces.find([path], "ann") == {}
    assert "left out;" not in bring("ben")


def test_9_2_d_of_many_who_are_imported_only_the_forgotten_are_left_out(data, world):
    forgotten.mark(state.folder(data), USER, forgotten.DONE, NOW)
    few = world.users["user_id"].isin([USER, OTHER])
    left, gone = user_control.leave_out(world.replace(users=world.users[few]), None, data)
    assert gone == 1
    assert left.users["user_id"].tolist() == [OTHER]
    assert USER not in set(left.habit_tracking["user_id"])
    assert user_control.leave_out(world, world, data) == (world, 0)  # who is there by now came back on purpose


def test_9_2_d_a_parquet_folder_without_any_service(tmp_path, monkeypatch, world):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "data" / "study"
    save(world, path)
    assert forget(USER, path, now=NOW).left == {}
    assert USER not in set(Dataset.load(path).users["user_id"])
    assert traces.find([tmp_path], USER) == {}


def test_9_2_d_somebody_whom_only_the_service_knows(data):
    with closing(state.connect(state.folder(data))) as connection:
        connection.execute(
            "INSERT INTO profiles (user_id, version, changed, registration, opted_out, updated_at)"
            " VALUES ('newcomer1', 1, 9, '{\"barriers\": \"newcomer1 is tired\"}', 0, ?)",
            (state.stamp(NOW),),
        )
    assert export("newcomer1", data)["service"]["profiles"][0]["version"] == 1
    found = forget("newcomer1", data, now=NOW)
    assert found.left == {}
    assert [where for where, _ in found.removed] == ["service, profiles"]


def test_9_2_d_redis_is_asked_to_forget(data, monkeypatch):
    from habitlab.serving import store

    asked = []

    class Pretended:
        def __init__(self, url, space, timeout):
            asked.append((url, space))

        def forget(self, user_id):
            asked.append(user_id)
            return 2

    monkeypatch.setattr(store, "RedisStore", Pretended)
    folder, said = state.folder(data), []
    with closing(state.connect(folder)) as connection:
        space = state.instance(connection)
    user_control._from_service(folder, USER, "redis://localhost:1", lambda *told: said.append(told))
    assert asked == [("redis://localhost:1", space), USER]
    assert ("redis", "2 values") in said


def test_9_2_d_the_redis_of_the_service_is_asked_without_being_named(data, monkeypatch):
    """As the command is called: the service remembers where its Redis is, and not the password."""
    from habitlab.serving import store
    from habitlab.serving.service import Service

    folder, asked = state.folder(data), []

    class Silent(store.RedisStore):
        def forget(self, user_id):
            asked.append(self._redis.connection_pool.connection_kwargs["port"])
            raise store.StoreError("redis: timeout")

    Service(data, folder, registry.load(folder)[1], lambda: NOW, redis="redis://me:secret@localhost:1").stop()
    monkeypatch.setattr(store, "RedisStore", Silent)
    for content in (folder / file for file in ("service.db", "service.db-wal")):
        assert not content.exists() or b"secret" not in content.read_bytes()
    with pytest.raises(OSError, match=r"Redis at redis://localhost:1, which may hold lists of them"):
        forget(USER, data, now=NOW)
    assert asked == [1]
    assert forgotten.status(folder, USER) == forgotten.BEGUN  # all else is done, and the call is to be repeated
    assert traces.find(places(data), USER) == {}
    monkeypatch.setattr(store.RedisStore, "forget", lambda self, user_id: 0)
    assert forget(USER, data, now=NOW).left == {}
    assert forgotten.status(folder, USER) == forgotten.DONE


def test_9_2_d_what_a_crash_left_behind_is_cleared_away(data):
    registered = next((state.folder(data) / registry.REGISTRY).glob("0001-*"))
    shutil.copytree(registered, registered.with_name(".new-0009-half"))
    shutil.copy(data, data.with_name(f".{data.name}.abc.part"))
    truth = data.with_suffix(".truth.parquet")
    shutil.copy(truth, truth.with_name(f".{truth.name}.abc.part"))
    assert forget(USER, data, now=NOW).left == {}
    assert traces.find(places(data), USER) == {}


def test_9_2_d_nor_does_it_stay_in_files_that_a_parquet_folder_no_longer_names(tmp_path, monkeypatch, world):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "data" / "study"
    save(world, path)
    users = next(path.glob("users-*.parquet"))
    for name in ("users-0123456789abcdef.parquet", "users.new", ".users.new.a_b-c.part"):
        shutil.copy(users, path / name)
    (path / "notes.txt").write_text("not ours")
    assert forget(USER, path, now=NOW).left == {}
    assert traces.find([tmp_path], USER) == {}
    assert (path / "notes.txt").exists()


@pytest.mark.parametrize("user", ["me", "Анна", 'o"b', "%"])
def test_9_2_d_ids_that_are_short_or_not_ascii_are_forgotten_as_well(tmp_path, monkeypatch, world, user):
    """`me` is what an import calls its person, and part of `name` and `time`; JSON may write Анна in escapes."""
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "study.db"
    quiet = world.replace(feedback=world.feedback.assign(comment=None))  # what others write may hold any word
    named = {name: quiet.table(name) for name in user_control.TABLES if "user_id" in quiet.table(name)}
    quiet.replace(**{n: t.assign(user_id=t["user_id"].astype(str).replace(USER, user)) for n, t in named.items()}).save(
        path
    )
    log = state.folder(path) / "logs" / "server.log"
    state.connect(state.folder(path)).close()
    log.parent.mkdir()
    log.write_text(json.dumps({"user": user}) + "\nother\n")
    assert log in traces.find([log], user)
    assert forget(user, path, now=NOW).left == {}
    assert log.read_text() == "other\n"


KILLED = """
import os, signal, sys
from habitlab.privacy.user_control import forget
from datetime import datetime, UTC
left = int(sys.argv[3])
def tell(text):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
forget(sys.argv[1], sys.argv[2], now=datetime(2026, 3, 1, tzinfo=UTC), tell=tell)
"""


def kill_at(step: int, data: Path) -> int:
    return subprocess.run([sys.executable, "-c", KILLED, USER, str(data), str(step)], env=os.environ.copy()).returncode


def test_9_2_d_killed_on_the_way_it_goes_on_when_called_again(data):
    assert kill_at(8, data) == -signal.SIGKILL
    assert forgotten.status(state.folder(data), USER) == forgotten.BEGUN
    assert forget(USER, data, now=NOW).left == {}
    assert traces.find(places(data), USER) == {}
    assert forgotten.status(state.folder(data), USER) == forgotten.DONE


@pytest.mark.long
@pytest.mark.parametrize("step", [0, 3, 6, 12, 16, 18, 20, 22, 99])
def test_9_2_d_killed_after_any_step(data, world, step):
    """Steps: the service's tables, the dataset's, the truth, the models, the log, the caches."""
    assert (kill_at(step, data) == -signal.SIGKILL) == (step < 99)
    assert forget(USER, data, now=NOW).left == {}
    assert traces.find(places(data), USER) == {}
    assert len(Dataset.load(data).users) == len(world.users) - 1
    assert USER not in registry.load(state.folder(data))[1].user_ids_


def test_9_2_d_a_deleted_row_may_still_stand_in_a_page_and_is_found(tmp_path):
    """Why VACUUM and the checkpoint are needed: without them the search finds what was deleted."""
    path = tmp_path / "t.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE t (user_id TEXT, note TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(f"person-{n}", "x" * 200) for n in range(100)])
        connection.commit()
        connection.execute("DELETE FROM t WHERE user_id = 'person-42'")
        connection.commit()
    assert traces.inside(path, "person-42") == "what is left of deleted rows"
    assert traces.inside(path, "person-4") == "table t, column user_id"  # another person, with a longer id beside them
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM t WHERE user_id = 'person-4'")
        connection.commit()
    assert traces.inside(path, "person-4") == "what is left of deleted rows"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    assert traces.inside(path, "person-42") == traces.inside(path, "person-4") == ""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", ["text", "array", "parquet", "lists"])
def test_9_2_d_the_search_finds_an_id_in_any_format(tmp_path, write):
    import zipfile

    path = tmp_path / "file"
    if write == "text":
        path.write_text("seen: ann-1, ben")
    elif write == "array":
        np.save(tmp_path / "ids.npy", np.array(["ann-1", "ben-2"]))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(tmp_path / "ids.npy", "ids.npy")
    elif write == "parquet":
        pd.DataFrame({"user_id": pd.Categorical(["ben-2"], categories=["ann-1", "ben-2"])}).to_parquet(path)
    else:
        pd.DataFrame({"who": [["ann-1"], []]}).to_parquet(path)
    assert traces.inside(path, "ann-1")
    for other in ("ann", "nn-1", "ann-", "ann-12"):
        assert traces.inside(path, other) == "" or other in ("ann", "ann-")  # a hyphen ends a word of text


def test_9_2_d_a_longer_id_is_another_person(tmp_path):
    (tmp_path / "a.txt").write_text("u12 was here")
    assert traces.find([tmp_path], "u1") == {}
    assert list(traces.find([tmp_path], "u12")) == [tmp_path / "a.txt"]


def test_9_2_d_the_commands(data, tmp_path):
    run = CliRunner()
    out = tmp_path / "ann.json"
    told = run.invoke(app, ["user", "export", USER, "--data", str(data), "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert json.loads(out.read_text())["user_id"] == USER
    assert out.stat().st_mode & 0o777 == 0o600
    out.unlink()
    wrong = run.invoke(app, ["user", "forget", "u000003", "--data", str(data)])
    assert "nearest" in str(wrong.exception)
    done = run.invoke(app, ["user", "forget", USER, "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert "files searched, the id stands in none" in done.output
    assert traces.find([tmp_path], USER) == {}
