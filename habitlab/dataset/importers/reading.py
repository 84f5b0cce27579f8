"""Read text tables, days and SQLite files as people have them: any encoding, separator, date order or schema."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from habitlab.dataset.schema import DatasetError

SQLITE_MAGIC = b"SQLite format 3\0"
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
DELIMITERS = ",;\t|"

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def decode(data: bytes) -> tuple[str, str]:
    """Return the text of a file and the name of its encoding: by its mark, else UTF-16, UTF-8, Cyrillic or Western."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace"), encoding
    if data[:2000].count(0) * 4 > len(data[:2000]):
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
        return data.decode(encoding, "replace"), encoding
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        # Cyrillic words are runs of high bytes; in Western words an accented letter mostly stands alone.
        runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
        encoding = "cp1251" if sum(runs) >= 2 * len(runs) else "cp1252"
        return data.decode(encoding, "replace"), encoding


def normalised(word: str) -> str:
    """Return a header word in the form headers are compared in: lower case, letters and digits only."""
    return "".join(character for character in word.casefold() if character.isalnum())


@dataclass(frozen=True)
class TextTable:
    """Records of a delimited text file: texts by column, and the line each record begins on."""

    header: list[str]
    records: list[list[str]]
    lines: list[int]

    @property
    def words(self) -> list[str]:
        """The header in the form headers are compared in."""
        return [normalised(word) for word in self.header]

    def frame(self) -> pd.DataFrame:
        """Return texts by `words`, with `line`, and `too_long`: the record has more fields than the header."""
        width = len(self.header)
        cut = [record[:width] + [""] * (width - len(record)) for record in self.records]
        first = {word: place for place, word in reversed([*enumerate(self.words)]) if word}
        data = {word: [record[place] for record in cut] for word, place in first.items()}
        frame = pd.DataFrame(data, dtype="str", index=range(len(cut)))
        frame = frame.apply(lambda texts: texts.str.strip())
        frame["line"] = pd.Series(self.lines, dtype="int64", index=frame.index)
        frame["too_long"] = [any(field.strip() for field in record[width:]) for record in self.records]
        return frame


def text_tables(text: str) -> Iterator[TextTable]:
    """Read a text with each separator that its first line holds, the most frequent first."""
    lines = list(io.StringIO(text, newline=""))
    start = 0
    while start < len(lines) and (not lines[start].strip() or re.match(r"sep=.\s*$", lines[start], re.I)):
        start += 1
    if start == len(lines):
        return
    found = Counter(character for character in lines[start] if character in DELIMITERS)
    for delimiter in [character for character, _ in found.most_common()] or [","]:
        yield _parse(lines, start, delimiter)


def _parse(lines: list[str], start: int, delimiter: str) -> TextTable:
    csv.field_size_limit(2**31 - 1)
    records: list[list[str]] = []
    begins: list[int] = []
    width = lines[start].count(delimiter)
    while start < len(lines):
        begin = start
        for record in (reader := csv.reader(iter(lines[start:]), delimiter=delimiter, skipinitialspace=True)):
            end = start + reader.line_num
            stray = end - begin > 1 and _stray_quote(lines[begin:end], delimiter, width, end == len(lines))
            if stray:
                record = lines[begin].strip("\r\n").split(delimiter)
            if any(field.strip() for field in record):
                records.append(record)
                begins.append(begin + 1)
            begin = begin + 1 if stray else end
            if stray:
                break
        start = begin
    header = [word.strip() for word in records[0]]
    while header and not header[-1]:
        header.pop()
    return TextTable(header, records[1:], begins[1:])


def _stray_quote(lines: list[str], delimiter: str, width: int, at_end: bool) -> bool:
    """Whether the quote that joins these lines to one record is a stray one, which would swallow whole records."""
    never_closed = at_end and "".join(lines).count('"') % 2 == 1
    whole = sum(line.count(delimiter) == width for line in lines[1:])
    return never_closed or (whole >= 2 and 2 * whole > len(lines) - 1)


