"""The reports on next to no data: they say what they cannot tell."""

from pathlib import Path

import pandas as pd
import pytest

from habitlab.dataset import Dataset
from tests.notebooks.building import NAMES, OF_THE_DATA, build

pytestmark = pytest.mark.timeout(600)

SMALL = {
    "empty": Dataset(),
    "one_user_one_habit": Dataset(
        users=pd.DataFrame({"user_id": ["a"]}),
        habits=pd.DataFrame({"habit_id": ["h"]}),
        habit_tracking=pd.DataFrame(
            {"user_id": "a", "habit_id": "h", "date": pd.date_range("2026-01-01", periods=3), "status": "done"}
        ),
    ),
    "all_unknown": Dataset(
        users=pd.DataFrame({"user_id": ["a", "b"]}),
        habits=pd.DataFrame({"habit_id": ["h"], "target": ["3/7"]}),
        habit_tracking=pd.DataFrame(
            {"user_id": ["a", "b"], "habit_id": "h", "date": ["2026-01-01"] * 2, "status": "unknown"}
        ),
    ),
}


@pytest.mark.parametrize(
    ("name", "notebooks"),
    [
        pytest.param("empty", OF_THE_DATA, marks=pytest.mark.long),
        pytest.param("one_user_one_habit", OF_THE_DATA, marks=pytest.mark.long),
        pytest.param("empty", NAMES, marks=pytest.mark.long),
        pytest.param("all_unknown", OF_THE_DATA, marks=pytest.mark.long),
    ],
    ids=["empty", "one user, one habit", "empty, every report", "all unknown"],
)
def test_next_to_no_data_give_reports_that_say_so(name: str, notebooks: list[str], tmp_path: Path) -> None:
    SMALL[name].save(tmp_path / "data.db")
    reports = build(tmp_path / "data.db", tmp_path / "out", notebooks)
    verdicts = {claim["verdict"] for claim in reports["03-correlations-and-claims"]["claims"]}
    assert verdicts == {"not testable"}
    assert reports["02-user-behaviour"]["skipped"]
    assert all(report["answer"] for report in reports.values())
