"""Bring an executed notebook into a form that depends on nothing but what was run.

What a run leaves by chance (times, process numbers, addresses, places of files, the order in which streams arrive,
random identifiers) is removed or replaced; what the notebook says stays as it is.
"""

import os
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from habitlab.report.findings import RUNTIMES

METADATA: dict[str, Any] = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_CELL_FILE = re.compile(r"(?:[^\s\"'<>:]*[/\\])?ipykernel_\d+[/\\]\d+\.py")
_STYLER = re.compile(r"\bT_([0-9a-f]{5})(?=\b|_)")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")  # a progress bar's earlier states


def normalise(notebook: Mapping[str, Any], replacements: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the normal form of an executed notebook (nbformat 4 JSON); the argument stays as it is.

    Kept are sources, tags, attachments, outputs and parameters. `replacements` maps texts, such as the absolute path
    of the data, to what stands for them in sources of injected cells and in outputs.
    """
    clean = _cleaner(replacements or {})
    cells = []
    count = 0
    for number, cell in enumerate(notebook["cells"], start=1):
        tags = list(cell.get("metadata", {}).get("tags", ()))
        source = "".join(cell["source"])
        kept: dict[str, Any] = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{number:03d}",
            "metadata": {"tags": tags} if tags else {},
            "source": clean(source) if "injected-parameters" in tags else source,
        }
        if cell.get("attachments"):
            kept["attachments"] = cell["attachments"]
        if cell["cell_type"] == "code":
            ran = cell.get("execution_count") is not None
            count += ran
            kept["execution_count"] = count if ran else None
            kept["outputs"] = _outputs(cell.get("outputs", ()), count if ran else None, clean)
        cells.append(kept)
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def _outputs(outputs: Any, count: int | None, clean: Callable[[str], str]) -> list[dict[str, Any]]:
    """One stdout, then one stderr, then the rest in order, all of them cleaned."""
    streams = {"stdout": "", "stderr": ""}
    rest: list[dict[str, Any]] = []
    for output in outputs:
        match output["output_type"]:
            case "stream":
                streams[output["name"]] += "".join(output["text"])
            case "error":
                rest.append(
                    {
                        "output_type": "error",
                        "ename": output["ename"],
                        "evalue": clean(_ANSI.sub("", output["evalue"])),
                        "traceback": [clean(_ANSI.sub("", line)) for line in output["traceback"]],
                    }
                )
            case kind if RUNTIMES not in output["data"]:
                kept = {"output_type": kind, "data": _deep(output["data"], clean), "metadata": dict(output["metadata"])}
                rest.append(kept | ({"execution_count": count} if kind == "execute_result" else {}))
    said = [
        {"output_type": "stream", "name": name, "text": clean(_OVERWRITTEN.sub("", text))}
        for name, text in streams.items()
        if text
    ]
    return said + rest


def _deep(value: Any, clean: Callable[[str], str]) -> Any:
    """Clean every text inside a JSON value."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        # images are bytes in base64: nothing to read there
        return {
            key: item if str(key).startswith("image/p") or key == "image/jpeg" else _deep(item, clean)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_deep(item, clean) for item in value]
    return value


def _cleaner(replacements: Mapping[str, str]) -> Callable[[str], str]:
    """A function that removes addresses, numbers of processes, and places of files on this machine."""
    places = dict(replacements)
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    for package in packages:
        places[package] = "site-packages"
    places[sysconfig.get_path("stdlib")] = "python"
    places[str(Path(__file__).parents[2])] = "."
    places[sys.prefix] = "python"
    home = os.path.expanduser("~")  # noqa: PTH111  (it may not exist)
    if len(home) > 1:
        places[home] = "~"
    # the longest first, and only whole components: /a/b is not part of /a/bc
    found = sorted((place for place in places if len(place) > 1), key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(place) + r"(?![\w.-])" for place in found)) if found else None

    stylers: dict[str, str] = {}  # random identifier -> the number in which it comes in this notebook

    def clean(text: str) -> str:
        if 'id="T_' in text or "#T_" in text:
            text = _STYLER.sub(lambda match: stylers.setdefault(match[0], f"T_{len(stylers):05d}"), text)
        text = _ADDRESS.sub("at 0x0", text)
        text = _CELL_FILE.sub("cell.py", text)
        return pattern.sub(lambda match: places[match[0]], text) if pattern else text

    return clean
