"""Retention of two arms over 30 to 90 days, with those censored whom nobody watched that long.

Survival by the product-limit estimator (Kaplan & Meier 1958, doi:10.1080/01621459.1958.10501452); the arms are compared
by restricted mean survival time, the mean of days kept within a horizon, which needs no proportional hazards (Royston &
Parmar 2013, doi:10.1186/1471-2288-13-152). Errors by the infinitesimal jackknife, summed by unit: many habits of a
person are one unit. With one row a unit they are Greenwood's. Intervals are by t: without censoring it is Welch's test.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.dataset.analyses import FEWEST
from habitlab.evaluation.estimates import survival_of_sums
from habitlab.evaluation.experiments import SRM_BLOCKS, Floats, check_columns, numbers, order_arms, srm_test


@dataclass(frozen=True, eq=False)
class Retention:
    """Days kept within `horizon`, the arm compared less the control, with its interval at `level`.

    `days_kept` is by arm; `retained` and its interval is the difference of survival at the horizon. `curves` holds arm,
    day, survival, ci_low, ci_high, at_risk: the share kept for more than `day` days. NaN where nothing can be said, and
    `warnings` say why.
    """

    horizon: int
    arms: tuple[Hashable, Hashable]
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    days_kept: dict[Hashable, float]
    retained: tuple[float, float, float]
    n_units: dict[Hashable, int]
    srm_p_value: float
    warnings: tuple[str, ...]
    level: float
    curves: pd.DataFrame


def compare_retention(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    days: str,
    ended: str,
    horizon: int = 90,
    level: float = 0.95,
    control: Hashable | None = None,
    weights: Mapping[Hashable, float] | None = None,
) -> Retention:
    """Compare how long units (or several things of each) were kept.

    Parameters
    ----------
    days
        Column of whole days from exposure to the end or to the last day watched, 0 or more.
    ended
        Column of truths: given up after that many days, or else (censored) still kept when last seen.
    horizon
        Days counted, at least 1. An arm of which nobody is watched so long, though some were kept until then, has no
        mean within it: NaN.

    Raises
    ------
    ValueError
        A column is absent or named twice, days are negative or fractions, ends are no truths, units are in both arms,
        or there are not two arms.
    """
    if horizon < 1 or not 0 < level < 1:
        raise ValueError(f"horizon must be 1 or more and level between 0 and 1; got {horizon} and {level}")
    check_columns(data, (unit, arm), (days, ended))
    notes = []
    lost = data[[unit, arm, days, ended]].isna().any(axis=1)
    if lost.any():
        notes.append(f"{int(lost.sum())} of {len(data)} rows lack a unit, an arm, days or their end and are left out")
        data = data[~lost]
        if data.empty:
            raise ValueError(f"no row has a unit, an arm, days and their end: {len(lost)} lack one")
    kept, over = numbers(data[days], days), numbers(data[ended], ended)
    if not np.isin(over, (0.0, 1.0)).all():
        raise ValueError(f"{ended} must be truths: given up after that many days, or still kept when last seen")
    if (kept < 0).any() or (kept != np.floor(kept)).any():
        raise ValueError(f"{days} must be whole numbers of days, 0 or more")
    names = order_arms(data[arm], control)
    if data[[unit, arm]].drop_duplicates()[unit].duplicated().any():
        raise ValueError("units are in both arms: how long something is kept can be told of one arm a unit")
    treated = (data[arm] == names[1]).to_numpy()
    counts = {name: int(data.loc[treated == k, unit].nunique()) for k, name in enumerate(names)}
    srm = srm_test(counts, weights)
    if min(counts.values()) < FEWEST:
        notes.append(f"few units: {' and '.join(map(str, counts.values()))}")
    parts = [_arm(kept[treated == k], over[treated == k] == 1, data.loc[treated == k, unit], horizon) for k in (0, 1)]
    curves = pd.concat(
        [part.curve(stats.norm.ppf((1 + level) / 2)).assign(arm=name) for name, part in zip(names, parts, strict=True)],
        ignore_index=True,
    )
    for name, part in zip(names, parts, strict=True):
        if np.isnan(part.mean):
            notes.append(f"in {name} nobody is watched to day {horizon}: a horizon of {part.watched} days is the most")
    days_kept = {name: part.mean for name, part in zip(names, parts, strict=True)}
    mean, error, degrees = _difference(parts[0].mean, parts[0].mean_by_unit, parts[1].mean, parts[1].mean_by_unit)
    share, share_error, share_degrees = _difference(
        parts[0].survival[-1], parts[0].by_unit[:, -1], parts[1].survival[-1], parts[1].by_unit[:, -1]
    )
    if error == 0:
        notes.append("nothing ended within the horizon in either arm, or everything at once: no interval")
        error = float("nan")
    if share_error == 0:  # all or none are left in both arms: no spread is no certainty
        share_error = float("nan")
    if srm < SRM_BLOCKS:
        notes.insert(0, f"sample ratio mismatch (p = {srm:.2g}): assignment or logging is broken, no readout")
        mean = share = error = share_error = float("nan")
        days_kept = dict.fromkeys(names, float("nan"))
        curves[["survival", "ci_low", "ci_high"]] = float("nan")
    reach, share_reach = (
        float(stats.t.ppf((1 + level) / 2, df)) * one for df, one in ((degrees, error), (share_degrees, share_error))
    )
    return Retention(
        horizon=horizon,
        arms=(names[0], names[1]),
        difference=mean,
        ci_low=mean - reach,
        ci_high=mean + reach,
        p_value=float(2 * stats.t.sf(abs(mean) / error, degrees)),
        days_kept=days_kept,
        retained=(share, share - share_reach, share + share_reach),
        n_units=counts,
        srm_p_value=srm,
        warnings=tuple(notes),
        level=level,
        curves=curves[["arm", "day", "survival", "ci_low", "ci_high", "at_risk"]],
    )


@dataclass(frozen=True, eq=False)
class _Arm:
    survival: Floats  # (horizon,) share kept for more than 0 ... horizon - 1 days
    at_risk: Floats
    by_unit: Floats  # (units, horizon) influence of each unit on it
    mean: float  # days kept within the horizon
    mean_by_unit: Floats

    @property
    def watched(self) -> int:
        return int(np.isfinite(self.survival).sum())

    def curve(self, z: float) -> pd.DataFrame:
        """Survival with intervals on the scale log(-log), which stay within 0 and 1."""
        error = np.sqrt((self.by_unit**2).sum(axis=0) * _few(len(self.by_unit)))
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.exp(z * error / np.abs(self.survival * np.log(self.survival)))
            low, high = self.survival**reach, self.survival ** (1 / reach)
        moves = error > 0
        return pd.DataFrame(
            {
                "day": np.arange(len(self.survival)),
                "survival": self.survival,
                "ci_low": np.where(moves, low, np.nan),
                "ci_high": np.where(moves, high, np.nan),
                "at_risk": self.at_risk.astype(int),
            }
        )


def _arm(kept: Floats, over: npt.NDArray[np.bool_], unit: pd.Series, horizon: int) -> _Arm:
    day = np.minimum(kept, horizon).astype(int)
    whole = horizon + 1  # what was kept to the horizon stands in the last column
    ends = np.bincount(day[over], minlength=whole).astype(float)
    exits = np.bincount(day, minlength=whole).astype(float)
    survival = survival_of_sums(np.concatenate([ends, exits])[None], horizon)[0]
    at_risk, ends = exits[::-1].cumsum()[::-1][:horizon], ends[:horizon]
    left = at_risk - ends
    # Influence of a row on the log of survival: -(its end less the hazard while at risk) / those left at risk.
    share = np.divide(1.0, left, out=np.zeros(horizon), where=left > 0)
    hazard = np.divide(ends, at_risk, out=np.zeros(horizon), where=at_risk > 0)
    codes, units = pd.factorize(unit)
    place = codes * whole + day
    ended_by_unit = np.bincount(place[over], minlength=len(units) * whole).reshape(-1, whole)[:, :horizon]
    left_by_unit = np.bincount(place, minlength=len(units) * whole).reshape(-1, whole)
    risk_by_unit = left_by_unit[:, ::-1].cumsum(axis=1)[:, ::-1][:, :horizon]
    of_log = -np.cumsum((ended_by_unit - hazard * risk_by_unit) * share, axis=1)
    by_unit = of_log * survival
    return _Arm(survival, at_risk, by_unit, float(survival.sum()), by_unit.sum(axis=1))


def _few(units: int) -> float:
    return units / (units - 1) if units > 1 else float("nan")


def _difference(control: float, by_control: Floats, treated: float, by_treated: Floats) -> tuple[float, float, float]:
    """Difference, its standard error and Welch's degrees of freedom, from the influences of the units of both arms."""
    sizes = np.array([len(by_control), len(by_treated)])
    parts = np.array([(part**2).sum() * _few(len(part)) for part in (by_control, by_treated)])
    variance = parts.sum()
    degrees = 1 / ((parts / variance) ** 2 / (sizes - 1)).sum() if variance > 0 else np.nan
    return float(treated - control), float(np.sqrt(variance)), float(degrees)
