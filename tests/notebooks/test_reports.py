"""The reports that come with HabitLab, built for real on the sample."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from habitlab.report.findings import CLAIM_FIELDS
from tests.conftest import ROOT
from tests.notebooks.building import NAMES, NOTEBOOKS, OF_IMPORTS, build

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.long,  # twelve reports and as many pages: CI runs it, and nbval runs the notebooks with the quick tests
    pytest.mark.xdist_group("reports"),
]


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
