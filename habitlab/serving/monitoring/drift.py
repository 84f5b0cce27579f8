"""Has what comes in changed? Two periods, feature by feature, with thresholds from what chance alone would give.

A fixed threshold, such as 0.2 for the population stability index, alarms by chance where users are few and sleeps where
they are many: of the same kind of users, 150 in each period exceed 0.2 in one trial of eleven, 2,000 never come near.
So each statistic is held against its own null. Several features are looked at together: the share of false finds among
the finds is kept (Benjamini and Hochberg 1995), so that where nothing drifts, a whole check alarms in at most `alpha`.

Drift is a reason to look and to propose retraining. Nothing here deploys anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats
from scipy.spatial import distance

from habitlab.evaluation import estimates

Floats = npt.NDArray[np.float64]

FIXED_PSI = 0.2
"""The overview's threshold, kept to be held beside the one from the null."""

BINS = 10
MOST_CELLS = 1000
"""Different values of a number up to which the distances are exact; of more so many quantiles are taken."""
FEWEST = 20
"""Users in each period below which nothing is tested."""

STATISTICS = ("psi", "ks", "wasserstein", "jensen_shannon")
_MISSING = "(missing)"
_BLOCK = 1 << 22  # labels held at a time


def psi(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Population stability index of two vectors of counts (bins,): sum of (q - p) ln(q / p).

    Half a count is added to every bin, so that an empty one is no infinity. Source: Yurdakul and Naranjo 2020,
    J. Risk Model Validation 14(4); it is Jeffreys' (1946) divergence of the two distributions.

    >>> psi([50, 50], [50, 50])
    0.0
    """
    return float(_psi(np.asarray(reference, dtype=float)[None], np.asarray(current, dtype=float)[None])[0])


def psi_threshold(bins: int, reference: int, current: int, alpha: float = 0.05) -> float:
    """What the index exceeds with probability `alpha` where nothing drifts: chi2_{B-1} (1/n + 1/m).

    >>> round(psi_threshold(10, 150, 150), 3), round(psi_threshold(10, 2000, 2000), 3)
    (0.226, 0.017)
    """
    if bins < 2 or min(reference, current) < 1:
        return float("nan")
    return float(stats.chi2.ppf(1 - alpha, bins - 1) * (1 / reference + 1 / current))


def drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    unit: str | None = "user_id",
    alpha: float = 0.05,
    smallest_psi: float = 0.0,
    permutations: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every column that both periods have, a row a feature.

    Parameters
    ----------
    reference, current
        A row for each user and period; of several rows of a user in a period the last one counts. A user may be in
        both: then the two rows are swapped or not, so that one person is not two.
    unit
        Column that names the user; None where every row is one of its own.
    smallest_psi
        With many users everything differs a little: below this index nothing is called drift.
    permutations
        As many more are made as it takes for the smallest p-value to pass the correction: features / `alpha`.

    Returns
    -------
    DataFrame
        feature, kind (number or category), n_reference, n_current, missing_reference, missing_current (shares), psi,
        ks, wasserstein (in units of the feature), jensen_shannon (divergence in nats; bins as psi), each with its
        `_threshold` (by permutation, at `alpha` for this feature alone), psi_law (`psi_threshold`: the same by its law,
        which holds where nobody is in both periods, and is too high where many are), p_value (of the most telling
        statistic, having looked at all paid for), p_adjusted, drifted, fixed_rule (index above 0.2), note. Sorted by
        p-value. Undefined is NaN: Kolmogorov-Smirnov's and Wasserstein's distance of categories.

    Raises
    ------
    ValueError
        `unit` is absent, a parameter is out of range, or the periods share no column.
    """
    if not 0 < alpha < 1 or permutations < 19:
        raise ValueError("alpha is a share between 0 and 1, and permutations are at least 19")
    both, labels, single = _together(reference, current, unit)
    names = [name for name in reference.columns if name in set(current.columns) and name != unit]
    if not names:
        raise ValueError("the two periods have no column in common")
    features = [_Feature(name, both[name], labels) for name in names]
    tested = [feature for feature in features if not feature.row["note"]]
    for members in _memberships(labels, single, max(permutations, math.ceil(len(tested) / alpha)), seed):
        for feature in tested:
            feature.add(members)
    found = pd.DataFrame([feature.finish(alpha) for feature in features])
    adjusted = estimates.false_discovery_adjusted(found["p_value"])
    place = found.columns.get_loc("p_value")
    found.insert(place + 1, "p_adjusted", adjusted)
    found.insert(place + 2, "drifted", (adjusted <= alpha) & (found["psi"].to_numpy() >= smallest_psi))
    return found.sort_values("p_value", kind="stable", na_position="last").reset_index(drop=True)


class _Cells(NamedTuple):
    """A feature cut up: `cell` (rows,) of the fine grid, `coarse` (cells,) its bin, `value` (cells,) its mean."""

    cell: npt.NDArray[np.int64]
    coarse: npt.NDArray[np.int64]
    value: Floats | None


def _together(
    reference: pd.DataFrame, current: pd.DataFrame, unit: str | None
) -> tuple[pd.DataFrame, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows of both periods, users of both first and side by side; whether a row is current, and whether it is alone."""
    if unit is None:
        labels = np.repeat([False, True], [len(reference), len(current)])
        return pd.concat([reference, current], ignore_index=True), labels, np.ones(len(labels), dtype=bool)
    for name, frame in (("reference", reference), ("current", current)):
        if unit not in frame:
            raise ValueError(f"the {name} period has no column {unit!r}; unit=None makes every row a user of its own")
    one = [frame.drop_duplicates(unit, keep="last").set_index(unit) for frame in (reference, current)]
    shared = one[0].index.intersection(one[1].index, sort=False)
    parts = [one[0].loc[shared], one[1].loc[shared], one[0].drop(shared), one[1].drop(shared)]
    sizes = [len(part) for part in parts]
    labels = np.repeat([False, True, False, True], sizes)
    return pd.concat(parts, ignore_index=True), labels, np.repeat([False, False, True, True], sizes)


def _memberships(
    labels: npt.NDArray[np.bool_], single: npt.NDArray[np.bool_], permutations: int, seed: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Which rows are current, as it is (rows, 1), then shuffled (rows, some) in blocks; the same for all features."""
    generator = np.random.default_rng(seed)
    yield labels[:, None].astype(np.float32)
    pairs, alone = int((~single).sum()) // 2, np.flatnonzero(single)
    size = max(1, _BLOCK // max(len(labels), 1))
    for begin in range(0, permutations, size):
        members = np.empty((len(labels), min(size, permutations - begin)), dtype=np.float32)
        swapped = generator.random((pairs, members.shape[1])) < 0.5
        members[:pairs], members[pairs : 2 * pairs] = swapped, ~swapped
        shuffled = np.tile(labels[alone], (members.shape[1], 1))
        members[alone] = generator.permuted(shuffled, axis=1).T
        yield members


class _Feature:
    """A column of both periods, and its statistics: of the periods as they are, then of every permutation."""

    def __init__(self, name: str, values: pd.Series, labels: npt.NDArray[np.bool_]) -> None:
        values = _as_number(values)
        missing = values.isna().to_numpy()
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        self.cells = _numbers(values.to_numpy(dtype=float, na_value=np.nan)) if numeric else _categories(values)
        self.bins = int(self.cells.coarse.max()) + 1 if len(self.cells.coarse) else 0
        self.drawn: list[dict[str, Floats]] = []
        n, m = self.sizes = int((~labels).sum()), int(labels.sum())
        self.row: dict[str, object] = {"feature": name, "kind": "number" if numeric else "category"}
        self.row |= {"n_reference": n, "n_current": m}
        self.row |= {"missing_reference": _share(missing[~labels]), "missing_current": _share(missing[labels])}
        self.row |= {key: np.nan for each in STATISTICS for key in (each, f"{each}_threshold")}
        self.row |= {"psi_law": np.nan, "p_value": np.nan, "fixed_rule": False, "note": ""}
        if min(n, m) < FEWEST:
            self.row["note"] = f"fewer than {FEWEST} users in a period: {n} and {m}"
        elif self.bins < 2:
            self.row["note"] = "the same for all"

    def add(self, members: npt.NDArray[np.float32]) -> None:
        """Count who is current in a block (rows, k), and keep the statistics of it."""
        self.drawn.append(_statistics(self.cells, members))

    def finish(self, alpha: float) -> dict[str, object]:
        """Return the row of the feature, with what its statistics say where it was tested."""
        if not self.drawn:
            return self.row
        drawn = {name: np.concatenate([block[name] for block in self.drawn]) for name in self.drawn[0]}
        for each, values in drawn.items():
            self.row[each] = float(values[0])
            self.row[f"{each}_threshold"] = float(np.quantile(values[1:], 1 - alpha, method="higher"))
        self.row["psi_law"] = psi_threshold(self.bins, *self.sizes, alpha)
        self.row["p_value"] = _p_value(np.column_stack(list(drawn.values())))
        self.row["fixed_rule"] = bool(drawn["psi"][0] > FIXED_PSI)
        if self.bins == len(self.cells.coarse) and np.bincount(self.cells.cell, minlength=self.bins).min() < 5:
            self.row["note"] = "bins of fewer than 5 users: the law of the index is rough here, its p-value is not"
        return self.row


def _as_number(values: pd.Series) -> pd.Series:
    """Instants as days, and numbers that are kept as objects as numbers; all else as it is."""
    values = values.infer_objects()
    if pd.api.types.is_datetime64_any_dtype(values):
        return (values - values.min()).dt.total_seconds() / 86_400
    return values


def _numbers(values: Floats) -> _Cells:
    """Cut numbers of both periods together: a cell a value (or one of `MOST_CELLS` quantiles), bins at the deciles."""
    known = np.isfinite(values)
    levels = np.unique(values[known])
    if len(levels) > MOST_CELLS:
        levels = np.unique(np.quantile(values[known], np.linspace(0, 1, MOST_CELLS), method="inverted_cdf"))
    cell = np.full(len(values), len(levels), dtype=np.int64)
    cell[known] = np.searchsorted(levels, values[known]).clip(max=len(levels) - 1)
    if not len(levels):
        return _Cells(cell, np.zeros(1, dtype=np.int64), np.zeros(0))
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
    coarse = np.unique(np.searchsorted(edges, levels, side="left"), return_inverse=True)[1]
    mean = np.bincount(cell[known], values[known]) / np.bincount(cell[known])
    if not known.all():  # missing values are a bin of their own: that they grow more is drift
        coarse = np.append(coarse, coarse.max() + 1)
    return _Cells(cell, coarse, mean)


def _categories(values: pd.Series) -> _Cells:
    text = values.map(lambda each: each if isinstance(each, str) else str(each), na_action="ignore").astype(object)
    cell, names = pd.factorize(text.where(values.notna().to_numpy(), _MISSING), sort=True)
    return _Cells(cell.astype(np.int64), np.arange(len(names)), None)


def _counts(of_row: npt.NDArray[np.int64], size: int, members: npt.NDArray[np.float32]) -> Floats:
    """Rows of the current period (k, size) by what they are in: cells, or bins."""
    rows = np.arange(len(of_row))
    inside = sparse.csr_array((np.ones(len(rows), dtype=np.float32), (of_row, rows)), shape=(size, len(rows)))
    return np.asarray((inside @ members).T)


def _statistics(cells: _Cells, members: npt.NDArray[np.float32]) -> dict[str, Floats]:
    """Each statistic (k,) of who is current (rows, k)."""
    bins = int(cells.coarse.max()) + 1
    of_row = cells.coarse[cells.cell]
    q = _counts(of_row, bins, members).astype(float)
    p = np.bincount(of_row, minlength=bins) - q
    found = {"psi": _psi(p, q)}
    if cells.value is not None and len(cells.value) > 1:
        known = len(cells.value)
        inside = cells.cell < known
        current = np.cumsum(_counts(cells.cell[inside], known, members[inside]), axis=1, dtype=float)
        both = np.cumsum(np.bincount(cells.cell[inside], minlength=known))
        mine = np.maximum(current[:, -1:], 1)
        theirs = np.maximum(both[-1] - current[:, -1:], 1)
        apart = np.abs(current * (1 / mine + 1 / theirs) - both / theirs)
        found["ks"] = apart.max(axis=1)
        found["wasserstein"] = apart[:, :-1] @ np.diff(cells.value)
    found["jensen_shannon"] = distance.jensenshannon(p, q, axis=1) ** 2
    return found


def _psi(reference: Floats, current: Floats) -> Floats:
    p, q = ((part + 0.5) / (part + 0.5).sum(axis=1, keepdims=True) for part in (reference, current))
    return ((q - p) * np.log(q / p)).sum(axis=1)


def _p_value(drawn: Floats) -> float:
    """Permutation p-value of the first row of (1 + permutations, statistics), by the statistic that says most.

    The smallest of the p-values is held against the smallest of every permutation (Tippett's combination).
    """
    rounded = np.round(drawn / np.maximum(drawn.max(axis=0), 1e-300), 10)  # equal sums in another order are equal
    smallest = stats.rankdata(-rounded, method="max", axis=0).min(axis=1)
    return float(np.mean(smallest <= smallest[0]))


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else float("nan")


# What is done about it


@dataclass(frozen=True)
class Proposal:
    """Whether retraining is proposed, and why. It deploys nothing: `habitlab retrain` compares, its gate decides."""

    retrain: bool
    reasons: tuple[str, ...]


def propose(found: pd.DataFrame, declines: Sequence[str] = ()) -> Proposal:
    """Propose retraining where a feature drifted or adoption declined (`declines`, in words); slowness is no reason."""
    drifted = found[found["drifted"]] if len(found) else found
    reasons = [f"{row.feature} drifted (index {row.psi:.3g}, p {row.p_adjusted:.2g})" for row in drifted.itertuples()]
    return Proposal(bool(reasons or declines), (*reasons, *declines))


# How well it works, in simulated periods


def power(
    shifts: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    sizes: Sequence[int] = (150, 500, 2000),
    *,
    features: int = 10,
    trials: int = 100,
    alpha: float = 0.05,
    permutations: int = 399,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a check of so many features alarms, in simulated periods where one of them shifts.

    The users of both periods are others; features are standard normal, and the first one's mean moves by `shift`
    standard deviations. Columns: n (users in each period), shift, rule ("from the null" and "fixed 0.2"), trials,
    alarmed (share of checks that find any drift; at shift 0 these are false alarms), ci_low, ci_high (Wilson at 95 %).
    """
    rows = []
    for n in sizes:
        for shift in shifts:
            alarms = {"from the null": 0, "fixed 0.2": 0}
            for trial in range(trials):
                generator = np.random.default_rng([seed, n, round(1000 * shift), trial])
                reference, current = generator.standard_normal((2, n, features))
                current[:, 0] += shift
                names = [f"x{number}" for number in range(features)]
                found = drift(
                    pd.DataFrame(reference, columns=names),
                    pd.DataFrame(current, columns=names),
                    unit=None,
                    alpha=alpha,
                    permutations=permutations,
                    seed=trial,
                )
                alarms["from the null"] += bool(found["drifted"].any())
                alarms["fixed 0.2"] += bool(found["fixed_rule"].any())
            for rule, count in alarms.items():
                rows.append((n, shift, rule, trials, count / trials, *estimates.share_interval(count, trials)))
    return pd.DataFrame(rows, columns=["n", "shift", "rule", "trials", "alarmed", "ci_low", "ci_high"])
