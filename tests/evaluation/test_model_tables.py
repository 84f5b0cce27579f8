"""What report 04 shows of the models: planted structure is found, chance is not taken for it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import special

from habitlab import open_dataset
from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import model_tables
from habitlab.evaluation.estimates import Estimate
from habitlab.features.abandonment import kaplan_meier
from habitlab.features.as_of import event_days
from habitlab.features.interaction import cross_habit_influence
from habitlab.models import reliability
from habitlab.models.baselines import Popularity, Random
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import WEIGHTS, ContentModel
from habitlab.models.pairs import NAMES, LabelledPairs
from habitlab.models.success import train
from tests.features.test_abandonment import constant_hazard

DRAW = {"level": 0.95, "resamples": 200, "seed": 0}


@cache
def sample() -> Dataset:
    return open_dataset()


@cache
def history():
    return model_tables.history_until(sample(), 0.6)


# The collaborative model: who holds what


def adopted_by_lot(groups: int, users: int = 400, habits: int = 24, seed: int = 0) -> Dataset:
    """Everybody takes up four habits; with `groups` above 1 three of them from a group of habits of their own."""
    draw = np.random.default_rng(seed)
    group = np.arange(habits) % groups
    rows = []
    for person in range(users):
        own = draw.permutation(np.flatnonzero(group == draw.integers(groups)))[:3]
        other = draw.permutation(np.setdiff1d(np.arange(habits), own))[: 4 - len(own)]
        rows += [(f"u{person}", f"h{habit}") for habit in (*own, *other)]
    table = pd.DataFrame(rows, columns=["user_id", "habit_id"])
    return Dataset(
        users=pd.DataFrame({"user_id": [f"u{i}" for i in range(users)]}),
        habits=pd.DataFrame(
            {
                "habit_id": [f"h{i}" for i in range(habits)],
                "name_en": [f"habit {i}" for i in range(habits)],
                "category": np.array(["health", "diet", "learning", "physical"])[group % 4],
            }
        ),
        adoptions=table.assign(adopted_at=pd.Timestamp("2024-01-01T12:00Z")),
        metadata={"simulated": True},  # so that the catalogue is not added
    )


@pytest.mark.parametrize(("groups", "found"), [(4, 3), (3, 2), (1, 0)])
def test_as_many_factors_are_found_as_groups_of_habits_differ(groups, found):
    model = CollaborativeModel().fit(adopted_by_lot(groups))
    spectrum = model_tables.spectrum(model, seed=1)
    assert spectrum.attrs["above"] == found
    assert spectrum["share"].sum() == pytest.approx(1)
    assert (spectrum["share"].diff().dropna() <= 1e-12).all()
    assert model_tables.factors_found(spectrum, model)["estimate"] == found


def test_habits_speak_for_those_of_their_group():
    data = adopted_by_lot(4)
    table = model_tables.companions(CollaborativeModel().fit(data), data)
    assert sorted(table["category"]) == ["diet", "health", "learning", "physical"]
    for _, row in table.iterrows():
        own = int(row["habit"].split()[1]) % 4
        for named in row["speaks most for (odds ratio)"].split("; "):
            assert int(named.split()[1]) % 4 == own
            assert float(named.split("(")[1].rstrip(")")) > 1


def test_what_a_habit_does_to_the_odds_of_another():
    data = adopted_by_lot(4)
    model = CollaborativeModel().fit(data)
    row = model_tables.companions(model, data, count=1).iloc[0]
    other, told = row["speaks most for (odds ratio)"].split(";")[0].rstrip(")").split(" (")
    place = {name: number for number, name in enumerate(data.habits["name_en"])}
    with_it = np.zeros((1, len(place)))
    with_it[0, place[row["habit"]]] = 1
    odds = [
        chance[0, place[other]] / (1 - chance[0, place[other]]) for chance in map(model.fold_in, (with_it, 0 * with_it))
    ]
    assert float(told) == pytest.approx(odds[0] / odds[1], rel=0.05)


def test_popular_habits_alone_are_nothing_in_common():
    """Each habit taken up by itself, some by nearly all and some by few."""
    draw = np.random.default_rng(2)
    chance = np.repeat([0.9, 0.5, 0.05], 8)
    user, habit = np.nonzero(draw.random((400, 24)) < chance)
    table = pd.DataFrame({"user_id": [f"u{i}" for i in user], "habit_id": [f"h{i}" for i in habit]})
    data = adopted_by_lot(1).replace(adoptions=table.assign(adopted_at=pd.Timestamp("2024-01-01T12:00Z")))
    assert model_tables.spectrum(CollaborativeModel().fit(data), seed=1).attrs["above"] <= 1


def test_nobody_has_anything_in_common_where_nobody_is():
    model = CollaborativeModel().fit(Dataset(habits=pd.DataFrame({"habit_id": ["h"]})))
    with pytest.raises(MissingColumn, match="0 have any"):
        model_tables.spectrum(model)
    with pytest.raises(MissingColumn, match="somebody adopted"):
        model_tables.companions(model, Dataset(habits=pd.DataFrame({"habit_id": ["h"]})))


def test_block_weights_are_those_of_the_model():
    content = ContentModel().fit(history().train, history().until)
    table = model_tables.block_weights(content)
    assert table["learnt"].is_monotonic_decreasing
    assert table["learnt"].sum() == pytest.approx(1)
    assert dict(zip(table["block"].str.replace(" ", "_"), table["by judgement"], strict=True)) == WEIGHTS
    first = model_tables.heaviest(table, content, history())
    assert first["label"] == f"The block that weighs most is {table['block'].iloc[0]}"


# The success model: what it goes by


@cache
def planted() -> LabelledPairs:
    """Pairs of the sample, with an outcome that depends on the habit's difficulty and on nothing else."""
    pairs = model_tables.learnable(sample())
    difficulty = pairs.columns[NAMES.index("difficulty")]
    chance = special.expit(1.5 * (3 - difficulty))
    success = np.random.default_rng(5).random(len(pairs)) < chance
    columns = pairs.columns.copy()
    columns[NAMES.index("difficulty_gap")] = np.nan  # it would say the same
    return replace(pairs, columns=columns, table=pairs.table.assign(success=success))


