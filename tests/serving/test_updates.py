"""Events in, and what the next answer makes of them (7.1.d, 8.3.a)."""

import itertools
import json
import sqlite3
import statistics
import threading
import time
from contextlib import closing
from typing import Any

import pytest

from habitlab.serving import state, updater
from habitlab.serving.events import EventError, parse, read_after

AT = "2024-05-06T07:30"
USER = "u0000002"
LIST = f"/v1/recommend?user_id={USER}&at={AT}"
_numbers = itertools.count()


def event(kind: str, **special: Any) -> dict[str, Any]:
    common = {"event_id": f"t{next(_numbers)}", "user_id": USER, "happened_at": "2024-05-06T07:00:00Z"}
    return common | {"kind": kind} | special


def habits(client: Any, path: str = LIST) -> list[str]:
    return [item["habit_id"] for item in client.get(path).get_json()["items"]]


def test_7_1_d_a_rejected_habit_is_gone_from_the_next_answer(app):
    client = app.test_client()
    first = habits(client)[0]
    assert client.get(LIST).get_json()["served_from"] == "memory"
    found = client.post("/v1/events", json=event("response", habit_id=first, response="rejected"))
    assert found.status_code == 201
    body = client.get(LIST).get_json()
    assert body["served_from"] == "computed"
    assert first not in [item["habit_id"] for item in body["items"]]
    assert body["filtered"]["rejected"] >= 1


def test_7_1_d_an_adopted_habit_is_held_and_a_given_up_one_rests(app):
    client = app.test_client()
    before = client.get(LIST).get_json()
    first, second = (item["habit_id"] for item in before["items"][:2])
    client.post("/v1/events", json=[event("adoption", habit_id=first), event("completion", habit_id=second)])
    after = client.get(LIST).get_json()
    assert after["filtered"]["held"] == before["filtered"].get("held", 0) + 2
    assert not {first, second} & {item["habit_id"] for item in after["items"]}
    client.post("/v1/events", json=event("abandonment", habit_id=first, happened_at="2024-05-06T07:10:00Z"))
    last = client.get(LIST).get_json()
    assert last["filtered"]["held"] == after["filtered"]["held"] - 1
    assert last["filtered"]["given_up"] == after["filtered"].get("given_up", 0) + 1


def test_7_1_d_completions_raise_the_chances_of_success_and_misses_lower_them(app):
    client = app.test_client()

    def chance() -> float:
        return max(item["success_probability"] for item in client.get(f"{LIST}&k=100").get_json()["items"])

    chances = [chance()]
    for status, month in (("done", 3), ("missed", 4)):
        told = [
            event("completion", habit_id="h001", status=status, date=f"2023-0{month}-{day:02}")
            for day in range(1, 29)
        ]  # fmt: skip
        client.post("/v1/events", json=told)
        chances.append(chance())
    assert chances[1] > chances[0]
    assert chances[2] < chances[1]


def test_7_1_d_an_event_counts_once_however_often_it_is_sent(app):
    client, told = app.test_client(), event("completion", habit_id="h001")
    first = client.post("/v1/events", json=told)
    assert (first.status_code, first.get_json()["accepted"]) == (201, 1)
    again = client.post("/v1/events", json=[told, told])
    assert again.status_code == 200
    assert again.get_json() == {
        "accepted": 0,
        "duplicates": 2,
        "results": [{"event_id": told["event_id"], "status": "duplicate"}] * 2,
    }
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        assert len(read_after(connection, 0)) == 1
        (body,) = connection.execute("SELECT body FROM features WHERE user_id = ?", (USER,)).fetchone()
        assert json.loads(body)["habits"]["h001"]["done"] >= 1
        assert connection.execute("SELECT version FROM profiles WHERE user_id = ?", (USER,)).fetchone() == (1,)


def test_7_1_d_one_id_with_two_contents_is_a_conflict_and_keeps_nothing(app):
    client, told = app.test_client(), event("rating", habit_id="h001", rating=4)
    client.post("/v1/events", json=told)
    found = client.post("/v1/events", json=[event("adoption", habit_id="h002"), told | {"rating": 5}])
    assert found.status_code == 409
    assert found.get_json()["problems"][0] == {
        "index": 1,
        "field": "event_id",
        "problem": "is known already, with another content",
    }
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        assert len(read_after(connection, 0)) == 1


