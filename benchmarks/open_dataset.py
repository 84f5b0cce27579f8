"""Opening the built-in population: the first time (read, checked, kept) and again, beside a plain read of the table.

python benchmarks/open_dataset.py [DATA]
"""

import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd

from habitlab.dataset import Dataset


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Time each way once, and opening again three times."""
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "data/habittrack.db")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HABITLAB_CACHE"] = folder
        with closing(sqlite3.connect(data)) as connection:
            plain = seconds(lambda: pd.read_sql_query("SELECT * FROM habit_tracking", connection))
        first = seconds(lambda: Dataset.load(data))
        again = min(seconds(lambda: Dataset.load(data)) for _ in range(3))
    rows = len(Dataset.load(data).habit_tracking)
    print(f"{data}: {rows:,} tracking rows")
    print(f"pandas.read_sql_query, this table alone  {plain:6.2f} s")
    print(f"Dataset.load, the first time             {first:6.2f} s")
    print(f"Dataset.load, again                      {again:6.2f} s  ({plain / again:.0f} times as fast as the table)")


if __name__ == "__main__":
    main()
