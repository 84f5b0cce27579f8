"""The register: what the overview's section 2 claims, each with its estimand, and what a dataset says of it.

Verdicts (design.md). The interval is by user, widened on both sides by the claim's tolerance:

- `reproduced`: it holds the reported value and not 0;
- `differs`: it does not hold the reported value;
- `inconclusive`: it holds both;
- `not testable`: there is no interval, and `reason` says why.

A claim without a number is a contrast that is 0 where the claim begins: `reproduced` when its interval lies wholly on
the claimed side, `differs` when wholly on the other, else `inconclusive`.

A claim of several parts is judged by its least favourable contrast (intersection-union test, Berger 1982,
Technometrics 24): all must hold, so each lower end is at the full level, and since any one may refute it, upper
ends share the error (Bonferroni). A claim that one of several is associated is judged by the strongest, the other way
round.

Limit: an interval by user takes the catalogue as given. It says what other people would do with these habits, not what
other habits would bring; claims about kinds of habits vary more from catalogue to catalogue than it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, DatasetError, MissingColumn
from habitlab.dataset.derived import commitment_code, complexity
from habitlab.evaluation import behaviour, estimates
from habitlab.evaluation.behaviour import HORIZON
from habitlab.evaluation.estimates import Estimate, Resampled
from habitlab.features import temporal

Side = int
"""1: the claimed side is above 0; -1: below."""

STRONG = 0.2
"""Cramer V from which C-2.1.c calls an association strong: the overview's word, our number."""

FEWEST_COMPLETIONS = 30
"""Completions from which a pair's hours and runs are judged (C-2.3.c)."""

BEST_CATEGORIES, WORST_CATEGORY, BEST_BAND = ("mindfulness", "physical"), "diet", "5 to 15"


@dataclass(frozen=True)
class Claim:
    """One claim of the overview: what it says, and the number that would show it.

    `reported` is the overview's number (None: it gives none), `tolerance` widens the interval on both sides, `unit` is
    that of the estimate and `units` says what `n` counts.
    """

    key: str
    id: str
    statement: str
    estimand: str
    reported: float | None = None
    tolerance: float = 0.0
    side: Side = 1
    unit: str = "share difference"
    units: str = "pairs"


REGISTER = (
    Claim(
        "midway_dip",
        "C-2.1.a",
        "Completion dips on days 7-14 after a habit is adopted",
        "Share done by those still active, daily habits: the smaller of (mean of days 1-3) - (mean of days 7-14) and "
        "(mean of days 22-35) - (mean of days 7-14)",
    ),
    Claim(
        "time_of_day_peaks",
        "C-2.1.b",
        "Most habits are completed at 6-8 in the morning or 7-9 in the evening",
        "Share of completions with a local hour in [6, 8) or [19, 21), less one half",
        units="completions",
    ),
    Claim(
        "demographics_category",
        "C-2.1.c",
        "Demography and category preference are strongly associated",
        f"Largest bias-corrected Cramer V of gender or age band with the category of adopted habits, less {STRONG}",
        unit="V",
    ),
    Claim(
        "difficulty_progression",
        "C-2.1.d",
        "Successful users start with easier habits",
        "Mean difficulty of the habits adopted first: users who do 60 % or more of what is scheduled on days 22-49, "
        "less other users",
        side=-1,
        unit="levels",
        units="users",
    ),
    Claim(
        "optimal_duration",
        "C-2.2.a",
        "Habits of 5 to 15 minutes are completed most",
        "Mean completion of pairs, standardised over category and difficulty: 5 to 15 minutes, less the best "
        "other band",
    ),
    Claim(
        "category_success",
        "C-2.2.b",
        "Mindfulness and physical habits succeed most, diet habits are abandoned most",
        "Smallest of: mean completion of mindfulness, and of physical, less that of each other category; "
        f"{HORIZON}-day retention of each other category, less that of diet",
    ),
    Claim(
        "clear_description_adoption",
        "C-2.2.c",
        "Clear, actionable descriptions bring 27 % more adoptions",
        "Relative risk of accepting a recommendation in clear words, the wording drawn by lot, less 1",
        reported=0.27,
        tolerance=0.05,
        unit="share",
        units="recommendations",
    ),
    Claim(
        "daily_vs_weekly",
        "C-2.2.d",
        "Daily habits are completed less often per occasion, but kept longer, than weekly ones",
        f"The smaller of: mean completion of weekly less daily pairs, and {HORIZON}-day retention of daily less weekly",
    ),
    Claim(
        "complexity_time_commitment",
        "C-2.3.a",
        "Habit complexity and reported time commitment correlate at 0.72",
        "Pearson correlation over adopted pairs of the habit's complexity (1-5) and the user's time commitment (1-4)",
        reported=0.72,
        tolerance=0.03,
        unit="r",
    ),
    Claim(
        "concurrent_habits_completion",
        "C-2.3.b",
        "Concurrent habits and average completion correlate at -0.58",
        "Pearson correlation over users of the mean number of habits held at adoption and mean completion",
        reported=-0.58,
        tolerance=0.03,
        side=-1,
        unit="r",
        units="users",
    ),
    Claim(
        "consistent_time_streak",
        "C-2.3.c",
        "A consistent time of day and streak length correlate at 0.81",
        "Pearson correlation over daily pairs with 30 completions or more of -log(1 - R) and log mean run length, "
        "R the mean resultant length of the local hours, its bias taken off",
        reported=0.81,
        tolerance=0.03,
        unit="r",
    ),
    Claim(
        "goal_setting_completion",
        "C-2.3.d",
        "Setting an explicit goal and completion correlate at 0.43",
        "Point-biserial correlation over users of having set a goal and mean completion",
        reported=0.43,
        tolerance=0.03,
        unit="r",
        units="users",
    ),
)


