"""Online values equal those computed offline from the merged data (7.1.a), whatever order events arrive in."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Purpose
from habitlab.features.behavioural import user_features
from habitlab.features.rates import RatePrior
from habitlab.features.temporal import summary
from habitlab.models.interactions import refused
from habitlab.serving import events, state, updater
from habitlab.serving.base import bases_of, prepare_with, priors_of
from habitlab.serving.events import Stored
from habitlab.serving.history import Base, features, fold, local_day, since
from habitlab.simulation import simulate

NOW = datetime(2024, 12, 1, tzinfo=UTC)
START = pd.Timestamp("2024-02-01", tz="UTC")
ONLINE = ("adopted", "abandoned", "held", "counted_days", "completion_rate", "accepted", "rejected", "ratings")
STRENGTH = ["unknown", "missed", "skipped", "done"]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=30, days=60, seed=3)


def arriving(data: Dataset, generator: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Events as clients send them: any kind, in any order, some of them for days and habits that are known already."""
    users, habits = data.users["user_id"].to_numpy(), data.habits["habit_id"].to_numpy()[:8]
    own = data.habit_tracking.groupby("user_id", observed=True)["habit_id"].unique()
    found = []
    for number in range(count):
        user = str(generator.choice(users))
        mine = own.get(user, habits)
        event: dict[str, Any] = {
            "event_id": f"e{number}",
            "user_id": user,
            "habit_id": str(generator.choice(mine if generator.random() < 0.7 else habits)),
            "happened_at": str(START + pd.Timedelta(minutes=int(generator.integers(90_000)))),
        }
        kind = str(generator.choice(["completion", "adoption", "abandonment", "response", "rating", "consent"]))
        special: dict[str, Any] = {
            "completion": {"status": str(generator.choice(STRENGTH))},
            "response": {"response": str(generator.choice(["viewed", "accepted", "rejected"]))},
            "rating": {"rating": int(generator.integers(1, 6))},
            "consent": {"purpose": "research", "granted": True},
        }.get(kind, {})
        if kind == "completion" and generator.random() < 0.5:
            before = pd.Timedelta(days=int(generator.integers(-1, 60)))
            special["date"] = str((pd.Timestamp(event["happened_at"]) - before).date())
        if kind == "response" and generator.random() < 0.5:
            special["recommendation"] = f"x{generator.integers(40)}"
        if kind == "consent":
            del event["habit_id"]
        found.append(event | {"kind": kind} | special)
    return found


