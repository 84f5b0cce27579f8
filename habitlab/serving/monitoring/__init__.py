"""How the service does: latency, where answers come from, adoption within 24 hours, and what is unlike before.

Everything is a function of a `Log` and of the moment at which it was read; nothing looks at the clock. What arrived
twice, out of order or from the future is put right and counted before anything else is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from habitlab.evaluation import estimates
from habitlab.serving.lists import ERROR
from habitlab.serving.monitoring import anomalies, drift
from habitlab.serving.monitoring.alerts import Alert

Period = Literal["hour", "day"]

FIRST_LEVEL = ("memory", "redis")
QUANTILES = (0.5, 0.95, 0.99)
DAY = pd.Timedelta(days=1)
DELAY = pd.Timedelta(hours=1)
"""So late may the report of an adoption arrive; a list is judged when 24 hours and this have passed."""

ENOUGH_AN_HOUR = 100
"""Answers in a median hour from which on hours are looked at one by one, else days."""

FALSE_ALARMS_A_MONTH = 1.0
DRIFT_DAYS = 14
"""Days on each side when features are compared. Equal lengths, as a longer one holds more of those who come rarely."""

_FREQUENCY = {"hour": "h", "day": "D"}


@dataclass(frozen=True, eq=False)
class Log:
    """What happened at a service up to `now`, the moment at which the log was read.

    requests: at, seconds, served_from (memory, redis, database, computed, error), answers (how many such). Where a
    service keeps histograms, `seconds` is the upper bound of a bin and `lower` its lower one. exposures: event_id,
    user_id, habit_id, shown_at, position. adoptions: event_id, user_id, habit_id, adopted_at, received_at. features:
    user_id, at, and what was known of that person then, a column each. Instants are in UTC.
    """

    requests: pd.DataFrame
    exposures: pd.DataFrame
    adoptions: pd.DataFrame
    features: pd.DataFrame
    now: pd.Timestamp
    simulated: bool = False


_INSTANT = {"requests": "at", "exposures": "shown_at", "adoptions": "adopted_at", "features": "at"}


def clean(log: Log) -> tuple[Log, dict[str, int]]:
    """Sort by time, leave out what is repeated, has no instant or comes from the future, and count it by reason."""
    left_out = {"repeated": 0, "without an instant": 0, "from the future": 0, "received before it happened": 0}
    tables = {}
    for name, column in _INSTANT.items():
        table = getattr(log, name)
        if "event_id" in table:
            again = table["event_id"].duplicated()
            left_out["repeated"] += int(again.sum())
            table = table[~again]
        unknown = table[column].isna()
        future = table[column] > log.now
        left_out["without an instant"] += int(unknown.sum())
        left_out["from the future"] += int(future.sum())
        table = table[~(unknown | future)]
        if "received_at" in table:  # kept: one of the two clocks was wrong, nobody knows which
            left_out["received before it happened"] += int((table["received_at"] < table[column]).sum())
        tables[name] = table.sort_values(column, kind="stable").reset_index(drop=True)
    return replace(log, **tables), left_out


def counters(log: Log) -> dict[str, int]:
    """Answers in all and by level, habits shown, adoptions, people who asked; of a clean log."""
    by_level = log.requests.groupby("served_from", observed=True)["answers"].sum()
    return {
        "answers": int(log.requests["answers"].sum()),
        **{f"answers from {level}": int(count) for level, count in by_level.items()},
        "habits shown": len(log.exposures),
        "adoptions": len(log.adoptions),
        "people": int(log.exposures["user_id"].nunique()),
    }


def latency(log: Log, by: Period | None = None, quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
    """Quantiles of the seconds an answer took: columns answers, p50, p95, p99 (as asked); errors do not count.

    A row for each period (index, only those with answers), or one for all. A quantile is the smallest time within which
    that share of the answers was given; of a histogram it lies within its bin as if answers were spread evenly there,
    and beyond the last bound it is that bound.
    """
    table = log.requests[log.requests["served_from"] != ERROR]
    code, names = pd.factorize(_period(table["at"], by), sort=True)
    lower = table["lower"] if "lower" in table else table["seconds"]
    bins = pd.DataFrame({"code": code, "seconds": table["seconds"], "lower": lower, "answers": table["answers"]})
    bins = bins.groupby(["code", "seconds", "lower"], as_index=False)["answers"].sum()
    code, weight = bins["code"].to_numpy(), bins["answers"].to_numpy(dtype=float)
    low, width = bins["lower"].to_numpy(), (bins["seconds"] - bins["lower"]).replace(np.inf, 0.0).to_numpy()
    total = np.bincount(code, weight, minlength=len(names))
    passed = np.cumsum(weight) - (np.cumsum(total) - total)[code]
    columns: dict[str, Any] = {"answers": total.astype(np.int64)}
    for q in quantiles:
        reached = np.flatnonzero(passed >= q * total[code] - 1e-9)
        first = reached[np.unique(code[reached], return_index=True)[1]]
        within = 1 - (passed[first] - q * total[code[first]]) / weight[first]
        columns[f"p{100 * q:g}"] = low[first] + width[first] * within
    return pd.DataFrame(columns, index=pd.Index(names, name=by or "all"))


def hit_rate(log: Log, by: Period | None = None) -> pd.DataFrame:
    """Where answers came from: columns answers, hit_rate (share of the first level), database, computed, errors.

    Shares of the answers that are no errors; `errors` is a share of all. A row for each period with answers, or one.
    """
    period = _period(log.requests["at"], by)
    level = log.requests["served_from"].astype(str)
    table = pd.crosstab(period, level.to_numpy(), values=log.requests["answers"].to_numpy(), aggfunc="sum")
    known = table.reindex(columns=[*FIRST_LEVEL, "database", "computed", ERROR]).fillna(0.0)
    good, everything = known.drop(columns=ERROR).sum(axis=1), known.sum(axis=1)
    frame = pd.DataFrame(
        {
            "answers": good.astype("int64"),
            "hit_rate": known[list(FIRST_LEVEL)].sum(axis=1) / good.where(good > 0),
            "database": known["database"] / good.where(good > 0),
            "computed": known["computed"] / good.where(good > 0),
            "errors": known[ERROR] / everything,
        }
    )
    return frame.rename_axis(index=by or "all", columns=None)


def adopted_within(log: Log, hours: float = 24.0) -> pd.Series:
    """Whether each habit shown was adopted by that person within so many hours (exposures,), as far as is known."""
    shown = log.exposures.reset_index()[["index", "user_id", "habit_id", "shown_at"]]
    both = shown.merge(log.adoptions[["user_id", "habit_id", "adopted_at"]], on=["user_id", "habit_id"])
    wait = both["adopted_at"] - both["shown_at"]
    soon = both.loc[(wait >= pd.Timedelta(0)) & (wait <= pd.Timedelta(hours=hours)), "index"]
    return pd.Series(log.exposures.index.isin(soon), log.exposures.index, name="adopted")


def adoption_24h(
    log: Log,
    by: Literal["day"] | None = None,
    *,
    hours: float = 24.0,
    delay: pd.Timedelta = DELAY,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of the habits shown that were adopted within 24 hours.

    Columns: shown, rate, ci_low, ci_high, immature, naive. Only habits whose 24 hours and `delay` are over when the log
    was read count (`shown`); the others are `immature`, and `naive` is the share with them, too low at the end of any
    log. A row for each day on which habits were shown, or one. Intervals are by user (BCa, `estimates.resample`); NaN
    below ten users.
    """
    adopted = adopted_within(log, hours).to_numpy(dtype=float)
    mature = (log.exposures["shown_at"] + pd.Timedelta(hours=hours) + delay <= log.now).to_numpy()
    period = pd.Series(_period(log.exposures["shown_at"], by))
    rows = []
    for name, here in period.groupby(period).indices.items():
        ripe = here[mature[here]]
        users = log.exposures["user_id"].to_numpy()[ripe]
        rate, low, high = np.nan, np.nan, np.nan
        if len(ripe):
            sums = estimates.cluster_sums(users, adopted[ripe], np.ones(len(ripe)))
            drawn = estimates.resample(sums, estimates.ratios, resamples=resamples, seed=seed)
            (low,), (high,) = drawn.interval(level)
            rate = float(drawn.estimate[0])
        rows.append(
            (name, len(ripe), rate, float(low), float(high), len(here) - len(ripe), float(adopted[here].mean()))
        )
    columns = [by or "all", "shown", "rate", "ci_low", "ci_high", "immature", "naive"]
    return pd.DataFrame(rows, columns=columns).set_index(by or "all")


