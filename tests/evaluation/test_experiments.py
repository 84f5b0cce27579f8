"""Two arms compared by unit: assignment, sample ratio, means, proportions, ratios, CUPED, and bad input."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from habitlab.evaluation.experiments import assign, compare_arms, srm_test, unit_values
from habitlab.evaluation.experiments.arm_estimates import _score, score_interval

ROOT = Path(__file__).parents[2]


def trial(users=60, rows=1, effect=0.0, seed=0, spread=1.0, within=False, noise=1.0):
    """Rows of a trial: `spread` is what a user's rows share."""
    draw = np.random.default_rng(seed)
    many = np.full(users, rows) if np.isscalar(rows) else draw.integers(rows[0], rows[1] + 1, users)
    user = np.repeat(np.arange(users), many)
    arm = draw.permutation(np.arange(users) % 2)[user] if not within else draw.integers(0, 2, user.size)
    before = spread * draw.normal(size=users)[user]
    y = before + effect * arm + noise * draw.normal(size=user.size)
    names = np.array(["control", "nudge"], dtype=object)
    return pd.DataFrame({"user": user, "arm": names[arm], "y": y, "before": before + draw.normal(size=user.size) / 2})


def compare(data, **options):
    return compare_arms(data, **{"unit": "user", "arm": "arm", "outcome": "y"} | options)


class TestAssignmentIsSaltedAndSticky:
    """6.3.a Random assignment: salted hash, sticky, unit = user."""

    def test_the_same_user_is_in_the_same_arm_whoever_asks_beside_and_in_what_order(self):
        ids = [f"u{number}" for number in range(500)]
        arms = dict(zip(ids, assign(ids, ["a", "b"], "trial 1"), strict=True))
        assert list(assign(ids[::-1] + ids[:3], ["a", "b"], "trial 1")) == [arms[i] for i in ids[::-1] + ids[:3]]

    def test_the_hash_is_the_published_one_so_another_program_finds_the_same(self):
        assert list(assign(["u1", "u2", "u3", "u4", "u5", "u6"], ["a", "b"], "s")) == list(
            assign(np.array(["u1", "u2", "u3", "u4", "u5", "u6"]), ["a", "b"], "s")
        )
        point = int(hashlib.sha256(b"s\x1fu1").hexdigest()[:16], 16) / 2**64
        assert assign(["u1"], ["a", "b"], "s")[0] == ("a" if point < 0.5 else "b")

    def test_shares_are_those_asked_for(self):
        arms = assign(range(20_000), ["a", "b", "c"], "t", [0.5, 0.3, 0.2])
        counts = pd.Series(arms).value_counts()
        assert srm_test(counts.to_dict(), {"a": 0.5, "b": 0.3, "c": 0.2}) > 0.001

    def test_another_salt_is_another_independent_assignment(self):
        one, other = (assign(range(10_000), ["a", "b"], salt) for salt in ("x", "y"))
        assert stats.chi2_contingency(pd.crosstab(one, other)).pvalue > 0.001

    def test_more_weight_for_the_second_arm_moves_nobody_out_of_it(self):
        small, large = (assign(range(2000), ["a", "b"], "ramp", w) for w in ([0.9, 0.1], [0.5, 0.5]))
        assert set(np.flatnonzero(small == "b")) < set(np.flatnonzero(large == "b"))

    def test_a_number_and_its_text_are_the_same_user(self):
        assert list(assign([7, 8, 9], ["a", "b"], "s")) == list(assign(["7", "8", "9"], ["a", "b"], "s"))

    @pytest.mark.parametrize(
        ("ids", "arms", "salt", "weights", "says"),
        [
            (["u"], ["a"], "s", None, "two or more arms"),
            (["u"], ["a", "a"], "s", None, "once"),
            (["u"], ["a", "b"], "", None, "salt"),
            (["u"], ["a", "b"], "s", [1], "one weight"),
            (["u"], ["a", "b"], "s", [-1, 2], "one weight"),
            (["u"], ["a", "b"], "s", [0, 0], "not all 0"),
            (["u", None], ["a", "b"], "s", None, "missing"),
            ("u", ["a", "b"], "s", None, "a list or a column"),
            ([1.0], ["a", "b"], "s", None, "whole numbers"),
        ],
    )
    def test_impossible_assignments_are_refused(self, ids, arms, salt, weights, says):
        with pytest.raises(ValueError, match=says):
            assign(ids, arms, salt, weights)


