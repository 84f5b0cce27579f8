"""Are the reasons given those that count? Take a stated reason out of the score and see how far it falls.

A part is taken out by giving the habit the part of an average one; the rest of the score is computed again. Where the
first reasons are the weightiest, the score falls fastest (deletion curves: Petsiuk et al. 2018, arXiv:1806.07421;
comprehensiveness: DeYoung et al. 2020, doi:10.18653/v1/2020.acl-main.408).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.explanations.factors import MOST, effects, neutral_parts

Floats = npt.NDArray[np.float64]


def score_without(contributions: Mapping[str, Floats], removed: Mapping[str, npt.NDArray[np.bool_]]) -> Floats:
    """Return the scores (users, habits) when the `removed` parts of each are those of an average habit.

    `age`, which the blend takes as a share of all other parts, is taken as the same share of what is left of them;
    removed, it takes nothing.
    """
    average = neutral_parts(contributions)
    rest = sum(part for name, part in contributions.items() if name != "age")
    left = sum(
        np.where(removed[name], average[name], part) if name in removed else part
        for name, part in contributions.items()
        if name != "age"
    )
    age = contributions.get("age", np.zeros_like(rest))
    share = np.divide(age, rest, out=np.zeros_like(rest), where=rest > 0)
    return left * (1 + np.where(removed["age"], 0.0, share) if "age" in removed else 1 + share)


def deletion_curves(
    contributions: Mapping[str, Floats],
    items: npt.NDArray[np.integer],
    explainers: Mapping[str, Mapping[str, Floats]],
    *,
    most: int = MOST,
) -> pd.DataFrame:
    """Return how far the score of each listed habit falls as its stated reasons are taken out, one after the other.

    Parameters
    ----------
    contributions
        Part -> (users, habits); their sum is the score.
    items
        (users, k) habits of each list, -1 for none.
    explainers
        Name -> part -> importance (users, habits); what is not above 0 is not stated. `exact_importances` and
        `importances.constant_importances` make them.

    Returns
    -------
    DataFrame
        A row for each user (row number), place from 1, explainer and count of reasons taken out, 0 to `most`; `fall`
        is score before minus score after, in units of the score, and `part` is the reason just taken out, or "".
    """
    parts = sorted(contributions)
    user, place = np.nonzero(items >= 0)
    habit = items[user, place]
    start = score_without(contributions, {})[user, habit]
    frames = []
    for name, importances in explainers.items():
        order = _order(importances, parts, user, habit)[:, :most]
        removed = {part: np.zeros(contributions[part].shape, dtype=bool) for part in parts}
        for deleted in range(most + 1):
            stated = order[:, deleted - 1] if deleted else np.full(len(user), -1)
            for number, part in enumerate(parts):
                here = stated == number
                # each (user, habit) stands once in `items`, so a mask of the full shape holds every list
                removed[part][user[here], habit[here]] = True
            frames.append(
                pd.DataFrame(
                    {
                        "user": user,
                        "place": place + 1,
                        "explainer": name,
                        "deleted": deleted,
                        "part": np.array([*parts, ""], dtype=object)[stated],
                        "fall": start - score_without(contributions, removed)[user, habit],
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def exact_importances(contributions: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return what HabitLab's own reasons go by: the effects that speak for a habit."""
    return {part: np.maximum(effect, 0.0) for part, effect in effects(contributions).items()}


def random_importances(contributions: Mapping[str, Floats], generator: np.random.Generator) -> dict[str, Floats]:
    """Return reasons by lot, the floor under every explainer."""
    return {part: generator.random(contributions[part].shape) for part in sorted(contributions)}


def _order(
    importances: Mapping[str, Floats], parts: list[str], user: npt.NDArray[np.intp], habit: npt.NDArray[np.integer]
) -> npt.NDArray[np.intp]:
    """Numbers of the stated parts of each item (n, parts), the weightiest first; -1 where no more are stated."""
    weight = np.zeros((len(user), len(parts)))
    for number, part in enumerate(parts):
        if part in importances:
            weight[:, number] = importances[part][user, habit]
    order = np.argsort(-weight, axis=1, kind="stable")
    return np.where(np.take_along_axis(weight, order, axis=1) > 0, order, -1)
