"""The score that HabitLab's blend is tuned for, and what tuning is worth to people who were never looked at.

Nested in time and in people. Some people are set aside by lot. Of the others, later habits within two windows of days
are what points are judged by (validation), by models that know nothing from the window's first day on. What the people
set aside take up after all windows is looked at once, for the point that was chosen (`untouched`).

Models are fitted once a window, those of similar people once for each number of factors; weights and diversity only
blend and rank anew. So 50 calls cost about as much as a few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.analyses import FEWEST
from habitlab.evaluation import cold_start, estimates, leaderboard, metrics, splits
from habitlab.evaluation.estimates import Floats
from habitlab.evaluation.splits import Split
from habitlab.evaluation.tuning import Search, search
from habitlab.evaluation.tuning.search_space import Point, Space
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.interactions import days_of
from habitlab.models.ranking import top_k
from habitlab.recommender import context, diversity
from habitlab.recommender.blend import Blend, overlap, total
from habitlab.recommender.candidates import with_catalogue
from habitlab.recommender.recommend import Recommender

WEIGHTS = {"content": (0.2, 0.8), "similar_people": (0.1, 0.6), "success": (0.1, 0.5)}
OVERVIEW = Space({"diversity": (0.3, 0.7), "factors": (10, 50)}, WEIGHTS)
"""The ranges of the system's description (6.2), its three weights held to add up to 1."""

OPENED = Space({"diversity": (0.0, 0.7), "factors": (10, 50)}, WEIGHTS)
"""The same with less diversity allowed, so that the usual parameters lie within."""

WORDS = {
    "content": "weight of content",
    "similar_people": "weight of similar people",
    "success": "weight of success",
    "diversity": "diversity",
    "factors": "factors",
}

MANY_PEOPLE = 1000


def usual_budget(dataset: Dataset) -> tuple[int, int]:
    """Calls of a search, and searches with other seeds: 50 and 4, but of few people 12 and 2.

    Their scores are mostly noise, and more calls would find the best noise.
    """
    return (50, 4) if len(dataset.users) >= MANY_PEOPLE else (12, 2)


def usual_point(recommender: Recommender | None = None) -> Point:
    """The point at which a recommender (the usual one) stands."""
    recommender = recommender or Recommender()
    blend, factors = recommender.blend, CollaborativeModel().factors
    weights: Point = {name: getattr(blend, name) / (1 - blend.preference) for name in WEIGHTS}
    return {**weights, "diversity": recommender.diversity, "factors": factors}


def blend_of(point: Mapping[str, float], base: Blend | None = None) -> Blend:
    """The blend at a point: its weights share what preference leaves, and of content the same share moves as usual."""
    base = base or Blend()
    weights = {name: (1 - base.preference) * float(point[name]) for name in WEIGHTS}
    weights["content"] = 1 - base.preference - weights["similar_people"] - weights["success"]
    moved = weights["content"] / base.content
    return replace(
        base, **weights, to_similar_people=base.to_similar_people * moved, to_success=base.to_success * moved
    )


# Who and what is looked at when


@dataclass(frozen=True, eq=False)
class Protocol:
    """Windows to choose by, in order, and the untouched rest: later days of people who are in no window."""

    validation: tuple[Split, ...]
    test: Split


def protocol(
    dataset: Dataset, *, held_out: float = 0.5, shares: Sequence[float] = (0.1, 0.3, 0.5), seed: int = 0
) -> Protocol:
    """Set people aside by lot, and cut time at the days when these shares of the later adoptions are over.

    Later is any adoption after a person's first day with one. A window lies between two days; the test begins on the
    last. Models of a window learn from the people in it, those of the test from everybody's past.

    Raises `MissingColumn` where too few people adopt later, here or there.
    """
    days = _days(dataset, shares)
    generator = np.random.default_rng(seed)
    users = dataset.users["user_id"].to_numpy(dtype=object)
    aside = set(users[generator.permutation(len(users))[: round(held_out * len(users))]])
    looked_at = dataset.without(aside)
    try:
        windows = tuple(_judged(splits.temporal(splits.before(looked_at, end), start)) for start, end in pairwise(days))
        test = _judged(splits.temporal(dataset, days[-1]), aside)
    except ValueError as error:
        raise MissingColumn(f"needs people who are there before others adopt: {error}") from error
    few = min(len(split.user_ids) for split in (*windows, test))
    if few < FEWEST:
        raise MissingColumn(
            f"needs people who take up habits later, in each window and after it: {few} do, {FEWEST} are needed"
        )
    return Protocol(windows, test)


