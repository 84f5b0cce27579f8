"""Requirement 4.x: every list is a draw from a known policy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from habitlab.dataset import Dataset, check
from habitlab.recommender import exploration
from habitlab.recommender.exploration import lots, slate_rows
from tests.recommender.makers import habits, recommender
from tests.recommender.oracle import inclusion


def draw(best, eligible, epsilon, random):
    """One list."""
    left = np.isin(np.arange(eligible.max() + 1), eligible)
    (shown,), (propensity,) = exploration.draw(best[None], left[None], epsilon, [random.random(2)])
    return shown, propensity


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.001, 1))
def test_4_x_every_eligible_habit_has_a_probability_above_0(n, k, epsilon):
    k = min(n, k)
    eligible = np.arange(100, 100 + n)
    probability = inclusion(eligible[:k], eligible, epsilon)
    assert (probability >= epsilon / n - 1e-12).all()
    assert probability.sum() == pytest.approx(k)
    assert (probability <= 1 + 1e-12).all()


def test_4_x_frequencies_are_the_stated_propensities():
    eligible, best, lists = np.arange(8), np.array([3, 0, 5]), 6_000
    count = np.zeros(8)
    random = np.random.default_rng(0)
    for _ in range(lists):
        shown, _ = draw(best, eligible, 0.4, random)
        count[shown] += 1
    stated = inclusion(best, eligible, 0.4)
    assert (count[[3, 0]] == lists).all()
    drawn = [1, 2, 4, 5, 6, 7]
    assert stats.chisquare(count[drawn], lists * stated[drawn]).pvalue > 0.001


def test_4_x_each_item_carries_its_own_propensity():
    eligible, best = np.array([2, 4, 6, 8]), np.array([8, 2])
    stated = dict(zip(eligible.tolist(), inclusion(best, eligible, 0.5), strict=True))
    random = np.random.default_rng(1)
    for _ in range(50):
        shown, propensity = draw(best, eligible, 0.5, random)
        assert propensity.tolist() == [stated[habit] for habit in shown.tolist()]


def test_4_x_inverse_propensity_weighting_is_unbiased():
    """The mean reward of showing every eligible habit is read off lists that show two of six."""
    eligible, best = np.arange(6), np.array([1, 4])
    reward = np.array([0.1, 0.9, 0.2, 0.7, 0.3, 0.5])
    random, estimates = np.random.default_rng(2), []
    for _ in range(6_000):
        shown, propensity = draw(best, eligible, 0.5, random)
        estimates.append((reward[shown] / propensity).sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - reward.sum()) < 4 * error


def test_4_x_the_same_seed_person_and_moment_draw_the_same():
    def first(*key):
        return lots(*key)

    assert first(0, "ann", "2026-01-05T07:30") == first(0, "ann", "2026-01-05T07:30")
    others = [(1, "ann", "2026-01-05T07:30"), (0, "bob", "2026-01-05T07:30"), (0, "ann", "2026-01-05T07:31")]
    assert first(0, "ann", "2026-01-05T07:30") not in [first(*key) for key in others]


def test_4_x_lots_are_even_and_independent():
    drawn = np.array([lots(0, f"u{user}", "2026-01-05T07:30") for user in range(20_000)])
    assert ((drawn >= 0) & (drawn < 1)).all()
    for column in drawn.T:
        assert stats.kstest(column, "uniform").pvalue > 0.001
    cells = np.histogram2d(*drawn.T, bins=10, range=[(0, 1), (0, 1)])[0]
    assert stats.chisquare(cells.ravel()).pvalue > 0.001


@given(st.data())
def test_4_x_people_drawn_together_get_the_lists_that_each_gets_alone(data):
    people, habits_, k = (data.draw(st.integers(1, most)) for most in (6, 8, 5))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    left = random.random((people, habits_)) < 0.6
    best = np.full((people, k), -1)
    for row, one in enumerate(left):
        ranked = random.permutation(np.flatnonzero(one))[:k]
        best[row, : len(ranked)] = ranked
    chances = random.random((people, 2))
    shown, propensity = exploration.draw(best, left, 0.5, chances)
    for row in range(people):
        length = int((best[row] >= 0).sum())
        expected, probability = best[row].tolist(), [1.0] * k
        if length:
            taken = expected[: length - 1]
            open_ = [habit for habit in np.flatnonzero(left[row]).tolist() if habit not in taken]
            probability[length - 1] = 0.5 + 0.5 / len(open_)
            if chances[row, 0] < 0.5:
                lot = open_[int(chances[row, 1] * len(open_))]
                if lot != expected[length - 1]:
                    expected[length - 1], probability[length - 1] = lot, 0.5 / len(open_)
        assert shown[row].tolist() == expected
        assert propensity[row] == pytest.approx(probability)


@pytest.mark.parametrize("epsilon", [-0.1, 1.5])
def test_4_x_a_wrong_probability_is_refused(epsilon):
    with pytest.raises(ValueError, match="0 to 1"):
        draw(np.array([1]), np.array([1, 2]), epsilon, np.random.default_rng(0))


def test_4_x_over_moments_a_recommender_shows_what_it_states():
    fitted = recommender(habits(6), exploration=0.5)
    count, moments = {}, 600
    for day in range(moments):
        at = (pd.Timestamp("2026-01-01T09:00") + pd.Timedelta(days=day)).to_pydatetime()
        for item in fitted.recommend("ann", k=3, at=at).items:
            count.setdefault(item.habit_id, []).append(item.propensity)
    assert len(count) == 6
    for propensities in count.values():
        assert len(set(propensities)) == 1
        expected = propensities[0]
        assert stats.binomtest(len(propensities), moments, min(expected, 1.0)).pvalue > 0.0005


def test_4_x_lists_become_rows_of_the_table_recommendations():
    users = pd.DataFrame({"user_id": ["ann"], "age": [40], "zone": ["Europe/Berlin"]})
    table = habits(6)
    fitted = recommender(table, users)
    lists = [fitted.recommend("ann", k=3, at=f"2026-01-0{day}T09:00") for day in (5, 6)]
    rows = slate_rows(lists)
    assert rows["position"].tolist() == [1, 2, 3] * 2
    assert rows["habit_id"].tolist() == [item.habit_id for one in lists for item in one.items]
    assert (rows["propensity"] > 0).all()
    assert rows["shown_at"].iloc[0] == pd.Timestamp("2026-01-05T08:00Z")
    assert set(rows["policy"]) == {lists[0].policy}
    assert rows["event_id"].is_unique
    assert slate_rows(lists).equals(rows)
    check(Dataset(users=users, habits=table, recommendations=rows))
    assert slate_rows([]).empty
