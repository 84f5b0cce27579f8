"""Planning an experiment: how many units it takes, and the smallest effect that so many can show.

For means the t-test's exact power; for proportions the normal approximation with pooled variance under the null
(Fleiss, Levin & Paik 2003, chapter 4). Two arms, two-sided tests. Rows of a unit are weighed by the design effect of
cluster sampling (Kish 1965), a covariate by 1 - correlation^2 (CUPED).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


@dataclass(frozen=True)
class Outcome:
    """What is measured on a unit: a mean with its standard deviation `sd`, or a proportion with its `rate` in control.

    `sd` is of rows: with `rows_per_unit` of them and intraclass correlation `icc`, the variance of a unit's mean is
    sd^2 (1 + (rows - 1) icc) / rows. `correlation` is that of the covariate with the unit's outcome, 0 without one.

    Raises
    ------
    ValueError
        Not just one of `sd` and `rate`, or a value outside its range.
    """

    sd: float | None = None
    rate: float | None = None
    correlation: float = 0.0
    rows_per_unit: float = 1.0
    icc: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if (self.sd is None) == (self.rate is None):
            raise ValueError("give either sd (of a mean) or rate (a proportion in control)")
        fine = {
            "sd must be above 0": self.sd is None or self.sd > 0,
            "rate must lie between 0 and 1": self.rate is None or 0 < self.rate < 1,
            "correlation must lie between -1 and 1": -1 < self.correlation < 1,
            "rows_per_unit must be 1 or more": self.rows_per_unit >= 1,
            "icc must lie from 0 to 1": 0 <= self.icc <= 1,
        }
        for rule, holds in fine.items():
            if not holds:
                raise ValueError(f"{rule}; got {self}")

    @property
    def design_effect(self) -> float:
        """How many times the rows' variance is that of as many independent rows: 1 + (rows - 1) icc."""
        return 1 + (self.rows_per_unit - 1) * self.icc

    def _variance(self, rate: float = 0.0) -> float:
        """Variance of a unit's outcome, less what the covariate foretells."""
        row = self.sd**2 if self.sd is not None else rate * (1 - rate)
        return row * self.design_effect / self.rows_per_unit * (1 - self.correlation**2)


def power(
    effect: float, units: float, outcome: Outcome, *, units_control: float | None = None, level: float = 0.95
) -> float:
    """Chance to find a difference of `effect` with `units` in the arm (and as many or `units_control` in control)."""
    n1, n0 = float(units), float(units if units_control is None else units_control)
    if min(n1, n0) < 2 or not 0 < level < 1:
        raise ValueError(f"two units an arm and a level between 0 and 1 are needed; got {n1:g}, {n0:g} and {level}")
    tail = (1 - level) / 2
    if outcome.rate is None:
        degrees = n1 + n0 - 2
        away = abs(effect) / np.sqrt(outcome._variance() * (1 / n1 + 1 / n0))
        bound = stats.t.isf(tail, degrees)
        below = stats.nct.cdf(-bound, degrees, away) if away < 8 else 0.0  # what it cannot say far out is nothing
        return float(np.clip(stats.nct.sf(bound, degrees, away) + np.nan_to_num(below), 0, 1))
    p0, p1 = outcome.rate, outcome.rate + effect
    if not 0 <= p1 <= 1:
        raise ValueError(f"a rate of {p0} cannot change by {effect}: the result lies outside 0 to 1")
    pooled = (p0 * n0 + p1 * n1) / (n0 + n1)
    null = np.sqrt(outcome._variance(pooled) * (1 / n1 + 1 / n0))
    real = np.sqrt(outcome._variance(p1) / n1 + outcome._variance(p0) / n0)
    bound = stats.norm.isf(tail) * null
    return float(stats.norm.sf((bound - abs(effect)) / real) + stats.norm.cdf((-bound - abs(effect)) / real))


def sample_size(effect: float, outcome: Outcome, *, power_wanted: float = 0.8, level: float = 0.95) -> int:
    """Units an arm, equal in number, to find `effect` with the power wanted.

    Raises
    ------
    ValueError
        `effect` is 0 or no number, or the power wanted does not lie between the risk of a false positive and 1.
    """
    if not np.isfinite(effect):
        raise ValueError(f"effect must be a number, the smallest one that would matter; it is {effect}")
    if effect == 0:
        raise ValueError("an effect of 0 is found by no number of units: give the smallest one that would matter")
    _check_power(power_wanted, level)
    units = 2
    while power(effect, units, outcome, level=level) < power_wanted:
        units *= 2
    fewest = units // 2
    while units - fewest > 1:
        middle = (units + fewest) // 2
        if power(effect, max(middle, 2), outcome, level=level) < power_wanted:
            fewest = middle
        else:
            units = middle
    return units


def minimum_detectable_effect(
    units: float,
    outcome: Outcome,
    *,
    units_control: float | None = None,
    power_wanted: float = 0.8,
    level: float = 0.95,
) -> float:
    """Return the smallest rise that so many units an arm find with the power wanted; NaN where no rate is so high."""
    _check_power(power_wanted, level)

    def lacking(effect: float) -> float:
        return power(effect, units, outcome, units_control=units_control, level=level) - power_wanted

    if outcome.rate is not None:
        return _root(lacking, 1 - outcome.rate)
    # In units of the standard error: the bound and the power's quantile, and more for the few degrees of freedom.
    most = np.sqrt(outcome._variance() * (1 / units + 1 / (units_control or units)))
    return _root(lacking, most * 6) if lacking(most * 6) > 0 else _root(lacking, most * 100)


def _root(lacking: Callable[[float], float], most: float) -> float:
    return float(optimize.brentq(lacking, 0.0, most)) if lacking(most) > 0 else float("nan")


def _check_power(power_wanted: float, level: float) -> None:
    if not 1 - level < power_wanted < 1:
        raise ValueError(f"power must lie between {1 - level:.2g} and 1, such as 0.8; it is {power_wanted}")
