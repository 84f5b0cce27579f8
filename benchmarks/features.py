"""Time of all features on the default data, repeated to a million tracking rows: part by part, and in all.

Run `make data` first, then `python benchmarks/features.py [PATH] [--rows N]`. Times are seconds on
the wall, and of the processor, which others on the machine disturb less: best of three runs, imports not included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.features import behavioural, interaction
from habitlab.features.abandonment import AbandonmentHazard
from habitlab.features.as_of import Floats
from habitlab.features.temporal import history, summary, weekday_profile

LIMIT = 5.0
TABLES = ("users", "habit_tracking", "adoptions", "modifications", "recommendations", "sessions", "feedback", "surveys")


def repeated(dataset: Dataset, rows: int) -> Dataset:
    """At least `rows` tracking rows: users again under other ids, as many as it takes."""
    tracking = dataset.habit_tracking
    missing, tables = rows - len(tracking), {name: [dataset.table(name)] for name in TABLES}
    turn = 0
    while missing > 0:
        turn += 1
        days = tracking["user_id"].value_counts().reindex(dataset.users["user_id"], fill_value=0)
        users = days.index[: int(np.searchsorted(days.cumsum(), missing)) + 1]
        for parts in tables.values():
            part = parts[0][parts[0]["user_id"].isin(users)]
            parts.append(part.assign(user_id=part["user_id"] + f"-{turn}"))
        missing -= len(tables["habit_tracking"][-1])
    return dataset.replace(**{name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()})


def clocks() -> Floats:
    """Seconds on the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Time each part and say whether all features together stay under the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", default="data/habittrack.db")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    dataset = repeated(Dataset.load(options.path), options.rows)
    adopted = dataset.adoptions
    moments = adopted[["user_id", "habit_id"]].assign(day=adopted["adopted_at"].dt.tz_localize(None).dt.floor("D"))
    print(f"{len(dataset.habit_tracking):,} tracking rows, {len(dataset.users):,} users, {len(adopted):,} adoptions")
    features: dict[str, Callable[[Dataset], object]] = {
        "history (a row a tracking row)": lambda data: history(data.habit_tracking, data.habits),
        "summary (a row a pair)": lambda data: summary(data.habit_tracking, data.habits),
        "weekday profile (7 rows a user)": lambda data: weekday_profile(data.habit_tracking),
        "user_features (a row a user)": behavioural.user_features,
        "pair_history (a row an adoption)": lambda data: behavioural.pair_history(data, moments),
        "acceptance by position": interaction.acceptance_by_position,
        "modification patterns": interaction.modification_patterns,
    }
    analyses: dict[str, Callable[[Dataset], object]] = {
        "cross-habit influence (an analysis)": interaction.cross_habit_influence,
        "abandonment hazard, fit (an analysis)": lambda data: AbandonmentHazard().fit(data),
    }
    seconds = {name: [] for name in features | analyses}
    for _ in range(3):
        fresh = dataset.replace()  # keeps no local days of the run before
        for name, run in (features | analyses).items():
            start = clocks()
            run(fresh)
            seconds[name].append(clocks() - start)
    best = {name: np.min(runs, axis=0) for name, runs in seconds.items()}
    total = sum(best[name] for name in features)
    for name, (wall, processor) in best.items():
        print(f"{name:38} {wall:6.2f} s  processor {processor:6.2f} s")
    verdict = "under" if total[1] < LIMIT else "OVER"
    print(f"{'all features':38} {total[0]:6.2f} s  processor {total[1]:6.2f} s: {verdict} the limit of {LIMIT:g} s")


if __name__ == "__main__":
    main()
