"""The models that report 05 sets side by side, fitted to the past of a split; and MovieLens, the check from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.analyses import FEWEST
from habitlab.dataset.vocabulary import Purpose
from habitlab.evaluation import splits
from habitlab.evaluation.estimates import Floats
from habitlab.evaluation.leaderboard import Scorer, timed
from habitlab.evaluation.movielens import load_movielens
from habitlab.evaluation.splits import Split
from habitlab.models.baselines import AsWritten, Popularity, Random
from habitlab.models.collaborative import CollaborativeModel, Method
from habitlab.models.interactions import consenting, positions
from habitlab.recommender.recommend import Recommender

BLEND, POPULARITY = "blend", "popularity"
ALS_ABSENT = "needs the optional package implicit: pip install 'habitlab[als]'"
SOURCE = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
_MOVIES_LIKED_BY = 10


@dataclass(frozen=True)
class Neighbours:
    """People of like demography alone: the neighbours of a fitted collaborative model, and nobody's own history.

    `agreed` (users,) are those who allow the comparison; the others get popularity.
    """

    model: CollaborativeModel
    users: pd.DataFrame
    agreed: npt.NDArray[np.bool_]

    @property
    def habit_ids_(self) -> npt.NDArray[np.object_]:
        """Columns of the scores."""
        return self.model.habit_ids_

    def fit(self, dataset: Dataset, until: Any = None) -> Neighbours:
        """Learn nothing more."""
        return self

    def score(self, user_ids: Sequence[str]) -> Floats:
        """Score every habit for these users (users, habits)."""
        rows = positions(user_ids, self.model.user_ids_)
        return self.model.score_profiles(self.users.iloc[rows], self.agreed[rows])


def require_people(split: Split) -> int:
    """How many people took up something that can be found; raises `MissingColumn` for too few to judge by."""
    people = int((np.diff(split.relevant.indptr) > 0).sum())
    if people < FEWEST:
        when = "later" if split.until is None else f"from {split.until:%Y-%m-%d} on"
        raise MissingColumn(
            f"needs people who took up another habit {when}: {people} did, at least {FEWEST} are needed"
        )
    return people


def last_out(dataset: Dataset) -> Split:
    """`splits.leave_last_out`; raises `MissingColumn` where too few people adopted at two moments."""
    split = splits.leave_last_out(dataset)
    require_people(split)
    return split


def fitted(dataset: Dataset, split: Split, seed: int, runtimes: dict[str, float] | None = None) -> dict[str, Scorer]:
    """Every model and baseline, fitted to the split's past; ALS only where its package is installed.

    `dataset` is the whole one: it says who agreed to be compared with others, held-out users too. `runtimes`, where
    given, takes down the seconds of each fit; content, success and SVD are fitted as parts of the blend.
    """
    with timed(runtimes, f"fitting, {BLEND} with its parts"):
        recommender = Recommender(seed=seed).fit(split.train, split.until)
    svd = recommender.models_.similar_people
    agreed = consenting(dataset, Purpose.SIMILAR_USERS, split.until)
    models: dict[str, Any] = {
        BLEND: recommender,
        "collaborative, svd": svd,
        "collaborative, ease": CollaborativeModel("ease", seed=seed),
        "collaborative, als": CollaborativeModel("als", seed=seed),
        "neighbours": Neighbours(svd, split.train.users, agreed),
        "content": recommender.models_.content,
        "success": recommender.models_.success,
        POPULARITY: Popularity(),
        "as written": AsWritten(),
        "random": Random(seed),
    }
    if not has_als():
        del models["collaborative, als"]
    for name, model in models.items():
        if not hasattr(model, "habit_ids_"):
            with timed(runtimes, f"fitting, {name}"):
                model.fit(split.train, split.until)
    return models


def has_als() -> bool:
    """Whether the optional package of ALS is installed."""
    return find_spec("implicit") is not None


# An outside check


def movielens(folder: str | Path) -> tuple[Dataset, Split]:
    """MovieLens, films liked by at least ten, with each user's last film left out; `MissingColumn` where it is absent.

    A global temporal split leaves some twenty people here who were there before and went on.
    """
    try:
        dataset = load_movielens(folder)
    except FileNotFoundError:
        raise MissingColumn(
            f"needs MovieLens, which is not in {Path(folder).name}: unpack {SOURCE} there; see data/README.md"
        ) from None
    number = dataset.adoptions.groupby("habit_id").size()
    kept = number.index[number >= _MOVIES_LIKED_BY]
    tables = {name: dataset.table(name) for name in ("habits", "adoptions")}
    dataset = dataset.replace(**{name: frame[frame["habit_id"].isin(kept)] for name, frame in tables.items()})
    return dataset, last_out(dataset)


def models_of_movielens(split: Split, seed: int) -> dict[str, Scorer]:
    """Models that need interactions only, fitted."""
    methods: tuple[Method, ...] = ("svd", "ease", "als") if has_als() else ("svd", "ease")
    models: dict[str, Any] = {f"collaborative, {method}": CollaborativeModel(method, seed=seed) for method in methods}
    models |= {POPULARITY: Popularity(), "random": Random(seed)}
    return {name: model.fit(split.train, split.until) for name, model in models.items()}
