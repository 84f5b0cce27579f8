"""The numbers of the report on monitoring: what was planted in a made-up log, and what of it was found, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.evaluation.estimates import Estimate
from habitlab.serving import monitoring
from habitlab.serving.monitoring import DAY, Check, Log
from habitlab.serving.monitoring.drift import FIXED_PSI, STATISTICS
from habitlab.serving.monitoring.replay import SHIFTS, Planted
from habitlab.serving.monitoring.replay import replay as make_up

WITH, WITHOUT = "as planted", "without"
LAST_DAYS = 14
FEWEST = 50
"""People that a made-up log needs."""
PLANTED = (("slow", 0.5), ("cache", 0.1), ("adoption", 0.4), ("people", 0.5), ("missing", 0.15))
SHOWS_IN = {
    "slow": "latency p95",
    "cache": "hit rate",
    "adoption": "adoption in 24 h",
    "people": "drift of age",
    "missing": "drift of time_commitment",
}
"""Where each kind of change has to show."""
_METRICS = ("slow", "cache", "adoption")


def people_for(dataset: Dataset) -> tuple[Dataset, str]:
    """Return the dataset whose people a made-up log takes, and why it is not this one (empty if it is).

    Few people, or such whose age or minutes a day are not known, can show nothing of what is planted: then those of the
    sample stand in.
    """
    from habitlab import open_dataset

    known = [name for name in ("age", "time_commitment") if name in dataset.users and dataset.users[name].notna().any()]
    if len(dataset.users) >= FEWEST and len(dataset.habits) and len(known) == 2:
        return dataset, ""
    lack = f"{len(dataset.users)} people" if len(known) == 2 else "none of whom both are known"
    why = f"needs {FEWEST} people with `age` and `time_commitment`; this dataset has {lack}"
    return open_dataset(), f"{why}; those of the sample stand in"


def planted_logs(dataset: Dataset, *, days: int = 120, per_day: float = 300.0, seed: int = 0) -> dict[str, Log]:
    """Return the log "as planted", changed 14 days before its end, and the same one "without"."""
    if days < 70:
        raise ValueError(f"a log of {days} days is too short: eight weeks of history and two that changed are needed")
    changes = tuple(Planted(kind, days - LAST_DAYS, strength) for kind, strength in PLANTED)
    return {
        name: make_up(dataset, each, days=days, per_day=per_day, seed=seed)
        for name, each in ((WITH, changes), (WITHOUT, ()))
    }


def begin_of_change(log: Log) -> pd.Timestamp:
    """Return the instant at which the log of `planted_logs` changes."""
    return log.now - LAST_DAYS * DAY


def planted_table(logs: Mapping[str, Log]) -> pd.DataFrame:
    """Return what is planted: change, strength, from, shows_in."""
    day = begin_of_change(logs[WITH])
    rows = [(kind, SHIFTS[kind], strength, f"{day:%Y-%m-%d}", SHOWS_IN[kind]) for kind, strength in PLANTED]
    return pd.DataFrame(rows, columns=["change", "meaning", "strength", "from", "shows_in"])


def totals(log: Log, *, level: float = 0.95, resamples: int = 300, seed: int = 0) -> list[Estimate]:
    """Return answers, latency, hits and adoption of a whole log as findings."""
    times, hits = monitoring.latency(log).iloc[0], monitoring.hit_rate(log).iloc[0]
    adopted = monitoring.adoption_24h(log, level=level, resamples=resamples, seed=seed).iloc[0]
    answers = int(times["answers"])
    return [
        _count("p95", "95% of answers came within", 1000 * times["p95"], answers, "ms", "quantile of all answers"),
        _count("hits", "Answers from the first level", hits["hit_rate"], answers, "share", "count"),
        Estimate("adoption", "Habits shown that were adopted within 24 hours", float(adopted["rate"]),
                 float(adopted["ci_low"]), float(adopted["ci_high"]), level, int(adopted["shown"]), "share",
                 "share of ripe habits shown, BCa by user",
                 "" if np.isfinite(adopted["ci_low"]) else "too few users for an interval"),
    ]  # fmt: skip


def daily(logs: Mapping[str, Log]) -> pd.DataFrame:
    """Return log, day, answers, p50_ms, p95_ms, hit_rate of each day, of both logs."""
    parts = []
    for name, log in logs.items():
        both = monitoring.latency(log, "day").join(monitoring.hit_rate(log, "day")["hit_rate"])
        part = both.reset_index().assign(
            log=name, p50_ms=1000 * both["p50"].to_numpy(), p95_ms=1000 * both["p95"].to_numpy()
        )
        parts.append(part[["log", "day", "answers", "p50_ms", "p95_ms", "hit_rate"]])
    return pd.concat(parts, ignore_index=True)


def before_and_after(log: Log) -> list[Estimate]:
    """Return latency and hits before the change and after as findings."""
    day, found = begin_of_change(log), []
    for when, kept in (("before", log.requests["at"] < day), ("after", log.requests["at"] >= day)):
        part = replace(log, requests=log.requests[kept])
        times, hits = monitoring.latency(part).iloc[0], monitoring.hit_rate(part).iloc[0]
        n, latency = int(times["answers"]), 1000 * times["p95"]
        found += [
            _count(f"p95_{when}", f"95% of answers came within, {when} the change", latency, n, "ms", "quantile"),
            _count(f"hits_{when}", f"Answers from the first level {when} it", hits["hit_rate"], n, "share", "count"),
        ]
    return found


def last_days(log: Log, *, days: int = 28, level: float = 0.95, resamples: int = 300, seed: int = 0) -> pd.DataFrame:
    """Return day, shown, rate, ci_low, ci_high, immature, naive of the last days of a log."""
    kept = log.exposures["shown_at"] >= log.now - days * DAY
    part = replace(log, exposures=log.exposures[kept].reset_index(drop=True))
    return monitoring.adoption_24h(part, "day", level=level, resamples=resamples, seed=seed).reset_index()


def ripening(ripe: pd.DataFrame) -> list[Estimate]:
    """Return what the last day seems to be, and what the days before it are, as findings."""
    last = ripe.iloc[-1]
    whole = ripe[ripe["immature"] == 0]
    n = int(whole["shown"].sum())
    rate = float((whole["rate"] * whole["shown"]).sum() / n)
    return [
        _count("naive_last", "Adopted within 24 hours on the last day, with those that are not ripe", last["naive"],
               int(last["shown"] + last["immature"]), "share", "count"),
        _count("unripe", "Habits shown on the last days that are not ripe", ripe["immature"].sum(),
               int(ripe["immature"].sum() + ripe["shown"].sum()), "", "count"),
        _count("ripe_rate", "Adopted within 24 hours on the days of four weeks that are wholly ripe", rate, n, "share",
               "count"),
    ]  # fmt: skip


def alarms(checks: Mapping[str, Check], logs: Mapping[str, Log]) -> pd.DataFrame:
    """Return of each metric: planted, first alarm after the change and days until then, and alarms without plants."""
    day, rows = begin_of_change(logs[WITH]), []
    planted = {SHOWS_IN[kind] for kind in _METRICS}
    for name in checks[WITH].anomalies:
        first = first_alarm(checks[WITH], name, day)
        quiet = [alert for alert in checks[WITHOUT].alerts if alert.key == name]
        delay = None if first is None else (first - day).days + 1
        rows.append((name, name in planted, first, delay, len(quiet)))
    columns = ["metric", "planted", "first_alarm", "days_until", "alarms_without"]
    return pd.DataFrame(rows, columns=columns).astype({"days_until": float})


def first_alarm(found: Check, metric: str, since: pd.Timestamp) -> pd.Timestamp | None:
    """Return the day of the first alert on a metric, None without one."""
    days = [pd.Timestamp(alert.at) for alert in found.alerts if alert.key == metric and pd.Timestamp(alert.at) >= since]
    return min(days, default=None)


def alarm_counts(checks: Mapping[str, Check], logs: Mapping[str, Log]) -> list[Estimate]:
    """Return how many planted changes of metrics were caught, how late, and false alarms, as findings."""
    table = alarms(checks, logs)
    wanted = table[table["planted"]]
    caught = wanted.dropna(subset=["days_until"])
    looked = sum(
        int(table["score"].notna().to_numpy()[table.index >= begin_of_change(logs[WITHOUT])].sum())
        for table in checks[WITHOUT].anomalies.values()
    )
    method = "planted in a simulated log; robust seasonal detector and cumulative sum"
    slowest = float(caught["days_until"].max()) if len(caught) else np.nan
    return [
        _count("planted_metrics", "Changes planted in metrics", len(wanted), len(wanted), "changes", method),
        _count("caught", "Of these caught", len(caught), len(wanted), "", method),
        _count("slowest", "Days until the slowest was caught", slowest, len(caught), "days", method, "none was caught"),
        _count("false_alarms", "Alarms in the log without plants", int(table["alarms_without"].sum()), looked,
               "false alarms", method),
        _count("looked", "Daily values looked at in the last two weeks", looked, looked, "daily values", method),
    ]  # fmt: skip


def drift_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the statistics of each feature beside their thresholds, for people: most drifted first."""
    renamed = {f"{each}_threshold": f"{each}_by_chance" for each in STATISTICS}
    table = found.rename(columns={**renamed, "fixed_rule": "above_0.2"})
    first = ["feature", "psi", "psi_by_chance", "p_adjusted", "drifted", "above_0.2"]
    rest = [column for each in STATISTICS[1:] for column in (each, f"{each}_by_chance")]
    return table[[*first, *rest, "n_reference", "n_current"]]


