"""What a person tells at registration: one validated record, whether a form or a JSON file collected it.

Nothing is asked that could name the person: no user name, e-mail or password, and texts that hold an e-mail address are
refused. A field that is not answered is missing (`None`); there is no default that could pass for an answer. Not
answering is not consent: nobody, minors included, is compared with similar people until they allow it in so many words.
"""

from __future__ import annotations

import difflib
import json
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from habitlab.dataset.catalogue import normalise_name
from habitlab.dataset.schema import TABLES, coerce
from habitlab.dataset.vocabulary import (
    Activity,
    Category,
    Chronotype,
    Gender,
    LearningStyle,
    Level,
    Purpose,
    TimeOfDay,
)

MOST_HABITS, LONGEST_NAME = 100, 200
MOST_PROBLEMS = 30
"""That are named at once: more than there are questions, fewer than the fields that somebody may make up."""
NOT_ASKED = {
    "user_id": "made here, so that it tells nothing about the person",
    "registered_at": "taken from the clock",
    "day_start": "a setting of the tracker, not an answer",
    "experience_level": "seen from what the person does",
}
"""Columns of `users` that a form does not ask for, and why."""

_USERS = TABLES["users"].columns
_ADDRESS = re.compile(r"[^\s@<>()\[\],;:]+@[^\s@<>()\[\],;:]+\.[^\s@<>()\[\],;:.]{2,}")
T = TypeVar("T", bound=StrEnum)


@dataclass(frozen=True)
class Problem:
    """One answer that cannot be taken: `kind` and `values` let any language say why."""

    field: str
    kind: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Say it in English."""
        return f"{self.field}: {_SAYS[self.kind].format(**self.values)}"


_SAYS = {
    "unknown_field": "there is no such question{hint}",
    "credentials": "names, e-mail addresses and passwords are never kept; leave it out",
    "not_whole": "{given} is not a whole number",
    "not_number": "{given} is not a number",
    "too_low": "{given} is below {limit}",
    "too_high": "{given} is above {limit}",
    "not_a_choice": "{given} is not one of {choices}",
    "not_text": "{given} is not a text",
    "not_list": "{given} is not a list",
    "not_truth": "{given} is not true or false",
    "too_long": "longer than {limit} characters",
    "too_many": "more than {limit} entries",
    "address": "it holds an e-mail address; leave out what could name you",
    "zone": "{given} is no time zone, such as Europe/Berlin{hint}",
}


class RegistrationError(ValueError):
    """A registration record holds answers that cannot be taken; `problems` has one entry each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take the problems; the message is a line for each."""
        self.problems = tuple(problems)
        super().__init__("the registration cannot be taken:\n" + "\n".join(f"  {problem}" for problem in problems))


def _no_address(text: str) -> str:
    if _ADDRESS.search(text):
        raise ValueError("address")
    return text


def _known_zone(zone: str) -> str:
    if zone not in _zones():
        raise ValueError("zone")
    return zone


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _blank_is_missing(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _each_once(values: list[T]) -> list[T]:
    """In the order of the vocabulary, so that one set of answers has one record."""
    return [choice for choice in type(values[0]) if choice in values] if values else []


def _within(column: str) -> Any:
    return Field(ge=_USERS[column].low, le=_USERS[column].high)


_Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_no_address),
]


class Registration(BaseModel):
    """The answers of one person. `None` is not answered; an empty list is the answer "none of them"."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    age: Annotated[Annotated[int, _within("age")] | None, BeforeValidator(_whole)] = None
    gender: Gender | None = None
    zone: Annotated[str, AfterValidator(_known_zone)] | None = None
    preferred_time: TimeOfDay | None = None
    existing_habits: Annotated[list[_Name], Field(max_length=MOST_HABITS)] | None = None
    """Habits held already: ids or names, as the person knows them."""
    improvement_areas: Annotated[list[Category], AfterValidator(_each_once)] | None = None
    activity_preferences: Annotated[list[Activity], AfterValidator(_each_once)] | None = None
    learning_style: LearningStyle | None = None
    difficulty_preference: Level | None = None
    chronotype: Chronotype | None = None
    time_commitment: Annotated[float, _within("time_commitment")] | None = None
    """Minutes a day, a number and not a label: whatever reads it needs no list of labels."""
    barriers: Annotated[
        Annotated[str, Field(max_length=_USERS["barriers"].longest), AfterValidator(_no_address)] | None,
        BeforeValidator(_blank_is_missing),
    ] = None
    goal_set: bool | None = None
    consents: dict[Purpose, bool] | None = None
    """What the person allows or refuses in so many words, by purpose."""

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read a record from a JSON text, or from the file at a `Path`.

        Raises
        ------
        RegistrationError
            An answer cannot be taken: all such answers are named at once.
        ValueError
            The text is not a JSON object.
        FileNotFoundError
            Nothing is at the path.
        """
        if isinstance(source, Path) and not source.exists():
            raise FileNotFoundError(f"no registration record at {source}")
        try:
            answers = json.loads(source.read_text("utf-8") if isinstance(source, Path) else source)
        except ValueError as error:
            raise ValueError(f"the registration is not JSON: {error}") from None
        if not isinstance(answers, dict):
            raise ValueError('the registration is not a JSON object, such as {"age": 34}')
        return cls.of(answers)

    @classmethod
    def of(cls, answers: Mapping[str, Any]) -> Self:
        """Check plain answers, as a form or JSON holds them; raises `RegistrationError`."""
        try:
            text = json.dumps(answers, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:  # a ValueError is half a character
            raise ValueError(f"answers are plain values, as in JSON: {error}") from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RegistrationError(_problems(error)) from None

    def to_json(self) -> str:
        """Return the answered fields as JSON; `from_json` reads it back to an equal record."""
        return self.model_dump_json(exclude_none=True, indent=1)

    def to_row(self, user_id: str = "new", *, habits: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return a `users` table of one row, in the dtypes of the contract.

        With `habits`, the names of existing habits (in either language) become the ids of that table; what it does
        not know stays as it was written.
        """
        row: dict[str, Any] = {"user_id": user_id}
        row |= {name: getattr(self, name) for name in _USERS if name in type(self).model_fields}
        if self.existing_habits is not None and habits is not None:
            row["existing_habits"] = _as_ids(self.existing_habits, habits)
        return coerce("users", pd.DataFrame({name: [value] for name, value in row.items()}))

    def granted(self, purpose: Purpose) -> bool:
        """Whether the person allowed this in so many words."""
        return (self.consents or {}).get(purpose, False)

    def to_consents(self, user_id: str, at: pd.Timestamp) -> pd.DataFrame:
        """Return the rows of table `consents`: one for each purpose, refused where it was not allowed."""
        rows = [{"user_id": user_id, "purpose": p.value, "at": at, "granted": self.granted(p)} for p in Purpose]
        return coerce("consents", pd.DataFrame(rows))