@dataclass(frozen=True)
class ClaimResult:
    """What a dataset says of a claim; see `Claim` for the first fields and the module's text for `verdict`.

    `ci_low` and `ci_high` are the ends of the interval by user, widened by `tolerance`: the verdict follows from them.
    `levels`: a correlation over pairs, users and habits side by side, or a claim's parts. `naive`: the readings that
    mislead. `truth`: the true causal value where the data are simulated. `p_value` is that of "nothing there",
    `q_value` the same adjusted over the register (Benjamini-Hochberg).
    """

    key: str
    id: str
    statement: str
    reported: float | None
    estimate: float
    ci_low: float
    ci_high: float
    n: int
    verdict: str
    figure: str | None
    reason: str
    level: float
    unit: str
    units: str
    estimand: str
    tolerance: float
    method: str
    p_value: float
    q_value: float
    levels: tuple[Estimate, ...] = ()
    naive: tuple[Estimate, ...] = ()
    truth: float | None = None


@dataclass(frozen=True)
class Draw:
    """How intervals are made."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    @property
    def again(self) -> dict[str, int]:
        """Arguments of a bootstrap."""
        return {"resamples": self.resamples, "seed": self.seed}


@dataclass(frozen=True)
class Measured:
    """A claim's number before its verdict."""

    estimate: float
    ci_low: float
    ci_high: float
    n: int
    p_value: float
    method: str
    reason: str = ""
    levels: tuple[Estimate, ...] = ()
    naive: tuple[Estimate, ...] = ()


def verdict(ci_low: float, ci_high: float, *, reported: float | None, tolerance: float = 0.0, side: Side = 1) -> str:
    """Judge an interval; see the module's text."""
    if not (np.isfinite(ci_low) and np.isfinite(ci_high)):
        return "not testable"
    low, high = ci_low - tolerance, ci_high + tolerance
    if reported is None:
        low, high = (low, high) if side > 0 else (-high, -low)
        return "reproduced" if low > 0 else "differs" if high < 0 else "inconclusive"
    if not low <= reported <= high:
        return "differs"
    return "inconclusive" if low <= 0 <= high else "reproduced"


