"""Speed of the simulated world on one core, in scheduled user-habit-days (rows of `habit_tracking`) a second of CPU.

    python benchmarks/simulation.py [USERS] [DAYS]

Three counts, each the best of five: `replay` is the behaviour alone (every day's outcome, what a policy run in the
world costs); `replay + tracking` adds instants, minutes, values and the DataFrame; `simulate()` is everything from
reading the catalogue to a `Dataset` of eleven tables in the dtypes of the contract (`save` and `load` check it).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pyarrow as pa

from habitlab.simulation import make_world, simulate
from habitlab.simulation.adoption import adopt
from habitlab.simulation.tracking import tracking

GOAL = 2e6


def best(work: Callable[[], object], times: int = 5) -> float:
    """CPU seconds, of all threads, of the fastest run: what others do on the machine can only slow a run down."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main(users: int = 2000, days: int = 180) -> None:
    """Print rows a second for each count."""
    pa.set_cpu_count(1)
    world = make_world(users, days)
    adoptions, _, _ = adopt(world)
    pairs = (adoptions.user, adoptions.habit, adoptions.start, adoptions.load)
    course = world.replay(*pairs)
    counts = {
        "replay": lambda: world.replay(*pairs),
        "replay + tracking": lambda: tracking(world, world.replay(*pairs)),
        "simulate()": lambda: simulate(users, days),
    }
    print(f"{users:,} users, {days} days, {len(course.pair):,} scheduled user-habit-days; aim {GOAL / 1e6:g} million/s")
    for label, work in counts.items():
        seconds = best(work)
        print(f"{label:18} {seconds:6.3f} s  {len(course.pair) / seconds / 1e6:6.2f} million/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
