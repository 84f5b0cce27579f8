"""What stands behind the HTTP routes: whose list, from which level, and events in."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from habitlab.dataset.registration import Registration, pseudonym
from habitlab.explanations.wording import FALLBACK, language, unknown_language
from habitlab.recommender.recommend import Recommender, read_moment
from habitlab.serving import events, forgotten, lists, state, updater
from habitlab.serving.answers import Answers, word
from habitlab.serving.background import repeat, settle
from habitlab.serving.base import prepare
from habitlab.serving.cache import Levels
from habitlab.serving.exposures import ExposureLog
from habitlab.serving.feature_store import FeatureStore
from habitlab.serving.history import local
from habitlab.serving.lists import Key, Ready
from habitlab.serving.live import Live, newer
from habitlab.serving.metrics import Metrics
from habitlab.serving.profiles import Directory, Profile
from habitlab.serving.store import MemoryStore, RedisStore, SqliteStore, StoreError, without_password

log = logging.getLogger(__name__)
FIRST_YEAR, LAST_YEAR = 2000, 2100
MODEL_SECONDS = 1.0
"""After so long a worker looks whether another version has been put live."""
_PARAMETERS = ("user_id", "k", "lang", "at")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,3}")
_NUMBER = re.compile(r"[0-9]{1,3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)?")


class Refusal(Exception):  # noqa: N818 - what it is: an answer that says no
    """A request that cannot be answered as it was asked."""

    def __init__(self, status: int, message: str, problems: Sequence[dict[str, Any]] = ()) -> None:
        """`status` of HTTP; `message` for people; `problems` one by one."""
        super().__init__(message)
        self.status, self.message, self.problems = status, message, list(problems)


@dataclass(frozen=True)
class Asked:
    """Checked parameters of /v1/recommend."""

    user_id: str
    k: int = 5
    lang: str = FALLBACK
    at: datetime | None = None
    warning: str = ""


@lru_cache(maxsize=4096)
def read_query(query: str) -> Asked:
    """Read a query string; `Refusal` for what is missing, unknown, twice or wrong."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=10)
    except ValueError:
        raise Refusal(400, "the query is no text in UTF-8, or has too many fields") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Refusal(400, "a parameter stands twice in the query")
    if set(given) - set(_PARAMETERS):
        raise Refusal(400, f"an unknown parameter; known are {', '.join(_PARAMETERS)}")
    user_id, k, lang, at = (given.get(name) for name in _PARAMETERS)
    if not user_id or len(user_id) > 200 or _CONTROL.search(user_id):
        raise Refusal(400, "user_id is needed: a text of 1 to 200 letters")
    if k is not None and not (_NUMBER.fullmatch(k) and 1 <= int(k) <= lists.MOST_HABITS):
        raise Refusal(400, f"k is the number of habits, from 1 to {lists.MOST_HABITS}")
    if lang is not None and not _LANGUAGE.fullmatch(lang):
        raise Refusal(400, "lang is the code of a language, such as en or ru")
    warning = unknown_language(lang) if lang else ""
    code = language(FALLBACK if warning or not lang else lang).code
    return Asked(user_id, int(k or 5), code, None if at is None else _moment(at), warning)


def _moment(text: str) -> datetime:
    try:
        moment = read_moment(text) if _MOMENT.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None or not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise Refusal(
            400,
            "at is a moment on the person's own clock, without a zone, such as 2026-01-05T07:30, "
            f"from {FIRST_YEAR} to {LAST_YEAR}",
        )
    return moment


