"""A megastudy in the simulated world: many arms, each meant to raise completions, most without effect (G7)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from habitlab.simulation.noise import Floats, Noise
from habitlab.simulation.world import PROGRAMME_DAYS

# The megastudy of gym visits (Milkman et al. 2021, doi:10.1038/s41586-021-04128-4).
EFFECTIVE, LASTING = 0.45, 0.08  # shares of all arms
LEAST_LIFT, MOST_LIFT = 0.09, 0.27


@dataclass(frozen=True, eq=False)
class Arms:
    """The arms of a megastudy (arms,), the control first. `lift` and `lasts` of a pair's arm go into `World.replay`."""

    name: npt.NDArray[np.object_]
    lift: Floats  # relative rise of completions of somebody with no automaticity yet; 0 for arms without effect
    lasts: npt.NDArray[np.bool_]  # whether the lift stays after the programme
    days: int = field(default=PROGRAMME_DAYS, init=False)  # of the programme: `World.replay` knows no other

    def __len__(self) -> int:
        """Number of arms, the control included."""
        return len(self.name)


def draw_arms(seed: int, arms: int = 20) -> Arms:
    """Draw the arms of a megastudy: a control, which does nothing, and `arms` others.

    Each arm works with a chance of 45 %, then by 9-27 %, and 8 % of all arms go on working after the programme. None of
    them fixes the hour: rigid times did worse than flexible ones (Beshears et al. 2021, doi:10.1287/mnsc.2020.3706).
    The first arms are the same however many are drawn.

    Raises
    ------
    ValueError
        `seed` is below 0 or `arms` below 1.
    """
    for name, value, least in (("seed", seed, 0), ("arms", arms, 1)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more; it is {value!r}")
    noise, index = Noise(seed), np.arange(arms + 1)
    works = (noise.uniform("arm works", index) < EFFECTIVE) & (index > 0)
    size = LEAST_LIFT + (MOST_LIFT - LEAST_LIFT) * noise.uniform("arm lift", index)
    return Arms(
        name=np.array(["control", *(f"arm {number}" for number in index[1:])], dtype=object),
        lift=np.where(works, size, 0.0),
        lasts=works & (noise.uniform("arm lasts", index) < LASTING / EFFECTIVE),
    )
