"""Loop Habit Tracker's CSV export: a list of habits, a table of all habits by day, and a table a habit.

A row of the source is a value of one habit on one day: a cell of the table of all habits, or a record of a habit's
own table; most days stand in both. YES_MANUAL is done, NO missed, SKIP skipped, UNKNOWN unknown, YES_AUTO a day the
app filled in because the frequency was kept; exports of old versions hold the numbers of the backup instead. The
parts are told by their headers; a habit's own table belongs to the habit whose number its folder's name begins with.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from habitlab.dataset.importers import loop
from habitlab.dataset.importers.entries import IMPLIED, STRANGER, TOO_LONG, Tracker
from habitlab.dataset.importers.reading import TextTable, normalised, numbers, parse_days, texts, unused
from habitlab.dataset.vocabulary import Status, TargetDirection

ROW = "a value of one habit on one day: a cell of the table of all habits, or a record of a habit's own table"

_STATUSES = {
    "YES_MANUAL": Status.DONE.value,
    "YES": Status.DONE.value,
    "NO": Status.MISSED.value,
    "SKIP": Status.SKIPPED.value,
    "UNKNOWN": Status.UNKNOWN.value,
}
_FILLED_IN = "YES_AUTO"
_WORDS = {*_STATUSES, _FILLED_IN}
_CODES = {"-1", "0", "1", "2", "3"}
_KNOWN = (
    "position name type question description frequencynumerator frequencydenominator numrepetitions interval color "
    "unit targettype targetvalue archived line too_long"
)
_DIRECTIONS = {"atleast": TargetDirection.AT_LEAST.value, "atmost": TargetDirection.AT_MOST.value}


def part(table: TextTable) -> str | None:
    """Tell which part of an export a table is: `habits`, `all`, `one`, `scores`, or none."""
    words = table.words
    if {"position", "name"} <= set(words) and set(words) & {"frequencynumerator", "numrepetitions", "color"}:
        return "habits"
    if words[:1] != ["date"]:
        return None
    if words == ["date", "value", "notes"]:
        return "one"
    if words == ["date", "score"]:
        return "scores"
    cells = [cell.strip() for record in table.records[:200] for cell in record[1:] if cell.strip()]
    if cells and all(re.fullmatch(r"[01]\.\d{4}", cell) for cell in cells):
        return "scores"
    # Old versions wrote the backup's numbers: mostly codes, and whole numbers all of them.
    codes = sum(cell in _CODES for cell in cells) * 2 >= len(cells) and all(
        re.fullmatch(r"-?\d+", cell) for cell in cells
    )
    if not (codes or any(cell in _WORDS for cell in cells)):
        return None
    return "one" if words == ["date", "value"] else "all"


def read(parts: dict[str, TextTable]) -> Tracker:
    """Return the habits and entries of an export, given its tables by their path inside it."""
    kinds = {path: part(table) for path, table in parts.items()}
    listing = [parts[path] for path, kind in kinds.items() if kind == "habits"]
    habits, notes = _habits(listing[0]) if listing else (None, [])
    blocks = []
    for path, kind in kinds.items():
        if kind == "all":
            blocks.append(_shared(path, parts[path], habits))
        elif kind == "one":
            blocks.append(_own(path, parts[path], habits))
    empty = pd.DataFrame({name: pd.Series(dtype="str") for name in ("habit", "where", "date", "text", "notes")})
    cells = pd.concat([empty.assign(too_long=False), *blocks], ignore_index=True)
    if habits is None:
        names = pd.Series(cells["habit"].dropna().unique(), dtype="str")
        habits = pd.DataFrame({"name": names.array, "description": ""}, index=pd.Index(names))
        habits["description"] = habits["description"].astype("str")
        habits["measured"] = False
        if len(cells):
            notes.append("there is no list of habits: each is taken as daily, and their names from the tables' names")
    written = int((cells["notes"] != "").sum())
    if written:
        notes.append(f"{written:,} notes on days are not kept, as free text may tell who someone is")

    day, day_notes = parse_days(cells["date"])
    measured = cells["habit"].isin(habits.index[habits["measured"]])
    status, amount, reason = _interpret(cells["text"], measured)
    entries = pd.DataFrame(
        {
            "habit": cells["habit"],
            "where": cells["where"],
            "shown": cells["date"] + ", " + cells["text"],
            "day": day,
            "status": status,
            "value": amount,
            "reason": reason.mask(cells["habit"].isna(), STRANGER).mask(cells["too_long"].astype(bool), TOO_LONG),
        }
    )
    return Tracker(ROW, habits, entries, "unknown", notes + day_notes)


def _habits(table: TextTable) -> tuple[pd.DataFrame, list[str]]:
    frame = table.frame()
    description = texts(frame, "description")
    measured = texts(frame, "type").str.upper() == "NUMERICAL"
    numerator = "frequencynumerator" if "frequencynumerator" in frame else "numrepetitions"
    denominator = "frequencydenominator" if "frequencydenominator" in frame else "interval"
    habits = pd.DataFrame(
        {
            "name": texts(frame, "name"),
            "description": description.where(description != "", texts(frame, "question")),
            "times": numbers(frame, numerator, 1),
            "days": numbers(frame, denominator, 1),
            "measured": measured,
            "unit": texts(frame, "unit"),
            "target_value": pd.to_numeric(texts(frame, "targetvalue").str.replace(",", "."), errors="coerce").where(
                lambda value: value >= 0
            ),
            "target_direction": texts(frame, "targettype").map(normalised).map(_DIRECTIONS).where(measured),
        }
    )
    number = numbers(frame, "position").fillna(pd.Series(range(1, len(frame) + 1), dtype="float64"))
    habits.index = pd.Index(number.astype("int64").astype("str"))
    notes = unused(frame, set(_KNOWN.split()), "the list of habits")
    archived = int((texts(frame, "archived").str.casefold() == "true").sum())
    if archived:
        notes.append(f"{archived} archived habits are kept")
    return habits[~habits.index.duplicated()], notes


def _shared(path: str, table: TextTable, habits: pd.DataFrame | None) -> pd.DataFrame:
    """Cells of the table of all habits. Its header is not quoted, so a comma in a name splits it."""
    # Every line ends in a comma, with nothing behind it.
    ended = sum(not record[-1].strip() for record in table.records) * 2 > len(table.records)
    records = [record[:-1] if ended and not record[-1].strip() else record for record in table.records]
    names = table.header[1:]
    width = max([len(record) - 1 for record in records], default=len(names))
    keys: list[str | None] = list(names)
    if habits is not None:
        listed = dict(zip(habits["name"], habits.index, strict=True))
        matched = _match(names, habits)
        keys = matched if matched is not None else [listed.get(name) for name in names]
        width = max(width, len(keys))
    keys += [None] * (width - len(keys))
    rows = [(record[0], [*record[1:], *[""] * (width - len(record) + 1)]) for record in records]
    return pd.DataFrame(
        {
            "habit": pd.Series(keys * len(rows), dtype="str"),
            "where": np.repeat([f"{path} line {line}" for line in table.lines], width),
            "date": pd.Series(np.repeat([date for date, _ in rows], width), dtype="str"),
            "text": pd.Series([cell.strip() for _, cells in rows for cell in cells], dtype="str"),
            "notes": "",
            "too_long": False,
        }
    )


def _match(names: list[str], habits: pd.DataFrame) -> list[str | None] | None:
    """Find the habits, in their order, whose names joined by commas are the header; None if it is something else."""
    keys: list[str | None] = []
    place = 0
    for number, name in habits["name"].items():
        length = name.count(",") + 1
        if [part.strip() for part in name.split(",")] == names[place : place + length]:
            keys.append(str(number))
            place += length
    return keys if place == len(names) else None


def _own(path: str, table: TextTable, habits: pd.DataFrame | None) -> pd.DataFrame:
    frame = table.frame()
    folder = PurePosixPath(path).parent.name
    number = re.match(r"(\d+)\b\s*(.*)", folder)
    key: str | None = (number[2] or folder) if number else folder
    if habits is not None:
        listed = dict(zip(habits["name"].str.casefold(), habits.index, strict=True))
        key = str(int(number[1])) if number and str(int(number[1])) in habits.index else listed.get(folder.casefold())
    return pd.DataFrame(
        {
            "habit": pd.Series([key] * len(frame), dtype="str"),
            "where": path + " line " + frame["line"].astype("str"),
            "date": texts(frame, "date"),
            "text": texts(frame, "value"),
            "notes": texts(frame, "notes"),
            "too_long": frame["too_long"],
        }
    )


def _interpret(text: pd.Series, measured: pd.Series) -> tuple[pd.Series, pd.Series, pd.Series]:
    word = text.str.upper()
    number = pd.to_numeric(text, errors="coerce").astype("float64").where(~word.isin(_WORDS))
    # A measured habit writes amounts as words too, where they happen to be one of the codes: NO is an amount of 0.
    number = number.mask(measured & (word == "NO"), 0.0)
    status, amount, reason = loop.interpret(number, measured)
    status = status.where(status.notna() | (measured & amount.notna()), word.map(_STATUSES).astype(object))
    return status, amount, reason.mask(word == _FILLED_IN, IMPLIED)
