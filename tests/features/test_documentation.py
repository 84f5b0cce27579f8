"""The worked tables of docs/habit-time.md are what the code gives."""

import re
from pathlib import Path

import pandas as pd
import pytest

from habitlab.features.temporal import HALF_LIFE, history, streaks, summary
from tests.features.tracking import habits, track

PAGE = (Path(__file__).parents[2] / "docs" / "habit-time.md").read_text(encoding="utf-8")
LETTERS = str.maketrans("✓✗·", "10 ")


def tables():
    """(target, rows) of each worked table: those after a line that names a target and ends in a colon."""
    for block in re.split(r"\n(?=[^\n|]*target \d+/\d+[^\n]*(?:\n[^\n|]+)*:\n)", PAGE)[1:]:
        target = re.search(r"target (\d+/\d+)", block)[1]
        lines = re.search(r"\n\n((?:\|.*\n)+)", block)[1].splitlines()
        yield target, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_kind_of_schedule_has_a_table():
    assert [target for target, _ in tables()] == ["1/1", "1/7", "3/7", "2/5"]


def test_the_daily_table():
    rows = dict(tables())["1/1"]
    tracking = track("".join(row[1].translate(LETTERS) for row in rows))
    got = history(tracking).assign(night=streaks(tracking))
    got = got[["streak_before", "night", "days_since_done", "periods_since_done"]].to_numpy().tolist()
    expected = [row[2:] for row in rows if row[1] != "·"]
    assert [["" if value != value else f"{value:.0f}" for value in row] for row in got] == expected


@pytest.mark.parametrize("target", ["1/7", "3/7", "2/5"])
def test_the_other_tables(target):
    """The streak as of the first morning of the next period, with the rows of this and all before."""
    days = ""
    for period, streak, _ in dict(tables())[target]:
        days += period.translate(LETTERS)
        until = pd.Timestamp("2024-01-01") + pd.Timedelta(days=len(days))
        assert summary(track(days), habits(target), until)["streak"].item() == int(streak), period


def test_the_half_lives_in_the_text():
    assert HALF_LIFE == 13
    assert round(HALF_LIFE / (1 / 7) ** 0.5) == 34
    assert "13 for a daily habit, 34 for\na weekly one" in PAGE
