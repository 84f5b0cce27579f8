"""Who may ask, how much, and how often."""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

MOST_BYTES = 1 << 20
"""Of a request's body."""
MOST_ADDRESSES = 10_000
OFF_LOOPBACK_RATE = 100.0
"""Requests a second from one address, where others than this machine can ask."""


class Rate:
    """At most `rate` requests a second from one address, and twice as many at once (token bucket)."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds from any start."""
        self._rate, self._burst, self._clock = rate, max(2 * rate, 1.0), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        """Count a request from this address; whether it may be answered."""
        now = self._clock()
        with self._lock:
            left, since = self._left.pop(address, (self._burst, now))
            left = min(self._burst, left + (now - since) * self._rate)
            allowed = left >= 1
            self._left[address] = left - allowed, now
            if len(self._left) > MOST_ADDRESSES:
                self._left.popitem(last=False)
        return allowed


class Token:
    """The bearer token; compared in constant time, so that nobody can find it letter by letter."""

    def __init__(self, token: str) -> None:
        """ValueError for one that nobody could send."""
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("a token is one word of printable ASCII letters")
        self._expected = token.encode()

    def fits(self, authorization: str | None) -> bool:
        """Whether the header `Authorization` brings it."""
        scheme, _, given = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self._expected
        )


def read_token(path: str | Path) -> str:
    """Return the token in a file; FileNotFoundError, or ValueError for a file without one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no token file at {path}")
    try:
        token = path.read_text("utf-8").strip()
        Token(token)
    except ValueError as error:
        raise ValueError(f"{path} holds no token: {error}") from None
    return token


def loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`: every address of the name is a loopback one.

    ValueError for a name that has no address.
    """
    if not host:
        return False  # every address
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{host!r} is no address of this machine: {error}") from None
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


@lru_cache(maxsize=256)
def local_name(host: str) -> bool:
    """Whether the header `Host` names this machine. A web page that reaches in under a name of its own does not."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower() in ("localhost", "127.0.0.1", "[::1]")


def check_host(host: str, token: str | None) -> None:
    """ValueError when others could ask without a token."""
    if token is None and not loopback(host):
        raise ValueError(
            f"{host or 'every address'} can be reached from other machines: give --token-file, or bind to 127.0.0.1"
        )
