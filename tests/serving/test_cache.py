"""The levels: who is asked first, what happens on a miss, and what goes on when a level fails (7.2, D101, D103)."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from habitlab.serving.cache import Breaker, Levels, SingleFlight
from habitlab.serving.lists import Key, Ready
from habitlab.serving.store import MemoryStore, RedisStore, SqliteStore, StoreError

KEY = Key("ann", "m1", 0, "5 2026-01-05T00:00:00")
DRAWN = b"a list without words"
READY = Ready(b'{"user_id":"ann"', b'{"id":"0123456789abcdef01234567","policy":"p","items":[]}')


class Maker:
    """Makes a list slowly, and counts how often."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls, self._seconds = 0, seconds

    def __call__(self) -> tuple[bytes, bool]:
        self.calls += 1
        time.sleep(self._seconds)
        return DRAWN, True


def word(drawn: bytes) -> Ready:
    if drawn != DRAWN:
        raise ValueError("damaged")
    return READY


def levels(folder: Path, redis: str | None = None, **settings: object) -> Levels:
    store = None if redis is None else RedisStore(redis, "here", timeout=0.3)
    return Levels(MemoryStore(), SqliteStore(folder), store, **settings)


def at_once(count: int, call: Callable[[], object]) -> list:
    """Call in so many threads that all begin together."""
    barrier, found = threading.Barrier(count), []

    def run() -> None:
        barrier.wait()
        found.append(call())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_7_2_a_without_redis_memory_is_the_first_level_then_the_database_then_computing(tmp_path):
    make, one = Maker(), levels(tmp_path)
    assert one.find(KEY, "en", make, word) == (READY, "computed")
    assert one.find(KEY, "en", make, word) == (READY, "memory")
    one.memory.clear()
    assert one.find(KEY, "en", make, word) == (READY, "database")
    assert one.find(KEY, "en", make, word) == (READY, "memory")
    assert make.calls == 1
    assert levels(tmp_path).find(KEY, "en", make, word) == (READY, "database")  # another process, or the same tomorrow


def test_7_2_a_with_redis_it_is_the_first_level_and_shared(tmp_path, redis):
    make, one, other = Maker(), levels(tmp_path / "a", redis.url), levels(tmp_path / "b", redis.url)
    assert one.find(KEY, "en", make, word) == (READY, "computed")
    assert one.find(KEY, "en", make, word) == (READY, "redis")
    assert other.find(KEY, "en", make, word) == (READY, "redis")
    assert make.calls == 1


@pytest.mark.parametrize("field", ["model_version", "profile_version"])
def test_7_2_b_another_model_or_profile_is_another_list(tmp_path, redis, field):
    make, one = Maker(), levels(tmp_path, redis.url)
    one.find(KEY, "en", make, word)
    other = KEY._replace(**{field: 1 if field == "profile_version" else "m2"})
    assert one.find(other, "en", make, word)[1] == "computed"
    assert make.calls == 2


def test_7_2_c_a_hundred_misses_at_once_compute_once(tmp_path):
    make, one = Maker(0.1), levels(tmp_path)
    found = at_once(100, lambda: one.find(KEY, "en", make, word))
    assert make.calls == 1
    assert [ready for ready, _ in found] == [READY] * 100
    assert sorted(level for _, level in found) == ["computed"] + ["memory"] * 99


def test_7_2_c_several_processes_compute_once_too(tmp_path):
    make = Maker(0.1)
    workers = [levels(tmp_path, locks=tmp_path / "locks") for _ in range(4)]
    found = at_once(4, lambda: workers.pop().find(KEY, "en", make, word))
    assert make.calls == 1
    assert sorted(level for _, level in found) == ["computed", "database", "database", "database"]


class Slow:
    """A way to Redis that takes its time: a TCP proxy."""

    def __init__(self, redis: str, seconds: float) -> None:
        self._redis, self._seconds = redis.removeprefix("unix://"), seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._redis)
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError), one, other:
            while received := one.recv(1 << 16):
                time.sleep(self._seconds)
                other.sendall(received)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize(("seconds", "answers"), [(0.0, True), (0.2, False)])
def test_7_2_a_with_a_slow_redis_each_list_is_made_once_and_answers_go_on(tmp_path, redis, seconds, answers):
    """Redis lives and is only slow: a few tries cost the time-out, then nobody tries; nothing is made twice."""
    make = Maker()
    with contextlib.closing(Slow(redis.url, seconds)) as slow:
        one = Levels(MemoryStore(), SqliteStore(tmp_path), RedisStore(slow.url, "here", timeout=0.1))
        keys = [KEY._replace(user_id=f"u{number}") for number in range(10)] * 10
        found = [ready for key in keys for ready in [one.find(key, "en", make, word)]]
        assert [ready for ready, _ in found] == [READY] * 100
        assert make.calls == 10
        assert {level for _, level in found[10:]} == {"redis" if answers else "memory"}
        assert one.redis.breaker.open is not answers


def test_7_2_c_what_fails_fails_for_all_who_wait_and_is_tried_again_afterwards(tmp_path):
    one, calls = levels(tmp_path), []

    def fail() -> tuple[bytes, bool]:
        calls.append(1)
        time.sleep(0.1)
        raise ValueError("no")

    def ask() -> str:
        try:
            return str(one.find(KEY, "en", fail, word))
        except ValueError as error:
            return str(error)

    assert at_once(20, ask) == ["no"] * 20
    assert len(calls) == 1
    assert one.find(KEY, "en", Maker(), word) == (READY, "computed")


