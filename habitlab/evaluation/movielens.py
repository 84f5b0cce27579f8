"""MovieLens as a dataset, so that models and metrics meet data on which other toolkits publish theirs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from habitlab.dataset import Dataset, DatasetError


def load_movielens(folder: str | Path, at_least: float = 4.0) -> Dataset:
    """Read `ratings.csv` and `movies.csv` of a MovieLens release (Harper and Konstan 2015, doi:10.1145/2827872).

    A movie stands for a habit (`genres` is a list), a rating of `at_least` or more for its adoption (`rating` is kept
    beside); lower ratings are left out. A user registers with the first rating. Names of columns may be in any case.

    Raises
    ------
    FileNotFoundError
        One of the two files is not in the folder.
    DatasetError
        A file lacks a column.
    """
    ratings = _read(Path(folder) / "ratings.csv", "userid", "movieid", "rating", "timestamp")
    movies = _read(Path(folder) / "movies.csv", "movieid", "title", "genres")
    at = pd.to_datetime(ratings["timestamp"], unit="s", utc=True)
    user = "u" + ratings["userid"].astype(str)
    liked = (ratings["rating"] >= at_least).to_numpy()
    adoptions = pd.DataFrame(
        {
            "user_id": user,
            "habit_id": "m" + ratings["movieid"].astype(str),
            "adopted_at": at,
            "source": "imported",
            "rating": ratings["rating"],
        }
    )
    genres = movies["genres"].str.split("|").where(movies["genres"] != "(no genres listed)")
    return Dataset(
        users=at.groupby(user, sort=False).min().rename("registered_at").rename_axis("user_id").reset_index(),
        habits=pd.DataFrame(
            {"habit_id": "m" + movies["movieid"].astype(str), "name_en": movies["title"], "genres": genres}
        ),
        adoptions=adoptions[liked],
        metadata={"source": f"MovieLens, ratings of {at_least:g} or more", "simulated": False},
    )


def _read(path: Path, *columns: str) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}; unpack a MovieLens release there")
    frame = pd.read_csv(path).rename(columns=str.casefold)
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise DatasetError(f"{path}: lacks {', '.join(absent)}; it has {', '.join(frame.columns)}")
    return frame
