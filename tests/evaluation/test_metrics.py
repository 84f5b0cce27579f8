"""6.1.a-e Metrics of ranked lists: against slow oracles, scikit-learn, published values, and bad input."""

import doctest
import math
import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import ndcg_score, precision_score, recall_score

from habitlab.evaluation import metrics, ranked_lists
from habitlab.evaluation.fairness.fairness_of_models import user_exposure
from habitlab.evaluation.metrics import from_frames, mean_over_users
from habitlab.models.ranking import top_k

RANKED = {
    "precision": metrics.precision_at_k,
    "recall": metrics.recall_at_k,
    "capped recall": metrics.capped_recall_at_k,
    "hit rate": metrics.hit_rate_at_k,
    "average precision": metrics.average_precision_at_k,
    "reciprocal rank": metrics.reciprocal_rank_at_k,
    "ndcg": metrics.ndcg_at_k,
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Lists with gaps and short ends, gains with zeros, and a k that may be longer than the lists."""
    users, items, places = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(0, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lists = np.full((users, places), -1)
    for row in lists:
        length = generator.integers(0, min(places, items) + 1)
        row[generator.permutation(places)[:length]] = generator.permutation(items)[:length]
    levels = draw(st.sampled_from([[0, 1], [0, 0, 1, 2, 3], [0, 0.5, 0.25]]))
    return lists, generator.choice(levels, size=(users, items)), draw(st.integers(1, 8))


def slowly(name: str, row: np.ndarray, gains: np.ndarray, k: int) -> float:
    """The definition, word by word, for one user."""
    relevant = [item for item in range(len(gains)) if gains[item] > 0]
    hit = [item in relevant for item in row[:k]]
    if not relevant:
        return math.nan
    if name == "precision":
        return sum(hit) / k
    if name == "recall":
        return sum(hit) / len(relevant)
    if name == "capped recall":
        return sum(hit) / min(k, len(relevant))
    if name == "hit rate":
        return float(any(hit))
    if name == "average precision":
        return sum(sum(hit[: r + 1]) / (r + 1) for r in range(len(hit)) if hit[r]) / min(k, len(relevant))
    if name == "reciprocal rank":
        return next((1 / (r + 1) for r in range(len(hit)) if hit[r]), 0.0)
    dcg = sum(gains[row[r]] / math.log2(r + 2) for r in range(len(hit)) if hit[r])
    best = sorted((gains[item] for item in relevant), reverse=True)[:k]
    return dcg / sum(gain / math.log2(r + 2) for r, gain in enumerate(best))


@pytest.mark.parametrize("name", RANKED)
@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_6_1_abc_each_metric_is_its_definition(name: str, case: tuple[np.ndarray, np.ndarray, int]) -> None:
    lists, gains, k = case
    expected = [slowly(name, row, gain, k) for row, gain in zip(lists, gains, strict=True)]
    got = RANKED[name](lists, sparse.csr_array(gains), k)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    with pytest.MonkeyPatch.context() as patch:  # as for long lists
        patch.setattr(metrics, "_FEW", -1)
        np.testing.assert_array_equal(RANKED[name](lists, sparse.csr_array(gains), k), got)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12))
def test_6_1_c_ndcg_equals_scikit_learn_where_someone_likes_something(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    gains = generator.integers(0, 4, size=(7, 10)).astype(float)
    scores = generator.permuted(np.tile(np.arange(10.0), (7, 1)), axis=1)
    ours = metrics.ndcg_at_k(np.argsort(-scores, axis=1), sparse.csr_array(gains), k)
    known = gains.any(axis=1)
    assert ours[known].mean() == pytest.approx(ndcg_score(gains[known], scores[known], k=k, ignore_ties=True))


def _with_ties(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gains of 8 users for 10 items, of the first user none; and lists by scores of which many are equal."""
    generator = np.random.default_rng(seed)
    gains = (generator.random((8, 10)) < 0.25).astype(int)
    gains[0] = 0
    return gains, top_k(generator.integers(0, 3, size=(8, 10)).astype(float), 10)[0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 10))
