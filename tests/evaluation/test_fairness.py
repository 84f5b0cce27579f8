"""9.1 Fairness: groups with intervals, disparities beyond chance, what small groups are owed, calibration, exposure."""

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, count
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special, stats
from statsmodels.api import Logit

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.derived import AGE_BANDS, age_band
from habitlab.evaluation import leaderboard, metrics, splits
from habitlab.evaluation.fairness import audit, disparity, people
from habitlab.evaluation.fairness.fairness_of_models import (
    HEAD,
    MIDDLE,
    TAIL,
    calibration,
    item_exposure,
    popularity_band,
    user_exposure,
)
from habitlab.models.baselines import Popularity
from habitlab.simulation import simulate

EQUAL = [0.5] * 6
ONE_WORSE = [*[0.5] * 5, 0.3]


def table(chances: Any, n: int, seed: int) -> pd.DataFrame:
    """`n` users a group, each with an outcome of 0 or 1."""
    chance = np.repeat(chances, n)
    group = np.repeat([f"group {i}" for i in range(len(chances))], n)
    return pd.DataFrame({"group": group, "served": np.random.default_rng(seed).random(len(chance)) < chance})


def of_many(chances: Any, n: int, seeds: int, permutations: int = 199) -> pd.DataFrame:
    """Disparity in each of many tables, as an audit has it (a test says so), without intervals that nobody reads."""
    tables = (table(chances, n, seed) for seed in range(seeds))
    found = [
        disparity(each["served"], each["group"], permutations=permutations, seed=seed)
        for seed, each in enumerate(tables)
    ]
    return pd.DataFrame(found, columns=["raw", "noise_corrected", "p_value"])


def at_most(share: float, trials: int) -> int:
    """Largest count that a chance of `share` gives, to 99.9 %."""
    return int(stats.binom.ppf(0.999, trials, share))


def at_least(share: float, trials: int) -> int:
    return int(stats.binom.ppf(0.001, trials, share))


# 9.1.a Metrics by group and intersection, with interval and minimum n


def test_9_1_a_groups_and_intersections_are_those_of_fairlearn() -> None:
    draw = np.random.default_rng(0)
    data = pd.DataFrame({"gender": draw.choice(["female", "male"], 800), "age": draw.choice(["old", "young"], 800)})
    data["ndcg"] = draw.random(800)
    found = audit(data, outcome="ndcg", groups=["gender", "age", ("gender", "age")])
    assert list(found.groups) == ["dimension", "group", "n", "estimate", "ci_low", "ci_high", "suppressed"]
    assert list(found.disparity) == ["dimension", "raw", "noise_corrected", "p_value"]
    for name, columns in (("gender", ["gender"]), ("gender x age", ["gender", "age"])):
        frame = MetricFrame(
            metrics={"n": count, "estimate": lambda y, _: np.mean(y)},
            y_true=data["ndcg"],
            y_pred=data["ndcg"],
            sensitive_features=data[columns],
        )
        mine = found.groups[found.groups["dimension"] == name]
        assert np.allclose(mine[["n", "estimate"]].to_numpy(float), frame.by_group.to_numpy(float))
        raw = found.disparity.set_index("dimension").loc[name, "raw"]
        assert raw == pytest.approx(frame.difference()["estimate"])
    assert found.groups["group"].tolist()[4:] == ["female x old", "female x young", "male x old", "male x young"]


@pytest.mark.parametrize("kind", ["binary", "skewed", "skewed and many"])
def test_9_1_a_the_interval_holds_the_truth_as_often_as_it_says(kind: str) -> None:
    held = 0
    trials, n = 200, 600 if kind == "skewed and many" else 60
    for seed in range(trials):
        draw = np.random.default_rng(seed)
        value, truth = (draw.random(n) < 0.1, 0.1) if kind == "binary" else (draw.exponential(1, n), 1.0)
        data = pd.DataFrame({"value": value, "group": "all"})
        row = audit(data, outcome="value", groups=["group"], permutations=1, seed=seed).groups.iloc[0]
        held += row["ci_low"] <= truth <= row["ci_high"]
    assert at_least(0.95, trials) <= held


