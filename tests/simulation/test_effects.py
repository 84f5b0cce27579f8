"""Asking for planted effects."""

import pytest

from habitlab.simulation import EFFECTS, effects


def test_the_names_and_defaults_are_those_of_the_design():
    numbers = {name: value for name, value in EFFECTS.items() if value != 1.0}
    assert numbers == {
        "complexity_time_commitment": 0.72,
        "concurrent_habits_completion": -0.58,
        "consistent_time_streak": 0.81,
        "goal_setting_completion": 0.43,
        "clear_description_adoption": 0.27,
    }
    assert len(EFFECTS) == 12


def test_what_is_not_said_stays_at_its_default():
    assert effects.resolve({"midway_dip": 0}) == {**EFFECTS, "midway_dip": 0.0}
    assert effects.resolve(None) == EFFECTS


def test_an_unknown_effect_is_met_with_the_nearest_known_one():
    with pytest.raises(ValueError, match="unknown effect 'midway_dp': did you mean 'midway_dip'"):
        effects.resolve({"midway_dp": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("goal_setting_completion", 0.9),
        ("concurrent_habits_completion", 0.58),
        ("midway_dip", -1),
        ("midway_dip", float("nan")),
        ("midway_dip", True),
        ("midway_dip", "1"),
    ],
)
def test_what_cannot_be_planted_is_refused_with_the_range(name, value):
    with pytest.raises(ValueError, match=f"{name} cannot be .* give a number from"):
        effects.resolve({name: value})


def test_effects_from_the_command_line():
    assert effects.parse_effects(["midway_dip=0", " goal_setting_completion = 0.2"]) == {
        "midway_dip": 0.0,
        "goal_setting_completion": 0.2,
    }
    with pytest.raises(ValueError, match="lacks a value"):
        effects.parse_effects(["midway_dip"])
    with pytest.raises(ValueError, match="is not EFFECT=VALUE"):
        effects.parse_effects(["midway_dip=off"])
    with pytest.raises(ValueError, match="did you mean"):
        effects.parse_effects(["midway_dipp=0"])


def test_no_effects_means_no_knob_is_turned():
    knobs = effects.knobs(effects.resolve(dict.fromkeys(EFFECTS, 0.0)))
    assert set(vars(knobs).values()) == {0.0}


def test_a_knob_moves_with_what_is_asked_for():
    asked = [effects.knobs(effects.resolve({"goal_setting_completion": value})).goal for value in (0, 0.2, 0.43, 0.47)]
    assert asked == sorted(asked)
    assert asked[0] == 0
