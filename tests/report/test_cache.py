"""The cache: a key over all that decides a run and nothing else; damage costs time, never a report."""

import os
import time
from pathlib import Path

import pytest

from habitlab.report import cache
from habitlab.report.parameters import read_schema

SOURCE = 'data: DataPath = "sample"\nlevel: Level = 0.95\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def notebook(*sources: str) -> dict:
    cells = [{"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": source, "outputs": [], "execution_count": n}
             for n, source in enumerate((SOURCE, *sources))]  # fmt: skip
    cells[0]["metadata"]["tags"] = ["parameters"]
    return {"cells": cells}


def key(folder: Path, book: dict | None = None, *, data: str = "sample", level: float = 0.95, **changes: str) -> str:
    book = book or notebook("1 + 1")
    given = {"code": "c", "lock": "l"} | changes
    values = {"data": data, "level": level}
    counted = cache.counted(values, read_schema(book, "x"), folder, cache.Hashes.load())
    return cache.run_key(book, counted=counted, injected=[], **given)


def write(path: Path, content: str, *, age: float = 10) -> Path:
    path.write_text(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_all_that_decides_a_run_changes_the_key(folder: Path) -> None:
    data = write(folder / "a.db", "one")
    keys = {
        "base": key(folder),
        "source": key(folder, notebook("1 + 2")),
        "order": key(folder, notebook("", "1 + 1")),
        "parameter": key(folder, level=0.9),
        "data": key(folder, data=str(data)),
        "code": key(folder, code="d"),
        "lock": key(folder, lock="m"),
    }
    assert len(set(keys.values())) == len(keys)


def test_outputs_counts_and_cell_ids_do_not(folder: Path) -> None:
    book = notebook("1 + 1")
    for cell in book["cells"]:
        cell |= {"id": "other", "execution_count": 99, "outputs": [{"output_type": "stream", "text": "2"}]}
    book["cells"][1]["source"] = ["1 +", " 1"]  # the same text, as lines
    assert key(folder, book) == key(folder)


def test_a_path_counts_by_content_wherever_it_lies(folder: Path) -> None:
    first = key(folder, data=str(write(folder / "a.db", "one")))
    assert key(folder, data=str(write(folder / "b.db", "one"))) == first
    assert key(folder, data="b.db") == first  # relative to the folder of the notebooks
    assert key(folder, data=str(write(folder / "b.db", "two"))) != first
    assert key(folder, data=str(folder / "nothing.db")) == key(folder, data=str(folder / "nowhere.db"))
    write(folder / "a.truth.parquet", "the truth is read with the data")
    assert key(folder, data=str(folder / "a.db")) != first


def test_a_folder_counts_with_every_file_below_it(folder: Path) -> None:
    (folder / "tables").mkdir()
    write(folder / "tables" / "users.parquet", "u")
    before = key(folder, data=str(folder / "tables"))
    (folder / "tables" / "deep").mkdir()
    write(folder / "tables" / "deep" / "more.parquet", "")
    assert key(folder, data=str(folder / "tables")) != before


def test_a_large_file_is_read_once_and_again_when_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "big.db", "content")
    # the time of the last change of the entry itself cannot be set back, so the clock goes forward
    monkeypatch.setattr(cache.time, "time", lambda: 1e11)
    hashes = cache.Hashes.load()
    first = hashes.of(path)
    hashes.save()

    def unreadable(*_: object) -> None:
        raise AssertionError("read again")

    remembered = cache.Hashes.load()
    with monkeypatch.context() as patch:
        patch.setattr(cache.hashlib, "file_digest", unreadable)
        assert remembered.of(path) == first
    write(path, "CONTENT", age=10)  # the same length, and back at the same time
    assert remembered.of(path) != first


def test_a_file_changed_a_moment_ago_is_not_remembered(folder: Path) -> None:
    hashes = cache.Hashes.load()
    hashes.of(write(folder / "fresh.db", "x", age=0))
    assert hashes.memory == {}


def test_what_is_stored_is_fetched() -> None:
    cache.store("k", {"html": "<p>ü</p>", "seconds": 1.5})
    assert cache.fetch("k") == {"html": "<p>ü</p>", "seconds": 1.5}
    assert cache.fetch("other") is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 50, b"half"])
def test_a_damaged_entry_is_a_miss_and_goes(damage: bytes) -> None:
    cache.store("k", {"html": "x"})
    place = cache.cache_folder() / "reports" / "k.json"
    place.write_bytes(place.read_bytes()[:70] if damage == b"half" else damage)
    assert cache.fetch("k") is None
    assert not place.exists()


def test_a_damaged_memory_of_hashes_is_an_empty_one() -> None:
    place = cache.cache_folder() / "hashes.json"
    place.parent.mkdir(parents=True)
    for damage in ("{", "[]", '{"/x": 3}'):
        place.write_text(damage)
        cache.Hashes.load().of(Path(__file__))


def test_a_cache_that_cannot_be_written_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("HABITLAB_CACHE", str(folder / "file" / "below"))
    cache.store("k", {"html": "x"})
    hashes = cache.Hashes.load()
    hashes.of(write(folder / "a.db", "x"))
    hashes.changed = True
    hashes.save()
    assert cache.fetch("k") is None


def test_the_longest_unused_entries_go_first() -> None:
    for number in range(4):
        cache.store(f"k{number}", {"html": "x" * 1000})
        os.utime(cache.cache_folder() / "reports" / f"k{number}.json", (number, number))
    cache.fetch("k0")  # used just now
    cache.prune(max_bytes=2500)
    assert [number for number in range(4) if cache.fetch(f"k{number}")] == [0, 3]


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "page.html"
    cache.write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in folder.iterdir()] == ["page.html"]
