"""From an executed notebook to the page a reader sees: report, failure page, index.

Pages are single files: style, script, figures and downloads are inside, nothing is fetched. The same notebook,
parameters and provenance give the same bytes.
"""

import base64
import functools
import html
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from habitlab.report import findings
from habitlab.report.palette import COLOURS, LIGHT

TEMPLATE = Path(__file__).parent / "template"

_LABELS = {"data": "Data", "code": "Code", "lock": "Lock file", "template": "Template", "notebook": "Notebook", "seed": "Seed"}


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
    story = _story(cells, name)
    sections = [
        ("in-short", "In short", found.headlines),
        ("claims", "Claims", found.claims),
        *((anchor, text, True) for anchor, text in _headings(story)),
        ("limits", "What this cannot tell you", found.limits),
        ("skipped", "What was skipped", record["skipped"]),
        ("all-findings", "Every number", found.findings),
        ("methods", "Methods and code", True),
        ("again", "Make it again", True),
    ]
    page = _environment().get_template("report.html.j2").render(
        name=name,
        title=title,
        found=found,
        simulated=bool(found.about.get("simulated")),
        toc=[(anchor, text) for anchor, text, there in sections if there],
        tally=_tally(found.claims),
        figure_ids=figure_ids,
        story=Markup(story),
        skipped=record["skipped"],
        code=[
            {"number": number, "html": Markup(_highlight(cell["source"]))}
            for number, cell in enumerate(notebook["cells"], start=1)
            if cell["cell_type"] == "code" and cell["source"].strip()
        ],
        command=provenance.get("command", ""),
        provenance=_rows({key: value for key, value in provenance.items() if key != "command"}),
        parameters=_rows(parameters),
        json_link=_data_link(json_text(record), "application/json"),
        **_assets(),
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
    return _environment().get_template("failure.html.j2").render(
        title=title,
        where=where,
        error=_plain(message) or "The run ended without an error message.",
        heading=heading,
        cell=Markup(_highlight(cells[index]["source"])) if index is not None else "",
        traceback=trace,
        steps=_next_steps(name, message),
        last_good=last_good,
        parameters=_rows(parameters or {}),
        provenance=_rows(provenance or {}),
        **_assets(),
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
        order, _, rest = entry.name.partition("-")
        items = report["findings"] if report else []
        cards.append({
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
        })
    texts = [findings.about_text(about) for about in known]
    return _environment().get_template("contents.html.j2").render(
        title=title, simulated=all_simulated, abouts=list(dict.fromkeys(text for text in texts if text)), cards=cards,
        **_assets(),
    )


# ------------------------------------------------------------------------------------------------ the story


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


def _story(cells: Sequence[dict[str, Any]], name: str) -> str:
    """The notebook's Markdown and outputs as HTML, its records set as figures, tables and paragraphs."""
    from nbformat import from_dict

    counts: Counter[str] = Counter()
    for cell in cells:
        if cell["cell_type"] == "code":
            number = cells.index(cell) + 1
            shown = [_shown(output, name, number, counts) for output in cell.get("outputs", ())]
            cell["outputs"] = [output for output in shown if output is not None]
    body, _ = _exporter().from_notebook_node(
        from_dict({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    return re.sub(r'<a class="anchor-link"[^>]*>[^<]*</a>', "", body).strip()


def _shown(output: Mapping[str, Any], name: str, cell: int, counts: Counter[str]) -> dict[str, Any] | None:
    """The output as the story shows it; None for records that stand elsewhere on the page."""
    data = output.get("data", {})
    if findings.MIME in data:
        payload = data[findings.MIME]
        match payload["kind"]:
            case "figure":
                counts["figure"] += 1
                fragment = _figure(payload, name, cell, counts["figure"])
            case "table":
                counts["table"] += 1
                fragment = _table(payload, name, cell, counts["table"])
            case "prose":
                fragment = f'<div class="prose">{_markdown(payload["markdown"])}</div>'
            case "publish":
                fragment = _key_numbers(payload["items"])
            case _:
                fragment = ""
        if not fragment:
            return None
        return {"output_type": "display_data", "data": {"text/html": fragment}, "metadata": {}}
    if "text/html" in data:
        fragment = data["text/html"]
        if "<table" in fragment:
            counts["table"] += 1
            fragment = accessible_table(fragment, counts["table"])
        return {"output_type": "display_data", "data": {"text/html": fragment}, "metadata": {}}
    return dict(output)


def _key_numbers(items: Iterable[Mapping[str, Any]]) -> str:
    """Findings at the place where the notebook publishes them; headlines and claims stand at the top already."""
    rows = "".join(
        f"<div><dt>{html.escape(item['label'])}</dt><dd>{html.escape(findings.full_text(item))}</dd></div>"
        for item in items
        if item["kind"] == "finding" and not item["headline"]
    )
    return f'<dl class="numbers">{rows}</dl>' if rows else ""


def _figure(payload: Mapping[str, Any], name: str, cell: int, number: int) -> str:
    key = payload["key"] or f"figure-{number}"
    wide = _inline_svg(payload["svg"], f"f{number}w-", "wide" if payload["narrow"] else "only")
    narrow = _inline_svg(payload["narrow"], f"f{number}n-", "narrow") if payload["narrow"] else ""
    svg_link = _data_link(payload["svg"], "image/svg+xml")
    csv_link = _data_link(payload["csv"], "text/csv")
    alt = html.escape(payload["alt"], quote=True)
    plot = f'<div class="plot" role="img" aria-label="{alt}">{wide}{narrow}</div>'
    if not narrow:
        plot = f'<div class="scroll" role="region" aria-label="Figure {number}" tabindex="0">{plot}</div>'
    return (
        f'<figure id="{html.escape(key, quote=True)}">'
        f'<figcaption><span class="figure-number">Figure {number}</span> {_inline(payload["markdown"])}</figcaption>'
        f"{plot}"
        f'<p class="links"><a download="{name}-{key}.svg" href="{svg_link}">SVG<span class="unseen"> of figure {number}</span></a> '
        f'<a download="{name}-{key}.csv" href="{csv_link}">Data (CSV)<span class="unseen"> of figure {number}</span></a> '
        f'<a href="#code-{cell}">Code<span class="unseen"> of figure {number}</span></a></p>'
        "</figure>"
    )


def _inline_svg(svg: str, prefix: str, kind: str) -> str:
    """An SVG for use inside the page: its own ids, the page's colours, scaled by its view box."""
    svg = re.sub(r'(\bid="|href="#|url\(#)', lambda match: match[0] + prefix, svg)
    for colour, variable in _variables().items():
        svg = svg.replace(colour, variable)
    width = re.search(r'<svg[^>]*?\swidth="([\d.]+)pt"', svg)
    points = float(width[1]) if width else 500.0
    svg = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', rf'\1 style="width:{points * 4 / 3:.0f}px"', svg, count=1)
    return svg.replace("<svg ", f'<svg class="{kind}" aria-hidden="true" focusable="false" ', 1)


@functools.cache
def _variables() -> dict[str, str]:
    own = {light: f"var(--{name})" for name, light in LIGHT.items()}
    return own | {"#000000": "var(--ink)", "#262626": "var(--ink)", "#ffffff": "var(--paper)"}


def _table(payload: Mapping[str, Any], name: str, cell: int, number: int) -> str:
    csv_link = _data_link(payload["csv"], "text/csv")
    table = accessible_table(payload["html"], number, caption=payload["markdown"], label=payload["text"])
    return (
        f'<div class="table-block" id="table-{number}">{table}'
        f'<p class="links"><a download="{name}-table-{number}.csv" href="{csv_link}">Data (CSV)'
        f'<span class="unseen"> of table {number}</span></a> '
        f'<a href="#code-{cell}">Code<span class="unseen"> of table {number}</span></a></p></div>'
    )


def accessible_table(fragment: str, number: int, *, caption: str = "", label: str = "") -> str:
    """HTML tables of pandas (DataFrame or Styler) with header scopes, stable ids and a scrolling box of their own."""
    from bs4 import BeautifulSoup

    fragment = re.sub(r"T_[0-9a-f]{5}", f"T_{number}", fragment)
    soup = BeautifulSoup(fragment, "html.parser")
    for block in soup.find_all("style", attrs={"scoped": True}):
        block.decompose()
    for table in soup.find_all("table"):
        if table.get("border"):
            del table["border"]
        for head in table.select("thead th"):
            if head.get_text(strip=True):
                head["scope"] = "colgroup" if head.get("colspan", "1") != "1" else "col"
            else:
                head.name = "td"
        for row in table.select("thead tr"):
            if row.get("style") == "text-align: right;":
                del row["style"]
        for head in table.select("tbody th"):
            head["scope"] = "rowgroup" if head.get("rowspan", "1") != "1" else "row"
        for mark in table.select("tbody td"):
            if re.fullmatch(r"[-−+]?[\d.,]+\s?%?|NaN|nan|–|", mark.get_text(strip=True)):
                mark["class"] = [*mark.get("class", []), "num"]
        own = table.find("caption")
        if caption and own is None:
            own = BeautifulSoup(f"<caption>{_inline(caption)}</caption>", "html.parser").caption
            table.insert(0, own)
        name = label or (own.get_text(" ", strip=True) if own else f"Table {number}")
        table["class"] = [*(kind for kind in table.get("class", []) if kind != "dataframe"), "data"]
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "role": "region", "tabindex": "0", "aria-label": name}))
    return str(soup)


def _headings(story: str) -> list[tuple[str, str]]:
    found = re.findall(r'<h2 id="([^"]+)"[^>]*>(.*?)</h2>', story, flags=re.S)
    return [(html.unescape(anchor), html.unescape(re.sub(r"<[^>]+>", "", text)).strip()) for anchor, text in found]


# ------------------------------------------------------------------------------------------------ failures


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
        steps.append("A file is missing: check the path among the parameters; `make data` makes the built-in population.")
    if "DatasetError" in message or "MissingColumn" in message:
        steps.append("The data break the contract: `habitlab check PATH` names table, column and rows.")
    if "ModuleNotFoundError" in message or "ImportError" in message:
        steps.append("A library is missing: `make setup` installs what the lock file names.")
    if "MemoryError" in message or "killed" in message.lower():
        steps.append("Memory may have run out: try fewer users, or fewer notebooks at a time with `--jobs 1`.")
    if "time" in message.lower() and ("limit" in message.lower() or "timeout" in message.lower()):
        steps.append("The run took longer than its time limit: try fewer users or fewer resamples with `--set`.")
    steps.append(f"Open `notebooks/{name}.ipynb` in JupyterLab (`make lab`) and run it to the failing cell.")
    steps.append(f"Then make this report alone: `habitlab report {name}`. The other reports are not touched by this failure.")
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
    ends = [findings.number_text(end, record | {"ci_low": None, "ci_high": None}, unit=unit in ("share", "%")) for end in (left, right)]
    if unit == "clock hour":
        ends = ["00:00", "24:00"]
    plot = _interval_svg(estimate, low, high, left, right, width=240, zero=left < 0 < right)
    return Markup('<div class="scale" aria-hidden="true">%s<span>%s</span><span>%s</span></div>') % (plot, *ends)


def _claim_plot(record: Mapping[str, Any]) -> Markup:
    """A claim's interval with the reported value; zero is in the middle of every row, so the rows can be compared."""
    estimate, low, high = record["estimate"], record["ci_low"], record["ci_high"]
    if estimate is None or low is None:
        return Markup("")
    reported = record["reported"] if not isinstance(record["reported"], str) else None
    reach = 1.12 * max(abs(low), abs(high), abs(reported or 0.0)) or 1.0
    return _interval_svg(estimate, low, high, -reach, reach, width=180, zero=True, reported=reported)


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
    parts.append(f'<path class="bar" d="M{at(low)} 10H{at(high)}"/><circle cx="{at(estimate)}" cy="10" r="4.2"/>')
    if reported is not None:
        parts.append(f'<path class="reported" d="M{at(reported)} 4.6l5.4 5.4-5.4 5.4-5.4-5.4z"/>')
    return Markup(
        f'<svg class="interval-plot" viewBox="0 0 {width} 20" aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
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


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as flat (label, text) rows."""
    rows = []
    for key, value in values.items():
        label = f"{prefix}{_LABELS.get(key, str(key).replace('_', ' '))}"
        if isinstance(value, Mapping):
            rows += _rows(value, f"{label}: ")
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and prefix else str(value)
            rows.append((label, {"True": "yes", "False": "no", "None": "none"}.get(text, text)))
    return rows


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


def _data_link(text: str, mime: str) -> str:
    return f"data:{mime};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


@functools.cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)])


def _markdown(text: str) -> Markup:
    from nbconvert.filters import markdown2html

    return Markup(re.sub(r'<a class="anchor-link"[^>]*>[^<]*</a>', "", markdown2html(text)).strip())


def _inline(text: str) -> Markup:
    """Markdown of one paragraph without the paragraph around it."""
    return Markup(re.sub(r"\A<p>(.*)</p>\Z", r"\1", _markdown(text), flags=re.S))


def _inline_code(text: str) -> Markup:
    """Plain text in which `this` becomes code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)))


def _highlight(source: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="highlight")).replace("<pre>", '<pre tabindex="0">')


def _reported_text(record: Mapping[str, Any]) -> str:
    reported = record["reported"]
    if reported is None:
        return "–"
    exact = record | {"ci_low": None, "ci_high": None}
    return reported if isinstance(reported, str) else findings.number_text(reported, exact)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "value_parts": findings.value_parts,
        "interval_text": findings.interval_text,
        "range_text": findings.range_text,
        "estimate_text": lambda record: findings.number_text(record["estimate"], record),
        "reported_text": _reported_text,
        "grouped": lambda number: f"{number:,}",
        "scale_plot": _scale_plot,
        "claim_plot": _claim_plot,
        "markdown": _markdown,
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
