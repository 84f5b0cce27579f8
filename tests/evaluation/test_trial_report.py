"""Report 09: numbers, tables and sentences of a real trial and of a simulated one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation.experiments import placebo, readout, real_trials, sequential, trial_metrics, trials
from habitlab.evaluation.experiments import trial_report as report
from habitlab.report import findings
from habitlab.simulation import draw_arms, make_world


@pytest.fixture(scope="module")
def trial():
    return trials.simulated_trial(make_world(users=900, days=140, seed=2), lift=0.27, salt="programme")


@pytest.fixture(scope="module")
def table(trial):
    return trial_metrics.trial_table(trial.seen)


@pytest.fixture(scope="module")
def primary(trial, table):
    return report.primary(table, trial.truth(), 0.95)


def publishable(items):
    """Each item as the page takes it; raises where one is malformed."""
    return {record["key"]: record for record in map(findings._record, items)}


class TestTheRealTrial:
    def test_the_same_table_gives_two_answers(self, shared_data):
        readings = real_trials.browser_readings(str(shared_data / "habitlab-browser"), 0.95)
        by_row, clustered, by_person, adjusted = readings["p_value"]
        assert by_row == pytest.approx(0.0441, abs=5e-5)
        assert by_person == pytest.approx(0.487, abs=5e-4)
        assert min(clustered, adjusted) > 0.05
        assert readings["n"].tolist() == [23_269, 809, 809, 809]
        times, p_values = real_trials.browser_findings(readings, 0.95)
        assert set(publishable([*times, *p_values])) == {
            "time_rows",
            "time_people",
            "p_rows",
            "p_clustered",
            "p_people",
        }
        assert times[0].ci_high < 0 < times[1].ci_high

    def test_by_row_is_students_test_and_by_person_with_rows_alike_is_cluster_robust(self, shared_data):
        rows = trials.load_browser_trial(shared_data / "habitlab-browser")
        readings = real_trials.browser_readings(str(shared_data / "habitlab-browser"), 0.95).set_index("reading")
        plain = smf.ols("time ~ arm", rows).fit()
        assert readings.loc["rows as if people", "p_value"] == pytest.approx(plain.pvalues["arm[T.frequent]"])
        both = rows.groupby("user")["arm"].transform("nunique") == 2
        known = rows[both].reset_index(drop=True)
        clustered = smf.ols("time ~ arm", known).fit(
            cov_type="cluster", cov_kwds={"groups": known["user"].astype("category").cat.codes}
        )
        ours = readings.loc["rows, errors by person"]
        assert ours["difference"] == pytest.approx(clustered.params["arm[T.frequent]"], rel=1e-6)
        assert ours["p_value"] == pytest.approx(clustered.pvalues["arm[T.frequent]"], abs=0.01)

    def test_absent_data_say_how_to_get_them(self, tmp_path):
        with pytest.raises(MissingColumn, match=r"habitlab-conservation-analysis, see data/README.md"):
            real_trials.browser_readings(str(tmp_path), 0.95)

    @pytest.mark.parametrize(
        ("p_values", "words"),
        [
            ((0.04, 0.5), ["shows an effect by row", "none that can be told by person", "count whom the lot fell on"]),
            ((0.04, 0.01), ["shows an effect by row", "and one by person"]),
            ((0.4, 0.5), ["no effect that can be told by row", "nor one by person"]),
            ((0.4, 0.01), ["no effect that can be told by row", "but one by person"]),
        ],
    )
    def test_the_verdict_follows_the_numbers(self, p_values, words):
        readings = pd.DataFrame({"p_value": [p_values[0], 0.2, p_values[1], 0.2]})
        text = " ".join(real_trials.browser_sentences(readings, 0.95))
        assert all(word in text for word in words)


class TestTheSimulatedTrial:
    def test_every_finding_can_be_published_and_every_slot_is_filled(self, trial, table, primary):
        truth = trial.truth()
        _, found, items = primary
        earlier = trials.simulated_trial(make_world(users=300, days=100, seed=3), lift=0.0)
        _, planned = report.plan(trial_metrics.trial_table(earlier.seen), len(table), truth["done"], 0.95)
        _, faults, sentences = report.broken(table, 0.95)
        kept, horizons, days_kept = report.retention(table, trial, 0.95)
        decision = report.gate(table, trial, found, kept)
        _, decided = report.decided(decision)
        ratio = report.sample_ratio(trial)[1]
        known = publishable([*items, *planned, *faults, *days_kept, *decided, *ratio])
        answer = findings.fill(" ".join([*report.trial_sentences(found, truth["done"], decision), *sentences]), known)
        assert "{" not in answer["text"]
        assert decision.action in answer["text"]
        assert len(report.reasons(decision)) == 4
        assert horizons["days"].tolist() == [30, 60, 90]
        assert (horizons["ci_low"] <= horizons["true"]).all()
        assert (horizons["true"] <= horizons["ci_high"]).all()

    def test_the_covariate_takes_away_its_squared_correlation(self, primary):
        known = publishable(primary[2])
        assert known["variance_cut"]["estimate"] == pytest.approx(known["correlation_squared"]["estimate"], abs=1e-6)
        assert known["variance_cut"]["estimate"] > 0.3

    def test_people_lost_from_one_arm_block_the_readout_and_would_have_biased_it(self, table):
        frame, items, sentences = report.broken(table, 0.95)
        assert frame["difference"].isna().tolist() == [False, True, False]
        assert frame["sample ratio p"].tolist()[1:] == ["< 0.001", "1"]
        assert publishable(items)["fault_bias"]["estimate"] > 0.02
        assert "blocks the readout" in sentences[1]
        few = report.broken(table.head(40), 0.95)[2]
        assert "does not see it" in few[1]

    def test_the_secondary_metrics_pay_for_their_number_and_the_primary_does_not(self, trial, table, primary):
        frame = report.metrics(table, primary[1], trial.truth(), 0.95).set_index("metric")
        rest = frame.drop("Completion")
        assert np.isnan(frame.loc["Completion", "p, Holm"])
        assert frame.loc["Completion", "difference"] == primary[1].difference
        assert (rest["p, Holm"] >= rest["p, Benjamini-Hochberg"] - 1e-12).all()
        assert (rest["p, Benjamini-Hochberg"] >= rest["p_value"] - 1e-12).all()
        assert frame.loc["Habits adopted", "true"] == 0

    def test_a_plan_from_earlier_people_comes_out(self, trial, table, primary):
        """The smallest effect that is found is some 2.8 standard errors of what is then seen."""
        earlier = trials.simulated_trial(make_world(users=900, days=100, seed=7), lift=0.0)
        frame, items = report.plan(trial_metrics.trial_table(earlier.seen), len(table), 0.02, 0.95)
        known = publishable(items)
        assert known["mde"]["estimate"] == pytest.approx(2.8 * primary[1].standard_error, rel=0.2)
        assert known["mde_plain"]["estimate"] == pytest.approx(2.8 * primary[0].standard_error, rel=0.2)
        for _, curve in frame.groupby("plan"):
            assert curve["smallest effect"].is_monotonic_decreasing

    def test_days_to_stop_are_those_of_the_looks(self):
        looks = pd.DataFrame(
            {
                "fixed_p_value": [0.5, 0.01, 0.2, 0.01],
                "p_value": [1.0, 0.9, 0.8, 0.01],
                "stop": [False, False, False, True],
                "n_control": 40,
                "n_arm": 41,
            }
        )
        known = publishable(report.looks(looks, 0.95))
        assert (known["naive_stop"]["estimate"], known["valid_stop"]["estimate"]) == (2, 4)
        assert publishable(report.looks(looks, 0.999))["naive_stop"]["estimate"] is None, "at its own level"
        never = publishable(report.looks(looks.assign(stop=False), 0.95))
        assert never["valid_stop"]["estimate"] is None
        assert never["valid_stop"]["reason"]

    def test_weeks_looks_and_placebos_read_the_same_rows(self, trial, table):
        days, truth = report.weekly(trial, weeks=6)
        assert truth.index.tolist() == [1, 2, 3, 4, 5, 6]
        assert (truth[[5, 6]] == 0).all()
        assert (truth[[1, 2, 3, 4]] > 0.005).all()
        by_week = readout.effect_by_week(
            days, unit="user_id", arm="arm", outcome="share", day="day", covariate="before", level=0.999
        )
        assert report.held(by_week.assign(true=by_week["week"].map(truth)), 10)["estimate"] == 6
        last = sequential.peek(days[days["day"] < 30], day="date", planned_effect=0.02, **real_trials.COMPLETION)
        assert last["difference"].iloc[-1] == pytest.approx(
            report.primary(table, trial.truth(), 0.95)[0].difference, abs=0.002
        )
        before = report.run_in(trial)
        assert before["day"].between(-28, -1).all()
        columns = {"unit": "user_id", "outcome": "done", "denominator": "scheduled", "day": "day"}
        false = placebo.false_alarms(before, **columns, planned_effect=0.02, trials=60)
        assert len(publishable(report.alarms(false, 0.95))) == 4
        assert false.set_index("reading").loc["row", "share"] > 0.3

    def test_the_surrogate_ranks_and_misses(self):
        effects = trials.surrogate_effects(make_world(users=60, days=130, seed=1), draw_arms(0, arms=30))
        known = publishable(report.surrogate(effects))
        assert known["rank"]["estimate"] > 0.8
        assert 0.2 < known["missed"]["estimate"] < 0.8
        nothing = publishable(report.surrogate(effects[effects["lift"] == 0]))
        assert nothing["rank"]["estimate"] is None
        assert nothing["missed"]["estimate"] is None

    def test_too_few_people_are_refused(self):
        with pytest.raises(ValueError, match="users must be 200 or more"):
            report.live(199, 0.27, 0)

    def test_a_small_trial_says_that_it_cannot_tell(self):
        small = trials.simulated_trial(make_world(users=60, days=140, seed=4), lift=0.1)
        rows = trial_metrics.trial_table(small.seen)
        _, found, _ = report.primary(rows, small.truth(), 0.95)
        kept = report.retention(rows, small, 0.95)[0]
        decision = report.gate(rows, small, found, kept)
        assert decision.action in ("wait", "keep control")
        assert "cannot be told from none" in report.trial_sentences(found, small.truth()["done"], decision)[0]


class TestTrialsOfADataset:
    """Experiments that a dataset of one's own holds are read the same way."""

    def test_each_arm_is_held_against_the_control(self, trial):
        log = trial.seen.experiments
        three = log.assign(experiment="three", arm=log["arm"].where(log.index % 3 > 0, "other"))
        one = log.assign(experiment="one", arm="nudge")
        dataset = replace(trial.seen, experiments=pd.concat([log, three, one], ignore_index=True))
        found = real_trials.own_trials(dataset, 0.95).set_index("experiment")
        assert found.loc["programme", "arms"] == "programme against control"
        assert found.loc["programme", "p_value"] < 1
        assert len(found.loc[["three"]]) == 2
        assert np.isnan(found.loc["one", "difference"])
        assert found.loc["one", "remarks"] == "needs two arms; it has 1"

    def test_the_control_of_many_arms_is_found_by_its_name(self, trial):
        log = trial.seen.experiments
        arms = np.array(["alarm", "badge", "control"])[np.arange(len(log)) % 3]
        found = real_trials.own_trials(replace(trial.seen, experiments=log.assign(arm=arms)), 0.95)
        assert found["arms"].tolist() == ["alarm against control", "badge against control"]

    def test_what_cannot_be_read_says_why_and_no_experiment_is_no_row(self, trial):
        assert real_trials.own_trials(Dataset(), 0.95).empty
        bare = replace(trial.seen, adoptions=Dataset().adoptions, users=trial.seen.users[["user_id"]])
        found = real_trials.own_trials(bare, 0.95)
        assert len(found) == 1
        assert found["remarks"].iloc[0] or np.isfinite(found["difference"].iloc[0])
