"""The model that is live, and people who are deleted, while a service runs."""

import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from habitlab.recommender.recommend import Recommender
from habitlab.serving import state
from habitlab.serving.base import load
from habitlab.serving.learning import registry
from habitlab.serving.live import find, newer

AT = "2024-05-06T07:30"
USER = "u0000002"
LIST = f"/v1/recommend?user_id={USER}&at={AT}"


@pytest.fixture(scope="module")
def challenger(world: Path) -> Recommender:
    """Another model of the same data."""
    from habitlab.recommender.blend import Blend

    return Recommender(Blend(content=0.3, similar_people=0.24), exploration=0.2).fit(load(world))


def promote(folder: Path, model: Recommender, world: Path) -> str:
    lineage = registry.lineage_of(load(world), model, fitted_at=datetime(2024, 5, 6, tzinfo=UTC))
    name = registry.register(folder, model, lineage)
    registry.promote(folder, name)
    return name


def test_8_1_e_what_is_put_live_is_served_without_a_restart_and_taken_back(app, folder, world, recommender, challenger):
    client, service = app.test_client(), app.extensions["habitlab"]
    old = client.get(LIST).get_json()
    assert not service.renew()
    promote(folder, recommender, world)
    promote(folder, challenger, world)
    assert service.renew()
    new = client.get(LIST).get_json()
    assert new["served_from"] == "computed"
    assert (old["model_version"], new["model_version"]) == (recommender.version_, challenger.version_)
    registry.rollback(folder)
    assert service.renew()
    assert client.get(LIST).get_json()["model_version"] == recommender.version_
    assert client.get("/readyz").get_json()["checks"]["model"] == recommender.version_


def test_8_1_e_a_damaged_version_is_never_served(app, make, folder, world, recommender, challenger, caplog):
    client, service = app.test_client(), app.extensions["habitlab"]
    name = promote(folder, challenger, world)
    file = folder / "registry" / name / "recommender.model"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert not service.renew()
    assert client.get(LIST).get_json()["model_version"] == recommender.version_
    assert not service.renew()
    assert newer(folder, service.live, lambda: time.monotonic() + 100) is None
    assert caplog.text.count("the old one stays") == 1  # it looks again and again, and tells once
    file.write_bytes(whole)
    assert not service.renew()
    assert newer(folder, service.live, lambda: time.monotonic() + 300).recommender.version_ == challenger.version_
    file.write_bytes(whole[:-100])
    assert find(world, folder).recommender.version_ == recommender.version_  # a new start does as well


def test_8_1_e_a_model_that_learnt_the_events_does_not_count_them_again(make, folder, world, recommender):
    app = make(background=False)
    client = app.test_client()
    told = [
        {
            "event_id": f"e{day}",
            "user_id": USER,
            "kind": "completion",
            "habit_id": "h001",
            "date": f"2023-03-{day:02}",
            "happened_at": "2024-05-06T07:00:00Z",
        }
        for day in range(1, 29)
    ]
    before = client.get(f"{LIST}&k=100").get_json()["items"][0]["success_probability"]
    client.post("/v1/events", json=told)
    assert client.get(f"{LIST}&k=100").get_json()["items"][0]["success_probability"] != before
    lineage = registry.lineage_of(load(world), recommender, fitted_at=datetime(2024, 5, 6, tzinfo=UTC), learnt=28)
    registry.promote(folder, registry.register(folder, recommender, lineage))
    again = find(world, folder)
    assert again.learnt == 28
    app.extensions["habitlab"].live = again
    app.extensions["habitlab"].answers.live = again
    app.extensions["habitlab"].levels.memory.clear()
    app.extensions["habitlab"].levels.database.store.clear()
    found = client.get(f"{LIST}&k=100").get_json()["items"][0]
    assert found["success_probability"] == before


def forget(folder: Path) -> None:
    """What `habitlab user forget` does to the service's database."""
    with closing(state.connect(folder)) as connection, state.transaction(connection):
        for table in ("events", "profiles", "features", "lists", "exposures"):
            connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (USER,))
        state.next_generation(connection)


