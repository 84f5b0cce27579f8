"""What models give to groups: calibration by group, good recommendations by user, exposure by kind of item.

`user_exposure` makes an outcome for `fairness.audit`; the others are tables of their own. Intervals are by user.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, special, stats

from habitlab.evaluation import estimates, metrics
from habitlab.evaluation.ranked_lists import (
    Floats,
    Lists,
    blocks,
    found_blocks,
    ratio,
    read_lists,
    read_relevant,
    same_users,
    users_at_once,
)
from habitlab.models.reliability import BINS, FEWEST_OF_GROUP
from habitlab.models.success import logistic_covariance

HEAD, MIDDLE, TAIL = "head: top 20 %", "middle", "tail: bottom 20 %"
"""Bands of popularity, by number of items."""


def calibration(
    predicted: npt.ArrayLike,
    outcome: npt.ArrayLike,
    group: npt.ArrayLike,
    *,
    user: npt.ArrayLike | None = None,
    min_n: int = FEWEST_OF_GROUP,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Are probabilities as good for each group? `predicted` 0 to 1, `outcome` 0 or 1, `group`, `user` all (rows,).

    Columns: group, n (rows), users, predicted and observed (means), gap (predicted less observed) with gap_low and
    gap_high (BCa by user), slope with slope_low and slope_high (of the outcome on the predicted log-odds, Cox 1958: 1
    when calibrated, below 1 when predictions are too extreme; clustered by user), ece with ece_low and ece_high
    (expected calibration error over ten bins of equal size, those of all rows; BCa by user), ece_by_chance (what it is
    on average where predictions are right: an error is never negative, so a small group's is large), suppressed (fewer
    than `min_n` rows). Rows with any value missing are left out; what is undefined is NaN.

    Raises
    ------
    ValueError
        Lengths differ, a prediction is no probability, or an outcome is neither 0 nor 1.
    """
    from fairlearn.metrics import MetricFrame, count, mean_prediction

    chance, success = np.asarray(predicted, dtype=float), np.asarray(outcome, dtype=float)
    label = pd.Series(np.asarray(group, dtype=object))
    users = np.arange(len(chance)) if user is None else pd.factorize(np.asarray(user))[0]
    if not len(chance) == len(success) == len(label) == len(users):
        raise ValueError("predicted, outcome, group and user have one entry a row each; their lengths differ")
    held = np.isfinite(chance) & np.isfinite(success) & label.notna().to_numpy()
    chance, success, label, users = chance[held], success[held], label[held].astype("str"), users[held]
    if ((chance < 0) | (chance > 1)).any() or not np.isin(success, (0, 1)).all():
        raise ValueError("`predicted` holds probabilities, 0 to 1, and `outcome` 0 or 1")
    columns = ["group", "n", "users", "predicted", "observed", "gap", "gap_low", "gap_high", "slope", "slope_low"]
    columns += ["slope_high", "ece", "ece_low", "ece_high", "ece_by_chance", "suppressed"]
    if not len(chance):
        return pd.DataFrame(columns=columns)
    frame = MetricFrame(
        metrics={"n": count, "predicted": mean_prediction, "observed": lambda y, _: float(np.mean(y))},
        y_true=success,
        y_pred=chance,
        sensitive_features=label.rename("group"),
    )
    inner = np.quantile(chance, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(inner, chance, side="left")
    rows = []
    for name, means in frame.by_group.iterrows():
        here = (label == name).to_numpy()
        number = len(np.unique(users[here]))
        if means["n"] < min_n:
            rows.append((name, int(means["n"]), number, *[np.nan] * (len(columns) - 4), True))
            continue
        p, y = chance[here], success[here]
        errors = _errors(p, y, bins[here], users[here], level, resamples, seed)
        line = _slope(p, y, users[here], level)
        gap = (means["predicted"], means["observed"], *errors[0])
        rows.append((name, int(means["n"]), number, *gap, *line, *errors[1], _by_chance(p, bins[here]), False))
    return pd.DataFrame(rows, columns=columns)


def _errors(
    p: Floats, y: Floats, bins: npt.NDArray, users: npt.NDArray, level: float, resamples: int, seed: int
) -> list[tuple[float, float, float]]:
    """Gap and expected calibration error, each with its interval."""
    code = pd.factorize(users)[0]
    sums = np.zeros((code.max() + 1, BINS + 1))
    np.add.at(sums, (code, bins), p - y)
    sums[:, BINS] = np.bincount(code)

    def statistic(sums: Floats) -> Floats:
        off, n = sums[:, :BINS], sums[:, BINS:]
        return np.hstack([off.sum(axis=1, keepdims=True), np.abs(off).sum(axis=1, keepdims=True)]) / n

    drawn = estimates.resample(sums, statistic, resamples=resamples, seed=seed)
    low, high = drawn.interval(level)
    return list(zip(drawn.estimate.tolist(), low.tolist(), high.tolist(), strict=True))


def _by_chance(p: Floats, bins: npt.NDArray) -> float:
    """Mean calibration error of n outcomes drawn from their predictions: the mean of half-normals."""
    return float(np.sqrt(2 / np.pi * np.bincount(bins, p * (1 - p))).sum() / len(p))


def _slope(p: Floats, y: Floats, users: npt.NDArray, level: float) -> tuple[float, float, float]:
    """Slope of the outcome on the predicted log-odds with its interval by user; NaN where it cannot be told."""
    from sklearn.linear_model import LogisticRegression

    logit = special.logit(np.clip(p, 1e-6, 1 - 1e-6))
    if np.ptp(logit) < 1e-9 or np.ptp(y) == 0 or len(np.unique(users)) < estimates.FEWEST:
        return np.nan, np.nan, np.nan
    if logit[y == 1].min() >= logit[y == 0].max() or logit[y == 1].max() <= logit[y == 0].min():
        return np.nan, np.nan, np.nan  # told apart without error: the slope is endless
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=500).fit(logit[:, None], y)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    covariance = logistic_covariance(logit, y, pd.factorize(users)[0], slope, intercept)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(covariance[0, 0])
    return slope, float(slope - half), float(slope + half)


