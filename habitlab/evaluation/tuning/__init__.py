"""Search for parameters that make a score as high as possible: Bayesian, beside random search at equal budget.

A Gaussian process is fitted to the points tried so far and says where the score is expected to improve most (expected
improvement; Jones et al. 1998, doi:10.1023/A:1008306431147), by scikit-optimize's `Optimizer`. Each point follows from
the seed and from the points before it alone, so that a search that was killed goes on exactly as if it had not been,
and 50 calls begin like 20. Linear algebra runs on one thread: the last bits of the process depend on their number.

What may be tried is a `search_space.Space`. The score is that of HabitLab's blend in `tuned_blend`.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from skopt import Optimizer
from skopt.utils import cook_estimator
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from habitlab.dataset.sqlite import replacing
from habitlab.evaluation.tuning.search_space import Point, Space, is_whole

Floats = npt.NDArray[np.float64]
Objective: TypeAlias = Callable[[Point], "float | tuple[float, Mapping[str, float]]"]
"""Score of a point, higher is better, NaN if it has none; and other measures of it, if there are any."""
Method = Literal["bayesian", "random"]

FIRST = 10
"""So many points are drawn before the first model; they are those of a random search with the same seed."""

_RESTARTS = 0  # of fitting the process; two, the usual number, take three times as long
_VERSION = 1


# Searching


@dataclass(frozen=True)
class Trial:
    """One call: the point, its score (NaN where it has none) and the other measures of it."""

    point: Point
    value: float
    measures: dict[str, float]


@dataclass(frozen=True)
class Search:
    """What was tried in what order; `seconds` of this run only: in the objective, and in the search itself."""

    space: Space
    method: Method
    seed: int
    trials: tuple[Trial, ...]
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def scores(self) -> Floats:
        """Scores (calls,)."""
        return np.array([trial.value for trial in self.trials], dtype=float)

    @property
    def failed(self) -> int:
        """How many calls had no score."""
        return int((~np.isfinite(self.scores)).sum())

    @property
    def constant(self) -> bool:
        """Whether all scores are alike: then no point is better than another, and the best is just the first."""
        return bool(np.ptp(self.scores[np.isfinite(self.scores)]) == 0)

    @property
    def best(self) -> Trial:
        """The trial with the highest score, the first of equals."""
        return self.trials[int(np.nanargmax(self.scores))]

    def table(self) -> pd.DataFrame:
        """A row a call: method, seed, call (from 1), the point, value, measures, best (so far)."""
        rows = [
            {"method": self.method, "seed": self.seed, "call": call, **t.point, "value": t.value, **t.measures}
            for call, t in enumerate(self.trials, 1)
        ]
        return pd.DataFrame(rows).assign(best=np.fmax.accumulate(self.scores))


def search(
    objective: Objective,
    space: Space,
    *,
    calls: int = 50,
    method: Method = "bayesian",
    seed: int = 0,
    state: str | Path | None = None,
    subject: str = "",
    progress: bool = False,
) -> Search:
    """Call `objective` `calls` times, each time with the point that promises most after those before.

    Parameters
    ----------
    objective
        May say NaN: such a point counts as bad as the worst, and is counted in `Search.failed`. What it raises, passes.
    method
        `bayesian`, or `random`: each point drawn from the prior.
    state
        A JSON file, written whole after each call; where it is there, the search goes on from it.
    subject
        What is tuned, such as a hash of the data: a state of something else is refused.
    progress
        A bar on stderr.

    Raises
    ------
    ValueError
        The state is of another search, or damaged; `calls` is below 1; or no call at all had a score.
    """
    if method not in ("bayesian", "random"):
        raise ValueError(f"method is 'bayesian' or 'random'; got {method!r}")
    if isinstance(calls, bool) or not isinstance(calls, Integral) or calls < 1:
        raise ValueError(f"calls is a whole number of at least 1; got {calls!r}")
    path = None if state is None else Path(state)
    about = {"version": _VERSION, "method": method, "seed": int(seed), "first": FIRST, "subject": subject}
    about["space"] = json.loads(
        json.dumps(asdict(space), default=lambda end: int(end) if is_whole((end, end)) else float(end))
    )
    trials = [] if path is None or not path.exists() else _resumed(path, about)[:calls]
    inside = outside = 0.0
    with tqdm(total=int(calls), initial=len(trials), file=sys.stderr, disable=not progress, unit="call") as bar:
        while len(trials) < calls:
            started = time.perf_counter()
            point = _next_point(space, trials, method, seed)
            asked = time.perf_counter()
            told = objective(dict(point))
            value, measures = told if isinstance(told, tuple) else (told, {})
            if taken := sorted({*space.names, "value", "call", "best"} & set(measures)):
                raise ValueError(f"a measure is called {taken[0]!r}, which is taken; call it something else")
            trials.append(Trial(point, _number(value), {name: _number(one) for name, one in measures.items()}))
            inside, outside = inside + time.perf_counter() - asked, outside + asked - started
            if path is not None:
                _write(path, about, trials)
            bar.update()
            bar.set_postfix(best=f"{max((t.value for t in trials if math.isfinite(t.value)), default=math.nan):.4g}")
    found = Search(space, method, int(seed), tuple(trials), (inside, outside))
    if found.failed == len(trials):
        raise ValueError(f"none of the {len(trials)} points has a score: the objective is NaN or infinite everywhere")
    return found


def _next_point(space: Space, trials: Sequence[Trial], method: Method, seed: int) -> Point:
    """The point to try after these; the same for the same trials and seed."""
    generator = np.random.default_rng([seed, len(trials)])
    finite = [trial.value for trial in trials if math.isfinite(trial.value)]
    if method == "random" or len(trials) < FIRST or len(finite) < 2:
        return space.draw(generator)
    worst = min(finite)
    scores = [-trial.value if math.isfinite(trial.value) else -worst for trial in trials]
    state = int(generator.integers(2**31))
    # Warnings: a length scale at its bound, or a point proposed twice and so replaced by a random one.
    with warnings.catch_warnings(), threadpool_limits(limits=1, user_api="blas"):
        warnings.simplefilter("ignore")
        process = cook_estimator("GP", space=space.dimensions, random_state=state, n_restarts_optimizer=_RESTARTS)
        optimizer = Optimizer(
            space.dimensions,
            base_estimator=process,
            n_initial_points=1,
            initial_point_generator="random",
            acq_func="EI",
            random_state=state,
        )
        optimizer.tell([space.coordinates(trial.point) for trial in trials], scores)
        return space.point(optimizer.ask())


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"an objective gives a number, or a number and a mapping of numbers; got {value!r}")
    return float(value) if math.isfinite(value) else math.nan


def _write(path: Path, about: Mapping[str, Any], trials: Sequence[Trial]) -> None:
    rows = [asdict(trial) for trial in trials]
    for row in rows:
        row["value"] = row["value"] if math.isfinite(row["value"]) else None
        row["measures"] = {name: one if math.isfinite(one) else None for name, one in row["measures"].items()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**about, "trials": rows}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _resumed(path: Path, about: Mapping[str, Any]) -> list[Trial]:
    """Trials of a state; raises ValueError for one that is damaged or of another search, saying what differs."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        trials = [
            Trial(
                row["point"],
                math.nan if row["value"] is None else float(row["value"]),
                {name: math.nan if one is None else float(one) for name, one in row["measures"].items()},
            )
            for row in known.pop("trials")
        ]
        before = {**known, **known["space"]}
        differs = [
            f"{name} was {_shown(before.get(name))} and is now {_shown(value)}"
            for name, value in {**about, **about["space"]}.items()
            # As text: the order of dimensions counts, and 10 to 50 in whole numbers is not 10.0 to 50.0.
            if name != "space" and json.dumps(before.get(name)) != json.dumps(value)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no state of a search, or is damaged ({error!r}); remove it to start anew"
        ) from error
    if differs:
        raise ValueError(f"{path} is of another search: {'; '.join(differs)}. Give another path, or remove it")
    return trials


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        whole = {True: " in whole numbers", False: ""}
        parts = (f"{name} {low:g} to {high:g}{whole[is_whole((low, high))]}" for name, (low, high) in value.items())
        return ", ".join(parts) or "none"
    return json.dumps(value)


