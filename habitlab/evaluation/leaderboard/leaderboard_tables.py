"""What report 05 shows: every model by every metric, where their order changes, and what the log has to do with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn, small_groups
from habitlab.dataset.analyses import FEWEST
from habitlab.evaluation import estimates, leaderboard, metrics
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.leaderboard.leaderboard_models import BLEND, POPULARITY
from habitlab.evaluation.model_tables import chosen
from habitlab.evaluation.splits import Split, evidence_bands
from habitlab.evaluation.tables import exact
from habitlab.models.interactions import days_of, positions
from habitlab.recommender.diversity import rerank
from habitlab.recommender.recommend import Recommender

TAKEN_UP = "what was taken up"

Lists = Mapping[str, npt.NDArray[np.int32]]

TEMPORAL, LAST, USERS = "global temporal split", "leave last out", "user hold-out"

ACCURACY = {
    "precision": "precision",
    "recall": "recall",
    "capped_recall": "capped recall",
    "hit_rate": "hit rate",
    "average_precision": "average precision",
    "reciprocal_rank": "reciprocal rank",
    "ndcg": "NDCG",
}
BEYOND = {
    "serendipity": "serendipity",
    "novelty": "novelty, bits",
    "intra_list_diversity": "diversity in a list",
    "category_coverage": "categories in a list",
    "miscalibration": "miscalibration",
}
OF_ALL = {
    "catalogue_coverage": "share of the catalogue listed",
    "gini": "Gini of listings",
    "top_tenth_exposure": "attention of the top tenth",
}
SWEEP = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Values of the blend's parameter `diversity`; its default is added."""


# Every metric of every model


