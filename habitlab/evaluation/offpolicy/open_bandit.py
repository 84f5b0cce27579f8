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

from habitlab.dataset import DatasetError, MissingColumn
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.offpolicy import METHODS, estimate_quietly, reward_model

Floats = npt.NDArray[np.float64]

POLICIES = ("random", "bts")

PUBLISHED = {"random": 0.0051, "bts": 0.0067}
"""Clicks an impression in the whole data of the campaign `men`, as the paper rounds them; the files are a part."""

NAMES = {"random": "the random policy", "bts": "Thompson sampling"}

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


def load_both(folder: str | Path) -> dict[str, BanditLog]:
    """Read the logs of both policies; raises MissingColumn with the way to get them where they are absent."""
    try:
        return {policy: load_open_bandit(folder, policy) for policy in POLICIES}
    except FileNotFoundError:
        raise MissingColumn(
            "needs random_men.csv.gz and bts_men.csv.gz of the Open Bandit data; data/README.md says how to get them"
        ) from None


def each_from_the_other(logs: dict[str, BanditLog], *, level: float, resamples: int, seed: int) -> pd.DataFrame:
    """What each log says of the other policy, by every method, beside what that policy really brought at the same time.

    Columns: log, policy (whose worth it is), method, label; clicks a 100 impressions: estimate, ci_low, ci_high (BCa
    bootstrap by row), own, own_low, own_high (its own log's mean); gap (estimate less own), gap_low, gap_high (of
    independent logs: Zou & Donner 2008, doi:10.1002/sim.3095); effective, largest_weight, n, usable, told (warnings).
    """
    draw = {"level": level, "interval": "bootstrap", "resamples": resamples, "seed": seed}
    ones = {policy: np.ones(len(log)) for policy, log in logs.items()}
    own = {
        policy: estimate_quietly(log.click, ones[policy], ones[policy], method="ips", **draw)
        for policy, log in logs.items()
    }
    rows = []
    for name, policy in (("random", "bts"), ("bts", "random")):
        log, brought = logs[name], own[policy]
        places, chance = np.eye(log.places), logs[policy].distribution()
        whole: Floats = (places[:, :, None] * chance[:, None, :]).reshape(log.places, -1)
        target = whole[log.place]
        model = reward_model.fit(log.click, log.action, target)
        logged = target[np.arange(len(log)), log.action]
        for method in METHODS:
            found = estimate_quietly(log.click, log.propensity, logged, method=method, reward_model=model, **draw)
            gap = found.value - brought.value
            below = np.hypot(found.value - found.ci_low, brought.ci_high - brought.value)
            above = np.hypot(found.ci_high - found.value, brought.value - brought.ci_low)
            said = (found.value, found.ci_low, found.ci_high)
            truly = (brought.value, brought.ci_low, brought.ci_high)
            percent = 100 * np.array([*said, *truly, gap, gap - below, gap + above])
            label = f"{NAMES[policy].removeprefix('the ')}, {method}"
            weights = found.effective_sample_size, found.max_weight, found.n
            rows.append((name, policy, method, label, *percent, *weights, found.usable, "; ".join(found.warnings)))
    numbers = [f"{what}{end}" for what in ("", "own", "gap") for end in ("", "_low", "_high")]
    numbers[:3] = ["estimate", "ci_low", "ci_high"]
    columns = ["log", "policy", "method", "label", *numbers, "effective", "largest_weight", "n", "usable", "told"]
    return pd.DataFrame(rows, columns=columns)


def gaps(table: pd.DataFrame, *, level: float) -> dict[str, Estimate]:
    """Findings of `each_from_the_other`: snips' estimates, what was brought, their gaps, and effective rows."""
    found = {}
    for row in table[table["method"] == "snips"].itertuples():
        words, other = NAMES[row.policy], NAMES[row.log].removeprefix("the ")
        parts = {
            "said": (f"Worth of {words} by the log of {other} (snips)", row.estimate, row.ci_low, row.ci_high),
            "own": (f"Worth of {words} by its own log", row.own, row.own_low, row.own_high),
            "gap": (f"Worth of {words}: the other log less its own", row.gap, row.gap_low, row.gap_high),
        }
        for key, (label, value, low, high) in parts.items():
            unit = "points" if key == "gap" else "%"
            method = "clicks of 100 impressions, real logs; BCa bootstrap by row, there is no user id"
            name = f"{key}_{row.policy}"
            found[name] = Estimate(name, label, value, low, high, level, row.n, unit, method)
    return found


def for_reading(table: pd.DataFrame) -> pd.DataFrame:
    """`each_from_the_other` as a table to read."""
    names = {"log": "log of", "policy": "worth of", "estimate": "said", "ci_low": "from", "ci_high": "to"}
    names |= {"own": "own log", "gap_low": "gap from", "gap_high": "gap to", "effective": "effective rows"}
    columns = ["log", "policy", "method", "estimate", "ci_low", "ci_high", "own", "gap", "gap_low", "gap_high"]
    return table[[*columns, "effective"]].rename(columns=names)


def warned(table: pd.DataFrame) -> str:
    """What snips' estimates say of themselves, in their own words."""
    rows = table[(table["method"] == "snips") & (table["told"] != "")]
    said = [f"Of {NAMES[row.policy]}, snips says: \u201c{row.told}\u201d." for row in rows.itertuples()]
    return " ".join(said) or "None of these estimates warns of anything."


def verdict(found: dict[str, Estimate]) -> str:
    """Say whether the real logs agree with each other, with slots for `findings.prose`."""
    told = {policy: found[f"gap_{policy}"] for policy in ("bts", "random")}
    wrong = [policy for policy, gap in told.items() if not gap.ci_low <= 0 <= gap.ci_high]
    if not wrong:
        return "For both policies the gap may be nothing: these logs do not contradict each other."
    names = " and of ".join(NAMES[policy] for policy in wrong)
    return f"The worth of {names} comes out wrong: the interval of its gap does not hold 0."
