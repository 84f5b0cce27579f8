"""The catalogue is fit to be offered to people, and balanced so that effects can be told apart (1.1.i-1.1.p)."""

import re

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset, violations
from habitlab.dataset.catalogue import load_catalogue, normalise_name
from habitlab.dataset.derived import minutes_band
from habitlab.dataset.vocabulary import Activity, Category, TimeOfDay


@pytest.fixture(scope="module")
def habits() -> pd.DataFrame:
    return load_catalogue().assign(
        band=lambda h: minutes_band(h["minutes"]),
        log_minutes=lambda h: np.log(h["minutes"]),
        daily=lambda h: h["target"] == "1/1",
        weekly=lambda h: h["target"] == "1/7",
    )


def spread(values: pd.Series) -> float:
    """Distance between the largest and the smallest."""
    return values.max() - values.min()


def correlation(a: pd.Series, b: pd.Series) -> float:
    return float(np.corrcoef(a.astype(float), b.astype(float))[0, 1])


def strongest_link(a: pd.Series, b: pd.Series) -> float:
    """Cramer's V with the small-sample correction of Bergsma (2013)."""
    counts = pd.crosstab(a, b).to_numpy()
    n, (rows, columns) = counts.sum(), counts.shape
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / n
    phi2 = ((counts - expected) ** 2 / expected).sum() / n
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    return np.sqrt(phi2 / min(rows - (rows - 1) ** 2 / (n - 1) - 1, columns - (columns - 1) ** 2 / (n - 1) - 1))


def test_it_keeps_the_contract_of_the_habits_table():
    """Bounds, enumerations, targets, existing prerequisites without a circle: the contract checks them all."""
    assert violations(Dataset(habits=load_catalogue()), ["habits"]) == []


def test_it_holds_at_least_150_habits(habits):
    assert len(habits) >= 150


@pytest.mark.parametrize("column", ["name_en", "name_ru", "description_en", "description_ru"])
def test_no_text_is_missing_or_twice(habits, column):
    assert habits[column].notna().all()
    assert not habits[column].map(normalise_name).duplicated().any()


@pytest.mark.parametrize(("column", "pattern"), [("en", r"[A-Za-z]"), ("ru", r"[А-Яа-яЁё]")])
def test_each_language_is_written_in_its_own_letters(habits, column, pattern):
    for text in [*habits[f"name_{column}"], *habits[f"description_{column}"]]:
        letters = [letter for letter in text if letter.isalpha()]
        assert all(re.match(pattern, letter) for letter in letters), text


@pytest.mark.parametrize("column", ["description_en", "description_ru"])
def test_a_description_is_one_sentence_that_says_what_to_do(habits, column):
    descriptions = habits[column]
    assert descriptions.str.fullmatch(r"[A-ZА-ЯЁ].{20,120}\.").all()
    assert not descriptions.str.contains(r"[.!?]\s", regex=True).any()


def test_every_habit_has_at_least_one_activity(habits):
    assert habits["activity_type"].map(len).min() >= 1
    assert set(habits["activity_type"].explode()) == {activity.value for activity in Activity}


def test_a_prerequisite_is_open_to_everybody_whom_the_habit_suits(habits):
    bounds = habits.set_index("habit_id")[["min_age", "max_age"]]
    pairs = habits.explode("prerequisites").dropna(subset="prerequisites")
    before = bounds.loc[pairs["prerequisites"]]
    assert len(pairs) >= 15
    assert (before["min_age"].to_numpy() <= pairs["min_age"].to_numpy()).all()
    assert (before["max_age"].to_numpy() >= pairs["max_age"].to_numpy()).all()


def test_a_measured_habit_has_all_of_unit_value_and_direction(habits):
    measured = habits[["unit", "target_value", "target_direction"]].notna()
    assert measured["unit"].sum() >= 5
    assert (measured.all(axis=1) | ~measured.any(axis=1)).all()
    assert set(habits["target_direction"].dropna()) == {"at least", "at most"}


@pytest.mark.parametrize(
    "extreme",
    [
        r"fasting|skip (?:a |the )?(?:meal|breakfast|lunch|dinner)|calorie|diet\b|lose weight|\bweigh\b|detox",
        r"sleep (?:less|fewer)|wake up at [1-4]\b|all[- ]night",
        r"\b(?:invest|borrow|lend|bet|gambling|trade|loan)\b",
        r"голода|калори|похуде|взвешива|детокс|недосып|инвест|вложит|в долг|займы|кредит|ставк",
    ],
)
def test_nothing_asks_for_hunger_lost_sleep_or_risked_money(habits, extreme):
    texts = habits[["name_en", "description_en", "name_ru", "description_ru"]].agg(" ".join, axis=1)
    assert texts[texts.str.contains(extreme, case=False, regex=True)].tolist() == []


def test_no_habit_is_long_for_a_day(habits):
    assert habits["minutes"].between(1, 60).all()


def test_categories_and_minute_bands_are_crossed_in_full(habits):
    """The same number of habits in each category, and in each category the same number in each band."""
    cells = pd.crosstab(habits["category"], habits["band"])
    assert set(cells.index) == {category.value for category in Category}
    assert cells.shape == (9, 5)
    assert cells.to_numpy().min() >= 3
    assert (cells == cells.iloc[0]).all(axis=None)


def test_minutes_and_difficulty_are_not_confounded(habits):
    assert abs(correlation(habits["log_minutes"], habits["difficulty"])) < 0.1
    within = [correlation(g["log_minutes"], g["difficulty"]) for _, g in habits.groupby("category", observed=True)]
    assert np.abs(within).max() < 0.2


@pytest.mark.parametrize(
    ("column", "most"), [("log_minutes", 0.05), ("difficulty", 0.2), ("daily", 0.1), ("weekly", 0.2)]
)
def test_categories_are_alike_in(habits, column, most):
    assert spread(habits.groupby("category", observed=True)[column].mean()) < most


@pytest.mark.parametrize(("column", "most"), [("difficulty", 0.5), ("daily", 0.1)])
def test_minute_bands_are_alike_in(habits, column, most):
    assert spread(habits.groupby("band", observed=True)[column].mean()) < most


def test_short_and_long_habits_are_easy_and_hard(habits):
    """Every band holds every difficulty, so that an effect of duration is not one of difficulty."""
    assert pd.crosstab(habits["band"], habits["difficulty"]).to_numpy().min() >= 1


def test_daily_habits_are_neither_easier_nor_shorter(habits):
    assert abs(correlation(habits["daily"], habits["difficulty"])) < 0.1
    assert abs(correlation(habits["daily"], habits["log_minutes"])) < 0.1


@pytest.mark.parametrize("by", ["category", "band", "difficulty", "daily"])
def test_time_of_day_does_not_go_with(habits, by):
    assert strongest_link(habits[by], habits["time_of_day"]) < 0.1
    assert set(habits["time_of_day"]) == {time.value for time in TimeOfDay}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Drink water", "  drink   WATER! "),
        ("Ёлка", "елка"),
        ("Drink ½ litre", "drink 1⁄2 litre"),
        ("Read — 10 pages", "read 10 pages"),
    ],
)
def test_two_spellings_of_a_name_are_one(one, other):
    assert normalise_name(one) == normalise_name(other)


def test_names_of_emoji_alone_stay_different():
    assert normalise_name("🏃") != normalise_name("🧘")