def test_6_1_a_precision_equals_scikit_learn(seed: int, k: int) -> None:
    gains, lists = _with_ties(seed)
    chosen = np.array([np.isin(np.arange(10), row[:k]) for row in lists])
    expected = [precision_score(*one) if one[0].any() else np.nan for one in zip(gains, chosen, strict=True)]
    np.testing.assert_allclose(metrics.precision_at_k(lists, sparse.csr_array(gains), k), expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 10))
def test_6_1_b_recall_equals_scikit_learn(seed: int, k: int) -> None:
    gains, lists = _with_ties(seed)
    chosen = np.array([np.isin(np.arange(10), row[:k]) for row in lists])
    expected = [recall_score(*one) if one[0].any() else np.nan for one in zip(gains, chosen, strict=True)]
    np.testing.assert_allclose(metrics.recall_at_k(lists, sparse.csr_array(gains), k), expected)
    number = gains.sum(axis=1)
    capped = np.array(expected) * number / np.where(number > 0, np.minimum(number, k), 1)
    np.testing.assert_allclose(metrics.capped_recall_at_k(lists, sparse.csr_array(gains), k), capped)


@pytest.mark.parametrize("name", RANKED)
def test_a_k_beyond_the_catalogue_is_as_long_as_the_catalogue(name: str) -> None:
    lists, relevant = np.array([[4, 1, -1], [0, 2, 3]]), sparse.csr_array([[0, 1, 1, 0, 0], [2, 0, 1, 0, 1]])
    share = 5e-12 if name == "precision" else 1
    np.testing.assert_allclose(RANKED[name](lists, relevant, 10**12), RANKED[name](lists, relevant, 5) * share)


def test_several_metrics_in_one_go_are_those_of_each() -> None:
    lists, relevant = np.array([[4, 1, -1], [0, 2, 3]]), sparse.csr_array([[0, 1, 1, 0, 0], [2, 0, 1, 0, 1]])
    names = [name.replace(" ", "_") for name in RANKED]
    found = metrics.several_at_k(lists, relevant, 2, names)
    assert list(found) == names
    for name, one in zip(names, RANKED.values(), strict=True):
        np.testing.assert_array_equal(found[name], one(lists, relevant, 2))
    with pytest.raises(ValueError, match="no metric 'accuracy'; there are precision, recall"):
        metrics.several_at_k(lists, relevant, 2, ["accuracy"])


def test_6_1_c_ndcg_of_the_best_list_is_exactly_one() -> None:
    generator = np.random.default_rng(0)
    gains = generator.random((200, 40)) * (generator.random((200, 40)) < 0.3)
    best = np.argsort(-gains, axis=1)
    for values in (gains, (gains > 0).astype(float)):
        got = metrics.ndcg_at_k(best, sparse.csr_array(values), 20)
        assert (got[values.any(axis=1)] == 1).all()


def test_6_1_c_ndcg_of_the_textbook_example() -> None:
    """Relevance 3, 2, 3, 0, 1, 2: DCG 6.861, of the best order 7.141 (Wikipedia, Discounted cumulative gain)."""
    value = metrics.ndcg_at_k(np.arange(6)[None], sparse.csr_array([[3, 2, 3, 0, 1, 2]]), 6)[0]
    assert value == pytest.approx(6.861 / 7.141, abs=1e-4)


def test_6_1_a_average_precision_of_the_textbook_example() -> None:
    """Two queries of Croft, Metzler and Strohman 2010, Search Engines, 8.4.2: 0.62 and 0.44, mean 0.53."""
    relevant = np.zeros((2, 10))
    relevant[0, [0, 2, 5, 8, 9]] = 1
    relevant[1, [1, 4, 6]] = 1
    values = metrics.average_precision_at_k(np.tile(np.arange(10), (2, 1)), sparse.csr_array(relevant), 10)
    assert values.round(2).tolist() == [0.62, 0.44]
    assert mean_over_users(values).mean == pytest.approx(0.53, abs=0.005)


