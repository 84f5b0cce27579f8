"""One and the same tracker written in many ways: separators, encodings, date orders, schema versions, odd habits."""

import shutil
import zipfile
from datetime import date, timedelta
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from habitlab.dataset import Dataset
from habitlab.dataset.importers import ImportResult, detect, import_source
from habitlab.dataset.importers.entries import CONFLICTING, IMPLIED, REPEATED, lacking
from habitlab.dataset.importers.reading import combine_days, decode, parse_days, text_tables
from tests.dataset import tracker_files as files

ORDERS = {"iso": "%Y-%m-%d", "slashed": "%Y/%m/%d", "d/m/y": "%d/%m/%Y", "m/d/y": "%m/%d/%Y", "dotted": "%d.%m.%Y",
          "compact": "%Y%m%d", "with time": "%Y-%m-%d 00:00:00", "d-m-y": "%d-%m-%Y"}  # fmt: skip
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1251"]
ROWS = [
    ("Бег", date(2024, 2, 27), 1), ("Бег", date(2024, 2, 29), 1), ("Бег", date(2024, 3, 1), 0),
    ("Чтение на ночь", date(2024, 3, 13), 30), ("Чтение на ночь", date(2024, 3, 14), 20),
    ("Push-ups", date(2023, 12, 31), -2150000000), ("Push-ups", date(2024, 1, 2), 1),
]  # fmt: skip
TABLES = ("users", "habits", "habit_tracking", "adoptions")


def law(result: ImportResult) -> ImportResult:
    """Every row of the source is imported or counted as skipped."""
    report = result.report
    assert report.imported + sum(report.skipped.values()) == report.rows
    return result


def days_of(result: ImportResult, habit: str, user: str = "me") -> dict[str, str]:
    """Status by day of one habit, derived ones marked by a star."""
    rows = law(result).dataset.habit_tracking
    rows = rows[rows["habit_id"] == f"{user}:{habit}"]
    days = rows["date"].dt.strftime("%m-%d")
    return dict(zip(days, rows["status"].astype(str) + rows["derived"].map({True: "*", False: ""}), strict=True))


def assert_same(one: Dataset, other: Dataset) -> None:
    for table in TABLES:
        pd.testing.assert_frame_equal(one.table(table), other.table(table))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """What every dialect of `ROWS` must give."""
    path = tmp_path_factory.mktemp("plain") / "plain.csv"
    path.write_text(files.habitbull_text([(n, str(day), v) for n, day, v in ROWS]), "utf-8")
    return law(import_source(path)).dataset


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    delimiter=st.sampled_from(",;\t|"),
    order=st.sampled_from(sorted(ORDERS)),
    encoding=st.sampled_from(ENCODINGS),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    shout=st.booleans(),
    extra=st.sampled_from(["", "trailing", "column", "sep line", "blank lines"]),
)
@example(delimiter=";", order="d/m/y", encoding="cp1251", line_end="\r\n", shout=True, extra="sep line")
@example(delimiter="\t", order="m/d/y", encoding="utf-16", line_end="\r\n", shout=False, extra="trailing")
def test_a_dialect_changes_nothing(
    plain: Dataset, tmp_path: Path, delimiter: str, order: str, encoding: str, line_end: str, shout: bool, extra: str
):
    text = files.habitbull_text([(n, day.strftime(ORDERS[order]), v) for n, day, v in ROWS], delimiter, line_end)
    lines = text.split(line_end)[:-1]
    if shout:
        lines[0] = lines[0].upper()
    if extra == "trailing":
        lines = [line + delimiter for line in lines]
    elif extra == "column":
        lines = [line + delimiter + ("Mood" if i == 0 else "good") for i, line in enumerate(lines)]
    elif extra == "sep line":
        lines = [f"sep={delimiter}", *lines]
    elif extra == "blank lines":
        lines = [line for pair in zip(lines, [""] * len(lines), strict=True) for line in pair]
    path = tmp_path / "anything.dat"
    path.write_bytes(line_end.join([*lines, ""]).encode(encoding))
    result = law(import_source(path))
    assert_same(result.dataset, plain)
    assert result.report.rows == len(ROWS)
    if extra == "column":
        assert any("mood" in note for note in result.report.notes)


