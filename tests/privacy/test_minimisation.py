"""Requirement 9.2.c: each stored field has a purpose and, if models learn from it, an ablation; unused ones fail."""

import dataclasses
from importlib.resources import files

import numpy as np
import pytest

from habitlab.dataset.schema import TABLES, Column
from habitlab.models.pairs import NAMES
from habitlab.privacy import minimisation
from habitlab.privacy.minimisation import BY_ANSWERS, FOLLOWS, Purpose, problems, purposes
from habitlab.simulation import simulate


def test_9_2_c_every_stored_column_has_a_purpose_and_a_use():
    assert problems() == []


def with_column(name: str) -> dict:
    users = TABLES["users"]
    return TABLES | {"users": dataclasses.replace(users, columns=users.columns | {name: Column("text", "new")})}


def test_9_2_c_a_new_column_without_a_purpose_is_caught():
    assert problems(with_column("shoe_size")) == [
        "users.shoe_size: stored without a purpose; state one in purposes.toml"
    ]


def test_9_2_c_a_purpose_alone_is_no_use():
    stated = purposes() | {"users.shoe_size": Purpose("analysis", "nice to have", ("models/pairs.py",))}
    assert problems(with_column("shoe_size"), stated) == ["users.shoe_size: unused: models/pairs.py does not name it"]


def test_9_2_c_to_speak_of_a_column_is_not_to_use_it():
    stated = purposes() | {"users.liking": Purpose("analysis", "nice to have", ("models/content.py",))}
    text = files("habitlab").joinpath("models/content.py").read_text("utf-8")
    assert "liking" in text  # in a comment or docstring
    assert problems(with_column("liking"), stated) == ["users.liking: unused: models/content.py does not name it"]


def test_9_2_c_a_model_input_without_ablation_is_caught():
    stated = purposes() | {"users.gender": Purpose("model", "why not", ("evaluation/fairness/__init__.py",))}
    assert problems(TABLES, stated) == ["users.gender: a model input without an ablation"]


def test_9_2_c_a_purpose_of_nothing_is_caught():
    stated = purposes() | {"users.shoe_size": Purpose("analysis", "gone", ("models/pairs.py",))}
    assert problems(TABLES, stated) == ["users.shoe_size: a purpose for a column that is not stored"]


def test_9_2_c_sensitive_answers_are_no_model_inputs_of_the_chance():
    assert purposes()["users.gender"].kind == "audit"
    assert purposes()["users.age"].kind == "filter"
    assert {"users.gender", "users.age", "users.barriers"}.isdisjoint(FOLLOWS)


def test_9_2_c_the_chance_loses_what_is_known_to_matter():
    """Planted twice over: what decides alone is needed, what is noise is not."""
    dataset = simulate(users=250, days=90, seed=8)
    pairs = minimisation.label_pairs(dataset)
    generator = np.random.default_rng(0)
    columns = pairs.columns.copy()
    columns[NAMES.index("goal_set")] = pairs.success ^ (generator.random(len(pairs)) < 0.1)
    columns[NAMES.index("time_match")] = generator.random(len(pairs))
    planted = dataclasses.replace(pairs, columns=columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minimisation, "label_pairs", lambda dataset: planted)
        table = minimisation.ablate_chance(dataset, resamples=200).set_index("column")
    assert set(table.index) == set(FOLLOWS)
    assert table.loc["users.goal_set", "ci_low"] > 0.1
    assert table["loss"].idxmax() == "users.goal_set"
    assert table.loc["habits.time_of_day", "ci_low"] < 0.005


def test_9_2_c_lists_lose_answers():
    dataset = simulate(users=160, days=80, seed=8)
    lists = minimisation.ablate_lists(dataset, users=120, resamples=200)
    assert set(BY_ANSWERS) <= set(lists["column"])
    assert lists["n"].max() <= 24  # a fifth of the people drawn
    table = minimisation.table(lists, minimisation.ablate_chance(dataset, resamples=200))
    assert set(table["verdict"]) <= {"needed", "no loss to be told", "better without"}
    assert np.isfinite(table[["lists", "chance"]]).any(axis=1).all()  # every model input is measured
    counts = {item["key"]: item["estimate"] for item in minimisation.found(table)}
    assert counts["minimal_needed"] + counts["minimal_idle"] == counts["minimal_inputs"] == len(table)
    assert counts["minimal_columns"] == sum(len(spec.columns) for spec in TABLES.values())


def test_9_2_c_too_few_adoptions_are_said():
    with pytest.raises(ValueError, match="needs adoptions that can be judged"):
        minimisation.ablate_chance(simulate(users=20, days=60, seed=1))
