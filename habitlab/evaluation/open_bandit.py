"""The Open Bandit data: recommendations of a shop that were logged by two policies at the same time, with propensities.

Saito et al. 2020, arXiv 2008.07146. One of the policies draws items uniformly, the other is Bernoulli Thompson
sampling; each impression was given to one of them by lot. So what the log of one says of the other can be held against
what the other really brought. Items are drawn for each of three places of a page; a click depends, so the publishers
assume, on item and place only. There is no user id: rows of a person cannot be told apart, and intervals are by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import DatasetError

Floats = npt.NDArray[np.float64]

POLICIES = ("random", "bts")

PUBLISHED = {"random": 0.0051, "bts": 0.0067}
"""Clicks an impression in the whole data of the campaign `men`, as the paper rounds them; the files are a part."""

_COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")


@dataclass(frozen=True, eq=False)
class BanditLog:
    """What one policy showed, (rows,) each: `place` 0-2, `item`, `click` 0 or 1, `propensity` of the item there."""

    policy: str
    at: pd.Series
    place: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    click: Floats
    propensity: Floats
    items: int
    places: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.item)

    @property
    def action(self) -> npt.NDArray[np.int64]:
        """Number of item and place together (rows,): the items of place 0, then those of place 1, ..."""
        return self.place * self.items + self.item

    def distribution(self) -> Floats:
        """Chance of each item at each place (places, items), over the time of the log; rows add up to 1.

        For the random policy 1 / items. Thompson sampling changes as it learns, and the log tells the chance only of
        the item that was shown: how often each was shown stands for its chance on average. An item that was never shown
        at a place has 0 there.
        """
        if self.policy == "random":
            return np.full((self.places, self.items), 1 / self.items)
        shown = np.bincount(self.action, minlength=self.places * self.items).reshape(self.places, self.items)
        return shown / shown.sum(axis=1, keepdims=True)


def load_open_bandit(folder: str | Path, policy: str, campaign: str = "men") -> BanditLog:
    """Read `POLICY_CAMPAIGN.csv.gz` or `.csv` in the folder; `policy` is "random" or "bts".

    Raises
    ------
    ValueError
        The policy is unknown.
    FileNotFoundError
        The file is not in the folder.
    DatasetError
        The file lacks a column, holds no rows, or a row is not as described.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy must be {' or '.join(POLICIES)}; it is {policy!r}")
    places = [Path(folder) / f"{policy}_{campaign}{suffix}" for suffix in (".csv.gz", ".csv")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"neither {places[0].name} nor {places[1].name} in {folder}; see data/README.md")
    rows = pd.read_csv(path)
    absent = [column for column in _COLUMNS if column not in rows]
    if absent:
        raise DatasetError(f"{path}: lacks {', '.join(absent)}; it has {', '.join(rows.columns[:8])} ...")
    if rows.empty:
        raise DatasetError(f"{path}: holds no rows")
    ok = {
        "item_id": rows["item_id"].ge(0),
        "position": rows["position"].between(1, 3),
        "click": rows["click"].isin([0, 1]),
        "propensity_score": rows["propensity_score"].gt(0) & rows["propensity_score"].le(1),
    }
    for column, good in ok.items():
        if not good.all():
            first = rows.loc[~good, column].head().tolist()
            raise DatasetError(f"{path}: {(~good).sum()} rows have an impossible {column}, first {first}")
    rows = rows.assign(timestamp=pd.to_datetime(rows["timestamp"], utc=True, format="ISO8601"))
    rows = rows.sort_values("timestamp", kind="stable", ignore_index=True)
    return BanditLog(
        policy=policy,
        at=rows["timestamp"],
        place=rows["position"].to_numpy(dtype=np.int64) - 1,
        item=rows["item_id"].to_numpy(dtype=np.int64),
        click=rows["click"].to_numpy(dtype=float),
        propensity=rows["propensity_score"].to_numpy(dtype=float),
        items=int(rows["item_id"].max()) + 1,
        places=3,
    )
