"""Habit time: streaks, recency, completion rates and habit strength, each as of a day and from earlier days only.

Definitions, with worked examples, are in `docs/habit-time.md`; in short:

- A row of `habit_tracking` is one scheduled local day. A day without a row was not scheduled: it says nothing.
- `habits.target` = k/n cuts a pair's days into periods. With k >= n (daily) each row is a period; with n = 7 a period
  is a calendar week, with n = 30 or 31 a calendar month, otherwise a block of n days counted from the pair's first row.
- A period is met when at least k of its days are done. It is broken when a day was missed and fewer than k days would
  be done even if the unknown ones were. Else it is open, and neither extends a streak nor ends it: so do skipped days,
  unknown days, and a week with fewer than k scheduled days that were all done.
- The streak is the number of met periods since the last broken one. A period still running counts once it is met and
  cannot break anything before it is over.

Rolling windows, as some trackers use them, are not used: whether a day lies in a good window of n days is known only
days later, so that such a streak would look into the future.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import signal

from habitlab.dataset.schema import DatasetError
from habitlab.features.days import (
    DONE,
    KEY,
    MISSED,
    SKIPPED,
    UNKNOWN,
    Day,
    Days,
    local_clock,
    local_date,
    local_hour,
    need,
    read_days,
    rows_before,
    until_day,
)
from habitlab.features.profiles import completion_hours, time_of_day, weekday_effects, weekday_profile
from habitlab.features.rates import RatePrior

__all__ = [
    "HALF_LIFE",
    "RatePrior",
    "completion_hours",
    "history",
    "local_clock",
    "local_date",
    "local_hour",
    "streaks",
    "summary",
    "time_of_day",
    "weekday_effects",
    "weekday_profile",
]

Unknown = Literal["keep", "break"]
Group = Literal["streak", "recency", "rate", "strength"]

_COLUMNS: dict[Group, dict[str, type]] = {
    "streak": {"streak_before": np.int32},
    "recency": {"days_since_done": np.float64, "periods_since_done": np.float64},
    "rate": {
        "done_before": np.int32,
        "counted_before": np.int32,
        "completion_rate_before": np.float64,
        "completion_rate_shrunk_before": np.float64,
    },
    "strength": {"strength_before": np.float64},
}

HALF_LIFE = 13.0
"""Scheduled days after which a daily habit's strength has halved, if it is missed each day."""


def streaks(
    tracking: pd.DataFrame,
    habits: pd.DataFrame | None = None,
    *,
    week_start: int = 0,
    unknown: Unknown = "keep",
) -> pd.Series:
    """Streak at the end of each row's day, that day included (int32, in periods; index of `tracking`).

    For showing to people only. It holds the outcome of the row itself: as a feature it would be a perfect leak, and
    `history` has the one without. Arguments as in `history`.
    """
    days = read_days(tracking)
    periods = _cut(days, _targets(habits), week_start, unknown)
    closed = _streak(periods)
    if periods.of_day is None:
        return pd.Series(days.to_rows(closed), index=tracking.index, name="streak")
    tomorrow = _period_index(days.day + 1, days, periods, week_start)
    over = tomorrow != _period_index(days.day, days, periods, week_start)
    met = over | (periods.done_before + (days.status == DONE) >= periods.times[periods.of_day])
    value = np.where(met, closed[periods.of_day], _previous(closed, periods)[periods.of_day])
    return pd.Series(days.to_rows(value), index=tracking.index, name="streak")


