"""From scores to ranked lists: the best k items of each user, in blocks that stay in the processor's cache.

Instead of sorting, or partitioning, every row: the k-th best of the maxima of groups of items is a bound that at least
k items reach. One comparison finds those that do, few more than k, and only they are sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

Scores: TypeAlias = npt.NDArray[np.floating]
Items: TypeAlias = npt.NDArray[np.int32]

_BLOCK = 512
_GROUPS_PER_PLACE = 6  # groups for each of the k places: fewer let too many items through, more cost time themselves


def top_k(scores: Scores | tuple[Scores, Scores], k: int, seen: sparse.csr_array | None = None) -> tuple[Items, Scores]:
    """Best `k` items of each user in rank order: item numbers (users, k) int32, and their scores (users, k).

    `scores` is an array (users, items), or factors of users (users, f) and of items (items, f) whose product is never
    held as a whole. `seen` (users, items) CSR: whatever is stored there is left out. A score of -inf leaves an item
    out too. Of equal scores the lower number comes first. Where fewer than k items are left, the places at the end
    hold -1 and NaN; a `k` above the number of items gives as many places, all those beyond it empty.

    Raises
    ------
    ValueError
        `k` is below 1, the shapes do not fit, or a score is NaN.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k is a whole number of at least 1; got {k!r}")
    users, items = _shape(scores)
    if seen is not None and seen.shape != (users, items):
        raise ValueError(f"`seen` is {seen.shape}, the scores are {(users, items)}: users and items in the same order")
    if not isinstance(scores, tuple) and not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    number = min(int(k), items)
    lists = np.full((users, k), -1, dtype=np.int32)
    best = np.full((users, k), np.nan, dtype=np.result_type(*scores) if isinstance(scores, tuple) else scores.dtype)
    if number == 0:
        return lists, best
    groups = min(items, _GROUPS_PER_PLACE * number)
    for begin, block in _blocks(scores, items, groups):
        some = slice(begin, begin + len(block))
        if seen is not None:
            first, last = seen.indptr[some.start], seen.indptr[some.stop]
            row = np.repeat(np.arange(len(block)), np.diff(seen.indptr[some.start : some.stop + 1]))
            block[row, seen.indices[first:last]] = -np.inf
        lists[some, :number], best[some, :number] = _best(block, number, groups)
    lists[np.isnan(best)] = -1
    return lists, best


def _shape(scores: Scores | tuple[Scores, Scores]) -> tuple[int, int]:
    if not isinstance(scores, tuple):
        if scores.ndim != 2:
            raise ValueError(f"scores are (users, items); got {scores.ndim} dimensions")
        return scores.shape[0], scores.shape[1]
    people, things = scores
    if people.ndim != 2 or things.ndim != 2 or people.shape[1] != things.shape[1]:
        raise ValueError(f"factors are (users, f) and (items, f); got {people.shape} and {things.shape}")
    if not (np.isfinite(people).all() and np.isfinite(things).all()):
        raise ValueError("factors hold NaN or infinite values")
    return len(people), len(things)


def _blocks(scores: Scores | tuple[Scores, Scores], items: int, groups: int) -> Iterator[tuple[int, Scores]]:
    """Scores of some users at a time, with columns of -inf at the end that make the groups even; may be written to."""
    width = -(-items // groups) * groups
    users = len(scores[0]) if isinstance(scores, tuple) else len(scores)
    dtype = np.result_type(*scores) if isinstance(scores, tuple) else scores.dtype
    block = np.full((min(_BLOCK, users), width), -np.inf, dtype=dtype)
    transposed = np.ascontiguousarray(scores[1].T) if isinstance(scores, tuple) else scores[:0]
    for begin in range(0, users, _BLOCK):
        here = block[: min(_BLOCK, users - begin)]
        if isinstance(scores, tuple):
            np.matmul(scores[0][begin : begin + len(here)], transposed, out=here[:, :items])
        else:
            here[:, :items] = scores[begin : begin + len(here)]
        yield begin, here


def _best(block: Scores, k: int, groups: int) -> tuple[Items, Scores]:
    """Best k columns of each row and their values, NaN for -inf."""
    users, width = block.shape
    highest = block.reshape(users, width // groups, groups).max(axis=1)
    bound = np.partition(highest, groups - k, axis=1)[:, groups - k]
    if np.isnan(highest.max()):  # a maximum with a NaN is NaN
        raise ValueError("scores hold NaN; -inf leaves an item out")
    chosen = np.flatnonzero(block >= bound[:, None])
    row, column = np.divmod(chosen, width)
    start = np.searchsorted(row, np.arange(users))
    place = np.arange(len(row)) - start[row]
    values = np.full((users, int(place.max()) + 1), -np.inf, dtype=block.dtype)
    columns = np.zeros(values.shape, dtype=np.int32)
    values[row, place], columns[row, place] = block.ravel()[chosen], column
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(values, order, axis=1)
    best[best == -np.inf] = np.nan
    return np.take_along_axis(columns, order, axis=1), best
