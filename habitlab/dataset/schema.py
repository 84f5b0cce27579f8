"""The contract: which tables and columns a dataset may have, and what must hold of their values.

`TABLES` is the only description of the data. The SQLite tables, the dtypes in memory and the checks all follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from habitlab.dataset import vocabulary as words

if TYPE_CHECKING:
    import pandera.pandas as pa

    from habitlab.dataset.dataset import Dataset

SCHEMA_VERSION = 1

Kind = Literal["text", "whole", "number", "truth", "date", "instant", "list", "choice", "target"]


@dataclass(frozen=True)
class Column:
    """One column: what its values are, and between which bounds.

    Kinds in memory: text, target `str`; whole, number `float64` (NaN is missing); truth `bool`; date `datetime64[s]`, a
    local day without zone; instant `datetime64[us, UTC]`; list Python lists of `str`; choice `category`.
    """

    kind: Kind
    meaning: str
    choices: type[StrEnum] | None = None
    low: float | None = None
    high: float | None = None
    references: str | None = None
    required: bool = False
    longest: int | None = None


@dataclass(frozen=True)
class Table:
    """One table: its key and its columns in reading order."""

    key: tuple[str, ...]
    columns: dict[str, Column]


def _user() -> Column:
    return Column("text", "who", references="users", required=True)


def _habit() -> Column:
    return Column("text", "which habit", references="habits", required=True)


def _id(meaning: str) -> Column:
    return Column("text", meaning, required=True)


def _at(meaning: str, *, required: bool = False) -> Column:
    return Column("instant", meaning, required=required)


TABLES: dict[str, Table] = {
    "users": Table(
        ("user_id",),
        {
            "user_id": _id("pseudonymous id"),
            "age": Column("whole", "years", low=13, high=120),
            "gender": Column("choice", "self-described", words.Gender),
            "zone": Column("text", "IANA time zone"),
            "day_start": Column("whole", "local hour at which a new day begins", low=0, high=12),
            "preferred_time": Column("choice", "preferred part of the day", words.TimeOfDay),
            "improvement_areas": Column("list", "areas the user wants to improve", words.Category),
            "activity_preferences": Column("list", "kinds of activity the user likes", words.Activity),
            "learning_style": Column("choice", "stated learning style", words.LearningStyle),
            "difficulty_preference": Column("choice", "difficulty the user asks for", words.Level),
            "chronotype": Column("choice", "morning or evening person", words.Chronotype),
            "time_commitment": Column("number", "minutes a day the user has for habits", low=0, high=1440),
            "barriers": Column("text", "what kept the user from habits before", longest=2000),
            "existing_habits": Column("list", "habits held before registration"),
            "goal_set": Column("truth", "whether the user set an explicit goal"),
            "registered_at": _at("registration"),
            "experience_level": Column("choice", "experience with habits", words.Level),
        },
    ),
    "habits": Table(
        ("habit_id",),
        {
            "habit_id": _id("id"),
            "name_en": Column("text", "English name"),
            "name_ru": Column("text", "Russian name"),
            "description_en": Column("text", "English description"),
            "description_ru": Column("text", "Russian description"),
            "category": Column("choice", "life area", words.Category),
            "activity_type": Column("list", "kinds of activity", words.Activity),
            "minutes": Column("number", "minutes it takes", low=0.1, high=1440),
            "difficulty": Column("whole", "1 easy to 5 hard", low=1, high=5),
            "target": Column("target", "times per days: 1/1 daily, 3/7 three a week"),
            "time_of_day": Column("choice", "part of the day it fits", words.TimeOfDay),
            "prerequisites": Column("list", "habits to hold first"),
            "min_age": Column("whole", "youngest age it suits", low=0, high=120),
            "max_age": Column("whole", "oldest age it suits", low=0, high=130),
            "unit": Column("text", "unit of a measured habit"),
            "target_value": Column("number", "value a measured habit aims at", low=0),
            "target_direction": Column("choice", "reach it or stay below it", words.TargetDirection),
        },
    ),
    "habit_tracking": Table(
        ("user_id", "habit_id", "date"),
        {
            "user_id": _user(),
            "habit_id": _habit(),
            "date": Column("date", "the user's local day", required=True),
            "status": Column("choice", "what happened that day", words.Status, required=True),
            "at": _at("when it was done"),
            "minutes": Column("number", "minutes it took", low=0, high=1440),
            "value": Column("number", "value of a measured habit"),
        },
    ),
    "adoptions": Table(
        ("user_id", "habit_id", "adopted_at"),
        {
            "user_id": _user(),
            "habit_id": _habit(),
            "adopted_at": _at("start", required=True),
            "abandoned_at": _at("end; missing while the habit is held"),
            "source": Column("choice", "how it came about", words.AdoptionSource),
        },
    ),
    "modifications": Table(
        ("user_id", "habit_id", "at", "field"),
        {
            "user_id": _user(),
            "habit_id": _habit(),
            "at": _at("when it was changed", required=True),
            "field": Column("choice", "what was changed", words.HabitField, required=True),
            "old": Column("text", "value before"),
            "new": Column("text", "value after"),
        },
    ),
    "recommendations": Table(
        ("event_id",),
        {
            "event_id": _id("id of the exposure"),
            "user_id": _user(),
            "habit_id": _habit(),
            "shown_at": _at("when it was shown"),
            "position": Column("whole", "place in the list, from 1", low=1),
            "policy": Column("text", "policy that chose it"),
            "propensity": Column("number", "probability with which the policy chose it", low=0, high=1),
            "description_variant": Column("choice", "wording shown", words.DescriptionVariant),
            "response": Column("choice", "what the user did", words.Response),
            "responded_at": _at("when the user did it"),
        },
    ),
    "sessions": Table(
        ("session_id",),
        {
            "session_id": _id("id of the session"),
            "user_id": _user(),
            "started_at": _at("start"),
            "seconds": Column("number", "length", low=0),
        },
    ),
    "feedback": Table(
        ("user_id", "habit_id", "at"),
        {
            "user_id": _user(),
            "habit_id": _habit(),
            "at": _at("when it was given", required=True),
            "rating": Column("whole", "1 bad to 5 good", low=1, high=5),
            "comment": Column("text", "free text", longest=2000),
        },
    ),
    "surveys": Table(
        ("user_id", "survey", "question"),
        {
            "user_id": _user(),
            "survey": _id("which survey"),
            "question": _id("which question"),
            "sent_at": _at("when it was sent"),
            "answered_at": _at("when it was answered; missing without an answer"),
            "answer": Column("number", "answer on the question's scale"),
        },
    ),
    "experiments": Table(
        ("experiment", "user_id"),
        {
            "experiment": _id("which experiment"),
            "user_id": _user(),
            "arm": Column("text", "arm the user is in", required=True),
            "assigned_at": _at("assignment"),
            "exposed_at": _at("first exposure; missing without one"),
        },
    ),
    "consents": Table(
        ("user_id", "purpose", "at"),
        {
            "user_id": _user(),
            "purpose": Column("choice", "what the data may be used for", words.Purpose, required=True),
            "at": _at("when it was said", required=True),
            "granted": Column("truth", "given or withdrawn", required=True),
        },
    ),
    "model_runs": Table(
        ("run_id",),
        {
            "run_id": _id("id of the training run"),
            "model": Column("text", "which model"),
            "trained_at": _at("when it was trained"),
            "parameters": Column("text", "parameters, as JSON"),
            "metrics": Column("text", "metrics on held-out data, as JSON"),
        },
    ),
}

WHEN = {
    "users": "registered_at",
    "habit_tracking": "date",
    "adoptions": "adopted_at",
    "modifications": "at",
    "recommendations": "shown_at",
    "sessions": "started_at",
    "feedback": "at",
    "surveys": "sent_at",
    "experiments": "assigned_at",
    "consents": "at",
    "model_runs": "trained_at",
}
"""The column that says when a row of the table happened."""

PRIMARY_TABLES = ("users", "habits", "habit_tracking")

_TARGET = r"[1-9]\d*/[1-9]\d*"


class DatasetError(ValueError):
    """A dataset cannot be read, or breaks the contract."""


class MissingColumn(DatasetError):  # noqa: N818 - reads as what it is: a column that an analysis needs and the data lack
    """An analysis needs something that this dataset does not have."""


@dataclass(frozen=True)
class Violation:
    """One broken rule of one column: how many rows break it, and the first five of them."""

    table: str
    column: str
    rule: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """One line for people."""
        rows = "row" if self.count == 1 else "rows"
        shown = "; ".join(self.examples)
        return f"{self.table}.{self.column}: {self.rule}: {self.count:,} bad {rows}, first: {shown}"


def empty_table(name: str) -> pd.DataFrame:
    """Return the table without rows, with every column of the contract in its dtype."""
    return _empty_table(name).copy()


@cache
def _empty_table(name: str) -> pd.DataFrame:
    return coerce(name, pd.DataFrame({column: [] for column in TABLES[name].columns}))


def coerce(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Bring the columns of a table to the dtypes of the contract; what cannot be converted stays for `check` to report.

    Columns that the contract does not know are kept as they are, behind the known ones.
    """
    known = TABLES[name].columns
    order = [c for c in known if c in frame.columns] + [c for c in frame.columns if c not in known]
    converted = {
        column: _convert(frame[column], known[column]) if column in known else frame[column] for column in order
    }
    return pd.DataFrame(converted, columns=order).reset_index(drop=True)


