"""6.2.a Tuning: typed, named dimensions, weights on the simplex, resumable, better than random, one untouched test."""

import json
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skopt.space import Integer, Real

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import tuning
from habitlab.evaluation.tuning import Search, Trial, effects, search, tuned_blend, tuning_tables, undominated
from habitlab.evaluation.tuning.search_space import Point, Space
from habitlab.evaluation.tuning.tuned_blend import BlendObjective, Window, blend_of, protocol, usual_point
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import ContentModel
from habitlab.models.success import SuccessModel
from habitlab.recommender.blend import Blend
from habitlab.recommender.recommend import Models, Recommender
from habitlab.simulation import simulate
from tests.conftest import ROOT

LINE = Space({"x": (0.0, 1.0)})


def points(found: Search) -> list[Point]:
    return [trial.point for trial in found.trials]


# The space


def test_c_6_2_the_space_has_the_ranges_of_the_description() -> None:
    space = tuned_blend.OVERVIEW
    assert space.weights == {"content": (0.2, 0.8), "similar_people": (0.1, 0.6), "success": (0.1, 0.5)}
    assert space.ranges == {"diversity": (0.3, 0.7), "factors": (10, 50)}
    assert tuned_blend.usual_budget(simulate(users=30, days=3))[0] < 50
    assert [dimension.name for dimension in space.dimensions][-2:] == ["diversity", "factors"]
    assert [type(dimension) for dimension in space.dimensions] == [Real, Real, Real, Integer]
    generator = np.random.default_rng(0)
    drawn = pd.DataFrame([space.draw(generator) for _ in range(2000)])
    for name, (low, high) in {**space.weights, **space.ranges}.items():
        assert drawn[name].between(low, high).all()
        assert drawn[name].max() - drawn[name].min() > 0.9 * (high - low)
    assert drawn["factors"].map(type).eq(int).all() or drawn["factors"].dtype == np.int64
    assert set(drawn["factors"]) == set(range(10, 51))
    assert np.allclose(drawn[list(space.weights)].sum(axis=1), 1, atol=1e-12)