class TestDays:
    @given(
        days=st.lists(st.dates(date(1971, 1, 1), date(2090, 12, 31)), min_size=1, max_size=30),
        order=st.sampled_from(sorted(ORDERS)),
    )
    def test_days_are_read_in_every_order_that_the_column_decides(self, days: list[date], order: str):
        days = [*days, date(2024, 2, 29)]  # no month is the 29th
        read, _ = parse_days(pd.Series([day.strftime(ORDERS[order]) for day in days]))
        assert read.dt.date.tolist() == days

    def test_an_order_that_the_column_leaves_open_is_said(self):
        read, notes = parse_days(pd.Series(["04/11/2019", "05/11/2019", "06/11/2019"]))
        assert read.dt.strftime("%m-%d").tolist() == ["11-04", "11-05", "11-06"]
        assert "3 dates read as day/month/year: both orders would give real days" in notes[0]
        read, _ = parse_days(pd.Series(["11/04/2019", "11/05/2019", "11/06/2019"]))
        assert read.dt.strftime("%m-%d").tolist() == ["11-04", "11-05", "11-06"]

    def test_one_undecided_date_is_taken_as_its_separator_suggests(self):
        assert parse_days(pd.Series(["04/05/2019"]))[0][0] == pd.Timestamp("2019-04-05")
        assert parse_days(pd.Series(["04.05.2019"]))[0][0] == pd.Timestamp("2019-05-04")

    def test_a_date_of_the_other_order_is_no_day(self):
        read, _ = parse_days(pd.Series(["1/31/2024", "2/28/2024", "28/2/2024", "12/31/2023"]))
        assert read.isna().tolist() == [False, False, True, False]

    @pytest.mark.parametrize(
        "text", ["", "yesterday", "2024-02-30", "2023-02-29", "2024-13-01", "31/31/2024", "٢٠٢٤-٠١-٠١"]
    )
    def test_what_is_no_day_is_missing(self, text: str):
        assert parse_days(pd.Series([text]))[0].isna().all()

    @given(st.integers(1, 9999), st.integers(-3, 20), st.integers(-3, 40))
    def test_the_calendar_is_pythons(self, year: int, month: int, day: int):
        found = combine_days(*(np.array([float(part)]) for part in (year, month, day)))[0]
        try:
            assert found == np.datetime64(date(year, month, day))
        except ValueError:
            assert np.isnat(found)


class TestText:
    def test_western_and_cyrillic_bytes_are_told_apart(self):
        assert decode("Méditation à midi, café".encode("cp1252")) == ("Méditation à midi, café", "cp1252")
        assert decode("Привычка: бег".encode("cp1251")) == ("Привычка: бег", "cp1251")

    def test_a_quoted_line_end_belongs_to_its_field(self):
        (table,) = text_tables('a,b\n1,"two\nlines, really"\n2,x\n')
        assert table.records == [["1", "two\nlines, really"], ["2", "x"]]
        assert table.lines == [2, 4]

    def test_a_quote_that_never_closes_swallows_nothing(self):
        (table,) = text_tables('a,b\n1,"open\n2,x\n3,y\n')
        assert table.records == [["1", '"open'], ["2", "x"], ["3", "y"]]
        (table,) = text_tables('a,b\n1,x\n2,"open\n3,y\n')
        assert table.records == [["1", "x"], ["2", '"open'], ["3", "y"]]

    def test_two_stray_quotes_swallow_nothing_between_them(self):
        lines = ["a,b,c", '0,"stray,z', *[f"{i},x,y" for i in range(1, 9)], '9,"stray,z', "10,x,y"]
        (table,) = text_tables("\n".join(lines))
        assert [record[0] for record in table.records] == [str(i) for i in range(11)]


