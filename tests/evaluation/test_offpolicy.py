"""Off-policy estimates (6.1.f, D86): the laws each keeps, a slow oracle, when they warn, and whether intervals hold."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from habitlab.dataset import DatasetError
from habitlab.evaluation.offpolicy import (
    METHODS,
    OffPolicyWarning,
    RewardModel,
    estimate_value,
    reward_model,
    unsupported_mass,
)
from habitlab.evaluation.offpolicy.online import SlateLog, place_policy, slate_log, true_value
from habitlab.evaluation.offpolicy.open_bandit import POLICIES, PUBLISHED, load_open_bandit
from habitlab.simulation import make_world
from habitlab.simulation.adoption import log_odds

quiet = pytest.mark.filterwarnings("ignore::habitlab.evaluation.offpolicy.OffPolicyWarning")

# A world small enough to write down every log that it can bring: two contexts, three actions, reward 0 or 1.
CONTEXT = np.array([0.3, 0.7])
CHANCE = np.array([[0.1, 0.5, 0.9], [0.6, 0.2, 0.3]])
LOGGING = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
TARGET = np.array([[0.0, 0.1, 0.9], [0.8, 0.2, 0.0]])
TRUTH = float((CONTEXT[:, None] * TARGET * CHANCE).sum())


def expectation(method, n=2, logging=LOGGING, model=None):
    """Mean of an estimate over all logs of n rows, each with its probability; `logging` is what the log claims."""
    outcomes = []
    for x, a, r in itertools.product(range(2), range(3), range(2)):
        happens = CONTEXT[x] * LOGGING[x, a] * (CHANCE[x, a] if r else 1 - CHANCE[x, a])
        outcomes.append((happens, x, a, r))
    total = mean = 0.0
    for log in itertools.product(outcomes, repeat=n):
        chance = np.prod([row[0] for row in log])
        _, x, a, r = (np.array(column) for column in zip(*log, strict=True))
        predicted = None if model is None else RewardModel(model[x, a], (TARGET[x] * model[x]).sum(axis=1))
        found = estimate_value(r, logging[x, a], TARGET[x, a], method=method, reward_model=predicted)
        total += chance
        mean += chance * found.value
    assert total == pytest.approx(1)
    return mean


WRONG_MODEL = np.array([[0.7, 0.1, 0.2], [0.3, 0.9, 0.4]])
WRONG_LOGGING = np.array([[0.4, 0.4, 0.2], [0.3, 0.3, 0.4]])


@quiet
@pytest.mark.parametrize("n", [1, 2])
def test_ips_is_unbiased_over_every_possible_log(n):
    assert expectation("ips", n) == pytest.approx(TRUTH, abs=1e-12)


@quiet
def test_ips_is_biased_by_propensities_that_are_wrong():
    assert abs(expectation("ips", logging=WRONG_LOGGING) - TRUTH) > 0.05


@quiet
def test_dr_is_unbiased_if_either_the_propensities_or_the_model_are_right():
    assert expectation("dr", model=WRONG_MODEL) == pytest.approx(TRUTH, abs=1e-12)
    assert expectation("dr", model=CHANCE, logging=WRONG_LOGGING) == pytest.approx(TRUTH, abs=1e-12)
    assert abs(expectation("dr", model=WRONG_MODEL, logging=WRONG_LOGGING) - TRUTH) > 0.05


@quiet
def test_dm_is_as_right_as_its_model():
    assert expectation("dm", model=CHANCE) == pytest.approx(TRUTH, abs=1e-12)
    assert abs(expectation("dm", model=WRONG_MODEL) - TRUTH) > 0.05


def draw(n, seed=0, target=TARGET, model=CHANCE):
    """A log of the small world: reward, logging and target propensity, reward model."""
    generator = np.random.default_rng(seed)
    x = generator.choice(2, n, p=CONTEXT)
    a = (generator.random(n)[:, None] > np.cumsum(LOGGING[x], axis=1)).sum(axis=1)
    r = (generator.random(n) < CHANCE[x, a]).astype(float)
    return r, LOGGING[x, a], target[x, a], RewardModel(model[x, a], (target[x] * model[x]).sum(axis=1))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_to_the_truth_with_a_long_log(method):
    reward, logging, target, model = draw(200_000)
    found = estimate_value(reward, logging, target, method=method, reward_model=model)
    assert found.value == pytest.approx(TRUTH, abs=0.01)
    assert found.usable
    assert found.mean_weight == pytest.approx(1, abs=0.02)


@quiet
@settings(max_examples=50, deadline=None)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 50), seed=st.integers(0, 1000))
def test_snips_moves_with_a_shift_and_a_scale_of_the_reward(shift, scale, seed):
    reward, logging, target, _ = draw(60, seed)
    plain = estimate_value(reward, logging, target)
    moved = estimate_value(shift + scale * reward, logging, target)
    for end in ("value", "ci_low", "ci_high"):
        assert getattr(moved, end) == pytest.approx(shift + scale * getattr(plain, end), abs=1e-8)


@quiet
def test_ips_does_not():
    reward, logging, target, _ = draw(60)
    plain, moved = (estimate_value(r, logging, target, method="ips") for r in (reward, reward + 10))
    assert abs(moved.value - plain.value - 10) > 0.1


@pytest.mark.parametrize("method", ["ips", "snips"])
def test_the_logging_policy_is_worth_the_plain_mean_with_the_plain_interval(method):
    reward, logging, *_ = draw(500)
    found = estimate_value(reward, logging, logging, method=method)
    low, high = stats.ttest_1samp(reward, 0).confidence_interval()
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((reward.mean(), low, high))
    assert (found.effective_sample_size, found.max_weight, found.n) == (500, 1, 500)
    assert found.warnings == ()


@quiet
def test_switch_dr_goes_from_dm_to_dr():
    reward, logging, target, model = draw(400, model=WRONG_MODEL)

    def value(method, threshold=None):
        return estimate_value(reward, logging, target, method=method, reward_model=model, threshold=threshold).value

    assert value("switch-dr", np.inf) == value("dr")
    assert value("switch-dr", 0) == value("dm")
    assert value("switch-dr", 5) != value("dr") != value("dm")


@quiet
@pytest.mark.parametrize("seed", range(4))
def test_switch_dr_takes_the_threshold_of_least_estimated_error(seed):
    """Every threshold by hand: the squared error of the mean, plus the square of what is cut off."""
    reward, logging, target, model = draw(90, seed, model=WRONG_MODEL)
    people = np.arange(90) // 3
    found = estimate_value(reward, logging, target, method="switch-dr", reward_model=model, clusters=people)
    weight = target / logging
    errors = {}
    for limit in {0.0, *weight, np.inf}:
        moved = [weight[i] * (reward[i] - model.logged[i]) for i in range(90)]
        terms = [model.target[i] + (moved[i] if weight[i] <= limit else 0) for i in range(90)]
        by_person = [sum(terms[3 * one : 3 * one + 3]) - 3 * sum(terms) / 90 for one in range(30)]
        cut = sum(moved[i] for i in range(90) if weight[i] > limit)
        errors[limit] = (sum(total**2 for total in by_person) + cut**2) / 90**2
    assert errors[found.threshold] == pytest.approx(min(errors.values()))


@quiet
@pytest.mark.parametrize("interval", ["asymptotic", "bootstrap"])
@pytest.mark.parametrize("threshold", [0, 1.5, 5, None])
def test_switch_dr_is_never_surer_than_dr(threshold, interval):
    reward, logging, target, model = draw(400, model=WRONG_MODEL)
    dr, switched = (
        estimate_value(reward, logging, target, method=method, reward_model=model, threshold=limit, interval=interval)
        for method, limit in (("dr", None), ("switch-dr", threshold))
    )
    assert switched.ci_low <= min(dr.ci_low, switched.value) + 1e-12
    assert switched.ci_high >= max(dr.ci_high, switched.value) - 1e-12


def test_switch_dr_says_where_the_model_decides():
    reward, logging, target, model = draw(400)
    found = estimate_value(reward, logging, target, method="switch-dr", reward_model=model, threshold=5)
    assert any("weigh more than 5: there the model decides" in text for text in found.warnings)


def oracle(reward, logging, target, method, model, clusters, threshold, level):
    """The same with loops, as one would do it by hand."""
    rows = range(len(reward))
    weight = [target[i] / logging[i] for i in rows]
    terms = []
    for i in rows:
        if method == "ips":
            terms.append((weight[i] * reward[i], 1.0))
        elif method == "snips":
            terms.append((weight[i] * reward[i], weight[i]))
        elif method == "dm":
            terms.append((model[1][i], 1.0))
        else:
            kept = weight[i] if method == "dr" or weight[i] <= threshold else 0.0
            terms.append((model[1][i] + kept * (reward[i] - model[0][i]), 1.0))
    value = sum(top for top, _ in terms) / sum(bottom for _, bottom in terms)
    people = {}
    for i in rows:
        people[clusters[i]] = people.get(clusters[i], 0.0) + terms[i][0] - value * terms[i][1]
    g = len(people)
    variance = g / (g - 1) * sum(total**2 for total in people.values()) / sum(bottom for _, bottom in terms) ** 2
    squares, fourth = sum(total**2 for total in people.values()), sum(total**4 for total in people.values())
    spread = fourth - squares**2 / g  # of the sum of squares
    free = 2 * squares**2 / spread - 1 if spread > 1e-12 * fourth else g
    reach = stats.t.ppf((1 + level) / 2, min(max(free, 1), g - 1)) * variance**0.5
    low, high = value - reach, value + reach
    if method == "switch-dr":
        _, dr_low, dr_high, *_ = oracle(reward, logging, target, "dr", model, clusters, threshold, level)
        low, high = min(low, dr_low), max(high, dr_high)
    size = sum(weight) ** 2 / sum(w * w for w in weight)
    return value, low, high, size, max(weight)


@quiet
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(5, 60),
    method=st.sampled_from(METHODS),
    level=st.sampled_from([0.5, 0.9, 0.95]),
)
def test_slow_loops_find_the_same(seed, n, method, level):
    generator = np.random.default_rng(seed)
    reward, logging, target = generator.normal(size=n), generator.uniform(0.01, 1, n), generator.uniform(0.01, 1, n)
    model = RewardModel(generator.normal(size=n), generator.normal(size=n))
    clusters = generator.integers(0, 4, n).astype(str)
    clusters[:2] = ["a", "b"]
    found = estimate_value(
        reward, logging, target, method=method, reward_model=model, level=level, clusters=clusters, threshold=3
    )
    expected = oracle(reward, logging, target, method, model, clusters, 3, level)
    told = (found.value, found.ci_low, found.ci_high, found.effective_sample_size, found.max_weight)
    assert told == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert (found.n, found.n_clusters) == (n, len(set(clusters)))


@quiet
def test_snips_has_the_cluster_robust_error_of_a_weighted_regression():
    reward, logging, target, _ = draw(300)
    people = np.random.default_rng(1).integers(0, 40, 300)
    found = estimate_value(reward, logging, target, clusters=people)
    fit = sm.WLS(reward, np.ones(300), weights=target / logging).fit(cov_type="cluster", cov_kwds={"groups": people})
    assert found.value == pytest.approx(fit.params[0])
    reach = stats.t.isf(0.025, found.n_clusters - 1) * fit.bse[0]
    assert found.ci_high - found.value == pytest.approx(reach)


@quiet
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("interval", ["asymptotic", "bootstrap"])
def test_rows_of_a_person_that_repeat_themselves_add_nothing(method, interval):
    columns = draw(200)
    once = estimate_value(
        *columns[:3], method=method, reward_model=columns[3], clusters=np.arange(200), interval=interval
    )
    again = [np.tile(column, 5) for column in (*columns[:3], *columns[3])]
    five = estimate_value(
        *again[:3], method=method, reward_model=again[3:], clusters=np.tile(np.arange(200), 5), interval=interval
    )
    close = 1e-9 if interval == "asymptotic" else 0.01  # of equal replicates, rounding decides which are below
    assert (five.value, five.ci_low, five.ci_high) == pytest.approx((once.value, once.ci_low, once.ci_high), abs=close)
    assert five.effective_clusters == pytest.approx(once.effective_clusters)
    alone = estimate_value(*again[:3], method=method, reward_model=again[3:], interval=interval)
    assert alone.ci_high - alone.ci_low < 0.6 * (five.ci_high - five.ci_low)


# What cannot be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logging_propensity": [0.5, 0.0, 0.5]}, r"what was shown could not be.*1 of 3 rows.*row 1: 0"),
        ({"logging_propensity": [0.5, np.nan, 0.5]}, "logging_propensity must not be missing.*row 1: nan"),
        ({"logging_propensity": [0.5, None, 0.5]}, "logging_propensity must not be missing"),
        ({"logging_propensity": [0.5, -0.1, 0.5]}, "logging_propensity is a probability.*row 1: -0.1"),
        ({"logging_propensity": [50, 20, 30]}, "logging_propensity is a probability.*3 of 3"),
        ({"target_propensity": [0.5, 1.2, 0.5]}, "target_propensity is a probability"),
        ({"target_propensity": [0.5, np.inf, 0.5]}, "target_propensity must not be missing or infinite"),
        ({"reward": [1, np.nan, 0]}, "reward must not be missing"),
        ({"logging_propensity": [0.5, 1e-320, 0.5]}, "too small to divide by.*1 of 3 rows.*row 1"),
        ({"interval": "bootstrap", "resamples": 0}, "resamples must be 1 or more"),
        ({"reward": ["yes", "no", "no"]}, "reward holds something that is no number"),
        ({"reward": [[1, 0, 1]]}, "reward is one number a row"),
        ({"reward": [1, 0]}, "a row of the log has one of each"),
        ({"reward": [], "logging_propensity": [], "target_propensity": []}, "the log is empty"),
        ({"method": "magic"}, "method must be one of ips, snips"),
        ({"interval": "guess"}, "interval must be"),
        ({"level": 95}, "level must be between 0 and 1"),
        ({"threshold": -1}, "threshold must be 0 or more"),
        ({"threshold": np.nan}, "threshold must be 0 or more"),
        ({"method": "dr"}, "dr needs reward_model"),
        ({"method": "dr", "reward_model": ([1, 2], [1, 2])}, "reward_model has 2 and 2 rows, the log 3"),
        ({"method": "dr", "reward_model": ([1, 2, np.nan], [1, 2, 3])}, "reward_model's logged must not be missing"),
        ({"method": "dr", "reward_model": [0.5, 0.5, 0.5]}, r"reward_model is a pair \(logged, target\)"),
        ({"method": "dr", "reward_model": np.full((3, 2), 0.5)}, r"reward_model is a pair \(logged, target\)"),
        ({"method": "dr", "reward_model": np.mean}, r"reward_model is a pair \(logged, target\)"),
        ({"method": "dr", "reward_model": {"logged": [1, 1, 1], "target": [1, 1, 1]}}, r"pair \(logged, target\)"),
        ({"reward": np.array(["2026-01-01"] * 3, dtype="datetime64[ns]")}, "reward holds something that is no number"),
        ({"reward": [1j, 0, 1]}, "reward holds something that is no number"),
        ({"logging_propensity": [0.5, 1.0001, 0.5]}, "logging_propensity is a probability.*row 1: 1.0001"),
        ({"clusters": ["a", "b"]}, "clusters is one label a row"),
        ({"clusters": ["a", None, "b"]}, "clusters is missing in 1 of 3 rows"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    good = {"reward": [1, 0, 1], "logging_propensity": [0.5, 0.2, 0.3], "target_propensity": [0.5, 0.2, 0.3]}
    with pytest.raises(ValueError, match=message):
        estimate_value(**(good | change))


@quiet
def test_a_propensity_above_one_by_rounding_is_one():
    above = np.full(60, 1 + 4e-16)
    assert estimate_value(np.arange(60) % 2, above, above).value == 0.5


@quiet
def test_one_person_has_no_interval():
    found = estimate_value([1, 0, 1], [0.5, 0.2, 0.3], [0.5, 0.2, 0.3], clusters=["ann"] * 3)
    assert found.value == pytest.approx(2 / 3)
    assert np.isnan([found.ci_low, found.ci_high]).all()
    assert any("one cluster alone" in text for text in found.warnings)


@pytest.mark.parametrize("interval", ["asymptotic", "bootstrap"])
def test_rewards_that_are_all_alike_do_not_make_certain(interval):
    found = estimate_value(np.zeros(200), np.full(200, 0.5), np.full(200, 0.5), interval=interval)
    assert found.value == 0
    assert np.isnan([found.ci_low, found.ci_high]).all()
    assert any("no interval" in text for text in found.warnings)


# Warnings


def told(*log, **options):
    with warnings.catch_warnings(record=True) as loud:
        warnings.simplefilter("always")
        found = estimate_value(*log, **options)
    assert found.usable == (not loud)
    assert all(entry.category is OffPolicyWarning and str(entry.message) in found.warnings for entry in loud)
    return found, " | ".join(str(entry.message) for entry in loud)


def test_weights_that_are_useless_are_told_aloud():
    """A policy that always does one of 200 things, from a log of 2,000 rows that did them by lot."""
    action = np.random.default_rng(0).integers(0, 200, 2000)
    found, loud = told(action % 2, np.full(2000, 1 / 200), (action == 7).astype(float))
    assert found.effective_sample_size == (action == 7).sum() < 20
    assert "the weights are useless: 2000 clusters (2000 rows) count like" in loud
    assert found.max_weight == 200


def test_a_row_that_decides_all_is_told_aloud():
    logging = np.full(1000, 0.5)
    logging[3] = 1e-6
    found, loud = told(np.arange(1000) % 2, logging, np.full(1000, 0.5))
    assert "one row of 1000 carries 99" in loud
    assert any("1 of 1000 rows have a logging propensity below 1 in 1000 (smallest 1e-06)" in t for t in found.warnings)


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_what_the_log_never_shows_is_seen_by_the_mean_weight(method):
    """Half of what the target policy does was never shown; the log alone tells by its mean weight of a half."""
    action = np.random.default_rng(0).integers(0, 2, 2000)
    log = (action.astype(float), np.full(2000, 0.5), np.array([0.3, 0.2])[action])
    _, loud = told(*log, method=method, reward_model=(action, np.full(2000, 0.5)))
    assert "is 0.49" in loud or "is 0.5" in loud
    assert "missing support" in loud
    both = np.tile([0.5, 0.5, 0.0], (3, 1)), np.tile([0.3, 0.2, 0.5], (3, 1))
    assert unsupported_mass(*both) == pytest.approx([0.5] * 3)
    assert unsupported_mass(both[1], both[0]) == pytest.approx([0] * 3)


def test_propensities_that_claim_too_much_are_told_aloud():
    _, loud = told(np.arange(500) % 2, np.full(500, 0.25), np.full(500, 0.5))
    assert "is 2 and should be 1: it claims more than there is" in loud


@pytest.mark.parametrize("wrong", [[[0.5, 0.4]], [[1.5, -0.5]], [[np.nan, 1.0]]])
def test_what_is_no_distribution_is_refused(wrong):
    with pytest.raises(ValueError, match="target: 1 rows are no distributions"):
        unsupported_mass([[0.5, 0.5]], wrong)
    with pytest.raises(ValueError, match=r"are \(rows, actions\)"):
        unsupported_mass([0.5, 0.5], [0.5, 0.5])


@pytest.mark.parametrize("method", ["ips", "snips"])
def test_a_policy_that_the_log_never_followed_has_no_interval(method):
    found, loud = told([1.0, 0.0] * 50, np.full(100, 0.5), np.zeros(100), method=method)
    assert "never does what the log shows" in loud
    assert np.isnan(found.ci_low)
    assert np.isnan(found.value) == (method == "snips")
    assert found.effective_sample_size == 0


def test_a_model_that_the_log_contradicts_is_told_of_aloud():
    reward, logging, target, model = draw(2000, model=WRONG_MODEL)
    found, loud = told(reward, logging, target, method="dm", reward_model=model)
    assert f"the log contradicts the model: corrected by what was logged (dr), {found.value:.3g} becomes" in loud
    reward, logging, target, model = draw(2000)
    assert told(reward, logging, target, method="dm", reward_model=model)[1] == ""


def test_a_model_that_the_log_can_hardly_check_is_told_of():
    reward, logging, target, model = draw(2000)
    target[np.arange(2000) > 5] = 0
    found, _ = told(reward, logging, target, method="dm", reward_model=model)
    assert any("too little to hold the model against" in text for text in found.warnings)


def test_rare_rewards_are_told_of():
    """Five clicks in 10,000 rows: whatever the weights, the interval rests on five rows."""
    reward = np.zeros(10_000)
    reward[:5] = 1
    found, loud = told(reward, np.full(10_000, 0.5), np.full(10_000, 0.5))
    assert not loud
    assert any("about 5.0 rows decide on the interval" in text for text in found.warnings)


def test_an_honest_log_is_seldom_warned_of():
    """The check of the mean weight is false in 1 of 1,000 honest logs; here in at most 3 of 300."""
    false = sum(bool(told(*draw(400, seed)[:3])[1]) for seed in range(300))
    assert false <= 3


# The reward model


def test_the_reward_model_is_the_mean_of_an_action_among_others():
    reward, action = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0]), np.array([0, 0, 0, 1, 1, 1])
    target = np.tile([0.25, 0.75], (6, 1))
    found = reward_model.fit(reward, action, target, folds=6, prior=0)
    others = [0.5, 0.5, 1.0, 0.5, 0.0, 0.5]
    own = [reward[action == 0].mean(), reward[action == 1].mean()]
    assert found.logged == pytest.approx(others)
    assert found.target[0] == pytest.approx(0.25 * 0.5 + 0.75 * own[1])


def test_a_person_is_predicted_from_others_only():
    reward = draw(200)[0]
    action = np.arange(200) % 3
    people, policy = np.arange(200) // 10, np.full((200, 3), 1 / 3)
    before = reward_model.fit(reward, action, policy, clusters=people)
    reward[:10] += 100
    after = reward_model.fit(reward, action, policy, clusters=people)
    assert np.array_equal(before.logged[:10], after.logged[:10])
    assert not np.allclose(before.logged[10:], after.logged[10:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": [0, 1, 2]}, "whole numbers from 0 to 1"),
        ({"action": [0, 1]}, "rows must agree"),
        ({"target": [[0.5, 0.5], [0.5, 0.4], [0.5, 0.5]]}, r"target: 1 rows are no distributions, the first at \[1\]"),
        ({"target": [[0.5, 0.5], [1.5, -0.5], [np.nan, 1]]}, r"target: 2 rows are no distributions"),
        ({"reward": [1, np.nan, 0]}, "reward must not be missing"),
        ({"folds": 4}, "at most the number of clusters, 3"),
    ],
)
def test_what_the_reward_model_cannot_fit_is_refused(change, message):
    good = {"reward": [1, 0, 1], "action": [0, 1, 0], "target": np.full((3, 2), 0.5), "folds": 2}
    with pytest.raises(ValueError, match=message):
        reward_model.fit(**(good | change))


# Do intervals hold the truth?


def people_log(seed, people=150, rows=8):
    """A log in which rows of a person are alike: each has one context and a taste of their own."""
    generator = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), rows)
    x = generator.choice(2, people, p=CONTEXT)[who]
    a = (generator.random(len(who))[:, None] > np.cumsum(LOGGING[x], axis=1)).sum(axis=1)
    reward = CHANCE[x, a] + generator.normal(0, 0.5, people)[who] + generator.normal(0, 0.3, len(who))
    return who, reward, LOGGING[x, a], TARGET[x, a], RewardModel(WRONG_MODEL[x, a], (TARGET * WRONG_MODEL).sum(1)[x])


def coverage(method, by_person, interval="asymptotic", trials=400, first=0):
    held = 0
    for seed in range(first, first + trials):
        who, *log, model = people_log(seed)
        found = estimate_value(
            *log,
            method=method,
            reward_model=model,
            clusters=who if by_person else None,
            interval=interval,
            resamples=400,
        )
        held += found.ci_low <= TRUTH <= found.ci_high
    return held, trials


def limits(trials, level=0.95):
    """99.9 % binomial limits of the number of intervals that hold the truth."""
    return stats.binom.interval(0.999, trials, level)


@quiet
@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_intervals_by_person_hold_the_truth_and_by_row_do_not(method):
    held, trials = coverage(method, by_person=True)
    low, high = limits(trials)
    assert low <= held <= high
    if method != "ips":  # whose rows differ by weight more than by person
        assert coverage(method, by_person=False)[0] < low


@quiet
def test_intervals_hold_the_truth_where_few_rows_have_large_weights():
    """Residuals with long tails tell their own variance badly: by rows - 1 degrees of freedom 92 to 93 % held it."""
    generator = np.random.default_rng(7)
    liked = generator.normal(size=(40, 8))
    logits = 1.5 * generator.normal(size=(40, 8)), 2 * liked
    logging, target = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in logits)
    chance = 1 / (1 + np.exp(-liked))
    truth, trials, inside = (target * chance).sum(axis=1).mean(), 2000, 0
    for _ in range(trials):
        x = generator.integers(0, 40, 1000)
        a = (generator.random(1000)[:, None] > logging[x].cumsum(axis=1)).sum(axis=1).clip(0, 7)
        found = estimate_value(generator.random(1000) < chance[x, a], logging[x, a], target[x, a])
        inside += found.ci_low <= truth <= found.ci_high
    assert limits(trials)[0] <= inside


@quiet
def test_bootstrap_intervals_hold_it_as_well():
    held, trials = coverage("snips", by_person=True, interval="bootstrap", trials=150)
    low, high = limits(trials)
    assert low <= held <= high


@quiet
@pytest.mark.long
@pytest.mark.parametrize("interval", ["asymptotic", "bootstrap"])
@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_intervals_by_person_hold_the_truth_in_many_trials(method, interval):
    held, trials = coverage(method, by_person=True, interval=interval, trials=2000, first=10_000)
    assert 0.93 * trials <= held <= 0.97 * trials


# The simulated world: the log of the random policy against what other policies are truly worth (D86)

POLICIES_TRIED = ("popular, by lot", "popular", "liked, by lot", "liked")


def policies(world, log: SlateLog):
    """Policies by name (rows, habits): by popularity and by what each user truly likes, the best one or by lot."""
    people = np.arange(world.users)
    popular = np.tile(world.habits.popularity, (world.users, 1))
    liked = np.concatenate([log_odds(world, block) for block in np.array_split(people, 16)])
    tried = ((popular, 0.7), (popular, 0.0), (liked, 1.0), (liked, 0.0))
    return {
        name: place_policy(log, *scores_and_heat) for name, scores_and_heat in zip(POLICIES_TRIED, tried, strict=True)
    }


def against_truth(seeds, per_log, users=2000, interval="asymptotic", methods=METHODS, tried=POLICIES_TRIED):
    """Rows of (policy, method, truth, estimate): the users of each world cut into logs of `per_log` users."""
    rows = []
    for seed in seeds:
        world = make_world(users, 60, seed)
        whole = slate_log(world)
        truth = {name: true_value(whole, policy).mean() for name, policy in policies(world, whole).items()}
        people = np.unique(whole.user)
        for first in range(0, len(people) - per_log + 1, per_log):
            log = whole.of(people[first : first + per_log])
            for name, policy in policies(world, log).items():
                if name not in tried:
                    continue
                target = policy[np.arange(len(log)), log.habit]
                model = reward_model.fit(log.reward, log.habit, policy, clusters=log.user)
                for method in methods:
                    found = estimate_value(
                        log.reward,
                        log.propensity,
                        target,
                        method=method,
                        reward_model=model,
                        clusters=log.user,
                        interval=interval,
                        resamples=400,
                    )
                    rows.append((name, method, truth[name], found))
    return rows


def held(rows, policy, method):
    """How many intervals hold the truth, and of how many."""
    inside = [one.ci_low <= truth <= one.ci_high for name, how, truth, one in rows if (name, how) == (policy, method)]
    return sum(inside), len(inside)


@quiet
def test_6_1_f_off_policy_beside_naive_against_the_truth_of_the_world():
    """The log of a random policy tells what popular and liked habits are worth; its own mean does not."""
    world = make_world(2000, 60, 11)
    log = slate_log(world)
    naive = log.reward.mean()
    for name, policy in policies(world, log).items():
        truth = true_value(log, policy).mean()
        target = policy[np.arange(len(log)), log.habit]
        model = reward_model.fit(log.reward, log.habit, policy, clusters=log.user)
        for method in ("ips", "snips", "dr", "switch-dr"):
            found = estimate_value(
                log.reward, log.propensity, target, method=method, reward_model=model, clusters=log.user
            )
            reach = (found.ci_high - found.ci_low) / 2
            assert abs(found.value - truth) < 2 * reach, (name, method)  # 4 standard errors
            assert found.n == len(log) > found.n_clusters == len(np.unique(log.user))
        assert abs(naive - truth) > 0.02, name


@quiet
def test_6_1_f_a_log_too_short_for_a_policy_says_so():
    """A policy that always takes the best habit is met in 1 of 170 rows: of 200 users' slates some 20 are left."""
    rows = against_truth([12], per_log=200, users=600)
    for name, method, _, found in rows:
        if method != "dm":
            assert found.usable == (name in ("popular, by lot", "liked, by lot"))


