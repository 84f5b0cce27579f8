"""Requirement 1.3.2.d: giving up, against Kaplan-Meier, the truth and plain definitions."""

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset
from habitlab.features.abandonment import (
    COVARIATES,
    AbandonmentHazard,
    brier_score,
    integrated_brier_score,
    kaplan_meier,
    time_dependent_auc,
)
from habitlab.features.as_of import codes, end_of, event_days
from habitlab.simulation import make_world, populate
from habitlab.simulation.people import FIRST_DAY, stays

WEEKS = 8
HORIZONS = 7.0 * np.arange(1, WEEKS + 1)


def only(dataset, users):
    """The dataset with these users alone."""
    tables = ("users", "habit_tracking", "adoptions", "sessions", "recommendations", "modifications", "feedback")
    return dataset.replace(**{t: dataset.table(t)[dataset.table(t)["user_id"].isin(users)] for t in tables})


def lasting(dataset, day, end):
    """Habits held on a day: their rows, days until given up or the end, whether given up."""
    start, stop = (event_days(dataset, "adoptions", c) for c in ("adopted_at", "abandoned_at"))
    held = (start < day) & ~(stop < day)
    return dataset.adoptions[held], np.minimum(stop, end)[held] - day, (stop < end)[held]


def test_1_3_2_d_better_than_kaplan_meier_on_later_other_users():
    """Trained on those who registered first, up to day 90; judged on what the others do after that day."""
    world = make_world(users=1600, days=150, seed=8)
    data, today = populate(world), FIRST_DAY + 90
    registered = data.users["registered_at"]
    first = registered <= registered.median()
    train, test = only(data, data.users["user_id"][first]), only(data, data.users["user_id"][~first])
    day, end = end_of(data, today), end_of(data, None)

    model = AbandonmentHazard().fit(train, today)
    predicted = model.predict_survival(test, today, WEEKS)
    habits, time, event = lasting(test, day, end)
    assert predicted.index.to_list() == list(zip(habits["user_id"], habits["habit_id"], strict=True))
    predicted = predicted.to_numpy()

    # Baseline: how long habits held eight weeks earlier have lasted since, as far as the training data know it.
    _, past, ended = lasting(train, day - 56, day)
    baseline = np.tile(kaplan_meier(past, ended, HORIZONS - 1), (len(time), 1))

    user = codes(habits["user_id"], pd.Series(world.user_ids))
    hazard = world.daily_hazard(user, codes(habits["habit_id"], data.habits["habit_id"]))
    member = (day - event_days(test, "users", "registered_at")[codes(habits["user_id"], test.users["user_id"])])[
        :, None
    ]
    true = np.exp(-hazard[:, None] * HORIZONS) * stays(member + HORIZONS, "trial") / stays(member * 1.0, "trial")

    ours, km, best = (integrated_brier_score(time, event, s, HORIZONS - 1) for s in (predicted, baseline, true))
    assert ours < km
    assert ours < best + 0.003
    assert km - ours > (km - best) / 2, "most of what can be known"
    for week in (1, 3, 7):
        auc, ceiling = (time_dependent_auc(time, event, s[:, week], HORIZONS[week] - 1) for s in (predicted, true))
        assert auc > 0.53, "people leave for reasons of their own: even the true chances reach 0.6 only"
        assert auc > ceiling - 0.04
        assert time_dependent_auc(time, event, baseline[:, week], HORIZONS[week] - 1) == 0.5
    assert predicted[:, -1].mean() == pytest.approx(kaplan_meier(time, event, [55])[0], abs=0.04)


def constant_hazard(weekly, users, follow_up, generator):
    """One habit a user, given up with a chance `weekly` each week; seen for `follow_up` (users,) days until one day."""
    last = pd.Timestamp("2024-12-31T12:00Z")
    start = last - pd.to_timedelta(follow_up, unit="D")
    life = 7 * (generator.geometric(weekly, users) - 1) + generator.integers(1, 7, users)
    stop = pd.Series(start + pd.to_timedelta(life, unit="D"))
    ids = [f"u{i}" for i in range(users)]
    return Dataset(
        users=pd.DataFrame({"user_id": ids, "registered_at": start}),
        habits=pd.DataFrame({"habit_id": ["h"]}),
        adoptions=pd.DataFrame(
            {"user_id": ids, "habit_id": "h", "adopted_at": start, "abandoned_at": stop.where(stop < last)}
        ),
    )


def test_1_3_2_d_censoring_does_not_bias_the_hazard():
    """Most habits are seen for a few weeks only; leaving out those still held would mislead."""
    generator = np.random.default_rng(0)
    data = constant_hazard(0.05, 4000, generator.integers(7, 100, 4000), generator)
    until = "2024-12-31"
    survival = AbandonmentHazard(C=0.01).fit(data, until).predict_survival(data, until, 10)
    assert survival[10].mean() == pytest.approx(0.95**10, abs=0.04)
    given_up = data.adoptions["abandoned_at"].notna()
    assert 0.25 < given_up.mean() < 0.6
    weeks = (data.adoptions["abandoned_at"] - data.adoptions["adopted_at"]).dt.days[given_up] // 7
    assert (weeks >= 10).mean() < 0.95**10 - 0.2, "without the censored"


