"""What analyses found, as findings and as tables for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn, quality
from habitlab.dataset.vocabulary import WEEKDAYS, Status
from habitlab.evaluation import behaviour, estimates
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


# Report 01: what the data hold


def counts(dataset: Dataset) -> list[dict[str, Any]]:
    """Return how many users, habits and days are tracked, as findings."""
    tracking = dataset.habit_tracking
    found = {
        "users_tracked": ("Users with a tracked day", tracking["user_id"].nunique()),
        "habits_tracked": ("Habits with a tracked day", tracking["habit_id"].nunique()),
        "tracked_days": ("Habit-days tracked: a habit due for a user on a day", len(tracking)),
    }
    return [exact(key, label, count, n=count, method="count") for key, (label, count) in found.items()]


def coverage(dataset: Dataset, *, level: float, resamples: int = 1000, seed: int = 0) -> list[Estimate]:
    """Return the share of habit-days that count as done or missed, and the share where this is inferred."""
    tracking = dataset.habit_tracking
    if tracking.empty:
        return []
    known = tracking["status"].isin([Status.DONE, Status.MISSED])
    draw: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    known_share = _share(dataset, known, "known_share", "Habit-days counted as done or missed", **draw)
    return [known_share, *derived_share(dataset, **draw)]


def derived_share(dataset: Dataset, *, level: float, resamples: int, seed: int) -> list[Estimate]:
    """Return the share of habit-days missed by inference, where the source states only what was done; else nothing."""
    tracking = dataset.habit_tracking
    if "derived" not in tracking or not tracking["derived"].any():
        return []
    inferred = tracking["derived"].fillna(False).astype(bool) & (tracking["status"] == Status.MISSED)
    draw: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    return [_share(dataset, inferred, "derived_share", "Habit-days missed by inference", **draw)]


def _share(
    dataset: Dataset, flags: pd.Series, key: str, label: str, *, level: float, resamples: int, seed: int
) -> Estimate:
    users = pd.factorize(dataset.habit_tracking["user_id"])[0]
    found = estimates.ratio(flags.to_numpy(), 1.0, users, resamples=resamples, seed=seed)
    return several(found, {key: label}, level=level, method=f"share of habit-days; {METHOD}", unit="share")[0]


def exact(key: str, label: str, value: float | None, *, n: int, method: str, unit: str = "") -> dict[str, Any]:
    """Return a finding that is counted, not estimated: it has no interval."""
    names = {"key": key, "label": label, "estimate": value, "n": n, "unit": unit, "method": method}
    return names | {"ci_low": None, "ci_high": None, "level": None}


def oddities(dataset: Dataset) -> pd.DataFrame:
    """Return broken rules, repeats, overlaps and values that can hardly be true, one below the other."""
    broken = quality.contract(dataset).rename(columns={"rule": "what"})
    repeats = quality.duplicates(dataset).rename(columns={"kind": "what"})
    overlaps = len(quality.overlapping_sessions(dataset))
    sessions = pd.DataFrame({"table": ["sessions"], "what": ["overlap"], "rows": [overlaps]})[: 1 if overlaps else 0]
    parts = [broken, repeats, quality.suspicious(dataset), sessions]
    return pd.concat(parts, ignore_index=True).reindex(columns=["table", "column", "what", "rows", "first"])


def missing_columns(missingness: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the contract that are not complete, without what only a comparison needs."""
    found = missingness[missingness["verdict"] != "complete"]
    found = found.assign(column=found["table"] + "." + found["column"])
    return found[["column", "missing", "share", "difference", "q_value", "verdict"]]


def compared(unknown: pd.DataFrame) -> pd.DataFrame:
    """Return what unknown days go with: their share on either side, the difference and the verdict."""
    found = unknown[["about", "rate_1", "rate_0", "difference", "q_value", "verdict"]]
    return found.rename(columns={"about": "where", "rate_1": "share here", "rate_0": "share elsewhere"})


def imports(dataset: Dataset) -> pd.DataFrame:
    """Return where each row of each imported source went: imported, skipped by reason, derived; empty without any."""
    rows = []
    for one in dataset.metadata.get("imports", []):
        rows.append((one["source"], "imported", one["imported"], f"a row is {one['row']}"))
        rows += [
            (one["source"], f"skipped: {reason}", count, "; ".join(one["examples"].get(reason, [])))
            for reason, count in one["skipped"].items()
        ]
        rows += [
            (one["source"], f"derived: {status} days", count, "not stated by any row of the source")
            for status, count in one["derived"].items()
        ]
        rows += [(one["source"], "note", None, note) for note in one["notes"]]
    return pd.DataFrame(rows, columns=["source", "where it went", "rows", "remark"])


def calendar(coverage: pd.DataFrame) -> pd.DataFrame:
    """Return the days known to be done or missed, relative to the busiest day: weekdays x weeks."""
    known = coverage["done"] + coverage["missed"]
    if known.sum() == 0:
        raise MissingColumn("needs a day known to be done or missed; this dataset has none")
    known = known / known.max()
    day = known.index.day_of_week
    table = pd.DataFrame({"known": known, "weekday": day, "week": known.index - pd.to_timedelta(day, unit="D")})
    grid = table.pivot_table(index="weekday", columns="week", values="known", dropna=False)
    return grid.set_axis([WEEKDAYS[number] for number in grid.index])


