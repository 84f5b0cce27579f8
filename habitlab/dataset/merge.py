"""Merge two datasets by their keys: what is known stays known, and merging the same again changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.schema import TABLES, DatasetError
from habitlab.dataset.vocabulary import AdoptionSource, Status

STRENGTH = {Status.UNKNOWN.value: 0, Status.MISSED.value: 1, Status.SKIPPED.value: 2, Status.DONE.value: 3}
"""Of several entries of one user, habit and day the strongest counts."""

_STATED = 4  # added to the strength of a row that a source states


_LONGEST_WAIT = 600.0  # seconds


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time load, merge and save the dataset at `path`; the hidden lock file beside it goes again.

    Raises
    ------
    DatasetError
        Another process has been at it for ten minutes.
    """
    from filelock import FileLock, Timeout

    place = path.resolve()
    lock = FileLock(place.with_name(f".{place.name}.lock"), timeout=_LONGEST_WAIT)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise DatasetError(f"another import into {path} has not ended yet; try again when it has") from error
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        # While still held: who waits finds the file gone and makes a new one.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def merge(old: Dataset, new: Dataset) -> Dataset:
    """Return both datasets' rows, one a key, in the order of their keys.

    A value that is there is never overwritten; one that is missing is filled in from `new`. Of two rows of
    `habit_tracking` with one key the stronger counts whole: a stated one before a derived one (column `derived`),
    then done, skipped, missed, unknown; if both are as strong, the old one. A derived row goes where the other
    dataset, whose rows of that user and habit begin before and end after, has none: there the day was not scheduled;
    but it stays if the other states fewer days of that user and habit, and so knows less.
    So a newer backup merged into an older one gives what the newer one gives alone. Of imported adoptions of one habit
    by one user the earliest stays. The reports in `metadata["imports"]` are kept by the digest of their source; where
    both datasets hold one, the new one.
    """
    tables = {name: _by_key(name, old.table(name), new.table(name)) for name in TABLES if name != "habit_tracking"}
    tables["habit_tracking"] = _tracking(old.habit_tracking, new.habit_tracking)
    tables["adoptions"] = _earliest_imports(tables["adoptions"])
    return old.replace(**tables, metadata=_metadata(old.metadata, new.metadata))


def _by_key(name: str, old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    if new.empty:
        return old
    key = list(TABLES[name].key)
    both = _together(old, new).sort_values(key, kind="stable")
    if both.duplicated(key).any():
        values = [column for column in both.columns if column not in key]
        both = both.assign(**both.groupby(key, sort=False)[values].bfill()).drop_duplicates(key)
    return both


def _together(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    columns = [*old.columns, *(column for column in new.columns if column not in old.columns)]
    filled = [frame for frame in (old, new) if len(frame)]
    return pd.concat(filled or [old], ignore_index=True).reindex(columns=columns)


def _tracking(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    key = list(TABLES["habit_tracking"].key)
    if "derived" in old.columns or "derived" in new.columns:
        old, new = (
            frame.assign(derived=frame["derived"].astype(bool) if "derived" in frame.columns else False)
            for frame in (old, new)
        )
        old, new = _without_unscheduled(old, new), _without_unscheduled(new, old)
    both = _together(old, new)
    strength = both["status"].astype("str").map(STRENGTH)
    if "derived" in both.columns:
        strength = strength + _STATED * ~both["derived"].astype(bool)
    both = both.assign(strength=strength).sort_values(
        [*key, "strength"], ascending=[True, True, True, False], kind="stable"
    )
    return both.drop(columns="strength").drop_duplicates(key)


def _without_unscheduled(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Drop derived rows on days that `other` covers without a row of its own, unless it states fewer days."""
    if not rows["derived"].any() or other.empty:
        return rows
    key = ["user_id", "habit_id", "date"]
    span = other.groupby(key[:2], as_index=False)["date"].agg(["min", "max"])
    seen = rows[key].merge(span, on=key[:2], how="left").merge(other[key].assign(there=True), on=key, how="left")
    covered = (seen["date"] > seen["min"]) & (seen["date"] < seen["max"]) & seen["there"].isna()
    counts = [frame[~frame["derived"]].groupby(key[:2], as_index=False).size() for frame in (rows, other)]
    stated = seen[key[:2]].merge(counts[0], on=key[:2], how="left").merge(counts[1], on=key[:2], how="left")
    covered &= stated["size_y"].fillna(0) >= stated["size_x"].fillna(0)
    return rows[~(rows["derived"].to_numpy() & covered.to_numpy())]


def _earliest_imports(adoptions: pd.DataFrame) -> pd.DataFrame:
    if "source" not in adoptions.columns:
        return adoptions
    imported = adoptions["source"] == AdoptionSource.IMPORTED
    later = adoptions.assign(imported=imported).duplicated(["user_id", "habit_id", "imported"]) & imported
    return adoptions[~later]


def _metadata(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    reports = {report["digest"]: report for report in [*old.get("imports", []), *new.get("imports", [])]}
    merged = new | old
    if reports:
        merged["imports"] = [reports[digest] for digest in sorted(reports)]
    return merged
