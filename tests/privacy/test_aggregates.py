"""Requirement 9.2.a: published aggregates keep (epsilon, delta) by user, and never overspend."""

import json
import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.dataset import Dataset
from habitlab.privacy import aggregates
from habitlab.privacy.aggregates import bound, counted, means_of, noisy, scale_for, summed
from habitlab.privacy.empirical import audit
from habitlab.privacy.ledger import BudgetExceeded, Ledger, epsilon_of, rho_of
from habitlab.simulation import simulate

DELTA = 1e-6


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(users=300, days=60, seed=3)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 5.0])
def test_9_2_a_what_epsilon_costs_agrees_with_opendp(epsilon):
    dp = aggregates.opendp()
    rho = rho_of(epsilon, DELTA)
    assert epsilon_of(rho, DELTA) == pytest.approx(epsilon, rel=1e-6)
    assert epsilon_of(rho, DELTA) <= epsilon
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    measurement = dp.c.make_zCDP_to_approxDP(dp.m.make_gaussian(*space, scale=float(1 / np.sqrt(2 * rho))))
    assert measurement.map(1.0).epsilon(DELTA) == pytest.approx(epsilon, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-6, 50), st.floats(1e-6, 50))
def test_9_2_a_two_releases_cost_at_most_as_much_as_both_told_apart(first, second):
    together = epsilon_of(rho_of(first, DELTA / 2) + rho_of(second, DELTA / 2), DELTA)
    assert together <= (first + second) * (1 + 1e-6)


def users_and_cells(*rows):
    return pd.DataFrame(rows, columns=["user_id", "cell", "value", "weight"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1), st.integers(0, 9)), max_size=6), st.integers(1, 4)
)
def test_9_2_a_no_user_moves_the_sums_by_more_than_the_bound(rows, most):
    """The contribution bound: with or without one person, however much they did, the sums differ by `reach` at most."""
    cells = list("abcdef")
    own = {cell: (value, weight) for cell, value, weight in rows}
    others = users_and_cells(("bob", "a", 0.3, 2), ("bob", "b", 1.0, 3), ("cy", "a", 0.0, 1))
    ann = users_and_cells(*[("ann", cell, value, weight) for cell, (value, weight) in own.items()])
    both = pd.concat([others, ann], ignore_index=True)
    for collect in (counted, summed):
        without, with_ann = (collect(bound(v, cells, most), cells, most) for v in (others, both))
        assert np.linalg.norm(with_ann.sums - without.sums) <= with_ann.reach + 1e-9
        assert with_ann.reach == without.reach


def test_9_2_a_a_user_counts_in_the_cells_of_most_weight():
    values = users_and_cells(("ann", "a", 1.0, 5), ("ann", "b", 1.0, 9), ("ann", "c", 1.0, 5), ("ann", "z", 1.0, 99))
    assert bound(values, ["c", "b", "a"], 2)["cell"].tolist() == ["b", "c"]


def test_9_2_a_contributions_beyond_their_bound_are_refused():
    with pytest.raises(ValueError, match="clip"):
        bound(users_and_cells(("ann", "a", 7.0, 1)), ["a"], 1)
    with pytest.raises(ValueError, match="twice"):
        bound(users_and_cells(("ann", "a", 1.0, 1), ("ann", "a", 0.0, 1)), ["a"], 1)


def _outputs(values, cells, most, scale, rho, runs):
    """Outputs of the real mechanism, OpenDP's noise and all (runs, 2 cells)."""
    bounded = summed(bound(values, cells, most), cells, most)
    release = aggregates.mechanism(bounded.reach, scale, rho)
    return np.stack([release(bounded.sums) for _ in range(runs)]).astype(float)


def _neighbours(rich: bool):
    """Two datasets, of which one has a person more: somebody who did everything in as many cells as there are."""
    cells = list("abcdef")
    others = users_and_cells(*[(f"u{i}", cells[i % 6], (i % 5) / 4, 1) for i in range(30)])
    ann = users_and_cells(*[("ann", cell, 1.0, 9) for cell in (cells if rich else cells[:1])])
    return others, pd.concat([others, ann], ignore_index=True), cells


