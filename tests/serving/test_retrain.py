"""8.1 Retraining: no duplicates, old data weighted, a comparison that rolls on, a gate, and a log either way."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn.linear_model import LogisticRegression

from habitlab.dataset import Dataset, check
from habitlab.evaluation import splits
from habitlab.models.baselines import Popularity, Random
from habitlab.models.sampling import thin_out
from habitlab.serving import events, state
from habitlab.serving.learning import registry, retrain
from habitlab.serving.learning.extract import extract, mark, with_events
from habitlab.serving.learning.retrain import Comparison, Recipe
from habitlab.simulation import simulate

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def people() -> Dataset:
    return simulate(users=100, days=110, seed=5)


@pytest.fixture(scope="module")
def model(people: Dataset) -> Any:
    return Recipe().unfitted().fit(people)


def service(folder: Path, *told: dict, now: datetime = NOW) -> None:
    """Tell a service what happened; times are hours before `now`."""
    connection = state.connect(folder)
    rows = []
    for one in map(dict, told):
        rows.append({"happened_at": state.stamp(now - timedelta(hours=one.pop("ago", 1))), **one})
    with state.transaction(connection):
        events.append(connection, events.parse(json.dumps(rows).encode()), now)
    connection.close()


TOLD = (
    {"event_id": "1", "kind": "completion", "user_id": "ann", "habit_id": "h001", "date": "2026-01-03"},
    {
        "event_id": "2",
        "kind": "completion",
        "user_id": "ann",
        "habit_id": "h001",
        "date": "2026-01-02",
        "status": "done",
    },
    {
        "event_id": "3",
        "kind": "completion",
        "user_id": "ann",
        "habit_id": "h001",
        "date": "2026-01-01",
        "status": "missed",
    },
    {"event_id": "4", "kind": "adoption", "user_id": "bob", "habit_id": "h002", "ago": 48},
    {"event_id": "5", "kind": "abandonment", "user_id": "bob", "habit_id": "h002", "ago": 24},
    {"event_id": "6", "kind": "rating", "user_id": "ann", "habit_id": "h002", "rating": 2, "comment": "too long"},
    {"event_id": "7", "kind": "survey", "user_id": "bob", "survey": "s", "question": "q", "answer": 4.0},
    {"event_id": "8", "kind": "consent", "user_id": "bob", "purpose": "research", "granted": True},
    {"event_id": "9", "kind": "completion", "user_id": "eve", "habit_id": "h001"},
)


def test_8_1_a_events_become_rows(tmp_path: Path, tiny: Dataset) -> None:
    service(tmp_path, *TOLD)
    found = extract(tmp_path, tiny)
    assert (found.sequence, found.new, found.left_out) == (9, 9, 1)
    check(found.dataset)
    days = found.dataset.habit_tracking.set_index(["user_id", "habit_id", "date"])["status"]
    of_ann = days.loc["ann", "h001"].astype(str)
    assert of_ann.to_dict() == {  # the strongest of a day: a miss told later takes nothing back
        pd.Timestamp("2026-01-01"): "done",
        pd.Timestamp("2026-01-02"): "done",
        pd.Timestamp("2026-01-03"): "done",
    }
    (adoption,) = found.dataset.adoptions.itertuples()
    assert adoption.adopted_at == pd.Timestamp(NOW) - pd.Timedelta(hours=48)
    assert adoption.abandoned_at == pd.Timestamp(NOW) - pd.Timedelta(hours=24)
    assert found.dataset.feedback["rating"].tolist() == [2]
    assert found.dataset.surveys["answer"].tolist() == [4.0]
    assert found.dataset.consents["granted"].tolist() == [True]


def test_8_1_a_a_replay_gives_no_duplicate(tmp_path: Path, tiny: Dataset) -> None:
    service(tmp_path, *TOLD)
    once = extract(tmp_path, tiny)
    service(tmp_path, *TOLD)  # sent again: each event_id counts once
    twice = extract(tmp_path, once.dataset)
    assert twice.sequence == 9
    for name in ("habit_tracking", "adoptions", "feedback", "surveys", "consents", "recommendations"):
        pd.testing.assert_frame_equal(twice.dataset.table(name), once.dataset.table(name))
    mark(tmp_path, once.sequence, NOW)
    assert extract(tmp_path, tiny).new == 0
    service(tmp_path, {**TOLD[0], "event_id": "10"})
    assert extract(tmp_path, tiny).new == 1


def test_8_1_a_the_order_of_arrival_does_not_matter(tmp_path: Path, tiny: Dataset) -> None:
    service(tmp_path / "a", *TOLD)
    service(tmp_path / "b", *reversed(TOLD))
    for name in ("habit_tracking", "adoptions", "feedback", "consents"):
        a, b = (extract(tmp_path / place, tiny).dataset.table(name) for place in "ab")
        pd.testing.assert_frame_equal(a, b)


def test_adoptions_and_abandonments_take_turns(tiny: Dataset) -> None:
    """Against a slow oracle: a person holds a habit or does not, moment by moment."""
    generator = np.random.default_rng(0)
    for _ in range(10):
        kinds = generator.choice(["adoption", "abandonment"], 8)
        at = [NOW + timedelta(hours=int(h)) for h in generator.permutation(200)[:8]]
        stored = [
            events.Stored(i, str(i), "ann", kind, moment, moment, {"habit_id": "h001"})
            for i, (kind, moment) in enumerate(zip(kinds, at, strict=True), 1)
        ]
        expected: list[list[Any]] = []
        for event in sorted(stored, key=lambda each: each.happened_at):
            held = bool(expected) and expected[-1][1] is None
            if event.kind == "adoption" and not held:
                expected.append([pd.Timestamp(event.happened_at), None])
            elif event.kind == "abandonment" and held:
                expected[-1][1] = pd.Timestamp(event.happened_at)
        found = with_events(tiny, stored)[0].adoptions
        ends = [None if pd.isna(end) else end for end in found["abandoned_at"]]
        assert [list(pair) for pair in zip(found["adopted_at"], ends, strict=True)] == expected


def test_responses_reach_the_list_that_was_shown(tmp_path: Path, tiny: Dataset) -> None:
    connection = state.connect(tmp_path)
    with state.transaction(connection):
        for name, ago in (("old", 50), ("new", 10)):
            moment = state.stamp(NOW - timedelta(hours=ago))
            connection.execute(
                "INSERT INTO exposures (event_id, user_id, habit_id, shown_at, position, policy, propensity, times,"
                " last_shown_at) VALUES (?, 'ann', 'h002', ?, 1, 'p', 0.5, 1, ?)",
                (f"{name}-1", moment, moment),
            )
    connection.close()
    said = {"kind": "response", "user_id": "ann", "habit_id": "h002"}
    service(
        tmp_path,
        {**said, "event_id": "a", "response": "rejected", "ago": 5},
        {**said, "event_id": "b", "response": "viewed", "ago": 4},
        {**said, "event_id": "c", "response": "accepted", "ago": 30, "recommendation": "old-1"},
    )
    shown = extract(tmp_path, tiny).dataset.recommendations.set_index("event_id")
    assert shown["response"].astype(str).to_dict() == {"new-1": "rejected", "old-1": "accepted"}
    assert shown.loc["new-1", "propensity"] == 0.5
    assert shown.loc["old-1", "responded_at"] == pd.Timestamp(NOW) - pd.Timedelta(hours=30)


def test_without_a_service_the_data_stay_as_they_are(tmp_path: Path, tiny: Dataset) -> None:
    assert extract(tmp_path, tiny).dataset is tiny


# 8.1.b Old data by a weighted share


def pairs_of_two_times(seed: int, n: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Day, a feature, and success: of old 20 %, of late 50 %."""
    generator = np.random.default_rng(seed)
    day, x = generator.integers(0, 1000, n), generator.standard_normal(n)
    chance = special.expit(np.where(day < 800, -1.6, 0.0) + 0.5 * x)
    return day, x, (generator.random(n) < chance).astype(int)


