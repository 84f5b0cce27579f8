"""HabitLab: a research workbench for habit data, with reproducible reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from habitlab.dataset import Dataset

__version__ = "0.1.0"

SAMPLE = "sample"


def open_dataset(source: str | Path = SAMPLE) -> Dataset:
    """Open a dataset by its path, or the word `sample`: a small simulated population, made in memory in a moment."""
    if source == SAMPLE:
        from habitlab.simulation import simulate

        return simulate(users=200, days=90, seed=0)
    from habitlab.dataset import Dataset

    return Dataset.load(source)
