"""Experiments: who gets which arm, was that kept to, and what the arms differ by, always by unit.

A unit (mostly a user) is what is assigned and what is independent of the others; its rows are not. So rows are first
brought together by unit and arm, whatever their number, and every test counts units. Planning is in `planning`, looking
every day in `sequential`, retention in `survival`, weeks, outliers and the decision in `rollout`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.dataset.analyses import FEWEST
from habitlab.evaluation.experiments.arm_estimates import (
    UNLIKELY,
    ArmEstimate,
    Bools,
    Floats,
    cuped,
    linearised,
    proportions,
    welch,
)

Ints = npt.NDArray[np.int64]

SRM_BLOCKS = UNLIKELY
"""Below this p-value of the sample-ratio test there is no readout (Fabijan 2019, doi:10.1145/3292500.3330722)."""

CONTROL_NAMES = ("control", "baseline", "placebo", "holdout")
BOTH_ARMS = 0.5
"""From this share of units with rows in both arms on, the trial is read as within units; below, they swapped arms."""

_LARGEST = 1e100  # of an outcome: squares of it are summed up, and must not overflow


def assign(
    unit_ids: Sequence[Hashable] | pd.Series | npt.NDArray[np.generic],
    arms: Sequence[str],
    salt: str,
    weights: Sequence[float] | None = None,
) -> npt.NDArray[np.object_]:
    """Return the arm of each unit (units,): SHA-256 of salt and id, so it sticks, whoever asks and whenever.

    Another salt gives an independent assignment. Moving weight from the first of two arms to the second moves units
    that way only. Ids are text or whole numbers; 7 and "7" are the same unit. Weights need not add up to 1.

    Raises
    ------
    ValueError
        Fewer than two arms, an arm named twice, no salt, impossible weights, or an id that is missing or a fraction.
    """
    if len(arms) < 2 or len(set(arms)) < len(arms):
        raise ValueError(f"give two or more arms, each named once; got {list(arms)}")
    if not salt:
        raise ValueError("give a salt, the experiment's name: without one all experiments split people the same way")
    shares = np.ones(len(arms)) if weights is None else np.asarray(weights, dtype=float)
    if shares.shape != (len(arms),) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"give one weight of 0 or more for each of the {len(arms)} arms, not all 0; got {weights}")
    ids = np.asarray(unit_ids, dtype=object)
    if ids.ndim != 1:
        raise ValueError(f"give a list or a column of unit ids; got {unit_ids!r}")
    codes, uniques = pd.factorize(ids)
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum())} unit ids are missing: who is not known cannot be assigned for good")
    wrong = next((unit for unit in uniques if not isinstance(unit, str | int | np.integer)), None)
    if wrong is not None:
        raise ValueError(f"unit ids are text or whole numbers, not {wrong!r}: 7.0 would not be the unit 7 next time")
    keys = (hashlib.sha256(f"{salt}\x1f{unit}".encode()).digest()[:8] for unit in uniques)
    point = np.array([int.from_bytes(key, "big") for key in keys], dtype=float) * 2.0**-64
    edges = np.cumsum(shares / shares.sum())[:-1]
    return np.asarray(arms, dtype=object)[np.searchsorted(edges, point, side="right")][codes]


def srm_test(counts: Mapping[Hashable, int], weights: Mapping[Hashable, float] | None = None) -> float:
    """P-value of "units fell into the arms as planned" (sample-ratio test); equal shares where `weights` says nothing.

    Chi-squared; for two arms and up to 1,000 units the exact binomial test.

    Raises
    ------
    ValueError
        Fewer than two arms or no units, or the weights do not name the arms.
    """
    names, observed = list(counts), np.array(list(counts.values()), dtype=float)
    shares = _shares(names, weights)
    if len(names) < 2 or not observed.sum() > 0 or (observed < 0).any() or (observed % 1 != 0).any():
        raise ValueError(f"a sample ratio needs whole numbers of units in two or more arms; got {dict(counts)}")
    if len(names) == 2 and observed.sum() <= 1000:
        return float(stats.binomtest(int(observed[0]), int(observed.sum()), shares[0]).pvalue)
    return float(stats.chisquare(observed, shares * observed.sum()).pvalue)


def _shares(names: Sequence[Hashable], weights: Mapping[Hashable, float] | None) -> Floats:
    if weights is None:
        return np.full(len(names), 1 / len(names))
    if set(weights) != set(names) or not all(0 < weight < np.inf for weight in weights.values()):
        raise ValueError(f"give a weight above 0 for each of the arms {list(names)}; got {dict(weights)}")
    shares = np.array([weights[name] for name in names], dtype=float)
    return shares / shares.sum()


@dataclass(frozen=True)
class Comparison:
    """What two arms differ by: the arm compared less the control, in the outcome's unit, with its interval at `level`.

    `p_value` is two-sided; `n_units` and `means` are by arm, the control first, of the units in the analysis;
    `srm_p_value` is of all that were assigned. `design` is "between units" or "within units". Where nothing can be
    said the number is NaN, and `warnings` say why. `standard_error` and `degrees` of freedom are of the difference (the
    interval of proportions is not symmetric about it). `hedges_g` is for means, `risk_ratio` for proportions (with
    interval). `variance_kept` is the share of variance that the covariate leaves, 1 without one.
    """

    outcome: str
    arms: tuple[Hashable, Hashable]
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n_units: dict[Hashable, int]
    srm_p_value: float
    warnings: tuple[str, ...]
    level: float
    design: str
    method: str
    means: dict[Hashable, float] = field(default_factory=dict)
    standard_error: float = float("nan")
    degrees: float = float("nan")
    hedges_g: float = float("nan")
    risk_ratio: tuple[float, float, float] = (float("nan"), float("nan"), float("nan"))
    variance_kept: float = 1.0

    @property
    def blocked(self) -> bool:
        """Whether the sample ratio forbids a readout."""
        return self.srm_p_value < SRM_BLOCKS


def compare_arms(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    outcome: str,
    covariate: str | None = None,
    level: float = 0.95,
    denominator: str | None = None,
    control: Hashable | None = None,
    weights: Mapping[Hashable, float] | None = None,
) -> Comparison:
    """Compare two arms by unit; one row a unit or many, units in one arm or in both: it sees which.

    The outcome of a unit is the mean of its rows, so that each unit counts once; with `denominator` the arms' ratios
    sum(outcome) / sum(denominator) are compared (delta method, Deng et al. 2018, doi:10.1145/3219819.3219919).

    - Units in one arm: Welch's test; where every unit is 0 or 1, two proportions by score (Miettinen & Nurminen 1985).
    - At least half of the units in both arms: differences within units, tested over units.
    - `covariate`, known before exposure: CUPED (Deng et al. 2013, doi:10.1145/2433396.2433413), its slope from within
      arms; the variance falls by the squared correlation. Within units it is the difference of covariates that counts.

    Parameters
    ----------
    control
        The arm that is subtracted; by default one named control, baseline, placebo or holdout, else the first in order.
    weights
        Planned shares of the arms, equal by default. A sample ratio with p < 0.001 blocks the readout: NaN.

    Raises
    ------
    ValueError
        A column is absent, named twice or no number (missing ones are counted), there are not two arms, or `level` is
        not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; it is {level}")
    cells = _cells(data, unit, arm, outcome, covariate, denominator, control)
    names, notes = cells.arms, list(cells.notes)
    assigned = cells.rows > 0
    both: Bools = np.all(assigned, axis=1)
    within = bool(both.mean() >= BOTH_ARMS)
    analysed = cells.defined & (both[:, None] if within else ~both[:, None])
    if within:
        srm = _srm_within(cells.rows, _shares(names, weights))
        alone = int((~both).sum())
        note = f"{int(both.sum())} of {len(both)} units have rows in both arms: compared within units"
        notes.append(note + (f"; {alone} units in one arm only are left out" if alone else ""))
        analysed &= analysed.all(axis=1, keepdims=True)
    else:
        counts = {name: int((assigned[:, k] & ~both).sum()) for k, name in enumerate(names)}
        srm = srm_test(counts, weights) if sum(counts.values()) else float("nan")
        if both.any():
            notes.append(
                f"{int(both.sum())} of {len(both)} units swapped arms and are left out; if swapping has to do "
                "with the outcome, so has the difference: analyse them by the arm first assigned"
            )
        notes += _missing_by_arm(assigned & ~both[:, None], cells.defined, names)
    n = {name: int(analysed[:, k].sum()) for k, name in enumerate(names)}
    if min(n.values()) < FEWEST:
        notes.append(f"few units: {' and '.join(map(str, n.values()))}; intervals of so few rest on normal outcomes")
    design = "within units" if within else "between units"
    shape = (design, cells.adjusted, denominator is not None)
    found = ArmEstimate() if min(n.values()) == 0 else _estimate(cells, analysed, shape, level, notes)
    if srm < SRM_BLOCKS:
        split = f"{'rows of units' if within else 'units'} are not split as planned (`weights`)"
        notes.insert(0, f"sample ratio mismatch (p = {srm:.2g}): {split}, assignment or logging is broken, no readout")
        found = ArmEstimate(method=found.method)
    elif min(n.values()) == 0:
        notes.append("an arm has no unit with a known outcome: nothing to compare")
    means = dict(zip(names, found.means, strict=True))
    return Comparison(
        outcome=outcome if denominator is None else f"{outcome} / {denominator}",
        arms=(names[0], names[1]),
        difference=found.difference,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        n_units=n,
        srm_p_value=srm,
        warnings=tuple(notes),
        level=level,
        design=design,
        method=found.method,
        means=means,
        standard_error=found.standard_error,
        degrees=found.degrees,
        hedges_g=found.hedges_g,
        risk_ratio=found.risk_ratio,
        variance_kept=found.variance_kept,
    )


