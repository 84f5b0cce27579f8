"""Requirements 1.1.1.b and 1.1.1.d: what an answer of the form, and a week of history, are worth."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from habitlab import open_dataset
from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.registration import Registration
from habitlab.evaluation import cold_start, leaderboard, metrics, splits
from habitlab.evaluation.cold_start import NONE, ONLY, WHOLE, WITHOUT
from habitlab.evaluation.splits import WHEN, Split
from habitlab.models.interactions import days_of
from habitlab.recommender.recommend import Recommender
from habitlab.simulation import make_truth, world_of

PEOPLE, HABITS, K = 150, 20, 5
AREAS = ["health", "diet", "learning", "physical"]
DRAW = {"level": 0.95, "resamples": 300, "seed": 0}


# A toy world: everybody takes up three habits of the area they named; what else they say means nothing


@cache
def toy() -> tuple[pd.DataFrame, Split, np.ndarray]:
    """Users, split, and the area of each habit."""
    draw = np.random.default_rng(0)
    area_of_habit, own = np.arange(HABITS) % len(AREAS), draw.integers(0, len(AREAS), PEOPLE)
    relevant, held = np.zeros((PEOPLE, HABITS)), np.zeros((PEOPLE, HABITS), dtype=bool)
    for person in range(PEOPLE):
        mine = draw.permutation(np.flatnonzero(area_of_habit == own[person]))
        relevant[person, mine[:3]], held[person, mine[3]] = 1, True
    ids = np.array([f"u{i}" for i in range(PEOPLE)], dtype=object)
    users = pd.DataFrame(
        {
            "user_id": ids,
            "improvement_areas": [[AREAS[area]] for area in own],
            "preferred_time": draw.choice(["morning", "evening"], PEOPLE),
            "learning_style": draw.choice(["visual", "auditory"], PEOPLE),
            "existing_habits": [[f"h{habit}" for habit in np.flatnonzero(row)] for row in held],
        }
    )
    habits = np.array([f"h{i}" for i in range(HABITS)], dtype=object)
    split = Split(Dataset(), sparse.csr_array(relevant), sparse.csr_array(held), ids, habits, None)
    return users, split, area_of_habit


def toy_score(users: pd.DataFrame) -> np.ndarray:
    """Believes in the area, is led astray by the preferred time, and ignores the learning style."""
    area_of_habit = toy()[2]
    score = np.tile(np.linspace(0.2, 0, HABITS), (len(users), 1))
    if "improvement_areas" in users:
        named = np.array([AREAS.index(areas[0]) for areas in users["improvement_areas"]])
        score += named[:, None] == area_of_habit
    if "preferred_time" in users:
        taste = np.random.default_rng(1).normal(0, 0.3, (2, HABITS))
        score += taste[(users["preferred_time"] == "morning").to_numpy(dtype=int)]
    return score


@cache
def toy_values() -> pd.DataFrame:
    users, split, area_of_habit = toy()
    named = np.array([AREAS.index(areas[0]) for areas in users["improvement_areas"]])
    chances = {"kept": (named[:, None] == area_of_habit) * 0.5 + 0.1}
    return cold_start.per_newcomer(
        toy_score, split.habit_ids, users.sample(frac=1, random_state=0), split, k=K, chances=chances
    )


def worth(answer: str, metric: str = f"ndcg@{K}", added: str = "to all others") -> pd.Series:
    table = cold_start.worth_of_answers(toy_values(), **DRAW)
    return table.set_index(["answer", "metric", "added"]).loc[(answer, metric, added)]


def test_1_1_1_b_an_answer_that_matters_is_found():
    for added in ("to all others", "to nothing"):
        assert worth("improvement_areas", added=added)["ci_low"] > 0.3
        assert worth("improvement_areas", "kept", added)["ci_low"] > 0.2
    whole = worth(WHOLE, added="to nothing")
    assert whole["ci_low"] > 0.3
    assert whole["n"] == PEOPLE


def test_1_1_1_b_an_answer_that_is_noise_is_not():
    noise = worth("preferred_time")
    assert noise["ci_low"] < noise["estimate"]
    assert noise["ci_low"] <= 0.02, "it may do harm, but no good"
    unread = worth("learning_style")
    assert unread["estimate"] == 0
    assert np.isnan(unread["ci_low"])
    assert unread["p_value"] != unread["p_value"], "nothing varies"


def test_a_habit_held_before_takes_a_place_unless_the_form_asks():
    assert worth("existing_habits")["ci_low"] > 0, "the habit held already is of their area, and never new"


def test_worth_is_the_difference_of_lists_made_by_hand():
    users, split, _ = toy()
    values = toy_values()
    relevant, held = split.relevant.toarray() > 0, split.seen.toarray()

    def mean_ndcg(asked: list[str]) -> float:
        found = []
        for person, scores in enumerate(toy_score(users[["user_id", *asked]])):
            free = [h for h in range(HABITS) if not ("existing_habits" in asked and held[person, h])]
            best = sorted(free, key=lambda h: (-scores[h], h))[:K]
            gain = sum(relevant[person, h] / np.log2(place + 2) for place, h in enumerate(best))
            found.append(gain / sum(1 / np.log2(place + 2) for place in range(3)))
        return float(np.mean(found))

    everything = ["improvement_areas", "preferred_time", "learning_style", "existing_habits"]
    variants = {WHOLE: everything, NONE: [], ONLY + "improvement_areas": ["improvement_areas"]}
    variants[WITHOUT + "improvement_areas"] = everything[1:]
    by_hand = {name: mean_ndcg(asked) for name, asked in variants.items()}
    for name, expected in by_hand.items():
        assert values[name, f"ndcg@{K}"].mean() == pytest.approx(expected), name
    assert worth("improvement_areas")["estimate"] == pytest.approx(
        by_hand[WHOLE] - by_hand[WITHOUT + "improvement_areas"]
    )
    alone = worth("improvement_areas", added="to nothing")["estimate"]
    assert alone == pytest.approx(by_hand[ONLY + "improvement_areas"] - by_hand[NONE])


def test_findings_and_tables_say_what_was_found():
    table = cold_start.worth_of_answers(toy_values(), **DRAW)
    ranked = cold_start.by_answer(table, f"ndcg@{K}")
    assert ranked["answer"].iloc[0] == "improvement areas"
    assert len(ranked) == 4
    assert cold_start.form_found(table, level=0.95).estimate == worth(WHOLE, added="to nothing")["estimate"]
    best, second, idle = cold_start.best_answers(table, level=0.95)
    assert best.label == "The answer worth most: improvement areas"
    assert second.estimate <= best.estimate
    assert (idle["estimate"], idle["n"]) == (2, 4)
    wide = cold_start.side_by_side(toy_values(), **DRAW)
    assert wide["list"].tolist() == [WHOLE, NONE]
    assert wide.columns.tolist() == ["list", f"ndcg@{K}", "kept"]
    with pytest.raises(MissingColumn, match="only simulated data know"):
        cold_start.by_answer(table, "taken up and kept")


def test_against_popularity():
    users, split, _ = toy()
    popular = lambda people: np.tile(np.linspace(1, 0, HABITS), (len(people), 1))  # noqa: E731
    values = cold_start.per_newcomer(toy_score, split.habit_ids, users, split, others={"popularity": popular})
    found = {one.key: one for one in cold_start.against_popularity(values, **DRAW)}
    assert set(found) == {"form_popularity"}, "the truth is not known here"
    difference = (values[WHOLE] - values["popularity"])["ndcg@5"]
    assert found["form_popularity"].estimate == pytest.approx(difference.mean())


def test_the_form_of_the_ablation_is_the_form_of_the_registration():
    assert set(cold_start.ANSWERS) == set(Registration.model_fields) - {"zone", "consents"}


def test_too_little_to_ask_about():
    tiny = Dataset(users=pd.DataFrame({"user_id": ["a", "b"]}), habits=pd.DataFrame({"habit_id": ["h"]}))
    with pytest.raises(MissingColumn, match="20% of 2 users are 0, at least 10"):
        cold_start.newcomers(tiny)
    many = tiny.replace(users=pd.DataFrame({"user_id": [f"u{i}" for i in range(80)]}))
    with pytest.raises(MissingColumn, match="habits that people took up"):
        cold_start.newcomers(many)
    with pytest.raises(MissingColumn, match="an answer of a registration form"):
        cold_start.answered(pd.DataFrame({"user_id": ["a"], "age": [None]}))


# The simulated world


@cache
def sample() -> Dataset:
    return open_dataset()


def test_true_chances_are_those_kept_beside_the_data():
    users = sample().users["user_id"].iloc[[3, 170, 20]].tolist()
    chances = cold_start.true_chances(sample(), users)
    truth = make_truth(world_of(sample())).set_index(["user_id", "habit_id"])
    for row, user in enumerate(users):
        of_user = truth.loc[user].loc[sample().habits["habit_id"]]
        np.testing.assert_allclose(chances["taken up"][row], of_user["adoption_probability"], atol=1e-6)
        np.testing.assert_allclose(chances["kept"][row], of_user["success_probability"], atol=1e-6)
    np.testing.assert_allclose(chances["taken up and kept"], chances["taken up"] * chances["kept"])
    assert cold_start.true_chances(sample().replace(metadata={"simulated": False}), users) == {}


def test_known_for_some_weeks_is_what_happened_in_them():
    known = cold_start.known_for(sample(), 3)
    registered = pd.Series(days_of(sample(), "users", "registered_at"), sample().users["user_id"])
    for name, when in WHEN.items():
        frame = known.table(name)
        days = frame[when] if when == "date" else pd.Series(days_of(known, name, when), frame.index)
        since = days.to_numpy().astype("datetime64[D]") - registered.loc[frame["user_id"]].to_numpy().astype(
            "datetime64[D]"
        )
        assert (since.astype(int) < 21 + (when != "date")).all(), name
    assert 0 < len(known.habit_tracking) < len(sample().habit_tracking)
    assert cold_start.known_for(sample(), 0).habit_tracking.empty
    with pytest.raises(MissingColumn, match="registered_at"):
        cold_start.known_for(sample().replace(users=sample().users[["user_id"]]), 1)


@cache
def curve() -> tuple[Recommender, Split, pd.DataFrame]:
    # Without consents and habits held before, of which the people at week 0 would be known already.
    silent = sample().replace(consents=sample().consents.iloc[:0], users=sample().users.drop(columns="existing_habits"))
    split = splits.temporal(silent, "2024-03-20")
    recommender = Recommender().fit(split.train, split.until)
    return recommender, split, cold_start.learning_curve(recommender, silent, split, weeks=(0, 2))


def ndcg_of(scores: np.ndarray, split: Split, people: pd.Index) -> np.ndarray:
    rows = pd.Index(split.user_ids).get_indexer(people)
    listed = cold_start.top_k(scores, 10, split.seen[rows])[0]
    return metrics.ndcg_at_k(listed, split.relevant[rows], 10)


def test_with_all_that_is_known_the_curve_ends_at_the_recommender_itself():
    recommender, split, values = curve()
    listed = leaderboard.recommend("own", recommender, split, 10)
    own = pd.Series(metrics.ndcg_at_k(listed, split.relevant, 10), split.user_ids).loc[values.index]
    np.testing.assert_array_equal(values["blend"].iloc[:, -1], own)
    models = recommender.models_
    for name, model in (("collaborative", models.similar_people), ("success", models.success)):
        expected = ndcg_of(model.score(values.index.tolist()), split, values.index)
        np.testing.assert_array_equal(values[name].iloc[:, -1], expected)


def test_without_a_week_known_the_curve_begins_at_the_form():
    recommender, split, values = curve()
    people = split.train.users.set_index("user_id", drop=False).loc[values.index]
    expected = ndcg_of(recommender.score_profiles(people), split, values.index)
    np.testing.assert_array_equal(values["blend"][0], expected)


def test_people_are_as_long_registered_as_they_are_known():
    recommender, split, _ = curve()
    registered = days_of(split.train, "users", "registered_at").astype(int)
    then = cold_start._as_of(recommender.models_.success, cold_start.known_for(split.train, 2), registered + 14)
    assert (then._people["days_since_registration"] == 14).all()
    assert (recommender.models_.success._people["days_since_registration"] > 14).any(), "the model itself is left alone"


def test_only_models_that_look_at_history_change():
    _, _, values = curve()
    assert values.columns.get_level_values("weeks").unique().tolist() == [0, 2, 10]
    for name in ("content", "popularity"):
        assert values[name].nunique(axis=1).eq(1).all()
    assert (values["collaborative"][0] != values["collaborative"][2]).any()
    first, last, week = cold_start.gains(values, **DRAW)
    assert first.estimate == pytest.approx((values["blend"][10] - values["blend"][0]).mean())
    assert last.estimate == pytest.approx((values["collaborative"][10] - values["collaborative"][0]).mean())
    assert week.estimate == pytest.approx((values["collaborative"][2] - values["collaborative"][0]).mean())


def test_a_curve_needs_people_who_were_there_long_enough():
    recommender, split, _ = curve()
    with pytest.raises(MissingColumn, match="registered for 20 weeks who took up another habit later: 0 are"):
        cold_start.learning_curve(recommender, sample(), split, weeks=(0, 20))
