"""Writers of small files as the trackers make them, so that a test can say what is in one."""

import csv
import io
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

HABITBULL_HEADER = ["HabitName", "HabitDescription", "HabitCategory", "CalendarDate", "Value", "CommentText"]
LOOP_HEADER = [
    "Position",
    "Name",
    "Type",
    "Question",
    "Description",
    "FrequencyNumerator",
    "FrequencyDenominator",
    "Color",
    "Unit",
    "Target Type",
    "Target Value",
    "Archived?",
]


def midnight(day: str) -> int:
    """Loop's timestamp of a day: milliseconds at midnight UTC."""
    return int(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp()) * 1000


def write_sqlite(path: Path, tables: dict[str, tuple[str, list[tuple]]], version: int = 0) -> Path:
    """Write tables, each given by its column definitions and its rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {version}")
        for name, (columns, rows) in tables.items():
            connection.execute(f'CREATE TABLE "{name}" ({columns})')
            if rows:
                connection.executemany(f'INSERT INTO "{name}" VALUES ({",".join("?" * len(rows[0]))})', rows)
    return path


def write_loop(path: Path, habits: list[tuple], repetitions: list[tuple], version: int = 25) -> Path:
    """A backup of a recent schema.

    Habits: id, name, times, days, type (0 yes or no, 1 measured), target type (0 at least), target value, unit.
    Repetitions: habit, day (a text) or timestamp (a number), value, notes.
    """
    columns = (
        "id integer primary key, name text, freq_num integer, freq_den integer, type integer, target_type integer, "
        "target_value real, unit text, uuid text, question text, description text, archived integer"
    )
    rows = [
        (habit, midnight(day) if isinstance(day, str) else day, value, *notes)
        for habit, day, value, *notes in repetitions
    ]
    return write_sqlite(
        path,
        {
            "Habits": (columns, [(*habit, f"uuid{habit[0]}", "", "", 0) for habit in habits]),
            "Repetitions": (
                "habit integer, timestamp integer, value integer, notes text",
                [(*r, "")[:4] for r in rows],
            ),
        },
        version,
    )


def write_old_loop(path: Path, habits: list[tuple], repetitions: list[tuple]) -> Path:
    """A backup of schema 12, which holds only the days done. Habits: id, name, times, days. Repetitions: habit, day."""
    return write_sqlite(
        path,
        {
            "Habits": ("Id integer primary key, name text, freq_num integer, freq_den integer", habits),
            "Repetitions": ("habit integer, timestamp integer", [(h, midnight(day)) for h, day in repetitions]),
            "Checkmarks": ("Id integer, habit integer, timestamp integer, value integer", []),
        },
        12,
    )


def write_tickmate(path: Path, tracks: list[tuple], ticks: list[tuple]) -> Path:
    """Tracks: id, name, several a day. Ticks: track, year, month from 0, day."""
    return write_sqlite(
        path,
        {
            "tracks": (
                "_id integer, name text, description text, enabled integer, multiple_entries_per_day integer",
                [(i, name, "", 1, several) for i, name, several in tracks],
            ),
            "ticks": ("_track_id integer, year integer, month integer, day integer", ticks),
            "track2groups": ("_id integer, _track_id integer, _group_id integer", []),
        },
    )


def write_rewire(path: Path, habits: list[tuple], checkins: list[tuple]) -> Path:
    """Habits: id, name, schedule, active days, days, period, repeating count. Check-ins: habit, YYYYMMDD, type."""
    return write_sqlite(
        path,
        {
            "Habits": (
                "_id integer, Name text, schedule integer, active_days text, days integer, period integer, "
                "repeating_count integer",
                habits,
            ),
            "CHECKINS": ("Habit_id integer, date text, type integer", checkins),
            "UNIT": ("_id integer, UNIT_NAME text", []),
        },
    )


def csv_text(rows: list[list[object]], delimiter: str = ",", line_end: str = "\n") -> str:
    """A delimited text."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(rows)
    return text.getvalue()


def habitbull_text(rows: list[tuple], delimiter: str = ",", line_end: str = "\n") -> str:
    """Rows: name, day as written, value."""
    records = [[name, "", "", day, value, ""] for name, day, value in rows]
    return csv_text([HABITBULL_HEADER, *records], delimiter, line_end)


def write_loop_csv(folder: Path, habits: Sequence[tuple], days: dict[str, list[str]]) -> Path:
    """Habits: name, type, times, days, target value. `days`: for each day, newest first, the value of every habit."""
    folder.mkdir(parents=True)
    listed = [
        [f"{i:03d}", name, kind, "", "", times, per, "#FF8F00", "", "AT_LEAST" if target else "", target, "false"]
        for i, (name, kind, times, per, target) in enumerate(habits, 1)
    ]
    (folder / "Habits.csv").write_text(csv_text([LOOP_HEADER, *listed]), "utf-8")
    lines = ["Date," + "".join(f"{habit[0]}," for habit in habits)]
    lines += [f"{day}," + "".join(f"{value}," for value in values) for day, values in days.items()]
    (folder / "Checkmarks.csv").write_text("\n".join(lines) + "\n", "utf-8")
    scores = [lines[0]] + [f"{day}," + "0.1234," * len(habits) for day in days]
    (folder / "Scores.csv").write_text("\n".join(scores) + "\n", "utf-8")
    for i, (name, *_) in enumerate(habits):
        own = folder / f"{i + 1:03d} {''.join(c for c in name if c.isascii() and (c.isalnum() or c == ' '))}".rstrip()
        own.mkdir()
        known = [[day, values[i], ""] for day, values in days.items() if values[i] != "UNKNOWN"]
        (own / "Checkmarks.csv").write_text(csv_text([["Date", "Value", "Notes"], *known]), "utf-8")
        (own / "Scores.csv").write_text(csv_text([["Date", "Score"], *[[day, "0.1234"] for day in days]]), "utf-8")
    return folder


def lifesnaps_text(rows: list[dict[str, object]]) -> str:
    """Rows of a few of LifeSnaps' columns; what is left out is empty."""
    header = ["id", "date", "bpm", "steps", "activityType", "mindfulness_session", "age", "gender", "step_goal"]
    return csv_text([header, *[[row.get(column, "") for column in header] for row in rows]])
