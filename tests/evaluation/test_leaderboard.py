"""6.1.f Models side by side: same users, same lists, intervals by user, paired differences."""

from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from habitlab import open_dataset
from habitlab.dataset import Dataset
from habitlab.evaluation import estimates, metrics, splits
from habitlab.evaluation.leaderboard import (
    _draw,
    attribute_vectors,
    compare,
    differences,
    means,
    measure,
    of_all_lists,
    per_user,
    recommend,
    summarise,
)
from habitlab.evaluation.splits import Split
from habitlab.models.baselines import Random


class Fake:
    """Scores by rule; `order` is that of its columns, as a model with habits of its own has."""

    def __init__(self, score: Any, order: list[str] | None = None) -> None:
        self.rule, self.order = score, order

    def fit(self, dataset: Dataset, until: Any = None) -> Self:
        self.habit_ids_ = np.array(self.order or dataset.habits["habit_id"].tolist(), dtype=object)
        return self

    def score(self, user_ids: list[str]) -> np.ndarray:
        return self.rule(user_ids, self.habit_ids_)


def at_random(user_ids: list[str], habits: np.ndarray) -> np.ndarray:
    return np.array([np.random.default_rng([int(user[1:]), 5]).random(len(habits)) for user in user_ids])


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return open_dataset()


@pytest.fixture(scope="module")
def split(sample: Dataset) -> Split:
    return splits.temporal(sample, "2024-01-15")


def oracle_of(split: Split) -> Any:
    """Knows what comes."""
    truth = pd.DataFrame(split.relevant.toarray(), index=split.user_ids, columns=split.habit_ids)
    return lambda user_ids, habits: truth.loc[user_ids, habits].to_numpy()


def test_6_1_f_compare_gives_every_metric_of_every_model(sample: Dataset, split: Split) -> None:
    table = compare({"all-knowing": Fake(oracle_of(split)), "random": Fake(at_random)}, sample, split, k=10)
    assert list(table.columns) == ["model", "metric", "estimate", "ci_low", "ci_high", "n"]
    value = table.set_index(["model", "metric"])
    assert value.loc[("all-knowing", "ndcg@10"), "estimate"] == 1
    assert value.loc[("all-knowing", "recall@10"), "n"] == (np.diff(split.relevant.indptr) > 0).sum()
    random = value.loc[("random", "ndcg@10")]
    assert 0 < random["ci_low"] < random["estimate"] < random["ci_high"] < 0.2
    assert value.loc[("random", "catalogue_coverage@10"), "estimate"] > 0.95
    assert value.loc[["random"], "estimate"].notna().all()
    assert np.isnan(value.loc[("random", "gini@10"), "ci_low"])
    everybody_the_same = Fake(lambda user_ids, habits: np.tile(np.arange(float(len(habits))), (len(user_ids), 1)))
    lists = {
        name: recommend(name, model, split, 5)
        for name, model in (("same", everybody_the_same), ("random", Fake(at_random)))
    }
    top = of_all_lists(lists, len(split.habit_ids), 5).set_index(["model", "metric"])["estimate"]
    assert top["same", "top_tenth_exposure@5"] == pytest.approx(1)
    assert 0.1 < top["random", "top_tenth_exposure@5"] < 0.25


def test_an_estimate_is_the_mean_over_the_users_for_whom_the_metric_is_defined(sample: Dataset, split: Split) -> None:
    model = Fake(at_random).fit(sample)
    scores = pd.DataFrame(model.score(split.user_ids.tolist()), split.user_ids, split.habit_ids)
    scores = scores.mask(split.seen.toarray(), -np.inf)
    lists = np.argsort(-scores.to_numpy(), axis=1)[:, :7]
    assert (recommend("random", model, split, 7) == lists).all()
    expected = metrics.mean_over_users(metrics.ndcg_at_k(lists, split.relevant, 7))
    row = compare({"random": model}, sample, split, k=7).set_index("metric").loc["ndcg@7"]
    assert row["estimate"] == pytest.approx(expected.mean)
    assert row["n"] == expected.n == len(split.user_ids) - expected.undefined


def test_6_1_f_what_a_user_had_before_is_left_out_for_all_models_alike(split: Split) -> None:
    seen = split.seen.toarray()

    def of_what_they_had(user_ids: list[str], habits: np.ndarray) -> np.ndarray:
        return seen[pd.Index(split.user_ids).get_indexer(user_ids)].astype(float)

    for rule in (of_what_they_had, at_random):
        lists = recommend("model", Fake(rule), split, 10)
        assert not seen[np.arange(len(lists))[:, None], lists].any()
    everything = Split(split.train, split.relevant, sparse.csr_array(np.ones_like(seen)), *_rest(split))
    assert (recommend("model", Fake(at_random), everything, 10) == -1).all()


