"""The form in which notebooks are stored, and that nbval really compares what they keep."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from habitlab.report.notebooks import canonical_text, canonicalise, check, refresh

ROOT = Path(__file__).parents[2]
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cell(source: str, *tags: str, outputs: tuple = (), count: int | None = 1, kind: str = "code", **metadata) -> dict:
    base = {
        "cell_type": kind,
        "id": "x",
        "metadata": metadata | ({"tags": list(tags)} if tags else {}),
        "source": source,
    }
    return base | ({"outputs": list(outputs), "execution_count": count} if kind == "code" else {})


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def save(path: Path, *cells: dict) -> Path:
    path.write_text(json.dumps({"cells": list(cells), "metadata": {"widgets": {}}, "nbformat": 4, "nbformat_minor": 5}))
    return path


PARAMETERS = cell("seed: int = 0", "parameters")
SUM = cell("print(f'{sum(range(5)) + 0.5:.3g}')", "nbval-check-output", outputs=(stream("10.5\n"),), count=2)


def test_outputs_are_stripped_but_for_tagged_cells_and_counts_stay(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.ipynb",
        cell("# Title\n\n", kind="markdown", collapsed=True),
        cell("seed: int = 0", "parameters", scrolled=True, count=None),
        cell("print(1)", outputs=(stream("1"),), count=12),
        cell("print(2)", "keep_output", outputs=(stream("2"), stream("!", "stderr"), stream("3")), count=40),
    )
    assert canonicalise(path)
    assert not canonicalise(path)
    notebook = json.loads(path.read_text())
    assert [one["id"] for one in notebook["cells"]] == ["cell-001", "cell-002", "cell-003", "cell-004"]
    assert [one["metadata"] for one in notebook["cells"]] == [
        {}, {"tags": ["parameters"]}, {}, {"tags": ["keep_output"]},
    ]  # fmt: skip
    assert [one.get("execution_count") for one in notebook["cells"]] == [None, None, 1, 2]
    assert notebook["cells"][2]["outputs"] == []
    assert [(out["name"], out["text"]) for out in notebook["cells"][3]["outputs"]] == [
        ("stdout", ["23"]), ("stderr", ["!"]),
    ]  # fmt: skip
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_the_canonical_form_is_what_nbformat_writes(tmp_path: Path) -> None:
    import nbformat

    path = save(tmp_path / "a.ipynb", cell("# é", kind="markdown"), PARAMETERS, SUM)
    canonicalise(path)
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    assert nbformat.writes(stored) + "\n" == path.read_text()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([cell("1 + 1")], "first code cell is not tagged `parameters`"),
        ([PARAMETERS, cell("def f(): pass")], "code cell 2 defines a function or class"),
        ([PARAMETERS, cell("1", count=None)], "was not run, so that nothing compares it (code cell 2)"),
        ([PARAMETERS, cell("1", "nbval-check-output")], "is tagged `nbval-check-output` and prints nothing"),
        ([PARAMETERS, cell("1", "nbval-check-output", outputs=(stream("x 0.12345"),))], "prints 0.12345; round"),
        ([PARAMETERS, cell("1", "nbval-check-output", outputs=(stream("x" * 5000),))], "keeps 5000 characters"),
        (
            [PARAMETERS, cell("1", "nbval-check-output", outputs=({"output_type": "display_data", "metadata": {},
             "data": {"text/plain": "1", "text/html": "1"}},))],
            "shows more than text",
        ),
        ([PARAMETERS, *[cell("1")] * 15], "has 16 code cells"),
        ([cell("seed: int = 'x'", "parameters")], "seed=x is not a whole number"),
    ],
)  # fmt: skip
def test_a_notebook_that_breaks_a_rule_is_told_which(tmp_path: Path, cells: list[dict], words: str) -> None:
    path = save(tmp_path / "a.ipynb", *cells)
    canonicalise(path)
    assert words in "; ".join(check(path))


def test_numbers_of_three_digits_and_dates_are_fine(tmp_path: Path) -> None:
    text = "12.3 0.00456 100.0 -0.5 984211 2025-01-06 1.2.3 0.120"
    path = save(tmp_path / "a.ipynb", PARAMETERS, cell("1", "nbval-check-output", outputs=(stream(text),)))
    assert check(path) == ["is not in the canonical form"]
    canonicalise(path)
    assert check(path) == []


def test_running_a_notebook_brings_its_kept_outputs_up_to_date(tmp_path: Path) -> None:
    stale = SUM | {"outputs": [stream("99\n")], "execution_count": None}
    good = save(tmp_path / "good.ipynb", PARAMETERS, stale)
    bad = save(tmp_path / "bad.ipynb", PARAMETERS, cell("1 / 0"))
    before = bad.read_bytes()
    assert refresh([good, bad], jobs=2) == {
        good: "", bad: "code cell 2 raised ZeroDivisionError: division by zero",
    }  # fmt: skip
    assert json.loads(good.read_text())["cells"][1]["outputs"][0]["text"] == ["10.5\n"]
    assert check(good) == []
    assert bad.read_bytes() == before
    assert refresh([good]) == {good: ""}
    assert canonical_text(json.loads(good.read_text())) == good.read_text()


def nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """Hold a notebook against what it prints now, as `make test` does."""
    call = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-n", "0"]
    return subprocess.run([*call, "-q", "--rootdir", str(path.parent), "-c", "/dev/null", str(path)],
                          cwd=path.parent, capture_output=True, text=True)  # fmt: skip


@pytest.mark.long
def test_nbval_sees_a_broken_number(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ipynb", PARAMETERS, SUM, cell("print('not compared')", count=3))
    canonicalise(path)
    fine = nbval(path)
    assert fine.returncode == 0, fine.stdout
    path.write_text(path.read_text().replace("10.5", "10.6"))
    broken = nbval(path)
    assert broken.returncode == 1
    assert "10.6" in broken.stdout
    assert "1 failed, 2 passed" in broken.stdout


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_notebooks_are_in_the_canonical_form(path: Path) -> None:
    problems = check(path)
    assert not problems, f"{path.name} " + "; ".join(problems) + " (make notebooks)"


@pytest.mark.long
@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_number_broken_in_a_stored_notebook_is_seen(path: Path, tmp_path: Path) -> None:
    """Whatever number a notebook keeps: change its last digit in a copy, and nbval fails."""
    notebook = json.loads(path.read_text())
    kept = [one for one in notebook["cells"] if "nbval-check-output" in one["metadata"].get("tags", ())]
    assert kept or path.stem == "playground", "keeps no output, so that nothing is compared"
    if not kept:
        return
    lines = kept[0]["outputs"][0].get("text") or kept[0]["outputs"][0]["data"]["text/plain"]
    number = next(index for index, line in enumerate(lines) if re.search(r"\d", line))
    lines[number] = re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), lines[number])
    copy = tmp_path / path.name
    copy.write_text(json.dumps(notebook))
    assert nbval(copy).returncode == 1
