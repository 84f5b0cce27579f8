"""Ranked lists as arrays: read from long tables, held against their contract, looked at in blocks of users.

What `recommended` and `relevant` are, `habitlab.evaluation.metrics` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

Floats = npt.NDArray[np.float64]
Lists = npt.NDArray[np.integer]

_BLOCK = 1024  # users at once, so that a table of users and items stays in the processor's cache
_CELLS = 1 << 20  # numbers held at a time: 8 MB


# From long tables to arrays


class Ranked(NamedTuple):
    """What every metric takes: lists and relevant items, with the ids of their rows and items."""

    recommended: npt.NDArray[np.int32]
    relevant: sparse.csr_array
    user_ids: npt.NDArray
    habit_ids: npt.NDArray


def from_frames(recommended: pd.DataFrame, relevant: pd.DataFrame, *, habit_ids: npt.ArrayLike | None = None) -> Ranked:
    """Arrays from long tables: `recommended` with user_id, habit_id, rank, `relevant` with user_id, habit_id.

    Ranks are whole numbers from 1; a rank that is not there is an empty place. A column `gain` of `relevant` gives
    gains, added where a pair stands twice; without it all are 1. Users are those of either table, in order of
    appearance; so a user whose list is absent counts with an empty one. `habit_ids` is the catalogue; None is the
    habits of either table. Raises ValueError for two habits at one rank, a missing id, ids that are numbers in one
    table only, and a habit outside the catalogue or twice in it.

    >>> lists = pd.DataFrame({"user_id": ["ann", "ann"], "habit_id": ["walk", "read"], "rank": [2, 1]})
    >>> ranked = from_frames(lists, pd.DataFrame({"user_id": ["ann", "bob"], "habit_id": ["read", "read"]}))
    >>> ranked.habit_ids.tolist(), ranked.recommended.tolist()
    (['walk', 'read'], [[1, 0], [-1, -1]])
    """
    for name, frame, columns in (
        ("recommended", recommended, ("user_id", "habit_id", "rank")),
        ("relevant", relevant, ("user_id", "habit_id")),
    ):
        absent = [column for column in columns if column not in frame.columns]
        if absent:
            raise ValueError(f"`{name}` needs the columns {', '.join(columns)}; it lacks {', '.join(absent)}")
    users, user_ids = _codes(recommended["user_id"], relevant["user_id"])
    items, known = _codes(recommended["habit_id"], relevant["habit_id"])
    if habit_ids is not None:
        known, found = np.asarray(habit_ids), known
        if (again := pd.Index(known).duplicated()).any():
            raise ValueError(f"`habit_ids` names {again.sum():,} habits twice, such as {known[again].tolist()[0]!r}")
        place = pd.Index(known).get_indexer(found)
        if (place < 0).any():
            raise ValueError(f"{(place < 0).sum():,} habits are not in the catalogue, such as {found[place < 0][0]!r}")
        items = place[items]
    size = len(recommended)
    ranks = recommended["rank"].to_numpy()
    whole = ranks.dtype.kind in "iuf" and np.isfinite(ranks).all() and (ranks == np.floor(ranks)).all()
    if size and not (whole and ranks.min() >= 1):
        raise ValueError("`rank` holds whole numbers from 1 (1 is the top of the list)")
    width = int(ranks.max(initial=0))
    if width > max(len(known), size):
        raise ValueError(f"rank {width:,} is beyond the {len(known):,} habits there are")
    place = users[:size] * width + ranks.astype(np.int64) - 1
    lists = np.full(len(user_ids) * width, -1, dtype=np.int32)
    lists[place] = items[:size]
    if np.count_nonzero(lists >= 0) < size:
        twice = np.flatnonzero(pd.Series(place).duplicated())[0]
        raise ValueError(f"user {user_ids[users[twice]]!r} has two habits at rank {ranks[twice]}")
    gains = relevant["gain"].to_numpy(float) if "gain" in relevant.columns else np.ones(len(relevant))
    shape = (len(user_ids), len(known))
    truth = sparse.csr_array((gains, (users[size:], items[size:])), shape=shape)
    if "gain" not in relevant.columns:
        truth.data[:] = 1  # a pair that stands twice is as relevant as any other
    return Ranked(lists.reshape(len(user_ids), width), truth, user_ids, known)


def _codes(first: pd.Series, second: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray]:
    """Numbers for the ids of two columns, one after the other, and the ids in order of appearance."""
    numbers = [pd.api.types.is_numeric_dtype(column) for column in (first, second) if len(column)]
    if len(set(numbers)) > 1:
        raise ValueError(f"`{first.name}` holds numbers in one table and none in the other: no id would be found again")
    codes, ids = pd.factorize(pd.concat([first, second], ignore_index=True))
    if (codes < 0).any():
        raise ValueError(f"{(codes < 0).sum():,} rows have no {first.name}")
    return codes, np.asarray(ids)


# Reading: hold lists and relevant items against the contract


class Relevant(NamedTuple):
    """Relevant items of each user, without zeros and repeats; `gains` is None where all are 1."""

    indptr: npt.NDArray[np.integer]
    indices: npt.NDArray[np.integer]
    gains: npt.NDArray | None
    items: int

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.indptr) - 1

    @property
    def number(self) -> npt.NDArray[np.integer]:
        """How many items each user has, (users,)."""
        return np.diff(self.indptr)

    def of(self, here: slice) -> Relevant:
        """The same of a block of users, without a copy."""
        return self._replace(indptr=self.indptr[here.start : here.stop + 1])


def check_k(k: int) -> None:
    """Raise ValueError unless k can count places."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k counts places of a list: a whole number, 1 or more; got {k!r}")


