"""The fast routine that ranks, against a slow obvious one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from habitlab.models.ranking import top_k


def slowly(scores: np.ndarray, k: int, seen: np.ndarray) -> list[list[int]]:
    """Sort every row: best score first, lower number first among equals, nothing seen, nothing at -inf."""
    return [
        [i for i in sorted(range(len(row)), key=lambda i: (-row[i], i)) if not have[i] and row[i] > -np.inf][:k]
        for row, have in zip(scores, seen, strict=True)
    ]


# Few different values, so that ties are everywhere.
TABLES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(0, 5), st.integers(1, 40)),
    elements=st.sampled_from([-np.inf, -1.5, 0.0, 0.25, 0.5, 1.0, np.inf]),
)


@settings(max_examples=200, deadline=None)
@given(scores=TABLES, k=st.integers(1, 45), data=st.data())
def test_ranks_as_a_plain_sort_does(scores, k, data):
    seen = data.draw(arrays.arrays(np.bool_, scores.shape))
    lists, best = top_k(scores, k, sparse.csr_array(seen))
    expected = slowly(scores, k, seen)
    assert lists.shape == best.shape == (len(scores), k)
    assert [row[row >= 0].tolist() for row in lists] == expected
    assert np.isnan(best[lists < 0]).all()
    for row, number in enumerate(expected):
        assert best[row, : len(number)].tolist() == scores[row, number].tolist()


def test_factors_and_their_product_give_the_same_lists_over_many_blocks():
    generator = np.random.default_rng(0)
    people, things = generator.normal(size=(1300, 8)), generator.normal(size=(90, 8))
    seen = sparse.random_array((1300, 90), density=0.1, format="csr", rng=generator)
    by_factors, best = top_k((people, things), 10, seen)
    by_scores, _ = top_k(people @ things.T, 10, seen)
    assert np.array_equal(by_factors, by_scores)
    assert by_factors.dtype == np.int32
    assert not (seen.toarray()[np.arange(1300)[:, None], by_factors] != 0).any()
    assert (np.diff(best, axis=1) <= 0).all()


def test_the_inputs_stay_as_they_were():
    scores = np.array([[0.1, 0.9, 0.5]])
    top_k(scores, 2, sparse.csr_array([[0, 1, 0]]))
    assert scores.tolist() == [[0.1, 0.9, 0.5]]


def test_a_stored_zero_in_seen_is_seen():
    seen = sparse.csr_array((np.array([0.0]), np.array([1]), np.array([0, 1])), shape=(1, 3))
    assert top_k(np.array([[1, 2, 0]]), 2, seen)[0].tolist() == [[0, 2]]


def test_a_list_longer_than_the_catalogue_has_empty_places():
    lists, best = top_k(np.array([[0.2, 0.7]]), 4)
    assert lists.tolist() == [[1, 0, -1, -1]]
    assert np.isnan(best[0, 2:]).all()
    assert top_k(np.zeros((2, 0)), 3)[0].tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_k_is_a_whole_number_above_zero(k):
    with pytest.raises(ValueError, match="k is a whole number of at least 1"):
        top_k(np.zeros((1, 3)), k)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        top_k(np.array([[0.1, np.nan]]), 1)
    with pytest.raises(ValueError, match="NaN or infinite"):
        top_k((np.array([[np.inf]]), np.array([[1.0]])), 1)
    with pytest.raises(ValueError, match="same order"):
        top_k(np.zeros((2, 3)), 1, sparse.csr_array((3, 2)))
    with pytest.raises(ValueError, match="factors are"):
        top_k((np.zeros((2, 3)), np.zeros((4, 2))), 1)
