"""Offline metrics of ranked lists: float64 per user, NaN where undefined.

`recommended` is an int array (users, K) of item indices in rank order, -1 for none; `relevant` a scipy sparse matrix
(users, items) whose values are gains: a value above 0 is relevant, an explicit 0 is not, values that stand twice are
added. `k` counts places, not items: a list shorter than k has empty places. A user without relevant items has no value
(NaN); one with relevant items and an empty list has 0. Toolkits disagree on these definitions: see `docs/metrics.md`.

All of them raise ValueError for a k below 1, an item twice in a list, items outside the catalogue, and gains that are
negative or not finite. Users are taken in blocks: memory does not grow with their number beyond inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Items = npt.NDArray[np.integer]

_BLOCK = 1024  # users at once, so that a table of users and items stays in the processor's cache
_CELLS = 1 << 22


class _Relevant(NamedTuple):
    """Relevant items of each user, without zeros and repeats; `gains` is None where all are 1."""

    indptr: npt.NDArray[np.integer]
    indices: npt.NDArray[np.integer]
    gains: Floats | None
    number: npt.NDArray[np.integer]
    items: int


def precision_at_k(recommended: Items, relevant: sparse.csr_array, k: int) -> Floats:
    """Share of the k places that hold a relevant item: hits / k, (users,).

    Source: Manning, Raghavan and Schuetze 2008, Introduction to Information Retrieval, 8.4.

    >>> relevant = sparse.csr_array([[1, 0, 1, 0], [0, 0, 0, 0]])
    >>> precision_at_k(np.array([[0, 1, 2], [0, 1, 2]]), relevant, k=2)
    array([0.5, nan])
    """
    lists, truth = _checked(recommended, relevant, k)
    return _defined(_hits(lists, truth, k) / k, truth)


def recall_at_k(recommended: Items, relevant: sparse.csr_array, k: int) -> Floats:
    """Share of the relevant items that stand in the first k places: hits / |relevant|, (users,).

    With more than k relevant items it cannot reach 1: see `capped_recall_at_k`.
    Source: Manning, Raghavan and Schuetze 2008, Introduction to Information Retrieval, 8.3.

    >>> relevant = sparse.csr_array([[1, 0, 1, 1]])
    >>> recall_at_k(np.array([[0, 1, 2]]), relevant, k=3)
    array([0.66666667])
    """
    lists, truth = _checked(recommended, relevant, k)
    return _ratio(_hits(lists, truth, k), truth.number)


def ndcg_at_k(recommended: Items, relevant: sparse.csr_array, k: int) -> Floats:
    """Normalised discounted cumulative gain, (users,): DCG of the list / DCG of the best list, both cut at k.

    DCG = sum of gain / log2(rank + 1) over ranks 1 to k; the gain is the value itself (not 2^value - 1), and the best
    list holds the user's k relevant items of highest gain. Source: Jarvelin and Kekalainen 2002, ACM TOIS 20(4):422,
    with the discount of Burges et al. 2005 (ICML), which counts from the first rank.

    >>> relevant = sparse.csr_array([[3, 2, 3, 0, 1, 2]])
    >>> ndcg_at_k(np.array([[0, 1, 2, 3, 4, 5]]), relevant, k=6)
    array([0.96080819])
    """
    lists, truth = _checked(recommended, relevant, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    gained = _by_user(lists, truth, k, lambda found: (found * discount[: len(found), None]).sum(axis=0), gains=True)
    return _ratio(gained, _best(truth, discount))


def _best(truth: _Relevant, discount: Floats) -> Floats:
    """DCG of each user's best list, added up in the order of ranks, so that the best list's NDCG is exactly 1."""
    k = len(discount)
    if truth.gains is None:
        return np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(truth.number, k)]
    best = np.empty(len(truth.indptr) - 1)
    for here in _blocks(len(best), _BLOCK):
        start, stop = truth.indptr[here.start], truth.indptr[here.stop]
        user = np.repeat(np.arange(here.stop - here.start), truth.number[here])
        order = np.lexsort((-truth.gains[start:stop], user))
        place = np.arange(stop - start) - (truth.indptr[here] - start)[user]
        kept = place < k
        gain = truth.gains[start:stop][order][kept] * discount[place[kept]]
        best[here] = np.bincount(user[kept], gain, minlength=here.stop - here.start)
    return best


# From lists to what was found


def _checked(recommended: Items, relevant: sparse.csr_array, k: int) -> tuple[Items, _Relevant]:
    """Hold both against the contract; see the module."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k counts places of a list: a whole number, 1 or more; got {k!r}")
    truth = _read_relevant(relevant)
    lists = _read_lists(recommended, truth.items)
    users = len(truth.indptr) - 1
    if len(lists) != users:
        raise ValueError(f"lists of {len(lists):,} users, but relevant items of {users:,}; give the same users")
    return lists, truth


