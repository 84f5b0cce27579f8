"""What people did, as a client reports it: checked, kept exactly once, and read back in the order of arrival."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from habitlab.dataset.vocabulary import AdoptionSource, Purpose, Response, Status
from habitlab.serving import state

MOST_EVENTS = 1000
"""In one request."""
AHEAD = timedelta(minutes=5)
"""How far a client's clock may be ahead of ours."""
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)


def _not_ancient(moment: datetime) -> datetime:
    if moment < OLDEST:
        raise ValueError(f"nothing happened before {OLDEST:%Y-%m-%d}")
    return moment


_Day = date
_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
EventId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._:-]+$")]
UserId = _Name
HabitId = _Name


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    event_id: EventId
    """Given by the client: the same event sent twice counts once."""
    user_id: UserId
    happened_at: Annotated[AwareDatetime, AfterValidator(_not_ancient)]
    """Instant with a zone."""


class Completion(_Event):
    """What became of a habit on a scheduled day; of several for one day the strongest counts: done, skipped, missed."""

    kind: Literal["completion"]
    habit_id: HabitId
    status: Status = Status.DONE
    date: _Day | None = None
    """Local day; that of `happened_at` when left out."""
    minutes: Annotated[float, Field(ge=0, le=1440)] | None = None
    value: float | None = None

    @model_validator(mode="after")
    def _date_is_past(self) -> Self:
        """A day far ahead would become the last day of the data, one far back a history of thousands of years."""
        if self.date is not None:
            ahead = self.date > OLDEST.date() and self.date - timedelta(days=1) > self.happened_at.date()
            if self.date < OLDEST.date() or ahead:  # in another zone it may be tomorrow already
                raise ValueError(f"date is from {OLDEST:%Y-%m-%d} to the day on which it happened")
        return self


class Adoption(_Event):
    """A habit was taken up."""

    kind: Literal["adoption"]
    habit_id: HabitId
    source: AdoptionSource = AdoptionSource.CHOSEN


class Abandonment(_Event):
    """A habit was given up."""

    kind: Literal["abandonment"]
    habit_id: HabitId


class Answer(_Event):
    """What somebody did with a habit on their list."""

    kind: Literal["response"]
    habit_id: HabitId
    response: Response
    recommendation: EventId | None = None
    """`event_id` of the exposure; that of the latest list with this habit when left out."""


class Rating(_Event):
    """A habit was rated."""

    kind: Literal["rating"]
    habit_id: HabitId
    rating: Annotated[int, Field(ge=1, le=5)]
    comment: Annotated[str, Field(max_length=2000)] | None = None


class Survey(_Event):
    """A question of a survey was answered."""

    kind: Literal["survey"]
    survey: _Name
    question: _Name
    answer: float
    sent_at: AwareDatetime | None = None


class Consent(_Event):
    """A use of the data was allowed or refused."""

    kind: Literal["consent"]
    purpose: Purpose
    granted: bool


KINDS = ("completion", "adoption", "abandonment", "response", "rating", "survey", "consent")
Event = Annotated[Completion | Adoption | Abandonment | Answer | Rating | Survey | Consent, Field(discriminator="kind")]
Events = Annotated[list[Event], Field(min_length=1, max_length=MOST_EVENTS)]
_ONE: TypeAdapter[Any] = TypeAdapter(Event)
_MANY: TypeAdapter[Any] = TypeAdapter(Events)


@dataclass(frozen=True)
class Problem:
    """Why an event cannot be taken: its place in the request, the field, and what is wrong."""

    index: int
    field: str
    problem: str


class EventError(ValueError):
    """Events that cannot be taken; `problems` has an entry for each mistake."""

    def __init__(self, problems: Sequence[Problem], *, malformed: bool = False) -> None:
        """Take the problems; `malformed`: the text is no JSON."""
        self.problems, self.malformed = tuple(problems), malformed
        super().__init__("; ".join(f"event {p.index}: {p.field}: {p.problem}" for p in problems))