def test_the_word_int_can_never_be_drawn() -> None:
    """(10, 50, 'int') is Categorical {10, 50, 'int'} to scikit-optimize."""
    with pytest.raises(ValueError, match=r"\(10, 50\) for whole numbers; got \(10, 50, 'int'\)"):
        Space({"factors": (10, 50, "int")})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="bounds of 'factors'"):
        Space({"factors": ("10", "50")})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("ranges", "weights", "says"),
    [
        ({}, {}, "nothing to tune"),
        ({"x": (0.7, 0.3)}, {}, "bounds of 'x' are upside down: 0.7 to 0.3"),
        ({"x": (5, 5)}, {}, "'x' can only be 5"),
        ({"x": (0.0, float("nan"))}, {}, "bounds of 'x'"),
        ({"x": (0.0, float("inf"))}, {}, "bounds of 'x'"),
        ({"x": (False, True)}, {}, "bounds of 'x'"),
        ({"a": (0.0, 1.0)}, {"a": (0.0, 1.0), "b": (0.0, 1.0)}, "both a range and a weight"),
        ({}, {"a": (0.2, 0.8)}, "one weight alone"),
        ({}, {"a": (-0.2, 0.8), "b": (0.0, 1.0)}, "lower bound of 'a' is -0.2"),
        ({}, {"a": (0.6, 0.8), "b": (0.5, 0.6)}, r"no point is valid: .* lower bounds add up to 0.6 \+ 0.5 = 1.1"),
        ({}, {"a": (0.1, 0.2), "b": (0.1, 0.3)}, r"no point is valid: .* upper bounds add up to 0.2 \+ 0.3 = 0.5"),
        ({}, {"a": (0.2, 0.8), "b": (0.8, 0.9)}, "only one point is valid"),
    ],
)
def test_a_space_without_a_valid_point_says_why(ranges: Any, weights: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Space(ranges, weights)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Weights whose bounds leave room: a point of the simplex, and bounds around it."""
    parts = np.array(draw(st.lists(st.floats(0.05, 1), min_size=2, max_size=5)))
    inside = parts / parts.sum()
    below, above = (draw(st.lists(st.floats(0.01, 1), min_size=len(parts), max_size=len(parts))) for _ in range(2))
    return Space(
        weights={
            f"w{i}": (float(part * (1 - down)), float(part + (1 - part) * up))
            for i, (part, down, up) in enumerate(zip(inside, below, above, strict=True))
        }
    )


@settings(max_examples=100, deadline=None)
@given(space=spaces(), data=st.data())
def test_every_point_of_the_search_is_valid_and_comes_back(space: Space, data: st.DataObject) -> None:
    quantiles = data.draw(st.lists(st.floats(0, 1), min_size=len(space.weights) - 1, max_size=len(space.weights) - 1))
    point = space.point(quantiles)
    assert sum(point.values()) == pytest.approx(1, abs=1e-9)
    for name, (low, high) in space.weights.items():
        assert low - 1e-9 <= point[name] <= high + 1e-9
    again = space.point(space.coordinates(point))
    assert again == pytest.approx(point, abs=1e-6)


def test_weights_are_drawn_evenly_from_what_the_bounds_leave() -> None:
    """Against the obvious way: draw from the whole simplex and throw away what is out of bounds."""
    bounds = dict(tuned_blend.WEIGHTS)
    space, generator = Space(weights=bounds), np.random.default_rng(1)
    ours = np.array([list(space.draw(generator).values()) for _ in range(4000)])
    flat = generator.dirichlet(np.ones(3), 40_000)
    low, high = np.array(list(bounds.values())).T
    kept = flat[((flat >= low) & (flat <= high)).all(axis=1)]
    assert len(kept) > 4000
    for column in range(3):
        levels = np.linspace(0.05, 0.95, 10)
        assert np.quantile(ours[:, column], levels) == pytest.approx(np.quantile(kept[:, column], levels), abs=0.015)


def test_coordinates_refuse_what_is_not_in_the_space() -> None:
    space = tuned_blend.OVERVIEW
    with pytest.raises(ValueError, match=r"diversity is between 0.3 and 0.7; got 0.05"):
        space.coordinates(usual_point())
    tuned_blend.OPENED.coordinates(usual_point())  # the usual parameters are within what report 06 searches
    with pytest.raises(ValueError, match="add up to 1"):
        space.coordinates({"content": 0.2, "similar_people": 0.1, "success": 0.1, "diversity": 0.5, "factors": 20})
    with pytest.raises(ValueError, match="a point has"):
        space.coordinates({"content": 1.0})


# The search


def bowl(point: Point) -> float:
    return -((float(point["x"]) - 0.3) ** 2)


def test_a_search_finds_the_top_of_a_hill_and_is_the_same_each_time() -> None:
    found = search(bowl, LINE, calls=18, seed=4)
    assert found.best.point["x"] == pytest.approx(0.3, abs=0.01)
    assert search(bowl, LINE, calls=18, seed=4).trials == found.trials
    assert points(search(bowl, LINE, calls=18, seed=5)) != points(found)
    assert points(search(bowl, LINE, calls=14, seed=4)) == points(found)[:14]
    table = found.table()
    assert list(table.columns) == ["method", "seed", "call", "x", "value", "best"]
    assert (table["best"] == table["value"].cummax()).all()


def test_the_first_points_are_those_of_random_search_with_the_same_seed() -> None:
    random = search(bowl, LINE, calls=tuning.FIRST + 2, seed=1, method="random")
    bayesian = search(bowl, LINE, calls=tuning.FIRST + 2, seed=1)
    assert points(bayesian)[: tuning.FIRST] == points(random)[: tuning.FIRST]
    assert points(bayesian) != points(random)


def branin(point: Point) -> float:
    """Minus Branin's function, highest -0.398 (Dixon & Szegö 1978)."""
    a, b = 15 * float(point["a"]) - 5, 15 * float(point["b"])
    hill = (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
    return -float(hill + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10)


def hartmann6(point: Point) -> float:
    """Minus Hartmann's function in six dimensions, highest 3.322 (Dixon & Szegö 1978)."""
    weight = np.array([1, 1.2, 3, 3.2])
    a = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    p = np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
                  [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]])  # fmt: skip
    x = np.array([point[f"x{i}"] for i in range(6)])
    return float(weight @ np.exp(-(a * (x - p / 1e4) ** 2).sum(axis=1)))


