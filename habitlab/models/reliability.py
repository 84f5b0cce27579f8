"""How far the success model can be believed: against the base rate, logistic regression and, if known, the truth.

Each prediction is made by a model that has seen neither that user nor, with the temporal split, anything of that time:
users are cut into folds, and a fold's pairs adopted from the day `cut` on are predicted from pairs of the other users
whose outcome was known by then. Intervals are by user (percentiles of a cluster bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from habitlab.dataset import Dataset
from habitlab.dataset.derived import age_band
from habitlab.features.days import Day
from habitlab.models import Floats
from habitlab.models.pairs import NAMES, WINDOW, LabelledPairs, label_pairs
from habitlab.models.success import (
    FEWEST_PAIRS,
    Bools,
    Fitted,
    encoded,
    logistic_covariance,
    three_ways,
    too_few,
    train,
)

Split = Literal["temporal", "grouped"]

MODEL, PLAIN, ISOTONIC, LOGISTIC, BASE, TRUTH = (
    "success model", "not calibrated", "isotonic", "logistic regression", "base rate", "truth",
)  # fmt: skip
BINS = 10
FEWEST_OF_GROUP = 100
"""Pairs below which the calibration of a group is not judged."""

_DEFINED = 1e-6  # probabilities are kept so far from 0 and 1
_RESAMPLES_AT_A_TIME = 50


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What held-out predictions are worth.

    metrics: model, metric, estimate, ci_low, ci_high, level, n (pairs), users. Metrics: log_loss, brier, auc,
    average_precision; ece (expected calibration error over ten bins of equal size), slope and intercept (of the outcome
    on the predicted log-odds, 1 and 0 when calibrated; interval clustered by user); squared_error_to_truth.
    differences: the success model less another one in log_loss, brier and auc, paired.
    reliability: predicted and observed share by bin of the success model. groups: ece and slope by gender and age band
    (NaN below 100 pairs). predictions: a row for each held-out pair.
    split, cut (first day of the test, NaT if grouped), base_rate (of the test) and note say what was done.
    """

    metrics: pd.DataFrame
    differences: pd.DataFrame
    reliability: pd.DataFrame
    groups: pd.DataFrame
    predictions: pd.DataFrame
    split: Split
    cut: pd.Timestamp
    base_rate: float
    note: str


