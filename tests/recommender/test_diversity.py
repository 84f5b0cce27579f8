"""Requirement 4.2: a varied list that always comes to an end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.recommender.diversity import PLACES, required_categories, rerank, similarity
from tests.recommender import oracle

seeds = st.integers(0, 10_000)


def world(seed, users=4, habits=12, n=9, categories=4):
    random = np.random.default_rng(seed)
    category = random.integers(-1, categories, habits)
    alike = similarity(category, random.random((habits, 5)) < 0.4, random.integers(1, 60, habits).astype(float))
    items = np.stack([random.permutation(habits)[:n] for _ in range(users)])
    scores = np.sort(random.random((users, n)), axis=1)[:, ::-1]
    gone = np.arange(n) >= random.integers(0, n + 1, users)[:, None]
    return np.where(gone, -1, items), scores, alike, category


@given(seeds)
def test_4_2_a_similarity_is_symmetric_with_1_on_the_diagonal(seed):
    random = np.random.default_rng(seed)
    minutes = np.where(random.random(8) < 0.3, np.nan, random.integers(1, 90, 8))
    alike = similarity(random.integers(-1, 3, 8), random.random((8, 5)) < 0.3, minutes, random.normal(size=(8, 4)))
    np.testing.assert_array_equal(alike, alike.T)
    np.testing.assert_array_equal(np.diag(alike), 1)
    assert (alike >= 0).all()
    assert (alike <= 1).all()


def test_4_2_a_what_similarity_is_made_of():
    activities = np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)
    alike = similarity(np.array([0, 0, 1]), activities, np.array([10.0, 20.0, 20.0]))
    assert alike[0, 1] == pytest.approx((0.4 + 0.2 + 0.2 * 0.5) / 0.8)
    assert alike[1, 2] == pytest.approx(0.2 / 0.8)
    unknown = similarity(np.array([-1, -1]), np.zeros((2, 2), bool), np.array([np.nan, np.nan]))
    assert unknown[0, 1] == 0


@settings(max_examples=150)
@given(seeds, st.integers(1, 11), st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]))
def test_4_2_b_the_fast_way_is_the_slow_one(seed, k, diversity):
    items, scores, alike, category = world(seed)
    fast = rerank(items, scores, alike, category, k=k, diversity=diversity)
    places = min(k, PLACES)
    needed = min(required_categories(k, diversity), places)
    for user in range(len(items)):
        slow = oracle.rerank(items[user], scores[user], alike, category, k, diversity, needed, places)
        assert fast[user].tolist() == slow + [-1] * (k - len(slow))


@given(seeds, st.integers(1, 15), st.floats(0, 1))
def test_4_2_c_it_ends_and_repeats_nothing(seed, k, diversity):
    items, scores, alike, category = world(seed)
    lists = rerank(items, scores, alike, category, k=k, diversity=diversity)
    for row, given_ in zip(lists, items, strict=True):
        there = row[row >= 0]
        assert len(there) == len(set(there.tolist())) == min(k, (given_ >= 0).sum())
        assert set(there.tolist()) <= set(given_.tolist())


@given(seeds, st.floats(0.001, 1))
def test_4_2_c_five_places_hold_three_categories_where_there_are_as_many(seed, diversity):
    items, scores, alike, category = world(seed)
    lists = rerank(items, scores, alike, category, k=5, diversity=diversity)
    for row, given_ in zip(lists, items, strict=True):
        possible = len({category[h] for h in given_ if h >= 0})
        assert len({category[h] for h in row if h >= 0}) >= min(3, possible)


def test_4_2_c_categories_hold_even_against_the_scores():
    """Ten habits of one category are better than two of others; still three categories are on the list."""
    category = np.array([0] * 10 + [1, 2])
    scores = np.array([np.r_[np.linspace(1.0, 0.9, 10), 0.02, 0.01]])
    lists = rerank(np.arange(12)[None], scores, np.eye(12), category, k=5, diversity=0.01)
    assert lists.tolist() == [[0, 1, 2, 10, 11]]


def test_4_2_c_no_diversity_is_the_plain_ranking():
    items, scores, alike, category = world(3)
    np.testing.assert_array_equal(rerank(items, scores, alike, category, k=5, diversity=0), items[:, :5])


def test_4_2_b_mean_diversity_does_not_fall_with_the_parameter():
    random = np.random.default_rng(0)
    habits, users = 60, 400
    category = random.integers(0, 9, habits)
    alike = similarity(category, random.random((habits, 5)) < 0.3, random.integers(1, 60, habits).astype(float))
    scores = random.random((users, habits)) * 0.3 + 0.15 * random.random(9)[category]
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    variety = []
    for diversity in (0, 0.1, 0.25, 0.5, 0.75, 1):
        lists = rerank(order, ranked, alike, category, k=5, diversity=diversity)
        pairs = alike[lists[:, :, None], lists[:, None, :]]
        variety.append(1 - (pairs.sum() - 5 * users) / (20 * users))
    assert (np.diff(variety) >= 0).all(), variety
    assert variety[-1] > variety[0] + 0.1


def test_4_2_blocks_do_not_matter(monkeypatch):
    items, scores, alike, category = world(5, users=9)
    whole = rerank(items, scores, alike, category, k=5, diversity=0.4)
    monkeypatch.setattr("habitlab.recommender.diversity._BLOCK", 2)
    np.testing.assert_array_equal(rerank(items, scores, alike, category, k=5, diversity=0.4), whole)


@pytest.mark.parametrize("diversity", [-0.1, 1.1, float("nan")])
def test_4_2_diversity_out_of_range_is_refused(diversity):
    with pytest.raises(ValueError, match="from 0 to 1"):
        rerank(np.zeros((1, 1), int), np.zeros((1, 1)), np.eye(1), np.zeros(1, int), k=1, diversity=diversity)