def drift_of_features(
    log: Log, *, days: int = DRIFT_DAYS, before: pd.Timestamp | None = None, **options: Any
) -> pd.DataFrame:
    """`drift.drift` of the people who asked in the last `days` against those of the `days` that end at `before`.

    `before`: the begin of the last days when left out. A person counts once in each period, as they were last.
    """
    window = pd.Timedelta(days=days)
    split = log.now - window
    end = split if before is None else min(before, split)
    at = log.features["at"]
    now, then = log.features[at >= split], log.features[(at >= end - window) & (at < end)]
    return drift.drift(then.drop(columns="at"), now.drop(columns="at"), **options)


class Watched(NamedTuple):
    """A metric over time, how the detector looks at it, and which direction is bad."""

    values: pd.Series
    options: Mapping[str, Any]
    bad: Literal["up", "down", "both"]
    unit: str


def watched(log: Log, by: Period) -> dict[str, Watched]:
    """Every metric that is watched, by name; adoption by day, and only of days that are over and ripe."""
    season = {"season": "hour of week" if by == "hour" else "day of week"}
    times, hits = latency(log, by), hit_rate(log, by)
    finite = times.replace(np.inf, np.nan)
    noise = np.sqrt(hits["hit_rate"] * (1 - hits["hit_rate"]) / hits["answers"].where(hits["answers"] > 0))
    answers = hits["answers"].asfreq(_FREQUENCY[by], fill_value=0).astype(float)
    ripe = adopted_within(log).groupby(log.exposures["shown_at"].dt.floor("D")).agg(["sum", "size"])
    ripe = ripe[ripe.index + 2 * DAY + DELAY <= log.now]
    rate = ripe["sum"] / ripe["size"]
    whole = {name: series[series.index + pd.Timedelta(1, _FREQUENCY[by]) <= log.now] for name, series in
             {"p50": finite["p50"], "p95": finite["p95"], "hits": hits["hit_rate"], "answers": answers,
              "errors": hits["errors"]}.items()}  # fmt: skip
    return {
        "median latency": Watched(whole["p50"], {**season, "scale": "log", "relative_floor": 0.05}, "up", "s"),
        "latency p95": Watched(whole["p95"], {**season, "scale": "log", "relative_floor": 0.05}, "up", "s"),
        "hit rate": Watched(
            whole["hits"], {**season, "noise": noise.reindex(whole["hits"].index), "floor": 0.01}, "down", "share"
        ),
        "errors": Watched(whole["errors"], {**season, "floor": 0.002}, "up", "share"),
        "answers": Watched(
            whole["answers"], {**season, "noise": np.sqrt(whole["answers"] + 1), "relative_floor": 0.05}, "both", ""
        ),
        "adoption in 24 h": Watched(
            rate, {"season": "day of week", "noise": np.sqrt(rate * (1 - rate) / ripe["size"])}, "down", "share"
        ),
    }


