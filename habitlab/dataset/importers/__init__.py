"""Importers of real trackers: the format is found by looking at the content, never by a file's name."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.importers import habitbull, lifesnaps, loop, loop_csv, rewire, tickmate
from habitlab.dataset.importers.entries import assemble
from habitlab.dataset.importers.reading import (
    SQLITE_MAGIC,
    ZIP_MAGIC,
    TextTable,
    decode,
    open_sqlite,
    sqlite_tables,
    text_tables,
)
from habitlab.dataset.importers.report import ImportReport, count_skipped, without_emails
from habitlab.dataset.merge import merge
from habitlab.dataset.schema import DatasetError

__all__ = ["FORMATS", "ImportReport", "ImportResult", "detect", "import_source"]

FORMATS = {
    "loop": "Loop Habit Tracker's backup: SQLite tables Habits and Repetitions",
    "loop-csv": "Loop Habit Tracker's CSV export, folder or zip: tables that begin Date, or Position, Name",
    "habitbull": "HabitBull's export: a header with HabitName, CalendarDate, Value",
    "tickmate": "TickMate's backup: SQLite tables tracks and ticks",
    "rewire": "Rewire's backup: SQLite tables Habits and CHECKINS",
    "lifesnaps": "LifeSnaps: a header with id, date, steps, and step_goal, activityType or mindfulness_session",
}
"""Every format, and what it is told by."""

DEFAULT_USER = "me"

_SQLITE_READERS = {"loop": loop, "tickmate": tickmate, "rewire": rewire}
_LARGEST_ZIP = 2**30
_HEAD = 2**16
_MOST_FILES = 2000


@dataclass(frozen=True)
class ImportResult:
    """The dataset an import gives, merged into an older one if there was one, and where each row of the source went."""

    dataset: Dataset
    report: ImportReport


@dataclass(frozen=True)
class _Found:
    """A source of one format: one file, or the several of a CSV export below `root`."""

    format: str
    root: Path
    files: tuple[Path, ...]
    others: tuple[str, ...] = ()


def detect(path: str | Path) -> str:
    """Return the format of a file, folder or zip, one of `FORMATS`.

    Raises
    ------
    FileNotFoundError
        Nothing is at `path`.
    DatasetError
        It is of no known format, of several, or damaged; the message says what was looked for and what was found.
    """
    with _unpacked(Path(path)) as place:
        return _find(place, Path(path), None).format


def import_source(
    path: str | Path,
    *,
    format: str | None = None,
    into: Dataset | None = None,
    today: datetime.date | pd.Timestamp | str | None = None,
    user: str | None = None,
) -> ImportResult:
    """Read a tracker's data, alone or into an existing dataset.

    A tracker's backup holds one person, who is called `user`, or else "me": importing a newer backup of the same
    person into the same dataset extends them. LifeSnaps names its own people, u1 to u71. `today` is the last day that
    is not in the future; without it, days after 2099 are. Importing the same source again changes nothing.

    Raises
    ------
    FileNotFoundError
        Nothing is at `path`.
    OSError
        It cannot be read.
    DatasetError
        It is damaged, of no known format or not of the given `format`; or `into` holds simulated people.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise DatasetError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    user = user and user.strip()
    if user is not None and (not user or without_emails(pd.Series([user], dtype="str"))[0] != user):
        raise DatasetError(f"user {user!r}: name a short pseudonym, not an e-mail address")
    if into is not None and into.simulated:
        raise DatasetError("the dataset to import into holds simulated people; give real ones a file of their own")
    last = None if today is None else pd.Timestamp(today).normalize().tz_localize(None)
    with _unpacked(path) as place:
        found = _find(place, path, format)
        new, report = _read(found, path.name, user, last)
    new.metadata.update(source="imported", simulated=False, imports=[report.as_dict()])
    if into is None:
        return ImportResult(new, report)
    merged = merge(into, new)
    # Said now only: the metadata of a dataset must not depend on how often a source was imported into it.
    report = dataclasses.replace(report, notes=[*report.notes, *_notes_on_merge(into, new, merged)])
    return ImportResult(merged, report)


