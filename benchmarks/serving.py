"""How fast the service answers, beside an empty Flask route on the same gunicorn setting.

Clients are threads with raw sockets in processes of their own, each sending its next request when the answer is there.
Everything shares one machine: read rates as ratios, and times as upper bounds, beside those of the empty route.
Usage: python benchmarks/serving.py [PATH] [--redis URL]    (default data/habittrack.db; `make data` makes it)
"""

import json
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SECONDS = 4.0
ROUNDS = 15
THREADS = "1"  # of numerical libraries


def main() -> None:
    """Print the figures."""
    if sys.argv[1:2] == ["--empty"]:
        return empty(int(sys.argv[2]))
    arguments = [one for one in sys.argv[1:] if not one.startswith("--")]
    redis = sys.argv[sys.argv.index("--redis") + 1] if "--redis" in sys.argv else None
    data = next((one for one in arguments if one != redis), "data/habittrack.db")
    with tempfile.TemporaryDirectory() as state:
        ports = free_port(), free_port()
        serve = ["-m", "habitlab", "serve", "--data", data, "--state", state, "--port", str(ports[1])]
        commands = [__file__, "--empty", str(ports[0])], serve + (["--redis", redis] if redis else [])
        processes = [start(command) for command in commands]
        try:
            wait(f"http://127.0.0.1:{ports[0]}/")
            wait(f"http://127.0.0.1:{ports[1]}/readyz")
            measure(*ports, users_of(data), [worker_of(process.pid) for process in processes])
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)


def measure(nothing: int, port: int, users: Sequence[str], pids: Sequence[int]) -> None:
    """Measure everything once both servers answer."""
    now = "2026-01-05T07:30"
    paths = [f"/v1/recommend?user_id={user}&at={now}" for user in users[:500]]
    load(port, [paths], seconds=None)  # warm

    rates, work = [], []
    for _ in range(ROUNDS):  # alternating and short, for others use this machine as well
        used = [processor(pid) for pid in pids]
        bare, warm = len(load(nothing, [["/"]] * 8, 1.0)), len(load(port, [paths] * 8, 1.0))
        rates.append((bare, warm))
        bare_work, warm_work = (processor(pid) - before for pid, before in zip(pids, used, strict=True))
        work.append((bare_work / bare) / (warm_work / warm))
    middle = [statistics.median(column) for column in zip(*rates, strict=True)]
    ratio = statistics.median(warm / bare for bare, warm in rates)
    print(f"requests a second, empty route and first-level hit  {middle[0]:.0f} and {middle[1]:.0f}")
    print(f"ratio of rates, and of processor time    {ratio:7.2f}    {statistics.median(work):7.2f}    (at least 0.7)")

    beside, hits = load(nothing, [["/"]] * 2), load(port, [paths] * 2)
    print(f"first-level hit, p50 and p99, 2 clients  {quantiles(hits)} (at most 10); empty route {quantiles(beside)}")

    mixed, beside = [list(with_misses(paths, client)) for client in range(50)], load(nothing, [["/"]] * 50)
    computed = count(port, "habitlab_computed_total")
    every = load(port, mixed)
    misses = count(port, "habitlab_computed_total") - computed
    print(
        f"50 clients, {misses / len(every):.1%} misses, p50 and p99  {quantiles(every)} (at most 100), "
        f"{len(every) / SECONDS:.0f} a second; empty route {quantiles(beside)}"
    )

    computed = count(port, "habitlab_computed_total")
    crowd = [[f"/v1/recommend?user_id={users[0]}&at=2027-03-03T10:10"]] * 100
    load(port, crowd, seconds=None)
    print(f"100 misses of one key at once computed   {count(port, 'habitlab_computed_total') - computed:7.0f} list (1)")

    stop = multiprocessing.Event()
    steady = multiprocessing.Process(target=pace, args=(port, paths, 200, stop))
    steady.start()
    seen = [visible(port, user, number) for number, user in enumerate(users[500:540])]
    stop.set()
    steady.join()
    print(
        f"an update is visible after, worst of {len(seen)}   {1e3 * max(seen):7.0f} ms (at most 1000, at 200 a second)"
    )


def with_misses(paths: Sequence[str], client: int) -> Iterator[str]:
    """Of a hundred requests one for a moment that nobody asked for yet."""
    for number in range(20_000):
        path = paths[(number * 7 + client) % len(paths)]
        if number % 100 == 2 * client % 100:
            moment = f"2026-02-{1 + client % 28:02}T{number // 100 % 24:02}:{client:02}:{number // 2400:02}"
            path = f"{path.partition('&')[0]}&at={moment}"
        yield path


