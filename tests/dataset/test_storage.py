"""To SQLite and Parquet and back; nothing is lost when the disk is full or the file is broken."""

import json
import re
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from habitlab.dataset import Dataset, DatasetError, cache, parquet, sqlite
from habitlab.dataset.dataset import read_metadata
from habitlab.dataset.schema import PRIMARY_TABLES, TABLES

STORES = ["study.db", "study"]


def assert_same(left: Dataset, right: Dataset) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(left.table(name), right.table(name))
    assert left.metadata == right.metadata


@pytest.mark.parametrize("name", STORES)
def test_what_is_saved_is_what_is_loaded(tiny: Dataset, tmp_path: Path, name: str) -> None:
    tiny.save(tmp_path / name)
    assert_same(Dataset.load(tmp_path / name), tiny)
    assert_same(Dataset.load(tmp_path / name), tiny)  # the second time a SQLite file comes from the cache


@pytest.mark.parametrize("name", STORES)
def test_an_empty_dataset_can_be_kept(tmp_path: Path, name: str) -> None:
    Dataset().save(tmp_path / name)
    assert_same(Dataset.load(tmp_path / name), Dataset())


@pytest.mark.parametrize("name", STORES)
def test_columns_of_ones_own_are_kept(tiny: Dataset, tmp_path: Path, name: str) -> None:
    tiny.replace(users=tiny.users.assign(shoe_size=[38, 44])).save(tmp_path / name)
    assert Dataset.load(tmp_path / name).users["shoe_size"].tolist() == [38, 44]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", STORES)
