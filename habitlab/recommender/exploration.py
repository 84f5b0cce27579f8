"""Every list is a draw from a known policy, so that what people did with it can be read without bias later.

The policy: all places but the last hold the best list; the last place holds the best remaining habit, or with the
probability `epsilon` one drawn by lot from all that are eligible and not on the list yet, the best one included. So
the probability that a habit stands on the list is known exactly for every eligible habit, and above 0: 1 for those
before the last place, 1 - epsilon + epsilon / n for the best of the n others, epsilon / n for the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.recommender.recommendations import Recommendations

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def lots(seed: int, user: str, moment: object) -> tuple[float, float]:
    """Return the randomness of one list: two numbers from 0 to below 1, the same for a seed, user and moment."""
    digest = hashlib.sha256(repr((int(seed), str(user), str(moment))).encode()).digest()
    return _fraction(digest[:8]), _fraction(digest[8:16])


def _fraction(eight: bytes) -> float:
    """As many of the bits as a float holds."""
    return float((int.from_bytes(eight, "little") >> 11) * 2.0**-53)


def draw(
    best: Ints, left: npt.NDArray[np.bool_], epsilon: float, lots: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Draw the lists of people, and the probability with which each habit stands on such a list: both (people, k).

    `best` (people, k): their best lists, -1 behind the end of a short one; `left` (people, habits): who may be offered
    what; `lots` (people, 2) of `lots`: the first says whether the last place is drawn, the second which habit.
    """
    check_epsilon(epsilon)
    shown, probability = np.array(best, dtype=np.int64), np.ones(best.shape)
    length = (best >= 0).sum(axis=1)
    some = np.flatnonzero(length)
    place, others = length - 1, left.sum(axis=1) - length + 1
    probability[some, place[some]] = 1 - epsilon + epsilon / others[some]
    chance, which = np.asarray(lots, dtype=np.float64).reshape(-1, 2).T
    drawn = some[chance[some] < epsilon]
    open_ = left[drawn]
    row, before = np.nonzero(np.arange(best.shape[1]) < place[drawn, None])
    open_[row, best[drawn[row], before]] = False
    nth = (which[drawn] * others[drawn]).astype(np.int64)
    habit = (open_.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    shown[drawn, place[drawn]] = habit
    other = drawn[habit != best[drawn, place[drawn]]]
    probability[other, place[other]] = epsilon / others[other]
    return shown, probability


def check_epsilon(epsilon: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= epsilon <= 1:
        raise ValueError(f"exploration is a probability from 0 to 1; got {epsilon:g}")


def slate_rows(lists: Iterable[Recommendations], shown_at: Any = None) -> pd.DataFrame:
    """Rows of the table `recommendations` for lists that were shown: an event for each place.

    `shown_at`: an instant with a zone for all lists; None takes each list's own moment, and is missing where that is
    not known. The same list at the same moment has the same `event_id`.
    """
    import pandas as pd

    from habitlab.dataset.schema import coerce, empty_table

    rows = []
    for one in lists:
        moment = shown_at if shown_at is not None else one.shown_at
        for item in one.items:
            event = hashlib.sha256(repr((one.user_id, str(one.at), str(moment), item.rank)).encode()).hexdigest()[:24]
            rows.append(
                {
                    "event_id": event,
                    "user_id": one.user_id,
                    "habit_id": item.habit_id,
                    "shown_at": pd.NaT if moment is None else pd.Timestamp(moment).tz_convert("UTC"),
                    "position": float(item.rank),
                    "policy": one.policy,
                    "propensity": item.propensity,
                }
            )
    if not rows:
        return empty_table("recommendations")
    frame = pd.DataFrame(rows)
    return coerce("recommendations", frame.assign(description_variant=None, response=None, responded_at=None))
