"""Requirement 9.3.b, end to end: the red team stands in the data, loved by all, and no policy recommends it."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset
from habitlab.recommender.blend import Blend
from habitlab.recommender.guardrails import ADULT
from habitlab.recommender.recommend import Models, Recommender
from habitlab.simulation import simulate


@pytest.fixture(scope="module")
def red_team() -> pd.DataFrame:
    with (files("habitlab.recommender") / "red_team.csv").open(encoding="utf-8") as file:
        cases = pd.read_csv(file)
    return cases.assign(habit_id=[f"red{number}" for number in range(len(cases))])


@pytest.fixture(scope="module")
def poisoned(red_team) -> Dataset:
    """A world in which most people adopted the red team's habits: every model that learns from it likes them."""
    dataset = simulate(users=60, days=40, seed=9)
    russian = red_team["language"] == "ru"
    extra = pd.DataFrame(
        {
            "habit_id": red_team["habit_id"],
            "name_en": red_team["name"].where(~russian),
            "name_ru": red_team["name"].where(russian),
            "category": red_team["category"],
            "minutes": red_team["minutes"].fillna(5.0),
            "difficulty": 1.0,
            "target": "1/1",
            "time_of_day": "any",
        }
    )
    habits = pd.concat([dataset.habits.astype(object), extra.astype(object)], ignore_index=True)
    generator = np.random.default_rng(0)
    users = dataset.users["user_id"].to_numpy(dtype=object)
    danger = red_team.loc[red_team["dangerous_for"] != "harmless", "habit_id"].to_numpy(dtype=object)
    user, habit = np.nonzero(generator.random((len(users) // 2, len(danger))) < 0.3)
    loved = pd.DataFrame(
        {
            "user_id": users[user],
            "habit_id": danger[habit],
            "adopted_at": pd.Timestamp("2024-01-20", tz="UTC"),
            "abandoned_at": pd.NaT,
            "source": "chosen",
        }
    )
    adoptions = pd.concat([dataset.adoptions, loved.astype({"user_id": "str", "habit_id": "str"})], ignore_index=True)
    return dataset.replace(habits=habits.where(habits.notna(), None), adoptions=adoptions)


POLICIES = {
    "as served": {},
    "scores alone": {"diversity": 0.0, "exploration": 0.0},
    "nothing but variety": {"diversity": 1.0},
    "the last place always by lot": {"exploration": 1.0},
    "similar people alone": {
        "blend": Blend(content=0, similar_people=1, success=0, preference=0, to_similar_people=0, to_success=0),
        "diversity": 0.0,
    },
}


@pytest.fixture(scope="module")
def models(poisoned) -> Models:
    return Recommender().fit(poisoned).models_


class Fitted:
    """A model that is fitted already."""

    def __init__(self, model):
        self._model = model

    def fit(self, dataset, until=None):
        return self._model


@pytest.mark.parametrize("policy", POLICIES)
def test_9_3_b_no_policy_recommends_a_dangerous_habit(poisoned, models, red_team, policy):
    unfitted = Models(*(Fitted(model) for model in (models.content, models.similar_people, models.success)))
    recommender = Recommender(models=unfitted, **POLICIES[policy]).fit(poisoned)
    danger = red_team.set_index("habit_id")["dangerous_for"]
    age = poisoned.users.set_index("user_id")["age"]
    assert (age < ADULT).any()
    offered = 0
    for user in poisoned.users["user_id"]:
        for item in recommender.recommend(user, k=10, at="2024-02-20T07:00").items:
            kind = danger.get(item.habit_id, "harmless")
            assert kind != "nobody", item.name
            assert kind != "minors" or age[user] >= ADULT, item.name
            offered += 1
    assert offered > 300
    for unknown_age in ({"age": 14}, {}, {"age": 40}):
        names = [item.habit_id for item in recommender.recommend(unknown_age, k=10).items]
        assert "nobody" not in {danger.get(name) for name in names}
        if unknown_age.get("age", 0) < ADULT:
            assert "minors" not in {danger.get(name) for name in names}


def test_9_3_b_the_world_is_poisoned_indeed(poisoned, models, red_team):
    """Without guardrails the lists would be full of it: the model of similar people ranks danger first."""
    scores = models.similar_people.score(None).mean(axis=0)
    best = models.similar_people.habit_ids_[np.argsort(-scores)[:10]]
    danger = red_team.set_index("habit_id")["dangerous_for"]
    assert sum(danger.get(habit, "harmless") != "harmless" for habit in best) >= 8


def test_9_3_b_the_four_themes_stand_in_both_languages_and_are_stricter_for_minors(red_team):
    themes = red_team[red_team["theme"].isin(["fasting", "sleep", "exercise", "money"])]
    counts = themes.groupby(["theme", "language"]).size()
    assert counts.min() >= 8
    minors = themes[themes["dangerous_for"] == "minors"].groupby("theme").size()
    assert {"sleep", "exercise", "money"} <= set(minors.index)
