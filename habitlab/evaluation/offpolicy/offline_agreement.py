"""How well each offline number agrees with what really happened in many worlds: tables and findings of report 12.

Rank correlations are of the policies of one world, averaged over worlds; a world is what is drawn again, so intervals
are a t quantile times the standard error over worlds. The policy that knows the truth is left out of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.offpolicy.offline_online import (
    ALONE,
    OF_ADOPTED,
    OF_KEPT,
    ORACLE,
    TRIAL,
    WEIGHED_ADOPTED,
    WEIGHED_KEPT,
    K,
    Worlds,
)
from habitlab.evaluation.tables import exact

Floats = npt.NDArray[np.float64]

NAMED = {
    "tau_ndcg_adopted": (OF_ADOPTED, "ndcg", f"NDCG@{K} of habits adopted later"),
    "tau_ndcg_kept": (OF_KEPT, "ndcg", f"NDCG@{K} of habits kept later"),
    "tau_snips_adopted": (WEIGHED_ADOPTED, "snips", "Off-policy estimate (snips) of adoptions"),
    "tau_snips_kept": (WEIGHED_KEPT, "snips", "Off-policy estimate (snips) of habits kept"),
    "tau_novelty": (ALONE, "novelty", "Novelty of the list"),
    "tau_trial_adopted": (TRIAL, "adopted", "A trial that counts adoptions"),
    "tau_trial_kept": (TRIAL, "kept", "A trial that counts habits kept"),
}
"""Rank correlations that the report names, chosen before any of them was seen: key -> group, number, label."""

COMPARED = {
    "kept_less_adopted": ("tau_ndcg_kept", "tau_ndcg_adopted", f"NDCG@{K}: counting habits kept, less adopted"),
    "weighed_less_adopted": ("tau_snips_adopted", "tau_ndcg_adopted", f"Of adoptions: snips less NDCG@{K}"),
    "trial_less_kept": ("tau_trial_kept", "tau_ndcg_kept", f"Of habits kept: a trial less NDCG@{K}"),
}
"""Differences that the report names, paired by world."""

_SHOWN = {
    OF_ADOPTED: ("precision", "recall", "average precision", "ndcg", "serendipity"),
    OF_KEPT: ("precision", "recall", "average precision", "ndcg", "serendipity"),
    WEIGHED_ADOPTED: ("ips", "snips", "dr", "switch-dr", "dm"),
    WEIGHED_KEPT: ("ips", "snips", "dr", "switch-dr", "dm"),
    ALONE: ("novelty", "intra list diversity", "category coverage", "miscalibration", "gini"),
    TRIAL: ("adopted", "kept"),
}
_WRITTEN = {
    "ndcg": "NDCG",
    "ips": "IPS",
    "snips": "SNIPS",
    "dr": "DR",
    "switch-dr": "Switch-DR",
    "average precision": "avg. precision",
    "intra list diversity": "diversity in a list",
    "dm": "model alone",
}
_METHOD = "Kendall's tau-b over the policies of a world, mean over worlds"


def rank_correlations(worlds: Worlds, truth: str = "kept") -> pd.DataFrame:
    """Agreement of every number with the truth in every world.

    A row a group, number and world: tau (Kendall's tau-b), rho (Spearman), and lost, the share of what the best policy
    brings that is lost by taking the one which the number puts first (of equals, their mean). NaN where a number is the
    same for all policies or missing for one. `truth` is "kept" or "adopted".
    """
    real = worlds.truth[worlds.truth["policy"] != ORACLE].set_index(["world", "policy"])[truth]
    rows = []
    told = worlds.said[worlds.said["policy"] != ORACLE]
    for (group, number, world), part in told.groupby(["group", "number", "world"], sort=False):
        brought = real.loc[world]
        value = part.set_index("policy")["value"].reindex(brought.index).to_numpy()
        rows.append((group, number, world, *_agreement(value, brought.to_numpy())))
    return pd.DataFrame(rows, columns=["group", "number", "world", "tau", "rho", "lost"])


def _agreement(value: Floats, brought: Floats) -> tuple[float, float, float]:
    if np.isnan(value).any() or np.ptp(value) == 0 or np.ptp(brought) == 0:
        return float("nan"), float("nan"), float("nan")
    first = brought[value == value.max()].mean()
    tau, rho = stats.kendalltau(value, brought).statistic, stats.spearmanr(value, brought).statistic
    return float(tau), float(rho), float(1 - first / brought.max())


def agreement(worlds: Worlds, *, level: float = 0.95) -> pd.DataFrame:
    """Mean agreement over worlds, a row a number: group, number, label, and of tau estimate, ci_low and ci_high.

    Also rho and lost (with habits kept), tau_adopted (with adoptions) and n, the worlds in which the number is defined.
    """
    kept, adopted = rank_correlations(worlds), rank_correlations(worlds, "adopted")
    rows = []
    for (group, number), part in kept.groupby(["group", "number"], sort=False):
        other = adopted[(adopted["group"] == group) & (adopted["number"] == number)]
        tau = _interval(part["tau"].to_numpy(), level)
        means = part["rho"].mean(), part["lost"].mean(), other["tau"].mean()
        rows.append((group, number, _label(str(group), str(number)), *tau, *means, int(part["tau"].notna().sum())))
    columns = ["group", "number", "label", "estimate", "ci_low", "ci_high", "rho", "lost", "tau_adopted", "n"]
    return pd.DataFrame(rows, columns=columns)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `agreement` for a figure: one of each kind of number, group by group."""
    order = {pair: place for place, pair in enumerate((group, one) for group in _SHOWN for one in _SHOWN[group])}
    place = pd.Series([order.get(pair, -1) for pair in zip(table["group"], table["number"], strict=True)], table.index)
    return table[place >= 0].iloc[np.argsort(place[place >= 0], kind="stable")].reset_index(drop=True)


def for_reading(table: pd.DataFrame) -> pd.DataFrame:
    """`agreement` as a table to read, best first."""
    names = {"group": "held against", "estimate": "tau", "ci_low": "from", "ci_high": "to", "rho": "Spearman"}
    names |= {"tau_adopted": "tau, adopted", "lost": "lost"}
    best = table.sort_values("estimate", ascending=False, kind="stable", ignore_index=True)
    return best[["number", *names]].rename(columns=names)


def named(worlds: Worlds, *, level: float = 0.95) -> dict[str, Estimate]:
    """Findings: the correlations in `NAMED`, the differences in `COMPARED`, and what it costs to choose by NDCG."""
    each = rank_correlations(worlds)
    by_world = {
        key: each[(each["group"] == group) & (each["number"] == number)].set_index("world")
        for key, (group, number, _) in NAMED.items()
    }
    found = {
        key: _over_worlds(by_world[key]["tau"].to_numpy(), key=key, label=label, method=_METHOD, level=level, unit="r")
        for key, (_, _, label) in NAMED.items()
    }
    for key, (first, second, label) in COMPARED.items():
        gap = (by_world[first]["tau"] - by_world[second]["tau"]).to_numpy()
        found[key] = _over_worlds(
            gap, key=key, label=label, method=f"{_METHOD}; paired by world", level=level, unit="r", within=(-2.0, 2.0)
        )
    for key, which, words in (
        ("lost_by_adopted", "tau_ndcg_adopted", f"Lost by choosing by NDCG@{K} of adoptions"),
        ("lost_by_kept", "tau_ndcg_kept", f"Lost by choosing by NDCG@{K} of habits kept"),
    ):
        found[key] = _over_worlds(
            by_world[which]["lost"].to_numpy(),
            key=key,
            label=words,
            level=level,
            unit="share",
            method="of the habits kept under the best policy of each world, mean over worlds",
            within=(0.0, 1.0),
        )
    return found


def answer(found: Mapping[str, Estimate]) -> str:
    """Return the sentence that these findings bear out, with slots for `findings.answer`."""
    offline, trial, waiting = (found[key] for key in ("tau_ndcg_adopted", "trial_less_kept", "kept_less_adopted"))
    if not offline.ci_low > 0:
        start = "Whether offline numbers predict it, {tau_ndcg_adopted:n} worlds do not tell"
    elif trial.ci_low > 0:
        start = "Offline numbers predict part of it, not as well as a trial"
    else:
        start = "Offline numbers predict it, as well as a trial as far as {tau_ndcg_adopted:n} worlds tell"
    better, worse = waiting.ci_low > 0, waiting.ci_high < 0
    clause = "which is better" if better else "which is worse" if worse else "which may be no better"
    return (
        f"{start}: with what people keep, the order of policies by NDCG@{K} of later adoptions has a rank correlation "
        f"of {{tau_ndcg_adopted}}, of habits kept later {{tau_ndcg_kept}}, {clause}, and by a trial of all of them "
        "{tau_trial_kept}."
    )


def misled(worlds: Worlds) -> dict[str, Any]:
    """Finding: in how many worlds NDCG of adoptions puts another policy first than the one that keeps most."""
    first, best = _first_and_best(worlds)
    wrong = first[first != best]
    words = f", most often {wrong.mode().iloc[0]}" if len(wrong) else ""
    label = f"Worlds in which NDCG@{K} of adoptions puts first what does not keep most{words}"
    return exact("misled", label, len(wrong), n=len(best), method="count of worlds")


def why_misled(worlds: Worlds, *, level: float = 0.95) -> list[Estimate]:
    """Findings: the policy that NDCG of adoptions puts first over the one that keeps most, in its two parts.

    How many of its habits are adopted, and what share of these is kept: their product is the ratio of habits kept.
    """
    first, best = _first_and_best(worlds)
    adopted, kept = (_wide(worlds.truth, what) for what in ("adopted", "kept"))
    parts = {
        "first_adopted": ("habits adopted", adopted),
        "first_share": ("share of the adopted that is kept", kept / adopted),
    }
    return [
        _ratio(
            np.array([table.loc[world, first[world]] / table.loc[world, best[world]] for world in best.index]),
            key=key,
            label=f"What NDCG@{K} of adoptions puts first over what keeps most: {words}",
            level=level,
        )
        for key, (words, table) in parts.items()
    ]


def _first_and_best(worlds: Worlds) -> tuple[pd.Series, pd.Series]:
    """Return the policy of each world that NDCG of adoptions puts first, and the one that really keeps most."""
    said = worlds.said[(worlds.said["group"] == OF_ADOPTED) & (worlds.said["number"] == "ndcg")]
    first = _wide(said[said["policy"] != ORACLE], "value").idxmax(axis=1)
    return first, _wide(worlds.truth[worlds.truth["policy"] != ORACLE], "kept").idxmax(axis=1)


def policies(worlds: Worlds, *, level: float = 0.95) -> pd.DataFrame:
    """What each policy really brings to 100 people, mean over worlds, best first.

    Columns: policy; adopted and kept with ends of their intervals (adopted_low ...); uplift over random lists, of kept.
    """
    rows = []
    base = worlds.truth[worlds.truth["policy"] == "random"].set_index("world")["kept"]
    for policy, part in worlds.truth.groupby("policy", sort=False):
        uplift = (part.set_index("world")["kept"] - base).mean()
        both = [_interval(part[what].to_numpy(), level) for what in ("adopted", "kept")]
        rows.append((policy, *both[0], *both[1], uplift))
    columns = ["policy", "adopted", "adopted_low", "adopted_high", "kept", "kept_low", "kept_high", "uplift"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("kept", ascending=False, kind="stable", ignore_index=True)


def best_policies(worlds: Worlds, *, level: float = 0.95) -> list[Estimate]:
    """Findings: uplift of the policy that keeps most and of the one adopted most, and of the best list there is."""
    table = policies(worlds, level=level)
    can = table[table["policy"] != ORACLE]
    chosen = {
        "keeps_most": (can.iloc[0]["policy"], "the policy that keeps most"),
        "adopted_most": (can.loc[can["adopted"].idxmax(), "policy"], "the policy adopted most"),
        "bound": (ORACLE, "a policy that knows the truth, the best there is"),
    }
    wide = _wide(worlds.truth, "kept")
    return [
        _over_worlds(
            (wide[policy] - wide["random"]).to_numpy(),
            key=key,
            label=f"More kept under {why}" + (f": {policy}" if policy != ORACLE else ""),
            level=level,
            unit="habits",
            method="habits kept of 100 people, less those of random lists; run in each world, mean over worlds",
            within=(-np.inf, np.inf),
        )
        for key, (policy, why) in chosen.items()
    ]


def _ratio(values: Floats, *, key: str, label: str, level: float) -> Estimate:
    method = "ratio in each world, geometric mean over worlds"
    return _over_worlds(
        values, key=key, label=label, method=method, level=level, unit="ratio", within=(0.0, np.inf), log=True
    )


# The log that judges


def by_log(worlds: Worlds) -> pd.DataFrame:
    """What each log says of the same lists, mean over worlds: policy, and ndcg, mean and snips by log; best first."""
    wide = worlds.logs.pivot_table(index="policy", columns="log", values=["ndcg", "mean", "snips"], sort=False)
    flat = wide.set_axis([f"{number}_{log}" for number, log in wide.columns], axis=1)
    truth = worlds.truth.groupby("policy")["adopted"].mean()
    return flat.assign(adopted=truth).sort_values("adopted", ascending=False).reset_index()


def changed_log(worlds: Worlds, *, level: float = 0.95) -> dict[str, Estimate]:
    """Findings: how popularity compares with content in truth, and as each log has it."""

    def gap(number: str, log: str) -> Floats:
        wide = _wide(worlds.logs[worlds.logs["log"] == log], number)
        return (wide["popularity"] / wide["content"]).to_numpy()

    truth = _wide(worlds.truth, "adopted")
    parts: dict[str, tuple[str, Floats]] = {
        "popular_truth": ("in truth, by adoptions", (truth["popularity"] / truth["content"]).to_numpy()),
        "popular_ndcg_random": (f"NDCG@{K}, judged by people shown random slates", gap("ndcg", "random")),
        "popular_ndcg_popular": (f"NDCG@{K}, judged by people shown popular slates", gap("ndcg", "popular")),
        "popular_snips_popular": ("SNIPS, from popular slates and their propensities", gap("snips", "popular")),
        "popular_snips_random": ("SNIPS, from random slates", gap("snips", "random")),
    }
    return {
        key: _ratio(values, key=key, label=f"Popularity over content, {words}", level=level)
        for key, (words, values) in parts.items()
    }


# Off-policy estimates


def trust(worlds: Worlds) -> pd.DataFrame:
    """How far each estimate is from the exact worth of a place, over all worlds and policies.

    Columns: target, method, bias, error (root mean square), holds truth (share of intervals), unusable (share told
    aloud), effective (mean effective sample size), rows (mean), n (estimates).
    """
    known = worlds.weighed.dropna(subset=["truth"])
    away = known["value"] - known["truth"]
    inside = (known["ci_low"] <= known["truth"]) & (known["truth"] <= known["ci_high"])
    known = known.assign(away=away, square=away**2, holds=inside, unusable=~known["usable"])
    grouped = known.groupby(["target", "method"], sort=False)
    table = grouped[["away", "square", "holds", "unusable", "effective", "rows"]].mean()
    table = table.assign(square=np.sqrt(table["square"]), n=grouped.size())
    names = {"away": "bias", "square": "error", "holds": "holds truth"}
    return table.rename(columns=names).reset_index().round(4)


def trusted(worlds: Worlds, *, level: float = 0.95) -> dict[str, Estimate]:
    """Findings: effective rows of either target, and how often snips' interval holds the truth of its list."""
    known = worlds.weighed.dropna(subset=["truth"])
    snips = known[(known["method"] == "snips") & (known["policy"] != ORACLE)]
    inside = (snips["ci_low"] <= snips["truth"]) & (snips["truth"] <= snips["ci_high"])
    by_world = snips.assign(inside=inside.astype(float), unusable=(~snips["usable"]).astype(float))
    parts = {
        "effective_list": ("any of its list", "effective", "rows", "Effective rows for any habit of the list"),
        "effective_best": ("its best", "effective", "rows", "Effective rows for the first habit alone"),
        "holds_list": ("any of its list", "inside", "share", "Intervals of snips that hold the truth, for the list"),
        "unusable_best": ("its best", "unusable", "share", "Estimates told to be useless, for the first habit alone"),
    }
    return {
        key: _over_worlds(
            by_world.loc[by_world["target"] == target].groupby("world")[column].mean().to_numpy(),
            key=key,
            label=label,
            level=level,
            unit=unit,
            method="mean over the policies of a world, mean over worlds",
            within=(0.0, 1.0) if unit == "share" else (0.0, np.inf),
        )
        for key, (target, column, unit, label) in parts.items()
    }


def estimated(worlds: Worlds) -> pd.DataFrame:
    """Every estimate of snips with a known truth: target, world, policy, value, ci_low, ci_high, truth, usable."""
    known = worlds.weighed.dropna(subset=["truth", "value"])
    columns = ["target", "world", "policy", "value", "ci_low", "ci_high", "truth", "usable"]
    return known.loc[known["method"] == "snips", columns].reset_index(drop=True)


def quoted(worlds: Worlds) -> str:
    """What an off-policy estimate that cannot be used says aloud, in its own words."""
    said = worlds.weighed[worlds.weighed["method"] == "snips"]
    said = said.loc[said["warning"] != "", "warning"]
    if said.empty:
        return "None of these estimates was told to be useless."
    return f"What such an estimate says, in its own words: \u201c{said.iloc[0]}\u201d."


def _wide(table: pd.DataFrame, values: str) -> pd.DataFrame:
    """A row a world, a column a policy."""
    return table.set_index(["world", "policy"])[values].unstack("policy")  # noqa: PD010  (there is one of each)


def _label(group: str, number: str) -> str:
    written = _WRITTEN.get(number, number)
    if group == ALONE:
        return written
    if group == TRIAL:
        return f"a trial, {number}"
    return f"{written}, {group.removeprefix('off-policy, ').removesuffix(' later')}"


def _interval(values: Sequence[float] | Floats, level: float) -> tuple[float, float, float]:
    """Mean of the known values and its t interval (NaN for fewer than two, or where they are all alike)."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    if not error > 0:
        return float(known.mean()), float("nan"), float("nan")
    reach = stats.t.isf((1 - level) / 2, len(known) - 1) * error
    return float(known.mean()), float(known.mean() - reach), float(known.mean() + reach)


def _over_worlds(
    values: Floats, *, key: str, label: str, level: float, unit: str, method: str,
    within: tuple[float, float] = (-1.0, 1.0), log: bool = False,
) -> Estimate:  # fmt: skip
    """Mean over worlds with its interval, cut to where the number can lie; `log`: of logarithms, and back."""
    values = np.where(np.asarray(values, dtype=float) > 0, values, np.nan) if log else np.asarray(values, dtype=float)
    ends = np.array(_interval(np.log(values) if log else values, level))
    ends = np.exp(ends) if log else ends
    estimate, low, high = (float(end) for end in np.clip(ends, *within))
    n = int(np.isfinite(values).sum())
    reason = "" if np.isfinite(low) else f"{n} worlds, or all alike: how much worlds differ cannot be told"
    return Estimate(key, label, estimate, low, high, level, n, unit, f"{method}; t interval over worlds", reason)
