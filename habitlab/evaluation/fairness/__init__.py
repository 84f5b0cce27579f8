"""Are groups of people served alike? Estimates by group, and how far their differences go beyond chance.

The largest difference of noisy groups is never 0: six equal groups of 100 users show 12.7 points of a binary outcome on
average. So a disparity stands here beside its value corrected for noise and a permutation p-value. Users are the unit
throughout. `docs/fairness.md` says how groups are withheld and how the numbers are to be read; calibration and exposure
by group are in `habitlab.evaluation.fairness.fairness_of_models`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.derived import age_band
from habitlab.evaluation import estimates
from habitlab.evaluation.ranked_lists import Floats, blocks, users_at_once
from habitlab.evaluation.suppression import shown_groups

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

OUTCOMES = ("experience_level", "experience")
"""Not demographics but what the system has brought about: to compare like with like on them hides a bias."""

_RESAMPLED = 500  # a group of more users has the interval of its mean by Student's t: the two agree there


@dataclass(frozen=True, eq=False)
class Audit:
    """What `audit` found.

    groups: dimension, group, n (users whose outcome is known), estimate (mean over users), ci_low, ci_high, suppressed.
    disparity: dimension, raw (largest less smallest estimate), noise_corrected (the same less what noise adds to it; on
    average about 0 where groups are alike, so it can fall below), p_value (permutation).
    dimensions: dimension, kind ("demographic" or "outcome"), users, without_outcome, without_group, groups, compared
    (groups that are not suppressed), within (standard deviation within these), p_adjusted (Benjamini and Hochberg 1995,
    over the dimensions of its kind), found (p_adjusted at most 1 - level), note.
    """

    groups: pd.DataFrame
    disparity: pd.DataFrame
    dimensions: pd.DataFrame


class _Dimension(NamedTuple):
    name: str
    kind: str
    labels: list[str]
    code: Ints  # group of each user; from len(labels) on those of whom it is not known, by what is


def people(dataset: Dataset) -> pd.DataFrame:
    """What is audited of a dataset's users, as far as it is known: user_id, gender, age_band, experience_level.

    Raises
    ------
    MissingColumn
        None of them is.
    """
    users = dataset.users
    if "age" in users and users["age"].notna().any():  # sources that tell no years may have `age_band`
        users = users.assign(age_band=age_band(users["age"]))
    known = [name for name in ("gender", "age_band", "experience_level") if name in users and users[name].notna().any()]
    frame = users[["user_id", *known]]
    if frame.shape[1] == 1:
        raise MissingColumn("needs `gender`, `age` or `experience_level` in `users`; this dataset has none of them")
    return frame


def audit(
    data: pd.DataFrame,
    *,
    outcome: str,
    groups: str | Sequence[str | tuple[str, ...]],
    min_n: int = 20,
    level: float = 0.95,
    unit: str | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> Audit:
    """Compare an outcome between groups of users, by each column of `groups` and each intersection (a tuple) of them.

    Parameters
    ----------
    data
        One row a user, or many: then `unit` names the user's column, by default `user_id` if there is one, and a user
        counts once, with the mean of the known outcomes. Without either, each row is a user.
    outcome
        Numbers or true and false; missing ones are counted and left out.
    min_n
        A smaller group is suppressed, and others where it could be had from what is shown: see `docs/fairness.md`.

    The interval of a group is Wilson's (1927) where the outcome is 0 or 1, else BCa by user (`estimates.resample`), by
    Student's t above 500 users. It is NaN where users are fewer than 10 or all alike.

    Raises
    ------
    MissingColumn
        `data` lacks a column.
    ValueError
        Outcomes are no finite numbers, a group holds lists, a user is in two groups of a dimension, or a parameter is
        out of range.
    """
    if not isinstance(data, pd.DataFrame):
        raise ValueError(f"`data` is a DataFrame with a row for each user; got {type(data).__name__}")
    if not (min_n >= 1 and permutations >= 1 and min_n % 1 == 0 and permutations % 1 == 0 and 0 < level < 1):
        raise ValueError("min_n and permutations are whole numbers of at least 1, and level is a share between 0 and 1")
    asked = _asked(data, outcome, groups, unit)
    value, dimensions = _users(data, outcome, asked, unit)
    known = np.isfinite(value)
    y = value[known]
    binary = bool(np.isin(y, (0.0, 1.0)).all())
    every = [_indicator(each, known) for each in dimensions]
    named = np.concatenate(
        [np.arange(part.shape[1]) < len(each.labels) for each, part in zip(dimensions, every, strict=True)]
    )
    of = np.repeat(np.arange(len(every)), [part.shape[1] for part in every])
    whole = sparse.csc_array(sparse.hstack(every, format="csc"))
    shown = shown_groups(whole, of, named, min_n)[named]
    member = whole[:, np.flatnonzero(named)]
    start = np.concatenate([[0], np.cumsum([len(each.labels) for each in dimensions])])
    n = np.diff(member.indptr)
    rows = []
    for d, dimension in enumerate(dimensions):
        for g in range(start[d], start[d + 1]):
            estimate = (np.nan, np.nan, np.nan)
            if shown[g]:
                estimate = _mean(y[member.indices[member.indptr[g] : member.indptr[g + 1]]], binary, level, seed)
            rows.append((dimension.name, dimension.labels[g - start[d]], int(n[g]), *estimate, not shown[g]))
    columns = ["dimension", "group", "n", "estimate", "ci_low", "ci_high", "suppressed"]
    by_group = pd.DataFrame(rows, columns=columns)
    compared = [np.flatnonzero(shown[a:b]) + a for a, b in pairwise(start)]
    found = _disparities(y, member, compared, permutations, seed)
    disparity = pd.DataFrame(found, columns=["raw", "noise_corrected", "p_value"])
    disparity.insert(0, "dimension", [dimension.name for dimension in dimensions])
    about = _about(dimensions, known, compared, by_group, disparity, y, min_n, level)
    about.insert(7, "within", [_within(y, member[:, groups]) for groups in compared])
    return Audit(by_group, disparity, about)


def disparity(
    outcome: npt.ArrayLike, group: npt.ArrayLike, *, permutations: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Raw and noise-corrected disparity and p-value as in `audit`, without intervals and suppression.

    `outcome` (users,) finite numbers, `group` (users,) labels. For simulations, where nobody's data are shown.
    """
    code, labels = pd.factorize(np.asarray(group))
    member = sparse.csc_array((np.ones(len(code)), (np.arange(len(code)), code)), shape=(len(code), len(labels)))
    values = np.asarray(outcome, dtype=float)
    return _disparities(values, member, [np.arange(len(labels))], permutations, seed)[0]