def test_the_same_tables_give_the_same_bytes(tiny: Dataset, tmp_path: Path, name: str) -> None:
    tiny.save(tmp_path / "a" / name)
    Dataset.load(tmp_path / "a" / name).save(tmp_path / "b" / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("name", STORES)
def test_saving_leaves_nothing_else_behind(tiny: Dataset, tmp_path: Path, name: str) -> None:
    tiny.save(tmp_path / name)
    tiny.replace(metadata={"source": "again"}).save(tmp_path / name)
    kept = [p for p in files(tmp_path) if not p.endswith((".parquet", ".json", ".db"))]
    assert kept == []
    assert len(files(tmp_path)) in (1, len(TABLES) + 1)


def test_the_database_enforces_its_own_contract(tiny: Dataset, tmp_path: Path) -> None:
    tiny.save(tmp_path / "study.db")
    with closing(sqlite.connect(tmp_path / "study.db", read_only=False)) as connection:
        for wrong in (
            "INSERT INTO habit_tracking VALUES ('nobody', 'h001', '2026-02-01', 'done', NULL)",
            "UPDATE habits SET difficulty = 6",
            "UPDATE habit_tracking SET status = 'meh'",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(wrong)


def test_a_change_to_the_file_is_seen_at_once(tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    tiny.save(path)
    Dataset.load(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE users SET age = 35 WHERE user_id = 'ann'")
    assert Dataset.load(path).users["age"][0] == 35


def test_a_change_that_is_still_in_the_write_ahead_log_is_seen(tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    tiny.save(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for age in (35, 36):
            with connection:
                connection.execute("UPDATE users SET age = ? WHERE user_id = 'ann'", [age])
            assert Dataset.load(path).users["age"][0] == age


@pytest.mark.parametrize("name", STORES)
def test_the_metadata_can_be_read_alone(tiny: Dataset, tmp_path: Path, name: str) -> None:
    tiny.save(tmp_path / name)
    assert read_metadata(tmp_path / name) == tiny.metadata
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "missing.db")


def test_a_damaged_cache_only_costs_time(tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    tiny.save(path)
    Dataset.load(path)
    for kept in cache.entry(path).glob("*.parquet"):
        kept.write_bytes(b"no parquet")
    assert_same(Dataset.load(path), tiny)


def test_a_file_made_by_hand_needs_only_the_primary_tables(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "hand.db")) as connection, connection:
        connection.execute("CREATE TABLE users (user_id)")
        connection.execute("CREATE TABLE habits (habit_id)")
        connection.execute("CREATE TABLE habit_tracking (user_id, habit_id, date, status)")
        connection.execute("INSERT INTO users VALUES (1)")
        connection.execute("INSERT INTO habits VALUES (7)")
        connection.execute("INSERT INTO habit_tracking VALUES (1, 7, '2026-01-01', 'done')")
    assert Dataset.load(tmp_path / "hand.db").habit_tracking["user_id"].tolist() == ["1"]


def test_a_parquet_folder_made_by_hand_is_read_by_its_file_names(tiny: Dataset, tmp_path: Path) -> None:
    for name in PRIMARY_TABLES:
        tiny.table(name).to_parquet(tmp_path / f"{name}.parquet")
    pd.testing.assert_frame_equal(Dataset.load(tmp_path).habit_tracking, tiny.habit_tracking)


def test_a_path_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*missing\.db"):
        Dataset.load(tmp_path / "missing.db")
    with pytest.raises(DatasetError, match=r"it has no users\.parquet"):
        Dataset.load(tmp_path)


def test_a_database_that_is_something_else(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "loop.db")) as connection, connection:
        connection.execute("CREATE TABLE Habits (id)")
    with pytest.raises(DatasetError, match=r"not a HabitLab dataset.*habitlab import"):
        Dataset.load(tmp_path / "loop.db")


@pytest.mark.parametrize("damage", [b"plain text, no database", b""])
def test_a_file_that_is_no_database(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "study.db").write_bytes(damage)
    with pytest.raises(DatasetError, match=r"study\.db"):
        Dataset.load(tmp_path / "study.db")


def test_a_truncated_database(tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    tiny.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match="cannot be read as a SQLite database"):
        Dataset.load(path)


@pytest.mark.parametrize(("version", "advice"), [(0, "make the dataset again"), (99, "update HabitLab")])
def test_another_schema_version_is_told(tiny: Dataset, tmp_path: Path, version: int, advice: str) -> None:
    path = tmp_path / "study.db"
    tiny.save(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(DatasetError, match=f"schema version {version}.*{advice}"):
        Dataset.load(path)


def test_a_damaged_manifest_is_told(tiny: Dataset, tmp_path: Path) -> None:
    tiny.save(tmp_path / "study")
    (tmp_path / "study" / parquet.MANIFEST).write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
        Dataset.load(tmp_path / "study")


def test_what_breaks_the_contract_is_neither_saved_nor_loaded(tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    tiny.save(path)
    with pytest.raises(DatasetError, match="age"):
        tiny.replace(users=tiny.users.assign(age=[7, 8])).save(path)
    assert_same(Dataset.load(path), tiny)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE users SET age = 7")
    with pytest.raises(DatasetError, match=r"users\.age: not between 13 and 120"):
        Dataset.load(path)


def test_saving_leaves_the_files_of_others_alone(tiny: Dataset, tmp_path: Path) -> None:
    tiny.save(tmp_path / "study")
    own = tmp_path / "study" / "users-backup.parquet"
    own.write_text("mine")
    before = set(tmp_path.rglob("*.parquet"))
    tiny.replace(users=tiny.users.assign(age=[50, 51])).save(tmp_path / "study")
    assert own.read_text() == "mine"
    gone = [path.name.split("-")[0] for path in before if not path.exists()]
    assert gone == ["users"]


def test_a_manifest_cannot_name_what_is_deleted(tiny: Dataset, tmp_path: Path) -> None:
    tiny.save(tmp_path / "study")
    (tmp_path / "mine.parquet").write_text("mine")
    manifest = tmp_path / "study" / parquet.MANIFEST
    contents = json.loads(manifest.read_text())
    contents["files"] |= {"users": "../mine.parquet", "habits": ".."}
    manifest.write_text(json.dumps(contents))
    tiny.save(tmp_path / "study")
    assert (tmp_path / "mine.parquet").read_text() == "mine"
    assert_same(Dataset.load(tmp_path / "study"), tiny)


@pytest.mark.parametrize("name", ["users-2024.parquet", "thesis.docx", "dataset.json"])
def test_a_folder_of_something_else_is_refused(tiny: Dataset, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(DatasetError, match=re.escape(name)):
        tiny.save(tmp_path)
    assert files(tmp_path) == {name: b"mine"}


def test_a_folder_without_a_manifest_but_of_our_own_files_is_written(tiny: Dataset, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    (tmp_path / parquet.MANIFEST).unlink()  # as after a crash before the manifest came
    (tmp_path / "users.parquet").write_text("by hand")
    tiny.save(tmp_path)
    assert_same(Dataset.load(tmp_path), tiny)


def test_saving_through_a_link_keeps_the_link_and_the_mode(tiny: Dataset, tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "study.db", tmp_path / "study.db"
    tiny.save(real)
    real.chmod(0o600)
    link.symlink_to(real)
    tiny.replace(metadata={"source": "again"}).save(link)
    assert link.is_symlink()
    assert Dataset.load(real).metadata == {"source": "again"}
    assert real.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in real.parent.iterdir()] == ["study.db"]


def test_a_file_where_a_folder_is_meant_and_the_reverse(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "study").write_text("a file")
    with pytest.raises(DatasetError, match="is a file; name a folder"):
        tiny.save(tmp_path / "study")
    (tmp_path / "study.db").mkdir()
    with pytest.raises(DatasetError, match="is a folder"):
        tiny.save(tmp_path / "study.db")


@pytest.mark.parametrize("name", STORES)
def test_a_full_disk_leaves_the_old_dataset(tiny: Dataset, tmp_path: Path, name: str) -> None:
    tiny.save(tmp_path / name)
    program = textwrap.dedent(f"""
        import resource, signal
        from habitlab.dataset import Dataset
        dataset = Dataset.load({str(tmp_path / name)!r}).replace(metadata={{"source": "new"}})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # beyond the limit a write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            dataset.save({str(tmp_path / name)!r})
        except OSError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert_same(Dataset.load(tmp_path / name), tiny)
    assert not list(tmp_path.rglob("*.part"))


def test_several_at_once_read_the_file_once(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.save(tmp_path / "study.db")
    reads, read = [], sqlite.read

    def slow(path: Path) -> dict:
        reads.append(path)
        time.sleep(0.3)
        return read(path)

    monkeypatch.setattr(sqlite, "read", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(Dataset.load, [tmp_path / "study.db"] * 4))
    assert len(reads) == 1
    for dataset in found:
        assert_same(dataset, tiny)


def test_a_cache_that_cannot_be_written_only_costs_time(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "no-folder"))
    tiny.save(tmp_path / "study.db")
    assert_same(Dataset.load(tmp_path / "study.db"), tiny)
