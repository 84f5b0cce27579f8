"""What is logged of the days that people live: status, instant, minutes and value of each row of `habit_tracking`."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from habitlab.dataset.vocabulary import Status, TargetDirection
from habitlab.simulation.noise import further, to_uniform
from habitlab.simulation.people import FIRST_DAY, ZONES, Floats, Ints
from habitlab.simulation.world import AFTERNOON, EARLIEST, EVENING, MORNING, Course, World

Moments = npt.NDArray[np.datetime64]
SKIPPED, UNKNOWN, UNTIMED = 0.02, 0.015, 0.02  # shares of scheduled days; of days done without an instant
_DONE, _MISSED, _SKIPPED, _UNKNOWN = (
    list(Status).index(status) for status in (Status.DONE, Status.MISSED, Status.SKIPPED, Status.UNKNOWN)
)
_EPOCH_DAY = int(FIRST_DAY.astype("datetime64[D]").astype(np.int64))
_DAY_SECONDS = 86_400
_BLOCK = 1 << 17  # rows


def _of_rows(world: World, stream: str, course: Course, pair: Ints, day: Ints) -> Floats:
    """Uniform noise of these pairs on these days of the world (n,): a pair's place is hashed once, not on every day."""
    return to_uniform(further(world.noise.keys(stream, course.user, course.habit)[pair], day))


def hours_of(world: World, course: Course, rows: Ints) -> Floats:
    """Local hours at which these rows (n,) were done, counted from its 0:00, up to the end of the user's day."""
    user, habit = course.user, course.habit
    part = world.part_of_day(user, habit)
    people, peaks = world.people, world.knobs.peaks
    # Alarms pull the free day's hours together: a late sleeper rises half as much later on a working day (G8).
    rise = MORNING + 0.45 * (people.mid_sleep[user] - 3.7)
    evening = EVENING + 0.60 * world.noise.normal("evening hour", user, habit)
    afternoon = AFTERNOON + 1.2 * world.noise.normal("afternoon hour", user, habit)
    usual = np.choose(part, (rise, afternoon, evening))
    flat = 6.0 + 16.0 * world.noise.uniform("flat hour", user, habit)
    usual = np.where(world.noise.uniform("peaks", user, habit) < peaks, usual, flat)
    pair = course.pair[rows]
    low, high = EARLIEST, (24.0 + np.minimum(people.day_start[user], 1) * 0.75)[pair]
    day = course.start[pair] + course.day[rows]
    hour = usual[pair] + world.hour_spread(user, habit)[pair] * ndtri(_of_rows(world, "hour", course, pair, day))
    # Reflected at the ends of the waking day, so that nothing piles up there.
    for _ in range(2):
        hour = np.where(hour < low, 2 * low - hour, hour)
        hour = np.where(hour > high, 2 * high - hour, hour)
    return np.clip(hour, low, high - 0.01)


def instants(world: World, user: Ints, day: Ints, hour: Floats) -> npt.NDArray[np.datetime64]:
    """UTC instants (n,), whole seconds, of local hours on days of the world."""
    seconds = (hour * 3600).astype(np.int64) + (day + _EPOCH_DAY) * _DAY_SECONDS
    seconds -= _offsets(world.days)[world.people.zone[user], np.minimum(day, world.days)]
    seconds *= 1_000_000
    return seconds.view("datetime64[us]")


@lru_cache(maxsize=4)
def _offsets(days: int) -> Ints:
    """Seconds that local clocks are ahead of UTC at noon (zones, days + 1)."""
    first = datetime.combine(FIRST_DAY.astype(date), time(12))
    noons = [first + timedelta(days=day) for day in range(days + 1)]
    return np.array([[_seconds_ahead(zone, noon) for noon in noons] for zone in map(ZoneInfo, ZONES)])


def _seconds_ahead(zone: ZoneInfo, noon: datetime) -> int:
    ahead = zone.utcoffset(noon)
    assert ahead is not None, "a zone knows its offset for every clock time"
    return int(ahead.total_seconds())


