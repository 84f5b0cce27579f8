"""From a dataset to a list: the whole recommender."""

import html
import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

import habitlab
from habitlab.dataset import Dataset
from habitlab.dataset.registration import Registration
from habitlab.features.days import local_date
from habitlab.recommender import context
from habitlab.recommender.recommend import Models, Recommender
from habitlab.recommender.recommendations import Item, Note, Recommendations
from habitlab.simulation import world_of
from habitlab.simulation.world import BY_WEEKDAY
from tests.recommender.makers import Told, habits, recommender

MORNING = "2024-05-06T08:00"


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return habitlab.open_dataset()


@pytest.fixture(scope="module")
def fitted(sample) -> Recommender:
    return Recommender().fit(sample)


@pytest.fixture(scope="module")
def lists(fitted) -> list[Recommendations]:
    return [fitted.recommend(str(user), at=MORNING) for user in fitted.user_ids_]


def test_4_1_e_contributions_of_every_item_add_up_to_its_score(lists):
    for one in lists:
        for item in one.items:
            assert sum(item.contributions.values()) == pytest.approx(item.score, abs=1e-9)
            assert 0 <= item.score <= 1


def test_4_1_a_scores_are_the_sums_of_contributions(fitted):
    users = fitted.user_ids_[:50].tolist()
    score = fitted.score(users)
    np.testing.assert_allclose(sum(fitted.contributions(users).values()), score, atol=1e-9)
    assert score.min() >= 0
    assert score.max() <= 1
    np.testing.assert_array_equal(fitted.score()[:50], score)


def test_4_2_c_the_first_five_hold_three_categories(sample, lists):
    category = sample.habits.set_index("habit_id")["category"].astype(str)
    for one in lists:
        assert len({category[item.habit_id] for item in one.items}) >= min(3, len(one.items))


def test_4_3_a_no_list_repeats_or_breaks_what_is_known_of_its_user(sample, lists):
    table = sample.habits.set_index("habit_id")
    users = sample.users.set_index("user_id")
    held = sample.adoptions[sample.adoptions["abandoned_at"].isna()].groupby("user_id")["habit_id"].agg(set)
    for one in lists:
        had = held.get(one.user_id, set()) | set(users.loc[one.user_id, "existing_habits"] or [])
        ids = [item.habit_id for item in one.items]
        assert len(set(ids)) == len(ids)
        assert not had & set(ids)
        assert all(set(table.loc[habit, "prerequisites"]) <= had for habit in ids)
        budget = users.loc[one.user_id, "time_commitment"]
        assert not (table.loc[ids, "minutes"] > budget).any()


def test_4_1_d_nobody_gets_a_habit_outside_its_hard_age_limits(sample, lists):
    table = sample.habits.set_index("habit_id")
    age = sample.users.set_index("user_id")["age"]
    for one in lists:
        offered = table.loc[[item.habit_id for item in one.items]]
        if np.isnan(age[one.user_id]):
            assert (offered["min_age"] <= 13).all()
        else:
            assert (offered["min_age"] <= age[one.user_id]).all()
            assert (offered["max_age"] + context.SOFT_YEARS > age[one.user_id]).all()


def test_4_3_b_in_the_evening_no_morning_habit_is_shown_unless_for_tomorrow(sample, fitted):
    part = sample.habits.set_index("habit_id")["time_of_day"].astype(str)
    planned = 0
    for user in fitted.user_ids_[:60]:
        now = fitted.recommend(user, at="2024-05-06T21:00")
        assert not {part[item.habit_id] for item in now.items} & {"morning", "afternoon"}
        assert now.filtered["time_of_day"] > 0
        for item in fitted.recommend(user, at="2024-05-06T21:00", tomorrow=True).items:
            if item.part_of_day in ("morning", "afternoon"):
                planned += 1
                assert item.starts > datetime(2024, 5, 6).date()
    assert planned