def test_8_1_b_weights_keep_the_base_rate() -> None:
    """The oracle is the rate of all rows; the mean over 200 draws is unbiased, without weights it is far off."""
    day, _, success = pairs_of_two_times(0)
    with_weights, without = [], []
    for seed in range(200):
        kept, weight = thin_out(day, 800, 0.1, np.random.default_rng(seed))
        assert kept[day >= 800].all()
        with_weights.append((weight * success).sum() / weight.sum())
        without.append(success[kept].mean())
    error = np.std(with_weights) / np.sqrt(200)
    assert abs(np.mean(with_weights) - success.mean()) < 4 * error
    assert np.mean(without) > success.mean() + 0.1


def test_d115_a_model_of_weighted_rows_is_calibrated_for_all() -> None:
    day, x, success = pairs_of_two_times(1)
    kept, weight = thin_out(day, 800, 0.1, np.random.default_rng(0))
    weighted = LogisticRegression().fit(x[kept, None], success[kept], sample_weight=weight[kept])
    plain = LogisticRegression().fit(x[kept, None], success[kept])
    gap = [model.predict_proba(x[:, None])[:, 1].mean() - success.mean() for model in (weighted, plain)]
    assert abs(gap[0]) < 0.015
    assert gap[1] > 0.1


def test_d115_the_success_model_of_a_share_says_the_base_rate_of_all(people: Dataset) -> None:
    from habitlab.models.success import SuccessModel

    whole = SuccessModel().fit(people)
    rates = [SuccessModel(seed, recent_days=75, old_share=0.5).fit(people).base_rate_ for seed in range(4)]
    assert abs(np.mean(rates) - whole.base_rate_) < 3 * np.std(rates) / np.sqrt(4) + 0.005
    assert SuccessModel(recent_days=75, old_share=0.5).fit(people).counts_["pairs"] < whole.counts_["pairs"]
    assert SuccessModel(recent_days=10_000, old_share=0.5).fit(people).base_rate_ == pytest.approx(whole.base_rate_)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        thin_out(np.arange(5), 3, 0.0, np.random.default_rng(0))


