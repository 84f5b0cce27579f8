"""Fitted recommenders are kept in the user's cache folder: fitting takes seconds, answering milliseconds."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from habitlab.dataset.content import content_hash
from habitlab.places import cache_folder

if TYPE_CHECKING:
    from habitlab.dataset import Dataset
    from habitlab.recommender.recommend import Recommender

KEPT_RECOMMENDERS = 4
_LONGEST_FIT = 600.0  # seconds; then a process fits for itself
_ROOMS = ("dataset", "features", "models", "recommender")

_in_memory: dict[int, tuple[weakref.ref[Dataset], Recommender]] = {}


def fitted(source: Dataset | str | Path, tell: Callable[[str], None] | None = None) -> Recommender:
    """Return the usual recommender fitted on a dataset, or on the one at a path: the kept one where there is one.

    It is kept by the content of the dataset and the source of HabitLab; a path counts by the state of its files.
    `tell` is called once before fitting. Without a writable cache, or with a damaged one, it is fitted.

    Raises
    ------
    FileNotFoundError, DatasetError
        Nothing is at the path, or no dataset.
    """
    if isinstance(source, (str, Path)):
        return _kept(_identity(Path(source)), lambda: _load(Path(source)), tell)
    for key in [key for key, (alive, _) in _in_memory.items() if alive() is None]:
        del _in_memory[key]
    known = _in_memory.get(id(source))
    if known is None:
        known = _in_memory[id(source)] = weakref.ref(source), _kept(content_hash(source), lambda: source, tell)
    return known[1]


def _load(path: Path) -> Dataset:
    from habitlab.dataset import Dataset

    return Dataset.load(path)


def _kept(identity: str, dataset: Callable[[], Dataset], tell: Callable[[str], None] | None) -> Recommender:
    from habitlab.models.storage import ModelFileError, read_header
    from habitlab.recommender.recommend import MODELS_SUFFIX, Recommender

    key = hashlib.sha256(f"{identity} {source_hash()}".encode()).hexdigest()[:32]
    place = cache_folder() / "recommenders" / f"{key}.model"

    def find() -> Recommender | None:
        try:
            found = Recommender.load(place)
            read_header(place.with_suffix(MODELS_SUFFIX))  # read later, when somebody new asks: it has to be whole
            os.utime(place)
        except (OSError, ModelFileError):
            return None
        return found

    found = find()
    if found is not None:
        return found
    from habitlab.dataset.cache import alone

    with alone(place, _LONGEST_FIT):
        found = find()  # another process may have fitted it meanwhile
        if found is None:
            data = dataset()
            if tell:
                tell("fitting the recommender; this takes a few seconds, once for these data")
            found = Recommender().fit(data)
            with suppress(OSError):
                found.save(place)
                _prune(place.parent)
    return found


def _prune(folder: Path) -> None:
    kept = sorted(folder.glob("*.model"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT_RECOMMENDERS]:
        old.unlink(missing_ok=True)
        for suffix in (".models", ".lock"):
            old.with_suffix(suffix).unlink(missing_ok=True)


def _identity(path: Path) -> str:
    """State of the file or of the files in the folder at `path`: another one as soon as they change."""
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}; `habitlab simulate` or `habitlab import` makes one")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return repr([(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    from habitlab.dataset.cache import entry

    return entry(path).name


def source_hash() -> str:
    """Hash of the source that a fitted recommender follows from, and of the packages beneath."""
    from importlib.metadata import version

    digest = hashlib.sha256(repr([version(package) for package in ("numpy", "scipy", "scikit-learn")]).encode())
    package = Path(__file__).resolve().parents[1]
    files = [p for room in _ROOMS for p in (package / room).rglob("*") if p.suffix in (".py", ".csv", ".toml")]
    for path in sorted(files):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
