"""Whom the service knows, in memory: followed from the database, so that a lookup costs nothing."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from habitlab.serving import state
from habitlab.serving.background import repeat

log = logging.getLogger(__name__)
EVERY = 0.1
"""Seconds after which a worker looks for what others have written."""


@dataclass(frozen=True)
class Profile:
    """What a request has to know of a person before it looks for their list."""

    version: int = 0
    opted_out: bool = False
    zone: str = ""
    registered_here: bool = False


class Directory:
    """All people, those of the data and those who registered here.

    `zones`: zone of everybody whom the model knows; of these, those are answered who are in the database, too: whom
    somebody deletes there is gone here. `on_reset` is called when everything kept in memory has to go.
    """

    def __init__(
        self, folder: str | Path, zones: Mapping[str, str], on_reset: Callable[[], None] = lambda: None
    ) -> None:
        """Nothing is read yet; `follow` does."""
        self._connections = state.Connections(folder, wait=0.5)
        self._zones, self._on_reset = zones, on_reset
        self._base: dict[str, Profile] = {}
        self._changed: dict[str, Profile] = {}
        self._last, self._generation = 0, -1
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.fresh = False
        """Whether the database could be read the last time."""

    def get(self, user_id: str) -> Profile | None:
        """Return who that is; None for nobody we know."""
        return self._changed.get(user_id) or self._base.get(user_id)

    def people(self) -> list[str]:
        """Return everybody by their ids, in order."""
        here = (user for user, profile in self._changed.items() if profile.registered_here)
        return sorted({*self._base, *here})

    def replace(self, zones: Mapping[str, str]) -> None:
        """Know the people of another model."""
        with self._lock:
            self._zones, self._generation = zones, -1
        self.follow()

    def follow(self) -> None:
        """Read what has changed; raises sqlite3.Error when the database cannot be read."""
        with self._lock:
            try:
                with self._connections.use() as connection:
                    self._read(connection)
                self.fresh = True
            except (sqlite3.Error, OSError, ValueError):
                self.fresh = False
                raise

    def _read(self, connection: sqlite3.Connection) -> None:
        generation, zones = state.generation(connection), self._zones
        anew = generation != self._generation
        if anew:
            here = {user for (user,) in connection.execute("SELECT user_id FROM features WHERE base IS NOT NULL")}
            refused = set(json.loads(state.meta(connection, "opted_out") or "[]"))
        last, changed = (0, {}) if anew else (self._last, self._changed)
        rows = connection.execute(
            "SELECT changed, user_id, version, opted_out, registration FROM profiles"
            " WHERE changed > ? ORDER BY changed",
            (last,),
        )
        for number, user, version, opted_out, registration in rows.fetchall():
            last = number
            zone = (json.loads(registration).get("zone") or "") if registration else zones.get(user, "")
            changed[user] = Profile(version, bool(opted_out), zone, registration is not None)
        if anew:
            kinds = {
                (zone, no): Profile(zone=zone, opted_out=no) for zone in set(zones.values()) for no in (True, False)
            }
            self._base = {user: kinds[zone, user in refused] for user, zone in zones.items() if user in here}
        self._last, self._changed, self._generation = last, changed, generation
        if anew:
            self._on_reset()

    def start(self, every: float = EVERY) -> threading.Thread:
        """Follow in the background until `stop`."""
        return repeat(
            self.follow,
            every,
            self._stop,
            name="follow",
            failing=lambda error: log.error("the database cannot be read, answers go on from memory: %s", error),
        )

    def stop(self) -> None:
        """End following."""
        self._stop.set()
