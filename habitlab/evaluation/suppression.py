"""Which groups of a small table of sums may be shown, so that no few people can be worked out from the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def shown_groups(member: sparse.csc_array, dimension: Ints, named: Bools, min_n: int) -> Bools:
    """Groups (groups,) whose estimates can be shown.

    `member` (users, groups) is 1 where a user counts in a group; `dimension` (groups,) numbers that of each group, and
    the groups of one share no user. Those not `named` (groups,) are people of whom it is not known: never shown, and
    yet what is left of the others. Sums of the shown groups must not add up to that of few people, fewer than `min_n`:

    - of a small group, named or not;
    - of all small groups of a dimension, or of those of them who are in one group of another dimension;
    - of what a group holds beyond another one that lies within it.

    They do not where these people (a column of 0 and 1) are no linear combination of the columns shown; until then the
    smallest group with a part in the sum is suppressed too.
    """
    n = np.asarray(member.sum(axis=0)).ravel()
    shown = named & (n >= min_n)
    first = np.flatnonzero(shown)
    if not len(first):
        return shown
    held = member[:, first]
    overlap = (held.T @ held).toarray()
    secret = _few(member, n, dimension, held, overlap, min_n)
    if not secret.shape[1]:
        return shown
    with_secret = (held.T @ secret).toarray()
    size = np.asarray(secret.sum(axis=0)).ravel()
    left, number, dimension = np.ones(len(first), dtype=bool), n[first], dimension[first]
    also: list[int] = []
    while (parts := _recovered(left, overlap, with_secret, size)) is not None:
        # Rather where two groups are left to compare, then the smallest.
        spare = np.bincount(dimension[left], minlength=dimension.max() + 1)[dimension[parts]] > 2
        also.append(int(parts[np.lexsort((number[parts], ~spare))[0]]))
        left[also[-1]] = False
    for g in sorted(also, key=lambda g: -number[g]):  # what was not needed after all
        left[g] = True
        left[g] = _recovered(left, overlap, with_secret, size) is None
    shown[first] = left
    return shown


def _few(
    member: sparse.csc_array, n: Floats, dimension: Ints, held: sparse.csc_array, overlap: Floats, min_n: int
) -> sparse.csc_array:
    """Return the people who must not follow from the groups `held`, few in each column: (users, columns)."""
    number = np.diag(overlap)
    beyond = number[:, None] - number
    outer, inner = np.nonzero((overlap == number) & (beyond > 0) & (beyond < min_n))
    columns = [held[:, outer] - held[:, inner]]
    small = np.flatnonzero((n > 0) & (n < min_n))
    if len(small):
        columns.append(member[:, small])
        into = sparse.csc_array(
            (np.ones(len(small)), (np.arange(len(small)), dimension[small])), shape=(len(small), dimension.max() + 1)
        )
        together = sparse.csc_array(member[:, small] @ into)
        everywhere = sparse.csc_array(np.ones((member.shape[0], 1)))
        for within in (everywhere, *(member[:, [g]] for g in np.flatnonzero(n >= min_n))):
            parts = sparse.csc_array(together.multiply(within))
            count = np.asarray(parts.sum(axis=0)).ravel()
            columns.append(parts[:, np.flatnonzero((count > 0) & (count < min_n))])
    return sparse.csc_array(sparse.hstack(columns, format="csc"))


def _recovered(shown: Bools, overlap: Floats, with_secret: Floats, size: Floats) -> Ints | None:
    """Return the shown groups whose sums give a secret one, None where none is given."""
    here = np.flatnonzero(shown)
    if not len(here):
        return None
    weight = np.linalg.lstsq(overlap[np.ix_(here, here)], with_secret[here], rcond=1e-10)[0]
    left = size - (with_secret[here] * weight).sum(axis=0)  # squared distance from what the shown groups span
    given = np.flatnonzero(left < 1e-6)
    return here[np.abs(weight[:, given[0]]) > 1e-6] if len(given) else None
