"""From comparisons to a decision: overlapping experiments and groups, guardrails, and what is done."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.evaluation.experiments import SRM_BLOCKS, check_columns, numbers, order_arms

GUARDRAILS = ("retention", "fairness", "minors")
"""Without a guardrail of each of these names nothing is rolled out."""


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

    Raises
    ------
    ValueError
        A column is absent, named twice or no number, or has not two values, or `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; it is {level}")
    check_columns(data, (unit, first, second), (outcome,))
    values = pd.Series(numbers(data[outcome], outcome), data.index)
    known = data.assign(**{outcome: values.where(np.isfinite(values))})
    known = known.dropna(subset=[unit, first, second]).reset_index(drop=True)
    names = [order_arms(known[column], None) for column in (first, second)]
    cell = (known[first] == names[0][1]).astype(int) * 2 + (known[second] == names[1][1]).astype(int)
    combinations = pd.DataFrame({"unit": known[unit], "cell": cell}).drop_duplicates()["unit"]
    several = known[unit].isin(combinations[combinations.duplicated()].unique())
    notes = []
    if len(known) < len(data):
        notes.append(
            f"{len(data) - len(known)} of {len(data)} rows have no {unit}, {first} or {second} and are left out"
        )
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
    parts = [by_unit.loc[by_unit["cell"] == k, "value"].dropna().to_numpy(dtype=float) for k in range(4)]
    n = {(names[0][k // 2], names[1][k % 2]): len(parts[k]) for k in range(4)}
    nothing = (float("nan"),) * 4
    if entangled < SRM_BLOCKS:
        notes.insert(0, f"the two assignments go together (p = {entangled:.2g}): their effects cannot be told apart")
        return Interaction(*nothing, n, entangled, tuple(notes), level)
    if min(n.values()) < 2:
        notes.append("two units of each combination are needed")
        return Interaction(*nothing, n, entangled, tuple(notes), level)
    share = np.array([part.var(ddof=1) / len(part) for part in parts])
    difference = float(np.array([1, -1, -1, 1]) @ [part.mean() for part in parts])
    error = float(np.sqrt(share.sum()))
    if error < 1e-12 * max(abs(part).max() for part in parts) or error == 0:
        notes.append("the outcome does not vary: there is no interval and no test")
        return Interaction(difference, *nothing[1:], n, entangled, tuple(notes), level)
    degrees = 1 / ((share / share.sum()) ** 2 / [len(part) - 1 for part in parts]).sum()
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
    """Something that must not get worse by more than `margin`, in its own unit, fixed before the trial.

    `better`: higher, lower, or equal for a gap between groups, which is a harm whichever of them is behind.
    """

    name: str
    result: Interval
    margin: float
    better: Literal["higher", "lower", "equal"] = "higher"

    def __post_init__(self) -> None:
        """Check the rule."""
        if self.better not in ("higher", "lower", "equal") or not 0 <= self.margin < math.inf:
            raise ValueError(
                f"guardrail {self.name}: the margin is 0 or more, better is higher, lower or equal; "
                f"got {self.margin} and {self.better!r}"
            )

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
        told = "" if verdict == "no readout" else f": change for the better from {low + 0.0:.4g} to {high + 0.0:.4g}"
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
    """The interval as a change for the better; of what should be equal, as minus its distance from 0."""
    if better == "equal":
        ends = abs(result.ci_low), abs(result.ci_high)
        return -max(ends), 0.0 if result.ci_low <= 0 <= result.ci_high else -min(ends)
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
