"""The HTTP service: what it answers, and what it refuses (7.1.b, D102)."""

import json
import logging
import subprocess
import sys
from contextlib import closing

import pytest

import habitlab
from habitlab.serving import forgotten, openapi, state
from habitlab.serving.limits import Rate, Token, check_host, local_name, loopback, read_token

AT = "2024-05-06T07:30"
USER = "u0000002"
LIST = f"/v1/recommend?user_id={USER}&at={AT}"
EVENT = {
    "event_id": "e1",
    "user_id": USER,
    "kind": "rating",
    "habit_id": "h001",
    "rating": 4,
    "happened_at": "2024-05-06T07:00:00Z",
}


def test_7_1_b_the_body_is_that_of_the_command_and_says_which_level_served_it(app, world):
    client = app.test_client()
    for lang, level in (("en", "computed"), ("ru", "database")):  # a draw is one for all languages
        found = client.get(f"{LIST}&k=3&lang={lang}")
        body = found.get_json()
        assert (found.status_code, found.content_type) == (200, "application/json")
        assert body.pop("served_from") == level
        expected = habitlab.recommend(world, USER, k=3, at=AT, lang=lang).to_json()
        assert body == expected
        assert list(body) == list(expected)
        for item in body["items"]:
            assert sum(item["contributions"].values()) == pytest.approx(item["score"], abs=1e-9)
        assert client.get(f"{LIST}&k=3&lang={lang}").get_json() == expected | {"served_from": "memory"}


def test_7_1_b_without_a_moment_it_is_the_part_of_the_day_on_the_persons_own_clock(app, clock):
    client, service = app.test_client(), app.extensions["habitlab"]
    zone = service.profile(USER).zone
    assert zone
    first = client.get(f"/v1/recommend?user_id={USER}").get_json()
    clock.go(minutes=1)
    assert client.get(f"/v1/recommend?user_id={USER}").get_json()["served_from"] == "memory"
    clock.go(hours=12)
    later = client.get(f"/v1/recommend?user_id={USER}").get_json()
    assert later["served_from"] == "computed"
    assert first["user_id"] == later["user_id"] == USER


def test_7_1_b_an_unknown_language_is_english_with_a_warning(app):
    client = app.test_client()
    found = client.get(f"{LIST}&lang=xx")
    assert "there are no texts in `xx`" in found.headers["Warning"]
    english = client.get(LIST)
    assert "Warning" not in english.headers
    assert english.get_json()["served_from"] == "memory"  # the same list
    assert found.get_json()["items"] == english.get_json()["items"]


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, "user_id is needed"),
        ("user_id=", 400, "user_id is needed"),
        ("user_id=nobody", 404, "nobody has this user_id"),
        ("user_id=%ff", 400, "UTF-8"),
        ("user_id=a%00b", 400, "user_id"),
        ("user_id=" + "x" * 201, 400, "user_id"),
        (f"user_id={USER}&k=0", 400, "from 1 to 100"),
        (f"user_id={USER}&k=101", 400, "from 1 to 100"),
        (f"user_id={USER}&k=-1", 400, "from 1 to 100"),
        (f"user_id={USER}&k=2.5", 400, "from 1 to 100"),
        (f"user_id={USER}&k=٣", 400, "from 1 to 100"),
        (f"user_id={USER}&k=3&k=5", 400, "twice"),
        (f"user_id={USER}&n=3", 400, "known are user_id, k, lang, at"),
        (f"user_id={USER}&lang=../../etc/passwd", 400, "code of a language"),
        (f"user_id={USER}&at=tomorrow", 400, "a moment on the person's own clock"),
        (f"user_id={USER}&at=2026-01-05T07:30Z", 400, "without a zone"),
        (f"user_id={USER}&at=0001-01-01T00:00", 400, "from 2000 to 2100"),
        (f"user_id={USER}&at=2026-02-30T00:00", 400, "a moment"),
        ("user_id=' OR 1=1 --", 404, "nobody"),
        ("user_id=u0000001;DROP TABLE events", 404, "nobody"),
        ("user_id=../../service.db", 404, "nobody"),
        ("user_id=u0000002%0d%0aSet-Cookie:%20a=b", 400, "user_id"),
    ],
)
def test_7_1_b_what_is_wrong_is_refused_with_what_would_be_right(app, query, status, message):
    found = app.test_client().get(f"/v1/recommend?{query}")
    assert found.status_code == status
    assert message in found.get_json()["error"]
    assert "Set-Cookie" not in found.headers
    assert app.test_client().get(LIST).status_code == 200


