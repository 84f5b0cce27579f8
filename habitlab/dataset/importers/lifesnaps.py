"""LifeSnaps: a CSV with a line a person and day, from a wristband and from questionnaires.

A row of the source is a person-day; it is imported when it gives at least one row of `habit_tracking`. The habits:

- Reaching the daily step goal. The goal is what the person stated that day (`step_goal`); it changes so often from
  one day to the next that it is not carried over. Days without an answer are unknown, from the first stated goal on;
  on a day with NO_GOAL nothing was scheduled.
- Each kind of activity, and a mindfulness session, from the first day a person did it to their last day in the file:
  that they stopped is seen, and days before are no misses. They have no stated schedule; a day without one counts as
  missed.

The band was worn on a day with a heart rate (`bpm`) or at least one step; calories, minutes by activity and
mindfulness are filled in for days without the band too. What was not done on a day the band was not worn is unknown.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.importers.entries import (
    CONFLICTING,
    EARLY,
    FUTURE,
    NO_DAY,
    REPEATED,
    TOO_LONG,
    Outcome,
    future_days,
)
from habitlab.dataset.importers.reading import TextTable, numbers, parse_days, texts
from habitlab.dataset.merge import STRENGTH
from habitlab.dataset.vocabulary import Activity, AdoptionSource, Category, Gender, Status, TargetDirection

ROW = "a person-day"
WORDS = {"id", "date", "steps"}
ANY_WORDS = {"stepgoal", "activitytype", "mindfulnesssession"}
NO_HABIT = "no habit on that day: before the person's first goal and activity, or a day with NO_GOAL"
NO_PERSON = "no person's id"

_GENDERS = {"male": Gender.MALE.value, "female": Gender.FEMALE.value, "other": Gender.OTHER.value}
_USED = {"id", "date", "steps", "stepgoal", "activitytype", "mindfulnesssession", "bpm", "age", "gender"}
_WEAR_MINUTES = ("minutesindefaultzone1", "minutesbelowdefaultzone1", "minutesindefaultzone2", "minutesindefaultzone3")
_FULL_DAY = 600
_STEP_GOAL, _MINDFULNESS = "lifesnaps:step-goal", "lifesnaps:mindfulness-session"


def read(table: TextTable, today: pd.Timestamp | None) -> Outcome:
    """Return the dataset, and where each person-day went."""
    frame = table.frame()
    day, notes = parse_days(texts(frame, "date"))
    person = texts(frame, "id").str.replace(r"\.0$", "", regex=True)
    reason = pd.Series(None, index=frame.index, dtype=object)
    for name, holds in (
        (TOO_LONG, frame["too_long"]),
        (NO_PERSON, person == ""),
        (NO_DAY, day.isna()),
        (EARLY, day < pd.Timestamp("1970-01-01")),
        (FUTURE, future_days(day, today)),
    ):
        reason = reason.mask(reason.isna() & holds, name)

    frame = frame.assign(user_id="u" + person, day=day)
    usable = frame[reason.isna()]
    rows, derived = _rows(usable)
    again = usable.duplicated(["user_id", "day"])
    equal = usable.drop(columns="line").duplicated()
    reason = reason.mask(again.reindex(frame.index, fill_value=False), CONFLICTING)
    reason = reason.mask(equal.reindex(frame.index, fill_value=False), REPEATED)
    reason = reason.mask(reason.isna() & ~frame.index.isin(rows["person_day"]), NO_HABIT)

    tracking = _one_row_a_day(rows)
    users, user_notes = _users(usable)
    start = tracking.groupby(["user_id", "habit_id"], as_index=False)["date"].min()
    adoptions = start.assign(
        adopted_at=start["date"].dt.tz_localize("UTC"), abandoned_at=pd.NaT, source=AdoptionSource.IMPORTED.value
    ).drop(columns="date")
    dataset = Dataset(users=users, habits=_habits(tracking["habit_id"]), habit_tracking=tracking, adoptions=adoptions)
    told = pd.DataFrame(
        {
            "where": "line " + frame["line"].astype("str"),
            "shown": "id " + person + ", " + texts(frame, "date"),
            "reason": reason,
        }
    )
    notes += user_notes + _about(frame, usable)
    return Outcome(dataset, ROW, told, derived, notes)


def _worn(frame: pd.DataFrame) -> pd.Series:
    return numbers(frame, "bpm").notna() | (numbers(frame, "steps") > 0)


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a row a person, habit and day: user_id, habit_id, date, status, value, derived, person_day."""
    worn, steps = _worn(frame), numbers(frame, "steps")
    base = pd.DataFrame({"user_id": frame["user_id"], "date": frame["day"], "person_day": frame.index})
    base = base.assign(value=np.nan, derived=False)

    goal, no_goal = numbers(frame, "stepgoal"), texts(frame, "stepgoal").str.upper() == "NO_GOAL"
    since = frame["day"].where(goal.notna()).groupby(frame["user_id"]).transform("min")
    known = goal.notna() & worn & steps.notna()
    status = np.select([known & (steps >= goal), known], [Status.DONE, Status.MISSED], Status.UNKNOWN)
    parts = [
        base.assign(habit_id=_STEP_GOAL, status=status, value=steps.where(worn))[(frame["day"] >= since) & ~no_goal]
    ]

    session = texts(frame, "mindfulnesssession").str.casefold()
    did = session.isin(["true", "1", "1.0"])
    said_no = session.isin(["false", "0", "0.0"]) & worn
    status = np.select([did, said_no], [Status.DONE, Status.MISSED], Status.UNKNOWN)
    since = frame["day"].where(did).groupby(frame["user_id"]).transform("min")
    parts.append(base.assign(habit_id=_MINDFULNESS, status=status)[frame["day"] >= since])

    # The list is a Python list's text; taken apart by its commas, so that nothing in a file is ever evaluated.
    kinds = texts(frame, "activitytype").str.strip("[] ").str.split(",").explode().str.strip(" '\"")
    kinds = kinds[kinds.fillna("") != ""]
    done = base.loc[kinds.index].assign(
        habit_id="lifesnaps:" + kinds.str.casefold().str.replace(r"\s+", "-", regex=True)
    )
    done = done.drop_duplicates(["person_day", "habit_id"]).assign(status=Status.DONE.value)
    since = done.groupby(["user_id", "habit_id"], as_index=False)["date"].min().rename(columns={"date": "since"})
    others = base.assign(status=np.where(worn, Status.MISSED, Status.UNKNOWN)).merge(since, on="user_id")
    others = others[others["date"] >= others["since"]].drop(columns="since")
    others = others.merge(done[["user_id", "habit_id", "date"]].assign(is_done=True), how="left")
    others = others[others["is_done"].isna()].drop(columns="is_done").assign(derived=True)
    rows = pd.concat([*parts, done, others], ignore_index=True)
    counts = others.drop_duplicates(["user_id", "habit_id", "date"])["status"].astype("str").value_counts().sort_index()
    return rows, {str(status): int(count) for status, count in counts.items()}