@quiet
def test_6_1_f_intervals_hold_the_truth_of_the_world():
    tried = "popular, by lot"
    rows = against_truth([13, 14], per_log=100, methods=("ips", "snips", "dr"), tried=[tried])
    for method in ("ips", "snips", "dr"):
        inside, trials = held(rows, tried, method)
        assert trials > 25
        assert limits(trials)[0] <= inside


@quiet
@pytest.mark.long
@pytest.mark.parametrize("interval", ["asymptotic", "bootstrap"])
@pytest.mark.parametrize("policy", ["popular, by lot", "liked, by lot"])
def test_6_1_f_intervals_hold_the_truth_of_many_worlds(policy, interval):
    """Where the weights are usable; and the model alone, which knows nobody in person, hardly ever holds it."""
    rows = against_truth(range(20, 40), per_log=300, users=4000, interval=interval, tried=[policy])
    usable = [row for row in rows if row[3].usable]
    for method in ("ips", "snips", "dr", "switch-dr"):
        inside, trials = held(usable, policy, method)
        assert trials > 150
        assert limits(trials)[0] <= inside, (policy, method, inside, trials)
    inside, trials = held(rows, policy, "dm")
    assert inside < 0.2 * trials


# Real logs of two policies at the same time


@pytest.fixture(scope="module")
def real_logs(shared_data):
    return {policy: load_open_bandit(shared_data / "open-bandit-men", policy) for policy in POLICIES}


