"""Requirement 9.2.d: who refused that research looks at their data is in no analysis."""

import pandas as pd
import pytest

import habitlab
from habitlab.dataset import Dataset
from habitlab.dataset.schema import TABLES
from habitlab.simulation import simulate

REFUSED, ALLOWED_AGAIN = "u0000003", "u0000007"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    data = simulate(users=12, days=40, seed=6)
    told = [
        (REFUSED, False, "2024-03-01T00:00:00Z"),
        (ALLOWED_AGAIN, False, "2024-03-01T00:00:00Z"),
        (ALLOWED_AGAIN, True, "2024-03-02T00:00:00Z"),
    ]
    said = pd.DataFrame(told, columns=["user_id", "granted", "at"]).assign(purpose="research")
    said["at"] = pd.to_datetime(said["at"])
    place = tmp_path_factory.mktemp("research") / "study.db"
    data.replace(consents=pd.concat([data.consents, said[data.consents.columns.intersection(said.columns)]])).save(
        place
    )
    return place


def test_9_2_d_no_row_of_theirs_is_in_an_analysis(path):
    found, whole = habitlab.open_dataset(path), Dataset.load(path)
    assert found.metadata["refused_research"] == 1
    for name in TABLES:
        frame, all_rows = found.table(name), whole.table(name)
        if "user_id" not in TABLES[name].columns:
            pd.testing.assert_frame_equal(frame, all_rows)
            continue
        assert not (frame["user_id"] == REFUSED).any()
        rest = all_rows[~all_rows["user_id"].isin([REFUSED])]
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), rest.reset_index(drop=True))
    assert ALLOWED_AGAIN in set(found.users["user_id"])


def test_9_2_d_what_they_use_serves_them_as_anybody(path):
    everybody = habitlab.open_dataset(path, everybody=True)
    assert "refused_research" not in everybody.metadata
    assert REFUSED in set(everybody.users["user_id"])
    assert habitlab.recommend(path, REFUSED, 2).user_id == REFUSED


def test_9_2_d_where_nobody_refused_nothing_changes():
    data = habitlab.open_dataset()
    assert "refused_research" not in data.metadata
    assert len(data.users) == 200
