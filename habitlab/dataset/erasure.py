"""Take people out of a dataset: their rows, what is called after them, and their names."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.schema import TABLES


def erase(dataset: Dataset, users: Collection[str]) -> Dataset:
    """Return a copy in which nothing is of these users, or names them.

    Their rows go, habits that are called after them (imported ones are) and that nobody else has, and their ids in
    reports of imports, where a source may be called like its person.
    """
    if not users:
        return dataset
    name = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(users)))})(?!\w)")
    left = dataset.without(users).replace(metadata=_unnamed(dataset.metadata, name))
    ids = left.habits["habit_id"]
    own = ids.str.contains(name, regex=True) & ~ids.isin(habits_in_use(left))
    return left.replace(habits=left.habits[~own.to_numpy(dtype=bool)]) if own.any() else left


def habits_in_use(dataset: Dataset) -> set[str]:
    """Return the ids of habits that stand in any row of anybody."""
    frames = [dataset.table(name) for name, rules in TABLES.items() if "user_id" in rules.columns]
    return {habit for frame in frames if "habit_id" in frame for habit in frame["habit_id"].dropna().unique()}


def _unnamed(told: Any, name: re.Pattern[str]) -> Any:
    if isinstance(told, dict):
        return {key: _unnamed(value, name) for key, value in told.items()}
    if isinstance(told, list):
        return [_unnamed(value, name) for value in told]
    return name.sub("somebody", told) if isinstance(told, str) else told