def _convert(values: pd.Series, column: Column) -> pd.Series:
    try:
        match column.kind:
            case "text" | "target":
                return values if values.dtype == "str" else _as_text(values)
            case "whole" | "number":
                return pd.to_numeric(values).astype("float64")
            case "truth":
                return _as_truth(values)
            case "date":
                return values.astype("datetime64[s]")
            case "instant":
                if isinstance(values.dtype, pd.DatetimeTZDtype):
                    return values.dt.tz_convert("UTC").dt.as_unit("us")
                return pd.to_datetime(values, utc=True, format="ISO8601").dt.as_unit("us")
            case "choice":
                return _as_choice(values, column)
            case "list":
                return pd.Series([_as_list(v) for v in values], index=values.index, dtype=object)
    except (ValueError, TypeError, OverflowError):
        return values


def _as_text(values: pd.Series) -> pd.Series:
    if values.dtype == object or isinstance(values.dtype, pd.CategoricalDtype):
        return values.astype("str")
    numbers = pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all()
    return (values.astype("Int64") if numbers else values).astype("str")


def _as_truth(values: pd.Series) -> pd.Series:
    if values.dtype == bool:
        return values
    if values.isna().any() or not values.isin([0, 1]).all():
        return values.astype("boolean")
    return values.astype(bool)


