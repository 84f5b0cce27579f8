"""The answer: a short list of habits for one person, with everything that is needed to explain, show and log it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import date, datetime


@dataclass(frozen=True)
class Item:
    """One habit on the list; `contributions` add up to `score`.

    `success_probability` is that of keeping the habit once adopted, None where the data cannot tell; with
    `success_interval` where one is known. `propensity` is the probability with which this habit stands on such a list,
    `by_lot` whether the last place was drawn. Best begun on `weekday` (0 Monday), `starts` its date where the moment of
    viewing is known, `part_of_day` None for any. `habit` is its row of the table `habits`, without what is missing.
    """

    rank: int
    habit_id: str
    name: str
    score: float
    success_probability: float | None
    contributions: dict[str, float]
    reasons: list[str] = field(default_factory=list)
    propensity: float = 1.0
    by_lot: bool = False
    weekday: int = 0
    starts: date | None = None
    part_of_day: str | None = None
    success_interval: tuple[float, float] | None = None
    habit: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Note:
    """What a list cannot give, or why it is short: the message `warning.<key>` says it; `values` fill its places."""

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendations:
    """A list for one person; `filtered` counts what each filter took away, by the reasons of `recommender.context`.

    For explanations: `person` is their row of the table `users` without what is missing and without barriers and
    gender, `neutral` the contributions of an average habit for them, `has_history` whether they acted on any habit,
    `compared` whether somebody new was compared with people of like age, minutes and gender who allow it.
    Explanations fill in the reasons of items, `warnings` (the `notes` in words) and `words` (headings by key).
    """

    user_id: str
    items: tuple[Item, ...]
    filtered: dict[str, int]
    model_version: str
    warnings: tuple[str, ...] = ()
    at: datetime | None = None
    shown_at: datetime | None = None
    """`at` as an instant, where the person's zone is known."""
    policy: str = ""
    language: str = "en"
    person: Mapping[str, Any] = field(default_factory=dict, repr=False)
    neutral: dict[str, float] = field(default_factory=dict, repr=False)
    has_history: bool = False
    compared: bool = False
    notes: tuple[Note, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the body of the command line and of the service, JSON-able."""
        return {
            "user_id": self.user_id,
            "items": [
                {
                    "rank": item.rank,
                    "habit_id": item.habit_id,
                    "name": item.name,
                    "score": item.score,
                    "success_probability": item.success_probability,
                    "contributions": item.contributions,
                    "reasons": item.reasons,
                }
                for item in self.items
            ],
            "filtered": self.filtered,
            "model_version": self.model_version,
        }

    def _repr_html_(self) -> str:
        """Show a small table in a notebook: what, how likely it is kept, why, and what the score is made of."""
        notes = "".join(f"<p>{html.escape(text)}</p>" for text in self.warnings)
        if not self.items:
            return notes
        rows = "".join(_row(item, self.words) for item in self.items)
        titles = (_word(f"table.{name}", self.words) for name in ("rank", "habit", "chance", "reasons", "score"))
        head = "".join(f"<th scope='col' style='text-align:left'>{title}</th>" for title in titles)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}"


def _word(key: str, words: Mapping[str, str]) -> str:
    return html.escape(words.get(key, key.partition(".")[2]))


def _points(value: float, words: Mapping[str, str]) -> str:
    """Return a part of a score in hundredths of the scale."""
    return f"{100 * value:.1f}".replace(".", words.get("decimal", "."))


def _row(item: Item, words: Mapping[str, str]) -> str:
    kept = "" if item.success_probability is None else f"{item.success_probability:.0%}"
    why = "<br>".join(html.escape(reason) for reason in item.reasons)
    parts = sorted(item.contributions.items(), key=lambda part: -abs(part[1]))
    bars = "".join(
        f"<div style='display:flex;align-items:center;gap:6px'>"
        f"<span style='width:11em'>{_word(f'part.{name}', words)}</span>"
        f"<span style='background:{'#0072b2' if value > 0 else '#d55e00'};height:8px;"
        f"width:{max(1, math.ceil(abs(value) * 200))}px'></span><span>{_points(value, words)}</span></div>"
        for name, value in parts
        if value
    )
    score = f"<details><summary>{_points(item.score, words)}</summary>{bars}</details>"
    cells = (str(item.rank), html.escape(item.name), kept, why, score)
    return "<tr>" + "".join(f"<td style='text-align:left;vertical-align:top'>{cell}</td>" for cell in cells) + "</tr>"
