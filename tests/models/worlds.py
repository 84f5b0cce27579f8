"""Datasets that the tests of models share, each made once in a process."""

from functools import cache

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.evaluation.splits import Split, temporal
from habitlab.simulation import simulate

UNTIL = "2024-02-15"  # all have registered by then


@cache
def population() -> Dataset:
    """600 simulated people over 120 days."""
    return simulate(users=600, days=120, seed=3)


@cache
def split() -> Split:
    return temporal(population(), UNTIL)


def imported_tracker() -> Dataset:
    """One person with two habits of whom nothing is known but names and days, as an importer leaves it."""
    days = pd.date_range("2026-01-01", periods=20, freq="D")
    return Dataset(
        users=pd.DataFrame({"user_id": ["me"]}),
        habits=pd.DataFrame({"habit_id": ["run", "read"], "name_en": ["Run", "Read"]}),
        habit_tracking=pd.DataFrame(
            {"user_id": "me", "habit_id": "run", "date": days, "status": ["done", "missed"] * 10},
        ),
    )


AWKWARD = ["one habit", "one user", "no interactions", "no recommendations", "infinite minutes", "imported tracker",
           "nothing at all", "no habits", "nobody"]  # fmt: skip


@cache
def awkward_datasets() -> dict[str, Dataset]:
    """What must not break any model, by the names in AWKWARD: tests are collected without making them."""
    people = population()
    few = people.users["user_id"].iloc[:30]
    some = people.replace(
        users=people.users[people.users["user_id"].isin(few)],
        **{
            name: people.table(name)[people.table(name)["user_id"].isin(few)]
            for name in ("habit_tracking", "adoptions", "modifications", "recommendations", "sessions", "feedback")
        },
        surveys=people.surveys.iloc[:0],
        experiments=people.experiments.iloc[:0],
        consents=people.consents[people.consents["user_id"].isin(few)],
    )
    habit = people.habits["habit_id"].iloc[0]

    def only(name: str) -> pd.DataFrame:
        table = some.table(name)
        return table[table["habit_id"] == habit]

    tables = ("habit_tracking", "adoptions", "modifications", "recommendations", "feedback")
    one_habit = some.replace(
        habits=some.habits[some.habits["habit_id"] == habit].assign(prerequisites=[[]]),
        users=some.users.assign(existing_habits=[[] for _ in range(len(some.users))]),
        **{name: only(name) for name in tables},
    )
    first = some.users["user_id"].iloc[0]
    one_user = some.replace(
        users=some.users.iloc[:1],
        **{name: some.table(name)[some.table(name)["user_id"] == first] for name in (*tables, "sessions", "consents")},
    )
    return {
        "one habit": one_habit,
        "one user": one_user,
        "no interactions": Dataset(users=some.users.assign(existing_habits=None), habits=some.habits),
        "no recommendations": some.replace(recommendations=some.recommendations.iloc[:0]),
        "infinite minutes": some.replace(
            habits=some.habits.assign(minutes=np.inf, difficulty=np.nan),
            users=some.users.assign(time_commitment=np.inf, age=np.nan),
        ),
        "imported tracker": imported_tracker(),
        "nothing at all": Dataset(),
        "no habits": Dataset(users=some.users.assign(existing_habits=None)),
        "nobody": some.replace(
            **{name: some.table(name).iloc[:0] for name in ("users", *tables, "sessions", "consents")}
        ),
    }