def test_8_2_a_the_feature_that_decides_is_found_and_noise_is_not():
    table = model_tables.importance(planted(), **DRAW)
    assert table["feature"].iloc[0] in ("difficulty", "habit_success"), "the habit's record tells its difficulty, too"
    by_name = table.set_index("feature")
    assert by_name.loc["difficulty", "ci_low"] > 0
    assert by_name.loc["difficulty", "odds_ratio"] < 0.5
    noise = by_name.drop(index=["difficulty", "habit_success", "habit_completion"])
    assert (noise["ci_low"] > 0).sum() <= 3, "an interval in twenty may mislead"
    assert (noise["estimate"] < by_name.loc["difficulty", "estimate"] / 4).all()
    never_known = by_name.loc["difficulty_gap"]
    assert never_known["estimate"] == 0
    assert np.isnan(never_known["ci_low"])
    best, unused = model_tables.most_important(table, level=0.95)
    assert best.label.endswith(table["meaning"].iloc[0])
    assert unused["estimate"] == (~(table["ci_low"] > 0)).sum()


def test_importance_is_the_rise_of_the_log_loss():
    pairs = planted()
    known = pairs.user % 2 == 0
    fitted = train(pairs, known)
    table = model_tables.importance_of(fitted, pairs, ~known, repeats=1, **DRAW).set_index("feature")
    columns = pairs.columns[:, ~known].copy()
    columns[NAMES.index("habit_success")] = fitted.habit_success[pairs.table["habit"].to_numpy()[~known]]
    outcome = pairs.success[~known]

    def log_loss(columns):
        chance = fitted.probability(columns)
        return -np.mean(np.log(np.where(outcome == 1, chance, 1 - chance)))

    generator, as_is = np.random.default_rng(0), log_loss(columns)
    for number, name in enumerate(NAMES):
        shuffled = columns.copy()
        shuffled[number] = generator.permutation(columns[number])
        assert table.loc[name, "estimate"] == pytest.approx(log_loss(shuffled) - as_is, abs=1e-12), name


def test_too_few_pairs_to_learn_from():
    few = sample().replace(adoptions=sample().adoptions[:50])
    with pytest.raises(MissingColumn, match="adoptions whose outcome is known: 48 adoptions"):
        model_tables.learnable(few)
    with pytest.raises(MissingColumn, match="more people to learn from"):
        model_tables.importance(planted(), share=0.1, **DRAW)


# The success model: may it be trusted?


@cache
def evaluation() -> reliability.Evaluation:
    return model_tables.judged(sample(), level=0.95, resamples=50, seed=0)


def forecasts(exponent: float) -> reliability.Evaluation:
    """An evaluation with predictions that are right (1), too bold (above 1), or too timid (below 1)."""
    draw = np.random.default_rng(0)
    log_odds = draw.normal(0, 1, 4000)
    told = pd.DataFrame(
        {
            "user_id": draw.integers(0, 800, 4000).astype(str),
            "success": draw.random(4000) < special.expit(log_odds),
            reliability.MODEL: special.expit(exponent * log_odds),
            reliability.TRUTH: special.expit(log_odds),
        }
    )
    return replace(evaluation(), predictions=told)


