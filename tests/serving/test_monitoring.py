"""7.3.a Monitoring: counters equal an oracle over a replayed log; adoption waits until it is ripe; shifts are found."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from flask import Flask

from habitlab.dataset import Dataset
from habitlab.serving import events, monitoring, state
from habitlab.serving.monitoring import Log
from habitlab.serving.monitoring.replay import Planted, read_log, replay
from habitlab.simulation import simulate

NOW = pd.Timestamp("2026-02-02", tz="UTC")


@pytest.fixture(scope="module")
def people() -> Dataset:
    return simulate(users=300, days=30, seed=1)


@pytest.fixture(scope="module")
def quiet(people: Dataset) -> Log:
    return replay(people, days=84, per_day=150, seed=4)


def by_hand(hours: list[float], adopted: list[float | None]) -> Log:
    """Habits shown so many hours before `NOW`, and adopted so many hours later."""
    at = [NOW - pd.Timedelta(hours=h) for h in hours]
    shown = pd.DataFrame(
        {
            "event_id": [f"x{i}" for i in range(len(at))],
            "user_id": [f"u{i}" for i in range(len(at))],
            "habit_id": "h1",
            "shown_at": pd.DatetimeIndex(at),
            "position": 1,
        }
    )
    taken = [(i, at[i] + pd.Timedelta(hours=h)) for i, h in enumerate(adopted) if h is not None]
    table = pd.DataFrame(taken, columns=["i", "adopted_at"])
    adoptions = pd.DataFrame(
        {
            "event_id": [f"a{i}" for i in table["i"]],
            "user_id": [f"u{i}" for i in table["i"]],
            "habit_id": "h1",
            "adopted_at": pd.DatetimeIndex(table["adopted_at"]),
            "received_at": pd.DatetimeIndex(table["adopted_at"]),
        }
    )
    requests = pd.DataFrame({"at": pd.DatetimeIndex(at), "seconds": 0.01, "served_from": "memory", "answers": 1})
    return Log(requests, shown, adoptions, shown[["user_id"]].assign(at=pd.DatetimeIndex(at)), NOW)


def test_7_3_a_counters_equal_an_oracle_over_a_replayed_log(quiet: Log) -> None:
    """Row by row, in plain Python."""
    levels = Counter(quiet.requests["served_from"])
    found = monitoring.counters(quiet)
    assert found["answers"] == len(quiet.requests)
    assert {level: found[f"answers from {level}"] for level in levels} == levels
    hits = monitoring.hit_rate(quiet).iloc[0]
    assert hits["hit_rate"] == pytest.approx(levels["memory"] / levels.total())
    for q in (0.5, 0.95, 0.99):
        expected = np.quantile(quiet.requests["seconds"], q, method="inverted_cdf")
        assert monitoring.latency(quiet)[f"p{100 * q:g}"].iloc[0] == pytest.approx(expected, rel=1e-12)
    when: dict[tuple[str, str], list[pd.Timestamp]] = {}
    for row in quiet.adoptions.itertuples():
        when.setdefault((row.user_id, row.habit_id), []).append(row.adopted_at)
    counts, days = Counter(), Counter()
    for row in quiet.exposures.itertuples():
        if row.shown_at + timedelta(hours=25) <= quiet.now:
            days[row.shown_at.date()] += 1
            waits = [at - row.shown_at for at in when.get((row.user_id, row.habit_id), [])]
            counts[row.shown_at.date()] += any(timedelta(0) <= wait <= timedelta(hours=24) for wait in waits)
    daily = monitoring.adoption_24h(quiet, "day", resamples=50)
    for day, row in daily.iterrows():
        assert row["shown"] == days[day.date()]
        if row["shown"]:
            assert row["rate"] == pytest.approx(counts[day.date()] / days[day.date()])
    assert monitoring.adoption_24h(quiet)["rate"].iloc[0] == pytest.approx(counts.total() / days.total())


def test_latency_and_hits_by_hour_equal_an_oracle(quiet: Log) -> None:
    hour = quiet.requests["at"].dt.floor("h")
    for found, name, oracle in (
        (monitoring.latency(quiet, "hour"), "p95", lambda g: np.quantile(g["seconds"], 0.95, method="inverted_cdf")),
        (monitoring.hit_rate(quiet, "hour"), "hit_rate", lambda g: (g["served_from"] == "memory").mean()),
    ):
        expected = {at: oracle(group) for at, group in quiet.requests.groupby(hour)}
        assert list(found.index) == sorted(expected)
        assert found[name].to_numpy() == pytest.approx([expected[at] for at in found.index])


def test_a_histogram_gives_quantiles_within_its_bins() -> None:
    bins = pd.DataFrame(
        {
            "at": NOW,
            "lower": [0.0, 0.1, 1.0, 0.0],
            "seconds": [0.1, 1.0, np.inf, 0.1],
            "served_from": "memory",
            "answers": [40, 50, 1, 9],
        }
    )
    log = Log(bins, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), NOW)
    found = monitoring.latency(log).iloc[0]
    assert found["p50"] == pytest.approx(0.1 + 0.9 * (50 - 49) / 50)
    assert found["p95"] == pytest.approx(0.1 + 0.9 * (95 - 49) / 50)
    assert found["p99"] == pytest.approx(1.0)
    assert monitoring.latency(log, quantiles=(1.0,))["p100"].iloc[0] == 1.0  # beyond the last bound: at least that


def test_d110_the_last_day_waits_until_it_is_ripe() -> None:
    log = by_hand([60, 50, 30, 20, 2, 1], [3, None, None, 10, None, None])
    found = monitoring.adoption_24h(log).iloc[0]
    assert (found["shown"], found["immature"]) == (3, 3)
    assert found["rate"] == pytest.approx(1 / 3)
    assert found["naive"] == pytest.approx(2 / 6)
    edge = by_hand([25.0, 24.99], [None, 24.0])
    assert monitoring.adoption_24h(edge).iloc[0]["shown"] == 1  # 24 hours and the delay of an hour
    assert monitoring.adoption_24h(edge, delay=pd.Timedelta(0)).iloc[0]["shown"] == 2


def test_adoption_before_the_list_or_after_24_hours_does_not_count() -> None:
    log = by_hand([100, 100, 100, 100], [-1, 0, 24, 24.01])
    assert monitoring.adopted_within(log).tolist() == [False, True, True, False]


def test_events_repeated_out_of_order_and_from_the_future(quiet: Log) -> None:
    """A log in any order, with repeats, rows of the future and without instants counts as the one it comes from."""
    later = {name: getattr(quiet, name).iloc[:7].copy() for name in ("requests", "exposures", "adoptions", "features")}
    for name, column in monitoring._INSTANT.items():
        later[name][column] = quiet.now + pd.Timedelta(days=400)  # a clock that jumped
        if "event_id" in later[name]:
            later[name]["event_id"] += "z"
        later[name].loc[later[name].index[-1], column] = pd.NaT
    messy = Log(
        *(
            pd.concat([getattr(quiet, name), rows] + ([getattr(quiet, name).iloc[:5]] if "event_id" in rows else []))
            .sample(frac=1, random_state=0)
            .reset_index(drop=True)
            for name, rows in later.items()
        ),
        now=quiet.now,
    )
    cleaned, left_out = monitoring.clean(messy)
    assert left_out["from the future"] == 24
    assert left_out["without an instant"] == 4
    assert left_out["repeated"] == 10
    assert monitoring.counters(cleaned) == monitoring.counters(quiet)
    pd.testing.assert_frame_equal(monitoring.adoption_24h(cleaned), monitoring.adoption_24h(quiet))
    pd.testing.assert_frame_equal(monitoring.latency(cleaned, "day"), monitoring.latency(quiet, "day"))


def test_a_quiet_log_has_no_alarm_and_a_planted_one_does(people: Dataset, quiet: Log) -> None:
    found = monitoring.check(quiet, since=NOW - pd.Timedelta(days=900))
    assert len(found.alerts) <= 1
    assert not found.proposal.retrain
    planted = (Planted("slow", 70, 2.0), Planted("cache", 70, 0.2), Planted("people", 70, 0.8))
    found = monitoring.check(
        replay(people, planted, days=84, per_day=150, seed=4), since=quiet.now - 14 * monitoring.DAY
    )
    keys = {alert.key for alert in found.alerts}
    assert {"latency p95", "hit rate", "drift of age"} <= keys
    assert found.proposal.retrain
    assert found.proposal.reasons[0].startswith("age drifted")


def test_falling_adoption_is_a_reason_to_retrain_and_a_rise_is_no_alarm(people: Dataset) -> None:
    always, worse = (replay(people, (Planted("adoption", day, 0.7),), days=84, per_day=200, seed=4) for day in (0, 70))
    usual = replay(people, (), days=84, per_day=200, seed=4)
    turn = usual.now - 14 * monitoring.DAY
    reasons = monitoring.check(worse, since=turn).proposal.reasons
    assert any("adoption in 24 h" in reason for reason in reasons)
    parts = [
        always.adoptions[always.adoptions["adopted_at"] < turn],
        usual.adoptions[usual.adoptions["adopted_at"] >= turn],
    ]
    found = monitoring.check(replace(usual, adoptions=pd.concat(parts)), since=turn)
    assert found.anomalies["adoption in 24 h"]["alarm"].any()
    assert not any("adoption" in alert.key for alert in found.alerts)


def test_missing_answers_are_drift(people: Dataset) -> None:
    log = replay(people, (Planted("missing", 70, 0.4),), days=84, per_day=150, seed=4)
    found = monitoring.drift_of_features(log).set_index("feature")
    assert found.loc["time_commitment", "drifted"]
    assert found.loc["time_commitment", "missing_current"] > 0.3


def test_what_is_planted_is_the_only_difference(people: Dataset, quiet: Log) -> None:
    log = replay(people, (Planted("slow", 70, 0.5),), days=84, per_day=150, seed=4)
    pd.testing.assert_frame_equal(log.exposures, quiet.exposures)
    pd.testing.assert_frame_equal(log.adoptions, quiet.adoptions)
    changed = log.requests["seconds"] != quiet.requests["seconds"]
    assert set(log.requests.loc[changed, "served_from"]) == {"computed"}
    assert log.requests.loc[changed, "at"].min() >= pd.Timestamp("2026-01-05", tz="UTC") + pd.Timedelta(days=70)


def test_wrong_plants_are_refused(people: Dataset) -> None:
    for wrong in (Planted("luck", 1, 0.1), Planted("cache", 1, 2.0), Planted("slow", 99, 1.0)):
        with pytest.raises(ValueError, match=r"luck|strength|day"):
            replay(people, (wrong,), days=84)


def test_an_empty_log_has_nothing_to_tell(quiet: Log) -> None:
    nothing = Log(*(getattr(quiet, name).iloc[:0] for name in monitoring._INSTANT), now=NOW)
    found = monitoring.check(nothing)
    assert found.alerts == ()
    assert not found.proposal.retrain
    assert monitoring.counters(nothing)["answers"] == 0


def test_the_log_of_a_service_is_read(tmp_path: Path, tiny: Dataset) -> None:
    with pytest.raises(FileNotFoundError, match="habitlab serve"):
        read_log(tmp_path, tiny, NOW)
    at = datetime(2026, 2, 1, 12, tzinfo=UTC)
    connection = state.connect(tmp_path)
    with state.transaction(connection):
        connection.execute(
            "INSERT INTO traffic (started_at, worker, served_from, answers, latencies) VALUES (?, 'w', 'memory', 3, ?)",
            (state.stamp(at), json.dumps({"0.001": 2, "0.0025": 0, "0.005": 1, "inf": 0})),
        )
        for place, habit in enumerate(("h001", "h002"), 1):
            connection.execute(
                "INSERT INTO exposures (event_id, user_id, habit_id, shown_at, position, times, last_shown_at)"
                " VALUES (?, 'ann', ?, ?, ?, 1, ?)",
                (f"e-{place}", habit, state.stamp(at), place, state.stamp(at)),
            )
        told = {"user_id": "ann", "happened_at": state.stamp(at + timedelta(hours=1))}
        told_of = [
            {"event_id": "1", "kind": "adoption", "habit_id": "h001", **told},
            {"event_id": "2", "kind": "response", "habit_id": "h002", "response": "rejected", **told},
        ]
        events.append(connection, events.parse(json.dumps(told_of).encode()), at + timedelta(hours=2))
    connection.close()
    log = read_log(tmp_path, tiny, NOW + pd.Timedelta(days=3))
    assert monitoring.counters(log) == {
        "answers": 3,
        "answers from memory": 3,
        "habits shown": 2,
        "adoptions": 1,
        "people": 1,
    }
    assert monitoring.adoption_24h(log)["rate"].iloc[0] == 0.5
    assert monitoring.latency(log)["p50"].iloc[0] == pytest.approx(0.00075)
    assert log.features.loc[0, ["user_id", "age", "improvement_areas"]].tolist() == ["ann", 34, 2]


def test_7_3_a_what_a_service_could_not_answer_is_an_error(
    make: Callable[..., Flask], folder: Path, world: Path, clock: Any
) -> None:
    """Faults of the service are counted, also while the database cannot be read; a wrong question is none."""
    app = make(background=False)
    client, service = app.test_client(), app.extensions["habitlab"]
    answers = [client.get("/v1/recommend?user_id=u0000001&k=3") for _ in range(3)]
    answers.append(client.get("/v1/recommend?user_id=u0000001&k=0"))
    for fault in (sqlite3.OperationalError("disk I/O error"), RuntimeError("a mistake")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service, "recommend", Mock(side_effect=fault))
            answers.append(client.get("/v1/recommend?user_id=u0000001&k=3"))
    assert [answer.status_code // 100 for answer in answers] == [2, 2, 2, 4, 5, 5]
    service.exposures.flush()
    log = read_log(folder, Dataset.load(world), pd.Timestamp(clock()) + pd.Timedelta(hours=1))
    found = monitoring.hit_rate(log).iloc[0]
    assert found["errors"] == pytest.approx(2 / 5)
    assert found["answers"] == 3


def test_monitor_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`habitlab monitor`: 2 without a service, 0 where nothing is to be seen, 1 with an alert, which goes to a file."""
    from habitlab.cli import main

    def call(*more: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["habitlab", "monitor", "--data", "sample", "--state", str(tmp_path), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, _, error = call()
    assert code == 2
    assert "habitlab serve" in error
    connection = state.connect(tmp_path)
    code, told, _ = call()
    assert (code, told.splitlines()[0]) == (0, "0 answers, 0 habits shown, 0 adoptions, 0 people")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with state.transaction(connection):
        for ago in range(1, 40):
            bins = {"0.01": 100, "0.05": 0, "0.1": 0} if ago > 1 else {"0.01": 0, "0.05": 0, "0.1": 100}
            connection.execute(
                "INSERT INTO traffic (started_at, worker, served_from, answers, latencies)"
                " VALUES (?, 'w', 'memory', 100, ?)",
                (state.stamp(today - timedelta(days=ago)), json.dumps(bins)),
            )
    connection.close()
    code, told, error = call("--webhook", "http://127.0.0.1:1/")
    assert code == 1
    assert "ALERT latency p95 is up" in told
    assert "could not be sent to the webhook" in error
    lines = (tmp_path / "logs" / "alerts.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in lines} == {"median latency", "latency p95"}
    assert call()[0] == 1  # still so, but nobody is told again
    assert (tmp_path / "logs" / "alerts.jsonl").read_text().splitlines() == lines
