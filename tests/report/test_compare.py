"""Two runs, number by number."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from habitlab.report import page
from habitlab.report.compare import Change, as_text, compare
from tests.report import demonstration


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return page.render(
        demonstration.notebook(),
        name="02-user-behaviour",
        parameters=demonstration.PARAMETERS,
        provenance=demonstration.PROVENANCE,
    )[1]


@pytest.fixture
def folders(tmp_path: Path, report: dict[str, Any]) -> tuple[Path, Path, dict[str, Any]]:
    """Folder a with the report, folder b yet empty, and a copy of the report to change."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a", report)
    (tmp_path / "a" / "run.json").write_text("{}")
    return tmp_path / "a", tmp_path / "b", copy.deepcopy(report)


def write(folder: Path, report: dict[str, Any]) -> None:
    (folder / f"{report['name']}.json").write_text(page.json_text(report), encoding="utf-8")


def test_equal_runs_have_no_change(folders: Any) -> None:
    a, b, report = folders
    write(b, report)
    assert compare(a, b) == []
    assert as_text([], a="a", b="b") == "No change between a and b."


def test_a_changed_number_says_by_how_much_and_whether_the_intervals_meet(folders: Any) -> None:
    a, b, report = folders
    near, far = report["findings"][:2]
    near |= {"estimate": -4.5, "ci_low": -5.5, "ci_high": -3.5}
    far |= {"estimate": 0.7, "ci_low": 0.69, "ci_high": 0.71}
    write(b, report)
    first, second = compare(a, b)
    assert (first.kind, first.key, first.overlap) == ("finding", "midway_dip", True)
    assert first.relative == pytest.approx((4.5 - 4.12) / 4.12)  # an effect below 0 grew
    assert (second.key, second.overlap) == ("peak_share", False)
    text = as_text([first, second])
    assert "−4.1 points [−5.2 to −3.0], n = 1,842 → −4.5 points [−5.5 to −3.5]" in text
    assert "(22.5% larger, INTERVALS APART)" in text


@pytest.mark.parametrize("estimate", [4.5, 0.0])
def test_across_zero_there_is_no_relative_change(folders: Any, estimate: float) -> None:
    a, b, report = folders
    report["findings"][0] |= {"estimate": estimate, "ci_low": estimate - 1, "ci_high": estimate + 1}
    write(b, report)
    (change,) = compare(a, b)
    assert change.relative is None
    assert "%" not in as_text([change])


def test_added_and_removed_findings_and_a_new_verdict(folders: Any) -> None:
    a, b, report = folders
    gone = report["findings"].pop(0)
    report["findings"].append(gone | {"key": "new"})
    report["claims"][0]["verdict"] = "differs"
    write(b, report)
    changes = {(change.kind, change.key): change for change in compare(a, b)}
    assert changes[("finding", "midway_dip")].after is None
    assert changes[("finding", "new")].before is None
    verdict = changes[("verdict", "complexity_time_commitment")]
    assert (verdict.before, verdict.after) == ("reproduced", "differs")


def test_parameters_provenance_words_and_skipped_parts(folders: Any) -> None:
    a, b, report = folders
    report["parameters"]["seed"] = 1
    report["provenance"]["dataset"]["users"] = 1999
    report["findings"][0]["method"] = "another"
    report["skipped"] = report["skipped"][1:]
    report["answer"] = report["answer"].replace("4.1", "4.5")  # numbers show as findings
    write(b, report)
    assert [(change.kind, change.key, change.before, change.after) for change in compare(a, b)] == [
        (
            "text",
            "midway_dip: method",
            "mean of days 7–14 less mean of days 1–3; bootstrap by user, 500 resamples",
            "another",
        ),
        ("skipped", "Gaps between genders", "needs `gender`; this dataset has none", None),
        ("parameter", "seed", "0", "1"),
        ("provenance", "dataset.users", "2000", "1999"),
    ]


def test_a_number_that_appears_or_vanishes(folders: Any) -> None:
    a, b, report = folders
    report["findings"][0] |= {"estimate": None, "ci_low": None, "ci_high": None}
    write(b, report)
    (change,) = compare(a, b)
    assert (change.after, change.relative, change.overlap) == ("not known", None, None)


def test_missing_reports(folders: Any) -> None:
    a, b, report = folders
    write(b, report | {"name": "03-other"})
    assert compare(a, b) == [
        Change("02-user-behaviour", "report", "02-user-behaviour", report["title"], None),
        Change("03-other", "report", "03-other", None, report["title"]),
    ]


def test_wrong_folders_are_named(folders: Any, tmp_path: Path) -> None:
    a, b, report = folders
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        compare(a, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no report"):
        compare(a, b)
    (b / "02-user-behaviour.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        compare(a, b)
    (b / "02-user-behaviour.json").write_text(json.dumps([report]))
    with pytest.raises(ValueError, match="not a report's JSON"):
        compare(a, b)