def estimates_of(log, other):
    """What each method says of the policy of the other log."""
    chance = other.distribution()
    whole = np.zeros((len(log), log.places * log.items))
    for place in range(log.places):
        rows = log.place == place
        whole[rows, place * log.items : (place + 1) * log.items] = chance[place]
    model = reward_model.fit(log.click, log.action, whole)
    target = chance[log.place, log.item]
    return {
        method: estimate_value(log.click, log.propensity, target, method=method, reward_model=model)
        for method in METHODS
    }


def test_the_real_logs_are_read_as_described(real_logs):
    random, sampled = real_logs["random"], real_logs["bts"]
    assert len(random) == len(sampled) == 10_000
    assert (random.items, random.places) == (34, 3)
    assert (random.click.sum(), sampled.click.sum()) == (46, 69)
    assert np.allclose(random.propensity, 1 / 34)
    assert sampled.propensity.min() == pytest.approx(0.000165)
    assert random.at.is_monotonic_increasing
    for log in (random, sampled):
        assert log.distribution().sum(axis=1) == pytest.approx([1, 1, 1])
        own = estimate_value(log.click, np.ones(len(log)), np.ones(len(log)))
        assert own.ci_low < PUBLISHED[log.policy] < own.ci_high


@quiet
@pytest.mark.parametrize(("log", "other"), [("random", "bts"), ("bts", "random")])
def test_each_real_log_tells_what_the_other_policy_brought(real_logs, log, other):
    """Held against the other policy's own log (10,000 rows) and all that was published of it, within 3.3 errors."""
    truth = real_logs[other].click.mean()
    for method, found in estimates_of(real_logs[log], real_logs[other]).items():
        if method == "dm":
            continue
        assert found.usable
        error = (found.ci_high - found.ci_low) / (2 * 1.96)
        assert abs(found.value - truth) < 3.3 * np.hypot(error, np.sqrt(truth / len(real_logs[other])))
        assert abs(found.value - PUBLISHED[other]) < 3.3 * error
        if log == "random":
            assert found.ci_low < PUBLISHED[other] < found.ci_high
        else:  # few clicks with large weights: the log of a policy sure of itself tells little of others, and says so
            assert any("rows decide on the interval" in text for text in found.warnings)
            assert found.effective_sample_size < 0.1 * found.n


