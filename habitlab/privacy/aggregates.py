"""Aggregates that may be published: differentially private counts, histograms and means, a person at a time.

The unit is the user, with everything that is known of them: neighbouring datasets differ by all rows of one person.
Before anything is counted each user is brought down to one bounded contribution: a vector over the cells of the table,
held in at most `most` cells, with values in [0, 1]. Its length (L2) bounds what anybody can change, and discrete
Gaussian noise from OpenDP (https://docs.opendp.org) is scaled to it. Cells are told beforehand by the vocabulary, never
read from the data: that a cell exists would be told of somebody.

OpenDP draws from the machine's secure generator and takes no seed; that noise could be repeated is what must not be.
OpenDP is an extra: `pip install 'habitlab[privacy]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.content import content_hash
from habitlab.dataset.schema import TABLES
from habitlab.dataset.vocabulary import Category
from habitlab.privacy.ledger import Ledger, epsilon_of, rho_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GRID = 1024
"""Contributions are counted in steps of 1/1024: noise over whole numbers has none of the holes of floating point."""

_CENTRE = 0.5  # means are counted from here: a person then moves a sum by half as much


@dataclass(frozen=True)
class Release:
    """A published table, and what it cost.

    `table`: a row a cell: cell, estimate, ci_low, ci_high, n. Intervals hold the exact value of the bounded
    contributions at `level`, over the noise alone. `n` is the noisy number of people. A mean of too few people for its
    interval to say anything is NaN.
    """

    table: pd.DataFrame
    epsilon: float
    delta: float
    rho: float
    scale: float
    most: int
    level: float
    unit: str = "user"


@dataclass(frozen=True, eq=False)
class Bounded:
    """Contributions brought down to the bound: `sums` are whole steps of the grid; `reach` bounds one user (L2)."""

    sums: Ints
    reach: float


def opendp() -> Any:
    """Return OpenDP; ModuleNotFoundError that names the extra where it is absent."""
    try:
        import opendp.prelude as dp
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "published aggregates need OpenDP, which is an extra: pip install 'habitlab[privacy]'"
        ) from error
    dp.enable_features("contrib")
    return dp


def mechanism(reach: float, scale: float, rho: float) -> Callable[[Ints], Ints]:
    """Return what adds discrete Gaussian noise of `scale` to sums that one user moves by `reach` at most (L2).

    ValueError if OpenDP does not grant `rho` for it.
    """
    dp = opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    measurement = dp.m.make_gaussian(*space, scale=scale)
    granted = measurement.map(reach)
    if granted > rho * (1 + 1e-6):
        raise ValueError(f"noise of scale {scale:g} costs rho {granted:g}, more than the {rho:g} that is paid")
    return lambda sums: np.array(measurement([int(value) for value in sums]), dtype=np.int64)


def noisy(bounded: Bounded, scale: float, rho: float) -> Ints:
    """Add noise to sums, as `mechanism` does."""
    return mechanism(bounded.reach, scale, rho)(bounded.sums)


def scale_for(reach: float, rho: float) -> float:
    """Return the scale of Gaussian noise that costs `rho` where one user moves the sums by `reach` at most (L2)."""
    return float(reach / np.sqrt(2 * rho))


def bound(values: pd.DataFrame, cells: Sequence[str], most: int) -> pd.DataFrame:
    """Keep at most `most` cells of each user, those of largest `weight`, of equals the first in `cells`.

    `values`: user_id, cell, value in [0, 1], weight; a user and a cell at most once. Other cells are left out. What is
    kept of a user depends on that user alone. ValueError for values outside [0, 1] and for pairs that stand twice.
    """
    if most < 1:
        raise ValueError(f"a user counts in 1 cell or more; got most={most}")
    held = values[values["cell"].isin(list(cells)) & values["value"].notna()]
    if not held["value"].between(0, 1).all():
        raise ValueError("contributions lie in [0, 1]: clip what a user brings before it is counted")
    if held.duplicated(["user_id", "cell"]).any():
        raise ValueError("a user stands twice in a cell: bring their rows together before they are counted")
    order = held["cell"].map({cell: place for place, cell in enumerate(cells)})
    held = held.assign(order=order, down=-held["weight"]).sort_values(["user_id", "down", "order"], kind="stable")
    return held[held.groupby("user_id", sort=False).cumcount() < most][["user_id", "cell", "value"]]


def counted(kept: pd.DataFrame, cells: Sequence[str], most: int) -> Bounded:
    """Return the number of users in each cell (cells,), in steps; `kept` is of `bound` with the same `most`."""
    place = kept["cell"].map({cell: position for position, cell in enumerate(cells)}).to_numpy(dtype=np.int64)
    return Bounded(GRID * np.bincount(place, minlength=len(cells)).astype(np.int64), GRID * float(np.sqrt(most)))


def summed(kept: pd.DataFrame, cells: Sequence[str], most: int) -> Bounded:
    """Return users and their values from one half on, in each cell (2 cells,), in steps."""
    place = kept["cell"].map({cell: position for position, cell in enumerate(cells)}).to_numpy(dtype=np.int64)
    steps = np.rint(GRID * (kept["value"].to_numpy(dtype=float) - _CENTRE))
    sums = np.bincount(place, steps, minlength=len(cells))
    users = GRID * np.bincount(place, minlength=len(cells))
    reach = GRID * float(np.sqrt(most * (1 + _CENTRE**2)))
    return Bounded(np.concatenate([users, sums]).astype(np.int64), reach)


def count_users(dataset: Dataset, epsilon: float, ledger: Ledger, *, level: float = 0.95) -> Release:
    """Publish how many people there are."""
    values = pd.DataFrame({"user_id": dataset.users["user_id"], "cell": "all", "value": 1.0, "weight": 1.0})
    return _counts(dataset, values, ["all"], "count of users", epsilon, ledger, 1, level)


def histogram(dataset: Dataset, column: str, epsilon: float, ledger: Ledger, *, level: float = 0.95) -> Release:
    """Publish how many people gave each answer to a question of choices, such as `gender`; a user is in one cell."""
    spec = TABLES["users"].columns.get(column)
    if spec is None or spec.kind != "choice" or spec.choices is None:
        choices = [name for name, one in TABLES["users"].columns.items() if one.kind == "choice"]
        raise ValueError(f"a histogram needs answers that are told beforehand: {', '.join(choices)}; got {column!r}")
    dataset.require(f"users.{column}")
    cells = [choice.value for choice in spec.choices]
    answered = dataset.users[dataset.users[column].notna()]
    values = pd.DataFrame({"user_id": answered["user_id"], "cell": answered[column].astype(str)})
    values = values.assign(value=1.0, weight=1.0)
    return _counts(dataset, values, cells, f"histogram of {column}", epsilon, ledger, 1, level)


def completion_by_category(
    dataset: Dataset, epsilon: float, ledger: Ledger, *, most: int = 3, level: float = 0.95
) -> Release:
    """Publish the mean completion of each category: the mean over people of their share of days done.

    `most`: in how many categories a person counts, those that they tracked on most days.
    """
    values, cells = completion(dataset), [category.value for category in Category]
    rho = rho_of(epsilon, ledger.delta)
    bounded = summed(bound(values, cells, most), cells, most)
    scale = scale_for(bounded.reach, rho)
    what = f"completion by category, {most} a user"
    told = ledger.spend(content_hash(dataset), what, rho, lambda: noisy(bounded, scale, rho).tolist())
    return _release(means_of(np.array(told), cells, scale, level), ledger, rho, scale / GRID, most, level)


def completion(dataset: Dataset) -> pd.DataFrame:
    """Return each user's share of days done in each category: user_id, cell, value, weight (days that count)."""
    dataset.require("habit_tracking", "habits.category")
    tracking = dataset.habit_tracking
    days = tracking[tracking["status"].isin(["done", "missed"])]
    cell = days["habit_id"].map(dataset.habits.set_index("habit_id")["category"].astype(object))
    rows = pd.DataFrame({"user_id": days["user_id"], "cell": cell, "done": days["status"] == "done"}).dropna()
    found = rows.groupby(["user_id", "cell"], observed=True)["done"].agg(["mean", "size"]).reset_index()
    if found.empty:
        raise MissingColumn("needs days done or missed of habits with a category; there are none")
    return found.rename(columns={"mean": "value", "size": "weight"})


