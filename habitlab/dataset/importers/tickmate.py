"""TickMate's backup: a SQLite file that holds only the days done, each as a tick.

A row of the source is a row of `ticks`; its month counts from 0. A track that allows several ticks a day is a
measured habit whose value is their number. A tick's clock time is not kept: its zone is unknown, and days ticked
later carry a made-up noon whatever `has_time_info` says.
"""

from __future__ import annotations

import sqlite3

import pandas as pd

from habitlab.dataset.importers.entries import Tracker
from habitlab.dataset.importers.reading import by_key, combine_days, keys, numbers, read_sqlite_table, texts, unused
from habitlab.dataset.vocabulary import Status, TargetDirection

ROW = "a row of the table ticks"
TABLES = {"tracks", "ticks"}
FURTHER = "a further tick of the same day; their number is the day's value"

_TRACK_COLUMNS = "_id name description icon enabled multiple_entries_per_day order"
_TICK_COLUMNS = "_id _track_id year month day hour minute second has_time_info"


def read(connection: sqlite3.Connection) -> Tracker:
    """Return the tracks and ticks of a backup."""
    tracks = read_sqlite_table(connection, "tracks", ("_id", "name"))
    ticks = read_sqlite_table(connection, "ticks", ("_track_id", "year", "month", "day"))
    notes = unused(tracks, set(_TRACK_COLUMNS.split()), "tracks") + unused(ticks, set(_TICK_COLUMNS.split()), "ticks")
    if len(ticks):
        notes.append("the clock times of ticks are not kept: their zone is unknown, and many are a made-up noon")
    off = int((numbers(tracks, "enabled", 1) == 0).sum())
    if off:
        notes.append(f"{off} disabled tracks are kept")

    several = numbers(tracks, "multiple_entries_per_day", 0) == 1
    habits = pd.DataFrame(
        {
            "name": texts(tracks, "name"),
            "description": texts(tracks, "description"),
            "measured": several,
            "unit": pd.Series("times", index=tracks.index).where(several, ""),
            "target_value": pd.Series(1.0, index=tracks.index).where(several),
            "target_direction": pd.Series(TargetDirection.AT_LEAST.value, index=tracks.index).where(several),
        }
    )
    habits = by_key(habits, keys(tracks, "_id"))

    track = keys(ticks, "_track_id")
    year, month, day = (numbers(ticks, column) for column in ("year", "month", "day"))
    days = pd.Series(combine_days(year, month + 1, day).astype("datetime64[s]"), index=ticks.index)
    counted = track.isin(habits.index[habits["measured"]]) & days.notna()
    same_day = pd.Series(1, index=ticks.index).groupby([track, days])
    further = (same_day.cumcount() > 0) & counted
    entries = pd.DataFrame(
        {
            "habit": track,
            "where": "ticks row " + pd.Series(range(1, len(ticks) + 1)).astype("str"),
            "shown": "track "
            + texts(ticks, "_track_id")
            + ", year "
            + texts(ticks, "year")
            + ", month "
            + texts(ticks, "month")
            + ", day "
            + texts(ticks, "day"),
            "day": days,
            "status": Status.DONE.value,
            "value": same_day.transform("size").astype("float64").where(counted),
            "reason": pd.Series(None, index=ticks.index, dtype=object).mask(further, FURTHER),
        }
    )
    return Tracker(ROW, habits, entries, "missed", notes)
