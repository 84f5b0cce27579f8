"""Tuning the blend with 50 calls, from the open dataset to the chosen point: how long, and what share is what.

Run `python benchmarks/tuning.py [DATA] [CALLS]`; data/habittrack.db is made by `make data`. One process, BLAS on one
thread; wall time and, less disturbed by others on the machine, processor time. Three parts: the split into windows and
people set aside; the objective (models fitted once a window and number of factors, then only blended and ranked); and
the search itself. Then the same budget with models fitted anew for each call, estimated from three calls,
and what scikit-optimize's own `gp_minimize` takes to propose as many points (its default, gp_hedge, and with EI).
"""

from __future__ import annotations

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

from skopt import gp_minimize  # noqa: E402

from habitlab import open_dataset  # noqa: E402
from habitlab.evaluation.tuning import search  # noqa: E402
from habitlab.evaluation.tuning.search_space import Point  # noqa: E402
from habitlab.evaluation.tuning.tuned_blend import OPENED, BlendObjective, protocol, usual_point  # noqa: E402


@contextmanager
def clock(what: str) -> Iterator[None]:
    """Print wall and processor time of what is inside."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    print(f"{what:52} {time.perf_counter() - wall:7.1f} s wall {time.process_time() - processor:7.1f} s processor")


class Clocked:
    """An objective that adds up its processor time."""

    def __init__(self, objective: BlendObjective) -> None:
        """Wrap the objective."""
        self.objective, self.seconds = objective, 0.0

    def __call__(self, point: Point) -> tuple[float, dict[str, float]]:
        """Call it."""
        start = time.process_time()
        value = self.objective(point)
        self.seconds += time.process_time() - start
        return value


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default="data/habittrack.db", type=Path)
    parser.add_argument("calls", nargs="?", default=50, type=int)
    options = parser.parse_args()
    dataset = open_dataset(str(options.data))
    wall, processor = time.perf_counter(), time.process_time()
    with clock("people and days set aside"):
        plan = protocol(dataset)
    objective = Clocked(BlendObjective.of(plan.validation))
    with clock("models of the windows, and the usual point"):
        objective(usual_point())
    with clock(f"{options.calls} calls"):
        found = search(objective, OPENED, calls=options.calls, progress=True)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    rest = processor - objective.seconds
    print(
        f"in all {wall:.1f} s wall, {processor:.1f} s processor: {objective.seconds / processor:.0%} models and lists, "
        f"{rest / processor:.0%} search and split; best {found.best.value:.4f}, usual {objective(usual_point())[0]:.4f}"
    )
    start = time.process_time()
    for point in [trial.point for trial in found.trials[:3]]:
        BlendObjective.of(plan.validation)(point)
    print(
        f"nothing kept between calls: {(time.process_time() - start) / 3 * options.calls:.0f} s processor for all calls"
    )
    for acquisition in ("gp_hedge", "EI"):
        with clock(f"gp_minimize, {acquisition}, on a smooth stand-in"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gp_minimize(stand_in, OPENED.dimensions, n_calls=options.calls, acq_func=acquisition, random_state=0)
    with clock("our search on the same stand-in"):
        search(lambda point: -stand_in(OPENED.coordinates(point)), OPENED, calls=options.calls)


def stand_in(coordinates: list) -> float:
    """Score of no model at all: only the search costs time."""
    first, second, diversity, factors = coordinates
    return (first - 0.3) ** 2 + (second - 0.6) ** 2 + diversity + (factors - 20) ** 2 / 900


if __name__ == "__main__":
    main()
