"""Offline metrics of ranked lists.

`recommended` is an int array (users, K) of item indices in rank order, -1 for none; `relevant` a scipy sparse matrix
(users, items) whose values are gains: a value above 0 is relevant, an explicit 0 is not, values that stand twice are
added. `k` counts places, not items: a list shorter than k has empty places. A metric is float64 per user, NaN where it
is undefined; a user without relevant items has no accuracy, one with relevant items and an empty list has 0. Take means
with `mean_over_users`, which says how many they are of.

Everything here raises ValueError for a k below 1, an item twice in a list, items outside the catalogue, and numbers
that are not finite or out of range. Users are taken in blocks: memory does not grow with their number beyond inputs and
outputs (and a copy of what must be put right first: lists of integers that are neither of 32 nor of 64 bits, relevant
items that are no CSR, or hold zeros or repeats). Toolkits disagree on these definitions: `docs/metrics.md` holds them
side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, special

from habitlab.evaluation.ranked_lists import (
    Floats,
    Lists,
    Relevant,
    blocks,
    checked,
    found_blocks,
    ratio,
    read_lists,
    read_relevant,
    same_users,
    users_at_once,
)
from habitlab.evaluation.ranked_lists import from_frames as from_frames

_PARTS = {
    "precision": "hits",
    "recall": "hits",
    "capped_recall": "hits",
    "hit_rate": "any hit",
    "average_precision": "precision at hits",
    "reciprocal_rank": "first",
    "ndcg": "gained",
}
"""Metrics of accuracy, and what each of them counts over the places of a list."""

_FEW = 12  # places whose 4,096 patterns of hits are summed up in a moment
_MANY = 1 << 14  # users whose sums are held at a time: 0.1 MB each
_TABLE = 1 << 22  # most pairs of items whose similarity is written down: 32 MB


class UserMean(NamedTuple):
    """Mean over the users for whom a metric is defined, their number, and the number of the others."""

    mean: float
    n: int
    undefined: int


def mean_over_users(values: Floats) -> UserMean:
    """Mean of a metric (users,) over those for whom it is defined; NaN where it is for nobody.

    >>> mean_over_users(np.array([0.5, np.nan, 1.0]))
    UserMean(mean=0.75, n=2, undefined=1)
    """
    defined = np.asarray(values)[~np.isnan(values)]
    return UserMean(float(defined.mean()) if len(defined) else float("nan"), len(defined), len(values) - len(defined))


# Accuracy: is what stands in the list relevant?


def precision_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """Share of the k places that hold a relevant item: hits / k, (users,).

    Source: Manning, Raghavan and Schuetze 2008, Introduction to Information Retrieval, 8.4.

    >>> relevant = sparse.csr_array([[1, 0, 1, 0], [0, 0, 0, 0]])
    >>> precision_at_k(np.array([[0, 1, 2], [0, 1, 2]]), relevant, k=2)
    array([0.5, nan])
    """
    return several_at_k(recommended, relevant, k, ("precision",))["precision"]


def recall_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """Share of the relevant items that stand in the first k places: hits / |relevant|, (users,).

    With more than k relevant items it cannot reach 1: see `capped_recall_at_k`.
    Source: Manning, Raghavan and Schuetze 2008, Introduction to Information Retrieval, 8.3.

    >>> recall_at_k(np.array([[0, 1, 2]]), sparse.csr_array([[1, 0, 1, 1]]), k=2)
    array([0.33333333])
    """
    return several_at_k(recommended, relevant, k, ("recall",))["recall"]


def capped_recall_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """Share of the hits that k places can hold: hits / min(k, |relevant|), (users,).

    Source: Thakur et al. 2021 (BEIR, NeurIPS), appendix, where it is called R_cap@k.

    >>> capped_recall_at_k(np.array([[0, 1, 2]]), sparse.csr_array([[1, 0, 1, 1]]), k=2)
    array([0.5])
    """
    return several_at_k(recommended, relevant, k, ("capped_recall",))["capped_recall"]


def hit_rate_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """1 where any of the first k places holds a relevant item, else 0, (users,).

    Source: Deshpande and Karypis 2004, ACM TOIS 22(1):143, there for one relevant item a user.

    >>> hit_rate_at_k(np.array([[0, 1], [0, 1]]), sparse.csr_array([[0, 1, 0], [0, 0, 1]]), k=2)
    array([1., 0.])
    """
    return several_at_k(recommended, relevant, k, ("hit_rate",))["hit_rate"]


def average_precision_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """Precision at the rank of each hit, summed over the first k places, / min(k, |relevant|), (users,).

    Source: Manning, Raghavan and Schuetze 2008, 8.4; the cap by k, so that a perfect list has 1, as in Kaggle's MAP@k.

    >>> average_precision_at_k(np.array([[0, 1, 2]]), sparse.csr_array([[1, 0, 1, 0]]), k=3)
    array([0.83333333])
    """
    return several_at_k(recommended, relevant, k, ("average_precision",))["average_precision"]


def reciprocal_rank_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """1 / rank of the first hit, 0 where the first k places hold none, (users,).

    Source: Kantor and Voorhees 2000 (TREC-5 confusion track), Information Retrieval 2:165.

    >>> reciprocal_rank_at_k(np.array([[0, 1, 2], [0, 1, 2]]), sparse.csr_array([[0, 1, 1], [0, 0, 1]]), k=2)
    array([0.5, 0. ])
    """
    return several_at_k(recommended, relevant, k, ("reciprocal_rank",))["reciprocal_rank"]


def ndcg_at_k(recommended: Lists, relevant: sparse.csr_array, k: int) -> Floats:
    """Normalised discounted cumulative gain, (users,): DCG of the list / DCG of the best list, both cut at k.

    DCG = sum of gain / log2(rank + 1) over ranks 1 to k; the gain is the value itself (not 2^value - 1), and the best
    list holds the user's items of highest gain, k of them or as many as there are. Source: Jarvelin and Kekalainen
    2002, ACM TOIS 20(4):422, with the discount of Burges et al. 2005 (ICML), which counts from the first rank.

    >>> ndcg_at_k(np.array([[0, 1, 2, 3, 4, 5]]), sparse.csr_array([[3, 2, 3, 0, 1, 2]]), k=6)
    array([0.96080819])
    """
    return several_at_k(recommended, relevant, k, ("ndcg",))["ndcg"]


def several_at_k(recommended: Lists, relevant: sparse.csr_array, k: int, names: Sequence[str]) -> dict[str, Floats]:
    """Several of the metrics above, by their names without `_at_k`, each (users,): lists are looked up only once.

    >>> found = several_at_k(np.array([[0, 1]]), sparse.csr_array([[0, 1, 1]]), 2, ("precision", "recall"))
    >>> float(found["precision"][0]), float(found["recall"][0])
    (0.5, 0.5)
    """
    strangers = [name for name in names if name not in _PARTS]
    if strangers:
        raise ValueError(f"no metric {strangers[0]!r}; there are {', '.join(_PARTS)}")
    lists, truth = checked(recommended, relevant, k)
    values = {name: np.empty(len(lists)) for name in names}
    for here in blocks(len(lists), _MANY):
        for name, found in _several(lists[here], truth.of(here), k, names).items():
            values[name][here] = found
    return values


def _several(lists: Lists, truth: Relevant, k: int, names: Sequence[str]) -> dict[str, Floats]:
    """The same for a block of users, whose lists and relevant items have been checked."""
    discount = 1 / np.log2(np.arange(2, min(k, max(lists.shape[1], truth.items)) + 2))
    wanted = dict.fromkeys(_PARTS[name] for name in names)
    gains = "gained" in wanted and truth.gains is not None
    places = min(k, lists.shape[1])
    if places <= _FEW and not gains:
        # What a list has at its places, hit or not, is a number below 2^places: sum up each of these once.
        code = np.empty(len(lists), dtype=np.intp)
        bits = np.float32(2) ** np.arange(places, dtype=np.float32)
        for here, found in found_blocks(lists, truth, k, gains=False):
            code[here] = found.astype(np.float32) @ bits
        patterns = (np.arange(1 << places) >> np.arange(places)[:, None] & 1).astype(bool)
        parts = {part: np.asarray(_summed(part, patterns, patterns, discount), dtype=float)[code] for part in wanted}
    else:
        parts = {part: np.empty(len(lists)) for part in wanted}
        for here, listed in found_blocks(lists, truth, k, gains):
            # Places in memory one after the other: sums over them then run in the order of ranks.
            found = np.ascontiguousarray(listed.T)
            for part, values in parts.items():
                values[here] = _summed(part, found, found > 0, discount)
    number = truth.number
    some, fitting = np.minimum(number, 1), np.minimum(number, min(k, truth.items))
    wholes = {
        "precision": some * float(k),
        "recall": number,
        "capped_recall": fitting,
        "hit_rate": some,
        "average_precision": fitting,
        "reciprocal_rank": some,
    }
    return {
        name: ratio(parts[_PARTS[name]], _best(truth, discount) if name == "ndcg" else wholes[name]) for name in names
    }


def serendipity_at_k(
    recommended: Lists, relevant: sparse.csr_array, popularity: npt.ArrayLike, k: int | None = None
) -> Floats:
    """Relevance times unexpectedness, (users,): sum of relevant x max(0, own - general chance) over k places / k.

    The list gives an item at rank r the chance (items + 1 - r) / items, and a baseline that shows everybody the most
    popular gives it (items + 1 - its rank by popularity) / items: equally popular items share a rank, the next ones
    have the next, and an item that nobody had has chance 0. So a hit counts by how much higher the list places it than
    popularity does. `popularity` (items,), 0 or more, on any scale; k is all places if not given. Source: Murakami,
    Mori and Orihara 2008 (JSAI 2007, LNCS 4914:40), with ranks for chances as RecTools has them.

    >>> lists, popularity = np.array([[0, 2]]), np.array([0.9, 0.5, 0.1, 0.0])
    >>> serendipity_at_k(lists, sparse.csr_array([[1, 0, 1, 0]]), popularity, k=2)
    array([0.125])
    """
    k = np.shape(recommended)[-1] if k is None else k
    lists, truth = checked(recommended, relevant, k)
    shares = _per_item(popularity, "popularity", truth.items)
    place = np.unique(-shares, return_inverse=True)[1] + 1
    general = np.append(np.where(shares > 0, (truth.items + 1 - place) / truth.items, 0.0), 0.0)
    own = (truth.items + 1 - np.arange(1, min(k, lists.shape[1]) + 1)) / truth.items
    unexpected = np.empty(len(lists))
    for here, found in found_blocks(lists, truth, k, gains=False):
        ahead = np.maximum(own - general[lists[here, : len(own)]], 0).T
        some = truth.of(here).number > 0
        unexpected[here] = ratio((ahead * found.T).sum(axis=0), np.where(some, k, 0))
    return unexpected


# Beyond accuracy: what kind of list is it?


def intra_list_diversity(recommended: Lists, item_vectors: npt.ArrayLike | sparse.csr_array) -> Floats:
    """Mean of 1 - cosine over all pairs of items in a list, (users,); NaN for fewer than two items.

    `item_vectors` (items, dimensions), dense or sparse, finite. An item without any attribute (a vector of zeros) is
    like no other: its distance is 1. Source: Ziegler et al. 2005 (WWW); as a distance Zhang and Hurley 2008 (RecSys).

    >>> vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> intra_list_diversity(np.array([[0, 1, -1], [0, 1, 2], [0, -1, -1]]), vectors)
    array([0.        , 0.66666667,        nan])
    """
    unit = _unit_vectors(item_vectors)
    items = unit.shape[0]
    lists = read_lists(recommended, items)
    # A look-up for each pair of places, or the dimensions of each place: whichever is less.
    by_pairs = items * items <= _TABLE and lists.shape[1] - 1 <= 2 * unit.shape[1]
    diversity = np.empty(len(lists))
    for here, alike in (_alike_by_pairs if by_pairs else _alike_by_sums)(lists, unit):
        number = np.count_nonzero(lists[here] >= 0, axis=1)
        pairs = number * (number - 1) / 2
        diversity[here] = np.clip(ratio(pairs - alike, pairs), 0, 2)
    return diversity


def novelty(recommended: Lists, popularity: npt.ArrayLike) -> Floats:
    """Mean of -log2 of the share of users who have the item, in bits, (users,); NaN for an empty list.

    `popularity` (items,) holds shares of users, 0 to 1. A recommended item that nobody has would be infinitely novel:
    ValueError; count it as if one user had it (`popularity.clip(1 / users)`), as RecTools does.
    Source: Zhou et al. 2010, PNAS 107:4511 (self-information); Vargas and Castells 2011 (RecSys).

    >>> novelty(np.array([[0, 1], [2, -1]]), np.array([1.0, 0.5, 0.25]))
    array([0.5, 2. ])
    """
    shares = _per_item(popularity, "popularity")
    if shares.max(initial=0) > 1:
        raise ValueError(f"`popularity` holds shares of users, 0 to 1; the highest is {shares.max()}")
    lists = read_lists(recommended, len(shares))
    nobody = (_counts(lists, len(shares)) > 0) & (shares == 0)
    if nobody.any():
        raise ValueError(
            f"{nobody.sum():,} recommended items have popularity 0, so that their novelty is infinite; "
            "count them as if one user had them: popularity.clip(1 / users)"
        )
    bits = np.append(-np.log2(np.where(shares > 0, shares, 1)), 0.0)  # the last is that of an empty place
    mean = np.empty(len(lists))
    for here in blocks(len(lists), users_at_once(lists.shape[1])):
        mean[here] = ratio(bits[lists[here]].sum(axis=1), np.count_nonzero(lists[here] >= 0, axis=1))
    mean += 0.0  # no -0.0
    return mean


def category_coverage(recommended: Lists, categories: npt.ArrayLike) -> Floats:
    """Share of the catalogue's categories that stand in a list, (users,); 0 for an empty list.

    `categories` (items,) names one category an item, missing where there is none; NaN where the catalogue has none.
    Source: topic coverage, as S-recall of Zhai, Cohen and Lafferty 2003 (SIGIR).

    >>> category_coverage(np.array([[0, 1], [0, 2]]), ["diet", "diet", "sleep"])
    array([0.5, 1. ])
    """
    codes, names = pd.factorize(np.asarray(categories, dtype=object))
    lists = read_lists(recommended, len(codes))
    held = np.append(codes, -1)
    covered = np.empty(len(lists))
    for here in blocks(len(lists), users_at_once(max(lists.shape[1], len(names)))):
        seen = np.zeros((here.stop - here.start, len(names) + 1), dtype=bool)
        seen[np.arange(len(seen))[:, None], held[lists[here]]] = True
        covered[here] = seen[:, :-1].sum(axis=1)
    covered /= len(names) or np.nan
    return covered


def miscalibration(
    recommended: Lists, history: sparse.csr_array, categories: npt.ArrayLike, alpha: float = 0.01
) -> Floats:
    """How far the categories of a list are from those of the user's history, (users,): Kullback-Leibler KL(p || q).

    p is the share of each category in the history (weighted by the values of `history`, (users, items)), q that in the
    list (each place alike), smoothed as (1 - alpha) q + alpha p with 0 < alpha < 1; natural logarithm, 0 is calibrated.
    NaN where the history or the list has no item with a category. Source: Steck 2018 (RecSys), equations 1 to 4.

    >>> history = sparse.csr_array([[1, 1, 0], [1, 0, 0]])
    >>> miscalibration(np.array([[0, 2], [1, -1]]), history, ["diet", "sleep", "sleep"]).round(3)
    array([0.   , 4.605])
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, such as 0.01; got {alpha}")
    codes, names = pd.factorize(np.asarray(categories, dtype=object))
    past = read_relevant(history, "history")
    if past.items != len(codes):
        raise ValueError(f"`history` has {past.items:,} items, `categories` {len(codes):,}; give one each")
    lists = same_users(read_lists(recommended, past.items), past)
    held = np.append(codes, -1)
    divergence = np.empty(len(lists))
    for here in blocks(len(lists), users_at_once(max(lists.shape[1], len(names)))):
        users = np.arange(here.stop - here.start)
        cells = slice(past.indptr[here.start], past.indptr[here.stop])
        weight = None if past.gains is None else past.gains[cells]
        p = _shares(np.repeat(users, past.of(here).number), held[past.indices[cells]], weight, len(users), len(names))
        q = _shares(np.repeat(users, lists.shape[1]), held[lists[here]].ravel(), None, len(users), len(names))
        divergence[here] = np.maximum(special.rel_entr(p, (1 - alpha) * q + alpha * p).sum(axis=1), 0)
    return divergence


