"""Trials with a known truth, a real one, and the metrics of an app's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from habitlab.dataset import Dataset
from habitlab.evaluation.experiments import assign, compare_arms, srm_test
from habitlab.evaluation.readout import effect_by_week, novelty_decay
from habitlab.evaluation.survival import compare_retention
from habitlab.evaluation.trials import load_browser_trial, outcomes, simulated_trial, surrogate_effects
from habitlab.simulation import draw_arms, make_world, simulate

SIDES = {"unit": "user", "arm": "arm", "outcome": "done"}


@pytest.fixture(scope="module")
def world():
    return make_world(users=600, days=130, seed=21)


@pytest.fixture(scope="module")
def trial(world):
    return simulated_trial(world, lift=0.25)


@pytest.fixture(scope="module")
def browser(shared_data):
    return load_browser_trial(shared_data / "habitlab-browser")


class TestSimulatedTruth:
    """A trial in the simulated world finds what is planted, and nothing where nothing is."""

    def test_the_interval_holds_the_true_effect(self, trial):
        first_weeks = trial.rows[trial.rows["day"] < 28]
        truth = trial.effect(0, 28)
        assert 0.02 < truth < 0.15
        found = compare_arms(first_weeks, **SIDES, level=0.999)  # one trial, so not 1 failure in 20
        assert found.ci_low < truth < found.ci_high
        assert not found.blocked

    def test_an_arm_that_does_nothing_has_a_true_effect_of_0(self, world):
        assert simulated_trial(world, lift=0.0).effect() == 0

    def test_the_programmes_end_shows_week_by_week(self, trial, world):
        """G7: after 28 days nothing is left of an arm that does not last."""
        assert trial.effect(28, 56) == 0
        data = trial.rows[trial.rows["day"] < 42]
        # Days since the start of each user's first habit stand for those since exposure.
        found = effect_by_week(data, unit="user", arm="arm", outcome="done", day="day", level=0.999)
        for week, low, high in zip(found["week"], found["ci_low"], found["ci_high"], strict=True):
            assert low < trial.effect(7 * (week - 1), 7 * week) < high
        lasting = simulated_trial(world, lift=0.25, lasts=True)
        assert lasting.effect(28, 56) > 0.01

    def test_what_is_observed_is_one_of_the_two_worlds(self, trial):
        joined = trial.rows.merge(trial.potential, on=["user", "habit", "day"])
        expected = joined["with"].where(joined["arm"] == "programme", joined["without"])
        assert (joined["done"] == expected).all()
        by_user = trial.rows.drop_duplicates("user")
        assert by_user["arm"].tolist() == list(assign(by_user["user"].astype(str), ["control", "programme"], "trial"))
        assert srm_test(by_user["arm"].value_counts().to_dict()) > 0.001

    def test_intervals_hold_the_truth_over_many_assignments(self, trial):
        trials, held, truth = 100, 0, trial.effect(0, 28)
        first_weeks = trial.potential[trial.potential["day"] < 28]
        users = first_weeks.groupby("user")[["without", "with"]].mean().reset_index()
        for number in range(trials):
            arm = assign(users["user"], ["control", "programme"], f"trial {number}")
            seen = users.assign(arm=arm, done=users["with"].where(arm == "programme", users["without"]))
            found = compare_arms(seen, **SIDES)
            held += found.ci_low < truth < found.ci_high
        assert held >= stats.binom.ppf(0.001, trials, 0.95)


class TestSurrogate:
    """6.3.d Long-term 30-90 days: surrogate against the 90-day truth."""

    def test_30_days_rank_the_arms_and_do_not_tell_which_last(self, world):
        found = surrogate_effects(world, draw_arms(3))
        working = found[found["lift"] > 0]
        assert stats.spearmanr(found["surrogate"], found["truth"]).statistic > 0.8
        assert (found.loc[found["lift"] == 0, ["surrogate", "truth"]] == 0).all(axis=None)
        ends, lasts = working[~working["lasts"]], working[working["lasts"]]
        assert len(lasts) > 0
        assert ends["later"].to_numpy() == pytest.approx(0, abs=1e-12)
        assert (lasts["later"] > 0.3 * lasts["surrogate"]).all()

    def test_the_novelty_of_a_programme_that_ends_decays(self, world):
        trial = simulated_trial(world, lift=0.27)
        change = novelty_decay(trial.rows, **SIDES, day="day", weeks=(2, 6))
        truth = trial.effect(35, 42) - trial.effect(7, 14)
        assert truth < -0.02
        assert change.difference < 0


class TestRealTrial:
    """The published trial: 849 users, 95 % of them in both arms, 2 to 263 rows each."""

    def test_it_is_read_as_its_source_says(self, browser):
        assert len(browser) == 23_269
        assert browser["user"].nunique() == 849
        assert browser["arm"].value_counts().to_dict() == {"infrequent": 11_707, "frequent": 11_562}

    def test_the_site_of_other_users_is_not_ones_own(self, browser):
        for goal in ("news", "www"):
            of_goal = browser[browser["goal"] == goal]
            row = of_goal[of_goal["user"] == of_goal["user"].mode().iloc[0]].iloc[0]
            others = of_goal[of_goal["user"] != row["user"]]
            assert row["goal_time"] == pytest.approx(others["time"].mean(), rel=1e-9)

    def test_it_is_compared_within_users_with_a_warning(self, browser):
        found = compare_arms(browser, unit="user", arm="arm", outcome="time")
        assert found.arms == ("infrequent", "frequent")
        assert found.design == "within units"
        assert found.n_units == {"infrequent": 809, "frequent": 809}
        assert any("40 units in one arm only are left out" in warning for warning in found.warnings)
        wide = browser.pivot_table(index="user", columns="arm", values="time", observed=True).dropna()
        oracle = stats.ttest_rel(wide["frequent"], wide["infrequent"])
        assert found.p_value == pytest.approx(oracle.pvalue)
        assert found.srm_p_value > 0.001

    def test_rows_taken_for_people_are_too_sure(self, browser):
        """Which site is read differs more than what the nudges do: the covariate takes some of it away."""
        plain = compare_arms(browser, unit="user", arm="arm", outcome="time")
        adjusted = compare_arms(browser, unit="user", arm="arm", outcome="time", covariate="goal_time")
        assert adjusted.standard_error < plain.standard_error
        rows = smf.ols("time ~ arm", browser).fit()
        assert rows.bse["arm[T.frequent]"] < 0.5 * plain.standard_error

    def test_dealing_the_arms_of_each_user_at_random_finds_nothing_95_of_100_times(self, browser):
        draw, trials, found = np.random.default_rng(4), 60, 0
        for _ in range(trials):
            dealt = browser.assign(arm=browser["arm"].to_numpy()[draw.permutation(len(browser))])
            found += compare_arms(dealt, unit="user", arm="arm", outcome="time").p_value < 0.05
        assert found <= stats.binom.ppf(0.999, trials, 0.05)


def test_without_the_file_it_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="habitlab-conservation-analysis"):
        load_browser_trial(tmp_path)


class TestMetricsOfATrial:
    """6.3.b Adoption, completion, retention metrics: one definition."""

    def by_hand(self):
        users = pd.DataFrame({"user_id": ["a", "b", "c"], "registered_at": "2026-01-01T00:00:00Z"})
        days = pd.date_range("2026-01-01", "2026-03-01").strftime("%Y-%m-%d")
        tracking = pd.DataFrame(
            [("a", day, "done" if k < 20 else "missed") for k, day in enumerate(days)]
            + [("b", day, "done" if k % 2 else "skipped") for k, day in enumerate(days)],
            columns=["user_id", "date", "status"],
        ).assign(habit_id="h")
        adoptions = pd.DataFrame(
            {
                "user_id": ["a", "a", "b"],
                "habit_id": ["h", "g", "h"],
                "adopted_at": ["2026-01-05T10:00:00Z", "2026-02-20T10:00:00Z", "2025-12-01T10:00:00Z"],
            }
        )
        habits = pd.DataFrame({"habit_id": ["h", "g"], "name_en": ["H", "G"]})
        return Dataset(users=users, habits=habits, habit_tracking=tracking, adoptions=adoptions)

    def test_each_metric_by_hand(self):
        exposed = pd.Series(pd.Timestamp("2026-01-03"), index=["a", "b", "c"])
        found = outcomes(self.by_hand(), exposed, days=30).set_index("user_id")
        assert found["adopted"].to_dict() == {"a": 1, "b": 0, "c": 0}
        assert found["done"].to_dict() == {"a": 18, "b": 15, "c": 0}
        assert found["scheduled"].to_dict() == {"a": 30, "b": 15, "c": 0}
        # Data end on 1 March; 15 February is the last day that can be told: 44 days from exposure.
        assert found["kept_days"].to_dict() == {"a": 18, "b": 44, "c": 0}
        assert found["ended"].to_dict() == {"a": True, "b": False, "c": True}

    def test_done_on_the_last_day_that_can_be_told_is_kept_till_then_and_not_ended(self):
        dataset = self.by_hand()
        exposed = pd.Series(pd.Timestamp("2026-01-03"), index=["b"])
        for last, days, ended in (("2026-02-14", 43, True), ("2026-02-15", 44, False), ("2026-02-16", 44, False)):
            status = np.where(dataset.habit_tracking["date"] <= last, "done", "missed")
            changed = replace(dataset, habit_tracking=dataset.habit_tracking.assign(status=status))
            found = outcomes(changed, exposed).iloc[0]
            assert (found["kept_days"], found["ended"]) == (days, ended)

    def test_exposed_too_late_to_tell_are_left_out(self):
        exposed = pd.Series(pd.to_datetime(["2026-01-03", "2026-02-20"]), index=["a", "b"])
        assert outcomes(self.by_hand(), exposed)["user_id"].tolist() == ["a"]
        with pytest.raises(ValueError, match="exposed once"):
            outcomes(self.by_hand(), pd.Series([pd.NaT], index=["a"]))

    def test_on_simulated_data_an_a_a_split_differs_in_nothing(self):
        dataset = simulate(users=300, days=120, seed=5)
        start = dataset.users.set_index("user_id")["registered_at"]
        found = outcomes(dataset, start, days=30)
        found["arm"] = assign(found["user_id"], ["a", "b"], "A/A")
        columns = {"unit": "user_id", "arm": "arm"}
        assert compare_arms(found, **columns, outcome="done", denominator="scheduled").p_value > 0.001
        assert compare_arms(found, **columns, outcome="adopted").p_value > 0.001
        kept = compare_retention(found, **columns, days="kept_days", ended="ended", horizon=60)
        assert kept.p_value > 0.001
        assert 0 < kept.days_kept["a"] < 60
