"""What an import did, row by row of the source: `imported + sum(skipped.values()) == rows`, always."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

EXAMPLES = 5

_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"']+@[^\s@<>()\[\],;:\"']+\.\w+")


@dataclass(frozen=True)
class ImportReport:
    """Where every row of a source went.

    `row` says what a row of this source is; `skipped` counts rows by reason and `examples` holds the first five of
    each; `derived` counts, by status, the rows of `habit_tracking` that no row of the source states; `digest` names
    the content of the source, so that importing it again is told from importing something else.
    """

    format: str
    source: str
    digest: str
    row: str
    rows: int
    imported: int
    skipped: dict[str, int]
    examples: dict[str, list[str]]
    derived: dict[str, int]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into the metadata of a dataset, as JSON-able values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Lines for people."""
        lines = [
            f"{self.source}: {self.format}; {self.rows:,} rows (a row is {self.row})",
            f"  imported {self.imported:,}, skipped {sum(self.skipped.values()):,}",
        ]
        for reason, count in self.skipped.items():
            lines.append(f"  skipped {count:,}: {reason}; first: {'; '.join(self.examples[reason])}")
        lines += [
            f"  derived {count:,} {status} days, which no row of the source states"
            for status, count in self.derived.items()
        ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def without_emails(text: pd.Series) -> pd.Series:
    """Return the texts with whatever looks like an e-mail address taken out."""
    return text.str.replace(_EMAIL, "[e-mail removed]", regex=True)


def count_skipped(reason: pd.Series, where: pd.Series, shown: pd.Series) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Count the reasons (missing: imported) and show the first rows of each, in the order of the source."""
    counts = {str(key): int(count) for key, count in reason.dropna().value_counts(sort=False).items()}
    counts = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    examples = {}
    for key in counts:
        first = reason.index[reason == key][:EXAMPLES]
        texts = without_emails(where[first].astype("str") + ": " + shown[first].astype("str").str.slice(0, 80))
        examples[key] = texts.tolist()
    return counts, examples