def test_the_curve_of_a_calibrated_forecaster_is_the_diagonal():
    right = model_tables.reliability_curve(forecasts(1), [reliability.MODEL], **DRAW)
    inside = (right["ci_low"] <= right["predicted"]) & (right["predicted"] <= right["ci_high"])
    assert inside.sum() >= 8
    np.testing.assert_allclose(right["truth"], right["predicted"])
    bold = model_tables.reliability_curve(forecasts(3), [reliability.MODEL], **DRAW)
    assert bold["ci_high"].iloc[-1] < bold["predicted"].iloc[-1]
    assert bold["ci_low"].iloc[0] > bold["predicted"].iloc[0]


def test_the_curve_is_the_share_of_successes_in_each_tenth():
    told = evaluation().predictions
    curve = model_tables.reliability_curve(evaluation(), [reliability.MODEL, "no such model"], **DRAW)
    assert curve["model"].unique().tolist() == [reliability.MODEL]
    rank = told[reliability.MODEL].rank(method="first").to_numpy()
    for number, row in curve.iterrows():
        tenth = np.ceil(rank / len(told) * 10) == number + 1
        assert row["estimate"] == pytest.approx(told["success"][tenth].mean(), abs=0.03)
    assert curve["n"].sum() == len(told)
    assert curve["predicted"].is_monotonic_increasing


def test_models_side_by_side_are_those_of_the_evaluation():
    table = model_tables.scores_of_models(evaluation()).set_index("metric")
    metrics = evaluation().metrics.set_index(["model", "metric"])["estimate"]
    assert table.loc["AUC", reliability.MODEL] == metrics[reliability.MODEL, "auc"]
    assert table.loc["squared error to the truth", reliability.TRUTH] == 0
    assert np.isnan(table.loc["reliability slope", reliability.BASE])
    assert table.columns[-2:].tolist() == [reliability.BASE, reliability.TRUTH]


def test_findings_of_an_evaluation():
    auc, slope = model_tables.trust(evaluation())
    metrics = evaluation().metrics.set_index(["model", "metric"])
    assert (auc.estimate, auc.ci_low) == tuple(metrics.loc[(reliability.MODEL, "auc"), ["estimate", "ci_low"]])
    assert slope.n == evaluation().predictions["user_id"].nunique()
    found = {one.key: one for one in model_tables.against(evaluation(), **DRAW)}
    told = evaluation().predictions
    assert found["surplus"].estimate == pytest.approx((told["success"] - told[reliability.MODEL]).mean())
    assert found["log_loss_base_rate"].estimate < 0


def test_groups_too_small_are_not_judged():
    groups = model_tables.groups_to_judge(evaluation())
    assert (groups["n"] >= reliability.FEWEST_OF_GROUP).all()
    assert len(groups) < len(evaluation().groups)
    small = replace(evaluation(), groups=evaluation().groups.assign(slope=np.nan))
    with pytest.raises(MissingColumn, match="groups of 100"):
        model_tables.groups_to_judge(small)


# Splits and picks


def test_models_are_compared_on_what_came_later():
    values = model_tables.ndcg({"popularity": Popularity(), "random": Random(0)}, sample(), history(), 10)
    assert values.columns.to_list() == [("popularity", "ndcg@10"), ("random", "ndcg@10")]
    paired = model_tables.compared(values, ["random", "popularity"], **DRAW)
    assert paired["estimate"].iloc[0] == pytest.approx(-paired["estimate"].iloc[1])
    one = model_tables.chosen(paired, key="k", label="l", unit="", method="m", level=0.95, model="popularity")
    assert isinstance(one, Estimate)
    assert one.estimate == paired["estimate"].iloc[0]
    with pytest.raises(MissingColumn, match="no such model; there are 0 rows"):
        model_tables.chosen(paired, key="k", label="l", unit="", method="m", level=0.95, model="no such model")


def test_where_nothing_comes_before_nothing_is_left_to_predict():
    for data in (Dataset(), sample().replace(habit_tracking=sample().habit_tracking.iloc[:0])):
        split = model_tables.history_until(data, 0.6)
        assert split.until is None
        with pytest.raises(MissingColumn, match="took up another habit later: 0 did"):
            model_tables.ndcg({}, data, split)
        with pytest.raises(MissingColumn, match="goes on after"):
            model_tables.abandonment(data, split, **DRAW)
    late = model_tables.history_until(sample(), 0.98)
    with pytest.raises(MissingColumn, match="from 2024-05-26 on"):
        model_tables.ndcg({"popularity": Popularity()}, sample(), late)


