"""SQLite in and out: one file, foreign keys on, a schema version in its header."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from habitlab.dataset.schema import PRIMARY_TABLES, SCHEMA_VERSION, TABLES, Column, DatasetError

if TYPE_CHECKING:
    from habitlab.dataset.dataset import Dataset

SUFFIXES = (".db", ".sqlite", ".sqlite3")
APPLICATION_ID = 0x48414249  # "HABI"

_SQL_TYPES = {"whole": "INTEGER", "number": "REAL", "truth": "INTEGER"}


def connect(path: Path, *, read_only: bool = True) -> sqlite3.Connection:
    """Open a database with foreign keys on; read-only opens leave no file beside it."""
    uri = f"{path.resolve().as_uri()}?mode=ro" if read_only else path.resolve().as_uri()
    connection = sqlite3.connect(uri, uri=True)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def read(path: Path) -> dict[str, Any]:
    """Return the tables and the metadata of the dataset in a SQLite file, as keyword arguments of `Dataset`."""
    try:
        with closing(connect(path)) as connection:
            _check_version(connection, path)
            present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            missing = [name for name in PRIMARY_TABLES if name not in present]
            if missing:
                raise DatasetError(
                    f"{path} is not a HabitLab dataset: it has no table {', '.join(missing)}; "
                    "a tracker's backup is read with `habitlab import`"
                )
            contents: dict[str, Any] = {name: _read_table(connection, name) for name in TABLES if name in present}
            if "metadata" in present:
                rows = connection.execute("SELECT key, value FROM metadata")
                contents["metadata"] = {key: json.loads(value) for key, value in rows}
            return contents
    except sqlite3.Error as error:
        raise DatasetError(f"{path} cannot be read as a SQLite database: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata in a SQLite file; empty where it has none, as in a database of something else."""
    try:
        with closing(connect(path)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'metadata'").fetchone():
                return {}
            if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                return {}
            return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM metadata")}
    except (sqlite3.Error, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a SQLite database: {error}") from error


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        return  # not ours, or made by hand: the tables themselves decide
    if version > SCHEMA_VERSION:
        raise DatasetError(
            f"{path} has schema version {version}; this HabitLab reads {SCHEMA_VERSION}: update HabitLab"
        )
    if version < SCHEMA_VERSION:
        raise DatasetError(
            f"{path} has schema version {version}; this HabitLab reads {SCHEMA_VERSION}: make the dataset again"
        )


def _read_table(connection: sqlite3.Connection, name: str) -> pd.DataFrame:
    frame = pd.read_sql_query(f'SELECT * FROM "{name}"', connection)
    for column, spec in TABLES[name].columns.items():
        if spec.kind == "list" and column in frame.columns:
            frame[column] = pd.Series([_parse_list(text) for text in frame[column]], dtype=object)
    return frame


def _parse_list(text: object) -> object:
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # the contract's check will name it


def write(dataset: Dataset, path: Path) -> None:
    """Write the dataset to a new file and put it in the place of the old one."""
    with replacing(path) as temporary, closing(sqlite3.connect(temporary)) as connection:
        # The file is not in use yet and is replaced whole, so a journal would only cost time.
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON;")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        with connection:
            connection.execute("CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            entries = [(k, json.dumps(v, ensure_ascii=False, sort_keys=True)) for k, v in dataset.metadata.items()]
            connection.executemany("INSERT INTO metadata VALUES (?, ?)", sorted(entries))
            for name in TABLES:
                _write_table(connection, name, dataset.table(name))


def _write_table(connection: sqlite3.Connection, name: str, frame: pd.DataFrame) -> None:
    table = TABLES[name]
    definitions = [_definition(column, table.columns.get(column), table.key) for column in frame.columns]
    key = ", ".join(f'"{column}"' for column in table.key)
    connection.execute(
        f'CREATE TABLE "{name}" ({", ".join(definitions)}, PRIMARY KEY ({key})) WITHOUT ROWID',
    )
    columns = [_to_sql(frame[column], table.columns.get(column)) for column in frame.columns]
    marks = ", ".join("?" * len(columns))
    connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', zip(*columns, strict=True))


def _definition(column: str, spec: Column | None, key: tuple[str, ...]) -> str:
    if spec is None:
        return f'"{column}"'
    parts = [f'"{column}"', _SQL_TYPES.get(spec.kind, "TEXT")]
    if spec.required or column in key:
        parts.append("NOT NULL")
    if spec.choices and spec.kind == "choice":
        parts.append(f'CHECK ("{column}" IN ({", ".join(repr(choice.value) for choice in spec.choices)}))')
    bounds = [
        f'"{column}" {sign} {bound}' for sign, bound in ((">=", spec.low), ("<=", spec.high)) if bound is not None
    ]
    if bounds:
        parts.append(f"CHECK ({' AND '.join(bounds)})")
    if spec.references:
        parts.append(f'REFERENCES "{spec.references}"')
    return " ".join(parts)


def _to_sql(values: pd.Series, spec: Column | None) -> list[Any]:
    kind = spec.kind if spec else None
    if kind == "list":
        return [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
    if kind in ("date", "instant"):
        return _moments_to_text(values, unit="D" if kind == "date" else None)
    return values.astype(object).where(values.notna(), None).tolist()


def _moments_to_text(values: pd.Series, unit: Literal["D"] | None) -> list[str | None]:
    moments = values.dt.tz_localize(None) if unit is None else values
    fraction = unit is None and (moments.dropna().dt.microsecond != 0).any()
    text = np.datetime_as_string(moments.to_numpy(), unit=unit or ("us" if fraction else "s"))
    text = text if unit else np.strings.add(text, "Z")
    return [None if missing else one for one, missing in zip(text.tolist(), values.isna(), strict=True)]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`; put it in the place of `path` if all goes well, else remove it.

    A link stays a link to what is replaced, and what is replaced hands on its mode.
    """
    path = Path(path).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
