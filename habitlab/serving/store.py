"""Keys and values with one interface over memory, SQLite and Redis: finished lists, and values of features.

A store may forget anything at any time: whatever it holds can be made again. `forget` is for people who ask for it.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from habitlab.serving import state
from habitlab.serving.lists import Key

JITTER = 0.1
"""Share by which the time to live differs, so that what was stored at once does not end at once."""


class StoreError(Exception):
    """A store cannot be reached or used now."""


class Store(Protocol):
    """What every store can do. Each raises `StoreError` when it cannot be used."""

    level: str
    """What an answer from it says in `served_from`."""

    def get(self, key: Key) -> bytes | None:
        """Return a value; None where there is none, or none any more."""

    def put(self, key: Key, value: bytes, seconds: float | None = None) -> None:
        """Keep a value, for about so many seconds; None for as long as the store likes."""

    def forget(self, user_id: str) -> int:
        """Delete everything of one person; returns how many values that were."""

    def clear(self) -> None:
        """Delete everything."""


def lifetime(seconds: float, chance: Callable[[], float] = random.random) -> float:
    """Return seconds with jitter: up to `JITTER` more or less."""
    return seconds * (1 + JITTER * (2 * chance() - 1))


def without_password(url: str) -> str:
    """Return the URL of a Redis without the name and password in it.

    >>> without_password("redis://me:secret@localhost:6379/1?password=secret&db=2")
    'redis://localhost:6379/1?db=2'
    """
    parts = urlsplit(url)
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in ("username", "password")])
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


class MemoryStore:
    """The values used last, in this process: at most `most` of them and `most_bytes` in all."""

    level = "memory"

    def __init__(
        self,
        most: int = 50_000,
        most_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` tells seconds from any start."""
        self._most, self._most_bytes, self._clock = most, most_bytes, clock
        self._values: OrderedDict[Key, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> bytes | None:
        """See `Store`."""
        found = self._values.get(key)
        if found is None:
            return None
        with self._lock:
            if found[1] < self._clock():
                self._drop(key)
                return None
            if key in self._values:  # else another thread dropped it meanwhile
                self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: bytes, seconds: float | None = None) -> None:
        """See `Store`."""
        until = float("inf") if seconds is None else self._clock() + lifetime(seconds)
        with self._lock:
            self._drop(key)
            self._values[key] = value, until
            self._bytes += len(value)
            while len(self._values) > self._most or self._bytes > self._most_bytes:
                self._drop(next(iter(self._values)))

    def forget(self, user_id: str) -> int:
        """See `Store`."""
        with self._lock:
            theirs = [key for key in self._values if key.user_id == user_id]
            for key in theirs:
                self._drop(key)
        return len(theirs)

    def clear(self) -> None:
        """See `Store`."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def __len__(self) -> int:
        """Count the values."""
        return len(self._values)

    def _drop(self, key: Key) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._bytes -= len(found[0])


class SqliteStore:
    """Values in the table `lists` of a service's database: they outlive the process.

    Of one person, model and name only the value of the newest profile is kept, and one of the batch, which is found
    when its run is live.
    """

    level = "database"

    def __init__(
        self, folder: str | Path, wait: float = 0.2, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`wait`: seconds to wait for other writers."""
        self._connections, self._clock = state.Connections(folder, wait=wait, safe=False), clock

    def _run(self, statement: str, values: Iterable[Any]) -> sqlite3.Cursor:
        try:
            with self._connections.use() as connection:
                return connection.execute(statement, tuple(values))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"database: {error}") from error

    def get(self, key: Key) -> bytes | None:
        """See `Store`."""
        row = self._run(
            "SELECT body, expires_at FROM lists"
            " WHERE user_id = ? AND model_version = ? AND key = ? AND profile_version = ?"
            " AND (run = 0 OR run IN (SELECT run FROM runs WHERE live_at IS NOT NULL)) ORDER BY run DESC LIMIT 1",
            (key.user_id, key.model_version, key.name, key.profile_version),
        ).fetchone()
        if row is None or (row[1] is not None and row[1] < self._clock().timestamp()):
            return None
        return bytes(row[0])

    def put(self, key: Key, value: bytes, seconds: float | None = None) -> None:
        """See `Store`."""
        now = self._clock()
        until = None if seconds is None else now.timestamp() + lifetime(seconds)
        self._run(PUT, row_of(key, value, now, until))

    def forget(self, user_id: str) -> int:
        """See `Store`."""
        return self._run("DELETE FROM lists WHERE user_id = ?", (user_id,)).rowcount

    def clear(self) -> None:
        """See `Store`."""
        self._run("DELETE FROM lists", ())


PUT = (
    "INSERT INTO lists (user_id, key, model_version, profile_version, body, made_at, expires_at, run)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, model_version, key, run) DO UPDATE SET"
    " profile_version = excluded.profile_version, body = excluded.body, made_at = excluded.made_at,"
    " expires_at = excluded.expires_at WHERE excluded.profile_version >= profile_version"
)
"""Statement that keeps a list, unless one of a newer profile is kept; its values are `row_of`."""


def row_of(key: Key, value: bytes, now: datetime, until: float | None, run: int = 0) -> tuple[Any, ...]:
    """Return the values for `PUT`; `until` seconds since 1970, `run` of the batch."""
    return (key.user_id, key.name, key.model_version, key.profile_version, value, state.stamp(now), until, run)


class RedisStore:
    """Values in Redis, shared by all workers. `space` keeps services apart that use one Redis."""

    level = "redis"

    def __init__(self, url: str, space: str, timeout: float = 0.05) -> None:
        """`timeout`: seconds that an answer of Redis may take. Nothing is sent yet; ValueError for what is no URL."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),  # there is a next level to go on from
            protocol=2,
        )
        self._error: type[Exception] = redis.RedisError
        self._space = f"habitlab:{space}:"

    def _key(self, key: Key) -> str:
        return f"{self._user(key.user_id)}{key.model_version}:{key.profile_version}:{key.name}"

    def _user(self, user_id: str) -> str:
        return f"{self._space}{len(user_id)}:{user_id}:"  # with its length no id is the begin of another's key

    def get(self, key: Key) -> bytes | None:
        """See `Store`."""
        try:
            found: Any = self._redis.get(self._key(key))
        except (self._error, OSError) as error:
            raise StoreError(f"redis: {error}") from error
        return found

    def put(self, key: Key, value: bytes, seconds: float | None = None) -> None:
        """See `Store`."""
        milliseconds = None if seconds is None else max(1, int(1000 * lifetime(seconds)))
        try:
            self._redis.set(self._key(key), value, px=milliseconds)
        except (self._error, OSError) as error:
            raise StoreError(f"redis: {error}") from error

    def forget(self, user_id: str) -> int:
        """See `Store`."""
        return self._delete(self._user(user_id))

    def clear(self) -> None:
        """See `Store`."""
        self._delete(self._space)

    def _delete(self, begin: str) -> int:
        literal = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in begin)
        try:
            return sum(int(self._redis.delete(key)) for key in self._redis.scan_iter(match=literal + "*", count=1000))
        except (self._error, OSError) as error:
            raise StoreError(f"redis: {error}") from error