def both(objective: tuning.Objective, space: Space, calls: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    methods: tuple[tuning.Method, ...] = ("bayesian", "random")
    found = [
        [search(objective, space, calls=calls, seed=s, method=m).best.value for s in range(seeds)] for m in methods
    ]
    return np.array(found[0]), np.array(found[1])


def test_6_2_a_beats_random_search_at_equal_budget_on_branin() -> None:
    ours, random = both(branin, Space({"a": (0.0, 1.0), "b": (0.0, 1.0)}), calls=22, seeds=2)
    assert ours.mean() > -0.45
    assert ours.mean() > random.mean() + 0.2


@pytest.mark.long
def test_6_2_a_beats_random_search_at_equal_budget_on_hartmann6() -> None:
    ours, random = both(hartmann6, Space({f"x{i}": (0.0, 1.0) for i in range(6)}), calls=50, seeds=5)
    assert ours.mean() > 2.9
    assert ours.mean() > random.mean() + 1


def test_whole_numbers_and_weights_are_searched_together() -> None:
    space = Space({"factors": (10, 50)}, {"a": (0.2, 0.8), "b": (0.1, 0.6), "c": (0.1, 0.5)})

    def peak(point: Point) -> tuple[np.float64, dict[str, np.float64]]:
        return np.float64(-abs(point["factors"] - 20) / 40 - abs(point["b"] - 0.55)), {"twice": np.float64(2)}

    found = search(peak, space, calls=20, seed=0)
    assert found.best.value > -0.15
    assert all(type(point["factors"]) is int and type(point["a"]) is float for point in points(found))
    assert found.best.measures == {"twice": 2.0}


def test_a_constant_objective_is_said_to_be_one() -> None:
    found = search(lambda point: 0.5, LINE, calls=13)
    assert found.constant
    assert found.best == found.trials[0]
    assert len({point["x"] for point in points(found)}) == 13, "it goes on looking"
    assert not search(bowl, LINE, calls=3).constant


def test_nan_is_penalised_and_counted_never_silent() -> None:
    found = search(lambda point: float("nan") if point["x"] < 0.5 else -float(point["x"]), LINE, calls=20, seed=0)
    assert found.failed == np.isnan(found.scores).sum() > 0
    assert found.best.point["x"] >= 0.5
    assert found.best.value == np.nanmax(found.scores)
    late = [point["x"] for point in points(found)[tuning.FIRST :]]
    assert np.mean(np.array(late) >= 0.5) > 0.5, "it learns to keep away"
    with pytest.raises(ValueError, match="none of the 12 points has a score"):
        search(lambda point: float("inf"), LINE, calls=12)
    rightmost = max(float(point["x"]) for point in points(search(bowl, LINE, calls=tuning.FIRST, seed=2)))
    one = search(lambda point: 1.0 if point["x"] >= rightmost else float("nan"), LINE, calls=12, seed=2)
    assert one.failed == 11, "with one score there is nothing to fit: it goes on by lot"


def test_a_bad_call_is_refused() -> None:
    with pytest.raises(ValueError, match="calls is a whole number"):
        search(bowl, LINE, calls=0)
    with pytest.raises(ValueError, match="'bayesian' or 'random'"):
        search(bowl, LINE, method="grid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an objective gives a number"):
        search(lambda point: None, LINE)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="a measure is called 'x'"):
        search(lambda point: (1.0, {"x": 1.0}), LINE)

    def broken(point: Point) -> float:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        search(broken, LINE)


