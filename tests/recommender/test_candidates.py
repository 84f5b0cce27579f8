"""Imported trackers get the built-in catalogue as candidates."""

import numpy as np
import pandas as pd
import pytest

import habitlab
from habitlab.dataset import Dataset, check
from habitlab.dataset.catalogue import load_catalogue
from habitlab.recommender.candidates import CATALOGUE_PREFIX, Candidates, with_catalogue


@pytest.fixture
def imported() -> Dataset:
    """A tracker with two catalogue habits under its own ids, one of its own, and an id that the catalogue has too."""
    return Dataset(
        users=pd.DataFrame({"user_id": ["me"]}),
        habits=pd.DataFrame(
            {
                "habit_id": ["7", "plan", "h001", "fish"],
                "name_en": ["take a  BRISK walk!", None, "Feed the fish", "Have fish or beans for protein"],
                "name_ru": [None, "Планировать питание на завтра", None, None],
                "minutes": [35.0, None, None, None],
            }
        ),
    )


def test_simulated_data_stay_as_they_are():
    sample = habitlab.open_dataset()
    assert with_catalogue(sample) is sample


def test_a_matched_habit_keeps_its_id_and_its_values_and_gets_the_rest(imported):
    habits = with_catalogue(imported).habits.set_index("habit_id")
    walk = habits.loc["7"]
    assert walk["name_en"] == "take a  BRISK walk!"
    assert walk["minutes"] == 35
    assert walk["category"] == "physical"
    assert walk["name_ru"] == "Ходить быстрым шагом"
    assert habits.loc["plan", "minutes"] == 8


def test_every_catalogue_habit_is_there_once(imported):
    extended = with_catalogue(imported)
    assert len(extended.habits) == len(load_catalogue()) + 1  # only `Feed the fish` is not in the catalogue
    assert extended.habits["habit_id"].tolist()[:4] == ["7", "plan", "h001", "fish"]
    check(extended)


def test_an_id_used_for_something_else_gets_a_prefix(imported):
    habits = with_catalogue(imported).habits.set_index("habit_id")
    assert habits.loc["h001", "name_en"] == "Feed the fish"
    assert pd.isna(habits.loc["h001", "category"])
    assert habits.loc[CATALOGUE_PREFIX + "h001", "name_en"] == "Floss your teeth"


def test_prerequisites_name_the_new_ids(imported):
    habits = with_catalogue(imported).habits.set_index("habit_id")
    assert habits.loc["h052", "prerequisites"] == ["7"]  # running builds on the brisk walk
    assert habits.loc["h030", "prerequisites"] == ["plan"]


def test_doing_it_again_changes_nothing(imported):
    once = with_catalogue(imported)
    pd.testing.assert_frame_equal(with_catalogue(once).habits, once.habits)


def test_of_two_habits_with_one_name_the_first_is_the_catalogue_one():
    habits = pd.DataFrame({"habit_id": ["a", "b"], "name_en": ["Practise yoga", "practise YOGA"]})
    extended = with_catalogue(Dataset(habits=habits)).habits.set_index("habit_id")
    assert extended.loc["a", "category"] == "physical"
    assert pd.isna(extended.loc["b", "category"])


def test_no_habits_at_all_leaves_the_catalogue():
    assert with_catalogue(Dataset()).habits["habit_id"].tolist() == load_catalogue()["habit_id"].tolist()


def test_what_is_not_known_is_nan_or_nothing():
    habits = Candidates.of(pd.DataFrame({"habit_id": ["a"]}))
    assert habits.category.tolist() == [-1]
    assert habits.part.tolist() == [-1]
    assert np.isnan(habits.minutes).all()
    assert habits.bodily.tolist() == [True]  # who knows
    assert habits.name(0, "ru") == "a"


def test_names_fall_back_to_the_other_language():
    habits = Candidates.of(pd.DataFrame({"habit_id": ["a"], "name_ru": ["Гулять"]}))
    assert habits.name(0, "en") == "Гулять"
