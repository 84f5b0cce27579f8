"""Trials in which nothing happens: the same people and rows, arms dealt anew again and again.

Whatever a way to read a trial then finds is a false alarm; a test at 5 % may raise it 5 times in 100. Four ways
stand side by side: rows taken for people, people, people looked at every day, and that with always valid intervals.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.dataset import MissingColumn
from habitlab.evaluation.estimates import share_interval
from habitlab.evaluation.experiments import assign
from habitlab.evaluation.experiments.arm_estimates import Bools, Floats
from habitlab.evaluation.experiments.sequential import FEWEST_AT_A_LOOK, always_valid_reach

READINGS = {
    "row": "rows as if people, at the end",
    "user": "people, at the end",
    "naive": "people, every day",
    "always": "people, every day, always valid",
}


def false_alarms(
    data: pd.DataFrame,
    *,
    unit: str,
    outcome: str,
    denominator: str,
    day: str,
    planned_effect: float,
    trials: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Deal the units into two arms `trials` times and count how often each reading finds a difference.

    Parameters
    ----------
    data
        A row a unit and day: `outcome` of `denominator` things were done. Each thing is a row to whom rows are people.
    planned_effect
        As in `sequential.always_valid`.

    Returns
    -------
    DataFrame
        reading (a key of `READINGS`), label, alarms, trials, share, ci_low and ci_high (Wilson's interval at `level`).

    Raises
    ------
    MissingColumn
        Fewer than 60 units.
    ValueError
        A value is missing or negative.
    """
    values = data[[outcome, denominator]].to_numpy(dtype=float)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{outcome} and {denominator} must be known and 0 or more on every row")
    users, _ = pd.factorize(data[unit])
    days, looks = pd.factorize(data[day], sort=True)
    if users.max(initial=-1) + 1 < 2 * FEWEST_AT_A_LOOK:
        raise MissingColumn(f"needs {2 * FEWEST_AT_A_LOOK} units; there are {users.max(initial=-1) + 1}")
    shape = (users.max() + 1, len(looks))
    top, bottom = np.zeros(shape), np.zeros(shape)
    np.add.at(top, (users, days), values[:, 0])
    np.add.at(bottom, (users, days), values[:, 1])
    top, bottom = top.cumsum(axis=1), bottom.cumsum(axis=1)
    alarms = dict.fromkeys(READINGS, 0)
    for trial in range(trials):
        arm = assign(np.arange(shape[0]), ("a", "b"), f"placebo {seed} {trial}") == "b"
        alarms["row"] += _row_p_value(top[:, -1], bottom[:, -1], arm) < 1 - level
        difference, error, degrees, known = _ratios(top, bottom, arm)
        p_value = 2 * stats.t.sf(np.abs(difference / error), degrees)
        reach = always_valid_reach(error, planned_effect=planned_effect, level=level, degrees=degrees)
        alarms["user"] += bool(known[-1] and p_value[-1] < 1 - level)
        alarms["naive"] += bool((known & (p_value < 1 - level)).any())
        alarms["always"] += bool((known & (np.abs(difference) > reach)).any())
    rows = []
    for name, count in alarms.items():
        rows.append((name, READINGS[name], int(count), trials, count / trials, *share_interval(count, trials, level)))
    return pd.DataFrame(rows, columns=["reading", "label", "alarms", "trials", "share", "ci_low", "ci_high"])


def _ratios(top: Floats, bottom: Floats, arm: Bools) -> tuple[Floats, Floats, Floats, Bools]:
    """Difference of ratios, its standard error and degrees of freedom (looks,), as `compare_arms` has them.

    Last, whether both arms have units enough for a look.
    """
    parts = []
    for side in (~arm, arm):
        here = bottom[side] > 0
        n, whole = here.sum(axis=0), bottom[side].sum(axis=0)
        ratio = top[side].sum(axis=0) / np.maximum(whole, 1)
        away = (top[side] - ratio * bottom[side]) * (n / np.maximum(whole, 1))
        parts.append((n, ratio, (away**2).sum(axis=0) / np.maximum(n - 1, 1) / np.maximum(n, 1)))
    (n0, r0, v0), (n1, r1, v1) = parts
    variance = np.maximum(v0 + v1, 1e-300)
    degrees = variance**2 / np.maximum(v0**2 / np.maximum(n0 - 1, 1) + v1**2 / np.maximum(n1 - 1, 1), 1e-300)
    return r1 - r0, np.sqrt(variance), degrees, (np.minimum(n0, n1) >= FEWEST_AT_A_LOOK) & (v0 + v1 > 0)


def _row_p_value(top: Floats, bottom: Floats, arm: Bools) -> float:
    """Student's test of rows of 0 and 1, as the overview would run it."""
    n = np.array([bottom[~arm].sum(), bottom[arm].sum()])
    share = np.array([top[~arm].sum(), top[arm].sum()]) / n
    spread = np.sqrt(share * (1 - share) * n / (n - 1))
    return float(stats.ttest_ind_from_stats(share[0], spread[0], n[0], share[1], spread[1], n[1]).pvalue)
