"""A small world behind a service, a clock that is set by hand, and a Redis of one's own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask

from habitlab.dataset.cache import alone
from habitlab.recommender.fitted import fitted
from habitlab.recommender.recommend import Recommender
from habitlab.serving import state
from habitlab.serving.app import create_app
from habitlab.serving.base import prepare
from habitlab.simulation import simulate

NO_REDIS = "no redis-server here: install Debian's package `redis-server` (apt-get install redis-server)"


class Clock:
    """Tells the time that it was set to."""

    def __init__(self, now: datetime = datetime(2024, 5, 6, 8, 0, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def go(self, **by: float) -> None:
        self.now += timedelta(**by)


class Redis:
    """A redis-server on a socket of its own, that can be stopped, hung and begun anew."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self._socket.parent)
        for _ in range(500):
            with socket.socket(socket.AF_UNIX) as probe:
                if self._socket.exists() and probe.connect_ex(str(self._socket)) == 0:
                    return
            time.sleep(0.01)
        raise TimeoutError("redis-server does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip(NO_REDIS)
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def shared(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a test run share; under pytest-xdist each has a temporary folder of its own."""
    own = factory.getbasetemp()
    place = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "serving"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a small dataset: one for all processes of a test run, as is what is fitted on it."""
    place = shared(tmp_path_factory) / "small.db"
    with alone(place, 300):
        if not place.exists():
            simulate(users=40, days=60).save(place)
    return place


@pytest.fixture(scope="session")
def recommender(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """Fitted on the small dataset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HABITLAB_CACHE", str(shared(tmp_path_factory) / "habitlab-cache"))
        live = fitted(world)
        for kept in (shared(tmp_path_factory) / "habitlab-cache" / "recommenders").iterdir():
            own = tmp_path_factory.getbasetemp() / "habitlab-cache" / "recommenders" / kept.name
            own.parent.mkdir(parents=True, exist_ok=True)
            if not own.exists() and kept.suffix != ".lock":
                shutil.copy2(kept, own)  # for the processes that tests start
        return live


@pytest.fixture(scope="session")
def prepared(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a service that has read the small dataset and seen nothing else."""
    folder = tmp_path_factory.mktemp("prepared")
    with closing(state.connect(folder)) as connection:
        prepare(connection, world, Clock()())
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(prepared, tmp_path / "service")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(world: Path, recommender: Recommender, clock: Clock, folder: Path) -> Iterator[Callable[..., Flask]]:
    """Make an app; a second one on the same folder is another worker."""
    apps: list[Flask] = []

    def create(**settings: object) -> Flask:
        settings = {"state": folder, "clock": clock, "recommender": recommender} | settings
        app = create_app(world, **settings)
        app.testing = True
        apps.append(app)
        return app

    yield create
    for app in apps:
        app.extensions["habitlab"].stop()


@pytest.fixture
def app(make: Callable[..., Flask]) -> Flask:
    return make(background=False)