def parse_days(texts: pd.Series) -> tuple[pd.Series, list[str]]:
    """Read days in whatever order the whole column was written in.

    Year first, compact (20260131), or day and month before the year; the order of the latter is the one in which
    more of the column are real days, else the one that keeps neighbouring days closest together.

    Returns
    -------
    Days as datetime64[s], NaT where a text is none, and notes on what had to be decided.
    """
    text = texts.astype("str").str.strip()
    compact = text.str.extract(r"^([0-9]{4})([0-9]{2})([0-9]{2})$")
    spaced = text.str.extract(r"^([0-9]{1,4})\s*([-/.])\s*([0-9]{1,2})\s*[-/.]\s*([0-9]{1,4})\.?(?:[T ,].*)?$")
    first, second, third = (pd.to_numeric(spaced[column]).to_numpy(float) for column in (0, 2, 3))
    day = combine_days(*(pd.to_numeric(compact[column]).to_numpy(float) for column in (0, 1, 2)))
    year_first = (spaced[0].str.len() == 4).to_numpy(bool, na_value=False)
    day[year_first] = combine_days(first, second, third)[year_first]

    late = ~year_first & spaced[3].str.len().isin([2, 4]).to_numpy(bool)
    if not late.any():
        return pd.Series(day.astype("datetime64[s]"), index=texts.index), []
    year = np.where(third < 70, third + 2000, np.where(third < 100, third + 1900, third))
    readings = {
        "day/month/year": combine_days(year, second, first)[late],
        "month/day/year": combine_days(year, first, second)[late],
    }
    good = {order: int((~np.isnat(days)).sum()) for order, days in readings.items()}
    order = max(good, key=lambda name: good[name])
    notes = []
    if len(set(good.values())) == 1:
        spread = {name: _spread(days) for name, days in readings.items()}
        dotted = (spaced[1][late] == ".").mean() > 0.5
        order = min(spread, key=lambda name: (spread[name], (name == "day/month/year") != dotted))
        if not (readings["day/month/year"] == readings["month/day/year"]).all():
            why = "as it keeps the days closer together" if len(set(spread.values())) > 1 else "nothing tells more"
            notes.append(f"{int(late.sum()):,} dates read as {order}: both orders would give real days; {why}")
    else:
        notes.append(f"dates read as {order}")
    day[late] = readings[order]
    return pd.Series(day.astype("datetime64[s]"), index=texts.index), notes


def _spread(days: np.ndarray) -> float:
    known = days[~np.isnat(days)].astype("int64")
    return float(np.abs(np.diff(known)).sum())


def combine_days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Combine numbers into days; NaT where a month has no such day."""
    whole = ~(np.isnan(year) | np.isnan(month) | np.isnan(day))
    y, m, d = (np.where(whole, part, 1).astype("int64") for part in (year, month, day))
    month_start = ((y - 1970) * 12 + m - 1).astype("datetime64[M]")
    days = month_start.astype("datetime64[D]") + (d - 1)
    real = whole & (m >= 1) & (m <= 12) & (d >= 1) & (days.astype("datetime64[M]") == month_start)
    return np.where(real, days, np.datetime64("NaT", "D"))


@contextmanager
def open_sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file as it stands: never written to, no other file made beside it.

    Raises
    ------
    DatasetError
        The file is truncated or damaged.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (pages,), (size,) = (connection.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
            if state == "ok" and path.stat().st_size < pages * size:
                state = f"{pages * size:,} bytes by its header, {path.stat().st_size:,} in truth"
            if state != "ok":
                raise DatasetError(f"{path} is a damaged SQLite file ({' '.join(state.split())}); export it again")
            yield connection
    except (sqlite3.Error, UnicodeError) as error:
        raise DatasetError(f"{path} is a damaged SQLite file ({error}); export it again") from error


def sqlite_tables(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the tables of a file by their names in lower case."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name.lower(): name for (name,) in rows}


def read_sqlite_table(connection: sqlite3.Connection, name: str, needed: tuple[str, ...]) -> pd.DataFrame:
    """Return a whole table in the order of its rows, with column names in lower case.

    Raises
    ------
    DatasetError
        The table lacks one of the `needed` columns.
    """
    table = sqlite_tables(connection)[name]
    rows = connection.execute(f'SELECT * FROM "{table}"')
    columns = [description[0].lower() for description in rows.description]
    # As objects: a whole number in a column with gaps must not become 2.0.
    frame = pd.DataFrame(rows.fetchall(), columns=columns, dtype=object)
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise DatasetError(f"table {table} has no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    return frame


def numbers(frame: pd.DataFrame, column: str, default: float = np.nan) -> pd.Series:
    """Return a column as float64, `default` where it is absent and NaN where it holds no number."""
    if column not in frame.columns:
        return pd.Series(default, index=frame.index, dtype="float64")
    return pd.to_numeric(frame[column], errors="coerce").astype("float64").replace([np.inf, -np.inf], np.nan)


def texts(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as `str` without blanks around, empty where it is absent or missing."""
    if column not in frame.columns:
        return pd.Series("", index=frame.index, dtype="str")
    return frame[column].astype("str").fillna("").str.strip()


def keys(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return an id column as `str`, so that 2 and "2" are the same; missing where there is none."""
    text = texts(frame, column)
    return text.where(text != "")


def by_key(frame: pd.DataFrame, key: pd.Series) -> pd.DataFrame:
    """Return the rows that have a key, indexed by it; of several with one key the first."""
    return frame[key.notna() & ~key.duplicated()].set_index(key[key.notna() & ~key.duplicated()])


def unused(frame: pd.DataFrame, known: set[str], what: str) -> list[str]:
    """Return a note that names the columns we do not know, if there are any."""
    strange = sorted(set(frame.columns) - known)
    return [f"columns of {what} not known and not read: {', '.join(strange)}"] if strange else []
