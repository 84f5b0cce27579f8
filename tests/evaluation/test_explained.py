"""Report 07: reasons as they are read, held against the models (requirements 5.1.a, 5.1.b, 5.2.c; C-5.1; D76-D79, D83).

Every judge here is shown an explainer that lies, and has to find it out.
"""

from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import explained
from habitlab.explanations.faithfulness import exact_importances
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import ContentModel
from habitlab.models.success import SuccessModel
from habitlab.recommender.recommend import Models, Recommender
from habitlab.recommender.recommendations import Recommendations
from habitlab.simulation import simulate

DRAW: dict[str, Any] = {"level": 0.95, "resamples": 200, "seed": 0}


class Chances:
    """A success model that says something else of everybody and every habit, and takes no time to fit."""

    fallback_ = ""

    def fit(self, dataset: Dataset, until: Any = None) -> Self:
        self.user_ids_ = dataset.users["user_id"].to_numpy(dtype=object)
        self.habit_ids_ = dataset.habits["habit_id"].to_numpy(dtype=object)
        self.chances = np.random.default_rng(1).random((len(self.user_ids_), len(self.habit_ids_)))
        return self

    def score(self, user_ids: Any = None) -> np.ndarray:
        return self.chances[pd.Index(self.user_ids_).get_indexer(pd.Index(user_ids))]

    def score_profiles(self, users: pd.DataFrame) -> np.ndarray:
        return np.full((len(users), len(self.habit_ids_)), 0.3)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(users=60, days=100, seed=4)


@pytest.fixture(scope="module")
def recommender(dataset: Dataset) -> Recommender:
    return Recommender(models=Models(ContentModel(), CollaborativeModel(), Chances())).fit(dataset)


@pytest.fixture(scope="module")
def lists(recommender: Recommender) -> list[Recommendations]:
    return [recommender.recommend(user) for user in recommender.user_ids_]


@pytest.fixture(scope="module")
def parts(lists: list[Recommendations]) -> pd.DataFrame:
    return explained.parts_of(lists)


@pytest.fixture(scope="module")
def deleted(recommender: Recommender, parts: pd.DataFrame) -> pd.DataFrame:
    return explained.deletion(recommender, parts[parts["place"] > 0])


def by_key(found: list[Any]) -> dict[str, Any]:
    return {one["key"]: one["estimate"] for one in map(as_dict, found)}


def as_dict(one: Any) -> dict[str, Any]:
    return one if isinstance(one, dict) else vars(one)


# Are they true?


def test_every_part_of_every_listed_habit_has_a_row(lists: list[Recommendations], parts: pd.DataFrame) -> None:
    items = sum(len(one.items) for one in lists)
    assert len(parts) == items * 9
    assert parts.groupby(["user_id", "rank"])["place"].max().le(3).all()
    read = parts[parts["place"] > 0]
    assert (read["statement"] != "").all()
    assert not read.duplicated(["user_id", "rank", "place"]).any()


def test_5_1_a_removing_a_named_factor_lowers_the_score_by_its_stated_amount(deleted: pd.DataFrame) -> None:
    assert len(deleted) > 500
    np.testing.assert_allclose(deleted["fall"], deleted["effect"], atol=explained.STATED)
    assert by_key(explained.truth(deleted, deleted.assign(true=True), **DRAW))["stated_right"] == 1


def test_the_removal_is_that_of_a_habit_whose_model_scores_are_average(
    recommender: Recommender, parts: pd.DataFrame
) -> None:
    """The oracle: one pair, its chance set to the mean by hand, in the recommender's own score."""
    one = parts[(parts["part"] == "success") & (parts["place"] > 0)].iloc[[0]]
    user, habit = one["user_id"].item(), one["habit_id"].item()
    success = recommender.models_.success
    row, column = list(success.user_ids_).index(user), list(success.habit_ids_).index(habit)
    weight = recommender.blend.weights(recommender.people_.evidence[[row]])["success"].item()
    contributions = {name: part[0, column] for name, part in recommender.contributions([user]).items()}
    kept = 1 + contributions["age"] / (sum(contributions.values()) - contributions["age"])
    lost = weight * (success.chances[row, column] - success.chances[row].mean()) * kept
    assert explained.deletion(recommender, one)["fall"].item() == pytest.approx(lost, abs=1e-6)


def test_the_part_of_age_which_only_takes_away_is_given_back_whole(recommender: Recommender) -> None:
    users, age = recommender.user_ids_, recommender.contributions()["age"]
    row, column = np.nonzero(age < -0.01)
    assert len(row) > 10
    rows = pd.DataFrame({"user_id": users[row], "habit_id": recommender.habit_ids_[column], "part": "age"})
    found = explained.deletion(recommender, rows)
    np.testing.assert_allclose(found["fall"], age[row, column], atol=explained.STATED)


