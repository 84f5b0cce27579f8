"""Models side by side: the same users, the same lists' length, the same habits left out, and intervals by user."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.dataset import Dataset
from habitlab.evaluation import metrics
from habitlab.evaluation.estimates import Floats, Resampled
from habitlab.evaluation.ranked_lists import blocks, check_k
from habitlab.evaluation.splits import Split
from habitlab.features.days import Day
from habitlab.models.interactions import Interactions
from habitlab.models.ranking import top_k

_BLOCK = 1024  # users scored at once
_DRAWS = 16  # resamples a thread holds at once: with 100,000 users 13 MB
_THREADS = 2
_ACCURACY = ("precision", "recall", "capped_recall", "hit_rate", "average_precision", "reciprocal_rank", "ndcg")


class Scorer(Protocol):
    """What a model has to do to be compared; `habit_ids_`, set by `fit`, names the columns of its scores."""

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Learn from what happened before `until`."""
        ...

    def score(self, user_ids: list[str]) -> Floats:
        """Score every habit for these users, (users, habits)."""
        ...


def compare(
    models: Mapping[str, Scorer],
    dataset: Dataset,
    split: Split,
    k: int = 10,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every metric at k of every model: model, metric, estimate, ci_low, ci_high, n, a row each.

    An estimate is the mean over the n users for whom the metric is defined; see `summarise`. What is of all lists
    together (`of_all_lists`) has no interval (NaN): drawing users again changes it for itself.
    For `models` see `recommend`; for differences between models `per_user` and `differences`.
    """
    lists = lists_of(models, split, k)
    summary = summarise(measure(lists, dataset, split, k), level=level, resamples=resamples, seed=seed)
    of_all = of_all_lists(lists, len(split.habit_ids), k).assign(ci_low=np.nan, ci_high=np.nan, n=len(split.user_ids))
    both = pd.concat([summary, of_all[summary.columns]], ignore_index=True)
    order = both["model"].map({name: place for place, name in enumerate(lists)})
    return both.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def lists_of(
    models: Mapping[str, Scorer], split: Split, k: int = 10, runtimes: dict[str, float] | None = None
) -> dict[str, npt.NDArray[np.int32]]:
    """`recommend` of every model, by name; `runtimes`, where given, takes down the seconds of each."""
    if not models or not isinstance(models, Mapping) or not all(hasattr(model, "score") for model in models.values()):
        raise ValueError("`models` holds models by name, such as {'popularity': Popularity()}, with `fit` and `score`")
    check_k(k)
    lists = {}
    for name, model in models.items():
        with timed(runtimes, f"listing, {name}"):
            lists[name] = recommend(name, model, split, k)
    return lists


@contextmanager
def timed(runtimes: dict[str, float] | None, name: str) -> Iterator[None]:
    """Take down under `name` how many seconds the block takes, where there is something to write on."""
    started = time.perf_counter()
    yield
    if runtimes is not None:
        runtimes[name] = time.perf_counter() - started


def recommend(name: str, model: Scorer, split: Split, k: int) -> npt.NDArray[np.int32]:
    """Top k of each of the split's users, (users, k), -1 where nothing is left; what they had before is left out.

    A model without `habit_ids_` is not fitted yet: a copy of it is fitted to the split's past. One that has them is
    taken as it is; that it has not seen the split's future is up to who fitted it. Habits that it does not score are
    not recommended, those that the split does not know are left out. Raises ValueError for scores of another shape or
    NaN.
    """
    if not hasattr(model, "habit_ids_"):
        model = deepcopy(model).fit(split.train, until=split.until)
    habits = pd.Index(getattr(model, "habit_ids_", split.habit_ids))
    place = habits.get_indexer(pd.Index(split.habit_ids))
    lists = np.empty((len(split.user_ids), k), dtype=np.int32)
    for here in blocks(len(lists), _BLOCK):
        users = split.user_ids[here].tolist()
        try:
            scores = np.asarray(model.score(users), dtype=float)
        except (TypeError, ValueError) as error:
            raise ValueError(f"model {name!r} gives scores that are no numbers: {error}") from error
        if scores.shape != (len(users), len(habits)):
            raise ValueError(
                f"model {name!r} gives scores of shape {scores.shape} for {len(users)} users and {len(habits)} habits"
            )
        wanted = np.where(place >= 0, scores[:, place], -np.inf)
        if np.isnan(wanted).any():
            raise ValueError(f"model {name!r} gives NaN scores: {np.isnan(wanted).sum():,} in {len(users)} users")
        lists[here] = top_k(wanted, k, split.seen[here])[0]
    return lists


def per_user(models: Mapping[str, Scorer], dataset: Dataset, split: Split, k: int = 10) -> pd.DataFrame:
    """Every metric of every user: index user_id, columns (model, metric), NaN where undefined.

    Rows of some users (a mask by evidence, gender or age) go to `summarise` and `differences` like all.
    """
    return measure(lists_of(models, split, k), dataset, split, k)


def summarise(values: pd.DataFrame, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean of each column of `per_user` with its interval by user: model, metric, estimate, ci_low, ci_high, n.

    Users are drawn again (BCa, see `estimates.Resampled`), the same ones for all columns; n counts those for whom the
    metric is defined. Too few of them, or all alike: no interval (NaN).
    """
    rows = [
        (*key, *_interval(resampled, level), resampled.n)
        for key, resampled in zip(values.columns, means(values.to_numpy(), resamples=resamples, seed=seed), strict=True)
    ]
    return pd.DataFrame(rows, columns=["model", "metric", "estimate", "ci_low", "ci_high", "n"])


def differences(
    values: pd.DataFrame, reference: str, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Each model less the `reference`, user by user: model, reference, metric, estimate, ci_low, ci_high, p_value, n.

    Paired: what makes a user hard for both models falls out. Users count for whom the metric is defined for both.
    """
    names = values.columns.get_level_values(0)
    if reference not in names:
        raise ValueError(f"no model {reference!r}; there are {', '.join(dict.fromkeys(names))}")
    others = values.loc[:, names != reference]
    minus = values[reference].reindex(columns=others.columns.get_level_values(1))
    resampled = means(others.to_numpy() - minus.to_numpy(), resamples=resamples, seed=seed)
    rows = [
        (model, reference, metric, *_interval(difference, level), difference.p_value(), difference.n)
        for (model, metric), difference in zip(others.columns, resampled, strict=True)
    ]
    columns = ["model", "reference", "metric", "estimate", "ci_low", "ci_high", "p_value", "n"]
    return pd.DataFrame(rows, columns=columns)


def means(values: Floats, *, resamples: int = 2000, seed: int = 0) -> list[Resampled]:
    """Mean of each column (users, columns) over the users for whom it is not NaN, and on resamples of all users.

    What `estimates.resample` gives for ratios, but for many users: numbers of users are 32 random bits scaled to their
    range (biased by less than users / 2^32), and standard error and acceleration of a mean have a closed form.
    """
    users, columns = values.shape
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)
    number = defined.sum(axis=0)
    # Columns that are defined for the same users share a denominator; `np.unique` over columns takes a second.
    which, patterns = pd.factorize(np.array([column.tobytes() for column in defined.T], dtype=object))
    sums = np.hstack([filled, *(np.frombuffer(pattern, dtype=bool)[:, None] for pattern in patterns)])

    def drawn(here: slice) -> Floats:
        # Bits of their own for each block: the same numbers come out on however many threads.
        return _draw(np.random.SFC64([seed, here.start]), here.stop - here.start, users) @ sums

    with ThreadPoolExecutor(_THREADS) as threads:
        totals = np.concatenate([*threads.map(drawn, blocks(resamples, _DRAWS))])
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = totals[:, :columns] / totals[:, columns:][:, which]
        estimate = filled.sum(axis=0) / number
        away = np.where(defined, values - estimate, 0) / (number - 1)  # the mean less that without the user
        square = (away**2).sum(axis=0)
        error = np.sqrt((number - 1) / number * square)
        skewness = np.where(square > 0, (away**3).sum(axis=0) / (6 * square**1.5), 0)
    return [
        Resampled(estimate[[j]], replicates[:, [j]], error[[j]], skewness[[j]], int(number[j])) for j in range(columns)
    ]


def _draw(bits: np.random.SFC64, resamples: int, users: int) -> Floats:
    """How often each user is drawn, (resamples, users)."""
    counts = np.empty((resamples, users))
    for row in counts:
        number = bits.random_raw((users + 1) // 2).astype("<u8").view("<u4")[:users].astype(np.uint64)
        row[:] = np.bincount((number * np.uint64(users) >> np.uint64(32)).view(np.int64), minlength=users)
    return counts


def _interval(resampled: Resampled, level: float) -> tuple[float, float, float]:
    low, high = resampled.interval(level)
    return float(resampled.estimate[0]), float(low[0]), float(high[0])


def measure(lists: Mapping[str, npt.NDArray[np.int32]], dataset: Dataset, split: Split, k: int) -> pd.DataFrame:
    """`per_user` of lists that are there already, (users, k) of the split's habits by name of the model."""
    relevant, habits = split.relevant, dataset.habits.set_index("habit_id").loc[split.habit_ids]
    had = Interactions.read(split.train, split.until).ever
    people = max(int((np.diff(had.indptr) > 0).sum()), 1)
    popularity = np.asarray(had.sum(axis=0), dtype=float).ravel() / people
    vectors = attribute_vectors(habits)
    categories = habits["category"].to_numpy(dtype=object) if "category" in habits else np.full(len(habits), None)
    columns: dict[tuple[str, str], Floats] = {}
    for name, listed in lists.items():
        values = {
            **metrics.several_at_k(listed, relevant, k, _ACCURACY),
            "serendipity": metrics.serendipity_at_k(listed, relevant, popularity, k),
            "novelty": metrics.novelty(listed, popularity.clip(1 / people)),
        }
        if vectors.shape[1]:
            values["intra_list_diversity"] = metrics.intra_list_diversity(listed, vectors)
        if pd.notna(categories).any():
            values["category_coverage"] = metrics.category_coverage(listed, categories)
            values["miscalibration"] = metrics.miscalibration(listed, split.seen, categories)
        columns |= {(name, f"{metric}@{k}"): value for metric, value in values.items()}
    frame = pd.DataFrame(columns, index=pd.Index(split.user_ids, name="user_id"))
    return frame.rename_axis(columns=["model", "metric"])


def of_all_lists(lists: Mapping[str, npt.NDArray[np.int32]], items: int, k: int) -> pd.DataFrame:
    """What all lists together give the catalogue's `items`: model, metric, estimate.

    `catalogue_coverage`, `gini`, and `top_tenth_exposure`: share of all attention (`metrics.exposure`) that the tenth
    of the catalogue with the most of it gets; 0.1 where all get the same.
    """
    rows = []
    for name, listed in lists.items():
        attention = np.sort(metrics.exposure(listed, items))[::-1]
        rows += [
            (name, f"catalogue_coverage@{k}", metrics.catalogue_coverage(listed, items)),
            (name, f"gini@{k}", metrics.gini(listed, items)),
            (name, f"top_tenth_exposure@{k}", float(attention[: -(-items // 10)].sum())),
        ]
    return pd.DataFrame(rows, columns=["model", "metric", "estimate"])


def attribute_vectors(habits: pd.DataFrame) -> sparse.csr_array:
    """Habits as 0 and 1 of each category, kind of activity, part of the day and genre they have, (habits, values).

    It is what diversity is measured on, and no model's own space. Attributes that the table lacks are left out.
    """
    parts = [
        habits[column].reset_index(drop=True).explode().dropna().astype(str).add(f" ({column})")
        for column in ("category", "activity_type", "time_of_day", "genres")
        if column in habits
    ]
    held = pd.concat(parts) if parts else pd.Series(dtype=str)
    codes, names = pd.factorize(held)
    matrix = sparse.csr_array((np.ones(len(held)), (held.index.to_numpy(int), codes)), shape=(len(habits), len(names)))
    return (matrix > 0).astype(float)
