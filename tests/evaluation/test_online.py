"""Policies run for real in the simulated world (6.1.f): the world's own slates come out as the world logged them."""

import numpy as np
import pandas as pd
import pytest

from habitlab.evaluation.offpolicy.online import (
    adoption_chances,
    offerable,
    place_policy,
    run_lists,
    seen_probability,
    slate_log,
    true_value,
)
from habitlab.models.ranking import top_k
from habitlab.simulation import make_truth, make_world, populate
from habitlab.simulation.adoption import adopt


@pytest.fixture(scope="module")
def world():
    return make_world(users=300, days=60, seed=4)


@pytest.fixture(scope="module")
def logged(world):
    """First slates as the world showed them (users, 16), and who got them from the random policy."""
    _, offers, _ = adopt(world)
    first = offers.slate == 0
    lists = np.full((world.users, 16), -1)
    lists[offers.user[first], offers.position[first] - 1] = offers.habit[first]
    random = np.bincount(offers.user[first], ~offers.popular[first], world.users) > 0
    accepted = np.bincount(offers.user[first], offers.accepted[first], world.users)
    return lists, random, accepted


def best(world, scores, k=5):
    """The k best habits that may be offered, by score."""
    adoptions, _, _ = adopt(world)
    return top_k(np.where(offerable(world, adoptions), scores, -np.inf), k)[0]


def test_the_worlds_own_slates_are_answered_as_they_were(world, logged):
    lists, random, accepted = logged
    found = run_lists(world, lists)
    assert found["user_id"].tolist() == list(world.user_ids)
    assert np.array_equal(found["adoptions"][random], accepted[random])
    assert found["unfit"].sum() == 0
    # and by the ids of the table that people see
    log = populate(world).recommendations
    log = log[log["policy"] == "random"]
    first = log["shown_at"] == log.groupby("user_id")["shown_at"].transform("min")
    told = log[first & (log["response"] == "accepted")].groupby("user_id").size()
    assert found.set_index("user_id")["adoptions"][told.index].tolist() == told.tolist()
    assert found["adoptions"][random].sum() == told.sum()


def test_outcomes_are_those_of_the_truth(world):
    """One habit for somebody who chose one alone: held as in the truth's potential outcomes if there is no other."""
    adoptions, _, _ = adopt(world)
    truth = make_truth(world)
    at_first = adoptions.start == world.people.registered[adoptions.user]
    scores = np.tile(world.habits.popularity, (world.users, 1))
    lists = best(world, scores, k=1)
    found = run_lists(world, lists)
    own = np.bincount(adoptions.user[at_first & ~adoptions.recommended], minlength=world.users)
    held = np.bincount(adoptions.user[at_first], minlength=world.users)  # what the truth takes as held
    same = np.flatnonzero((found["adoptions"] == 1) & (own + 1 == held))
    told = truth.iloc[same * len(world.habits) + lists[same, 0]]
    assert len(same) > 5
    assert np.array_equal(found["successes"].iloc[same], told["success"])
    assert np.array_equal(found["completions"].iloc[same], told["completions"])
    assert np.array_equal(found["kept"].iloc[same], told["retained_90"])


def test_expectations_by_hand(world):
    lists = best(world, np.random.default_rng(0).random((world.users, len(world.habits))), k=3)
    found, chance = run_lists(world, lists), adoption_chances(world)
    for user in (0, 7, 299):
        by_hand = sum(chance[user, habit] / (1 + 0.03 * place) for place, habit in enumerate(lists[user]))
        assert found["expected_adoptions"][user] == pytest.approx(by_hand)


def test_expected_is_what_happens_on_average():
    """Over 12 worlds, within 4 standard errors by user."""
    frames = []
    for seed in range(12):
        world = make_world(users=200, days=60, seed=seed)
        scores = np.tile(world.habits.popularity, (world.users, 1))
        frames.append(run_lists(world, best(world, scores, 10)))
    found = pd.concat(frames)
    for what, expected in (("adoptions", "expected_adoptions"), ("successes", "expected_successes")):
        away = found[what] - found[expected]
        assert abs(away.mean()) < 4 * away.std() / np.sqrt(len(away))
        assert found[what].mean() > 0.1


def test_a_policy_that_knows_what_people_like_is_worth_more(world):
    chance = adoption_chances(world)
    lot = np.random.default_rng(0).random(chance.shape)
    popular = np.tile(world.habits.popularity, (world.users, 1))
    worth = [run_lists(world, best(world, scores))["expected_adoptions"].mean() for scores in (lot, popular, chance)]
    assert worth[0] < 0.8 * worth[1] < 0.8 * worth[2]


