"""Hold a mechanism against its own promise: run it on neighbouring data, and see whether anybody could tell them apart.

Of an (epsilon, delta) mechanism no event is more likely on one dataset than exp(epsilon) times as likely, plus delta,
on its neighbour. The event is looked for in one half of the runs and judged in the other, so that looking does not make
one up. A test can find a promise broken, never prove it kept; noise that is too small by half is found in some thousand
runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Audit:
    """What the runs showed: `epsilon_low` is surely exceeded, with `level`; `broken` if that is above the promise."""

    epsilon: float
    delta: float
    epsilon_low: float
    broken: bool
    runs: int
    level: float


def audit(
    mechanism: Callable[[int], Floats],
    neighbour: Callable[[int], Floats],
    *,
    epsilon: float,
    delta: float,
    runs: int = 4000,
    level: float = 0.999,
    thresholds: int = 50,
) -> Audit:
    """Judge a mechanism by `runs` outputs on a dataset and on a neighbour.

    Parameters
    ----------
    mechanism, neighbour
        Take a number of runs and give so many outputs (runs, d), or (runs,).
    level
        Probability with which a mechanism that keeps its promise is not called broken (at least).

    The statistic is the projection on the difference of the means, most powerful for Gaussian noise of one scale;
    the events are its tails on either side, and binomial limits are Clopper and Pearson's (1934).
    """
    first, second = (np.asarray(run(2 * runs), dtype=float).reshape(2 * runs, -1) for run in (mechanism, neighbour))
    direction = first[:runs].mean(axis=0) - second[:runs].mean(axis=0)
    one, other = first @ direction, second @ direction
    points = np.quantile(np.concatenate([one[:runs], other[:runs]]), np.linspace(0.005, 0.995, thresholds))

    def shares(values: Floats) -> Floats:
        above = (values[:, None] > points).mean(axis=0)
        return np.stack([above, 1 - above])

    # A tail of either dataset may be the one that tells most.
    learnt = [(shares(one[:runs]), shares(other[:runs])), (shares(other[:runs]), shares(one[:runs]))]
    held = [(shares(one[runs:]), shares(other[runs:])), (shares(other[runs:]), shares(one[runs:]))]
    lows = []
    for (likely, rare), (likely_held, rare_held) in zip(learnt, held, strict=True):
        place = np.unravel_index(np.argmax(_epsilon(likely, rare, delta, runs, level)), likely.shape)
        # Two events are judged: the level is shared among them.
        lows.append(float(_epsilon(likely_held[place], rare_held[place], delta, runs, 1 - (1 - level) / 2)))
    low = max(lows)
    return Audit(epsilon, delta, low, low > epsilon, runs, level)


def _epsilon(likely: npt.ArrayLike, rare: npt.ArrayLike, delta: float, runs: int, level: float) -> Floats:
    """Return the epsilon surely exceeded: log of the lower limit of one share over the upper limit of the other."""
    tail = (1 - level) / 2
    hits, misses = np.rint(np.asarray(likely) * runs), np.rint(np.asarray(rare) * runs)
    low = np.where(hits > 0, stats.beta.ppf(tail, hits, runs - hits + 1), 0.0)
    high = np.where(misses < runs, stats.beta.ppf(1 - tail, misses + 1, runs - misses), 1.0)
    return np.log(np.maximum(low - delta, 1e-12) / high)