def _estimate(
    cells: _Cells, analysed: Bools, shape: tuple[str, bool, bool], level: float, notes: list[str]
) -> ArmEstimate:
    design, adjusted, ratio = shape
    within = design == "within units"
    values = linearised(cells.top, cells.bottom, analysed) if ratio else cells.means
    if np.isnan(values[analysed]).any():
        notes.append("the denominator adds up to 0 in an arm: no ratio")
        return ArmEstimate(method="ratio, delta method")
    means = (float(values[analysed[:, 0], 0].mean()), float(values[analysed[:, 1], 1].mean()))
    unit_values = values[analysed]
    if not (within or adjusted or ratio) and np.isin(unit_values, (0.0, 1.0)).all():
        return proportions(values[analysed[:, 0], 0], values[analysed[:, 1], 1], level, notes)
    named = ["ratio, delta method" if ratio else "mean", "paired t-test" if within else "Welch's test"]
    kept = 1.0
    if within:
        held = analysed[:, 0]
        samples = [values[held, 1] - values[held, 0]]
        x = None if cells.covariate is None else [cells.covariate[held, 1] - cells.covariate[held, 0]]
    else:
        samples = [values[analysed[:, k], k] for k in (0, 1)]
        x = None if cells.covariate is None else [cells.covariate[analysed[:, k], k] for k in (0, 1)]
    scale = max(float(np.abs(sample).max()) for sample in samples)
    if x is not None:
        samples, kept = cuped(samples, x, within, notes)
        named += ["CUPED"] if kept != 1 else []
    return welch(samples, scale, means, level, ", ".join(named), kept, ratio, notes)


