"""The README's two commands, as a new user types them: in a fresh clone, with nothing of the developer's around."""

import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500), pytest.mark.xdist_group("clean clone")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_clone(tmp_path_factory.mktemp("clean"))


def clean_clone(folder: Path) -> Path:
    """Clone what is committed; the real data lie beside it as they lie beside the original."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "habitlab")], check=True)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (folder / "shared").symlink_to(shared)
    return folder / "habitlab"


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(clone: Path, *goals: str) -> str:
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "CI", "SSL_CERT_FILE", "PIP_CERT") if name in os.environ
    }
    home = clone.parent / "home"
    home.mkdir(exist_ok=True)
    # Packages that were fetched once need not be fetched again; everything else is new.
    uv_cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
    done = subprocess.run(
        ["make", *goals],
        cwd=clone,
        env=kept | {"HOME": str(home), "UV_CACHE_DIR": uv_cache},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_the_readme_names_these_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make report" in readme
    assert "make test" in readme


def test_make_report_and_again_with_nothing_to_do(clone: Path) -> None:
    make(clone, "report")
    reports = clone / "reports"
    names = [p.stem for p in sorted((clone / "notebooks").glob("[0-9][0-9]-*.ipynb"))]
    assert len(names) >= 3
    for name in names:
        assert (reports / f"{name}.html").stat().st_size > 50_000
        report = json.loads((reports / f"{name}.json").read_text("utf-8"))
        assert report["findings"], name
        assert report["answer"], name
    assert (reports / "index.html").exists()
    before = {p.name: hash_of(p) for p in reports.glob("*") if p.name != "run.json"}
    make(clone, "report")
    run = json.loads((reports / "run.json").read_text("utf-8"))
    assert {report["status"] for report in run["reports"].values()} == {"cached"}
    assert {p.name: hash_of(p) for p in reports.glob("*") if p.name != "run.json"} == before
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=clone, text=True) == ""


def test_two_clean_clones_give_the_same_bytes(clone: Path, tmp_path: Path) -> None:
    make(clone, "report")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = clean_clone(elsewhere)
    make(other, "report")
    pages = [page for page in sorted((clone / "reports").iterdir()) if page.name != "run.json" and page.is_file()]
    # Names, not bytes, are compared by `assert`: in CI, pytest would work out every difference of two large pages.
    assert [page.name for page in pages if not filecmp.cmp(page, other / "reports" / page.name, shallow=False)] == []


def test_make_test(clone: Path) -> None:
    shutil.rmtree(clone / "reports", ignore_errors=True)
    said = make(clone, "test")
    assert re.search(r"\d+ passed", said)
    assert not re.search(r"\d+ (failed|error)", said)
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=clone, text=True) == ""
