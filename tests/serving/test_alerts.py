"""7.3.d Alerts: to a file, a log or a webhook, each once, with a cool-down; a failing sink breaks nothing."""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from habitlab.serving.monitoring.alerts import Alert, send, to_file, to_log, to_webhook

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def alert(key: str = "latency", hours: float = 0.0) -> Alert:
    return Alert(key, NOON + hours * HOUR, "it is slow", value=1.5, expected=float("nan"))


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict]]]:
    """A web server on loopback that keeps what is posted to it."""
    posted: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # where a redirection leads
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            if self.path.endswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                return
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_7_3_d_file_log_and_webhook(tmp_path: Path, hook: tuple, caplog: pytest.LogCaptureFixture) -> None:
    url, posted = hook
    sinks = {"file": to_file(tmp_path / "logs" / "alerts.jsonl"), "log": to_log(), "web": to_webhook(url)}
    with caplog.at_level(logging.INFO):
        result = send([alert()], sinks, tmp_path / "memory.json", NOON)
    assert result.sent == ("latency",)
    line = json.loads((tmp_path / "logs" / "alerts.jsonl").read_text())
    assert line == posted[0]
    assert line["at"] == "2026-01-05T12:00:00.000000Z"
    assert line["expected"] is None  # NaN is no JSON
    assert "latency: it is slow" in caplog.text


def test_7_3_d_the_same_alert_is_sent_once_and_its_key_cools_down(tmp_path: Path) -> None:
    got: list[Alert] = []
    sinks, memory = {"list": got.append}, tmp_path / "memory.json"
    send([alert()], sinks, memory, NOON, 6 * HOUR)
    assert send([alert()], sinks, memory, NOON + 9 * HOUR, 6 * HOUR).held_back == ("latency",)  # a replay
    send([alert(hours=1), alert("hits", 1)], sinks, memory, NOON + HOUR, 6 * HOUR)  # another key has its own time
    send([alert(hours=1)], sinks, memory, NOON + 7 * HOUR, 6 * HOUR)  # held back once is old news
    send([alert(hours=7)], sinks, memory, NOON + 7 * HOUR, 6 * HOUR)
    assert [(each.key, each.at) for each in got] == [
        ("latency", NOON),
        ("hits", NOON + HOUR),
        ("latency", NOON + 7 * HOUR),
    ]


def test_many_alerts_of_one_key_at_once_are_one(tmp_path: Path) -> None:
    got: list[Alert] = []
    send([alert(hours=h) for h in (2, 1, 0)], {"list": got.append}, tmp_path / "memory.json", NOON + 3 * HOUR)
    assert [each.at for each in got] == [NOON]


def test_a_clock_that_jumps_back_hides_nothing(tmp_path: Path) -> None:
    got: list[Alert] = []
    send([alert(hours=100)], {"list": got.append}, tmp_path / "memory.json", NOON + 100 * HOUR)
    send([alert()], {"list": got.append}, tmp_path / "memory.json", NOON)
    assert len(got) == 2


def test_a_failing_sink_breaks_nothing_and_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Alert) -> None:
        raise RuntimeError("no answer")

    got: list[Alert] = []
    result = send([alert()], {"web": broken, "list": got.append}, tmp_path / "memory.json", NOON)
    assert result.sent == ("latency",)
    assert result.failed == {"web": "RuntimeError: no answer"}
    assert "no answer" in caplog.text
    later: list[Alert] = []
    send([alert()], {"web": later.append, "list": got.append}, tmp_path / "memory.json", NOON + HOUR)
    assert len(later) == len(got) == 1  # only the one that failed gets it


def test_a_webhook_that_hangs_times_out(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        sink = to_webhook(f"http://127.0.0.1:{deaf.getsockname()[1]}/", time_out=0.2)
        assert "web" in send([alert()], {"web": sink}, tmp_path / "memory.json", NOON).failed
    assert "web" in send([alert()], {"web": sink}, tmp_path / "memory.json", NOON).failed  # refused, now


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/", "example.org", "http:///x", ""])
def test_a_webhook_is_an_address_of_the_web(address: str) -> None:
    with pytest.raises(ValueError, match="webhook"):
        to_webhook(address)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"list": {"latency": "soon"}}', '{"list": 3}', '{"list": {"latency": "2026-01-05"}}']
)
def test_a_damaged_memory_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "memory.json").write_text(content)
    got: list[Alert] = []
    send([alert()], {"list": got.append}, tmp_path / "memory.json", NOON)
    send([alert()], {"list": got.append}, tmp_path / "memory.json", NOON + 99 * HOUR)
    assert len(got) == 1


def test_an_answer_that_is_none_breaks_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"hello\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=babble)
        thread.start()
        sink = to_webhook(f"http://127.0.0.1:{server.getsockname()[1]}/")
        assert "web" in send([alert()], {"web": sink}, tmp_path / "memory.json", NOON).failed
        thread.join()


def test_a_webhook_that_answers_byte_by_byte_times_out(tmp_path: Path) -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    connection.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        sink = to_webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", time_out=0.3)
        begin = time.monotonic()
        result = send([alert()], {"web": sink}, tmp_path / "memory.json", NOON)
        assert result.failed == {"web": "TimeoutError: no answer within 0.3 s"}
        assert time.monotonic() - begin < 2
        ended.set()
        thread.join()


def test_a_webhook_that_moved_is_a_failure_not_an_alert_dropped_on_the_way(tmp_path: Path, hook: tuple) -> None:
    url, posted = hook
    result = send([alert()], {"web": to_webhook(f"{url}/moved")}, tmp_path / "memory.json", NOON)
    assert "302" in result.failed["web"]
    assert posted == []


def _send_until_killed(folder: Path) -> None:
    """The file has the alert, then a webhook hangs, and somebody kills the process."""
    sinks = {"file": to_file(folder / "alerts.jsonl"), "web": lambda _: os.kill(os.getpid(), signal.SIGKILL)}
    send([alert()], sinks, folder / "memory.json", NOON)


def test_7_3_d_who_is_killed_while_sending_repeats_nothing(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("fork").Process(target=_send_until_killed, args=(tmp_path,))
    killed.start()
    killed.join(30)
    assert killed.exitcode == -signal.SIGKILL
    got: list[Alert] = []
    sinks = {"file": to_file(tmp_path / "alerts.jsonl"), "web": got.append}
    send([alert()], sinks, tmp_path / "memory.json", NOON + HOUR)
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 1
    assert len(got) == 1
