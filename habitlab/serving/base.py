"""What the data say of each person, in a form to which the service can add what happens: the base of its features."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from habitlab.dataset.vocabulary import Purpose, Response
from habitlab.features.rates import RatePrior
from habitlab.models.interactions import refused
from habitlab.serving import state
from habitlab.serving.history import NONE, STATUSES, Base, Priors, features, fold

if TYPE_CHECKING:
    from habitlab.dataset import Dataset


def prepare(connection: sqlite3.Connection, data: str | Path, now: datetime) -> None:
    """Read the data into the service's database where they are not there yet, or have changed.

    Raises as `Dataset.load` does, and sqlite3.Error.
    """
    prepare_with(connection, identity(data), lambda: load(data), now)


def load(data: str | Path) -> Dataset:
    """Read a dataset, or make the sample."""
    from habitlab import open_dataset

    return open_dataset("sample" if str(data) == "sample" else data, everybody=True)


def identity(data: str | Path) -> str:
    """Return what changes as soon as the data change."""
    if str(data) == "sample":
        return "sample"
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}; `habitlab simulate` or `habitlab import` makes one")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return repr([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])


def prepare_with(connection: sqlite3.Connection, identity: str, dataset: Callable[[], Dataset], now: datetime) -> None:
    """Like `prepare`, for data that are told by `identity` and read by `dataset`."""
    if state.meta(connection, "data") == identity:
        return
    from habitlab.serving.events import of_user

    read = dataset()
    bases, priors = bases_of(read), priors_of(read)
    with state.transaction(connection):
        if state.meta(connection, "data") == identity:  # another process was faster
            return
        known = {user for (user,) in connection.execute("SELECT DISTINCT user_id FROM events")}
        versions = dict(connection.execute("SELECT user_id, version FROM profiles").fetchall())
        connection.execute("DELETE FROM features WHERE base IS NOT NULL")
        for user, base in bases.items():
            events = of_user(connection, user) if user in known else []
            body = features(fold(base, events), priors)
            connection.execute(
                "INSERT OR REPLACE INTO features (user_id, profile_version, base, body) VALUES (?, ?, ?, ?)",
                (user, versions.get(user, 0), base.to_json(), json.dumps(body)),
            )
        state.set_meta(connection, "priors", json.dumps(priors))
        state.set_meta(connection, "opted_out", json.dumps(sorted(refused(read, Purpose.PERSONALISATION))))
        state.next_generation(connection)
        state.set_meta(connection, "data", identity)


def bases_of(dataset: Dataset) -> dict[str, Base]:
    """Return the base of every user of a dataset."""
    users = dataset.users
    ids = users["user_id"].tolist()
    zones = _column(users, "zone", "")
    starts = _column(users, "day_start", 0)
    tracking, adoptions = _tracking(dataset), _adoptions(dataset)
    said = {word: _count(dataset.recommendations, word) for word in (Response.ACCEPTED, Response.REJECTED)}
    ratings = dataset.feedback.groupby("user_id", observed=True).size().to_dict()
    return {
        user: Base(
            zone=zone,
            day_start=int(start),
            tracking=tracking.get(user, {}),
            adoptions=adoptions.get(user, []),
            accepted=int(said[Response.ACCEPTED].get(user, 0)),
            rejected=int(said[Response.REJECTED].get(user, 0)),
            ratings=int(ratings.get(user, 0)),
        )
        for user, zone, start in zip(ids, zones, starts, strict=True)
    }


def priors_of(dataset: Dataset) -> Priors:
    """Return the Beta distributions of completion over people, and over pairs of a person and a habit."""
    frame = dataset.habit_tracking
    found: Priors = {}
    for name, by in (("user", ["user_id"]), ("habit", ["user_id", "habit_id"])):
        if frame.empty:
            prior = RatePrior()
        else:
            done = frame["status"].eq("done").to_numpy(dtype=float)
            counted = frame["status"].isin(["done", "missed"]).to_numpy(dtype=float)
            sums = frame[by].assign(done=done, counted=counted).groupby(by, observed=True).sum()
            prior = RatePrior.fit(sums["done"].to_numpy(), sums["counted"].to_numpy())
        found[name] = [prior.alpha, prior.beta]
    return found


def _column(frame: pd.DataFrame, name: str, missing: Any) -> list[Any]:
    if name not in frame:
        return [missing] * len(frame)
    values = frame[name].astype(object)
    return values.where(values.notna(), missing).tolist()


def _count(recommendations: pd.DataFrame, word: Response) -> dict[str, int]:
    if "response" not in recommendations:
        return {}
    said = recommendations["response"].eq(word).fillna(False).to_numpy(dtype=bool)
    return recommendations[said].groupby("user_id", observed=True).size().to_dict()


def _tracking(dataset: Dataset) -> dict[str, dict[str, tuple[int, str]]]:
    """Statuses of each user and habit by day, a letter a day from the first day on."""
    frame = dataset.habit_tracking
    found: dict[str, dict[str, tuple[int, str]]] = {}
    if frame.empty:
        return found
    frame = frame.sort_values(["user_id", "habit_id", "date"], kind="stable")
    day = frame["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    letter = frame["status"].astype("str").map(STATUSES).to_numpy(dtype="S1")
    users, habits = frame["user_id"].to_numpy(dtype=object), frame["habit_id"].to_numpy(dtype=object)
    first = np.flatnonzero(np.append(True, (users[1:] != users[:-1]) | (habits[1:] != habits[:-1])))
    for begin, end in zip(first.tolist(), [*first[1:].tolist(), len(frame)], strict=True):
        days = day[begin:end] - day[begin]
        letters = np.full(int(days[-1]) + 1, NONE.encode(), dtype="S1")
        letters[days] = letter[begin:end]
        found.setdefault(users[begin], {})[habits[begin]] = int(day[begin]), letters.tobytes().decode()
    return found


def _adoptions(dataset: Dataset) -> dict[str, list[tuple[str, str, str | None]]]:
    frame = dataset.adoptions
    found: dict[str, list[tuple[str, str, str | None]]] = {}
    if frame.empty:
        return found
    ended = frame["abandoned_at"] if "abandoned_at" in frame else pd.Series(pd.NaT, index=frame.index)
    for user, habit, start, end in zip(frame["user_id"], frame["habit_id"], frame["adopted_at"], ended, strict=True):
        if not pd.isna(start):
            stop = None if pd.isna(end) else state.stamp(end.to_pydatetime())
            found.setdefault(user, []).append((habit, state.stamp(start.to_pydatetime()), stop))
    return found