def _read(found: _Found, name: str, user: str | None, today: pd.Timestamp | None) -> tuple[Dataset, ImportReport]:
    """Read the one source, and account for each of its rows."""
    notes = [f"not read: {', '.join(found.others)}"] if found.others else []
    person = user or DEFAULT_USER
    digest = _digest(found)
    if found.format in _SQLITE_READERS:
        with open_sqlite(found.files[0]) as connection:
            tracker = _SQLITE_READERS[found.format].read(connection)
        log = found.files[0].with_name(found.files[0].name + "-wal")
        if log.exists() and log.stat().st_size:
            notes.append(f"{log.name} stands beside the file; what is only in that log was not read")
        outcome = assemble(tracker, person, today)
    else:
        tables, encodings = _text_tables(found)
        if encodings:
            notes.append(f"read as {', '.join(encodings)}")
        if found.format == "loop-csv":
            outcome = assemble(loop_csv.read(tables), person, today)
        elif found.format == "habitbull":
            outcome = assemble(habitbull.read(*tables.values()), person, today)
        elif user is None:
            (table,) = tables.values()
            outcome = lifesnaps.read(table, today)
        else:
            raise DatasetError("LifeSnaps names its own people; leave out the user")

    entries, reason = outcome.entries, outcome.entries["reason"]
    skipped, examples = count_skipped(reason, entries["where"], entries["shown"])
    if reason.empty:
        notes.append("the source holds no rows")
    report = ImportReport(
        format=found.format,
        source=without_emails(pd.Series([name], dtype="str"))[0],
        digest=digest if found.format == "lifesnaps" else f"{digest}:{person}",
        row=outcome.row,
        rows=len(reason),
        imported=int(reason.isna().sum()),
        skipped=skipped,
        examples=examples,
        derived=outcome.derived,
        notes=without_emails(pd.Series(notes + outcome.notes, dtype="str")).tolist(),
    )
    return outcome.dataset, report


def _digest(found: _Found) -> str:
    """Name the content, wherever it stands: a folder, its zip, and a wrapped one are the same source."""
    digest = hashlib.sha256()
    for file in found.files:
        digest.update(b"" if len(found.files) == 1 else file.relative_to(found.root).as_posix().encode())
        digest.update(_bytes(file))
    return digest.hexdigest()[:16]


def _text_tables(found: _Found) -> tuple[dict[str, TextTable], list[str]]:
    """Return the tables of a text source by their path inside it, and the encodings that are worth a note."""
    tables, encodings = {}, set()
    for file in found.files:
        text, encoding = decode(_bytes(file))
        encodings.add(encoding)
        table = _table(text, found.format)
        if table is not None:
            tables[file.relative_to(found.root).as_posix()] = table
    return tables, sorted(encodings - {"utf-8", "utf-8-sig"})