def means_of(steps: Ints, cells: Sequence[str], scale: float, level: float) -> pd.DataFrame:
    """Return means and their intervals from noisy `summed` steps (2 cells,); `scale` is that of the noise, in steps.

    Intervals by Fieller's theorem (1954, doi:10.1111/j.2517-6161.1954.tb00159.x), exact for a ratio of two normal
    numbers; where the number of people is not surely above 0 there is none.
    """
    estimate, low, high = _ratios(steps, scale, level)
    n = np.maximum(np.rint(steps[: len(cells)] / GRID), 0).astype(np.int64)
    return pd.DataFrame({"cell": list(cells), "estimate": estimate, "ci_low": low, "ci_high": high, "n": n})


def _ratios(steps: npt.NDArray, scale: float, level: float) -> tuple[Floats, Floats, Floats]:
    """Estimates and their intervals (..., cells) of steps (..., 2 cells)."""
    cells = steps.shape[-1] // 2
    users, sums = steps[..., :cells] / scale, steps[..., cells:] / scale  # in standard deviations of the noise
    z = stats.norm.ppf((1 + level) / 2)
    sure = users > z
    room = np.where(sure, users**2 - z**2, np.nan)
    middle = users * sums / room
    half = z * np.sqrt(np.maximum(users**2 + sums**2 - z**2, 0)) / room
    low, high = (np.clip(_CENTRE + end, 0, 1) for end in (middle - half, middle + half))
    ratio = np.divide(sums, users, out=np.full(users.shape, np.nan), where=sure)
    return np.clip(_CENTRE + ratio, 0, 1), low, high


