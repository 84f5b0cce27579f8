"""Trials with a known truth, a real one, and the metrics of an app's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation.experiments import assign, compare_arms, srm_test
from habitlab.evaluation.experiments.readout import effect_by_week, novelty_decay
from habitlab.evaluation.experiments.survival import compare_retention
from habitlab.evaluation.experiments.trial_metrics import METRICS, assignments, daily, exposure, outcomes, trial_table
from habitlab.evaluation.experiments.trials import load_browser_trial, simulated_trial, surrogate_effects
from habitlab.simulation import draw_arms, make_world, simulate

SIDES = {"unit": "user_id", "arm": "arm", "outcome": "share"}


def by_day(trial, dataset=None):
    """A row a user and day since exposure, with the share done and the arm."""
    exposed = trial.exposed.set_index("user_id")
    rows = daily(trial.seen if dataset is None else dataset, exposed["exposed"])
    return rows.assign(arm=rows["user_id"].map(exposed["arm"]), share=rows["done"] / rows["scheduled"])


@pytest.fixture(scope="module")
def world():
    return make_world(users=800, days=140, seed=21)


@pytest.fixture(scope="module")
def trial(world):
    return simulated_trial(world, lift=0.25)


@pytest.fixture(scope="module")
def browser(shared_data):
    return load_browser_trial(shared_data / "habitlab-browser")


class TestSimulatedTruth:
    """A trial in the simulated world finds what is planted, and nothing where nothing is."""

    def test_the_interval_of_each_metric_holds_its_true_effect(self, trial):
        table, truth = trial_table(trial.seen), trial.truth()
        assert 0.005 < truth["done"] < 0.1
        assert truth["adopted"] == truth["any_adopted"] == 0
        for name, metric in METRICS.items():
            columns = {"unit": "user_id", "arm": "arm", "outcome": name, "denominator": metric.denominator}
            found = compare_arms(table, **columns, level=0.999)  # one trial, so not 1 failure in 20
            assert found.ci_low <= truth[name] <= found.ci_high, name
            assert not found.blocked

    def test_what_people_did_before_takes_a_good_part_of_the_variance_away(self, trial):
        table = trial_table(trial.seen)
        columns = {"unit": "user_id", "arm": "arm", "outcome": "done", "denominator": "scheduled"}
        plain, adjusted = compare_arms(table, **columns), compare_arms(table, **columns, covariate="before")
        assert adjusted.variance_kept < 0.7
        assert adjusted.standard_error < plain.standard_error

    def test_an_arm_that_does_nothing_has_a_true_effect_of_0(self, world):
        nothing = simulated_trial(world, lift=0.0)
        assert nothing.effect() == 0
        assert set(nothing.truth().values()) == {0.0}

    def test_the_programmes_end_shows_week_by_week(self, trial, world):
        """G7: after 28 days nothing is left of an arm that does not last."""
        assert trial.effect(28, 56) == 0
        rows = by_day(trial)
        rows = rows[rows["day"].between(0, 41)]
        found = effect_by_week(rows, **SIDES, day="day", level=0.999)
        both = [by_day(trial, dataset) for dataset in (trial.without, trial.treated)]
        for week, low, high in zip(found["week"], found["ci_low"], found["ci_high"], strict=True):
            parts = [one[one["day"].between(7 * week - 7, 7 * week - 1)] for one in both]
            control, treated = (part.groupby("user_id")["share"].mean().mean() for part in parts)
            assert low < treated - control < high
        assert simulated_trial(world, lift=0.25, lasts=True).effect(28, 56) > 0.005

    def test_before_exposure_the_arms_live_alike(self, trial):
        before = [by_day(trial, dataset).query("day < 0") for dataset in (trial.without, trial.treated)]
        pd.testing.assert_frame_equal(*before)

    def test_what_is_observed_is_one_of_the_two_worlds(self, trial):
        key = ["user_id", "day"]
        seen, without, treated = (
            by_day(trial, dataset).set_index(key)["done"] for dataset in (trial.seen, trial.without, trial.treated)
        )
        arm = trial.exposed.set_index("user_id")["arm"].reindex(seen.index.get_level_values(0)).to_numpy()
        assert (seen == treated.where(arm == "programme", without)).all()
        log = trial.seen.experiments
        assert log["arm"].tolist() == list(assign(log["user_id"], ["control", "programme"], "trial"))
        assert srm_test(log["arm"].value_counts().to_dict()) > 0.001

    def test_who_left_before_is_assigned_and_not_exposed(self, trial):
        assigned = assignments(trial.seen)
        assert 0.1 < assigned["exposed"].isna().mean() < 0.5
        told = exposure(assigned)
        assert told["assigned"].sum() == 800
        assert told["exposed"].sum() == len(trial_table(trial.seen))
        assert (told["alike"] > 0.001).all()

    def test_intervals_hold_the_truth_over_many_assignments(self, trial):
        trials, held, truth = 100, 0, trial.truth()["done"]
        exposed = trial.exposed.set_index("user_id")["exposed"]
        without, treated = (outcomes(dataset, exposed) for dataset in (trial.without, trial.treated))
        for number in range(trials):
            arm = assign(without["user_id"], ["control", "programme"], f"trial {number}")
            seen = without.where(pd.Series(arm == "control", index=without.index), treated).assign(arm=arm)
            found = compare_arms(
                seen.astype({"done": float, "scheduled": float}),
                unit="user_id",
                arm="arm",
                outcome="done",
                denominator="scheduled",
            )
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
        trial = simulated_trial(make_world(users=2000, days=100, seed=21), lift=0.27)
        rows = by_day(trial)
        change = novelty_decay(rows[rows["day"] >= 0], **SIDES, day="day", weeks=(2, 6), level=0.999)
        truth = trial.effect(35, 42) - trial.effect(7, 14)
        assert truth < -0.01
        assert change.ci_low < truth < change.ci_high


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
        assert found["completion"].to_dict() == pytest.approx({"a": 0.6, "b": 1.0, "c": np.nan}, nan_ok=True)
        assert found["active_days"].to_dict() == {"a": 18, "b": 15, "c": 0}
        assert found["before"].to_dict() == pytest.approx({"a": 1.0, "b": 1.0, "c": np.nan}, nan_ok=True)
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

    def test_days_are_the_users_own(self):
        """Adopted at 23:30 UTC is the next day in Moscow, and 22:30 UTC, with a day that starts at 4, still the day."""
        dataset = self.by_hand()
        users = dataset.users.assign(zone="Europe/Moscow", day_start=4.0)
        for at, adopted in (("2026-01-05T23:30:00Z", 1), ("2026-01-06T02:00:00Z", 0)):
            adoptions = pd.DataFrame({"user_id": ["a"], "habit_id": ["h"], "adopted_at": [at]})
            # 02:30 in Moscow belongs to the 5th, 05:00 to the 6th.
            found = outcomes(
                replace(dataset, users=users, adoptions=adoptions), pd.Series(pd.Timestamp("2026-01-05"), index=["a"]),
                days=1,
            )  # fmt: skip
            assert found["adopted"].iloc[0] == adopted

    def test_assignments_come_from_the_table_of_experiments(self):
        log = pd.DataFrame(
            {
                "experiment": ["x", "x", "y"],
                "user_id": ["a", "b", "a"],
                "arm": ["control", "nudge", "nudge"],
                "assigned_at": ["2026-01-03T10:00:00Z"] * 3,
                "exposed_at": ["2026-01-04T10:00:00Z", None, None],
            }
        )
        dataset = replace(self.by_hand(), experiments=log)
        assert assignments(dataset, "x")["exposed"].tolist() == [pd.Timestamp("2026-01-04"), pd.NaT]
        # Where no exposure was logged at all, assignment stands for it.
        assert assignments(dataset, "y")["exposed"].tolist() == [pd.Timestamp("2026-01-03")]
        assert trial_table(dataset, "x")["user_id"].tolist() == ["a"]
        with pytest.raises(ValueError, match="name one of the experiments x, y"):
            assignments(dataset)
        with pytest.raises(MissingColumn, match="needs an experiment 'z'; this dataset has x, y"):
            assignments(dataset, "z")
        with pytest.raises(MissingColumn, match="has none"):
            assignments(self.by_hand())

    def test_a_user_in_two_arms_of_an_experiment_is_refused_by_name(self):
        """The contract's key allows one row a user and experiment; a frame made by hand may break it."""
        log = pd.DataFrame({"experiment": "x", "user_id": ["a", "a"], "arm": ["control", "nudge"]})
        dataset = self.by_hand()
        object.__setattr__(dataset, "experiments", log)
        with pytest.raises(ValueError, match="1 users have two arms of x, such as 'a'"):
            assignments(dataset)

    def test_every_metric_has_its_column_and_its_words(self):
        exposed = pd.Series(pd.Timestamp("2026-01-03"), index=["a"])
        columns = set(outcomes(self.by_hand(), exposed))
        page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
        for name, metric in METRICS.items():
            assert {name, metric.denominator} - {None} <= columns
            assert f"`{name}`" in page

    def test_exposed_too_late_to_tell_are_left_out(self):
        exposed = pd.Series(pd.to_datetime(["2026-01-03", "2026-02-20"]), index=["a", "b"])
        assert outcomes(self.by_hand(), exposed)["user_id"].tolist() == ["a"]
        with pytest.raises(MissingColumn, match="needs somebody exposed 14 days or more before the data end"):
            outcomes(self.by_hand(), exposed[["b"]])
        with pytest.raises(MissingColumn, match="there is nobody"):
            outcomes(self.by_hand(), exposed[:0])
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