def _shares(user: npt.NDArray, code: npt.NDArray, weight: Floats | None, users: int, codes: int) -> Floats:
    """Share of each category in what a user has, (users, codes); NaN where that has no category (code -1)."""
    cells = user * (codes + 1) + code
    cells[code < 0] += codes + 1
    counts = np.bincount(cells, weight, minlength=users * (codes + 1)).reshape(users, codes + 1)[:, :codes]
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True) if codes else np.full((users, 1), np.nan)


# Of all lists together: what does the catalogue get?


def catalogue_coverage(recommended: Lists, items: int) -> float:
    """Share of the catalogue's `items` that stand in any list; NaN for an empty catalogue.

    Source: Ge, Delgado-Battenfeld and Jannach 2010 (RecSys).

    >>> catalogue_coverage(np.array([[0, 1], [1, -1]]), items=4)
    0.5
    """
    counts = _counts(read_lists(recommended, items), items)
    return float(np.mean(counts > 0)) if items else float("nan")


def gini(recommended: Lists, items: int) -> float:
    """Gini coefficient of how often each of the catalogue's `items` is listed, 0 (all alike) to (items - 1) / items.

    G = sum of (2 i - items - 1) x_i / (items x sum of x), x_i the counts in rising order; NaN where nothing is listed.
    Source: Gini 1912, in the form of Shani and Gunawardana 2011, Recommender Systems Handbook, 8.3.

    >>> gini(np.array([[0, 1], [2, 3]]), items=4), gini(np.array([[0], [0]]), items=4)
    (0.0, 0.75)
    """
    counts = np.sort(_counts(read_lists(recommended, items), items))
    if not counts.sum():
        return float("nan")
    return float((2 * np.arange(1, items + 1) - items - 1) @ counts / (items * counts.sum()))


