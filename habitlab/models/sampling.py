"""Learning from a share of what is old without forgetting how much of it there was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def thin_out(
    day: npt.NDArray[np.integer], cut: int, share: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Keep every row from `cut` on, and of the older ones a random `share`, each of which then weighs 1 / share.

    Returns which rows are kept (n,) and their weights (n,), 0 for those that are not. The weighted sum of anything is
    on average that over all rows (Horvitz and Thompson 1952, doi:10.1080/01621459.1952.10483446): base rates, and with
    them calibration, stay those of all the data. Without the weights they would move towards those of late.

    Raises
    ------
    ValueError
        The share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of old rows lies above 0 and is at most 1; got {share}")
    old = np.asarray(day) < cut
    kept = ~old | (generator.random(len(old)) < share)
    return kept, np.where(kept, np.where(old, 1 / share, 1.0), 0.0)
