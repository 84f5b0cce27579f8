"""What one person did since the recommender was fitted, so that the next list counts it without a new fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from habitlab.recommender.candidates import Candidates
from habitlab.recommender.context import LONG_AGO
from habitlab.recommender.people import GIVEN_UP, HELD, REJECTED, SHOWN, People

Floats = npt.NDArray[np.float64]
_LEAST = 1e-9  # no probability is 0 or 1 for ever

BY_REJECTION = 1.5
"""Log-odds that a rejection takes off a habit's score."""
BY_STAR = 0.5
"""Log-odds for each star of a rating above or below three."""


@dataclass(frozen=True)
class Since:
    """Habits by their id, days since 1970-01-01; what is no habit of the recommender is left out.

    `released` are no longer held. `shown` counts each habit once for each day in it. `success` moves the log-odds of
    keeping any habit by as much as those of the person's own completion rate have moved, `opinions` those of the habits
    that they rated or rejected.
    """

    held: frozenset[str] = frozenset()
    released: frozenset[str] = frozenset()
    rejected: Mapping[str, int] = field(default_factory=dict)
    given_up: Mapping[str, int] = field(default_factory=dict)
    shown: tuple[tuple[str, int], ...] = ()
    success: float = 0.0
    opinions: Mapping[str, float] = field(default_factory=dict)

    def of(self, people: People, row: int, candidates: Candidates) -> People:
        """Return this person alone, with what happened since."""
        number = _places(candidates)
        mine = slice(people.first[row], people.first[row + 1])
        habit, day, kind = people.event_habit[mine], people.event_day[mine], people.event_kind[mine]
        known = set(habit[kind != SHOWN].tolist())
        released = [number[name] for name in self.released if name in number]
        stays = ~((kind == HELD) & np.isin(habit, released))
        events: list[tuple[str, int, int]] = [
            *((name, int(LONG_AGO), HELD) for name in sorted(self.held)),
            *((name, day, REJECTED) for name, day in sorted(self.rejected.items())),
            *((name, day, GIVEN_UP) for name, day in sorted(self.given_up.items())),
            *((name, day, SHOWN) for name, day in self.shown),
        ]
        new = np.array([(number[name], day, kind) for name, day, kind in events if name in number], dtype=np.int64)
        new_habit, new_day, new_kind = new.reshape(-1, 3).T
        acted = _acted(new_habit, new_kind) - known
        return People(
            ids=people.ids[[row]],
            age=people.age[[row]],
            budget=people.budget[[row]],
            liked=people.liked[[row]],
            evidence=people.evidence[[row]] + len(acted),
            weekdays=people.weekdays[[row]],
            zone=people.zone[[row]],
            profiles=people.profiles[[row]],
            first=np.array([0, int(stays.sum()) + len(new_habit)]),
            event_habit=np.concatenate([habit[stays], new_habit]).astype(np.int32),
            event_day=np.concatenate([day[stays], new_day]),
            event_kind=np.concatenate([kind[stays], new_kind]).astype(np.int8),
            opted_out=people.opted_out[[row]],
            profiled=people.profiled[[row]],
        )

    def shifted(self, raw: Floats, candidates: Candidates) -> Floats:
        """Return scores of the models (1, parts, habits), of which success is the last, with success moved."""
        if not self.success and not self.opinions:
            return raw
        own = np.array([self.opinions.get(str(habit), 0.0) for habit in candidates.ids])
        moved = raw.copy()
        chance = np.clip(raw[:, -1], _LEAST, 1 - _LEAST)
        moved[:, -1] = special.expit(special.logit(chance) + self.success + own)
        return moved


@lru_cache(maxsize=8)
def _places(candidates: Candidates) -> Mapping[str, int]:
    return {str(habit): place for place, habit in enumerate(candidates.ids)}


def changes_of(rejected: Iterable[str], rated: Mapping[str, int]) -> dict[str, float]:
    """Return what habits that were rejected, and the last ratings, change, before they fade: log-odds by habit.

    >>> changes_of(["h1"], {"h2": 4})
    {'h1': -1.5, 'h2': 0.5}
    """
    changes = dict.fromkeys(rejected, -BY_REJECTION)
    for habit, stars in rated.items():
        changes[habit] = changes.get(habit, 0.0) + BY_STAR * (stars - 3)
    return {habit: change for habit, change in changes.items() if change}


def _acted(habits: Iterable[int], kinds: Iterable[int]) -> set[int]:
    return {int(habit) for habit, kind in zip(habits, kinds, strict=True) if kind != SHOWN}