@dataclass(frozen=True)
class _Cells:
    """Rows brought together by unit and arm: all arrays (units, 2), the control's column first."""

    units: npt.NDArray[np.object_]
    arms: list[Hashable]
    rows: Ints
    known: Ints  # rows with a known outcome
    top: Floats  # sum of the outcome
    bottom: Floats  # sum of the denominator; known rows without one
    ratio: bool
    covariate: Floats | None  # mean
    notes: list[str]

    @property
    def defined(self) -> Bools:
        return self.known > 0

    @property
    def adjusted(self) -> bool:
        return self.covariate is not None

    @property
    def means(self) -> Floats:
        """Mean outcome of each unit in each arm, NaN where it has none."""
        return np.divide(self.top, self.bottom, out=np.full(self.top.shape, np.nan), where=self.known > 0)


def _cells(
    data: pd.DataFrame,
    unit: str,
    arm: str,
    outcome: str,
    covariate: str | None = None,
    denominator: str | None = None,
    control: Hashable | None = None,
) -> _Cells:
    """Bring rows together by unit and arm; what is missing is counted in `notes`."""
    check_columns(data, (unit, arm), [name for name in (outcome, covariate, denominator) if name])
    notes = []
    nameless = (data[unit].isna() | data[arm].isna()).to_numpy()
    if nameless.any():
        notes.append(f"{int(nameless.sum())} of {len(data)} rows have no unit or no arm and are left out")
        data = data[~nameless]
    names = order_arms(data[arm], control)
    treated = (data[arm] == names[1]).to_numpy(dtype=np.int64)
    codes, units = pd.factorize(data[unit])
    place, size = codes * 2 + treated, len(units) * 2

    def total(values: npt.NDArray[np.generic]) -> Floats:
        return np.bincount(place, values.astype(float), minlength=size).astype(float).reshape(-1, 2)

    top = numbers(data[outcome], outcome)
    bottom = np.ones_like(top) if denominator is None else numbers(data[denominator], denominator)
    if (bottom < 0).any():
        raise ValueError(f"{denominator} has {int((bottom < 0).sum())} values below 0; a denominator counts something")
    known = np.isfinite(top) & np.isfinite(bottom)
    if not known.all():
        by_arm = " and ".join(f"{int((~known & (treated == k)).sum())} in {name}" for k, name in enumerate(names))
        notes.append(f"{int((~known).sum())} of {len(known)} rows have no finite outcome and are left out: {by_arm}")
    mean = None
    if covariate is not None:
        x = numbers(data[covariate], covariate)
        told = np.isfinite(x)
        if not told.all():
            notes.append(f"{int((~told).sum())} rows have no {covariate}: they count as average")
        mean = total(np.where(told & known, x, 0)) / np.maximum(total(told & known), 1)
        mean[total(told & known) == 0] = np.nan
    return _Cells(
        units=np.asarray(units, dtype=object),
        arms=names,
        rows=np.bincount(place, minlength=size).astype(np.int64).reshape(-1, 2),
        known=total(known).astype(np.int64),
        top=total(np.where(known, top, 0)),
        bottom=total(np.where(known, bottom, 0)),
        ratio=denominator is not None,
        covariate=mean,
        notes=notes,
    )