def test_7_1_d_a_list_is_kept_whole_or_not_at_all(app):
    client = app.test_client()
    bad = [
        (event("adoption", habit_id="h001", user_id="nobody"), 404, "nobody has this user_id"),
        (event("adoption", habit_id="nothing"), 404, "no habit has this habit_id"),
        (event("adoption", habit_id="h001", happened_at="2024-05-06T08:06:00Z"), 422, "in the future"),
        (event("adoption", habit_id="h001", happened_at="1999-05-06T08:06:00Z"), 422, "nothing happened before"),
        (event("adoption", habit_id="h001", happened_at="2024-05-06T07:00:00"), 422, "timezone"),
        (event("sabotage"), 422, "is one of completion, adoption"),
        (event("rating", habit_id="h001", rating=6), 422, "less than or equal to 5"),
        (event("adoption", habit_id="h001", extra=1), 422, "not permitted"),
        (event("adoption", habit_id="h001", event_id="a b"), 422, "pattern"),
        (event("adoption", habit_id="h001", event_id="x'; DROP TABLE events; --"), 422, "pattern"),
        (event("completion", habit_id="h001", date="2024-05-08"), 422, "date is from"),
        (event("completion", habit_id="h001", date="9999-12-31"), 422, "date is from"),
        (event("completion", habit_id="h001", date="0001-01-01"), 422, "date is from"),
        (
            event("completion", habit_id="h001", date="2024-05-06", happened_at="9999-12-31T23:59:00-14:00"),
            422,
            "future",
        ),
        ({}, 422, "is one of completion, adoption"),
    ]
    for wrong, status, message in bad:
        found = client.post("/v1/events", json=[event("adoption", habit_id="h001"), wrong])
        assert found.status_code == status, wrong
        assert found.get_json()["problems"][0]["index"] == 1
        assert message in found.get_json()["problems"][0]["problem"]
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        assert read_after(connection, 0) == []


@pytest.mark.parametrize(("wrong", "field"), [
    ({"kind": "response", "habit_id": "h001"}, "response"),
    ({"kind": "response", "habit_id": "h001", "response": "shrug"}, "response"),
    ({"kind": "rating", "habit_id": "h001"}, "rating"),
    ({"kind": "survey", "question": "q", "answer": 1.0}, "survey"),
    ({"kind": "sabotage"}, "kind"),
    ({"kind": "consent", "purpose": "profiling", "granted": True, "extra": 1}, "extra"),
])  # fmt: skip
def test_7_1_b_a_wrong_event_is_told_by_its_field(app, wrong, field):
    common = {"event_id": "e", "user_id": USER, "happened_at": "2024-05-06T07:00:00Z"}
    for body in (common | wrong, [common | wrong]):
        found = app.test_client().post("/v1/events", json=body)
        assert found.status_code == 422
        assert [problem["field"] for problem in found.get_json()["problems"]] == [field]


def test_7_1_d_a_clock_a_little_ahead_is_forgiven_and_one_that_jumps_back_refuses_clearly(app, clock):
    client = app.test_client()
    told = event("adoption", habit_id="h001", happened_at="2024-05-06T08:04:00Z")
    assert client.post("/v1/events", json=told).status_code == 201
    clock.go(days=-300)
    found = client.post("/v1/events", json=event("adoption", habit_id="h002"))
    assert found.status_code == 422
    assert "it is 2023-07-11T08:00:00.000000Z here" in found.get_data(as_text=True)
    assert client.get(LIST).status_code == 200


def test_7_1_d_events_out_of_order_end_in_the_same_list(make, folder, tmp_path):
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    told = [
        event("adoption", habit_id="h001", happened_at="2024-05-01T07:00:00Z"),
        event("abandonment", habit_id="h001", happened_at="2024-05-02T07:00:00Z"),
        event("completion", habit_id="h002", status="missed", happened_at="2024-05-03T07:00:00Z"),
        event("completion", habit_id="h002", status="done", happened_at="2024-05-03T08:00:00Z"),
    ]
    bodies = []
    for place, order in ((folder, told), (other, told[::-1])):
        client = make(state=place, background=False).test_client()
        for one in order:
            assert client.post("/v1/events", json=one).status_code == 201
        bodies.append(client.get(LIST).get_json())
    assert bodies[0] == bodies[1]


def seconds_until_seen(one: Any, other: Any) -> float:
    """Seconds from sending a rejection to one worker until the list of another is without the habit."""
    first = habits(other)[0]
    begin = time.monotonic()
    assert one.post("/v1/events", json=event("response", habit_id=first, response="rejected")).status_code == 201
    while first in habits(other):
        assert time.monotonic() - begin < 20
        time.sleep(0.01)
    return time.monotonic() - begin


