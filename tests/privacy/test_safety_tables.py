"""What the report on privacy and safety says follows from its findings, whatever they are."""

import pytest

from habitlab.dataset import MissingColumn
from habitlab.evaluation.tables import exact
from habitlab.privacy import safety_tables
from habitlab.privacy.safety_tables import verdict
from habitlab.simulation import simulate


@pytest.fixture(scope="module")
def dataset():
    return simulate(users=80, days=40, seed=2)


def finding(key: str, value: float) -> dict:
    return {key: exact(key, key, value, n=10, method="by hand")}


GOOD = (
    finding("audit_kept", 0.4)
    | finding("audit_broken", 1.6)
    | finding("groups_recovered", 0)
    | finding("red_missed", 0)
)


def test_the_verdict_says_what_held_and_what_did_not():
    assert verdict(GOOD) == "All 4 safeguards that these data can test held."
    worse = GOOD | finding("red_missed", 2) | finding("audit_kept", 1.2)
    assert verdict(worse) == "Of 4 safeguards 2 did not hold: the privacy promise, the red team's cases."
    with pytest.raises(MissingColumn):
        verdict({})


def test_9_2_a_the_attack_finds_the_mistake_and_not_the_mechanism(dataset):
    kept, broken = safety_tables.tried(dataset, epsilon=1.0, runs=50_000, seed=0)
    assert kept["estimate"] <= 1.0 < broken["estimate"]


def test_9_2_a_the_ledger_refuses_in_words():
    (answered, adding), words = safety_tables.refusal(1.0, 0.2)
    assert adding["estimate"] == 5
    assert answered["estimate"] > 5
    assert "the budget is 1" in words


def test_9_2_a_no_small_group_is_shown(dataset):
    table, found = safety_tables.small_groups(dataset)
    counts = [cell for cell in table.drop(columns="age").to_numpy().ravel() if cell != "hidden"]
    assert all(count == 0 or count >= 10 for count in counts)
    assert found[2]["estimate"] == 0


def test_9_3_b_the_red_team_is_counted_by_theme():
    table, found = safety_tables.red_team()
    assert table["missed"].sum() == found[1]["estimate"] == 0
    assert table[["for nobody", "not for minors"]].to_numpy().sum() == found[0]["estimate"]


def test_9_3_c_careless_messages_are_capped(dataset):
    table, found = safety_tables.capped(dataset, days=14)
    values = {item["key"]: item["estimate"] for item in found}
    assert values["sent_at_night"] == 0
    assert values["sent_most"] <= 3
    assert table["messages"].sum() == 80 * 6 * 14