def test_7_1_b_an_unknown_id_names_nobody_else(app):
    assert "u00" not in app.test_client().get("/v1/recommend?user_id=u000001").get_data(as_text=True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/v1/../service.db", 404),
        ("get", "/static/../../etc/passwd", 404),
        ("get", "/v1/events", 405),
        ("post", "/v1/recommend", 405),
        ("get", "/", 404),
    ],
)
def test_7_1_b_there_is_nothing_else(app, method, path, status):
    found = app.test_client().open(path, method=method)
    assert found.status_code == status
    assert found.get_json()["error"]


def test_7_1_b_health_readiness_metrics_and_openapi(app):
    client = app.test_client()
    client.get(LIST)
    client.get(LIST)
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").get_json()["ready"]
    text = client.get("/metrics").get_data(as_text=True)
    assert 'habitlab_answer_seconds_count{served_from="memory"} 1.0' in text
    assert 'habitlab_answer_seconds_count{served_from="computed"} 1.0' in text
    assert client.get("/openapi.json").get_json() == json.loads(json.dumps(openapi.document()))


def test_7_2_a_somebody_newly_registered_is_cached_as_anybody(app):
    client = app.test_client()
    user = client.post("/v1/users", json={"age": 44}).get_json()["user_id"]
    found = [client.get(f"/v1/recommend?user_id={user}&at={AT}") for _ in range(2)]
    assert [one.get_json()["served_from"] for one in found] == ["computed", "memory"]
    assert not any("Warning" in one.headers for one in found)


def test_7_1_b_somebody_new_registers_and_gets_a_list(app, make, world):
    client = app.test_client()
    answers = {"age": 31, "zone": "Europe/Berlin", "improvement_areas": ["finance"], "time_commitment": 20}
    found = client.post("/v1/users", json=answers)
    assert found.status_code == 201
    user = found.get_json()["user_id"]
    body = client.get(f"/v1/recommend?user_id={user}&at={AT}").get_json()
    assert body["user_id"] == user
    expected = habitlab.recommend(world, answers, at=AT)
    assert [item["habit_id"] for item in body["items"][:-1]] == [item.habit_id for item in expected.items[:-1]]
    again = make(background=False)  # it outlives the process
    assert again.test_client().get(f"/v1/recommend?user_id={user}&at={AT}").get_json()["items"] == body["items"]


def test_7_1_b_a_registration_sent_again_makes_nobody_new(app, make, folder, clock):
    client, headers = app.test_client(), {"Idempotency-Key": "request-1"}
    first = client.post("/v1/users", json={"age": 31}, headers=headers)
    again = client.post("/v1/users", json={"age": 31}, headers={"Idempotency-Key": '"request-1"'})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.get_json() == again.get_json()
    other = make(background=False).test_client()  # another worker, or after a restart
    assert other.post("/v1/users", json={"age": 31}, headers=headers).get_json() == first.get_json()
    assert other.post("/v1/users", json={"age": 32}, headers=headers).status_code == 409
    assert other.post("/v1/users", json={"age": 31}, headers={"Idempotency-Key": "a b"}).status_code == 400
    one, two = (client.post("/v1/users", json={"age": 31}).get_json() for _ in range(2))
    assert one != two
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT count(*) FROM profiles").fetchone() == (3,)
    forgotten.mark(folder, first.get_json()["user_id"], forgotten.DONE, clock())
    assert client.post("/v1/users", json={"age": 31}, headers=headers).status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"age": 7}', 422, "age: 7 is below 13"),
        (b'{"email": "ann@example.org"}', 422, "never kept"),
        (b"{", 400, "not a JSON object"),
        (b"[]", 400, "not a JSON object"),
        (b"\xff", 400, "not a JSON object"),
        (b"[" * 100_000, 400, "not a JSON object"),
    ],
)
def test_7_1_b_a_registration_that_cannot_be_taken_says_why(app, body, status, message):
    found = app.test_client().post("/v1/users", data=body, content_type="application/json")
    assert found.status_code == status
    assert message in found.get_data(as_text=True)
    assert "ann@example.org" not in found.get_data(as_text=True)


def test_7_1_b_a_body_has_to_be_json_and_not_too_large(app):
    client = app.test_client()
    assert client.post("/v1/events", data=json.dumps(EVENT)).status_code == 415
    assert client.post("/v1/events", json=EVENT | {"comment": "x" * (2 << 20)}).status_code == 413
    deep = client.post("/v1/events", data=b"[" * 500_000, content_type="application/json")
    assert deep.status_code == 400
    assert client.post("/v1/events", json=[EVENT | {"event_id": str(i)} for i in range(1001)]).status_code == 422


