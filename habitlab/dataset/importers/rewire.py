"""Rewire's backup: a SQLite file with check-ins of type 1 missed, 2 done, 3 skipped.

A row of the source is a row of `CHECKINS`; its date is YYYYMMDD. `schedule` 0 means the weekdays in `active_days`
(Sunday is 0), 1 means `days` times per `period` (0 week, 1 month of 30 days, 2 year), 2 means every `repeating_count`
days.
"""

from __future__ import annotations

import sqlite3

import numpy as np
import pandas as pd

from habitlab.dataset.importers.entries import Tracker
from habitlab.dataset.importers.reading import by_key, keys, numbers, parse_days, read_sqlite_table, texts, unused
from habitlab.dataset.vocabulary import Status

ROW = "a row of the table CHECKINS"
TABLES = {"habits", "checkins"}

_STATUSES = {1: Status.MISSED.value, 2: Status.DONE.value, 3: Status.SKIPPED.value}
_PERIODS = {0: 7, 1: 30, 2: 365}
_HABIT_COLUMNS = (
    "_id order_num name description remote_id current_streak longest_streak active_days consecutive_days "
    "show_percentage category archived schedule days period unit target_count milestone_id repeating_count start_date"
)
_CHECKIN_COLUMNS = "_id habit_id remote_id date type note unit_type actual_count target_count milestone_id"


def read(connection: sqlite3.Connection) -> Tracker:
    """Return the habits and check-ins of a backup."""
    habits = read_sqlite_table(connection, "habits", ("_id", "name"))
    checkins = read_sqlite_table(connection, "checkins", ("habit_id", "date", "type"))
    notes = unused(habits, set(_HABIT_COLUMNS.split()), "Habits")
    notes += unused(checkins, set(_CHECKIN_COLUMNS.split()), "CHECKINS")
    written = int((texts(checkins, "note") != "").sum())
    if written:
        notes.append(f"{written:,} notes on days are not kept, as free text may tell who someone is")
    archived = int((numbers(habits, "archived", 0) == 1).sum())
    if archived:
        notes.append(f"{archived} archived habits are kept")

    schedule = numbers(habits, "schedule", 0)
    weekdays = texts(habits, "active_days").map(_weekdays)
    by_weekday, by_period = schedule == 0, schedule == 1
    times = weekdays.map(len).astype("float64").where(by_weekday, numbers(habits, "days").where(by_period, 1.0))
    days = numbers(habits, "period").map(_PERIODS).where(by_period, numbers(habits, "repeating_count"))
    table = pd.DataFrame(
        {
            "name": texts(habits, "name"),
            "description": texts(habits, "description"),
            "times": times,
            "days": days.mask(by_weekday, 7.0).fillna(1.0),
            "weekdays": weekdays.where(by_weekday & weekdays.map(len).between(1, 6), None),
        }
    )
    table = by_key(table, keys(habits, "_id"))

    day, day_notes = parse_days(texts(checkins, "date"))
    entries = pd.DataFrame(
        {
            "habit": keys(checkins, "habit_id"),
            "where": "CHECKINS row " + pd.Series(range(1, len(checkins) + 1)).astype("str"),
            "shown": "habit "
            + texts(checkins, "habit_id")
            + ", date "
            + texts(checkins, "date")
            + ", type "
            + texts(checkins, "type"),
            "day": day,
            "status": numbers(checkins, "type").map(_STATUSES).astype(object),
            "value": np.nan,
            "reason": None,
        }
    )
    return Tracker(ROW, table, entries, "whichever", notes + day_notes)


def _weekdays(text: str) -> list[int]:
    sunday_first = {int(part) for part in text.split(",") if part.strip().isdigit()}
    return sorted((day + 6) % 7 for day in sunday_first if day < 7)
