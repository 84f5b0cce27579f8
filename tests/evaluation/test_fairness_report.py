"""Report 08: what lists bring to groups, verdicts on comparisons, what could be hidden, a bias on purpose."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import fairness, leaderboard, metrics, model_tables
from habitlab.evaluation.fairness import fairness_planted, fairness_report, fairness_tables
from habitlab.evaluation.fairness.fairness_report import BEYOND, CANNOT, NONE, WITHIN
from habitlab.evaluation.leaderboard import Scorer
from habitlab.models.baselines import Popularity, Random
from habitlab.report.findings import fill, known_sentences, publish
from habitlab.simulation import load_truth, save, simulate
from tests.evaluation.test_fairness import at_least, at_most

MODELS: dict[str, Scorer] = {"blend": Popularity(), "popularity": Popularity(), "random": Random(0)}


@pytest.fixture(scope="module")
def world() -> Dataset:
    return simulate(200, 90, 5)


def audited(values: dict[str, Any], groups: Any = None, **options: Any) -> dict[str, fairness.Audit]:
    """Audits of outcomes by gender, half of the people each."""
    data = pd.DataFrame(values)
    data["gender"] = np.resize(["female", "male"], len(data)) if groups is None else groups
    return {key: fairness.audit(data, outcome=key, groups=["gender"], **options) for key in values}


def one(values: np.ndarray, **options: Any) -> pd.Series:
    table = fairness_report.compared(audited({"ndcg": values}, **options), tolerated=0.2, level=0.95)
    assert len(table) == 1
    return table.iloc[0]


# What people get


def test_9_1_a_what_people_get_is_what_the_metrics_and_the_truth_say(world: Dataset, tmp_path: Any) -> None:
    split = model_tables.history_until(world, 0.6)
    lists = leaderboard.lists_of(MODELS, split)
    gets = fairness_report.what_people_get(lists, world, split)
    mine, k = gets["random"], 10
    assert np.allclose(mine["ndcg"], metrics.ndcg_at_k(lists["random"], split.relevant, k), equal_nan=True)
    save(world, tmp_path / "world.db")
    truth = load_truth(tmp_path / "world.db").set_index(["user_id", "habit_id"])
    for user in (0, 7, 100):
        pairs = [(split.user_ids[user], split.habit_ids[item]) for item in lists["random"][user] if item >= 0]
        known = truth.loc[pairs, ["adoption_probability", "success_probability"]].prod(axis=1).sum() / k
        assert mine["kept"].iloc[user] == pytest.approx(known, abs=1e-5)
    assert (gets["blend"]["gain"] == 0).all(), "popularity less popularity"
    assert "gain" not in mine
    users = world.users.set_index("user_id").loc[split.user_ids, "improvement_areas"]
    kind = world.habits.set_index("habit_id").loc[split.habit_ids, "category"].astype(str).to_numpy()
    for user in (0, 7, 100):
        places = [item for item in lists["random"][user] if item >= 0]
        attention = 1 / np.log2(np.arange(2, len(places) + 2))
        areas = users.iloc[user] if isinstance(users.iloc[user], list) else []
        share = attention @ np.isin(kind[places], areas) / attention.sum() if areas else np.nan
        assert mine["asked"].iloc[user] == pytest.approx(share, nan_ok=True)


def test_9_1_a_gaps_are_the_chance_said_less_what_happened_by_user() -> None:
    pairs = pd.DataFrame({"user_id": ["a", "a", "b"], "success": [1, 0, 1], "chance": [0.5, 0.7, 0.2]})
    assert fairness_report.gaps(pairs)["gap"].tolist() == pytest.approx([0.1, -0.8])


def test_9_1_a_a_dataset_without_gender_is_audited_by_what_it_has(world: Dataset) -> None:
    split = model_tables.history_until(world, 0.6)
    gets = fairness_report.what_people_get(leaderboard.lists_of(MODELS, split), world, split)["blend"]
    tables = {name: world.table(name) for name in ("habits", "habit_tracking", "adoptions")}
    without = Dataset(users=world.users.drop(columns="gender"), **tables, metadata=world.metadata)
    with pytest.raises(MissingColumn, match=r"needs `gender` in `users`; this dataset has none"):
        without.require("users.gender")
    found = fairness_report.audits(without, gets, min_n=20, level=0.95, permutations=99, seed=0)
    assert found["kept"].dimensions["dimension"].tolist() == ["age_band", "experience_level"]
    table = fairness_report.compared(found, tolerated=0.2, level=0.95)
    assert set(table["dimension"]) == {"age_band", "experience_level"}
    assert set(fairness_report.of_demographics(table)["dimension"]) == {"age_band"}
    assert set(fairness_report.of_experience(table)["dimension"]) == {"experience_level"}


# Verdicts


def test_9_1_b_each_verdict_is_given_where_it_should_be() -> None:
    draw = np.random.default_rng(0)
    noise, half = draw.normal(0, 0.02, 1000), np.resize([1.0, 0.0], 1000)
    assert one(0.5 + 0.2 * half + noise)["verdict"] == BEYOND
    assert one(0.5 + 0.05 * half + noise)["verdict"] == WITHIN
    assert one(0.5 + noise)["verdict"] == NONE
    assert one(0.5 + draw.normal(0, 0.5, 60))["verdict"] == CANNOT


def test_9_1_b_what_cannot_be_told_says_how_many_people_it_needs() -> None:
    draw = np.random.default_rng(1)
    found = one(draw.normal(0.5, 0.5, 100))
    assert found["verdict"] == CANNOT
    more = one(draw.normal(0.5, 0.5, int(1.3 * found["needed"])))
    assert more["verdict"] == NONE
    assert np.isnan(more["needed"])


def test_9_1_b_the_more_is_compared_the_more_a_disparity_has_to_show() -> None:
    draw = np.random.default_rng(2)
    values = {key: draw.normal(1, 1, 400) for key in ("ndcg", "diversity", "asked", "kept")}
    alone = fairness_report.compared(audited({"ndcg": values["ndcg"]}), tolerated=0.2, level=0.95)
    together = fairness_report.compared(audited(values), tolerated=0.2, level=0.95)
    assert together["detectable"][0] > alone["detectable"][0]
    assert np.allclose(together["p_adjusted"], stats.false_discovery_control(together["p_value"]))


@pytest.mark.parametrize(("n", "trials"), [((60, 60), 200), ((30, 80, 90, 100), 200)])
def test_9_1_b_the_smallest_disparity_that_is_found_is_found_4_times_in_5(n: tuple[int, ...], trials: int) -> None:
    size = fairness_report.detectable(n, 1.0)
    group = np.repeat(np.arange(len(n)), n)
    found = 0
    for seed in range(trials):
        draw = np.random.default_rng(seed)
        value = draw.normal(0, 1, len(group)) + size * (group == 0)
        found += fairness.disparity(value, group, permutations=199, seed=seed)[2] <= 0.05
    assert at_least(0.8, trials) <= found <= at_most(0.9, trials), "no more than is needed, either"


def test_9_1_b_detectable_is_that_of_two_samples_where_there_are_two() -> None:
    from statsmodels.stats.power import TTestIndPower

    known = TTestIndPower().solve_power(nobs1=40, ratio=2, alpha=0.01, power=0.8)
    assert fairness_report.detectable((40, 80), 2.5, alpha=0.01) == pytest.approx(2.5 * known, rel=1e-3)
    assert np.isnan(fairness_report.detectable((40,), 1.0))
    assert np.isnan(fairness_report.detectable((40, 40), np.nan))


@pytest.mark.parametrize("means", [(0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (0.0, 0.5), (0.0, 0.1, 0.4, 0.4)])
def test_9_1_b_the_interval_of_a_disparity_holds_the_truth(means: tuple[float, ...]) -> None:
    centre, n = np.array(means), np.array([30, 50, 70, 90])[: len(means)]
    held = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        seen = centre + draw.normal(0, 1, len(n)) / np.sqrt(n)
        within = np.sqrt(draw.chisquare(n.sum() - len(n)) / (n.sum() - len(n)))
        low, high = fairness_report.interval(seen, n, within)
        held += low <= np.ptp(centre) <= high
    assert held >= at_least(0.95, 400)


def test_9_1_b_within_is_the_deviation_within_groups_that_are_shown() -> None:
    draw = np.random.default_rng(3)
    group = np.repeat(["a", "b", "few"], [100, 60, 5])
    value = draw.normal(0, 2, 165) + 10 * (group == "b") + 100 * (group == "few")
    found = audited({"ndcg": value}, group)["ndcg"].dimensions["within"][0]
    frame = pd.DataFrame({"group": group, "value": value})[:160]
    rest = frame["value"] - frame.groupby("group")["value"].transform("mean")
    assert found == pytest.approx(np.sqrt((rest**2).sum() / 158))


def answers_with_a_disparity(seeds: range) -> int:
    """Whole reports that find anything where outcomes, two of them much alike, have nothing to do with groups."""
    wrong = 0
    for seed in seeds:
        draw = np.random.default_rng(seed)
        users = pd.DataFrame({"user_id": [f"u{i}" for i in range(400)], "age": draw.integers(13, 80, 400)})
        users["gender"] = draw.choice(["female", "male", "other"], 400, p=[0.5, 0.4, 0.1])
        ndcg = np.clip(draw.normal(0.1, 0.2, 400), 0, 1)
        columns = {"ndcg": ndcg, "hit": ndcg > 0, "diversity": draw.beta(20, 10, 400), "kept": draw.exponential(1, 400)}
        values = pd.DataFrame(columns, index=users["user_id"]).astype(float)
        values.loc[draw.random(400) < 0.4, ["ndcg", "hit"]] = np.nan
        dataset = Dataset(users=users)
        found = fairness_report.audits(dataset, values, min_n=20, level=0.95, permutations=499, seed=seed)
        table = fairness_report.compared(found, tolerated=0.2, level=0.95)
        wrong += len(fairness_report.largest(fairness_report.of_demographics(table), 0.95))
    return wrong


def test_9_1_b_a_report_on_nothing_finds_nothing() -> None:
    assert answers_with_a_disparity(range(10)) <= at_most(0.05, 10)


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, 320, 80))
def test_9_1_b_reports_on_nothing_find_something_in_at_most_5_percent(first: int) -> None:
    assert answers_with_a_disparity(range(first, first + 80)) <= at_most(0.05, 80)


# The answer


ANSWERS = {
    "No: ": (BEYOND, CANNOT),
    "Not quite": (WITHIN, NONE),
    "As far as these data tell, yes": (NONE, CANNOT),
    "These data cannot tell": (CANNOT, CANNOT),
}


@pytest.mark.parametrize("start", ANSWERS)
def test_9_1_b_the_answer_is_chosen_by_what_was_found(start: str) -> None:
    draw = np.random.default_rng(4)
    values = {key: draw.normal(0.5, 0.05, 200) for key in ("ndcg", "diversity")}
    table = fairness_report.compared(audited(values), tolerated=0.2, level=0.95).assign(verdict=ANSWERS[start])
    found = {
        item["key"]: item
        for item in (
            *fairness_report.verdicts(table, 0.2),
            *fairness_report.largest(table, 0.95),
            *fairness_report.could_be_hidden(table, ["ndcg"]),
        )
    }
    publish(*found.values())
    text = fill(known_sentences(fairness_report.answer(found), found), found)["text"]
    assert text.startswith(start)
    assert "{" not in text
    assert ("the largest" in text) == (start in ("No: ", "Not quite"))
    assert "4 times in 5" in text, "the power is always said"
    assert ("hidden" in text or "hide" in text) == (CANNOT in ANSWERS[start])


def test_nothing_to_compare_gives_no_answer_and_no_error() -> None:
    empty = fairness_report.compared({}, tolerated=0.2, level=0.95)
    assert empty.empty
    assert fairness_report.verdicts(empty, 0.2) == []
    assert fairness_report.largest(empty, 0.95) == []
    assert fairness_report.answer({}) == []
    for table in (fairness_tables.relative, fairness_tables.comparisons):
        with pytest.raises(MissingColumn):
            table(empty)
    with pytest.raises(MissingColumn):
        fairness_tables.forest({}, ["ndcg"], ["gender"])
    with pytest.raises(MissingColumn):
        fairness_tables.side_by_side({}, ["gender"])


# Bad input, as in a report


def test_one_group_only_groups_of_one_and_missing_outcomes_cannot_be_told() -> None:
    draw = np.random.default_rng(5)
    values = draw.random(60)
    for bad in (
        audited({"ndcg": values}, np.repeat("female", 60)),
        audited({"ndcg": values}, [f"kind {i}" for i in range(60)]),
        audited({"ndcg": np.full(60, np.nan)}),
    ):
        table = fairness_report.compared(bad, tolerated=0.2, level=0.95)
        assert table["verdict"].tolist() == [CANNOT]
        assert table[["noise_corrected", "detectable", "ci_low", "ci_high"]].isna().all(axis=None)
        assert fairness_report.disparities(table, 0.95, ["ndcg"]) == []


def test_a_constant_metric_is_alike_for_all() -> None:
    found = one(np.full(80, 0.3))
    assert found["verdict"] == NONE
    assert found[["raw", "noise_corrected", "ci_low", "ci_high"]].tolist() == pytest.approx([0, 0, 0, 0])


def test_9_1_a_withheld_groups_stay_withheld_in_every_table() -> None:
    draw = np.random.default_rng(6)
    found = audited({"ndcg": draw.random(130)}, np.repeat(["female", "male", "other"], [70, 50, 10]))
    rows = fairness_tables.forest(found, ["ndcg"], ["gender"])
    assert rows.loc[rows["group"] == "other", "label"].tolist() == ["other\nwithheld"]
    assert rows.loc[rows["group"] == "other", ["estimate", "ci_low", "n"]].isna().all(axis=None)
    cells = fairness_tables.side_by_side(found, ["gender"]).set_index("group")["NDCG@10"]
    assert cells["other"] == "withheld"
    assert cells["male"].startswith("0.")


# Calibration and exposure by group


def test_9_1_a_calibration_withholds_what_the_audit_withholds(world: Dataset) -> None:
    draw = np.random.default_rng(7)
    users = np.repeat(world.users["user_id"].to_numpy(), 60)  # many pairs, so that only people are few
    chance = draw.uniform(0.2, 0.8, len(users))
    predicted = pd.DataFrame({"user_id": users, "chance": chance, "success": draw.random(len(users)) < chance})
    gaps = fairness_report.gaps(predicted)
    found = fairness_report.audits(world, gaps, min_n=20, level=0.95, permutations=99, seed=0)
    table = fairness_tables.calibration_by_group(predicted, world, found, level=0.95, resamples=100, seed=0)
    audit = found["gap"].groups.set_index("group")["suppressed"]
    hidden = audit[table["group"]].to_numpy()
    assert hidden.any()
    assert table.loc[hidden, ["gap", "slope", "ece", "predicted", "observed"]].isna().all(axis=None)
    assert table.loc[~hidden, "gap"].notna().all()
    with pytest.raises(MissingColumn):
        fairness_tables.calibration_by_group(predicted, world, {}, level=0.95, resamples=100, seed=0)


def test_9_1_c_exposure_is_reported_on_both_sides(world: Dataset) -> None:
    split = model_tables.history_until(world, 0.6)
    lists = leaderboard.lists_of(MODELS, split)
    draw: dict[str, Any] = {"level": 0.95, "resamples": 100, "seed": 0}
    items = fairness_tables.kinds_of_items(lists["blend"], world, split, **draw)
    assert items.groupby("by")["exposure"].sum().tolist() == pytest.approx([1, 1])
    assert items.loc[items["kind"].str.startswith("head"), "ratio"].item() > 2, "popularity shows what is popular"
    keys = [item["key"] for item in fairness_tables.exposed(items, len(lists["blend"]), 0.95)]
    assert keys == ["most_category", "least_category", "most_popularity", "least_popularity"]
    gets = fairness_report.what_people_get(lists, world, split)
    found = fairness_report.audits(world, gets["blend"], min_n=20, level=0.95, permutations=99, seed=0)
    assert {"gender", "age_band", "gender x age_band"} <= set(found["asked"].dimensions["dimension"]), "users' side"


def test_nobody_asked_for_anything_leaves_that_outcome_out() -> None:
    data = Dataset(
        users=pd.DataFrame({"user_id": ["a", "b"]}), habits=pd.DataFrame({"habit_id": ["h"], "category": ["diet"]})
    )
    split = model_tables.history_until(data, 0.6)
    assert fairness_report.asked_for(data, split) is None
    assert isinstance(split.relevant, sparse.csr_array)


# A bias on purpose


def test_9_1_b_a_bias_planted_in_these_data_is_found_and_none_is_not() -> None:
    draw = np.random.default_rng(8)
    served, degraded = draw.normal(0.3, 0.1, 300), draw.normal(0.2, 0.1, 300)
    served[:20] = np.nan
    table = fairness_planted.planted(served, degraded, shares=(0, 1), draws=120)
    assert table["n"].tolist() == [280, 280]
    none, full = table["estimate"] * 120
    assert none <= at_most(0.05, 120)
    assert full >= at_least(0.8, 120)
    assert table["true"].tolist() == pytest.approx([0, np.mean(served[20:]) - np.mean(degraded[20:])])
    assert table["noise_corrected"].tolist() == pytest.approx(table["true"].tolist(), abs=0.01)
    assert (table["raw"] >= table["noise_corrected"]).all()
    publish(*fairness_planted.planted_found(table, "ndcg", "NDCG@10", level=0.95))
    with pytest.raises(MissingColumn, match="there are 4"):
        fairness_planted.planted(served[:24], degraded[:24])


def test_9_1_c_exposure_without_an_interval_is_published_with_the_reason():
    rows = {"by": "popularity", "kind": ["head", "tail"], "ratio": [4.0, 0.0]}
    table = pd.DataFrame(rows | {"ratio_low": [3.0, np.nan], "ratio_high": [5.0, np.nan]})
    found = publish(*fairness_tables.exposed(table, 40, 0.95))
    assert "no interval" in found["least_popularity"]["reason"]
    assert "reason" not in found["most_popularity"]
