"""What is known of one person: the base from the data and the events since, folded into features and into filters.

The fold does not depend on the order in which events arrive: of several entries for a day the strongest counts (done,
skipped, missed, unknown), as when datasets are merged; adoptions and abandonments are put in the order in which they
happened; of several responses to one recommendation the last counts, and viewing it least.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from habitlab.dataset.vocabulary import Purpose, Response, Status
from habitlab.recommender.since import Since, changes_of
from habitlab.serving.events import Stored
from habitlab.serving.state import instant, stamp

NONE = "."
DONE, MISSED = "d", "m"
STATUSES = {Status.DONE.value: DONE, Status.MISSED.value: MISSED, Status.SKIPPED.value: "s", Status.UNKNOWN.value: "u"}
COUNTED = (DONE, MISSED)
_STRENGTH = ".umsd"  # the strongest last

Priors = dict[str, list[float]]
"""Alpha and beta of the completion of "user" and of "habit" (pairs of a user and a habit)."""

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Base:
    """What the data say of one person."""

    zone: str = ""
    day_start: int = 0
    tracking: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Of each habit the first day (since 1970-01-01) and a letter for each day from then on."""
    adoptions: Sequence[tuple[str, str, str | None]] = ()
    """Habit, start and end."""
    accepted: int = 0
    rejected: int = 0
    ratings: int = 0

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(vars(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None) -> Base:
        """Read what `to_json` wrote; nothing is the base of somebody new."""
        return cls() if not text else cls(**json.loads(text))


@dataclass(frozen=True)
class History:
    """A person's base with the events folded in."""

    done: dict[str, int]
    counted: dict[str, int]
    adopted: int
    abandoned: int
    held: frozenset[str]
    """Adopted and not given up, so far as events say; not what the data alone say."""
    released: frozenset[str]
    given_up: dict[str, int]
    rejected_on: dict[str, int]
    accepted: int
    rejected: int
    ratings: int
    rated: dict[str, int]
    """The last rating of each habit, of events."""
    opted_out: bool | None
    """None: events do not tell."""
    similar_users: bool | None
    profiling: bool | None


def local_day(moment: datetime, zone: str, day_start: int = 0) -> int:
    """Return the local day of an instant, in days since 1970-01-01; an unknown zone is UTC."""
    return (local(moment, zone) - timedelta(hours=day_start)).date().toordinal() - _EPOCH.toordinal()


def local(moment: datetime, zone: str) -> datetime:
    """Return the moment on the clock of a zone, without the zone; an unknown zone is UTC."""
    try:
        return moment.astimezone(ZoneInfo(zone) if zone else UTC).replace(tzinfo=None)
    except (ZoneInfoNotFoundError, ValueError):
        return moment.astimezone(UTC).replace(tzinfo=None)


def fold(base: Base, events: Iterable[Stored]) -> History:
    """Fold events, in whatever order, into what the data say."""
    events = sorted(events, key=lambda event: (event.happened_at, event.sequence))

    def day_of(event: Stored) -> int:
        return local_day(event.happened_at, base.zone, base.day_start)

    done, counted = _days(base, events, day_of)
    adopted, abandoned, held, released = _adoptions(base, events)
    given_up, rejected_on = {}, {}
    for event in events:
        habit = event.payload.get("habit_id", "")
        if event.kind == "abandonment":
            given_up[habit] = day_of(event)
        elif event.kind == "response" and event.payload["response"] == Response.REJECTED:
            rejected_on[habit] = day_of(event)
        elif event.kind == "response" and event.payload["response"] == Response.ACCEPTED:
            rejected_on.pop(habit, None)  # a change of mind
    said = _responses(events)
    consents = {e.payload["purpose"]: e.payload["granted"] for e in events if e.kind == "consent"}
    personal = consents.get(Purpose.PERSONALISATION)
    return History(
        done=done,
        counted=counted,
        adopted=adopted,
        abandoned=abandoned,
        held=held,
        released=released,
        given_up=given_up,
        rejected_on=rejected_on,
        accepted=base.accepted + said.count(Response.ACCEPTED),
        rejected=base.rejected + said.count(Response.REJECTED),
        ratings=base.ratings + sum(event.kind == "rating" for event in events),
        rated={event.payload["habit_id"]: int(event.payload["rating"]) for event in events if event.kind == "rating"},
        opted_out=None if personal is None else not personal,
        similar_users=consents.get(Purpose.SIMILAR_USERS),
        profiling=consents.get(Purpose.PROFILING),
    )


def _days(base: Base, events: Sequence[Stored], day_of: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Days done, and days done or missed, of each habit."""
    done = {habit: letters.count(DONE) for habit, (_, letters) in base.tracking.items()}
    counted = {habit: done[habit] + letters.count(MISSED) for habit, (_, letters) in base.tracking.items()}
    told: dict[tuple[str, int], str] = {}
    for event in events:
        if event.kind != "completion":
            continue
        habit = event.payload["habit_id"]
        stated = event.payload.get("date")
        day = day_of(event) if stated is None else date.fromisoformat(stated).toordinal() - _EPOCH.toordinal()
        first, letters = base.tracking.get(habit, (day, ""))
        known = letters[day - first] if 0 <= day - first < len(letters) else NONE
        before = told.get((habit, day), known)
        after = max(before, STATUSES[event.payload["status"]], key=_STRENGTH.index)
        told[habit, day] = after
        done[habit] = done.get(habit, 0) + (after == DONE) - (before == DONE)
        counted[habit] = counted.get(habit, 0) + (after in COUNTED) - (before in COUNTED)
    return done, counted


def _adoptions(base: Base, events: Sequence[Stored]) -> tuple[int, int, frozenset[str], frozenset[str]]:
    """Adoptions, abandonments, and what events say is held, or no longer held.

    Who holds a habit cannot adopt it, and who does not cannot give it up: such an event changes no count.
    """
    changes: dict[str, list[tuple[str, int]]] = {}  # 1 adopted, 0 given up
    for event in events:
        if event.kind in ("adoption", "abandonment"):
            changes.setdefault(event.payload["habit_id"], []).append(
                (stamp(event.happened_at), int(event.kind == "adoption"))
            )
    adopted = abandoned = 0
    for habit, start, end in base.adoptions:
        if habit in changes:
            changes[habit] += [(start, 1)] + ([] if end is None else [(end, 0)])
        else:
            adopted, abandoned = adopted + 1, abandoned + (end is not None)
    held: set[str] = set()
    released: set[str] = set()
    for habit, told in changes.items():
        holds = False
        for _, starts in sorted(told):
            adopted, abandoned = adopted + (starts and not holds), abandoned + (holds and not starts)
            holds = bool(starts)
        (held if holds else released).add(habit)
    for event in events:  # what is tracked or accepted is held, unless it was given up later
        used = event.kind == "completion" or (
            event.kind == "response" and event.payload["response"] == Response.ACCEPTED
        )
        if used and not _given_up_after(event, changes.get(event.payload["habit_id"], [])):
            held.add(event.payload["habit_id"])
            released.discard(event.payload["habit_id"])
    return int(adopted), int(abandoned), frozenset(held), frozenset(released)


def _given_up_after(event: Stored, changes: Sequence[tuple[str, int]]) -> bool:
    last = max(changes, default=None)
    return last is not None and last[1] == 0 and instant(last[0]) >= event.happened_at


def _responses(events: Sequence[Stored]) -> list[str]:
    """What was said in the end to each recommendation; a response that names none is to one of its own."""
    last: dict[str, str] = {}
    for event in events:
        if event.kind == "response":
            place = event.payload.get("recommendation") or f"event {event.event_id}"
            if event.payload["response"] != Response.VIEWED or place not in last:
                last[place] = event.payload["response"]
    return list(last.values())


def features(history: History, priors: Priors) -> dict[str, Any]:
    """Return the values of features: of the "user", and of each of their "habits"; and what "filters" have to know.

    `completion` is the posterior mean of the completion rate, `alpha` and `beta` its Beta distribution; the other names
    are those of `behavioural.user_features` and `temporal.summary`. All of it is JSON-able.
    """
    done, counted = sum(history.done.values()), sum(history.counted.values())
    return {
        "user": {
            "adopted": history.adopted,
            "abandoned": history.abandoned,
            "held": history.adopted - history.abandoned,
            "counted_days": counted,
            "completion_rate": done / counted if counted else None,
            "accepted": history.accepted,
            "rejected": history.rejected,
            "ratings": history.ratings,
            **_posterior(done, counted, priors["user"]),
        },
        "habits": {
            habit: {
                "done": history.done[habit],
                "missed": history.counted[habit] - history.done[habit],
                **_posterior(history.done[habit], history.counted[habit], priors["habit"]),
            }
            for habit in sorted(history.done)
        },
        "filters": {
            "held": sorted(history.held),
            "released": sorted(history.released),
            "rejected": history.rejected_on,
            "given_up": history.given_up,
            "rated": history.rated,
            "similar_users": history.similar_users,
            "profiling": history.profiling,
        },
    }


def _posterior(done: int, counted: int, prior: Sequence[float]) -> dict[str, float]:
    alpha, beta = prior[0] + done, prior[1] + counted - done
    return {"completion": alpha / (prior[0] + prior[1] + counted), "alpha": alpha, "beta": beta}


def since(now: Mapping[str, Any], fitted: Mapping[str, Any], shown: Sequence[tuple[str, int]] = ()) -> Since:
    """Return what happened since the fit, from features: `now` of all events, `fitted` of those the model learnt."""
    filters = now["filters"]
    return Since(
        held=frozenset(filters["held"]),
        released=frozenset(filters["released"]),
        rejected=filters["rejected"],
        given_up=filters["given_up"],
        shown=tuple(shown),
        success=_log_odds(now["user"]) - _log_odds(fitted["user"]),
        opinions=changes_of(filters["rejected"], filters.get("rated", {})),
    )


def _log_odds(posterior: Mapping[str, float]) -> float:
    return math.log(posterior["alpha"] / posterior["beta"])
