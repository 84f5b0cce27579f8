"""What a person can ask for: everything that is known of them, and to be forgotten.

`forget` reaches the dataset and its truth, the service's database (events, profile, features, lists, exposures), Redis,
caches of datasets and fitted recommenders, and every registered model that learnt from the person: the live one is
fitted anew without them and put live, the others are withdrawn, so that nothing can be rolled back to them. Then every
file is searched for the id. It can be killed at any point and be called again: each step is complete or not begun, and
what is done stays done.

A running server knows nobody whom its database does not know, drops what it kept within a second, and takes the
refitted model. What it was about to write of the person may come after: the search says so, and the same call removes
it.

Not reached: copies that somebody made elsewhere (backups, published reports), and blocks of replaced files that the
disk has not overwritten yet. What is left is a salted hash (`habitlab.serving.forgotten`), so that the person is not
taken for somebody new.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from habitlab.dataset import Dataset, parquet
from habitlab.dataset.cache import alone
from habitlab.dataset.erasure import erase, habits_in_use
from habitlab.dataset.schema import TABLES
from habitlab.dataset.sqlite import replacing
from habitlab.places import cache_folder
from habitlab.privacy import traces
from habitlab.serving import forgotten, live, state
from habitlab.serving.answers import word
from habitlab.serving.learning import registry
from habitlab.serving.lists import Key
from habitlab.simulation import truth_path

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Forgotten:
    """What came of it: `removed` (where, what), `searched` files, and `left`: files that still hold the id (none)."""

    removed: tuple[tuple[str, str], ...]
    searched: int
    left: dict[Path, str]


def export(user_id: str, data: str | Path, folder: str | Path | None = None) -> dict[str, Any]:
    """Return everything that is known of a person, JSON-able.

    `dataset`: their rows of every table; `truth`: what the simulated world knows of them; `service`: their rows of
    every table of the service in `folder` (by default beside the data), finished lists in English, and without a body
    where the model that made them is gone; `models`: registered models that learnt from them.

    Raises
    ------
    ValueError
        Nobody has this id; the nearest are named.
    FileNotFoundError
        There is no dataset.
    """
    place = state.folder(data, folder)
    dataset = Dataset.load(data)
    service = _service_rows(place, user_id)
    if not _in_dataset(dataset, user_id) and not any(service.values()):
        raise _unknown(user_id, dataset, place)
    _tell_lists(service.get("lists", []), data, place)
    truth = truth_path(data)
    known = pd.read_parquet(truth, filters=[("user_id", "==", user_id)]) if truth.exists() else pd.DataFrame()
    return {
        "user_id": user_id,
        "dataset": {name: _records(_rows_of(dataset.table(name), user_id)) for name in TABLES if _personal(name)},
        "truth": _records(known),
        "service": service,
        "models": [version.name for version in registry.versions(place) if traces.find([version.path], user_id)],
    }


def forget(
    user_id: str,
    data: str | Path,
    folder: str | Path | None = None,
    *,
    redis: str | None = None,
    now: datetime | None = None,
    tell: Tell = lambda text: None,
) -> Forgotten:
    """Remove a person from everything, prove it, and say what was removed.

    Parameters
    ----------
    data, folder
        The dataset, and the folder of its service (by default beside it).
    redis
        URL of the Redis that the service uses; by default the one it was last started with, without a password.
    now
        Time of the request, for lineage and the mark that is left.
    tell
        Is called with a line for each step.

    Raises
    ------
    ValueError
        Nobody has this id, and nobody with it was being forgotten; the nearest are named.
    OSError, sqlite3.Error
        Something cannot be written, or Redis does not answer; called again, it goes on from there.
    """
    place, moment = state.folder(data, folder), now or datetime.now(UTC)
    if not Path(data).exists():
        raise FileNotFoundError(f"no dataset at {data}")
    removed: list[tuple[str, str]] = []

    def say(where: str, what: str) -> None:
        removed.append((where, what))
        tell(f"{where}: {what}")

    with alone(Path(data)):  # an import at the same time could bring rows back
        status = forgotten.status(place, user_id)
        dataset = Dataset.load(data)
        if status is None:
            if not _in_dataset(dataset, user_id) and not any(_service_rows(place, user_id).values()):
                raise _unknown(user_id, dataset, place)
            forgotten.mark(place, user_id, forgotten.BEGUN, moment)
            tell("begun: whatever happens now, the same call goes on from there")
        # The data first: a service that starts meanwhile would read them again.
        dataset = _from_dataset(Path(data), dataset, user_id, say)
        _from_truth(Path(data), user_id, say)
        silent = _from_service(place, user_id, redis, say)
        _from_models(place, dataset, user_id, moment, say)
        _from_logs(place, user_id, say)
        _from_caches(user_id, say)
        _from_leftovers(Path(data), user_id, say)
        places = [*_beside(Path(data)), place, *_caches()]
        left = traces.find(places, user_id)
        searched = sum(1 for _ in traces.files_below(places))
        if silent:
            raise OSError(silent)
        if not left:
            forgotten.mark(place, user_id, forgotten.DONE, moment)
    return Forgotten(tuple(removed), searched, left)


def leave_out(dataset: Dataset, before: Dataset | None, data: str | Path) -> tuple[Dataset, int]:
    """Return an import into `data` without people who asked to be forgotten there, and how many these are.

    Only who was not `before` in the dataset is looked at. Habits go that came with them alone.
    """
    place = state.folder(data)
    if not (place / forgotten.FILE).exists():
        return dataset, 0
    old = set() if before is None else set(before.users["user_id"])
    new = sorted(set(dataset.users["user_id"]) - old)
    gone = [user for user in new if forgotten.status(place, user) is not None]
    if not gone:
        return dataset, 0
    if before is not None and gone == new:
        return before, len(gone)
    left = dataset.without(gone)
    stay = habits_in_use(left) | (set() if before is None else set(before.habits["habit_id"]))
    return left.replace(habits=dataset.habits[dataset.habits["habit_id"].isin(stay).to_numpy(dtype=bool)]), len(gone)


def _from_service(place: Path, user_id: str, redis: str | None, say: Callable[[str, str], None]) -> str:
    """Delete from the database of the service and from its Redis; what is wrong with the latter, empty if nothing."""
    if not (place / state.DATABASE).exists():
        return ""
    with closing(state.connect(place, wait=30.0)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        instance, redis = state.instance(connection), redis or state.meta(connection, "redis")
        with state.transaction(connection):
            for table in _personal_tables(connection):
                count = connection.execute(f'DELETE FROM "{table}" WHERE user_id = ?', (user_id,)).rowcount
                if count:
                    say(f"service, {table}", f"{count} rows")
            names = json.loads(state.meta(connection, "opted_out") or "[]")
            if user_id in names:
                state.set_meta(connection, "opted_out", json.dumps([name for name in names if name != user_id]))
                say("service, meta", "one of the names in opted_out")
            state.next_generation(connection)
        # What was deleted may still stand in free pages and in the log of writes.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if redis:
        from habitlab.serving.store import RedisStore, StoreError, without_password

        try:
            count = RedisStore(redis, space=instance, timeout=5.0).forget(user_id)
        except StoreError as error:
            return (
                f"the service uses Redis at {without_password(redis)}, which may hold lists of them for hours: {error};"
                " call again when it answers, with --redis URL if it is elsewhere or wants a password"
            )
        say("redis", f"{count} values")
    return ""


def _from_dataset(data: Path, dataset: Dataset, user_id: str, say: Callable[[str, str], None]) -> Dataset:
    left = erase(dataset, [user_id])
    rows = {name: len(dataset.table(name)) - len(left.table(name)) for name in TABLES}
    if not any(rows.values()) and left.metadata == dataset.metadata:
        return dataset
    left.save(data)
    if left.metadata != dataset.metadata:
        say("dataset, metadata", "the id in reports of imports")
    for name, count in rows.items():
        if count:
            say(f"dataset, {name}", f"{count} rows")
    return left


def _from_truth(data: Path, user_id: str, say: Callable[[str, str], None]) -> None:
    place = truth_path(data)
    if not place.exists() or not traces.inside(place, user_id):
        return
    truth = pd.read_parquet(place)
    kept = truth[(truth["user_id"] != user_id).to_numpy(dtype=bool)].reset_index(drop=True)
    if isinstance(kept["user_id"].dtype, pd.CategoricalDtype):
        kept = kept.assign(user_id=kept["user_id"].cat.remove_unused_categories())
    kept.attrs = truth.attrs
    with replacing(place) as temporary:
        kept.to_parquet(temporary, engine="pyarrow", index=False, compression="zstd")
    say("truth", f"{len(truth) - len(kept)} rows")


def _from_models(
    place: Path, dataset: Dataset, user_id: str, now: datetime, say: Callable[[str, str], None]
) -> None:  # fmt: skip
    """Fit the live model anew without the person, and withdraw every version that learnt from them.

    Also versions of which only a part can be read: better none than one that knows somebody who is to be forgotten.
    """
    registry.clear(place)
    learnt = [version for version in registry.versions(place) if traces.find([version.path], user_id)]
    if not learnt:
        return
    live = registry.current(place)
    for version in learnt:
        if version.name == live:
            fresh = _fit_anew(place, dataset, version, now)
            registry.promote(place, fresh)
            say(f"model {version.name}", f"fitted anew without them as {fresh}, which is live")
        registry.remove(place, version.name)
        say(f"model {version.name}", "withdrawn")


def _fit_anew(place: Path, dataset: Dataset, version: registry.Version, now: datetime) -> str:
    """Register what the version would be without the person; its name."""
    from habitlab.recommender.recommend import Recommender
    from habitlab.serving.learning.extract import extract
    from habitlab.serving.learning.model_card import write
    from habitlab.serving.learning.retrain import Recipe

    told = extract(place, dataset)
    recommender = Recipe.of(version.lineage).unfitted() if "recipe" in version.lineage else Recommender()
    recommender = recommender.fit(told.dataset)
    lineage = registry.lineage_of(told.dataset, recommender, fitted_at=now, learnt=told.sequence)
    lineage |= {"recipe": version.lineage["recipe"]} if "recipe" in version.lineage else {}
    lineage |= {"why": "somebody asked to be forgotten", "instead_of": version.name, "until": recommender.day_}
    return registry.register(place, recommender, lineage, write(told.dataset, recommender, lineage))


def _from_logs(place: Path, user_id: str, say: Callable[[str, str], None]) -> None:
    """Take lines with the id out of logs and other texts of the service; the service itself writes none."""
    for path, _ in traces.find([place], user_id).items():
        with path.open("rb") as file:
            binary = b"\0" in file.read(1 << 16)
        if binary:
            continue
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not traces.holds(line, user_id)]
        with replacing(path) as temporary:
            temporary.write_bytes(b"".join(kept))
        say(str(path.relative_to(place)), f"{len(lines) - len(kept)} lines")


def _from_caches(user_id: str, say: Callable[[str, str], None]) -> None:
    """Delete what is kept and holds the id; all of it can be made again."""
    root = cache_folder()
    entries: dict[Path, None] = {}
    for path in traces.find(_caches(), user_id):
        inner = path.relative_to(root).parts
        entry = root.joinpath(*inner[:2]) if len(inner) > 1 else path
        entries[entry] = None
        if entry.suffix in (".model", ".models"):  # both are one recommender
            entries |= dict.fromkeys([entry.with_suffix(".model"), entry.with_suffix(".models")])
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
        say("cache", f"{entry.relative_to(root)} deleted")


def _caches() -> list[Path]:
    """What can be made again: not the service of the sample, whose people have ids like others' and are not theirs."""
    return [path for path in cache_folder().glob("*") if path.suffix != ".service"]


