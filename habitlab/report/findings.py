"""What a notebook has to say: question, answer, findings, claims, limits, and what was skipped.

Each call shows itself in JupyterLab at once and leaves a record (a display output of a private MIME type) in the
executed notebook; `collect` reads the records back. Numbers reach prose only through findings:
`answer("Completion falls by {dip:size} in the second week", dip=dip)`.
"""

import contextlib
import dataclasses
import difflib
import html
import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from habitlab.dataset import Dataset

MIME = "application/vnd.habitlab+json"
RUNTIMES = "application/vnd.habitlab.runtimes+json"

FINDING_FIELDS = ("key", "label", "estimate", "ci_low", "ci_high", "level", "n", "unit", "method")
CLAIM_FIELDS = ("key", "statement", "reported", "estimate", "ci_low", "ci_high", "n", "verdict", "figure")
VERDICTS = ("reproduced", "differs", "inconclusive", "not testable")

Item = Any  # a dataclass instance or a mapping with the fields above


# ---------------------------------------------------------------------------------------------- recording


def question(text: str) -> None:
    """Record the report's question, one sentence."""
    _emit({"kind": "question", "text": text}, text, f"<p><b>{html.escape(text)}</b></p>")


def answer(*sentences: str, otherwise: str = "These data cannot answer it.", **found: Item) -> None:
    """Record the answer; `{name}` is filled from the finding or claim handed in under that name.

    `{name}` gives the value with its unit, `{name:size}` the same without sign, `{name:range}` the interval's ends,
    `{name:interval}` value and interval, `{name:n}` the count behind it, `{name:label}` its label. A sentence that
    names what was not found, or is not known, is left out; where none remains, `otherwise` is the answer.
    """
    _emit_prose("answer", sentences, found, otherwise)


def prose(*sentences: str, **found: Item) -> None:
    """Record a paragraph (Markdown) of the story, its numbers filled as in `answer`."""
    _emit_prose("prose", sentences, found)


def limits(*sentences: str, **found: Item) -> None:
    """Record what the report cannot say (Markdown); shown before the methods."""
    _emit_prose("limits", sentences, found)


def methods(*sentences: str, **found: Item) -> None:
    """Record how the numbers were made (Markdown); folded in the page."""
    _emit_prose("methods", sentences, found)


def listing(found: Mapping[str, Item]) -> str:
    """Return findings and claims as plain lines, each number to three significant digits, for nbval to compare."""
    records = {name: _record(item) for name, item in found.items()}
    width = max(map(len, records), default=0)
    values = {name: "-" if one["estimate"] is None else f"{one['estimate']:.3g}" for name, one in records.items()}
    return "\n".join(f"{name:{width}}  {values[name]:>8}  n = {one['n']}" for name, one in records.items())


@contextlib.contextmanager
def part(what: str) -> Iterator[None]:
    """Go on without this part of a report, and say why, where the data lack what it needs."""
    from habitlab.dataset import MissingColumn  # brings pandas along, which only kernels need

    try:
        yield
    except MissingColumn as lack:
        skip(what, str(lack))


def skip(what: str, why: str) -> None:
    """Record an analysis that was left out, and why: `skip("gender gaps", "needs `gender`; this dataset has none")`."""
    _emit(
        {"kind": "skip", "what": what, "why": why},
        f"Skipped: {what}: {why}",
        f"<p><i>Skipped:</i> {html.escape(what)}: {html.escape(why)}</p>",
    )


def simulated(flag: bool = True) -> None:
    """Record that the data are simulated, which puts a banner on the page (`about` does so by itself)."""
    _emit({"kind": "about", "about": {"simulated": bool(flag)}}, f"Simulated data: {flag}", "")


def also_real(what: str) -> None:
    """Record what in a report on simulated data is real, such as "the trial in part two"; the banner leaves it out."""
    _emit({"kind": "about", "about": {"also_real": what}}, f"Real data: {what}", "")


def about(dataset: "Dataset") -> None:
    """Record what the data are: source, whether simulated, users, habits, rows and days covered."""
    tracking = dataset.habit_tracking
    facts: dict[str, Any] = {
        "simulated": bool(dataset.metadata.get("simulated", False)),
        "source": str(dataset.metadata.get("source", "unknown")),
        "users": len(dataset.users),
        "habits": len(dataset.habits),
        "rows": len(tracking),
    }
    if left_out := dataset.metadata.get("refused_research"):
        facts["refused_research"] = str(left_out)
    if len(tracking):
        facts |= {"first_day": f"{tracking['date'].min():%Y-%m-%d}", "last_day": f"{tracking['date'].max():%Y-%m-%d}"}
    text = about_text(facts)
    _emit({"kind": "about", "about": facts}, text, f"<p>{html.escape(text)}</p>")


