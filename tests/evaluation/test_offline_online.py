"""Which offline number predicts what really happens (6.1.f, D85, D86, D114): many worlds, and the tables about them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from habitlab.dataset import MissingColumn
from habitlab.evaluation import splits
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.offpolicy import METHODS, estimate_value, offline_online, open_bandit
from habitlab.evaluation.offpolicy import offline_agreement as held
from habitlab.evaluation.offpolicy.offline_online import (
    ALONE,
    DAY,
    DAYS,
    OF_ADOPTED,
    OF_KEPT,
    ORACLE,
    POLICIES,
    TRIAL,
    WEIGHED_ADOPTED,
    WEIGHED_KEPT,
    Worlds,
    like,
    one_world,
    run_worlds,
    score_all,
)
from habitlab.evaluation.offpolicy.online import Moment, list_policy, place_policy, run_lists, slate_log, true_value
from habitlab.models.ranking import top_k
from habitlab.simulation import make_world, populate, simulate
from habitlab.simulation.people import FIRST_DAY


@pytest.fixture(scope="module")
def world():
    return make_world(users=250, days=DAYS, seed=5)


@pytest.fixture(scope="module")
def moment(world):
    return Moment.of(world, DAY)


@pytest.fixture(scope="module")
def worlds():
    return run_worlds(2, 300, seed=30)


def random_lists(moment, seed=0, k=10):
    scores = np.random.default_rng(seed).random(moment.allowed.shape)
    return top_k(np.where(moment.allowed, scores, -np.inf), k)[0]


# Lists on a day of the world


def test_what_may_be_offered_on_a_day_is_what_the_data_know(world, moment):
    """The world's own account of that day, and the temporal split of the data it logged, say the same."""
    dataset = populate(world)
    split = splits.temporal(dataset, pd.Timestamp(FIRST_DAY) + pd.Timedelta(days=DAY))
    known = pd.Index(world.user_ids).get_indexer(pd.Index(split.user_ids))
    assert split.habit_ids.tolist() == list(world.habit_ids)
    assert not (moment.allowed[known] & split.seen.toarray()).any()
    shown = split.train.recommendations.assign(yes=1.0)
    offered = shown.pivot_table(index="user_id", columns="habit_id", values="yes", fill_value=0.0)
    offered = offered.reindex(index=split.user_ids, columns=split.habit_ids, fill_value=0.0).to_numpy() > 0
    assert np.array_equal(moment.allowed[known], Moment.of(world).allowed[known] & ~split.seen.toarray() & ~offered)
    assert set(np.flatnonzero(world.people.registered < DAY)) == set(known)


def test_who_has_left_adopts_nothing(world, moment):
    found = run_lists(world, random_lists(moment), day=DAY)
    gone = ~moment.here
    assert 0.1 < gone.mean() < 0.9
    assert not found.loc[gone, ["expected_adoptions", "expected_successes", "adoptions", "completions"]].any(axis=None)
    assert found.loc[moment.here, "expected_adoptions"].gt(0).all()


def test_before_anybody_registered_nobody_is_there(world, moment):
    assert not run_lists(world, random_lists(moment), day=0).drop(columns=["user_id", "unfit"]).any(axis=None)


def test_expected_is_what_happens_on_average_on_a_day():
    """Over six worlds and four lists each, within four standard errors by user."""
    frames = []
    for seed in range(6):
        world = make_world(200, DAYS, seed)
        there = Moment.of(world, DAY)
        for lot in range(4):
            found = run_lists(world, random_lists(there, lot), day=DAY)
            frames.append(found[there.here].assign(who=found["user_id"] + f"-{seed}"))
    found = pd.concat(frames)
    for what, expected in (("adoptions", "expected_adoptions"), ("successes", "expected_successes")):
        away = (found[what] - found[expected]).groupby(found["who"]).mean()
        assert abs(away.mean()) < 4 * away.std() / np.sqrt(len(away))


def test_later_slates_hold_the_propensities_of_their_candidates(world):
    log = slate_log(world, since=DAY)
    assert (log.day >= DAY).all()
    assert np.allclose(1 / log.candidates().sum(axis=1), log.propensity)
    popular = slate_log(world, since=DAY, popular=True)
    assert not set(popular.user) & set(log.user)
    assert popular.candidates()[np.arange(len(popular)), popular.habit].all()
    assert popular.propensity.std() > 0


