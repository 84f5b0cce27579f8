"""Requirement 9.2.a and issue 5: no table of a report tells of a small group of people.

Held against frames that reports show by group, on a population with groups of all sizes. What a report publishes as CSV
is such a frame; a group counts as told of where any number stands in its row.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset, quality, small_groups
from habitlab.evaluation import behaviour, explained, fairness, model_tables
from habitlab.evaluation.fairness import fairness_report, fairness_tables
from habitlab.models.reliability import Evaluation
from habitlab.simulation import simulate

FEWEST = small_groups.FEWEST


@pytest.fixture(scope="module")
def people() -> Dataset:
    """Two people of gender `other`, six who do not tell it, three whose age is unknown."""
    world = simulate(users=120, days=30, seed=3)
    gender = np.array(["female"] * 62 + ["male"] * 50 + ["other"] * 2 + ["prefer not to say"] * 6, dtype=object)
    age = world.users["age"].astype("Int64").fillna(30).mask(np.arange(120) < 3)
    return world.replace(users=world.users.assign(gender=gender, age=age))


@pytest.fixture(scope="module")
def sizes(people: Dataset) -> dict[str, int]:
    found = fairness.people(people)
    return {group: int(n) for name in ("gender", "age_band") for group, n in found[name].value_counts().items()}


def told_of(table: pd.DataFrame) -> set[str]:
    """Groups of whose people any number is shown."""
    numbers = table.select_dtypes("number")
    return set(table.loc[numbers.notna().any(axis=1), "group"])


def few(sizes: dict[str, int]) -> set[str]:
    found = {group for group, n in sizes.items() if n < FEWEST}
    assert {"other", "prefer not to say"} <= found
    return found


@pytest.fixture(scope="module")
def audits(people: Dataset) -> dict[str, fairness.Audit]:
    values = pd.DataFrame({"ndcg": np.random.default_rng(0).random(120)}, index=people.users["user_id"])
    return fairness_report.audits(people, values, min_n=FEWEST, level=0.95, permutations=99, seed=0)


def test_report_08_tells_of_no_small_group(audits: dict[str, fairness.Audit], sizes: dict[str, int]) -> None:
    table = fairness_tables.forest(audits, ["ndcg"], ["gender", "age_band"])
    assert told_of(table)
    assert not told_of(table) & few(sizes)
    cells = fairness_tables.side_by_side(audits, ["gender", "age_band"]).set_index("group")["NDCG@10"]
    assert {cells[group] for group in few(sizes) if group in cells} == {"withheld"}


def test_report_08_cannot_be_asked_for_smaller_groups(people: Dataset) -> None:
    with pytest.raises(ValueError, match="groups of fewer than 10 people are never shown"):
        fairness_report.audits(people, pd.DataFrame(), min_n=9, level=0.95, permutations=99, seed=0)


def test_report_04_tells_of_no_small_group(sizes: dict[str, int]) -> None:
    rows = [("gender", group, 300 * n, n, 0.5, 0.5) for group, n in sizes.items() if group in GENDERS]
    names = ["dimension", "group", "n", "users", "predicted", "observed"]
    groups = pd.DataFrame(rows, columns=names).assign(ece=0.1, slope=1.0, slope_low=0.9, slope_high=1.1)
    empty = pd.DataFrame()
    evaluation = replace(Evaluation(*[empty] * len(Evaluation.__dataclass_fields__)), groups=groups)
    table = model_tables.calibration_by_group(evaluation)
    assert told_of(table) == {"female"}  # two and six are few together, so that the next smallest is hidden with them
    assert model_tables.groups_to_judge(evaluation)["label"].tolist() == ["gender: female"]


GENDERS = ("female", "male", "other", "prefer not to say")


def test_report_01_does_not_tell_what_the_few_did_who_told_no_age(people: Dataset) -> None:
    table = quality.missingness(people).set_index(["table", "column"])
    row = table.loc[("users", "age")]
    assert row["missing"] == 3
    assert row[["rate_missing", "rate_filled", "difference"]].isna().all()


def test_report_07_does_not_tell_what_became_of_the_few_who_were_told_a_chance() -> None:
    chance = np.r_[np.full(40, 0.2), np.full(9, 0.8)]
    predicted = pd.DataFrame(
        {"user_id": [f"u{n}" for n in range(49)], "success": np.arange(49) % 3 == 0, "chance": chance, "truth": chance}
    )
    table = explained.wording(predicted, level=0.95, resamples=50, seed=0).set_index("words")
    assert table.loc["about 2 in 10"].notna().all()
    assert table.loc["about 8 in 10"].drop("Russian").isna().all()


def test_report_02_does_not_tell_of_the_few_who_succeeded(people: Dataset) -> None:
    world = simulate(users=60, days=90, seed=3)
    table = behaviour.difficulty_progression(world, resamples=50).set_index(["users_are", "adoption"])
    few = table["users"].isna()
    assert few[("successful", "later")]  # seven of them
    assert table.loc[few, ["estimate", "ci_low", "ci_high", "pairs"]].isna().all(axis=None)
    assert set(table.loc[few, "reason"]) == {"withheld: few people"}
    assert table.loc[~few, ["estimate", "users"]].notna().all(axis=None)


def test_one_person_alone_is_no_group_and_may_be_shown() -> None:
    alone = Dataset(users=pd.DataFrame({"user_id": ["me"]}))
    small_groups.may_show_one(alone)
