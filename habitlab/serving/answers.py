"""One person's list: the fitted recommender, and what they did since it was fitted."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from habitlab.dataset.registration import Registration
from habitlab.dataset.vocabulary import Purpose
from habitlab.explanations.reasons import explain_list
from habitlab.recommender.context import FATIGUE_DAYS
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.recommendations import Recommendations
from habitlab.recommender.since import Since
from habitlab.serving import state
from habitlab.serving.history import History, local_day, since
from habitlab.serving.lists import Key, Ready
from habitlab.serving.profiles import Profile
from habitlab.serving.updater import history_of, priors_of

log = logging.getLogger(__name__)


class Answers:
    """Makes lists.

    Who opted out of personalisation gets the list of somebody about whom nothing is known. `learnt`: sequence number of
    the last event that the model was fitted on.
    """

    def __init__(self, recommender: Recommender, folder: str | Path, learnt: int = 0) -> None:
        """The models, which newcomers need, are read when the first one asks; see `warm`."""
        self.recommender, self._learnt = recommender, learnt
        self._connections = state.Connections(folder, wait=0.5)
        self._impersonal = lru_cache(maxsize=64)(self._for_anybody)

    def warm(self) -> None:
        """Read what the first answer would have to wait for."""
        explain_list(self.recommender.recommend({}, 1))

    def make(self, key: Key, profile: Profile, k: int, lang: str, moment: datetime) -> tuple[Ready, bool]:
        """Return a finished list, and whether it counts all that happened: not while the database cannot be read.

        Raises sqlite3.Error for people who registered here while the database cannot be read.
        """
        if profile.opted_out:
            return Ready.of(self._impersonal(k, lang, moment), key), True
        found, whole = self._personal(key, profile, k, lang, moment)
        return Ready.of(explain_list(found, lang), key), whole

    def _for_anybody(self, k: int, lang: str, moment: datetime) -> Recommendations:
        return explain_list(self.recommender.recommend({}, k, moment, lang), lang)

    def _personal(
        self, key: Key, profile: Profile, k: int, lang: str, moment: datetime
    ) -> tuple[Recommendations, bool]:
        user: Any = key.user_id
        try:
            with self._connections.use() as connection:
                happened, registration = self._since(connection, key.user_id, profile, moment)
        except (sqlite3.Error, OSError, ValueError) as error:
            if profile.registered_here:
                raise sqlite3.OperationalError("the registration cannot be read now") from error
            log.warning("a list is made without what happened since the fit: %s", error)
            return self.recommender.recommend(user, k, moment, lang), False
        if registration is not None:
            user = registration
        found = self.recommender.recommend(user, k, moment, lang, since=happened)
        return replace(found, user_id=key.user_id), True

    def _since(
        self, connection: sqlite3.Connection, user_id: str, profile: Profile, moment: datetime
    ) -> tuple[Since, Registration | None]:
        shown = self._shown(connection, user_id, profile, moment)
        if not profile.version:
            return Since(shown=tuple(shown)), None
        row = connection.execute("SELECT registration FROM profiles WHERE user_id = ?", (user_id,)).fetchone()
        text = None if row is None else row[0]
        now = history_of(connection, user_id, text)
        fitted = history_of(connection, user_id, text, until=self._learnt)
        registration = None if text is None else _with_consent(Registration.of(json.loads(text)), now)
        return since(now, fitted, priors_of(connection), shown), registration

    def _shown(
        self, connection: sqlite3.Connection, user_id: str, profile: Profile, moment: datetime
    ) -> Sequence[tuple[str, int]]:
        """Habits that were on lists of the last weeks, each once for a day."""
        begin = f"{moment - timedelta(days=FATIGUE_DAYS + 1):%Y-%m-%d}"
        rows = connection.execute(
            "SELECT habit_id, shown_at FROM exposures WHERE user_id = ? AND shown_at >= ?", (user_id, begin)
        )
        return sorted({(habit, local_day(state.instant(at), profile.zone)) for habit, at in rows})


def _with_consent(registration: Registration, history: History) -> Registration:
    """Return the record with what was said later about being compared with others."""
    if history.similar_users is None:
        return registration
    consents = (registration.consents or {}) | {Purpose.SIMILAR_USERS: history.similar_users}
    return registration.model_copy(update={"consents": consents})
