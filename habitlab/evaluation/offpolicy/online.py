"""Policies run for real in the simulated world: what online would have shown, to hold offline numbers against.

Two worths of a policy:

- `run_lists`: each user gets a list, at registration in place of the first slate or on a day, and lives with what they
  adopt of it.
- `true_value` of a `SlateLog`: one place of the logged slates is filled by the policy, all else as it was logged.
  This is the worth that off-policy estimators of single places estimate, with `place_policy` for the propensities.

Every policy meets the same people and the same noise (G12): two policies differ only by what they show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.models.ranking import top_k
from habitlab.simulation import World
from habitlab.simulation.adoption import (
    FIRST_SLATE,
    GROWING,
    LATER_SLATE,
    MOST_ACCEPTED,
    SLATE_DAYS,
    Adoptions,
    adopt,
    adoption_probability,
    held_before,
    log_odds,
    suitable,
)
from habitlab.simulation.truth import HORIZON, succeeded, success_probability

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CLEAR_SHARE = 0.5  # descriptions in clear words, by lot
_FADING = 0.03  # of attention by place, as in the world's slates
_BLOCK = 256  # users; with more, products go to several threads, which wait for each other


def seen_probability(place: npt.ArrayLike) -> Floats:
    """Chance that a user looks at place 0, 1, ... of a list."""
    return 1 / (1 + _FADING * np.asarray(place, dtype=float))


def offerable(world: World, adoptions: Adoptions) -> Bools:
    """Habits that may be offered at registration (users, habits): right for the user, and not held or just chosen."""
    everybody = np.arange(world.users)
    allowed = suitable(world, everybody, held_before(world, everybody))
    own = ~adoptions.recommended
    allowed[adoptions.user[own], adoptions.habit[own]] = False
    return allowed


def adoption_chances(world: World, *, later: bool = False) -> Floats:
    """Chance that a habit is adopted if looked at, clear and vague words taken together (users, habits).

    At registration, or `later`, when choices lean to harder habits.
    """
    vague = [
        adoption_probability(world, user, log_odds(world, user))
        for user in np.array_split(np.arange(world.users), -(-world.users // _BLOCK))
    ]
    growing = np.exp(world.knobs.difficulty * GROWING * (world.habits.difficulty - 3)) if later else 1.0
    return np.minimum(MOST_ACCEPTED, np.concatenate(vague) * growing) * (1 + world.knobs.clear * CLEAR_SHARE)


@dataclass(frozen=True, eq=False)
class Moment:
    """Who is shown a list, and what it can bring: (users,) and (users, habits)."""

    start: Ints  # day of the world
    here: Bools  # registered before, and not gone
    held: Ints  # habits held already
    allowed: Bools
    chances: Floats

    @classmethod
    def of(cls, world: World, day: int | None = None) -> Moment:
        """At everybody's registration, or on a day of the world (0 is its first).

        What the world showed before that day is not offered again: the world's noise would answer as it did.
        """
        adoptions, offers, _ = adopt(world)
        user, start, registered = adoptions.user, adoptions.start, world.people.registered
        allowed, chances = offerable(world, adoptions), adoption_chances(world, later=day is not None)
        if day is None:
            own = ~adoptions.recommended & (start == registered[user])
            held = np.bincount(user[own], minlength=world.users)
            return cls(registered, np.ones(world.users, dtype=bool), held, allowed, chances)
        before, shown = start < day, registered[offers.user] + SLATE_DAYS * offers.slate < day
        allowed[user[before], adoptions.habit[before]] = False
        allowed[offers.user[shown], offers.habit[shown]] = False
        still = before & (start + world.lengths(user, adoptions.habit, start) > day)
        here = (registered < day) & (registered + world.people.lifetime > day)
        held = np.bincount(user[still], minlength=world.users)
        return cls(np.full(world.users, day), here, held, allowed, chances)


def run_lists(world: World, lists: npt.ArrayLike, *, day: int | None = None) -> pd.DataFrame:
    """Show each user a list, and tell what comes of it.

    Parameters
    ----------
    lists
        (users, k) numbers of habits in the order of the world's catalogue, in rank order, -1 for none.
    day
        None: at registration, in place of the first slate. Else on this day of the world, to those who registered
        before it and are still here; the others adopt nothing. What was shown before is unfit then.

    Returns
    -------
    A row a user: `user_id`; `expected_adoptions` and `expected_successes`, over the noise; `adoptions`, `successes`,
    `completions` (within 90 days) and `kept` (for 90 days) as they happen; `unfit`, the habits on the list that could
    not be offered: held or chosen already, wrong for the age, lacking what they build on. These nobody adopts.
    Success is the label of `habitlab.simulation.truth`. Habits held: what the user chose alone at registration (on a
    day: whatever is held then), and what is adopted from the list; for `expected_successes` the expected number of
    these, rounded (an approximation).

    Raises
    ------
    ValueError
        The shape or a number does not fit the world, or a habit is twice on a list.
    """
    shown, moment = _checked(lists, world), Moment.of(world, day)
    user, place = np.nonzero(shown >= 0)
    habit = shown[user, place]
    fit = moment.allowed[user, habit]
    seen = np.where(fit & moment.here[user], seen_probability(place), 0.0)
    chance = moment.chances[user, habit]
    expected = _per_user(world, user, seen * chance)
    load = moment.held[user] + 1 + np.rint(expected[user] - seen * chance).astype(np.int64)
    success = success_probability(world, user, habit, moment.start[user], load)

    noise = world.noise  # the very draws of the world's own slates
    vague = chance / (1 + world.knobs.clear * CLEAR_SHARE)
    clear = noise.uniform("words", user, habit) < CLEAR_SHARE
    yes = noise.uniform("seen", user, habit) < seen
    yes &= noise.uniform("accepted", user, habit) < vague * (1 + world.knobs.clear * clear)
    adopted = _per_user(world, user, yes).astype(np.int64)
    who, what = user[yes], habit[yes]
    start = moment.start[who]
    course = world.replay(who, what, start, moment.held[who] + adopted[who], until=start + HORIZON)
    done_well, completions = succeeded(world, course)
    return pd.DataFrame(
        {
            "user_id": world.user_ids,
            "expected_adoptions": expected,
            "expected_successes": _per_user(world, user, seen * chance * success),
            "adoptions": adopted,
            "successes": _per_user(world, who, done_well).astype(np.int64),
            "completions": _per_user(world, who, completions).astype(np.int64),
            "kept": _per_user(world, who, course.length >= HORIZON).astype(np.int64),
            "unfit": _per_user(world, user, ~fit).astype(np.int64),
        }
    )


@dataclass(frozen=True, eq=False)
class SlateLog:
    """The world's log of slates, a row for each place that was filled, (rows,) each.

    `allowed`, `chances` (users, habits) and `shown` (users, most ever shown) are by number of the user in the world.
    """

    user: Ints
    habit: Ints
    place: Ints  # in its slate; 0 is the first
    rank: Ints  # over all slates of the user: where it stands in `shown`
    day: Ints  # of the world
    propensity: Floats
    reward: Floats  # 1 if accepted
    allowed: Bools
    chances: Floats
    shown: Ints  # habits in the order of showing, -1 for none

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.user)

    def of(self, users: npt.ArrayLike) -> SlateLog:
        """Return the rows of some users, by number; the others' places are not held in memory then."""
        return self.rows(np.isin(self.user, users))

    def rows(self, kept: Bools) -> SlateLog:
        """Return some rows, by a mask."""
        names = ("user", "habit", "place", "rank", "day", "propensity", "reward")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    def candidates(self) -> Bools:
        """Habits that could stand at each place (rows, habits): allowed, and never shown at an earlier one."""
        free = self.allowed[self.user]
        for rank in range(int(self.rank.max(initial=0))):
            later = np.flatnonzero(self.rank > rank)
            free[later, self.shown[self.user[later], rank]] = False
        return free

    def expected(self) -> Floats:
        """Chance that each habit would be adopted at each place (rows, habits)."""
        return self.chances[self.user] * seen_probability(self.place)[:, None]


