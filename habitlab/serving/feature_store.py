"""Values of features for the next answer: read where they are found first, memory or Redis, or else the database.

The updater writes them to the database. A value is known by the version of the profile that it belongs to, so nobody
ever reads an old one, and whatever is lost on the way is read again.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

from habitlab.serving import state
from habitlab.serving.cache import Breaker, Guarded
from habitlab.serving.lists import Key
from habitlab.serving.store import MemoryStore

log = logging.getLogger(__name__)
SECONDS = 6 * 3600.0
_SPACE = "features"
_MOST = 20_000


class FeatureStore:
    """Features of people by the version of their profile; `history.features` says what they are."""

    def __init__(self, folder: str | Path, shared: Guarded | None = None) -> None:
        """`shared`: Redis, where there is one; else they are kept in memory."""
        self._memory = MemoryStore(most=_MOST, most_bytes=64 << 20)
        self._first = shared or Guarded(self._memory, Breaker(), lambda level: None)
        self.connections = state.Connections(folder, wait=0.5)

    def get(self, user_id: str, version: int) -> dict[str, Any] | None:
        """Return the features of a person; None where they cannot be had, or nothing is known."""
        key = Key(user_id, _SPACE, version, "")
        found = _read(self._first.get(key)) or _read(self._memory.get(key))
        if found is not None:
            return found
        try:
            with self.connections.use() as connection:
                row = connection.execute(
                    "SELECT body FROM features WHERE user_id = ? AND profile_version >= ?", (user_id, version)
                ).fetchone()
        except (sqlite3.Error, OSError, ValueError) as error:
            log.warning("features cannot be read: %s", error)
            return None
        if row is None:
            return None
        self.put(user_id, version, row[0].encode())
        return _read(row[0].encode())

    def put(self, user_id: str, version: int, body: bytes) -> None:
        """Keep features where they are found first."""
        key = Key(user_id, _SPACE, version, "")
        self._first.put(key, body, SECONDS)
        self._memory.put(key, body, SECONDS)

    def forget(self, user_id: str) -> None:
        """Forget one person where values are found first."""
        self._memory.forget(user_id)
        self._first.forget(user_id)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._memory.clear()


def _read(body: bytes | None) -> dict[str, Any] | None:
    """Read JSON; what is damaged is as good as not there."""
    try:
        found = None if body is None else json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "filters" in found else None