def test_later_slates_bring_what_they_are_worth():
    """The uniform policy is worth what its log says, within four standard errors by user, over four worlds."""
    away = []
    for seed in range(4):
        log = slate_log(make_world(500, DAYS, seed), since=DAY)
        uniform = place_policy(log, np.zeros(log.allowed.shape), temperature=1)
        gap = log.reward - true_value(log, uniform)
        away.append(np.bincount(log.user, gap)[np.unique(log.user)])
    away = np.concatenate(away)
    assert abs(away.mean()) < 4 * away.std() / np.sqrt(len(away))


def test_a_list_by_lot_by_hand(world):
    log = slate_log(world, since=DAY).of([0, 1, 2, 3, 4, 5, 6, 7])
    scores = np.random.default_rng(0).normal(size=log.allowed.shape)
    policy = list_policy(log, scores, 10)
    for row in range(len(log)):
        free = np.flatnonzero(log.candidates()[row])
        best = free[np.argsort(-scores[log.user[row], free])[:10]]
        assert set(np.flatnonzero(policy[row])) == set(best)
        assert policy[row, best] == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [np.zeros(3), np.nan])
def test_scores_that_do_not_fit_make_no_list_policy(world, bad):
    log = slate_log(world, since=DAY)
    scores = np.full(log.allowed.shape, bad) if np.isscalar(bad) else bad
    with pytest.raises(ValueError, match="scores"):
        list_policy(log, scores, 10)


# Worlds


def test_every_number_of_every_policy_is_there(worlds):
    assert worlds.truth.groupby("world")["policy"].apply(tuple).tolist() == [POLICIES] * 2
    numbers = worlds.said.groupby(["world", "policy"]).size()
    assert (numbers == numbers.iloc[0]).all()
    assert set(worlds.said["group"]) == {OF_ADOPTED, OF_KEPT, ALONE, WEIGHED_ADOPTED, WEIGHED_KEPT, TRIAL}
    assert not worlds.said.duplicated(["world", "policy", "group", "number"]).any()
    assert worlds.said["value"].notna().all()
    assert set(worlds.weighed["method"]) == set(METHODS)


def test_nobody_beats_who_knows_the_truth(worlds):
    kept = worlds.truth.pivot_table(index="world", columns="policy", values="kept")
    assert (kept[ORACLE] >= 1.2 * kept.drop(columns=ORACLE).max(axis=1)).all()
    assert (kept["random"] < kept["blend"]).all()


def test_models_know_only_the_past(world, moment):
    """Everything from the day on is taken away: the scores of policies that learn do not change."""
    dataset = populate(world)
    until = pd.Timestamp(FIRST_DAY) + pd.Timedelta(days=DAY)
    split = splits.temporal(dataset, until)
    early = split.train.adoptions["adopted_at"].max()
    assert early < pd.Timestamp(until, tz="UTC") + pd.Timedelta(days=2) < dataset.adoptions["adopted_at"].max()
    here = score_all(world, split.train, moment, until)
    there = score_all(world, dataset, moment, until)
    for name in POLICIES:
        assert np.allclose(here[name], there[name]), name