def exposure(recommended: Lists, items: int) -> Floats:
    """Share of all users' attention that each item gets, (items,), adding up to 1; NaN where nothing is listed.

    A place at rank r gets 1 / log2(r + 1). Source: Singh and Joachims 2018 (KDD). Sum it over groups of items, and hold
    it against their share of the catalogue or of the relevant items.

    >>> exposure(np.array([[0, 1], [0, -1]]), items=3).round(3)
    array([0.76, 0.24, 0.  ])
    """
    lists = read_lists(recommended, items)
    attention = np.zeros(items)
    for place, discount in enumerate(1 / np.log2(np.arange(2, lists.shape[1] + 2))):
        attention += discount * _counts(lists[:, place : place + 1], items)
    return ratio(attention, np.full(items, attention.sum()))


# How


def _unit_vectors(item_vectors: npt.ArrayLike | sparse.csr_array) -> Floats | sparse.csr_array:
    """Vectors of length 1, or 0 where there is nothing."""
    if sparse.issparse(item_vectors):
        vectors = sparse.csr_array(item_vectors, dtype=float)
        numbers = vectors.data
    else:
        vectors = numbers = np.asarray(item_vectors, dtype=float)
    if vectors.ndim != 2 or not np.isfinite(numbers).all():
        raise ValueError("`item_vectors` holds finite numbers (items, dimensions)")
    largest = abs(vectors).max() if numbers.size else 0.0
    vectors = vectors / (largest or 1.0)  # so that squares neither overflow nor vanish
    length = np.sqrt(np.asarray((vectors * vectors).sum(axis=1)).ravel())
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    return sparse.diags_array(scale) @ vectors if sparse.issparse(vectors) else vectors * scale[:, None]


