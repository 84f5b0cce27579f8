"""The body of a report: a notebook's Markdown and outputs as HTML, its records as figures, tables and paragraphs."""

import base64
import functools
import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from habitlab.report import findings
from habitlab.report.palette import LIGHT

TEMPLATE = Path(__file__).parent / "template"

_NUMBER = re.compile(r"[-−+]?[\d.,]+(e[-+]?\d+)?\s?%?|NaN|nan|–|")
_ANCHOR = re.compile(r'<a class="anchor-link"[^>]*>[^<]*</a>')
# What matplotlib and seaborn draw in black and white follows the page's scheme as well.
_VARIABLES = {light: f"var(--{name})" for name, light in LIGHT.items()} | {
    "#000000": "var(--ink)",
    "#262626": "var(--ink)",
    "#ffffff": "var(--paper)",
}


def story(cells: Sequence[Mapping[str, Any]], name: str) -> str:
    """The story of the report `name`: cells in order, without their code."""
    from nbformat import from_dict

    counts: Counter[str] = Counter()
    shown = []
    for number, cell in enumerate(cells, start=1):
        cell = dict(cell)
        if cell["cell_type"] == "code":
            outputs = [_shown(output, name, number, counts) for output in cell.get("outputs", ())]
            cell["outputs"] = [output for output in outputs if output]
        shown.append(cell)
    notebook = from_dict({"cells": shown, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    body, _ = _exporter().from_notebook_node(notebook)
    return _ANCHOR.sub("", body).strip()


def headings(body: str) -> list[tuple[str, str]]:
    """Anchor and text of each second-level heading in a story."""
    found = re.findall(r'<h2 id="([^"]+)"[^>]*>(.*?)</h2>', body, flags=re.S)
    return [(html.unescape(anchor), Markup(text).striptags()) for anchor, text in found]


def markdown(text: str) -> Markup:
    """Markdown as HTML."""
    from nbconvert.filters import markdown2html

    return Markup(_ANCHOR.sub("", markdown2html(text)).strip())


def inline(text: str) -> Markup:
    """Markdown of one paragraph, without the paragraph around it."""
    return Markup(re.sub(r"\A<p>(.*)</p>\Z", r"\1", str(markdown(text)), flags=re.S))


def data_link(text: str, mime: str) -> str:
    """A link that holds the file itself."""
    return f"data:{mime};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _shown(output: Mapping[str, Any], name: str, cell: int, counts: Counter[str]) -> dict[str, Any]:
    """The output as the story shows it; empty for records that stand elsewhere on the page."""
    data = output.get("data", {})
    if findings.MIME in data:
        payload = data[findings.MIME]
        kind = payload["kind"]
        counts[kind] += 1
        if kind == "figure":
            fragment = _figure(payload, name, cell, counts[kind])
        elif kind == "table":
            fragment = _table(payload, name, cell, counts[kind])
        elif kind == "prose":
            fragment = f'<div class="prose">{markdown(payload["markdown"])}</div>'
        elif kind == "publish":
            fragment = _key_numbers(payload["items"])
        else:
            fragment = ""
        return _html_output(fragment) if fragment else {}
    if "<table" in data.get("text/html", ""):
        counts["table"] += 1
        return _html_output(accessible_table(data["text/html"], counts["table"]))
    return dict(output)


def _html_output(fragment: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"text/html": fragment}, "metadata": {}}


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
    plot = Markup('<div class="plot" role="img" aria-label="{}">{}{}</div>').format(
        payload["alt"], Markup(wide), Markup(narrow)
    )
    if not narrow:
        plot = Markup('<div class="scroll" role="region" aria-label="Figure {}" tabindex="0">{}</div>').format(
            number, plot
        )
    links = _links(
        f"of figure {number}",
        {
            "SVG": (data_link(payload["svg"], "image/svg+xml"), f"{name}-{key}.svg"),
            "Data (CSV)": (data_link(payload["csv"], "text/csv"), f"{name}-{key}.csv"),
            "Code": (f"#code-{cell}", ""),
        },
    )
    return Markup(
        '<figure id="{}"><figcaption><span class="figure-number">Figure {}</span> {}</figcaption>{}{}</figure>'
    ).format(key, number, inline(payload["markdown"]), plot, links)


def _table(payload: Mapping[str, Any], name: str, cell: int, number: int) -> str:
    table = accessible_table(payload["html"], number, caption=payload["markdown"], label=payload["text"])
    links = _links(
        f"of table {number}",
        {
            "Data (CSV)": (data_link(payload["csv"], "text/csv"), f"{name}-table-{number}.csv"),
            "Code": (f"#code-{cell}", ""),
        },
    )
    return Markup('<div class="table-block" id="table-{}">{}{}</div>').format(number, Markup(table), links)


def _links(of_what: str, links: Mapping[str, tuple[str, str]]) -> Markup:
    """Links in a row, text -> (target, file name); what they belong to is said to screen readers."""
    row = Markup(" ").join(
        Markup('<a href="{}"{}>{}<span class="unseen"> {}</span></a>').format(
            target, Markup(' download="{}"').format(file) if file else "", text, of_what
        )
        for text, (target, file) in links.items()
    )
    return Markup('<p class="links">{}</p>').format(row)


def _inline_svg(svg: str, prefix: str, kind: str) -> str:
    """An SVG for use inside the page: ids of its own, the page's colours, scaled by its view box."""
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    root, rest = svg.split(">", maxsplit=1)
    width = re.search(r'\swidth="([\d.]+)pt"', root)
    pixels = float(width[1]) * 4 / 3 if width else 690
    root = re.sub(r'\s(width|height)="[^"]*"', "", root).removeprefix("<svg")
    return f'<svg class="{kind}" style="width:{pixels:.0f}px" aria-hidden="true" focusable="false"{root}>{rest}'


def accessible_table(fragment: str, number: int, *, caption: str = "", label: str = "") -> str:
    """HTML tables of pandas (DataFrame or Styler) with header scopes, stable ids and a scrolling box of their own."""
    from bs4 import BeautifulSoup, Tag

    # Styler draws its ids at random
    soup = BeautifulSoup(re.sub(r"T_[0-9a-f]{5}", f"T_{number}", fragment), "html.parser")
    for block in soup.find_all("style", attrs={"scoped": True}):
        block.decompose()
    for table in soup.find_all("table"):
        del table["border"]
        for row in table.select("thead tr"):
            del row["style"]
        for head in table.select("thead th"):
            if head.get_text(strip=True):
                head["scope"] = "colgroup" if head.get("colspan", "1") != "1" else "col"
            else:
                head.name = "td"
        for head in table.select("tbody th"):
            head["scope"] = "rowgroup" if head.get("rowspan", "1") != "1" else "row"
        _align_numbers(table)
        title = table.find("caption")
        if caption and title is None:
            title = BeautifulSoup(f"<caption>{inline(caption)}</caption>", "html.parser").find("caption")
            table.insert(0, title or "")
        name = label or (title.get_text(" ", strip=True) if isinstance(title, Tag) else f"Table {number}")
        table["class"] = "data"
        box = soup.new_tag("div", attrs={"class": "scroll", "role": "region", "tabindex": "0", "aria-label": name})
        table.wrap(box)
    return str(soup)


def _align_numbers(table: Any) -> None:
    """Mark the columns that hold numbers only, with their heads."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tbody tr")]
    heads = [row.find_all(["td", "th"], recursive=False) for row in table.select("thead tr")][-1:]
    for place, column in enumerate(zip(*rows, strict=False)):
        if all(_NUMBER.fullmatch(cell.get_text(strip=True)) for cell in column):
            for cell in (*column, *(row[place] for row in heads if place < len(row))):
                cell["class"] = [*cell.get("class", []), "num"]


@functools.cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)])
