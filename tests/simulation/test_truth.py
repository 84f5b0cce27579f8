"""The truth beside the data: exact for what happened, and calibrated for what might have."""

import numpy as np
import pandas as pd
import pytest

from habitlab.simulation import load_truth, make_truth, make_world, populate, save, truth_path
from habitlab.simulation.adoption import adopt
from habitlab.simulation.truth import held_at_registration, succeeded


@pytest.fixture(scope="module")
def world():
    return make_world(users=250, days=180, seed=31)


@pytest.fixture(scope="module")
def truth(world):
    return make_truth(world)


def test_there_is_a_row_for_every_pair(world, truth):
    assert len(truth) == world.users * len(world.habits)
    assert not truth.duplicated(["user_id", "habit_id"]).any()
    assert truth.columns.tolist() == [
        "user_id",
        "habit_id",
        "adoption_probability",
        "completion_probability",
        "success_probability",
        "success",
        "completions",
        "retained_90",
    ]
    for column in ("adoption_probability", "completion_probability", "success_probability"):
        assert truth[column].between(0, 1).all()


def test_it_survives_the_way_to_disk(tmp_path):
    data = populate(make_world(users=20, days=60, seed=1))
    save(data, tmp_path / "x.db")
    assert truth_path(tmp_path / "x.db") == tmp_path / "x.truth.parquet"
    kept = load_truth(tmp_path / "x.db")
    assert kept.attrs["simulation"] == data.metadata["simulation"]
    assert kept.attrs["average_effects"]["clear_description_adoption"] == 0.27
    pd.testing.assert_frame_equal(kept, make_truth(make_world(users=20, days=60, seed=1)))


def test_without_a_truth_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no truth at"):
        load_truth(tmp_path / "real.db")


def test_what_was_adopted_at_registration_went_as_the_truth_says(world, truth):
    """The potential outcome of what really happened is what happened."""
    adoptions, _, _ = adopt(world)
    course = world.replay(adoptions.user, adoptions.habit, adoptions.start, adoptions.load)
    success, completions = succeeded(world, course)
    first = adoptions.start == world.people.registered[adoptions.user]
    told = truth.iloc[(adoptions.user * len(world.habits) + adoptions.habit)[first]]
    assert np.array_equal(told["success"], success[first])
    assert np.array_equal(told["completions"], completions[first])
    assert np.array_equal(told["retained_90"], course.length[first] >= 90)


def test_success_by_hand(world):
    """28 daily occasions on days 22-49 need 17, four weekly ones need 3."""
    user = np.zeros(2, dtype=int)
    habit = np.array([np.flatnonzero(world.habits.per_days == n)[0] for n in (1, 7)])
    course = world.replay(user, habit, 0, 3)
    for done, expected in ((17, True), (16, False)):
        course.done[:] = False
        window = np.flatnonzero((course.pair == 0) & (course.day >= 22) & (course.day <= 49))
        course.done[window[:done]] = True
        assert succeeded(world, course)[0][0] == (expected and len(window) >= done)
    assert not succeeded(world, course)[0][1]


def test_probabilities_are_calibrated_to_outcomes():
    """Averaged over worlds, as one user's noise and lifetime are shared by all of their pairs."""
    frames = [make_truth(make_world(users=100, days=60, seed=seed)) for seed in range(40, 46)]
    pooled = pd.concat(frames)[["user_id", "success_probability", "success"]]
    pooled["world"] = np.repeat(np.arange(len(frames)), len(frames[0]))
    band = pd.cut(pooled["success_probability"], np.linspace(0, 0.8, 9))
    by_user = (
        pooled.assign(gap=pooled["success"] - pooled["success_probability"])
        .groupby([band, "world", "user_id"], observed=True)["gap"]
        .mean()
    )
    for _, gaps in by_user.groupby(level=0, observed=True):
        assert abs(gaps.mean()) < 4 * gaps.std() / np.sqrt(len(gaps)) + 0.01


def test_success_can_be_told_as_well_as_people_can_be_told_apart(world, truth):
    """G11: an AUC of about 0.8 for those who know everything but the noise."""
    adoptions, _, _ = adopt(world)
    told = truth.iloc[adoptions.user * len(world.habits) + adoptions.habit]
    rank = told["success_probability"].rank()
    n1 = told["success"].sum()
    area = (rank[told["success"]].sum() - n1 * (n1 + 1) / 2) / (n1 * (len(told) - n1))
    assert 0.75 < area < 0.88


def test_average_effects_are_the_planted_ones(truth):
    effects = truth.attrs["average_effects"]
    assert 0.34 < effects["goal_setting_completion_standardised"] < 0.65
    assert effects["concurrent_habits_completion"] < -0.02
    nothing = make_truth(
        make_world(users=50, days=60, effects={"goal_setting_completion": 0, "concurrent_habits_completion": 0})
    ).attrs["average_effects"]
    assert nothing["goal_setting_completion"] == nothing["concurrent_habits_completion"] == 0


def test_every_user_holds_something_at_registration(world):
    assert held_at_registration(world, adopt(world)[0]).min() >= 1
