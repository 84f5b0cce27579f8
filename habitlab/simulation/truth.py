"""The truth beside the data: what would happen to every pair of a user and a habit.

The label of `success`: once adopted, done on at least 60 % of the scheduled days 22-49 since adoption (day 0),
days after giving up counting as not done. Reference day of every potential outcome: the user's day of registration,
with as many habits held as the user really held then.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.interpolate import RegularGridInterpolator

from habitlab.simulation import people as population
from habitlab.simulation import world as behaviour
from habitlab.simulation.adoption import Adoptions, adopt, adoption_probability, log_odds
from habitlab.simulation.people import Floats, Ints
from habitlab.simulation.world import Course, World, parameters

WINDOW = (22, 50)  # days since adoption, the last one excluded
SUCCESS = 0.6
HORIZON = 90
_BLOCK = 256


def truth_path(path: str | Path) -> Path:
    """Return where the truth of the dataset at `path` is kept."""
    return Path(path).with_suffix(".truth.parquet")


def load_truth(path: str | Path) -> pd.DataFrame:
    """Read the truth of the dataset at `path`: a row per user and habit, whether adopted or not.

    Columns: user_id, habit_id (category), adoption_probability (if offered and looked at, in vague words),
    completion_probability (in the long run, on an average day), success_probability (of the label above, if adopted),
    and the potential outcomes success (bool), completions (within 90 days, int16), retained_90 (bool). `attrs` holds
    the parameters of the world and `average_effects`, the true causal effects.

    Raises
    ------
    FileNotFoundError
        Nothing is kept beside `path`: only simulated data have a known truth.
    """
    place = truth_path(path)
    if not place.exists():
        raise FileNotFoundError(f"no truth at {place}; `habitlab simulate` writes it beside the data it makes")
    return pd.read_parquet(place)


def make_truth(world: World) -> pd.DataFrame:
    """Compute the truth of a world; columns as in `load_truth`."""
    adoptions, _, _ = adopt(world)
    load = held_at_registration(world, adoptions)
    blocks = [
        _block(world, np.arange(begin, min(begin + _BLOCK, world.users)), load)
        for begin in range(0, world.users, _BLOCK)
    ]
    frame = pd.concat(blocks, ignore_index=True)
    user, habit = frame.pop("user").to_numpy(), frame.pop("habit").to_numpy()
    frame.insert(0, "user_id", pd.Categorical.from_codes(user, categories=world.user_ids))
    frame.insert(1, "habit_id", pd.Categorical.from_codes(habit, categories=world.habit_ids))
    frame.attrs = {"simulation": parameters(world), "average_effects": average_effects(world, adoptions)}
    return frame


def held_at_registration(world: World, adoptions: Adoptions) -> Ints:
    """Number of habits that each user adopted on the day of registration (users,), at least 1."""
    initial = adoptions.start == world.people.registered[adoptions.user]
    return np.maximum(1, np.bincount(adoptions.user[initial], minlength=world.users))


def succeeded(world: World, course: Course) -> tuple[behaviour.Bools, Ints]:
    """Tell which pairs of a replay succeed, and how often each is done within 90 days; both (pairs,)."""
    inside = course.done & (course.day >= WINDOW[0]) & (course.day < WINDOW[1])
    done = np.bincount(course.pair, inside, len(course.user))
    needed = _needed(world.habits.times[course.habit], world.habits.per_days[course.habit])
    completions = np.bincount(course.pair, course.done & (course.day < HORIZON), len(course.user))
    return done >= needed, completions.astype(np.int64)


def _scheduled_before(day: int, times: Ints, per_days: Ints) -> Ints:
    return -((-day * times) // per_days)


def _needed(times: Ints, per_days: Ints) -> Ints:
    planned = _scheduled_before(WINDOW[1], times, per_days) - _scheduled_before(WINDOW[0], times, per_days)
    return np.maximum(1, np.ceil(SUCCESS * planned - 1e-9)).astype(np.int64)


def _block(world: World, users: Ints, load: Ints) -> pd.DataFrame:
    habits = len(world.habits)
    user, habit = np.repeat(users, habits), np.tile(np.arange(habits), len(users))
    start, held = world.people.registered[user], load[user]
    course = world.replay(user, habit, start, held, until=start + HORIZON)
    success, completions = succeeded(world, course)
    offered = adoption_probability(world, users, log_odds(world, users))
    return pd.DataFrame(
        {
            "user": user,
            "habit": habit,
            "adoption_probability": offered.ravel().astype(np.float32),
            "completion_probability": long_run(world, user, habit, held).astype(np.float32),
            "success_probability": success_probability(world, user, habit, start, held).astype(np.float32),
            "success": success,
            "completions": completions.astype(np.int16),
            "retained_90": course.length >= HORIZON,
        }
    )


def long_run(world: World, user: Ints, habit: Ints, load: Ints) -> Floats:
    """Chance of completion on an average day when novelty has gone and automaticity has settled (pairs,)."""
    logit, learning = world.logit(user, habit, load), world.learning(user, habit)
    automatic = np.full(len(logit), 0.5)
    for _ in range(30):  # the fixed point of one gain when done and one loss when missed
        chance = 1 / (1 + np.exp(-(logit + behaviour.AUTOMATIC * automatic)))
        gain, loss = learning * chance, behaviour.FORGETTING * (1 - chance)
        automatic = gain / (gain + loss)
    return chance


def success_probability(world: World, user: Ints, habit: Ints, start: Ints, load: Ints) -> Floats:
    """Chance of success of pairs adopted on day `start` (pairs,), over the noise of days and of giving up."""
    habits = world.habits
    logit = world.logit(user, habit, load)
    learning = np.log(world.learning(user, habit))
    persistence = -np.log1p(-world.persistence(user, habit))
    weekday = world.people.weekday[user] + behaviour.BY_WEEKDAY - behaviour.BY_WEEKDAY.mean()
    streak = behaviour.STREAK if world.streaks_shown else 0.0
    result = np.empty(len(user))
    for kind in np.unique(habits.per_days[habit] * 1000 + habits.times[habit]):
        times, per_days = int(kind % 1000), int(kind // 1000)
        rows = np.flatnonzero((habits.times[habit] == times) & (habits.per_days[habit] == per_days))
        days = np.arange(WINDOW[0], WINDOW[1])
        days = days[np.isin(days, np.arange(WINDOW[1]) * per_days // times)]
        week = np.bincount(days % 7, minlength=7) / max(len(days), 1)
        shift = np.stack([np.roll(week, first) for first in range(7)])  # by weekday of the start
        effect = (weekday[rows] * shift[start[rows] % 7]).sum(axis=1)
        chance, hit_day = _tables(world.knobs.dip, streak, times, per_days)
        point = np.column_stack([np.clip(logit[rows] + effect, *_LOGITS[[0, -1]]), persistence[rows], learning[rows]])
        point[:, 1] = np.clip(point[:, 1], *_PERSISTENCES[[0, -1]])
        point[:, 2] = np.clip(point[:, 2], *_LEARNINGS[[0, -1]])
        # Success is sealed on some day of the window; the pair must be held until then.
        result[rows] = chance(point) * held_until(world, user[rows], habit[rows], start[rows], hit_day(point))
    return result


def held_until(world: World, user: Ints, habit: Ints, start: Ints, day: Floats) -> Floats:
    """Chance that a pair adopted on day `start` is still held `day` days later (pairs,)."""
    own = np.exp(-world.daily_hazard(user, habit) * day)
    before = (start - world.people.registered[user]).astype(float)
    return own * population.stays(before + day, world.retention) / population.stays(before, world.retention)


_LOGITS = np.linspace(-7, 7, 81)
_PERSISTENCES = np.linspace(0, behaviour.MOST_PERSISTENT, 10)
_LEARNINGS = np.log(np.geomspace(0.003, 0.5, 7))


@lru_cache(maxsize=64)
def _tables(dip: float, streak: float, times: int, per_days: int) -> tuple[RegularGridInterpolator, ...]:
    """Chance of success while held, and the mean day on which it is sealed, over (logit, persistence, learning).

    A forward recursion over the state (done last time, done so often in the window) with the mean automaticity in each
    state: exact but for the spread of automaticity within a state.
    """
    grid = np.meshgrid(_LOGITS, _PERSISTENCES, _LEARNINGS, indexing="ij")
    logit, persistence, learning = (axis.ravel()[:, None] for axis in grid)
    weight, learn = 1 - np.exp(-persistence), np.exp(learning)
    needed = int(_needed(np.array(times), np.array(per_days)))
    share = np.zeros((2, len(logit), needed + 1))  # missed or done last time; nodes; times done
    automatic = np.zeros_like(share)
    share[0, :, 0] = 1.0
    sealed_day = np.zeros(len(logit))
    top = 1
    occasions = int(_scheduled_before(WINDOW[1], np.array(times), np.array(per_days)))
    for j in range(occasions):
        day = j * per_days // times
        inside = day >= WINDOW[0]
        novelty = dip * behaviour.NOVELTY * np.exp(-day / behaviour.NOVELTY_DAYS)
        sealed = share[:, :, needed].sum(axis=0)
        top = min(top + inside, needed + 1)  # counts that can have been reached
        now, was = share[:, :, :top], automatic[:, :, :top]
        into = np.zeros((2, *now.shape))  # what comes by missing and by doing: mass, and mass times automaticity
        for last in (0, 1):
            x = logit + novelty + behaviour.AUTOMATIC * was[last] + (streak * (2 * last - 1) if j else 0.0)
            chance = 1 / (1 + np.exp(-x))
            if j:
                chance += weight * behaviour.routine(day) * (last - chance)
            doing, missing = now[last] * chance, now[last] * (1 - chance)
            more = doing * (was[last] + learn * (1 - was[last]))
            if inside:
                doing, more = _one_more(doing), _one_more(more)
            into[0, 0] += missing
            into[1, 0] += missing * was[last] * (1 - behaviour.FORGETTING)
            into[0, 1] += doing
            into[1, 1] += more
        share[:, :, :top] = into[0]
        automatic[:, :, :top] = np.divide(into[1], into[0], out=np.zeros_like(into[0]), where=into[0] > 0)
        sealed_day += day * (share[:, :, needed].sum(axis=0) - sealed)
    chance = share[:, :, needed].sum(axis=0)
    sealed_day = np.where(chance > 1e-12, sealed_day / np.maximum(chance, 1e-12), WINDOW[1] - 1)
    axes, shape = (_LOGITS, _PERSISTENCES, _LEARNINGS), grid[0].shape
    return (
        RegularGridInterpolator(axes, chance.reshape(shape)),
        RegularGridInterpolator(axes, sealed_day.reshape(shape)),
    )


def _one_more(mass: Floats) -> Floats:
    """Move mass (nodes, counts) one count up; the last count keeps what it has."""
    moved = np.zeros_like(mass)
    moved[:, 1:] = mass[:, :-1]
    moved[:, -1] += mass[:, -1]
    return moved


def average_effects(world: World, adoptions: Adoptions) -> dict[str, float]:
    """True causal effects by the name of the claim they belong to, found by replaying what was adopted both ways.

    `goal_setting_completion`: mean over users of average completion with a goal less without; with `_standardised`,
    in standard deviations of the users' average completion. `concurrent_habits_completion`: likewise for one habit more
    held. `clear_description_adoption`: relative change of the chance to adopt. What cannot be told is left out.
    """
    user = adoptions.user

    def completion(load: Ints, goal: bool | None) -> Floats:
        chosen = None if goal is None else np.full(len(user), goal)
        course = world.replay(user, adoptions.habit, adoptions.start, load, goal=chosen)
        days = np.bincount(course.pair, minlength=len(user))
        held = days > 0
        rate = np.bincount(course.pair, course.done, len(user))[held] / days[held]
        pairs = np.bincount(user[held], minlength=world.users)
        return (np.bincount(user[held], rate, world.users) / np.maximum(pairs, 1))[pairs > 0]

    as_is = completion(adoptions.load, None)
    found = {
        "goal_setting_completion": completion(adoptions.load, True) - completion(adoptions.load, False),
        "concurrent_habits_completion": completion(adoptions.load + 1, None) - as_is,
    }
    effects = {name: float(difference.mean()) for name, difference in found.items() if len(as_is)}
    if len(as_is) > 1 and as_is.std() > 0:
        effects |= {f"{name}_standardised": effects[name] / float(as_is.std()) for name in found}
    return effects | {"clear_description_adoption": world.knobs.clear}
