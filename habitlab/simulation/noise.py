"""Exogenous noise that is a function of its place: any draw can be made alone, in any order, and is always the same.

A draw is found by hashing (seed, stream, counters), as in counter-based generators (Salmon et al. 2011,
doi:10.1145/2063384.2063405); the mixing function is SplitMix64's (Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195). So the outcome of a user, habit and day does not depend on who else is simulated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]

STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(state: Keys) -> Keys:
    """Scramble 64-bit states, (n,) to (n,); the input is overwritten."""
    shifted = state >> np.uint64(30)
    state ^= shifted
    state *= _FIRST
    state ^= np.right_shift(state, np.uint64(27), out=shifted)
    state *= _SECOND
    state ^= np.right_shift(state, np.uint64(31), out=shifted)
    return state


@dataclass(frozen=True)
class Noise:
    """All draws of one seed. Counters are non-negative integers or arrays of them, broadcast together."""

    seed: int

    def keys(self, stream: str, *counters: npt.ArrayLike) -> Keys:
        """Return 64 random bits for each place in a named stream."""
        start = hashlib.blake2b(f"{self.seed}/{stream}".encode(), digest_size=8).digest()
        state = np.array([int.from_bytes(start, "little")], dtype=np.uint64)
        for counter in counters:
            state = further(state, counter)
        return state

    def uniform(self, stream: str, *counters: npt.ArrayLike) -> Floats:
        """Draw from the open interval (0, 1)."""
        return to_uniform(self.keys(stream, *counters))

    def normal(self, stream: str, *counters: npt.ArrayLike) -> Floats:
        """Draw from the standard normal."""
        return ndtri(self.uniform(stream, *counters))

    def pick(self, shares: npt.ArrayLike, stream: str, *counters: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Draw positions 0 ... len(shares) - 1 in proportion to `shares`."""
        edges = np.cumsum(shares) / np.sum(shares)
        return np.searchsorted(edges[:-1], self.uniform(stream, *counters), side="right")


def further(state: Keys, counter: npt.ArrayLike) -> Keys:
    """Return the states one counter further on."""
    step = np.atleast_1d(counter).astype(np.uint64)
    step += np.uint64(1)
    step *= STEP
    return mix(state + step)


def to_uniform(keys: Keys) -> Floats:
    """Turn bits into numbers in (0, 1)."""
    uniform = (keys >> np.uint64(11)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-53
    return uniform
