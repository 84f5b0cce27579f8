"""Small notebooks for the engine's tests, and pages that need no template."""

import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

PARAMETERS = 'data: DataPath = "sample"\nlevel: Level = 0.95\nseed: Seed = 0\n'


def write_notebook(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook with a cell of parameters and the given code cells."""
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {path.stem}"}]
    for number, source in enumerate((f"from habitlab.report.parameters import *\n{parameters}", *sources)):
        cell = {"cell_type": "code", "id": f"c{number}", "metadata": {}, "execution_count": None, "outputs": []}
        cells.append(cell | {"source": source} | ({"metadata": {"tags": ["parameters"]}} if number == 0 else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def plain_page() -> types.ModuleType:
    """A stand-in for `habitlab.report.page` with the same functions, in no time."""
    page = types.ModuleType("habitlab.report.page")

    def render(notebook, *, name, parameters, provenance):
        record = {"name": name, "parameters": parameters, "provenance": provenance}
        return f"<h1>{name}</h1>\n" + json.dumps([notebook, record], indent=1), record

    def render_failure(notebook, *, name, error="", last_good="", parameters=None, provenance=None):
        return f"<h1>{name} failed</h1>{error}\n{last_good}\n" + json.dumps(notebook, indent=1)

    def entry(**fields):
        return fields

    page.render, page.render_failure, page.Entry = render, render_failure, entry
    page.json_text = lambda record: json.dumps(record, indent=1)
    page.render_index = lambda entries: json.dumps(entries, indent=1)
    return page


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to build in, with a cache and a package source of its own."""
    from habitlab import report
    from habitlab.report import build

    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "PACKAGE", tmp_path / "package")
    monkeypatch.setitem(sys.modules, "habitlab.report.page", plain_page())
    monkeypatch.setattr(report, "page", sys.modules["habitlab.report.page"], raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("x = 1")
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6")
    return tmp_path


def processes_with(variable: str, value: str) -> Iterator[psutil.Process]:
    """Living processes that have an environment variable: a run and all that it started."""
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(variable) == value:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def wait_until(condition, seconds: float = 10.0) -> bool:
    """Wait for a condition; whether it came true."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
