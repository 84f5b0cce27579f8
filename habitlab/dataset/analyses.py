"""What can be analysed: which reports on behaviour and claims a dataset has the columns and the size for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.derived import minutes_band
from habitlab.dataset.schema import TABLES, MissingColumn
from habitlab.dataset.vocabulary import DescriptionVariant, Response, Status

FEWEST = 10
"""With fewer users, no interval by user keeps its level, and no difference between users is judged."""


@dataclass(frozen=True)
class Analysis:
    """An analysis of the reports: the columns it needs, and what tells whether there is enough in them."""

    name: str
    report: str
    needs: tuple[str, ...]
    lacks: Callable[[Dataset], str] = lambda dataset: ""


def analyses(dataset: Dataset) -> pd.DataFrame:
    """Return what the reports on behaviour and claims can say of this dataset, one row an analysis.

    Columns: analysis, report, needs (list of `table.column`), can_run, why_not (empty when it can run), caveat (when
    it runs with fewer users than an interval needs).
    """
    tracking = dataset.habit_tracking
    users = tracking["user_id"].nunique() if "user_id" in tracking.columns else 0
    people = "1 user" if users == 1 else f"{users} users"
    few = f"no intervals: {people}, at least {FEWEST} are needed" if users < FEWEST else ""
    lines = []
    for analysis in ANALYSES:
        reasons = list(_absent(dataset, analysis.needs))
        if not reasons and (lack := analysis.lacks(dataset)):
            reasons.append(lack)
        caveat = "" if reasons else few
        lines.append((analysis.name, analysis.report, list(analysis.needs), not reasons, "; ".join(reasons), caveat))
    return pd.DataFrame(lines, columns=["analysis", "report", "needs", "can_run", "why_not", "caveat"])


def _absent(dataset: Dataset, needs: tuple[str, ...]) -> dict[str, None]:
    """What the dataset lacks of `needs` and of the keys of their tables, each reason once and in order."""
    reasons: dict[str, None] = {}
    for need in needs:
        table = need.partition(".")[0]
        try:
            dataset.require(need, *(f"{table}.{key}" for key in TABLES[table].key))
        except MissingColumn as missing:
            reasons[str(missing)] = None
    return reasons


def _tracked_habits(dataset: Dataset) -> pd.DataFrame:
    # Of the unique ids: `isin` takes 14 s against a million texts and 10 ms against a hundred.
    return dataset.habits[dataset.habits["habit_id"].isin(dataset.habit_tracking["habit_id"].unique())]


def _days_followed(days: int) -> Callable[[Dataset], str]:
    def lacks(dataset: Dataset) -> str:
        date = pd.to_datetime(dataset.habit_tracking["date"], format="ISO8601", errors="coerce")
        span = (date.max() - date.min()).days + 1
        return "" if span >= days else f"needs {days} days of tracking; this dataset has {span}"

    return lacks


def _kinds(table: str, column: str, what: str) -> Callable[[Dataset], str]:
    """Two different values of a column are needed to compare."""

    def lacks(dataset: Dataset) -> str:
        frame = dataset.table(table)
        if table == "habits":
            frame = _tracked_habits(dataset)
        values = frame[column]
        if column == "minutes":
            values = minutes_band(pd.to_numeric(values, errors="coerce"))
        kinds = values.dropna().nunique()
        return "" if kinds > 1 else f"needs {what}; this dataset has {kinds}"

    return lacks


def _lacks_daily_or_weekly(dataset: Dataset) -> str:
    habits = _tracked_habits(dataset)
    absent = [name for name, target in (("daily", "1/1"), ("weekly", "1/7")) if not (habits["target"] == target).any()]
    return f"needs daily and weekly habits; this dataset has no {' and no '.join(absent)} ones" if absent else ""


def _lacks_variants(dataset: Dataset) -> str:
    shown = dataset.recommendations.dropna(subset=["description_variant"])
    absent = [variant.value for variant in DescriptionVariant if not (shown["description_variant"] == variant).any()]
    if absent:
        return f"needs clear and vague descriptions shown; this dataset has no {' and no '.join(absent)} ones"
    return "" if shown["response"].isin([Response.ACCEPTED]).any() else "needs accepted recommendations; there are none"


def _lacks_second_habits(dataset: Dataset) -> str:
    several = dataset.adoptions.drop_duplicates(["user_id", "habit_id"])["user_id"].duplicated().any()
    return "" if several else "needs users who adopted a second habit; this dataset has none"


def _lacks_different_loads(dataset: Dataset) -> str:
    loads = dataset.adoptions.groupby("user_id")["habit_id"].nunique().nunique()
    return "" if loads > 1 else "needs users who hold different numbers of habits; here all hold the same"


def _lacks_regular_pairs(dataset: Dataset) -> str:
    tracking = dataset.habit_tracking
    daily = dataset.habits["habit_id"][dataset.habits["target"] == "1/1"]
    timed = (tracking["status"] == Status.DONE) & tracking["at"].notna() & tracking["habit_id"].isin(daily)
    pairs = int((tracking.loc[timed, ["user_id", "habit_id"]].value_counts(sort=False) >= 30).sum())
    enough = "needs three daily habits with 30 timed completions each"
    return "" if pairs >= 3 else f"{enough}; this dataset has {pairs}"


_ROWS = ("habit_tracking.date", "habit_tracking.status")
_ADOPTED = "adoptions.adopted_at"
_GIVEN_UP = "adoptions.abandoned_at"

ANALYSES = (
    Analysis("adoption cycle", "02", (*_ROWS, _ADOPTED), _days_followed(36)),
    Analysis("time of day", "02", ("habit_tracking.at", "users.zone")),
    Analysis("weekday", "02", _ROWS, _days_followed(14)),
    Analysis("retention", "02", (*_ROWS, _ADOPTED, _GIVEN_UP), _days_followed(14)),
    Analysis("difficulty progression", "02", (*_ROWS, _ADOPTED, "habits.difficulty"), _lacks_second_habits),
    Analysis(
        "duration", "02", (*_ROWS, "habits.minutes"), _kinds("habits", "minutes", "habits in two bands of minutes")
    ),
    Analysis("category", "02", (*_ROWS, "habits.category"), _kinds("habits", "category", "habits of two categories")),
    Analysis("description", "02", ("recommendations.description_variant", "recommendations.response"), _lacks_variants),
    Analysis("frequency", "02", (*_ROWS, "habits.target", _ADOPTED, _GIVEN_UP), _lacks_daily_or_weekly),
    Analysis(
        "age and category",
        "02",
        ("users.age", _ADOPTED, "habits.category"),
        _kinds("users", "age", "users of two ages"),
    ),
    Analysis(
        "gender and category",
        "02",
        ("users.gender", _ADOPTED, "habits.category"),
        _kinds("users", "gender", "users of two genders"),
    ),
    Analysis(
        "complexity and time commitment",
        "03",
        ("users.time_commitment", "habits.minutes", "habits.difficulty", _ADOPTED),
        _kinds("users", "time_commitment", "users with two time commitments"),
    ),
    Analysis("concurrent habits and completion", "03", (*_ROWS, _ADOPTED), _lacks_different_loads),
    Analysis(
        "consistent time and streak",
        "03",
        ("habit_tracking.at", "users.zone", "habits.target"),
        _lacks_regular_pairs,
    ),
    Analysis(
        "goal setting and completion",
        "03",
        (*_ROWS, "users.goal_set"),
        _kinds("users", "goal_set", "users with and without a goal"),
    ),
)
"""The analyses of reports 02 and 03, in their order."""