def merged(data: Dataset, told: Sequence[dict[str, Any]]) -> Dataset:
    """The data with the events as rows of their tables: slow and plain, another way than the service's."""
    zones = data.users.set_index("user_id")["zone"]
    starts = data.users.set_index("user_id")["day_start"].fillna(0)
    told = sorted(told, key=lambda e: (pd.Timestamp(e["happened_at"]), int(e["event_id"][1:])))
    days = {
        (row.user_id, row.habit_id, row.date): str(row.status)
        for row in data.habit_tracking.itertuples()
    }  # fmt: skip
    spans: dict[tuple[str, str], list[list[Any]]] = {}
    for row in data.adoptions.itertuples():
        spans.setdefault((row.user_id, row.habit_id), []).append([row.adopted_at, row.abandoned_at])
    shown: dict[str, dict[str, Any]] = {}
    ratings = []
    changed = {(e["user_id"], e["habit_id"]) for e in told if e["kind"] in ("adoption", "abandonment")}
    for pair in changed:
        mine = [e for e in told if e["kind"] in ("adoption", "abandonment") and (e["user_id"], e["habit_id"]) == pair]
        changes = [(pd.Timestamp(e["happened_at"]), e["kind"] == "adoption") for e in mine]
        changes += [(start, True) for start, _ in spans.get(pair, [])]
        changes += [(end, False) for _, end in spans.get(pair, []) if not pd.isna(end)]
        spans[pair] = []
        for moment, starting in sorted(changes):
            running = bool(spans[pair]) and pd.isna(spans[pair][-1][1])
            if starting and not running:
                spans[pair].append([moment, pd.NaT])
            elif running and not starting:
                spans[pair][-1][1] = moment
    for e in told:
        user, at = e["user_id"], pd.Timestamp(e["happened_at"])
        if e["kind"] == "completion":
            local = at.tz_convert(zones[user]) - pd.Timedelta(hours=starts[user])
            day = pd.Timestamp(e.get("date") or local.date())
            key = user, e["habit_id"], day
            days[key] = max(days.get(key, "unknown"), e["status"], key=STRENGTH.index)
        elif e["kind"] == "response":
            name = e.get("recommendation", e["event_id"])
            row = {"user_id": user, "habit_id": e["habit_id"], "shown_at": at, "responded_at": at}
            before = shown.get(f"{user} {name}", {}).get("response")
            if before is None or e["response"] != "viewed":
                shown[f"{user} {name}"] = row | {"response": e["response"]}
        elif e["kind"] == "rating":
            ratings.append({"user_id": user, "habit_id": e["habit_id"], "at": at, "rating": e["rating"]})

    def add(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
        return pd.concat([data.table(name), pd.DataFrame(rows)], ignore_index=True) if rows else data.table(name)

    return data.replace(
        habit_tracking=pd.DataFrame(
            [{"user_id": u, "habit_id": h, "date": d, "status": s} for (u, h, d), s in sorted(days.items())]
        ),
        adoptions=pd.DataFrame(
            [
                {"user_id": u, "habit_id": h, "adopted_at": a, "abandoned_at": b}
                for (u, h), mine in spans.items()
                for a, b in mine
            ]
        ),
        recommendations=add("recommendations", [{"event_id": name} | row for name, row in shown.items()]),
        feedback=add("feedback", ratings),
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_7_1_a_online_values_are_the_offline_ones(data, tmp_path, seed):
    """The skew between what is served and what is trained on is 0, to the last bit."""
    told = arriving(data, np.random.default_rng(seed), 400)
    with closing(state.connect(tmp_path)) as connection:
        prepare_with(connection, "data", lambda: data, NOW)
        for event in told:
            with state.transaction(connection):
                events.append(connection, [events._ONE.validate_python(event, strict=False)], NOW)
                updater.apply(connection, NOW)
        rows = dict(connection.execute("SELECT user_id, body FROM features").fetchall())
    online = {user: json.loads(body) for user, body in rows.items()}
    whole = merged(data, told)
    offline = user_features(whole)
    assert set(online) == set(offline.index)
    for name in ONLINE:
        found = np.array([online[user]["user"][name] for user in offline.index], dtype=float)
        assert np.array_equal(found, offline[name].to_numpy(), equal_nan=True), name
    pairs = summary(whole.habit_tracking, whole.habits).set_index(["user_id", "habit_id"])
    prior = RatePrior(*priors_of(data)["habit"])
    expected = prior.shrink(pairs["done"].to_numpy(), (pairs["done"] + pairs["missed"]).to_numpy())
    found = [online[user]["habits"][habit]["completion"] for user, habit in pairs.index]
    assert np.array_equal(found, expected)
    assert sum(len(body["habits"]) for body in online.values()) == len(pairs)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_7_1_a_the_order_of_arrival_changes_nothing(seed, random):
    base = Base(
        zone="Asia/Kolkata", tracking={"h1": (19_000, "dm.s")}, adoptions=[("h1", "2022-01-08T00:00:00.000000Z", None)]
    )
    generator = np.random.default_rng(seed)
    kinds = [
        ("completion", {"status": "done"}), ("completion", {"status": "missed"}), ("adoption", {}),
        ("abandonment", {}), ("response", {"response": "rejected"}), ("response", {"response": "accepted"}),
    ]  # fmt: skip
    told = []
    for number in range(12):
        kind, special = kinds[generator.integers(len(kinds))]
        at = datetime(2022, 1, 1, tzinfo=UTC) + timedelta(hours=int(generator.integers(24 * 20)), seconds=number)
        habit = f"h{generator.integers(1, 4)}"
        told.append(Stored(number, f"e{number}", "ann", kind, at, at, {"habit_id": habit} | special))
    order = list(told)
    random.shuffle(order)
    mixed = [replace(one, sequence=number) for number, one in enumerate(order)]
    assert fold(base, told) == fold(base, mixed)
    priors = {"user": [1.0, 1.0], "habit": [2.0, 1.0]}
    assert features(fold(base, told), priors) == features(fold(base, mixed), priors)


def event(number: int, kind: str, day: int = 1, **payload: Any) -> Stored:
    at = datetime(2026, 1, day, 12, tzinfo=UTC)
    return Stored(number, f"e{number}", "ann", kind, at, at, {"habit_id": "h1"} | payload)


def test_8_3_b_a_completion_updates_the_beta_posterior():
    priors = {"user": [3.0, 2.0], "habit": [1.0, 1.0]}
    told = [event(n, "completion", day=n, status=s) for n, s in enumerate(["done", "done", "missed", "skipped"], 1)]
    found = features(fold(Base(), told), priors)
    assert found["habits"]["h1"] == {"done": 2, "missed": 1, "completion": 3 / 5, "alpha": 3.0, "beta": 2.0}
    assert (found["user"]["alpha"], found["user"]["beta"]) == (5.0, 3.0)
    moved = since(found, features(fold(Base(), []), priors)).success
    assert moved == pytest.approx(np.log(5 / 3) - np.log(3 / 2))


def test_7_1_d_what_is_given_up_is_no_longer_held_and_what_is_taken_up_again_is():
    over = fold(Base(), [event(1, "adoption", 1), event(2, "abandonment", 2)])
    assert (over.held, over.released, over.adopted, over.abandoned) == (frozenset(), {"h1"}, 1, 1)
    again = fold(Base(), [event(1, "adoption", 1), event(2, "abandonment", 2), event(3, "adoption", 3)])
    assert (again.held, again.released, again.adopted, again.abandoned) == ({"h1"}, frozenset(), 2, 1)
    tracked = fold(Base(), [event(1, "abandonment", 1), event(2, "completion", 2, status="done")])
    assert tracked.held == {"h1"}


def test_7_1_d_a_change_of_mind_takes_a_rejection_back():
    day = local_day(datetime(2026, 1, 1, tzinfo=UTC), "")
    assert fold(Base(), [event(1, "response", 1, response="rejected")]).rejected_on == {"h1": day}
    mind = [event(1, "response", 1, response="rejected"), event(2, "response", 2, response="accepted")]
    assert fold(Base(), mind).rejected_on == {}


def test_a_day_is_the_local_one():
    late = datetime(2026, 1, 1, 20, tzinfo=UTC)
    assert local_day(late, "Asia/Kolkata") == local_day(late, "UTC") + 1
    assert local_day(late, "Asia/Kolkata", day_start=3) == local_day(late, "UTC")
    assert local_day(late, "No/Where") == local_day(late, "")


def test_the_base_is_read_back_as_it_was_written(data):
    for base in bases_of(data).values():
        again = Base.from_json(base.to_json())
        assert fold(again, []) == fold(base, [])


def test_who_refused_personalisation_last_is_opted_out(data):
    told = data.consents[data.consents["purpose"] == "personalisation"]
    last = {row.user_id: row.granted for row in told.sort_values("at").itertuples()}
    assert refused(data, Purpose.PERSONALISATION) == {user for user, granted in last.items() if not granted}
    assert refused(data, Purpose.PERSONALISATION)
