"""Trials to analyse: the metrics of an app's own trial, a real published one, and ones whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.evaluation.experiments import assign
from habitlab.simulation import Arms, World
from habitlab.simulation.adoption import Adoptions, adopt

GONE_AFTER = 14
"""Days without anything done after which somebody is taken to have left."""

ARMS = ("control", "programme")


def outcomes(dataset: Dataset, exposed: pd.Series, days: int = 30, gone_after: int = GONE_AFTER) -> pd.DataFrame:
    """Return the metrics of a trial, a row a user: the one place where they are defined.

    `exposed` (users,) holds the local day of exposure by user id; days count from it, 0 the first.

    - `adopted`: habits adopted on days 0 ... days - 1; `any_adopted`: whether any was.
    - `done`, `scheduled`: rows of tracking on these days that say done, and that say done or missed (skipped and
      unknown are neither). Completion is sum(done) / sum(scheduled), with `denominator="scheduled"`.
    - `kept_days`, `ended`: days until the last one with anything done, counted to the end of the data; who did nothing
      for `gone_after` days has ended then, all others are censored. Nobody's last `gone_after` days can tell.

    Users without any row have 0, not NaN; exposed after the last day that can be told, they are left out.
    """
    dataset.require("habit_tracking.status", "adoptions.adopted_at")
    start = pd.to_datetime(exposed).dt.tz_localize(None).dt.normalize()
    if not start.index.is_unique or start.isna().any():
        raise ValueError("each user is exposed once, on a known day")
    tracking = dataset.habit_tracking[["user_id", "date", "status"]]
    last = tracking["date"].max() - pd.Timedelta(days=gone_after)
    start = start[start <= last]
    tracking = tracking.assign(day=(tracking["date"] - tracking["user_id"].map(start)).dt.days)
    tracking = tracking[tracking["day"] >= 0]
    done = tracking[tracking["status"] == "done"]
    inside = tracking[tracking["day"] < days]
    status = inside["status"].isin(["done", "missed"])
    adopted_day = dataset.adoptions["adopted_at"].dt.tz_localize(None).dt.normalize()
    since = (adopted_day - dataset.adoptions["user_id"].map(start)).dt.days
    taken = dataset.adoptions.loc[since.between(0, days - 1), "user_id"].value_counts()
    watched = (last - start).dt.days + 1
    kept = (done.groupby("user_id")["day"].max() + 1).reindex(start.index).fillna(0)
    found = pd.DataFrame(
        {
            "adopted": taken.reindex(start.index).fillna(0).astype(int),
            "done": done.loc[done["day"] < days, "user_id"].value_counts().reindex(start.index).fillna(0).astype(int),
            "scheduled": inside.loc[status, "user_id"].value_counts().reindex(start.index).fillna(0).astype(int),
            "kept_days": np.minimum(kept, watched).astype(int),
            "ended": kept < watched,
        }
    )
    found.insert(1, "any_adopted", found["adopted"] > 0)
    return found.rename_axis("user_id").reset_index()


def load_browser_trial(folder: str | Path) -> pd.DataFrame:
    """Read the trial of nudges against time on distracting sites (Kovacs et al. 2019, doi:10.1145/3290605.3300560).

    Columns: user, goal (the site), arm (infrequent or frequent nudges, the first the control), time (log of about the
    seconds on the site), other_time (on the other sites), goal_time: mean `time` on that site of all other users, known
    whatever this user is assigned, so a covariate. Nine users in ten are in both arms.

    Raises
    ------
    FileNotFoundError
        The file is not there; says which.
    """
    place = Path(folder) / "browser_goal_freq.csv"
    if not place.is_file():
        raise FileNotFoundError(
            f"no {place.name} in {place.parent}; it is made from github.com/gkovacs/habitlab-conservation-analysis"
        )
    rows = pd.read_csv(place)
    of_goal = rows.groupby("goal")["time"].agg(["sum", "count"])
    of_user = rows.groupby(["user", "goal"])["time"].agg(["sum", "count"])
    others = of_goal.reindex(rows["goal"]).to_numpy()
    others -= of_user.reindex(pd.MultiIndex.from_frame(rows[["user", "goal"]])).to_numpy()
    with np.errstate(invalid="ignore"):
        goal_time = others[:, 0] / others[:, 1]
    return pd.DataFrame(
        {
            "user": rows["user"],
            "goal": rows["goal"],
            "arm": pd.Categorical(rows["frequency"], ["infrequent", "frequent"]),
            "time": rows["time"],
            "other_time": rows["other_goal_time"],
            "goal_time": goal_time,
        }
    )


@dataclass(frozen=True, eq=False)
class SimulatedTrial:
    """What is seen (`rows`: user, arm, habit, day since the habit's start, done) and what would be in either arm.

    `potential`: user, habit, day, without, with: done in a world where everybody is in that arm.
    """

    rows: pd.DataFrame
    potential: pd.DataFrame

    def effect(self, first: int = 0, last: int = 28) -> float:
        """Return the true mean difference over all users of the share done on days `first` ... `last` - 1.

        Known exactly: the same world is lived through twice, once with everybody in each arm.
        """
        inside = self.potential[self.potential["day"].between(first, last - 1)]
        both = inside.groupby("user")[["without", "with"]].mean().mean()
        return float(both["with"] - both["without"])


def simulated_trial(world: World, *, lift: float, lasts: bool = False, salt: str = "trial") -> SimulatedTrial:
    """Run a programme for half of a world's users, assigned by `salt`, on the habits they adopt.

    `lift` and `lasts` as in `World.replay`: what an incentive adds to completions during its 28 days, and whether it
    stays. The truth is the world lived through twice.
    """
    adoptions = adopt(world)[0]
    without, treated = (_live(world, adoptions, one, lasts) for one in (0.0, lift))
    arm = assign([str(user) for user in world.user_ids], ARMS, salt)
    rows = without.rename(columns={"done": "without"}).assign(**{"with": treated["done"]})
    arm_of_row = arm[rows["user"]]
    user_ids = np.asarray(world.user_ids, dtype=object)
    potential = rows.assign(user=user_ids[rows["user"]])
    observed = potential[["user", "habit", "day"]].assign(
        arm=arm_of_row, done=np.where(arm_of_row == ARMS[1], rows["with"], rows["without"])
    )
    return SimulatedTrial(observed, potential)


def _live(world: World, adoptions: Adoptions, lift: float, lasts: bool) -> pd.DataFrame:
    lifts = np.full(len(adoptions.user), lift)
    course = world.replay(adoptions.user, adoptions.habit, adoptions.start, adoptions.load, lift=lifts, lasts=lasts)
    return pd.DataFrame(
        {
            "user": adoptions.user[course.pair],
            "habit": adoptions.habit[course.pair],
            "day": course.day,
            "done": course.done.astype(float),
        }
    )


def surrogate_effects(world: World, arms: Arms, short: int = 30, long: int = 90) -> pd.DataFrame:
    """Return the true effect of every arm on the mean user's completions within `short` and within `long` days.

    Only habits that can be watched for `long` days count; days after giving up count as not done. Columns: arm, lift,
    lasts, surrogate (completions a habit more within `short` days), truth (within `long`), later (their difference).
    """
    adoptions = adopt(world)[0]
    watched = adoptions.start + long <= world.days
    user, habit, start, load = (
        part[watched] for part in (adoptions.user, adoptions.habit, adoptions.start, adoptions.load)
    )
    pairs = np.bincount(user, minlength=world.users)

    def completions(lift: float, lasts: bool) -> list[np.ndarray]:
        course = world.replay(user, habit, start, load, lift=np.full(len(user), lift), lasts=lasts)
        who = user[course.pair]
        counts = (np.bincount(who, course.done & (course.day < end), world.users) for end in (short, long))
        return [count[pairs > 0] / pairs[pairs > 0] for count in counts]

    control = completions(0.0, False)
    rows = []
    for name, lift, lasts in zip(arms.name, arms.lift, arms.lasts, strict=True):
        early, whole = (
            float((treated - base).mean()) for treated, base in zip(completions(lift, lasts), control, strict=True)
        )
        rows.append((name, lift, bool(lasts), early, whole, whole - early))
    return pd.DataFrame(rows, columns=["arm", "lift", "lasts", "surrogate", "truth", "later"])