# 8.1.d Rolling origins


def test_8_1_d_origins_roll_on_with_the_data_and_do_not_overlap(people: Dataset) -> None:
    days = retrain.origins_of(people, 3, 21)
    assert [(b - a).days for a, b in pairwise(days)] == [21, 21]
    assert days[-1] + pd.Timedelta(days=21) == people.habit_tracking["date"].max() + pd.Timedelta(days=1)
    earlier = splits.before(people, days[-1])
    assert retrain.origins_of(earlier, 3, 21)[-1] < days[-1]
    with pytest.raises(ValueError, match="no tracked day"):
        retrain.origins_of(Dataset())


def test_8_1_d_a_better_model_is_told_from_a_worse_one_by_person(people: Dataset) -> None:
    found = retrain.compare(people, Random, Popularity, horizon=28, resamples=200)
    assert found.interval("ndcg@10").ci_low > 0
    last = retrain.origins_of(people)[-1:]
    same = retrain.compare(people, Popularity, Popularity, origins=last, resamples=100)
    assert same.interval("ndcg@10").difference == 0
    row = same.differences.set_index("metric").loc["ndcg@10"]
    assert row["n"] <= found.by_person.index.nunique() == len(found.by_person)


def test_8_1_d_no_model_sees_what_it_is_held_against(people: Dataset) -> None:
    seen: list[tuple[str, pd.Timestamp]] = []

    class Spy(Popularity):
        def fit(self, dataset: Dataset, until: Any = None) -> Any:
            seen.append((self.name, dataset.habit_tracking["date"].max(), pd.Timestamp(until)))
            assert not (
                dataset.adoptions["adopted_at"].dt.tz_localize(None) >= pd.Timestamp(until) + pd.Timedelta(days=1)
            ).any()
            return super().fit(dataset, until)

    def named(name: str) -> Spy:
        spy = Spy()
        spy.name = name
        return spy

    days = retrain.origins_of(people, 2, 28)
    retrain.compare(
        people,
        lambda: named("champion"),
        lambda: named("challenger"),
        champion_until=days[0] - pd.Timedelta(days=5),
        origins=days,
        resamples=100,
    )
    for (name, last, until), day in zip(seen, np.repeat(days, 2), strict=True):
        assert last < until <= day
        assert until == (days[0] - pd.Timedelta(days=5) if name == "champion" else day)


