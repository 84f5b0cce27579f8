"""What people of like demography adopt: a start for those about whom nothing else is known.

Used only among those whose consent to `similar users` is on record: nobody else is compared with others, and nobody
else's habits count. Two people are alike by a Gaussian kernel of their ages (6 years) and of the logarithms of their
minutes a day (0.6), times 0.22 where their genders differ (all declared, none tuned); an unknown answer counts as one
and a half (age) or one (minutes) standard deviation away. The rate of a habit among neighbours is shrunk to that among
all who consent by the weight of ten people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.models import Floats

_YEARS, _MINUTES, _GENDER = 6.0, 0.6, 1.5
_UNKNOWN_YEARS, _UNKNOWN_MINUTES = 1.5, 1.0
_PEOPLE = 10.0
_BLOCK = 1024
_GENDERLESS = "?"


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Habits of consenting people by cell: people of the same (rounded) age, minutes and gender.

    `years`, `minutes` and `gender` (cells,) say who they are, `people` (cells,) how many, and `habits` (cells, habits)
    is the sum of their rows of the matrix. `of` (users,) is the cell of each user, -1 without consent, and `lifts`
    (cells, habits) what `lift` says of the people of a cell.
    """

    years: Floats
    minutes: Floats
    gender: npt.NDArray[np.str_]
    people: Floats
    habits: Floats
    of: npt.NDArray[np.int64]
    lifts: Floats

    @classmethod
    def fit(cls, users: pd.DataFrame, matrix: sparse.csr_array, consent: npt.NDArray[np.bool_]) -> Self:
        """Gather the rows of `matrix` (users, habits) of those who consent (users,) by cell."""
        code, first = _cells(users[consent])
        years, minutes, gender = describe(users[consent].iloc[first])
        of = np.full(len(users), -1)
        of[consent] = code
        member = sparse.csr_array((np.ones(len(code)), (code, np.flatnonzero(consent))), shape=(len(first), len(users)))
        people, habits = np.bincount(code, minlength=len(first)).astype(float), (member @ matrix).toarray()
        alone = cls(years, minutes, gender, people, habits, of, np.zeros_like(habits))
        return replace(alone, lifts=alone._lift(years, minutes, gender))

    def of_users(self, rows: npt.NDArray[np.intp]) -> Floats:
        """`lift` of those users it was fitted on (n, habits), by their numbers."""
        cell = self.of[rows]
        return np.where((cell >= 0)[:, None], self.lifts[cell], 0.0)

    def lift(self, users: pd.DataFrame, consent: npt.NDArray[np.bool_]) -> Floats:
        """Log of how much likelier neighbours are to have each habit than all who consent (users, habits).

        0 for those who do not consent (users,), and wherever there is nobody to compare with.
        """
        result = np.zeros((len(users), self.habits.shape[1]))
        if consent.any():
            code, first = _cells(users[consent])
            result[consent] = self._lift(*describe(users[consent].iloc[first]))[code]
        return result

    def _lift(self, years: Floats, minutes: Floats, gender: npt.NDArray[np.str_]) -> Floats:
        everyone = (self.habits.sum(axis=0) + 1.0) / (self.people.sum() + 1.0)
        lifts = np.empty((len(years), self.habits.shape[1]))
        for begin in range(0, len(years), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            near = np.exp(
                -(_gap(years[some], self.years, _YEARS, _UNKNOWN_YEARS) ** 2) / 2
                - _gap(minutes[some], self.minutes, _MINUTES, _UNKNOWN_MINUTES) ** 2 / 2
                - _GENDER * (gender[some, None] != self.gender)
            )
            rate = near @ self.habits + _PEOPLE * everyone
            lifts[some] = np.log(rate / ((near @ self.people + _PEOPLE)[:, None] * everyone))
        return lifts


def _cells(users: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number of each user's cell (users,), and the first user of each cell."""
    code, _ = pd.factorize(pd.MultiIndex.from_arrays(describe(users)))
    return code, np.unique(code, return_index=True)[1]


def describe(users: pd.DataFrame) -> tuple[Floats, Floats, npt.NDArray[np.str_]]:
    """Age in pairs of years, logarithm of minutes a day in quarters, gender (users,); NaN and "?" where unknown."""
    unknown = np.full(len(users), np.nan)
    age, minutes = (
        users[column].to_numpy(dtype=float, na_value=np.nan) if column in users else unknown
        for column in ("age", "time_commitment")
    )
    gender = users["gender"].astype(object).fillna(_GENDERLESS) if "gender" in users else [_GENDERLESS] * len(users)
    with np.errstate(invalid="ignore"):
        coarse = np.round(4 * np.log1p(np.maximum(minutes, 0))) / 4
    return 2 * np.floor(age / 2), np.where(np.isfinite(coarse), coarse, np.nan), np.asarray(gender, dtype=str)


def _gap(of: Floats, to: Floats, scale: float, unknown: float) -> Floats:
    gap = (of[:, None] - to) / scale
    return np.where(np.isnan(gap), unknown, gap)
