"""The catalogue of features is what the code gives, and its sources are what the code reads."""

import numpy as np
import pandas as pd
import pytest

from habitlab import __version__
from habitlab.dataset.schema import TABLES
from habitlab.features.behavioural import pair_history, user_features
from habitlab.features.feature_catalogue import feature_catalogue
from habitlab.features.temporal import history, summary
from habitlab.simulation import simulate

UNTIL = "2024-03-01"


@pytest.fixture(scope="module")
def dataset():
    return simulate(users=40, days=70, seed=4)


def moments(dataset):
    adopted = dataset.adoptions.iloc[::3].reset_index(drop=True)
    day = np.minimum(
        adopted["adopted_at"].dt.tz_localize(None).dt.floor("D") + pd.Timedelta(days=20), pd.Timestamp(UNTIL)
    )
    return adopted[["user_id", "habit_id"]].assign(day=day)


FUNCTIONS = {
    "user_features": lambda data: user_features(data, UNTIL),
    "pair_history": lambda data: pair_history(data, moments(data), UNTIL),
    "history": lambda data: history(data.habit_tracking, data.habits),
    "summary": lambda data: summary(data.habit_tracking, data.habits).drop(columns=["user_id", "habit_id"]),
}


def test_every_feature_is_listed_and_every_listed_feature_exists(dataset):
    listed = feature_catalogue()
    assert set(listed["function"]) == set(FUNCTIONS)
    for function, features in FUNCTIONS.items():
        names = listed.loc[listed["function"] == function, "name"]
        assert names.tolist() == list(features(dataset)), function


def test_entries_are_complete():
    listed = feature_catalogue()
    assert list(listed) == ["function", "name", "meaning", "unit", "source_columns", "since"]
    assert listed[["name", "meaning", "unit"]].map(lambda text: bool(text.strip())).all(axis=None)
    assert not listed.duplicated(["function", "name"]).any()
    version = [int(part) for part in __version__.split(".")]
    assert all([int(part) for part in since.split(".")] <= version for since in listed["since"])


def test_every_source_is_a_column_of_the_contract():
    for source in feature_catalogue()["source_columns"].explode().unique():
        table, column = source.split(".")
        assert column in TABLES[table].columns, source


@pytest.mark.long
@pytest.mark.parametrize("function", ["user_features", "pair_history"])
def test_a_feature_changes_without_a_column_exactly_when_that_is_a_source(dataset, function):
    """Each column of the contract that may be absent is taken away in turn."""
    listed = feature_catalogue().query("function == @function").set_index("name")["source_columns"]
    whole = FUNCTIONS[function](dataset)
    wrong = []
    for table, contract in TABLES.items():
        for column, spec in contract.columns.items():
            if spec.required or column in contract.key or column not in dataset.table(table):
                continue
            without = dataset.replace(**{table: dataset.table(table).drop(columns=column)})
            features = FUNCTIONS[function](without)
            changed = {name for name in whole if not np.allclose(whole[name], features[name], equal_nan=True)}
            named = {name for name, sources in listed.items() if f"{table}.{column}" in sources}
            # Without these few events move to another day, if any: not every feature need notice.
            unnoticed = set() if column in ("zone", "day_start", "responded_at") else named - changed
            wrong += [(f"{table}.{column}", name) for name in (changed - named) | unnoticed]
    assert not wrong
