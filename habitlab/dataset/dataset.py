"""`Dataset`: the tables of one study, and the way to and from disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from habitlab.dataset import cache, parquet, sqlite
from habitlab.dataset.schema import TABLES, DatasetError, MissingColumn, check, coerce, empty_table

_LEFT_OUT: Any = None


@dataclass(frozen=True)
class Dataset:
    """Tables of one study, a DataFrame each, in the dtypes of `habitlab.dataset.schema`.

    A table that is not given is an empty frame with the right columns. `metadata` is a small JSON-able dictionary:
    where the data come from, and whether they are simulated.
    """

    users: pd.DataFrame = _LEFT_OUT
    habits: pd.DataFrame = _LEFT_OUT
    habit_tracking: pd.DataFrame = _LEFT_OUT
    adoptions: pd.DataFrame = _LEFT_OUT
    modifications: pd.DataFrame = _LEFT_OUT
    recommendations: pd.DataFrame = _LEFT_OUT
    sessions: pd.DataFrame = _LEFT_OUT
    feedback: pd.DataFrame = _LEFT_OUT
    surveys: pd.DataFrame = _LEFT_OUT
    experiments: pd.DataFrame = _LEFT_OUT
    consents: pd.DataFrame = _LEFT_OUT
    model_runs: pd.DataFrame = _LEFT_OUT
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring every table to the dtypes of the contract; the caller's frames stay as they were."""
        for name in TABLES:
            given = self.table(name)
            object.__setattr__(self, name, empty_table(name) if given is _LEFT_OUT else coerce(name, given))

    def table(self, name: str) -> pd.DataFrame:
        """Return one table by its name."""
        return getattr(self, name)

    def replace(self, **changes: Any) -> Dataset:
        """Return a copy with some tables, or the metadata, exchanged."""
        return dataclasses.replace(self, **changes)

    def without(self, users: Collection[str]) -> Dataset:
        """Return a copy without any row of these users."""
        tables = {name: self.table(name) for name, rules in TABLES.items() if "user_id" in rules.columns}
        return self.replace(
            **{name: frame[~frame["user_id"].isin(users).to_numpy(dtype=bool)] for name, frame in tables.items()}
        )

    def require(self, *needs: str) -> None:
        """Raise `MissingColumn` unless each of `needs`, like `"users.gender"` or `"sessions"`, holds a value."""
        for need in needs:
            name, _, column = need.partition(".")
            frame = self.table(name)
            if frame.empty:
                raise MissingColumn(f"needs table `{name}`; this dataset has none")
            if column and (column not in frame.columns or frame[column].isna().all()):
                raise MissingColumn(f"needs `{column}` in `{name}`; this dataset has none")

    @property
    def simulated(self) -> bool:
        """Whether these people were made by a program."""
        return bool(self.metadata.get("simulated", False))

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read a dataset from a SQLite file or a Parquet folder, and hold it against the contract.

        A large SQLite file is slow to read, so what has been read and found right is kept in the user's cache folder
        until the file changes.

        Raises
        ------
        FileNotFoundError
            Nothing is at `path`.
        DatasetError
            The file is not a HabitLab dataset, is of another schema version, or breaks the contract.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"no dataset at {path}; `habitlab simulate` or `habitlab import` makes one")
        if path.is_dir():
            dataset = cls(**parquet.read(path))
            check(dataset)
            return dataset
        place = cache.entry(path)
        kept = cache.find(place)
        if kept is not None:
            return cls(**kept)
        with cache.alone(place):
            kept = cache.find(place)  # another process may have read it meanwhile
            if kept is not None:
                return cls(**kept)
            dataset = cls(**sqlite.read(path))
            check(dataset)
            cache.keep(place, dataset)
        return dataset

    def save(self, path: str | Path) -> None:
        """Write to SQLite (`.db`, `.sqlite`, `.sqlite3`) or, for any other name, to a Parquet folder.

        What stood at `path` is replaced in one step when all is written: a crash leaves the old dataset.
        The same tables give the same bytes.
        """
        check(self)
        path = Path(path)
        if path.suffix in sqlite.SUFFIXES:
            if path.is_dir():
                raise DatasetError(f"{path} is a folder; a SQLite dataset needs a file name")
            sqlite.write(self, path)
        else:
            if path.is_file():
                raise DatasetError(
                    f"{path} is a file; name a folder for Parquet, or end the name in {' or '.join(sqlite.SUFFIXES)}"
                )
            parquet.write(self, path)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a saved dataset without reading its tables; empty where there are none.

    Raises
    ------
    FileNotFoundError
        Nothing is at `path`.
    DatasetError
        The file is no database, or the folder's `dataset.json` is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}")
    return parquet.read_metadata(path) if path.is_dir() else sqlite.read_metadata(path)
