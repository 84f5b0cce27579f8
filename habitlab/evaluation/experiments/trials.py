"""Trials to analyse: a real published one, and simulated ones whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.evaluation.experiments import assign
from habitlab.evaluation.experiments.trial_metrics import RUN_IN, assignments, daily, outcomes, true_effects
from habitlab.simulation import Arms, World
from habitlab.simulation.adoption import Adoptions, adopt
from habitlab.simulation.tables import make_tables
from habitlab.simulation.tracking import instants, tracking, utc
from habitlab.simulation.world import PROGRAMME_DAYS, Course

ARMS = ("control", "programme")


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
    """What is seen, and what would be seen were everybody in one arm: three datasets of the same people.

    `seen.experiments` says who was assigned and exposed; unexposed are those who had left by then.
    """

    seen: Dataset
    without: Dataset
    treated: Dataset

    @property
    def exposed(self) -> pd.DataFrame:
        """user_id, arm and the day of exposure of everybody exposed."""
        return assignments(self.seen).dropna(subset="exposed")

    def effect(self, first: int = 0, last: int = PROGRAMME_DAYS) -> float:
        """Return the true mean difference over users of the share done on days `first` ... `last` - 1 since exposure.

        Known exactly: the same world is lived through twice, once with everybody in each arm.
        """
        exposed = self.exposed.set_index("user_id")["exposed"]
        shares = []
        for world in (self.without, self.treated):
            rows = daily(world, exposed)
            sums = rows[rows["day"].between(first, last - 1)].groupby("user_id")[["done", "scheduled"]].sum()
            shares.append(float((sums["done"] / sums["scheduled"]).mean()))
        return shares[1] - shares[0]

    def truth(self) -> dict[str, float]:
        """True effect on each metric of `trial_metrics`."""
        exposed = self.exposed.set_index("user_id")["exposed"]
        return true_effects(outcomes(self.without, exposed), outcomes(self.treated, exposed))


def simulated_trial(world: World, *, lift: float, lasts: bool = False, salt: str = "trial") -> SimulatedTrial:
    """Run a programme for half of a world's users, assigned by `salt`, on the new habits they take up.

    For `RUN_IN` days people track the habits they chose themselves. Then those still there are exposed: they take up
    the habits recommended to them, in one arm with a programme on these. `lift` and `lasts` as in `World.replay`: what
    the incentive adds to completions during its 28 days, and whether it stays. The truth is the world lived through
    twice.
    """
    adoptions, offers, existing = adopt(world)
    people = world.people
    exposure = people.registered + RUN_IN
    present = (people.lifetime > RUN_IN) & (exposure < world.days)
    early = adoptions.recommended & (adoptions.start < exposure[adoptions.user])
    keep = ~early | present[adoptions.user]
    start = np.where(early, exposure[adoptions.user], adoptions.start)
    adoptions = Adoptions(
        adoptions.user[keep], adoptions.habit[keep], start[keep], adoptions.load[keep], adoptions.recommended[keep]
    )
    new = early[keep]

    def live(programme: float) -> Course:
        lifts = np.where(new, programme, 0.0)
        return world.replay(adoptions.user, adoptions.habit, adoptions.start, adoptions.load, lift=lifts, lasts=lasts)

    course = live(0.0)
    tables = make_tables(world, adoptions, offers, existing, course)
    kept = {name: tables[name] for name in ("users", "habits", "habit_tracking", "adoptions")}
    without = Dataset(**kept, metadata={"source": "simulated", "simulated": True})
    treated = replace(without, habit_tracking=tracking(world, live(lift)))
    ids = np.asarray(world.user_ids, dtype=object)
    arm = assign(ids, ARMS, salt)
    at = instants(world, people.index, np.minimum(exposure, world.days - 1), np.full(world.users, 12.0))
    log = pd.DataFrame(
        {
            "experiment": salt,
            "user_id": world.user_ids,
            "arm": arm,
            "assigned_at": without.users["registered_at"],
            "exposed_at": utc(np.where(present, at, np.datetime64("NaT"))),
        }
    )
    mine, theirs = without.habit_tracking, treated.habit_tracking
    helped = ids[arm == ARMS[1]]
    observed = pd.concat(
        [mine[~mine["user_id"].isin(helped)], theirs[theirs["user_id"].isin(helped)]], ignore_index=True
    )
    seen = replace(without, habit_tracking=observed, experiments=log)
    return SimulatedTrial(seen, without, treated)


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
