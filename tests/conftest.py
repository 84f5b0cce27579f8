"""Fixtures that every room shares."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# One thread a test process, set before any library reads it: tests run side by side, and threads wait for each other.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from habitlab.dataset import Dataset  # noqa: E402

# Fewer examples than usual a run, for every run draws others; HYPOTHESIS_PROFILE=default has them all.
settings.register_profile("quick", max_examples=50)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; they are never copied into the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are absent: they belong into ../shared/data (see data/README.md)")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the cache of the person who runs it."""
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path_factory.getbasetemp() / "habitlab-cache"))


@pytest.fixture
def tiny() -> Dataset:
    """Two users, two habits and five days, by hand: every value can be checked by eye."""
    return Dataset(
        users=pd.DataFrame(
            {
                "user_id": ["ann", "bob"],
                "age": [34, None],
                "gender": ["female", None],
                "improvement_areas": [["health", "diet"], None],
                "goal_set": [True, False],
                "registered_at": ["2026-01-01T08:00Z", "2026-01-02T20:30Z"],
            }
        ),
        habits=pd.DataFrame(
            {
                "habit_id": ["h001", "h002"],
                "name_en": ["Drink a glass of water", "Call a friend"],
                "name_ru": ["Выпить стакан воды", "Позвонить другу"],
                "category": ["health", "relationships"],
                "minutes": [1, 20],
                "difficulty": [1, 3],
                "target": ["1/1", "1/7"],
                "prerequisites": [[], ["h001"]],
            }
        ),
        habit_tracking=pd.DataFrame(
            {
                "user_id": ["ann", "ann", "ann", "bob", "bob"],
                "habit_id": ["h001", "h001", "h002", "h001", "h001"],
                "date": ["2026-01-01", "2026-01-02", "2026-01-02", "2026-01-02", "2026-01-03"],
                "status": ["done", "missed", "done", "skipped", "unknown"],
                "at": ["2026-01-01T08:05:00Z", None, "2026-01-02T19:00:00Z", None, None],
            }
        ),
        metadata={"source": "by hand", "simulated": False},
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        reason = "no Chromium here: install Debian's package `chromium` to run the browser tests"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, headless=True, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test is a hole where everything can be installed: in CI it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("CI skips nothing: install what the skipped tests name", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
