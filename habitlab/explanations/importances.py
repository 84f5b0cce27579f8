"""The overview's own explainer (its section 5.1): constant importances. A negative control, used for nothing else.

Its numbers have nothing to do with the score, so that its first reason is the same whatever moved a habit. Only what
would crash on the tables of HabitLab is read otherwise: lists are lists, and minutes stand for its labels of time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset.vocabulary import Activity, Category

Floats = npt.NDArray[np.float64]

IMPORTANCES = {"preference": 0.85, "category": 0.8, "age": 0.75, "success": 0.7, "time": 0.6}
LIKELY = 0.7
SHORT, MEDIUM = 10, 20  # minutes
MEDIUM_BUDGET, HIGH_BUDGET = 15, 30  # minutes a day that the overview's form calls medium and high


def constant_importances(users: pd.DataFrame, habits: pd.DataFrame, success: Floats) -> dict[str, Floats]:
    """Return part -> importance (users, habits) by the overview's rule: a constant where its condition holds, else 0.

    `success` is the probability to keep a habit, (users, habits).
    """
    age = users["age"].to_numpy(dtype=float)[:, None]
    budget = users["time_commitment"].to_numpy(dtype=float)[:, None]
    minutes = habits["minutes"].to_numpy(dtype=float)
    category = habits["category"].astype("str").map(lambda name: [name])
    holds = {
        "preference": _named(users["activity_preferences"], Activity) @ _named(habits["activity_type"], Activity).T > 0,
        "category": _named(users["improvement_areas"], Category) @ _named(category, Category).T > 0,
        "age": (age >= habits["min_age"].to_numpy(dtype=float)) & (age <= habits["max_age"].to_numpy(dtype=float)),
        "success": success > LIKELY,
        "time": (budget >= HIGH_BUDGET) | ((budget >= MEDIUM_BUDGET) & (minutes <= MEDIUM)) | (minutes <= SHORT),
    }
    return {part: IMPORTANCES[part] * holds[part] for part in IMPORTANCES}


def _named(lists: pd.Series, words: type[Category] | type[Activity]) -> Floats:
    return np.array([[w in named if isinstance(named, list) else False for w in words] for named in lists], dtype=float)
