"""Requirement 9.2.b: federated training of the success model; raw rows never leave a client object."""

import numpy as np
import pytest
from scipy import special

from habitlab.models.pairs import label_pairs
from habitlab.privacy import federated
from habitlab.privacy.federated import Client, central, clients, log_loss, secure_sum, train
from habitlab.simulation import simulate


@pytest.fixture(scope="module")
def pairs():
    return label_pairs(simulate(users=150, days=120, seed=4))


@pytest.fixture(scope="module")
def rows(pairs):
    return federated.features(pairs), pairs.success.astype(float), pairs.user


def test_9_2_b_a_client_offers_nothing_but_its_update():
    client = Client(np.ones((2, 3)), np.array([0.0, 1.0]))
    assert [name for name in dir(client) if not name.startswith("__")] == ["update"]
    assert not hasattr(client, "__dict__")
    answer, count = client.update(np.zeros(3))
    assert answer.shape == (3,)
    assert count == 2


def test_9_2_b_what_leaves_is_as_long_as_the_weights_however_many_rows_there_are():
    generator = np.random.default_rng(0)
    for n in (1, 5, 50):
        answer, count = Client(generator.random((n, 4)), generator.integers(0, 2, n)).update(np.zeros(4))
        assert answer.shape == (4,)
        assert count == n


def test_9_2_b_the_client_keeps_a_copy_that_nobody_else_holds():
    columns = np.ones((2, 3))
    client = Client(columns, np.array([0.0, 1.0]))
    before = client.update(np.full(3, 0.1))[0]
    columns[:] = 7.0
    np.testing.assert_array_equal(client.update(np.full(3, 0.1))[0], before)


def test_9_2_b_one_step_of_all_clients_is_one_step_of_central_gradient_descent(rows):
    """The law of FedSGD: the sum of the clients' answers is the gradient of the log loss over all rows."""
    columns, success, user = rows
    weights = np.random.default_rng(1).normal(0, 0.1, columns.shape[1])
    told = [client.update(weights) for client in clients(columns, success, user)]
    gradient = (success - special.expit(columns @ weights)) @ columns
    np.testing.assert_allclose(np.sum([answer for answer, _ in told], axis=0), gradient, atol=1e-9)
    assert sum(count for _, count in told) == len(success)
    assert len(told) == len(np.unique(user))


def test_9_2_b_in_the_long_run_federated_and_central_training_are_one(rows):
    columns, success, user = (part[:400] for part in rows)
    best = central(columns, success)
    found = train(clients(columns, success, user), columns.shape[1], rounds=1500)
    gap = log_loss(found.probability(columns), success) - log_loss(best.probability(columns), success)
    assert abs(gap.mean()) < 0.002


def test_9_2_b_central_training_agrees_with_scikit_learn(rows):
    from sklearn.linear_model import LogisticRegression

    columns, success, _ = rows
    other = LogisticRegression(C=1 / federated.RIDGE, max_iter=5000, tol=1e-8).fit(columns[:, 1:], success)
    np.testing.assert_allclose(central(columns, success).weights[1:], other.coef_[0], atol=1e-3)


def test_9_2_b_masks_hide_every_answer_and_cancel_in_the_sum():
    generator = np.random.default_rng(2)
    answers = generator.normal(0, 1, (50, 6))
    total, seen = secure_sum(answers, np.random.default_rng(3))
    np.testing.assert_allclose(total, answers.sum(axis=0), atol=1e-7)
    other = secure_sum(np.zeros((50, 6)), np.random.default_rng(4))[1]
    # What the server sees of somebody looks the same whatever they answered: uniform over all 64-bit numbers.
    for view in (seen, other):
        assert abs((view >> np.uint64(63)).mean() - 0.5) < 0.15
        assert len(np.unique(view)) == view.size


def test_9_2_b_training_under_masks_gives_the_same_model(rows):
    columns, success, user = (part[:400] for part in rows)
    people, width = clients(columns, success, user), columns.shape[1]
    plain, masked = (train(people, width, rounds=20, secure=secure) for secure in (False, True))
    np.testing.assert_allclose(masked.weights, plain.weights, atol=1e-6)


def test_9_2_b_with_noise_nobody_moves_the_sum_by_more_than_the_clip(rows):
    columns, success, user = (part[:400] for part in rows)
    people, width = clients(columns, success, user), columns.shape[1]
    found = train(people, width, rounds=5, epsilon=3.0)
    assert found.epsilon == pytest.approx(3.0, rel=1e-6)
    assert not np.allclose(found.weights, train(people, width, rounds=5, epsilon=3.0, seed=1).weights)
    # The empirical side: one loud client, whose rows are huge, changes the noiseless clipped sum by 1 at most.
    loud = Client(1e6 * np.ones((90, width)), np.ones(90))
    answer, _ = loud.update(np.zeros(width))
    clipped = answer * min(1, 1.0 / np.linalg.norm(answer))
    assert np.linalg.norm(clipped) <= 1 + 1e-12


def test_9_2_b_nothing_in_the_features_comes_from_the_rows_of_other_people():
    assert {"habit_completion", "habit_success"}.isdisjoint(federated.SCALES)


def test_9_2_b_missing_values_have_a_column_of_their_own(pairs):
    columns = federated.features(pairs)
    assert np.isfinite(columns).all()
    assert np.abs(columns).max() <= federated.MOST
    assert federated.features(pairs, without=("minutes",)).shape[1] == columns.shape[1] - 2
    assert federated.features(pairs, without=("category",)).shape[1] == columns.shape[1] - 9


def test_9_2_b_the_gap_to_central_training_is_told_with_its_interval():
    table = federated.compare(simulate(users=150, days=120, seed=4), rounds=60, epsilons=(8.0,), resamples=200)
    assert table["key"].tolist() == ["central", "base", "fedsgd", "fedavg", "noise_8"]
    rows = table.set_index("key")
    assert abs(rows.loc["fedsgd", "gap"]) < 0.05
    assert rows.loc["fedsgd", "ci_low"] <= rows.loc["fedsgd", "gap"] <= rows.loc["fedsgd", "ci_high"]
    found = {item.key: item for item in federated.gaps(table)}
    assert set(found) == {"gap_base", "gap_fedsgd", "gap_fedavg", "gap_noise_8"}
    assert found["gap_fedsgd"].n == 45  # users held out


def test_9_2_b_held_out_users_are_held_out_whole():
    user = np.repeat(np.arange(60), 3)
    held = federated.split_users(user, 0.3)
    assert set(user[held]).isdisjoint(user[~held])
    assert held.sum() == 54


@pytest.mark.long
def test_9_2_b_over_twenty_worlds_federated_training_loses_little():
    gaps = []
    for seed in range(20):
        table = federated.compare(simulate(users=150, days=120, seed=100 + seed), epsilons=(), resamples=50)
        gaps.append(table.set_index("key").loc["fedsgd", "gap"])
    assert np.mean(gaps) < 0.02
