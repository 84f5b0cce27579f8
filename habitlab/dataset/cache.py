"""What has been read from SQLite and found right is kept, so that opening it again takes a fraction of a second."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from habitlab.dataset import parquet
from habitlab.dataset.schema import DatasetError
from habitlab.places import cache_folder

if TYPE_CHECKING:
    from habitlab.dataset.dataset import Dataset

KEPT_DATASETS = 4
_LONGEST_READ = 120.0  # seconds; then a process reads for itself
_HEADER_BYTES = 100  # holds SQLite's change counter


def entry(path: Path) -> Path:
    """Return where the dataset in a SQLite file is kept: another place as soon as the file or this package changes."""
    state = path.stat()
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    log = Path(f"{path.resolve()}-wal")  # what is written to a database that is open elsewhere may be in here only
    logged = log.stat() if log.exists() else None
    ahead = (logged.st_size, logged.st_mtime_ns) if logged and logged.st_size else None
    package = Path(__file__).parent
    code = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in package.glob("*.py"))
    identity = repr((str(path.resolve()), state.st_ino, state.st_size, state.st_mtime_ns, header, ahead, code))
    return cache_folder() / "datasets" / hashlib.sha256(identity.encode()).hexdigest()[:32]


@contextmanager
def alone(place: Path, longest: float = _LONGEST_READ) -> Iterator[None]:
    """Let one process make what is kept at `place` while others wait; without a writable cache none waits.

    After `longest` seconds a process goes on for itself.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(place.with_suffix(".lock"), timeout=longest)
    with suppress(OSError, Timeout):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def find(place: Path) -> dict[str, Any] | None:
    """Return the tables kept at `place`, or nothing where there are none or they are damaged."""
    if not (place / parquet.MANIFEST).exists():
        return None
    try:
        contents = parquet.read(place)
        os.utime(place)
    except (OSError, ValueError):
        shutil.rmtree(place, ignore_errors=True)
        return None
    return contents


def keep(place: Path, dataset: Dataset) -> None:
    """Keep a dataset that has passed its check. A full or read-only disk only costs the speed-up."""
    with suppress(OSError, DatasetError):
        parquet.write(dataset, place)
        kept = sorted((p for p in place.parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        for old in kept[:-KEPT_DATASETS]:
            shutil.rmtree(old, ignore_errors=True)
            old.with_suffix(".lock").unlink(missing_ok=True)