class Service:
    """A service over one dataset and one folder; `start` begins what goes on in the background."""

    def __init__(
        self,
        data: str | Path,
        folder: Path,
        live: Live | Recommender,
        clock: Callable[[], datetime],
        *,
        redis: str | None = None,
        generator: np.random.Generator | None = None,
        workers: int = 1,
    ) -> None:
        """Open the database and read what is new in the data; `live`: the model to begin with.

        Raises as `state.connect`, `base.prepare` and `RedisStore` do; a Redis that does not answer is no error.
        """
        self.live = live = live if isinstance(live, Live) else Live(live)
        self.folder, self.clock = folder, clock
        self.metrics = Metrics()
        self._connections = state.Connections(folder)
        with self._connections.use() as connection:
            prepare(connection, data, clock())
            updater.catch_up(connection, clock())
            instance = state.instance(connection)
            state.set_meta(connection, "redis", "" if redis is None else without_password(redis))
        self.levels = Levels(
            MemoryStore(),
            SqliteStore(folder, clock=clock),
            None if redis is None else RedisStore(redis, space=instance),
            locks=folder / "locks" if workers > 1 else None,
            on_failure=lambda level: self.metrics.failures.labels(level).inc(),
        )
        self.features = FeatureStore(folder, self.levels.redis)
        self.directory = Directory(folder, live.zones, on_reset=self._reset)
        self.directory.follow()
        self.exposures = ExposureLog(folder, secrets.token_hex(4), clock, on_lost=self.metrics.lost.inc)
        self.answers = Answers(live, self.features)
        self._generator = generator or np.random.default_rng()
        self._stop = threading.Event()
        self._writing = threading.Lock()  # one writer a process: waiting here is fair and needs no sleep

    def _reset(self) -> None:
        self.levels.memory.clear()
        self.features.clear()

    def start(self) -> None:
        """Begin following the database and writing exposures."""
        self.directory.start()
        self.exposures.start()
        repeat(
            self.renew,
            MODEL_SECONDS,
            self._stop,
            name="model",
            failing=lambda error: log.error("what has been put live cannot be read, the old model stays: %s", error),
        )

    def stop(self) -> None:
        """End what goes on in the background, with what waits written."""
        self._stop.set()
        self.directory.stop()
        self.exposures.stop()

    def renew(self) -> bool:
        """Serve what has been put live in the registry meanwhile, if anything has; requests go on with the old one."""
        fresh = newer(self.folder, self.live)
        if fresh is None:
            return False
        answers = Answers(fresh, self.features)
        answers.warm()
        self.directory.replace(fresh.zones)
        self.live, self.answers = fresh, answers
        settle()
        log.warning("version %s is live", fresh.version)
        return True

    def recommend(self, asked: Asked, now: datetime) -> tuple[Ready, str]:
        """Return a list and the level it comes from; `Refusal` for somebody unknown."""
        profile, answers = self.profile(asked.user_id), self.answers
        moment = asked.at or lists.current(local(now, profile.zone))
        key = answers.key(asked.user_id, profile, asked.k, moment)

        def draw() -> tuple[bytes, bool]:
            self.metrics.computed.inc()
            return answers.draw(key, profile, asked.k, moment)

        recommender = answers.live.recommender
        ready, level = self.levels.find(key, asked.lang, draw, lambda drawn: word(recommender, key, drawn, asked.lang))
        if level in ("computed", "database"):
            self._forgotten_meanwhile(asked.user_id)
        return ready, level

    def _forgotten_meanwhile(self, user_id: str) -> None:
        """Take back what was just kept of somebody who was deleted while it was made; `Refusal` for them."""
        try:
            with self._connections.use() as connection:
                if state.known(connection, [user_id]):
                    return
        except (sqlite3.Error, OSError, ValueError):  # who deletes needs the database, too
            return
        self.levels.forget(user_id)
        self.features.forget(user_id)
        raise Refusal(404, "nobody has this user_id")

    def profile(self, user_id: str) -> Profile:
        """Return who that is; `Refusal` for nobody we know."""
        profile = self.directory.get(user_id)
        if profile is None:
            self.directory.follow()  # another worker may have registered them a moment ago
            profile = self.directory.get(user_id)
        if profile is None:
            raise Refusal(404, "nobody has this user_id")
        return profile

    def take(self, found: Sequence[Any]) -> list[str]:
        """Keep events and apply them, all or none; returns "accepted" or "duplicate" for each.

        Raises `EventError`, `Refusal`, and sqlite3.Error when they cannot be kept now.
        """
        now = self.clock()
        events.check_times(found, now)
        with self._writing, self._connections.use() as connection:
            with state.transaction(connection):
                self._check_names(connection, found)
                results = events.append(connection, found, now)
                self._apply(connection, now)
            self._follow()
        for result, count in Counter(results).items():
            self.metrics.events.labels(result).inc(count)
        return results

    def _apply(self, connection: sqlite3.Connection, now: datetime) -> None:
        """Apply in the same transaction; what goes wrong in it loses no event, which waits for the next time."""
        connection.execute("SAVEPOINT apply")
        try:
            while updater.apply(connection, now):
                pass
        except (ValueError, KeyError, TypeError) as error:
            connection.execute("ROLLBACK TO apply")
            log.error("events are kept, but could not be applied: %s", type(error).__name__)
        connection.execute("RELEASE apply")

    def _follow(self) -> None:
        try:
            self.directory.follow()
        except (sqlite3.Error, OSError, ValueError):  # it is kept; the next look will see it
            log.warning("what was just written could not be read back yet")

    def _check_names(self, connection: sqlite3.Connection, found: Sequence[Any]) -> None:
        known = state.known(connection, {event.user_id for event in found})
        habits = self.live.habits
        problems = [
            {"index": index, "field": "user_id", "problem": "nobody has this user_id"}
            for index, event in enumerate(found)
            if event.user_id not in known
        ]
        problems += [
            {"index": index, "field": "habit_id", "problem": "no habit has this habit_id"}
            for index, event in enumerate(found)
            if getattr(event, "habit_id", None) is not None and event.habit_id not in habits
        ]
        if problems:
            raise Refusal(404, "unknown people or habits; none of the events is kept", problems)

    def register(self, record: Registration, key: str | None = None) -> tuple[str, bool]:
        """Keep the record of somebody new and return their id, and whether they are new.

        `key`: what the client calls this request; sent again with the same record it returns the same id, also after a
        restart. `Refusal` with another record, or when that person was forgotten since. Raises sqlite3.Error when
        nothing can be kept now.
        """
        text = record.model_dump_json(exclude_none=True)
        with self._writing, self._connections.use() as connection:
            generator = self._generator if key is None else _generator_of(state.instance(connection), key)
            user_id = pseudonym(generator)
            if key is not None and forgotten.status(self.folder, user_id) is not None:
                raise Refusal(409, "this Idempotency-Key belongs to somebody who was forgotten")
            with state.transaction(connection):
                known = None if key is None else updater.registration_of(connection, user_id)
                if known is None:
                    updater.register(connection, user_id, text, self.clock())
                elif known != text:
                    raise Refusal(409, "this Idempotency-Key came with another registration")
            self._follow()
        if known is None:
            self.metrics.registrations.inc()
        return user_id, known is None

    def checks(self) -> dict[str, str]:
        """Tell how the parts are: "ok", or what is wrong."""
        try:
            with self._writing, self._connections.use() as connection:
                state.set_meta(connection, "ready", state.stamp(self.clock()))  # a full disk is seen by writing only
            database = "ok"
        except (sqlite3.Error, OSError, ValueError):
            database = "cannot be written now"
        return {"model": self.live.recommender.version_, "database": database, "redis": self._redis()}

    def _redis(self) -> str:
        if self.levels.redis is None:
            return "not used"
        try:
            self.levels.redis.store.get(Key("", "ready", 0, ""))
        except StoreError:
            return "does not answer"
        return "ok"


def _generator_of(instance: str, key: str) -> np.random.Generator:
    """Return what draws the id for a request's key: always the same one, which nobody can tell without the database."""
    return np.random.default_rng(list(hashlib.sha256(f"{instance} {key}".encode()).digest()))