@quiet
def test_the_page_tells_these_numbers(real_logs):
    """The rows of docs/offpolicy.md about the real logs, per cent."""
    page = (Path(__file__).parents[2] / "docs" / "offpolicy.md").read_text(encoding="utf-8")
    for log, other in (("random", "bts"), ("bts", "random")):
        rows, brought = real_logs[log], real_logs[other]
        target = brought.distribution()[rows.place, rows.item]
        found = estimate_value(rows.click, rows.propensity, target, interval="bootstrap")
        own = estimate_value(brought.click, np.ones(len(brought)), np.ones(len(brought)))
        for one in (found, own):
            value, low, high = (f"{100 * end:.2f}" for end in (one.value, one.ci_low, one.ci_high))
            assert f"| {value} ({low}-{high}) |" in page


def test_bad_files_of_logs_are_refused(tmp_path):
    columns = "timestamp,item_id,position,click,propensity_score\n"
    with pytest.raises(ValueError, match="policy must be random or bts"):
        load_open_bandit(tmp_path, "best")
    with pytest.raises(FileNotFoundError, match=r"neither random_men.csv.gz nor random_men.csv in .*data/README.md"):
        load_open_bandit(tmp_path, "random")
    path = tmp_path / "random_men.csv"
    for text, message in (
        ("timestamp,item_id\n", "lacks position, click, propensity_score"),
        (columns, "holds no rows"),
        (columns + "2019-11-24 00:00:01+00:00,3,1,0,0\n", "1 rows have an impossible propensity_score"),
        (columns + "2019-11-24 00:00:01+00:00,3,4,0,0.1\n", "1 rows have an impossible position"),
        (columns + "2019-11-24 00:00:01+00:00,3,1,,0.1\n", "1 rows have an impossible click"),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError, match=message):
            load_open_bandit(tmp_path, "random")
