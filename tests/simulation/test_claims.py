"""The planted effects against the register: found as asked for, and not found when nothing is planted.

The estimators are those of `habitlab.evaluation.claims`, which knows nothing of the simulation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from habitlab.evaluation import claims
from habitlab.simulation import EFFECTS, simulate

SEEDS = range(5000, 5020)
CLAIMS = {claim.key: claim for claim in claims.REGISTER}
OFF_LIMIT = 0.03  # of a correlation or a relative change that is not planted


def estimates(seed: int, effects: dict[str, float], **size: int) -> dict[str, float]:
    """Every claim's point estimate; intervals are not needed, so two resamples do."""
    dataset, draw = simulate(seed=seed, effects=effects, **size), claims.Draw(resamples=2)
    return {key: measure(dataset, draw).estimate for key, measure in claims._MEASURES.items()}


def holds(key: str, values: pd.Series, *, planted: bool, slack: float) -> bool:
    """Whether a claim's mean over worlds is what was planted, or nothing; `slack` in standard errors."""
    claim, mean = CLAIMS[key], values.mean()
    error = slack * values.std() / np.sqrt(len(values))
    if claim.reported is None:
        return claim.side * mean > error if planted else claim.side * mean <= error
    return abs(mean - claim.reported) <= claim.tolerance + error if planted else abs(mean) <= OFF_LIMIT + error


def test_every_claim_has_an_effect_of_its_name():
    assert set(EFFECTS) == set(CLAIMS)


def test_one_default_world_reproduces_the_register():
    results = claims.evaluate(simulate(seed=77), resamples=100)
    assert {result.key: result.verdict for result in results} == dict.fromkeys(CLAIMS, "reproduced")


def test_a_small_sample_leans_to_the_register():
    found = pd.DataFrame([estimates(seed, {}, users=250, days=90) for seed in (1, 2, 3)]).mean()
    for key in ("complexity_time_commitment", "consistent_time_streak", "concurrent_habits_completion"):
        assert found[key] == pytest.approx(CLAIMS[key].reported, abs=0.1)
    assert found["time_of_day_peaks"] > 0
    assert found["goal_setting_completion"] > 0.25


def test_where_nothing_is_planted_nothing_is_found():
    results = claims.evaluate(simulate(users=1000, seed=6, effects=dict.fromkeys(EFFECTS, 0.0)), resamples=100)
    assert [result.key for result in results if result.verdict == "reproduced"] == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_claim_holds_as_a_mean_over_fresh_worlds():
    found = pd.DataFrame([estimates(seed, {}) for seed in SEEDS])
    wrong = {key: found[key].mean() for key in CLAIMS if not holds(key, found[key], planted=True, slack=0)}
    assert wrong == {}
    # Categories: two at the top and one at the bottom in every single world.
    assert (found["category_success"] > 0).all()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("off", EFFECTS)
def test_an_effect_switched_off_is_gone_and_the_others_stay(off):
    found = pd.DataFrame([estimates(seed, {off: 0.0}) for seed in SEEDS])
    wrong = {key: found[key].mean() for key in CLAIMS if not holds(key, found[key], planted=key != off, slack=3)}
    assert wrong == {}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("complexity_time_commitment", 0.4),
        ("concurrent_habits_completion", -0.3),
        ("consistent_time_streak", 0.5),
        ("goal_setting_completion", 0.2),
        ("clear_description_adoption", 0.6),
    ],
)
def test_what_is_asked_for_is_what_is_found(name, value):
    measure = claims._MEASURES[name]
    found = [measure(simulate(seed=seed, effects={name: value}), claims.Draw(resamples=2)).estimate for seed in SEEDS]
    assert np.mean(found) == pytest.approx(value, abs=0.04)