def _read_lists(recommended: Items, items: int) -> Items:
    lists = np.asarray(recommended)
    if lists.ndim != 2:
        raise ValueError(f"`recommended` is an array (users, places); got {lists.ndim} dimensions")
    if lists.dtype.kind not in "iu":
        raise ValueError(f"`recommended` holds item indices, whole numbers, -1 for none; got {lists.dtype}")
    if lists.size and (lists.min() < -1 or lists.max() >= items):
        user, place = np.argwhere((lists < -1) | (lists >= items))[0]
        raise ValueError(
            f"item {lists[user, place]} at row {user}, place {place + 1}: outside the catalogue of {items:,} items "
            "(indices from 0, -1 for none)"
        )
    for here in _blocks(len(lists), _BLOCK):
        ordered = np.sort(lists[here].astype(np.int32 if items < 1 << 31 else np.int64), axis=1)
        twice = ordered[:, 1:] == ordered[:, :-1]
        if twice.any():
            twice &= ordered[:, 1:] >= 0
            if twice.any():
                user, place = np.argwhere(twice)[0]
                raise ValueError(f"item {ordered[user, place]} stands twice in the list of row {here.start + user}")
    return lists


def _read_relevant(relevant: sparse.csr_array) -> _Relevant:
    if not sparse.issparse(relevant):
        raise ValueError("`relevant` is a scipy sparse matrix (users, items); make one with scipy.sparse.csr_array")
    matrix = relevant.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    data = matrix.data
    if data.size and not (data.min() >= 0 and np.isfinite(data.max())):
        bad = data[~((data >= 0) & np.isfinite(data))]
        raise ValueError(f"gains are finite and not negative; {len(bad):,} are not, such as {bad[0]}")
    if data.size and data.min() == 0:
        matrix = matrix.copy()
        matrix.eliminate_zeros()
        data = matrix.data
    gains = None if data.size == 0 or (data.min() == 1 and data.max() == 1) else data.astype(np.float64)
    return _Relevant(matrix.indptr, matrix.indices, gains, np.diff(matrix.indptr), matrix.shape[1])


def _by_user(
    lists: Items, truth: _Relevant, k: int, summary: Callable[[npt.NDArray], npt.NDArray], *, gains: bool = False
) -> Floats:
    """`summary` of each block of `_found`, which turns (places, users) into (users,)."""
    values = np.empty(len(lists))
    for here, found in _found(lists, truth, k, gains):
        values[here] = summary(found)
    return values


def _found(lists: Items, truth: _Relevant, k: int, gains: bool) -> Iterator[tuple[slice, npt.NDArray]]:
    """Blocks of users with what stands at their first k places, (places, users): relevant or not, or the gain."""
    width = truth.items + 1  # the last column is what an empty place, -1, falls on: never relevant
    places = min(k, lists.shape[1])
    size = int(np.clip(_CELLS // max(width, places), 1, _BLOCK))
    values = truth.gains if gains else None
    table = np.zeros(size * width, dtype=bool if values is None else np.float64)
    rows = np.arange(size) * width
    for here in _blocks(len(lists), size):
        row = rows[: here.stop - here.start]
        start, stop = truth.indptr[here.start], truth.indptr[here.stop]
        cells = np.repeat(row, truth.number[here]) + truth.indices[start:stop]
        table[cells] = True if values is None else values[start:stop]
        yield here, table[row + lists[here, :places].T]
        table[cells] = 0


def _hits(lists: Items, truth: _Relevant, k: int) -> Floats:
    return _by_user(lists, truth, k, lambda found: found.sum(axis=0))


def _ratio(part: Floats, whole: npt.NDArray) -> Floats:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _defined(values: Floats, truth: _Relevant) -> Floats:
    return np.where(truth.number > 0, values, np.nan)


def _blocks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
