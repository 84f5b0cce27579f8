"""A varied list: how alike two habits are, and a re-ranking that trades score against likeness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

CATEGORY, ACTIVITY, MINUTES, TEXT = 0.4, 0.2, 0.2, 0.2
"""Shares of likeness; without texts the other three share it."""

PLACES = 5
CATEGORIES = 3
"""Among the first five places stand at least three categories, where the candidates have so many."""

_BLOCK = 2048


def similarity(
    category: Ints, activities: npt.NDArray[np.bool_], minutes: Floats, text: Floats | None = None
) -> Floats:
    """How alike each two habits are (habits, habits), symmetric, in [0, 1], 1 on the diagonal.

    `category` (habits,): codes, -1 unknown, which is like nothing. `activities` (habits, activities): Jaccard index.
    `minutes` (habits,): the shorter over the longer; NaN is like nothing. `text` (habits, d): cosine, below 0 is 0.
    """
    same = (category[:, None] == category) & (category[:, None] >= 0)
    does = activities.astype(np.float64)
    both = does @ does.T  # an array with its own transpose: symmetric to the last bit
    size = activities.sum(axis=1)
    either = size[:, None] + size - both
    jaccard = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    length = np.where(np.isfinite(minutes) & (minutes > 0), minutes, np.nan)
    ratio = np.nan_to_num(np.minimum(length[:, None], length) / np.maximum(length[:, None], length))
    parts = [(CATEGORY, same), (ACTIVITY, jaccard), (MINUTES, ratio)]
    if text is not None:
        norm = np.linalg.norm(text, axis=1, keepdims=True)
        unit = np.divide(text, norm, out=np.zeros(text.shape), where=norm > 0)
        parts.append((TEXT, np.clip(unit @ unit.T, 0.0, 1.0)))
    alike = sum(weight * part for weight, part in parts) / sum(weight for weight, _ in parts)
    np.fill_diagonal(alike, 1.0)
    return alike


def required_categories(k: int, diversity: float) -> int:
    """Fewest categories among the first min(k, 5) places: none asked for at 0, from there 3 of 5, and all 5 at 1."""
    if diversity == 0:
        return 1
    return int(np.ceil(max(CATEGORIES, round(PLACES * diversity)) * min(k, PLACES) / PLACES))


def rerank(
    items: Ints,
    scores: Floats,
    alike: Floats,
    category: Ints,
    *,
    k: int,
    diversity: float,
    places: int | None = None,
) -> npt.NDArray[np.int32]:
    """Choose k of each user's candidates, one after the other (users, k); -1 where there are no more.

    Each place takes the candidate with the highest (1 - diversity) * score - diversity * likeness to the nearest habit
    chosen before: maximal marginal relevance (Carbonell & Goldstein 1998, doi:10.1145/290941.291025). Where the places
    left would else not suffice for `required_categories`, only candidates of categories not yet chosen are looked at,
    as long as there are any. Ties go to the earlier candidate. It ends after k choices, whatever the candidates.

    Parameters
    ----------
    items
        (users, n) habits in falling order of score, -1 for none.
    scores
        (users, n) their scores, in [0, 1] like likeness.
    alike
        (habits, habits) of `similarity`.
    category
        (habits,) codes; all unknown ones (-1) count as one category.
    diversity
        From 0, the candidates as they are, to 1.
    places
        Among how many first places the categories must stand, by default min(k, 5).
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity is a number from 0 to 1; got {diversity:g}")
    chosen = np.full((len(items), k), -1, dtype=np.int32)
    width = min(k, items.shape[1])
    if diversity == 0 or not width:
        chosen[:, :width] = items[:, :width]
        return chosen
    places = min(k, PLACES) if places is None else places
    needed = min(required_categories(k, diversity), places)
    alike32 = np.ascontiguousarray(alike, dtype=np.float32)
    kinds = np.asarray(category, dtype=np.int64) + 1
    for begin in range(0, len(items), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        chosen[block, :width] = _choose(
            np.asarray(items[block]), np.asarray(scores[block]), alike32, kinds, width, diversity, needed, places
        )
    return chosen


def _choose(
    items: Ints, scores: Floats, alike: Floats, kinds: Ints, width: int, diversity: float, needed: int, places: int
) -> npt.NDArray[np.int32]:
    users, n = items.shape
    valid = items >= 0
    item = np.where(valid, items, 0).astype(np.int64)
    kind = kinds[item]
    worth = np.where(valid, scores * (1 - diversity), -np.inf).astype(np.float32)
    nearest = np.zeros((users, n), dtype=np.float32)
    chosen = np.full((users, width), -1, dtype=np.int32)
    seen = np.zeros((users, kinds.max(initial=0) + 1), dtype=bool)
    count: npt.NDArray[np.int64] = np.zeros(users, dtype=np.int64)
    rows = np.arange(users)
    for place in range(width):
        value = worth - nearest if place else worth.copy()
        wanting = np.asarray(needed - count >= places - place)
        short = np.flatnonzero(wanting) if place < places else rows[:0]
        if place and short.size:
            stale = np.asarray(seen[short[:, None], kind[short]])
            few = value[short]
            fresh_left = ((few > -np.inf) & ~stale).any(axis=1)
            few[stale & fresh_left[:, None]] = -np.inf
            value[short] = few
        best = value.argmax(axis=1)
        there = value[rows, best] > -np.inf
        habit = item[rows, best]
        chosen[there, place] = habit[there]
        worth[rows, best] = -np.inf
        count += there & ~seen[rows, kind[rows, best]]
        seen[rows[there], kind[rows, best][there]] = True
        np.maximum(nearest, alike[habit[:, None], item] * np.float32(diversity), out=nearest)
    return chosen