# Reading


def _asked(
    data: pd.DataFrame, outcome: str, groups: str | Sequence[str | tuple[str, ...]], unit: str | None
) -> list[tuple[str, ...]]:
    """Columns of each dimension, held against `data`."""
    listed = [groups] if isinstance(groups, str) else list(groups)
    asked = [(each,) if isinstance(each, str) else tuple(each) for each in listed]
    if not asked or not all(asked):
        raise ValueError("`groups` names the columns to compare by, such as ['gender', ('gender', 'age_band')]")
    twice = [each for each in asked if len(set(each)) < len(each)]
    if twice or len({frozenset(each) for each in asked}) < len(asked):
        raise ValueError(f"`groups` names something twice: {groups!r}")
    for column in (outcome, *(column for each in asked for column in each), *([unit] if unit else [])):
        if column not in data:
            raise MissingColumn(f"needs `{column}`; these data have none, but {', '.join(map(str, data.columns))}")
        if (number := int((data.columns == column).sum())) > 1:
            raise ValueError(f"{number} columns are called `{column}`: which of them is meant?")
    if any(outcome in each for each in asked):
        raise ValueError(f"`{outcome}` is the outcome; it cannot be a group as well")
    return asked


def _users(
    data: pd.DataFrame, outcome: str, asked: list[tuple[str, ...]], unit: str | None
) -> tuple[Floats, list[_Dimension]]:
    """Outcome (users,), NaN where it is missing, and the dimensions, with a row for each user."""
    try:
        if data[outcome].dtype.kind in "mMc":
            raise TypeError("dates, durations and complex numbers would be read as others")
        value = pd.to_numeric(data[outcome]).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the outcome `{outcome}` holds something other than numbers or true and false") from error
    if np.isinf(value).any():
        raise ValueError(f"the outcome `{outcome}` is infinite in {np.isinf(value).sum():,} rows")
    columns = {column: _codes(data[column]) for each in asked for column in each}
    unit = unit or ("user_id" if "user_id" in data else None)
    if unit is not None:
        user, ids = pd.factorize(data[unit])
        if (user < 0).any():
            raise ValueError(f"`{unit}` is missing in {(user < 0).sum():,} rows: nobody knows whose they are")
        if len(ids) < len(data):
            for column, (code, labels) in columns.items():
                held = np.full(len(ids), -1)
                np.maximum.at(held, user, code)  # a row without it does not contradict one with it
                moved = (code >= 0) & (code != held[user])
                if moved.any():
                    raise ValueError(
                        f"user {ids[user[moved][0]]} is in two groups of `{column}`: groups are of users, so it has "
                        "one value a user"
                    )
                columns[column] = held, labels
            number = np.bincount(user, np.isfinite(value), minlength=len(ids))
            total = np.bincount(user, np.nan_to_num(value), minlength=len(ids))
            value = np.divide(total, number, out=np.full(len(ids), np.nan), where=number > 0)
    return value, [_dimension(each, columns) for each in asked]


