"""The command line: exit codes, errors for people, and what each command leaves on disk."""

import filecmp
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from habitlab.cli import main
from habitlab.dataset import Dataset
from habitlab.simulation import load_truth

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def habitlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command as a user does; gives exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["habitlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def small(habitlab: Call, tmp_path: Path) -> Path:
    assert habitlab("simulate", "--out", tmp_path / "small.db", "--users", 12, "--days", 20)[0] == 0
    return tmp_path / "small.db"


def test_simulate_writes_data_and_truth(habitlab: Call, small: Path) -> None:
    dataset = Dataset.load(small)
    assert len(dataset.users) == 12
    assert dataset.simulated
    assert set(load_truth(small)["user_id"]) == set(dataset.users["user_id"])
    code, out, _ = habitlab("check", small)
    assert code == 0
    assert "12 users" in out
    assert "simulated" in out


def test_the_same_seed_gives_the_same_bytes(habitlab: Call, small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.db"
    habitlab("simulate", "--out", again, "--users", 12, "--days", 20)
    assert filecmp.cmp(again, small, shallow=False)
    habitlab("simulate", "--out", again, "--users", 12, "--days", 20, "--seed", 1)
    assert not filecmp.cmp(again, small, shallow=False)


def test_the_database_holds_nobodys_address_or_password(habitlab: Call, small: Path) -> None:
    content = small.read_bytes()
    assert not re.search(rb"[\w.+-]+@[\w-]+\.\w+", content)
    assert b"password" not in content.lower()


def test_an_effect_can_be_left_out(habitlab: Call, tmp_path: Path) -> None:
    out = tmp_path / "no-dip.db"
    assert habitlab("simulate", "--out", out, "--users", 5, "--days", 5, "--set", "midway_dip=0")[0] == 0
    assert Dataset.load(out).metadata["simulation"]["effects"]["midway_dip"] == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--set", "midway_dop=0"), "midway_dip"),
        (("--set", "midway_dip"), "midway_dip"),
        (("--set", "midway_dip=none"), "midway_dip"),
        (("--users", "0"), "users"),
        (("--days", "-3"), "days"),
        (("--seed", "-1"), "seed"),
        (("--retention", "lab"), "wild"),
        (("--users", "many"), "--users"),
    ],
)
def test_a_wrong_call_is_told_what_would_be_right(habitlab: Call, tmp_path: Path, wrong: tuple, says: str) -> None:
    code, _, err = habitlab("simulate", "--out", tmp_path / "x.db", *wrong)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_import_into_a_dataset_twice_changes_nothing(habitlab: Call, tmp_path: Path) -> None:
    source = tmp_path / "export.csv"
    source.write_text(
        "HabitName,HabitDescription,HabitCategory,CalendarDate,Value,CommentText\n"
        "Walk,,Fitness,2026-01-01,1,\nWalk,,Fitness,2026-01-03,1,\nWalk,,Fitness,someday,1,\n"
    )
    out = tmp_path / "mine.db"
    code, said, _ = habitlab("import", source, "--out", out)
    assert code == 0
    assert "imported 2, skipped 1" in said
    first = out.read_bytes()
    assert habitlab("import", source, "--out", out)[0] == 0
    assert out.read_bytes() == first
    assert len(Dataset.load(out).habit_tracking) == 3  # 2 January lies between two days done: missed


def test_import_of_something_unknown_says_what_was_looked_for(habitlab: Call, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear diary")
    code, _, err = habitlab("import", tmp_path / "letter.txt", "--out", tmp_path / "x.db")
    assert code == 2
    assert "HabitName" in err
    assert "Dear diary" in err
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("command", [("check",), ("report", "--data"), ("import", "--out", "x.db")])
def test_a_path_where_nothing_is(habitlab: Call, command: tuple, tmp_path: Path) -> None:
    code, _, err = habitlab(*command, tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err


def test_a_report_of_something_that_is_no_dataset(habitlab: Call, tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text("HabitName,CalendarDate,Value\n")
    (tmp_path / "noise.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    with closing(sqlite3.connect(tmp_path / "backup.db")) as connection:
        connection.execute("CREATE TABLE Habits (id)")
    for name, says in (("export.csv", "habitlab import"), ("backup.db", "habitlab import"), ("noise.db", "damaged")):
        code, _, err = habitlab("report", "--data", tmp_path / name, "--out", tmp_path / "out")
        assert code == 2
        assert says in err
    assert not (tmp_path / "out").exists()


def test_check_names_what_is_broken(habitlab: Call, small: Path) -> None:
    with closing(sqlite3.connect(small)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE users SET age = 7")
    code, _, err = habitlab("check", small)
    assert code == 1
    assert "users.age: not between 13 and 120: 12 bad rows" in err


def test_report_refuses_a_wrong_parameter_before_anything_runs(habitlab: Call, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    for wrong, says in (("levle=0.9", "level"), ("level=2", "between 0 and 1"), ("resamples=many", "whole number")):
        code, _, err = habitlab("report", "03", "--data", small, "--out", out, "--set", wrong)
        assert code == 2
        assert says in err
    code, _, err = habitlab("report", "33-nothing", "--data", small, "--out", out)
    assert code == 2
    assert not out.exists() or not list(out.glob("*.html"))


def test_compare_needs_two_folders_of_reports(habitlab: Call, tmp_path: Path) -> None:
    assert habitlab("compare", tmp_path / "a", tmp_path / "b")[0] == 2
    for name, estimate in (("a", 0.5), ("b", 0.6)):
        finding = {"key": "k", "label": "K", "estimate": estimate, "ci_low": 0.4, "ci_high": 0.7, "level": 0.95}
        report = {"name": "01-x", "title": "X", "question": "?", "answer": "", "claims": [], "skipped": []}
        report |= {"findings": [finding | {"n": 9, "unit": "share", "method": "m"}], "parameters": {}, "provenance": {}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "01-x.json").write_text(json.dumps(report))
    code, out, _ = habitlab("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "50%" in out
    assert "60%" in out


def test_an_unexpected_error_shows_its_traceback_only_with_debug(
    habitlab: Call, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "load", lambda path: 1 / 0)
    code, _, err = habitlab("check", small)
    assert code == 1
    assert "division by zero" in err
    assert "Traceback" not in err
    monkeypatch.setattr("sys.argv", ["habitlab", "check", str(small), "--debug"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_help_lists_the_commands(habitlab: Call) -> None:
    code, out, _ = habitlab("--help")
    assert code == 0
    assert all(command in out for command in ("simulate", "import", "check", "report", "compare"))