class TestUnmentionedDays:
    """The scheduled days between a habit's first and last row that the source does not mention are missed."""

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from(["settled", "free", "other"]), min_size=1, max_size=40),
        st.integers(1, 6),
        st.integers(2, 14),
        st.integers(0, 6),
    )
    def test_each_period_lacks_what_it_has_too_few_of(self, said: list[str], times: int, days: int, weekday: int):
        expected = [False] * len(said)
        for start in range(-weekday if days == 7 else 0, len(said), days):
            period = range(max(start, 0), min(start + days, len(said)))
            missing = len(period) * times // days - sum(said[day] == "settled" for day in period)
            free = [day for day in period if said[day] == "free"]
            for day in free[::-1][: max(missing, 0)]:
                expected[day] = True
        array = np.array(said)
        assert lacking(array == "settled", array == "free", times, days, weekday).tolist() == expected

    def test_two_of_three_times_a_week_is_two_thirds(self, tmp_path: Path):
        monday = date(2024, 1, 1)
        done = [monday + timedelta(days=7 * week + day) for week in range(12) for day in (0, 6)]
        path = files.write_old_loop(tmp_path / "a", [(1, "Run", 3, 7)], [(1, str(day)) for day in done])
        result = import_source(path)
        assert pd.Series(days_of(result, "run")).value_counts().to_dict() == {"done": 24, "missed*": 12}
        assert any(note.startswith("derived: ") for note in result.report.notes)

    def test_stated_misses_and_skips_take_their_place(self, tmp_path: Path):
        said = [(1, "2024-03-04", 2), (1, "2024-03-05", 0), (1, "2024-03-06", 3), (1, "2024-03-17", 2)]
        path = files.write_loop(tmp_path / "a", [(1, "Run", 3, 7, 0, 0, 0.0, "")], said)
        assert days_of(import_source(path), "run") == {
            "03-04": "done", "03-05": "missed", "03-06": "skipped", "03-15": "missed*", "03-16": "missed*",
            "03-17": "done",
        }  # fmt: skip

    def test_daily(self, tmp_path: Path):
        path = files.write_old_loop(tmp_path / "a", [(1, "Run", 1, 1)], [(1, "2024-03-01"), (1, "2024-03-04")])
        assert days_of(import_source(path), "run") == {
            "03-01": "done", "03-02": "missed*", "03-03": "missed*", "03-04": "done",
        }  # fmt: skip

    def test_a_week_whose_target_was_met_has_no_missed_days(self, tmp_path: Path):
        done = ["2024-03-04", "2024-03-06", "2024-03-08", "2024-03-25"]
        path = files.write_old_loop(tmp_path / "a", [(1, "Run", 3, 7)], [(1, day) for day in done])
        result = import_source(path)
        days = days_of(result, "run")
        assert {day: status for day, status in days.items() if status == "done"}.keys() == {d[5:] for d in done}
        # The three of 4 to 8 March keep that week; the two weeks after it lack three each, the last one is a day long.
        missed = [day for day, status in days.items() if status == "missed*"]
        assert missed == ["03-15", "03-16", "03-17", "03-22", "03-23", "03-24"]
        assert result.report.derived == {"missed": 6}

    def test_days_outside_first_and_last_are_no_rows(self, tmp_path: Path):
        path = files.write_tickmate(
            tmp_path / "a",
            [(1, "Run", 0), (2, "Rest", 0)],
            [(1, 2024, 0, 5), (1, 2024, 0, 7), (2, 2024, 0, 1), (2, 2024, 0, 31)],
        )
        assert list(days_of(import_source(path), "run")) == ["01-05", "01-06", "01-07"]

    def test_only_scheduled_weekdays_are_missed(self, tmp_path: Path):
        path = files.write_rewire(
            tmp_path / "a",
            [(1, "Run", 0, "1,3,5", 0, 0, 0)],
            [(1, "20240304", 2), (1, "20240310", 2), (1, "20240311", 3)],
        )
        assert days_of(import_source(path), "run") == {
            "03-04": "done", "03-06": "missed*", "03-08": "missed*", "03-10": "done", "03-11": "skipped",
        }  # fmt: skip

    def test_a_source_that_answers_no_most_days_leaves_the_others_unknown(self, tmp_path: Path):
        entries = [(1, f"2024-03-{day:02d}", int(day % 2) * 2) for day in range(1, 11)] + [(1, "2024-03-12", 2)]
        path = files.write_loop(tmp_path / "a", [(1, "Run", 1, 1, 0, 0, 0.0, "")], entries)
        result = import_source(path)
        days = days_of(result, "run")
        assert days["03-11"] == "unknown*"
        assert days["03-10"] == "missed"
        assert any("mostly answers, so these are unknown" in note for note in result.report.notes)

    def test_silence_about_a_limit_is_unknown(self, tmp_path: Path):
        habits = [(1, "Cigarettes", 1, 1, 1, 1, 3.0, "pieces")]
        path = files.write_loop(tmp_path / "a", habits, [(1, "2024-03-01", 2000), (1, "2024-03-03", 4000)])
        assert days_of(import_source(path), "cigarettes") == {
            "03-01": "done", "03-02": "unknown*", "03-03": "missed",
        }  # fmt: skip