def evaluate(
    dataset: Dataset,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    truth: Mapping[str, float] | None = None,
    figures: Mapping[str, str] | None = None,
) -> list[ClaimResult]:
    """Hold every claim of the register against a dataset, in the register's order.

    `truth` gives the true causal value of claims by key, where it is known; `figures` the id of the figure that shows
    each. What the data cannot answer is `not testable`, with the reason; nothing is raised for it.
    """
    draw = Draw(level, resamples, seed)
    measured = [_measure(claim, dataset, draw) for claim in REGISTER]
    q_values = estimates.false_discovery_adjusted([found.p_value for found in measured])
    return [
        ClaimResult(
            key=claim.key,
            id=claim.id,
            statement=claim.statement,
            reported=claim.reported,
            estimate=found.estimate,
            ci_low=found.ci_low - claim.tolerance,
            ci_high=found.ci_high + claim.tolerance,
            n=found.n,
            verdict=verdict(
                found.ci_low, found.ci_high, reported=claim.reported, tolerance=claim.tolerance, side=claim.side
            ),
            figure=(figures or {}).get(claim.key),
            reason=found.reason,
            level=level,
            unit=claim.unit,
            units=claim.units,
            estimand=claim.estimand,
            tolerance=claim.tolerance,
            method=found.method + (f"; interval widened by {claim.tolerance} on both sides" if claim.tolerance else ""),
            p_value=found.p_value,
            q_value=q_value,
            levels=found.levels,
            naive=found.naive,
            truth=(truth or {}).get(claim.key),
        )
        for claim, found, q_value in zip(REGISTER, measured, q_values, strict=True)
    ]


def _measure(claim: Claim, dataset: Dataset, draw: Draw) -> Measured:
    try:
        return _MEASURES[claim.key](dataset, draw)
    except DatasetError as error:
        nothing = float("nan")
        return Measured(nothing, nothing, nothing, 0, nothing, "", str(error))


def _single(resampled: Resampled, draw: Draw, n: int, method: str) -> Measured:
    (low,), (high,) = resampled.interval(draw.level)
    return Measured(
        float(resampled.estimate[0]), float(low), float(high), n, resampled.p_value(), method, resampled.reason()
    )


def _all_of(parts: Sequence[Resampled], names: Sequence[str], draw: Draw, n: int, method: str) -> Measured:
    """Judge a claim that every one of these contrasts lies above 0 by the least favourable."""
    estimate = np.concatenate([part.estimate for part in parts])
    shared = 1 - (1 - draw.level) / len(estimate)
    low = np.concatenate([part.interval(draw.level)[0] for part in parts])
    high = np.concatenate([part.interval(shared)[1] for part in parts])
    each = [part.p_value(column) for part in parts for column in range(len(part.estimate))]
    # One-sided p-values; twice the largest agrees with a two-sided interval whose lower end is above 0.
    one_sided = np.where(estimate > 0, np.array(each) / 2, 1 - np.array(each) / 2)
    reasons = [part.reason(column) for part in parts for column in range(len(part.estimate))]
    least = names[int(np.nanargmin(estimate))] if np.isfinite(estimate).any() else ""
    missing = next((f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True) if reason), "")
    return Measured(
        float(estimate.min()),
        float(low.min()),
        float(high.min()),
        n,
        float(np.minimum(1.0, 2 * one_sided.max())),  # NaN where a part could not be tested
        f"{method}; least favourable of {len(estimate)} contrasts: {least}",
        missing,
    )


def _finding(
    resampled: Resampled, draw: Draw, key: str, label: str, n: int, method: str, unit: str = "share difference"
) -> Estimate:
    return estimates.estimate_of(resampled, key=key, label=label, level=draw.level, unit=unit, method=method, n=n)


# 2.1


def _midway_dip(dataset: Dataset, draw: Draw) -> Measured:
    held = behaviour.cycle_data(dataset)
    names = ("days 1-3 less 7-14", "days 22-35 less 7-14")
    active, survivors, weighted = (
        behaviour.dip(held, survivors=only, weighted=ipcw, resamples=draw.resamples, seed=draw.seed)
        for only, ipcw in ((False, False), (True, False), (False, True))
    )
    n, left = (len(np.unique(held.pair[behaviour.dip_days(held, survivors=only)])) for only in (False, True))
    beside = (
        ("midway_dip_survivors", "those held to day 35", survivors, left, METHOD),
        ("midway_dip_weighted", "weighted for those who gave up", weighted, n, f"IPCW; {METHOD}"),
    )
    naive = tuple(
        _finding(_column(found, 1), draw, key, f"{names[1]}, {who}", count, method)
        for key, who, found, count, method in beside
    )
    return replace(_all_of([active], names, draw, n, METHOD), naive=naive)


