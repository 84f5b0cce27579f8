"""How habits go: given who, which habit and since when, what happens on every scheduled day (G1-G6, G8-G10, G12).

`World` is a pure function of its parameters. `World.replay` tells for any pairs of users and habits what happens from
any start day, by the same exogenous noise whatever else is replayed: so any policy can be run for real in one world.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from habitlab.dataset import derived
from habitlab.simulation import people as population
from habitlab.simulation.effects import Knobs, knobs, resolve
from habitlab.simulation.noise import STEP, Noise, mix
from habitlab.simulation.people import ACTIVITIES, CATEGORIES, FIRST_DAY, MEAN_HABITS, Floats, Ints, People

Bools = npt.NDArray[np.bool_]

# The forms are G1-G10 of the design's simulation notes. Constants without a source were set by hand in a few rounds of
# benchmarks/calibrate_simulation.py, until every claim of the register stood clear of its bound; then the knobs in
# `effects` were calibrated with these frozen. Change one of these, and that has to be done again.

# G2: logits of completion. Effects are centred, so that the mean stays about the same when one is switched off.
INTERCEPT = -1.12
# health, diet, physical, mindfulness, productivity, learning, relationships, career, finance
BY_CATEGORY = np.array([0.0, -0.55, 0.62, 0.65, 0.0, 0.0, 0.0, -0.05, -0.05])
BY_BAND = np.array([-0.15, 0.40, -0.15, -0.20, -0.25])  # bands of `derived.MINUTE_BANDS`
BY_DIFFICULTY = -0.12
WEEKLY = 0.60
REMINDED = 0.05
AFFINITY, PAIR = 0.30, 0.10
BY_CATEGORY_TASTE, BY_ACTIVITY_TASTE, BY_TASTE = 0.50, 0.60, 0.35  # parts of affinity, log-odds of choosing
# Persistence carries novelty on for days: at a decay of 4 days nothing is left of the dip on days 7-14.
NOVELTY, NOVELTY_DAYS = 1.5, 2.0
AUTOMATIC = 1.8
STREAK = 0.15  # G5: no field study gives its size; more of it blurs the link of persistence and mean run
# G4: gym visits rise by 33 % at the start of a week and 14 % of a month; week ends are a little worse.
BY_WEEKDAY = np.array([0.29, 0.10, 0.0, 0.0, -0.05, -0.14, -0.20])
MONTH_START = 0.15
# G1
DAYS_TO_AUTOMATIC, SPREAD_TO_AUTOMATIC, FORGETTING = 66.0, 0.6, 0.005
# G3. The slope is fixed; what is calibrated is how far consistency and not chance decides on persistence. So the spread
# of persistence, and with it the noise in every rate, stays the same when the effect is switched off.
PERSISTENCE, PERSISTENCE_SLOPE, MOST_PERSISTENT = 1.6, 2.3, 4.6
ROUTINE_DAYS = 2.0  # until a routine carries: else the first day's luck decides for months
# G8: hours of the local day
MORNING, EVENING, AFTERNOON = 7.0, 20.0, 14.5
EARLIEST = 5.5
HOUR_SPREAD, HOUR_SLOPE = 0.8, 0.8  # median standard deviation of a pair's hour, and how it falls with consistency
# G9: habits given up one by one, beside those that end because the user leaves
GIVING_UP = 0.0022  # a day
GIVING_UP_BY_CATEGORY = np.array([0.0, 0.9, -0.8, -0.8, 0.0, 0.0, 0.0, 0.0, 0.0])
GIVING_UP_BY_LOGIT, GIVING_UP_WEEKLY = -0.4, 0.9
# G7: a programme runs so many days from the start of a habit
PROGRAMME_DAYS = 28


@dataclass(frozen=True, eq=False)
class Habits:
    """The catalogue as arrays (habits,)."""

    ids: npt.NDArray[np.object_]
    category: Ints
    activities: Floats  # (habits, 5) shares
    minutes: Floats
    band: Ints  # 0-4
    difficulty: Floats
    complexity: Floats  # standardised
    times: Ints
    per_days: Ints
    time_of_day: npt.NDArray[np.object_]
    min_age: Floats
    max_age: Floats
    requires: list[list[int]]
    popularity: Floats  # log of how often it is chosen, all else equal
    taste: Floats  # (habits, TASTES)

    def __len__(self) -> int:
        """Number of habits."""
        return len(self.ids)

    @property
    def frequency(self) -> Floats:
        """Scheduled days a day: 1 daily, 1/7 weekly."""
        return self.times / self.per_days

    @classmethod
    def of(cls, table: pd.DataFrame, noise: Noise) -> Habits:
        """Read the table `habits`."""
        ids = table["habit_id"].to_numpy(dtype=object)
        number = {habit: position for position, habit in enumerate(ids)}
        complexity = derived.complexity(table).to_numpy()
        target = table["target"].str.split("/", expand=True).astype(int).to_numpy()
        index = np.arange(len(ids))
        activities = np.array([[name in names for name in ACTIVITIES] for names in table["activity_type"]], dtype=float)
        return cls(
            ids=ids,
            category=pd.Categorical(table["category"], categories=CATEGORIES).codes.astype(np.int64),
            activities=activities / np.maximum(activities.sum(axis=1, keepdims=True), 1),
            minutes=table["minutes"].to_numpy(dtype=float),
            band=derived.minutes_code(table["minutes"]).to_numpy().astype(np.int64) - 1,
            difficulty=table["difficulty"].to_numpy(dtype=float),
            complexity=(complexity - complexity.mean()) / max(complexity.std(), 1e-9),
            times=target[:, 0],
            per_days=target[:, 1],
            time_of_day=table["time_of_day"].to_numpy(dtype=object),
            min_age=table["min_age"].fillna(0).to_numpy(dtype=float),
            max_age=table["max_age"].fillna(130).to_numpy(dtype=float),
            requires=[[number[habit] for habit in habits] for habits in table["prerequisites"]],
            popularity=0.5 * noise.normal("popularity", index) + 1.0 * (target[:, 0] == target[:, 1]),
            taste=noise.normal("habit taste", index[:, None], np.arange(population.TASTES)),
        )


@dataclass(frozen=True, eq=False)
class Course:
    """What happened to pairs of users and habits, and on their scheduled days.

    `first` and `occasions` (pairs,) cut the flat arrays (rows,): a pair's rows stand together, in order of days.
    """

    user: Ints
    habit: Ints
    start: Ints  # day of the world
    length: Ints  # days until it was given up, or the user left; may lie beyond the last day
    first: Ints
    occasions: Ints
    pair: Ints  # (rows,) which pair
    day: Ints  # (rows,) days since the start: 0 on the first day
    done: Bools  # (rows,)

    def parts(self, rows: int) -> Iterator[Course]:
        """Cut it into courses of about so many rows: what is worked out of a few stays in the processor's cache."""
        edges = np.append(self.first, len(self.pair))
        cuts = [0, *np.flatnonzero(np.diff(self.first // rows)) + 1, len(self.user)]
        for begin, end in pairwise(cuts):
            pairs, inside = slice(begin, end), slice(edges[begin], edges[end])
            yield Course(
                user=self.user[pairs],
                habit=self.habit[pairs],
                start=self.start[pairs],
                length=self.length[pairs],
                first=self.first[pairs] - edges[begin],
                occasions=self.occasions[pairs],
                pair=self.pair[inside] - begin,
                day=self.day[inside],
                done=self.done[inside],
            )


@dataclass(frozen=True, eq=False)
class World:
    """A population, a catalogue and their noise. Users are numbers 0 ... users - 1, habits rows of `catalogue`."""

    users: int
    catalogue: pd.DataFrame
    seed: int = 0
    days: int = 180
    effects: dict[str, float] = field(default_factory=lambda: resolve(None))
    retention: str = "trial"
    knobs: Knobs = field(default_factory=lambda: knobs(resolve(None)))
    streaks_shown: bool = True

    @cached_property
    def noise(self) -> Noise:
        """The world's exogenous noise."""
        return Noise(self.seed)

    @cached_property
    def habits(self) -> Habits:
        """The catalogue as arrays."""
        return Habits.of(self.catalogue, self.noise)

    @cached_property
    def people(self) -> People:
        """Hidden traits of all users."""
        return population.make(
            self.noise,
            np.arange(self.users),
            self.knobs,
            entry_days=min(28, max(1, self.days // 8)),
            retention=self.retention,
        )

    @cached_property
    def user_ids(self) -> pd.api.extensions.ExtensionArray:
        """Pseudonymous ids (users,)."""
        return population.numbered("u", self.people.index, 7)

    @cached_property
    def habit_ids(self) -> pd.api.extensions.ExtensionArray:
        """Ids of the catalogue (habits,)."""
        return self.catalogue["habit_id"].array

    def liking(self, user: Ints) -> Floats:
        """Taste of these users for every habit, log-odds of choosing it (users, habits), without demography."""
        people, habits = self.people, self.habits
        return (
            BY_CATEGORY_TASTE * people.category_taste[user].take(habits.category, axis=1)
            + BY_ACTIVITY_TASTE * people.activity_taste[user] @ habits.activities.T
            + BY_TASTE * people.taste[user] @ habits.taste.T
        )

    def affinity(self, user: Ints, habit: Ints) -> Floats:
        """Taste of users for habits, pair by pair (pairs,): entries of `liking`."""
        people, habits = self.people, self.habits
        return (
            BY_CATEGORY_TASTE * people.category_taste[user, habits.category[habit]]
            + BY_ACTIVITY_TASTE * np.einsum("ij,ij->i", people.activity_taste[user], habits.activities[habit])
            + BY_TASTE * np.einsum("ij,ij->i", people.taste[user], habits.taste[habit])
        )

    def merit(self, user: Ints, habit: Ints) -> Floats:
        """Logits of completion of pairs from who and what: ability, category, minutes, difficulty, affinity."""
        people, habits, knobs = self.people, self.habits, self.knobs
        return (
            people.ability[user]
            + knobs.category * BY_CATEGORY[habits.category[habit]]
            + knobs.duration * (BY_BAND[habits.band[habit]] - self._duration_of_commitment[people.commitment[user]])
            + knobs.difficulty * BY_DIFFICULTY * (habits.difficulty[habit] - 3)
            + AFFINITY * self.affinity(user, habit)
            + PAIR * self.noise.normal("pair", user, habit)
        )

    @cached_property
    def _duration_of_commitment(self) -> Floats:
        """Mean effect of the minutes of the habits chosen at each level of commitment.

        Those with more time choose longer and harder habits. Were they not able to afford the minutes, difficulty
        would look harmful even where it does nothing.
        """
        slope = self.knobs.complexity * COMMITMENT_SCALE[:, None] * self.habits.complexity
        weight = np.exp(slope + self.habits.popularity)
        effect = weight @ BY_BAND[self.habits.band] / weight.sum(axis=1)
        return effect - np.average(effect, weights=population.COMMITMENT_SHARES)

    def logit(self, user: Ints, habit: Ints, load: npt.ArrayLike, goal: npt.ArrayLike | None = None) -> Floats:
        """Constant part of the logit of completion (pairs,), with `load` habits held, with or without a goal."""
        knobs = self.knobs
        load = np.asarray(load, dtype=float)
        goal = self.people.goal[user] if goal is None else np.asarray(goal)
        # The benefit of a goal shrinks with many habits (G10), as far as load is at work at all.
        benefit = 1 + knobs.load_share * (2 / (1 + load / MEAN_HABITS) - 1)
        return (
            INTERCEPT
            + self.merit(user, habit)
            - knobs.load * (load - MEAN_HABITS)
            + knobs.goal * population.GOAL_BENEFIT * (benefit * goal - population.GOAL_SHARE)
            + knobs.weekly * WEEKLY * _rarity(self.habits.frequency[habit])
            + REMINDED * self.reminded(user, habit)
        )

    def consistency(self, user: Ints, habit: Ints) -> Floats:
        """How fixed the hour of a pair is (pairs,), uniform with mean 0 and variance 1: nobody is beyond measure."""
        latent = np.sqrt(0.5) * (self.people.consistency[user] + self.noise.normal("consistent pair", user, habit))
        return np.sqrt(12) * (ndtr(latent) - 0.5)

    def persistence(self, user: Ints, habit: Ints) -> Floats:
        """Weight of the last occasion (pairs,): 0 forgets it, near 1 repeats it (G3)."""
        link = self.knobs.consistency
        latent = link * self.consistency(user, habit) + np.sqrt(1 - link**2) * self.noise.normal("persist", user, habit)
        return 1 - np.exp(-np.clip(PERSISTENCE + PERSISTENCE_SLOPE * latent, 0, MOST_PERSISTENT))

    def hour_spread(self, user: Ints, habit: Ints) -> Floats:
        """Standard deviation of a pair's hour of the day (pairs,), hours."""
        return HOUR_SPREAD * np.exp(-HOUR_SLOPE * self.consistency(user, habit))

    def reminded(self, user: Ints, habit: Ints) -> Bools:
        """Whether a pair has a reminder (pairs,)."""
        return self.noise.uniform("reminder", user, habit) < 0.4

    def part_of_day(self, user: Ints, habit: Ints) -> Ints:
        """When a pair is usually done (pairs,): 0 morning, 1 afternoon, 2 evening."""
        place = self.habits.time_of_day[habit]
        leaning = self.people.morning[user] + 1.5 * (place == "morning") - 1.5 * (place == "evening")
        evening = self.noise.uniform("evening", user, habit) > 1 / (1 + np.exp(-leaning))
        afternoon = (place == "afternoon") & (self.noise.uniform("afternoon", user, habit) < 0.35)
        return np.where(afternoon, 1, 2 * evening)

    def days_to_automatic(self, user: Ints, habit: Ints) -> Floats:
        """Days of daily practice to 95 % of the automaticity that there is to gain (pairs,), G1."""
        exercise = np.where(self.habits.category[habit] == CATEGORIES.index("physical"), 1.3, 1.0)
        spread = SPREAD_TO_AUTOMATIC * self.noise.normal("automatic", user, habit)
        return DAYS_TO_AUTOMATIC * exercise * np.exp(spread)

    def learning(self, user: Ints, habit: Ints) -> Floats:
        """Share of the automaticity still to gain that each time done brings (pairs,), G1."""
        # 106 days in the morning, 154 in the evening: their ratio, around the middle.
        by_part = np.array([1.45**0.5, 1.0, 1.45**-0.5])[self.part_of_day(user, habit)]
        spread = HOUR_SPREAD * np.exp(-HOUR_SLOPE * self.knobs.consistency_share * self.consistency(user, habit))
        stability = 0.4 + 0.6 * np.exp(-((spread * np.pi / 12) ** 2) / 2)
        cue = np.where(self.reminded(user, habit), 0.8, 1.0)
        return np.log(20) / self.days_to_automatic(user, habit) * by_part * stability * cue

    def daily_hazard(self, user: Ints, habit: Ints) -> Floats:
        """Chance a day that a pair is given up while its user stays (pairs,)."""
        habits, knobs = self.habits, self.knobs
        # Neither load nor goal nor what frequency does to completion: giving up must not plant a link of its own.
        category = habits.category[habit]
        merit = self.merit(user, habit) - knobs.category * BY_CATEGORY[category]
        return GIVING_UP * np.exp(
            GIVING_UP_BY_LOGIT * merit
            + knobs.category * GIVING_UP_BY_CATEGORY[category]
            + knobs.weekly * GIVING_UP_WEEKLY * _rarity(habits.frequency[habit])
        )

    def lengths(self, user: Ints, habit: Ints, start: npt.ArrayLike) -> Ints:
        """Days for which pairs adopted on day `start` are kept (pairs,), at least 1."""
        given_up = -np.log(self.noise.uniform("given up", user, habit)) / self.daily_hazard(user, habit)
        leaving = self.people.registered[user] + self.people.lifetime[user] - np.asarray(start)
        return np.maximum(1, np.minimum(np.ceil(np.minimum(given_up, 1e6)).astype(np.int64), leaving))

    def replay(
        self,
        user: Ints,
        habit: Ints,
        start: npt.ArrayLike,
        load: npt.ArrayLike,
        *,
        goal: npt.ArrayLike | None = None,
        until: npt.ArrayLike | None = None,
        lift: npt.ArrayLike | None = None,
        lasts: npt.ArrayLike = False,
    ) -> Course:
        """Tell what happens when users adopt habits.

        Parameters
        ----------
        user, habit
            (pairs,) numbers of users and of habits, in any order; a pair may come more than once.
        start
            Day of the world of each adoption; the first scheduled day.
        load
            Number of habits the user then holds, this one included.
        goal
            Whether the user has set a goal; by default as in this world.
        until
            Day of the world before which to stop, by default the world's last.
        lift
            Relative rise of the rate of completion by an incentive during the first `PROGRAMME_DAYS` days (pairs,), for
            somebody with no automaticity; it shrinks to none as automaticity grows (G7). By default no incentive.
            What it adds builds no habit (an assumption): else nearly every programme would be felt for months.
        lasts
            Whether the lift stays after the programme (pairs,), by default not.

        Raises
        ------
        ValueError
            A lift is negative or not finite.
        """
        user, habit = np.asarray(user, dtype=np.int64), np.asarray(habit, dtype=np.int64)
        start = np.broadcast_to(np.asarray(start, dtype=np.int64), user.shape)
        stop = np.broadcast_to(np.asarray(self.days if until is None else until, dtype=np.int64), user.shape)
        length = self.lengths(user, habit, start)
        seen = np.clip(np.minimum(length, stop - start), 0, None)
        times, per_days = self.habits.times[habit], self.habits.per_days[habit]
        # Occasion j of k per n days falls on day floor(j n / k): as even as can be, the first on the first day.
        occasions = -((-seen * times) // per_days)
        first = np.cumsum(occasions) - occasions
        pair = np.repeat(np.arange(len(user)), occasions)
        order = np.arange(len(pair)) - np.repeat(first, occasions)
        calendar = np.arange(occasions.max(initial=0)) * self.habits.per_days[:, None] // self.habits.times[:, None]
        course = Course(
            user=user,
            habit=habit,
            start=start,
            length=length,
            first=first,
            occasions=occasions,
            pair=pair,
            day=calendar[np.repeat(habit, occasions), order],
            done=np.zeros(len(pair), dtype=bool),
        )
        self._live(course, self.logit(user, habit, load, goal), _lifts(lift, lasts, user.shape))
        return course

    def _live(self, course: Course, logit: Floats, lifts: npt.NDArray[np.float32] | None) -> None:
        """Fill `course.done`."""
        user, habit = course.user, course.habit
        learning, persistence = self.learning(user, habit), self.persistence(user, habit)
        keys = self.noise.keys("done", user, habit)
        weekday = self.people.weekday[user] + BY_WEEKDAY - BY_WEEKDAY.mean()
        schedule = self.habits.per_days[habit] * 1000 + self.habits.times[habit]
        for kind in np.unique(schedule[course.occasions > 0]):
            members = np.flatnonzero((schedule == kind) & (course.occasions > 0))
            # Those with most occasions first: who is still there on an occasion is then a slice from the start.
            members = members[np.argsort(-course.occasions[members], kind="stable")]
            self._live_together(
                course,
                members,
                logit[members],
                learning[members],
                persistence[members],
                keys[members],
                weekday[members],
                None if lifts is None else lifts[:, members],
            )

    def _live_together(
        self,
        course: Course,
        members: Ints,
        logit: Floats,
        learning: Floats,
        persistence: Floats,
        keys: npt.NDArray[np.uint64],
        weekday: Floats,
        lifts: npt.NDArray[np.float32] | None,
    ) -> None:
        """Fill `course.done` for pairs of one schedule, all their n-th occasions at once."""
        habit = course.habit[members[0]]
        times, per_days = int(self.habits.times[habit]), int(self.habits.per_days[habit])
        occasions, start, place = course.occasions[members], course.start[members], course.first[members]
        last = int(start.max() + occasions[0] * per_days // times) + per_days
        landmark = (MONTH_START * _month_starts(last + 1)).astype(np.float32)
        # Row d holds everybody's effect of the weekday that falls d days after the start.
        by_day = weekday[np.arange(len(members))[:, None], (start[:, None] + np.arange(7)) % 7].T
        base = np.ascontiguousarray(logit + by_day, dtype=np.float32)
        learn, persist = learning.astype(np.float32), persistence.astype(np.float32)
        here = np.searchsorted(-occasions, -np.arange(occasions[0]), side="left")  # pairs with more than j occasions
        streak = np.float32(STREAK if self.streaks_shown else 0.0)
        automatic = np.zeros(len(members), dtype=np.float32)
        before = np.zeros(len(members), dtype=np.float32)
        expected = np.zeros(len(members), dtype=np.float32)
        keys = keys + (start.astype(np.uint64) + np.uint64(1)) * STEP  # as `noise.further`, by day of the world
        steps = np.arange(last + 1, dtype=np.uint64) * STEP
        for j in range(int(occasions[0])):
            n, day = int(here[j]), j * per_days // times
            x = base[day % 7, :n] + landmark[start[:n] + day]
            x += np.float32(self.knobs.dip * NOVELTY * np.exp(-day / NOVELTY_DAYS))
            x += np.float32(AUTOMATIC) * automatic[:n]
            last_time = before[:n]
            if j:
                x += streak * (2 * last_time - 1)
            chance = 1 / (1 + np.exp(-x))
            if lifts is not None:
                # The chance today as seen from the first day: what persistence has made of all the chances so far.
                kept = persist[:n] * np.float32(routine(day))
                expected[:n] = chance + kept * (expected[:n] - chance) if j else chance
                more = lifts[int(day >= PROGRAMME_DAYS), :n] * (1 - automatic[:n])
                # So many of the misses as raise that chance by the lift.
                won = np.minimum(more * expected[:n] / (1 - expected[:n]), 1)
            if j:
                chance += persist[:n] * np.float32(routine(day)) * (last_time - chance)
            noise = mix(keys[:n] + steps[day]) >> np.uint64(40)
            draw = noise.astype(np.float32) * np.float32(2.0**-24)
            done = draw < chance
            course.done[place[:n] + j] = done if lifts is None else draw < chance + (1 - chance) * won
            # What an incentive adds builds neither streak nor routine nor automaticity: most arms leave nothing behind.
            before[:n] = done
            grown = automatic[:n]
            grown += before[:n] * learn[:n] * (1 - grown) - (1 - before[:n]) * np.float32(FORGETTING) * grown


COMMITMENT_SCALE = np.array([-1.5, -0.5, 0.5, 1.5])


def routine(day: int) -> float:
    """Share of its persistence that a habit has after so many days: what no routine carries yet follows the mood."""
    return 1 - float(np.exp(-day / ROUTINE_DAYS))


def _lifts(lift: npt.ArrayLike | None, lasts: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """Lift during the programme and after it (2, pairs); None if there is no programme."""
    if lift is None:
        return None
    during = np.broadcast_to(np.asarray(lift, dtype=np.float32), shape)
    if not (np.isfinite(during) & (during >= 0)).all():
        raise ValueError("lift must be 0 or more for every pair: 0.2 for a fifth more completions, 0 for none")
    return np.stack([during, during * np.broadcast_to(np.asarray(lasts, dtype=bool), shape)])


def _rarity(frequency: Floats) -> Floats:
    """0 for daily habits to 1 for weekly ones."""
    return np.clip((1 - frequency) * 7 / 6, 0, 1)


def _month_starts(days: int) -> Bools:
    dates = FIRST_DAY + np.arange(days)
    return dates == dates.astype("datetime64[M]").astype("datetime64[D]")


def parameters(world: World) -> dict[str, Any]:
    """Return what makes this world again, JSON-able; the catalogue apart."""
    return {
        "users": world.users,
        "days": world.days,
        "seed": world.seed,
        "effects": dict(world.effects),
        "retention": world.retention,
    }
