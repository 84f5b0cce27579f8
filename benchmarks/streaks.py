"""Streak and recency features: HabitLab against the overview's pandas chain, on the same rows in key order.

Run `python benchmarks/streaks.py [ROWS] [--weekly SHARE] [--shuffled]`; each side runs in a process of its own, so that
the peak memory is that of one side (rows included). The overview's chain computes a streak only, ours recency too; that
its numbers are wrong for most schedules is another matter (`tests/features`).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from habitlab.features.temporal import history

DAYS, HABITS = 200, 5


def make(rows: int, weekly: float, shuffled: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tracking rows in key order, 5 habits of 200 days a user, and the habits."""
    generator = np.random.default_rng(0)
    row = np.arange(rows)
    users = pd.array([f"u{i:07d}" for i in range(row[-1] // (DAYS * HABITS) + 1)], dtype="str")
    ids = pd.array([f"habit-{i:03d}" for i in range(HABITS)], dtype="str")
    status = pd.Categorical.from_codes(
        generator.choice(4, rows, p=[0.6, 0.35, 0.03, 0.02]).astype(np.int8),
        categories=["done", "missed", "skipped", "unknown"],
    )
    tracking = pd.DataFrame(
        {
            "user_id": users.take(row // (DAYS * HABITS)),
            "habit_id": ids.take(row // DAYS % HABITS),
            "date": (np.datetime64("2025-01-01") + row % DAYS).astype("datetime64[s]"),
            "status": status,
        }
    )
    target = np.where(np.arange(HABITS) < weekly * HABITS, "3/7", "1/1")
    habits = pd.DataFrame({"habit_id": ids, "target": target})
    if shuffled:
        tracking = tracking.sample(frac=1, random_state=1).reset_index(drop=True)
    return tracking, habits


def overview_chain(tracking: pd.DataFrame) -> pd.DataFrame:
    """The overview's streak (1.3.1), as it stands there; it promises recency and computes days since the last row."""
    frame = tracking.assign(completed=(tracking["status"] == "done").astype(int))
    frame = frame.sort_values(["user_id", "habit_id", "date"])
    frame["prev_date"] = frame.groupby(["user_id", "habit_id"])["date"].shift(1)
    frame["days_since_prev"] = (frame["date"] - frame["prev_date"]).dt.days
    frame["streak_reset"] = (
        (frame["days_since_prev"] > 1) | (frame["completed"] == 0) | (frame["days_since_prev"].isna())
    ).astype(int)
    frame["streak_group"] = frame.groupby(["user_id", "habit_id"])["streak_reset"].cumsum()
    frame["current_streak"] = frame.groupby(["user_id", "habit_id", "streak_group"]).cumcount() + 1
    frame.loc[frame["completed"] == 0, "current_streak"] = 0
    return frame[["current_streak", "days_since_prev"]]


def measure(side: str, rows: int, weekly: float, shuffled: bool) -> None:
    """Time one side; the chain once, ours three times with the best and the worst."""
    tracking, habits = make(rows, weekly, shuffled)
    seconds, processor = [], []
    for _ in range(3 if side == "habitlab" else 1):
        start, start_processor = time.perf_counter(), time.process_time()
        if side == "habitlab":
            result = history(tracking, habits, include=("streak", "recency"))
        else:
            result = overview_chain(tracking)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
        assert len(result) == rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(min(seconds), max(seconds), min(processor), peak)


def main() -> None:
    """Run both sides, print times, ratio and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--weekly", type=float, default=0.0, help="share of habits with three times a week")
    parser.add_argument("--shuffled", action="store_true", help="rows in no order")
    parser.add_argument("--side", choices=["habitlab", "overview"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.rows, options.weekly, options.shuffled)
        return
    results = {}
    for side in ("overview", "habitlab"):
        command = [sys.executable, __file__, str(options.rows), "--side", side, "--weekly", str(options.weekly)]
        command += ["--shuffled"] if options.shuffled else []
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[side] = best, worst, processor, peak = [float(word) for word in output.split()]
        print(f"{side:9} {best:7.2f} s (worst {worst:.2f} s)  processor {processor:.2f} s  peak {peak:.2f} GB")
    overview, ours = results["overview"], results["habitlab"]
    print(
        f"{options.rows:,} rows: {overview[0] / ours[0]:.1f} times faster (against the worst of three "
        f"{overview[0] / ours[1]:.1f}; in processor time, which others on the machine disturb less, "
        f"{overview[2] / ours[2]:.1f})"
    )


if __name__ == "__main__":
    main()