def test_nobody_adopts_what_they_hold_or_may_not_have(world):
    adoptions, _, _ = adopt(world)
    allowed = offerable(world, adoptions)
    refused = top_k(np.where(allowed, -np.inf, 1.0), 4)[0]
    found = run_lists(world, refused)
    assert np.array_equal(found["unfit"], (refused >= 0).sum(axis=1))
    assert found["unfit"].sum() > world.users
    assert not found.drop(columns=["user_id", "unfit"]).to_numpy().any()


def test_an_empty_list_brings_nothing(world):
    found = run_lists(world, np.full((world.users, 5), -1))
    assert not found.drop(columns="user_id").to_numpy().any()
    assert run_lists(world, np.empty((world.users, 0), dtype=int)).equals(found)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (lambda n: np.zeros((n - 1, 3), dtype=int), r"300 users, k"),
        (lambda n: np.zeros(n, dtype=int), r"300 users, k"),
        (lambda n: np.zeros((n, 3)), "whole numbers"),
        (lambda n: np.full((n, 1), 10_000), "numbers of habits from 0 to"),
        (lambda n: np.full((n, 1), -2), "numbers of habits from 0 to"),
        (lambda n: np.zeros((n, 2), dtype=int), "a habit stands twice"),
    ],
)
def test_lists_that_do_not_fit_are_refused(world, lists, message):
    with pytest.raises(ValueError, match=message):
        run_lists(world, lists(world.users))


# The log of single places


def test_the_log_holds_the_propensities_of_its_candidates(world):
    """The random policy drew every candidate alike: the candidates that are rebuilt give back each propensity."""
    log = slate_log(world)
    candidates = log.candidates()
    assert np.array_equal(1 / candidates.sum(axis=1), log.propensity)
    assert candidates[np.arange(len(log)), log.habit].all()
    uniform = place_policy(log, np.zeros((world.users, len(world.habits))), temperature=1)
    assert uniform[np.arange(len(log)), log.habit] == pytest.approx(log.propensity)


def test_a_part_of_the_log_is_a_part_of_the_log(world):
    log = slate_log(world)
    some = np.unique(log.user)[3:9]
    rows = np.isin(log.user, some)
    part = log.of(some)
    assert len(part) == rows.sum() > 0
    assert np.array_equal(part.candidates(), log.candidates()[rows])
    assert np.array_equal(part.expected(), log.expected()[rows])


def test_places_are_filled_by_the_best_or_by_lot(world):
    log = slate_log(world).of([0, 1, 2, 3, 4, 5])
    scores = np.random.default_rng(0).normal(size=(world.users, len(world.habits)))
    candidates, greedy = log.candidates(), place_policy(log, scores)
    for row in range(len(log)):
        free = np.flatnonzero(candidates[row])
        assert greedy[row].argmax() == free[scores[log.user[row], free].argmax()]
        hot = np.exp(scores[log.user[row], free] / 0.5)
        by_lot = place_policy(log, scores, temperature=0.5)[row]
        assert by_lot[free] == pytest.approx(hot / hot.sum())
        assert by_lot.sum() == pytest.approx(1)
    cold = place_policy(log, scores, temperature=1e-6)
    assert cold == pytest.approx(greedy)


def test_the_true_value_of_the_logging_policy_is_what_was_logged():
    """Within 4 standard errors by user, over 3 worlds."""
    away = []
    for seed in range(3):
        world = make_world(users=800, days=60, seed=seed)
        log = slate_log(world)
        uniform = place_policy(log, np.zeros((world.users, len(world.habits))), temperature=1)
        gap = log.reward - true_value(log, uniform)
        away.append(np.bincount(log.user, gap)[np.unique(log.user)])
    away = np.concatenate(away)
    assert abs(away.mean()) < 4 * away.std() / np.sqrt(len(away))


def test_the_true_value_by_hand(world):
    log = slate_log(world).of([0, 1, 2])
    greedy = place_policy(log, np.tile(world.habits.popularity, (world.users, 1)))
    by_hand = [
        adoption_chances(world)[log.user[row], greedy[row].argmax()] * seen_probability(log.place[row])
        for row in range(len(log))
    ]
    assert true_value(log, greedy) == pytest.approx(by_hand)


def test_scores_that_do_not_fit_are_refused(world):
    log = slate_log(world)
    with pytest.raises(ValueError, match=r"scores are \(users, habits\)"):
        place_policy(log, np.zeros(len(world.habits)))
    with pytest.raises(ValueError, match="finite"):
        place_policy(log, np.full((world.users, len(world.habits)), np.nan))
    with pytest.raises(ValueError, match="temperature"):
        place_policy(log, np.zeros((world.users, len(world.habits))), temperature=-1)
