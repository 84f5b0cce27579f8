"""Lists made ahead for everybody (7.1.c), and the database as second level (7.2.b)."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from habitlab import cli
from habitlab.serving import batch, events, lists, state, updater
from habitlab.serving.live import Live
from habitlab.serving.store import SqliteStore
from tests.serving.conftest import Clock

DAY = date(2024, 5, 6)
BEFORE = DAY - timedelta(days=2)  # over everywhere at the time of the clock
NOON = f"{DAY}T12:00"
NAMES = {lists.name(5, moment) for moment in lists.moments(DAY)}


@pytest.fixture
def fill(world, folder, clock, recommender):
    """Run the batch on the small world."""
    live = Live(recommender)

    def run(day: date = DAY, **settings: Any) -> batch.Run:
        return batch.run(world, folder, **({"day": day, "clock": clock, "model": live, "block": 7} | settings))

    return run


def rows(folder: Path) -> dict[tuple[str, str], bytes]:
    """All lists that the second level finds."""
    with closing(state.connect(folder)) as connection:
        keys = connection.execute("SELECT DISTINCT user_id, model_version, profile_version, key FROM lists").fetchall()
    store = SqliteStore(folder, clock=Clock())
    found = {(key[0], key[3]): store.get(lists.Key(*key)) for key in keys}
    return {place: body for place, body in found.items() if body is not None}


def tell(client: Any, user: str, kind: str, **special: Any) -> None:
    common = {"event_id": f"b-{user}-{kind}", "user_id": user, "happened_at": "2024-05-06T07:00:00Z", "kind": kind}
    assert client.post("/v1/events", json=common | special).status_code == 201


def change(folder: Path, user: str, number: int, now: datetime) -> None:
    """An event of a person, applied."""
    told = {"event_id": f"c{number}-{user}", "user_id": user, "happened_at": "2024-05-06T07:00:00Z"}
    one = events.parse(json.dumps(told | {"kind": "adoption", "habit_id": "h001"}).encode())
    with closing(state.connect(folder)) as connection:
        with state.transaction(connection):
            events.append(connection, one, now)
        updater.catch_up(connection, now)


def test_7_1_c_every_list_is_the_one_that_a_miss_computes(make, folder, tmp_path, fill, recommender):
    client = make(background=False).test_client()
    ids = recommender.user_ids_.tolist()
    shown = client.get(f"/v1/recommend?user_id={ids[3]}&at={NOON}").get_json()["items"]
    tell(client, ids[0], "response", habit_id=shown[0]["habit_id"], response="rejected")
    tell(client, ids[1], "adoption", habit_id="h001")
    tell(client, ids[2], "consent", purpose="personalisation", granted=False)
    tell(client, ids[4], "completion", habit_id="h002", status="missed", date="2024-05-01")
    here = [
        client.post("/v1/users", json=record).get_json()["user_id"]
        for record in ({"age": 40}, {"age": 30, "consents": {"personalisation": False}}, {"age": 50})
    ]
    tell(client, here[0], "adoption", habit_id="h003")
    with closing(state.connect(folder)) as connection, state.transaction(connection):
        for day in (1, 2, 3):  # shown three times: it tires
            connection.execute(
                "INSERT INTO exposures (event_id, user_id, habit_id, shown_at, position, times, last_shown_at)"
                " VALUES (?, ?, ?, ?, 1, 1, '')",
                (f"e{day}", ids[3], shown[0]["habit_id"], f"2024-05-0{day}T08:00:00.000000Z"),
            )
        connection.execute("DELETE FROM lists")
    other = make(state=shutil.copytree(folder, tmp_path / "other"), background=False).test_client()
    found = fill()
    assert (found.people, found.made, found.swapped) == (len(ids) + 3, 3 * (len(ids) + 3), True)
    filled = make(background=False).test_client()
    for user in (*ids, *here):
        for hour, lang in product(lists.PARTS_OF_DAY, ("ru", "en")):
            path = f"/v1/recommend?user_id={user}&lang={lang}&at={DAY}T{hour:02}:00"
            ready, computed = filled.get(path).get_data(), other.get(path).get_data()
            assert ready.endswith(b',"served_from":"database"}\n')
            assert computed.endswith(
                b',"served_from":"computed"}\n' if lang == "ru" else b',"served_from":"database"}\n'
            )
            assert ready.rpartition(b",")[0] == computed.rpartition(b",")[0]
    assert filled.get(f"/v1/recommend?user_id={ids[3]}&at={NOON}").get_json()["items"] != shown


def test_7_1_c_draws_with_their_propensities_are_those_of_a_miss(make, folder, tmp_path, fill, recommender):
    other = make(state=shutil.copytree(folder, tmp_path / "other"), background=False)
    fill()
    for user in recommender.user_ids_.tolist()[:10]:
        other.test_client().get(f"/v1/recommend?user_id={user}&at={NOON}")
    computed = rows(tmp_path / "other")
    filled = rows(folder)
    assert len(computed) == 10
    assert all(filled[key] == body for key, body in computed.items())


def test_7_1_c_a_second_run_changes_nothing(fill, folder, recommender):
    assert fill().swapped
    before = rows(folder)
    again = fill()
    assert (again.made, again.ready, again.swapped) == (0, len(recommender.user_ids_), False)
    assert rows(folder) == before


def test_7_1_c_who_changed_since_gets_new_lists_when_it_is_called_again(fill, folder, clock, recommender):
    fill()
    before, user = rows(folder), recommender.user_ids_[5]
    change(folder, user, 0, clock())
    again = fill()
    assert (again.made, again.swapped) == (3, False)
    after = rows(folder)
    assert {place for place in before if after[place] != before[place]} == {(user, name) for name in NAMES}


def test_7_2_b_a_list_of_an_older_profile_is_never_served(make, fill, folder, clock, recommender):
    fill()
    client, user = make(background=False).test_client(), recommender.user_ids_[5]
    path = f"/v1/recommend?user_id={user}&at={NOON}"
    first = client.get(path).get_json()
    assert first["served_from"] == "database"
    tell(client, user, "response", habit_id=first["items"][0]["habit_id"], response="rejected")
    second = make(background=False).test_client().get(path).get_json()
    assert second["served_from"] == "computed"
    assert first["items"][0]["habit_id"] not in [item["habit_id"] for item in second["items"]]


def test_7_2_b_a_change_while_lists_are_made_keeps_the_old_profile_out(fill, folder, clock, monkeypatch, recommender):
    user, write = recommender.user_ids_[0], batch._write

    def change_first(connection: sqlite3.Connection, number: int, *rest: Any) -> int:
        if not state.watermark(connection, updater.CONSUMER):
            change(folder, user, 1, clock())
        return write(connection, number, *rest)

    monkeypatch.setattr(batch, "_write", change_first)
    assert fill().made == 3 * (len(recommender.user_ids_) - 1)
    assert user not in {place[0] for place in rows(folder)}


def test_9_2_d_who_is_forgotten_while_lists_are_made_gets_none(fill, folder, monkeypatch, recommender):
    user, write = recommender.user_ids_[0], batch._write

    def forget_first(connection: sqlite3.Connection, *rest: Any) -> int:
        connection.execute("DELETE FROM features WHERE user_id = ?", (user,))
        return write(connection, *rest)

    monkeypatch.setattr(batch, "_write", forget_first)
    fill()
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT count(*) FROM lists WHERE user_id = ?", (user,)).fetchone() == (0,)


@pytest.mark.parametrize("at", [1, 3, "swap"])
def test_7_1_c_stopped_on_the_way_the_old_table_stays_live_and_the_next_call_goes_on(
    fill, folder, monkeypatch, recommender, at
):
    fill(BEFORE)
    old = rows(folder)
    calls, write = [], batch._write

    def stop(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) > at:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        if at == "swap":
            patch.setattr(batch, "_swap", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            patch.setattr(batch, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            fill()
    assert rows(folder) == old
    found = fill()
    assert found.ready == (len(recommender.user_ids_) if at == "swap" else 7 * at)
    assert found.swapped
    new = rows(folder)
    assert {place[1].removesuffix(" impersonal") for place in new} == NAMES
    assert len(new) == len(old)
    with closing(state.connect(folder)) as connection:  # what is no longer found is gone
        assert connection.execute("SELECT count(*) FROM lists").fetchone() == (len(new),)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_7_2_b_lists_of_a_day_stay_until_it_is_over_everywhere(fill, folder, clock, recommender):
    """In the evening in Europe it is tomorrow in Kolkata, and still today in New York."""
    tomorrow, each = DAY + timedelta(days=1), 3 * len(recommender.user_ids_)
    fill()
    fill(k=3)
    fill(tomorrow)
    assert {name.split()[1][:10] for _, name in rows(folder)} == {str(DAY), str(tomorrow)}
    assert len(rows(folder)) == 3 * each
    clock.go(hours=48)  # 8:00 UTC two days later: in Hawaii DAY is over, tomorrow is not
    fill(DAY + timedelta(days=2))
    assert {name.split()[1][:10] for _, name in rows(folder)} == {str(tomorrow), str(DAY + timedelta(days=2))}
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT count(*) FROM lists").fetchone() == (2 * each,)


def test_7_1_c_a_run_that_nobody_will_complete_is_swept_away(fill, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batch, "_swap", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fill(BEFORE)
    fill()
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT count(DISTINCT run) FROM lists").fetchone() == (1,)


def test_7_1_c_lists_of_another_model_and_expired_ones_go_with_the_swap(fill, folder, clock, recommender):
    store, version = SqliteStore(folder, clock=clock), Live(recommender).key
    store.put(lists.Key("u0000001", "another model", 0, "x"), b"{}\n{}", 1e6)
    store.put(lists.Key("u0000001", version, 0, "expired"), b"{}\n{}", -1e6)
    store.put(lists.Key("u0000001", version, 0, "asked for"), b"{}\n{}", 1e6)
    fill()
    with closing(state.connect(folder)) as connection:
        kept = connection.execute("SELECT key FROM lists WHERE run = 0").fetchall()
    assert kept == [("asked for",)]


def test_7_1_c_a_locked_database_is_a_clear_error_and_the_old_table_stays_live(fill, folder):
    fill(BEFORE)
    old = rows(folder)
    with closing(state.connect(folder)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match=r"service\.db: database is locked; the former lists stay"):
            fill(wait=0.05)
        other.execute("ROLLBACK")
    assert rows(folder) == old


def test_7_1_c_a_full_disk_is_a_clear_error_and_the_old_table_stays_live(fill, folder, monkeypatch):
    fill(BEFORE)
    old, connect = rows(folder), state.connect

    def full(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **named)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 8}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(batch.state, "connect", full)
        with pytest.raises(sqlite3.OperationalError, match="full; the former lists stay live"):
            fill()
    assert rows(folder) == old
    assert fill().swapped


def test_7_1_c_one_batch_at_a_time_and_wrong_calls(fill, folder):
    with batch._alone(folder), pytest.raises(ValueError, match="another batch is running"):
        fill()
    for wrong in ({"k": 0}, {"k": 101}, {"block": 0}):
        with pytest.raises(ValueError, match="k is from 1 to 100 and block 1 or more"):
            fill(**wrong)


def test_7_1_c_the_bar_knows_how_many_people_there_are(fill, capsys, recommender):
    fill(progress=True)
    count = len(recommender.user_ids_)
    assert f"{count}/{count}" in capsys.readouterr().err


def kill_again_and_again(fill: Any, world: Path, folder: Path, kills: int, longest: float) -> None:
    """kill -9 at random points; whatever dies when, a reader sees the whole old table or the whole new one."""
    call = [sys.executable, "-m", "habitlab", "batch", "--block", "2", "--data", str(world), "--state", str(folder)]
    fill(BEFORE)
    old, random, killed, day = rows(folder), np.random.default_rng(0), 0, BEFORE
    for _ in range(kills):
        after = day + timedelta(days=1)
        process = subprocess.Popen([*call, "--day", str(after)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while process.poll() is None and not begun(folder) and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(random.uniform(0, longest))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        seen = rows(folder)
        if seen != old:  # it was killed, if at all, when all was done: go on with the next day
            assert {name.split()[1][:10] for _, name in seen} == {str(after)}
            assert len(seen) == len(old)
            old, day = seen, after
    assert killed
    after = day + timedelta(days=1)
    now = {"clock": lambda: datetime.now(UTC)}
    fill(after, **now)
    new = rows(folder)
    assert len(new) == len(old)
    with closing(state.connect(folder)) as connection:
        connection.executescript("DELETE FROM lists; DELETE FROM runs;")
    fill(after, **now)
    assert rows(folder) == new


def begun(folder: Path) -> bool:
    with closing(state.connect(folder)) as connection:
        return connection.execute("SELECT 1 FROM runs WHERE live_at IS NULL").fetchone() is not None


def test_7_1_c_kill_9_mid_run_leaves_the_old_table_live(fill, world, folder, cache):
    kill_again_and_again(fill, world, folder, kills=1, longest=0.05)


@pytest.mark.long
def test_7_1_c_kill_9_at_many_points(fill, world, folder, cache):
    kill_again_and_again(fill, world, folder, kills=12, longest=0.2)


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    """Where processes of these tests find the fitted recommender."""
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path_factory.getbasetemp() / "habitlab-cache"))


def test_the_command_says_what_it_did(world, folder, recommender, cache):
    call = [sys.executable, "-m", "habitlab", "batch", "--data", str(world), "--state", str(folder)]
    done = subprocess.run([*call, "--day", "2024-05-06"], check=True, capture_output=True, text=True)
    assert done.stdout == "2024-05-06: 120 lists made for 40 people; they are live\n"
    with pytest.raises(ValueError, match="is no day like 2026-01-05"):
        cli.batch(world, folder, day="tomorrow")


def test_without_a_batch_the_second_level_is_as_before(folder):
    store = SqliteStore(folder, clock=lambda: datetime(2024, 5, 6, tzinfo=UTC))
    key = lists.Key("u1", "m", 0, "n")
    store.put(key, b"{}\n{}", 10)
    assert store.get(key) == b"{}\n{}"
