"""From the entries of one person's tracker to a dataset: the rules that all trackers share.

- One row a habit and day. Of several entries of a day the strongest counts: done, then skipped, missed, unknown.
- Habits of the same name (case and blanks aside) and the same schedule are one habit listed twice.
- A day between a habit's first and last row that the source does not mention is missed, and is marked as derived,
  if it was scheduled, as every day of a daily habit and the named weekdays of others are.
- For k times in n days nobody said which days: so many days are missed as each period lacks to k, after those stated
  done, missed or skipped; namely its latest unmentioned ones. Periods are calendar weeks for n = 7, else n days on end
  from the habit's first row. A first or last period that is cut short has its share of k, rounded down.
- For a habit whose value is to stay below a target, silence says nothing: such days are unknown.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.importers.report import without_emails
from habitlab.dataset.merge import STRENGTH
from habitlab.dataset.vocabulary import AdoptionSource, Status, TargetDirection

IMPLIED = "not scheduled: the tracker itself filled the day in, as the habit's frequency was kept"
REPEATED = "repeated: the same habit, day and value again"
CONFLICTING = "conflicting: another value of the same habit and day counts (any done, then skipped, missed, unknown)"
STRANGER = "of a habit that the source does not list"
NO_DAY = "not a day"
EARLY = "before 1970"
FUTURE = "in the future"
NO_VALUE = "not a known value"
TOO_LONG = "more fields than the header"

_LAST_DAY = pd.Timestamp("2100-01-01")
_LONG_GAP = 365
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Tracker:
    """What a reader found in a tracker's file, before any rule is applied.

    `habits`, indexed by the source's own key: name, description, and optionally category, times, days (the target),
    weekdays (None, or the scheduled ones, Monday 0), measured, unit, target_value, target_direction.
    `entries`, a row per row of the source and in its order: habit (such a key), where and shown (for messages), day
    (datetime64[s]), status (missing: to be told from value), value (float64), reason (why the row is no row of ours).
    `gaps` says what silence between two entries means: the day was missed, is unknown, or whichever fits, as the source
    can state misses itself.
    """

    row: str
    habits: pd.DataFrame
    entries: pd.DataFrame
    gaps: Literal["missed", "unknown", "whichever"] = "missed"
    notes: list[str] = field(default_factory=list)


def future_days(day: pd.Series, today: pd.Timestamp | None) -> pd.Series:
    """Whether days are after today; without a `today`, after the year 2099."""
    return day > (today if today is not None else _LAST_DAY)


@dataclass(frozen=True)
class Outcome:
    """A dataset, and where the rows of its source went.

    `entries` has a row per row of the source: where, shown, and the reason why it was skipped (missing: imported).
    `derived` counts by status the days that no row of the source states.
    """

    dataset: Dataset
    row: str
    entries: pd.DataFrame
    derived: dict[str, int]
    notes: list[str]


def assemble(tracker: Tracker, user: str, today: pd.Timestamp | None) -> Outcome:
    """Apply the rules of this module to what a reader found."""
    habits, notes = _clean(_complete(tracker.habits))
    habits, more = _identify(habits, user)
    notes += more
    entries = tracker.entries.reset_index(drop=True)
    reason = _reasons(entries, habits, today)

    usable = reason.isna()
    rows = entries.loc[usable, ["habit", "day", "status", "value"]]
    rows = rows.assign(habit_id=rows["habit"].map(habits["habit_id"])).drop(columns="habit")
    reason = _settle_days(rows, reason)
    kept = rows[reason[rows.index].isna()].sort_values(["habit_id", "day"])
    definitions = habits.drop_duplicates("habit_id").set_index("habit_id")
    kept = _judge_values(kept, definitions)

    implied = entries.loc[(reason == IMPLIED) & entries["day"].notna(), ["habit", "day"]]
    implied = implied.assign(habit_id=implied["habit"].map(habits["habit_id"]))
    gaps, gap_notes = _gaps(kept, implied, definitions, tracker.gaps)
    tracking = pd.concat([kept.assign(derived=False), gaps.assign(derived=True)], ignore_index=True)
    derived = {str(k): int(n) for k, n in gaps["status"].value_counts().sort_index().items()}
    dataset = _dataset(tracking, definitions, user)
    told = entries[["where", "shown"]].assign(reason=reason)
    return Outcome(dataset, tracker.row, told, derived, [*tracker.notes, *notes, *gap_notes])


def _complete(habits: pd.DataFrame) -> pd.DataFrame:
    absent = {
        "category": None,
        "times": 1.0,
        "days": 1.0,
        "weekdays": None,
        "measured": False,
        "unit": "",
        "target_value": np.nan,
        "target_direction": None,
    }
    habits = habits.assign(**{name: value for name, value in absent.items() if name not in habits.columns})
    # Seven times in seven days is daily; a frequency that is none is taken as daily too.
    daily = ~((habits["times"] >= 1) & (habits["days"] > habits["times"]))
    return habits.assign(
        times=habits["times"].mask(daily, 1).astype("int64"), days=habits["days"].mask(daily, 1).astype("int64")
    )


def _clean(habits: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    name, description = without_emails(habits["name"]), without_emails(habits["description"])
    removed = int(((name != habits["name"]) | (description != habits["description"])).sum())
    notes = [f"e-mail addresses taken out of the texts of {removed} habits"] if removed else []
    return habits.assign(name=name, description=description), notes


def _identify(habits: pd.DataFrame, user: str) -> tuple[pd.DataFrame, list[str]]:
    """Give every habit its id, `user:name`; another schedule under a name that is taken adds itself to the id."""
    name = habits["name"].where(habits["name"] != "", "habit " + habits.index.astype("str"))
    slug = name.map(_slug).astype("str")
    schedule = (
        habits["times"].astype("str")
        + "/"
        + habits["days"].astype("str")
        + habits["unit"].where(habits["measured"], "").map(lambda unit: f"-{_slug(unit)}" if unit else "")
    )
    first = schedule.groupby(slug).transform("first") if len(habits) else schedule
    habit_id = user + ":" + slug + ("@" + schedule).where(schedule != first, "")
    twice = habit_id.duplicated()
    notes = []
    if twice.any():
        names = ", ".join(dict.fromkeys(name[twice]))
        notes.append(f"{int(twice.sum())} habits listed twice (same name and schedule) are one habit here: {names}")
    apart = (schedule != first).sum()
    if apart:
        notes.append(f"{int(apart)} habits share a name with another schedule; they stay habits of their own")
    return habits.assign(name=name, habit_id=habit_id), notes


def _slug(name: str) -> str:
    return "-".join(unicodedata.normalize("NFKC", name).casefold().split())


def _reasons(entries: pd.DataFrame, habits: pd.DataFrame, today: pd.Timestamp | None) -> pd.Series:
    """Why an entry cannot be a row, the first reason that holds."""
    reason = entries["reason"].astype(object).where(entries["reason"].notna(), None)
    for name, holds in (
        (STRANGER, ~entries["habit"].isin(habits.index)),
        (NO_DAY, entries["day"].isna()),
        (EARLY, entries["day"] < pd.Timestamp("1970-01-01")),
        (FUTURE, future_days(entries["day"], today)),
        (NO_VALUE, entries["status"].isna() & entries["value"].isna()),
    ):
        reason = reason.mask(reason.isna() & holds, name)
    return reason


def _settle_days(rows: pd.DataFrame, reason: pd.Series) -> pd.Series:
    """Leave one row a habit and day, and say of the others whether they repeat it or conflict with it."""
    strength = rows["status"].map(STRENGTH).astype("float64").fillna(STRENGTH[Status.DONE])
    order = rows.assign(strength=strength, negative=-rows["value"].fillna(0)).sort_values(
        ["habit_id", "day", "strength", "negative"], ascending=[True, True, False, True], kind="stable"
    )
    same_day = order.groupby(["habit_id", "day"], sort=False)
    extra = same_day.cumcount() > 0
    winner_strength, winner_value = same_day["strength"].transform("first"), same_day["negative"].transform("first")
    equal = (order["strength"] == winner_strength) & (order["negative"] == winner_value)
    reason = reason.copy()
    reason[order.index[extra & equal]] = REPEATED
    reason[order.index[extra & ~equal]] = CONFLICTING
    return reason


def _judge_values(rows: pd.DataFrame, definitions: pd.DataFrame) -> pd.DataFrame:
    """Tell done from missed by the values of measured habits.

    Without a target a value above zero is done. Where the target is for n days, a day with a value is done when some n
    days on end that hold it reach the target; for a value to stay below, when no such days go beyond it.
    """
    judged = rows[rows["status"].isna()]
    if judged.empty:
        return rows
    status = rows["status"].astype(object).copy()
    for habit_id, one in judged.groupby("habit_id"):
        habit = definitions.loc[habit_id]
        days = int(habit["days"])
        offsets = _day_numbers(one["day"])
        offsets -= offsets.min()
        values = np.zeros(offsets.max() + 1)
        values[offsets] = one["value"]
        sums = np.convolve(values, np.ones(days))  # sums[i]: the n days that end with day i
        around = np.lib.stride_tricks.sliding_window_view(sums, days)  # every n days on end that hold day i
        if np.isnan(habit["target_value"]):
            done = values > 0
        elif habit["target_direction"] == TargetDirection.AT_MOST:
            done = around.max(axis=1) <= habit["target_value"] + _ROUNDING
        else:
            done = (around.max(axis=1) >= habit["target_value"] - _ROUNDING) & (
                (values > 0) | (habit["target_value"] <= 0)
            )
        status[one.index] = np.where(done[offsets], Status.DONE.value, Status.MISSED.value)
    return rows.assign(status=status)


def _gaps(
    rows: pd.DataFrame, implied: pd.DataFrame, definitions: pd.DataFrame, meaning: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the scheduled days that no entry mentions, between each habit's first and last row."""
    found, long = [], []
    for habit_id, one in rows.groupby("habit_id"):
        habit = definitions.loc[habit_id]
        filled_in = implied.loc[implied["habit_id"] == habit_id, "day"]
        days = _unmentioned(one, filled_in, habit)
        found.append(pd.DataFrame({"habit_id": habit_id, "day": days}))
        if len(one) > 1 and one["day"].sort_values().diff().max() > pd.Timedelta(days=_LONG_GAP):
            long.append(habit["name"])
    gaps = pd.concat(found, ignore_index=True) if found else pd.DataFrame({"habit_id": [], "day": []})
    gaps = gaps.astype({"habit_id": "str", "day": "datetime64[s]"})

    notes = []
    schedule = definitions.loc[gaps["habit_id"]]
    if ((schedule["days"] > 1) & schedule["weekdays"].isna()).any():
        notes.append(
            "derived: which days were meant is not known of habits for k times in n days; so many days as a period "
            "(a calendar week for n = 7) lacks to k are derived, its latest unmentioned ones"
        )
    if meaning == "whichever":
        stated = int((rows["status"] == Status.MISSED).sum())
        meaning = "unknown" if stated and stated >= len(gaps) else "missed"
        if len(gaps) and stated:
            notes.append(
                f"the source states {stated:,} missed days and leaves out {len(gaps):,} scheduled ones: it "
                + (
                    "mostly answers, so these are unknown"
                    if meaning == "unknown"
                    else "rarely does, so these are missed"
                )
            )
    limits = definitions.index[definitions["target_direction"] == TargetDirection.AT_MOST.value]
    status = pd.Series(meaning, index=gaps.index).mask(gaps["habit_id"].isin(limits), Status.UNKNOWN.value)
    if long:
        notes.append(f"more than a year without an entry, all its scheduled days derived: {', '.join(long)}")
    return gaps.assign(status=status, value=np.nan), notes


