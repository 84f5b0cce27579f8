"""The metrics of a trial of an app: the one place where they are defined.

Days count from the local day of exposure, 0 the first. Everybody exposed counts in the arm assigned, whatever they
did later. Who was assigned and never exposed has no day 0 and is left out: sound as long as the arms are exposed alike,
which `exposure` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation.experiments import srm_test
from habitlab.features.days import local_date

WINDOW = 30
"""Days since exposure that count, but for retention."""

RUN_IN = 28
"""Days before exposure from which the covariate comes."""

GONE_AFTER = 14
"""Days without anything done after which somebody is taken to have left."""


@dataclass(frozen=True)
class Metric:
    """A metric of a unit, by its column of `outcomes`; with `denominator` the arms' ratios of sums are compared."""

    label: str
    unit: str
    definition: str
    denominator: str | None = None


PRIMARY = "done"
METRICS = {
    "done": Metric("Completion", "share difference", "days done / days done or missed", "scheduled"),
    "active_days": Metric("Active days", "days", "days on which anything was done"),
    "adopted": Metric("Habits adopted", "habits", "habits adopted after exposure"),
    "any_adopted": Metric("Adopted any habit", "share difference", "whether any habit was adopted after exposure"),
}
"""Metrics over the first `WINDOW` days; retention stands beside, as days kept (`kept_days`, `ended`)."""

_DAILY = ["user_id", "date", "day", "done", "scheduled"]

DENOMINATORS = {name: metric.denominator for name, metric in METRICS.items() if metric.denominator}


def outcomes(dataset: Dataset, exposed: pd.Series, days: int = WINDOW, gone_after: int = GONE_AFTER) -> pd.DataFrame:
    """Return the metrics of a trial, a row a user.

    `exposed` (users,) holds the local day of exposure by user id.

    - `adopted`: habits adopted on days 0 ... days - 1; `any_adopted`: whether any was.
    - `done`, `scheduled`: rows of tracking on these days that say done, and that say done or missed (skipped and
      unknown are neither). Completion is sum(done) / sum(scheduled), with `denominator="scheduled"`; `completion` is
      that of the user alone, NaN without a day done or missed. `active_days`: days with anything done.
    - `before`: the user's completion in the `RUN_IN` days before exposure, NaN where nothing was scheduled.
    - `kept_days`, `ended`: days until the last one with anything done, counted to the end of the data; who did nothing
      for `gone_after` days has ended then, all others are censored. Nobody's last `gone_after` days can tell.

    Users without any row have 0, not NaN; exposed after the last day that can be told, they are left out.

    Raises
    ------
    MissingColumn
        A table lacks what is needed, or nobody is left.
    ValueError
        A user has two days of exposure, or an unknown one.
    """
    dataset.require("habit_tracking.status", "adoptions.adopted_at")
    start = pd.to_datetime(exposed).dt.tz_localize(None).dt.normalize()
    if not start.index.is_unique or start.isna().any():
        raise ValueError("each user is exposed once, on a known day")
    last = dataset.habit_tracking["date"].max() - pd.Timedelta(days=gone_after)
    start = start[start <= last]
    if start.empty:
        raise MissingColumn(f"needs somebody exposed {gone_after} days or more before the data end; there is nobody")
    tracking = _since(dataset, start)
    inside = tracking["day"].between(0, days - 1)
    before = tracking["day"].between(-RUN_IN, -1)

    def count(rows: pd.Series) -> pd.Series:
        return tracking.loc[rows, "user_id"].value_counts().reindex(start.index).fillna(0).astype(int)

    done, told = tracking["status"] == "done", tracking["status"].isin(["done", "missed"])
    adoptions = dataset.adoptions
    adopted_day = _local_day(dataset, adoptions["user_id"], adoptions["adopted_at"])
    since = (adopted_day - adoptions["user_id"].map(start)).dt.days
    taken = adoptions.loc[since.between(0, days - 1), "user_id"].value_counts()
    after = tracking[done & (tracking["day"] >= 0)]
    active = after.loc[after["day"] < days, ["user_id", "day"]].drop_duplicates()["user_id"].value_counts()
    watched = (last - start).dt.days + 1
    kept = (after.groupby("user_id")["day"].max() + 1).reindex(start.index).fillna(0)
    found = pd.DataFrame(
        {
            "adopted": taken.reindex(start.index).fillna(0).astype(int),
            "done": count(done & inside),
            "scheduled": count(told & inside),
            "active_days": active.reindex(start.index).fillna(0).astype(int),
            "before": count(done & before) / count(told & before),
            "kept_days": np.minimum(kept, watched).astype(int),
            "ended": kept < watched,
        }
    )
    found.insert(1, "any_adopted", found["adopted"] > 0)
    found["completion"] = found["done"] / found["scheduled"]
    return found.rename_axis("user_id").reset_index()