def test_9_2_a_neighbouring_datasets_cannot_be_told_apart_beyond_epsilon():
    epsilon, most = 1.0, 2
    rho = rho_of(epsilon, DELTA)
    without, with_ann, cells = _neighbours(rich=True)
    scale = scale_for(summed(bound(without, cells, most), cells, most).reach, rho)
    run = partial(_outputs, cells=cells, most=most, scale=scale, rho=rho)
    found = audit(
        lambda n: run(without, runs=n), lambda n: run(with_ann, runs=n), epsilon=epsilon, delta=DELTA, runs=1000
    )
    assert not found.broken
    assert found.epsilon_low <= epsilon


def test_9_2_a_the_same_test_catches_a_mechanism_without_contribution_bound():
    """The mistake of D121: noise for one cell a person, while a person stands in six."""
    epsilon = 1.0
    rho = rho_of(epsilon, DELTA)
    without, with_ann, cells = _neighbours(rich=True)
    generator = np.random.default_rng(0)
    scale = scale_for(summed(bound(without, cells, 1), cells, 1).reach, rho)

    def broken(values, runs):
        sums = summed(bound(values, cells, len(cells)), cells, 1).sums
        return sums + generator.normal(0, scale, (runs, len(sums)))

    found = audit(
        lambda n: broken(without, n), lambda n: broken(with_ann, n), epsilon=epsilon, delta=DELTA, runs=100_000
    )
    assert found.broken
    assert found.epsilon_low > epsilon


def test_9_2_a_the_test_tells_two_known_mechanisms_apart():
    generator = np.random.default_rng(1)

    def laplace(shift, scale):
        return lambda n: shift + generator.laplace(0, scale, n)

    assert not audit(laplace(0, 1.0), laplace(1, 1.0), epsilon=1.0, delta=0.0, runs=20_000).broken
    assert audit(laplace(0, 0.5), laplace(1, 0.5), epsilon=1.0, delta=0.0, runs=20_000).broken


@pytest.mark.long
def test_9_2_a_a_mechanism_that_keeps_its_promise_is_hardly_ever_called_broken():
    generator = np.random.default_rng(2)
    called = sum(
        audit(
            lambda n: generator.laplace(0, 1, n), lambda n: 1 + generator.laplace(0, 1, n),
            epsilon=1.0, delta=0.0, runs=2000, level=0.95,
        ).broken
        for _ in range(200)
    )  # fmt: skip
    assert called <= 23  # 99.9 % binomial limit of 200 x 5 %


def test_9_2_a_opendp_is_asked_whether_the_noise_suffices():
    cells = ["a"]
    bounded = counted(bound(users_and_cells(("ann", "a", 1.0, 1)), cells, 1), cells, 1)
    with pytest.raises(ValueError, match="costs rho"):
        noisy(bounded, scale_for(bounded.reach, 1.0) / 2, 1.0)


def test_9_2_a_published_means_are_near_the_exact_ones(dataset, tmp_path):
    exact = aggregates.completion(dataset).groupby("cell")["value"].mean()
    book = Ledger(tmp_path / "ledger.json", epsilon=60.0)
    release = aggregates.completion_by_category(dataset, 50.0, book, most=9)
    table = release.table.set_index("cell")
    assert table["estimate"].sub(exact).abs().max() < 0.05
    assert (table["ci_low"] <= table["estimate"]).all()
    assert (table["estimate"] <= table["ci_high"]).all()
    assert release.unit == "user"
    assert book.spent_epsilon() <= 50.0 + 1e-6


def test_9_2_a_intervals_hold_the_exact_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    steps = np.array([200, 60]) * aggregates.GRID
    scale, exact = 20.0 * aggregates.GRID, 0.5 + 60 / 200
    noise = generator.normal(0, scale, (1000, 2))
    tables = [means_of(np.rint(steps + one), ["a"], scale, 0.95).iloc[0] for one in noise]
    held = sum(table["ci_low"] - 1e-9 <= exact <= table["ci_high"] + 1e-9 for table in tables)
    assert 925 <= held <= 972  # 99.9 % binomial limits of 95 %


def test_9_2_a_too_few_people_get_no_estimate():
    table = means_of(np.array([3, 1]) * aggregates.GRID, ["a"], 5.0 * aggregates.GRID, 0.95)
    assert table[["estimate", "ci_low", "ci_high"]].isna().all(axis=None)


def test_9_2_a_histograms_name_every_answer_and_no_other(dataset, tmp_path):
    book = Ledger(tmp_path / "ledger.json", epsilon=20.0)
    table = aggregates.histogram(dataset, "gender", 15.0, book).table
    assert table["cell"].tolist() == ["female", "male", "other", "prefer not to say"]
    assert table["estimate"].sum() == pytest.approx(dataset.users["gender"].notna().sum(), abs=30)
    with pytest.raises(ValueError, match="told beforehand"):
        aggregates.histogram(dataset, "barriers", 1.0, book)