def test_an_explainer_that_states_other_amounts_is_found_out(recommender: Recommender, parts: pd.DataFrame) -> None:
    read = parts[parts["place"] > 0]
    shuffled = read.assign(effect=np.random.default_rng(0).permutation(read["effect"]))
    found = by_key(explained.truth(explained.deletion(recommender, shuffled), read.assign(true=True), **DRAW))
    assert found["stated_right"] < 0.05
    assert found["largest_error"] >= 1e5  # a tenth of the scale


def test_5_1_b_no_sentence_is_contradicted_by_the_tables(dataset: Dataset, parts: pd.DataFrame) -> None:
    told = explained.said_of_tables(parts, dataset)
    assert set(told["part"]) >= {"category", "time", "preference"}
    assert told["true"].all()


def test_a_sentence_that_the_tables_contradict_is_found_out(dataset: Dataset, parts: pd.DataFrame) -> None:
    told = explained.said_of_tables(parts, dataset)
    areas = told[told["part"] == "category"]
    other = {"match": "mismatch", "mismatch": "match"}
    lie = parts.copy()
    lie.loc[areas.index, "statement"] = areas["statement"].map(other)
    again = explained.said_of_tables(lie, dataset)
    assert not again.loc[areas.index, "true"].any()
    assert again.drop(areas.index)["true"].all()


def test_without_answers_no_sentence_speaks_of_the_tables(parts: pd.DataFrame, dataset: Dataset) -> None:
    silent = parts[parts["part"].isin(["success", "similar_people"])]
    told = explained.said_of_tables(silent, dataset)
    assert told.empty
    read = silent[silent["place"] > 0]
    found = explained.truth(read.assign(fall=read["effect"]), told, **DRAW)
    assert as_dict(found[-1])["estimate"] is None
    assert as_dict(found[-1])["reason"] == "no reason speaks of them"


@pytest.mark.parametrize(("value", "up"), [(0.0, 0.0), (3e-8, 1e-7), (1e-7, 1e-7), (0.2, 1.0)])
def test_errors_are_rounded_up_to_a_power_of_ten(value: float, up: float) -> None:
    assert explained.power_of_ten(value) == pytest.approx(up)


# Do they cover what decided?


def test_the_share_covered_is_that_of_absolute_effects() -> None:
    rows = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in range(12) for _ in range(4)],
            "part": ["success", "similar_people", "age", "text"] * 12,
            "effect": [0.3, 0.1, -0.1, 0.0] * 12,
            "place": [1, 0, 2, 0] * 12,
        }
    )
    found = by_key(explained.covered(rows, **DRAW))
    assert found["covered"] == pytest.approx(0.8)
    assert found["first_covers"] == pytest.approx(0.6)
    assert found["against"] == pytest.approx(0.5)
    assert found["beyond_constants"] == pytest.approx(0.2)


def test_an_explainer_that_names_what_counts_least_covers_little(parts: pd.DataFrame) -> None:
    size = parts["effect"].abs()
    place = size.groupby([parts["user_id"], parts["rank"]]).rank(method="first").astype(int)
    least = parts.assign(place=place.where(place <= 3, 0))
    ours, theirs = by_key(explained.covered(parts, **DRAW)), by_key(explained.covered(least, **DRAW))
    assert ours["covered"] > 0.8
    assert theirs["covered"] < 0.1


def test_newcomers_answer_only_what_is_asked(dataset: Dataset) -> None:
    more = dataset.replace(users=dataset.users.assign(age_band="18-24"))
    (record,) = explained.as_newcomers(more, dataset.users["user_id"].tolist()[:1])
    assert record.columns.tolist() == dataset.users.columns.tolist()


def test_where_nothing_stands_out_there_is_nothing_to_cover(parts: pd.DataFrame) -> None:
    nothing = parts.assign(effect=0.0, place=0)
    for judge in (explained.covered, lambda rows, **draw: explained.named(rows, rows, **draw)):
        with pytest.raises(MissingColumn, match="stand"):
            judge(nothing, **DRAW)
    with pytest.raises(MissingColumn, match="needs reasons"):
        explained.truth(nothing[:0], nothing[:0], **DRAW)


