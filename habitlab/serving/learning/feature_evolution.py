"""Which features a model needs: kept, dropped or added by what they do on people it never learnt from.

Importance is what shuffling a feature among held-out people costs in log loss (Breiman 2001, Machine Learning 45:5;
Fisher et al. 2019, JMLR 20:177). The importances that boosted trees tell of themselves are of the data they learnt
from, and favour features of many values: noise looks useful there. Every person is held out once, and the whole is done
again with other cuts: a feature is kept where the interval by person lies above 0, also in most refits, and dropped
only where what it is correlated with is not needed either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from habitlab.dataset import Dataset
from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import Floats
from habitlab.features.days import Day

FOLDS, REFITS, SHUFFLES = 4, 3, 3
TWINS = 0.8
"""Rank correlation from which on features are shuffled together: of twins each alone seems needless."""
STABLE = 0.5
"""Share of refits in which a feature has to be needed to be kept."""

Fit = Callable[[Floats, npt.NDArray[np.int64], int], Any]
"""Takes features (n, m), outcomes (n,) and a seed; gives something with `predict_proba`."""


def boosting(features: Floats, outcome: npt.NDArray[np.int64], seed: int) -> Any:
    """Fit the trees of the success model, without its calibration."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    from habitlab.models.success import _BOOSTING

    with threadpool_limits(limits=1, user_api="openmp"):
        return HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=seed, **_BOOSTING).fit(
            features, outcome
        )


def success_data(dataset: Dataset, until: Day | None = None) -> tuple[pd.DataFrame, npt.NDArray[np.int64], npt.NDArray]:
    """Return features (pairs, names), success and user (pairs,) of what the success model learns from.

    `habit_success` is left out: it is made of the labels of those that a fit learns from.
    """
    from habitlab.models.pairs import NAMES, label_pairs

    pairs = label_pairs(dataset, until)
    features = pd.DataFrame(pairs.columns.T, columns=list(NAMES)).drop(columns="habit_success")
    return features, pairs.success, pairs.user


def evolve(
    features: pd.DataFrame,
    outcome: npt.ArrayLike,
    user: npt.ArrayLike,
    *,
    candidates: Sequence[str] = (),
    fit: Fit = boosting,
    folds: int = FOLDS,
    refits: int = REFITS,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Say of every feature whether to keep or drop it, and of every candidate whether to add it.

    Parameters
    ----------
    features
        Numbers (n, m), NaN where missing; `candidates` are those of its columns that are not in use yet.
    outcome, user
        0 or 1, and whose row it is (n,). Nobody is learnt from and held out at once.
    fit
        How a model is fitted; what it gives has `predict_proba`.
    refits
        How often all is done with other cuts and seeds.

    Returns
    -------
    DataFrame
        feature, group (number of the twins it is shuffled with), importance (rise of the log loss of held-out rows,
        mean over the refits), ci_low, ci_high (by user, of that mean), needed (share of the refits in which the
        interval lies above 0), verdict: keep or drop, add or leave out. Sorted by importance; that of a constant is 0.

    Raises
    ------
    ValueError
        Lengths differ, an outcome is neither 0 nor 1 or always the same, or users are fewer than folds.
    """
    y, who = np.asarray(outcome, dtype=np.int64), pd.factorize(np.asarray(user))[0]
    if not len(features) == len(y) == len(who) or not np.isin(y, (0, 1)).all() or np.ptp(y) == 0:
        raise ValueError("features, outcome and user have one entry a row, and outcomes are 0 and 1, both of them")
    if who.max() + 1 < folds:
        raise ValueError(f"{who.max() + 1} users cannot be held out in {folds} parts")
    strangers = set(candidates) - set(features.columns)
    if strangers:
        raise ValueError(f"candidates are columns of the features; {', '.join(sorted(strangers))} are not")
    x = features.to_numpy(dtype=float, na_value=np.nan)
    group = twins(features)
    cost = np.stack([_costs(x, y, who, group, fit, folds, [seed, each]) for each in range(refits)])
    of_each = [_intervals(each, who, level) for each in cost]
    importance, low, high = _intervals(cost.mean(axis=0), who, level)
    needed = np.mean([each[1] > 0 for each in of_each], axis=0)
    wanted = (low > 0) & (needed >= STABLE)
    new = features.columns.isin(list(candidates))
    verdict = np.where(new, np.where(wanted[group], "add", "leave out"), np.where(wanted[group], "keep", "drop"))
    frame = pd.DataFrame(
        {
            "feature": features.columns,
            "group": group,
            "importance": importance[group],
            "ci_low": low[group],
            "ci_high": high[group],
            "needed": needed[group],
            "verdict": verdict,
        }
    )
    return frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def twins(features: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Group of each feature (m,): those linked by rank correlations of at least `TWINS`, either way, are one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        close = features.astype(float).rank().corr().abs().fillna(0.0).to_numpy() >= TWINS
    return sparse.csgraph.connected_components(sparse.csr_array(close), directed=False)[1].astype(np.int64)


def _costs(
    x: Floats,
    y: npt.NDArray[np.int64],
    who: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    fit: Fit,
    folds: int,
    seed: list[int],
) -> Floats:
    """Rise of each row's log loss when a group of features is shuffled among the held-out rows (rows, groups)."""
    generator = np.random.default_rng(seed)
    fold = generator.permutation(np.arange(who.max() + 1) % folds)[who]
    cost = np.zeros((len(y), group.max() + 1))
    for held in range(folds):
        out = fold == held
        model = fit(x[~out], y[~out], int(generator.integers(2**31)))
        base = _loss(model, x[out], y[out])
        for each in range(group.max() + 1):
            columns = np.flatnonzero(group == each)
            for _ in range(SHUFFLES):
                shuffled = x[out]
                shuffled[:, columns] = shuffled[generator.permutation(len(shuffled))][:, columns]
                cost[out, each] += (_loss(model, shuffled, y[out]) - base) / SHUFFLES
    return cost


def _loss(model: Any, x: Floats, y: npt.NDArray[np.int64]) -> Floats:
    chance = np.clip(model.predict_proba(x)[:, 1], 1e-6, 1 - 1e-6)
    return -np.where(y == 1, np.log(chance), np.log1p(-chance))


def _intervals(cost: Floats, who: npt.NDArray[np.int64], level: float) -> tuple[Floats, Floats, Floats]:
    """Mean of each column with a t interval clustered by user (three times (groups,))."""
    sums = estimates.cluster_sums(who, np.ones(len(who)), *cost.T)
    users, mean = len(sums), cost.mean(axis=0)
    away = sums[:, 1:] - mean * sums[:, :1]
    error = np.sqrt(users / max(users - 1, 1) * (away**2).sum(axis=0)) / len(who)
    half = stats.t.ppf((1 + level) / 2, users - 1) * error
    return mean, mean - half, mean + half
