"""Requirements 1.3.3: what passes between people and the program, and between one habit and another."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.dataset import Dataset, MissingColumn
from habitlab.features.behavioural import category_affinity, user_features
from habitlab.features.interaction import (
    acceptance,
    acceptance_by_position,
    cross_habit_influence,
    engagement_depth,
    modification_patterns,
)
from habitlab.simulation import make_world, populate, simulate
from habitlab.simulation.adoption import adopt
from tests.features.tracking import track
from tests.features.worlds import again


@pytest.fixture(scope="module")
def dataset():
    return simulate(users=150, days=90, seed=3)


class TestAcceptance:
    def test_1_3_3_a_accepted_of_exposed_by_user(self, dataset):
        table = acceptance(dataset)
        shown = Counter(dataset.recommendations["user_id"])
        yes = Counter(dataset.recommendations.loc[dataset.recommendations["response"] == "accepted", "user_id"])
        for user, row in table.iterrows():
            assert (row["exposed"], row["accepted"]) == (shown[user], yes[user])
            assert row["acceptance_rate"] == yes[user] / shown[user]
        mean = yes.total() / shown.total()
        closer = (table["acceptance_rate_shrunk"] - mean).abs() <= (table["acceptance_rate"] - mean).abs() + 0.01
        assert closer.all()

    def test_1_3_3_a_accepted_of_exposed_by_position(self, dataset):
        table = acceptance_by_position(dataset).set_index("position")
        events = dataset.recommendations
        for position in (1, 2, 7, 16):
            rows = events[events["position"] == position]
            yes = (rows["response"] == "accepted").sum()
            assert table.loc[position, ["exposed", "accepted", "rate"]].tolist() == [len(rows), yes, yes / len(rows)]
        assert ((table["ci_low"] <= table["rate"]) & (table["rate"] <= table["ci_high"])).all()
        assert table["exposed"].sum() == len(events)

    def test_1_3_3_a_intervals_by_position_are_wider_where_users_differ(self):
        """All of a user's offers accepted or none: 30 users are 30 observations, not 300."""
        events = pd.DataFrame({"user_id": np.repeat([f"u{i}" for i in range(30)], 10), "habit_id": "h", "position": 1})
        events["event_id"] = [f"e{i}" for i in range(300)]
        at = pd.Timestamp("2024-01-01T12:00Z")
        events = events.assign(shown_at=at, responded_at=at, response=np.repeat(["accepted", "rejected"], 150))
        data = Dataset(users=pd.DataFrame({"user_id": events["user_id"].unique()}), recommendations=events)
        row = acceptance_by_position(data).iloc[0]
        assert row["ci_high"] - row["rate"] == pytest.approx(2.045 * 0.5 / np.sqrt(29), abs=0.003)

    def test_an_answer_still_to_come_is_none(self, dataset):
        early = acceptance(dataset, "2024-01-10")
        assert early["exposed"].sum() < len(dataset.recommendations)
        assert acceptance(dataset, "2023-01-01").isna().all(axis=None)

    def test_an_answer_without_an_instant_counts_from_the_day_it_was_shown(self, dataset):
        """Without `responded_at` all rates were 0."""
        shown = dataset.recommendations
        untold = dataset.replace(recommendations=shown.drop(columns="responded_at"))
        assert acceptance(untold).equals(acceptance(dataset))
        assert acceptance_by_position(untold).equals(acceptance_by_position(dataset))
        assert engagement_depth(untold).equals(engagement_depth(dataset))
        assert category_affinity(untold).equals(category_affinity(dataset))
        features = user_features(untold)
        assert features["accepted"].sum() == (shown["response"] == "accepted").sum()
        assert features["rejected"].sum() == (shown["response"] == "rejected").sum()
        half = user_features(untold, "2024-01-10")
        early = shown.loc[shown["shown_at"] < pd.Timestamp("2024-01-09T00:00Z"), "response"]
        assert half["accepted"].sum() >= (early == "accepted").sum() > 0

    def test_without_positions_it_says_so(self, dataset):
        with pytest.raises(MissingColumn, match="needs `position`"):
            acceptance_by_position(dataset.replace(recommendations=dataset.recommendations.drop(columns="position")))


VALUES = {
    "minutes": ["5", "10", "10.0", "", None, "some"],
    "target": ["1/1", "3/7", "6/14", "1/30", "0/7", None],
    "time_of_day": ["morning", "afternoon", "evening", "any", None],
    "reminder": ["on", "off", None],
}