class TestLoop:
    YES_NO = (1, "Run", 1, 1, 0, 0, 0.0, "")

    def test_every_value(self, tmp_path: Path):
        values = {"01": 2, "02": 0, "03": 3, "04": -1, "05": 1, "06": 7, "07": None, "08": 2}
        path = files.write_loop(tmp_path / "a", [self.YES_NO], [(1, f"2024-03-{d}", v) for d, v in values.items()])
        result = import_source(path)
        # A day the app filled in (1) was not scheduled; 7 and nothing are no values, so these days are not mentioned.
        assert days_of(result, "run") == {
            "03-01": "done", "03-02": "missed", "03-03": "skipped", "03-04": "unknown", "03-06": "missed*",
            "03-07": "missed*", "03-08": "done",
        }  # fmt: skip
        assert result.report.skipped == {IMPLIED: 1, "not a known value": 2}

    def test_measured_habits_are_held_against_their_target(self, tmp_path: Path):
        habits = [
            (1, "Run", 1, 1, 1, 0, 5.0, "km"),
            (2, "Coffee", 1, 1, 1, 1, 2.0, "cups"),
            (3, "Swim", 1, 7, 1, 0, 3.0, "km"),
        ]
        entries = [
            (1, "2024-03-01", 5000), (1, "2024-03-02", 4999), (1, "2024-03-03", 0), (1, "2024-03-04", 3),
            (1, "2024-03-05", -1),
            (2, "2024-03-01", 2000), (2, "2024-03-02", 2500),
            (3, "2024-03-01", 1100), (3, "2024-03-06", 1900), (3, "2024-03-20", 1000),
        ]  # fmt: skip
        result = import_source(files.write_loop(tmp_path / "a", habits, entries))
        assert days_of(result, "run") == {
            "03-01": "done", "03-02": "missed", "03-03": "missed", "03-04": "skipped", "03-05": "unknown",
        }  # fmt: skip
        assert days_of(result, "coffee") == {"03-01": "done", "03-02": "missed"}
        swim = days_of(result, "swim")  # 3 km within seven days: reached together on the 1st and 6th, not on the 20th
        assert (swim["03-01"], swim["03-06"], swim["03-20"]) == ("done", "done", "missed")
        rows = result.dataset.habit_tracking
        assert rows[rows["habit_id"] == "me:run"]["value"].tolist()[:3] == [5.0, 4.999, 0.0]
        habit = result.dataset.habits.set_index("habit_id").loc["me:coffee"]
        assert (habit["unit"], habit["target_value"], habit["target_direction"]) == ("cups", 2.0, "at most")

    def test_a_newer_schema_is_read_by_its_columns(self, tmp_path: Path):
        path = files.write_sqlite(
            tmp_path / "a",
            {
                "habits": ("ID integer, NAME text, Freq_Num integer, freq_den integer, mood_ring text",
                           [(1, "Run", 1, 1, "x")]),
                "repetitions": ("habit integer, timestamp integer, value integer, weather text",
                                [(1, files.midnight("2030-01-01"), 2, "sun")]),
            },
            version=99,
        )  # fmt: skip
        result = law(import_source(path))
        assert days_of(result, "run") == {"01-01": "done"}
        assert "schema version 99 is newer" in result.report.notes[0]
        assert any("mood_ring" in note for note in result.report.notes)
        assert any("weather" in note for note in result.report.notes)

    def test_names_of_all_kinds(self, tmp_path: Path):
        names = ["🏃 Run", "Читать книгу", "  Run  fast ", "RUN FAST", "", "mail bob@example.org"]
        habits = [(i, name, 1, 1, 0, 0, 0.0, "") for i, name in enumerate(names)]
        path = files.write_loop(tmp_path / "a", habits, [(i, "2024-03-01", 2) for i in range(len(names))])
        result = law(import_source(path))
        table = result.dataset.habits.set_index("habit_id")
        assert table.loc["me:читать-книгу", "name_ru"] == "Читать книгу"
        assert pd.isna(table.loc["me:читать-книгу", "name_en"])
        assert table.loc["me:🏃-run", "name_en"] == "🏃 Run"
        assert len(table) == 5  # the two that differ by case and blanks are one
        assert result.report.skipped == {REPEATED: 1}
        assert not table.index.str.contains("@").any()
        assert not str(result.report.as_dict()).count("bob@example")

    def test_same_name_with_another_schedule_stays_a_habit_of_its_own(self, tmp_path: Path):
        habits = [(1, "Sport", 1, 1, 0, 0, 0.0, ""), (2, "Sport", 3, 7, 0, 0, 0.0, "")]
        path = files.write_loop(tmp_path / "a", habits, [(1, "2024-03-01", 2), (2, "2024-03-01", 2)])
        assert sorted(law(import_source(path)).dataset.habits["habit_id"]) == ["me:sport", "me:sport@3/7"]

    def test_of_conflicting_entries_of_a_day_done_counts(self, tmp_path: Path):
        habits = [self.YES_NO, (2, "run", 1, 1, 0, 0, 0.0, "")]
        path = files.write_loop(
            tmp_path / "a", habits, [(1, "2024-03-01", 0), (2, "2024-03-01", 2), (2, "2024-03-02", 2)]
        )
        result = import_source(path)
        assert days_of(result, "run") == {"03-01": "done", "03-02": "done"}
        assert result.report.skipped == {CONFLICTING: 1}

    def test_an_adoption_begins_with_a_day_that_is_stated_and_known(self, tmp_path: Path):
        entries = [(1, "2024-03-01", -1), (1, "2024-03-04", 2)]
        result = import_source(files.write_loop(tmp_path / "a", [self.YES_NO], entries))
        assert days_of(result, "run") == {
            "03-01": "unknown", "03-02": "missed*", "03-03": "missed*", "03-04": "done",
        }  # fmt: skip
        assert result.dataset.adoptions["adopted_at"].tolist() == [pd.Timestamp("2024-03-04", tz="UTC")]

    def test_notes_are_counted_and_not_kept(self, tmp_path: Path):
        path = files.write_loop(tmp_path / "a", [self.YES_NO], [(1, "2024-03-01", 2, "met Ann at the clinic")])
        result = law(import_source(path))
        assert any(note.startswith("1 notes on days are not kept") for note in result.report.notes)
        result.dataset.save(tmp_path / "b.db")
        assert b"clinic" not in (tmp_path / "b.db").read_bytes()