def gaps(missingness: pd.DataFrame) -> pd.DataFrame:
    """Return the columns whose gaps could be compared, largest difference first."""
    judged = missingness[missingness["difference"].notna() & missingness["ci_low"].notna()]
    if judged.empty:
        raise MissingColumn("needs a column that is filled for some and missing for others; there is none")
    columns = ["label", "missing", "expected", "n_missing", "n_filled", "difference", "ci_low", "ci_high", "q_value"]
    judged = judged.assign(label=judged["table"] + "." + judged["column"])
    return judged.sort_values("difference", key=abs, ascending=False)[[*columns, "verdict"]]


# Reports 02 and 03


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


def extremes(table: pd.DataFrame, of: str, *, column: str = "group") -> list[Estimate]:
    """Return the rows of a tidy frame with the highest and the lowest estimate, as `best_...` and `worst_...`."""
    known = table.dropna(subset=["estimate"])
    if len(known) < 2:
        raise MissingColumn(f"needs two groups of {of} or more; there are {len(known)}")
    places = {
        "best": ("completed most", known["estimate"].idxmax()),
        "worst": ("completed least", known["estimate"].idxmin()),
    }
    return [
        pick(known.loc[[row]], key=f"{end}_{of}", label=f"{of.capitalize()} {words}: {known.loc[row, column]}")
        for end, (words, row) in places.items()
    ]


def short(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out what is the same in each row of a tidy frame and stands in the methods: level, method, no reason."""
    useless = ["level", "method", *(["reason"] if "reason" in table and not table["reason"].astype(bool).any() else [])]
    return table.drop(columns=[column for column in useless if column in table])


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
    draw: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    parts = {
        "completion": behaviour.completion_by(dataset, "frequency", **draw),
        "retention": behaviour.retention_by(dataset, "frequency", **draw),
    }
    for name, part in parts.items():
        part.insert(0, "measure", name)
    return pd.concat(parts.values(), ignore_index=True).drop(columns=["day", "at_risk"])


def register(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the whole register, a row a claim, with all that was measured."""
    columns = "id statement reported estimate ci_low ci_high n units unit verdict reason estimand tolerance method"
    names = [*columns.split(), "p_value", "q_value", "key"]
    return pd.DataFrame([{name: getattr(result, name) for name in names} for result in results], columns=names)


def tally(results: Sequence[ClaimResult]) -> list[dict[str, Any]]:
    """Return how many claims got each verdict, as findings."""
    counts = {name: sum(result.verdict == name for result in results) for name in VERDICTS}
    return [
        exact(
            name.replace(" ", "_"),
            "Claims that differ" if name == "differs" else f"Claims that are {name}",
            count,
            n=len(results),
            method="verdicts over the register",
        )
        for name, count in counts.items()
    ]


def correlations(results: Sequence[ClaimResult]) -> list[Estimate]:
    """Return the correlations that the register is about, at the level of the claim, as findings."""
    return [
        replace(one, label=f"{_LABELS[result.key]}, {one.label}")
        for result in results
        for one in result.levels
        if one.label == f"correlation over {result.units}" and np.isfinite(one.estimate)
    ]


def numbered(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the measured claims that give a number: label, reported, estimate, ci_low, ci_high, n, verdict."""
    table = register([result for result in results if result.reported is not None and np.isfinite(result.estimate)])
    if table.empty:
        raise MissingColumn("needs a claim with a number that these data can test; there is none")
    table = table.assign(label=table["key"].map(_LABELS))
    return table[["id", "label", "reported", "estimate", "ci_low", "ci_high", "n", "verdict"]]


_LABELS = {
    "complexity_time_commitment": "Complexity and time commitment",
    "concurrent_habits_completion": "Habits held at once and completion",
    "consistent_time_streak": "Consistent hour and streak",
    "goal_setting_completion": "Goal setting and completion",
    "clear_description_adoption": "Clear description and adoption",
}
"""The claims with a number, short enough for an axis."""


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
            "label": f"{_LABELS[result.key]}, {one.label.removeprefix('correlation over ')}",
        }
        for result in results
        for one in result.levels
        if one.unit == "r" and np.isfinite(one.estimate)
    ]
    if not rows:
        raise MissingColumn("needs a correlation that these data can test; there is none")
    return pd.DataFrame(rows)


def naive(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return the naive readings and, where it is known, the true causal effect in the same unit."""
    rows = [
        {
            "id": result.id,
            "naive reading": one.label,
            "unit": one.unit,
            "estimate": one.estimate,
            "ci low": one.ci_low,
            "ci high": one.ci_high,
            "n": one.n,
            "true effect": np.nan if result.truth is None or one.unit not in _CAUSAL else result.truth,
        }
        for result in results
        for one in result.naive
        if np.isfinite(one.estimate)
    ]
    if not rows:
        raise MissingColumn("needs a claim that these data can test; there is none")
    return pd.DataFrame(rows)


_CAUSAL = ("share", "share difference")
"""Units of the true effects that a simulated world knows; a correlation has no causal reading."""
