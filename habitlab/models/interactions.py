"""What users and habits had to do with each other before a moment: the matrix that models learn from.

Weights of `matrix`, the evidence for a preference: an adopted habit weighs 0.5 + its completion rate (done of done and
missed days before the moment, shrunk by one day of each, so that an untracked habit weighs 1), so between 0.5 and 1.5;
a habit held before registration weighs 0.1, since nobody knows why or how well it was begun. A pair that is not in the
matrix is unobserved: that says nothing about the preference for it. What was looked at and not taken is in `refused`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.dataset import Dataset, DatasetError
from habitlab.dataset.catalogue import normalise_name
from habitlab.dataset.vocabulary import Purpose, Response
from habitlab.features.as_of import NEVER, event_days, unique_index
from habitlab.features.days import DONE, MISSED, Day, Days, read_days, rows_before, until_day
from habitlab.models import Floats, Ids

EXISTING_WEIGHT = 0.1
LIVED = 0.5
"""Every habit adopted or tracked weighs at least so much, one only held before registration less."""

STILL_HELD_DAYS = 28
"""A tracked habit without an adoption counts as held for so many days after its last row."""

_BEFORE_ALL = np.datetime64("1900-01-01", "D")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions of all users with all habits, strictly before a local day.

    `user_ids` (users,) and `habit_ids` (habits,) are all those of the dataset in its order. CSR (users, habits):
    `matrix` float64, the weights described above; `held` bool, held on that day (adopted or held before registration,
    and not abandoned); `ever` bool, ever adopted, tracked or held before registration; `refused` bool, recommended,
    viewed or rejected, and never adopted; `accepted` bool, recommended and accepted; `adopted_day` int32, days from
    1900 to the first adoption. `registered` (users,) bool, registered before that day, as far as anybody knows: what is
    fitted to all users comes from these, though the profiles of the others are known.
    `evidence` (users,) is the number of habits that a user acted on: adopted, tracked or rejected. A habit that was
    only looked at, or held before registration, is none.
    """

    user_ids: Ids
    habit_ids: Ids
    matrix: sparse.csr_array
    evidence: Floats
    held: sparse.csr_array
    ever: sparse.csr_array
    refused: sparse.csr_array
    accepted: sparse.csr_array
    adopted_day: sparse.csr_array
    registered: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, dataset: Dataset, until: Day | None = None) -> Interactions:
        """Read what happened before the local day `until` (each user's own); None reads everything."""
        users, habits = ids_of(dataset.users, "user_id"), ids_of(dataset.habits, "habit_id")
        keys = _Keys(unique_index(dataset.users["user_id"]), unique_index(dataset.habits["habit_id"]))
        started = days_of(dataset, "adoptions", "adopted_at")
        known = before(started, until)
        adoption, started = keys.of(dataset.adoptions[known]), started[known]
        ended = days_of(dataset, "adoptions", "abandoned_at")[known]
        active = adoption[np.isnat(ended) | ~before(ended, until)]
        adopted = _union(adoption)

        tracking = dataset.habit_tracking
        day = until_day(until, tracking)
        days = read_days(rows_before(tracking, day))
        tracked, done, missed, last = keys.of(days.pairs), _count(days, DONE), _count(days, MISSED), _last(days)
        lately = _without(tracked[last >= day - STILL_HELD_DAYS], adopted)
        existing = _existing(dataset, keys)
        rejected, viewed, accepted = _answers(dataset, until, keys)

        lived = _union(adopted, tracked)  # with the app
        ever = _union(lived, existing)
        weight = np.where(_among(ever, lived), 1.0, EXISTING_WEIGHT)
        weight[np.searchsorted(ever, tracked)] = 0.5 + (1 + done) / (2 + done + missed)
        held = _union(active, lately, _without(existing, adopted))
        refused = _without(_union(rejected, viewed), lived)
        order = np.lexsort((started, adoption))  # an unknown day comes last
        pair, first = np.unique(adoption[order], return_index=True)
        acted = _union(lived, rejected)
        joined = days_of(dataset, "users", "registered_at")
        return cls(
            user_ids=users,
            habit_ids=habits,
            matrix=keys.matrix(ever, weight),
            evidence=np.bincount(acted // max(len(habits), 1), minlength=len(users)).astype(float),
            held=keys.matrix(held),
            ever=keys.matrix(ever),
            refused=keys.matrix(refused),
            accepted=keys.matrix(accepted),
            adopted_day=keys.matrix(pair, _numbers(started[order][first])),
            registered=np.isnat(joined) | before(joined, until),
        )


@dataclass(frozen=True)
class _Keys:
    """Pairs of a user and a habit as one number each: sets of pairs are sorted arrays."""

    users: pd.Index
    habits: pd.Index

    def of(self, frame: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Number of the pair in each row."""
        user, habit = self.users.get_indexer(frame["user_id"]), self.habits.get_indexer(frame["habit_id"])
        if (user < 0).any() or (habit < 0).any():
            raise DatasetError(
                "events name users or habits that the dataset does not have; `habitlab check` lists them"
            )
        return user * len(self.habits) + habit

    def matrix(self, keys: npt.NDArray[np.int64], values: npt.NDArray | None = None) -> sparse.csr_array:
        """CSR (users, habits) of sorted keys, true or with these values."""
        values = np.ones(len(keys), dtype=bool) if values is None else values
        shape = (len(self.users), len(self.habits))
        return sparse.csr_array((values, np.divmod(keys, max(shape[1], 1))), shape=shape)


def ids_of(table: pd.DataFrame, column: str) -> Ids:
    """Ids of a table's rows (rows,) as plain strings."""
    return table[column].to_numpy(dtype=object)


def positions(wanted: Iterable[str] | None, known: Ids, what: str = "user") -> npt.NDArray:
    """Where each wanted id stands in `known` (n,); None is all of them.

    Raises
    ------
    ValueError
        Some id is not known; the message names those nearest to it.
    """
    if wanted is None:
        return np.arange(len(known))
    if isinstance(wanted, str):
        raise ValueError(f"give a list of {what} ids, not one text: [{wanted!r}]")
    wanted = list(wanted)  # of a Series `wanted[0]` would be the row named 0
    if len(wanted) == 1:  # without hashing everybody
        found = np.flatnonzero(known == wanted[0])
        place = found if len(found) else np.array([-1])
    else:
        place = pd.Index(known).get_indexer(pd.Index(wanted, dtype=object))
    if (place < 0).any():
        stranger = str(wanted[int(np.argmin(place))])
        near = get_close_matches(stranger, [str(name) for name in known], n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        more = f" (and {(place < 0).sum() - 1:,} more)" if (place < 0).sum() > 1 else ""
        raise ValueError(f"no {what} {stranger!r} in this dataset{more}{hint}")
    return place


def days_of(dataset: Dataset, table: str, column: str) -> npt.NDArray[np.datetime64]:
    """Local day of each instant of a table's column, datetime64[D]; NaT where unknown or where the column is absent.

    Users without a zone live in UTC.
    """
    day = event_days(dataset, table, column)
    return np.where(day < NEVER, day, np.datetime64("NaT").astype(np.int64)).astype("datetime64[D]")


def before(days: npt.NDArray[np.datetime64], until: Day | None) -> npt.NDArray[np.bool_]:
    """Whether each day lies strictly before `until`; a day that is not known does only where everything counts."""
    if until is None:
        return np.ones(len(days), dtype=bool)
    return days < np.datetime64(until_day(until, pd.DataFrame()), "D")


def consenting(dataset: Dataset, purpose: Purpose, until: Day | None = None) -> npt.NDArray[np.bool_]:
    """Whether each user's last word on `purpose` before `until` is yes (users,); no word is no."""
    word = last_words(dataset, purpose, until)
    return dataset.users["user_id"].map(word).eq(True).fillna(False).to_numpy(dtype=bool)


def last_words(dataset: Dataset, purpose: Purpose, until: Day | None = None) -> pd.Series:
    """What each person who said anything of a purpose before `until` said last: True for allowed, by user_id."""
    told = dataset.consents
    day = days_of(dataset, "consents", "at")
    told = told[(told["purpose"] == purpose).fillna(False).to_numpy(dtype=bool) & before(day, until)]
    return told.sort_values("at", kind="stable").groupby("user_id", observed=True)["granted"].last()


def refused(dataset: Dataset, purpose: Purpose) -> set[str]:
    """Return who refused a purpose in so many words, and did not allow it later."""
    last = last_words(dataset, purpose)
    return {str(user) for user in last.index[~last.to_numpy(dtype=bool)]}


def _union(*sets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All keys in any of these, sorted, each once; keys come nearly sorted, where numpy's hashing is far slower."""
    keys = np.sort(np.concatenate(sets), kind="stable")
    return keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]


def _among(keys: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each key is one of the sorted `others`."""
    place = np.searchsorted(others, keys)
    return (place < len(others)) & (np.append(others, -1)[place] == keys)


def _without(keys: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return _union(keys[~_among(keys, others)])


def _count(days: Days, status: int) -> npt.NDArray[np.int64]:
    """How many days of each pair have this status."""
    return np.add.reduceat(days.status == status, days.starts, dtype=np.int64) if days.day.size else np.zeros(0, int)


def _last(days: Days) -> npt.NDArray[np.int64]:
    return days.day[days.starts + days.lengths - 1]


def _numbers(days: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int32]:
    return np.where(np.isnat(days), 1, (days - _BEFORE_ALL).astype(np.int64)).astype(np.int32)


def _existing(dataset: Dataset, keys: _Keys) -> npt.NDArray[np.int64]:
    """Habits that users say they held before they registered, by id or name; unknown ones are left out."""
    if "existing_habits" not in dataset.users:
        return np.zeros(0, dtype=np.int64)
    named = dataset.users["existing_habits"].reset_index(drop=True).explode().dropna()
    place = keys.habits.get_indexer(named)
    if (place < 0).any():
        names = {
            normalise_name(name): number
            for column in ("name_ru", "name_en")
            if column in dataset.habits
            for number, name in enumerate(dataset.habits[column])
            if isinstance(name, str)
        }
        place = np.where(place < 0, [names.get(normalise_name(str(name)), -1) for name in named], place)
    user = named.index.to_numpy()[place >= 0]
    return _union(user * len(keys.habits) + place[place >= 0])


def _answers(dataset: Dataset, until: Day | None, keys: _Keys) -> list[npt.NDArray[np.int64]]:
    """Pairs that were rejected, looked at without an answer, and accepted, before `until`."""
    shown = dataset.recommendations
    answers = (Response.REJECTED, Response.VIEWED, Response.ACCEPTED)
    if shown.empty or "response" not in shown:
        return [np.zeros(0, dtype=np.int64) for _ in answers]
    day = days_of(dataset, "recommendations", "responded_at")
    day = np.where(np.isnat(day), days_of(dataset, "recommendations", "shown_at"), day)
    shown = shown[before(day, until)]
    return [_union(keys.of(shown[shown["response"].eq(a).fillna(False).to_numpy(dtype=bool)])) for a in answers]
