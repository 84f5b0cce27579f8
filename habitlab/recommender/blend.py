"""From the scores of several models to one score that is the exact sum of named contributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MODELS = ("content", "similar_people", "success", "preference")
"""What is blended; their weights lie on the simplex."""


@dataclass(frozen=True)
class Blend:
    """How much each model says, as a continuous function of the evidence about a person.

    `content`, `similar_people`, `success` and `preference` are the weights without any evidence and add up to 1. With
    `evidence` e (habits acted on, >= 0) the share e / (e + `half`) of `to_similar_people` and of `to_success` has moved
    there from content: nothing jumps, content only falls, the other two only rise, preference stays. `age` is the share
    of a score that a habit loses which suits the person's age not at all, without being unsafe for it.

    The defaults were chosen on simulated populations other than the built-in one (seeds 11-13). Similar people alone
    find best what is adopted next, success alone what is kept. With these weights lists find later adoptions better
    than popularity, of people with history (NDCG@10) and of newcomers (NDCG@5), and what they find is kept more often
    than what the overview's rule finds. With 0.05 more weight on similar people instead of success newcomers' lists get
    better at the first, and the second is lost.

    Raises
    ------
    ValueError
        A weight is negative, the four do not add up to 1, or more moves than content has.
    """

    content: float = 0.27
    similar_people: float = 0.27
    success: float = 0.41
    preference: float = 0.05
    to_similar_people: float = 0.04
    to_success: float = 0.23
    half: float = 2.0
    age: float = 0.5

    def __post_init__(self) -> None:
        """Check that the weights are weights."""
        given = {name: getattr(self, name) for name in MODELS}
        if not all(np.isfinite(w) and w >= 0 for w in given.values()):
            raise ValueError(f"weights of a blend are numbers, 0 or more; got {given}")
        if not isclose(sum(given.values()), 1.0, abs_tol=1e-9):
            raise ValueError(f"weights of a blend add up to 1; {given} add up to {sum(given.values()):g}")
        moving = self.to_similar_people, self.to_success
        if not (min(moving) >= 0 and sum(moving) <= self.content + 1e-12):
            raise ValueError(f"what moves is 0 or more each, and {self.content:g}, the content, in all; got {moving}")
        if not (self.half > 0 and 0 <= self.age <= 1):
            raise ValueError(f"half is above 0 and age between 0 and 1; got {self.half:g} and {self.age:g}")

    def weights(self, evidence: npt.ArrayLike) -> dict[str, Floats]:
        """Weight of each model for people with this much evidence, in the shape of `evidence`; they add up to 1."""
        amount = np.asarray(evidence, dtype=np.float64)
        if not (amount >= 0).all():
            raise ValueError("evidence is a number of habits, 0 or more")
        moved = amount / (amount + self.half)
        similar_people, success = self.to_similar_people * moved, self.to_success * moved
        return {
            "content": np.maximum(self.content - similar_people - success, 0.0),
            "similar_people": self.similar_people + similar_people,
            "success": self.success + success,
            "preference": np.full_like(moved, self.preference),
        }

    def contributions(
        self,
        similarities: Mapping[str, Floats],
        block_weights: Mapping[str, float],
        *,
        similar_people: Floats,
        success: Floats,
        preference: Floats,
        misfit: Floats,
        evidence: npt.ArrayLike,
    ) -> dict[str, Floats]:
        """Parts of each score (users, habits); their sum is the score, in [0, 1].

        `similarities` and `block_weights` are those of the content model, a name for each block; the other parts are
        scores in [0, 1] of the same shape, `misfit` from 0 (right for the age) to 1, `evidence` (users,). The part
        `age` is never above 0 and the only one that depends on age.
        """
        weights = {name: weight[:, None] for name, weight in self.weights(evidence).items()}
        parts = {
            name: weights["content"] * block_weights[name] * similarity
            for name, similarity in similarities.items()
            if block_weights[name] > 0
        }
        parts["preference"] = weights["preference"] * preference
        parts["similar_people"] = weights["similar_people"] * similar_people
        parts["success"] = weights["success"] * success
        parts["age"] = 0.0 - self.age * misfit * sum(parts.values())
        return parts


BESIDE_CONTENT = ("preference", "similar_people", "success", "age")
"""Names of the parts of a score that follow those of the content model."""


def total(contributions: Mapping[str, Floats]) -> Floats:
    """Sum of the contributions in the order of their names, always the same to the last bit."""
    return np.clip(sum(contributions[name] for name in sorted(contributions)), 0.0, 1.0)


def overlap(liked: npt.NDArray[np.bool_], activities: npt.NDArray[np.bool_]) -> Floats:
    """Share of each habit's activities that each person likes (users, habits), in [0, 1].

    `liked` (users, activities), `activities` (habits, activities). Liking one activity more never lowers a share.
    A person who named none, and a habit without any, have 0: a preference is only ever added.
    """
    count = activities.sum(axis=1)
    shared = liked.astype(np.float64) @ activities.T.astype(np.float64)
    return np.divide(shared, count, out=np.zeros_like(shared), where=count > 0)