def _codes(column: pd.Series) -> tuple[Ints, list[str]]:
    """Group of each row, -1 for none, and the groups' names in their order."""
    if column.map(lambda entry: not isinstance(entry, Hashable)).any():
        raise ValueError(f"`{column.name}` holds lists; a user is in one group of a dimension: make a column of each")
    if isinstance(column.dtype, pd.CategoricalDtype):
        held = column.cat.remove_unused_categories().cat
        return held.codes.to_numpy(np.int64), [str(label) for label in held.categories]
    try:
        code, labels = pd.factorize(column, sort=True)
    except TypeError:  # texts and numbers in one column
        code, labels = pd.factorize(column.astype("str"), sort=True)
    return np.asarray(code, dtype=np.int64), [str(label) for label in labels]


def _dimension(names: tuple[str, ...], columns: dict[str, tuple[Ints, list[str]]]) -> _Dimension:
    columns_of = [columns[name] for name in names]
    sizes = [len(labels) + 1 for _, labels in columns_of]
    told = np.all([code >= 0 for code, _ in columns_of], axis=0)
    code = np.zeros(len(told), dtype=np.int64)
    for size, (more, _) in zip(sizes, columns_of, strict=True):
        code = code * size + more + 1
    whole, first, place = np.unique(code + np.where(told, 0, np.prod(sizes)), return_index=True, return_inverse=True)
    known = first[whole < np.prod(sizes)]
    labels = [" x ".join(named[held[user]] for held, named in columns_of) for user in known]
    kind = "outcome" if set(names) & set(OUTCOMES) else "demographic"
    return _Dimension(" x ".join(names), kind, labels, place)


def _indicator(dimension: _Dimension, known: Bools) -> sparse.csc_array:
    """1 where a user with an outcome is in a group: (users, groups), those of whom it is not known last."""
    code = dimension.code[known]
    shape = len(code), max(len(dimension.labels), int(dimension.code.max(initial=-1)) + 1)
    return sparse.csc_array((np.ones(len(code)), (np.arange(len(code)), code)), shape=shape)