def _unmentioned(rows: pd.DataFrame, filled_in: pd.Series, habit: pd.Series) -> np.ndarray:
    days = rows["day"].to_numpy("datetime64[D]")
    first, last = days.min(), days.max()
    calendar = np.arange(first, last + 1)
    free = np.isin(calendar, np.concatenate([days, filled_in.to_numpy("datetime64[D]")]), invert=True)
    if isinstance(habit["weekdays"], (list, tuple)):
        free &= np.isin(_weekday(calendar), habit["weekdays"])
    elif habit["days"] > 1:
        settled = np.isin(calendar, days[(rows["status"] != Status.UNKNOWN).to_numpy()])
        free = lacking(settled, free, int(habit["times"]), int(habit["days"]), int(_weekday(first)))
    return calendar[free]


def lacking(settled: np.ndarray, free: np.ndarray, times: int, days: int, weekday: int) -> np.ndarray:
    """Choose the days that a habit of `times` in `days` days lacks (bool, a day each; all arrays alike).

    Of each period the latest `free` days are chosen, as many as its `settled` days (done, missed or skipped) lack to
    `times`, or to its share of them, rounded down, where the first or the last period is cut short. Periods of 7 days
    begin on Mondays, and `weekday` is that of the first day (Monday 0); others begin with the first day.
    """
    period = (np.arange(len(free)) + (weekday if days == 7 else 0)) // days
    scheduled = np.bincount(period) * times // days
    open_places = np.maximum(scheduled - np.bincount(period, settled).astype("int64"), 0)
    so_far = np.cumsum(free)
    still_to_come = so_far[np.searchsorted(period, period, side="right") - 1] - so_far  # free days later in the period
    return free & (still_to_come < open_places[period])


