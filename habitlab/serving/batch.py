"""The lists of a day for everybody, made ahead: the database's level before anybody asks.

A run writes its lists beside those that are live, and nobody finds them until it is complete; then one small
transaction puts it live in place of former ones of the same day, of other models, and of days that are over wherever
people live; their lists are deleted afterwards. A run that was stopped goes on where it was when it is called again:
what is done is what is there. Whoever changes meanwhile has another version of their profile, so nobody gets a list
that does not count it; called again, a live run makes these lists anew.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from habitlab.serving import lists, live, state, updater
from habitlab.serving.answers import Answers
from habitlab.serving.base import prepare
from habitlab.serving.feature_store import FeatureStore
from habitlab.serving.lists import Key
from habitlab.serving.profiles import Directory, Profile
from habitlab.serving.store import PUT, row_of

BLOCK = 500
"""People whose lists are in memory at once."""
LONGEST_WAIT = 30.0
"""Seconds to wait for other writers."""
LAST_ZONE = timedelta(hours=12)
"""By so much the last places on Earth are behind UTC."""
_LOCK = "batch.lock"
_SWEPT = 500  # lists deleted at once


@dataclass(frozen=True)
class Run:
    """What was done: `made` lists for `people`, of whom `ready` had theirs before; `swapped`: the run became live."""

    people: int
    ready: int
    made: int
    swapped: bool


def run(
    data: str | Path,
    folder: str | Path | None = None,
    *,
    day: date,
    k: int = 5,
    block: int = BLOCK,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    model: live.Live | None = None,
    wait: float = LONGEST_WAIT,
    progress: bool = False,
) -> Run:
    """Fill the table `lists` of the service for everybody and a local day, with the bytes that a miss would compute.

    They serve every language: a list is put into words when somebody reads it. `model`: what is live, if it is read
    already. `progress` shows a bar on standard error.

    Raises
    ------
    ValueError
        k or block out of range, or another batch is running.
    sqlite3.Error
        The database is locked, full or damaged: the former lists stay live, and what is done is kept.
    """
    if not 1 <= k <= lists.MOST_HABITS or block < 1:
        raise ValueError(f"k is from 1 to {lists.MOST_HABITS} and block 1 or more; got {k} and {block}")
    place = state.folder(data, folder)
    with _alone(place), _clear_errors(place), closing(state.connect(place, wait=wait)) as connection:
        prepare(connection, data, clock())
        updater.catch_up(connection, clock())
        model = model or live.find(data, place)
        what = json.dumps([model.key, day.isoformat(), k])
        number, is_live = _begin(connection, what, clock())
        found = _fill(connection, place, model, number, (k, lists.moments(day)), block, clock, progress)
        if not is_live:
            _swap(connection, number, model.key, day, k, clock())
        _sweep(connection, model.key, clock())
    return Run(*found, swapped=not is_live)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    state.own_folder(folder)
    try:
        with FileLock(folder / _LOCK, timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another batch is running on {folder}") from None


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        advice = "the former lists stay live; called again, the batch goes on where it was"
        raise type(error)(f"{folder / state.DATABASE}: {error}; {advice}") from error


def _begin(connection: sqlite3.Connection, what: str, now: datetime) -> tuple[int, bool]:
    """Return the run that makes these lists, begun now where there is none, and whether it is live."""
    with state.transaction(connection):
        row = connection.execute("SELECT run, live_at FROM runs WHERE what = ?", (what,)).fetchone()
        connection.execute("DELETE FROM runs WHERE live_at IS NULL AND what != ?", (what,))  # nobody completes them
        if row is not None:
            return int(row[0]), row[1] is not None
        cursor = connection.execute("INSERT INTO runs (what, begun_at) VALUES (?, ?)", (what, state.stamp(now)))
        return int(cursor.lastrowid or 0), False


def _fill(
    connection: sqlite3.Connection,
    folder: Path,
    model: live.Live,
    number: int,
    asked: tuple[int, Sequence[datetime]],
    block: int,
    clock: Callable[[], datetime],
    progress: bool,
) -> tuple[int, int, int]:
    """Make the lists that are missing, block by block; returns numbers of people, of those ready, and of lists made."""
    answers, directory = Answers(model, FeatureStore(folder)), Directory(folder, model.zones)
    directory.follow()
    everybody = directory.people()
    ready = made = 0
    with (
        no_collector(),
        tqdm(total=len(everybody), file=sys.stderr, disable=not progress, unit=" people") as bar,
    ):
        for users in (everybody[begin : begin + block] for begin in range(0, len(everybody), block)):
            directory.follow()
            known = {user: profile for user in users if (profile := directory.get(user)) is not None}
            done = _done(connection, number, users, len(asked[1]))
            missing = {user: profile for user, profile in known.items() if done.get(user) != profile.version}
            found = list(answers.draw_many(missing, *asked))
            made += _write(connection, number, found, missing, clock())
            ready += len(known) - len(missing)
            bar.update(len(users))
            gc.collect()
    return len(everybody), ready, made


@contextmanager
def no_collector() -> Iterator[None]:
    """Lists hold no cycles, but looking for some, among them and all that the model keeps, takes a fifth of the time.

    Within, `gc.collect()` looks at what was made since.
    """
    was_enabled = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _done(connection: sqlite3.Connection, number: int, users: Sequence[str], each: int) -> dict[str, int]:
    """People of the block who have all their lists in this run, and of which version of their profile."""
    rows = connection.execute(
        "SELECT user_id, min(profile_version) FROM lists WHERE run = ? AND user_id BETWEEN ? AND ?"
        " GROUP BY user_id HAVING count(*) = ? AND min(profile_version) = max(profile_version)",
        (number, users[0], users[-1], each),
    )
    return dict(rows.fetchall())


def _write(
    connection: sqlite3.Connection,
    number: int,
    found: Sequence[tuple[Key, bytes]],
    profiles: dict[str, Profile],
    now: datetime,
) -> int:
    """Keep lists, but not of people who changed or were forgotten while they were made; returns how many."""
    if not found:
        return 0
    with state.transaction(connection):
        still = {
            user for user in state.known(connection, profiles) if _version(connection, user) == profiles[user].version
        }
        rows = [row_of(key, drawn, now, None, number) for key, drawn in found if key.user_id in still]
        stale = [(number, user) for user in still if profiles[user].version]
        connection.executemany("DELETE FROM lists WHERE run = ? AND user_id = ?", stale)  # opting out changes the key
        connection.executemany(PUT, rows)
    return len(rows)


def _version(connection: sqlite3.Connection, user_id: str) -> int:
    row = connection.execute("SELECT version FROM profiles WHERE user_id = ?", (user_id,)).fetchone()
    return 0 if row is None else int(row[0])


def _swap(connection: sqlite3.Connection, number: int, model: str, day: date, k: int, now: datetime) -> None:
    """Put a complete run live in place of those that nobody needs beside it."""
    first = (now - LAST_ZONE).date()  # of the days that are not over everywhere
    with state.transaction(connection):
        for run, what in connection.execute("SELECT run, what FROM runs WHERE run != ?", (number,)).fetchall():
            its_model, its_day, its_k, *_ = json.loads(what)
            its_day = date.fromisoformat(its_day)
            if its_model != model or its_day < first or (its_day, its_k) == (day, k):
                connection.execute("DELETE FROM runs WHERE run = ?", (run,))
        connection.execute("UPDATE runs SET live_at = ? WHERE run = ?", (state.stamp(now), number))


def _sweep(connection: sqlite3.Connection, model: str, now: datetime) -> None:
    """Delete lists that nobody finds any more, a few at a time, so that no event has to wait."""
    old = (
        ("run != 0 AND run NOT IN (SELECT run FROM runs)", ()),
        ("run = 0 AND (model_version != ? OR expires_at < ?)", (model, now.timestamp())),
    )
    for which, values in old:
        statement = f"DELETE FROM lists WHERE rowid IN (SELECT rowid FROM lists WHERE {which} LIMIT {_SWEPT})"
        while connection.execute(statement, values).rowcount:
            pass