def _one_row_a_day(rows: pd.DataFrame) -> pd.DataFrame:
    strength = rows["status"].astype("str").map(STRENGTH)
    rows = rows.assign(strength=strength).sort_values(
        ["user_id", "habit_id", "date", "strength"], ascending=[True, True, True, False], kind="stable"
    )
    rows = rows.drop_duplicates(["user_id", "habit_id", "date"]).drop(columns=["strength", "person_day"])
    return rows.assign(status=rows["status"].astype("str"), at=pd.NaT, minutes=np.nan)


def _users(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A person's age is a band, kept in `age_band`; where a file holds years, possible ones go to `age`."""
    stated = pd.DataFrame({"user_id": frame["user_id"], "age": texts(frame, "age"), "gender": texts(frame, "gender")})
    people = stated.replace("", None).groupby("user_id", as_index=False).first()
    years = pd.to_numeric(people["age"], errors="coerce")
    possible = years.between(13, 120) & (years % 1 == 0)
    gender = people["gender"].astype("str").str.casefold().map(_GENDERS)
    notes = []
    wrong = people["age"][years.notna() & ~possible]
    if len(wrong):
        notes.append(
            f"ages of {len(wrong)} people left missing, not whole years from 13 to 120: {', '.join(wrong[:5])}"
        )
    lost = people["gender"][people["gender"].notna() & gender.isna()]
    if len(lost):
        notes.append(f"genders of {len(lost)} people left missing, not known: {', '.join(sorted(set(lost))[:5])}")
    users = pd.DataFrame(
        {
            "user_id": people["user_id"],
            "age": years.where(possible),
            "gender": gender,
            "age_band": people["age"].where(years.isna()),
        }
    )
    return users, notes


def _habits(habit_id: pd.Series) -> pd.DataFrame:
    ids = sorted(habit_id.unique())
    kind = pd.Series([one.removeprefix("lifesnaps:").replace("-", " ").capitalize() for one in ids], dtype="str")
    habits = pd.DataFrame({"habit_id": pd.Series(ids, dtype="str"), "name_en": kind, "target": "1/1"})
    steps, mindful = habits["habit_id"] == _STEP_GOAL, habits["habit_id"] == _MINDFULNESS
    physical = [Activity.PHYSICAL.value]
    return habits.assign(
        name_en=kind.mask(steps, "Reach the daily step goal").mask(mindful, "Mindfulness session"),
        category=pd.Series(Category.PHYSICAL.value, index=habits.index).mask(mindful, Category.MINDFULNESS.value),
        activity_type=[[Activity.MENTAL.value] if one else physical for one in mindful],
        unit=pd.Series("steps", index=habits.index).where(steps),
        target_direction=pd.Series(TargetDirection.AT_LEAST.value, index=habits.index).where(steps),
    )


def _about(frame: pd.DataFrame, usable: pd.DataFrame) -> list[str]:
    worn = _worn(usable)
    notes = [
        f"the band was worn on {int(worn.sum()):,} of {len(usable):,} person-days (a heart rate or a step is recorded)",
        "a step goal holds on the day it was stated only; the steps of a day are its `value`",
    ]
    if set(_WEAR_MINUTES) <= set(frame.columns):
        minutes = sum(
            (numbers(usable, column).fillna(0) for column in _WEAR_MINUTES), start=pd.Series(0.0, usable.index)
        )
        short = int((worn & (minutes < _FULL_DAY)).sum())
        notes.append(f"on {short:,} of them for less than 10 hours: a missed goal may be the band's")
    ignored = len(set(frame.columns) - _USED - {"line", "too_long", "user_id", "day"})
    if ignored:
        notes.append(f"{ignored} other columns (sleep, heart, mood, place, body) are not read")
    return notes