def test_4_3_c_the_proposed_weekday_is_truly_a_good_one_more_often_than_by_lot(sample, lists):
    world = world_of(sample)
    truth = world.people.weekday + BY_WEEKDAY
    good = truth > truth.mean(axis=1, keepdims=True)
    hits = [good[user, item.weekday] for user, one in enumerate(lists) for item in one.items[:1]]
    chance = good.mean()
    error = np.sqrt(chance * (1 - chance) / len(hits))
    assert np.mean(hits) > chance + 3 * error


def test_4_3_d_what_was_rejected_lately_does_not_come_back(sample):
    shown = sample.recommendations
    rejected = shown[shown["response"] == "rejected"]
    last = rejected.sort_values("responded_at").groupby("user_id").tail(1)
    zones = last["user_id"].map(sample.users.set_index("user_id")["zone"])
    days = local_date(last["responded_at"], zones.set_axis(last.index))
    fitted = Recommender(diversity=0).fit(sample)
    for user, habit, day in list(zip(last["user_id"], last["habit_id"], days, strict=True))[:20]:
        soon = (day + pd.Timedelta(days=5)).to_pydatetime()
        found = fitted.recommend(user, k=200, at=soon)
        assert habit not in [item.habit_id for item in found.items]


def test_leak_nothing_from_the_day_on_is_known(sample):
    """Everything after the day is turned upside down, and nothing of the fit changes."""
    until = "2024-04-01"
    day = pd.Timestamp(until, tz="UTC") + pd.Timedelta(days=2)
    tracking = sample.habit_tracking
    later = tracking["date"] >= pd.Timestamp(until)
    other = sample.replace(
        habit_tracking=tracking.assign(
            status=tracking["status"].astype(object).where(~later, "missed").astype(tracking["status"].dtype)
        ),
        adoptions=sample.adoptions[sample.adoptions["adopted_at"] < day].assign(
            abandoned_at=lambda frame: frame["abandoned_at"].where(frame["abandoned_at"] < day)
        ),
        recommendations=sample.recommendations[sample.recommendations["shown_at"] < day],
    )
    one, two = Recommender().fit(sample, until), Recommender().fit(other, until)
    assert one.version_ == two.version_
    np.testing.assert_array_equal(one.score(), two.score())


def test_the_same_data_give_the_same_version_and_lists(sample, fitted, lists):
    again = Recommender().fit(habitlab.open_dataset())
    assert again.version_ == fitted.version_
    assert [again.recommend(one.user_id, at=MORNING) for one in lists[:20]] == lists[:20]
    assert Recommender(diversity=0.5).fit(sample).version_ != fitted.version_


def test_1_1_1_c_changing_only_age_changes_only_the_part_age(fitted):
    answers = {"improvement_areas": ["physical"], "time_commitment": 30, "existing_habits": ["h049"]}
    young, old = (fitted.recommend(answers | {"age": age}, k=200) for age in (30, 63))
    of_old = {item.habit_id: item.contributions for item in old.items}
    moved = 0
    for item in young.items:
        if item.habit_id in of_old:
            mine, theirs = item.contributions, of_old[item.habit_id]
            assert {name for name in mine if mine[name] != theirs[name]} <= {"age"}
            moved += mine["age"] != theirs["age"]
    assert moved  # jumping rope suits 63 less


def test_stored_and_read_it_answers_the_same(fitted, lists, tmp_path):
    fitted.save(tmp_path / "one.model")
    read = Recommender.load(tmp_path / "one.model")
    assert read.version_ == fitted.version_
    assert read.recommend(lists[0].user_id, at=MORNING) == lists[0]
    new = {"age": 33, "improvement_areas": ["learning"]}
    assert read.recommend(new) == fitted.recommend(new)


def test_the_body_of_the_json_is_the_contract(lists):
    body = json.loads(json.dumps(lists[0].to_json()))
    assert list(body) == ["user_id", "items", "filtered", "model_version"]
    assert list(body["items"][0]) == [
        "rank",
        "habit_id",
        "name",
        "score",
        "success_probability",
        "contributions",
        "reasons",
    ]
    assert [item["rank"] for item in body["items"]] == [1, 2, 3, 4, 5]


