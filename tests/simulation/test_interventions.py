"""The arms of a megastudy: what they do, to whom, and for how long (G7)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from habitlab.simulation import draw_arms, make_world
from habitlab.simulation import world as behaviour
from habitlab.simulation.adoption import adopt

LIFT = 0.2


@pytest.fixture(scope="module")
def world():
    return make_world(users=3000, days=120, seed=5)


@pytest.fixture(scope="module")
def pairs(world):
    adoptions = adopt(world)[0]
    return adoptions.user, adoptions.habit, adoptions.start, adoptions.load


@pytest.fixture(scope="module")
def control(world, pairs):
    return world.replay(*pairs)


def automaticity(world, course):
    """Automaticity of each row's pair before the row's day (rows,), from what was done (G1)."""
    learning = world.learning(course.user, course.habit)
    before, now = np.zeros(len(course.done)), np.zeros(len(course.user))
    for j in range(course.occasions.max()):
        here = np.flatnonzero(course.occasions > j)
        rows = course.first[here] + j
        before[rows] = now[here]
        grown = now[here] + learning[here] * (1 - now[here])
        now[here] = np.where(course.done[rows], grown, (1 - behaviour.FORGETTING) * now[here])
    return before


def during(course):
    return course.day < behaviour.PROGRAMME_DAYS


def rise(treated, control, rows):
    """Relative rise of completions; the same noise is on both sides."""
    return treated.done[rows].sum() / control.done[rows].sum() - 1


def test_null_arms_change_nothing(world, pairs, control):
    for lasts in (False, True):
        null = world.replay(*pairs, lift=np.zeros(len(pairs[0])), lasts=np.full(len(pairs[0]), lasts))
        assert np.array_equal(null.done, control.done)


def test_an_arm_raises_completions_by_its_size_as_far_as_they_are_not_automatic(world, pairs, control):
    treated = world.replay(*pairs, lift=LIFT)
    rows = during(control)
    expected = LIFT * np.average(1 - automaticity(world, control)[rows], weights=control.done[rows])
    assert rise(treated, control, rows) == pytest.approx(expected, rel=0.05)


def test_only_an_arm_that_lasts_is_seen_after_the_programme(world, pairs, control):
    ends, lasts = (world.replay(*pairs, lift=LIFT, lasts=lasts) for lasts in (False, True))
    programme, later = during(control), control.day >= behaviour.PROGRAMME_DAYS
    assert np.array_equal(ends.done[programme], lasts.done[programme])
    assert rise(ends, control, programme) > 0.1
    assert np.array_equal(ends.done[later], control.done[later])
    assert rise(lasts, control, later) > 0.05


def test_who_is_more_automatic_responds_less(world, pairs, monkeypatch):
    """Automaticity itself does nothing here, else a chance near 1 would hide why there is little to gain."""
    monkeypatch.setattr(behaviour, "AUTOMATIC", 0.0)
    found = []
    for learning in (0.0, 0.05, 1.0):
        monkeypatch.setattr(behaviour.World, "learning", lambda _, user, __, speed=learning: np.full(len(user), speed))
        control, treated = world.replay(*pairs), world.replay(*pairs, lift=LIFT)
        found.append(rise(treated, control, during(control)))
    assert found[0] > found[1] + 0.02 > found[2] + 0.04
    assert found[2] < LIFT / 3


def test_forcing_a_fixed_hour_does_not_help_in_the_end(world, pairs, control, monkeypatch):
    """Rigid times did worse than flexible ones; the first weeks gain only as persistence carries their novelty on."""
    monkeypatch.setattr(behaviour.World, "consistency", lambda _, user, __: np.full(len(user), np.sqrt(3)))
    forced = world.replay(*pairs)
    assert rise(forced, control, ~during(control)) < 0


def test_each_pair_has_its_own_arm(world, pairs, control):
    lift = np.where(np.arange(len(pairs[0])) % 2, LIFT, 0.0)
    mixed, all_treated = world.replay(*pairs, lift=lift), world.replay(*pairs, lift=LIFT)
    treated = lift[control.pair] > 0
    assert np.array_equal(mixed.done, np.where(treated, all_treated.done, control.done))


@pytest.mark.parametrize("lift", [-0.1, np.nan, np.inf])
def test_an_impossible_lift_is_refused(world, pairs, lift):
    with pytest.raises(ValueError, match="lift must be 0 or more"):
        world.replay(*pairs, lift=lift)


def test_as_many_arms_work_and_last_as_in_the_megastudy():
    draws = [draw_arms(seed) for seed in range(300)]
    lift, lasts = np.concatenate([arms.lift[1:] for arms in draws]), np.concatenate([arms.lasts[1:] for arms in draws])
    works = lift > 0
    for count, of, share in ((works.sum(), works.size, 0.45), (lasts.sum(), works.size, 0.08)):
        low, high = binom.interval(0.999, of, share)
        assert low <= count <= high
    assert not lasts[~works].any()
    assert 0.09 <= lift[works].min() < 0.092
    assert 0.268 < lift[works].max() <= 0.27
    assert lift[works].mean() == pytest.approx(0.18, abs=0.005)


def test_the_same_seed_draws_the_same_arms_and_the_control_comes_first():
    one, again, other, more = draw_arms(4), draw_arms(4), draw_arms(5), draw_arms(4, arms=30)
    assert len(one) == 21
    assert (one.name[0], one.lift[0], one.lasts[0], one.days) == ("control", 0.0, False, 28)
    assert one.lift.tolist() == again.lift.tolist() == more.lift[:21].tolist()
    assert one.lasts.tolist() == again.lasts.tolist() == more.lasts[:21].tolist()
    assert one.lift.tolist() != other.lift.tolist()
    for arguments in ((-1, 20), (0, 0)):
        with pytest.raises(ValueError, match="or more"):
            draw_arms(*arguments)
