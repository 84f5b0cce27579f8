"""What report 06 shows of a `tuned_blend.Study`: its verdict, its curves, and what accuracy costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.dataset import MissingColumn
from habitlab.evaluation import leaderboard, tuning
from habitlab.evaluation.estimates import Estimate, estimate_of
from habitlab.evaluation.model_tables import chosen
from habitlab.evaluation.tables import exact
from habitlab.evaluation.tuning.search_space import Point
from habitlab.evaluation.tuning.tuned_blend import WORDS, Study, untouched, usual_point

_PAIRED = "untouched people and days, paired by user"
_BY_USER = "windows, bootstrap by user"

MEASURES = {
    "ndcg@10": "NDCG@10",
    "recall@10": "recall@10",
    "intra_list_diversity@10": "diversity of a list",
    "novelty@10": "novelty, bits",
    "taken up": "true chance to take up",
    "kept": "true chance to keep, if taken up",
    "taken up and kept": "true chance to take up and keep",
}


def ready(study: Study) -> Study:
    """The study; raises `MissingColumn` with its reason where there was nothing to search."""
    if study.reason:
        raise MissingColumn(study.reason)
    return study


def budget(study: Study) -> list[dict[str, Any]]:
    """Findings: calls of one search, number of Bayesian searches, and how many calls had no score."""
    searches = [*ready(study).bayesian, *study.random, *study.overview]
    failed, all_calls = sum(one.failed for one in searches), sum(len(one.trials) for one in searches)
    return [
        exact("calls", "Calls of one search", len(searches[0].trials), n=len(searches), method="budget"),
        exact(
            "searches",
            "Bayesian searches, each with its own seed",
            len(study.bayesian),
            n=len(searches),
            method="budget",
        ),
        exact("failed", "Calls without a score", failed, n=all_calls, method="counted"),
    ]


# Convergence


def convergence(study: Study) -> pd.DataFrame:
    """Best score so far, over seeds: method, call, estimate (mean), ci_low and ci_high (lowest and highest), n."""
    tables = pd.concat([one.table() for one in (*ready(study).bayesian, *study.random)])
    summary = tables.groupby(["method", "call"], sort=False)["best"].agg(["mean", "min", "max", "size"]).reset_index()
    return summary.rename(columns={"mean": "estimate", "min": "ci_low", "max": "ci_high", "size": "n"})


def against_random(study: Study, *, level: float) -> Estimate:
    """Finding: best score of a Bayesian search less that of the random one with the same seed, by Student's t."""
    differences = np.array(
        [one.best.value - other.best.value for one, other in zip(ready(study).bayesian, study.random, strict=True)]
    )
    n, low, high = len(differences), np.nan, np.nan
    if n > 1 and np.ptp(differences) > 0:
        low, high = stats.t.interval(level, n - 1, differences.mean(), stats.sem(differences))
    return Estimate(
        "less_random", "Best score of Bayesian less random search, same number of calls", float(differences.mean()),
        float(low), float(high), level, n, "", "paired by seed, Student's t over seeds",
        "" if np.isfinite(low) else "too few searches, or all alike",
    )  # fmt: skip


def promised(study: Study, *, level: float, resamples: int, seed: int) -> list[Any]:
    """Findings in the windows: score of the usual point, its noise, and what tuning gains where it chose."""
    draw = {"resamples": resamples, "seed": seed}
    tuned, usual = ready(study).points()["tuned"], usual_point()
    level_of = study.objective.level(usual, **draw)
    how: dict[str, Any] = {"level": level, "unit": "", "method": _BY_USER}
    gain = study.objective.difference(tuned, usual, **draw)
    return [
        estimate_of(level_of, key="usual_score", label="NDCG@10 of the usual parameters in the windows", **how),
        exact("noise", "Standard error of a score", float(level_of.standard_error[0]), n=level_of.n, method=_BY_USER),
        estimate_of(gain, key="promised", label="NDCG@10 of the tuned less the usual, where it was chosen", **how),
    ]


# What the score depends on, and what it costs


def effects(study: Study, *, level: float, seed: int) -> pd.DataFrame:
    """`tuning.effects` of all searches in one space, with the parameters in words and where the usual point stands."""
    table = tuning.effects([*ready(study).bayesian, *study.random], level=level, seed=seed)
    usual = table["parameter"].map(usual_point())
    return table.assign(usual=usual, parameter=table["parameter"].map(WORDS))


def spread(effects: pd.DataFrame, *, calls: int) -> list[dict[str, Any]]:
    """Findings of `effects`: the parameters that move the mean score most and least, from its lowest to its highest."""
    moves = effects.groupby("parameter", sort=False)["estimate"].agg(np.ptp).sort_values(ascending=False)
    method = "Gaussian process fitted to all calls, mean over the prior"
    return [
        exact(key, f"{which}: {name}", float(value), n=calls, method=method)
        for key, which, (name, value) in (
            ("strongest", "What moves the score most", next(iter(moves.items()))),
            ("weakest", "What moves the score least", list(moves.items())[-1]),
        )
    ]


def trade_off(study: Study) -> pd.DataFrame:
    """Every point tried, then the usual and the tuned one: value (NDCG@10) and list_diversity in the windows.

    `kind` says where a point comes from; `front` that no other point is as good in both and better in one.
    """
    searches = [*ready(study).bayesian, *study.random, *study.overview]
    rows = [one.table().assign(kind="tried") for one in searches]
    for name, point in study.points().items():
        value, measures = study.objective(point)
        rows.append(pd.DataFrame([{"kind": name, **point, "value": value, **measures}]))
    table = pd.concat(rows, ignore_index=True)[["kind", *WORDS, "value", "list_diversity", "chance"]]
    return table.assign(front=tuning.undominated(table[["value", "list_diversity"]]))