class ConflictError(EventError):
    """An `event_id` that is known already came with another content."""


@dataclass(frozen=True)
class Stored:
    """An event as it is kept; `payload` holds what is special to its kind."""

    sequence: int
    event_id: str
    user_id: str
    kind: str
    happened_at: datetime
    received_at: datetime
    payload: dict[str, Any]


def parse(body: bytes) -> list[Any]:
    """Read one event or a list of events from JSON; EventError for what cannot be taken (all mistakes at once)."""
    single = body.lstrip()[:1] != b"["
    try:
        return [_ONE.validate_json(body)] if single else _MANY.validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False)[:20]
        malformed = details[0]["type"] == "json_invalid"
        raise EventError([_problem(detail, single) for detail in details], malformed=malformed) from None


def _problem(detail: Any, single: bool) -> Problem:
    place = [str(part) for part in detail["loc"]]
    index = 0 if single or not place else int(place.pop(0))
    if detail["type"].startswith("union_tag"):
        return Problem(index, "kind", f"is one of {', '.join(KINDS)}")
    fields = place[1:] if place[:1] and place[0] in KINDS else place  # the first part is the kind
    fields = fields or ["event"]
    return Problem(index, ".".join(fields)[:60], str(detail["msg"])[:200])  # never what was given: it may be personal


def check_times(events: Sequence[Any], now: datetime) -> None:
    """EventError for events from the future."""
    late = [
        Problem(index, "happened_at", f"is in the future; it is {state.stamp(now)} here")
        for index, event in enumerate(events)
        if event.happened_at > now + AHEAD
    ]
    if late:
        raise EventError(late)


def append(connection: sqlite3.Connection, events: Sequence[Any], now: datetime) -> list[str]:
    """Keep events, each `event_id` once, and tell of each "accepted" or "duplicate". To be called in a transaction.

    Raises `ConflictError` when an `event_id` is known with another content.
    """
    results, conflicts = [], []
    for index, event in enumerate(events):
        content = (event.user_id, event.kind, state.stamp(event.happened_at), _payload(event))
        new = connection.execute(
            "INSERT INTO events (event_id, user_id, kind, happened_at, received_at, payload) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (event_id) DO NOTHING",
            (event.event_id, *content[:3], state.stamp(now), content[3]),
        ).rowcount
        if not new:
            known = connection.execute(
                "SELECT user_id, kind, happened_at, payload FROM events WHERE event_id = ?", (event.event_id,)
            ).fetchone()
            if known != content:
                conflicts.append(Problem(index, "event_id", "is known already, with another content"))
        results.append("accepted" if new else "duplicate")
    if conflicts:
        raise ConflictError(conflicts)
    return results


def _payload(event: Any) -> str:
    special = event.model_dump(mode="json", exclude={"event_id", "user_id", "kind", "happened_at"}, exclude_none=True)
    return json.dumps(special, sort_keys=True, ensure_ascii=False)


_COLUMNS = "sequence, event_id, user_id, kind, happened_at, received_at, payload"


def read_after(connection: sqlite3.Connection, sequence: int, most: int = 10_000) -> list[Stored]:
    """Return the events that arrived after one, in the order of arrival: at most `most`."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, most)
    )
    return [_stored(row) for row in rows]


def of_user(connection: sqlite3.Connection, user_id: str, after: int = 0) -> list[Stored]:
    """Return the events of one person that arrived after one, in the order in which they happened."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM events WHERE user_id = ? AND sequence > ? ORDER BY happened_at, sequence",
        (user_id, after),
    )
    return [_stored(row) for row in rows]


def _stored(row: tuple[Any, ...]) -> Stored:
    sequence, event_id, user_id, kind, happened, received, payload = row
    return Stored(
        sequence, event_id, user_id, kind, state.instant(happened), state.instant(received), json.loads(payload)
    )