def test_6_1_a_values_that_rectools_prints_in_its_documentation() -> None:
    """Four users as in its examples of MAP and serendipity, where the definitions agree."""
    lists = np.array([[7, 8, -1, -1], [1, 2, -1, -1], [1, 2, 3, 4], [1, 2, 3, -1]])
    relevant = sparse.lil_array((4, 9))
    for user, item in [(0, 1), (0, 2), (1, 1), (2, 1), (2, 3), (2, 4), (3, 1), (3, 2), (3, 3)]:
        relevant[user, item] = 1
    got = metrics.average_precision_at_k(lists, relevant, 3)
    np.testing.assert_allclose(got, [0, 1, 0.55555556, 1], rtol=1e-6)

    lists = np.array([[0, 1], [1, 2], [2, -1], [1, 2]])
    relevant = sparse.csr_array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    got = metrics.serendipity_at_k(lists, relevant, [3, 2, 0, 0], 2)
    np.testing.assert_allclose(got, [0, 0.5, 0, 0.125])

    lists = np.array([[2, -1], [1, 2], [0, 1]])
    shares = np.array([3, 1, 1]) / 3  # RecTools counts the third item, which nobody has, as if one user had it
    np.testing.assert_allclose(metrics.novelty(lists, shares), [1.5849625, 1.5849625, 0.79248125])


@pytest.mark.parametrize("name", RANKED)
def test_d85_undefined_is_nan_and_nothing_found_is_zero(name: str) -> None:
    relevant = sparse.csr_array([[0, 0, 0], [1, 0, 0], [1, 0, 0]])
    got = RANKED[name](np.array([[0, 1], [-1, -1], [1, 0]]), relevant, 1)
    np.testing.assert_array_equal(got, [np.nan, 0, 0])
    assert mean_over_users(got) == (0.0, 2, 1)
    assert math.isnan(mean_over_users(got[:1]).mean)


@pytest.mark.parametrize("name", RANKED)
def test_gains_written_as_zero_twice_or_out_of_order_are_what_they_add_up_to(name: str) -> None:
    plain = sparse.csr_array([[0, 2.0, 0, 1.0], [0, 0, 1.0, 0]])
    odd = sparse.csr_array(
        (np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]), np.array([3, 0, 1, 1, 3, 2]), np.array([0, 4, 6])), shape=(2, 4)
    )
    before = odd.copy()
    lists = np.array([[0, 1, 3], [3, 2, 0]])
    np.testing.assert_array_equal(RANKED[name](lists, odd, 3), RANKED[name](lists, plain, 3))
    assert (odd.indices == before.indices).all(), "the caller's matrix stays as it was"
    assert (odd.data == before.data).all()
    for other in (sparse.coo_array(plain), sparse.csc_array(plain), sparse.csr_matrix(plain)):
        np.testing.assert_array_equal(RANKED[name](lists, other, 3), RANKED[name](lists, plain, 3))


