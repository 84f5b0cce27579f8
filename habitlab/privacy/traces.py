"""Look for a person's id in every file of a folder, whatever the format: what is packed is unpacked first.

SQLite is read value by value and, as what was deleted may still stand in its pages, byte by byte: against a copy of
what is not deleted. Parquet is read column by column with its dictionaries, files of models part by part, arrays value
by value.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

SQLITE = b"SQLite format 3\0"
_ENCODINGS = ("utf-8", "utf-16-le", "utf-32-le")
_LONGEST_UNPACKED = 4 << 30


def files_below(places: Iterable[Path]) -> Iterator[Path]:
    """Give every file at or below the places, once."""
    seen: set[Path] = set()
    for place in places:
        found = (
            [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else []
        )
        for path in found:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def find(places: Iterable[Path], user_id: str) -> dict[Path, str]:
    """Return the files in which an id stands, each with where in it. Files that vanish meanwhile hold nothing."""
    found = {}
    for path in files_below(places):
        try:
            where = inside(path, user_id)
        except FileNotFoundError:
            continue
        if where:
            found[path] = where
    return found


def inside(path: Path, user_id: str) -> str:
    """Say where in a file an id stands; empty if nowhere. A longer id that begins with this one is another one."""
    with path.open("rb") as file:
        head = file.read(16)
    if head == SQLITE:
        return _in_sqlite(path, user_id)
    if head[:4] == b"PAR1":
        return _in_parquet(path, user_id)
    if head[:4] == b"PK\x03\x04":
        return _in_zip(path, user_id)
    return "its text" if holds(path.read_bytes(), user_id) else ""


def holds(content: bytes, user_id: str) -> bool:
    """Whether an id stands in bytes, as a word of its own, in one of the usual encodings or as JSON escapes it."""
    for encoding, needle in [(name, user_id.encode(name)) for name in _ENCODINGS] + [("utf-8", _in_json(user_id))]:
        width = {"utf-8": 1, "utf-16-le": 2, "utf-32-le": 4}[encoding]
        for match in re.finditer(re.escape(needle), content):
            before, after = content[max(0, match.start() - width) : match.start()], content[match.end() :][:width]
            if not _goes_on(before, width) and not _goes_on(after, width):
                return True
    return False


def _in_json(user_id: str) -> bytes:
    return json.dumps(user_id)[1:-1].encode()


def _goes_on(letter: bytes, width: int) -> bool:
    """Whether a neighbouring letter makes it a longer word."""
    return len(letter) == width and not any(letter[1:]) and bool(re.match(rb"[0-9A-Za-z_]", letter[:1]))


def _in_sqlite(path: Path, user_id: str) -> str:
    needle, escaped = user_id.encode(), _in_json(user_id)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
                for column in columns:
                    # A text is searched for text, a BLOB for bytes; `instr` of one in the other finds nothing.
                    rows = connection.execute(
                        f'SELECT "{column}" FROM "{table}" WHERE instr("{column}", ?) OR instr("{column}", ?)'
                        f' OR instr("{column}", ?) OR instr("{column}", ?)',
                        (user_id, needle, escaped.decode(), escaped),
                    )
                    if any(holds(v if isinstance(v, bytes) else str(v).encode(), user_id) for (v,) in rows):
                        return f"table {table}, column {column}"
            count = path.read_bytes().count(needle)
            if not count:
                return ""
            # Values stand side by side in a page, so that the id may touch other letters, or be part of other words.
            with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
                clean = Path(folder) / "clean"
                connection.execute("VACUUM INTO ?", (str(clean),))
                return "what is left of deleted rows" if count > clean.read_bytes().count(needle) else ""
    except sqlite3.Error:
        return "its bytes" if needle in path.read_bytes() else ""


def _in_parquet(path: Path, user_id: str) -> str:
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    if holds(repr(file.schema_arrow.metadata).encode(), user_id):
        return "its metadata"
    for name in file.schema_arrow.names:
        column = file.read(columns=[name]).column(0).combine_chunks()
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        for chunk in chunks:
            values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
            values = (
                values.flatten() if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) else values
            )
            if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
                continue
            near = values.filter(compute.match_substring(values, user_id).fill_null(False))
            if any(holds(str(value).encode(), user_id) for value in near.to_pylist()):
                return f"column {name}"
    return ""


def _in_zip(path: Path | io.BytesIO, user_id: str) -> str:
    try:
        with zipfile.ZipFile(path) as packed:
            for part in packed.infolist():
                if part.file_size <= _LONGEST_UNPACKED and _in_part(packed.read(part), user_id):
                    return f"part {part.filename}"
    except zipfile.BadZipFile:
        return "its bytes" if isinstance(path, Path) and holds(path.read_bytes(), user_id) else ""
    return ""


def _in_part(content: bytes, user_id: str) -> bool:
    if content[:4] == b"PK\x03\x04":
        return bool(_in_zip(io.BytesIO(content), user_id))
    if content[:6] == b"\x93NUMPY":
        try:
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except ValueError:
            return holds(content, user_id)
        if array.dtype.kind == "U":  # texts of one width stand side by side: bytes would not tell where one ends
            return bool((array == user_id).any())
        if array.dtype.kind == "S":
            near = array[np.strings.find(array, user_id.encode()) >= 0]
            return any(holds(bytes(value), user_id) for value in near.ravel())
        return False
    return holds(content, user_id)
