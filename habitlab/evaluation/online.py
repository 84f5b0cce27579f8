"""Policies run for real in the simulated world: what online would have shown, to hold offline numbers against.

Two worths of a policy:

- `run_lists`: each user gets a list at registration in place of the first slate, and lives with what they adopt of it.
- `true_value` of a `SlateLog`: one place of the logged first slates is filled by the policy, all else as it was logged.
  This is the worth that off-policy estimators of single places estimate, with `place_policy` for the propensities.

Every policy meets the same people and the same noise (G12): two policies differ only by what they show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.simulation import World
from habitlab.simulation.adoption import (
    FIRST_SLATE,
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


def adoption_chances(world: World) -> Floats:
    """Chance that a habit is adopted if looked at, clear and vague words taken together (users, habits)."""
    vague = [
        adoption_probability(world, user, log_odds(world, user))
        for user in np.array_split(np.arange(world.users), -(-world.users // _BLOCK))
    ]
    return np.concatenate(vague) * (1 + world.knobs.clear * CLEAR_SHARE)


def run_lists(world: World, lists: npt.ArrayLike) -> pd.DataFrame:
    """Show each user a list at registration in place of the first slate, and tell what comes of it.

    Parameters
    ----------
    lists
        (users, k) numbers of habits in the order of the world's catalogue, in rank order, -1 for none.

    Returns
    -------
    A row a user: `user_id`; `expected_adoptions` and `expected_successes`, over the noise; `adoptions`, `successes`,
    `completions` (within 90 days) and `kept` (for 90 days) as they happen; `unfit`, the habits on the list that could
    not be offered: held or chosen already, wrong for the age, lacking what they build on. These nobody adopts.
    Success is the label of `habitlab.simulation.truth`. Habits held: what the user chose alone at registration, and
    what is adopted from the list; for `expected_successes` the expected number of these, rounded (an approximation).

    Raises
    ------
    ValueError
        The shape or a number does not fit the world, or a habit is twice on a list.
    """
    shown = _checked(lists, world)
    adoptions, _, _ = adopt(world)
    registered = world.people.registered
    own = ~adoptions.recommended & (adoptions.start == registered[adoptions.user])
    held = np.bincount(adoptions.user[own], minlength=world.users)
    user, place = np.nonzero(shown >= 0)
    habit = shown[user, place]
    fit = offerable(world, adoptions)[user, habit]
    seen = np.where(fit, seen_probability(place), 0.0)
    chance = adoption_chances(world)[user, habit]
    expected = _per_user(world, user, seen * chance)
    load = held[user] + 1 + np.rint(expected[user] - seen * chance).astype(np.int64)
    success = success_probability(world, user, habit, registered[user], load)

    noise = world.noise  # the very draws of the world's own slates
    vague = chance / (1 + world.knobs.clear * CLEAR_SHARE)
    clear = noise.uniform("words", user, habit) < CLEAR_SHARE
    yes = noise.uniform("seen", user, habit) < seen
    yes &= noise.uniform("accepted", user, habit) < vague * (1 + world.knobs.clear * clear)
    adopted = _per_user(world, user, yes).astype(np.int64)
    who, what = user[yes], habit[yes]
    start = registered[who]
    course = world.replay(who, what, start, held[who] + adopted[who], until=start + HORIZON)
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
    """The world's log of first slates, a row for each place that was filled, (rows,) each.

    Only slates of the random policy: there clear words were drawn by lot, so that `reward` is due to the habit alone.
    `allowed` and `chances` are (users, habits), by number of the user in the world.
    """

    user: Ints
    habit: Ints
    place: Ints  # 0 is the first
    propensity: Floats
    reward: Floats  # 1 if accepted
    allowed: Bools
    chances: Floats

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.user)

    def of(self, users: npt.ArrayLike) -> SlateLog:
        """Return the rows of some users, by number; the others' places are not held in memory then."""
        rows = np.isin(self.user, users)
        names = ("user", "habit", "place", "propensity", "reward")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def candidates(self) -> Bools:
        """Habits that could stand at each place (rows, habits): allowed, and not at an earlier place."""
        free = self.allowed[self.user]
        earlier = np.full((len(self.allowed), FIRST_SLATE), -1)
        earlier[self.user, self.place] = self.habit
        for place in range(FIRST_SLATE - 1):
            later = np.flatnonzero(self.place > place)
            free[later, earlier[self.user[later], place]] = False
        return free

    def expected(self) -> Floats:
        """Chance that each habit would be adopted at each place (rows, habits)."""
        return self.chances[self.user] * seen_probability(self.place)[:, None]


def slate_log(world: World) -> SlateLog:
    """Read the first slates of the random policy from the world that logged them."""
    adoptions, offers, _ = adopt(world)
    rows = (offers.slate == 0) & ~offers.popular
    return SlateLog(
        user=offers.user[rows],
        habit=offers.habit[rows],
        place=offers.position[rows] - 1,
        propensity=offers.propensity[rows],
        reward=offers.accepted[rows].astype(float),
        allowed=offerable(world, adoptions),
        chances=adoption_chances(world),
    )


def place_policy(log: SlateLog, scores: npt.ArrayLike, temperature: float = 0.0) -> Floats:
    """Chance with which a policy puts each habit at each place (rows, habits), from its scores (users, habits).

    The best candidate at `temperature` 0 (of equals, the first), else in proportion to exp(score / temperature).
    """
    score = np.asarray(scores, dtype=float)
    if score.shape != log.allowed.shape:
        raise ValueError(f"scores are (users, habits), {log.allowed.shape} in this world; got {score.shape}")
    if not np.isfinite(score).all() or not temperature >= 0:
        raise ValueError("scores must be finite and the temperature 0 or more")
    open_to = np.where(log.candidates(), score[log.user], -np.inf)
    if temperature == 0:
        chance = np.zeros(open_to.shape)
        chance[np.arange(len(log)), open_to.argmax(axis=1)] = 1.0
        return chance
    chance = np.exp((open_to - open_to.max(axis=1, keepdims=True)) / temperature)
    return chance / chance.sum(axis=1, keepdims=True)


def true_value(log: SlateLog, policy: Floats) -> Floats:
    """Chance of adoption at each place (rows,) if the policy (rows, habits) filled it."""
    return np.einsum("ij,ij->i", policy, log.expected())


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
