"""Several metrics, outliers, novelty, overlapping experiments, and the decision with its guardrails."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from habitlab.evaluation.experiments import compare_arms
from habitlab.evaluation.experiments.readout import (
    adjust_p_values,
    compare_metrics,
    effect_by_week,
    novelty_decay,
    outlier_sensitivity,
)
from habitlab.evaluation.experiments.rollout import Guardrail, decide, interaction


def people(users=200, seed=0, effect=0.0):
    draw = np.random.default_rng(seed)
    data = pd.DataFrame({"user": range(users), "arm": np.array(["control", "nudge"])[draw.permutation(users) % 2]})
    data["y"] = draw.normal(size=users) + effect * (data["arm"] == "nudge")
    return data


COLUMNS = {"unit": "user", "arm": "arm"}


class TestManyMetrics:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_holm_and_benjamini_hochberg_are_the_textbook_steps(self, p_values):
        named = {str(k): p for k, p in enumerate(p_values)}
        order, n = np.argsort(p_values, kind="stable"), len(p_values)
        holm, bh = np.empty(n), np.empty(n)
        for rank, place in enumerate(order):
            holm[place] = min(1, max((n - r) * p_values[order[r]] for r in range(rank + 1)))
            bh[place] = min(1, min(n / (r + 1) * p_values[order[r]] for r in range(rank, n)))
        assert list(adjust_p_values(named).values()) == pytest.approx(list(holm))
        assert list(adjust_p_values(named, "bh").values()) == pytest.approx(list(bh))

    def test_what_was_not_tested_does_not_count(self):
        found = adjust_p_values({"a": 0.02, "b": float("nan"), "c": 0.5})
        assert found["a"] == pytest.approx(0.04)
        assert np.isnan(found["b"])
        assert np.isnan(adjust_p_values({"a": float("nan")})["a"])
        with pytest.raises(ValueError, match="'holm' or 'bh'"):
            adjust_p_values({"a": 0.1}, "bonferroni")

    def test_the_primary_metric_is_tested_as_it_is_and_the_rest_adjusted(self):
        draw = np.random.default_rng(1)
        data = people().assign(**{f"m{k}": draw.normal(size=200) for k in range(4)})
        found = compare_metrics(data, **COLUMNS, primary="y", secondary=["m0", "m1", "m2", "m3"]).set_index("metric")
        assert found.loc["y", "adjusted_p_value"] == found.loc["y", "p_value"]
        rest = found.drop("y")
        assert rest["adjusted_p_value"].to_dict() == pytest.approx(adjust_p_values(rest["p_value"].to_dict()))
        ratio = data.assign(top=data["m0"].abs(), of=1.0 + data["user"] % 3)
        one = compare_metrics(ratio, **COLUMNS, primary="top", secondary=["m1"], denominators={"top": "of"})
        oracle = compare_arms(ratio, **COLUMNS, outcome="top", denominator="of")
        assert one.loc[0, "p_value"] == pytest.approx(oracle.p_value)
        assert one["test"].tolist() == ["ratio, delta method, Welch's test", "mean, Welch's test"]
        with pytest.raises(ValueError, match="one role"):
            compare_metrics(data, **COLUMNS, primary="y", secondary=["y"])

    def test_family_of_secondary_metrics_errs_at_most_5_of_100_times(self):
        draw, trials, wrong = np.random.default_rng(2), 60, 0
        for _ in range(trials):
            data = people(60).assign(**{f"m{k}": draw.normal(size=60) for k in range(3)})
            found = compare_metrics(data, **COLUMNS, primary="y", secondary=[f"m{k}" for k in range(3)])
            wrong += (found["adjusted_p_value"][1:] < 0.05).any()
        assert wrong <= stats.binom.ppf(0.999, trials, 0.05)


class TestOutliers:
    def test_a_difference_of_one_user_shows_as_such(self):
        data = people(400)
        data.loc[data.index[data["arm"] == "nudge"][0], "y"] = 1000.0
        found = outlier_sensitivity(data, **COLUMNS, outcome="y").set_index("outcome")["difference"]
        assert found["as it is"] > 4
        assert abs(found["winsorised at 1.0%"]) < 0.5
        assert abs(found["trimmed at 1.0%"]) < 0.5

    def test_without_outliers_all_three_agree_and_the_first_is_the_readout(self):
        data = people(2000, effect=0.4)
        found = outlier_sensitivity(data, **COLUMNS, outcome="y")
        assert found["difference"].to_numpy() == pytest.approx(0.4, abs=0.15)
        assert found["p_value"].iloc[0] == pytest.approx(compare_arms(data, **COLUMNS, outcome="y").p_value)
        assert found["changed"].tolist() == [0, 40, 40]
        with pytest.raises(ValueError, match="share"):
            outlier_sensitivity(data, **COLUMNS, outcome="y", share=0.5)

    def ratio(self, users=1000, seed=3):
        draw = np.random.default_rng(seed)
        data = people(users, seed)
        scheduled = 1 + draw.poisson(20, users)
        return data.assign(done=draw.binomial(scheduled, 0.5 + 0.1 * (data["arm"] == "nudge")), scheduled=scheduled)

    def test_of_a_ratio_the_first_row_is_its_readout_and_the_others_agree_without_outliers(self):
        data = self.ratio()
        found = outlier_sensitivity(data, **COLUMNS, outcome="done", denominator="scheduled")
        oracle = compare_arms(data, **COLUMNS, outcome="done", denominator="scheduled")
        first = found.iloc[0]
        assert (first["difference"], first["ci_low"]) == pytest.approx((oracle.difference, oracle.ci_low))
        assert first["p_value"] == pytest.approx(oracle.p_value)
        assert found["difference"].to_numpy() == pytest.approx(0.1, abs=0.02)
        assert found["changed"].tolist() == [0, 20, 20]

    def test_one_user_with_a_thousand_rows_makes_a_ratio_and_shows_as_such(self):
        data = self.ratio()
        heavy = data.index[data["arm"] == "control"][0]
        data.loc[heavy, ["done", "scheduled"]] = 5000
        found = outlier_sensitivity(data, **COLUMNS, outcome="done", denominator="scheduled")
        found = found.set_index("outcome")["difference"]
        assert found["as it is"] < -0.05
        assert found["trimmed at 1.0%"] == pytest.approx(0.1, abs=0.02)

    def test_a_blocked_readout_stays_blocked(self):
        """Of units in both arms the sample ratio is of rows: unit means alone do not show it."""
        draw = np.random.default_rng(5)
        data = pd.DataFrame(
            {"user": np.arange(4000) % 100, "arm": draw.random(4000) < 0.3, "y": draw.normal(size=4000)}
        )
        assert compare_arms(data, **COLUMNS, outcome="y").blocked
        found = outlier_sensitivity(data, **COLUMNS, outcome="y")
        assert found[["difference", "ci_low", "p_value"]].isna().all(axis=None)
        assert all("sample ratio" in notes[0] for notes in found["warnings"])

    def test_nothing_known_to_trim_is_refused(self):
        with pytest.raises(ValueError, match="no unit has a known y"):
            outlier_sensitivity(people().assign(y=np.nan), **COLUMNS, outcome="y")


class TestNovelty:
    """6.3.d Long-term: novelty decay."""

    def weeks(self, early=1.0, late=0.2, users=300, leave=0.0, seed=0):
        draw = np.random.default_rng(seed)
        user, day = (axis.ravel() for axis in np.meshgrid(np.arange(users), np.arange(28), indexing="ij"))
        treated = user % 2
        effect = np.interp(day, [3, 24], [early, late])
        y = draw.normal(size=users)[user] + draw.normal(size=user.size) + effect * treated
        data = pd.DataFrame({"user": user, "arm": np.array(["control", "nudge"])[treated], "day": day, "y": y})
        gone = draw.random(users) < leave
        return data[~(gone[user] & (treated == 1) & (day >= 14))]

    def test_the_effect_of_each_week_is_recovered_with_its_interval(self):
        found = effect_by_week(self.weeks(), **COLUMNS, outcome="y", day="day", level=0.999)
        truth = [np.interp(np.arange(w * 7, w * 7 + 7), [3, 24], [1.0, 0.2]).mean() for w in range(4)]
        assert found["week"].tolist() == [1, 2, 3, 4]
        assert ((found["ci_low"] < truth) & (truth < found["ci_high"])).all()

    def test_decay_is_the_change_within_units_and_surer_than_two_weeks_apart(self):
        data = self.weeks()
        change = novelty_decay(data, **COLUMNS, outcome="y", day="day", weeks=(1, 4))
        by_week = effect_by_week(data, **COLUMNS, outcome="y", day="day")["difference"]
        assert change.difference == pytest.approx(by_week[3] - by_week[0])
        assert change.p_value < 0.001
        assert change.ci_high < 0

    def test_an_effect_that_lasts_does_not_decay(self):
        change = novelty_decay(self.weeks(late=1.0), **COLUMNS, outcome="y", day="day", weeks=(1, 4))
        assert change.ci_low < 0 < change.ci_high

    def test_weeks_from_which_one_arm_left_are_not_read_unless_the_absent_are_counted(self):
        data = self.weeks(leave=0.6)
        found = effect_by_week(data, **COLUMNS, outcome="y", day="day")
        assert found["difference"].isna().tolist() == [False, False, True, True]
        assert "sample ratio" in found["warnings"][2][0]
        filled = effect_by_week(data, **COLUMNS, outcome="y", day="day", fill=0.0)
        assert filled["difference"].notna().all()
        assert filled["n_arm"].tolist() == [150] * 4
        with pytest.raises(ValueError, match="days since"):
            effect_by_week(data.assign(day=-1), **COLUMNS, outcome="y", day="day")
        undated = data.assign(day=data["day"].astype(float).where(data.index > 1))
        missing = effect_by_week(undated, **COLUMNS, outcome="y", day="day")
        assert all(f"2 of {len(data)} rows have no day" in " ".join(notes) for notes in missing["warnings"])
        with pytest.raises(ValueError, match="no row has a day"):
            effect_by_week(data.assign(day=np.nan), **COLUMNS, outcome="y", day="day")


class TestOverlappingExperiments:
    def both(self, together=0.0, seed=0, users=800, rows=2):
        draw = np.random.default_rng(seed)
        one, other = draw.integers(0, 2, (2, users))
        user = np.repeat(np.arange(users), rows)
        y = (draw.normal(size=users) + 0.3 * one + 0.2 * other + together * one * other)[user]
        return pd.DataFrame(
            {"user": user, "one": one[user], "other": other[user], "y": y + draw.normal(size=user.size)}
        )

    def test_a_planted_interaction_is_found_and_none_is_not(self):
        found = interaction(self.both(1.0), unit="user", first="one", second="other", outcome="y")
        assert found.ci_low < 1.0 < found.ci_high
        assert found.p_value < 0.001
        assert interaction(self.both(), unit="user", first="one", second="other", outcome="y").p_value > 0.05

    def test_it_errs_5_of_100_times(self):
        trials = 60
        wrong = sum(
            interaction(self.both(seed=s, users=120), unit="user", first="one", second="other", outcome="y").p_value
            < 0.05
            for s in range(trials)
        )
        assert stats.binom.interval(0.999, trials, 0.05)[0] <= wrong <= stats.binom.interval(0.999, trials, 0.05)[1]

    def test_entangled_assignments_give_no_readout(self):
        data = self.both()
        data["other"] = np.where(data["user"] % 10 > 0, data["one"], data["other"])
        found = interaction(data, unit="user", first="one", second="other", outcome="y")
        assert np.isnan(found.difference)
        assert "go together" in found.warnings[0]

    def test_bad_input(self):
        data = self.both(users=40)
        swapped = data.head(1).assign(other=1 - data["other"].iloc[0])
        found = interaction(pd.concat([data, swapped]), unit="user", first="one", second="other", outcome="y")
        assert any("1 units with more than one" in warning for warning in found.warnings)
        constant = interaction(data.assign(y=1.0), unit="user", first="one", second="other", outcome="y")
        assert np.isnan(constant.p_value)
        few = interaction(data.drop_duplicates(["one", "other"]), unit="user", first="one", second="other", outcome="y")
        assert np.isnan(few.difference)

    def test_what_is_missing_or_infinite_is_counted(self):
        data = self.both(users=200, rows=1)
        data.loc[:2, "y"] = [np.inf, -np.inf, np.nan]
        data["other"] = data["other"].astype(float)
        data.loc[3:4, "other"] = np.nan
        found = interaction(data, unit="user", first="one", second="other", outcome="y")
        assert sum(found.n_units.values()) == 195
        assert np.isfinite(found.difference)
        assert any("2 of 200 rows have no user, one or other" in warning for warning in found.warnings)
        assert any("3 of 198 units have no outcome" in warning for warning in found.warnings)

    @pytest.mark.parametrize(
        ("options", "says"),
        [({"outcome": "x"}, "no column 'x'"), ({"level": 95}, "between 0 and 1"), ({"second": "one"}, "named twice")],
    )
    def test_impossible_questions_are_refused(self, options, says):
        with pytest.raises(ValueError, match=says):
            interaction(
                self.both(users=40), **{"unit": "user", "first": "one", "second": "other", "outcome": "y"} | options
            )


@dataclass(frozen=True)
class Known:
    """Any result with an interval."""

    ci_low: float
    ci_high: float
    difference: float = 0.0
    warnings: tuple[str, ...] = ()
    srm_p_value: float = 0.5


SAFE = [Guardrail(name, Known(-0.01, 0.02), margin=0.02) for name in ("retention", "fairness", "minors")]


def action(primary, guardrails=SAFE, **options):
    return decide("trial", primary, guardrails, decided_at="2026-01-05", **options).action


class TestRollOutGate:
    """6.3.e Roll-out gate: decision object with guardrails (retention, fairness, minors), logged."""

    def test_an_effect_with_all_guardrails_safe_is_rolled_out(self):
        assert action(Known(0.01, 0.05)) == "roll out"

    def test_what_is_not_told_from_nothing_waits_and_what_is_excluded_stays_out(self):
        assert action(Known(-0.01, 0.05)) == "wait"
        assert action(Known(-0.05, -0.01)) == "keep control"
        assert action(Known(0.01, 0.05), smallest_effect=0.02) == "wait"
        assert action(Known(0.001, 0.01), smallest_effect=0.02) == "keep control"

    @pytest.mark.parametrize("name", ["retention", "fairness", "minors"])
    def test_each_guardrail_alone_stops_it(self, name):
        rest = [rail for rail in SAFE if rail.name != name]
        assert action(Known(0.01, 0.05), [*rest, Guardrail(name, Known(-0.09, -0.01), 0.02)]) == "keep control"
        assert action(Known(0.01, 0.05), [*rest, Guardrail(name, Known(-0.09, 0.05), 0.02)]) == "wait"
        assert action(Known(0.01, 0.05), [*rest, Guardrail(name, Known(np.nan, np.nan), 0.02)]) == "wait"
        assert action(Known(0.01, 0.05), rest) == "wait"

    @pytest.mark.parametrize("wrong", [{"margin": np.nan}, {"margin": -0.1}, {"better": "more"}])
    def test_an_impossible_guardrail_is_refused(self, wrong):
        with pytest.raises(ValueError, match="guardrail retention"):
            Guardrail("retention", Known(-0.01, 0.02), **{"margin": 0.02} | wrong)

    def test_lower_can_be_better(self):
        assert action(Known(-0.05, -0.01), better="lower") == "roll out"
        harmed = Guardrail("minors", Known(0.01, 0.09), 0.02, better="lower")
        assert action(Known(0.01, 0.05), [*SAFE[:2], harmed]) == "keep control"

    def test_a_gap_between_groups_harms_whichever_is_behind(self):
        def gap(low, high):
            return [*SAFE[:2], Guardrail("minors", Known(low, high), 0.02, better="equal")]

        assert action(Known(0.01, 0.05), gap(-0.01, 0.015)) == "roll out"
        assert action(Known(0.01, 0.05), gap(-0.01, 0.03)) == "wait"
        assert action(Known(0.01, 0.05), gap(-0.03, 0.01)) == "wait"
        assert action(Known(0.01, 0.05), gap(0.03, 0.06)) == "keep control"
        assert action(Known(0.01, 0.05), gap(-0.06, -0.03)) == "keep control"
        assert action(Known(0.01, 0.05), gap(np.nan, np.nan)) == "wait"

    def test_a_blocked_readout_decides_nothing(self):
        assert action(Known(np.nan, np.nan)) == "no readout"
        assert action(Known(0.01, 0.05, srm_p_value=1e-5)) == "no readout"
        broken = people(400)
        found = compare_arms(broken[(broken["arm"] == "control") | (broken["user"] % 2 == 0)], **COLUMNS, outcome="y")
        decision = decide("trial", found, SAFE, decided_at="2026-01-05")
        assert decision.action == "no readout"
        assert any("sample ratio" in reason for reason in decision.reasons)

    def test_all_reasons_are_given(self):
        decision = decide("trial", Known(-0.01, 0.05), SAFE[:1], decided_at="2026-01-05")
        text = " ".join(decision.reasons)
        assert "guardrail fairness is missing" in text
        assert "guardrail minors is missing" in text
        assert "guardrail retention safe" in text

    def test_it_is_logged_as_a_line_of_json(self, tmp_path):
        found = compare_arms(people(effect=1.0), **COLUMNS, outcome="y")
        decision = decide(
            "nudges", found, [*SAFE, Guardrail("more", Known(np.nan, np.nan), 1)], decided_at="2026-01-05"
        )
        for _ in range(2):
            decision.log(tmp_path / "decisions.jsonl")
        lines = (tmp_path / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2
        row = json.loads(lines[0])
        assert row["experiment"] == "nudges"
        assert row["action"] == decision.action
        assert row["primary"]["ci_low"] == pytest.approx(found.ci_low)
        assert row["guardrails"][3]["ci_low"] is None

    @given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.5))
    def test_nothing_is_rolled_out_that_may_harm_beyond_its_margin(self, low, width, rail_low, rail_width, margin):
        rails = [*SAFE[:2], Guardrail("minors", Known(rail_low, rail_low + rail_width), margin)]
        if action(Known(low, low + width), rails) == "roll out":
            assert low > 0
            assert rail_low > -margin
