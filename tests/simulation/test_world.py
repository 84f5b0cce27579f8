"""How habits go: the fast replay against a slow one, exactness, and people who look like people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from habitlab.simulation import make_world, tracking
from habitlab.simulation import world as behaviour
from habitlab.simulation.adoption import adopt
from habitlab.simulation.people import FIRST_DAY


@pytest.fixture(scope="module")
def world():
    return make_world(users=1500, days=180, seed=21)


@pytest.fixture(scope="module")
def adoptions(world):
    return adopt(world)[0]


@pytest.fixture(scope="module")
def course(world, adoptions):
    return world.replay(adoptions.user, adoptions.habit, adoptions.start, adoptions.load)


def slow_replay(world, user, habit, start, load):
    """One pair, day after day, written from G1-G5 and without any array of pairs."""
    one = (np.array([user]), np.array([habit]))
    (logit,), (learning,), (persistence,) = world.logit(*one, load), world.learning(*one), world.persistence(*one)
    end = min(start + int(world.lengths(*one, start)[0]), world.days)
    times, per_days = int(world.habits.times[habit]), int(world.habits.per_days[habit])
    automatic, done_before, days, done = 0.0, None, [], []
    for day in range(start, end):
        since = day - start
        if all(number * per_days // times != since for number in range(since * times // per_days, since + 2)):
            continue
        date = FIRST_DAY + day
        x = logit + world.people.weekday[user, day % 7]
        x += behaviour.BY_WEEKDAY[day % 7] - behaviour.BY_WEEKDAY.mean()
        x += behaviour.MONTH_START * (date == date.astype("datetime64[M]").astype("datetime64[D]"))
        x += world.knobs.dip * behaviour.NOVELTY * np.exp(-since / behaviour.NOVELTY_DAYS)
        x += behaviour.AUTOMATIC * automatic
        if done_before is not None:
            x += behaviour.STREAK * (1 if done_before else -1)
        chance = 1 / (1 + np.exp(-x))
        if done_before is not None:
            carried = persistence * (1 - np.exp(-since / behaviour.ROUTINE_DAYS))
            chance = chance + carried * (1 - chance) if done_before else chance * (1 - carried)
        done_before = bool(world.noise.uniform("done", user, habit, day)[0] < chance)
        automatic += learning * (1 - automatic) if done_before else -behaviour.FORGETTING * automatic
        days.append(since)
        done.append(done_before)
    return days, done


def test_the_fast_replay_equals_the_slow_one(world, adoptions, course):
    for pair in range(0, len(adoptions.user), len(adoptions.user) // 60):
        rows = slice(course.first[pair], course.first[pair] + course.occasions[pair])
        days, done = slow_replay(
            world, adoptions.user[pair], adoptions.habit[pair], int(adoptions.start[pair]), int(adoptions.load[pair])
        )
        assert course.day[rows].tolist() == days
        assert course.done[rows].tolist() == done


def test_an_outcome_does_not_depend_on_what_else_is_replayed(world, adoptions, course):
    some = np.random.default_rng(0).permutation(len(adoptions.user))[:40]
    alone = world.replay(adoptions.user[some], adoptions.habit[some], adoptions.start[some], adoptions.load[some])
    for number, pair in enumerate(some):
        mine = alone.done[alone.first[number] : alone.first[number] + alone.occasions[number]]
        theirs = course.done[course.first[pair] : course.first[pair] + course.occasions[pair]]
        assert np.array_equal(mine, theirs)


def test_a_smaller_world_holds_the_first_users_of_a_larger_one(world, adoptions):
    small = adopt(make_world(users=100, days=180, seed=21))[0]
    first = adoptions.user < 100
    assert np.array_equal(small.user, adoptions.user[first])
    assert np.array_equal(small.habit, adoptions.habit[first])
    assert np.array_equal(small.load, adoptions.load[first])


def test_a_goal_never_hurts_and_load_never_helps_under_the_same_noise(world, adoptions):
    """Potential outcomes are read from one noise, so a better chance cannot give a worse first day."""
    pairs = (adoptions.user, adoptions.habit, adoptions.start)
    yes, no = (world.replay(*pairs, adoptions.load, goal=np.full(len(pairs[0]), goal)) for goal in (True, False))
    first = yes.first[yes.occasions > 0]
    assert (yes.done[first] >= no.done[first]).all()
    assert yes.done.mean() > no.done.mean() + 0.05
    more = world.replay(*pairs, adoptions.load + 1)
    assert more.done.mean() < world.replay(*pairs, adoptions.load).done.mean() - 0.02


def test_streaks_can_be_hidden_as_an_arm_of_an_experiment(world, adoptions, course):
    hidden = dataclasses.replace(world, streaks_shown=False)
    other = hidden.replay(adoptions.user, adoptions.habit, adoptions.start, adoptions.load)
    assert len(other.done) == len(course.done)
    assert 0.001 < (other.done != course.done).mean() < 0.2


def test_no_day_is_lived_after_the_end(world, course):
    assert (course.day < course.length[course.pair]).all()
    assert (course.start[course.pair] + course.day < world.days).all()


@pytest.mark.parametrize("pairs", [0, 1, 400])
def test_the_table_is_the_same_in_one_part_or_in_many(world, adoptions, monkeypatch, pairs):
    some = slice(0, pairs)
    course = world.replay(adoptions.user[some], adoptions.habit[some], adoptions.start[some], adoptions.load[some])
    at_once = tracking.tracking(world, course)
    monkeypatch.setattr(tracking, "_BLOCK", 500)
    pd.testing.assert_frame_equal(tracking.tracking(world, course), at_once)
    assert len(list(course.parts(500))) > 10 or pairs < 400


def test_times_to_automaticity_spread_as_lally_found(world, adoptions):
    days = world.days_to_automatic(adoptions.user, adoptions.habit)
    drawn = np.random.default_rng(0).choice(days, (2000, 39))
    assert np.median(days) == pytest.approx(66, rel=0.06)
    assert np.median(drawn.min(axis=1)) == pytest.approx(19, abs=4)
    assert np.median(drawn.max(axis=1)) == pytest.approx(240, rel=0.12)


def test_57_percent_still_hold_a_habit_after_90_days(world, adoptions, course):
    since = course.length + course.start - world.people.registered[course.user]
    last = np.zeros(world.users)
    np.maximum.at(last, course.user, np.where(course.start - world.people.registered[course.user] < 90, since, 0))
    assert (last >= 90).mean() == pytest.approx(0.57, abs=0.04)


def test_in_the_wild_most_leave_at_once():
    lifetime = make_world(users=20_000, retention="wild").people.lifetime
    for day, share in ((1, 0.08), (7, 0.047), (30, 0.033)):
        assert (lifetime > day).mean() == pytest.approx(share, abs=0.005)


def test_persistence_leaves_the_rate_alone(world):
    """G3: with a constant chance, the stationary rate is that chance however persistent the pair."""
    chance, rng = 0.4, np.random.default_rng(0)
    for persistence in (0.0, 0.5, 0.9):
        done = rng.random(4000) < chance
        for _ in range(60):
            done = rng.random(4000) < chance + persistence * (done - chance)
        assert done.mean() == pytest.approx(chance, abs=0.035)


def test_the_young_sleep_late(world):
    people = world.people
    young, old = (people.age > 15) & (people.age < 22), people.age > 55
    assert people.mid_sleep[young].mean() > people.mid_sleep[old].mean() + 0.8
    assert people.mid_sleep[young].std() > people.mid_sleep[old].std()
