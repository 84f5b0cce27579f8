"""A finished list as bytes: its key, and what has to be known of it when it is shown.

Kept for long, in the database, is the draw alone (`recommender.draws`); words are made when somebody reads it, and kept
with it where it is found first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

from habitlab.recommender.recommendations import Recommendations

PARTS_OF_DAY = (0, 12, 18)
"""Local hours at which a list may change during a day: those at which a part of the day is over."""


class Key(NamedTuple):
    """What a finished list depends on. Another model or another profile has another key, so nothing stale is found."""

    user_id: str
    model_version: str
    profile_version: int
    name: str
    """Number of habits and moment, see `name`; and the language of what is in words."""

    def worded(self, lang: str) -> Key:
        """Return the key of the same list in a language."""
        return self._replace(name=f"{self.name} {lang}")


@dataclass(frozen=True)
class Ready:
    """A finished list: the JSON body but for its last field, and the policy and propensities of its draw."""

    body: bytes
    """Without the closing brace, so that who serves it can add `served_from` without reading it."""
    draw: bytes
    """JSON: `id` (the begin of its exposures' event ids), policy, and [habit_id, propensity] in rank order."""
    whole: bool = True
    """Whether it counts all that happened; what does not is never kept."""

    def pack(self) -> bytes:
        """Return it as one value for a store."""
        return self.draw + b"\n" + self.body

    @classmethod
    def unpack(cls, packed: bytes) -> Ready:
        """Read what `pack` wrote; ValueError for anything else."""
        draw, newline, body = packed.partition(b"\n")
        if not newline or body[:1] != b"{" or draw[:1] != b"{":
            raise ValueError("this is no finished list")
        return cls(body, draw)

    @classmethod
    def of(cls, answer: Recommendations, key: Key) -> Ready:
        """Finish an explained list for the person of the key."""
        body = answer.to_json() | {"user_id": key.user_id}
        items = [[item.habit_id, float(item.propensity)] for item in answer.items]
        number = hashlib.sha256(repr((key, items)).encode()).hexdigest()[:ID_LENGTH]
        draw = {"id": number, "policy": answer.policy, "items": items}
        return cls(_JSON.encode(body).encode()[:-1], _JSON.encode(draw).encode())

    @property
    def exposure(self) -> str:
        """Begin of the event ids of this list's exposures: `<exposure>-<rank>`."""
        return self.draw[_ID].decode()

    def served(self, level: str) -> bytes:
        """Return the body with the level that it comes from."""
        return self.body + _SERVED[level]


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
MOST_HABITS = 100
"""On one list."""
ID_LENGTH = 24
_ID = slice(len('{"id":"'), len('{"id":"') + ID_LENGTH)  # it comes first, so that nobody has to read the JSON
LEVELS = ("memory", "redis", "database", "computed")
ERROR = "error"
"""In place of a level: there was no list, for a fault of the service."""
_SERVED = {level: b',"served_from":"%s"}\n' % level.encode() for level in LEVELS}


def name(k: int, moment: datetime, *, personal: bool = True) -> str:
    """Return the part of a key that says what was asked for; `personal`: not for who opted out of personalisation."""
    return f"{k} {moment.isoformat()}{'' if personal else ' impersonal'}"


def read_name(name: str) -> tuple[int, datetime]:
    """Return number of habits and moment of a `name`; ValueError for anything else."""
    k, moment, *_ = (*name.split(), "", "")
    return int(k), datetime.fromisoformat(moment)


def model(version: str) -> str:
    """Return the part of a key that says which model and which wording made a list."""
    return f"{version}-{wording()}"


def current(moment: datetime) -> datetime:
    """Return the begin of the stretch of the day, on the person's own clock, in which a list stays the same."""
    begins = max(hour for hour in PARTS_OF_DAY if hour <= moment.hour)
    return datetime(moment.year, moment.month, moment.day, begins)


def moments(day: date) -> Sequence[datetime]:
    """Return the moments for which lists of a local day are made."""
    return [datetime(day.year, day.month, day.day, hour) for hour in PARTS_OF_DAY]


@cache
def wording() -> str:
    """Return a hash of the source that puts lists into words: a changed text is another list."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in ("explanations", "recommender"):
        for path in sorted(p for p in (package / room).rglob("*") if p.suffix in (".py", ".toml", ".csv")):
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:8]
