"""The OpenAPI document of the service, made from the models that check what comes in."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from habitlab import __version__
from habitlab.dataset.registration import Registration
from habitlab.serving.events import Event, Events
from habitlab.serving.lists import LEVELS

_JSON = "application/json"
_REFS = "#/components/schemas/{model}"

_ITEM = {
    "type": "object",
    "required": ["rank", "habit_id", "name", "score", "success_probability", "contributions", "reasons"],
    "additionalProperties": False,
    "properties": {
        "rank": {"type": "integer", "minimum": 1},
        "habit_id": {"type": "string"},
        "name": {"type": "string"},
        "score": {"type": "number", "description": "the sum of the contributions", "minimum": 0, "maximum": 1},
        "success_probability": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
        "reasons": {"type": "array", "items": {"type": "string"}},
    },
}
_LIST = {
    "type": "object",
    "required": ["user_id", "items", "filtered", "model_version", "served_from"],
    "additionalProperties": False,
    "properties": {
        "user_id": {"type": "string"},
        "items": {"type": "array", "items": _ITEM},
        "filtered": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
        "model_version": {"type": "string"},
        "served_from": {"enum": list(LEVELS)},
    },
}
_TAKEN = {
    "type": "object",
    "required": ["accepted", "duplicates", "results"],
    "properties": {
        "accepted": {"type": "integer", "minimum": 0},
        "duplicates": {"type": "integer", "minimum": 0},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["event_id", "status"],
                "properties": {
                    "event_id": {"type": "string"},
                    "status": {"enum": ["accepted", "duplicate"]},
                },
            },
        },
    },
}
_PERSON = {
    "content": {
        _JSON: {
            "schema": {"type": "object", "required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
        }
    }
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "problem"],
                "properties": {
                    "index": {"type": "integer"},
                    "field": {"type": "string"},
                    "problem": {"type": "string"},
                },
            },
        },
    },
}
_READY = {
    "type": "object",
    "required": ["ready", "checks"],
    "properties": {
        "ready": {"type": "boolean"},
        "checks": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_PARAMETERS = [
    {
        "name": "user_id",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[^\x00-\x1f\x7f]+$"},
    },
    {"name": "k", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5}},
    {
        "name": "lang",
        "in": "query",
        "description": "language of names and reasons; an unknown one is answered in English, with a header Warning",
        "schema": {"type": "string", "pattern": "^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,3}$", "default": "en"},
    },
    {
        "name": "at",
        "in": "query",
        "description": "moment on the person's own clock, without a zone, such as 2026-01-05T07:30, from 2000 to 2100; "
        "now when left out",
        "schema": {
            "type": "string",
            "pattern": r"^20[0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"
            r"02-(0[1-9]|1[0-9]|2[0-8]))(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?)?$",
        },
    },
]
_MEANINGS = {
    "400": "not understood",
    "401": "without the right token",
    "404": "nobody has this user_id, or no habit this habit_id",
    "409": "an event_id or Idempotency-Key is known with another content",
    "413": "too large",
    "415": "not JSON",
    "422": "understood, but against the rules",
    "429": "too many requests",
    "500": "a mistake in HabitLab",
    "503": "cannot be kept or read now; try again",
}


def document() -> dict[str, Any]:
    """Return the document as JSON-able values."""
    events = TypeAdapter(Event | Events).json_schema(ref_template=_REFS, mode="validation")
    person = Registration.model_json_schema(ref_template=_REFS)
    schemas = {**events.pop("$defs", {}), **person.pop("$defs", {})}
    schemas |= {"Events": events, "Registration": person, "List": _LIST, "Taken": _TAKEN, "Error": _ERROR}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HabitLab",
            "version": __version__,
            "description": "Recommends habits, and takes what people did. See docs/serving.md.",
        },
        "paths": {
            "/v1/recommend": {
                "get": {
                    "operationId": "recommend",
                    "summary": "A list of habits for one person",
                    "parameters": _PARAMETERS,
                    "responses": {
                        "200": {
                            "description": "the list",
                            "headers": {
                                "Habitlab-Exposure": {
                                    "description": "the places on the list are the recommendations <this>-<rank>",
                                    "schema": {"type": "string"},
                                },
                            },
                            "content": _content("List"),
                        },
                        **_errors("400", "401", "404", "429", "500", "503"),
                    },
                }
            },
            "/v1/events": {
                "post": {
                    "operationId": "events",
                    "summary": "What people did: one event or a list; all are kept, or none",
                    "requestBody": {"required": True, "content": _content("Events")},
                    "responses": {
                        "201": {"description": "kept, on disk", "content": _content("Taken")},
                        "200": {"description": "all known already", "content": _content("Taken")},
                        **_errors("400", "401", "404", "409", "413", "415", "422", "429", "500", "503"),
                    },
                }
            },
            "/v1/users": {
                "post": {
                    "operationId": "register",
                    "summary": "Somebody new",
                    "parameters": [
                        {
                            "name": "Idempotency-Key",
                            "in": "header",
                            "description": "the client's name of this request; sent again it makes nobody new",
                            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,100}$"},
                        }
                    ],
                    "requestBody": {"required": True, "content": _content("Registration")},
                    "responses": {
                        "201": {"description": "their user_id, which tells nothing about them"} | _PERSON,
                        "200": {"description": "the one given for this Idempotency-Key before"} | _PERSON,
                        **_errors("400", "401", "409", "413", "415", "422", "429", "500", "503"),
                    },
                }
            },
            "/healthz": {"get": _plain("health", "Whether the process lives", {"type": "object"})},
            "/readyz": {
                "get": _plain("ready", "Whether it can take requests", _READY)
                | {
                    "responses": {
                        "200": {"description": "ready", "content": {_JSON: {"schema": _READY}}},
                        "503": {"description": "not now", "content": {_JSON: {"schema": _READY}}},
                    }
                }
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _content(name: str) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": _REFS.format(model=name)}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: {"description": _MEANINGS[status], "content": _content("Error")} for status in statuses}


def _plain(name: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "yes", "content": {_JSON: {"schema": schema}}}},
    }
