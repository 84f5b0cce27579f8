"""From one comparison to a readout: several metrics, outliers, and whether the difference wears off."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from habitlab.evaluation.estimates import false_discovery_adjusted
from habitlab.evaluation.experiments import Comparison, compare_arms, order_arms, unit_values


def adjust_p_values(p_values: Mapping[str, float], method: Literal["holm", "bh"] = "holm") -> dict[str, float]:
    """Adjust p-values for their number: Holm (1979) against any false positive, Benjamini-Hochberg (1995) for a share.

    What is NaN was not tested: it stays NaN and does not count.
    """
    if method not in ("holm", "bh"):
        raise ValueError(f"method must be 'holm' or 'bh'; it is {method!r}")
    if method == "bh":
        return dict(zip(p_values, map(float, false_discovery_adjusted(list(p_values.values()))), strict=True))
    tested = {name: p for name, p in p_values.items() if not math.isnan(p)}
    p = np.array(list(tested.values()))
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
    denominators: Mapping[str, str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Compare the arms on one primary metric, tested as it is, and on others, adjusted for their number.

    `denominators` names the column by which a metric that is a ratio is divided. Columns: metric, role, difference,
    ci_low, ci_high (each at `level`, not adjusted), p_value, adjusted_p_value, n_control, n_arm, test, warnings.
    `options` go to `compare_arms`.
    """
    if primary in secondary or len(set(secondary)) < len(secondary):
        raise ValueError(f"each metric has one role; got primary {primary!r} and secondary {list(secondary)}")
    found = {
        name: compare_arms(
            data,
            unit=unit,
            arm=arm,
            outcome=name,
            level=level,
            **{"denominator": (denominators or {}).get(name)} | options,
        )
        for name in (primary, *secondary)
    }
    adjusted = adjust_p_values({name: found[name].p_value for name in secondary}, method)
    frame = pd.DataFrame([_row(comparison) for comparison in found.values()])
    frame.insert(0, "metric", list(found))
    frame.insert(1, "role", ["primary", *["secondary"] * len(secondary)])
    adjusted_p = [found[name].p_value if name == primary else adjusted[name] for name in found]
    frame.insert(frame.columns.get_loc("p_value") + 1, "adjusted_p_value", adjusted_p)
    frame.insert(frame.columns.get_loc("warnings"), "test", [comparison.method for comparison in found.values()])
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
    denominator: str | None = None,
    share: float = 0.01,
    control: Hashable | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The difference as it is, winsorised and trimmed: does it hang on a few extreme units?

    Bounds are the quantiles `share` and 1 - `share` of the unit means of both arms together; of a ratio, of what each
    unit adds to its arm's ratio (linearised, as in the delta method). A trimmed difference is of who is left, which the
    arm may have changed: something to hold beside, never the readout. Columns: outcome, then as `compare_metrics`, and
    changed (units beyond the bounds).

    Raises
    ------
    ValueError
        As `compare_arms`, or `share` is not between 0 and 0.5, or no unit has a known outcome.
    """
    if not 0 < share < 0.5:
        raise ValueError(f"share must lie between 0 and 0.5, such as 0.01; it is {share}")
    first = compare_arms(data, unit=unit, arm=arm, outcome=outcome, denominator=denominator, control=control, **options)
    control = first.arms[0]
    frame = unit_values(data, unit=unit, arm=arm, outcome=outcome, denominator=denominator)
    if frame.empty:
        raise ValueError(f"no unit has a known {outcome}: there is nothing to trim")
    low, high = np.quantile(frame["value"], [share, 1 - share])
    inside = frame["value"].between(low, high) | frame["value"].isna()
    means: dict[str, str | None] = {"outcome": "value", "denominator": None}
    top = "value" if denominator is None else "outcome"
    ratio = means if denominator is None else {"outcome": top, "denominator": "denominator"}
    tables = {
        f"winsorised at {share:.1%}": (frame.assign(value=frame["value"].clip(low, high)), means),
        f"trimmed at {share:.1%}": (frame.assign(**{top: frame[top].where(inside)}), ratio),
    }
    rows = [{"outcome": "as it is", "changed": 0} | _row(first)]
    for name, (table, which) in tables.items():
        # A blocked readout stays blocked: the sample ratio is of rows as they came, not of unit means.
        held = (
            first if first.blocked else compare_arms(table, unit="unit", arm="arm", control=control, **which, **options)
        )
        rows.append({"outcome": name, "changed": int((~inside).sum())} | _row(held))
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
    undated = int(week.isna().sum())
    if undated == len(week):
        raise ValueError(f"no row has a {day}: there is no week to read")
    lost = (f"{undated} of {len(week)} rows have no {day} and are left out",) if undated else ()
    rows = []
    for number in sorted(week.dropna().unique()):
        part = _with_absent(data[week == number], data, unit, arm, outcome, fill)
        row = _row(compare_arms(part, unit=unit, arm=arm, outcome=outcome, **options))
        rows.append({"week": int(number) + 1} | row | {"warnings": row["warnings"] + lost})
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
    if fill is None:
        return part
    part = part[[unit, arm, outcome]]
    everybody = data[[unit, arm]].drop_duplicates()
    here = pd.MultiIndex.from_frame(part[[unit, arm]])
    absent = everybody[~pd.MultiIndex.from_frame(everybody).isin(here)]
    return pd.concat([part, absent.assign(**{outcome: float(fill)})], ignore_index=True)
