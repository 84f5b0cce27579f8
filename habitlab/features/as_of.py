"""What was known when a day began: events on local days, and sums of those before any day of any person.

An event counts for a day only if it fell on an earlier local day of its own user (`users.zone`, `users.day_start`; who
has no zone lives in UTC). An event at an unknown time counts for no day.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset, DatasetError
from habitlab.features.days import Day, local_date, until_day

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NEVER = 1 << 22
"""Day number of what has no known day: after every real one, and too late for any sum."""

_SHIFT = 1 << 21  # dates before 1970 are negative
_SPAN = 1 << 23


def event_days(dataset: Dataset, table: str, column: str) -> Ints:
    """Local day of each instant of a column (rows,), in days since 1970-01-01; NEVER where it is missing.

    Kept with the dataset, whose tables do not change: most features need the same few columns.
    """
    kept = vars(dataset).setdefault("_event_days", {})
    if (table, column) not in kept:
        kept[table, column] = _local_days(dataset, table, column)
        kept[table, column].flags.writeable = False
    return kept[table, column]


def answer_days(dataset: Dataset) -> Ints:
    """Local day of the answer to each recommendation (rows,): where none is told, the day on which it was shown."""
    answered = event_days(dataset, "recommendations", "responded_at")
    return np.where(answered < NEVER, answered, event_days(dataset, "recommendations", "shown_at"))


def _local_days(dataset: Dataset, table: str, column: str) -> Ints:
    frame = dataset.table(table)
    if column not in frame or frame.empty:
        return np.full(len(frame), NEVER)
    users = dataset.users
    place = codes(frame["user_id"], users["user_id"])
    zone: pd.Series | str = "UTC"
    start: pd.Series | float = 0.0
    if "zone" in users:
        zone = users["zone"].astype(object).fillna("UTC").iloc[place].set_axis(frame.index)
    if "day_start" in users:
        start = users["day_start"].iloc[place].set_axis(frame.index)
    day = local_date(frame[column], zone, start).to_numpy().astype("datetime64[D]")
    return np.where(np.isnat(day), NEVER, day.astype(np.int64))


def end_of(dataset: Dataset, until: Day | None) -> int:
    """`until` as days since 1970-01-01; None is the day after the last day on which anything happened."""
    if until is not None:
        return until_day(until, dataset.habit_tracking)
    last = until_day(None, dataset.habit_tracking) - 1 if "date" in dataset.habit_tracking else -1
    for table, column in (
        ("users", "registered_at"),
        ("adoptions", "adopted_at"),
        ("adoptions", "abandoned_at"),
        ("modifications", "at"),
        ("recommendations", "shown_at"),
        ("recommendations", "responded_at"),
        ("sessions", "started_at"),
        ("feedback", "at"),
        ("surveys", "answered_at"),
    ):
        days = event_days(dataset, table, column)
        last = max(last, int(days[days < NEVER].max(initial=-1)))
    return last + 1


def codes(ids: pd.Series, known: pd.Series) -> Ints:
    """Position of each id (n,) in `known`, whose ids are unique; -1 where it is not there."""
    code, names = pd.factorize(ids)
    return np.append(unique_index(known).get_indexer(names), -1)[code].astype(np.int64)


def unique_index(ids: pd.Series) -> pd.Index:
    """Index of ids of users or habits; DatasetError where one stands twice."""
    index = pd.Index(ids)
    if not index.is_unique:
        twice = index[index.duplicated()]
        raise DatasetError(f"{ids.name}: {len(twice):,} ids stand more than once, such as {twice[0]!r}")
    return index


class Tally:
    """Running sums of events by key, to be read as of any day."""

    def __init__(self, key: Ints, day: Ints, **weights: npt.NDArray) -> None:
        """`key` (events,) whole numbers from 0, others are left out; `day` (events,); `weights` (events,) by name."""
        place = key * _SPAN + (day + _SHIFT)
        held = (key >= 0) & (day < NEVER)
        if not held.all():
            place, weights = place[held], {name: values[held] for name, values in weights.items()}
        if (place[1:] < place[:-1]).any():
            order = np.argsort(place, kind="stable")
            place, weights = place[order], {name: values[order] for name, values in weights.items()}
        self._place = place
        self._sums = {name: np.append(0.0, np.cumsum(values, dtype=float)) for name, values in weights.items()}

    def count(self, key: Ints, day: npt.ArrayLike, window: int | None = None) -> Ints:
        """Events of each key (n,) before each day (n, or one for all), in the last `window` days where one is given."""
        first, stop = self._range(key, day, window)
        return stop - first

    def sum(self, name: str, key: Ints, day: npt.ArrayLike, window: int | None = None) -> Floats:
        """Sum of a weight over the events that `count` counts."""
        first, stop = self._range(key, day, window)
        return self._sums[name][stop] - self._sums[name][first]

    def latest(self, key: Ints, day: npt.ArrayLike) -> Floats:
        """Day of the latest event of each key before each day; NaN without one."""
        first, stop = self._range(key, day, None)
        found = stop > first
        return (
            np.where(found, self._place[np.where(found, stop - 1, 0)] % _SPAN - _SHIFT, np.nan)
            if found.any()
            else (np.full(len(key), np.nan))
        )

    @property
    def size(self) -> int:
        """Number of events."""
        return self._place.size

    def _range(self, key: Ints, day: npt.ArrayLike, window: int | None) -> tuple[Ints, Ints]:
        begin, day = key * _SPAN, np.asarray(day, dtype=np.int64) + _SHIFT
        since = begin if window is None else begin + np.maximum(day - window, 0)
        return np.searchsorted(self._place, since), np.searchsorted(self._place, begin + day)
