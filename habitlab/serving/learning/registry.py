"""Versions of the model on disk: written whole or not at all, put live in one step, and taken back in one.

`registry/<version>/` holds `recommender.model` and `recommender.models`, `lineage.json` (what it was learnt from:
hashes of data, code and parameters) with the hash of every file, and `card.md`. `registry/current` lists the versions
that were live, the one that is live last; it is replaced as a whole. `registry/model_runs.jsonl` has a row for every
model that was judged, whatever became of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from habitlab.dataset.sqlite import replacing
from habitlab.models.storage import ModelFileError
from habitlab.serving.state import REGISTRY, own_folder, stamp

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.dataset import Dataset
    from habitlab.recommender.recommend import Recommender

LOG = logging.getLogger(__name__)

CURRENT, LINEAGE, CARD, RUNS = "current", "lineage.json", "card.md", "model_runs.jsonl"
ROLLED_BACK = "rolled-back"
_MADE = ("code", "recipe")  # of a lineage: how a model is made, on whatever data
MODEL, MODELS = "recommender.model", "recommender.models"
_LONGEST_WAIT = 60.0  # seconds for another process that writes
_REMEMBERED = 50  # versions that were live


class RegistryError(ValueError):
    """A version is not there, is damaged, or cannot be put live."""


@dataclass(frozen=True)
class Version:
    """One version: its name, folder, and what is told of it."""

    name: str
    path: Path
    lineage: Mapping[str, Any]

    @property
    def learnt(self) -> int:
        """Sequence number of the last event that it was fitted on; 0 where it saw none."""
        return int(self.lineage.get("learnt", 0))


def lineage_of(dataset: Dataset, recommender: Recommender, *, fitted_at: datetime, learnt: int = 0) -> dict[str, Any]:
    """Return where a fitted recommender comes from, JSON-able: hashes of data, code and parameters, and packages."""
    from dataclasses import asdict
    from importlib.metadata import version

    from habitlab import __version__
    from habitlab.dataset.content import content_hash
    from habitlab.recommender.fitted import source_hash

    parameters = {
        "blend": asdict(recommender.blend),
        "diversity": recommender.diversity,
        "exploration": recommender.exploration,
        "seed": recommender.seed,
        "fitted to day": recommender.day_,
    }
    return {
        "fitted_at": stamp(fitted_at),
        "model_version": recommender.version_,
        "data": content_hash(dataset),
        "code": source_hash(),
        "parameters": parameters,
        "parameters_hash": hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest(),
        "users": len(dataset.users),
        "tracked_days": len(dataset.habit_tracking),
        "learnt": learnt,
        "simulated": dataset.simulated,
        "packages": {"habitlab": __version__} | {name: version(name) for name in ("numpy", "scikit-learn")},
    }


def register(
    folder: str | Path,
    recommender: Recommender,
    lineage: Mapping[str, Any],
    card: str = "",
    *,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Write a version and return its name. It is not live yet: see `promote`.

    A crash leaves no half version: everything is written and on disk before the folder gets its name. Just before that
    `check` is called, which may raise; `user forget` looks for versions after its mark, and waits for this.

    Raises
    ------
    OSError
        It cannot be written, for the disk is full, say; what is live stays so.
    """
    with _alone(folder) as root:
        _clear(root)
        number = max((int(version.name[:4]) for version in versions(folder)), default=0) + 1
        name = f"{number:04d}-{recommender.version_}"
        fresh = root / f".new-{name}"
        try:
            fresh.mkdir(mode=0o700)
            recommender.save(fresh / MODEL)
            (fresh / CARD).write_text(card or f"# Model {name}\n", encoding="utf-8")
            told = {**lineage, "version": name, "files": {f: _hash(fresh / f) for f in (MODEL, MODELS, CARD)}}
            (fresh / LINEAGE).write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
            for path in (*fresh.iterdir(), fresh):
                _to_disk(path)
            check()
            fresh.rename(root / name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _to_disk(root)
    return name


def write_card(folder: str | Path, name: str, card: str) -> None:
    """Exchange the card of a version: compared since, or signed."""
    with _alone(folder) as root, replacing(root / name / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")


def versions(folder: str | Path) -> list[Version]:
    """Return all versions, oldest first, those whose `lineage.json` cannot be read with an empty lineage."""
    root = Path(folder) / REGISTRY
    found = []
    for path in sorted(root.glob("[0-9][0-9][0-9][0-9]-*")):
        try:
            lineage = json.loads((path / LINEAGE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            lineage = {}
        found.append(Version(path.name, path, lineage if isinstance(lineage, dict) else {}))
    return found


def history(folder: str | Path) -> list[str]:
    """Return the names of versions that were live, the one that is live last; RegistryError where that is damaged."""
    place = Path(folder) / REGISTRY / CURRENT
    try:
        names = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RegistryError(f"{place} cannot be read: {error}; `habitlab retrain --rollback` writes it anew") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RegistryError(f"{place} is not a list of versions; `habitlab retrain --rollback` writes it anew")
    return names


def current(folder: str | Path) -> str | None:
    """Return the name of the version that is live, None where none ever was; RegistryError as `history`."""
    names = history(folder)
    return names[-1] if names else None


def promote(folder: str | Path, name: str) -> None:
    """Put a version live, in one step. RegistryError where it is not there or damaged: what was live stays so."""
    with _alone(folder):
        check(folder, name)
        _write_history(folder, [*(each for each in _history_or_none(folder) if each != name), name])


def rolled_back(folder: str | Path) -> list[dict[str, Any]]:
    """Return what rollbacks took away and nobody has allowed since: `version`, and `code` and `recipe` of its lineage.

    RegistryError where that is damaged.
    """
    place = Path(folder) / REGISTRY / ROLLED_BACK
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return [{key: each.get(key) for key in ("version", *_MADE)} for each in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RegistryError(f"{place} cannot be read: {error}; delete it to let every model go live again") from error


def allow(folder: str | Path, lineage: Mapping[str, Any]) -> None:
    """Let models made as this one is go live again after a rollback."""
    with _alone(folder):
        found = rolled_back(folder)
        left = [each for each in found if not made_alike(each, lineage)]
        if left != found:
            _write(folder, ROLLED_BACK, left)


def made_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two models come of the same code and recipe, on whatever data; unknown is like nothing."""
    plain = [json.loads(json.dumps([each.get(key) for key in _MADE])) for each in (one, other)]
    return plain[0] == plain[1] and plain[0][0] is not None


def rollback(folder: str | Path) -> str:
    """Put the version live that was live before, and return its name; damaged ones are passed over.

    Raises
    ------
    RegistryError
        There is no registry, or no version before is sound: what is live stays so.
    """
    if not (Path(folder) / REGISTRY).is_dir():
        raise RegistryError(f"no model was ever live in {Path(folder) / REGISTRY}; `habitlab retrain` makes one")
    with _alone(folder):
        try:
            names = history(folder)
        except RegistryError:  # damaged: the newest sound version is as good as can be known
            names = [*(version.name for version in versions(folder)), ""]
        for end in range(len(names) - 1, 0, -1):
            try:
                check(folder, names[end - 1])
            except RegistryError as error:
                LOG.warning("passed over: %s", error)
                continue
            gone = [version for version in versions(folder) if version.name in names[end:]]
            told = [{"version": one.name} | {key: one.lineage.get(key) for key in _MADE} for one in gone]
            try:
                told = [*rolled_back(folder), *told]
            except RegistryError as error:  # what is live comes first
                LOG.warning("%s; it begins anew", error)
            _write(folder, ROLLED_BACK, told)
            _write_history(folder, names[:end])
            return names[end - 1]
    raise RegistryError("there is no sound version before the live one to go back to")


def check(folder: str | Path, name: str) -> Version:
    """Return a version after holding each of its files against its hash; RegistryError naming what is wrong."""
    path = Path(folder) / REGISTRY / name
    if not name or Path(name).name != name or not path.is_dir():
        known = ", ".join(version.name for version in versions(folder)) or "none"
        raise RegistryError(f"there is no version {name!r}; there are: {known}")
    try:
        lineage = json.loads((path / LINEAGE).read_text(encoding="utf-8"))
        hashes = dict(lineage["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"version {name} is damaged: its {LINEAGE} cannot be read") from error
    for file in (MODEL, MODELS):
        if not (path / file).is_file():
            raise RegistryError(f"version {name} is damaged: {file} is missing")
        if _hash(path / file) != hashes.get(file):
            raise RegistryError(f"version {name} is damaged: {file} is not what was registered")
    return Version(name, path, lineage)


def load(folder: str | Path, name: str | None = None) -> tuple[Version, Recommender]:
    """Read a version, by default the live one; where that is damaged, the last good one before it, with a warning.

    Raises
    ------
    RegistryError
        No version is there or live, or none that was live can be read; a version asked for by name is damaged.
    """
    from habitlab.recommender.recommend import Recommender

    if name is None:
        names = history(folder)
        if not names:
            raise RegistryError(f"no model is live in {Path(folder) / REGISTRY}; `habitlab retrain` makes one")
    else:
        names = [name]
    problems = []
    for each in reversed(names):
        try:
            version = check(folder, each)
            found = Recommender.load(version.path / MODEL)
        except (RegistryError, ModelFileError, OSError) as error:
            problems.append(str(error))
            continue
        if problems:
            LOG.warning("%s; version %s, which was live before, is used", "; ".join(problems), each)
        return version, found
    raise RegistryError("; ".join(problems))


def remove(folder: str | Path, name: str) -> None:
    """Delete a version: somebody it learnt from is to be forgotten, say. RegistryError for the live one."""
    with _alone(folder) as root:
        names = _history_or_none(folder)
        if names and names[-1] == name:
            raise RegistryError(f"version {name} is live; put another one live first")
        if Path(name).name != name or not (root / name).is_dir():
            raise RegistryError(f"there is no version {name!r}")
        if name in names:
            _write_history(folder, [each for each in names if each != name])
        (root / name).rename(root / f".new-{name}")  # gone in one step; what a crash leaves is cleared away later
        shutil.rmtree(root / f".new-{name}", ignore_errors=True)


def clear(folder: str | Path) -> None:
    """Delete what a process that died left of a version it was writing or removing."""
    if (Path(folder) / REGISTRY).is_dir():
        with _alone(folder) as root:
            _clear(root)


def _clear(root: Path) -> None:
    for left in root.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)


def log_run(folder: str | Path, row: Mapping[str, Any]) -> None:
    """Append a row of the table `model_runs`: run_id, model, trained_at, parameters and metrics (JSON)."""
    with _alone(folder) as root, (root / RUNS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def runs(folder: str | Path) -> pd.DataFrame:
    """Return all rows of the table `model_runs`, oldest first; lines that a crash cut short are left out."""
    import pandas as pd

    from habitlab.dataset.schema import coerce, empty_table

    place, rows = Path(folder) / REGISTRY / RUNS, []
    for line in place.read_text(encoding="utf-8").splitlines() if place.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            LOG.warning("%s holds a line that is no JSON; it is left out", place)
    return coerce("model_runs", pd.DataFrame(rows)) if rows else empty_table("model_runs")


@contextmanager
def _alone(folder: str | Path) -> Iterator[Path]:
    """One writer at a time; gives the folder of the registry."""
    root = own_folder(Path(folder) / REGISTRY)
    with FileLock(root / ".lock", timeout=_LONGEST_WAIT):
        yield root


def _history_or_none(folder: str | Path) -> list[str]:
    try:
        return history(folder)
    except RegistryError as error:
        LOG.warning("%s", error)
        return []


def _write_history(folder: str | Path, names: list[str]) -> None:
    _write(folder, CURRENT, names[-_REMEMBERED:])


def _write(folder: str | Path, name: str, told: Any) -> None:
    root = Path(folder) / REGISTRY
    with replacing(root / name) as temporary:
        temporary.write_text(json.dumps(told), encoding="utf-8")
    _to_disk(root)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