def pseudonym(generator: np.random.Generator) -> str:
    """Return a new user id that is drawn, and so tells nothing about the person. 64 bits: two never meet."""
    return f"p{generator.integers(2**64, dtype=np.uint64):016x}"


def _as_ids(named: Sequence[str], habits: pd.DataFrame) -> list[str]:
    ids = set(habits["habit_id"])
    by_name: dict[str, str] = {}
    for column in ("name_en", "name_ru"):
        if column in habits.columns:
            known = habits.loc[habits[column].notna(), ["habit_id", column]]
            for habit_id, name in zip(known["habit_id"], known[column], strict=True):
                by_name.setdefault(normalise_name(name), habit_id)
    return list(dict.fromkeys(name if name in ids else by_name.get(normalise_name(name), name) for name in named))


_CREDENTIALS = {"username", "name", "email", "mail", "password", "phone", "login"}
_KINDS = {
    "int_type": "not_whole",
    "int_from_float": "not_whole",
    "int_parsing": "not_whole",
    "float_type": "not_number",
    "finite_number": "not_number",
    "string_type": "not_text",
    "string_too_short": "not_text",
    "list_type": "not_list",
    "bool_type": "not_truth",
    "dict_type": "not_list",
    "string_too_long": "too_long",
    "too_long": "too_many",
    "greater_than_equal": "too_low",
    "less_than_equal": "too_high",
    "enum": "not_a_choice",
    "extra_forbidden": "unknown_field",
}


def _problems(error: ValidationError) -> list[Problem]:
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0])
        if name not in found:  # the first says enough
            found[name] = _problem(name, detail)
        if len(found) == MOST_PROBLEMS:
            break
    return list(found.values())


def _problem(name: str, detail: Mapping[str, Any]) -> Problem:
    context = detail.get("ctx", {})
    kind = _KINDS.get(detail["type"], str(context.get("error", "")))
    given = json.dumps(detail["input"], ensure_ascii=False)
    values: dict[str, Any] = {"given": given if len(given) <= 60 else given[:57] + "..."}
    match kind:
        case "unknown_field" if name.casefold().replace("-", "").replace("_", "") in _CREDENTIALS:
            return Problem(name, "credentials", {})  # and never repeat what was given
        case "unknown_field":
            values["hint"] = _nearest(name, Registration.model_fields)
        case "zone":
            values["hint"] = _nearest(str(detail["input"]), _zones())
        case "too_low" | "too_high":
            values["limit"] = int(context.get("ge", context.get("le")))
        case "too_long" | "too_many":
            values = {"limit": context["max_length"]}
        case "address":
            values = {}
        case "not_a_choice":
            values["choices"] = ", ".join(choices(name))
    return Problem(name, kind, values)


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def choices(name: str) -> list[str]:
    """Return the values that a field of the form offers, from the contract; empty where any answer goes."""
    enumeration = Purpose if name == "consents" else _USERS[name].choices if name in _USERS else None
    return [choice.value for choice in enumeration] if enumeration else []
