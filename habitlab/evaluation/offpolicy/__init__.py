"""What a policy would have brought, told from the log of another one: off-policy estimates, and when not to trust them.

Every method is a ratio of two sums over the rows of the log. With the weight w = target / logging propensity of the
logged action, its reward r, its predicted reward q and the reward m that the model expects under the target policy:

| method | numerator | denominator | source |
|---|---|---|---|
| `ips` | w r | 1 | Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446 |
| `snips` | w r | w | Swaminathan & Joachims 2015, "The self-normalized estimator for counterfactual learning" |
| `dr` | m + w (r - q) | 1 | Dudik, Langford & Li 2011, arXiv 1103.4601 |
| `switch-dr` | as dr, w = 0 above a threshold | 1 | Wang, Agarwal & Dudik 2017, arXiv 1612.01205 |
| `dm` | m | 1 | the model alone, to stand beside |

Intervals are by cluster (user): the linearised ratio's residuals are summed within clusters; a t quantile times the
standard error of these sums, of clusters - 1 degrees of freedom, or fewer where few clusters decide on that error.
`interval="bootstrap"` draws clusters again instead. Switch-dr's
interval holds dr's: of the model's error above the threshold nothing is known but what dr knows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.evaluation import estimates

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

METHODS = ("ips", "snips", "dr", "switch-dr", "dm")

FEWEST_EFFECTIVE = 50.0
"""Effective number of clusters below which the weights are called useless."""

FEWEST_DECIDING = 10.0
"""Effective number of clusters that decide on the interval, below which it is too short too often."""

LARGEST_SHARE = 0.05
"""Share of all weight that one row may carry."""

_SMALLEST = 1e-100  # of a logging propensity: weights are squared, and must not overflow
_ROUNDING = 1e-9  # by which a probability may lie above 1
_RARE = 0.001  # false alarms an honest log, of each test that makes a result unusable


class OffPolicyWarning(UserWarning):
    """The log does not carry the answer."""


class RewardModel(NamedTuple):
    """Predicted rewards, (rows,) each: of the logged action, and on average over the target policy's actions."""

    logged: npt.ArrayLike
    target: npt.ArrayLike


@dataclass(frozen=True)
class PolicyValue:
    """Mean reward a row under the target policy, with its interval at `level`, and what it rests on.

    `effective_sample_size` is Kish's (sum w)^2 / sum w^2 over rows, `effective_clusters` the same over clusters'
    summed weights; `mean_weight` is 1 on average when the log covers the target policy. `usable` is False when the
    weights say little or nothing, and for dm when the log contradicts the model; `warnings` says why, and other things.
    """

    value: float
    ci_low: float
    ci_high: float
    effective_sample_size: float
    max_weight: float
    warnings: tuple[str, ...]
    usable: bool
    method: str
    level: float
    n: int
    n_clusters: int
    effective_clusters: float
    mean_weight: float
    threshold: float


