"""What people of like demography adopt: a start for those about whom nothing else is known.

Used only among those whose consent to `similar users` is on record: nobody else is compared with others, and nobody
else's habits count. Two people are alike by a Gaussian kernel of their ages (6 years) and of the logarithms of their
minutes a day (0.6), times 0.22 where their genders differ (all declared, none tuned); an unknown answer counts as one
and a half (age) or one (minutes) standard deviation away. The rate of a habit among neighbours is shrunk to that among
all who consent by the weight of ten people.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    is the sum of their rows of the matrix.
    """

    years: Floats
    minutes: Floats
    gender: npt.NDArray[np.str_]
    people: Floats
    habits: Floats

    @classmethod
    def fit(cls, users: pd.DataFrame, matrix: sparse.csr_array, consent: npt.NDArray[np.bool_]) -> Self:
        """Gather the rows of `matrix` (users, habits) of those who consent (users,) by cell."""
        years, minutes, gender = describe(users)
        cells = pd.MultiIndex.from_arrays([years[consent], minutes[consent], gender[consent]])
        code, kinds = pd.factorize(cells)
        people = np.flatnonzero(consent)
        member = sparse.csr_array((np.ones(len(code)), (code, people)), shape=(len(kinds), len(users)))
        first = people[np.unique(code, return_index=True)[1]]
        return cls(
            years=years[first],
            minutes=minutes[first],
            gender=gender[first],
            people=np.bincount(code, minlength=len(kinds)).astype(float),
            habits=(member @ matrix).toarray(),
        )

    def lift(self, users: pd.DataFrame, consent: npt.NDArray[np.bool_]) -> Floats:
        """Log of how much likelier neighbours are to have each habit than all who consent (users, habits).

        0 for those who do not consent (users,), and wherever there is nobody to compare with.
        """
        result = np.zeros((len(users), self.habits.shape[1]))
        if not self.people.size or not consent.any():
            return result
        everyone = (self.habits.sum(axis=0) + 1.0) / (self.people.sum() + 1.0)
        years, minutes, gender = describe(users[consent])
        code, kinds = pd.factorize(pd.MultiIndex.from_arrays([years, minutes, gender]))
        first = np.unique(code, return_index=True)[1]
        lifts = np.empty((len(kinds), self.habits.shape[1]))
        for begin in range(0, len(kinds), _BLOCK):
            some = first[begin : begin + _BLOCK]
            near = np.exp(
                -(_gap(years[some], self.years, _YEARS, _UNKNOWN_YEARS) ** 2) / 2
                - _gap(minutes[some], self.minutes, _MINUTES, _UNKNOWN_MINUTES) ** 2 / 2
                - _GENDER * (gender[some, None] != self.gender)
            )
            rate = near @ self.habits + _PEOPLE * everyone
            lifts[begin : begin + _BLOCK] = np.log(rate / ((near @ self.people + _PEOPLE)[:, None] * everyone))
        result[consent] = lifts[code]
        return result


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
