"""HabitLab: a research workbench for habit data, with reproducible reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from habitlab.dataset import Dataset
    from habitlab.recommender.recommendations import Recommendations

__version__ = "0.1.0"

SAMPLE = "sample"


def open_dataset(source: str | Path = SAMPLE, *, everybody: bool = False) -> Dataset:
    """Open a dataset by its path, or the word `sample`: a small simulated population, made in memory in a moment.

    Who refused that research looks at their data (consent `research`, in the data or told to the service beside them)
    is left out with all that is called after them; the metadata say how many as `refused_research`. `everybody` keeps
    them, for a service that they use.

    Raises
    ------
    FileNotFoundError, DatasetError
        Nothing is at the path, or no dataset.
    sqlite3.Error
        The database of the service cannot be read, so that nobody knows who refused.
    """
    if source == SAMPLE:
        from habitlab.simulation import simulate

        return simulate(users=200, days=150, seed=0)
    from habitlab.dataset import Dataset
    from habitlab.dataset.erasure import erase
    from habitlab.dataset.small_groups import FEWEST
    from habitlab.dataset.vocabulary import Purpose
    from habitlab.models.interactions import refused

    dataset = Dataset.load(source)
    if everybody or not (gone := refused(_said(dataset, Path(source)), Purpose.RESEARCH)):
        return dataset
    gone &= set(dataset.users["user_id"])  # the service knows more people
    if not gone:
        return dataset
    count = str(len(gone)) if len(gone) >= FEWEST else f"fewer than {FEWEST}"
    left = erase(dataset, gone)
    return left.replace(metadata=left.metadata | {"refused_research": count})


def _said(dataset: Dataset, source: Path) -> Dataset:
    """Return users and consents, with what was told to the service beside the data about research."""
    from habitlab.dataset import Dataset
    from habitlab.refusals import told_to_service

    told = told_to_service(source)
    if not told:
        return dataset
    import pandas as pd

    rows = pd.DataFrame(told, columns=["user_id", "at", "granted"]).assign(purpose="research")
    rows["at"] = pd.to_datetime(rows["at"], utc=True)
    # Of these two tables alone: the dtypes of whatever stands in a dataset are looked at.
    return Dataset(users=dataset.users, consents=pd.concat([dataset.consents.astype(object), rows.astype(object)]))


def open_truth(source: str | Path) -> dict[str, float]:
    """Return the true causal effects behind claims, by the claim's key; empty where nobody knows them (real data).

    A truth that lies beside a dataset but was made for another one is not told.
    """
    from habitlab.dataset.dataset import read_metadata
    from habitlab.simulation import load_truth, world_of
    from habitlab.simulation.adoption import adopt
    from habitlab.simulation.truth import average_effects

    if source == SAMPLE:
        world = world_of(open_dataset())
        effects = average_effects(world, adopt(world)[0])
    else:
        try:
            truth, simulation = load_truth(source).attrs, read_metadata(source).get("simulation")
        except FileNotFoundError:
            return {}
        effects = truth["average_effects"] if simulation is not None and truth.get("simulation") == simulation else {}
    return {key: value for key, value in effects.items() if not key.endswith("_standardised")}


def recommend(
    dataset: Dataset | str | Path,
    user: str | Path | Mapping[str, Any] | Any,
    k: int = 5,
    at: datetime | str | None = None,
    lang: str = "en",
    *,
    tomorrow: bool = False,
) -> Recommendations:
    """Recommend k habits to a user of a dataset, or to somebody new, with reasons in a language (`en`, `ru`).

    `dataset`: a dataset, its path, or the word `sample`. `user`: an id, or the answers of a new person (a registration
    record, the `Path` of its JSON file, or a mapping of columns of the table `users`). `at`: moment of viewing on the
    person's own clock. The recommender is fitted once for a dataset and kept; see
    `habitlab.recommender.recommend.Recommender` for what is raised and returned.
    """
    from habitlab.explanations.reasons import explain_list
    from habitlab.recommender.fitted import fitted

    if isinstance(user, Path):
        from habitlab.dataset.registration import Registration

        user = Registration.from_json(user)
    recommender = fitted(open_dataset() if isinstance(dataset, str) and dataset == SAMPLE else dataset)
    return explain_list(recommender.recommend_as_allowed(user, k, at, lang, tomorrow=tomorrow), lang)