def runtimes(seconds: Mapping[str, float]) -> None:
    """Record how many seconds things took, by name; they go to run.json, for a page is the same each time."""
    from IPython.display import display

    display({RUNTIMES: {str(name): round(float(value), 3) for name, value in seconds.items()}}, raw=True)


def runtimes_of(notebook: Mapping[str, Any]) -> dict[str, float]:
    """The runtimes that an executed notebook (nbformat 4 JSON) recorded."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", ()))
    return {name: value for output in outputs for name, value in output.get("data", {}).get(RUNTIMES, {}).items()}


def publish(*items: Item, headline: bool = False) -> dict[str, Item]:
    """Record findings and claims, dataclasses or mappings with the fields of the report's JSON; return them by key.

    An item with `verdict` is a claim, any other a finding. `headline=True` puts findings at the top of the page (give
    three to five). An estimate or an interval may be NaN or None only with a `reason`; an exact count has neither
    interval nor level. A claim may bring `unit`, `level`, `estimand` and `units` (what n counts) for the page.
    Units known: share, share difference, points, %, r, V, ratio, clock hour; any other word stands after the number.
    Raises ValueError naming the item and the field that is wrong.
    """
    records = [_record(item) for item in items]
    for record in records:
        record["headline"] = headline
    _refuse_twins((f"{record['kind']} `{record['key']}`", "this publish()") for record in records)
    plain = "\n".join(f"{title_of(record)}: {full_text(record)}" for record in records)
    rows = "".join(
        f"<tr><th style='text-align:left' scope=row>{html.escape(title_of(record))}</th>"
        f"<td style='text-align:left'>{html.escape(full_text(record))}</td></tr>"
        for record in records
    )
    _emit({"kind": "publish", "items": records}, plain, f"<table>{rows}</table>")
    return {record["key"]: item for record, item in zip(records, items, strict=True)}


def _emit_prose(kind: str, sentences: Sequence[str], found: Mapping[str, Item], otherwise: str = "") -> None:
    if text := known_sentences(sentences, found) or otherwise:
        payload = {"kind": kind} | fill(text, found)
        _emit(payload, payload["text"], f"<p>{payload['markdown']}</p>")


def known_sentences(sentences: Sequence[str], found: Mapping[str, Item]) -> str:
    """Join the sentences that name only what was found and is known."""
    known = {name for name, item in found.items() if _record(item)["estimate"] is not None}
    return " ".join(sentence for sentence in sentences if known.issuperset(_slots(sentence)))


def _slots(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _emit(payload: dict[str, Any], plain: str, rich: str) -> None:
    from IPython.display import display  # only kernels need it; the engine imports this module without it

    data = {MIME: payload, "text/plain": plain}
    if rich:
        data["text/html"] = rich
    display(data, raw=True)


# ---------------------------------------------------------------------------------------------- validation


def _record(item: Item) -> dict[str, Any]:
    """The JSON-able record of one finding or claim, checked."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        given = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    elif isinstance(item, Mapping):
        given = {str(name): value for name, value in item.items()}
    else:
        raise ValueError(f"publish() takes dataclasses or mappings, not {type(item).__name__}")
    is_claim = "verdict" in given
    name = "claim" if is_claim else "finding"
    who = f"{name} `{given.get('key', '?')}`"
    wanted = CLAIM_FIELDS[:-1] if is_claim else FINDING_FIELDS
    missing = [field for field in wanted if field not in given]
    if missing:
        raise ValueError(
            f"{who} lacks {', '.join(f'`{field}`' for field in missing)}; a {name} has {', '.join(wanted)}"
        )
    if not isinstance(given["key"], str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", given["key"]):
        raise ValueError(f"{who}: `key` must be a word of letters, digits, `_`, `-` and `.`")
    for field in ("statement",) if is_claim else ("label", "method"):
        if not isinstance(given[field], str) or not given[field].strip():
            raise ValueError(f"{who}: `{field}` must be a non-empty text, not {given[field]!r}")
    record: dict[str, Any] = {"kind": name, "key": given["key"]}
    for field in ("estimate", "ci_low", "ci_high"):
        record[field] = _number(given[field], f"{who}: `{field}`")
    record["level"] = _number(given.get("level"), f"{who}: `level`")
    record["n"] = _count(given["n"], who)
    record["unit"] = str(given.get("unit") or "")
    record["reason"] = str(given.get("reason") or "")
    if is_claim:
        if given["verdict"] not in VERDICTS:
            raise ValueError(f"{who}: `verdict` is {given['verdict']!r}; it must be one of {', '.join(VERDICTS)}")
        reported = given["reported"]
        record |= {
            "statement": given["statement"],
            "reported": reported if isinstance(reported, str) else _number(reported, f"{who}: `reported`"),
            "verdict": str(given["verdict"]),
            "figure": given.get("figure") or None,
            "estimand": str(given.get("estimand") or ""),
            "units": str(given.get("units") or ""),
            "tolerance": _number(given.get("tolerance") or 0.0, f"{who}: `tolerance`"),
            "parts": [
                f"{part['label']}: {full_text(part)}"
                for part in map(_record, given.get("levels") or ())
                if part["unit"] != "r"  # correlations at other levels have a figure of their own
            ],
        }
    else:
        record |= {"label": given["label"], "method": given["method"]}
    _check_interval(record, who)
    return record


def _check_interval(record: Mapping[str, Any], who: str) -> None:
    estimate, low, high, level = (record[field] for field in ("estimate", "ci_low", "ci_high", "level"))
    if estimate is None:
        if not record["reason"]:
            raise ValueError(f"{who} has no estimate; give the `reason` (it is listed under what was skipped)")
        return
    if (low is None) != (high is None):
        raise ValueError(f"{who}: one end of the interval is missing (ci_low {low}, ci_high {high})")
    if low is not None and high is not None:
        # an interval may just miss its estimate (bias-corrected bootstrap); by more than its width is a mistake
        slack = high - low + 1e-9 * abs(estimate)
        if low > high or not low - slack <= estimate <= high + slack:
            raise ValueError(f"{who}: the interval [{low:g}, {high:g}] does not belong to the estimate {estimate:g}")
        if level is None and record["kind"] == "finding":
            raise ValueError(f"{who}: an interval needs its `level`, such as 0.95")
    elif level is not None and not record["reason"]:
        raise ValueError(f"{who} has a `level` but no interval; give the `reason`, or for an exact count no level")
    if level is not None and not 0 < level < 1:
        raise ValueError(f"{who}: `level` is {level:g}; it must lie between 0 and 1, such as 0.95")


def _number(value: Any, where: str) -> float | int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{where} must be a number, not {value!r}")
    number = int(value) if isinstance(value, Integral) else float(value)
    return number if math.isfinite(number) else None


def _count(value: Any, who: str) -> int:
    number = _number(value, f"{who}: `n`")
    if number is None or number < 0 or number != int(number):
        raise ValueError(f"{who}: `n` must be a whole number of units, not {value!r}")
    return int(number)


def _refuse_twins(keys: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for key, place in keys:
        if key in seen:
            raise ValueError(f"{key} is published twice ({seen[key]} and {place}); each key is used once")
        seen[key] = place


# ---------------------------------------------------------------------------------------------- numbers as text

# unit -> (factor, what stands behind the number)
_UNITS = {
    "share": (100.0, "%"),
    "%": (1.0, "%"),
    "share difference": (100.0, " points"),
    "points": (1.0, " points"),
    "percentage points": (1.0, " points"),
    "r": (1.0, ""),
    "V": (1.0, ""),
    "ratio": (1.0, ""),
    "clock hour": (1.0, ""),
}


def _scale(unit: str) -> tuple[float, str]:
    return _UNITS.get(unit, (1.0, f" {unit}" if unit else ""))


def _decimals(values: Iterable[float | None], factor: float) -> int | None:
    """Decimals that keep two digits of the interval's half width when it starts with 1-3, else one; None if unknown.

    The rounding rule of the Particle Data Group (https://pdg.lbl.gov, introduction, 5.3).
    """
    known = [value * factor for value in values if value is not None]
    half = (max(known) - min(known)) / 2 if known else 0.0
    if half <= 0:
        return None
    magnitude = math.floor(math.log10(half))
    leading = half / 10**magnitude
    return min(4, max(0, -magnitude + (1 if leading < 3.55 else 0)))


def rounded(value: float, decimals: int | None = None) -> str:
    """A number as text; without `decimals` whole numbers stay whole, all else keeps three significant digits."""
    if decimals is None:  # no interval: whole numbers as they are, else three significant digits
        whole = float(value).is_integer() or abs(value) >= 1000
        decimals = 0 if whole or not value else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # no "−0.0"
    return text.replace("-", "−")


def _clock(hour: float) -> str:
    minutes = round(hour * 60) % (24 * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def number_text(value: float | None, record: Mapping[str, Any], *, unit: bool = True, exact: bool = False) -> str:
    """One number of a record (its estimate, an interval's end), rounded as its interval asks; `exact`: as given."""
    if value is None:
        return "not known"
    if record.get("unit") == "clock hour":
        return _clock(value)
    factor, suffix = _scale(record.get("unit") or "")
    if exact:
        text = f"{value * factor:,.6g}".replace("-", "−")
    else:
        text = rounded(value * factor, _decimals((record["ci_low"], record["ci_high"]), factor))
    if not unit:
        return text
    return text + (suffix[:-1] if text in ("1", "−1") and suffix.endswith("s") else suffix)


def value_parts(record: Mapping[str, Any]) -> tuple[str, str]:
    """The estimate as (number, unit), for setting the number large."""
    if record["estimate"] is None:
        return "–", ""
    text, number = number_text(record["estimate"], record), number_text(record["estimate"], record, unit=False)
    return number, text.removeprefix(number).strip()


def range_text(record: Mapping[str, Any]) -> str:
    """The interval's ends, `−5.2 to −3.0`, or an empty text."""
    if record["ci_low"] is None or record["estimate"] is None:
        return ""
    percent = _scale(record.get("unit") or "")[1] == "%"
    low, high = (number_text(record[end], record, unit=percent) for end in ("ci_low", "ci_high"))
    return f"{low} to {high}"


def interval_text(record: Mapping[str, Any]) -> str:
    """`95% interval −5.2 to −3.0`, or an empty text where there is none."""
    ends = range_text(record)
    level = "" if record["level"] is None else f"{100 * record['level']:.3g}% "
    return f"{level}interval {ends}" if ends else ""


def full_text(record: Mapping[str, Any]) -> str:
    """Value, interval and n in one line; the reason where there is no value."""
    if record["estimate"] is None:
        text = f"not known: {record['reason']}"
    else:
        parts = [number_text(record["estimate"], record), interval_text(record), f"n = {record['n']:,}"]
        text = ", ".join(part for part in parts if part)
    return f"{record['verdict']} ({text})" if "verdict" in record else text


def title_of(record: Mapping[str, Any]) -> str:
    """A finding's label or a claim's statement."""
    return record["label"] if record["kind"] == "finding" else record["statement"]


def about_text(facts: Mapping[str, Any]) -> str:
    """One line about the data: `2,000 users, 165 habits, 984,211 tracking rows, 2025-01-01 to 2025-06-29`."""
    parts = [
        f"{facts[name]:,} {word}{'' if facts[name] == 1 else 's'}"
        for name, word in (("users", "user"), ("habits", "habit"), ("rows", "tracked day"))
        if name in facts
    ]
    if "first_day" in facts:
        parts.append(f"{facts['first_day']} to {facts['last_day']}")
    if "refused_research" in facts:
        parts.append(f"without {facts['refused_research']} who refused research")
    return ", ".join(parts)


class _Slot:
    """A finding inside a template: formats itself, plainly or as a link to its row in the page."""

    def __init__(self, record: Mapping[str, Any], linked: bool) -> None:
        self.record, self.linked = record, linked

    def __format__(self, spec: str) -> str:
        record, unit = self.record, self.record.get("unit") or ""
        value = record["estimate"]
        if spec == "":
            text = number_text(value, record)
        elif spec == "size":
            text = number_text(None if value is None else abs(value), record)
        elif spec == "range":
            text = range_text(record) + ("" if unit == "share" else _scale(unit)[1])
        elif spec == "interval":
            inside = interval_text(record)
            text = number_text(value, record) + (f" ({inside})" if inside else "")
        elif spec == "n":
            text = f"{record['n']:,}"
        elif spec == "label":
            text = html.escape(title_of(record)) if self.linked else title_of(record)
        else:
            raise ValueError(f"{{{record['key']}:{spec}}}: after the colon comes size, range, interval, n or label")
        if not self.linked:
            return text
        tip = html.escape(f"{title_of(record)}: {full_text(record)}", quote=True)
        return f'<a class="number" href="#{record["kind"]}-{record["key"]}" title="{tip}">{text}</a>'


def fill(template: str, findings: Mapping[str, Item]) -> dict[str, Any]:
    """Fill a template: `text` plain, `markdown` with each number linked to its finding, `keys` of those it names."""
    named = _slots(template)
    for name in named:
        if name not in findings:
            near = difflib.get_close_matches(name, findings, n=1)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            raise ValueError(f"the text names {{{name}}}, but no finding was handed in under that name{hint}")
    records = {name: _record(findings[name]) for name in named}
    return {
        "text": template.format(**{name: _Slot(record, False) for name, record in records.items()}),
        "markdown": template.format(**{name: _Slot(record, True) for name, record in records.items()}),
        "keys": sorted({record["key"] for record in records.values()}),
    }


# ---------------------------------------------------------------------------------------------- collecting


@dataclass(frozen=True)
class Collected:
    """All that an executed notebook has recorded, in its order."""

    question: str
    answer: Mapping[str, Any]  # text, markdown, keys; empty when there is none
    findings: tuple[Mapping[str, Any], ...]
    claims: tuple[Mapping[str, Any], ...]
    figures: tuple[Mapping[str, Any], ...]
    skipped: tuple[Mapping[str, str], ...]
    limits: tuple[Mapping[str, Any], ...]
    methods: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any]

    @property
    def headlines(self) -> tuple[Mapping[str, Any], ...]:
        """The findings for the top of the page; the first four where none was chosen."""
        chosen = tuple(finding for finding in self.findings if finding["headline"])
        return chosen or self.findings[:4]

    def as_json(self) -> dict[str, Any]:
        """The findings part of the report's JSON: fields of the contract, headlines first, NaN as null."""
        unknown = [record for record in (*self.findings, *self.claims) if record["estimate"] is None]
        return {
            "question": self.question,
            "answer": self.answer.get("text", ""),
            "findings": [
                {field: record[field] for field in FINDING_FIELDS}
                for record in sorted(self.findings, key=lambda record: not record["headline"])
            ],
            "claims": [{field: record[field] for field in CLAIM_FIELDS} for record in self.claims],
            "skipped": [dict(entry) for entry in self.skipped]
            + [{"what": title_of(record), "why": record["reason"]} for record in unknown],
        }


def payloads(notebook: Any) -> list[tuple[int, dict[str, Any]]]:
    """Every record of the notebook as (cell index, payload), in order."""
    return [
        (index, output["data"][MIME])
        for index, cell in enumerate(notebook["cells"])
        for output in cell.get("outputs", ())
        if MIME in output.get("data", {})
    ]


def collect(notebook: Any) -> Collected:
    """Gather what an executed notebook (nbformat node or mapping) has recorded.

    Raises ValueError when a key is published twice, or when prose or a caption takes a number from a finding that was
    never published.
    """
    by_kind: dict[str, list[dict[str, Any]]] = {}
    published: list[tuple[dict[str, Any], str]] = []
    named: list[tuple[str, str]] = []
    for index, payload in payloads(notebook):
        by_kind.setdefault(payload["kind"], []).append(payload)
        place = f"cell {index + 1}"
        published += [(item, place) for item in payload.get("items", ())]
        named += [(key, f"the {payload['kind']} of {place}") for key in payload.get("keys", ())]
    _refuse_twins((f"{item['kind']} `{item['key']}`", place) for item, place in published)
    _refuse_twins(
        (f"figure `{payload['key']}`", "another figure") for payload in by_kind.get("figure", ()) if payload["key"]
    )
    known = {item["key"] for item, _ in published}
    for key, place in named:
        if key not in known:
            raise ValueError(f"{place} takes a number from `{key}`, which no publish() has recorded")
    about_all: dict[str, Any] = {}
    for payload in by_kind.get("about", ()):
        about_all |= payload["about"]
    return Collected(
        question=" ".join(payload["text"] for payload in by_kind.get("question", ())[-1:]),
        answer=by_kind["answer"][-1] if "answer" in by_kind else {},
        findings=tuple(item for item, _ in published if item["kind"] == "finding"),
        claims=tuple(item for item, _ in published if item["kind"] == "claim"),
        figures=tuple(
            payload | {"key": payload["key"] or f"figure-{number}", "number": number}
            for number, payload in enumerate(by_kind.get("figure", ()), start=1)
        ),
        skipped=tuple({"what": skip["what"], "why": skip["why"]} for skip in by_kind.get("skip", ())),
        limits=tuple(by_kind.get("limits", ())),
        methods=tuple(by_kind.get("methods", ())),
        about=about_all,
    )
