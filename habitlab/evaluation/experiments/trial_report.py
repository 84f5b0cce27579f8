"""Report 09: what a simulated trial says, as findings, tables and sentences.

A sentence about a verdict is chosen by the numbers, never written beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Gender
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.experiments import Comparison, compare_arms, order_arms, trial_metrics, unit_values
from habitlab.evaluation.experiments.planning import Outcome, minimum_detectable_effect, power
from habitlab.evaluation.experiments.readout import compare_metrics, novelty_decay
from habitlab.evaluation.experiments.real_trials import COMPLETION, SIDES, estimate
from habitlab.evaluation.experiments.rollout import Decision, Guardrail, decide, interaction
from habitlab.evaluation.experiments.survival import Retention, compare_retention
from habitlab.evaluation.experiments.trial_metrics import (
    DENOMINATORS,
    METRICS,
    PRIMARY,
    RUN_IN,
    assignments,
    daily,
    outcomes,
)
from habitlab.evaluation.experiments.trials import SimulatedTrial, simulated_trial
from habitlab.evaluation.tables import exact
from habitlab.simulation import make_world

HORIZONS = (30, 60, 90)
MARGINS = {"retention": 3.0, "fairness": 0.05, "minors": 0.05}
"""Largest harm that is put up with: days kept of 90; gap of effects on completion; completion of minors."""


FEWEST_USERS = 200
"""With fewer people nothing of the report can be told."""


def live(users: int, lift: float, seed: int) -> SimulatedTrial:
    """Run the trial of the report in a world of so many users, watched for 140 days.

    Raises
    ------
    ValueError
        Fewer than `FEWEST_USERS` users.
    """
    if users < FEWEST_USERS:
        raise ValueError(f"users must be {FEWEST_USERS} or more for a trial to tell anything; it is {users}")
    return simulated_trial(make_world(users=users, days=140, seed=seed), lift=lift, salt="programme")


def sample_ratio(trial: SimulatedTrial) -> tuple[pd.DataFrame, list[Any]]:
    """How many were assigned and exposed by arm, and the p-value of the sample ratio of those exposed."""
    table = trial_metrics.exposure(assignments(trial.seen))
    n = int(table["exposed"].sum())
    found = exact(
        "srm_p", "Sample ratio of those exposed, p-value", table["srm_exposed"].iloc[0], n=n, method="chi-squared"
    )
    return table[["arm", "assigned", "exposed", "share"]], [found]


def broken(table: pd.DataFrame, level: float) -> tuple[pd.DataFrame, list[Any], list[str]]:
    """The same trial with a fault of logging: of the programme's people the least active fifth never arrive.

    Returns the trial with and without the fault and the check, findings, and sentences about them.
    """
    names = order_arms(table["arm"], None)
    treated = table["arm"] == names[1]
    lost = table.loc[treated, "active_days"].rank(pct=True, method="first").reindex(table.index) <= 0.2
    rest = table[~lost]
    counts = rest["arm"].value_counts().to_dict()
    checked = compare_arms(rest, level=level, **COMPLETION)
    unchecked = compare_arms(rest, level=level, weights=counts, **COMPLETION)
    sound = compare_arms(table, level=level, **COMPLETION)
    rows = [
        (name, *(one.n_units[arm] for arm in names), _p_text(one.srm_p_value), one.difference, one.ci_low, one.ci_high)
        for name, one in (("as it was", sound), ("people lost", checked), ("the same, unchecked", unchecked))
    ]
    columns = ["trial", f"n {names[0]}", f"n {names[1]}", "sample ratio p", "difference", "ci_low", "ci_high"]
    found = [
        exact("lost", "People lost by the fault", int(lost.sum()), n=int(treated.sum()), method="count"),
        exact("fault_bias", "What the fault adds to the difference", unchecked.difference - sound.difference,
              n=len(rest), method="difference with the fault less difference without", unit="share difference"),
    ]  # fmt: skip
    told = "blocks the readout" if checked.blocked else "does not see it among so few"
    sentences = [
        "Without a check {lost} people lost would add {fault_bias} to the difference.",
        f"The sample ratio {told}.",
    ]
    return pd.DataFrame(rows, columns=columns), found, sentences


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3g}"


def plan(pilot: pd.DataFrame, people: int, truth: float, level: float) -> tuple[pd.DataFrame, list[Any]]:
    """Smallest effect on completion that is found 4 times in 5, by people an arm.

    Spread and correlation with the covariate are those of a `pilot`: earlier people among whom nothing was tried.
    """
    values = unit_values(pilot, **COMPLETION).set_index("unit")["value"]
    before = pilot.set_index("user_id")["before"].reindex(values.index)
    correlation = float(np.corrcoef(values, before.fillna(before.mean()))[0, 1])
    kinds = {"without covariate": 0.0, "with covariate": correlation}
    plans = {name: Outcome(sd=float(values.std()), correlation=r) for name, r in kinds.items()}
    sizes = np.geomspace(50, 10_000, 40).round()
    rows = [
        (name, units, minimum_detectable_effect(units, outcome, level=level))
        for name, outcome in plans.items()
        for units in sizes
    ]
    here, n = people / 2, len(values)
    method = f"t-test of the spread of {n:,} earlier people, {here:,.0f} an arm"
    found = [
        exact(key, f"Smallest effect found 4 times in 5, {name}", minimum_detectable_effect(here, outcome, level=level),
              n=n, method=method, unit="share difference")
        for key, (name, outcome) in zip(("mde_plain", "mde"), plans.items(), strict=True)
    ]  # fmt: skip
    chance = power(abs(truth), here, plans["with covariate"], level=level)
    found.append(exact("power", "Chance to find the planted effect", chance, n=n, method=method, unit="share"))
    return pd.DataFrame(rows, columns=["plan", "people an arm", "smallest effect"]), found


def primary(table: pd.DataFrame, truth: Mapping[str, float], level: float) -> tuple[Comparison, Comparison, list[Any]]:
    """Completion with and without its covariate, what the covariate takes away, and the truth."""
    plain = compare_arms(table, level=level, **COMPLETION)
    found = compare_arms(table, covariate="before", level=level, **COMPLETION)
    values = unit_values(table, **COMPLETION).set_index("unit")
    before = table.set_index("user_id")["before"].reindex(values.index)
    both = values.assign(before=before.fillna(before.mean())).groupby("arm")[["value", "before"]]
    centred = both.transform(lambda column: column - column.mean())
    squared = float(np.corrcoef(centred["value"], centred["before"])[0, 1] ** 2)
    n = len(values)
    return plain, found, [
        estimate("completion", "Completion, programme against control", found),
        estimate("completion_plain", "The same without the covariate", plain),
        exact("completion_true", "True effect on completion", truth[PRIMARY], n=n,
              method="the world lived through twice", unit="share difference"),
        exact("variance_cut", "Variance that the covariate takes away", 1 - found.variance_kept, n=n,
              method="CUPED", unit="share"),
        exact("correlation_squared", "Squared correlation of covariate and outcome", squared, n=n,
              method="within arms, linearised", unit="share"),
    ]  # fmt: skip


def side_by_side(primary: Comparison, outliers: pd.DataFrame, truth: Mapping[str, float]) -> pd.DataFrame:
    """The primary metric with its covariate and, without it, as it is, winsorised and trimmed; the truth beside."""
    first = {"difference": primary.difference, "ci_low": primary.ci_low, "ci_high": primary.ci_high}
    rows = outliers.rename(columns={"outcome": "reading"})[["reading", *first, "changed"]]
    rows = pd.concat([pd.DataFrame([{"reading": "with covariate"} | first | {"changed": 0}]), rows], ignore_index=True)
    return rows.assign(true=truth[PRIMARY])


def metrics(table: pd.DataFrame, primary: Comparison, truth: Mapping[str, float], level: float) -> pd.DataFrame:
    """All metrics: the primary one as planned, the others adjusted by Holm and Benjamini-Hochberg; the truth last."""
    others = [name for name in METRICS if name != PRIMARY]
    ways = [
        compare_metrics(
            table, primary=PRIMARY, secondary=others, denominators=DENOMINATORS, method=method, level=level, **SIDES
        )
        for method in ("holm", "bh")
    ]
    columns = ["difference", "ci_low", "ci_high", "p_value"]
    frame = ways[0].rename(columns={"adjusted_p_value": "holm"}).assign(bh=ways[1]["adjusted_p_value"])
    frame = frame.set_index("metric")[[*columns, "holm", "bh"]]
    frame.loc[PRIMARY, columns] = [getattr(primary, name) for name in columns]
    frame.loc[PRIMARY, ["holm", "bh"]] = np.nan
    frame["true"] = pd.Series(truth)
    frame = frame.rename(columns={"holm": "p, Holm", "bh": "p, Benjamini-Hochberg"})
    return frame.rename(index={name: metric.label for name, metric in METRICS.items()}).reset_index()


def looks(table: pd.DataFrame, level: float) -> list[Any]:
    """After how many days each way of looking would have stopped the trial."""
    day = np.arange(1, len(table) + 1)
    naive = (table["fixed_p_value"] < 1 - level) & table["p_value"].notna()
    n = int(table[["n_control", "n_arm"]].iloc[-1].sum())
    rows = (
        ("naive_stop", "Looking every day, a usual interval would stop after", naive),
        ("valid_stop", "Looking every day, an always valid one stops after", table["stop"].astype(bool)),
    )
    return [
        exact(key, label, int(day[hit.to_numpy()][0]) if hit.any() else None, n=n, method="daily looks", unit="days")
        | {"reason": "it never left 0 out"}
        for key, label, hit in rows
    ]


def alarms(table: pd.DataFrame, level: float) -> list[Estimate]:
    """Share of placebo trials in which each reading finds an effect."""
    return [
        Estimate(f"alarms_{row.reading}", f"False alarms: {row.label}", row.share, row.ci_low, row.ci_high, level,
                 int(row.trials), "share", "arms dealt anew on the run-in; Wilson")
        for row in table.itertuples()
    ]  # fmt: skip


def retention(
    table: pd.DataFrame, trial: SimulatedTrial, level: float
) -> tuple[Retention, pd.DataFrame, list[Estimate]]:
    """Days kept within 30, 60 and 90 days, arm against control, with the truth; curves of the longest."""
    columns: dict[str, Any] = SIDES | {"days": "kept_days", "ended": "ended"}
    exposed = trial.exposed.set_index("user_id")["exposed"]
    worlds = [outcomes(one, exposed) for one in (trial.without, trial.treated)]
    whole = pd.concat([worlds[0].assign(arm="control"), worlds[1].assign(arm="treated")], ignore_index=True)
    whole["user_id"] += whole["arm"]
    rows, found, last = [], [], None
    for horizon in HORIZONS:
        last = compare_retention(table, horizon=horizon, level=level, **columns)
        true = compare_retention(whole, horizon=horizon, **columns).difference
        n = sum(last.n_units.values())
        rows.append((horizon, *last.days_kept.values(), last.difference, last.ci_low, last.ci_high, last.p_value, true))
        found.append(
            Estimate(f"kept_{horizon}", f"Days kept of {horizon}, programme less control", last.difference, last.ci_low,
                     last.ci_high, level, n, "days", "restricted mean survival time", "; ".join(last.warnings))
        )  # fmt: skip
    assert last is not None
    control, arm = last.arms
    names = ["days", f"kept, {control}", f"kept, {arm}", "difference", "ci_low", "ci_high", "p_value", "true"]
    return last, pd.DataFrame(rows, columns=names), found


def surrogate(effects: pd.DataFrame) -> list[Any]:
    """How well the 30-day effect ranks the arms of a megastudy, and what it misses of the arms that last."""
    arms = effects[effects["arm"] != "control"]
    lasting = arms[arms["lasts"]]
    rank = stats.spearmanr(arms["surrogate"], arms["truth"]).statistic if np.ptp(arms["truth"]) > 0 else None
    missed = float((lasting["later"] / lasting["truth"]).mean()) if len(lasting) else None
    return [
        exact("rank", "Rank correlation of 30- and 90-day effects", rank, n=len(arms), method="Spearman, true effects")
        | {"reason": "no arm does anything"},
        exact("missed", "Part of lasting arms' effect that comes after day 30", missed, n=len(lasting),
              method="mean over arms, true effects", unit="share") | {"reason": "no arm lasts"},
    ]  # fmt: skip


def run_in(trial: SimulatedTrial) -> pd.DataFrame:
    """Rows a person and day before exposure, when both arms lived alike."""
    rows = _by_day(trial)
    return rows[rows["day"].between(-RUN_IN, -1)]


def weekly(trial: SimulatedTrial, weeks: int = 8) -> tuple[pd.DataFrame, pd.Series]:
    """Rows a person and day since exposure with the share done; the true effect of each week, by its number from 1."""
    worlds = [_by_day(trial, one) for one in (trial.seen, trial.without, trial.treated)]
    seen, *both = (one[one["day"].between(0, 7 * weeks - 1)] for one in worlds)
    by_week = [one.groupby([one["day"] // 7 + 1, "user_id"])["share"].mean().groupby(level=0).mean() for one in both]
    return seen, by_week[1] - by_week[0]


def held(by_week: pd.DataFrame, people: int) -> dict[str, Any]:
    """In how many weeks the interval of the effect holds the true one."""
    inside = (by_week["ci_low"] <= by_week["true"]) & (by_week["true"] <= by_week["ci_high"])
    method = f"weeks; the same {people:,} people stand in each, so that they err together"
    return exact("weeks_held", "Weeks whose interval holds the truth", int(inside.sum()), n=len(by_week), method=method)


def decay(rows: pd.DataFrame, weeks: tuple[int, int], level: float) -> Estimate:
    """How the effect changed from one week to another, within people."""
    found = novelty_decay(rows, unit="user_id", arm="arm", outcome="share", day="day", weeks=weeks, level=level)
    return estimate("decay", f"Effect in week {weeks[1]} less that in week {weeks[0]}", found)


def gate(table: pd.DataFrame, trial: SimulatedTrial, primary: Comparison, kept: Retention) -> Decision:
    """The decision on the trial, with the guardrails retention, fairness (women and men) and minors."""
    users = trial.seen.users.set_index("user_id")
    people = table.assign(
        gender=table["user_id"].map(users["gender"]).astype(object), age=table["user_id"].map(users["age"])
    )
    two = people[people["gender"].isin([Gender.FEMALE, Gender.MALE])]
    gap = interaction(two, unit="user_id", first="arm", second="gender", outcome="completion", level=primary.level)
    minors = compare_arms(people[people["age"] < 18], covariate="before", level=primary.level, **COMPLETION)
    rails = [
        Guardrail("retention", kept, MARGINS["retention"]),
        Guardrail("fairness", gap, MARGINS["fairness"], better="equal"),
        Guardrail("minors", minors, MARGINS["minors"]),
    ]
    day = trial.seen.habit_tracking["date"].max()
    return decide("programme", primary, rails, decided_at=f"{day:%Y-%m-%d}")


def decided(decision: Decision) -> tuple[pd.DataFrame, list[Any]]:
    """Guardrails as a table, and the decision as a finding."""
    names = ["name", "verdict", "ci_low", "ci_high", "margin"]
    rails = pd.DataFrame([{name: rail.get(name) for name in names} for rail in decision.guardrails])
    safe = int((rails["verdict"] == "safe").sum())
    found = exact("safe", "Guardrails shown safe", safe, n=len(rails), method="interval against margin")
    return rails.rename(columns={"name": "guardrail"}), [found]


def reasons(decision: Decision) -> pd.DataFrame:
    """The decision and its reasons, a row each, as they go to the log."""
    return pd.DataFrame({"decision": decision.action, "reason": decision.reasons})


def trial_sentences(primary: Comparison, truth: float, decision: Decision) -> list[str]:
    """What the simulated trial says, in words that follow the numbers."""
    holds = "holds" if primary.ci_low <= truth <= primary.ci_high else "misses"
    told = "" if primary.p_value < 1 - primary.level else ", and cannot be told from none"
    return [
        f"In a simulated trial completion changes by {{completion:range}}, which {holds} the truth, {{completion_true}}"
        f"{told}; with {{safe}} of {{safe:n}} guardrails shown safe, the decision is: {decision.action}."
    ]


def _by_day(trial: SimulatedTrial, dataset: Dataset | None = None) -> pd.DataFrame:
    """Row a person and day, with arm and covariate."""
    exposed = trial.exposed.set_index("user_id")
    rows = daily(trial.seen if dataset is None else dataset, exposed["exposed"])
    early = rows[rows["day"].between(-RUN_IN, -1)].groupby("user_id")[["done", "scheduled"]].sum()
    before = rows["user_id"].map(early["done"] / early["scheduled"])
    return rows.assign(arm=rows["user_id"].map(exposed["arm"]), share=rows["done"] / rows["scheduled"], before=before)