def _summed(part: str, found: npt.NDArray, hit: npt.NDArray[np.bool_], discount: Floats) -> npt.NDArray:
    """What a metric counts over the places of each user; `found` and `hit` are (places, users)."""
    if part == "gained":
        return (found * discount[: len(found), None]).sum(axis=0)
    if part == "any hit":
        return np.asarray(hit.any(axis=0))
    if part == "hits":
        return np.add.reduce(hit.view(np.uint8), axis=0, dtype=np.min_scalar_type(len(hit)))
    rank = np.arange(1, len(hit) + 1)[:, None]
    if part == "first":
        return (hit / rank).max(axis=0, initial=0)
    return (np.cumsum(hit, axis=0) / rank * hit).sum(axis=0)


def _best(truth: Relevant, discount: Floats) -> Floats:
    """DCG of each user's best list, added up in the order of ranks, so that the NDCG of that list is exactly 1."""
    k = len(discount)
    if truth.gains is None:
        return np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(truth.number, k)]
    number = truth.number
    best = np.empty(len(number))
    for here in blocks(len(best), users_at_once(int(number.max(initial=1)))):
        start, stop = truth.indptr[here.start], truth.indptr[here.stop]
        user = np.repeat(np.arange(here.stop - here.start), number[here])
        gains = truth.gains[start:stop].astype(float)
        order = np.lexsort((-gains, user))
        place = np.arange(stop - start) - (truth.indptr[here] - start)[user]
        kept = place < k
        gain = gains[order][kept] * discount[place[kept]]
        best[here] = np.bincount(user[kept], gain, minlength=here.stop - here.start)
    return best


