"""Audits as tables and for figures: groups, comparisons, calibration by group, exposure by kind of item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import fairness
from habitlab.evaluation.fairness import Audit
from habitlab.evaluation.fairness.fairness_of_models import calibration, item_exposure, popularity_band
from habitlab.evaluation.fairness.fairness_report import ACTIONS, called, outcome_of, shown
from habitlab.evaluation.ranked_lists import Lists
from habitlab.evaluation.splits import Split
from habitlab.evaluation.tables import exact
from habitlab.models.interactions import Interactions


def forest(found: Mapping[str, Audit], keys: Sequence[str], dimensions: Sequence[str]) -> pd.DataFrame:
    """Groups of some outcomes and dimensions for a forest plot: outcome (label), label (group and n), and the audit's.

    Raises `MissingColumn` where no group of them can be shown.
    """
    parts = []
    for key in (key for key in keys if key in found):
        rows = found[key].groups
        rows = rows[rows["dimension"].isin(dimensions) & (rows["n"] > 0)]
        label = rows["group"].str.replace(" x ", ", ") + _people(rows["n"], rows["suppressed"])
        rows = rows.assign(n=rows["n"].astype(float).mask(rows["suppressed"]))
        parts.append(rows.assign(outcome=outcome_of(key).label, label=label))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"estimate": []})
    if table["estimate"].notna().sum() == 0:
        raise MissingColumn(f"needs a group by {' or '.join(map(called, dimensions))} that is large enough to be shown")
    return table


def _people(number: pd.Series, suppressed: pd.Series) -> pd.Series:
    """Second line of a label: how many people, or that they are too few to be counted in public."""
    return ("\nn = " + number.map("{:,}".format)).mask(suppressed, "\nwithheld")


def side_by_side(found: Mapping[str, Audit], dimensions: Sequence[str]) -> pd.DataFrame:
    """A row for each group, a column for each outcome: estimate, interval and n, or that these are withheld."""
    columns = {
        outcome_of(key).label: audit.groups.set_index(["dimension", "group"]).apply(_cell, axis=1)
        for key, audit in found.items()
    }
    nobody = pd.MultiIndex.from_arrays([[], []], names=["dimension", "group"])
    table = pd.DataFrame(columns) if columns else pd.DataFrame(index=nobody)
    table = table[table.index.get_level_values("dimension").isin(dimensions) & (table != "nobody").any(axis=1)]
    if table.empty:
        raise MissingColumn(f"needs people whose {' or '.join(map(called, dimensions))} is known; there are none")
    table = table.reset_index().drop(columns="dimension")
    return table.assign(group=table["group"].str.replace(" x ", ", "))


_HOLD = "\u00a0"  # a space where no line ends


def _cell(row: pd.Series) -> str:
    if row["n"] == 0:
        return "nobody"
    if row["suppressed"]:
        return "withheld"
    people = f"n{_HOLD}={_HOLD}{row['n']:,}"
    ends = f" [{row['ci_low']:.3f},{_HOLD}{row['ci_high']:.3f}]" if np.isfinite(row["ci_low"]) else ""
    return f"{row['estimate']:.3f}{ends} {people}".replace("-", "\u2212")


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons for a plot, all in shares of what the best served group has; raises `MissingColumn` for none."""
    known = table[table["noise_corrected"].notna() & (table["scale"] > 0)].reset_index(drop=True)
    if known.empty:
        raise MissingColumn("needs two groups or more by gender or age that are large enough to be shown")
    label = [f"{outcome_of(row.outcome).label}\n{called(row.dimension)}" for row in known.itertuples()]
    shares = known[["raw", "noise_corrected", "detectable"]].div(known["scale"], axis=0)
    return shares.assign(label=label, n=known["n"], p_adjusted=known["p_adjusted"], verdict=known["verdict"])


def comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons as a table to be read; raises `MissingColumn` where there are none."""
    if table.empty:
        raise MissingColumn("needs groups of people to compare; there are none")
    named = table.assign(
        outcome=table["outcome"].map(lambda key: outcome_of(key).label), by=table["dimension"].map(called)
    )
    columns = [
        "outcome",
        "by",
        "verdict",
        "noise_corrected",
        "ci_low",
        "ci_high",
        "tolerated",
        "detectable",
        "p_adjusted",
    ]
    columns += ["raw", "highest", "lowest", "n", "needed"]
    ends = {end: named[end].str.replace(" x ", ", ") for end in ("highest", "lowest")}
    return named.assign(**ends)[columns].rename(columns={"needed": "people needed"})


def to_do(table: pd.DataFrame) -> pd.DataFrame:
    """What to do about each verdict, and how many comparisons have it."""
    rows = [
        (verdict, when, int((table["verdict"] == verdict).sum()), what) for verdict, (when, what) in ACTIONS.items()
    ]
    return pd.DataFrame(rows, columns=["verdict", "when", "comparisons here", "what to do"])


# Calibration and exposure


def calibration_by_group(
    predicted: pd.DataFrame, dataset: Dataset, found: Mapping[str, Audit], *, level: float, resamples: int, seed: int
) -> pd.DataFrame:
    """`fairness_of_models.calibration` by gender and age of held-out pairs, with a column `label`.

    Groups that the audit of `gap` withholds are withheld here as well. Raises `MissingColumn` where none is left.
    """
    if "gap" not in found:
        raise MissingColumn("needs people of known gender or age, and adopted habits of which the outcome is known")
    audit = found["gap"]
    people = fairness.people(dataset).set_index("user_id").reindex(predicted["user_id"])
    parts = []
    for dimension in (name for name in ("gender", "age_band") if name in people):
        table = calibration(
            predicted["chance"], predicted["success"], people[dimension].astype(object), user=predicted["user_id"],
            level=level, resamples=resamples, seed=seed,
        )  # fmt: skip
        held = table["suppressed"] | ~table["group"].isin(shown(audit, dimension)["group"])
        label = table["group"] + _people(table["users"], held)
        numbers = table.columns.difference(["group", "suppressed"], sort=False)
        table = table.assign(suppressed=held, label=label)
        table[numbers] = table[numbers].astype(float).where(~held)
        order = {group: place for place, group in enumerate(audit.groups["group"])}
        parts.append(table.assign(dimension=called(dimension)).sort_values("group", key=lambda name: name.map(order)))
    both = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if both.empty or both["suppressed"].all():
        raise MissingColumn("needs a group by gender or age with enough pairs to be judged")
    return both.rename(columns={"n": "pairs"})


def kinds_of_items(
    lists: Lists, dataset: Dataset, split: Split, *, level: float, resamples: int, seed: int
) -> pd.DataFrame:
    """Exposure of categories and of bands of popularity in lists: `item_exposure` with columns `by` and `label`."""
    if not len(lists):
        raise MissingColumn("needs people with a list; there are none")
    habits = dataset.habits.set_index("habit_id").loc[split.habit_ids]
    had = np.asarray(Interactions.read(split.train, split.until).ever.sum(axis=0), dtype=float).ravel()
    kinds = {"popularity": popularity_band(had)}
    if "category" in habits and habits["category"].notna().any():
        kinds = {"category": habits["category"].to_numpy(dtype=object)} | kinds
    parts = [
        item_exposure(lists, kind, level=level, resamples=resamples, seed=seed).assign(by=by)
        for by, kind in kinds.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    ends = table[["ci_low", "ci_high"]].div(table["catalogue_share"], axis=0)
    label = table["kind"] + "\n" + table["items"].astype(str) + " habits"
    table = table.assign(ratio_low=ends["ci_low"], ratio_high=ends["ci_high"], label=label)
    return table.sort_values(["by", "ratio"], ascending=[True, False], kind="stable", ignore_index=True)


def exposed(table: pd.DataFrame, users: int, level: float) -> list[dict[str, Any]]:
    """Return the kinds of items most and least exposed for their share of the catalogue, as findings."""
    how = "share of all attention over share of the catalogue; bootstrap by user"
    return [
        exact(f"{end}_{by}", str(row["kind"]), row["ratio"], n=users, method=how, unit="ratio")
        | {"ci_low": row["ratio_low"], "ci_high": row["ratio_high"], "level": level}
        | ({} if np.isfinite(row["ratio_low"]) else {"reason": "no interval: too few people, or all alike"})
        for by, rows in table.groupby("by")
        for end, row in (("most", rows.iloc[0]), ("least", rows.iloc[-1]))
    ]