def estimate_value(
    reward: npt.ArrayLike,
    logging_propensity: npt.ArrayLike,
    target_propensity: npt.ArrayLike,
    *,
    method: str = "snips",
    reward_model: RewardModel | tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    level: float = 0.95,
    clusters: npt.ArrayLike | None = None,
    threshold: float | None = None,
    interval: str = "asymptotic",
    resamples: int = 1000,
    seed: int = 0,
) -> PolicyValue:
    """Estimate the mean reward a row, had the target policy acted in place of the logging one.

    Parameters
    ----------
    reward
        (rows,) what the logged action brought.
    logging_propensity, target_propensity
        (rows,) probability of the logged action under either policy, given what was known when it was shown. The
        first is above 0: what was shown had a chance to be.
    method
        One of `METHODS`.
    reward_model
        (logged, target), (rows,) each: see `RewardModel`; needed by dr, switch-dr and dm. Fit it on other rows than
        those it is used on (`reward_model.fit` does), or dr's interval comes out too short.
    clusters
        (rows,) the person, or whatever else makes rows depend on each other; by default each row is its own.
    threshold
        Weight above which switch-dr trusts the model instead. Infinite: dr; 0: dm. By default `switch_threshold`.
    interval
        "asymptotic" or "bootstrap" (BCa over clusters, `resamples` of them from `seed`).

    Raises
    ------
    ValueError
        Arrays of different lengths or empty; missing or infinite values; propensities outside [0, 1], or a logging
        propensity of 0 or next to it; an unknown method or interval; a model is needed and not given.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; it is {method!r}")
    if interval not in ("asymptotic", "bootstrap"):
        raise ValueError(f'interval must be "asymptotic" or "bootstrap"; it is {interval!r}')
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; it is {level!r}")
    if interval == "bootstrap" and resamples < 1:
        raise ValueError(f"resamples must be 1 or more; it is {resamples!r}")
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"threshold must be 0 or more; it is {threshold!r}")
    reward, logging, target = check_log(reward, logging_propensity, target_propensity)
    n = len(reward)
    codes, n_clusters = cluster_codes(clusters, n)
    weight = target / logging
    predicted = _predictions(method, reward_model, n)
    limit = float("inf")
    if method == "switch-dr":
        residual = reward - predicted[0]
        limit = switch_threshold(weight, residual, predicted[1], codes) if threshold is None else float(threshold)
    numerator, denominator = _terms(method, reward, weight, predicted, limit)
    total = denominator.sum()
    value = float(numerator.sum() / total) if total > 0 else float("nan")
    influence = _sums(codes, numerator - value * denominator) / (total or 1.0)
    effective = _effective(_sums(codes, weight))
    loud: list[str] = []
    quiet: list[str] = []
    draws = (resamples, seed) if interval == "bootstrap" else None
    below, above, why = _reach(numerator, denominator, codes, level, draws)
    if method == "switch-dr":  # the model's error above the threshold is known no better than dr knows it
        dr_terms = _terms("dr", reward, weight, predicted, np.inf)
        as_dr, moved = _reach(*dr_terms, codes, level, draws), float(dr_terms[0].mean()) - value
        below, above = float(np.fmax(below, as_dr[0] - moved)), float(np.fmax(above, as_dr[1] + moved))
        why = why and as_dr[2]
    if why:
        quiet.append(f"no interval: {why}")
    unit = "rows" if clusters is None else "clusters"
    _judge_terms(influence, unit, quiet)
    if method == "dm":
        quiet.append("the interval of dm says nothing of the model's own error: a wrong model is wrong with confidence")
        corrected = _terms("dr", reward, weight, predicted, np.inf)[0]
        reach = _reach(corrected, denominator, codes, 1 - _RARE, None)[0]
        if abs(value - corrected.mean()) > reach:
            loud.append(
                f"the log contradicts the model: corrected by what was logged (dr), {value:.3g} becomes "
                f"{corrected.mean():.3g} +- {reach:.2g} at {1 - _RARE:.1%}"
            )
        if effective < FEWEST_EFFECTIVE:
            quiet.append(f"the log counts like {effective:.1f} rows: too little to hold the model against")
    else:
        _judge_weights(weight, logging, codes, effective, loud, quiet)
    cut = weight > limit
    if cut.any():
        quiet.append(
            f"{cut.sum()} of {n} rows ({weight[cut].sum() / weight.sum():.2%} of the weight) weigh more than "
            f"{limit:.3g}: there the model decides, right or wrong"
        )
    for text in loud:
        warnings.warn(text, OffPolicyWarning, stacklevel=2)
    return PolicyValue(
        value=value,
        ci_low=value - below,
        ci_high=value + above,
        effective_sample_size=_effective(weight),
        max_weight=float(weight.max()),
        warnings=(*loud, *quiet),
        usable=not loud,
        method=method,
        level=level,
        n=n,
        n_clusters=n_clusters,
        effective_clusters=effective,
        mean_weight=float(weight.mean()),
        threshold=limit,
    )


def switch_threshold(weight: Floats, residual: Floats, expected: Floats, codes: Ints) -> float:
    """Choose the threshold of switch-dr with the least estimated squared error: squared error of the mean, plus bias.

    The bias of a threshold is what the weights above it add to dr, which has none (so does Su, Srinath & Krishnamurthy
    2020, arXiv 2002.07729, compare estimators). Thresholds tried: 0, twentieths of the weights above 0, infinity; of
    equals the largest. All (rows,): weight, reward - prediction, `RewardModel.target`, number of the cluster.
    """
    moved, tried = weight * residual, [np.inf]
    if weight.any():
        tried += [*np.quantile(weight[weight > 0], np.linspace(1, 0, 21), method="lower"), 0.0]
    best, least = np.inf, np.inf
    for limit in dict.fromkeys(tried):
        terms = expected + np.where(weight <= limit, moved, 0.0)
        away = _sums(codes, terms - terms.mean()) / len(terms)
        error = (away**2).sum() + moved[weight > limit].sum() ** 2 / len(terms) ** 2
        if error < least:
            best, least = float(limit), error
    return best


def check_log(
    reward: npt.ArrayLike, logging_propensity: npt.ArrayLike, target_propensity: npt.ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return the columns of a log as float64 (rows,), or raise ValueError saying which rows are wrong."""
    named = {"reward": reward, "logging_propensity": logging_propensity, "target_propensity": target_propensity}
    columns = {name: column_of(name, values) for name, values in named.items()}
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"a row of the log has one of each: got {sizes}")
    if not sizes["reward"]:
        raise ValueError("the log is empty: nothing can be told from it")
    for name in ("logging_propensity", "target_propensity"):
        values = columns[name]
        _refuse((values < 0) | (values > 1 + _ROUNDING), values, f"{name} is a probability, from 0 to 1")
    logging = columns["logging_propensity"]
    _refuse(
        logging == 0,
        logging,
        "a logging_propensity of 0 says that what was shown could not be: leave such rows out only if the target "
        "policy never does what they show",
    )
    _refuse(
        logging < _SMALLEST,
        logging,
        f"a logging_propensity below {_SMALLEST:g} is too small to divide by: it is 0 or wrong",
    )
    return columns["reward"], logging, columns["target_propensity"]


