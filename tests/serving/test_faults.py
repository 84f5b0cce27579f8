"""Locked, corrupt and full databases, Redis in trouble, and processes that are killed: nothing lost, answers go on."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from habitlab.serving import state, updater
from habitlab.serving.cache import Breaker, Guarded
from habitlab.serving.events import append, of_user, parse, read_after
from habitlab.serving.feature_store import FeatureStore
from habitlab.serving.history import features, fold
from habitlab.serving.store import MemoryStore, RedisStore, SqliteStore

AT = "2024-05-06T07:30"
USER = "u0000002"
LIST = f"/v1/recommend?user_id={USER}&at={AT}"
EVENT = {
    "event_id": "e1",
    "user_id": USER,
    "kind": "adoption",
    "habit_id": "h001",
    "happened_at": "2024-05-06T07:00:00Z",
}


@pytest.fixture
def locked(folder: Path) -> Iterator[sqlite3.Connection]:
    """Another process that does not let go of the database."""
    with closing(state.connect(folder)) as connection:
        yield connection


def hurry(service) -> None:
    """Let this thread's connection wait no longer than a moment."""
    with service._connections.use() as connection:
        connection.execute("PRAGMA busy_timeout = 20")


def test_7_1_d_a_locked_database_takes_no_event_says_so_and_lists_go_on(app, locked):
    client, service = app.test_client(), app.extensions["habitlab"]
    hurry(service)
    locked.execute("BEGIN IMMEDIATE")
    for body, path in ((EVENT, "/v1/events"), ({"age": 40}, "/v1/users")):
        refused = client.post(path, json=body)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "nothing is kept" in refused.get_json()["error"]
    assert client.get("/readyz").status_code == 503
    assert client.get(LIST).get_json()["served_from"] == "computed"
    assert client.get(LIST).get_json()["served_from"] == "memory"
    locked.execute("ROLLBACK")
    assert client.post("/v1/events", json=EVENT).get_json()["accepted"] == 1
    assert client.get("/readyz").status_code == 200
    assert client.get(LIST).get_json()["served_from"] == "computed"


def test_7_1_d_a_full_disk_takes_no_event_says_so_and_lists_go_on(app, folder):
    client, service = app.test_client(), app.extensions["habitlab"]
    with service._connections.use() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [EVENT | {"event_id": f"e{n}", "kind": "rating", "rating": 1, "comment": "x" * 900} for n in range(500)]
    refused = client.post("/v1/events", json=many)
    assert refused.status_code == 503
    with closing(state.connect(folder)) as connection:
        assert read_after(connection, 0) == []
    assert client.get(LIST).status_code == 200
    # A connection that failed is opened anew: as soon as there is room, events are taken.
    assert client.post("/v1/events", json=many).get_json()["accepted"] == 500


_FULL = """
    import pathlib, shutil, sqlite3, subprocess, sys
    from habitlab.serving.app import create_app

    data, prepared, place = sys.argv[1:]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], check=True)
    app = create_app(data, shutil.copytree(prepared, place + "/service"), background=False)
    client, log = app.test_client(), app.extensions["habitlab"].exposures
    LIST = "/v1/recommend?user_id=u0000002&at=2024-05-06T07:30"

    def tell(number):
        event = {"event_id": f"e{number}", "user_id": "u0000002", "kind": "rating", "habit_id": "h001", "rating": 1,
                 "comment": "x" * 900, "happened_at": "2024-05-06T07:00:00Z"}
        return client.post("/v1/events", json=event).status_code

    assert [tell(number) for number in range(10)] == [201] * 10
    filler = pathlib.Path(place, "filler")
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    full = [tell(number) for number in range(10, 100)]
    assert set(full[-50:]) == {503}, full
    assert client.get("/readyz").status_code == client.post("/v1/users", json={"age": 40}).status_code == 503
    assert [client.get(f"{LIST}&k={k}").status_code for k in range(1, 30)] == [200] * 29
    try:
        log.flush()
    except sqlite3.Error:
        pass
    assert log.waiting() > 0
    filler.unlink()
    assert [tell(number) for number in range(100, 110)] == [201] * 10
    log.flush()
    assert log.waiting() == 0
    with sqlite3.connect(place + "/service/service.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = {name for (name,) in connection.execute("SELECT event_id FROM events")}
        confirmed = [*range(10), *(number for number, status in enumerate(full, 10) if status == 201), *range(100, 110)]
        assert kept == {f"e{number}" for number in confirmed}
        assert connection.execute("SELECT count(*) FROM exposures WHERE position = 1").fetchone() == (29,)
    print("all as it should be")
"""


