"""HabitBull's export: one CSV with a line a habit and day.

A row of the source is a record below the header. Value 1 is done, 0 missed, -2150000000 skipped. A habit with another
value above 0 is measured: its target and unit are not in the file, so that any value above zero counts as done.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from habitlab.dataset.importers.entries import TOO_LONG, Tracker
from habitlab.dataset.importers.reading import TextTable, parse_days
from habitlab.dataset.vocabulary import Category, Status

ROW = "a record below the header"
WORDS = {"habitname", "calendardate", "value"}
HEADER_AGAIN = "the header again"
SKIPPED_BELOW = -2_000_000_000

_KNOWN = WORDS | {"habitdescription", "habitcategory", "commenttext", "line", "too_long"}
_CATEGORIES = {
    "diet & food": Category.DIET,
    "fitness": Category.PHYSICAL,
    "meditation": Category.MINDFULNESS,
    "time management": Category.PRODUCTIVITY,
    "productivity": Category.PRODUCTIVITY,
    "health": Category.HEALTH,
    "finance": Category.FINANCE,
    "education": Category.LEARNING,
    "learning": Category.LEARNING,
    "work": Category.CAREER,
    "relationships": Category.RELATIONSHIPS,
}


def read(table: TextTable) -> Tracker:
    """Return the habits and entries of an export."""
    frame = table.frame()
    for word in ("habitdescription", "habitcategory", "commenttext"):
        if word not in frame.columns:
            frame[word] = ""
    again = (frame["habitname"].str.casefold() == "habitname") & (frame["value"].str.casefold() == "value")
    frame["habitname"] = frame["habitname"].str.replace(r"\s+", " ", regex=True)
    day, notes = parse_days(frame["calendardate"].mask(again, ""))
    strange = sorted(set(frame.columns) - _KNOWN)
    if strange:
        notes.append(f"columns not known and not read: {', '.join(strange)}")
    written = int((frame["commenttext"].mask(again, "") != "").sum())
    if written:
        notes.append(f"{written:,} comments are not kept, as free text may tell who someone is")

    value = pd.to_numeric(frame["value"].str.replace(",", "."), errors="coerce").replace([np.inf, -np.inf], np.nan)
    value = value.mask(again | frame["too_long"])
    key = frame["habitname"].str.casefold()
    measured = ((value > 0) & (value != 1)).groupby(key).transform("any") if len(frame) else pd.Series(dtype=bool)
    status = pd.Series(None, index=frame.index, dtype=object)
    status = status.mask(~measured & (value == 1), Status.DONE.value).mask(
        ~measured & (value == 0), Status.MISSED.value
    )
    status = status.mask(value < SKIPPED_BELOW, Status.SKIPPED.value)
    reason = pd.Series(None, index=frame.index, dtype=object)
    reason = reason.mask(frame["too_long"], TOO_LONG).mask(again, HEADER_AGAIN)
    entries = pd.DataFrame(
        {
            "habit": key,
            "where": "line " + frame["line"].astype("str"),
            "shown": frame["habitname"] + ", " + frame["calendardate"] + ", value " + frame["value"],
            "day": day,
            "status": status,
            "value": value.where(measured & (value >= 0)),
            "reason": reason,
        }
    )
    habits = pd.DataFrame(
        {
            "name": frame["habitname"],
            "description": frame["habitdescription"],
            "category": frame["habitcategory"].str.casefold().map(_CATEGORIES).astype(object),
            "measured": measured,
            "key": key,
            "source_category": frame["habitcategory"],
        }
    )[~again & (key != "")].drop_duplicates("key")
    lost = sorted(set(habits.loc[habits["category"].isna(), "source_category"]) - {""})
    if lost:
        notes.append(f"categories without a counterpart, left missing: {', '.join(lost)}")
    if habits["measured"].any():
        names = ", ".join(habits.loc[habits["measured"], "name"])
        notes.append(f"measured habits, whose target is not in the file, so that any value above 0 is done: {names}")
    return Tracker(ROW, habits.set_index("key").drop(columns="source_category"), entries, "missed", notes)
