"""Small worlds by hand, and models that say what they are told."""

from typing import ClassVar

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.recommender.candidates import Candidates
from habitlab.recommender.context import LONG_AGO, Group
from habitlab.recommender.recommend import Models, Recommender


def habits(count: int = 6, **columns) -> pd.DataFrame:
    """Harmless habits h1, h2, ... in two categories; any column can be set."""
    return pd.DataFrame(
        {
            "habit_id": [f"h{i}" for i in range(1, count + 1)],
            "name_en": [f"Habit number {i}" for i in range(1, count + 1)],
            "category": (["learning", "career"] * count)[:count],
            "minutes": 10.0,
            "time_of_day": "any",
        }
        | columns
    )


def candidates(count: int = 6, **columns) -> Candidates:
    return Candidates.of(habits(count, **columns))


def person(count: int = 6, **known) -> Group:
    """Somebody of 40 with half an hour a day and without any history."""
    usual = {
        "age": 40.0,
        "budget": 30.0,
        "held": np.zeros(count, dtype=bool),
        "rejected": np.full(count, LONG_AGO),
        "given_up": np.full(count, LONG_AGO),
        "weekdays": np.zeros(7),
    }
    shown = {name: known.pop(name, np.zeros(0, dtype=np.int64)) for name in ("shown", "shown_day")}
    alone = {name: np.asarray(value)[None] for name, value in (usual | known).items()}
    return Group(**alone, **shown, shown_to=np.zeros_like(shown["shown"]))


class Told:
    """A model whose score of a habit is told beforehand, the same for everybody."""

    weights_: ClassVar = {"category": 1.0}

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=float)

    def fit(self, dataset, until=None):
        assert len(self.scores) == len(dataset.habits)
        return self

    def score(self, users=None):
        return np.tile(self.scores, (len(users), 1))

    def score_profiles(self, users, consent=None):
        return self.score(users)

    def similarities(self, users):
        return {"category": self.score(users)}


def recommender(table: pd.DataFrame, users: pd.DataFrame | None = None, scores=None, **settings) -> Recommender:
    """Fit on these habits and users, with models that prefer the first habit, then the second ..."""
    scores = np.linspace(0.9, 0.1, len(table)) if scores is None else scores
    told = Models(Told(scores), Told(scores), Told(scores))
    people = pd.DataFrame({"user_id": ["ann"], "age": [40]}) if users is None else users
    dataset = Dataset(users=people, habits=table, metadata={"simulated": True})
    return Recommender(models=told, **settings).fit(dataset)
