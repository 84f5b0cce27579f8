"""`habitlab serve` as processes: it begins, answers, ends, and is killed under load (7.1.b, 7.1.d)."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from habitlab.serving.server import _check_address, _prepare, serve
from tests.serving.test_faults import all_counted_once

AT = "2024-05-06T07:30"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """A connection that is kept, and made anew after an error."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            sent = None if body is None else json.dumps(body)
            self._connection.request(method, path, sent, {"Content-Type": "application/json"} | headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection = None
            return 0, b""


def tell(port: int, request: bytes) -> bytes:
    """Send what no library would, and return the begin of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(4096)


@contextmanager
def serving(world: Path, folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server that is ready, in a group of processes of its own; ended as Ctrl-C does."""
    port = free_port()
    command = [sys.executable, "-m", "habitlab", "serve", "--data", str(world), "--state", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", str(port), *arguments], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        client = Client(port)
        for _ in range(1200):
            if client.ask("GET", "/healthz")[0] == 200:
                break
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        yield process, port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)


def test_7_1_b_the_command_serves_two_workers_with_redis_and_a_token_and_ends_orderly(
    world, folder, recommender, redis, tmp_path
):
    (tmp_path / "token").write_text("correct-horse\n")
    settings = ["--workers", "2", "--redis", redis.url, "--token-file", str(tmp_path / "token")]
    with serving(world, folder, *settings) as (process, port):
        client, token = Client(port), {"Authorization": "Bearer correct-horse"}
        path = f"/v1/recommend?user_id=u0000002&at={AT}"
        assert client.ask("GET", path)[0] == 401
        levels = [json.loads(Client(port).ask("GET", path, **token)[1])["served_from"] for _ in range(12)]
        assert levels == ["computed"] + ["redis"] * 11  # shared by both workers
        missed = [
            threading.Thread(target=Client(port).ask, args=("GET", f"{path}&k=7"), kwargs=token) for _ in range(16)
        ]
        for thread in missed:
            thread.start()
        for thread in missed:
            thread.join()
        made = re.search(r"^habitlab_computed_total (\S+)", client.ask("GET", "/metrics", **token)[1].decode(), re.M)
        assert float(made[1]) == 2  # one for each key, by whichever process (7.2.c)
        broken = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer correct-horse\r\n"
        broken += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}"
        assert tell(port, broken).startswith(b"HTTP/1.1 400")
        assert tell(port, f"GET {path} HTTP/9.9\r\n\r\n".encode()).startswith(b"HTTP/1.1 400")
        long = b'{"event_id": "e0", "user_id": "u0000002"}' + b" " * 3_000_000 + b"trailing garbage"
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (long[:65_536], long[65_536:])) + b"0\r\n\r\n"
        assert tell(port, broken.removesuffix(b"ZZ\r\n{}") + pieces).startswith(b"HTTP/1.1 413")
        event = {
            "event_id": "e1",
            "user_id": "u0000002",
            "kind": "adoption",
            "habit_id": "h001",
            "happened_at": "2024-05-06T07:00:00Z",
        }
        assert client.ask("POST", "/v1/events", event, **token)[0] == 201
        time.sleep(1)  # what the other worker may take
        held = {json.loads(Client(port).ask("GET", path, **token)[1])["filtered"]["held"] for _ in range(12)}
        assert len(held) == 1
        text = client.ask("GET", "/metrics", **token)[1].decode()
        answers = re.findall(r"^habitlab_answer_seconds_count\S* (\S+)", text, re.M)
        assert sum(map(float, answers)) == 24 + 16  # of both workers
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert "u0000002" not in said
        assert "Traceback" not in said
        assert process.returncode == 0
    import sqlite3

    with sqlite3.connect(folder / "service.db") as connection:
        assert connection.execute("SELECT sum(times) FROM exposures WHERE position = 1").fetchone() == (24 + 16,)


