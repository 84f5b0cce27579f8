"""What report 08 says: what the lists bring to groups of people, which differences count, and what could be hidden.

A comparison is one outcome by one dimension. Its verdict holds the disparity, corrected for noise, against what is
tolerated: a share of what the best served group gets. Where nothing is found, the smallest disparity that would have
been found decides between "none found" and "cannot tell". `docs/fairness.md` says what to do about each verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, sparse, stats

from habitlab.dataset import Dataset, MissingColumn, small_groups
from habitlab.evaluation import cold_start, fairness, leaderboard, metrics
from habitlab.evaluation.fairness import Audit
from habitlab.evaluation.fairness.fairness_of_models import user_exposure
from habitlab.evaluation.ranked_lists import Lists
from habitlab.evaluation.splits import Split
from habitlab.evaluation.tables import exact

BEYOND, WITHIN, NONE, CANNOT = "beyond what is tolerated", "within what is tolerated", "none found", "cannot tell"
"""Verdicts of a comparison."""

ACTIONS = {
    BEYOND: (
        "found, and more than is tolerated",
        "Do not roll out. Look for the cause in what the group was shown, in its data and in calibration; mend it, and "
        "audit again.",
    ),
    WITHIN: (
        "found, but no more than is tolerated",
        "May be rolled out. Keep an eye on this comparison, and look for the cause.",
    ),
    NONE: ("not found, and what is tolerated would have been", "Nothing to do. Audit again with the next model."),
    CANNOT: (
        "not found, but more than is tolerated could be hidden",
        "Do not call it fair. Wait for as many people as it needs, or judge by an outcome known of more of them.",
    ),
}
"""When each verdict is given, and what to do."""


class Outcome(NamedTuple):
    """What a user gets; a disparity in it is held against what the best served group has of the outcome `scale`."""

    key: str
    label: str
    unit: str
    scale: str


OUTCOMES = (
    Outcome("ndcg", "NDCG@10", "", "ndcg"),
    Outcome("hit", "A hit in ten", "share", "hit"),
    Outcome("diversity", "Diversity", "", "diversity"),
    Outcome("asked", "Areas asked for", "share", "asked"),
    Outcome("kept", "Kept in truth", "share", "kept"),
    Outcome("gain", "Kept beyond popularity", "share difference", "kept"),
    Outcome("gap", "Chance overstated", "share difference", "success"),
)
"""ndcg, hit, diversity: of the list, as in `metrics`. asked: share of its attention on areas that the user wants to
improve in. kept: true chance that a listed habit is taken up and kept, in a simulated world; gain: the same, less that
of the popular habits. gap: chance said by the success model less whether habits were kept, of held-out pairs."""

SUCCESS = Outcome("success", "Habits kept", "share", "success")
"""Not what lists bring, but what `gap` is held against."""

SERVED, POPULAR, BY_LOT = "blend", "popularity", "random"
"""The lists that are audited, and those that they are held against."""

_CALLED = {"gender": "gender", "age_band": "age", "experience_level": "experience"}


# What people get


def what_people_get(lists: Mapping[str, Lists], dataset: Dataset, split: Split) -> dict[str, pd.DataFrame]:
    """Outcomes of each model's lists: index user_id, a column for the key of each outcome that can be known."""
    habits = dataset.habits.set_index("habit_id").loc[split.habit_ids]
    vectors, asked = leaderboard.attribute_vectors(habits), asked_for(dataset, split)
    chances = cold_start.true_chances(dataset, split.user_ids.tolist()).get("taken up and kept")
    out = {}
    for name, listed in lists.items():
        k = listed.shape[1]
        accuracy = metrics.several_at_k(listed, split.relevant, k, ("ndcg", "hit_rate"))
        columns = {"ndcg": accuracy["ndcg"], "hit": accuracy["hit_rate"]}
        if vectors.shape[1]:
            columns["diversity"] = metrics.intra_list_diversity(listed, vectors)
        if asked is not None:
            named = np.diff(asked.indptr) > 0
            columns["asked"] = np.where(named, user_exposure(listed, asked), np.nan)
        if chances is not None:
            true = np.take_along_axis(chances, np.maximum(listed, 0), axis=1)
            columns["kept"] = np.where(listed >= 0, true, 0.0).sum(axis=1) / k
        out[name] = pd.DataFrame(columns, index=pd.Index(split.user_ids, name="user_id"))
    if SERVED in out and POPULAR in out and chances is not None:
        out[SERVED]["gain"] = out[SERVED]["kept"] - out[POPULAR]["kept"]
    return out


