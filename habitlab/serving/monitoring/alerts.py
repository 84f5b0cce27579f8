"""Alerts: written to a file, a log or a webhook, each once, and not again while it cools down.

A sink that fails is told of in the log and tried again at the next call; it never breaks what is being watched. An
alert holds numbers of the whole service, never a person.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from filelock import FileLock

from habitlab.dataset.sqlite import replacing
from habitlab.serving.state import own_folder, stamp

LOGGER = logging.getLogger("habitlab.monitor")

COOL_DOWN = timedelta(hours=12)
TIME_OUT = 3.0
"""Seconds that a webhook may take."""
_KEPT = 2000  # alerts remembered for each sink


@dataclass(frozen=True)
class Alert:
    """Something to look at. `key` says what it is about (one thing cools down by itself), `at` when it happened."""

    key: str
    at: datetime
    message: str
    value: float | None = None
    expected: float | None = None
    severity: Literal["note", "warning"] = "warning"

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is not finite is null."""
        told = asdict(self) | {"at": stamp(self.at)}
        return {k: None if isinstance(v, float) and (v != v or abs(v) == float("inf")) else v for k, v in told.items()}


Sink = Callable[[Alert], None]
"""Takes an alert, or raises."""


def to_file(path: str | Path) -> Sink:
    """Append each alert to a file as a line of JSON."""

    def write(alert: Alert) -> None:
        place = Path(path)
        own_folder(place.parent)
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps(alert.to_json(), ensure_ascii=False) + "\n")

    return write


def to_log(logger: logging.Logger = LOGGER) -> Sink:
    """Write each alert to the log of the process."""
    levels = {"note": logging.INFO, "warning": logging.WARNING}
    return lambda alert: logger.log(levels[alert.severity], "%s: %s", alert.key, alert.message)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nobody: what is posted would be dropped on the way."""


def to_webhook(url: str, time_out: float = TIME_OUT) -> Sink:
    """Post each alert as JSON; it is sent when the answer begins, within `time_out` seconds, and is no redirection.

    ValueError where `url` is no address of the web (a file, say).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"a webhook has an address like https://example.org/hook; got {parts.scheme or 'none'!r}")

    opener = urllib.request.build_opener(_NoRedirect)

    def post(alert: Alert) -> None:
        body = json.dumps(alert.to_json(), ensure_ascii=False).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        failed: list[Exception] = []

        def call() -> None:
            try:
                opener.open(request, timeout=time_out).close()
            except Exception as error:
                failed.append(error)

        # The time-out of a socket begins anew with every byte, and looking up a name knows none.
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(time_out)
        if thread.is_alive():
            raise TimeoutError(f"no answer within {time_out:g} s")
        if failed:
            raise failed[0]

    return post


@dataclass(frozen=True)
class Sent:
    """What became of alerts: keys sent (by at least one sink), held back, and sinks that failed, with why."""

    sent: tuple[str, ...]
    held_back: tuple[str, ...]
    failed: Mapping[str, str]


def send(
    alerts: Iterable[Alert],
    sinks: Mapping[str, Sink],
    memory: str | Path,
    now: datetime,
    cool_down: timedelta = COOL_DOWN,
) -> Sent:
    """Give each alert to each sink, unless that sink had it before, or had one of its key less than `cool_down` ago.

    `memory` is a small file of what was sent; a damaged one counts as empty. Where the clock went back behind the last
    alert, the key cools down no longer: a jump of the clock hides nothing. Two processes take turns.
    """
    place = Path(memory)
    own_folder(place.parent)
    sent: dict[str, None] = {}
    held: dict[str, None] = {}
    failed: dict[str, str] = {}
    with FileLock(f"{place}.lock"):
        known = _recall(place, now)
        for alert in sorted(alerts, key=lambda each: each.at):
            for name, sink in sinks.items():
                mine = known.setdefault(name, {})
                same = f"{alert.key} {stamp(alert.at)}"
                if name in failed or same in mine:
                    held.setdefault(alert.key)
                    continue
                if _cooling(mine.get(alert.key), now, cool_down):
                    held.setdefault(alert.key)
                    mine[same] = stamp(now)  # nor is it sent later, when it is old news
                    continue
                try:
                    sink(alert)
                except Exception as error:  # no connection, time-out, nonsense, disk full, whatever a sink may raise
                    failed[name] = f"{type(error).__name__}: {error}"
                    LOGGER.warning("alerts cannot be sent to %s: %s", name, failed[name])
                    continue
                sent.setdefault(alert.key)
                for remembered in (same, alert.key):
                    mine.pop(remembered, None)
                    mine[remembered] = stamp(now)
                _remember(place, known)  # at once: who is killed while a webhook hangs repeats nothing
        _remember(place, known)
    return Sent(tuple(sent), tuple(key for key in held if key not in sent), failed)


def _cooling(last: str | None, now: datetime, cool_down: timedelta) -> bool:
    if last is None:
        return False
    return timedelta(0) <= now - datetime.fromisoformat(last) < cool_down


def _recall(place: Path, now: datetime) -> dict[str, dict[str, str]]:
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        for mine in known.values():
            for moment in mine.values():
                now - datetime.fromisoformat(moment)  # TypeError for one without a zone
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return known


def _remember(place: Path, known: dict[str, dict[str, str]]) -> None:
    kept = {name: dict(list(mine.items())[-_KEPT:]) for name, mine in known.items()}
    with contextlib.suppress(OSError), replacing(place) as temporary:
        temporary.write_text(json.dumps(kept), encoding="utf-8")
