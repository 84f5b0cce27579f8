"""The tables of a study and their contract, SQLite and Parquet in and out, and importers of real trackers."""

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.schema import DatasetError, MissingColumn, Violation, check, violations

__all__ = ["Dataset", "DatasetError", "MissingColumn", "Violation", "check", "violations"]
