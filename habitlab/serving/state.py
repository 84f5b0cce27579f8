"""Where a service keeps what it knows: a folder beside the data, and in it one SQLite database.

`service.db` holds the events (append only, the truth), what follows from them, finished lists, and what was shown. It
runs in WAL mode, so that readers never wait for a writer, and a commit is on disk before it returns.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

DATABASE = "service.db"
REGISTRY = "registry"
LOGS = "logs"
SCHEMA_VERSION = 2
LONGEST_WAIT = 2.0
"""Seconds a writer waits for another one; then the request is answered with 503."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE events (           -- append only; whatever else is known of them can be made again
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    happened_at TEXT NOT NULL,  -- instants are UTC texts of one width, so that they sort: see `stamp`
    received_at TEXT NOT NULL,
    payload TEXT NOT NULL       -- JSON of the rest of the event
);
CREATE INDEX events_of_user ON events (user_id, sequence);

CREATE TABLE profiles (         -- only of people about whom the service learnt something
    user_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,   -- one more with every change: part of the key of every list
    changed INTEGER NOT NULL,   -- number of the change in the whole service, for workers to follow
    registration TEXT,          -- JSON of the record, for people who registered here
    registered_at TEXT,
    opted_out INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL
);
CREATE UNIQUE INDEX profiles_changed ON profiles (changed);

CREATE TABLE features (         -- base: from the data; body: with the events since
    user_id TEXT PRIMARY KEY,
    profile_version INTEGER NOT NULL,
    base TEXT,
    body TEXT NOT NULL
);

CREATE TABLE lists (            -- lists without words, of the batch and of misses
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,          -- number of habits and moment: `lists.name`
    model_version TEXT NOT NULL,
    profile_version INTEGER NOT NULL,
    body BLOB NOT NULL,         -- `recommender.draws.Drawn.pack`
    made_at TEXT NOT NULL,
    expires_at REAL,            -- seconds since 1970; NULL never
    run INTEGER NOT NULL DEFAULT 0,  -- of the batch; 0: made when somebody asked. Only 0 and live runs count.
    PRIMARY KEY (user_id, model_version, key, run)
);
CREATE INDEX lists_of_run ON lists (run, user_id);

CREATE TABLE runs (             -- of the batch: those that are live, one a day, and one that is not complete yet
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL,         -- JSON: model, day and number of habits
    begun_at TEXT NOT NULL,
    live_at TEXT                -- NULL: its lists are not to be found yet
);

CREATE TABLE exposures (        -- rows of the table `recommendations`: one for each place of each draw that was shown
    event_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    habit_id TEXT NOT NULL,
    shown_at TEXT NOT NULL,     -- first time
    position INTEGER NOT NULL,
    policy TEXT,
    propensity REAL,
    served_from TEXT,           -- first time
    times INTEGER NOT NULL,     -- how often this very list was served
    last_shown_at TEXT NOT NULL
);
CREATE INDEX exposures_of_user ON exposures (user_id, shown_at);
CREATE INDEX exposures_in_time ON exposures (shown_at);

CREATE TABLE traffic (          -- answers to /v1/recommend, counted; no person in it
    started_at TEXT NOT NULL,   -- begin of the interval
    worker TEXT NOT NULL,
    served_from TEXT NOT NULL,  -- a level, or "error"
    answers INTEGER NOT NULL,
    latencies TEXT NOT NULL,    -- JSON: answers by upper bound in seconds, `exposures.BOUNDS`
    PRIMARY KEY (started_at, worker, served_from)
);