@pytest.mark.long
def test_8_1_d_two_alike_models_are_rarely_told_apart(people: Dataset) -> None:
    """Random against random, paired by person: an interval above 0 deploys nothing in 97.5 % of the cases."""
    wrong = 0
    for seed in range(20):
        found = retrain.compare(
            people, lambda s=seed: Random(2 * s), lambda s=seed: Random(2 * s + 1), horizon=28, resamples=200
        )
        wrong += found.interval("ndcg@10").ci_low > 0
    assert wrong <= stats.binom.ppf(0.999, 20, 0.025)


# 8.1.e, 8.1.f The gate


def made_up(
    gain: float, spread: float, seed: int = 0, diversity: float = 0.0, people: Dataset | None = None
) -> Comparison:
    users = people.users["user_id"] if people is not None else [f"u{i}" for i in range(120)]
    generator = np.random.default_rng(seed)
    base = generator.random(len(users))
    table = pd.DataFrame(
        {
            ("champion", "ndcg@10"): base,
            ("challenger", "ndcg@10"): base + gain + spread * generator.standard_normal(len(users)),
            ("champion", "intra_list_diversity@10"): base,
            ("challenger", "intra_list_diversity@10"): base + diversity + 0.001 * generator.standard_normal(len(users)),
        },
        index=pd.Index(users, name="user_id"),
    )
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["model", "metric"])
    from habitlab.evaluation import leaderboard

    return Comparison(table, leaderboard.differences(table, "champion", resamples=300), ())


@pytest.mark.parametrize(
    ("gain", "spread", "diversity", "action"),
    [
        (0.10, 0.05, 0.0, "roll out"),
        (-0.10, 0.05, 0.0, "keep control"),
        (0.00, 0.05, 0.0, "wait"),
        (0.10, 0.05, -0.10, "keep control"),
        (0.10, 0.05, -0.005, "roll out"),  # less variety for sure, but by less than is tolerated
    ],
)
def test_8_1_e_the_gate(gain: float, spread: float, diversity: float, action: str, people: Dataset, model: Any) -> None:
    found = retrain.gate(made_up(gain, spread, 0, diversity, people), model, people, name="m", now=NOW)
    assert found.action == action
    assert {rail["name"] for rail in found.guardrails} == {"fairness", "minors", "diversity", "support cases"}


def test_8_1_e_a_group_that_loses_stops_it(people: Dataset, model: Any) -> None:
    comparison = made_up(0.10, 0.02, 0, 0.0, people)
    table = comparison.by_person.copy()
    women = people.users.set_index("user_id")["gender"].reindex(table.index).eq("female").to_numpy()
    table.loc[women, ("challenger", "ndcg@10")] -= 0.25
    rail = retrain.fairness_guardrail(people, table, "ndcg@10")
    assert rail.verdict() == "harmed"
    assert retrain.fairness_guardrail(people, comparison.by_person, "ndcg@10").verdict() == "safe"


