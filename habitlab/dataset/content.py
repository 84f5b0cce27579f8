"""What a dataset holds, as one hash: fitted models and published numbers are known by it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from habitlab.dataset.dataset import Dataset


def content_hash(dataset: Dataset) -> str:
    """Return a hash of all tables of a dataset: another one as soon as any value changes."""
    import pandas as pd

    from habitlab.dataset.schema import TABLES

    digest = hashlib.sha256(repr(dataset.simulated).encode())
    for name in TABLES:
        table = dataset.table(name)
        for column in table.columns:
            values: Any = table[column]
            values = values.map(repr) if values.dtype == object else values
            digest.update(f"{name}.{column} {values.dtype} {len(values)}".encode())
            digest.update(pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:32]
