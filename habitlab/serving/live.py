"""The model that is live: the current version of the registry, or else the usual one for the data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from habitlab.recommender.fitted import fitted
from habitlab.recommender.recommend import Recommender
from habitlab.serving import lists
from habitlab.serving.base import load
from habitlab.serving.learning import registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Live:
    """A fitted recommender; `learnt`: the last event it was fitted on; `version`: its name in the registry, if any."""

    recommender: Recommender
    learnt: int = 0
    version: str | None = None
    key: str = field(init=False)
    """What keys of finished lists say of it."""
    habits: frozenset[str] = field(init=False)
    zones: dict[str, str] = field(init=False)
    """Zone of every person it knows."""

    def __post_init__(self) -> None:
        """Look up once what every request asks for."""
        people = self.recommender.people_
        object.__setattr__(self, "key", lists.model(self.recommender.version_))
        object.__setattr__(self, "habits", frozenset(self.recommender.candidates_.ids.tolist()))
        object.__setattr__(self, "zones", dict(zip(people.ids.tolist(), people.zone.tolist(), strict=True)))


def find(data: str | Path, folder: str | Path) -> Live:
    """Return what is live now. With a registry in which no version can be read, it is the usual one, with a warning.

    Raises as `recommender.fitted.fitted` does.
    """
    try:
        if registry.current(folder) is not None:
            version, recommender = registry.load(folder)
            return Live(recommender, version.learnt, version.name)
    except registry.RegistryError as error:
        log.error("no version of the registry can be served, the usual model is: %s", error)
    return Live(fitted(load(data) if str(data) == "sample" else data))


AGAIN = 60.0
"""Seconds until what could not be read is tried again."""
_passed_over: dict[Path, tuple[str, float]] = {}  # of each folder what could not be read, and when that was seen


def newer(folder: str | Path, now: Live, seconds: Callable[[], float] = time.monotonic) -> Live | None:
    """Return what has been put live since; None where nothing has, or it cannot be read: the old one stays.

    What cannot be read is told of once, and tried again after `AGAIN` seconds, which `seconds` counts from any start.
    """
    place, name = Path(folder), None
    before, seen = _passed_over.get(place, ("", 0.0))
    try:
        name = registry.current(folder)
        if name is None or name == now.version or (name == before and seconds() < seen + AGAIN):
            return None
        version, recommender = registry.load(folder)
    except (registry.RegistryError, OSError) as error:
        what = str(error) if name is None else name
        if what != before:
            log.error("the model that was put live cannot be read, the old one stays: %s", error)
        _passed_over[place] = what, seconds()
        return None
    if version.name != name:  # one that was live before
        _passed_over[place] = name, seconds()
    return None if version.name == now.version else Live(recommender, version.learnt, version.name)