def test_7_1_d_on_a_disk_that_is_really_full_nothing_confirmed_is_lost(world, prepared, recommender, tmp_path):
    """A file system of 6 MB that only this process and its children see; needs no rights where these may be made."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system of one's own can be made here")
    command = [*alone, sys.executable, "-c", textwrap.dedent(_FULL), str(world), str(prepared), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == "all as it should be\n", done.stderr


def test_7_1_b_readiness_sees_a_full_disk(app, monkeypatch):
    client = app.test_client()
    assert client.get("/readyz").status_code == 200

    def full(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(state, "set_meta", full)  # whatever is written fails, a lock alone can still be had
    assert client.get("/readyz").status_code == 503


def corrupt(folder: Path) -> None:
    for name in ("service.db-wal", "service.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "service.db").write_bytes(b"no database" * 5000)


def look_anew(*parts) -> None:
    """Have parts of a service open the database again."""
    for part in parts:
        name = "connections" if isinstance(part, FeatureStore) else "_connections"
        setattr(part, name, state.Connections(getattr(part, name).folder, wait=0.05))


def test_7_1_d_a_corrupt_database_takes_no_event_says_so_and_lists_go_on(make, folder, caplog):
    app = make(background=False)
    client, service = app.test_client(), app.extensions["habitlab"]
    whole = client.get(LIST).get_json()
    first = whole["items"][0]["habit_id"]
    corrupt(folder)
    look_anew(service, service.answers, service.features, service.directory, service.levels.database.store)
    assert client.post("/v1/events", json=EVENT).status_code == 503
    assert client.post("/v1/users", json={"age": 40}).status_code == 503
    assert client.get("/readyz").status_code == 503
    assert client.get(LIST).get_json()["served_from"] == "memory"
    service.levels.memory.clear()
    incomplete = client.get(LIST)
    assert incomplete.get_json() == whole
    assert "may not be counted" in incomplete.headers["Warning"]
    assert client.get(LIST).get_json()["served_from"] == "computed"  # not kept: it may lack what happened since
    assert first in client.get(LIST).get_data(as_text=True)
    assert client.get("/v1/recommend?user_id=nobody").status_code == 503  # perhaps they are in the database
    assert USER not in caplog.text
    with pytest.raises(sqlite3.DatabaseError):
        make(background=False)


@pytest.mark.parametrize("instead", [False, True])
def test_7_1_d_a_deleted_or_replaced_database_confirms_no_event_until_it_is_back(make, folder, tmp_path, instead):
    app = make(background=False)
    client, service = app.test_client(), app.extensions["habitlab"]
    assert client.post("/v1/events", json=EVENT | {"event_id": "before"}).status_code == 201
    client.get(LIST)
    unasked = make(background=False).test_client()  # another worker, of which nobody has asked anything yet
    shutil.move(folder, tmp_path / "away")
    if instead:
        with closing(state.connect(folder)):
            pass
    assert client.post("/v1/events", json=EVENT).status_code == 503
    assert client.post("/v1/users", json={"age": 40}).status_code == 503
    assert client.get("/readyz").status_code == 503
    assert client.get(LIST).get_json()["served_from"] == "memory"
    for each in (client, unasked):
        assert "may not be counted" in each.get(f"{LIST}&k=4").headers["Warning"]
    with pytest.raises(sqlite3.OperationalError, match="not the file that was opened"):
        service.exposures.flush()
    assert service.exposures.waiting()
    assert instead or not folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(tmp_path / "away", folder)
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/events", json=EVENT).status_code == 201
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT event_id FROM events").fetchall() == [("before",), (EVENT["event_id"],)]


def test_7_1_d_an_event_that_went_into_a_file_which_is_gone_meanwhile_is_not_confirmed(
    make, folder, tmp_path, monkeypatch
):
    client = make(background=False).test_client()
    apply = updater.apply

    def move_first(*arguments):
        if folder.exists():
            shutil.move(folder, tmp_path / "away")
        return apply(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(updater, "apply", move_first)
        assert client.post("/v1/events", json=EVENT).status_code == 503
    shutil.move(tmp_path / "away", folder)
    assert client.post("/v1/events", json=EVENT).status_code in (200, 201)  # sent again it counts once
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_d9_while_the_last_word_on_profiling_cannot_be_read_nothing_is_concluded(make, folder, recommender):
    app = make(background=False)
    client, service = app.test_client(), app.extensions["habitlab"]
    consent = EVENT | {"event_id": "c", "kind": "consent", "purpose": "profiling", "granted": False}
    consent = {name: value for name, value in consent.items() if name not in ("habit_id", "status")}
    assert client.post("/v1/events", json=consent).status_code == 201
    corrupt(folder)
    look_anew(service, service.answers, service.features, service.directory, service.levels.database.store)
    found = client.get(LIST)
    assert "may not be counted" in found.headers["Warning"]
    expected = recommender.recommend(EVENT["user_id"], at=AT, profiled=False).items
    assert [item["score"] for item in found.get_json()["items"]] == [item.score for item in expected]


def test_7_1_d_with_a_corrupt_database_what_is_in_memory_still_counts(make, folder):
    app = make(background=False)
    client, service = app.test_client(), app.extensions["habitlab"]
    first = client.get(LIST).get_json()["items"][0]["habit_id"]
    client.post("/v1/events", json=EVENT | {"kind": "response", "response": "rejected", "habit_id": first})
    client.get(LIST)
    corrupt(folder)
    look_anew(service.answers, service.features, service.levels.database.store)
    for k in (3, 4):  # lists that nobody has made yet
        assert first not in client.get(f"{LIST}&k={k}").get_data(as_text=True)


def test_7_1_b_with_redis_stopped_hung_and_back_the_service_answers_as_before(make, redis):
    app = make(redis=redis.url, background=False)
    client, service = app.test_client(), app.extensions["habitlab"]
    items = client.get(LIST).get_json()["items"]
    assert client.get(LIST).get_json()["served_from"] == "redis"
    service.levels.redis.breaker._rest = 0.02
    redis.hang()
    assert client.get("/readyz").get_json()["checks"]["redis"] == "does not answer"  # before anybody asks for a list
    for _ in range(5):
        assert client.get(LIST).get_json() == client.get(LIST).get_json() | {"served_from": "memory", "items": items}
    assert client.get("/readyz").get_json()["checks"]["redis"] == "does not answer"
    redis.wake()
    redis.stop()
    assert client.get(f"{LIST}&k=3").get_json()["served_from"] == "computed"
    assert client.post("/v1/events", json=EVENT).status_code == 201
    assert client.get(LIST).get_json()["filtered"]["held"] >= 1
    redis.start()
    time.sleep(0.05)
    levels = [client.get(LIST).get_json()["served_from"] for _ in range(3)]
    assert levels[-1] == "redis"
    text = client.get("/metrics").get_data(as_text=True)
    assert 'habitlab_level_failures_total{level="redis"}' in text


def test_7_1_b_a_redis_that_was_never_there_is_no_reason_not_to_start(make, tmp_path):
    client = make(redis=f"unix://{tmp_path}/nothing.sock", background=False).test_client()
    assert client.get(LIST).get_json()["served_from"] == "computed"
    assert client.get(LIST).get_json()["served_from"] == "memory"


@pytest.mark.parametrize("kind", ["memory", "database", "redis"])
def test_7_1_a_features_are_the_same_from_any_store(app, folder, request, kind):
    client = app.test_client()
    client.post("/v1/events", json=EVENT)
    if kind == "redis":
        store = RedisStore(request.getfixturevalue("redis").url, "here", timeout=5)
    else:
        store = MemoryStore() if kind == "memory" else SqliteStore(folder)
    one = FeatureStore(folder, Guarded(store, Breaker(), lambda level: None))
    with closing(state.connect(folder)) as connection:
        (body,) = connection.execute("SELECT body FROM features WHERE user_id = ?", (USER,)).fetchone()
    assert one.get(USER, 1) == json.loads(body)
    one._connections = None  # from now on only the store can answer
    one.clear()
    assert one.get(USER, 1) == json.loads(body)
    assert json.loads(body)["user"]["adopted"] >= 1


def test_7_1_a_features_of_a_profile_that_nobody_has_are_none(app, folder):
    assert FeatureStore(folder).get("nobody", 1) is None
    assert FeatureStore(folder).get(USER, 99) is None


_UPDATER = """
    import sys
    from contextlib import closing
    from datetime import UTC, datetime
    from habitlab.serving import state, updater

    with closing(state.connect(sys.argv[1])) as connection:
        while updater.waiting(connection):
            with state.transaction(connection):
                updater.apply(connection, datetime(2024, 5, 6, tzinfo=UTC), 5)
