"""Lists as they were drawn, in arrays: what is on them and why, before anybody puts it into objects and words.

A batch makes lists by the million, and most of them nobody reads: they are kept as bytes, and told when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from habitlab.recommender.choice import Choice
from habitlab.recommender.context import REASONS

Floats = npt.NDArray[np.float64]
Records = npt.NDArray[np.void]


@lru_cache(maxsize=64)
def record(k: int, parts: int) -> np.dtype[np.void]:
    """Return the form of a list of at most k habits whose scores have so many parts."""
    return np.dtype(
        [
            ("habits", "<i4", (k,)),  # in rank order, -1 behind the end
            ("propensity", "<f8", (k,)),
            ("score", "<f8", (k,)),
            ("chance", "<f8", (k,)),  # to keep it up; NaN where the data cannot tell
            ("parts", "<f8", (k, parts)),
            ("weekday", "<i1", (k,)),  # on which it is best begun, 0 Monday
            ("starts", "<i4", (k,)),  # its day since 1970-01-01, `context.NO_DAY` where the moment is not known
            ("average", "<f8", (parts,)),  # parts of an average habit for this person
            ("taken", "<i4", (len(REASONS),)),  # habits that each filter took away
            ("eligible", "<i4"),  # habits that were left
            ("spread", "<f8"),  # of their scores
            ("by_lot", "?"),  # the last one
            ("ageless", "?"),
            ("acted", "?"),  # on any habit, ever
            ("compared", "?"),  # with similar people
        ]
    )


def fill(records: Records, chosen: Choice, score: Floats, chance: Floats, parts: Sequence[Floats]) -> None:
    """Write the lists of people at one moment (people,) into their records; `score`, ... are (people, habits)."""
    width = records["habits"].shape[-1]  # at most all habits, however many were asked for
    habits = chosen.habits[:, :width]
    place = np.maximum(habits, 0)  # what is said of a place without a habit is nothing
    over = chosen.over[place].astype(np.int64)
    records["habits"], records["propensity"] = habits, chosen.propensity[:, :width]
    for name, values in (("score", score), ("chance", chance)):
        records[name] = np.take_along_axis(values, place, axis=1)
    for number, part in enumerate(parts):
        records["parts"][:, :, number] = np.take_along_axis(part, place, axis=1)
    records["weekday"] = np.take_along_axis(chosen.weekday, over, axis=1)
    records["starts"] = np.take_along_axis(chosen.starts, over, axis=1)
    records["taken"], records["eligible"], records["spread"] = chosen.taken, chosen.eligible, chosen.spread
    records["by_lot"] = chosen.by_lot


@dataclass(frozen=True, eq=False)
class Drawn:
    """Lists of some people for some moments."""

    user_ids: Sequence[str]
    zones: Sequence[str]  # "" where unknown
    people: Sequence[bytes]  # JSON of what reasons may speak of: `people.SHARED`
    moments: Sequence[datetime | None]
    k: int  # habits that were asked for
    records: Records  # (people, moments)

    def lists(self) -> list[list[dict[str, Any]]]:
        """Return the fields of each `record`, by their names."""
        names = self.records.dtype.names or ()
        columns = [self.records[name].tolist() for name in names]
        return [
            [dict(zip(names, values, strict=True)) for values in zip(*of_one, strict=True)]
            for of_one in zip(*columns, strict=True)
        ]

    def pack(self) -> Iterator[list[bytes]]:
        """Yield, for each person, a list of each moment as bytes."""
        size, width, everything = self.records.itemsize, len(self.moments), self.records.tobytes()
        for row, person in enumerate(self.people):
            begins = range(row * width * size, (row + 1) * width * size, size)
            yield [_summed(everything[begin : begin + size] + person) for begin in begins]

    @classmethod
    def unpack(cls, packed: bytes, form: np.dtype[np.void], k: int, at: datetime | None) -> Drawn:
        """Read one list that `pack` wrote, of this `record` form; whose it is, is not in it. ValueError for others."""
        told = packed[_SUM:]
        if len(told) <= form.itemsize or _summed(told) != packed:
            raise ValueError("this is no list, or a damaged one")
        record = np.frombuffer(told, dtype=form, count=1).reshape(1, 1)
        return cls([""], [""], [told[form.itemsize :]], [at], k, record)


_SUM = 4  # bytes of a checksum


def _summed(told: bytes) -> bytes:
    return crc32(told).to_bytes(_SUM, "little") + told