def load(port: int, clients: Sequence[Sequence[str]], seconds: float | None = SECONDS) -> list[float]:
    """Send each client's paths one after the other, for so long (or each once); returns the seconds of each answer."""
    halves = [clients[0::2], clients[1::2]] if len(clients) > 1 else [clients]
    with multiprocessing.Pool(len(halves)) as pool:
        parts = pool.starmap(_load, [(port, half, seconds) for half in halves])
    return [one for part in parts for one in part]


def _load(port: int, clients: Sequence[Sequence[str]], seconds: float | None) -> list[float]:
    found: list[list[float]] = [[] for _ in clients]
    threads = [
        threading.Thread(target=_client, args=(port, paths, seconds, times))
        for paths, times in zip(clients, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for times in found for one in times]


def _client(port: int, paths: Sequence[str], seconds: float | None, times: list[float]) -> None:
    connection = Connection(port)
    end = None if seconds is None else time.perf_counter() + seconds
    number = 0
    while number < len(paths) if end is None else time.perf_counter() < end:
        begin = time.perf_counter()
        status, _ = connection.get(paths[number % len(paths)])
        times.append(time.perf_counter() - begin)
        assert status == 200, status
        number += 1


class Connection:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        """Connect."""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        return self._send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body."""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return self._send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _send(self, request: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
        while len(body) < length:
            body += self._receive()
        return int(head[9:12]), body

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def pace(port: int, paths: Sequence[str], rate: float, stop: Any) -> None:
    """Ask so many times a second until told to stop."""
    connection, number, begin = Connection(port), 0, time.perf_counter()
    while not stop.is_set():
        connection.get(paths[number % len(paths)])
        number += 1
        time.sleep(max(0.0, begin + number / rate - time.perf_counter()))


def visible(port: int, user: str, number: int) -> float:
    """Reject the first habit on a list; returns the seconds from sending until the list is without it."""
    connection, path = Connection(port), f"/v1/recommend?user_id={user}"
    _, body = connection.get(path)
    habit = json.loads(body)["items"][0]["habit_id"]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    event = {
        "event_id": f"bench-{os.getpid()}-{number}", "user_id": user, "kind": "response", "response": "rejected",
        "habit_id": habit, "happened_at": stamp,
    }  # fmt: skip
    begin = time.perf_counter()
    status, answer = connection.post("/v1/events", json.dumps(event).encode())
    assert status == 201, answer
    while time.perf_counter() - begin < 5:
        _, body = connection.get(path)
        if habit not in [item["habit_id"] for item in json.loads(body)["items"]]:
            return time.perf_counter() - begin
    return float("inf")


def worker_of(pid: int) -> int:
    """Return the process that answers, a child of gunicorn's first."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def processor(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantiles(answers: Sequence[float]) -> str:
    """Say the median and the 99th percentile."""
    return " ".join(f"{1e3 * sorted(answers)[int(share * (len(answers) - 1))]:7.2f} ms" for share in (0.5, 0.99))


def count(port: int, name: str) -> float:
    """Return a counter of the service."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return float(re.search(rf"^{name} (\S+)", text, re.M).group(1))


def users_of(data: str) -> list[str]:
    """Return ids of people who did not opt out."""
    import habitlab
    from habitlab.dataset.vocabulary import Purpose
    from habitlab.models.interactions import refused

    dataset = habitlab.open_dataset(data, everybody=True)
    opted_out = refused(dataset, Purpose.PERSONALISATION)
    return [user for user in dataset.users["user_id"].tolist() if user not in opted_out]


def start(command: Sequence[str]) -> subprocess.Popen:
    """Start Python."""
    environment = os.environ | {"OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS}
    return subprocess.Popen([sys.executable, *command], env=environment)


def wait(url: str) -> None:
    """Wait until somebody answers."""
    for _ in range(600):
        try:
            urllib.request.urlopen(url).read()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def empty(port: int) -> None:
    """Serve a Flask route that does nothing."""
    from flask import Flask

    from habitlab.serving.server import run

    def load() -> Flask:
        app = Flask("empty")
        app.add_url_rule("/", view_func=lambda: "")
        return app

    run(load, f"127.0.0.1:{port}")


if __name__ == "__main__":
    sys.exit(main())