class TestLoopCsv:
    HABITS = (("Meditate", "YES_NO", 1, 1, ""), ("Read, write", "YES_NO", 2, 3, ""), ("Water", "NUMERICAL", 1, 1, 2.0))
    DAYS: ClassVar = {
        "2024-03-04": ["SKIP", "YES_MANUAL", "2500"],
        "2024-03-03": ["NO", "YES_AUTO", "NO"],
        "2024-03-02": ["YES_MANUAL", "YES_MANUAL", "1999"],
        "2024-03-01": ["UNKNOWN", "YES_MANUAL", "UNKNOWN"],
    }

    def expect(self, result: ImportResult) -> None:
        assert days_of(result, "meditate") == {
            "03-01": "unknown", "03-02": "done", "03-03": "missed", "03-04": "skipped",
        }  # fmt: skip
        assert days_of(result, "read,-write") == {"03-01": "done", "03-02": "done", "03-04": "done"}
        assert days_of(result, "water") == {"03-01": "unknown", "03-02": "missed", "03-03": "missed", "03-04": "done"}

    def test_folder_zip_and_wrapped_zip_are_one_source(self, tmp_path: Path):
        folder = files.write_loop_csv(tmp_path / "in" / "Loop Habits CSV", self.HABITS, self.DAYS)
        zipped = Path(shutil.make_archive(str(tmp_path / "flat"), "zip", folder))
        wrapped = Path(shutil.make_archive(str(tmp_path / "wrapped"), "zip", folder.parent))
        unnamed = zipped.rename(tmp_path / "download")
        results = [import_source(path) for path in (folder, folder.parent, wrapped, unnamed)]
        for result in results:
            self.expect(result)
            assert_same(result.dataset, results[0].dataset)
            assert result.report.digest == results[0].report.digest
            assert result.report.rows == 22  # 12 cells, and 10 records of the habits' own tables
            assert result.report.skipped == {REPEATED: 9, IMPLIED: 2}

    def test_parts_are_told_by_their_headers(self, tmp_path: Path):
        folder = files.write_loop_csv(tmp_path / "a", self.HABITS, self.DAYS)
        (folder / "Habits.csv").rename(folder / "1.txt")
        (folder / "Checkmarks.csv").rename(folder / "2.txt")
        self.expect(import_source(folder))

    def test_the_shared_table_alone(self, tmp_path: Path):
        path = tmp_path / "x"
        path.write_text("Date,Run,Бег,\n2024-03-02,NO,YES_MANUAL,\n2024-03-01,YES_MANUAL,UNKNOWN,\n", "utf-8")
        result = import_source(path)
        assert detect(path) == "loop-csv"
        assert days_of(result, "run") == {"03-01": "done", "03-02": "missed"}
        assert days_of(result, "бег") == {"03-01": "unknown", "03-02": "done"}

    def test_a_habits_own_tables_alone(self, tmp_path: Path):
        folder = files.write_loop_csv(tmp_path / "a", self.HABITS[:1], self.DAYS)
        (folder / "Habits.csv").unlink()
        (folder / "Checkmarks.csv").unlink()
        result = import_source(folder)
        assert days_of(result, "meditate") == {"03-02": "done", "03-03": "missed", "03-04": "skipped"}

    def test_old_exports_hold_numbers(self, tmp_path: Path):
        (tmp_path / "Habits.csv").write_text(
            "Position,Name,Question,Description,NumRepetitions,Interval,Color\n001,Run,,,2,3,#FF8F00\n", "utf-8"
        )
        (tmp_path / "Checkmarks.csv").write_text("Date,Run,\n2016-03-03,2,\n2016-03-02,1,\n2016-03-01,2,\n", "utf-8")
        result = import_source(tmp_path)
        assert days_of(result, "run") == {"03-01": "done", "03-03": "done"}
        assert result.dataset.habits["target"].tolist() == ["2/3"]
        assert result.report.skipped == {IMPLIED: 1}