def history(
    tracking: pd.DataFrame,
    habits: pd.DataFrame | None = None,
    *,
    include: Collection[Group] = ("streak", "recency", "rate", "strength"),
    prior: RatePrior | None = None,
    week_start: int = 0,
    unknown: Unknown = "keep",
    half_life: float = HALF_LIFE,
) -> pd.DataFrame:
    """Features of each row from the rows of the same pair on earlier days: what could be known that morning.

    Parameters
    ----------
    tracking
        Rows with user_id, habit_id, date and status, in any order; fastest in key order.
    habits
        habit_id and `target` (k/n). Without it, or where a target is missing, habits are daily.
    include
        Groups of columns to compute.
    prior
        Shrinks the rate; fit it (`RatePrior.fit`) to days before the first row used. The default, Beta(1, 1), is of no
        data, so that no row can learn from later ones.
    week_start
        First day of the week, 0 Monday to 6 Sunday.
    unknown
        Whether an unknown day keeps a streak (not known to be missed) or breaks it like a missed one. Rates leave
        unknown days out in both cases.
    half_life
        See `strength_before`.

    Returns
    -------
    DataFrame with the index of `tracking`; rows of one pair and day are equal.

    streak_before
        Streak in periods (int32).
    days_since_done, periods_since_done
        Since the last done day: calendar days, and scheduled periods (done on the last scheduled day is 1, in the same
        week 0); NaN when never done.
    done_before, counted_before
        Days done, and days done or missed (int32).
    completion_rate_before, completion_rate_shrunk_before
        done / counted (NaN without a counted day), and its posterior mean under `prior`.
    strength_before
        Habit strength s in [0, 1]: from 0, each period that is met or broken moves it to
        m s + (1 - m) min(1, done / k) with m = 0.5 ** (sqrt(k n) / half_life); open periods leave it. Half-life in days
        is half_life / sqrt(k / n): rare habits form, and fade, more slowly. Unlike a streak it hardly feels a single
        lapse. The idea, constants included, is Loop Habit Tracker's score; it runs over rolling windows there.

    Raises
    ------
    DatasetError
        A required column is absent, a date or id is missing, a status or target is none.
    """
    days = read_days(tracking)
    targets = _targets(habits)
    columns: dict[str, np.ndarray] = {
        name: np.empty(days.day.size, dtype)
        for group, names in _COLUMNS.items()
        if group in include
        for name, dtype in names.items()
    }
    for here, block in days.blocks():
        periods = _cut(block, targets, week_start, unknown)
        values: dict[str, np.ndarray] = {}
        if "streak" in include:
            values["streak_before"] = _before(_streak(periods), periods)
        if "recency" in include:
            values |= _recency(block, periods)
        if "rate" in include:
            values |= _rates_before(block, prior or RatePrior())
        if "strength" in include:
            values["strength_before"] = _before(_strength(periods, half_life), periods)
        for name, part in values.items():
            columns[name][here] = part
    return pd.DataFrame(
        {name: days.to_rows(values) for name, values in columns.items()}, index=tracking.index, copy=False
    )


