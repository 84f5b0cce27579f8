"""What analyses found, as findings and as tables for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import behaviour
from habitlab.evaluation.claims import METHOD, ClaimResult
from habitlab.evaluation.estimates import Estimate, Resampled

FIGURES = {
    "complexity_time_commitment": "claims",
    "concurrent_habits_completion": "claims",
    "consistent_time_streak": "claims",
    "goal_setting_completion": "claims",
    "clear_description_adoption": "claims",
}
"""Figure of report 03 that shows a claim."""

VERDICTS = ("reproduced", "differs", "inconclusive", "not testable")


def pick(table: pd.DataFrame, *, key: str, label: str, unit: str = "share", **where: Any) -> Estimate:
    """Make an `Estimate` of the one row of a tidy frame in which columns have these values.

    `table` has the columns of `behaviour`'s frames; `n` counts users. Raises `MissingColumn` where no row fits and
    ValueError where several do.
    """
    fits = np.logical_and.reduce([table[column] == value for column, value in where.items()], axis=0)
    rows = table[fits] if where else table
    if rows.empty:
        raise MissingColumn(f"needs data on {' and '.join(str(value) for value in where.values())}; there are none")
    if len(rows) > 1:
        raise ValueError(f"{key}: {len(rows)} rows have {where}; one should")
    row = rows.iloc[0]
    return Estimate(
        key=key,
        label=label,
        estimate=float(row["estimate"]),
        ci_low=float(row["ci_low"]),
        ci_high=float(row["ci_high"]),
        level=float(row["level"]),
        n=int(row["users"]),
        unit=unit,
        method=f"{row['method']}; {row['pairs']:,} pairs of {row['users']:,} users",
        reason=row["reason"],
    )


def several(
    resampled: Resampled, parts: dict[str, str], *, level: float, method: str, unit: str = "share difference"
) -> list[Estimate]:
    """Make an `Estimate` of each value of a statistic; `parts` gives key and label of each, in their order."""
    low, high = resampled.interval(level)
    return [
        Estimate(
            key=key,
            label=label,
            estimate=float(resampled.estimate[column]),
            ci_low=float(low[column]),
            ci_high=float(high[column]),
            level=level,
            n=resampled.n,
            unit=unit,
            method=method,
            reason=resampled.reason(column),
        )
        for column, (key, label) in enumerate(parts.items())
    ]


def dip(dataset: Dataset, *, level: float, resamples: int, seed: int) -> list[Estimate]:
    """Return how far days 7-14 lie below the days before and after them, among those still active."""
    found = behaviour.dip(behaviour.cycle_data(dataset), resamples=resamples, seed=seed)
    parts = {"dip_from_start": "Days 1-3 less days 7-14", "dip_to_recovery": "Days 22-35 less days 7-14"}
    return several(found, parts, level=level, method=f"share done by those still active; {METHOD}")


def peak_share(dataset: Dataset, *, level: float, resamples: int, seed: int) -> Estimate:
    """Return the share of completions in the hours that the overview names."""
    found = behaviour.peak_share(dataset, resamples=resamples, seed=seed)
    parts = {"peak_share": "Completions at 6-8 and 19-21, local time"}
    return several(found, parts, level=level, method=f"share of completions; {METHOD}", unit="share")[0]


def survival_curves(retention: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return `behaviour.retention` as a frame a group, in the words of survival plots: time, survival, at_risk."""
    names = {"day": "time", "estimate": "survival"}
    return {str(group): curve.rename(columns=names) for group, curve in retention.groupby("group", sort=False)}


def by_frequency(dataset: Dataset, *, level: float, resamples: int, seed: int) -> pd.DataFrame:
    """Return completion and retention of daily, weekly and other habits, one below the other."""
    draw = {"level": level, "resamples": resamples, "seed": seed}
    parts = {
        "completion": behaviour.completion_by(dataset, "frequency", **draw),
        "retention": behaviour.retention_by(dataset, "frequency", **draw),
    }
    table = pd.concat([part.assign(measure=name) for name, part in parts.items()], ignore_index=True)
    return table[["measure", "group", "estimate", "ci_low", "ci_high", "users", "pairs"]]


def register(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the whole register, a row a claim, with all that was measured."""
    columns = "id statement reported estimate ci_low ci_high n units unit verdict reason estimand tolerance method"
    names = [*columns.split(), "p_value", "q_value", "key"]
    return pd.DataFrame([{name: getattr(result, name) for name in names} for result in results], columns=names)


def tally(results: Sequence[ClaimResult]) -> list[dict[str, Any]]:
    """Return how many claims got each verdict, as findings."""
    counts = {name: sum(result.verdict == name for result in results) for name in VERDICTS}
    return [
        {
            "key": name.replace(" ", "_"),
            "label": f"Claims that are {name}" if name != "differs" else "Claims that differ",
            "estimate": count,
            "ci_low": None,
            "ci_high": None,
            "level": None,
            "n": len(results),
            "unit": "",
            "method": "count of verdicts over the register",
        }
        for name, count in counts.items()
    ]


def numbered(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the measured claims that give a number: statement, reported, estimate, ci_low, ci_high, n."""
    table = register([result for result in results if result.reported is not None and np.isfinite(result.estimate)])
    if table.empty:
        raise MissingColumn("needs a claim with a number that these data can test; there is none")
    return table[["id", "statement", "reported", "estimate", "ci_low", "ci_high", "n", "verdict"]]


def levels(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the correlations over pairs, users and habits side by side, and whether the claim is about that level."""
    rows = [
        {
            "id": result.id,
            "level": one.label.removeprefix("correlation over "),
            "judged": one.label.endswith(result.units),
            "reported": result.reported if one.label.endswith(result.units) else np.nan,
            "estimate": one.estimate,
            "ci_low": one.ci_low,
            "ci_high": one.ci_high,
            "n": one.n,
            "label": f"{result.id} over {one.label.removeprefix('correlation over ')}",
        }
        for result in results
        for one in result.levels
        if one.unit == "r" and np.isfinite(one.estimate)
    ]
    if not rows:
        raise MissingColumn("needs a correlation that these data can test; there is none")
    return pd.DataFrame(rows)


def naive(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the naive readings beside what was measured and, where it is known, the true causal effect."""
    rows = [
        {
            "id": result.id,
            "naive reading": one.label,
            "naive": one.estimate,
            "naive low": one.ci_low,
            "naive high": one.ci_high,
            "n": one.n,
            "measured": result.estimate,
            "true effect": np.nan if result.truth is None else result.truth,
        }
        for result in results
        for one in result.naive
        if np.isfinite(one.estimate)
    ]
    if not rows:
        raise MissingColumn("needs a claim that these data can test; there is none")
    return pd.DataFrame(rows)