class TestHabitBull:
    def write(self, path: Path, rows: list[tuple]) -> Path:
        path.write_text(files.habitbull_text(rows), "utf-8")
        return path

    def test_exports_put_behind_each_other(self, tmp_path: Path):
        path = self.write(
            tmp_path / "a", [("Run", "2024-03-01", 1), ("HabitName", "CalendarDate", "Value"), ("run", "2024-03-02", 0)]
        )
        result = import_source(path)
        assert days_of(result, "run") == {"03-01": "done", "03-02": "missed"}
        assert result.report.skipped == {"the header again": 1}

    def test_what_cannot_be_read_is_counted_with_the_first_cases(self, tmp_path: Path):
        rows = [("Run", "2024-03-01", 1), ("Run", "someday", 1), ("Run", "2024-03-02", "yes"), ("", "2024-03-02", 1),
                ("Run", "1969-12-31", 1), ("Run", "2200-01-01", 1)]  # fmt: skip
        result = law(import_source(self.write(tmp_path / "a", rows)))
        assert result.report.rows == 6
        assert result.report.skipped == {
            "before 1970": 1,
            "in the future": 1,
            "not a day": 1,
            "not a known value": 1,
            "of a habit that the source does not list": 1,
        }
        assert result.report.examples["not a day"] == ["line 3: Run, someday, value 1"]

    def test_today_decides_what_is_in_the_future(self, tmp_path: Path):
        path = self.write(tmp_path / "a", [("Run", "2024-03-01", 1), ("Run", "2024-03-02", 1)])
        assert import_source(path, today="2024-03-01").report.skipped == {"in the future": 1}
        assert import_source(path, today=date(2024, 3, 2)).report.skipped == {}

    def test_a_record_with_too_many_fields_is_not_guessed_at(self, tmp_path: Path):
        path = tmp_path / "a"
        path.write_text(
            files.habitbull_text([]) + "Run,fast, far,Fitness,2024-03-01,1,great\nRun,,,2024-03-02,1,\n", "utf-8"
        )
        result = import_source(path)
        assert result.report.skipped == {"more fields than the header": 1}
        assert days_of(result, "run") == {"03-02": "done"}