def test_7_1_b_off_loopback_a_token_is_asked_for_before_anything_else(tmp_path):
    for host in ("0.0.0.0", "::"):
        with pytest.raises(ValueError, match="--token-file"):
            serve(tmp_path / "nothing.db", host=host)
    with pytest.raises(FileNotFoundError, match="no token file"):
        serve(tmp_path / "nothing.db", token_file=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no dataset"):
        serve(tmp_path / "nothing.db")
    with pytest.raises(ValueError, match="URL"):
        serve(tmp_path / "nothing.db", redis="not a url")


def test_7_1_b_a_port_that_is_taken_is_said_before_anything_is_fitted(world, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is taken: .* another --port"):
            serve(world, port=port, state=tmp_path / "state")
    assert not (tmp_path / "state").exists()
    with pytest.raises(ValueError, match="cannot be bound to"):
        _check_address("192.0.2.1", 8000)


def test_7_1_b_a_damaged_database_is_named_at_the_start(world, recommender, tmp_path, capsys):
    (tmp_path / "service.db").write_bytes(b"no database" * 5000)
    assert _prepare(str(world), str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "service.db") in said
    assert "put back a copy" in said


_BARE = """
    import sys
    from flask import Flask
    from habitlab.serving import server

    def load():
        app = Flask("bare")
        app.config["MAX_CONTENT_LENGTH"] = 1 << 20
        app.add_url_rule("/", view_func=lambda: "")
        app.add_url_rule("/large", "large", lambda: "x" * 10_000_000)
        app.add_url_rule("/", "read", lambda: "read", methods=["POST"])
        return app

    server.LONGEST_READING = 1.5
    server.run(load, "127.0.0.1:" + sys.argv[1], threads=2)
"""


@pytest.fixture(scope="module")
def bare() -> Iterator[int]:
    """The port of a server with two threads, which waits 1.5 s for what a client sends, and as long for it to read."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(_BARE), str(port)], stderr=subprocess.DEVNULL) as one:
        while Client(port).ask("GET", "/")[0] != 200:
            assert one.poll() is None
            time.sleep(0.05)
        yield port
        one.terminate()


def stalled(port: int, request: bytes) -> socket.socket:
    """A client that sends this and then neither reads nor leaves."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    one.connect(("127.0.0.1", port))
    one.settimeout(0.2)
    with contextlib.suppress(OSError):
        one.sendall(request)
    return one


@pytest.mark.parametrize(
    ("request_", "seconds"),
    [
        (b"", 0.5),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 0.5),
        (b"nonsense\r\n\r\n", 0.5),
        (b"GET / HTTP/1.1\r\nHost: loc", 3.0),
        (b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", 5.0),  # and never reads what it gets
    ],
)
def test_7_1_b_clients_that_stall_stop_nobody_for_long(bare, request_, seconds):
    clients = [stalled(bare, request_) for _ in range(2 if seconds > 1 else 12)]
    time.sleep(0.5)  # until they hold what they can
    begin = time.monotonic()
    while Client(bare).ask("GET", "/")[0] != 200:
        assert time.monotonic() - begin < seconds + 10
    waited = time.monotonic() - begin
    for one in clients:
        one.close()
    assert waited < seconds + 1  # others use this machine as well


def test_7_1_b_an_answer_arrives_whole_where_the_body_was_not_wanted(bare):
    with socket.create_connection(("127.0.0.1", bare), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        connection.sendall(b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_7_1_b_headers_of_a_proxy_change_nothing(bare):
    for name in (b"Script_Name: /a", b"Path_Info: /a", b"X-Forwarded-Proto: https", b"Remote_User: a"):
        answer = tell(bare, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + name + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), name


@pytest.mark.long
def test_7_1_b_stalled_clients_stop_nobody_for_long(world, folder, recommender):
    with serving(world, folder, "--threads", "2") as (_, port):
        stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
        for connection in stalled[:3]:
            connection.sendall(b"GET /heal")
        for connection in stalled[3:]:
            connection.sendall(b"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            connection.sendall(b"Content-Length: 50\r\n\r\n{}")
        for _ in range(4):  # each waits at most 20 s
            if (status := Client(port).ask("GET", "/healthz")[0]) == 200:
                break
        assert status == 200
        for connection in stalled:
            connection.close()


@pytest.mark.long
@pytest.mark.timeout(900)  # it starts five servers
def test_7_1_d_a_server_killed_at_random_under_load_loses_nothing(world, folder, recommender):
    """Clients send every event until it is confirmed; the whole server or a worker dies at any moment."""
    random_ = random.Random(0)
    confirmed: list[str] = []
    sent: list[str] = []
    for run in range(5):
        with serving(world, folder, "--workers", "2") as (process, port):
            stop = threading.Event()

            def load(name: str, port: int = port, stop: threading.Event = stop) -> None:
                client, number = Client(port), 0
                while not stop.is_set():
                    number += 1
                    event = {
                        "event_id": f"{name}-{number}",
                        "user_id": f"u{number % 5 + 1:07}",
                        "kind": "completion",
                        "habit_id": f"h{number % 9 + 1:03}",
                        "happened_at": "2024-05-06T07:00:00Z",
                        "date": f"20{number // 28 % 20:02}-01-{number % 28 + 1:02}",
                    }
                    sent.append(event["event_id"])
                    while not stop.is_set():
                        status, _ = client.ask("POST", "/v1/events", event)
                        if status in (200, 201):
                            confirmed.append(event["event_id"])
                            break
                        assert status in (0, 503)
                        time.sleep(0.01)
                    client.ask("GET", f"/v1/recommend?user_id={event['user_id']}&at={AT}")

            threads = [threading.Thread(target=load, args=(f"r{run}c{client}",)) for client in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(random_.uniform(0.5, 3))
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(random_.choice(children)), signal.SIGKILL)  # one worker: the other goes on
            time.sleep(random_.uniform(1, 4))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            stop.set()
            for thread in threads:
                thread.join()
        all_counted_once(folder, confirmed)
    assert len(confirmed) > 50
    assert len(confirmed) == len(set(confirmed))
    assert set(confirmed) <= set(sent)
