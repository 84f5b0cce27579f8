"""Sources that are not as they should be: each is a clear error, or its rows are counted, and nothing is lost."""

import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from habitlab.dataset import DatasetError, check
from habitlab.dataset.importers import FORMATS, detect, import_source
from tests.dataset import tracker_files as files


def make(format: str, folder: Path) -> Path:
    """Write a sound source of each format, all with several habits and at least four rows."""
    folder.mkdir(exist_ok=True)
    path = folder / "source"
    match format:
        case "loop":
            habits = [(1, "Run", 1, 1, 0, 0, 0.0, ""), (2, "Read", 3, 7, 0, 0, 0.0, "")]
            return files.write_loop(path, habits, [(h, f"2024-03-{day:02d}", 2) for h in (1, 2) for day in (1, 3, 9)])
        case "loop-csv":
            habits = [("Run", "YES_NO", 1, 1, ""), ("Read", "YES_NO", 3, 7, "")]
            return files.write_loop_csv(
                path, habits, {"2024-03-02": ["NO", "YES_MANUAL"], "2024-03-01": ["UNKNOWN", "YES_MANUAL"]}
            )
        case "tickmate":
            return files.write_tickmate(
                path, [(1, "Run", 0), (2, "Read", 1)], [(i % 2 + 1, 2024, 2, i) for i in range(1, 9)]
            )
        case "rewire":
            habits = [(1, "Run", 0, "1,3,5", 0, 0, 0), (2, "Read", 2, "", 0, 0, 5)]
            return files.write_rewire(path, habits, [(i % 2 + 1, f"2024030{i}", i % 3 + 1) for i in range(1, 9)])
        case "habitbull":
            path.write_text(files.habitbull_text([("Run", f"2024-03-{d:02d}", d % 2) for d in range(1, 20)]), "utf-8")
        case "lifesnaps":
            rows = [
                {"id": d % 2, "date": f"2024-03-{d:02d}", "bpm": 70, "activityType": "['Run']"} for d in range(1, 20)
            ]
            path.write_text(files.lifesnaps_text(rows), "utf-8")
    return path


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {format: make(format, tmp_path / format) for format in FORMATS}


def law(path: Path, **options: object) -> None:
    result = import_source(path, **options)
    assert result.report.imported + sum(result.report.skipped.values()) == result.report.rows
    check(result.dataset)


def test_the_sound_sources_are_found_by_their_content(sources: dict[str, Path]):
    assert {format: detect(path) for format, path in sources.items()} == {format: format for format in FORMATS}


SQLITE = ["loop", "tickmate", "rewire"]
TEXT = ["habitbull", "lifesnaps"]