def _alike_by_pairs(lists: Lists, unit: Floats | sparse.csr_array) -> Iterator[tuple[slice, Floats]]:
    """Sum of cosines over the pairs of each list, looked up in a table of all pairs of items; blocks of users."""
    width = unit.shape[0] + 1
    table = np.zeros((width, width))  # the last line is that of an empty place
    table[:-1, :-1] = sparse.csr_array(unit @ unit.T).toarray() if sparse.issparse(unit) else unit @ unit.T
    cosine = table.ravel()
    for here in blocks(len(lists), users_at_once(lists.shape[1])):
        items = lists[here].T % width
        rows = items * width
        total = np.zeros(items.shape[1])
        for distance in range(1, len(items)):
            total += cosine[rows[distance:] + items[:-distance]].sum(axis=0)
        yield here, total


def _alike_by_sums(lists: Lists, unit: Floats | sparse.csr_array) -> Iterator[tuple[slice, Floats]]:
    """The same from the sum of each list's vectors: its square less those of the vectors, each 1 or 0, halved."""
    items, dimensions = unit.shape
    some = np.asarray((abs(unit)).sum(axis=1)).ravel() > 0
    for here in blocks(len(lists), users_at_once(max(lists.shape[1], dimensions))):
        listed = lists[here] >= 0
        bounds = np.concatenate([[0], np.cumsum(listed.sum(axis=1))])
        which = lists[here][listed]
        held = sparse.csr_array((np.ones(len(which)), which, bounds), shape=(len(listed), items))
        summed = held @ unit
        yield here, (np.asarray((summed * summed).sum(axis=1)).ravel() - held @ some) / 2


def _counts(lists: Lists, items: int) -> npt.NDArray[np.int64]:
    """How many lists hold each item, (items,)."""
    counts = np.zeros(items + 1, dtype=np.int64)
    for here in blocks(len(lists), _MANY):
        counts += np.bincount(lists[here].ravel() + 1, minlength=items + 1)
    return counts[1:]


def _per_item(values: npt.ArrayLike, name: str, items: int | None = None) -> Floats:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or (items is not None and len(array) != items):
        raise ValueError(f"`{name}` holds a number for each of the {items or ''} items; got shape {array.shape}")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"`{name}`: numbers are finite and not negative; {(~(array >= 0)).sum():,} are not")
    return array