def test_9_1_a_a_user_counts_once_however_many_rows() -> None:
    draw = np.random.default_rng(1)
    rows = pd.DataFrame({"user_id": draw.choice([f"u{i}" for i in range(90)], 2000)})
    rows["gender"] = np.where(rows["user_id"].str[-1].isin(list("01234")), "female", "male")
    rows["done"] = draw.random(2000).round(1)
    rows.loc[rows["user_id"].isin(["u3", "u4"]) | (draw.random(2000) < 0.1), "done"] = np.nan
    once = rows.groupby(["user_id", "gender"], as_index=False)["done"].mean()
    many, single = (audit(data, outcome="done", groups=["gender"]) for data in (rows, once))
    assert many.groups["n"].tolist() == once.dropna().groupby("gender")["done"].count().tolist()
    assert many.groups["estimate"].tolist() == pytest.approx(once.groupby("gender")["done"].mean().tolist())
    assert many.disparity["raw"][0] == pytest.approx(single.disparity["raw"][0])
    assert many.dimensions["without_outcome"][0] == 2
    renamed = audit(rows.rename(columns={"user_id": "who"}), outcome="done", groups=["gender"], unit="who")
    pd.testing.assert_frame_equal(renamed.groups, many.groups)


def test_9_1_a_a_group_that_some_rows_of_a_user_lack_is_that_of_the_others() -> None:
    data = table([0.5, 0.5], 30, 0).assign(user_id=range(60))
    rows = pd.concat([data.assign(group=data["group"].where(data["user_id"] % 2 == 0)), data])
    once, many = (audit(each, outcome="served", groups="group", permutations=1) for each in (data, rows))
    pd.testing.assert_frame_equal(once.groups, many.groups)


def test_9_1_a_small_groups_are_suppressed_and_counted() -> None:
    data = table([0.5, 0.5, 0.5], 50, 0)
    data.loc[55:, "group"] = data.loc[55:, "group"].replace("group 1", "group 2")
    found = audit(data, outcome="served", groups="group").groups.set_index("group")
    assert found["suppressed"].tolist() == [False, True, False]
    assert found.loc["group 1", "n"] == 5
    assert found.loc["group 1", ["estimate", "ci_low", "ci_high"]].isna().all()


def test_9_1_a_a_small_group_cannot_be_had_from_the_rest() -> None:
    data = pd.DataFrame({"gender": ["female"] * 60 + ["male"] * 50 + ["other"] * 5})
    data["age"] = np.resize(["old", "young", "young", "middle"], 115)
    data["served"] = np.arange(115) % 2
    alone = audit(data, outcome="served", groups=["gender"]).groups
    assert alone["suppressed"].tolist() == [False, False, True], "no total is shown that the rest could be taken from"
    both = audit(data, outcome="served", groups=["gender", "age"])
    hidden = both.groups[both.groups["suppressed"]]
    assert hidden["group"].tolist() == ["other", "middle"], "the least is lost where three groups are to compare"
    assert "lest a small one" in both.dimensions["note"][1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 4), st.booleans())
def test_9_1_a_no_sum_of_a_small_group_follows_from_what_is_shown(seed: int, a: int, b: int, missing: bool) -> None:
    draw = np.random.default_rng(seed)
    weight = draw.dirichlet(np.ones(a) / 2)
    data = pd.DataFrame({"a": draw.choice(a, 120, p=weight), "b": draw.integers(0, b, 120), "y": draw.random(120)})
    if missing:
        data["a"] = data["a"].where(draw.random(120) > 0.1)
    found = audit(data, outcome="y", groups=["a", "b", ("a", "b")], permutations=1).groups
    a_label = pd.factorize(data["a"], sort=True)[1].astype(str)
    labels = data["a"].map(dict(zip(sorted(data["a"].dropna().unique()), a_label, strict=True)))
    of = {"a": labels, "b": data["b"].astype(str), "a x b": labels + " x " + data["b"].astype(str)}
    rows = [
        (of[dimension] == group).to_numpy(float)
        for dimension, group in zip(found["dimension"], found["group"], strict=True)
    ]
    assert [row.sum() for row in rows] == found["n"].tolist()
    shown = np.array([row for row, hidden in zip(rows, found["suppressed"], strict=True) if not hidden])
    shown = shown.reshape(-1, 120)
    rank = np.linalg.matrix_rank(shown) if len(shown) else 0
    told = data.map(repr)  # "nan" where it is missing
    cells = [(told["a"] == one) & (told["b"] == other) for one in set(told["a"]) for other in set(told["b"])]
    levels = [told[column] == one for column in ("a", "b") for one in set(told[column])]
    small = np.any([cell for cell in cells if cell.sum() < 20] or [np.zeros(120)], axis=0).astype(bool)
    few = [*levels, *cells, small, *(level & small for level in levels)]
    for row in (row for row in np.array(few, dtype=float) if 0 < row.sum() < 20):
        assert np.linalg.matrix_rank(np.vstack([shown, row])) == rank + 1