def test_7_2_c_nobody_waits_for_ever_for_another():
    flights, hanging = SingleFlight(), threading.Event()
    first = threading.Thread(target=lambda: flights.do("key", hanging.wait))
    first.start()
    while not flights._flights:
        time.sleep(0.001)
    assert flights.do("key", lambda: "mine", longest=0.05) == ("mine", True)
    hanging.set()
    first.join()


def test_7_2_c_keys_do_not_wait_for_each_other():
    flights, hanging = SingleFlight(), threading.Event()
    first = threading.Thread(target=lambda: flights.do("slow", hanging.wait))
    first.start()
    assert flights.do("quick", lambda: 1) == (1, True)
    hanging.set()
    first.join()


def test_7_2_c_with_first_and_second_level_down_it_is_computed(tmp_path, redis):
    (tmp_path / "service.db").write_bytes(b"no database" * 1000)
    one = levels(tmp_path, redis.url)
    redis.stop()
    assert one.find(KEY, "en", Maker(), word) == (READY, "computed")
    assert one.find(KEY, "en", Maker(), word) == (READY, "memory")


def test_7_2_a_answers_go_on_when_redis_stops_and_when_it_comes_back_empty(tmp_path, redis):
    make, one = Maker(), levels(tmp_path, redis.url)
    one.redis.breaker._rest = 0.05
    one.find(KEY, "en", make, word)
    redis.stop()
    for _ in range(10):
        assert one.find(KEY, "en", make, word) == (READY, "memory")
    assert one.redis.breaker.open
    redis.start()
    time.sleep(0.1)
    assert one.find(KEY, "en", make, word) == (READY, "memory")  # Redis does not know it yet, and is told
    assert one.find(KEY, "en", make, word) == (READY, "redis")
    assert not one.redis.breaker.open
    assert make.calls == 1


def test_7_2_a_a_hanging_redis_costs_a_time_out_a_few_times_and_then_nothing(tmp_path, redis):
    make, failures = Maker(), []
    one = levels(tmp_path, redis.url, on_failure=failures.append)
    one.find(KEY, "en", make, word)
    redis.hang()
    for _ in range(20):
        assert one.find(KEY, "en", make, word) == (READY, "memory")
    assert failures == ["redis"] * 3
    redis.wake()
    one.redis.breaker._until = 0.0
    assert one.find(KEY, "en", make, word) == (READY, "redis")


def test_7_2_a_a_stampede_on_an_empty_redis_computes_each_list_once(tmp_path, redis):
    make, one = Maker(0.02), levels(tmp_path, redis.url)
    at_once(50, lambda: one.find(KEY, "en", make, word))
    redis.stop()
    redis.start()
    one.memory.clear()
    one.database.store.clear()
    at_once(50, lambda: one.find(KEY, "en", make, word))
    assert make.calls == 2


def test_7_2_b_a_damaged_value_is_no_value(tmp_path):
    one = levels(tmp_path)
    one.memory.put(KEY, b"garbage")
    one.database.store.put(KEY, b"garbage")
    assert one.find(KEY, "en", Maker(), word) == (READY, "computed")
    assert one.find(KEY, "en", Maker(), word) == (READY, "memory")


def test_7_2_b_a_list_is_drawn_once_for_all_languages_and_worded_for_each(tmp_path):
    make, one, worded = Maker(), levels(tmp_path), []

    def count(drawn: bytes) -> Ready:
        worded.append(drawn)
        return word(drawn)

    found = [one.find(KEY, lang, make, count)[1] for lang in ("en", "ru", "ru", "en")]
    assert found == ["computed", "database", "memory", "memory"]
    assert (make.calls, worded) == (1, [DRAWN, DRAWN])


def test_7_2_b_two_languages_asked_for_at_once_are_drawn_once(tmp_path):
    make, one, codes = Maker(0.1), levels(tmp_path), ["en", "ru"]
    at_once(2, lambda: one.find(KEY, codes.pop(), make, word))
    assert make.calls == 1


def test_7_2_b_what_may_not_be_kept_is_not(tmp_path):
    one = levels(tmp_path)
    assert one.find(KEY, "en", lambda: (DRAWN, False), word) == (replace(READY, whole=False), "computed")
    assert one.find(KEY, "en", Maker(), word) == (READY, "computed")


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_try_after_a_rest():
    now = [0.0]
    breaker = Breaker(failures=2, rest=1.0, clock=lambda: now[0])
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
    now[0] = 1.0
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.failed()
    now[0] = 1.5
    assert not breaker.allows()
    now[0] = 2.0
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_a_list_is_packed_and_served_with_its_level():
    assert Ready.unpack(READY.pack()) == READY
    assert READY.served("redis") == b'{"user_id":"ann","served_from":"redis"}\n'
    assert READY.exposure == "0123456789abcdef01234567"
    for damaged in (b"", b"{}", b"\n", b"garbage\n{", b"{}\ngarbage"):
        with pytest.raises(ValueError, match="no finished list"):
            Ready.unpack(damaged)


def test_an_error_of_the_database_is_told_as_one(tmp_path):
    (tmp_path / "service.db").mkdir()
    with pytest.raises(StoreError, match="database"):
        SqliteStore(tmp_path).get(KEY)