def ends_of_front(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Findings of `trade_off`: points on the front, and score and diversity at its two ends."""
    front = table[table["front"]].drop_duplicates(["value", "list_diversity"]).sort_values("list_diversity")
    accurate, varied = front.iloc[0], front.iloc[-1]
    n, method = len(table), "points tried, Pareto front in the windows"
    return [
        exact("front", "Points that nothing beats in both accuracy and diversity", len(front), n=n, method=method),
        exact("accurate_end", "NDCG@10 at the accurate end", float(accurate["value"]), n=n, method=method),
        exact(
            "accurate_diversity",
            "Diversity of lists at the accurate end",
            float(accurate["list_diversity"]),
            n=n,
            method=method,
        ),
        exact("varied_end", "NDCG@10 at the varied end", float(varied["value"]), n=n, method=method),
        exact(
            "varied_diversity",
            "Diversity of lists at the varied end",
            float(varied["list_diversity"]),
            n=n,
            method=method,
        ),
    ]


# The untouched people


def judged(study: Study) -> pd.DataFrame:
    """`tuned_blend.untouched` of all points of the study: ask once, when everything is chosen."""
    test = ready(study).test
    assert test is not None
    return untouched(study.dataset, test, study.points())


def compared(values: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    """Each point less the usual one on the untouched people; metrics of `MEASURES`, see `leaderboard.differences`."""
    return leaderboard.differences(
        values.loc[:, values.columns.get_level_values("metric").isin(MEASURES)], "usual", **draw
    )


def _shown(values: pd.DataFrame) -> pd.DataFrame:
    return values.loc[:, values.columns.get_level_values("metric").isin(MEASURES)]


def gain(differences: pd.DataFrame, *, level: float) -> Estimate:
    """The finding: what tuning is worth to people who were never looked at."""
    label = "NDCG@10 of the tuned less the usual parameters, people and days never looked at"
    return _of(differences, "tuned", "ndcg@10", key="gain", label=label, level=level)


def verdict(gain: Estimate | None) -> str:
    """What tuning does to NDCG, as the start of a sentence; we cannot tell where its interval holds 0."""
    if gain is not None and gain.ci_low > 0:
        return "Tuning finds more"
    if gain is not None and gain.ci_high < 0:
        return "Tuning finds less"
    return "We cannot tell whether tuning finds more or less"


def side_effects(differences: pd.DataFrame, *, level: float) -> list[Estimate]:
    """Findings on the untouched people: the other points, diversity, and in a simulated world what is kept in truth."""
    wanted = [
        ("tuned, described ranges", "ndcg@10", "gain_described",
         "NDCG@10 tuned in the described ranges less usual"),
        ("random search", "ndcg@10", "gain_random", "NDCG@10 of the best of random search less the usual"),
        ("tuned", "intra_list_diversity@10", "more_varied", "Diversity of the tuned less the usual lists"),
        ("tuned", "kept", "kept_in_truth",
         "True chance to keep what is listed, tuned less usual"),
        ("tuned", "taken up and kept", "both_in_truth",
         "True chance to take up and keep what is listed, tuned less usual"),
    ]  # fmt: skip
    there = set(differences["metric"])
    return [
        _of(differences, model, metric, key=key, label=label, level=level)
        for model, metric, key, label in wanted
        if metric in there
    ]


def _of(differences: pd.DataFrame, model: str, metric: str, *, key: str, label: str, level: float) -> Estimate:
    unit = "" if "@" in metric else "share difference"
    return chosen(differences, key=key, label=label, unit=unit, method=_PAIRED, level=level, model=model, metric=metric)


def points_table(points: Mapping[str, Point]) -> pd.DataFrame:
    """A row a parameter, a column a point."""
    table = pd.DataFrame({name: {WORDS[key]: float(point[key]) for key in WORDS} for name, point in points.items()})
    return table.rename_axis("parameter").reset_index()


def results_table(values: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """The untouched people's lists, a row a metric: means of usual and tuned, the difference, its interval, and n."""
    mean = values.mean()
    tuned = differences[differences["model"] == "tuned"].rename(columns={"estimate": "difference"})
    for model in ("tuned", "usual"):
        tuned.insert(0, model, [mean[model, metric] for metric in tuned["metric"]])
    tuned.insert(0, "measure", tuned["metric"].map(MEASURES))
    tuned = tuned.sort_values("metric", key=lambda names: names.map(list(MEASURES).index))
    return tuned[["measure", "usual", "tuned", "difference", "ci_low", "ci_high", "n"]].reset_index(drop=True)


def marked(table: pd.DataFrame) -> pd.DataFrame:
    """The points of `trade_off` that have a name of their own, each place once: kind names all that lie there."""
    named = table[table["kind"] != "tried"]
    places = named.groupby(["value", "list_diversity"], sort=False)
    return places.agg({"kind": " = ".join}).reset_index()


def drawn(differences: pd.DataFrame) -> pd.DataFrame:
    """NDCG@10 of each point less the usual one, a row a point."""
    return differences[differences["metric"] == "ndcg@10"].reset_index(drop=True)