class TestLifeSnaps:
    WORN: ClassVar = {"bpm": 70, "steps": 5000}

    def read(self, path: Path, rows: list[dict]) -> ImportResult:
        path.write_text(files.lifesnaps_text(rows), "utf-8")
        return law(import_source(path))

    def test_goals_hold_on_their_day_only(self, tmp_path: Path):
        base = {"id": 7}
        result = self.read(tmp_path / "a", [
            base | self.WORN | {"date": "2024-03-01"},
            base | self.WORN | {"date": "2024-03-02", "step_goal": "4999"},
            base | self.WORN | {"date": "2024-03-03", "step_goal": "7999"},
            base | self.WORN | {"date": "2024-03-04"},
            base | self.WORN | {"date": "2024-03-05", "step_goal": "NO_GOAL"},
            base | {"date": "2024-03-06", "step_goal": "7999"},
            base | {"date": "2024-03-07", "step_goal": "7999", "steps": 0},
        ])  # fmt: skip
        rows = result.dataset.habit_tracking.set_index("date")["status"].astype(str)
        assert rows.tolist() == ["done", "missed", "unknown", "unknown", "unknown"]
        assert rows.index.day.tolist() == [2, 3, 4, 6, 7]
        assert sum(result.report.skipped.values()) == 2

    def test_activities_count_from_the_first_time_on(self, tmp_path: Path):
        base = {"id": "7.0", "age": "<30", "gender": "FEMALE"}
        result = self.read(tmp_path / "a", [
            base | self.WORN | {"date": "2024-03-01", "activityType": "['Walk']"},
            base | self.WORN | {"date": "2024-03-02", "activityType": "['Walk', 'Yoga/Pilates', 'Walk']"},
            base | self.WORN | {"date": "2024-03-03", "mindfulness_session": "False"},
            base | {"date": "2024-03-04", "mindfulness_session": "True"},
            base | {"date": "2024-03-05", "mindfulness_session": "False"},
            base | self.WORN | {"date": "2024-03-06", "mindfulness_session": "False"},
        ])  # fmt: skip
        rows = result.dataset.habit_tracking
        days = {
            h: dict(zip(g["date"].dt.day, g["status"].astype(str), strict=True)) for h, g in rows.groupby("habit_id")
        }
        assert days == {
            "lifesnaps:walk": {1: "done", 2: "done", 3: "missed", 4: "unknown", 5: "unknown", 6: "missed"},
            "lifesnaps:yoga/pilates": {2: "done", 3: "missed", 4: "unknown", 5: "unknown", 6: "missed"},
            "lifesnaps:mindfulness-session": {4: "done", 5: "unknown", 6: "missed"},
        }
        assert result.dataset.users[["user_id", "age_band"]].iloc[0].tolist() == ["u7", "<30"]
        assert result.dataset.users["gender"].tolist() == ["female"]

    @pytest.mark.parametrize(("age", "kept"), [("7", None), ("200", None), ("30.5", None), ("42", 42.0)])
    def test_ages_in_years(self, tmp_path: Path, age: str, kept: float | None):
        result = self.read(tmp_path / "a", [{"id": 1, "date": "2024-03-01", "age": age, "activityType": "['Run']"}])
        found = result.dataset.users["age"][0]
        assert found == kept if kept else pd.isna(found)
        assert any(
            f"ages of 1 people left missing, not whole years from 13 to 120: {age}" in n for n in result.report.notes
        ) == (kept is None)

    def test_a_person_day_twice(self, tmp_path: Path):
        day = {"id": 1, "date": "2024-03-01", "activityType": "['Run']"}
        result = self.read(tmp_path / "a", [day, day, day | {"activityType": "['Swim']"}])
        assert result.report.skipped == {REPEATED: 1, CONFLICTING: 1}
        assert set(result.dataset.habit_tracking["habit_id"]) == {"lifesnaps:run", "lifesnaps:swim"}