def estimate_quietly(*columns: npt.ArrayLike, **options: Any) -> PolicyValue:
    """`estimate_value` for a table: its warnings stand in the result, and are not said a hundred times aloud."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OffPolicyWarning)
        return estimate_value(*columns, **options)


def unsupported_mass(logging: npt.ArrayLike, target: npt.ArrayLike) -> Floats:
    """Probability with which the target policy does what the logging policy never does (rows,).

    Both (rows, actions), the full distributions. Of these actions the log holds nothing, and the rows that it does hold
    cannot show it but by a mean weight below 1: 1 less the mean of this.
    """
    both = [np.asarray(values, dtype=np.float64) for values in (logging, target)]
    if both[0].ndim != 2 or both[0].shape != both[1].shape:
        raise ValueError(f"logging and target are (rows, actions); got {both[0].shape} and {both[1].shape}")
    for name, values in zip(("logging", "target"), both, strict=True):
        check_distributions(name, values)
    return np.where(both[0] > 0, 0.0, both[1]).sum(axis=1)


def check_distributions(name: str, values: Floats) -> None:
    """Raise ValueError saying which rows (rows, actions) are no distributions: negative, missing or not adding to 1."""
    wrong = ~(np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1) & (abs(values.sum(axis=1) - 1) < 1e-6))
    if wrong.any():
        first = np.flatnonzero(wrong)[:5].tolist()
        raise ValueError(f"{name}: {wrong.sum()} rows are no distributions, the first at {first}")


def column_of(name: str, values: npt.ArrayLike) -> Floats:
    """Return one finite number a row as float64 (rows,), or raise ValueError saying which rows are wrong."""
    try:
        held = np.asarray(values)
        if held.dtype.kind in "mMc":
            raise TypeError("dates, durations and complex numbers would be read as others")
        column = held.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} holds something that is no number") from None
    if column.ndim != 1:
        raise ValueError(f"{name} is one number a row; got the shape {column.shape}")
    _refuse(~np.isfinite(column), column, f"{name} must not be missing or infinite")
    return column


def _refuse(wrong: npt.NDArray[np.bool_], values: Floats, why: str) -> None:
    if wrong.any():
        first = np.flatnonzero(wrong)[:5]
        shown = ", ".join(f"row {row}: {values[row]:g}" for row in first)
        raise ValueError(f"{why}; {wrong.sum()} of {len(values)} rows are wrong ({shown})")


def cluster_codes(clusters: npt.ArrayLike | None, n: int) -> tuple[Ints, int]:
    """Return the number of each row's cluster (rows,), and how many there are; None: each row is its own."""
    if clusters is None:
        return np.arange(n), n
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"clusters is one label a row, {n} of them; got the shape {labels.shape}")
    codes, uniques = pd.factorize(labels)
    if (codes < 0).any():
        raise ValueError(f"clusters is missing in {(codes < 0).sum()} of {n} rows: whose rows are they?")
    return codes.astype(np.int64), len(uniques)


def _predictions(
    method: str, reward_model: RewardModel | tuple[npt.ArrayLike, npt.ArrayLike] | None, n: int
) -> tuple[Floats, Floats]:
    if method in ("ips", "snips"):
        return np.zeros(n), np.zeros(n)
    if reward_model is None:
        raise ValueError(f"{method} needs reward_model: predicted rewards (logged, target), an array of rows each")
    if not isinstance(reward_model, (tuple, list, np.ndarray)) or len(reward_model) != 2:
        raise ValueError(
            "reward_model is a pair (logged, target): predicted rewards of what was logged, and on average over the "
            f"target policy's actions, one a row each; got {type(reward_model).__name__}"
        )
    logged, target = (
        column_of(f"reward_model's {name}", part) for name, part in zip(RewardModel._fields, reward_model, strict=True)
    )
    if len(logged) != n or len(target) != n:
        raise ValueError(f"reward_model has {len(logged)} and {len(target)} rows, the log {n}")
    return logged, target