def test_how_often_a_part_is_named_for_and_against(
    recommender: Recommender, dataset: Dataset, lists: list[Recommendations], parts: pd.DataFrame
) -> None:
    people = recommender.user_ids_[:10].tolist()
    first_day = explained.parts_of([recommender.recommend(one) for one in explained.as_newcomers(dataset, people)])
    assert first_day["user_id"].unique().tolist() == people
    table = explained.named(parts, first_day, **DRAW)
    items = sum(len(one.items) for one in lists)
    read = parts[(parts["part"] == "preference") & (parts["place"] > 0)]
    for direction, counted in (("for", read[read["effect"] > 0]), ("against", read[read["effect"] < 0])):
        liked = table[(table["part"] == "preference") & (table["direction"] == direction)].iloc[0]
        assert liked["estimate"] == pytest.approx(len(counted) / items)
        assert liked["ci_low"] < liked["estimate"] < liked["ci_high"]
    assert {"text", "learning_style"}.isdisjoint(table["part"])
    found = explained.usual(parts, first_day, table, **DRAW)
    assert by_key(found)["never_named"] == 9 - table["part"].nunique()


def test_reasons_that_turn_from_answers_to_what_people_did_are_seen_to_turn(parts: pd.DataFrame) -> None:
    first_day = parts.assign(place=(parts["part"] == "category").astype(int))
    later = parts.assign(place=parts["part"].isin(["success", "similar_people"]).astype(int))
    table = explained.named(later, first_day, **DRAW)
    assert by_key(explained.usual(later, first_day, table, **DRAW))["newcomers_more"] == 1


# Against other explainers


@pytest.fixture(scope="module")
def falls(recommender: Recommender, dataset: Dataset, parts: pd.DataFrame) -> pd.DataFrame:
    return explained.falls(recommender, parts, explained.explainers(recommender, dataset, parts))


