"""Report 10: what it tells follows from what is planted, and holds on few people too."""

import pandas as pd
import pytest

from habitlab.dataset import Dataset
from habitlab.serving import monitoring
from habitlab.serving.monitoring import Check, Log, anomalies, drift
from habitlab.serving.monitoring import monitoring_report as report
from habitlab.simulation import simulate


@pytest.fixture(scope="module")
def logs() -> dict[str, Log]:
    return report.planted_logs(simulate(users=200, days=30, seed=2), days=84, per_day=150)


@pytest.fixture(scope="module")
def checks(logs: dict[str, Log]) -> dict[str, Check]:
    return {name: monitoring.check(log, by="day", since=report.begin_of_change(log)) for name, log in logs.items()}


def test_the_logs_are_one_until_the_change(logs: dict[str, Log]) -> None:
    change = report.begin_of_change(logs["as planted"])
    by_day = report.daily(logs).set_index(["log", "day"])
    before = by_day[by_day.index.get_level_values("day") < change]
    pd.testing.assert_frame_equal(before.loc["as planted"], before.loc["without"])
    after = by_day[by_day.index.get_level_values("day") >= change]
    assert (after.loc["as planted", "hit_rate"].mean()) < after.loc["without", "hit_rate"].mean() - 0.05
    assert set(report.planted_table(logs)["shows_in"]) == set(report.SHOWS_IN.values())


def test_first_alarms_and_counts_agree(checks: dict[str, Check], logs: dict[str, Log]) -> None:
    table = report.alarms(checks, logs).set_index("metric")
    counts = {one.key: one.estimate for one in report.alarm_counts(checks, logs)}
    assert counts["planted_metrics"] == 3
    assert counts["caught"] == table.loc[table["planted"], "first_alarm"].notna().sum()
    assert counts["false_alarms"] == len([a for a in checks["without"].alerts if not a.key.startswith("drift")])
    for name, row in table.dropna(subset=["first_alarm"]).iterrows():
        assert checks["as planted"].anomalies[name].loc[row["first_alarm"], "alarm"]
        assert row["days_until"] == (row["first_alarm"] - report.begin_of_change(logs["as planted"])).days + 1


def test_what_is_not_ripe_is_counted_once(logs: dict[str, Log]) -> None:
    ripe = report.last_days(logs["without"], resamples=50)
    told = {one.key: one for one in report.ripening(ripe)}
    shown = logs["without"].exposures["shown_at"]
    assert told["unripe"].estimate == (shown + pd.Timedelta(hours=25) > logs["without"].now).sum()
    assert told["naive_last"].estimate < told["ripe_rate"].estimate


def test_drift_is_told_of_both_logs(checks: dict[str, Check]) -> None:
    counts = {one.key: one.estimate for one in report.drift_counts(checks)}
    assert counts["planted_features"] == 2
    assert counts["drifted"] == checks["as planted"].drift["drifted"].sum() >= counts["drift_found"]
    assert counts["drifted_without"] == 0
    assert len(report.drift_table(checks["as planted"].drift)) == len(checks["as planted"].drift)


def test_the_sentence_on_retraining_follows_the_check(checks: dict[str, Check]) -> None:
    assert report.proposal_sentence(checks["as planted"]).startswith("Retraining is proposed")
    assert report.proposal_sentence(checks["without"]) == "Retraining is not proposed."


def test_simulated_curves_become_findings() -> None:
    curve = drift.power((0.0, 0.4), (150, 1000), features=2, trials=3, permutations=49)
    assert {one.key for one in report.power_findings(curve)} == {
        "fixed_false",
        "fixed_power",
        "null_false",
        "null_power",
    }
    table = anomalies.compare_detectors((0.0, 2.0), trials=2)
    assert {one.key for one in report.detector_findings(table)} >= {"sigma_false", "seasonal_hours"}


def test_where_people_are_too_few_those_of_the_sample_stand_in(tiny: Dataset) -> None:
    for few in (tiny, Dataset()):
        people, why = report.people_for(few)
        assert len(people.users) == 200
        assert "stand in" in why
    enough = simulate(users=60, days=10)
    assert report.people_for(enough) == (enough, "")
    assert "none of whom" in report.people_for(enough.replace(users=enough.users.drop(columns="age")))[1]


def test_a_short_log_and_no_people_are_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        report.planted_logs(simulate(users=20, days=10), days=30)
    with pytest.raises(ValueError, match="needs users"):
        report.planted_logs(Dataset())