# Reading a search


def undominated(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether no other row (rows, measures) is at least as high in every measure and higher in one: the Pareto front.

    Rows with a NaN are never on it; of equal rows all are.
    """
    table = np.asarray(values, dtype=float)
    known = np.isfinite(table).all(axis=1)
    at_least = (table[:, None] >= table).all(axis=2) & known[:, None]
    higher = (table[:, None] > table).any(axis=2)
    return known & ~(at_least & higher).any(axis=0)


def effects(
    searches: Sequence[Search], *, bins: int = 8, points: int = 2048, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """What the score depends on: its mean over the prior for each value of a parameter, by the process fitted to all.

    Columns: parameter, value (middle of a bin of equally many points), estimate, ci_low, ci_high: where the process
    believes that mean to lie, which says nothing of the noise in the scores. Parameters of a range are independent
    under the prior, so that this is their partial dependence (Friedman 2001, doi:10.1214/aos/1013203451); a weight
    cannot change with the others as they are, and they share what it leaves as the prior has it.
    """
    space = searches[0].space
    trials = [trial for one in searches for trial in one.trials if math.isfinite(trial.value)]
    evenly = stats.qmc.Sobol(len(space.dimensions), rng=np.random.default_rng(seed)).random(points)
    drawn = [space.at(unit) for unit in evenly.tolist()]
    with warnings.catch_warnings(), threadpool_limits(limits=1, user_api="blas"):
        warnings.simplefilter("ignore")
        process = cook_estimator("GP", space=space.dimensions, random_state=seed, n_restarts_optimizer=_RESTARTS)
        optimizer = Optimizer(space.dimensions, base_estimator=process, n_initial_points=1, random_state=seed)
        unit = optimizer.space.transform
        process.fit(unit([space.coordinates(t.point) for t in trials]), [t.value for t in trials])
        mean, covariance = process.predict(unit([space.coordinates(point) for point in drawn]), return_cov=True)
    tables = []
    for name in space.names:
        values = np.array([point[name] for point in drawn], dtype=float)
        group = (stats.rankdata(values, method="ordinal") - 1).astype(int) * bins // points
        share = np.eye(bins)[group].T * bins / points
        share /= share.sum(axis=1, keepdims=True)
        variance = ((share @ covariance) * share).sum(axis=1)
        half = stats.norm.ppf((1 + level) / 2) * np.sqrt(np.maximum(variance, 0))
        estimate = share @ mean
        tables.append(
            pd.DataFrame(
                {
                    "parameter": name,
                    "value": share @ values,
                    "estimate": estimate,
                    "ci_low": estimate - half,
                    "ci_high": estimate + half,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