@dataclass(frozen=True, eq=False)
class Check:
    """What a look at a log found: `anomalies` by metric (see `anomalies.seasonal`), `drift`, alerts, and a proposal."""

    by: Period
    left_out: Mapping[str, int]
    anomalies: Mapping[str, pd.DataFrame]
    drift: pd.DataFrame
    alerts: tuple[Alert, ...]
    proposal: drift.Proposal


def check(
    log: Log,
    *,
    by: Period | None = None,
    since: pd.Timestamp | None = None,
    false_alarms_a_month: float = FALSE_ALARMS_A_MONTH,
    drift_days: int = DRIFT_DAYS,
    alpha: float = 0.05,
    seed: int = 0,
) -> Check:
    """Look at a log as it was read: alerts are of what came after `since` (None: the last day and what ripened in it).

    So many false alarms a month are asked for, shared evenly among all values that are looked at; changes for the
    better are no alarms. A drift check is one look, with false alarms of at most `alpha`.
    """
    log, left_out = clean(log)
    period: Period = by or ("hour" if _busy(log) else "day")
    metrics = watched(log, period)
    looked = sum(1.0 if name == "adoption in 24 h" or period == "day" else 24.0 for name in metrics)
    rate = min(false_alarms_a_month / (30 * looked), 0.05)
    found = {
        name: anomalies.seasonal(one.values, false_alarms=rate, **one.options) if len(one.values) else pd.DataFrame()
        for name, one in metrics.items()
    }
    alerts, declines = [], []
    for name, table in found.items():
        begin = since if since is not None else log.now - (3 if name == "adoption in 24 h" else 1) * DAY
        for at, row in table[table["alarm"] & (table.index >= begin)].iterrows() if len(table) else ():
            up = row["direction"] > 0
            if metrics[name].bad != "both" and up != (metrics[name].bad == "up"):
                continue
            alert = _alert(name, pd.Timestamp(str(at)), row, metrics[name].unit)
            alerts.append(alert)
            if name == "adoption in 24 h":
                declines.append(alert.message)
    try:
        compared = drift_of_features(log, days=drift_days, alpha=alpha, seed=seed)
    except ValueError:  # no features are known
        compared = pd.DataFrame(columns=["feature", "psi", "p_adjusted", "drifted"])
    proposal = drift.propose(compared, declines)
    drifted = compared[compared["drifted"].astype(bool)]
    alerts += [
        Alert(
            f"drift of {row.feature}",
            log.now.floor("D").to_pydatetime(),
            f"{row.feature} is not as it was: index {row.psi:.3g}, adjusted p {row.p_adjusted:.2g}",
            value=float(row.psi),
        )
        for row in drifted.itertuples()
    ]
    return Check(period, left_out, found, compared, tuple(alerts), proposal)


