"""A bias planted where there is none: how often an audit of these data finds it, and how often it cries wolf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import MissingColumn
from habitlab.dataset.analyses import FEWEST
from habitlab.evaluation import fairness
from habitlab.evaluation.estimates import share_interval
from habitlab.evaluation.ranked_lists import Floats
from habitlab.evaluation.tables import exact


def planted(
    served: npt.ArrayLike, degraded: npt.ArrayLike, *, shares: Sequence[float] = (0, 0.1, 0.25, 0.5, 0.75, 1),
    draws: int = 60, permutations: int = 99, level: float = 0.95, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Plant a bias where there is none, and count how often it is found.

    People are dealt by lot into two groups, so that nothing but the bias can tell them apart; of the first group this
    share of people get the `degraded` outcome in place of that `served`, both (users,). Columns: share, estimate (of
    draws in which p is at most 1 - level) with Wilson's ci_low and ci_high, raw and noise_corrected (means of the
    draws), true (planted disparity), draws, n (users whose outcome is known). Raises `MissingColumn` for fewer than 20.
    """
    good, bad = np.asarray(served, dtype=float), np.asarray(degraded, dtype=float)
    known = np.isfinite(good) & np.isfinite(bad)
    good, bad = good[known], bad[known]
    if len(good) < 2 * FEWEST:
        raise MissingColumn(f"needs people whose outcome is known: of {2 * FEWEST} or more; there are {len(good)}")
    generator = np.random.default_rng(seed)
    rows = []
    for share in shares:
        seen = np.array([_one_draw(good, bad, share, permutations, generator) for _ in range(draws)])
        count = int((seen[:, 2] <= 1 - level + 1e-12).sum())
        low, high = share_interval(count, draws, level)
        true = abs(share * (good.mean() - bad.mean()))
        rows.append((share, count / draws, low, high, *seen[:, :2].mean(axis=0), true, draws, len(good)))
    columns = ["share", "estimate", "ci_low", "ci_high", "raw", "noise_corrected", "true", "draws", "n"]
    return pd.DataFrame(rows, columns=columns)


def _one_draw(
    good: Floats, bad: Floats, share: float, permutations: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    place = generator.permutation(len(good))
    first = place < len(good) // 2
    worse = place < round(share * (len(good) // 2))
    return fairness.disparity(
        np.where(worse, bad, good), first, permutations=permutations, seed=int(generator.integers(1 << 32))
    )


def planted_found(table: pd.DataFrame, key: str, label: str, *, level: float, unit: str = "") -> list[dict[str, Any]]:
    """Return how often a bias was found with none planted, and with all lists of a group degraded, as findings."""
    how = "people dealt by lot into two groups; permutation p; Wilson's interval over these deals"
    out = []
    for end, words, row in (("none", "with no bias", table.iloc[0]), ("all", "with all lists by lot", table.iloc[-1])):
        text = f"Audits by {label} that find a bias, {words}"
        found = exact(f"{key}_found_{end}", text, row["estimate"], n=int(row["draws"]), method=how, unit="share")
        out.append(found | {"ci_low": row["ci_low"], "ci_high": row["ci_high"], "level": level})
    lost, how = table.iloc[-1], "mean of the outcome less that of lists by lot for the same people"
    text = f"What lists by lot cost, by {label}"
    planted = exact(f"{key}_planted", text, lost["true"], n=int(lost["n"]), method=how, unit=unit)
    return [*out, planted | {"reason": "the bias itself, not an estimate"}]


def one_below_the_other(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of `planted` by outcome as one, with a column `outcome`."""
    return pd.concat([table.assign(outcome=outcome) for outcome, table in tables.items()], ignore_index=True)