def test_9_2_a_counting_people(dataset, tmp_path):
    release = aggregates.count_users(dataset, 5.0, Ledger(tmp_path / "ledger.json", epsilon=5.0))
    assert release.table["estimate"][0] == pytest.approx(300, abs=10)


def test_9_2_a_the_accountant_refuses_over_budget_and_asks_for_no_answer(tmp_path):
    book = Ledger(tmp_path / "ledger.json", epsilon=1.0)
    answered, refusal = aggregates.until_refused(book, 0.3, lambda number: [number])
    assert 3 <= answered <= 12  # at least as many as by adding epsilons, and more by concentrated privacy
    assert "budget is 1 at delta 1e-06" in refusal
    assert book.spent_epsilon() <= 1.0
    assert len(book.entries()) == answered
    with pytest.raises(BudgetExceeded):
        book.spend("other hash, same people", "later", rho_of(0.9, DELTA), lambda: pytest.fail("an answer was made"))


def test_9_2_a_the_same_question_of_the_same_data_is_answered_once(dataset, tmp_path):
    book = Ledger(tmp_path / "ledger.json", epsilon=1.0)
    first = aggregates.completion_by_category(dataset, 0.9, book)
    again = aggregates.completion_by_category(dataset, 0.9, book)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert len(book.entries()) == 1
    fewer = dataset.replace(habit_tracking=dataset.habit_tracking.iloc[:-1])
    with pytest.raises(BudgetExceeded):  # another snapshot of the same people has no budget of its own
        aggregates.completion_by_category(fewer, 0.9, book)


def test_9_2_a_a_budget_cannot_be_raised_afterwards(tmp_path):
    Ledger(tmp_path / "ledger.json", epsilon=1.0).spend("d", "q", 1e-4, lambda: [1])
    with pytest.raises(ValueError, match="begun with epsilon 1"):
        Ledger(tmp_path / "ledger.json", epsilon=100.0).left()


@pytest.mark.parametrize("content", ["", "{}", '{"epsilon": 1, "delta": 1e-6, "entries": [{"rho": -5}]}', "[1"])
def test_9_2_a_a_damaged_ledger_releases_nothing(tmp_path, content):
    (tmp_path / "ledger.json").write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        Ledger(tmp_path / "ledger.json").spend("d", "q", 1e-4, lambda: pytest.fail("an answer was made"))


def _spend(path, number):
    def slowly():  # long enough for the others to come meanwhile
        time.sleep(0.3)
        return [number]

    Ledger(path, epsilon=1.0).spend("d", f"question {number}", rho_of(0.1, DELTA), slowly)


def test_9_2_a_processes_at_once_spend_one_after_the_other(tmp_path):
    path = tmp_path / "ledger.json"
    workers = [multiprocessing.get_context("fork").Process(target=_spend, args=(path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(entry["what"] for entry in Ledger(path).entries()) == [f"question {n}" for n in range(3)]


def _spend_and_hang(path):
    Ledger(path, epsilon=1.0).spend("d", "cut short", rho_of(0.5, DELTA), lambda: time.sleep(60))


def test_9_2_a_what_was_cut_short_is_paid(tmp_path):
    """After kill -9 between paying and answering the budget is spent: the answer may have been seen."""
    path = tmp_path / "ledger.json"
    worker = multiprocessing.get_context("fork").Process(target=_spend_and_hang, args=(path,))
    worker.start()
    waited = time.monotonic() + 30  # less than the answer takes
    while not path.exists() and time.monotonic() < waited:
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    book = Ledger(path)
    assert book.spent_epsilon() == pytest.approx(0.5, rel=1e-6)
    assert book.entries()[0]["released"] is None
    json.loads(path.read_text())


def test_9_2_a_without_opendp_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(ModuleNotFoundError, match=r"habitlab\[privacy\]"):
        aggregates.opendp()


def test_9_2_a_more_epsilon_less_error(dataset):
    table = aggregates.accuracy(dataset, [0.5, 2.0, 8.0], draws=50)
    assert table["error"][:3].is_monotonic_decreasing
    assert np.isinf(table["epsilon"].iloc[-1])
    assert table["error"].iloc[-1] < 0.1  # the bound on contributions alone
