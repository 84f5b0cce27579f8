"""What moved a habit up or down for a person: the parts of its score, each held against an average habit.

A part of the score alone says little: a habit that suits the time budget no better than all others has a large part
`time` and yet is not on the list for that. So the *effect* of a part is by how much the score would fall if this part
were that of an average habit (the mean over the catalogue, for this person). A part about which the person has told
nothing is the same for all habits and has no effect; the part `age` only ever takes away, and its neutral value is 0.

The blend takes a share of all other parts away for age, so that a part counts for less where age does: with it, an
effect is exactly the fall of the score when the blend is computed again (`faithfulness.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from habitlab.dataset.vocabulary import Activity, Category, Chronotype, Level, TimeOfDay
from habitlab.explanations.wording import Quantity

Floats = npt.NDArray[np.float64]

MOST = 3
SMALLEST = 0.001
"""Effects below a thousandth of the scale are no reason."""

_SOUGHT = {Level.BEGINNER: 1.5, Level.INTERMEDIATE: 3.0, Level.ADVANCED: 4.5}
_BEST = {Chronotype.MORNING: TimeOfDay.MORNING, Chronotype.EVENING: TimeOfDay.EVENING}
_NEAR = 1.0  # a step of difficulty


@dataclass(frozen=True)
class Outlook:
    """Calibrated probability to keep a habit, in [0, 1], and its interval where one is known."""

    probability: float
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the order."""
        low, high = self.interval or (self.probability, self.probability)
        if not 0 <= low <= self.probability <= high <= 1:
            raise ValueError(f"needs 0 <= low <= probability <= high <= 1; got {self}")


@dataclass(frozen=True)
class Factor:
    """One part of a score and what can truly be said of it.

    `effect` is by how much it moves the score against an average habit, negative when it speaks against this one.
    `statement` names the message `reason.<part>_<statement>`, `facts` fill its places.
    """

    part: str
    effect: float
    statement: str
    facts: Mapping[str, Any]

    @property
    def message(self) -> str:
        """Key of the message that says it."""
        return f"reason.{self.part}_{self.statement}"


STATEMENTS: dict[str, dict[str, int]] = {
    "category": {"match": 1, "mismatch": -1},
    "time": {"fits": 1, "longer": -1, "short": -1},
    "time_of_day": {"match": 1, "any": 1, "mismatch": -1, "best": 1, "not_best": -1},
    "difficulty": {"near": 1, "harder": -1, "easier": -1},
    "text": {"closer": 1, "farther": -1},
    "preference": {"match": 1, "mismatch": -1},
    "similar_people": {"more": 1, "less": -1, "more_alike": 1, "less_alike": -1, "more_popular": 1, "less_popular": -1},
    "success": {"higher": 1, "lower": -1},
    "age": {"young": -1, "old": -1},
}
"""What can be said of each part, and whether it speaks for (1) or against (-1) a habit."""


def effects(contributions: Mapping[str, Floats], neutral: Mapping[str, Floats] | None = None) -> dict[str, Floats]:
    """Return the effect of every part, in the shape of the contributions.

    Parameters
    ----------
    contributions
        Name -> parts of the scores, (users, habits); their sum is the score.
    neutral
        Name -> part of an average habit, (users, 1); by default the mean over the habits given.
    """
    rest = sum((part for name, part in contributions.items() if name != "age"), np.zeros(1))
    age = contributions.get("age", np.zeros(1))
    kept = 1.0 + np.divide(age, rest, out=np.zeros(np.broadcast(age, rest).shape), where=rest > 0)
    average = neutral_parts(contributions) if neutral is None else neutral
    return {name: part if name == "age" else (part - average[name]) * kept for name, part in contributions.items()}


