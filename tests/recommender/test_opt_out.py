"""Requirement 9.2.d, opt-out of personalisation: it holds wherever a list is asked for, as in the service."""

import pandas as pd
import pytest
from typer.testing import CliRunner

import habitlab
from habitlab.cli import app
from habitlab.dataset import Dataset
from habitlab.recommender.people import opted_out
from habitlab.recommender.recommend import Recommender
from habitlab.simulation import simulate

REFUSED, CHANGED_MIND, USUAL = "u0000001", "u0000002", "u0000003"
AT = "2025-06-01T07:30"


@pytest.fixture(scope="module")
def data() -> Dataset:
    world = simulate(users=40, days=40, seed=6)
    told = [(REFUSED, 1, False), (CHANGED_MIND, 1, False), (CHANGED_MIND, 2, True)]
    rows = [(user, "personalisation", granted, f"2025-01-0{day}T00:00Z") for user, day, granted in told]
    return world.replace(consents=pd.DataFrame(rows, columns=["user_id", "purpose", "granted", "at"]))


@pytest.fixture(scope="module")
def recommender(data: Dataset) -> Recommender:
    return Recommender().fit(data)


def habits(found) -> list[str]:
    return [item.habit_id for item in found.items]


def test_9_2_d_the_last_word_counts(data: Dataset, recommender: Recommender) -> None:
    assert opted_out(data) == {REFUSED}
    assert recommender.people_.ids[recommender.people_.opted_out].tolist() == [REFUSED]


def test_9_2_d_who_opted_out_gets_the_list_of_anybody_and_is_told(data: Dataset, recommender: Recommender) -> None:
    found = recommender.recommend_as_allowed(REFUSED, 5, AT)
    assert found.user_id == REFUSED
    assert habits(found) == habits(recommender.recommend({}, 5, AT))
    assert found.person == {}
    assert [note.key for note in found.notes if note.key in ("opted_out", "impersonal")] == ["opted_out"]
    for user in (CHANGED_MIND, USUAL):
        assert recommender.recommend_as_allowed(user, 5, AT) == recommender.recommend(user, 5, AT)


def test_9_2_d_somebody_new_can_refuse_as_well(recommender: Recommender) -> None:
    told = {"improvement_areas": ["diet"], "consents": {"personalisation": False}}
    assert habits(recommender.recommend_as_allowed(told, 5, AT)) == habits(recommender.recommend({}, 5, AT))
    with pytest.raises(ValueError, match="unknown answer"):
        recommender.recommend_as_allowed(told | {"shoe_size": 43}, 5, AT)


def test_9_2_d_a_saved_recommender_remembers_who_opted_out(tmp_path, recommender: Recommender) -> None:
    recommender.save(tmp_path / "recommender.model")
    kept = Recommender.load(tmp_path / "recommender.model")
    assert kept.recommend_as_allowed(REFUSED, 5, AT) == recommender.recommend_as_allowed(REFUSED, 5, AT)


def test_9_2_d_the_command_and_the_function_honour_it(tmp_path, monkeypatch, data: Dataset) -> None:
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    data.save(tmp_path / "study.db")
    run = CliRunner().invoke(app, ["recommend", REFUSED, "--data", str(tmp_path / "study.db"), "--at", AT])
    assert "You asked for no personal list" in run.output
    found = habitlab.recommend(tmp_path / "study.db", REFUSED, 5, AT, "ru")
    assert found.warnings[0].startswith("Вы отказались")
    assert found.items[0].name in habitlab.recommend(tmp_path / "study.db", {}, 5, AT, "ru").items[0].name
