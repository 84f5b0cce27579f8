"""3.1: people and habits in one named space, likeness block by block."""

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset
from habitlab.features.preprocessing import Preprocessor
from habitlab.models.baselines import AsWritten
from habitlab.models.content import NEUTRAL, WEIGHTS, ContentModel
from tests.models.worlds import AWKWARD, UNTIL, awkward_datasets, population

PROFILE = {
    "user_id": "new",
    "age": 30,
    "improvement_areas": ["health", "diet"],
    "time_commitment": 10.0,
    "preferred_time": "morning",
    "chronotype": "evening",
    "difficulty_preference": "beginner",
    "learning_style": "visual",
    "barriers": "I never find the time to read",
    "existing_habits": ["water"],
    "activity_preferences": ["mental"],
}
HABITS = pd.DataFrame(
    {
        "habit_id": ["water", "read", "run", "blank"],
        "name_en": ["Drink water", "Read a book", "Run in the park", None],
        "category": ["health", "learning", "physical", None],
        "minutes": [1, 10, 60, None],
        "difficulty": [1, 2, 5, None],
        "time_of_day": ["morning", "evening", "any", None],
    }
)


@pytest.fixture(scope="module")
def fixed() -> ContentModel:
    """Fitted on habits alone: nothing to learn weights from."""
    return ContentModel().fit(Dataset(habits=HABITS))


@pytest.fixture(scope="module")
def learnt() -> ContentModel:
    return ContentModel().fit(population(), UNTIL)


def profile(**changes) -> pd.DataFrame:
    return pd.DataFrame([PROFILE | changes])


def likeness(model: ContentModel, block: str, **changes) -> list[float]:
    return model.similarities(profile(**changes))[block][0].tolist()


def test_3_1_1_a_and_3_1_2_a_users_and_habits_share_one_named_space(learnt):
    users, habits = learnt.vectors(), learnt.habit_vectors()
    assert list(users.columns) == list(habits.columns) == learnt.space_
    assert list(learnt.vectors(profile()).columns) == learnt.space_
    assert len(users) == 600
    assert len(habits) == 171
    assert {name.split("=")[0] for name in learnt.space_} == set(WEIGHTS)


def test_3_1_1_a_every_answer_has_its_place(fixed):
    new = fixed.vectors(profile()).iloc[0]
    assert (new["category=health"], new["category=diet"], new["category=career"]) == (1, 1, 0)
    assert new["time=log_minutes"] == np.log1p(10)
    assert (new["time_of_day=morning"], new["time_of_day=evening"]) == (0.5, 0.5)  # the two answers, averaged
    assert new["difficulty=level"] == 1.5
    assert (new["learning_style=visual"], new["learning_style=auditory"]) == (1, 0)


def test_3_1_3_a_similarity_by_block(fixed):
    assert likeness(fixed, "category") == [1, 0, 0, NEUTRAL]
    time = likeness(fixed, "time")
    assert time[1] == 1  # ten of ten minutes
    assert time[0] < time[1] > time[2]
    assert likeness(fixed, "time", time_commitment=60.0)[2] == 1
    assert likeness(fixed, "difficulty") == pytest.approx([1 - 0.5 / 4, 1 - 0.5 / 4, 1 - 3.5 / 4, NEUTRAL])
    assert likeness(fixed, "time_of_day", chronotype=None) == [1, 0, 1, NEUTRAL]
    assert likeness(fixed, "time_of_day", preferred_time="any", chronotype=None)[:3] == [1, 1, 1]
    assert likeness(fixed, "learning_style") == [NEUTRAL] * 4


def test_3_1_3_a_words_in_common_are_more_alike(fixed):
    about_books = likeness(fixed, "text", barriers="books, a book", existing_habits=None)
    assert about_books[1] > max(about_books[0], about_books[2])


@pytest.mark.parametrize("answer", [None, np.nan])
def test_a_missing_answer_is_neutral_for_every_habit(fixed, answer):
    nothing = dict.fromkeys(PROFILE, answer) | {"user_id": "new"}
    for block, found in fixed.similarities(profile(**nothing)).items():
        assert (found == NEUTRAL).all(), block
    assert fixed.score_profiles(profile(**nothing)) == pytest.approx(NEUTRAL)
    assert fixed.score_profiles(pd.DataFrame({"user_id": ["new"]})) == pytest.approx(NEUTRAL)


def test_a_list_of_no_areas_is_an_answer(fixed):
    assert likeness(fixed, "category", improvement_areas=[]) == [0, 0, 0, NEUTRAL]


def test_3_1_3_a_the_score_is_the_exact_sum_of_the_blocks(learnt):
    ids = learnt.user_ids_[:50].tolist()
    blocks = learnt.similarities(ids)
    total = np.zeros((50, 171))
    for block, weight in learnt.weights_.items():
        total += weight * blocks[block]
    assert np.array_equal(total, learnt.score(ids))
    assert sum(learnt.weights_.values()) == pytest.approx(1)
    assert all(weight >= 0 for weight in learnt.weights_.values())
    assert all(found.min() >= 0 and found.max() <= 1 for found in blocks.values())
    assert learnt.score().min() >= 0
    assert learnt.score().max() <= 1