def daily(dataset: Dataset, exposed: pd.Series) -> pd.DataFrame:
    """Return user_id, date, day (since exposure, below 0 before), done and scheduled: a row a user and day told."""
    told = _since(dataset, exposed)
    told = told[told["status"].isin(["done", "missed"])]
    if told.empty:
        return told.rename(columns={"status": "done"}).astype({"done": float}).assign(scheduled=1.0)[_DAILY]
    # Counted by place, which is ten times as fast as grouping by three columns.
    users, ids = pd.factorize(told["user_id"], sort=True)
    days = told["day"].to_numpy()
    first, width = days.min(), days.max() - days.min() + 1
    place = users * width + days - first
    scheduled = np.bincount(place, minlength=len(ids) * width)
    done = np.bincount(place[(told["status"] == "done").to_numpy()], minlength=len(ids) * width)
    here = np.flatnonzero(scheduled)
    frame = pd.DataFrame({"user_id": ids[here // width], "day": here % width + first})
    frame["date"] = frame["user_id"].map(exposed) + pd.to_timedelta(frame["day"], unit="D")
    return frame.assign(done=done[here].astype(float), scheduled=scheduled[here].astype(float))[_DAILY]


def assignments(dataset: Dataset, experiment: str | None = None) -> pd.DataFrame:
    """Return user_id, arm and exposed (local day, NaT without exposure) of an experiment; the only one by default.

    Raises
    ------
    MissingColumn
        No experiment, or none of this name.
    ValueError
        Several experiments and none is named, or a user is in two arms of it.
    """
    rows = dataset.experiments
    names = sorted(rows["experiment"].unique())
    if not names or (experiment is not None and experiment not in names):
        there = ", ".join(names) or "none"
        raise MissingColumn(f"needs an experiment{f' {experiment!r}' if experiment else ''}; this dataset has {there}")
    if experiment is None and len(names) > 1:
        raise ValueError(f"name one of the experiments {', '.join(names)}")
    rows = rows[rows["experiment"] == (experiment or names[0])]
    if rows["user_id"].duplicated().any():
        twice = rows.loc[rows["user_id"].duplicated(), "user_id"]
        raise ValueError(
            f"{twice.nunique()} users have two arms of {experiment or names[0]}, such as {twice.iloc[0]!r}"
        )
    seen = rows["exposed_at"] if "exposed_at" in rows and rows["exposed_at"].notna().any() else rows["assigned_at"]
    exposed = _local_day(dataset, rows["user_id"], seen)
    return pd.DataFrame({"user_id": rows["user_id"], "arm": rows["arm"], "exposed": exposed}).reset_index(drop=True)


def trial_table(dataset: Dataset, experiment: str | None = None) -> pd.DataFrame:
    """Return the metrics of everybody exposed in an experiment, with their arm: `outcomes` and `assignments` joined."""
    assigned = assignments(dataset, experiment).dropna(subset="exposed").set_index("user_id")
    found = outcomes(dataset, assigned["exposed"])
    found.insert(1, "arm", found["user_id"].map(assigned["arm"]))
    return found


def exposure(assigned: pd.DataFrame) -> pd.DataFrame:
    """Return arm, assigned, exposed, share and the p-values of both sample ratios and of "exposed alike", a row an arm.

    Arms exposed unequally are no longer compared at random: who was exposed had then something to do with the arm.
    """
    by_arm = assigned.groupby("arm", observed=True)["exposed"].agg(assigned="size", exposed="count").reset_index()
    left = by_arm["assigned"] - by_arm["exposed"]
    alike = 1.0
    if len(by_arm) > 1 and left.sum() and by_arm["exposed"].sum():
        alike = float(stats.chi2_contingency([by_arm["exposed"], left], correction=False).pvalue)
    ratios = {
        name: srm_test(dict(zip(by_arm["arm"], by_arm[name], strict=True)))
        for name in ("assigned", "exposed")
        if len(by_arm) > 1 and by_arm[name].sum()
    }
    return by_arm.assign(
        share=by_arm["exposed"] / by_arm["assigned"],
        srm_assigned=ratios.get("assigned", np.nan),
        srm_exposed=ratios.get("exposed", np.nan),
        alike=alike,
    )


def true_effects(without: pd.DataFrame, treated: pd.DataFrame) -> dict[str, float]:
    """True effect on each metric, from `outcomes` of the same users in two worlds: nobody and everybody treated."""

    def value(table: pd.DataFrame, name: str, denominator: str | None) -> float:
        return float(table[name].mean() if denominator is None else table[name].sum() / table[denominator].sum())

    return {
        name: value(treated, name, metric.denominator) - value(without, name, metric.denominator)
        for name, metric in METRICS.items()
    }


def _since(dataset: Dataset, exposed: pd.Series) -> pd.DataFrame:
    tracking = dataset.habit_tracking[["user_id", "date", "status"]]
    users, ids = pd.factorize(tracking["user_id"])
    start = exposed.reindex(ids).to_numpy(dtype="datetime64[s]")[users]
    since = (tracking["date"].to_numpy(dtype="datetime64[s]") - start).astype("timedelta64[D]")
    known = ~np.isnat(since)
    return tracking[known].assign(day=since[known].astype(np.int64))


def _local_day(dataset: Dataset, user_id: pd.Series, at: pd.Series) -> pd.Series:
    """The user's local day of each instant; of UTC where the zone is not known."""
    users = dataset.users.set_index("user_id")

    def of_user(name: str, otherwise: Mapping[str, object] | object) -> pd.Series:
        if name not in users:
            return pd.Series(otherwise, index=user_id.index)
        return user_id.map(users[name]).astype(object).fillna(otherwise).set_axis(user_id.index)

    return local_date(at, of_user("zone", "UTC"), of_user("day_start", 0))
