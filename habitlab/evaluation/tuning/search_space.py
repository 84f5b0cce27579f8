"""What a search may try: typed, named ranges, and weights that add up to 1.

Weights are drawn evenly from that part of the simplex that their bounds leave (a flat Dirichlet prior, truncated): each
weight but the last is a quantile of what it may be given those before it (stick-breaking), so that every point of the
search is valid. Drawn each for itself, weights would have no scale: twice all of them is the same blend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
from scipy import optimize
from skopt.space import Integer as WholeDimension
from skopt.space import Real as RealDimension

Point: TypeAlias = dict[str, float | int]

_ROOM = 1e-9


@dataclass(frozen=True)
class Space:
    """What may be tried: `ranges` of parameters, and bounds of `weights` that add up to 1; name -> (lowest, highest).

    A range of two whole numbers holds whole numbers, any other all numbers between. Raises ValueError for bounds that
    are none, upside down or equal, and for weights that cannot add up to 1, or only in one way.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    weights: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, bounds in (*self.ranges.items(), *self.weights.items()):
            _check_bounds(name, bounds)
        if not self.ranges and not self.weights:
            raise ValueError("there is nothing to tune: give `ranges`, `weights` or both")
        if twice := sorted(set(self.ranges) & set(self.weights)):
            raise ValueError(f"{twice[0]!r} is both a range and a weight")
        if self.weights:
            self._check_weights()

    def _check_weights(self) -> None:
        if len(self.weights) == 1:
            raise ValueError(f"one weight alone is always 1: {next(iter(self.weights))!r} needs another one beside it")
        if negative := [name for name, (low, _) in self.weights.items() if low < 0]:
            lowest = self.weights[negative[0]][0]
            raise ValueError(f"weights are 0 or more; the lower bound of {negative[0]!r} is {lowest:g}")
        for end, which, sign in ((0, "lower", 1), (1, "upper", -1)):
            total = math.fsum(bounds[end] for bounds in self.weights.values())
            if sign * (total - 1) > -_ROOM:
                parts = " + ".join(f"{bounds[end]:g}" for bounds in self.weights.values())
                what = "only one point is" if abs(total - 1) <= _ROOM else "no point is"
                raise ValueError(
                    f"{what} valid: the weights {', '.join(self.weights)} add up to 1, but their {which} bounds "
                    f"add up to {parts} = {total:g}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a point's values, weights first."""
        return (*self.weights, *self.ranges)

    @property
    def dimensions(self) -> list[RealDimension | WholeDimension]:
        """Named and typed dimensions of the search: a quantile for each weight but the last, then the ranges."""
        quantiles = [RealDimension(0.0, 1.0, name=f"quantile of {name}") for name in list(self.weights)[:-1]]
        kinds = {True: WholeDimension, False: RealDimension}
        return [
            *quantiles,
            *(kinds[is_whole(bounds)](*bounds, name=name) for name, bounds in self.ranges.items()),
        ]

    def point(self, coordinates: Iterable[Any]) -> Point:
        """Values by name from values of the `dimensions`, as numbers of Python."""
        given = list(coordinates)
        cut = max(len(self.weights) - 1, 0)
        found: Point = dict(zip(self.weights, _from_quantiles(given[:cut], list(self.weights.values())), strict=True))
        for (name, bounds), value in zip(self.ranges.items(), given[cut:], strict=True):
            found[name] = int(value) if is_whole(bounds) else min(max(float(value), bounds[0]), bounds[1])
        return found

    def coordinates(self, point: Mapping[str, float]) -> list[float | int]:
        """Values of the `dimensions` of a point; ValueError naming what is missing or out of bounds."""
        if set(point) != set(self.names):
            raise ValueError(f"a point has {', '.join(self.names)}; got {', '.join(point)}")
        for name, (low, high) in (*self.weights.items(), *self.ranges.items()):
            if not low - _ROOM <= point[name] <= high + _ROOM:
                raise ValueError(f"{name} is between {low:g} and {high:g}; got {point[name]:g}")
        weights = [float(point[name]) for name in self.weights]
        if weights and abs(math.fsum(weights) - 1) > 1e-6:
            raise ValueError(f"the weights {', '.join(self.weights)} add up to 1; got {math.fsum(weights):g}")
        return [*_to_quantiles(weights, list(self.weights.values())), *(point[name] for name in self.ranges)]

    def at(self, unit: Sequence[float]) -> Point:
        """The point at these coordinates of the unit cube, (dimensions,); the prior is even there."""
        cut = max(len(self.weights) - 1, 0)
        values = (
            min(int(bounds[0]) + int(part * (bounds[1] - bounds[0] + 1)), bounds[1])
            if is_whole(bounds)
            else bounds[0] + part * (bounds[1] - bounds[0])
            for part, bounds in zip(unit[cut:], self.ranges.values(), strict=True)
        )
        return self.point([*unit[:cut], *values])

    def draw(self, generator: np.random.Generator) -> Point:
        """Draw one point from the prior: weights as the module says, ranges evenly."""
        return self.at(generator.random(max(len(self.weights) - 1, 0) + len(self.ranges)).tolist())


def _check_bounds(name: str, bounds: Any) -> None:
    right = f"bounds of {name!r} are (lowest, highest), such as (0.2, 0.8), or (10, 50) for whole numbers"
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        raise ValueError(f"{right}; got {bounds!r}")
    if not all(isinstance(end, Real) and not isinstance(end, bool) and math.isfinite(end) for end in bounds):
        raise ValueError(f"{right}; got {bounds!r}")
    low, high = bounds
    if low > high:
        raise ValueError(f"bounds of {name!r} are upside down: {low:g} to {high:g}")
    if low == high:
        raise ValueError(f"{name!r} can only be {low:g}: set it, there is nothing to search")


def is_whole(bounds: tuple[float, float]) -> bool:
    """Whether a range of these bounds holds whole numbers."""
    return all(isinstance(end, Integral) for end in bounds)


# Weights: quantiles of the flat distribution on the part of the simplex that the bounds leave


def _below(room: float, caps: Sequence[float]) -> float:
    """Volume, but for a constant factor, of what is >= 0, at most `caps` each, and adds up to at most `room`."""
    return math.fsum(
        (-1) ** size * max(room - math.fsum(chosen), 0.0) ** len(caps)
        for size in range(len(caps) + 1)
        for chosen in combinations(caps, size)
    )


def _step(room: float, caps: Sequence[float]) -> tuple[float, float, Callable[[float], float]]:
    """Least and most of the first of several parts of `room`, and the share of the volume in which it is smaller."""
    low, high = max(0.0, room - math.fsum(caps[1:])), min(caps[0], room)
    least, most = _below(room - low, caps[1:]), _below(room - high, caps[1:])

    def share(part: float) -> float:
        if least - most <= 0:
            return 0.5
        return min(max((least - _below(room - part, caps[1:])) / (least - most), 0.0), 1.0)

    return low, high, share


def _from_quantiles(quantiles: Sequence[float], bounds: Sequence[tuple[float, float]]) -> list[float]:
    """Weights (n,) that add up to 1 from n - 1 quantiles."""
    if not bounds:
        return []
    room, caps, parts = 1 - math.fsum(low for low, _ in bounds), [high - low for low, high in bounds], []
    for number, quantile in enumerate(quantiles):
        low, high, share = _step(room, caps[number:])
        part = low if quantile <= 0 or high - low < 1e-12 else high
        if 0 < quantile < 1 and high - low >= 1e-12:
            part = optimize.brentq(_less(share, quantile), low, high, xtol=1e-14)
        parts.append(part)
        room = max(room - part, 0.0)
    parts.append(min(room, caps[-1]))
    return [min(low + part, high) for part, (low, high) in zip(parts, bounds, strict=True)]


def _to_quantiles(weights: Sequence[float], bounds: Sequence[tuple[float, float]]) -> list[float]:
    room, caps, quantiles = 1 - math.fsum(low for low, _ in bounds), [high - low for low, high in bounds], []
    for number in range(len(bounds) - 1):
        low, high, share = _step(room, caps[number:])
        part = min(max(weights[number] - bounds[number][0], low), high)
        quantiles.append(share(part))
        room = max(room - part, 0.0)
    return quantiles


def _less(share: Callable[[float], float], quantile: float) -> Callable[[float], float]:
    return lambda part: share(part) - quantile