def asked_for(dataset: Dataset, split: Split) -> sparse.csr_array | None:
    """Habits of the categories that each user wants to improve in, (users, habits); None where nobody names any."""
    users = dataset.users.set_index("user_id").reindex(split.user_ids)
    if "improvement_areas" not in users or "category" not in dataset.habits:
        return None
    areas = users["improvement_areas"].reset_index(drop=True).explode().dropna()
    kinds, names = pd.factorize(dataset.habits.set_index("habit_id").loc[split.habit_ids, "category"].astype(object))
    wanted = pd.Index(names).get_indexer(pd.Index(areas.astype(object)))
    known = wanted >= 0
    shape = (len(users), len(names))
    wants = sparse.csr_array((np.ones(known.sum()), (areas.index.to_numpy(int)[known], wanted[known])), shape=shape)
    has = np.flatnonzero(kinds >= 0)
    of_kind = sparse.csr_array((np.ones(len(has)), (kinds[has], has)), shape=(len(names), len(kinds)))
    return sparse.csr_array(wants @ of_kind) if wants.nnz else None


def gaps(predicted: pd.DataFrame) -> pd.DataFrame:
    """Outcomes `gap` and `success` of each user from held-out pairs (user_id, success, chance); index user_id."""
    pairs = predicted.assign(gap=predicted["chance"] - predicted["success"])
    return pairs.groupby("user_id")[["gap", "success"]].mean()


# Auditing it


def audits(
    dataset: Dataset, values: pd.DataFrame, *, min_n: int, level: float, permutations: int, seed: int
) -> dict[str, Audit]:
    """Audit each outcome in `values` (index user_id) by gender, age, both, and experience, as far as they are known.

    Raises `MissingColumn` where none of them is, or no outcome; ValueError where `min_n` is below what may be shown.
    """
    if min_n < small_groups.FEWEST:
        raise ValueError(f"min_n is {min_n}; groups of fewer than {small_groups.FEWEST} people are never shown")
    people = fairness.people(dataset)
    names: list[str | tuple[str, ...]] = [name for name in ("gender", "age_band") if name in people]
    if len(names) == 2:
        names.append(("gender", "age_band"))
    names += ["experience_level"] if "experience_level" in people else []
    known = [one.key for one in (*OUTCOMES, SUCCESS) if one.key in values and values[one.key].notna().any()]
    if not known:
        raise MissingColumn("needs lists of people whose later adoptions are known, or adoptions whose outcome is")
    data = people.merge(values[known], left_on="user_id", right_index=True, how="left")
    draw: dict[str, Any] = {"min_n": min_n, "level": level, "permutations": permutations, "seed": seed}
    return {key: fairness.audit(data, outcome=key, groups=names, **draw) for key in known}


