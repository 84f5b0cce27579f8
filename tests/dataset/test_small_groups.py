"""Requirement 9.2.a, the tables that are shown: small groups are hidden, and do not follow from what is left."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.dataset.small_groups import hidden, recoverable, suppress


def test_9_2_a_a_single_small_group_takes_the_next_smallest_with_it():
    # 137 people in all: with 3 hidden alone, 137 - 100 - 34 would give it away.
    assert hidden([3, 100, 34], fewest=10).tolist() == [True, False, True]


def test_9_2_a_two_small_groups_that_are_few_together_take_a_third():
    assert hidden([3, 4, 100, 34], fewest=10).tolist() == [True, True, False, True]
    assert hidden([6, 4, 100, 34], fewest=10).tolist() == [True, True, False, False]


def test_9_2_a_without_totals_only_small_groups_are_hidden():
    assert hidden([3, 100, 34], fewest=10, totals=False).tolist() == [True, False, False]


def test_9_2_a_nobody_is_shown_and_hides_nobody():
    assert hidden([0, 12, 20]).tolist() == [False, False, False]
    assert hidden([3, 0, 20]).tolist() == [True, False, True]


def test_9_2_a_in_a_table_rows_and_columns_are_held():
    table = np.array([[3, 40, 50], [60, 70, 80], [90, 30, 20]])
    hide = hidden(table)
    assert hide[0, 0]
    assert ((hide.sum(axis=0) != 1) & (hide.sum(axis=1) != 1)).all()
    assert not recoverable(table, hide).any()


def test_9_2_a_a_bridge_between_two_blocks_is_no_hiding_place():
    # Every line has two hidden cells or none, and yet all totals together give the middle one away.
    hide = np.zeros((4, 4), dtype=bool)
    for row, column in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3), (1, 2)]:
        hide[row, column] = True
    table = np.full((4, 4), 5)
    assert np.argwhere(recoverable(table, hide)).tolist() == [[1, 2]]
    table[~hide] = 50
    assert not recoverable(table, hidden(table)).any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=2, max_size=4))
def test_9_2_a_no_small_cell_follows_from_the_others_and_all_totals(rows):
    table = np.array(rows)
    hide = hidden(table)
    assert hide[(table > 0) & (table < 10)].all()
    alone = recoverable(table, hide) & (table > 0)
    for row, column in np.argwhere(alone):
        # Only where nobody stands beside it is a cell its own total, which is hidden with it.
        others = np.concatenate([np.delete(table[row], column)[~np.delete(hide[row], column)]])
        beside = np.delete(table[:, column], row)[~np.delete(hide[:, column], row)]
        assert not others.any()
        assert not beside.any()


def test_recoverable_agrees_with_trying_every_table():
    table = np.array([[1, 2, 3], [2, 1, 2]])
    for bits in itertools.product([False, True], repeat=6):
        hide = np.array(bits).reshape(2, 3)
        places = np.argwhere(hide)
        fits = []
        for values in itertools.product(range(-2, 9), repeat=min(len(places), 3)):
            if len(places) > 3:
                continue
            guess = table.copy()
            guess[tuple(places.T)] = values
            if (guess.sum(0) == table.sum(0)).all() and (guess.sum(1) == table.sum(1)).all():
                fits.append(values)
        if 0 < len(places) <= 3:
            fixed = np.array([len(set(column)) == 1 for column in zip(*fits, strict=True)])
            assert recoverable(table, hide)[hide].tolist() == fixed.tolist()


def test_9_2_a_counts_and_values_of_a_hidden_group_are_gone():
    frame = pd.DataFrame({"group": ["a", "b", "c"], "n": [3, 100, 34], "rate": [0.1, 0.5, 0.6]})
    shown = suppress(frame, "n", ["rate"])
    assert shown["suppressed"].tolist() == [True, False, True]
    assert shown.loc[shown["suppressed"], ["n", "rate"]].isna().all(axis=None)
    assert frame["n"].tolist() == [3, 100, 34]


def test_9_2_a_a_table_is_suppressed_by_its_two_columns():
    cells = [(row, column) for row in "xyz" for column in "uvw"]
    frame = pd.DataFrame(cells, columns=["row", "column"]).assign(n=[3, 40, 50, 60, 70, 80, 90, 30, 20])
    shown = suppress(frame, "n", [], by=("row", "column"))
    assert shown["suppressed"].tolist() == hidden(frame["n"].to_numpy().reshape(3, 3)).ravel().tolist()


def test_counts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="whole numbers"):
        hidden([1.5, 3])