def _days(dataset: Dataset, shares: Sequence[float]) -> list[pd.Timestamp]:
    day = pd.Series(days_of(dataset, "adoptions", "adopted_at"))
    first = day.groupby(dataset.adoptions["user_id"].to_numpy()).transform("min")
    later = np.sort(day[(day > first).to_numpy()].to_numpy())
    if len(later) < FEWEST:
        raise MissingColumn(f"needs habits adopted later than on a person's first day: there are {len(later)}")
    days = [pd.Timestamp(later[int(share * len(later))]) for share in shares]
    if len(set(days)) < len(days):
        raise MissingColumn("needs adoptions on more days: too many came on one")
    return days


def _judged(split: Split, people: set[str] | None = None) -> Split:
    """Only people with something to be found, and of `people` only."""
    rows = np.diff(split.relevant.indptr) > 0
    if people is not None:
        rows &= pd.Index(split.user_ids).isin(people)
    return replace(split, relevant=split.relevant[rows], seen=split.seen[rows], user_ids=split.user_ids[rows])


# From a point to lists


@dataclass(eq=False)
class Window:
    """The models of a split, fitted to its past, and what they say of its users; k habits are listed."""

    split: Split
    k: int = 10
    seed: int = 0
    _similar: dict[int, Floats] = field(default_factory=dict, repr=False)

    @cached_property
    def _usual(self) -> Recommender:
        return Recommender(seed=self.seed).fit(self.split.train, self.split.until)

    @cached_property
    def _place(self) -> npt.NDArray[np.intp]:
        return pd.Index(self._usual.habit_ids_).get_indexer(pd.Index(self.split.habit_ids))

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        """What no parameter changes: (users, habits) each, evidence (users,)."""
        usual, ids = self._usual, self.split.user_ids.tolist()
        rows, people, habits = usual.rows(ids), usual.people_, usual.candidates_
        parts = {
            "content": usual.models_.content.score(ids),
            "success": usual.models_.success.score(ids),
            "preference": overlap(people.liked[rows], habits.activities),
            "misfit": context.misfit(people.age[rows], habits),
        }
        return {name: part[:, self._place] for name, part in parts.items()} | {"evidence": people.evidence[rows]}

    def _similar_people(self, factors: int) -> Floats:
        if factors not in self._similar:
            model = CollaborativeModel(factors=factors, seed=self.seed)
            model.fit(with_catalogue(self.split.train), self.split.until)
            self._similar[factors] = model.score(self.split.user_ids.tolist())[:, self._place]
        return self._similar[factors]

    def scores(self, point: Mapping[str, float]) -> Floats:
        """Scores of the blend at a point (users, habits), as `Recommender.score` gives them."""
        fixed = dict(self._fixed)
        parts = blend_of(point).contributions(
            {"content": fixed.pop("content")},
            {"content": 1.0},
            similar_people=self._similar_people(int(point["factors"])),
            **fixed,
        )
        return total(parts)

    def lists(self, point: Mapping[str, float]) -> npt.NDArray[np.int32]:
        """Varied list of each user (users, k); what they had before is left out, and nothing else."""
        items, best = top_k(self.scores(point), len(self.split.habit_ids), self.split.seen)
        place, candidates = self._place, self._usual.candidates_
        return diversity.rerank(
            items,
            best,
            self._usual.alike_[np.ix_(place, place)],
            candidates.category[place],
            k=self.k,
            diversity=float(point["diversity"]),
        )

    @cached_property
    def vectors(self) -> Any:
        """Attributes of habits, which diversity is measured on."""
        habits = with_catalogue(self.split.train).habits.set_index("habit_id").loc[self.split.habit_ids]
        return leaderboard.attribute_vectors(habits)

    def judge(self, point: Mapping[str, float]) -> dict[str, Floats]:
        """Of each user's list (users,): ndcg, diversity, and chance: the mean chance to keep what is listed."""
        lists = self.lists(point)
        chance = np.take_along_axis(self._fixed["success"], np.maximum(lists, 0), axis=1)
        return {
            "ndcg": metrics.ndcg_at_k(lists, self.split.relevant, self.k),
            "diversity": metrics.intra_list_diversity(lists, self.vectors),
            "chance": np.where(lists >= 0, chance, 0.0).sum(axis=1) / np.maximum((lists >= 0).sum(axis=1), 1),
        }