def tracking(world: World, course: Course) -> pd.DataFrame:
    """Make the table `habit_tracking` of a course: now and then a day is skipped or not logged, whatever was done."""
    logged = [_logged(world, part) for part in course.parts(_BLOCK)]
    status, at, minutes, value = (np.concatenate(parts) for parts in zip(*logged, strict=True))
    day = np.repeat(course.start, course.occasions) + course.day
    return pd.DataFrame(
        {
            "user_id": texts(world.user_ids, np.repeat(course.user, course.occasions)),
            "habit_id": texts(world.habit_ids, np.repeat(course.habit, course.occasions)),
            "date": ((day + _EPOCH_DAY) * _DAY_SECONDS).view("datetime64[s]"),
            "status": pd.Categorical.from_codes(status, categories=[s.value for s in Status]),
            "at": utc(at),
            "minutes": minutes,
            "value": value,
        },
        copy=False,
    )


def _logged(world: World, course: Course) -> tuple[npt.NDArray[np.int8], Moments, Floats, Floats]:
    """Position in `Status`, instant, minutes and value of each row (rows,)."""
    user, habit = course.user, course.habit
    day = np.repeat(course.start, course.occasions) + course.day
    noise = _of_rows(world, "logged", course, course.pair, day)
    status = np.where(course.done, np.int8(_DONE), np.int8(_MISSED))
    status[noise < SKIPPED + UNKNOWN] = _UNKNOWN
    status[noise < SKIPPED] = _SKIPPED
    done = np.flatnonzero(status == _DONE)
    pair, on = course.pair[done], day[done]
    untimed = _of_rows(world, "timed", course, pair, on) < UNTIMED
    at, minutes = np.full(len(day), np.datetime64("NaT", "us")), np.full(len(day), np.nan)
    at[done] = np.where(untimed, at[done], instants(world, user[pair], on, hours_of(world, course, done)))
    changed_on, factor = minutes_changed(world, user, habit)
    spread = np.exp(0.2 * ndtri(_of_rows(world, "minutes taken", course, pair, on)))
    usual = world.habits.minutes[habit]
    taken = usual[pair] * np.where(course.day[done] >= changed_on[pair], factor[pair], 1.0) * spread
    minutes[done] = np.where(untimed, np.nan, np.maximum(0.5, np.round(2 * taken) / 2))
    return status, at, minutes, _values(world, course, status, day)


def _values(world: World, course: Course, status: npt.NDArray[np.int8], day: Ints) -> Floats:
    """Values of measured habits: on the right side of the target when done, on the wrong one when missed."""
    target = world.catalogue["target_value"].to_numpy(dtype=float)[course.habit]
    values = np.full(len(course.pair), np.nan)
    rows = np.flatnonzero(np.isfinite(target)[course.pair] & (status <= _MISSED))
    pair = course.pair[rows]
    off = np.abs(ndtri(_of_rows(world, "value", course, pair, day[rows]))) * 0.25
    least = (world.catalogue["target_direction"] == TargetDirection.AT_LEAST).to_numpy()[course.habit[pair]]
    above = (status[rows] == _DONE) == least
    aim = target[pair]
    # A count below its target differs by one at least; a count that stays below it may just reach it.
    high = np.where(least, np.round(aim * (1 + off)), np.maximum(np.round(aim * (1 + 1.5 * off)), aim + 1))
    low = np.where(least, np.minimum(np.round(aim * np.exp(-3 * off)), aim - 1), np.round(aim * np.exp(-2 * off)))
    values[rows] = np.maximum(0, np.where(above, high, low))
    return values


def minutes_changed(world: World, user: Ints, habit: Ints) -> tuple[Ints, Floats]:
    """Day since the start on which a pair's minutes are changed (pairs,), far off for most, and by which factor."""
    uniform = world.noise.uniform("minutes changed", user, habit)
    day = np.where(uniform < 0.08, 7 + (uniform / 0.08 * 50).astype(np.int64), 1 << 20)
    return day, np.where(world.noise.uniform("shortened", user, habit) < 0.7, 0.75, 1.25)


def texts(words: pd.api.extensions.ExtensionArray, codes: Ints) -> pd.Series:
    """Texts (n,) from few words and many codes, without making a Python object of each."""
    return pd.Series(words.take(codes), copy=False)


def utc(moments: Moments) -> pd.Series:
    """UTC instants (n,) as a column."""
    return pd.Series(moments, copy=False).dt.tz_localize("UTC")
