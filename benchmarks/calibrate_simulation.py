"""Find the constants of the simulated world that bring about the overview's numbers, and say how well they hold.

    python benchmarks/calibrate_simulation.py check [SEEDS] [EFFECT=VALUE ...]    every claim on fresh seeds
    python benchmarks/calibrate_simulation.py curve KNOB EFFECT VALUE ...         what an effect measures along its knob

How the frozen constants were found: `curve` for each knob in `habitlab.simulation.effects` with the others at their
default, the same seeds throughout (common random numbers), the value for the default read off by interpolation; once
around again, as the knobs touch each other a little; then `check` on seeds that were not used. The estimators are those
of the register, so that nothing is calibrated to a definition of its own.
"""

from __future__ import annotations

import dataclasses
import sys

import pandas as pd

from habitlab.evaluation import claims
from habitlab.simulation import EFFECTS, make_world, populate

CURVE_SEEDS = range(100, 106)
CHECK_SEEDS = 1000


def measure(dataset: object, keys: list[str]) -> dict[str, float]:
    """Point estimate of each claim; the intervals are not needed here, so two resamples do."""
    draw = claims.Draw(resamples=2)
    return {key: claims._MEASURES[key](dataset, draw).estimate for key in keys}


def check(seeds: int, effects: dict[str, float]) -> None:
    """Print mean and standard deviation of every claim's estimate over fresh seeds."""
    found = []
    for seed in range(CHECK_SEEDS, CHECK_SEEDS + seeds):
        found.append(measure(populate(make_world(seed=seed, effects=effects)), list(EFFECTS)))
    frame = pd.DataFrame(found)
    table = pd.DataFrame({"mean": frame.mean(), "sd": frame.std(), "min": frame.min(), "max": frame.max()})
    table["asked"] = [{**EFFECTS, **effects}[key] for key in table.index]
    print(table.round(4).to_string())


def curve(knob: str, effect: str, values: list[float]) -> None:
    """Print what an effect measures at values of its knob."""
    for value in values:
        found = []
        for seed in CURVE_SEEDS:
            world = make_world(seed=seed)
            found.append(measure(populate(dataclasses.replace(world, knobs=_with(world.knobs, knob, value))), [effect]))
        frame = pd.DataFrame(found)[effect]
        print(f"{knob} {value:g}: {effect} {frame.mean():.4f} (sd {frame.std():.4f})", flush=True)


def _with(knobs: object, knob: str, value: float) -> object:
    changes = {knob: value}
    if knob in ("load", "consistency"):  # what fades with a knob that is switched off
        changes[f"{knob}_share"] = min(1.0, value / getattr(knobs, knob))
    return dataclasses.replace(knobs, **changes)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", *rest]:
            pairs = [text.split("=") for text in rest if "=" in text]
            count = next((int(text) for text in rest if "=" not in text), 20)
            check(count, {name: float(value) for name, value in pairs})
        case ["curve", knob, effect, *values] if values:
            curve(knob, effect, [float(value) for value in values])
        case _:
            sys.exit(__doc__)