def drift_counts(checks: Mapping[str, Check]) -> list[Estimate]:
    """Return how many features drifted by which rule, with and without plants, as findings."""
    method = "people of two weeks against two weeks; thresholds from the null, Benjamini-Hochberg"
    planted = [SHOWS_IN[kind].removeprefix("drift of ") for kind, _ in PLANTED if kind not in _METRICS]
    with_, without = checks[WITH].drift, checks[WITHOUT].drift
    found = with_[with_["feature"].isin(planted) & with_["drifted"].astype(bool)]
    n = len(with_)
    return [
        _count("planted_features", "Features in which a drift is planted", len(planted), n, "features", method),
        _count("drift_found", "Of these found", len(found), n, "", method),
        _count("drifted", "Features that drifted beyond chance", int(with_["drifted"].sum()), n, "features", method),
        _count("fixed", "Features above the fixed 0.2", int((with_["psi"] > FIXED_PSI).sum()), n, "", "count"),
        _count("drifted_without", "Features that drifted in the log without plants", int(without["drifted"].sum()),
               len(without), "", method),
    ]  # fmt: skip


def power_findings(curve: pd.DataFrame, n: tuple[int, int] = (150, 1000), shift: float = 0.4) -> list[Estimate]:
    """Return false alarms of few users and power of many, by both rules, as findings."""
    by = curve.set_index(["rule", "n", "shift"])
    found = []
    for rule, name in (("fixed 0.2", "fixed"), ("from the null", "null")):
        for key, size, moved, what in (
            (f"{name}_false", n[0], 0.0, f"Checks of {n[0]} people that alarm where nothing moved, {rule}"),
            (f"{name}_power", n[1], shift, f"Checks of {n[1]:,} people that find {shift:g} deviations, {rule}"),
        ):
            row = by.loc[(rule, size, moved)]
            found.append(Estimate(key, what, float(row["alarmed"]), float(row["ci_low"]), float(row["ci_high"]), 0.95,
                                  int(row["trials"]), "share", "simulated pairs of periods, Wilson"))  # fmt: skip
    return found


