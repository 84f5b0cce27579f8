"""From rows and instants to local days: the ground on which every feature of habit time stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from habitlab.dataset.schema import DatasetError, MissingColumn
from habitlab.dataset.vocabulary import Status

KEY = ["user_id", "habit_id"]

UNKNOWN, MISSED, SKIPPED, DONE = range(4)
"""Codes of a day's status. The highest wins where a day has several rows: done > skipped > missed > unknown."""

_CODES = {Status.UNKNOWN: UNKNOWN, Status.MISSED: MISSED, Status.SKIPPED: SKIPPED, Status.DONE: DONE}

Day: TypeAlias = str | date | datetime | np.datetime64 | pd.Timestamp


def local_clock(at: pd.Series, zone: pd.Series | str) -> pd.Series:
    """Wall-clock time at which each instant fell for its user (datetime64[us], naive; index of `at`).

    `at`: instants with a zone or offset; text is read as ISO 8601, each with an offset of its own (text without one is
    UTC). `zone`: IANA names, one for all or one a row. Where the instant or the zone is missing the result is NaT.
    Raises ValueError for naive datetimes (nobody can say which instant they are) and for unknown zone names.
    """
    if pd.api.types.is_datetime64_dtype(at):
        raise ValueError("`at` holds datetimes without a zone; localise them, or give text with an offset")
    instants = pd.to_datetime(at, utc=True, format=None if hasattr(at, "dt") else "ISO8601").dt.as_unit("us")
    codes, names = pd.factorize(_aligned(zone, at.index))
    clock = np.full(len(at), np.datetime64("NaT", "us"))
    for code, name in enumerate(names):
        here = codes == code
        try:
            clock[here] = instants[here].dt.tz_convert(name).dt.tz_localize(None).to_numpy()
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"unknown time zone {name!r}; give an IANA name such as 'Europe/Berlin'") from error
    return pd.Series(clock, index=at.index, name="clock")


def local_date(at: pd.Series, zone: pd.Series | str, day_start: pd.Series | float = 0) -> pd.Series:
    """Local day each instant belongs to (datetime64[s], naive), the `date` of a tracking row.

    A day runs from `day_start` (hour on the local clock, one for all or one a row; missing is midnight) to the same
    hour of the next calendar day: with 4, half past one at night still is yesterday. Only the wall clock counts, so
    that nights in which clocks change have one date before and one after, like any other. See `local_clock`.
    """
    hours = pd.to_numeric(_aligned(day_start, at.index)).fillna(0)
    shifted = local_clock(at, zone) - pd.to_timedelta((hours * 3600).to_numpy(), unit="s")
    return shifted.dt.floor("D").dt.as_unit("s").rename("date")


def local_hour(at: pd.Series, zone: pd.Series | str) -> pd.Series:
    """Hour on the local clock, 0 <= hour < 24 (float64; NaN where unknown). See `local_clock`."""
    clock = local_clock(at, zone)
    return ((clock - clock.dt.floor("D")) / pd.Timedelta(hours=1)).rename("hour")


def _aligned(value: pd.Series | str | float, index: pd.Index) -> pd.Series:
    """`value` as one element a row, by position."""
    if isinstance(value, pd.Series):
        if len(value) != len(index):
            raise ValueError(f"{len(value)} zones or day starts for {len(index)} instants; give one, or one each")
        return value.set_axis(index)
    return pd.Series(value, index=index)


@dataclass(frozen=True)
class Days:
    """Tracking rows as arrays, one element per user, habit and local day; a pair's days stand together, oldest first.

    day: days since 1970-01-01 (int64). status: code (int8). starts: position of each pair's first day.
    pairs: user_id and habit_id of each pair, in the order of `starts`.
    of_row: element that each tracking row belongs to; None where element i simply is row i.
    """

    day: np.ndarray
    status: np.ndarray
    starts: np.ndarray
    pairs: pd.DataFrame
    of_row: np.ndarray | None

    @property
    def lengths(self) -> np.ndarray:
        """Days of each pair."""
        return np.diff(self.starts, append=self.day.size)

    def repeat(self, values: np.ndarray) -> np.ndarray:
        """Give each day the value of its pair."""
        return np.repeat(values, self.lengths)

    def blocks(self, size: int = 1 << 18) -> Iterator[tuple[slice, Days]]:
        """Cut into blocks of whole pairs with about `size` days, small enough for the processor's cache."""
        border = 0
        while border < self.starts.size:
            first = self.starts[border]
            following = max(int(np.searchsorted(self.starts, first + size)), border + 1)
            here = slice(first, self.starts[following] if following < self.starts.size else self.day.size)
            starts, pairs = self.starts[border:following] - first, self.pairs.iloc[border:following]
            yield here, Days(self.day[here], self.status[here], starts, pairs, None)
            border = following

    def to_rows(self, values: np.ndarray) -> np.ndarray:
        """Give each tracking row the value of its day."""
        return values if self.of_row is None else values[self.of_row]