def summary(
    tracking: pd.DataFrame,
    habits: pd.DataFrame | None = None,
    until: Day | None = None,
    *,
    prior: RatePrior | None = None,
    level: float = 0.95,
    week_start: int = 0,
    unknown: Unknown = "keep",
    half_life: float = HALF_LIFE,
) -> pd.DataFrame:
    """One row per user and habit, from the days before `until` only (None: all days), ordered by user_id and habit_id.

    Streak, recency and strength are those that `history` gives a row dated `until`. Other arguments as there, but:
    `prior=None` fits the prior to these very pairs, as of `until`; `level` is that of the rate's interval.

    Columns: user_id, habit_id; times, per_days (k and n of the target); first_date, last_date; scheduled, done, missed,
    skipped, unknown (days); completion_rate = done / (done + missed), completion_rate_shrunk, rate_low, rate_high
    (posterior interval, which takes days for independent: too narrow where days depend on each other); periods_met,
    periods_broken (a running period counts once it is met); streak, longest_streak, runs, mean_run (periods; a run is a
    longest stretch of met periods, the last one as far as it went; NaN without one); strength; days_since_done,
    periods_since_done (NaN when never done).
    """
    day = until_day(until, tracking)
    days = read_days(rows_before(tracking, day))
    periods = _cut(days, _targets(habits), week_start, unknown)
    last_day = days.starts + days.lengths - 1
    last = last_day if periods.of_day is None else periods.of_day[last_day]
    running = _period_index(np.full(last.size, day), days, periods, week_start, last_day) == _period_index(
        days.day[last_day], days, periods, week_start, last_day
    )
    settled = ~running | periods.met[last]

    def now(closed: np.ndarray) -> np.ndarray:
        return np.where(settled, closed[last], _previous(closed, periods)[last])

    streak, met = _streak(periods), periods.met
    counts = {
        name: _per_pair(days, days.status == code)
        for name, code in (("done", DONE), ("missed", MISSED), ("skipped", SKIPPED), ("unknown", UNKNOWN))
    }
    done, counted = counts["done"], counts["done"] + counts["missed"]
    prior = prior or RatePrior.fit(done, counted)
    low, high = prior.interval(done, counted, level)
    latest = _latest_done(days)[last_day]
    never = latest < days.starts
    last_done = np.where(never, 0, latest)
    ordinal = np.arange(days.day.size) if periods.of_day is None else periods.of_day
    running_period = np.zeros(met.size, dtype=bool)
    running_period[last] = running
    broken = _reduce(np.add, (periods.broken & ~running_period).astype(np.int32), periods.pair_starts)
    runs = _reduce(np.add, (met & (streak == 1)).astype(np.int32), periods.pair_starts)
    met_total = _reduce(np.add, met.astype(np.int32), periods.pair_starts)
    features = {
        "times": periods.times[periods.pair_starts],
        "per_days": periods.per_days,
        "first_date": days.day[days.starts].astype("datetime64[D]").astype("datetime64[s]"),
        "last_date": days.day[last_day].astype("datetime64[D]").astype("datetime64[s]"),
        "scheduled": days.lengths.astype(np.int32),
        **counts,
        "completion_rate": _ratio(done, counted),
        "completion_rate_shrunk": prior.shrink(done, counted),
        "rate_low": low,
        "rate_high": high,
        "periods_met": met_total,
        "periods_broken": broken,
        "streak": now(streak),
        "longest_streak": _reduce(np.maximum, streak, periods.pair_starts),
        "runs": runs,
        "mean_run": _ratio(met_total, runs),
        "strength": now(_strength(periods, half_life)),
        "days_since_done": np.where(never, np.nan, day - days.day[last_done]) if last.size else np.zeros(0),
        "periods_since_done": np.where(never, np.nan, last + ~running - ordinal[last_done])
        if last.size
        else np.zeros(0),
    }
    table = pd.concat([days.pairs, pd.DataFrame(features, index=days.pairs.index)], axis=1)
    return table.sort_values(KEY, ignore_index=True)


@dataclass(frozen=True)
class _Periods:
    """Periods of all pairs, in the order of their days.

    of_day: period of each day (None: each day is one). pair_starts: position of each pair's first period.
    times: k of each period. per_days: n of each pair. done: days done. met, broken: see the module's text.
    done_before: days done earlier in the same period, for each day (None where each day is a period).
    """

    of_day: np.ndarray | None
    pair_starts: np.ndarray
    times: np.ndarray
    per_days: np.ndarray
    done: np.ndarray
    met: np.ndarray
    broken: np.ndarray
    done_before: np.ndarray | None


def _targets(habits: pd.DataFrame | None) -> pd.DataFrame:
    """k and n (`times`, `per_days`) by habit_id; 1 and 1 for daily habits, k >= n included."""
    if habits is None or "target" not in habits.columns:
        return pd.DataFrame({"times": [], "per_days": []}, index=pd.Index([], dtype=object), dtype=np.int64)
    need(habits, "habits", "habit_id")
    if habits["habit_id"].duplicated().any():
        raise DatasetError("habits.habit_id: stands more than once, so that its target is not certain")
    text = habits["target"].astype("str").fillna("1/1")
    parts = text.str.extract(r"^([1-9]\d*)/([1-9]\d*)$")
    bad = parts[0].isna()
    if bad.any():
        raise DatasetError(f"habits.target: {text[bad].iloc[0]!r} is no target; write times per days, such as 3/7")
    targets = parts.astype(np.int64).set_axis(["times", "per_days"], axis=1)
    targets.index = pd.Index(habits["habit_id"].astype(object))
    return targets.where(targets["times"] < targets["per_days"], 1)


