"""Parquet in and out: a folder with a file a table, and `dataset.json`, which says which files belong to it."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from habitlab.dataset.schema import PRIMARY_TABLES, SCHEMA_VERSION, TABLES, DatasetError
from habitlab.dataset.sqlite import replacing

if TYPE_CHECKING:
    from habitlab.dataset.dataset import Dataset

MANIFEST = "dataset.json"

_OWN = re.compile(rf"({'|'.join(TABLES)})-[0-9a-f]{{16}}\.parquet")


def read(folder: Path) -> dict[str, Any]:
    """Return the tables and the metadata in a folder, as keyword arguments of `Dataset`.

    A folder without `dataset.json` is read by its file names: `users.parquet`, `habits.parquet` and so on.
    """
    if (folder / MANIFEST).exists():
        files, metadata, version = _read_manifest(folder)
        if version != SCHEMA_VERSION:
            advice = "update HabitLab" if version > SCHEMA_VERSION else "make the dataset again"
            raise DatasetError(f"{folder} has schema version {version}; this HabitLab reads {SCHEMA_VERSION}: {advice}")
    else:
        files = {name: f"{name}.parquet" for name in TABLES if (folder / f"{name}.parquet").exists()}
        metadata = {}
    missing = [name for name in PRIMARY_TABLES if name not in files or not (folder / files[name]).exists()]
    if missing:
        raise DatasetError(f"{folder} is not a HabitLab dataset: it has no {missing[0]}.parquet")
    return {name: _read_table(folder / file) for name, file in files.items()} | {"metadata": metadata}


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of the dataset in a folder; empty where there is no `dataset.json`."""
    return _read_manifest(folder)[1] if (folder / MANIFEST).exists() else {}


def _read_manifest(folder: Path) -> tuple[dict[str, str], dict[str, Any], int]:
    manifest = folder / MANIFEST
    try:
        contents = json.loads(manifest.read_text("utf-8"))
        return dict(contents["files"]), dict(contents["metadata"]), int(contents["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{manifest} is damaged ({error}); remove the folder and make the dataset again") from error


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a Parquet file: {error}") from error


def write(dataset: Dataset, folder: Path) -> None:
    """Write the dataset into a folder, whose dataset it becomes, in one step, when `dataset.json` is exchanged.

    Only files that the old `dataset.json` names are deleted.

    Raises
    ------
    DatasetError
        The folder has no `dataset.json`, or a damaged one, and holds files that are not ours.
    """
    before = _replaceable_files(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {folder}: {error.strerror or error}") from error
    files = {}
    for name in TABLES:
        frame = dataset.table(name)
        with replacing(folder / f"{name}.new") as temporary:
            frame.to_parquet(temporary, engine="pyarrow", index=False, compression="zstd")
        # Named by content, so that a crash before the manifest is exchanged leaves the old files in place.
        files[name] = f"{name}-{_digest(folder / f'{name}.new')}.parquet"
        (folder / f"{name}.new").replace(folder / files[name])
    contents = {"schema_version": SCHEMA_VERSION, "files": files, "metadata": dataset.metadata}
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(contents, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    for name in before - set(files.values()):
        with suppress(OSError):
            (folder / name).unlink()


def leftovers(folder: Path) -> list[Path]:
    """Return files that a write which was cut short left in the folder of a dataset: they belong to none."""
    named = set(_read_manifest(folder)[0].values()) if (folder / MANIFEST).exists() else set()
    ours = re.compile(rf"{_OWN.pattern}|({'|'.join(TABLES)})\.new|\.[\w.-]+\.part")
    return sorted(path for path in folder.iterdir() if ours.fullmatch(path.name) and path.name not in named)


def _replaceable_files(folder: Path) -> set[str]:
    if (folder / MANIFEST).exists():
        return {str(name) for name in _read_manifest(folder)[0].values() if _OWN.fullmatch(str(name))}
    ours = re.compile(rf"{_OWN.pattern}|({'|'.join(TABLES)})\.(parquet|new)|\.[\w.]+\.part")
    strange = sorted(path.name for path in folder.glob("*") if not ours.fullmatch(path.name))
    if strange:
        raise DatasetError(
            f"{folder} is not a HabitLab dataset and not empty: it holds {strange[0]}; name a new or empty folder"
        )
    return set()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