def test_success_probability_is_that_of_the_success_model_within_its_interval(fitted, lists):
    one = lists[3]
    row = fitted.models_.success.score([one.user_id])[0]
    place = {habit: number for number, habit in enumerate(fitted.habit_ids_)}
    for item in one.items:
        assert item.success_probability == pytest.approx(row[place[item.habit_id]], abs=1e-6)
        low, high = item.success_interval
        assert low <= item.success_probability <= high


def test_a_notebook_shows_names_as_text():
    item = Item(1, "h", "<b>Walk</b>", 0.5, 0.25, {"time": 0.6, "age": -0.1}, ["a < b"])
    shown = Recommendations("ann", (item,), {}, "v", ("only 1 & no more",))._repr_html_()
    assert html.escape("<b>Walk</b>") in shown
    assert "<b>" not in shown
    assert "a &lt; b" in shown
    assert "25%" in shown
    assert "1 &amp; no more" in shown


# --- bad input of the issue ------------------------------------------------------------------------------------------


def test_bad_an_unknown_user_is_told_the_nearest(fitted):
    with pytest.raises(ValueError, match=r"no user 'u000001'.*nearest: u0000"):
        fitted.recommend("u000001")
    with pytest.raises(ValueError, match="nearest"):
        fitted.score(["u0000001", "u99"])
    with pytest.raises(ValueError, match="a list of user ids"):
        fitted.score("u0000001")


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "5"])
def test_bad_k_below_1_is_refused(fitted, k):
    with pytest.raises(ValueError, match="1 or more"):
        fitted.recommend("u0000001", k=k)


def test_bad_k_above_the_catalogue_gives_what_there_is_and_says_why(fitted):
    found = fitted.recommend("u0000001", k=1000, at=MORNING)
    assert len(found.items) + sum(found.filtered.values()) == len(fitted.habit_ids_)
    assert found.notes == (Note("few", {"k": 1000, "found": len(found.items), "habits": 171}),)


def test_bad_everything_held():
    users = pd.DataFrame({"user_id": ["ann"], "age": [40], "existing_habits": [["h1", "h2", "Habit number 3"]]})
    found = recommender(habits(3), users).recommend("ann")
    assert found.items == ()
    assert found.filtered == {"held": 3}
    assert found.notes[-1] == Note("emptied", {"habits": 3, "last": "held"})


def test_bad_everything_filtered_out_says_which_filter_emptied_it():
    users = pd.DataFrame({"user_id": ["ann"], "age": [40], "time_commitment": [5], "existing_habits": [["h1"]]})
    found = recommender(habits(3), users).recommend("ann")
    assert found.filtered == {"held": 1, "time_budget": 2}
    assert found.notes[-1] == Note("emptied", {"habits": 3, "last": "time_budget"})


def test_bad_a_catalogue_of_one_habit():
    found = recommender(habits(1)).recommend("ann")
    assert [item.habit_id for item in found.items] == ["h1"]
    assert found.notes[-1] == Note("few", {"k": 5, "found": 1, "habits": 1})


def test_bad_where_all_habits_score_alike_the_list_says_so_and_keeps_its_order():
    tied = recommender(habits(6), scores=np.full(6, 0.3), exploration=0)
    found = tied.recommend("ann")
    assert Note("tied", {"habits": 6}) in found.notes
    assert [item.habit_id for item in found.items][:2] == ["h1", "h2"]
    assert tied.recommend("ann") == found
    assert "tied" not in {note.key for note in recommender(habits(6)).recommend("ann").notes}


def test_bad_no_habits():
    with pytest.raises(ValueError, match="there are no habits"):
        recommender(habits(0))


def test_bad_a_person_who_says_nothing(fitted):
    found = fitted.recommend({})
    assert len(found.items) == 5
    assert found.user_id == "new"
    assert found.notes == (Note("impersonal"), Note("ageless"))
    assert all(item.contributions["preference"] == 0 == item.contributions["age"] for item in found.items)


def test_bad_no_age_is_neutral_in_the_score_and_strict_in_the_filter(fitted):
    without, minor = fitted.recommend({}, k=200), fitted.recommend({"age": 13}, k=200)
    assert {item.habit_id for item in without.items} <= {item.habit_id for item in minor.items}
    assert without.filtered["age"] == minor.filtered["age"] > 0


