"""One person's list: the fitted recommender, and what they did since it was fitted."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from habitlab.dataset.registration import Registration
from habitlab.dataset.vocabulary import Purpose
from habitlab.explanations.reasons import explain_list
from habitlab.recommender.context import FATIGUE_DAYS
from habitlab.recommender.draws import Drawn
from habitlab.recommender.people import may_be_profiled
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.since import Since
from habitlab.serving import lists, state
from habitlab.serving.feature_store import FeatureStore
from habitlab.serving.history import local_day, since
from habitlab.serving.lists import Key, Ready
from habitlab.serving.live import Live
from habitlab.serving.profiles import Profile
from habitlab.serving.updater import features_until, registration_of

log = logging.getLogger(__name__)


class Answers:
    """Makes lists.

    Who opted out of personalisation gets the list of somebody about whom nothing is known; who does not allow profiling
    one from which nothing that they did is concluded.
    """

    def __init__(self, live: Live, features: FeatureStore) -> None:
        """The models, which newcomers need, are read when the first one asks; see `warm`."""
        self.live, self._features = live, features
        self._connections = features.connections  # to one database, whenever another model goes live
        self._told = False  # once, not with every list
        self._impersonal = lru_cache(maxsize=64)(self._for_anybody)

    def warm(self) -> None:
        """Read what the first answer would have to wait for."""
        explain_list(self.live.recommender.recommend({}, 1))

    def draw(self, key: Key, profile: Profile, k: int, moment: datetime) -> tuple[bytes, bool]:
        """Draw a list, and tell whether it counts all that happened: not while the database cannot be read.

        Raises sqlite3.Error for people who registered here while the database cannot be read.
        """
        if profile.opted_out:
            return self._impersonal(k, moment), True
        return self._personal(key, profile, k, moment)

    def draw_many(
        self, people: Mapping[str, Profile], k: int, moments: Sequence[datetime]
    ) -> Iterator[tuple[Key, bytes]]:
        """Yield the lists that `draw` makes, of many people for moments of one day, scored at once where they can be.

        What cannot count all that happened is left out. Raises sqlite3.Error while the database cannot be read.
        """
        since: dict[str, Since] = {}
        together, unprofiled = [], set()
        for user, profile in people.items():
            if profile.opted_out or profile.registered_here:
                for moment in moments:
                    key = self.key(user, profile, k, moment)
                    drawn, whole = self.draw(key, profile, k, moment)
                    if whole:
                        yield key, drawn
                continue
            now = self._features.get(user, profile.version) if profile.version else None
            if profile.version and now is None:
                continue
            with self._connections.use() as connection:
                happened = self._happened(connection, user, profile, moments[0], now, None)
            together.append(user)
            if not self._profiled(user, profile, now, None):
                unprofiled.add(user)
            if happened != Since():
                since[user] = happened
        for block in self.live.recommender.draw_many(together, k, moments, since=since, unprofiled=unprofiled):
            for user, several in zip(block.user_ids, block.pack(), strict=True):
                for moment, drawn in zip(moments, several, strict=True):
                    yield self.key(user, people[user], k, moment), drawn

    def key(self, user_id: str, profile: Profile, k: int, moment: datetime) -> Key:
        """Return the key of a list."""
        name = lists.name(k, moment, personal=not profile.opted_out)
        return Key(user_id, self.live.key, profile.version, name)

    def _for_anybody(self, k: int, moment: datetime) -> bytes:
        return _one(self.live.recommender.draw({}, k, moment))

    def _personal(self, key: Key, profile: Profile, k: int, moment: datetime) -> tuple[bytes, bool]:
        user: Any = key.user_id
        now = self._features.get(user, profile.version) if profile.version else None
        try:
            with self._connections.use() as connection:
                text = registration_of(connection, key.user_id) if profile.registered_here else None
                happened = self._happened(connection, key.user_id, profile, moment, now, text)
        except (sqlite3.Error, OSError, ValueError) as error:
            if profile.registered_here:
                raise sqlite3.OperationalError("the registration cannot be read now") from error
            if not self._told:
                log.warning("lists are made without all that happened since the fit: %s", error)
            self._told = True
            known, profiled = None if now is None else since(now, now), self._profiled(user, profile, now, None)
            return _one(self.live.recommender.draw(user, k, moment, since=known, profiled=profiled)), False
        self._told = False
        record = None if text is None else Registration.of(json.loads(text))
        profiled = self._profiled(user, profile, now, record)
        if record is not None:
            user = _with_consent(record, now)
        whole = now is not None or not profile.version
        return _one(self.live.recommender.draw(user, k, moment, since=happened, profiled=profiled)), whole

    def _profiled(
        self, user_id: str, profile: Profile, now: Mapping[str, Any] | None, record: Registration | None
    ) -> bool:
        """Whether to conclude anything from what a person does: their last word, or what the data or the record say."""
        if now is None and profile.version:
            return False  # what they said last cannot be read now
        said = None if now is None else now["filters"].get("profiling")
        if said is not None:
            return bool(said)
        if record is not None:
            told = (record.consents or {}).get(Purpose.PROFILING)
            return may_be_profiled(told, float("nan") if record.age is None else record.age)
        recommender = self.live.recommender
        return bool(recommender.people_.profiled[recommender.rows([user_id])][0])

    def _happened(
        self,
        connection: sqlite3.Connection,
        user_id: str,
        profile: Profile,
        moment: datetime,
        now: Mapping[str, Any] | None,
        registration: str | None,
    ) -> Since:
        """What a person did since the fit; `now`: their features, None where nothing happened."""
        shown = self._shown(connection, user_id, profile, moment)
        if now is None:
            return Since(shown=tuple(shown))
        fitted = features_until(connection, user_id, registration, self.live.learnt)
        return since(now, fitted, shown)

    def _shown(
        self, connection: sqlite3.Connection, user_id: str, profile: Profile, moment: datetime
    ) -> Sequence[tuple[str, int]]:
        """Habits that were on lists of the last weeks, each once for a day."""
        begin = f"{moment - timedelta(days=FATIGUE_DAYS + 1):%Y-%m-%d}"
        rows = connection.execute(
            "SELECT habit_id, shown_at FROM exposures WHERE user_id = ? AND shown_at >= ?", (user_id, begin)
        )
        return sorted({(habit, local_day(state.instant(at), profile.zone)) for habit, at in rows})


def word(recommender: Recommender, key: Key, drawn: bytes, lang: str) -> Ready:
    """Put a list that this recommender drew for the key into words; ValueError for one that is damaged."""
    k, moment = lists.read_name(key.name)
    ((told,),) = recommender.tell(Drawn.unpack(drawn, recommender.record(k), k, moment), lang)
    return Ready.of(explain_list(told), key)


def _one(drawn: Drawn) -> bytes:
    """The only list, as bytes."""
    ((packed,),) = drawn.pack()
    return packed


def _with_consent(registration: Registration, now: Mapping[str, Any] | None) -> Registration:
    """Return the record with what was said later about being compared with others."""
    said = None if now is None else now["filters"]["similar_users"]
    if said is None:
        return registration
    return registration.model_copy(update={"consents": (registration.consents or {}) | {Purpose.SIMILAR_USERS: said}})