def direction(field, old, new):
    """The slow, obvious way."""
    if field == "reminder":
        return new if new in ("on", "off") else "other"
    try:
        if field == "time_of_day":
            parts = ["morning", "afternoon", "evening"]
            step = parts.index(new) - parts.index(old)
            return "later" if step > 0 else "earlier" if step < 0 else "other"
        read = float if field == "minutes" else lambda text: int(text.split("/")[0]) / int(text.split("/")[1])
        if field == "target" and "0/7" in (old, new):
            return "other"
        step = read(new) - read(old)
        return "up" if step > 0 else "down" if step < 0 else "other"
    except (ValueError, TypeError, AttributeError):
        return "other"


CHANGES = st.sampled_from(list(VALUES)).flatmap(
    lambda field: st.tuples(
        st.sampled_from(["ann", "bob"]), st.just(field), st.sampled_from(VALUES[field]), st.sampled_from(VALUES[field])
    )
)


@settings(max_examples=25, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=30))
def test_1_3_3_b_counts_of_changes_equal_the_oracle(changes):
    frame = pd.DataFrame(changes, columns=["user_id", "field", "old", "new"])
    frame["at"] = pd.Timestamp("2024-01-01T12:00Z") + pd.to_timedelta(np.arange(len(frame)), unit="h")
    data = Dataset(users=pd.DataFrame({"user_id": ["ann", "bob"]}), modifications=frame.assign(habit_id="h"))
    expected = Counter((user, field, direction(field, old, new)) for user, field, old, new in changes)
    table = modification_patterns(data)
    assert {tuple(row[:3]): row[3] for row in table.itertuples(index=False)} == dict(expected)


KINDS = ["session", "minutes", "adoption", "done", "skipped", "accepted", "rejected", "change", "rating", "survey"]
NOON = pd.Timestamp("2024-01-01T12:00Z")


def engaged(events):
    """Dataset of one user with these (kind, day); each event is one of its own."""
    tables = {name: [] for name in ("sessions", "adoptions", "recommendations", "modifications", "feedback", "surveys")}
    status = {}
    for number, (kind, day) in enumerate(events):
        at, pair = NOON + pd.Timedelta(days=day, seconds=number), {"user_id": "u", "habit_id": f"h{number}"}
        if kind in ("session", "minutes"):
            seconds = 600.0 if kind == "minutes" else None
            tables["sessions"].append(
                {"session_id": f"s{number}", "user_id": "u", "started_at": at, "seconds": seconds}
            )
        elif kind == "adoption":
            tables["adoptions"].append({**pair, "adopted_at": at})
        elif kind in ("accepted", "rejected"):
            tables["recommendations"].append(
                {"event_id": f"e{number}", **pair, "shown_at": at, "response": kind, "responded_at": at}
            )
        elif kind == "change":
            tables["modifications"].append({**pair, "at": at, "field": "reminder", "new": "on"})
        elif kind == "rating":
            tables["feedback"].append({**pair, "at": at, "rating": 3})
        elif kind == "survey":
            tables["surveys"].append(
                {
                    "user_id": "u",
                    "survey": f"{number}",
                    "question": "q",
                    "sent_at": at,
                    "answered_at": at,
                    "answer": 1.0,
                }
            )
        else:
            status[(f"h{number}", day)] = kind
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}
    if status:
        days = [
            track("1", start=str((NOON + pd.Timedelta(days=d)).date()), habit=h).assign(status=s)
            for (h, d), s in status.items()
        ]
        frames["habit_tracking"] = pd.concat(days)
    return Dataset(users=pd.DataFrame({"user_id": ["u", "v"]}), **frames)


EVENT = st.tuples(st.sampled_from(KINDS), st.integers(0, 40))