def read_days(tracking: pd.DataFrame) -> Days:
    """Aggregate tracking rows to local days.

    Rows in key order (a pair's rows together, dates rising) are taken as they are; others are sorted once. Several rows
    of one day become one, with the status done if any row says so, else skipped, else missed, else unknown; a missing
    status is unknown.
    """
    need(tracking, "habit_tracking", "user_id", "habit_id", "date", "status")
    day = _day_numbers(tracking["date"])
    status = _status_codes(tracking["status"])
    new_pair = np.ones(day.size, dtype=bool)
    np.logical_or(_changes(tracking["user_id"]), _changes(tracking["habit_id"]), out=new_pair[1:])
    starts = np.flatnonzero(new_pair)
    if bool(np.all((day[1:] > day[:-1]) | new_pair[1:])):
        pairs = tracking[KEY].iloc[starts].reset_index(drop=True)
        if not pairs.duplicated().any():
            return Days(day, status, starts, pairs, None)

    users, habits = (pd.factorize(tracking[column])[0] for column in KEY)
    pair = pd.factorize(users * (habits.max() + 1) + habits)[0]
    order = np.argsort(pair * (np.ptp(day) + 1) + (day - day.min()))  # one number a row sorts faster than two
    pair, day = pair[order], day[order]
    new_pair[1:] = pair[1:] != pair[:-1]
    new_day = new_pair.copy()
    new_day[1:] |= day[1:] != day[:-1]
    first = np.flatnonzero(new_day)
    of_row = np.empty(day.size, dtype=np.int64)
    of_row[order] = np.cumsum(new_day) - 1
    pairs = tracking[KEY].iloc[order[new_pair]].reset_index(drop=True)
    return Days(day[first], np.maximum.reduceat(status[order], first), np.flatnonzero(new_pair[first]), pairs, of_row)


def until_day(until: Day | None, tracking: pd.DataFrame) -> int:
    """`until` as days since 1970-01-01; None is the day after the last row."""
    if until is not None:
        moment = pd.Timestamp(until)
        if pd.isna(moment) or moment.tz is not None:
            raise ValueError(f"`until` is a local day without a zone, such as '2026-01-05'; got {until!r}")
        return int(moment.to_datetime64().astype("datetime64[D]").astype(np.int64))
    need(tracking, "habit_tracking", "date")
    return int(_day_numbers(tracking["date"]).max(initial=-1)) + 1


def rows_before(tracking: pd.DataFrame, day: int) -> pd.DataFrame:
    """Rows of tracking strictly before a day (days since 1970-01-01)."""
    need(tracking, "habit_tracking", "date")
    return tracking[_day_numbers(tracking["date"]) < day]


def need(frame: pd.DataFrame, table: str, *columns: str) -> None:
    """Raise `MissingColumn` naming what `frame` lacks."""
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise MissingColumn(f"needs `{'`, `'.join(absent)}` in `{table}`; this dataset has none")


def _day_numbers(dates: pd.Series) -> np.ndarray:
    if isinstance(dates.dtype, pd.DatetimeTZDtype):
        raise DatasetError("habit_tracking.date: instants with a zone, not local days; use local_date first")
    if not pd.api.types.is_datetime64_dtype(dates):
        try:
            dates = pd.to_datetime(dates, format="ISO8601" if dates.dtype == "str" else None)
        except (ValueError, TypeError) as error:
            raise DatasetError(f"habit_tracking.date: not a date: {error}") from error
    days = dates.to_numpy().astype("datetime64[D]").view(np.int64)
    missing = np.iinfo(np.int64).min
    if days.min(initial=0) == missing:
        rows = np.flatnonzero(days == missing)
        raise DatasetError(
            f"habit_tracking.date: missing in {rows.size:,} rows, first at {rows[:5].tolist()}; each row needs its day"
        )
    return days


def _status_codes(status: pd.Series) -> np.ndarray:
    if isinstance(status.dtype, pd.CategoricalDtype):
        codes, words = status.cat.codes.to_numpy(), list(status.cat.categories)
        strange = [w for i, w in enumerate(words) if w not in _CODES and (codes == i).any()]
    else:
        codes, words = pd.factorize(status)
        strange = [w for w in words if w not in _CODES]
    if strange:
        raise DatasetError(f"habit_tracking.status: {strange[0]!r} is not one of {', '.join(_CODES)}")
    # A missing status has the code -1, which picks the last entry.
    return np.array([*(_CODES.get(w, UNKNOWN) for w in words), UNKNOWN], dtype=np.int8)[codes]


def _changes(ids: pd.Series) -> np.ndarray:
    """Whether each id but the first differs from the one above it."""
    if ids.isna().any():
        raise DatasetError(f"habit_tracking.{ids.name}: missing in {ids.isna().sum():,} rows; each row needs it")
    if len(ids) < 2:
        return np.zeros(0, dtype=bool)
    if isinstance(ids.dtype, pd.CategoricalDtype):
        codes = ids.cat.codes.to_numpy()
    elif ids.dtype == "str":
        text = pa.array(ids)  # without a copy: three times faster than hashing ten million ids
        text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
        return pc.not_equal(text[1:], text[:-1]).to_numpy(zero_copy_only=False)
    else:
        codes = pd.factorize(ids)[0]
    return codes[1:] != codes[:-1]