METHOD = "cluster bootstrap by user (BCa)"


def _column(resampled: Resampled, column: int) -> Resampled:
    return Resampled(
        resampled.estimate[[column]],
        resampled.replicates[:, [column]],
        resampled.standard_error[[column]],
        resampled.acceleration[[column]],
        resampled.n,
    )


def _time_of_day_peaks(dataset: Dataset, draw: Draw) -> Measured:
    share = behaviour.peak_share(dataset, **draw.again)
    # Without zones the peaks of each zone lie elsewhere on the clock (D43). Users without a zone stay out of both.
    utc = dataset.users["zone"].where(dataset.users["zone"].isna(), "UTC")
    greenwich = behaviour.peak_share(dataset.replace(users=dataset.users.assign(zone=utc)), **draw.again)
    above = replace(share, estimate=share.estimate - 0.5, replicates=share.replicates - 0.5)
    completions = len(behaviour.local_hours(dataset))
    local, universal = (
        _finding(
            found,
            draw,
            f"peak_share{key}",
            f"share of completions at 6-8 and 19-21, {clock}",
            completions,
            METHOD,
            "share",
        )
        for found, key, clock in ((share, "", "local time"), (greenwich, "_utc", "UTC, as if zones did not matter"))
    )
    return replace(_single(above, draw, completions, METHOD), levels=(local,), naive=(universal,))


def _demographics_category(dataset: Dataset, draw: Draw) -> Measured:
    pairs = behaviour.demographics_data(dataset)
    names = behaviour.attributes(pairs)
    shared = 1 - (1 - draw.level) / len(names)
    ends, p_values, beside = [], [], []
    for name in names:
        part = pairs[pairs[name].notna()]
        found = estimates.association(part[name], part["category"], part["user_id"], **draw.again)
        if found.phi2.reason():
            raise MissingColumn(f"{name}: {found.phi2.reason()}")
        v, low, high = found.cramers_v(draw.level)
        ends.append((v, found.cramers_v(shared)[1], high))
        p_values.append(found.p_value)
        label = f"Cramer V of {name.replace('_', ' ')} and category"
        beside.append(Estimate(f"cramers_v_{name}", label, v, low, high, draw.level, len(part), "V", METHOD))
    v, low, high = (np.array(ends).max(axis=0) - STRONG).tolist()
    strongest = int(np.argmax([end[0] for end in ends]))
    name = names[strongest].replace("_", " ")
    return Measured(
        v,
        low,
        high,
        beside[strongest].n,
        min(1.0, min(p_values) * len(names)),
        f"bias-corrected Cramer V; {METHOD}; strongest of {len(names)}: {name}",
        levels=tuple(beside),
    )