@settings(max_examples=25, deadline=None)
@given(st.lists(EVENT, max_size=12), EVENT)
def test_1_3_3_c_depth_never_falls_when_anything_is_added(events, more):
    before, after = (
        engagement_depth(engaged(events), "2024-01-30"),
        engagement_depth(engaged([*events, more]), "2024-01-30"),
    )
    assert after["u"] >= before["u"]
    assert (after["u"] > before["u"]) == (more[1] < 29), "more before the day is deeper, more after it is not yet known"
    assert after["v"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_1_3_3_c_without_a_day_everything_counts_whatever_came_last(kind):
    assert engagement_depth(engaged([("change", 1), (kind, 3)]))["u"] > np.log(2)


def test_1_3_3_c_the_formula():
    depth = engagement_depth(engaged([("minutes", 1), ("session", 2), ("done", 3), ("skipped", 4), ("change", 5)]))
    assert depth["u"] == pytest.approx(np.log(3) + np.log(11) + np.log(3) + np.log(2))


def true_influence(world, data):
    """Mean change of completion in the first 28 days with habit A held against without it, by habit A, over 6 replays.

    In this world a further habit acts through load alone.
    """
    chosen, _, _ = adopt(world)
    user, habit, start = chosen.user, chosen.habit, chosen.start
    changes = []
    for turn in range(6):
        rates = []
        for load in (chosen.load, chosen.load - 1):
            until = np.minimum(start + 28, world.days)
            course = again(
                world, turn, lambda load=load, until=until: world.replay(user, habit, start, load, until=until)
            )
            days = np.bincount(course.pair, minlength=len(user))
            rates.append(np.bincount(course.pair, course.done, len(user)) / np.maximum(days, 1))
        changes.append(rates[0] - rates[1])
    pairs = pd.DataFrame(
        {"user": user, "habit": habit, "start": start, "stop": start + world.lengths(user, habit, start)}
    )
    pairs = pairs.assign(change=np.mean(changes, axis=0) * days, days=days, pair=np.arange(len(user)))
    both = pairs.merge(pairs, on="user", suffixes=("", "_a"))
    both = both[
        (both["pair"] != both["pair_a"]) & (both["start_a"] <= both["start"]) & (both["stop_a"] > both["start"])
    ]
    sums = both.groupby("habit_a")[["change", "days"]].sum()
    return pd.Series((sums["change"] / sums["days"]).to_numpy(), index=data.habits["habit_id"].to_numpy()[sums.index])


class TestCrossHabitInfluence:
    @pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in (1, 2, 3))])
    def test_1_3_3_d_sign_and_coverage_against_the_truth_and_naive_beside(self, seed):
        world = make_world(users=1500, days=100, seed=seed)
        data = populate(world)
        table = cross_habit_influence(data).set_index("habit_id")
        truth = true_influence(world, data)[table.index]
        assert (truth < 0).all()

        def held(name):
            return ((table[f"{name}_low"] <= truth) & (truth <= table[f"{name}_high"])).mean()

        assert len(table) > 80
        assert 0.9 <= held("adjusted") <= 1
        assert held("naive") < 0.88 < held("adjusted"), "who holds a habit is not who does not"
        assert table["load_high"].iloc[0] < 0, "the sign of one habit more"
        assert table["load_low"].iloc[0] <= truth.mean() <= table["load_high"].iloc[0]
        assert (table["adjusted_low"] > 0).mean() < 0.05, "hardly any habit is said to help"

    def test_1_3_3_d_without_any_influence_none_is_found(self):
        data = simulate(1500, 100, 0, effects={"concurrent_habits_completion": 0})
        table = cross_habit_influence(data)
        assert table["load_low"].iloc[0] < 0 < table["load_high"].iloc[0]

    def test_1_3_3_d_a_habit_held_by_capable_people_only_looks_helpful_and_is_not(self):
        """By hand: h0 does nothing, but those who are good at everything hold it; some of their habits came before."""
        generator = np.random.default_rng(0)
        rows, tracking = [], []
        for user in range(120):
            able = user % 2
            starts = {"h1": 0, "h2": 0, "h3": 20, "h4": 20} | ({"h0": 10} if able else {})
            for habit, start in starts.items():
                rows.append((f"u{user}", habit, NOON + pd.Timedelta(days=start)))
                done = generator.random(28) < 0.3 + 0.4 * able
                first = str((NOON + pd.Timedelta(days=start)).date())
                tracking.append(track("".join(done.astype(int).astype(str)), first, habit, f"u{user}"))
        data = Dataset(
            users=pd.DataFrame({"user_id": [f"u{i}" for i in range(120)]}),
            habits=pd.DataFrame({"habit_id": [f"h{i}" for i in range(5)]}),
            habit_tracking=pd.concat(tracking),
            adoptions=pd.DataFrame(rows, columns=["user_id", "habit_id", "adopted_at"]),
        )
        row = cross_habit_influence(data).set_index("habit_id").loc["h0"]
        assert row["naive_low"] > 0.1
        assert row["adjusted_low"] < 0 < row["adjusted_high"]

    def test_too_few_users_give_an_empty_table(self, dataset):
        some = cross_habit_influence(dataset, fewest=5)
        none = cross_habit_influence(dataset, fewest=1000)
        assert len(none) == 0
        assert list(none) == list(some)
        assert len(cross_habit_influence(Dataset())) == 0


def test_nothing_at_all():
    assert len(acceptance(Dataset())) == len(engagement_depth(Dataset())) == len(modification_patterns(Dataset())) == 0
    assert len(acceptance_by_position(Dataset())) == 0