def named(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a long table of one metric (`ndcg`), whatever its k, best first."""
    rows = table[table["metric"].str.partition("@")[0] == metric]
    return rows.sort_values("estimate", ascending=False, kind="stable", ignore_index=True)


def side_by_side(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """A long table as a row for each model and a column for each of the metrics in `names`, with intervals as text."""
    found = table.assign(metric=table["metric"].str.partition("@")[0])
    found = found[found["metric"].isin(list(names))]
    cells = [_cell(*row) for row in found[["estimate", "ci_low", "ci_high"]].itertuples(index=False)]
    wide = found.assign(cell=cells).set_index(["model", "metric"])["cell"].unstack()  # noqa: PD010
    wide = wide.reindex(index=found["model"].unique(), columns=[name for name in names if name in wide])
    return wide.rename(columns=dict(names)).rename_axis(index=None, columns=None).reset_index(names="model")


def _cell(estimate: float, low: float, high: float) -> str:
    if not np.isfinite(estimate):
        return "–"
    value, *ends = (f"{round(number, 3) + 0.0:.3f}".replace("-", "−") for number in (estimate, low, high))
    return f"{value} ({ends[0]}\u00a0to\u00a0{ends[1]})" if np.isfinite(low) else value


def against(values: pd.DataFrame, reference: str, **draw: Any) -> pd.DataFrame:
    """`leaderboard.differences` to the reference, with `q_value`: p-values corrected over all models and metrics.

    Benjamini and Hochberg 1995 (JRSS B 57:289); a bootstrap's p-values are too coarse for Holm over so many.
    """
    table = leaderboard.differences(values, reference, **draw)
    return table.assign(q_value=estimates.false_discovery_adjusted(table["p_value"]))


def leading(summary: pd.DataFrame, *, level: float, k: int) -> Estimate:
    """Finding: the highest NDCG, and in the label whose it is."""
    best = named(summary, "ndcg").iloc[0]
    label = f"Highest NDCG@{k}: {best['model']}"
    where = {"model": best["model"], "metric": f"ndcg@{k}"}
    return chosen(summary, key="best", label=label, unit="", method=HOW[TEMPORAL], level=level, **where)


def compared(
    values: pd.DataFrame, pairs: Mapping[str, tuple[str, str]], metric: str, method: str, *, level: float, **draw: Any
) -> list[Estimate]:
    """Findings: a model less another by one metric (`ndcg@10`), key -> (model, reference); equal ones are left out."""
    found = []
    for key, (model, reference) in pairs.items():
        if model == reference:
            continue
        table = leaderboard.differences(values[[model, reference]], reference, level=level, **draw)
        label = f"{_title(metric)} of {_spoken(model)} less {_spoken(reference)}"
        found.append(chosen(table, key=key, label=label, unit="", method=method, level=level, metric=metric))
    return found


def best_but(summary: pd.DataFrame, *others: str) -> str:
    """Name of the model with the highest NDCG that is none of the `others`."""
    ranking = named(summary, "ndcg")
    return str(ranking.loc[~ranking["model"].isin(others), "model"].iloc[0])


def apart(table: pd.DataFrame, key: str, *, level: float) -> dict[str, Any]:
    """Finding: how many differences of `against` are told from none at a false discovery rate, and of how many."""
    known = table["q_value"].notna()
    count = int((table["q_value"] < 1 - level).sum())
    label = f"Differences to {_spoken(table['reference'].iloc[0])} that can be told from none"
    return exact(
        key, label, count, n=int(known.sum()), method="paired by user, false discovery rate over all models and metrics"
    )


_SPOKEN = {
    BLEND: "the blend",
    POPULARITY: POPULARITY,
    "neighbours": "neighbours",
    "random": "chance",
    "as written": "the rule as written",
}
FILMS = "MovieLens, each user's last film left out, by user"
HOW = {
    TEMPORAL: "temporal split, by user",
    LAST: "each user's last adoption left out, by user",
    USERS: "users held out, by user",
}


def _spoken(model: str) -> str:
    kind, _, method = model.partition(", ")
    return f"the {kind} model ({method})" if method else _SPOKEN.get(model, f"the {model} model")


def _title(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{(ACCURACY | BEYOND).get(name, name)}@{k}"


# Where the order changes


def protocols(values: Mapping[str, pd.DataFrame], k: int, **draw: Any) -> pd.DataFrame:
    """NDCG by protocol: protocol, model, estimate, ci_low, ci_high, n, rank (1 is best), and ahead, ahead_low,
    ahead_high, the difference to popularity. Raises `MissingColumn` without any protocol.
    """
    if not values:
        raise MissingColumn("needs people who took up habits, held out in one way or another; there are too few")
    return _by_part(values, k, "protocol", **draw)


def by_band(values: pd.DataFrame, split: Split, cold: pd.DataFrame | None, k: int, **draw: Any) -> pd.DataFrame:
    """The same by band of evidence: the users of a split, and beside them users held out, who are cold by design.

    Bands in which nobody took up anything later are left out, and withheld those of few people; raises `MissingColumn`
    where none is left.
    """
    metric = (POPULARITY, f"ndcg@{k}")
    bands = evidence_bands(split).reindex(values.index)
    parts = {str(band): values[(bands == band).to_numpy()] for band in bands.cat.categories}
    few = small_groups.hidden([part[metric].notna().sum() for part in parts.values()])
    parts = {name: part for (name, part), small in zip(parts.items(), few, strict=True) if not small}
    if cold is not None and cold[metric].notna().sum() >= small_groups.FEWEST:
        parts = {"cold, held out": cold} | parts
    parts = {name: part for name, part in parts.items() if part[metric].notna().any()}
    if not parts:
        raise MissingColumn(f"needs a band of {small_groups.FEWEST} people; smaller ones are withheld")
    return _by_part(parts, k, "band", **draw)


def _by_part(values: Mapping[str, pd.DataFrame], k: int, column: str, **draw: Any) -> pd.DataFrame:
    metric, parts = f"ndcg@{k}", []
    for name, part in values.items():
        own = part.loc[:, part.columns.get_level_values("metric") == metric]
        table = leaderboard.summarise(own, **draw).drop(columns="metric")
        ahead = leaderboard.differences(own, POPULARITY, **draw).set_index("model")
        for here, there in (("ahead", "estimate"), ("ahead_low", "ci_low"), ("ahead_high", "ci_high")):
            table[here] = table["model"].map(ahead[there])
        table.insert(0, column, name)
        parts.append(table.assign(rank=table["estimate"].rank(ascending=False, method="min").astype(int)))
    return pd.concat(parts, ignore_index=True)


def without_popularity(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `protocols` or `by_band` that have something to be ahead of, in the order of the first part."""
    first = table[table.iloc[:, 0] == table.iloc[0, 0]].sort_values("rank", kind="stable")
    order = {model: place for place, model in enumerate(first["model"])}
    rows = table[table["model"] != POPULARITY]
    return rows.sort_values("model", key=lambda model: model.map(order), kind="stable")


def wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """NDCG of `protocols` or `by_band` as text: a row for each model, a column with its n for each part."""
    heads = table.groupby(column, sort=False)["n"].max()
    names = {name: f"{name}, n = {n:,}" for name, n in heads.items()}
    return side_by_side(table.assign(metric=table[column]), names)


def steady(table: pd.DataFrame) -> dict[str, Any]:
    """Finding: in how many protocols the model comes first that comes first in the first of them."""
    first = table[table["rank"] == 1].drop_duplicates("protocol")["model"]
    label = f"First by NDCG: {first.iloc[0]}"
    return exact("steady", label, int((first == first.iloc[0]).sum()), n=len(first), method="order of the estimates")


def ahead_by_part(table: pd.DataFrame, column: str, k: int, *, level: float) -> list[Estimate]:
    """Findings of `protocols` or `by_band`: the blend less popularity in each part."""
    ends = {"ahead": "estimate", "ahead_low": "ci_low", "ahead_high": "ci_high"}
    rows = table[table["model"] == BLEND].drop(columns=list(ends.values())).rename(columns=ends)
    rows = rows[rows["estimate"].notna()]
    return [
        chosen(
            rows,
            key="ahead_" + "_".join(re.findall(r"\w+", name)),
            label=f"NDCG@{k} of the blend less popularity: {name}",
            unit="",
            method=f"by {column}, paired by user",
            level=level,
            **{column: name},
        )
        for name in rows[column]
    ]


# Accuracy against diversity


def sweep(recommender: Recommender, dataset: Dataset, split: Split, k: int) -> pd.DataFrame:
    """NDCG and diversity of each user's list for values of the blend's `diversity`: columns (value as text, metric).

    Only users who took up something later; habits as in `leaderboard.recommend`.
    """
    judged = np.flatnonzero(np.diff(split.relevant.indptr))
    users = split.user_ids[judged].tolist()
    place = pd.Index(split.habit_ids).get_indexer(pd.Index(recommender.habit_ids_))
    scores = np.where(place >= 0, recommender.score(users), -np.inf)
    row, habit = split.seen[judged].nonzero()
    back = pd.Index(recommender.habit_ids_).get_indexer(pd.Index(split.habit_ids))
    scores[row, back[habit]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    items = np.where(ranked > -np.inf, order, -1)
    ranked = np.maximum(ranked, 0.0)
    vectors = leaderboard.attribute_vectors(dataset.habits.set_index("habit_id").loc[split.habit_ids])
    columns = {}
    for value in sorted({*SWEEP, recommender.diversity}):
        listed = rerank(items, ranked, recommender.alike_, recommender.candidates_.category, k=k, diversity=value)
        listed = np.append(place, -1)[listed]  # -1 stays -1
        columns[f"{value:g}", f"ndcg@{k}"] = metrics.ndcg_at_k(listed, split.relevant[judged], k)
        columns[f"{value:g}", f"intra_list_diversity@{k}"] = metrics.intra_list_diversity(listed, vectors)
    frame = pd.DataFrame(columns, index=pd.Index(users, name="user_id"))
    return frame.rename_axis(columns=["model", "metric"])


def curve(swept: pd.DataFrame, k: int, **draw: Any) -> pd.DataFrame:
    """Means of `sweep`: diversity, ndcg, ndcg_low, ndcg_high, variety, variety_low, variety_high, n."""
    table = leaderboard.summarise(swept, **draw)
    parts = []
    for metric, name in ((f"ndcg@{k}", "ndcg"), (f"intra_list_diversity@{k}", "variety")):
        rows = table[table["metric"] == metric].set_index("model")
        parts.append(rows[["estimate", "ci_low", "ci_high"]].set_axis([name, f"{name}_low", f"{name}_high"], axis=1))
    both = pd.concat([*parts, rows["n"]], axis=1).reset_index(names="diversity")
    return both.assign(diversity=both["diversity"].astype(float))


def price_of_default(swept: pd.DataFrame, default: float, k: int, *, level: float, **draw: Any) -> list[Estimate]:
    """Findings of `sweep`: what the blend's default diversity changes against the best scores as they are."""
    table = leaderboard.differences(swept, "0", level=level, **draw)
    table = table[table["model"] == f"{default:g}"]
    return [
        chosen(
            table,
            key=key,
            label=f"{words} with diversity {default:g} less that without",
            unit="",
            method="temporal split, paired by user",
            level=level,
            metric=f"{metric}@{k}",
        )
        for key, metric, words in (
            ("default_ndcg", "ndcg", f"NDCG@{k} of the blend"),
            ("default_diversity", "intra_list_diversity", "Mean distance within a list of the blend"),
        )
    ]


# What all lists give, and what the log showed


def attention(together: pd.DataFrame, users: int) -> list[dict[str, Any]]:
    """Findings of `leaderboard.of_all_lists` of so many users, for the blend and popularity."""
    table = together.assign(metric=together["metric"].str.partition("@")[0]).set_index(["metric", "model"])["estimate"]
    return [
        exact(
            f"{key}_{model}",
            f"{label}, {_spoken(model)}",
            float(table[metric, model]),
            n=users,
            unit="share",
            method=how,
        )
        for model in (BLEND, POPULARITY)
        for key, metric, label, how in (
            ("attention", "top_tenth_exposure", "Attention of the most listed tenth", "1 / log2(rank + 1), all lists"),
            ("coverage", "catalogue_coverage", "Share of the catalogue that is listed to anybody", "all lists"),
        )
        if np.isfinite(table[metric, model])
    ]


def exposure_by_category(lists: Lists, dataset: Dataset, split: Split) -> pd.DataFrame:
    """Share of attention that each category gets, beside its share of later adoptions and of the catalogue.

    Columns: source, category, share; most adopted first. Raises `MissingColumn` where habits have no category.
    """
    habits = dataset.habits.set_index("habit_id").loc[split.habit_ids]
    if "category" not in habits or habits["category"].isna().all():
        raise MissingColumn("needs `habits.category`; this dataset has none")
    taken = np.asarray(split.relevant.sum(axis=0), dtype=float).ravel()
    shares = {f"attention, {name}": metrics.exposure(lists[name], len(habits)) for name in (BLEND, POPULARITY)}
    shares |= {"later adoptions": taken / taken.sum(), "catalogue": np.full(len(habits), 1 / len(habits))}
    table = pd.DataFrame(shares, index=habits["category"].astype(object)).groupby(level=0).sum()
    table = table.sort_values("later adoptions", ascending=False, kind="stable").rename_axis("category").reset_index()
    return table.melt("category", var_name="source", value_name="share")


def log_findings(table: pd.DataFrame, *, level: float) -> list[Estimate]:
    """Findings of `shown_by_the_log`, as means."""
    names = {
        "log_taken_up": (TAKEN_UP, "Share of what was taken up that had been recommended"),
        "log_popularity": (POPULARITY, "Share of popularity's lists that was recommended later"),
        "log_blend": (BLEND, "Share of the blend's lists that was recommended later"),
        "log_random": ("random", "Share of lists by lot that was recommended later"),
    }
    how = "share of habits, by user; from the day of the split on"
    return [
        chosen(table, key=key, label=label, unit="share", method=how, level=level, model=model)
        for key, (model, label) in names.items()
    ]


def shown_by_the_log(lists: Lists, dataset: Dataset, split: Split) -> pd.DataFrame:
    """Share of each user's list that the log shows was recommended to them from the split's day on, by model.

    Beside the models `TAKEN_UP`, the habits that they took up from that day on. Only users to whom anything was
    recommended then. Raises `MissingColumn` without logged recommendations.
    """
    table = dataset.recommendations
    if split.until is None or table.empty or table["shown_at"].notna().sum() == 0:
        raise MissingColumn("needs logged recommendations (`recommendations.shown_at`); this dataset has none")
    later = table[days_of(dataset, "recommendations", "shown_at") >= split.until.to_datetime64()]
    later = later[later["user_id"].isin(split.user_ids) & later["habit_id"].isin(split.habit_ids)]
    if later["user_id"].nunique() < FEWEST:
        raise MissingColumn("needs people to whom habits were recommended after the split; there are too few")
    shown = np.zeros((len(split.user_ids), len(split.habit_ids) + 1))
    shown[positions(later["user_id"], split.user_ids), positions(later["habit_id"], split.habit_ids, "habit")] = 1
    some = shown.any(axis=1)
    rows = np.arange(len(shown))[:, None]
    parts = {name: (shown[rows, listed].sum(axis=1), (listed >= 0).sum(axis=1)) for name, listed in lists.items()}
    met = np.asarray(split.relevant.multiply(shown[:, :-1]).sum(axis=1)).ravel()
    parts[TAKEN_UP] = met, np.diff(split.relevant.indptr)
    columns = {(name, "shown"): np.where(some, metrics.ratio(*part), np.nan) for name, part in parts.items()}
    frame = pd.DataFrame(columns, index=pd.Index(split.user_ids, name="user_id"))
    return frame.rename_axis(columns=["model", "metric"])