def _as_choice(values: pd.Series, column: Column) -> pd.Series:
    assert column.choices is not None
    dtype = pd.CategoricalDtype([choice.value for choice in column.choices])
    if values.dtype == dtype:
        return values
    fits = values.isna() | values.isin(dtype.categories)
    return values.astype(dtype if fits.all() else "str")


def _as_list(value: object) -> object:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [str(v) for v in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    return value


def violations(dataset: Dataset, tables: list[str] | None = None) -> list[Violation]:
    """Return every broken rule of the contract, in the order of the tables."""
    return [v for name in tables or TABLES for v in _table_violations(dataset, name)]


def check(dataset: Dataset) -> None:
    """Raise `DatasetError` naming table, column, rule, count and the first five bad rows, if the contract is broken."""
    found = violations(dataset)
    if found:
        more = f"\n... and {len(found) - 10} more broken rules" if len(found) > 10 else ""
        raise DatasetError("the dataset breaks its contract:\n" + "\n".join(map(str, found[:10])) + more)


def _table_violations(dataset: Dataset, name: str) -> Iterator[Violation]:
    frame, table = dataset.table(name), TABLES[name]
    absent = [c for c, column in table.columns.items() if column.required and c not in frame.columns]
    for column in absent:
        yield Violation(name, column, "a required column is absent", len(frame), ())
    if absent or frame.empty:
        return
    from pandera.errors import SchemaErrors

    try:
        _pandera_schema(name).validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        for (column, rule), rows in cases.groupby(["column", "check"], sort=False, dropna=False):
            column = ", ".join(table.key) if column in (name, None) or pd.isna(column) else column
            yield _violation(frame, name, str(column), str(rule), rows["index"].dropna().astype(int).unique())
    duplicated = np.flatnonzero(frame.duplicated(list(table.key), keep=False))
    if duplicated.size:
        yield _violation(frame, name, ", ".join(table.key), "the key stands more than once", duplicated)
    for column, spec in table.columns.items():
        if spec.references and column in frame.columns:
            known = dataset.table(spec.references)[column]
            strangers = np.flatnonzero(~frame[column].isin(known) & frame[column].notna())
            if strangers.size:
                yield _violation(frame, name, column, f"not in table `{spec.references}`", strangers)
    if name == "habits":
        yield from _habit_violations(frame)


def _habit_violations(habits: pd.DataFrame) -> Iterator[Violation]:
    if {"min_age", "max_age"} <= set(habits.columns):
        crossed = np.flatnonzero(habits["min_age"] > habits["max_age"])
        if crossed.size:
            yield _violation(habits, "habits", "min_age", "above max_age", crossed)
    if "prerequisites" in habits.columns:
        edges = habits[["habit_id", "prerequisites"]].explode("prerequisites").dropna()
        strangers = edges.index[~edges["prerequisites"].isin(habits["habit_id"])].unique().to_numpy()
        if strangers.size:
            yield _violation(habits, "habits", "prerequisites", "not in table `habits`", strangers)
        circular = np.flatnonzero(habits["habit_id"].isin(_circular(edges)))
        if circular.size:
            yield _violation(habits, "habits", "prerequisites", "they form a circle", circular)


def _circular(edges: pd.DataFrame) -> set[str]:
    """Habits that are, by way of others, their own prerequisite: peel off what has none left until nothing changes."""
    while True:
        free = ~edges["prerequisites"].isin(edges["habit_id"])
        if not free.any():
            return set(edges["habit_id"])
        edges = edges[~free]


def _violation(frame: pd.DataFrame, name: str, column: str, rule: str, rows: np.ndarray) -> Violation:
    shown = [c for c in (*TABLES[name].key, column) if c in frame.columns]
    examples = tuple(
        "row " + f"{row}: " + ", ".join(f"{c}={frame[c].iloc[row]}" for c in dict.fromkeys(shown)) for row in rows[:5]
    )
    return Violation(name, column, rule, len(rows), examples)


@cache
def _pandera_schema(name: str) -> pa.DataFrameSchema:
    import pandera.pandas as pa

    table = TABLES[name]
    return pa.DataFrameSchema(
        {
            column: pa.Column(
                dtype=None,
                checks=_checks(spec),
                nullable=not (spec.required or column in table.key),
                required=spec.required,
            )
            for column, spec in table.columns.items()
        }
    )


def _checks(column: Column) -> list[pa.Check]:
    import pandera.pandas as pa

    checks = []
    match column.kind:
        case "whole" | "number":
            if column.kind == "whole":
                checks.append(pa.Check(_is_whole, error="not a whole number", ignore_na=True))
            else:
                checks.append(pa.Check(_is_number, error="not a number", ignore_na=True))
            if column.low is not None or column.high is not None:
                low, high = column.low, column.high
                checks.append(
                    pa.Check(
                        lambda values: _between(values, low, high),
                        error=f"not between {low} and {high}",
                        ignore_na=True,
                    )
                )
        case "truth":
            checks.append(pa.Check(lambda v: v.isin([True, False]), error="not true or false", ignore_na=True))
        case "date":
            checks.append(pa.Check(_is_moment, error="not a day like 2026-01-31", ignore_na=True))
        case "instant":
            checks.append(pa.Check(_is_moment, error="not an instant like 2026-01-31T07:30Z", ignore_na=True))
        case "target":
            checks.append(pa.Check.str_matches(f"^{_TARGET}$", error="not times per days, like 1/1 or 3/7"))
        case "choice":
            assert column.choices is not None
            allowed = [choice.value for choice in column.choices]
            checks.append(pa.Check.isin(allowed, error=f"not one of {', '.join(allowed)}"))
        case "list":
            choices = {choice.value for choice in column.choices} if column.choices else None
            wrong = f"not a list of {', '.join(sorted(choices))}" if choices else "not a list of texts"
            checks.append(pa.Check(lambda v: _lists_hold(v, choices), error=wrong, ignore_na=True))
    if column.longest:
        checks.append(pa.Check.str_length(max_value=column.longest, error=f"longer than {column.longest} characters"))
    return checks


def _is_number(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").pipe(np.isfinite)


def _is_moment(values: pd.Series) -> pd.Series:
    if values.dtype.kind == "M":
        return values.notna()
    return pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601").notna()


def _is_whole(values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    return np.isfinite(numbers) & (numbers % 1 == 0)


def _between(values: pd.Series, low: float | None, high: float | None) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.between(-np.inf if low is None else low, np.inf if high is None else high) | numbers.isna()


def _lists_hold(values: pd.Series, choices: set[str] | None) -> pd.Series:
    return values.map(lambda v: isinstance(v, list) and (choices is None or choices.issuperset(v))).astype(bool)