class TestDamagedDatabases:
    @pytest.mark.parametrize("format", SQLITE)
    @pytest.mark.parametrize("keep", [16, 50, 100, 4096, -4096, -100])
    def test_a_truncated_file(self, format: str, keep: int, tmp_path: Path):
        path = make(format, tmp_path)
        data = path.read_bytes()
        path.write_bytes(data[:keep])
        with pytest.raises(DatasetError, match=r"source is a damaged SQLite file \(.+\); export it again"):
            import_source(path)

    def test_a_scribble_in_the_middle(self, tmp_path: Path):
        path = make("loop", tmp_path)
        data = bytearray(path.read_bytes())
        data[4096 : 4096 + 200] = bytes(200)
        path.write_bytes(data)
        with pytest.raises(DatasetError, match="damaged SQLite file"):
            import_source(path)

    def test_a_beginning_that_is_gone(self, tmp_path: Path):
        path = make("loop", tmp_path)
        path.write_bytes(bytes(16) + path.read_bytes()[16:])
        with pytest.raises(DatasetError, match=r"no known format.*Found: a binary file"):
            import_source(path)

    @pytest.mark.parametrize(("table", "column"), [("Repetitions", "timestamp"), ("Habits", "name")])
    def test_a_column_that_is_missing(self, table: str, column: str, tmp_path: Path):
        path = make("loop", tmp_path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
        with pytest.raises(DatasetError, match=f"table {table} has no column {column}; it has "):
            import_source(path)

    def test_an_open_write_ahead_log_is_said_and_left_alone(self, tmp_path: Path):
        path = make("loop", tmp_path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("INSERT INTO Repetitions VALUES (1, 0, 2, '')")
            connection.commit()
            copies = tmp_path / "copies"
            copies.mkdir()
            for name in ("source", "source-wal"):
                shutil.copy(tmp_path / name, copies / name)
        result = import_source(copies / "source")
        assert result.report.rows == 6
        assert any("source-wal stands beside the file" in note for note in result.report.notes)
        assert sorted(file.name for file in copies.iterdir()) == ["source", "source-wal"]

    def test_entries_of_unknown_habits_and_impossible_days(self, tmp_path: Path):
        habits = [(1, "Run", 1, 1, 0, 0, 0.0, "")]
        entries = [(1, "2024-03-01", 2), (9, "2024-03-01", 2), (None, "2024-03-01", 2), (1, None, 2),
                   (1, "1969-12-31", 2),
                   (1, 10**18, 2), (1, -(10**18), 2), (1, files.midnight("2150-01-01"), 2)]  # fmt: skip
        result = import_source(files.write_loop(tmp_path / "a", habits, entries))
        assert result.report.rows == 8
        assert result.report.imported == 1
        assert result.report.skipped == {
            "before 1970": 1,
            "in the future": 1,
            "not a day": 3,
            "of a habit that the source does not list": 2,
        }

    def test_values_of_the_wrong_type(self, tmp_path: Path):
        tracks = ("_id, name, multiple_entries_per_day", [("one", None, "x"), (2, 5, None)])
        ticks = (
            "_track_id, year, month, day",
            [(2, 2024, "two", 1), (2, 2024, 2, 1), ("2", "2024", "2", "2"), (2, None, 2, 3)],
        )
        path = files.write_sqlite(tmp_path / "a", {"tracks": tracks, "ticks": ticks})
        result = import_source(path)
        assert result.report.skipped == {"not a day": 2}
        assert result.report.imported == 2
        assert "5" in result.dataset.habits["name_en"].tolist()


class TestDamagedText:
    @pytest.mark.parametrize("format", TEXT)
    @settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0.3, 1))
    def test_a_file_that_breaks_off(self, format: str, share: float, tmp_path: Path):
        path = make(format, tmp_path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        law(path)

    @pytest.mark.parametrize("format", TEXT)
    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        place=st.floats(0.3, 0.99),
        scribble=st.sampled_from([b'"', b"\xff\xfe\x00", b"\n\n,,,,\n", b",", b'","', b"\x1a"]),
    )
    def test_a_scribble_somewhere(self, format: str, place: float, scribble: bytes, tmp_path: Path):
        path = make(format, tmp_path)
        data = path.read_bytes()
        cut = int(len(data) * place)
        path.write_bytes(data[:cut] + scribble + data[cut:])
        result = import_source(path)
        assert result.report.imported + sum(result.report.skipped.values()) == result.report.rows
        assert result.report.rows >= 18  # of 19, as a scribble can end one early but never swallow another

    @pytest.mark.parametrize("format", TEXT)
    def test_only_a_header(self, format: str, tmp_path: Path):
        path = make(format, tmp_path)
        path.write_text(path.read_text("utf-8").splitlines()[0], "utf-8")
        result = import_source(path)
        assert (result.report.rows, result.report.imported, len(result.dataset.habit_tracking)) == (0, 0, 0)
        assert "the source holds no rows" in result.report.notes
        check(result.dataset)

    def test_a_csv_export_that_breaks_off(self, tmp_path: Path):
        path = make("loop-csv", tmp_path) / "Checkmarks.csv"
        path.write_text(path.read_text("utf-8")[:-12], "utf-8")
        result = import_source(path.parent)
        assert result.report.imported + sum(result.report.skipped.values()) == result.report.rows
        assert result.report.skipped["not a known value"] >= 1