def _from_leftovers(data: Path, user_id: str, say: Callable[[str, str], None]) -> None:
    """Delete what a write that was cut short left behind and holds the id: `alone` sees to it that none goes on."""
    for path in traces.find(_parts(data), user_id):
        path.unlink(missing_ok=True)
        say(str(path), "deleted, left by a crash")


def _parts(data: Path) -> list[Path]:
    """Unfinished files beside a dataset, of it and of its truth, and in its folder."""
    beside = [p for whole in (data, truth_path(data)) for p in sorted(data.parent.glob(f".{whole.name}.*.part"))]
    return beside + (parquet.leftovers(data) if data.is_dir() else [])


def _beside(data: Path) -> Iterable[Path]:
    """The dataset, its truth, and what SQLite or a crash may have left beside it."""
    yield data
    yield from (path for path in (truth_path(data),) if path.exists())
    yield from _parts(data)
    yield from (Path(f"{data}{end}") for end in ("-wal", "-journal") if Path(f"{data}{end}").exists())


def _personal(table: str) -> bool:
    return "user_id" in TABLES[table].columns


def _in_dataset(dataset: Dataset, user_id: str) -> bool:
    return any((dataset.table(name)["user_id"] == user_id).any() for name in TABLES if _personal(name))


def _rows_of(frame: pd.DataFrame, user_id: str) -> pd.DataFrame:
    return frame[(frame["user_id"] == user_id).to_numpy(dtype=bool)]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without what is missing, instants and days as text."""
    rows = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us", force_ascii=False))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _personal_tables(connection: sqlite3.Connection) -> list[str]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [t for t in tables if "user_id" in [row[1] for row in connection.execute(f'PRAGMA table_info("{t}")')]]


def _service_rows(place: Path, user_id: str) -> dict[str, list[dict[str, Any]]]:
    if not (place / state.DATABASE).exists():
        return {}
    found = {}
    with closing(state.connect(place)) as connection:
        for table in _personal_tables(connection):
            rows = connection.execute(f'SELECT * FROM "{table}" WHERE user_id = ?', (user_id,))
            names = [column[0] for column in rows.description]
            found[table] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


def _tell_lists(rows: Sequence[dict[str, Any]], data: str | Path, place: Path) -> None:
    """Put finished lists, which are kept without words, into words."""
    try:
        model = live.find(data, place) if rows else None
    except (ValueError, OSError):  # no model can be had: nobody is shown these lists any more
        model = None
    for row in rows:
        key = Key(row["user_id"], row["model_version"], row["profile_version"], row["key"])
        try:
            if model is None or key.model_version != model.key:
                raise ValueError("another model made it")
            row["body"] = json.loads(word(model.recommender, key, row["body"], "en").body + b"}")
        except ValueError:
            row["body"] = None


def _unknown(user_id: str, dataset: Dataset, place: Path) -> ValueError:
    known = set(dataset.users["user_id"])
    if (place / state.DATABASE).exists():
        with closing(state.connect(place)) as connection:
            known |= {user for (user,) in connection.execute("SELECT user_id FROM profiles")}
    near = get_close_matches(user_id, sorted(known), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    if forgotten.status(place, user_id) == forgotten.DONE:
        return ValueError(f"the person with the id {user_id!r} was forgotten: nothing is known of them")
    return ValueError(f"nobody has the id {user_id!r} here{hint}")