def test_7_1_d_another_worker_sees_it_within_a_second_while_200_requests_a_second_are_answered(make):
    one, other = make(background=True).test_client(), make(background=True)
    paths = [f"/v1/recommend?user_id=u{number:07}&at={AT}" for number in range(10, 40)]
    stop, answered = threading.Event(), [other.test_client().get(path).status_code for path in paths]

    def ask() -> None:
        client, begin, number = other.test_client(), time.monotonic(), 0
        while not stop.wait(max(0.0, begin + number / 200 - time.monotonic())):
            answered.append(client.get(paths[number % len(paths)]).status_code)
            number += 1

    load = threading.Thread(target=ask)
    load.start()
    begin, seen = time.monotonic(), [seconds_until_seen(one, other.test_client()) for _ in range(8)]
    stop.set()
    load.join()
    assert set(answered) == {200}
    assert statistics.median(seen) < 1  # the median, for others use this machine as well
    assert len(answered) - len(paths) > 50 * (time.monotonic() - begin)


def test_7_1_d_a_clock_that_jumps_ahead_and_back_loses_nothing_and_answers_go_on(app, clock):
    client = app.test_client()
    now = f"/v1/recommend?user_id={USER}"
    told = [event("adoption", habit_id="h001")]
    assert client.post("/v1/events", json=told).status_code == 201
    assert client.get(now).status_code == 200
    clock.go(days=800)
    told.append(event("completion", habit_id="h001"))
    assert client.post("/v1/events", json=told).get_json() | {"results": 0} == {
        "accepted": 1,
        "duplicates": 1,
        "results": 0,
    }
    assert client.get(now).get_json()["served_from"] == "computed"
    clock.go(days=-800)
    told.append(event("rating", habit_id="h001", rating=4))
    assert client.post("/v1/events", json=told).get_json()["duplicates"] == 2
    assert client.get(now).get_json()["filtered"]["held"] >= 1
    app.extensions["habitlab"].exposures.flush()
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        assert [one.event_id for one in read_after(connection, 0)] == [one["event_id"] for one in told]
        assert connection.execute("SELECT count(*) FROM exposures WHERE position = 1").fetchone() == (3,)


def test_7_1_d_somebody_who_registered_at_another_worker_is_known_at_once(make):
    one, other = make(background=False).test_client(), make(background=False).test_client()
    user = one.post("/v1/users", json={"age": 40}).get_json()["user_id"]
    assert other.get(f"/v1/recommend?user_id={user}&at={AT}").status_code == 200


def test_7_1_d_events_of_somebody_who_registered_here_count_too(app):
    client = app.test_client()
    user = client.post("/v1/users", json={"age": 40, "zone": "Asia/Tokyo"}).get_json()["user_id"]
    path = f"/v1/recommend?user_id={user}&at={AT}"
    first = habits(client, path)[0]
    client.post("/v1/events", json=event("response", habit_id=first, response="rejected", user_id=user))
    assert first not in habits(client, path)


def test_9_2_d_who_opts_out_gets_the_list_of_nobody_and_back(app):
    client = app.test_client()
    personal = client.get(LIST).get_json()
    client.post("/v1/events", json=event("consent", purpose="personalisation", granted=False))
    general = client.get(LIST).get_json()
    anybody = client.post("/v1/users", json={"consents": {"personalisation": False}}).get_json()["user_id"]
    other = client.get(f"/v1/recommend?user_id={anybody}&at={AT}").get_json()
    assert general["items"] == other["items"]
    assert general["items"] != personal["items"]
    assert general["user_id"] == USER
    later = {"happened_at": "2024-05-06T07:59:00Z"}
    client.post("/v1/events", json=event("consent", purpose="personalisation", granted=True, **later))
    assert client.get(LIST).get_json()["items"] == personal["items"]


def test_d9_who_withdraws_profiling_gets_a_list_that_concludes_nothing_from_what_they_do(app, recommender):
    client = app.test_client()
    path = f"{LIST}&k=100"

    def scores() -> dict[str, float]:
        return {item["habit_id"]: item["score"] for item in client.get(path).get_json()["items"]}

    def month_of(status: str, month: int) -> None:
        told = [event("completion", habit_id="h001", status=status, date=f"2023-0{month}-{day:02}")
                for day in range(1, 29)]  # fmt: skip
        assert client.post("/v1/events", json=told).status_code == 201

    profiled = scores()
    client.post("/v1/events", json=event("consent", purpose="profiling", granted=False))
    careful = scores()
    assert careful != profiled
    expected = {item.habit_id: item.score for item in recommender.recommend(USER, 100, AT, profiled=False).items}
    assert careful == expected
    month_of("done", 3)
    assert scores() == {habit: score for habit, score in careful.items() if habit != "h001"}  # which is held now
    later = {"happened_at": "2024-05-06T07:59:00Z"}
    client.post("/v1/events", json=event("consent", purpose="profiling", granted=True, **later))
    back = scores()
    assert back.keys() <= profiled.keys()
    assert sum(back[habit] > profiled[habit] for habit in back) > len(back) / 2  # and what was done counts again