"""


def test_7_1_d_an_updater_killed_at_random_points_applies_every_event_once(folder):
    told = [
        EVENT | {"event_id": f"e{number}", "user_id": f"u{number % 5 + 1:07}", "kind": "completion",
                 "date": f"20{number // 28 % 20:02}-01-{number % 28 + 1:02}"}
        for number in range(900)
    ]  # fmt: skip
    with closing(state.connect(folder)) as connection:
        with state.transaction(connection):
            append(connection, parse(json.dumps(told).encode()), datetime(2024, 5, 6, tzinfo=UTC))
        generator, left = random.Random(0), [updater.waiting(connection)]
        for _ in range(2):
            with subprocess.Popen([sys.executable, "-c", textwrap.dedent(_UPDATER), str(folder)]) as process:
                while updater.waiting(connection) == left[-1]:
                    assert process.poll() is None
                    time.sleep(0.001)
                time.sleep(generator.uniform(0, 0.05))
                process.kill()
            left.append(updater.waiting(connection))
        assert left == sorted(set(left), reverse=True)
    all_counted_once(folder, [one["event_id"] for one in told])


_UNDER_LOAD = """
    import itertools, sys, threading
    from datetime import UTC, datetime
    from habitlab.serving.app import create_app

    data, folder, name = sys.argv[1:]
    app = create_app(data, folder)
    numbers, told = itertools.count(), threading.Lock()

    def run():
        client = app.test_client()
        for number in numbers:
            event = {"event_id": f"{name}-{number}", "user_id": f"u{number % 5 + 1:07}", "kind": "completion",
                     "habit_id": f"h{number % 9 + 1:03}", "happened_at": "2024-05-06T07:00:00Z",
                     "date": f"20{number // 28 % 20:02}-01-{number % 28 + 1:02}"}
            if client.post("/v1/events", json=event).status_code == 201:
                with told:
                    print(event["event_id"], flush=True)
            client.get(f"/v1/recommend?user_id={event['user_id']}&at=2024-05-06T07:30")

    for _ in range(3):
        threading.Thread(target=run).start()