def follows(data: pd.DataFrame, groups: list[Any], few: Any) -> bool:
    """Can the outcomes of these few people be had, all together, from the groups that are shown?"""
    found = audit(data, outcome="y", groups=groups, permutations=1).groups
    rows = []
    for dimension, group, hidden in zip(found["dimension"], found["group"], found["suppressed"], strict=True):
        each = [
            data[column].astype("str") == label
            for column, label in zip(dimension.split(" x "), group.split(" x "), strict=True)
        ]
        if not hidden:
            rows.append(np.logical_and.reduce(each).astype(float))
    assert rows, "something is left to show"
    rank = np.linalg.matrix_rank(np.array(rows))
    return bool(np.linalg.matrix_rank(np.vstack([*rows, np.asarray(few, dtype=float)])) == rank)


def everybody(n: int = 240) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame({
        "gender": np.where(np.arange(n) % 2, "male", "female"), "age": np.repeat(["old", "mid", "young"], n // 3),
        "y": draw.random(n),
    })  # fmt: skip


def test_9_1_a_few_who_told_no_group_cannot_be_had_from_the_rest() -> None:
    """Three without a gender are all who are counted by age and not by gender."""
    data = everybody()
    data.loc[:2, "gender"] = None
    assert not follows(data, ["gender", "age"], data["gender"].isna())
    many = data.assign(gender=data["gender"].where(data.index >= 30))
    shown = audit(many, outcome="y", groups=["gender", "age"], permutations=1).groups
    assert not shown["suppressed"].any(), "thirty people are no small group, told or not"


def test_9_1_a_few_of_a_group_who_told_nothing_else_cannot_be_had() -> None:
    """Three women without an age: all women less the women of each age."""
    data = everybody()
    few = data.index.isin([0, 2, 4])
    data.loc[few, "age"] = None
    assert not follows(data, ["gender", ("gender", "age")], few)


def test_9_1_a_small_parts_of_a_group_cannot_be_had_together() -> None:
    """Women of two ages, six and five, are what is left of all women; the same parts of the men are many."""
    data = everybody().assign(age="mid")
    data.loc[data.index[data["gender"] == "female"][:11], "age"] = ["old"] * 6 + ["young"] * 5
    data.loc[data.index[data["gender"] == "male"][:36], "age"] = ["old"] * 18 + ["young"] * 18
    assert not follows(data, ["gender", ("gender", "age")], (data["gender"] == "female") & (data["age"] != "mid"))


def test_9_1_a_what_two_groups_differ_by_is_no_small_group_either() -> None:
    """All who speak Finnish, but for two, live in Finland: nobody asked for the pairs, and yet they follow."""
    data = everybody()
    data["land"] = np.where(np.arange(240) < 40, "Finland", "elsewhere")
    data["speaks"] = np.where(np.arange(240) < 42, "Finnish", "other")
    assert not follows(data, ["land", "speaks"], (data["speaks"] == "Finnish") & (data["land"] == "elsewhere"))


def test_9_1_a_groups_of_one_in_great_number_need_no_great_memory() -> None:
    data = pd.DataFrame({"who": range(30_000), "half": np.arange(30_000) % 2, "y": np.arange(30_000) % 3})
    found = audit(data, outcome="y", groups=["who", "half"], permutations=1).groups
    assert found["suppressed"].sum() == 30_000


def test_9_1_a_experience_is_told_apart_as_an_outcome_of_the_system() -> None:
    data = simulate(400, 40, 0)
    frame = people(data).assign(served=np.arange(400) % 2)
    assert list(frame) == ["user_id", "gender", "age_band", "experience_level", "served"]
    names = ["gender", "age_band", "experience_level", ("gender", "experience_level")]
    found = audit(frame, outcome="served", groups=names).dimensions.set_index("dimension")
    assert found["kind"].tolist() == ["demographic", "demographic", "outcome", "outcome"]
    assert "not a demographic" in found.loc["experience_level", "note"]
    adjusted = stats.false_discovery_control(
        audit(frame, outcome="served", groups=names[:2]).disparity["p_value"].to_numpy()
    )
    assert np.allclose(found["p_adjusted"][:2], adjusted, atol=0.1)


def test_9_1_b_the_disparity_of_simulations_is_that_of_an_audit() -> None:
    for seed, chances in enumerate((ONE_WORSE, EQUAL, [0.5, 0.1], [0.1] * 4)):
        data = table(chances, 40, seed)
        found = audit(data, outcome="served", groups="group", permutations=199, seed=seed).disparity
        alone = disparity(data["served"], data["group"], permutations=199, seed=seed)
        assert alone == pytest.approx(tuple(found.iloc[0, 1:]))


def test_age_bands_hold_their_first_year() -> None:
    ages = pd.Series([12, 13, 17, 18, 24, 25, 39, 40, 59, 60, 99, np.nan])
    expected = [None, *np.repeat(list(AGE_BANDS), [2, 2, 2, 2, 2]), None]
    assert age_band(ages).astype(object).where(lambda band: band.notna(), None).tolist() == expected


# 9.1.b Disparity


def test_9_1_b_six_equal_groups_of_100_differ_by_13_points_and_corrected_by_none() -> None:
    found = of_many(EQUAL, 100, 200, permutations=99)
    error = found[["raw", "noise_corrected"]].sem()
    assert found["raw"].mean() == pytest.approx(0.1267, abs=3.3 * error["raw"])
    assert abs(found["noise_corrected"].mean()) < 0.01 + 3.3 * error["noise_corrected"]


def test_9_1_b_where_groups_do_differ_the_corrected_disparity_is_nearer_the_truth() -> None:
    found = of_many(ONE_WORSE, 100, 100, permutations=99)
    assert found["noise_corrected"].mean() == pytest.approx(0.2, abs=0.03)
    assert found["raw"].mean() > 0.24
    sure = audit(table([0, 1], 40, 0), outcome="served", groups="group").disparity
    assert sure[["raw", "noise_corrected"]].to_numpy().tolist() == [[1, 1]], "no noise, nothing taken off"


def by_hand(values: np.ndarray, way: Any) -> tuple[float, float]:
    """How far groups are apart all over, and the one that is farthest from the others, each in its own variance."""
    parts = [values[np.array(list(way)) == group] for group in sorted(set(way))]
    pooled = sum(((part - part.mean()) ** 2).sum() for part in parts) / (len(values) - len(parts))

    def error(part: np.ndarray) -> float:
        return float((((part - part.mean()) ** 2).sum() + pooled) / len(part) ** 2)

    weight = [1 / error(part) for part in parts]
    centre = np.average([part.mean() for part in parts], weights=weight)
    over = sum(w * (part.mean() - centre) ** 2 for w, part in zip(weight, parts, strict=True))
    lone = []
    for group, part in zip(sorted(set(way)), parts, strict=True):
        rest = values[np.array(list(way)) != group]
        lone.append((part.mean() - rest.mean()) ** 2 / (error(part) + error(rest)))
    return round(over, 9), round(max(lone), 9)


def test_9_1_b_the_p_value_is_that_of_all_ways_to_deal_out_the_outcomes() -> None:
    values = np.array([0.1, 0.9, 0.4, 0.7, 0.2, 1.3, 0.6, 1.1, 1.2])
    data = pd.DataFrame({"value": values, "group": list("aaaabbbbb")})
    found = audit(data, outcome="value", groups="group", min_n=1, permutations=20_000).disparity["p_value"][0]
    dealt = [["a" if i in chosen else "b" for i in range(9)] for chosen in combinations(range(9), 4)]
    ways = np.array([by_hand(values, way)[0] for way in dealt])
    assert found == pytest.approx(np.mean(ways >= by_hand(values, "aaaabbbbb")[0]), abs=0.015)


def test_9_1_b_looking_twice_is_paid_for_as_by_all_ways_to_deal_out_three_groups() -> None:
    values = np.array([0.1, 0.9, 0.4, 0.7, 1.9, 1.3, 0.6, 1.1])
    dealt = sorted(set(permutations("aabbbccc")))
    assert len(dealt) == 560
    both = np.array([by_hand(values, way) for way in dealt]).T
    alone = np.array([[np.mean(each >= one) for one in each] for each in both])
    smaller = alone.min(axis=0)
    for way in dealt[::97]:
        data = pd.DataFrame({"value": values, "group": way})
        found = audit(data, outcome="value", groups="group", min_n=1, permutations=10_000).disparity["p_value"][0]
        assert found == pytest.approx(np.mean(smaller <= smaller[dealt.index(way)] + 1e-12), abs=0.025)


SCENES = {
    "one of six": (ONE_WORSE, 100),
    "two": ([0.5, 0.3], 120),
    "all over": (np.linspace(0.375, 0.625, 6), 110),
    "one of twelve": ([*[0.5] * 11, 0.28], 100),
}


def alarms(found: pd.DataFrame) -> int:
    return int((found["p_value"] <= 0.05).sum())


def test_9_1_b_a_planted_bias_is_found_and_none_is_not() -> None:
    assert alarms(of_many(EQUAL, 100, 150)) <= at_most(0.05, 150)
    assert alarms(of_many(ONE_WORSE, 100, 60)) >= at_least(0.8, 60)


def of_unequal_spread(n: list[int], spread: list[float], seeds: int) -> pd.DataFrame:
    """Disparity where all groups have one mean, and some vary more: people of fewer rows each, for instance."""
    group = np.repeat(range(len(n)), n)
    found = [
        disparity(np.random.default_rng(seed).normal(0, np.repeat(spread, n)), group, permutations=199, seed=seed)
        for seed in range(seeds)
    ]
    return pd.DataFrame(found, columns=["raw", "noise_corrected", "p_value"])


@pytest.mark.parametrize(("n", "spread"), [([400, 25], [1, 4]), ([200, 60, 40, 30], [1, 1, 2, 3])])
def test_9_1_b_a_small_group_that_varies_more_is_no_bias(n: list[int], spread: list[float]) -> None:
    """By one variance for all groups it is found in 50 and 33 % of tables."""
    found = of_unequal_spread(n, spread, 200)
    assert alarms(found) <= at_most(0.05, 200)
    assert found["noise_corrected"].mean() < 0.3 * found["raw"].mean()


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "spread"), [([400, 25], [1, 2]), ([200, 60, 40, 30], [1, 1, 2, 3]), ([200, 60, 40, 30], [3, 2, 1, 1])]
)
def test_9_1_b_false_alarms_are_at_most_5_percent_where_spreads_differ(n: list[int], spread: list[float]) -> None:
    assert alarms(of_unequal_spread(n, spread, 2000)) <= at_most(0.05, 2000)


