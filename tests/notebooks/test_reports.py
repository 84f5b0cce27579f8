"""The reports that come with HabitLab, built for real: on the sample, on real trackers, on next to no data."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from habitlab.cli import PRELOAD
from habitlab.dataset import Dataset
from habitlab.dataset.importers import import_source
from habitlab.report.build import BuildResult, build_reports
from habitlab.report.findings import CLAIM_FIELDS
from tests.conftest import ROOT

NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))

pytestmark = pytest.mark.timeout(600)


OF_IMPORTS = {"derived_share"}
"""Numbers that only imported data have."""


def build(data: str | Path, out: Path) -> dict[str, dict]:
    """Build every report and return their JSON."""
    few = {"resamples": "100"}
    result: BuildResult = build_reports(
        notebooks_dir=NOTEBOOKS, data=str(data), out=out, overrides=few, preload=PRELOAD, progress=False
    )
    assert {report.name: report.error for report in result.reports} == dict.fromkeys(NAMES, "")
    assert result.exit_code == 0
    return {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, dict]:
    return build("sample", folder)


def texts(name: str, skipped: list[dict]) -> str:
    """Every text that a notebook hands to the report, its literals joined, but for parts that were skipped."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    left_out = [f'part("{entry["what"]}")' for entry in skipped]
    source = "\n".join(cell for cell in cells if not any(part in cell for part in left_out))
    constants = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return "\n".join(node.value for node in constants if isinstance(node.value, str))


OF_REAL_DATA = {
    "05-offline-metrics": {"MovieLens": "movielens-latest-small"},
    "09-ab-tests": {"The real trial": "habitlab-browser"},
    "12-offline-vs-online": {"Real logs of two policies": "open-bandit-men"},
}
"""Parts of reports about real data outside the clone, and their folders."""


def expected_skips(name: str) -> set[str]:
    """What is skipped on the sample: parts about real data that are absent, and nothing else."""
    places = ROOT.parent / "shared" / "data"
    return {part for part, folder in OF_REAL_DATA.get(name, {}).items() if not (places / folder).is_dir()}


@pytest.mark.parametrize("name", NAMES)
def test_a_report_answers_its_question_first(reports: dict[str, dict], name: str) -> None:
    report = reports[name]
    assert report["question"].endswith("?")
    assert re.search(r"\d", report["answer"])
    assert report["findings"]
    assert {entry["what"] for entry in report["skipped"]} == expected_skips(name)
    assert all("data/README.md" in entry["why"] for entry in report["skipped"])
    assert set(report) >= {"name", "title", "question", "answer", "findings", "claims", "skipped", "parameters"}


@pytest.mark.parametrize("name", NAMES)
def test_every_number_named_in_a_text_is_published(reports: dict[str, dict], name: str) -> None:
    """A misspelt name would drop its sentence silently."""
    named = set(re.findall(r"\{([a-z_0-9]+)(?::[a-z]+)?\}", texts(name, reports[name]["skipped"])))
    published = {item["key"] for item in reports[name]["findings"] + reports[name]["claims"]}
    assert named
    assert named - OF_IMPORTS <= published


def test_every_claim_is_there_with_a_verdict(reports: dict[str, dict]) -> None:
    claims = reports["03-correlations-and-claims"]["claims"]
    assert len(claims) == 12
    for claim in claims:
        assert set(claim) == set(CLAIM_FIELDS)
        assert claim["verdict"] in ("reproduced", "differs", "inconclusive", "not testable")
        if claim["reported"] is not None and claim["ci_low"] is not None:
            holds = claim["ci_low"] <= claim["reported"] <= claim["ci_high"]
            assert holds == (claim["verdict"] in ("reproduced", "inconclusive"))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_stands_alone_and_says_that_the_data_are_simulated(
    reports: dict[str, dict], folder: Path, name: str
) -> None:
    page = (folder / f"{name}.html").read_text("utf-8")
    assert "Simulated data" in page
    assert reports[name]["question"] in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert str(ROOT) not in page
    assert "Traceback" not in page
    assert "<summary>Messages</summary>" not in page, "a notebook warns"


@pytest.mark.browser
@pytest.mark.parametrize("name", [*NAMES, "index"])
def test_a_page_is_sound_in_a_browser(reports: dict[str, dict], folder: Path, name: str, browser: Any) -> None:
    """Offline, without an error, no wider than a phone, each figure described, nothing grave for screen readers."""
    from axe_playwright_python.sync_playwright import Axe

    address = (folder / f"{name}.html").as_uri()
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844})
    trouble: list[str] = []
    tab = context.new_page()
    tab.on("request", lambda request: trouble.append(request.url[:100]))
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.goto(address)
    assert [url for url in trouble if url != address and not url.startswith("data:")] == []
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    figures = tab.query_selector_all("figure")
    assert len(figures) >= (name != "index")
    assert all(figure.query_selector("[role=img][aria-label], img[alt], svg[aria-label]") for figure in figures)
    options = {"resultTypes": ["violations"]}
    found = Axe().run(tab, context={"exclude": [[".plot > svg"]]}, options=options).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []
    context.close()


def test_real_trackers_give_readable_reports(shared_data: Path, tmp_path: Path) -> None:
    for source in ("lifesnaps", "loop-uhabits/loop.db", "loop-uhabits/csv_export", "loop-uhabits/habitbull2.csv"):
        data = tmp_path / f"{Path(source).stem}.db"
        import_source(shared_data / source).dataset.save(data)
        out = tmp_path / Path(source).stem
        reports = build(data, out)
        assert all(report["answer"] for report in reports.values()), source
        assert reports["02-user-behaviour"]["skipped"], source
        derived = {item["key"] for name in NAMES[:2] for item in reports[name]["findings"]} & OF_IMPORTS
        assert derived == (set() if source.endswith("csv_export") else OF_IMPORTS), source
        assert all(item["what"] and item["why"] for report in reports.values() for item in report["skipped"])
        assert "Simulated data" not in (out / "01-data-quality.html").read_text("utf-8")


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


@pytest.mark.parametrize("name", SMALL)
def test_next_to_no_data_give_reports_that_say_so(name: str, tmp_path: Path) -> None:
    SMALL[name].save(tmp_path / "data.db")
    reports = build(tmp_path / "data.db", tmp_path / "out")
    verdicts = {claim["verdict"] for claim in reports["03-correlations-and-claims"]["claims"]}
    assert verdicts == {"not testable"}
    assert reports["02-user-behaviour"]["skipped"]
    assert all(report["answer"] for report in reports.values())
