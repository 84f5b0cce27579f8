"""6.1 What report 05 says of the models: where their order changes, and what definitions and the log do to it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import binom

from habitlab import open_dataset
from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import leaderboard, metric_definitions, splits
from habitlab.evaluation.leaderboard import leaderboard_models
from habitlab.evaluation.leaderboard import leaderboard_tables as board
from habitlab.evaluation.metrics import ndcg_at_k
from habitlab.evaluation.splits import Split
from habitlab.models.baselines import Popularity, Random
from habitlab.models.collaborative import CollaborativeModel

DRAW = {"level": 0.95, "resamples": 200, "seed": 0}
UNTIL = "2024-01-25"


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return open_dataset()


@pytest.fixture(scope="module")
def split(sample: Dataset) -> Split:
    return splits.temporal(sample, UNTIL)


@pytest.fixture(scope="module")
def models(sample: Dataset, split: Split) -> dict:
    return leaderboard_models.fitted(sample, split, seed=0)


@pytest.fixture(scope="module")
def lists(models: dict, split: Split) -> dict:
    return leaderboard.lists_of(models, split, 10)


@pytest.fixture(scope="module")
def values(lists: dict, sample: Dataset, split: Split) -> pd.DataFrame:
    return leaderboard.measure(lists, sample, split, 10)


def test_every_model_and_baseline_is_there_popularity_beside(models: dict) -> None:
    assert {"blend", "content", "success", "neighbours", "popularity", "as written", "random"} < set(models)
    assert {"collaborative, svd", "collaborative, ease"} < set(models)
    assert all(hasattr(model, "habit_ids_") for model in models.values())


def test_without_the_package_of_als_the_others_remain(
    sample: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderboard_models, "find_spec", lambda name: None)
    assert not leaderboard_models.has_als()
    few = splits.leave_last_out(sample)
    assert "collaborative, als" not in leaderboard_models.models_of_movielens(few, 0)


def test_neighbours_know_nobodys_own_history(models: dict, sample: Dataset, split: Split) -> None:
    neighbours, svd = models["neighbours"], models["collaborative, svd"]
    agreed = neighbours.agreed
    assert 0 < agreed.sum() < len(agreed)
    scores = neighbours.score(sample.users["user_id"].tolist())
    np.testing.assert_array_equal(scores, svd.score_profiles(sample.users, agreed))
    alone = scores[~agreed]
    np.testing.assert_array_equal(alone, np.tile(alone[0], (len(alone), 1)), "who does not agree gets popularity")
    assert len(np.unique(scores[agreed], axis=0)) > 10


def test_too_few_people_are_no_answer(sample: Dataset) -> None:
    late = splits.temporal(sample, sample.habit_tracking["date"].max())
    with pytest.raises(MissingColumn, match="needs people who took up another habit from"):
        leaderboard_models.require_people(late)
    with pytest.raises(MissingColumn, match="needs people who took up another habit later: 0 did"):
        leaderboard_models.last_out(sample.replace(adoptions=sample.adoptions[:0]))


def test_6_1_a_tables_show_every_metric_with_its_interval(values: pd.DataFrame) -> None:
    summary = leaderboard.summarise(values, **DRAW)
    table = board.side_by_side(summary, board.ACCURACY | board.BEYOND)
    assert table.columns.tolist() == ["model", *board.ACCURACY.values(), *board.BEYOND.values()]
    row = summary[(summary["model"] == "blend") & (summary["metric"] == "ndcg@10")].iloc[0]
    cell = table.set_index("model").loc["blend", "NDCG"]
    assert cell == f"{row['estimate']:.3f} ({row['ci_low']:.3f}\u00a0to\u00a0{row['ci_high']:.3f})"
    assert board.leading(summary, level=0.95, k=10).estimate == board.named(summary, "ndcg")["estimate"].max()


def test_differences_are_corrected_for_their_number(values: pd.DataFrame) -> None:
    table = board.against(values, "popularity", **DRAW)
    known = table["p_value"].notna()
    assert (table.loc[known, "q_value"] >= table.loc[known, "p_value"]).all()
    assert table.loc[~known, "q_value"].isna().all()
    found = board.apart(table, "apart", level=0.95)
    assert found["estimate"] == (table["q_value"] < 0.05).sum() <= found["n"]
    same = pd.concat([values[["popularity"]], values[["popularity"]].rename(columns={"popularity": "again"})], axis=1)
    nothing = board.against(same, "popularity", **DRAW)
    assert board.apart(nothing, "apart", level=0.95)["estimate"] == 0, "a model does not differ from itself"


def test_models_that_rank_by_lot_are_rarely_told_from_each_other(split: Split) -> None:
    """Nothing is there: a false alarm in 5 % of 60 pairs, within its 99.9 % binomial limit."""
    lots = [Random(seed).fit(split.train) for seed in range(120)]
    ndcg = [
        ndcg_at_k(leaderboard.recommend(str(one.seed), one, split, 10), split.relevant, 10)[:, None] for one in lots
    ]
    alarms = [
        leaderboard.means(one - other, resamples=200)[0].p_value() < 0.05
        for one, other in zip(ndcg[::2], ndcg[1::2], strict=True)
    ]
    assert sum(alarms) <= binom.ppf(0.999, 60, 0.05)


def test_6_1_f_bands_of_evidence_are_rows_of_the_leaderboard(values: pd.DataFrame, split: Split) -> None:
    bands = splits.evidence_bands(split)
    cold = values.iloc[:40]
    table = board.by_band(values, split, cold, 10, **DRAW)
    assert table["band"].unique().tolist() == ["cold, held out", "warm", "hot"]
    for band in ("warm", "hot"):
        rows = values[(bands == band).to_numpy()]
        here = table[table["band"] == band].set_index("model")
        ndcg = rows["blend", "ndcg@10"]
        assert here.loc["blend", "n"] == ndcg.notna().sum()
        assert here.loc["blend", "estimate"] == pytest.approx(ndcg.mean())
        assert here.loc["blend", "ahead"] == pytest.approx((ndcg - rows["popularity", "ndcg@10"]).mean())
        assert here.loc["blend", "ci_low"] < ndcg.mean() < here.loc["blend", "ci_high"]
    assert np.isnan(table.loc[table["model"] == "popularity", "ahead"]).all()
    found = board.ahead_by_part(table, "band", 10, level=0.95)
    assert [one.key for one in found] == ["ahead_cold_held_out", "ahead_warm", "ahead_hot"]
    assert "popularity" not in set(board.without_popularity(table)["model"])
    shown = board.wide(table, "band")
    assert shown.columns[2] == f"warm, n = {table.loc[table['band'] == 'warm', 'n'].max()}"


def test_6_1_f_protocols_stand_side_by_side(values: pd.DataFrame) -> None:
    order = values.columns.get_level_values("model").unique()
    table = board.protocols({"one": values, "two": values, "three": values[order[::-1]]}, 10, **DRAW)
    found = board.steady(table)
    assert (found["estimate"], found["n"]) == (3, 3)
    upside_down = values.copy()
    upside_down["popularity", "ndcg@10"] = values["popularity", "ndcg@10"] * 0 + 1
    assert board.steady(board.protocols({"one": values, "two": upside_down}, 10, **DRAW))["estimate"] == 1
    with pytest.raises(MissingColumn, match="too few"):
        board.protocols({}, 10, **DRAW)


def test_6_1_d_the_sweep_starts_at_the_lists_without_diversity(
    models: dict, lists: dict, values: pd.DataFrame, sample: Dataset, split: Split
) -> None:
    swept = board.sweep(models["blend"], sample, split, 10)
    judged = np.flatnonzero(np.diff(split.relevant.indptr))
    np.testing.assert_array_equal(swept.index, split.user_ids[judged])
    for metric in ("ndcg@10", "intra_list_diversity@10"):
        np.testing.assert_allclose(swept["0", metric], values["blend", metric].iloc[judged])
    curve = board.curve(swept, 10, **DRAW)
    assert models["blend"].diversity in curve["diversity"].tolist()
    assert curve["variety"].iloc[-1] > curve["variety"].iloc[0] + 0.05
    assert curve["ndcg"].iloc[-1] < curve["ndcg"].iloc[0]
    ndcg, variety = board.price_of_default(swept, models["blend"].diversity, 10, **DRAW)
    assert variety.ci_low > 0
    assert ndcg.estimate == pytest.approx((swept["0.05", "ndcg@10"] - swept["0", "ndcg@10"]).mean())


def test_6_1_d_attention_adds_up_over_categories(lists: dict, sample: Dataset, split: Split) -> None:
    shares = board.exposure_by_category(lists, sample, split)
    assert set(shares["source"]) == {"attention, blend", "attention, popularity", "later adoptions", "catalogue"}
    np.testing.assert_allclose(shares.groupby("source")["share"].sum(), 1)
    together = leaderboard.of_all_lists(lists, len(split.habit_ids), 10)
    found = {one["key"]: one["estimate"] for one in board.attention(together, len(split.user_ids))}
    assert found["coverage_popularity"] < found["coverage_blend"]
    with pytest.raises(MissingColumn, match="category"):
        board.exposure_by_category(lists, sample.replace(habits=sample.habits.drop(columns="category")), split)


def test_6_1_f_what_the_log_showed_is_counted_by_user(lists: dict, sample: Dataset, split: Split) -> None:
    table = board.shown_by_the_log(lists, sample, split)
    log = sample.recommendations
    zones = sample.users.set_index("user_id")["zone"].fillna("UTC")
    checked = 0
    for row, user in enumerate(split.user_ids[:40]):
        mine = log[log["user_id"] == user]
        days = mine["shown_at"].dt.tz_convert(zones[user]).dt.tz_localize(None)
        later = set(mine.loc[days >= pd.Timestamp(UNTIL), "habit_id"])
        if not later:
            assert table.iloc[row].isna().all()
            continue
        listed = [split.habit_ids[item] for item in lists["blend"][row] if item >= 0]
        assert table["blend", "shown"].iloc[row] == pytest.approx(np.mean([habit in later for habit in listed]))
        checked += 1
    assert checked > 5
    met = table[board.TAKEN_UP, "shown"].dropna()
    assert (met == 1).all(), "in the simulated world only what is recommended is taken up"
    with pytest.raises(MissingColumn, match="logged recommendations"):
        board.shown_by_the_log(lists, sample.replace(recommendations=log[:0]), split)


def test_definitions_of_other_toolkits_are_those_that_the_documentation_names() -> None:
    """The example of docs/metrics.md (three relevant habits, hits at ranks 2 and 5), and a user without any."""
    users = 12
    relevant = np.zeros((users, 20))
    relevant[:, [1, 4, 15]] = 1
    relevant[-1] = 0
    ids = np.array([f"u{i}" for i in range(users)], dtype=object)
    habits = np.array([f"h{i}" for i in range(20)], dtype=object)
    relevant = sparse.csr_array(relevant)
    split = Split(Dataset(), relevant, sparse.csr_array(relevant.shape, dtype=bool), ids, habits, None)
    listed = np.tile(np.arange(10, dtype=np.int32), (users, 1))
    table = metric_definitions.definitions(listed, split, 10, **DRAW)
    ndcg = table[table["metric"] == "NDCG"].set_index("toolkits")["estimate"].round(3)
    assert ndcg["RecTools"] == 0.224
    assert ndcg["LensKit"] == 0.544
    assert ndcg["ranx, over all queries"] == pytest.approx(0.478 * 11 / 12, abs=1e-3)
    assert table[table["ours"]].set_index("metric")["estimate"].round(3).to_dict() == {
        "NDCG": 0.478, "recall": 0.667, "precision": 0.2, "average precision": 0.3,
    }  # fmt: skip
    assert table.set_index("definition")["estimate"].round(3)["/ k"] == 0.09
    assert table.loc[table["toolkits"] != "ranx, over all queries", "n"].unique().tolist() == [11]
    lowest, ours, highest = metric_definitions.spread(table)
    assert (lowest["estimate"], ours["estimate"], highest["estimate"]) == pytest.approx((0.224, 0.478, 0.544), abs=1e-3)
    short = metric_definitions.definitions(listed[:, :3], split, 10, **DRAW)
    assert short["estimate"].notna().all(), "lists shorter than k have empty places"


def test_movielens_gives_the_order_that_is_known_elsewhere(shared_data: Path) -> None:
    films, split = leaderboard_models.movielens(shared_data / "movielens-latest-small")
    liked = films.adoptions.groupby("habit_id").size()
    assert liked.min() >= 10
    assert set(films.habits["habit_id"]) == set(liked.index)
    ease = {"ease": CollaborativeModel("ease"), "popularity": Popularity(), "random": Random(0)}
    values = leaderboard.per_user(ease, films, split)
    to_popularity = leaderboard.differences(values, "popularity", resamples=300).set_index(["model", "metric"])
    assert to_popularity.loc[("ease", "ndcg@10"), "ci_low"] > 0
    assert to_popularity.loc[("random", "ndcg@10"), "ci_high"] < 0


def test_movielens_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        MissingColumn, match=r"not in .*: unpack https://files\.grouplens\.org.* there; see data/README\.md"
    ):
        leaderboard_models.movielens(tmp_path)
