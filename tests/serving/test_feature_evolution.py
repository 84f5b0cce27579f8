"""8.2 Feature evolution: planted noise goes, planted signal stays; importance is of people nobody learnt from."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from habitlab.serving.learning.feature_evolution import evolve, success_data, twins
from habitlab.simulation import simulate


def logistic(x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return LogisticRegression().fit(x, y)


def planted(seed: int, users: int = 200, rows: int = 5, strength: float = 0.6) -> tuple[pd.DataFrame, Any, Any]:
    """Signal, noise, noise of many values that says who it is, and people of different bent."""
    generator = np.random.default_rng(seed)
    who = np.repeat(np.arange(users), rows)
    table = pd.DataFrame(
        {
            "signal": generator.standard_normal(len(who)),
            "noise": generator.standard_normal(len(who)),
            "identity": generator.permutation(users)[who].astype(float),
        }
    )
    bent = 0.5 * generator.standard_normal(users)[who]
    outcome = generator.random(len(who)) < 1 / (1 + np.exp(-(strength * table["signal"] + bent)))
    return table, outcome.astype(int), who


def test_importance_equals_a_slow_oracle() -> None:
    """With a model that is known beforehand: log loss of shuffled less that of unshuffled rows."""
    table, outcome, who = planted(0, users=2000, rows=1)

    class Known:
        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            chance = 1 / (1 + np.exp(-0.6 * x[:, 0]))
            return np.column_stack([1 - chance, chance])

    found = evolve(table, outcome, who, fit=lambda x, y, seed: Known()).set_index("feature")["importance"]
    generator, rises = np.random.default_rng(1), []
    signal = table["signal"].to_numpy()
    for _ in range(200):
        logits = [0.6 * values for values in (signal, generator.permutation(signal))]
        rises.append(
            np.mean(
                np.log1p(np.exp(logits[1])) - outcome * logits[1] - np.log1p(np.exp(logits[0])) + outcome * logits[0]
            )
        )
    assert found["signal"] == pytest.approx(np.mean(rises), rel=0.1)
    assert found["noise"] == found["identity"] == 0


def test_8_2_c_noise_is_dropped_and_signal_kept() -> None:
    found = evolve(*planted(1)).set_index("feature")["verdict"]
    assert found.to_dict() == {"signal": "keep", "noise": "drop", "identity": "drop"}


def test_8_2_b_a_candidate_is_added_for_what_it_does() -> None:
    found = evolve(*planted(2), candidates=["signal", "noise"]).set_index("feature")["verdict"]
    assert found.to_dict() == {"signal": "add", "noise": "leave out", "identity": "drop"}


def test_8_2_d_a_signal_of_feedback_is_added_for_what_it_does_and_one_of_whim_is_not() -> None:
    """Ratings that follow what somebody will keep, and ratings that follow nothing, as candidates."""
    table, outcome, who = planted(3, users=400)
    generator = np.random.default_rng(3)
    keen = pd.Series(outcome).groupby(who).transform("mean").to_numpy()  # what their other habits tell, too
    others = (5 * keen - outcome) / 4
    table["rating"] = np.clip(
        np.round(3 + 3 * (others - others.mean()) + 0.5 * generator.standard_normal(len(who))), 1, 5
    )
    table["whim"] = generator.integers(1, 6, len(who)).astype(float)
    found = evolve(table, outcome, who, candidates=["rating", "whim"], fit=logistic).set_index("feature")["verdict"]
    assert (found["rating"], found["whim"]) == ("add", "leave out")


def test_d116_trees_own_importances_favour_noise_of_many_values() -> None:
    table, outcome, who = planted(3, strength=0.0)
    table["coin"] = (np.random.default_rng(3).random(len(table)) < 0.5).astype(float)
    own = GradientBoostingClassifier(random_state=0).fit(table, outcome).feature_importances_
    by_name = dict(zip(table.columns, own, strict=True))
    assert by_name["identity"] > 5 * by_name["coin"]  # nothing here says anything of the outcome
    found = evolve(table, outcome, who, refits=1).set_index("feature")
    assert (found["verdict"] == "drop").all()


def test_twins_are_judged_together() -> None:
    table, outcome, who = planted(4, strength=1.0)
    table["twin"] = -(table["signal"] + 0.1 * table["noise"])
    assert twins(table).tolist() == [0, 1, 2, 0]
    found = evolve(table, outcome, who).set_index("feature")
    assert found.loc["signal", "verdict"] == found.loc["twin", "verdict"] == "keep"
    assert found.loc["signal", "importance"] == found.loc["twin", "importance"]


def test_missing_and_constant_features_do_no_harm() -> None:
    table, outcome, who = planted(5)
    table.loc[::3, "signal"] = np.nan
    table["constant"] = 1.0
    found = evolve(table, outcome, who, refits=1).set_index("feature")
    assert found.loc["constant", "importance"] == 0
    assert found.loc["constant", "verdict"] == "drop"
    assert found.loc["signal", "verdict"] == "keep"


def test_the_same_seed_gives_the_same() -> None:
    pd.testing.assert_frame_equal(evolve(*planted(6), seed=1), evolve(*planted(6), seed=1))


def test_wrong_calls_are_refused() -> None:
    table, outcome, who = planted(7, users=10)
    for args, kwargs in (
        ((table, outcome[:-1], who), {}),
        ((table, np.zeros(len(table)), who), {}),
        ((table, outcome, np.zeros(len(table))), {}),
        ((table, outcome, who), {"candidates": ["luck"]}),
    ):
        with pytest.raises(ValueError, match=r"entry a row|held out|luck"):
            evolve(*args, **kwargs)


def test_8_2_a_features_of_the_success_model() -> None:
    features, outcome, who = success_data(simulate(users=150, days=120, seed=3))
    assert "habit_success" not in features
    found = evolve(features, outcome, who, refits=1)
    assert set(found["feature"]) == set(features.columns)
    assert found["importance"].is_monotonic_decreasing


@pytest.mark.long
def test_8_2_c_noise_is_pruned_and_signal_kept_in_95_per_cent() -> None:
    trials, kept, pruned = 80, 0, 0
    for seed in range(trials):
        found = evolve(*planted(100 + seed, users=300), refits=2).set_index("feature")["verdict"]
        kept += found["signal"] == "keep"
        pruned += found["noise"] == "drop"
    least = stats.binom.ppf(0.001, trials, 0.95)
    assert kept >= least
    assert pruned >= least