def _difficulty_progression(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("adoptions.adopted_at", "habits.difficulty")
    users = behaviour.starts(behaviour.holdings(dataset))
    if users.empty:
        raise MissingColumn(f"needs habits followed for {behaviour.SUCCESS_DAYS[1]} days from adoption; there are none")
    resampled = estimates.ratio(
        users["difficulty"], 1.0, users["user_id"], group=~users["success"], groups=2, contrasts=[(0, 1)], **draw.again
    )
    return _single(resampled, draw, len(users), METHOD)


# 2.2


def _optimal_duration(dataset: Dataset, draw: Draw) -> Measured:
    pairs, groups, nuisance = behaviour.duration_data(behaviour.holdings(dataset))
    if BEST_BAND not in groups or len(groups) < 2:
        raise MissingColumn(f"needs habits of {BEST_BAND} minutes and of another band; this dataset has not both")
    best = groups.index(BEST_BAND)
    others = [number for number in range(len(groups)) if number != best]
    contrasts = [(best, other) for other in others]
    adjusted = estimates.adjusted_means(
        pairs["completion"],
        pairs["code"],
        pairs[nuisance],
        pairs["user"],
        groups=len(groups),
        contrasts=contrasts,
        **draw.again,
    )
    raw = estimates.ratio(
        pairs["completion"],
        1.0,
        pairs["user"],
        group=pairs["code"],
        groups=len(groups),
        contrasts=contrasts,
        **draw.again,
    )
    names = [f"less {groups[other]} minutes" for other in others]
    worst = int(np.nanargmin(raw.estimate))
    label = f"not standardised: {BEST_BAND} {names[worst]}"
    return replace(
        _all_of([adjusted], names, draw, len(pairs), f"least squares; {METHOD}"),
        naive=(_finding(_column(raw, worst), draw, "optimal_duration_raw", label, len(pairs), METHOD),),
    )


def _retained(
    pairs: pd.DataFrame, groups: Sequence[str], contrasts: Sequence[tuple[int, int]], draw: Draw
) -> Resampled:
    """Differences in the share still held `HORIZON` days after adoption."""
    if pairs["followup"].max() < HORIZON - 1:
        raise MissingColumn(f"needs {HORIZON} days from adoption to the end of the data; this dataset has fewer")
    at = [(first * HORIZON + HORIZON - 1, second * HORIZON + HORIZON - 1) for first, second in contrasts]
    return estimates.kaplan_meier(
        pairs["exit_day"],
        pairs["ended"],
        pairs["code"],
        pairs["user"],
        groups=len(groups),
        days=HORIZON,
        contrasts=at,
        **draw.again,
    )


def _category_success(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("habits.category", "adoptions.adopted_at", "adoptions.abandoned_at")
    held = behaviour.holdings(dataset)
    done, groups = behaviour.rated(held, "category")
    kept, kept_groups = behaviour.grouped(held.pairs, "category")
    needed = {*BEST_CATEGORIES, WORST_CATEGORY}
    if not needed <= set(groups) or len(groups) <= len(needed):
        raise MissingColumn(f"needs habits of {', '.join(sorted(needed))} and of other categories; there are not all")
    contrasts = [
        (groups.index(best), groups.index(other))
        for best in BEST_CATEGORIES
        for other in groups
        if other not in BEST_CATEGORIES
    ]
    completion = estimates.ratio(
        done["completion"], 1.0, done["user"], group=done["code"], groups=len(groups), contrasts=contrasts, **draw.again
    )
    worst = kept_groups.index(WORST_CATEGORY)
    against = [(other, worst) for other in range(len(kept_groups)) if other != worst]
    names = [f"completion of {groups[a]} less {groups[b]}" for a, b in contrasts]
    names += [f"retention of {kept_groups[a]} less {kept_groups[b]}" for a, b in against]
    retained = _retained(kept, kept_groups, against, draw)
    return _all_of([completion, retained], names, draw, len(kept), f"means and Kaplan-Meier; {METHOD}")


def _clear_description_adoption(dataset: Dataset, draw: Draw) -> Measured:
    shown = behaviour.description_data(dataset)
    by_lot = shown[shown["randomised"]]
    if by_lot["clear"].nunique() < 2:
        raise MissingColumn(
            f"needs recommendations whose wording was drawn by lot (`policy` {behaviour.RANDOMISED}), clear and vague; "
            "this dataset has none"
        )

    def change(rows: pd.DataFrame) -> Resampled:
        return estimates.relative_change(rows["accepted"], rows["clear"], rows["user_id"], **draw.again)

    found = _single(change(by_lot), draw, len(by_lot), f"relative risk - 1; {METHOD}")
    rest = shown[~shown["randomised"]]
    if rest["clear"].nunique() < 2:
        return found
    naive = _finding(
        change(rest),
        draw,
        "clear_description_confounded",
        "wording chosen by editors: confounded with popularity",
        len(rest),
        METHOD,
        "share",
    )
    return replace(found, naive=(naive,))


def _daily_vs_weekly(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("habits.target", "adoptions.adopted_at", "adoptions.abandoned_at")
    held = behaviour.holdings(dataset)
    both = held.pairs[held.pairs["frequency"].isin(["daily", "weekly"])]
    both = both.assign(code=(both["frequency"] == "weekly").astype(int))
    if both["code"].nunique() < 2:
        raise MissingColumn("needs daily and weekly habits (`target` 1/1 and 1/7); this dataset has not both")
    done = both[both["completion"].notna()]
    completion = estimates.ratio(
        done["completion"], 1.0, done["user"], group=done["code"], groups=2, contrasts=[(1, 0)], **draw.again
    )
    retained = _retained(both, ["daily", "weekly"], [(0, 1)], draw)
    names = ["completion of weekly less daily", "retention of daily less weekly"]
    parts = tuple(
        _finding(part, draw, f"daily_vs_weekly_{word}", f"{name} pairs", len(both), METHOD)
        for part, word, name in zip((completion, retained), ("completion", "retention"), names, strict=True)
    )
    return replace(
        _all_of([completion, retained], names, draw, len(both), f"means and Kaplan-Meier; {METHOD}"), levels=parts
    )


# 2.3


def _levels(pairs: pd.DataFrame, key: str, unit: str, draw: Draw) -> Measured:
    """Correlate x and y over pairs, over users' means and over habits' means; the claim is about `unit`.

    Means of groups can correlate in another way than what is within them (ecological fallacy, D37). Intervals are by
    user for pairs and users, by habit for habits.
    """
    pairs = pairs[pairs[["x", "y"]].notna().all(axis=1)]
    found = []
    for name, cluster in (("pairs", "user_id"), ("users", "user_id"), ("habits", "habit_id")):
        rows = pairs if name == "pairs" else pairs.groupby(cluster, sort=True)[["x", "y"]].mean().reset_index()
        resampled = estimates.pearson(rows["x"], rows["y"], rows[cluster], **draw.again)
        method = METHOD if cluster == "user_id" else "cluster bootstrap by habit (BCa)"
        found.append((name, resampled, len(rows), method))
    claimed = next(row for row in found if row[0] == unit)
    levels = [
        _finding(resampled, draw, f"{key}_{name}", f"correlation over {name}", n, method, "r")
        for name, resampled, n, method in found
    ]
    levels[-1] = replace(levels[-1], reason=levels[-1].reason.replace("user", "habit"))
    return replace(_single(claimed[1], draw, claimed[2], f"Pearson; {METHOD}"), levels=tuple(levels))


def _complexity_time_commitment(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("habits.difficulty", "habits.minutes", "users.time_commitment")
    pairs = behaviour.holdings(dataset).pairs
    habits = dataset.habits.assign(x=complexity(dataset.habits))[["habit_id", "x"]]
    users = dataset.users.assign(y=commitment_code(dataset.users["time_commitment"]))[["user_id", "y"]]
    pairs = pairs[["user_id", "habit_id"]].merge(habits, on="habit_id").merge(users, on="user_id")
    return _levels(pairs, "complexity_time_commitment", "pairs", draw)


def _concurrent_habits_completion(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("adoptions.adopted_at")
    pairs = behaviour.holdings(dataset).pairs
    pairs = pairs.assign(x=behaviour.concurrent(pairs), y=pairs["completion"])
    # Those who give habits up hold few in the end: counted then, the number is an outcome (D42).
    users = pairs[pairs["y"].notna()].groupby("user_id")
    means, number = users[["x", "y"]].mean(), np.arange(users.ngroups)
    at_end = estimates.pearson(users.size() - users["ended"].sum(), means["y"], number, **draw.again)
    slope = estimates.slope(means["x"], means["y"], number, **draw.again)
    labels = (
        "habits still held at the end, not at adoption",
        "change of completion with each further habit: who holds many differs",
    )
    return replace(
        _levels(pairs, "concurrent_habits_completion", "users", draw),
        naive=(
            _finding(slope, draw, "concurrent_habits_slope", labels[1], users.ngroups, METHOD),
            _finding(at_end, draw, "concurrent_habits_at_end", labels[0], users.ngroups, METHOD, "r"),
        ),
    )


def _consistent_time_streak(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("habit_tracking.at", "users.zone")
    pairs = consistency_and_runs(dataset)
    found = _levels(
        pairs.assign(x=consistency(pairs["resultant_length"], pairs["events"]), y=np.log(pairs["mean_run"])),
        "consistent_time_streak",
        "pairs",
        draw,
    )
    naive = estimates.pearson(pairs["resultant_length"], pairs["longest_streak"], pairs["user_id"], **draw.again)
    label = "R and the longest streak, as they are"
    return replace(
        found, naive=(_finding(naive, draw, "consistent_time_longest_streak", label, len(pairs), METHOD, "r"),)
    )


def consistency(resultant_length: pd.Series, events: pd.Series) -> pd.Series:
    """-log(1 - R) with the bias of few events taken off R: R^2 less (1 - R^2) / (n - 1), at least 0.

    Hours without any preference give R near 1 / sqrt(n): left in, pairs with few completions, whose runs are short,
    would look consistent, and the correlation come out near -0.25 where there is none. Source: Kutil 2012,
    doi:10.1080/02331888.2010.543463. R above 0.9999 (hours noted alike) counts as 0.9999.
    """
    squared = resultant_length**2
    unbiased = np.sqrt((squared - (1 - squared) / (events - 1)).clip(lower=0))
    return -np.log((1 - unbiased).clip(lower=1e-4))


def consistency_and_runs(dataset: Dataset) -> pd.DataFrame:
    """Daily pairs with `FEWEST_COMPLETIONS` timed completions: ids, resultant_length, mean_run, longest_streak."""
    hours = temporal.time_of_day(
        temporal.completion_hours(dataset.habit_tracking, dataset.users), by=("user_id", "habit_id")
    )
    runs = temporal.summary(dataset.habit_tracking, dataset.habits)
    pairs = hours.merge(runs, on=["user_id", "habit_id"])
    chosen = (pairs["events"] >= FEWEST_COMPLETIONS) & (pairs["times"] >= pairs["per_days"]) & (pairs["mean_run"] > 0)
    if not chosen.any():
        raise MissingColumn(f"needs daily habits with {FEWEST_COMPLETIONS} timed completions; this dataset has none")
    return pairs[chosen].reset_index(drop=True)


def _goal_setting_completion(dataset: Dataset, draw: Draw) -> Measured:
    dataset.require("users.goal_set")
    users = dataset.users[["user_id", "goal_set"]]
    pairs = behaviour.holdings(dataset).pairs.merge(users, on="user_id")
    pairs = pairs[pairs["goal_set"].notna()]
    pairs = pairs.assign(x=pairs["goal_set"].astype(float), y=pairs["completion"])
    found = _levels(pairs, "goal_setting_completion", "users", draw)
    means = pairs[pairs["y"].notna()].groupby("user_id")[["x", "y"]].mean()
    naive = estimates.ratio(
        means["y"], 1.0, np.arange(len(means)), group=means["x"], groups=2, contrasts=[(1, 0)], **draw.again
    )
    label = "completion with a goal less without: who sets goals differs"
    return replace(found, naive=(_finding(naive, draw, "goal_setting_difference", label, len(means), METHOD),))


_MEASURES: dict[str, Callable[[Dataset, Draw], Measured]] = {
    "midway_dip": _midway_dip,
    "time_of_day_peaks": _time_of_day_peaks,
    "demographics_category": _demographics_category,
    "difficulty_progression": _difficulty_progression,
    "optimal_duration": _optimal_duration,
    "category_success": _category_success,
    "clear_description_adoption": _clear_description_adoption,
    "daily_vs_weekly": _daily_vs_weekly,
    "complexity_time_commitment": _complexity_time_commitment,
    "concurrent_habits_completion": _concurrent_habits_completion,
    "consistent_time_streak": _consistent_time_streak,
    "goal_setting_completion": _goal_setting_completion,
}