def test_8_1_e_unfit_for_minors_stops_it(people: Dataset, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert retrain.minors_guardrail(model, people).verdict() == "safe"
    from habitlab.recommender import guardrails

    monkeypatch.setattr(guardrails, "safe_from", lambda habits: np.full(len(habits), 18))
    assert retrain.minors_guardrail(model, people).verdict() == "harmed"
    found = retrain.gate(made_up(0.1, 0.05, people=people), model, people, name="m", now=NOW)
    assert found.action == "keep control"


def test_8_1_e_a_case_that_comes_back_stops_it(people: Dataset, model: Any) -> None:
    from habitlab.serving.learning.feedback import Case

    case = Case("impossible", (), "", {"at_least": 99})
    found = retrain.gate(made_up(0.1, 0.05, people=people), model, people, name="m", now=NOW, cases=[case])
    assert found.action == "keep control"
    assert any("impossible" in reason for reason in found.reasons)


def test_without_groups_fairness_is_said_not_to_be_checked(people: Dataset, model: Any) -> None:
    bare = people.replace(users=people.users.drop(columns=["gender", "age", "experience_level"]))
    found = retrain.gate(made_up(0.1, 0.05, people=people), model, bare, name="m", now=NOW)
    assert any("fairness was not checked" in reason for reason in found.reasons)


def test_a_recipe_survives_the_lineage_and_a_strange_one_is_refused() -> None:
    from dataclasses import asdict

    recipe = Recipe(seed=3, old_share=0.2)
    assert Recipe.of(json.loads(json.dumps({"recipe": asdict(recipe)}))) == recipe
    with pytest.raises(registry.RegistryError, match="how it was made"):
        Recipe.of({})


def test_8_1_f_a_run_from_events_to_the_log(tmp_path: Path, people: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """First, nothing new, judged and logged either way, rolled back; the watermark moves only with a run."""
    user = str(people.users["user_id"].iloc[0])
    short = {"origins": 1, "resamples": 200}
    monkeypatch.setattr(retrain, "MOST_CHECKED", 20)
    first = retrain.retrain(people, tmp_path, now=NOW, **short)
    assert (first.action, first.live) == ("first", first.version)
    again = retrain.retrain(people, tmp_path, now=NOW, **short)
    assert (again.action, again.version) == ("nothing new", None)

    now = datetime(2026, 1, 10, 12, tzinfo=UTC)
    service(tmp_path, {"event_id": "1", "kind": "adoption", "user_id": user, "habit_id": "h001"}, now=now)
    monkeypatch.setattr(retrain, "compare", lambda *_, **__: made_up(0.1, 0.02, people=people))
    better = retrain.retrain(people, tmp_path, now=NOW, **short)
    assert (better.action, better.live, better.new_events) == ("roll out", better.version, 1)
    assert registry.load(tmp_path)[0].learnt == 1
    service(tmp_path, {"event_id": "2", "kind": "adoption", "user_id": "stranger", "habit_id": "h001"}, now=now)
    told = [retrain.retrain(people, tmp_path, now=NOW, **short) for _ in range(2)]
    assert [(one.action, one.new_events) for one in told] == [("nothing new", 1), ("nothing new", 0)]
    monkeypatch.setattr(retrain, "compare", lambda *_, **__: made_up(-0.1, 0.02, people=people))
    worse = retrain.retrain(people, tmp_path, now=NOW, recipe=Recipe(seed=1), **short)
    assert (worse.action, worse.live, worse.new_events) == ("keep control", better.version, 0)

    rows = registry.runs(tmp_path)
    told = [json.loads(text) for text in rows["metrics"]]
    assert [one["role"] for one in told] == ["challenger", "champion", "challenger", "champion", "challenger"]
    assert rows["model"].tolist()[3:] == [better.version, worse.version]
    assert all("ndcg@10" in one and one["reasons"] for one in told[1:])
    assert told[4]["ndcg difference"][2] < 0
    cards = {version.name: (version.path / registry.CARD).read_text() for version in registry.versions(tmp_path)}
    assert "No comparison on held-out data was made" in cards[first.version]
    for one, champion, action in ((better, first, "roll out"), (worse, better, "keep control")):
        assert f"Compared with {champion.version} on held-out data; decided: {action}" in cards[one.version]
        assert all(f"- {reason}" in cards[one.version] for reason in one.reasons)
        assert "No comparison" not in cards[one.version]
    assert registry.rollback(tmp_path) == first.version
    monkeypatch.setattr(retrain, "compare", lambda *_, **__: made_up(0.1, 0.02, people=people))
    again = retrain.retrain(people, tmp_path, now=NOW, **short)
    assert (again.action, again.live) == ("keep control", first.version)  # no run undoes what somebody decided
    assert f"version {better.version}, of the same code and recipe, was rolled back" in again.reasons[0]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "promote", full)
        with pytest.raises(OSError, match="No space"):
            retrain.retrain(people, tmp_path, now=NOW, force=True, **short)
    assert registry.current(tmp_path) == first.version
    forced = retrain.retrain(people, tmp_path, now=NOW, force=True, **short)
    assert (forced.action, forced.live) == ("roll out", forced.version)
    assert registry.rolled_back(tmp_path) == []
    assert len(registry.runs(tmp_path)) == 11  # what would have gone live is told of all the same


def test_8_1_e_what_was_rolled_back_stays_so_whatever_else_goes_live(tmp_path: Path, model: Any) -> None:
    """Two steps back, another recipe put live, and versions removed: each is remembered until it is allowed."""
    recipes = {seed: {"code": "c", "recipe": {"seed": seed}} for seed in range(4)}
    names = [registry.register(tmp_path, model, recipes[seed]) for seed in range(3)]
    for name in names:
        registry.promote(tmp_path, name)
    assert [registry.rollback(tmp_path), registry.rollback(tmp_path)] == [names[1], names[0]]
    registry.promote(tmp_path, registry.register(tmp_path, model, recipes[3]))
    registry.remove(tmp_path, names[2])
    said = {seed: bool(retrain._rolled_back(tmp_path, recipes[seed])) for seed in recipes}
    assert said == {0: False, 1: True, 2: True, 3: False}
    registry.allow(tmp_path, recipes[2])
    assert [one["version"] for one in registry.rolled_back(tmp_path)] == [names[1]]
    assert not retrain._rolled_back(tmp_path, {"code": None, "recipe": None})
    (tmp_path / state.REGISTRY / registry.ROLLED_BACK).write_text("[1")
    with pytest.raises(registry.RegistryError, match="delete it to let"):
        retrain._rolled_back(tmp_path, recipes[1])
    registry.promote(tmp_path, names[1])
    registry.rollback(tmp_path)  # what is live comes first: the list begins anew
    assert [one["version"] for one in registry.rolled_back(tmp_path)] == [names[1]]


def test_8_1_e_where_no_version_can_be_read_there_is_nothing_to_compare_with(
    tmp_path: Path, model: Any, caplog: Any
) -> None:
    name = registry.register(tmp_path, model, {})
    registry.promote(tmp_path, name)
    assert retrain._live(tmp_path).name == name
    (tmp_path / state.REGISTRY / name / registry.MODEL).write_bytes(b"damaged")
    assert retrain._live(tmp_path) is None
    assert "nothing can be compared with" in caplog.text


def test_8_1_c_the_same_recipe_and_data_make_the_same_model(people: Dataset, model: Any) -> None:
    assert Recipe().unfitted().fit(people).version_ == model.version_


def test_retrain_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`habitlab retrain`: 0 whatever it decided, 2 with nothing to go back to; `--rollback` says what is live."""
    from habitlab.cli import main

    def call(*more: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["habitlab", "retrain", "--data", "sample", "--state", str(tmp_path), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    asked: list[dict[str, Any]] = []

    def instead(dataset: Dataset, folder: Path, **options: Any) -> retrain.Outcome:
        asked.append({"folder": folder, **options})
        return retrain.Outcome("wait", "0002-b", "0001-a", 3, ("not yet told from 0",))

    monkeypatch.setattr(retrain, "retrain", instead)
    code, told, _ = call("--seed", "3", "--margin", "-0.01")
    assert (code, told) == (0, "wait; live: 0001-a\n  not yet told from 0\n")
    assert (asked[0]["folder"], asked[0]["recipe"].seed, asked[0]["margin"]) == (tmp_path, 3, -0.01)
    tmp_path.rmdir()
    code, _, error = call("--rollback")
    assert code == 2
    assert "no model was ever live" in error
    assert not tmp_path.exists()  # a wrong path makes no folder
    monkeypatch.setattr(registry, "rollback", lambda folder: "0001-a")
    assert call("--rollback")[:2] == (0, "live: 0001-a\n")
