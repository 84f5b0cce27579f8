"""What was shown: gathered in memory and written by a thread of its own, so that no answer waits for the disk.

A list is logged with the policy and the propensities of its draw, a row a place; showing the same list again counts up
`times`. What can be lost: a process that is killed loses what it showed since the last writing, at most `EVERY` seconds
(one writing more while the database is locked or full); a power cut may take back writings of the last moments. Above
`MOST` lists that wait, because the database cannot be written for long, the oldest are dropped, counted and reported.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from habitlab.serving import state
from habitlab.serving.background import repeat
from habitlab.serving.lists import Ready

log = logging.getLogger(__name__)

EVERY = 0.5
MOST = 50_000
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of latencies in seconds; beyond the last is the bound "inf"."""
_NAMES = (*map(str, BOUNDS), "inf")

_SHOW = (
    "INSERT INTO exposures (event_id, user_id, habit_id, shown_at, position, policy, propensity, served_from, times,"
    " last_shown_at) SELECT * FROM (VALUES {rows})"
    f" WHERE {state.IS_KNOWN.format(user='column2')}"  # of who was just deleted nothing is kept
    " ON CONFLICT (event_id) DO UPDATE SET"
    " times = times + excluded.times, last_shown_at = max(last_shown_at, excluded.last_shown_at),"
    " shown_at = min(shown_at, excluded.shown_at)"
)
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_AT_ONCE = 1000
"""Rows of a statement: with one for each, this thread would wait for its turn at each, and other writers for it."""
_COUNT = (
    "INSERT INTO traffic (started_at, worker, served_from, answers, latencies) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (started_at, worker, served_from) DO UPDATE SET answers = excluded.answers,"
    " latencies = excluded.latencies"
)


_Minute = tuple[datetime, str]  # begin of a minute, and a level


@dataclass
class _Shown:
    user_id: str
    draw: bytes
    level: str
    first: datetime
    last: datetime
    times: int = 1


class ExposureLog:
    """Gathers what is shown, and how long answers took; `start` writes it down again and again."""

    def __init__(
        self,
        folder: str | Path,
        worker: str,
        clock: Callable[[], datetime],
        *,
        most: int = MOST,
        on_lost: Callable[[int], None] = lambda lists: None,
    ) -> None:
        """`worker`: a name that no other process has; `on_lost` is told how many lists were dropped."""
        self._connections = state.Connections(folder, wait=state.LONGEST_WAIT, safe=False)
        self._worker, self._clock, self._most, self._on_lost = worker, clock, most, on_lost
        self._shown: OrderedDict[bytes, _Shown] = OrderedDict()
        self._traffic: dict[_Minute, list[int]] = {}
        self._counted: set[_Minute] = set()  # since the last writing
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, user_id: str, ready: Ready, level: str, now: datetime) -> None:
        """Remember that a list was shown."""
        with self._lock:
            known = self._shown.get(ready.draw)
            if known is not None:
                known.times += 1
                known.last = now
            else:
                self._shown[ready.draw] = _Shown(user_id, ready.draw, level, now, now)
                if len(self._shown) > self._most:
                    self._drop()

    def _drop(self) -> None:
        dropped = 0
        while len(self._shown) > self._most:
            dropped += self._shown.popitem(last=False)[1].times
        self._on_lost(dropped)
        log.error("exposures of %d answers are lost: the database could not be written for too long", dropped)

    def took(self, level: str, seconds: float, now: datetime) -> None:
        """Count an answer, and the seconds that it took."""
        minute = now.replace(second=0, microsecond=0)
        with self._lock:
            counts = self._traffic.get((minute, level))
            if counts is None:
                counts = self._traffic[minute, level] = [0] * len(_NAMES)
            counts[bisect_left(BOUNDS, seconds)] += 1
            self._counted.add((minute, level))

    def waiting(self) -> int:
        """Count the lists that are not written yet."""
        return len(self._shown)

    def flush(self) -> None:
        """Write what waits; raises sqlite3.Error when that cannot be done now, and keeps it."""
        with self._writing:
            with self._lock:
                shown, self._shown = self._shown, OrderedDict()
                counted, self._counted = self._counted, set()
                traffic = {key: list(self._traffic[key]) for key in counted}
            try:
                self._write(shown, traffic)
            except (sqlite3.Error, OSError, ValueError):
                self._take_back(shown, counted)
                raise
            with self._lock:
                latest = max((minute for minute, _ in self._traffic), default=None)
                for key in [key for key in self._traffic if latest and key[0] < latest and key not in self._counted]:
                    del self._traffic[key]

    def _write(self, shown: OrderedDict[bytes, _Shown], traffic: dict[_Minute, list[int]]) -> None:
        if not shown and not traffic:
            return
        counts = [
            (
                state.stamp(minute),
                self._worker,
                level,
                sum(answers),
                json.dumps(dict(zip(_NAMES, answers, strict=True))),
            )
            for (minute, level), answers in traffic.items()
        ]
        rows = [row for one in shown.values() for row in _rows(one)]
        with self._connections.use() as connection, state.transaction(connection):
            for begin in range(0, len(rows), _AT_ONCE):
                some = rows[begin : begin + _AT_ONCE]
                statement = _SHOW.format(rows=", ".join([_ROW] * len(some)))
                connection.execute(statement, list(chain.from_iterable(some)))
            connection.executemany(_COUNT, counts)

    def _take_back(self, shown: OrderedDict[bytes, _Shown], counted: set[_Minute]) -> None:
        with self._lock:
            self._counted |= counted
            for draw, one in self._shown.items():
                if draw in shown:
                    shown[draw].times += one.times
                    shown[draw].last = one.last
                else:
                    shown[draw] = one
            self._shown = shown
            if len(shown) > self._most:
                self._drop()

    def start(self, every: float = EVERY) -> None:
        """Write every so many seconds in the background."""
        self._thread = repeat(
            self.flush,
            every,
            self._stop,
            name="exposures",
            failing=lambda error: log.warning("exposures wait, the database cannot be written: %s", error),
        )

    def stop(self) -> None:
        """End writing, with what waits written if that is possible."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        try:
            self.flush()
        except (sqlite3.Error, OSError, ValueError) as error:
            log.error("what %d people were shown last is lost: %s", self.waiting(), error)


def _rows(one: _Shown) -> list[tuple[object, ...]]:
    draw = json.loads(one.draw)
    first, last = state.stamp(one.first), state.stamp(one.last)
    return [
        (
            f"{draw['id']}-{rank}",
            one.user_id,
            habit,
            first,
            rank,
            draw["policy"],
            propensity,
            one.level,
            one.times,
            last,
        )
        for rank, (habit, propensity) in enumerate(draw["items"], 1)
    ]