# Giving up, and what one habit does to another


def test_thirds_of_risk_are_followed_by_kaplan_meier():
    table = model_tables.abandonment(sample(), history(), weeks=4, **DRAW)
    curves = table.attrs["curves"]
    day = int(history().until.to_datetime64().astype("datetime64[D]").astype(int))
    start, stop = (event_days(sample(), "adoptions", column) for column in ("adopted_at", "abandoned_at"))
    held = (start < day) & ~(stop < day)
    lasted = stop[held] - day
    everybody = np.average(curves["observed"], weights=curves["habits"])
    by_week = [kaplan_meier(np.minimum(lasted, 28), lasted < 28, [7 * week - 1])[0] for week in range(1, 5)]
    assert everybody == pytest.approx(np.mean(by_week), abs=1e-9), "nothing is censored within four weeks"
    predicted = curves[curves["week"] == 4].set_index("group")["predicted"]
    assert predicted["lowest third of risk"] > predicted["middle third"] > predicted["highest third"]
    assert table["pairs"].eq(held.sum()).all()
    auc, brier = model_tables.abandonment_found(table, level=0.95)
    assert (auc.key, brier.key) == ("hazard_auc", "hazard_brier")
    assert auc.ci_low <= auc.estimate <= auc.ci_high


def test_where_habits_are_given_up_by_lot_nobody_is_riskier():
    generator = np.random.default_rng(3)
    data = constant_hazard(0.05, 1500, generator.integers(60, 140, 1500), generator)
    days = pd.DataFrame(
        {"user_id": ["u0", "u0", "u1"], "habit_id": "h", "date": ["2024-09-01", *["2024-12-30"] * 2], "status": "done"}
    )
    split = model_tables.history_until(data.replace(habit_tracking=days), 0.6)
    table = model_tables.abandonment(data, split, weeks=4, **DRAW).set_index("name")
    assert table.loc["hazard_auc", "ci_low"] < 0.5 < table.loc["hazard_auc", "ci_high"]
    assert abs(table.loc["hazard_brier", "estimate"]) < 0.005


def test_the_riskier_habit_is_told_from_the_safer_one():
    generator = np.random.default_rng(3)
    easy, hard = (constant_hazard(weekly, 800, generator.integers(60, 140, 800), generator) for weekly in (0.02, 0.3))
    hard = hard.adoptions.assign(user_id="v" + hard.adoptions["user_id"].astype(object), habit_id="g")
    days = pd.DataFrame({"user_id": ["u0", "u0", "u1"], "habit_id": "h", "status": "done"})
    data = Dataset(
        users=pd.DataFrame({"user_id": [*easy.users["user_id"], *hard["user_id"]]}),
        habits=pd.DataFrame({"habit_id": ["h", "g"], "difficulty": [1, 5]}),
        adoptions=pd.concat([easy.adoptions, hard], ignore_index=True),
        habit_tracking=days.assign(date=["2024-09-01", *["2024-12-30"] * 2]),
    )
    table = model_tables.abandonment(data, model_tables.history_until(data, 0.6), weeks=4, **DRAW).set_index("name")
    assert table.loc["hazard_auc", "ci_low"] > 0.6
    assert table.loc["hazard_brier", "ci_high"] < 0


def test_giving_up_has_to_be_on_record():
    silent = sample().replace(adoptions=sample().adoptions.drop(columns="abandoned_at"))
    with pytest.raises(MissingColumn, match="abandoned_at"):
        model_tables.abandonment(silent, model_tables.history_until(silent, 0.6), **DRAW)


def test_influence_is_named_and_counted():
    table = model_tables.influence(sample(), level=0.95)
    plain = cross_habit_influence(sample())
    assert sorted(table["habit_id"]) == plain["habit_id"].tolist()
    assert table["exposed"].is_monotonic_decreasing
    names = sample().habits.set_index("habit_id")["name_en"]
    assert table["habit"].tolist() == names.loc[table["habit_id"]].tolist()
    wrong = sum(not low <= -0.05 <= high for low, high in zip(table["naive_low"], table["naive_high"], strict=True))
    assert model_tables.apart(table, "naive", -0.05) == wrong
    found = {one["key"] if isinstance(one, dict) else one.key: one for one in
             model_tables.influence_findings(table, -0.05, level=0.95)}  # fmt: skip
    assert found["naive_wrong"]["estimate"] == wrong
    assert found["one_habit_more"].n <= len(sample().users)
    assert len(model_tables.influence_findings(table, None, level=0.95)) == 3, "nobody knows the truth of real data"
    with pytest.raises(MissingColumn, match="held beside others"):
        model_tables.influence(Dataset(), level=0.95)
