"""What has been published of some people, and how much of their privacy that cost: a budget that is never overspent.

Costs are counted in zero-concentrated differential privacy (rho-zCDP, Bun & Steinke 2016, arXiv:1605.02065), in which
releases add up; a budget is told as (epsilon, delta), which follows from the sum of rho at the ledger's delta.

One ledger is one population. Every release counts against its whole budget, also one from a later snapshot of the data:
the people in both are the same, and what was told of them once cannot be taken back. The hash of the dataset says which
snapshot a release came from: the same question of the same snapshot gets the answer it got before, and costs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from habitlab.dataset.sqlite import replacing
from habitlab.serving.state import own_folder

_WAIT = 60.0  # seconds for another process to finish a release
_LARGEST_RHO = 1e4


class BudgetExceeded(ValueError):  # noqa: N818 - reads as what happened
    """A release would cost more than is left; no answer was made and nothing spent."""


def epsilon_of(rho: float, delta: float) -> float:
    """Return the epsilon that rho-zCDP gives at `delta`.

    The smallest over the order alpha of Renyi's divergence (Canonne, Kamath & Steinke 2020, arXiv:2004.00010,
    proposition 12). ValueError unless rho is 0 or more and delta lies strictly between 0 and 1.
    """
    if not (np.isfinite(rho) and rho >= 0 and 0 < delta < 1):
        raise ValueError(f"rho is 0 or more and delta between 0 and 1; got rho {rho!r}, delta {delta!r}")
    if rho == 0:
        return 0.0

    def epsilon(log_order: float) -> float:
        order = 1 + np.exp(log_order)
        return float(rho * order + np.log1p(-1 / order) - np.log(delta * order) / (order - 1))

    found = optimize.minimize_scalar(epsilon, bounds=(-10, 25), method="bounded", options={"xatol": 1e-9})
    return max(0.0, float(found.fun))


def rho_of(epsilon: float, delta: float) -> float:
    """Return the largest rho that still gives `epsilon` at `delta`; the inverse of `epsilon_of`, never above it."""
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon is a number above 0; got {epsilon!r}")
    # 1e-12 to the safe side of the root.
    root = optimize.brentq(lambda rho: epsilon_of(rho, delta) - epsilon, 0.0, _LARGEST_RHO, xtol=1e-14, rtol=1e-12)
    return float(root) * (1 - 1e-9)


@dataclass(frozen=True)
class Ledger:
    """A budget on disk, at `path`: (epsilon, delta) for everything ever published of one population.

    The file is made at the first release and holds the budget from then on: opened with another one, it is refused.
    """

    path: Path
    epsilon: float = 1.0
    delta: float = 1e-6

    def spent(self) -> float:
        """Return the rho spent so far."""
        return float(sum(entry["rho"] for entry in self.entries()))

    def spent_epsilon(self) -> float:
        """Return the epsilon spent so far, at the ledger's delta."""
        return epsilon_of(self.spent(), self.delta)

    def left(self) -> float:
        """Return the rho that is left."""
        return max(0.0, rho_of(self.epsilon, self.delta) - self.spent())

    def entries(self) -> list[dict[str, Any]]:
        """Return the releases so far, in order: dataset (hash), what, rho, released (the answer; null if cut short)."""
        return list(self._read()["entries"])

    def spend(self, dataset: str, what: str, rho: float, release: Callable[[], Any]) -> Any:
        """Pay `rho` for an answer about the dataset with this hash, and return it; `release` makes it (JSON-able).

        It is paid before the answer is made, and written to disk before that: a process that dies in between has paid
        for nothing, but nobody ever learns what was not paid for. What was answered before is returned and costs
        nothing. Processes wait for each other.

        Raises
        ------
        BudgetExceeded
            More than is left.
        ValueError
            The ledger is damaged, or of another budget.
        """
        from filelock import FileLock

        own_folder(self.path.parent)
        with FileLock(f"{self.path}.lock", timeout=_WAIT):
            contents = self._read()
            for entry in contents["entries"]:
                same = (entry["dataset"], entry["what"], entry["rho"]) == (dataset, what, rho)
                if same and entry["released"] is not None:
                    return entry["released"]
            total = rho_of(self.epsilon, self.delta)
            spent = sum(entry["rho"] for entry in contents["entries"])
            if not rho > 0 or spent + rho > total * (1 + 1e-9):
                raise BudgetExceeded(
                    f"{what} would bring epsilon to {epsilon_of(spent + max(rho, 0), self.delta):.3g}; the budget is "
                    f"{self.epsilon:g} at delta {self.delta:g}, of which {epsilon_of(spent, self.delta):.3g} is spent: "
                    "ask less, or with a smaller epsilon"
                )
            entry = {"dataset": dataset, "what": what, "rho": rho, "released": None}
            contents["entries"].append(entry)
            self._write(contents)
            entry["released"] = release()
            self._write(contents)
            return entry["released"]

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"epsilon": self.epsilon, "delta": self.delta, "entries": []}
        try:
            contents = json.loads(self.path.read_text("utf-8"))
            told = (float(contents["epsilon"]), float(contents["delta"]))
            wrong = any(not float(entry["rho"]) > 0 for entry in contents["entries"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the ledger {self.path} is damaged ({error}); nothing is released without it") from error
        if wrong:
            raise ValueError(f"the ledger {self.path} is damaged (a cost that is not above 0); nothing is released")
        if told != (self.epsilon, self.delta):
            raise ValueError(
                f"the ledger {self.path} was begun with epsilon {told[0]:g}, delta {told[1]:g}; a budget cannot be "
                f"changed to {self.epsilon:g}, {self.delta:g} once something is published"
            )
        return contents

    def _write(self, contents: dict[str, Any]) -> None:
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(contents, ensure_ascii=False, indent=1) + "\n", "utf-8")
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the exchange itself must not be lost either
        finally:
            os.close(directory)