@pytest.mark.parametrize("format", SQLITE)
def test_a_database_without_entries(format: str, tmp_path: Path):
    path = make(format, tmp_path)
    table = {"loop": "Repetitions", "tickmate": "ticks", "rewire": "CHECKINS"}[format]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
    result = import_source(path)
    assert "the source holds no rows" in result.report.notes
    assert len(result.dataset.habits) == 2
    law(path)


class TestCallsThatAreWrong:
    def test_nothing_there(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError, match=r"nothing at .*absent\.db"):
            import_source(tmp_path / "absent.db")

    def test_an_empty_file_and_an_empty_folder(self, tmp_path: Path):
        (tmp_path / "empty").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(DatasetError, match="Found: an empty file"):
            import_source(tmp_path / "empty")
        with pytest.raises(DatasetError, match="Found: no file"):
            import_source(tmp_path / "folder")

    def test_a_file_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")  # as root may read everything, chmod would not do

        path = make("loop", tmp_path)
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(PermissionError, match=r"cannot read .*source: Permission denied"):
            import_source(path)

    @pytest.mark.parametrize("wanted", FORMATS)
    def test_the_wrong_format(self, wanted: str, sources: dict[str, Path]):
        other = "habitbull" if wanted != "habitbull" else "loop"
        with pytest.raises(DatasetError, match=rf"is not {wanted} \(.*\); it looks like {other}"):
            import_source(sources[other], format=wanted)

    @pytest.mark.parametrize("format", FORMATS)
    def test_the_right_format(self, format: str, sources: dict[str, Path]):
        law(sources[format], format=format)

    def test_a_format_that_does_not_exist(self, sources: dict[str, Path]):
        with pytest.raises(DatasetError, match=r"no format 'streaks'; there are loop, loop-csv, habitbull"):
            import_source(sources["loop"], format="streaks")

    def test_a_database_of_something_else(self, tmp_path: Path):
        path = files.write_sqlite(tmp_path / "a", {"songs": ("title text", [])})
        with pytest.raises(DatasetError, match=r"Looked for: .*Repetitions.*Found: SQLite tables songs"):
            import_source(path)

    def test_a_database_that_fits_two_formats(self, tmp_path: Path):
        path = files.write_old_loop(tmp_path / "a", [(1, "Run", 1, 1)], [(1, "2024-03-01")])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE tracks (_id, name)")
            connection.execute("CREATE TABLE ticks (_track_id, year, month, day)")
        with pytest.raises(DatasetError, match=r"holds several sources, name one of them: .*loop.*tickmate"):
            import_source(path)
        law(path, format="loop")

    def test_a_habitlab_dataset(self, sources: dict[str, Path], tmp_path: Path):
        import_source(sources["loop"]).dataset.save(tmp_path / "own.db")
        with pytest.raises(DatasetError, match="Found: a HabitLab dataset, which needs no import"):
            import_source(tmp_path / "own.db")

    def test_a_damaged_zip(self, sources: dict[str, Path], tmp_path: Path):
        path = Path(shutil.make_archive(str(tmp_path / "export"), "zip", sources["loop-csv"]))
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(DatasetError, match="is a damaged or locked zip"):
            import_source(path)

    def test_a_zip_that_would_fill_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("habitlab.dataset.importers._LARGEST_ZIP", 1000)
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("Checkmarks.csv", "0" * 2000)
        with pytest.raises(DatasetError, match=r"would unpack to 2,000 bytes"):
            import_source(tmp_path / "a.zip")

    def test_a_damaged_file_beside_a_sound_one_is_no_hindrance(self, sources: dict[str, Path]):
        sources["habitbull"].with_name("broken.db").write_bytes(sources["loop"].read_bytes()[:5000])
        result = import_source(sources["habitbull"].parent)
        assert result.report.format == "habitbull"
        assert "not read: broken.db" in result.report.notes

    def test_an_e_mail_address_is_no_pseudonym(self, sources: dict[str, Path]):
        with pytest.raises(DatasetError, match="name a short pseudonym"):
            import_source(sources["loop"], user="ann@example.org")

    def test_a_user_for_people_who_have_ids(self, sources: dict[str, Path]):
        with pytest.raises(DatasetError, match="LifeSnaps names its own people"):
            import_source(sources["lifesnaps"], user="ann")
