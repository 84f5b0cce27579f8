"""Explanations of real lists: requirements 5.1.a, 5.1.b, 5.2.a, 5.2.d and 5.x on what the recommender makes."""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import habitlab
from habitlab.dataset import Dataset
from habitlab.dataset.registration import Registration, choices
from habitlab.explanations import as_table, explain_list, item_factors, success_factors, summarise
from habitlab.explanations.factors import effects
from habitlab.explanations.faithfulness import score_without
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.recommendations import Item, Note, Recommendations

POISON = ("diabetes", "disabled", "pregnant", "диабет", "инвалид", "беременна", "alcohol", "secret")


@pytest.fixture(scope="module")
def people() -> Dataset:
    return habitlab.open_dataset()


@pytest.fixture(scope="module")
def recommender(people: Dataset) -> Recommender:
    return Recommender().fit(people)


@pytest.fixture(scope="module")
def lists(recommender: Recommender, people: Dataset) -> list[Recommendations]:
    return [recommender.recommend(user) for user in people.users["user_id"].head(60)]


def items(lists: list[Recommendations], code: str) -> Iterator[tuple[Recommendations, Item]]:
    return ((one, item) for one in (explain_list(found, code) for found in lists) for item in one.items)


def test_every_item_has_one_to_three_reasons_and_all_else_stays(lists: list[Recommendations]) -> None:
    for found in lists:
        told = explain_list(found)
        assert [item.habit_id for item in told.items] == [item.habit_id for item in found.items]
        assert [item.score for item in told.items] == [item.score for item in found.items]
        assert all(1 <= len(item.reasons) <= 3 + item.by_lot for item in told.items)
        assert not any(item.reasons for item in found.items)


def test_5_1_a_stated_amounts_are_falls_of_the_score_of_the_recommender(
    lists: list[Recommendations], recommender: Recommender
) -> None:
    """Each part of each listed habit, set to that of an average habit: the score falls by what its factor states."""
    for row, found in enumerate(lists[:20]):
        user = found.user_id
        parts = recommender.contributions([user])
        score = recommender.score([user])[0]
        for item in found.items:
            habit = list(recommender.habit_ids_).index(item.habit_id)
            for factor in item_factors(found, item):
                removed = {factor.part: np.ones_like(parts[factor.part], dtype=bool)}
                fall = score[habit] - score_without(parts, removed)[0, habit]
                assert factor.effect == pytest.approx(fall, abs=1e-6), (row, factor)
                assert factor.effect == pytest.approx(effects(parts)[factor.part][0, habit], abs=1e-6)


def test_5_2_a_nothing_english_in_russian_lists(lists: list[Recommendations]) -> None:
    for _, item in items(lists, "ru"):
        for text in [item.name, *item.reasons]:
            assert not re.search("[A-Za-z]", text), text
            assert re.search("[а-яё]", text)


def test_5_1_b_what_is_said_of_real_people_is_true_of_them(lists: list[Recommendations]) -> None:
    seen = set()
    for found, item in items(lists, "en"):
        person, habit = found.person, item.habit
        for factor, reason in zip(item_factors(found, item), item.reasons[item.by_lot :], strict=False):
            seen.add(factor.part)
            match factor.part, factor.statement:
                case "category", "match":
                    assert habit["category"] in person["improvement_areas"]
                case "category", "mismatch":
                    assert habit["category"] not in person["improvement_areas"]
                case "time", _:
                    assert habit["minutes"] <= person["time_commitment"]  # none longer is on a list
                    assert f"{habit['minutes']:g} minute" in reason
                case "preference", "match":
                    assert set(habit["activity_type"]) & set(person["activity_preferences"])
                case "success", statement:
                    better = item.contributions["success"] > found.neutral["success"]
                    assert (statement == "higher") == better
                case "similar_people", statement:
                    assert ("_popular" in statement) != found.has_history
    assert {"category", "preference", "similar_people", "success"} <= seen


def test_5_2_d_an_unknown_language_is_english_and_the_list_says_so(lists: list[Recommendations]) -> None:
    told = explain_list(lists[0], "fr")
    assert told.language == "en"
    assert [item.reasons for item in told.items] == [item.reasons for item in explain_list(lists[0], "en").items]
    assert told.warnings[-1] == "there are no texts in `fr`, only in en, ru; these are English"
    assert explain_list(told, "fr").warnings == told.warnings


answers = st.fixed_dictionaries(
    {"barriers": st.permutations(POISON).map(", ".join)},
    optional={
        "age": st.integers(13, 100),
        "gender": st.sampled_from(choices("gender")),
        "existing_habits": st.just(["secret clinic visits"]),
        "improvement_areas": st.lists(st.sampled_from(choices("improvement_areas")), unique=True),
        "activity_preferences": st.lists(st.sampled_from(choices("activity_preferences")), unique=True),
        "time_commitment": st.integers(1, 60),
        "preferred_time": st.sampled_from(choices("preferred_time")),
        "difficulty_preference": st.sampled_from(choices("difficulty_preference")),
    },
)


