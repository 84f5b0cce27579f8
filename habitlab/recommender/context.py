"""What may be offered to people at one moment, and when they would best begin.

Every filter counts what it takes away, each habit once, by the first of `REASONS` that applies:

unsafe
    The guardrails forbid it, to everybody or to minors; who does not say their age is treated as a minor.
age
    Below its lower age limit, which is one of safety: for minors and unknown ages whatever the habit, for everybody
    where it is one of the body (physical, health, diet, an activity `physical`, or of unknown category). All other
    limits say for whom a habit is typical, and are soft: see `misfit`. A habit of the body is filtered out as well for
    those who are so far past its upper limit that nothing is left to decay.
held
    The person holds it, or held it before they registered.
prerequisite
    It builds on a habit that the person does not hold.
time_budget
    It takes more minutes a day than the person has. The budget holds for each habit alone.
rejected
    The person rejected it less than `COOL_DOWN` days ago.
given_up
    The person gave it up less than `REST` days ago.
shown_often
    It was shown `FATIGUE` times in the last `FATIGUE_DAYS` days and not taken.
time_of_day
    Its part of the day is over at the time of viewing, and it is not to be planned for tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from habitlab.recommender.guardrails import ADULT

if TYPE_CHECKING:
    from habitlab.recommender.candidates import Candidates

REASONS = (
    "unsafe",
    "age",
    "held",
    "prerequisite",
    "time_budget",
    "rejected",
    "given_up",
    "shown_often",
    "time_of_day",
)
COOL_DOWN = 60
REST = 90
FATIGUE, FATIGUE_DAYS = 3, 30
YOUNGEST = 13
SOFT_YEARS = 5.0
"""Years past a soft limit over which a habit loses what it loses by age."""

PART_ENDS = (12, 18, 24)
"""Local hours at which morning, afternoon and evening are over. Before `NIGHT_ENDS` the day has not begun."""
NIGHT_ENDS = 5
LONG_AGO = np.int64(-(10**6))
NO_DAY = np.int64(np.iinfo(np.int32).min)
"""In place of a day that is not known."""
_EPOCH = date(1970, 1, 1).toordinal()

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """What filters ask about people; days are days since 1970-01-01, `LONG_AGO` is never."""

    age: Floats  # (people,) NaN: unknown
    budget: Floats  # (people,) minutes a day; NaN: unknown
    held: Bools  # (people, habits)
    rejected: Ints  # (people, habits) day of the last rejection
    given_up: Ints  # (people, habits) day on which it was given up last
    shown_to: Ints  # (shown,) rows of people
    shown: Ints  # (shown,) habits that were shown to them and not taken
    shown_day: Ints  # (shown,)
    weekdays: Floats  # (people, 7) log-odds of completion by weekday, Monday first


def misfit(age: npt.ArrayLike, candidates: Candidates) -> Floats:
    """How little each habit suits each age by its soft limits (people, habits): 0 suits, 1 does not; unknown suits.

    Past a limit it grows from 0 to 1 within `SOFT_YEARS`, alike on both sides; the lower limit of a habit of the body
    is hard, and no matter of degree.
    """
    years = np.asarray(age, dtype=np.float64)[:, None]
    low = np.nan_to_num(candidates.min_age, nan=0.0)
    high = np.nan_to_num(candidates.max_age, nan=np.inf)
    high = np.where(high >= 120, np.inf, high)  # as old as people get is no limit
    below = np.where(candidates.bodily, -np.inf, low - years)
    past = np.nan_to_num(np.maximum(years - high, below), nan=0.0, neginf=0.0)
    return np.clip(past / SOFT_YEARS, 0.0, 1.0)


def unsuitable(age: Floats, candidates: Candidates) -> Bools:
    """Habits for which each of these people is too young, or of the body and far too old (people, habits)."""
    years = age[:, None]
    low = np.nan_to_num(candidates.min_age, nan=0.0)
    past = years >= np.nan_to_num(candidates.max_age, nan=np.inf) + SOFT_YEARS
    young = (years < low) & (candidates.bodily | (years < ADULT))
    return np.where(np.isnan(years), low > YOUNGEST, young | (past & candidates.bodily))


def unsafe(age: Floats, candidates: Candidates) -> Bools:
    """Habits that the guardrails forbid at each age (people, habits); an unknown age is that of a minor."""
    return candidates.safe_from > np.where(np.isnan(age), YOUNGEST, age)[:, None]


def sift(
    group: Group, candidates: Candidates, *, day: int, hour: float | None = None, tomorrow: bool = False
) -> tuple[Bools, Ints]:
    """Tell which habits may be offered (people, habits), and how many each of `REASONS` took away (people, reasons).

    `day`: local day of viewing; `hour`: local hour, 0 <= hour < 24, None where it is not known. `tomorrow`: habits
    whose part of the day is over are planned for tomorrow and not taken away.
    """
    shape = len(group.age), len(candidates)
    builds = np.flatnonzero(candidates.requires.any(axis=1))
    wanting = np.zeros(shape, dtype=bool)
    wanting[:, builds] = (~group.held).astype(np.float32) @ candidates.requires[builds].T.astype(np.float32) > 0
    recent = group.shown_day > day - FATIGUE_DAYS
    pairs = group.shown_to[recent] * shape[1] + group.shown[recent]
    applies = {
        "unsafe": unsafe(group.age, candidates),
        "age": unsuitable(group.age, candidates),
        "held": group.held,
        "prerequisite": wanting,
        "time_budget": candidates.minutes > group.budget[:, None],  # never where either is unknown
        "rejected": day - group.rejected < COOL_DOWN,
        "given_up": day - group.given_up < REST,
        "shown_often": np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape) >= FATIGUE,
        "time_of_day": np.zeros(shape[1], dtype=bool) if tomorrow else over(candidates, hour),
    }
    left = np.ones(shape, dtype=bool)
    taken = np.zeros((shape[0], len(REASONS)), dtype=np.int64)
    for number, reason in enumerate(REASONS):
        taken[:, number] = np.count_nonzero(left & applies[reason], axis=1)
        left &= ~applies[reason]
    return left, taken


def hour_of(at: datetime | None) -> float | None:
    """Local hour of a moment, 0 <= hour < 24; None where it is not known."""
    return None if at is None else at.hour + at.minute / 60


def over(candidates: Candidates, hour: float | None) -> Bools:
    """Habits whose part of the day is over at this local hour (habits,)."""
    if hour is None or hour < NIGHT_ENDS:
        return np.zeros(len(candidates), dtype=bool)
    return (candidates.part >= 0) & (np.array(PART_ENDS)[candidates.part] <= hour)


def good_weekdays(weekdays: Floats) -> Bools:
    """Weekdays on which people do better than on their average day (people, 7); all where no day differs."""
    good = weekdays > weekdays.mean(axis=1, keepdims=True) + 1e-12
    return good | ~good.any(axis=1, keepdims=True)


def first_days(weekdays: Floats, at: datetime | None, *, today_is_over: bool = False) -> tuple[Ints, Ints]:
    """Weekday (people,), 0 Monday, on which each of these people best begins, and its day since 1970-01-01 (people,).

    It is their next good one from the moment on, at most a week away; without a moment the best one, and `NO_DAY`.
    """
    if at is None:
        return weekdays.argmax(axis=1), np.full(len(weekdays), NO_DAY)
    first = day_number(at) + int(today_is_over)
    ahead = np.roll(good_weekdays(weekdays), -weekday_of(first), axis=1).argmax(axis=1)
    return weekday_of(first + ahead), first + ahead


def day_number(at: datetime) -> int:
    """Day of a moment since 1970-01-01."""
    return at.toordinal() - _EPOCH


def date_of(day: int) -> date | None:
    """Date of a day since 1970-01-01; None of `NO_DAY`."""
    return None if day == NO_DAY else date.fromordinal(day + _EPOCH)


def weekday_of(day: Any) -> Any:
    """Weekday, 0 Monday, of days since 1970-01-01, a Thursday."""
    return (day + 3) % 7
