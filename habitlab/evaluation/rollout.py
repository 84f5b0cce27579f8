"""From comparisons to a decision: several metrics, outliers, novelty, overlapping experiments, guardrails."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.evaluation.experiments import (
    SRM_BLOCKS,
    Comparison,
    compare_arms,
    order_arms,
    unit_values,
)

GUARDRAILS = ("retention", "fairness", "minors")
"""Without a guardrail of each of these names nothing is rolled out."""


def adjust_p_values(p_values: Mapping[str, float], method: Literal["holm", "bh"] = "holm") -> dict[str, float]:
    """Adjust p-values for their number: Holm (1979) against any false positive, Benjamini-Hochberg (1995) for a share.

    What is NaN was not tested: it stays NaN and does not count.
    """
    if method not in ("holm", "bh"):
        raise ValueError(f"method must be 'holm' or 'bh'; it is {method!r}")
    tested = {name: p for name, p in p_values.items() if not math.isnan(p)}
    p = np.array(list(tested.values()))
    if method == "bh":
        adjusted = stats.false_discovery_control(p) if len(p) else p
    else:
        order = np.argsort(p, kind="stable")
        adjusted = np.empty_like(p)
        adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    found = dict(zip(tested, map(float, adjusted), strict=True))
    return {name: found.get(name, float("nan")) for name in p_values}


def compare_metrics(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    primary: str,
    secondary: Sequence[str],
    method: Literal["holm", "bh"] = "holm",
    level: float = 0.95,
    **options: Any,
) -> pd.DataFrame:
    """Compare the arms on one primary metric, tested as it is, and on others, adjusted for their number.

    Columns: metric, role, difference, ci_low, ci_high (each at `level`, not adjusted), p_value, adjusted_p_value,
    n_control, n_arm, warnings. `options` go to `compare_arms`.
    """
    if primary in secondary or len(set(secondary)) < len(secondary):
        raise ValueError(f"each metric has one role; got primary {primary!r} and secondary {list(secondary)}")
    found = {
        name: compare_arms(data, unit=unit, arm=arm, outcome=name, level=level, **options)
        for name in (primary, *secondary)
    }
    adjusted = adjust_p_values({name: found[name].p_value for name in secondary}, method)
    frame = pd.DataFrame([_row(comparison) for comparison in found.values()])
    frame.insert(0, "metric", list(found))
    frame.insert(1, "role", ["primary", *["secondary"] * len(secondary)])
    adjusted_p = [found[name].p_value if name == primary else adjusted[name] for name in found]
    frame.insert(frame.columns.get_loc("p_value") + 1, "adjusted_p_value", adjusted_p)
    return frame


def _row(comparison: Comparison) -> dict[str, Any]:
    control, treated = comparison.arms
    return {
        "difference": comparison.difference,
        "ci_low": comparison.ci_low,
        "ci_high": comparison.ci_high,
        "p_value": comparison.p_value,
        "n_control": comparison.n_units[control],
        "n_arm": comparison.n_units[treated],
        "warnings": comparison.warnings,
    }


def outlier_sensitivity(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    outcome: str,
    share: float = 0.01,
    control: Hashable | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The difference as it is, winsorised and trimmed: does it hang on a few extreme units?

    Bounds are the quantiles `share` and 1 - `share` of the unit means of both arms together. A trimmed difference is of
    who is left, which the arm may have changed: something to hold beside, never the readout. Columns: outcome, then as
    `compare_metrics`, and changed (units beyond the bounds).
    """
    if not 0 < share < 0.5:
        raise ValueError(f"share must lie between 0 and 0.5, such as 0.01; it is {share}")
    control = order_arms(data[arm].dropna(), control)[0]
    frame = unit_values(data, unit=unit, arm=arm, outcome=outcome)
    low, high = np.quantile(frame["value"], [share, 1 - share])
    inside = frame["value"].between(low, high)
    tables = {
        "as it is": frame,
        f"winsorised at {share:.1%}": frame.assign(value=frame["value"].clip(low, high)),
        f"trimmed at {share:.1%}": frame.assign(value=frame["value"].where(inside)),
    }
    rows = [
        {"outcome": name, "changed": 0 if name == "as it is" else int((~inside).sum())}
        | _row(compare_arms(table, unit="unit", arm="arm", outcome="value", control=control, **options))
        for name, table in tables.items()
    ]
    return pd.DataFrame(rows)