def _cut(days: Days, targets: pd.DataFrame, week_start: int, unknown: Unknown) -> _Periods:
    """Cut each pair's days into periods and judge each."""
    if week_start not in range(7):
        raise ValueError(f"week_start is 0 (Monday) to 6 (Sunday); got {week_start!r}")
    if unknown not in ("keep", "break"):
        raise ValueError(f"unknown is 'keep' or 'break'; got {unknown!r}")
    known = targets.reindex(days.pairs["habit_id"].astype(object), fill_value=1)
    times, per_days = known["times"].to_numpy(), known["per_days"].to_numpy()
    is_done = days.status == DONE
    is_missed = days.status <= MISSED if unknown == "break" else days.status == MISSED
    if (per_days == 1).all():
        every = np.broadcast_to(np.int64(1), days.day.shape)
        return _Periods(None, days.starts, every, per_days, is_done, is_done, is_missed, None)

    index = _index(days.day, days.repeat(per_days), days.repeat(days.day[days.starts]), week_start)
    first = np.ones(days.day.size, dtype=bool)
    first[1:] = index[1:] != index[:-1]
    first[days.starts] = True
    starts = np.flatnonzero(first)
    of_day = np.cumsum(first) - 1
    pair_starts = of_day[days.starts]
    times = np.repeat(times, np.diff(pair_starts, append=starts.size))
    done = _reduce(np.add, is_done.astype(np.int32), starts)
    possible = _reduce(np.add, (is_done | ((days.status == UNKNOWN) & ~is_missed)).astype(np.int32), starts)
    broken = _reduce(np.logical_or, is_missed, starts) & (possible < times)
    so_far = np.cumsum(is_done, dtype=np.int32) - is_done
    done_before = so_far - so_far[starts][of_day]
    return _Periods(of_day, pair_starts, times, per_days, done, done >= times, broken, done_before)


def _period_index(
    day: np.ndarray, days: Days, periods: _Periods, week_start: int, of: np.ndarray | None = None
) -> np.ndarray:
    """Period number that `day` falls in, for the pairs of the days at positions `of` (all days by default)."""
    per_days, anchor = days.repeat(periods.per_days), days.repeat(days.day[days.starts])
    if of is not None:
        per_days, anchor = per_days[of], anchor[of]
    return _index(day, per_days, anchor, week_start)


