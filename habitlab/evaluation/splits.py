"""Protocols of offline evaluation: what a model may learn from, and what it is held against.

A global temporal split is the default: what lies before a day is known, what comes from that day on is the truth. It is
the only one of the three in which nobody's future is learnt from (Meng et al. 2020, doi:10.1145/3383313.3418479).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.dataset import Dataset
from habitlab.features.days import Day, until_day
from habitlab.models.interactions import Interactions, days_of

Ids = npt.NDArray[np.object_]

WHEN = {
    "habit_tracking": "date",
    "adoptions": "adopted_at",
    "modifications": "at",
    "recommendations": "shown_at",
    "sessions": "started_at",
    "feedback": "at",
    "surveys": "sent_at",
    "experiments": "assigned_at",
    "consents": "at",
    "model_runs": "trained_at",
}
"""Column that says when a row came to be known; a row without it cannot be shown to be of the past, and goes."""

OPEN_ENDED = {
    "habit_tracking": ("at", ("at",)),
    "adoptions": ("abandoned_at", ("abandoned_at",)),
    "recommendations": ("responded_at", ("responded_at", "response")),
    "surveys": ("answered_at", ("answered_at", "answer")),
    "experiments": ("exposed_at", ("exposed_at",)),
}
"""What is filled in after the row itself: column that says when, and the columns that are not known before."""


@dataclass(frozen=True, eq=False)
class Split:
    """What to learn from and what to be held against.

    `train` holds only what is known; its profiles are those of all users. `relevant` (users, habits) float64 CSR: 1 for
    each habit that the user adopted later and never had before. `seen` (users, habits) bool CSR: what the user ever had
    before, which no list offers again. Rows are `user_ids`, columns `habit_ids` (all those of the dataset, in its
    order); `until` is the day from which on nothing is known, None where that differs between users.
    """

    train: Dataset
    relevant: sparse.csr_array
    seen: sparse.csr_array
    user_ids: Ids
    habit_ids: Ids
    until: pd.Timestamp | None


def temporal(dataset: Dataset, until: Day) -> Split:
    """Global temporal split at the local day `until`: train before it, truth from it on.

    The users are those registered before `until` (where registrations are not known: those with an event before it).
    Their relevant habits are those adopted on `until` or later and not tracked, adopted or named as existing before.

    Raises
    ------
    ValueError
        `until` is not a day, or nobody registered before it.
    """
    day = _moment(until)
    train = before(dataset, day)
    past = Interactions.read(train, day)
    known = _registered(dataset, train, day)
    if not known.any():
        raise ValueError(f"nobody registered before {day:%Y-%m-%d}; choose a later day")
    later = _days(dataset, "adoptions", "adopted_at") >= day.to_datetime64()
    adopted = _pairs(dataset.adoptions[later], past)
    relevant = (adopted - adopted.multiply(past.ever)).tocsr()
    relevant.eliminate_zeros()
    return Split(train, relevant[known], past.ever[known], past.user_ids[known], past.habit_ids, day)


def before(dataset: Dataset, until: Day) -> Dataset:
    """What was known when the local day `until` began: later rows are gone, and so is what was filled in later.

    Users and habits stay. Days are each user's own (`zone`, `day_start`); see `WHEN` and `OPEN_ENDED`.
    """
    day = _moment(until).to_datetime64()
    tables = {}
    for name, when in WHEN.items():
        frame = dataset.table(name)
        kept = _days(dataset, name, when) < day
        frame = frame[kept]
        if name in OPEN_ENDED:
            column, hidden = OPEN_ENDED[name]
            if column in frame.columns:
                unknown = _days(dataset, name, column)[kept] >= day
                for field in (field for field in hidden if field in frame.columns):
                    frame = frame.assign(**{field: frame[field].mask(unknown)})
        tables[name] = frame
    return dataset.replace(**tables)


def _moment(until: Day) -> pd.Timestamp:
    return pd.Timestamp(until_day(until, pd.DataFrame()), unit="D")


def _days(dataset: Dataset, table: str, column: str) -> npt.NDArray[np.datetime64]:
    """Local day of each row (rows,), NaT where unknown."""
    if table == "model_runs":  # belongs to no user: days of UTC
        return dataset.model_runs[column].dt.tz_localize(None).to_numpy().astype("datetime64[D]")
    if column == "date":
        return dataset.table(table)[column].to_numpy().astype("datetime64[D]")
    return days_of(dataset, table, column)


def _registered(dataset: Dataset, train: Dataset, day: pd.Timestamp) -> npt.NDArray[np.bool_]:
    users = dataset.users["user_id"]
    registered = _days(dataset, "users", "registered_at")
    active = users.isin(train.adoptions["user_id"]) | users.isin(train.habit_tracking["user_id"])
    return np.where(np.isnat(registered), active, registered < day.to_datetime64())


def _pairs(rows: pd.DataFrame, of: Interactions) -> sparse.csr_array:
    """CSR (users, habits) float64 with 1 for each pair in these rows."""
    user = pd.Index(of.user_ids).get_indexer(rows["user_id"])
    habit = pd.Index(of.habit_ids).get_indexer(rows["habit_id"])
    matrix = sparse.csr_array((np.ones(len(rows)), (user, habit)), shape=of.matrix.shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