def slate_log(world: World, *, since: int | None = None, popular: bool = False) -> SlateLog:
    """Read slates from the world that logged them: the first ones, or all later ones from the day `since` on.

    Those of the random policy, in which clear words were drawn by lot, so that `reward` is due to the habit alone. Or
    those of the `popular` one, whose words were better the more popular a habit was: that no propensity tells.
    """
    adoptions, offers, _ = adopt(world)
    user, registered = offers.user, world.people.registered
    rank = offers.position - 1 + np.where(offers.slate > 0, FIRST_SLATE + (offers.slate - 1) * LATER_SLATE, 0)
    shown = np.full((world.users, int(rank.max(initial=0)) + 1), -1)
    shown[user, rank] = offers.habit
    day = registered[user] + SLATE_DAYS * offers.slate
    rows = (offers.popular == popular) & (offers.slate == 0 if since is None else (offers.slate > 0) & (day >= since))
    return SlateLog(
        user=user[rows],
        habit=offers.habit[rows],
        place=offers.position[rows] - 1,
        rank=rank[rows],
        day=day[rows],
        propensity=offers.propensity[rows],
        reward=offers.accepted[rows].astype(float),
        allowed=offerable(world, adoptions),
        chances=adoption_chances(world, later=since is not None),
        shown=shown,
    )


