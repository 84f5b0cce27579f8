"""The reports on what people import: one person's trackers, and a study with a watch."""

from pathlib import Path

import pytest

from habitlab.dataset.importers import import_source
from tests.notebooks.building import NAMES, OF_IMPORTS, OF_THE_DATA, build

SOURCES = (
    pytest.param("lifesnaps", marks=pytest.mark.long),
    "loop-uhabits/loop.db",
    pytest.param("loop-uhabits/csv_export", marks=pytest.mark.long),
    pytest.param("loop-uhabits/habitbull2.csv", marks=pytest.mark.long),
)

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("source", SOURCES)
def test_real_trackers_give_readable_reports(shared_data: Path, tmp_path: Path, source: str) -> None:
    import_source(shared_data / source).dataset.save(tmp_path / "data.db")
    reports = build(tmp_path / "data.db", tmp_path / "out", OF_THE_DATA)
    assert all(report["answer"] for report in reports.values())
    assert reports["02-user-behaviour"]["skipped"]
    derived = {item["key"] for name in NAMES[:2] for item in reports[name]["findings"]} & OF_IMPORTS
    assert derived == (set() if source.endswith("csv_export") else OF_IMPORTS)
    assert all(item["what"] and item["why"] for report in reports.values() for item in report["skipped"])
    assert "Simulated data" not in (tmp_path / "out" / "01-data-quality.html").read_text("utf-8")
