"""Models that score every habit for every user: content, collaborative, success, and what they have to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.features.days import Day

Floats: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.object_]


class Model(Protocol):
    """What a recommender asks of a model; scores lie in [0, 1], and 0.5 or so is a habit about which nothing speaks.

    `habit_ids_` (habits,) stands in the order of the rows of `dataset.habits`, `user_ids_` (users,) in that of
    `dataset.users`; both are set by `fit`.
    """

    habit_ids_: Ids
    user_ids_: Ids

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Learn from what happened strictly before the local day `until`; None is everything."""
        ...

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits); None is all users. Unknown ids: ValueError."""
        ...

    def score_profiles(self, users: pd.DataFrame) -> Floats:
        """Score every habit for people without any history (n, habits), from columns of the table `users`."""
        ...