@pytest.mark.parametrize("longest", [22, 50])
def test_1_3_2_d_a_week_not_over_by_the_end_does_not_count(longest):
    """Of the last week of young habits only those given up are known: taking them in found 12.5 % a week for 10 %."""
    generator = np.random.default_rng(0)
    data = constant_hazard(0.1, 8000, generator.integers(1, longest, 8000), generator)
    model = AbandonmentHazard().fit(data, "2024-12-31")
    error = np.sqrt(0.1 * 0.9 / model.weeks_at_risk_)
    assert model.events_ / model.weeks_at_risk_ == pytest.approx(0.1, abs=3.29 * error)


def test_person_weeks_of_a_life_that_is_known():
    """Adopted on 1 January; given up on the 18th, in the third week, which is over on the 22nd."""
    data = Dataset(
        users=pd.DataFrame({"user_id": ["a", "b"]}),
        habits=pd.DataFrame({"habit_id": ["h"]}),
        adoptions=pd.DataFrame(
            {
                "user_id": ["a", "b"],
                "habit_id": "h",
                "adopted_at": pd.to_datetime(["2024-01-01T12:00Z", "2024-01-01T12:00Z"]),
                "abandoned_at": pd.to_datetime(["2024-01-18T12:00Z", None]),
            }
        ),
    )
    model = AbandonmentHazard().fit(data, "2024-01-22")
    assert (model.weeks_at_risk_, model.events_) == (3 + 3, 1)
    with pytest.raises(ValueError, match="of 4 weeks before the end of the data, 0 saw"):
        AbandonmentHazard().fit(data, "2024-01-21")
    survival = model.predict_survival(data, "2024-01-19", 3)
    assert survival.index.to_list() == [("b", "h")]
    assert (survival.diff(axis=1).iloc[:, 1:] < 0).all(axis=None)
    assert survival.to_numpy().tolist() == model.predict_survival(data, "2024-01-19", 5)[[1, 2, 3]].to_numpy().tolist()
    assert model.coefficients_.shape == (len(COVARIATES),)
    with pytest.raises(ValueError, match="weeks is 1 or more"):
        model.predict_survival(data, weeks=0)


def test_no_adoptions_cannot_be_fitted():
    with pytest.raises(ValueError, match="of 0 weeks"):
        AbandonmentHazard().fit(Dataset())


def test_kaplan_meier_by_hand():
    survival = kaplan_meier([1, 2, 2, 3, 5, 5], [1, 1, 0, 1, 0, 1], [0.5, 1, 2, 3, 4.9, 5, 9])
    expected = [
        1,
        5 / 6,
        5 / 6 * 4 / 5,
        5 / 6 * 4 / 5 * 2 / 3,
        5 / 6 * 4 / 5 * 2 / 3,
        5 / 6 * 4 / 5 / 3,
        5 / 6 * 4 / 5 / 3,
    ]
    np.testing.assert_allclose(survival, expected)


def test_brier_score_by_hand_where_some_end_and_some_are_censored_on_the_same_day():
    """Days 1, 1, 2, 2, 3; ended, censored, censored, ended, ended: at 1 one of 4 is censored, at 2 one of 2."""
    time, event, survival = [1, 1, 2, 2, 3], [1, 0, 0, 1, 1], np.full(5, 0.6)
    expected = (0.6**2 / 1 + 0.6**2 / (3 / 4) + 0.4**2 / (3 / 4 * 1 / 2)) / 5
    assert brier_score(time, event, survival, 2) == pytest.approx(expected)


def test_scores_without_censoring_are_the_plain_ones():
    from sklearn.metrics import brier_score_loss, roc_auc_score

    generator = np.random.default_rng(0)
    time, survival, event = generator.exponential(10, 500), np.round(generator.random(500), 2), np.ones(500)
    for horizon in (3, 10):
        lasts = time > horizon
        assert time_dependent_auc(time, event, survival, horizon) == pytest.approx(roc_auc_score(lasts, survival))
        assert brier_score(time, event, survival, horizon) == pytest.approx(brier_score_loss(lasts, survival))
    assert np.isnan(time_dependent_auc(time, event, survival, 1e9))


def test_scores_under_censoring_are_near_those_without():
    """The same lives, seen whole and seen until a day drawn by lot."""
    generator = np.random.default_rng(1)
    rate = generator.gamma(2, 0.05, 20000)
    life, seen = generator.exponential(1 / rate), generator.exponential(15, 20000)
    time, event, horizon = np.minimum(life, seen), life <= seen, 10
    survival = np.exp(-rate * horizon)
    assert event.mean() < 0.7
    for score in (time_dependent_auc, brier_score):
        whole = score(life, np.ones(20000), survival, horizon)
        assert score(time, event, survival, horizon) == pytest.approx(whole, abs=0.01)
    naive = brier_score(time, np.ones(20000), survival, horizon)
    assert abs(naive - whole) > 0.02, "taking the censored for given up misleads"


def test_a_fitted_hazard_is_plain_state():
    world = make_world(users=60, days=60, seed=1)
    model = AbandonmentHazard().fit(populate(world))
    kinds = {type(value) for value in vars(model).values()}
    assert kinds <= {float, int, np.ndarray}
