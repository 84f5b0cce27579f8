"""Looking every day: intervals that hold at all looks at once, so that a trial may stop at any of them.

The asymptotic confidence sequence of the normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, Annals of
Statistics 52(6), arXiv:2103.06476, theorem 2.2; Robbins 1970, doi:10.1214/aoms/1177696786). Stated in the information
1 / standard error^2: with repeated rows a user's mean grows more exact day by day though no user joins, and it is the
information, not the number of users, on whose clock the estimate moves like Brownian motion.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from habitlab.evaluation.experiments import compare_arms
from habitlab.evaluation.experiments.arm_estimates import Floats

FEWEST_AT_A_LOOK = 30
"""Units an arm before the first look: with fewer the asymptotic sequence does not keep its level."""

_COLUMNS = [
    "day",
    "n_control",
    "n_arm",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "fixed_low",
    "fixed_high",
    "fixed_p_value",
    "stop",
    "warnings",
]


@dataclass(frozen=True)
class AlwaysValid:
    """An interval and a p-value that hold at all looks at once."""

    ci_low: float
    ci_high: float
    p_value: float


def always_valid(
    difference: float, standard_error: float, *, planned_effect: float, level: float = 0.95, degrees: float = np.inf
) -> AlwaysValid:
    """Return the interval at one look, tightest where a test of fixed size would find `planned_effect` 80 times in 100.

    `planned_effect`, in the outcome's unit, is fixed before the first look: a wrong one makes the interval wider, never
    wrong. With mixture variance tau^2 and r = tau^2 / se^2 the interval is
    difference +- se sqrt(2 (r + 1) / r log(sqrt(r + 1) / alpha)). `degrees` of freedom, where few, widen it as t does.

    Raises
    ------
    ValueError
        `planned_effect` is not above 0 or `level` not between 0 and 1.
    """
    if not planned_effect > 0 or not 0 < level < 1:
        raise ValueError(f"planned_effect must be above 0, level between 0 and 1; got {planned_effect} and {level}")
    if not (np.isfinite(difference) and standard_error > 0):
        return AlwaysValid(float("nan"), float("nan"), float("nan"))
    r, bound = _mixture(standard_error, planned_effect, level)
    reach = stats.t.isf(stats.norm.sf(bound), degrees) * standard_error
    # The same test in other words: 1 over the mixture's likelihood ratio at 0.
    z = stats.norm.isf(stats.t.sf(abs(difference) / standard_error, degrees))
    evidence = z**2 * r / (2 * (r + 1)) - np.log(r + 1) / 2 if np.isfinite(z) else np.inf
    return AlwaysValid(difference - reach, difference + reach, float(np.exp(-max(evidence, 0.0))))


def always_valid_reach(
    standard_error: Floats, *, planned_effect: float, level: float = 0.95, degrees: Floats | float = np.inf
) -> Floats:
    """Half the width of the interval of `always_valid` at many looks (any shape)."""
    _, bound = _mixture(standard_error, planned_effect, level)
    return np.asarray(stats.t.isf(stats.norm.sf(bound), degrees) * standard_error)


def _mixture(standard_error: Any, planned_effect: float, level: float) -> tuple[Any, Any]:
    """Ratio r of mixture variance to squared standard error, and the bound in standard errors."""
    alpha = 1 - level
    planned_error = planned_effect / (stats.norm.isf(alpha / 2) + stats.norm.ppf(0.8))
    r = _tightest(alpha) * (planned_error / standard_error) ** 2
    return r, np.sqrt(2 * (r + 1) / r * np.log(np.sqrt(r + 1) / alpha))


def _tightest(alpha: float) -> float:
    """Ratio r of mixture variance to squared standard error at which the interval is tightest."""
    return float(-special.lambertw(-(alpha**2) / np.e, -1).real - 1)


def peek(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    outcome: str,
    day: str,
    planned_effect: float,
    level: float = 0.95,
    denominator: str | None = None,
    covariate: str | None = None,
    control: Hashable | None = None,
    weights: Mapping[Hashable, float] | None = None,
) -> pd.DataFrame:
    """Look after every day at all rows so far (`day` is a number or a date), a row a look.

    Columns: day, n_control, n_arm, difference, ci_low, ci_high and p_value (always valid; the p-value is the least so
    far), fixed_low, fixed_high and fixed_p_value (of `compare_arms`, valid for one look only), stop (whether the
    always valid interval has left 0 out at this look or before), warnings. NaN while there are too few units or the
    sample ratio forbids a readout.

    Raises
    ------
    ValueError
        As `compare_arms` and `always_valid`, or there is no such `day`.
    """
    if day not in data.columns:
        raise ValueError(f"no column {day!r}; there are {', '.join(map(str, data.columns))}")
    looks = []
    undated = int(data[day].isna().sum())
    lost = (f"{undated} of {len(data)} rows have no {day} and are left out",) if undated else ()
    least, stopped = 1.0, False
    for today in np.sort(data[day].dropna().unique()):
        so_far = data[data[day] <= today]
        if so_far[arm].nunique() < 2:
            looks.append({"day": today, "warnings": ("an arm has no unit yet", *lost), "stop": stopped})
            continue
        found = compare_arms(
            so_far,
            unit=unit,
            arm=arm,
            outcome=outcome,
            covariate=covariate,
            level=level,
            denominator=denominator,
            control=control,
            weights=weights,
        )
        enough = min(found.n_units.values()) >= FEWEST_AT_A_LOOK
        valid = always_valid(
            found.difference if enough else float("nan"),
            found.standard_error,
            planned_effect=planned_effect,
            level=level,
            degrees=found.degrees,
        )
        least = min(least, valid.p_value) if valid.p_value == valid.p_value else least
        stopped = stopped or bool(valid.ci_low > 0 or valid.ci_high < 0)
        few = () if enough else (f"fewer than {FEWEST_AT_A_LOOK} units an arm: too early to look",)
        n_control, n_arm = (found.n_units[name] for name in found.arms)
        looks.append(
            {
                "day": today,
                "n_control": n_control,
                "n_arm": n_arm,
                "difference": found.difference,
                "ci_low": valid.ci_low,
                "ci_high": valid.ci_high,
                "p_value": least if valid.p_value == valid.p_value else np.nan,
                "fixed_low": found.ci_low,
                "fixed_high": found.ci_high,
                "fixed_p_value": found.p_value,
                "stop": stopped,
                "warnings": found.warnings + few + lost,
            }
        )
    return pd.DataFrame(looks, columns=_COLUMNS)