@pytest.mark.long
@pytest.mark.parametrize("scene", SCENES)
def test_9_1_b_power_is_at_least_80_percent(scene: str) -> None:
    assert alarms(of_many(*SCENES[scene], 1000)) >= at_least(0.8, 1000)


@pytest.mark.long
@pytest.mark.parametrize(("chances", "n"), [(EQUAL, 100), ([0.5] * 2, 30), ([0.1] * 4, 25), ([0.5] * 20, 40)])
def test_9_1_b_false_alarms_are_at_most_5_percent(chances: list[float], n: int) -> None:
    assert alarms(of_many(chances, n, 2000)) <= at_most(0.05, 2000)


def wrongly_found(seeds: range) -> int:
    """Audits of several dimensions and intersections that find anything where nothing is."""
    wrong = 0
    for seed in seeds:
        draw = np.random.default_rng(seed)
        data = pd.DataFrame({"a": draw.integers(0, 3, 600), "b": draw.integers(0, 5, 600), "c": draw.random(600) < 0.3})
        data["a"] = data["a"].where(draw.random(600) > 0.05)
        data["value"] = draw.exponential(1, 600)
        names = ["a", "b", "c", ("a", "b"), ("b", "c")]
        found = audit(data, outcome="value", groups=names, permutations=199, seed=seed)
        wrong += found.dimensions["found"].any()
    return wrong


