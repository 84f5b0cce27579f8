"""Requirement 9.3.d: a model card and a datasheet with each release, from its own numbers, with a place to sign."""

import re

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset
from habitlab.serving.learning import model_card
from tests.recommender.makers import habits, recommender

LINEAGE = {"version": "0001-abc", "fitted_at": "2026-01-01T00:00:00.000000Z", "data": "d1", "code": "c1"}


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    gender = ["female"] * 20 + ["male"] * 15 + ["other"] * 3 + [None] * 2
    return pd.DataFrame({"user_id": [f"u{i}" for i in range(40)], "gender": gender, "age": [40] * 30 + [15] * 10})


@pytest.fixture(scope="module")
def fitted(people):
    table = habits(9, category=["learning", "career", "finance"] * 3)
    table.loc[0, "name_en"] = "Take a cold shower"
    table.loc[1, "name_en"] = "Do a 36-hour fast every week"
    return table, recommender(table, people)


@pytest.fixture(scope="module")
def card(fitted, people) -> str:
    table, model = fitted
    dataset = Dataset(users=people, habits=table, metadata={"simulated": True, "source": "a test"})
    return model_card.write(dataset, model, LINEAGE, {"ndcg@10": 0.1234})


def test_9_3_d_the_card_names_its_version_and_where_it_comes_from(card, fitted):
    for text in ("0001-abc", "d1", "c1", fitted[1].version_, "ndcg@10: 0.1234", "The data are simulated"):
        assert text in card


def test_9_3_d_its_numbers_are_those_of_the_model(card, fitted, people):
    assert "Of 9 habits 1 are for adults only, 1 for nobody" in card
    assert "0 lists hold a habit that is unsafe" in card
    lists = [fitted[1].recommend(user, 5) for user in people["user_id"]]
    shown = {item.habit_id for one in lists for item in one.items}
    assert f"{len(shown)} of 9 habits" in card
    category = fitted[0].set_index("habit_id")["category"]
    mean = np.mean([len({category[item.habit_id] for item in one.items}) for one in lists])
    assert f"{mean:.2f} categories on average" in card


def test_9_3_d_without_a_comparison_it_says_so(fitted, people):
    text = model_card.write(Dataset(users=people, habits=fitted[0]), fitted[1], LINEAGE)
    assert "No comparison on held-out data was made" in text


def test_9_3_d_the_red_team_is_counted(fitted):
    counts = model_card.red_team(fitted[1].candidates_.safe_from)
    assert counts["missed"] == 0
    assert counts["for nobody"] + counts["for adults only"] + counts["harmless"] == counts["cases"]


def test_9_3_d_small_groups_are_not_told_of_nor_to_be_had_from_the_total(card):
    section = card.partition("| gender | people |")[2].partition("\n\n")[0]
    assert "other |" not in section
    assert re.findall(r"\| ([^|]+) \| (\d+) \|", section) == [("female", "20"), ("others (3 groups)", "20")]


def test_9_3_d_the_datasheet_counts_every_table(card):
    assert "| users | 40 |" in card
    assert "| habits | 9 |" in card


def test_9_3_d_the_sign_off_is_empty_until_somebody_signs(card):
    assert model_card.signature(card) is None
    with pytest.raises(ValueError, match="not signed"):
        model_card.require_signature(card)


def test_9_3_d_a_signed_card_may_be_released(card):
    signed = model_card.sign(card, r"A. Reviewer \1", "released", "2026-02-01")
    assert model_card.signature(signed) == {
        "Reviewed by": r"A. Reviewer \1",
        "Decision": "released",
        "Date": "2026-02-01",
    }
    model_card.require_signature(signed)
    assert signed.partition("## Sign-off")[0] == card.partition("## Sign-off")[0]
    with pytest.raises(ValueError, match="signed already"):
        model_card.sign(signed, "B", "released", "2026-02-01")


def test_9_3_d_a_card_signed_against_the_release_stops_it(card):
    refused = model_card.sign(card, "A. Reviewer", "not released", "2026-02-01")
    with pytest.raises(ValueError, match="not released"):
        model_card.require_signature(refused)


@pytest.mark.parametrize(
    ("reviewer", "decision", "date"),
    [("", "released", "2026-02-01"), ("A", "perhaps", "2026-02-01"), ("A", "released", "yesterday")],
)
def test_9_3_d_half_a_signature_is_none(card, reviewer, decision, date):
    with pytest.raises(ValueError, match=r"signature|decision"):
        model_card.sign(card, reviewer, decision, date)


def test_9_3_d_one_filled_line_is_no_signature(card):
    assert model_card.signature(card.replace("- Reviewed by:", "- Reviewed by: me")) is None
