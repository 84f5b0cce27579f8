"""Builds the reports that come with HabitLab, for tests."""

import json
from collections.abc import Sequence
from pathlib import Path

from habitlab.cli import PRELOAD
from habitlab.report.build import BuildResult, build_reports
from tests.conftest import ROOT

NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))

OF_THE_DATA = [name for name in NAMES if name[:2] not in ("06", "09", "10", "12")]
"""Reports that look mostly at the data themselves; the others take long and look mostly at people they simulate."""

OF_IMPORTS = {"derived_share"}
"""Numbers that only imported data have."""


def build(data: str | Path, out: Path, names: Sequence[str] = NAMES) -> dict[str, dict]:
    """Build reports and return their JSON."""
    few = {"resamples": "100"}
    result: BuildResult = build_reports(
        names, notebooks_dir=NOTEBOOKS, data=str(data), out=out, overrides=few, preload=PRELOAD, progress=False
    )
    assert {report.name: report.error for report in result.reports} == dict.fromkeys(names, "")
    assert result.exit_code == 0
    return {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in names}
