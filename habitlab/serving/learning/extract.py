"""What a service was told since, as rows of a dataset: merged by their keys, so that reading it again adds nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from habitlab.dataset import Dataset
from habitlab.dataset.merge import merge
from habitlab.dataset.registration import Registration
from habitlab.dataset.schema import coerce
from habitlab.dataset.vocabulary import Response
from habitlab.models.interactions import days_of
from habitlab.serving import state
from habitlab.serving.events import Stored, read_after

CONSUMER = "retrain"


@dataclass(frozen=True, eq=False)
class Extract:
    """A dataset with the events merged in. `sequence`: the last event in it; `new`: events since the last time;
    `left_out`: events of people or about habits that nobody knows.
    """

    dataset: Dataset
    sequence: int
    new: int
    left_out: int


def extract(folder: str | Path, dataset: Dataset) -> Extract:
    """Merge all that the service in a folder was told into a dataset; without a service, the dataset as it is.

    All events are read each time, not those since the last only: the data and the events are the one truth, no merged
    copy of it is kept in which a person to be forgotten would have to be looked for. The watermark (`mark`) tells what
    is new.
    """
    if not (Path(folder) / state.DATABASE).exists():
        return Extract(dataset, 0, 0, 0)
    events: list[Stored] = []
    with closing(state.connect(folder)) as connection:
        while block := read_after(connection, events[-1].sequence if events else 0):
            events += block
        seen = state.watermark(connection, CONSUMER)
        registered = connection.execute(
            "SELECT user_id, registration, registered_at FROM profiles WHERE registration IS NOT NULL ORDER BY user_id"
        ).fetchall()
        exposures = pd.read_sql(
            "SELECT event_id, user_id, habit_id, shown_at, position, policy, propensity FROM exposures", connection
        )
    people = [Registration.of(json.loads(text)).to_row().assign(user_id=user, registered_at=at)
              for user, text, at in registered]  # fmt: skip
    if people:
        dataset = merge(dataset, Dataset(users=pd.concat(people, ignore_index=True)))
    merged, left_out = with_events(dataset, events, exposures)
    new = sum(event.sequence > seen for event in events)
    return Extract(merged, events[-1].sequence if events else 0, new, left_out)


def mark(folder: str | Path, sequence: int, now: Any) -> None:
    """Remember that everything up to this event was learnt from."""
    with closing(state.connect(folder)) as connection, state.transaction(connection):
        state.set_watermark(connection, CONSUMER, sequence, now)


def with_events(
    dataset: Dataset, events: Sequence[Stored], exposures: pd.DataFrame | None = None
) -> tuple[Dataset, int]:
    """Return a dataset with events merged in, and the number of those whose user or habit it does not know.

    Events count as `history.fold` counts them: in whatever order they arrived, each `event_id` once, the strongest
    status of a day, adoptions and abandonments by turns, the last response to a recommendation (viewing it least).
    """
    columns = ["event_id", "sequence", "user_id", "kind", "at"]
    rows = pd.DataFrame([{**event.payload, **_plain(event)} for event in events]) if events else pd.DataFrame()
    rows = rows.drop_duplicates("event_id") if events else rows.reindex(columns=columns)
    known = rows["user_id"].isin(dataset.users["user_id"])
    if "habit_id" in rows:
        known &= rows["habit_id"].isna() | rows["habit_id"].isin(dataset.habits["habit_id"])
    rows = rows[known].sort_values(["at", "sequence"], kind="stable")
    shown = _shown(dataset, exposures)
    new = {
        "habit_tracking": _tracking(dataset, _of(rows, "completion", "habit_id", "status", "date", "minutes", "value")),
        "adoptions": _adoptions(dataset, rows[rows["kind"].isin(["adoption", "abandonment"])]),
        "recommendations": _responses(shown, _of(rows, "response", "habit_id", "response", "recommendation")),
        "feedback": _of(rows, "rating", "habit_id", "rating", "comment").drop(columns=["event_id", "sequence"]),
        "surveys": _of(rows, "survey", "survey", "question", "sent_at", "answer")
        .rename(columns={"at": "answered_at"})
        .drop(columns=["event_id", "sequence"])
        .drop_duplicates(["user_id", "survey", "question"], keep="last"),
        "consents": _of(rows, "consent", "purpose", "granted").drop(columns=["event_id", "sequence"]),
    }
    new["feedback"] = new["feedback"].drop_duplicates(["user_id", "habit_id", "at"], keep="last")
    new["consents"] = new["consents"].drop_duplicates(["user_id", "purpose", "at"], keep="last")
    tables = {name: coerce(name, table) for name, table in new.items() if len(table)}
    return merge(dataset, Dataset(**tables)), int((~known).sum())


def _plain(event: Stored) -> dict[str, Any]:
    at = pd.Timestamp(event.happened_at)
    return {
        "event_id": event.event_id,
        "sequence": event.sequence,
        "user_id": event.user_id,
        "kind": event.kind,
        "at": at,
    }


def _of(rows: pd.DataFrame, kind: str, *columns: str) -> pd.DataFrame:
    """Events of a kind with these columns, missing where no event has one."""
    return rows[rows["kind"] == kind].reindex(columns=["event_id", "sequence", "user_id", "at", *columns])


def _tracking(dataset: Dataset, told: pd.DataFrame) -> pd.DataFrame:
    if told.empty:
        return told
    local = days_of(dataset.replace(feedback=told[["user_id", "habit_id", "at"]]), "feedback", "at")
    date = pd.to_datetime(told["date"]).fillna(pd.Series(local.astype("datetime64[s]"), told.index))
    table = told.assign(date=date.dt.as_unit("s")).drop(columns=["event_id", "sequence"])
    first = merge(Dataset(), Dataset(habit_tracking=table))  # of several for a day the strongest
    return first.habit_tracking


def _adoptions(dataset: Dataset, told: pd.DataFrame) -> pd.DataFrame:
    """Adoptions with their ends, of the pairs that events are about, from all that is known of them."""
    if told.empty:
        return told
    pairs = told[["user_id", "habit_id"]].drop_duplicates()
    before = dataset.adoptions.merge(pairs, on=["user_id", "habit_id"])
    parts = [
        before.assign(at=before["adopted_at"], starts=1),
        before.assign(at=before.get("abandoned_at"), starts=0).dropna(subset=["at"]),
        told.assign(starts=(told["kind"] == "adoption").astype(int)),
    ]
    columns = ["user_id", "habit_id", "at", "starts", "source"]
    turns = pd.concat([part.reindex(columns=columns) for part in parts if len(part)], ignore_index=True)
    turns = turns.sort_values(["user_id", "habit_id", "at", "starts"], kind="stable", ignore_index=True)
    pair = turns.groupby(["user_id", "habit_id"], sort=False)
    # Who holds a habit cannot adopt it, and who does not cannot give it up.
    turns = turns[turns["starts"] != pair["starts"].shift().fillna(0)]
    ends = turns["at"].shift(-1).where((turns["starts"].shift(-1) == 0) & (turns["starts"] == 1))
    held = turns.assign(adopted_at=turns["at"], abandoned_at=ends)[turns["starts"] == 1]
    return held[["user_id", "habit_id", "adopted_at", "abandoned_at", "source"]]


def _shown(dataset: Dataset, exposures: pd.DataFrame | None) -> pd.DataFrame:
    if exposures is None or exposures.empty:
        return dataset.recommendations.iloc[:0]
    known = exposures["user_id"].isin(dataset.users["user_id"]) & exposures["habit_id"].isin(dataset.habits["habit_id"])
    return coerce("recommendations", exposures[known])


def _responses(shown: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """Exposures with the last response to each; a response that names none is to the latest list with that habit."""
    if told.empty:
        return shown
    loose = told["recommendation"].isna()
    if len(shown):
        lists = shown[["event_id", "user_id", "habit_id", "shown_at"]].rename(columns={"event_id": "list"})
        lists = lists.sort_values("shown_at").astype({"user_id": object, "habit_id": object})
        left = told[loose].astype({"user_id": object, "habit_id": object}).sort_values("at")
        left = left.assign(at=left["at"].dt.as_unit("us"))
        found = pd.merge_asof(left, lists, left_on="at", right_on="shown_at", by=["user_id", "habit_id"])
        named = dict(zip(found["event_id"], found["list"], strict=True))
        told = told.assign(recommendation=told["recommendation"].where(~loose, told["event_id"].map(named)))
    told = told.dropna(subset=["recommendation"])
    told = told.assign(said=told["response"] != Response.VIEWED)
    last = told.sort_values(["said", "at", "sequence"], kind="stable").drop_duplicates("recommendation", keep="last")
    answers = last.rename(columns={"recommendation": "of", "at": "responded_at"})[
        ["of", "user_id", "habit_id", "response", "responded_at"]
    ]
    known = shown.drop(columns=["response", "responded_at"], errors="ignore").set_index("event_id")
    both = known.join(answers.set_index("of")[["response", "responded_at"]]) if len(known) else known
    others = answers[~answers["of"].isin(known.index)].rename(columns={"of": "event_id"})
    parts = [part for part in (both.reset_index(), others) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else shown