class TestSampleRatioBlocksTheReadout:
    """6.3.a: SRM check p < 0.001 blocks the readout."""

    def test_it_is_the_chi_squared_and_for_few_units_the_binomial_test(self):
        assert srm_test({"a": 5000, "b": 5200}) == pytest.approx(stats.chisquare([5000, 5200]).pvalue)
        assert srm_test({"a": 40, "b": 60}) == pytest.approx(stats.binomtest(40, 100).pvalue)
        assert srm_test({"a": 90, "b": 10}, {"a": 9, "b": 1}) == pytest.approx(1)

    def test_a_broken_split_gives_no_number_and_says_why(self):
        data = trial(users=400, effect=1.0)
        broken = data[(data["arm"] == "control") | (data["user"] % 2 == 0)]
        found = compare(broken)
        assert found.srm_p_value < 0.001
        assert found.blocked
        assert np.isnan([found.difference, found.ci_low, found.ci_high, found.p_value]).all()
        assert np.isnan(list(found.means.values())).all()
        assert "sample ratio mismatch" in found.warnings[0]
        assert "units are not split as planned (`weights`)" in found.warnings[0]

    def test_the_same_split_is_read_where_it_was_planned(self):
        data = trial(users=400, effect=1.0)
        planned = data[(data["arm"] == "control") | (data["user"] % 2 == 0)]
        counts = planned.groupby("arm")["user"].nunique()
        assert not compare(planned, weights=counts.to_dict()).blocked

    def test_rows_do_not_count_where_units_are_in_one_arm(self):
        data = trial(users=200, rows=3)
        more = pd.concat([data, *[data[data["arm"] == "nudge"]] * 5])
        assert compare(more).srm_p_value == pytest.approx(compare(data).srm_p_value)

    def test_within_units_the_split_of_their_rows_is_held_against_the_plan(self):
        even = trial(users=100, rows=40, within=True)
        odd = even[(even["arm"] == "control") | (np.arange(len(even)) % 2 == 0)]
        assert compare(even).srm_p_value > 0.001
        assert compare(odd).blocked
        assert "rows of units are not split as planned (`weights`)" in compare(odd).warnings[0]
        assert not compare(odd, weights={"control": 2, "nudge": 1}).blocked

    @pytest.mark.parametrize("counts", [{"a": 3}, {"a": 0, "b": 0}, {"a": np.nan, "b": 3}, {"a": 1.5, "b": 3}])
    def test_no_ratio_without_two_arms_and_units(self, counts):
        with pytest.raises(ValueError, match="two or more arms"):
            srm_test(counts)

    @pytest.mark.parametrize("weights", [{"a": 1, "c": 1}, {"a": 1, "b": np.nan}, {"a": 1, "b": 0}])
    def test_weights_must_name_the_arms_and_be_above_0(self, weights):
        with pytest.raises(ValueError, match="a weight above 0"):
            srm_test({"a": 3, "b": 3}, weights)