CREATE TABLE applied (          -- how far each reader of the events has come
    consumer TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    updated_at TEXT NOT NULL
);
"""


def folder(data: str | Path, override: str | Path | None = None) -> Path:
    """Return the folder of the service for a dataset: `data/habittrack.db` has `data/habittrack.service`.

    The sample, which has no path, has one among the user's caches.
    """
    if override is not None:
        return Path(override)
    if str(data) == "sample":
        from habitlab.places import cache_folder

        return cache_folder() / "sample.service"
    return Path(data).with_suffix(".service")


def own_folder(folder: str | Path) -> Path:
    """Make a folder that only its owner may enter, and those above it that are missing alike; returns it."""
    folder = Path(folder)
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)
    return folder


def connect(folder: str | Path, *, wait: float = LONGEST_WAIT) -> sqlite3.Connection:
    """Open the database of a service, and make it where there is none.

    Outside of `transaction` each statement is one of its own. A connection may wander between threads, but only one may
    use it at a time. `wait`: seconds to wait for other writers.

    Raises
    ------
    ValueError
        The database was made by another version of HabitLab.
    sqlite3.DatabaseError
        It is damaged, locked or cannot be written.
    """
    path = own_folder(folder) / DATABASE
    if not path.exists():
        path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an event is on disk before it is confirmed
    version = _version(connection)
    if version == 0:
        with transaction(connection):
            if _version(connection) == 0:  # another process may have made it meanwhile
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('instance', ?)", (secrets.token_hex(8),))
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        version = _version(connection)
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path} is of version {version} of the service, this is version {SCHEMA_VERSION}")


class Connections:
    """A connection for each thread, opened anew after an error.

    All are to one file, the one that was there when this was made. While it is not there (deleted, moved away, or
    another one in its place) nothing is read or written: what went into a deleted file would be confirmed and lost.
    """

    def __init__(self, folder: str | Path, *, wait: float = LONGEST_WAIT, safe: bool = True) -> None:
        """`safe`: a commit is on disk before it returns; without it, a power cut may take back the last ones."""
        self.folder, self._wait, self._safe = Path(folder), wait, safe
        self._local = threading.local()
        self._file = file_of(folder)

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Lend this thread's connection; raises as `connect` and sqlite3 do."""
        self._check()
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self.folder, wait=self._wait)
            if not self._safe:
                connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
            self._file = self._file or file_of(self.folder)
        try:
            yield connection
        except sqlite3.Error:
            self._local.connection = None
            connection.close()
            raise
        self._check()  # it may have gone while this waited for another writer

    def _check(self) -> None:
        if self._file is not None and file_of(self.folder) != self._file:
            path = self.folder / DATABASE
            raise sqlite3.OperationalError(f"{path} is not the file that was opened: put it back, or start anew")


def file_of(folder: str | Path) -> tuple[int, int] | None:
    """Return which file the database of a service is; None for no file."""
    try:
        found = (Path(folder) / DATABASE).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, on disk when it ends; other writers wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:  # disk full: what was written is taken back
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def instance(connection: sqlite3.Connection) -> str:
    """Return what tells this database from any other, such as one made anew at the same place."""
    return str(meta(connection, "instance"))


def meta(connection: sqlite3.Connection, key: str) -> str | None:
    """Return one remark about the service."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Keep a remark about the service."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def generation(connection: sqlite3.Connection) -> int:
    """Return a number that grows when workers have to forget what they keep in memory."""
    return int(meta(connection, "generation") or 0)


def next_generation(connection: sqlite3.Connection) -> None:
    """Have all workers forget what they keep in memory, within a second: somebody was deleted, say."""
    set_meta(connection, "generation", str(generation(connection) + 1))


IS_KNOWN = (
    "(EXISTS (SELECT 1 FROM features WHERE features.user_id = {user} AND base IS NOT NULL)"
    " OR EXISTS (SELECT 1 FROM profiles WHERE profiles.user_id = {user} AND registration IS NOT NULL))"
)
"""Condition of SQL: whether somebody is in the data or registered here."""


def known(connection: sqlite3.Connection, users: Iterable[str]) -> set[str]:
    """Return those of these people who are in the data or registered here."""
    query = f"SELECT {IS_KNOWN.format(user='?1')}"
    return {user for user in users if connection.execute(query, (user,)).fetchone()[0]}


def watermark(connection: sqlite3.Connection, consumer: str) -> int:
    """Return the sequence number of the last event that a reader has dealt with; 0 before the first."""
    row = connection.execute("SELECT sequence FROM applied WHERE consumer = ?", (consumer,)).fetchone()
    return 0 if row is None else int(row[0])


def set_watermark(connection: sqlite3.Connection, consumer: str, sequence: int, now: datetime) -> None:
    """Remember how far a reader has come; in the transaction of what it made of the events."""
    connection.execute("INSERT OR REPLACE INTO applied VALUES (?, ?, ?)", (consumer, sequence, stamp(now)))


def stamp(moment: datetime) -> str:
    """Return an instant as text, always 27 characters in UTC, so that texts sort as instants do.

    ValueError without a zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"an instant has a zone; got {moment}")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instant(text: str) -> datetime:
    """Read what `stamp` wrote."""
    return datetime.fromisoformat(text)
