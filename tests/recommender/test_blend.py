"""Requirement 4.1: one score, the exact sum of its parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from habitlab.recommender.blend import MODELS, Blend, overlap, total
from habitlab.recommender.context import misfit
from tests.recommender.makers import candidates

shares = st.floats(0, 1)


@st.composite
def blends(draw):
    weights = np.array([draw(st.floats(0.01, 1)) for _ in MODELS])
    weights /= weights.sum()
    moving = weights[0] * draw(shares) * np.array([0.4, 0.6])
    return Blend(*weights.tolist(), *moving.tolist(), half=draw(st.floats(0.1, 50)), age=draw(shares))


def parts(blend, seed=0, users=3, habits=5, **given):
    random = np.random.default_rng(seed)
    values = {name: random.random((users, habits)) for name in ("similar_people", "success", "preference", "misfit")}
    similarities = {name: random.random((users, habits)) for name in ("category", "time")}
    values |= {"evidence": random.random(users) * 30} | given
    return blend.contributions(similarities, {"category": 0.3, "time": 0.7}, **values)


@given(blends(), st.integers(0, 100))
def test_4_1_a_weights_lie_on_the_simplex_and_scores_in_0_1(blend, seed):
    weights = blend.weights(np.linspace(0, 1000, 50))
    assert set(weights) == set(MODELS)
    assert all((weight >= 0).all() for weight in weights.values())
    np.testing.assert_allclose(sum(weights.values()), 1, atol=1e-12)
    score = total(parts(blend, seed))
    assert (score >= 0).all()
    assert (score <= 1).all()


def test_4_1_a_the_score_reaches_both_ends():
    one, blend = np.ones((1, 1)), Blend()
    best = {"similar_people": one, "success": one, "preference": one, "misfit": 0 * one, "evidence": [3]}
    worst = dict.fromkeys(("similar_people", "success", "preference", "misfit"), 0 * one) | {"evidence": [3]}
    assert total(blend.contributions({"time": one}, {"time": 1.0}, **best))[0, 0] == pytest.approx(1, abs=1e-12)
    assert total(blend.contributions({"time": 0 * one}, {"time": 1.0}, **worst))[0, 0] == 0


@given(blends())
def test_4_1_b_weight_moves_from_content_to_similar_people(blend):
    weights = blend.weights(np.linspace(0, 200, 400))
    assert (np.diff(weights["content"]) <= 1e-15).all()
    assert (np.diff(weights["similar_people"]) >= -1e-15).all()
    assert (np.diff(weights["success"]) >= -1e-15).all()  # D73: it does not fall as evidence grows
    assert np.ptp(weights["preference"]) == 0


@pytest.mark.parametrize("threshold", [5, 20])
def test_3_2_3_a_no_jump_at_5_or_20(threshold):
    around = Blend().weights(np.array([threshold - 1e-6, threshold, threshold + 1e-6]))
    assert all(np.ptp(weight) < 1e-6 for weight in around.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"content": 0.5}, "add up to 1"),
        ({"content": -0.1, "success": 0.8}, "0 or more"),
        ({"content": float("nan")}, "0 or more"),
        ({"to_success": 0.9}, "what moves"),
        ({"to_similar_people": -0.1}, "what moves"),
        ({"half": 0}, "half"),
        ({"age": 2}, "age"),
    ],
)
def test_4_1_a_wrong_weights_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Blend(**settings)


def test_evidence_is_not_negative():
    with pytest.raises(ValueError, match="evidence"):
        Blend().weights([-1.0])


@given(blends(), st.integers(0, 100), st.floats(0, 0.05))
def test_4_1_c_a_match_never_lowers_a_score_even_a_low_one(blend, seed, low):
    base = np.full((3, 5), low)
    settings = {"similar_people": base, "success": base, "misfit": 0 * base}
    without, with_ = (total(parts(blend, seed, preference=p * np.ones((3, 5)), **settings)) for p in (0.0, 1.0))
    assert (with_ >= without).all()


def test_4_1_c_every_shared_activity_counts_and_one_more_never_lowers():
    activities = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=bool)
    liked = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    np.testing.assert_array_equal(overlap(liked, activities), [[0, 0, 0], [0.5, 0, 0], [1, 0, 0]])


@given(blends(), st.integers(0, 1000))
def test_4_1_e_contributions_add_up_to_the_score(blend, seed):
    contributions = parts(blend, seed)
    np.testing.assert_allclose(sum(contributions.values()), total(contributions), atol=1e-9)


def test_4_1_e_the_order_of_blocks_does_not_matter():
    random = np.random.default_rng(1)
    similarities = {name: random.random((4, 6)) for name in ("category", "time", "text")}
    weights = {"category": 0.2, "time": 0.5, "text": 0.3}
    rest = {name: random.random((4, 6)) for name in ("similar_people", "success", "preference", "misfit")}
    rest["evidence"] = np.arange(4)
    turned = dict(reversed(similarities.items()))
    one, other = (Blend().contributions(s, weights, **rest) for s in (similarities, turned))
    np.testing.assert_allclose(total(one), total(other), atol=1e-15)


def test_1_1_1_c_only_the_part_age_depends_on_age():
    habits = candidates(3, category="career", min_age=[0, 30, 0], max_age=[120, 120, 50])
    young, old = (parts(Blend(), users=1, habits=3, misfit=misfit([age], habits)) for age in (25, 60))
    for name in young:
        assert (name == "age") == (not np.array_equal(young[name], old[name])), name
    assert (young["age"] <= 0).all()
    assert (old["age"] <= 0).all()


def test_4_1_d_the_soft_fit_at_its_limits():
    """A habit of the mind from 30 to 50: full within, falling to nothing over five years on either side (D71)."""
    habits = candidates(1, category="career", min_age=30, max_age=50)
    ages = [30, 50, 29, 51, 25, 55, 20, 90]
    np.testing.assert_allclose(misfit(ages, habits)[:, 0], [0, 0, 0.2, 0.2, 1, 1, 1, 1])


def test_4_1_d_past_the_upper_limit_of_a_habit_of_the_body_the_fit_falls():
    habits = candidates(1, category="physical", min_age=13, max_age=60)
    np.testing.assert_allclose(misfit([40, 60, 63, 65], habits)[:, 0], [0, 0, 0.6, 1])


def test_d70b_an_unknown_age_is_neutral_in_the_score():
    habits = candidates(2, category="physical", min_age=18, max_age=60)
    assert (misfit([np.nan], habits) == 0).all()