def _index(day: np.ndarray, per_days: np.ndarray, anchor: np.ndarray, week_start: int) -> np.ndarray:
    """Number of the period that each day falls in: a week, a month, or a block of days from `anchor` on."""
    index = day.copy()
    week, month = per_days == 7, (per_days == 30) | (per_days == 31)
    block = (per_days > 1) & ~week & ~month
    if week.any():
        index = np.where(week, (day + (3 - week_start)) // 7, index)  # day 0, 1970-01-01, was a Thursday
    if month.any():
        index[month] = day[month].astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    if block.any():
        index[block] = (day[block] - anchor[block]) // per_days[block]
    return index


def _streak(periods: _Periods) -> np.ndarray:
    """Streak at the end of each period (int32): met periods so far, less those up to the last broken one."""
    so_far = np.cumsum(periods.met, dtype=np.int32)
    base = np.where(periods.broken, so_far, np.int32(0))
    base[periods.pair_starts] = so_far[periods.pair_starts] - periods.met[periods.pair_starts]
    so_far -= np.maximum.accumulate(base, out=base)
    return so_far


def _strength(periods: _Periods, half_life: float) -> np.ndarray:
    """Habit strength at the end of each period (float64); the formula is in `history`.

    Exponential smoothing of all pairs in one pass: the filter runs on over the border between two pairs, and what it
    brought along, decayed since, is taken off again.
    """
    if not half_life > 0:
        raise ValueError(f"half_life is a number of days above 0; got {half_life}")
    size = periods.met.size
    lengths = np.diff(periods.pair_starts, append=size)
    weights = np.sqrt(periods.times[periods.pair_starts] * periods.per_days)
    share = np.minimum(1.0, periods.done / periods.times)
    judged = periods.met | periods.broken
    result = np.zeros(size)
    for weight in np.unique(weights):
        here = np.repeat(weights == weight, lengths)
        keep = np.flatnonzero(judged & here)
        decay = 0.5 ** (weight / half_life)
        smoothed = signal.lfilter([1 - decay], [1, -decay], share[keep])
        pair = np.searchsorted(periods.pair_starts, keep, side="right") - 1
        first = np.flatnonzero(np.diff(pair, prepend=-1))
        brought = np.repeat(np.append(0.0, smoothed)[first], np.diff(first, append=keep.size))
        age = np.arange(keep.size) - np.repeat(first, np.diff(first, append=keep.size)) + 1
        result[keep] = smoothed - brought * decay**age
    # A period that is not judged takes the value of the last judged one of its pair, or 0.
    last = np.where(judged, np.arange(size), -1)
    np.maximum.accumulate(last, out=last)
    return np.where(last >= np.repeat(periods.pair_starts, lengths), result[last], 0.0) if size else result


def _previous(closed: np.ndarray, periods: _Periods) -> np.ndarray:
    """Value at the end of the pair's period before; 0 before the first."""
    previous = np.empty_like(closed)
    previous[1:] = closed[:-1]
    previous[periods.pair_starts] = 0
    return previous


def _before(closed: np.ndarray, periods: _Periods) -> np.ndarray:
    """Value as of each day: of the period before, or of this one if it had been met by then."""
    previous = _previous(closed, periods)
    if periods.of_day is None:
        return previous
    assert periods.done_before is not None
    # Once met, a period ends met: its value at the end is its value now.
    met = periods.done_before >= periods.times[periods.of_day]
    return np.where(met, closed[periods.of_day], previous[periods.of_day])


def _latest_done(days: Days) -> np.ndarray:
    """Position of the latest done day up to and with each day; below the pair's first position where there is none."""
    latest = np.where(days.status == DONE, np.arange(days.day.size), -1)
    return np.maximum.accumulate(latest, out=latest)


def _recency(days: Days, periods: _Periods) -> dict[str, np.ndarray]:
    latest = np.empty(days.day.size, dtype=np.int64)
    latest[1:] = _latest_done(days)[:-1]
    latest[:1] = -1
    never = latest < days.repeat(days.starts)
    latest[never] = 0
    ordinal = np.arange(days.day.size) if periods.of_day is None else periods.of_day
    columns = {}
    for name, position in (("days_since_done", days.day), ("periods_since_done", ordinal)):
        columns[name] = np.subtract(position, position[latest], out=np.empty(position.size))
        columns[name][never] = np.nan
    return columns


def _rates_before(days: Days, prior: RatePrior) -> dict[str, np.ndarray]:
    def before(flags: np.ndarray) -> np.ndarray:
        total = np.cumsum(flags, dtype=np.int32)
        total -= flags
        total -= days.repeat(total[days.starts])
        return total

    done = before(days.status == DONE)
    counted = before((days.status == DONE) | (days.status == MISSED))
    return {
        "done_before": done,
        "counted_before": counted,
        "completion_rate_before": _ratio(done, counted),
        "completion_rate_shrunk_before": prior.shrink(done, counted),
    }


def _per_pair(days: Days, flags: np.ndarray) -> np.ndarray:
    return _reduce(np.add, flags.astype(np.int32), days.starts)


def _reduce(operation: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return operation.reduceat(values, starts, dtype=values.dtype) if starts.size else values[:0]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
