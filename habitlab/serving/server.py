"""The service as processes: gunicorn's threaded workers, which serve until they are told to stop."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from habitlab.serving import state as states
from habitlab.serving.limits import OFF_LOOPBACK_RATE, check_host, loopback, read_token

THREADS = 2
"""Threads of a worker: one answers while the other waits for a disk or for Redis. More would only take turns at the
interpreter, and a list that has to be made waits for its turn again and again."""
TURN = 0.001
"""Seconds after which a thread that waits for the interpreter asks for it."""
LONGEST_READING = 10.0
"""Seconds a request may take to arrive, and its answer to be taken."""
LONGEST_FAREWELL = 2.0
"""Seconds a client may take to notice that a connection ends."""
MOST_CONNECTIONS = 500
"""Of a worker; with those to databases fewer than the 1,024 open files that a process may usually have."""
LONGEST_START = 600
"""Seconds a worker may take: without a writable cache each fits for itself."""


def serve(
    data: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    redis: str | None = None,
    token_file: str | Path | None = None,
    workers: int = 1,
    threads: int | None = None,
    state: str | Path | None = None,
    rate: float | None = None,
) -> None:
    """Serve until interrupted.

    Raises
    ------
    ValueError
        Others than this machine could ask without a token; or an argument is not what it should be.
    FileNotFoundError
        There are no data, or no token file.
    """
    from habitlab.serving.base import identity

    token = None if token_file is None else read_token(token_file)
    check_host(host, token)
    if redis is not None:
        from habitlab.serving.store import RedisStore

        RedisStore(redis, space="")  # ValueError for what is no URL; whether it answers is seen later
    if rate is None and not loopback(host):
        rate = OFF_LOOPBACK_RATE
    identity(data)  # FileNotFoundError
    _check_address(host, port)  # before a fit of seconds
    _in_a_process_of_its_own(data, state)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with tempfile.TemporaryDirectory(prefix="habitlab-metrics-") as shared:
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # before prometheus_client is imported

        place = states.folder(data, state)
        file = states.file_of(place)

        def load() -> Any:
            if states.file_of(place) != file:  # for a worker that takes a dead one's place
                raise ValueError(
                    f"{place / states.DATABASE} is not the file that the service began with; start it anew"
                )
            from habitlab.serving.app import create_app
            from habitlab.serving.background import settle

            app = create_app(data, state, redis, token, rate=rate, workers=workers)
            app.extensions["habitlab"].answers.warm()
            settle()
            return app

        run(load, address, workers, threads or THREADS)


def _check_address(host: str, port: int) -> None:
    """ValueError where nothing can be bound."""
    family, _, _, _, place = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                advice = f"port {port} of {host} is taken: stop what uses it, or give another --port"
            else:
                advice = f"port {port} of {host} cannot be bound to: {error.strerror}"
            raise ValueError(advice) from None


def _in_a_process_of_its_own(data: str | Path, state: str | Path | None) -> None:
    """Fit and read what is not kept yet, for workers to find; threads that this leaves behind must not be forked."""
    command = [sys.executable, "-m", "habitlab.serving.server", str(data), str(states.folder(data, state))]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"the service cannot start on {data}")


def _prepare(data: str, folder: str) -> int:
    from habitlab.recommender.fitted import fitted
    from habitlab.serving.base import load, prepare

    try:
        fitted(load(data), tell=_say) if data == "sample" else fitted(data, tell=_say)
        prepare(states.connect(folder), data, datetime.now(UTC))
    except sqlite3.DatabaseError as error:
        place = Path(folder) / states.DATABASE
        _say(f"{place}: {error}; if it is damaged, put back a copy, or move it away to begin anew without its events")
        return 2
    except (ValueError, OSError) as error:
        _say(str(error))
        return 2
    return 0


def _say(text: str) -> None:
    print(f"habitlab: {text}", file=sys.stderr)  # noqa: T201


def run(load: Any, address: str, workers: int = 1, threads: int = THREADS) -> None:
    """Run the WSGI app that `load` returns in each worker, until interrupted."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.workers.gthread import ThreadWorker

    logging.getLogger("gunicorn.error").addFilter(_impersonal)

    class Worker(ThreadWorker):
        """Ends what clients leave hanging: else as many stalled ones as there are threads, or fewer, stop all."""

        def enqueue_req(self, conn: Any) -> None:
            """Give a connection to a thread, a new one only once it has sent something."""
            if conn.data_ready or conn.initialized:
                super().enqueue_req(conn)
                return
            conn.close = partial(self.hang_up, conn.sock)
            conn.timeout = time.monotonic() + LONGEST_READING
            conn.sock.setblocking(False)
            self.pending_conns.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

        def handle(self, conn: Any) -> Any:
            busy[conn.sock] = time.monotonic()
            try:
                return super().handle(conn)
            finally:
                busy.pop(conn.sock, None)

        def handle_quit(self, sig: Any, frame: Any) -> None:
            """Ctrl-C. Written here: a second signal can keep gunicorn from calling `worker_exit`."""
            _worker_exit(None, self)
            super().handle_quit(sig, frame)

        def hang_up(self, connection: socket.socket, graceful: bool = False) -> None:
            """End a connection. gunicorn would wait for each client to do so, 2 s in the one thread that accepts."""
            try:
                connection.shutdown(socket.SHUT_WR)
                connection.setblocking(False)
                self.poller.register(connection, selectors.EVENT_READ, self.hear_out)
            except (OSError, ValueError, KeyError):
                connection.close()
                return
            ending[connection] = time.monotonic() + LONGEST_FAREWELL
            while len(ending) > MOST_CONNECTIONS:
                self.close(next(iter(ending)))

        def hear_out(self, connection: socket.socket) -> None:
            """Read what still comes: closing before would take back the answer that is under way."""
            try:
                if connection.recv(1 << 16):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            self.close(connection)

        def close(self, connection: socket.socket) -> None:
            del ending[connection]
            self.poller.unregister(connection)
            connection.close()

        def murder_pending(self) -> None:  # gunicorn calls it at least every second
            now = time.monotonic()
            for connection, begin in list(busy.items()):
                if now - begin > LONGEST_READING:  # an answer may still go out, for as long again
                    how = socket.SHUT_RD if now - begin < 2 * LONGEST_READING else socket.SHUT_RDWR
                    with contextlib.suppress(OSError):
                        connection.shutdown(how)
            for connection in [one for one, until in ending.items() if until < now]:
                self.close(connection)
            if not self.alive:  # they have asked for nothing
                for conn in self.pending_conns:
                    conn.timeout = now
            super().murder_pending()

    def told(worker: Any) -> None:
        if worker.age == 1:  # the first one is enough
            _say(f"serving at http://{address}; Ctrl-C ends it")

    busy: dict[socket.socket, float] = {}
    ending: dict[socket.socket, float] = {}

    class Server(BaseApplication):
        def load_config(self) -> None:
            settings = {
                "bind": address,
                "workers": workers,
                "threads": threads,
                "worker_class": Worker,
                "timeout": LONGEST_START,
                "graceful_timeout": 10,
                "keepalive": 75,
                "worker_connections": MOST_CONNECTIONS,
                "forwarded_allow_ips": "",  # nobody's headers say where a request comes from or goes to
                "limit_request_line": 4094,
                "limit_request_fields": 50,
                "accesslog": None,  # it would tell who asked
                "errorlog": "-",
                "loglevel": "warning",
                "proc_name": "habitlab",
                "post_worker_init": told,
                "child_exit": _child_exit,
                "worker_exit": _worker_exit,
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return load()

    sys.setswitchinterval(TURN)
    Server().run()


def _impersonal(record: logging.LogRecord) -> bool:
    """Take out of gunicorn's log what was asked for."""
    text = str(record.msg)
    if text.startswith("Invalid request from"):
        return False
    if text.startswith("Error handling request"):
        record.msg, record.args = "Error handling a request", ()
    return True


def _worker_exit(server: Any, worker: Any) -> None:
    """Write what was shown before a worker ends."""
    for again in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):  # Ctrl-C comes from the terminal and from gunicorn
        signal.signal(again, lambda *_: None)  # SIG_IGN makes one that is pending an OSError here
    service = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("habitlab")
    if service is not None:
        service.stop()


def _child_exit(server: Any, worker: Any) -> None:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


if __name__ == "__main__":
    sys.exit(_prepare(*sys.argv[1:]))