@dataclass(eq=False)
class BlendObjective:
    """Mean NDCG@k over people and windows, with diversity of lists, chance to keep and NDCG by window beside it."""

    windows: Sequence[Window]

    @classmethod
    def of(cls, splits: Sequence[Split], *, k: int = 10, seed: int = 0) -> BlendObjective:
        """Make one of splits."""
        return cls([Window(split, k, seed) for split in splits])

    def __call__(self, point: Point) -> tuple[float, dict[str, float]]:
        """Score and measures of a point."""
        judged = [window.judge(point) for window in self.windows]
        ndcg, varied, chance = (np.concatenate([one[name] for one in judged]) for name in judged[0])
        by_window = {f"window {number}": float(one["ndcg"].mean()) for number, one in enumerate(judged, 1)}
        means = {"list_diversity": float(np.nanmean(varied)), "chance": float(chance.mean())}
        return float(ndcg.mean()), means | by_window

    def difference(self, point: Point, other: Point, **resampling: Any) -> estimates.Resampled:
        """Score of a point less that of another, paired, people drawn again."""
        ends = [np.concatenate([window.judge(one)["ndcg"] for window in self.windows]) for one in (point, other)]
        users = np.concatenate([window.split.user_ids for window in self.windows])
        return estimates.ratio(ends[0] - ends[1], np.ones(len(users)), users, **resampling)

    def level(self, point: Point, **resampling: Any) -> estimates.Resampled:
        """Score of a point, people drawn again."""
        ndcg = np.concatenate([window.judge(point)["ndcg"] for window in self.windows])
        users = np.concatenate([window.split.user_ids for window in self.windows])
        return estimates.ratio(ndcg, np.ones(len(users)), users, **resampling)


def untouched(
    dataset: Dataset, test: Split, points: Mapping[str, Point], *, k: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Judge the chosen points on the people and days set aside, once: index user_id, columns (model, metric).

    Metrics are those of `leaderboard.per_user`, and on simulated data the true chances of `cold_start.true_chances`.
    """
    window = Window(test, k, seed)
    lists = {name: window.lists(point) for name, point in points.items()}
    values = leaderboard.measure(lists, with_catalogue(dataset), test, k)
    for chance, true in cold_start.true_chances(dataset, test.user_ids.tolist()).items():
        for name, listed in lists.items():
            values[name, chance] = np.take_along_axis(true, np.maximum(listed, 0), axis=1).mean(axis=1).round(12)
    return values


# The whole of it


@dataclass(frozen=True, eq=False)
class Study:
    """All searches of a dataset: Bayesian ones in `OPENED`, as many random ones, and a Bayesian one in `OVERVIEW`.

    Where the data do not allow any, `reason` says why, and there is nothing else.
    """

    dataset: Dataset
    reason: str = ""
    test: Split | None = None
    objective: BlendObjective = field(default_factory=lambda: BlendObjective(()))
    bayesian: tuple[Search, ...] = ()
    random: tuple[Search, ...] = ()
    overview: tuple[Search, ...] = ()

    def points(self) -> dict[str, Point]:
        """The usual point, and the best of each kind of search by its score in the windows."""
        best = {"tuned": self.bayesian, "random search": self.random, "tuned, described ranges": self.overview}
        return {"usual": usual_point()} | {
            name: max((one.best for one in searches), key=lambda trial: trial.value).point
            for name, searches in best.items()
        }


def study(
    dataset: Dataset, *, calls: int | None = None, searches: int | None = None, held_out: float = 0.5, seed: int = 0
) -> Study:
    """Search with `searches` seeds from `seed` on, `calls` calls each (None: `usual_budget`). Nobody aside is judged.

    Where the data do not allow it (see `protocol`), the study only says why.
    """
    usual = usual_budget(dataset)
    calls, searches = usual[0] if calls is None else calls, usual[1] if searches is None else searches
    try:
        plan = protocol(dataset, held_out=held_out, seed=seed)
    except MissingColumn as lack:
        return Study(dataset, reason=str(lack))
    objective, seeds = BlendObjective.of(plan.validation, seed=seed), range(seed, seed + searches)
    return Study(
        dataset,
        test=plan.test,
        objective=objective,
        bayesian=tuple(search(objective, OPENED, calls=calls, seed=one) for one in seeds),
        random=tuple(search(objective, OPENED, calls=calls, seed=one, method="random") for one in seeds),
        overview=(search(objective, OVERVIEW, calls=calls, seed=seed),),
    )