def test_c_5_1_constant_importances_move_the_score_far_less(falls: pd.DataFrame) -> None:
    found = {one["key"]: one for one in map(as_dict, explained.compared(falls, **DRAW))}
    assert found["ours_less_constants"]["ci_low"] > 0
    assert found["void_constants"]["ci_low"] > found["void_ours"]["estimate"]
    curves = explained.curves(falls, **DRAW).set_index(["explainer", "deleted"])
    assert (curves.xs(0, level="deleted")[["estimate", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert curves["estimate"][explained.OURS].is_monotonic_increasing


def test_what_is_read_moves_the_score_nearly_as_far_as_the_exact_order(
    recommender: Recommender, parts: pd.DataFrame, falls: pd.DataFrame
) -> None:
    users = parts["user_id"].unique().tolist()
    exact = explained.falls(recommender, parts, {"exact": exact_importances(recommender.contributions(users))})
    best = exact.loc[exact["deleted"] == 1, "fall"].mean()
    read = falls.loc[(falls["deleted"] == 1) & (falls["explainer"] == explained.OURS), "fall"].mean()
    assert 0.95 * best < read <= best + 1e-9


def test_an_explainer_that_is_the_control_gains_nothing_on_it(
    recommender: Recommender, dataset: Dataset, parts: pd.DataFrame
) -> None:
    stated = explained.explainers(recommender, dataset, parts)
    stated[explained.OURS] = stated[explained.CONSTANTS]
    same = explained.compared(explained.falls(recommender, parts, stated), **DRAW)
    assert by_key(same)["ours_less_constants"] == 0


def test_data_without_answers_have_no_control(recommender: Recommender, parts: pd.DataFrame, dataset: Dataset) -> None:
    bare = dataset.replace(users=dataset.users[["user_id", "age"]])
    with pytest.raises(MissingColumn, match="improvement_areas"):
        explained.explainers(recommender, bare, parts)


# Examples


def test_three_people_are_picked_by_rule(lists: list[Recommendations]) -> None:
    evidence = np.arange(len(lists))[::-1]
    picked = explained.three_people(Dataset(), lists, evidence)
    assert picked["user_id"].tolist() == [lists[59].user_id, lists[30].user_id, lists[0].user_id]
    real = Dataset(users=pd.DataFrame({"user_id": ["a", "b"]}))
    with pytest.raises(MissingColumn, match=r"single people are withheld: .* not of 2 real people"):
        explained.three_people(real, lists, evidence)
    assert explained.three_people(Dataset(), lists[:1], [3])["about"].tolist() == ["habits acted on: 3"]
    with pytest.raises(MissingColumn, match="lists"):
        explained.three_people(Dataset(), [replace(lists[0], items=())], [3])


def test_examples_stand_side_by_side_with_what_each_reason_adds(lists: list[Recommendations]) -> None:
    table = explained.side_by_side(lists, explained.three_people(Dataset(), lists, range(len(lists))))
    assert table.columns.tolist() == ["what", "English", "Русский", "points"]
    item = lists[0].items[0]
    assert table["what"][0] == f"{lists[0].user_id}, habits acted on: 0"
    assert table["points"][0] == pytest.approx(100 * item.score)
    assert table["English"][0] == item.name
    assert table["what"][1:4].tolist() == ["reason 1", "reason 2", "reason 3"]
    assert table["points"][1:4].abs().is_monotonic_decreasing


def test_objections_are_the_heaviest_and_of_different_kinds(parts: pd.DataFrame, lists: list[Recommendations]) -> None:
    picked = explained.objections(Dataset(), parts)
    assert 1 <= len(picked) <= 3
    assert not picked.duplicated("about").any()
    against = parts[(parts["place"] > 0) & (parts["effect"] < 0)]
    heaviest = against.loc[against["effect"].idxmin()]
    assert picked.iloc[0][["user_id", "rank"]].tolist() == heaviest[["user_id", "rank"]].tolist()
    assert (explained.side_by_side(lists, picked)["points"] < 0).any()
    with pytest.raises(MissingColumn, match="reason against"):
        explained.objections(Dataset(), parts[parts["effect"] >= 0])


# Probability words and the success model


def said_and_kept(bias: float) -> pd.DataFrame:
    generator = np.random.default_rng(5)
    chance = generator.uniform(0.05, 0.9, 4000)
    kept = generator.random(4000) < np.clip(chance + bias, 0, 1)
    users = generator.integers(0, 400, 4000).astype(str)
    return pd.DataFrame({"user_id": users, "chance": chance, "success": kept, "truth": np.clip(chance + bias, 0, 1)})


def test_5_2_c_words_of_a_calibrated_model_hold() -> None:
    words = explained.wording(said_and_kept(0.0), **DRAW)
    assert words["words"].tolist() == [f"about {n} in 10" for n in range(1, 10)]
    assert words["Russian"].tolist()[4] == "примерно 5 из 10"
    assert words["pairs"].sum() == 4000
    found = {one["key"]: one for one in map(as_dict, explained.believed(said_and_kept(0.0), words, **DRAW))}
    assert found["wordings_held"]["estimate"] >= 8
    assert found["kept_less_said"]["ci_low"] < 0 < found["kept_less_said"]["ci_high"]


def test_words_that_promise_too_much_are_found_out() -> None:
    boast = said_and_kept(-0.15)
    found = {one["key"]: one for one in map(as_dict, explained.believed(boast, explained.wording(boast), **DRAW))}
    assert found["wordings_held"]["estimate"] <= 1
    assert found["kept_less_said"]["ci_high"] < -0.1
    assert found["truth_less_said"]["estimate"] == pytest.approx(-0.145, abs=0.01)


def test_too_few_adoptions_are_said_to_be_too_few(tiny: Dataset) -> None:
    with pytest.raises(MissingColumn, match="at least 200 are needed"):
        explained.held_out(tiny)


class Additive(Chances):
    """A model whose SHAP values are known: the first feature counts twice as much as the second."""

    wrong = 0.0
    listed: list[str]

    def explain(self, user_id: str, habit_ids: list[str]) -> pd.DataFrame:
        size = 0.1 + np.arange(len(habit_ids)) + int(user_id[1:])
        frame = pd.DataFrame({"goal_set": 2 * size, "minutes": -size}, pd.Index(habit_ids, name="habit_id"))
        frame.attrs["base"] = -1.0
        return frame

    def log_odds(self, user_ids: list[str]) -> np.ndarray:
        found = np.zeros((1, len(self.habit_ids_)))
        place = pd.Index(self.habit_ids_).get_indexer(pd.Index(self.listed))
        found[0, place] = 0.1 + np.arange(len(place)) + int(user_ids[0][1:]) - 1.0 + self.wrong
        return found


@pytest.mark.parametrize(("wrong", "right"), [(0.0, 1.0), (0.01, 0.0)])
def test_shap_values_are_added_up_and_features_ordered_by_size(
    dataset: Dataset, lists: list[Recommendations], wrong: float, right: float
) -> None:
    model = Additive().fit(dataset)
    same = [replace(one, items=lists[0].items) for one in lists]
    model.wrong, model.listed = wrong, [item.habit_id for item in lists[0].items]
    values = explained.shap_values(cast(SuccessModel, model), same, most=20)
    assert values["user_id"].nunique() == 20
    sizes = explained.shap_sizes(values, **DRAW)
    assert sizes["feature"].tolist() == ["goal_set", "minutes"]
    assert sizes["estimate"][0] == pytest.approx(2 * sizes["estimate"][1])
    assert by_key(explained.shap_findings(values, sizes, **DRAW))["shap_right"] == right


def test_without_a_success_model_there_is_nothing_to_take_apart(lists: list[Recommendations]) -> None:
    model = Chances()
    model.fallback_ = "3 adoptions can be judged"
    with pytest.raises(MissingColumn, match="3 adoptions"):
        explained.shap_values(cast(SuccessModel, model), lists)