def place_policy(log: SlateLog, scores: npt.ArrayLike, temperature: float = 0.0) -> Floats:
    """Chance with which a policy puts each habit at each place (rows, habits), from its scores (users, habits).

    The best candidate at `temperature` 0 (of equals, the first), else in proportion to exp(score / temperature).
    """
    score = _scores(log, scores)
    if not temperature >= 0:
        raise ValueError("the temperature must be 0 or more")
    open_to = np.where(log.candidates(), score[log.user], -np.inf)
    if temperature == 0:
        chance = np.zeros(open_to.shape)
        chance[np.arange(len(log)), open_to.argmax(axis=1)] = 1.0
        return chance
    chance = np.exp((open_to - open_to.max(axis=1, keepdims=True)) / temperature)
    return chance / chance.sum(axis=1, keepdims=True)


def list_policy(log: SlateLog, scores: npt.ArrayLike, k: int) -> Floats:
    """Chance with which one of a policy's k best candidates, by lot, stands at each place (rows, habits)."""
    score = _scores(log, scores)
    best = top_k(np.where(log.candidates(), score[log.user], -np.inf), k)[0]
    row, column = np.nonzero(best >= 0)
    chance = np.zeros((len(log), score.shape[1]))
    chance[row, best[row, column]] = 1.0
    return chance / chance.sum(axis=1, keepdims=True)


def true_value(log: SlateLog, policy: Floats) -> Floats:
    """Chance of adoption at each place (rows,) if the policy (rows, habits) filled it."""
    return np.einsum("ij,ij->i", policy, log.expected())


def _scores(log: SlateLog, scores: npt.ArrayLike) -> Floats:
    score = np.asarray(scores, dtype=float)
    if score.shape != log.allowed.shape:
        raise ValueError(f"scores are (users, habits), {log.allowed.shape} in this world; got {score.shape}")
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite")
    return score


def _per_user(world: World, user: Ints, values: npt.ArrayLike) -> Floats:
    return np.bincount(user, np.asarray(values, dtype=float), minlength=world.users).astype(np.float64)


def _checked(lists: npt.ArrayLike, world: World) -> Ints:
    shown = np.asarray(lists)
    if shown.ndim != 2 or len(shown) != world.users or not np.issubdtype(shown.dtype, np.integer):
        raise ValueError(f"lists are whole numbers ({world.users} users, k); got {shown.dtype} {shown.shape}")
    habits = len(world.habits)
    if shown.size and (shown.min() < -1 or shown.max() >= habits):
        raise ValueError(f"a list holds numbers of habits from 0 to {habits - 1}, and -1 for none")
    ordered = np.sort(shown, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("a habit stands twice on a list")
    return shown.astype(np.int64)
