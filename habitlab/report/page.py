"""From an executed notebook to the page a reader sees: report, failure page, index.

Pages are single files: style, script, figures and downloads are inside, nothing is fetched. The same notebook,
parameters and provenance give the same bytes.
"""

import functools
import html
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from habitlab.report import findings, story
from habitlab.report.palette import COLOURS

TEMPLATE = story.TEMPLATE

_LABELS = {"lock": "lock file"}


def render(
    notebook: Any, *, name: str, parameters: Mapping[str, Any], provenance: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Make the page and the JSON of one executed, normalised notebook.

    `name` is the file name without ending, `provenance` holds what the page's foot shows (hashes of data, code and
    lock, seed, and `command`, the call that makes the report again). What the notebook said about its data
    (`findings.about`) is added to the JSON as `provenance["dataset"]`.

    Raises ValueError when the notebook's records contradict each other (see `findings.collect`).
    """
    found = findings.collect(notebook)
    title, cells = _title_and_story(notebook, name)
    provenance = dict(provenance) | ({"dataset": dict(found.about)} if found.about else {})
    record = {
        "name": name,
        "title": title,
        **found.as_json(),
        "parameters": dict(parameters),
        "provenance": provenance,
    }
    record = _jsonable(record)
    figure_ids = {figure["key"]: figure["number"] for figure in found.figures}
    body = story.story(cells, name)
    sections = [
        ("in-short", "In short", found.headlines),
        ("claims", "Claims", found.claims),
        *((anchor, text, True) for anchor, text in story.headings(body)),
        ("limits", "What this cannot tell you", found.limits),
        ("skipped", "What was skipped", record["skipped"]),
        ("all-findings", "Every number", found.findings),
        ("methods", "Methods and code", True),
        ("again", "Make it again", True),
    ]
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            name=name,
            title=title,
            found=found,
            simulated=bool(found.about.get("simulated")),
            toc=[(anchor, text) for anchor, text, there in sections if there],
            tally=_tally(found.claims),
            figure_ids=figure_ids,
            story=Markup(body),
            skipped=record["skipped"],
            code=[
                {"number": number, "html": Markup(_highlight(cell["source"]))}
                for number, cell in enumerate(notebook["cells"], start=1)
                if cell["cell_type"] == "code" and cell["source"].strip()
            ],
            command=provenance.get("command", ""),
            about=findings.about_text(found.about),
            facts=[
                ("Made from", _rows(_without(provenance, "command", "dataset"))),
                ("Parameters", _rows(parameters, verbatim=True)),
                ("The data", _rows(found.about)),
            ],
            json_link=story.data_link(json_text(record), "application/json"),
            **_assets(),
        )
    )
    return page, record


def json_text(record: Mapping[str, Any]) -> str:
    """The text of a report's JSON file."""
    return json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def render_failure(
    notebook: Any | None,
    *,
    name: str,
    error: str = "",
    last_good: str = "",
    parameters: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Make the page of a run that failed.

    `notebook`: as far as it got, or None when there is nothing to show. `error`: what went wrong where no cell holds
    an error (killed, out of time); it stands before a cell's own error otherwise. `last_good`: link to the kept report.
    """
    cells = [] if notebook is None else list(notebook["cells"])
    title = name if notebook is None else _title_and_story(notebook, name)[0]
    index, output = _failing_cell(cells)
    message, trace = error, ""
    if output is not None:
        own = f"{output['ename']}: {output['evalue']}" if output.get("evalue") else output["ename"]
        message = f"{error}\n{own}" if error else own
        trace = _plain("\n".join(output.get("traceback", ())))
    heading = ""
    for cell in cells[: index or 0]:
        if cell["cell_type"] == "markdown" and (lines := re.findall(r"^#{1,4} +(.+?)\s*$", cell["source"], flags=re.M)):
            heading = lines[-1]
    where = "" if index is None else f"cell {index + 1} of {len(cells)}"
    return (
        _environment()
        .get_template("failure.html.j2")
        .render(
            title=title,
            where=where,
            error=_plain(message) or "The run ended without an error message.",
            heading=heading,
            cell=Markup(_highlight(cells[index]["source"])) if index is not None else "",
            traceback=trace,
            steps=_next_steps(name, message),
            last_good=last_good,
            command=(provenance or {}).get("command", ""),
            facts=[
                ("Made from", _rows(_without(provenance or {}, "command"))),
                ("Parameters", _rows(parameters or {}, verbatim=True)),
            ],
            **_assets(),
        )
    )


@dataclass(frozen=True)
class Entry:
    """One line of the index: the last good report's JSON if there is one, and whether the latest run failed."""

    name: str
    report: Mapping[str, Any] | None = None
    failed: bool = False
    error: str = ""
    failure_page: str = ""


def render_index(entries: Sequence[Entry], *, title: str = "Reports") -> str:
    """Make the list of reports, in the order given."""
    abouts = [entry.report["provenance"].get("dataset", {}) if entry.report else {} for entry in entries]
    known = [about for about in abouts if about]
    all_simulated = bool(known) and all(about.get("simulated") for about in known)
    cards = []
    for entry, about in zip(entries, abouts, strict=True):
        report = entry.report
        order = entry.name.partition("-")[0]
        items = report["findings"] if report else []
        cards.append(
            {
                "name": entry.name,
                "order": order if order.isdigit() else "",
                "title": report["title"] if report else _title_from_name(entry.name),
                "report": report,
                "status": "failed" if entry.failed else "fine",
                "mixed": about.get("simulated") and not all_simulated,
                "headline": next(
                    (dict(item, kind="finding", reason="") for item in items if item["estimate"] is not None), None
                ),
                "tally": _tally(report["claims"] if report else []),
                "error": _plain(entry.error).strip().split("\n")[0].rstrip("."),
                "failure_page": entry.failure_page,
            }
        )
    texts = [findings.about_text(about) for about in known]
    return (
        _environment()
        .get_template("contents.html.j2")
        .render(
            title=title,
            simulated=all_simulated,
            abouts=list(dict.fromkeys(text for text in texts if text)),
            cards=cards,
            **_assets(),
        )
    )


# ------------------------------------------------------------------------------------------------ titles and failures


def _title_from_name(name: str) -> str:
    words = re.sub(r"^\d+-", "", name).replace("-", " ")
    return words[:1].upper() + words[1:]


def _title_and_story(notebook: Any, name: str) -> tuple[str, list[dict[str, Any]]]:
    """The notebook's first level-one heading (else made from `name`), and the cells without it."""
    cells = [dict(cell) for cell in notebook["cells"]]
    for cell in cells:
        if cell["cell_type"] == "markdown" and (match := re.search(r"^# +(.+?)\s*$", cell["source"], flags=re.M)):
            cell["source"] = (cell["source"][: match.start()] + cell["source"][match.end() :]).strip()
            return re.sub(r"[*_`]", "", match[1]), cells
    return _title_from_name(name), cells


def _failing_cell(cells: Sequence[Mapping[str, Any]]) -> tuple[int | None, Mapping[str, Any] | None]:
    """Index and error output of the cell that stopped the run: the first error, else the first code cell not run."""
    for index, cell in enumerate(cells):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                return index, output
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "code" and cell["source"].strip() and cell.get("execution_count") is None:
            return index, None
    return None, None


def _next_steps(name: str, message: str) -> list[str]:
    steps = []
    if "FileNotFoundError" in message:
        steps.append(
            "A file is missing: check the path among the parameters; `make data` makes the built-in population."
        )
    if "DatasetError" in message or "MissingColumn" in message:
        steps.append("The data break the contract: `habitlab check PATH` names table, column and rows.")
    if "ModuleNotFoundError" in message or "ImportError" in message:
        steps.append("A library is missing: `make setup` installs what the lock file names.")
    if "MemoryError" in message or "killed" in message.lower():
        steps.append("Memory may have run out: try fewer users, or fewer notebooks at a time with `--jobs 1`.")
    if "time" in message.lower() and ("limit" in message.lower() or "timeout" in message.lower()):
        steps.append("The run took longer than its time limit: try fewer users or fewer resamples with `--set`.")
    steps.append(f"Open `notebooks/{name}.ipynb` in JupyterLab (`make lab`) and run it to the failing cell.")
    steps.append(
        f"Then make this report alone: `habitlab report {name}`. The other reports are not touched by this failure."
    )
    return steps


def _plain(text: str) -> str:
    """Text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).strip("\n")


# ------------------------------------------------------------------------------------------------ small plots


def _scale_plot(record: Mapping[str, Any]) -> Markup:
    """A headline's estimate and interval on a line, with the ends of the scale in words."""
    estimate, low, high = record["estimate"], record["ci_low"], record["ci_high"]
    if estimate is None or low is None:
        return Markup("")
    unit = record["unit"]
    if unit == "clock hour":
        left, right = 0.0, 24.0
    elif unit in ("share", "%") and low >= 0 and high <= (1 if unit == "share" else 100):
        left, right = 0.0, 1.0 if unit == "share" else 100.0
    elif unit == "r":
        left, right = -1.0, 1.0
    elif low < 0:
        right = _round_up(1.15 * max(abs(low), abs(high)))
        left = -right
    else:
        left, right = 0.0, _round_up(1.15 * high)
    ends = [
        findings.number_text(end, dict(record, ci_low=None, ci_high=None), unit=unit in ("share", "%"))
        for end in (left, right)
    ]
    if unit == "clock hour":
        ends = ["00:00", "24:00"]
    plot = _interval_svg(estimate, low, high, left, right, width=240, zero=left < 0 < right)
    return Markup('<div class="scale" aria-hidden="true">%s<span>%s</span><span>%s</span></div>') % (plot, *ends)


def _claim_plot(record: Mapping[str, Any]) -> Markup:
    """A claim's interval, zero, and above them the reported value."""
    estimate, low, high = record["estimate"], record["ci_low"], record["ci_high"]
    if estimate is None or low is None:
        return Markup("")
    reported = None if isinstance(record["reported"], str) else record["reported"]
    values = [0.0, low, high] if reported is None else [0.0, low, high, reported]
    margin = 0.06 * (max(values) - min(values)) or 1.0
    left, right = min(values) - margin, max(values) + margin
    return _interval_svg(estimate, low, high, left, right, width=180, zero=True, reported=reported)


def _interval_svg(
    estimate: float,
    low: float,
    high: float,
    left: float,
    right: float,
    *,
    width: int,
    zero: bool,
    reported: float | None = None,
) -> Markup:
    def at(value: float) -> float:
        return round(7 + (width - 14) * (value - left) / (right - left), 1)

    parts = [f'<path class="axis" d="M7 10H{width - 7}"/>']
    if zero:
        parts.append(f'<path class="zero" d="M{at(0)} 1V19"/>')
    parts.append(f'<path class="band" d="M{at(low)} 10H{at(high)}"/><path class="estimate" d="M{at(estimate)} 4V16"/>')
    if reported is not None:
        parts.append(f'<path class="reported" d="M{at(reported)} 4l-4.4-6h8.8z"/>')
    return Markup('<svg class="interval-plot" viewBox="0 0 {} 20" aria-hidden="true">{}</svg>').format(
        width, Markup("".join(parts))
    )


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten: a scale's end that reads well."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


# ------------------------------------------------------------------------------------------------ small tools


def _tally(claims: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(claim["verdict"] for claim in claims)
    return [(word, counts[word]) for word in findings.VERDICTS if counts[word]]


def _rows(values: Mapping[str, Any], prefix: str = "", *, verbatim: bool = False) -> list[tuple[str, str]]:
    """Nested values as flat (label, text) rows; `verbatim` keeps names and values as they are typed."""
    if verbatim:
        return [(key, str(value)) for key, value in values.items()]
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        label = f"{prefix}{_LABELS.get(key, key)}".replace("_", " ")
        label = label[:1].upper() + label[1:]
        if isinstance(value, Mapping):
            rows += _rows(value, f"{label}: ")
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
            rows.append((label, {"True": "yes", "False": "no", "None": "none"}.get(text, text)))
    return rows


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _jsonable(value: Any) -> Any:
    """Plain Python for JSON: numpy scalars as numbers, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, (int, bool, str)) else str(value)


def _inline_code(text: str) -> Markup:
    """Plain text in which `this` becomes code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)))


