"""The register: verdicts at their boundaries, nothing found where nothing is, and a reason where there is no answer."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from habitlab.dataset import Dataset
from habitlab.evaluation import behaviour, claims
from habitlab.evaluation.claims import REGISTER, Draw, evaluate, verdict
from habitlab.evaluation.estimates import Resampled

from .people import ordinary_people

EFFECTS = {
    "complexity_time_commitment", "concurrent_habits_completion", "consistent_time_streak", "goal_setting_completion",
    "clear_description_adoption", "midway_dip", "time_of_day_peaks", "optimal_duration", "category_success",
    "daily_vs_weekly", "difficulty_progression", "demographics_category",
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    return ordinary_people(240, 130)


@pytest.fixture(scope="module")
def few():
    return ordinary_people(40, 110)


@pytest.fixture(scope="module")
def results(dataset):
    return {result.key: result for result in evaluate(dataset, resamples=400)}


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0.70, 0.74, "reproduced"),
            (0.75, 0.80, "reproduced"),  # 0.75 - 0.03 is 0.72: the widened interval holds it
            (0.7501, 0.80, "differs"),
            (0.60, 0.69, "reproduced"),
            (0.60, 0.6899, "differs"),
            (0.03, 0.90, "inconclusive"),  # the widened interval begins at 0
            (0.0301, 0.90, "reproduced"),
            (-0.9, 0.9, "inconclusive"),
            (-0.02, 0.02, "differs"),
            (-0.9, -0.7, "differs"),
            (float("nan"), 0.8, "not testable"),
            (0.7, float("nan"), "not testable"),
        ],
    )
    def test_with_a_number(self, low, high, expected):
        assert verdict(low, high, reported=0.72, tolerance=0.03) == expected

    def test_below_zero(self):
        assert verdict(-0.60, -0.50, reported=-0.58, tolerance=0.03, side=-1) == "reproduced"
        assert verdict(-0.60, -0.03, reported=-0.58, tolerance=0.03, side=-1) == "inconclusive"
        assert verdict(0.50, 0.60, reported=-0.58, tolerance=0.03, side=-1) == "differs"

    @pytest.mark.parametrize(
        ("low", "high", "side", "expected"),
        [
            (0.01, 0.2, 1, "reproduced"),
            (0.0, 0.2, 1, "inconclusive"),
            (-0.1, 0.0, 1, "inconclusive"),
            (-0.2, -0.01, 1, "differs"),
            (-0.2, -0.01, -1, "reproduced"),
            (0.01, 0.2, -1, "differs"),
            (-0.2, 0.2, -1, "inconclusive"),
            (float("nan"), float("nan"), 1, "not testable"),
        ],
    )
    def test_without_a_number(self, low, high, side, expected):
        assert verdict(low, high, reported=None, side=side) == expected

    @given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.floats(0, 0.2))
    def test_a_wider_tolerance_never_makes_it_differ(self, low, width, reported, tolerance):
        strict = verdict(low, low + width, reported=reported)
        loose = verdict(low, low + width, reported=reported, tolerance=tolerance)
        assert not (loose == "differs" and strict != "differs")


class TestParts:
    """A claim of several parts holds when all do."""

    def parts(self, *centres, spread=0.01):
        draw = np.random.default_rng(0)
        centre = np.array(centres, dtype=float)
        replicates = centre + spread * draw.normal(size=(4000, len(centre)))
        none = np.zeros(len(centre))
        return [Resampled(centre, replicates, np.full(len(centre), spread), none, 500)]

    def judge(self, *centres):
        names = [f"part {i}" for i in range(len(centres))]
        found = claims._all_of(self.parts(*centres), names, Draw(), 500, "method")
        return found, verdict(found.ci_low, found.ci_high, reported=None)

    @pytest.mark.parametrize(
        ("centres", "expected"),
        [
            ((0.1, 0.2), "reproduced"),
            ((0.1, 0.0), "inconclusive"),
            ((0.1, -0.1), "differs"),
            ((0.5, 0.5, 0.5, -0.025), "inconclusive"),  # beyond 1.96 errors, not beyond what four parts share
            ((0.5, -0.025), "differs"),
        ],
    )
    def test_by_the_least_favourable(self, centres, expected):
        assert self.judge(*centres)[1] == expected

    def test_says_which_one(self):
        found, _ = self.judge(0.3, 0.1, 0.2)
        assert found.estimate == pytest.approx(0.1)
        assert found.method.endswith("part 1")
        assert found.ci_low < found.estimate < found.ci_high

    def test_p_value_is_small_only_where_all_hold(self):
        assert self.judge(0.1, 0.2)[0].p_value < 0.01
        assert self.judge(0.1, 0.0)[0].p_value > 0.1
        assert self.judge(0.1, -0.1)[0].p_value == 1

    def test_a_part_without_interval_leaves_no_verdict(self):
        (part,) = self.parts(0.1, np.nan)
        found = claims._all_of([part], ["a", "b"], Draw(), 500, "method")
        assert verdict(found.ci_low, found.ci_high, reported=None) == "not testable"
        assert found.reason.startswith("b: undefined")
        assert np.isnan(found.p_value)


class TestRegister:
    def test_has_every_effect_once(self):
        assert [claim.key for claim in REGISTER] == list(dict.fromkeys(claim.key for claim in REGISTER))
        assert {claim.key for claim in REGISTER} == EFFECTS

    def test_reports_the_overview_s_numbers(self):
        reported = {claim.key: claim.reported for claim in REGISTER if claim.reported is not None}
        assert reported == {
            "clear_description_adoption": 0.27,
            "complexity_time_commitment": 0.72,
            "concurrent_habits_completion": -0.58,
            "consistent_time_streak": 0.81,
            "goal_setting_completion": 0.43,
        }


class TestNothingPlanted:
    def test_every_claim_can_be_tested(self, results):
        assert [result.key for result in results.values() if result.verdict == "not testable"] == []

    def test_nothing_is_reproduced(self, results):
        assert [result.key for result in results.values() if result.verdict == "reproduced"] == []

    @pytest.mark.parametrize("key", [claim.key for claim in REGISTER if claim.unit == "r"])
    def test_correlations_are_near_zero_at_each_level(self, results, key):
        assert abs(results[key].estimate) < 0.2
        assert [level.key for level in results[key].levels] == [
            f"{key}_{unit}" for unit in ("pairs", "users", "habits")
        ]
        claimed = next(level for level in results[key].levels if level.key == f"{key}_{results[key].units}")
        assert (claimed.estimate, claimed.n) == (results[key].estimate, results[key].n)

    def test_hours_without_peaks_differ_from_the_claim(self, results):
        assert results["time_of_day_peaks"].verdict == "differs"
        assert results["time_of_day_peaks"].estimate == pytest.approx(4 / 24 - 0.5, abs=0.01)

    def test_q_values_are_never_below_p_values(self, results):
        assert all(result.q_value >= result.p_value for result in results.values())

    def test_intervals_hold_their_estimates(self, results):
        for result in results.values():
            for number in (result, *result.levels, *result.naive):
                assert number.ci_low <= number.estimate <= number.ci_high

    def test_same_seed_same_results(self, few):
        first, again, other = (repr(evaluate(few, resamples=50, seed=seed)) for seed in (3, 3, 4))
        assert first == again != other

    def test_truth_and_figures_are_put_beside(self, dataset):
        found = evaluate(
            ordinary_people(20, 60), resamples=50, truth={"midway_dip": 0.1}, figures={"midway_dip": "cycle"}
        )[0]
        assert (found.key, found.truth, found.figure) == ("midway_dip", 0.1, "cycle")


class TestNumbers:
    """`n` counts what an estimate is made of, not what the data hold."""

    def test_of_the_dip_is_that_of_pairs_with_a_day_in_it(self, dataset, results):
        held = behaviour.cycle_data(dataset)
        used = pd.DataFrame({"pair": held.pair, "day": held.day}).join(held.pairs[["followup", "exit_day"]], on="pair")
        used = used[used["day"].isin([1, 2, 3, *range(7, 15), *range(22, 36)])]
        followed, survived = (used.loc[used[end] >= 35, "pair"].nunique() for end in ("followup", "exit_day"))
        result = results["midway_dip"]
        assert (result.n, result.naive[0].n) == (followed, survived)
        assert survived < followed < len(held.pairs)

    def test_of_hours_is_that_of_completions_with_a_local_hour(self, few):
        """Where some have no zone and some rows no instant; read in UTC, the same completions count."""
        tracking, users = few.habit_tracking, few.users
        zone = users["zone"].where(np.arange(len(users)) % 3 > 0).replace("UTC", "Asia/Tokyo")
        at = tracking["at"].where(np.arange(len(tracking)) % 5 > 0)
        result = measured(
            "time_of_day_peaks", few.replace(users=users.assign(zone=zone), habit_tracking=tracking.assign(at=at))
        )
        zoned = tracking["user_id"].isin(users["user_id"][zone.notna()])
        used = at[zoned & at.notna() & (tracking["status"] == "done")]
        assert result.n == result.levels[0].n == result.naive[0].n == len(used) < (tracking["status"] == "done").sum()
        for number, shift in ((result.levels[0], 9), (result.naive[0], 0)):
            hour = (used.dt.hour + shift) % 24
            assert number.estimate == pytest.approx(hour.isin([6, 7, 19, 20]).mean())

    def test_of_demography_is_that_of_pairs_with_the_strongest_attribute(self):
        people = ordinary_people(150, 60)  # groups of fewer than ten people do not count
        users = people.users
        gender = users["gender"].where(np.arange(len(users)) % 4 > 0)
        age = users["age"].where(np.arange(len(users)) % 3 > 0)
        result = measured("demographics_category", people.replace(users=users.assign(gender=gender, age=age)))
        pairs = people.adoptions["user_id"]
        of_gender, of_age = (pairs.isin(users["user_id"][known.notna()]).sum() for known in (gender, age))
        assert [level.n for level in result.levels] == [of_gender, of_age]
        strongest = max(result.levels, key=lambda level: level.estimate)
        assert result.n == strongest.n < len(pairs)


def measured(key, dataset):
    return claims._MEASURES[key](dataset, Draw(resamples=60))


def test_naive_readings_are_in_a_unit_of_what_stands_beside(results):
    """In that of the claim, of a level of it, or of the true effect, which for what has one is a difference."""
    units = {number.key: number.unit for result in results.values() for number in result.naive}
    assert units == {
        "midway_dip_survivors": "share difference",
        "midway_dip_weighted": "share difference",
        "peak_share_utc": "share",
        "optimal_duration_raw": "share difference",
        "clear_description_confounded": "share",
        "concurrent_habits_slope": "share difference",
        "concurrent_habits_at_end": "r",
        "consistent_time_longest_streak": "r",
        "goal_setting_difference": "share difference",
    }
    assert results["time_of_day_peaks"].levels[0].unit == "share"


def test_few_completions_do_not_look_consistent():
    """Hours drawn at random, 30 to 150 of them: plain R falls with their number, the corrected one does not."""
    draw = np.random.default_rng(0)
    events = draw.integers(30, 150, 2000)
    pair = np.repeat(np.arange(2000), events)
    angle = draw.uniform(0, 2 * np.pi, pair.size)
    length = np.hypot(np.bincount(pair, np.cos(angle)), np.bincount(pair, np.sin(angle))) / events
    corrected = claims.consistency(pd.Series(length), pd.Series(events))
    assert np.corrcoef(-np.log(1 - length), np.log(events))[0, 1] < -0.4
    assert abs(np.corrcoef(corrected, np.log(events))[0, 1]) < 0.2
    assert claims.consistency(pd.Series([1.0]), pd.Series([30]))[0] == pytest.approx(np.log(1e4))


def without_optional(dataset: Dataset) -> Dataset:
    """Keys and status only, as the contract asks for."""
    keys = {"users": ["user_id"], "habits": ["habit_id"], "habit_tracking": ["user_id", "habit_id", "date", "status"]}
    return Dataset(**{table: dataset.table(table)[columns] for table, columns in keys.items()})


def of_users(dataset: Dataset, number: int) -> Dataset:
    users = dataset.users["user_id"].head(number)
    tables = ("users", "habit_tracking", "adoptions", "recommendations")
    return dataset.replace(**{name: dataset.table(name)[dataset.table(name)["user_id"].isin(users)] for name in tables})


def of_one_habit(dataset: Dataset) -> Dataset:
    habit = dataset.habits["habit_id"].iloc[1]
    tables = ("habits", "habit_tracking", "adoptions", "recommendations")
    return dataset.replace(**{name: dataset.table(name)[dataset.table(name)["habit_id"] == habit] for name in tables})


def adopted_later(dataset: Dataset) -> Dataset:
    return dataset.replace(adoptions=dataset.adoptions.assign(adopted_at=pd.Timestamp("2030-01-01", tz="UTC")))


def all_unknown(dataset: Dataset) -> Dataset:
    return dataset.replace(habit_tracking=dataset.habit_tracking.assign(status="unknown", at=pd.NaT))


class TestPoorData:
    """Whatever is missing, each claim answers: with a verdict, or with the reason why not."""

    @pytest.mark.parametrize(
        "poor",
        [
            lambda dataset: Dataset(),
            without_optional,
            lambda dataset: of_users(dataset, 1),
            lambda dataset: of_users(dataset, 2),
            lambda dataset: of_users(dataset, 12),
            of_one_habit,
            all_unknown,
            lambda dataset: dataset.replace(users=dataset.users.head(0)),
            lambda dataset: dataset.replace(habits=dataset.habits.head(0)),
            lambda dataset: dataset.replace(habit_tracking=dataset.habit_tracking.head(1)),
            lambda dataset: dataset.replace(habit_tracking=dataset.habit_tracking.assign(status="done")),
            adopted_later,
        ],
        ids=[
            "empty", "keys only", "one user", "two users", "twelve users", "one habit", "all unknown", "no users",
            "no habits", "one row", "all done", "adopted after the end",
        ],
    )  # fmt: skip
    def test_nothing_is_raised(self, few, poor):
        for result in evaluate(poor(few), resamples=300):
            assert (result.verdict == "not testable") == np.isnan(result.ci_low)
            assert bool(result.reason) == (result.verdict == "not testable")
            assert np.isnan(result.p_value) == np.isnan(result.q_value) == (result.verdict == "not testable")
            assert result.verdict != "reproduced"

    def test_one_user_answers_nothing_by_user(self, few):
        assert {result.verdict for result in evaluate(of_users(few, 1))} == {"not testable"}

    def test_reasons_name_what_is_needed(self, few):
        reasons = {result.key: result.reason for result in evaluate(without_optional(few), resamples=60)}
        assert "`goal_set`" in reasons["goal_setting_completion"]
        assert "`recommendations`" in reasons["clear_description_adoption"]
        assert "`category`" in reasons["category_success"]


@pytest.mark.parametrize("source", ["lifesnaps", "loop-uhabits/loop.db", "loop-uhabits/habitbull2.csv"])
def test_real_data_answer_or_say_why_not(shared_data, source):
    from habitlab.dataset.importers import import_source

    results = evaluate(import_source(shared_data / source).dataset, resamples=60)
    assert all(result.reason for result in results if result.verdict == "not testable")
    assert all(np.isfinite(result.ci_low) for result in results if result.verdict != "not testable")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_planted_is_never_reproduced():
    """Twelve claims by 40 worlds: contrasts without effect are taken for one in 2.5 % of cases at most."""
    from scipy import stats

    found: dict[str, int] = {}
    for seed in range(40):
        for result in evaluate(ordinary_people(200, 130, seed), resamples=400, seed=seed):
            found[result.key] = found.get(result.key, 0) + (result.verdict == "reproduced")
    assert max(found.values()) <= stats.binom.ppf(0.9995, 40, 0.025)
    assert sum(found.values()) <= stats.binom.ppf(0.9995, 40 * 12, 0.025)