@pytest.mark.parametrize(("band", "left"), [(">=30", 2), ("30-39", 2), ("17", 1), ("16-19", 1), ("<30", 1), (None, 1)])
def test_4_1_d_of_an_age_band_the_lower_end_counts(band, left):
    """Sources that tell no years: who is surely an adult is none of the minors; who may be 17 is one."""
    users = pd.DataFrame({"user_id": ["ann"], "age_band": [band]})
    found = recommender(habits(2, min_age=[13, 18]), users).recommend("ann")
    assert len(found.items) == left


def test_1_1_1_a_consent_in_a_record_reaches_the_comparison_with_similar_people():
    class Neighbourly(Told):
        def score_profiles(self, users, consent=None):
            return self.score(users) * (0.5 if consent is not None and consent.all() else 0.25)

    told = Models(Told([0.9, 0.8]), Neighbourly([0.9, 0.8]), Told([0.9, 0.8]))
    dataset = Dataset(users=pd.DataFrame({"user_id": ["ann"]}), habits=habits(2), metadata={"simulated": True})
    fitted = Recommender(models=told).fit(dataset)

    def part(answers):
        return fitted.recommend(answers).items[0].contributions["similar_people"]

    allowed, refused = ({"age": 33, "consents": {"similar users": yes}} for yes in (True, False))
    assert part(Registration.of(allowed)) == part(allowed) == 2 * part({"age": 33})
    assert part(Registration.of(refused)) == part(refused) == part({"age": 33})
    assert not fitted.recommend(allowed).compared  # nobody in these data consents: there is nobody to compare with


def test_who_is_compared_with_people_like_them_is_known(fitted):
    assert fitted.recommend({"consents": {"similar users": True}}).compared
    assert not fitted.recommend({"consents": {"similar users": False}}).compared
    assert not fitted.recommend({"age": 33}).compared


def test_bad_answers_are_refused_by_the_contract(fitted):
    with pytest.raises(ValueError, match="one-row DataFrame"):
        fitted.recommend(pd.DataFrame({"age": [20, 30]}))
    with pytest.raises(ValueError, match="consents are told by purpose"):
        fitted.recommend({"consents": "all"})
    with pytest.raises(ValueError, match="did you mean 'age'"):
        fitted.recommend({"agee": 20})
    with pytest.raises(ValueError, match=r"users.age: not between 13 and 120"):
        fitted.recommend({"age": 7})
    with pytest.raises(ValueError, match=r"users.improvement_areas: not a list of"):
        fitted.recommend({"improvement_areas": "health"})


@pytest.mark.parametrize("at", ["yesterday", "2026-01-05T07:30Z", "2026-01-05T07:30+03:00"])
def test_bad_moments_are_refused(fitted, at):
    with pytest.raises(ValueError, match="2026-01-05T07:30"):
        fitted.recommend("u0000001", at=at)


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="diversity"):
        Recommender(diversity=2)
    with pytest.raises(ValueError, match="exploration"):
        Recommender(exploration=-1)


def test_more_users_than_are_kept_give_the_same(sample, fitted, monkeypatch):
    monkeypatch.setattr("habitlab.recommender.recommend.MOST_KEPT", 0)
    asking = Recommender().fit(sample)
    np.testing.assert_allclose(asking.score(["u0000007"]), fitted.score(["u0000007"]), atol=1e-6)
    assert len(asking.recommend("u0000007").items) == 5


def test_every_reason_of_the_filters_is_one_that_is_documented(lists):
    assert {reason for one in lists for reason in one.filtered} <= set(context.REASONS)


def test_1_1_1_e_the_difficulty_somebody_asks_for_is_collected_and_used(sample, fitted):
    wishes = pd.DataFrame({"user_id": ["a", "b"], "difficulty_preference": ["beginner", "advanced"]})
    easy, hard = fitted.score_profiles(wishes)
    assert "difficulty_preference" in Registration.model_fields
    # Which way is learnt: in the simulated world able people, who ask for more, begin with easy habits.
    assert np.abs(hard - easy).max() > 0.005