def test_9_1_b_looking_at_several_dimensions_is_paid_for() -> None:
    assert wrongly_found(range(25)) <= at_most(0.05, 25)


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, 1200, 200))
def test_9_1_b_looking_at_several_dimensions_many_times_is_paid_for(first: int) -> None:
    assert wrongly_found(range(first, first + 200)) <= at_most(0.05, 200)


class Unfair(Popularity):
    """Recommends what is popular, but anything at all to the women."""

    women: frozenset[str] = frozenset()

    def score(self, user_ids: Any) -> np.ndarray:
        scores = np.array(super().score(user_ids), dtype=float)
        worse = np.isin(np.asarray(user_ids, dtype=object), list(self.women))
        scores[worse] = np.random.default_rng(0).random((worse.sum(), scores.shape[1]))
        return scores


def world(seed: int, users: int) -> tuple[float, float]:
    """P-values by gender of the NDCG of a fair and an unfair recommender in the simulated world."""
    data = simulate(users, 60, seed, {"demographics_category": 0})
    who = people(data)
    unfair = Unfair()
    unfair.women = frozenset(who.loc[who["gender"] == "female", "user_id"])
    first = data.habit_tracking["date"].min()
    split = splits.temporal(data, first + pd.Timedelta(days=25))
    values = leaderboard.per_user({"fair": Popularity(), "unfair": unfair}, data, split)
    p_values = [
        audit(
            who.merge(values[model]["ndcg@10"].rename("ndcg"), left_on="user_id", right_index=True),
            outcome="ndcg",
            groups=["gender"],
            permutations=999,
        ).disparity["p_value"][0]
        for model in ("fair", "unfair")
    ]
    return p_values[0], p_values[1]