@pytest.mark.parametrize("learn", [True, False])
def test_3_1_3_a_the_order_of_blocks_changes_nothing(learn):
    backwards = dict(reversed(WEIGHTS.items()))
    one, other = (ContentModel(weights, learn).fit(population(), UNTIL) for weights in (WEIGHTS, backwards))
    assert one.weights_ == other.weights_
    assert np.array_equal(one.score(), other.score())


@pytest.mark.parametrize("kind", [tuple, np.array])
def test_lists_may_come_as_tuples_or_as_the_arrays_of_parquet(learnt, kind):
    """Taken for no answer, they gave other scores without a word."""
    users = population().users.head(50)
    names = ["improvement_areas", "activity_preferences", "existing_habits"]
    others = users.assign(**{c: [kind(v) if isinstance(v, list) else v for v in users[c]] for c in names})
    np.testing.assert_array_equal(learnt.score_profiles(others), learnt.score_profiles(users))
    written = AsWritten().fit(population(), UNTIL)
    np.testing.assert_array_equal(written.score_profiles(others), written.score_profiles(users))
    encoder = Preprocessor().fit(users)
    assert encoder.transform(others).equals(encoder.transform(users))


def test_a_known_user_scores_as_the_same_profile_does(learnt):
    users = population().users.iloc[10:30]
    assert np.array_equal(learnt.score(users["user_id"].tolist()), learnt.score_profiles(users))


def test_age_and_activities_and_gender_change_nothing(learnt):
    users = population().users.iloc[:20]
    other = users.assign(age=13.0, gender=None, activity_preferences=None)
    assert np.array_equal(learnt.score_profiles(users), learnt.score_profiles(other))


def test_weights_learn_what_drives_adoption_and_drop_what_does_not(learnt):
    # The world gives people what fits their areas and their minutes; when and how hard they said does not matter.
    assert learnt.weights_["category"] + learnt.weights_["time"] > 0.8
    assert min(learnt.weights_["category"], learnt.weights_["time"]) > 0.1
    assert learnt.weights_["learning_style"] == 0


def adopted_by(likely: np.ndarray) -> ContentModel:
    """Model fitted on a world in which each pair is adopted with the given chance."""
    people = population()
    user, habit = np.nonzero(np.random.default_rng(0).random(likely.shape) < likely)
    ids = people.users["user_id"].to_numpy(), people.habits["habit_id"].to_numpy()
    adoptions = pd.DataFrame({"user_id": ids[0][user], "habit_id": ids[1][habit], "adopted_at": "2024-01-25T00:00Z"})
    users = people.users.assign(existing_habits=None)
    return ContentModel().fit(Dataset(users=users, habits=people.habits, adoptions=adoptions))


def spread(model: ContentModel, blocks: dict[str, np.ndarray]) -> dict[str, float]:
    """What each block does to scores: likenesses of texts hardly differ, so weigh little whatever their weight."""
    found = {block: model.weights_[block] * blocks[block].std() for block in blocks}
    return {block: value / sum(found.values()) for block, value in found.items()}


def test_weights_find_a_planted_truth(learnt):
    """A world in which only the part of the day matters."""
    blocks = learnt.similarities()
    assert spread(adopted_by(0.15 * blocks["time_of_day"] ** 2), blocks)["time_of_day"] > 0.9


def test_weights_are_not_fooled_by_popular_habits_and_eager_users(learnt):
    """Categories matter; besides, habits that fit any hour are popular, and who likes hard ones adopts much."""
    blocks = learnt.similarities()
    any_hour = (population().habits["time_of_day"] == "any").to_numpy()
    eager = blocks["difficulty"].mean(axis=1, keepdims=True) > np.median(blocks["difficulty"].mean(axis=1))
    likely = 0.05 * (0.3 + blocks["category"]) * (1 + 3 * any_hour) * (1 + 2 * eager)
    share = spread(adopted_by(likely), blocks)
    assert share["category"] > 0.8, share


def test_learning_looks_at_nothing_from_the_day_on(learnt):
    people = population()
    early = people.adoptions["adopted_at"] < pd.Timestamp("2024-02-13", tz="UTC")
    past = people.recommendations["shown_at"] < pd.Timestamp("2024-02-13", tz="UTC")
    before = people.replace(adoptions=people.adoptions[early], recommendations=people.recommendations[past])
    assert ContentModel().fit(people, "2024-02-12").weights_ == ContentModel().fit(before, "2024-02-12").weights_
    assert ContentModel().fit(people).weights_ != learnt.weights_


@pytest.mark.parametrize("weights", [{"age": 1.0}, {"category": -1.0}, {"category": 0.0}, {"category": np.nan}])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match=r"weight|block"):
        ContentModel(weights).fit(Dataset(habits=HABITS))


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_data_still_get_scores(name):
    dataset = awkward_datasets()[name]
    model = ContentModel().fit(dataset)
    scores = model.score()
    assert scores.shape == (len(dataset.users), len(dataset.habits))
    assert np.isfinite(scores).all()
    assert model.score_profiles(profile()).shape == (1, len(dataset.habits))
    if name == "imported tracker":
        assert scores == pytest.approx(NEUTRAL)


def test_an_unknown_user_is_told_the_nearest(learnt):
    with pytest.raises(ValueError, match="nearest: u0000"):
        learnt.score(["u0000"])