def test_a_bar_goes_to_stderr_if_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    search(bowl, LINE, calls=3, progress=True)
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "best=" in shown.err
    search(bowl, LINE, calls=3)
    assert capsys.readouterr() == ("", "")
    assert shown.out == ""


# Going on after a stop


def test_a_search_that_stopped_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state.json"
    calls = 0

    def stops(point: Point) -> tuple[float, dict[str, float]]:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return (np.nan if calls == 3 else bowl(point)), {"calls": np.nan}

    with pytest.raises(KeyboardInterrupt):
        search(stops, LINE, calls=15, seed=3, state=state)
    assert len(json.loads(state.read_text("utf-8"))["trials"]) == 11
    assert list(state.parent.iterdir()) == [state]
    resumed = search(stops, LINE, calls=15, seed=3, state=state)
    assert calls == 16, "nothing is called twice but what stopped"
    assert resumed.failed == 1
    calls = 100
    whole = search(lambda point: np.nan if point == resumed.trials[2].point else bowl(point), LINE, calls=15, seed=3)
    assert points(whole) == points(resumed)
    assert len(search(stops, LINE, calls=5, seed=3, state=state).trials) == 5, "fewer calls: the first of them"
    assert calls == 100


def test_after_a_kill_the_continuation_is_the_same(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, time\n"
        "from habitlab.evaluation.tuning.search_space import Space\n"
        "from habitlab.evaluation.tuning import search\n"
        "def bowl(point):\n"
        "    time.sleep(0.05)\n"
        "    return -(point['x'] - 0.3) ** 2\n"
        "search(bowl, Space({'x': (0.0, 1.0)}), calls=400, seed=6, state=sys.argv[1])\n",
        encoding="utf-8",
    )
    state = tmp_path / "state.json"
    process = subprocess.Popen([sys.executable, script, state], cwd=ROOT)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if state.exists() and len(json.loads(state.read_text("utf-8"))["trials"]) >= 12:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    before = json.loads(state.read_text("utf-8"))["trials"]  # whole, whenever the kill came
    assert 12 <= len(before) < 400
    calls = len(before) + 2
    resumed = search(bowl, LINE, calls=calls, seed=6, state=state)
    assert points(resumed)[: len(before)] == [trial["point"] for trial in before]
    assert resumed.trials == search(bowl, LINE, calls=calls, seed=6).trials


