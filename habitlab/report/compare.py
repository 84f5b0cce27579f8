"""What changed between two runs, number by number: `compare(dir_a, dir_b)` reads the reports' JSON of both folders."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from habitlab.report.findings import CLAIM_FIELDS, FINDING_FIELDS, number_text, range_text

Kind = Literal["report", "finding", "claim", "verdict", "text", "skipped", "parameter", "provenance"]


@dataclass(frozen=True)
class Change:
    """One difference; `before` or `after` is None where that side has nothing.

    `relative` is by how much of itself an estimate grew (after / before - 1), `overlap` whether the two intervals share
    a point; both are None where they have no meaning, as growth has none across zero.
    """

    report: str
    kind: Kind
    key: str
    before: str | None
    after: str | None
    relative: float | None = None
    overlap: bool | None = None


def compare(dir_a: str | Path, dir_b: str | Path) -> list[Change]:
    """Differences from the reports in `dir_a` to those in `dir_b`, in reading order; an empty list when there are none.

    Raises FileNotFoundError when a folder is absent or holds no report, ValueError when a file is not a report's JSON.
    """
    before, after = _reports(Path(dir_a)), _reports(Path(dir_b))
    changes: list[Change] = []
    for name in sorted(before | after):
        if name not in after:
            changes.append(Change(name, "report", name, before[name].get("title", name), None))
        elif name not in before:
            changes.append(Change(name, "report", name, None, after[name].get("title", name)))
        else:
            changes += _of_report(name, before[name], after[name])
    return changes


def as_text(changes: Sequence[Change], *, a: str = "before", b: str = "after") -> str:
    """The changes for a terminal, one line each under the report's name (it is Markdown as well)."""
    if not changes:
        return f"No change between {a} and {b}."
    lines = [f"{len(changes)} change{'s' if len(changes) != 1 else ''} from {a} to {b}"]
    report = None
    for change in changes:
        if change.report != report:
            report = change.report
            lines += ["", f"## {report}"]
        lines.append(f"- {_line(change)}")
    return "\n".join(lines)


def _reports(folder: Path) -> dict[str, dict[str, Any]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give two folders made by `habitlab report`")
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.name == "run.json":
            continue
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not readable as JSON ({error})") from error
        if not isinstance(report, dict) or not {"name", "findings", "claims"} <= report.keys():
            raise ValueError(f"{path}: not a report's JSON; it needs name, findings and claims")
        found[path.stem] = report
    if not found:
        raise FileNotFoundError(f"{folder}: holds no report (no NN-name.json); run `habitlab report --out {folder}`")
    return found


def _of_report(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Change]:
    for key in ("title", "question"):
        if before.get(key) != after.get(key):
            yield Change(name, "text", key, before.get(key), after.get(key))
    # the answer's words without its numbers: those show below as findings
    old, new = (re.sub(r"[\d.,−%]+", "#", str(report.get("answer", ""))) for report in (before, after))
    if old != new:
        yield Change(name, "text", "answer", before.get("answer"), after.get("answer"))
    yield from _of_items(name, "finding", FINDING_FIELDS, before["findings"], after["findings"])
    yield from _of_items(name, "claim", CLAIM_FIELDS, before["claims"], after["claims"])
    reasons = [{entry["what"]: entry["why"] for entry in report.get("skipped", ())} for report in (before, after)]
    yield from _of_mapping(name, "skipped", *reasons)
    yield from _of_mapping(name, "parameter", before.get("parameters", {}), after.get("parameters", {}))
    yield from _of_mapping(name, "provenance", _flat(before.get("provenance", {})), _flat(after.get("provenance", {})))


def _of_items(
    name: str,
    kind: Literal["finding", "claim"],
    fields: Sequence[str],
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
) -> Iterable[Change]:
    old, new = ({item["key"]: item for item in items} for items in (before, after))
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            yield Change(name, kind, key, _value(old[key]), None)
        elif key not in old:
            yield Change(name, kind, key, None, _value(new[key]))
        else:
            yield from _of_item(name, kind, fields, old[key], new[key])


def _of_item(
    name: str, kind: Literal["finding", "claim"], fields: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterable[Change]:
    key = str(old["key"])
    if old.get("verdict") != new.get("verdict"):
        yield Change(name, "verdict", key, old.get("verdict"), new.get("verdict"))
    if any(old.get(field) != new.get(field) for field in ("estimate", "ci_low", "ci_high", "n", "unit", "level")):
        same_unit = old.get("unit") == new.get("unit")
        yield Change(
            name,
            kind,
            key,
            _value(old),
            _value(new),
            relative=_relative(old["estimate"], new["estimate"]) if same_unit else None,
            overlap=_overlap(old, new) if same_unit else None,
        )
    for field in fields:
        if field in ("label", "method", "statement", "reported", "figure") and old.get(field) != new.get(field):
            yield Change(name, "text", f"{key}: {field}", _text(old.get(field)), _text(new.get(field)))


def _of_mapping(name: str, kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[Change]:
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in old or key not in new or old[key] != new[key]:
            yield Change(name, kind, str(key), _text(old.get(key)), _text(new.get(key)))


def _relative(old: float | None, new: float | None) -> float | None:
    return new / old - 1 if old is not None and new is not None and old * new > 0 else None


def _overlap(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool | None:
    ends = (old["ci_low"], old["ci_high"], new["ci_low"], new["ci_high"])
    if None in ends:
        return None
    return bool(max(ends[0], ends[2]) <= min(ends[1], ends[3]))


def _value(item: Mapping[str, Any]) -> str:
    if item["estimate"] is None:
        return "not known"
    ends = range_text(item)
    return number_text(item["estimate"], item) + (f" [{ends}]" if ends else "") + f", n = {item['n']:,}"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _line(change: Change) -> str:
    what = "" if change.kind == "report" else f"{change.kind} `{change.key}`: "
    if change.before is None:
        return f"{what}added ({change.after})"
    if change.after is None:
        return f"{what}gone (was {change.before})"
    notes = []
    if change.relative is not None:
        notes.append(f"{abs(100 * change.relative):.3g}% {'larger' if change.relative > 0 else 'smaller'}")
    if change.overlap is not None:
        notes.append("intervals overlap" if change.overlap else "INTERVALS APART")
    return f"{what}{change.before} → {change.after}" + (f" ({', '.join(notes)})" if notes else "")