# Exposure


def user_exposure(recommended: Lists, good: npt.ArrayLike | sparse.csr_array) -> Floats:
    """Share of a list's attention that goes to good items, (users,); NaN for an empty list. An outcome for `audit`.

    `good` says which items are: bool (items,), or a sparse matrix (users, items) where a value above 0 is good for the
    user. A place at rank r gets 1 / log2(r + 1), as in `metrics.exposure`.

    >>> user_exposure(np.array([[0, 1], [1, -1]]), np.array([True, False])).round(3)
    array([0.613, 0.   ])
    """
    if sparse.issparse(good):
        matrix = read_relevant(good, "good")
        lists = same_users(read_lists(recommended, matrix.items), matrix)
        hits = found_blocks(lists, matrix, max(lists.shape[1], 1), gains=False)
    else:
        wanted = np.asarray(good)
        if wanted.ndim != 1 or wanted.dtype != bool:
            raise ValueError("`good` is true or false for each item, or a sparse matrix (users, items)")
        lists = read_lists(recommended, len(wanted))
        held = np.append(wanted, False)
        hits = ((here, held[lists[here]]) for here in blocks(len(lists), users_at_once(lists.shape[1])))
    attention = 1 / np.log2(np.arange(2, lists.shape[1] + 2))
    share = np.empty(len(lists))
    for here, hit in hits:
        share[here] = ratio(hit @ attention, (lists[here] >= 0) @ attention)
    return share


def item_exposure(
    recommended: Lists, kind: npt.ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Exposure of kinds of items, the providers' side: `kind` (items,) such as categories or `popularity_band`.

    Columns: kind, items, catalogue_share, exposure (share of all users' attention, `metrics.exposure`) with ci_low and
    ci_high (BCa by user), ratio (exposure / catalogue_share: 1 is a share like that of the catalogue). Items without a
    kind are a kind of their own, "none", so that shares add up to 1. For lists of one group of users, give their rows.
    """
    named = pd.Series(np.asarray(kind, dtype=object)).map(str, na_action="ignore").fillna("none")
    code, names = pd.factorize(named, sort=True)
    attention = np.bincount(code, metrics.exposure(recommended, len(code)), minlength=len(names))
    lists = np.asarray(recommended)
    sums = np.zeros((len(lists), len(names) + 1))
    held = np.append(code, len(names))  # the last is that of an empty place
    for place, discount in enumerate(1 / np.log2(np.arange(2, lists.shape[1] + 2))):
        sums[np.arange(len(lists)), held[lists[:, place]]] += discount
    drawn = estimates.resample(
        sums[:, :-1], lambda each: each / each.sum(axis=1, keepdims=True), resamples=resamples, seed=seed
    )
    low, high = drawn.interval(level)
    items = np.bincount(code, minlength=len(names))
    share = items / max(len(code), 1)
    columns = {"kind": names, "items": items, "catalogue_share": share, "exposure": attention}
    return pd.DataFrame({**columns, "ci_low": low, "ci_high": high, "ratio": attention / share})


def popularity_band(popularity: npt.ArrayLike) -> npt.NDArray:
    """Band of each item by how many users had it: `HEAD`, `MIDDLE`, `TAIL` (items,); equally popular ones share one.

    >>> popularity_band([9, 5, 5, 1, 0]).tolist()
    ['head: top 20 %', 'middle', 'middle', 'middle', 'tail: bottom 20 %']
    """
    values = np.asarray(popularity, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("`popularity` holds a finite number for each item")
    place = (stats.rankdata(values) - 0.5) / max(len(values), 1)
    return np.where(place > 0.8, HEAD, np.where(place < 0.2, TAIL, MIDDLE)).astype(object)