def unit_values(
    data: pd.DataFrame, *, unit: str, arm: str, outcome: str, denominator: str | None = None
) -> pd.DataFrame:
    """Return the mean outcome of each unit in each arm it has known rows in: columns unit, arm, value.

    With `denominator` the value is linearised (delta method): the mean over units is the arm's ratio; and the unit's
    sums stand beside it in the columns outcome and denominator.
    """
    cells = _cells(data, unit, arm, outcome, denominator=denominator)
    who, where = np.nonzero(cells.defined)
    values = cells.means if denominator is None else linearised(cells.top, cells.bottom, cells.defined)
    arms = np.asarray(cells.arms, dtype=object)[where]
    frame = pd.DataFrame({"unit": cells.units[who], "arm": arms, "value": values[who, where]})
    if denominator is None:
        return frame
    return frame.assign(outcome=cells.top[who, where], denominator=cells.bottom[who, where])


def check_columns(data: pd.DataFrame, assigned: Sequence[str], measured: Sequence[str]) -> None:
    """Raise ValueError unless `data` has these columns once each, and each is named for one thing."""
    if not isinstance(data, pd.DataFrame):
        raise ValueError(f"`data` is a DataFrame with a row a unit, or many; got {type(data).__name__}")
    named, columns = [*assigned, *measured], list(data.columns)
    absent = [name for name in named if name not in columns]
    if absent:
        raise ValueError(f"no column {', '.join(map(repr, absent))}; there are {', '.join(map(str, columns))}")
    for name in named:
        if (number := columns.count(name)) > 1:
            raise ValueError(f"{number} columns are called {name!r}: which of them is meant?")
        if named.count(name) > 1:
            raise ValueError(f"`{name}` is named twice: unit, arm and what is measured are columns of their own")


