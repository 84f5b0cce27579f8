"""What may be offered to one person at one moment, and when they would best begin.

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
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

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

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Person:
    """What filters ask about one person; days are days since 1970-01-01, `LONG_AGO` is never."""

    age: float  # NaN: unknown
    budget: float  # minutes a day; NaN: unknown
    held: Bools  # (habits,)
    rejected: Ints  # (habits,) day of the last rejection
    given_up: Ints  # (habits,) day on which it was given up last
    shown: Ints  # (shown,) habits that were shown and not taken
    shown_day: Ints  # (shown,)
    weekdays: Floats  # (7,) log-odds of completion by weekday, Monday first


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


def unsuitable(age: float, candidates: Candidates) -> Bools:
    """Habits for which somebody of this age is too young, or of the body and far too old (habits,)."""
    low = np.nan_to_num(candidates.min_age, nan=0.0)
    if np.isnan(age):
        return low > YOUNGEST
    past = age >= np.nan_to_num(candidates.max_age, nan=np.inf) + SOFT_YEARS
    return ((age < low) & (candidates.bodily | (age < ADULT))) | (past & candidates.bodily)


def unsafe(age: float, candidates: Candidates) -> Bools:
    """Habits that the guardrails forbid at this age (habits,); an unknown age is that of a minor."""
    return candidates.safe_from > (YOUNGEST if np.isnan(age) else age)


def sift(
    person: Person, candidates: Candidates, *, day: int, hour: float | None = None, tomorrow: bool = False
) -> tuple[Bools, dict[str, int]]:
    """Tell which habits may be offered (habits,), and how many each filter took away (only filters that took any).

    `day`: local day of viewing; `hour`: local hour, 0 <= hour < 24, None where it is not known. `tomorrow`: habits
    whose part of the day is over are planned for tomorrow and not taken away.
    """
    recent = person.shown_day > day - FATIGUE_DAYS
    often = np.bincount(person.shown[recent], minlength=len(candidates)) >= FATIGUE
    applies = {
        "unsafe": unsafe(person.age, candidates),
        "age": unsuitable(person.age, candidates),
        "held": person.held,
        "prerequisite": candidates.requires @ ~person.held,
        "time_budget": candidates.minutes > person.budget,  # never where either is unknown
        "rejected": day - person.rejected < COOL_DOWN,
        "given_up": day - person.given_up < REST,
        "shown_often": often,
        "time_of_day": np.zeros(len(candidates), bool) if tomorrow else over(candidates, hour),
    }
    left = np.ones(len(candidates), dtype=bool)
    taken: dict[str, int] = {}
    for reason in REASONS:
        count = int((left & applies[reason]).sum())
        if count:
            taken[reason] = count
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
    """Weekdays on which a person does better than on their average day (7,); all where no day differs."""
    good = weekdays > weekdays.mean() + 1e-12
    return good if good.any() else np.ones(7, dtype=bool)


def first_day(weekdays: Floats, at: datetime | None, *, today_is_over: bool = False) -> tuple[int, date | None]:
    """Weekday (0 Monday) on which to begin, and its date: the next good one from the moment on, at most a week away.

    Without a moment the best weekday, and no date.
    """
    if at is None:
        return int(np.argmax(weekdays)), None
    good = good_weekdays(weekdays)
    first = at.date() + timedelta(days=int(today_is_over))
    ahead = next(days for days in range(7) if good[(first.weekday() + days) % 7])
    day = first + timedelta(days=ahead)
    return day.weekday(), day