# Estimating


def _mean(values: Floats, binary: bool, level: float, seed: int) -> tuple[float, float, float]:
    """Mean of a group with its interval."""
    n, mean = len(values), float(values.mean())
    if n < estimates.FEWEST or (not binary and np.ptp(values) == 0):
        return mean, np.nan, np.nan
    if binary:
        return mean, *estimates.share_interval(int(values.sum()), n, level)
    if n > _RESAMPLED:
        half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
        return mean, mean - half, mean + half
    drawn = estimates.resample(np.column_stack([values, np.ones(n)]), estimates.ratios, seed=seed)
    (low,), (high,) = drawn.interval(level)
    return mean, float(low), float(high)


def _disparities(
    y: Floats, member: sparse.csc_array, compared: list[Ints], permutations: int, seed: int
) -> list[tuple[float, float, float]]:
    """Raw and corrected disparity and p-value of each dimension; users are permuted for all of them at once."""
    middle = y - y.mean() if len(y) else y
    used = np.concatenate(compared)
    groups = sparse.csr_array(member[:, used].T)
    edges = np.cumsum([0, *(len(each) for each in compared)])
    generator = np.random.default_rng(seed)
    sums, squares = [groups @ middle[:, None]], [groups @ middle[:, None] ** 2]
    for block in blocks(permutations, users_at_once(len(y))):
        drawn = np.ascontiguousarray(generator.permuted(np.tile(middle, (block.stop - block.start, 1)), axis=1).T)
        sums.append(groups @ drawn)
        squares.append(groups @ drawn**2)
    summed, square = np.hstack(sums).T, np.hstack(squares).T
    number = np.asarray(groups.sum(axis=1)).ravel()
    return [_disparity(summed[:, a:b], square[:, a:b], number[a:b]) for a, b in pairwise(edges)]


def _disparity(sums: Floats, squares: Floats, n: Floats) -> tuple[float, float, float]:
    """Raw and noise-corrected disparity and p-value from sums and sums of squares, (1 + permutations, groups) each.

    Permuted deviations, scaled to the variance within each group, are draws of the noise. What it adds to a range
    depends on the true differences; they are taken to be the observed ones drawn in by the share of their variance that
    is not noise (tau^2 by moments: DerSimonian and Kacker 2007), squared, because what is drawn in once still holds the
    noise it was told by: on average that errs less, both where nothing is there and where something is
    (`docs/fairness.md`).
    """
    if len(n) < 2:
        return np.nan, np.nan, np.nan
    total, square, users = sums.sum(axis=1, keepdims=True), squares.sum(axis=1, keepdims=True), n.sum()
    away = sums / n - total / users
    raw = float(np.ptp(away[0]))
    spread = (square - total**2 / users)[:, 0]
    if spread[0] <= 1e-12 * max(square[0, 0], 1e-300):
        return raw, raw, 1.0  # all alike
    spread = np.maximum(spread, 1e-12 * spread[0])
    between = away**2 @ n
    pooled = (np.maximum(spread - between, 1e-12 * spread[0]) / max(users - len(n), 1))[:, None]
    error = _variance(sums, squares, n, pooled) / n
    centre = (away / error).sum(axis=1, keepdims=True) / (1 / error).sum(axis=1, keepdims=True)
    others = _variance(total - sums, square - squares, users - n, pooled) / (users - n)
    lone = (away * users / (users - n)) ** 2 / (error + others)
    p_value = _p_value(np.column_stack([((away - centre) ** 2 / error).sum(axis=1), lone.max(axis=1)]))
    if users <= len(n):
        return raw, np.nan, p_value  # groups of one: nothing tells their noise
    within = max(spread[0] - between[0], 0) / (users - len(n))
    if within <= 1e-12 * spread[0] / users:
        return raw, raw, p_value  # all alike within groups: no noise
    tau2 = max((between[0] - (n * (1 - n / users)) @ error[0]) / (users - (n**2).sum() / users), 0.0)
    drawn_in = away[0] * (tau2 / (tau2 + error[0])) ** 2
    noise = away[1:] * np.sqrt(error[0] * n * (users - 1) / spread[1:, None])
    return raw, raw - float(np.ptp(drawn_in + noise, axis=1).mean() - np.ptp(drawn_in)), p_value


