"""The simulated world: a population whose true behaviour is known.

`simulate` makes a dataset, `save` writes one with its truth beside it, `load_truth` reads the truth back, and `World`
runs any policy for real in the same world.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from habitlab.dataset import Dataset, DatasetError
from habitlab.dataset.catalogue import load_catalogue
from habitlab.dataset.dataset import read_metadata
from habitlab.dataset.sqlite import replacing
from habitlab.simulation.adoption import adopt
from habitlab.simulation.effects import EFFECTS, knobs, parse_effects, resolve
from habitlab.simulation.interventions import Arms, draw_arms
from habitlab.simulation.tables import make_tables
from habitlab.simulation.truth import load_truth, make_truth, truth_path
from habitlab.simulation.world import Course, World, parameters

__all__ = [
    "EFFECTS",
    "Arms",
    "Course",
    "World",
    "draw_arms",
    "load_truth",
    "make_truth",
    "make_world",
    "parse_effects",
    "populate",
    "refuse_real_data",
    "save",
    "simulate",
    "truth_path",
    "world_of",
]

RETENTIONS = ("trial", "wild")


def make_world(
    users: int = 2000,
    days: int = 180,
    seed: int = 0,
    effects: Mapping[str, float] | None = None,
    retention: str = "trial",
) -> World:
    """Return a world; nothing has happened in it yet.

    Parameters
    ----------
    users, days
        Size of the population and number of days it is watched, each at least 1.
    seed
        0 or more; the same seed gives the same world, whatever the machine's number of threads. The first users of
        a larger world are the users of a smaller one, as long as `days` stays the same.
    effects
        Values other than the defaults of `EFFECTS`, by name.
    retention
        `"trial"`: dropout as in trials of digital health; `"wild"`: as in app stores, where most leave at once (G9).

    Raises
    ------
    ValueError
        A parameter is out of range, or an effect is unknown or cannot be planted that strongly.
    """
    for name, value, least in (("users", users, 1), ("days", days, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number, {least} or more; it is {value!r}")
    if retention not in RETENTIONS:
        raise ValueError(f"retention must be {' or '.join(map(repr, RETENTIONS))}; it is {retention!r}")
    chosen = resolve(effects)
    return World(int(users), load_catalogue(), int(seed), int(days), chosen, retention, knobs(chosen))


def simulate(
    users: int = 2000,
    days: int = 180,
    seed: int = 0,
    effects: Mapping[str, float] | None = None,
    retention: str = "trial",
) -> Dataset:
    """Make a dataset of the simulated world; parameters and errors as in `make_world`."""
    return populate(make_world(users, days, seed, effects, retention))


def populate(world: World) -> Dataset:
    """Let the people of a world choose habits and live with them, and return what is logged."""
    adoptions, offers, existing = adopt(world)
    course = world.replay(adoptions.user, adoptions.habit, adoptions.start, adoptions.load)
    metadata = {"source": "simulated", "simulated": True, "simulation": parameters(world)}
    return Dataset(**make_tables(world, adoptions, offers, existing, course), metadata=metadata)


def world_of(dataset: Dataset) -> World:
    """Return the world that a simulated dataset comes from.

    Raises
    ------
    DatasetError
        The dataset is not a simulated one: its world is not known.
    """
    if "simulation" not in dataset.metadata:
        raise DatasetError("only simulated data have a known world; this dataset does not say how it was simulated")
    # Its own catalogue, as the built-in one may have grown since.
    return dataclasses.replace(make_world(**dataset.metadata["simulation"]), catalogue=dataset.habits)


def refuse_real_data(path: str | Path) -> None:
    """Raise `DatasetError` if anything but a simulated dataset or an empty folder is at `path`."""
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        why = "" if read_metadata(path).get("simulated") is True else "it does not say that it is simulated"
    except DatasetError as error:
        why = str(error)
    if why:
        raise DatasetError(
            f"{path} exists and is not a simulated HabitLab dataset ({why}); it is left as it is: "
            "name another place for the simulated data, or move it away first"
        )


def save(dataset: Dataset, path: str | Path) -> None:
    """Write a simulated dataset to `path` and its truth beside it, where `load_truth(path)` finds it.

    Raises
    ------
    DatasetError
        The dataset is not a simulated one, or something other than a simulated dataset is at `path`.
    """
    world = world_of(dataset)
    refuse_real_data(path)
    truth = make_truth(world)
    dataset.save(path)
    place = truth_path(path)
    with replacing(place) as temporary:
        truth.to_parquet(temporary, engine="pyarrow", index=False, compression="zstd")
