"""How habits are chosen: what users pick themselves, what is recommended to them, and what of it they accept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from habitlab.simulation import people as population
from habitlab.simulation.people import Floats, Ints
from habitlab.simulation.world import COMMITMENT_SCALE, Bools, World

ACCEPTED = 0.14  # mean chance that a habit is adopted when a user looks at it, in vague words
MOST_ACCEPTED = 0.45  # so that clear words can still raise it, up to twice
FIRST_SLATE, LATER_SLATE, SLATE_DAYS = 16, 2, 14
CHOSEN_SHARES = (0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10, 0.09)  # of users who pick 1, 2 ... habits themselves
POPULAR_SHARE = 0.3  # of users to whom the popular habits are recommended, the rest get random ones
EASE_OF_ABLE = 0.45  # how much more able users start with easy habits
GROWING = 0.15  # how much later choices lean to hard habits
_BLOCK = 256  # users; with more, the products of `liking` go to several threads, which wait for each other


@dataclass(frozen=True)
class Offers:
    """What was recommended, an array (offers,) each."""

    user: Ints
    habit: Ints
    slate: Ints  # 0 at registration, then one every SLATE_DAYS
    position: Ints
    propensity: Floats
    popular: Bools  # policy: popular habits, else random ones
    clear: Bools
    seen: Bools
    accepted: Bools


@dataclass(frozen=True)
class Adoptions:
    """Pairs that were adopted, (pairs,) each, by user, then habit."""

    user: Ints
    habit: Ints
    start: Ints  # day of the world
    load: Ints  # habits held, this one included
    recommended: Bools


def log_odds(world: World, user: Ints) -> Floats:
    """Log-odds with which users choose each habit at the start (users, habits)."""
    people, habits, knobs = world.people, world.habits, world.knobs
    fit = knobs.complexity * COMMITMENT_SCALE[people.commitment[user], None] * habits.complexity
    able = -knobs.difficulty * EASE_OF_ABLE * people.ability[user, None] * (habits.difficulty - 3)
    who = population.demography(people, knobs)[user].take(habits.category, axis=1)
    return fit + able + who + world.liking(user) + habits.popularity


def suitable(world: World, user: Ints, existing: Bools) -> Bools:
    """Habits that may be offered (users, habits): not held, right for the age, what they build on held."""
    age, habits = world.people.age[user, None], world.habits
    allowed = ~existing & (age >= habits.min_age) & (age <= habits.max_age)
    for habit, needed in enumerate(habits.requires):
        if needed:
            allowed[:, habit] &= existing[:, needed].all(axis=1)
    return allowed


def held_before(world: World, user: Ints) -> Bools:
    """Habits that users held before they registered (users, habits); what they build on as well."""
    habits = world.habits
    age = world.people.age[user, None]
    held = world.noise.uniform("held before", user[:, None], np.arange(len(habits))) < 0.012
    held &= (age >= habits.min_age) & (age <= habits.max_age)
    for _ in range(len(habits)):  # until what is needed needs nothing more
        before = held.sum()
        for habit, needed in enumerate(habits.requires):
            if needed:
                held[:, needed] |= held[:, [habit]]
        if held.sum() == before:
            break
    return held


def adoption_probability(world: World, user: Ints, odds: Floats) -> Floats:
    """Chance that a habit is adopted by a user who looks at it in vague words (users, habits)."""
    share = np.exp(odds - odds.max(axis=1, keepdims=True))
    share /= share.mean(axis=1, keepdims=True)
    return np.minimum(MOST_ACCEPTED, ACCEPTED * world.people.appetite[user, None] * share)


def adopt(world: World) -> tuple[Adoptions, Offers, list[list[str]]]:
    """Let all users choose, and answer what they are recommended; also what they held before, by id."""
    chosen, offered, existing = [], [], []
    for begin in range(0, world.users, _BLOCK):
        user = np.arange(begin, min(begin + _BLOCK, world.users))
        held = held_before(world, user)
        existing += population.ticked(world.habits.ids, held)
        odds = log_odds(world, user)
        allowed = suitable(world, user, held)
        picked = _pick(world, user, allowed, odds)
        chosen.append(picked)
        # Nothing is offered that builds on a habit picked only just now.
        allowed[picked[0] - begin, picked[1]] = False
        offered.append(_offer(world, user, allowed, adoption_probability(world, user, odds)))
    offers = Offers(*(np.concatenate(parts) for parts in zip(*offered, strict=True)))
    user, habit = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    yes = offers.accepted
    start = np.concatenate(
        [world.people.registered[user], world.people.registered[offers.user[yes]] + SLATE_DAYS * offers.slate[yes]]
    )
    recommended = np.repeat([False, True], [len(user), int(yes.sum())])
    user, habit = np.concatenate([user, offers.user[yes]]), np.concatenate([habit, offers.habit[yes]])
    order = np.lexsort((habit, user))
    user, habit, start = user[order], habit[order], start[order]
    load = _held(user, start, start + world.lengths(user, habit, start))
    return Adoptions(user, habit, start, load, recommended[order]), offers, existing


def _pick(world: World, user: Ints, allowed: Bools, odds: Floats) -> tuple[Ints, Ints]:
    """Let each user pick a few habits by their log-odds, without replacement."""
    number = 1 + world.noise.pick(CHOSEN_SHARES, "number chosen", user)
    best = _drawn(world, "chosen", user, np.where(allowed, np.exp(odds), 0.0), len(CHOSEN_SHARES))
    wanted = (np.arange(best.shape[1]) < number[:, None]) & np.take_along_axis(allowed, best, axis=1)
    return np.repeat(user, wanted.sum(axis=1)), best[wanted]


def _drawn(world: World, stream: str, user: Ints, weight: Floats, most: int) -> Ints:
    """Draw habits in proportion to `weight` (users, habits), without replacement (users, most); weight 0 comes last.

    A race: the habit whose exponential waiting time ends first is drawn first (Efraimidis & Spirakis 2006,
    doi:10.1016/j.ipl.2005.11.003).
    """
    with np.errstate(divide="ignore"):
        waiting = -np.log(world.noise.uniform(stream, user[:, None], np.arange(weight.shape[1]))) / weight
    return np.argsort(waiting, axis=1)[:, :most]


def _offer(world: World, user: Ints, allowed: Bools, chance: Floats) -> tuple[npt.NDArray[np.generic], ...]:
    """Show slates of habits, each habit once, and draw the answers."""
    noise, people, habits = world.noise, world.people, world.habits
    popular = noise.uniform("policy", user) < POPULAR_SHARE
    weight = np.where(popular[:, None], np.exp(1.5 * habits.popularity), 1.0) * allowed
    slates = 1 + max(0, world.days - 1) // SLATE_DAYS
    most = min(FIRST_SLATE + LATER_SLATE * (slates - 1), len(habits))
    ranked = _drawn(world, "offered", user, weight, most)
    weights = np.take_along_axis(weight, ranked, axis=1)
    # Chance of this habit at this place, given those before it.
    left = weight.sum(axis=1, keepdims=True) - np.cumsum(weights, axis=1) + weights
    place = np.arange(most)
    slate = np.where(place < FIRST_SLATE, 0, 1 + (place - FIRST_SLATE) // LATER_SLATE)
    position = np.where(place < FIRST_SLATE, place, (place - FIRST_SLATE) % LATER_SLATE)
    here = np.minimum(people.lifetime[user], world.days - people.registered[user])
    shown = (weights > 0) & (slate * SLATE_DAYS < here[:, None])
    row, column = np.nonzero(shown)
    who, what = user[row], ranked[row, column]
    # Editors polish the words of what sells anyway: only under the random policy are the words drawn by lot.
    polished = 1 / (1 + np.exp(-2.5 * habits.popularity[what]))
    clear = noise.uniform("words", who, what) < np.where(popular[row], polished, 0.5)
    later = slate[column] > 0
    growing = np.exp(world.knobs.difficulty * GROWING * (habits.difficulty[what] - 3) * later)
    vague = np.minimum(MOST_ACCEPTED, chance[row, what] * growing)
    seen = noise.uniform("seen", who, what) < 1 / (1 + 0.03 * position[column])
    accepted = seen & (noise.uniform("accepted", who, what) < vague * (1 + world.knobs.clear * clear))
    propensity = weights[row, column] / left[row, column]
    return (who, what, slate[column], position[column] + 1, propensity, popular[row], clear, seen, accepted)


def _held(user: Ints, start: Ints, end: Ints) -> Ints:
    """Habits that a user holds when each pair is adopted, itself and those of the same day included; sorted by user."""
    most = int(np.bincount(user).max()) if len(user) else 0
    held = np.ones(len(user), dtype=np.int64)
    for shift in range(1, most):
        same = user[shift:] == user[:-shift]
        first, second = slice(None, -shift), slice(shift, None)
        held[second] += same & (start[first] <= start[second]) & (end[first] > start[second])
        held[first] += same & (start[second] <= start[first]) & (end[second] > start[first])
    return held
