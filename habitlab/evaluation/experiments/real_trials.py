"""Report 09: what real trials say, as findings, tables and sentences: a published one, and those of a dataset.

A sentence about a verdict is chosen by the numbers, never written beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.experiments import Comparison, compare_arms, find_control
from habitlab.evaluation.experiments.trial_metrics import DENOMINATORS, PRIMARY, trial_table
from habitlab.evaluation.experiments.trials import load_browser_trial
from habitlab.evaluation.tables import exact

SIDES = {"unit": "user_id", "arm": "arm"}
COMPLETION: dict[str, Any] = SIDES | {"outcome": PRIMARY, "denominator": DENOMINATORS[PRIMARY]}


def estimate(key: str, label: str, found: Comparison, unit: str = "share difference", scale: float = 1.0) -> Estimate:
    """One comparison as a finding; n counts people once, also where they are in both arms."""
    n = list(found.n_units.values())
    return Estimate(
        key=key,
        label=label,
        estimate=found.difference * scale,
        ci_low=found.ci_low * scale,
        ci_high=found.ci_high * scale,
        level=found.level,
        n=max(n) if found.design == "within units" else sum(n),
        unit=unit,
        method=f"{found.method}, {found.design}; p = {found.p_value:.3g}",
        reason="; ".join(found.warnings) or "no interval",
    )


def browser_readings(folder: str, level: float) -> pd.DataFrame:
    """The browser trial read four ways: reading, counted, n, difference (log of time), its interval and p-value.

    Raises
    ------
    MissingColumn
        The files are not there: says where they come from.
    """
    try:
        rows = load_browser_trial(folder)
    except FileNotFoundError as error:
        raise MissingColumn(f"{error}, see data/README.md") from None
    by_user: dict[str, Any] = {"unit": "user", "arm": "arm", "outcome": "time", "level": level}
    arms = [rows.loc[rows["arm"] == name, "time"] for name in ("frequent", "infrequent")]
    naive = stats.ttest_ind(*arms)  # Student's, as the overview's code does it
    low, high = naive.confidence_interval(level)
    readings = {
        "rows, errors by person": compare_arms(rows.assign(one=1.0), denominator="one", **by_user),
        "each person once": compare_arms(rows, **by_user),
        "each person once, site taken off": compare_arms(rows, covariate="goal_time", **by_user),
    }
    difference = float(arms[0].mean() - arms[1].mean())
    table = [("rows as if people", "rows", len(rows), difference, low, high, float(naive.pvalue))]
    for name, one in readings.items():
        n = max(one.n_units.values())
        table.append((name, "people", n, one.difference, one.ci_low, one.ci_high, one.p_value))
    return pd.DataFrame(table, columns=["reading", "counted", "n", "difference", "ci_low", "ci_high", "p_value"])


def browser_findings(readings: pd.DataFrame, level: float) -> tuple[list[Estimate], list[Any]]:
    """The difference by row and by person in per cent of the time; and their p-values."""
    rows = {
        "rows": (0, "by row", "Student's t of rows as if people"),
        "clustered": (1, "by row, errors by person", "ratio, delta method"),
        "people": (2, "by person", "paired t-test"),
    }
    times, p_values = [], []
    for key, (place, words, method) in rows.items():
        one = readings.iloc[place]
        middle, low, high = (float(100 * np.expm1(one[name])) for name in ("difference", "ci_low", "ci_high"))
        label = f"Real trial, {words}: time on a site, frequent against infrequent nudges"
        method = f"geometric mean of seconds, {method}; p = {one['p_value']:.3g}"
        if key != "clustered":
            times.append(Estimate(f"time_{key}", label, middle, low, high, level, int(one["n"]), "%", method))
        p_values.append(
            exact(f"p_{key}", f"Real trial, p-value {words}", one["p_value"], n=int(one["n"]), method=method)
        )
    return times, p_values


def browser_sentences(readings: pd.DataFrame, level: float) -> list[str]:
    """What both readings of the real trial say, in words that follow the numbers."""
    by_row, by_person = (bool(readings["p_value"].iloc[place] < 1 - level) for place in (0, 2))
    first = "shows an effect by row" if by_row else "shows no effect that can be told by row"
    second = {
        (True, False): "and none that can be told by person",
        (True, True): "and one by person",
        (False, False): "nor one by person",
        (False, True): "but one by person",
    }[by_row, by_person]
    moral = ": count whom the lot fell on" if by_row != by_person else ""
    return [f"A real trial {first} (p = {{p_rows}}) {second} (p = {{p_people}}){moral}."]


def own_trials(dataset: Dataset, level: float) -> pd.DataFrame:
    """Completion in every experiment that a dataset holds, each arm against its control; empty where it holds none."""
    rows = []
    for name, log in dataset.experiments.groupby("experiment", sort=True):
        try:
            table = trial_table(dataset, str(name))
            arms = sorted(table["arm"].unique())
            control = find_control(arms)
            pairs = [table[table["arm"].isin([control, arm])] for arm in arms if arm != control]
            found = [
                compare_arms(pair, covariate="before", level=level, control=control, **COMPLETION) for pair in pairs
            ]
            note = f"needs two arms; it has {len(arms)}" if not pairs else ""
        except ValueError as error:  # MissingColumn as well
            found, note = [], str(error)
        for one in found:
            rows.append((name, " against ".join(map(str, one.arms[::-1])), sum(one.n_units.values()), one.difference,
                         one.ci_low, one.ci_high, one.p_value, one.srm_p_value, "; ".join(one.warnings)))  # fmt: skip
        if not found:
            rows.append((name, "", log["user_id"].nunique(), *[np.nan] * 5, note))
    columns = [
        "experiment",
        "arms",
        "people",
        "difference",
        "ci_low",
        "ci_high",
        "p_value",
        "sample ratio p",
        "remarks",
    ]
    return pd.DataFrame(rows, columns=columns)