def test_9_1_b_in_the_simulated_world_an_unfair_recommender_is_found() -> None:
    fair, unfair = world(seed=1, users=3000)
    assert unfair < 0.05 < fair


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, 150, 30))
def test_9_1_b_in_many_simulated_worlds_an_unfair_recommender_is_found_and_a_fair_one_is_not(first: int) -> None:
    found = np.array([world(seed, users=2000) for seed in range(first, first + 30)]) <= 0.05
    assert found[:, 0].sum() <= at_most(0.05, 30)
    assert found[:, 1].sum() >= at_least(0.8, 30)


# Calibration by group


def predictions(seed: int, slopes: tuple[float, ...] = (1.0, 0.5)) -> tuple[np.ndarray, ...]:
    """Predictions for 300 users of each group, ten each; the true log-odds are `slope` times the predicted ones."""
    draw = np.random.default_rng(seed)
    user = np.repeat(np.arange(300 * len(slopes)), 10)
    group = user // 300
    logit = draw.normal(0, 1.5, len(user))
    outcome = draw.random(len(user)) < special.expit(logit * np.array(slopes)[group])
    return special.expit(logit), outcome.astype(int), group, user


def test_9_1_a_calibration_tells_the_group_whose_predictions_are_too_extreme() -> None:
    predicted, outcome, group, user = predictions(0)
    found = calibration(predicted, outcome, group, user=user).set_index("group")
    assert found["n"].tolist() == [3000, 3000]
    assert found["users"].tolist() == [300, 300]
    assert found.loc["0", "slope_low"] < 1 < found.loc["0", "slope_high"]
    assert found.loc["1", "slope_high"] < 0.7
    assert found.loc["0", "ece"] < 2.5 * found.loc["0", "ece_by_chance"]
    assert found.loc["1", "ece_low"] > 3 * found.loc["1", "ece_by_chance"]
    for name in (0, 1):
        here = group == name
        design = np.column_stack([special.logit(predicted[here]), np.ones(here.sum())])
        fit = Logit(outcome[here], design).fit(disp=False, cov_type="cluster", cov_kwds={"groups": user[here]})
        row = found.loc[str(name)]
        assert row["slope"] == pytest.approx(fit.params[0], abs=1e-3)
        assert row[["slope_low", "slope_high"]].tolist() == pytest.approx(fit.conf_int()[0].tolist(), abs=5e-3)
        assert row["gap"] == pytest.approx((predicted[here] - outcome[here]).mean())