"""


def under_load(world: Path, folder: Path, name: str, confirm: int) -> list[str]:
    """Run a service under load, kill it after so many confirmed events; returns those that were confirmed."""
    command = [sys.executable, "-c", textwrap.dedent(_UNDER_LOAD), str(world), str(folder), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        confirmed = [process.stdout.readline().strip() for _ in range(confirm)]
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read()
    return confirmed + [line for line in rest.split("\n")[:-1] if line]


def all_counted_once(folder: Path, confirmed: list[str]) -> None:
    """What was confirmed is there, once, and features are those of the events that are there."""
    with closing(state.connect(folder)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        updater.catch_up(connection, datetime(2024, 5, 6, tzinfo=UTC))
        kept = [event.event_id for event in read_after(connection, 0, 10**9)]
        assert len(kept) == len(set(kept))
        assert set(confirmed) <= set(kept)
        for user in {event.user_id for event in read_after(connection, 0, 10**9)}:
            (body,) = connection.execute("SELECT body FROM features WHERE user_id = ?", (user,)).fetchone()
            told = fold(updater.base_of(connection, user), of_user(connection, user))
            assert json.loads(body) == json.loads(json.dumps(features(told, updater.priors_of(connection))))


def test_7_1_d_killed_under_load_no_event_is_lost_or_counted_twice(world, folder, recommender):
    confirmed = under_load(world, folder, "a", 25)
    assert len(confirmed) >= 25
    all_counted_once(folder, confirmed)


@pytest.mark.long
def test_7_1_d_killed_again_and_again_no_event_is_lost_or_counted_twice(world, folder, recommender):
    confirmed: list[str] = []
    for number, confirm in enumerate([1, 3, 40, 7, 90, 2, 60, 11]):
        confirmed += under_load(world, folder, f"run{number}", confirm)
        all_counted_once(folder, confirmed)
