"""What can be recommended: the habits of a dataset, with the built-in catalogue where the data are not simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from habitlab.recommender.guardrails import safe_from

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.dataset import Dataset

# pandas and the dataset are imported where they are used: serving a fitted recommender takes neither.

CATALOGUE_PREFIX = "catalogue-"
"""Stands before the id of a catalogue habit whose id a habit of the dataset already has."""

PARTS = ("morning", "afternoon", "evening")


def with_catalogue(dataset: Dataset) -> Dataset:
    """Return the dataset with the built-in catalogue among its habits; simulated data as they are.

    A habit of the dataset whose English or Russian name is that of a catalogue habit, as `normalise_name` compares, is
    that habit: it keeps its id, and its gaps are filled from the catalogue. Of several with one name the first counts.
    All other catalogue habits follow, under their ids, or prefixed with `catalogue-` where the dataset uses the id for
    something else. Prerequisites name the new ids. Doing it again changes nothing.
    """
    import pandas as pd

    from habitlab.dataset.catalogue import load_catalogue
    from habitlab.dataset.schema import TABLES

    if dataset.simulated:
        return dataset
    own, catalogue = dataset.habits, load_catalogue()
    match = _matches(own, catalogue)
    taken = set(own["habit_id"])
    ids = {
        habit: match.get(row, CATALOGUE_PREFIX + habit if habit in taken else habit)
        for row, habit in enumerate(catalogue["habit_id"])
    }
    catalogue = catalogue.assign(
        habit_id=catalogue["habit_id"].map(ids),
        prerequisites=[[ids[habit] for habit in needed] for needed in catalogue["prerequisites"]],
    )
    columns = [*own.columns, *(column for column in TABLES["habits"].columns if column not in own.columns)]
    own = own.reindex(columns=columns).astype(object)
    known = catalogue.set_index("habit_id").reindex(own["habit_id"]).reset_index()
    for column in TABLES["habits"].columns:
        gaps = own[column].isna().to_numpy() & own["habit_id"].isin(set(match.values())).to_numpy()
        own[column] = np.where(gaps, known[column].astype(object), own[column])
    added = catalogue[~catalogue["habit_id"].isin(taken)].astype(object)
    habits = pd.concat([own, added.reindex(columns=columns)], ignore_index=True)
    return dataset.replace(habits=habits.where(habits.notna(), None))


def _matches(own: pd.DataFrame, catalogue: pd.DataFrame) -> dict[int, str]:
    """Row of the catalogue -> id of the dataset's habit with the same name."""
    from habitlab.dataset.catalogue import normalise_name

    rows = {
        normalise_name(name): row
        for column in ("name_ru", "name_en")
        for row, name in enumerate(catalogue[column])
        if isinstance(name, str)
    }
    found: dict[int, str] = {}
    for column in ("name_en", "name_ru"):
        if column in own:
            for habit, name in zip(own["habit_id"], own[column], strict=True):
                row = rows.get(normalise_name(name)) if isinstance(name, str) else None
                if row is not None and habit not in found.values():
                    found.setdefault(row, habit)
    return found


@dataclass(frozen=True, eq=False)
class Candidates:
    """Habits as arrays (habits,), in the order of the dataset's rows; what is not known is NaN, -1 or empty."""

    ids: npt.NDArray[np.str_]
    name_en: npt.NDArray[np.str_]
    name_ru: npt.NDArray[np.str_]
    category: npt.NDArray[np.int16]  # position in `Category`
    activities: npt.NDArray[np.bool_]  # (habits, 5)
    minutes: npt.NDArray[np.float64]
    part: npt.NDArray[np.int8]  # position in `PARTS`; -1 any or unknown
    min_age: npt.NDArray[np.float64]
    max_age: npt.NDArray[np.float64]
    bodily: npt.NDArray[np.bool_]  # age limits are limits of safety
    safe_from: npt.NDArray[np.int64]  # of the guardrails
    requires: npt.NDArray[np.bool_]  # (habits, habits): row builds on column

    @classmethod
    def of(cls, habits: pd.DataFrame) -> Candidates:
        """Read the table `habits`; all its columns but `habit_id` may be absent."""
        import pandas as pd

        from habitlab.dataset.schema import TABLES
        from habitlab.dataset.vocabulary import Activity, Category

        table = habits.reindex(columns=list(TABLES["habits"].columns)).reset_index(drop=True)
        category = pd.Categorical(table["category"], categories=[c.value for c in Category])
        part = table["time_of_day"].astype(object).map({name: number for number, name in enumerate(PARTS)}).fillna(-1)
        bodily = table["category"].astype(object).isin([Category.PHYSICAL, Category.HEALTH, Category.DIET])
        activities = ticks(table["activity_type"], [a.value for a in Activity])
        return cls(
            ids=table["habit_id"].to_numpy(dtype=np.str_),
            name_en=_texts(table["name_en"]),
            name_ru=_texts(table["name_ru"]),
            category=category.codes.astype(np.int16),
            activities=activities,
            minutes=table["minutes"].to_numpy(dtype=np.float64, na_value=np.nan),
            part=part.to_numpy(dtype=np.int8),
            min_age=table["min_age"].to_numpy(dtype=np.float64, na_value=np.nan),
            max_age=table["max_age"].to_numpy(dtype=np.float64, na_value=np.nan),
            # A habit of which nobody says what it is may be bodily.
            bodily=bodily.to_numpy() | activities[:, 0] | (category.codes < 0),
            safe_from=safe_from(habits),
            requires=ticks(table["prerequisites"], table["habit_id"].tolist()),
        )

    def __len__(self) -> int:
        """Number of habits."""
        return len(self.ids)

    def name(self, habit: int, language: str) -> str:
        """Name of a habit in a language (`ru`, else English), or in the other one, or its id."""
        names = (self.name_ru, self.name_en) if language == "ru" else (self.name_en, self.name_ru)
        return str(names[0][habit] or names[1][habit] or self.ids[habit])


def ticks(lists: pd.Series, words: list[str]) -> npt.NDArray[np.bool_]:
    """Which of the words stand in each list (rows, words); a missing list has none."""
    import pandas as pd

    ticked = np.zeros((len(lists), len(words)), dtype=bool)
    named = lists.reset_index(drop=True).explode()
    column = pd.Index(words, dtype=object).get_indexer(pd.Index(named, dtype=object))
    known = column >= 0
    ticked[named.index[known], column[known]] = True
    return ticked


def _texts(values: pd.Series) -> npt.NDArray[np.str_]:
    return values.astype(object).where(values.notna(), "").to_numpy(dtype=np.str_)
