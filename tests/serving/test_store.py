"""One contract for all three stores (7.1.a), and what is special to memory (7.2.a)."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from habitlab.serving import state
from habitlab.serving.lists import Key
from habitlab.serving.store import JITTER, MemoryStore, RedisStore, SqliteStore, Store, StoreError, lifetime

KEY = Key("ann", "m1", 3, "5 en 2026-01-05T07:30:00")


class Watch:
    """A clock for stores that take one; for Redis, which has its own, time really passes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def utc(self) -> datetime:
        return datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture(params=["memory", "database", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[tuple[Store, Callable[[float], None]]]:
    """A store, and how to let time pass for it."""
    watch = Watch()

    def wait(seconds: float) -> None:
        watch.seconds += seconds

    if request.param == "memory":
        yield MemoryStore(clock=watch.monotonic), wait
    elif request.param == "database":
        yield SqliteStore(request.getfixturevalue("tmp_path"), clock=watch.utc), wait
    else:
        import time

        yield RedisStore(request.getfixturevalue("redis").url, "here", timeout=5), time.sleep


def test_7_1_a_what_was_put_is_found_until_its_time_is_over(store):
    one, wait = store
    assert one.get(KEY) is None
    one.put(KEY, b"\x00\xffvalue")
    assert one.get(KEY) == b"\x00\xffvalue"
    one.put(KEY, b"new", 0.2)
    assert one.get(KEY) == b"new"
    wait(0.2 * (1 + JITTER) + 0.05)
    assert one.get(KEY) is None


@pytest.mark.parametrize("field", ["user_id", "model_version", "profile_version", "name"])
def test_7_1_a_each_part_of_a_key_counts(store, field):
    one, _ = store
    one.put(KEY, b"value")
    other = KEY._replace(**{field: 4 if field == "profile_version" else "other"})
    assert one.get(other) is None


def test_7_1_a_ids_of_any_letters_stay_apart(store):
    one, _ = store
    ids = ["a", "a:", "a:m1", "*", "a*", "[a]", "?", "ю", "a' OR '1'='1", 'x"; DROP TABLE lists; --', "1:a", "\\a"]
    for user in ids:
        one.put(KEY._replace(user_id=user), user.encode())
    for user in ids:
        assert one.get(KEY._replace(user_id=user)) == user.encode()
    for number, user in enumerate(ids, 1):
        assert one.forget(user) == 1
        assert one.get(KEY._replace(user_id=user)) is None
        assert sum(one.get(KEY._replace(user_id=u)) is not None for u in ids) == len(ids) - number


def test_7_1_a_a_person_is_forgotten_with_everything(store):
    one, _ = store
    for name in ("a", "b"):
        one.put(KEY._replace(name=name), b"value")
        one.put(KEY._replace(name=name, user_id="bob"), b"value")
    assert one.forget("ann") == 2
    assert one.forget("ann") == 0
    assert one.get(KEY._replace(name="a", user_id="bob")) == b"value"
    one.clear()
    assert one.get(KEY._replace(name="a", user_id="bob")) is None


def test_7_1_a_a_store_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "service.db").write_bytes(b"this is no database at all" * 100)
    for broken in (RedisStore(f"unix://{tmp_path}/nothing.sock", "here"), SqliteStore(tmp_path)):
        with pytest.raises(StoreError, match=broken.level):
            broken.get(KEY)
        with pytest.raises(StoreError, match=broken.level):
            broken.put(KEY, b"")
        with pytest.raises(StoreError, match=broken.level):
            broken.forget("ann")
        with pytest.raises(StoreError, match=broken.level):
            broken.clear()


def test_7_1_a_two_services_with_one_redis_do_not_meet(redis):
    here, there = RedisStore(redis.url, "here"), RedisStore(redis.url, "there")
    here.put(KEY, b"value")
    assert there.get(KEY) is None
    there.clear()
    assert here.get(KEY) == b"value"


def test_7_2_a_memory_keeps_what_was_used_last():
    store = MemoryStore(most=3)
    keys = [KEY._replace(user_id=user) for user in "abcd"]
    for key in keys[:3]:
        store.put(key, b"value")
    store.get(keys[0])
    store.put(keys[3], b"value")
    assert [store.get(key) is not None for key in keys] == [True, False, True, True]


def test_7_2_a_memory_is_bounded_by_bytes_too():
    store = MemoryStore(most_bytes=100)
    for user in "abcdefgh":
        store.put(KEY._replace(user_id=user), b"x" * 30)
    assert len(store) == 3
    store.put(KEY, b"x" * 101)  # would fit nowhere
    assert store.get(KEY) is None


def test_7_2_a_times_to_live_differ_so_that_not_all_end_at_once():
    assert lifetime(100, lambda: 0.0) == pytest.approx(100 * (1 - JITTER))
    assert lifetime(100, lambda: 1.0) == pytest.approx(100 * (1 + JITTER))
    assert len({lifetime(100) for _ in range(50)}) == 50


def test_7_2_b_a_list_of_an_older_profile_never_replaces_a_newer_one(tmp_path):
    store = SqliteStore(tmp_path)
    store.put(KEY._replace(profile_version=2), b"new")
    store.put(KEY._replace(profile_version=1), b"late")
    assert store.get(KEY._replace(profile_version=2)) == b"new"
    assert store.get(KEY._replace(profile_version=1)) is None


def test_the_state_outlives_the_process_and_knows_its_version(tmp_path):
    SqliteStore(tmp_path).put(KEY, b"value")
    assert SqliteStore(tmp_path).get(KEY) == b"value"
    with state.connect(tmp_path) as connection:
        assert (tmp_path / "service.db").stat().st_mode & 0o077 == 0
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="version 99"):
        state.connect(tmp_path)