def test_9_2_d_who_is_deleted_in_the_database_is_gone_from_a_running_service(app, folder):
    client, service = app.test_client(), app.extensions["habitlab"]
    event = {
        "event_id": "e1",
        "user_id": USER,
        "kind": "adoption",
        "habit_id": "h001",
        "happened_at": "2024-05-06T07:00:00Z",
    }
    assert client.post("/v1/events", json=event).status_code == 201
    assert client.get(LIST).status_code == 200
    forget(folder)
    assert client.post("/v1/events", json=event | {"event_id": "e2"}).status_code == 404
    service.exposures.flush()  # what was shown before is not written any more
    service.directory.follow()
    assert client.get(LIST).status_code == 404
    assert len(service.levels.memory) == 0
    with closing(state.connect(folder)) as connection:
        for table in ("events", "profiles", "features", "lists", "exposures"):
            query = f"SELECT count(*) FROM {table} WHERE user_id = ?"
            assert connection.execute(query, (USER,)).fetchone() == (0,), table
    assert client.get(f"/v1/recommend?user_id=u0000003&at={AT}").status_code == 200


@pytest.mark.parametrize("redis_too", [False, True])
def test_9_2_d_a_list_made_while_somebody_is_deleted_is_kept_nowhere(make, folder, request, monkeypatch, redis_too):
    url = request.getfixturevalue("redis").url if redis_too else None
    app = make(background=False, redis=url)
    client, service = app.test_client(), app.extensions["habitlab"]
    client.post("/v1/events", json={"event_id": "e", "user_id": USER, "kind": "adoption", "habit_id": "h001",
                                    "happened_at": "2024-05-06T07:00:00Z"})  # fmt: skip
    answers = type(service.answers).draw

    def delete_meanwhile(self, *arguments):
        made = answers(self, *arguments)
        with closing(state.connect(folder)) as connection, state.transaction(connection):
            for table in ("events", "profiles", "features", "lists"):
                connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (USER,))
            state.next_generation(connection)
        return made

    monkeypatch.setattr(type(service.answers), "draw", delete_meanwhile)
    assert client.get(LIST).status_code == 404
    with closing(state.connect(folder)) as connection:
        assert connection.execute("SELECT count(*) FROM lists WHERE user_id = ?", (USER,)).fetchone() == (0,)
    assert len(service.levels.memory) == 0
    assert service.features.get(USER, 1) is None
    if redis_too:
        assert service.levels.redis.store.forget(USER) == 0


def test_changed_data_are_read_again_with_the_events_that_came_meanwhile(
    app, make, folder, world, tmp_path, recommender
):
    import shutil

    from habitlab.dataset import Dataset
    from habitlab.serving.base import prepare

    event = {"event_id": "e1", "user_id": USER, "kind": "completion", "habit_id": "h001", "date": "2023-03-01"}
    app.test_client().post("/v1/events", json=event | {"happened_at": "2024-05-06T07:00:00Z"})
    more = Dataset.load(shutil.copy(world, tmp_path / "more.db"))
    done = more.habit_tracking.iloc[:1].assign(user_id=USER, habit_id="h001", date="2023-03-02", status="done")
    import pandas as pd

    more.replace(habit_tracking=pd.concat([more.habit_tracking, done])).save(tmp_path / "more.db")
    with closing(state.connect(folder)) as connection:
        before = json.loads(connection.execute("SELECT body FROM features WHERE user_id = ?", (USER,)).fetchone()[0])
        prepare(connection, tmp_path / "more.db", datetime(2024, 5, 7, tzinfo=UTC))
        after = json.loads(connection.execute("SELECT body FROM features WHERE user_id = ?", (USER,)).fetchone()[0])
    assert after["habits"]["h001"]["done"] == before["habits"]["h001"]["done"] + 1


def test_7_1_b_the_sample_is_known_by_its_word_also_as_a_path():
    assert len(load(Path("sample")).users) == len(load("sample").users) == 200