TOKEN = "correct-horse"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer \xe9\xff"],
)
def test_7_1_b_without_the_right_token_nobody_is_let_in(make, header):
    client = make(token=TOKEN, background=False).test_client()
    headers = {} if header is None else {"Authorization": header}
    for path in (LIST, "/metrics", "/openapi.json", "/nowhere"):
        found = client.get(path, headers=headers)
        assert (found.status_code, found.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.post("/v1/events", json=EVENT, headers=headers).status_code == 401
    assert client.get("/healthz", headers=headers).status_code == 200


def test_7_1_b_with_the_right_token_from_anywhere(make):
    client = make(token=TOKEN, background=False).test_client()
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "habits.example.org"}
    assert client.get(LIST, headers=headers).status_code == 200


def test_7_1_b_the_token_is_compared_in_constant_time(monkeypatch):
    calls = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: calls.append((a, b)) or a == b)
    assert not Token(TOKEN).fits("Bearer c")
    assert Token(TOKEN).fits(f"bearer {TOKEN}")
    assert calls == [(b"c", TOKEN.encode()), (TOKEN.encode(), TOKEN.encode())]


def test_7_1_b_without_a_token_no_web_page_reaches_in_under_another_name(app):
    client = app.test_client()
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        assert client.get(LIST, headers={"Host": host}).status_code == 400
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert local_name(host)
        assert client.get(LIST, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_7_1_b_a_loopback_address_needs_no_token(host):
    assert loopback(host)
    check_host(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "0"])
def test_7_1_b_any_other_address_does(host):
    with pytest.raises(ValueError, match="--token-file"):
        check_host(host, None)
    check_host(host, TOKEN)


def test_7_1_b_a_name_counts_by_all_its_addresses(monkeypatch):
    found = [(2, 1, 6, "", ("127.0.0.1", 0)), (2, 1, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: found)
    assert not loopback("mixed.example")


def test_7_1_b_the_command_ends_with_2_off_loopback_without_a_token(world):
    for arguments in (["--host", "0.0.0.0"], ["--host", "::"], ["--host", "0.0.0.0", "--token-file", "nowhere"]):
        command = [sys.executable, "-m", "habitlab", "serve", "--data", str(world), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2
        assert "token" in ended.stderr
        assert ended.stderr.count("\n") <= 2


def test_7_1_b_a_token_file_holds_one_word(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN
    for text in ("", "two words", "schlüssel"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="holds no token"):
            read_token(file)


def test_7_1_b_nobody_may_ask_too_often(make):
    client = make(rate=5.0, background=False).test_client()
    statuses = [client.get("/openapi.json").status_code for _ in range(12)]
    assert statuses[:10] == [200] * 10
    assert statuses[-1] == 429
    assert client.get("/healthz").status_code == 200  # whoever looks whether it lives is not told that it does not
    other = client.get("/openapi.json", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert other.status_code == 200


def test_7_1_b_the_rate_fills_up_again():
    now = [0.0]
    rate = Rate(2.0, clock=lambda: now[0])
    assert [rate.allows("a") for _ in range(5)] == [True] * 4 + [False]
    now[0] = 0.5
    assert [rate.allows("a") for _ in range(2)] == [True, False]


def test_7_1_b_logs_hold_nothing_personal(app, caplog, monkeypatch):
    client, service = app.test_client(), app.extensions["habitlab"]
    caplog.set_level(logging.DEBUG)
    client.get(LIST)
    client.post("/v1/events", json=EVENT | {"comment": "my secret"})
    client.post("/v1/events", json=EVENT | {"comment": "my other secret", "rating": 9})
    client.post("/v1/users", json={"age": 31, "barriers": "my secret"})

    personal = f"{USER}: my secret"

    def fail(*arguments: object) -> None:
        raise KeyError(personal)

    monkeypatch.setattr(service, "recommend", fail)
    assert client.get(LIST).status_code == 500
    assert "a mistake in HabitLab" in caplog.text
    for word in ("secret", USER):
        assert word not in caplog.text


def test_7_1_b_two_apps_count_for_themselves(make):
    one, other = make(background=False), make(background=False)
    one.test_client().get(LIST)
    assert "habitlab_computed_total 0.0" in other.test_client().get("/metrics").get_data(as_text=True)