def _weekday(days: np.ndarray) -> np.ndarray:
    return (days.astype("int64") + 3) % 7  # 1970-01-01 was a Thursday


def _day_numbers(days: pd.Series) -> np.ndarray:
    return days.to_numpy("datetime64[D]").astype("int64")


def _dataset(tracking: pd.DataFrame, definitions: pd.DataFrame, user: str) -> Dataset:
    tracking = tracking.rename(columns={"day": "date"}).sort_values(["habit_id", "date"])
    tracking = tracking.assign(user_id=user, at=pd.NaT, minutes=np.nan)
    known = tracking[(tracking["status"] != Status.UNKNOWN.value) & ~tracking["derived"]]
    start = known.groupby("habit_id", as_index=False)["date"].min()
    adoptions = pd.DataFrame(
        {
            "user_id": user,
            "habit_id": start["habit_id"],
            "adopted_at": start["date"].dt.tz_localize("UTC"),
            "abandoned_at": pd.NaT,
            "source": AdoptionSource.IMPORTED.value,
        }
    )
    return Dataset(
        users=pd.DataFrame({"user_id": [user]}),
        habits=_habit_table(definitions),
        habit_tracking=tracking,
        adoptions=adoptions,
    )


def _habit_table(definitions: pd.DataFrame) -> pd.DataFrame:
    definitions = definitions.sort_index()
    name, description = definitions["name"], definitions["description"]
    description = description.where(description != "")
    measured = definitions["measured"].astype(bool)
    table = pd.DataFrame(
        {
            "habit_id": definitions.index,
            "name_en": name.mask(name.map(in_cyrillic)),
            "name_ru": name.where(name.map(in_cyrillic)),
            "description_en": description.mask(description.map(in_cyrillic)),
            "description_ru": description.where(description.map(in_cyrillic)),
            "category": definitions["category"],
            "target": definitions["times"].astype("str") + "/" + definitions["days"].astype("str"),
            "unit": definitions["unit"].where(measured & (definitions["unit"] != "")),
            "target_value": definitions["target_value"].where(measured),
            "target_direction": definitions["target_direction"].where(measured),
        }
    )
    return table.reset_index(drop=True)


def in_cyrillic(text: object) -> bool:
    """Whether most letters of a text are Cyrillic."""
    letters = [c for c in text if c.isalpha()] if isinstance(text, str) else []
    return sum("CYRILLIC" in unicodedata.name(c, "") for c in letters) * 2 > len(letters)