@settings(max_examples=30, deadline=None)
@given(answers, st.sampled_from(["en", "ru"]))
def test_5_x_whatever_people_confide_is_not_in_their_list(recommender: Recommender, told: dict, code: str) -> None:
    found = explain_list(recommender.recommend(Registration.of(told)), code)
    said = " ".join(text for item in found.items for text in item.reasons)
    said += " ".join(summarise(item.name, item_factors(found, item), code) for item in found.items)
    assert not any(word in said.casefold() for word in (*POISON, "clinic"))
    assert "barriers" not in found.person
    assert "gender" not in found.person


def test_5_1_b_people_like_you_are_spoken_of_only_where_you_were_compared(recommender: Recommender) -> None:
    said = {}
    for consent in (True, False):
        found = recommender.recommend({"age": 60, "consents": {"similar users": consent}}, k=20)
        said[consent] = " ".join(reason for item in explain_list(found).items for reason in item.reasons)
    assert "People like you take to it" in said[True]
    assert "People take to it" not in said[True]
    assert "People like you" not in said[False]


def test_5_1_b_of_other_people_nothing_is_said_where_there_are_none(lists: list[Recommendations]) -> None:
    alone = replace(lists[0], notes=(Note("alone"),))
    assert any(factor.part == "similar_people" for item in lists[0].items for factor in item_factors(lists[0], item))
    assert not any(factor.part == "similar_people" for item in alone.items for factor in item_factors(alone, item))


def test_a_place_drawn_by_lot_says_so_first(lists: list[Recommendations]) -> None:
    drawn = 0
    for code, said in (("en", "drawn by lot"), ("ru", "жребием")):
        for _, item in items(lists, code):
            assert (said in item.reasons[0]) == item.by_lot
            assert not any(said in reason for reason in item.reasons[1:])
            drawn += item.by_lot
    assert drawn


NOTES = (
    Note("same_chance", {"adoptions": 3}),
    Note("alone"),
    Note("impersonal"),
    Note("ageless"),
    Note("tied", {"habits": 21}),
    Note("few", {"k": 5, "found": 1, "habits": 1171}),
    Note("emptied", {"habits": 3, "last": "held"}),
)


def test_5_2_a_warnings_speak_the_language_of_the_list(lists: list[Recommendations]) -> None:
    found = replace(lists[0], notes=NOTES, filtered={"held": 2, "time_budget": 1})
    english, russian = (explain_list(found, code).warnings for code in ("en", "ru"))
    assert len(english) == len(russian) == len(NOTES)
    assert english[5] == (
        "You asked for 5 habits, and only 1 of 1,171 can be offered. "
        "Left out: you have it already: 2; longer than the time you have: 1."
    )
    assert "“you have it already”" in english[6]
    assert "«уже есть у вас»" in russian[6]
    for text in russian:
        assert not re.search("[A-Za-z{}`]", text), text
    for text in (*english, *russian):
        assert re.fullmatch(r"[A-ZА-Я].*\.", text), text
    assert explain_list(explain_list(found, "ru"), "en").warnings == english


def test_5_2_a_a_notebook_shows_the_list_in_one_language(lists: list[Recommendations]) -> None:
    shown = explain_list(replace(lists[0], notes=NOTES), "ru")._repr_html_()
    text = re.sub(r"<[^>]*>", " ", shown)
    assert not re.search("[A-Za-z]", html.unescape(text))
    assert "привычка" in text
    assert re.search(r"\d,\d", text)
    assert not re.search(r"\d\.\d", text)
    assert "similar people" in explain_list(lists[0], "en")._repr_html_()
    assert json.dumps(explain_list(lists[0], "ru").to_json())  # the body has no headings
    assert "words" not in explain_list(lists[0], "ru").to_json()


def test_a_list_as_a_table_for_a_terminal(lists: list[Recommendations]) -> None:
    for code, habit in (("en", "habit"), ("ru", "привычка")):
        told = explain_list(lists[0], code)
        headings, rows = as_table(told)
        assert headings[1] == habit
        assert [row[:2] for row in rows] == [[str(item.rank), item.name] for item in told.items]
        assert rows[0][2].splitlines() == told.items[0].reasons
        assert {len(row) for row in rows} == {len(headings)}


def test_shap_values_in_words_add_up_to_what_the_boosted_trees_say(recommender: Recommender) -> None:
    pytest.importorskip("shap")
    model = recommender.models_.success
    assert not model.fallback_
    user, habit = str(recommender.user_ids_[3]), str(recommender.habit_ids_[7])
    for code, rest in (("en", "everything else"), ("ru", "всё остальное")):
        told = success_factors(model, user, habit, code)
        assert told["log_odds"].sum() == pytest.approx(model.log_odds([user])[0, 7], abs=1e-9)
        assert told["meaning"].iloc[-2] == rest
        sizes = told["log_odds"].abs()[:5]
        assert list(sizes) == sorted(sizes, reverse=True)
        assert told["meaning"].str.len().gt(0).all()