def as_text(log: Log, found: Check) -> str:
    """Say what a log holds and what was found, in lines for a person."""
    log, left_out = clean(log)
    counts = counters(log)
    lines = [", ".join(f"{count:,} {name}" for name, count in counts.items())]
    if counts["answers"]:
        times, hits = latency(log).iloc[0], hit_rate(log).iloc[0]
        lines.append(
            "latency in the whole log " + ", ".join(f"{q} {1000 * times[q]:.3g} ms" for q in ("p50", "p95", "p99"))
        )
        lines.append(f"first level {hits['hit_rate']:.1%}, errors {hits['errors']:.2%}")
    if counts["habits shown"]:
        adopted = adoption_24h(log).iloc[0]
        known = "" if np.isnan(adopted["ci_low"]) else f" ({adopted['ci_low']:.1%} to {adopted['ci_high']:.1%})"
        rate = "not known yet" if np.isnan(adopted["rate"]) else f"{adopted['rate']:.1%}{known}"
        lines.append(
            f"adopted within 24 hours: {rate} of {adopted['shown']:,.0f} habits shown; "
            f"{adopted['immature']:,.0f} more are too young to be judged"
        )
    lines += [f"left out, {reason}: {count:,}" for reason, count in left_out.items() if count]
    looked = sum(int(table["score"].notna().sum()) for table in found.anomalies.values() if len(table))
    kinds = "by day" if found.by == "day" else f"by {found.by} or day"
    tested = int(found.drift["p_adjusted"].notna().sum())
    lines.append(f"looked at {looked:,} values {kinds} with enough history, and at {tested} features")
    lines += [f"ALERT {alert.message}" for alert in found.alerts]
    if found.proposal.retrain:
        lines.append("retraining is proposed; `habitlab retrain` compares and decides")
    return "\n".join(lines)


def _alert(name: str, at: pd.Timestamp, row: pd.Series, unit: str) -> Alert:
    what = "is" if row["outlier"] else "has crept"
    scale, suffix = (100, " %") if unit == "share" else (1, f" {unit}" if unit else "")
    told = f"{name} {what} {'up' if row['direction'] > 0 else 'down'}"
    numbers = f"{scale * row['value']:.3g}{suffix}, expected {scale * row['expected']:.3g}{suffix}"
    return Alert(
        name, at.to_pydatetime(), f"{told}: {numbers} ({at:%Y-%m-%d %H:%M} UTC)", row["value"], row["expected"]
    )


def _busy(log: Log) -> bool:
    answers = log.requests["answers"].groupby(log.requests["at"].dt.floor("h")).sum()
    return bool(len(answers)) and float(answers.median()) >= ENOUGH_AN_HOUR


def _period(at: pd.Series, by: Period | None) -> Any:
    return np.zeros(len(at), dtype=np.int64) if by is None else pd.DatetimeIndex(at).floor(_FREQUENCY[by])
