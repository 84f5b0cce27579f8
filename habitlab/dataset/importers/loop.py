"""Loop Habit Tracker's backup: a SQLite file of any schema version, read by the columns it has.

A row of the source is a row of `Repetitions`. Schemas before 13 hold only the days done; later ones hold a value: 2
done, 0 not done, 3 skipped, -1 unknown, 1 filled in by the app; for a measured habit a thousandth of its unit.
`timestamp` is midnight UTC of the local day, in milliseconds. Tables the app computes (`Checkmarks`, `Score`,
`Streak`) are not read.
"""

from __future__ import annotations

import sqlite3

import numpy as np
import pandas as pd

from habitlab.dataset.importers.entries import IMPLIED, Tracker
from habitlab.dataset.importers.reading import by_key, keys, numbers, read_sqlite_table, texts, unused
from habitlab.dataset.vocabulary import Status, TargetDirection

ROW = "a row of the table Repetitions"
TABLES = {"habits", "repetitions"}
NEWEST_SCHEMA = 26

STATUSES = {2: Status.DONE.value, 0: Status.MISSED.value, 3: Status.SKIPPED.value, -1: Status.UNKNOWN.value}
FILLED_IN = 1
THOUSANDTHS = 1000.0
DIRECTIONS = {0: TargetDirection.AT_LEAST.value, 1: TargetDirection.AT_MOST.value}

_HABIT_COLUMNS = (
    "id archived color description freq_den freq_num freq_mode highlight name position reminder_days reminder_hour "
    "reminder_min type target_type target_value unit question uuid"
)
_REPETITION_COLUMNS = "id habit timestamp value notes"
_DAY = 86_400_000


def read(connection: sqlite3.Connection) -> Tracker:
    """Return the habits and entries of a backup."""
    habits = read_sqlite_table(connection, "habits", ("id", "name"))
    repetitions = read_sqlite_table(connection, "repetitions", ("habit", "timestamp"))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    notes = [f"schema version {version}"]
    if version > NEWEST_SCHEMA:
        notes = [f"schema version {version} is newer than {NEWEST_SCHEMA}, the newest we know; read by its columns"]
    notes += unused(habits, set(_HABIT_COLUMNS.split()), "Habits")
    notes += unused(repetitions, set(_REPETITION_COLUMNS.split()), "Repetitions")
    archived = int((numbers(habits, "archived", 0) == 1).sum())
    if archived:
        notes.append(f"{archived} archived habits are kept")
    written = int((texts(repetitions, "notes") != "").sum())
    if written:
        notes.append(f"{written:,} notes on days are not kept, as free text may tell who someone is")

    question = texts(habits, "question")
    description = texts(habits, "description")
    measured = numbers(habits, "type", 0) == 1
    table = pd.DataFrame(
        {
            "name": texts(habits, "name"),
            "description": description.where(description != "", question),
            "times": numbers(habits, "freq_num", 1),
            "days": numbers(habits, "freq_den", 1),
            "measured": measured,
            "unit": texts(habits, "unit"),
            "target_value": numbers(habits, "target_value").where(lambda value: value >= 0),
            "target_direction": numbers(habits, "target_type", 0).map(DIRECTIONS).where(measured),
        }
    )
    table = by_key(table, keys(habits, "id"))

    habit = keys(repetitions, "habit")
    value = numbers(repetitions, "value", 2)
    of_measured = habit.isin(table.index[table["measured"]])
    status, amount, reason = interpret(value, of_measured)
    stamp = numbers(repetitions, "timestamp")
    entries = pd.DataFrame(
        {
            "habit": habit,
            "where": "Repetitions row " + pd.Series(range(1, len(repetitions) + 1)).astype("str"),
            "shown": "habit "
            + texts(repetitions, "habit")
            + ", timestamp "
            + texts(repetitions, "timestamp")
            + ", value "
            + value.astype("str"),
            "day": _days(stamp),
            "status": status,
            "value": amount,
            "reason": reason,
        }
    )
    return Tracker(ROW, table, entries, "whichever" if "value" in repetitions else "missed", notes)


def interpret(value: pd.Series, measured: pd.Series) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Tell status, amount and reason to skip from Loop's numbers; an amount's status is told later, by its target."""
    status = value.map(STATUSES).astype(object)
    # In a measured habit 0 and 2 are amounts; only skipped and anything below zero are not.
    status = status.mask(measured, None).mask(measured & (value == 3), Status.SKIPPED.value)
    status = status.mask(measured & (value < 0), Status.UNKNOWN.value)
    amount = (value / THOUSANDTHS).where(measured & status.isna())
    reason = pd.Series(None, index=value.index, dtype=object).mask(~measured & (value == FILLED_IN), IMPLIED)
    return status, amount, reason


def _days(stamp: pd.Series) -> pd.Series:
    days = np.floor(stamp / _DAY).where(lambda day: day.abs() < 2e6)  # some 5,000 years around 1970
    return pd.to_datetime(days, unit="D").astype("datetime64[s]")
