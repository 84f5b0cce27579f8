"""Filter bubbles: what becomes of lists when people adopt what they are shown, and models learn from what they adopt.

In the simulated world recommend, adopt, refit, and begin again, for many rounds, with and without the rule of diversity
(9.3.a). Every policy meets the same people and the same noise. The bubble has two sources: the model of similar people
is fitted anew each round to what earlier lists brought about (D114), and, an assumption that can be set to 0, tastes
lean to what somebody holds already (`drift`; Jiang et al. 2019, "Degenerate feedback loops", arXiv:1902.10730). Content
and the chance to keep a habit are learnt from people outside this world and stay.

Narrowness is the entropy of the categories in a list, in bits: 0 for one category. Lists of five with at least three
categories, as the rule asks for, cannot fall below that of three, one and one place (`FLOOR`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.offpolicy.online import adoption_chances, offerable, seen_probability
from habitlab.evaluation.tables import exact
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import ContentModel
from habitlab.recommender import context, diversity
from habitlab.recommender.blend import Blend, overlap, total
from habitlab.recommender.candidates import Candidates, ticks
from habitlab.simulation import World, make_world, populate
from habitlab.simulation.adoption import MOST_ACCEPTED, adopt
from habitlab.simulation.people import ACTIVITIES, FIRST_DAY
from habitlab.simulation.truth import success_probability

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUND_DAYS = 14
DRIFT = 1.0
"""Log-odds by which tastes rise for a category that fills all that somebody holds, against one that fills nothing."""
WINDOW = 4
"""Rounds that count as what somebody saw of late."""
PLACES = 5


def entropy(counts: npt.ArrayLike) -> Floats:
    """Entropy of each row of counts (rows,), in bits; NaN where nothing is counted.

    >>> entropy([[3, 1, 1], [5, 0, 0]]).round(3).tolist()
    [1.371, 0.0]
    """
    table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    sums = table.sum(axis=1, keepdims=True)
    share = np.divide(table, sums, out=np.full_like(table, np.nan), where=sums > 0)
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.abs((share * logs).sum(axis=1))


FLOOR = float(entropy([[PLACES - diversity.CATEGORIES + 1, *[1] * (diversity.CATEGORIES - 1)]])[0])
"""Least entropy of five places in three categories: 1.371 bits."""


@dataclass(frozen=True)
class Policy:
    """How lists are made in the loop.

    Weights of the models, `diversity` of `habitlab.recommender.diversity`, and `rest`: rounds for which a habit that
    was shown and not adopted is not shown again.
    """

    name: str
    blend: Blend
    diversity: float
    rest: int = 3


WITH_RULE = Policy("as served", Blend(), 0.05)
"""With the rule of diversity, as the recommender has it."""
WITHOUT_RULE = Policy("without the rule", Blend(), 0.0)
NAIVE = Policy("without rule and rest", Blend(), 0.0, rest=0)
POLICIES = (WITH_RULE, WITHOUT_RULE, NAIVE)


@dataclass(frozen=True, eq=False)
class _Start:
    """What all policies begin with; arrays are (users, habits) or (habits,)."""

    world: World
    dataset: Dataset
    candidates: Candidates
    allowed: npt.NDArray[np.bool_]
    chances: Floats
    success: Floats
    said: dict[str, Floats]  # by content
    block_weights: dict[str, float]
    alike: npt.NDArray[np.floating]
    kept: Floats  # what the model thinks of the chance to keep a habit
    liked: npt.NDArray[np.bool_]


def run(
    policies: Sequence[Policy] = POLICIES,
    *,
    users: int = 200,
    rounds: int = 10,
    seeds: Sequence[int] = (0,),
    success: Any = None,
    drift: float = DRIFT,
    effects: dict[str, float] | None = None,
) -> pd.DataFrame:
    """Run each policy for so many rounds in a world for each seed.

    Parameters
    ----------
    users, seeds
        People in each world, and its seed.
    success
        A fitted `habitlab.models.success.SuccessModel` for all; without one it says the same of every habit.
    drift
        0: tastes stay as they are.
    effects
        Of `habitlab.simulation.make_world`.

    Returns
    -------
    A row a policy, user and round (from 1): policy, user_id (with the seed), round, entropy (of the list), seen_entropy
    (of the last `WINDOW` lists together), categories (on the list), expected_kept (habits of the list that would be
    adopted and kept, by the world's true chances; the cost of the rule), adopted.
    """
    frames = []
    for seed in seeds:
        start = _start(make_world(users, 120, seed, effects), success)
        frames += [_run(start, policy, rounds, drift) for policy in policies]
    return pd.concat(frames, ignore_index=True)


def _start(world: World, success: Any) -> _Start:
    dataset = populate(world)
    candidates = Candidates.of(dataset.habits)
    adoptions, _, _ = adopt(world)
    content = ContentModel().fit(dataset)
    user = np.arange(world.users)
    pairs = np.repeat(user, len(candidates)), np.tile(np.arange(len(candidates)), world.users)
    registered = world.people.registered[pairs[0]]
    load = np.full(len(pairs[0]), 6)
    kept = np.full((world.users, len(candidates)), 0.5) if success is None else success.score_profiles(dataset.users)
    age = world.people.age
    safe = candidates.safe_from <= age[:, None]
    weights = {name: float(weight) for name, weight in content.weights_.items() if weight > 1e-9}
    said = content.similarities(list(dataset.users["user_id"]))
    return _Start(
        world=world,
        dataset=dataset,
        candidates=candidates,
        allowed=offerable(world, adoptions) & safe,
        chances=adoption_chances(world),
        success=success_probability(world, *pairs, registered, load).reshape(world.users, -1),
        said={name: said[name] for name in weights},
        block_weights=weights,
        alike=diversity.similarity(candidates.category, candidates.activities, candidates.minutes),
        kept=np.asarray(kept, dtype=np.float64),
        liked=ticks(dataset.users["activity_preferences"], list(ACTIVITIES)),
    )


def _run(start: _Start, policy: Policy, rounds: int, drift: float) -> pd.DataFrame:
    world, candidates = start.world, start.candidates
    users, habits = start.allowed.shape
    kinds = np.eye(candidates.category.max() + 1)[candidates.category]  # (habits, categories)
    everybody = np.arange(users)[:, None]
    held = np.zeros((users, habits), dtype=bool)
    own = start.dataset.adoptions[start.dataset.adoptions["source"] == "chosen"]
    rows = pd.Index(start.dataset.users["user_id"]).get_indexer(own["user_id"])
    columns = pd.Index(start.dataset.habits["habit_id"]).get_indexer(own["habit_id"])
    held[rows, columns] = True
    adopted = np.full((users, habits), -1)  # in which round, 0 before the first
    adopted[held] = 0
    last_shown = np.full((users, habits), -policy.rest - 1)
    giving_up = 1 - np.exp(-ROUND_DAYS * world.daily_hazard(*(grid.ravel() for grid in np.indices(held.shape))))
    giving_up = giving_up.reshape(held.shape)
    shown = np.zeros((rounds, users, kinds.shape[1]))
    frames = []
    for number in range(1, rounds + 1):
        score = _scores(start, policy, adopted)
        free = start.allowed & (adopted < 0) & (number - last_shown > policy.rest)
        ranked = np.argsort(-np.where(free, score, -np.inf), axis=1, kind="stable")
        ranked = np.where(np.take_along_axis(free, ranked, axis=1), ranked, -1)
        lists = diversity.rerank(
            ranked,
            np.take_along_axis(score, np.maximum(ranked, 0), axis=1),
            start.alike,
            candidates.category,
            k=PLACES,
            diversity=policy.diversity,
        )
        there, place = lists >= 0, np.maximum(lists, 0)
        chance = _taste(start.chances, kinds, held, drift)[everybody, place]
        seen = np.where(there, seen_probability(np.arange(PLACES)), 0.0)
        draw = world.noise.uniform("loop", everybody, place, number)  # the same for every policy
        yes = draw < seen * chance
        last_shown[np.broadcast_to(everybody, lists.shape)[there], lists[there]] = number
        row, column = np.nonzero(yes)
        held[row, lists[row, column]], adopted[row, lists[row, column]] = True, number
        stays = world.noise.uniform("loop given up", everybody, np.arange(habits), number) >= giving_up
        held &= stays | (adopted == number)
        shown[number - 1] = (kinds[place] * there[:, :, None]).sum(axis=1)
        late = shown[max(0, number - WINDOW) : number].sum(axis=0)
        frames.append(
            pd.DataFrame(
                {
                    "policy": policy.name,
                    "user_id": [f"{world.seed}/{user}" for user in world.user_ids],
                    "round": number,
                    "entropy": entropy(shown[number - 1]),
                    "seen_entropy": entropy(late),
                    "categories": (shown[number - 1] > 0).sum(axis=1),
                    "expected_kept": (seen * chance * start.success[everybody, place]).sum(axis=1),
                    "adopted": yes.sum(axis=1),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _scores(start: _Start, policy: Policy, adopted: Ints) -> Floats:
    """Scores (users, habits) of a policy, with similar people learnt from all adoptions so far."""
    people = np.full(adopted.shape, 0.5)
    if policy.blend.similar_people or policy.blend.to_similar_people:
        row, column = np.nonzero(adopted >= 0)
        day = FIRST_DAY + start.world.people.registered[row] + ROUND_DAYS * adopted[row, column]
        log = pd.DataFrame(
            {
                "user_id": start.dataset.users["user_id"].to_numpy()[row],
                "habit_id": start.dataset.habits["habit_id"].to_numpy()[column],
                "adopted_at": pd.Series(day.astype("datetime64[us]")).dt.tz_localize("UTC"),
            }
        )
        data = Dataset(users=start.dataset.users, habits=start.dataset.habits, adoptions=log)
        people = CollaborativeModel(demographics=False).fit(data).score()
    parts = policy.blend.contributions(
        start.said,
        start.block_weights,
        similar_people=people,
        success=start.kept,
        preference=overlap(start.liked, start.candidates.activities),
        misfit=context.misfit(start.world.people.age, start.candidates),
        evidence=(adopted >= 0).sum(axis=1),
    )
    return total(parts)


def _taste(chances: Floats, kinds: Floats, held: npt.NDArray[np.bool_], drift: float) -> Floats:
    """Chances of adoption (users, habits) when tastes lean to the categories that somebody holds."""
    if not drift:
        return chances
    count = held.sum(axis=1, keepdims=True)
    share = np.divide(held @ kinds, count, out=np.zeros((len(held), kinds.shape[1])), where=count > 0)
    lean = np.where(count > 0, share - share.mean(axis=1, keepdims=True), 0.0)
    return np.minimum(2 * MOST_ACCEPTED, chances * np.exp(drift * lean @ kinds.T))


def curves(
    found: pd.DataFrame, column: str = "entropy", *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Mean over people in each round: policy, round, estimate, ci_low, ci_high, n; intervals by user."""
    lines = []
    for policy, rows in found.groupby("policy", sort=False):
        table = rows.pivot_table(index="user_id", columns="round", values=column, sort=True)
        drawn = _means(table.to_numpy(), resamples, seed)
        low, high = drawn.interval(level)
        lines.append(
            pd.DataFrame(
                {
                    "policy": policy,
                    "round": table.columns,
                    "estimate": drawn.estimate,
                    "ci_low": low,
                    "ci_high": high,
                    "n": drawn.n,
                }
            )
        )
    return pd.concat(lines, ignore_index=True)


def judged(
    found: pd.DataFrame, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> list[Estimate | dict[str, Any]]:
    """What the loop showed: how varied what people see is, what the rule adds and costs, and lists below the floor.

    Keys: bubble_with, bubble_without, bubble_naive (entropy of what was seen of late, last round), bubble_narrowed
    (that of the naive loop, last round less the first whole window), bubble_rule (entropy of a list with the rule less
    without, all rounds), bubble_cost (habits kept of 100 lists, likewise), bubble_below and bubble_below_without (share
    of lists below `FLOOR`). What a policy was not run for is left out.
    """
    last, whole = found["round"].max(), min(WINDOW, found["round"].max())
    draw: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}

    def seen(policy: Policy, number: int) -> pd.Series:
        rows = found[(found["policy"] == policy.name) & (found["round"] == number)]
        return rows.set_index("user_id")["seen_entropy"]

    def mean(policy: Policy, column: str) -> pd.Series:
        return found[found["policy"] == policy.name].groupby("user_id")[column].mean()

    ran = set(found["policy"])
    items: list[Estimate | dict[str, Any]] = []
    for key, policy in (("with", WITH_RULE), ("without", WITHOUT_RULE), ("naive", NAIVE)):
        if policy.name in ran:
            label = f"Entropy of categories seen of late, after {last} rounds, {policy.name}"
            items.append(_estimate(seen(policy, last), f"bubble_{key}", label, "bits", **draw))
    if NAIVE.name in ran:
        change = seen(NAIVE, last) - seen(NAIVE, whole)
        label = f"Change of that entropy from round {whole} to {last}, {NAIVE.name}"
        items.append(_estimate(change, "bubble_narrowed", label, "bits", **draw))
    if {WITH_RULE.name, WITHOUT_RULE.name} <= ran:
        gain = mean(WITH_RULE, "entropy") - mean(WITHOUT_RULE, "entropy")
        items.append(_estimate(gain, "bubble_rule", "Entropy that the rule adds to a list", "bits", **draw))
        cost = 100 * (mean(WITH_RULE, "expected_kept") - mean(WITHOUT_RULE, "expected_kept"))
        label = "Habits adopted and kept from 100 lists, with the rule of diversity less without"
        items.append(_estimate(cost, "bubble_cost", label, "habits", **draw))
    for key, policy in (("bubble_below", WITH_RULE), ("bubble_below_without", WITHOUT_RULE)):
        if policy.name in ran:
            below = found[(found["policy"] == policy.name)]["entropy"] < FLOOR - 1e-9
            label = f"Lists {policy.name} whose entropy lies below {FLOOR:.2f} bits"
            method = "all lists of all rounds"
            items.append(exact(key, label, float(below.mean()), n=len(below), method=method, unit="share"))
    return items


def _means(values: Floats, resamples: int, seed: int) -> estimates.Resampled:
    known = np.isfinite(values)
    sums = np.concatenate([np.where(known, values, 0.0), known.astype(float)], axis=1)
    half = values.shape[1]
    return estimates.resample(sums, lambda s: s[:, :half] / s[:, half:], resamples=resamples, seed=seed)


def _estimate(
    values: pd.Series, key: str, label: str, unit: str, *, level: float, resamples: int, seed: int
) -> Estimate:
    drawn = _means(values.to_numpy(dtype=float)[:, None], resamples, seed)
    method = f"mean over people, bootstrap by user, {resamples} resamples"
    return estimates.estimate_of(drawn, key=key, label=label, level=level, unit=unit, method=method)