class TestMeans:
    """6.3.c Significance tests."""

    def test_one_row_a_unit_is_welchs_test(self):
        data = trial(effect=0.4)
        data.loc[data["arm"] == "nudge", "y"] *= 3
        found = compare(data)
        oracle = stats.ttest_ind(
            data.query("arm == 'nudge'")["y"], data.query("arm == 'control'")["y"], equal_var=False
        )
        assert found.p_value == pytest.approx(oracle.pvalue)
        assert (found.ci_low, found.ci_high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
        assert found.design == "between units"

    def test_many_rows_a_unit_are_the_units_means(self):
        data = trial(rows=(1, 9), effect=0.4)
        means = data.groupby(["user", "arm"], as_index=False)["y"].mean()
        assert compare(data).p_value == pytest.approx(compare(means).p_value)
        assert compare(data).n_units == {"control": 30, "nudge": 30}

    @given(st.integers(0, 1000), st.integers(2, 6))
    @settings(max_examples=20, deadline=None)
    def test_repeating_every_row_changes_nothing(self, seed, times):
        data = trial(rows=(1, 4), effect=0.2, seed=seed)
        once, often = compare(data), compare(pd.concat([data] * times).sample(frac=1, random_state=seed))
        assert (often.difference, often.p_value, often.ci_low) == pytest.approx(
            (once.difference, once.p_value, once.ci_low)
        )

    def test_units_in_both_arms_are_compared_within_units(self):
        data = trial(rows=8, effect=0.3, within=True, spread=5)
        wide = data.pivot_table(index="user", columns="arm", values="y").dropna()
        oracle = stats.ttest_rel(wide["nudge"], wide["control"])
        found = compare(data)
        assert found.design == "within units"
        assert found.p_value == pytest.approx(oracle.pvalue)
        assert (found.ci_low, found.ci_high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
        assert any("both arms: compared within units" in warning for warning in found.warnings)

    def test_the_control_is_found_by_name_by_order_or_as_asked(self):
        data = trial(effect=5.0)
        assert compare(data).arms == ("control", "nudge")
        assert compare(data, control="nudge").difference == pytest.approx(-compare(data).difference)
        assert compare(data.replace({"arm": {"control": "b", "nudge": "a"}})).arms == ("a", "b")
        assert compare(data.replace({"arm": {"nudge": "active"}})).arms == ("control", "active")
        assert compare(data.assign(arm=data["arm"] == "nudge")).difference > 0
        ordered = data.assign(arm=pd.Categorical(data["arm"].replace("control", "z"), ["z", "nudge"]))
        assert compare(ordered).arms == ("z", "nudge")

    @pytest.mark.parametrize(("low", "high"), [(2, 10), (5.0, 10.0), (-1, 1), (False, True)])
    def test_of_numbers_the_smaller_is_the_control_and_the_answer_goes_into_json(self, low, high):
        data = trial(effect=5.0)
        found = compare(data.assign(arm=np.where(data["arm"] == "nudge", high, low)))
        assert found.arms == (low, high)
        assert found.difference > 0
        assert json.loads(json.dumps({"arms": found.arms, "n": found.n_units}))["arms"] == [low, high]

    def test_hedges_g_uses_the_pooled_deviation_with_n_minus_1(self):
        data = trial(users=24, effect=0.8)
        one, other = (data.loc[data["arm"] == name, "y"] for name in ("nudge", "control"))
        pooled = np.sqrt((11 * one.var() + 11 * other.var()) / 22)
        assert compare(data).hedges_g == pytest.approx((one.mean() - other.mean()) / pooled * (1 - 3 / 87))

    def test_a_level_of_99_percent_is_wider(self):
        narrow, wide = compare(trial()), compare(trial(), level=0.99)
        assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high


class TestCuped:
    def test_the_variance_falls_by_the_squared_correlation(self):
        data = trial(users=2000, effect=0.3, spread=2)
        plain, adjusted = compare(data), compare(data, covariate="before")
        within = data.groupby("arm")[["y", "before"]].transform(lambda column: column - column.mean())
        squared = np.corrcoef(within["y"], within["before"])[0, 1] ** 2
        assert adjusted.variance_kept == pytest.approx(1 - squared, abs=1e-9)
        assert (adjusted.standard_error / plain.standard_error) ** 2 == pytest.approx(1 - squared, rel=0.01)

    def test_it_is_the_slope_of_least_squares_with_the_arm(self):
        data = trial(users=80, effect=0.3, spread=2)
        oracle = smf.ols("y ~ C(arm) + before", data).fit().params["C(arm)[T.nudge]"]
        assert compare(data, covariate="before").difference == pytest.approx(oracle)

    def test_within_units_the_difference_of_covariates_counts(self):
        data = trial(users=100, rows=6, effect=0.5, within=True)
        wide = data.pivot_table(index="user", columns="arm", values=["y", "before"]).dropna()
        frame = pd.DataFrame(
            {"y": wide["y", "nudge"] - wide["y", "control"], "x": wide["before", "nudge"] - wide["before", "control"]}
        )
        oracle = smf.ols("y ~ x", frame).fit()
        found = compare(data, covariate="before")
        assert found.difference == pytest.approx(oracle.params["Intercept"])
        assert found.standard_error == pytest.approx(oracle.bse["Intercept"], rel=0.02)

    def test_missing_covariates_count_as_average_and_are_counted(self):
        data = trial(users=100, spread=2)
        data.loc[:9, "before"] = np.nan
        found = compare(data, covariate="before")
        assert any("10 rows have no before" in warning for warning in found.warnings)
        assert found.variance_kept < 0.6

    def test_a_constant_covariate_changes_nothing_and_says_so(self):
        data = trial().assign(before=3.0)
        found = compare(data, covariate="before")
        assert found.p_value == pytest.approx(compare(data).p_value)
        assert any("covariate does not vary" in warning for warning in found.warnings)

    def test_a_covariate_that_the_arm_has_changed_is_warned_of(self):
        data = trial(users=200, effect=2.0)
        found = compare(data.assign(before=data["y"]), covariate="before")
        assert any("before exposure" in warning for warning in found.warnings)


class TestProportions:
    def test_the_interval_inverts_the_score_test_by_a_slow_likelihood(self):
        def slow(x1, n1, x0, n0, gap):
            def loss(p):
                chances = [(x1, p + gap), (n1 - x1, 1 - p - gap), (x0, p), (n0 - x0, 1 - p)]
                return -sum(count * np.log(max(chance, 1e-300)) for count, chance in chances if count)

            low, high = max(0.0, -gap), min(1.0, 1 - gap)
            p0 = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
            p1, n = p0 + gap, n1 + n0
            variance = (p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0) * n / (n - 1)
            return (x1 / n1 - x0 / n0 - gap) / np.sqrt(variance)

        for counts in ((5, 30, 9, 25), (0, 12, 4, 15), (12, 12, 4, 15), (1, 40, 0, 300), (29, 30, 28, 30)):
            for gap in (-0.4, -0.11, 0.0, 0.07, 0.3):
                assert _score(*counts, gap) == pytest.approx(slow(*counts, gap), rel=1e-3, abs=1e-4)
            for end in score_interval(*counts):
                assert abs(end) == 1 or abs(slow(*counts, end)) == pytest.approx(1.96, abs=2e-3)

    @given(st.integers(0, 30), st.integers(0, 20), st.integers(1, 30), st.integers(1, 20))
    @settings(max_examples=100, deadline=None)
    def test_swapping_arms_mirrors_the_interval_and_it_holds_the_difference(self, x1, x0, more1, more0):
        n1, n0 = x1 + more1, x0 + more0
        low, high = score_interval(x1, n1, x0, n0)
        assert score_interval(x0, n0, x1, n1) == pytest.approx((-high, -low), abs=1e-6)
        assert -1 <= low <= x1 / n1 - x0 / n0 <= high <= 1

    def test_the_published_example(self):
        """56 of 70 against 48 of 80: 0.2 with 95 % limits 0.0528 and 0.3382 (Newcombe 1998, table II (a))."""
        assert score_interval(56, 70, 48, 80) == pytest.approx((0.0528, 0.3382), abs=6e-5)

    def test_the_interval_leaves_0_out_just_where_the_test_rejects(self):
        for x1 in range(31):
            data = pd.DataFrame(
                {
                    "user": range(60),
                    "arm": ["control"] * 30 + ["nudge"] * 30,
                    "y": [1] * 10 + [0] * 20 + [1] * x1 + [0] * (30 - x1),
                }
            )
            found = compare(data)
            assert found.method == "two proportions, score"
            assert (found.p_value < 0.05) == (found.ci_low > 0 or found.ci_high < 0)

    def test_the_risk_ratio_stands_beside_with_its_interval(self):
        data = pd.DataFrame({"user": range(200), "arm": ["control", "nudge"] * 100})
        data["y"] = np.where(data["arm"] == "nudge", data["user"] % 10 < 4, data["user"] % 10 < 2)
        found = compare(data)
        ratio, low, high = found.risk_ratio
        assert ratio == pytest.approx(found.means["nudge"] / found.means["control"])
        assert low < ratio < high
        assert np.isnan(found.hedges_g)


class TestRatios:
    """6.3.b: ratio metrics by delta method clustered on user."""

    def make(self, seed=0, users=300, effect=0.1):
        draw = np.random.default_rng(seed)
        rate, arm = draw.beta(3, 3, users), np.arange(users) % 2
        scheduled = 1 + draw.poisson(10 + 20 * rate)
        done = draw.binomial(scheduled, np.clip(rate + effect * arm, 0, 1))
        return pd.DataFrame({"user": range(users), "arm": np.array(["a", "b"])[arm], "done": done, "of": scheduled})

    def test_the_difference_is_that_of_the_pooled_ratios(self):
        data = self.make()
        sums = data.groupby("arm")[["done", "of"]].sum()
        ratio = sums["done"] / sums["of"]
        found = compare(data, outcome="done", denominator="of")
        assert found.difference == pytest.approx(ratio["b"] - ratio["a"])
        assert found.means == pytest.approx(ratio.to_dict())

    def test_the_error_is_that_of_a_cluster_robust_regression_of_rows(self):
        data = self.make()
        rows = data.loc[data.index.repeat(data["of"])].reset_index(drop=True)
        rows["y"] = (rows.groupby("user").cumcount() < rows["done"]).astype(float)
        oracle = smf.ols("y ~ arm", rows).fit(cov_type="cluster", cov_kwds={"groups": rows["user"]})
        found = compare(data, outcome="done", denominator="of")
        assert found.difference == pytest.approx(oracle.params["arm[T.b]"])
        assert found.standard_error == pytest.approx(oracle.bse["arm[T.b]"], rel=0.01)

    def test_a_ratio_of_rows_and_a_mean_of_users_are_different_questions(self):
        data = self.make()
        by_user = data.assign(y=data["done"] / data["of"])
        assert compare(data, outcome="done", denominator="of").difference != pytest.approx(compare(by_user).difference)

    def test_a_denominator_of_0_in_an_arm_is_no_ratio(self):
        found = compare(
            self.make().assign(of=lambda d: d["of"].where(d["arm"] == "a", 0)), outcome="done", denominator="of"
        )
        assert np.isnan(found.difference)
        assert any("denominator adds up to 0" in warning for warning in found.warnings)

    def test_a_negative_denominator_is_refused(self):
        with pytest.raises(ValueError, match="below 0"):
            compare(self.make().assign(of=-1), outcome="done", denominator="of")


class TestWhatCannotBeCompared:
    """Bad input of the issue: a clear error or NaN with its count, never a silent number."""

    def by_hand(self, control, nudge):
        rows = [("control", value) for value in control] + [("nudge", value) for value in nudge]
        return pd.DataFrame(rows, columns=["arm", "y"]).assign(user=range(len(rows)))

    def test_identical_constants(self):
        found = compare(self.by_hand([3.0] * 20, [3.0] * 20))
        assert found.difference == 0
        assert np.isnan([found.ci_low, found.p_value, found.hedges_g]).all()
        assert any("does not vary" in warning for warning in found.warnings)

    def test_all_0_against_all_1(self):
        found = compare(self.by_hand([0] * 20, [1] * 20))
        assert found.difference == 1
        assert 0.7 < found.ci_low < found.ci_high <= 1
        assert 0 < found.p_value < 1e-6
        assert np.isnan(found.risk_ratio[0])

    @pytest.mark.parametrize("value", [0, 1])
    def test_all_0_or_all_1_in_both_arms(self, value):
        found = compare(self.by_hand([value] * 30, [value] * 30))
        assert (found.difference, found.p_value) == (0, 1)
        assert -0.2 < found.ci_low < 0 < found.ci_high < 0.2
        assert any("every unit of both arms" in warning for warning in found.warnings)

    def test_missing_outcomes_are_counted_by_arm_and_left_out(self):
        data = trial(users=100)
        data.loc[data.index[data["arm"] == "nudge"][:4], "y"] = np.nan
        data.loc[data.index[data["arm"] == "nudge"][4], "y"] = np.inf
        found = compare(data)
        assert found.p_value == pytest.approx(compare(data[np.isfinite(data["y"])]).p_value)
        assert found.n_units == {"control": 50, "nudge": 45}
        assert any(
            "5 of 100 rows" in warning and "0 in control and 5 in nudge" in warning for warning in found.warnings
        )

    def test_truths_with_gaps_are_read(self):
        data = trial(users=40).assign(y=lambda d: (d["y"] > 0).astype(object))
        data.loc[3, "y"] = None
        assert sum(compare(data).n_units.values()) == 39
        assert compare(data).p_value == pytest.approx(compare(data.assign(y=data["y"].astype("boolean"))).p_value)

    def test_numbers_in_a_column_of_objects_are_read(self):
        data = trial(users=40)
        mixed = data.assign(y=[None if place == 3 else value for place, value in enumerate(data["y"])])
        assert compare(mixed.astype({"y": object})).p_value == compare(mixed.astype({"y": float})).p_value
        with pytest.raises(ValueError, match="numbers or truths"):
            compare(data.assign(y=data["y"].astype(object).where(data.index > 0, "1.5")))

    @pytest.mark.parametrize("scale", [1e-100, 1e99])
    def test_the_unit_of_measure_does_not_matter(self, scale):
        data = trial(effect=0.5)
        found, same = compare(data.assign(y=data["y"] * scale)), compare(data)
        assert (found.p_value, found.degrees) == pytest.approx((same.p_value, same.degrees))

    def test_the_sample_ratio_is_of_all_who_were_assigned(self):
        data = trial(users=200)
        data.loc[data["arm"] == "nudge", "y"] = data["y"].where(data["user"] % 2 == 0)
        found = compare(data)
        assert not found.blocked
        assert any("unevenly" in warning for warning in found.warnings)

    def test_no_known_outcome_in_one_arm(self):
        data = trial()
        data.loc[data["arm"] == "nudge", "y"] = np.nan
        found = compare(data)
        assert found.n_units["nudge"] == 0
        assert np.isnan(found.difference)
        assert any("nothing to compare" in warning for warning in found.warnings)

    def test_one_arm_only_and_three_arms_are_refused_by_name(self):
        with pytest.raises(ValueError, match="has 1: nudge"):
            compare(trial().query("arm == 'nudge'"))
        with pytest.raises(ValueError, match="has 3: control, nudge, other"):
            compare(pd.concat([trial(), trial().assign(arm="other")]))
        with pytest.raises(ValueError, match="has 0: none"):
            compare(trial().iloc[:0])

    def test_missing_arms_and_users_are_counted_and_left_out(self):
        data = trial()
        data.loc[:2, "arm"] = None
        data["user"] = data["user"].astype(float).where(data.index != 5)
        found = compare(data)
        assert any("4 of 60 rows have no unit or no arm" in warning for warning in found.warnings)

    def test_a_few_who_swap_arms_are_left_out_with_their_number(self):
        data = trial(users=100, rows=2)
        swapped = data.drop_duplicates("user").head(5)
        other = swapped["arm"].map({"control": "nudge", "nudge": "control"})
        found = compare(pd.concat([data, swapped.assign(arm=other, y=1e6)]))
        assert found.design == "between units"
        assert sum(found.n_units.values()) == 95
        assert any("5 of 100 units swapped arms" in warning for warning in found.warnings)
        assert abs(found.difference) < 5

    @pytest.mark.parametrize("users", [1, 2, 3])
    def test_one_unit_an_arm_has_a_difference_and_no_interval(self, users):
        found = compare(self.by_hand([1.0] * 1, [2.5] * 1))
        assert found.difference == 1.5
        assert np.isnan([found.ci_low, found.p_value]).all()
        assert any("single unit" in warning for warning in found.warnings)
        alone = compare(pd.DataFrame({"user": [1, 1], "arm": ["control", "nudge"], "y": [1.0, 2.5]}))
        assert alone.difference == 1.5
        assert np.isnan(alone.p_value)

    def test_few_units_are_warned_of(self):
        assert any("few units: 4 and 4" in warning for warning in compare(trial(users=8)).warnings)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"outcome": "x"}, "no column 'x'; there are"),
            ({"covariate": "x"}, "no column 'x'"),
            ({"level": 1.0}, "between 0 and 1"),
            ({"control": "placebo"}, "no arm 'placebo'"),
            ({"outcome": "word"}, "numbers or truths"),
            ({"outcome": "arm"}, "`arm` is named twice"),
            ({"arm": "user"}, "`user` is named twice"),
            ({"covariate": "y"}, "`y` is named twice"),
            ({"denominator": "y"}, "`y` is named twice"),
            ({"outcome": "complex"}, "numbers or truths"),
            ({"outcome": "huge"}, "too large to be squared"),
            ({"outcome": "double"}, "2 columns are called 'double'"),
        ],
    )
    def test_impossible_questions_are_refused(self, options, says):
        odd = trial().assign(word="a", complex=1j, huge=1e300, double=1.0)
        odd = pd.concat([odd, odd[["double"]]], axis=1)
        with pytest.raises(ValueError, match=says):
            compare(odd, **options)

    def test_a_dictionary_is_no_table(self):
        with pytest.raises(ValueError, match="`data` is a DataFrame"):
            compare(trial().to_dict("list"))

    def test_the_data_are_left_as_they_were(self):
        data = trial(rows=3)
        copy = data.copy()
        compare(data, covariate="before")
        pd.testing.assert_frame_equal(data, copy)


def test_unit_values_are_the_means_of_known_rows():
    data = trial(rows=(1, 3))
    data.loc[0, "y"] = np.nan
    expected = data.groupby(["user", "arm"])["y"].mean().dropna()
    found = unit_values(data, unit="user", arm="arm", outcome="y").set_index(["unit", "arm"])["value"]
    assert found.to_dict() == pytest.approx(expected.to_dict())


def test_the_page_of_definitions_names_what_exists():
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    calls = set(
        re.findall(
            r"\b(experiments|placebo|planning|readout|rollout|sequential|survival|trial_metrics|trials)\.(?!py\b)([a-z_]+)\b",
            page,
        )
    )
    assert len(calls) > 8
    for module, name in calls:
        place = "habitlab.evaluation.experiments" + ("" if module == "experiments" else f".{module}")
        assert hasattr(importlib.import_module(place), name), f"{module}.{name}"
    assert all(f"**{kind}**" in page for kind in ("safe", "harmed", "not shown"))
    assert all(f"| {action} |" in page for action in ("no readout", "keep control", "wait", "roll out"))