def test_a_state_of_another_search_is_refused_with_what_differs(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    search(bowl, LINE, calls=2, state=state, subject="data A")
    with pytest.raises(ValueError, match=r"ranges was x 0 to 1 and is now x 0 to 2"):
        search(bowl, Space({"x": (0.0, 2.0)}), calls=3, state=state, subject="data A")
    with pytest.raises(ValueError, match=r'seed was 0 and is now 1; subject was "data A" and is now "data B"'):
        search(bowl, LINE, calls=3, seed=1, state=state, subject="data B")
    with pytest.raises(ValueError, match=r'method was "bayesian" and is now "random"'):
        search(bowl, LINE, calls=3, method="random", state=state, subject="data A")
    assert len(search(bowl, LINE, calls=3, state=state, subject="data A").trials) == 3
    for damage in ("", "{}", "[]", state.read_text("utf-8")[:-30], '{"trials": [{}]}'):
        state.write_text(damage, encoding="utf-8")
        with pytest.raises(ValueError, match="is no state of a search, or is damaged"):
            search(bowl, LINE, calls=3, state=state, subject="data A")
        assert state.read_text("utf-8") == damage, "a state is never overwritten unread"


def test_a_state_is_of_its_dimensions_in_their_order_and_of_their_kind(tmp_path: Path) -> None:
    """Else the search would not go on as if it had not stopped."""
    state = tmp_path / "state.json"
    search(bowl, Space({"x": (0, 9), "y": (0.0, 1.0)}), calls=2, state=state)
    with pytest.raises(ValueError, match="and is now y 0 to 1, x 0 to 9 in whole numbers"):
        search(bowl, Space({"y": (0.0, 1.0), "x": (0, 9)}), calls=3, state=state)
    with pytest.raises(ValueError, match="x 0 to 9 in whole numbers, y 0 to 1 and is now x 0 to 9, y 0 to 1"):
        search(bowl, Space({"x": (0.0, 9.0), "y": (0.0, 1.0)}), calls=3, state=state)
    same = Space({"x": (np.int64(0), np.int64(9)), "y": (np.float64(0), 1.0)})
    assert len(search(bowl, same, calls=3, state=state).trials) == 3


def test_the_number_of_threads_changes_nothing_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is fitted on one thread, whatever is set around it."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=2, user_api="blas"):
        two = search(branin, Space({"a": (0.0, 1.0), "b": (0.0, 1.0)}), calls=12)
    one = search(branin, Space({"a": (0.0, 1.0), "b": (0.0, 1.0)}), calls=12)
    assert two.scores == pytest.approx(one.scores, rel=1e-6)


# Reading a search


def test_the_front_holds_what_nothing_beats() -> None:
    table = np.array([[1, 5], [2, 4], [2, 3], [3, 1], [0, 5], [2, 4], [9, np.nan]])
    assert undominated(table).tolist() == [True, True, False, True, False, True, False]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_the_front_is_what_the_obvious_loop_finds(rows: list[tuple[int, int]]) -> None:
    slow = [not any(a >= c and b >= d and (a, b) != (c, d) for a, b in rows) for c, d in rows]
    assert undominated(np.array(rows)).tolist() == slow


def test_effects_tell_a_parameter_that_matters_from_one_that_does_not() -> None:
    space = Space({"x": (0.0, 1.0), "idle": (10, 50)}, {"a": (0.0, 1.0), "b": (0.0, 1.0)})
    found = [search(lambda p: bowl(p) - 2 * float(p["a"]), space, calls=40, seed=s, method="random") for s in range(2)]
    table = effects(found, points=512)
    moves = table.groupby("parameter")["estimate"].agg(np.ptp)
    assert moves["a"] == pytest.approx(2 * 7 / 8, abs=0.1)  # between the middles of the outermost eighths
    assert moves["b"] == pytest.approx(moves["a"], abs=0.02)
    assert moves["idle"] < 0.15
    x = table[table["parameter"] == "x"]
    assert x["value"].iloc[x["estimate"].argmax()] == pytest.approx(0.3, abs=0.11)
    assert ((table["ci_low"] <= table["estimate"]) & (table["estimate"] <= table["ci_high"])).all()


# The blend


@cache
def population() -> Dataset:
    return simulate(users=200, days=60, seed=5)


@cache
def plan() -> tuned_blend.Protocol:
    return protocol(population(), shares=(0.2, 0.5, 0.75))


def test_the_usual_point_is_the_usual_blend() -> None:
    blend = blend_of(usual_point())
    for name in ("content", "similar_people", "success", "preference", "to_similar_people", "to_success"):
        assert getattr(blend, name) == pytest.approx(getattr(Blend(), name), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_every_point_is_a_blend(seed: int) -> None:
    point = tuned_blend.OVERVIEW.draw(np.random.default_rng(seed))
    weights = blend_of(point).weights([0.0, 3.0, 1e9])
    assert sum(weights.values()) == pytest.approx(np.ones(3))
    assert weights["content"][-1] == pytest.approx(0, abs=1e-6), "content gives way to evidence, as usual"


def test_scores_and_lists_are_those_of_a_recommender_with_these_parameters() -> None:
    split = plan().validation[0]
    point = {"content": 0.5, "similar_people": 0.3, "success": 0.2, "diversity": 0.4, "factors": 12}
    window = Window(split)
    models = Models(ContentModel(), CollaborativeModel(factors=12), SuccessModel())
    recommender = Recommender(blend_of(point), diversity=0.4, models=models).fit(split.train, split.until)
    ids = split.user_ids.tolist()
    assert window.scores(point) == pytest.approx(recommender.score(ids), abs=1e-6)
    shown = window.lists(point)
    seen = split.seen.toarray()
    assert not seen[np.arange(len(shown))[:, None], shown].any()
    varied, plain = (window.lists(point | {"diversity": value})[:, :5] for value in (0.7, 0.0))
    assert (window.lists(point | {"factors": 40}) != shown).any()
    assert (varied != plain).any()
    best = np.where(seen, -np.inf, window.scores(point)).argmax(axis=1)
    assert (plain[:, 0] == best).all()


def test_models_are_fitted_once_for_each_number_of_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    fit = CollaborativeModel.fit

    def counted(self: CollaborativeModel, *given: Any) -> CollaborativeModel:
        fitted.append(self.factors)
        return fit(self, *given)

    monkeypatch.setattr(CollaborativeModel, "fit", counted)
    objective = BlendObjective.of(plan().validation)
    first = objective(usual_point())
    fitted.clear()
    for content in (0.3, 0.4, 0.5):
        objective(usual_point() | {"content": content, "success": 0.7158 - content})
    assert fitted == []
    objective(usual_point() | {"factors": 33})
    objective(usual_point() | {"factors": 33, "diversity": 0.3})
    assert fitted == [33, 33], "once a window"
    assert objective(usual_point()) == first


def test_nobody_and_no_day_of_the_test_is_looked_at_before() -> None:
    dataset, found = population(), plan()
    untouched = set(found.test.user_ids)
    assert found.test.until is not None
    start = found.test.until
    for split, following in zip(found.validation, (*found.validation[1:], found.test), strict=True):
        assert split.until is not None
        assert following.until is not None
        assert split.until < following.until
        assert not untouched & set(split.user_ids)
        assert not untouched & set(split.train.users["user_id"])
        assert not untouched & set(split.train.adoptions["user_id"])
        assert split.train.habit_tracking["date"].max() < split.until
        later = dataset.adoptions[dataset.adoptions["user_id"].isin(split.user_ids)]
        when = later["adopted_at"].dt.tz_localize(None)
        taken_up = later[
            (when >= split.until - pd.Timedelta(days=1)) & (when <= following.until + pd.Timedelta(days=1))
        ]
        pairs = set(zip(taken_up["user_id"], taken_up["habit_id"], strict=True))
        rows, columns = split.relevant.nonzero()
        assert set(zip(split.user_ids[rows], split.habit_ids[columns], strict=True)) <= pairs
    assert found.test.train.habit_tracking["date"].max() < start
    assert set(found.test.train.users["user_id"]) == set(dataset.users["user_id"])


def test_what_happens_after_the_windows_does_not_change_what_is_chosen() -> None:
    dataset, start = population(), plan().test.until
    assert start is not None
    other = dataset.replace(
        adoptions=dataset.adoptions.assign(
            habit_id=dataset.adoptions["habit_id"].where(
                dataset.adoptions["adopted_at"].dt.tz_localize(None) < start + pd.Timedelta(days=1),
                dataset.habits["habit_id"].iloc[0],
            )
        ).drop_duplicates(["user_id", "habit_id", "adopted_at"])
    )
    again = protocol(other, shares=(0.2, 0.5, 0.75))
    assert again.test.until == start
    assert (again.test.relevant != plan().test.relevant).nnz > 0
    values = [BlendObjective.of(one.validation)(usual_point()) for one in (plan(), again)]
    assert values[0] == values[1]


def test_who_is_set_aside_is_drawn_by_the_seed() -> None:
    test = protocol(population(), shares=(0.2, 0.75), seed=1).test
    assert test.until == plan().test.until
    assert set(test.user_ids) != set(plan().test.user_ids)


def test_too_little_to_tune_on_says_what_is_lacking(tiny: Dataset) -> None:
    with pytest.raises(MissingColumn, match="adopted later than on a person's first day"):
        protocol(tiny)
    with pytest.raises(MissingColumn, match="needs"):
        protocol(simulate(users=12, days=20, seed=1))
    nothing = tuned_blend.study(tiny)
    assert "adopted later" in nothing.reason
    with pytest.raises(MissingColumn, match="adopted later"):
        tuning_tables.trade_off(nothing)


@cache
def small_study() -> tuned_blend.Study:
    return tuned_blend.study(population(), calls=11, searches=2)


def test_6_2_a_a_study_from_the_search_to_the_untouched_people() -> None:
    study = small_study()
    draw: dict[str, Any] = {"level": 0.95, "resamples": 200, "seed": 0}
    assert [len(one.trials) for one in (*study.bayesian, *study.random, *study.overview)] == [11] * 5
    chosen = study.points()
    tuned = max((trial for one in study.bayesian for trial in one.trials), key=lambda trial: trial.value)
    assert chosen["tuned"] == tuned.point
    values = tuning_tables.judged(study)
    assert study.test is not None
    assert values.index.tolist() == study.test.user_ids.tolist()
    differences = tuning_tables.compared(values, **draw)
    gain = tuning_tables.gain(differences, level=0.95)
    by_hand = values["tuned", "ndcg@10"] - values["usual", "ndcg@10"]
    assert gain.estimate == pytest.approx(by_hand.mean())
    assert gain.n == len(by_hand)
    assert {one.key for one in tuning_tables.side_effects(differences, level=0.95)} >= {"more_varied", "both_in_truth"}
    table = tuning_tables.results_table(values, differences).set_index("measure")
    assert set(table.index) == set(tuning_tables.MEASURES.values())
    assert (table["tuned"] - table["usual"]).to_numpy() == pytest.approx(table["difference"].to_numpy())
    assert table.loc["NDCG@10", "difference"] == pytest.approx(gain.estimate)
    assert tuning_tables.drawn(differences)["model"].tolist() == list(chosen)[1:]
    calls, searches, failed = tuning_tables.budget(study)
    assert (calls["estimate"], searches["estimate"], failed["estimate"], failed["n"]) == (11, 2, 0, 55)


def test_promises_are_those_of_the_windows() -> None:
    study = small_study()
    usual, noise, promised = tuning_tables.promised(study, level=0.95, resamples=200, seed=0)
    assert usual.estimate == pytest.approx(study.objective(usual_point())[0])
    assert promised.estimate == pytest.approx(study.objective(study.points()["tuned"])[0] - usual.estimate)
    assert noise["estimate"] > 0
    less = tuning_tables.against_random(study, level=0.95)
    pairs = zip(study.bayesian, study.random, strict=True)
    assert less.estimate == pytest.approx(np.mean([one.best.value - other.best.value for one, other in pairs]))
    curve = tuning_tables.convergence(study)
    assert curve.groupby("method")["estimate"].apply(lambda best: best.is_monotonic_increasing).all()
    assert (curve["n"] == 2).all()
    front = tuning_tables.trade_off(study)
    assert front["front"].any()
    assert front["kind"].tolist()[-4:] == list(study.points())
    assert len(tuning_tables.ends_of_front(front)) == 5
    moved = tuning_tables.effects(study, level=0.95, seed=0)
    assert set(moved["parameter"]) == set(tuned_blend.WORDS.values())


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.1, 0.2, "Tuning finds more"),
        (-0.2, -0.1, "Tuning finds less"),
        (-0.1, 0.1, "We cannot tell whether tuning finds more or less"),
        (np.nan, np.nan, "We cannot tell whether tuning finds more or less"),
    ],
)
def test_we_cannot_tell_is_a_verdict(low: float, high: float, says: str) -> None:
    row = {"model": "tuned", "metric": "ndcg@10", "estimate": 0.0, "ci_low": low, "ci_high": high, "n": 30}
    assert tuning_tables.verdict(tuning_tables.gain(pd.DataFrame([row]), level=0.95)) == says


def test_a_search_without_scores_has_no_best() -> None:
    with pytest.raises(ValueError, match="All-NaN"):
        _ = Search(LINE, "random", 0, (Trial({"x": 0.1}, np.nan, {}),)).best