def neutral_parts(contributions: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the parts of an average habit (users, 1), from those of the whole catalogue (users, habits)."""
    return {name: part.mean(axis=1, keepdims=True) for name, part in contributions.items()}


def item_effects(contributions: Mapping[str, float], neutral: Mapping[str, float]) -> dict[str, float]:
    """Return the effects of one item's parts, as `effects` does, without arrays: a list is explained in a moment."""
    rest = sum(part for name, part in contributions.items() if name != "age")
    kept = 1.0 + (contributions.get("age", 0.0) / rest if rest > 0 else 0.0)
    return {
        name: part if name == "age" else (part - neutral.get(name, 0.0)) * kept for name, part in contributions.items()
    }


def factors(
    effect: Mapping[str, float],
    user: Mapping[str, Any],
    habit: Mapping[str, Any],
    outlook: Outlook | None = None,
    *,
    has_history: bool = False,
    compared: bool = False,
    most: int = MOST,
) -> list[Factor]:
    """Return what moved this habit most for this person: at most `most` factors, by falling |effect|, ties by name.

    `user` and `habit` are rows of the tables `users` and `habits`. A factor is given only where a statement about it
    is true of both the person and the score, so a part without such a statement is passed over. Others are called
    people with like habits where the person `has_history`, people like them where they were `compared`, else people.
    """
    found: list[Factor] = []
    others = "" if has_history else "_alike" if compared else "_popular"
    for part in sorted(effect, key=lambda name: (-round(abs(effect[name]), 12), name)):
        if len(found) == most:
            break
        if abs(effect[part]) < SMALLEST or part not in STATEMENTS:
            continue
        for statement, values in _true_statements(part, user, habit, outlook, effect[part], others):
            if STATEMENTS[part][statement] * effect[part] > 0:
                found.append(Factor(part, float(effect[part]), statement, values))
                break
    return found


def _true_statements(
    part: str,
    user: Mapping[str, Any],
    habit: Mapping[str, Any],
    outlook: Outlook | None,
    effect: float,
    others: str,
) -> list[tuple[str, dict[str, Any]]]:
    match part:
        case "category":
            return _category(_listed(user, "improvement_areas"), _known(habit, "category"))
        case "time":
            return _time(_known(user, "time_commitment"), _known(habit, "minutes"))
        case "time_of_day":
            preferred, best = _known(user, "preferred_time"), _BEST.get(_known(user, "chronotype"))
            return _time_of_day(preferred, best, _known(habit, "time_of_day"))
        case "difficulty":
            return _difficulty(_known(user, "difficulty_preference"), _known(habit, "difficulty"))
        case "preference":
            return _preference(_listed(user, "activity_preferences"), _listed(habit, "activity_type"))
        case "age":
            return _age(_known(user, "age"), _known(habit, "min_age"), _known(habit, "max_age"))
        case "success" if outlook is not None:
            return [("higher" if effect > 0 else "lower", {"outlook": outlook})]
        case "text":
            return [("closer" if effect > 0 else "farther", {})]
        case "similar_people":
            return [(("more" if effect > 0 else "less") + others, {})]
    return []


def _category(areas: list[str] | None, category: str | None) -> list[tuple[str, dict[str, Any]]]:
    if not areas or category is None:
        return []
    return [("match" if category in areas else "mismatch", {"category": Category(category)})]


def _time(budget: float | None, minutes: float | None) -> list[tuple[str, dict[str, Any]]]:
    if budget is None or minutes is None:
        return []
    values = {"minutes": Quantity("minutes", minutes), "budget": Quantity("minutes", budget)}
    return [("longer", values)] if minutes > budget else [("fits", values), ("short", values)]


def _time_of_day(preferred: str | None, best: TimeOfDay | None, time: str | None) -> list[tuple[str, dict[str, Any]]]:
    if preferred == TimeOfDay.ANY:
        preferred = None
    if time is None or not (preferred or best):
        return []
    if time == TimeOfDay.ANY:
        return [("any", {})]
    said = []
    if preferred:
        values = {"time": TimeOfDay(time), "preferred": TimeOfDay(preferred)}
        said.append(("match" if time == preferred else "mismatch", values))
    if best:
        said.append(("best" if time == best else "not_best", {"time": TimeOfDay(time), "best": best}))
    return said


def _difficulty(level: str | None, difficulty: float | None) -> list[tuple[str, dict[str, Any]]]:
    if level is None or difficulty is None:
        return []
    beyond = difficulty - _SOUGHT[Level(level)]
    said = [("near", abs(beyond) <= _NEAR), ("harder", beyond > 0), ("easier", beyond < 0)]
    values = {"difficulty": int(difficulty), "level": Level(level)}
    return [(statement, values) for statement, true in said if true]


def _preference(liked: list[str] | None, activities: list[str] | None) -> list[tuple[str, dict[str, Any]]]:
    if not liked or not activities:
        return []
    shared = [Activity(a) for a in activities if a in liked]
    others = [Activity(a) for a in activities if a not in liked]
    said = [("match", {"activities": shared})] if shared else []
    return said + ([("mismatch", {"activities": others})] if others else [])


def _age(age: float | None, youngest: float | None, oldest: float | None) -> list[tuple[str, dict[str, Any]]]:
    if age is None:
        return []
    if youngest is not None and age < youngest:
        return [("young", {"limit": Quantity("years", youngest)})]
    if oldest is not None and age > oldest:
        return [("old", {"limit": Quantity("years", oldest)})]
    return []


def _known(row: Mapping[str, Any], column: str) -> Any:
    value = row.get(column)
    return None if value is None or value != value else value  # NaN is not itself


def _listed(row: Mapping[str, Any], column: str) -> list[str] | None:
    value = row.get(column)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
