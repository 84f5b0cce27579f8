"""The one form in which notebooks are stored, so that a change in git is a change in meaning.

Outputs are stripped, but for cells tagged `nbval-check-output` (compared by nbval) or `keep_output` (only shown): what
these print is short, deterministic text. Execution counts stay, as nbval compares no cell without one. All other
metadata goes; cell ids are `cell-001` and so on.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from habitlab.report.cache import write_atomically
from habitlab.report.normalise import METADATA
from habitlab.report.parameters import read_schema

CHECKED, KEPT = "nbval-check-output", "keep_output"
MAX_KEPT = 4000  # characters
MAX_CODE_CELLS = 15
_DECIMAL = re.compile(r"(?<![\w.,-])-?(\d+)\.(\d+)(?![\w.])")


def canonical_text(notebook: Mapping[str, Any]) -> str:
    """The canonical form of a notebook (nbformat 4 JSON) as the text of its file."""
    cells, count = [], 0
    for number, cell in enumerate(notebook["cells"], start=1):
        tags = list(dict.fromkeys(cell.get("metadata", {}).get("tags", ())))
        kept: dict[str, Any] = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{number:03d}",
            "metadata": {"tags": tags} if tags else {},
            "source": "".join(cell["source"]).rstrip().splitlines(keepends=True),
        }
        if cell.get("attachments"):
            kept["attachments"] = cell["attachments"]
        if cell["cell_type"] == "code":
            ran = cell.get("execution_count") is not None
            count += ran
            kept["execution_count"] = count if ran else None
            kept["outputs"] = _kept_outputs(cell, count) if ran and {CHECKED, KEPT} & set(tags) else []
        cells.append(kept)
    form = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(form, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _kept_outputs(cell: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The outputs as nbval will see them, each stream in one piece."""
    streams: dict[str, str] = {}
    rest = []
    for output in cell.get("outputs", ()):
        if output["output_type"] == "stream":
            streams[output["name"]] = streams.get(output["name"], "") + "".join(output["text"])
        elif "data" in output:
            number = {"execution_count": count} if output["output_type"] == "execute_result" else {}
            data = {kind: _lines(content) for kind, content in output["data"].items()}
            rest.append({"output_type": output["output_type"], "data": data, "metadata": {}} | number)
    said = [{"output_type": "stream", "name": name, "text": _lines(streams[name])} for name in sorted(streams)]
    return said[::-1] + rest  # stdout first


def _lines(content: Any) -> Any:
    if isinstance(content, list) and all(isinstance(part, str) for part in content):
        content = "".join(content)
    return content.splitlines(keepends=True) if isinstance(content, str) else content


def canonicalise(path: Path) -> bool:
    """Bring the notebook at `path` into the canonical form; whether that changed the file."""
    return _save(path, json.loads(path.read_bytes()))


def _save(path: Path, notebook: Mapping[str, Any]) -> bool:
    content = canonical_text(notebook).encode()
    if path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True


def check(path: Path) -> list[str]:
    """What is wrong with the notebook at `path`, in words; empty when it has the canonical form and keeps the rules."""
    try:
        notebook = json.loads(path.read_bytes())
        wrong = [] if path.read_bytes() == canonical_text(notebook).encode() else ["is not in the canonical form"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"is not a notebook ({error})"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    try:
        read_schema(notebook, path.stem)
    except ValueError as error:
        wrong.append(str(error))
    if not code or "parameters" not in code[0]["metadata"].get("tags", ()):
        wrong.append("its first code cell is not tagged `parameters`")
    if len(code) > MAX_CODE_CELLS:
        wrong.append(f"has {len(code)} code cells; {MAX_CODE_CELLS} are enough, the rest belongs in the package")
    unrun = [str(number) for number, cell in enumerate(code, start=1) if cell["execution_count"] is None]
    if unrun:
        wrong.append(f"was not run, so that nothing compares it (code cell {', '.join(unrun)})")
    for number, cell in enumerate(code, start=1):
        wrong += [f"code cell {number} {problem}" for problem in _problems(cell)]
    return wrong


def _problems(cell: Mapping[str, Any]) -> list[str]:
    wrong = []
    source = "".join(cell["source"])
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        nodes = []  # a magic, or a mistake that running it will show
    if any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in nodes):
        wrong.append("defines a function or class; that belongs in the package, with a test")
    if not source.strip():
        wrong.append("is empty")
    if CHECKED not in cell["metadata"].get("tags", ()):
        return wrong
    if not cell["outputs"]:
        wrong.append(f"is tagged `{CHECKED}` and prints nothing")
    for output in cell["outputs"]:
        if set(output.get("data", ["text/plain"])) != {"text/plain"}:
            wrong.append(f"is tagged `{CHECKED}` and shows more than text; print() what is to be compared")
            continue
        text = "".join(output["text"] if "text" in output else output["data"]["text/plain"])
        if len(text) > MAX_KEPT:
            wrong.append(f"keeps {len(text)} characters; {MAX_KEPT} are enough")
        unrounded = [match[0] for match in _DECIMAL.finditer(text) if len((match[1] + match[2]).strip("0")) > 3]
        if unrounded:
            wrong.append(f"prints {unrounded[0]}; round to three significant digits, the rest differs between machines")
    return wrong


def refresh(
    paths: Sequence[Path], *, jobs: int = 1, preload: Sequence[str] = (), timeout: float = 300.0
) -> dict[Path, str]:
    """Run notebooks with their own defaults and store them in the canonical form: path -> failure, or empty.

    A notebook that fails stays as it was.
    """
    from habitlab.report.kernels import Kernels

    with closing(Kernels(preload)) as kernels, ThreadPoolExecutor(max_workers=jobs) as pool:
        from habitlab.report.execute import run_notebook

        def run(path: Path) -> str:
            done = run_notebook(
                json.loads(path.read_bytes()), {}, kernels=kernels, folder=path.parent.absolute(), timeout=timeout
            )
            if not done.failure:
                _save(path, done.notebook)
            return done.failure

        return dict(zip(paths, pool.map(run, paths), strict=True))
