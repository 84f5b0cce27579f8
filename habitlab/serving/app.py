"""The HTTP face of a service: routes, and what each answers."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from habitlab.dataset.registration import Registration, RegistrationError
from habitlab.recommender.recommend import Recommender
from habitlab.serving import openapi
from habitlab.serving import state as states
from habitlab.serving.events import ConflictError, EventError, parse
from habitlab.serving.limits import MOST_BYTES, Rate, Token, local_name
from habitlab.serving.lists import ERROR
from habitlab.serving.live import find
from habitlab.serving.service import Refusal, Service, read_query

log = logging.getLogger(__name__)
JSON = "application/json"
OPEN = ("/healthz", "/readyz")
"""What a supervisor may ask without a token."""
INCOMPLETE = '199 - "the database cannot be read: what happened lately may not be counted"'


def create_app(
    data: str | Path,
    state: str | Path | None = None,
    redis: str | None = None,
    token: str | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    rate: float | None = None,
    generator: np.random.Generator | None = None,
    recommender: Recommender | None = None,
    workers: int = 1,
    background: bool = True,
) -> Flask:
    """Return a WSGI app that serves one dataset.

    Parameters
    ----------
    data
        Path of a dataset, or the word `sample`.
    state
        Folder of the service; by default the one beside the data, see `state.folder`.
    redis
        URL of a Redis; without it the first level is in memory.
    token
        What `Authorization: Bearer` has to bring; None asks for none, and then only requests for a loopback name are
        answered, so that no web page can reach in.
    clock
        Tells the time, with a zone.
    rate
        Requests a second from one address; None is no limit.
    generator
        Draws the ids of new people.
    recommender
        A fitted one; by default the current one of the folder's registry, or the usual one for the data.
    workers
        How many processes serve the same folder.
    background
        Whether to follow other processes and to write exposures by itself.

    Raises
    ------
    FileNotFoundError, DatasetError, ValueError
        The data, the folder or an argument are not what they should be.
    sqlite3.Error
        The service's database cannot be opened.
    """
    folder = states.folder(data, state)
    live = recommender or find(data, folder)
    service = Service(data, folder, live, clock, redis=redis, generator=generator, workers=workers)
    app = Flask("habitlab")
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["habitlab"] = service
    _guard(app, service, None if token is None else Token(token), None if rate is None else Rate(rate))
    _routes(app, service)
    _errors(app, service)
    if background:
        service.start()
    return app


def _guard(app: Flask, service: Service, token: Token | None, rate: Rate | None) -> None:
    @app.before_request
    def check() -> Response | None:
        if rate is not None and request.path != "/healthz" and not rate.allows(request.remote_addr or ""):
            return _refuse(service, Refusal(429, "too many requests; wait a second"), {"Retry-After": "1"})
        if token is None:
            if not local_name(request.environ.get("HTTP_HOST", "")):
                return _refuse(
                    service, Refusal(400, "without a token, only this machine may ask, by the name localhost")
                )
        elif request.path not in OPEN and not token.fits(request.headers.get("Authorization")):
            return _refuse(service, Refusal(401, "this needs the right bearer token"), {"WWW-Authenticate": "Bearer"})
        return None


def _routes(app: Flask, service: Service) -> None:
    clock, metrics = service.clock, service.metrics
    document = json.dumps(openapi.document(), ensure_ascii=False).encode()

    @app.get("/v1/recommend")
    def recommend() -> Response:
        begin = time.perf_counter()
        now = clock()
        asked = read_query(request.environ["QUERY_STRING"])
        ready, level = service.recommend(asked, now)
        response = Response(ready.served(level), content_type=JSON)
        headers = response.headers
        headers["Cache-Control"] = "no-store"
        headers["Habitlab-Exposure"] = ready.exposure
        if asked.warning:
            headers.add("Warning", f'299 - "{asked.warning}"')
        if not ready.whole:
            headers.add("Warning", INCOMPLETE)
        if request.environ["REQUEST_METHOD"] == "GET":
            service.exposures.show(asked.user_id, ready, level, now)
        seconds = time.perf_counter() - begin
        metrics.answers[level].observe(seconds)
        service.exposures.took(level, seconds, now)
        return response

    @app.post("/v1/events")
    def events() -> Response:
        found = parse(_json_body())
        results = service.take(found)
        body = {
            "accepted": results.count("accepted"),
            "duplicates": results.count("duplicate"),
            "results": [
                {"event_id": event.event_id, "status": result} for event, result in zip(found, results, strict=True)
            ],
        }
        return _json(body, 201 if body["accepted"] else 200)

    @app.post("/v1/users")
    def users() -> Response:
        record, key = _registration(_json_body()), request.headers.get("Idempotency-Key")
        user_id, new = service.register(record, None if key is None else _idempotency_key(key))
        return _json({"user_id": user_id}, 201 if new else 200)

    @app.get("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    def readyz() -> Response:
        checks = service.checks()
        ready = checks["database"] == "ok"
        return _json({"ready": ready, "checks": checks}, 200 if ready else 503)

    @app.get("/metrics")
    def prometheus() -> Response:
        metrics.waiting.set(service.exposures.waiting())
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    @app.get("/openapi.json")
    def description() -> Response:
        return Response(document, content_type=JSON)


def _json_body() -> bytes:
    if request.mimetype != JSON:
        raise Refusal(415, f"the body has to be JSON, with the header Content-Type: {JSON}")
    try:
        body = request.get_data(cache=False)
        if request.content_length is None and len(body) >= MOST_BYTES:  # sent in chunks, and cut off here
            raise RequestEntityTooLarge
        return body
    except HTTPException:  # too large, or broken off
        raise
    except Exception:  # gunicorn reads the body only now, and has errors of its own for broken chunks
        raise Refusal(400, "the body cannot be read") from None


def _registration(body: bytes) -> Registration:
    try:
        return Registration.from_json(body.decode("utf-8"))
    except RegistrationError as error:
        problems = [{"field": problem.field[:60], "problem": str(problem)} for problem in error.problems]
        raise Refusal(422, "the registration cannot be taken", problems) from None
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not a JSON object in UTF-8") from None


def _idempotency_key(given: str) -> str:
    key = given.removeprefix('"').removesuffix('"')
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,100}", key):
        raise Refusal(400, "Idempotency-Key is 1 to 100 letters, digits or . _ : -")
    return key


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False) + "\n", status, content_type=JSON)


def _refuse(service: Service, refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    service.metrics.refused.labels(str(refusal.status)).inc()
    if refusal.status >= 500 and request.path == "/v1/recommend":
        service.exposures.took(ERROR, 0.0, service.clock())  # how long it took is not looked at
    body: dict[str, Any] = {"error": refusal.message}
    if refusal.problems:
        body["problems"] = refusal.problems
    response = _json(body, refusal.status)
    response.headers.extend(headers or {})
    return response


def _errors(app: Flask, service: Service) -> None:
    """Every error is JSON, and says nothing of anybody to the log."""

    @app.errorhandler(Refusal)
    def refusal(error: Refusal) -> Response:
        return _refuse(service, error)

    @app.errorhandler(EventError)
    def event(error: EventError) -> Response:
        status = 409 if isinstance(error, ConflictError) else 400 if error.malformed else 422
        problems = [vars(problem) for problem in error.problems]
        return _refuse(service, Refusal(status, "none of the events is kept", problems))

    @app.errorhandler(sqlite3.Error)
    def database(error: sqlite3.Error) -> Response:
        log.error("the database cannot be used: %s", error)
        return _refuse(
            service, Refusal(503, "nothing is kept, the database cannot be used now; try again"), {"Retry-After": "1"}
        )

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Location")}
        return _refuse(service, Refusal(error.code or 500, error.name), headers)

    @app.errorhandler(Exception)
    def mistake(error: Exception) -> Response:
        place = RuntimeError(type(error).__name__)  # not its message: the values in it may be personal
        log.error("a mistake in HabitLab", exc_info=(RuntimeError, place, error.__traceback__))
        return _refuse(service, Refusal(500, "a mistake in HabitLab; the log says where"))
