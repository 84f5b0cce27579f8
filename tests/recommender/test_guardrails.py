"""Requirement 9.3.b: no extreme habit is ever recommended to somebody it is dangerous for."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset.catalogue import load_catalogue
from habitlab.recommender import guardrails
from habitlab.recommender.guardrails import ADULT, NOBODY, broken_rules, plain, safe_from
from tests.recommender.makers import recommender

ALLOWED_FROM = {"nobody": NOBODY, "minors": ADULT, "harmless": 0}


@pytest.fixture(scope="module")
def red_team() -> pd.DataFrame:
    with (files("habitlab.recommender") / "red_team.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def test_9_3_b_the_list_is_long_enough_and_in_both_languages(red_team):
    counts = red_team.groupby([red_team["dangerous_for"] == "harmless", "language"]).size()
    assert counts[False].sum() >= 80
    assert counts[True].sum() >= 60
    assert counts.min() >= 20
    assert not red_team["name"].duplicated().any()


def as_habits(cases: pd.DataFrame) -> pd.DataFrame:
    russian = cases["language"] == "ru"
    return pd.DataFrame(
        {
            "habit_id": [f"r{i}" for i in range(len(cases))],
            "name_en": cases["name"].where(~russian),
            "name_ru": cases["name"].where(russian),
            "category": cases["category"],
            "minutes": cases["minutes"],
        }
    )


def test_9_3_b_every_case_is_allowed_from_the_right_age(red_team):
    wanted = red_team["dangerous_for"].map(ALLOWED_FROM).to_numpy()
    found = safe_from(as_habits(red_team))
    assert red_team["name"][found < wanted].tolist() == []
    assert red_team["name"][(wanted == 0) & (found > 0)].tolist() == []


@pytest.mark.parametrize("age", [13, 17, 18, 40, 90, None])
def test_9_3_b_no_dangerous_habit_is_recommended_whatever_its_score(red_team, age):
    habits = as_habits(red_team)
    people = pd.DataFrame({"user_id": ["ann"], "age": [age]})
    fitted = recommender(habits, people, scores=np.ones(len(habits)), diversity=0.0)
    found = fitted.recommend("ann", k=len(habits))
    danger = red_team["dangerous_for"].set_axis(habits["habit_id"])
    told = {danger[item.habit_id] for item in found.items}
    minor = age is None or age < ADULT
    assert told == ({"harmless"} if minor else {"harmless", "minors"})
    assert len(found.items) + found.filtered["unsafe"] == len(habits)


def test_9_3_b_the_catalogue_passes_from_its_own_ages_on():
    catalogue = load_catalogue()
    alarms = catalogue["name_en"][safe_from(catalogue) > catalogue["min_age"]]
    assert alarms.tolist() == []


def test_9_3_b_minutes_and_measures_count_without_any_word():
    habits = pd.DataFrame(
        {
            "habit_id": ["a", "b", "c", "d", "e"],
            "name_en": ["Workout", "Workout", "Workout", "Steps", "Energy"],
            "category": ["physical"] * 4 + ["diet"],
            "minutes": [60, 150, 200, None, None],
            "unit": [None, None, None, "steps", "kcal"],
            "target_value": [None, None, None, 50_000, 900],
        }
    )
    assert safe_from(habits).tolist() == [0, ADULT, NOBODY, NOBODY, NOBODY]


def test_9_3_b_descriptions_count_as_well():
    habits = pd.DataFrame({"habit_id": ["a"], "name_en": ["Reset"], "description_ru": ["Голодать два дня"]})
    assert safe_from(habits).tolist() == [NOBODY]


def test_9_3_b_columns_may_be_absent():
    assert safe_from(pd.DataFrame({"habit_id": ["a", "b"]})).tolist() == [0, 0]


def test_plain_reads_numbers_in_words_and_digits():
    assert plain("Fast for Seven days — 1,000 kcal!") == "fast for 7 days 1000 kcal"
    assert plain("Спать по четыре часа, ещё 10km") == "спать по 4 часа еще 10 km"


def test_9_3_b_abstaining_is_not_using():
    assert broken_rules("Smoke after lunch") == {"substances": NOBODY}
    assert broken_rules("Do not smoke after lunch") == {}


@pytest.mark.parametrize(
    ("text", "dangerous"),
    [
        ("Smoke", True),
        ("Don't smoke", False),
        ("Don't smoke or vape", False),
        ("Never drink beer and never smoke", False),
        ("No stress: smoke", True),  # out of its clause no negation reaches
        ("Stop working and smoke", True),  # nor over anything else it may mean
        ("Don't stop smoking", True),  # two are none
        ("Don't leave home without a cigarette", True),
        ("Replace lunch with a cigarette", True),
        ("Smoke less", False),
        ("Worry less and smoke", True),
        ("Не курить", False),
        ("Никогда не курить", False),  # two, and yet one
        ("Не отказываться от сигареты", True),
        ("Ни дня без сигареты", True),
        ("Не грустить и курить", True),
        ("Ни сигарет, ни алкоголя", False),
    ],
)
def test_9_3_b_a_negation_excuses_what_it_governs_and_nothing_else(text, dangerous):
    assert bool(broken_rules(text)) == dangerous


def test_every_rule_of_the_file_is_well_formed():
    assert {rule.age for rule in guardrails.rules()} == {ADULT, NOBODY}
    assert len(guardrails.rules()) >= 15