def _terms(
    method: str, reward: Floats, weight: Floats, predicted: tuple[Floats, Floats], limit: float
) -> tuple[Floats, Floats]:
    """Numerators and denominators (rows,)."""
    if method in ("ips", "snips"):
        return weight * reward, weight if method == "snips" else np.ones_like(weight)
    logged, target = predicted
    if method == "dm":
        return target, np.ones_like(weight)
    # 0 as a threshold leaves the model alone, also where a weight is 0 anyway.
    return target + np.where(weight <= limit, weight, 0.0) * (reward - logged), np.ones_like(weight)


def _reach(
    numerator: Floats, denominator: Floats, codes: Ints, level: float, draws: tuple[int, int] | None
) -> tuple[float, float, str]:
    """How far the interval of the ratio reaches below and above it; NaN where the text says why."""
    total, clusters, nothing = denominator.sum(), int(codes.max()) + 1, float("nan")
    if not total > 0:
        return nothing, nothing, "no row of the log counts for the target policy"
    if clusters < 2:
        return nothing, nothing, "one cluster alone does not show how much clusters differ"
    value = numerator.sum() / total
    if draws is not None:
        sums = estimates.cluster_sums(codes, numerator, denominator)
        drawn = estimates.resample(sums, estimates.ratios, resamples=draws[0], seed=draws[1])
        low, high = drawn.interval(level)
        return float(value - low[0]), float(high[0] - value), drawn.reason()
    square = _sums(codes, numerator - value * denominator) ** 2
    error = np.sqrt(clusters / (clusters - 1) * square.sum()) / total
    if error <= 1e-12 * abs(value):
        return nothing, nothing, "the terms do not vary, so their uncertainty cannot be told"
    reach = float(stats.t.isf((1 - level) / 2, _degrees_of_freedom(square)) * error)
    return reach, reach, ""


def _degrees_of_freedom(square: Floats) -> float:
    """How well the sum of these squares (clusters,) is known, 1 to clusters - 1: 2 mean^2 / variance, less 1.

    Satterthwaite (1946, doi:10.2307/3002019). About as many as clusters where residuals are normal or two-valued, few
    where a few large weights or rare rewards decide.
    """
    most, deciding = len(square) - 1, _effective(square)
    return min(max(2 * deciding / max(1 - deciding / len(square), 1e-12) - 1, 1.0), most)


def _sums(codes: Ints, values: Floats) -> Floats:
    return np.bincount(codes, values).astype(np.float64)


def _effective(weights: Floats) -> float:
    """Kish's effective number, 0 if all weights are."""
    largest = weights.max(initial=0.0)
    if not largest > 0:
        return 0.0
    scaled = weights / largest  # squares of large weights must not overflow
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def _judge_terms(influence: Floats, unit: str, quiet: list[str]) -> None:
    deciding = _effective(influence**2)
    if 0 < deciding < FEWEST_DECIDING:
        quiet.append(
            f"about {deciding:.1f} {unit} decide on the interval, fewer than {FEWEST_DECIDING:g}: "
            "it is likely to be too short"
        )


def _judge_weights(
    weight: Floats, logging: Floats, codes: Ints, effective: float, loud: list[str], quiet: list[str]
) -> None:
    n, total, sizes = len(weight), weight.sum(), np.bincount(codes)
    clusters = len(sizes)
    if not total > 0:
        loud.append("the target policy never does what the log shows: the log says nothing of its value")
        return
    if effective < FEWEST_EFFECTIVE:
        what = "the weights are useless" if clusters >= FEWEST_EFFECTIVE else "the log is too small"
        loud.append(
            f"{what}: {clusters} clusters ({n} rows) count like {effective:.1f}, "
            f"at least {FEWEST_EFFECTIVE:g} are needed"
        )
    if weight.max() > LARGEST_SHARE * total:
        loud.append(f"one row of {n} carries {weight.max() / total:.2%} of all weight")
    mean = float(weight.mean())
    away = _sums(codes, weight) - mean * sizes
    spread = float(np.sqrt(clusters / max(clusters - 1, 1) * (away**2).sum())) / n
    if abs(mean - 1) > max(stats.norm.isf(_RARE / 2) * spread, 1e-6):
        why = "it does what the log never shows (missing support)" if mean < 1 else "it claims more than there is"
        loud.append(
            f"the mean weight of the target policy is {mean:.3g} and should be 1: {why}, or a propensity is wrong"
        )
    tiny = (logging < 1 / n) & (weight > 0)
    if tiny.any():
        quiet.append(
            f"{tiny.sum()} of {n} rows have a logging propensity below 1 in {n} (smallest {logging.min():.2g}); "
            f"they carry {weight[tiny].sum() / total:.2%} of the weight"
        )
