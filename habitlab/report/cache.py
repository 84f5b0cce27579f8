"""Finished reports, kept by the content they were made from, outside the folder they are published to.

A run is a pure function of notebook, package source (template included), parameters, data and lock file; `run_key`
hashes just these. Nothing here imports a data library: a call that finds everything made is over in a moment.
"""

import hashlib
import json
import os
import sqlite3
import sys
import sysconfig
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from habitlab.places import cache_folder
from habitlab.refusals import told_to_service
from habitlab.report.parameters import Schema, locate

MAX_BYTES = 512 * 2**20
_SETTLED = 2.0  # seconds: a file changed more recently may change again without a new time stamp
_COMPANIONS = (".truth.parquet",)  # what lies beside a dataset and is read with it


# ---------------------------------------------------------------------------------------------- hashing


def digest(value: Any) -> str:
    """SHA-256 of anything JSON-able."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def run_key(
    notebook: Mapping[str, Any], *, counted: Mapping[str, Any], injected: Collection[str], code: str, lock: str
) -> str:
    """The key of a run whose parameters count as `counted` says."""
    return digest([notebook_digest(notebook), code, lock, environment_digest(), counted, sorted(injected)])


def counted(values: Mapping[str, Any], schema: Schema, folder: Path, hashes: "Hashes") -> dict[str, Any]:
    """What parameters count as: a path by the content of what lies there now, relative to `folder`."""
    return {
        name: hashes.of_data(locate(value, folder)) if schema[name].is_path and value is not None else value
        for name, value in values.items()
    }


def notebook_digest(notebook: Mapping[str, Any]) -> str:
    """Hash of what decides a run: type, source, tags and attachments of each cell; not outputs, counts or ids."""
    return digest(
        [
            [
                cell["cell_type"],
                "".join(cell["source"]),
                cell.get("metadata", {}).get("tags", []),
                cell.get("attachments"),
            ]
            for cell in notebook["cells"]
        ]
    )


def environment_digest() -> str:
    """Hash of Python's version and the names and versions of what is installed: the lock may not be what runs."""
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    installed = sorted(path.name for place in places for path in Path(place).glob("*.dist-info"))
    # an editable install of the project itself carries no more than its version, and the source is hashed anyway
    return digest([sys.version_info[:3], [name for name in installed if not name.startswith("habitlab-")]])


def folder_digest(folder: Path) -> str:
    """Hash of the names and contents of all files below a folder, leaving out compiled Python."""
    files = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts and path.is_file())
    return digest(
        [(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    )


@dataclass
class Hashes:
    """Content hashes of large files, remembered as long as inode, size and times stay."""

    memory: dict[str, list[Any]]
    changed: bool = False

    @classmethod
    def load(cls) -> "Hashes":
        """Read what is remembered; a damaged memory is an empty one."""
        try:
            memory = json.loads((cache_folder() / "hashes.json").read_text(encoding="utf-8"))
            return cls(memory if isinstance(memory, dict) else {})
        except (OSError, ValueError):
            return cls({})

    def save(self) -> None:
        """Remember for the next run; a full or read-only disk costs only time."""
        if self.changed:
            recent = dict(list(self.memory.items())[-1000:])
            with suppress(OSError):
                write_atomically(cache_folder() / "hashes.json", json.dumps(recent).encode(), durable=False)

    def of_data(self, path: Path | None) -> Any:
        """Hash of a data file with its companions, or of a folder; "absent", or "sample" for None."""
        if path is None:
            return "sample"
        companions = [path.with_suffix(suffix) for suffix in _COMPANIONS] + [path.with_name(path.name + "-wal")]
        found = [self.of(path), *(self.of(companion) for companion in companions if companion.exists())]
        told: Any
        try:
            told = told_to_service(path)
        except sqlite3.Error as error:
            told = str(error)
        return [*found, digest(told)] if told else found

    def of(self, path: Path) -> Any:
        """Hash of the content of a file or a folder; "absent" where there is none or it may not be read."""
        try:
            if path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.is_file())
                return [(file.relative_to(path).as_posix(), self.of(file)) for file in files]
            state = path.stat()
            stamp = [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
            known = self.memory.get(str(path))
            if isinstance(known, list) and len(known) == 2 and known[0] == stamp:
                return known[1]
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return "absent"
        if time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED:
            self.memory.pop(str(path), None)
            self.memory[str(path)] = [stamp, content]
            self.changed = True
        return content


# ---------------------------------------------------------------------------------------------- keeping


def store(key: str, entry: Mapping[str, Any]) -> None:
    """Keep a finished report (JSON-able) under its key, dropping the oldest beyond MAX_BYTES."""
    body = json.dumps(entry, ensure_ascii=False).encode()
    head = hashlib.sha256(body).hexdigest().encode()
    with suppress(OSError):
        write_atomically(_place(key), head + b"\n" + body, durable=False)
        prune()


def fetch(key: str) -> dict[str, Any] | None:
    """What is kept under a key. Absent, unreadable and damaged are all the same: None."""
    place = _place(key)
    try:
        head, _, body = place.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != head:
            place.unlink()
            return None
        os.utime(place)
        entry: dict[str, Any] = json.loads(body)
        return entry
    except (OSError, ValueError):
        return None


def prune(max_bytes: int = MAX_BYTES) -> None:
    """Drop the entries longest unused until what remains fits, and temporary files that a kill has left."""
    files: list[tuple[float, int, Path]] = []
    for path in _place("").parent.iterdir():
        with suppress(OSError):  # another process may be pruning too
            state = path.stat()
            if path.suffix == ".tmp" and time.time() - state.st_mtime > 3600:
                path.unlink()
            else:
                files.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size


def _place(key: str) -> Path:
    return cache_folder() / "reports" / f"{key}.json"


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader, a crash or a full disk sees either the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def remove_drafts(folder: Path) -> None:
    """Remove what an earlier run, killed while writing, has left in a folder."""
    for draft in folder.glob(".*.tmp"):
        with suppress(OSError):
            draft.unlink()
