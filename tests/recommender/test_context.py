"""Requirement 4.3: what may be offered to this person now."""

from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest

from habitlab.recommender import context
from habitlab.recommender.context import sift
from tests.recommender.makers import candidates, person

NOON = 20_000  # a day


def offered(who, habits, **moment):
    (left,), (counts,) = sift(who, habits, **({"day": NOON} | moment))
    taken = {reason: int(count) for reason, count in zip(context.REASONS, counts, strict=True) if count}
    assert left.sum() + sum(taken.values()) == len(habits)
    return np.flatnonzero(left).tolist(), taken


def test_4_3_nothing_is_taken_from_somebody_without_limits():
    assert offered(person(), candidates()) == ([0, 1, 2, 3, 4, 5], {})


def test_4_3_a_a_habit_already_held_is_not_offered():
    held = np.array([True, False, True, False, False, False])
    assert offered(person(held=held), candidates()) == ([1, 3, 4, 5], {"held": 2})


def test_4_3_a_each_habit_alone_has_to_fit_the_budget():
    habits = candidates(4, minutes=[5, 30, 31, np.nan])
    assert offered(person(4, budget=30), habits) == ([0, 1, 3], {"time_budget": 1})
    assert offered(person(4, budget=np.nan), habits) == ([0, 1, 2, 3], {})


def test_1_1_n_a_habit_with_an_unmet_prerequisite_is_not_offered():
    habits = candidates(3, prerequisites=[[], ["h1"], ["h1", "h2"]])
    assert offered(person(3), habits) == ([0], {"prerequisite": 2})
    assert offered(person(3, held=np.array([True, False, False])), habits) == ([1], {"held": 1, "prerequisite": 1})


def test_4_3_b_a_morning_habit_is_not_offered_at_nine_in_the_evening():
    habits = candidates(4, time_of_day=["morning", "afternoon", "evening", "any"])
    assert offered(person(4), habits, hour=21.0) == ([2, 3], {"time_of_day": 2})
    assert offered(person(4), habits, hour=21.0, tomorrow=True) == ([0, 1, 2, 3], {})
    assert offered(person(4), habits, hour=11.9) == ([0, 1, 2, 3], {})
    assert offered(person(4), habits, hour=12.0) == ([1, 2, 3], {"time_of_day": 1})
    assert offered(person(4), habits, hour=1.5) == ([0, 1, 2, 3], {})  # the night belongs to the day that comes
    assert offered(person(4), habits) == ([0, 1, 2, 3], {})


def test_4_3_d_a_rejected_habit_has_a_cool_down():
    rejected = np.array([NOON - context.COOL_DOWN + 1, NOON - context.COOL_DOWN, NOON, *[context.LONG_AGO] * 3])
    assert offered(person(rejected=rejected), candidates()) == ([1, 3, 4, 5], {"rejected": 2})


def test_4_3_d_a_habit_given_up_rests():
    given_up = np.array([NOON - context.REST + 1, NOON - context.REST, *[context.LONG_AGO] * 4])
    assert offered(person(given_up=given_up), candidates()) == ([1, 2, 3, 4, 5], {"given_up": 1})


def test_4_3_d_what_was_shown_again_and_again_tires():
    shown = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    days = NOON - np.array([1, 2, 3, 1, 2, 1, 2, context.FATIGUE_DAYS])
    assert offered(person(shown=shown, shown_day=days), candidates())[0] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("age", "left"),
    [(15, [0]), (16, [0, 1, 2]), (17, [0, 1, 2]), (60, [0, 1, 2]), (64, [0, 1, 2]), (65, [0, 2]), (np.nan, [0])],
)
def test_4_1_d_hard_age_limits_at_their_ends(age, left):
    """A mind habit for all; a body habit from 16 to 60; a mind habit from 16 on: nobody younger gets either (D70)."""
    habits = candidates(3, category=["career", "physical", "career"], min_age=[13, 16, 16], max_age=[120, 60, 120])
    assert offered(person(3, age=age), habits)[0] == left


@pytest.mark.parametrize(
    ("age", "body", "mind"),
    [(20, 0, 1), (29, 0, 0.2), (30, 0, 0), (60, 0, 0), (61, 0.2, 0.2), (64, 0.8, 0.8), (65, 1, 1), (99, 1, 1)],
)
def test_4_1_d_soft_limits_at_their_ends(age, body, mind):
    """Both habits are for people from 30 to 60; that of the body is filtered out below, and where all is decayed."""
    habits = candidates(2, category=["physical", "career"], min_age=30, max_age=60)
    np.testing.assert_allclose(context.misfit([age], habits), [[body, mind]])
    assert offered(person(2, age=age), habits)[0] == ([0, 1] if 30 <= age < 65 else [1])


def test_4_1_d_an_unknown_age_and_a_highest_age_of_120_suit():
    assert not context.misfit([np.nan], candidates(1, category="physical", min_age=30, max_age=60)).any()
    assert not context.misfit([120], candidates(1, category="physical", min_age=30, max_age=120)).any()


def test_4_1_d_limits_of_adults_for_mind_habits_are_soft():
    habits = candidates(2, category="career", min_age=[30, 13], max_age=[120, 40])
    assert offered(person(2, age=25), habits) == ([0, 1], {})
    assert offered(person(2, age=50), habits) == ([0, 1], {})
    assert offered(person(2, age=15), habits) == ([1], {"age": 1})


def test_4_3_each_habit_is_counted_once_by_the_first_reason():
    habits = candidates(3, minutes=[99, 99, 10], prerequisites=[[], ["h3"], []])
    held = np.array([True, False, False])
    assert offered(person(3, held=held), habits) == ([2], {"held": 1, "prerequisite": 1})
    assert list(context.REASONS).index("held") < list(context.REASONS).index("prerequisite")


def test_4_3_every_reason_is_documented():
    for reason in context.REASONS:
        assert f"\n{reason}\n" in context.__doc__


def test_4_3_c_the_day_to_begin_is_the_next_good_one():
    tuesday_and_thursday = np.array([-1, 1, -1, 2, -1, 0, 0], dtype=float)
    effects, monday = np.stack([tuesday_and_thursday, np.zeros(7)]), datetime(2026, 1, 5, 9)

    def begins(effects, at, **settings):
        weekdays, days = context.first_days(effects, at, **settings)
        return list(zip(weekdays.tolist(), map(context.date_of, days.tolist()), strict=True))

    assert begins(effects, monday) == [(1, date(2026, 1, 6)), (0, date(2026, 1, 5))]
    assert begins(effects[:1], datetime(2026, 1, 8, 9)) == [(3, date(2026, 1, 8))]
    late = begins(effects, datetime(2026, 1, 8, 21), today_is_over=True)
    assert late == [(1, date(2026, 1, 13)), (4, date(2026, 1, 9))]
    assert begins(effects, None) == [(3, None), (0, None)]


def test_1_1_o_unknown_columns_filter_nothing():
    habits = candidates(2).__class__.of(pd.DataFrame({"habit_id": ["a", "b"], "category": ["career", "finance"]}))
    assert offered(person(2), habits, hour=21.0) == ([0, 1], {})
    assert offered(person(2, age=np.nan), habits) == ([0, 1], {})