def effect_by_week(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    outcome: str,
    day: str,
    fill: float | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The difference in each week since exposure; `day` is the number of days since the unit's exposure, 0 the first.

    Who left has no rows: later weeks compare those who stayed, and the sample ratio of each week tells whether the arms
    kept as many. With `fill` (0 for done nothing) all who were ever seen count in every week. Columns: week (1 the
    first), then as `compare_metrics`.
    """
    week = _week(data, day)
    rows = []
    for number in sorted(week.dropna().unique()):
        part = _with_absent(data[week == number], data, unit, arm, outcome, fill)
        rows.append(
            {"week": int(number) + 1} | _row(compare_arms(part, unit=unit, arm=arm, outcome=outcome, **options))
        )
    return pd.DataFrame(rows)


def novelty_decay(
    data: pd.DataFrame,
    *,
    unit: str,
    arm: str,
    outcome: str,
    day: str,
    weeks: tuple[int, int],
    fill: float | None = None,
    control: Hashable | None = None,
    **options: Any,
) -> Comparison:
    """How much the difference has changed from one week to another: each unit's later mean less its earlier one.

    `weeks` count from 1, such as (1, 4). Only units seen in both count, unless `fill` says what the absent did.
    """
    week, control = _week(data, day) + 1, order_arms(data[arm].dropna(), control)[0]
    early, late = (
        unit_values(
            _with_absent(data[week == number], data, unit, arm, outcome, fill), unit=unit, arm=arm, outcome=outcome
        ).set_index(["unit", "arm"])["value"]
        for number in weeks
    )
    change = (late - early).dropna().rename("change").reset_index()
    return compare_arms(change, unit="unit", arm="arm", outcome="change", control=control, **options)


def _week(data: pd.DataFrame, day: str) -> pd.Series:
    days = data[day]
    if not pd.api.types.is_numeric_dtype(days) or (days < 0).any():
        raise ValueError(f"{day} must be the number of days since the unit's exposure, 0 or more")
    return days // 7


def _with_absent(
    part: pd.DataFrame, data: pd.DataFrame, unit: str, arm: str, outcome: str, fill: float | None
) -> pd.DataFrame:
    """Rows of a week, and `fill` for those of `data` who have none in it."""
    part = part[[unit, arm, outcome]]
    if fill is None:
        return part
    everybody = data[[unit, arm]].drop_duplicates()
    here = pd.MultiIndex.from_frame(part[[unit, arm]])
    absent = everybody[~pd.MultiIndex.from_frame(everybody).isin(here)]
    return pd.concat([part, absent.assign(**{outcome: float(fill)})], ignore_index=True)


@dataclass(frozen=True)
class Interaction:
    """How much the effect of the first differs between the values of the second: a difference of differences.

    `n_units` is by (first, second). `independence_p_value` is of "the two assignments have nothing to do with each
    other"; where it is below 0.001 they are entangled and there is no readout.
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n_units: dict[tuple[Hashable, Hashable], int]
    independence_p_value: float
    warnings: tuple[str, ...]
    level: float


def interaction(
    data: pd.DataFrame, *, unit: str, first: str, second: str, outcome: str, level: float = 0.95
) -> Interaction:
    """Tell whether two overlapping experiments, or an experiment and a group of people, change each other's effect.

    `first` and `second` are columns with two values each (controls as `compare_arms` finds them). By unit; units with
    more than one combination are left out. Welch's test of the four means.
    """
    known = data.dropna(subset=[unit, first, second]).reset_index(drop=True)
    names = [order_arms(known[column], None) for column in (first, second)]
    cell = (known[first] == names[0][1]).astype(int) * 2 + (known[second] == names[1][1]).astype(int)
    combinations = pd.DataFrame({"unit": known[unit], "cell": cell}).drop_duplicates()["unit"]
    several = known[unit].isin(combinations[combinations.duplicated()].unique())
    notes = []
    if several.any():
        notes.append(f"{known.loc[several, unit].nunique()} units with more than one combination are left out")
    by_unit = known[~several].assign(cell=cell).groupby(unit).agg(cell=("cell", "first"), value=(outcome, "mean"))
    assigned = np.bincount(by_unit["cell"], minlength=4).reshape(2, 2)
    entangled = (
        float(stats.chi2_contingency(assigned).pvalue) if assigned.any(0).all() and assigned.any(1).all() else 0.0
    )
    lost = int(by_unit["value"].isna().sum())
    if lost:
        notes.append(f"{lost} of {len(by_unit)} units have no outcome and are left out")
    values = [by_unit.loc[by_unit["cell"] == k, "value"].dropna().to_numpy(dtype=float) for k in range(4)]
    n = {(names[0][k // 2], names[1][k % 2]): len(values[k]) for k in range(4)}
    nothing = (float("nan"),) * 4
    if entangled < SRM_BLOCKS:
        notes.insert(0, f"the two assignments go together (p = {entangled:.2g}): their effects cannot be told apart")
        return Interaction(*nothing, n, entangled, tuple(notes), level)
    if min(n.values()) < 2:
        notes.append("two units of each combination are needed")
        return Interaction(*nothing, n, entangled, tuple(notes), level)
    share = np.array([part.var(ddof=1) / len(part) for part in values])
    difference = float(np.array([1, -1, -1, 1]) @ [part.mean() for part in values])
    error = float(np.sqrt(share.sum()))
    if error < 1e-12 * max(abs(part).max() for part in values) or error == 0:
        notes.append("the outcome does not vary: there is no interval and no test")
        return Interaction(difference, *nothing[1:], n, entangled, tuple(notes), level)
    degrees = share.sum() ** 2 / (share**2 / [len(part) - 1 for part in values]).sum()
    reach = float(stats.t.ppf((1 + level) / 2, degrees) * error)
    p_value = float(2 * stats.t.sf(abs(difference) / error, degrees))
    return Interaction(difference, difference - reach, difference + reach, p_value, n, entangled, tuple(notes), level)


# The decision


class Interval(Protocol):
    """What a decision reads: `Comparison`, `Retention`, `Interaction` and `AlwaysValid` have it."""

    @property
    def ci_low(self) -> float:
        """Lower end."""

    @property
    def ci_high(self) -> float:
        """Upper end."""


@dataclass(frozen=True)
class Guardrail:
    """Something that must not get worse by more than `margin`, in its own unit, fixed before the trial."""

    name: str
    result: Interval
    margin: float
    better: Literal["higher", "lower"] = "higher"

    def verdict(self) -> Literal["safe", "harmed", "not shown", "no readout"]:
        """Safe where the interval excludes a harm of the margin; harmed where it excludes that there is none."""
        worst, best = _gain(self.result, self.better)
        if math.isnan(worst) or math.isnan(best):
            return "no readout"
        if best < 0:
            return "harmed"
        return "safe" if worst > -self.margin else "not shown"


@dataclass(frozen=True)
class Decision:
    """What is done about a trial and why; `to_json` is one line for a log."""

    experiment: str
    action: Literal["roll out", "keep control", "wait", "no readout"]
    reasons: tuple[str, ...]
    primary: dict[str, Any]
    guardrails: tuple[dict[str, Any], ...]
    decided_at: str

    def to_json(self) -> str:
        """Return one line of JSON; NaN is null."""
        return json.dumps(_plain(asdict(self)), ensure_ascii=False, allow_nan=False)

    def log(self, path: str | Path) -> None:
        """Append the line to the file of decisions."""
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(self.to_json() + "\n")


def decide(
    experiment: str,
    primary: Interval,
    guardrails: Sequence[Guardrail],
    *,
    decided_at: str,
    smallest_effect: float = 0.0,
    better: Literal["higher", "lower"] = "higher",
    required: Sequence[str] = GUARDRAILS,
) -> Decision:
    """Roll out if the primary metric is better by more than `smallest_effect` and every guardrail is shown safe.

    In this order: no readout where the primary has no interval or its sample ratio is off; keep control where a
    guardrail is harmed, or where the primary's interval excludes `smallest_effect`; wait where something is not shown,
    or a guardrail of `required` is missing; else roll out. All reasons are given, not the first only.
    """
    worst, best = _gain(primary, better)
    checked = [(rail, rail.verdict()) for rail in guardrails]
    missing = [name for name in required if name not in {rail.name for rail in guardrails}]
    stated = f"primary metric: gain from {worst:.4g} to {best:.4g}"
    reasons = []
    action: Literal["roll out", "keep control", "wait", "no readout"] = "roll out"
    unread = math.isnan(worst) or math.isnan(best) or getattr(primary, "srm_p_value", 1.0) < SRM_BLOCKS
    if unread:
        reasons += ["the primary metric has no readout", *getattr(primary, "warnings", ())]
    elif worst > smallest_effect:
        reasons.append(f"{stated}, above {smallest_effect:g}")
    elif best <= smallest_effect:
        reasons.append(f"{stated}, which excludes more than {smallest_effect:g}")
    else:
        reasons.append(f"{stated}: not yet told from {smallest_effect:g}")
    for rail, verdict in checked:
        low, high = _gain(rail.result, rail.better)
        told = "" if verdict == "no readout" else f": change for the better from {low:.4g} to {high:.4g}"
        reasons.append(f"guardrail {rail.name} {verdict}{told}, margin {rail.margin:g}")
    reasons += [f"guardrail {name} is missing" for name in missing]
    verdicts = {verdict for _, verdict in checked}
    if unread:
        action = "no readout"
    elif "harmed" in verdicts or best <= smallest_effect:
        action = "keep control"
    elif worst <= smallest_effect or missing or verdicts - {"safe"}:
        action = "wait"
    return Decision(
        experiment=experiment,
        action=action,
        reasons=tuple(reasons),
        primary={"better": better, "smallest_effect": smallest_effect} | _numbers_of(primary),
        guardrails=tuple(
            {"name": rail.name, "verdict": verdict, "margin": rail.margin, "better": rail.better}
            | _numbers_of(rail.result)
            for rail, verdict in checked
        ),
        decided_at=decided_at,
    )


def _gain(result: Interval, better: str) -> tuple[float, float]:
    """The interval as a change for the better."""
    return (result.ci_low, result.ci_high) if better == "higher" else (-result.ci_high, -result.ci_low)


def _numbers_of(result: Interval) -> dict[str, Any]:
    names = ("difference", "ci_low", "ci_high", "p_value", "level", "srm_p_value", "warnings")
    return {name: getattr(result, name) for name in names if hasattr(result, name)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