def _variance(sums: Floats, squares: Floats, n: Floats, pooled: Floats) -> Floats:
    """Variance of each group, with one pooled variance as one more degree of freedom: a small group has one too.

    Each group's own, for then permutations tell means apart also where groups differ in spread (Chung and Romano 2013,
    doi:10.1214/13-AOS1090); by one for all, a small group that varies more would be found too often.
    """
    return (np.maximum(squares - sums**2 / n, 0) + pooled) / n


def _p_value(statistics: Floats) -> float:
    """Permutation p-value of the first row of (1 + permutations, statistics), by the statistic that says most.

    Differences all over show in the variance between groups, one group apart from the rest in its own deviation. The
    smaller of the two p-values is held against the smaller ones of all permutations (Tippett's combination), so
    that having looked twice is paid for.
    """
    rounded = np.round(statistics / statistics.max(axis=0), 10)  # equal sums in another order are equal
    smallest = stats.rankdata(-rounded, method="max", axis=0).min(axis=1)
    return float(np.mean(smallest <= smallest[0]))


# Telling


def _within(y: Floats, member: sparse.csc_array) -> float:
    """Return the standard deviation of outcomes within groups, the columns of `member`."""
    number = np.asarray(member.sum(axis=0)).ravel()
    free = number.sum() - len(number)
    if len(number) < 2 or free < 1:
        return np.nan
    user, group = member.nonzero()
    away = y[user] - ((member.T @ y) / number)[group]
    return float(np.sqrt((away**2).sum() / free))


def _about(
    dimensions: list[_Dimension],
    known: Bools,
    compared: list[Ints],
    by_group: pd.DataFrame,
    disparity: pd.DataFrame,
    y: Floats,
    min_n: int,
    level: float,
) -> pd.DataFrame:
    rows = []
    for dimension, shown in zip(dimensions, compared, strict=True):
        notes = []
        mine = by_group[by_group["dimension"] == dimension.name]
        if dimension.kind == "outcome":
            notes.append("an outcome of the system, not a demographic: no reason for a difference elsewhere")
        if not known.any():
            notes.append("no outcome is known")
        elif len(shown) < 2:
            notes.append(f"fewer than two groups can be shown: nothing to compare ({len(mine)} in all)")
        elif np.ptp(y) == 0:
            notes.append("the outcome is the same for all")
        elif by_group["n"].to_numpy()[shown].max() < 2:
            notes.append("no group has two users: how far apart chance puts them cannot be told")
        also = int((mine["suppressed"] & (mine["n"] >= min_n)).sum())
        if also:
            notes.append(f"{also} larger groups are suppressed, lest a small one be had from the rest")
        inside = dimension.code < len(dimension.labels)
        counts = (len(known), int((inside & ~known).sum()), int((~inside).sum()), len(mine), len(shown))
        rows.append((dimension.name, dimension.kind, *counts, "; ".join(notes)))
    columns = ["dimension", "kind", "users", "without_outcome", "without_group", "groups", "compared", "note"]
    about = pd.DataFrame(rows, columns=columns)
    p_value = disparity["p_value"].to_numpy()
    adjusted = np.full(len(about), np.nan)
    for kind in set(about["kind"]):
        mine = (about["kind"] == kind).to_numpy()
        adjusted[mine] = estimates.false_discovery_adjusted(p_value[mine])
    about.insert(7, "p_adjusted", adjusted)
    about.insert(8, "found", adjusted <= 1 - level + 1e-12)
    return about
