"""7.3.a, 7.3.c Drift: statistics equal scipy's, thresholds come from the null, and a proposal deploys nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from habitlab.serving.monitoring import drift as drift_module
from habitlab.serving.monitoring.drift import FIXED_PSI, drift, power, propose, psi, psi_threshold

FEW = {"unit": None, "permutations": 199}


def periods(n: int, m: int, seed: int, shift: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(seed)

    def people(size: int, moved: float) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "age": generator.normal(40 + 10 * moved, 10, size).round(),
                "goal": generator.random(size) < 0.5,
                "time": generator.choice(["morning", "evening", None], size),
            }
        )

    return people(n, 0.0), people(m, shift)


def test_statistics_equal_scipy() -> None:
    reference, current = periods(300, 200, 0, shift=0.3)
    found = drift(reference, current, **FEW).set_index("feature")
    a, b = reference["age"], current["age"]
    assert found.loc["age", "ks"] == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert found.loc["age", "wasserstein"] == pytest.approx(stats.wasserstein_distance(a, b))
    counts = [frame["time"].fillna("none").value_counts().sort_index() for frame in (reference, current)]
    assert found.loc["time", "jensen_shannon"] == pytest.approx(jensenshannon(*counts) ** 2)
    assert found.loc["time", "psi"] == pytest.approx(psi(*counts))
    assert np.isnan(found.loc["time", "ks"])
    assert np.isnan(found.loc["time", "wasserstein"])


@pytest.mark.parametrize(("n", "m", "within"), [(400, 500, 1e-9), (6000, 3000, 0.02)])
def test_distances_of_numbers_of_many_values_equal_scipy(n: int, m: int, within: float) -> None:
    """Exactly up to 1,000 different values, nearly above."""
    generator = np.random.default_rng(1)
    a, b = generator.lognormal(size=n), generator.lognormal(0.1, size=m)
    row = drift(pd.DataFrame({"x": a}), pd.DataFrame({"x": b}), unit=None, permutations=19).iloc[0]
    assert row["ks"] == pytest.approx(stats.ks_2samp(a, b).statistic, rel=within)
    assert row["wasserstein"] == pytest.approx(stats.wasserstein_distance(a, b), rel=within)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=2, max_size=8))
@settings(max_examples=50, deadline=None)
def test_the_index_is_jeffreys_divergence_and_symmetric(pairs: list[tuple[int, int]]) -> None:
    p, q = np.array(pairs, dtype=float).T
    a, b = (p + 0.5) / (p + 0.5).sum(), (q + 0.5) / (q + 0.5).sum()
    assert psi(p, q) == pytest.approx(stats.entropy(a, b) + stats.entropy(b, a), abs=1e-12)
    assert psi(p, q) == pytest.approx(psi(q, p), abs=1e-12)


def test_d108_the_law_of_the_index_is_the_threshold_from_the_null() -> None:
    """Of 400 pairs of alike periods, 5 % exceed it; the fixed 0.2 alarms at n = 150 and never at 2,000."""
    generator = np.random.default_rng(0)
    for n, fixed in ((150, (0.02, 0.16)), (2000, (0.0, 0.0))):
        drawn = generator.multinomial(n, [0.1] * 10, size=(400, 2))
        values = np.array([psi(*pair) for pair in drawn])
        above = (values > psi_threshold(10, n, n)).mean()
        assert stats.binom.ppf(0.0005, 400, 0.05) <= 400 * above <= stats.binom.ppf(0.9995, 400, 0.05)
        assert fixed[0] <= (values > FIXED_PSI).mean() <= fixed[1]


def test_d108_shuffling_agrees_with_the_law_where_nobody_comes_back() -> None:
    generator = np.random.default_rng(0)
    reference, current = (pd.DataFrame({"x": generator.normal(size=1000)}) for _ in range(2))
    row = drift(reference, current, unit=None).iloc[0]
    assert row["psi_threshold"] == pytest.approx(row["psi_law"], rel=0.1)
    both = [
        frame.assign(user_id=np.arange(1000)) for frame in (reference, reference + generator.normal(0, 0.1, (1000, 1)))
    ]
    row = drift(*both).iloc[0]
    assert row["psi_threshold"] < 0.6 * row["psi_law"]


def test_7_3_c_no_drift_raises_few_false_alarms() -> None:
    trials = 150
    alarms = sum(drift(*periods(80, 60, seed), **FEW, seed=seed)["drifted"].any() for seed in range(trials))
    assert alarms <= stats.binom.ppf(0.999, trials, 0.05)


def test_7_3_c_a_shift_is_found_and_named() -> None:
    found = drift(*periods(400, 400, 1, shift=0.5), **FEW)
    assert found["feature"].iloc[0] == "age"
    assert found["drifted"].tolist() == [True, False, False]
    assert found["p_value"].is_monotonic_increasing


def test_a_growing_share_of_missing_values_is_drift() -> None:
    reference, current = periods(400, 400, 2)
    current.loc[:80, "age"] = np.nan
    found = drift(reference, current, **FEW).set_index("feature")
    assert found.loc["age", "drifted"]
    assert found.loc["age", "missing_current"] == pytest.approx(81 / 400)


def test_people_who_are_in_both_periods_are_not_two() -> None:
    """Ten answers of each of 40 people, some of whom come back: shuffled by person, chance raises no more alarms."""
    trials, alarms = 100, 0
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        person = pd.Series(generator.normal(size=60), [f"u{i}" for i in range(60)])
        here = [generator.permutation(60)[:40] for _ in range(2)]
        frames = [pd.DataFrame({"user_id": person.index[h], "x": person.iloc[h].to_numpy()}) for h in here]
        rows = [pd.concat([frame] * 10) for frame in frames]
        alarms += bool(drift(*rows, permutations=199, seed=seed)["drifted"].any())
    assert alarms <= stats.binom.ppf(0.999, trials, 0.05)


def test_who_comes_back_changed_is_seen() -> None:
    generator = np.random.default_rng(0)
    reference = pd.DataFrame({"user_id": np.arange(100).astype(str), "x": generator.normal(size=100)})
    found = drift(reference, reference.assign(x=reference["x"] + 0.3), permutations=499)
    assert found["drifted"].all()  # unpaired, a third of a deviation would drown in the differences of 100 people


def test_little_data_and_constants_say_so() -> None:
    frame = pd.DataFrame({"x": np.ones(50), "y": np.arange(50.0), "z": [np.nan] * 50})
    found = drift(frame, frame.head(10), **FEW)
    assert found["note"].str.contains("fewer than 20").all()
    assert not found["drifted"].any()
    found = drift(frame, frame, **FEW).set_index("feature")
    assert found.loc["x", "note"] == found.loc["z", "note"] == "the same for all"
    assert np.isnan(found.loc["x", "p_value"])


def test_with_many_users_a_smallest_index_keeps_trifles_out() -> None:
    reference, current = periods(20_000, 20_000, 3, shift=0.05)
    assert drift(reference, current, **FEW)["drifted"].any()
    assert not drift(reference, current, **FEW, smallest_psi=0.05)["drifted"].any()


def test_d107_one_of_very_many_features_is_found_all_the_same() -> None:
    """The smallest p-value of 199 permutations could not pass the correction for 40 features."""
    generator = np.random.default_rng(0)
    reference, current = (pd.DataFrame(generator.normal(size=(100, 40))).rename(columns="x{}".format) for _ in range(2))
    current["x7"] += 3
    assert drift(reference, current, **FEW).query("drifted")["feature"].tolist() == ["x7"]
    assert drift(reference[["x7"]], current[["x7"]], **FEW, alpha=0.001)["drifted"].all()


def test_instants_and_numbers_kept_as_objects_are_numbers() -> None:
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(200.0), unit="D").to_series()
    reference = pd.DataFrame({"at": at.to_numpy(), "x": pd.Series(np.arange(200.0)).astype(object)})
    reference.loc[0, ["at", "x"]] = [pd.NaT, None]
    found = drift(reference, reference.assign(at=reference["at"] + pd.Timedelta(days=50)), **FEW).set_index("feature")
    assert found["kind"].tolist() == ["number", "number"]
    assert found.loc["at", "drifted"]
    assert found.loc["at", "wasserstein"] == pytest.approx(50, rel=1e-9)
    assert not found.loc["x", "drifted"]


def test_of_very_many_people_few_permutations_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, single = np.repeat([False, True, False, True], [50, 50, 30, 20]), np.repeat([False, True], [100, 50])
    monkeypatch.setattr(drift_module, "_BLOCK", 1000)
    blocks = list(drift_module._memberships(labels, single, 100, 0))
    assert sum(block.shape[1] for block in blocks) == 101
    assert max(block.size for block in blocks) <= 1000
    members = np.hstack(blocks)
    assert (members[:, 0] == labels).all()
    assert (members[:50] + members[50:100] == 1).all()  # of one person one row is current
    assert (members[100:].sum(axis=0) == 20).all()
    frames = periods(300, 200, 0, shift=0.3)
    pieces = drift(*frames, **FEW).set_index("feature")
    monkeypatch.undo()
    whole = drift(*frames, **FEW).set_index("feature")
    assert pieces["psi"].to_dict() == whole["psi"].to_dict()
    assert pieces["p_value"].to_dict() == pytest.approx(whole["p_value"].to_dict(), abs=0.15)


def test_wrong_calls_are_refused() -> None:
    frame = pd.DataFrame({"x": np.arange(50.0)})
    with pytest.raises(ValueError, match="no column 'user_id'"):
        drift(frame, frame)
    with pytest.raises(ValueError, match="no column in common"):
        drift(frame, frame.rename(columns={"x": "y"}), unit=None)
    with pytest.raises(ValueError, match="alpha"):
        drift(frame, frame, unit=None, alpha=0.0)


def test_d109_drift_is_proposed_never_deployed() -> None:
    found = drift(*periods(400, 400, 1, shift=0.5), **FEW)
    proposal = propose(found)
    assert proposal.retrain
    assert proposal.reasons[0].startswith("age drifted")
    assert not propose(drift(*periods(400, 400, 1), **FEW)).retrain
    assert propose(found.iloc[:0], ["adoption fell"]).reasons == ("adoption fell",)


@pytest.mark.long
def test_7_3_c_power_curve() -> None:
    """Ten features: at most 5 % false alarms at any n; the fixed rule has 50 % at n = 150 and sleeps at 2,000."""
    found = power(shifts=(0.0, 0.25, 0.5), sizes=(150, 1000), trials=60).set_index(["rule", "n", "shift"])["alarmed"]
    for n in (150, 1000):
        assert found["from the null", n, 0.0] * 60 <= stats.binom.ppf(0.999, 60, 0.05)
    assert found["from the null", 1000, 0.25] > 0.8
    assert found["from the null", 150, 0.5] > 0.6
    assert found["fixed 0.2", 150, 0.0] > 0.3
    assert found["fixed 0.2", 1000, 0.25] < 0.1
