"""Deletion curves, and the overview's constants as negative control: requirement 5.1.a, claim C-5.1, pitfall D76."""

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset.catalogue import load_catalogue
from habitlab.explanations.faithfulness import (
    deletion_curves,
    exact_importances,
    random_importances,
    score_without,
)
from habitlab.explanations.importances import IMPORTANCES, constant_importances
from habitlab.recommender.blend import Blend, total
from tests.explanations.test_factors import USER, blend_inputs


@pytest.fixture(scope="module")
def parts() -> dict[str, np.ndarray]:
    return Blend().contributions(**blend_inputs(np.random.default_rng(3), users=40, habits=60))


@pytest.fixture(scope="module")
def curves(parts: dict[str, np.ndarray]) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    items = np.argsort(-total(parts), axis=1)[:, :5]
    holds = {part: (generator.random(parts["success"].shape) < 0.6) * IMPORTANCES[part] for part in IMPORTANCES}
    explainers = {
        "exact": exact_importances(parts),
        "constant": holds,
        "random": random_importances(parts, generator),
    }
    return deletion_curves(parts, items, explainers)


def mean_falls(curves: pd.DataFrame) -> pd.Series:
    return curves.groupby(["explainer", "deleted"])["fall"].mean()


def test_a_row_for_each_reason_taken_out_of_each_listed_habit(curves: pd.DataFrame) -> None:
    assert len(curves) == 40 * 5 * 3 * 4
    assert (curves.loc[curves["deleted"] == 0, "fall"] == 0).all()
    assert (curves.loc[curves["deleted"] == 0, "part"] == "").all()
    assert list(curves["place"].unique()) == [1, 2, 3, 4, 5]


def test_5_1_a_exact_reasons_let_the_score_fall_faster_than_constants_or_lots(curves: pd.DataFrame) -> None:
    falls = mean_falls(curves)
    for deleted in (1, 2, 3):
        assert falls["exact", deleted] > 2 * falls["constant", deleted]
        assert falls["exact", deleted] > 2 * falls["random", deleted]


def test_5_1_a_no_other_single_reason_counts_more_than_the_first(parts: dict, curves: pd.DataFrame) -> None:
    first = curves[(curves["explainer"] == "exact") & (curves["deleted"] == 1)]
    others = [score_without(parts, {p: np.ones_like(parts[p], dtype=bool)}) for p in parts]
    items = np.argsort(-total(parts), axis=1)[:, :5]
    start = np.take_along_axis(total(parts), items, axis=1)
    best = np.max([start - np.take_along_axis(other, items, axis=1) for other in others], axis=0)
    np.testing.assert_allclose(first["fall"].to_numpy(), best.ravel(), atol=1e-12)


def test_the_constants_name_the_same_first_reason_whatever_moved_the_habit(curves: pd.DataFrame) -> None:
    """That is what makes them a control: the reason has nothing to do with the score."""
    first = curves[(curves["explainer"] == "constant") & (curves["deleted"] == 1)]
    assert (first["part"].value_counts(normalize=True).reindex(["preference", "category"]).sum()) > 0.7


def test_an_empty_place_is_left_out(parts: dict) -> None:
    items = np.full((40, 2), -1)
    items[3, 0] = 7
    curves = deletion_curves(parts, items, {"exact": exact_importances(parts)})
    assert curves["user"].unique().tolist() == [3]


def test_c_5_1_the_overview_s_constants_where_its_conditions_hold() -> None:
    users = pd.DataFrame([USER, USER | {"time_commitment": 5.0, "age": None, "activity_preferences": None}])
    habits = load_catalogue().head(3).assign(minutes=[5.0, 20.0, 180.0], category=["health", "diet", "career"])
    found = constant_importances(users, habits, np.array([[0.71, 0.7, 0.9], [0.1, 0.2, 0.8]]))
    assert found["category"].tolist() == [[0.8, 0.8, 0.0]] * 2
    assert found["success"].tolist() == [[0.7, 0.0, 0.7], [0.0, 0.0, 0.7]]
    assert found["time"].tolist() == [[0.6, 0.6, 0.0], [0.6, 0.0, 0.0]]
    assert found["age"][1].tolist() == [0.0] * 3
    assert found["preference"][1].tolist() == [0.0] * 3
    assert max(IMPORTANCES.values()) == 0.85
