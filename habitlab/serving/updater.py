"""From events to what the next answer counts: features, consents, and a new version of the profile.

Everything that follows from an event is written in one transaction together with how far the updater has come, so an
event counts once, whatever dies when. A new version of a profile makes every list of that person stale at once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from habitlab.serving import state
from habitlab.serving.events import of_user, read_after
from habitlab.serving.history import Base, Priors, features, fold

CONSUMER = "updater"
BLOCK = 2000


def apply(connection: sqlite3.Connection, now: datetime, most: int = BLOCK) -> list[str]:
    """Apply events that are not applied yet, at most `most`; returns whose they were. To be called in a transaction."""
    done = state.watermark(connection, CONSUMER)
    fresh = read_after(connection, done, most)
    if not fresh:
        return []
    users = sorted({event.user_id for event in fresh})
    refresh(connection, users, now)
    state.set_watermark(connection, CONSUMER, fresh[-1].sequence, now)
    return users


def catch_up(connection: sqlite3.Connection, now: datetime) -> int:
    """Apply whatever is left, in transactions of its own: after a crash, say. Returns how many people it concerned."""
    count = 0
    while waiting(connection):
        with state.transaction(connection):
            count += len(apply(connection, now))
    return count


def waiting(connection: sqlite3.Connection) -> int:
    """Count the events that are not applied yet."""
    done = state.watermark(connection, CONSUMER)
    return int(connection.execute("SELECT count(*) FROM events WHERE sequence > ?", (done,)).fetchone()[0])


def refresh(connection: sqlite3.Connection, users: Iterable[str], now: datetime) -> None:
    """Make the rows of these people anew from the base and all their events, each with the next version."""
    priors = priors_of(connection)
    refused = set(json.loads(state.meta(connection, "opted_out") or "[]"))
    changed = int(connection.execute("SELECT max(coalesce(max(changed), 0), 0) FROM profiles").fetchone()[0])
    for number, user in enumerate(users, changed + 1):
        row = connection.execute("SELECT version, registration FROM profiles WHERE user_id = ?", (user,)).fetchone()
        version, registration = (0, None) if row is None else row
        base = base_of(connection, user, registration)
        history = fold(base, of_user(connection, user))
        opted_out = history.opted_out
        if opted_out is None:
            opted_out = refuses(registration) if registration else user in refused
        connection.execute(
            "INSERT INTO profiles (user_id, version, changed, opted_out, updated_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, changed = excluded.changed,"
            " opted_out = excluded.opted_out, updated_at = excluded.updated_at",
            (user, version + 1, number, int(opted_out), state.stamp(now)),
        )
        connection.execute(
            "INSERT INTO features (user_id, profile_version, body) VALUES (?, ?, ?) ON CONFLICT (user_id) DO UPDATE SET"
            " profile_version = excluded.profile_version, body = excluded.body",
            (user, version + 1, json.dumps(features(history, priors))),
        )


def register(connection: sqlite3.Connection, user_id: str, record: str, now: datetime) -> None:
    """Keep the registration record (JSON) of somebody new. To be called in a transaction."""
    connection.execute(
        "INSERT INTO profiles (user_id, version, changed, registration, registered_at, updated_at)"
        " VALUES (?, 0, -1, ?, ?, ?)",
        (user_id, record, state.stamp(now), state.stamp(now)),
    )
    refresh(connection, [user_id], now)


def registration_of(connection: sqlite3.Connection, user_id: str) -> str | None:
    """Return the record (JSON) with which somebody registered here; None for anybody else."""
    row = connection.execute("SELECT registration FROM profiles WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else row[0]


def refuses(registration: str) -> bool:
    """Whether somebody refused personalisation in so many words when they registered."""
    return (json.loads(registration).get("consents") or {}).get("personalisation") is False


def priors_of(connection: sqlite3.Connection) -> Priors:
    """Return the Beta distributions that were fitted to the data; flat ones before any data were read."""
    found: Priors = json.loads(state.meta(connection, "priors") or '{"user": [1, 1], "habit": [1, 1]}')
    return found


def base_of(connection: sqlite3.Connection, user_id: str, registration: str | None = None) -> Base:
    """Return what the data say of a person; of one who registered here, their zone."""
    row = connection.execute("SELECT base FROM features WHERE user_id = ?", (user_id,)).fetchone()
    if row is not None and row[0]:
        return Base.from_json(row[0])
    return Base(zone=(json.loads(registration).get("zone") or "") if registration else "")


def features_until(
    connection: sqlite3.Connection, user_id: str, registration: str | None, until: int
) -> dict[str, Any]:
    """Return the features of a person as they were after the event with this sequence number."""
    told = [event for event in of_user(connection, user_id) if event.sequence <= until]
    return features(fold(base_of(connection, user_id, registration), told), priors_of(connection))
