"""What was shown is logged with the policy and propensity of its draw; what can be lost is stated and tested."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from flask import Flask

from habitlab.recommender.exploration import slate_rows
from habitlab.serving import state
from habitlab.serving.exposures import BOUNDS, ExposureLog
from habitlab.serving.lists import Ready

AT = "2024-05-06T07:30"
USER = "u0000002"
LIST = f"/v1/recommend?user_id={USER}&at={AT}"


def rows(folder: Path, table: str = "exposures") -> pd.DataFrame:
    with closing(state.connect(folder)) as connection:
        return pd.read_sql_query(f"SELECT * FROM {table} ORDER BY 1", connection)


def ready(number: int) -> Ready:
    draw = {"id": f"{number:024}", "policy": "p", "items": [["h1", 1.0], ["h2", 0.25]]}
    return Ready(b'{"user_id":"ann"', json.dumps(draw, separators=(",", ":")).encode())


def test_7_2_a_a_cached_list_is_logged_with_the_policy_and_propensity_of_its_draw(app, recommender, folder):
    client, service = app.test_client(), app.extensions["habitlab"]
    first, second = client.get(LIST), client.get(LIST)
    assert second.get_json()["served_from"] == "memory"
    service.exposures.flush()
    found = rows(folder)
    expected = slate_rows([recommender.recommend(USER, at=AT)], pd.Timestamp(service.clock()))
    for column in ("user_id", "habit_id", "policy"):
        assert found[column].tolist() == expected[column].tolist()
    for column in ("position", "propensity"):
        assert found[column].tolist() == pytest.approx(expected[column].tolist())
    assert pd.to_datetime(found["shown_at"]).tolist() == expected["shown_at"].tolist()
    assert found["times"].tolist() == [2] * len(found)
    name = first.headers["Habitlab-Exposure"]
    assert name == second.headers["Habitlab-Exposure"]
    assert found["event_id"].tolist() == [f"{name}-{rank}" for rank in range(1, len(found) + 1)]


def test_every_list_that_was_shown_is_there_and_counted(app, folder):
    client, service = app.test_client(), app.extensions["habitlab"]
    shown = {}
    for number in range(60):
        user = f"u{number % 7 + 1:07}"
        for item in client.get(f"/v1/recommend?user_id={user}&k={number % 3 + 1}&at={AT}").get_json()["items"]:
            key = user, number % 3 + 1, item["rank"]
            shown[key] = shown.get(key, 0) + 1
        if number % 20 == 0:
            service.exposures.flush()
    service.exposures.flush()
    found = rows(folder)
    assert found["times"].sum() == sum(shown.values())
    assert len(found) == len(shown)
    traffic = rows(folder, "traffic")
    assert traffic["answers"].sum() == 60
    assert sum(sum(json.loads(one).values()) for one in traffic["latencies"]) == 60


def test_many_lists_are_written_by_few_statements_and_nothing_of_strangers(app, folder):
    """Each statement is a turn at the interpreter, which other threads take meanwhile, and other writers wait."""
    service = app.extensions["habitlab"]
    log = ExposureLog(folder, "w", service.clock)
    for times in range(2):
        for number in range(1201):  # more rows than a statement takes, and no multiple of it
            log.show(USER if number else "stranger", ready(number), "memory", service.clock())
        statements = []
        with log._connections.use() as connection:
            connection.set_trace_callback(statements.append)
        log.flush()
        assert len(statements) < 10
        found = rows(folder)
        assert found["event_id"].tolist() == [f"{number:024}-{rank}" for number in range(1, 1201) for rank in (1, 2)]
        assert set(found["times"]) == {times + 1}
        assert found["propensity"].tolist() == [1.0, 0.25] * 1200


def test_a_request_for_the_head_alone_shows_nothing(app):
    service = app.extensions["habitlab"]
    assert app.test_client().head(LIST).status_code == 200
    assert service.exposures.waiting() == 0


def test_a_habit_shown_on_three_days_and_never_taken_makes_room_for_others(app, clock):
    """What the service itself showed counts for fatigue, each habit once a day."""
    client, service = app.test_client(), app.extensions["habitlab"]
    path = f"/v1/recommend?user_id={USER}"

    def look() -> dict:
        body = client.get(path).get_json()
        service.exposures.flush()
        clock.go(days=1)
        return body

    bodies = [look() for _ in range(4)]
    first = [{item["habit_id"] for item in body["items"][:-1]} for body in bodies]
    assert first[0] & first[1] & first[2]
    assert not first[0] & first[1] & first[2] & {item["habit_id"] for item in bodies[3]["items"]}
    assert bodies[3]["filtered"]["shown_often"] > bodies[0]["filtered"].get("shown_often", 0)


@pytest.fixture
def log(folder: Path, clock: Callable) -> ExposureLog:
    return ExposureLog(str(folder), "worker", clock, most=5)


def test_what_waits_is_lost_with_the_process_and_nothing_else(log, folder, clock):
    log.show(USER, ready(1), "memory", clock())
    log.flush()
    log.show(USER, ready(2), "memory", clock())
    assert log.waiting() == 1  # this one dies with the process
    assert rows(folder)["event_id"].tolist() == [f"{1:024}-1", f"{1:024}-2"]
    log.stop()  # an ordinary end writes it
    assert len(rows(folder)) == 4


def test_while_the_database_cannot_be_written_exposures_wait(log, folder, clock):
    with closing(state.connect(folder)) as other:
        other.execute("BEGIN IMMEDIATE")
        log._connections._wait = 0.01
        log.show(USER, ready(1), "memory", clock())
        log.took("memory", 0.002, clock())
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            log.flush()
        clock.go(seconds=5)
        log.show(USER, ready(1), "memory", clock())
        other.execute("ROLLBACK")
    log.flush()
    found = rows(folder)
    assert found["times"].tolist() == [2, 2]
    assert found["shown_at"].iloc[0] < found["last_shown_at"].iloc[0]
    assert rows(folder, "traffic")["answers"].tolist() == [1]


def test_when_too_many_wait_the_oldest_are_dropped_counted_and_reported(folder, clock, caplog):
    lost: list[int] = []
    log = ExposureLog(str(folder), "worker", clock, most=5, on_lost=lost.append)
    for number in range(8):
        log.show(USER, ready(number), "memory", clock())
    assert sum(lost) == 3
    assert "exposures of 1 answers are lost" in caplog.text
    assert USER not in caplog.text
    log.flush()
    assert sorted({name[:24] for name in rows(folder)["event_id"]}) == [f"{number:024}" for number in range(3, 8)]


def test_latencies_are_counted_by_their_bounds(log, folder, clock):
    for seconds in (0.0001, BOUNDS[0], 0.3, 100.0):
        log.took("computed", seconds, clock())
    log.flush()
    counts = json.loads(rows(folder, "traffic")["latencies"].iloc[0])
    assert counts[str(BOUNDS[0])] == 2
    assert (counts["0.5"], counts["inf"]) == (1, 1)
    log.took("computed", 0.3, clock())
    log.flush()
    assert rows(folder, "traffic")["answers"].tolist() == [5]
    clock.go(minutes=1)
    log.took("computed", 0.3, clock())
    log.flush()
    assert rows(folder, "traffic")["answers"].tolist() == [5, 1]


def test_two_workers_showing_the_same_list_count_together(make: Callable[..., Flask], folder):
    apps = [make(background=False) for _ in range(2)]
    for app in apps:
        app.test_client().get(LIST)
    for app in apps:
        app.extensions["habitlab"].exposures.flush()
    assert rows(folder)["times"].tolist() == [2] * 5
    assert sorted(rows(folder, "traffic")["served_from"]) == ["computed", "database"]
