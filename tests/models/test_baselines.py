"""What every model has to beat: popularity, chance, and the overview's rule as it is written (section 4.1)."""

import json

import numpy as np
import pandas as pd
import pytest

from habitlab.models.baselines import AsWritten, Popularity, Random, _age_fit, _alignment
from habitlab.models.interactions import Interactions
from tests.models.worlds import AWKWARD, UNTIL, awkward_datasets, population


@pytest.fixture(scope="module")
def as_written() -> AsWritten:
    return AsWritten().fit(population(), UNTIL)


def overview_age_fit(age, habit):
    """The overview's own function."""
    if habit["min_age"] <= age <= habit["max_age"]:
        return 1.0
    elif age < habit["min_age"]:
        return max(0.1, 1.0 - (habit["min_age"] - age) * 0.1)
    else:
        return max(0.1, 1.0 - (age - habit["max_age"]) * 0.05)


def overview_alignment(preferences, activity_type):
    """The overview's own function."""
    chosen = json.loads(preferences) if isinstance(preferences, str) else preferences
    if activity_type in chosen:
        return 1.2
    elif len(set(activity_type.split(",")) & set(chosen)) > 0:
        return 1.1
    else:
        return 0.9


@pytest.mark.parametrize("age", [13, 17, 18, 25, 64, 65, 66, 90, np.nan])
def test_the_age_fit_is_the_overviews(age):
    habits = pd.DataFrame({"min_age": [13.0, 18.0, 40.0], "max_age": [120.0, 65.0, 50.0]})
    found = _age_fit(pd.DataFrame({"age": [age]}), habits)[0]
    assert found.tolist() == pytest.approx([overview_age_fit(age, habit) for _, habit in habits.iterrows()])


@pytest.mark.parametrize("liked", [[], ["physical"], ["mental", "social"], ["creative"]])
def test_the_preference_alignment_is_the_overviews(liked):
    kinds = [["physical"], ["mental", "social"], ["physical", "mental"], ["emotional"]]
    users, habits = pd.DataFrame({"activity_preferences": [liked]}), pd.DataFrame({"activity_type": kinds})
    expected = [overview_alignment(json.dumps(liked), ",".join(kind)) for kind in kinds]
    assert _alignment(users, habits)[0].tolist() == expected


def test_the_rule_jumps_at_5_and_20_events(as_written):
    user = as_written.profiles_.iloc[[0]]
    collaborative = np.full((1, 171), 2.0)
    parts = as_written._content(user), collaborative, as_written._success(user)
    scale = _age_fit(user, as_written.habits_) * _alignment(user, as_written.habits_)
    for count, weights in ((4, (0.7, 0.0, 0.3)), (5, (0.5, 0.3, 0.2)), (19, (0.5, 0.3, 0.2)), (20, (0.3, 0.5, 0.2))):
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True)) * scale
        assert as_written._rule(user, collaborative, np.array([count])) == pytest.approx(expected)


def test_the_score_is_the_rule_over_its_highest_multiplier_and_ranks_alike(as_written):
    raw, score = as_written.raw(), as_written.score()
    assert ((score >= 0) & (score <= 1)).all()
    inside = (raw > 0) & (raw < 1.2)
    assert score[inside] == pytest.approx(raw[inside] / 1.2)
    assert raw.min() < 0, "a factorised score has no lower bound (D53), kept as it is"


def test_a_missing_age_cuts_every_habit_to_a_tenth(as_written):
    user = population().users.iloc[[0]].assign(age=40.0)
    whole, cut = (as_written.score_profiles(users) for users in (user, user.assign(age=np.nan)))
    fits = _age_fit(user, as_written.habits_)[0] == 1
    assert cut[0, fits].max() < 0.15 * whole[0, fits].max()


def test_popularity_is_the_share_of_adopters():
    model = Popularity().fit(population(), UNTIL)
    adopters = np.asarray((Interactions.read(population(), UNTIL).adopted_day > 0).sum(axis=0)).ravel()
    assert model.score(["u0000003"])[0] == pytest.approx(adopters / adopters.max())
    assert np.array_equal(model.score_profiles(population().users.iloc[:2])[1], model.popularity_)
    assert Popularity().fit(population()).popularity_.tolist() != model.popularity_.tolist()


def test_random_scores_stay_the_same_in_any_order_and_block():
    model = Random(seed=1).fit(population())
    everyone = model.score()
    assert np.array_equal(model.score(["u0000005", "u0000002"]), everyone[[4, 1]])
    assert not np.array_equal(Random(seed=2).fit(population()).score(), everyone)
    assert everyone.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("model", [Popularity, Random, AsWritten])
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_data_still_get_scores(name, model):
    dataset = awkward_datasets()[name]
    fitted = model().fit(dataset)
    scores = fitted.score()
    assert scores.shape == (len(dataset.users), len(dataset.habits))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert fitted.score_profiles(pd.DataFrame({"user_id": ["new"]})).shape == (1, len(dataset.habits))
    with pytest.raises(ValueError, match="no user 'somebody'"):
        fitted.score(["somebody"])