def _highlight(source: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="highlight")).replace("<pre>", '<pre tabindex="0">')


def _interval_html(record: Mapping[str, Any]) -> Markup:
    """`95% interval −5.2 to −3.0`, the ends kept on one line."""
    ends = findings.range_text(record)
    words = findings.interval_text(record).removesuffix(ends)
    return Markup('%s<span class="tight-text">%s</span>') % (words, ends) if ends else Markup("")


def _without_interval(record: Mapping[str, Any]) -> str:
    whole = record["estimate"] is not None and float(record["estimate"]).is_integer()
    return "exact count" if whole else "no interval"


def _reported_text(record: Mapping[str, Any]) -> str:
    reported = record["reported"]
    if reported is None:
        return "–"
    return reported if isinstance(reported, str) else findings.number_text(reported, record, exact=True)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "value_parts": findings.value_parts,
        "interval_text": findings.interval_text,
        "range_text": findings.range_text,
        "interval": _interval_html,
        "without_interval": _without_interval,
        "estimate_text": lambda record: findings.number_text(record["estimate"], record),
        "reported_text": _reported_text,
        "grouped": lambda number: f"{number:,}",
        "scale_plot": _scale_plot,
        "claim_plot": _claim_plot,
        "markdown": story.markdown,
        "inline_code": _inline_code,
    }
    environment.filters |= filters
    return environment


@functools.cache
def _assets() -> dict[str, Markup]:
    """Style sheet (colours first, from the palette) and script."""
    light = "".join(f"--{name}:{colours[0]};" for name, colours in COLOURS.items())
    dark = "".join(f"--{name}:{colours[1]};" for name, colours in COLOURS.items())
    style = (TEMPLATE / "style.css").read_text(encoding="utf-8").replace("/*light*/", light).replace("/*dark*/", dark)
    return {
        "style": Markup(style),
        "script": Markup((TEMPLATE / "script.js").read_text(encoding="utf-8")),
    }