TWO = sparse.csr_array([[1.0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize(
    ("lists", "relevant", "k", "message"),
    [
        ([[0, 0], [1, 2]], TWO, 1, "item 0 stands twice in the list of row 0"),
        ([[0, 1], [2, 2]], TWO, 1, "item 2 stands twice in the list of row 1"),
        ([[0, 1], [1, 2]], TWO, 0, "k counts places"),
        ([[0, 1], [1, 2]], TWO, 1.5, "k counts places"),
        ([[0, 1], [1, 2]], TWO, True, "k counts places"),
        ([[0, 3], [1, 2]], TWO, 1, "item 3 in row 0, place 2: outside the catalogue of 3 items"),
        ([[0, -2], [1, 2]], TWO, 1, "item -2 in row 0"),
        ([[0, np.nan], [1, 2]], TWO, 1, "whole numbers"),
        ([0, 1], TWO, 1, r"array \(users, places\)"),
        ([[0, 1]], TWO, 1, "lists of 1 users, but items of 2"),
        ([[0, 1], [1, 2]], TWO.toarray(), 1, "sparse matrix"),
        ([[0, 1], [1, 2]], -TWO, 1, "not negative; 2 are not"),
        ([[0, 1], [1, 2]], TWO * np.nan, 1, "finite"),
        ([[0, 1], [1, 2]], TWO * np.inf, 1, "finite"),
        ([[0, 1], [1, 2]], TWO * 1e308, 1, "too large to be added up"),
    ],
)
def test_bad_input_is_an_error_that_names_it(
    name: str, lists: list, relevant: sparse.csr_array, k: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RANKED[name](np.array(lists), relevant, k)


def test_lists_of_different_lengths_are_told_how_to_be_filled_up() -> None:
    with pytest.raises(ValueError, match="lists as long as each other, filled up with -1"):
        metrics.precision_at_k([[0, 1], [2]], TWO, 1)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64])
def test_lists_are_the_same_in_integers_of_any_size(dtype: type) -> None:
    """The highest item, and products of items, lie beyond the smaller of them."""
    generator = np.random.default_rng(0)
    items = min(500, int(np.iinfo(dtype).max) + 1)
    lists = np.argsort(generator.random((40, items)), axis=1)[:, :6]
    lists[0, 0] = items - 1
    lists[0, 1:] = np.arange(5)
    relevant, names = sparse.random_array((40, items), density=0.2, rng=generator, format="csr"), np.arange(items) % 7
    vectors, popularity = generator.random((items, 4)), (np.arange(items) + 1) / items

    def all_of_them(lists: np.ndarray) -> list:
        return [
            *(function(lists, relevant, 4) for function in RANKED.values()),
            metrics.serendipity_at_k(lists, relevant, popularity, 4),
            metrics.intra_list_diversity(lists, vectors),
            metrics.novelty(lists, popularity),
            metrics.category_coverage(lists, names),
            metrics.miscalibration(lists, relevant, names),
            metrics.exposure(lists, items),
            metrics.gini(lists, items),
            metrics.catalogue_coverage(lists, items),
        ]

    for one, other in zip(all_of_them(lists), all_of_them(lists.astype(dtype)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", RANKED)
def test_lists_without_any_place_find_nothing(name: str) -> None:
    assert RANKED[name](np.array([[], []]), TWO, 3).tolist() == [0, 0]
    assert np.isnan(metrics.intra_list_diversity([[], []], np.eye(3))).all()
    assert np.isnan(metrics.novelty([[], []], [0.5])).all()


@pytest.mark.parametrize("places", [5, 40])
def test_repeats_are_found_wherever_they_stand_and_empty_places_are_none(places: int) -> None:
    lists = np.tile(np.arange(places), (5000, 1))
    lists[:, 2:4] = -1
    nothing = sparse.csr_array((5000, 100))
    assert np.isnan(metrics.precision_at_k(lists, nothing, 3)).all()
    lists[4321, -1] = 0
    with pytest.raises(ValueError, match="item 0 stands twice in the list of row 4321"):
        metrics.precision_at_k(lists, nothing, 3)


@settings(max_examples=100, deadline=None)
@given(case=cases(), dimensions=st.integers(1, 4), seed=st.integers(0, 1000))
def test_6_1_d_diversity_is_the_mean_distance_of_pairs(
    case: tuple[np.ndarray, np.ndarray, int], dimensions: int, seed: int
) -> None:
    lists, gains, _ = case
    vectors = np.random.default_rng(seed).integers(-2, 3, size=(gains.shape[1], dimensions)).astype(float)

    def distance(a: int, b: int) -> float:
        lengths = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
        return 1 - vectors[a] @ vectors[b] / lengths if lengths else 1.0

    expected = []
    for row in lists:
        distances = [distance(a, b) for a, b in combinations(row[row >= 0], 2)]
        expected.append(np.mean(distances) if distances else np.nan)
    np.testing.assert_allclose(metrics.intra_list_diversity(lists, vectors), expected, atol=1e-12)
    np.testing.assert_allclose(metrics.intra_list_diversity(lists, sparse.csr_array(vectors)), expected, atol=1e-12)
    unit = metrics._unit_vectors(vectors)
    for (here, sums), (again, pairs) in zip(
        metrics._alike_by_sums(lists, unit), metrics._alike_by_pairs(lists, unit), strict=True
    ):  # whichever the sizes choose
        assert here == again
        np.testing.assert_allclose(sums, pairs, atol=1e-12)


def test_6_1_d_diversity_does_not_hang_on_the_scale_of_vectors() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 1.0]])
    for scale in (1, 1e-300, 1e300):
        assert metrics.intra_list_diversity(np.array([[0, 1]]), vectors * scale)[0] == pytest.approx(1 - 0.5**0.5)
    with pytest.raises(ValueError, match="finite"):
        metrics.intra_list_diversity(np.array([[0, 1]]), vectors * np.nan)


@settings(max_examples=100, deadline=None)
@given(case=cases(), seed=st.integers(0, 1000))
def test_6_1_d_coverage_gini_exposure_and_categories_are_their_definitions(
    case: tuple[np.ndarray, np.ndarray, int], seed: int
) -> None:
    lists, gains, _ = case
    items = gains.shape[1]
    counts = [sum(item in row for row in lists) for item in range(items)]
    assert metrics.catalogue_coverage(lists, items) == np.mean([count > 0 for count in counts])
    differences = sum(abs(a - b) for a in counts for b in counts)  # half the relative mean absolute difference
    gini = differences / (2 * items * sum(counts)) if sum(counts) else np.nan
    assert metrics.gini(lists, items) == pytest.approx(gini, nan_ok=True)

    attention = [
        sum(1 / math.log2(r + 2) for row in lists for r in range(len(row)) if row[r] == i) for i in range(items)
    ]
    expected = np.array(attention) / sum(attention) if sum(attention) else np.full(items, np.nan)
    np.testing.assert_allclose(metrics.exposure(lists, items), expected)

    names = np.random.default_rng(seed).choice(["diet", "sleep", "sport", None], size=items)
    known = {name for name in names if name}
    covered = [len({names[i] for i in row[row >= 0]} & known) / len(known) if known else np.nan for row in lists]
    np.testing.assert_allclose(metrics.category_coverage(lists, names), covered)


@settings(max_examples=100, deadline=None)
@given(case=cases(), seed=st.integers(0, 1000))
def test_calibration_of_recommendations_is_the_divergence_of_categories(
    case: tuple[np.ndarray, np.ndarray, int], seed: int
) -> None:
    lists, gains, _ = case
    names = np.random.default_rng(seed).choice(["diet", "sleep", "sport", None], size=gains.shape[1])
    known = sorted({name for name in names if name})
    expected = []
    for row, weights in zip(lists, gains, strict=True):
        p = np.array([weights[names == name].sum() for name in known])
        q = np.array([(names[row[row >= 0]] == name).sum() for name in known], dtype=float)
        if not p.sum() or not q.sum():
            expected.append(np.nan)
            continue
        p, q = p / p.sum(), q / q.sum()
        expected.append(sum(a * math.log(a / (0.9 * b + 0.1 * a)) for a, b in zip(p, q, strict=True) if a > 0))
    got = metrics.miscalibration(lists, sparse.csr_array(gains), names, alpha=0.1)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_calibration_of_recommendations_checks_what_it_gets() -> None:
    history = sparse.csr_array([[1.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match="alpha"):
        metrics.miscalibration(np.array([[0]]), history, ["a", "b", "c"], alpha=0)
    with pytest.raises(ValueError, match="`history` has 3 items, `categories` 2"):
        metrics.miscalibration(np.array([[0]]), history, ["a", "b"])


@settings(max_examples=100, deadline=None)
@given(case=cases(), seed=st.integers(0, 1000))
def test_6_1_e_serendipity_and_novelty_are_their_definitions(
    case: tuple[np.ndarray, np.ndarray, int], seed: int
) -> None:
    lists, gains, k = case
    items = gains.shape[1]
    popularity = np.random.default_rng(seed).integers(0, 4, size=items) / 4
    levels = sorted(set(popularity), reverse=True)
    general = [(items - levels.index(share)) / items if share else 0.0 for share in popularity]
    expected = [
        sum(
            max((items - r) / items - general[item], 0)
            for r, item in enumerate(row[:k])
            if item >= 0 and gain[item] > 0
        )
        / k
        if gain.any()
        else np.nan
        for row, gain in zip(lists, gains, strict=True)
    ]
    np.testing.assert_allclose(metrics.serendipity_at_k(lists, sparse.csr_array(gains), popularity, k), expected)

    shares = (popularity + 0.1) / 1.1
    bits = [np.mean([-math.log2(shares[i]) for i in row[row >= 0]]) if (row >= 0).any() else np.nan for row in lists]
    np.testing.assert_allclose(metrics.novelty(lists, shares), bits)


def test_6_1_e_a_hit_that_everybody_gets_is_not_serendipitous() -> None:
    relevant = sparse.csr_array([[1, 1, 0]])
    popularity = [0.9, 0.2, 0.1]
    obvious = metrics.serendipity_at_k(np.array([[0, 2]]), relevant, popularity)
    surprising = metrics.serendipity_at_k(np.array([[1, 2]]), relevant, popularity)
    irrelevant = metrics.serendipity_at_k(np.array([[2, -1]]), relevant, popularity)
    assert obvious == 0
    assert surprising > 0
    assert irrelevant == 0


@pytest.mark.parametrize(
    ("popularity", "message"),
    [
        ([0.5, 0.0], "1 recommended items have popularity 0"),
        ([0.5, 30], "shares of users, 0 to 1; the highest is 30"),
        ([0.5, np.nan], "finite"),
        ([0.5, -0.1], "not negative"),
        ([[0.5, 0.1]], "a number for each"),
    ],
)
def test_novelty_of_what_cannot_be_a_share_is_an_error(popularity: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.novelty(np.array([[0, 1]]), popularity)
    assert metrics.novelty(np.array([[0]]), [0.5, 0.0])[0] == 1, "an item that is not listed may have no user"


def test_lists_are_the_same_in_one_block_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    lists = np.argsort(generator.random((300, 30)), axis=1)[:, :6]
    lists[generator.random(lists.shape) < 0.2] = -1
    relevant = sparse.csr_array(generator.choice([0, 0, 0, 1, 2.5], size=(300, 30)))
    vectors, names = generator.random((30, 3)), generator.choice(["a", "b"], size=30)
    popularity = generator.random(30)

    def all_of_them() -> list:
        return [
            *(function(lists, relevant, 4) for function in RANKED.values()),
            metrics.serendipity_at_k(lists, relevant, popularity, 4),
            metrics.intra_list_diversity(lists, vectors),
            metrics.novelty(lists, popularity),
            metrics.category_coverage(lists, names),
            metrics.miscalibration(lists, relevant, names),
            metrics.exposure(lists, 30),
            metrics.gini(lists, 30),
        ]

    whole = all_of_them()
    for size in (7, 1):  # 1: more blocks than there are marks to tell them apart
        monkeypatch.setattr(ranked_lists, "_BLOCK", size)
        monkeypatch.setattr(metrics, "_MANY", 2 * size)
        for one, other in zip(whole, all_of_them(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-14)


def test_memory_does_not_grow_with_users_beyond_inputs_and_outputs() -> None:
    """An array of all users held beside the output would be 2.4 MB here, and 8 MB for each million."""
    users, items = 300_000, 40
    generator = np.random.default_rng(5)
    lists = (np.arange(5, dtype=np.int32) * 7 + generator.integers(0, items, (users, 1), dtype=np.int32)) % items
    held = generator.integers(0, items, users)
    relevant = sparse.csr_array((np.ones(users), held, np.arange(users + 1)), shape=(users, items))
    graded, popularity, names = relevant * 2.0, np.full(items, 0.5), np.arange(items) % 4
    calls = {name: lambda f=function: f(lists, relevant, 4) for name, function in RANKED.items()} | {
        "graded ndcg": lambda: metrics.ndcg_at_k(lists, graded, 4),
        "ndcg of long lists": lambda: metrics.ndcg_at_k(lists, graded, 40),
        "serendipity": lambda: metrics.serendipity_at_k(lists, relevant, popularity, 4),
        "diversity": lambda: metrics.intra_list_diversity(lists, np.eye(items)),
        "novelty": lambda: metrics.novelty(lists, popularity),
        "categories": lambda: metrics.category_coverage(lists, names),
        "miscalibration": lambda: metrics.miscalibration(lists, relevant, names),
        "exposure": lambda: metrics.exposure(lists, items),
        "coverage": lambda: metrics.catalogue_coverage(lists, items),
        "gini": lambda: metrics.gini(lists, items),
        "good ones": lambda: user_exposure(lists, relevant),
    }
    for name, call in calls.items():
        tracemalloc.start()
        kept = call()
        output, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - output < 2e6, f"{name}: {(peak - output) / 1e6:.1f} MB beside its output"
        del kept


def test_nothing_of_another_block_is_taken_for_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 600 blocks is asked for what was relevant in any other."""
    monkeypatch.setattr(ranked_lists, "_BLOCK", 1)
    users = 600
    for shift in (1, 254, 255, 256, 345):
        lists = (np.arange(users)[:, None] + shift) % users
        assert metrics.precision_at_k(lists, sparse.eye_array(users, format="csr"), 1).sum() == 0, shift


def test_long_tables_give_the_same_arrays() -> None:
    generator = np.random.default_rng(1)
    rows = pd.DataFrame(
        [(f"u{u}", f"h{h}", r + 1) for u in range(30) for r, h in enumerate(generator.permutation(12)[:5])],
        columns=["user_id", "habit_id", "rank"],
    ).sample(frac=1, random_state=0)
    truth = pd.DataFrame(
        [(f"u{u}", f"h{h}") for u in range(2, 32) for h in generator.permutation(12)[: generator.integers(1, 4)]],
        columns=["user_id", "habit_id"],
    )
    ranked = from_frames(rows, truth, habit_ids=[f"h{h}" for h in range(12)])
    assert ranked.recommended.shape == (32, 5)
    got = pd.Series(metrics.recall_at_k(ranked.recommended, ranked.relevant, 3), index=ranked.user_ids)
    for user in ranked.user_ids:
        wanted = set(truth.loc[truth["user_id"] == user, "habit_id"])
        offered = set(rows.loc[(rows["user_id"] == user) & (rows["rank"] <= 3), "habit_id"])
        assert got[user] == pytest.approx(len(wanted & offered) / len(wanted) if wanted else np.nan, nan_ok=True)
    assert got["u31"] == 0, "a user without a list has an empty one"
    assert math.isnan(got["u0"]), "a user without relevant habits has no recall"
    graded = from_frames(rows, truth.assign(gain=2.0)).relevant
    assert set(graded.data) == {2.0}
    nothing = from_frames(rows.iloc[:0], truth)
    assert metrics.ndcg_at_k(nothing.recommended, nothing.relevant, 5).tolist() == [0.0] * 30


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"rank": [1, 1]}, "user 'ann' has two habits at rank 1"),
        ({"rank": [0, 1]}, "whole numbers from 1"),
        ({"rank": [1, np.nan]}, "whole numbers from 1"),
        ({"rank": [1, np.inf]}, "whole numbers from 1"),
        ({"rank": [1.5, 2]}, "whole numbers from 1"),
        ({"rank": ["1", "2"]}, "whole numbers from 1"),
        ({"rank": [1, 10**9]}, "beyond the 2 habits"),
        ({"user_id": ["ann", None]}, "1 rows have no user_id"),
        ({"habit_id": ["walk", "swim"]}, "not in the catalogue, such as 'swim'"),
    ],
)
def test_long_tables_that_are_no_lists_are_an_error(rows: dict, message: str) -> None:
    good = {"user_id": ["ann", "ann"], "habit_id": ["walk", "read"], "rank": [1, 2]}
    truth = pd.DataFrame({"user_id": ["ann"], "habit_id": ["read"]})
    with pytest.raises(ValueError, match=message):
        from_frames(pd.DataFrame(good | rows), truth, habit_ids=["walk", "read"])
    with pytest.raises(ValueError, match="it lacks rank"):
        from_frames(pd.DataFrame(good).drop(columns="rank"), truth)


def test_a_habit_taken_up_twice_is_relevant_once() -> None:
    lists = pd.DataFrame({"user_id": ["ann", "ann"], "habit_id": ["walk", "read"], "rank": [1, 2]})
    truth = pd.DataFrame({"user_id": "ann", "habit_id": ["read", "read", "walk"]})
    assert from_frames(lists, truth).relevant.toarray().tolist() == [[1, 1]]
    assert from_frames(lists, truth.assign(gain=[1, 2, 1])).relevant.toarray().tolist() == [[1, 3]]


def test_ids_of_another_kind_or_twice_in_the_catalogue_are_an_error() -> None:
    lists = pd.DataFrame({"user_id": [1, 1], "habit_id": ["walk", "read"], "rank": [1, 2]})
    truth = pd.DataFrame({"user_id": ["1"], "habit_id": ["read"]})
    with pytest.raises(ValueError, match="`user_id` holds numbers in one table and none in the other"):
        from_frames(lists, truth)
    with pytest.raises(ValueError, match="`habit_ids` names 1 habits twice, such as 'read'"):
        from_frames(lists, truth.assign(user_id=1), habit_ids=["walk", "read", "read"])


@pytest.mark.parametrize("module", [metrics, ranked_lists])
def test_examples_in_docstrings_are_right(module: object) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert not failed


def test_the_example_in_the_documentation_is_right() -> None:
    """One user, three relevant habits, ten places, hits at ranks 2 and 5."""
    lists, relevant = np.arange(10)[None], np.zeros((1, 12))
    relevant[0, [1, 4, 11]] = 1
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rank = np.arange(1, 11)
    ours = metrics.ndcg_at_k(lists, sparse.csr_array(relevant), 10)[0]
    gained = (relevant[0, :10] / np.log2(rank + 1)).sum()
    of_ten = gained / (1 / np.log2(rank + 1)).sum()
    clipped = 1 / np.log2(np.maximum(rank, 2))
    lenskit = (relevant[0, :10] * clipped).sum() / clipped[:3].sum()
    precision = metrics.average_precision_at_k(lists, sparse.csr_array(relevant), 10)[0]
    for value in (ours, of_ten, lenskit, precision):
        assert f"| {value:.3f} |" in page
    first = np.array([[1]])
    assert metrics.recall_at_k(first, sparse.csr_array(relevant), 1)[0].round(3) == 0.333
    assert metrics.capped_recall_at_k(first, sparse.csr_array(relevant), 1)[0] == 1