def evaluate(
    dataset: Dataset,
    until: Day | None = None,
    *,
    split: Split = "temporal",
    cut: Day | None = None,
    folds: int = 5,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Predict held-out pairs of a dataset and hold the predictions against what happened.

    `split`: "temporal" (later pairs of other users) or "grouped" (other users, any time). `cut`: first day of the test,
    by default the day by which the outcome of half of the pairs was known. Where too few pairs lie on either side of
    it, the split is grouped, and `note` says so.

    Raises
    ------
    ValueError
        There are too few pairs for any split, or a parameter is out of range.
    """
    if split not in ("temporal", "grouped"):
        raise ValueError(f"split is 'temporal' or 'grouped'; got {split!r}")
    if folds < 2 or resamples < 2 or not 0 < level < 1:
        raise ValueError("folds and resamples are at least 2, and level is a share between 0 and 1")
    pairs = label_pairs(dataset, until)
    if reason := too_few(pairs):
        raise ValueError(f"the success model cannot be evaluated: {reason}")
    day = pairs.table["day"].to_numpy()
    first = int(np.median(day)) + WINDOW[1] if cut is None else int(np.datetime64(pd.Timestamp(cut), "D").astype(int))
    before, after, note = day + WINDOW[1] <= first, day >= first, ""
    if split == "temporal":
        reason = too_few(pairs, before)
        if not reason and after.sum() < FEWEST_PAIRS:
            reason = f"{after.sum()} pairs were adopted later, at least {FEWEST_PAIRS} are needed"
        if reason:
            note = (
                f"split by user only: before and from {np.datetime64(first, 'D')} on there are too few pairs ({reason})"
            )
            split = "grouped"
    if split == "grouped":
        before = after = np.ones(len(pairs), dtype=bool)
    predicted = _predict(pairs, before, after, folds, seed)
    predicted[BASE] = np.full(len(pairs), pairs.success[before].mean())
    truth = true_probabilities(dataset, pairs.table)
    if truth is not None:
        predicted[TRUTH] = truth
    held = np.flatnonzero(after & np.isfinite(np.stack(list(predicted.values()))).all(axis=0))
    predicted = {name: np.clip(values[held], _DEFINED, 1 - _DEFINED) for name, values in predicted.items()}
    success, user = pairs.success[held], pd.factorize(pairs.user[held])[0]
    metrics, differences = _compare(predicted, success, user, resamples, level, seed)
    chance = predicted[MODEL]
    table = pairs.table.iloc[held]
    return Evaluation(
        metrics=metrics,
        differences=differences,
        reliability=_bins(chance, success),
        groups=_groups(dataset.users.iloc[table["user"]], chance, success, user, level),
        predictions=table[["user_id", "habit_id", "success"]].assign(**predicted).reset_index(drop=True),
        split=split,
        cut=pd.Timestamp(np.datetime64(first, "D")) if split == "temporal" else pd.NaT,
        base_rate=float(success.mean()),
        note=note,
    )


def true_probabilities(dataset: Dataset, table: pd.DataFrame) -> Floats | None:
    """True probability of success of adopted pairs (rows of `success_labels`) at their adoption; None for real data.

    It knows what nobody can see, people's hidden ability above all: a bound that no model reaches.
    """
    if not dataset.simulated or "simulation" not in dataset.metadata:
        return None
    from habitlab.simulation import world_of
    from habitlab.simulation.adoption import adopt
    from habitlab.simulation.truth import success_probability

    world = world_of(dataset)
    adopted = adopt(world)[0]
    chance = success_probability(world, adopted.user, adopted.habit, adopted.start, adopted.load)
    ids = {"user_id": world.user_ids.take(adopted.user), "habit_id": world.habit_ids.take(adopted.habit)}
    known = pd.DataFrame({name: np.asarray(values, dtype=object) for name, values in ids.items()})
    return table[["user_id", "habit_id"]].merge(known.assign(chance=chance), how="left")["chance"].to_numpy()


def _predict(pairs: LabelledPairs, before: Bools, after: Bools, folds: int, seed: int) -> dict[str, Floats]:
    """Probabilities (pairs,) by model, NaN for pairs that are not tested."""
    generator = np.random.default_rng(seed)
    users = generator.permutation(np.unique(pairs.user))
    out = {name: np.full(len(pairs), np.nan) for name in (MODEL, PLAIN, ISOTONIC, LOGISTIC)}
    for own in np.array_split(users, folds):
        mine = np.isin(pairs.user, own)
        known, test = before & ~mine, after & mine
        if test.any():
            fitted = train(pairs, known, seed)
            columns = _with_rates(pairs, fitted)
            raw = fitted.trees.log_odds(columns)
            out[MODEL][test] = special.expit(fitted.slope * raw + fitted.intercept)[test]
            out[PLAIN][test] = special.expit(raw)[test]
            calibrating = three_ways(pairs.user, known, np.random.default_rng(seed))[2]
            out[ISOTONIC][test] = _isotonic(raw, pairs.success, calibrating, test)
            out[LOGISTIC][test] = _logistic(pairs, known, test, seed)
    return out


def _with_rates(pairs: LabelledPairs, fitted: Fitted) -> Floats:
    """Features of all pairs as the model sees those of people it has not learnt from."""
    columns = pairs.columns.copy()
    columns[NAMES.index("habit_success")] = fitted.habit_success[pairs.table["habit"].to_numpy()]
    return columns


def _isotonic(raw: Floats, success: npt.NDArray, calibrating: Bools, test: Bools) -> Floats:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw[calibrating], success[calibrating])
    return curve.predict(raw[test])


def _logistic(pairs: LabelledPairs, known: Bools, test: Bools, seed: int) -> Floats:
    """Predict by logistic regression on the same features, categories one by one, learnt from all the known pairs."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features, rates = encoded(pairs, known, np.random.default_rng(seed))
    features[test, NAMES.index("habit_success")] = rates[pairs.table["habit"].to_numpy()[test]]
    category = NAMES.index("category")
    numbers = [column for column in range(len(NAMES)) if column != category]
    filled = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    prepared = make_column_transformer((filled, numbers), (OneHotEncoder(handle_unknown="ignore"), [category]))
    model = make_pipeline(prepared, LogisticRegression(C=0.1, max_iter=2000))
    return model.fit(features[known], pairs.success[known]).predict_proba(features[test])[:, 1]


def _compare(
    predicted: dict[str, Floats], success: npt.NDArray, user: npt.NDArray, resamples: int, level: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Frames `metrics` and `differences` of an evaluation."""
    users = int(user.max()) + 1
    tails = [(1 - level) / 2, (1 + level) / 2]
    counts = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), size=resamples)
    rows, replicates = [], {}
    for model, chance in predicted.items():
        measures = _measures(chance, success, predicted.get(TRUTH))
        for metric, measure in measures.items():
            estimate = measure(np.ones((1, len(success))))[0]
            drawn = np.concatenate(
                [
                    measure(counts[begin : begin + _RESAMPLES_AT_A_TIME, user].astype(float))
                    for begin in range(0, resamples, _RESAMPLES_AT_A_TIME)
                ]
            )
            replicates[model, metric] = estimate, drawn
            rows.append((model, metric, estimate, *np.quantile(drawn, tails)))
        if model != BASE:
            rows += [(model, *row) for row in _line(chance, success, user, level)]
    columns = ["model", "metric", "estimate", "ci_low", "ci_high"]
    metrics = pd.DataFrame(rows, columns=columns).assign(level=level, n=len(success), users=users)
    paired = []
    for against in predicted:
        for metric in ("log_loss", "brier", "auc"):
            (mine, my_draws), (other, draws) = replicates[MODEL, metric], replicates[against, metric]
            paired.append((against, metric, mine - other, *np.quantile(my_draws - draws, tails)))
    differences = pd.DataFrame(paired, columns=["against", *columns[1:]])
    differences = differences[differences["against"] != MODEL].reset_index(drop=True)
    return metrics, differences.assign(level=level, n=len(success), users=users)


def _measures(chance: Floats, success: npt.NDArray, truth: Floats | None) -> dict[str, Callable[[Floats], Floats]]:
    """Metrics of predictions, each a function of weights (resamples, pairs)."""
    bins = _bin_of(chance)

    def mean(loss: Floats) -> Callable[[Floats], Floats]:
        return lambda weight: weight @ loss / weight.sum(axis=1)

    def calibration_error(weight: Floats) -> Floats:
        gaps = [np.abs(weight[:, bins == bin_] @ (chance - success)[bins == bin_]) for bin_ in np.unique(bins)]
        return np.sum(gaps, axis=0) / weight.sum(axis=1)

    ranked = _Ranked(chance, success)
    measures = {
        "log_loss": mean(-np.where(success == 1, np.log(chance), np.log1p(-chance))),
        "brier": mean((chance - success) ** 2),
        "auc": ranked.auc,
        "average_precision": ranked.average_precision,
        "ece": calibration_error,
    }
    return measures if truth is None else measures | {"squared_error_to_truth": mean((chance - truth) ** 2)}


class _Ranked:
    """Outcomes in order of their prediction, equal predictions together."""

    def __init__(self, chance: Floats, success: npt.NDArray) -> None:
        self._order = np.argsort(-chance, kind="stable")
        self._first = np.flatnonzero(np.diff(-chance[self._order], prepend=-np.inf) != 0)
        self._success = success[self._order]

    def auc(self, weight: Floats) -> Floats:
        """Area under the ROC curve, ties counting half."""
        hits, misses = self._sums(weight)
        worse = misses.sum(axis=1, keepdims=True) - np.cumsum(misses, axis=1) + misses / 2
        return (hits * worse).sum(axis=1) / (hits.sum(axis=1) * misses.sum(axis=1))

    def average_precision(self, weight: Floats) -> Floats:
        """Area under the precision-recall curve, by steps."""
        hits, misses = self._sums(weight)
        above, of = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
        precision = np.divide(above, of, out=np.zeros_like(above), where=of > 0)
        return (hits * precision).sum(axis=1) / hits.sum(axis=1)

    def _sums(self, weight: Floats) -> tuple[Floats, Floats]:
        ordered = weight[:, self._order]
        hits = np.add.reduceat(ordered * self._success, self._first, axis=1)
        return hits, np.add.reduceat(ordered, self._first, axis=1) - hits


def _bin_of(chance: Floats) -> npt.NDArray[np.int64]:
    """Bin of each prediction, of about equal size; equal predictions share one."""
    inner = np.quantile(chance, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(inner, chance, side="left")


def _bins(chance: Floats, success: npt.NDArray) -> pd.DataFrame:
    frame = pd.DataFrame({"bin": _bin_of(chance), "predicted": chance, "observed": success})
    return frame.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), n=("observed", "size")
    )


def _line(
    chance: Floats, success: npt.NDArray, user: npt.NDArray, level: float
) -> list[tuple[str, float, float, float]]:
    """Slope and intercept of the outcome on the predicted log-odds, with their intervals."""
    logit = special.logit(chance)
    slope, intercept = 1.0, 0.0
    design = np.column_stack([logit, np.ones(len(logit))])
    if np.ptp(logit) < 1e-9 or success.min() == success.max():
        return [(name, np.nan, np.nan, np.nan) for name in ("slope", "intercept")]
    for _ in range(25):
        fitted = special.expit(slope * logit + intercept)
        hessian = design.T @ (design * (fitted * (1 - fitted))[:, None])
        step = np.linalg.pinv(hessian) @ (design.T @ (success - fitted))
        slope, intercept = slope + step[0], intercept + step[1]
        if np.abs(step).max() < 1e-10:
            break
    half = special.ndtri((1 + level) / 2) * np.sqrt(
        np.diag(logistic_covariance(logit, success, user, slope, intercept))
    )
    return [
        (name, float(value), float(value - h), float(value + h))
        for name, value, h in zip(("slope", "intercept"), (slope, intercept), half, strict=True)
    ]


def _groups(users: pd.DataFrame, chance: Floats, success: npt.NDArray, user: npt.NDArray, level: float) -> pd.DataFrame:
    """Calibration by gender and age band; `users` holds the user of each pair."""
    labels = {}
    if "gender" in users:
        labels["gender"] = users["gender"].astype(object).to_numpy()
    if "age" in users:
        labels["age band"] = age_band(users["age"]).astype(object).to_numpy()
    rows = []
    for dimension, group in labels.items():
        named = np.where(pd.isna(group), "not told", group)
        for name in sorted(set(named)):
            here = named == name
            enough = here.sum() >= FEWEST_OF_GROUP
            p, y = chance[here], success[here]
            slope = _line(p, y, user[here], level)[0][1:] if enough else (np.nan,) * 3
            error = _measures(p, y, None)["ece"](np.ones((1, len(p))))[0] if enough else np.nan
            people = len(np.unique(user[here]))
            rows.append((dimension, name, len(p), people, p.mean(), y.mean(), error, *slope))
    columns = ["dimension", "group", "n", "users", "predicted", "observed", "ece", "slope", "slope_low", "slope_high"]
    return pd.DataFrame(rows, columns=columns)
