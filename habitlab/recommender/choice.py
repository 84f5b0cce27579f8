"""From scores to what is shown: the lists of a block of people at one moment, chosen together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from habitlab.recommender import context, diversity, exploration

if TYPE_CHECKING:
    from habitlab.recommender.candidates import Candidates

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Choice:
    """Lists of people, in rank order and -1 where a list is shorter than k; what is said of a place without is nothing.

    The last place of a list is the one that may have been drawn by lot.
    """

    habits: Ints  # (people, k)
    propensity: Floats  # (people, k)
    by_lot: npt.NDArray[np.bool_]  # (people,) whether the last place holds another habit than the best list
    eligible: Ints  # (people,) number of habits that could be offered
    taken: Ints  # (people, reasons) number of habits that each filter took away
    spread: Floats  # (people,) of the scores of eligible habits
    weekday: Ints  # (people, 2) to begin on: a habit that can be begun today, and one whose part of the day is over
    starts: Ints  # (people, 2) its day since 1970-01-01, `context.NO_DAY` where the moment is not known
    over: npt.NDArray[np.bool_]  # (habits,) whether its part of the day is over


def choose(
    score: Floats,
    group: context.Group,
    candidates: Candidates,
    alike: npt.NDArray[np.floating],
    lots: Sequence[tuple[float, float]],
    *,
    k: int,
    day: int,
    at: datetime | None,
    tomorrow: bool,
    varied: float,
    epsilon: float,
) -> Choice:
    """Filter, rank, vary and draw.

    `score` (people, habits) in [0, 1]; `alike` as in `diversity.rerank`; `lots` (people,) the randomness of each list,
    of `exploration.lots`; `day` since 1970-01-01; `varied` the diversity; the rest as in `Recommender`.
    """
    left, taken = context.sift(group, candidates, day=day, hour=context.hour_of(at), tomorrow=tomorrow)
    eligible = left.sum(axis=1)
    order = np.argsort(np.where(left, -score, np.inf), axis=1, kind="stable")[:, : eligible.max(initial=0)]
    ranked = np.where(np.arange(order.shape[1]) < eligible[:, None], order, -1)
    places = min(k, diversity.PLACES)
    best = diversity.rerank(
        ranked,
        np.take_along_axis(score, order, axis=1),
        alike,
        candidates.category,
        k=k,
        diversity=varied,
        # The last place may be drawn by lot, so the others have to be varied without it.
        places=max(1, places - 1) if epsilon and k <= diversity.PLACES else places,
    )
    shown, propensity = exploration.draw(best, left, epsilon, lots)
    highest = np.where(left, score, -np.inf).max(axis=1, initial=-np.inf)
    lowest = np.where(left, score, np.inf).min(axis=1, initial=np.inf)
    over = context.over(candidates, context.hour_of(at))
    begins = [context.first_days(group.weekdays, at, today_is_over=late) for late in (False, True)]
    weekday, starts = (np.stack(several, axis=1) for several in zip(*begins, strict=True))
    return Choice(
        habits=shown,
        propensity=propensity,
        by_lot=(shown != best).any(axis=1),
        eligible=eligible,
        taken=taken,
        spread=np.where(eligible > 0, highest - lowest, 0.0),
        weekday=weekday,
        starts=starts,
        over=over,
    )