def checked(recommended: Lists, relevant: sparse.csr_array, k: int) -> tuple[Lists, Relevant]:
    """Lists of the same users as the relevant items, both as the module's description says."""
    check_k(k)
    truth = read_relevant(relevant, "relevant")
    return same_users(read_lists(recommended, truth.items), truth), truth


def same_users(lists: Lists, truth: Relevant) -> Lists:
    """Raise unless there are as many lists as users with relevant items."""
    if len(lists) != truth.users:
        raise ValueError(
            f"lists of {len(lists):,} users, but items of {truth.users:,}; give the same users in the same order"
        )
    return lists


def read_lists(recommended: Lists, items: int) -> Lists:
    """Lists (users, places) of different items of the catalogue, or an error that names the first that is not."""
    try:
        lists = np.asarray(recommended)
    except ValueError:
        raise ValueError("`recommended` has lists as long as each other, filled up with -1; these differ") from None
    if lists.ndim != 2:
        raise ValueError(f"`recommended` is an array (users, places); got {lists.ndim} dimensions")
    if lists.size and lists.dtype.kind not in "iu":
        raise ValueError(f"`recommended` holds item indices, whole numbers, -1 for none; got {lists.dtype}")
    if lists.size and (lists.min() < -1 or lists.max() >= items):
        user, place = np.argwhere((lists < -1) | (lists >= items))[0]
        raise ValueError(
            f"item {lists[user, place]} in row {user}, place {place + 1}: outside the catalogue of {items:,} items "
            "(indices from 0, -1 for none)"
        )
    if lists.dtype not in (np.int32, np.int64):
        lists = lists.astype(np.int32)  # products and sums of smaller ones would overflow, and unsigned ones know no -1
    for here in blocks(len(lists), 4 * users_at_once(lists.shape[1])):
        _check_repeats(lists[here], here.start, np.min_scalar_type(-max(items, 1)))
    return lists


def _check_repeats(lists: Lists, first_row: int, dtype: np.dtype) -> None:
    """Raise if an item stands twice in a list: compare every pair of places, or neighbours once sorted."""
    few = lists.shape[1] <= 32
    columns = np.ascontiguousarray(lists.astype(dtype).T) if few else np.sort(lists, axis=1).T
    for distance in range(1, len(columns) if few else 2):
        same = columns[distance:] == columns[:-distance]
        if same.any():
            same &= columns[distance:] >= 0
            if same.any():
                place, user = np.argwhere(same)[0]
                raise ValueError(f"item {columns[place, user]} stands twice in the list of row {first_row + user}")


def read_relevant(matrix: sparse.csr_array, name: str) -> Relevant:
    """Rows of a sparse matrix (users, items): repeats added up, zeros left out; not finite or negative values raise."""
    if not sparse.issparse(matrix) or matrix.ndim != 2:
        raise ValueError(f"`{name}` is a sparse matrix (users, items); make one with scipy.sparse.csr_array")
    matrix = matrix.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    data = matrix.data
    if data.size and not (data.min() >= 0 and np.isfinite(data.max())):
        bad = data[~((data >= 0) & np.isfinite(data))]
        raise ValueError(f"`{name}`: values are finite and not negative; {len(bad):,} are not, such as {bad[0]}")
    if data.size and data.max() > np.finfo(np.float64).max / data.size:
        raise ValueError(f"`{name}`: values such as {data.max()} are too large to be added up")
    if data.size and data.min() == 0:
        matrix = matrix.copy()
        matrix.eliminate_zeros()
        data = matrix.data
    gains = None if data.size == 0 or (data.min() == 1 and data.max() == 1) else data
    return Relevant(matrix.indptr, matrix.indices, gains, matrix.shape[1])


# Counting, in blocks of users


def found_blocks(lists: Lists, truth: Relevant, k: int, gains: bool) -> Iterator[tuple[slice, npt.NDArray]]:
    """Blocks of users with what stands at their first k places, (users, places): relevant or not, or the gain."""
    width = truth.items + 1  # the last column is where an empty place, -1, falls: never relevant
    places = min(k, lists.shape[1])
    size = users_at_once(max(width, places) // 4)
    values = truth.gains if gains else None
    table = np.zeros(size * width, dtype=np.uint8 if values is None else np.float64)
    rows = np.arange(size) * width
    for number, here in enumerate(blocks(len(lists), size)):
        row = rows[: here.stop - here.start]
        start, stop = truth.indptr[here.start], truth.indptr[here.stop]
        cells = np.repeat(row, truth.of(here).number) + truth.indices[start:stop]
        # Relevant is what holds this block's own mark, so that the table is cleared only when marks run out.
        mark = number % 255 + 1
        if values is not None or mark == 1:
            table.fill(0)
        table[cells] = mark if values is None else values[start:stop]
        found = table[lists[here, :places] + row[:, None]]
        yield here, found == mark if values is None else found


def ratio(part: npt.NDArray, whole: npt.NDArray) -> Floats:
    """Element by element, NaN where there is no whole."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def users_at_once(numbers_each: int) -> int:
    """How many users make a block, if each of them needs so many numbers."""
    return max(1, min(_BLOCK, _CELLS // max(numbers_each, 1)))


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Rows in blocks of `size`."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