def test_9_1_a_the_calibration_error_by_chance_is_that_of_predictions_that_are_right() -> None:
    found = pd.concat([calibration(*predictions(seed, (1.0,))[:3], resamples=2) for seed in range(15)])
    assert found["ece"].mean() == pytest.approx(found["ece_by_chance"].mean(), abs=3.3 * found["ece"].sem())


def test_calibration_of_what_cannot_be_told_is_nan() -> None:
    alike = calibration(np.full(200, 0.5), np.resize([0, 1], 200), np.repeat(["a", "b"], [150, 50])).set_index("group")
    assert alike["suppressed"].tolist() == [False, True]
    assert np.isnan(alike.loc["a", "slope"])
    assert alike.loc["b", "n"] == 50
    assert np.isnan(alike.loc["b", "ece"])
    assert not len(calibration([np.nan], [1], ["a"]))
    with pytest.raises(ValueError, match="probabilities, 0 to 1"):
        calibration([1.5], [1], ["a"])
    with pytest.raises(ValueError, match="lengths differ"):
        calibration([0.5, 0.5], [1], ["a"])


# 9.1.c Exposure, on the users' side and on the items'


def lists_of(users: int, items: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    lists = draw.permuted(np.tile(np.arange(items), (users, 1)), axis=1)[:, :5]
    lists[draw.random(lists.shape) < 0.1] = -1
    return lists


def test_9_1_c_user_exposure_is_the_share_of_attention_on_good_items() -> None:
    lists = lists_of(40, 12, 0)
    good = np.random.default_rng(1).random((40, 12)) < 0.4
    found = user_exposure(lists, sparse.csr_array(good.astype(float)))
    for user, row in enumerate(lists):
        attention = {item: 1 / np.log2(place + 2) for place, item in enumerate(row) if item >= 0}
        expected = sum(share for item, share in attention.items() if good[user, item]) / sum(attention.values())
        assert found[user] == pytest.approx(expected)
    same = user_exposure(lists, good[0])
    assert np.allclose(same, user_exposure(lists, sparse.csr_array(np.tile(good[0], (40, 1)).astype(float))))
    assert np.isnan(user_exposure(np.array([[-1, -1]]), good[0])).all()
    with pytest.raises(ValueError, match="true or false for each item"):
        user_exposure(lists, np.ones(12))


def test_9_1_c_good_recommendations_for_one_group_only_are_found() -> None:
    lists = lists_of(600, 40, 3)
    good = np.arange(40) < 20
    favoured = np.arange(600) < 300
    draw = np.random.default_rng(4)
    for place in range(5):
        swap = favoured & (lists[:, place] >= 20) & (draw.random(600) < 0.3)
        lists[swap, place] = -1
    data = pd.DataFrame({"gender": np.where(favoured, "male", "female"), "good": user_exposure(lists, good)})
    assert audit(data, outcome="good", groups=["gender"]).disparity["p_value"][0] < 0.01


def test_9_1_c_item_exposure_adds_up_and_holds_the_truth() -> None:
    kind = np.array(["sleep"] * 10 + ["diet"] * 25 + [None] * 5, dtype=object)
    held = 0
    for seed in range(60):
        lists = lists_of(200, 40, seed)
        found = item_exposure(lists, kind, resamples=300).set_index("kind")
        held += (found["ci_low"] <= found["catalogue_share"]).all() and (
            found["catalogue_share"] <= found["ci_high"]
        ).all()
    assert found["exposure"].sum() == pytest.approx(1)
    assert found.loc["none", "items"] == 5
    assert found.loc["sleep", "exposure"] == pytest.approx(metrics.exposure(lists, 40)[:10].sum())
    assert (found["ratio"] == found["exposure"] / found["catalogue_share"]).all()
    assert held >= at_least(0.85, 60), "three shares at once, each at 95 %"


def test_9_1_c_popularity_bands_hold_a_fifth_each_and_part_no_ties() -> None:
    bands = popularity_band(np.arange(50))
    assert [np.sum(bands == band) for band in (HEAD, MIDDLE, TAIL)] == [10, 30, 10]
    assert set(popularity_band([1, 1, 1, 1])) == {MIDDLE}


# Bad input


def test_one_group_only_and_groups_of_one_have_no_disparity() -> None:
    one = audit(table([0.5], 50, 0), outcome="served", groups="group")
    assert one.groups["suppressed"].tolist() == [False]
    assert one.disparity.iloc[0, 1:].isna().all()
    assert "nothing to compare" in one.dimensions["note"][0]
    data = pd.DataFrame({"group": range(50), "value": np.random.default_rng(0).random(50)})
    assert audit(data, outcome="value", groups="group").groups["suppressed"].all()
    all_shown = audit(data, outcome="value", groups="group", min_n=1)
    assert all_shown.groups["ci_low"].isna().all()
    assert np.isnan(all_shown.disparity["noise_corrected"][0])
    assert "no group has two users" in all_shown.dimensions["note"][0]


@pytest.mark.parametrize("value", [0.0, 1.0, 3.7])
def test_a_constant_outcome_is_no_disparity(value: float) -> None:
    found = audit(table([0.5, 0.5], 40, 0).assign(served=value), outcome="served", groups="group")
    assert found.disparity.iloc[0, 1:].tolist() == [0, 0, 1]
    assert (found.groups["estimate"] == value).all()
    assert found.groups["ci_low"].isna().all() == (value == 3.7), "all of 40 may still be chance; 3.7 tells nothing"


def test_outcomes_that_are_missing_are_counted() -> None:
    data = table([0.5, 0.5], 40, 0)
    data["served"] = data["served"].astype(float)
    data.loc[[0, 1, 50], "served"] = np.nan
    found = audit(data, outcome="served", groups="group")
    assert found.groups["n"].tolist() == [38, 39]
    assert found.dimensions["without_outcome"][0] == 3
    nothing = audit(data.assign(served=np.nan), outcome="served", groups="group")
    assert nothing.groups["n"].tolist() == [0, 0]
    assert nothing.disparity.iloc[0, 1:].isna().all()
    assert nothing.dimensions["note"][0] == "no outcome is known"


LISTS = pd.Series([["a"], ["b"]] * 20)
PLAIN = pd.DataFrame({"group": ["a", "b"] * 20, "value": np.arange(40.0)})


@pytest.mark.parametrize(
    ("data", "change", "says"),
    [
        (PLAIN, {"groups": ["gender"]}, "needs `gender`; these data have none"),
        (PLAIN, {"outcome": "ndcg"}, "needs `ndcg`"),
        (PLAIN.assign(group=LISTS), {}, "holds lists"),
        (PLAIN.assign(value=LISTS), {}, "other than numbers"),
        (PLAIN.assign(value="good"), {}, "other than numbers"),
        (PLAIN.assign(value=np.inf), {}, "infinite in 40 rows"),
        (PLAIN.assign(user_id=["u"] * 40), {}, "user u is in two groups of `group`"),
        (PLAIN.assign(value=pd.Timestamp("2026-01-01")), {}, "other than numbers"),
        (PLAIN.assign(value=1j), {}, "other than numbers"),
        (PLAIN.assign(user_id=None), {}, "`user_id` is missing in 40 rows"),
        (PLAIN, {"groups": []}, "names the columns"),
        (PLAIN, {"groups": ["group", "group"]}, "twice"),
        (PLAIN, {"groups": ["value"]}, "is the outcome"),
        (PLAIN, {"min_n": 0}, "min_n and permutations"),
        (PLAIN, {"min_n": np.nan}, "min_n and permutations"),
        (PLAIN, {"min_n": 2.5}, "min_n and permutations"),
        (pd.concat([PLAIN, PLAIN[["value"]]], axis=1), {}, "2 columns are called `value`"),
        (PLAIN, {"level": 95}, "level is a share"),
        (PLAIN.to_dict("list"), {}, "DataFrame"),
    ],
)
def test_bad_input_says_what_is_wrong(data: Any, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        audit(data, **{"outcome": "value", "groups": ["group"], **change})


def test_a_dataset_without_demographics_says_so() -> None:
    with pytest.raises(MissingColumn, match="`gender`, `age` or `experience_level`"):
        people(Dataset(users=pd.DataFrame({"user_id": ["ann"]})))
