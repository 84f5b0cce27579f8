"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from habitlab import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project: dict) -> dict[str, SpecifierSet]:
    extras = [entry for extra in project["optional-dependencies"].values() for entry in extra]
    listed = [Requirement(r) for r in project["dependencies"] + extras]
    return {r.name: r.specifier for r in listed if r.name != "habitlab"}


@pytest.fixture(scope="module")
def lock() -> str:
    return (ROOT / "requirements.lock").read_text()


def test_conda_users_get_the_same_names_and_bounds(project: dict, requirements: dict[str, SpecifierSet]) -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = [Requirement(entry) for entry in [*listed, *by_pip] if isinstance(entry, str)]
    names = {r.name: r.specifier for r in conda}
    assert names.pop("python") == SpecifierSet(project["requires-python"])
    assert names.pop("pip") == SpecifierSet()
    assert names == requirements


def test_the_lock_satisfies_every_bound(requirements: dict[str, SpecifierSet], lock: str) -> None:
    pinned = re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", lock, flags=re.MULTILINE)
    versions: dict[str, list[str]] = {}
    for name, version in pinned:
        versions.setdefault(name, []).append(version)
    for name, bounds in requirements.items():
        assert versions.get(name), f"{name} is not in requirements.lock: run `make lock`"
        assert all(version in bounds for version in versions[name]), (name, bounds, versions[name])


def test_the_lock_pins_hashes_and_names_no_host(lock: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", lock)
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)
    assert "://" not in lock


def test_the_version_stands_everywhere_the_same(project: dict) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == __version__ == citation["version"]


def test_make_lists_every_goal() -> None:
    makefile = (ROOT / "Makefile").read_text()
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    wanted = "setup report report-one lab notebooks test verify lint bench data clean"
    assert set(wanted.split()) | {"help", "lock"} == listed
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == listed