def _notes_on_merge(into: Dataset, new: Dataset, merged: Dataset) -> list[str]:
    added = len(merged.habit_tracking) - len(into.habit_tracking)
    notes = [f"{added:,} rows of habit_tracking are new to the dataset, which had {len(into.habit_tracking):,}"]
    both = into.habits.merge(new.habits, on="habit_id", suffixes=("", "_new"))
    if "target" in into.habits.columns:
        other = both["target"].notna() & (both["target"] != both["target_new"])
        if other.any():
            names = ", ".join(both["habit_id"][other])
            notes.append(f"{int(other.sum())} habits had another target before, which stays: {names}")
    return notes


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Give the path, or for a zip a folder with its files that lives as long as it is needed."""
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path}")
    if not (path.is_file() or path.is_dir()):
        raise DatasetError(f"{path} is neither a file nor a folder")
    if path.is_dir() or not _bytes(path, 4).startswith(ZIP_MAGIC):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > _LARGEST_ZIP:
                    raise DatasetError(f"{path} would unpack to {size:,} bytes; a tracker's export is far smaller")
                archive.extractall(folder)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            raise DatasetError(f"{path} is a damaged or locked zip ({error}); export it again") from error
        yield Path(folder)


def _find(place: Path, path: Path, wanted: str | None) -> _Found:
    """Look at every file and name the one source that is there, of the wanted format if one is wanted."""
    folder = place.is_dir()
    files = [place]
    if folder:
        files = sorted(islice((file for file in place.rglob("*") if _looked_at(file, place)), _MOST_FILES + 1))
        if len(files) > _MOST_FILES:
            raise DatasetError(f"{path} holds more than {_MOST_FILES:,} files; name the one to import")
    looks = {file: _look(file, whole=not folder) for file in files}
    found = [
        _Found(format, file.parent, (file,))
        for file, (formats, _) in looks.items()
        for format in formats
        if format != "loop-csv"
    ]
    exports: dict[Path, list[Path]] = {}
    for file, (formats, kind) in looks.items():
        if "loop-csv" in formats:
            in_own_folder = kind == "one" and file.parent != place
            exports.setdefault(file.parent.parent if in_own_folder else file.parent, []).append(file)
    for root in [root for root in exports if root.parent in exports]:
        exports[root.parent] += exports.pop(root)
    found += [_Found("loop-csv", root, tuple(sorted(parts))) for root, parts in exports.items()]

    fitting = [one for one in found if wanted in (None, one.format)]
    if len(fitting) == 1:
        others = tuple(file.name for file in files if file not in fitting[0].files)
        return dataclasses.replace(fitting[0], others=others)
    if len(fitting) > 1:
        shown = [f"{_inside(one, place)} ({one.format})" for one in fitting]
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        raise DatasetError(f"{path} holds several sources, name one of them: {', '.join(shown[:8])}{more}")
    if wanted is not None and found:
        raise DatasetError(f"{path} is not {wanted} ({FORMATS[wanted]}); it looks like {found[0].format}")
    what = "; ".join(dict.fromkeys(kind for _, kind in looks.values())) if files else "no file"
    looked_for = FORMATS[wanted] if wanted else "; ".join(FORMATS.values())
    raise DatasetError(f"{path} is of no known format. Looked for: {looked_for}. Found: {what[:300]}")


def _looked_at(file: Path, place: Path) -> bool:
    parts = file.relative_to(place).parts
    return file.is_file() and len(parts) <= 4 and not any(part.startswith((".", "__MACOSX")) for part in parts)


def _inside(found: _Found, place: Path) -> str:
    inside = (found.files[0] if len(found.files) == 1 else found.root).relative_to(place).as_posix()
    return inside if inside != "." else "the folder itself"


def _look(file: Path, *, whole: bool) -> tuple[list[str], str]:
    """Return the formats a file may be of, and what it is: for people, or for a part of a CSV export its kind.

    A damaged database is an error when it is the `whole` source, and a file among others where it is not.
    """
    head = _bytes(file, _HEAD)
    if not head:
        return [], "an empty file"
    if head.startswith(SQLITE_MAGIC):
        try:
            with open_sqlite(file) as connection:
                tables = set(sqlite_tables(connection))
        except DatasetError as error:
            if whole:
                raise
            return [], str(error)
        if {"users", "habit_tracking"} <= tables:
            return [], "a HabitLab dataset, which needs no import"
        formats = [name for name, reader in _SQLITE_READERS.items() if tables >= reader.TABLES]
        return formats, f"SQLite tables {', '.join(sorted(tables)) or '(none)'}"
    if head.startswith(ZIP_MAGIC):
        return [], "a zip inside a zip or folder"
    text = decode(head)[0]
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for format in ("habitbull", "lifesnaps", "loop-csv"):
        table = _table(text, format)
        if table is not None:
            return [format], (loop_csv.part(table) or "") if format == "loop-csv" else first
    if "\0" in text or "\ufffd" in text[:200]:
        return [], "a binary file"
    return [], f"text that begins {first[:80]!r}"


def _table(text: str, format: str) -> TextTable | None:
    """Read a text with the separator under which it is of the format; None if there is none."""
    for table in text_tables(text):
        words = set(table.words)
        if (
            (format == "habitbull" and words >= habitbull.WORDS)
            or (format == "lifesnaps" and words >= lifesnaps.WORDS and words & lifesnaps.ANY_WORDS)
            or (format == "loop-csv" and loop_csv.part(table))
        ):
            return table
    return None


def _bytes(file: Path, most: int = -1) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise type(error)(f"cannot read {file}: {error.strerror or error}") from error