def test_names_of_any_kind_survive(tmp_path: Path):
    names = ["Sport", "Ünïcode Ñame", "名前", "бег", "🏃🏽‍♀️", "a" * 300, "x\ty", 'O\'Neil "q" ; --']
    path = tmp_path / "a"
    path.write_text(files.habitbull_text([(name, "2024-03-01", 1) for name in names]), "utf-8")
    law(import_source(path)).dataset.save(tmp_path / "b.db")
    habits = Dataset.load(tmp_path / "b.db").habits
    assert set(habits["name_en"].fillna(habits["name_ru"])) == {" ".join(name.split()) for name in names}
    assert habits["name_ru"].dropna().tolist() == ["бег"]


def test_content_decides_and_not_the_name(tmp_path: Path):
    text = tmp_path / "backup.db"
    text.write_text(files.habitbull_text([("Run", "2024-03-01", 1)]), "utf-8")
    assert detect(text) == "habitbull"
    backup = files.write_old_loop(tmp_path / "habits.csv", [(1, "Run", 1, 1)], [(1, "2024-03-01")])
    assert detect(backup) == "loop"
    with zipfile.ZipFile(tmp_path / "photo.jpg", "w") as archive:
        archive.write(backup, "inside/it.txt")
    assert detect(tmp_path / "photo.jpg") == "loop"


def test_a_long_tracker_is_read_without_row_by_row_work(tmp_path: Path):
    """Ten years of ten habits."""
    first = date(2005, 1, 1)
    days = [(first + timedelta(days=i)).isoformat() for i in range(3650)]
    habits = [(i, f"Habit {i}", 3, 7, 0, 0, 0.0, "") for i in range(10)]
    path = files.write_loop(tmp_path / "a", habits, [(i, day, 2) for i in range(10) for day in days])
    assert law(import_source(path)).report.imported == 36_500