def detector_findings(table: pd.DataFrame, step: float = 2.0) -> list[Estimate]:
    """Return false alarms and delays of both detectors as findings."""
    found = []
    for name, detector in (("sigma", "three sigma"), ("seasonal", "seasonal")):
        quiet = table[(table["detector"] == detector) & (table["step"] == 0)].iloc[0]
        moved = table[(table["detector"] == detector) & (table["step"] == step)].iloc[0]
        trials = int(quiet["trials"])
        found += [
            Estimate(f"{name}_false", f"Alarms in 1,000 quiet hours, {detector}", float(quiet["false_per_1000"]),
                     float(quiet["ci_low"]), float(quiet["ci_high"]), 0.95, trials, "alarms",
                     "simulated hourly series, percentile bootstrap of series"),
            _count(f"{name}_hours", f"Hours until a step of {step:g} deviations is caught, {detector}",
                   moved["median_hours"], trials, "hours", "median of the series that caught it", "none caught it"),
        ]  # fmt: skip
    return found


def proposal_sentence(found: Check) -> str:
    """Say whether retraining is proposed."""
    if not found.proposal.retrain:
        return "Retraining is not proposed."
    return "Retraining is proposed, and what it brings is compared before anything goes live."


def _count(key: str, label: str, value: float, n: int, unit: str, method: str, reason: str = "") -> Estimate:
    known = bool(np.isfinite(value))
    whole = known and float(value).is_integer() and unit != "share"
    number = int(value) if whole else float(value)
    return Estimate(key, label, number, np.nan, np.nan, np.nan, n, unit, method, "" if known else reason)