@pytest.mark.parametrize(("record", "moves"), [
    ({"age": 15}, False),
    ({"age": 15, "consents": {"profiling": True}}, True),
    ({"age": 40}, True),
    ({"age": 40, "consents": {"profiling": False}}, False),
])  # fmt: skip
def test_d9_days_of_minors_who_register_move_nothing_unless_it_was_allowed(app, record, moves):
    client = app.test_client()
    user = client.post("/v1/users", json=record).get_json()["user_id"]
    path = f"/v1/recommend?user_id={user}&at={AT}&k=100"

    def chances() -> dict[str, float]:
        return {item["habit_id"]: item["success_probability"] for item in client.get(path).get_json()["items"]}

    before = chances()
    told = [event("completion", user_id=user, habit_id="h001", date=f"2023-03-{day:02}") for day in range(1, 29)]
    assert client.post("/v1/events", json=told).status_code == 201
    after = chances()
    both = before.keys() & after.keys()
    assert len(both) > 50
    assert any(after[habit] != before[habit] for habit in both) == moves


def test_9_2_d_who_refused_in_the_data_gets_it_from_the_start(app, world):
    from habitlab import open_dataset
    from habitlab.dataset.vocabulary import Purpose
    from habitlab.models.interactions import refused

    client = app.test_client()
    opted_out = sorted(refused(open_dataset(world), Purpose.PERSONALISATION))
    assert opted_out
    lists = [habits(client, f"/v1/recommend?user_id={user}&at={AT}") for user in opted_out]
    assert all(one == lists[0] for one in lists)


def test_7_1_d_what_was_not_applied_before_a_crash_is_applied_at_the_next_start(make, folder):
    told = parse(json.dumps(event("adoption", habit_id="h001")).encode())
    from habitlab.serving import events

    client = make(background=False).test_client()
    before = client.get(LIST).get_json()["filtered"].get("held", 0)
    with closing(state.connect(folder)) as connection:
        with state.transaction(connection):
            events.append(connection, told, told[0].happened_at)
        assert updater.waiting(connection) == 1
    again = make(background=False).test_client()
    assert again.get(LIST).get_json()["filtered"]["held"] == before + 1
    with closing(state.connect(folder)) as connection:
        assert updater.waiting(connection) == 0


def test_7_1_d_an_updater_that_fails_loses_no_event(app, monkeypatch):
    client = app.test_client()
    apply = updater.apply

    def fail(*arguments: Any, **named: Any) -> list[str]:
        apply(*arguments, **named)
        raise ValueError("a mistake")

    monkeypatch.setattr(updater, "apply", fail)
    assert client.post("/v1/events", json=event("adoption", habit_id="h001")).status_code == 201
    monkeypatch.undo()
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        assert updater.waiting(connection) == 1  # what it had half done was taken back
    client.post("/v1/events", json=event("adoption", habit_id="h002"))
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        assert updater.waiting(connection) == 0
        assert connection.execute("SELECT version FROM profiles").fetchall() == [(1,)]


def test_7_1_d_many_at_once_all_count_once(app):
    told = [event("completion", habit_id=f"h{n % 5 + 1:03}", date=f"2023-01-{n % 28 + 1:02}") for n in range(60)]
    clients = [app.test_client() for _ in range(6)]
    threads = [
        threading.Thread(target=lambda c=client, n=number: [c.post("/v1/events", json=one) for one in told[n % 3 :]])
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(state.connect(app.extensions["habitlab"].folder)) as connection:
        kept = read_after(connection, 0)
        assert sorted(one.event_id for one in kept) == sorted(one["event_id"] for one in told)
        assert updater.waiting(connection) == 0


def test_events_are_in_the_order_of_arrival_and_cannot_be_read_wrongly():
    with pytest.raises(EventError):
        parse(b"")
    with pytest.raises(EventError):
        parse(b"[]")
    with pytest.raises(ValueError, match="has a zone"):
        state.stamp(__import__("datetime").datetime(2024, 1, 1))


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    def half(connection: sqlite3.Connection) -> None:
        with state.transaction(connection):
            state.set_meta(connection, "key", "value")
            raise KeyError("no")

    with closing(state.connect(tmp_path)) as connection:
        with pytest.raises(KeyError):
            half(connection)
        assert state.meta(connection, "key") is None