def accuracy(
    dataset: Dataset, epsilons: Sequence[float], *, delta: float = 1e-6, most: int = 3, level: float = 0.95,
    draws: int = 400, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Say how far off `completion_by_category` would be at each epsilon: epsilon, rho, error, ci_low, ci_high, told, n.

    For those who hold the data, to choose an epsilon by: nothing of it may be published. `error` is the mean absolute
    error over categories against the exact means of all rows: by noise, and by the bound on categories a person counts
    in. Its interval is that over `draws` of the noise, here normal and from a seed. `told` is the share of categories
    with an estimate at all. A row with epsilon infinity has the error of the bound alone.
    """
    values, cells = completion(dataset), [category.value for category in Category]
    exact = values.groupby("cell")["value"].mean().reindex(cells).to_numpy()
    bounded = summed(bound(values, cells, most), cells, most)
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((draws, len(bounded.sums)))
    lines = []
    for epsilon in [*epsilons, np.inf]:
        rho = np.inf if np.isinf(epsilon) else rho_of(epsilon, delta)
        scale = 1e-6 if np.isinf(epsilon) else scale_for(bounded.reach, rho)
        rows = bounded.sums + scale * (np.zeros((1, 1)) if np.isinf(epsilon) else noise)
        told = _ratios(rows, scale, level)[0]
        off = np.abs(told - exact)
        known = np.isfinite(off).any(axis=1)
        errors = np.nanmean(off[known], axis=1) if known.any() else np.array([np.nan])
        low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
        share = float(np.isfinite(off).sum() / max(np.isfinite(exact).sum() * len(rows), 1))
        lines.append((epsilon, rho, float(errors.mean()), float(low), float(high), share, len(rows)))
    return pd.DataFrame(lines, columns=["epsilon", "rho", "error", "ci_low", "ci_high", "told", "n"])


def until_refused(ledger: Ledger, epsilon: float, release: Callable[[int], Any], most: int = 1000) -> tuple[int, str]:
    """Ask new questions of `epsilon` each until the ledger refuses; how many were answered, and what it said."""
    from habitlab.privacy.ledger import BudgetExceeded

    rho = rho_of(epsilon, ledger.delta)
    for number in range(most):
        try:
            ledger.spend("the same people", f"question {number + 1}", rho, partial(release, number))
        except BudgetExceeded as refusal:
            return number, str(refusal)
    return most, ""


def ledger_of(data: str | Path, epsilon: float = 1.0, delta: float = 1e-6) -> Ledger:
    """Return the ledger of the people in a dataset: it lies with the state of its service, beside the data."""
    from habitlab.serving.state import folder

    return Ledger(folder(Path(data)) / "privacy-budget.json", epsilon, delta)


def _counts(
    dataset: Dataset, values: pd.DataFrame, cells: list[str], what: str, epsilon: float, ledger: Ledger, most: int,
    level: float,
) -> Release:  # fmt: skip
    rho = rho_of(epsilon, ledger.delta)
    bounded = counted(bound(values, cells, most), cells, most)
    scale = scale_for(bounded.reach, rho)
    told = ledger.spend(content_hash(dataset), what, rho, lambda: noisy(bounded, scale, rho).tolist())
    users = np.array(told) / GRID
    half = stats.norm.ppf((1 + level) / 2) * scale / GRID
    n = np.maximum(np.rint(users), 0).astype(np.int64)
    low, high = np.maximum(users - half, 0), np.maximum(users + half, 0)
    table = pd.DataFrame({"cell": cells, "estimate": np.maximum(users, 0), "ci_low": low, "ci_high": high, "n": n})
    return _release(table, ledger, rho, scale / GRID, most, level)


def _release(table: pd.DataFrame, ledger: Ledger, rho: float, scale: float, most: int, level: float) -> Release:
    return Release(table, epsilon_of(rho, ledger.delta), ledger.delta, rho, scale, most, level)
