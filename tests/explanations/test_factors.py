"""Which factors are given, and that they are true: requirements 5.1.a, 5.1.b, 5.2.b, 5.x; pitfalls D76 to D80, D83."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from habitlab.dataset.vocabulary import Activity, Category, Chronotype, Gender, Level, TimeOfDay
from habitlab.explanations.factors import SMALLEST, STATEMENTS, Factor, Outlook, effects, factors, item_effects
from habitlab.explanations.faithfulness import score_without
from habitlab.explanations.reasons import explain, summarise
from habitlab.recommender.blend import Blend, total

USER = {
    "age": 34.0,
    "improvement_areas": ["health", "diet"],
    "activity_preferences": ["creative", "physical"],
    "time_commitment": 20.0,
    "preferred_time": "morning",
    "difficulty_preference": "beginner",
}
HABIT = {
    "habit_id": "h1",
    "category": "health",
    "activity_type": ["physical", "mental"],
    "minutes": 10.0,
    "time_of_day": "morning",
    "difficulty": 2.0,
    "min_age": 13.0,
    "max_age": 120.0,
}
OUTLOOK = Outlook(0.7, (0.6, 0.8))


def said(part: str, effect: float, user: dict | None = None, habit: dict | None = None, **more: Any) -> str | None:
    """The statement made of one part, or None."""
    found = factors({part: effect}, USER | (user or {}), HABIT | (habit or {}), OUTLOOK, **more)
    return found[0].statement if found else None


# 5.1.a: effects are those of the score


def blend_inputs(generator: np.random.Generator, users: int = 6, habits: int = 9) -> dict[str, Any]:
    def part() -> np.ndarray:
        return generator.random((users, habits))

    names = ("category", "time", "time_of_day", "difficulty", "text")
    return {
        "similarities": {name: part() for name in names},
        "block_weights": dict(zip(names, generator.dirichlet(np.ones(5)), strict=True)),
        "similar_people": part(),
        "success": part(),
        "preference": part(),
        "misfit": np.where(generator.random((users, habits)) < 0.3, part(), 0.0),
        "evidence": generator.integers(0, 40, users),
    }


@pytest.mark.parametrize("seed", range(5))
def test_5_1_a_the_score_falls_by_the_stated_amount_when_the_blend_is_computed_again(seed: int) -> None:
    """One input after the other is set to that of an average habit, and the whole blend runs anew."""
    given_ = blend_inputs(np.random.default_rng(seed))
    blend = Blend()
    parts = blend.contributions(**given_)
    stated = effects(parts)

    def average(scores: np.ndarray) -> np.ndarray:
        return np.broadcast_to(scores.mean(axis=1, keepdims=True), scores.shape)

    for name in parts:
        if name in given_["similarities"]:
            changed = {"similarities": given_["similarities"] | {name: average(given_["similarities"][name])}}
        elif name == "age":
            changed = {"misfit": np.zeros_like(given_["misfit"])}
        else:
            changed = {name: average(given_[name])}
        again = total(blend.contributions(**(given_ | changed)))
        np.testing.assert_allclose(total(parts) - again, stated[name], atol=1e-12, err_msg=name)
        removed = {name: np.ones_like(parts[name], dtype=bool)}
        np.testing.assert_allclose(score_without(parts, removed), again, atol=1e-12, err_msg=name)


def test_5_1_a_one_item_has_the_effects_it_has_among_all() -> None:
    parts = Blend().contributions(**blend_inputs(np.random.default_rng(7)))
    all_effects = effects(parts)
    neutral = {name: float(part[2].mean()) for name, part in parts.items()}
    one = item_effects({name: float(part[2, 4]) for name, part in parts.items()}, neutral)
    assert one == pytest.approx({name: effect[2, 4] for name, effect in all_effects.items()}, abs=1e-12)


def test_a_part_that_is_the_same_for_all_habits_has_no_effect() -> None:
    """What a person has not answered speaks neither for nor against a habit."""
    parts = {"time": np.full((1, 4), 0.2), "success": np.array([[0.1, 0.2, 0.3, 0.4]])}
    assert effects(parts)["time"] == pytest.approx(np.zeros((1, 4)))
    assert factors(item_effects({"time": 0.2}, {"time": 0.2}), USER, HABIT) == []


def test_effects_add_up_to_the_lead_over_an_average_habit() -> None:
    parts = Blend().contributions(**(blend_inputs(np.random.default_rng(1)) | {"misfit": np.zeros((6, 9))}))
    lead = total(parts) - total(parts).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(sum(effects(parts).values()), lead, atol=1e-12)


# 5.1.b: each factor appears exactly when it is true


@pytest.mark.parametrize(
    ("part", "effect", "user", "habit", "statement"),
    [
        ("category", 0.1, {}, {}, "match"),
        ("category", 0.1, {}, {"category": "career"}, None),
        ("category", -0.1, {}, {"category": "career"}, "mismatch"),
        ("category", -0.1, {}, {}, None),
        ("category", -0.1, {"improvement_areas": None}, {}, None),
        ("category", -0.1, {"improvement_areas": []}, {}, None),
        ("category", 0.1, {}, {"category": None}, None),
        ("time", 0.1, {}, {"minutes": 20.0}, "fits"),
        ("time", 0.1, {}, {"minutes": 20.1}, None),
        ("time", -0.1, {}, {"minutes": 20.1}, "longer"),
        ("time", -0.1, {}, {"minutes": 180.0}, "longer"),  # D79
        ("time", -0.1, {}, {"minutes": 2.0}, "short"),
        ("time", 0.1, {"time_commitment": float("nan")}, {}, None),
        ("time", 0.1, {}, {"minutes": None}, None),
        ("time_of_day", 0.1, {}, {}, "match"),
        ("time_of_day", 0.1, {}, {"time_of_day": "any"}, "any"),
        ("time_of_day", -0.1, {}, {"time_of_day": "evening"}, "mismatch"),
        ("time_of_day", 0.1, {}, {"time_of_day": "evening"}, None),
        ("time_of_day", 0.1, {"preferred_time": "any"}, {}, None),
        ("time_of_day", 0.1, {"preferred_time": None, "chronotype": "morning"}, {}, "best"),
        ("time_of_day", -0.1, {"preferred_time": "any", "chronotype": "evening"}, {}, "not_best"),
        ("time_of_day", 0.1, {"chronotype": "evening"}, {"time_of_day": "evening"}, "best"),
        ("time_of_day", 0.1, {"preferred_time": None, "chronotype": "intermediate"}, {}, None),
        ("difficulty", 0.1, {}, {}, "near"),
        ("difficulty", -0.1, {}, {"difficulty": 3.0}, "harder"),
        ("difficulty", -0.1, {"difficulty_preference": "advanced"}, {}, "easier"),
        ("difficulty", 0.1, {}, {"difficulty": 5.0}, None),
        ("preference", 0.1, {}, {}, "match"),
        ("preference", 0.1, {}, {"activity_type": ["social"]}, None),
        ("preference", -0.1, {}, {"activity_type": ["social"]}, "mismatch"),
        ("preference", -0.1, {"activity_preferences": []}, {}, None),
        ("age", -0.1, {"age": 15.0}, {"min_age": 16.0}, "young"),
        ("age", -0.1, {"age": 80.0}, {"max_age": 75.0}, "old"),
        ("age", -0.1, {"age": 34.0}, {}, None),
        ("age", -0.1, {"age": None}, {"max_age": 75.0}, None),
        ("success", 0.1, {}, {}, "higher"),
        ("success", -0.1, {}, {}, "lower"),
        ("text", 0.1, {}, {}, "closer"),
        ("text", -0.1, {}, {}, "farther"),
        ("similar_people", 0.1, {}, {}, "more_popular"),
        ("learning_style", 0.1, {}, {}, None),
    ],
)
def test_5_1_b_a_factor_appears_exactly_when_it_is_true(
    part: str, effect: float, user: dict, habit: dict, statement: str | None
) -> None:
    assert said(part, effect, user, habit) == statement


def test_5_1_b_similar_people_says_what_was_computed() -> None:
    """D80: habits are compared only where there are some, and nobody speaks of habits that were kept."""
    assert said("similar_people", 0.1, has_history=True) == "more"
    assert said("similar_people", -0.1, has_history=False) == "less_popular"


def test_5_1_b_only_the_shared_activities_are_named() -> None:
    (match,) = factors({"preference": 0.1}, USER, HABIT)
    assert match.facts == {"activities": [Activity.PHYSICAL]}
    (mismatch,) = factors({"preference": -0.1}, USER, HABIT)
    assert mismatch.facts == {"activities": [Activity.MENTAL]}


def test_without_a_probability_nothing_is_said_of_success() -> None:
    assert factors({"success": 0.2}, USER, HABIT) == []


# 5.2.b: the first three


def test_5_2_b_the_first_three_by_size_whether_for_or_against() -> None:
    effect = {"category": 0.05, "time": 0.04, "success": -0.2, "preference": 0.1, "text": 0.01}
    assert [f.part for f in factors(effect, USER, HABIT, OUTLOOK)] == ["success", "preference", "category"]


@given(st.permutations(["category", "difficulty", "preference", "text", "time"]))
def test_5_2_b_ties_go_by_name_whatever_the_order_of_the_parts(order: list[str]) -> None:
    effect = {part: 0.1 + 1e-15 * place for place, part in enumerate(order)}  # equal but for the last bit
    assert [f.part for f in factors(effect, USER, HABIT)] == ["category", "difficulty", "preference"]


def test_what_moves_nothing_is_no_reason() -> None:
    assert factors({"category": SMALLEST / 2}, USER, HABIT) == []
    assert factors({"category": SMALLEST * 2}, USER, HABIT) != []


# 5.x: nothing sensitive


POISON = "depression, HIV, pregnant, депрессия, 666-secret"
numbers = st.none() | st.floats(0, 150) | st.just(float("nan"))
profiles = st.fixed_dictionaries(
    {
        "age": numbers,
        "gender": st.none() | st.sampled_from(list(Gender)),
        "barriers": st.none() | st.just(POISON) | st.text(min_size=8),
        "existing_habits": st.none() | st.just([POISON]),
        "improvement_areas": st.none() | st.lists(st.sampled_from(list(Category))),
        "activity_preferences": st.none() | st.lists(st.sampled_from(list(Activity))),
        "time_commitment": numbers,
        "preferred_time": st.none() | st.sampled_from(list(TimeOfDay)),
        "chronotype": st.none() | st.sampled_from(list(Chronotype)),
        "difficulty_preference": st.none() | st.sampled_from(list(Level)),
    }
)
items = st.fixed_dictionaries(
    {
        "habit_id": st.just("h1"),
        "category": st.none() | st.sampled_from(list(Category)),
        "activity_type": st.none() | st.lists(st.sampled_from(list(Activity))),
        "minutes": st.none() | st.floats(0.1, 1440),
        "time_of_day": st.none() | st.sampled_from(list(TimeOfDay)),
        "difficulty": st.none() | st.integers(1, 5).map(float),
        "min_age": st.none() | st.integers(0, 60).map(float),
        "max_age": st.none() | st.integers(60, 130).map(float),
    }
)
effect_values = st.fixed_dictionaries({part: st.floats(-1, 1) for part in STATEMENTS})


@given(profiles, items, effect_values, st.booleans(), st.sampled_from(["en", "ru"]))
def test_5_x_no_explanation_quotes_barriers_gender_or_age(
    user: dict, habit: dict, effect: dict, has_history: bool, code: str
) -> None:
    """What is said depends neither on barriers nor on gender, and holds none of their words."""
    found = factors(effect, user, habit, OUTLOOK, has_history=has_history)
    told = explain(found, code)
    silent = {name: value for name, value in user.items() if name not in ("barriers", "gender", "existing_habits")}
    assert told == explain(factors(effect, silent, habit, OUTLOOK, has_history=has_history), code)
    whole = " ".join([*told, summarise("H", found, code)]).casefold()
    words = re.findall(r"\w{3,}", POISON.casefold())
    assert not any(word in whole for word in words)
    assert not re.search(r"\b(?:female|woman|women|male|man|men|gender|женск\w*|мужск\w*|пол)\b", whole)
    assert len(told) in (1, 2, 3)


@given(profiles, items, effect_values)
def test_5_1_b_whatever_is_said_is_for_or_against_as_the_score_is(user: dict, habit: dict, effect: dict) -> None:
    found = factors(effect, user, habit, OUTLOOK, most=99)
    assert [abs(f.effect) for f in found] == sorted((abs(f.effect) for f in found), reverse=True)
    for factor in found:
        assert isinstance(factor, Factor)
        assert factor.effect == effect[factor.part]
        assert STATEMENTS[factor.part][factor.statement] * factor.effect > 0
    by_part = {f.part: f.statement for f in found}
    if "category" in by_part:
        assert (by_part["category"] == "match") == (habit["category"] in user["improvement_areas"])
    if by_part.get("time") == "longer":
        assert habit["minutes"] > user["time_commitment"]