def detectable(n: npt.ArrayLike, within: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest distance of one group from all others that is found with this power, whichever group it is.

    `n` (groups,) users, `within` standard deviation within groups. From the noncentral F distribution of a one-way
    analysis of variance, where distance d of group g has noncentrality d^2 n_g (1 - n_g / N) / within^2 (Cohen 1988,
    chapter 8); so for the smallest group. NaN for fewer than two groups.
    """
    size = np.asarray(n, dtype=float)
    free = size.sum() - len(size)
    if len(size) < 2 or free < 1 or not np.isfinite(within):
        return float("nan")
    between = len(size) - 1
    limit = stats.f.isf(alpha, between, free)

    def lacks(root: float) -> float:
        return float(stats.ncf.sf(limit, between, free, root**2)) - power

    root = optimize.brentq(lacks, 1e-6, 4 * np.sqrt(between * limit) + 20)
    return float(root * within / np.sqrt(size.min() * (1 - size.min() / size.sum())))


def interval(mean: npt.ArrayLike, n: npt.ArrayLike, within: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a disparity, from the simultaneous intervals of all differences of two groups.

    `mean` and `n` (groups,), `within` standard deviation within groups. With at least this chance all true differences
    lie in their intervals (Student's t, Bonferroni over pairs), so that the largest of them lies between the largest
    lower and the largest upper end. NaN for fewer than two groups.
    """
    centre, size = np.asarray(mean, dtype=float), np.asarray(n, dtype=float)
    free = size.sum() - len(size)
    if len(size) < 2 or free < 1 or not np.isfinite(within):
        return float("nan"), float("nan")
    pairs = len(size) * (len(size) - 1) / 2
    half = stats.t.isf((1 - level) / 2 / pairs, free) * within * np.sqrt(1 / size[:, None] + 1 / size)
    away = np.abs(centre[:, None] - centre)
    np.fill_diagonal(half, 0.0)
    return float(max((away - half).max(), 0.0)), float((away + half).max())


def compared(found: Mapping[str, Audit], *, tolerated: float, level: float, power: float = 0.8) -> pd.DataFrame:
    """Every comparison with its verdict: an outcome by a dimension.

    Columns: outcome (key), dimension, kind, n (users compared), groups, highest and lowest (group), scale (what the
    best served group has), raw, noise_corrected, ci_low and ci_high (`interval`), p_value, p_adjusted (Benjamini and
    Hochberg, over all comparisons of a kind), detectable (smallest disparity found with `power`, at the level that a
    lone one has to reach), tolerated, verdict, needed (users for which what is tolerated would be detectable, where
    that cannot be told).
    """
    rows: list[tuple[Any, ...]] = []
    for one in (one for one in OUTCOMES if one.key in found):
        audit = found[one.key]
        for about, disparity in zip(audit.dimensions.itertuples(), audit.disparity.itertuples(), strict=True):
            groups = shown(audit, about.dimension)
            order = groups.sort_values("estimate", kind="stable")["group"].tolist() if len(groups) > 1 else [""]
            ends = interval(groups["estimate"], groups["n"], about.within, level)
            best = shown(found[one.scale], about.dimension)["estimate"].abs().max()
            rows.append(
                (one.key, about.dimension, about.kind, int(groups["n"].sum()), len(groups), order[-1], order[0], best,
                 disparity.raw, disparity.noise_corrected, *ends, disparity.p_value, about.within)
            )  # fmt: skip
    columns = ["outcome", "dimension", "kind", "n", "groups", "highest", "lowest", "scale", "raw", "noise_corrected"]
    columns += ["ci_low", "ci_high", "p_value", "within"]
    table = pd.DataFrame(rows, columns=columns).assign(p_adjusted=np.nan, detectable=np.nan)
    numbers = {"n": int, "groups": int} | dict.fromkeys(table.columns[7:], float)
    table = table.astype(numbers)  # where there are no rows they are objects
    for _, here in table[table["p_value"].notna()].groupby("kind"):
        table.loc[here.index, "p_adjusted"] = stats.false_discovery_control(here["p_value"])
        table.loc[here.index, "detectable"] = [
            detectable(
                shown(found[row.outcome], row.dimension)["n"], row.within, alpha=(1 - level) / len(here), power=power
            )
            for row in here.itertuples()
        ]
    table["tolerated"] = tolerated * table["scale"]
    there = table["p_adjusted"] <= 1 - level + 1e-12
    more, enough = table["noise_corrected"] > table["tolerated"], table["detectable"] <= table["tolerated"]
    table["verdict"] = np.select([there & more, there, enough], [BEYOND, WITHIN, NONE], CANNOT)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.ceil(table["n"] * (table["detectable"] / table["tolerated"]) ** 2)
    table["needed"] = needed.where((table["verdict"] == CANNOT) & np.isfinite(needed))
    return table.drop(columns="within")


def shown(audit: Audit, dimension: str) -> pd.DataFrame:
    """Rows of an audit's groups of a dimension that are not suppressed."""
    here = (audit.groups["dimension"] == dimension) & ~audit.groups["suppressed"]
    return audit.groups[here & audit.groups["estimate"].notna()].reset_index(drop=True)


# Telling it


def of_demographics(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of `compared` by gender and age; experience is an outcome of the system and stands apart."""
    return table[table["kind"] == "demographic"].reset_index(drop=True)


def of_experience(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of `compared` by experience."""
    return table[table["kind"] == "outcome"].reset_index(drop=True)


def verdicts(table: pd.DataFrame, tolerated: float) -> list[dict[str, Any]]:
    """Return how many comparisons of demographics have each verdict, and what is tolerated, as findings."""
    if table.empty:
        return []
    keys = {BEYOND: "beyond", WITHIN: "within_tolerated", NONE: "none_found", CANNOT: "cannot_tell"}
    how = "disparity less noise against what is tolerated; permutations, adjusted for all comparisons"
    out = [
        exact(key, f"Comparisons by gender and age: {verdict}", int((table["verdict"] == verdict).sum()), n=len(table),
              method=how)
        for verdict, key in keys.items()
    ]  # fmt: skip
    label = "Disparity that is tolerated, of what the best served group gets"
    asked = exact("tolerated", label, tolerated, n=len(table), method="set beforehand, not estimated", unit="share")
    return [*out, asked | {"reason": "a parameter"}]


def largest(table: pd.DataFrame, level: float) -> list[dict[str, Any]]:
    """Return the disparity that was found and is largest against what is tolerated, as a finding; none if none was."""
    there = table[table["verdict"].isin([BEYOND, WITHIN])]
    ranked = (there["noise_corrected"] / there["tolerated"]).fillna(-np.inf)
    return [disparity(there.loc[ranked.idxmax()], level, "largest")] if len(there) else []


def disparity(row: pd.Series, level: float, key: str = "") -> dict[str, Any]:
    """Return a comparison as a finding, `OUTCOME_DIMENSION`: its disparity less noise, or 0 where noise is more."""
    one = outcome_of(row["outcome"])
    method = (
        f"largest (of {row['highest']}) less smallest (of {row['lowest']}) of {row['groups']} group means, "
        f"{row['raw']:.3g}, less what noise adds; interval from those of all pairs of groups; "
        f"permutation p = {row['p_value']:.3g}, {row['p_adjusted']:.3g} adjusted for all comparisons"
    ).replace(" x ", ", ")
    return {
        "key": key or f"{row['outcome']}_{row['dimension'].replace(' x ', '_')}",
        "label": f"{one.label}: disparity by {called(row['dimension'])}",
        "estimate": max(row["noise_corrected"], 0.0),
        "ci_low": row["ci_low"],
        "ci_high": row["ci_high"],
        "level": level,
        "n": row["n"],
        "unit": _distance(one),
        "method": method,
    }


def disparities(table: pd.DataFrame, level: float, outcomes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the comparisons of these outcomes by one attribute that can be made, as findings."""
    alone = table["outcome"].isin(outcomes) & ~table["dimension"].str.contains(" x ")
    return [disparity(row, level) for _, row in table[alone & table["noise_corrected"].notna()].iterrows()]


def apart(outcomes: Sequence[str], dimensions: Sequence[str] = ("gender", "age_band")) -> list[str]:
    """Return sentences with slots for the findings of `disparities`, one for each; those without a finding drop out."""
    return [
        f"{outcome_of(key).label}, less noise, is {{{key}_{name}:interval}} apart by {called(name)}."
        for key in outcomes
        for name in dimensions
    ]


def could_be_hidden(table: pd.DataFrame, outcomes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the smallest disparity by gender or age that would have been found, `OUTCOME_power`, as findings."""
    alone = table[~table["dimension"].str.contains(" x ") & table["detectable"].notna()]
    out = []
    for key, rows in alone[alone["outcome"].isin(outcomes)].groupby("outcome", sort=False):
        worst, one = rows.loc[rows["detectable"].idxmax()], outcome_of(str(key))
        label = f"{one.label} by {called(worst['dimension'])}: smallest disparity that is found 4 times in 5"
        method = "noncentral F, one group apart from the rest, at the level that a lone disparity has to reach"
        found = exact(f"{key}_power", label, worst["detectable"], n=worst["n"], method=method, unit=_distance(one))
        out.append(found | {"reason": "from sizes and spread of the groups"})
    return out


def answer(found: Mapping[str, Any]) -> list[str]:
    """Return the sentences that findings of `verdicts`, `largest` and `could_be_hidden` call for, numbers as slots."""
    if "tolerated" not in found:
        return []
    there = {key: found[key]["estimate"] > 0 for key in ("beyond", "within_tolerated", "none_found", "cannot_tell")}
    what = found["largest"]["label"].replace(": disparity", "") if "largest" in found else ""
    what = what if what[1:2].isupper() else what[:1].lower() + what[1:]
    power = (
        "Among the {ndcg_power:n} people compared by NDCG@10 the smallest group would have to be {ndcg_power} apart "
        "to be found 4 times in 5."
    )
    if there["beyond"]:
        first = (
            "No: a disparity beyond noise, and of more than the {tolerated} that is tolerated, shows in {beyond} of "
            f"{{beyond:n}} comparisons; the largest, {{largest}}, in {what}."
        )
    elif there["within_tolerated"]:
        first = (
            "Not quite, but within the {tolerated} that is tolerated: a disparity beyond noise shows in "
            f"{{within_tolerated}} of {{within_tolerated:n}} comparisons, the largest, {{largest}}, in {what}."
        )
    elif there["none_found"]:
        first = "As far as these data tell, yes: none of {none_found:n} comparisons shows a disparity beyond noise."
    else:
        first = (
            "These data cannot tell: none of {cannot_tell:n} comparisons shows a disparity beyond noise, but each "
            "could hide one of more than the {tolerated} that is tolerated."
        )
        return [first, power]
    hidden = "In {cannot_tell} comparisons more than is tolerated could be hidden."
    return [first, *([hidden] if there["cannot_tell"] else []), power]


def outcome_of(key: str) -> Outcome:
    """The outcome of this key."""
    return next(one for one in (*OUTCOMES, SUCCESS) if one.key == key)


def called(dimension: str) -> str:
    """The dimension in plain words."""
    return " and ".join(_CALLED.get(part, part) for part in dimension.split(" x "))


def _distance(one: Outcome) -> str:
    return "share difference" if one.unit == "share" else one.unit