def find_control(arms: Sequence[Hashable]) -> Hashable:
    """Return the arm with a name of `CONTROL_NAMES`, or else the first."""
    return next((arm for arm in arms if str(arm).casefold() in CONTROL_NAMES), arms[0])


def order_arms(column: pd.Series, control: Hashable | None) -> list[Hashable]:
    """Return the two arms, the control first (`control`, or by name, or the first in order: of numbers the least)."""
    unique = pd.unique(column)
    names: list[Any] = [name.item() if isinstance(name, np.number | np.bool_) else name for name in unique]
    if isinstance(column.dtype, pd.CategoricalDtype):
        names.sort(key=column.cat.categories.tolist().index)
    else:
        names.sort(key=None if all(isinstance(name, Real) for name in names) else str)
    if len(names) != 2:
        there = ", ".join(map(str, names)) or "none"
        raise ValueError(f"two arms are compared, and the column {column.name!r} has {len(names)}: {there}")
    if control is None:
        control = find_control(names)
    if control not in names:
        raise ValueError(f"no arm {control!r} to be the control; there are {', '.join(map(str, names))}")
    return [control, *(name for name in names if name != control)]


def numbers(column: pd.Series, name: str) -> Floats:
    """Return a column of numbers or truths (rows,), NaN where missing, or raise ValueError."""
    if column.dtype == object and column.dropna().map(lambda value: isinstance(value, Real | np.bool_)).all():
        column = column.astype(float)  # numbers or truths with gaps
    real = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype)
    if not (real or column.isna().all()):
        raise ValueError(f"{name} holds {column.dtype} values such as {column.iloc[0]!r}; numbers or truths are needed")
    values = column.to_numpy(dtype=float, na_value=np.nan)
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    if largest > _LARGEST:
        raise ValueError(
            f"{name} holds values such as {largest:g}, too large to be squared: use another unit of measure"
        )
    return values


def _srm_within(rows: Ints, shares: Floats) -> float:
    """P-value of "rows fell into the arms as planned", over units: rows of a unit do not count alone."""
    off = rows[:, 1] * shares[0] - rows[:, 0] * shares[1]
    spread = np.sqrt((off**2).sum())
    return float(2 * stats.norm.sf(abs(off.sum()) / spread)) if spread > 0 else 1.0


def _missing_by_arm(assigned: Bools, defined: Bools, names: list[Hashable]) -> list[str]:
    """Warn where arms lose units at different rates: what is left was not randomised."""
    lost, all_units = (assigned & ~defined).sum(axis=0), assigned.sum(axis=0)
    if not lost.any() or not all_units.all():
        return []
    share = " and ".join(
        f"{lost[k]} of {all_units[k]} units ({lost[k] / all_units[k]:.1%}) in {name}" for k, name in enumerate(names)
    )
    uneven = stats.fisher_exact([lost, all_units - lost]).pvalue < SRM_BLOCKS
    return [f"no outcome for {share}" + ("; the arms lose units unevenly, the difference is biased" if uneven else "")]
