"""From the first level to computing: memory or Redis, the database, and what nobody has made yet.

Whatever fails, the next level goes on. Of many misses of one key at once one computes and the others wait for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

from habitlab.serving.lists import Key, Ready
from habitlab.serving.store import MemoryStore, RedisStore, SqliteStore, Store, StoreError

log = logging.getLogger(__name__)

MEMORY_SECONDS, REDIS_SECONDS, DATABASE_SECONDS = 3600.0, 6 * 3600.0, 3 * 86400.0
LONGEST_FLIGHT = 10.0
"""Seconds to wait for another's computation; then a request computes for itself."""
LONGEST_LOCK = 1.0
"""Seconds to wait for another process that makes the same list."""


class Breaker:
    """Keeps away from what fails: after `failures` in a row nothing is tried for `rest` seconds, then one at a time."""

    def __init__(self, failures: int = 3, rest: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds from any start."""
        self._most, self._rest, self._clock = failures, rest, clock
        self._failures, self._until = 0, 0.0
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether it keeps away now."""
        return self._failures >= self._most

    def allows(self) -> bool:
        """Whether to try; after a rest one is let through to see."""
        if self._failures < self._most:
            return True
        with self._lock:
            if self._clock() < self._until:
                return False
            self._until = self._clock() + self._rest
            return True

    def succeeded(self) -> None:
        """Tell that it worked."""
        self._failures = 0

    def failed(self) -> None:
        """Tell that it did not."""
        with self._lock:
            self._failures += 1
            self._until = self._clock() + self._rest


class Guarded:
    """A store behind a breaker: what cannot be had now is None, and what cannot be kept is not."""

    def __init__(self, store: Store, breaker: Breaker, on_failure: Callable[[str], None]) -> None:
        """`on_failure` is told the level."""
        self.store, self.breaker, self._on_failure = store, breaker, on_failure

    def get(self, key: Key) -> bytes | None:
        """Return the value, if it can be had."""
        return self._try(lambda: self.store.get(key))

    def put(self, key: Key, value: bytes, seconds: float) -> None:
        """Keep the value, if that is possible."""
        self._try(lambda: self.store.put(key, value, seconds))

    def forget(self, user_id: str) -> None:
        """Delete what is there of one person, if that is possible."""
        self._try(lambda: self.store.forget(user_id))

    def _try(self, call: Callable[[], Any]) -> Any:
        if not self.breaker.allows():
            return None
        try:
            found = call()
        except StoreError as error:
            was_open = self.breaker.open
            self.breaker.failed()
            self._on_failure(self.store.level)
            if self.breaker.open and not was_open:
                log.warning("%s does not answer, going on without it: %s", self.store.level, error)
            return None
        if self.breaker.open:
            log.warning("%s answers again", self.store.level)
        self.breaker.succeeded()
        return found


class SingleFlight:
    """Of calls with one key at the same time one works, and all get what it returns or raises."""

    def __init__(self) -> None:
        """Nobody is on the way."""
        self._flights: dict[Any, Future[Any]] = {}
        self._lock = threading.Lock()

    def do(self, key: Any, work: Callable[[], Any], longest: float = LONGEST_FLIGHT) -> tuple[Any, bool]:
        """Return what `work` returns, and whether it was this call that worked."""
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leads:
            try:
                return flight.result(longest), False
            except TimeoutError:
                return work(), True
        try:
            flight.set_result(work())
        except BaseException as error:
            flight.set_exception(error)
        finally:
            with self._lock:
                self._flights.pop(key, None)
        return flight.result(), True


class Levels:
    """All levels of finished lists."""

    def __init__(
        self,
        memory: MemoryStore,
        database: SqliteStore,
        redis: RedisStore | None = None,
        *,
        locks: Path | None = None,
        on_failure: Callable[[str], None] = lambda level: None,
    ) -> None:
        """`locks`: a folder, where several processes should not make the same list at once."""
        self.memory = memory
        self.database = Guarded(database, Breaker(), on_failure)
        self.redis = None if redis is None else Guarded(redis, Breaker(), on_failure)
        self._locks = locks
        self._flights = SingleFlight()
        if locks is not None:
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(
        self, key: Key, lang: str, draw: Callable[[], tuple[bytes, bool]], word: Callable[[bytes], Ready]
    ) -> tuple[Ready, str]:
        """Return a finished list and the level it comes from; raises what `draw` raises.

        `draw` returns a list without words, and whether it counts all that happened, else it is not kept; `word` puts
        it into words of the language, ValueError for one that is damaged.
        """
        worded = key.worded(lang)
        found = self._first(worded)
        if found is not None:
            return found
        (ready, level), mine = self._flights.do(worded, lambda: self._later(key, worded, draw, word))
        return ready, level if mine else "memory"

    def _first(self, key: Key) -> tuple[Ready, str] | None:
        """The first level: Redis where there is one; memory where there is none, or it does not answer or know."""
        if self.redis is not None:
            ready = _ready(self.redis.get(key))
            if ready is not None:
                return ready, "redis"
        ready = _ready(self.memory.get(key))
        if ready is None:
            return None
        if self.redis is not None and not self.redis.breaker.open:  # it came back empty
            self.redis.put(key, ready.pack(), REDIS_SECONDS)
        return ready, "memory"

    def _later(
        self, key: Key, worded: Key, draw: Callable[[], tuple[bytes, bool]], word: Callable[[bytes], Ready]
    ) -> tuple[Ready, str]:
        found = _ready(self.memory.get(worded))  # whoever was first may have finished meanwhile
        if found is not None:
            return found, "memory"
        with self._alone(key):
            level, ready = "database", _read(self.database.get(key), word)
            if ready is None:
                (drawn, whole), _ = self._flights.do(key, draw)  # another language may be asked for at once
                level, ready = "computed", word(drawn)
                if not whole:
                    return replace(ready, whole=False), level
                self.database.put(key, drawn, DATABASE_SECONDS)
        self.keep(worded, ready)
        return ready, level

    def keep(self, key: Key, ready: Ready) -> None:
        """Put a list where it is found first."""
        packed = ready.pack()
        self.memory.put(key, packed, MEMORY_SECONDS)
        if self.redis is not None:
            self.redis.put(key, packed, REDIS_SECONDS)

    def forget(self, user_id: str) -> None:
        """Delete the lists of one person wherever that is possible now."""
        self.memory.forget(user_id)
        for level in (self.database, self.redis):
            if level is not None:
                level.forget(user_id)

    @contextlib.contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """Let one process at a time make a list; without locks, or after a while, nobody waits."""
        if self._locks is None:
            yield
            return
        try:
            file = (self._locks / f"{crc32(repr(key).encode()) % 64:02}.lock").open("w")
        except OSError:  # a full disk, say
            yield
            return
        with file:
            end = time.monotonic() + LONGEST_LOCK
            while time.monotonic() < end:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.002)
            yield


def _ready(packed: bytes | None) -> Ready | None:
    return _read(packed, Ready.unpack)


def _read(packed: bytes | None, read: Callable[[bytes], Ready]) -> Ready | None:
    """Read a value of a store; what is damaged is as good as not there."""
    if packed is None:
        return None
    try:
        return read(packed)
    except ValueError:
        return None