def test_the_same_seed_is_the_same_world():
    first, second = (one_world(make_world(120, DAYS, 8)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_d86_a_log_favours_what_it_showed_unless_it_is_weighed(worlds):
    """The truth, the lists and the fitted models are the same; only whose adoptions judge is changed."""
    found = held.changed_log(worlds)
    assert found["popular_ndcg_popular"].estimate > 1.25 * found["popular_ndcg_random"].estimate
    assert found["popular_ndcg_popular"].estimate > 1.25 * found["popular_truth"].estimate
    wrong = abs(np.log(found["popular_ndcg_popular"].estimate / found["popular_truth"].estimate))
    weighed = abs(np.log(found["popular_snips_popular"].estimate / found["popular_truth"].estimate))
    assert weighed < wrong


def test_weights_that_are_useless_are_told_and_others_are_not(worlds):
    """The first habit of a list is met in 1 of 150 rows; any of its ten in 1 of 15."""
    weighed = worlds.weighed[(worlds.weighed["method"] != "dm") & (worlds.weighed["outcome"] == "adopted")]
    best, lists = (weighed[weighed["target"] == target] for target in ("its best", "any of its list"))
    assert not best["usable"].any()
    assert best["warning"].str.contains("weights are useless").all()
    assert lists["usable"].all()
    assert (lists["effective"] > 4 * best["effective"].to_numpy()).all()
    assert "in its own words" in held.quoted(worlds)


@pytest.mark.parametrize("number", [0, -1])
def test_no_worlds_are_refused(number):
    with pytest.raises(ValueError, match="number of worlds, 1 or more"):
        run_worlds(number, 100)


def test_worlds_are_like_the_dataset(monkeypatch):
    asked = []
    monkeypatch.setattr(offline_online, "run_worlds", lambda *size, **options: asked.append((size, options)))
    dataset = populate(make_world(50, 30, 1, {"clear_description_adoption": 0.0}, "wild"))
    like(dataset, None, None, seed=4)
    like(dataset, 3, 100)
    like(simulate(500, 8), None, None)
    assert [size for size, _ in asked] == [(2, 300), (3, 100), (12, 500)]
    assert asked[0][1]["effects"]["clear_description_adoption"] == 0.0
    assert (asked[0][1]["retention"], asked[0][1]["seed"]) == ("wild", 4)


# Agreement with the truth, on worlds made by hand


def by_hand(values, kept=(1.0, 2.0, 3.0, 4.0), worlds=3):
    """Worlds in which NDCG of adoptions says `values` (worlds, policies) of policies a, b, c, d that keep `kept`."""
    policies = [*"abcd", ORACLE]
    truth = pd.DataFrame(
        [(w, p, k, k) for w in range(worlds) for p, k in zip(policies, [*kept, 9.0], strict=True)],
        columns=["world", "policy", "adopted", "kept"],
    )
    said = pd.DataFrame(
        [
            (w, p, "adopted later", "ndcg", v)
            for w in range(worlds)
            for p, v in zip(policies, [*values[w], -5.0], strict=True)
        ],
        columns=["world", "policy", "group", "number", "value"],
    )
    return Worlds(truth, said, pd.DataFrame(), pd.DataFrame())


def test_agreement_is_kendalls_and_spearmans_over_worlds_without_the_oracle():
    values = [[1, 2, 3, 4], [1, 3, 2, 4], [4, 3, 2, 1]]
    (row,) = held.agreement(by_hand(values), level=0.9).itertuples()
    taus = [1, 4 / 6, -1]
    error = np.std(taus, ddof=1) / np.sqrt(3)
    reach = stats.t.ppf(0.95, 2) * error
    assert (row.estimate, row.ci_low, row.ci_high) == pytest.approx(
        (np.mean(taus), np.mean(taus) - reach, np.mean(taus) + reach)
    )
    assert row.rho == pytest.approx(np.mean([1, 0.8, -1]))
    assert row.lost == pytest.approx(np.mean([0, 0, 1 - 1 / 4]))
    assert row.n == 3


def test_of_policies_that_a_number_puts_first_alike_the_mean_is_lost():
    each = held.rank_correlations(by_hand([[1, 4, 0, 4]], worlds=1))
    assert each["lost"].tolist() == [pytest.approx(1 - 3 / 4)]


def test_a_number_that_is_the_same_for_all_policies_has_no_rank_correlation():
    table = held.agreement(by_hand([[2, 2, 2, 2], [1, 2, 3, 4], [np.nan, 1, 2, 3]]))
    assert table["n"].tolist() == [1]
    assert table["estimate"].tolist() == [1.0]
    assert table["ci_low"].isna().all()


def test_a_number_is_misled_where_it_puts_another_first():
    found = held.misled(by_hand([[1, 2, 3, 4], [9, 2, 3, 4], [9, 2, 3, 4]]))
    assert (found["estimate"], found["n"]) == (2, 3)
    assert found["label"].endswith("most often a")


def test_why_a_number_misleads_is_told_in_two_parts():
    """a is put first and adopted as often as d, which keeps most, but a quarter of it is kept."""
    worlds = by_hand([[9, 2, 3, 4], [9, 2, 3, 5]], worlds=2)
    truth = worlds.truth.assign(adopted=10.0)
    adopted, share = held.why_misled(replace(worlds, truth=truth))
    assert (adopted.estimate, share.estimate) == pytest.approx((1.0, 1 / 4))
    assert (adopted.n, adopted.unit) == (2, "ratio")


def test_findings_say_why_they_have_no_interval(worlds):
    one = Worlds(*(frame[frame["world"] == 0] for frame in (worlds.truth, worlds.said, worlds.weighed, worlds.logs)))
    for estimate in held.named(one).values():
        assert estimate.n == 1
        assert np.isnan(estimate.ci_low)
        assert "1 worlds" in estimate.reason
    assert any(np.isfinite(estimate.ci_low) for estimate in held.named(worlds).values())
    for estimate in held.named(worlds).values():
        assert estimate.reason or estimate.ci_low <= estimate.estimate <= estimate.ci_high


def estimate(low, high):
    return Estimate("key", "label", (low + high) / 2, low, high, 0.95, 12, "r", "method")


@pytest.mark.parametrize(
    ("offline", "trial", "waiting", "words"),
    [
        ((0.4, 0.6), (0.1, 0.3), (0.1, 0.2), ["predict part of it, not as well as a trial", "which is better"]),
        ((0.4, 0.6), (-0.1, 0.3), (-0.2, -0.1), ["as well as a trial as far as", "which is worse"]),
        ((-0.4, 0.6), (0.1, 0.3), (-0.1, 0.1), ["worlds do not tell", "which may be no better"]),
        ((np.nan, np.nan), (np.nan, np.nan), (np.nan, np.nan), ["worlds do not tell", "which may be no better"]),
    ],
)
def test_the_answer_follows_from_the_findings(offline, trial, waiting, words):
    found = {
        "tau_ndcg_adopted": estimate(*offline),
        "trial_less_kept": estimate(*trial),
        "kept_less_adopted": estimate(*waiting),
    }
    assert all(word in held.answer(found) for word in words)


def test_the_tables_of_the_report_hold_what_they_say(worlds):
    agreement = held.agreement(worlds)
    assert len(held.shown(agreement)) == 27
    assert held.for_reading(agreement)["tau"].is_monotonic_decreasing
    policies = held.policies(worlds)
    assert policies["policy"].iloc[0] == ORACLE
    assert policies.set_index("policy").loc["random", "uplift"] == 0
    assert {row.key for row in held.best_policies(worlds)} == {"keeps_most", "adopted_most", "bound"}
    trust = held.trust(worlds).set_index(["target", "method"])
    known = worlds.weighed[(worlds.weighed["target"] == "its best") & (worlds.weighed["method"] == "dr")]
    error = np.sqrt(((known["value"] - known["truth"]) ** 2).mean())
    assert trust.loc[("its best", "dr"), "error"] == pytest.approx(error, abs=1e-4)
    assert len(held.estimated(worlds)) == 2 * 2 * len(POLICIES)
    assert len(held.by_log(worlds)) == len(POLICIES)
    assert held.trusted(worlds)["unusable_best"].estimate == 1


@pytest.mark.long
def test_what_the_page_says_of_many_worlds():
    """Eight worlds: lists alone tell least, logs more, a trial most; the model alone hardly anything."""
    found = held.named(run_worlds(8, 400, seed=500))
    assert found["trial_less_kept"].ci_low > 0
    assert found["tau_ndcg_adopted"].ci_low > 0.3
    assert found["tau_novelty"].ci_high < found["tau_ndcg_adopted"].ci_low
    assert found["tau_trial_kept"].ci_low > found["tau_trial_adopted"].estimate


# Real logs of two policies


def test_absent_logs_say_how_to_get_them(tmp_path):
    with pytest.raises(MissingColumn, match=r"data/README\.md says how to get them"):
        open_bandit.load_both(tmp_path)


def test_each_real_log_is_held_against_the_other(shared_data):
    logs = open_bandit.load_both(shared_data / "open-bandit-men")
    table = open_bandit.each_from_the_other(logs, level=0.95, resamples=200, seed=1)
    assert len(table) == 2 * len(METHODS)
    log, chance = logs["bts"], logs["random"].distribution()
    snips = estimate_value(
        log.click, log.propensity, chance[log.place, log.item], interval="bootstrap", resamples=200, seed=1
    )
    row = table[(table["log"] == "bts") & (table["method"] == "snips")].iloc[0]
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == pytest.approx(
        (100 * snips.value, 100 * snips.ci_low, 100 * snips.ci_high)
    )
    assert row["own"] == pytest.approx(100 * logs["random"].click.mean())
    assert row["gap"] == pytest.approx(row["estimate"] - row["own"])
    assert row["gap_high"] - row["gap"] == pytest.approx(
        np.hypot(row["ci_high"] - row["estimate"], row["own"] - row["own_low"])
    )
    assert "decide on the interval" in open_bandit.warned(table)
    assert open_bandit.for_reading(table).shape == (10, 11)
    found = open_bandit.gaps(table, level=0.95)
    assert "do not contradict each other" in open_bandit.verdict(found)
    shifted = found | {"gap_random": replace(found["gap_random"], ci_high=-0.1)}
    assert open_bandit.verdict(shifted).startswith("The worth of the random policy comes out wrong")
