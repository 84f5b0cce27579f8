"""The planted effects: what may be asked for, and which constants of the world bring it about.

An effect with a number (four correlations and a relative change) is asked for by the value that an analysis should
find; `knobs` turns it into constants of the behaviour by a calibration. The others are strengths: 1 is the full effect,
0 is none.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

EFFECTS: dict[str, float] = {
    "complexity_time_commitment": 0.72,
    "concurrent_habits_completion": -0.58,
    "consistent_time_streak": 0.81,
    "goal_setting_completion": 0.43,
    "clear_description_adoption": 0.27,
    "midway_dip": 1.0,
    "time_of_day_peaks": 1.0,
    "optimal_duration": 1.0,
    "category_success": 1.0,
    "daily_vs_weekly": 1.0,
    "difficulty_progression": 1.0,
    "demographics_category": 1.0,
}
"""Every planted effect and its default; 0 switches one off."""

# Asked values, and the knob that brings each about: measured by benchmarks/calibrate_simulation.py (`curve`: mean of 4
# seeds, 2,000 users, 180 days, the other effects at default; the defaults themselves on 16 fresh seeds by `check`).
# Slope of the choice of a habit in commitment x complexity:
COMPLEXITY = ((0.0, 0.29, 0.51, 0.65, 0.72, 0.78, 0.85), (0.0, 0.4, 0.8, 1.2, 1.55, 2.0, 3.0))
# Logits of completion lost for each further habit:
LOAD = ((-0.69, -0.58, -0.425, -0.277, -0.127, 0.0), (0.36, 0.279, 0.21, 0.14, 0.07, 0.0))
# Correlation of the consistency of a pair's hour and its persistence:
CONSISTENCY = ((0.0, 0.235, 0.487, 0.709, 0.81, 0.823), (0.0, 0.3, 0.6, 0.85, 0.975, 1.0))
# Multiplies both the effect of a goal and the selection of those who set one:
GOAL = ((0.0, 0.15, 0.282, 0.43, 0.49), (0.0, 0.3, 0.6, 1.0, 1.2))

_RANGES: dict[str, tuple[float, float]] = {
    "complexity_time_commitment": (0.0, COMPLEXITY[0][-1]),
    "concurrent_habits_completion": (LOAD[0][0], 0.0),
    "consistent_time_streak": (0.0, CONSISTENCY[0][-1]),
    "goal_setting_completion": (0.0, GOAL[0][-1]),
    "clear_description_adoption": (0.0, 1.0),
    "time_of_day_peaks": (0.0, 1.0),
}
_STRENGTHS = (0.0, 2.0)


@dataclass(frozen=True)
class Knobs:
    """Constants of the world that the effects set."""

    complexity: float
    load: float
    consistency: float
    goal: float
    clear: float
    dip: float
    peaks: float
    duration: float
    category: float
    weekly: float
    difficulty: float
    demographics: float
    load_share: float
    """Share of the default load, at most 1: what depends on the number of habits beside the load fades with it."""
    consistency_share: float
    """Share of the default link of consistency and persistence, at most 1; likewise for automaticity."""


def resolve(effects: Mapping[str, float] | None) -> dict[str, float]:
    """Return every effect with its value, the defaults where `effects` says nothing.

    Raises
    ------
    ValueError
        A name is unknown (with the nearest known one), or a value lies outside the range that can be planted.
    """
    chosen = dict(EFFECTS)
    for name, value in (effects or {}).items():
        if name not in EFFECTS:
            near = difflib.get_close_matches(name, EFFECTS, n=1, cutoff=0.4)
            advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(EFFECTS)}"
            raise ValueError(f"unknown effect {name!r}: {advice}")
        low, high = _RANGES.get(name, _STRENGTHS)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not low <= value <= high:
            raise ValueError(f"effect {name} cannot be {value!r}: give a number from {low:g} to {high:g}; 0 is off")
        chosen[name] = float(value)
    return chosen


def parse_effects(settings: Iterable[str]) -> dict[str, float]:
    """Read effects as the command line gives them, `NAME=VALUE` each, and hold them against `resolve`."""
    effects = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            effects[name.strip()] = float(value)
        except ValueError:
            shape = "EFFECT=VALUE, such as midway_dip=0"
            raise ValueError(
                f"{setting!r} is not {shape}" if equals else f"{setting!r} lacks a value: give {shape}"
            ) from None
    resolve(effects)
    return effects


def knobs(effects: Mapping[str, float]) -> Knobs:
    """Turn resolved effects into constants of the world."""

    def calibrated(name: str, table: tuple[tuple[float, ...], tuple[float, ...]]) -> float:
        return float(np.interp(effects[name], *table))

    load, consistency = (
        calibrated("concurrent_habits_completion", LOAD),
        calibrated("consistent_time_streak", CONSISTENCY),
    )
    return Knobs(
        complexity=calibrated("complexity_time_commitment", COMPLEXITY),
        load=load,
        consistency=consistency,
        goal=calibrated("goal_setting_completion", GOAL),
        clear=effects["clear_description_adoption"],
        dip=effects["midway_dip"],
        peaks=effects["time_of_day_peaks"],
        duration=effects["optimal_duration"],
        category=effects["category_success"],
        weekly=effects["daily_vs_weekly"],
        difficulty=effects["difficulty_progression"],
        demographics=effects["demographics_category"],
        load_share=min(1.0, load / np.interp(EFFECTS["concurrent_habits_completion"], *LOAD)),
        consistency_share=min(1.0, consistency / np.interp(EFFECTS["consistent_time_streak"], *CONSISTENCY)),
    )
