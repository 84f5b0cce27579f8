"""A block of people at once is every one of them alone, to the last bit (7.1.c)."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import habitlab
from habitlab.recommender import context
from habitlab.recommender.context import LONG_AGO, Group
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.since import Since
from tests.recommender import oracle
from tests.recommender.makers import candidates, habits, recommender

DAY = 20_000
MOMENTS = [datetime(2024, 5, 6, hour) for hour in (0, 12, 18)]


@given(st.integers(0, 2**32), st.sampled_from([None, 3.0, 13.5, 18.0]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_4_3_a_block_is_sifted_as_each_person_alone(seed, hour, tomorrow):
    random, people, count = np.random.default_rng(seed), 7, 12
    table = candidates(
        count,
        category=random.choice(["physical", "career", "diet"], count),
        min_age=random.choice([np.nan, 13, 18, 30], count),
        max_age=random.choice([np.nan, 40, 120], count),
        minutes=random.choice([np.nan, 5, 60], count),
        time_of_day=random.choice(["morning", "afternoon", "evening", "any"], count),
        prerequisites=[[f"h{random.integers(1, count + 1)}"] if random.random() < 0.3 else [] for _ in range(count)],
    )
    events = random.integers(0, 60)
    group = Group(
        age=random.choice([np.nan, 12, 15, 18, 35, 44, 45, 70], people),
        budget=random.choice([np.nan, 10, 90], people),
        held=random.random((people, count)) < 0.2,
        rejected=random.choice([LONG_AGO, DAY - context.COOL_DOWN, DAY - 1], (people, count)),
        given_up=random.choice([LONG_AGO, DAY - context.REST, DAY - 1], (people, count)),
        shown_to=random.integers(0, people, events),
        shown=random.integers(0, 3, events),
        shown_day=DAY - random.integers(0, 2 * context.FATIGUE_DAYS, events),
        weekdays=np.zeros((people, 7)),
    )
    left, taken = context.sift(group, table, day=DAY, hour=hour, tomorrow=tomorrow)
    for row in range(people):
        slow_left, slow_taken = oracle.sift(group, row, table, DAY, hour, tomorrow)
        assert np.flatnonzero(left[row]).tolist() == slow_left
        counts = zip(context.REASONS, taken[row].tolist(), strict=True)
        assert {reason: count for reason, count in counts if count} == slow_taken


@pytest.fixture(scope="module")
def fitted() -> Recommender:
    return Recommender().fit(habitlab.open_dataset())


@pytest.fixture(scope="module")
def happened(fitted) -> dict[str, Since]:
    """What every third person did since the fit."""
    names = fitted.habit_ids_.tolist()
    return {
        user: Since(
            held=frozenset(names[number % 50 : number % 50 + 2]),
            rejected={names[60]: 19_845},
            given_up={names[70]: 19_840},
            shown=tuple((names[80], day) for day in (19_845, 19_846, 19_847)),
            success=number / 100 - 1,
            opinions={names[90]: 0.5, names[91]: -1.5},
        )
        for number, user in enumerate(fitted.user_ids_.tolist())
        if number % 3 == 0
    }


@pytest.mark.parametrize(("k", "lang", "tomorrow"), [(5, "en", False), (1, "ru", False), (170, "en", True)])
def test_7_1_c_lists_of_a_block_are_those_of_each_person(fitted, happened, k, lang, tomorrow):
    users = fitted.user_ids_.tolist()[:60]
    many = list(fitted.recommend_many(users, k, MOMENTS, lang, tomorrow=tomorrow, since=happened))
    for user, lists in zip(users, many, strict=True):
        for at, one in zip(MOMENTS, lists, strict=True):
            alone = fitted.recommend(user, k, at, lang, tomorrow=tomorrow, since=happened.get(user))
            assert repr(vars(one)) == repr(vars(alone))
            assert [vars(item) for item in one.items] == [vars(item) for item in alone.items]


def test_7_1_c_lists_are_the_same_whether_scores_were_kept_or_the_models_are_asked(fitted, monkeypatch):
    users = fitted.user_ids_.tolist()[:40]
    kept = list(fitted.recommend_many(users, at=MOMENTS))
    monkeypatch.setattr(fitted, "_kept", None)
    assert list(fitted.recommend_many(users, at=MOMENTS)) == kept
    assert [[fitted.recommend(user, at=at) for at in MOMENTS] for user in users[:10]] == kept[:10]


def test_7_1_c_everybody_in_the_order_of_the_dataset_and_short_and_empty_lists():
    users = pd.DataFrame({"user_id": ["ann", "bob", "eve"], "age": [40, 40, 40], "time_commitment": [60, 15, 5]})
    few = recommender(habits(4, minutes=[10.0, 20.0, 30.0, 40.0]), users)
    many = [one for (one,) in few.recommend_many(k=3)]
    assert [one.user_id for one in many] == ["ann", "bob", "eve"]
    assert [len(one.items) for one in many] == [3, 1, 0]
    assert many == [few.recommend(user, 3) for user in ("ann", "bob", "eve")]
    assert list(few.recommend_many([])) == []


def test_7_1_c_wrong_questions_are_refused_as_by_recommend(fitted):
    with pytest.raises(ValueError, match="k is the number"):
        next(fitted.recommend_many(k=0))
    with pytest.raises(ValueError, match="no user"):
        next(fitted.recommend_many(["nobody"]))
    with pytest.raises(ValueError, match="is not a moment"):
        next(fitted.recommend_many(at=["noon"]))
