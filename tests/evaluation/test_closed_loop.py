"""Requirement 9.3.a: in the long run, when models learn from what their own lists brought about, lists stay varied."""

import numpy as np
import pandas as pd
import pytest

from habitlab.evaluation import closed_loop
from habitlab.evaluation.closed_loop import FLOOR, NAIVE, WITH_RULE, WITHOUT_RULE, entropy


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return closed_loop.run(users=80, rounds=6, seeds=(1,))


def test_9_3_a_entropy_of_known_lists():
    assert entropy([[5, 0], [1, 1], [0, 0]])[:2].tolist() == [0.0, 1.0]
    assert np.isnan(entropy([[0, 0]])[0])
    assert entropy([[1, 1, 1, 1, 1]])[0] == pytest.approx(np.log2(5))


def test_9_3_a_the_floor_is_the_least_entropy_of_five_places_in_three_categories():
    splits = [[a, b, 5 - a - b] for a in range(1, 4) for b in range(1, 5 - a)]
    assert entropy(splits).min() == pytest.approx(FLOOR)
    assert pytest.approx(1.371, abs=1e-3) == FLOOR


def test_9_3_a_with_the_rule_no_list_falls_below_the_floor(found):
    """Nor does what somebody sees over several lists: entropy of a mixture is at least the mean of its parts."""
    ours = found[found["policy"] == WITH_RULE.name]
    assert ours["entropy"].min() >= FLOOR - 1e-9
    assert ours["seen_entropy"].min() >= FLOOR - 1e-9
    assert ours["categories"].min() >= 3


def test_9_3_a_without_it_some_do_so_the_floor_is_no_empty_promise(found):
    assert (found.loc[found["policy"] == WITHOUT_RULE.name, "entropy"] < FLOOR - 1e-9).any()


def test_9_3_a_the_naive_loop_shows_less_variety_than_what_is_served(found):
    items = {item.key if hasattr(item, "key") else item["key"]: item for item in closed_loop.judged(found)}
    assert items["bubble_naive"].ci_high < items["bubble_with"].ci_low
    assert items["bubble_rule"].ci_low > 0
    assert items["bubble_with"].n == 80
    assert items["bubble_below"]["estimate"] == 0


def test_9_3_a_curves_have_an_interval_by_user_for_each_round(found):
    table = closed_loop.curves(found, "seen_entropy", resamples=200)
    assert table.groupby("policy").size().tolist() == [6, 6, 6]
    assert (table["ci_low"] < table["estimate"]).all()
    assert (table["estimate"] < table["ci_high"]).all()


def test_9_3_a_all_policies_meet_the_same_people_and_luck(found):
    again = closed_loop.run([WITHOUT_RULE], users=80, rounds=3, seeds=(1,))
    before = found[(found["policy"] == WITHOUT_RULE.name) & (found["round"] <= 3)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, before)


def test_9_3_a_nothing_is_shown_that_is_held_or_unfit():
    """Rest, holding and safety are respected in each round: an oracle over the lists themselves."""
    from habitlab.recommender import diversity
    from habitlab.simulation import make_world

    start = closed_loop._start(make_world(40, 120, 2), None)
    shown = []
    original = diversity.rerank

    def spy(*args, **kwargs):
        lists = original(*args, **kwargs)
        shown.append(lists)
        return lists

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop.diversity, "rerank", spy)
        closed_loop._run(start, WITH_RULE, 4, 0.0)
    stacked = np.stack(shown)  # (rounds, users, 5)
    for user in range(40):
        seen = stacked[:, user].ravel()
        seen = seen[seen >= 0]
        assert start.allowed[user, seen].all()
        assert len(set(seen)) == len(seen)  # four rounds are within the rest of three


@pytest.mark.long
def test_9_3_a_over_twenty_worlds_and_a_year_variety_stays_above_the_floor():
    found = closed_loop.run((WITH_RULE, NAIVE), users=60, rounds=26, seeds=range(20), drift=2.0)
    late = found[found["round"] > 20].groupby(["policy", "user_id"])["seen_entropy"].mean().unstack("policy")  # noqa: PD010
    assert late[WITH_RULE.name].min() >= FLOOR
    by_seed = late.groupby(late.index.str.split("/").str[0]).mean()
    assert (by_seed[WITH_RULE.name] > by_seed[NAIVE.name]).all()
