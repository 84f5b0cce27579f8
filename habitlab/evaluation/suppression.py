"""Which groups of a small table of sums may be shown, so that no small group can be worked out from the others."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def shown_groups(member: sparse.csc_array, n: Ints, start: Ints, min_n: int) -> Bools:
    """Groups (groups,) whose estimates can be shown.

    `member` (users, groups) is 1 where a user counts in a group, `n` (groups,) its column sums; the groups of a
    dimension stand together, from `start[d]` to `start[d + 1]`.
    Sums of the shown groups must not add up to that of a suppressed one, nor to all suppressed ones of a dimension
    while these are fewer than `min_n`. That is so where its members (a column of `member`) are no linear combination of
    theirs; until then the smallest group with a part in the sum is suppressed too.
    """
    small, shown = n < min_n, n >= min_n
    secrets = [sparse.csc_array(member[:, [g]]) for g in np.flatnonzero(small & (n > 0))]
    for a, b in pairwise(start):
        together = np.flatnonzero(small[a:b]) + a
        if len(together) > 1 and 0 < n[together].sum() < min_n:
            secrets.append(sparse.csc_array(member[:, together].sum(axis=1)[:, None]))
    if not secrets:
        return shown
    secret = sparse.hstack(secrets, format="csc")
    overlap, with_secret = (member.T @ member).toarray(), (member.T @ secret).toarray()
    size = np.asarray(secret.sum(axis=0)).ravel()
    dimension = np.repeat(np.arange(len(start) - 1), np.diff(start))
    also: list[int] = []
    while (parts := _recovered(shown, overlap, with_secret, size)) is not None:
        # Rather where two groups are left to compare, then the smallest.
        spare = np.bincount(dimension[shown], minlength=len(start) - 1)[dimension[parts]] > 2
        also.append(int(parts[np.lexsort((n[parts], ~spare))[0]]))
        shown[also[-1]] = False
    for g in sorted(also, key=lambda g: -n[g]):  # what was not needed after all
        shown[g] = True
        shown[g] = _recovered(shown, overlap, with_secret, size) is None
    return shown


def _recovered(shown: Bools, overlap: Floats, with_secret: Floats, size: Floats) -> Ints | None:
    """Return the shown groups whose sums give a secret one, None where none is given."""
    here = np.flatnonzero(shown)
    if not len(here):
        return None
    weight = np.linalg.lstsq(overlap[np.ix_(here, here)], with_secret[here], rcond=1e-10)[0]
    left = size - (with_secret[here] * weight).sum(axis=0)  # squared distance from what the shown groups span
    given = np.flatnonzero(left < 1e-6)
    return here[np.abs(weight[:, given[0]]) > 1e-6] if len(given) else None