def _rest(split: Split) -> tuple:
    return split.user_ids, split.habit_ids, split.until


def test_an_unfitted_model_is_fitted_to_the_past_and_stays_unfitted(sample: Dataset, split: Split) -> None:
    fits = []

    class Recording(Fake):
        def fit(self, dataset: Dataset, until: Any = None) -> Self:
            fits.append((dataset is split.train, until))
            return super().fit(dataset, until)

    model = Recording(at_random)
    recommend("model", model, split, 3)
    assert fits == [(True, split.until)]
    assert not hasattr(model, "habit_ids_")
    recommend("model", model.fit(sample), split, 3)
    assert len(fits) == 2, "a fitted one is taken as it is"


def test_columns_are_matched_by_habit_and_not_by_place(split: Split) -> None:
    some = [*reversed(split.habit_ids.tolist()[:50]), "only this model knows it"]

    def by_name(user_ids: list[str], habits: np.ndarray) -> np.ndarray:
        return np.tile([int(h[1:]) if h.startswith("h") else 1e9 for h in habits], (len(user_ids), 1))

    lists = recommend("model", Fake(by_name, some), split, 60)
    unseen = ~split.seen.toarray()
    for row, listed in enumerate(lists):
        expected = [item for item in range(49, -1, -1) if unseen[row, item]]
        assert listed[listed >= 0].tolist() == expected


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda u, h: np.full((len(u), len(h)), np.nan), "model 'odd' gives NaN scores"),
        (lambda u, h: np.zeros((len(u), 3)), r"model 'odd' gives scores of shape \(142, 3\)"),
        (lambda u, h: np.full((len(u), len(h)), "high"), "model 'odd' gives scores that are no numbers"),
    ],
)
def test_scores_that_cannot_be_ranked_are_an_error_that_names_the_model(split: Split, rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recommend("odd", Fake(rule), split, 5)


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_k_that_counts_no_places_is_an_error(sample: Dataset, split: Split, k: Any) -> None:
    with pytest.raises(ValueError, match="k counts places"):
        compare({"lot": Random()}, sample, split, k)


@pytest.mark.parametrize("models", [{}, {"three": 3}, [Random()]])
def test_what_is_no_model_is_an_error(sample: Dataset, split: Split, models: Any) -> None:
    with pytest.raises(ValueError, match="`models` holds models by name"):
        compare(models, sample, split)


def test_differences_are_paired(sample: Dataset, split: Split) -> None:
    """Two models with nearly the same lists: their difference is known better than from two groups of users."""

    def slightly_other(user_ids: list[str], habits: np.ndarray) -> np.ndarray:
        return at_random(user_ids, habits) + 0.02 * oracle_of(split)(user_ids, habits)

    values = per_user({"random": Fake(at_random), "other": Fake(slightly_other)}, sample, split)
    table = differences(values, "random").set_index("metric")
    row = table.loc["ndcg@10"]
    levels = summarise(values).set_index(["model", "metric"])["estimate"]
    assert row["estimate"] == pytest.approx(levels["other", "ndcg@10"] - levels["random", "ndcg@10"])
    ends = summarise(values).set_index(["model", "metric"])
    width = (ends["ci_high"] - ends["ci_low"])[:, "ndcg@10"]
    assert row["ci_high"] - row["ci_low"] < 0.5 * np.hypot(width["random"], width["other"])
    assert table["model"].unique().tolist() == ["other"]
    with pytest.raises(ValueError, match="no model 'popular'; there are random, other"):
        differences(values, "popular")


def test_a_model_does_not_differ_from_itself(sample: Dataset, split: Split) -> None:
    values = per_user({"one": Fake(at_random), "same": Fake(at_random)}, sample, split)
    table = differences(values, "one")
    assert (table["estimate"] == 0).all()
    assert table[["ci_low", "ci_high", "p_value"]].isna().all(axis=None)


def test_differences_are_of_users_for_whom_both_are_defined() -> None:
    columns = pd.MultiIndex.from_tuples([("one", "ndcg@10"), ("two", "ndcg@10")], names=["model", "metric"])
    values = pd.DataFrame(np.random.default_rng(0).random((40, 2)), columns=columns)
    values.iloc[:10, 0] = values.iloc[5:20, 1] = np.nan
    row = differences(values, "one").iloc[0]
    assert row["n"] == 20
    assert row["estimate"] == pytest.approx((values.iloc[20:, 1] - values.iloc[20:, 0]).mean())


def test_popularity_and_novelty_know_nothing_of_the_future(sample: Dataset, split: Split) -> None:
    """In a world that ends with the split the same lists are as novel and as serendipitous."""
    lists = {"random": recommend("random", Fake(at_random), split, 10)}
    kinds = ["novelty@10", "serendipity@10", "miscalibration@10", "intra_list_diversity@10"]
    whole, ended = (measure(lists, data, split, 10)["random"][kinds] for data in (sample, split.train))
    pd.testing.assert_frame_equal(whole, ended)


def test_bands_of_users_are_rows_of_the_same_table(sample: Dataset, split: Split) -> None:
    values = per_user({"random": Fake(at_random)}, sample, split)
    band = np.arange(len(values)) < 40
    part = summarise(values[band]).set_index("metric")
    assert part.loc["novelty@10", "n"] == 40
    alone = summarise(values[band][[("random", "novelty@10")]])
    assert alone["ci_low"][0] == part.loc["novelty@10", "ci_low"], "one column is drawn as with the others"


def test_means_are_what_the_general_bootstrap_gives() -> None:
    generator = np.random.default_rng(0)
    values = generator.exponential(size=(300, 3))
    values[generator.random(values.shape) < 0.3] = np.nan
    defined = np.isfinite(values)
    general = estimates.resample(
        np.hstack([np.where(defined, values, 0), defined]), estimates.ratios, resamples=4000, seed=1
    )
    low, high = general.interval()
    for column, fast in enumerate(means(values, resamples=4000, seed=2)):
        width = high[column] - low[column]
        assert fast.estimate[0] == pytest.approx(general.estimate[column], rel=1e-12)
        assert fast.standard_error[0] == pytest.approx(general.standard_error[column], rel=0.01)
        assert fast.acceleration[0] == pytest.approx(general.acceleration[column], rel=0.02)
        assert np.ravel(fast.interval()) == pytest.approx([low[column], high[column]], abs=0.06 * width)
        assert fast.n == defined[:, column].sum()


def test_every_user_is_drawn_as_often_as_any_other() -> None:
    counts = _draw(np.random.SFC64(0), 4000, 57)
    assert (counts.sum(axis=1) == 57).all()
    spread = ((counts.sum(axis=0) - 4000) ** 2 / 4000).sum()
    assert 0.001 < stats.chi2.sf(spread, 56) < 0.999
    assert counts.var() == pytest.approx(1 - 1 / 57, rel=0.02), "multinomial, not one each"


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    """400 samples of 80 users with a skewed metric that is undefined for some: 95 % within 99.9 % binomial limits."""
    generator = np.random.default_rng(7)
    values = generator.beta(0.5, 2, size=(80, 400))
    values[generator.random(values.shape) < 0.2] = np.nan
    held = sum(low <= 0.2 <= high for low, high in (one.interval() for one in means(values, resamples=600)))
    low, high = stats.binom.ppf([0.0005, 0.9995], 400, 0.95)
    assert low <= held <= high


@pytest.mark.parametrize(
    "values", [np.full((30, 1), np.nan), np.ones((30, 1)), np.eye(30)[:, :1][:1], np.empty((0, 1))]
)
def test_what_has_no_interval_has_none(values: np.ndarray) -> None:
    frame = pd.DataFrame(values, columns=pd.MultiIndex.from_tuples([("model", "metric")]))
    row = summarise(frame).iloc[0]
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert row["n"] == np.isfinite(values).sum()


def test_the_same_call_gives_the_same_table(sample: Dataset, split: Split) -> None:
    first, again = (compare({"random": Fake(at_random)}, sample, split) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = compare({"random": Fake(at_random)}, sample, split, seed=1)
    assert (first["ci_low"].dropna() != other["ci_low"].dropna()).any()


def test_data_without_attributes_have_no_metrics_of_them(sample: Dataset, split: Split) -> None:
    bare = sample.replace(habits=sample.habits[["habit_id", "name_en"]])
    found = compare({"random": Fake(at_random)}, bare, split)["metric"]
    assert not found.str.contains("diversity|category|calibration").any()
    assert attribute_vectors(bare.habits).shape == (171, 0)
    vectors = attribute_vectors(sample.habits)
    assert set(vectors.data) == {1.0}
